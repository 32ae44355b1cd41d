//! The driver over a store in memory and a model of each kind of target, killed before and after every effect, with lost
//! answers and a second rotator in between. What consumers can do is looked at after each effect, not at the end.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::audit::{Actor, Auditor, Context, SecretNote};
use crate::error::{Cause, Class};
use crate::name::EnvironmentName;
use crate::policy::model::{Evidence, Sink};
use crate::rotate::step::StepName;
use crate::rotate::target::TargetError;
use crate::store::Fetched;
use crate::store::document::{Document, Version};
use crate::store::scratch::{Scratch, environment, item, secret, store_name};
use crate::store::stages::Staged;

/// What accepts credentials. A value is `user:password`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Two users by turns, as in PostgreSQL.
    Alternating,
    /// Any number of keys would do, but there is room for two.
    Keys,
    /// One user with one password.
    Single,
}

/// Everything that outlives a run.
struct World {
    kind: Kind,
    document: Document,
    /// Passwords by user; for keys each key is its own user.
    accepted: BTreeMap<String, String>,
    /// Who has the right to rotate.
    holder: Option<u32>,
    effects: u32,
    /// The effect at which the run ends, and whether the effect happens.
    fault: Option<(u32, bool)>,
    /// The effect before which another one finishes everything, and whether it is the turn of that.
    intrusion: Option<u32>,
    serial: u32,
    /// Nothing works from the start.
    is_broken: bool,
    /// A user whose check fails, although the target accepts it.
    unproven: Option<String>,
    /// The target forgets nothing.
    keeps_all: bool,
    seen: BTreeSet<u64>,
}

#[derive(Debug)]
struct Killed;

impl std::fmt::Display for Killed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "killed")
    }
}

impl Cause for Killed {
    fn class(&self) -> Class {
        Class::Internal
    }
}

fn a() -> ItemName {
    item("A")
}

fn split(value: &Secret) -> (String, String) {
    let text = String::from_utf8(value.expose().to_vec()).unwrap();
    let (user, password) = text.split_once(':').unwrap();
    (user.to_owned(), password.to_owned())
}

impl World {
    fn new(kind: Kind) -> Self {
        let mut document = Document::new(environment("prod"), None);
        let first = if kind == Kind::Keys { "key0:key0" } else { "a:0" };
        document.set(&a(), secret(first), "me", SystemTime::UNIX_EPOCH).unwrap();
        let (user, password) = split(&secret(first));
        let accepted = BTreeMap::from([(user, password)]);
        let seen = BTreeSet::from([1]);
        let (holder, fault, intrusion) = (None, None, None);
        Self {
            kind,
            document,
            accepted,
            holder,
            effects: 0,
            fault,
            intrusion,
            serial: 0,
            is_broken: false,
            unproven: None,
            keeps_all: false,
            seen,
        }
    }

    fn at(&self, stage: Stage) -> Option<&Version> {
        self.document.item(&a())?.stage(stage)
    }

    fn works(&self, version: Option<&Version>) -> bool {
        version.is_some_and(|version| {
            let (user, password) = split(&version.value);
            self.accepted.get(&user) == Some(&password)
        })
    }

    /// What must be true at every instant.
    fn check(&mut self) {
        if self.is_broken {
            return;
        }
        let current = self.works(self.at(Stage::Current));
        match self.kind {
            Kind::Alternating | Kind::Keys => assert!(current, "consumers are locked out"),
            Kind::Single => {
                let others = [Stage::Pending, Stage::Previous].map(|stage| self.works(self.at(stage)));
                assert!(current || others.contains(&true), "neither the old one nor a new one works");
            }
        }
        assert!(self.kind != Kind::Keys || self.accepted.len() <= 2, "a key was forgotten by everyone");
        self.seen.extend(self.at(Stage::Current).map(|version| version.number));
    }
}

/// One process with the world around it.
struct Process<'w> {
    world: &'w RefCell<World>,
    id: u32,
}

