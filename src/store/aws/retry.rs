//! When to try again, and after how long; and several calls at once. Pure but for the random number.
//!
//! Waiting times are "full jitter" (AWS Architecture Blog, "Exponential Backoff And Jitter"): uniform between nothing and a
//! bound that doubles. Two hundred wrappers that start at once spread out by themselves.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

use super::error::Problem;

/// The bound before the first repetition where something is broken.
const FIRST_IF_BROKEN: Duration = Duration::from_millis(100);
/// The same where the service is busy, which repetitions make worse.
const FIRST_IF_BUSY: Duration = Duration::from_millis(250);
/// The bound never grows over this.
const MOST: Duration = Duration::from_secs(5);
/// Attempts where something is broken rather than busy: who must wait for the deadline to learn of a typo waits in vain.
const ATTEMPTS_IF_BROKEN: u32 = 4;

/// How a failed call is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repetition {
    /// Until the deadline: the service is there and busy.
    Patient,
    /// A few times.
    Few,
    /// Never: the same answer would come again.
    Never,
}

/// Which failures of a read are worth another attempt. A write is not repeated before it is known that it did not happen.
#[must_use]
pub fn repetition(problem: &Problem) -> Repetition {
    match problem {
        Problem::Throttled | Problem::Contended => Repetition::Patient,
        Problem::ServerFault | Problem::Unreachable(_) => Repetition::Few,
        _ => Repetition::Never,
    }
}

/// The wait before the next attempt, or `None` if there is none. `failures` counts those up to now, from 1; `left` is the
/// time until the deadline; `random` is uniform in 0..=u32::MAX.
#[must_use]
pub fn wait(repetition: Repetition, failures: u32, left: Duration, random: u32) -> Option<Duration> {
    let first = match repetition {
        Repetition::Never => return None,
        Repetition::Few if failures >= ATTEMPTS_IF_BROKEN => return None,
        Repetition::Few => FIRST_IF_BROKEN,
        Repetition::Patient => FIRST_IF_BUSY,
    };
    let bound = first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(MOST);
    let wait = bound.mul_f64(f64::from(random) / f64::from(u32::MAX));
    (wait < left).then_some(wait)
}

/// A random number for [`wait`]. Should the system have none, the middle is as good as any.
#[must_use]
pub fn random() -> u32 {
    let mut bytes = [0; 4];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => u32::from_ne_bytes(bytes),
        Err(_) => u32::MAX / 2,
    }
}

/// Runs `calls`, at most `limit` at a time, in the order given; answers in that order, or the first error as soon as there
/// is one.
///
/// # Errors
/// The first error of a call; the others are dropped.
pub async fn concurrently<T, E, F: Future<Output = Result<T, E>>>(
    limit: usize,
    calls: impl IntoIterator<Item = F>,
) -> Result<Vec<T>, E> {
    let mut waiting = calls.into_iter().map(Box::pin).enumerate();
    let mut running: Vec<(usize, Pin<Box<F>>)> = Vec::new();
    let mut done: Vec<(usize, T)> = Vec::new();
    poll_fn(|context| {
        loop {
            while running.len() < limit.max(1)
                && let Some(next) = waiting.next()
            {
                running.push(next);
            }
            let before = running.len();
            let mut failure = None;
            running.retain_mut(|(index, call)| match call.as_mut().poll(context) {
                Poll::Pending => true,
                Poll::Ready(Ok(answer)) => {
                    done.push((*index, answer));
                    false
                }
                Poll::Ready(Err(error)) => {
                    failure.get_or_insert(error);
                    false
                }
            });
            if let Some(error) = failure {
                return Poll::Ready(Err(error));
            }
            if running.len() == before {
                break;
            }
        }
        if running.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await?;
    done.sort_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, answer)| answer).collect())
}

#[cfg(test)]
mod tests {
    use super::super::error::Leg;
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn waits_are_bounded_and_double() {
        for failures in 1..100 {
            let most = wait(Repetition::Patient, failures, LONG, u32::MAX).unwrap();
            let bound = Duration::from_millis(250 * (1 << (failures - 1).min(10))).min(MOST);
            assert_eq!(most.as_millis(), bound.as_millis(), "{failures}");
            assert_eq!(wait(Repetition::Patient, failures, LONG, 0), Some(Duration::ZERO));
        }
    }

    #[test]
    fn nothing_is_waited_for_beyond_the_deadline() {
        assert_eq!(wait(Repetition::Patient, 10, Duration::from_secs(1), u32::MAX), None);
        assert_eq!(wait(Repetition::Patient, 1, Duration::ZERO, 0), None);
        assert!(wait(Repetition::Patient, 10, Duration::from_secs(1), 1).is_some());
    }

    #[test]
    fn what_is_broken_is_tried_four_times_and_what_is_refused_once() {
        let attempts = |problem: &Problem| {
            (1..=50).take_while(|failures| wait(repetition(problem), *failures, LONG, 7).is_some()).count() + 1
        };
        assert_eq!(attempts(&Problem::ServerFault), 4);
        assert_eq!(attempts(&Problem::Unreachable(Leg::Connection)), 4);
        assert_eq!(attempts(&Problem::Throttled), 51);
        for never in [Problem::Denied, Problem::Absent, Problem::KeyDisabled, Problem::WrongKey, Problem::Quota("x")] {
            assert_eq!(attempts(&never), 1, "{never:?}");
        }
    }

    #[test]
    fn answers_come_in_order_and_no_more_run_than_allowed() {
        use std::cell::Cell;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (now, peak) = (Cell::new(0), Cell::new(0));
        let call = |index: u64| {
            let (now, peak) = (&now, &peak);
            async move {
                now.set(now.get() + 1);
                peak.set(peak.get().max(now.get()));
                tokio::time::sleep(Duration::from_millis(20 - index % 7)).await;
                now.set(now.get() - 1);
                if index == 99 { Err(index) } else { Ok(index) }
            }
        };
        let answers = runtime.block_on(concurrently(4, (0..25).map(call))).unwrap();
        assert_eq!(answers, (0..25).collect::<Vec<_>>());
        assert_eq!(peak.get(), 4);
        assert_eq!(runtime.block_on(concurrently(4, [1, 99, 2].map(call))), Err(99));
        assert_eq!(runtime.block_on(concurrently(4, [0; 0].map(call))), Ok(Vec::new()));
    }
}
