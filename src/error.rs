//! What a failure is to the user: a class with its exit status and stable word, a sentence, and a hint.
//!
//! Every module has its own small enum of causes and implements [`Cause`] for it; [`Error`] carries any of them to `main`.
//! The rules of wording:
//! - lower case, no final period; what failed, on what object, the object's name in backticks;
//! - the hint is a line of its own and holds a command to run or a line to write;
//! - names are escaped (`name::escape`, `name::show`); a value, its length, its prefix, or a line of a file that may hold
//!   one, is in no message. Policy lines may be cited: a policy holds no secret.

use std::fmt;

/// The classes of failure. Each has one exit status and one word; scripts may rely on both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The audit log could not be written, read or locked, so there was no access.
    Audit,
    /// Somebody else rotates.
    Busy,
    /// `check` found something due or missing.
    Due,
    /// The policy does not grant what was asked.
    Denied,
    /// `policy diff` found differences, `policy test` an unexpected verdict.
    Differences,
    /// An identity or credential is absent, unsafe or does not fit.
    Identity,
    /// `audit verify`: records are missing.
    Incomplete,
    /// Anything else of ours.
    Internal,
    /// The environment of the child would exceed what the kernel takes, or two sources want one name.
    Environment,
    /// A required secret does not exist.
    Missing,
    /// The command exists but cannot be executed.
    NotExecutable,
    /// The command does not exist.
    NotFound,
    /// The policy or host file is invalid or unsafe.
    Policy,
    /// A store failed: unreachable, unreadable, corrupt.
    Store,
    /// `audit verify`: a record was changed.
    Tampered,
    /// The system whose credential is rotated refused or failed.
    Target,
    /// The schema has it, this build does not.
    Unsupported,
    /// The command line is wrong.
    Usage,
}

impl Class {
    /// Every class, in the order of the table in `docs/exit-status.md`.
    pub const ALL: [Self; 18] = [
        Self::Usage,
        Self::Due,
        Self::Tampered,
        Self::Incomplete,
        Self::Differences,
        Self::Denied,
        Self::Policy,
        Self::Store,
        Self::Missing,
        Self::Target,
        Self::Busy,
        Self::Audit,
        Self::Identity,
        Self::Environment,
        Self::Unsupported,
        Self::Internal,
        Self::NotExecutable,
        Self::NotFound,
    ];

    /// The exit status. 126 and 127 are POSIX.1-2017 section 2.8.2; 120-125 keep clear of what commands use themselves.
    #[must_use]
    pub fn status(self) -> u8 {
        match self {
            Self::Usage => 2,
            Self::Due => 10,
            Self::Tampered => 11,
            Self::Incomplete => 12,
            Self::Differences => 13,
            Self::Denied => 120,
            Self::Policy => 121,
            Self::Store | Self::Missing | Self::Target | Self::Busy => 122,
            Self::Audit => 123,
            Self::Identity => 124,
            Self::Environment | Self::Unsupported | Self::Internal => 125,
            Self::NotExecutable => 126,
            Self::NotFound => 127,
        }
    }

