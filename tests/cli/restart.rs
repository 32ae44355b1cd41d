//! `run --supervise` with `watch`: a child is started again when, and only when, what it was given has changed, is complete and
//! is still granted. The faults of others are named for the program and its issue.

use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use crate::harness::Scene;
use crate::supervised::{Supervised, children, state, wait_until};

const WATCH: &str = "[run]\nmode = \"supervise\"\nwatch = \"100ms\"\ngrace = \"20s\"";

/// Says what it has, and ends when it is asked to.
const CHILD: &str = "sleep 1000 & trap 'kill $!; exit 0' TERM; echo \"$$ $A\"; wait";

fn watched(more: &str, script: &str) -> Supervised {
    let scene = Scene::with(&[("A", "one"), ("B", "two")]).and(WATCH).and(more);
    Supervised::start(scene, script)
}

pub fn pid_and_value(supervised: &mut Supervised) -> (u32, String) {
    let line = supervised.line();
    let (pid, value) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?}"));
    (pid.parse().unwrap(), value.to_owned())
}

/// The records so far: the last line may be about to be written.
fn records(scene: &Scene) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(scene.path("audit.jsonl")).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub fn count(scene: &Scene, event: &str) -> usize {
    records(scene).iter().filter(|record| record["event"] == event).count()
}

/// The reasons in the records of this event.
pub fn reasons(scene: &Scene, event: &str) -> Vec<String> {
    let records = records(scene);
    let those = records.iter().filter(|record| record["event"] == event);
    those.map(|record| record["reason"].as_str().unwrap_or_default().to_owned()).collect()
}

fn end(supervised: Supervised) -> Scene {
    supervised.send("TERM");
    let (status, _, scene) = supervised.end();
    assert_eq!(status.code(), Some(0));
    scene.vouchsafe(&["audit", "verify", "audit.jsonl"]).expect_status(0);
    scene
}

#[test]
fn a_changed_secret_starts_the_child_again() {
    let mut supervised = watched("", CHILD);
    let (first, value) = pid_and_value(&mut supervised);
    assert_eq!(value, "one");
    for (secret, expected) in [("three", "three"), ("four", "four")] {
        supervised.scene.store(&[("A", secret), ("B", "two")]);
        let (next, value) = pid_and_value(&mut supervised);
        assert_eq!(value, expected);
        assert_ne!(next, first);
        assert_eq!(children(supervised.pid()).iter().filter(|pid| **pid == first).count(), 0);
    }
    let scene = end(supervised);
    assert_eq!(reasons(&scene, "child.restarting"), ["the injected secrets have changed"; 2]);
    assert_eq!((count(&scene, "access.released"), count(&scene, "child.exited")), (3, 3));
    // Released and announced before the old one ended; and the end of each under its own access.
    let records = scene.audit();
    let order: Vec<(&str, &str)> = records
        .iter()
        .map(|record| (record["event"].as_str().unwrap(), record["access"].as_str().unwrap()))
        .filter(|(event, _)| !["access.requested", "access.compared", "access.failed"].contains(event))
        .collect();
    let [first, second, announced, exited, ..] = order[..] else { panic!("{order:?}") };
    assert_eq!(
        [first.0, second.0, announced.0, exited.0],
        ["access.released", "access.released", "child.restarting", "child.exited"]
    );
    assert_eq!((second.1, exited.1), (announced.1, first.1));
    assert_ne!(first.1, second.1);
}

#[test]
fn what_has_not_changed_starts_nothing_again() {
    let mut supervised = watched("", CHILD);
    let (child, _) = pid_and_value(&mut supervised);
    for round in 1..4 {
        // The same values in another file; a new one that is not the child's.
        supervised.scene.store(&[("C", &round.to_string()), ("B", "two"), ("A", "one")]);
        let seen = count(&supervised.scene, "access.compared");
        wait_until("two more looks", || count(&supervised.scene, "access.compared") >= seen + 2);
    }
    assert_eq!(children(supervised.pid())[0], child);
    let scene = end(supervised);
    assert_eq!((count(&scene, "access.released"), count(&scene, "child.restarting")), (1, 0));
    assert!(reasons(&scene, "access.compared").iter().all(|reason| reason == "nothing has changed"));
}

/// Several secrets are written one after the other; the child is not started with a half of them.
#[test]
fn a_change_is_looked_at_twice() {
    let mut supervised = watched("", "sleep 1000 & trap 'kill $!; exit 0' TERM; echo \"$$ $A $B\"; wait");
    assert_eq!(pid_and_value(&mut supervised).1, "one two");
    supervised.scene.store(&[("A", "x"), ("B", "two")]);
    wait_until("the change was seen", || {
        reasons(&supervised.scene, "access.compared").iter().any(|reason| reason.starts_with("something has changed"))
    });
    let (_, value) = pid_and_value(&mut supervised);
    assert_eq!(value, "x two");
    drop(end(supervised));
}

