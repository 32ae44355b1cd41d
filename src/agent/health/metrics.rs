//! Figures for whoever watches. No names in them: not of secrets, items, stores, environments or users.

use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use crate::agent::cache::{Figures, Found};
use crate::agent::protocol::reply::Refusal;

type Word = [(&'static str, &'static str); 1];

/// The figures.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Word, Counter>,
    seconds: Histogram,
    lookups: Family<Word, Counter>,
    refreshes: Family<Word, Counter>,
    audit_failures: Counter,
    connections: Gauge,
    subscribers: Gauge,
    notices: Counter,
    turned_away: Counter,
    cache_values: Gauge,
    cache_bytes: Gauge,
    cache_evicted: Gauge,
    policies: Gauge,
    policies_refused: Gauge,
    policies_outdated: Gauge,
    stores_down: Gauge,
    records_not_mirrored: Counter,
}

/// What is not counted but looked at when somebody asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) connections: usize,
    pub(crate) subscribers: usize,
    pub(crate) cache: Figures,
    pub(crate) policies: usize,
    pub(crate) policies_refused: usize,
    pub(crate) policies_outdated: usize,
    pub(crate) stores_down: usize,
    pub(crate) records_not_mirrored: u64,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        // From a hit in the cache to a store that takes its whole deadline.
        let buckets = [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 20.0];
        let mut registry = Registry::with_prefix("vouchsafe_agent");
        let all = &mut registry;
        Self {
            requests: named(all, "requests", "Requests for secrets, by how they ended", Family::default()),
            seconds: named(all, "request_seconds", "How long requests for secrets took", Histogram::new(buckets)),
            lookups: named(all, "lookups", "Answers of stores, by where they came from", Family::default()),
            refreshes: named(all, "refreshes", "Fetches ahead of time, by how they ended", Family::default()),
            audit_failures: named(all, "audit_failures", "Records that could not be written", Counter::default()),
            connections: named(all, "connections", "Open connections", Gauge::default()),
            subscribers: named(all, "subscribers", "Connections that wait for a change", Gauge::default()),
            notices: named(all, "notices", "Changes that a subscriber was told of", Counter::default()),
            turned_away: named(all, "turned_away", "Connections that there was no room for", Counter::default()),
            cache_values: named(all, "cache_values", "Cached values", Gauge::default()),
            cache_bytes: named(all, "cache_bytes", "Bytes of the cache's memory in use", Gauge::default()),
            cache_evicted: named(all, "cache_evicted", "Entries that had to go for others", Gauge::default()),
            policies: named(all, "policies", "Policies that are served", Gauge::default()),
            policies_refused: named(all, "policies_refused", "Policies not accepted as they stand", Gauge::default()),
            policies_outdated: named(
                all,
                "policies_outdated",
                "Policies served although what stands in their place now is not accepted",
                Gauge::default(),
            ),
            stores_down: named(all, "stores_down", "Stores that were down when last asked", Gauge::default()),
            records_not_mirrored: named(
                all,
                "records_not_mirrored",
                "Records of the audit that a mirror did not take",
                Counter::default(),
            ),
            registry,
        }
    }

    pub(crate) fn answered<T>(&self, answered: &Result<T, Refusal>, time: Duration) {
        let outcome = match answered {
            Ok(_) => "granted",
            Err(Refusal::Busy) => "busy",
            Err(Refusal::Denied) => "denied",
            Err(Refusal::DigestWanted) => "digest_wanted",
            Err(Refusal::Failed { .. }) => "failed",
            Err(Refusal::Malformed) => "malformed",
            Err(Refusal::NotOffered) => "not_offered",
            Err(Refusal::Supervised(_)) => "supervised",
            Err(Refusal::Unchanged) => "unchanged",
        };
        self.requests.get_or_create(&[("outcome", outcome)]).inc();
        self.seconds.observe(time.as_secs_f64());
    }

    pub(crate) fn refused_unseen(&self) {
        self.requests.get_or_create(&[("outcome", "busy")]).inc();
    }

    pub(crate) fn malformed(&self) {
        self.requests.get_or_create(&[("outcome", "malformed")]).inc();
    }

    pub(crate) fn turned_away(&self) {
        self.turned_away.inc();
    }

    pub(crate) fn noticed(&self) {
        self.notices.inc();
    }

    pub(crate) fn looked_up(&self, found: &Found) {
        let count = |from: &'static str, count: usize| {
            if count > 0 {
                self.lookups.get_or_create(&[("from", from)]).inc_by(count as u64);
            }
        };
        count("store", found.fetched);
        count("stale", found.stale.len());
        count("cache", found.answers.len().saturating_sub(found.fetched + found.stale.len()));
    }

    pub(crate) fn refreshed(&self, worked: bool) {
        self.refreshes.get_or_create(&[("outcome", if worked { "succeeded" } else { "failed" })]).inc();
    }

    pub(crate) fn audit_failed(&self) {
        self.audit_failures.inc();
    }

    /// The text of `/metrics` (OpenMetrics 1.0, which Prometheus reads).
    pub(crate) fn text(&self, now: Now) -> String {
        let set = |gauge: &Gauge, value: usize| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.connections, now.connections);
        set(&self.subscribers, now.subscribers);
        set(&self.cache_values, now.cache.values);
        set(&self.cache_bytes, now.cache.bytes);
        self.cache_evicted.set(i64::try_from(now.cache.evicted).unwrap_or(i64::MAX));
        set(&self.policies, now.policies);
        set(&self.policies_refused, now.policies_refused);
        set(&self.policies_outdated, now.policies_outdated);
        set(&self.stores_down, now.stores_down);
        // It only ever grows.
        self.records_not_mirrored.inner().store(now.records_not_mirrored, Ordering::Relaxed);
        let mut text = String::new();
        // Writing to a String does not fail.
        encode(&mut text, &self.registry).unwrap_or_default();
        text
    }
}

fn named<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}