    /// The stable word: `error[word]: ...`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::Busy => "busy",
            Self::Denied => "denied",
            Self::Differences => "differences",
            Self::Due => "due",
            Self::Environment => "environment",
            Self::Identity => "identity",
            Self::Incomplete => "incomplete",
            Self::Internal => "internal",
            Self::Missing => "missing",
            Self::NotExecutable => "not-executable",
            Self::NotFound => "not-found",
            Self::Policy => "policy",
            Self::Store => "store",
            Self::Tampered => "tampered",
            Self::Target => "target",
            Self::Unsupported => "unsupported",
            Self::Usage => "usage",
        }
    }

    /// What the class means, for the table and the manual.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Audit => {
                "the audit record could not be written, so there was no access; a log, a seed or a checkpoint cannot be read or is none"
            }
            Self::Busy => "somebody else rotates",
            Self::Denied => "the policy does not grant it",
            Self::Differences => "`policy diff`: the policies differ; `policy test`: a verdict is not the expected one",
            Self::Due => {
                "`check`: something is due, missing or incomplete; `rekey`: what was exposed is in use; `audit who-has --stale`: an old version is still held; `audit show --exit-status`: a record matches"
            }
            Self::Environment => "the child's environment cannot be built: a collision, or over the kernel's limits",
            Self::Identity => "an identity or credential is absent, unsafe, or does not fit",
            Self::Incomplete => "`audit verify`: records are missing",
            Self::Internal => "anything else of ours",
            Self::Missing => "a required secret does not exist",
            Self::NotExecutable => "the command was found but cannot be executed",
            Self::NotFound => "the command was not found",
            Self::Policy => "the policy or host file is invalid, unsafe or not found",
            Self::Store => "a store failed: unreadable, corrupt, unreachable",
            Self::Tampered => "`audit verify`: the log was changed",
            Self::Target => "the system whose credential is rotated refused or failed",
            Self::Unsupported => "the policy asks for something that this build does not have",
            Self::Usage => "the command line is wrong",
        }
    }
}

/// What a module's error answers. `Display` is the sentence.
pub trait Cause: fmt::Display + fmt::Debug + Send + Sync {
    /// Its class.
    fn class(&self) -> Class;
    /// What the user can do next.
    fn hint(&self) -> Option<String> {
        None
    }
    /// Whether what was tried may have happened all the same: an answer was lost.
    fn is_unsettled(&self) -> bool {
        false
    }
}

/// Any module's cause, on its way to `main`.
#[derive(Debug)]
pub struct Error(Box<dyn Cause>);

impl Error {
    /// The class of the cause.
    #[must_use]
    pub fn class(&self) -> Class {
        self.0.class()
    }

    /// Whether what was tried may have happened all the same.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        self.0.is_unsettled()
    }

    /// The hint of the cause.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        self.0.hint()
    }

    /// What `main` prints on standard error, without a final newline.
    #[must_use]
    pub fn render(&self, format: Format) -> String {
        match format {
            Format::Text => {
                let hint = self.hint().map_or_else(String::new, |hint| format!("\nhint: {hint}"));
                format!("vouchsafe: error[{}]: {}{hint}", self.class().word(), self.0)
            }
            Format::Json => serde_json::json!({
                "error": self.class().word(),
                "status": self.class().status(),
                "message": self.0.to_string(),
                "hint": self.hint(),
            })
            .to_string(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<C: Cause + 'static> From<C> for Error {
    fn from(cause: C) -> Self {
        Self(Box::new(cause))
    }
}

/// `--error-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Lines for a person.
    #[default]
    Text,
    /// One JSON object on one line.
    Json,
}

impl Format {
    /// What the arguments ask for, when they are too wrong to be parsed: a script that wants JSON gets JSON.
    pub fn asked_for(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> Self {
        let own: Vec<_> = arguments.into_iter().take_while(|argument| argument != "--").collect();
        let as_two = own.windows(2).any(|pair| matches!(pair, [a, b] if a == "--error-format" && b == "json"));
        let as_one = own.iter().any(|argument| argument == "--error-format=json");
        if as_two || as_one { Self::Json } else { Self::Text }
    }
}

/// The nearest of `candidates` to `word`, if it is near enough to be what was meant.
pub fn suggest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_listed_once_with_its_own_word() {
        let words: std::collections::BTreeSet<_> = Class::ALL.iter().map(|class| class.word()).collect();
        assert_eq!(words.len(), Class::ALL.len());
    }

    #[test]
    fn suggestions_are_near() {
        assert_eq!(suggest("DATABSE_URL", ["DATABASE_URL", "API_KEY"]), Some("DATABASE_URL"));
        assert_eq!(suggest("wholly_different", ["DATABASE_URL", "API_KEY"]), None);
    }
}
