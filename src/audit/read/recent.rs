//! The last releases by their access: each may still be taken back, and is counted once where several logs have it.
//!
//! A release is taken back within moments, so [`Tentative`] keeps a few before they count. What takes longer, the end of a
//! supervised child or a second log, finds what was made of a release in [`Recent`].

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

/// What was made of the last releases. `T` is that. Two generations: when the younger one is full, the older one is forgotten.
pub(super) struct Recent<T> {
    room: usize,
    young: HashMap<u64, Slot<T>>,
    old: HashMap<u64, Slot<T>>,
}

struct Slot<T> {
    /// Of the record's time.
    hash: u64,
    /// `None` until it counts, and once it was taken back.
    made: Option<T>,
}

impl<T> Recent<T> {
    /// Remembers at least the last `room` releases, and at most twice as many.
    pub(super) fn new(room: usize) -> Self {
        Self { room, young: HashMap::new(), old: HashMap::new() }
    }

    /// Whether this very record was taken in: its copies for several sinks have one access and one time.
    pub(super) fn knows(&self, access: &str, time: &str) -> bool {
        let Some(number) = number(access) else { return false };
        self.young.get(&number).or_else(|| self.old.get(&number)).is_some_and(|slot| slot.hash == hash(time))
    }

    /// Remembers a release, and what was made of it, if that is known already.
    pub(super) fn put(&mut self, access: &str, time: &str, made: Option<T>) {
        let Some(number) = number(access) else { return };
        if self.young.len() >= self.room {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(number, Slot { hash: hash(time), made });
    }

    /// What was made of a release that is remembered.
    pub(super) fn made(&mut self, access: &str, made: T) {
        let Some(number) = number(access) else { return };
        if let Some(slot) = self.young.get_mut(&number).or_else(|| self.old.get_mut(&number)) {
            slot.made = Some(made);
        }
    }

    /// What was made of the release of this access, without taking it.
    pub(super) fn look_at(&self, access: &str) -> Option<&T> {
        let number = number(access)?;
        self.young.get(&number).or_else(|| self.old.get(&number))?.made.as_ref()
    }

    /// What was made of the release of this access, once.
    pub(super) fn take(&mut self, access: &str) -> Option<T> {
        let number = number(access)?;
        let slot = self.young.get_mut(&number).or_else(|| self.old.get_mut(&number))?;
        slot.made.take()
    }
}

/// The last releases, which do not count yet.
pub(super) struct Tentative<T>(VecDeque<(u64, T)>);

/// Releases that may lie between one and the record that takes it back.
const TENTATIVE: usize = 1024;

impl<T> Tentative<T> {
    pub(super) fn new() -> Self {
        Self(VecDeque::new())
    }

    /// Adds a release; answers one that counts from now on.
    pub(super) fn push(&mut self, access: &str, made: T) -> Option<T> {
        self.0.push_back((number(access).unwrap_or_default(), made));
        if self.0.len() > TENTATIVE { self.pop() } else { None }
    }

    /// The first one; it counts from now on.
    pub(super) fn pop(&mut self) -> Option<T> {
        self.0.pop_front().map(|(_, made)| made)
    }

    /// Takes the release of this access back, if it does not count yet.
    pub(super) fn take(&mut self, access: &str) -> Option<T> {
        let number = number(access)?;
        let at = self.0.iter().rposition(|(one, _)| *one == number)?;
        self.0.remove(at).map(|(_, made)| made)
    }
}

/// 16 hexadecimal digits. What is none is in no record of ours.
fn number(access: &str) -> Option<u64> {
    u64::from_str_radix(access, 16).ok()
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_counts_once_enough_others_have_come() {
        let mut tentative = Tentative::new();
        assert!((0..TENTATIVE).all(|at| tentative.push(&format!("{at:x}"), at).is_none()));
        assert_eq!((tentative.take("5"), tentative.take("5")), (Some(5), None));
        assert_eq!((tentative.push("x", 0), tentative.push("y", 0)), (None, Some(0)));
        assert_eq!((tentative.take("0"), tentative.pop()), (Some(0), Some(1)), "what is no number stands for none");
    }

    #[test]
    fn a_release_is_taken_back_once_and_forgotten_in_the_end() {
        let mut recent = Recent::new(2);
        recent.put("0a", "t1", Some(1));
        assert!(recent.knows("0a", "t1") && !recent.knows("0a", "t2") && !recent.knows("0b", "t1"));
        assert_eq!((recent.take("0a"), recent.take("0a")), (Some(1), None));
        assert!(recent.knows("0a", "t1"), "its copy in another log is not counted anew");
        for (access, made) in [("1", 1), ("2", 2), ("3", 3)] {
            recent.put(access, "t", None);
            recent.made(access, made);
        }
        assert_eq!((recent.take("1"), recent.take("3")), (Some(1), Some(3)));
        recent.put("4", "t", Some(4));
        recent.put("5", "t", Some(5));
        assert!(recent.young.len() + recent.old.len() <= 4);
        assert_eq!((recent.take("1"), recent.take("no number"), recent.knows("no number", "t")), (None, None, false));
    }
}
