//! Whether each record carries the seal of the key that is for it. The auditor's seeds are the only thing that can tell.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::finding::FindingKind;
use crate::audit::chain::{Chain, StreamId, Tail};
use crate::audit::seal::seed::{LARGEST, Seed, begins_anew};
use crate::audit::seal::{EpochId, EpochKey};
use crate::checked_file::plain_io;
use crate::error::{Cause, Class};
use crate::name::show;
use crate::policy::model::IdentitySource;
use crate::secret::Secret;
use crate::store::identity::{Identities, IdentityError};
use crate::store::sealed::{self, Opening, SealedErrorKind};
use crate::store::vouched::Vouched;

/// Keys that are skipped, over all, for records that are missing or were given up: a minute's work. A record that claims to be
/// further away must not keep `verify` busy for ever.
const FARTHEST: u64 = 100_000_000;

/// The seeds of one or several epochs.
pub struct Seals {
    /// By chain, and in each by its first record.
    epochs: Vec<Epoch>,
    /// The chains that there are seeds for.
    chains: BTreeMap<StreamId, Standing>,
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
    /// By its seed it begins anew what was lost.
    is_anew: bool,
    /// A record of it was read.
    is_entered: bool,
    /// Another epoch with the same first record has sealed it.
    is_out: bool,
    /// The record that `key` is for.
    at: u64,
    key: EpochKey,
}

/// What was read of one chain.
#[derive(Default)]
struct Standing {
    first: Option<u64>,
    /// The record with which the last epoch began whose seed is not there.
    unknown: Option<u64>,
    /// Where an epoch that was not the named one was told of.
    overruled: Option<u64>,
    /// A sealed record before the first seed was told of.
    is_short: bool,
}

