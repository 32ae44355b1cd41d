//! The `kms` store: a sealed file whose recipient is an AWS KMS key, and ciphertexts that the policy itself holds.
//!
//! The file is an age file like any other (`docs/spec/kms-stanza.md`): its file key lies encrypted under the KMS key in a
//! stanza of its own, and perhaps under offline age recipients beside it. One fetch makes at most one `Decrypt` for the
//! file, however many values it holds, and none where a local identity opens it. The key is always named in the call, and
//! a stanza of another key than the policy's is never sent to KMS, but for the one old key that `rekey` was told.

mod calls;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::Instant;

use age_core::format::{FileKey, Stanza};
use age_core::secrecy::ExposeSecret;

use calls::{decrypt, encrypt};

use super::aws::error::{AwsError, Problem};
use super::aws::retry::concurrently;
use super::aws::{Access, Aws, Calls};
use super::document::{Document, Exposed};
use super::identity::{self, Environment, Identities, NamedRecipient};
use super::rekey::{Rekey, Rekeyed, Witness};
use super::sealed::{KMS_STANZA, KmsStanza, Opening, SealedBytes, SealedErrorKind as Kind};
use super::sealed_file::{SealedFile, answer_from};
use super::vouched::{Guard, OpenedFile, Vouched};
use super::write::{self, Failure, Keys, Seal};
use super::{Answer, Fetched, Store, StoreError, StoreErrorKind, Wanted};
use crate::name::{EnvironmentName, ServiceName, StoreName};
use crate::policy::model::KmsStore;
use crate::secret::Secret;

/// Bytes of a file key (C2SP age.md, "File key").
const FILE_KEY: usize = 16;

/// A `kms` store of a policy, for one environment and service.
pub struct KmsFile<'a> {
    name: &'a StoreName,
    store: &'a KmsStore,
    environment: &'a EnvironmentName,
    service: Option<&'a ServiceName>,
    env: Environment<'a>,
    aws: RefCell<Aws<'a>>,
    /// The key that the file may be under still, and the way to it.
    old: Option<(&'a str, RefCell<Aws<'a>>)>,
    guard: Guard<'a>,
    exposed: Vec<Exposed>,
    opened: Option<OpenedFile>,
}

/// The region in the ARN of a key.
#[must_use]
pub fn region_of(key: &str) -> Option<&str> {
    key.split(':').nth(3).filter(|region| !region.is_empty())
}

/// The encryption context of a sealed file: canonical, since a map has one order and each key once. A context without a
/// service is that of a file for every service of the environment.
#[must_use]
pub fn context_of(
    environment: &EnvironmentName,
    service: Option<&ServiceName>,
    own: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut context = own.clone();
    context.insert("vouchsafe:environment".into(), environment.to_string());
    if let Some(service) = service {
        context.insert("vouchsafe:service".into(), service.to_string());
    }
    context
}

impl<'a> KmsFile<'a> {
    /// Touches nothing yet.
    #[must_use]
    pub fn new(
        name: &'a StoreName,
        store: &'a KmsStore,
        environment: &'a EnvironmentName,
        service: Option<&'a ServiceName>,
        access: Access<'a>,
        guard: Guard<'a>,
    ) -> Self {
        let (env, aws) = (access.env, RefCell::new(Aws::new(access)));
        Self { name, store, environment, service, env, aws, old: None, guard, exposed: Vec::new(), opened: None }
    }

    /// A stanza of this key is opened too, where there is none of the policy's. Nothing is written to it.
    #[must_use]
    pub fn with_old_key(self, key: &'a str, access: Access<'a>) -> Self {
        Self { old: Some((key, RefCell::new(Aws::new(access)))), ..self }
    }

    fn load(&self, deadline: Instant) -> Result<(Document, OpenedFile), StoreError> {
        let Some(path) = &self.store.path else { return Err(self.not_offered("items: it has no `path`")) };
        let file = self.guard.read(path).map_err(|kind| match kind {
            Kind::File(error) if error.is_absent() => self.sealed(Kind::NeverWritten),
            other => self.sealed(other),
        })?;
        let document = self.content(file.vouched(), deadline)?;
        self.guard.refuse_old(&document).map_err(|kind| self.sealed(kind))?;
        let generation = Some(document.generation);
        Ok((document, OpenedFile { path: path.clone(), generation, signed_by: file.signed_by() }))
    }

