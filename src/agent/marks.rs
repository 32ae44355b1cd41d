//! High-water marks: numbers that only count up, and behind which the agent does not go back, such as the serials of the signed
//! policies that it has served. An old file with its old, good signature is told from the present one by nothing else.
//!
//! Kept in `marks.json` of the agent's state folder: on the disk before what raised a mark is served, read again each time,
//! and what cannot be read or written raises nothing and admits nothing. Without such a folder they live as long as the process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use ring::digest::{SHA256, digest};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::failure::Failure;
use crate::checked_file::{self, FileErrorKind, Use};
use crate::error::{Cause, Class};
use crate::name::{EnvironmentName, ServiceName, show};
use crate::store::write::replace_small;

/// The file in the state folder.
const FILE: &str = "marks.json";
const SCHEMA: &str = "vouchsafe.agent-marks/1";
/// Bytes of the file: some ten thousand marks.
const LARGEST: u64 = 1 << 20;

/// What a number counts: a kind of thing, and which one. No two have the same text, for names hold neither `/` nor spaces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Subject(String);

impl Subject {
    /// The serial of a policy.
    #[must_use]
    pub fn policy(environment: &EnvironmentName, service: Option<&ServiceName>) -> Self {
        Self(format!("policy {}", place(environment, service)))
    }

    /// The serial of a file that this policy extends, as the signed files name it.
    #[must_use]
    pub fn base(environment: &EnvironmentName, service: Option<&ServiceName>, file: &Path) -> Self {
        Self(format!("base {} {}", place(environment, service), show(file)))
    }
}

fn place(environment: &EnvironmentName, service: Option<&ServiceName>) -> String {
    service.map_or_else(|| environment.to_string(), |service| format!("{environment}/{service}"))
}

/// A number that was seen, and may become the mark of its subject.
pub type Mark = (Subject, u64);

type Held = BTreeMap<Subject, u64>;

/// Why something is not admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// One of its numbers is below the mark.
    Behind {
        /// Which of the numbers.
        at: usize,
        /// The mark.
        mark: u64,
    },
    /// The marks cannot be read, or not be written.
    State(Failure),
}

/// The marks of an agent.
#[derive(Debug, Default)]
pub struct Marks {
    path: Option<PathBuf>,
    /// The highest that this process has admitted.
    seen: Mutex<Held>,
    begun: AtomicBool,
    /// What is in the file is on the disk too, as far as this process knows.
    is_settled: AtomicBool,
}

impl Marks {
    /// Marks that are kept in this folder; without one, in memory only.
    #[must_use]
    pub fn kept_in(folder: Option<&Path>) -> Self {
        Self { path: folder.map(|folder| folder.join(FILE)), ..Self::default() }
    }

    /// The file of the marks, once, if it was not there and was begun: for the first time, or because somebody took it away.
    #[must_use]
    pub fn take_begun(&self) -> Option<&Path> {
        let is_begun = self.begun.swap(false, Ordering::Relaxed);
        self.path.as_deref().filter(|_| is_begun)
    }

    /// Holds each of several things, all of whose numbers are given, against the marks, and raises the marks to those that are
    /// admitted, with one write. What has no numbers is admitted, whatever the state is.
    #[must_use]
    pub fn admit(&self, all: &[Vec<Mark>]) -> Vec<Result<(), Refusal>> {
        if all.iter().all(Vec::is_empty) {
            return all.iter().map(|_| Ok(())).collect();
        }
        let mut seen = self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let kept = match self.read() {
            Ok(kept) => kept,
            Err(failure) => return all.iter().map(|marks| refuse_marked(marks, &failure)).collect(),
        };
        let mut held = seen.clone();
        merge(&mut held, kept.iter().flatten());
        // Only what is admitted raises a mark; then two of one subject may be apart, and the lower one is the older one.
        let mut raised = held.clone();
        for marks in all.iter().filter(|marks| is_ahead(marks, &held).is_ok()) {
            merge(&mut raised, marks.iter().map(|(subject, number)| (subject, number)));
        }
        let written = if kept.as_ref() == Some(&raised) { self.settle() } else { self.write(&raised) };
        self.is_settled.store(written.is_ok(), Ordering::Relaxed);
        match &written {
            Ok(()) => {
                if kept.is_none() && seen.is_empty() {
                    self.begun.store(true, Ordering::Relaxed);
                }
                seen.clone_from(&raised);
            }
            Err(_) => seen.clone_from(&held),
        }
        let kept = kept.unwrap_or_default();
        let is_kept = |marks: &[Mark]| marks.iter().all(|(subject, number)| kept.get(subject) >= Some(number));
        let decide = |marks: &Vec<Mark>| match &written {
            Err(failure) if !is_kept(marks) => is_ahead(marks, &held).and_then(|()| refuse_marked(marks, failure)),
            Err(_) => is_ahead(marks, &held),
            Ok(()) => is_ahead(marks, &raised),
        };
        all.iter().map(decide).collect()
    }

