//! When to look whether a secret has changed, and what follows from what was seen. Pure but for the clock that is handed in.
//!
//! [`Changes`] is the joint: polling is one way, a notice from an agent is another, and the supervisor knows neither.
//! - Nobody looks at the same moment as all others: each interval is up to a fifth longer, by chance.
//! - Secrets that belong together are often written one after the other: a change counts once a second look, shortly after
//!   the first, has found the same.
//! - A store that fails is asked less and less often; the child goes on with what it has.
//! - A secret that keeps changing does not keep the child from its work: from one restart to the next the wait doubles.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use super::book::Why;
use super::worker::Digest;

/// What a look has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing was to be had: not granted any more, not complete, or the store failed.
    Failed,
    /// This is the injected set now.
    Seen(Digest),
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is what the child has, or there is nothing to be had.
    Keep,
    /// It is new; look again before anything is done.
    LookAgain,
    /// It is new, and was so twice.
    Restart,
}

/// Where changes are learned from.
pub(super) trait Changes {
    /// A descriptor that is readable when there may be a change.
    fn notice(&self) -> Option<BorrowedFd<'_>>;
    /// When to look.
    fn due(&self) -> Option<Instant>;
    /// Takes what the notice says, and does what is needed to get one. `set` is what an agent calls what the child has.
    fn tend(&mut self, _set: [u8; 32], _now: Instant) {}
    /// When that is due, notice or not.
    fn tend_at(&self) -> Option<Instant> {
        None
    }
    /// Judges a look that ended `now`, for a child that has `current`.
    fn judge(&mut self, look: Look, current: Digest, now: Instant) -> Decision;
    /// The child was started again because of a change.
    fn restarted(&mut self, now: Instant);
}

/// How long a set must be the same before it counts; never longer than the interval.
const QUIET: Duration = Duration::from_secs(2);
/// The most that failures and restarts make an interval longer: 2 to this power.
const MOST_DOUBLINGS: u32 = 6;

/// A way to hear that something has changed, instead of asking. Nothing here may wait.
pub trait Notices {
    /// Readable when there is something to hear.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;
    /// Asks to be told when what is granted is not what `set` stands for. `false`: there is nobody to ask.
    fn ask(&mut self, set: [u8; 32]) -> bool;
    /// What there is to hear; `None` for nothing.
    fn hear(&mut self) -> Option<Heard>;
}

/// What there is to hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// From now on it will be told.
    Begins,
    /// There is something else now.
    Changed,
    /// It will not be told any more.
    Ends,
}

/// Looks when it is told to; every so often while nobody does.
pub(super) struct Noticing<R> {
    polling: Polling<R>,
    notices: Box<dyn Notices>,
    state: State,
    /// How often in vain.
    tries: u32,
    /// A change was told of and not looked at.
    noticed: Option<Instant>,
    /// What was seen last has to be looked at again.
    again: bool,
    /// Nothing was told of since it began.
    is_first: bool,
}

/// How it stands with being told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not; it is asked for then.
    Off(Instant),
    /// It was asked for; until then there is to be an answer.
    Asked(Instant),
    On,
}

/// Until it is asked for again, after the first time in vain; then twice that, and so on.
const RETRY: Duration = Duration::from_secs(1);
/// For an answer.
const ANSWER: Duration = Duration::from_secs(120);

impl<R: FnMut() -> f64> Noticing<R> {
    pub(super) fn new(polling: Polling<R>, notices: Box<dyn Notices>, now: Instant) -> Self {
        Self { polling, notices, state: State::Off(now), tries: 0, noticed: None, again: false, is_first: false }
    }

    fn by_chance(&mut self, most: Duration) -> Duration {
        most.mul_f64((self.polling.random)().clamp(0.0, 1.0))
    }

    fn off(&mut self, now: Instant) {
        let wait = RETRY.saturating_mul(1 << self.tries.min(MOST_DOUBLINGS));
        self.tries = self.tries.saturating_add(1);
        // All of a host's children lose an agent at the same moment.
        self.state = State::Off(now + wait + self.by_chance(wait));
    }
}

