//! Reads logs and says whether they are what was written. Read-only, and in bounded memory: one line, and one state for
//! each chain.
//!
//! Two kinds of log are told apart by the first record, and are not mixed. In a log of the file sink or the agent everything is a record,
//! or bytes that a later record accounts for. In a collected stream there are several chains, one for each process, and
//! lines of whoever else writes there, possibly with the collector's prefix before ours.

mod anchors;
mod between;
mod beyond;
mod chains;
mod failure;
mod finding;
mod layout;
mod line;
mod order;
mod report;
mod seals;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};

use super::chain::{OPENING, StreamId, Tail};
use super::event::{Assurance, Event};
use super::head::{Head, read_foreign};
pub use anchors::{AnchorError, Anchors};
use chains::Chains;
pub use failure::{Unreadable, VerifyFailure};
pub use finding::{Finding, FindingKind};
use line::{Junk, parse};
pub use report::{Report, State};
pub use seals::{Seals, SeedError};

/// Where the chain has to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// With its first record: anything else is [`FindingKind::StartsLate`].
    #[default]
    Beginning,
    /// Anywhere: older logs were removed on purpose.
    Anywhere,
}

/// What is known of the logs from elsewhere.
#[derive(Default)]
pub struct Means {
    /// The auditor's seeds.
    pub seals: Option<Seals>,
    /// Checkpoints that left the host.
    pub anchors: Option<Anchors>,
    /// Is told, now and then, how many bytes and records have been read.
    pub progress: Option<Box<dyn FnMut(u64, u64)>>,
}

/// Verifies logs, given oldest first. Where a head file lies beside the last one, that is compared too.
///
/// # Errors
/// A log cannot be read. What is wrong with a log that can be read is in the report.
pub fn verify(logs: &[PathBuf], start: Start, means: Means) -> Result<Report, Unreadable> {
    let mut verifier = Verifier::new(start, means);
    for (index, path) in logs.iter().enumerate() {
        // Before the log: a writer at work in between makes the log longer than its head, never shorter.
        verifier.head = if index + 1 == logs.len() { read_foreign(path) } else { None };
        verifier.path = path;
        verifier.line = 0;
        verifier.log(open(path)?).map_err(|error| Unreadable { path: path.clone(), error })?;
    }
    verifier.end();
    Ok(verifier.report)
}

/// [`verify`] for bytes at hand, remembering so many chains, and the names of so many more.
#[cfg(test)]
pub(super) fn verify_remembering(bytes: &[u8], start: Start, remembered: usize, forgotten: usize) -> Report {
    let mut verifier = Verifier::new(start, Means::default());
    verifier.chains = Chains::remembering(remembered, forgotten);
    verifier.log(bytes).unwrap();
    verifier.end();
    verifier.report
}

/// [`verify`] for bytes at hand.
#[cfg(test)]
pub(super) fn verify_bytes(bytes: &[u8], start: Start) -> Report {
    let mut verifier = Verifier::new(start, Means::default());
    verifier.log(bytes).unwrap();
    verifier.end();
    verifier.report
}

fn open(path: &Path) -> Result<File, Unreadable> {
    let failed = |error| Unreadable { path: path.to_owned(), error };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
    let stat = rustix::fs::fstat(&fd).map_err(|errno| failed(errno.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(failed(io::Error::other("not a regular file")));
    }
    Ok(File::from(fd))
}

/// No line of ours is longer; a longer one is no record, and is read in pieces.
const LINE_MAX: u64 = 17 * 1024 * 1024;

/// How many lines lie between two reports of progress.
const TELL_EVERY: u64 = 4096;

/// In any line of ours, whatever a collector put before it.
const MARK: &[u8] = b"\"vouchsafe.audit/";

/// What follows the opening of a stream's line.
const STREAM_ASSURANCE: &[u8] = b",\"assurance\":\"stream\"";

/// What the logs turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unknown,
    Chained,
    Collected,
}

struct Verifier<'a> {
    start: Start,
    means: Means,
    chains: Chains,
    report: Report,
    /// What all of the logs are.
    kind: Kind,
    /// What is wrong with logs that came before anything told their kind, unless it is [`Kind::Collected`].
    undecided: Vec<Finding>,
    /// The one chain of file logs.
    file_chain: Option<StreamId>,
    head: Option<Head>,
    /// The chain of checkpoints: the first record of it that was read.
    first: HashMap<StreamId, u64>,
    /// The latest time so far in the chain of file logs, as it was written.
    latest: String,
    bytes: u64,
    path: &'a Path,
    line: u64,
}

