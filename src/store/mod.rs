//! Stores: where values live. A store answers "fetch this"; it does not know who may ask.
//!
//! - [`document`]: the plaintext of a sealed file: items, versions, stages;
//! - [`plain`]: plaintexts made by hand: dotenv, flat JSON, flat TOML;
//! - [`identity`]: age identities and recipients, and where they are read from;
//! - [`sealed`]: the age file around a plaintext: limits ([`header`]), opening in two passes, errors;
//! - [`mod@write`]: putting a sealed file in place of another without loss; [`rekey`]: encrypting it anew;
//! - [`vouched`]: who answers for a sealed file, before it is opened;
//! - [`sealed_file`]: what the stores that are such a file have in common; [`sealed_stages`]: their stages, and [`hold`]: who
//!   moves them;
//! - [`age`]: the `age` store on top of all these;
//! - [`aws`]: what the stores of AWS have in common; [`ssm`], [`kms`]: those stores.
//!
//! [`Store::fetch`] is all that the exec path needs; [`Versions`] is what the commands that write and look back need, and
//! [`stages::Stages`] what rotation needs. All block; a store that waits on a network keeps its runtime to itself.

pub mod age;
pub mod aws;
pub mod document;
pub mod header;
pub mod hold;
pub mod identity;
pub mod kms;
pub mod plain;
pub mod rekey;
#[cfg(test)]
pub(crate) mod scratch;
pub mod sealed;
mod sealed_error;
pub mod sealed_file;
pub mod sealed_stages;
pub mod ssm;
pub mod stages;
pub mod vouched;
pub mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Instant, SystemTime};

use document::Exposed;
use vouched::OpenedFile;

use crate::error::{Cause, Class};
use crate::name::{ItemName, StoreName};
use crate::policy::model::Stage;
use crate::secret::Secret;

/// Reads values. One call names all that is wanted of this store, so that a store can batch.
pub trait Store {
    /// Answers every entry of `wanted`, in order. An item that does not exist is [`Answer::Absent`], which is no error
    /// here: whether absence matters is for the policy to say. Everything else that goes wrong is an error of the whole.
    ///
    /// # Errors
    /// The first failure that keeps the store from a full answer before `deadline`.
    fn fetch(&mut self, wanted: &[Wanted], deadline: Instant) -> Result<Vec<Answer>, StoreError>;

    /// What somebody removed could open, by the notes of the file that the last fetch opened. A store without such notes has
    /// none.
    fn exposed(&self) -> Vec<Exposed> {
        Vec::new()
    }

    /// The file that the last fetch opened, if the store is one.
    fn opened(&self) -> Option<&OpenedFile> {
        None
    }
}

/// What is wanted of a store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// Every item under a path (whole segments; empty for the whole store).
    Bundle {
        /// The path: empty, or ending in `/`.
        path: String,
        /// Also deeper levels.
        recursive: bool,
        /// Values stored without encryption are accepted.
        plain: bool,
        /// Items that may have an unproven version, and are therefore read at the stage `current`. A store that keeps stages of
        /// its own reads all of them so.
        staged: BTreeSet<ItemName>,
        /// What is no item of the bundle: where unproven versions of others lie.
        hidden: BTreeSet<ItemName>,
    },
    /// A ciphertext that the policy itself holds.
    Ciphertext {
        /// The blob.
        ciphertext: Vec<u8>,
        /// Its encryption context, exactly.
        context: BTreeMap<String, String>,
    },
    /// One item.
    Item {
        /// Its full name.
        item: ItemName,
        /// A fixed version.
        version: Option<u64>,
        /// A stage.
        stage: Option<Stage>,
        /// A value stored without encryption is accepted.
        plain: bool,
    },
}

/// What a store answers to one [`Wanted`]. No `Debug`: it holds plaintext.
pub enum Answer {
    /// No such item, version or stage.
    Absent,
    /// The items of a bundle, sorted by name.
    Bundle(Vec<(ItemName, Fetched)>),
    /// The value.
    Found(Fetched),
}

/// A value and what the audit record says of it.
pub struct Fetched {
    /// The plaintext.
    pub value: Secret,
    /// Its version, where the store counts them.
    pub version: Option<u64>,
    /// Its stage, where the store keeps them.
    pub stage: Option<Stage>,
    /// When this version was written, where the store knows.
    pub written: Option<SystemTime>,
}

/// The versions of items: what the commands that write and look back do with a store of any type. No value comes out.
pub trait Versions {
    /// Whether this store takes writes at all, before anybody is asked for a value.
    ///
    /// # Errors
    /// It does not.
    fn refuse_unwritable(&self) -> Result<(), StoreError>;

    /// What is known of each version of an item; nothing, if there is no such item.
    ///
    /// # Errors
    /// The store fails, or keeps no versions.
    fn history(&mut self, item: &ItemName, deadline: Instant) -> Result<Vec<VersionNote>, StoreError>;

    /// Writes a new current version and answers its number, or `None` if it was to be written only where there is none.
    ///
    /// # Errors
    /// The store does not take it, or fails.
    fn put(
        &mut self,
        item: &ItemName,
        value: Secret,
        author: &Author,
        only_if_absent: bool,
        deadline: Instant,
    ) -> Result<Option<u64>, StoreError>;

