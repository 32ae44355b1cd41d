//! A prompt without echo. The terminal is silenced before it asks, so that nothing typed early is seen, and once for both
//! times that it asks, so that nothing typed between them is; what a paste leaves over is thrown away, not left to the shell.

use std::fs::File;
use std::io::{self, Read, Write};

use rustix::fs::{Mode, OFlags};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::secret::Secret;

/// A terminal hands over at most this much of one line and drops the rest without a word (termios(3), canonical mode).
pub const LONGEST_LINE: usize = 4095;

/// The controlling terminal while it echoes nothing.
pub struct Silence {
    terminal: File,
    before: Termios,
}

impl Silence {
    /// Silences the controlling terminal, until this is dropped.
    ///
    /// # Errors
    /// There is none, or it does not obey.
    pub fn begin() -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY;
        let terminal = File::from(rustix::fs::open("/dev/tty", flags, Mode::empty())?);
        let before = tcgetattr(&terminal)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        // The newline alone is shown, so that the next line begins at its margin.
        silent.local_modes.insert(LocalModes::ECHONL | LocalModes::ICANON);
        let silence = Self { terminal, before };
        tcsetattr(&silence.terminal, OptionalActions::Flush, &silent)?;
        Ok(silence)
    }

    /// Shows `question` and reads one line, without its newline.
    ///
    /// # Errors
    /// The terminal fails; the line is as long as a terminal's can be, so that its end may be lost.
    pub fn ask(&mut self, question: &str) -> io::Result<Secret> {
        self.terminal.write_all(question.as_bytes())?;
        let mut line = Vec::with_capacity(LONGEST_LINE + 1);
        let mut byte = [0];
        // One byte at a time: whatever belongs to the next line stays there.
        while line.len() <= LONGEST_LINE && self.terminal.read(&mut byte)? == 1 && byte != *b"\n" {
            line.extend_from_slice(&byte);
        }
        let line = Secret::new(line);
        if line.expose().len() >= LONGEST_LINE {
            return Err(io::Error::other("the line is longer than a terminal can take"));
        }
        Ok(line)
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        tcsetattr(&self.terminal, OptionalActions::Flush, &self.before).unwrap_or_default();
    }
}
