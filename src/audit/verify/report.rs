//! What `verify` has to say: counts, findings, and what they add up to.

use std::path::{Path, PathBuf};

use super::failure::VerifyFailure;
use super::finding::{Finding, FindingKind};

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
    /// Checkpoints out of lines of a log that the key did not sign: anybody could have written them there.
    pub unverified_checkpoints: u64,
    /// The last record that a checkpoint speaks for.
    pub anchored: Option<u64>,
    /// How many records of its chain come after it.
    pub beyond_anchor: Option<u64>,
    /// Notes that are not by the key that was given, or cannot be read.
    pub other_notes: u64,
    /// How often the clock was set back, by the times of the records.
    pub clock_steps: u64,
    /// Whether a head file beside the last log was compared.
    pub head_compared: bool,
    /// The first findings, in the order of the logs, and the first that is tampering if it is not among them.
    pub findings: Vec<Finding>,
    /// How many findings there are in all.
    pub findings_total: u64,
    /// Files that have lines, none of which is a record, and how many.
    pub no_logs: Vec<(PathBuf, u64)>,
    /// What decides: the first finding that is tampering, else the first.
    gravest: Option<Finding>,
}

/// Findings that are kept; the rest are counted.
const KEPT: usize = 20;

impl Report {
    pub(in crate::audit) fn add(&mut self, path: &Path, line: u64, kind: FindingKind) {
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
        self.gravest.clone().map(|first| VerifyFailure::new(self.state(), first, self.findings_total))
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
