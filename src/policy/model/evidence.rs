//! What makes the records of a file hold against whoever takes the host later.

use std::path::PathBuf;
use std::time::Duration;

use crate::name::show;

/// What makes the records of a file hold against whoever takes the host later.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The age recipient to whom seeds go. Where there is one, no record is written that is not sealed.
    pub auditor: Option<String>,
    /// When signed statements of where the chain stands leave the host, and where to.
    pub checkpoints: Option<Checkpoints>,
}

/// `[audit.sinks.checkpoints]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoints {
    /// After so many records,
    pub every: u64,
    /// or when the last one is so old and there is a record since.
    pub interval: Duration,
    /// Where to.
    pub to: Vec<Anchor>,
}

/// Where a checkpoint goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anchor {
    /// A program, which finds it in `VOUCHSAFE_CHECKPOINT`.
    Command(PathBuf),
    /// A descriptor that the process was started with.
    Fd(i32),
    /// A file, to whose end it is added.
    File(PathBuf),
    /// The local socket of a syslog daemon.
    Syslog(PathBuf),
}

impl Anchor {
    /// As the policy writes it.
    #[must_use]
    pub fn word(&self) -> String {
        match self {
            Self::Command(path) => format!("command:{}", show(path)),
            Self::Fd(number) => format!("fd:{number}"),
            Self::File(path) => format!("file:{}", show(path)),
            Self::Syslog(path) => format!("syslog:{}", show(path)),
        }
    }
}
