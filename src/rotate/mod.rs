//! Rotation: a new value, accepted by its target and proven, before any consumer gets it.
//!
//! create (a pending version) -> apply (the target accepts it) -> verify (it works, and can do what it must) -> promote
//! (current <- pending, previous <- current) -> retire (the target forgets the previous one). Every step is safe to repeat,
//! and which one is next is derived from the store: there is no journal that could be lost.
//!
//! - [`rotate`]: the command; `select`: which items it means;
//! - [`step`]: what comes next, pure; [`drive`]: one item, step by step; [`value`]: one field of a value;
//! - `bind`: from the policy's words to target and generator; `means`: what a rotation needs besides the value;
//! - `report`: what it writes down and says; [`stuck`]: its errors;
//! - [`apply`]: targets: PostgreSQL, a program of the operator's;
//! - [`mod@generate`]: what makes a new value; [`target`]: what a rotated credential is for, and the steps there.

pub mod apply;
mod bind;
pub mod drive;
pub mod generate;
mod means;
mod report;
mod select;
pub mod step;
pub mod stuck;
pub mod target;
pub mod value;

use std::cell::RefCell;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Instant, SystemTime};

pub(crate) use means::names_of as means_of;
pub use report::Progress;

use self::drive::Rotating;
use self::means::Means;
use self::report::{Scribe, describe, destination, origin};
use self::select::{Candidate, Wish, candidates, wish};
use self::step::{Intent, State, Step};
use self::stuck::{Failure, Interrupted, Unfinished, listed};
use self::value::View;
use crate::audit::{Auditor, Event, Outcome, SecretNote};
use crate::error::{Class, Error};
use crate::inject::ParentEnv;
use crate::inspect::{describe_source, note_of};
use crate::name::{StoreName, VariableName};
use crate::setting::Setting;
use crate::store::StoreErrorKind;
use crate::store::stages::{Holder, Stages};
use crate::{caller, change, cli, output, sys};

/// `vouchsafe rotate`. A secret that fails does not keep the others from being rotated.
///
/// # Errors
/// The first failure, with all that is left to do.
pub fn rotate(options: &cli::Rotate, parent: &ParentEnv) -> Result<(), Error> {
    // Of what changes nothing, nothing has to be ended between two steps.
    if options.dry_run {
        sys::end_on_signals()
    } else {
        sys::note_signals()
    }
    let wish = wish(options)?;
    let setting = Setting::load(&options.selection, parent)?.signing(&options.signing, parent);
    let candidates = candidates(&setting.policy, &options.names)?;
    let caller = caller::of_this_process(false);
    let mut auditor = setting.open_auditor(&caller, None)?;
    let notes: Vec<SecretNote> = candidates.iter().map(|one| note_of(one.name, one.item)).collect();
    auditor.record(Event::SecretListed, Outcome::Allowed, Some("rotate"), &notes)?;
    let author = change::author(&caller);
    let owner = format!("{author}, process {}", std::process::id());
    let mut run = Run {
        setting: &setting,
        options,
        wish,
        auditor,
        author,
        holder: Holder { owner, since: SystemTime::now() },
        stores: BTreeMap::new(),
        refused: BTreeSet::new(),
        means: Means::default(),
        failures: Vec::new(),
        left: Vec::new(),
        is_stopped: false,
        signal: None,
        has_said: false,
    };
    if options.dry_run {
        run.show_plan(&candidates)?;
    } else {
        run.rotate_all(&candidates);
    }
    run.end()
}

