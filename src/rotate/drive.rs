//! One item, step by step: ask what is next, write it down, do it, write down how it ended.
//!
//! Whatever stops a run between two lines of this file, the store says where to go on ([`super::step`]). Values are read
//! only where a step needs them, under the permit that says so, and are wiped with the run.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use super::step::{Answer, At, Intent, Next, Progress, Rules, State, Step};
use super::stuck::{Failure, Stuck};
use super::target::{Target, TargetError};
use super::value::View;
use crate::audit::RotationPermit;
use crate::error::Error;
use crate::name::{ItemName, StoreName};
use crate::policy::model::Stage;
use crate::secret::Secret;
use crate::store::stages::{Holder, StagedItem, Stages};
use crate::store::{Author, StoreError, StoreErrorKind};

/// Where each step is written down, and where a run is ended in between.
pub trait Journal {
    /// Before the step. If this fails, it is not taken.
    ///
    /// # Errors
    /// A sink did not take the record, or the run is to end here.
    fn before(&mut self, step: Step) -> Result<(), Error>;

    /// After a step that was done.
    ///
    /// # Errors
    /// A sink did not take the record: the step was done all the same.
    fn after(&mut self, step: Step, answer: Answer) -> Result<(), Error>;

    /// After a step that failed.
    ///
    /// # Errors
    /// A sink did not take the record.
    fn failed(&mut self, step: Step, error: &Error) -> Result<(), Error>;
}

/// An item and all that its rotation needs.
pub struct Rotating<'a> {
    /// Says that the rotation was written down.
    pub permit: &'a RotationPermit,
    /// The name of the store.
    pub store_name: &'a StoreName,
    /// The store. This process has the right to rotate its items.
    pub store: &'a mut dyn Stages,
    /// What takes the value.
    pub target: &'a mut dyn Target,
    /// The item.
    pub item: &'a StagedItem,
    /// What of the item's value the target works with.
    pub view: View<'a>,
    /// Makes a new value.
    pub fresh: &'a mut dyn FnMut() -> Result<Secret, Error>,
    /// What of the policy decides which step is next.
    pub rules: Rules,
    /// Who rotates, for whoever comes second.
    pub holder: &'a Holder,
    /// Who writes, for whoever looks at a version.
    pub author: &'a str,
    /// The time.
    pub now: &'a dyn Fn() -> SystemTime,
    /// Until when a call to the store or the target that begins now has to be done.
    pub deadline: &'a dyn Fn() -> Instant,
}

