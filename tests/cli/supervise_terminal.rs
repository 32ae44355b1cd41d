//! `run --supervise` at a terminal: the keys reach the child once, a shell's job control works through us, and whoever shares
//! the terminal with us keeps it. D: `tty_test.py`; the rules are those of `src/child/supervise/terminal.rs`.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::Child;

use crate::harness::{Scene, VOUCHSAFE, wait};
use crate::supervised::{arguments, children, send, stat, state, wait_until};
use crate::terminal::Terminal;

/// The words of a shell line that runs `child` supervised.
fn line(scene: &Scene, child: &str) -> String {
    let words = arguments(scene, &["sh", "-c"]);
    let words: Vec<String> = words.iter().map(|word| word.to_str().unwrap().to_owned()).collect();
    format!("{VOUCHSAFE} {} '{child}'", words.join(" "))
}

/// The child alone at the terminal, as with `docker run -it` or `ssh -t`: the supervisor leads the session.
fn alone(scene: &Scene, child: &str) -> (Terminal, Child) {
    let terminal = Terminal::new();
    let words = arguments(scene, &["sh", "-c", child]);
    let words: Vec<&str> =
        std::iter::once(VOUCHSAFE).chain(words.iter().map(|word: &OsString| word.to_str().unwrap())).collect();
    let started = terminal.start(scene, &words);
    (terminal, started)
}

/// An interactive shell with job control.
fn shell(scene: &Scene) -> (Terminal, Child) {
    let mut terminal = Terminal::new();
    let started = terminal.start(scene, &["bash", "--norc", "--noprofile", "-i"]);
    terminal.write("PS1='$ '; echo be''gun\n");
    terminal.until("begun");
    (terminal, started)
}

/// The supervisor: this process or one below it, by its name.
fn supervisor(pid: u32) -> Option<u32> {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    if name.trim() == "vouchsafe" { Some(pid) } else { children(pid).into_iter().find_map(supervisor) }
}

/// D `test_tty`.
#[test]
fn the_child_reads_and_writes_the_terminal() {
    let scene = Scene::with(&[("A", "1")]);
    let (mut terminal, child) = alone(&scene, "echo ready; read -r line; echo \"got $line\"; exit 7");
    terminal.until("ready");
    terminal.write("words\n");
    terminal.until("got words");
    assert_eq!(wait(child).status.code(), Some(7));
}

/// uv: Ctrl-C at a terminal is not delivered twice.
#[test]
fn ctrl_c_reaches_the_child_once() {
    let scene = Scene::with(&[("A", "1")]);
    // `wait` of a shell misses no signal; `read` does, if one comes just before it reads.
    let script = "sleep 1000 & n=0; trap 'n=$((n+1)); echo interrupt $n' INT; trap 'echo asked $n; exit 3' TERM; \
                  echo ready; while :; do wait; done";
    let (mut terminal, child) = alone(&scene, script);
    terminal.until("ready");
    for count in 1..=5 {
        terminal.write("\x03");
        terminal.until(&format!("interrupt {count}"));
    }
    let supervisor = supervisor(child.id()).unwrap();
    send(&scene, "TERM", supervisor);
    terminal.until("asked 5");
    assert_eq!(wait(child).status.code(), Some(3));
}

/// D `test_sighup_sigcont_ignored_if_was_session_leader`, from the other side: a terminal that goes away tells the leader of
/// the session, which is us, and the child must hear of it.
#[test]
fn a_hang_up_reaches_the_child() {
    let scene = Scene::with(&[("A", "1")]);
    let script = "sleep 1000 & trap 'echo gone > hung-up; exit 5' HUP; echo ready; while :; do wait; done";
    let (mut terminal, child) = alone(&scene, script);
    terminal.until("ready");
    let Terminal { ours, theirs, .. } = terminal;
    drop((ours, theirs));
    assert_eq!(wait(child).status.code(), Some(5));
    assert!(scene.path("hung-up").exists());
}

/// Ctrl-Z where no shell could continue us, as in a container: nobody stops.
#[test]
fn ctrl_z_without_a_shell_stops_nobody() {
    let scene = Scene::with(&[("A", "1")]);
    // `read` of a shell is over when a trap has run.
    let script = "trap 'echo going on' CONT; echo ready; while :; do read -r line && echo \"got $line\"; done";
    let (mut terminal, child) = alone(&scene, script);
    terminal.until("ready");
    // The line is for a shell that was not reading yet.
    terminal.write("\x1a\n");
    terminal.until("going on");
    terminal.write("words\n");
    terminal.until("got words");
    terminal.write("\x03");
    assert_eq!(wait(child).status.signal(), Some(2));
}

