//! What the `age` and the `kms` store have in common once a file is open: its document, and the versions in it.

use std::path::Path;
use std::time::Instant;

use super::document::{Document, DocumentError, Version};
use super::sealed::SealedErrorKind as Kind;
use super::{Answer, Author, Fetched, StoreError, StoreErrorKind, VersionNote, Versions, Wanted, is_below};
use crate::name::{ItemName, ServiceName, StoreName};
use crate::policy::model::Stage;
use crate::secret::Secret;

/// A store that is one sealed file.
pub trait SealedFile {
    /// Whether it takes writes at all.
    ///
    /// # Errors
    /// It does not.
    fn refuse_unwritable(&self) -> Result<(), StoreError>;

    /// The whole document, for `check`, `history` and `list`.
    ///
    /// # Errors
    /// The file cannot be opened, or belongs elsewhere, or was made by hand.
    fn document(&self, deadline: Instant) -> Result<Document, StoreError>;

    /// The document in bytes that lie elsewhere: an older version of the file, as git hands it to a textconv.
    ///
    /// # Errors
    /// Those of [`Self::document`].
    fn document_in(&self, bytes: &[u8], deadline: Instant) -> Result<Document, StoreError>;

    /// Changes the document under a lock and puts it in place; see [`super::write::update`]. Another environment's
    /// document is never written.
    ///
    /// # Errors
    /// Those of [`super::write::update`], and of `change`.
    fn update<T>(
        &self,
        change: impl FnOnce(&mut Document) -> Result<T, Kind>,
        deadline: Instant,
    ) -> Result<T, StoreError>;

    /// Writes a first, empty document, unless there is a file already. It is bound to the environment, and to `service`
    /// if that is given.
    ///
    /// # Errors
    /// None of the keys could open it; a system call fails.
    fn create_if_absent(&self, service: Option<&ServiceName>, deadline: Instant) -> Result<(), StoreError>;

    /// The service of the policy, which a first document is bound to.
    fn service(&self) -> Option<&ServiceName>;

    /// The store, as the policy calls it.
    fn store(&self) -> &StoreName;

    /// The file.
    ///
    /// # Errors
    /// The store has none.
    fn path(&self) -> Result<&Path, StoreError>;
}

impl<F: SealedFile> Versions for F {
    fn refuse_unwritable(&self) -> Result<(), StoreError> {
        SealedFile::refuse_unwritable(self)
    }

    fn history(&mut self, item: &ItemName, deadline: Instant) -> Result<Vec<VersionNote>, StoreError> {
        let document = self.document(deadline)?;
        let versions = document.item(item).into_iter().flat_map(|item| item.versions());
        Ok(versions.map(|(stage, version)| note_of(stage, version)).collect())
    }

    fn put(
        &mut self,
        item: &ItemName,
        value: Secret,
        author: &Author,
        only_if_absent: bool,
        deadline: Instant,
    ) -> Result<Option<u64>, StoreError> {
        self.create_if_absent(self.service(), deadline)?;
        let change = |document: &mut Document| {
            if only_if_absent && document.item(item).is_some() {
                return Err(Kind::Exists);
            }
            Ok(document.set(item, value, &author.name, author.time)?)
        };
        none_if(self.update(change, deadline), |kind| matches!(kind, Kind::Exists))
    }

    fn remove(&mut self, item: &ItemName, deadline: Instant) -> Result<bool, StoreError> {
        let change = |document: &mut Document| Ok(document.remove(item).map(|_| ())?);
        let is_absent = |kind: &Kind| matches!(kind, Kind::Change(DocumentError::Absent(_)));
        Ok(none_if(self.update(change, deadline), is_absent)?.is_some())
    }
}

/// A change that its closure called off leaves the file as it was. Where that was the plan, it is no error.
fn none_if<T>(done: Result<T, StoreError>, is_planned: impl Fn(&Kind) -> bool) -> Result<Option<T>, StoreError> {
    match done {
        Err(StoreError { kind: StoreErrorKind::Sealed(error), .. }) if is_planned(&error.kind) => Ok(None),
        other => other.map(Some),
    }
}

/// What a document answers.
#[must_use]
pub fn answer_from(document: &Document, wanted: &Wanted) -> Answer {
    match wanted {
        Wanted::Item { item, version, stage, .. } => document
            .get(item, *version, *stage)
            .map_or(Answer::Absent, |(stage, version)| Answer::Found(of_version(stage, version))),
        Wanted::Bundle { path, recursive, .. } => {
            let items = document.items().filter(|(name, _)| is_below(name.as_str(), path, *recursive));
            let current = items.filter_map(|(name, item)| {
                item.stage(Stage::Current).map(|version| (name.clone(), of_version(Stage::Current, version)))
            });
            Answer::Bundle(current.collect())
        }
        Wanted::Ciphertext { .. } => Answer::Absent,
    }
}

pub(super) fn note_of(stage: Stage, version: &Version) -> VersionNote {
    VersionNote {
        number: version.number,
        stage: Some(stage),
        time: Some(version.time),
        author: Some(version.author.clone()),
    }
}

pub(super) fn of_version(stage: Stage, version: &Version) -> Fetched {
    Fetched {
        value: version.value.duplicate(),
        version: Some(version.number),
        stage: Some(stage),
        written: Some(version.time),
    }
}
