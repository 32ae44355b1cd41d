//! How sealing begins, goes on, and begins anew where the state was lost.

use std::path::{Path, PathBuf};

use super::seed::{self, Beginning, Seed};
use super::state::{Kept, State, StateFile, digest_of};
use super::{EpochId, EpochKey};
use crate::audit::chain::{Break, Chain, Digest, Stored};
use crate::audit::error::AuditError;
use crate::audit::sink_file::random;

/// What the end of a log and its head say about sealing, where the state is silent.
#[derive(Debug, Clone, Copy)]
pub(in crate::audit) struct Traces {
    /// Where the chain goes on.
    pub(in crate::audit) chain: Chain,
    /// The last record carries a seal.
    pub(in crate::audit) is_sealed: bool,
    /// The last record ends an epoch: the next one has to be of another, and only its writer had the state of that.
    pub(in crate::audit) ends_epoch: bool,
    /// The log has no record, though its chain has: it was moved, and what was in it cannot be asked.
    pub(in crate::audit) is_moved: bool,
}

/// Where the chain stands by what both say: the head file, which anything may have happened to, and the state, whose key is
/// for one record only.
pub(in crate::audit) fn overrule(stored: Stored, kept: &Kept) -> (Stored, Option<Break>) {
    let Kept::State(_, State { chain, .. }) = kept else { return (stored, None) };
    match stored {
        Stored::Nothing => (Stored::Chain(*chain), (chain.seq > 0).then_some(Break::HeadMissing)),
        Stored::Damaged => (Stored::Chain(*chain), Some(Break::HeadDamaged)),
        Stored::Chain(head) if head.stream != chain.stream => {
            (Stored::Chain(*chain), (head.seq > 0).then_some(Break::HeadDamaged))
        }
        Stored::Chain(head) if head.seq > chain.seq => (stored, None),
        Stored::Chain(_) => (Stored::Chain(*chain), None),
    }
}

/// The state with which the next record is sealed; `None` where this log is not sealed.
///
/// # Errors
/// It has to be, and was never begun, or the state is lost and nobody is named who could have the seed of a new epoch.
pub(in crate::audit) fn take_up(
    log: &Path,
    kept: Kept,
    traces: Traces,
    auditor: Option<&str>,
) -> Result<Option<(StateFile, State)>, AuditError> {
    let was_sealed = traces.is_sealed || !matches!(kept, Kept::Nothing);
    if let Kept::State(file, state) = kept
        && !(traces.ends_epoch && state.chain != traces.chain)
        && let Some(state) = state.catch_up(traces.chain)
    {
        if auditor.is_some_and(|auditor| digest_of(auditor) != state.auditor) {
            return Err(AuditError::OtherAuditor { path: log.to_owned() });
        }
        return Ok(Some((file, state)));
    }
    match auditor {
        Some(auditor) if was_sealed || traces.is_moved => {
            begin(log, traces.chain, auditor, None, true).map(|(file, state, _)| Some((file, state)))
        }
        Some(_) => Err(AuditError::NotSealed { path: log.to_owned() }),
        None if was_sealed => Err(AuditError::SealLost { path: log.to_owned() }),
        None => Ok(None),
    }
}

/// The epoch that comes after one that is ended.
pub(in crate::audit) struct Successor {
    pub(in crate::audit) epoch: EpochId,
    pub(in crate::audit) key: EpochKey,
    pub(in crate::audit) auditor: Digest,
}

impl Successor {
    /// Its state, after the last record of the epoch before.
    pub(in crate::audit) fn after(self, chain: Chain) -> State {
        let Self { epoch, key, auditor } = self;
        State { epoch, first: chain.seq.saturating_add(1), chain, key, auditor }
    }
}

/// Makes the seed of an epoch whose first record has this number, and takes it to where the auditor gets it.
///
/// # Errors
/// The recipient is none; the file is there, or cannot be written.
pub(in crate::audit) fn make_seed(
    log: &Path,
    chain: Chain,
    auditor: &str,
    out: Option<&Path>,
    why: Beginning,
) -> Result<(Successor, PathBuf), AuditError> {
    let key = EpochKey::from_bytes(random()?);
    let epoch = key.id();
    let seed = Seed { stream: chain.stream, first: chain.seq.saturating_add(1), key };
    let out = out.map_or_else(
        || {
            let mut path = log.as_os_str().to_owned();
            path.push(format!(".seed-{}.age", epoch.hex()));
            PathBuf::from(path)
        },
        Path::to_owned,
    );
    seed::write(&out, &seed.encrypt(auditor, why)?)?;
    Ok((Successor { epoch, key: seed.key, auditor: digest_of(auditor) }, out))
}

/// Begins an epoch after the record at which the chain stands: the seed goes to the auditor, into `out` or a file beside the
/// log, and only once that is on the disk there is a state.
///
/// # Errors
/// The recipient is none; a file cannot be written.
pub(in crate::audit) fn begin(
    log: &Path,
    chain: Chain,
    auditor: &str,
    out: Option<&Path>,
    lost: bool,
) -> Result<(StateFile, State, PathBuf), AuditError> {
    let why = if lost { Beginning::Lost } else { Beginning::Init };
    let (epoch, out) = make_seed(log, chain, auditor, out, why)?;
    let state = epoch.after(chain);
    let file = StateFile::create(log)?;
    file.write(&state)?;
    file.settle()?;
    Ok((file, state, out))
}
