//! What `verify` reads: records as the readers of logs read them, and bytes that are none.

use ring::digest::{Context, SHA256};

use super::layout::is_laid_out;
use super::{MARK, find};
use crate::audit::chain::{Digest, OPENING, Tail};
use crate::audit::event::Assurance;
use crate::audit::read::record::{Quarantined, Record};

/// A record that everybody reads as `verify` does: it is laid out as one, and the readers of logs take it as it is.
pub(super) fn parse(bytes: &[u8]) -> Option<(Record<'_>, Assurance)> {
    let record = Record::parse(bytes).filter(|_| is_laid_out(bytes))?;
    let assurance = Assurance::ALL.iter().find(|level| level.word() == &*record.assurance)?;
    is_time(&record.time).then_some((record, *assurance))
}

/// RFC 3339, UTC, of one width, so that the text has the order of the times.
fn is_time(text: &str) -> bool {
    text.len() == TIME.len() && humantime::parse_rfc3339(text).is_ok()
}

const TIME: &str = "1970-01-01T00:00:00.000000Z";

/// Bytes of a log that are no record, since the last one.
pub(super) struct Junk {
    pub(super) line: u64,
    hash: Context,
    pub(super) length: u64,
    /// The final newline is not in `hash` yet: the writer that quarantined may have added it.
    pub(super) newline: bool,
    /// The last line of it ends as a record does.
    pub(super) altered: Option<Tail>,
    /// Some line of it does.
    pub(super) is_altered: bool,
    /// There is something of a record in it.
    pub(super) ours: bool,
    /// It is one line without an end that begins as a record does, or of zeros as a power cut leaves them.
    pub(super) is_begun: bool,
}

impl Junk {
    pub(super) fn new(line: u64) -> Self {
        Self {
            line,
            hash: Context::new(&SHA256),
            length: 0,
            newline: false,
            altered: None,
            is_altered: false,
            ours: false,
            is_begun: false,
        }
    }

    pub(super) fn add(&mut self, bytes: &[u8], newline: bool) {
        let is_first = self.length == 0 && !self.newline;
        let opening = OPENING.as_bytes();
        let begins = bytes.starts_with(opening) || opening.starts_with(bytes) || bytes.iter().all(|byte| *byte == 0);
        self.is_begun = is_first && !newline && begins;
        if self.newline {
            self.hash.update(b"\n");
            self.length += 1;
        }
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        self.newline = newline;
        // A power cut can lose a page in the middle.
        self.altered = Tail::read(bytes).filter(|_| !bytes.contains(&0));
        self.is_altered |= self.altered.is_some();
        self.ours |= self.is_altered || find(bytes, MARK).is_some();
    }

    pub(super) fn is(&self, note: &Quarantined<'_>) -> bool {
        let with = |more: &[u8]| {
            let mut hash = self.hash.clone();
            hash.update(more);
            note.length == self.length + more.len() as u64 && Digest::from_ring(&hash.finish()).hex() == note.sha256
        };
        with(b"") || (self.newline && with(b"\n"))
    }
}
