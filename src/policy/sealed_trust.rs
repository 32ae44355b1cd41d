//! Signatures of sealed files: whether a host may open one, before anything of it is parsed.
//!
//! age says that a file is intact, not who made it: whoever knows its recipients can make another. So a host file can demand
//! a signature of sealed files too. It lies beside the file as a policy's does ([`super::trust`]), over the exact bytes as they
//! lie on the disk, but in a namespace of its own: neither counts as the other.
//!
//! `FILE.sig` may hold several signatures, one after the other. File and signature cannot be replaced at one instant, so a
//! writer puts the new signature beside the old one first; each is good for one of the two files. The file is accepted if one of
//! them is good: one that is not neither helps nor hurts.

use std::path::Path;
use std::time::SystemTime;

use ssh_key::PublicKey;

use super::trust::{
    SEALED_NAMESPACE, TrustError, TrustErrorKind, parse_signature, signature_of, signed_by, signer, trusted,
};
use crate::checked_file::{self, Use};
use crate::name::EnvironmentName;
use crate::policy::model::{Trust, TrustedKey};

/// Signatures in one file.
const MOST: usize = 8;
/// Bytes of such a file.
pub const LARGEST: u64 = 16_384;
const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const END: &str = "-----END SSH SIGNATURE-----";

/// What a host demands of the sealed files of one environment. There is none where it demands nothing.
#[derive(Debug, Clone, Copy)]
pub struct SealedDemand<'t> {
    trust: &'t Trust,
    environment: &'t EnvironmentName,
}

/// What stands in a signature file: armored signatures, not looked into yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signatures(Vec<String>);

impl<'t> SealedDemand<'t> {
    /// What `trust` demands of the sealed files of `environment`.
    #[must_use]
    pub fn of(trust: Option<&'t Trust>, environment: &'t EnvironmentName) -> Option<Self> {
        let trust = trust.filter(|trust| trust.sealed_files.contains(environment))?;
        Some(Self { trust, environment })
    }

    /// The key that answers for the file at `path` with these bytes, by the signatures beside it.
    ///
    /// # Errors
    /// There is none.
    pub fn admit(&self, path: &Path, bytes: &[u8], now: SystemTime) -> Result<&'t TrustedKey, TrustError> {
        let fail = |kind| TrustError { path: path.to_owned(), kind };
        let text = checked_file::read(&signature_of(path), Use::Public, LARGEST).map_err(|error| {
            fail(match error.is_absent() {
                true => TrustErrorKind::Unsigned(Some(self.environment.clone())),
                false => TrustErrorKind::Unreadable(error),
            })
        })?;
        Signatures::parse(&text).and_then(|signatures| self.accept(bytes, &signatures, now)).map_err(fail)
    }

    /// The key that answers for these bytes, by one of `signatures`.
    ///
    /// # Errors
    /// Why none of them counts: of the one that comes closest.
    pub fn accept(
        &self,
        bytes: &[u8],
        signatures: &Signatures,
        now: SystemTime,
    ) -> Result<&'t TrustedKey, TrustErrorKind> {
        let mut refusal = TrustErrorKind::Malformed;
        for text in &signatures.0 {
            let key = signer(bytes, text.as_bytes(), SEALED_NAMESPACE, self.trust, now);
            match key.and_then(|key| self.of_environment(key)) {
                Ok(key) => return Ok(key),
                Err(kind) if closeness(&kind) > closeness(&refusal) => refusal = kind,
                Err(_) => {}
            }
        }
        Err(refusal)
    }

    /// Whether what `key` signs would be accepted.
    ///
    /// # Errors
    /// Why not.
    pub fn may_sign(&self, key: &PublicKey, now: SystemTime) -> Result<(), TrustErrorKind> {
        trusted(key, self.trust, now).and_then(|key| self.of_environment(key)).map(drop)
    }

    /// The environment.
    #[must_use]
    pub fn environment(&self) -> &'t EnvironmentName {
        self.environment
    }

    fn of_environment(&self, key: &'t TrustedKey) -> Result<&'t TrustedKey, TrustErrorKind> {
        if key.environments.contains(self.environment) {
            Ok(key)
        } else {
            Err(TrustErrorKind::Foreign(self.environment.clone()))
        }
    }
}

/// How far a signature got, so that of several the one is told of that somebody can do something about.
fn closeness(kind: &TrustErrorKind) -> u8 {
    match kind {
        TrustErrorKind::Malformed => 0,
        TrustErrorKind::Namespace => 1,
        TrustErrorKind::Forged => 2,
        _ => 3,
    }
}

impl Signatures {
    /// Takes the text of a signature file apart. Nothing stands before, between or behind signatures but line ends.
    ///
    /// # Errors
    /// Something does, or there is no signature, or there are too many.
    pub fn parse(text: &[u8]) -> Result<Self, TrustErrorKind> {
        let text = str::from_utf8(text).map_err(|_| TrustErrorKind::Malformed)?;
        let (mut blocks, mut open) = (Vec::new(), None::<String>);
        for line in text.split_inclusive('\n') {
            match (line.trim_end_matches(['\n', '\r']), &mut open) {
                (BEGIN, None) if blocks.len() < MOST => open = Some(line.to_owned()),
                ("", None) => {}
                (BEGIN, _) | (_, None) => return Err(TrustErrorKind::Malformed),
                (END, Some(block)) => {
                    block.push_str(END);
                    block.push('\n');
                    blocks.extend(open.take());
                }
                (_, Some(block)) => block.push_str(line),
            }
        }
        if blocks.is_empty() || open.is_some() { Err(TrustErrorKind::Malformed) } else { Ok(Self(blocks)) }
    }

    /// Those that were made of these bytes, by whomever.
    #[must_use]
    pub fn made_of(&self, bytes: &[u8]) -> Self {
        let is_of = |text: &&String| {
            let signature = parse_signature(text.as_bytes(), SEALED_NAMESPACE);
            signature.is_ok_and(|signature| signed_by(bytes, &signature).is_ok())
        };
        Self(self.0.iter().filter(is_of).cloned().collect())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that this key has not made.
    #[must_use]
    pub fn without(&self, key: &PublicKey) -> Self {
        let is_other = |text: &&String| {
            let signature = parse_signature(text.as_bytes(), SEALED_NAMESPACE);
            !signature.is_ok_and(|signature| signature.public_key() == key.key_data())
        };
        Self(self.0.iter().filter(is_other).cloned().collect())
    }

    /// These and then the others, as many as a file may hold.
    #[must_use]
    pub fn before(&self, others: &Self) -> Self {
        Self(self.0.iter().chain(&others.0).take(MOST).cloned().collect())
    }

    /// What a signature file with these holds.
    #[must_use]
    pub fn to_text(&self) -> String {
        self.0.concat()
    }
}

#[cfg(test)]
#[path = "sealed_trust_tests.rs"]
mod tests;
