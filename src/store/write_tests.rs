//! The write protocol: leftovers, links, concurrent writers.

use std::cell::RefCell;
use std::collections::HashSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::SystemTime;

use ::age::{EncryptError, x25519};
use age_core::format::{FileKey, Stanza};
use age_core::secrecy::ExposeSecret;

use super::*;
use crate::store::document::Version;
use crate::store::scratch::{Scratch, environment, item, read, secret, set_mode};

/// One key pair.
struct One(x25519::Identity, x25519::Recipient);

impl One {
    fn new() -> Self {
        let key = x25519::Identity::generate();
        let public = key.to_public();
        Self(key, public)
    }
}

impl Keys for One {
    fn open(&self, bytes: Vouched<'_>) -> Result<Secret, Kind> {
        match sealed::open(bytes, [&self.0 as &dyn ::age::Identity])? {
            sealed::Opening::Opened(plaintext) => Ok(plaintext),
            sealed::Opening::Locked(_) => Err(Kind::NoIdentityFits { tried: Vec::new() }),
        }
    }

    fn with_recipients(&self, seal: Seal<'_>) -> Result<Vec<u8>, Kind> {
        seal(&[&self.1])
    }
}

fn created(folder: &Scratch) -> (PathBuf, One) {
    let (path, keys) = (folder.path("prod.age"), One::new());
    create(&path, Document::new(environment("prod"), None), &keys, &Guard::default()).unwrap();
    (path, keys)
}

fn set(path: &Path, keys: &One, name: &str, value: &str) -> Result<u64, Failure<DocumentError>> {
    update(path, keys, &Guard::default(), |document| document.set(&item(name), secret(value), "me", SystemTime::now()))
}

fn document(path: &Path, keys: &One) -> Document {
    Document::parse(keys.open(Vouched::of_no_store(&read(path))).unwrap().expose()).unwrap()
}

fn value(document: &Document, name: &str) -> Option<String> {
    let of = |(_, version): (_, &Version)| String::from_utf8(version.value.expose().to_vec()).unwrap();
    document.get(&item(name), None, None).map(of)
}

#[test]
fn a_write_counts_up_and_leaves_nothing_beside_the_file() {
    let folder = Scratch::new();
    let (path, keys) = created(&folder);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(document(&path, &keys).generation, 1);
    set_mode(&path, 0o640);
    assert_eq!(set(&path, &keys, "a", "1").unwrap(), 1);
    assert_eq!(set(&path, &keys, "a", "2").unwrap(), 2);
    let now = document(&path, &keys);
    assert_eq!((now.generation, value(&now, "a").as_deref()), (3, Some("2")));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640, "the old mode is kept");
    assert_eq!(folder.names(), ["prod.age"]);
}

#[test]
fn a_file_that_is_there_is_not_created_again() {
    let folder = Scratch::new();
    let (path, keys) = created(&folder);
    let before = read(&path);
    let again = || create(&path, Document::new(environment("prod"), None), &keys, &Guard::default());
    assert!(matches!(again(), Err(Kind::Exists)));
    std::fs::remove_file(&path).unwrap();
    symlink("nowhere", &path).unwrap();
    assert!(matches!(again(), Err(Kind::Exists)), "a dangling link is not written through");
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, &before).unwrap();
    assert_eq!((read(&path), folder.names()), (before, vec!["prod.age".to_owned()]));
}

#[test]
fn a_change_that_fails_leaves_everything_as_it_was() {
    let folder = Scratch::new();
    let (path, keys) = created(&folder);
    let before = (read(&path), std::fs::metadata(&path).unwrap().ino());
    let failed: Result<(), _> = update(&path, &keys, &Guard::default(), |document| {
        document.remove(&item("none"))?;
        Ok::<(), DocumentError>(())
    });
    assert!(matches!(failed, Err(Failure::Change(DocumentError::Absent(_)))));
    assert_eq!((read(&path), std::fs::metadata(&path).unwrap().ino()), before);
    assert_eq!(folder.names(), ["prod.age"]);
}

#[test]
fn what_could_not_be_opened_afterwards_is_not_written() {
    let folder = Scratch::new();
    let (path, keys) = created(&folder);
    let before = read(&path);
    let foreign = One(keys.0, x25519::Identity::generate().to_public());
    assert!(matches!(set(&path, &foreign, "a", "1"), Err(Failure::File(Kind::NoReadBack))));
    assert!(matches!(set(&path, &One::new(), "a", "1"), Err(Failure::File(Kind::NoIdentityFits { .. }))));
    let other = folder.path("other.age");
    let refused = create(&other, Document::new(environment("prod"), None), &foreign, &Guard::default());
    assert!(matches!(refused, Err(Kind::NoReadBack)));
    assert_eq!((read(&path), folder.names()), (before, vec!["prod.age".to_owned()]));
}