impl Process<'_> {
    /// An effect: the run may be killed before it or after it, and another one may come between.
    fn effect<T, E: From<StoreFault>>(&self, act: impl FnOnce(&mut World) -> Result<T, E>) -> Result<T, E> {
        let intrudes = {
            let mut world = self.world.borrow_mut();
            world.effects += 1;
            let intrudes = world.intrusion == Some(world.effects) && self.id == 1;
            if intrudes {
                world.intrusion = None;
            }
            intrudes
        };
        if intrudes {
            // It takes the right, as if ours had run out.
            let ours = self.world.borrow_mut().holder.take();
            run(self.world, 2, Intent::Finish, Rules { has_target: true, retire_after: None }).ok();
            self.world.borrow_mut().holder = ours;
        }
        let mut world = self.world.borrow_mut();
        let fault = world.fault.filter(|(at, _)| *at <= world.effects && self.id == 1);
        if let Some((_, false)) = fault {
            world.fault = None;
            return Err(StoreFault.into());
        }
        let done = act(&mut world);
        world.check();
        if fault.is_some() {
            world.fault = None;
            return Err(StoreFault.into());
        }
        done
    }
}

/// The process is gone, or an answer is.
struct StoreFault;

impl From<StoreFault> for StoreError {
    fn from(_: StoreFault) -> Self {
        Self { store: store_name(), kind: StoreErrorKind::NotOffered { what: "process: killed" } }
    }
}

impl From<StoreFault> for TargetError {
    fn from(_: StoreFault) -> Self {
        refusal("killed")
    }
}

fn refusal(problem: &str) -> TargetError {
    TargetError::new(problem)
}

fn moved_here() -> StoreError {
    moved(&store_name(), &a(), None, Stage::Pending)
}

impl Stages for Process<'_> {
    fn hold(&mut self, _holder: &Holder, _deadline: Instant) -> Result<(), StoreError> {
        let mut world = self.world.borrow_mut();
        match world.holder {
            Some(other) if other != self.id => {
                let holder = Holder { owner: other.to_string(), since: SystemTime::UNIX_EPOCH };
                Err(StoreError { store: store_name(), kind: StoreErrorKind::Held(holder) })
            }
            _ => {
                world.holder = Some(self.id);
                Ok(())
            }
        }
    }

    fn let_go(&mut self, _deadline: Instant) -> Result<(), StoreError> {
        self.world.borrow_mut().holder = None;
        Ok(())
    }

    fn staged(&mut self, _item: &StagedItem, _deadline: Instant) -> Result<Staged, StoreError> {
        let world = self.world.borrow();
        let at = |stage| {
            world.at(stage).map(|version| crate::store::VersionNote {
                number: version.number,
                stage: Some(stage),
                time: Some(version.time),
                author: None,
            })
        };
        let (current, pending, previous) = (at(Stage::Current), at(Stage::Pending), at(Stage::Previous));
        Ok(Staged { current, pending, previous, ..Staged::default() })
    }

    fn read(&mut self, _item: &StagedItem, stage: Stage, _deadline: Instant) -> Result<Option<Fetched>, StoreError> {
        let world = self.world.borrow();
        Ok(world.at(stage).map(|version| Fetched {
            value: version.value.duplicate(),
            version: Some(version.number),
            stage: Some(stage),
            written: Some(version.time),
        }))
    }

    fn adopt(&mut self, _item: &StagedItem, _deadline: Instant) -> Result<(), StoreError> {
        Ok(())
    }

    fn stage_pending(
        &mut self,
        _item: &StagedItem,
        value: &Secret,
        author: &Author,
        _deadline: Instant,
    ) -> Result<u64, StoreError> {
        self.effect(|world| {
            let staged = world.document.stage_pending(&a(), value.duplicate(), &author.name, author.time);
            staged.map_err(|_| moved_here())
        })
    }

    fn promote(&mut self, _: &StagedItem, number: u64, author: &Author, _: Instant) -> Result<u64, StoreError> {
        self.effect(|world| match (world.at(Stage::Pending), world.at(Stage::Current)) {
            (Some(pending), _) if pending.number == number => Ok(world.document.promote(&a(), author.time).unwrap()),
            (None, Some(current)) if current.number == number => Ok(number),
            _ => Err(moved_here()),
        })
    }

    fn discard_pending(&mut self, _item: &StagedItem, number: u64, _deadline: Instant) -> Result<(), StoreError> {
        self.effect(|world| match world.at(Stage::Pending).map(|version| version.number) {
            Some(pending) if pending == number => {
                world.document.discard_pending(&a()).unwrap();
                Ok(())
            }
            None => Ok(()),
            Some(_) => Err(moved_here()),
        })
    }

    fn drop_previous(&mut self, _item: &StagedItem, number: u64, _deadline: Instant) -> Result<(), StoreError> {
        self.effect(|world| match world.at(Stage::Previous).map(|version| version.number) {
            Some(previous) if previous == number => {
                world.document.drop_previous(&a()).unwrap();
                Ok(())
            }
            None => Ok(()),
            Some(_) => Err(moved_here()),
        })
    }

    fn roll_back(&mut self, _: &StagedItem, number: u64, _: &Author, _: Instant) -> Result<u64, StoreError> {
        self.effect(|world| match world.at(Stage::Previous).map(|version| version.number) {
            Some(previous) if previous == number => Ok(world.document.rollback(&a()).unwrap()),
            _ => Err(moved_here()),
        })
    }
}

