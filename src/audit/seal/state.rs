//! What the host keeps of sealing, in `<log>.seal`: where the chain stands, and the key for what comes next.
//!
//! It is overwritten in place with a line of fixed width that is shorter than a sector, so that the key before does not stay
//! behind in a file of its own, and so that it is the old one or the new one after a power cut. It is not synced: a state that
//! is behind its log is evolved to the log's end. Whoever holds the lock of the head file may touch it, nobody else.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{EpochId, EpochKey};
use crate::audit::chain::{Chain, Digest, StreamId, push_hex, take_hex};
use crate::audit::error::AuditError;
use crate::audit::head::{Making, open_checked_as};

/// Whom the seed was encrypted to: SHA-256 of the recipient.
pub(in crate::audit) fn digest_of(auditor: &str) -> Digest {
    Digest::of(auditor.as_bytes())
}

/// How sealing stands after the last record.
pub(in crate::audit) struct State {
    pub(in crate::audit) epoch: EpochId,
    /// The number of the first record of the epoch.
    pub(in crate::audit) first: u64,
    /// The last record, sealed or, before the first of the epoch, not.
    pub(in crate::audit) chain: Chain,
    /// For the record after that.
    pub(in crate::audit) key: EpochKey,
    /// Who has the seed: [`digest_of`] the recipient.
    pub(in crate::audit) auditor: Digest,
}

impl State {
    /// No record of the epoch is written yet.
    pub(in crate::audit) fn is_fresh(&self) -> bool {
        self.chain.seq.checked_add(1) == Some(self.first)
    }

    /// Evolves to where the log is: its last writer was killed, or the power cut, before the state was overwritten. `None` if
    /// that is too far, or the log is of another chain.
    pub(in crate::audit) fn catch_up(mut self, to: Chain) -> Option<Self> {
        if self.chain.stream != to.stream {
            return None;
        }
        let steps = to.seq.checked_sub(self.chain.seq).filter(|steps| *steps <= FARTHEST)?;
        for _ in 0..steps {
            self.key = self.key.next();
        }
        self.chain = to;
        Some(self)
    }
}

/// More records than are written before the kernel writes a page of the state back, many times over; a few seconds' work.
const FARTHEST: u64 = 1 << 22;

/// The state file of a log as it was found.
pub(in crate::audit) enum Kept {
    /// There is none.
    Nothing,
    /// It makes no sense.
    Damaged,
    /// It was overwritten by the last writer.
    State(StateFile, State),
}

/// The opened file.
pub(in crate::audit) struct StateFile {
    path: PathBuf,
    file: File,
}

impl StateFile {
    pub(in crate::audit) fn path_of(log: &Path) -> PathBuf {
        let mut path = log.as_os_str().to_owned();
        path.push(".seal");
        path.into()
    }

    /// Opens and reads it.
    ///
    /// # Errors
    /// It is not ours alone, or cannot be read.
    pub(in crate::audit) fn look(log: &Path) -> Result<Kept, AuditError> {
        let path = Self::path_of(log);
        let Some((file, _)) = open_checked_as(&path, rustix::fs::OFlags::empty(), Making::Never)? else {
            return Ok(Kept::Nothing);
        };
        let this = Self { path, file };
        let mut text = Zeroizing::new([0; LINE + 1]);
        let mut read = 0;
        while let Some(rest) = text.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match this.file.read_at(rest, read as u64) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(this.failed("read", error)),
            }
        }
        Ok(match text.get(..read).and_then(parse) {
            Some(state) => Kept::State(this, state),
            None => Kept::Damaged,
        })
    }

    /// Makes the file, which is empty until the first [`Self::write`].
    ///
    /// # Errors
    /// It cannot be made, or is not ours alone.
    pub(in crate::audit) fn create(log: &Path) -> Result<Self, AuditError> {
        let path = Self::path_of(log);
        let opened = open_checked_as(&path, rustix::fs::OFlags::empty(), Making::IfAbsent)?;
        let Some((file, _)) = opened else {
            return Err(AuditError::File { path, doing: "create", error: io::ErrorKind::NotFound.into() });
        };
        Ok(Self { path, file })
    }

    /// Overwrites the state.
    ///
    /// # Errors
    /// It cannot be written.
    pub(in crate::audit) fn write(&self, state: &State) -> Result<(), AuditError> {
        self.file.write_all_at(&render(state), 0).map_err(|error| self.failed("write", error))
    }

    /// What was damaged may be longer than a state is; and a new state is on the disk before its seed counts.
    ///
    /// # Errors
    /// A system call fails.
    pub(in crate::audit) fn settle(&self) -> Result<(), AuditError> {
        self.file.set_len(LINE as u64).map_err(|error| self.failed("mend", error))?;
        self.file.sync_all().map_err(|error| self.failed("sync", error))
    }

    fn failed(&self, doing: &'static str, error: io::Error) -> AuditError {
        AuditError::File { path: self.path.clone(), doing, error }
    }
}

