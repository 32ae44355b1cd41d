//! Why nothing came from the agent.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::agent::protocol::FrameError;
use crate::checked_file::plain_io;
use crate::error::{Cause, Class};
use crate::name::{EnvironmentName, ServiceName, show};

/// Why nothing came from the agent.
#[derive(Debug)]
pub enum ClientError {
    /// It has too much to do for this user, or in all.
    Busy(PathBuf),
    /// It closed the connection.
    Closed(PathBuf),
    /// It gives nothing.
    Denied {
        /// The socket.
        socket: PathBuf,
        /// What was asked for.
        environment: EnvironmentName,
        /// What was asked for.
        service: Option<ServiceName>,
        /// The host's log, where there is one: it says why.
        log: Option<String>,
    },
    /// The host file demands the agent.
    Demanded,
    /// The policy demands the agent; its environment.
    DemandedByPolicy(EnvironmentName),
    /// A message is not of this protocol.
    Frame(FrameError),
    /// A system call failed.
    Io {
        /// The socket.
        socket: PathBuf,
        /// What was tried, as in "cannot ...".
        doing: &'static str,
        /// Why not.
        error: io::Error,
    },
    /// Nothing says which environment.
    NoEnvironment,
    /// The agent does not know what was said.
    NotUnderstood,
    /// The answer makes no sense.
    Senseless,
    /// Somebody else listens there.
    Stranger {
        /// The socket.
        socket: PathBuf,
        /// Who.
        uid: u32,
    },
    /// Only root and the agent's own user may ask that.
    Untrusted(PathBuf),
    /// It did not write down what became of a child.
    Unwritten(PathBuf),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy(socket) => write!(f, "the agent at `{}` has too many requests", show(socket)),
            Self::Closed(socket) => write!(f, "the agent at `{}` closed the connection", show(socket)),
            Self::Denied { socket, environment, service, .. } => {
                let service = service.as_ref().map(|name| format!(", service `{name}`")).unwrap_or_default();
                write!(f, "the agent at `{}` gives you nothing for `{environment}`{service}", show(socket))
            }
            Self::Demanded => write!(f, "the host file demands that secrets come through the agent"),
            Self::DemandedByPolicy(_) => write!(f, "the policy demands that its secrets come through the agent"),
            Self::Frame(error) => write!(f, "agent: {error}"),
            Self::Io { socket, doing, error } if error.kind() == io::ErrorKind::WouldBlock => {
                write!(f, "cannot {doing} the agent at `{}`: it does not answer", show(socket))
            }
            Self::Io { socket, doing, error } => {
                write!(f, "cannot {doing} the agent at `{}`: {}", show(socket), plain_io(error))
            }
            Self::NoEnvironment => write!(f, "nothing says which environment to ask the agent for"),
            Self::NotUnderstood => write!(f, "the agent does not know what was asked: is it of another version?"),
            Self::Senseless => write!(f, "the answer of the agent makes no sense"),
            Self::Stranger { socket, uid } => {
                write!(f, "`{}` is served by uid {uid}, who is not the agent; nothing was sent", show(socket))
            }
            Self::Untrusted(socket) => {
                write!(f, "the agent at `{}` tells that only to root and to its own user", show(socket))
            }
            Self::Unwritten(socket) => {
                write!(f, "the agent at `{}` did not write down what became of the child", show(socket))
            }
        }
    }
}

impl Cause for ClientError {
    fn class(&self) -> Class {
        match self {
            Self::Denied { .. }
            | Self::Demanded
            | Self::DemandedByPolicy(_)
            | Self::Stranger { .. }
            | Self::Untrusted(_) => Class::Denied,
            Self::NoEnvironment => Class::Usage,
            Self::Unwritten(_) => Class::Audit,
            Self::Busy(_) | Self::Closed(_) | Self::Io { .. } => Class::Store,
            Self::Frame(_) | Self::NotUnderstood | Self::Senseless => Class::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Denied { log: Some(log), .. } => Some(format!("vouchsafe audit show {log}   # as root: says why")),
            Self::Denied { log: None, .. } => {
                Some("to go by a policy of your own instead: vouchsafe run --policy FILE -- COMMAND".into())
            }
            Self::Demanded => Some("vouchsafe run --agent --env ENVIRONMENT -- COMMAND".into()),
            Self::DemandedByPolicy(environment) => {
                Some(format!("vouchsafe run --agent --env {environment} -- COMMAND"))
            }
            Self::Io { doing: "reach", socket, .. } => {
                Some(format!("ls -l {}   # is it running? To go on without it: vouchsafe run --no-agent", show(socket)))
            }
            Self::NoEnvironment => Some("--env ENVIRONMENT, or VOUCHSAFE_ENV".into()),
            Self::NotUnderstood | Self::Frame(FrameError::Version(_)) => Some("vouchsafe --version".into()),
            Self::Stranger { uid, .. } => {
                Some(format!("if that is how the agent runs, in /etc/vouchsafe/host.toml: [agent] user = {uid}"))
            }
            Self::Busy(_)
            | Self::Closed(_)
            | Self::Frame(_)
            | Self::Io { .. }
            | Self::Senseless
            | Self::Untrusted(_)
            | Self::Unwritten(_) => None,
        }
    }
}
