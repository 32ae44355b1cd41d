//! What comes next: the transitions of a rotation. Pure.
//!
//! The state is what the store says ([`Staged`]) and what this very run has already done to it ([`Progress`]), which is never
//! kept: a run that finds a pending version of somebody else's applies and verifies it again, which the target bears by
//! contract. So there is nothing to lose with the process.

use std::time::{Duration, SystemTime};

use super::stuck::Stuck;
use crate::policy::model::Stage;
use crate::store::VersionNote;
use crate::store::stages::Staged;

/// What a run wants of one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// A new current version; one that is pending already is the one.
    Rotate,
    /// What was begun is finished, and nothing else is begun.
    Finish,
    /// Back to the version before.
    RollBack,
    /// The pending version is given up without the target, which does not take it.
    Abandon,
    /// One step.
    Only(StepName),
}

/// A step, as the command line names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepName {
    /// A pending version.
    Create,
    /// The target accepts it.
    Apply,
    /// It works.
    Verify,
    /// It becomes current.
    Promote,
    /// The target forgets the previous one.
    Retire,
}

impl StepName {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Apply => "apply",
            Self::Verify => "verify",
            Self::Promote => "promote",
            Self::Retire => "retire",
        }
    }
}

/// A version at a stage, so that a step means exactly that one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// The stage.
    pub stage: Stage,
    /// The number.
    pub number: u64,
}

/// One step: one effect on the store, or one on the target. Each may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// store: the version that is there is marked as current.
    Adopt,
    /// store: a pending version.
    Create,
    /// target: it accepts this version.
    Apply(At),
    /// target: this version works.
    Verify(At),
    /// target: does this version work? A no is an answer.
    Probe(At),
    /// store: this pending version becomes current.
    Promote(u64),
    /// target and store: this previous version is gone.
    Retire(u64),
    /// target and store: this pending version is gone.
    Discard(u64),
    /// store: this pending version is gone. The target is not told.
    Abandon(u64),
    /// store: this previous version becomes current again.
    RollBack(u64),
}

impl Step {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Adopt => "adopt",
            Self::Create => "create",
            Self::Apply(_) => "apply",
            Self::Verify(_) | Self::Probe(_) => "verify",
            Self::Promote(_) => "promote",
            Self::Retire(_) => "retire",
            Self::Discard(_) => "discard",
            Self::Abandon(_) => "abandon",
            Self::RollBack(_) => "roll-back",
        }
    }

    /// The version that it is about, where there is one already.
    #[must_use]
    pub fn version(self) -> Option<At> {
        match self {
            Self::Adopt | Self::Create => None,
            Self::Apply(at) | Self::Verify(at) | Self::Probe(at) => Some(at),
            Self::Promote(number) | Self::Discard(number) | Self::Abandon(number) => {
                Some(At { stage: Stage::Pending, number })
            }
            Self::Retire(number) | Self::RollBack(number) => Some(At { stage: Stage::Previous, number }),
        }
    }
}

/// What a step that went well answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Nothing but that.
    Done,
    /// The number of the version that there is now.
    Number(u64),
    /// Whether it works.
    Works(bool),
}

/// What this run has done, as far as the store does not show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nothing.
    Nothing,
    /// Created this version.
    Created(u64),
    /// This version does not work, which was to be expected.
    Refused(u64),
    /// The target accepts this version.
    Applied(u64),
    /// This version works.
    Verified(u64),
    /// Retired what was previous, before anything else.
    Retired,
    /// What this run came for: promoted, discarded, rolled back.
    Settled,
}

/// Where one item stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Which version is which.
    pub staged: Staged,
    /// What this run did.
    pub progress: Progress,
}

/// What of the policy decides which step is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Something has to accept the value. Without it nothing is applied, verified or told.
    pub has_target: bool,
    /// How long after the promotion the target forgets the previous version; `None`: not before the next one is created.
    pub retire_after: Option<Duration>,
}

impl Rules {
    fn retires_now(self, current: &VersionNote, now: SystemTime) -> bool {
        self.retire_after.is_some_and(|after| {
            let age = current.time.and_then(|time| now.duration_since(time).ok());
            after.is_zero() || age.is_some_and(|age| age >= after)
        })
    }
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// This step.
    Do(Step),
    /// Nothing more.
    Done,
}

impl State {
    /// As the store shows it.
    #[must_use]
    pub fn new(staged: Staged) -> Self {
        Self { staged, progress: Progress::Nothing }
    }

