//! What is cached, and how long it counts: pure but for the locked memory; the time is handed in.
//!
//! An entry is one answer of one store, under the policy that asked for it. It is fresh for the policy's `ttl`, due for a
//! refresh in the last part of that, and dead after `ttl` and `max_stale`; then it is wiped. That something is absent is
//! fresh for a moment only: whoever supplies it must not wait.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use super::arena::{Arena, Piece};
use crate::name::{ItemName, StoreName};
use crate::policy::model::{CacheRules, Stage};
use crate::secret::Secret;
use crate::store::{Answer, Fetched, Wanted};

/// How long absence counts as fresh.
const ABSENT: Duration = Duration::from_secs(5);

/// A store of a policy. The number is that of the policy as it was loaded: another content is another number.
pub(super) type StoreKey = (u64, StoreName);

/// The entries.
pub(super) struct Table {
    arena: Arena,
    stores: HashMap<StoreKey, HashMap<Wanted, Entry>>,
    /// Values and absences, together at most `limit`.
    count: usize,
    limit: usize,
    /// Counts looks, so that the one least recently used is known.
    tick: u64,
    evicted: u64,
}

struct Entry {
    kept: Kept,
    fetched: Instant,
    due: Instant,
    fresh_until: Instant,
    dead: Instant,
    used: u64,
}

enum Kept {
    Absent,
    Bundle(Vec<(ItemName, Value)>),
    Found(Value),
}

struct Value {
    piece: Piece,
    version: Option<u64>,
    stage: Option<Stage>,
    written: Option<SystemTime>,
}

/// What an entry says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It counts, and it is not yet time to fetch it again.
    Fresh,
    /// It counts, and should be fetched again soon.
    Due,
    /// It counts only while its store is down; so much past its time.
    Stale(Duration),
}

impl Table {
    /// Room for `bytes` of values, and for `limit` of them. `None` if there is no memory.
    pub(super) fn new(bytes: usize, limit: usize) -> Option<Self> {
        let arena = Arena::new(bytes)?;
        Some(Self { arena, stores: HashMap::new(), count: 0, limit, tick: 0, evicted: 0 })
    }

    /// The state of an entry at `now`; `None` if there is none that could be served.
    pub(super) fn state(&self, store: &StoreKey, wanted: &Wanted, now: Instant) -> Option<State> {
        let entry = self.stores.get(store)?.get(wanted)?;
        if now >= entry.dead {
            None
        } else if now >= entry.fresh_until {
            Some(State::Stale(now - entry.fresh_until))
        } else if now >= entry.due {
            Some(State::Due)
        } else {
            Some(State::Fresh)
        }
    }

    /// When an entry was fetched.
    pub(super) fn fetched(&self, store: &StoreKey, wanted: &Wanted) -> Option<Instant> {
        Some(self.stores.get(store)?.get(wanted)?.fetched)
    }

    /// A copy of what an entry holds, whatever its state.
    pub(super) fn copy(&mut self, store: &StoreKey, wanted: &Wanted) -> Option<Answer> {
        self.tick += 1;
        let entry = self.stores.get_mut(store)?.get_mut(wanted)?;
        entry.used = self.tick;
        let arena = &self.arena;
        let copy = |value: &Value| Fetched {
            value: Secret::new(arena.bytes(&value.piece).to_vec()),
            version: value.version,
            stage: value.stage,
            written: value.written,
        };
        Some(match &entry.kept {
            Kept::Absent => Answer::Absent,
            Kept::Found(value) => Answer::Found(copy(value)),
            Kept::Bundle(items) => {
                Answer::Bundle(items.iter().map(|(name, value)| (name.clone(), copy(value))).collect())
            }
        })
    }