/// Keeps every file key that it is given.
struct Keeper<'k> {
    keys: &'k One,
    file_keys: RefCell<Vec<Vec<u8>>>,
}

impl Recipient for Keeper<'_> {
    fn wrap_file_key(&self, file_key: &FileKey) -> Result<(Vec<Stanza>, HashSet<String>), EncryptError> {
        self.file_keys.borrow_mut().push(file_key.expose_secret().to_vec());
        self.keys.1.wrap_file_key(file_key)
    }
}

impl Keys for Keeper<'_> {
    fn open(&self, bytes: Vouched<'_>) -> Result<Secret, Kind> {
        self.keys.open(bytes)
    }

    fn with_recipients(&self, seal: Seal<'_>) -> Result<Vec<u8>, Kind> {
        seal(&[self])
    }
}

/// sops#365, #901: who was taken out keeps the data key, and with it whatever is written later under the same one.
#[test]
fn the_file_key_is_another_one_after_each_write() {
    let folder = Scratch::new();
    let (path, keys) = created(&folder);
    let keeper = Keeper { keys: &keys, file_keys: RefCell::default() };
    for _ in 0..4 {
        update(&path, &keeper, &Guard::default(), |_| Ok::<(), DocumentError>(())).unwrap();
    }
    let file_keys = keeper.file_keys.into_inner();
    assert_eq!((file_keys.len(), file_keys.iter().collect::<HashSet<_>>().len()), (4, 4));
    let file = read(&path);
    let opens = |key: &[u8]| {
        let key = FileKey::new(Box::new(key.try_into().unwrap()));
        sealed::SealedBytes::parse(Vouched::of_no_store(&file)).unwrap().open_with_file_key(key).is_ok()
    };
    assert_eq!(file_keys.iter().map(|key| opens(key)).collect::<Vec<_>>(), [false, false, false, true]);
}

#[test]
fn a_rehearsal_sees_what_would_be_refused_and_touches_nothing() {
    let folder = Scratch::new();
    let (path, keys) = created(&folder);
    let before = (read(&path), std::fs::metadata(&path).unwrap().ino());
    let set = |document: &mut Document| document.set(&item("a"), secret("1"), "me", SystemTime::now());
    // Not even a lock is needed.
    let place = Place::lock(&path).unwrap();
    assert_eq!(rehearse(&path, &keys, &Guard::default(), set).unwrap(), 1);
    drop(place);
    let foreign = One(keys.0, x25519::Identity::generate().to_public());
    assert!(matches!(rehearse(&path, &foreign, &Guard::default(), set), Err(Failure::File(Kind::NoReadBack))));
    let refused = |_: &mut Document| Err::<(), _>(DocumentError::Author);
    assert!(matches!(
        rehearse(&path, &foreign, &Guard::default(), refused),
        Err(Failure::Change(DocumentError::Author))
    ));
    assert_eq!((read(&path), std::fs::metadata(&path).unwrap().ino()), before);
    assert_eq!(folder.names(), ["prod.age"]);
}

#[test]
fn a_link_stays_and_its_target_is_replaced() {
    let (folder, elsewhere) = (Scratch::new(), Scratch::new());
    let (target, keys) = created(&elsewhere);
    let link = folder.path("link.age");
    symlink(&target, &link).unwrap();
    set(&link, &keys, "a", "1").unwrap();
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(value(&document(&target, &keys), "a").as_deref(), Some("1"));
    assert_eq!((folder.names(), elsewhere.names()), (vec!["link.age".to_owned()], vec!["prod.age".to_owned()]));
}

#[test]
fn leftovers_of_dead_writers_go_and_nothing_else_does() {
    let folder = Scratch::new();
    let (path, keys) = created(&folder);
    let mine = [".prod.age.0123456789abcdef.tmp", ".prod.age.ffffffffffffffff.tmp"];
    let not_mine =
        [".dev.age.0123456789abcdef.tmp", ".prod.age.0123.tmp", "prod.age.0123456789abcdef.tmp", ".prod.age.tmp"];
    for name in mine.iter().chain(&not_mine) {
        folder.write(name, "x", 0o600);
    }
    set(&path, &keys, "a", "1").unwrap();
    let mut expected: Vec<_> = not_mine.iter().map(ToString::to_string).chain(["prod.age".to_owned()]).collect();
    expected.sort();
    assert_eq!(folder.names(), expected);
}

