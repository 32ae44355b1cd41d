//! `on_crash = "previous"`: a child that cannot live with a change is followed by one that has what was before. The supervisor's
//! memory is looked at in `integration/supervise.rs`.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;

use crate::harness::{Scene, VOUCHSAFE};
use crate::restart::{count, pid_and_value, reasons};
use crate::supervised::{Supervised, arguments, children, send, wait_until};

const RULES: &str = "[run]\nmode = \"supervise\"\nwatch = \"100ms\"\non_crash = \"previous\"\nagent = \"forbid\"";

/// Says what it has, and fails with anything that begins with `bad` once it is told to.
const CHILD: &str = "sleep 1000 & trap 'kill $! 2>/dev/null; exit 0' TERM; echo \"$$ $A\"; \
                     case $A in bad*) read -r line; kill $! 2>/dev/null; exit 9;; esac; wait";

const BACK: &str = "it ended soon after a change; back to what ran before";
const OF_NO_USE: &str = "it is what a child ended of, and is not tried again";

/// What it says on standard error goes to a file.
fn started(scene: Scene) -> Supervised {
    let mut words: Vec<OsString> = ["-c", "exec \"$@\" 2>stderr", "sh", VOUCHSAFE].map(Into::into).to_vec();
    words.extend(arguments(&scene, &["sh", "-c", CHILD]));
    let mut supervised = Supervised::spawn(scene, "sh", &words);
    assert_eq!(pid_and_value(&mut supervised).1, "one");
    supervised
}

fn change(supervised: &mut Supervised, value: &str) -> u32 {
    supervised.scene.store(&[("A", value), ("B", "two")]);
    let (pid, seen) = pid_and_value(supervised);
    assert_eq!(seen, value);
    pid
}

fn scene() -> Scene {
    Scene::with(&[("A", "one"), ("B", "two")]).and(RULES)
}

/// How much memory the supervisor has locked, in pages.
fn locked(supervised: &Supervised) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", supervised.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
    let kilobytes: usize = line.trim().trim_end_matches(" kB").parse().unwrap();
    kilobytes * 1024 / rustix::param::page_size()
}

