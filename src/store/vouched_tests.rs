//! A sealed file and its signatures, through the store: what is read, what is written, and what lies there in between.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use ::age::x25519;

use super::*;
use crate::name::{EnvironmentName, StoreName};
use crate::policy::model::{AgeStore, Trust};
use crate::store::age::AgeFile;
use crate::store::scratch::{
    Scratch, SigningKey, age_store, environment, item, no_env, read, secret, set_mode, store_name,
};
use crate::store::{Author, Store, StoreError, StoreErrorKind, Versions, Wanted};

struct World {
    folder: Scratch,
    name: StoreName,
    prod: EnvironmentName,
    store: AgeStore,
    trust: Trust,
    alice: SigningKey,
}

impl World {
    fn new() -> Self {
        let (folder, alice) = (Scratch::new(), SigningKey::new(1));
        let store = age_store(&folder, &x25519::Identity::generate());
        let trust = alice.trusted_for("prod");
        Self { folder, name: store_name(), prod: environment("prod"), store, trust, alice }
    }

    fn guard<'w>(&'w self, signer: Option<&'w dyn Sign>) -> Guard<'w> {
        let min_generation = self.store.min_generation;
        Guard { demand: SealedDemand::of(Some(&self.trust), &self.prod), min_generation, signer }
    }

    fn file<'w>(&'w self, signer: Option<&'w dyn Sign>) -> AgeFile<'w> {
        AgeFile::new(&self.name, &self.store, &self.prod, None, &no_env, self.guard(signer))
    }

    fn set(&self, signer: Option<&dyn Sign>, value: &str) -> Result<Option<u64>, StoreError> {
        let author = Author { name: "me".into(), time: SystemTime::UNIX_EPOCH };
        self.file(signer).put(&item("A"), secret(value), &author, false, soon())
    }

