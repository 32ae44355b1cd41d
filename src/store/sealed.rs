//! The age file around a document: opening it in two passes, encrypting, and what can go wrong.
//!
//! Pass one tries the local identities; one that fails does not end the search, and stanzas of AWS KMS are noted on the way.
//! Only if none fits does the KMS store ask for the file key of a noted stanza, and pass two opens the file with it. No
//! method of the age crate's traits waits for anything. Nothing is handed out before the last chunk of the payload has
//! been verified (C2SP age.md, "Payload"). Limits are [`super::header`]'s; writing to disk is [`mod@super::write`]'s.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::io::{Read, Write};

use ::age::armor::{ArmoredWriter, Format};
use ::age::{DecryptError, Decryptor, Encryptor, Identity, Recipient};
use age_core::format::{FileKey, Stanza};
use zeroize::Zeroizing;

use super::header;
pub use super::sealed_error::{SealedError, SealedErrorKind, Tried};
use super::vouched::Vouched;
use crate::secret::Secret;

/// Bytes of a sealed file as it lies on the disk.
pub const MAX_FILE: u64 = 16 * 1024 * 1024;
/// The type of the stanza that holds a file key under an AWS KMS key. Its one argument is the key's ARN.
pub const KMS_STANZA: &str = "vouchsafe-kms";

/// A file key under an AWS KMS key, as noted in pass one. None of it is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KmsStanza {
    /// The key's ARN, as the file says. Compare it with the policy's before using it.
    pub key: String,
    /// What KMS `Encrypt` answered.
    pub ciphertext: Vec<u8>,
}

/// What pass one found.
pub enum Opening {
    /// A local identity opened the file.
    Opened(Secret),
    /// No local identity fits. The stanzas of KMS keys, if any, are these.
    Locked(Vec<KmsStanza>),
}

/// An age file within limits, armor off. Both passes run on it.
pub struct SealedBytes<'a> {
    binary: Cow<'a, [u8]>,
}

impl<'a> SealedBytes<'a> {
    /// Takes the armor off and checks the limits of what lies on the disk.
    ///
    /// # Errors
    /// Not an age file, or armor or header damaged, or a limit passed.
    pub fn parse(vouched: Vouched<'a>) -> Result<Self, SealedErrorKind> {
        Self::parse_within(vouched, MAX_FILE)
    }

    /// [`Self::parse`] with another limit for the size of the file.
    ///
    /// # Errors
    /// Those of [`Self::parse`].
    pub fn parse_within(vouched: Vouched<'a>, limit: u64) -> Result<Self, SealedErrorKind> {
        let bytes = vouched.bytes();
        if bytes.len() as u64 > limit {
            return Err(SealedErrorKind::Limit("bytes of the file", limit));
        }
        Ok(Self { binary: header::prepare(bytes)? })
    }

    /// Pass one.
    ///
    /// # Errors
    /// Header or payload damaged. That no identity fits is no error here.
    pub fn open<'i>(&self, identities: impl IntoIterator<Item = &'i dyn Identity>) -> Result<Opening, SealedErrorKind> {
        let failure = Cell::new(None);
        let patient: Vec<_> = identities.into_iter().map(|inner| Patient { inner, failure: &failure }).collect();
        let recorder = Recorder::default();
        let all = patient.iter().map(|one| one as &dyn Identity).chain([&recorder as &dyn Identity]);
        match (self.decrypt(all), failure.take()) {
            (
                Err(DecryptError::NoMatchingKeys),
                Some(error @ (DecryptError::InvalidHeader | DecryptError::ExcessiveWork { .. })),
            ) => Err(explain(&error)),
            (Err(DecryptError::NoMatchingKeys), _) => Ok(Opening::Locked(recorder.found.into_inner())),
            (Err(error), _) => Err(explain(&error)),
            (Ok(opened), _) => opened.map(Opening::Opened),
        }
    }

    /// The types of the recipients' stanzas, in the order of the header. Public: they say how many can open it, not who.
    ///
    /// # Errors
    /// The header is damaged.
    pub fn stanza_types(&self) -> Result<Vec<String>, SealedErrorKind> {
        Ok(self.stanzas()?.into_iter().map(|(kind, _)| kind).collect())
    }

    /// The types of the stanzas, each with its only argument if it has one: that of a KMS key is the key.
    ///
    /// # Errors
    /// The header is damaged.
    pub(super) fn stanzas(&self) -> Result<Vec<(String, Option<String>)>, SealedErrorKind> {
        let census = Census::default();
        match self.decrypt(std::iter::once(&census as &dyn Identity)) {
            Ok(_) | Err(DecryptError::NoMatchingKeys) => Ok(census.stanzas.into_inner()),
            Err(error) => Err(explain(&error)),
        }
    }

    /// Pass two: with the file key that KMS has decrypted.
    ///
    /// # Errors
    /// The key is not this file's, or header or payload are damaged.
    pub fn open_with_file_key(&self, file_key: FileKey) -> Result<Secret, SealedErrorKind> {
        let known = Known(Cell::new(Some(file_key)));
        match self.decrypt(std::iter::once(&known as &dyn Identity)) {
            Ok(opened) => opened,
            Err(error) => Err(explain(&error)),
        }
    }

    /// The outer error is the header's, the inner one the payload's.
    fn decrypt<'i>(
        &self,
        identities: impl Iterator<Item = &'i dyn Identity>,
    ) -> Result<Result<Secret, SealedErrorKind>, DecryptError> {
        let mut reader = Decryptor::new_buffered(self.binary.as_ref())?.decrypt(identities)?;
        // A plaintext is shorter than its file, so this buffer never grows. It is wiped also on the way out by an error.
        let mut plaintext = Zeroizing::new(vec![0; self.binary.len()]);
        let mut length = 0;
        loop {
            let Some(free) = plaintext.get_mut(length..) else { return Ok(Err(SealedErrorKind::Payload)) };
            match reader.read(free) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(_) => return Ok(Err(SealedErrorKind::Payload)),
            }
        }
        plaintext.truncate(length);
        Ok(Ok(Secret::new(std::mem::take(&mut *plaintext))))
    }
}

