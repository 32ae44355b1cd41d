//! `vouchsafe audit show`: records as rows, or as they are; all or those that match; and as they come.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::ValueEnum;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::sources::{Sources, Unread, complain_of_others, refuse_no_log};
use crate::audit::read::{Change, Filter, Followed, Instant, Reader, Record, Seen, Table, open};
use crate::audit::verify::Unreadable;
use crate::checked_file::plain_io;
use crate::cli;
use crate::error::{Cause, Class, Error};
use crate::inject::ParentEnv;
use crate::name::show as show_path;
use crate::output;

/// Shows the logs.
///
/// # Errors
/// One cannot be read, or is no log; standard output does not take it; with `--exit-status`, a record matches.
pub(super) fn show(options: &cli::Show, parent: &ParentEnv) -> Result<(), Error> {
    let selection = cli::Selection { env: options.env.clone(), service: options.service.clone(), policy: None };
    let sources = Sources::select(&options.files, &selection, parent)?.sources;
    let out = BufWriter::new(io::stdout().lock());
    let table = if options.wide { Table::wide() } else { Table::default() };
    let filter = filter(options, SystemTime::now());
    let mut shown = Shown { filter, json: options.json, table, out, held: 0, matched: 0 };
    let ended =
        if options.follow { follow(options, &mut shown).map(|()| Vec::new()) } else { show_all(&sources, &mut shown) };
    let unread = match ended {
        // Whoever reads has what it wanted. Of what was not read for that, nothing is known.
        Err(Stop::Out(error))
            if error.kind() == ErrorKind::BrokenPipe && (!options.exit_status || shown.matched > 0) =>
        {
            Vec::new()
        }
        Err(Stop::Out(error)) => return Err(output::failed(error)),
        Err(Stop::In(error)) => return Err(error),
        Ok(unread) => unread,
    };
    if !options.exit_status {
        return Ok(());
    }
    match (shown.matched, unread.into_iter().next()) {
        (0, None) => Ok(()),
        (0, Some((path, why))) => Err(Unread { path, why, unknown: "no record matches" }.into()),
        (count, _) => Err(Matched(count).into()),
    }
}

/// Records match, and `--exit-status` asked whether any does.
#[derive(Debug)]
struct Matched(u64);

impl fmt::Display for Matched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => write!(f, "1 record matches"),
            many => write!(f, "{many} records match"),
        }
    }
}

impl Cause for Matched {
    fn class(&self) -> Class {
        Class::Due
    }
}

fn filter(options: &cli::Show, now: SystemTime) -> Filter {
    let patterns = |globs: &[cli::Glob]| globs.iter().map(|glob| glob.0.clone()).collect();
    let word = |outcome: &cli::OutcomeWord| outcome.to_possible_value().map(|value| value.get_name().to_owned());
    Filter {
        secrets: patterns(&options.secret),
        uids: options.uid.clone(),
        commands: patterns(&options.command),
        events: patterns(&options.event),
        outcomes: options.outcome.iter().filter_map(word).collect(),
        environment: options.env.as_ref().map(ToString::to_string),
        service: options.service.as_ref().map(ToString::to_string),
        since: options.since.map(|when| when.instant(now)),
        until: options.until.map(|when| when.instant(now)),
    }
}

/// Why it ended early.
enum Stop {
    In(Error),
    Out(io::Error),
}

/// What [`Reader`] and [`Followed`] give: a failure to read, whose file is told by the caller.
enum Failed {
    In(io::Error),
    Out(io::Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::In(error)
    }
}

impl Failed {
    fn of(self, path: &Path) -> Stop {
        match self {
            Self::In(error) => Stop::In(Unreadable { path: path.to_owned(), error }.into()),
            Self::Out(error) => Stop::Out(error),
        }
    }
}

