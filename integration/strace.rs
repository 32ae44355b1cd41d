//! strace: what a command asked of the kernel, and a kernel that fails it or kills it at a chosen call.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};

use crate::harness::{Scene, VOUCHSAFE};

/// One system call as strace wrote it, its process id left out.
pub struct Call {
    pub name: String,
    pub text: String,
}

impl Call {
    /// Whether the kernel did it.
    pub fn succeeded(&self) -> bool {
        !self.text.contains(" = -1 ") && !self.text.contains(" = ?")
    }

    pub fn mentions(&self, what: &str) -> bool {
        self.text.contains(what)
    }

    pub fn opens(&self, path: &str) -> bool {
        ["open", "openat", "openat2"].contains(&self.name.as_str()) && self.mentions(path)
    }
}

/// What a command under strace did and left.
pub struct Traced {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub calls: Vec<Call>,
    /// strace's own words: how processes ended, which signals came.
    pub remarks: String,
}

impl Traced {
    /// The one place where this call stands; fails loudly if it is not there.
    pub fn position(&self, what: &str, is_it: impl Fn(&Call) -> bool) -> usize {
        self.calls.iter().position(is_it).unwrap_or_else(|| panic!("{what}: not in\n{}", self.transcript()))
    }

    pub fn count(&self, is_it: impl Fn(&Call) -> bool) -> usize {
        self.calls.iter().filter(|call| is_it(call)).count()
    }

    pub fn transcript(&self) -> String {
        let calls: String =
            self.calls.iter().map(|call| call.text.chars().take(300).collect::<String>() + "\n").collect();
        format!("{calls}{}status: {:?}\nstderr: {}", self.remarks, self.status, String::from_utf8_lossy(&self.stderr))
    }
}

/// Runs `command` under `strace -f` with `options`, in the scene's environment. The trace lies in a folder of its own, so
/// that a test can look at every file of the scene.
pub fn trace(scene: &Scene, options: &[&str], command: &[OsString], input: &[u8]) -> Traced {
    trace_as(scene, &[&["-f"], options].concat(), command, input)
}

/// The same without the processes that `command` starts: its calls can be counted though others run beside it.
pub fn trace_as(scene: &Scene, options: &[&str], command: &[OsString], input: &[u8]) -> Traced {
    let elsewhere = Scene::new();
    let log = elsewhere.path("trace");
    let mut words: Vec<OsString> = vec!["-o".into(), log.clone().into()];
    words.extend(options.iter().map(Into::into));
    words.push("--".into());
    words.extend_from_slice(command);
    let mut strace = scene.other("strace", &words);
    let mut strace = strace.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The command may end without reading it all.
    strace.stdin.take().unwrap().write_all(input).unwrap_or_default();
    let output = strace.wait_with_output().unwrap();
    let text = std::fs::read(&log).unwrap();
    let (calls, remarks) = parse(&String::from_utf8_lossy(&text));
    assert!(!calls.is_empty(), "strace did not run: {}", String::from_utf8_lossy(&output.stderr));
    Traced { status: output.status, stdout: output.stdout, stderr: output.stderr, calls, remarks }
}

fn parse(text: &str) -> (Vec<Call>, String) {
    let mut calls = Vec::new();
    let mut remarks = String::new();
    for line in text.lines() {
        let rest = line.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
        match rest.split_once('(') {
            Some((name, _)) if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') => {
                calls.push(Call { name: name.to_owned(), text: rest.to_owned() });
            }
            _ => {
                remarks.push_str(rest);
                remarks.push('\n');
            }
        }
    }
    (calls, remarks)
}

/// The dynamic binary under test, with arguments.
pub fn vouchsafe<S: AsRef<OsStr>>(arguments: &[S]) -> Vec<OsString> {
    let own = std::iter::once(OsString::from(VOUCHSAFE));
    own.chain(arguments.iter().map(|argument| argument.as_ref().to_owned())).collect()
}

/// One call at which something can go wrong: the `ordinal`-th of its name since the command's start.
pub struct Point {
    pub name: String,
    pub ordinal: usize,
    /// The call as it was when nothing went wrong.
    pub text: String,
}

/// What writes, and what has to be right for a write to be right.
pub const WRITING: &[&str] = &[
    "open",
    "openat",
    "write",
    "writev",
    "pwrite64",
    "fsync",
    "fdatasync",
    "flock",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
    "fchmod",
    "fchown",
    "ftruncate",
    "mkdir",
];

/// The points of a traced command at calls of these names, from where it has made itself undumpable: before that there is
/// only the loader.
pub fn points(traced: &Traced, names: &[&str]) -> Vec<Point> {
    let start = traced.position("prctl", |call| call.name == "prctl" && call.mentions("PR_SET_DUMPABLE"));
    let mut counts = std::collections::HashMap::new();
    let mut points = Vec::new();
    for (index, call) in traced.calls.iter().enumerate() {
        // strace does not count the exec by which it starts the command.
        let first = usize::from(index > 0);
        let ordinal = counts.entry(call.name.as_str()).and_modify(|count| *count += 1).or_insert(first);
        if index > start && names.contains(&call.name.as_str()) {
            points.push(Point { name: call.name.clone(), ordinal: *ordinal, text: call.text.clone() });
        }
    }
    points
}

/// What [`points`] needs of a trace.
pub fn baseline(scene: &Scene, command: &[OsString], input: &[u8]) -> Traced {
    trace(scene, &["-y", "-e", "signal=none"], command, input)
}

/// Runs `command` and lets the call at `point` fail with `fault` (strace's words: `error=ENOSPC`, `signal=KILL`). Fails
/// loudly if it never came to that.
pub fn inject(scene: &Scene, point: &Point, fault: &str, command: &[OsString], input: &[u8]) -> Traced {
    inject_as(scene, &["-f"], point, fault, command, input)
}

/// The same with other options; none: without the processes that `command` starts.
pub fn inject_as(
    scene: &Scene,
    options: &[&str],
    point: &Point,
    fault: &str,
    command: &[OsString],
    input: &[u8],
) -> Traced {
    let filter = format!("trace={}", point.name);
    let rule = format!("inject={}:{fault}:when={}", point.name, point.ordinal);
    let options = [options, &["-y", "-e", &filter, "-e", &rule]].concat();
    let traced = trace_as(scene, &options, command, input);
    let hit = if fault.starts_with("signal=KILL") {
        traced.status.signal() == Some(9)
    } else {
        traced.calls.iter().any(|call| call.mentions("(INJECTED)"))
    };
    assert!(hit, "{fault} at {} {} ({}) did not hit\n{}", point.name, point.ordinal, point.text, traced.transcript());
    traced
}