/// The last good values go on: a store that is gone, a secret that is missing, a grant that was taken back.
#[test]
fn a_look_that_fails_changes_nothing() {
    let mut supervised = watched("", CHILD);
    let (child, _) = pid_and_value(&mut supervised);
    let policy = supervised.scene.path("policy.toml");
    let text = std::fs::read_to_string(&policy).unwrap();

    std::fs::remove_file(supervised.scene.path("store.age")).unwrap();
    wait_until("a failure", || count(&supervised.scene, "access.failed") >= 1);
    supervised.scene.store(&[("A", "new and alone")]);
    let failures = count(&supervised.scene, "access.failed");
    wait_until("another failure", || count(&supervised.scene, "access.failed") > failures);
    supervised.scene.store(&[("A", "new"), ("B", "two")]);
    std::fs::write(&policy, text.replace("secrets = [\"*\"]", "secrets = [\"B\"]")).unwrap();
    wait_until("a denial", || count(&supervised.scene, "access.denied") >= 1);
    assert_eq!((children(supervised.pid())[0], state(child).as_str()), (child, "S"));
    assert_eq!(count(&supervised.scene, "child.restarting"), 0);

    std::fs::write(&policy, text).unwrap();
    assert_eq!(pid_and_value(&mut supervised).1, "new");
    drop(end(supervised));
}

/// envconsul #177: the old child is alive when the new one starts. #317: KILL reaches only the shell, not what it started.
#[test]
fn envconsul_starts_the_new_child_beside_a_rest_of_the_old_one() {
    let script = "exec 9>>lock; flock -n 9 || { echo \"$$ taken\"; exit 3; }; trap '' TERM; \
                  sh -c 'sleep 1000; true' >/dev/null & trap 'exit 0' TERM; echo \"$$ $A\"; wait";
    let scene = Scene::with(&[("A", "one")]).and(&WATCH.replace("20s", "300ms"));
    let mut supervised = Supervised::start(scene, script);
    let (first, value) = pid_and_value(&mut supervised);
    assert_eq!(value, "one");
    supervised.scene.store(&[("A", "two")]);
    let (second, value) = pid_and_value(&mut supervised);
    assert_eq!(value, "two", "nothing held the lock any more");
    assert_ne!(first, second);
    supervised.send("TERM");
    let (status, _, scene) = supervised.end();
    assert_eq!(status.code(), Some(0));
    kill_group(&scene, second);
}

fn kill_group(scene: &Scene, group: u32) {
    assert!(scene.other("sh", &["-c", &format!("kill -9 -{group}")]).status().unwrap().success());
}

/// A child that does not hear TERM is killed when its grace is over; one that takes its time within it is not.
#[test]
fn the_grace_is_given() {
    let script = "sleep 1000 & trap 'echo \"$$ asked\"; read -r line; echo \"$$ done\"; exit 0' TERM; echo \"$$ $A\"; wait; wait";
    let mut supervised = watched("", script);
    let (first, _) = pid_and_value(&mut supervised);
    supervised.scene.store(&[("A", "three"), ("B", "two")]);
    assert_eq!(pid_and_value(&mut supervised), (first, "asked".into()));
    // It takes as long as we do not answer.
    supervised.answer("\n");
    assert_eq!(pid_and_value(&mut supervised), (first, "done".into()));
    assert_eq!(pid_and_value(&mut supervised).1, "three");
    supervised.send("TERM");
    assert_eq!(supervised.line().split_once(' ').unwrap().1, "asked");
    supervised.answer("\n");
    assert_eq!(supervised.end().0.code(), Some(0));
}

/// vault PR #20950: it exits during a restart, and the child goes on. Whoever asks us to end in between is heard.
#[test]
fn vault_cannot_be_stopped_during_a_restart() {
    let script = "sleep 1000 & n=0; trap 'n=$((n+1)); echo \"$$ asked $n\"; [ $n -lt 2 ] || { kill $!; exit 5; }' TERM; \
                  echo \"$$ $A\"; while :; do wait; done";
    let mut supervised = watched("", script);
    let (first, _) = pid_and_value(&mut supervised);
    supervised.scene.store(&[("A", "three"), ("B", "two")]);
    assert_eq!(pid_and_value(&mut supervised), (first, "asked 1".into()));
    supervised.send("TERM");
    assert_eq!(pid_and_value(&mut supervised), (first, "asked 2".into()));
    let (status, rest, scene) = supervised.end();
    assert_eq!((status.code(), rest.as_str()), (Some(5), ""), "no other child");
    assert_eq!(count(&scene, "child.exited"), 1);
}