/// What was shown, and how.
struct Shown<W: Write> {
    filter: Filter,
    json: bool,
    table: Table,
    out: W,
    /// Lines at the beginning that are no record: rows only if a record follows, for else it is no log.
    held: u64,
    /// Records that matched.
    matched: u64,
}

impl<W: Write> Shown<W> {
    fn seen(&mut self, seen: &Seen<'_>) -> Result<(), Failed> {
        match seen {
            Seen::Other => {
                self.held += 1;
                Ok(())
            }
            Seen::Record(record, lines) => self.record(record, lines).map_err(Failed::Out),
        }
    }

    fn record(&mut self, record: &Record<'_>, lines: &[&[u8]]) -> io::Result<()> {
        self.others()?;
        if !self.filter.matches(record) {
            return Ok(());
        }
        self.matched += 1;
        if !self.json {
            return self.table.record(&mut self.out, record);
        }
        lines.iter().try_for_each(|line| {
            if line.iter().all(|byte| matches!(byte, b' '..=b'~')) {
                self.out.write_all(line)?;
                self.out.write_all(b"\n")
            } else {
                writeln!(self.out, "{}", ascii(&String::from_utf8_lossy(line)))
            }
        })
    }

    /// Who asks for some records did not ask for what is none; who reads JSON cannot read it.
    fn others(&mut self) -> io::Result<()> {
        let held = std::mem::take(&mut self.held);
        if self.json || !self.filter.is_empty() {
            return Ok(());
        }
        (0..held).try_for_each(|_| self.table.other(&mut self.out))
    }
}

/// A line that a terminal could misread: no record of ours is one.
fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            ' '..='~' => out.push(c),
            // As in JSON, so that it still is what it was.
            c => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}"))),
        }
    }
    out
}

/// Shows what can be read, and says what cannot, and could hold records that match.
fn show_all<W: Write>(sources: &Sources, shown: &mut Shown<W>) -> Result<Vec<(PathBuf, String)>, Stop> {
    let mut reader = Reader::default();
    let mut unread = Vec::new();
    for path in sources.paths() {
        let before = reader.counts();
        let log = match open(path) {
            Ok(log) => log,
            Err(error) if sources.are_found() && unread.len() + 1 < sources.paths().len() => {
                unread.push((path.clone(), plain_io(&error.error)));
                continue;
            }
            Err(error) => return Err(Stop::In(error.into())),
        };
        let mut log = BufReader::with_capacity(256 * 1024, log);
        show_one(&mut reader, &mut log, shown).map_err(|failed| failed.of(path))?;
        refuse_no_log(path, before, reader.counts()).map_err(Stop::In)?;
        shown.others().map_err(Stop::Out)?;
    }
    reader.end(&mut |seen| shown.seen(&seen)).map_err(|failed| failed.of(Path::new("")))?;
    if !shown.json {
        shown.table.head(&mut shown.out).map_err(Stop::Out)?;
    }
    shown.out.flush().map_err(Stop::Out)?;
    complain_of_others(reader.counts().others);
    let packed = sources
        .compressed()
        .iter()
        .filter(|path| shown.filter.since.as_ref().is_none_or(|since| is_after(path, since)));
    unread.extend(packed.map(|path| (path.clone(), "it is compressed".to_owned())));
    for (path, why) in &unread {
        complain(&format!("not read: `{}`: {why}", show_path(path)));
    }
    Ok(unread)
}

/// Whether a file may hold records that were written since: what packs it keeps the time of the last one.
fn is_after(path: &Path, since: &Instant) -> bool {
    path.metadata().and_then(|file| file.modified()).map_or(true, |written| Instant::of(written) >= *since)
}

fn show_one<W: Write>(reader: &mut Reader, log: &mut BufReader<File>, shown: &mut Shown<W>) -> Result<(), Failed> {
    let mut visit = |seen: Seen<'_>| shown.seen(&seen);
    reader.read(log, &mut visit)?;
    reader.end_log(&mut visit)
}