impl<R: FnMut() -> f64> Changes for Noticing<R> {
    fn notice(&self) -> Option<BorrowedFd<'_>> {
        self.notices.descriptor()
    }

    fn due(&self) -> Option<Instant> {
        match (self.state, self.noticed) {
            (_, Some(noticed)) => Some(noticed.max(self.polling.not_before)),
            (State::On, None) if !self.again => None,
            (_, None) => self.polling.due(),
        }
    }

    fn tend(&mut self, set: [u8; 32], now: Instant) {
        while let Some(heard) = self.notices.hear() {
            match heard {
                Heard::Begins => {
                    self.state = State::On;
                    self.tries = 0;
                    self.is_first = true;
                }
                Heard::Changed => {
                    // The first one may come from an agent that was started again, to all at once.
                    let wait = if self.is_first { self.by_chance(self.polling.every / 5) } else { Duration::ZERO };
                    self.is_first = false;
                    self.noticed = Some(now + wait);
                }
                Heard::Ends => {
                    if self.state == State::On {
                        // As often as without it, from now on.
                        self.polling.after(now, 0);
                    }
                    self.off(now);
                }
            }
        }
        match self.state {
            State::Off(at) if now >= at => {
                if self.notices.ask(set) {
                    self.state = State::Asked(now + ANSWER);
                } else {
                    self.off(now);
                }
            }
            State::Asked(until) if now >= until => self.off(now),
            State::Off(_) | State::Asked(_) | State::On => {}
        }
    }

    fn tend_at(&self) -> Option<Instant> {
        match self.state {
            State::Off(at) | State::Asked(at) => Some(at),
            State::On => None,
        }
    }

    fn judge(&mut self, look: Look, current: Digest, now: Instant) -> Decision {
        // Who tells has waited until it was quiet.
        let is_quiet = self.noticed.take().is_some() && now >= self.polling.not_before;
        let decision = match (self.polling.judge(look, current, now), look) {
            (Decision::LookAgain, Look::Seen(_)) if is_quiet => Decision::Restart,
            (decision, _) => decision,
        };
        self.again = decision == Decision::LookAgain || look == Look::Failed;
        decision
    }

    fn restarted(&mut self, now: Instant) {
        self.again = false;
        self.polling.restarted(now);
    }
}

/// Looks every so often.
pub(super) struct Polling<R> {
    every: Duration,
    /// A number from 0 to 1.
    random: R,
    due: Instant,
    seen: Option<Digest>,
    failures: u32,
    restarts: u32,
    /// No restart before this.
    not_before: Instant,
}

impl<R: FnMut() -> f64> Polling<R> {
    pub(super) fn new(every: Duration, mut random: R, now: Instant) -> Self {
        let due = now + splayed(every, &mut random);
        Self { every, random, due, seen: None, failures: 0, restarts: 0, not_before: now }
    }

    fn after(&mut self, now: Instant, doublings: u32) {
        let every = self.every.saturating_mul(1 << doublings.min(MOST_DOUBLINGS));
        self.due = now + splayed(every, &mut self.random);
    }
}

fn splayed(every: Duration, random: &mut impl FnMut() -> f64) -> Duration {
    every + every.mul_f64(random().clamp(0.0, 1.0) / 5.0)
}

impl<R: FnMut() -> f64> Changes for Polling<R> {
    fn notice(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn due(&self) -> Option<Instant> {
        Some(self.due)
    }

    fn judge(&mut self, look: Look, current: Digest, now: Instant) -> Decision {
        let Look::Seen(digest) = look else {
            self.failures += 1;
            self.after(now, self.failures);
            return Decision::Keep;
        };
        self.failures = 0;
        self.after(now, 0);
        if digest == current {
            self.seen = None;
            // It has been quiet for long enough to forget how often it was not.
            if now >= self.not_before {
                self.restarts = 0;
            }
            return Decision::Keep;
        }
        let was_seen = self.seen.replace(digest) == Some(digest);
        if was_seen && now >= self.not_before {
            return Decision::Restart;
        }
        let again = now + QUIET.min(self.every);
        self.due = if was_seen { self.not_before.max(again) } else { again };
        Decision::LookAgain
    }

    fn restarted(&mut self, now: Instant) {
        self.seen = None;
        self.not_before = now + self.every.saturating_mul(1 << self.restarts.min(MOST_DOUBLINGS));
        self.restarts = self.restarts.saturating_add(1);
        self.after(now, 0);
    }
}

/// A child that ends soon after a change may not be able to live with it. It gets another chance, so that what was not ready
/// yet can be; not for ever, since whoever started us has rules of his own for a service that does not run.
#[derive(Debug, Default)]
pub(super) struct Chances {
    taken: u32,
    changed: Option<Instant>,
}

impl Chances {
    const MOST: u32 = 3;
    const SOON: Duration = Duration::from_secs(10);

    /// The child was started because of a change.
    pub(super) fn changed(&mut self, now: Instant) {
        *self = Self { taken: 0, changed: Some(now) };
    }

    /// How long to wait before the next start of a child that ended `now` by itself; `None`: it has ended for good. A child
    /// that never ran with changed secrets has no other chance, nor one that did what it had to do.
    pub(super) fn next(&mut self, succeeded: bool, now: Instant) -> Option<Duration> {
        if succeeded || !self.is_settling(now) || self.taken >= Self::MOST {
            return None;
        }
        self.taken += 1;
        Some(Duration::from_secs(1 << (self.taken - 1)))
    }

