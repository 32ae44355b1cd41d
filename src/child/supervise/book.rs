//! Where a supervisor writes down what becomes of its children: the audit itself, or the agent that writes it.

use crate::audit::{Access, Auditor, End, Event, Outcome};
use crate::error::Error;

/// Why a child is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// What it was given has changed.
    Changed,
    /// It ended soon after a change; it gets this one of so many more starts.
    Again {
        /// The how manieth.
        start: u32,
        /// How many there can be.
        of: u32,
    },
    /// It ended soon after a change; what is started is what was before.
    Back,
}

impl Why {
    /// The reason in a record.
    #[must_use]
    pub fn text(self) -> String {
        match self {
            Self::Changed => "the injected secrets have changed".to_owned(),
            Self::Again { start, of } => format!("it ended soon after a change; start {start} of {of}"),
            Self::Back => "it ended soon after a change; back to what ran before".to_owned(),
        }
    }
}

/// Writes down what becomes of a child, under the access that it was started with.
pub trait Book {
    /// The child has ended.
    ///
    /// # Errors
    /// It is not written down.
    fn child_exited(&mut self, access: &Access, pid: u32, end: End) -> Result<(), Error>;

    /// The child is stopped next, or has ended, and another one is started. Until this has returned, it may not be.
    ///
    /// # Errors
    /// It is not written down.
    fn restarting(&mut self, access: &Access, why: Why) -> Result<(), Error>;
}

impl Book for Auditor {
    fn child_exited(&mut self, access: &Access, pid: u32, end: End) -> Result<(), Error> {
        self.belong_to(access);
        Ok(Self::child_exited(self, pid, end)?)
    }

    fn restarting(&mut self, access: &Access, why: Why) -> Result<(), Error> {
        self.belong_to(access);
        Ok(self.record(Event::ChildRestarting, Outcome::Allowed, Some(&why.text()), &[])?)
    }
}
