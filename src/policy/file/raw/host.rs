//! The host file as it is written.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{At, RawAudit, RawPrincipal};

/// What only the host's owner decides.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a host file")]
pub(in crate::policy) struct RawHost {
    #[serde(default)]
    pub(in crate::policy) audit: RawAudit,
    #[serde(default)]
    pub(in crate::policy) agent: RawAgent,
    #[serde(default)]
    pub(in crate::policy) network: RawNetwork,
    pub(in crate::policy) trust: Option<At<RawTrust>>,
}

/// `[agent]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(in crate::policy) struct RawAgent {
    pub(in crate::policy) socket: Option<At<String>>,
    pub(in crate::policy) users: Option<At<Vec<At<RawPrincipal>>>>,
    pub(in crate::policy) user: Option<At<RawPrincipal>>,
    pub(in crate::policy) require: Option<At<bool>>,
    pub(in crate::policy) state: Option<At<String>>,
}

/// `[network]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(in crate::policy) struct RawNetwork {
    pub(in crate::policy) env_endpoint: Option<At<bool>>,
    #[serde(default)]
    pub(in crate::policy) ca_files: Vec<At<String>>,
}

/// `[trust]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(in crate::policy) struct RawTrust {
    pub(in crate::policy) environments: Option<At<Vec<At<String>>>>,
    #[serde(default)]
    pub(in crate::policy) min_serial: BTreeMap<At<String>, At<i64>>,
    #[serde(default)]
    pub(in crate::policy) keys: Vec<At<RawKey>>,
    #[serde(default)]
    pub(in crate::policy) revoked: Vec<At<String>>,
}

/// `[[trust.keys]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(in crate::policy) struct RawKey {
    pub(in crate::policy) key: Option<At<String>>,
    pub(in crate::policy) environments: Option<At<Vec<At<String>>>>,
    pub(in crate::policy) expires: Option<At<String>>,
}
