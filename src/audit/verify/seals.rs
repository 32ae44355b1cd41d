//! Whether each record carries the seal of the key that is for it. The auditor's seeds are the only thing that can tell.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::report::FindingKind;
use crate::audit::chain::{Chain, StreamId, Tail};
use crate::audit::seal::seed::{LARGEST, Seed};
use crate::audit::seal::{EpochId, EpochKey};
use crate::checked_file::plain_io;
use crate::error::{Cause, Class};
use crate::name::show;
use crate::policy::model::IdentitySource;
use crate::secret::Secret;
use crate::store::identity::{Identities, IdentityError};
use crate::store::sealed::{self, Opening, SealedErrorKind};

/// Keys that are skipped, over all, for records that are missing or were given up: a minute's work. A record that claims to be
/// further away must not keep `verify` busy for ever.
const FARTHEST: u64 = 100_000_000;

/// The seeds of one or several epochs.
pub struct Seals {
    /// By chain, and in each by its first record.
    epochs: Vec<Epoch>,
    /// Chains of which an epoch began whose seed is not there.
    unknown: Vec<StreamId>,
    /// What ended epochs have said: the record that was the last, and the epoch that begins after it.
    expected: Vec<(StreamId, u64, String)>,
    /// A chain without a seed was told of.
    is_astray: bool,
    left: u64,
}

struct Epoch {
    stream: StreamId,
    first: u64,
    id: EpochId,
    /// The record that `key` is for.
    at: u64,
    key: EpochKey,
}

/// What a record's seal turned out to be.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) is_proven: bool,
    pub(super) finding: Option<FindingKind>,
}

impl Seals {
    /// Reads the seeds of these files, with the auditor's identities. A seed that was decrypted elsewhere is taken as it is.
    ///
    /// # Errors
    /// A file cannot be read, or opened with these identities, or holds no seed.
    pub fn load(seeds: &[PathBuf], identities: &[PathBuf]) -> Result<Self, SeedError> {
        let sources: Vec<_> = identities.iter().cloned().map(IdentitySource::File).collect();
        let keys = Identities::load(&sources, &|_| None).map_err(SeedError::Identity)?;
        let mut epochs = Vec::with_capacity(seeds.len());
        for path in seeds {
            let fail = |why| SeedError::Seed { path: path.clone(), why };
            let bytes = read(path).map_err(|error| fail(Why::Read(error)))?;
            let text = if bytes.expose().starts_with(b"vouchsafe-audit-seed/") {
                bytes
            } else {
                match sealed::open(bytes.expose(), keys.iter()).map_err(|kind| fail(Why::Sealed(kind)))? {
                    Opening::Opened(text) => text,
                    Opening::Locked(_) => return Err(fail(Why::Locked)),
                }
            };
            let Seed { stream, first, key } = Seed::parse(&text).ok_or_else(|| fail(Why::NoSeed))?;
            epochs.push(Epoch { stream, first, id: key.id(), at: first, key });
        }
        epochs.sort_by_key(|epoch| (epoch.stream, epoch.first));
        epochs.dedup_by_key(|epoch| epoch.id.0);
        Ok(Self { epochs, unknown: Vec::new(), expected: Vec::new(), is_astray: false, left: FARTHEST })
    }

    /// Whether one of the seeds is for this chain.
    pub(super) fn is_for(&self, stream: StreamId) -> bool {
        self.epochs.iter().any(|epoch| epoch.stream == stream)
    }

    /// An epoch was ended by this record, which is sealed, and the next one is called so.
    pub(super) fn expect(&mut self, last: Chain, next: &str) {
        self.expected.push((last.stream, last.seq, next.to_owned()));
    }

    /// Whether the state was lost where this epoch begins: the one before it was not ended for it.
    fn is_anew(&self, epoch: &Epoch) -> bool {
        let ends = |(stream, last, next): &(StreamId, u64, String)| {
            *stream == epoch.stream && last.checked_add(1) == Some(epoch.first) && *next == epoch.id.hex()
        };
        !self.expected.iter().any(ends)
    }

