//! Bytes to lines, lines to records, and the parts of one record put together.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};

use super::record::Record;
use crate::audit::chain::{OPENING, Tail};
use crate::audit::event::{Assurance, Event};

/// No line of ours is longer; a longer one is no record, and is read in pieces.
const LINE_MAX: u64 = 17 * 1024 * 1024;

/// Records of several parts that may be under way at once, each in a stream of its own, and how many bytes of them are
/// kept. Beyond that the first one is taken as it is: its writer was killed.
const PENDING_MAX: usize = 1024;
const PENDING_BYTES: usize = 64 * 1024 * 1024;

/// What a line turned out to be.
pub enum Seen<'a> {
    /// A record, and the lines that it stood in.
    Record(&'a Record<'a>, &'a [&'a [u8]]),
    /// No record.
    Other,
}

/// How much was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records, each counted once however many parts it has.
    pub records: u64,
    /// Lines that are no record.
    pub others: u64,
}

/// Reads lines as records. One for all logs of a command: a record of a stream may end in the next file.
#[derive(Debug, Default)]
pub struct Reader {
    counts: Counts,
    /// Parts of unfinished records by their stream.
    pending: BTreeMap<String, Pending>,
    pending_bytes: usize,
    /// The beginning of a line whose end is not there yet.
    partial: Vec<u8>,
    /// Lines of this log that are no record, with something of one in them and without; and those since the last record.
    marked: u64,
    unmarked: u64,
    marked_since: u64,
    unmarked_since: u64,
    /// This log holds records of a stream, so that others may write there.
    is_stream: bool,
    /// Lines that are no record and can have been one.
    damaged: u64,
    /// The line that is being read is too long to be a record.
    is_overlong: bool,
    /// Events whose records are handed out; empty: all.
    wanted: &'static [Event],
}

#[derive(Debug)]
struct Pending {
    /// When it came, for the order in which they are given up.
    number: u64,
    record: u64,
    next: u64,
    lines: Vec<Vec<u8>>,
}

impl Reader {
    /// Hands out records of these events only. What a log is mostly made of need not be parsed then.
    #[must_use]
    pub fn only(wanted: &'static [Event]) -> Self {
        Self { wanted, ..Self::default() }
    }

