//! `vouchsafe policy sign` and `verify`: signatures of policies and of the sealed files that they name, made by ssh-keygen and
//! checked as `run` checks them. What it answers is verified before it is written.

use std::fmt;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ssh_key::PublicKey;

use crate::audit::{Auditor, Event, Outcome};
use crate::change::Unrecorded;
use crate::checked_file::{self, Use, plain_io};
use crate::error::{Cause, Class, Error};
use crate::inject::ParentEnv;
use crate::name::{EnvironmentName, StoreName, show};
use crate::policy::file::{HOST_FILE, LARGEST, digest_of, load_host, load_trusted};
use crate::policy::locate::check_match;
use crate::policy::model::{Policy, TrustedKey};
use crate::policy::sealed_trust::SealedDemand;
use crate::policy::trust::{Demand, NAMESPACE, fingerprint, parse_key, signature_of};
use crate::setting::{Setting, load_options, sealed_files_of};
use crate::ssh_keygen::{SignError as KeygenError, SshKeygen};
use crate::store::identity::RecipientError;
use crate::store::sealed::SealedErrorKind;
use crate::store::vouched::Guard;
use crate::store::{StoreError, StoreErrorKind, write};
use crate::{caller, output};

/// Signs a policy and every file that it extends, and where that is asked for the sealed files that it names. Each
/// signature is written down before ssh-keygen is asked for it, and what came of it after.
///
/// # Errors
/// The policy is invalid, this host would not take it with its file of recipients, a record cannot be written, ssh-keygen fails,
/// or what it made does not fit.
pub fn sign(path: &Path, key: &Path, sealed_files: bool, parent: &ParentEnv) -> Result<(), Error> {
    let setting = Setting::to_be_signed(path, parent)?;
    refuse_recipients_files(&setting.policy)?;
    let mut auditor = setting.open_auditor(&caller::of_this_process(false), None)?;
    let keygen = SshKeygen::new(key, parent);
    // What is signed is what was parsed: somebody may write there while ssh-keygen waits for a passphrase.
    let read = |file: &PathBuf| checked_file::read(file, Use::Public, LARGEST).map(|bytes| (file.clone(), bytes));
    let files = setting.policy.files.iter().map(read).collect::<Result<Vec<_>, _>>().map_err(SignError::File)?;
    if digest_of(files.iter().map(|(_, bytes)| bytes.as_slice())) != setting.policy.digest {
        return Err(SignError::Changed(path.to_owned()).into());
    }
    for (file, bytes) in &files {
        begin(&mut auditor, file, "", key)?;
        let signed = keygen.sign(bytes, NAMESPACE).map_err(SignError::Keygen).and_then(|(signature, signer)| {
            replace(&signature_of(file), signature.as_bytes())?;
            Ok(signer)
        });
        settle(&mut auditor, file, "", signed.map_err(Error::from))?;
    }
    if sealed_files {
        for (store, file) in sealed_files_of(&setting.policy) {
            if file.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
                output::print(&format!("{}: of store `{store}`, not written yet\n", show(file)))?;
                continue;
            }
            output::print(&format!("{}: of store `{store}`, to be signed as it is\n", show(file)))?;
            begin(&mut auditor, file, "sealed file ", key)?;
            let signed = write::sign(file, &keygen).map_err(|kind| of_store(store, kind.at(file)));
            settle(&mut auditor, file, "sealed file ", signed)?;
        }
    }
    Ok(())
}

/// Writes down that one file is going to be signed. Until this has returned, it may not be.
fn begin(auditor: &mut Auditor, file: &Path, kind: &str, key: &Path) -> Result<(), Error> {
    let reason = format!("{kind}{} with {}", show(file), show(key));
    Ok(auditor.record(Event::PolicySigned, Outcome::Allowed, Some(&reason), &[])?)
}