/// [`SealedBytes::parse`] and pass one.
///
/// # Errors
/// Those of both.
pub fn open<'i>(
    vouched: Vouched<'_>,
    identities: impl IntoIterator<Item = &'i dyn Identity>,
) -> Result<Opening, SealedErrorKind> {
    SealedBytes::parse(vouched)?.open(identities)
}

/// Encrypts to all `recipients`, armored.
///
/// # Errors
/// There are none, or they cannot stand side by side (post-quantum and classic ones), or one of them failed.
pub fn encrypt<'r>(
    plaintext: &Secret,
    recipients: impl IntoIterator<Item = &'r dyn Recipient>,
) -> Result<Vec<u8>, SealedErrorKind> {
    let encryptor = Encryptor::with_recipients(recipients.into_iter()).map_err(|error| match error {
        ::age::EncryptError::MissingRecipients => SealedErrorKind::Encrypt("there is no recipient"),
        ::age::EncryptError::IncompatibleRecipients { .. } => {
            SealedErrorKind::Encrypt("post-quantum and classic recipients cannot share a file")
        }
        _ => SealedErrorKind::Encrypt("a recipient failed"),
    })?;
    let failed = |_| SealedErrorKind::Encrypt("the ciphertext could not be put together");
    let mut bytes = Vec::with_capacity(plaintext.expose().len() / 3 * 4 + 4096);
    let armor = ArmoredWriter::wrap_output(&mut bytes, Format::AsciiArmor).map_err(failed)?;
    let mut writer = encryptor.wrap_output(armor).map_err(failed)?;
    writer.write_all(plaintext.expose()).map_err(failed)?;
    writer.finish().and_then(ArmoredWriter::finish).map_err(failed)?;
    Ok(bytes)
}

/// The crate's error as ours. Its own text never leaves: an I/O error in it may hold anything.
fn explain(error: &DecryptError) -> SealedErrorKind {
    match error {
        DecryptError::InvalidMac => SealedErrorKind::HeaderMac,
        DecryptError::ExcessiveWork { .. } => {
            SealedErrorKind::Limit("scrypt work factor", header::MAX_WORK_FACTOR.into())
        }
        DecryptError::UnknownFormat => SealedErrorKind::Header("its first line names no version that this build reads"),
        DecryptError::Io(_) => SealedErrorKind::Header("it is cut short"),
        _ => SealedErrorKind::Header("a line of it is malformed"),
    }
}

/// An identity that keeps its failure to itself, so that the next one is tried.
struct Patient<'a> {
    inner: &'a dyn Identity,
    failure: &'a Cell<Option<DecryptError>>,
}

impl Patient<'_> {
    fn keep(&self, answer: Option<Result<FileKey, DecryptError>>) -> Option<Result<FileKey, DecryptError>> {
        match answer {
            Some(Err(error)) => {
                self.failure.set(Some(error));
                None
            }
            other => other,
        }
    }
}

impl Identity for Patient<'_> {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        self.keep(self.inner.unwrap_stanza(stanza))
    }

    fn unwrap_stanzas(&self, stanzas: &[Stanza]) -> Option<Result<FileKey, DecryptError>> {
        self.keep(self.inner.unwrap_stanzas(stanzas))
    }
}

/// Notes what kinds of stanzas there are, and opens none.
#[derive(Default)]
struct Census {
    stanzas: RefCell<Vec<(String, Option<String>)>>,
}

impl Identity for Census {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        let argument = if let [argument] = stanza.args.as_slice() { Some(argument.clone()) } else { None };
        self.stanzas.borrow_mut().push((stanza.tag.clone(), argument));
        None
    }
}

/// Opens nothing; notes the stanzas of KMS.
#[derive(Default)]
struct Recorder {
    found: RefCell<Vec<KmsStanza>>,
}

impl Identity for Recorder {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        if stanza.tag == KMS_STANZA
            && let [key] = stanza.args.as_slice()
            && let Ok(mut found) = self.found.try_borrow_mut()
        {
            found.push(KmsStanza { key: key.clone(), ciphertext: stanza.body.clone() });
        }
        None
    }
}

/// A file key that is known already.
struct Known(Cell<Option<FileKey>>);

impl Identity for Known {
    fn unwrap_stanza(&self, _: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        self.0.take().map(Ok)
    }
}

#[cfg(test)]
#[path = "sealed_tests.rs"]
mod tests;
