//! For tests: a folder of its own, 0700, removed at the end; keys; and the plain means to look at files.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use ::age::secrecy::ExposeSecret;
use ::age::x25519;

use crate::name::{EnvironmentName, ItemName, ServiceName, StoreName};
use crate::policy::model::{AgeStore, DocumentFormat, IdentitySource};
use crate::secret::Secret;

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
    }
}
