//! How many connections there may be, and how much is written down for one user. Whoever has used up his own takes nothing
//! from others, and those whom the host file does not list share what one user has.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::policies::Slot as Service;

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

/// Connections of all together whom the host file does not list.
const STRANGERS: usize = 32;

/// Refusals of one user that are looked at and written down: at once, and again in each second. Who knocks on without end
/// must not fill the disk with it.
const REFUSALS: Rate = Rate { most: 50, each_second: 50 };

/// Records that one user can cause by asking and by reporting, whatever comes of it.
const RECORDS: Rate = Rate { most: 2000, each_second: 200 };

/// Refusals of all together whom the host file does not list.
const REFUSALS_OF_STRANGERS: Rate = Rate { most: 10, each_second: 5 };

/// Children that one user's supervisors may speak of after their release, as far back as is remembered.
const RELEASES: usize = 2 * SUBSCRIBERS_PER_USER;

/// Connections that are open.
pub(super) struct Slots {
    most: usize,
    most_per_user: usize,
    taken: Cell<usize>,
    by_user: RefCell<HashMap<Whose, usize>>,
    /// Wakes who waits for the last one to go.
    pub(super) gone: tokio::sync::Notify,
}

/// In whose name something is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Whose {
    /// A user whom the host file lists, root, or the agent's own.
    User(u32),
    /// Everybody else.
    Strangers,
}

/// One connection, for as long as it is held.
pub(super) struct Slot {
    slots: Rc<Slots>,
    whose: Whose,
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
    pub(super) fn take(self: &Rc<Self>, whose: Whose) -> Option<Slot> {
        let mut by_user = self.by_user.borrow_mut();
        let own = by_user.entry(whose).or_default();
        let most = match whose {
            Whose::User(0) => self.most,
            Whose::User(_) => self.most_per_user,
            Whose::Strangers => STRANGERS.min((self.most_per_user / 4).max(1)),
        };
        if self.taken.get() >= self.most || *own >= most {
            if *own == 0 {
                by_user.remove(&whose);
            }
            return None;
        }
        *own += 1;
        self.taken.set(self.taken.get() + 1);
        Some(Slot { slots: Rc::clone(self), whose })
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
        if let Some(own) = by_user.get_mut(&self.whose) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                by_user.remove(&self.whose);
            }
        }
        slots.gone.notify_waiters();
    }
}

/// How many, and how fast they come back.
#[derive(Debug, Clone, Copy)]
struct Rate {
    most: u32,
    each_second: u32,
}

/// What is left of a [`Rate`], by user. Who is not in here has all of it.
#[derive(Default)]
struct Left(HashMap<Whose, (Instant, f64)>);

impl Left {
    fn now(&self, whose: Whose, rate: Rate, now: Instant) -> f64 {
        let most = f64::from(rate.most);
        let Some((since, left)) = self.0.get(&whose) else { return most };
        let back = now.saturating_duration_since(*since).as_secs_f64() * f64::from(rate.each_second);
        (left + back).min(most)
    }

    /// Takes so many. What is missing then has to come back first.
    fn take(&mut self, whose: Whose, rate: Rate, count: u32, now: Instant) {
        let left = self.now(whose, rate, now) - f64::from(count);
        self.0.insert(whose, (now, left));
        // Who has everything again is forgotten.
        let whole = Duration::from_secs((rate.most / rate.each_second).into()) + Duration::from_secs(1);
        self.0.retain(|_, (since, _)| now.saturating_duration_since(*since) < whole);
    }
}

/// What may still be written down because somebody asks for it.
#[derive(Default)]
pub(super) struct Budget {
    refusals: RefCell<Left>,
    records: RefCell<Left>,
}

impl Budget {
    /// Whether the next request of this user is looked at.
    pub(super) fn is_left(&self, whose: Whose, now: Instant) -> bool {
        let is_left = |of: &RefCell<Left>, rate: Rate| of.borrow().now(whose, rate, now) >= 1.0;
        is_left(&self.refusals, Self::refusals_of(whose)) && is_left(&self.records, RECORDS)
    }

    /// One was refused.
    pub(super) fn refused(&self, whose: Whose, now: Instant) {
        self.refusals.borrow_mut().take(whose, Self::refusals_of(whose), 1, now);
    }

    /// So many records are about to be written. Not counted for root, who needs no agent to write what he likes.
    pub(super) fn writes(&self, whose: Whose, count: u32, now: Instant) {
        if whose != Whose::User(0) {
            self.records.borrow_mut().take(whose, RECORDS, count, now);
        }
    }