/// The target as a process sees it.
struct Model<'w>(Process<'w>);

impl Target for Model<'_> {
    fn compose(&mut self, current: Option<&Secret>, generated: Secret) -> Result<Secret, TargetError> {
        let new = String::from_utf8(generated.expose().to_vec()).unwrap();
        let (user, _) = split(current.unwrap());
        Ok(secret(&match self.0.world.borrow().kind {
            Kind::Alternating => format!("{}:{new}", if user == "a" { "b" } else { "a" }),
            Kind::Keys => format!("key{new}:key{new}"),
            Kind::Single => format!("{user}:{new}"),
        }))
    }

    fn apply(&mut self, current: Option<&Secret>, pending: &Secret) -> Result<(), TargetError> {
        let ((proof, known), (user, password)) = (split(current.unwrap()), split(pending));
        self.0.effect(|world| {
            if world.accepted.get(&user) == Some(&password) {
                return Ok(());
            }
            if world.accepted.get(&proof) != Some(&known) {
                return Err(refusal("the current credential does not work"));
            }
            assert!(world.kind != Kind::Alternating || user != proof, "the user in use is altered");
            world.accepted.insert(user, password);
            Ok(())
        })
    }

    fn verify(&mut self, value: &Secret) -> Result<(), TargetError> {
        let (user, password) = split(value);
        let world = self.0.world.borrow();
        let works = world.accepted.get(&user) == Some(&password) && world.unproven != Some(user);
        let is_refusal = world.accepted.get(&split(value).0) != Some(&password);
        if works { Ok(()) } else { Err(TargetError { is_refusal, ..refusal("it does not work") }) }
    }

    fn retire(&mut self, previous: &Secret, current: &Secret) -> Result<(), TargetError> {
        let ((user, _), (kept, _)) = (split(previous), split(current));
        self.0.effect(|world| {
            if world.keeps_all {
                return Err(refusal("not now"));
            }
            if user != kept {
                world.accepted.remove(&user);
            }
            Ok(())
        })
    }
}

/// Notes nothing, and fails never: what a failing one does is tested on its own.
#[derive(Default)]
struct Notes {
    steps: Vec<String>,
    fail_before: Option<&'static str>,
}

impl Journal for Notes {
    fn before(&mut self, step: Step) -> Result<(), Error> {
        if self.fail_before == Some(step.word()) { Err(Killed.into()) } else { Ok(()) }
    }

    fn after(&mut self, step: Step, _answer: Answer) -> Result<(), Error> {
        self.steps.push(step.word().to_owned());
        Ok(())
    }

    fn failed(&mut self, step: Step, _error: &Error) -> Result<(), Error> {
        self.steps.push(format!("{} failed", step.word()));
        Ok(())
    }
}

fn permit_for(name: &str) -> RotationPermit {
    let folder = Scratch::new();
    let path = folder.write("log.jsonl", "", 0o600);
    let actor = Actor {
        uid: 0,
        user: None,
        groups: Vec::new(),
        pid: 1,
        ppid: 0,
        tty: None,
        host: "host".into(),
        container_id: None,
        process: crate::audit::ProcessIdentity::default(),
        agent: None,
    };
    let environment = Some(EnvironmentName::new("prod").unwrap());
    let context = Context { actor, environment, service: None, policy_digest: "0".into(), command: None };
    let sink = Sink::File { path: path.to_str().unwrap().into(), sync: false, evidence: Evidence::default() };
    let note = SecretNote { name: "A".into(), store: "files".into(), item: name.into(), ..SecretNote::default() };
    Auditor::open(&[sink], context).unwrap().begin_rotation("rotate", &note, &[]).unwrap()
}

