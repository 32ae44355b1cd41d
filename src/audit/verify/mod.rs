//! Reads logs and says whether they are what was written. Read-only, and in bounded memory: one line, and one state for
//! each chain.
//!
//! Two kinds of log are told apart by their first record. In a log of the file sink or the agent everything is a record,
//! or bytes that a later record accounts for. In a collected stream there are several chains, one for each process, and
//! lines of whoever else writes there, possibly with the collector's prefix before ours.

mod anchors;
mod beyond;
mod chains;
mod line;
mod report;
mod seals;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use rustix::fs::{FileType, Mode, OFlags};

use super::chain::{Chain, Digest, OPENING, StreamId, Tail};
use super::event::{Assurance, Event};
use super::head::{Head, read_foreign};
pub use anchors::{AnchorError, Anchors};
use chains::{Chains, Parts};
use line::{Junk, Line};
pub use report::{Finding, FindingKind, Report, State, Unreadable, VerifyFailure};
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

/// What one log turned out to be.
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
        let mut reader = BufReader::with_capacity(256 * 1024, log);
        let mut buffer = Vec::new();
        let (mut kind, mut junk, mut inside) = (Kind::Unknown, None, false);
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
            let candidate = if inside { None } else { self.candidate(&buffer, kind) };
            inside = !newline;
            match candidate {
                Some((tail, line)) if newline || kind == Kind::Collected => {
                    self.record(line, tail, &mut kind, &mut junk);
                }
                _ => self.other(&buffer, newline, kind, &mut junk),
            }
        }
        self.end_of_log(kind, junk);
        Ok(())
    }

    /// The line as a record, if it is laid out as one and its hash fits.
    fn candidate<'l>(&self, line: &'l [u8], kind: Kind) -> Option<(Tail, &'l [u8])> {
        let tail = Tail::read(line)?;
        let start = find(line, OPENING.as_bytes())?;
        let (prefix, line) = line.split_at_checked(start)?;
        // Only a collector of streams puts something before a line.
        let from_stream = || line.get(OPENING.len()..).is_some_and(|rest| rest.starts_with(STREAM_ASSURANCE));
        let in_place = prefix.is_empty() || (kind != Kind::Chained && from_stream());
        (in_place && tail.fits(line)).then_some((tail, line))
    }

    fn record(&mut self, bytes: &[u8], tail: Tail, kind: &mut Kind, junk: &mut Option<Junk>) {
        let line: Option<Line<'_>> = serde_json::from_slice(bytes).ok();
        let assurance =
            line.as_ref().and_then(|line| Assurance::ALL.iter().find(|level| level.word() == line.assurance));
        let (Some(line), Some(assurance)) = (line, assurance) else {
            return self.find(FindingKind::Malformed);
        };
        let own = if *assurance == Assurance::Stream { Kind::Collected } else { Kind::Chained };
        let first = *kind == Kind::Unknown;
        if first {
            *kind = own;
        }
        self.settle(junk, &line, *kind);
        if own != *kind {
            return self.find(FindingKind::OtherChain);
        }
        self.report.records += 1;
        self.report.discontinuities += u64::from(line.event == Event::Discontinuity.word());
        if own == Kind::Chained && !self.is_in_file_chain(tail.chain.stream, first) {
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

    /// What came before this record is accounted for by it, or is a finding.
    fn settle(&mut self, junk: &mut Option<Junk>, line: &Line<'_>, kind: Kind) {
        let may_hold = [Event::Quarantined, Event::SealingBegun].map(Event::word).contains(&line.event.as_ref());
        let note = line.quarantined.as_ref().filter(|_| may_hold);
        match (junk.take(), note) {
            (Some(junk), Some(note)) if junk.is(note) => self.report.quarantined += 1,
            (Some(junk), note) => {
                self.unaccounted(&junk, kind);
                if note.is_some() {
                    self.find(FindingKind::QuarantineGone);
                }
            }
            (None, Some(_)) => self.find(FindingKind::QuarantineGone),
            (None, None) => {}
        }
    }

    fn unaccounted(&mut self, junk: &Junk, kind: Kind) {
        let here = std::mem::replace(&mut self.line, junk.line);
        match junk.altered {
            Some(tail) => {
                self.find(FindingKind::Altered);
                self.chains.go_on_from(tail.chain);
            }
            None if kind == Kind::Chained || junk.ours => self.find(FindingKind::NotARecord),
            None => self.report.foreign_lines += 1,
        }
        self.line = here;
    }

    /// A line that is no record.
    fn other(&mut self, bytes: &[u8], newline: bool, kind: Kind, junk: &mut Option<Junk>) {
        if kind != Kind::Collected {
            let new = || Junk {
                line: self.line,
                hash: Context::new(&SHA256),
                length: 0,
                newline: false,
                altered: None,
                ours: false,
                whole_but_newline: false,
            };
            return junk.get_or_insert_with(new).add(bytes, newline);
        }
        if let Some(tail) = Tail::read(bytes) {
            self.find(FindingKind::Altered);
            self.chains.go_on_from(tail.chain);
        } else if find(bytes, MARK).is_some() {
            self.find(FindingKind::NotARecord);
        } else {
            self.report.foreign_lines += 1;
        }
    }

    fn is_in_file_chain(&mut self, stream: StreamId, first_of_log: bool) -> bool {
        match self.file_chain {
            Some(chain) if chain == stream => return true,
            Some(_) if !first_of_log => {
                self.find(FindingKind::OtherChain);
                return false;
            }
            Some(_) => self.find(FindingKind::NewChain),
            None => {}
        }
        self.file_chain = Some(stream);
        true
    }

    /// Whether the record is the first of its chain, or follows the one before it.
    fn link(&mut self, tail: &Tail) -> bool {
        let Chain { stream, seq, hash: _ } = tail.chain;
        let Some(before) = self.chains.get(stream) else {
            self.report.streams += 1;
            if seq != 1 && self.start == Start::Beginning {
                self.find(FindingKind::StartsLate { seq });
            } else if seq == 0 || (seq == 1 && tail.prev != Digest::default()) {
                self.find(FindingKind::Unchained { seq });
            }
            self.chains.put(tail.chain);
            return seq == 1;
        };
        let expected = before.seq.saturating_add(1);
        if seq < expected {
            self.find(FindingKind::Repeated { seq, expected });
            return false;
        }
        if seq > expected {
            self.find(FindingKind::Gap { from: expected, to: seq - 1 });
        } else if tail.prev != before.hash {
            self.find(FindingKind::Unchained { seq });
        }
        self.chains.put(tail.chain);
        seq == expected
    }

    fn parts(&mut self, tail: &Tail, line: &Line<'_>, follows: bool) {
        let stream = tail.chain.stream;
        let now = match (line.record, line.part, line.parts) {
            (None, None, None) => None,
            (Some(record), Some(part), Some(parts)) => Some(Parts { record, part, parts }),
            _ => return self.find(FindingKind::Malformed),
        };
        let before = self.chains.set_parts(stream, now.filter(|now| now.part < now.parts));
        let fits = match (before, now) {
            (None, None) => true,
            (None, Some(now)) => now.part == 1 && now.record == tail.chain.seq && now.parts > 1,
            (Some(_), None) => false,
            (Some(before), Some(now)) => {
                now.record == before.record && now.parts == before.parts && now.part == before.part.saturating_add(1)
            }
        };
        // Where records are missing, that was said already.
        if !fits && follows {
            self.find(FindingKind::PartsMixed);
        }
    }

    fn end_of_log(&mut self, kind: Kind, junk: Option<Junk>) {
        match junk {
            Some(junk) if !junk.newline && (kind == Kind::Chained || junk.whole_but_newline) => {
                self.line = junk.line;
                self.find(FindingKind::Torn { bytes: junk.length });
            }
            Some(junk) => self.unaccounted(&junk, kind),
            None => {}
        }
    }

    fn end(&mut self) {
        if self.report.records == 0 && self.report.findings_total == 0 {
            self.find(FindingKind::NoRecord);
        } else if self.means.seals.is_some() && self.report.sealed == 0 && self.report.findings_total == 0 {
            self.find(FindingKind::NothingSealed);
        }
        self.end_of_anchors();
        let unfinished: Vec<_> = self.chains.unfinished().collect();
        for parts in unfinished {
            self.find(FindingKind::PartsMissing { record: parts.record });
        }
        let Some(head) = self.head.filter(|_| self.file_chain.is_some()) else { return };
        self.report.head_compared = true;
        match self.chains.get(head.chain.stream) {
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
