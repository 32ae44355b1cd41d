//! Writing values: `set`, `remove`, `copy`. Each is written down before and after, and none shows a value.
//!
//! A value comes from standard input, from a prompt without echo, from a file or from the generator; never from an
//! argument, where `ps` and the shell's history would keep it.

use std::fmt;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{Mode, OFlags};

use crate::audit::{AuditError, Event, Outcome, SecretNote, WritePermit};
use crate::checked_file::plain_io;
use crate::cli;
use crate::error::{Cause, Class, Error};
use crate::inject::ParentEnv;
use crate::inspect::{NoItem, bound_item, note_of};
use crate::name::{VariableName, show};
use crate::policy::eval::Caller;
use crate::policy::model::{Alphabet, Generate, ItemRef, Password, Policy, Random, Stage};
use crate::prompt::Silence;
use crate::resolve::{pick, place_of};
use crate::rotate::generate::{Generated, generate};
use crate::secret::Secret;
use crate::setting::Setting;
use crate::store::document::MAX_VALUE;
use crate::store::{Answer, Author, Fetched, Versions, Wanted};
use crate::{caller, output};

/// What `--generate` makes where the policy says nothing: 43 characters of 6 bits are 258 bits.
const DEFAULT_GENERATE: Random =
    Random::Password(Password { length: 43, alphabet: Alphabet::UrlSafe, exclude: Vec::new(), require: Vec::new() });

/// `vouchsafe set`.
///
/// # Errors
/// There is no value, it cannot be used, or the store does not take it.
pub fn set(options: &cli::Set, parent: &ParentEnv) -> Result<(), Error> {
    let setting = Setting::load(&options.selection, parent)?.signing(&options.signing, parent);
    let item = bound_item(&setting.policy, &options.name)?.clone();
    refuse_fixed(&options.name, &item)?;
    setting.open_versions(&item.store)?.refuse_unwritable()?;
    let Generated { value, public } = value_for(options, &setting.policy)?;
    let version = write_one(&setting, &options.name, &item, Event::SecretWritten, |store, author| {
        let written = store.put(&item.item, value, author, false, setting.deadline())?;
        written.map(Some).ok_or_else(|| ChangeError::Exists(options.name.clone()).into())
    })?;
    setting.note_outdated_signatures();
    let version = version.map(|version| format!("version {version}")).unwrap_or_default();
    output::print(&format!("{} is {version}\n", options.name))?;
    match public {
        Some(public) => output::print(&format!("its public half, which is no secret:\n{}\n", public.trim_end())),
        None => Ok(()),
    }
}

/// `vouchsafe remove`.
///
/// # Errors
/// There is no such item, or the store does not take the change.
pub fn remove(options: &cli::Remove, parent: &ParentEnv) -> Result<(), Error> {
    let setting = Setting::load(&options.selection, parent)?.signing(&options.signing, parent);
    let item = bound_item(&setting.policy, &options.name)?.clone();
    write_one(&setting, &options.name, &item, Event::SecretRemoved, |store, _| {
        match store.remove(&item.item, setting.deadline())? {
            true => Ok(None),
            false => Err(absent(&setting, &options.name, &item)),
        }
    })?;
    setting.note_outdated_signatures();
    output::print(&format!("{} is removed; the binding in the policy is still there\n", options.name))
}

/// `vouchsafe copy`, one value after the other: if one fails, those that were printed before it are copied.
///
/// # Errors
/// A name is missing at one end, or there already at the other; a store fails.
pub fn copy(options: &cli::Copy, parent: &ParentEnv) -> Result<(), Error> {
    let from = Setting::of_file(&options.from, options.from_env.as_ref(), "--from-env", parent)?;
    let to =
        Setting::of_file(&options.to, options.to_env.as_ref(), "--to-env", parent)?.signing(&options.signing, parent);
    let caller = caller::of_this_process(false);
    // What the policies alone can refuse is refused before the first value moves; from then on, each line printed is done.
    for name in &options.names {
        bound_item(&from.policy, name)?;
        let target = bound_item(&to.policy, name)?;
        refuse_fixed(name, target)?;
        to.open_versions(&target.store)?.refuse_unwritable()?;
    }
    for name in &options.names {
        let (source, target) = (bound_item(&from.policy, name)?.clone(), bound_item(&to.policy, name)?.clone());
        let value = read_for_copy(&from, &caller, name, &source)?;
        let version = write_one(&to, name, &target, Event::SecretWritten, |store, author| {
            let written = store.put(&target.item, value, author, !options.overwrite, to.deadline())?;
            written.map(Some).ok_or_else(|| ChangeError::Exists(name.clone()).into())
        })?;
        let version = version.map(|version| format!("version {version}")).unwrap_or_default();
        output::print(&format!("{name} is {version} in {}\n", to.policy.environment))?;
    }
    to.note_outdated_signatures();
    Ok(())
}

