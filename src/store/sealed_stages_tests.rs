//! The stages of a sealed file: each step once, and again.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use ::age::x25519;

use super::*;
use crate::error::{Cause, Class};
use crate::name::{EnvironmentName, StoreName};
use crate::policy::model::{AgeStore, DocumentFormat};
use crate::store::age::AgeFile;
use crate::store::scratch::{Scratch, age_store, environment, item, no_env, secret, store_name};
use crate::store::vouched::Guard;

struct World {
    _folder: Scratch,
    store: AgeStore,
    name: StoreName,
    prod: EnvironmentName,
}

impl World {
    fn new() -> Self {
        let (folder, key) = (Scratch::new(), x25519::Identity::generate());
        let store = age_store(&folder, &key);
        Self { _folder: folder, store, name: store_name(), prod: environment("prod") }
    }

    fn with_current() -> Self {
        let world = Self::new();
        let file = world.file();
        file.create(None).unwrap();
        let set = |document: &mut Document| Ok(document.set(&item("A"), secret("one"), "me", at(100)).unwrap());
        file.update::<u64, StoreError>(set).unwrap();
        world
    }

    fn file(&self) -> AgeFile<'_> {
        AgeFile::new(&self.name, &self.store, &self.prod, None, &no_env, Guard::default())
    }

    fn stages(&self) -> SealedStages<AgeFile<'_>> {
        SealedStages::new(self.file())
    }

    fn generation(&self) -> u64 {
        self.file().document().unwrap().generation
    }

    fn lock(&self) -> PathBuf {
        self.store.path.with_file_name(".prod.age.rotating")
    }
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn one() -> StagedItem {
    StagedItem { item: item("A"), pending_separate: false }
}

fn author(seconds: u64) -> Author {
    Author { name: "rotator".into(), time: at(seconds) }
}

fn numbers(staged: &Staged) -> [Option<u64>; 3] {
    [&staged.current, &staged.pending, &staged.previous].map(|note| note.as_ref().map(|note| note.number))
}

fn value(stages: &mut impl Stages, stage: Stage) -> Option<String> {
    let found = stages.read(&one(), stage, soon()).unwrap();
    found.map(|found| String::from_utf8(found.value.expose().to_vec()).unwrap())
}

fn moved(error: &StoreError) -> &str {
    match &error.kind {
        StoreErrorKind::Moved { found, .. } => found,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_step_is_done_once_and_may_be_asked_for_again() {
    let world = World::with_current();
    let mut stages = world.stages();
    let before = world.generation();
    assert_eq!(numbers(&stages.staged(&one(), soon()).unwrap()), [Some(1), None, None]);
    stages.adopt(&one(), soon()).unwrap();
    assert_eq!(world.generation(), before, "there is nothing to adopt");

    assert_eq!(stages.stage_pending(&one(), &secret("two"), &author(200), soon()).unwrap(), 2);
    let again = stages.stage_pending(&one(), &secret("three"), &author(200), soon()).unwrap_err();
    assert_eq!((moved(&again), again.class()), ("version 2 is pending", Class::Busy));
    assert_eq!(value(&mut stages, Stage::Pending).as_deref(), Some("two"));
    assert_eq!(value(&mut stages, Stage::Current).as_deref(), Some("one"));

    assert_eq!(moved(&stages.promote(&one(), 3, &author(300), soon()).unwrap_err()), "version 2 is pending");
    assert_eq!(stages.promote(&one(), 2, &author(300), soon()).unwrap(), 2);
    let generation = world.generation();
    assert_eq!(stages.promote(&one(), 2, &author(400), soon()).unwrap(), 2);
    assert_eq!(world.generation(), generation, "what is done is not written again");
    assert_eq!(moved(&stages.promote(&one(), 1, &author(300), soon()).unwrap_err()), "no version is pending");
    let staged = stages.staged(&one(), soon()).unwrap();
    assert_eq!(numbers(&staged), [Some(2), None, Some(1)]);
    assert_eq!(staged.current.unwrap().time, Some(at(300)), "it is used from now on");

    assert_eq!(stages.roll_back(&one(), 1, &author(500), soon()).unwrap(), 1);
    assert_eq!(stages.roll_back(&one(), 1, &author(500), soon()).unwrap(), 1, "and not back and forth");
    assert_eq!(numbers(&stages.staged(&one(), soon()).unwrap()), [Some(1), None, Some(2)]);
    assert_eq!(stages.roll_back(&one(), 2, &author(500), soon()).unwrap(), 2);

    assert_eq!(moved(&stages.drop_previous(&one(), 2, soon()).unwrap_err()), "version 1 is previous");
    stages.drop_previous(&one(), 1, soon()).unwrap();
    stages.drop_previous(&one(), 1, soon()).unwrap();
    assert_eq!(moved(&stages.roll_back(&one(), 1, &author(1), soon()).unwrap_err()), "no version is previous");

    assert_eq!(stages.stage_pending(&one(), &secret("three"), &author(600), soon()).unwrap(), 3);
    assert_eq!(moved(&stages.roll_back(&one(), 1, &author(1), soon()).unwrap_err()), "version 3 is pending");
    assert_eq!(moved(&stages.discard_pending(&one(), 2, soon()).unwrap_err()), "version 3 is pending");
    stages.discard_pending(&one(), 3, soon()).unwrap();
    stages.discard_pending(&one(), 3, soon()).unwrap();
    assert_eq!(numbers(&stages.staged(&one(), soon()).unwrap()), [Some(2), None, None]);
}

#[test]
fn nothing_is_there_of_an_item_that_is_not() {
    let world = World::with_current();
    let other = StagedItem { item: item("B"), pending_separate: false };
    assert_eq!(world.stages().staged(&other, soon()).unwrap(), Staged::default());
    assert!(world.stages().read(&other, Stage::Current, soon()).unwrap().is_none());
}

#[test]
fn one_rotates_at_a_time() {
    let world = World::with_current();
    let holder = |owner: &str| Holder { owner: owner.into(), since: at(1_000) };
    let (mut first, mut second) = (world.stages(), world.stages());
    first.hold(&holder("ann"), soon()).unwrap();
    first.hold(&holder("ann"), soon()).unwrap();
    let refused = second.hold(&holder("bob"), soon()).unwrap_err();
    assert_eq!(refused.to_string(), "store `files`: it is being rotated by ann since 1970-01-01T00:16:40Z");
    assert_eq!(refused.class(), Class::Busy);
    second.let_go(soon()).unwrap();
    assert!(world.lock().exists(), "only its own right is given back");
    first.let_go(soon()).unwrap();
    assert!(!world.lock().exists());
    second.hold(&holder("bob"), soon()).unwrap();
}

#[test]
fn a_file_made_by_hand_is_not_rotated() {
    let mut world = World::with_current();
    (world.store.format, world.store.unbound) = (DocumentFormat::Json, true);
    let holder = Holder { owner: "ann".into(), since: at(1_000) };
    let error = world.stages().hold(&holder, soon()).unwrap_err();
    assert!(error.to_string().contains("made by hand"), "{error}");
    assert!(!world.lock().exists());
}
