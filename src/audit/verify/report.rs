//! What `verify` has to say: counts, findings, and the class that they add up to.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::checked_file::plain_io;
use crate::error::{Cause, Class};
use crate::name::show;

/// What was found in one or several logs.
#[derive(Debug, Default)]
pub struct Report {
    /// Records whose hash fits, each part of a divided record counted.
    pub records: u64,
    /// Chains.
    pub streams: u64,
    /// Lines of a collected stream that are not ours.
    pub foreign_lines: u64,
    /// Blocks of bytes that are no record and that a later record accounts for.
    pub quarantined: u64,
    /// Records in which a writer says that it did not find what the last one had left.
    pub discontinuities: u64,
    /// Records whose seal is by the auditor's seeds.
    pub sealed: u64,
    /// Records that carry a seal that was not checked, or, where seeds were given, that none of them speaks for.
    pub unproven: u64,
    /// Checkpoints that the logs were compared with.
    pub checkpoints: u64,
    /// How often the clock was set back, by the times of the records.
    pub clock_steps: u64,
    /// Whether a head file beside the last log was compared.
    pub head_compared: bool,
    /// The first findings, in the order of the logs, and the first that is tampering if it is not among them.
    pub findings: Vec<Finding>,
    /// How many findings there are in all.
    pub findings_total: u64,
    /// What decides: the first finding that is tampering, else the first.
    gravest: Option<Finding>,
}

/// Findings that are kept; the rest are counted.
const KEPT: usize = 20;

impl Report {
    pub(in crate::audit) fn add(&mut self, path: &std::path::Path, line: u64, kind: FindingKind) {
        self.findings_total += 1;
        let is_graver = self.gravest.is_none() || (kind.is_tampering() && self.state() != State::Tampered);
        if !is_graver && self.findings.len() >= KEPT {
            return;
        }
        let finding = Finding { path: path.to_owned(), line, kind };
        if is_graver {
            self.gravest = Some(finding.clone());
        }
        self.findings.push(finding);
    }

    /// What the findings add up to.
    #[must_use]
    pub fn state(&self) -> State {
        match &self.gravest {
            None => State::Intact,
            Some(finding) if finding.kind.is_tampering() => State::Tampered,
            Some(_) => State::Incomplete,
        }
    }

    /// The report as an error, unless the logs are intact.
    #[must_use]
    pub fn failure(&self) -> Option<VerifyFailure> {
        self.gravest.clone().map(|first| VerifyFailure { state: self.state(), first, total: self.findings_total })
    }
}

