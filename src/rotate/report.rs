//! What a rotation says while it goes: to the audit, before and after each step; to a person, one line for each secret; to
//! a machine, one JSON object for each step. Never a value.

use std::cell::RefCell;

use schemars::JsonSchema;
use serde::Serialize;

use super::drive::Journal;
use super::step::{Answer, At, Intent, Step};
use super::stuck::{Interrupted, Unrecorded};
use crate::agent::ask;
use crate::audit::{Auditor, Event, Outcome, SecretNote};
use crate::error::{Class, Error};
use crate::name::{escape, show};
use crate::output;
use crate::policy::model::{Apply, Generate, Roles, Rotation, Stage};
use crate::setting::Setting;
use crate::sys;

/// What `vouchsafe rotate --json` prints, one object for each step.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Progress {
    /// The variable.
    name: String,
    /// The store.
    store: String,
    /// The item.
    item: String,
    /// `adopt`, `create`, `apply`, `verify`, `promote`, `retire`, `discard`, `abandon` or `roll-back`.
    step: &'static str,
    /// `planned` in a dry run; else `succeeded`, `failed`, or `unknown` where nobody can say.
    outcome: &'static str,
    /// The version that the step is about.
    version: Option<u64>,
    /// Why it failed.
    reason: Option<String>,
    /// The public half of a key pair that was made.
    public: Option<String>,
}

/// Writes down and says what becomes of one item.
pub(super) struct Scribe<'a, 'e> {
    pub(super) auditor: &'a mut Auditor,
    pub(super) setting: &'a Setting<'e>,
    /// The rotated item.
    pub(super) note: SecretNote,
    pub(super) intent: Intent,
    pub(super) json: bool,
    /// The public half of the key pair that was made last.
    pub(super) public: &'a RefCell<Option<String>>,
    /// Whether a version is pending, or was promoted: what `--resume` would go on with.
    pub(super) is_begun: bool,
    /// Whether a failure is written down.
    pub(super) is_recorded: bool,
    /// The signal that ends the run.
    pub(super) signal: Option<i32>,
    /// Whether its line has begun.
    pub(super) has_said: bool,
    /// Why the agent of this host may still serve what was current.
    stale: Option<String>,
}

impl<'a, 'e> Scribe<'a, 'e> {
    pub(super) fn new(
        auditor: &'a mut Auditor,
        setting: &'a Setting<'e>,
        note: SecretNote,
        (intent, json): (Intent, bool),
        public: &'a RefCell<Option<String>>,
    ) -> Self {
        Self {
            auditor,
            setting,
            note,
            intent,
            json,
            public,
            is_begun: false,
            is_recorded: false,
            signal: None,
            has_said: false,
            stale: None,
        }
    }

    /// Writes a failure down, unless a step did. What cannot be written down is the failure then.
    pub(super) fn fail(&mut self, error: Error) -> Error {
        if self.is_recorded || error.class() == Class::Audit {
            return error;
        }
        let outcome = if error.is_unsettled() { Outcome::Unknown } else { Outcome::Failed };
        self.auditor.note_request_ids(self.setting.aws.take_request_ids());
        let note = self.note_at(None);
        match self.auditor.record(Event::RotationFailed, outcome, Some(&error.to_string()), &[note]) {
            Ok(()) => error,
            Err(unwritten) => unwritten.into(),
        }
    }

    /// Ends the line of this secret.
    pub(super) fn end(&mut self, is_done: bool) {
        if is_done && !self.has_said {
            self.say("nothing to do");
        }
        if self.has_said && !self.json {
            print("\n");
        }
        if let Some(stale) = self.stale.take() {
            output::complain(&format!("vouchsafe: warning: {stale}\n")).unwrap_or_default();
        }
    }

    /// What was current is not any more, or may not be, where the answer was lost.
    fn spare_readers(&mut self, step: Step) {
        if matches!(step, Step::Promote(_) | Step::RollBack(_)) {
            self.stale = ask::forget(self.setting);
        }
    }

    fn say(&mut self, words: &str) {
        let before = if self.has_said { ", ".to_owned() } else { format!("{}: ", self.note.name) };
        self.has_said = true;
        if !self.json {
            print(&format!("{before}{words}"));
        }
    }

    fn note_at(&self, at: Option<At>) -> SecretNote {
        SecretNote { version: at.map(|at| at.number), stage: at.map(|at| at.stage.word()), ..self.note.clone() }
    }
}

impl Progress {
    fn new(note: &SecretNote, step: Step, outcome: &'static str, at: Option<At>) -> Self {
        Self {
            name: note.name.clone(),
            store: note.store.clone(),
            item: escape(&note.item),
            step: step.word(),
            outcome,
            version: at.map(|at| at.number),
            reason: None,
            public: None,
        }
    }

    /// A step of a dry run.
    pub(super) fn planned(note: &SecretNote, step: Step) -> Self {
        Self::new(note, step, "planned", step.version())
    }
}

/// What is printed goes along; a rotation does not stop halfway because nobody reads.
fn print(text: &str) {
    output::print(text).unwrap_or_default();
}

fn event_of(step: Step) -> Event {
    match step {
        Step::Adopt => Event::RotationAdopted,
        Step::Create => Event::RotationCreated,
        Step::Apply(_) => Event::RotationApplied,
        Step::Verify(_) | Step::Probe(_) => Event::RotationVerified,
        Step::Promote(_) => Event::RotationPromoted,
        Step::Retire(_) => Event::RotationRetired,
        Step::Discard(_) | Step::Abandon(_) => Event::RotationDiscarded,
        Step::RollBack(_) => Event::RotationRolledBack,
    }
}