/// What a record's seal turned out to be.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) is_proven: bool,
    pub(super) findings: Vec<FindingKind>,
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
                match sealed::open(Vouched::of_no_store(bytes.expose()), keys.iter())
                    .map_err(|kind| fail(Why::Sealed(kind)))?
                {
                    Opening::Opened(text) => text,
                    Opening::Locked(_) => return Err(fail(Why::Locked)),
                }
            };
            let Seed { stream, first, key } = Seed::parse(&text).ok_or_else(|| fail(Why::NoSeed))?;
            let (id, is_anew) = (key.id(), begins_anew(&text));
            epochs.push(Epoch { stream, first, id, is_anew, is_entered: false, is_out: false, at: first, key });
        }
        epochs.sort_by_key(|epoch| (epoch.stream, epoch.first, epoch.id.0));
        epochs.dedup_by_key(|epoch| epoch.id.0);
        let chains = epochs.iter().map(|epoch| (epoch.stream, Standing::default())).collect();
        Ok(Self { epochs, chains, expected: Vec::new(), is_astray: false, left: FARTHEST })
    }

    /// An epoch was ended by this record, which is sealed, and the next one is called so.
    pub(super) fn expect(&mut self, last: Chain, next: &str) {
        self.expected.push((last.stream, last.seq, next.to_owned()));
    }

    /// Whether an epoch that begins there was named by the one that ended before it.
    fn is_expected(&self, stream: StreamId, first: u64) -> bool {
        let is_named = |id: &str| {
            self.epochs.iter().any(|epoch| epoch.stream == stream && epoch.first == first && epoch.id.hex() == id)
        };
        let ends = |(of, last, next): &(StreamId, u64, String)| {
            *of == stream && last.checked_add(1) == Some(first) && is_named(next)
        };
        self.expected.iter().any(ends)
    }

    /// The epoch that an ended one has named, which comes before this record and has no seed here.
    fn unknown_after(&self, stream: StreamId, first: u64, seq: u64) -> Option<String> {
        let is_known = |id: &str| self.epochs.iter().any(|epoch| epoch.stream == stream && epoch.id.hex() == id);
        let ended = |(of, last, next): &&(StreamId, u64, String)| {
            *of == stream && (first..seq).contains(last) && !is_known(next)
        };
        self.expected.iter().find(ended).map(|(_, _, next)| next.clone())
    }

    /// Whether what has sealed a record is another epoch than the one before has named. Told once.
    fn is_another(&mut self, stream: StreamId, first: u64) -> bool {
        let by = self.epochs.iter().find(|epoch| epoch.stream == stream && epoch.first == first && !epoch.is_out);
        let Some(by) = by.map(|epoch| epoch.id.hex()) else { return false };
        let is_named_else = |(of, last, next): &(StreamId, u64, String)| {
            *of == stream && last.checked_add(1) == Some(first) && *next != by
        };
        let is_another = self.expected.iter().any(is_named_else);
        is_another && self.chains.entry(stream).or_default().overruled.replace(first) != Some(first)
    }

    /// Looks at one record, in the order of their numbers. `begun` is the epoch that the record says begins.
    pub(super) fn check(&mut self, line: &[u8], tail: &Tail, begun: Option<&str>) -> Seen {
        let (stream, seq) = (tail.chain.stream, tail.chain.seq);
        let unproven = |findings| Seen { is_proven: false, findings };
        let Some(chain) = self.chains.get_mut(&stream) else {
            let is_first = !std::mem::replace(&mut self.is_astray, true);
            return unproven(if is_first { vec![FindingKind::ChainWithoutSeed] } else { Vec::new() });
        };
        chain.first.get_or_insert(seq);
        let mine = |epoch: &&mut Epoch| epoch.stream == stream && epoch.first <= seq;
        let Some(first) = self.epochs.iter_mut().filter(mine).map(|epoch| epoch.first).max() else {
            // What is before the first seed is nobody's to prove, unless it says itself that there is another one.
            let is_sealed = tail.seal.is_some() || begun.is_some();
            let is_told = !is_sealed || std::mem::replace(&mut chain.is_short, true);
            return unproven(if is_told { Vec::new() } else { vec![FindingKind::SeedMissing { seq }] });
        };
        if chain.unknown.is_some_and(|at| at >= first) {
            return Seen::default();
        }
        // That epoch was ended, and the next one is nobody's here: also where the record that begins it was lost.
        if tail.seal.is_some()
            && let Some(id) = self.unknown_after(stream, first, seq)
        {
            self.chains.entry(stream).or_default().unknown = Some(seq);
            return unproven(vec![FindingKind::UnknownEpoch { seq, id }]);
        }
        let mut findings = Vec::new();
        findings.extend(self.enter(stream, first));
        let Some(is_proven) = self.is_proven(line, tail, first) else {
            findings.push(FindingKind::SealTooFar { seq });
            return unproven(findings);
        };
        if is_proven {
            if self.is_another(stream, first) && findings.is_empty() {
                findings.push(FindingKind::NewEpoch { seq });
            }
            return Seen { is_proven, findings };
        }
        let unknown = begun.filter(|id| is_epoch(id) && self.epochs.iter().all(|epoch| epoch.id.hex() != *id));
        findings.push(match (tail.seal, unknown) {
            // An honest writer seals this record too: by the keys of that epoch.
            (None, _) => FindingKind::SealMissing { seq },
            (Some(_), None) => FindingKind::SealWrong { seq },
            (Some(_), Some(id)) => {
                self.chains.entry(stream).or_default().unknown = Some(seq);
                FindingKind::UnknownEpoch { seq, id: id.to_owned() }
            }
        });
        unproven(findings)
    }

    /// Notes that the epochs that begin there were reached. Any but the first of a chain says that a state was lost: at the first
    /// record of it that is read, whichever that is.
    fn enter(&mut self, stream: StreamId, first: u64) -> Option<FindingKind> {
        let is_new = |epoch: &Epoch| epoch.stream == stream && epoch.first == first && !epoch.is_entered;
        if !self.epochs.iter().any(is_new) {
            return None;
        }
        let until = self.epochs.iter().filter(|epoch| epoch.stream == stream && epoch.first <= first).count();
        let mut is_anew = until > 1 && !self.is_expected(stream, first);
        for epoch in self.epochs.iter_mut().filter(|epoch| epoch.stream == stream && epoch.first == first) {
            epoch.is_entered = true;
            is_anew |= epoch.is_anew;
        }
        is_anew.then_some(FindingKind::NewEpoch { seq: first })
    }

    /// Whether an epoch that begins there has sealed the record; `None` if it is too far away to say. The first epoch that seals
    /// one is it, from then on.
    fn is_proven(&mut self, line: &[u8], tail: &Tail, first: u64) -> Option<bool> {
        let (stream, seq) = (tail.chain.stream, tail.chain.seq);
        let is_here = |epoch: &Epoch| epoch.stream == stream && epoch.first == first && !epoch.is_out;
        let mut by = None;
        for epoch in self.epochs.iter_mut().filter(|epoch| is_here(epoch)) {
            let Some(steps) = seq.checked_sub(epoch.at) else { continue };
            self.left = self.left.checked_sub(steps.saturating_sub(1))?;
            for _ in 0..steps {
                epoch.key = epoch.key.next();
            }
            epoch.at = seq;
            if tail.is_sealed_by(line, &epoch.key.record_key()) {
                by = Some(epoch.id);
                break;
            }
        }
        let Some(by) = by else { return Some(false) };
        for epoch in self.epochs.iter_mut().filter(|epoch| is_here(epoch)) {
            epoch.is_out = epoch.id != by;
        }
        Some(true)
    }

    /// Seeds whose records were not met. `is_cut`: those before the first that was read were removed on purpose.
    pub(super) fn missing(&self, is_cut: bool) -> Vec<FindingKind> {
        let nothing_was_read = !self.is_astray && self.chains.values().all(|chain| chain.first.is_none());
        let mut found = Vec::new();
        for epoch in self.epochs.iter().filter(|epoch| !epoch.is_entered) {
            let id = epoch.id.hex();
            match self.chains.get(&epoch.stream).and_then(|chain| chain.first) {
                Some(read) if is_cut && epoch.first < read => {}
                None if !nothing_was_read => found.push(FindingKind::SeedOfOtherChain { id }),
                _ => found.push(FindingKind::EpochMissing { id, seq: epoch.first }),
            }
        }
        found
    }
}

/// Whether it is laid out as the name of an epoch.
fn is_epoch(id: &str) -> bool {
    id.len() == 16 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
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
