//! Where the next record of a file sink goes on from: by the head file, the log's own end, the logs that were moved away, and the
//! state of sealing.

use rustix::fs::OFlags;

use super::{FileSink, new_stream};
use crate::audit::chain::{Break, Chain, Stored, Tail, resume};
use crate::audit::end::{End, LOOK_BACK, read_end, read_last};
use crate::audit::error::AuditError;
use crate::audit::head::{Boot, Head, Identity, open_checked};
use crate::audit::rotated::last_moved;
use crate::audit::seal::epoch::{Traces, overrule};
use crate::audit::seal::state::{Kept, StateFile};

/// Where the next record goes on from.
pub(super) struct Place {
    pub(super) stored: Stored,
    pub(super) head_is_damaged: bool,
    pub(super) chain: Chain,
    pub(super) broken: Option<Break>,
    pub(super) end: End,
    /// The last record is sealed, by its own word or the head's.
    pub(super) is_sealed: bool,
    /// The last record ends an epoch, as far as it was looked at.
    pub(super) ends_epoch: bool,
    pub(super) kept: Kept,
}

impl Place {
    pub(super) fn traces(&self) -> Traces {
        Traces {
            chain: self.chain,
            is_sealed: self.is_sealed,
            ends_epoch: self.ends_epoch,
            is_moved: self.end.chain.is_none() && self.chain.seq > 0,
        }
    }
}

impl FileSink {
    /// Where the next record goes on from, by the head, the log's own end, and the state of sealing.
    pub(super) fn place(&mut self, created: bool) -> Result<Place, AuditError> {
        let (stored, head) = self.head.read()?;
        let (log, size) = self.measure()?;
        let end = self.end(size, head.as_ref())?;
        // A file that never was a log of ours: a mistyped path must not spoil whatever it names.
        if stored == Stored::Nothing && end.chain.is_none() && size > 0 {
            return Err(AuditError::NoRecord { path: self.path.clone(), bytes: size });
        }
        let head_is_damaged = stored == Stored::Damaged;
        let kept = StateFile::look(&self.path)?;
        let (stored, overruled) = overrule(stored, &kept);
        let is_new = created || head.is_none_or(|head| head.log != log || head.bytes == 0);
        let mut moved = End::default();
        let (stored, gone) = match is_new && end.chain.is_none() {
            true => self.catch_up(stored, head.as_ref(), &kept, &mut moved)?,
            false => (stored, None),
        };
        let (chain, broken) = resume(stored, end.chain, is_new);
        let chain = match chain {
            Some(chain) => chain,
            None => Chain::begin(new_stream()?),
        };
        let ends_epoch = end.ends_epoch || moved.ends_epoch;
        let is_sealed = end.is_sealed || moved.is_sealed || head.is_some_and(|head| head.epoch.is_some());
        let broken = gone.or(broken).or(overruled);
        Ok(Place { stored, head_is_damaged, chain, broken, end, is_sealed, ends_epoch, kept })
    }

    /// A log that was moved away may hold more than a head that a power cut has set back, or that a killed writer never wrote.
    /// `moved` gets the end of it.
    fn catch_up(
        &self,
        stored: Stored,
        head: Option<&Head>,
        kept: &Kept,
        moved: &mut End,
    ) -> Result<(Stored, Option<Break>), AuditError> {
        let Stored::Chain(chain) = stored else { return Ok((stored, None)) };
        if chain.seq == 0 {
            return Ok((stored, None));
        }
        if let Some(end) = last_moved(&self.path, head.map(|head| head.log), chain)? {
            let last = end.chain.unwrap_or(chain);
            *moved = end;
            return Ok((Stored::Chain(last), None));
        }
        let since_start = head.is_some_and(|head| match (head.boot, Boot::now()) {
            (Some(then), Some(now)) => then == now,
            (Some(_) | None, None) | (None, Some(_)) => true,
        });
        // An epoch that was begun for the next record, of which there is none yet: the numbers were left out then.
        let is_begun = matches!(kept, Kept::State(_, state) if state.is_fresh() && state.chain == chain);
        Ok(match since_start {
            true => (stored, None),
            false if is_begun => (stored, Some(Break::LogGone)),
            false => (Stored::Chain(chain.leave_out()), Some(Break::LogGone)),
        })
    }

    /// Opens the log again if its name no longer stands for the opened one; says whether it had to be made.
    pub(super) fn follow(&mut self) -> Result<bool, AuditError> {
        let (opened, _) = self.measure()?;
        if rustix::fs::lstat(&self.path).is_ok_and(|stat| Identity::of(&stat) == opened) {
            return Ok(false);
        }
        let (log, created) = open_checked(&self.path, OFlags::APPEND)?;
        self.log = log;
        Ok(created)
    }

    pub(super) fn measure(&self) -> Result<(Identity, u64), AuditError> {
        let stat = rustix::fs::fstat(&self.log).map_err(|errno| self.failed("look at", errno))?;
        Ok((Identity::of(&stat), u64::try_from(stat.st_size).unwrap_or_default()))
    }

    /// The end of the log. The last bytes are enough where they are what the head says; else lines are looked at as a
    /// whole, backwards.
    fn end(&self, size: u64, head: Option<&Head>) -> Result<End, AuditError> {
        if size == 0 {
            return Ok(End::default());
        }
        let last = read_last(&self.log, size, GLANCE).map_err(|error| self.failed("read", error))?;
        let tail = last.strip_suffix(b"\n").and_then(Tail::read);
        if let (Some(tail), Some(head)) = (tail, head)
            && tail.chain == head.chain
        {
            return Ok(End { chain: Some(tail.chain), is_sealed: tail.seal.is_some(), ..End::default() });
        }
        let end = read_end(&self.log, size).map_err(|error| self.failed("read", error))?;
        end.ok_or_else(|| AuditError::NoRecord { path: self.path.clone(), bytes: LOOK_BACK })
    }
}

/// More than the end of any record.
const GLANCE: u64 = 512;
