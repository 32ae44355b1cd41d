//! `[secrets.NAME.rotate]` as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::words::{AlphabetWord, ApplyType, ClassWord, GenerateType, PendingWord};
use super::{At, Span};

/// How a value is rotated.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(in crate::policy) struct RawRotate {
    /// How often.
    pub(in crate::policy) every: Option<At<String>>,
    /// What makes the new value. Default: a password.
    pub(in crate::policy) generate: Option<At<RawGenerate>>,
    /// What makes the target accept it. Default: none.
    pub(in crate::policy) apply: Option<At<RawApply>>,
    /// ssm: where a version lies that is not proven yet. Default: version.
    pub(in crate::policy) pending: Option<At<PendingWord>>,
    /// How long the previous credential is left to those who still hold it; `0s` ends it at once, or with a target as soon as
    /// no agent may serve it any more. Default: until the next rotation.
    pub(in crate::policy) retire_after: Option<At<String>>,
}

/// What makes a new value.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(in crate::policy) struct RawGenerate {
    /// What kind of value. Default: password.
    pub(in crate::policy) r#type: Option<At<GenerateType>>,
    /// password: characters, 16 to 4096. Default: 40.
    #[schemars(range(min = 16, max = 4096))]
    pub(in crate::policy) length: Option<At<i64>>,
    /// password: which characters. Default: url-safe.
    pub(in crate::policy) alphabet: Option<At<AlphabetWord>>,
    /// password: characters that it must not have, ASCII.
    pub(in crate::policy) exclude: Option<At<String>>,
    /// password: classes of which it has at least one character each.
    pub(in crate::policy) require: Option<At<Vec<At<ClassWord>>>>,
    /// hex, base64: random bytes before encoding, 16 to 512. Default: 32.
    #[schemars(range(min = 16, max = 512))]
    pub(in crate::policy) bytes: Option<At<i64>>,
    /// command: the absolute path of the program.
    pub(in crate::policy) program: Option<At<String>>,
    /// command: how long it may take. Default: 30s.
    pub(in crate::policy) timeout: Option<At<String>>,
    /// command: secrets that it gets in its environment, under their names.
    pub(in crate::policy) needs: Option<At<Vec<At<String>>>>,
}

impl RawGenerate {
    /// The fields that only some types have: name, place, types.
    pub(in crate::policy) fn fields_of_types(&self) -> [(&'static str, Option<Span>, &'static [GenerateType]); 8] {
        const PASSWORD: &[GenerateType] = &[GenerateType::Password];
        const COMMAND: &[GenerateType] = &[GenerateType::Command];
        [
            ("length", self.length.as_ref().map(|at| at.span), PASSWORD),
            ("alphabet", self.alphabet.as_ref().map(|at| at.span), PASSWORD),
            ("exclude", self.exclude.as_ref().map(|at| at.span), PASSWORD),
            ("require", self.require.as_ref().map(|at| at.span), PASSWORD),
            ("bytes", self.bytes.as_ref().map(|at| at.span), &[GenerateType::Base64, GenerateType::Hex]),
            ("program", self.program.as_ref().map(|at| at.span), COMMAND),
            ("timeout", self.timeout.as_ref().map(|at| at.span), COMMAND),
            ("needs", self.needs.as_ref().map(|at| at.span), COMMAND),
        ]
    }
}

/// What makes the target accept a new value.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(in crate::policy) struct RawApply {
    /// What kind of target.
    #[schemars(required, with = "ApplyType")]
    pub(in crate::policy) r#type: Option<At<ApplyType>>,
    /// command: the absolute path of the program.
    pub(in crate::policy) program: Option<At<String>>,
    /// command: how long one step may take. Default: 30s.
    pub(in crate::policy) timeout: Option<At<String>>,
    /// command: secrets that it gets in its environment, under their names: an administrator's credential.
    pub(in crate::policy) needs: Option<At<Vec<At<String>>>>,
    /// postgres: the secret that holds the administrator's connection URL.
    pub(in crate::policy) admin: Option<At<String>>,
    /// postgres: the role whose password it is.
    pub(in crate::policy) role: Option<At<String>>,
    /// postgres: two roles that take turns, instead of `role`: the one in use is never altered.
    #[schemars(length(min = 2, max = 2))]
    pub(in crate::policy) roles: Option<At<Vec<At<String>>>>,
    /// postgres: a query that the new credential must be able to run, one line, without `;`.
    pub(in crate::policy) check: Option<At<String>>,
}

impl RawApply {
    /// The fields that only one type has: name, place, type.
    pub(in crate::policy) fn fields_of_types(&self) -> [(&'static str, Option<Span>, ApplyType); 7] {
        [
            ("program", self.program.as_ref().map(|at| at.span), ApplyType::Command),
            ("timeout", self.timeout.as_ref().map(|at| at.span), ApplyType::Command),
            ("needs", self.needs.as_ref().map(|at| at.span), ApplyType::Command),
            ("admin", self.admin.as_ref().map(|at| at.span), ApplyType::Postgres),
            ("role", self.role.as_ref().map(|at| at.span), ApplyType::Postgres),
            ("roles", self.roles.as_ref().map(|at| at.span), ApplyType::Postgres),
            ("check", self.check.as_ref().map(|at| at.span), ApplyType::Postgres),
        ]
    }

    /// Every secret that applying needs.
    pub(in crate::policy) fn means(&self) -> impl Iterator<Item = &At<String>> {
        self.admin.iter().chain(self.needs.iter().flat_map(|at| &at.value))
    }
}