    fn fetch(&self) -> Result<OpenedFile, StoreError> {
        let wanted = Wanted::Item { item: item("A"), version: None, stage: None, plain: false };
        let mut file = self.file(None);
        file.fetch(&[wanted], soon())?;
        Ok(file.opened().unwrap().clone())
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn kind<T>(result: Result<T, StoreError>) -> Kind {
    match result.map(|_| ()).unwrap_err().kind {
        StoreErrorKind::Sealed(error) => *error.kind,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_written_with_a_key_is_read_and_counts_up() {
    let world = World::new();
    for (value, generation) in [("1", 2), ("2", 3), ("3", 4)] {
        world.set(Some(&world.alice), value).unwrap();
        let opened = world.fetch().unwrap();
        assert_eq!((opened.generation, opened.path), (Some(generation), world.store.path.clone()));
        assert_eq!(opened.signed_by, Some(fingerprint(&world.alice.public())));
        let text = String::from_utf8(read(&signature_of(&world.store.path))).unwrap();
        assert_eq!(text.matches("BEGIN SSH SIGNATURE").count(), 1, "those of older files are gone");
    }
    assert_eq!(world.folder.names(), ["key.txt", "prod.age", "prod.age.sig"]);
}

#[test]
fn without_a_key_that_counts_nothing_is_touched() {
    let world = World::new();
    assert!(matches!(kind(world.set(None, "1")), Kind::NoSignKey(_)));
    assert!(matches!(kind(world.set(Some(&SigningKey::new(2)), "1")), Kind::SignKey(_)));
    assert_eq!(world.folder.names(), ["key.txt"], "not even a first file");
    world.set(Some(&world.alice), "1").unwrap();
    let before = (read(&world.store.path), read(&signature_of(&world.store.path)));
    let refused = [kind(world.set(None, "2")), kind(world.file(None).remove(&item("A"), soon()))];
    assert!(refused.iter().all(|kind| matches!(kind, Kind::NoSignKey(_))), "{refused:?}");
    assert!(matches!(
        world.file(None).refuse_unwritable().map_err(|error| kind::<()>(Err(error))),
        Err(Kind::NoSignKey(_))
    ));

    /// Says that it has another key than it signs with.
    struct Liar(SigningKey, SigningKey);
    impl Sign for Liar {
        fn sign(&self, bytes: &[u8]) -> Result<(String, PublicKey), SignError> {
            self.1.sign(bytes)
        }
        fn public_key(&self) -> Option<PublicKey> {
            self.0.public_key()
        }
    }
    let liar = Liar(SigningKey::new(1), SigningKey::new(2));
    assert!(matches!(kind(world.set(Some(&liar), "2")), Kind::SignKey(_)));
    assert_eq!((read(&world.store.path), read(&signature_of(&world.store.path))), before);
    assert_eq!(world.folder.names(), ["key.txt", "prod.age", "prod.age.sig"]);
}

/// Signs, and looks at what lies there when it does.
struct Witness<'w>(&'w World, RefCell<u32>);

impl Sign for Witness<'_> {
    fn sign(&self, bytes: &[u8]) -> Result<(String, PublicKey), SignError> {
        *self.1.borrow_mut() += 1;
        let Self(world, _) = self;
        assert!(world.fetch().is_ok(), "the old file still counts, and so it does if this is where it ends");
        world.alice.sign(bytes)
    }

    fn public_key(&self) -> Option<PublicKey> {
        None
    }
}

#[test]
fn signing_comes_before_anything_is_replaced() {
    let world = World::new();
    world.set(Some(&world.alice), "1").unwrap();
    let witness = Witness(&world, RefCell::new(0));
    world.set(Some(&witness), "2").unwrap();
    assert_eq!(*witness.1.borrow(), 1);
    assert_eq!(world.fetch().unwrap().generation, Some(3));
}

#[test]
fn nothing_of_a_file_is_parsed_that_nobody_answers_for() {
    let world = World::new();
    world.set(Some(&world.alice), "1").unwrap();
    let whole = read(&world.store.path);
    for bytes in [&b""[..], b"no age file", b"age-encryption.org/v1\n-> garbage", &whole[..whole.len() / 2]] {
        std::fs::write(&world.store.path, bytes).unwrap();
        let refused = kind(world.fetch());
        assert!(matches!(&refused, Kind::Trust(error) if matches!(error.kind, TrustErrorKind::Forged)), "{refused:?}");
        let refused = kind(world.set(Some(&world.alice), "2"));
        assert!(matches!(&refused, Kind::Trust(_)), "a writer would vouch for what it builds upon: {refused:?}");
    }
    std::fs::write(&world.store.path, &whole).unwrap();
    assert!(world.fetch().is_ok());
}

#[test]
fn an_older_copy_is_refused_where_the_policy_says_from_when_on() {
    let mut world = World::new();
    world.set(Some(&world.alice), "1").unwrap();
    let old = (read(&world.store.path), read(&signature_of(&world.store.path)));
    world.set(Some(&world.alice), "2").unwrap();
    let roll_back = |world: &World| {
        std::fs::write(&world.store.path, &old.0).unwrap();
        std::fs::write(signature_of(&world.store.path), &old.1).unwrap();
    };
    world.store.min_generation = 3;
    assert_eq!(world.fetch().unwrap().generation, Some(3));
    roll_back(&world);
    assert!(matches!(kind(world.fetch()), Kind::Old { found: 2, least: 3 }));
    assert!(matches!(kind(world.set(Some(&world.alice), "3")), Kind::Old { found: 2, least: 3 }));
    world.store.min_generation = 0;
    assert_eq!(world.fetch().unwrap().generation, Some(2), "nobody can tell without");
}

#[test]
fn a_file_that_was_lost_begins_where_the_policy_does() {
    let mut world = World::new();
    world.store.min_generation = 7;
    world.set(Some(&world.alice), "1").unwrap();
    assert_eq!(world.fetch().unwrap().generation, Some(8));
}

#[test]
fn nobody_signs_by_the_way_what_somebody_else_has_changed() {
    let mut world = World::new();
    world.trust.sealed_files.clear();
    world.set(Some(&world.alice), "1").unwrap();
    world.set(None, "2").unwrap();
    assert!(is_signature_outdated(&world.store.path));
    let refused = kind(world.set(Some(&world.alice), "3"));
    assert!(matches!(&refused, Kind::Trust(error) if matches!(error.kind, TrustErrorKind::Forged)), "{refused:?}");
    crate::store::write::sign(&world.store.path, &world.alice).unwrap();
    world.set(Some(&world.alice), "3").unwrap();
    assert!(!is_signature_outdated(&world.store.path) && world.fetch().unwrap().signed_by.is_none());
}

#[test]
fn a_reader_between_two_steps_of_a_writer_looks_again() {
    let world = World::new();
    world.set(Some(&world.alice), "1").unwrap();
    std::thread::scope(|scope| {
        let writer =
            scope.spawn(|| (0..60).for_each(|n| assert!(world.set(Some(&SigningKey::new(1)), &n.to_string()).is_ok())));
        let mut reads = 0;
        while !writer.is_finished() || reads < 20 {
            assert!(world.fetch().is_ok());
            reads += 1;
        }
        writer.join().unwrap();
    });
    assert_eq!(world.folder.names(), ["key.txt", "prod.age", "prod.age.sig"]);
}

#[test]
fn a_signature_keeps_its_mode_and_a_link_its_target() {
    let world = World::new();
    world.set(Some(&world.alice), "1").unwrap();
    use std::os::unix::fs::PermissionsExt;
    let mode = |name: &str| std::fs::metadata(world.folder.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("prod.age"), mode("prod.age.sig")), (0o600, 0o644));
    set_mode(&world.folder.path("prod.age.sig"), 0o640);
    world.set(Some(&world.alice), "2").unwrap();
    assert_eq!(mode("prod.age.sig"), 0o640);
    std::fs::rename(world.folder.path("prod.age.sig"), world.folder.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", world.folder.path("prod.age.sig")).unwrap();
    world.set(Some(&world.alice), "3").unwrap();
    assert!(world.folder.path("prod.age.sig").symlink_metadata().unwrap().is_symlink());
    assert!(world.fetch().is_ok());
}

#[test]
fn one_more_signature_of_the_same_file_stands_beside_the_first() {
    let mut world = World::new();
    world.set(Some(&world.alice), "1").unwrap();
    let path = world.store.path.clone();
    crate::store::write::sign(&path, &SigningKey::new(2)).unwrap();
    crate::store::write::sign(&path, &SigningKey::new(2)).unwrap();
    let signatures = Signatures::parse(&read(&signature_of(&path))).unwrap();
    let bob = SigningKey::new(2).public();
    assert_eq!(signatures.to_text().matches("BEGIN").count(), 2, "one of each");
    assert_eq!(signatures.without(&bob).to_text().matches("BEGIN").count(), 1);
    assert!(world.fetch().is_ok());
    world.trust = SigningKey::new(2).trusted_for("prod");
    assert_eq!(world.fetch().unwrap().signed_by, Some(fingerprint(&bob)));
}
