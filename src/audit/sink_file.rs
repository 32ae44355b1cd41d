//! The file sink: one chain in one file, with a lock of its own, appended to and never truncated.
//!
//! - Writers take the lock of the head file, look at the end of the log, and append; nothing is remembered between records
//!   but descriptors, so any number of processes can write the same log.
//! - Records that come together are one write, then one `fdatasync` if the sink says so, then the head. A writer that dies in
//!   between leaves a log that is ahead of its head, or a torn last line.
//! - What is no record at the end of the log is never removed: the next writer says how long it is and what its hash is,
//!   and the chain goes on from the last whole record.
//! - After a failed sync nothing is known about the log (the kernel may have dropped the pages), so the sink is finished.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustix::fs::OFlags;

use super::chain::{Break, Chain, Stored, StreamId, Tail, resume};
use super::checkpoint::Anchoring;
use super::checkpoint::courier::Courier;
use super::checkpoint::key::{Signer, VerifierKey};
use super::checkpoint::schedule::Schedule;
use super::end::{End, find_end};
use super::error::AuditError;
use super::event::{Assurance, Event, Outcome};
use super::head::{Head, HeadFile, Identity, folder_of, open_checked};
use super::record::{Author, Detail, Draft, Lists, Statement};
use super::seal::Begun;
use super::seal::epoch::{Traces, begin, overrule, take_up};
use super::seal::state::{Kept, State, StateFile};
use crate::checked_file::check_folder;
use crate::policy::model::Evidence;
use crate::store::identity::parse_recipient;

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
}

impl FileSink {
    /// Opens or makes the log. `{uid}` in `path` is the real uid. `assurance` is what its records say of themselves.
    pub(super) fn open(path: &str, sync: bool, evidence: &Evidence, assurance: Assurance) -> Result<Self, AuditError> {
        let uid = rustix::process::getuid().as_raw();
        let path = PathBuf::from(path.replace("{uid}", &uid.to_string()));
        // Found out now, not on the day when the state is lost.
        if let Some(auditor) = &evidence.auditor {
            parse_recipient(auditor).map_err(AuditError::Auditor)?;
        }
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
        let (evidence, anchorings) = (evidence.clone(), anchorings.into_iter().collect());
        let mut sink = Self { path, log, head, sync, assurance, evidence, anchorings, broken: false, lines: None };
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
        self.anchor(author, notes).map(drop)
    }

    /// Takes the checkpoint of now everywhere, due or not. Answers what failed.
    pub(super) fn send_now(&mut self, author: &Author<'_>) -> Result<Vec<String>, AuditError> {
        self.head.lock()?;
        let made = self.place(false).and_then(|place| {
            let notes = self.anchorings.iter_mut().map(|anchoring| anchoring.make(place.chain).map(Some));
            notes.collect::<Result<Vec<_>, _>>()
        });
        self.head.unlock();
        self.anchor(author, made?)
    }

    /// Where its checkpoints go.
    pub(super) fn destinations(&self) -> impl Iterator<Item = String> {
        self.anchorings.iter().flat_map(Anchoring::places)
    }

    /// Delivers checkpoints, and writes down what failed: of these, or, where deliveries go on beside, of the last.
    fn anchor(&mut self, author: &Author<'_>, notes: Vec<Option<String>>) -> Result<Vec<String>, AuditError> {
        for (anchoring, note) in self.anchorings.iter().zip(notes) {
            if let Some(note) = note {
                anchoring.deliver(note);
            }
        }
        let failures: Vec<String> = self.anchorings.iter_mut().flat_map(Anchoring::failures).collect();
        if failures.is_empty() {
            return Ok(failures);
        }
        let reason = failures.join("; ");
        let (none, event) = (Lists::default(), Event::CheckpointFailed);
        let statement = Statement { event, outcome: Outcome::Failed, reason: Some(&reason), detail: None };
        let draft = Draft::new(author, statement, &none, SystemTime::now());
        self.head.lock()?;
        let written = self.append(author, std::slice::from_ref(&draft));
        self.head.unlock();
        written.map(|_| failures)
    }

