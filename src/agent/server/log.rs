//! What the agent says of itself: one JSON object on a line of standard error for each event. Names and numbers, never values.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Map, Value, json};

/// How much somebody ought to care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// Somebody has to do something.
    Error,
    /// As it should be.
    Info,
    /// It goes on, and not as it should.
    Warning,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Info => "info",
            Self::Warning => "warning",
        }
    }
}

/// Writes one line. `more` is an object.
pub(crate) fn log(level: Level, event: &str, more: Value) {
    let time = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
    let mut line: Map<String, Value> = Map::new();
    line.insert("schema".into(), json!("vouchsafe.log/1"));
    line.insert("time".into(), json!(time));
    line.insert("level".into(), json!(level.word()));
    line.insert("event".into(), json!(event));
    if let Value::Object(more) = more {
        line.extend(more);
    }
    let lost = LOST.swap(0, Ordering::Relaxed);
    if lost > 0 {
        line.insert("lines_lost_before".into(), json!(lost));
    }
    if !write(&(Value::Object(line).to_string() + "\n")) {
        LOST.fetch_add(lost.saturating_add(1), Ordering::Relaxed);
    }
}

/// Lines that nobody took.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Writes without waiting: who reads the log too slowly must not hold up those who ask for secrets. There is nobody else to
/// tell, but the next line says how many are missing.
fn write(line: &str) -> bool {
    // All the pieces of a line together: the writer of the audit has something to say too.
    let mut err = io::stderr().lock();
    for piece in line.as_bytes().chunks(PIECE) {
        let mut ready = [PollFd::new(&err, PollFlags::OUT)];
        let is_ready = poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|count| count > 0);
        if !is_ready || err.write_all(piece).is_err() {
            return false;
        }
    }
    true
}

/// A pipe that is ready takes this much without waiting (pipe(7), PIPE_BUF).
const PIECE: usize = 4096;