    /// Until when a child that was started because of a change is one that may not be able to live with it.
    pub(super) fn settles_at(&self) -> Option<Instant> {
        self.changed.map(|changed| changed + Self::SOON)
    }

    /// Whether a child that fails `now` does so because of a change, as far as can be told.
    pub(super) fn is_settling(&self, now: Instant) -> bool {
        self.settles_at().is_some_and(|at| now < at)
    }

    /// It was started again.
    pub(super) fn started(&mut self, now: Instant) {
        self.changed = Some(now);
    }

    /// For the audit.
    pub(super) fn why(&self) -> Why {
        Why::Again { start: self.taken, of: Self::MOST }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(30);
    const OLD: Digest = Digest([0; 32]);
    const NEW: Digest = Digest([1; 32]);
    const NEWER: Digest = Digest([2; 32]);

    fn polling(now: Instant) -> Polling<fn() -> f64> {
        Polling::new(EVERY, || 0.5, now)
    }

    fn wait(polling: &impl Changes, now: Instant) -> u64 {
        polling.due().unwrap().saturating_duration_since(now).as_secs()
    }

    #[test]
    fn each_interval_is_up_to_a_fifth_longer() {
        let now = Instant::now();
        assert_eq!(wait(&Polling::new(EVERY, || 0.0, now), now), 30);
        assert_eq!(wait(&polling(now), now), 33);
        assert_eq!(wait(&Polling::new(EVERY, || 1.0, now), now), 36);
    }

    #[test]
    fn a_change_counts_when_it_was_seen_twice() {
        let now = Instant::now();
        let mut polling = polling(now);
        assert_eq!(polling.judge(Look::Seen(OLD), OLD, now), Decision::Keep);
        assert_eq!(polling.judge(Look::Seen(NEW), OLD, now), Decision::LookAgain);
        assert_eq!(wait(&polling, now), 2);
        assert_eq!(polling.judge(Look::Seen(NEWER), OLD, now), Decision::LookAgain, "it is still being written");
        assert_eq!(polling.judge(Look::Seen(OLD), OLD, now), Decision::Keep, "and was taken back");
        assert_eq!(polling.judge(Look::Seen(NEW), OLD, now), Decision::LookAgain);
        assert_eq!(polling.judge(Look::Failed, OLD, now), Decision::Keep);
        assert_eq!(polling.judge(Look::Seen(NEW), OLD, now), Decision::Restart);
    }

    #[test]
    fn a_store_that_fails_is_asked_less_often_and_then_as_before() {
        let now = Instant::now();
        let mut polling = polling(now);
        let mut waits = Vec::new();
        for _ in 0..8 {
            assert_eq!(polling.judge(Look::Failed, OLD, now), Decision::Keep);
            waits.push(wait(&polling, now) / 33);
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 64, 64]);
        assert_eq!(polling.judge(Look::Seen(OLD), OLD, now), Decision::Keep);
        assert_eq!(wait(&polling, now), 33);
    }

    #[test]
    fn a_secret_that_keeps_changing_restarts_less_and_less_often() {
        let mut now = Instant::now();
        let mut polling = polling(now);
        let mut waits = Vec::new();
        for _ in 0..4 {
            let begun = now;
            while polling.judge(Look::Seen(NEW), OLD, now) != Decision::Restart {
                now = polling.due().unwrap().max(now);
            }
            waits.push((now - begun).as_secs());
            polling.restarted(now);
        }
        assert_eq!(waits, [2, 30, 60, 120]);
        now += Duration::from_secs(10_000);
        assert_eq!(polling.judge(Look::Seen(OLD), OLD, now), Decision::Keep);
        polling.restarted(now);
        assert_eq!(polling.not_before, now + EVERY, "forgotten");
    }

    /// What is heard next, and what was asked.
    #[derive(Default)]
    struct Told {
        heard: Vec<Heard>,
        asked: Vec<[u8; 32]>,
        nobody: bool,
    }

    struct Teller(std::rc::Rc<std::cell::RefCell<Told>>);

    impl Notices for Teller {
        fn descriptor(&self) -> Option<BorrowedFd<'_>> {
            None
        }

        fn ask(&mut self, set: [u8; 32]) -> bool {
            let mut told = self.0.borrow_mut();
            told.asked.push(set);
            !told.nobody
        }

        fn hear(&mut self) -> Option<Heard> {
            self.0.borrow_mut().heard.pop()
        }
    }

    #[allow(clippy::type_complexity)]
    fn noticing(now: Instant) -> (Noticing<fn() -> f64>, std::rc::Rc<std::cell::RefCell<Told>>) {
        let told = std::rc::Rc::default();
        (Noticing::new(polling(now), Box::new(Teller(std::rc::Rc::clone(&told))), now), told)
    }

