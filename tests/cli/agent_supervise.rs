//! A supervisor whose secrets come from an agent: who forks before what, what is written down, and by whom.

use std::ffi::OsString;

use crate::agent_scene::{Agent, write_files};
use crate::harness::{Scene, VOUCHSAFE};
use crate::supervised::{Supervised, children, wait_until};

/// Says what it has, and ends when it is asked to.
const CHILD: &str = "sleep 1000 & trap 'kill $!; exit 0' TERM; echo \"$$ $A\"; wait";

fn scene(more: &str) -> Scene {
    Scene::with(&[("A", "one"), ("B", "two")]).and(more)
}

/// A supervised script, through the agent; in a place of its own, where there is neither policy nor store.
fn supervised(agent: &Agent<'_>, words: &[&str], script: &str) -> Supervised {
    let through = format!("--agent={}", agent.socket().display());
    let line = [&["run", &through, "--env", "test"], words, &["--", "sh", "-c", script]].concat();
    let line: Vec<OsString> = line.iter().map(Into::into).collect();
    Supervised::spawn(Scene::with(&[]), VOUCHSAFE, &line)
}

fn pid_and_value(supervised: &mut Supervised) -> (u32, String) {
    let line = supervised.line();
    let (pid, value) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?}"));
    (pid.parse().unwrap(), value.to_owned())
}

fn end(supervised: Supervised) {
    supervised.send("TERM");
    let (status, _, scene) = supervised.end();
    assert_eq!(status.code(), Some(0));
    assert!(!scene.path("audit.jsonl").exists(), "the supervisor wrote a record of its own");
}

fn of<'r>(records: &'r [serde_json::Value], event: &str) -> Vec<&'r serde_json::Value> {
    records.iter().filter(|record| record["event"] == event).collect()
}

#[test]
fn by_option_and_by_policy_the_child_has_a_supervisor_and_its_end_is_written_down() {
    for (policy, words) in [("", &["--supervise"][..]), ("[run]\nmode = \"supervise\"", &[])] {
        let scene = scene(policy);
        let agent = Agent::start(&scene);
        for (script, status, key, number) in [
            ("echo $$ $A; read x; exit 7", Some(7), "status", 7),
            ("echo $$ $A; read x; kill -9 $$", None, "signal", 9),
        ] {
            let mut supervised = supervised(&agent, words, script);
            let (child, value) = pid_and_value(&mut supervised);
            assert_eq!((value.as_str(), children(supervised.pid())), ("one", vec![child]));
            supervised.answer("\n");
            let (ended, ..) = supervised.end();
            assert_eq!(ended.code(), status);
            let records = agent.audit();
            let [.., requested, released, exited] = &records[..] else { panic!("{records:?}") };
            let events = [requested, released, exited].map(|record| record["event"].as_str().unwrap().to_owned());
            assert_eq!(events, ["access.requested", "access.released", "child.exited"]);
            assert_eq!((&exited["access"], &exited["child"]["pid"]), (&released["access"], &child.into()));
            assert_eq!((&exited["child"][key], &exited["assurance"]), (&number.into(), &"agent".into()));
            assert_eq!(released["actor"]["pid"], child, "the process that asks is the one that becomes the command");
            assert_eq!(
                (&exited["command"]["claimed"], &exited["actor"]["uid"]),
                (&true.into(), &released["actor"]["uid"])
            );
        }
        agent.end();
    }
}

#[test]
fn what_cannot_be_had_ends_the_supervisor_with_the_status_that_it_has_without() {
    let scene = scene("[run]\nmode = \"supervise\"");
    let agent = Agent::start(&scene);
    agent.run(&["--only", "NOTHING", "--", "true"]).expect_status(120);
    agent.run(&["--", "no-such-command"]).expect_status(127);
    std::fs::remove_file(scene.path("store.age")).unwrap();
    agent.run(&["--", "true"]).expect_status(122);
    let records = agent.audit();
    assert_eq!((of(&records, "access.released").len(), of(&records, "child.exited").len()), (0, 0));
    agent.end();
}

