//! Policy and host files: from a path to checked types, or to errors that cite the line.
//!
//! Text becomes raw types ([`raw`], by serde), raw types become checked types (`convert`), and what is wrong becomes a
//! [`PolicyError`] (`diagnostic`). Files are read once, through [`checked_file`]; nothing is used of a file of which anything
//! is wrong. `extends` puts files in a row: what it means stands in `policies/README.md`.

mod convert;
mod diagnostic;
pub(in crate::policy) mod raw;
mod syntax;
#[cfg(test)]
mod tests;

use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use ring::digest::{Context as Hash, SHA256};

pub use diagnostic::{Place, PolicyError, Problem};

use super::expected::Expectation;
use super::model::{HostFile, Policy};
use super::trust::{Admitted, Demand, TrustError};
use crate::checked_file::{self, FileError, FileErrorKind, Use};
use convert::Context;
use diagnostic::{Findings, SourceText};
use raw::{RawExpectations, RawHost, RawPolicy};

/// The default place of the host file; there it must belong to root.
pub const HOST_FILE: &str = "/etc/vouchsafe/host.toml";

/// The largest policy or host file, in bytes.
pub const LARGEST: u64 = 1 << 20;

/// The most files in an `extends` chain.
pub const LONGEST_CHAIN: usize = 8;

/// Who reads a policy, as far as its meaning depends on it.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// What `~/` stands for.
    pub home: Option<PathBuf>,
    /// Root and the agent do not follow `~/`.
    pub is_root: bool,
}

/// Reads the policy at `path` and all that it extends.
///
/// # Errors
/// A file is absent, unsafe or too large, or anything in it is wrong.
pub fn load(path: &Path, options: &LoadOptions) -> Result<Policy, PolicyError> {
    load_trusted(path, options, &Demand::default(), SystemTime::UNIX_EPOCH)
}

/// The same, where the host demands signatures: no file is parsed that is not admitted.
///
/// # Errors
/// Those of [`load`]; a signature is demanded and absent, or not good.
pub fn load_trusted(
    path: &Path,
    options: &LoadOptions,
    demand: &Demand<'_>,
    now: SystemTime,
) -> Result<Policy, PolicyError> {
    let read = |path: &Path| checked_file::read(path, Use::Public, LARGEST);
    assemble(path, options, read, |path, bytes| demand.admit(path, bytes, now), demand)
}

/// Checks a text as if it stood at `path`. It cannot extend another.
///
/// # Errors
/// Anything in it is wrong.
pub fn parse_text(text: &str, path: &Path, options: &LoadOptions) -> Result<Policy, PolicyError> {
    parse_texts(&[(path, text)], options)
}

/// Checks the first of `files`, a path and its text each, as if they were all there are.
///
/// # Errors
/// A file that is extended is not among them, or anything in them is wrong.
pub fn parse_texts(files: &[(&Path, &str)], options: &LoadOptions) -> Result<Policy, PolicyError> {
    let first = files.first().map_or_else(|| Path::new(""), |(path, _)| path);
    let read = |wanted: &Path| {
        let known = files.iter().find(|(path, _)| plain(path) == plain(wanted));
        known.map(|(_, text)| text.as_bytes().to_vec()).ok_or_else(|| {
            let kind = FileErrorKind::Io(rustix::io::Errno::NOENT.into());
            FileError { path: wanted.to_owned(), kind }
        })
    };
    let demand = Demand::default();
    assemble(first, options, read, |path, bytes| demand.admit(path, bytes, SystemTime::UNIX_EPOCH), &demand)
}

/// Reads a host file. With `must_be_root`, which the default place needs, it must belong to root.
///
/// # Errors
/// The file is absent, unsafe or too large, or anything in it is wrong.
pub fn load_host(path: &Path, must_be_root: bool) -> Result<HostFile, PolicyError> {
    let fail = |kind| FileError { path: path.to_owned(), kind };
    let file = checked_file::open(path, Use::Public)?;
    let metadata = file.metadata().map_err(|error| fail(FileErrorKind::Io(error)))?;
    if must_be_root && metadata.uid() != 0 {
        return Err(fail(FileErrorKind::Owner { at: path.to_owned(), uid: metadata.uid() }).into());
    }
    let bytes = checked_file::read_opened(&file, path, LARGEST)?;
    let text = String::from_utf8(bytes).map_err(|_| fail(FileErrorKind::NotText))?;
    parse_host_text(&text, path)
}

