//! Signatures: whether a host may use a policy file, before anything of it is parsed.
//!
//! The host file says for which environments a signature is demanded, by which keys, and from which serial on; nobody else
//! can relax it. A signature is a detached one as `ssh-keygen -Y sign -n vouchsafe` writes it (`PROTOCOL.sshsig` of OpenSSH),
//! beside the file, over its exact bytes. A key of a security key counts only with the user's presence (`PROTOCOL.u2f`).
//!
//! Where `[trust]` stands, a file without a signature is parsed only if the caller has named an environment that demands
//! none, and the policy turns out to be of that environment. A time is that of this host's clock, at use: a signature has
//! none that could be relied on.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ssh_key::public::KeyData;
use ssh_key::{Algorithm, EcdsaCurve, HashAlg, PublicKey, SshSig};

use crate::checked_file::{self, FileError, Use};
use crate::error::{Cause, Class};
use crate::name::{EnvironmentName, show};
use crate::policy::model::{Trust, TrustedKey};

/// What signatures are made for, so that none made for another purpose counts (ssh-keygen(1), `-n`).
pub const NAMESPACE: &str = "vouchsafe";
/// The same for sealed files: a signature of a policy is none of a sealed file, whatever the bytes, and the other way round.
pub const SEALED_NAMESPACE: &str = "vouchsafe-sealed";
/// SIG_VERSION (PROTOCOL.sshsig, section 3).
const VERSION: u32 = 1;
/// Bytes of a signature file: four of a hardware key's.
const LARGEST: u64 = 4096;
/// "Test of user presence" among the flags (U2F raw message formats, section 5.4).
const USER_PRESENT: u8 = 1;
/// Flags and counter behind the signature of a security key.
const TRAILER: usize = 5;

/// What a host demands of the files of a policy.
#[derive(Debug, Clone, Copy, Default)]
pub struct Demand<'t> {
    /// `[trust]` of the host file; without it nothing is demanded.
    pub trust: Option<&'t Trust>,
    /// The environment that the caller asked for.
    pub environment: Option<&'t EnvironmentName>,
}

/// A file that may be parsed, and who answers for it. Only [`Demand::admit`] makes one.
#[derive(Debug, Clone, Copy)]
pub struct Admitted<'t> {
    key: Option<&'t TrustedKey>,
}

/// Why a file is not used.
#[derive(Debug)]
pub struct TrustError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub kind: TrustErrorKind,
}

/// Why a file is not used.
#[derive(Debug)]
pub enum TrustErrorKind {
    /// The key may not sign any more.
    Expired(String),
    /// The key is trusted, and not for this environment.
    Foreign(EnvironmentName),
    /// Not signed, or by somebody else, or the file was changed since.
    Forged,
    /// The signature file is not one.
    Malformed,
    /// It was made for another purpose.
    Namespace,
    /// Nobody touched the security key.
    NotPresent,
    /// The key is revoked.
    Revoked,
    /// An older policy than this host accepts.
    Serial {
        /// What it says.
        found: u64,
        /// What the host demands.
        least: u64,
    },
    /// There is no signature.
    Unsigned(Option<EnvironmentName>),
    /// The signature file cannot be read.
    Unreadable(FileError),
    /// A good signature, by a key that the host does not list.
    Untrusted(String),
}

impl<'t> Demand<'t> {
    /// Whether a policy of this environment needs a signature. An empty list demands everything.
    #[must_use]
    pub fn is_for(&self, environment: &EnvironmentName) -> bool {
        self.trust.is_some_and(|trust| trust.environments.is_empty() || trust.environments.contains(environment))
    }