impl Rotating<'_> {
    /// Takes every step towards `intent` and answers where it led.
    ///
    /// # Errors
    /// The first step that failed, or that the journal kept from being taken; there is no way to `intent`.
    pub fn run(mut self, intent: Intent, journal: &mut dyn Journal) -> Result<State, Error> {
        self.check_cover()?;
        let mut values = Values::default();
        let mut state = State::new(self.store.staged(self.item, (self.deadline)())?);
        while let Next::Do(step) = self.next(&state, intent)? {
            journal.before(step)?;
            let done = self.take(step, &state, &mut values);
            match done {
                Ok(answer) => {
                    journal.after(step, answer)?;
                    values.forget_after(step);
                    state = state.after(step, answer, (self.now)());
                }
                Err(error) => {
                    journal.failed(step, &error)?;
                    return Err(error);
                }
            }
        }
        Ok(state)
    }

    fn next(&self, state: &State, intent: Intent) -> Result<Next, Error> {
        let next = state.next(intent, self.rules, (self.now)());
        next.map_err(|stuck| Failure::Stuck(stuck).into())
    }

    fn check_cover(&self) -> Result<(), Error> {
        if self.permit.covers(self.store_name, &self.item.item) { Ok(()) } else { Err(Failure::NotCovered.into()) }
    }

    fn take(&mut self, step: Step, state: &State, values: &mut Values) -> Result<Answer, Error> {
        // Extended for each step: whoever lost the right meanwhile must not go on beside the one who has it now.
        self.store.hold(self.holder, (self.deadline)())?;
        let author = Author { name: self.author.to_owned(), time: (self.now)() };
        match step {
            Step::Adopt => {
                self.store.adopt(self.item, (self.deadline)())?;
                Ok(Answer::Done)
            }
            Step::Create => {
                let value = self.compose(state, values)?;
                let number = self.store.stage_pending(self.item, &value, &author, (self.deadline)())?;
                values.0.insert(Stage::Pending, value);
                Ok(Answer::Number(number))
            }
            Step::Apply(at) => {
                // What works now: of a version that is put back, the one that took its place.
                let other = match at.stage {
                    Stage::Pending | Stage::Previous => state.staged.current.as_ref(),
                    Stage::Current => state.staged.pending.as_ref(),
                };
                let stage = if at.stage == Stage::Current { Stage::Pending } else { Stage::Current };
                let now = other.map(|note| At { stage, number: note.number });
                let now = now.map(|now| self.seen(now, values)).transpose()?;
                let wanted = self.seen(at, values)?;
                self.target().apply(now.as_ref(), &wanted).map_err(|error| match at.stage {
                    Stage::Pending => or(error, GIVE_UP),
                    Stage::Current => or(error, ABANDON),
                    Stage::Previous => error,
                })?;
                Ok(Answer::Done)
            }
            Step::Verify(at) => {
                let value = self.seen(at, values)?;
                self.target().verify(&value)?;
                Ok(Answer::Done)
            }
            Step::Probe(at) => {
                let value = self.seen(at, values)?;
                match self.target().verify(&value) {
                    Ok(()) => Ok(Answer::Works(true)),
                    // A version that is going to be lost has to be known not to be the one that is left.
                    Err(error) if at.stage == Stage::Pending && !error.is_refusal => Err(or(error, ASK_AGAIN).into()),
                    Err(_) => Ok(Answer::Works(false)),
                }
            }
            Step::Promote(number) => {
                Ok(Answer::Number(self.store.promote(self.item, number, &author, (self.deadline)())?))
            }
            Step::Retire(number) => {
                self.retire(number, state, values)?;
                Ok(Answer::Done)
            }
            Step::Discard(number) => {
                self.discard(number, state, values)?;
                Ok(Answer::Done)
            }
            Step::Abandon(number) => {
                self.store.discard_pending(self.item, number, (self.deadline)())?;
                Ok(Answer::Done)
            }
            Step::RollBack(number) => {
                Ok(Answer::Number(self.store.roll_back(self.item, number, &author, (self.deadline)())?))
            }
        }
    }

    /// The target, for one call: each has a time of its own, as each call to the store has.
    fn target(&mut self) -> &mut dyn Target {
        self.target.set_deadline((self.deadline)());
        &mut *self.target
    }

    /// The current value proves itself before anything is made or forgotten: the target takes nothing else as a proof.
    fn prove(&mut self, current: &Secret, way_out: &str) -> Result<(), Error> {
        let proven = self.target().verify(current).map_err(|error| {
            let problem = format!("the current value does not prove itself, so nothing was changed: {error}");
            or(TargetError { problem, ..error }, way_out)
        });
        Ok(proven?)
    }

    /// The whole value of a new version.
    fn compose(&mut self, state: &State, values: &mut Values) -> Result<Secret, Error> {
        if self.view == View::Whole && !self.rules.has_target {
            return (self.fresh)();
        }
        let seen = self.current(state, values)?;
        // A version that is pending and could not be applied would be in everybody's way.
        if self.rules.has_target && state.progress != Progress::Retired {
            self.prove(&seen, STORE)?;
        }
        let generated = (self.fresh)()?;
        let composed = self.target().compose(Some(&seen), generated)?;
        let view = self.view.clone();
        // Read by the line above.
        let whole = values.0.get(&Stage::Current).ok_or(Failure::Stuck(Stuck::Absent))?;
        Ok(view.put(whole, &composed)?)
    }

    /// The target forgets the previous version only while the current one is known to work.
    fn retire(&mut self, number: u64, state: &State, values: &mut Values) -> Result<(), Error> {
        if self.rules.has_target {
            let current = self.current(state, values)?;
            let previous = self.seen(At { stage: Stage::Previous, number }, values)?;
            self.prove(&current, GO_BACK)?;
            self.forget_at_target(&previous, &current)?;
        }
        if state.retirable() == Some(number) {
            self.store.drop_previous(self.item, number, (self.deadline)())?;
        }
        Ok(())
    }

    /// The target forgets the pending version first, whether or not it has ever accepted it: nobody could name it afterwards,
    /// and that it does not work now (a check, a lost connection) does not say that it never will.
    fn discard(&mut self, number: u64, state: &State, values: &mut Values) -> Result<(), Error> {
        if self.rules.has_target {
            let current = self.current(state, values)?;
            let pending = self.seen(At { stage: Stage::Pending, number }, values)?;
            self.forget_at_target(&pending, &current).map_err(|error| or(error, ABANDON))?;
        }
        Ok(self.store.discard_pending(self.item, number, (self.deadline)())?)
    }

    /// Two versions may hold the same credential (`set` of another field, a roll back that was cut off): that one is in use.
    fn forget_at_target(&mut self, given_up: &Secret, current: &Secret) -> Result<(), TargetError> {
        if given_up.same_as(current) { Ok(()) } else { self.target().retire(given_up, current) }
    }

    fn current(&mut self, state: &State, values: &mut Values) -> Result<Secret, Error> {
        let current = state.staged.current.as_ref().ok_or(Failure::Stuck(Stuck::Absent))?;
        self.seen(At { stage: Stage::Current, number: current.number }, values)
    }

    /// What the target sees of a version.
    fn seen(&mut self, at: At, values: &mut Values) -> Result<Secret, Error> {
        let view = self.view.clone();
        Ok(view.get(self.value(at, values)?)?)
    }

    /// The value of exactly this version: what lies at the stage may be another one by now.
    fn value<'v>(&mut self, at: At, values: &'v mut Values) -> Result<&'v Secret, Error> {
        if let std::collections::btree_map::Entry::Vacant(entry) = values.0.entry(at.stage) {
            let found = self.store.read(self.item, at.stage, (self.deadline)())?;
            let found = found.ok_or_else(|| moved(self.store_name, &self.item.item, None, at.stage))?;
            if found.version.is_some_and(|number| number != at.number) {
                return Err(moved(self.store_name, &self.item.item, found.version, at.stage).into());
            }
            entry.insert(found.value);
        }
        values.0.get(&at.stage).ok_or_else(|| Failure::NotCovered.into())
    }
}

