//! The `age` store: what it answers, refuses and writes.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, SystemTime};

use ::age::x25519;

use super::*;
use crate::error::{Cause, Class};
use crate::policy::model::IdentitySource;
use crate::store::scratch::{
    Scratch, age_store, environment, item, no_env, read, secret, service, set_mode, store_name,
};
use crate::store::sealed::encrypt;

struct World {
    folder: Scratch,
    key: x25519::Identity,
    store: AgeStore,
    name: StoreName,
    prod: EnvironmentName,
    api: ServiceName,
}

impl World {
    fn new() -> Self {
        let (folder, key) = (Scratch::new(), x25519::Identity::generate());
        let store = age_store(&folder, &key);
        Self { folder, key, store, name: store_name(), prod: environment("prod"), api: service("api") }
    }

    fn sealed() -> Self {
        let world = Self::new();
        world.file().create(Some(&world.api)).unwrap();
        for (name, value) in
            [("DATABASE_URL", "postgres://"), ("features/a", "1"), ("features/b/c", "2"), ("features2/a", "3")]
        {
            world.set(name, value);
        }
        world
    }

    fn by_hand(format: DocumentFormat, text: &str) -> Self {
        let mut world = Self::new();
        (world.store.format, world.store.unbound) = (format, true);
        let file = encrypt(&secret(text), [&world.key.to_public() as &dyn ::age::Recipient]).unwrap();
        world.folder.write("prod.age", file, 0o644);
        world
    }

    fn file(&self) -> AgeFile<'_> {
        self.file_for(&self.prod, Some(&self.api))
    }

    fn file_for<'a>(&'a self, environment: &'a EnvironmentName, service: Option<&'a ServiceName>) -> AgeFile<'a> {
        AgeFile::new(&self.name, &self.store, environment, service, &no_env, Guard::default())
    }

    fn set(&self, name: &str, value: &str) {
        let set =
            |document: &mut Document| Ok(document.set(&item(name), secret(value), "me", SystemTime::now()).unwrap());
        self.file().update::<u64, StoreError>(set).unwrap();
    }

    fn fetch(&self, wanted: &[Wanted]) -> Result<Vec<Answer>, StoreError> {
        self.file().fetch(wanted, Instant::now() + Duration::from_secs(1))
    }

    fn fetch_one(&self, wanted: Wanted) -> Result<String, StoreError> {
        let text = |fetched: &Fetched| String::from_utf8(fetched.value.expose().to_vec()).unwrap();
        Ok(match self.fetch(&[wanted])?.remove(0) {
            Answer::Absent => "absent".to_owned(),
            Answer::Found(fetched) => text(&fetched),
            Answer::Bundle(items) => items.iter().map(|(name, fetched)| format!("{name}={} ", text(fetched))).collect(),
        })
    }

    fn path(&self) -> &Path {
        &self.store.path
    }
}

fn wanted(name: &str) -> Wanted {
    Wanted::Item { item: item(name), version: None, stage: None, plain: false }
}

fn wanted_as(name: &str, version: Option<u64>, stage: Option<Stage>) -> Wanted {
    Wanted::Item { item: item(name), version, stage, plain: false }
}

fn bundle(path: &str, recursive: bool) -> Wanted {
    Wanted::Bundle {
        path: path.to_owned(),
        recursive,
        plain: false,
        staged: Default::default(),
        hidden: Default::default(),
    }
}

fn refusal<T>(result: Result<T, StoreError>) -> StoreError {
    match result {
        Ok(_) => panic!("it was not refused"),
        Err(error) => error,
    }
}

