//! The table of expected verdicts that is kept beside a policy, as it is written.

use serde::Deserialize;

use super::{At, RawPrincipal};

/// `FILE.tests`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table of expected verdicts")]
pub(in crate::policy) struct RawExpectations {
    #[serde(default)]
    pub(in crate::policy) tests: Vec<At<RawExpectation>>,
}

/// One caller, and what he is to get and not to get.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(in crate::policy) struct RawExpectation {
    /// What the report calls it.
    pub(in crate::policy) name: Option<At<String>>,
    /// The user's name, or number.
    pub(in crate::policy) user: Option<At<RawPrincipal>>,
    /// The user's number, where grants name numbers and `user` is a name.
    pub(in crate::policy) uid: Option<At<RawPrincipal>>,
    /// The groups, by name or by number as the grants have them.
    pub(in crate::policy) groups: Option<At<Vec<At<RawPrincipal>>>>,
    /// The absolute path of the command. Absent: no command is known.
    pub(in crate::policy) command: Option<At<String>>,
    /// The same with every link resolved, where that is another path.
    pub(in crate::policy) resolved: Option<At<String>>,
    /// Its digest.
    pub(in crate::policy) sha256: Option<At<String>>,
    /// The request comes through the agent, so that command and digest are only claimed.
    pub(in crate::policy) agent: Option<At<bool>>,
    /// Names and globs of secrets that are granted, each by itself.
    pub(in crate::policy) granted: Option<At<Vec<At<String>>>>,
    /// Names and globs of secrets that are denied, each by itself.
    pub(in crate::policy) denied: Option<At<Vec<At<String>>>>,
}
