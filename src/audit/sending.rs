//! Checkpoints of an [`Auditor`] that somebody takes to parameters, and those that are sent because somebody asks for it.

use std::path::PathBuf;
use std::sync::Arc;

use super::record::Author;
use super::{AuditError, Auditor, Courier, OpenSink};

/// Where the checkpoint of a log was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The log.
    pub log: PathBuf,
    /// Where it was to go, as the policy writes it.
    pub to: Vec<String>,
    /// Where it did not, and why.
    pub failures: Vec<String>,
}

impl OpenSink {
    pub(super) fn send_by(&mut self, courier: &Arc<dyn Courier>) {
        if let Self::File(file) = self {
            file.send_by(courier);
        }
    }
}

impl Auditor {
    /// With somebody who takes checkpoints to parameters, if there is one: for a command that nobody's start waits for.
    #[must_use]
    pub fn with_courier(mut self, courier: Option<&Arc<dyn Courier>>) -> Self {
        if let Some(courier) = courier {
            self.sinks.iter_mut().for_each(|sink| sink.send_by(courier));
        }
        self
    }

    /// Takes the checkpoint of now of each log to where its checkpoints go, due or not. A log that rests is anchored by it.
    /// What fails is written down, too.
    ///
    /// # Errors
    /// A checkpoint cannot be made, or a sink did not take the record of what failed.
    pub fn send_checkpoints(&mut self) -> Result<Vec<Sent>, AuditError> {
        let author = Author { context: &self.context, access: &self.access.0 };
        let mut sent = Vec::new();
        for sink in &mut self.sinks {
            let OpenSink::File(file) = sink else { continue };
            let to: Vec<String> = file.destinations().collect();
            if !to.is_empty() {
                let failures = file.send_now(&author)?;
                sent.push(Sent { log: file.path().to_owned(), to, failures });
            }
        }
        if let (false, Some(first)) = (self.mirrors.is_empty(), self.sinks.first_mut()) {
            self.mirrors.repeat(&first.take_lines());
        }
        Ok(sent)
    }
}