    /// The next step.
    ///
    /// # Errors
    /// There is no way from here to what is wanted.
    pub fn next(&self, intent: Intent, rules: Rules, now: SystemTime) -> Result<Next, Stuck> {
        match (intent, self.pending()) {
            (Intent::RollBack, pending) => self.back(pending, rules),
            (Intent::Abandon, pending) => self.abandon(pending, rules),
            (Intent::Only(step), pending) => self.only(step, pending, rules),
            (Intent::Rotate | Intent::Finish, Some(pending)) => Ok(self.forward(pending, rules)),
            (Intent::Rotate, None) if matches!(self.progress, Progress::Nothing | Progress::Retired) => {
                self.begin(rules)
            }
            (Intent::Rotate | Intent::Finish, None) => Ok(match (&self.staged.current, self.retirable()) {
                (Some(current), Some(previous)) if rules.retires_now(current, now) => Next::Do(Step::Retire(previous)),
                _ => Next::Done,
            }),
        }
    }

    fn begin(&self, rules: Rules) -> Result<Next, Stuck> {
        if self.staged.current.is_none() {
            return Err(Stuck::Absent);
        }
        let is_told = rules.has_target && self.progress != Progress::Retired;
        let room = self.staged.previous.as_ref().filter(|_| is_told).map(|previous| previous.number);
        Ok(Next::Do(match room {
            _ if self.staged.is_unmarked => Step::Adopt,
            // The next promotion takes its place, and afterwards nobody could name it to the target any more.
            Some(previous) => Step::Retire(previous),
            None => Step::Create,
        }))
    }

    fn forward(&self, pending: u64, rules: Rules) -> Next {
        let at = At { stage: Stage::Pending, number: pending };
        Next::Do(match self.progress {
            _ if !rules.has_target => Step::Promote(pending),
            Progress::Verified(number) if number == pending => Step::Promote(pending),
            Progress::Applied(number) if number == pending => Step::Verify(at),
            _ => Step::Apply(at),
        })
    }

    fn back(&self, pending: Option<u64>, rules: Rules) -> Result<Next, Stuck> {
        if self.progress == Progress::Settled {
            return Ok(Next::Done);
        }
        let number = |note: &Option<VersionNote>| note.as_ref().map(|note| note.number);
        let (goal, last) = match (pending, number(&self.staged.current), number(&self.staged.previous)) {
            (Some(_), None, _) => return Err(Stuck::FirstVersion),
            (Some(pending), Some(current), _) => {
                (At { stage: Stage::Current, number: current }, Step::Discard(pending))
            }
            // It was done already: a second time would be forward again.
            (None, Some(_), _) if self.staged.is_rolled_back => return Ok(Next::Done),
            (None, Some(current), Some(previous)) if previous > current => return Ok(Next::Done),
            (None, _, Some(previous)) => (At { stage: Stage::Previous, number: previous }, Step::RollBack(previous)),
            (None, _, None) => return Err(Stuck::NoPrevious),
        };
        Ok(Next::Do(match self.progress {
            _ if !rules.has_target => last,
            Progress::Verified(number) if number == goal.number => last,
            Progress::Applied(number) if number == goal.number => Step::Verify(goal),
            Progress::Refused(number) if number == goal.number => Step::Apply(goal),
            _ => Step::Probe(goal),
        }))
    }

    /// Whether the target takes the pending version cannot be known where it takes nothing, so this is for a person to decide;
    /// but what works is not given up.
    fn abandon(&self, pending: Option<u64>, rules: Rules) -> Result<Next, Stuck> {
        let Some(number) = pending else { return Ok(Next::Done) };
        if self.staged.current.is_none() {
            return Err(Stuck::FirstVersion);
        }
        match self.progress {
            _ if !rules.has_target => Ok(Next::Do(Step::Discard(number))),
            Progress::Refused(refused) if refused == number => Ok(Next::Do(Step::Abandon(number))),
            Progress::Verified(verified) if verified == number => Err(Stuck::PendingWorks),
            _ => Ok(Next::Do(Step::Probe(At { stage: Stage::Pending, number }))),
        }
    }

