//! The way to the bytes of a sealed file: read, and where the host demands it answered for by a signature, before anything of
//! them is parsed.
//!
//! What opens a sealed file takes [`Vouched`] bytes. For a store's file [`Guard::read`] and [`Guard::admit`] make them, which look
//! at its signatures; bytes that no program gets a value of come in by [`Vouched::of_no_store`], whose callers can be counted.
//!
//! Where nothing is demanded, nothing more is read than the file.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ssh_key::PublicKey;

use super::document::Document;
use super::sealed::{MAX_FILE, SealedErrorKind as Kind};
use crate::checked_file::{self, Use};
use crate::policy::model::TrustedKey;
use crate::policy::sealed_trust::{LARGEST, SealedDemand, Signatures};
use crate::policy::trust::{SEALED_NAMESPACE, TrustError, TrustErrorKind, fingerprint, parse_key, signature_of};
use crate::ssh_keygen::{SignError, SshKeygen};

/// How often a file may be replaced while its signature is looked at.
const ATTEMPTS: usize = 8;

/// Bytes that may be opened as a sealed file.
///
/// ```compile_fail,E0451
/// let vouched = vouchsafe::store::vouched::Vouched { bytes: b"age-encryption.org/v1" };
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Vouched<'b> {
    bytes: &'b [u8],
}

impl<'b> Vouched<'b> {
    /// What is no store's file as a policy uses it: a seed, or an older version that is only shown, by names and numbers.
    #[must_use]
    pub fn of_no_store(bytes: &'b [u8]) -> Self {
        Self { bytes }
    }

    /// What this process has made itself, to be read back.
    pub(super) fn just_made(bytes: &'b [u8]) -> Self {
        Self { bytes }
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(self) -> &'b [u8] {
        self.bytes
    }
}

/// The file of a store, read and admitted.
#[derive(Debug)]
pub struct Admitted<'t> {
    bytes: Vec<u8>,
    key: Option<&'t TrustedKey>,
}

impl Admitted<'_> {
    /// For whoever opens it.
    #[must_use]
    pub fn vouched(&self) -> Vouched<'_> {
        Vouched { bytes: &self.bytes }
    }

    /// The key that answers for it; `None` where the host demands nothing.
    #[must_use]
    pub fn key(&self) -> Option<&TrustedKey> {
        self.key
    }

    /// Who answers for it, as `ssh-keygen -l` names the key; `None` where the host demands nothing.
    #[must_use]
    pub fn signed_by(&self) -> Option<String> {
        self.key.and_then(|key| parse_key(&key.key)).map(|key| fingerprint(&key))
    }
}

/// What is known of the file that a store has opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenedFile {
    /// The file, as the policy names it.
    pub path: PathBuf,
    /// How often its document was written; `None` of a file made by hand.
    pub generation: Option<u64>,
    /// The key that answers for it, as `ssh-keygen -l` names it; `None` where the host demands none.
    pub signed_by: Option<String>,
}

/// Makes signatures of sealed files.
pub trait Sign {
    /// An armored signature of `bytes`, in the namespace of sealed files.
    ///
    /// # Errors
    /// There is none.
    fn sign(&self, bytes: &[u8]) -> Result<(String, PublicKey), SignError>;

    /// The key that it will use, where that can be known before.
    fn public_key(&self) -> Option<PublicKey>;
}

impl Sign for SshKeygen {
    fn sign(&self, bytes: &[u8]) -> Result<(String, PublicKey), SignError> {
        Self::sign(self, bytes, SEALED_NAMESPACE)
    }

    fn public_key(&self) -> Option<PublicKey> {
        Self::public_key(self)
    }
}

/// Whether there is a signature beside the file at `path`, and none that is of it as it is. What cannot be read is for
/// whoever uses it to tell of.
#[must_use]
pub fn is_signature_outdated(path: &Path) -> bool {
    let signature = signature_of(path);
    if signature.symlink_metadata().is_err() {
        return false;
    }
    let read = |path: &Path, limit| checked_file::read(path, Use::Public, limit).ok();
    match (read(path, MAX_FILE), read(&signature, LARGEST)) {
        (Some(bytes), Some(text)) => Signatures::parse(&text).unwrap_or_default().made_of(&bytes).is_empty(),
        _ => false,
    }
}