const STORE: &str = "store the one that works with `vouchsafe set NAME`";
const GO_BACK: &str =
    "store the one that works with `vouchsafe set NAME`, or go back with `vouchsafe rotate --rollback NAME`";
const GIVE_UP: &str = "`vouchsafe rotate --rollback NAME` gives the pending version up";
const ASK_AGAIN: &str = "nothing is given up before the target has refused it: again, once it answers";
const ABANDON: &str = "where the target refuses both versions, `vouchsafe rotate --abandon NAME` gives the pending version up without the target";

/// The same with one more way out.
fn or(error: TargetError, way_out: &str) -> TargetError {
    // Whoever is at it now is waited for.
    if error.is_busy {
        return error;
    }
    let hint = error.hint.as_ref().map_or_else(|| way_out.to_owned(), |own| format!("{own}; {way_out}"));
    error.hinting(hint)
}

fn moved(store: &StoreName, item: &ItemName, number: Option<u64>, stage: Stage) -> StoreError {
    let found = match number {
        Some(number) => format!("version {number} is {}", stage.word()),
        None => format!("no version is {}", stage.word()),
    };
    StoreError { store: store.clone(), kind: StoreErrorKind::Moved { item: item.clone(), found } }
}

/// What was read of one item, by stage.
#[derive(Default)]
struct Values(BTreeMap<Stage, Secret>);

impl Values {
    /// A version that changes its stage takes its value along.
    fn forget_after(&mut self, step: Step) {
        match step {
            Step::Promote(_) => {
                let (pending, current) = (self.0.remove(&Stage::Pending), self.0.remove(&Stage::Current));
                self.0.remove(&Stage::Previous);
                self.0.extend(pending.map(|value| (Stage::Current, value)));
                self.0.extend(current.map(|value| (Stage::Previous, value)));
            }
            Step::Discard(_) | Step::Abandon(_) => drop(self.0.remove(&Stage::Pending)),
            Step::Retire(_) => drop(self.0.remove(&Stage::Previous)),
            Step::RollBack(_) => self.0.clear(),
            Step::Adopt | Step::Create | Step::Apply(_) | Step::Verify(_) | Step::Probe(_) => {}
        }
    }
}

#[cfg(test)]
#[path = "drive_tests.rs"]
mod tests;