    const SET: [u8; 32] = [7; 32];

    #[test]
    fn while_somebody_tells_nobody_asks() {
        let now = Instant::now();
        let (mut noticing, told) = noticing(now);
        assert_eq!(wait(&noticing, now), 33, "nobody tells yet");
        assert_eq!(noticing.tend_at(), Some(now));
        noticing.tend(SET, now);
        assert_eq!(told.borrow().asked, [SET]);
        assert_eq!(wait(&noticing, now), 33, "it was only asked for");
        told.borrow_mut().heard.push(Heard::Begins);
        noticing.tend(SET, now);
        assert_eq!((noticing.due(), noticing.tend_at()), (None, None));

        told.borrow_mut().heard.push(Heard::Changed);
        noticing.tend(SET, now);
        assert_eq!(noticing.due(), Some(now + EVERY / 10), "the first one: not all at once");
        assert_eq!(noticing.judge(Look::Seen(OLD), OLD, now), Decision::Keep, "a hint, and no more");
        assert_eq!(noticing.due(), None);
        told.borrow_mut().heard.push(Heard::Changed);
        noticing.tend(SET, now);
        assert_eq!(noticing.due(), Some(now));
        assert_eq!(noticing.judge(Look::Seen(NEW), OLD, now), Decision::Restart, "it was quiet before it was told");
        noticing.restarted(now);
        assert_eq!(noticing.due(), None);

        told.borrow_mut().heard.push(Heard::Changed);
        noticing.tend(SET, now);
        assert_eq!(noticing.due(), Some(now + EVERY), "not so soon after a restart");
        assert_eq!(told.borrow().asked.len(), 1);
    }

    #[test]
    fn a_look_that_failed_is_repeated_though_nobody_tells() {
        let now = Instant::now();
        let (mut noticing, told) = noticing(now);
        told.borrow_mut().heard.extend([Heard::Changed, Heard::Begins]);
        noticing.tend(SET, now);
        assert_eq!(wait(&noticing, now), 3);
        assert_eq!(noticing.judge(Look::Failed, OLD, now), Decision::Keep);
        assert_eq!(wait(&noticing, now), 66);
        assert_eq!(noticing.judge(Look::Seen(NEW), OLD, now), Decision::LookAgain);
        assert_eq!(wait(&noticing, now), 2);
        assert_eq!(noticing.judge(Look::Seen(NEW), OLD, now), Decision::Restart);
    }

    #[test]
    fn whoever_is_not_told_any_more_polls_and_asks_less_and_less_often_to_be_told() {
        let mut now = Instant::now();
        let (mut noticing, told) = noticing(now);
        told.borrow_mut().heard.push(Heard::Begins);
        noticing.tend(SET, now);
        now += EVERY * 10;
        told.borrow_mut().heard.push(Heard::Ends);
        told.borrow_mut().nobody = true;
        noticing.tend(SET, now);
        assert_eq!(wait(&noticing, now), 33, "from now on");
        let mut waits = Vec::new();
        for _ in 0..8 {
            let at = noticing.tend_at().unwrap();
            waits.push((at - now).as_secs());
            now = at;
            noticing.tend(SET, now);
        }
        assert_eq!(waits, [1, 3, 6, 12, 24, 48, 96, 96]);
        told.borrow_mut().nobody = false;
        noticing.tend(SET, noticing.tend_at().unwrap());
        assert_eq!(told.borrow().asked.len(), 8 + 1);
        told.borrow_mut().heard.push(Heard::Begins);
        noticing.tend(SET, now);
        assert_eq!(noticing.due(), None);
    }

    #[test]
    fn an_answer_is_not_waited_for_for_ever() {
        let now = Instant::now();
        let (mut noticing, told) = noticing(now);
        noticing.tend(SET, now);
        let until = noticing.tend_at().unwrap();
        assert_eq!(until - now, ANSWER);
        noticing.tend(SET, until);
        let retry = noticing.tend_at().unwrap();
        noticing.tend([8; 32], retry);
        assert_eq!(told.borrow().asked, [SET, [8; 32]], "with what it has by then");
    }

    #[test]
    fn a_child_that_cannot_live_with_a_change_has_three_more_chances() {
        let now = Instant::now();
        let mut chances = Chances::default();
        assert_eq!(chances.next(false, now), None, "nothing changed");
        chances.changed(now);
        assert_eq!(chances.next(true, now), None, "it has done its work");
        let waits: Vec<_> = std::iter::from_fn(|| chances.next(false, now)).map(|wait| wait.as_secs()).collect();
        assert_eq!(waits, [1, 2, 4]);
        chances.changed(now);
        assert_eq!(chances.next(false, now + Chances::SOON), None, "it did live with it");
    }
}
