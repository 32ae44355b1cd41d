//! Who got a secret, in which version, and which of those processes still run.
//!
//! What counts is `access.released`: a request that was not fulfilled gave nothing, and a release that came to nothing
//! (`access.unused`) is taken back. Of one process the last release counts: its environment holds no other. What is the same
//! in all but its time is one row with a number, so a log of any length makes as many rows as there are consumers.

use std::collections::{BTreeMap, HashMap};

use super::current::{Current, Currents, Place};
use super::named::Named;
use super::processes::{Life, Processes, Unknown};
use super::recent::{Recent, Tentative};
use super::record::{Actor, Record, Text};
use super::when::Instant;
use crate::audit::event::{Assurance, Event};
use crate::name::VariableName;

/// The secret that is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub name: VariableName,
    /// One version, or all.
    pub version: Option<u64>,
}

impl Wanted {
    /// What it is written as.
    pub const RULE: &str = "NAME or NAME@VERSION, the name of a variable and a number";

    /// `NAME` or `NAME@VERSION`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (name, version) = match text.split_once('@') {
            Some((name, version)) => {
                (name, Some(version.parse().ok().filter(|_| version.bytes().all(|byte| byte.is_ascii_digit()))?))
            }
            None => (text, None),
        };
        Some(Self { name: VariableName::new(name).ok()?, version })
    }
}

/// One item and who holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Where it lies.
    pub place: Place,
    /// Its current version.
    pub current: Option<Current>,
    /// Who got it: newest versions first, and of each what runs first.
    pub holders: Vec<Holder>,
}

/// A process that got it, or all processes that are the same in everything shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The version.
    pub version: Option<u64>,
    /// Whether it still runs.
    pub life: Life,
    /// The host.
    pub host: String,
    /// Real uid.
    pub uid: u32,
    /// Its name.
    pub user: Option<String>,
    /// The service.
    pub service: Option<String>,
    /// The program; absent where the value was copied to another store.
    pub command: Option<String>,
    /// Through the agent.
    pub by_agent: bool,
    /// The process; of several, the last one.
    pub pid: u32,
    /// How often it was released.
    pub times: u64,
    /// The first time.
    pub first: String,
    /// The last time.
    pub last: String,
}

impl Item {
    /// Whether a process may still hold another version than the current one.
    #[must_use]
    pub fn is_stale(&self, holder: &Holder) -> bool {
        let differs = matches!((&self.current, holder.version), (Some(current), Some(held)) if current.version != held);
        differs && holder.life != Life::Gone
    }
}

/// What records have to be about.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// The environment.
    pub environment: Option<String>,
    /// The service.
    pub service: Option<String>,
    /// Released since.
    pub since: Option<Instant>,
}

/// Collects who got a secret, record by record.
pub struct Holders<'k> {
    wanted: Wanted,
    scope: Scope,
    named: Named,
    processes: Processes<'k>,
    currents: Currents,
    rows: Vec<Row>,
    /// Rows by what they have in common.
    by_key: HashMap<Key, usize>,
    /// The row of a process that runs, for each place: it has one environment.
    running: HashMap<(Place, u32, u64), usize>,
    tentative: Tentative<Release>,
    /// The rows of the last releases; `None` of one that was taken back.
    recent: Recent<usize>,
}

/// A release that may still be taken back.
struct Release {
    access: String,
    time: String,
    pid: u32,
    key: Key,
}

/// What makes a row.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    place: Place,
    version: Option<u64>,
    life: Life,
    host: String,
    uid: u32,
    user: Option<String>,
    service: Option<String>,
    command: Option<String>,
    by_agent: bool,
    /// Where it matters which process it is: number and start.
    process: Option<(u32, u64)>,
}

struct Row {
    key: Key,
    pid: u32,
    times: u64,
    first: String,
    last: String,
}

/// Rows of different consumers; those beyond share rows without a host.
const MAX_ROWS: usize = if cfg!(test) { 1_000 } else { 100_000 };

