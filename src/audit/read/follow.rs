//! A log that is written while it is read: it grows, it is moved and another one takes its name, it is cut.
//!
//! No notification of the kernel is asked for: the file is looked at again and again, as `tail -F` does on any file system.

use std::fs::File;
use std::io::{self, BufReader, Seek};
use std::path::{Path, PathBuf};

use super::lines::{Reader, Seen};
use crate::audit::head::Identity;

/// One log, and how far it was read.
#[derive(Debug)]
pub struct Followed {
    path: PathBuf,
    log: Option<BufReader<File>>,
    /// One for each log: lines of one must not be continued by another.
    reader: Reader,
}

/// What happened to a log besides growing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Its name stands for another file now, which is read from its beginning.
    Replaced,
    /// It is shorter than what was read of it; it is read from its beginning.
    Cut,
}

impl Followed {
    /// Follows the log at `path`, from its beginning. It need not be there yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), log: None, reader: Reader::default() }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads all that is there now: what is left of the file that is open, then the one that has taken its name.
    ///
    /// # Errors
    /// Reading fails, or `visit` does.
    pub fn catch_up<E: From<io::Error>>(
        &mut self,
        changed: &mut impl FnMut(&Path, Change),
        visit: &mut impl FnMut(Seen<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            // Before reading: a writer that still has the old file open appends to it no later than this.
            let next = self.next()?;
            if let Some(log) = &mut self.log {
                self.reader.read(log, visit)?;
                if is_cut(log)? {
                    changed(&self.path, Change::Cut);
                    self.reader.end_log(visit)?;
                    log.rewind()?;
                    self.reader.read(log, visit)?;
                }
            }
            let Some(next) = next else { return Ok(()) };
            if self.log.is_some() {
                changed(&self.path, Change::Replaced);
                self.reader.end_log(visit)?;
            }
            self.log = Some(next);
        }
    }

    /// The file that the name stands for, if that is another one than the one that is open.
    fn next(&self) -> io::Result<Option<BufReader<File>>> {
        let named = match rustix::fs::stat(&self.path) {
            Ok(stat) => Identity::of(&stat),
            // Between two logs, as logrotate's `nocreate` leaves it.
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        if let Some(log) = &self.log
            && Identity::of(&rustix::fs::fstat(log.get_ref())?) == named
        {
            return Ok(None);
        }
        match File::open(&self.path) {
            Ok(file) => Ok(Some(BufReader::with_capacity(256 * 1024, file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether the file ends before the place up to which it was read.
fn is_cut(log: &mut BufReader<File>) -> io::Result<bool> {
    let size = u64::try_from(rustix::fs::fstat(log.get_ref())?.st_size).unwrap_or_default();
    Ok(size < log.stream_position()?)
}
