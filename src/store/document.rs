//! The plaintext of a sealed file: its binding to an environment and service, and every item with its stages.
//!
//! Here are the types and what may be done to them; `json.rs` reads and writes them; encryption is [`super::sealed`]'s.
//! What must stay true: an item has a current or a pending version, at most one of each stage, and no two versions of it
//! have the same number. The normative text is `docs/spec/sealed-file.md`.

mod exposed;
mod json;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

pub use exposed::{Exposed, ExposedState, MAX_NOTES, Note};
pub use json::Malformed;

use crate::error::{Cause, Class};
use crate::name::{EnvironmentName, ItemName, ServiceName, is_unprintable};
use crate::policy::model::Stage;
use crate::secret::Secret;

/// What `format` says in the documents that this code reads and writes.
pub const FORMAT: &str = "vouchsafe-sealed/1";
/// Items in one document.
pub const MAX_ITEMS: usize = 10_000;
/// Bytes of one value: more than Linux takes for one environment variable (`MAX_ARG_STRLEN`, execve(2)) is of no use here.
pub const MAX_VALUE: usize = 131_072;
/// Bytes of an author's name.
pub const MAX_AUTHOR: usize = 256;
/// 9999-12-31T23:59:59Z, the last second that RFC 3339 can write.
const LAST_SECOND: u64 = 253_402_300_799;

/// The plaintext of a sealed file. No `Debug`: it holds values.
pub struct Document {
    /// The environment that it opens for.
    pub environment: EnvironmentName,
    /// The service that it opens for; `None` for any service of the environment.
    pub service: Option<ServiceName>,
    /// How often it was written.
    pub generation: u64,
    items: BTreeMap<ItemName, Item>,
    /// One for each recipient.
    notes: Vec<Note>,
}

/// One item: its versions by stage. No `Debug`: it holds values.
#[derive(Default)]
pub struct Item {
    current: Option<Version>,
    previous: Option<Version>,
    pending: Option<Version>,
}

/// One version of an item. No `Debug`: it holds a value.
pub struct Version {
    /// Counts up from 1 within the item.
    pub number: u64,
    /// When it was written, to the second.
    pub time: SystemTime,
    /// Who wrote it.
    pub author: String,
    /// The value.
    pub value: Secret,
}

/// Why a document does not open here. Both names are in the error, because the mistake is in one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mismatch {
    /// It belongs to another environment.
    Environment {
        /// The one in the document.
        found: EnvironmentName,
        /// The one asked for.
        wanted: EnvironmentName,
    },
    /// It belongs to another service, or to one where the policy speaks for all.
    Service {
        /// The one in the document.
        found: ServiceName,
        /// The one asked for.
        wanted: Option<ServiceName>,
    },
}

/// Why a change to a document was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DocumentError {
    /// There is no such item.
    Absent(ItemName),
    /// The author's name is empty, too long or unprintable.
    Author,
    /// The version or generation counter is used up.
    Exhausted,
    /// There is no pending version.
    NoPending(ItemName),
    /// There is no previous version.
    NoPrevious(ItemName),
    /// A rotation is under way: a second pending version, a new current one, or a removal would lose track of it.
    Pending {
        /// The item.
        item: ItemName,
        /// Its pending version.
        number: u64,
    },
    /// One item more than a document holds.
    TooManyItems,
    /// One note of what was exposed more than a document holds.
    TooManyNotes,
    /// The value is over [`MAX_VALUE`].
    ValueTooLarge(ItemName),
}

impl Document {
    /// An empty document, not written yet.
    #[must_use]
    pub fn new(environment: EnvironmentName, service: Option<ServiceName>) -> Self {
        Self { environment, service, generation: 0, items: BTreeMap::new(), notes: Vec::new() }
    }

    /// Reads a document from its JSON.
    ///
    /// # Errors
    /// Where it is not one, by its line; never what stands there.
    pub fn parse(plaintext: &[u8]) -> Result<Self, Malformed> {
        json::parse(plaintext)
    }

    /// Writes its JSON into one buffer of the right size.
    #[must_use]
    pub fn to_plaintext(&self) -> Secret {
        json::write(self)
    }

    /// Whether it opens for `service` in `environment`. The environment must be the same; a document without a service
    /// opens for every service of its environment, one with a service only for that one.
    ///
    /// # Errors
    /// What does not match.
    pub fn matches(&self, environment: &EnvironmentName, service: Option<&ServiceName>) -> Result<(), Mismatch> {
        if self.environment != *environment {
            return Err(Mismatch::Environment { found: self.environment.clone(), wanted: environment.clone() });
        }
        match &self.service {
            Some(found) if Some(found) != service => {
                Err(Mismatch::Service { found: found.clone(), wanted: service.cloned() })
            }
            _ => Ok(()),
        }
    }

