//! Where each chain stands. A host that starts a process a second begins a chain a second, so what is remembered has a
//! limit: the chains that were not seen for longest are forgotten. A forgotten one that goes on then looks as if it
//! started late, which is a finding too many, never one too few.

use std::collections::HashMap;

use crate::audit::chain::{Chain, StreamId};

#[derive(Default)]
pub(super) struct Chains {
    by_stream: HashMap<StreamId, Standing>,
    clock: u64,
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

    pub(super) fn put(&mut self, chain: Chain) {
        self.clock += 1;
        let parts = self.by_stream.get(&chain.stream).and_then(|standing| standing.parts);
        self.by_stream.insert(chain.stream, Standing { chain, parts, seen: self.clock });
        if self.by_stream.len() > REMEMBERED {
            let mut seen: Vec<u64> = self.by_stream.values().map(|standing| standing.seen).collect();
            let (_, middle, _) = seen.select_nth_unstable(REMEMBERED / 2);
            let middle = *middle;
            self.by_stream.retain(|_, standing| standing.seen > middle || standing.parts.is_some());
        }
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