    /// Whether the file at `path` with these bytes may be parsed.
    ///
    /// # Errors
    /// A signature is demanded and absent, or there is one and it is not good.
    pub fn admit(&self, path: &Path, bytes: &[u8], now: SystemTime) -> Result<Admitted<'t>, TrustError> {
        let Some(trust) = self.trust else { return Ok(Admitted { key: None }) };
        let fail = |kind| TrustError { path: path.to_owned(), kind };
        match checked_file::read(&signature_of(path), Use::Public, LARGEST) {
            Ok(signature) => {
                let key = signer(bytes, &signature, NAMESPACE, trust, now).map_err(fail)?;
                Ok(Admitted { key: Some(key) })
            }
            Err(error) if !error.is_absent() => Err(fail(TrustErrorKind::Unreadable(error))),
            Err(_) => match self.environment {
                Some(environment) if !self.is_for(environment) => Ok(Admitted { key: None }),
                environment => Err(fail(TrustErrorKind::Unsigned(environment.cloned()))),
            },
        }
    }

    /// Whether a parsed policy may be used: each of its files is answered for, in its environment, and new enough.
    /// `files` are the paths of the chain, with who admitted each and the serial that it has.
    ///
    /// # Errors
    /// One of them is not.
    pub fn accept(
        &self,
        environment: &EnvironmentName,
        files: &[(&Path, Admitted<'t>, u64)],
    ) -> Result<(), TrustError> {
        let Some(trust) = self.trust.filter(|_| self.is_for(environment)) else { return Ok(()) };
        let least = trust.min_serial.get(environment).copied().unwrap_or_default();
        for (path, admitted, serial) in files {
            let fail = |kind| Err(TrustError { path: (*path).to_owned(), kind });
            match admitted.key {
                None => return fail(TrustErrorKind::Unsigned(Some(environment.clone()))),
                Some(key) if !key.environments.contains(environment) => {
                    return fail(TrustErrorKind::Foreign(environment.clone()));
                }
                Some(_) if *serial < least => return fail(TrustErrorKind::Serial { found: *serial, least }),
                Some(_) => {}
            }
        }
        Ok(())
    }
}

/// Where the signature of a file lies.
#[must_use]
pub fn signature_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

/// The key of `trust` that has signed `bytes`, for the purpose that `namespace` says.
///
/// # Errors
/// There is no such key, or it does not count.
pub fn signer<'t>(
    bytes: &[u8],
    signature: &[u8],
    namespace: &str,
    trust: &'t Trust,
    now: SystemTime,
) -> Result<&'t TrustedKey, TrustErrorKind> {
    let signature = parse_signature(signature, namespace)?;
    let signed_by = signed_by(bytes, &signature)?;
    let key = trusted(&signed_by, trust, now)?;
    if !is_attended(&signature) {
        return Err(TrustErrorKind::NotPresent);
    }
    Ok(key)
}

/// One armored signature that was made for `namespace`.
pub(super) fn parse_signature(text: &[u8], namespace: &str) -> Result<SshSig, TrustErrorKind> {
    let signature = SshSig::from_pem(text).map_err(|_| TrustErrorKind::Malformed)?;
    // The version is not among what is signed, and the library takes older ones.
    if signature.version() != VERSION {
        return Err(TrustErrorKind::Malformed);
    }
    if signature.namespace() != namespace {
        return Err(TrustErrorKind::Namespace);
    }
    Ok(signature)
}

/// The key that has made `signature` of `bytes`, whoever's it is.
pub(super) fn signed_by(bytes: &[u8], signature: &SshSig) -> Result<PublicKey, TrustErrorKind> {
    // The key's own type decides what is verified, not what the signature says of itself.
    let signed_by = PublicKey::from(signature.public_key().clone());
    if !is_accepted(signed_by.key_data()) || signature.algorithm() != signed_by.algorithm() {
        return Err(TrustErrorKind::Untrusted(fingerprint(&signed_by)));
    }
    signed_by.verify(signature.namespace(), bytes, signature).map_err(|_| TrustErrorKind::Forged)?;
    Ok(signed_by)
}

/// What `trust` lists for this key, if it counts now.
pub(super) fn trusted<'t>(
    key: &PublicKey,
    trust: &'t Trust,
    now: SystemTime,
) -> Result<&'t TrustedKey, TrustErrorKind> {
    let is_it = |line: &str| parse_key(line).is_some_and(|known| known.key_data() == key.key_data());
    if trust.revoked.iter().any(|line| is_it(line)) {
        return Err(TrustErrorKind::Revoked);
    }
    let listed = trust.keys.iter().find(|listed| is_it(&listed.key));
    let listed = listed.ok_or_else(|| TrustErrorKind::Untrusted(fingerprint(key)))?;
    if listed.expires.is_some_and(|expires| now >= expires) {
        return Err(TrustErrorKind::Expired(fingerprint(key)));
    }
    Ok(listed)
}

/// Whether somebody was there: if a security key has signed, he has touched it.
#[must_use]
pub fn is_attended(signature: &SshSig) -> bool {
    if !matches!(signature.public_key(), KeyData::SkEd25519(_) | KeyData::SkEcdsaSha2NistP256(_)) {
        return true;
    }
    // Flags come first of what follows the signature proper.
    let bytes = signature.signature_bytes();
    let flags = bytes.len().checked_sub(TRAILER).and_then(|at| bytes.get(at));
    flags.is_some_and(|flags| flags & USER_PRESENT != 0)
}

/// A public key as OpenSSH writes it, of a type that counts.
#[must_use]
pub fn parse_key(line: &str) -> Option<PublicKey> {
    PublicKey::from_openssh(line).ok().filter(|key| is_accepted(key.key_data()))
}