    /// Every item, sorted by name.
    pub fn items(&self) -> impl Iterator<Item = (&ItemName, &Item)> {
        self.items.iter()
    }

    /// One item.
    #[must_use]
    pub fn item(&self, item: &ItemName) -> Option<&Item> {
        self.items.get(item)
    }

    /// One version of an item, and its stage. Without a version or stage the current one. A pending version is found only
    /// by its stage, so that nobody gets an unproven value by counting.
    #[must_use]
    pub fn get(&self, item: &ItemName, version: Option<u64>, stage: Option<Stage>) -> Option<(Stage, &Version)> {
        let item = self.items.get(item)?;
        let of_number = |found: &(Stage, &Version)| version.is_none_or(|number| found.1.number == number);
        match (stage, version) {
            (Some(stage), _) => item.stage(stage).map(|found| (stage, found)).filter(of_number),
            (None, None) => item.stage(Stage::Current).map(|found| (Stage::Current, found)),
            (None, Some(_)) => [Stage::Current, Stage::Previous]
                .into_iter()
                .filter_map(|stage| item.stage(stage).map(|found| (stage, found)))
                .find(of_number),
        }
    }

    /// A new current version; what was current becomes previous. Answers its number.
    ///
    /// # Errors
    /// A limit is passed, or the item has a pending version.
    pub fn set(
        &mut self,
        item: &ItemName,
        value: Secret,
        author: &str,
        time: SystemTime,
    ) -> Result<u64, DocumentError> {
        let version = self.next_version(item, value, author, time)?;
        let number = version.number;
        self.items.entry(item.clone()).or_default().advance(version);
        Ok(number)
    }

    /// Takes an item out with all its versions; not while a version is pending, which a target may accept already. Should it come back, its numbers begin at 1 again, or after those that are noted
    /// as exposed.
    ///
    /// # Errors
    /// There is no such item, or it has a pending version.
    pub fn remove(&mut self, item: &ItemName) -> Result<Item, DocumentError> {
        if let Some(pending) = self.items.get(item).and_then(|item| item.pending.as_ref()) {
            return Err(DocumentError::Pending { item: item.clone(), number: pending.number });
        }
        self.items.remove(item).ok_or_else(|| DocumentError::Absent(item.clone()))
    }

    /// A new pending version, which consumers do not get. Answers its number.
    ///
    /// # Errors
    /// A limit is passed, or the item has a pending version already.
    pub fn stage_pending(
        &mut self,
        item: &ItemName,
        value: Secret,
        author: &str,
        time: SystemTime,
    ) -> Result<u64, DocumentError> {
        let version = self.next_version(item, value, author, time)?;
        let number = version.number;
        self.items.entry(item.clone()).or_default().pending = Some(version);
        Ok(number)
    }

    /// The pending version becomes current, the current one previous. From `time` on it is written: how long it has been
    /// used counts, not how long it lay there unproven. Answers the number that is now current.
    ///
    /// # Errors
    /// There is no pending version.
    pub fn promote(&mut self, item: &ItemName, time: SystemTime) -> Result<u64, DocumentError> {
        let entry = self.item_mut(item)?;
        let pending = entry.pending.take().ok_or_else(|| DocumentError::NoPending(item.clone()))?;
        let number = pending.number;
        entry.advance(Version { time: whole_second(time), ..pending });
        Ok(number)
    }

    /// Takes the previous version out.
    ///
    /// # Errors
    /// There is no previous version.
    pub fn drop_previous(&mut self, item: &ItemName) -> Result<Version, DocumentError> {
        self.item_mut(item)?.previous.take().ok_or_else(|| DocumentError::NoPrevious(item.clone()))
    }

    /// Takes the pending version out. Its number is given again, since it was never anyone's.
    ///
    /// # Errors
    /// There is no pending version.
    pub fn discard_pending(&mut self, item: &ItemName) -> Result<Version, DocumentError> {
        let entry = self.item_mut(item)?;
        let pending = entry.pending.take().ok_or_else(|| DocumentError::NoPending(item.clone()))?;
        if entry.current.is_none() {
            self.items.remove(item);
        }
        Ok(pending)
    }

    /// The current and the previous version change places. Answers the number that is now current.
    ///
    /// # Errors
    /// There is no previous version, or a pending one.
    pub fn rollback(&mut self, item: &ItemName) -> Result<u64, DocumentError> {
        let entry = self.item_mut(item)?;
        if let Some(pending) = &entry.pending {
            return Err(DocumentError::Pending { item: item.clone(), number: pending.number });
        }
        let previous = entry.previous.take().ok_or_else(|| DocumentError::NoPrevious(item.clone()))?;
        let number = previous.number;
        entry.advance(previous);
        Ok(number)
    }

