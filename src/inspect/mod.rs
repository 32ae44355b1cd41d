//! Looking at secrets without showing a value: what `check`, `list` and `history` have in common.
//!
//! [`look`] asks the stores and keeps only what is no value. Whatever opens a store leaves a record of it, since even
//! names and dates tell something.

mod check;
mod errors;
mod history;
mod iam;
mod list;
mod pending;
mod table;

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use schemars::JsonSchema;
use serde::Serialize;

pub use check::{Report, check};
pub use errors::{NoItem, NotAnItem, NotBound};
pub use history::{History, history};
pub use list::{Listing, list};
pub use pending::PendingVersion;
use pending::{look_apart, pending};
use table::entries_table;

use crate::audit::{Auditor, Event, Outcome, SecretNote};
use crate::caller;
use crate::error::Error;
use crate::exposed::ExposedValue;
use crate::name::{StoreName, VariableName, escape, show};
use crate::policy::model::{Binding, Bundle, ItemRef, JsonPointer, Policy, Source, Stage};
use crate::resolve::{ResolveError, is_expired, pick, variable_of, wanted_bundle};
use crate::setting::Setting;
use crate::store::{Answer, Fetched, Wanted};

/// What is known of one binding without showing its value.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Entry {
    /// The variable.
    pub name: String,
    /// Where its value comes from, in words.
    pub source: String,
    /// Whether the store has it; `null` if the store was not asked.
    pub present: Option<bool>,
    /// Whether its absence stops the child.
    pub required: bool,
    /// The version that consumers get.
    pub version: Option<u64>,
    /// The stage of that version.
    pub stage: Option<String>,
    /// When that version was written (RFC 3339).
    pub written: Option<String>,
    /// Whole days since then.
    pub age_days: Option<u64>,
    /// When it becomes older than its `max_age` or its `rotate.every`, whichever comes first (RFC 3339).
    pub due: Option<String>,
    /// Which of the two that is: `max_age` or `rotate.every`.
    pub due_by: Option<String>,
    /// Whether that time has come.
    pub is_due: bool,
    /// Whole days since then.
    pub overdue_days: Option<u64>,
    /// A version that a rotation has made and not yet put in place; `null` if there is none, if the store was not asked, or if
    /// it lies apart where the caller may not look.
    pub pending: Option<PendingVersion>,
}

/// The file of a store, as it was opened.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct SealedFileEntry {
    /// The store.
    pub store: String,
    /// The file.
    pub path: String,
    /// How often its document was written: what `min_generation` in the policy is compared with. `null` of a file made by hand.
    pub generation: Option<u64>,
    /// The key that answers for it, as `ssh-keygen -l` names it; `null` where the host demands no signature.
    pub signed_by: Option<String>,
}

/// What every store of a policy answered, without its values.
#[derive(Default)]
struct Seen {
    entries: Vec<Entry>,
    /// Values that are there and that `run` could not use.
    problems: Vec<String>,
    /// Stores that did not answer, in the order of their names.
    failures: Vec<Error>,
    /// What somebody removed could open, and is in a store still.
    exposed: Vec<ExposedValue>,
    /// The files that were opened, in the order of the names of their stores.
    files: Vec<SealedFileEntry>,
}

