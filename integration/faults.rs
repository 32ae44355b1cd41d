//! A store that is written while everything goes wrong: killed at every call, every call failing in every way. Afterwards it
//! is the old one or the new one, whole, and the next writer goes on.

use std::os::unix::process::ExitStatusExt;

use crate::have;
use crate::sealed::{Content, Sealed};
use crate::strace::{Point, Traced, WRITING, baseline, inject, points};

/// What a disk, a quota or a signal answers.
pub const ERRORS: [&str; 5] = ["ENOSPC", "EIO", "EROFS", "EDQUOT", "EINTR"];

/// One secret that is written over and over, one that must stay as it is.
struct Writing {
    sealed: Sealed,
    serial: u32,
    value: String,
}

impl Writing {
    fn new() -> Self {
        Self { sealed: Sealed::with(&[("A", "first"), ("B", "untouched")]), serial: 0, value: "first".into() }
    }

    fn next_value(&mut self) -> String {
        self.serial += 1;
        format!("value {}", self.serial)
    }

    /// Every point of a `set` that goes well.
    fn points(&mut self, names: &[&str]) -> Vec<Point> {
        let value = self.next_value();
        let traced = baseline(&self.sealed.scene, &Sealed::set_command("A"), value.as_bytes());
        assert_eq!(traced.status.code(), Some(0), "{}", traced.transcript());
        self.value = value;
        points(&traced, names)
    }

    /// A `set` with a fault; the store is looked at before anything else touches it. Says whether the new value is there.
    fn strike(&mut self, point: &Point, fault: &str) -> (Traced, bool) {
        let before = self.sealed.content();
        assert_eq!(before.values["A"], self.value);
        let value = self.next_value();
        let traced = inject(&self.sealed.scene, point, fault, &Sealed::set_command("A"), value.as_bytes());
        let after = self.sealed.content();
        let mut replaced = Content { generation: before.generation + 1, ..before.clone() };
        replaced.values.insert("A".into(), value.clone());
        let when = format!("{fault} at {} ({})\n{}", point.name, point.text, traced.transcript());
        assert!(after == before || after == replaced, "{after:?}: neither old nor new after {when}");
        let is_new = after == replaced;
        if is_new {
            self.value = value;
        }
        (traced, is_new)
    }

    /// The next writer goes on and cleans up, and the log holds nothing that looks like an attack.
    fn recover(&mut self, when: &str) {
        let value = self.next_value();
        let generation = self.sealed.content().generation;
        let outcome = self.sealed.set("A", &value);
        assert_eq!(outcome.status.code(), Some(0), "after {when}: {}", outcome.transcript());
        let content = self.sealed.content();
        assert_eq!((content.generation, &content.values["A"]), (generation + 1, &value), "after {when}");
        assert_eq!(content.values["B"], "untouched");
        assert!(self.sealed.leftovers().is_empty(), "after {when}: {:?}", self.sealed.leftovers());
        self.value = value;
        self.sealed.expect_intact(when);
    }
}

#[test]
fn a_writer_that_is_killed_anywhere_loses_nothing() {
    if !have(&["strace"], true) {
        return;
    }
    let mut writing = Writing::new();
    let mut names = WRITING.to_vec();
    names.extend(["pread64", "close", "exit_group"]);
    let points = writing.points(&names);
    assert!(points.len() >= 30, "{}", points.len());
    let (mut old, mut new, mut left) = (0, 0, 0);
    for point in &points {
        let (traced, is_new) = writing.strike(point, "signal=KILL");
        assert_eq!(traced.status.signal(), Some(9));
        if is_new {
            new += 1
        } else {
            old += 1
        }
        left += writing.sealed.leftovers().len();
        writing.recover(&format!("a kill at {}", point.text));
    }
    assert!(old >= 10 && new >= 5, "{old} with the old value, {new} with the new one");
    assert!(left >= 3, "{left} temporary files were left for the next writer");
}

