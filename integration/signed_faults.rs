//! A signed sealed file that is written while everything goes wrong: killed at every call, every call failing, a full disk, other
//! writers. At every instant the file that lies there is one that a signature beside it fits, and nothing is lost.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;

use crate::full_disk::{fill, mounted_tmpfs};
use crate::harness::{Outcome, Scene};
use crate::have;
use crate::sealed::{Content, Sealed};
use crate::strace::{Point, Traced, WRITING, inject_as, points, trace_as, vouchsafe};

/// A store whose signatures are demanded, and the key `alice` that makes them.
struct Signed {
    sealed: Sealed,
    serial: u32,
}

impl Signed {
    fn new() -> Self {
        Self::in_scene(Scene::new())
    }

    fn in_scene(scene: Scene) -> Self {
        let words = ["-q", "-t", "ed25519", "-N", "", "-C", "alice", "-f", "alice"];
        assert!(scene.other("ssh-keygen", &words).status().unwrap().success());
        let sealed = Sealed::with_scene(scene, &[("A", "first"), ("B", "untouched")]);
        let scene = &sealed.scene;
        let words = ["policy", "sign", "policy.toml", "--key", "alice", "--sealed-files"];
        scene.vouchsafe(&words).expect_status(0);
        let key = std::fs::read_to_string(scene.path("alice.pub")).unwrap();
        let host = format!(
            "[trust]\nenvironments = [\"test\"]\nsealed_files = [\"test\"]\n[[trust.keys]]\nkey = \"{}\"\n\
             environments = [\"test\"]\n",
            key.trim()
        );
        scene.write("host.toml", host.as_bytes());
        Self { sealed, serial: 0 }
    }

    fn words() -> [&'static str; 6] {
        ["set", "A", "--policy", "policy.toml", "--sign-key", "alice"]
    }

    fn command() -> Vec<OsString> {
        vouchsafe(&Self::words())
    }

    fn set(&self, value: &str) -> Outcome {
        self.sealed.scene.vouchsafe_reading(&Self::words(), value.as_bytes())
    }

    fn next_value(&mut self) -> String {
        self.serial += 1;
        format!("value {}", self.serial)
    }

    /// What a host that demands signatures says of what lies there.
    #[track_caller]
    fn expect_answered_for(&self, when: &str) {
        let outcome = self.sealed.scene.vouchsafe(&["policy", "verify", "policy.toml", "--host", "host.toml"]);
        assert_eq!(outcome.status.code(), Some(0), "{when}: {}", outcome.transcript());
        assert!(outcome.out().contains("store.age: good, by SHA256:"), "{when}: {}", outcome.transcript());
    }

    fn signatures(&self) -> usize {
        let text = std::fs::read_to_string(self.sealed.scene.path("store/store.age.sig")).unwrap();
        text.matches("BEGIN SSH SIGNATURE").count()
    }

    fn leftovers(&self) -> Vec<OsString> {
        self.sealed.leftovers().into_iter().filter(|name| name != "store.age.sig").collect()
    }

    /// A `set` with a fault. Says whether the new value is there.
    fn strike(&mut self, point: &Point, fault: &str) -> (Traced, bool) {
        let before = self.sealed.content();
        let value = self.next_value();
        let traced = inject_as(&self.sealed.scene, &[], point, fault, &Self::command(), value.as_bytes());
        let when = format!("{fault} at {} ({})", point.name, point.text);
        let after = self.sealed.content();
        let mut replaced = Content { generation: before.generation + 1, ..before.clone() };
        replaced.values.insert("A".into(), value);
        assert!(after == before || after == replaced, "{after:?}: neither old nor new after {when}");
        self.expect_answered_for(&when);
        (traced, after == replaced)
    }

    /// The next writer goes on and tidies up.
    fn recover(&mut self, when: &str) {
        let (value, generation) = (self.next_value(), self.sealed.content().generation);
        let outcome = self.set(&value);
        assert_eq!(outcome.status.code(), Some(0), "after {when}: {}", outcome.transcript());
        let content = self.sealed.content();
        assert_eq!((content.generation, &content.values["A"]), (generation + 1, &value), "after {when}");
        assert_eq!(content.values["B"], "untouched");
        assert_eq!((self.signatures(), self.leftovers()), (1, Vec::new()), "after {when}");
        self.expect_answered_for(when);
    }

