//! The child's environment: what of the parent's stays, what goes, what is added. Pure: no file, no clock, no system call.
//!
//! [`plan`] decides about every inherited variable and says why; [`inject`] carries that out and is the only place that
//! makes a [`ChildEnv`], with every limit of the kernel checked before anything is executed. `explain` shows the plan.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use crate::error::{Cause, Class};
use crate::name::VariableName;
use crate::policy::model::{AwsRole, ChildRules, Inherit, OnCollision};
use crate::policy::reserved;
use crate::resolve::{Resolved, Value};
use crate::sys::Strings;

/// The wrapper's own environment, as it was started with: one entry for each name, the first one, as getenv(3) would find.
/// Entries without a name or without `=` are not kept: nothing can read them, and some programs trip over them.
#[derive(Clone)]
pub struct ParentEnv(Vec<(OsString, OsString)>);

impl ParentEnv {
    /// Takes the environment of this process.
    #[must_use]
    pub fn of_this_process() -> Self {
        Self::new(std::env::vars_os().collect())
    }

    /// Keeps the first entry of each name.
    #[must_use]
    pub fn new(mut entries: Vec<(OsString, OsString)>) -> Self {
        let mut seen = std::collections::HashSet::with_capacity(entries.len());
        entries.retain(|(name, _)| !name.is_empty() && seen.insert(name.clone()));
        Self(entries)
    }

    /// The value of a variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_os_str())
    }

    /// All of it, in order.
    pub fn iter(&self) -> impl Iterator<Item = &(OsString, OsString)> {
        self.0.iter()
    }
}

/// What the wrapper used for itself and the child must not get.
#[derive(Debug, Default, Clone)]
pub struct OwnMeans {
    /// Variables that hold an identity, by the policy's stores.
    pub identities: BTreeSet<VariableName>,
    /// Static AWS keys from the environment were used to fetch.
    pub static_aws_keys: bool,
}

/// The values that reach the child as secrets.
pub fn injected<'r>(resolved: &'r Resolved, environment: &'r ChildEnv) -> impl Iterator<Item = &'r Value> + Clone {
    resolved.values().iter().filter(|value| !environment.yielded().contains(&value.name))
}

/// Why an inherited variable does not reach the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It holds an identity of the wrapper's.
    Identity,
    /// Its value may not pass in a restricted environment: a path or format where a plain word is expected.
    Format,
    /// `[child] inherit` does not name it.
    NotInherited,
    /// `VOUCHSAFE_*`.
    Own,
    /// `[child] set` or a secret takes its place.
    Replaced,
    /// `aws_role = "strip"`.
    Role,
    /// A static AWS key that the wrapper used.
    StaticKey,
    /// `NAME_FILE`, where `NAME` is a secret and the policy says that secrets win.
    Twin,
}

impl Removal {
    /// The reason in words.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Identity => "an identity that the wrapper used",
            Self::Format => "its value may not pass into a restricted environment",
            Self::NotInherited => "[child] inherit does not name it",
            Self::Own => "the wrapper's own",
            Self::Replaced => "replaced",
            Self::Role => "[child] aws_role = \"strip\"",
            Self::StaticKey => "an AWS key that the wrapper used",
            Self::Twin => "programs that know it read that file instead of the secret",
        }
    }
}

/// What systemd tells a service about its sockets and its watchdog (`sd_listen_fds(3)`, `sd_notify(3)`).
fn belongs_to_supervision(name: &str) -> bool {
    name.starts_with("LISTEN_") || name.starts_with("WATCHDOG_") || name == "NOTIFY_SOCKET"
}

fn is_static_aws_key(name: &str) -> bool {
    matches!(name, "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" | "AWS_SESSION_TOKEN" | "AWS_SECURITY_TOKEN")
}

fn is_aws_role_pointer(name: &str) -> bool {
    name.starts_with("AWS_CONTAINER_")
        || matches!(
            name,
            "AWS_WEB_IDENTITY_TOKEN_FILE"
                | "AWS_ROLE_ARN"
                | "AWS_ROLE_SESSION_NAME"
                | "AWS_PROFILE"
                | "AWS_DEFAULT_PROFILE"
                | "AWS_CONFIG_FILE"
                | "AWS_SHARED_CREDENTIALS_FILE"
                | "AWS_REGION"
                | "AWS_DEFAULT_REGION"
        )
}

