//! `vouchsafe audit init` on a file sink: sealing begins, begins anew, or goes on for another auditor.

use std::path::Path;

use super::{FileSink, note};
use crate::audit::error::AuditError;
use crate::audit::event::Event;
use crate::audit::record::{Author, Detail, Lists};
use crate::audit::seal::Begun;
use crate::audit::seal::epoch::{begin, make_seed, take_up};
use crate::audit::seal::seed::Beginning;
use crate::audit::seal::state::Kept;

impl FileSink {
    /// Begins sealing with the next record, and writes that: [`crate::audit::seal_log`].
    pub(in crate::audit) fn seal(
        &mut self,
        author: &Author<'_>,
        auditor: &str,
        out: Option<&Path>,
    ) -> Result<Begun, AuditError> {
        self.evidence.auditor = Some(auditor.to_owned());
        self.head.lock()?;
        let begun = self.begin_sealing(author, auditor, out);
        self.head.unlock();
        begun
    }

    fn begin_sealing(&mut self, author: &Author<'_>, auditor: &str, out: Option<&Path>) -> Result<Begun, AuditError> {
        let created = self.follow()?;
        let place = self.place(created)?;
        let lost = match place.kept {
            // A writer that was killed between the end of an epoch and its successor's state.
            Kept::State(_, state) if place.ends_epoch && state.chain != place.chain => true,
            Kept::State(..) => return Err(AuditError::Sealed { path: self.path.clone() }),
            Kept::Damaged => true,
            Kept::Nothing => place.is_sealed,
        };
        let (_, state, seed) = begin(&self.path, place.chain, auditor, out, lost)?;
        // If this fails, the next writer writes it, in its own name.
        self.append(author, &[])?;
        Ok(Begun { epoch: state.epoch.hex(), first: state.first, seed, anew: lost })
    }

    /// Ends the epoch of a sealed log with a record that names the next one, and begins that: [`crate::audit::seal_anew`].
    pub(in crate::audit) fn change_epoch(
        &mut self,
        author: &Author<'_>,
        auditor: &str,
        out: Option<&Path>,
    ) -> Result<Begun, AuditError> {
        // Whoever had it before has no say in it.
        self.evidence.auditor = None;
        self.head.lock()?;
        let begun = self.end_epoch(author, auditor, out);
        self.head.unlock();
        begun
    }

    fn end_epoch(&mut self, author: &Author<'_>, auditor: &str, out: Option<&Path>) -> Result<Begun, AuditError> {
        let created = self.follow()?;
        let place = self.place(created)?;
        let traces = place.traces();
        if take_up(&self.path, place.kept, traces, None)?.is_none() {
            return Err(AuditError::NotSealed { path: self.path.clone() });
        }
        // What has to be said of the log comes before, so that the next record is the last of its epoch.
        let mut last = self.append(author, &[])?;
        last.seq = last.seq.saturating_add(1);
        let (next, seed) = make_seed(&self.path, last, auditor, out, Beginning::Next)?;
        let (epoch, first) = (next.epoch.hex(), last.seq.saturating_add(1));
        let detail = Detail::Epoch { id: epoch.clone(), first, auditor: Some(auditor.to_owned()) };
        let (none, reason) = (Lists::default(), "from the next record on records are sealed by the keys of this epoch");
        let ends = note(author, Event::SealingEnded, reason, &detail, &none, self.now());
        self.append_until(author, std::slice::from_ref(&ends), Some(next))?;
        self.evidence.auditor = Some(auditor.to_owned());
        self.append(author, &[])?;
        Ok(Begun { epoch, first, seed, anew: false })
    }
}