    /// How much was read so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Lines of the logs that have ended that are no record and can have been one: all of a file log, and those of a collected
    /// stream that have something of a record in them.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    /// Reads as far as there is something, and hands out each record as soon as it is whole. A last line without a newline
    /// waits for its end.
    ///
    /// # Errors
    /// Reading fails, or `visit` does.
    pub fn read<E: From<io::Error>>(
        &mut self,
        log: &mut impl BufRead,
        visit: &mut impl FnMut(Seen<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut line = std::mem::take(&mut self.partial);
        loop {
            let room = LINE_MAX.saturating_sub(line.len() as u64);
            if Read::take(&mut *log, room).read_until(b'\n', &mut line)? == 0 && room > 0 {
                self.partial = line;
                return Ok(());
            }
            if line.pop_if(|byte| *byte == b'\n').is_none() {
                if line.len() as u64 >= LINE_MAX {
                    self.is_overlong = true;
                    line.clear();
                }
                continue;
            }
            if std::mem::take(&mut self.is_overlong) {
                self.other(&[], visit)?
            } else {
                self.line(&line, visit)?
            }
            line.clear();
        }
    }

    /// A log has ended: what is left of it is a line, if a torn one.
    ///
    /// # Errors
    /// Those of `visit`.
    pub fn end_log<E>(&mut self, visit: &mut impl FnMut(Seen<'_>) -> Result<(), E>) -> Result<(), E> {
        let line = std::mem::take(&mut self.partial);
        let ended = match (std::mem::take(&mut self.is_overlong), line.is_empty()) {
            (true, _) => self.other(&[], visit),
            (false, true) => Ok(()),
            (false, false) => self.line(&line, visit),
        };
        self.settle(&[]);
        let (marked, unmarked) = (std::mem::take(&mut self.marked), std::mem::take(&mut self.unmarked));
        self.damaged += if std::mem::take(&mut self.is_stream) { marked } else { marked + unmarked };
        ended
    }

    /// There are no more logs: records whose last parts are missing are taken as they are.
    ///
    /// # Errors
    /// Those of `visit`.
    pub fn end<E>(&mut self, visit: &mut impl FnMut(Seen<'_>) -> Result<(), E>) -> Result<(), E> {
        while self.give_up_first(visit)? {}
        Ok(())
    }

    /// A torn write was never a record of an access that went on, and the next record says that it is there.
    fn settle(&mut self, record: &[u8]) {
        let (marked, unmarked) = (std::mem::take(&mut self.marked_since), std::mem::take(&mut self.unmarked_since));
        if marked + unmarked > 0 && !record.windows(QUARANTINED.len()).any(|window| window == QUARANTINED) {
            self.marked += marked;
            self.unmarked += unmarked;
        }
    }

    fn other<E>(&mut self, line: &[u8], visit: &mut impl FnMut(Seen<'_>) -> Result<(), E>) -> Result<(), E> {
        self.counts.others += 1;
        if Tail::read(line).is_some() {
            // It has its end: no torn write.
            self.marked += 1;
        } else if line.windows(MARK.len()).any(|window| window == MARK) {
            self.marked_since += 1;
        } else {
            self.unmarked_since += 1;
        }
        visit(Seen::Other)
    }

    fn line<E>(&mut self, line: &[u8], visit: &mut impl FnMut(Seen<'_>) -> Result<(), E>) -> Result<(), E> {
        let line = without_prefix(line);
        if self.is_unwanted(line) {
            self.settle(line);
            self.counts.records += 1;
            return Ok(());
        }
        let Some(record) = Record::parse(line) else { return self.other(line, visit) };
        self.settle(line);
        self.is_stream |= *record.assurance == *Assurance::Stream.word();
        match (record.record, record.part, record.parts) {
            (Some(number), Some(part), Some(parts)) => self.part(&record, (number, part, parts), line, visit),
            _ => {
                // A killed writer's record does not go on: another one of its stream is here.
                if !self.pending.is_empty() {
                    self.give_up(&record.stream, visit)?;
                }
                self.counts.records += 1;
                visit(Seen::Record(&record, &[line]))
            }
        }
    }

    /// Whether a line that is laid out as a record says another event, as far as can be told without parsing it. Within a
    /// string a quote is escaped, so what looks like the member is it. A stream's may be one part of several, and is parsed.
    fn is_unwanted(&self, line: &[u8]) -> bool {
        let Some(rest) = line.strip_prefix(OPENING.as_bytes()).filter(|_| !self.wanted.is_empty()) else {
            return false;
        };
        let event = rest.windows(EVENT.len()).take(EVENT_WITHIN).position(|window| window == EVENT);
        let word = event.and_then(|at| rest.get(at + EVENT.len()..));
        let is_wanted = |word: &[u8]| {
            let is =
                |event: &Event| word.strip_prefix(event.word().as_bytes()).is_some_and(|end| end.starts_with(b"\""));
            self.wanted.iter().any(is)
        };
        !rest.starts_with(STREAM) && word.is_some_and(|word| !is_wanted(word)) && Tail::read(line).is_some()
    }

    fn part<E>(
        &mut self,
        record: &Record<'_>,
        (number, part, parts): (u64, u64, u64),
        line: &[u8],
        visit: &mut impl FnMut(Seen<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let stream = &*record.stream;
        if !self.pending.get(stream).is_some_and(|one| one.record == number && one.next == part) {
            self.give_up(stream, visit)?;
        }
        let came = self.counts.records;
        let new = || Pending { number: came, record: number, next: part, lines: Vec::new() };
        let pending = self.pending.entry(stream.to_owned()).or_insert_with(new);
        self.counts.records += u64::from(pending.lines.is_empty());
        pending.next = part.saturating_add(1);
        pending.lines.push(line.to_vec());
        self.pending_bytes += line.len();
        if part >= parts {
            return self.give_up(stream, visit);
        }
        while self.pending.len() > PENDING_MAX || self.pending_bytes > PENDING_BYTES {
            self.give_up_first(visit)?;
        }
        Ok(())
    }

    fn give_up_first<E>(&mut self, visit: &mut impl FnMut(Seen<'_>) -> Result<(), E>) -> Result<bool, E> {
        let first = self.pending.iter().min_by_key(|(_, one)| one.number).map(|(stream, _)| stream.clone());
        let Some(stream) = first else { return Ok(false) };
        self.give_up(&stream, visit)?;
        Ok(true)
    }

    /// Takes what there is of a record in parts as that record.
    fn give_up<E>(&mut self, stream: &str, visit: &mut impl FnMut(Seen<'_>) -> Result<(), E>) -> Result<(), E> {
        let Some(pending) = self.pending.remove(stream) else { return Ok(()) };
        let lines: Vec<&[u8]> = pending.lines.iter().map(Vec::as_slice).collect();
        self.pending_bytes = self.pending_bytes.saturating_sub(lines.iter().map(|line| line.len()).sum());
        let mut parts = lines.iter().filter_map(|line| Record::parse(line));
        let Some(mut whole) = parts.next() else { return Ok(()) };
        whole.secrets.extend(parts.flat_map(|part| part.secrets));
        visit(Seen::Record(&whole, &lines))
    }
}

/// In any line of ours.
const MARK: &[u8] = b"\"vouchsafe.audit/";

const QUARANTINED: &[u8] = b",\"event\":\"audit.quarantined\"";

const EVENT: &[u8] = b",\"event\":\"";
const STREAM: &[u8] = b",\"assurance\":\"stream\"";

/// How far from the beginning our own writers put the event.
const EVENT_WITHIN: usize = 256;

/// A collector may put a time and a name before our line.
fn without_prefix(line: &[u8]) -> &[u8] {
    let opening = OPENING.as_bytes();
    if line.starts_with(opening) || line.first() == Some(&b'{') {
        return line;
    }
    let at = line.windows(opening.len()).position(|window| window == opening);
    at.and_then(|at| line.get(at..)).unwrap_or(line)
}