    fn content(&self, bytes: Vouched<'_>, deadline: Instant) -> Result<Document, StoreError> {
        let open = || {
            let document = Document::parse(self.keys(deadline)?.open(bytes)?.expose())?;
            document.matches(self.environment, self.service).map_err(Kind::Mismatch)?;
            Ok(document)
        };
        open().map_err(|kind| self.sealed(kind))
    }

    fn keys(&self, deadline: Instant) -> Result<FileKeys<'_, 'a>, Kind> {
        Ok(FileKeys {
            file: self,
            deadline,
            identities: Identities::load(&self.store.identities, self.env).map_err(Kind::Identity)?,
            recipients: identity::validate_recipients(&self.store.recipients).map_err(Kind::Recipient)?,
            service: RefCell::new(self.service.cloned()),
        })
    }

    fn context(&self, service: Option<&ServiceName>) -> BTreeMap<String, String> {
        context_of(self.environment, service, &self.store.context)
    }

    fn run<T>(
        &self,
        deadline: Instant,
        work: impl AsyncFnOnce(&Calls<'_>) -> Result<T, AwsError>,
    ) -> Result<T, AwsError> {
        self.aws.borrow_mut().run(deadline, work)
    }

    /// The stanza to ask KMS for: that of the policy's key, else that of the old one. Who can write the file must not choose
    /// the key, so all others stay where they are.
    fn choose<'s>(&self, stanzas: &'s [KmsStanza]) -> Option<(&'s KmsStanza, &RefCell<Aws<'a>>)> {
        let of = |key: &str| stanzas.iter().find(|stanza| stanza.key == key);
        let own = of(&self.store.key).map(|stanza| (stanza, &self.aws));
        own.or_else(|| self.old.as_ref().and_then(|(key, aws)| of(key).map(|stanza| (stanza, aws))))
    }

    /// The file key in a stanza. A file that belongs to every service of the environment has the context without one; it
    /// is tried second.
    fn file_key(&self, (stanza, aws): (&KmsStanza, &RefCell<Aws<'a>>), deadline: Instant) -> Result<FileKey, AwsError> {
        let key = &stanza.key;
        let plaintext = aws.borrow_mut().run(deadline, async |calls| {
            let context = self.context(self.service);
            match decrypt(calls, key, &stanza.ciphertext, &context).await {
                Err(error) if error.problem == Problem::WrongContext && self.service.is_some() => {
                    decrypt(calls, key, &stanza.ciphertext, &self.context(None)).await
                }
                other => other,
            }
        })?;
        let bytes = plaintext.expose();
        if bytes.len() != FILE_KEY {
            return Err(Problem::BadAnswer("what it decrypted is no file key").into());
        }
        // Written where it stays: an array on the way would leave a copy on the stack, which no allocator wipes.
        Ok(FileKey::init_with_mut(|key| key.copy_from_slice(bytes)))
    }

    fn sealed(&self, kind: Kind) -> StoreError {
        match (kind, &self.store.path) {
            (Kind::Aws(error), _) => self.failed(*error),
            (kind, Some(path)) => StoreError { store: self.name.clone(), kind: StoreErrorKind::Sealed(kind.at(path)) },
            (_, None) => self.not_offered("items: it has no `path`"),
        }
    }

    fn settled<T>(&self, done: Result<T, Failure<Kind>>) -> Result<T, StoreError> {
        done.map_err(|failure| match failure {
            Failure::Change(kind) | Failure::File(kind) => self.sealed(kind),
        })
    }

    fn failed(&self, error: AwsError) -> StoreError {
        StoreError { store: self.name.clone(), kind: StoreErrorKind::Aws(Box::new(error)) }
    }

    fn not_offered(&self, what: &'static str) -> StoreError {
        StoreError { store: self.name.clone(), kind: StoreErrorKind::NotOffered { what } }
    }

    fn ciphertexts(&self, wanted: &[Wanted], deadline: Instant) -> Result<Vec<Secret>, StoreError> {
        let mut blobs = wanted.iter().filter_map(|one| match one {
            Wanted::Ciphertext { ciphertext, context } => Some((ciphertext, context)),
            Wanted::Bundle { .. } | Wanted::Item { .. } => None,
        });
        let Some(first) = blobs.next() else { return Ok(Vec::new()) };
        let key = &self.store.key;
        self.run(deadline, async |calls| {
            let all = std::iter::once(first).chain(blobs);
            concurrently(calls.in_flight(), all.map(|(blob, context)| decrypt(calls, key, blob, context))).await
        })
        .map_err(|error| self.failed(error))
    }
}

impl Store for KmsFile<'_> {
    fn fetch(&mut self, wanted: &[Wanted], deadline: Instant) -> Result<Vec<Answer>, StoreError> {
        let needs_file = wanted.iter().any(|one| !matches!(one, Wanted::Ciphertext { .. }));
        let (document, opened) = needs_file.then(|| self.load(deadline)).transpose()?.unzip();
        self.opened = opened;
        self.exposed = document.as_ref().map(Document::exposed).unwrap_or_default();
        let mut inline = self.ciphertexts(wanted, deadline)?.into_iter();
        let answer = |one: &Wanted| match (one, &document) {
            (Wanted::Ciphertext { .. }, _) => inline.next().map_or(Answer::Absent, |value| {
                Answer::Found(Fetched { value, version: None, stage: None, written: None })
            }),
            (one, Some(document)) => answer_from(document, one),
            (_, None) => Answer::Absent,
        };
        Ok(wanted.iter().map(answer).collect())
    }

