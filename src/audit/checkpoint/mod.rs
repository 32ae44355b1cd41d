//! Checkpoints: signed statements of where a chain stands, which leave the host while it can still be trusted.
//!
//! A chain that never leaves its host can be cut, or made anew from nothing, by whoever has the host. A checkpoint that was
//! received elsewhere binds the log to hold that record. The form is that of C2SP: a [signed note](https://c2sp.org/signed-note)
//! whose text is laid out as a [checkpoint](https://c2sp.org/tlog-checkpoint); Ed25519 is ring's.
//!
//! - [`note`]: the text, and reading it back; pure; [`key`]: who signs;
//! - [`schedule`]: when one is due; [`deliver`]: where it goes; [`courier`]: who takes it to a service.
//!
//! Specified in `docs/spec/audit-checkpoint.md`.

pub(super) mod courier;
pub(super) mod deliver;
pub(super) mod key;
pub(super) mod note;
pub(super) mod schedule;

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::chain::Chain;
use super::error::AuditError;
use crate::policy::model::{Anchor, Checkpoints};
use courier::Courier;
use deliver::Deliverer;
use schedule::Schedule;

/// The checkpoints of one sink that go to places of one kind: those that any writer takes along, or parameters.
pub(super) struct Anchoring {
    rules: Checkpoints,
    schedule: Schedule,
    deliverer: Deliverer,
    failures: Vec<String>,
}

impl Anchoring {
    /// Those that any writer takes along. `apart`: what is slow to take a checkpoint does not hold up the writer.
    pub(super) fn of_log(log: &Path, rules: &Checkpoints, apart: bool) -> Option<Self> {
        let rules = places(rules, |anchor| !is_parameter(anchor))?;
        let (schedule, deliverer) = (Schedule::of_log(log), Deliverer::new(apart, None));
        Some(Self { rules, schedule, deliverer, failures: Vec::new() })
    }

    /// Those that go to parameters, for a writer that has somebody who takes them there.
    pub(super) fn of_parameters(
        log: &Path,
        rules: &Checkpoints,
        apart: bool,
        courier: &Arc<dyn Courier>,
    ) -> Option<Self> {
        let rules = places(rules, is_parameter)?;
        let deliverer = Deliverer::new(apart, Some(Arc::clone(courier)));
        Some(Self { rules, schedule: Schedule::of_parameters(log), deliverer, failures: Vec::new() })
    }

    /// Where they go, as the policy writes it.
    pub(super) fn places(&self) -> impl Iterator<Item = String> {
        self.rules.to.iter().map(Anchor::word)
    }

    /// The checkpoint of now, due or not. For whoever holds the lock of the log.
    ///
    /// # Errors
    /// It cannot be signed, or not be noted.
    pub(super) fn make(&mut self, chain: Chain) -> Result<String, AuditError> {
        self.schedule.make(chain, SystemTime::now())
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

    /// What failed since this was asked last.
    pub(super) fn failures(&mut self) -> Vec<String> {
        let mut failures = std::mem::take(&mut self.failures);
        failures.append(&mut self.deliverer.failures());
        failures
    }
}

/// The same rules for those of their places that `are`; `None` if there is none.
fn places(rules: &Checkpoints, are: impl Fn(&Anchor) -> bool) -> Option<Checkpoints> {
    let to: Vec<Anchor> = rules.to.iter().filter(|anchor| are(anchor)).cloned().collect();
    (!to.is_empty()).then_some(Checkpoints { to, ..*rules })
}

fn is_parameter(anchor: &Anchor) -> bool {
    matches!(anchor, Anchor::Parameter(_))
}
