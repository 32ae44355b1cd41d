//! The `age` store: a sealed file, or a stock age file made by hand, on the local disk.
//!
//! One fetch reads and decrypts the file once, whatever is wanted of it. Nothing is kept between calls.

use std::path::Path;
use std::time::Instant;

use super::document::{Document, Exposed};
use super::identity::{self, Environment, Identities};
use super::plain::{self, Flat};
use super::rekey::{Rekey, Rekeyed, Witness};
use super::sealed::{self, Opening, SealedErrorKind as Kind};
use super::sealed_file::{SealedFile, answer_from};
use super::vouched::{Guard, OpenedFile, Vouched};
use super::write::{self, Failure, Keys, Seal};
use super::{Answer, Fetched, Store, StoreError, StoreErrorKind, Wanted, is_below};
use crate::name::{EnvironmentName, ServiceName, StoreName};
use crate::policy::model::{AgeStore, DocumentFormat, Stage};
use crate::secret::Secret;

/// The environment in which a file that is bound to none is read without being asked for.
const DEVELOPMENT: &str = "dev";

/// An `age` store of a policy, for one environment and service.
pub struct AgeFile<'a> {
    name: &'a StoreName,
    store: &'a AgeStore,
    environment: &'a EnvironmentName,
    service: Option<&'a ServiceName>,
    env: Environment<'a>,
    guard: Guard<'a>,
    exposed: Vec<Exposed>,
    opened: Option<OpenedFile>,
}

/// A decrypted file.
enum Content {
    Document(Document),
    Flat(Flat),
}

impl<'a> AgeFile<'a> {
    /// Touches nothing yet. `env` looks up variables of the environment that the process was started with; `guard` says what
    /// the file must have to be used.
    #[must_use]
    pub fn new(
        name: &'a StoreName,
        store: &'a AgeStore,
        environment: &'a EnvironmentName,
        service: Option<&'a ServiceName>,
        env: Environment<'a>,
        guard: Guard<'a>,
    ) -> Self {
        Self { name, store, environment, service, env, guard, exposed: Vec::new(), opened: None }
    }

    /// The whole document, for `check`, `history` and `list`.
    ///
    /// # Errors
    /// The file cannot be opened, or belongs elsewhere, or was made by hand ([`StoreErrorKind::NotOffered`]).
    pub fn document(&self) -> Result<Document, StoreError> {
        match self.load().map_err(|kind| self.sealed(kind))?.0 {
            Content::Document(document) => Ok(document),
            Content::Flat(_) => Err(self.not_offered("versions, since it was made by hand")),
        }
    }

    /// The document in bytes that lie elsewhere: an older version of the file, as git hands it to a textconv.
    ///
    /// # Errors
    /// Those of [`Self::document`].
    pub fn document_in(&self, bytes: &[u8]) -> Result<Document, StoreError> {
        match self.content(Vouched::of_no_store(bytes)).map_err(|kind| self.sealed(kind))? {
            Content::Document(document) => Ok(document),
            Content::Flat(_) => Err(self.not_offered("versions, since it was made by hand")),
        }
    }

    /// Whether this store takes writes at all, before anybody is asked for a value.
    ///
    /// # Errors
    /// The file was made by hand; the host demands a signature of what is written, and nobody would sign it.
    pub fn refuse_unwritable(&self) -> Result<(), StoreError> {
        match self.store.format {
            DocumentFormat::Sealed => {
                identity::refuse_unsigned(self.store).map_err(|error| self.sealed(Kind::Recipient(error)))?;
                self.guard.refuse_unsigned_write().map_err(|kind| self.sealed(kind))
            }
            DocumentFormat::Dotenv | DocumentFormat::Json | DocumentFormat::Toml => Err(self.sealed(Kind::HandMade)),
        }
    }

    /// [`Self::create`], unless there is a file already.
    ///
    /// # Errors
    /// Those of [`Self::create`].
    pub fn create_if_absent(&self, service: Option<&ServiceName>) -> Result<(), StoreError> {
        if self.store.path.symlink_metadata().is_ok() {
            return Ok(());
        }
        match self.create(service) {
            // Another writer was faster; its file is as good.
            Err(StoreError { kind: StoreErrorKind::Sealed(error), .. }) if matches!(*error.kind, Kind::Exists) => {
                Ok(())
            }
            other => other,
        }
    }

    /// Changes the document under a lock and puts it in place; see [`write::update`]. Another environment's document is
    /// never written.
    ///
    /// # Errors
    /// Those of [`write::update`], and of `change`.
    pub fn update<T, E: From<StoreError>>(&self, change: impl FnOnce(&mut Document) -> Result<T, E>) -> Result<T, E> {
        let fail = |kind| E::from(self.sealed(kind));
        if self.store.format != DocumentFormat::Sealed {
            return Err(fail(Kind::HandMade));
        }
        let keys = self.keys().map_err(fail)?;
        self.settled(write::update(&self.store.path, &keys, &self.guard, self.guarded(&keys, change)))
    }