    /// Keeps an answer that was fetched at `now`, in the place of an older one. What there is no room for is not kept.
    /// `random` decides when in the last part of its time it becomes due.
    pub(super) fn keep(
        &mut self,
        store: &StoreKey,
        wanted: &Wanted,
        answer: &Answer,
        rules: &CacheRules,
        now: Instant,
        random: u32,
    ) {
        self.forget(store, wanted);
        let is_absent = matches!(answer, Answer::Absent);
        let ttl = if is_absent { rules.ttl.min(ABSENT) } else { rules.ttl };
        let dead = now.checked_add(rules.ttl.saturating_add(rules.max_stale));
        let (Some(fresh_until), Some(dead)) = (now.checked_add(ttl), dead) else { return };
        if dead <= now {
            return;
        }
        let early = ttl.mul_f64(0.1 + 0.2 * f64::from(random) / f64::from(u32::MAX));
        let Some(kept) = self.keep_values(answer) else { return };
        self.tick += 1;
        self.count += kept.count();
        let due = fresh_until.checked_sub(early).unwrap_or(now);
        let entry = Entry { kept, fetched: now, due, fresh_until, dead, used: self.tick };
        self.stores.entry(store.clone()).or_default().insert(wanted.clone(), entry);
    }

    fn keep_values(&mut self, answer: &Answer) -> Option<Kept> {
        match answer {
            Answer::Absent => self.make_room(1).then_some(Kept::Absent),
            Answer::Found(found) => {
                if !self.make_room(1) {
                    return None;
                }
                self.keep_value(found).map(Kept::Found)
            }
            Answer::Bundle(items) => {
                if !self.make_room(items.len().max(1)) {
                    return None;
                }
                let mut kept = Vec::with_capacity(items.len());
                for (name, found) in items {
                    match self.keep_value(found) {
                        Some(value) => kept.push((name.clone(), value)),
                        None => {
                            kept.into_iter().for_each(|(_, value): (_, Value)| self.arena.give_back(value.piece));
                            return None;
                        }
                    }
                }
                Some(Kept::Bundle(kept))
            }
        }
    }

    fn keep_value(&mut self, found: &Fetched) -> Option<Value> {
        let piece = loop {
            match self.arena.keep(found.value.expose()) {
                Some(piece) => break piece,
                None if self.evict() => {}
                None => return None,
            }
        };
        Some(Value { piece, version: found.version, stage: found.stage, written: found.written })
    }

    /// Makes room for `count` more, if there can be.
    fn make_room(&mut self, count: usize) -> bool {
        while self.count + count > self.limit {
            if !self.evict() {
                return false;
            }
        }
        true
    }

    /// Forgets what was not used for longest; `false` if there is nothing left.
    fn evict(&mut self) -> bool {
        let all = self.stores.iter().flat_map(|(store, entries)| entries.iter().map(move |entry| (store, entry)));
        let Some((store, (wanted, _))) = all.min_by_key(|(_, (_, entry))| entry.used) else { return false };
        let (store, wanted) = (store.clone(), wanted.clone());
        self.evicted += 1;
        self.forget(&store, &wanted);
        true
    }

    /// Wipes one entry.
    pub(super) fn forget(&mut self, store: &StoreKey, wanted: &Wanted) {
        if let Some(entry) = self.stores.get_mut(store).and_then(|entries| entries.remove(wanted)) {
            self.wipe(entry);
        }
    }

    /// Wipes what `is_unwanted` says of a store and when it was fetched; answers how many entries that were.
    pub(super) fn forget_all(&mut self, is_unwanted: impl Fn(&StoreKey) -> bool) -> u64 {
        let mut out = Vec::new();
        for (_, entries) in self.stores.iter_mut().filter(|(store, _)| is_unwanted(store)) {
            out.extend(entries.drain().map(|(_, entry)| entry));
        }
        self.wipe_all(out)
    }

    /// Wipes what is dead.
    pub(super) fn sweep(&mut self, now: Instant) -> u64 {
        let mut out = Vec::new();
        for entries in self.stores.values_mut() {
            out.extend(entries.extract_if(|_, entry| now >= entry.dead).map(|(_, entry)| entry));
        }
        self.wipe_all(out)
    }

