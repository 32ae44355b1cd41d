//! Why a rotation cannot go where it is wanted, and every other failure of `rotate` that is no store's and no target's.

use std::fmt;

use super::step::StepName;
use crate::audit::AuditError;
use crate::error::{Cause, Class, Error};
use crate::name::VariableName;

/// There is no way from the state of an item to what is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stuck {
    /// There is no current version.
    Absent,
    /// The pending version is the first one: there is nothing to go back to.
    FirstVersion,
    /// There is no previous version.
    NoPrevious,
    /// The pending version works, so it is not given up.
    PendingWorks,
    /// Another step is next.
    NotNext {
        /// The step that was asked for.
        wanted: StepName,
        /// The one that is next.
        next: StepName,
    },
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => write!(f, "there is no current version to rotate"),
            Self::FirstVersion => write!(f, "the pending version is its first one: there is nothing to go back to"),
            Self::NoPrevious => write!(f, "there is no previous version"),
            Self::PendingWorks => write!(f, "the pending version works, so it is not given up"),
            Self::NotNext { wanted, next: StepName::Create } => {
                write!(f, "there is no pending version to {}: `create` is next", wanted.word())
            }
            Self::NotNext { wanted, next } => {
                write!(f, "`{}` is not next while a version is pending: `{}` is", wanted.word(), next.word())
            }
        }
    }
}

/// Why a rotation did not go on, for a reason of its own.
#[derive(Debug)]
pub enum Failure {
    /// The audit record is about something else.
    NotCovered,
    /// There is no way from here.
    Stuck(Stuck),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotCovered => write!(f, "the audit record does not cover this rotation"),
            Self::Stuck(stuck) => stuck.fmt(f),
        }
    }
}

impl Cause for Failure {
    fn class(&self) -> Class {
        match self {
            Self::NotCovered => Class::Internal,
            Self::Stuck(Stuck::NotNext { .. } | Stuck::PendingWorks) => Class::Usage,
            Self::Stuck(Stuck::Absent | Stuck::FirstVersion | Stuck::NoPrevious) => Class::Missing,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Stuck(Stuck::Absent) => Some("vouchsafe set NAME   # writes the first value".into()),
            Self::Stuck(Stuck::FirstVersion) => Some("vouchsafe rotate --resume NAME   # goes forward instead".into()),
            Self::Stuck(Stuck::NotNext { next, .. }) => {
                Some(format!("vouchsafe rotate --only-step {} NAME", next.word()))
            }
            Self::Stuck(Stuck::PendingWorks) => {
                Some("vouchsafe rotate --resume NAME   # or --rollback, which the target has part in".into())
            }
            Self::NotCovered | Self::Stuck(Stuck::NoPrevious) => None,
        }
    }
}

/// The name is bound, and not rotated.
#[derive(Debug)]
pub struct NoRotation {
    /// The variable.
    pub name: VariableName,
    /// Another binding of the same item, which is.
    pub sibling: Option<VariableName>,
}

impl fmt::Display for NoRotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the policy does not say how `{}` is rotated", self.name)
    }
}

impl Cause for NoRotation {
    fn class(&self) -> Class {
        Class::Usage
    }

    fn hint(&self) -> Option<String> {
        Some(match &self.sibling {
            Some(sibling) => format!("vouchsafe rotate {sibling}   # rotates the same item"),
            None => format!("add to the policy: [secrets.{}.rotate]", self.name),
        })
    }
}

/// The run was ended by a signal, between two steps.
#[derive(Debug, Clone, Copy)]
pub struct Interrupted {
    /// The signal.
    pub signal: i32,
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ended by signal {}", self.signal)
    }
}

impl Cause for Interrupted {
    fn class(&self) -> Class {
        Class::Internal
    }
}

/// The step was done, and the log does not say so.
#[derive(Debug)]
pub struct Unrecorded {
    /// The step.
    pub step: &'static str,
    /// Why the log does not.
    pub error: AuditError,
}

impl fmt::Display for Unrecorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` was done, but not written down as done: {}", self.step, self.error)
    }
}

impl Cause for Unrecorded {
    fn class(&self) -> Class {
        Class::Audit
    }

    fn hint(&self) -> Option<String> {
        self.error.hint()
    }
}

/// What a run could not do, said once for all secrets: the first failure, and the command that finishes the rest.
#[derive(Debug)]
pub struct Unfinished {
    /// The secret that failed first, and why.
    pub first: (VariableName, Error),
    /// Every secret that is left to do.
    pub left: Vec<VariableName>,
    /// The command that does it.
    pub command: String,
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.first.0, self.first.1)?;
        match self.left.as_slice() {
            [] => Ok(()),
            left => write!(f, "; left to do: {}", listed(left)),
        }
    }
}

impl Cause for Unfinished {
    fn class(&self) -> Class {
        self.first.1.class()
    }

    fn hint(&self) -> Option<String> {
        let own = self.first.1.hint();
        if self.left.is_empty() {
            return own;
        }
        Some(match own {
            Some(own) => format!("{own}; then: {}", self.command),
            None => self.command.clone(),
        })
    }

    fn is_unsettled(&self) -> bool {
        self.first.1.is_unsettled()
    }
}

pub(super) fn listed(names: &[VariableName]) -> String {
    names.iter().map(VariableName::as_str).collect::<Vec<_>>().join(", ")
}
