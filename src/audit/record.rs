//! One record as JSON text, up to the point where a chain seals it.
//!
//! Every text has a limit after escaping, and what is longer is cut with a mark that says so; the limits are such that a
//! line of 4,096 bytes can hold everything that is not a list, and any one entry of a list.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::chain::{OPENING, SEAL_MAX, TAIL_MAX};
use super::event::{Assurance, Event, Outcome};
pub(super) use super::json::rfc3339;
use super::json::{Cut, write_json, write_members};
use super::{Actor, Context, SecretNote};
use crate::name::EnvironmentName;

/// What is the same in every record of one access.
pub(super) struct Author<'a> {
    pub(super) context: &'a Context,
    pub(super) access: &'a str,
}

/// What one record says, besides its author and its lists.
#[derive(Clone, Copy)]
pub(super) struct Statement<'a> {
    pub(super) event: Event,
    pub(super) outcome: Outcome,
    pub(super) reason: Option<&'a str>,
    pub(super) detail: Option<&'a Detail>,
}

/// What only the file sink's own records say, and the one about the end of a child.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Detail {
    Child {
        pid: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<u8>,
        #[serde(skip_serializing_if = "Option::is_none")]
        signal: Option<i32>,
    },
    Epoch {
        id: String,
        first: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        auditor: Option<String>,
    },
    Expected {
        seq: u64,
        hash: String,
    },
    Quarantined {
        offset: u64,
        length: u64,
        sha256: String,
    },
}

/// The lists of a record, in the order in which they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    Grants,
    Secrets,
    Requests,
}

impl List {
    fn opening(self) -> &'static str {
        match self {
            Self::Grants => ",\"grants\":[",
            Self::Secrets => ",\"secrets\":[",
            Self::Requests => ",\"requests\":[",
        }
    }
}

/// The entries of a record's lists, serialised once for all sinks.
#[derive(Default)]
pub(super) struct Lists {
    bytes: Vec<u8>,
    entries: Vec<(List, Range<usize>)>,
}

impl Lists {
    pub(super) fn grant(&mut self, place: &str) {
        self.push(List::Grants, &Cut(place, 512));
    }

    pub(super) fn request(&mut self, id: &str) {
        self.push(List::Requests, &Cut(id, 128));
    }

    pub(super) fn secret(&mut self, entry: &SecretEntry<'_>) {
        self.push(List::Secrets, entry);
    }

    /// Room for as many entries of the usual size.
    pub(super) fn with_capacity(count: usize) -> Self {
        Self { bytes: Vec::with_capacity(128 * count), entries: Vec::with_capacity(count) }
    }

    pub(super) fn notes(notes: &[SecretNote]) -> Self {
        let mut lists = Self::with_capacity(notes.len());
        for note in notes {
            if note.template.is_empty() {
                lists.secret(&SecretEntry::of(note));
            } else {
                let parts: Vec<&str> = note.template.iter().map(String::as_str).collect();
                lists.template(&note.name, &parts, !note.is_withheld);
            }
        }
        lists
    }

    /// A long template is listed in several entries of its name, so that each fits into one line of a stream.
    pub(super) fn template(&mut self, name: &str, parts: &[&str], inject: bool) {
        for parts in parts.chunks(8) {
            let inject = (!inject).then_some(false);
            self.secret(&SecretEntry { template: Some(parts), inject, ..SecretEntry::named(name) });
        }
    }

    fn push(&mut self, list: List, entry: &impl Serialize) {
        let start = self.bytes.len();
        write_json(&mut self.bytes, entry);
        self.entries.push((list, start..self.bytes.len()));
    }
}

/// One entry of `secrets`. Which fields are there says what it is: docs/spec/audit-record.md, section 4.
#[derive(Serialize, Default)]
pub(super) struct SecretEntry<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<Cut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) store: Option<Cut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) item: Option<Cut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bundle: Option<Cut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) recursive: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) inline: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) template: Option<&'a [&'a str]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) inject: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stage: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stale_seconds: Option<u64>,
}

impl<'a> SecretEntry<'a> {
    pub(super) fn named(name: &'a str) -> Self {
        Self { name: Some(Cut(name, 256)), ..Self::default() }
    }

    pub(super) fn in_store(self, store: &'a str) -> Self {
        Self { store: Some(Cut(store, 64)), ..self }
    }