impl Verifier<'_> {
    fn new(start: Start, means: Means) -> Self {
        Self {
            start,
            means,
            chains: Chains::default(),
            report: Report::default(),
            kind: Kind::Unknown,
            undecided: Vec::new(),
            file_chain: None,
            head: None,
            first: HashMap::new(),
            latest: String::new(),
            bytes: 0,
            path: Path::new(""),
            line: 0,
        }
    }

    fn log(&mut self, log: impl Read) -> io::Result<()> {
        let before = self.report.records;
        let mut reader = BufReader::with_capacity(256 * 1024, log);
        let mut buffer = Vec::new();
        let (mut junk, mut inside, mut is_first) = (None, false, true);
        loop {
            buffer.clear();
            if reader.by_ref().take(LINE_MAX).read_until(b'\n', &mut buffer)? == 0 {
                break;
            }
            self.bytes += buffer.len() as u64;
            if self.line.is_multiple_of(TELL_EVERY)
                && let Some(progress) = &mut self.means.progress
            {
                progress(self.bytes, self.report.records);
            }
            let newline = buffer.pop_if(|byte| *byte == b'\n').is_some();
            self.line += u64::from(!inside);
            let candidate = if inside { None } else { self.candidate(&buffer) };
            inside = !newline;
            let Some((tail, line)) = candidate else {
                self.other(&buffer, newline, &mut junk);
                continue;
            };
            self.record(line, tail, is_first, &mut junk);
            is_first = false;
            // A collector may take it. A writer of ours goes on from there: the record counts.
            if !newline && self.kind == Kind::Chained {
                self.find(FindingKind::Torn { bytes: buffer.len() as u64 });
            }
        }
        let lines = self.line;
        self.end_of_log(junk);
        if lines > 0 && before == self.report.records {
            self.report.no_logs.push((self.path.to_owned(), lines));
        }
        Ok(())
    }

    /// The line as a record, if it is laid out as one and its hash fits.
    fn candidate<'l>(&self, line: &'l [u8]) -> Option<(Tail, &'l [u8])> {
        let tail = Tail::read(line)?;
        let start = find(line, OPENING.as_bytes())?;
        let (prefix, line) = line.split_at_checked(start)?;
        // Only a collector of streams puts something before a line.
        let from_stream = || line.get(OPENING.len()..).is_some_and(|rest| rest.starts_with(STREAM_ASSURANCE));
        let in_place = prefix.is_empty() || (self.kind != Kind::Chained && from_stream());
        (in_place && tail.fits(line)).then_some((tail, line))
    }

    fn record(&mut self, bytes: &[u8], tail: Tail, is_first: bool, junk: &mut Option<Junk>) {
        let Some((line, assurance)) = parse(bytes) else {
            return self.find(FindingKind::Malformed);
        };
        let own = if assurance == Assurance::Stream { Kind::Collected } else { Kind::Chained };
        if self.kind == Kind::Unknown {
            self.decide(own);
        }
        self.settle(junk, &line);
        if own != self.kind {
            return self.find(FindingKind::OtherKind);
        }
        self.report.records += 1;
        self.report.discontinuities += u64::from(line.is(Event::Discontinuity));
        if own == Kind::Chained && !self.is_in_file_chain(tail.chain.stream, is_first) {
            return;
        }
        let is_new = self.chains.get(tail.chain.stream).is_none_or(|before| tail.chain.seq > before.seq);
        let follows = self.link(&tail);
        self.check_beyond(bytes, &tail, &line, own == Kind::Chained, is_new);
        self.parts(&tail, &line, follows);
        if let Some(head) = self.head.filter(|head| head.chain.stream == tail.chain.stream)
            && head.chain.seq == tail.chain.seq
            && head.chain.hash != tail.chain.hash
        {
            self.find(FindingKind::HeadDiffers { seq: tail.chain.seq });
        }
    }

    fn end(&mut self) {
        self.decide(Kind::Unknown);
        self.line = 0;
        self.end_of_seals();
        if self.report.records == 0 && self.report.findings_total == 0 {
            self.find(FindingKind::NoRecord);
        } else if self.means.seals.is_some() && self.report.sealed == 0 && self.report.findings_total == 0 {
            self.find(FindingKind::NothingSealed);
        }
        self.end_of_anchors();
        if self.chains.is_overfull {
            self.find(FindingKind::TooManyChains);
        }
        let unfinished: Vec<_> = self.chains.unfinished().collect();
        for parts in unfinished {
            self.find(FindingKind::PartsMissing { record: parts.record });
        }
        let Some(head) = self.head else { return };
        self.report.head_compared = true;
        match self.chains.get(head.chain.stream) {
            // It names no record: a log that was made and not written yet.
            None if head.chain.seq == 0 && self.file_chain.is_none() => {}
            None => self.find(FindingKind::HeadOfOtherChain),
            Some(last) if last.seq < head.chain.seq => {
                self.find(FindingKind::EndsEarly { last: last.seq, head: head.chain.seq });
            }
            Some(_) => {}
        }
    }

    fn find(&mut self, kind: FindingKind) {
        self.report.add(self.path, self.line, kind);
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    if haystack.starts_with(needle) {
        return Some(0);
    }
    haystack.windows(needle.len()).position(|window| window == needle)
}
