//! How many connections there may be, and how many refusals are written down for one user. Whoever has used up his own
//! takes nothing from others.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Connections in all, where descriptors allow it.
pub(super) const CONNECTIONS: usize = 1024;

/// Connections of one user other than root.
pub(super) const PER_USER: usize = 128;

/// Subscribers in all, where descriptors allow it. They have places of their own: each waits for long, and does little.
pub(super) const SUBSCRIBERS: usize = 4096;

/// Subscribers of one user other than root.
pub(super) const SUBSCRIBERS_PER_USER: usize = 2048;

/// Descriptors that are not connections: sockets, logs, stores, the runtime.
pub(super) const RESERVED: usize = 32;

/// Refusals of one user in one [`WINDOW`] that are looked at and written down. Who knocks on without end must not fill the
/// disk with it.
const REFUSALS: u32 = 50;
const WINDOW: Duration = Duration::from_secs(1);

/// Connections that are open.
pub(super) struct Slots {
    most: usize,
    most_per_user: usize,
    taken: Cell<usize>,
    by_user: RefCell<HashMap<u32, usize>>,
    /// Wakes who waits for the last one to go.
    pub(super) gone: tokio::sync::Notify,
}

/// One connection, for as long as it is held.
pub(super) struct Slot {
    slots: Rc<Slots>,
    uid: u32,
}

impl Slots {
    /// Room for as many connections as there may be with `descriptors`.
    pub(super) fn new(descriptors: usize) -> Rc<Self> {
        let most = descriptors.saturating_sub(RESERVED).clamp(1, CONNECTIONS);
        // However few there are, no one user gets them all.
        Self::of(most, PER_USER.min((most / 2).max(1)))
    }

    /// Room for as many subscribers as there may be besides; where descriptors are few, for none: they can ask instead.
    pub(super) fn of_subscribers(descriptors: usize) -> Rc<Self> {
        let most = descriptors.saturating_sub(RESERVED + CONNECTIONS).min(SUBSCRIBERS);
        Self::of(most, SUBSCRIBERS_PER_USER.min(most / 2))
    }

    fn of(most: usize, most_per_user: usize) -> Rc<Self> {
        Rc::new(Self {
            most,
            most_per_user,
            taken: Cell::new(0),
            by_user: RefCell::default(),
            gone: Default::default(),
        })
    }

    /// A place for one more of this user; `None` if there is none.
    pub(super) fn take(self: &Rc<Self>, uid: u32) -> Option<Slot> {
        let mut by_user = self.by_user.borrow_mut();
        let own = by_user.entry(uid).or_default();
        if self.taken.get() >= self.most || (uid != 0 && *own >= self.most_per_user) {
            return None;
        }
        *own += 1;
        self.taken.set(self.taken.get() + 1);
        Some(Slot { slots: Rc::clone(self), uid })
    }

    /// How many are open.
    pub(super) fn taken(&self) -> usize {
        self.taken.get()
    }

    /// How many there may be.
    pub(super) fn most(&self) -> usize {
        self.most
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let slots = &self.slots;
        slots.taken.set(slots.taken.get().saturating_sub(1));
        let mut by_user = slots.by_user.borrow_mut();
        if let Some(own) = by_user.get_mut(&self.uid) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                by_user.remove(&self.uid);
            }
        }
        slots.gone.notify_waiters();
    }
}

/// Refusals, by user.
#[derive(Default)]
pub(super) struct Refusals {
    by_user: RefCell<HashMap<u32, (Instant, u32)>>,
}

impl Refusals {
    /// Counts one.
    pub(super) fn count(&self, uid: u32, now: Instant) {
        let mut by_user = self.by_user.borrow_mut();
        by_user.retain(|_, (since, _)| now.saturating_duration_since(*since) < WINDOW);
        by_user.entry(uid).or_insert((now, 0)).1 += 1;
    }

    /// Whether this user has had too many of late.
    pub(super) fn are_too_many(&self, uid: u32, now: Instant) -> bool {
        let by_user = self.by_user.borrow();
        by_user
            .get(&uid)
            .is_some_and(|(since, count)| *count >= REFUSALS && now.saturating_duration_since(*since) < WINDOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_cannot_take_the_places_of_others() {
        let slots = Slots::new(64);
        assert_eq!(slots.most(), 32);
        let own: Vec<Slot> = std::iter::from_fn(|| slots.take(1000)).collect();
        assert_eq!(own.len(), 16);
        let roots: Vec<Slot> = std::iter::from_fn(|| slots.take(0)).collect();
        assert_eq!((own.len() + roots.len(), slots.taken()), (32, 32));
        assert!(slots.take(1001).is_none(), "full");
        drop(own);
        assert!(slots.take(1001).is_some());
        drop(roots);
        assert_eq!(slots.taken(), 0);
        assert!(slots.by_user.borrow().is_empty());
        assert_eq!(Slots::new(10).most(), 1);
        assert_eq!(Slots::of_subscribers(CONNECTIONS).most(), 0);
        assert_eq!(Slots::of_subscribers(CONNECTIONS + RESERVED + 10).most(), 10);
        assert_eq!(Slots::of_subscribers(1_000_000).most(), SUBSCRIBERS);
        assert_eq!(Slots::new(1_000_000).most(), CONNECTIONS);
    }

    #[test]
    fn refusals_are_forgiven_after_a_while() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        for _ in 0..REFUSALS {
            assert!(!refusals.are_too_many(7, now));
            refusals.count(7, now);
        }
        assert!(refusals.are_too_many(7, now) && !refusals.are_too_many(8, now));
        assert!(!refusals.are_too_many(7, now + WINDOW));
        refusals.count(8, now + WINDOW);
        assert_eq!(refusals.by_user.borrow().len(), 1);
    }
}