    fn exposed(&self) -> Vec<Exposed> {
        self.exposed.clone()
    }

    fn opened(&self) -> Option<&OpenedFile> {
        self.opened.as_ref()
    }
}

impl SealedFile for KmsFile<'_> {
    fn refuse_unwritable(&self) -> Result<(), StoreError> {
        match self.store.path {
            Some(_) => self.guard.refuse_unsigned_write().map_err(|kind| self.sealed(kind)),
            None => Err(self.not_offered("items: it has no `path`")),
        }
    }

    fn document(&self, deadline: Instant) -> Result<Document, StoreError> {
        Ok(self.load(deadline)?.0)
    }

    fn document_in(&self, bytes: &[u8], deadline: Instant) -> Result<Document, StoreError> {
        self.content(Vouched::of_no_store(bytes), deadline)
    }

    fn update<T>(
        &self,
        change: impl FnOnce(&mut Document) -> Result<T, Kind>,
        deadline: Instant,
    ) -> Result<T, StoreError> {
        let Some(path) = &self.store.path else { return Err(self.not_offered("items: it has no `path`")) };
        let keys = self.keys(deadline).map_err(|kind| self.sealed(kind))?;
        self.settled(write::update(path, &keys, &self.guard, keys.guarded(change)))
    }

    fn service(&self) -> Option<&ServiceName> {
        self.service
    }

    fn store(&self) -> &StoreName {
        self.name
    }

    fn path(&self) -> Result<&Path, StoreError> {
        self.store.path.as_deref().ok_or_else(|| self.not_offered("items: it has no `path`"))
    }

    fn create_if_absent(&self, service: Option<&ServiceName>, deadline: Instant) -> Result<(), StoreError> {
        let Some(path) = &self.store.path else { return Err(self.not_offered("items: it has no `path`")) };
        if path.symlink_metadata().is_ok() {
            return Ok(());
        }
        let keys = self.keys(deadline).map_err(|kind| self.sealed(kind))?;
        keys.service.replace(service.cloned());
        match write::create(path, Document::new(self.environment.clone(), service.cloned()), &keys, &self.guard) {
            // Another writer was faster; its file is as good.
            Ok(()) | Err(Kind::Exists) => Ok(()),
            Err(kind) => Err(self.sealed(kind)),
        }
    }
}

