//! What one uid read, and what it was refused.

use std::collections::{BTreeMap, BTreeSet};

use super::recent::{Recent, Tentative};
use super::record::Record;
use super::when::Instant;
use crate::audit::event::Event;

/// A name, and the service that it was read for or denied to.
pub type Of = (String, Option<String>);

/// A secret that was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Read {
    /// Its versions, where the store counts them.
    pub versions: BTreeSet<u64>,
    /// How often it was released.
    pub times: u64,
    /// The first time.
    pub first: String,
    /// The last time.
    pub last: String,
    /// The programs, at most 32 of them.
    pub commands: BTreeSet<String>,
    /// The hosts, at most 32 of them.
    pub hosts: BTreeSet<String>,
}

/// A secret that was asked for and denied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refused {
    /// How often.
    pub times: u64,
    /// The last time.
    pub last: String,
}

/// Collects the history of one uid, record by record.
pub struct History {
    uid: u32,
    environment: String,
    service: Option<String>,
    since: Instant,
    reads: BTreeMap<Of, Read>,
    refused: BTreeMap<Of, Refused>,
    /// Releases in another environment, or for another service.
    elsewhere: BTreeMap<(String, Option<String>), u64>,
    tentative: Tentative<Release>,
    /// Records that were taken in: their copies for other sinks are not counted.
    known: Recent<()>,
}

/// A release that may still be taken back.
struct Release {
    time: String,
    /// Where, if it does not count here.
    elsewhere: Option<(String, Option<String>)>,
    service: Option<String>,
    command: Option<String>,
    host: Option<String>,
    /// The versions of each secret that reached the child.
    secrets: BTreeMap<String, Vec<u64>>,
}

/// Programs and hosts that are kept by name.
const KEPT: usize = 32;

/// Names that are kept: a log can name more than any policy does.
const NAMES: usize = 100_000;

impl History {
    /// The records that it looks at.
    pub const EVENTS: &'static [Event] = &[Event::AccessDenied, Event::AccessReleased, Event::AccessUnused];

    /// Nothing yet. What happened in `environment`, and for `service` if that is given, counts; of the rest, how much it is.
    #[must_use]
    pub fn new(uid: u32, environment: &str, service: Option<&str>, since: Instant) -> Self {
        Self {
            uid,
            environment: environment.to_owned(),
            service: service.map(str::to_owned),
            since,
            reads: BTreeMap::new(),
            refused: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
            tentative: Tentative::new(),
            known: Recent::new(1 << 18),
        }
    }

    /// Takes a record in.
    pub fn record(&mut self, record: &Record<'_>) {
        let is_its = record.actor.as_ref().is_some_and(|actor| actor.uid == self.uid);
        let is_here = record.environment.as_deref() == Some(&*self.environment)
            && (self.service.is_none() || record.service.as_deref() == self.service.as_deref());
        if !is_its || *record.time < *self.since.as_str() {
            return;
        }
        let is_release = record.is(Event::AccessReleased) && record.succeeded();
        if record.is(Event::AccessUnused) {
            self.tentative.take(&record.access);
        } else if (is_release || record.is(Event::AccessDenied)) && !self.known.knows(&record.access, &record.time) {
            self.known.put(&record.access, &record.time, Some(()));
            match (is_release, is_here) {
                (true, _) => self.released(record, is_here),
                (false, true) => self.denied(record),
                (false, false) => {}
            }
        }
    }

    /// What was read, what was refused, and how many releases there were in other environments and for other services.
    #[must_use]
    #[expect(clippy::type_complexity, reason = "three maps, each used once")]
    pub fn finish(mut self) -> (BTreeMap<Of, Read>, BTreeMap<Of, Refused>, BTreeMap<(String, Option<String>), u64>) {
        while let Some(release) = self.tentative.pop() {
            self.count(release);
        }
        (self.reads, self.refused, self.elsewhere)
    }

    fn denied(&mut self, record: &Record<'_>) {
        for name in record.secrets.iter().filter_map(|secret| secret.name.as_deref()) {
            if let Some(refused) = at_most(&mut self.refused, (name.to_owned(), service_of(record))) {
                refused.times += 1;
                later(&mut refused.last, &record.time);
            }
        }
    }

    fn released(&mut self, record: &Record<'_>, is_here: bool) {
        let mut secrets: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for secret in record.secrets.iter().filter(|secret| record.reached(secret)) {
            if let Some(name) = secret.name.as_deref() {
                secrets.entry(name.to_owned()).or_default().extend(secret.version);
            }
        }
        let release = Release {
            time: record.time.to_string(),
            elsewhere: (!is_here).then(|| {
                let environment = record.environment.as_deref().unwrap_or_default();
                (environment.to_owned(), service_of(record))
            }),
            service: service_of(record),
            command: record.command.as_ref().map(|command| command.path.to_string()),
            host: record.actor.as_ref().map(|actor| actor.host.to_string()),
            secrets,
        };
        if let Some(release) = self.tentative.push(&record.access, release) {
            self.count(release);
        }
    }

    fn count(&mut self, release: Release) {
        if let Some(place) = release.elsewhere {
            if let Some(times) = at_most(&mut self.elsewhere, place) {
                *times += 1;
            }
            return;
        }
        for (name, versions) in release.secrets {
            let Some(read) = at_most(&mut self.reads, (name, release.service.clone())) else { continue };
            read.versions.extend(versions);
            if read.times == 0 || release.time < read.first {
                read.first.clone_from(&release.time);
            }
            read.times += 1;
            later(&mut read.last, &release.time);
            keep(&mut read.commands, release.command.as_ref());
            keep(&mut read.hosts, release.host.as_ref());
        }
    }
}

fn service_of(record: &Record<'_>) -> Option<String> {
    record.service.as_deref().map(str::to_owned)
}

fn at_most<K: Ord, T: Default>(map: &mut BTreeMap<K, T>, key: K) -> Option<&mut T> {
    if map.len() >= NAMES && !map.contains_key(&key) {
        return None;
    }
    Some(map.entry(key).or_default())
}

fn later(last: &mut String, time: &str) {
    if *time > **last {
        time.clone_into(last);
    }
}

fn keep(set: &mut BTreeSet<String>, text: Option<&String>) {
    if let Some(text) = text.filter(|text| set.len() < KEPT && !set.contains(*text)) {
        set.insert(text.clone());
    }
}
