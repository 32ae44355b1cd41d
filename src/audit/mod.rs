//! The audit: every access is written down before it happens, or it does not happen.
//!
//! What must stay true: a [`Permit`], a [`Released`], a [`WritePermit`] and a [`RotationPermit`] are made here only, and only
//! after every sink has accepted the record that they stand for. Code that fetches, starts a child, changes a store or
//! rotates asks for them, so code that skips the record does not compile. Nothing here ever sees a value: a [`SecretNote`]
//! has no place for one.
//!
//! - `event`, `record`, `json`: the words and the line; `actor`, `process`: who acts;
//! - `chain`: what ties the lines together, pure; `seal`: what keeps yesterday's from being rewritten; `checkpoint`: what
//!   leaves the host, and `sending`: to parameters, and when asked to;
//! - `sinks`: where the lines go: `sink_file` with `head`, `sink_stream`, and then [`mirror`] with `syslog` and `socket`;
//! - [`journal`]: the records of many accesses at once, through one writer;
//! - [`mod@verify`]: were they changed; [`mod@read`]: what do they say.
//!
//! The format is specified in `docs/spec/audit-record.md`.
#![forbid(unsafe_code)]

mod actor;
mod chain;
mod checkpoint;
mod end;
mod error;
mod event;
mod head;
pub mod journal;
mod json;
pub mod mirror;
mod process;
pub mod read;
mod record;
mod seal;
mod sending;
mod sink_file;
mod sink_stream;
mod sinks;
mod socket;
mod syslog;
pub mod verify;

#[cfg(test)]
pub(crate) mod tests;

use std::path::Path;
use std::time::SystemTime;

pub use actor::{Actor, AgentNote};
pub use checkpoint::courier::Courier;
pub use checkpoint::key::VerifierKey;
pub use error::{AuditError, Problem};
pub use event::{Assurance, Event, Outcome};
pub use process::ProcessIdentity;
pub use seal::Begun;
pub use sending::Sent;

use crate::agent::client::ReleasedByAgent;
use crate::name::{EnvironmentName, ItemName, ServiceName, StoreName, VariableName};
use crate::policy::eval::Grant;
use crate::policy::model::{Binding, Evidence, Sink, Source};
use mirror::{Mirrors, Warn};
use record::{Author, Detail, Draft, Lists, SecretEntry, Statement};
use sink_file::FileSink;
use sinks::{OpenSink, open_all, write_all};

/// What is the same in every record of one command.
#[derive(Debug, Clone)]
pub struct Context {
    /// Who acts.
    pub actor: Actor,
    /// The environment; none where a process speaks of itself.
    pub environment: Option<EnvironmentName>,
    /// The service, if one was named.
    pub service: Option<ServiceName>,
    /// [`Policy::digest`](crate::policy::model::Policy::digest); empty where there is no policy.
    pub policy_digest: String,
    /// The command that would receive the secrets.
    pub command: Option<CommandNote>,
}

/// What a record says of a command. Arguments may hold secrets, so they are only counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandNote {
    /// Its absolute path.
    pub path: String,
    /// How many arguments it gets, itself not counted.
    pub argument_count: usize,
}

/// What a record says of one secret. There is no place for a value, nor for anything made from one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretNote {
    /// The variable.
    pub name: String,
    /// The store; empty for a template, and where only the name is known.
    pub store: String,
    /// The item; empty for a template and for a ciphertext of the policy.
    pub item: String,
    /// The names that a template is made of; empty for everything else.
    pub template: Vec<String>,
    /// It was fetched and does not itself reach the child: a part of a template, or a secret that yields to the parent
    /// environment.
    pub is_withheld: bool,
    /// The version that was served or written.
    pub version: Option<u64>,
    /// Its stage.
    pub stage: Option<&'static str>,
    /// How far past its time to live it was served.
    pub stale_seconds: Option<u64>,
}

/// Writes records to every sink, and gives out the proofs that it did.
pub struct Auditor {
    sinks: Vec<OpenSink>,
    mirrors: Mirrors,
    context: Context,
    access: Access,
    /// For the next record.
    request_ids: Vec<String>,
    /// For the record of the next request.
    remark: Option<String>,
}

/// Ties the records of one access together, also those of two processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access(String);

impl Access {
    /// The access that another process or the agent gave this number.
    #[must_use]
    pub fn of_bytes(bytes: &[u8; 8]) -> Self {
        Self(format!("{:016x}", u64::from_be_bytes(*bytes)))
    }

    /// Its number, as records have it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its number.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 8] {
        // 16 hexadecimal digits: it is made by `of_bytes` only.
        u64::from_str_radix(&self.0, 16).unwrap_or_default().to_be_bytes()
    }
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with this status.
    Status(u8),
    /// Of this signal.
    Signal(i32),
}

