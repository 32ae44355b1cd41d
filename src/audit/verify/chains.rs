//! Where each chain stands. A host that starts a process a second begins a chain a second, so what is remembered has a
//! limit: the chains that were not seen for longest are forgotten, all but a hash of their names. A forgotten one that goes on
//! is a finding too many, never one too few; so is the rest of one that was forgotten in the middle of a record.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use crate::audit::chain::{Chain, StreamId};

pub(super) struct Chains {
    by_stream: HashMap<StreamId, Standing>,
    clock: u64,
    /// Names of those that were forgotten, hashed: whoever makes up names does not know the key.
    forgotten: HashSet<u64>,
    hasher: RandomState,
    /// There were even more.
    pub(super) is_overfull: bool,
    most: usize,
    most_forgotten: usize,
}

impl Default for Chains {
    fn default() -> Self {
        Self::remembering(REMEMBERED, FORGOTTEN)
    }
}

#[derive(Clone, Copy)]
struct Standing {
    chain: Chain,
    parts: Option<Parts>,
    seen: u64,
}

/// Where a divided record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) record: u64,
    pub(super) part: u64,
    pub(super) parts: u64,
}

impl Chains {
    pub(super) fn get(&self, stream: StreamId) -> Option<Chain> {
        self.by_stream.get(&stream).map(|standing| standing.chain)
    }

    pub(super) fn remembering(most: usize, most_forgotten: usize) -> Self {
        Self {
            by_stream: HashMap::new(),
            clock: 0,
            forgotten: HashSet::new(),
            hasher: RandomState::new(),
            is_overfull: false,
            most,
            most_forgotten,
        }
    }

    /// Says which divided records are given up because their chains are forgotten.
    pub(super) fn put(&mut self, chain: Chain) -> Vec<Parts> {
        self.clock += 1;
        let parts = self.by_stream.get(&chain.stream).and_then(|standing| standing.parts);
        self.by_stream.insert(chain.stream, Standing { chain, parts, seen: self.clock });
        if self.by_stream.len() <= self.most {
            return Vec::new();
        }
        let mut seen: Vec<u64> = self.by_stream.values().map(|standing| standing.seen).collect();
        let (_, middle, _) = seen.select_nth_unstable(self.most / 2);
        let middle = *middle;
        let mut given_up = Vec::new();
        self.by_stream.retain(|stream, standing| {
            let is_kept = standing.seen > middle;
            if !is_kept {
                given_up.extend(standing.parts);
                if self.forgotten.len() < self.most_forgotten {
                    self.forgotten.insert(self.hasher.hash_one(stream));
                } else {
                    self.is_overfull = true;
                }
            }
            is_kept
        });
        given_up
    }

    pub(super) fn was_forgotten(&self, stream: StreamId) -> bool {
        !self.forgotten.is_empty() && self.forgotten.contains(&self.hasher.hash_one(stream))
    }

    /// Takes an altered record's own word for where the chain stands, so that one alteration is one finding.
    pub(super) fn go_on_from(&mut self, chain: Chain) {
        if let Some(standing) = self.by_stream.get_mut(&chain.stream)
            && chain.seq == standing.chain.seq.saturating_add(1)
        {
            standing.chain = chain;
        }
    }

    /// Notes how far the current record is, and says how far it was.
    pub(super) fn set_parts(&mut self, stream: StreamId, parts: Option<Parts>) -> Option<Parts> {
        let standing = self.by_stream.get_mut(&stream)?;
        std::mem::replace(&mut standing.parts, parts)
    }

    pub(super) fn unfinished(&self) -> impl Iterator<Item = Parts> {
        self.by_stream.values().filter_map(|standing| standing.parts)
    }
}

const REMEMBERED: usize = 200_000;

/// What fits into a table of 2 MiB entries: 19 MiB.
const FORGOTTEN: usize = 1_800_000;