/// The value leaves its store for another store; that is a release, and written down as one. As for a child, it is written
/// down before it is released, and a binding that accepts only encrypted values accepts only those here.
fn read_for_copy(from: &Setting<'_>, caller: &Caller, name: &VariableName, item: &ItemRef) -> Result<Secret, Error> {
    let mut auditor = from.open_auditor(caller, None)?;
    let note = note_of(name, item);
    auditor.record(Event::AccessRequested, Outcome::Allowed, Some("copy"), std::slice::from_ref(&note))?;
    let plain = from.policy.secrets.get(name).is_some_and(|binding| binding.plain);
    let wanted = Wanted::Item { item: item.item.clone(), version: item.version, stage: item.stage, plain };
    let fetched = from
        .open_store(&item.store)
        .and_then(|mut store| Ok(store.fetch(std::slice::from_ref(&wanted), from.deadline())?));
    auditor.note_request_ids(from.aws.take_request_ids());
    let found = match fetched.map(|mut answers| answers.pop()) {
        // What is bound is what is copied: of an item with fields, the one field and not its neighbours.
        Ok(Some(Answer::Found(found))) => {
            pick(name, found.value, item.field.as_ref()).map(|value| Fetched { value, ..found }).map_err(Error::from)
        }
        Ok(_) => Err(absent(from, name, item)),
        Err(error) => Err(error),
    };
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            auditor.record(Event::AccessFailed, Outcome::Failed, Some(&format!("copy: {error}")), &[note])?;
            return Err(error);
        }
    };
    let note = SecretNote { version: found.version, stage: found.stage.map(Stage::word), ..note };
    auditor.record(Event::AccessReleased, Outcome::Succeeded, Some("copy"), &[note])?;
    Ok(found.value)
}

/// Writes the intent down, changes the store, writes the outcome down. If the outcome cannot be written the change stands,
/// and the error says so. `change` answers the number of the new version, if there is one.
fn write_one(
    setting: &Setting<'_>,
    name: &VariableName,
    item: &ItemRef,
    event: Event,
    change: impl FnOnce(&mut dyn Versions, &Author) -> Result<Option<u64>, Error>,
) -> Result<Option<u64>, Error> {
    let caller = caller::of_this_process(false);
    let mut store = setting.open_versions(&item.store)?;
    let mut auditor = setting.open_auditor(&caller, None)?;
    let note = note_of(name, item);
    let permit = auditor.begin_write(None, std::slice::from_ref(&note))?;
    let author = Author { name: author(&caller), time: SystemTime::now() };
    let written = carry_out(&permit, setting, item, || change(&mut *store, &author));
    auditor.note_request_ids(setting.aws.take_request_ids());
    match written {
        Ok(version) => {
            let note = SecretNote { version, stage: Some(Stage::Current.word()), ..note };
            auditor.record(event, Outcome::Succeeded, None, &[note]).map_err(Unrecorded)?;
            Ok(version)
        }
        Err(error) => {
            let outcome = if error.is_unsettled() { Outcome::Unknown } else { Outcome::Failed };
            auditor.record(event, outcome, Some(&error.to_string()), &[note])?;
            Err(error)
        }
    }
}

/// A store is changed only with the proof that this very change was written down.
fn carry_out<T>(
    permit: &WritePermit,
    setting: &Setting<'_>,
    item: &ItemRef,
    change: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    if permit.covers(&item.store, &item.item) {
        change()
    } else {
        Err(ChangeError::NotCovered(setting.policy.environment.to_string()).into())
    }
}

/// Who writes, for whoever looks at a version later.
pub(crate) fn author(caller: &Caller) -> String {
    let user = caller.user.clone().unwrap_or_else(|| format!("uid {}", caller.uid));
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let text = crate::name::escape(&format!("{user}@{host}"));
    text.chars().take(200).collect()
}

fn absent(setting: &Setting<'_>, name: &VariableName, item: &ItemRef) -> Error {
    NoItem { name: name.clone(), place: place_of(item), selection: setting.selection() }.into()
}

/// A binding to one version or to a field names something that a new value would not be.
fn refuse_fixed(name: &VariableName, item: &ItemRef) -> Result<(), Error> {
    if item.version.is_some() {
        Err(ChangeError::FixedVersion(name.clone()).into())
    } else if item.field.is_some() {
        Err(ChangeError::Field(name.clone()).into())
    } else {
        Ok(())
    }
}

/// The value to write.
fn value_for(options: &cli::Set, policy: &Policy) -> Result<Generated, Error> {
    if options.generate {
        let rotation = policy.secrets.get(&options.name).and_then(|binding| binding.rotate.as_ref());
        return match rotation.map(|rotation| &rotation.generate) {
            Some(Generate::Command(program)) => {
                Err(ChangeError::ByProgram(options.name.clone(), program.path.clone()).into())
            }
            Some(Generate::Random(what)) => Ok(generate(what)?),
            None => Ok(generate(&DEFAULT_GENERATE)?),
        };
    }
    let value = if let Some(path) = &options.from_file {
        from_file(path)?
    } else if std::io::stdin().is_terminal() {
        from_prompt(&options.name)?
    } else {
        from_stdin(options.keep_newline)?
    };
    if value.expose().is_empty() && !options.allow_empty {
        return Err(ChangeError::Empty.into());
    }
    if value.expose().contains(&0) {
        return Err(ChangeError::Nul.into());
    }
    Ok(Generated { value, public: None })
}