    fn points(&mut self, names: &[&str]) -> Vec<Point> {
        let value = self.next_value();
        let traced = trace_as(&self.sealed.scene, &["-y", "-e", "signal=none"], &Self::command(), value.as_bytes());
        assert_eq!(traced.status.code(), Some(0), "{}", traced.transcript());
        points(&traced, names)
    }
}

#[test]
fn a_signing_writer_that_is_killed_anywhere_leaves_what_is_answered_for() {
    if !have(&["strace", "ssh-keygen"], true) {
        return;
    }
    let mut signed = Signed::new();
    let points = signed.points(&[WRITING, &["wait4", "waitid", "exit_group"]].concat());
    assert!(points.len() >= 35, "{}", points.len());
    let (mut old, mut new, mut both) = (0, 0, 0);
    for point in &points {
        let (traced, is_new) = signed.strike(point, "signal=KILL");
        assert_eq!(traced.status.signal(), Some(9));
        if is_new {
            new += 1
        } else {
            old += 1
        }
        both += usize::from(signed.signatures() == 2);
        // What one killed writer leaves, another one killed there must live with too.
        let (_, is_new) = signed.strike(point, "signal=KILL");
        new += usize::from(is_new);
        signed.recover(&format!("a kill at {}", point.text));
    }
    assert!(old >= 10 && new >= 5 && both >= 4, "{old} old, {new} new, {both} with both signatures");
}

#[test]
fn a_signing_writer_whose_calls_fail_leaves_what_is_answered_for() {
    if !have(&["strace", "ssh-keygen"], true) {
        return;
    }
    let mut signed = Signed::new();
    let points = signed.points(&["openat", "write", "fsync", "renameat", "linkat", "fchmod", "flock"]);
    let points: Vec<_> =
        points.into_iter().filter(|point| point.text.contains("/store") || point.name == "renameat").collect();
    assert!(points.len() >= 12, "{}", points.len());
    let mut refused = 0;
    for point in &points {
        for error in ["ENOSPC", "EIO"] {
            let when = format!("{error} at {}", point.text);
            let (traced, is_new) = signed.strike(point, &format!("error={error}"));
            match traced.status.code() {
                Some(0) => assert!(is_new, "{when}: a success that wrote nothing"),
                status => {
                    assert_eq!(status, Some(122), "{when}\n{}", traced.transcript());
                    refused += 1;
                }
            }
            assert_eq!(signed.leftovers(), Vec::<OsString>::new(), "{when}");
        }
        signed.recover(&point.text);
    }
    assert!(refused >= 12, "{refused}");
}

/// The first file of all, and its first signature.
#[test]
fn the_first_signing_writer_can_be_killed_anywhere() {
    if !have(&["strace", "ssh-keygen"], true) {
        return;
    }
    let mut signed = Signed::new();
    let clear = |signed: &Signed| {
        for file in ["store.age", "store.age.sig"] {
            std::fs::remove_file(signed.sealed.scene.path(&format!("store/{file}"))).unwrap_or_default();
        }
    };
    clear(&signed);
    let names = ["renameat", "linkat", "unlinkat", "fsync"];
    let points = signed.points(&names);
    assert!(points.len() >= 12, "{}", points.len());
    for point in &points {
        clear(&signed);
        inject_as(&signed.sealed.scene, &[], point, "signal=KILL", &Signed::command(), b"x");
        let when = format!("a kill at {}", point.text);
        if signed.sealed.scene.path("store/store.age").exists() {
            signed.expect_answered_for(&when);
        }
        let outcome = signed.set("y");
        assert_eq!(outcome.status.code(), Some(0), "{when}: {}", outcome.transcript());
        assert_eq!((signed.sealed.content().values["A"].as_str(), signed.signatures()), ("y", 1), "{when}");
        assert!(signed.leftovers().is_empty(), "{when}");
        signed.expect_answered_for(&when);
    }
}

