//! age identities (private keys) and recipients (public keys): where they are read from, and how their text is checked.
//!
//! A source that is absent is noted and skipped, because a policy lists what several hosts have; one that is there but
//! unsafe or malformed is an error at once, because going on without it would hide that. No error holds a line of either.
//! Plugins and SSH keys are not supported: plugins run programs (RUSTSEC-2024-0433), RSA leaks by time
//! (RUSTSEC-2023-0071).

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use ::age::x25519;
use zeroize::Zeroizing;

use super::sealed::Tried;
use crate::checked_file::{self, FileError, FileErrorKind, Use};
use crate::policy::model::{AgeStore, IdentitySource};

/// Looks up a variable of the environment that the process was started with.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// What is said of a source that holds keys, none of which opens the file.
pub(super) const DOES_NOT_FIT: &str = "does not fit";
/// Bytes of an identity file or variable.
pub const MAX_IDENTITY: u64 = 64 * 1024;
/// Bytes of a recipients file.
pub const MAX_RECIPIENTS: u64 = 1024 * 1024;

/// The identities that were found. No `Debug`: it holds private keys, which the crate wipes when they go.
pub struct Identities {
    keys: Vec<x25519::Identity>,
    sources: Vec<Tried>,
}

/// Why an identity was not used. Never a line of it.
#[derive(Debug)]
pub struct IdentityError {
    /// The source, as the policy writes it.
    pub source: String,
    /// Why.
    pub kind: IdentityErrorKind,
}

/// Why an identity was not used.
#[derive(Debug)]
pub enum IdentityErrorKind {
    /// `credential:` with something that is not one component of a path.
    CredentialName,
    /// It holds no identity.
    Empty,
    /// The file is unsafe or unreadable.
    File(FileError),
    /// A line is not an identity.
    Line(usize, &'static str),
}

/// Why a recipient was not used.
#[derive(Debug)]
pub enum RecipientError {
    /// The file of recipients is unsafe or unreadable.
    File(FileError),
    /// An entry of `recipients`, counted from 1.
    Entry(usize, &'static str),
    /// A line of the file of recipients.
    Line(PathBuf, usize, &'static str),
    /// The policy names none.
    None,
    /// The host demands a signature of the policy, which this file of recipients is not under.
    Unsigned(PathBuf),
}

impl Identities {
    /// Reads every source.
    ///
    /// # Errors
    /// A source that is there is unsafe or malformed.
    pub fn load(sources: &[IdentitySource], env: Environment<'_>) -> Result<Self, IdentityError> {
        let mut found = Self { keys: Vec::new(), sources: Vec::with_capacity(sources.len()) };
        for source in sources {
            let fail = |kind| IdentityError { source: source.describe(), kind };
            let why = match read(source, env).map_err(fail)? {
                Ok(text) => {
                    found.keys.append(&mut parse(&text).map_err(fail)?);
                    DOES_NOT_FIT.to_owned()
                }
                Err(why) => why,
            };
            found.sources.push(Tried { source: source.describe(), why });
        }
        Ok(found)
    }

    /// As the age crate takes them.
    pub fn iter(&self) -> impl Iterator<Item = &dyn ::age::Identity> {
        self.keys.iter().map(|key| key as &dyn ::age::Identity)
    }

    /// Each source and what to say of it once none of them has opened a file.
    #[must_use]
    pub fn tried(&self) -> Vec<Tried> {
        self.sources.clone()
    }
}

/// The text of a source, or why it is absent.
type Text = Result<Zeroizing<Vec<u8>>, String>;

fn read(source: &IdentitySource, env: Environment<'_>) -> Result<Text, IdentityErrorKind> {
    match source {
        IdentitySource::Env(name) => Ok(match env(name.as_str()) {
            None => Err("is not set".to_owned()),
            Some(text) if text.is_empty() => Err("is empty".to_owned()),
            Some(text) => Ok(Zeroizing::new(text.into_vec())),
        }),
        IdentitySource::File(path) => read_file(path, Use::Identity),
        IdentitySource::Credential(name) => {
            if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
                return Err(IdentityErrorKind::CredentialName);
            }
            match env("CREDENTIALS_DIRECTORY").filter(|folder| !folder.is_empty()) {
                None => Ok(Err("has no `CREDENTIALS_DIRECTORY` to lie in".to_owned())),
                Some(folder) => read_file(&Path::new(&folder).join(name), Use::Credential),
            }
        }
    }
}

fn read_file(path: &Path, purpose: Use) -> Result<Text, IdentityErrorKind> {
    match checked_file::read(path, purpose, MAX_IDENTITY) {
        Ok(bytes) => Ok(Ok(Zeroizing::new(bytes))),
        // Not there, or not for us: a policy is shared by root's services and by people who have their own key.
        Err(FileError { kind: FileErrorKind::Io(error), .. })
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory | std::io::ErrorKind::PermissionDenied
            ) =>
        {
            Ok(Err(format!("cannot be read: {}", checked_file::plain_io(&error))))
        }
        Err(error) => Err(IdentityErrorKind::File(error)),
    }
}

/// An identity file as age-keygen(1) writes it: one identity a line, `#` starts a comment line.
fn parse(text: &[u8]) -> Result<Vec<x25519::Identity>, IdentityErrorKind> {
    let mut keys = Vec::new();
    for (number, line) in lines(text) {
        let fail = |why| IdentityErrorKind::Line(number, why);
        let line = std::str::from_utf8(line).map_err(|_| fail("not text"))?;
        let why = |_| fail(unsupported_identity(line).unwrap_or("not an age identity (AGE-SECRET-KEY-1...)"));
        keys.push(line.parse().map_err(why)?);
    }
    if keys.is_empty() { Err(IdentityErrorKind::Empty) } else { Ok(keys) }
}

/// Lines that are neither blank nor comments, with their numbers from 1, without blanks at their ends.
fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    text.split(|byte| *byte == b'\n')
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim_ascii()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with(b"#"))
}

