//! `[stores.NAME]` as it is written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::words::{CredentialWord, Format, NameWord, StoreType};
use super::{At, Span};

/// Where values live. Which fields belong to which type stands in their descriptions.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(in crate::policy) struct RawStore {
    /// What kind of store.
    #[schemars(required, with = "StoreType")]
    pub(in crate::policy) r#type: Option<At<StoreType>>,
    /// kms, ssm: the AWS region, such as `eu-west-1`.
    pub(in crate::policy) region: Option<At<String>>,
    /// kms, ssm: another endpoint; `http` only for a loopback address.
    pub(in crate::policy) endpoint: Option<At<String>>,
    /// kms, ssm: a profile of the shared AWS configuration.
    pub(in crate::policy) profile: Option<At<String>>,
    /// kms, ssm: a role to assume.
    pub(in crate::policy) role_arn: Option<At<String>>,
    /// kms, ssm: the account (12 digits) that every answer must come from.
    pub(in crate::policy) account: Option<At<String>>,
    /// kms, ssm: the one source that credentials may come from.
    pub(in crate::policy) credential_source: Option<At<CredentialWord>>,
    /// kms, ssm: how many calls may be under way at once, 1 to 50. Default: 4.
    #[schemars(with = "Option<i64>", range(min = 1, max = 50))]
    pub(in crate::policy) in_flight: Option<At<i64>>,
    /// ssm: put before every item that does not begin with `/` or `arn:`.
    pub(in crate::policy) prefix: Option<At<String>>,
    /// How the name of a variable becomes the name of its item, where the secret names none. Default: as-written.
    pub(in crate::policy) names: Option<At<NameWord>>,
    /// kms: the ARN of the key (required). ssm: the key of values written; absent, the account's default key.
    pub(in crate::policy) key: Option<At<String>>,
    /// age (required), kms: the sealed file, relative to this policy file; `~/` only for a user's own run, never as root.
    pub(in crate::policy) path: Option<At<String>>,
    /// age, kms: who can open the file after it is written (`age1...`).
    pub(in crate::policy) recipients: Option<At<Vec<At<String>>>>,
    /// age: a file of recipients, one a line.
    pub(in crate::policy) recipients_file: Option<At<String>>,
    /// age (required), kms: what opens the file, tried in order: `credential:NAME`, `file:PATH`, `env:NAME`.
    pub(in crate::policy) identities: Option<At<Vec<At<String>>>>,
    /// kms: added to the encryption context of the sealed file.
    pub(in crate::policy) context: Option<At<BTreeMap<At<String>, At<String>>>>,
    /// age: what the plaintext looks like. Default: sealed.
    pub(in crate::policy) format: Option<At<Format>>,
    /// age, kms: the least generation of the sealed file that is used: an older copy of it is refused.
    #[schemars(with = "Option<i64>", range(min = 0))]
    pub(in crate::policy) min_generation: Option<At<i64>>,
    /// age: a file made by hand is bound to no environment; outside `dev` this says that it is meant.
    pub(in crate::policy) unbound: Option<At<bool>>,
}

impl RawStore {
    /// Every field that only some types have: its name, where it stands if it does, and the types.
    pub(in crate::policy) fn fields_of_types(&self) -> [(&'static str, Option<Span>, &'static [StoreType]); 17] {
        use StoreType::{Age, Kms, Ssm};
        [
            ("region", span(self.region.as_ref()), &[Kms, Ssm]),
            ("endpoint", span(self.endpoint.as_ref()), &[Kms, Ssm]),
            ("profile", span(self.profile.as_ref()), &[Kms, Ssm]),
            ("role_arn", span(self.role_arn.as_ref()), &[Kms, Ssm]),
            ("account", span(self.account.as_ref()), &[Kms, Ssm]),
            ("credential_source", span(self.credential_source.as_ref()), &[Kms, Ssm]),
            ("in_flight", span(self.in_flight.as_ref()), &[Kms, Ssm]),
            ("prefix", span(self.prefix.as_ref()), &[Ssm]),
            ("key", span(self.key.as_ref()), &[Kms, Ssm]),
            ("path", span(self.path.as_ref()), &[Age, Kms]),
            ("recipients", span(self.recipients.as_ref()), &[Age, Kms]),
            ("recipients_file", span(self.recipients_file.as_ref()), &[Age]),
            ("identities", span(self.identities.as_ref()), &[Age, Kms]),
            ("context", span(self.context.as_ref()), &[Kms]),
            ("format", span(self.format.as_ref()), &[Age]),
            ("min_generation", span(self.min_generation.as_ref()), &[Age, Kms]),
            ("unbound", span(self.unbound.as_ref()), &[Age]),
        ]
    }
}

fn span<T>(field: Option<&At<T>>) -> Option<Span> {
    field.map(|at| at.span)
}
