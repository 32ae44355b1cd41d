//! The progress of `audit verify`: for a person at a terminal, and for nobody else.

use std::io::Write;

use crate::harness::{Scene, VOUCHSAFE, wait};
use crate::terminal::Terminal;

/// What takes the line away, and what comes right after it.
const END: &str = "\r\u{1b}[Kintact: 2 records in 1 chain";

/// The log of a run as a collector has it, among so many lines of others that it is long.
fn collected() -> Scene {
    let scene = Scene::with(&[("A", "1")]).sinks("[[audit.sinks]]\ntype = \"stderr\"\n");
    let records = scene.run(&["true"]).expect_status(0).stderr;
    let mut log = std::fs::File::create(scene.path("collected")).unwrap();
    log.write_all(&records).unwrap();
    let others = [b"x".repeat(64 * 1024 - 1), b"\n".to_vec()].concat();
    (0..1024).for_each(|_| log.write_all(&others).unwrap());
    scene
}

const VERIFY: [&str; 4] = [VOUCHSAFE, "audit", "verify", "collected"];

#[test]
fn a_terminal_is_told_how_far_it_is_and_the_line_is_wiped() {
    let scene = collected();
    let mut terminal = Terminal::new();
    let child = terminal.start(&scene, &VERIFY);
    terminal.until("\rverifying [");
    terminal.until(END);
    terminal.until("\n");
    assert_eq!(wait(child).status.code(), Some(0));
    let seen = String::from_utf8_lossy(&terminal.seen).into_owned();
    let (progress, end) = seen.split_once("\u{1b}[K").unwrap();
    assert!(!progress.contains('\n') && progress.contains(" %  "), "{progress:?}");
    assert!(!end.contains("verifying"), "{end:?}");
}

#[test]
fn who_collects_what_is_said_sees_the_result_alone() {
    let scene = collected();
    // Neither a pipe nor a file, even if the result goes to a terminal.
    let outcome = scene.vouchsafe(&VERIFY[1..]).expect_status(0);
    assert_eq!(outcome.err(), "");
    assert!(outcome.out().starts_with("intact: 2 records"), "{}", outcome.out());
    let mut terminal = Terminal::new();
    let child =
        terminal.start(&scene, &["sh", "-c", "exec \"$@\" 2>said", "sh", VERIFY[0], VERIFY[1], VERIFY[2], VERIFY[3]]);
    terminal.until("foreign line");
    assert_eq!(wait(child).status.code(), Some(0));
    assert_eq!(std::fs::read(scene.path("said")).unwrap(), b"");
    assert!(String::from_utf8_lossy(&terminal.seen).starts_with("intact: 2 records"));
    // A short log is read before anybody looks.
    let text = std::fs::read(scene.path("collected")).unwrap();
    scene.write("collected", &text[..text.len() - 64 * 1024]);
    let mut terminal = Terminal::new();
    let child = terminal.start(&scene, &VERIFY);
    terminal.until("foreign line");
    assert_eq!(wait(child).status.code(), Some(0));
    assert!(String::from_utf8_lossy(&terminal.seen).starts_with("intact: 2 records"));
}