fn from_file(path: &Path) -> Result<Secret, Error> {
    let read = || {
        // NONBLOCK: opening a FIFO must not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = std::fs::File::from(rustix::fs::open(path, flags, Mode::empty())?);
        if !file.metadata()?.is_file() {
            return Err(std::io::Error::other("not a regular file"));
        }
        bounded(file)
    };
    read().map_err(|error| ChangeError::Unreadable(format!("`{}`", show(path)), plain_io(&error)).into())
}

fn from_stdin(keep_newline: bool) -> Result<Secret, Error> {
    let value = bounded(std::io::stdin().lock())
        .map_err(|error| ChangeError::Unreadable("standard input".into(), plain_io(&error)))?;
    if keep_newline {
        return Ok(value);
    }
    let bytes = value.expose();
    let bytes = bytes.strip_suffix(b"\n").map_or(bytes, |bytes| bytes.strip_suffix(b"\r").unwrap_or(bytes));
    Ok(Secret::new(bytes.to_vec()))
}

/// At most one byte more than a value may have, into a buffer that does not grow.
fn bounded(source: impl Read) -> std::io::Result<Secret> {
    let mut bytes = Vec::with_capacity(MAX_VALUE + 2);
    source.take(MAX_VALUE as u64 + 1).read_to_end(&mut bytes)?;
    let value = Secret::new(bytes);
    if value.expose().len() > MAX_VALUE {
        return Err(std::io::Error::other(format!("larger than the {MAX_VALUE} bytes that a value may have")));
    }
    Ok(value)
}

fn from_prompt(name: &VariableName) -> Result<Secret, Error> {
    let ask = || {
        let mut silence = Silence::begin()?;
        Ok((silence.ask(&format!("value of {name} (not shown): "))?, silence.ask("again: ")?))
    };
    let (first, second) =
        ask().map_err(|error: std::io::Error| ChangeError::Unreadable("the terminal".into(), plain_io(&error)))?;
    if first.same_as(&second) { Ok(first) } else { Err(ChangeError::Differ.into()) }
}

/// The store has the change, the log has the request and not how it ended. Whoever is told only of the log would think that
/// nothing happened.
#[derive(Debug)]
pub(crate) struct Unrecorded(pub(crate) AuditError);

impl fmt::Display for Unrecorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the change was made, but not written down as made: {}", self.0)
    }
}

impl Cause for Unrecorded {
    fn class(&self) -> Class {
        Class::Audit
    }

    fn hint(&self) -> Option<String> {
        self.0.hint()
    }
}

/// Why nothing was written. No content.
#[derive(Debug)]
enum ChangeError {
    ByProgram(VariableName, PathBuf),
    Differ,
    Empty,
    Exists(VariableName),
    Field(VariableName),
    FixedVersion(VariableName),
    NotCovered(String),
    Nul,
    Unreadable(String, String),
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByProgram(name, program) => {
                write!(f, "the policy has the value of `{name}` made by `{}`, which `set` does not run", show(program))
            }
            Self::Differ => write!(f, "the two values differ; nothing was written"),
            Self::Empty => write!(f, "the value is empty; nothing was written"),
            Self::Exists(name) => write!(f, "`{name}` has a value there already and was not written"),
            Self::Field(name) => {
                write!(f, "`{name}` is bound to a field of its item; a new value would replace the whole item")
            }
            Self::FixedVersion(name) => write!(f, "`{name}` is bound to a fixed version; a new one would not be read"),
            Self::NotCovered(environment) => {
                write!(f, "the audit record does not cover this change in `{environment}`")
            }
            Self::Nul => write!(f, "the value holds a NUL byte, which no environment can carry; nothing was written"),
            Self::Unreadable(what, why) => write!(f, "{what}: {why}"),
        }
    }
}

impl Cause for ChangeError {
    fn class(&self) -> Class {
        match self {
            Self::NotCovered(_) => Class::Internal,
            Self::ByProgram(..)
            | Self::Differ
            | Self::Empty
            | Self::Exists(_)
            | Self::Field(_)
            | Self::FixedVersion(_)
            | Self::Nul
            | Self::Unreadable(..) => Class::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::ByProgram(name, program) => Some(format!("{} | vouchsafe set {name}", show(program))),
            Self::Empty => Some("if that is meant: --allow-empty".into()),
            Self::Exists(_) => Some("if that is meant: --overwrite".into()),
            Self::Field(_) => Some("bind the whole item under a name with `inject = false`, and set that".into()),
            _ => None,
        }
    }
}
