//! What makes the records of a file hold against whoever takes the host later.

use std::path::PathBuf;
use std::time::Duration;

use super::{AwsAccess, Sink};
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
    /// A parameter of AWS Systems Manager.
    Parameter(Box<ParameterAnchor>),
    /// The local socket of a syslog daemon.
    Syslog(PathBuf),
}

/// `{ type = "ssm", ... }`: a parameter that each checkpoint overwrites, so that its history has the older ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterAnchor {
    /// Its name, from `/` on; `{host}` stands for the name of the host, `{uid}` for the uid of whoever writes the log.
    pub name: String,
    /// The client.
    pub aws: AwsAccess,
}

/// The parameters that checkpoints of these sinks go to.
pub fn parameters_of(sinks: &[Sink]) -> impl Iterator<Item = &ParameterAnchor> {
    let anchors = sinks.iter().filter_map(|sink| match sink {
        Sink::File { evidence, .. } => evidence.checkpoints.as_ref(),
        _ => None,
    });
    anchors.flat_map(|rules| &rules.to).filter_map(|anchor| match anchor {
        Anchor::Parameter(parameter) => Some(&**parameter),
        Anchor::Command(_) | Anchor::Fd(_) | Anchor::File(_) | Anchor::Syslog(_) => None,
    })
}

impl Anchor {
    /// As the policy writes it.
    #[must_use]
    pub fn word(&self) -> String {
        match self {
            Self::Command(path) => format!("command:{}", show(path)),
            Self::Fd(number) => format!("fd:{number}"),
            Self::File(path) => format!("file:{}", show(path)),
            Self::Parameter(parameter) => format!("ssm:{}", parameter.name),
            Self::Syslog(path) => format!("syslog:{}", show(path)),
        }
    }
}
