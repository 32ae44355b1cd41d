//! `vouchsafe rekey`: encrypts the sealed files of a policy anew, to whom it names now.
//!
//! One write for each file does all of it: a new file key, the recipients and the KMS key of the policy, and, where somebody
//! was removed who is not trusted any more, the note of what he could open. So there is no state between "he is out" and "it
//! is known what he saw", and the same command, run again by anyone on any host, goes on from what the files say. A file that
//! fails does not keep the others from being done; a log that fails does.

mod plan;
mod report;

use std::fmt;
use std::time::SystemTime;

pub use report::Rekeying;

use crate::audit::{Auditor, Event, Outcome, RekeyPermit, SecretNote};
use crate::change::Unrecorded;
use crate::error::{Cause, Class, Error};
use crate::exposed::{ExposedValue, State};
use crate::inject::ParentEnv;
use crate::setting::Setting;
use crate::store::document::{Document, Exposed};
use crate::store::rekey::Rekeyed;
use crate::{caller, cli, output};
use plan::{File, Plan, Removal};
use report::{FileEntry, FileState};

/// `vouchsafe rekey`.
///
/// # Errors
/// The policy still names who is removed; a file cannot be opened or written; nobody here could open the result; something
/// that was exposed is in use.
pub fn rekey(options: &cli::Rekey, parent: &ParentEnv) -> Result<(), Error> {
    let setting = Setting::load(&options.selection, parent)?.signing(&options.signing, parent);
    let plan = Plan::of(&setting.policy, options)?;
    let mut auditor = setting.open_auditor(&caller::of_this_process(false), None)?;
    let now = SystemTime::now();
    let (mut files, mut exposed) = (Vec::new(), Vec::new());
    let (mut failure, mut is_stopped): (Option<Error>, bool) = (None, false);
    for file in &plan.files {
        let done = match is_stopped {
            true => Done::of(FileEntry::new(file, FileState::Untouched)),
            false => one(&setting, &mut auditor, file, plan.removal.as_ref(), options.dry_run, now),
        };
        is_stopped |= done.error.as_ref().is_some_and(|error| error.class() == Class::Audit);
        failure = failure.or(done.error);
        exposed.extend(done.exposed);
        if !options.json {
            // Whether or not anybody can be told, the other files are done.
            let unprinted = output::print(&done.entry.text()).err();
            failure = failure.or(unprinted);
        }
        files.push(done.entry);
    }
    if !options.dry_run {
        setting.note_outdated_signatures();
    }
    let open = plan.not_covered.iter().filter(|one| one.is_open).count();
    let due = exposed.iter().filter(|one| one.state == State::Due).count();
    let report = Rekeying {
        environment: setting.policy.environment.to_string(),
        service: setting.policy.service.as_ref().map(ToString::to_string),
        dry_run: options.dry_run,
        ok: failure.is_none() && due + open == 0,
        files,
        removed: plan.removal.filter(|removal| !removal.is_compromised).map(|removal| removal.recipient),
        exposed,
        not_covered: plan.not_covered,
    };
    let printed = if options.json { output::print_json(&report) } else { output::print(&report.text()) };
    let unprinted = printed.err();
    match failure.or(unprinted) {
        Some(failure) => Err(failure),
        None if report.ok => Ok(()),
        None => Err(StillExposed { due, open, selection: setting.selection() }.into()),
    }
}

/// What came of one file.
struct Done {
    entry: FileEntry,
    exposed: Vec<ExposedValue>,
    error: Option<Error>,
}

impl Done {
    fn of(entry: FileEntry) -> Self {
        Self { entry, exposed: Vec::new(), error: None }
    }

    fn failed(mut self, error: Error) -> Self {
        self.entry.error = Some(error.to_string());
        Self { error: Some(error), ..self }
    }
}

/// What was seen of a document, and changed in it.
#[derive(Default)]
struct Seen {
    generation: u64,
    exposed: Vec<Exposed>,
    trusted_again: Vec<String>,
}

