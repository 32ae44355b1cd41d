//! Which logs a command reads, and reading them all.

use std::fmt;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use crate::audit::Event;
use crate::audit::read::{Counts, Logs, Reader, Record, Seen, open};
use crate::audit::verify::Unreadable;
use crate::cli::UsageError;
use crate::error::{Cause, Class, Error};
use crate::name::show;
use crate::output;
use crate::policy::model::Sink;

/// The logs of a command: those that were named, or those that were found.
pub(super) struct Sources {
    paths: Vec<PathBuf>,
    compressed: Vec<PathBuf>,
    /// Found ones that cannot be read are told of, and the others read.
    are_found: bool,
}

/// What was read, and what was not.
pub(super) struct Sum {
    pub(super) counts: Counts,
    /// The logs that were read.
    pub(super) logs: Vec<PathBuf>,
    /// Those that were not, and why.
    pub(super) unread: Vec<(PathBuf, String)>,
}

impl Sources {
    /// The logs that were named.
    pub(super) fn named(files: &[PathBuf]) -> Self {
        Self { paths: files.to_vec(), compressed: Vec::new(), are_found: false }
    }

    /// The logs of the first of these sinks that is a file.
    ///
    /// # Errors
    /// None of them is one, or its folder cannot be listed, or nothing has ever been written there.
    pub(super) fn of(sinks: &[Sink]) -> Result<Self, Error> {
        let Some(path) = sinks.iter().find_map(|sink| match sink {
            Sink::File { path, .. } => Some(path),
            Sink::Fd(_) | Sink::Journald(_) | Sink::Stderr | Sink::Syslog(_) => None,
        }) else {
            let hint = "name the logs, as they were collected: vouchsafe audit who-has NAME FILE...";
            return Err(UsageError::new("no sink is a file, so no log is found", Some(hint.into())).into());
        };
        let Logs { paths, compressed } = Logs::of(sinks)?;
        if paths.is_empty() {
            return Err(Unreadable { path: PathBuf::from(path), error: rustix::io::Errno::NOENT.into() }.into());
        }
        Ok(Self { paths, compressed, are_found: true })
    }

    /// Reads all of them, and hands out the records of these events.
    ///
    /// # Errors
    /// A named log, or every found one, cannot be read; one is no log.
    pub(super) fn read(&self, events: &'static [Event], mut visit: impl FnMut(&Record<'_>)) -> Result<Sum, Error> {
        let mut reader = Reader::only(events);
        let mut visit = |seen: Seen<'_>| {
            if let Seen::Record(record, _) = seen {
                visit(record);
            }
            Ok::<(), io::Error>(())
        };
        let (mut logs, mut unread, mut failure) = (Vec::new(), Vec::new(), None);
        for path in &self.paths {
            let before = reader.counts();
            match read_one(&mut reader, path, &mut visit) {
                Ok(()) => logs.push(path.clone()),
                Err(error) if self.are_found => {
                    unread.push((path.clone(), crate::checked_file::plain_io(&error.error)));
                    failure = Some(error);
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            refuse_no_log(path, before, reader.counts())?;
        }
        let last = self.paths.last().cloned().unwrap_or_default();
        reader.end(&mut visit).map_err(|error| Unreadable { path: last, error })?;
        if let (true, Some(failure)) = (logs.is_empty(), failure) {
            return Err(failure.into());
        }
        unread.extend(self.compressed.iter().map(|path| (path.clone(), "it is compressed".to_owned())));
        Ok(Sum { counts: reader.counts(), logs, unread })
    }
}

fn read_one(
    reader: &mut Reader,
    path: &Path,
    visit: &mut impl FnMut(Seen<'_>) -> io::Result<()>,
) -> Result<(), Unreadable> {
    let unreadable = |error| Unreadable { path: path.to_owned(), error };
    let mut log = BufReader::with_capacity(256 * 1024, open(path)?);
    reader.read(&mut log, visit).and_then(|()| reader.end_log(visit)).map_err(unreadable)
}

/// A file with lines, none of which is a record, is no log of ours: nothing to say about it is not the same as nothing in it.
///
/// # Errors
/// It is none.
pub(super) fn refuse_no_log(path: &Path, before: Counts, after: Counts) -> Result<(), Error> {
    let lines = after.others - before.others;
    if after.records == before.records && lines > 0 {
        return Err(NotALog { path: path.to_owned(), lines }.into());
    }
    Ok(())
}

/// Tells of lines that are no record.
pub(super) fn complain_of_others(others: u64) {
    if others > 0 {
        let are = if others == 1 { "1 line is".to_owned() } else { format!("{others} lines are") };
        output::complain(&format!("vouchsafe: {are} no record and not counted\n")).unwrap_or_default();
    }
}

/// What somebody who relies on the answer has to know: how much of the logs was read, and that nobody checked them.
pub(super) fn complain_of_limits(sum: &Sum) {
    complain_of_others(sum.counts.others);
    let mut text = String::new();
    for (path, why) in &sum.unread {
        text.push_str(&format!("vouchsafe: not read: `{}`: {why}\n", show(path)));
    }
    let verify = match sum.logs.as_slice() {
        [one] => show(one),
        _ => "FILE...   # each log by itself, its rotated files first".to_owned(),
    };
    text.push_str(&format!("vouchsafe: the chain was not verified: vouchsafe audit verify {verify}\n"));
    output::complain(&text).unwrap_or_default();
}

/// A file that is no audit log.
#[derive(Debug)]
pub(super) struct NotALog {
    path: PathBuf,
    lines: u64,
}

impl fmt::Display for NotALog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = show(&self.path);
        match self.lines {
            1 => write!(f, "`{path}` is no audit log: its one line is no record"),
            lines => write!(f, "`{path}` is no audit log: none of its {lines} lines is a record"),
        }
    }
}

impl Cause for NotALog {
    fn class(&self) -> Class {
        Class::Audit
    }

    fn hint(&self) -> Option<String> {
        Some("vouchsafe explain --env ENVIRONMENT   # says where accesses are written down".into())
    }
}