/// Decides about one inherited variable; `None` means that it stays.
#[must_use]
pub fn removal(name: &OsStr, value: &OsStr, rules: &ChildRules, own: &OwnMeans) -> Option<Removal> {
    // A name that is not UTF-8 is nobody's but the caller's: it can only be inherited as it is.
    let text = name.to_str().unwrap_or("\u{fffd}");
    if text.starts_with("VOUCHSAFE_") {
        Some(Removal::Own)
    } else if own.identities.iter().any(|identity| identity.as_str() == text) {
        Some(Removal::Identity)
    } else if own.static_aws_keys && is_static_aws_key(text) {
        Some(Removal::StaticKey)
    } else if rules.aws_role == AwsRole::Strip && is_aws_role_pointer(text) {
        Some(Removal::Role)
    } else if belongs_to_supervision(text) {
        None
    } else {
        not_inherited(text, value, &rules.inherit)
    }
}

/// In a restricted environment a glob passes no name that changes how programs load (only its full name does), and locale,
/// terminal and time zone pass only as plain words: sudoers(5), `env_check`.
fn not_inherited(name: &str, value: &OsStr, inherit: &Inherit) -> Option<Removal> {
    let patterns = match inherit {
        Inherit::All => return None,
        Inherit::None => return Some(Removal::NotInherited),
        Inherit::Names(patterns) => patterns,
    };
    let loads_code = VariableName::new(name).is_ok_and(|name| reserved::is_reserved(&name));
    let named = patterns.iter().any(|pattern| pattern.matches(name) && (!pattern.is_glob() || !loads_code));
    if !named {
        return Some(Removal::NotInherited);
    }
    let value = value.as_bytes();
    let plain_word_expected =
        matches!(name, "LANG" | "LANGUAGE" | "LINGUAS" | "TERM" | "COLORTERM") || name.starts_with("LC_");
    let unfit = value.starts_with(b"()")
        || (plain_word_expected && value.iter().any(|byte| matches!(byte, b'/' | b'%')))
        || (name == "TZ" && !is_safe_time_zone(value));
    unfit.then_some(Removal::Format)
}

/// sudoers(5): no absolute path outside the zone files, no `..`, no blanks or unprintables, not longer than a path.
fn is_safe_time_zone(value: &[u8]) -> bool {
    let zone = value.strip_prefix(b":").unwrap_or(value);
    let absolute_is_fine = !zone.starts_with(b"/") || zone.starts_with(b"/usr/share/zoneinfo/");
    absolute_is_fine
        && zone.len() < 4096
        && zone.iter().all(u8::is_ascii_graphic)
        && !zone.split(|byte| *byte == b'/').any(|part| part == b"..")
}

/// Which inherited variables reach the child, and why the others do not; secrets named in `secrets` are taken into account.
///
/// # Errors
/// A secret and an inherited variable have the same name, and the policy does not say who wins.
#[must_use]
pub fn plan<'e>(
    parent: &'e ParentEnv,
    rules: &ChildRules,
    own: &OwnMeans,
    secrets: &BTreeSet<&VariableName>,
) -> Plan<'e> {
    let mut plan = Plan {
        kept: Vec::with_capacity(parent.0.len()),
        removed: Vec::new(),
        yielded: BTreeSet::new(),
        collisions: Vec::new(),
        twins: Vec::new(),
    };
    for (name, value) in parent.iter() {
        if let Some(why) = removal(name, value, rules, own) {
            plan.removed.push((name, why));
            continue;
        }
        let checked = name.to_str().and_then(|text| VariableName::new(text).ok());
        let secret = checked.as_ref().and_then(|checked| stands_for(checked, secrets));
        match (checked, secret) {
            (Some(checked), Some(secret)) => match rules.on_collision {
                OnCollision::Error if checked == *secret => plan.collisions.push(checked),
                OnCollision::Error => plan.twins.push(checked),
                OnCollision::Inherited => {
                    plan.yielded.insert(secret.clone());
                    plan.kept.push((name, value));
                }
                OnCollision::Secret if checked == *secret => plan.removed.push((name, Removal::Replaced)),
                OnCollision::Secret => plan.removed.push((name, Removal::Twin)),
            },
            (Some(checked), None) if rules.set.contains_key(&checked) => plan.removed.push((name, Removal::Replaced)),
            _ => plan.kept.push((name, value)),
        }
    }
    plan
}