/// Asks every store of the policy for everything that is bound, and keeps only what is no value. A store that fails does
/// not keep the others from answering.
fn look(setting: &Setting<'_>, why: &str) -> Result<Seen, Error> {
    let policy = &setting.policy;
    let mut auditor = setting.open_auditor(&caller::of_this_process(false), None)?;
    let notes: Vec<SecretNote> = policy
        .secrets
        .iter()
        .filter_map(|(name, binding)| match &binding.source {
            Source::Item(item) => Some(note_of(name, item)),
            Source::Ciphertext { .. } | Source::Template(_) => None,
        })
        .collect();
    auditor.record(Event::SecretListed, Outcome::Allowed, Some(why), &notes)?;
    let deadline = Instant::now() + policy.run.deadline;
    let mut orders: BTreeMap<&StoreName, Vec<(Asker<'_>, Wanted)>> = BTreeMap::new();
    for (name, binding) in &policy.secrets {
        if let Some((store, wanted)) = wanted(binding) {
            orders.entry(store).or_default().push((Asker::Binding(name, binding), wanted));
        }
        if let Some((store, wanted)) = pending(binding) {
            orders.entry(store).or_default().push((Asker::Pending(name), wanted));
        }
    }
    for bundle in &policy.bundles {
        let wanted = wanted_bundle(policy, bundle);
        orders.entry(&bundle.store).or_default().push((Asker::Bundle(bundle), wanted));
    }
    let mut gathering = Gathering {
        now: SystemTime::now(),
        entries: unasked(policy).into_iter().map(|entry| (entry.name.clone(), entry)).collect(),
        of_bundles: Vec::new(),
        problems: Vec::new(),
    };
    let (mut failures, mut exposed, mut files) = (Vec::new(), Vec::new(), Vec::new());
    for (store, order) in orders {
        let (askers, wanted): (Vec<_>, Vec<_>) = order.into_iter().unzip();
        let answers = setting.open_store(store).and_then(|mut opened| {
            let answers = opened.fetch(&wanted, deadline)?;
            let notes = opened.exposed().into_iter().filter(|one| !one.state.is_over());
            exposed.extend(notes.map(|one| ExposedValue::new(policy, &setting.selection(), store, &one)));
            files.extend(opened.opened().map(|file| SealedFileEntry {
                store: store.to_string(),
                path: show(&file.path),
                generation: file.generation,
                signed_by: file.signed_by.clone(),
            }));
            Ok(answers)
        });
        match answers {
            Ok(answers) => askers.into_iter().zip(answers).for_each(|(asker, answer)| gathering.take(asker, answer)),
            Err(error) => {
                auditor.record(Event::SecretListed, Outcome::Failed, Some(&format!("{why}: {error}")), &[])?;
                failures.push(error);
            }
        }
    }
    look_apart(setting, deadline, &mut gathering);
    note_requests(&mut auditor, setting)?;
    gathering.judge_templates(policy);
    let entries = gathering.entries.into_values().chain(gathering.of_bundles).collect();
    Ok(Seen { entries, problems: gathering.problems, failures, exposed, files })
}

/// Who wants an answer.
enum Asker<'p> {
    Binding(&'p VariableName, &'p Binding),
    Bundle(&'p Bundle),
    Pending(&'p VariableName),
}

/// Entries while the stores answer.
struct Gathering {
    now: SystemTime,
    entries: BTreeMap<String, Entry>,
    of_bundles: Vec<Entry>,
    problems: Vec<String>,
}

impl Gathering {
    fn take(&mut self, asker: Asker<'_>, answer: Answer) {
        match (asker, answer) {
            (Asker::Binding(name, binding), Answer::Found(found)) => {
                if let Some(entry) = self.entries.get_mut(name.as_str()) {
                    describe(entry, &found, Some(binding), self.now);
                }
                if let Err(error) = pick(name, found.value, field_of(&binding.source)) {
                    self.problems.push(error.to_string());
                }
            }
            (Asker::Binding(name, _), _) => {
                if let Some(entry) = self.entries.get_mut(name.as_str()) {
                    entry.present = Some(false);
                }
            }
            (Asker::Bundle(bundle), Answer::Bundle(items)) => {
                if (items.len() as u64) < u64::from(bundle.at_least) {
                    let (store, path, at_least) = (bundle.store.clone(), bundle.path.clone(), bundle.at_least);
                    self.problems.push(ResolveError::BundleTooSmall { store, path, at_least }.to_string());
                }
                for (item, found) in items {
                    let source = format!("{}:{} (bundle)", bundle.store, escape(item.as_str()));
                    let name = variable_of(&item, bundle).map_or_else(
                        |error| {
                            self.problems.push(error.to_string());
                            escape(item.as_str())
                        },
                        |name| name.to_string(),
                    );
                    let mut entry = blank(name, source, true);
                    describe(&mut entry, &found, None, self.now);
                    self.of_bundles.push(entry);
                }
            }
            (Asker::Pending(name), Answer::Found(found)) => {
                // The label may stay on a version that was promoted, or promoted and taken back; what is pending is newer than
                // what is current. That answer came before this one.
                let is_over = |entry: &Entry| found.version.is_some() && found.version <= entry.version;
                if let Some(entry) = self.entries.get_mut(name.as_str()).filter(|entry| !is_over(entry)) {
                    let since = found.written.map(rfc3339);
                    entry.pending = Some(PendingVersion { version: found.version, since });
                }
            }
            (Asker::Bundle(_) | Asker::Pending(_), _) => {}
        }
    }

    /// A template is there if all its parts are; if a part was not asked for, nobody knows.
    fn judge_templates(&mut self, policy: &Policy) {
        for (name, binding) in &policy.secrets {
            let Source::Template(template) = &binding.source else { continue };
            let parts: Vec<Option<bool>> =
                template.references().map(|part| self.entries.get(part.as_str()).and_then(|e| e.present)).collect();
            let present = if parts.contains(&Some(false)) {
                Some(false)
            } else {
                parts.iter().all(Option::is_some).then_some(true)
            };
            if let Some(entry) = self.entries.get_mut(name.as_str()) {
                entry.present = present;
            }
        }
    }
}

/// A look that failed is written down too: who tried, at what, and why not.
fn written_down<T>(looked: Result<T, impl Into<Error>>, auditor: &mut Auditor, why: &str) -> Result<T, Error> {
    match looked.map_err(Into::into) {
        Ok(seen) => Ok(seen),
        Err(error) => {
            auditor.record(Event::SecretListed, Outcome::Failed, Some(&format!("{why}: {error}")), &[])?;
            Err(error)
        }
    }
}

fn field_of(source: &Source) -> Option<&JsonPointer> {
    match source {
        Source::Item(item) => item.field.as_ref(),
        Source::Ciphertext { field, .. } => field.as_ref(),
        Source::Template(_) => None,
    }
}

/// Calls to AWS are found in CloudTrail by their ids, which are known only afterwards.
fn note_requests(auditor: &mut Auditor, setting: &Setting<'_>) -> Result<(), Error> {
    let ids = setting.aws.take_request_ids();
    if !ids.is_empty() {
        auditor.note_request_ids(ids);
        auditor.record(Event::SecretListed, Outcome::Succeeded, None, &[])?;
    }
    Ok(())
}

fn wanted(binding: &Binding) -> Option<(&StoreName, Wanted)> {
    match &binding.source {
        Source::Item(item) => {
            let (version, stage, plain) = (item.version, item.stage, binding.plain);
            Some((&item.store, Wanted::Item { item: item.item.clone(), version, stage, plain }))
        }
        Source::Ciphertext { store, ciphertext, context, .. } => {
            Some((store, Wanted::Ciphertext { ciphertext: ciphertext.clone(), context: context.clone() }))
        }
        Source::Template(_) => None,
    }
}

fn unasked(policy: &Policy) -> Vec<Entry> {
    let entry = |(name, binding): (&VariableName, &Binding)| {
        blank(name.to_string(), describe_source(&binding.source), binding.required)
    };
    policy.secrets.iter().map(entry).collect()
}

fn blank(name: String, source: String, required: bool) -> Entry {
    Entry {
        name,
        source,
        present: None,
        required,
        version: None,
        stage: None,
        written: None,
        age_days: None,
        due: None,
        due_by: None,
        is_due: false,
        overdue_days: None,
        pending: None,
    }
}

fn describe(entry: &mut Entry, found: &Fetched, binding: Option<&Binding>, now: SystemTime) {
    entry.present = Some(true);
    entry.version = found.version;
    entry.stage = found.stage.map(|stage| Stage::word(stage).to_owned());
    let Some(written) = found.written else { return };
    entry.written = Some(rfc3339(written));
    entry.age_days = now.duration_since(written).ok().map(|age| age.as_secs() / 86_400);
    if let Some((limit, by)) = binding.and_then(age_limit) {
        let due = written.checked_add(limit);
        entry.due = due.map(rfc3339);
        entry.due_by = Some(by.to_owned());
        entry.is_due = is_expired(written, limit, now);
        let since = due.filter(|_| entry.is_due).and_then(|due| now.duration_since(due).ok());
        entry.overdue_days = since.map(|since| since.as_secs() / 86_400);
    }
}

/// The shorter of `max_age` and the rotation interval, and which one it is.
pub(crate) fn age_limit(binding: &Binding) -> Option<(Duration, &'static str)> {
    let every = binding.rotate.as_ref().and_then(|rotation| rotation.every);
    let of = |limit: Option<Duration>, by| limit.map(|limit| (limit, by));
    of(binding.max_age, "max_age").into_iter().chain(of(every, "rotate.every")).min_by_key(|(limit, _)| *limit)
}

/// Where a value comes from, in words.
#[must_use]
pub fn describe_source(source: &Source) -> String {
    match source {
        Source::Ciphertext { store, .. } => format!("{store}: a ciphertext"),
        Source::Item(item) => {
            let version = item.version.map(|version| format!(", version {version}")).unwrap_or_default();
            let field = if item.field.is_some() { ", a field" } else { "" };
            format!("{}:{}{version}{field}", item.store, escape(item.item.as_str()))
        }
        Source::Template(template) => {
            let parts: std::collections::BTreeSet<_> = template.references().map(VariableName::as_str).collect();
            format!("template of {}", parts.into_iter().collect::<Vec<_>>().join(", "))
        }
    }
}

/// The item that a name is bound to, for what works on one item.
///
/// # Errors
/// The policy has no such name, or binds it to a template or a ciphertext.
pub fn bound_item<'p>(policy: &'p Policy, name: &VariableName) -> Result<&'p ItemRef, Error> {
    match policy.secrets.get(name).map(|binding| &binding.source) {
        Some(Source::Item(item)) => Ok(item),
        Some(Source::Ciphertext { .. } | Source::Template(_)) => Err(NotAnItem { name: name.clone() }.into()),
        None => {
            let known = policy.secrets.keys().map(VariableName::as_str);
            let nearest = crate::error::suggest(name.as_str(), known).map(ToOwned::to_owned);
            Err(NotBound { name: name.clone(), nearest }.into())
        }
    }
}

/// What the audit says of a binding's item.
#[must_use]
pub fn note_of(name: &VariableName, item: &ItemRef) -> SecretNote {
    SecretNote {
        name: name.to_string(),
        store: item.store.to_string(),
        item: item.item.to_string(),
        version: item.version,
        stage: item.stage.map(Stage::word),
        ..SecretNote::default()
    }
}

/// A time that RFC 3339 cannot write is shown as the nearest that it can: stores and sums of theirs may hold any.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let last = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    humantime::format_rfc3339_seconds(time.clamp(SystemTime::UNIX_EPOCH, last)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_time_can_be_shown() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(rfc3339(at(0)), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(at(253_402_300_799)), "9999-12-31T23:59:59Z");
        assert_eq!(rfc3339(at(253_402_300_800)), "9999-12-31T23:59:59Z");
        assert_eq!(rfc3339(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00Z");
    }
}
