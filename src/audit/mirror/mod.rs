//! Mirrors: the lines of the first sink that counts, repeated to syslog or journald once every sink has accepted them.
//!
//! What must stay true: a mirror refuses nothing and holds nothing up. What it does not take at once is lost to it; that is counted,
//! said to whoever runs the process, and said in the mirror before its next record. There is no thread and no queue of ours.

mod journald;

use std::borrow::Cow;
use std::cell::OnceCell;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustix::io::Errno;
use serde::Deserialize;

use super::event::{Event, Outcome};
use super::record::rfc3339;
use super::socket::LocalSocket;
use super::syslog::{self, Severity};
use crate::checked_file::plain_io;
use crate::name::show;
use crate::output::{self, count};
use crate::policy::model::Sink;

/// Something that has to be said of a mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MirrorNews {
    /// It does not take records.
    Fails {
        /// Its type and socket.
        mirror: String,
        /// Why not.
        why: String,
    },
    /// It takes records again.
    Works {
        /// Its type and socket.
        mirror: String,
        /// How many it has not got.
        lost: u64,
    },
}

/// Who hears of the mirrors of a process.
pub trait Watch: Send {
    /// So many records are missing in a mirror.
    fn lost(&mut self, records: u64);
    /// To be said, once for each time that a mirror fails.
    fn news(&mut self, news: MirrorNews);
}

/// The mirrors of one writer.
pub(super) struct Mirrors {
    mirrors: Vec<Mirror>,
    watch: Box<dyn Watch>,
}

struct Mirror {
    kind: Kind,
    socket: LocalSocket,
    name: String,
    /// Of messages of syslog.
    host: OnceCell<String>,
    /// Of which the mirror has not been told.
    lost: u64,
    /// Nobody is asked again before, where nobody was there.
    rests_until: Option<Instant>,
    /// How many were lost, since it was said that it fails.
    failing: Option<u64>,
    /// When that was said last.
    said: Option<Instant>,
}

#[derive(Clone, Copy)]
enum Kind {
    Journald,
    Syslog,
}

/// How often a mirror is tried where nobody listens.
const PAUSE: Duration = Duration::from_secs(1);

/// How often it is said that a mirror fails, however often it does.
const QUIET: Duration = Duration::from_secs(10);

impl Mirrors {
    /// Those among `sinks`. Opens nothing.
    pub(super) fn of(sinks: &[Sink], watch: Box<dyn Watch>) -> Self {
        let mirror = |sink: &Sink| match sink {
            Sink::Journald(path) => {
                let name = format!("journald `{}`", show(path));
                Some(Mirror::new(Kind::Journald, LocalSocket::of_datagrams(path), name))
            }
            Sink::Syslog(path) => {
                Some(Mirror::new(Kind::Syslog, syslog::socket(path), format!("syslog `{}`", show(path))))
            }
            Sink::Fd(_) | Sink::File { .. } | Sink::Stderr => None,
        };
        Self { mirrors: sinks.iter().filter_map(mirror).collect(), watch }
    }

    /// Whether there is nobody to repeat anything to.
    pub(super) fn is_empty(&self) -> bool {
        self.mirrors.is_empty()
    }

    /// Repeats whole lines, each with its newline.
    pub(super) fn repeat(&mut self, lines: &[u8]) {
        for line in split(lines) {
            // Records are ASCII.
            let Ok(text) = std::str::from_utf8(line) else { continue };
            let read = Line::read(text);
            for mirror in &mut self.mirrors {
                mirror.repeat(text, &read, &mut *self.watch);
            }
        }
    }

    /// Lines that one sink took and another one refused: they stand in a log, and are nothing to repeat.
    pub(super) fn pass_over(&mut self, lines: &[u8]) {
        let count = split(lines).count() as u64;
        for mirror in &mut self.mirrors {
            mirror.lost += count;
        }
        if count > 0 {
            self.watch.lost(count * self.mirrors.len() as u64);
        }
    }
}

