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
    /// When to look, notice or not.
    fn due(&self) -> Option<Instant>;
    /// Judges a look that ended `now`, for a child that has `current`.
    fn judge(&mut self, look: Look, current: Digest, now: Instant) -> Decision;
    /// The child was started again because of a change.
    fn restarted(&mut self, now: Instant);
}

/// How long a set must be the same before it counts; never longer than the interval.
const QUIET: Duration = Duration::from_secs(2);
/// The most that failures and restarts make an interval longer: 2 to this power.
const MOST_DOUBLINGS: u32 = 6;

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
        let soon = self.changed.is_some_and(|changed| now.saturating_duration_since(changed) < Self::SOON);
        if succeeded || !soon || self.taken >= Self::MOST {
            return None;
        }
        self.taken += 1;
        Some(Duration::from_secs(1 << (self.taken - 1)))
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