thread_local! {
    static PERMIT: RotationPermit = permit_for("A");
}

fn run(world: &RefCell<World>, id: u32, intent: Intent, rules: Rules) -> Result<State, Error> {
    PERMIT.with(|permit| run_with(world, id, intent, rules, permit, &mut Notes::default()))
}

/// One run of one process: its right ends with it.
fn run_with(
    world: &RefCell<World>,
    id: u32,
    intent: Intent,
    rules: Rules,
    permit: &RotationPermit,
    journal: &mut dyn Journal,
) -> Result<State, Error> {
    let holder = Holder { owner: id.to_string(), since: SystemTime::UNIX_EPOCH };
    let one = StagedItem { item: a(), pending_separate: false };
    let rotating = Rotating {
        permit,
        store_name: &store_name(),
        store: &mut Process { world, id },
        target: &mut Model(Process { world, id }),
        item: &one,
        view: View::Whole,
        fresh: &mut || {
            let mut world = world.borrow_mut();
            world.serial += 1;
            Ok(secret(&world.serial.to_string()))
        },
        rules,
        holder: &holder,
        author: "me",
        now: &|| SystemTime::UNIX_EPOCH + Duration::from_secs(1_000),
        deadline: &Instant::now,
    };
    let done = rotating.run(intent, journal);
    world.borrow_mut().holder = None;
    done
}

fn number(world: &RefCell<World>, stage: Stage) -> Option<u64> {
    world.borrow().at(stage).map(|version| version.number)
}

const RULES: [Rules; 3] = [
    Rules { has_target: true, retire_after: None },
    Rules { has_target: true, retire_after: Some(Duration::ZERO) },
    Rules { has_target: true, retire_after: Some(Duration::from_secs(5_000)) },
];
const KINDS: [Kind; 3] = [Kind::Alternating, Kind::Keys, Kind::Single];

/// Killed at each effect, before it and after it: what finishes it ends with exactly one version more.
#[test]
fn a_rotation_that_is_killed_anywhere_is_finished_by_one_command() {
    for kind in KINDS {
        for rules in RULES {
            for rounds in 0..3 {
                let mut hits = 0;
                for (at, happens) in (1..12).flat_map(|at| [(at, false), (at, true)]) {
                    let world = RefCell::new(World::new(kind));
                    for _ in 0..rounds {
                        run(&world, 1, Intent::Rotate, rules).unwrap();
                    }
                    let before = number(&world, Stage::Current).unwrap();
                    let fault = (world.borrow().effects + at, happens);
                    world.borrow_mut().fault = Some(fault);
                    let killed = run(&world, 1, Intent::Rotate, rules).is_err();
                    hits += u32::from(killed);
                    let begun =
                        number(&world, Stage::Pending).is_some() || number(&world, Stage::Current) != Some(before);
                    run(&world, 1, Intent::Finish, rules).unwrap();
                    let after = number(&world, Stage::Current).unwrap();
                    let when = format!("{kind:?} {rules:?} round {rounds} at {at} {happens}");
                    assert_eq!(number(&world, Stage::Pending), None, "{when}");
                    assert_eq!(after, before + u64::from(begun), "{when}: exactly one version more, or none was begun");
                    if begun {
                        let kept = rules.retire_after != Some(Duration::ZERO);
                        assert_eq!(number(&world, Stage::Previous), kept.then_some(before), "{when}");
                    }
                    let world = world.borrow();
                    assert!(world.works(world.at(Stage::Current)), "{when}: the current one works at rest");
                }
                assert!(hits >= 6, "{hits} kills hit");
            }
        }
    }
}