/// How `ssh-keygen -l` names a key.
#[must_use]
pub fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// Whether keys of this type count.
#[must_use]
pub fn is_accepted(key: &KeyData) -> bool {
    matches!(
        key.algorithm(),
        Algorithm::Ed25519
            | Algorithm::SkEd25519
            | Algorithm::SkEcdsaSha2NistP256
            | Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 }
    )
}

impl Admitted<'_> {
    /// The key that answers for the file; `None` where nothing was demanded.
    #[must_use]
    pub fn key(&self) -> Option<&TrustedKey> {
        self.key
    }
}

impl TrustErrorKind {
    /// The same of the key alone, before anything was signed.
    #[must_use]
    pub fn of_key(&self) -> String {
        match self {
            Self::Expired(key) => format!("the key {key} has expired"),
            Self::Foreign(environment) => format!("it may not sign for `{environment}`"),
            Self::NotPresent => "nobody had touched the security key".to_owned(),
            Self::Revoked => "this host has revoked it".to_owned(),
            Self::Untrusted(key) => format!("this host does not trust the key {key}"),
            _ => "it does not fit".to_owned(),
        }
    }
}

impl TrustError {
    /// [`Cause::hint`], where it is a sealed file.
    #[must_use]
    pub fn sealed_hint(&self) -> Option<String> {
        match &self.kind {
            TrustErrorKind::Forged
            | TrustErrorKind::Malformed
            | TrustErrorKind::Namespace
            | TrustErrorKind::NotPresent
            | TrustErrorKind::Unsigned(_) => Some(format!(
                "vouchsafe policy sign POLICY --key KEY --sealed-files   # if git log -- {} shows who wrote it",
                show(&self.path)
            )),
            _ => self.hint(),
        }
    }
}

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = show(&self.path);
        match &self.kind {
            TrustErrorKind::Expired(key) => write!(f, "`{path}` is signed by the key {key}, which has expired"),
            TrustErrorKind::Foreign(environment) => {
                write!(f, "`{path}` is signed by a key that may not sign for `{environment}`")
            }
            TrustErrorKind::Forged => write!(f, "the signature of `{path}` does not fit: one of the two was changed"),
            TrustErrorKind::Malformed => write!(f, "`{}` is no signature", show(&signature_of(&self.path))),
            TrustErrorKind::Namespace => write!(f, "the signature of `{path}` was made for another purpose"),
            TrustErrorKind::NotPresent => {
                write!(f, "`{path}` was signed by a security key that nobody had touched")
            }
            TrustErrorKind::Revoked => write!(f, "`{path}` is signed by a key that this host has revoked"),
            TrustErrorKind::Serial { found, least } => {
                write!(f, "`{path}` has serial {found}, and this host accepts {least} and newer")
            }
            TrustErrorKind::Unsigned(Some(environment)) => {
                write!(f, "`{path}` is not signed, which this host demands for `{environment}`")
            }
            TrustErrorKind::Unsigned(None) => {
                write!(f, "`{path}` is not signed, and no environment was named for which this host demands nothing")
            }
            TrustErrorKind::Unreadable(error) => error.fmt(f),
            TrustErrorKind::Untrusted(key) => {
                write!(f, "`{path}` is signed by the key {key}, which this host does not trust")
            }
        }
    }
}

impl Cause for TrustError {
    fn class(&self) -> Class {
        Class::Policy
    }

    fn hint(&self) -> Option<String> {
        self.hint_for(&self.path)
    }
}

impl TrustError {
    /// [`Cause::hint`], where the file is one of those of `policy`: it is the policy that is signed, with all that it extends.
    #[must_use]
    pub fn hint_for(&self, policy: &Path) -> Option<String> {
        let path = show(&self.path);
        match &self.kind {
            TrustErrorKind::Forged
            | TrustErrorKind::Malformed
            | TrustErrorKind::Namespace
            | TrustErrorKind::NotPresent
            | TrustErrorKind::Unsigned(Some(_)) => {
                Some(format!("vouchsafe policy sign {} --key KEY   # after reading what it grants", show(policy)))
            }
            TrustErrorKind::Unsigned(None) => Some("--env dev   # or whichever environment it is for".into()),
            TrustErrorKind::Serial { least, .. } => {
                Some(format!("serial = {least}   # in {path}, and sign it again, if it is not an old copy"))
            }
            TrustErrorKind::Expired(_)
            | TrustErrorKind::Foreign(_)
            | TrustErrorKind::Revoked
            | TrustErrorKind::Untrusted(_) => Some("ask the host's owner, who keeps [trust] in the host file".into()),
            TrustErrorKind::Unreadable(error) => error.hint(),
        }
    }
}

#[cfg(test)]
#[path = "trust_tests.rs"]
mod tests;