#[test]
fn the_first_writer_of_all_can_be_killed_anywhere() {
    if !have(&["strace"], true) {
        return;
    }
    let names = [WRITING, &["exit_group"]].concat();
    let fresh = || {
        let writing = Writing::new();
        for file in ["store/store.age", "log/audit.jsonl", "log/audit.jsonl.head"] {
            std::fs::remove_file(writing.sealed.scene.path(file)).unwrap();
        }
        writing
    };
    let first = fresh();
    let traced = baseline(&first.sealed.scene, &Sealed::set_command("A"), b"x");
    assert_eq!(traced.status.code(), Some(0), "{}", traced.transcript());
    let points = points(&traced, &names);
    assert!(points.len() >= 35, "{}", points.len());
    for point in points {
        let writing = fresh();
        inject(&writing.sealed.scene, &point, "signal=KILL", &Sealed::set_command("A"), b"x");
        let outcome = writing.sealed.set("A", "y");
        assert_eq!(outcome.status.code(), Some(0), "a kill at {}: {}", point.text, outcome.transcript());
        assert_eq!(writing.sealed.content().values["A"], "y");
        assert!(writing.sealed.leftovers().is_empty(), "a kill at {}: {:?}", point.text, writing.sealed.leftovers());
        writing.sealed.expect_intact(&format!("a kill at {}", point.text));
    }
}

/// The status that a failing call of `set` must lead to, by what the call was for. EINTR is asked again.
fn expected(point: &Point) -> &'static [i32] {
    let is = |what: &str| point.text.contains(what);
    if is("LOCK_UN") {
        &[0]
    } else if is("/log/") || is("/log>") {
        &[123]
    } else if is("/store/") || is("/store>") {
        &[122]
    } else if is("identity.key") {
        &[124]
    } else if is("policy.toml") || is("host.toml") {
        &[121]
    } else if point.text.starts_with("read(0") {
        &[2]
    } else {
        // /etc/passwd and the like say who acts, and may be missing; the last line on standard output may not.
        &[0, 125]
    }
}

#[test]
fn a_writer_whose_calls_fail_leaves_the_old_or_the_new() {
    if !have(&["strace"], true) {
        return;
    }
    let mut writing = Writing::new();
    let names = [WRITING, &["pread64", "fstat", "getdents64", "read"]].concat();
    let points = writing.points(&names);
    assert!(points.len() >= 40, "{}", points.len());
    let (mut refused, mut told) = (0, 0);
    for point in &points {
        for error in ERRORS {
            let when = format!("{error} at {}", point.text);
            let (traced, is_new) = writing.strike(point, &format!("error={error}"));
            let status = traced.status.code().unwrap_or_else(|| panic!("{when}\n{}", traced.transcript()));
            let accepted = expected(point);
            let retried = error == "EINTR" && status == 0;
            assert!(accepted.contains(&status) || retried, "{when}: status {status}\n{}", traced.transcript());
            assert!(status != 0 || is_new, "{when}: a success that wrote nothing");
            assert!(writing.sealed.leftovers().is_empty(), "{when}: {:?}", writing.sealed.leftovers());
            if status != 0 {
                refused += 1;
                let stderr = String::from_utf8_lossy(&traced.stderr).into_owned();
                assert!(stderr.contains("error[") && !stderr.contains("internal error"), "{when}: {stderr}");
                if is_new && status != 125 {
                    told += 1;
                    let tells = ["was replaced", "change was made"].iter().any(|words| stderr.contains(words));
                    assert!(tells, "{when}: the value is in the store, and nobody says so: {stderr}");
                }
            }
        }
        writing.recover(&point.text);
    }
    assert!(refused >= 100 && told >= 5, "{refused} were refused, {told} of them after the replacement");
}