    pub(super) fn item(self, item: &'a str) -> Self {
        Self { item: Some(Cut(item, ITEM_MAX)), ..self }
    }

    pub(super) fn bundle(store: &'a str, path: &'a str, recursive: bool) -> Self {
        Self { bundle: Some(Cut(path, ITEM_MAX)), recursive: Some(recursive), ..Self::default() }.in_store(store)
    }

    pub(super) fn of(note: &'a SecretNote) -> Self {
        // Denied before anybody asked where it lies.
        if note.store.is_empty() {
            return Self::named(&note.name);
        }
        let entry = Self {
            version: note.version,
            stage: note.stage,
            stale_seconds: note.stale_seconds,
            inject: note.is_withheld.then_some(false),
            ..Self::named(&note.name).in_store(&note.store)
        };
        if note.item.is_empty() { Self { inline: Some(true), ..entry } } else { entry.item(&note.item) }
    }
}

/// No checked item name is longer, escaped: 505 characters of six.
const ITEM_MAX: usize = 3072;

/// Of the actor's groups, this many are written down.
const GROUPS_MAX: usize = 64;

/// A record that wants to be sealed: what it says as text, and its lists.
pub(super) struct Draft<'a> {
    /// When it was made.
    time: SystemTime,
    /// `,"access":...,"event":...`: in every part, after the time.
    brief: Vec<u8>,
    /// All else that is no list: in the first part.
    full: Vec<u8>,
    lists: &'a Lists,
}

impl<'a> Draft<'a> {
    pub(super) fn new(author: &Author<'_>, statement: Statement<'_>, lists: &'a Lists, now: SystemTime) -> Self {
        let mut brief = Vec::with_capacity(128);
        write_members(&mut brief, &Brief { access: author.access, event: statement.event });
        let mut full = Vec::with_capacity(512);
        let Context { actor, environment, service, policy_digest, command } = author.context;
        write_members(
            &mut full,
            &Full {
                outcome: statement.outcome,
                reason: statement.reason.map(|reason| Cut(reason, 768)),
                environment: environment.as_ref().map(EnvironmentName::as_str),
                service: service.as_ref().map(crate::name::ServiceName::as_str),
                policy: (!policy_digest.is_empty()).then_some(Cut(policy_digest, 64)),
                actor: actor.into(),
                command: command.as_ref().map(|command| CommandEntry {
                    path: Cut(&command.path, 1024),
                    arguments: command.argument_count,
                    claimed: actor.agent.is_some().then_some(true),
                }),
            },
        );
        if let Some(detail) = statement.detail {
            write_members(&mut full, detail);
        }
        Self { time: now, brief, full, lists }
    }

    /// Says this too.
    pub(super) fn also(&mut self, detail: &Detail) {
        write_members(&mut self.full, detail);
    }

    /// The record as one line, however long, not yet sealed, of a sink that accepts it `now`.
    pub(super) fn line(&self, assurance: Assurance, now: SystemTime, out: &mut Vec<u8>) {
        // Its copies in several sinks are told by one time, and no clock goes back because one of them was waited for.
        let time = if now.duration_since(self.time).is_ok_and(|waited| waited <= WAITED) { self.time } else { now };
        out.reserve(self.bound());
        self.part_at(assurance, time, 0..self.lists.entries.len(), true, out);
    }

    /// At most how long the record is as one line.
    pub(super) fn bound(&self) -> usize {
        let lists = self.lists.bytes.len() + 16 * self.lists.entries.len();
        OPENING.len() + 64 + TIME_MAX + self.brief.len() + self.full.len() + lists + TAIL_MAX + SEAL_MAX + 2
    }

    /// How the lists fall into lines of at most `limit` bytes; `None` if something does not fit into any.
    pub(super) fn divide(&self, assurance: Assurance, limit: usize) -> Option<Vec<Range<usize>>> {
        let opening = OPENING.len() + ",\"assurance\":\"\"".len() + assurance.word().len();
        let room = limit.checked_sub(opening + TIME_MAX + self.brief.len() + PARTS_MAX + TAIL_MAX + 1)?;
        let mut left = room.checked_sub(self.full.len())?;
        let mut parts = Vec::new();
        let (mut start, mut last) = (0, None);
        for (index, (list, entry)) in self.lists.entries.iter().enumerate() {
            let opened = |last| if last == Some(*list) { 1 } else { list.opening().len() + 1 };
            if entry.len() + opened(last) > left {
                parts.push(start..index);
                (start, last, left) = (index, None, room);
            }
            left = left.checked_sub(entry.len() + opened(last))?;
            last = Some(*list);
        }
        parts.push(start..self.lists.entries.len());
        Some(parts)
    }