    fn only(&self, wanted: StepName, pending: Option<u64>, rules: Rules) -> Result<Next, Stuck> {
        let not_next = |next| Err(Stuck::NotNext { wanted, next });
        let done = match wanted {
            StepName::Create => matches!(self.progress, Progress::Created(_)),
            StepName::Apply => matches!(self.progress, Progress::Applied(_)),
            StepName::Verify => matches!(self.progress, Progress::Verified(_)),
            StepName::Promote => self.progress == Progress::Settled,
            StepName::Retire => self.progress == Progress::Retired,
        };
        if done {
            return Ok(Next::Done);
        }
        let at = |number| At { stage: Stage::Pending, number };
        match (wanted, pending) {
            (StepName::Create, None) => self.begin(rules),
            (StepName::Apply | StepName::Verify, Some(_)) if !rules.has_target => Ok(Next::Done),
            (StepName::Apply, Some(pending)) => Ok(Next::Do(Step::Apply(at(pending)))),
            (StepName::Verify, Some(pending)) => Ok(Next::Do(Step::Verify(at(pending)))),
            // What is not proven is not promoted, whoever asks.
            (StepName::Promote, Some(pending)) => Ok(Next::Do(match self.progress {
                _ if !rules.has_target => Step::Promote(pending),
                Progress::Verified(number) if number == pending => Step::Promote(pending),
                _ => Step::Verify(at(pending)),
            })),
            (StepName::Retire, None) => {
                let previous = self.staged.previous.as_ref().ok_or(Stuck::NoPrevious)?;
                Ok(Next::Do(Step::Retire(previous.number)))
            }
            (StepName::Create | StepName::Retire, Some(_)) if rules.has_target => not_next(StepName::Apply),
            (StepName::Create | StepName::Retire, Some(_)) => not_next(StepName::Promote),
            (StepName::Apply | StepName::Verify | StepName::Promote, None) => not_next(StepName::Create),
        }
    }

    /// The state after a step that went well.
    #[must_use]
    pub fn after(mut self, step: Step, answer: Answer, now: SystemTime) -> Self {
        let note = |number, stage| VersionNote { number, stage: Some(stage), time: Some(now), author: None };
        let given = |number| if let Answer::Number(given) = answer { given } else { number };
        match step {
            Step::Adopt => self.staged.is_unmarked = false,
            Step::Create => {
                let number = given(0);
                self.staged.pending = Some(note(number, Stage::Pending));
                self.progress = Progress::Created(number);
            }
            Step::Apply(at) => self.progress = Progress::Applied(at.number),
            Step::Verify(at) => self.progress = Progress::Verified(at.number),
            Step::Probe(at) if answer == Answer::Works(false) => self.progress = Progress::Refused(at.number),
            Step::Probe(at) => self.progress = Progress::Verified(at.number),
            Step::Promote(number) => {
                self.staged.pending = None;
                self.make_current(note(given(number), Stage::Current));
            }
            Step::RollBack(number) => {
                let time = self.staged.previous.take().and_then(|note| note.time);
                self.make_current(VersionNote { time, ..note(given(number), Stage::Current) });
            }
            Step::Discard(_) | Step::Abandon(_) => {
                self.staged.pending = None;
                self.progress = Progress::Settled;
            }
            Step::Retire(number) => {
                if self.retirable() == Some(number) {
                    self.staged.previous = None;
                }
                if self.progress != Progress::Settled {
                    self.progress = Progress::Retired;
                }
            }
        }
        self
    }

    /// Every step from here, if each goes well.
    ///
    /// # Errors
    /// There is no way from here to what is wanted.
    pub fn plan(&self, intent: Intent, rules: Rules, now: SystemTime) -> Result<Vec<Step>, Stuck> {
        let (mut state, mut steps) = (self.clone(), Vec::new());
        while let Next::Do(step) = state.next(intent, rules, now)? {
            steps.push(step);
            let answer = match step {
                Step::Create => Answer::Number(state.highest() + 1),
                Step::Probe(_) => Answer::Works(intent != Intent::Abandon),
                _ => Answer::Done,
            };
            state = state.after(step, answer, now);
        }
        Ok(steps)
    }

    fn pending(&self) -> Option<u64> {
        self.staged.pending.as_ref().map(|note| note.number)
    }

    /// The previous version, if it is older than the current one. One that was rolled back stays in the store until the next
    /// promotion takes its place: without it, its number would be given a second time.
    pub(super) fn retirable(&self) -> Option<u64> {
        let (current, previous) = (self.staged.current.as_ref()?, self.staged.previous.as_ref()?);
        (previous.number < current.number).then_some(previous.number)
    }

    fn make_current(&mut self, note: VersionNote) {
        let displaced = self.staged.current.replace(note);
        self.staged.previous = displaced.map(|note| VersionNote { stage: Some(Stage::Previous), ..note });
        self.progress = Progress::Settled;
    }

    fn highest(&self) -> u64 {
        let notes = [&self.staged.current, &self.staged.pending, &self.staged.previous];
        notes.into_iter().flatten().map(|note| note.number).max().unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "step_tests.rs"]
mod tests;