/// One run of the command.
struct Run<'s, 'e> {
    setting: &'s Setting<'e>,
    options: &'s cli::Rotate,
    wish: Wish,
    auditor: Auditor,
    author: String,
    holder: Holder,
    /// Each store that was opened, with the right to rotate it until it is given back.
    stores: BTreeMap<&'s StoreName, Box<dyn Stages + 's>>,
    /// Stores that somebody else rotates, or that let a whole deadline pass: asked once.
    refused: BTreeSet<&'s StoreName>,
    means: Means,
    failures: Vec<(&'s VariableName, Error)>,
    left: Vec<Left<'s>>,
    /// Nothing more is begun: a signal came, or the log takes no more.
    is_stopped: bool,
    signal: Option<i32>,
    has_said: bool,
}

/// A secret that is left to do.
struct Left<'s> {
    name: &'s VariableName,
    /// Whether `--resume` goes on with it; else it has not begun.
    is_begun: bool,
}

impl<'s> Run<'s, '_> {
    fn rotate_all(&mut self, candidates: &[Candidate<'s>]) {
        for candidate in candidates {
            self.heed_signal();
            if self.is_stopped || self.refused.contains(&candidate.item.store) {
                self.left.push(Left { name: candidate.name, is_begun: false });
                continue;
            }
            let start = Instant::now();
            let looked = match self.wish {
                Wish::Each(intent) => Ok(Some(intent)),
                Wish::Due | Wish::Resume => self.look(candidate).map(|(_, intent)| intent),
            };
            let done = match looked {
                Ok(Some(intent)) => self.rotate_one(candidate, intent),
                Ok(None) => Ok(()),
                Err(error) => Err((error, false)),
            };
            if let Err((error, is_begun)) = done {
                self.note_silence(candidate, &error, start);
                self.note_failure(candidate.name, error, is_begun);
            }
        }
        if !self.left.is_empty() {
            self.heed_signal();
        }
        for store in self.stores.values_mut() {
            // What is not given back ends by itself.
            store.let_go(self.setting.deadline()).ok();
        }
    }

    /// Nothing more is begun once a signal came, whatever the run was at.
    fn heed_signal(&mut self) {
        if let Some(signal) = sys::noted_signal() {
            self.signal = Some(signal);
            self.is_stopped = true;
        }
    }

    /// A store that let a whole deadline pass is not asked again.
    fn note_silence(&mut self, candidate: &Candidate<'s>, error: &Error, start: Instant) {
        if error.class() == Class::Store && start.elapsed() >= self.setting.policy.run.deadline {
            self.refused.insert(&candidate.item.store);
        }
    }

    /// Two stores of a policy may be one place; this process must not be kept waiting by itself.
    fn let_go_of_the_same(&mut self, store: &StoreName) {
        let place = bind::right_of(&self.setting.policy, store);
        for (_, other) in self
            .stores
            .iter_mut()
            .filter(|(name, _)| **name != store && bind::right_of(&self.setting.policy, name) == place)
        {
            // If it is not given back, whoever wants it says so.
            other.let_go(self.setting.deadline()).ok();
        }
    }

    /// One secret. A failure says whether `--resume` would go on with it.
    fn rotate_one(&mut self, candidate: &Candidate<'s>, intent: Intent) -> Result<(), (Error, bool)> {
        let Candidate { name, item, rotation, .. } = *candidate;
        let (setting, policy) = (self.setting, &self.setting.policy);
        let names = means::names_of(policy, rotation);
        let reason = format!("{}; {}{}", describe(intent), destination(rotation), origin(rotation));
        let note = note_of(name, item);
        let permit = self.auditor.begin_rotation(&reason, &note, &means::notes(policy, &names));
        let permit = permit.map_err(|error| (error.into(), false))?;
        self.let_go_of_the_same(&item.store);
        let public = RefCell::new(None);
        let mut scribe = Scribe::new(&mut self.auditor, setting, note, (intent, self.options.json), &public);
        let (means, holder, author) = (&mut self.means, &self.holder, &self.author);
        // The store is; a target that somebody else is at keeps no other secret from being rotated.
        let mut is_held = false;
        let outcome = opened(&mut self.stores, setting, &item.store).and_then(|store| {
            if let Err(error) = store.hold(holder, setting.deadline()) {
                is_held = matches!(error.kind, StoreErrorKind::Held(_));
                return Err(error.into());
            }
            means.fetch(setting, &permit, &names)?;
            let means = &*means;
            let mut target = bind::target(setting, name, rotation, means)?;
            let rotating = Rotating {
                permit: &permit,
                store_name: &item.store,
                store: &mut **store,
                target: &mut *target,
                item: &candidate.staged_item(),
                view: View::of(item.field.as_ref(), &rotation.apply),
                fresh: &mut || bind::new_value(setting, name, rotation, means, &public),
                rules: candidate.rules(),
                holder,
                author,
                now: &SystemTime::now,
                deadline: &|| setting.deadline(),
            };
            let outcome = rotating.run(intent, &mut scribe);
            bind::remark(&mut *target);
            outcome
        });
        let outcome = outcome.map_err(|error| scribe.fail(error));
        scribe.end(outcome.is_ok());
        self.has_said |= scribe.has_said;
        self.signal = scribe.signal;
        self.means.forget(policy, &item.store, &item.item);
        if is_held {
            self.refused.insert(&item.store);
        }
        outcome.map(drop).map_err(|error| (error, scribe.is_begun))
    }

    /// Where a secret stands, and what is wanted of it.
    fn look(&mut self, candidate: &Candidate<'s>) -> Result<(State, Option<Intent>), Error> {
        let deadline = self.setting.deadline();
        let staged = opened(&mut self.stores, self.setting, &candidate.item.store)
            .and_then(|store| Ok(store.staged(&candidate.staged_item(), deadline)?));
        self.auditor.note_request_ids(self.setting.aws.take_request_ids());
        match staged {
            Ok(staged) => {
                let state = State::new(staged);
                let intent = self.wish.of(candidate, &state, SystemTime::now());
                Ok((state, intent))
            }
            Err(error) => {
                let note = note_of(candidate.name, candidate.item);
                self.auditor.record(
                    Event::SecretListed,
                    Outcome::Failed,
                    Some(&format!("rotate: {error}")),
                    &[note],
                )?;
                Err(error)
            }
        }
    }

    /// Each step that would be taken, if each went well.
    fn show_plan(&mut self, candidates: &[Candidate<'s>]) -> Result<(), Error> {
        let mut rows = Vec::new();
        for candidate in candidates {
            let store = &candidate.item.store;
            if self.refused.contains(store) {
                let name = candidate.name;
                let skipped = format!("vouchsafe: `{name}` was not looked at: store `{store}` gave no answer before\n");
                output::complain(&skipped).unwrap_or_default();
                continue;
            }
            let start = Instant::now();
            let planned = self.look(candidate).and_then(|(state, intent)| {
                let Some(intent) = intent else { return Ok(Vec::new()) };
                let steps = state.plan(intent, candidate.rules(), SystemTime::now());
                steps.map_err(|stuck| Failure::Stuck(stuck).into())
            });
            match planned {
                Ok(steps) => rows.extend(steps.into_iter().map(|step| (candidate, step))),
                Err(error) => {
                    self.note_silence(candidate, &error, start);
                    self.note_failure(candidate.name, error, false);
                }
            }
        }
        self.left.clear();
        self.has_said = true;
        if self.options.json {
            return rows.iter().try_for_each(|(candidate, step)| {
                output::print_json(&Progress::planned(&note_of(candidate.name, candidate.item), *step))
            });
        }
        if rows.is_empty() {
            return output::print("nothing to do\n");
        }
        let row = |(candidate, step): &(&Candidate<'_>, Step)| {
            let version = step.version().map(|at| format!("{} ({})", at.number, at.stage.word())).unwrap_or_default();
            let place = match step {
                Step::Apply(_) | Step::Verify(_) | Step::Probe(_) => destination(candidate.rotation),
                Step::Retire(_) if candidate.rules().has_target => destination(candidate.rotation),
                _ => describe_source(&candidate.binding.source),
            };
            vec![candidate.name.to_string(), step.word().into(), version, place]
        };
        let rows: Vec<Vec<String>> = rows.iter().map(row).collect();
        output::print(&output::table(&["NAME", "STEP", "VERSION", "AT"], &rows))
    }

    /// The first failure is told at the end, with all that is left; the others as they come.
    fn note_failure(&mut self, name: &'s VariableName, error: Error, is_begun: bool) {
        self.is_stopped |= self.signal.is_some() || error.class() == Class::Audit;
        // Where the name or the state is wrong, doing it again changes nothing.
        if !matches!(error.class(), Class::Missing | Class::Usage) || is_begun {
            self.left.push(Left { name, is_begun });
        }
        if !self.failures.is_empty() && self.signal.is_none() {
            output::complain(&format!("vouchsafe: error[{}]: `{name}`: {error}\n", error.class().word()))
                .unwrap_or_default();
        }
        // That it was ended is said at the end.
        if self.signal.is_none() || error.class() == Class::Audit {
            self.failures.push((name, error));
        }
    }

    fn end(mut self) -> Result<(), Error> {
        if !self.options.dry_run {
            self.setting.note_outdated_signatures();
        }
        let ids = self.setting.aws.take_request_ids();
        if !ids.is_empty() {
            self.auditor.note_request_ids(ids);
            self.auditor.record(Event::SecretListed, Outcome::Succeeded, None, &[])?;
        }
        let command = self.command();
        let left: Vec<VariableName> = self.left.iter().map(|left| left.name.clone()).collect();
        if let Some(signal) = self.signal {
            for (name, error) in self.failures.iter().take(1) {
                output::complain(&format!("vouchsafe: error[{}]: `{name}`: {error}\n", error.class().word()))
                    .unwrap_or_default();
            }
            let text =
                format!("vouchsafe: {}; left to do: {}\nhint: {command}\n", Interrupted { signal }, listed(&left));
            output::complain(&text).unwrap_or_default();
            drop(self.stores);
            sys::exit_now(u8::try_from(128 + signal).unwrap_or(125));
        }
        match self.failures.into_iter().next() {
            Some((name, error)) => Err(Unfinished { first: (name.clone(), error), left, command }.into()),
            None if self.has_said || self.options.json => Ok(()),
            None => output::print("nothing to do\n"),
        }
    }

    /// The one command that does what is left.
    fn command(&self) -> String {
        let of = |option: &str, wanted: &dyn Fn(&Left<'_>) -> bool| {
            let names: Vec<&str> =
                self.left.iter().filter(|left| wanted(left)).map(|left| left.name.as_str()).collect();
            let words = ["vouchsafe rotate", option, &names.join(" "), &self.setting.selection()];
            let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
            (!names.is_empty()).then(|| words.join(" "))
        };
        let commands = match self.wish {
            Wish::Due => vec![of("--due", &|_| true)],
            Wish::Resume => vec![of("--resume", &|_| true)],
            Wish::Each(Intent::RollBack) => vec![of("--rollback", &|_| true)],
            Wish::Each(Intent::Abandon) => vec![of("--abandon", &|_| true)],
            Wish::Each(_) => vec![of("--resume", &|left| left.is_begun), of("", &|left| !left.is_begun)],
        };
        commands.into_iter().flatten().collect::<Vec<_>>().join(" && ")
    }
}

/// The store of that name, opened at most once.
fn opened<'r, 's>(
    stores: &'r mut BTreeMap<&'s StoreName, Box<dyn Stages + 's>>,
    setting: &'s Setting<'_>,
    name: &'s StoreName,
) -> Result<&'r mut Box<dyn Stages + 's>, Error> {
    match stores.entry(name) {
        Entry::Occupied(entry) => Ok(entry.into_mut()),
        Entry::Vacant(entry) => Ok(entry.insert(setting.open_stages(name)?)),
    }
}