fn unsupported_identity(line: &str) -> Option<&'static str> {
    let kinds = [
        ("AGE-PLUGIN-", "an identity of an age plugin, which is not supported"),
        ("AGE-SECRET-KEY-PQ-", "a post-quantum identity, which this build does not support"),
        ("-----BEGIN AGE ENCRYPTED", "an identity file under a passphrase, which is not supported"),
        ("age-encryption.org/", "an identity file under a passphrase, which is not supported"),
        ("-----BEGIN", "an SSH or PEM key, which is not supported"),
        ("ssh-", "an SSH key, which is not supported"),
        ("age1", "a recipient (public) where an identity (private) belongs"),
    ];
    kinds.iter().find(|(prefix, _)| starts_with_any_case(line, prefix)).map(|(_, why)| *why)
}

/// A recipient of any kind that is supported.
pub struct NamedRecipient {
    /// Its text, the same for all that mean the same key.
    pub text: String,
    /// As the age crate takes it.
    pub recipient: Box<dyn ::age::Recipient + Send + Sync>,
}

/// Reads the recipients of a store, from its list and its file.
///
/// # Errors
/// The first that is not one, or there is none.
pub fn recipients(store: &AgeStore) -> Result<Vec<NamedRecipient>, RecipientError> {
    refuse_unsigned(store)?;
    let mut found = validate_recipients(&store.recipients)?;
    if let Some(path) = &store.recipients_file {
        found.extend(recipients_in(path)?);
    }
    if found.is_empty() { Err(RecipientError::None) } else { Ok(found) }
}

/// Whether the store's file of recipients counts, if it has one.
///
/// # Errors
/// It does not: whoever can write it could let in whom he likes, whatever was signed.
pub fn refuse_unsigned(store: &AgeStore) -> Result<(), RecipientError> {
    match &store.recipients_file {
        Some(path) if store.is_file_refused => Err(RecipientError::Unsigned(path.clone())),
        Some(_) | None => Ok(()),
    }
}

/// Reads a file of recipients.
///
/// # Errors
/// It is unsafe or unreadable, or a line of it is no recipient.
pub fn recipients_in(path: &Path) -> Result<Vec<NamedRecipient>, RecipientError> {
    let text = checked_file::read(path, Use::Public, MAX_RECIPIENTS).map_err(RecipientError::File)?;
    let parsed = lines(&text).map(|(number, line)| {
        let recipient = std::str::from_utf8(line).map_err(|_| "not text").and_then(parse_recipient);
        recipient.map_err(|why| RecipientError::Line(path.to_owned(), number, why))
    });
    parsed.collect()
}

