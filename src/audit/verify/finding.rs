//! What `verify` finds, how grave it is, and how it is said.

use std::fmt;
use std::path::PathBuf;

use crate::name::show;

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
    /// A record of a collected stream in a file log, or the other way round.
    OtherKind,
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
    /// The state of the seals was lost, and sealing begun anew: two epochs of one chain.
    NewEpoch {
        /// The first record of the later one.
        seq: u64,
    },
    /// The same, and the seed for it was not given.
    UnknownEpoch {
        /// The record that says so.
        seq: u64,
        /// What it says that the epoch is called.
        id: String,
    },
    /// A record before the first seed was sealed, by an epoch whose seed was not given.
    SeedMissing {
        /// Its number.
        seq: u64,
    },
    /// A seed is for a chain of which there is no record.
    SeedOfOtherChain {
        /// What the epoch is called.
        id: String,
    },
    /// The records of an epoch whose seed was given are not there.
    EpochMissing {
        /// What it is called.
        id: String,
        /// The first of them.
        seq: u64,
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
    /// A chain goes on that had not been seen for so long that nobody knows what was before it.
    ChainForgotten {
        /// The record.
        seq: u64,
    },
    /// There are so many chains that some that were repeated would not be noticed.
    TooManyChains,
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
            | Self::OtherKind
            | Self::NotARecord
            | Self::QuarantineGone
            | Self::Malformed
            | Self::PartsMixed
            | Self::SealMissing { .. }
            | Self::SealWrong { .. }
            | Self::SealTooFar { .. }
            | Self::ChainWithoutSeed
            | Self::SeedOfOtherChain { .. }
            | Self::CheckpointDiffers { .. }
            | Self::CheckpointsDiffer { .. }
            | Self::CheckpointForged { .. }
            | Self::CheckpointOfOtherChain { .. }
            | Self::HeadDiffers { .. } => true,
            Self::Gap { .. }
            | Self::StartsLate { .. }
            | Self::ChainForgotten { .. }
            | Self::TooManyChains
            | Self::NewChain
            | Self::EndsEarly { .. }
            | Self::HeadOfOtherChain
            | Self::Torn { .. }
            | Self::PartsMissing { .. }
            | Self::NewEpoch { .. }
            | Self::UnknownEpoch { .. }
            | Self::SeedMissing { .. }
            | Self::EpochMissing { .. }
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
            FindingKind::OtherKind => write!(
                f,
                "the record is of another kind of log: file logs and collected streams are not mixed, and verified apart"
            ),
            FindingKind::NotARecord => write!(f, "these bytes are no record, and no record accounts for them"),
            FindingKind::QuarantineGone => write!(f, "the record quarantines bytes that are not before it"),
            FindingKind::Malformed => {
                write!(f, "the hash fits, but the line is not laid out as a record, or lacks what a record says")
            }
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
                write!(f, "record {seq} begins the seals anew, as epoch {id}, whose seed was not given")
            }
            FindingKind::SeedMissing { seq } => {
                write!(
                    f,
                    "record {seq} was sealed in an epoch whose seed was not given: nothing before the first seed is proven"
                )
            }
            FindingKind::SeedOfOtherChain { id } => {
                write!(
                    f,
                    "the seed of epoch {id} is for a chain that is not here: the log was replaced, or it is not this log's seed"
                )
            }
            FindingKind::EpochMissing { id, seq } => {
                write!(f, "epoch {id}, whose seed was given, begins with record {seq}, which is not here")
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
            FindingKind::ChainForgotten { seq } => write!(
                f,
                "record {seq} goes on a chain that was last seen before too many others to compare them; verify fewer logs at once"
            ),
            FindingKind::TooManyChains => {
                write!(f, "too many chains to tell whether one was repeated; verify fewer logs at once")
            }
            FindingKind::NewChain => write!(
                f,
                "another chain begins here: this is another log, or the log and its head were lost or replaced"
            ),
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
