//! Power cuts after a rotation: the log, synced or moved, is what it was; its head and its seals are what they were before.

use super::sealing::Auditing;
use super::*;
use crate::audit::head::{Boot, Head, HeadFile};
use crate::audit::verify::FindingKind;

/// What is not synced, as it was at some time.
struct Unsynced(Vec<(PathBuf, Vec<u8>)>);

impl Unsynced {
    fn of(folder: &Folder) -> Self {
        let names = ["audit.jsonl.head", "audit.jsonl.seal"].map(|name| folder.0.join(name));
        Self(names.into_iter().filter(|path| path.exists()).map(|path| (path.clone(), read(&path))).collect())
    }

    /// In the same files.
    fn come_back(&self) {
        for (path, bytes) in &self.0 {
            put(path, bytes);
        }
    }
}

/// The power was off since the head was written.
fn start_again(folder: &Folder) {
    let file = HeadFile::open(&folder.log()).unwrap();
    let head = file.read().unwrap().1.unwrap();
    file.write(&Head { boot: Some(Boot([7; 8])), ..head }).unwrap();
}

/// A log of three records, and its head and seals as they were then, with two records more in it.
fn behind(is_sealed: bool) -> (Auditing, Unsynced) {
    let mut auditing = Auditing::new();
    if is_sealed {
        auditing.init().unwrap();
    } else {
        write(&mut auditing.folder.auditor(), 1);
    }
    write(&mut auditing.folder.auditor(), 2);
    let unsynced = Unsynced::of(&auditing.folder);
    write(&mut auditing.folder.auditor(), 2);
    (auditing, unsynced)
}

fn verified(auditing: &Auditing, logs: &[PathBuf], is_sealed: bool) -> Report {
    if is_sealed {
        return auditing.report(logs);
    }
    verify(logs, Start::Beginning, Means::default()).unwrap()
}

#[test]
fn a_power_cut_after_a_rotation_uses_no_number_twice() {
    for is_sealed in [false, true] {
        // As logrotate calls it, and as nobody does; and with the empty log that logrotate's `create` makes.
        for (name, is_made) in [("audit.jsonl.1", false), ("yesterday", false), ("audit.jsonl-20260102", true)] {
            let (auditing, unsynced) = behind(is_sealed);
            let moved = auditing.folder.0.join(name);
            std::fs::rename(auditing.log(), &moved).unwrap();
            if is_made {
                put(&auditing.log(), b"");
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
                std::fs::set_permissions(auditing.log(), mode).unwrap();
            }
            unsynced.come_back();
            start_again(&auditing.folder);
            write(&mut auditing.folder.auditor(), 2);
            let report = verified(&auditing, &[moved, auditing.log()], is_sealed);
            assert_eq!(report.findings.len(), 0, "{is_sealed} {name}: {:?}", report.findings);
            assert_eq!((report.state(), report.records), (State::Intact, 7));
            assert_eq!(report.sealed, if is_sealed { 7 } else { 0 });
        }
    }
}

#[test]
fn nor_one_after_two_rotations() {
    for is_sealed in [false, true] {
        let (auditing, unsynced) = behind(is_sealed);
        let [first, second] = ["audit.jsonl.2", "audit.jsonl.1"].map(|name| auditing.folder.0.join(name));
        std::fs::rename(auditing.log(), &first).unwrap();
        write(&mut auditing.folder.auditor(), 3);
        std::fs::rename(auditing.log(), &second).unwrap();
        unsynced.come_back();
        start_again(&auditing.folder);
        write(&mut auditing.folder.auditor(), 1);
        let report = verified(&auditing, &[first, second, auditing.log()], is_sealed);
        assert_eq!((report.state(), report.records), (State::Intact, 9), "{:?}", report.findings);
    }
}

/// A writer that is killed between the log and the head, and a rotation before the next one.
#[test]
fn a_killed_writer_and_a_rotation_use_no_number_twice() {
    let (auditing, unsynced) = behind(true);
    let moved = auditing.folder.0.join("audit.jsonl.1");
    std::fs::rename(auditing.log(), &moved).unwrap();
    unsynced.come_back();
    write(&mut auditing.folder.auditor(), 2);
    assert_eq!(auditing.report(&[moved, auditing.log()]).state(), State::Intact);
}

/// Nobody knows then how far it went, so that is said and numbers are left out: what was written before may be somewhere.
#[test]
fn a_log_that_is_nowhere_after_a_power_cut_leaves_a_hole() {
    for is_sealed in [false, true] {
        let (auditing, unsynced) = behind(is_sealed);
        let elsewhere = Folder::new();
        let moved = elsewhere.0.join("audit.jsonl.1");
        std::fs::copy(auditing.log(), &moved).unwrap();
        std::fs::remove_file(auditing.log()).unwrap();
        unsynced.come_back();
        start_again(&auditing.folder);
        // A stranger's file of the same name is not believed.
        let stranger = Folder::new();
        write(&mut stranger.auditor(), 9);
        std::fs::copy(stranger.log(), auditing.folder.0.join("audit.jsonl.1")).unwrap();
        write(&mut auditing.folder.auditor(), 2);
        let report = verified(&auditing, &[moved, auditing.log()], is_sealed);
        let found: Vec<_> = report.findings.iter().map(|finding| &finding.kind).collect();
        assert!(matches!(found.as_slice(), [FindingKind::Gap { from: 6, .. }]), "{found:?}");
        assert_eq!((report.state(), report.records), (State::Incomplete, 8));
        assert_eq!(report.sealed, if is_sealed { 8 } else { 0 });
        assert!(lines(&auditing.log())[0].contains("the machine started again since"));
    }
}
