//! The system whose credential is rotated, as the rotation sees it.

use std::fmt;
use std::time::Instant;

use crate::error::{Cause, Class};
use crate::secret::Secret;

/// A system that takes a credential: a database, an API behind a program of the operator's. Every step is safe to repeat,
/// because the one before may have been killed after its work and before its answer.
pub trait Target {
    /// Until when the call that comes next has to be done, for a target that waits for somebody else.
    fn set_deadline(&mut self, _deadline: Instant) {}

    /// The whole value of the new version: `generated` in the place that the current value has for it, and where users
    /// alternate, with the other user. Changes nothing at the target.
    ///
    /// # Errors
    /// The current value is not one that a credential could be put into.
    fn compose(&mut self, current: Option<&Secret>, generated: Secret) -> Result<Secret, TargetError>;

    /// Makes the target accept `pending`. A target that accepts it already is left as it is. Otherwise `current` has to
    /// prove itself first: whoever can write to the store must not be able to point a rotation at a credential that the
    /// store never held (the confused deputy). Where users alternate, `current`'s user is not altered.
    ///
    /// # Errors
    /// The current credential does not work, or the target refuses or cannot be reached.
    fn apply(&mut self, current: Option<&Secret>, pending: &Secret) -> Result<(), TargetError>;

    /// Uses `value` as a consumer would, and checks that it can do what it must.
    ///
    /// # Errors
    /// It cannot, or the target cannot be reached.
    fn verify(&mut self, value: &Secret) -> Result<(), TargetError>;

    /// The target accepts `previous` no longer, if it ever did: it may be one that is given up before it was applied.
    /// `current` must keep working.
    ///
    /// # Errors
    /// The target refuses, or cannot be reached.
    fn retire(&mut self, previous: &Secret, current: &Secret) -> Result<(), TargetError>;

    /// What a person should know of the steps since the last call, and no record holds: that nothing could be proven, or
    /// what a program said, masked. For standard error, line by line; already safe to print.
    fn remarks(&mut self) -> Vec<String> {
        Vec::new()
    }
}

/// Nothing has to accept the value: it is only generated.
#[derive(Debug, Clone, Copy)]
pub struct NoTarget;

impl Target for NoTarget {
    fn compose(&mut self, _current: Option<&Secret>, generated: Secret) -> Result<Secret, TargetError> {
        Ok(generated)
    }

    fn apply(&mut self, _current: Option<&Secret>, _pending: &Secret) -> Result<(), TargetError> {
        Ok(())
    }

    fn verify(&mut self, _value: &Secret) -> Result<(), TargetError> {
        Ok(())
    }

    fn retire(&mut self, _previous: &Secret, _current: &Secret) -> Result<(), TargetError> {
        Ok(())
    }
}

/// Why a target did not do a step. Sentences of ours: what a database or a program says may cite the value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetError {
    /// What failed, on what object.
    pub problem: String,
    /// A command to run or a line to write.
    pub hint: Option<String>,
    /// Nobody can say whether the target took the change: an answer was lost.
    pub is_unsettled: bool,
    /// Somebody else rotates it at this moment.
    pub is_busy: bool,
    /// The target was asked, and said no to the credential itself: no lost connection, no check that failed.
    pub is_refusal: bool,
}

impl TargetError {
    /// A failure that is settled: the target is as it was.
    #[must_use]
    pub fn new(problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), ..Self::default() }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hinting(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl Cause for TargetError {
    fn class(&self) -> Class {
        if self.is_busy { Class::Busy } else { Class::Target }
    }

    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }

    fn is_unsettled(&self) -> bool {
        self.is_unsettled
    }
}
