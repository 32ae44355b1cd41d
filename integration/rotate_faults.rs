//! A rotation that is killed at every call and whose every call fails: consumers have the old value or the new one, and one
//! command finishes with exactly one version more.

use std::os::unix::process::ExitStatusExt;

use serde_json::Value;

use crate::faults::ERRORS;
use crate::have;
use crate::sealed::Sealed;
use crate::strace::{Point, Traced, WRITING, baseline, inject, points, vouchsafe};

/// One secret that is rotated over and over, one that must stay as it is.
struct Rotating(Sealed);

/// What the store holds of the rotated item: number and value by stage.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stages {
    current: (u64, String),
    pending: Option<(u64, String)>,
    previous: Option<(u64, String)>,
}

impl Rotating {
    fn new() -> Self {
        let sealed = Sealed::with(&[("A", "first"), ("B", "untouched")]);
        let policy = sealed.scene.path("policy.toml");
        let text = std::fs::read_to_string(&policy).unwrap().replace("\nA = {}\n", "\nA = { rotate = {} }\n");
        std::fs::write(&policy, text).unwrap();
        Self(sealed)
    }

    fn words(options: &[&str]) -> Vec<std::ffi::OsString> {
        vouchsafe(&[&["rotate", "--policy", "policy.toml"], options].concat())
    }

    fn rotate(&self, options: &[&str]) -> crate::harness::Outcome {
        self.0.scene.vouchsafe(&Self::words(options)[1..])
    }

    /// Decrypts the store here, without the binary under test.
    fn stages(&self) -> Stages {
        let document = self.0.document();
        let item = &document["items"]["A"];
        let at = |stage: &str| {
            let version: &Value = &item[stage];
            version["number"].as_u64().map(|number| (number, version["value"].as_str().unwrap().to_owned()))
        };
        assert_eq!(document["items"]["B"]["current"]["value"], "untouched");
        Stages { current: at("current").unwrap(), pending: at("pending"), previous: at("previous") }
    }

    fn points(&self, names: &[&str]) -> Vec<Point> {
        let traced = baseline(&self.0.scene, &Self::words(&["A"]), b"");
        assert_eq!(traced.status.code(), Some(0), "{}", traced.transcript());
        points(&traced, names)
    }

    /// A rotation with a fault. The store is looked at before anything else touches it.
    fn strike(&self, point: &Point, fault: &str) -> (Traced, Stages, Stages) {
        let before = self.stages();
        assert_eq!(before.pending, None);
        let traced = inject(&self.0.scene, point, fault, &Self::words(&["A"]), b"");
        let after = self.stages();
        let when = format!("{fault} at {} ({})\n{}", point.name, point.text, traced.transcript());
        let next = before.current.0 + 1;
        let is_old = after == before;
        let is_begun = after.current == before.current && after.pending.as_ref().is_some_and(|one| one.0 == next);
        let is_new =
            after.current.0 == next && after.previous.as_ref() == Some(&before.current) && after.pending.is_none();
        assert!(is_old || is_begun || is_new, "{before:?} became {after:?} after {when}");
        (traced, before, after)
    }

    /// One command finishes what was begun; the next rotation is as if nothing had been.
    fn recover(&self, before: &Stages, struck: &Stages, when: &str) {
        let outcome = self.rotate(&["--resume"]);
        assert_eq!(outcome.status.code(), Some(0), "after {when}: {}", outcome.transcript());
        let after = self.stages();
        assert_eq!(after.pending, None, "after {when}");
        if struck == before {
            assert_eq!(&after, before, "after {when}: nothing was begun");
        } else {
            assert_eq!(after.current.0, before.current.0 + 1, "after {when}: exactly one version more");
            assert_eq!(after.previous.as_ref(), Some(&before.current), "after {when}");
            let made = struck.pending.as_ref().unwrap_or(&struck.current);
            assert_eq!(&after.current, made, "after {when}: the value that was made, and no other");
        }
        let outcome = self.rotate(&["A"]);
        assert_eq!(outcome.status.code(), Some(0), "after {when}: {}", outcome.transcript());
        assert_eq!(self.stages().current.0, after.current.0 + 1, "after {when}");
        assert!(self.0.leftovers().is_empty(), "after {when}: {:?}", self.0.leftovers());
        self.0.expect_intact(when);
    }
}

#[test]
fn a_rotation_that_is_killed_anywhere_is_finished_by_resume() {
    if !have(&["strace"], true) {
        return;
    }
    let rotating = Rotating::new();
    let points = rotating.points(&[WRITING, &["pread64", "close", "exit_group"]].concat());
    assert!(points.len() >= 80, "{}", points.len());
    let (mut old, mut begun, mut new) = (0, 0, 0);
    for point in &points {
        let (traced, before, after) = rotating.strike(point, "signal=KILL");
        assert_eq!(traced.status.signal(), Some(9));
        match &after {
            after if *after == before => old += 1,
            after if after.pending.is_some() => begun += 1,
            _ => new += 1,
        }
        let read = rotating.0.run(&["/usr/bin/printenv", "A"]);
        assert_eq!(read.out().trim_end(), after.current.1, "a kill at {}: {}", point.text, read.transcript());
        rotating.recover(&before, &after, &format!("a kill at {}", point.text));
    }
    assert!(old >= 20 && begun >= 15 && new >= 8, "{old} with the old value, {begun} begun, {new} with the new one");
}

#[test]
fn a_rotation_whose_calls_fail_leaves_the_old_or_the_new() {
    if !have(&["strace"], true) {
        return;
    }
    let rotating = Rotating::new();
    let points = rotating.points(WRITING);
    assert!(points.len() >= 60, "{}", points.len());
    let (mut refused, mut told) = (0, 0);
    for point in &points {
        for error in ERRORS {
            let when = format!("{error} at {}", point.text);
            let (traced, before, after) = rotating.strike(point, &format!("error={error}"));
            let status = traced.status.code().unwrap_or_else(|| panic!("{when}\n{}", traced.transcript()));
            assert!([0, 121, 122, 123, 124, 125].contains(&status), "{when}: {}", traced.transcript());
            let stderr = String::from_utf8_lossy(&traced.stderr).into_owned();
            if status == 0 {
                assert_eq!(after.current.0, before.current.0 + 1, "{when}: a success that rotated nothing");
            } else {
                refused += 1;
                assert!(stderr.contains("error[") && !stderr.contains("internal error"), "{when}: {stderr}");
            }
            if status != 0 && after != before {
                told += 1;
                let tells = ["left to do: A", "was done, but not written down", "was replaced"];
                assert!(tells.iter().any(|words| stderr.contains(words)), "{when}: nobody says so: {stderr}");
            }
            rotating.recover(&before, &after, &when);
        }
    }
    assert!(refused >= 150 && told >= 40, "{refused} were refused, {told} of them with something begun");
}