/// What findings add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Nothing was found.
    Intact,
    /// Records are missing.
    Incomplete,
    /// Records were changed, put in, or moved.
    Tampered,
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The log.
    pub path: PathBuf,
    /// The line, counted from 1; 0 for the log as a whole.
    pub line: u64,
    /// What is wrong.
    pub kind: FindingKind,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FindingKind {
    /// The hash of a line does not fit it.
    Altered,
    /// The line's own hash fits, the hash before it does not.
    Unchained {
        /// Its number.
        seq: u64,
    },
    /// A record that was there before, or that belongs further up.
    Repeated {
        /// Its number.
        seq: u64,
        /// The number that belongs here.
        expected: u64,
    },
    /// A record of another chain.
    OtherChain,
    /// Bytes that are no record, which no record accounts for.
    NotARecord,
    /// A record about quarantined bytes that are not there.
    QuarantineGone,
    /// Its hash fits, but it does not say what a record has to.
    Malformed,
    /// Parts of one record that do not follow each other.
    PartsMixed,
    /// The record that the head file names is another one.
    HeadDiffers {
        /// Its number.
        seq: u64,
    },
    /// A record carries no seal though it has to.
    SealMissing {
        /// Its number.
        seq: u64,
    },
    /// A record's seal is not by the key that is for it.
    SealWrong {
        /// Its number.
        seq: u64,
    },
    /// The record is of a chain that no seed is for.
    ChainWithoutSeed,
    /// The record is so far from the others that its key was not looked for.
    SealTooFar {
        /// Its number.
        seq: u64,
    },
    /// The state of the seals was lost, and sealing begun anew.
    NewEpoch {
        /// The first record that is sealed anew.
        seq: u64,
    },
    /// The same, and the seed for it was not given.
    UnknownEpoch {
        /// The record that says so.
        seq: u64,
        /// What it says that the epoch is called.
        id: String,
    },
    /// Seeds were given, and no record is sealed by them.
    NothingSealed,
    /// The record that a checkpoint names is another one.
    CheckpointDiffers {
        /// Its number.
        seq: u64,
    },
    /// Two checkpoints name different records of one number.
    CheckpointsDiffer {
        /// The number.
        seq: u64,
    },
    /// Checkpoints that name the key, and that it did not sign.
    CheckpointForged {
        /// How many.
        count: u64,
    },
    /// A checkpoint names a chain that is not here.
    CheckpointOfOtherChain {
        /// The record that it names.
        seq: u64,
    },
    /// A checkpoint names a record that is missing between others.
    CheckpointWithoutRecord {
        /// Its number.
        seq: u64,
    },
    /// A checkpoint says that there were more.
    EndsBeforeCheckpoint {
        /// The last record here.
        last: u64,
        /// The last that a checkpoint names.
        seq: u64,
    },
    /// A record says that it was written earlier than the one before it.
    ClockBack {
        /// By how much.
        seconds: u64,
    },
    /// Records are missing before this one.
    Gap {
        /// The first that is missing.
        from: u64,
        /// The last that is missing.
        to: u64,
    },
    /// The log does not begin with the first record of its chain.
    StartsLate {
        /// The record that it begins with.
        seq: u64,
    },
    /// A chain ends and another one begins.
    NewChain,
    /// The head file says that there were more.
    EndsEarly {
        /// The last record here.
        last: u64,
        /// The last record that was written.
        head: u64,
    },
    /// The head file belongs to another chain.
    HeadOfOtherChain,
    /// The last line has no newline.
    Torn {
        /// How long it is.
        bytes: u64,
    },
    /// A record's last parts are missing.
    PartsMissing {
        /// The record.
        record: u64,
    },
    /// There is no record at all.
    NoRecord,
}

