//! Standard output: what was asked for, and nothing else. Messages go to standard error.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use crate::checked_file::plain_io;
use crate::error::{Cause, Class, Error};

/// Standard output did not take what was printed.
#[derive(Debug)]
pub struct OutputError(io::Error);

impl fmt::Display for OutputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "standard output: {}", plain_io(&self.0))
    }
}

impl Cause for OutputError {
    fn class(&self) -> Class {
        Class::Internal
    }
}

/// Prints `text`. A reader that went away (`vouchsafe list | head`) is no error: it has what it wanted.
///
/// # Errors
/// Standard output did not take it.
pub fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(OutputError(error).into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What `main` says where standard output did not take something that was not printed by [`print()`].
#[must_use]
pub fn failed(error: io::Error) -> Error {
    OutputError(error).into()
}

/// Writes a message on standard error. A pipe that nobody reads any more must not keep the wrapper from ending: it may be
/// the very reason for the message. A terminal that was paused is a person, and is waited for.
///
/// # Errors
/// Standard error did not take it.
pub fn complain(text: &str) -> io::Result<()> {
    let err = io::stderr();
    if err.is_terminal() {
        return err.lock().write_all(text.as_bytes());
    }
    say(text, Timespec { tv_sec: 1, tv_nsec: 0 })
}

/// The same for what is worth saying and not worth waiting for.
///
/// # Errors
/// Standard error did not take it at once.
pub fn mention(text: &str) -> io::Result<()> {
    say(text, Timespec { tv_sec: 0, tv_nsec: 0 })
}

fn say(text: &str, patience: Timespec) -> io::Result<()> {
    let err = io::stderr();
    // A pipe that is ready takes this much without waiting (pipe(7), PIPE_BUF).
    for piece in text.as_bytes().chunks(4096) {
        let mut ready = [PollFd::new(&err, PollFlags::OUT)];
        if poll(&mut ready, Some(&patience))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        err.lock().write_all(piece)?;
    }
    Ok(())
}

/// Prints `value` as one line of JSON.
///
/// # Errors
/// Standard output did not take it.
pub fn print_json(value: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string(value).map_err(|error| OutputError(error.into()))?;
    print(&(text + "\n"))
}

/// `1 record`, `2 records`: a number and a word in English.
#[must_use]
pub fn count(number: u64, word: &str) -> String {
    match (number, word.strip_suffix('y')) {
        (1, _) => format!("1 {word}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        (_, None) => format!("{number} {word}s"),
    }
}

/// Lines of columns, each as wide as its widest cell, the last one ragged.
#[must_use]
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    let head: Vec<String> = head.iter().map(ToString::to_string).collect();
    for row in std::iter::once(&head).chain(rows) {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular() {
        let counted = [count(0, "record"), count(1, "record"), count(2, "record"), count(2, "discontinuity")];
        assert_eq!(counted, ["0 records", "1 record", "2 records", "2 discontinuities"]);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["LONGER".into(), "x".into()], vec!["S".into(), String::new()]];
        assert_eq!(table(&["NAME", "STORE"], &rows), "NAME    STORE\nLONGER  x\nS\n");
    }
}
