//! `vouchsafe policy sign` and `verify`: signatures of policies, made by ssh-keygen and checked as `run` checks them.
//!
//! The private key is ssh-keygen's business alone: it may be encrypted, held by ssh-agent or live in a security key. What it
//! answers is verified before it is written.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use ssh_key::{PublicKey, SshSig};

use crate::audit::{Event, Outcome};
use crate::checked_file::{self, Use, plain_io};
use crate::error::{Cause, Class, Error};
use crate::inject::ParentEnv;
use crate::name::{EnvironmentName, StoreName, show};
use crate::policy::file::{HOST_FILE, LARGEST, load_host, load_trusted};
use crate::policy::locate::check_match;
use crate::policy::model::Policy;
use crate::policy::trust::{Demand, NAMESPACE, fingerprint, is_accepted, is_attended, signature_of};
use crate::setting::{Setting, load_options};
use crate::store::identity::RecipientError;
use crate::{caller, output, sys};

/// Signs a policy and every file that it extends, each time anew.
///
/// # Errors
/// The policy is invalid, this host would not take it with its file of recipients, ssh-keygen fails, or what it made does not
/// fit.
pub fn sign(path: &Path, key: &Path, parent: &ParentEnv) -> Result<(), Error> {
    let setting = Setting::to_be_signed(path, parent)?;
    refuse_recipients_files(&setting.policy)?;
    let mut auditor = setting.open_auditor(&caller::of_this_process(false), None)?;
    for file in &setting.policy.files {
        let bytes = checked_file::read(file, Use::Public, LARGEST).map_err(SignError::File)?;
        let signed = sign_one(&bytes, key);
        let (outcome, reason) = match &signed {
            Ok((_, signer)) => (Outcome::Succeeded, format!("{} by {}", show(file), fingerprint(signer))),
            Err(error) => (Outcome::Failed, error.to_string()),
        };
        // First: a signature of which there is no record is not left behind.
        auditor.record(Event::PolicySigned, outcome, Some(&reason), &[])?;
        let (signature, signer) = signed?;
        if let Err(error) = replace(&signature_of(file), signature.as_bytes()) {
            auditor.record(Event::PolicySigned, Outcome::Failed, Some(&error.to_string()), &[])?;
            return Err(error.into());
        }
        output::print(&format!("{}: signed by {}\n", show(&signature_of(file)), fingerprint(&signer)))?;
    }
    Ok(())
}

fn refuse_recipients_files(policy: &Policy) -> Result<(), SignError> {
    match policy.refused_recipients_file() {
        Some((store, path)) => Err(SignError::Recipients(store.clone(), RecipientError::Unsigned(path.to_owned()))),
        None => Ok(()),
    }
}

/// Whether this host would use the policy where it is asked for `environment`, and who answers for each of its files.
///
/// # Errors
/// The host has no `[trust]`; a signature is absent or not good; recipients stand in a file, which is under none.
pub fn verify(
    path: &Path,
    host: Option<&Path>,
    environment: Option<&EnvironmentName>,
    parent: &ParentEnv,
) -> Result<(), Error> {
    let host_path = host.unwrap_or_else(|| Path::new(HOST_FILE));
    let host = load_host(host_path, host.is_none())?;
    let Some(trust) = &host.trust else { return Err(SignError::NoTrust(host_path.to_owned()).into()) };
    let demand = Demand { trust: Some(trust), environment };
    let now = SystemTime::now();
    let policy = load_trusted(path, &load_options(parent), &demand, now)?;
    check_match(&policy, environment, None)?;
    refuse_recipients_files(&policy)?;
    let is_demanded = demand.is_for(&policy.environment);
    for file in &policy.files {
        let bytes = checked_file::read(file, Use::Public, LARGEST).map_err(SignError::File)?;
        let admitted = demand.admit(file, &bytes, now).map_err(crate::policy::file::PolicyError::from)?;
        let by = admitted.key().and_then(|key| crate::policy::trust::parse_key(&key.key));
        let by = by.map(|key| format!("good, by {} {}", fingerprint(&key), key.comment()));
        output::print(&format!("{}: {}\n", show(file), by.as_deref().unwrap_or("not signed").trim_end()))?;
    }
    if !is_demanded {
        output::print(&format!("{}: note: this host demands no signature for it\n", policy.environment))?;
    }
    output::print(&format!("{}: serial {}\n", policy.environment, policy.serial()))
}