#[test]
fn what_cannot_be_removed_is_removed_by_the_next_writer() {
    if !have(&["strace"], true) {
        return;
    }
    let mut writing = Writing::new();
    let point = writing.points(&["renameat"]).pop().unwrap();
    let before = writing.sealed.content();
    let command = Sealed::set_command("A");
    let rules = ["-y", "-e", "inject=renameat:error=EIO", "-e", "inject=unlinkat,unlink:error=EIO"];
    let traced = crate::strace::trace(&writing.sealed.scene, &rules, &command, b"lost");
    assert_eq!(traced.status.code(), Some(122), "{}\n{}", point.text, traced.transcript());
    assert_eq!(traced.count(|call| call.mentions("(INJECTED)")), 2, "{}", traced.transcript());
    assert_eq!(writing.sealed.content(), before);
    assert_eq!(writing.sealed.leftovers().len(), 1);
    writing.recover("a leftover");
}

#[test]
fn a_writer_over_its_file_size_limit_fails_with_a_status_of_ours() {
    if !have(&["prlimit"], true) {
        return;
    }
    let mut writing = Writing::new();
    let log = std::fs::metadata(writing.sealed.scene.path("log/audit.jsonl")).unwrap().len();
    // In the middle of a record, at its start, and where the records fit and the store does not.
    for (limit, status) in [(log + 100, 123), (log, 123), (1, 123), (200_000, 122)] {
        let before = writing.sealed.content();
        let value = "x".repeat(if status == 122 { 120_000 } else { 10 });
        if status == 122 {
            // Armor makes a third more of it; with the version before it twice that.
            writing.sealed.set("B", &"y".repeat(120_000)).expect_status(0);
        }
        let before = if status == 122 { writing.sealed.content() } else { before };
        let mut words = vec![format!("--fsize={limit}"), "--".into()];
        words.extend(Sealed::set_command("A").into_iter().map(|word| word.into_string().unwrap()));
        let mut limited = writing.sealed.scene.other("prlimit", &words);
        let mut child = limited
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), value.as_bytes()).unwrap_or_default();
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "limit {limit}: {:?} {told}", output.status);
        assert_eq!(writing.sealed.content(), before);
        assert!(writing.sealed.leftovers().is_empty(), "limit {limit}: {:?}", writing.sealed.leftovers());
        if status == 122 {
            writing.sealed.set("B", "untouched").expect_status(0);
        }
        writing.recover(&format!("a limit of {limit}"));
    }
}

/// A `set` waits for the lock of the folder that its link leads to; meanwhile the link is turned to another store.
#[test]
fn a_link_that_is_turned_under_a_writer_does_not_mix_two_stores() {
    if !have(&[], true) {
        return;
    }
    let sealed = Sealed::with(&[("A", "first"), ("B", "untouched")]);
    let scene = &sealed.scene;
    std::fs::create_dir(scene.path("other")).unwrap();
    std::fs::copy(scene.path("store/store.age"), scene.path("other/store.age")).unwrap();
    sealed.set("B", "in the first store only").expect_status(0);
    let before = sealed.content();
    std::fs::rename(scene.path("store"), scene.path("first")).unwrap();
    std::os::unix::fs::symlink("first", scene.path("store")).unwrap();

    let folder = std::fs::File::open(scene.path("first")).unwrap();
    rustix::fs::flock(&folder, rustix::fs::FlockOperation::LockExclusive).unwrap();
    scene.write_mode("input", b"second", 0o600);
    let mut set = scene.command(&["set", "A", "--policy", "policy.toml", "--from-file", "input"]);
    let set = set.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let has_opened_it = || {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", set.id())).unwrap();
        descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()).any(|at| at == scene.path("first"))
    };
    let start = std::time::Instant::now();
    while !has_opened_it() {
        assert!(start.elapsed().as_secs() < 20, "it never came to the lock");
        std::thread::yield_now();
    }
    std::os::unix::fs::symlink("other", scene.path("turned")).unwrap();
    std::fs::rename(scene.path("turned"), scene.path("store")).unwrap();
    drop(folder);
    let output = set.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let after = sealed.content_of(&scene.path("first/store.age"));
    assert_eq!(after, before, "status {:?}: {told}", output.status);
    assert_eq!(output.status.code(), Some(122), "{told}");
    assert!(told.contains("replaced"), "{told}");
    sealed.set("A", "second").expect_status(0);
    assert_eq!(sealed.content_of(&scene.path("other/store.age")).values["A"], "second");
}
