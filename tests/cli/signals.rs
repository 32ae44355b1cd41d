//! Signals: masks and dispositions reach the child unchanged, and its death is seen as it was. EXEC-2, EXEC-4.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use crate::harness::{Scene, VOUCHSAFE};

/// The signals that end a process by default, by name and number (signal(7), x86 and ARM).
const FATAL: [(&str, i32); 14] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("TERM", 15),
];

#[test]
fn death_by_a_signal_is_seen_as_that_signal() {
    let scene = Scene::with(&[("A", "1")]);
    for (name, number) in FATAL {
        let outcome = scene.run(&["sh", "-c", &format!("ulimit -c 0; kill -{name} $$; sleep 60")]);
        outcome.expect_signal(number);
    }
}

#[test]
fn a_signal_sent_to_the_child_reaches_it() {
    let scene = Scene::with(&[("A", "1")]);
    let arguments =
        scene.run_arguments(&["sh", "-c", "trap 'exit 42' TERM; echo ready; while :; do read -r line || :; done"]);
    let mut child = scene.command(&arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    let pid = child.id().to_string();
    assert!(scene.other("sh", &["-c", &format!("kill -TERM {pid}")]).status().unwrap().success());
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(42));
}

/// The lines of /proc/self/status that say what is blocked, ignored and handled (proc_pid_status(5)).
fn signal_state(scene: &Scene, env_options: &[&str]) -> (String, String) {
    let probe = ["grep", "^Sig[BIC]", "/proc/self/status"];
    let through: Vec<std::ffi::OsString> = env_options
        .iter()
        .map(std::ffi::OsString::from)
        .chain([VOUCHSAFE.into()])
        .chain(scene.run_arguments(&probe))
        .collect();
    let direct: Vec<&str> = env_options.iter().copied().chain(probe).collect();
    let text = |words: &[std::ffi::OsString]| {
        let output = scene.other("env", words).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let direct: Vec<_> = direct.into_iter().map(std::ffi::OsString::from).collect();
    (text(&through), text(&direct))
}

#[test]
fn masks_and_dispositions_are_those_that_the_caller_had() {
    let scene = Scene::with(&[("A", "1")]);
    for options in [
        &["--default-signal"][..],
        &["--ignore-signal=PIPE"],
        &["--default-signal=PIPE"],
        &["--ignore-signal=HUP"],
        &["--ignore-signal=INT", "--ignore-signal=QUIT", "--ignore-signal=TERM"],
        &["--ignore-signal=XFSZ", "--ignore-signal=SEGV", "--ignore-signal=BUS"],
        &["--block-signal=USR1", "--block-signal=TERM", "--block-signal=PIPE", "--ignore-signal=USR2"],
        &["--ignore-signal", "--block-signal"],
    ] {
        let (through, direct) = signal_state(&scene, options);
        assert_eq!(through, direct, "{options:?}");
        assert!(direct.contains("SigBlk"), "{direct}");
    }
}

/// Until it has become the child, the wrapper ends by TERM, INT, HUP and QUIT. A full pipe as its audit sink holds it.
#[test]
fn a_signal_while_fetching_ends_the_wrapper() {
    for (name, number) in [("TERM", 15), ("INT", 2), ("HUP", 1), ("QUIT", 3)] {
        let scene = Scene::with(&[("A", "1")]).sinks("[[audit.sinks]]\ntype = \"stderr\"\n");
        let arguments = scene.run_arguments(&["true"]);
        // A full pipe as standard error holds the wrapper in its first audit record, for two seconds at most.
        let (reader, writer) = std::io::pipe().unwrap();
        let mut filler = scene.other("sh", &["-c", "exec yes >&2"]);
        let mut filler = filler.stderr(writer.try_clone().unwrap()).spawn().unwrap();
        wait_until(|| program(filler.id()) == "yes" && sleeping(filler.id()));
        let mut wrapper = scene.command(&arguments).stderr(writer).spawn().unwrap();
        wait_until(|| handles(wrapper.id(), number) && sleeping(wrapper.id()));
        assert!(scene.other("sh", &["-c", &format!("kill -{name} {}", wrapper.id())]).status().unwrap().success());
        let status = wrapper.wait().unwrap();
        assert_eq!((status.code(), status.signal()), (Some(128 + number), None), "{name}");
        filler.kill().unwrap();
        filler.wait().unwrap();
        drop(reader);
    }
}

pub fn wait_until(condition: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed().as_secs() < 20, "the state did not come");
        std::thread::yield_now();
    }
}

fn status_field(pid: u32, field: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default().trim().to_owned()
}

pub fn handles(pid: u32, signal: i32) -> bool {
    u64::from_str_radix(&status_field(pid, "SigCgt:"), 16).is_ok_and(|caught| caught & (1 << (signal - 1)) != 0)
}

pub fn sleeping(pid: u32) -> bool {
    status_field(pid, "State:").starts_with('S')
}

pub fn program(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}