fn split(lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

impl Mirror {
    fn new(kind: Kind, socket: LocalSocket, name: String) -> Self {
        Self { kind, socket, name, host: OnceCell::new(), lost: 0, rests_until: None, failing: None, said: None }
    }

    fn repeat(&mut self, text: &str, line: &Line<'_>, watch: &mut dyn Watch) {
        if let Err(errno) = self.send(text, line) {
            self.lost += 1;
            watch.lost(1);
            self.failed(errno, watch);
        } else if let Some(lost) = self.failing.take() {
            watch.news(MirrorNews::Works { mirror: self.name.clone(), lost });
        }
    }

    fn send(&mut self, text: &str, line: &Line<'_>) -> Result<(), Option<Errno>> {
        if self.rests_until.is_some_and(|until| Instant::now() < until) {
            return Err(None);
        }
        self.rests_until = None;
        let in_syslog = |severity, time: &str, id: &str, text: &str| {
            syslog::message(severity, time, self.host.get_or_init(syslog::host), id, text).into_bytes()
        };
        if self.lost > 0 {
            let lost = format!("not mirrored before the next one: {}", count(self.lost, "audit record"));
            let message = match self.kind {
                Kind::Journald => journald::lost(&lost, self.lost),
                Kind::Syslog => in_syslog(Severity::Warning, &rfc3339(SystemTime::now()), "mirror.lost", &lost),
            };
            self.socket.send(&message).map_err(Some)?;
            self.lost = 0;
        }
        let message = match self.kind {
            Kind::Journald => journald::record(text, line),
            Kind::Syslog => in_syslog(line.severity(), line.time.as_deref().unwrap_or("-"), &line.event, text),
        };
        match (self.kind, self.socket.send(&message)) {
            (Kind::Journald, Err(Errno::MSGSIZE | Errno::NOBUFS)) => self.socket.pass(&message).map_err(Some),
            (_, sent) => sent.map_err(Some),
        }
    }

    fn failed(&mut self, errno: Option<Errno>, watch: &mut dyn Watch) {
        if let Some(lost) = &mut self.failing {
            *lost += 1;
        }
        let Some(errno) = errno else { return };
        // Somebody is there and has no room for this one; the next one may find some.
        if !matches!(errno, Errno::AGAIN | Errno::MSGSIZE | Errno::NOBUFS) {
            self.rests_until = Some(Instant::now() + PAUSE);
        }
        let is_quiet = self.said.is_some_and(|said| said.elapsed() < QUIET);
        if self.failing.is_none() && !is_quiet {
            (self.failing, self.said) = (Some(self.lost), Some(Instant::now()));
            let why = match errno {
                Errno::AGAIN => "its queue is full".to_owned(),
                Errno::MSGSIZE => "the record is longer than a message may be".to_owned(),
                errno => plain_io(&errno.into()),
            };
            watch.news(MirrorNews::Fails { mirror: self.name.clone(), why });
        }
    }
}

/// What a mirror needs of a line; a line that is a later part of a record has less.
#[derive(Deserialize, Default)]
struct Line<'a> {
    #[serde(borrow, default)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    outcome: Option<Cow<'a, str>>,
    #[serde(borrow)]
    time: Option<Cow<'a, str>>,
    #[serde(borrow)]
    access: Option<Cow<'a, str>>,
    #[serde(borrow)]
    environment: Option<Cow<'a, str>>,
    #[serde(borrow)]
    service: Option<Cow<'a, str>>,
    actor: Option<Who>,
    #[serde(borrow, default)]
    secrets: Vec<Named<'a>>,
    #[serde(borrow)]
    stream: Option<Cow<'a, str>>,
    seq: Option<u64>,
}

#[derive(Deserialize)]
struct Who {
    uid: u64,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
}

impl<'a> Line<'a> {
    /// It is our own line. If it were not, it would be repeated all the same, with nothing said about it.
    fn read(text: &'a str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    fn severity(&self) -> Severity {
        let is_bad =
            |word: &str| [Outcome::Denied, Outcome::Failed, Outcome::Unknown].iter().any(|bad| bad.word() == word);
        let is_odd = [Event::Discontinuity, Event::Quarantined].iter().any(|odd| odd.word() == self.event);
        if is_odd || self.outcome.as_deref().is_some_and(is_bad) { Severity::Warning } else { Severity::Notice }
    }
}

/// For a command: one warning for each mirror and process, on standard error, without waiting for who reads it.
pub(super) struct Warn;

impl Watch for Warn {
    fn lost(&mut self, _records: u64) {}

    fn news(&mut self, news: MirrorNews) {
        static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());
        let MirrorNews::Fails { mirror, why } = news else { return };
        let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
        if !said.contains(&mirror) {
            let text = format!("vouchsafe: warning: audit records are not mirrored to {mirror}: {why}\n");
            // There is nobody else to tell, and the access goes on.
            output::mention(&text).unwrap_or_default();
            said.push(mirror);
        }
    }
}