#[test]
fn going_back_is_possible_from_everywhere_and_can_be_killed_too() {
    for (kind, rules) in KINDS.into_iter().flat_map(|kind| [(kind, RULES[0]), (kind, RULES[2])]) {
        for reached in 1..6 {
            for (at, happens) in (1..8).flat_map(|at| [(at, false), (at, true)]) {
                let world = RefCell::new(World::new(kind));
                run(&world, 1, Intent::Rotate, rules).unwrap();
                // A rotation that got so far.
                let base = world.borrow().effects;
                world.borrow_mut().fault = Some((base + reached, true));
                run(&world, 1, Intent::Rotate, rules).ok();
                world.borrow_mut().fault = None;
                let had_pending = number(&world, Stage::Pending).is_some();
                let goal = number(&world, if had_pending { Stage::Current } else { Stage::Previous });
                let base = world.borrow().effects;
                world.borrow_mut().fault = Some((base + at, happens));
                let killed = run(&world, 1, Intent::RollBack, rules).is_err();
                world.borrow_mut().fault = None;
                let when = format!("{kind:?} {rules:?} reached {reached}, killed at {at} {happens}");
                let is_there = number(&world, Stage::Pending).is_none() && number(&world, Stage::Current) == goal;
                if killed && !is_there {
                    let again = run(&world, 1, Intent::RollBack, rules);
                    assert!(again.is_ok() || goal.is_none(), "{when}: {:?}", again.err());
                }
                assert_eq!(number(&world, Stage::Pending), None, "{when}");
                assert!(goal.is_none() || number(&world, Stage::Current) == goal, "{when}");
                let works = {
                    let world = world.borrow();
                    world.works(world.at(Stage::Current))
                };
                assert!(works, "{when}");
                // And forward again.
                run(&world, 1, Intent::Rotate, rules).unwrap();
            }
        }
    }
}

#[test]
fn the_second_rotator_is_refused() {
    let world = RefCell::new(World::new(Kind::Single));
    world.borrow_mut().holder = Some(2);
    let mut notes = Notes::default();
    let refused = PERMIT.with(|permit| run_with(&world, 1, Intent::Rotate, RULES[0], permit, &mut notes));
    assert_eq!(refused.unwrap_err().class(), Class::Busy);
    assert_eq!(notes.steps, ["create failed"]);
    assert_eq!(number(&world, Stage::Pending), None);
}

#[test]
fn no_step_without_its_record_and_no_value_without_a_permit() {
    for step in ["create", "apply", "verify", "promote"] {
        let world = RefCell::new(World::new(Kind::Single));
        let mut notes = Notes { fail_before: Some(step), ..Notes::default() };
        let failed = PERMIT.with(|permit| run_with(&world, 1, Intent::Rotate, RULES[0], permit, &mut notes));
        assert!(failed.is_err());
        let before = ["create", "apply", "verify", "promote"].into_iter().take_while(|one| *one != step);
        assert_eq!(notes.steps, before.collect::<Vec<_>>());
    }
    let world = RefCell::new(World::new(Kind::Single));
    let other = permit_for("B");
    let failed = run_with(&world, 1, Intent::Rotate, RULES[0], &other, &mut Notes::default());
    assert_eq!(failed.unwrap_err().class(), Class::Internal);
    assert_eq!(world.borrow().effects, 0);
}

#[test]
fn a_current_credential_that_does_not_work_changes_nothing_at_the_target() {
    for kind in KINDS {
        let world = RefCell::new(World::new(kind));
        // Somebody wrote what the target never accepted: consumers are locked out, and not by a rotation.
        world.borrow_mut().document.set(&a(), secret("mallory:x"), "mallory", SystemTime::UNIX_EPOCH).unwrap();
        world.borrow_mut().document.drop_previous(&a()).unwrap();
        world.borrow_mut().is_broken = true;
        let before = world.borrow().accepted.clone();
        let mut notes = Notes::default();
        let failed = PERMIT.with(|permit| run_with(&world, 1, Intent::Rotate, RULES[0], permit, &mut notes));
        assert_eq!(failed.unwrap_err().class(), Class::Target);
        assert_eq!(
            (notes.steps.as_slice(), &world.borrow().accepted),
            (&["create failed"].map(String::from)[..], &before)
        );
        assert_eq!(number(&world, Stage::Pending), None, "so that the hint can be followed");
        assert_eq!(world.borrow().serial, 0, "nor is a value made");
    }
}

