//! Stores as checked types: where values live, and what opens them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::name::VariableName;

/// Where values live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// An age-encrypted file.
    Age(AgeStore),
    /// A sealed file, or inline ciphertexts, under an AWS KMS key.
    Kms(KmsStore),
    /// AWS Systems Manager Parameter Store.
    Ssm(SsmStore),
}

impl Store {
    /// The word for it in policy files and records.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Age(_) => "age",
            Self::Kms(_) => "kms",
            Self::Ssm(_) => "ssm",
        }
    }
}

/// `type = "age"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgeStore {
    /// The sealed file, absolute or relative to the working folder (already joined to the policy's own folder).
    pub path: PathBuf,
    /// What the plaintext looks like.
    pub format: DocumentFormat,
    /// A stock age file is bound to no environment; outside `dev` the policy has to say that this is meant.
    pub unbound: bool,
    /// Who can open the file after a write (`age1...`), from `recipients`; the store checks their text.
    pub recipients: Vec<String>,
    /// A file of recipients, one a line.
    pub recipients_file: Option<PathBuf>,
    /// The host demands a signature of the policy, which that file is not under: it names nobody, and nothing is written.
    pub is_file_refused: bool,
    /// What opens the file, tried in order.
    pub identities: Vec<IdentitySource>,
    /// The least generation of its document that is used.
    pub min_generation: u64,
}

/// The plaintext of an `age` store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentFormat {
    /// vouchsafe's own document, with versions and stages, bound to its environment and service.
    Sealed,
    /// `NAME=value` lines.
    Dotenv,
    /// One flat JSON object of strings.
    Json,
    /// One flat TOML table of strings.
    Toml,
}

/// Where an age identity is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentitySource {
    /// `credential:NAME`, a file below `$CREDENTIALS_DIRECTORY` (systemd.exec(5), LoadCredential=).
    Credential(String),
    /// `env:NAME`. The variable is removed from the child's environment.
    Env(VariableName),
    /// `file:PATH`.
    File(PathBuf),
}

impl IdentitySource {
    /// As the policy writes it.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Credential(name) => format!("credential:{}", crate::name::escape(name)),
            Self::Env(name) => format!("env:{name}"),
            Self::File(path) => format!("file:{}", crate::name::show(path)),
        }
    }
}

/// What every AWS store may say about its client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AwsAccess {
    /// Region, such as `eu-west-1`.
    pub region: Option<String>,
    /// Endpoint URL; `http` only for a loopback address.
    pub endpoint: Option<String>,
    /// Profile of the shared AWS configuration.
    pub profile: Option<String>,
    /// A role to assume.
    pub role_arn: Option<String>,
    /// The account that every answer must come from.
    pub account: Option<String>,
    /// The one source that credentials may come from.
    pub credential_source: Option<CredentialSource>,
    /// How many calls may be under way at once.
    pub in_flight: Option<usize>,
}

/// Where AWS credentials come from, as a policy may pin it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialSource {
    /// `AWS_CONTAINER_CREDENTIALS_*`: ECS, EKS Pod Identity.
    Container,
    /// `AWS_ACCESS_KEY_ID` and its company.
    Environment,
    /// The instance metadata service, version 2.
    Imds,
    /// The shared configuration and credentials files.
    Profile,
    /// IAM Identity Center.
    Sso,
    /// `AWS_WEB_IDENTITY_TOKEN_FILE`: EKS IRSA.
    WebIdentity,
}

impl CredentialSource {
    /// As a policy writes it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Environment => "environment",
            Self::Imds => "imds",
            Self::Profile => "profile",
            Self::Sso => "sso",
            Self::WebIdentity => "web-identity",
        }
    }
}

/// Whether a text is the ARN of a KMS key: `arn:PARTITION:kms:REGION:ACCOUNT:key/ID`. That of an alias is not: it can be
/// moved to another key.
#[must_use]
pub fn is_key_arn(text: &str) -> bool {
    let parts: Vec<_> = text.split(':').collect();
    let [arn, partition, "kms", region, account, resource] = parts.as_slice() else { return false };
    *arn == "arn"
        && partition.starts_with("aws")
        && !region.is_empty()
        && account.len() == 12
        && account.bytes().all(|b| b.is_ascii_digit())
        && resource.strip_prefix("key/").is_some_and(|id| !id.is_empty())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b":/-_".contains(&b))
}

/// `type = "kms"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KmsStore {
    /// The client.
    pub aws: AwsAccess,
    /// The key's ARN.
    pub key: String,
    /// The sealed file; a store may have only inline ciphertexts.
    pub path: Option<PathBuf>,
    /// Offline age recipients beside the key.
    pub recipients: Vec<String>,
    /// Added to the encryption context of the sealed file.
    pub context: BTreeMap<String, String>,
    /// Offline age identities, tried before KMS is asked.
    pub identities: Vec<IdentitySource>,
    /// The least generation of its document that is used.
    pub min_generation: u64,
}

/// `type = "ssm"`. Item names below carry the prefix already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SsmStore {
    /// The client.
    pub aws: AwsAccess,
    /// What item names without a leading `/` or `arn:` are joined to.
    pub prefix: String,
    /// The KMS key of values written; the account's default key if absent.
    pub key: Option<String>,
}
