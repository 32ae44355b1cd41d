//! What can go wrong with a sealed file, told apart as far as the user can do something different about it.
//!
//! Names, paths and fixed sentences only: never a byte of a plaintext, of an identity or of a line.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::aws::error::AwsError;
use super::document::{DocumentError, Malformed, Mismatch};
use super::identity::{DOES_NOT_FIT, IdentityError, RecipientError};
use crate::checked_file::{FileError, FileErrorKind, plain_io};
use crate::error::{Cause, Class};
use crate::name::{EnvironmentName, show};
use crate::policy::trust::{TrustError, TrustErrorKind};
use crate::ssh_keygen::SignError;

/// A sealed file and what is wrong with it.
#[derive(Debug)]
pub struct SealedError {
    /// The file, as the policy names it.
    pub path: PathBuf,
    /// What is wrong. Boxed, so that results stay small.
    pub kind: Box<SealedErrorKind>,
}

/// What is wrong with a sealed file.
#[derive(Debug)]
pub enum SealedErrorKind {
    /// The armor is damaged.
    Armor(&'static str),
    /// KMS, which holds its file key, failed.
    Aws(Box<AwsError>),
    /// The change found nothing to write. Never shown: whoever makes such a change expects this.
    CalledOff,
    /// The document does not take the change.
    Change(DocumentError),
    /// It could not be encrypted.
    Encrypt(&'static str),
    /// It was to be created and is there already.
    Exists,
    /// It cannot be read, or someone else could have written it.
    File(FileError),
    /// A file made by hand is not written to.
    HandMade,
    /// The header is damaged.
    Header(&'static str),
    /// The header was changed by someone without the file key.
    HeaderMac,
    /// An identity is unsafe or malformed.
    Identity(IdentityError),
    /// A system call failed while writing.
    Io {
        /// What was being done, as in "cannot ...".
        doing: &'static str,
        /// The error.
        error: io::Error,
    },
    /// A file made by hand is not what the policy says.
    Flat(Malformed),
    /// A limit is passed: of what, and the limit.
    Limit(&'static str, u64),
    /// Another writer holds the folder.
    Locked {
        /// Process and program, if they could be found.
        holder: Option<String>,
    },
    /// The plaintext is not what the policy says.
    Malformed(Malformed),
    /// It belongs to another environment or service.
    Mismatch(Mismatch),
    /// No identity opens it.
    NoIdentityFits {
        /// Each source, and what was wrong with it.
        tried: Vec<Tried>,
    },
    /// No identity opens what was just encrypted, so it was not written.
    NoReadBack,
    /// The host demands a signature of what is written for this environment, and there is no key to sign with.
    NoSignKey(EnvironmentName),
    /// There is no file yet.
    NeverWritten,
    /// It is not an age file at all.
    NotAge,
    /// It is an older copy than the policy accepts.
    Old {
        /// Its generation.
        found: u64,
        /// What the policy demands.
        least: u64,
    },
    /// Its stanzas are of other KMS keys than the policy's. This is the first.
    OtherKmsKey {
        /// The key, as the file says.
        found: String,
    },
    /// The payload is damaged or cut short.
    Payload,
    /// What was read back is not what was written.
    ReadBackDiffers,
    /// A recipient is malformed or of an unknown kind.
    Recipient(RecipientError),
    /// What is to be written could not be signed.
    Sign(SignError),
    /// A signature by the key at hand would not count here.
    SignKey(Box<TrustErrorKind>),
    /// Nobody whom the host trusts answers for it.
    Trust(Box<TrustError>),
    /// It is bound to no environment, and the policy does not say that this is meant.
    Unbound,
}

/// A source of identities that did not open a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// The source, as the policy writes it.
    pub source: String,
    /// What was wrong with it.
    pub why: String,
}

impl SealedErrorKind {
    /// With the file it is about.
    #[must_use]
    pub fn at(self, path: impl Into<PathBuf>) -> SealedError {
        SealedError { path: path.into(), kind: Box::new(self) }
    }

    /// A failed system call.
    pub(super) fn io(doing: &'static str) -> impl Fn(rustix::io::Errno) -> Self {
        move |errno| Self::Io { doing, error: errno.into() }
    }
}

impl From<AwsError> for SealedErrorKind {
    fn from(error: AwsError) -> Self {
        Self::Aws(Box::new(error))
    }
}

impl From<Malformed> for SealedErrorKind {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl From<DocumentError> for SealedErrorKind {
    fn from(error: DocumentError) -> Self {
        Self::Change(error)
    }
}

impl From<FileError> for SealedErrorKind {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl SealedError {
    /// Whether the file simply is not there.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        match &*self.kind {
            SealedErrorKind::File(error) => error.is_absent(),
            SealedErrorKind::NeverWritten => true,
            _ => false,
        }
    }
}

impl fmt::Display for SealedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use SealedErrorKind as Kind;
        let path = show(&self.path);
        match &*self.kind {
            Kind::Aws(error) => write!(f, "`{path}`: {error}"),
            Kind::Armor(why) => write!(f, "the armor of `{path}` is damaged: {why}"),
            Kind::CalledOff => write!(f, "`{path}`: there is nothing to write"),
            Kind::Change(error) => write!(f, "`{path}`: {error}"),
            Kind::Encrypt(why) => write!(f, "`{path}` cannot be encrypted: {why}"),
            Kind::Exists => write!(f, "`{path}` exists already"),
            Kind::File(error) => error.fmt(f),
            Kind::HandMade => write!(f, "`{path}` was made by hand and is only read"),
            Kind::Header(why) => write!(f, "the header of `{path}` is damaged: {why}"),
            Kind::HeaderMac => write!(f, "the header of `{path}` was changed after it was written"),
            Kind::Identity(error) => error.fmt(f),
            Kind::Io { doing, error } => write!(f, "`{path}`: cannot {doing}: {}", plain_io(error)),
            Kind::Limit(what, limit) => write!(f, "`{path}` is over the limit of {limit} for {what}"),
            Kind::Locked { holder: Some(holder) } => write!(f, "`{path}` is being written by {holder}"),
            Kind::Locked { holder: None } => write!(f, "`{path}` is being written by another process"),
            Kind::Flat(malformed) | Kind::Malformed(malformed) => {
                write!(f, "the content of `{path}` is malformed: {malformed}")
            }
            Kind::Mismatch(mismatch) => write!(f, "`{path}` does not open here: {mismatch}"),
            Kind::NoIdentityFits { tried } if tried.is_empty() => {
                write!(f, "`{path}` cannot be opened: the policy names no identity for it")
            }
            Kind::NoIdentityFits { tried } => {
                write!(f, "no identity opens `{path}`: ")?;
                for (index, Tried { source, why }) in tried.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "; " };
                    write!(f, "{comma}`{source}` {why}")?;
                }
                Ok(())
            }
            Kind::NoReadBack => {
                write!(f, "`{path}` was not written: no identity at hand could open it afterwards")
            }
            Kind::NoSignKey(environment) => write!(
                f,
                "`{path}` was not written: this host demands a signature of it for `{environment}`, and no key was given"
            ),
            Kind::NeverWritten => write!(f, "`{path}` does not exist yet"),
            Kind::OtherKmsKey { found } => {
                let found: String = found.chars().take(256).collect();
                write!(
                    f,
                    "`{path}` is sealed under another KMS key than the policy's: `{}`",
                    crate::name::escape(&found)
                )
            }
            Kind::Old { found, least } => {
                write!(f, "`{path}` has generation {found}, and the policy accepts {least} and newer")
            }
            Kind::Sign(error) => write!(f, "`{path}` was not written: {error}"),
            Kind::SignKey(kind) => {
                write!(f, "`{path}` was not written: a signature by this key would not count here: {}", kind.of_key())
            }
            Kind::Trust(error) => error.fmt(f),
            Kind::NotAge => write!(f, "`{path}` is not an age file"),
            Kind::Payload => write!(f, "the payload of `{path}` is damaged or cut short"),
            Kind::ReadBackDiffers => write!(f, "`{path}` was not written: it read back differently"),
            Kind::Recipient(error) => error.fmt(f),
            Kind::Unbound => write!(f, "`{path}` was made by hand, so it is bound to no environment"),
        }
    }
}