    fn wipe_all(&mut self, entries: Vec<Entry>) -> u64 {
        let count = entries.len() as u64;
        entries.into_iter().for_each(|entry| self.wipe(entry));
        self.stores.retain(|_, entries| !entries.is_empty());
        count
    }

    fn wipe(&mut self, entry: Entry) {
        self.count -= entry.kept.count();
        match entry.kept {
            Kept::Absent => {}
            Kept::Found(value) => self.arena.give_back(value.piece),
            Kept::Bundle(items) => items.into_iter().for_each(|(_, value)| self.arena.give_back(value.piece)),
        }
    }

    /// Values and absences, their bytes, the bytes there are, and how many had to go for others.
    pub(super) fn figures(&self) -> Figures {
        let oldest = self.stores.values().flat_map(|entries| entries.values().map(|entry| entry.fetched)).min();
        Figures { values: self.count, bytes: self.arena.used(), size: self.arena.size(), evicted: self.evicted, oldest }
    }

    /// What the kernel did not grant.
    pub(super) fn lacks(&self) -> &[&'static str] {
        self.arena.lacks()
    }
}

/// The cache in numbers.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// Values, and absences that are known.
    pub values: usize,
    /// Bytes of memory in use.
    pub bytes: usize,
    /// Bytes of memory in all.
    pub size: usize,
    /// How many entries had to go for others.
    pub evicted: u64,
    /// When the oldest entry was fetched.
    pub oldest: Option<Instant>,
}

