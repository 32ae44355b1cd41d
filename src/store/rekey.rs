//! Encrypting a sealed file anew: to what the policy names now, with a new file key, by the write protocol that every
//! change takes ([`mod@super::write`]).
//!
//! The header of an age file says of what kind its stanzas are, and of a KMS key which one it is. Whose an X25519 stanza is
//! it does not say, so nothing here claims to know.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use super::StoreError;
use super::aws::is_on_this_host;
use super::document::Document;
use super::kms::region_of;
use super::sealed::{KMS_STANZA, SealedBytes, SealedErrorKind as Kind};
use super::vouched::Vouched;
use super::write::{Keys, Seal};
use crate::policy::model::{AwsAccess, KmsStore};
use crate::secret::Secret;

/// A store whose file can be encrypted anew.
pub trait Rekey {
    /// Where the file lies; `None` if the store has none.
    fn path(&self) -> Option<&Path>;

    /// Changes the document under the lock and encrypts it anew; see [`super::write::update`]. Rehearsed, it does all of
    /// that up to the write: whoever could not open the result is told, and nothing is touched.
    ///
    /// # Errors
    /// Those of [`super::write::update`], and of `change`.
    fn rekey(
        &self,
        change: &mut dyn FnMut(&mut Document) -> Result<(), Kind>,
        is_rehearsal: bool,
        deadline: Instant,
    ) -> Result<Rekeyed, StoreError>;
}

/// What the header said before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rekeyed {
    /// Of the file that lay there.
    pub before: Stanzas,
    /// Of the one that lies there now.
    pub after: Stanzas,
}

/// What a header tells of those who can open a file. Public.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stanzas {
    /// How many there are of each kind. Without those of random kind that nobody can open (C2SP age.md, "grease").
    pub kinds: BTreeMap<String, usize>,
    /// The KMS keys, in the order of the header.
    pub kms_keys: Vec<String>,
}

impl Stanzas {
    fn of(bytes: Vouched<'_>) -> Result<Self, Kind> {
        let mut stanzas = Self::default();
        for (kind, argument) in SealedBytes::parse(bytes)?.stanzas()? {
            if kind == KMS_STANZA {
                stanzas.kms_keys.extend(argument);
            }
            if !kind.ends_with("-grease") {
                *stanzas.kinds.entry(kind).or_default() += 1;
            }
        }
        Ok(stanzas)
    }
}

/// The KMS key that a file is still sealed under, where the policy names another one already.
#[derive(Debug, Clone)]
pub struct OldKey {
    /// Its ARN.
    pub arn: String,
    /// How it is reached: as the store's own key, but in the region and account of its ARN.
    pub access: AwsAccess,
}

impl OldKey {
    /// `arn` is that of a key. Who names it on the command line names its region and account too.
    #[must_use]
    pub fn new(arn: &str, store: &KmsStore) -> Self {
        let region = region_of(arn);
        // An endpoint of another region would not take the call; an emulator is every region.
        let is_here = region == store.aws.region.as_deref().or_else(|| region_of(&store.key));
        let endpoint = store.aws.endpoint.clone().filter(|url| is_here || is_on_this_host(url));
        let account = store.aws.account.as_ref().and_then(|_| arn.split(':').nth(4));
        let access = AwsAccess {
            region: region.map(ToOwned::to_owned),
            endpoint,
            account: account.map(ToOwned::to_owned),
            ..store.aws.clone()
        };
        Self { arn: arn.to_owned(), access }
    }
}

/// Notes the header of what it opens: first the old file, then the new one, which is read back.
pub(super) struct Witness<'k> {
    keys: &'k dyn Keys,
    seen: RefCell<Vec<Stanzas>>,
}

impl<'k> Witness<'k> {
    pub(super) fn new(keys: &'k dyn Keys) -> Self {
        Self { keys, seen: RefCell::default() }
    }

    pub(super) fn into_rekeyed(self) -> Rekeyed {
        let mut seen = self.seen.into_inner().into_iter();
        let before = seen.next().unwrap_or_default();
        Rekeyed { before, after: seen.last().unwrap_or_default() }
    }
}

impl Keys for Witness<'_> {
    fn open(&self, bytes: Vouched<'_>) -> Result<Secret, Kind> {
        let plaintext = self.keys.open(bytes)?;
        self.seen.borrow_mut().push(Stanzas::of(bytes)?);
        Ok(plaintext)
    }

    fn with_recipients(&self, seal: Seal<'_>) -> Result<Vec<u8>, Kind> {
        self.keys.with_recipients(seal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "arn:aws:kms:us-east-1:444455556666:key/old";

    fn store(access: AwsAccess) -> KmsStore {
        KmsStore {
            aws: access,
            key: "arn:aws:kms:eu-west-1:111122223333:key/new".into(),
            path: None,
            recipients: Vec::new(),
            context: BTreeMap::new(),
            identities: Vec::new(),
            min_generation: 0,
        }
    }

    #[test]
    fn the_old_key_is_asked_where_it_is() {
        let bare = OldKey::new(OLD, &store(AwsAccess::default()));
        assert_eq!((bare.access.region.as_deref(), bare.access.account.as_deref()), (Some("us-east-1"), None));
        let pinned = AwsAccess {
            region: Some("eu-west-1".into()),
            account: Some("111122223333".into()),
            endpoint: Some("https://vpce-1.kms.eu-west-1.vpce.amazonaws.com".into()),
            profile: Some("ops".into()),
            ..AwsAccess::default()
        };
        let old = OldKey::new(OLD, &store(pinned.clone())).access;
        assert_eq!((old.region.as_deref(), old.account.as_deref()), (Some("us-east-1"), Some("444455556666")));
        assert_eq!((old.endpoint, old.profile.as_deref()), (None, Some("ops")), "that endpoint is another region's");
        let near = "arn:aws:kms:eu-west-1:111122223333:key/old";
        assert_eq!(OldKey::new(near, &store(pinned.clone())).access.endpoint, pinned.endpoint);
        let emulator = AwsAccess { endpoint: Some("http://127.0.0.1:5000".into()), ..pinned };
        assert!(OldKey::new(OLD, &store(emulator)).access.endpoint.is_some());
    }
}
