//! What rotation does with parameters. Each operation is one piece of [`super::work`].

use std::time::Instant;

use super::work::Work;
use super::{Fault, Parameters, hold, names};
use crate::name::ItemName;
use crate::policy::model::Stage;
use crate::secret::Secret;
use crate::store::stages::{Holder, Staged, StagedItem, Stages};
use crate::store::{Author, Fetched, StoreError, StoreErrorKind};

impl Stages for Parameters<'_> {
    fn hold(&mut self, holder: &Holder, deadline: Instant) -> Result<(), StoreError> {
        let (lock, held) = (names::lock_of(&self.store.prefix), self.right.clone());
        let token = match &self.token {
            Some(token) => token.clone(),
            None => self.run(deadline, async |_| Ok(hold::token()?))?,
        };
        // Kept although the call may fail: a claim that got through all the same is known as ours then.
        self.token = Some(token.clone());
        let taken = self.run(deadline, async |calls| hold::hold(calls, &lock, holder, &token, held.as_ref()).await);
        match taken {
            Ok(right) => self.right = Some(right),
            Err(error) => {
                if matches!(error.kind, StoreErrorKind::Held(_)) {
                    self.right = None;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn let_go(&mut self, deadline: Instant) -> Result<(), StoreError> {
        let Some(right) = self.right.take() else { return Ok(()) };
        let lock = names::lock_of(&self.store.prefix);
        self.run(deadline, async |calls| hold::let_go(calls, &lock, &right).await)
    }

    fn staged(&mut self, item: &StagedItem, deadline: Instant) -> Result<Staged, StoreError> {
        self.work(item, deadline, async |work| work.staged().await)
    }

    fn read(&mut self, item: &StagedItem, stage: Stage, deadline: Instant) -> Result<Option<Fetched>, StoreError> {
        self.work(item, deadline, async |work| work.read(stage).await)
    }

    fn adopt(&mut self, item: &StagedItem, deadline: Instant) -> Result<(), StoreError> {
        self.work(item, deadline, async |work| work.adopt().await)
    }

    fn stage_pending(
        &mut self,
        item: &StagedItem,
        value: &Secret,
        _author: &Author,
        deadline: Instant,
    ) -> Result<u64, StoreError> {
        self.work(item, deadline, async |work| match item.pending_separate {
            false => work.create(value).await,
            true => work.create_apart(value).await,
        })
    }

    fn promote(
        &mut self,
        item: &StagedItem,
        number: u64,
        _author: &Author,
        deadline: Instant,
    ) -> Result<u64, StoreError> {
        self.work(item, deadline, async |work| match item.pending_separate {
            false => work.promote(number).await,
            true => work.promote_apart(number).await,
        })
    }

    fn discard_pending(&mut self, item: &StagedItem, number: u64, deadline: Instant) -> Result<(), StoreError> {
        self.work(item, deadline, async |work| work.discard(number).await)
    }

    fn drop_previous(&mut self, item: &StagedItem, number: u64, deadline: Instant) -> Result<(), StoreError> {
        self.work(item, deadline, async |work| work.drop_previous(number).await)
    }

    fn roll_back(
        &mut self,
        item: &StagedItem,
        number: u64,
        _author: &Author,
        deadline: Instant,
    ) -> Result<u64, StoreError> {
        self.work(item, deadline, async |work| match item.pending_separate {
            false => work.roll_back(number).await,
            true => work.roll_back_apart(number).await,
        })
    }
}

impl Parameters<'_> {
    fn work<T>(
        &mut self,
        item: &StagedItem,
        deadline: Instant,
        work: impl AsyncFnOnce(&Work<'_, '_>) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let (right, key) = (self.right.clone(), self.store.key.as_deref());
        self.run(deadline, async |calls| {
            let apart = names::apart(item.item.as_str());
            calls.require_account().await?;
            work(&Work { calls, item, apart, key, right }).await
        })
    }
}

/// The parameter where an unproven version of an item lies, for readers that know no labels.
#[must_use]
pub fn apart_of(item: &ItemName) -> Option<ItemName> {
    ItemName::new(names::apart(item.as_str())).ok()
}
