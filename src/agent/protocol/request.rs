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
        /// The class of what kept it from the child: [`Class::word`](crate::error::Class::word).
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
    /// Keep the connection and tell me when what I was given has changed. Reserved: must be false.
    pub subscribe: bool,
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
