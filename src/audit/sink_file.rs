//! The file sink: one chain in one file, with a lock of its own, appended to and never truncated.
//!
//! - Writers take the lock of the head file, look at the end of the log, and append; nothing is remembered between records
//!   but descriptors, so any number of processes can write the same log.
//! - Records that come together are one write, then one `fdatasync` if the sink says so, then the head. A writer that dies in
//!   between leaves a log that is ahead of its head, or a torn last line.
//! - What is no record at the end of the log is never removed: the next writer says how long it is and what its hash is,
//!   and the chain goes on from the last whole record.
//! - After a failed sync nothing is known about the log (the kernel may have dropped the pages), so the sink is finished.

mod place;
mod sealing;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustix::fs::OFlags;

use super::chain::{Break, Chain, Stored, StreamId};
use super::checkpoint::Anchoring;
use super::checkpoint::courier::Courier;
use super::checkpoint::key::{Signer, VerifierKey};
use super::checkpoint::schedule::Schedule;
use super::error::AuditError;
use super::event::{Assurance, Event, Outcome};
use super::head::{Boot, Head, HeadFile, folder_of, open_checked};
use super::record::{Author, Detail, Draft, Lists, Statement};
use super::seal::epoch::{Successor, take_up};
use super::seal::state::State;
use crate::checked_file::check_folder;
use crate::policy::model::Evidence;
use crate::store::identity::parse_recipient;
use place::Place;

/// An opened file sink.
pub(super) struct FileSink {
    path: PathBuf,
    log: File,
    head: HeadFile,
    sync: bool,
    assurance: Assurance,
    evidence: Evidence,
    /// To what any writer takes along, and to parameters.
    anchorings: Vec<Anchoring>,
    broken: bool,
    /// What was written, for mirrors; `None` where there are none.
    pub(super) lines: Option<Vec<u8>>,
    /// How far the clock of a test is behind.
    #[cfg(test)]
    pub(super) set_back: std::time::Duration,
}

impl FileSink {
    /// Opens or makes the log. `{uid}` in `path` is the real uid. `assurance` is what its records say of themselves.
    pub(super) fn open(path: &str, sync: bool, evidence: &Evidence, assurance: Assurance) -> Result<Self, AuditError> {
        let uid = rustix::process::getuid().as_raw();
        let path = PathBuf::from(path.replace("{uid}", &uid.to_string()));
        // Found out now, not on the day when the state is lost.
        let auditor = evidence.auditor.as_deref().map(parse_recipient).transpose().map_err(AuditError::Auditor)?;
        let auditor = auditor.map(|recipient| recipient.text);
        let folder = folder_of(&path);
        check_folder(folder).map_err(|error| {
            if error.is_absent() {
                AuditError::MissingFolder { folder: folder.to_owned() }
            } else {
                AuditError::Folder(error)
            }
        })?;
        let mut head = HeadFile::open(&path)?;
        head.lock()?;
        // From here on an error drops `head`, and with it the lock.
        let (log, created) = open_checked(&path, OFlags::APPEND)?;
        let rules = evidence.checkpoints.as_ref();
        let anchorings = rules.and_then(|rules| Anchoring::of_log(&path, rules, assurance == Assurance::Agent));
        let (evidence, anchorings) = (Evidence { auditor, ..evidence.clone() }, anchorings.into_iter().collect());
        let mut sink = Self {
            path,
            log,
            head,
            sync,
            assurance,
            evidence,
            anchorings,
            broken: false,
            lines: None,
            #[cfg(test)]
            set_back: std::time::Duration::ZERO,
        };
        sink.begin(created)?;
        sink.head.unlock();
        Ok(sink)
    }

    /// This writer has somebody who takes checkpoints to parameters.
    pub(super) fn send_by(&mut self, courier: &Arc<dyn Courier>) {
        let Some(rules) = &self.evidence.checkpoints else { return };
        let apart = self.assurance == Assurance::Agent;
        self.anchorings.extend(Anchoring::of_parameters(&self.path, rules, apart, courier));
    }

    /// Whether a record is not too long for this sink.
    pub(super) fn accepts(&self, draft: &Draft<'_>) -> Result<(), AuditError> {
        if draft.bound() > LINE_MAX {
            let sink = format!("`{}`", crate::name::show(&self.path));
            return Err(AuditError::TooLong { sink, limit: LINE_MAX });
        }
        Ok(())
    }

