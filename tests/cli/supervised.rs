//! A supervisor with its child, started and looked at from outside.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Outcome, Scene, VOUCHSAFE};

/// Every signal that a shell can trap: not KILL and STOP, not CHLD, which it needs, not the two of the C library.
pub fn every_signal() -> impl Iterator<Item = i32> {
    (1..=64).filter(|signal| ![9, 17, 19, 32, 33].contains(signal))
}

/// A supervisor with its child.
pub struct Supervised {
    pub scene: Scene,
    pub wrapper: Started,
    pub input: Option<ChildStdin>,
    lines: BufReader<ChildStdout>,
}

/// Killed if a test fails; its child is then asked to end.
pub struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        self.0.wait().map(drop).unwrap_or_default();
    }
}

impl Supervised {
    /// `run --supervise -- sh -c SCRIPT`
    pub fn start(scene: Scene, script: &str) -> Self {
        let arguments = arguments(&scene, &["sh", "-c", script]);
        Self::spawn(scene, VOUCHSAFE, &arguments)
    }

    pub fn spawn(scene: Scene, program: &str, arguments: &[OsString]) -> Self {
        let mut command = scene.other(program, arguments);
        let mut wrapper = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, lines) = (wrapper.stdin.take(), BufReader::new(wrapper.stdout.take().unwrap()));
        Self { scene, wrapper: Started(wrapper), input, lines }
    }

    /// A child that says `ready`, then the number of each signal that it gets.
    pub fn counting() -> Self {
        let traps: String = every_signal().map(|signal| format!("trap 'echo {signal}' {signal}; ")).collect();
        let script = format!("sleep 1000 & {traps} echo ready; while :; do wait; done");
        let mut supervised = Self::start(Scene::with(&[("A", "1")]), &script);
        assert_eq!(supervised.line(), "ready");
        supervised
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Writes to the child's standard input.
    pub fn answer(&mut self, text: &str) {
        self.input.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.wrapper.0.id()
    }

    pub fn send(&self, signal: impl std::fmt::Display) {
        send(&self.scene, signal, self.pid());
    }

    /// The child, once it is there.
    pub fn child(&self) -> u32 {
        wait_until("a child", || !children(self.pid()).is_empty());
        children(self.pid())[0]
    }

    /// How the supervisor ended, and what else was printed.
    pub fn end(mut self) -> (ExitStatus, String, Scene) {
        drop(self.input.take());
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.wrapper.0.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < Duration::from_secs(30), "it does not end");
            std::thread::yield_now();
        };
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        (status, rest, self.scene)
    }
}

pub fn arguments(scene: &Scene, child: &[&str]) -> Vec<OsString> {
    let mut arguments = scene.run_arguments(child);
    arguments.insert(1, "--supervise".into());
    arguments
}

pub fn supervised(scene: &Scene, child: &[&str]) -> Outcome {
    scene.vouchsafe(&arguments(scene, child))
}

pub fn send(scene: &Scene, signal: impl std::fmt::Display, pid: u32) {
    assert!(scene.other("sh", &["-c", &format!("kill -{signal} {pid}")]).status().unwrap().success());
}

pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "it did not come: {what}");
        std::thread::yield_now();
    }
}

/// The children of a process, zombies too (proc_pid_task(5)).
pub fn children(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// The fields of proc_pid_stat(5) after the name: state, parent, process group, session.
pub fn stat(pid: u32) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    text.rsplit_once(") ").map(|(_, rest)| rest.split(' ').map(str::to_owned).collect()).unwrap_or_default()
}

pub fn state(pid: u32) -> String {
    stat(pid).first().cloned().unwrap_or_default()
}