/// The target forgot what is current while a version was pending that it never got: there is a way out, and it is no circle.
#[test]
fn where_nothing_works_what_is_pending_can_be_abandoned() {
    for kind in KINDS {
        let world = RefCell::new(World::new(kind));
        run(&world, 1, Intent::Only(StepName::Create), RULES[0]).unwrap();
        world.borrow_mut().accepted.clear();
        world.borrow_mut().is_broken = true;
        for (intent, wanted) in [
            (Intent::Rotate, "vouchsafe rotate --rollback NAME"),
            (Intent::Finish, "vouchsafe rotate --rollback NAME"),
            (Intent::RollBack, "vouchsafe rotate --abandon NAME"),
        ] {
            let error = run(&world, 1, intent, RULES[0]).unwrap_err();
            assert!(error.hint().unwrap().contains(wanted), "{intent:?}: {:?}", error.hint());
            assert_eq!(number(&world, Stage::Pending), Some(2));
        }
        run(&world, 1, Intent::Abandon, RULES[0]).unwrap();
        assert_eq!([Stage::Pending, Stage::Current].map(|stage| number(&world, stage)), [None, Some(1)]);
        let error = run(&world, 1, Intent::Rotate, RULES[0]).unwrap_err();
        assert!(error.hint().unwrap().contains("vouchsafe set NAME"), "{:?}", error.hint());
        // As it says: now it is taken.
        let right = if kind == Kind::Keys { "key9:key9" } else { "a:9" };
        let (user, password) = split(&secret(right));
        world.borrow_mut().accepted.insert(user, password);
        world.borrow_mut().document.set(&a(), secret(right), "me", SystemTime::UNIX_EPOCH).unwrap();
        world.borrow_mut().document.drop_previous(&a()).unwrap();
        world.borrow_mut().is_broken = false;
        run(&world, 1, Intent::Rotate, RULES[0]).unwrap();
    }
}

#[test]
fn what_works_is_not_abandoned() {
    for kind in KINDS {
        let world = RefCell::new(World::new(kind));
        run(&world, 1, Intent::Only(StepName::Create), RULES[0]).unwrap();
        run(&world, 1, Intent::Only(StepName::Apply), RULES[0]).unwrap();
        let error = run(&world, 1, Intent::Abandon, RULES[0]).unwrap_err();
        assert_eq!((error.class(), number(&world, Stage::Pending)), (Class::Usage, Some(2)));
        // Nor what nobody can tell of: with one user it may be all that is left.
        let (user, _) = split(&world.borrow().at(Stage::Pending).unwrap().value);
        world.borrow_mut().unproven = Some(user);
        let error = run(&world, 1, Intent::Abandon, RULES[0]).unwrap_err();
        assert_eq!((error.class(), number(&world, Stage::Pending)), (Class::Target, Some(2)));
        world.borrow_mut().unproven = None;
        run(&world, 1, Intent::Finish, RULES[0]).unwrap();
    }
}

/// A check that fails, a lost connection: that says nothing about what the target accepts.
#[test]
fn what_is_given_up_is_forgotten_by_the_target_although_it_does_not_prove_itself() {
    for kind in [Kind::Alternating, Kind::Keys] {
        let world = RefCell::new(World::new(kind));
        run(&world, 1, Intent::Only(StepName::Create), RULES[0]).unwrap();
        run(&world, 1, Intent::Only(StepName::Apply), RULES[0]).unwrap();
        let (user, _) = split(&world.borrow().at(Stage::Pending).unwrap().value);
        world.borrow_mut().unproven = Some(user.clone());
        world.borrow_mut().keeps_all = true;
        let error = run(&world, 1, Intent::RollBack, RULES[0]).unwrap_err();
        assert!(error.hint().unwrap().contains("--abandon NAME"), "{:?}", error.hint());
        assert_eq!(number(&world, Stage::Pending), Some(2), "nobody could name it any more");
        world.borrow_mut().keeps_all = false;
        run(&world, 1, Intent::RollBack, RULES[0]).unwrap();
        assert_eq!(number(&world, Stage::Pending), None);
        assert!(
            !world.borrow().accepted.contains_key(&user),
            "{kind:?}: the target accepts what nobody knows any more"
        );
    }
}