    /// Looks at one record, in the order of their numbers. `begun` is the epoch that the record says begins.
    pub(super) fn check(&mut self, line: &[u8], tail: &Tail, begun: Option<&str>) -> Seen {
        let (stream, seq) = (tail.chain.stream, tail.chain.seq);
        let found = |kind| Seen { is_proven: false, finding: Some(kind) };
        if !self.is_for(stream) {
            let is_first = !std::mem::replace(&mut self.is_astray, true);
            return if is_first { found(FindingKind::ChainWithoutSeed) } else { Seen::default() };
        }
        let mine = |epoch: &Epoch| epoch.stream == stream && epoch.first <= seq;
        // What is before the first seed is nobody's to prove.
        let Some(at) = self.epochs.iter().rposition(mine) else { return Seen::default() };
        let is_later = at > 0 && self.epochs.get(at - 1).is_some_and(|before| before.stream == stream);
        let Some(epoch) = self.epochs.get_mut(at) else { return Seen::default() };
        if epoch.first == seq {
            self.unknown.retain(|of| *of != stream);
        } else if self.unknown.contains(&stream) {
            return Seen::default();
        }
        let Some(steps) = seq.checked_sub(epoch.at) else { return Seen::default() };
        let Some(left) = self.left.checked_sub(steps.saturating_sub(1)) else {
            return found(FindingKind::SealTooFar { seq });
        };
        self.left = left;
        for _ in 0..steps {
            epoch.key = epoch.key.next();
        }
        epoch.at = seq;
        if tail.is_sealed_by(line, &epoch.key.record_key()) {
            let begins = is_later && epoch.first == seq;
            let is_anew = begins && self.epochs.get(at).is_some_and(|epoch| self.is_anew(epoch));
            return Seen { is_proven: true, finding: is_anew.then_some(FindingKind::NewEpoch { seq }) };
        }
        match begun {
            Some(id) if self.epochs.iter().all(|epoch| epoch.id.hex() != id) => {
                self.unknown.push(stream);
                found(FindingKind::UnknownEpoch { seq, id: id.to_owned() })
            }
            _ if tail.seal.is_none() => found(FindingKind::SealMissing { seq }),
            _ => found(FindingKind::SealWrong { seq }),
        }
    }
}

fn read(path: &Path) -> io::Result<Secret> {
    // It does not grow: what may be a plaintext is wiped where it is.
    let mut bytes = Vec::with_capacity(usize::try_from(LARGEST).unwrap_or_default() + 1);
    let read = std::fs::File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
    let bytes = Secret::new(bytes);
    match read? {
        length if length as u64 > LARGEST => Err(io::Error::other(format!("larger than {LARGEST} bytes"))),
        _ => Ok(bytes),
    }
}

/// A seed could not be used. Holds none of it.
#[derive(Debug)]
pub enum SeedError {
    /// An identity is there and cannot be used.
    Identity(IdentityError),
    /// A seed's file.
    Seed {
        /// The file.
        path: PathBuf,
        /// Why.
        why: Why,
    },
}

/// Why a seed could not be used.
#[derive(Debug)]
pub enum Why {
    /// No identity opens it.
    Locked,
    /// It was opened, and is no seed.
    NoSeed,
    /// It cannot be read.
    Read(io::Error),
    /// It is no age file, or a damaged one.
    Sealed(SealedErrorKind),
}

impl fmt::Display for SeedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(error) => error.fmt(f),
            Self::Seed { path, why } => {
                let path = show(path);
                match why {
                    Why::Locked => write!(f, "no identity that was given opens the seed `{path}`"),
                    Why::NoSeed => write!(f, "`{path}` holds no seed of an audit log"),
                    Why::Read(error) => write!(f, "cannot read the seed `{path}`: {}", plain_io(error)),
                    Why::Sealed(_) => write!(f, "the seed `{path}` is no sound age file"),
                }
            }
        }
    }
}

impl Cause for SeedError {
    fn class(&self) -> Class {
        match self {
            Self::Identity(_) | Self::Seed { why: Why::Locked, .. } => Class::Identity,
            Self::Seed { .. } => Class::Audit,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Identity(error) => error.hint(),
            Self::Seed { why: Why::Locked, .. } => {
                Some("--identity FILE   # the private key of the recipient that `audit init` was given".into())
            }
            Self::Seed { .. } => None,
        }
    }
}
