//! The policy as checked types: what one service gets in one environment.
//!
//! Everything here was validated by [`super::file`]; nothing here does I/O or knows how a store works. All of it is public
//! knowledge: a policy holds no secret, so these types may be printed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::pattern::Pattern;
use super::template::Template;
use crate::name::{EnvironmentName, ItemName, ServiceName, StoreName, VariableName};

/// One policy file with all that it extends.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The environment it speaks for.
    pub environment: EnvironmentName,
    /// The service it speaks for; `None` for every service of the environment.
    pub service: Option<ServiceName>,
    /// The files it was read from: the policy itself first, then what it extends.
    pub files: Vec<PathBuf>,
    /// SHA-256, in hexadecimal, over the exact bytes of `files`, each preceded by its length (8 bytes, big endian).
    pub digest: String,
    /// Stores by name.
    pub stores: BTreeMap<StoreName, Store>,
    /// Bindings by the name of the variable.
    pub secrets: BTreeMap<VariableName, Binding>,
    /// Bindings whose names the store tells.
    pub bundles: Vec<Bundle>,
    /// Who may receive what. Grants only add.
    pub grants: Vec<GrantRule>,
    /// What else the child gets and does not get.
    pub child: ChildRules,
    /// How the child is run.
    pub run: RunRules,
    /// How long the agent may keep values.
    pub cache: CacheRules,
    /// Where accesses are written down. All of them are required.
    pub sinks: Vec<Sink>,
}

impl Policy {
    /// Whether some grant names a group, so that group names have to be looked up.
    #[must_use]
    pub fn names_groups(&self) -> bool {
        self.matches().any(|fields| fields.groups.iter().flatten().any(|group| matches!(group, Principal::Name(_))))
    }

    /// Whether some grant pins a digest, so that the command has to be read.
    #[must_use]
    pub fn pins_digests(&self) -> bool {
        self.matches().any(|fields| fields.sha256.is_some())
    }

    fn matches(&self) -> impl Iterator<Item = &Match> {
        self.grants.iter().filter_map(|rule| match &rule.to {
            Audience::Anyone => None,
            Audience::Matching(fields) => Some(fields),
        })
    }
}

/// Where values live.
#[derive(Debug, Clone)]
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
#[derive(Debug, Clone)]
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
    /// What opens the file, tried in order.
    pub identities: Vec<IdentitySource>,
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
#[derive(Debug, Clone, Default)]
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

/// `type = "kms"`.
#[derive(Debug, Clone)]
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
}

/// `type = "ssm"`. Item names below carry the prefix already.
#[derive(Debug, Clone)]
pub struct SsmStore {
    /// The client.
    pub aws: AwsAccess,
    /// What item names without a leading `/` or `arn:` are joined to.
    pub prefix: String,
    /// The KMS key of values written; the account's default key if absent.
    pub key: Option<String>,
}

/// One variable and where its value comes from.
#[derive(Debug, Clone)]
pub struct Binding {
    /// Where the value comes from.
    pub source: Source,
    /// Whether `run` asks for it without being told.
    pub inject: bool,
    /// Whether its absence stops the child. Excuses absence only.
    pub required: bool,
    /// The name changes how programs load or shells start, and that is meant.
    pub reserved: bool,
    /// A parameter of type `String` is accepted.
    pub plain: bool,
    /// Older than this, the value is due.
    pub max_age: Option<Duration>,
    /// What `run` does with a value older than `max_age`.
    pub on_expired: OnExpired,
    /// How the value is rotated.
    pub rotate: Option<Rotation>,
}

/// Where one value comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A ciphertext in the policy itself, made by `aws kms encrypt`.
    Ciphertext {
        /// The `kms` store whose key it is under.
        store: StoreName,
        /// The ciphertext blob.
        ciphertext: Vec<u8>,
        /// Exactly the encryption context it was made with.
        context: BTreeMap<String, String>,
        /// A JSON pointer into the value.
        field: Option<JsonPointer>,
    },
    /// A value in a store.
    Item(ItemRef),
    /// Other bindings put together.
    Template(Template),
}

/// A value in a store, and which of its versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemRef {
    /// The store.
    pub store: StoreName,
    /// The full name within the store.
    pub item: ItemName,
    /// A fixed version.
    pub version: Option<u64>,
    /// A stage; [`Stage::Current`] where the binding rotates.
    pub stage: Option<Stage>,
    /// A JSON pointer into the value.
    pub field: Option<JsonPointer>,
}

/// Which version of an item is which during rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// What consumers get.
    Current,
    /// Created, not yet proven.
    Pending,
    /// What consumers got before.
    Previous,
}

impl Stage {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Pending => "pending",
            Self::Previous => "previous",
        }
    }
}

/// RFC 6901, as its reference tokens, unescaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonPointer(pub Vec<String>);

/// What `run` does with a value older than its `max_age`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExpired {
    /// The child does not start.
    Refuse,
    /// `check` says so; the child starts.
    Warn,
}

/// How a value is rotated. Parsed and checked; acted on by `rotate`.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// How often.
    pub every: Option<Duration>,
    /// What makes the new value.
    pub generate: Generate,
    /// What makes the target accept it.
    pub apply: Apply,
    /// A version still unproven lies beside the item instead of on it.
    pub pending_separate: bool,
}

/// What makes a new value.
#[derive(Debug, Clone)]
pub struct Generate {
    /// Characters of the value.
    pub length: usize,
    /// Which characters.
    pub alphabet: Alphabet,
}