    /// Takes an item out with all its versions; `false` if there is none.
    ///
    /// # Errors
    /// The store does not take the change, or fails.
    fn remove(&mut self, item: &ItemName, deadline: Instant) -> Result<bool, StoreError>;
}

/// Who writes, and when. A store that knows both by itself, as AWS does, takes its own word for it.
#[derive(Debug, Clone)]
pub struct Author {
    /// The name.
    pub name: String,
    /// The time.
    pub time: SystemTime,
}

/// What is known of a version without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionNote {
    /// The number.
    pub number: u64,
    /// The stage, if it has one.
    pub stage: Option<Stage>,
    /// When it was written.
    pub time: Option<SystemTime>,
    /// Who wrote it.
    pub author: Option<String>,
}

/// Whole segments: `/a/` holds `/a/b` and, where deeper levels count, `/a/b/c`; never `/ab`, nor what only looks so. The
/// empty path holds everything.
#[must_use]
pub fn is_below(name: &str, path: &str, recursive: bool) -> bool {
    let rest = match path.trim_end_matches('/') {
        "" if path.is_empty() => Some(name),
        folder => name.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/')),
    };
    rest.is_some_and(|rest| {
        let are_plain = rest.split('/').all(|segment| !matches!(segment, "" | "." | ".."));
        are_plain && (recursive || !rest.contains('/'))
    })
}

/// Why a store could not answer. Holds names and paths, never content.
#[derive(Debug)]
pub struct StoreError {
    /// The store, as the policy calls it.
    pub store: StoreName,
    /// What happened.
    pub kind: StoreErrorKind,
}

/// What happened to a store.
#[derive(Debug)]
pub enum StoreErrorKind {
    /// AWS failed, or there was no way to it.
    Aws(Box<aws::error::AwsError>),
    /// Somebody else rotates.
    Held(stages::Holder),
    /// The version that was meant is not at its stage any more.
    Moved {
        /// The item.
        item: ItemName,
        /// What is there instead, as in "version 4 is pending".
        found: String,
    },
    /// A parameter is not used or not written.
    Parameter(ssm::Refusal),
    /// A problem of a sealed file.
    Sealed(sealed::SealedError),
    /// This build cannot read such a store.
    Unsupported(&'static str),
    /// The store cannot do what was asked.
    NotOffered {
        /// What was asked, as in "this store keeps no ...".
        what: &'static str,
    },
}

impl StoreError {
    /// Whether the store was not to be reached, or has too much to do: nothing was decided about what was asked, and an
    /// older answer may still be right.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        use aws::error::Problem;
        let StoreErrorKind::Aws(error) = &self.kind else { return false };
        matches!(error.problem, Problem::Deadline | Problem::ServerFault | Problem::Throttled | Problem::Unreachable(_))
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "store `{}`: ", self.store)?;
        match &self.kind {
            StoreErrorKind::Aws(error) => error.fmt(f),
            StoreErrorKind::Held(holder) => write!(f, "it is being rotated by {holder}"),
            StoreErrorKind::Moved { item, found } => {
                write!(f, "`{}` was changed meanwhile: {found}", crate::name::escape(item.as_str()))
            }
            StoreErrorKind::Parameter(refusal) => refusal.fmt(f),
            StoreErrorKind::Sealed(error) => error.fmt(f),
            StoreErrorKind::Unsupported(kind) => write!(f, "stores of type `{kind}` are not supported in this build"),
            StoreErrorKind::NotOffered { what } => write!(f, "it keeps no {what}"),
        }
    }
}

impl Cause for StoreError {
    fn class(&self) -> Class {
        match &self.kind {
            StoreErrorKind::Aws(error) => error.class(),
            StoreErrorKind::Held(_) | StoreErrorKind::Moved { .. } => Class::Busy,
            StoreErrorKind::Parameter(refusal) => refusal.class(),
            StoreErrorKind::Sealed(error) => error.class(),
            StoreErrorKind::Unsupported(_) => Class::Unsupported,
            StoreErrorKind::NotOffered { .. } => Class::Store,
        }
    }

    fn is_unsettled(&self) -> bool {
        match &self.kind {
            StoreErrorKind::Aws(error) => error.problem == aws::error::Problem::Unsettled,
            StoreErrorKind::Parameter(refusal) => refusal.is_unsettled(),
            StoreErrorKind::Held(_)
            | StoreErrorKind::Moved { .. }
            | StoreErrorKind::Sealed(_)
            | StoreErrorKind::Unsupported(_)
            | StoreErrorKind::NotOffered { .. } => false,
        }
    }

    fn hint(&self) -> Option<String> {
        match &self.kind {
            StoreErrorKind::Aws(error) => error.hint(),
            StoreErrorKind::Parameter(refusal) => refusal.hint(),
            StoreErrorKind::Sealed(error) => error.hint(),
            // The command is the one that was refused; whoever ran it knows it and says so.
            StoreErrorKind::Held(_) => None,
            StoreErrorKind::Moved { .. } => Some("look again: vouchsafe list".into()),
            StoreErrorKind::Unsupported(_) | StoreErrorKind::NotOffered { .. } => None,
        }
    }
}