/// `docker stop` right after a change: the end that was asked for is none that wants another chance.
#[test]
fn an_end_that_was_asked_for_is_the_end() {
    let mut supervised = watched("", "echo \"$$ $A\"; exec sleep 1000");
    pid_and_value(&mut supervised);
    supervised.scene.store(&[("A", "three"), ("B", "two")]);
    pid_and_value(&mut supervised);
    supervised.send("TERM");
    let (status, rest, scene) = supervised.end();
    assert_eq!((status.signal(), rest.as_str()), (Some(15), ""));
    assert_eq!(count(&scene, "child.restarting"), 1);
}

/// A child that was asked to end and still has work to do is not started again meanwhile.
#[test]
fn a_child_that_is_about_to_end_is_left_alone() {
    let script =
        "sleep 1000 & trap 'echo \"$$ asked\"; sleep 1; read -r line; kill $!; exit 5' TERM; echo \"$$ $A\"; wait";
    let mut supervised = watched("", script);
    let (child, _) = pid_and_value(&mut supervised);
    supervised.send("TERM");
    assert_eq!(pid_and_value(&mut supervised), (child, "asked".into()));
    supervised.scene.store(&[("A", "three"), ("B", "two")]);
    let (status, rest, scene) = supervised.end();
    assert_eq!((status.code(), rest.as_str()), (Some(5), ""));
    assert_eq!(count(&scene, "child.restarting"), 0);
}

/// A child that cannot live with the new value is started three times more, and then its status is ours.
#[test]
fn a_child_that_dies_after_a_change_is_not_started_for_ever() {
    let script = format!("[ $A = one ] || {{ echo \"$$ $A\"; exit 9; }}; {CHILD}");
    let mut supervised = watched("", &script);
    pid_and_value(&mut supervised);
    supervised.scene.store(&[("A", "bad"), ("B", "two")]);
    for _ in 0..4 {
        assert_eq!(pid_and_value(&mut supervised).1, "bad");
    }
    let (status, rest, scene) = supervised.end();
    assert_eq!((status.code(), rest.as_str()), (Some(9), ""));
    let reasons = reasons(&scene, "child.restarting");
    assert_eq!((reasons.len(), reasons[3].as_str()), (4, "it ended soon after a change; start 3 of 3"));
    assert_eq!(count(&scene, "child.exited"), 5);
}

/// One that ends by itself is not started again: that is for whoever started us.
#[test]
fn a_child_that_ends_by_itself_has_ended() {
    let mut supervised = watched("", "echo \"$$ $A\"; read -r line; exit 9");
    pid_and_value(&mut supervised);
    let (status, _, scene) = supervised.end();
    assert_eq!((status.code(), count(&scene, "child.restarting")), (Some(9), 0));
}

#[test]
fn to_ignore_changes_is_not_to_look() {
    let scene = Scene::with(&[("A", "one")]).and(&format!("{WATCH}\non_change = \"ignore\""));
    let mut supervised = Supervised::start(scene, "echo \"$$ $A\"; sleep 1; read -r line; exit 0");
    pid_and_value(&mut supervised);
    assert_eq!(supervised.end().2.events(), ["access.requested", "access.released", "child.exited"]);
}

/// While there is no child, the manager watches the supervisor; else the service would have ended with the old one.
#[test]
fn the_service_manager_hears_of_each_main_process() {
    let scene = Scene::with(&[("A", "one")]).and(WATCH);
    let path = scene.path("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let hear = || {
        let mut message = [0; 64];
        let length = manager.recv(&mut message).unwrap();
        let text = std::str::from_utf8(&message[..length]).unwrap().to_owned();
        text.strip_prefix("MAINPID=").unwrap().parse::<u32>().unwrap()
    };
    let mut supervised = Supervised::start(scene.variable("NOTIFY_SOCKET", &path), CHILD);
    let (first, _) = pid_and_value(&mut supervised);
    supervised.scene.store(&[("A", "two")]);
    let (second, _) = pid_and_value(&mut supervised);
    assert_eq!([hear(), hear(), hear()], [first, supervised.pid(), second]);
    drop(end(supervised));
}

#[test]
fn too_often_is_refused() {
    let scene = Scene::with(&[("A", "1")]).and("[run]\nwatch = \"99ms\"");
    let outcome = scene.run(&["true"]).expect_status(121);
    assert!(outcome.err().contains("at least `100ms`"), "{}", outcome.transcript());
}