/// What ssh-keygen makes of `bytes`, and the key that it used.
#[expect(clippy::disallowed_methods, reason = "a policy is no secret, and no value is in this command's environment")]
fn sign_one(bytes: &[u8], key: &Path) -> Result<(String, PublicKey), SignError> {
    sys::signal::heed_children();
    let mut child = Command::new("ssh-keygen")
        .args(["-Y", "sign", "-n", NAMESPACE, "-f"])
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // What it asks and what it complains of is for the one who signs.
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| SignError::Start(plain_io(&error)))?;
    let written = child.stdin.take().map_or(Ok(()), |mut input| input.write_all(bytes));
    let made = child.wait_with_output().map_err(|error| SignError::Start(plain_io(&error)))?;
    if !made.status.success() || written.is_err() {
        return Err(SignError::Failed(key.to_owned()));
    }
    let text = String::from_utf8(made.stdout).map_err(|_| SignError::Unfit)?;
    let signature = SshSig::from_pem(&text).map_err(|_| SignError::Unfit)?;
    let signer = PublicKey::from(signature.public_key().clone());
    if !is_accepted(signer.key_data()) {
        return Err(SignError::KeyType(key.to_owned(), signer.algorithm().to_string()));
    }
    signer.verify(NAMESPACE, bytes, &signature).map_err(|_| SignError::Unfit)?;
    if !is_attended(&signature) {
        return Err(SignError::Unattended(key.to_owned()));
    }
    Ok((text, signer))
}

/// A signature file is whole or not there: the old one, until the new one is on the disk.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), SignError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let write = || {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|error| {
        // What is left of it is no signature; that it cannot be removed is the lesser problem.
        std::fs::remove_file(&temporary).ok();
        SignError::Write(path.to_owned(), plain_io(&error))
    })
}

/// Why nothing was signed or verified.
#[derive(Debug)]
enum SignError {
    Failed(PathBuf),
    File(checked_file::FileError),
    KeyType(PathBuf, String),
    NoTrust(PathBuf),
    Recipients(StoreName, RecipientError),
    Start(String),
    Unattended(PathBuf),
    Unfit,
    Write(PathBuf, String),
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(key) => write!(f, "ssh-keygen made no signature with `{}`", show(key)),
            Self::File(error) => error.fmt(f),
            Self::KeyType(key, kind) => write!(f, "`{}` is a key of type `{kind}`, which no host accepts", show(key)),
            Self::NoTrust(host) => write!(f, "`{}` has no [trust], so this host demands no signature", show(host)),
            Self::Recipients(store, error) => write!(f, "store `{store}`: {error}"),
            Self::Start(why) => write!(f, "cannot run ssh-keygen: {why}"),
            Self::Unattended(key) => {
                write!(f, "nobody touched the security key of `{}`, and no host takes such a signature", show(key))
            }
            Self::Unfit => write!(f, "what ssh-keygen made is no signature of this policy"),
            Self::Write(path, why) => write!(f, "cannot write `{}`: {why}", show(path)),
        }
    }
}

impl Cause for SignError {
    fn class(&self) -> Class {
        match self {
            Self::File(_) | Self::NoTrust(_) | Self::Recipients(..) => Class::Policy,
            Self::Failed(_) | Self::KeyType(..) | Self::Unattended(_) => Class::Identity,
            Self::Start(_) | Self::Unfit | Self::Write(..) => Class::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Failed(key) => Some(format!("ssh-keygen -l -f {}", show(key))),
            Self::File(error) => error.hint(),
            Self::KeyType(..) => Some("ssh-keygen -t ed25519   # or ecdsa with 256 bits, or their -sk kinds".into()),
            Self::Recipients(_, error) => error.hint(),
            Self::NoTrust(_) => Some("name the host file that has it: --host FILE".into()),
            Self::Start(_) => Some("apt-get install openssh-client".into()),
            Self::Unattended(_) => Some("ssh-keygen -t ed25519-sk   # without -O no-touch-required".into()),
            Self::Unfit | Self::Write(..) => None,
        }
    }
}