impl FindingKind {
    /// Whether it takes someone's hand, rather than a loss.
    #[must_use]
    pub fn is_tampering(&self) -> bool {
        match self {
            Self::Altered
            | Self::Unchained { .. }
            | Self::Repeated { .. }
            | Self::OtherChain
            | Self::NotARecord
            | Self::QuarantineGone
            | Self::Malformed
            | Self::PartsMixed
            | Self::SealMissing { .. }
            | Self::SealWrong { .. }
            | Self::SealTooFar { .. }
            | Self::ChainWithoutSeed
            | Self::CheckpointDiffers { .. }
            | Self::CheckpointsDiffer { .. }
            | Self::CheckpointForged { .. }
            | Self::CheckpointOfOtherChain { .. }
            | Self::HeadDiffers { .. } => true,
            Self::Gap { .. }
            | Self::StartsLate { .. }
            | Self::NewChain
            | Self::EndsEarly { .. }
            | Self::HeadOfOtherChain
            | Self::Torn { .. }
            | Self::PartsMissing { .. }
            | Self::NewEpoch { .. }
            | Self::UnknownEpoch { .. }
            | Self::NothingSealed
            | Self::CheckpointWithoutRecord { .. }
            | Self::EndsBeforeCheckpoint { .. }
            | Self::ClockBack { .. }
            | Self::NoRecord => false,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: ", show(&self.path))?,
            line => write!(f, "{}:{line}: ", show(&self.path))?,
        }
        match &self.kind {
            FindingKind::Altered => write!(f, "the record was altered: its hash does not fit"),
            FindingKind::Unchained { seq } => {
                write!(f, "record {seq} does not follow the one before it: the hash before differs")
            }
            FindingKind::Repeated { seq, expected } => {
                write!(f, "record {seq} stands where record {expected} belongs: repeated or moved")
            }
            FindingKind::OtherChain => write!(f, "the record belongs to another chain"),
            FindingKind::NotARecord => write!(f, "these bytes are no record, and no record accounts for them"),
            FindingKind::QuarantineGone => write!(f, "the record quarantines bytes that are not before it"),
            FindingKind::Malformed => write!(f, "the line is sealed but says nothing that a record says"),
            FindingKind::PartsMixed => write!(f, "parts of one record do not follow each other"),
            FindingKind::HeadDiffers { seq } => write!(f, "record {seq} is not the one that the head file names"),
            FindingKind::SealMissing { seq } => write!(f, "record {seq} is not sealed, and has to be"),
            FindingKind::SealWrong { seq } => {
                write!(f, "the seal of record {seq} is not by its key: it was written by somebody else, or rewritten")
            }
            FindingKind::SealTooFar { seq } => {
                write!(f, "record {seq} is too far from the others for its key to be looked for")
            }
            FindingKind::ChainWithoutSeed => write!(f, "the record belongs to a chain that no seed is for"),
            FindingKind::NewEpoch { seq } => {
                write!(f, "the state of the seals was lost; sealing begins anew with record {seq}")
            }
            FindingKind::UnknownEpoch { seq, id } => {
                let id = crate::name::escape(id);
                write!(f, "record {seq} begins the seals anew, as epoch {id}, whose seed was not given")
            }
            FindingKind::NothingSealed => write!(f, "no record is sealed by the seeds that were given"),
            FindingKind::CheckpointDiffers { seq } => {
                write!(f, "record {seq} is not the one that a checkpoint names: the log was rewritten")
            }
            FindingKind::CheckpointsDiffer { seq } => {
                write!(f, "two checkpoints name different records {seq}: the log was rewritten in between")
            }
            FindingKind::CheckpointForged { count } => {
                write!(f, "{count} of the checkpoints are not signed by the key that they name")
            }
            FindingKind::CheckpointOfOtherChain { seq } => {
                write!(f, "a checkpoint names record {seq} of a chain that is not here: the log was replaced")
            }
            FindingKind::CheckpointWithoutRecord { seq } => {
                write!(f, "record {seq}, which a checkpoint names, is missing")
            }
            FindingKind::EndsBeforeCheckpoint { last, seq } => {
                write!(f, "the log ends with record {last}, but a checkpoint names record {seq}")
            }
            FindingKind::ClockBack { seconds } => {
                write!(f, "the clock was set back by {seconds} s before this record; its time is not to be relied on")
            }
            FindingKind::Gap { from, to } if from == to => write!(f, "record {from} is missing before this one"),
            FindingKind::Gap { from, to } => write!(f, "records {from} to {to} are missing before this one"),
            FindingKind::StartsLate { seq } => {
                write!(f, "the chain begins with record {seq} here; older logs have to come first")
            }
            FindingKind::NewChain => write!(f, "another chain begins here: the log and its head were lost or replaced"),
            FindingKind::EndsEarly { last, head } => {
                write!(f, "the log ends with record {last}, but record {head} was written")
            }
            FindingKind::HeadOfOtherChain => write!(f, "the head file beside the log names a chain that is not here"),
            FindingKind::Torn { bytes } => {
                write!(f, "the last line is torn after {bytes} bytes; the next record will quarantine it")
            }
            FindingKind::PartsMissing { record } => write!(f, "the last parts of record {record} are missing"),
            FindingKind::NoRecord => write!(f, "there is no record"),
        }
    }
}

/// The logs are not intact.
#[derive(Debug, Clone)]
pub struct VerifyFailure {
    state: State,
    first: Finding,
    total: u64,
}

impl fmt::Display for VerifyFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)?;
        match self.total {
            0 | 1 => Ok(()),
            total => write!(f, " (and {} more)", total - 1),
        }
    }
}

impl Cause for VerifyFailure {
    fn class(&self) -> Class {
        if self.state == State::Tampered { Class::Tampered } else { Class::Incomplete }
    }

    fn hint(&self) -> Option<String> {
        match self.first.kind {
            FindingKind::StartsLate { .. } => {
                let path = show(&self.first.path);
                Some(format!("vouchsafe audit verify {path}.1 {path}   # rotated logs, oldest first"))
            }
            _ => None,
        }
    }
}

/// A log could not be read.
#[derive(Debug)]
pub struct Unreadable {
    /// The log.
    pub path: PathBuf,
    /// Why.
    pub error: io::Error,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot read the audit log `{}`: {}", show(&self.path), plain_io(&self.error))
    }
}

impl Cause for Unreadable {
    fn class(&self) -> Class {
        Class::Audit
    }
}