    fn item_mut(&mut self, item: &ItemName) -> Result<&mut Item, DocumentError> {
        self.items.get_mut(item).ok_or_else(|| DocumentError::Absent(item.clone()))
    }

    fn next_version(
        &mut self,
        item: &ItemName,
        value: Secret,
        author: &str,
        time: SystemTime,
    ) -> Result<Version, DocumentError> {
        let existing = self.items.get(item);
        if let Some(pending) = existing.and_then(|item| item.pending.as_ref()) {
            return Err(DocumentError::Pending { item: item.clone(), number: pending.number });
        }
        if existing.is_none() && self.items.len() >= MAX_ITEMS {
            return Err(DocumentError::TooManyItems);
        }
        if value.expose().len() > MAX_VALUE {
            return Err(DocumentError::ValueTooLarge(item.clone()));
        }
        if !is_author(author) {
            return Err(DocumentError::Author);
        }
        // A number that was exposed is not given to another value, not even after its item was removed.
        let highest = existing.map_or(0, Item::highest).max(self.highest_noted(item));
        let number = highest.checked_add(1).ok_or(DocumentError::Exhausted)?;
        let version = Version { number, time: whole_second(time), author: author.to_owned(), value };
        self.note_same_value(item, &version);
        Ok(version)
    }
}

impl Item {
    /// The version at a stage.
    #[must_use]
    pub fn stage(&self, stage: Stage) -> Option<&Version> {
        match stage {
            Stage::Current => self.current.as_ref(),
            Stage::Pending => self.pending.as_ref(),
            Stage::Previous => self.previous.as_ref(),
        }
    }

    /// Every version with its stage: pending, current, previous.
    pub fn versions(&self) -> impl Iterator<Item = (Stage, &Version)> {
        [Stage::Pending, Stage::Current, Stage::Previous]
            .into_iter()
            .filter_map(|stage| self.stage(stage).map(|version| (stage, version)))
    }

    fn advance(&mut self, version: Version) {
        self.previous = self.current.replace(version);
    }

    fn highest(&self) -> u64 {
        self.versions().map(|(_, version)| version.number).max().unwrap_or_default()
    }
}

fn is_author(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_AUTHOR && !text.chars().any(is_unprintable)
}

/// The second that `time` lies in, within what RFC 3339 can write: a clock that is off must not stop a write.
fn whole_second(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs().min(LAST_SECOND))
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment { found, wanted } => {
                write!(f, "it belongs to environment `{found}`, not to `{wanted}`")
            }
            Self::Service { found, wanted: Some(wanted) } => {
                write!(f, "it belongs to service `{found}`, not to `{wanted}`")
            }
            Self::Service { found, wanted: None } => {
                write!(f, "it belongs to service `{found}`, and the policy names no service")
            }
        }
    }
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |item: &ItemName| crate::name::escape(item.as_str());
        match self {
            Self::Absent(item) => write!(f, "there is no item `{}`", name(item)),
            Self::Author => write!(f, "the author's name is empty, longer than {MAX_AUTHOR} bytes or unprintable"),
            Self::Exhausted => write!(f, "the version counter is used up"),
            Self::NoPending(item) => write!(f, "item `{}` has no pending version", name(item)),
            Self::NoPrevious(item) => write!(f, "item `{}` has no previous version", name(item)),
            Self::Pending { item, number } => {
                write!(f, "item `{}` is being rotated: version {number} is pending", name(item))
            }
            Self::TooManyItems => write!(f, "a sealed file holds at most {MAX_ITEMS} items"),
            Self::TooManyNotes => write!(f, "values are exposed to {MAX_NOTES} recipients already"),
            Self::ValueTooLarge(item) => {
                write!(f, "the value for item `{}` is over the limit of {MAX_VALUE} bytes", name(item))
            }
        }
    }
}

impl Cause for DocumentError {
    fn class(&self) -> Class {
        match self {
            Self::Absent(_) | Self::NoPending(_) | Self::NoPrevious(_) => Class::Missing,
            Self::Author
            | Self::Exhausted
            | Self::Pending { .. }
            | Self::TooManyItems
            | Self::TooManyNotes
            | Self::ValueTooLarge(_) => Class::Store,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Pending { .. } => Some(
                "vouchsafe rotate --resume NAME   # finishes the rotation; or --rollback, which gives it up".to_owned(),
            ),
            Self::TooManyNotes => Some("vouchsafe check   # says which: replace those values first".to_owned()),
            _ => None,
        }
    }
}