#[test]
fn items_versions_stages_and_bundles_are_answered_in_order() {
    let world = World::sealed();
    world.set("DATABASE_URL", "new");
    let answers = world.fetch(&[wanted("none"), wanted("DATABASE_URL"), bundle("", true)]).unwrap();
    let [Answer::Absent, Answer::Found(found), Answer::Bundle(items)] = answers.as_slice() else { panic!() };
    assert_eq!((found.version, found.stage, found.value.expose()), (Some(2), Some(Stage::Current), &b"new"[..]));
    assert!(found.written.is_some() && items.len() == 4);
    let fetch = |wanted| world.fetch_one(wanted).unwrap();
    assert_eq!(fetch(wanted_as("DATABASE_URL", Some(1), None)), "postgres://");
    assert_eq!(fetch(wanted_as("DATABASE_URL", None, Some(Stage::Previous))), "postgres://");
    assert_eq!(fetch(wanted_as("DATABASE_URL", None, Some(Stage::Pending))), "absent");
    assert_eq!(fetch(wanted_as("DATABASE_URL", Some(9), None)), "absent");
    assert_eq!(fetch(bundle("features/", false)), "features/a=1 ");
    assert_eq!(fetch(bundle("features/", true)), "features/a=1 features/b/c=2 ");
    assert_eq!(fetch(bundle("features", false)), "features/a=1 ");
    assert_eq!(fetch(bundle("feat", true)), "");
    assert_eq!(fetch(bundle("", false)), "DATABASE_URL=new ");
    let ciphertext = Wanted::Ciphertext { ciphertext: vec![1], context: Default::default() };
    assert!(matches!(refusal(world.fetch_one(ciphertext)).kind, StoreErrorKind::NotOffered { .. }));
}

#[test]
fn a_file_of_another_environment_or_service_does_not_open() {
    let world = World::sealed();
    let (dev, web) = (environment("dev"), service("web"));
    let before = read(world.path());
    for (environment, service, expected) in [
        (&dev, Some(&world.api), "environment `prod`, not to `dev`"),
        (&world.prod, Some(&web), "service `api`, not to `web`"),
        (&world.prod, None, "service `api`, and the policy names no service"),
    ] {
        let file = world.file_for(environment, service);
        let read_error = refusal(file.document());
        assert!(read_error.to_string().contains(expected), "{read_error}");
        assert_eq!(read_error.class(), Class::Store);
        let write_error =
            refusal(file.update::<(), StoreError>(|_| panic!("a change of a file that belongs elsewhere")));
        assert!(write_error.to_string().contains(expected), "{write_error}");
    }
    assert_eq!(read(world.path()), before);
}