/// What stands between a sealed file and its use: what this host and the policy demand of it, and who signs what is written.
#[derive(Clone, Copy, Default)]
pub struct Guard<'a> {
    /// What the host demands, if anything.
    pub demand: Option<SealedDemand<'a>>,
    /// The least generation that the policy accepts.
    pub min_generation: u64,
    /// Who signs what is written, if anybody.
    pub signer: Option<&'a dyn Sign>,
}

impl<'a> Guard<'a> {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// It cannot be read, or someone else could have written it; nobody answers for it.
    pub fn read(&self, path: &Path) -> Result<Admitted<'a>, Kind> {
        let read = || checked_file::read(path, Use::Public, MAX_FILE).map_err(Kind::File);
        let mut bytes = read()?;
        let Some(demand) = self.demand else { return Ok(Admitted { bytes, key: None }) };
        // A writer may have replaced both between our two looks. At every instant the two that lie there fit, so what does not
        // fit and has not been replaced meanwhile is not good.
        for _ in 0..ATTEMPTS {
            match demand.admit(path, &bytes, SystemTime::now()) {
                Ok(key) => return Ok(Admitted { bytes, key: Some(key) }),
                Err(error) => {
                    let newer = read()?;
                    if newer == bytes {
                        return Err(Kind::Trust(Box::new(error)));
                    }
                    bytes = newer;
                }
            }
        }
        Err(Kind::Io { doing: "read it together with its signature", error: rustix::io::Errno::BUSY.into() })
    }

    /// The same for bytes that were read under the lock of a writer, so that no other one can have replaced them. What is to be
    /// signed builds upon nothing whose own signature does not fit, demanded or not.
    ///
    /// # Errors
    /// Nobody answers for them.
    pub(super) fn admit(&self, path: &Path, bytes: Vec<u8>) -> Result<Admitted<'a>, Kind> {
        let fail = |error| Kind::Trust(Box::new(error));
        let admit = |demand: SealedDemand<'a>| demand.admit(path, &bytes, SystemTime::now());
        let key = self.demand.map(admit).transpose().map_err(fail)?;
        // Whoever signs the new file answers for all of the old one that stays in it.
        if self.demand.is_none() && self.signer.is_some() && is_signature_outdated(path) {
            return Err(fail(TrustError { path: path.to_owned(), kind: TrustErrorKind::Forged }));
        }
        Ok(Admitted { bytes, key })
    }

    /// Refuses a document that is older than the policy accepts.
    ///
    /// # Errors
    /// It is.
    pub(super) fn refuse_old(&self, document: &Document) -> Result<(), Kind> {
        let (found, least) = (document.generation, self.min_generation);
        if found < least { Err(Kind::Old { found, least }) } else { Ok(()) }
    }

    /// Refuses a write whose result would not be read here, as far as that shows before anything is done.
    ///
    /// # Errors
    /// The host demands a signature, and there is no key to sign with, or it is one that would not count.
    pub(super) fn refuse_unsigned_write(&self) -> Result<(), Kind> {
        let Some(demand) = self.demand else { return Ok(()) };
        let signer = self.signer.ok_or_else(|| Kind::NoSignKey(demand.environment().clone()))?;
        match signer.public_key() {
            Some(key) => demand.may_sign(&key, SystemTime::now()).map_err(|kind| Kind::SignKey(Box::new(kind))),
            None => Ok(()),
        }
    }

    /// A signature of what is about to be written, if one is demanded or somebody is there to make it.
    ///
    /// # Errors
    /// Nobody makes it, or it would not count here.
    pub(super) fn sign(&self, bytes: &[u8]) -> Result<Option<Signatures>, Kind> {
        self.refuse_unsigned_write()?;
        let Some(signer) = self.signer else { return Ok(None) };
        let (text, _) = signer.sign(bytes).map_err(Kind::Sign)?;
        let refused = |kind| Kind::SignKey(Box::new(kind));
        let signatures = Signatures::parse(text.as_bytes()).map_err(refused)?;
        if let Some(demand) = self.demand {
            demand.accept(bytes, &signatures, SystemTime::now()).map_err(refused)?;
        }
        Ok(Some(signatures))
    }
}

#[cfg(test)]
#[path = "vouched_tests.rs"]
mod tests;
