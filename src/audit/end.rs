//! What the end of a log is: its last whole record, and what comes after it. Pure.

use super::chain::{Chain, Digest, whole_record};

/// What the end of a log is.
#[derive(Debug, Default)]
pub(super) struct End {
    /// The last whole record.
    pub(super) chain: Option<Chain>,
    /// It carries a seal.
    pub(super) is_sealed: bool,
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

/// Finds the last whole record in the last bytes of a log of `size`; `None` if more has to be looked at.
pub(super) fn find_end(window: &[u8], size: u64) -> Option<End> {
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
        let found = before.get(start..).and_then(whole_record);
        if found.is_some() || line_start.is_none() {
            let junk_at = if found.is_some() { line_end + 1 } else { 0 };
            let junk = window.get(junk_at..).filter(|junk| !junk.is_empty()).map(|junk| Junk {
                offset: window_at + junk_at as u64,
                length: junk.len() as u64,
                sha256: Digest::of(junk),
            });
            let is_sealed = found.is_some_and(|tail| tail.seal.is_some());
            return Some(End { chain: found.map(|tail| tail.chain), is_sealed, junk, unfinished });
        }
        line_end = start.saturating_sub(1);
    }
}