/// Where the agent has no room for subscribers, by polling: what has not changed does not even leave the agent; what has starts
/// the child again.
#[test]
fn a_change_is_seen_through_the_agent() {
    let scene = scene("[run]\nmode = \"supervise\"\nwatch = \"100ms\"\ngrace = \"20s\"\n[cache]\nttl = \"0s\"");
    write_files(&scene, "");
    let script = "ulimit -n 500; exec \"$0\" agent --policies served --host host.toml --socket \"$PWD/agent.sock\"";
    let agent = Agent::spawn(&scene, scene.other("sh", &["-c", script, VOUCHSAFE]));
    let mut supervised = supervised(&agent, &[], CHILD);
    let (first, value) = pid_and_value(&mut supervised);
    assert_eq!(value, "one");
    scene.store(&[("A", "one"), ("B", "two"), ("C", "not the child's")]);
    let unchanged = || of(&agent.audit(), "access.compared").len();
    let seen = unchanged();
    wait_until("two looks", || unchanged() >= seen + 2);
    assert_eq!(of(&agent.audit(), "access.released").len(), 1, "nothing has left the agent since");
    scene.store(&[("A", "three"), ("B", "two")]);
    let (second, value) = pid_and_value(&mut supervised);
    assert_eq!(value, "three");
    assert_ne!(second, first);
    end(supervised);
    let records = agent.audit();
    let (released, exited) = (of(&records, "access.released"), of(&records, "child.exited"));
    let restarting = of(&records, "child.restarting");
    // A look that is looked at again, then the one that becomes the child.
    assert_eq!((restarting.len(), exited.len()), (1, 2));
    assert_eq!(restarting[0]["access"], released.last().unwrap()["access"]);
    assert_eq!(
        exited.iter().map(|record| &record["access"]).collect::<Vec<_>>(),
        [&released[0]["access"], &restarting[0]["access"]]
    );
    let unused = of(&records, "access.unused");
    assert_eq!(unused.len(), released.len() - 2);
    assert!(unused.iter().all(|record| record["reason"].as_str().unwrap().starts_with("it was only compared")));
    agent.end();
}

/// No record, no restart: the child goes on with what it has.
#[test]
fn an_agent_that_is_gone_changes_nothing() {
    let scene = scene("[run]\nmode = \"supervise\"\nwatch = \"100ms\"\n[cache]\nttl = \"0s\"");
    let agent = Agent::start(&scene);
    let mut supervised = supervised(&agent, &[], CHILD);
    let (child, _) = pid_and_value(&mut supervised);
    drop(agent);
    scene.store(&[("A", "three"), ("B", "two")]);
    wait_until("a look that failed", || children(supervised.pid()).len() > 1);
    wait_until("its end", || children(supervised.pid()) == [child]);
    let agent = Agent::start(&scene);
    assert_eq!(pid_and_value(&mut supervised).1, "three");
    wait_until("it is told again", || subscribers(&agent) == 1);
    end(supervised);
    wait_until("nobody waits any more", || subscribers(&agent) == 0);
    agent.end();
}

/// A sealed file with A, B and C, of which C is nobody's.
fn sealed(watch: &str) -> Scene {
    let run = format!("[secrets.C]\ninject = false\n[run]\nmode = \"supervise\"\ngrace = \"20s\"\nwatch = \"{watch}\"");
    let scene = Scene::sealed(&["A", "B"]).and(&run);
    for (name, value) in [("A", "one"), ("B", "two"), ("C", "three")] {
        set(&scene, name, value);
    }
    scene
}

fn set(scene: &Scene, name: &str, value: &str) {
    scene.verb_reading(&["set", name], value.as_bytes()).expect_status(0);
}

fn subscribers(agent: &Agent<'_>) -> u64 {
    let status = agent.ask("status", &["--json"]).expect_status(0);
    let status: serde_json::Value = serde_json::from_str(status.out()).unwrap();
    status["subscribers"]["open"].as_u64().unwrap()
}

