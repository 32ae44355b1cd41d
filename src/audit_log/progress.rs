//! How far a long reading is, for a person at a terminal.

use std::io::{IsTerminal, Write, stderr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Below that it is over before anybody looks.
const LONG: u64 = 64 * 1024 * 1024;

/// How often the line is written anew.
const PAUSE: Duration = Duration::from_millis(100);

const WIDTH: u64 = 30;

/// Shows progress over these files, if somebody watches and it takes a while.
pub(super) fn shown(files: &[PathBuf]) -> Option<Box<dyn FnMut(u64, u64)>> {
    let total: u64 = files.iter().filter_map(|path| std::fs::metadata(path).ok()).map(|metadata| metadata.len()).sum();
    if total < LONG || !stderr().is_terminal() {
        return None;
    }
    let mut last: Option<Instant> = None;
    Some(Box::new(move |bytes, records| {
        if last.is_none_or(|last| last.elapsed() >= PAUSE) {
            last = Some(Instant::now());
            // A terminal that does not take it has nobody before it.
            write!(stderr(), "\r{}", bar(bytes, total, records)).unwrap_or_default();
        }
    }))
}

/// Takes the line away.
pub(super) fn clear() {
    write!(stderr(), "\r\x1b[K").unwrap_or_default();
}

fn bar(bytes: u64, total: u64, records: u64) -> String {
    let percent = bytes.saturating_mul(100).checked_div(total).unwrap_or(100).min(100);
    let full = usize::try_from(percent * WIDTH / 100).unwrap_or_default();
    let width = usize::try_from(WIDTH).unwrap_or_default();
    format!("verifying [{:<width$}] {percent:>3} %  {records} records", "#".repeat(full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_full_at_the_end_and_never_fuller() {
        assert_eq!(bar(0, 10, 0), format!("verifying [{}]   0 %  0 records", " ".repeat(30)));
        assert_eq!(bar(5, 10, 7), format!("verifying [{}{}]  50 %  7 records", "#".repeat(15), " ".repeat(15)));
        // The log grew while it was read.
        assert_eq!(bar(11, 10, 8), format!("verifying [{}] 100 %  8 records", "#".repeat(30)));
        assert!(bar(1, 0, 1).contains("100 %"));
    }
}