    /// `change` on a document that belongs here, and what follows from who can read the result.
    fn guarded<'g, T, E: From<StoreError>>(
        &'g self,
        keys: &'g FileKeys,
        change: impl FnOnce(&mut Document) -> Result<T, E> + 'g,
    ) -> impl FnOnce(&mut Document) -> Result<T, E> + 'g {
        move |document| {
            let matching = document.matches(self.environment, self.service);
            matching.map_err(|mismatch| E::from(self.sealed(Kind::Mismatch(mismatch))))?;
            self.guard.refuse_old(document).map_err(|kind| E::from(self.sealed(kind)))?;
            let answer = change(document)?;
            document.expose_again(|noted| keys.recipients.iter().any(|one| one.text == noted));
            Ok(answer)
        }
    }

    fn settled<T, E: From<StoreError>>(&self, done: Result<T, Failure<E>>) -> Result<T, E> {
        done.map_err(|failure| match failure {
            Failure::Change(error) => error,
            Failure::File(Kind::File(error)) if error.is_absent() => self.sealed(Kind::NeverWritten).into(),
            Failure::File(kind) => self.sealed(kind).into(),
        })
    }

    /// Writes a first, empty document. It is bound to the environment, and to `service` if that is given.
    ///
    /// # Errors
    /// The file exists; none of the identities could open it; a system call fails.
    pub fn create(&self, service: Option<&ServiceName>) -> Result<(), StoreError> {
        let fail = |kind| self.sealed(kind);
        if self.store.format != DocumentFormat::Sealed {
            return Err(fail(Kind::HandMade));
        }
        let document = Document::new(self.environment.clone(), service.cloned());
        write::create(&self.store.path, document, &self.keys().map_err(fail)?, &self.guard).map_err(fail)
    }

    fn load(&self) -> Result<(Content, OpenedFile), Kind> {
        let made_by_hand = self.store.format != DocumentFormat::Sealed;
        if made_by_hand && !self.store.unbound && self.environment.as_str() != DEVELOPMENT {
            return Err(Kind::Unbound);
        }
        let file = self.guard.read(&self.store.path).map_err(|kind| match kind {
            Kind::File(error) if error.is_absent() && !made_by_hand => Kind::NeverWritten,
            other => other,
        })?;
        let content = self.content(file.vouched())?;
        let generation = match &content {
            Content::Document(document) => {
                self.guard.refuse_old(document)?;
                Some(document.generation)
            }
            Content::Flat(_) => None,
        };
        Ok((content, OpenedFile { path: self.store.path.clone(), generation, signed_by: file.signed_by() }))
    }

    fn content(&self, bytes: Vouched<'_>) -> Result<Content, Kind> {
        let identities = Identities::load(&self.store.identities, self.env).map_err(Kind::Identity)?;
        let plaintext = open(bytes, &identities)?;
        Ok(match self.store.format {
            DocumentFormat::Sealed => {
                let document = Document::parse(plaintext.expose())?;
                document.matches(self.environment, self.service).map_err(Kind::Mismatch)?;
                Content::Document(document)
            }
            DocumentFormat::Dotenv => Content::Flat(plain::dotenv(plaintext.expose()).map_err(Kind::Flat)?),
            DocumentFormat::Json => Content::Flat(plain::json(plaintext.expose()).map_err(Kind::Flat)?),
            DocumentFormat::Toml => Content::Flat(plain::toml(plaintext.expose()).map_err(Kind::Flat)?),
        })
    }

    fn keys(&self) -> Result<FileKeys, Kind> {
        Ok(FileKeys {
            identities: Identities::load(&self.store.identities, self.env).map_err(Kind::Identity)?,
            recipients: identity::recipients(self.store).map_err(Kind::Recipient)?,
        })
    }

    fn sealed(&self, kind: Kind) -> StoreError {
        StoreError { store: self.name.clone(), kind: StoreErrorKind::Sealed(kind.at(&self.store.path)) }
    }

    fn not_offered(&self, what: &'static str) -> StoreError {
        StoreError { store: self.name.clone(), kind: StoreErrorKind::NotOffered { what } }
    }

    fn answer(&self, content: &Content, wanted: &Wanted) -> Result<Answer, StoreError> {
        match (wanted, content) {
            (Wanted::Ciphertext { .. }, _) => Err(self.not_offered("ciphertexts of a policy")),
            (wanted, Content::Document(document)) => Ok(answer_from(document, wanted)),
            (Wanted::Item { version: Some(_), .. }, Content::Flat(_)) => {
                Err(self.not_offered("versions, since it was made by hand"))
            }
            (Wanted::Item { stage: Some(Stage::Pending | Stage::Previous), .. }, Content::Flat(_)) => {
                Err(self.not_offered("stages, since it was made by hand"))
            }
            (Wanted::Item { item, .. }, Content::Flat(flat)) => {
                Ok(flat.get(item).map_or(Answer::Absent, |value| Answer::Found(of_value(value))))
            }
            (Wanted::Bundle { path, recursive, .. }, Content::Flat(flat)) => {
                let items = flat.iter().filter(|(name, _)| is_below(name.as_str(), path, *recursive));
                Ok(Answer::Bundle(items.map(|(name, value)| (name.clone(), of_value(value))).collect()))
            }
        }
    }
}

