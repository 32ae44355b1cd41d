//! ssh-keygen(1), which makes signatures. The private key is its business alone: it may be encrypted, held by ssh-agent or
//! live in a security key. What it answers is verified before it is used.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ssh_key::{PublicKey, SshSig};

use crate::checked_file::{self, Use, plain_io};
use crate::error::{Cause, Class};
use crate::inject::ParentEnv;
use crate::name::show;
use crate::policy::trust::{is_accepted, is_attended, parse_key};
use crate::sys;

/// What it gets of our environment, beside names that begin with `LC_`: to find itself, its agent and whom to ask. Not all that
/// begin with `SSH_`: a key or a passphrase stands there too, in many a pipeline.
const PASSED: [&str; 20] = [
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "HOME",
    "LANG",
    "LOGNAME",
    "PATH",
    "SSH_AGENT_PID",
    "SSH_ASKPASS",
    "SSH_ASKPASS_REQUIRE",
    "SSH_AUTH_SOCK",
    "SSH_PKCS11_HELPER",
    "SSH_SK_HELPER",
    "SSH_SK_PROVIDER",
    "TERM",
    "TMPDIR",
    "USER",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "XDG_RUNTIME_DIR",
    "XDG_SESSION_TYPE",
];
/// Bytes of a public key's file.
const LARGEST_KEY: u64 = 16_384;

/// ssh-keygen with one key.
#[derive(Debug)]
pub struct SshKeygen {
    key: PathBuf,
    environment: Vec<(OsString, OsString)>,
}

/// Why nothing was signed.
#[derive(Debug)]
pub enum SignError {
    /// It made no signature with this key.
    Failed(PathBuf),
    /// No host accepts signatures by keys of this type.
    KeyType(PathBuf, String),
    /// It could not be run.
    Start(String),
    /// Nobody touched the security key.
    Unattended(PathBuf),
    /// What it made is no signature of what it was given.
    Unfit,
}

impl SshKeygen {
    /// Signs with `key`: a private key, or a public one whose private half ssh-agent holds.
    #[must_use]
    pub fn new(key: &Path, parent: &ParentEnv) -> Self {
        let is_passed = |name: &OsStr| {
            let name = name.to_string_lossy();
            name.starts_with("LC_") || PASSED.contains(&&*name)
        };
        let environment = parent.iter().filter(|(name, _)| is_passed(name)).cloned().collect();
        Self { key: key.to_owned(), environment }
    }

    /// What it makes of `bytes`, and the key that it used.
    ///
    /// # Errors
    /// It fails, or what it made does not fit.
    #[expect(clippy::disallowed_methods, reason = "what is signed is no secret, nor is any of its environment")]
    pub fn sign(&self, bytes: &[u8], namespace: &str) -> Result<(String, PublicKey), SignError> {
        sys::signal::heed_children();
        let mut child = Command::new("ssh-keygen")
            .args(["-Y", "sign", "-n", namespace, "-f"])
            .arg(&self.key)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // What it asks and what it complains of is for the one who signs.
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(|error| SignError::Start(plain_io(&error)))?;
        let written = child.stdin.take().map_or(Ok(()), |mut input| input.write_all(bytes));
        let made = child.wait_with_output().map_err(|error| SignError::Start(plain_io(&error)))?;
        if !made.status.success() || written.is_err() {
            return Err(SignError::Failed(self.key.clone()));
        }
        let text = String::from_utf8(made.stdout).map_err(|_| SignError::Unfit)?;
        let signature = SshSig::from_pem(&text).map_err(|_| SignError::Unfit)?;
        let signer = PublicKey::from(signature.public_key().clone());
        if !is_accepted(signer.key_data()) {
            return Err(SignError::KeyType(self.key.clone(), signer.algorithm().to_string()));
        }
        signer.verify(namespace, bytes, &signature).map_err(|_| SignError::Unfit)?;
        if !is_attended(&signature) {
            return Err(SignError::Unattended(self.key.clone()));
        }
        Ok((text, signer))
    }

    /// The public half, where it lies beside the key or is what was named. The private half is not looked at.
    #[must_use]
    pub fn public_key(&self) -> Option<PublicKey> {
        let path = match self.key.extension() {
            Some(extension) if extension == "pub" => self.key.clone(),
            _ => {
                let mut path = self.key.clone().into_os_string();
                path.push(".pub");
                path.into()
            }
        };
        let text = checked_file::read_text(&path, Use::Public, LARGEST_KEY).ok()?;
        parse_key(text.trim())
    }
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(key) => write!(f, "ssh-keygen made no signature with `{}`", show(key)),
            Self::KeyType(key, kind) => write!(f, "`{}` is a key of type `{kind}`, which no host accepts", show(key)),
            Self::Start(why) => write!(f, "cannot run ssh-keygen: {why}"),
            Self::Unattended(key) => {
                write!(f, "nobody touched the security key of `{}`, and no host takes such a signature", show(key))
            }
            Self::Unfit => write!(f, "what ssh-keygen made is no signature of this file"),
        }
    }
}

impl Cause for SignError {
    fn class(&self) -> Class {
        match self {
            Self::Failed(_) | Self::KeyType(..) | Self::Unattended(_) => Class::Identity,
            Self::Start(_) | Self::Unfit => Class::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Failed(key) => Some(format!("ssh-keygen -l -f {}", show(key))),
            Self::KeyType(..) => Some("ssh-keygen -t ed25519   # or ecdsa with 256 bits, or their -sk kinds".into()),
            Self::Start(_) => Some("apt-get install openssh-client".into()),
            Self::Unattended(_) => Some("ssh-keygen -t ed25519-sk   # without -O no-touch-required".into()),
            Self::Unfit => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// GitLab's usual name for a deploy key among them.
    #[test]
    fn what_may_be_a_credential_is_not_passed_on() {
        let names = ["SSH_AUTH_SOCK", "SSH_PRIVATE_KEY", "SSH_PASSPHRASE", "VOUCHSAFE_SIGN_KEY", "AWS_PROFILE", "PATH"];
        let parent = ParentEnv::new(names.iter().map(|name| (name.into(), "x".into())).collect());
        let mut passed: Vec<_> = SshKeygen::new(Path::new("key"), &parent).environment;
        passed.sort();
        assert_eq!(passed, ["PATH", "SSH_AUTH_SOCK"].map(|name| (name.into(), "x".into())));
    }
}