/// The secret that an inherited variable competes with: of the same name, or as its twin. Official images of databases and of
/// WordPress take `NAME_FILE` before `NAME`, or refuse to start with both, so the twin would win over the secret unseen.
fn stands_for<'s>(name: &VariableName, secrets: &BTreeSet<&'s VariableName>) -> Option<&'s VariableName> {
    let twin = || name.as_str().strip_suffix("_FILE").and_then(|text| VariableName::new(text).ok());
    secrets.get(name).copied().or_else(|| secrets.get(&twin()?).copied())
}

/// What [`plan`] decided.
#[derive(Debug)]
pub struct Plan<'e> {
    /// Inherited variables that stay, in order.
    pub kept: Vec<(&'e OsString, &'e OsString)>,
    /// Inherited variables that go, and why.
    pub removed: Vec<(&'e OsString, Removal)>,
    /// Secrets that yield to the parent environment (`on_collision = "inherited"`).
    pub yielded: BTreeSet<VariableName>,
    /// Names that both have where the policy does not say who wins: nothing is injected.
    pub collisions: Vec<VariableName>,
    /// `NAME_FILE` of a secret `NAME`, where the policy does not say who wins: nothing is injected either.
    pub twins: Vec<VariableName>,
}

/// The limits of the kernel that count at exec.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The soft limit of the stack in bytes; `None` if unlimited.
    pub stack: Option<u64>,
}

/// execve(2), "Limits on size of arguments and environment": one string, NUL included (`MAX_ARG_STRLEN`, 32 pages).
const STRING_LIMIT: usize = 131_072;

impl Limits {
    /// Bytes for all strings, their pointers and the path: a quarter of the stack, at most 3/4 of 8 MiB, at least 128 KiB
    /// (execve(2); `bprm_stack_limits` in Linux).
    #[must_use]
    pub fn total(self) -> u64 {
        let most = 6 * 1024 * 1024;
        self.stack.map_or(most, |stack| (stack / 4).min(most)).max(131_072)
    }
}

/// Environment and arguments of the child, ready for the kernel. Made only by [`inject`].
///
/// ```compile_fail,E0451
/// let environment = vouchsafe::inject::ChildEnv {
///     envp: Default::default(),
///     argv: Default::default(),
///     yielded: Default::default(),
/// };
/// ```
pub struct ChildEnv {
    envp: Strings,
    argv: Strings,
    yielded: BTreeSet<VariableName>,
}

impl ChildEnv {
    /// The environment, `NAME=value`.
    #[must_use]
    pub fn envp(&self) -> &Strings {
        &self.envp
    }

    /// Secrets that yielded to the parent environment: they were fetched, and are not in this environment.
    #[must_use]
    pub fn yielded(&self) -> &BTreeSet<VariableName> {
        &self.yielded
    }

    /// The arguments.
    #[must_use]
    pub fn argv(&self) -> &Strings {
        &self.argv
    }
}

/// Why the child's environment cannot be built. Names only.
#[derive(Debug, PartialEq, Eq)]
pub enum InjectError {
    /// Secrets that the parent environment has too.
    Collision(Vec<VariableName>),
    /// Values that bash would read as a function definition (CVE-2014-6271).
    FunctionDefinition(Vec<VariableName>),
    /// Values that hold a NUL byte, which no environment can carry.
    Nul(Vec<VariableName>),
    /// Variables over the limit for one string.
    TooLong(Vec<String>),
    /// All strings together over the limit.
    TooMuch,
    /// Variables `NAME_FILE` of the parent environment, where `NAME` is a secret.
    Twin(Vec<VariableName>),
}

