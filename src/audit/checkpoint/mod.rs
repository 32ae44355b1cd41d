//! Checkpoints: signed statements of where a chain stands, which leave the host while it can still be trusted.
//!
//! A chain that never leaves its host can be cut, or made anew from nothing, by whoever has the host. A checkpoint that was
//! received elsewhere binds the log to hold that record. The form is that of C2SP: a [signed note](https://c2sp.org/signed-note)
//! whose text is laid out as a [checkpoint](https://c2sp.org/tlog-checkpoint); Ed25519 is ring's.
//!
//! - [`note`]: the text, and reading it back; pure; [`key`]: who signs;
//! - [`schedule`]: when one is due; [`deliver`]: where it goes.
//!
//! Specified in `docs/spec/audit-checkpoint.md`.

pub(super) mod deliver;
pub(super) mod key;
pub(super) mod note;
pub(super) mod schedule;

use std::path::Path;
use std::time::SystemTime;

use super::chain::Chain;
use crate::policy::model::Checkpoints;
use deliver::Deliverer;
use schedule::Schedule;

/// The checkpoints of one sink.
pub(super) struct Anchoring {
    rules: Checkpoints,
    schedule: Schedule,
    deliverer: Deliverer,
    failures: Vec<String>,
}

impl Anchoring {
    /// `apart`: what is slow to take a checkpoint does not hold up the writer.
    pub(super) fn new(log: &Path, rules: &Checkpoints, apart: bool) -> Self {
        let (schedule, deliverer) = (Schedule::of_log(log), Deliverer::new(apart));
        Self { rules: rules.clone(), schedule, deliverer, failures: Vec::new() }
    }

    /// The checkpoint to deliver, if one is due. For whoever holds the lock of the log.
    pub(super) fn claim(&mut self, chain: Chain) -> Option<String> {
        if self.deliverer.is_busy() {
            return None;
        }
        match self.schedule.claim(&self.rules, chain, SystemTime::now()) {
            Ok(note) => note,
            Err(error) => {
                self.failures.push(error.to_string());
                None
            }
        }
    }

    /// Takes it where it is to go. Not under the lock.
    pub(super) fn deliver(&self, note: String) {
        self.deliverer.deliver(note, self.rules.to.clone());
    }

    /// What failed could not be written down.
    pub(super) fn tell_later(&mut self, failures: Vec<String>) {
        self.failures = failures;
    }

    /// What failed since this was asked last.
    pub(super) fn failures(&mut self) -> Vec<String> {
        let mut failures = std::mem::take(&mut self.failures);
        failures.append(&mut self.deliverer.failures());
        failures
    }
}