    fn refusals_of(whose: Whose) -> Rate {
        match whose {
            Whose::User(_) => REFUSALS,
            Whose::Strangers => REFUSALS_OF_STRANGERS,
        }
    }
}

/// What was released to children with a supervisor, by user: what these may speak of. The oldest are forgotten.
#[derive(Default)]
pub(super) struct Releases(RefCell<HashMap<u32, VecDeque<Release>>>);

/// An access, and what it was to.
type Release = ([u8; 8], Service);

impl Releases {
    /// An access of this user's, and what it was to.
    pub(super) fn note(&self, uid: u32, access: [u8; 8], of: Service) {
        let mut all = self.0.borrow_mut();
        let own = all.entry(uid).or_default();
        if own.len() >= RELEASES {
            own.pop_front();
        }
        own.push_back((access, of));
    }

    /// Whether this access was released to this user, and to this.
    pub(super) fn has(&self, uid: u32, access: [u8; 8], of: &Service) -> bool {
        self.0.borrow().get(&uid).is_some_and(|own| own.iter().any(|(known, to)| *known == access && to == of))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_cannot_take_the_places_of_others() {
        let slots = Slots::new(64);
        assert_eq!(slots.most(), 32);
        let own: Vec<Slot> = std::iter::from_fn(|| slots.take(Whose::User(1000))).collect();
        assert_eq!(own.len(), 16);
        let roots: Vec<Slot> = std::iter::from_fn(|| slots.take(Whose::User(0))).collect();
        assert_eq!((own.len() + roots.len(), slots.taken()), (32, 32));
        assert!(slots.take(Whose::User(1001)).is_none(), "full");
        drop(own);
        assert!(slots.take(Whose::User(1001)).is_some());
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
    fn strangers_share_a_few_places_and_leave_the_rest() {
        let slots = Slots::new(1_000_000);
        let strangers: Vec<Slot> = std::iter::from_fn(|| slots.take(Whose::Strangers)).collect();
        assert_eq!(strangers.len(), STRANGERS);
        assert_eq!(
            std::iter::from_fn(|| slots.take(Whose::User(7))).take(PER_USER + 1).collect::<Vec<_>>().len(),
            PER_USER
        );
        let few = Slots::new(64);
        assert_eq!(std::iter::from_fn(|| few.take(Whose::Strangers)).collect::<Vec<_>>().len(), 4);
    }

    #[test]
    fn what_was_used_up_comes_back() {
        let (budget, now) = (Budget::default(), Instant::now());
        let used_up = |whose: Whose, take: &dyn Fn()| {
            let mut count = 0;
            while budget.is_left(whose, now) {
                take();
                count += 1;
            }
            assert!(budget.is_left(whose, now + Duration::from_secs(1)));
            count
        };
        let (user, other) = (Whose::User(7), Whose::User(8));
        assert_eq!(used_up(user, &|| budget.refused(user, now)), REFUSALS.most);
        assert_eq!(used_up(Whose::Strangers, &|| budget.refused(Whose::Strangers, now)), REFUSALS_OF_STRANGERS.most);
        assert_eq!(used_up(other, &|| budget.writes(other, 2, now)), RECORDS.most / 2);
        assert!(budget.is_left(Whose::User(9), now));
        budget.writes(Whose::User(0), 100_000, now);
        assert!(budget.is_left(Whose::User(0), now), "root needs no agent for that");
        let later = now + Duration::from_secs(100);
        budget.writes(other, 1, later);
        assert_eq!((budget.records.borrow().0.len(), budget.refusals.borrow().0.len()), (1, 2));
    }

    #[test]
    fn only_what_was_released_to_a_user_is_his_to_speak_of() {
        let (releases, of) =
            (Releases::default(), |name: &str| (crate::name::EnvironmentName::new(name).unwrap(), None));
        releases.note(7, [1; 8], of("prod"));
        assert!(releases.has(7, [1; 8], &of("prod")));
        assert!(!releases.has(7, [1; 8], &of("dev")) && !releases.has(8, [1; 8], &of("prod")));
        assert!(!releases.has(7, [2; 8], &of("prod")));
        (0..RELEASES).for_each(|_| releases.note(7, [3; 8], of("prod")));
        assert!(!releases.has(7, [1; 8], &of("prod")));
    }
}