/// Checks a text as if it were the host file at `path`.
///
/// # Errors
/// Anything in it is wrong.
pub fn parse_host_text(text: &str, path: &Path) -> Result<HostFile, PolicyError> {
    let mut findings = Findings::default();
    let sources = [SourceText { path: path.to_owned(), text: text.to_owned() }];
    // The host file is nobody's own: `~/` means nothing in it.
    let options = LoadOptions { home: None, is_root: true };
    let raw = syntax::parse::<RawHost>(text, &mut findings).ok();
    let mut context = Context { findings: &mut findings, sources: &sources, options: &options };
    raw.and_then(|raw| convert::host_file(&raw, &mut context)).ok_or_else(|| findings.into_error(&sources))
}

/// Where the table of expected verdicts of a policy lies: `FILE.tests`, beside it.
#[must_use]
pub fn expectations_of(policy: &Path) -> PathBuf {
    let mut path = policy.as_os_str().to_owned();
    path.push(".tests");
    path.into()
}

/// Reads the table of expected verdicts at `path`, for `policy`.
///
/// # Errors
/// The file is absent, unsafe or too large, or anything in it is wrong, for this policy.
pub fn load_expectations(path: &Path, policy: &Policy) -> Result<Vec<Expectation>, PolicyError> {
    let bytes = checked_file::read(path, Use::Public, LARGEST)?;
    let text =
        String::from_utf8(bytes).map_err(|_| FileError { path: path.to_owned(), kind: FileErrorKind::NotText })?;
    let mut findings = Findings::default();
    let sources = [SourceText { path: path.to_owned(), text }];
    let [SourceText { text, .. }] = &sources;
    let raw = syntax::parse::<RawExpectations>(text, &mut findings).ok();
    let options = LoadOptions::default();
    let mut context = Context { findings: &mut findings, sources: &sources, options: &options };
    raw.and_then(|raw| convert::expectations(&raw, policy, &mut context)).ok_or_else(|| findings.into_error(&sources))
}

/// Whether the file at `path` is a base: one that others extend, and that speaks for no environment itself. A file that
/// cannot be read, or may not be parsed, is none; [`load_trusted`] says what is wrong with it.
#[must_use]
pub fn is_base(path: &Path, demand: &Demand<'_>, now: SystemTime) -> bool {
    let Ok(bytes) = checked_file::read(path, Use::Public, LARGEST) else { return false };
    if demand.admit(path, &bytes, now).is_err() {
        return false;
    }
    let Ok(text) = String::from_utf8(bytes) else { return false };
    let raw = syntax::parse::<RawPolicy>(&text, &mut Findings::default());
    raw.is_ok_and(|raw| raw.environment.is_some_and(|at| at.as_str() == "*"))
}

/// Reads what [`load`] reads, to compare it with another. A base is read as a policy has it that says nothing more.
///
/// # Errors
/// Those of [`load`].
pub fn load_to_compare(path: &Path, options: &LoadOptions) -> Result<Policy, PolicyError> {
    if !is_base(path, &Demand::default(), SystemTime::UNIX_EPOCH) {
        return load(path, options);
    }
    // It stands beside the base, so that paths mean the same, under a name that no file has.
    let alone = path.with_file_name("\u{0}");
    let (serial, base) = (i64::MAX, path.file_name().unwrap_or_default().to_string_lossy());
    let base = base.replace('\\', "\\\\").replace('"', "\\\"");
    let text = format!("version = 1\nserial = {serial}\nenvironment = \"any\"\nextends = \"{base}\"\n");
    let read = |wanted: &Path| match wanted == alone {
        true => Ok(text.clone().into_bytes()),
        false => checked_file::read(wanted, Use::Public, LARGEST),
    };
    let demand = Demand::default();
    assemble(&alone, options, read, |path, bytes| demand.admit(path, bytes, SystemTime::UNIX_EPOCH), &demand)
}

