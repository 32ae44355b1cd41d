//! How a `rotate` of several secrets ends: by a signal, at a store that does not answer, at one that is met by two names; and
//! when what was exposed counts as replaced.

use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Outcome, Scene, wait};
use crate::rekey::{Team, store};
use crate::rotate::{rotate, set, stages};

/// `P` and `Q` lie in a Parameter Store that takes connections and says nothing.
fn silent(deadline: &str) -> (Scene, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap();
    let scene = Scene::sealed(&[]).and(&format!(
        "[stores.params]\ntype = \"ssm\"\nregion = \"eu-west-1\"\nendpoint = \"http://{endpoint}\"\nprefix = \"/p/\"\n\
         [secrets.P]\nstore = \"params\"\nrotate = {{ every = \"30d\" }}\n[secrets.Q]\nstore = \"params\"\n\
         rotate = {{ every = \"30d\" }}\n[run]\ndeadline = \"{deadline}\""
    ));
    let scene = scene.variable("AWS_EC2_METADATA_DISABLED", "true");
    (scene.variable("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE").variable("AWS_SECRET_ACCESS_KEY", "canary"), listener)
}

/// Started, and asking the store.
fn asking(scene: &Scene, listener: &TcpListener, words: &[&str]) -> (Child, std::net::TcpStream) {
    let policy = scene.write_policy();
    let words = [words, &["--policy", policy.to_str().unwrap()]].concat();
    let child = scene.command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    (child, listener.accept().unwrap().0)
}

fn terminated(scene: &Scene, child: Child, words: &[&str]) -> Outcome {
    let kill = format!("kill -TERM {}", child.id());
    assert!(scene.other("sh", &["-c", &kill]).status().unwrap().success());
    scene.outcome(words, wait(child))
}

#[test]
fn a_store_that_does_not_answer_is_asked_once_in_a_dry_run() {
    let (scene, _listener) = silent("1s");
    let outcome = rotate(&scene, &["--all", "--dry-run"], 122);
    assert!(outcome.err().contains("`Q` was not looked at: store `params`"), "{}", outcome.transcript());
    assert!(outcome.err().contains("`P`: "), "{}", outcome.transcript());
}

#[test]
fn a_signal_ends_a_dry_run_at_once() {
    let (scene, listener) = silent("5m");
    let words = ["rotate", "--all", "--dry-run"];
    let start = Instant::now();
    let (child, _stream) = asking(&scene, &listener, &words);
    let outcome = terminated(&scene, child, &words);
    assert_eq!(outcome.status.code(), Some(143), "{}", outcome.transcript());
    assert!(start.elapsed() < Duration::from_secs(60), "it waited for the store");
}

#[test]
fn a_signal_that_comes_while_a_store_is_asked_ends_the_run() {
    let (scene, listener) = silent("4s");
    let words = ["rotate", "--due"];
    let (child, _stream) = asking(&scene, &listener, &words);
    let outcome = terminated(&scene, child, &words);
    assert_eq!(outcome.status.code(), Some(143), "{}", outcome.transcript());
    assert!(outcome.err().contains("error[store]: `P`: "), "why it failed is said too: {}", outcome.transcript());
    assert!(outcome.err().contains("ended by signal 15; left to do: P, Q"), "{}", outcome.transcript());
}

#[test]
fn two_stores_of_one_file_do_not_keep_each_other_waiting() {
    let scene = Scene::new();
    let own = scene.recipient();
    let stores = ["files", "again"].map(|name| store(&scene, name, "sealed.age", &[&own])).concat();
    let scene = scene
        .stores(&stores)
        .policy("[secrets.A]\nrotate = {}\n[secrets.B]\nstore = \"again\"\nrotate = {}\n[secrets.C]\nrotate = {}\n");
    for name in ["A", "B", "C"] {
        set(&scene, name, "first");
    }
    rotate(&scene, &["--all"], 0);
    assert_eq!(["A", "B", "C"].map(|name| stages(&scene, name)), ["2 current, 1 previous"; 3]);
    assert!(!scene.path(".sealed.age.rotating").exists());
}

/// ROT-13: as long as the target accepts what was exposed, it is not replaced.
#[test]
fn what_a_target_may_accept_still_counts_as_exposed() {
    let team = Team::with("[secrets]\nB = {}\n[secrets.A.rotate]\n");
    let hook = team.scene.write_mode("hook", b"#!/bin/sh\n", 0o755);
    let apply = format!("apply = {{ type = \"command\", program = \"{}\" }}", hook.display());
    let team = Team { scene: team.scene.and(&apply), ..team }.named(false);
    team.compromised(&[]).expect_status(10);
    team.set("B", "another");
    rotate(&team.scene, &["A"], 0);
    assert_eq!(stages(&team.scene, "A"), "3 current, 2 previous");
    let outcome = team.compromised(&[]).expect_status(10);
    assert!(!outcome.out().contains("All of it is replaced"), "{}", outcome.transcript());
    let told = "vouchsafe rotate --only-step retire A --policy ";
    assert!(outcome.out().contains(told), "{}", outcome.transcript());
    let check = team.scene.verb(&["check"]).expect_status(10);
    assert!(check.out().contains(told) && !check.out().contains("`B` (files:B) is"), "{}", check.transcript());
    rotate(&team.scene, &["--only-step", "retire", "A"], 0);
    let outcome = team.compromised(&[]).expect_status(0);
    assert!(outcome.out().contains("All of it is replaced"), "{}", outcome.transcript());
    team.scene.verb(&["check"]).expect_status(0);
}