/// What a record says of a step besides its name.
fn remark_on(step: Step) -> Option<&'static str> {
    matches!(step, Step::Abandon(_)).then_some("abandoned: the target was not told, and may accept it")
}

/// The version after the step: what was created, or is current now.
fn result_of(step: Step, answer: Answer) -> Option<At> {
    match (step, answer) {
        (Step::Create, Answer::Number(number)) => Some(At { stage: Stage::Pending, number }),
        (Step::Promote(_) | Step::RollBack(_), Answer::Number(number)) => Some(At { stage: Stage::Current, number }),
        _ => step.version(),
    }
}

fn words_for(step: Step, answer: Answer, at: Option<At>) -> String {
    let number = at.map(|at| at.number).unwrap_or_default();
    match step {
        Step::Adopt => "adopted".into(),
        Step::Create => format!("version {number} created"),
        Step::Apply(At { stage: Stage::Pending, .. }) => "applied".into(),
        Step::Apply(_) => format!("version {number} applied again"),
        Step::Verify(At { stage: Stage::Pending, .. }) => "verified".into(),
        Step::Probe(_) if answer == Answer::Works(false) => format!("version {number} does not work"),
        Step::Verify(_) | Step::Probe(_) => format!("version {number} verified"),
        Step::Promote(_) => format!("version {number} is current"),
        Step::Retire(_) => format!("version {number} retired"),
        Step::Discard(_) => format!("version {number} discarded"),
        Step::Abandon(_) => format!("version {number} abandoned: the target was not told, and may accept it"),
        Step::RollBack(_) => format!("version {number} is current again"),
    }
}

impl Journal for Scribe<'_, '_> {
    fn before(&mut self, step: Step) -> Result<(), Error> {
        if let Some(signal) = sys::noted_signal() {
            self.signal = Some(signal);
            let error: Error = Interrupted { signal }.into();
            self.failed(step, &error)?;
            return Err(error);
        }
        if let (
            Step::Apply(At { stage: Stage::Pending, number }) | Step::Promote(number),
            Intent::Rotate | Intent::Finish,
        ) = (step, self.intent)
            && !self.has_said
            && !self.is_begun
        {
            self.is_begun = true;
            self.say(&format!("goes on with version {number}"));
        }
        let note = self.note_at(step.version());
        Ok(self.auditor.record(event_of(step), Outcome::Allowed, remark_on(step), &[note])?)
    }

    fn after(&mut self, step: Step, answer: Answer) -> Result<(), Error> {
        let at = result_of(step, answer);
        self.is_begun |= matches!(step, Step::Create | Step::Promote(_));
        let outcome = if answer == Answer::Works(false) { Outcome::Failed } else { Outcome::Succeeded };
        self.auditor.note_request_ids(self.setting.aws.take_request_ids());
        let written = self.auditor.record(event_of(step), outcome, remark_on(step), &[self.note_at(at)]);
        self.spare_readers(step);
        self.say(&words_for(step, answer, at));
        let public = self.public.borrow_mut().take();
        if self.json {
            let progress = Progress { public, ..Progress::new(&self.note, step, outcome.word(), at) };
            output::print_json(&progress).unwrap_or_default();
        } else if let Some(public) = public {
            self.say(&format!("public key {}", escape(&public)));
        }
        written.map_err(|error| {
            self.is_recorded = true;
            Unrecorded { step: step.word(), error }.into()
        })
    }

    fn failed(&mut self, step: Step, error: &Error) -> Result<(), Error> {
        self.spare_readers(step);
        self.is_recorded = true;
        let outcome = if error.is_unsettled() { Outcome::Unknown } else { Outcome::Failed };
        let reason = format!("{}: {error}", step.word());
        self.auditor.note_request_ids(self.setting.aws.take_request_ids());
        let note = self.note_at(step.version());
        let written = self.auditor.record(Event::RotationFailed, outcome, Some(&reason), &[note]);
        self.say(&match self.signal {
            Some(_) => format!("ended before {}", step.word()),
            None => format!("{} failed", step.word()),
        });
        if self.json {
            let progress = Progress::new(&self.note, step, outcome.word(), step.version());
            output::print_json(&Progress { reason: Some(error.to_string()), ..progress }).unwrap_or_default();
        }
        Ok(written?)
    }
}

/// Why values are read, for the record.
pub(super) fn describe(intent: Intent) -> String {
    match intent {
        Intent::Rotate => "rotate".into(),
        Intent::Finish => "resume".into(),
        Intent::RollBack => "roll back".into(),
        Intent::Abandon => "abandon what is pending".into(),
        Intent::Only(step) => format!("{} only", step.word()),
    }
}

/// What else gets the values of bindings.
pub(super) fn origin(rotation: &Rotation) -> String {
    match &rotation.generate {
        Generate::Command(program) => format!("; made by program `{}`", show(&program.path)),
        _ => String::new(),
    }
}

/// Where values go.
pub(super) fn destination(rotation: &Rotation) -> String {
    match &rotation.apply {
        Apply::None => "no target".into(),
        Apply::Command(program) => format!("program `{}`", show(&program.path)),
        Apply::Postgres(postgres) => match &postgres.roles {
            Roles::Alternating(one, other) => format!("PostgreSQL roles `{}`, `{}`", escape(one), escape(other)),
            Roles::Single(role) => format!("PostgreSQL role `{}`", escape(role)),
        },
    }
}
