//! `pending = "separate"`: for readers that know no labels. Pure; `docs/spec/ssm-stages.md` is its contract.
//!
//! The newest version of a parameter is current, always. An unproven value lies in a parameter of its own beside it,
//! `<name>.pending`, whose newest version is pending until it is promoted or discarded. That parameter stays: AWS wants
//! 30 seconds between a removal and the next creation of a name (PutParameter, "Overwrite").

use super::labels::{self, Label, Move};
use super::mark::{Mark, Purpose};
use super::read::Past;

/// What both histories say together.
pub(super) struct Seen<'h> {
    pub(super) current: Option<&'h Past>,
    pub(super) previous: Option<&'h Past>,
    /// A version of the parameter apart.
    pub(super) pending: Option<&'h Past>,
    /// The newest version of the parameter apart is somebody else's.
    pub(super) foreign: Option<&'h Past>,
    /// Readers go by labels still: they do until [`Self::to_adopt`].
    pub(super) by_label: Option<labels::Seen<'h>>,
}

/// Looks at the history of a parameter and of the one apart from it.
pub(super) fn look<'h>(past: &'h [Past], apart: &'h [Past]) -> Seen<'h> {
    let current = newest(past);
    let previous = past.iter().find(|one| one.has(Label::Replaced));
    let previous = previous.filter(|one| current.is_none_or(|current| current.version != one.version));
    let last = newest(apart).filter(|one| !one.has(Label::Discarded));
    let pending = last.filter(|one| is_open(one, past));
    let foreign = last.filter(|one| !matches!(one.mark, Some(Mark { purpose: Purpose::Apart(_), .. })));
    let by_label = labels::is_staged(past).then(|| labels::look(past));
    Seen { current, previous, pending, foreign, by_label }
}

pub(super) fn newest(past: &[Past]) -> Option<&Past> {
    past.iter().max_by_key(|one| one.version)
}

/// Whether it still waits: it was not promoted, and the version that would say so is still kept. A parameter that was removed
/// and made anew counts from 1 again, so that nothing waits for it.
fn is_open(one: &Past, past: &[Past]) -> bool {
    let Some(Mark { purpose: Purpose::Apart(base), .. }) = one.mark else { return false };
    let oldest = past.iter().map(|one| one.version).min().unwrap_or(0);
    let newest = past.iter().map(|one| one.version).max().unwrap_or(0);
    let is_promoted = past.iter().any(|later| later.is_for(Purpose::Promoted(one.version)));
    !is_promoted && base <= newest && oldest <= base.saturating_add(1)
}

/// What is left to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// It was done; this version is current.
    Done(u64),
    /// First these moves on the parameter itself, then a new version of it with this mark.
    Write(Vec<Move>, Mark),
}

impl Seen<'_> {
    fn base(&self) -> u64 {
        self.current.map_or(0, |current| current.version)
    }

    /// What is there instead, for whoever meant another version.
    pub(super) fn found(&self) -> String {
        let current = format!("version {} is current", self.base());
        match (self.pending, self.previous) {
            (Some(pending), _) => format!("version {} is pending apart from it, {current}", pending.version),
            (None, Some(previous)) => format!("{current}, version {} is previous", previous.version),
            (None, None) => current,
        }
    }

    /// From labels to none. `current` goes last: until then readers go by it, afterwards by the newest version, which is the
    /// same. `None` if it is another one, or if a rotation by labels is not at its end.
    pub(super) fn to_adopt(&self) -> Option<Vec<Move>> {
        let Some(seen) = &self.by_label else { return Some(Vec::new()) };
        let current = seen.current.filter(|current| current.version == self.base())?;
        let previous = seen.previous.map(|previous| Move::Put(Label::Replaced, previous.version));
        let others = Label::STAGES.into_iter().filter(|label| *label != Label::Current);
        let others = others.filter_map(|label| {
            let on = seen.on(label)?;
            Some(Move::Take(vec![label], on.version))
        });
        let last = Move::Take(vec![Label::Current], current.version);
        Some(previous.into_iter().chain(others).chain([last]).collect())
    }

    /// The label first: a version that is newest is current, whatever it is labelled, so nothing changes before the one call
    /// that writes. Nothing is written over what came since the pending version was made. `None` if another one is pending.
    pub(super) fn to_promote(&self, number: u64) -> Option<Plan> {
        let base = self.base();
        if let Some(current) = self.current.filter(|one| one.is_for(Purpose::Promoted(number))) {
            return Some(Plan::Done(current.version));
        }
        let pending = self.pending.filter(|one| one.version == number)?;
        if !pending.is_for(Purpose::Apart(base)) {
            return None;
        }
        let label = self.current.filter(|one| !one.has(Label::Replaced));
        let label = label.map(|one| Move::Put(Label::Replaced, one.version));
        Some(Plan::Write(label.into_iter().collect(), Mark { after: base, purpose: Purpose::Promoted(number) }))
    }

    /// Moves on the parameter apart. `None` if another one is pending.
    pub(super) fn to_discard(&self, number: u64) -> Option<Vec<Move>> {
        match self.pending {
            Some(pending) if pending.version == number => Some(vec![Move::Put(Label::Discarded, number)]),
            Some(_) => None,
            None => Some(Vec::new()),
        }
    }

    /// `None` if another one is previous.
    pub(super) fn to_drop(&self, number: u64) -> Option<Vec<Move>> {
        match self.previous {
            Some(previous) if previous.version == number => Some(vec![Move::Take(vec![Label::Replaced], number)]),
            Some(_) => None,
            None => Some(Vec::new()),
        }
    }

    /// The version is written first, so that the one to go back to is known until it is there again; the label follows
    /// ([`Self::after_roll_back`]). `None` if another one is previous, or one is pending.
    pub(super) fn to_roll_back(&self, number: u64) -> Option<Plan> {
        if let Some(current) = self.current.filter(|one| one.is_for(Purpose::Again(number))) {
            return Some(Plan::Done(current.version));
        }
        let is_previous = self.previous.is_some_and(|one| one.version == number);
        let mark = Mark { after: self.base(), purpose: Purpose::Again(number) };
        (is_previous && self.pending.is_none()).then_some(Plan::Write(Vec::new(), mark))
    }

    /// Whether the current version was gone back to, and the roll back is at its end: what it came after is kept as previous.
    /// While the label is still on the version that was gone back to, there is something to finish.
    pub(super) fn is_rolled_back(&self) -> bool {
        let mark = self.current.and_then(|one| one.mark).filter(|mark| matches!(mark.purpose, Purpose::Again(_)));
        mark.zip(self.previous).is_some_and(|(mark, previous)| previous.version == mark.after)
    }

    /// What a roll back to `number` that was written leaves to do.
    pub(super) fn after_roll_back(&self, number: u64) -> Vec<Move> {
        let is_on_it = self.previous.is_some_and(|one| one.version == number);
        let written = self.current.and_then(|one| one.mark).filter(|_| is_on_it);
        written.map(|mark| Move::Put(Label::Replaced, mark.after)).into_iter().collect()
    }
}

#[cfg(test)]
#[path = "apart_tests.rs"]
mod tests;