    /// The checkpoint of now, and the key that it is signed by.
    pub(super) fn checkpoint(&mut self) -> Result<(String, VerifierKey), AuditError> {
        self.head.lock()?;
        let made = self.place(false).and_then(|place| {
            let key = Signer::of_log(&self.path)?.verifier();
            Ok((Schedule::of_log(&self.path).sign(place.chain, SystemTime::now())?, key))
        });
        self.head.unlock();
        made
    }

    /// Begins sealing after the last record: [`super::seal_log`].
    pub(super) fn seal(&mut self, auditor: &str, out: Option<&Path>) -> Result<Begun, AuditError> {
        self.head.lock()?;
        let begun = self.begin_sealing(auditor, out);
        self.head.unlock();
        begun
    }

    /// Names the chain before its first record, so that a log that loses that record is noticed too; notes that a log is
    /// new, so that an empty one does not look as if it had been emptied.
    fn begin(&mut self, created: bool) -> Result<(), AuditError> {
        let (log, bytes) = self.measure()?;
        match self.head.read()? {
            (Stored::Nothing, _) if bytes == 0 => {
                self.head.write(&Head { chain: Chain::begin(new_stream()?), log, bytes: 0 })
            }
            (_, Some(head)) if created => self.head.write(&Head { log, bytes: 0, ..head }),
            _ => Ok(()),
        }
    }