impl Rekey for KmsFile<'_> {
    fn path(&self) -> Option<&Path> {
        self.store.path.as_deref()
    }

    fn rekey(
        &self,
        change: &mut dyn FnMut(&mut Document) -> Result<(), Kind>,
        is_rehearsal: bool,
        deadline: Instant,
    ) -> Result<Rekeyed, StoreError> {
        let Some(path) = &self.store.path else { return Err(self.not_offered("items: it has no `path`")) };
        let keys = self.keys(deadline).map_err(|kind| self.sealed(kind))?;
        let witness = Witness::new(&keys);
        let change = keys.guarded(change);
        self.settled(match is_rehearsal {
            true => write::rehearse(path, &witness, &self.guard, change),
            false => write::update(path, &witness, &self.guard, change),
        })?;
        Ok(witness.into_rekeyed())
    }
}

/// How this file is opened and sealed. Both ask KMS from synchronous code: no method of age's traits runs inside the
/// event loop.
struct FileKeys<'k, 'a> {
    file: &'k KmsFile<'a>,
    deadline: Instant,
    identities: Identities,
    recipients: Vec<NamedRecipient>,
    /// The service that the document is bound to, and so its context.
    service: RefCell<Option<ServiceName>>,
}

impl FileKeys<'_, '_> {
    /// `change` on a document that belongs here, and what follows from who can read the result.
    fn guarded<T>(
        &self,
        change: impl FnOnce(&mut Document) -> Result<T, Kind>,
    ) -> impl FnOnce(&mut Document) -> Result<T, Kind> {
        |document| {
            document.matches(self.file.environment, self.file.service).map_err(Kind::Mismatch)?;
            self.file.guard.refuse_old(document)?;
            // What was for every service stays so.
            self.service.replace(document.service.clone());
            let answer = change(document)?;
            let names = |noted: &str| self.recipients.iter().any(|one| one.text == noted);
            document.expose_again(|noted| noted == self.file.store.key || names(noted));
            Ok(answer)
        }
    }
}

impl Keys for FileKeys<'_, '_> {
    fn open(&self, bytes: Vouched<'_>) -> Result<Secret, Kind> {
        let sealed = SealedBytes::parse(bytes)?;
        let stanzas = match sealed.open(self.identities.iter())? {
            Opening::Opened(plaintext) => return Ok(plaintext),
            Opening::Locked(stanzas) => stanzas,
        };
        let Some(ours) = self.file.choose(&stanzas) else {
            return Err(match stanzas.first() {
                None => Kind::NoIdentityFits { tried: self.identities.tried() },
                Some(other) => Kind::OtherKmsKey { found: other.key.clone() },
            });
        };
        let file_key = self.file.file_key(ours, self.deadline)?;
        sealed.open_with_file_key(file_key)
    }

    fn with_recipients(&self, seal: Seal<'_>) -> Result<Vec<u8>, Kind> {
        let kms = KmsRecipient { keys: self, failure: RefCell::new(None) };
        let offline = self.recipients.iter().map(|one| &*one.recipient as &dyn ::age::Recipient);
        let all: Vec<&dyn ::age::Recipient> = std::iter::once(&kms as &dyn ::age::Recipient).chain(offline).collect();
        let sealed = seal(&all);
        match kms.failure.take() {
            Some(error) => Err(error.into()),
            None => sealed,
        }
    }
}

/// The KMS key as an age recipient.
struct KmsRecipient<'r, 'k, 'a> {
    keys: &'r FileKeys<'k, 'a>,
    /// The crate's own error has no place for it.
    failure: RefCell<Option<AwsError>>,
}

impl ::age::Recipient for KmsRecipient<'_, '_, '_> {
    fn wrap_file_key(&self, file_key: &FileKey) -> Result<(Vec<Stanza>, HashSet<String>), ::age::EncryptError> {
        let KmsFile { store, .. } = self.keys.file;
        let context = self.keys.file.context(self.keys.service.borrow().as_ref());
        let wrapped = self.keys.file.run(self.keys.deadline, async |calls| {
            encrypt(calls, &store.key, file_key.expose_secret(), &context).await
        });
        match wrapped {
            Ok(body) => {
                let stanza = Stanza { tag: KMS_STANZA.to_owned(), args: vec![store.key.clone()], body };
                Ok((vec![stanza], HashSet::new()))
            }
            Err(error) => {
                self.failure.replace(Some(error));
                Err(::age::EncryptError::Io(std::io::ErrorKind::Other.into()))
            }
        }
    }
}

#[cfg(test)]
#[path = "kms_tests.rs"]
mod tests;