#[test]
fn a_held_lock_is_an_error_that_names_its_holder() {
    let folder = Scratch::new();
    let (path, keys) = created(&folder);
    let place = Place::lock(&path).unwrap();
    let start = Instant::now();
    let Err(Failure::File(kind @ Kind::Locked { .. })) = set(&path, &keys, "a", "1") else { panic!() };
    assert!((LOCK_LIMIT..LOCK_LIMIT * 3).contains(&start.elapsed()));
    let message = kind.at(&path).to_string();
    assert!(message.contains("is being written by"), "{message}");
    if let Ok(locks) = File::open("/proc/locks") {
        let listed = BufReader::new(locks).lines().map_while(Result::ok);
        let us = format!(" {} ", std::process::id());
        if listed.into_iter().any(|line| line.contains("FLOCK") && line.contains(&us)) {
            assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
        }
    }
    drop(place);
    set(&path, &keys, "a", "1").unwrap();
}

#[test]
fn twenty_writers_lose_no_update() {
    let folder = Scratch::new();
    let (path, keys) = created(&folder);
    let start = document(&path, &keys).generation;
    std::thread::scope(|scope| {
        for writer in 0..20 {
            let (path, keys) = (&path, &keys);
            scope.spawn(move || {
                for round in 0..10 {
                    // On a slow disk a writer may wait its two seconds in vain; then nothing was written, and it tries again.
                    loop {
                        match set(path, keys, &format!("w{writer}"), &round.to_string()) {
                            Err(Failure::File(Kind::Locked { .. })) => {}
                            done => break assert_eq!(done.unwrap(), round + 1),
                        }
                    }
                }
            });
        }
    });
    let now = document(&path, &keys);
    assert_eq!((now.generation, now.items().count()), (start + 200, 20));
    assert!((0..20).all(|writer| value(&now, &format!("w{writer}")).as_deref() == Some("9")));
    assert_eq!(folder.names(), ["prod.age"]);
}

#[test]
fn what_is_no_regular_file_is_an_error_without_a_hang() {
    let folder = Scratch::new();
    let keys = One::new();
    let fifo = folder.path("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    std::fs::create_dir(folder.path("sub")).unwrap();
    for path in [fifo, folder.path("sub"), PathBuf::from("/dev/null"), PathBuf::from("/")] {
        assert!(matches!(set(&path, &keys, "a", "1"), Err(Failure::File(Kind::File(_) | Kind::Io { .. }))), "{path:?}");
    }
    let absent = set(&folder.path("none.age"), &keys, "a", "1");
    assert!(matches!(absent, Err(Failure::File(Kind::File(error))) if error.is_absent()));
}

#[test]
fn a_folder_that_others_can_write_is_refused() {
    let folder = Scratch::new();
    let (path, keys) = created(&folder);
    for mode in [0o777, 0o1777] {
        set_mode(&folder.path(""), mode);
        assert!(matches!(set(&path, &keys, "a", "1"), Err(Failure::File(Kind::File(_)))));
        let other = create(&folder.path("b.age"), Document::new(environment("prod"), None), &keys, &Guard::default());
        assert!(matches!(other, Err(Kind::File(_))));
    }
    set_mode(&folder.path(""), 0o700);
    set_mode(&path, 0o666);
    assert!(matches!(set(&path, &keys, "a", "1"), Err(Failure::File(Kind::File(_)))));
    assert_eq!(folder.names(), ["prod.age"]);
}

#[test]
fn a_temporary_file_goes_with_the_error() {
    let folder = Scratch::new();
    let (path, _) = created(&folder);
    let place = Place::lock(&path).unwrap();
    let temporary = place.write_temporary(b"new", None, |_| Ok(())).unwrap();
    assert_eq!(folder.names().len(), 2);
    assert!(matches!(temporary.link(), Err(Kind::Exists)));
    assert_eq!(folder.names(), ["prod.age"]);
    let temporary = place.write_temporary(b"new", None, |_| Ok(())).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(matches!(temporary.replace(), Err(Kind::Io { doing: "replace it", .. })));
    assert_eq!(folder.names(), ["prod.age"]);
}