    fn append(&mut self, author: &Author<'_>, drafts: &[Draft<'_>]) -> Result<Chain, AuditError> {
        let created = self.follow()?;
        let Place { stored, head_is_damaged, chain, broken, end, kept } = self.place(created)?;
        let is_moved = end.chain.is_none() && chain.seq > 0;
        let traces = Traces { chain, last_is_sealed: end.is_sealed, is_moved };
        let sealing = take_up(&self.path, kept, traces, self.evidence.auditor.as_deref())?;
        let (state_file, state) = sealing.unzip();
        let begun = state.as_ref().filter(|state| state.is_fresh()).map(|state| (state.epoch, state.first));

        let mut writer = Writer { chain, state, assurance: self.assurance, buffer: Vec::new() };
        if end.unfinished {
            writer.buffer.push(b'\n');
        }
        let now = SystemTime::now();
        let none = Lists::default();
        if let Some(junk) = &end.junk {
            let detail = Detail::Quarantined { offset: junk.offset, length: junk.length, sha256: junk.sha256.hex() };
            let reason = "bytes at the end of the log were no record";
            writer.add(&note(author, Event::Quarantined, reason, &detail, &none, now));
        }
        if let Some((epoch, first)) = begun {
            let detail = Detail::Epoch { id: epoch.hex(), first };
            let reason = "from here on records are sealed by the keys of this epoch";
            writer.add(&note(author, Event::SealingBegun, reason, &detail, &none, now));
        }
        if let Some(broken) = broken {
            let expected = if let Stored::Chain(chain) = stored { chain } else { chain };
            let detail = Detail::Expected { seq: expected.seq, hash: expected.hash.hex() };
            writer.add(&note(author, Event::Discontinuity, broken.reason(), &detail, &none, now));
        }
        drafts.iter().for_each(|draft| writer.add(draft));
        let Writer { chain, state, buffer, .. } = writer;
        (&self.log).write_all(&buffer).map_err(|error| self.failed("write", error))?;
        if self.sync
            && let Err(errno) = rustix::fs::fdatasync(&self.log)
        {
            self.broken = true;
            return Err(self.failed("sync", errno));
        }
        if let Some(lines) = &mut self.lines {
            lines.extend_from_slice(&buffer);
        }
        // Only now: a state that is ahead of its log has lost the key for what has to be written again.
        if let (Some(file), Some(state)) = (state_file, state) {
            file.write(&state)?;
        }
        if head_is_damaged {
            self.head.shorten()?;
        }
        let (log, bytes) = self.measure()?;
        self.head.write(&Head { chain, log, bytes })?;
        Ok(chain)
    }

    /// Where the next record goes on from, by the head, the log's own end, and the state of sealing.
    fn place(&mut self, created: bool) -> Result<Place, AuditError> {
        let (stored, head) = self.head.read()?;
        let (log, size) = self.measure()?;
        let end = self.end(size, head.as_ref())?;
        // A file that never was a log of ours: a mistyped path must not spoil whatever it names.
        if stored == Stored::Nothing && end.chain.is_none() && size > 0 {
            return Err(AuditError::NoRecord { path: self.path.clone(), bytes: size });
        }
        let head_is_damaged = stored == Stored::Damaged;
        let kept = StateFile::look(&self.path)?;
        let (stored, overruled) = overrule(stored, &kept);
        let is_new = created || head.is_none_or(|head| head.log != log || head.bytes == 0);
        let (chain, broken) = resume(stored, end.chain, is_new);
        let chain = match chain {
            Some(chain) => chain,
            None => Chain::begin(new_stream()?),
        };
        Ok(Place { stored, head_is_damaged, chain, broken: broken.or(overruled), end, kept })
    }

    fn begin_sealing(&mut self, auditor: &str, out: Option<&Path>) -> Result<Begun, AuditError> {
        let created = self.follow()?;
        let Place { chain, end, kept, .. } = self.place(created)?;
        let lost = match kept {
            Kept::State(..) => return Err(AuditError::Sealed { path: self.path.clone() }),
            Kept::Damaged => true,
            Kept::Nothing => end.is_sealed,
        };
        let (_, state, seed) = begin(&self.path, chain, auditor, out, lost)?;
        Ok(Begun { epoch: state.epoch.hex(), first: state.first, seed, anew: lost })
    }

    /// Opens the log again if its name no longer stands for the opened one; says whether it had to be made.
    fn follow(&mut self) -> Result<bool, AuditError> {
        let (opened, _) = self.measure()?;
        if rustix::fs::lstat(&self.path).is_ok_and(|stat| Identity::of(&stat) == opened) {
            return Ok(false);
        }
        let (log, created) = open_checked(&self.path, OFlags::APPEND)?;
        self.log = log;
        Ok(created)
    }

    fn measure(&self) -> Result<(Identity, u64), AuditError> {
        let stat = rustix::fs::fstat(&self.log).map_err(|errno| self.failed("look at", errno))?;
        Ok((Identity::of(&stat), u64::try_from(stat.st_size).unwrap_or_default()))
    }

    /// The end of the log. The last bytes are enough where they are what the head says; else lines are looked at as a
    /// whole, backwards.
    fn end(&self, size: u64, head: Option<&Head>) -> Result<End, AuditError> {
        if size == 0 {
            return Ok(End::default());
        }
        let last = self.read_last(size, GLANCE)?;
        let tail = last.strip_suffix(b"\n").and_then(Tail::read);
        if let (Some(tail), Some(head)) = (tail, head)
            && tail.chain == head.chain
        {
            return Ok(End { chain: Some(tail.chain), is_sealed: tail.seal.is_some(), ..End::default() });
        }
        let mut wanted = 64 * 1024;
        loop {
            let window = self.read_last(size, wanted)?;
            if let Some(end) = find_end(&window, size) {
                return Ok(end);
            }
            if wanted >= LOOK_BACK {
                return Err(AuditError::NoRecord { path: self.path.clone(), bytes: wanted });
            }
            wanted *= 8;
        }
    }

    fn read_last(&self, size: u64, wanted: u64) -> Result<Vec<u8>, AuditError> {
        let length = wanted.min(size);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        self.log.read_exact_at(&mut bytes, size - length).map_err(|error| self.failed("read", error))?;
        Ok(bytes)
    }

    fn failed(&self, doing: &'static str, error: impl Into<io::Error>) -> AuditError {
        AuditError::File { path: self.path.clone(), doing, error: error.into() }
    }

    /// The log's path, `{uid}` expanded.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// More than the end of any record.
const GLANCE: u64 = 512;

/// No line is longer: what looks for the last record knows how far it has to look.
const LINE_MAX: usize = 16 * 1024 * 1024;

/// How far back a whole record is looked for: further than a line can be long.
const LOOK_BACK: u64 = 64 * 1024 * 8 * 8 * 8;

/// Where the next record goes on from.
struct Place {
    stored: Stored,
    head_is_damaged: bool,
    chain: Chain,
    broken: Option<Break>,
    end: End,
    kept: Kept,
}

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
    buffer: Vec<u8>,
}

impl Writer {
    fn add(&mut self, draft: &Draft<'_>) {
        let start = self.buffer.len();
        draft.line(self.assurance, &mut self.buffer);
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
