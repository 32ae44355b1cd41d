//! Whether records follow each other: in their chains, and as parts of one.

use super::chains::Parts;
use super::finding::FindingKind;
use super::{Start, Verifier};
use crate::audit::chain::{Chain, Digest, StreamId, Tail};
use crate::audit::read::record::Record;

impl Verifier<'_> {
    pub(super) fn is_in_file_chain(&mut self, stream: StreamId, first_of_log: bool) -> bool {
        match self.file_chain {
            Some(chain) if chain == stream => return true,
            Some(_) if !first_of_log => {
                self.find(FindingKind::OtherChain);
                return false;
            }
            Some(_) => self.find(FindingKind::NewChain),
            None => {}
        }
        self.file_chain = Some(stream);
        true
    }

    /// Whether the record is the first of its chain, or follows the one before it.
    pub(super) fn link(&mut self, tail: &Tail) -> bool {
        let Chain { stream, seq, hash: _ } = tail.chain;
        let Some(before) = self.chains.get(stream) else {
            if self.chains.was_forgotten(stream) {
                // Nobody can say what was before it; but a first record it cannot be.
                if seq <= 1 {
                    self.find(FindingKind::Repeated { seq, expected: 2 });
                } else {
                    self.find(FindingKind::ChainForgotten { seq });
                    self.put(tail.chain);
                }
                return false;
            }
            self.report.streams += 1;
            if seq != 1 && self.start == Start::Beginning {
                self.find(FindingKind::StartsLate { seq });
            } else if seq == 0 || (seq == 1 && tail.prev != Digest::default()) {
                self.find(FindingKind::Unchained { seq });
            }
            self.put(tail.chain);
            return seq == 1;
        };
        let expected = before.seq.saturating_add(1);
        if seq < expected {
            self.find(FindingKind::Repeated { seq, expected });
            return false;
        }
        if seq > expected {
            self.find(FindingKind::Gap { from: expected, to: seq - 1 });
        } else if tail.prev != before.hash {
            self.find(FindingKind::Unchained { seq });
        }
        self.put(tail.chain);
        seq == expected
    }

    fn put(&mut self, chain: Chain) {
        for parts in self.chains.put(chain) {
            self.find(FindingKind::PartsMissing { record: parts.record });
        }
    }

    pub(super) fn parts(&mut self, tail: &Tail, line: &Record<'_>, follows: bool) {
        let stream = tail.chain.stream;
        let now = match (line.record, line.part, line.parts) {
            (None, None, None) => None,
            (Some(record), Some(part), Some(parts)) => Some(Parts { record, part, parts }),
            _ => return self.find(FindingKind::Malformed),
        };
        let before = self.chains.set_parts(stream, now.filter(|now| now.part < now.parts));
        let fits = match (before, now) {
            (None, None) => true,
            (None, Some(now)) => now.part == 1 && now.record == tail.chain.seq && now.parts > 1,
            (Some(_), None) => false,
            (Some(before), Some(now)) => {
                now.record == before.record && now.parts == before.parts && now.part == before.part.saturating_add(1)
            }
        };
        // Where records are missing, that was said already.
        if !fits && follows {
            self.find(FindingKind::PartsMixed);
        }
    }
}