impl<'k> Holders<'k> {
    /// The records that it looks at.
    pub const EVENTS: &'static [Event] = &[
        Event::AccessReleased,
        Event::AccessUnused,
        Event::ChildExited,
        Event::RotationPromoted,
        Event::RotationRolledBack,
        Event::SecretRemoved,
        Event::SecretWritten,
    ];

    /// Nobody yet.
    #[must_use]
    pub fn new(wanted: Wanted, scope: Scope, processes: Processes<'k>) -> Self {
        Self {
            wanted,
            scope,
            named: Named::default(),
            processes,
            currents: Currents::default(),
            rows: Vec::new(),
            by_key: HashMap::new(),
            running: HashMap::new(),
            tentative: Tentative::new(),
            recent: Recent::new(1 << 18),
        }
    }

    /// Takes a record in.
    pub fn record(&mut self, record: &Record<'_>) {
        self.named.record(&self.wanted, &self.scope, record);
        let is_elsewhere = |wanted: &Option<String>, found: &Option<Text<'_>>| {
            wanted.is_some() && wanted.as_deref() != found.as_deref()
        };
        if is_elsewhere(&self.scope.environment, &record.environment) {
            return;
        }
        if record.is(Event::AccessUnused) {
            if self.tentative.take(&record.access).is_none() {
                self.take_back(&record.access);
            }
            return;
        }
        if record.is(Event::ChildExited) {
            let uid = record.actor.as_ref().map(|actor| actor.uid);
            return self.exited(&record.access, uid.unwrap_or_default());
        }
        if !record.succeeded() {
            return;
        }
        if record.is(Event::AccessReleased) {
            let entry = record
                .secrets
                .iter()
                .find(|secret| secret.name.as_deref() == Some(self.wanted.name.as_str()) && record.reached(secret));
            let Some(entry) = entry else { return };
            let place = Place::of(record, entry);
            self.currents.served(&place, entry, &record.time);
            if !is_elsewhere(&self.scope.service, &record.service)
                && self.scope.since.as_ref().is_none_or(|since| *record.time >= *since.as_str())
                && self.wanted.version.is_none_or(|version| entry.version == Some(version))
            {
                self.released(record, place, entry.version);
            }
            return;
        }
        self.currents.written(record);
    }

    /// Whether records name the secret.
    #[must_use]
    pub fn named(&self) -> &Named {
        &self.named
    }

    /// There are no more records. Which of the processes that ran a while ago still do is asked again.
    #[must_use]
    pub fn finish(mut self) -> Vec<Item> {
        while let Some(release) = self.tentative.pop() {
            self.count(release);
        }
        for row in &mut self.rows {
            if let (Life::Running, Some((pid, start))) = (row.key.life, row.key.process) {
                row.key.life = self.processes.life_of(pid, start);
            }
        }
        let mut items: BTreeMap<Place, Vec<Holder>> = BTreeMap::new();
        for Row { key, pid, times, first, last } in self.rows.into_iter().filter(|row| row.times > 0) {
            let Key { place, version, life, host, uid, user, service, command, by_agent, process: _ } = key;
            let holder = Holder { version, life, host, uid, user, service, command, by_agent, pid, times, first, last };
            items.entry(place).or_default().push(holder);
        }
        let item = |(place, mut holders): (Place, Vec<Holder>)| {
            holders.sort_by(|a, b| {
                let newest = b.version.cmp(&a.version).then(a.life.cmp(&b.life));
                newest.then_with(|| b.last.cmp(&a.last)).then_with(|| a.pid.cmp(&b.pid))
            });
            let current = self.currents.take(&place);
            Item { place, current, holders }
        };
        items.into_iter().map(item).collect()
    }

    fn released(&mut self, record: &Record<'_>, place: Place, version: Option<u64>) {
        let nobody = Actor::default();
        let actor = record.actor.as_ref().unwrap_or(&nobody);
        if self.recent.knows(&record.access, &record.time) {
            return;
        }
        let life = self.processes.life(actor, &record.time);
        let owned = |text: &Option<Text<'_>>| text.as_deref().map(str::to_owned);
        let process = match life {
            Life::Running | Life::Unknown(Unknown::NotTold) => Some((actor.pid, actor.start_ticks.unwrap_or_default())),
            Life::Unknown(_) | Life::Gone => None,
        };
        let key = Key {
            place,
            version,
            life,
            host: actor.host.to_string(),
            uid: actor.uid,
            user: owned(&actor.user),
            service: owned(&record.service),
            command: record.command.as_ref().map(|command| command.path.to_string()),
            by_agent: *record.assurance == *Assurance::Agent.word(),
            process,
        };
        let release = Release { access: record.access.to_string(), time: record.time.to_string(), pid: actor.pid, key };
        self.recent.put(&record.access, &record.time, None);
        if let Some(release) = self.tentative.push(&record.access, release) {
            self.count(release);
        }
    }

    fn count(&mut self, release: Release) {
        let Release { access, time, pid, mut key } = release;
        let slot = key.process.filter(|_| key.life == Life::Running);
        let slot = slot.map(|(pid, start)| (key.place.clone(), pid, start));
        if let Some(at) = slot.as_ref().and_then(|slot| self.running.get(slot)).copied()
            && let Some(row) = self.rows.get(at)
            && row.key != key
        {
            if time < row.last {
                // Logs are read one after the other, so what comes later may be older.
                key = Key { life: Life::Gone, process: None, ..key };
            } else {
                self.end_row(at);
            }
        }
        let is_running = key.life == Life::Running;
        let row = self.add(key, pid, 1, &time, &time);
        if let Some(slot) = slot.filter(|_| is_running) {
            self.running.insert(slot, row);
        }
        self.recent.made(&access, row);
    }

    /// The process of a row got something else since.
    fn end_row(&mut self, at: usize) {
        let Some(row) = self.rows.get_mut(at) else { return };
        let times = std::mem::take(&mut row.times);
        let key = Key { life: Life::Gone, process: None, ..row.key.clone() };
        let (pid, first, last) = (row.pid, row.first.clone(), row.last.clone());
        if times > 0 {
            self.add(key, pid, times, &first, &last);
        }
    }

    fn add(&mut self, mut key: Key, pid: u32, times: u64, first: &str, last: &str) -> usize {
        if self.rows.len() >= MAX_ROWS && !self.by_key.contains_key(&key) {
            let host = "(others)".to_owned();
            key = Key { host, uid: 0, user: None, service: None, command: None, process: None, ..key };
        }
        let next = self.rows.len();
        let at = *self.by_key.entry(key.clone()).or_insert(next);
        if at == next {
            self.rows.push(Row { key, pid, times: 0, first: first.to_owned(), last: last.to_owned() });
        }
        if let Some(row) = self.rows.get_mut(at) {
            // A row that was emptied begins anew.
            if row.times == 0 || *first < *row.first {
                first.clone_into(&mut row.first);
            }
            if row.times == 0 || *last >= *row.last {
                last.clone_into(&mut row.last);
                row.pid = pid;
            }
            row.times += times;
        }
        at
    }

    /// What a release started has ended.
    /// The process of a release has ended, says somebody: through the agent any user can say it, so only the one who got the
    /// release is believed.
    fn exited(&mut self, access: &str, uid: u32) {
        if let Some(release) = self.tentative.take(access) {
            self.count(release);
        }
        let row = self.recent.look_at(access).and_then(|at| self.rows.get(*at));
        if row.is_some_and(|row| row.key.uid == uid)
            && let Some((at, first, last)) = self.take_back(access)
            && let Some(row) = self.rows.get(at)
        {
            let (pid, key) = (row.pid, Key { life: Life::Gone, process: None, ..row.key.clone() });
            self.add(key, pid, 1, &first, &last);
        }
    }

    /// A release that counts does not any more: its row, and the times of that.
    fn take_back(&mut self, access: &str) -> Option<(usize, String, String)> {
        let at = self.recent.take(access)?;
        let row = self.rows.get_mut(at).filter(|row| row.times > 0)?;
        row.times -= 1;
        Some((at, row.first.clone(), row.last.clone()))
    }
}
