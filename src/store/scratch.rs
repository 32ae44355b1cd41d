//! For tests: a folder of its own, 0700, removed at the end; keys; and the plain means to look at files.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use ::age::secrecy::ExposeSecret;
use ::age::x25519;
use ring::signature::{Ed25519KeyPair, KeyPair};
use ssh_key::public::{Ed25519PublicKey, KeyData};
use ssh_key::{Algorithm, HashAlg, LineEnding, PublicKey, Signature, SshSig};

use crate::name::{EnvironmentName, ItemName, ServiceName, StoreName};
use crate::policy::model::{AgeStore, DocumentFormat, IdentitySource, Trust, TrustedKey};
use crate::policy::trust::SEALED_NAMESPACE;
use crate::secret::Secret;
use crate::ssh_keygen::SignError;
use crate::store::vouched::Sign;

/// A temporary folder.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("vouchsafe-store-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        set_mode(&path, 0o700);
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>, mode: u32) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        set_mode(&path, mode);
        path
    }

    /// The names in it, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

pub(crate) fn read(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    std::fs::File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

pub(crate) fn environment(name: &str) -> EnvironmentName {
    EnvironmentName::new(name).unwrap()
}

pub(crate) fn service(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

pub(crate) fn item(name: &str) -> ItemName {
    ItemName::new(name).unwrap()
}

pub(crate) fn store_name() -> StoreName {
    StoreName::new("files").unwrap()
}

pub(crate) fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec())
}

pub(crate) fn no_env(_: &str) -> Option<OsString> {
    None
}

/// The text of an identity file.
pub(crate) fn key_text(key: &x25519::Identity) -> String {
    format!("# created: now\n# public key: {}\n{}\n", key.to_public(), key.to_string().expose_secret())
}

/// A store `prod.age` with its key in `key.txt`.
pub(crate) fn age_store(folder: &Scratch, key: &x25519::Identity) -> AgeStore {
    folder.write("key.txt", key_text(key), 0o600);
    AgeStore {
        path: folder.path("prod.age"),
        format: DocumentFormat::Sealed,
        unbound: false,
        recipients: vec![key.to_public().to_string()],
        recipients_file: None,
        is_file_refused: false,
        identities: vec![IdentitySource::File(folder.path("key.txt"))],
        min_generation: 0,
    }
}

/// A key that signs as ssh-keygen would.
pub(crate) struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    pub(crate) fn new(seed: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }

    pub(crate) fn public(&self) -> PublicKey {
        let point = Ed25519PublicKey::try_from(self.0.public_key().as_ref()).unwrap();
        PublicKey::from(KeyData::Ed25519(point))
    }

    /// An armored signature.
    pub(crate) fn signature(&self, namespace: &str, bytes: &[u8]) -> String {
        let data = SshSig::signed_data(namespace, HashAlg::Sha512, bytes).unwrap();
        let made = Signature::new(Algorithm::Ed25519, self.0.sign(&data).as_ref().to_vec()).unwrap();
        let signature = SshSig::new(self.public().key_data().clone(), namespace, HashAlg::Sha512, made).unwrap();
        signature.to_pem(LineEnding::LF).unwrap()
    }

    /// A host that trusts this key for `environment`, and demands it of sealed files there.
    pub(crate) fn trusted_for(&self, name: &str) -> Trust {
        let environments = vec![environment(name)];
        let key =
            TrustedKey { key: self.public().to_openssh().unwrap(), environments: environments.clone(), expires: None };
        Trust { sealed_files: environments.clone(), environments, keys: vec![key], ..Trust::default() }
    }
}

impl Sign for SigningKey {
    fn sign(&self, bytes: &[u8]) -> Result<(String, PublicKey), SignError> {
        Ok((self.signature(SEALED_NAMESPACE, bytes), self.public()))
    }

    fn public_key(&self) -> Option<PublicKey> {
        Some(self.public())
    }
}
