//! The agent while everything around it goes wrong: clients that die, hang, trickle and lie, too few descriptors, disks that
//! are full, clocks that jump, policies that change by the hundred, and its own death. Whatever it was, nothing is given that
//! is not written down, and afterwards descriptors and resident memory are where they were.

mod clients;
mod clock;
mod death;
mod disk;
mod neighbours;
mod reload;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vouchsafe::agent::protocol::reply::{Refusal, Reply};
use vouchsafe::agent::protocol::request::{Ask, Purpose, Request};
use vouchsafe::agent::protocol::{HEADER, decode_reply, encode_request};
use vouchsafe::name::EnvironmentName;

use crate::agent_scene::Agent;

/// Nothing takes longer, or it hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a process holds.
#[derive(Debug, Clone, Copy)]
struct Usage {
    descriptors: usize,
    /// KiB.
    resident: u64,
}

impl Usage {
    fn of(pid: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        let resident = line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap();
        Self { descriptors: std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(), resident }
    }

    /// Of an agent that nobody is connected to any more; its last threads for stores may take a while to end.
    fn settled(agent: &Agent<'_>) -> Self {
        let start = Instant::now();
        while connections(agent) > 1 {
            assert!(start.elapsed() < PATIENCE, "connections stay open");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self::of(pid(agent))
    }

    /// Waits until an agent holds what it held `before`, and at most `more` KiB more.
    #[track_caller]
    fn returns(before: Self, agent: &Agent<'_>, more: u64) {
        let start = Instant::now();
        loop {
            let now = Self::settled(agent);
            if now.descriptors <= before.descriptors && now.resident <= before.resident + more {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{before:?} before, {now:?} now");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn pid(agent: &Agent<'_>) -> u32 {
    agent.child.as_ref().unwrap().id()
}

/// How many are open, the one that asks counted.
fn connections(agent: &Agent<'_>) -> u64 {
    status(agent)["connections"]["open"].as_u64().unwrap()
}

fn status(agent: &Agent<'_>) -> serde_json::Value {
    let body = exchange(&agent.socket(), &encode_request(&Request::Status).unwrap()).unwrap();
    match decode_reply(&body) {
        Ok(Reply::Status(text)) => serde_json::from_str(&text).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// A request for all that `test` gives.
fn asking() -> Vec<u8> {
    ask_for("test")
}

/// A request for all that an environment gives.
fn ask_for(environment: &str) -> Vec<u8> {
    encode_request(&Request::Resolve(Ask {
        environment: EnvironmentName::new(environment).unwrap(),
        service: None,
        only: None,
        command: None,
        parent: 1,
        terminal: None,
        purpose: Purpose::Become,
    }))
    .unwrap()
}

/// One request over a connection of its own; the body of the reply.
fn exchange(socket: &Path, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // Who is turned away is told so, perhaps before it has asked.
    let sent = stream.write_all(request);
    let body = read_body(&mut stream);
    if body.is_err() {
        sent?;
    }
    body
}

fn read_body(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header)?;
    let mut body = vec![0; u32::from_be_bytes(header) as usize];
    stream.read_exact(&mut body)?;
    Ok(body)
}

/// The values of a reply as text, or the refusal.
fn values(body: &[u8]) -> Result<Vec<(String, String)>, Refusal> {
    match decode_reply(body).unwrap() {
        Reply::Granted(granted) => Ok(granted
            .values
            .iter()
            .map(|value| (value.name.to_owned(), String::from_utf8_lossy(value.bytes.0).into_owned()))
            .collect()),
        Reply::Refused(refusal) => Err(refusal),
        other => panic!("{other:?}"),
    }
}

/// What the agent gives now.
fn resolve(agent: &Agent<'_>) -> Result<Vec<(String, String)>, Refusal> {
    values(&exchange(&agent.socket(), &asking()).unwrap())
}

/// Tells the threads of a test to end, however it ends itself.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Numbers that look random and are the same each time (xorshift64*).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }
}

/// The verdict of `audit verify` on the agent's log.
fn verdict(agent: &Agent<'_>, scene: &crate::harness::Scene, log: &str) -> String {
    assert!(!agent.log().contains("\"internal\""), "{}", agent.log());
    let report = scene.vouchsafe(&["audit", "verify", "--json", log]);
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    report["state"].as_str().unwrap().to_owned()
}
