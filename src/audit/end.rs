//! What the end of a log is: its last whole record, and what comes after it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::chain::{Chain, Digest, whole_record};

/// What the end of a log is.
#[derive(Debug, Default)]
pub(super) struct End {
    /// The last whole record.
    pub(super) chain: Option<Chain>,
    /// It carries a seal.
    pub(super) is_sealed: bool,
    /// It ends an epoch. Not looked for where the head file names it: a head is written after the state that comes with it.
    pub(super) ends_epoch: bool,
    /// What comes after it.
    pub(super) junk: Option<Junk>,
    /// The log does not end with a newline.
    pub(super) unfinished: bool,
}

#[derive(Debug)]
pub(super) struct Junk {
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) sha256: Digest,
}

/// How far back a whole record is looked for: further than a line can be long.
pub(super) const LOOK_BACK: u64 = 64 * 1024 * 8 * 8 * 8;

/// The end of a log of `size`; `None` if there is no record as far as is looked.
pub(super) fn read_end(log: &File, size: u64) -> io::Result<Option<End>> {
    let mut wanted = 64 * 1024;
    loop {
        let end = find_end(&read_last(log, size, wanted)?, size);
        if end.is_some() || wanted >= LOOK_BACK {
            return Ok(end);
        }
        wanted *= 8;
    }
}

/// The last bytes of a log of `size`, at most as many as are `wanted`.
pub(super) fn read_last(log: &File, size: u64, wanted: u64) -> io::Result<Vec<u8>> {
    let length = wanted.min(size);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
    log.read_exact_at(&mut bytes, size - length)?;
    Ok(bytes)
}

/// No text can hold this, since its quotes would be escaped.
const ENDS: &[u8] = b",\"event\":\"audit.sealing_ended\",";

/// Finds the last whole record in the last bytes of a log of `size`; `None` if more has to be looked at. Pure.
fn find_end(window: &[u8], size: u64) -> Option<End> {
    let window_at = size - window.len() as u64;
    let unfinished = !window.ends_with(b"\n");
    let mut line_end = window.len();
    loop {
        let before = window.get(..line_end)?;
        let line_start = before.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
        let start = match line_start {
            Some(start) => start,
            None if window_at == 0 => 0,
            None => return None,
        };
        let line = before.get(start..).unwrap_or_default();
        let found = whole_record(line);
        if found.is_some() || line_start.is_none() {
            let junk_at = if found.is_some() { line_end + 1 } else { 0 };
            let junk = window.get(junk_at..).filter(|junk| !junk.is_empty()).map(|junk| Junk {
                offset: window_at + junk_at as u64,
                length: junk.len() as u64,
                sha256: Digest::of(junk),
            });
            let is_sealed = found.is_some_and(|tail| tail.seal.is_some());
            let ends_epoch = is_sealed && line.windows(ENDS.len()).any(|part| part == ENDS);
            return Some(End { chain: found.map(|tail| tail.chain), is_sealed, ends_epoch, junk, unfinished });
        }
        line_end = start.saturating_sub(1);
    }
}