/// The characters of a generated value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alphabet {
    /// `A-Z a-z 0-9`.
    Alphanumeric,
    /// `0-9 a-f`.
    Hex,
    /// Every printable ASCII character but space, quotes, backslash, `@` and `/`.
    Printable,
    /// `A-Z a-z 0-9 - _` (RFC 4648 section 5).
    UrlSafe,
}

/// What makes the target accept a new value.
#[derive(Debug, Clone)]
pub enum Apply {
    /// A program of the operator's.
    Command {
        /// Its absolute path.
        program: PathBuf,
        /// How long it may take for one step.
        timeout: Duration,
    },
    /// Nothing: the value is only generated.
    None,
    /// A PostgreSQL role's password.
    Postgres {
        /// The binding that holds the administrator's connection URL.
        admin: VariableName,
        /// The role.
        role: String,
    },
}

/// Every item under a path, as variables.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The store.
    pub store: StoreName,
    /// The path, whole segments, with the store's prefix, ending in `/` (or empty: the whole store).
    pub path: String,
    /// Also deeper levels.
    pub recursive: bool,
    /// How an item's name becomes a variable's.
    pub names: NameStyle,
    /// Fewer items than this is an error.
    pub at_least: u32,
    /// Values of type `String` are accepted.
    pub plain: bool,
}

/// How names are written on the other side: of an item for a variable, or of a variable for an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameStyle {
    /// Unchanged.
    AsWritten,
    /// `DATABASE_URL` is `database-url`.
    LowerKebab,
    /// `DATABASE_URL` is `database_url`.
    LowerSnake,
    /// `database-url`, `database.url` are `DATABASE_URL`.
    UpperSnake,
}

/// Who may receive which secrets.
#[derive(Debug, Clone)]
pub struct GrantRule {
    /// The secrets.
    pub secrets: Vec<Pattern>,
    /// Who.
    pub to: Audience,
    /// Through the agent, commands and digests are only claims; `true` accepts them as such.
    pub claimed: bool,
    /// Where it stands, for `explain`: `path:line`.
    pub place: String,
}

/// Who a grant is for.
#[derive(Debug, Clone)]
pub enum Audience {
    /// `to = "anyone"`.
    Anyone,
    /// Every field present must match.
    Matching(Match),
}

/// The fields of `to`; an absent one is `None`, a present one matches if any of its entries does.
#[derive(Debug, Clone, Default)]
pub struct Match {
    /// Users, by name or number.
    pub users: Option<Vec<Principal>>,
    /// Groups, by name or number.
    pub groups: Option<Vec<Principal>>,
    /// Absolute paths of commands.
    pub commands: Option<Vec<Pattern>>,
    /// SHA-256 of ELF files, in hexadecimal.
    pub sha256: Option<Vec<String>>,
}

/// A user or group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// By number.
    Id(u32),
    /// By name in `/etc/passwd` or `/etc/group`.
    Name(String),
}

/// `[child]`.
#[derive(Debug, Clone)]
pub struct ChildRules {
    /// What the child inherits.
    pub inherit: Inherit,
    /// Variables set besides the secrets.
    pub set: BTreeMap<VariableName, String>,
    /// Whether pointers to an AWS role pass.
    pub aws_role: AwsRole,
    /// A secret that the parent environment has too.
    pub on_collision: OnCollision,
}

/// What the child inherits of the parent environment.
#[derive(Debug, Clone)]
pub enum Inherit {
    /// Everything but the wrapper's own means.
    All,
    /// Only `LISTEN_*`, `NOTIFY_SOCKET`, `WATCHDOG_*`.
    None,
    /// These, and what `None` passes.
    Names(Vec<Pattern>),
}

/// Whether pointers to an AWS role pass to the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AwsRole {
    /// They pass.
    Pass,
    /// They are removed.
    Strip,
}

/// Who wins where a secret and the parent environment have the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnCollision {
    /// Nobody: the child does not start.
    Error,
    /// The parent environment.
    Inherited,
    /// The secret.
    Secret,
}

/// `[run]`.
#[derive(Debug, Clone)]
pub struct RunRules {
    /// Replace the wrapper, or stay with the child.
    pub mode: RunMode,
    /// For everything before the child starts.
    pub deadline: Duration,
    /// Supervising: what a changed secret does.
    pub on_change: OnChange,
    /// Supervising: between TERM and KILL.
    pub grace: Duration,
}

/// How the child is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunMode {
    /// `execve`: the wrapper is gone.
    Exec,
    /// The wrapper stays as the parent.
    Supervise,
}

/// What a changed secret does to a supervised child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnChange {
    /// Nothing.
    Ignore,
    /// It is stopped and started with the new value.
    Restart,
}

/// `[cache]`, for the agent.
#[derive(Debug, Clone)]
pub struct CacheRules {
    /// How long a value counts as fresh.
    pub ttl: Duration,
    /// How long past `ttl` it may be served while its store is down.
    pub max_stale: Duration,
}

/// One place where accesses are written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sink {
    /// A descriptor that the wrapper was started with.
    Fd(i32),
    /// A file; `{uid}` stands for the caller's real uid.
    File {
        /// The path, absolute or relative to the working folder (already joined to the policy's own folder).
        path: String,
        /// Whether each record is on the disk before the access goes on.
        sync: bool,
    },
    /// Standard error.
    Stderr,
}

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
}

/// One key of `[trust]`.
#[derive(Debug, Clone)]
pub struct TrustedKey {
    /// `ssh-ed25519 AAAA...`.
    pub key: String,
    /// The environments it may sign for.
    pub environments: Vec<EnvironmentName>,
}
