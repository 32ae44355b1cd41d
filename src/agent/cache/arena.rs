//! One block of locked memory, and pieces of it: whatever the cache keeps of a plaintext lies in here. Its size is the bound.
//!
//! A piece is wiped when it is given back. Pieces are found first-fit; neighbours that are free become one.

use std::collections::BTreeMap;

use zeroize::Zeroize;

use crate::sys::locked::Locked;

/// Pieces begin and end at multiples of this, so that what is left between them can be used again.
const STEP: usize = 32;

/// The memory.
pub(super) struct Arena {
    memory: Locked,
    /// What is free: where, and how long.
    free: BTreeMap<usize, usize>,
    used: usize,
}

/// A piece that is in use. Not dropped but given back: [`Arena::give_back`].
#[derive(Debug)]
#[must_use]
pub(super) struct Piece {
    at: usize,
    length: usize,
}

impl Arena {
    /// Memory of `size` bytes; `None` if there is none.
    pub(super) fn new(size: usize) -> Option<Self> {
        let memory = Locked::new(size)?;
        let free = BTreeMap::from([(0, memory.len())]);
        Some(Self { memory, free, used: 0 })
    }

    /// Keeps a copy of `bytes`; `None` if there is no room for it in one piece.
    pub(super) fn keep(&mut self, bytes: &[u8]) -> Option<Piece> {
        let room = room_for(bytes.len());
        if room == 0 {
            return Some(Piece { at: 0, length: 0 });
        }
        let (at, length) = self.free.iter().find(|(_, length)| **length >= room).map(|(at, length)| (*at, *length))?;
        self.free.remove(&at);
        if length > room {
            self.free.insert(at + room, length - room);
        }
        self.memory.get_mut(at..at + bytes.len())?.copy_from_slice(bytes);
        self.used += room;
        Some(Piece { at, length: bytes.len() })
    }

    /// What is kept in a piece.
    pub(super) fn bytes(&self, piece: &Piece) -> &[u8] {
        self.memory.get(piece.at..piece.at + piece.length).unwrap_or_default()
    }

    /// Wipes a piece and makes its room free.
    pub(super) fn give_back(&mut self, piece: Piece) {
        let (mut at, mut room) = (piece.at, room_for(piece.length));
        if room == 0 {
            return;
        }
        self.memory.get_mut(at..at + room).unwrap_or_default().zeroize();
        self.used -= room;
        if let Some(after) = self.free.remove(&(at + room)) {
            room += after;
        }
        if let Some((before, length)) = self.free.range(..at).next_back().map(|(before, length)| (*before, *length))
            && before + length == at
        {
            (at, room) = (before, length + room);
        }
        self.free.insert(at, room);
    }

    /// Bytes in use.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Bytes in all.
    pub(super) fn size(&self) -> usize {
        self.memory.len()
    }

    /// What the kernel did not grant.
    pub(super) fn lacks(&self) -> &[&'static str] {
        self.memory.lacks()
    }
}

fn room_for(length: usize) -> usize {
    length.next_multiple_of(STEP)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_given_back_is_wiped_and_used_again() {
        let mut arena = Arena::new(4096).unwrap();
        let all: Vec<Piece> = (0..4).map(|n| arena.keep(&[n + 1; 1024]).unwrap()).collect();
        assert!(arena.keep(b"x").is_none(), "full");
        assert!(arena.keep(b"").is_some(), "nothing needs no room");
        assert_eq!(arena.bytes(&all[2]), [3; 1024]);
        for piece in all {
            arena.give_back(piece);
        }
        assert!(arena.memory.iter().all(|byte| *byte == 0));
        assert_eq!((arena.used(), arena.free.len()), (0, 1));
        assert!(arena.keep(&[7; 4096]).is_some());
    }

    proptest! {
        #[test]
        fn pieces_never_overlap_and_nothing_is_lost(steps in proptest::collection::vec((0..900_usize, any::<bool>()), 1..200)) {
            let mut arena = Arena::new(4096).unwrap();
            let mut kept: Vec<(Piece, Vec<u8>)> = Vec::new();
            for (index, (size, give_back)) in steps.into_iter().enumerate() {
                if give_back && !kept.is_empty() {
                    let (piece, _) = kept.swap_remove(size % kept.len());
                    arena.give_back(piece);
                } else {
                    let bytes = vec![u8::try_from(index % 256).unwrap(); size];
                    if let Some(piece) = arena.keep(&bytes) {
                        kept.push((piece, bytes));
                    }
                }
                for (piece, bytes) in &kept {
                    prop_assert_eq!(arena.bytes(piece), &bytes[..]);
                }
                let free: usize = arena.free.values().sum();
                prop_assert_eq!(free + arena.used(), arena.size());
            }
            for (piece, _) in kept {
                arena.give_back(piece);
            }
            prop_assert!(arena.memory.iter().all(|byte| *byte == 0));
            prop_assert_eq!(arena.free.len(), 1);
        }
    }
}