/// Each call has a time of its own: a slow generator takes none from the target.
#[test]
fn a_call_to_the_target_has_the_time_that_is_left_when_it_begins() {
    let world = RefCell::new(World::new(Kind::Single));
    let start = Instant::now();
    let ticks = std::cell::Cell::new(0);
    let given = RefCell::new(Vec::new());
    struct Timed<'w>(Model<'w>, &'w RefCell<Vec<Instant>>);
    impl Target for Timed<'_> {
        fn set_deadline(&mut self, deadline: Instant) {
            self.1.borrow_mut().push(deadline);
        }
        fn compose(&mut self, current: Option<&Secret>, generated: Secret) -> Result<Secret, TargetError> {
            self.0.compose(current, generated)
        }
        fn apply(&mut self, current: Option<&Secret>, pending: &Secret) -> Result<(), TargetError> {
            self.0.apply(current, pending)
        }
        fn verify(&mut self, value: &Secret) -> Result<(), TargetError> {
            self.0.verify(value)
        }
        fn retire(&mut self, previous: &Secret, current: &Secret) -> Result<(), TargetError> {
            self.0.retire(previous, current)
        }
    }
    let holder = Holder { owner: "1".into(), since: SystemTime::UNIX_EPOCH };
    PERMIT.with(|permit| {
        let rotating = Rotating {
            permit,
            store_name: &store_name(),
            store: &mut Process { world: &world, id: 1 },
            target: &mut Timed(Model(Process { world: &world, id: 1 }), &given),
            item: &StagedItem { item: a(), pending_separate: false },
            view: View::Whole,
            // As long as a hundred calls.
            fresh: &mut || {
                ticks.set(ticks.get() + 100);
                Ok(secret("new"))
            },
            rules: RULES[0],
            holder: &holder,
            author: "me",
            now: &|| SystemTime::UNIX_EPOCH,
            deadline: &|| {
                ticks.set(ticks.get() + 1);
                start + Duration::from_secs(ticks.get())
            },
        };
        rotating.run(Intent::Rotate, &mut Notes::default()).unwrap();
    });
    let given: Vec<u64> = given.borrow().iter().map(|at| (*at - start).as_secs()).collect();
    assert_eq!(given.len(), 4, "proof of the current one, compose, apply, verify");
    assert!(given[0] < 100 && given[1..].iter().all(|at| *at > 100) && given.is_sorted(), "{given:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Any commands in any order, killed or crossed by another one anywhere: consumers always have what works (that is
    /// asserted after each effect), a command that finishes does finish, and no number is given to two values.
    #[test]
    fn whatever_happens_consumers_have_a_credential_and_one_command_finishes(
        kind in proptest::sample::select(KINDS.to_vec()),
        rules in proptest::sample::select(RULES.to_vec()),
        runs in proptest::collection::vec(
            (
                proptest::sample::select(vec![
                    Intent::Rotate, Intent::Rotate, Intent::Finish, Intent::RollBack, Intent::Abandon,
                    Intent::Only(StepName::Create), Intent::Only(StepName::Apply), Intent::Only(StepName::Promote),
                    Intent::Only(StepName::Retire),
                ]),
                proptest::option::of((1_u32..10, any::<bool>())),
                proptest::option::weighted(0.2, 1_u32..10),
            ),
            1..12,
        ),
    ) {
        let world = RefCell::new(World::new(kind));
        for (intent, fault, intrusion) in runs {
            {
                let mut world = world.borrow_mut();
                let base = world.effects;
                world.fault = fault.map(|(at, happens)| (base + at, happens));
                // Forward and back at once is what the right to rotate is for: no order of steps makes both come true.
                world.intrusion = intrusion.filter(|_| !matches!(intent, Intent::RollBack | Intent::Abandon)).map(|at| base + at);
            }
            let highest = *world.borrow().seen.iter().next_back().unwrap();
            run(&world, 1, intent, rules).ok();
            let after = *world.borrow().seen.iter().next_back().unwrap();
            prop_assert!(after <= highest + 1, "one run makes at most one version current that never was");
        }
        world.borrow_mut().fault = None;
        world.borrow_mut().intrusion = None;
        // Where one user has one password, a way back that was cut off is finished by the same command again.
        let is_cut_off = {
            let world = world.borrow();
            world.at(Stage::Pending).is_none() && !world.works(world.at(Stage::Current))
        };
        if is_cut_off {
            prop_assert_eq!(kind, Kind::Single);
            let again = run(&world, 1, Intent::RollBack, rules);
            prop_assert!(again.is_ok(), "{:?}", again.err());
        }
        let finished = run(&world, 1, Intent::Finish, rules);
        prop_assert!(finished.is_ok(), "{:?}", finished.err());
        prop_assert_eq!(number(&world, Stage::Pending), None);
        let before = number(&world, Stage::Current).unwrap();
        let works = { let world = world.borrow(); world.works(world.at(Stage::Current)) };
        prop_assert!(works, "at rest the current one works");
        let rotated = run(&world, 1, Intent::Rotate, rules);
        prop_assert!(rotated.is_ok(), "{:?}", rotated.err());
        prop_assert!(number(&world, Stage::Current).unwrap() > before);
    }
}