#[test]
fn files_made_by_hand_are_read_and_never_written() {
    for (format, text) in [
        (DocumentFormat::Dotenv, "HASH=$2a$10$x\nfeatures/a=1"),
        (DocumentFormat::Json, r#"{"HASH": "$2a$10$x", "features/a": 1}"#),
        (DocumentFormat::Toml, "HASH = '$2a$10$x'\n'features/a' = 1"),
    ] {
        let world = World::by_hand(format, text);
        assert_eq!(world.fetch_one(wanted("HASH")).unwrap(), "$2a$10$x");
        assert_eq!(world.fetch_one(wanted_as("HASH", None, Some(Stage::Current))).unwrap(), "$2a$10$x");
        assert_eq!(world.fetch_one(bundle("features/", false)).unwrap(), "features/a=1 ");
        let not_offered = [wanted_as("HASH", Some(1), None), wanted_as("HASH", None, Some(Stage::Previous))];
        for wanted in not_offered {
            assert!(matches!(refusal(world.fetch_one(wanted)).kind, StoreErrorKind::NotOffered { .. }));
        }
        assert!(matches!(refusal(world.file().document()).kind, StoreErrorKind::NotOffered { .. }));
        let error = refusal(world.file().update::<(), StoreError>(|_| Ok(())));
        assert!(error.to_string().contains("made by hand") && error.hint().unwrap().contains("age -d"), "{error}");
        assert!(refusal(world.file().create(None)).to_string().contains("made by hand"));
    }
}

#[test]
fn a_file_bound_to_nothing_needs_the_policys_word_outside_dev() {
    let mut world = World::by_hand(DocumentFormat::Dotenv, "A=1");
    world.store.unbound = false;
    let error = refusal(world.fetch_one(wanted("A")));
    assert_eq!(error.class(), Class::Policy);
    let dev = environment("dev");
    assert!(world.file_for(&dev, None).fetch(&[wanted("A")], Instant::now()).is_ok());
}

#[test]
fn a_wrong_format_is_told_without_content() {
    let mut world = World::by_hand(DocumentFormat::Dotenv, "A=s3cret\nB='s3cret");
    let error = refusal(world.fetch_one(wanted("A")));
    assert!(error.to_string().ends_with("is malformed: line 2: a quote is not closed"), "{error}");
    world.store.format = DocumentFormat::Sealed;
    let error = refusal(world.fetch_one(wanted("A")));
    assert!(error.to_string().contains("line 1: not valid JSON"), "{error}");
    assert!(error.hint().unwrap().contains("format = \"dotenv\""));
    assert!(!format!("{error:?}").contains("s3cret"));

    // Nor how long a value is: where the parser stopped on a line with one would tell.
    let refused =
        |content: &str| refusal(World::by_hand(DocumentFormat::Json, content).fetch_one(wanted("A"))).to_string();
    let after_path = |text: String| text.split_once("malformed: ").map(|(_, why)| why.to_owned());
    assert_eq!(after_path(refused(r#"{"A":"short"!"#)), after_path(refused(r#"{"A":"quite a bit longer"!"#)));
}

#[test]
fn without_a_fitting_identity_each_source_is_named() {
    let mut world = World::sealed();
    let other = age_store(&Scratch::new(), &x25519::Identity::generate()).identities;
    world.folder.write("other.txt", crate::store::scratch::key_text(&x25519::Identity::generate()), 0o600);
    world.store.identities = other;
    world.store.identities.push(IdentitySource::File(world.folder.path("other.txt")));
    world.store.identities.push(IdentitySource::Credential("x".to_owned()));
    let error = refusal(world.fetch_one(wanted("A")));
    assert_eq!(error.class(), Class::Identity);
    let message = error.to_string();
    for part in ["key.txt` cannot be read: no such file", "other.txt` does not fit", "`credential:x` has no `CRED"] {
        assert!(message.contains(part), "{message}");
    }
    // One that is unsafe ends it at once, even though another would fit.
    set_mode(&world.folder.path("other.txt"), 0o644);
    world.store.identities.push(IdentitySource::File(world.folder.path("key.txt")));
    let error = refusal(world.fetch_one(wanted("A")));
    assert!(error.to_string().contains("unsafe") && error.hint().unwrap().starts_with("chmod 0600"), "{error}");
    world.store.identities.clear();
    assert!(refusal(world.fetch_one(wanted("A"))).to_string().contains("names no identity"));
}

#[test]
fn an_identity_from_the_environment_opens_too() {
    let mut world = World::sealed();
    world.store.identities = vec![IdentitySource::Env(crate::name::VariableName::new("KEY").unwrap())];
    let env = |_: &str| Some(OsString::from(crate::store::scratch::key_text(&world.key)));
    let mut file = AgeFile::new(&world.name, &world.store, &world.prod, Some(&world.api), &env, Guard::default());
    assert!(file.fetch(&[wanted("DATABASE_URL")], Instant::now()).is_ok());
}

#[test]
fn an_absent_file_and_damaged_files_are_told_apart() {
    let world = World::sealed();
    let whole = read(world.path());
    let broken = |bytes: &[u8]| {
        world.folder.write("prod.age", bytes, 0o600);
        refusal(world.fetch_one(wanted("A"))).to_string()
    };
    assert!(broken(b"A=1").ends_with("is not an age file"));
    assert!(broken(&whole[..whole.len() / 2]).contains("the armor of"));
    let binary = crate::store::header::prepare(&whole).unwrap().into_owned();
    assert!(broken(&binary[..binary.len() - 1]).contains("the payload of"));
    assert!(broken(&binary[..100]).contains("the header of"));
    assert!(!broken(&binary[..binary.len() - 1]).contains("hint"));
    std::fs::remove_file(world.path()).unwrap();
    let error = refusal(world.fetch_one(wanted("A")));
    assert!(error.to_string().ends_with("prod.age` does not exist yet"), "{error}");
    assert!(matches!(&error.kind, StoreErrorKind::Sealed(error) if error.is_absent()));
}
