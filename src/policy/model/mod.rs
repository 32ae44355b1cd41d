//! The policy as checked types: what one service gets in one environment.
//!
//! Everything here was validated by [`super::file`]; nothing here does I/O or knows how a store works. All of it is public
//! knowledge: a policy holds no secret, so these types may be printed.

mod evidence;
mod host;
mod password;
mod rotation;
mod stores;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use evidence::{Anchor, Checkpoints, Evidence, ParameterAnchor, parameters_of};
pub use host::{HostAgent, HostFile, HostNetwork, Trust, TrustedKey};
pub use password::{Alphabet, CharacterClass, Password};
pub use rotation::{Apply, Generate, Postgres, Program, Random, Roles, Rotation};
pub use stores::{
    AgeStore, AwsAccess, CredentialSource, DocumentFormat, IdentitySource, KmsStore, SsmStore, Store, is_key_arn,
};

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
    /// The serial of each of `files`; 0 where one has none.
    pub serials: Vec<u64>,
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
    /// The least serial of its files: what a host's `min_serial` is held against.
    #[must_use]
    pub fn serial(&self) -> u64 {
        self.serials.iter().copied().min().unwrap_or_default()
    }

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

    /// From here on files of recipients name nobody: the host demands a signature, which they are not under.
    pub fn refuse_recipients_files(&mut self) {
        for store in self.stores.values_mut() {
            if let Store::Age(store) = store {
                store.is_file_refused = store.recipients_file.is_some();
            }
        }
    }

    /// The first store whose file of recipients is refused, and that file.
    #[must_use]
    pub fn refused_recipients_file(&self) -> Option<(&StoreName, &Path)> {
        self.stores.iter().find_map(|(name, store)| match store {
            Store::Age(store) if store.is_file_refused => Some((name, store.recipients_file.as_deref()?)),
            Store::Age(_) | Store::Kms(_) | Store::Ssm(_) => None,
        })
    }

    fn matches(&self) -> impl Iterator<Item = &Match> {
        self.grants.iter().filter_map(|rule| match &rule.to {
            Audience::Anyone => None,
            Audience::Matching(fields) => Some(fields),
        })
    }
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Principal {
    /// By number.
    Id(u32),
    /// By name in `/etc/passwd` or `/etc/group`.
    Name(String),
}

impl Principal {
    /// Whether it stands for the one with this number and, if there is one, this name.
    #[must_use]
    pub fn is(&self, id: u32, name: Option<&str>) -> bool {
        match self {
            Self::Id(wanted) => *wanted == id,
            Self::Name(wanted) => name == Some(wanted),
        }
    }
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
    /// Through the agent, or directly.
    pub agent: AgentUse,
    /// Replace the wrapper, or stay with the child.
    pub mode: RunMode,
    /// For everything before the child starts.
    pub deadline: Duration,
    /// Supervising: what a changed secret does.
    pub on_change: OnChange,
    /// Supervising: what a child that dies of a change is started with.
    pub on_crash: OnCrash,
    /// Supervising: between TERM and KILL of a child that is restarted.
    pub grace: Duration,
    /// Supervising: how often to look whether a secret changed; `None`: never.
    pub watch: Option<Duration>,
}

/// Whether the agent may, must or must not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentUse {
    /// As the caller likes.
    Allow,
    /// Never: the agent does not serve this policy.
    Forbid,
    /// Always: who goes by this policy directly is refused.
    Require,
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

/// What a supervised child that dies of a change is started with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnCrash {
    /// What the store has then.
    Again,
    /// What the child before it had; the supervisor keeps that.
    Previous,
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
        /// What makes its records hold against whoever takes the host later.
        evidence: Evidence,
    },
    /// The native socket of journald: a mirror.
    Journald(PathBuf),
    /// Standard error.
    Stderr,
    /// The local socket of a syslog daemon: a mirror.
    Syslog(PathBuf),
}

impl Sink {
    /// Whether it only repeats what the others have accepted. A mirror can drop, so it never counts.
    #[must_use]
    pub fn is_mirror(&self) -> bool {
        match self {
            Self::Journald(_) | Self::Syslog(_) => true,
            Self::Fd(_) | Self::File { .. } | Self::Stderr => false,
        }
    }
}
