//! Logs that are not intact, or cannot be read, as errors: class and hint.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::finding::{Finding, FindingKind};
use super::report::State;
use crate::checked_file::plain_io;
use crate::error::{Cause, Class};
use crate::name::show;

/// The logs are not intact.
#[derive(Debug, Clone)]
pub struct VerifyFailure {
    state: State,
    first: Finding,
    total: u64,
}

impl VerifyFailure {
    /// The finding that decides, and how many there are in all.
    pub(super) fn new(state: State, first: Finding, total: u64) -> Self {
        Self { state, first, total }
    }
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
                let path = &self.first.path;
                let (before, path) = (show(&rotated_before(path)), show(path));
                Some(format!("vouchsafe audit verify {before} {path}   # rotated logs, oldest first"))
            }
            FindingKind::NewChain => {
                let path = show(&self.first.path);
                Some(format!("vouchsafe audit verify {path}   # each log by itself, its rotated files first"))
            }
            _ => None,
        }
    }
}

/// What logrotate calls the file that came before: `log.1` before `log`, `log.2` before `log.1`.
fn rotated_before(path: &Path) -> PathBuf {
    let number = path.extension().and_then(|end| end.to_str()).and_then(|end| end.parse::<u32>().ok());
    match number.and_then(|number| number.checked_add(1)) {
        Some(next) => path.with_extension(next.to_string()),
        None => {
            let mut name = path.as_os_str().to_owned();
            name.push(".1");
            name.into()
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