/// Proof that an access was granted and that its request is written down in every sink. Made by [`Auditor::request`] and
/// [`journal::Access::request`].
///
/// ```compile_fail,E0451
/// fn forge<'p>(grant: vouchsafe::policy::eval::Grant<'p>) -> vouchsafe::audit::Permit<'p> {
///     vouchsafe::audit::Permit { grant }
/// }
/// ```
/// One record, one use:
/// ```compile_fail,E0599
/// fn twice<'p>(permit: vouchsafe::audit::Permit<'p>) -> (vouchsafe::audit::Permit<'p>, vouchsafe::audit::Permit<'p>) {
///     (permit.clone(), permit)
/// }
/// ```
#[must_use]
#[derive(Debug)]
pub struct Permit<'p> {
    grant: Grant<'p>,
}

impl<'p> Permit<'p> {
    /// What was granted.
    #[must_use]
    pub fn grant(&self) -> &Grant<'p> {
        &self.grant
    }

    /// What was granted, for the one who uses the permit up.
    #[must_use]
    pub fn into_grant(self) -> Grant<'p> {
        self.grant
    }
}

/// Proof that the release of `T` is written down in every sink: by [`Auditor::release`], by [`journal::Access::release`], or by
/// the agent that sent it. No `Debug`: it holds plaintext.
///
/// ```compile_fail,E0451
/// let released = vouchsafe::audit::Released { inner: () };
/// ```
#[must_use]
pub struct Released<T> {
    inner: T,
}

impl<T> Released<T> {
    /// What an agent has released: the record is in its log.
    pub(crate) fn by_agent(inner: T, _proof: &ReleasedByAgent) -> Self {
        Self { inner }
    }

    /// What was released.
    pub fn into_inner(self) -> T {
        self.inner
    }
}

/// Proof that a change of a store is written down in every sink, for the items that it names. Made by
/// [`Auditor::begin_write`]; its outcome is a record of its own.
///
/// ```compile_fail,E0451
/// let permit = vouchsafe::audit::WritePermit { items: Vec::new() };
/// ```
#[must_use]
#[derive(Debug)]
pub struct WritePermit {
    items: Vec<(String, String)>,
}

impl WritePermit {
    /// Whether it is for this item.
    #[must_use]
    pub fn covers(&self, store: &StoreName, item: &ItemName) -> bool {
        self.items.iter().any(|(of, name)| of == store.as_str() && name == item.as_str())
    }
}

/// Proof that a store is going to be encrypted anew, and that this is written down in every sink. Made by
/// [`Auditor::begin_rekey`].
///
/// ```compile_fail,E0451
/// let permit = vouchsafe::audit::RekeyPermit { store: String::new() };
/// ```
#[must_use]
#[derive(Debug)]
pub struct RekeyPermit {
    store: String,
}

impl RekeyPermit {
    /// Whether it is for this store.
    #[must_use]
    pub fn covers(&self, store: &StoreName) -> bool {
        self.store == store.as_str()
    }
}

/// Proof that a rotation is written down in every sink: the item that it changes, and every other value that it reads and
/// hands to the target. Made by [`Auditor::begin_rotation`]; each step is a record of its own.
///
/// ```compile_fail,E0451
/// let item = (String::new(), String::new());
/// let permit = vouchsafe::audit::RotationPermit { item, means: Vec::new() };
/// ```
#[must_use]
#[derive(Debug)]
pub struct RotationPermit {
    item: (String, String),
    means: Vec<String>,
}

impl RotationPermit {
    /// Whether it is for this item.
    #[must_use]
    pub fn covers(&self, store: &StoreName, item: &ItemName) -> bool {
        self.item.0 == store.as_str() && self.item.1 == item.as_str()
    }

    /// Whether this binding may be read for it.
    #[must_use]
    pub fn covers_means(&self, name: &VariableName) -> bool {
        self.means.iter().any(|means| means == name.as_str())
    }
}

impl Auditor {
    /// Opens every sink. All but mirrors are required, and there has to be one that is.
    ///
    /// # Errors
    /// No sink that counts, or one that could not take a record.
    pub fn open(sinks: &[Sink], context: Context) -> Result<Self, AuditError> {
        let (open, mirrors) = (open_all(sinks, Assurance::File, None)?, Mirrors::of(sinks, Box::new(Warn)));
        Ok(Self { sinks: open, mirrors, context, access: new_access()?, request_ids: Vec::new(), remark: None })
    }

    /// The records that follow are about another command: for a process that serves many.
    ///
    /// # Errors
    /// The system's random generator failed.
    pub fn turn_to(&mut self, context: Context) -> Result<(), AuditError> {
        self.access = new_access()?;
        self.context = context;
        self.request_ids.clear();
        Ok(())
    }

    /// The access that the next records belong to.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The records that follow belong to an access that another process began.
    pub fn belong_to(&mut self, access: &Access) {
        self.access = access.clone();
    }

