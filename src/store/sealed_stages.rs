//! The stages of a sealed file's items. Each operation is one change of the document under the write lock, in place or not
//! at all; what is done already is not written again.

use std::time::{Instant, SystemTime};

use super::document::{Document, DocumentError, Item};
use super::hold::{Hold, Refusal};
use super::sealed::SealedErrorKind as Kind;
use super::sealed_file::{SealedFile, note_of, of_version};
use super::stages::{Holder, Staged, StagedItem, Stages};
use super::{Author, Fetched, StoreError, StoreErrorKind};
use crate::name::ItemName;
use crate::policy::model::Stage;
use crate::secret::Secret;

/// A sealed file whose items are rotated.
#[derive(Debug)]
pub struct SealedStages<F> {
    file: F,
    hold: Option<Hold>,
}

impl<F: SealedFile> SealedStages<F> {
    /// Touches nothing yet.
    #[must_use]
    pub fn new(file: F) -> Self {
        Self { file, hold: None }
    }

    fn error(&self, kind: StoreErrorKind) -> StoreError {
        StoreError { store: self.file.store().clone(), kind }
    }

    fn change<T>(
        &self,
        item: &ItemName,
        deadline: Instant,
        work: impl FnOnce(&mut Document) -> Result<Change<T>, DocumentError>,
    ) -> Result<T, StoreError> {
        let mut aside = None;
        let changed = self.file.update(
            |document| match work(document)? {
                Change::Made(answer) => Ok(answer),
                other => {
                    aside = Some(other);
                    Err(Kind::CalledOff)
                }
            },
            deadline,
        );
        match (changed, aside) {
            (Err(_), Some(Change::Made(answer) | Change::Needless(answer))) => Ok(answer),
            (Err(_), Some(Change::Moved(found))) => {
                Err(self.error(StoreErrorKind::Moved { item: item.clone(), found }))
            }
            (changed, _) => changed,
        }
    }
}

/// What became of a change.
enum Change<T> {
    /// The document is another one.
    Made(T),
    /// It is as it should be.
    Needless(T),
    /// Another version is there than the one that was meant; which one.
    Moved(String),
}

impl<F: SealedFile> Stages for SealedStages<F> {
    fn hold(&mut self, holder: &Holder, _deadline: Instant) -> Result<(), StoreError> {
        self.file.refuse_unwritable()?;
        if self.hold.is_some() {
            return Ok(());
        }
        let path = self.file.path()?;
        self.hold = Some(Hold::take(path, holder).map_err(|refusal| match refusal {
            Refusal::Held(holder) => self.error(StoreErrorKind::Held(holder)),
            Refusal::File(kind) => self.error(StoreErrorKind::Sealed(kind.at(path))),
        })?);
        Ok(())
    }

    fn let_go(&mut self, _deadline: Instant) -> Result<(), StoreError> {
        self.hold = None;
        Ok(())
    }

    fn staged(&mut self, item: &StagedItem, deadline: Instant) -> Result<Staged, StoreError> {
        let document = self.file.document(deadline)?;
        let at = |stage| document.item(&item.item)?.stage(stage).map(|version| note_of(stage, version));
        Ok(Staged {
            current: at(Stage::Current),
            pending: at(Stage::Pending),
            previous: at(Stage::Previous),
            is_unmarked: false,
            is_rolled_back: false,
        })
    }

    fn read(&mut self, item: &StagedItem, stage: Stage, deadline: Instant) -> Result<Option<Fetched>, StoreError> {
        let document = self.file.document(deadline)?;
        Ok(document.get(&item.item, None, Some(stage)).map(|(stage, version)| of_version(stage, version)))
    }

    /// A document says from the start which version is which.
    fn adopt(&mut self, _item: &StagedItem, _deadline: Instant) -> Result<(), StoreError> {
        Ok(())
    }

    fn stage_pending(
        &mut self,
        item: &StagedItem,
        value: &Secret,
        author: &Author,
        deadline: Instant,
    ) -> Result<u64, StoreError> {
        self.change(&item.item, deadline, |document| match number_at(document.item(&item.item), Stage::Pending) {
            Some(_) => Ok(Change::Moved(found(document.item(&item.item), Stage::Pending))),
            None => document.stage_pending(&item.item, value.duplicate(), &author.name, author.time).map(Change::Made),
        })
    }

    fn promote(
        &mut self,
        item: &StagedItem,
        number: u64,
        author: &Author,
        deadline: Instant,
    ) -> Result<u64, StoreError> {
        let time: SystemTime = author.time;
        self.change(&item.item, deadline, |document| {
            let entry = document.item(&item.item);
            match (number_at(entry, Stage::Pending), number_at(entry, Stage::Current)) {
                (Some(pending), _) if pending == number => document.promote(&item.item, time).map(Change::Made),
                (None, Some(current)) if current == number => Ok(Change::Needless(number)),
                _ => Ok(Change::Moved(found(entry, Stage::Pending))),
            }
        })
    }

    fn discard_pending(&mut self, item: &StagedItem, number: u64, deadline: Instant) -> Result<(), StoreError> {
        self.change(&item.item, deadline, |document| match number_at(document.item(&item.item), Stage::Pending) {
            Some(pending) if pending == number => document.discard_pending(&item.item).map(|_| Change::Made(())),
            None => Ok(Change::Needless(())),
            Some(_) => Ok(Change::Moved(found(document.item(&item.item), Stage::Pending))),
        })
    }

    fn drop_previous(&mut self, item: &StagedItem, number: u64, deadline: Instant) -> Result<(), StoreError> {
        self.change(&item.item, deadline, |document| match number_at(document.item(&item.item), Stage::Previous) {
            Some(previous) if previous == number => document.drop_previous(&item.item).map(|_| Change::Made(())),
            None => Ok(Change::Needless(())),
            Some(_) => Ok(Change::Moved(found(document.item(&item.item), Stage::Previous))),
        })
    }

    fn roll_back(
        &mut self,
        item: &StagedItem,
        number: u64,
        _author: &Author,
        deadline: Instant,
    ) -> Result<u64, StoreError> {
        self.change(&item.item, deadline, |document| {
            let entry = document.item(&item.item);
            if number_at(entry, Stage::Pending).is_some() {
                return Ok(Change::Moved(found(entry, Stage::Pending)));
            }
            match (number_at(entry, Stage::Previous), number_at(entry, Stage::Current)) {
                (Some(previous), _) if previous == number => document.rollback(&item.item).map(Change::Made),
                (_, Some(current)) if current == number => Ok(Change::Needless(number)),
                _ => Ok(Change::Moved(found(entry, Stage::Previous))),
            }
        })
    }
}

fn number_at(item: Option<&Item>, stage: Stage) -> Option<u64> {
    item?.stage(stage).map(|version| version.number)
}

fn found(item: Option<&Item>, stage: Stage) -> String {
    match number_at(item, stage) {
        Some(number) => format!("version {number} is {}", stage.word()),
        None => format!("no version is {}", stage.word()),
    }
}

#[cfg(test)]
#[path = "sealed_stages_tests.rs"]
mod tests;