/// Checks the text of recipients without any file, for `policy lint`.
///
/// # Errors
/// The first that is not one.
pub fn validate_recipients(texts: &[String]) -> Result<Vec<NamedRecipient>, RecipientError> {
    texts
        .iter()
        .enumerate()
        .map(|(index, text)| parse_recipient(text).map_err(|why| RecipientError::Entry(index + 1, why)))
        .collect()
}

/// Parses one recipient.
///
/// # Errors
/// Why it is none. Never the text: it may be a private key in the wrong place.
pub fn parse_recipient(text: &str) -> Result<NamedRecipient, &'static str> {
    const BAD: &str = "not an age recipient (age1...): mistyped or cut short";
    // Bech32 puts `1` between the kind and the data, which itself holds no `1` (BIP 173).
    let Some((kind, _)) = text.rsplit_once('1') else { return Err(unsupported_recipient(text).unwrap_or(BAD)) };
    let named = |recipient| NamedRecipient { text: text.to_owned(), recipient };
    match kind {
        "age" => {
            let recipient = text.parse::<x25519::Recipient>().map_err(|_| BAD)?;
            Ok(NamedRecipient { text: recipient.to_string(), recipient: Box::new(recipient) })
        }
        "age1tag" => Ok(named(Box::new(text.parse::<::age::tag::Recipient>().map_err(|_| BAD)?))),
        "age1tagpq" => Ok(named(Box::new(text.parse::<::age::tagpq::Recipient>().map_err(|_| BAD)?))),
        _ => Err(unsupported_recipient(text).unwrap_or(BAD)),
    }
}

fn unsupported_recipient(text: &str) -> Option<&'static str> {
    let kinds = [
        ("AGE-SECRET-KEY-", "an identity (private) where a recipient (public) belongs"),
        ("AGE-PLUGIN-", "an identity of an age plugin where a recipient belongs"),
        ("age1pq1", "a post-quantum recipient, which this build does not support"),
        ("ssh-", "an SSH key, which is not supported"),
        ("age1", "mistyped, or a recipient of an age plugin, which is not supported"),
    ];
    kinds.iter().find(|(prefix, _)| starts_with_any_case(text, prefix)).map(|(_, why)| *why)
}

fn starts_with_any_case(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = &self.source;
        match &self.kind {
            IdentityErrorKind::CredentialName => write!(f, "identity `{source}` is not the name of a credential"),
            IdentityErrorKind::Empty => write!(f, "identity `{source}` holds no key"),
            IdentityErrorKind::File(error) => write!(f, "identity {error}"),
            IdentityErrorKind::Line(line, why) => write!(f, "identity `{source}`, line {line}: {why}"),
        }
    }
}

impl IdentityError {
    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match &self.kind {
            IdentityErrorKind::File(error) => error.hint(),
            IdentityErrorKind::CredentialName => {
                Some("credential:NAME   # a file in $CREDENTIALS_DIRECTORY".to_owned())
            }
            IdentityErrorKind::Empty | IdentityErrorKind::Line(..) => None,
        }
    }
}

impl fmt::Display for RecipientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => write!(f, "recipients {error}"),
            Self::Entry(number, why) => write!(f, "recipient {number} of the store: {why}"),
            Self::Line(path, line, why) => write!(f, "recipients `{}`, line {line}: {why}", crate::name::show(path)),
            Self::None => write!(f, "no recipients are named, so nobody could open what is written"),
            Self::Unsigned(path) => {
                let path = crate::name::show(path);
                write!(
                    f,
                    "recipients `{path}`: this host demands a signature of the policy, and its lines are not under it"
                )
            }
        }
    }
}

impl RecipientError {
    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unsigned(_) => Some(
                "recipients = [\"age1...\"]   # write its lines into the store's table, and sign the policy again"
                    .into(),
            ),
            Self::Entry(..) | Self::File(_) | Self::Line(..) | Self::None => None,
        }
    }
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