    /// What is in the file; `None` if there is no file. In memory the marks are always kept.
    fn read(&self) -> Result<Option<Held>, Failure> {
        let Some(path) = &self.path else { return Ok(None) };
        let bytes = match checked_file::read(path, Use::Public, LARGEST) {
            Ok(bytes) => bytes,
            Err(error) if error.is_absent() => return Ok(None),
            Err(error) => {
                let hint = match error.kind {
                    FileErrorKind::Io(_) => {
                        format!("ls -l {}   # the agent's user has to read and write it", show(path))
                    }
                    _ => error.hint().unwrap_or_else(|| rm(path)),
                };
                // What the disk, or the kernel, refuses may be over soon: the agent is started again.
                let class = match error.kind {
                    FileErrorKind::Io(_) => Class::Internal,
                    _ => Class::Policy,
                };
                return Err(failed(class, format!("the marks of serials cannot be used: {error}"), hint));
            }
        };
        let damaged = || {
            let message = format!("`{}` is damaged: it does not say which serials were served", show(path));
            failed(Class::Policy, message, rm(path))
        };
        parse(&bytes).map(Some).ok_or_else(damaged)
    }

    fn write(&self, marks: &Held) -> Result<(), Failure> {
        let Some(path) = &self.path else { return Ok(()) };
        let bytes = render(marks);
        if bytes.len() as u64 > LARGEST {
            let message = format!("`{}` would be larger than {LARGEST} bytes", show(path));
            return Err(failed(Class::Internal, message, rm(path)));
        }
        replace_small(path, &bytes).map_err(|error| {
            let us = rustix::process::geteuid().as_raw();
            let folder = show(path.parent().unwrap_or(path));
            let install = || format!("install -d -m 0700 -o {us} {folder}   # and see that the disk takes writes");
            unwritten(&error, error.hint().unwrap_or_else(install))
        })
    }

    /// Whoever wrote the file may have been killed, or have failed, before its name was on the disk.
    fn settle(&self) -> Result<(), Failure> {
        let Some(path) = self.path.as_deref().filter(|_| !self.is_settled.load(Ordering::Relaxed)) else {
            return Ok(());
        };
        let sync = |path| rustix::fs::fsync(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
        let synced = sync(path).and_then(|()| sync(path.parent().unwrap_or(path)));
        synced.map_err(|errno| {
            let error = format!("`{}`: {}", show(path), checked_file::plain_io(&errno.into()));
            unwritten(&error, format!("ls -l {}   # and see that the disk takes writes", show(path)))
        })
    }
}

fn unwritten(error: &dyn std::fmt::Display, hint: String) -> Failure {
    failed(Class::Internal, format!("the marks of serials cannot be written: {error}"), hint)
}

fn failed(class: Class, message: String, hint: String) -> Failure {
    Failure { class, message, hint: Some(hint) }
}

fn rm(path: &Path) -> String {
    format!("rm {}   # forgets all marks: first see that each policy in its place is the newest", show(path))
}

fn refuse_marked(marks: &[Mark], failure: &Failure) -> Result<(), Refusal> {
    if marks.is_empty() { Ok(()) } else { Err(Refusal::State(failure.clone())) }
}

fn is_ahead(marks: &[Mark], held: &Held) -> Result<(), Refusal> {
    let behind = marks.iter().enumerate().find_map(|(at, (subject, number))| {
        let mark = *held.get(subject)?;
        (*number < mark).then_some(Refusal::Behind { at, mark })
    });
    behind.map_or(Ok(()), Err)
}

fn merge<'m>(held: &mut Held, marks: impl IntoIterator<Item = (&'m Subject, &'m u64)>) {
    for (subject, number) in marks {
        let mark = held.entry(subject.clone()).or_default();
        *mark = (*mark).max(*number);
    }
}

/// The file. `check` is of the bytes of `marks` as they stand.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept<'a> {
    schema: String,
    check: String,
    #[serde(borrow)]
    marks: &'a RawValue,
}

/// The first 16 digits of SHA-256: against accidents, as in the head of a log. Who can write the file can write this too.
fn check_of(marks: &str) -> String {
    let hash = digest(&SHA256, marks.as_bytes());
    hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn render(marks: &Held) -> Vec<u8> {
    // Texts and numbers: nothing that JSON could not hold.
    let marks = serde_json::value::to_raw_value(marks).unwrap_or_default();
    let kept = Kept { schema: SCHEMA.into(), check: check_of(marks.get()), marks: &marks };
    let mut bytes = serde_json::to_vec(&kept).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

fn parse(bytes: &[u8]) -> Option<Held> {
    let kept: Kept<'_> = serde_json::from_slice(bytes).ok()?;
    if kept.schema != SCHEMA || kept.check != check_of(kept.marks.get()) {
        return None;
    }
    serde_json::from_str(kept.marks.get()).ok()
}

#[cfg(test)]
#[path = "marks_tests.rs"]
mod tests;
