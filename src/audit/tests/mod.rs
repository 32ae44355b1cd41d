//! Logs on real files, in folders of their own.

mod anchoring;
mod file;
mod journal;
mod mirrors;
mod performance;
mod schema;
mod sealing;
pub(super) mod stream;
mod tampering;

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::verify::{Means, Report, Start, State, verify, verify_bytes};
use super::*;

/// A folder of one test, gone with it.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("vouchsafe-audit-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
        Self(path)
    }

    pub(super) fn log(&self) -> PathBuf {
        self.0.join("audit.jsonl")
    }

    pub(super) fn auditor(&self) -> Auditor {
        open(&self.log()).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn sink(path: &Path) -> Sink {
    Sink::File { path: path.to_str().unwrap().to_owned(), sync: false, evidence: Evidence::default() }
}

fn open(path: &Path) -> Result<Auditor, AuditError> {
    Auditor::open(&[sink(path)], context())
}

fn context() -> Context {
    Context {
        actor: Actor {
            uid: 1000,
            user: Some("api".into()),
            groups: vec![1000, 4],
            pid: 7,
            ppid: 1,
            tty: Some("/dev/pts/0".into()),
            host: "host-1".into(),
            container_id: None,
            process: process(),
            agent: None,
        },
        environment: Some(EnvironmentName::new("prod").unwrap()),
        service: Some(ServiceName::new("api").unwrap()),
        policy_digest: "ab".repeat(32),
        command: Some(CommandNote { path: "/usr/bin/api".into(), argument_count: 2 }),
    }
}

fn process() -> ProcessIdentity {
    ProcessIdentity { boot_id: Some("0f".repeat(16)), pid_namespace: Some(4_026_531_836), start_ticks: Some(1234) }
}

fn note(name: &str) -> SecretNote {
    SecretNote {
        name: name.into(),
        store: "params".into(),
        item: format!("/prod/api/{}", name.to_lowercase()),
        version: Some(3),
        stage: Some("current"),
        ..SecretNote::default()
    }
}

fn write(auditor: &mut Auditor, count: usize) {
    for index in 0..count {
        auditor.record(Event::SecretListed, Outcome::Succeeded, None, &[note(&format!("NAME_{index}"))]).unwrap();
    }
}

pub(super) fn read(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

fn put(path: &Path, bytes: &[u8]) {
    File::create(path).unwrap().write_all(bytes).unwrap();
}

fn lines(path: &Path) -> Vec<String> {
    String::from_utf8(read(path)).unwrap().lines().map(str::to_owned).collect()
}

fn check(paths: &[&Path]) -> Report {
    let paths: Vec<_> = paths.iter().map(|path| path.to_path_buf()).collect();
    verify(&paths, Start::Beginning, Means::default()).unwrap()
}

#[track_caller]
fn assert_state(paths: &[&Path], state: State) -> Report {
    let report = check(paths);
    let said: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    assert_eq!(report.state(), state, "{said:#?}");
    report
}

#[test]
fn no_sink_is_a_refusal() {
    assert!(matches!(Auditor::open(&[], context()), Err(AuditError::NoSink)));
}

#[test]
fn every_sink_is_required() {
    let folder = Folder::new();
    let missing = folder.0.join("missing/x.jsonl");
    assert!(matches!(
        Auditor::open(&[sink(&folder.log()), sink(&missing)], context()),
        Err(AuditError::MissingFolder { .. })
    ));
}

#[test]
fn a_write_permit_covers_what_was_written_down() {
    let folder = Folder::new();
    let permit = folder.auditor().begin_write(Some("set"), &[note("A")]).unwrap();
    let (store, item) = (StoreName::new("params").unwrap(), ItemName::new("/prod/api/a").unwrap());
    assert!(permit.covers(&store, &item));
    assert!(!permit.covers(&StoreName::new("files").unwrap(), &item));
    assert!(!permit.covers(&store, &ItemName::new("/prod/api/b").unwrap()));
    assert!(lines(&folder.log())[0].contains("\"event\":\"secret.write_requested\""));
}

#[test]
fn a_rotation_permit_covers_what_was_written_down() {
    let folder = Folder::new();
    let admin =
        SecretNote { name: "ADMIN".into(), store: "files".into(), item: "admin".into(), ..SecretNote::default() };
    let permit = folder.auditor().begin_rotation("to role `api`", &note("A"), &[admin]).unwrap();
    let (store, item) = (StoreName::new("params").unwrap(), ItemName::new("/prod/api/a").unwrap());
    assert!(permit.covers(&store, &item));
    assert!(
        !permit.covers(&StoreName::new("files").unwrap(), &ItemName::new("admin").unwrap()),
        "that one is only read"
    );
    assert!(permit.covers_means(&VariableName::new("ADMIN").unwrap()));
    assert!(!permit.covers_means(&VariableName::new("A").unwrap()));
    let line = &lines(&folder.log())[0];
    for part in ["rotation.started", "to role `api`", "\"item\":\"admin\",\"inject\":false"] {
        assert!(line.contains(part), "{part} not in {line}");
    }
}

#[test]
fn every_event_has_its_own_word() {
    let words: std::collections::BTreeSet<_> = Event::ALL.iter().map(|event| event.word()).collect();
    assert_eq!(words.len(), Event::ALL.len());
}