#[test]
fn a_full_disk_under_the_signature_loses_nothing() {
    if !have(&["mount", "umount", "ssh-keygen"], true) {
        return;
    }
    let scene = Scene::new();
    let disk = scene.path("store");
    let Some(mounted) = mounted_tmpfs(&scene, &disk) else { return };
    let mut signed = Signed::in_scene(scene);
    // Dropped before the scene that it lies in, also when the test fails.
    let mount = mounted;
    let filler = fill(&disk);
    let full = std::fs::metadata(&filler).unwrap().len();
    let (mut refused, mut room) = (0, 0);
    // One page more at each step: none for the file, one for the file and none for its signature, and so on.
    loop {
        std::fs::File::options().write(true).open(&filler).unwrap().set_len(full - room * 4096).unwrap();
        let before = signed.sealed.content();
        let value = signed.next_value();
        let outcome = signed.set(&value);
        signed.expect_answered_for(&format!("{room} pages"));
        if outcome.status.code() == Some(0) {
            assert_eq!(signed.sealed.content().values["A"], value);
            break;
        }
        let outcome = outcome.expect_status(122);
        assert!(outcome.err().contains("no space left"), "{}", outcome.transcript());
        assert_eq!(signed.sealed.content(), before, "{room} pages");
        let left: Vec<_> = signed.leftovers().into_iter().filter(|name| name != "filler").collect();
        assert!(left.is_empty(), "{left:?}");
        refused += 1;
        room += 1;
        assert!(room < 8, "{}", outcome.transcript());
    }
    assert!(refused >= 2, "{refused}");
    drop(mount);
}

#[test]
fn signing_writers_side_by_side_lose_nothing() {
    if !have(&["ssh-keygen"], false) {
        return;
    }
    const WRITERS: u64 = 3;
    const ROUNDS: u64 = 4;
    let signed = Signed::new();
    let before = signed.sealed.content().generation;
    let done: u64 = std::thread::scope(|scope| {
        let write = |writer: u64| {
            let one = |round: u64| {
                let outcome = signed.set(&format!("{writer}-{round}"));
                // On a busy machine the others may take longer than a writer waits.
                let is_locked = outcome.err().contains("is being written by");
                assert!(outcome.status.code() == Some(0) || is_locked, "{}", outcome.transcript());
                u64::from(outcome.status.code() == Some(0))
            };
            (0..ROUNDS).map(one).sum::<u64>()
        };
        let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || write(writer))).collect();
        // Whoever looks in between finds a file that is answered for.
        while writers.iter().any(|writer| !writer.is_finished()) {
            signed.expect_answered_for("while others write");
        }
        writers.into_iter().map(|writer| writer.join().unwrap()).sum()
    });
    assert!(done >= 1);
    assert_eq!((signed.sealed.content().generation, signed.signatures()), (before + done, 1));
    assert!(signed.leftovers().is_empty());
    signed.expect_answered_for("the end");
}

/// What nobody demands costs nothing: not even a look whether there is a signature.
#[test]
fn a_signature_is_looked_at_where_one_is_demanded_and_nowhere_else() {
    if !have(&["strace", "ssh-keygen", "unshare", "mount"], true) {
        return;
    }
    let signed = Signed::new();
    let scene = &signed.sealed.scene;
    let traced = trace_as(scene, &["-f", "-y"], &Sealed::run_command(&["true"]), b"");
    assert_eq!(traced.status.code(), Some(0), "{}", traced.transcript());
    assert_eq!(traced.count(|call| call.mentions(".sig")), 0, "{}", traced.transcript());
    assert_eq!(traced.count(|call| call.opens("store.age")), 1);
    let host = std::fs::read(scene.path("host.toml")).unwrap();
    scene.write("etc/vouchsafe/host.toml", &host);
    let script = "mount --bind etc /etc && exec \"$@\"";
    let words = ["-m", "sh", "-c", script, "sh"].map(OsString::from);
    let line: Vec<OsString> =
        std::iter::once("unshare".into()).chain(words).chain(Sealed::run_command(&["true"])).collect();
    let traced = trace_as(scene, &["-f", "-y"], &line, b"");
    assert_eq!(traced.status.code(), Some(0), "{}", traced.transcript());
    assert_eq!(traced.count(|call| call.opens("store.age.sig")), 1, "{}", traced.transcript());
    assert_eq!(traced.count(|call| call.opens("store.age\"")), 1);
}