    /// Writes down how a supervised child ended.
    ///
    /// # Errors
    /// A sink did not take the record.
    pub fn child_exited(&mut self, pid: u32, end: End) -> Result<(), AuditError> {
        let (outcome, detail) = ended(pid, end);
        self.append_detail(Event::ChildExited, outcome, None, Lists::default(), Some(&detail))
    }

    /// The next record carries these ids of AWS requests, by which it is found in CloudTrail.
    pub fn note_request_ids(&mut self, ids: impl IntoIterator<Item = String>) {
        self.request_ids.extend(ids);
    }

    /// The record of the next request says this too.
    pub fn remark(&mut self, text: String) {
        self.remark = Some(text);
    }

    /// Writes down what is going to be fetched. Until this has returned, nothing may be.
    ///
    /// # Errors
    /// A sink did not take the record: there is no access.
    pub fn request<'p>(&mut self, grant: Grant<'p>) -> Result<Permit<'p>, AuditError> {
        let remark = self.remark.take();
        self.append(Event::AccessRequested, Outcome::Allowed, remark.as_deref(), asked_for(&grant))?;
        Ok(Permit { grant })
    }

    /// Writes down what `what` is going to be released with. `secrets` are all that it holds.
    ///
    /// # Errors
    /// A sink did not take the record: `what` is dropped.
    pub fn release<T>(&mut self, what: T, secrets: &[SecretNote]) -> Result<Released<T>, AuditError> {
        self.append(Event::AccessReleased, Outcome::Succeeded, None, Lists::notes(secrets))?;
        Ok(Released { inner: what })
    }

    /// Writes down that items are going to be changed or removed. Until this has returned, nothing may be. How it ended is
    /// a record of its own: [`Event::SecretWritten`], [`Event::SecretRemoved`] or [`Event::SecretRekeyed`].
    ///
    /// # Errors
    /// A sink did not take the record: there is no change.
    pub fn begin_write(&mut self, reason: Option<&str>, secrets: &[SecretNote]) -> Result<WritePermit, AuditError> {
        self.append(Event::SecretWriteRequested, Outcome::Allowed, reason, Lists::notes(secrets))?;
        Ok(WritePermit { items: secrets.iter().map(|note| (note.store.clone(), note.item.clone())).collect() })
    }

    /// Writes down that the whole of a store is going to be encrypted anew. Until this has returned, it may not be. How it
    /// ended is for [`Self::rekeyed`].
    ///
    /// # Errors
    /// A sink did not take the record: nothing is changed.
    pub fn begin_rekey(&mut self, reason: &str, store: &StoreName) -> Result<RekeyPermit, AuditError> {
        self.append(Event::SecretWriteRequested, Outcome::Allowed, Some(reason), whole(store, &[]))?;
        Ok(RekeyPermit { store: store.to_string() })
    }

    /// Writes down how the encryption anew of a store ended. `exposed` are the items that someone could open who must not
    /// any more, each with the highest version that he could.
    ///
    /// # Errors
    /// A sink did not take the record.
    pub fn rekeyed(
        &mut self,
        outcome: Outcome,
        reason: &str,
        store: &StoreName,
        exposed: &[SecretNote],
    ) -> Result<(), AuditError> {
        self.append(Event::SecretRekeyed, outcome, Some(reason), whole(store, exposed))
    }

    /// Writes down that an item is rotated, which other bindings are read for it, and where the values go. Until this has
    /// returned, no value may be read.
    ///
    /// # Errors
    /// A sink did not take the record: there is no rotation.
    pub fn begin_rotation(
        &mut self,
        reason: &str,
        rotated: &SecretNote,
        means: &[SecretNote],
    ) -> Result<RotationPermit, AuditError> {
        let means: Vec<SecretNote> =
            means.iter().map(|note| SecretNote { is_withheld: true, ..note.clone() }).collect();
        let all: Vec<SecretNote> = std::iter::once(rotated).chain(&means).cloned().collect();
        self.append(Event::RotationStarted, Outcome::Allowed, Some(reason), Lists::notes(&all))?;
        Ok(RotationPermit {
            item: (rotated.store.clone(), rotated.item.clone()),
            means: means.into_iter().map(|note| note.name).collect(),
        })
    }

    /// Writes down anything else. `reason` must be a text of ours: never a library's, which may cite what it worked on.
    ///
    /// # Errors
    /// A sink did not take the record.
    pub fn record(
        &mut self,
        event: Event,
        outcome: Outcome,
        reason: Option<&str>,
        secrets: &[SecretNote],
    ) -> Result<(), AuditError> {
        self.append(event, outcome, reason, Lists::notes(secrets))
    }

    /// What the sinks are called and what each one proves, for `doctor` and `explain`.
    pub fn sinks(&self) -> impl Iterator<Item = (String, Assurance)> {
        self.sinks.iter().map(|sink| match sink {
            OpenSink::File(file) => (crate::name::show(file.path()), Assurance::File),
            OpenSink::Stream(stream) => (stream.name().to_owned(), Assurance::Stream),
        })
    }

    fn append(&mut self, event: Event, outcome: Outcome, reason: Option<&str>, lists: Lists) -> Result<(), AuditError> {
        self.append_detail(event, outcome, reason, lists, None)
    }

    fn append_detail(
        &mut self,
        event: Event,
        outcome: Outcome,
        reason: Option<&str>,
        mut lists: Lists,
        detail: Option<&Detail>,
    ) -> Result<(), AuditError> {
        for id in self.request_ids.drain(..) {
            lists.request(&id);
        }
        let author = Author { context: &self.context, access: &self.access.0 };
        let statement = Statement { event, outcome, reason, detail };
        let draft = Draft::new(&author, statement, &lists, SystemTime::now());
        write_all(&mut self.sinks, &mut self.mirrors, &author, std::slice::from_ref(&draft))
    }
}