/// D `test_child_gets_controlling_tty_if_we_had_one`, and more: Ctrl-Z, `fg`, `bg`, and the terminal is ours in between.
#[test]
fn job_control_of_a_shell_works_through_us() {
    let scene = Scene::with(&[("A", "1")]);
    let command = line(&scene, "echo rea\"\"dy; while :; do read -r line && echo \"got $line\"; done");
    let (mut terminal, shell) = shell(&scene);
    terminal.write(&format!("{command}\n"));
    terminal.until("ready");
    terminal.write("one\n");
    terminal.until("got one");
    let supervisor = supervisor(shell.id()).unwrap();
    let child = children(supervisor)[0];
    for round in 0..3 {
        terminal.write("\x1a");
        terminal.until("Stopped");
        assert_eq!((state(supervisor).as_str(), state(child).as_str()), ("T", "T"));
        terminal.write("echo still a she''ll\n");
        terminal.until("still a shell");
        if round == 1 {
            // In the background it reads, so it stops again, and the shell sees it.
            terminal.write("bg\n");
            terminal.until("&");
            wait_until("stopped for reading", || state(child) == "T" && state(supervisor) == "T");
        }
        terminal.write("fg\n");
        wait_until("both awake", || state(supervisor) == "S" && state(child) == "S");
        terminal.write(&format!("again {round}\n"));
        terminal.until(&format!("got again {round}"));
    }
    terminal.write("\x03");
    terminal.until("$ ");
    terminal.write("echo status $?\n");
    terminal.until("status 130");
    terminal.write("exit 0\n");
    assert_eq!(wait(shell).status.code(), Some(0));
}

/// In the foreground it is a job of its own, and has the terminal for itself; afterwards the shell has it again.
#[test]
fn the_terminal_is_handed_over_and_taken_back() {
    let scene = Scene::with(&[("A", "1")]);
    let (mut terminal, shell) = shell(&scene);
    terminal.write(&format!("{}\n", line(&scene, "echo rea\"\"dy; read -r line")));
    terminal.until("ready");
    let supervisor = supervisor(shell.id()).unwrap();
    let child = children(supervisor)[0];
    let foreground = |pid: u32| stat(pid)[5].clone();
    assert_eq!(stat(child)[2], child.to_string(), "its own group");
    assert_eq!(foreground(child), child.to_string());
    terminal.write("\n");
    terminal.until("$ ");
    terminal.write("echo ba''ck\n");
    terminal.until("back");
    assert_eq!(foreground(shell.id()), shell.id().to_string());
    terminal.write("exit 0\n");
    wait(shell);
}

/// `vouchsafe run ... | less`: the reader needs the terminal too.
#[test]
fn who_shares_a_pipeline_with_us_can_read_the_terminal() {
    let scene = Scene::with(&[("A", "1")]);
    let (mut terminal, shell) = shell(&scene);
    let command = line(&scene, "echo out; read -r line; echo \"child $line\"");
    terminal
        .write(&format!("{command} | sh -c 'cat; echo wan\"\"ted; read -r line </dev/tty; echo \"pager $line\"'\n"));
    terminal.until("out");
    terminal.write("first\n");
    terminal.until("wanted");
    terminal.write("second\n");
    terminal.until("pager second");
    terminal.write("exit 0\n");
    wait(shell);
}

/// A script that runs us is interrupted with us: Ctrl-C reaches its whole group, and the child once.
#[test]
fn a_script_that_runs_us_is_interrupted_too() {
    let scene = Scene::with(&[("A", "1")]);
    let command = line(&scene, "trap \"echo child\" INT; echo ready; while :; do read -r line || exit 4; done");
    let script = format!("trap 'echo script' INT\n{command}\necho status $?\n");
    scene.write("script.sh", script.as_bytes());
    let terminal = Terminal::new();
    let child = terminal.start(&scene, &["sh", "script.sh"]);
    let mut terminal = terminal;
    terminal.until("ready");
    terminal.write("\x03\n");
    terminal.until("child");
    terminal.write("\x04");
    terminal.until("script");
    terminal.until("status 4");
    let seen = String::from_utf8_lossy(&terminal.seen).into_owned();
    assert_eq!(seen.matches("child").count(), 1, "{seen}");
    assert_eq!((wait(child).status.signal(), seen.matches("script").count()), (None, 1), "{seen}");
}
