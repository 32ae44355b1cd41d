//! `set` at a terminal: it asks twice, nothing typed is echoed, and the terminal is left as it was.

use std::io::Write;
use std::process::Child;

use vouchsafe::prompt::LONGEST_LINE;

use crate::harness::{Scene, VOUCHSAFE, wait};
use crate::terminal::Terminal;

/// `vouchsafe set A` at that terminal.
fn set(terminal: &Terminal, scene: &Scene) -> Child {
    let policy = scene.write_policy();
    terminal.start(scene, &[VOUCHSAFE, "set", "A", "--policy", policy.to_str().unwrap()])
}

fn typed(first: &str, second: &str) -> (Scene, String, Option<i32>) {
    let scene = Scene::sealed(&["A"]);
    let mut terminal = Terminal::new();
    let child = set(&terminal, &scene);
    terminal.until("value of A (not shown): ");
    assert!(!terminal.is_echoing(), "what is typed would be seen");
    terminal.ours.write_all(first.as_bytes()).unwrap();
    terminal.until("again: ");
    assert!(!terminal.is_echoing(), "what is typed would be seen");
    terminal.ours.write_all(second.as_bytes()).unwrap();
    terminal.until(if first == second { "version 1" } else { "nothing was written" });
    let status = wait(child).status.code();
    assert!(terminal.is_echoing(), "the terminal is left without echo");
    let seen = String::from_utf8_lossy(&terminal.seen).into_owned();
    (scene, seen, status)
}

#[test]
fn a_prompt_echoes_nothing() {
    let (scene, seen, status) = typed("canary-77 with spaces \n", "canary-77 with spaces \n");
    assert!(!seen.contains("canary"), "{seen}");
    assert_eq!(status, Some(0), "{seen}");
    assert_eq!(scene.run(&["printenv", "A"]).expect_status(0).out(), "canary-77 with spaces \n");
}

#[test]
fn two_values_that_differ_are_not_written() {
    let (scene, seen, status) = typed("canary-77\n", "canary-78\n");
    assert!(!seen.contains("canary"), "{seen}");
    assert_eq!(status, Some(2), "{seen}");
    assert!(!scene.path("sealed.age").exists());
}

/// A terminal drops what is over its limit without a word, twice the same, so that a comparison would not see it.
#[test]
fn a_line_that_a_terminal_cuts_is_not_written() {
    let scene = Scene::sealed(&["A"]);
    let mut terminal = Terminal::new();
    let child = set(&terminal, &scene);
    terminal.until("value of A (not shown): ");
    terminal.ours.write_all(format!("{}\n", "x".repeat(LONGEST_LINE + 10)).as_bytes()).unwrap();
    terminal.until("the line is longer than a terminal can take");
    assert_eq!(wait(child).status.code(), Some(2));
    assert!(!scene.path("sealed.age").exists() && terminal.is_echoing());
}