/// Writes down and says what came of one file.
fn settle(auditor: &mut Auditor, file: &Path, kind: &str, signed: Result<PublicKey, Error>) -> Result<(), Error> {
    let (outcome, reason) = match &signed {
        Ok(signer) => (Outcome::Succeeded, format!("{kind}{} by {}", show(file), fingerprint(signer))),
        Err(error) => (Outcome::Failed, format!("{kind}{}: {error}", show(file))),
    };
    match (&signed, auditor.record(Event::PolicySigned, outcome, Some(&reason), &[])) {
        (_, Ok(())) => {}
        (Ok(_), Err(unwritten)) => return Err(Unrecorded(unwritten).into()),
        (Err(_), Err(unwritten)) => return Err(unwritten.into()),
    }
    output::print(&format!("{}: signed by {}\n", show(&signature_of(file)), fingerprint(&signed?)))
}

fn of_store(store: &StoreName, error: crate::store::sealed::SealedError) -> Error {
    StoreError { store: store.clone(), kind: StoreErrorKind::Sealed(error) }.into()
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
        let said =
            admitted.key().map_or_else(|| "not signed".to_owned(), |key| format!("good, by {}", named(Some(key))));
        output::print(&format!("{}: {said}\n", show(file)))?;
    }
    if !is_demanded {
        output::print(&format!("{}: note: this host demands no signature for it\n", policy.environment))?;
    }
    let sealed = SealedDemand::of(Some(trust), &policy.environment).map(|demand| verify_sealed(&policy, demand));
    output::print(&format!("{}: serial {}\n", policy.environment, policy.serial()))?;
    sealed.unwrap_or(Ok(()))
}

/// The same for each sealed file. One that is not good does not keep the others from being looked at.
fn verify_sealed(policy: &Policy, demand: SealedDemand<'_>) -> Result<(), Error> {
    let guard = Guard { demand: Some(demand), ..Guard::default() };
    let mut failure = None;
    for (store, file) in sealed_files_of(policy) {
        let said = match guard.read(file) {
            Ok(admitted) => format!("good, by {}", named(admitted.key())),
            Err(SealedErrorKind::File(error)) if error.is_absent() => "not written yet".to_owned(),
            Err(kind) => {
                failure = failure.or(Some(of_store(store, kind.at(file))));
                "not good".to_owned()
            }
        };
        output::print(&format!("{}: {said}\n", show(file)))?;
    }
    failure.map_or(Ok(()), Err)
}

/// Fingerprint and comment of a key.
fn named(key: Option<&TrustedKey>) -> String {
    let key = key.and_then(|key| parse_key(&key.key));
    let by = key.map(|key| format!("{} {}", fingerprint(&key), key.comment())).unwrap_or_default();
    by.trim_end().to_owned()
}

/// A signature file is whole or not there: the old one, until the new one is on the disk.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), SignError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let write = || {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        // It is public, whatever the umask says: the agent's user has to read it.
        file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
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
    Changed(PathBuf),
    File(checked_file::FileError),
    Keygen(KeygenError),
    NoTrust(PathBuf),
    Recipients(StoreName, RecipientError),
    Write(PathBuf, String),
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed(path) => write!(f, "`{}`, or what it extends, was changed while it was read", show(path)),
            Self::File(error) => error.fmt(f),
            Self::Keygen(error) => error.fmt(f),
            Self::NoTrust(host) => write!(f, "`{}` has no [trust], so this host demands no signature", show(host)),
            Self::Recipients(store, error) => write!(f, "store `{store}`: {error}"),
            Self::Write(path, why) => write!(f, "cannot write `{}`: {why}", show(path)),
        }
    }
}

impl Cause for SignError {
    fn class(&self) -> Class {
        match self {
            Self::Changed(_) | Self::File(_) | Self::NoTrust(_) | Self::Recipients(..) => Class::Policy,
            Self::Keygen(error) => error.class(),
            Self::Write(..) => Class::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Changed(path) => Some(format!("vouchsafe policy lint {}   # and sign it again", show(path))),
            Self::File(error) => error.hint(),
            Self::Keygen(error) => error.hint(),
            Self::NoTrust(_) => Some("name the host file that has it: --host FILE".into()),
            Self::Recipients(_, error) => error.hint(),
            Self::Write(..) => None,
        }
    }
}
