//! A supervisor whose secrets come from an agent: who forks before what, what is written down, and by whom.

use std::ffi::OsString;

use crate::agent_scene::Agent;
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

/// By polling: what has not changed does not even leave the agent; what has starts the child again.
#[test]
fn a_change_is_seen_through_the_agent() {
    let scene = scene("[run]\nmode = \"supervise\"\nwatch = \"100ms\"\ngrace = \"20s\"\n[cache]\nttl = \"0s\"");
    let agent = Agent::start(&scene);
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
    end(supervised);
    agent.end();
}
