//! Who runs where it cannot be seen from here: in a PID namespace or a time namespace of its own. "Gone" would be a lie that
//! an operator retires a credential on.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::harness::{Scene, VOUCHSAFE, wait};
use crate::have;

/// The state and the reason of the one holder, while it runs under `unshare`.
fn while_under(words: &[&str]) -> String {
    let scene = Scene::sealed(&["TOKEN"]);
    scene.verb_reading(&["set", "TOKEN"], b"x").expect_status(0);
    let line = scene.run_arguments(&["sh", "-c", "echo started; exec cat"]);
    let mut words: Vec<std::ffi::OsString> = words.iter().map(Into::into).collect();
    words.push(VOUCHSAFE.into());
    words.extend(line);
    let mut child = scene.other("unshare", &words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut started = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut started).unwrap();
    assert_eq!(started, "started\n");
    let found = scene.verb(&["audit", "who-has", "TOKEN", "--json"]).expect_status(0);
    drop(child.stdin.take());
    assert!(wait(child).status.success());
    let found: serde_json::Value = serde_json::from_str(found.out()).unwrap();
    let holder = &found["items"][0]["holders"][0];
    format!("{} {}", holder["state"].as_str().unwrap(), holder["why"].as_str().unwrap_or("-"))
}

#[test]
fn a_process_in_another_namespace_is_unknown_and_not_gone() {
    if !have(&["unshare"], true) {
        return;
    }
    assert_eq!(while_under(&["--uts"]), "running -", "a namespace that changes nothing here");
    assert_eq!(while_under(&["--pid", "--fork", "--mount-proc"]), "unknown another container");
    assert_eq!(while_under(&["--time", "--boottime", "100000"]), "unknown no access to tell");
}