    /// Appends records; when it returns, they are where the sink says they are. `author` is whose the sink's own records are
    /// that may come first. If it fails, none of the records counts, though some may be in the log.
    pub(super) fn write(&mut self, author: &Author<'_>, drafts: &[Draft<'_>]) -> Result<(), AuditError> {
        if self.broken {
            return Err(AuditError::Broken { sink: format!("`{}`", crate::name::show(&self.path)) });
        }
        drafts.iter().try_for_each(|draft| self.accepts(draft))?;
        self.head.lock()?;
        let written = self.append(author, drafts);
        let notes: Vec<_> = match &written {
            Ok(chain) => self.anchorings.iter_mut().map(|anchoring| anchoring.claim(*chain)).collect(),
            Err(_) => Vec::new(),
        };
        self.head.unlock();
        written?;
        // What a checkpoint says has to be true after a power cut too.
        if !self.sync && notes.iter().any(Option::is_some) {
            self.sync_log()?;
        }
        self.anchor(author, notes);
        Ok(())
    }

    /// Takes the checkpoint of now everywhere, due or not. Answers what failed.
    pub(super) fn send_now(&mut self, author: &Author<'_>) -> Result<Vec<String>, AuditError> {
        self.head.lock()?;
        let made = self.place(false).and_then(|place| {
            // What the next record would say of the log comes first: numbers that are left out are no record's.
            let chain = match place.broken {
                Some(_) => self.append(author, &[])?,
                None => place.chain,
            };
            self.sync_log()?;
            let notes = self.anchorings.iter_mut().map(|anchoring| anchoring.make(chain).map(Some));
            notes.collect::<Result<Vec<_>, _>>()
        });
        self.head.unlock();
        Ok(self.anchor(author, made?))
    }

    /// Where its checkpoints go.
    pub(super) fn destinations(&self) -> impl Iterator<Item = String> {
        self.anchorings.iter().flat_map(Anchoring::places)
    }

    /// Delivers checkpoints, and writes down what failed: of these, or, where deliveries go on beside, of the last. No access
    /// depends on that: its own records are in the log.
    fn anchor(&mut self, author: &Author<'_>, notes: Vec<Option<String>>) -> Vec<String> {
        for (anchoring, note) in self.anchorings.iter().zip(notes) {
            if let Some(note) = note {
                anchoring.deliver(note);
            }
        }
        let failures: Vec<String> = self.anchorings.iter_mut().flat_map(Anchoring::failures).collect();
        if failures.is_empty() {
            return failures;
        }
        let reason = failures.join("; ");
        let (none, event) = (Lists::default(), Event::CheckpointFailed);
        let statement = Statement { event, outcome: Outcome::Failed, reason: Some(&reason), detail: None };
        let draft = Draft::new(author, statement, &none, SystemTime::now());
        let written = self.head.lock().and_then(|()| {
            let written = self.append(author, std::slice::from_ref(&draft));
            self.head.unlock();
            written
        });
        if written.is_err()
            && let Some(anchoring) = self.anchorings.first_mut()
        {
            anchoring.tell_later(failures.clone());
        }
        failures
    }

    /// The checkpoint of now, and the key that it is signed by.
    pub(super) fn checkpoint(&mut self) -> Result<(String, VerifierKey), AuditError> {
        self.head.lock()?;
        let made = self.place(false).and_then(|place| {
            self.sync_log()?;
            let key = Signer::of_log(&self.path)?.verifier();
            // Where numbers are going to be left out, the last record is still the one that the head names.
            let chain = match (place.broken, self.head.read()?.1) {
                (Some(Break::LogGone), Some(head)) => head.chain,
                _ => place.chain,
            };
            Ok((Schedule::of_log(&self.path).sign(chain, SystemTime::now())?, key))
        });
        self.head.unlock();
        made
    }

    /// Names the chain before its first record, so that a log that loses that record is noticed too; notes that a log is
    /// new, so that an empty one does not look as if it had been emptied.
    fn begin(&mut self, created: bool) -> Result<(), AuditError> {
        let (log, bytes) = self.measure()?;
        match self.head.read()? {
            (Stored::Nothing, _) if bytes == 0 => {
                let chain = Chain::begin(new_stream()?);
                self.head.write(&Head { chain, log, bytes: 0, epoch: None, boot: Boot::now() })
            }
            // The file of before is gone, and its inode is this one's. Else the head goes on naming it: it may have to be found.
            (_, Some(head)) if created && head.log == log => self.head.write(&Head { bytes: 0, ..head }),
            _ => Ok(()),
        }
    }

    fn append(&mut self, author: &Author<'_>, drafts: &[Draft<'_>]) -> Result<Chain, AuditError> {
        self.append_until(author, drafts, None)
    }

    /// Appends records; with `next`, the last of them is the last of its epoch.
    fn append_until(
        &mut self,
        author: &Author<'_>,
        drafts: &[Draft<'_>],
        next: Option<Successor>,
    ) -> Result<Chain, AuditError> {
        let created = self.follow()?;
        let place = self.place(created)?;
        let traces = place.traces();
        let Place { stored, head_is_damaged, broken, end, kept, .. } = place;
        let sealing = take_up(&self.path, kept, traces, self.evidence.auditor.as_deref())?;
        let (state_file, state) = sealing.unzip();
        let begun = state.as_ref().filter(|state| state.is_fresh()).map(|state| (state.epoch, state.first));

        let (assurance, now) = (self.assurance, self.now());
        let mut writer = Writer { chain: traces.chain, state, assurance, now, buffer: Vec::new() };
        if end.unfinished {
            writer.buffer.push(b'\n');
        }
        let none = Lists::default();
        let quarantined = end.junk.as_ref().map(|junk| Detail::Quarantined {
            offset: junk.offset,
            length: junk.length,
            sha256: junk.sha256.hex(),
        });
        if let Some((epoch, first)) = begun {
            let detail = Detail::Epoch { id: epoch.hex(), first, auditor: self.evidence.auditor.clone() };
            let reason = "from here on records are sealed by the keys of this epoch";
            let mut begins = note(author, Event::SealingBegun, reason, &detail, &none, now);
            // Whoever does not have its seed has to learn first that another epoch begins.
            quarantined.iter().for_each(|quarantined| begins.also(quarantined));
            writer.add(&begins);
        } else if let Some(quarantined) = quarantined {
            let reason = "bytes at the end of the log were no record";
            writer.add(&note(author, Event::Quarantined, reason, &quarantined, &none, now));
        }
        if let Some(broken) = broken {
            let expected = if let Stored::Chain(chain) = stored { chain } else { traces.chain };
            let detail = Detail::Expected { seq: expected.seq, hash: expected.hash.hex() };
            writer.add(&note(author, Event::Discontinuity, broken.reason(), &detail, &none, now));
        }
        drafts.iter().for_each(|draft| writer.add(draft));
        let Writer { chain, state, buffer, .. } = writer;
        (&self.log).write_all(&buffer).map_err(|error| self.failed("write", error))?;
        if self.sync {
            self.sync_log()?;
        }
        if let Some(lines) = &mut self.lines {
            lines.extend_from_slice(&buffer);
        }
        // Only now: a state that is ahead of its log has lost the key for what has to be written again.
        let ends = next.is_some();
        let state = next.map_or(state, |next| Some(next.after(chain)));
        let epoch = state.as_ref().map(|state| state.epoch);
        if let (Some(file), Some(state)) = (state_file, state) {
            file.write(&state)?;
            if ends {
                file.settle()?;
            }
        }
        if head_is_damaged {
            self.head.shorten()?;
        }
        let (log, bytes) = self.measure()?;
        self.head.write(&Head { chain, log, bytes, epoch, boot: Boot::now() })?;
        Ok(chain)
    }

    /// What the log holds survives a power cut, or the sink is finished.
    fn sync_log(&mut self) -> Result<(), AuditError> {
        rustix::fs::fdatasync(&self.log).map_err(|errno| {
            self.broken = true;
            self.failed("sync", errno)
        })
    }

    fn now(&self) -> SystemTime {
        let now = SystemTime::now();
        #[cfg(test)]
        let now = now - self.set_back;
        now
    }

    fn failed(&self, doing: &'static str, error: impl Into<io::Error>) -> AuditError {
        AuditError::File { path: self.path.clone(), doing, error: error.into() }
    }

    /// The log's path, `{uid}` expanded.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// No line is longer: what looks for the last record knows how far it has to look.
const LINE_MAX: usize = 16 * 1024 * 1024;

/// A record of the sink's own.
fn note<'a>(
    author: &Author<'_>,
    event: Event,
    reason: &str,
    detail: &Detail,
    lists: &'a Lists,
    now: SystemTime,
) -> Draft<'a> {
    let statement = Statement { event, outcome: Outcome::Succeeded, reason: Some(reason), detail: Some(detail) };
    Draft::new(author, statement, lists, now)
}

/// Lines that are going to be written, and the chain and the key after them.
struct Writer {
    chain: Chain,
    state: Option<State>,
    assurance: Assurance,
    /// When the log accepts them: together.
    now: SystemTime,
    buffer: Vec<u8>,
}

impl Writer {
    fn add(&mut self, draft: &Draft<'_>) {
        let start = self.buffer.len();
        draft.line(self.assurance, self.now, &mut self.buffer);
        let key = self.state.as_ref().map(|state| state.key.record_key());
        self.chain = self.chain.seal_by(&mut self.buffer, start, key.as_ref());
        if let Some(state) = &mut self.state {
            state.key = state.key.next();
            state.chain = self.chain;
        }
    }
}

/// A name for a new chain.
pub(super) fn new_stream() -> Result<StreamId, AuditError> {
    random().map(StreamId)
}

/// Random bytes from the system.
pub(super) fn random<const N: usize>() -> Result<[u8; N], AuditError> {
    let mut bytes = [0; N];
    let rng = ring::rand::SystemRandom::new();
    ring::rand::SecureRandom::fill(&rng, &mut bytes).map_err(|_| AuditError::Random)?;
    Ok(bytes)
}
