//! The stages of items: what rotation moves, in a store of any type.
//!
//! Which version is which lies in the store itself (the sealed document, labels of SSM), so that any host can go on where
//! another one was killed. Every operation names the version that its caller means, is one step, and is safe to repeat: done
//! already is success, and a version that is not there any more is [`super::StoreErrorKind::Moved`].

use std::fmt;
use std::time::{Instant, SystemTime};

use super::{Author, Fetched, StoreError, VersionNote};
use crate::name::ItemName;
use crate::policy::model::Stage;
use crate::secret::Secret;

/// An item whose value is rotated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedItem {
    /// Its full name in the store.
    pub item: ItemName,
    /// ssm: an unproven version lies in a parameter of its own, for readers that know no labels.
    pub pending_separate: bool,
}

/// Which versions of an item have a stage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Staged {
    /// What consumers get.
    pub current: Option<VersionNote>,
    /// Created, not yet proven.
    pub pending: Option<VersionNote>,
    /// What consumers got before.
    pub previous: Option<VersionNote>,
    /// There is a current version, and no stage says so yet: [`Stages::adopt`] comes first.
    pub is_unmarked: bool,
    /// The current version was gone back to, and nothing came since: to go back once more would be forward. Where numbers say
    /// so already (the previous version is the newer one), this need not.
    pub is_rolled_back: bool,
}

/// Who rotates, for whoever comes second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// User, host and process.
    pub owner: String,
    /// Since when.
    pub since: SystemTime,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = humantime::format_rfc3339_seconds(self.since);
        write!(f, "{} since {since}", crate::name::escape(&self.owner))
    }
}

/// A store whose items can be rotated.
pub trait Stages {
    /// Takes the store's one right to rotate, or extends it where this process has it. Ends with [`Self::let_go`], with the
    /// process where the kernel can see to that, or else after a time that the store chooses.
    ///
    /// # Errors
    /// Somebody else rotates ([`super::StoreErrorKind::Held`]); the store takes no writes, or fails.
    fn hold(&mut self, holder: &Holder, deadline: Instant) -> Result<(), StoreError>;

    /// Gives the right to rotate back. Nothing, if this process does not have it.
    ///
    /// # Errors
    /// The store fails: the right ends by itself.
    fn let_go(&mut self, deadline: Instant) -> Result<(), StoreError>;

    /// Which version is which; nothing at all, if there is no such item.
    ///
    /// # Errors
    /// The store fails, or keeps no versions.
    fn staged(&mut self, item: &StagedItem, deadline: Instant) -> Result<Staged, StoreError>;

    /// The value at a stage.
    ///
    /// # Errors
    /// The store fails.
    fn read(&mut self, item: &StagedItem, stage: Stage, deadline: Instant) -> Result<Option<Fetched>, StoreError>;

    /// Marks the newest version as current where no version has a stage, so that a pending one which is created next is
    /// nobody's. Nothing, where one has.
    ///
    /// # Errors
    /// The store fails.
    fn adopt(&mut self, item: &StagedItem, deadline: Instant) -> Result<(), StoreError>;

    /// Writes a pending version, exactly one, also where an answer is lost. Answers its number.
    ///
    /// # Errors
    /// There is a pending version already ([`super::StoreErrorKind::Moved`]); the store does not take it, or fails.
    fn stage_pending(
        &mut self,
        item: &StagedItem,
        value: &Secret,
        author: &Author,
        deadline: Instant,
    ) -> Result<u64, StoreError>;

    /// The pending version `number` becomes current, the current one previous; at no instant is there none that is current.
    /// Answers the number of the current version, which is another one only where the pending version lay apart.
    ///
    /// # Errors
    /// Another version is pending, or none ([`super::StoreErrorKind::Moved`]); the store fails.
    fn promote(
        &mut self,
        item: &StagedItem,
        number: u64,
        author: &Author,
        deadline: Instant,
    ) -> Result<u64, StoreError>;

    /// The pending version `number` is no version any more.
    ///
    /// # Errors
    /// Another version is pending; the store fails.
    fn discard_pending(&mut self, item: &StagedItem, number: u64, deadline: Instant) -> Result<(), StoreError>;

    /// The previous version `number` is no version any more.
    ///
    /// # Errors
    /// Another version is previous; the store fails.
    fn drop_previous(&mut self, item: &StagedItem, number: u64, deadline: Instant) -> Result<(), StoreError>;

    /// The previous version `number` becomes current again, the current one previous. Answers the number of the current
    /// version, which is another one only where readers know no stages.
    ///
    /// # Errors
    /// Another version is previous, or one is pending; the store fails.
    fn roll_back(
        &mut self,
        item: &StagedItem,
        number: u64,
        author: &Author,
        deadline: Instant,
    ) -> Result<u64, StoreError>;
}