/// Reads the chain of files that begins at `path`, by `read`, and checks it as a whole. What `admit` refuses is not parsed.
/// [`Policy::digest`] of files with these bytes, in the order of the chain.
#[must_use]
pub fn digest_of<'b>(files: impl IntoIterator<Item = &'b [u8]>) -> String {
    let mut hash = Hash::new(&SHA256);
    files.into_iter().for_each(|bytes| add_to(&mut hash, bytes));
    hex(hash.finish().as_ref())
}

fn add_to(hash: &mut Hash, bytes: &[u8]) {
    hash.update(&(bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

fn assemble<'t>(
    path: &Path,
    options: &LoadOptions,
    read: impl Fn(&Path) -> Result<Vec<u8>, FileError>,
    admit: impl Fn(&Path, &[u8]) -> Result<Admitted<'t>, TrustError>,
    demand: &Demand<'t>,
) -> Result<Policy, PolicyError> {
    let mut hash = Hash::new(&SHA256);
    let mut findings = Findings::default();
    let mut sources: Vec<SourceText> = Vec::new();
    let mut files: Vec<RawPolicy> = Vec::new();
    let mut admitted = Vec::new();
    let (first, mut next) = (path, Some(path.to_owned()));
    while let Some(path) = next.take() {
        let bytes = read(&path).map_err(|error| with_referrer(error, &files, &sources))?;
        admitted.push(admit(&path, &bytes).map_err(|error| PolicyError::of_trust(&error, first))?);
        add_to(&mut hash, &bytes);
        let text =
            String::from_utf8(bytes).map_err(|_| FileError { path: path.clone(), kind: FileErrorKind::NotText })?;
        findings.file = sources.len();
        sources.push(SourceText { path, text });
        let text = sources.last().map_or("", |source| source.text.as_str());
        let Ok(raw) = syntax::parse::<RawPolicy>(text, &mut findings) else {
            return Err(findings.into_error(&sources));
        };
        next = raw.extends.as_ref().and_then(|at| {
            let mut context = Context { findings: &mut findings, sources: &sources, options };
            let base = context.path(at)?;
            if sources.iter().any(|source| plain(&source.path) == plain(&base)) {
                findings.wrong(at, "the policy extends itself");
                return None;
            }
            if sources.len() == LONGEST_CHAIN {
                findings.wrong(at, format!("a chain of `extends` has at most {LONGEST_CHAIN} files"));
                return None;
            }
            Some(base)
        });
        files.push(raw);
    }
    let mut context = Context { findings: &mut findings, sources: &sources, options };
    let policy = convert::policy(&files, hex(hash.finish().as_ref()), &mut context);
    let mut policy = policy.ok_or_else(|| findings.into_error(&sources))?;
    let files = policy.files.iter().zip(admitted).zip(&policy.serials);
    let files: Vec<_> = files.map(|((path, admitted), serial)| (path.as_path(), admitted, *serial)).collect();
    demand.accept(&policy.environment, &files).map_err(|error| PolicyError::of_trust(&error, path))?;
    if demand.is_for(&policy.environment) {
        policy.refuse_recipients_files();
    }
    Ok(policy)
}

/// A base that cannot be read is wrong where it is named.
fn with_referrer(error: FileError, files: &[RawPolicy], sources: &[SourceText]) -> PolicyError {
    let Some(at) = files.last().and_then(|file| file.extends.as_ref()) else { return error.into() };
    let mut findings = Findings::default();
    findings.file = files.len() - 1;
    let finding = findings.wrong(at, error.to_string());
    if let Some(hint) = error.hint() {
        finding.hint(hint);
    }
    findings.into_error(sources)
}

/// The path without `.` and `..` as far as the text tells. Good enough to see a loop; the limit of the chain sees the rest.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if matches!(out.components().next_back(), Some(Component::Normal(_))) => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing into a `String` cannot fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}