impl Store for AgeFile<'_> {
    /// A local file answers at once or not at all, so the deadline is not looked at.
    fn fetch(&mut self, wanted: &[Wanted], _deadline: Instant) -> Result<Vec<Answer>, StoreError> {
        let (content, opened) = self.load().map_err(|kind| self.sealed(kind))?;
        self.opened = Some(opened);
        if let Content::Document(document) = &content {
            self.exposed = document.exposed();
        }
        wanted.iter().map(|wanted| self.answer(&content, wanted)).collect()
    }

    fn exposed(&self) -> Vec<Exposed> {
        self.exposed.clone()
    }

    fn opened(&self) -> Option<&OpenedFile> {
        self.opened.as_ref()
    }
}

/// A local file waits for nothing but its lock, which has a limit of its own.
impl SealedFile for AgeFile<'_> {
    fn refuse_unwritable(&self) -> Result<(), StoreError> {
        AgeFile::refuse_unwritable(self)
    }

    fn document(&self, _deadline: Instant) -> Result<Document, StoreError> {
        AgeFile::document(self)
    }

    fn document_in(&self, bytes: &[u8], _deadline: Instant) -> Result<Document, StoreError> {
        AgeFile::document_in(self, bytes)
    }

    fn update<T>(
        &self,
        change: impl FnOnce(&mut Document) -> Result<T, Kind>,
        _deadline: Instant,
    ) -> Result<T, StoreError> {
        AgeFile::update(self, |document| change(document).map_err(|kind| self.sealed(kind)))
    }

    fn create_if_absent(&self, service: Option<&ServiceName>, _deadline: Instant) -> Result<(), StoreError> {
        AgeFile::create_if_absent(self, service)
    }

    fn service(&self) -> Option<&ServiceName> {
        self.service
    }

    fn store(&self) -> &StoreName {
        self.name
    }

    fn path(&self) -> Result<&Path, StoreError> {
        Ok(&self.store.path)
    }
}

impl Rekey for AgeFile<'_> {
    fn path(&self) -> Option<&Path> {
        Some(&self.store.path)
    }

    fn rekey(
        &self,
        change: &mut dyn FnMut(&mut Document) -> Result<(), Kind>,
        is_rehearsal: bool,
        _deadline: Instant,
    ) -> Result<Rekeyed, StoreError> {
        if self.store.format != DocumentFormat::Sealed {
            return Err(self.sealed(Kind::HandMade));
        }
        let keys = self.keys().map_err(|kind| self.sealed(kind))?;
        let witness = Witness::new(&keys);
        let change = self.guarded(&keys, |document| change(document).map_err(|kind| self.sealed(kind)));
        let path = &self.store.path;
        self.settled(match is_rehearsal {
            true => write::rehearse(path, &witness, &self.guard, change),
            false => write::update(path, &witness, &self.guard, change),
        })?;
        Ok(witness.into_rekeyed())
    }
}

fn open(bytes: Vouched<'_>, identities: &Identities) -> Result<Secret, Kind> {
    match sealed::open(bytes, identities.iter())? {
        Opening::Opened(plaintext) => Ok(plaintext),
        Opening::Locked(_) => Err(Kind::NoIdentityFits { tried: identities.tried() }),
    }
}

struct FileKeys {
    identities: Identities,
    recipients: Vec<identity::NamedRecipient>,
}

impl Keys for FileKeys {
    fn open(&self, bytes: Vouched<'_>) -> Result<Secret, Kind> {
        open(bytes, &self.identities)
    }

    fn with_recipients(&self, seal: Seal<'_>) -> Result<Vec<u8>, Kind> {
        let all: Vec<&dyn ::age::Recipient> =
            self.recipients.iter().map(|one| &*one.recipient as &dyn ::age::Recipient).collect();
        seal(&all)
    }
}

fn of_value(value: &Secret) -> Fetched {
    Fetched { value: value.duplicate(), version: None, stage: None, written: None }
}

#[cfg(test)]
#[path = "age_tests.rs"]
mod tests;