const MAGIC: &[u8] = b"vouchsafe-audit-seal/1 ";
/// Magic, epoch, first number, stream, number, hash, key, auditor, check.
const LINE: usize = MAGIC.len() + 17 + 17 + 33 + 17 + 65 + 65 + 65 + 16 + 1;
const _: () = assert!(LINE < 512, "it fits into a sector");

fn render(state: &State) -> Zeroizing<Vec<u8>> {
    // As long as it gets: a buffer that grows leaves its key behind.
    let mut out = Zeroizing::new(Vec::with_capacity(LINE));
    out.extend_from_slice(MAGIC);
    let words: [&[u8]; 7] = [
        &state.epoch.0,
        &state.first.to_be_bytes(),
        &state.chain.stream.0,
        &state.chain.seq.to_be_bytes(),
        &state.chain.hash.0,
        state.key.expose(),
        &state.auditor.0,
    ];
    for word in words {
        push_hex(&mut out, word);
        out.push(b' ');
    }
    let check = Digest::of(&out);
    push_hex(&mut out, check.0.get(..8).unwrap_or_default());
    out.push(b'\n');
    out
}

fn parse(text: &[u8]) -> Option<State> {
    let (checked, check) = take_hex::<8>(text.strip_suffix(b"\n")?)?;
    if Digest::of(checked).0.get(..8) != Some(check.as_slice()) {
        return None;
    }
    let (rest, auditor) = take_hex::<32>(checked.strip_suffix(b" ")?)?;
    let (rest, key) = take_hex::<32>(rest.strip_suffix(b" ")?)?;
    let key = EpochKey::from_bytes(key);
    let (rest, hash) = take_hex::<32>(rest.strip_suffix(b" ")?)?;
    let (rest, seq) = take_hex::<8>(rest.strip_suffix(b" ")?)?;
    let (rest, stream) = take_hex::<16>(rest.strip_suffix(b" ")?)?;
    let (rest, first) = take_hex::<8>(rest.strip_suffix(b" ")?)?;
    let (rest, epoch) = take_hex::<8>(rest.strip_suffix(b" ")?)?;
    (rest == MAGIC).then_some(State {
        epoch: EpochId(epoch),
        first: u64::from_be_bytes(first),
        chain: Chain { stream: StreamId(stream), seq: u64::from_be_bytes(seq), hash: Digest(hash) },
        key,
        auditor: Digest(auditor),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(seq: u64) -> State {
        let key = EpochKey::from_bytes([7; 32]);
        let chain = Chain { stream: StreamId([3; 16]), seq, hash: Digest([9; 32]) };
        State { epoch: key.id(), first: 5, chain, key, auditor: digest_of("age1x") }
    }

    #[test]
    fn a_state_with_any_byte_changed_is_none() {
        let text = render(&state(77)).to_vec();
        assert_eq!(text.len(), LINE);
        let read = parse(&text).unwrap();
        assert_eq!((read.epoch, read.first, read.chain), (state(77).epoch, 5, state(77).chain));
        assert_eq!((read.key.expose(), read.auditor), (state(77).key.expose(), digest_of("age1x")));
        for at in 0..text.len() {
            let mut text = text.clone();
            text[at] ^= 1;
            assert!(parse(&text).is_none(), "byte {at}");
        }
        assert!(parse(b"").is_none());
    }

    #[test]
    fn a_state_catches_up_with_its_log_and_never_goes_back() {
        let to = |seq| Chain { seq, hash: Digest([1; 32]), ..state(0).chain };
        let two = state(4).catch_up(to(6)).unwrap();
        assert_eq!(two.chain, to(6));
        assert_eq!(two.key.expose(), state(0).key.next().next().expose());
        assert!(state(4).is_fresh() && !two.is_fresh());
        assert!(state(4).catch_up(to(3)).is_none());
        assert!(state(4).catch_up(to(5 + FARTHEST)).is_none());
        assert!(state(4).catch_up(Chain { stream: StreamId([4; 16]), ..to(6) }).is_none());
    }
}