/// One file, written down before and after.
fn one(
    setting: &Setting<'_>,
    auditor: &mut Auditor,
    file: &File<'_>,
    removal: Option<&Removal>,
    is_rehearsal: bool,
    now: SystemTime,
) -> Done {
    if is_absent(file) {
        return Done::of(FileEntry::new(file, FileState::Absent));
    }
    let mut seen = Seen::default();
    let mut change = |document: &mut Document| {
        seen.trusted_again = document.trust_again(|recipient| file.named.contains(recipient));
        if let Some(Removal { recipient, is_compromised: true }) = removal {
            document.expose(recipient, now)?;
        }
        seen.exposed = document.exposed();
        document.drop_replaced();
        seen.generation = document.generation.saturating_add(1);
        Ok(())
    };
    let untouched = || Done::of(FileEntry::new(file, FileState::Untouched));
    let reason = reason(removal);
    let mut work = || {
        let store = setting.open_rekey(file.store, file.old_key.as_ref())?;
        Ok(store.rekey(&mut change, is_rehearsal, setting.deadline())?)
    };
    let rekeyed = if is_rehearsal {
        let reason = format!("{reason}, a dry run");
        if let Err(error) = auditor.record(Event::SecretListed, Outcome::Allowed, Some(&reason), &[]) {
            return untouched().failed(error.into());
        }
        work()
    } else {
        match auditor.begin_rekey(&reason, file.store) {
            Ok(permit) => carry_out(&permit, file, work),
            Err(error) => return untouched().failed(error.into()),
        }
    };
    auditor.note_request_ids(setting.aws.take_request_ids());
    match rekeyed {
        Ok(rekeyed) => {
            let recorded = match is_rehearsal {
                true => Ok(()),
                false => auditor.rekeyed(
                    Outcome::Succeeded,
                    &ended(&reason, &seen),
                    file.store,
                    &notes(setting, file, &seen),
                ),
            };
            let done = describe(setting, file, seen, rekeyed, is_rehearsal);
            match recorded {
                Ok(()) => done,
                Err(error) => done.failed(Unrecorded(error).into()),
            }
        }
        Err(error) => {
            let outcome = if error.is_unsettled() { Outcome::Unknown } else { Outcome::Failed };
            let why = error.to_string();
            let recorded = match is_rehearsal {
                true => auditor.record(Event::SecretListed, outcome, Some(&format!("{reason}: {why}")), &[]),
                false => auditor.rekeyed(outcome, &why, file.store, &[]),
            };
            Done::of(FileEntry::new(file, FileState::Failed)).failed(recorded.map_or_else(Error::from, |()| error))
        }
    }
}

/// A file is encrypted anew only with the proof that this was written down.
fn carry_out(
    permit: &RekeyPermit,
    file: &File<'_>,
    work: impl FnOnce() -> Result<Rekeyed, Error>,
) -> Result<Rekeyed, Error> {
    if permit.covers(file.store) { work() } else { Err(NotCoveredByRecord.into()) }
}

fn describe(setting: &Setting<'_>, file: &File<'_>, seen: Seen, rekeyed: Rekeyed, is_rehearsal: bool) -> Done {
    let selection = setting.selection();
    let value = |one: &Exposed| ExposedValue::new(&setting.policy, &selection, file.store, one);
    let state = if is_rehearsal { FileState::Possible } else { FileState::Rekeyed };
    let entry = FileEntry {
        generation: (!is_rehearsal).then_some(seen.generation),
        before: Some(rekeyed.before.into()),
        now: Some(rekeyed.after.into()),
        trusted_again: seen.trusted_again,
        ..FileEntry::new(file, state)
    };
    Done { entry, exposed: seen.exposed.iter().map(value).collect(), error: None }
}

/// A store that nobody has written to yet. Where its folder is not there either, something is not mounted, or mistyped: that is
/// for the store to say.
fn is_absent(file: &File<'_>) -> bool {
    let is_missing = file.path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
    let folder = file.path.parent().filter(|folder| !folder.as_os_str().is_empty());
    is_missing && folder.is_none_or(|folder| folder.is_dir())
}

fn reason(removal: Option<&Removal>) -> String {
    match removal {
        None => "rekey".into(),
        Some(Removal { recipient, is_compromised: false }) => format!("rekey without {recipient}"),
        Some(Removal { recipient, is_compromised: true }) => format!("rekey without {recipient}, which is compromised"),
    }
}

fn ended(reason: &str, seen: &Seen) -> String {
    let trusted = seen.trusted_again.iter().map(|recipient| format!("; named again: {recipient}"));
    trusted.fold(reason.to_owned(), |text, next| text + &next)
}

/// The items that are exposed still, each with the highest version that could be opened.
fn notes(setting: &Setting<'_>, file: &File<'_>, seen: &Seen) -> Vec<SecretNote> {
    let note = |one: &Exposed| {
        let value = ExposedValue::new(&setting.policy, "", file.store, one);
        SecretNote {
            name: value.name.unwrap_or_default(),
            store: value.store,
            item: one.item.to_string(),
            version: Some(one.number),
            ..SecretNote::default()
        }
    };
    seen.exposed.iter().filter(|one| !one.state.is_over()).map(note).collect()
}

/// Something that was exposed is in use still.
#[derive(Debug)]
struct StillExposed {
    due: usize,
    open: usize,
    selection: String,
}

impl fmt::Display for StillExposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.due, self.open) {
            (0, open) => write!(f, "{} made by hand may still open for it", output::count(open as u64, "store")),
            (due, _) => write!(f, "not replaced yet: {}", output::count(due as u64, "exposed value")),
        }
    }
}

impl Cause for StillExposed {
    fn class(&self) -> Class {
        Class::Due
    }

    fn hint(&self) -> Option<String> {
        Some(match self.due {
            0 => "make it anew (above), then select the others: --store NAME".to_owned(),
            _ => format!(
                "vouchsafe set NAME {}   # or `rotate`, as listed for each; then this command again",
                self.selection
            ),
        })
    }
}

/// The record that was made is for another store.
#[derive(Debug)]
struct NotCoveredByRecord;

impl fmt::Display for NotCoveredByRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the audit record does not cover this store")
    }
}

impl Cause for NotCoveredByRecord {
    fn class(&self) -> Class {
        Class::Internal
    }
}
