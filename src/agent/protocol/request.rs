//! What a client says. Who it is says the kernel; everything here is a claim.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::name::{EnvironmentName, ServiceName, VariableName};

/// A message of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Grant me what the policy of this environment and service gives me.
    Resolve(Ask),
    /// What was granted last on this connection reached no child. The agent writes it down.
    Unused {
        /// The class of what kept it from the child: [`Class::word`](crate::error::Class::word); or [`COMPARED`].
        class: String,
    },
    /// What the agent serves, without values. For root and the agent's own user.
    Status,
    /// Forget what is cached. For root and the agent's own user.
    Flush {
        /// Of this environment only.
        environment: Option<EnvironmentName>,
        /// Of this service only.
        service: Option<ServiceName>,
    },
    /// What became of a child, says its supervisor. The agent writes it down, as that one's claim.
    Child(ChildReport),
}

/// The word of [`Request::Unused`] where a supervisor only looked whether something had changed.
pub const COMPARED: &str = "compared";

/// What a supervisor says of its child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildReport {
    /// What its secrets were asked for.
    pub environment: EnvironmentName,
    /// What its secrets were asked for.
    pub service: Option<ServiceName>,
    /// The command.
    pub command: CommandClaim,
    /// The supervisor's parent process.
    pub parent: u32,
    /// The access of the release: [`Granted::access`](super::reply::Granted::access).
    pub access: [u8; 8],
    /// What became of it.
    pub event: ChildEvent,
}

/// What became of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChildEvent {
    /// It ended by itself.
    Exited {
        /// Its number.
        pid: u32,
        /// Its status.
        status: u8,
    },
    /// It died of a signal.
    Killed {
        /// Its number.
        pid: u32,
        /// The signal, from 1 to 64.
        signal: u8,
    },
    /// It is stopped next, and started with what has changed.
    Changed,
    /// It ended soon after a change, and is started again.
    Again {
        /// The how manieth time.
        start: u32,
        /// How many times there can be.
        of: u32,
    },
}

/// What is asked for, and for whom as the client says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// The environment.
    pub environment: EnvironmentName,
    /// The service; absent for the environment's own policy.
    pub service: Option<ServiceName>,
    /// These secrets only; absent for all that the policy injects.
    pub only: Option<Vec<VariableName>>,
    /// The command that would receive the secrets.
    pub command: Option<CommandClaim>,
    /// The client's parent process.
    pub parent: u32,
    /// The client's terminal.
    pub terminal: Option<String>,
    /// What it is for.
    pub purpose: Purpose,
}

/// What the values are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// The process that asks becomes the command; unless the policy wants a supervisor, whose rules are answered then.
    Become,
    /// None are asked for: the process stays as the command's supervisor, and wants the rules for that.
    Supervise,
    /// The process that asks becomes the command, under a supervisor.
    Child,
    /// The same, if anything has changed since what this stood for: [`Granted::set`](super::reply::Granted::set).
    Look {
        /// What the command has now.
        has: [u8; 32],
    },
    /// None are asked for: the process stays connected and wants to hear when they are others.
    Watch {
        /// What the command has now.
        has: [u8; 32],
    },
}

/// A command as the client claims it to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandClaim {
    /// The absolute path that the look-up found.
    #[serde(with = "path")]
    pub found: PathBuf,
    /// The same with every symbolic link resolved.
    #[serde(with = "path")]
    pub canonical: PathBuf,
    /// How many arguments it gets, its own name not counted.
    pub arguments: u32,
    /// SHA-256 of the file, if it is ELF and the agent has asked for it.
    pub sha256: Option<[u8; 32]>,
}

/// A path is bytes, which need not be UTF-8.
mod path {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(path.as_os_str().as_bytes())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        let bytes = <&[u8]>::deserialize(deserializer)?;
        Ok(OsString::from_vec(bytes.to_vec()).into())
    }
}
