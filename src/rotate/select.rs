//! Which items a command line means, and what is wanted of each. Pure.

use std::time::SystemTime;

use super::step::{Intent, Rules, State};
use super::stuck::NoRotation;
use crate::cli::{self, UsageError};
use crate::error::Error;
use crate::inspect::{NotBound, age_limit};
use crate::name::{VariableName, escape};
use crate::policy::model::{Apply, Binding, ItemRef, Policy, Rotation, Source};
use crate::policy::pattern::Pattern;
use crate::resolve::is_expired;
use crate::store::stages::StagedItem;

/// A binding that is rotated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<'p> {
    pub(super) name: &'p VariableName,
    pub(super) binding: &'p Binding,
    pub(super) item: &'p ItemRef,
    pub(super) rotation: &'p Rotation,
}

impl Candidate<'_> {
    pub(super) fn rules(&self) -> Rules {
        Rules { has_target: !matches!(self.rotation.apply, Apply::None), retire_after: self.rotation.retire_after }
    }

    pub(super) fn staged_item(&self) -> StagedItem {
        StagedItem { item: self.item.item.clone(), pending_separate: self.rotation.pending_separate }
    }
}

/// What the command line wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// This of everything that is named.
    Each(Intent),
    /// What is due is rotated, what was begun is finished.
    Due,
    /// What was begun is finished.
    Resume,
}

impl Wish {
    /// What is wanted of this item, or nothing.
    pub(super) fn of(self, candidate: &Candidate<'_>, state: &State, now: SystemTime) -> Option<Intent> {
        let unfinished = || state.plan(Intent::Finish, candidate.rules(), now).is_ok_and(|steps| !steps.is_empty());
        match self {
            Self::Each(intent) => Some(intent),
            Self::Due if state.staged.pending.is_none() && is_due(candidate.binding, state, now) => {
                Some(Intent::Rotate)
            }
            Self::Due | Self::Resume => unfinished().then_some(Intent::Finish),
        }
    }
}

fn is_due(binding: &Binding, state: &State, now: SystemTime) -> bool {
    let written = state.staged.current.as_ref().and_then(|note| note.time);
    age_limit(binding).zip(written).is_some_and(|((limit, _), written)| is_expired(written, limit, now))
}

/// What the command line wants, if it says so in one way.
pub(super) fn wish(options: &cli::Rotate) -> Result<Wish, Error> {
    let needs_name = options.rollback || options.abandon || options.only_step.is_some();
    let is_said = options.due || options.all || options.resume;
    if options.names.is_empty() && (needs_name || !is_said) {
        let hint = if options.rollback {
            "vouchsafe rotate --rollback NAME"
        } else if options.abandon {
            "vouchsafe rotate --abandon NAME"
        } else if needs_name {
            "vouchsafe rotate --only-step STEP NAME"
        } else {
            "vouchsafe rotate NAME; or --due, --all, --resume"
        };
        return Err(UsageError::new("it is not said what to rotate", Some(hint.into())).into());
    }
    Ok(match options.only_step {
        Some(step) => Wish::Each(Intent::Only(step.into())),
        None if options.rollback => Wish::Each(Intent::RollBack),
        None if options.abandon => Wish::Each(Intent::Abandon),
        None if options.due => Wish::Due,
        None if options.resume => Wish::Resume,
        None => Wish::Each(Intent::Rotate),
    })
}

/// The bindings that are named; all that rotate, where none is.
pub(super) fn candidates<'p>(policy: &'p Policy, names: &[Pattern]) -> Result<Vec<Candidate<'p>>, Error> {
    for pattern in names {
        check_name(policy, pattern)?;
    }
    let is_named = |name: &VariableName| names.is_empty() || names.iter().any(|pattern| pattern.matches(name.as_str()));
    Ok(rotating(policy).filter(|candidate| is_named(candidate.name)).collect())
}

fn rotating(policy: &Policy) -> impl Iterator<Item = Candidate<'_>> {
    policy.secrets.iter().filter_map(|(name, binding)| match (&binding.source, &binding.rotate) {
        (Source::Item(item), Some(rotation)) => Some(Candidate { name, binding, item, rotation }),
        _ => None,
    })
}

/// A name that rotates nothing was meant to.
fn check_name(policy: &Policy, pattern: &Pattern) -> Result<(), Error> {
    if rotating(policy).any(|candidate| pattern.matches(candidate.name.as_str())) {
        return Ok(());
    }
    if pattern.is_glob() {
        let message = format!("no secret with `rotate` matches `{}`", escape(pattern.as_str()));
        return Err(
            UsageError::new(message, Some("vouchsafe rotate --all --dry-run   # says what there is".into())).into()
        );
    }
    let Some((name, binding)) = policy.secrets.iter().find(|(name, _)| name.as_str() == pattern.as_str()) else {
        let known = rotating(policy).map(|candidate| candidate.name.as_str());
        let nearest = crate::error::suggest(pattern.as_str(), known).map(ToOwned::to_owned);
        let name = VariableName::new(pattern.as_str())
            .map_err(|_| UsageError::new("a name to rotate is the name of no secret (not shown)", None))?;
        return Err(NotBound { name, nearest }.into());
    };
    // Its item may be rotated through another of its bindings.
    let sibling = rotating(policy).find(|candidate| match &binding.source {
        Source::Item(item) => (&item.store, &item.item) == (&candidate.item.store, &candidate.item.item),
        _ => false,
    });
    Err(NoRotation { name: name.clone(), sibling: sibling.map(|candidate| candidate.name.clone()) }.into())
}
