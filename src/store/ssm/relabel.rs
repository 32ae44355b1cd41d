//! Moving labels: `LabelParameterVersion`, `UnlabelParameterVersion`. Both say what is to be, so repeating them is harmless.

use aws_smithy_runtime_api::client::result::SdkError;
use rustix::time::{ClockId, clock_gettime};

use std::time::Duration;

use super::labels::{Label, Move};
use super::{Fault, Refusal};
use crate::store::aws::Calls;
use crate::store::aws::error::{Asked, Problem};

/// This process may write until then. It counts the time that the machine sleeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Right {
    /// What the claims of this process say.
    pub(super) token: String,
    /// The version of the newest of them.
    pub(super) claim: u64,
    until: Duration,
}

impl Right {
    /// From `start` on, for `length`.
    pub(super) fn new(token: String, claim: u64, start: Duration, length: Duration) -> Self {
        Self { token, claim, until: start.saturating_add(length) }
    }

    /// How long it lasts.
    pub(super) fn left(&self) -> Duration {
        self.until.saturating_sub(since_boot())
    }

    /// Whether it has not ended.
    pub(super) fn is_open(&self) -> bool {
        !self.left().is_zero()
    }
}

/// Time since this machine started, with that in which it slept: a right does not sleep.
pub(super) fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Looked at before every single attempt: between two of them a process may have been stopped for hours.
pub(super) fn refused<E, R>(right: Option<&Right>) -> Result<(), SdkError<E, R>> {
    match right {
        Some(right) if !right.is_open() => Err(SdkError::construction_failure("the right to write has ended")),
        _ => Ok(()),
    }
}

/// Moves the labels of one parameter.
#[derive(Clone, Copy)]
pub(super) struct Relabel<'r, 'a> {
    pub(super) calls: &'r Calls<'a>,
    /// `None` where none is needed.
    pub(super) right: Option<&'r Right>,
    pub(super) name: &'r str,
}

impl Relabel<'_, '_> {
    /// In this order.
    pub(super) async fn all(&self, moves: &[Move]) -> Result<(), Fault> {
        for one in moves {
            let done = match one {
                Move::Put(label, version) => self.put(*label, *version).await,
                Move::Take(labels, version) => self.take(labels, *version).await,
            };
            match (done, self.right) {
                (Err(_), Some(right)) if !right.is_open() => return Err(Refusal::RightEnded.into()),
                (done, _) => done?,
            }
        }
        Ok(())
    }

    async fn put(&self, label: Label, version: u64) -> Result<(), Fault> {
        let asked = self.asked("ssm:LabelParameterVersion");
        let number = number(version)?;
        let client = self.calls.ssm();
        let call = async || {
            refused(self.right)?;
            let request = client.label_parameter_version().name(self.name).parameter_version(number);
            request.labels(label.word()).send().await
        };
        self.calls.at_the_deadline_say(Problem::Unsettled.of(&asked));
        let answer = self.calls.read(&asked, call).await?;
        // A label that the service does not take comes back with status 200.
        if answer.invalid_labels.unwrap_or_default().is_empty() {
            Ok(())
        } else {
            Err(Problem::Invalid("it does not take a label of ours").of(&asked).into())
        }
    }

    async fn take(&self, labels: &[Label], version: u64) -> Result<(), Fault> {
        let asked = self.asked("ssm:UnlabelParameterVersion");
        let number = number(version)?;
        let client = self.calls.ssm();
        let call = async || {
            refused(self.right)?;
            let request = client.unlabel_parameter_version().name(self.name).parameter_version(number);
            let labels = labels.iter().map(|label| label.word().to_owned()).collect();
            request.set_labels(Some(labels)).send().await
        };
        self.calls.at_the_deadline_say(Problem::Unsettled.of(&asked));
        // What it calls invalid here are labels that were not there any more.
        self.calls.read(&asked, call).await?;
        Ok(())
    }

    fn asked(&self, action: &'static str) -> Asked {
        Asked { action, resource: self.name.to_owned() }
    }
}

fn number(version: u64) -> Result<i64, Problem> {
    i64::try_from(version).map_err(|_| Problem::BadAnswer("a version is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_ends_and_then_no_attempt_is_made() {
        let now = since_boot();
        let minutes = |count: u64| Duration::from_secs(60 * count);
        let right = |start, length| Right::new("t".into(), 1, start, length);
        let refuses = |right: Option<&Right>| refused::<(), ()>(right).is_err();
        let open = right(now, minutes(5));
        assert!(open.is_open() && open.left() <= minutes(5) && open.left() > minutes(4));
        assert!(!refuses(Some(&open)) && !refuses(None));
        for ended in [right(now, Duration::ZERO), right(now.saturating_sub(minutes(6)), minutes(5))] {
            // A machine that started less than six minutes ago has none that old.
            assert!(now < minutes(6) || (!ended.is_open() && refuses(Some(&ended))), "{ended:?}");
        }
    }
}