impl fmt::Display for InjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Collision(names) => {
                write!(f, "the parent environment already has {}, which the policy binds to a secret", list(names))
            }
            Self::FunctionDefinition(names) => {
                write!(f, "the value of {} starts with `()`, which old shells execute", list(names))
            }
            Self::Nul(names) => {
                write!(f, "the value of {} holds a NUL byte, which no environment can carry", list(names))
            }
            Self::TooLong(names) => {
                write!(f, "over the kernel's limit of {STRING_LIMIT} bytes for one string: {}", names.join(", "))
            }
            Self::TooMuch => write!(f, "environment and arguments together are over the kernel's limit"),
            Self::Twin(names) => write!(
                f,
                "the parent environment has {}: programs that know such a variable read that file instead of the secret",
                list(names)
            ),
        }
    }
}

impl Cause for InjectError {
    fn class(&self) -> Class {
        Class::Environment
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Collision(names) | Self::Twin(names) => Some(format!(
                "unset {}   # or write in the policy: [child] on_collision = \"secret\", or \"inherited\"",
                names.iter().map(VariableName::as_str).collect::<Vec<_>>().join(" ")
            )),
            Self::TooMuch => Some("the limit is a quarter of the stack limit; look at: ulimit -s".into()),
            Self::FunctionDefinition(_) | Self::Nul(_) | Self::TooLong(_) => None,
        }
    }
}

fn list(names: &[VariableName]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Builds the child's environment, and its arguments beside it, since the kernel limits both together.
///
/// # Errors
/// A collision, a value that no environment can carry, or a limit of the kernel: then nothing may be executed.
pub fn inject(
    parent: &ParentEnv,
    rules: &ChildRules,
    own: &OwnMeans,
    resolved: &Resolved,
    arguments: &[OsString],
    limits: Limits,
) -> Result<ChildEnv, InjectError> {
    let secrets: BTreeMap<&VariableName, &[u8]> =
        resolved.values().iter().map(|value| (&value.name, value.secret.expose())).collect();
    let plan = plan(parent, rules, own, &secrets.keys().copied().collect());
    if !plan.collisions.is_empty() {
        return Err(InjectError::Collision(plan.collisions));
    }
    if !plan.twins.is_empty() {
        return Err(InjectError::Twin(plan.twins));
    }
    let injected = || secrets.iter().filter(|(name, _)| !plan.yielded.contains(**name));
    refuse_values(injected().map(|(name, value)| (*name, *value)))?;

    let constants = || rules.set.iter().filter(|(name, _)| !secrets.contains_key(name));
    let entries = || {
        let kept = plan.kept.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let set = constants().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
        kept.chain(set).chain(injected().map(|(name, value)| (name.as_str().as_bytes(), *value)))
    };
    let too_long: Vec<_> = entries()
        .filter(|(name, value)| name.len() + value.len() + 2 > STRING_LIMIT)
        .map(|(name, _)| format!("`{}`", crate::name::escape(&String::from_utf8_lossy(name))))
        .collect();
    if !too_long.is_empty() {
        return Err(InjectError::TooLong(too_long));
    }
    let (count, size) = entries().fold((0, 0), |(n, size), (name, value)| (n + 1, size + name.len() + value.len() + 2));
    let mut envp = Strings::with_capacity(count, size);
    entries().for_each(|(name, value)| envp.push(&[name, b"=", value]));

    let mut argv = Strings::with_capacity(arguments.len(), arguments.iter().map(|argument| argument.len() + 1).sum());
    arguments.iter().for_each(|argument| argv.push(&[argument.as_bytes()]));
    let pointers = (envp.len() + argv.len()) * size_of::<usize>();
    // The path is copied too; no path is longer than PATH_MAX.
    if (envp.size() + argv.size() + pointers + 4096) as u64 > limits.total() {
        return Err(InjectError::TooMuch);
    }
    Ok(ChildEnv { envp, argv, yielded: plan.yielded })
}

fn refuse_values<'v>(values: impl Iterator<Item = (&'v VariableName, &'v [u8])>) -> Result<(), InjectError> {
    let (mut nul, mut function) = (Vec::new(), Vec::new());
    for (name, value) in values {
        if value.contains(&0) {
            nul.push(name.clone());
        } else if value.starts_with(b"() {") {
            function.push(name.clone());
        }
    }
    if !nul.is_empty() {
        Err(InjectError::Nul(nul))
    } else if !function.is_empty() {
        Err(InjectError::FunctionDefinition(function))
    } else {
        Ok(())
    }
}