    /// One part of the record, not yet sealed.
    pub(super) fn part(&self, assurance: Assurance, entries: Range<usize>, first: bool, out: &mut Vec<u8>) {
        self.part_at(assurance, self.time, entries, first, out);
    }

    fn part_at(&self, assurance: Assurance, time: SystemTime, entries: Range<usize>, first: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(OPENING.as_bytes());
        out.extend_from_slice(b",\"assurance\":\"");
        out.extend_from_slice(assurance.word().as_bytes());
        out.extend_from_slice(b"\",\"time\":\"");
        out.extend_from_slice(rfc3339(time).as_bytes());
        out.push(b'"');
        out.extend_from_slice(&self.brief);
        if first {
            out.extend_from_slice(&self.full);
        }
        let mut open = None;
        for (list, entry) in self.lists.entries.get(entries).unwrap_or_default() {
            if open == Some(*list) {
                out.push(b',');
            } else {
                out.extend_from_slice(if open.is_some() { b"]" } else { b"" });
                out.extend_from_slice(list.opening().as_bytes());
                open = Some(*list);
            }
            out.extend_from_slice(self.lists.bytes.get(entry.clone()).unwrap_or_default());
        }
        out.extend_from_slice(if open.is_some() { b"]" } else { b"" });
    }
}

/// Says which part of which record this is. Only records of several parts do.
pub(super) fn number_part(out: &mut Vec<u8>, record: u64, part: usize, parts: usize) {
    let text = format!(",\"record\":{record},\"part\":{part},\"parts\":{parts}");
    out.extend_from_slice(text.as_bytes());
}

const PARTS_MAX: usize = ",\"record\":,\"part\":,\"parts\":".len() + 3 * 20;

/// Less than `verify` takes for a clock that was set back.
const WAITED: Duration = Duration::from_secs(4);

/// The member `time`: what [`rfc3339`] makes is always as long.
const TIME_MAX: usize = ",\"time\":\"\"".len() + 27;

#[derive(Serialize)]
struct Brief<'a> {
    access: &'a str,
    event: Event,
}

#[derive(Serialize)]
struct Full<'a> {
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Cut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    environment: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<Cut<'a>>,
    actor: ActorEntry<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<CommandEntry<'a>>,
}

#[derive(Serialize)]
struct ActorEntry<'a> {
    uid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Cut<'a>>,
    groups: &'a [u32],
    #[serde(skip_serializing_if = "Option::is_none")]
    groups_omitted: Option<usize>,
    pid: u32,
    ppid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    tty: Option<Cut<'a>>,
    host: Cut<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_id: Option<Cut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    boot_id: Option<Cut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid_namespace: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_ticks: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<AgentEntry>,
}

#[derive(Serialize)]
struct AgentEntry {
    uid: u32,
    pid: u32,
}

impl<'a> From<&'a Actor> for ActorEntry<'a> {
    fn from(actor: &'a Actor) -> Self {
        let (groups, omitted) = actor.groups.split_at_checked(GROUPS_MAX).unwrap_or((&actor.groups, &[]));
        Self {
            uid: actor.uid,
            user: actor.user.as_deref().map(|user| Cut(user, 128)),
            groups,
            groups_omitted: (!omitted.is_empty()).then_some(omitted.len()),
            pid: actor.pid,
            ppid: actor.ppid,
            tty: actor.tty.as_deref().map(|tty| Cut(tty, 64)),
            host: Cut(&actor.host, 128),
            container_id: actor.container_id.as_deref().map(|id| Cut(id, 128)),
            boot_id: actor.process.boot_id.as_deref().map(|id| Cut(id, 64)),
            pid_namespace: actor.process.pid_namespace,
            start_ticks: actor.process.start_ticks,
            agent: actor.agent.map(|agent| AgentEntry { uid: agent.uid, pid: agent.pid }),
        }
    }
}

#[derive(Serialize)]
struct CommandEntry<'a> {
    path: Cut<'a>,
    arguments: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    claimed: Option<bool>,
}