impl Cause for SealedError {
    fn class(&self) -> Class {
        use SealedErrorKind as Kind;
        match &*self.kind {
            Kind::Identity(_) | Kind::NoIdentityFits { .. } | Kind::NoReadBack => Class::Identity,
            Kind::Recipient(_) | Kind::Unbound => Class::Policy,
            Kind::Aws(error) => error.class(),
            Kind::Change(error) => error.class(),
            Kind::NoSignKey(_) | Kind::SignKey(_) => Class::Identity,
            Kind::Sign(error) => error.class(),
            _ => Class::Store,
        }
    }

    fn hint(&self) -> Option<String> {
        use SealedErrorKind as Kind;
        let path = show(&self.path);
        match &*self.kind {
            Kind::Armor(_) | Kind::Header(_) | Kind::HeaderMac | Kind::Payload => {
                Some(format!("git log -- {path}   # an older version may be whole"))
            }
            Kind::Aws(error) => error.hint(),
            Kind::Change(error) => error.hint(),
            Kind::File(error) if matches!(error.kind, FileErrorKind::Io(_)) => None,
            Kind::File(error) => error.hint(),
            Kind::HandMade => Some(format!(
                "age -d -i KEY {path} | CHANGE | age -e -a -r RECIPIENT -o {path}.new && mv {path}.new {path}"
            )),
            Kind::Identity(error) => error.hint(),
            Kind::Malformed(_) => {
                Some("a file made by hand needs `format = \"dotenv\"`, \"json\" or \"toml\" in its store".to_owned())
            }
            Kind::NoIdentityFits { tried } if tried.is_empty() => {
                Some("identities = [\"file:/path/to/key\"]   # in the store's table".to_owned())
            }
            Kind::NoIdentityFits { tried } if tried.iter().any(|one| one.why == DOES_NOT_FIT) => {
                let file = |one: &Tried| one.source.strip_prefix("file:").map(ToOwned::to_owned);
                let mut unfit = tried.iter().filter(|one| one.why == DOES_NOT_FIT);
                let key = unfit.find_map(file).unwrap_or_else(|| "KEY".to_owned());
                Some(format!("age-keygen -y {key}   # says whose key it is: one of the store's recipients?"))
            }
            Kind::NoIdentityFits { .. } => {
                Some("put the key there, or name its place in the store's `identities`".to_owned())
            }
            Kind::NeverWritten => Some("vouchsafe set NAME   # writes the first value, and the file".to_owned()),
            Kind::NoReadBack => Some(
                "add the recipient of one of the store's identities to its `recipients`: age-keygen -y KEY".to_owned(),
            ),
            Kind::NoSignKey(environment) => {
                Some(format!("--sign-key FILE   # or VOUCHSAFE_SIGN_KEY: a key that [trust] lists for `{environment}`"))
            }
            Kind::Old { .. } => Some(format!(
                "git log -- {path}   # bring the newest back; or, if it is meant, lower `min_generation` in the policy"
            )),
            Kind::Sign(error) => error.hint(),
            Kind::SignKey(_) => {
                Some("--sign-key FILE   # of a key that [trust] in the host file lists for it".to_owned())
            }
            Kind::Trust(error) => error.sealed_hint(),
            Kind::OtherKmsKey { .. } => {
                Some("vouchsafe rekey --old-key ARN   # if that is the key that the policy named before".to_owned())
            }
            Kind::Recipient(error) => error.hint(),
            Kind::Unbound => Some("unbound = true   # in the store's table, if that is meant".to_owned()),
            _ => None,
        }
    }
}
