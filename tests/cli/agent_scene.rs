//! An agent that serves a scene, from its start to its end.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Outcome, Scene, wait};

/// Nothing takes longer, or it hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// An agent that serves the scene's policy as `test`, ready when this is made.
pub struct Agent<'s> {
    scene: &'s Scene,
    pub child: Option<Child>,
    notify: UnixDatagram,
}

impl<'s> Agent<'s> {
    pub fn start(scene: &'s Scene) -> Self {
        Self::start_with(scene, "", &[])
    }

    /// With more in the host file, and more arguments.
    pub fn start_with(scene: &'s Scene, host: &str, arguments: &[&str]) -> Self {
        write_files(scene, host);
        let socket = scene.path("agent.sock");
        let mut words =
            vec!["agent", "--policies", "served", "--host", "host.toml", "--socket", socket.to_str().unwrap()];
        words.extend(arguments);
        Self::spawn(scene, scene.command(&words))
    }

    pub fn spawn(scene: &'s Scene, mut command: std::process::Command) -> Self {
        let notify = scene.path("notify.sock");
        std::fs::remove_file(&notify).unwrap_or_default();
        let notify_socket = UnixDatagram::bind(&notify).unwrap();
        notify_socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let log = std::fs::File::create(scene.path("agent.log")).unwrap();
        let child = command.env("NOTIFY_SOCKET", &notify).stderr(log).spawn().unwrap();
        let agent = Self { scene, child: Some(child), notify: notify_socket };
        assert!(agent.hear().contains("READY=1"), "{}", agent.log());
        agent
    }

    /// The next thing that the agent tells systemd.
    pub fn hear(&self) -> String {
        let mut buffer = [0; 200];
        let count = self.notify.recv(&mut buffer).unwrap_or_else(|error| panic!("{error}: {}", self.log()));
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.scene.path("agent.log")).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().unwrap()), signal).unwrap();
    }

    /// Reads the policies again, and waits until that is done.
    pub fn reload(&self) {
        self.signal(Signal::HUP);
        assert!(self.hear().starts_with("RELOADING=1"));
        assert_eq!(self.hear(), "READY=1");
    }

    /// The same after signals that nobody listened for: what is heard for them comes first.
    pub fn reload_at_last(&self) {
        const WORD: &str = "RELOADING=1\nMONOTONIC_USEC=";
        // Of what nobody takes, systemd's socket holds a few only; what comes then is lost.
        self.notify.set_nonblocking(true).unwrap();
        while self.notify.recv(&mut [0; 200]).is_ok() {}
        self.notify.set_nonblocking(false).unwrap();
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.signal(Signal::HUP);
        while self.hear().strip_prefix(WORD).is_none_or(|time| time.parse::<i64>().unwrap() < now) {}
        while self.hear() != "READY=1" {}
    }

    pub fn socket(&self) -> PathBuf {
        self.scene.path("agent.sock")
    }

    /// `vouchsafe run --agent=... --env test WORDS`.
    pub fn run(&self, words: &[&str]) -> Outcome {
        let through = format!("--agent={}", self.socket().display());
        let line = [&["run", &through, "--env", "test"], words].concat();
        self.scene.vouchsafe(&line)
    }

    pub fn ask(&self, verb: &str, words: &[&str]) -> Outcome {
        let socket = self.socket();
        let line = [&["agent", verb, "--socket", socket.to_str().unwrap()], words].concat();
        self.scene.vouchsafe(&line)
    }

    /// The records of the agent's log.
    pub fn audit(&self) -> Vec<serde_json::Value> {
        records(self.scene)
    }

    pub fn events(&self) -> Vec<String> {
        self.audit().iter().map(|record| record["event"].as_str().unwrap().to_owned()).collect()
    }

    /// Sends bytes as they are and gives what comes back until the agent closes.
    pub fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // It may be refused before it is all sent.
        stream.write_all(bytes).unwrap_or_default();
        stream.shutdown(Shutdown::Write).unwrap_or_default();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap_or_default();
        answer
    }

    /// Ends it as systemd would, and checks that it did so well and that its log is whole.
    pub fn end(mut self) {
        self.signal(Signal::TERM);
        let output = wait(self.child.take().unwrap());
        assert_eq!(output.status.code(), Some(0), "{}", self.log());
        assert_eq!(self.events().last().unwrap(), "agent.stopped");
        self.scene.vouchsafe(&["audit", "verify", "agent.jsonl"]).expect_status(0);
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap_or_default();
            child.wait().unwrap();
        }
    }
}

pub fn write_files(scene: &Scene, host: &str) {
    let policy = scene.write_policy();
    std::fs::create_dir_all(scene.path("served")).unwrap();
    scene.write("served/test.toml", &std::fs::read(policy).unwrap());
    let log = scene.path("agent.jsonl");
    let text = format!("[[audit.sinks]]\ntype = \"file\"\npath = \"{}\"\nsync = false\n{host}", log.display());
    scene.write("host.toml", text.as_bytes());
}

pub fn records(scene: &Scene) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(scene.path("agent.jsonl")).unwrap();
    // The last line may be about to be written.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
