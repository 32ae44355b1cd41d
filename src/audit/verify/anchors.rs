//! Whether the logs are those that checkpoints were made of: what left the host in time cannot be taken back.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::report::FindingKind;
use crate::audit::chain::{Chain, Digest, StreamId};
use crate::audit::checkpoint::key::VerifierKey;
use crate::audit::checkpoint::note::open_all;
use crate::checked_file::plain_io;
use crate::error::{Cause, Class};
use crate::name::show;

/// Bytes of a file of checkpoints: some hundred thousand of them.
const LARGEST: u64 = 64 * 1024 * 1024;

/// The checkpoints of one log.
pub struct Anchors {
    /// By chain and number: those that no record has been compared with yet.
    open: BTreeMap<(StreamId, u64), Digest>,
    /// How many there are.
    pub(super) total: u64,
    /// What is wrong with them before any log is looked at.
    findings: Vec<FindingKind>,
}

impl Anchors {
    /// Reads the checkpoints of these files that are by `key`.
    ///
    /// # Errors
    /// A file cannot be read, or none of them holds a checkpoint by the key.
    pub fn load(files: &[PathBuf], key: &VerifierKey) -> Result<Self, AnchorError> {
        let mut anchors = Self { open: BTreeMap::new(), total: 0, findings: Vec::new() };
        for path in files {
            let bytes = read(path).map_err(|error| AnchorError::Read(path.clone(), error))?;
            let text = String::from_utf8_lossy(&bytes);
            let opened = open_all(values_of_parameters(&text).as_deref().unwrap_or(&text), key);
            if opened.forged > 0 {
                anchors.findings.push(FindingKind::CheckpointForged { count: opened.forged });
            }
            for Chain { stream, seq, hash } in opened.checkpoints.into_iter().map(|checkpoint| checkpoint.chain) {
                let before = anchors.open.entry((stream, seq)).or_insert(hash);
                if *before != hash {
                    anchors.findings.push(FindingKind::CheckpointsDiffer { seq });
                }
            }
        }
        anchors.total = anchors.open.len() as u64;
        // Where a chain stood before its first record says nothing.
        anchors.open.retain(|(_, seq), _| *seq > 0);
        if anchors.total == 0 && anchors.findings.is_empty() {
            return Err(AnchorError::None(files.first().cloned().unwrap_or_default()));
        }
        Ok(anchors)
    }

    /// What two checkpoints say of each other, and signatures that are not good.
    pub(super) fn take_findings(&mut self) -> Vec<FindingKind> {
        std::mem::take(&mut self.findings)
    }

    /// Looks at one record.
    pub(super) fn check(&mut self, chain: Chain) -> Option<FindingKind> {
        let hash = self.open.remove(&(chain.stream, chain.seq))?;
        (hash != chain.hash).then_some(FindingKind::CheckpointDiffers { seq: chain.seq })
    }

    /// What was attested and is not there. `standing` says for a chain its first record that was read, if its older ones were
    /// removed on purpose, and its last.
    pub(super) fn missing(&self, standing: impl Fn(StreamId) -> Option<(u64, u64)>) -> Vec<FindingKind> {
        let mut found = Vec::new();
        let mut last_told = None;
        for (stream, seq) in self.open.keys().rev() {
            let Some((first, last)) = standing(*stream) else {
                if last_told != Some(*stream) {
                    found.push(FindingKind::CheckpointOfOtherChain { seq: *seq });
                }
                last_told = Some(*stream);
                continue;
            };
            // One finding for a chain: the last checkpoint says all that the ones before it say.
            if *seq < first || last_told == Some(*stream) {
                continue;
            }
            last_told = Some(*stream);
            found.push(match *seq > last {
                true => FindingKind::EndsBeforeCheckpoint { last, seq: *seq },
                false => FindingKind::CheckpointWithoutRecord { seq: *seq },
            });
        }
        found
    }
}

/// What `aws ssm get-parameter-history` and `get-parameter` print as JSON.
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Printed {
    #[serde(default)]
    parameters: Vec<PrintedParameter>,
    parameter: Option<PrintedParameter>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PrintedParameter {
    value: String,
}

/// The values one after the other, if the text is such JSON.
fn values_of_parameters(text: &str) -> Option<String> {
    // A note is no object.
    let printed: Printed = text.trim_start().starts_with('{').then(|| serde_json::from_str(text).ok())??;
    let values = printed.parameters.iter().chain(&printed.parameter).map(|one| format!("{}\n\n", one.value));
    // Any other object holds whatever it holds.
    Some(values.collect()).filter(|values: &String| !values.is_empty())
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let length = std::fs::File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if length as u64 > LARGEST {
        return Err(io::Error::other(format!("larger than {LARGEST} bytes")));
    }
    Ok(bytes)
}

/// Checkpoints could not be used.
#[derive(Debug)]
pub enum AnchorError {
    /// No file holds a checkpoint by the key.
    None(PathBuf),
    /// A file cannot be read.
    Read(PathBuf, io::Error),
}

impl fmt::Display for AnchorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None(path) => write!(f, "`{}` holds no checkpoint by the key that was given", show(path)),
            Self::Read(path, error) => {
                write!(f, "cannot read the checkpoints `{}`: {}", show(path), plain_io(error))
            }
        }
    }
}

impl Cause for AnchorError {
    fn class(&self) -> Class {
        Class::Audit
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::None(_) => {
                Some("vouchsafe audit checkpoint --key LOG   # prints the key, on the host of the log".into())
            }
            Self::Read(..) => None,
        }
    }
}
