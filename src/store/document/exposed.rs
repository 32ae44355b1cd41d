//! What somebody could open who must not any more: noted in the document itself by `rekey --remove ... --compromised`, in the
//! same write that takes the recipient out, so that any host sees what is left to do.
//!
//! A note holds, for each item, the highest number that the recipient could read. What follows from it is derived here from
//! the versions that the document holds now; nothing else keeps state. While a note stands its numbers are not given again, and
//! a new version with the value of an exposed one is noted too, so a value that was replaced is told from one that was not.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::{Document, DocumentError, Item, Version, whole_second};
use crate::name::ItemName;
use crate::policy::model::Stage;

/// Notes in one document, one for each recipient.
pub const MAX_NOTES: usize = 64;
/// Bytes of a recipient's text: post-quantum ones have about 2,000.
pub(super) const MAX_RECIPIENT: usize = 4096;

/// What one recipient could open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The recipient as the policy named it: `age1...`, or the ARN of a KMS key.
    pub recipient: String,
    /// When it was taken out.
    pub time: SystemTime,
    /// The highest number of each item that it could read.
    pub items: BTreeMap<ItemName, u64>,
}

/// One item of a note, and what has become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposed {
    /// Who could read it.
    pub recipient: String,
    /// Until when, at least.
    pub since: SystemTime,
    /// The item.
    pub item: ItemName,
    /// Its versions up to this number could be read.
    pub number: u64,
    /// What it holds now.
    pub state: ExposedState,
}

/// What an exposed item holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExposedState {
    /// Nothing that was exposed.
    Gone,
    /// An exposed version is current, or pending.
    Due,
    /// The current version is another one; an exposed one is still the previous. A rollback would bring it back, and its
    /// target may accept it.
    Previous(u64),
    /// There is no such item any more.
    Removed,
}

impl ExposedState {
    /// Whether the value still has to be replaced.
    #[must_use]
    pub fn is_due(self) -> bool {
        matches!(self, Self::Due)
    }

    /// Whether nothing is left in the document that was exposed.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Gone | Self::Removed)
    }
}

impl Document {
    /// Every item of every note, and what has become of it: by note, then by name.
    #[must_use]
    pub fn exposed(&self) -> Vec<Exposed> {
        let of_note = |note: &Note| {
            let one = |(item, number): (&ItemName, &u64)| Exposed {
                recipient: note.recipient.clone(),
                since: note.time,
                item: item.clone(),
                number: *number,
                state: state(self.item(item), *number),
            };
            note.items.iter().map(one).collect::<Vec<_>>()
        };
        self.notes.iter().flat_map(of_note).collect()
    }

    /// Notes that `recipient` could open every version that the document holds. Nothing, if there is a note of it already:
    /// what was written since is not for it ([`Self::expose_again`]).
    ///
    /// # Errors
    /// There is one note more than a document holds.
    pub fn expose(&mut self, recipient: &str, time: SystemTime) -> Result<(), DocumentError> {
        if self.items.is_empty() || self.notes.iter().any(|note| note.recipient == recipient) {
            return Ok(());
        }
        if self.notes.len() >= MAX_NOTES {
            return Err(DocumentError::TooManyNotes);
        }
        let items = self.highest_numbers();
        self.notes.push(Note { recipient: recipient.to_owned(), time: whole_second(time), items });
        Ok(())
    }

    /// Before a write to recipients of whom some are noted: a policy names them again. They can read what is written now.
    pub fn expose_again(&mut self, is_recipient: impl Fn(&str) -> bool) {
        if self.notes.iter().any(|note| is_recipient(&note.recipient)) {
            let now = self.highest_numbers();
            for note in self.notes.iter_mut().filter(|note| is_recipient(&note.recipient)) {
                note.items.extend(now.clone());
            }
        }
    }

    /// Drops the notes of those whom the policy names again on purpose. Answers who they are.
    pub fn trust_again(&mut self, is_recipient: impl Fn(&str) -> bool) -> Vec<String> {
        let mut trusted = Vec::new();
        self.notes.retain(|note| {
            let is_one = is_recipient(&note.recipient);
            if is_one {
                trusted.push(note.recipient.clone());
            }
            !is_one
        });
        trusted
    }

    /// Drops what is noted of items of which nothing is left that was exposed, and the notes that are empty then.
    pub fn drop_replaced(&mut self) {
        let Self { notes, items, .. } = self;
        for note in &mut *notes {
            note.items.retain(|name, number| !state(items.get(name), *number).is_over());
        }
        notes.retain(|note| !note.items.is_empty());
    }

    /// The highest number of an item that a note stands for.
    pub(super) fn highest_noted(&self, item: &ItemName) -> u64 {
        self.notes.iter().filter_map(|note| note.items.get(item)).copied().max().unwrap_or_default()
    }

    /// A new version with the value of an exposed one is as exposed as that.
    pub(super) fn note_same_value(&mut self, name: &ItemName, new: &Version) {
        let Some(item) = self.items.get(name) else { return };
        for number in self.notes.iter_mut().filter_map(|note| note.items.get_mut(name)) {
            let mut exposed = item.versions().filter(|(_, version)| version.number <= *number);
            if exposed.any(|(_, version)| version.value.same_as(&new.value)) {
                *number = new.number;
            }
        }
    }

    fn highest_numbers(&self) -> BTreeMap<ItemName, u64> {
        self.items.iter().map(|(name, item)| (name.clone(), item.highest())).collect()
    }
}

fn state(item: Option<&Item>, number: u64) -> ExposedState {
    let Some(item) = item else { return ExposedState::Removed };
    let exposed = |stage| item.stage(stage).filter(|version| version.number <= number);
    if exposed(Stage::Current).is_some() || exposed(Stage::Pending).is_some() {
        return ExposedState::Due;
    }
    exposed(Stage::Previous).map_or(ExposedState::Gone, |previous| ExposedState::Previous(previous.number))
}

/// What may stand for a recipient: printable, without a blank.
pub(super) fn is_recipient(text: &str) -> bool {
    (1..=MAX_RECIPIENT).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
#[path = "exposed_tests.rs"]
mod tests;
