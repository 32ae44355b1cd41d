//! The host file as checked types: what only the host's owner decides, and no policy author may.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use super::{Principal, Sink};
use crate::name::EnvironmentName;

/// The host file: what only the host's owner decides.
#[derive(Debug, Clone, Default)]
pub struct HostFile {
    /// Where it was read from.
    pub path: PathBuf,
    /// Where these are present they count instead of a policy's.
    pub sinks: Vec<Sink>,
    /// `[agent]`.
    pub agent: HostAgent,
    /// `[network]`.
    pub network: HostNetwork,
    /// `[trust]`: where signatures are required.
    pub trust: Option<Trust>,
}

/// `[agent]` of the host file.
#[derive(Debug, Clone, Default)]
pub struct HostAgent {
    /// The agent's socket.
    pub socket: Option<PathBuf>,
    /// Who may connect at all.
    pub users: Vec<Principal>,
    /// As whom it runs, where that is not root: what clients take for the agent.
    pub user: Option<Principal>,
    /// Whether everybody but root has to go through it.
    pub require: bool,
    /// The folder of what it must not forget when it ends.
    pub state: Option<PathBuf>,
}

/// `[network]` of the host file.
#[derive(Debug, Clone, Default)]
pub struct HostNetwork {
    /// Whether endpoints, proxies and CA files from the environment count.
    pub env_endpoint: bool,
    /// Further CA files.
    pub ca_files: Vec<PathBuf>,
}

/// `[trust]` of the host file.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// Environments whose policies count only with a signature.
    pub environments: Vec<EnvironmentName>,
    /// The least serial accepted, by environment.
    pub min_serial: BTreeMap<EnvironmentName, u64>,
    /// Keys, as OpenSSH writes them, each with the environments it may sign for.
    pub keys: Vec<TrustedKey>,
    /// Keys that count nowhere, whatever else says so.
    pub revoked: Vec<String>,
}

/// One key of `[trust]`.
#[derive(Debug, Clone)]
pub struct TrustedKey {
    /// `ssh-ed25519 AAAA...`.
    pub key: String,
    /// The environments it may sign for.
    pub environments: Vec<EnvironmentName>,
    /// From when on it counts no longer.
    pub expires: Option<SystemTime>,
}