/// How often the logs are looked at.
const PERIOD: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };

/// Until it is interrupted, or nobody reads any more.
fn follow<W: Write>(options: &cli::Show, shown: &mut Shown<W>) -> Result<(), Stop> {
    let mut logs: Vec<Followed> = options.files.iter().map(|path| Followed::new(path)).collect();
    for path in options.files.iter().filter(|path| !path.exists()) {
        complain(&format!("`{}` is not there yet; waiting for it", show_path(path)));
    }
    if !shown.json {
        shown.table.head(&mut shown.out).map_err(Stop::Out)?;
    }
    let mut changed = |path: &Path, change: Change| {
        let path = show_path(path);
        match change {
            Change::Cut => complain(&format!("`{path}` was cut; it is shown from its beginning")),
            Change::Replaced => complain(&format!("`{path}` is another file now; going on with that")),
        }
    };
    loop {
        for log in &mut logs {
            let caught_up = log.catch_up(&mut changed, &mut |seen| shown.seen(&seen));
            caught_up.map_err(|failed| failed.of(log.path()))?;
            shown.others().map_err(Stop::Out)?;
        }
        shown.out.flush().map_err(Stop::Out)?;
        if is_unread() {
            return Ok(());
        }
    }
}

fn complain(text: &str) {
    output::complain(&format!("vouchsafe: {text}\n")).unwrap_or_default();
}

/// Waits for the next look, or for the end of whoever reads standard output (poll(2): `POLLERR` on a pipe without a reader).
fn is_unread() -> bool {
    let out = io::stdout();
    let mut ready = [PollFd::new(&out, PollFlags::empty())];
    match poll(&mut ready, Some(&PERIOD)) {
        Ok(0) | Err(_) => false,
        Ok(_) => ready.iter().any(|one| one.revents().intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{"schema":"vouchsafe.audit/1","assurance":"file","time":"T","access":"0a","event":"access.released","outcome":"succeeded","actor":{"uid":7,"pid":9},"command":{"path":"/bin/x"},"secrets":[{"name":"A","version":3},{"bundle":"b/"},{"store":"s","bundle":""},{"name":"","store":"s","item":"i","version":2}],"stream":"s"}"#;

    fn shown(log: &[u8], json: bool) -> String {
        let (filter, table) = (Filter::default(), Table::default());
        let mut shown = Shown { filter, json, table, out: Vec::new(), held: 0, matched: 0 };
        let mut reader = Reader::default();
        let mut visit = |seen: Seen<'_>| shown.seen(&seen);
        let done = reader.read(&mut &*log, &mut visit).and_then(|()| reader.end_log(&mut visit));
        assert!(done.is_ok() && shown.others().is_ok());
        String::from_utf8(shown.out).unwrap()
    }

    #[test]
    fn a_row_says_who_got_what() {
        let text = shown(RECORD.as_bytes(), false);
        let words: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(words, ["T", "access.released", "succeeded", "7", "/bin/x", "A@3,", "b/,", "s:*,", "s:i@2", "-"]);
    }

    #[test]
    fn nothing_reaches_the_terminal_unescaped_and_nothing_stops_it() {
        let odd = RECORD.replace("\"T\"", "\"\\u001b[1m\\n\u{202e}\"").replace("/bin/x", "\u{1f600}");
        let log = [b"\x1b[31m\xff\n", odd.as_bytes(), b"\n{}\n[\n\n"].concat();
        let table = shown(&log, false);
        assert_eq!(table.lines().count(), 6, "a head, and a row for each line: {table}");
        let json = shown(&log, true);
        assert_eq!(json.lines().count(), 1, "records, and nothing that jq would stop at: {json}");
        for text in [&table, &json] {
            assert!(text.chars().all(|c| c == '\n' || !crate::name::is_unprintable(c)), "{text:?}");
        }
        let before: serde_json::Value = serde_json::from_str(&odd).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap(), before);
    }
}