fn count(agent: &Agent<'_>, event: &str) -> usize {
    of(&agent.audit(), event).len()
}

/// By a notice: nobody polls, what is not the child's wakes nobody, and one look is enough.
#[test]
fn a_change_is_told_and_starts_the_child_again() {
    let scene = sealed("200ms");
    let agent = Agent::start(&scene);
    let mut supervised = supervised(&agent, &[], CHILD);
    let (first, value) = pid_and_value(&mut supervised);
    assert_eq!(value, "one");
    wait_until("it waits to be told", || subscribers(&agent) == 1);
    wait_until("that is written down", || count(&agent, "access.compared") == 1);

    set(&scene, "C", "not the child's");
    set(&scene, "A", "one");
    let looks = count(&agent, "secret.refreshed");
    wait_until("three looks of the agent", || count(&agent, "secret.refreshed") >= looks + 3);
    assert_eq!((count(&agent, "access.requested"), count(&agent, "access.compared")), (2, 1), "nobody asked");

    let mut before = first;
    for value in ["four", "five"] {
        set(&scene, "A", value);
        let (next, has) = pid_and_value(&mut supervised);
        assert_eq!(has, value);
        assert_ne!(next, before);
        before = next;
    }
    end(supervised);
    let records = agent.audit();
    assert_eq!((of(&records, "access.released").len(), of(&records, "access.unused").len()), (3, 0));
    assert_eq!((of(&records, "child.restarting").len(), of(&records, "child.exited").len()), (2, 3));
    let told = |record: &&&serde_json::Value| record["reason"] == "something has changed; the caller is told so";
    assert_eq!(of(&records, "access.compared").iter().filter(told).count(), 2);
    // What was fetched for the subscriber stands under an access of his.
    let subscribed = of(&records, "access.compared")[0];
    assert!(of(&records, "secret.refreshed").iter().all(|record| record["access"] == subscribed["access"]
        || of(&records, "access.requested").iter().any(|requested| requested["access"] == record["access"])));
    assert!(!format!("{records:?}").contains("four") && !agent.log().contains("four"));
    agent.end();
}

/// The agent looks at once where it is told to forget, long before the interval is over.
#[test]
fn a_flush_is_a_reason_to_look() {
    let scene = sealed("5s");
    let agent = Agent::start(&scene);
    let mut supervised = supervised(&agent, &[], CHILD);
    pid_and_value(&mut supervised);
    wait_until("it waits to be told", || count(&agent, "access.compared") == 1);
    set(&scene, "A", "four");
    let looks = count(&agent, "secret.refreshed");
    agent.ask("flush", &[]).expect_status(0);
    wait_until("a look", || count(&agent, "secret.refreshed") == looks + 1);
    assert_eq!(pid_and_value(&mut supervised).1, "four");
    assert_eq!(count(&agent, "secret.refreshed"), looks + 1);
    end(supervised);
    agent.end();
}

/// Who is not granted any more is told so and goes on with what he has; who is again, is told again.
#[test]
fn a_grant_that_is_taken_back_ends_the_subscription() {
    let scene = sealed("200ms");
    let agent = Agent::start(&scene);
    let mut supervised = supervised(&agent, &[], CHILD);
    let (child, _) = pid_and_value(&mut supervised);
    wait_until("it waits to be told", || subscribers(&agent) == 1);
    let policy = std::fs::read_to_string(scene.path("served/test.toml")).unwrap();
    scene.write("served/test.toml", policy.replace("to = \"anyone\"", "to = { users = [4242] }").as_bytes());
    agent.reload();
    wait_until("the denial", || count(&agent, "access.denied") > 0);
    wait_until("the end of the subscription", || subscribers(&agent) == 0);
    set(&scene, "A", "four");
    scene.write("served/test.toml", policy.as_bytes());
    agent.reload();
    let (next, value) = pid_and_value(&mut supervised);
    assert_eq!(value, "four");
    assert_ne!(next, child);
    end(supervised);
    agent.end();
}