fn ended(pid: u32, end: End) -> (Outcome, Detail) {
    let (outcome, status, signal) = match end {
        End::Status(0) => (Outcome::Succeeded, Some(0), None),
        End::Status(status) => (Outcome::Failed, Some(status), None),
        End::Signal(signal) => (Outcome::Failed, None, Some(signal)),
    };
    (outcome, Detail::Child { pid, status, signal })
}

/// Begins the seals of a log, from its next record on: the seed goes to `out`, or beside the log, encrypted to `auditor`, and is
/// kept nowhere else. Makes the log where there is none.
///
/// # Errors
/// It is sealed already; the recipient is none; a file cannot be written.
pub fn seal_log(log: &str, auditor: &str, out: Option<&Path>) -> Result<Begun, AuditError> {
    FileSink::open(log, true, &Evidence::default(), Assurance::File)?.seal(auditor, out)
}

/// The signed checkpoint of where a log stands now, and the key that others verify it with. A log that rests is anchored by it.
///
/// # Errors
/// There is no log, or it is not ours, or the key cannot be read or made.
pub fn checkpoint(log: &str) -> Result<(String, VerifierKey), AuditError> {
    if let Err(error) = std::fs::symlink_metadata(log) {
        return Err(AuditError::File { path: log.into(), doing: "open", error });
    }
    FileSink::open(log, true, &Evidence::default(), Assurance::File)?.checkpoint()
}

fn new_access() -> Result<Access, AuditError> {
    Ok(Access::of_bytes(&sink_file::random::<8>()?))
}

/// The secrets of a grant, before anything is known but the policy.
fn asked_for(grant: &Grant<'_>) -> Lists {
    let mut lists = Lists::with_capacity(grant.names().len() + grant.parts().len());
    for place in grant.places() {
        lists.grant(place);
    }
    let policy = grant.policy();
    let bindings = |names: &[VariableName], inject: bool, lists: &mut Lists| {
        for name in names {
            if let Some(binding) = policy.secrets.get(name) {
                list_binding(lists, name, binding, inject);
            }
        }
    };
    bindings(grant.names(), true, &mut lists);
    bindings(grant.parts(), false, &mut lists);
    if grant.wants_bundles() {
        for bundle in &policy.bundles {
            lists.secret(&SecretEntry::bundle(bundle.store.as_str(), &bundle.path, bundle.recursive));
        }
        for name in grant.expected_of_bundles() {
            lists.secret(&SecretEntry::named(name.as_str()));
        }
    }
    lists
}

/// Everything in a store, and some of its items by name.
fn whole(store: &StoreName, items: &[SecretNote]) -> Lists {
    let mut lists = Lists::with_capacity(items.len() + 1);
    lists.secret(&SecretEntry::bundle(store.as_str(), "", true));
    for note in items {
        lists.secret(&SecretEntry::of(note));
    }
    lists
}

fn list_binding(lists: &mut Lists, name: &VariableName, binding: &Binding, inject: bool) {
    let entry = SecretEntry { inject: (!inject).then_some(false), ..SecretEntry::named(name.as_str()) };
    match &binding.source {
        Source::Ciphertext { store, .. } => {
            lists.secret(&SecretEntry { inline: Some(true), ..entry.in_store(store.as_str()) });
        }
        Source::Item(wanted) => lists.secret(&SecretEntry {
            version: wanted.version,
            stage: wanted.stage.map(crate::policy::model::Stage::word),
            ..entry.in_store(wanted.store.as_str()).item(wanted.item.as_str())
        }),
        Source::Template(template) => {
            let parts: Vec<&str> = template.references().map(VariableName::as_str).collect();
            lists.template(name.as_str(), &parts, inject);
        }
    }
}