impl Kept {
    fn count(&self) -> usize {
        match self {
            Self::Absent | Self::Found(_) => 1,
            Self::Bundle(items) => items.len().max(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(name: &str) -> Wanted {
        Wanted::Item { item: ItemName::new(name).unwrap(), version: None, stage: None, plain: false }
    }

    fn found(bytes: &[u8]) -> Answer {
        Answer::Found(Fetched { value: Secret::new(bytes.to_vec()), version: Some(3), stage: None, written: None })
    }

    fn store(policy: u64) -> StoreKey {
        (policy, StoreName::new("params").unwrap())
    }

    fn rules(ttl: u64, max_stale: u64) -> CacheRules {
        CacheRules { ttl: Duration::from_secs(ttl), max_stale: Duration::from_secs(max_stale) }
    }

    fn table() -> Table {
        Table::new(4096, 100).unwrap()
    }

    fn bytes(table: &mut Table, name: &str) -> Option<Vec<u8>> {
        match table.copy(&store(1), &wanted(name)) {
            Some(Answer::Found(found)) => Some(found.value.expose().to_vec()),
            _ => None,
        }
    }

    #[test]
    fn an_entry_is_fresh_then_due_then_stale_then_gone() {
        let (mut table, now) = (table(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        for (random, due) in [(0, 90), (u32::MAX, 70)] {
            table.keep(&store(1), &wanted("a"), &found(b"v"), &rules(100, 50), now, random);
            let state = |seconds| table.state(&store(1), &wanted("a"), at(seconds));
            assert_eq!(state(due - 1), Some(State::Fresh));
            assert_eq!(state(due + 1), Some(State::Due));
            assert_eq!(state(99), Some(State::Due));
            assert_eq!(state(100), Some(State::Stale(Duration::ZERO)));
            assert_eq!(state(149), Some(State::Stale(Duration::from_secs(49))));
            assert_eq!(state(150), None);
        }
        assert_eq!(table.sweep(at(149)), 0);
        assert_eq!(table.sweep(at(150)), 1);
        assert_eq!((table.figures().values, table.figures().bytes), (0, 0));
    }

    #[test]
    fn without_a_time_to_live_nothing_is_kept_but_for_bad_times() {
        let (mut table, now) = (table(), Instant::now());
        table.keep(&store(1), &wanted("a"), &found(b"v"), &rules(0, 0), now, 0);
        assert_eq!(table.figures().values, 0);
        table.keep(&store(1), &wanted("a"), &found(b"v"), &rules(0, 9), now, 0);
        assert_eq!(table.state(&store(1), &wanted("a"), now), Some(State::Stale(Duration::ZERO)));
    }

    #[test]
    fn absence_is_fresh_for_a_moment() {
        let (mut table, now) = (table(), Instant::now());
        table.keep(&store(1), &wanted("a"), &Answer::Absent, &rules(100, 0), now, 0);
        assert_eq!(table.state(&store(1), &wanted("a"), now), Some(State::Fresh));
        assert!(matches!(table.state(&store(1), &wanted("a"), now + ABSENT), Some(State::Stale(_))));
        assert!(matches!(table.copy(&store(1), &wanted("a")), Some(Answer::Absent)));
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let (mut table, now) = (table(), Instant::now());
        for name in ["a", "b", "c", "d"] {
            table.keep(&store(1), &wanted(name), &found(&[b'x'; 1024]), &rules(100, 0), now, 0);
        }
        assert!(bytes(&mut table, "a").is_some());
        table.keep(&store(1), &wanted("e"), &found(&[b'y'; 1000]), &rules(100, 0), now, 0);
        assert!(bytes(&mut table, "b").is_none(), "not used since");
        for name in ["a", "c", "d", "e"] {
            assert!(bytes(&mut table, name).is_some(), "{name}");
        }
        assert_eq!(table.figures().evicted, 1);
        table.keep(&store(1), &wanted("f"), &found(&[b'z'; 5000]), &rules(100, 0), now, 0);
        assert!(bytes(&mut table, "f").is_none(), "larger than all there is");
    }

    #[test]
    fn their_number_is_bounded_too() {
        let (mut table, now) = (table(), Instant::now());
        for index in 0..150 {
            table.keep(&store(1), &wanted(&format!("n{index}")), &Answer::Absent, &rules(100, 0), now, 0);
        }
        assert_eq!(table.figures().values, 100);
        let item = |n: usize| (ItemName::new(format!("i{n}")).unwrap(), n);
        let bundle = |count: usize| {
            let one = |(name, _)| {
                let value = Secret::new(b"v".to_vec());
                (name, Fetched { value, version: None, stage: None, written: None })
            };
            Answer::Bundle((0..count).map(item).map(one).collect())
        };
        let all = Wanted::Bundle {
            path: String::new(),
            recursive: false,
            plain: false,
            hidden: std::collections::BTreeSet::new(),
            staged: std::collections::BTreeSet::new(),
        };
        table.keep(&store(1), &all, &bundle(60), &rules(100, 0), now, 0);
        assert_eq!(table.figures().values, 100);
        assert!(matches!(table.copy(&store(1), &all), Some(Answer::Bundle(items)) if items.len() == 60));
        table.keep(&store(1), &all, &bundle(101), &rules(100, 0), now, 0);
        assert!(table.copy(&store(1), &all).is_none());
    }

    #[test]
    fn a_newer_answer_takes_the_place_of_the_older() {
        let (mut table, now) = (table(), Instant::now());
        table.keep(&store(1), &wanted("a"), &found(b"old"), &rules(100, 0), now, 0);
        table.keep(&store(1), &wanted("a"), &found(b"new"), &rules(100, 0), now, 0);
        assert_eq!(bytes(&mut table, "a").as_deref(), Some(&b"new"[..]));
        assert_eq!(table.figures().values, 1);
        table.keep(&store(1), &wanted("a"), &Answer::Absent, &rules(100, 0), now, 0);
        assert!(bytes(&mut table, "a").is_none());
    }

    #[test]
    fn policies_do_not_see_each_others_entries() {
        let (mut table, now) = (table(), Instant::now());
        table.keep(&store(1), &wanted("a"), &found(b"v"), &rules(100, 0), now, 0);
        assert!(table.copy(&store(2), &wanted("a")).is_none());
        assert_eq!(table.forget_all(|(policy, _)| *policy == 2), 0);
        assert_eq!(table.forget_all(|(policy, _)| *policy == 1), 1);
        assert_eq!(table.figures().bytes, 0);
    }
}
