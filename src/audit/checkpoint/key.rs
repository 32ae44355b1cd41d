//! Who signs checkpoints: an Ed25519 key of one log, in `<log>.key`, and the text by which others know it.
//!
//! It is no secret that outlives the host: whoever takes the host can sign what he likes. What he signed before is elsewhere.

use std::fmt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use zeroize::Zeroizing;

use crate::audit::chain::{Digest, push_hex};
use crate::audit::error::AuditError;
use crate::audit::head::{Making, open_checked_as};
use crate::audit::sink_file::random;

/// The type of an Ed25519 key in a note (signed-note, "Signature types").
const ALGORITHM: u8 = 1;

/// The key that signs.
pub(in crate::audit) struct Signer {
    name: String,
    pair: Ed25519KeyPair,
}

/// The key that others verify with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    public: [u8; 32],
}

impl Signer {
    /// Reads the key of a log, or makes one.
    ///
    /// # Errors
    /// The file is not ours alone, cannot be read or written, or holds no key.
    pub(in crate::audit) fn of_log(log: &Path) -> Result<Self, AuditError> {
        let mut path = log.as_os_str().to_owned();
        path.push(".key");
        let path = PathBuf::from(path);
        let failed = |doing, error| AuditError::File { path: path.clone(), doing, error };
        let opened = open_checked_as(&path, rustix::fs::OFlags::empty(), Making::IfAbsent)?;
        let (file, _) = opened.ok_or_else(|| failed("open", std::io::ErrorKind::NotFound.into()))?;
        let mut text = Zeroizing::new(vec![0; LONGEST]);
        let read = file.read_at(&mut text, 0).map_err(|error| failed("read", error))?;
        if read == 0 {
            let (seed, name) = (Zeroizing::new(random::<32>()?), name_of(log));
            let line = Zeroizing::new(format!("{MAGIC}{name} {}\n", *Zeroizing::new(STANDARD.encode(*seed))));
            file.write_all_at(line.as_bytes(), 0)
                .and_then(|()| file.sync_all())
                .map_err(|error| failed("write", error))?;
            return Self::of_seed(&name, seed.as_slice());
        }
        let line =
            text.get(..read).and_then(|text| std::str::from_utf8(text).ok()).and_then(|line| line.strip_suffix('\n'));
        let (name, seed) = line
            .and_then(|line| line.strip_prefix(MAGIC)?.split_once(' '))
            .ok_or_else(|| AuditError::NoKey { path: path.clone() })?;
        let seed = Zeroizing::new(STANDARD.decode(seed).unwrap_or_default());
        Self::of_seed(name, &seed).map_err(|_| AuditError::NoKey { path: path.clone() })
    }

    pub(in crate::audit) fn of_seed(name: &str, seed: &[u8]) -> Result<Self, AuditError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| AuditError::Random)?;
        Ok(Self { name: name.to_owned(), pair })
    }

    pub(in crate::audit) fn name(&self) -> &str {
        &self.name
    }

    /// The signature of a note's text, with the key's id before it.
    pub(in crate::audit) fn sign(&self, text: &[u8]) -> Vec<u8> {
        let mut out = self.verifier().id().to_vec();
        out.extend_from_slice(self.pair.sign(text).as_ref());
        out
    }

    pub(in crate::audit) fn verifier(&self) -> VerifierKey {
        let mut public = [0; 32];
        public.iter_mut().zip(self.pair.public_key().as_ref()).for_each(|(to, from)| *to = *from);
        VerifierKey { name: self.name.clone(), public }
    }
}

const MAGIC: &str = "vouchsafe-checkpoint-key/1 ";
const LONGEST: usize = 1024;

/// `host/log`, of characters that a name may have: no spaces, no `+`.
fn name_of(log: &Path) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let log = log.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let plain = |text: &str| -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' };
        text.chars().take(64).map(plain).collect()
    };
    format!("{}/{}", plain(&host), plain(&log))
}

impl VerifierKey {
    /// Reads `NAME+ID+KEY`, as golang.org/x/mod/sumdb/note writes it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // The key itself may hold a `+`; name and id never do.
        let (name, rest) = text.split_once('+')?;
        let (id, key) = rest.split_once('+')?;
        let bytes = STANDARD.decode(key).ok()?;
        let public: [u8; 32] = bytes.strip_prefix(&[ALGORITHM])?.try_into().ok()?;
        let this = Self { name: name.to_owned(), public };
        let is_name = !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c.is_control());
        (is_name && this.hex_id() == id).then_some(this)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The first bytes of SHA-256(name, newline, algorithm, key).
    pub(super) fn id(&self) -> [u8; 4] {
        let mut bytes = format!("{}\n", self.name).into_bytes();
        bytes.push(ALGORITHM);
        bytes.extend_from_slice(&self.public);
        let mut id = [0; 4];
        id.iter_mut().zip(Digest::of(&bytes).0).for_each(|(to, from)| *to = from);
        id
    }

    fn hex_id(&self) -> String {
        let mut out = Vec::with_capacity(8);
        push_hex(&mut out, &self.id());
        String::from_utf8(out).unwrap_or_default()
    }

    pub(super) fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.public).verify(text, signature).is_ok()
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![ALGORITHM];
        key.extend_from_slice(&self.public);
        write!(f, "{}+{}+{}", self.name, self.hex_id(), STANDARD.encode(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of the documentation of golang.org/x/mod/sumdb/note.
    #[test]
    fn a_key_is_read_as_go_writes_it() {
        let text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let key = VerifierKey::parse(text).unwrap();
        assert_eq!((key.name(), key.to_string().as_str()), ("PeterNeumann", text));
        // And the note that it signed there.
        let note =
            "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
        let signature = STANDARD
            .decode("x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=")
            .unwrap();
        assert!(key.verifies(note.as_bytes(), &signature[4..]));
        assert_eq!(signature[..4], key.id());
    }

    #[test]
    fn keys_with_a_plus_and_texts_that_are_none() {
        let signers = (0..40_u8).map(|byte| Signer::of_seed("h/audit", &[byte; 32]).unwrap().verifier());
        let with_plus = signers.filter(|key| key.to_string().matches('+').count() > 2);
        let mut seen = 0;
        for key in with_plus {
            assert_eq!(VerifierKey::parse(&key.to_string()), Some(key));
            seen += 1;
        }
        assert!(seen > 0);
        let good = Signer::of_seed("h/audit", &[1; 32]).unwrap().verifier().to_string();
        for text in ["", "+", "a+b", "a+b+c", &good.replace("h/", "g/"), &good[..good.len() - 4]] {
            assert_eq!(VerifierKey::parse(text), None, "{text}");
        }
    }
}