#[test]
fn a_child_that_dies_of_a_change_is_followed_by_one_with_what_was_before() {
    let mut supervised = started(scene());
    change(&mut supervised, "bad");
    supervised.answer("\n");
    let (child, value) = pid_and_value(&mut supervised);
    assert_eq!(value, "one", "the store says otherwise");

    // What it died of is still there; it is seen at each look, and left alone.
    let tries = |scene: &Scene| reasons(scene, "access.compared").iter().filter(|reason| *reason == OF_NO_USE).count();
    wait_until("three looks", || tries(&supervised.scene) >= 3);
    assert_eq!(children(supervised.pid())[0], child);
    assert_eq!(reasons(&supervised.scene, "child.restarting"), ["the injected secrets have changed", BACK]);
    let said = std::fs::read_to_string(supervised.scene.path("stderr")).unwrap();
    assert_eq!(said, format!("vouchsafe: the command failed: {BACK}\n"));

    // Something else is tried, and can be gone back from in its turn.
    change(&mut supervised, "bad too");
    supervised.answer("\n");
    assert_eq!(pid_and_value(&mut supervised).1, "one");
    change(&mut supervised, "three");
    supervised.send("TERM");
    let (status, rest, scene) = supervised.end();
    assert_eq!((status.code(), rest.as_str()), (Some(0), ""));
    scene.vouchsafe(&["audit", "verify", "audit.jsonl"]).expect_status(0);

    // The one that went back was granted and written down like every other; what it has is named, and no store was asked.
    let records = scene.audit();
    let back =
        records.iter().find(|record| record["event"] == "access.requested" && !record["reason"].is_null()).unwrap();
    assert_eq!(back["reason"], "what ran before the change, kept by the supervisor; no store is asked");
    let own = |event: &str| {
        records.iter().find(|record| record["access"] == back["access"] && record["event"] == event).unwrap()
    };
    let first = records.iter().find(|record| record["event"] == "access.released").unwrap();
    let named = |record: &serde_json::Value| {
        let secrets = record["secrets"].as_array().unwrap().iter();
        secrets.map(|it| (it["name"].clone(), it["store"].clone(), it["version"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(named(own("access.released")), named(first));
    assert_eq!(own("child.exited")["outcome"], "succeeded", "it ended for the next change");
    for forbidden in ["bad too", "three"] {
        assert!(!std::fs::read_to_string(scene.path("audit.jsonl")).unwrap().contains(forbidden));
    }
}

/// Until a child has lived with a change for ten seconds, there are two sets; before and after that there is its own.
#[test]
fn what_was_before_goes_when_the_new_child_has_settled() {
    let mut supervised = started(scene());
    wait_until("one set", || locked(&supervised) == 1);
    let child = change(&mut supervised, "three");
    wait_until("two sets", || locked(&supervised) == 2);
    wait_until("one set again", || locked(&supervised) == 1);
    // A failure that has nothing to do with the change is the end, as without one.
    send(&supervised.scene, "KILL", child);
    let (status, rest, scene) = supervised.end();
    assert_eq!((status.signal(), rest.as_str()), (Some(9), ""));
    assert_eq!(count(&scene, "child.restarting"), 1);
}

/// The policy is asked again: what was taken back meanwhile, nobody gets by failing.
#[test]
fn nobody_goes_back_to_what_is_not_granted_any_more() {
    for (from, to, status, event) in [
        ("secrets = [\"*\"]", "secrets = [\"B\"]", 120, "access.denied"),
        ("B = {}", "B = { inject = false }", 120, "access.denied"),
        ("[run]", "[run", 121, ""),
    ] {
        let mut supervised = started(scene());
        change(&mut supervised, "bad");
        let policy = supervised.scene.path("policy.toml");
        let text = std::fs::read_to_string(&policy).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(&policy, text.replace(from, to)).unwrap();
        supervised.answer("\n");
        let (ended, rest, scene) = supervised.end();
        let said = std::fs::read_to_string(scene.path("stderr")).unwrap();
        assert_eq!((ended.code(), rest.as_str()), (Some(status), ""), "{to}: {said}");
        assert_eq!(reasons(&scene, "child.restarting").pop().unwrap(), BACK);
        assert_eq!(count(&scene, "access.released"), 2, "{to}");
        assert!(event.is_empty() || count(&scene, event) > 0, "{to}");
    }
}

/// There is nothing before what was before.
#[test]
fn a_child_that_went_back_and_fails_has_ended() {
    let mut supervised = started(scene());
    change(&mut supervised, "bad");
    supervised.answer("\n");
    let (child, _) = pid_and_value(&mut supervised);
    send(&supervised.scene, "SEGV", child);
    let (status, rest, scene) = supervised.end();
    assert_eq!((status.signal(), rest.as_str()), (Some(11), ""));
    assert_eq!(count(&scene, "child.restarting"), 2);
}

/// `docker stop` while it is about to go back: nothing is started.
#[test]
fn whoever_asks_for_an_end_gets_no_child_of_before() {
    let mut supervised = started(scene());
    change(&mut supervised, "bad");
    supervised.answer("\n");
    wait_until("it is about to go back", || reasons(&supervised.scene, "child.restarting").len() == 2);
    supervised.send("TERM");
    let (status, rest, scene) = supervised.end();
    assert_eq!((status.code(), rest.as_str()), (Some(9), ""));
    assert_eq!(count(&scene, "access.released"), 2);
}

/// What cannot be kept as it must be is not kept, and the policy wants that it is.
#[test]
fn memory_that_cannot_be_locked_is_refused() {
    let scene = scene();
    let limit = "ulimit -l 0; [ \"$(id -u)\" = 0 ] || exec \"$@\"; exec setpriv --bounding-set=-ipc_lock \"$@\"";
    let mut words: Vec<OsString> = ["-c", limit, "sh", VOUCHSAFE].map(Into::into).to_vec();
    words.extend(arguments(&scene, &["true"]));
    let output = scene.other("sh", &words).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("cannot lock the memory that `on_crash = \"previous\"` needs"), "{said}");
    assert!(said.contains("ulimit -l"), "{said}");
    assert_eq!(scene.events(), ["access.requested", "access.failed"]);
}
