//! The records of many accesses at once: one writer, a thread of its own, so that a slow disk holds up nobody who does not
//! have to wait for it, and records that come while it syncs share the next sync.
//!
//! The promise is that of [`Auditor`](super::Auditor), access by access: a [`Permit`] or a [`Released`] is made only when
//! every sink has accepted the record. After a failure the sinks are opened anew for the records that follow, as another
//! process would; those that failed count for nothing.

use std::sync::Arc;
use std::thread;
use std::time::SystemTime;

use tokio::sync::{mpsc, oneshot};

use super::mirror::{Mirrors, Watch};
use super::record::{Author, Detail, Draft, Lists, Statement};
use super::sinks::{OpenSink, open_all, write_all};
use super::{
    Assurance, AuditError, Context, Courier, End, Event, Outcome, Permit, Released, SecretNote, asked_for, ended,
    new_access,
};
use crate::policy::eval::Grant;
use crate::policy::model::Sink;

/// How many records may wait for the writer; more have to wait for a place.
const QUEUE: usize = 1024;

/// How many records are written together.
const TOGETHER: usize = 256;

/// The way to the one writer.
#[derive(Clone)]
pub struct Journal {
    entries: mpsc::Sender<Entry>,
}

/// One access, or one thing that the agent does of its own accord. Its records carry the same `access`.
pub struct Access {
    journal: Journal,
    context: Arc<Context>,
    id: super::Access,
    request_ids: Vec<String>,
}

/// A record on its way to the writer.
struct Entry {
    context: Arc<Context>,
    access: super::Access,
    event: Event,
    outcome: Outcome,
    reason: Option<String>,
    lists: Lists,
    detail: Option<Detail>,
    written: oneshot::Sender<Result<(), AuditError>>,
}

impl Journal {
    /// Opens every sink and starts the writer. File sinks hold records of level `agent`, in a chain under the uid of this
    /// process. `courier` takes checkpoints to parameters; `watch` hears of the mirrors, in the thread of the writer.
    ///
    /// # Errors
    /// No sink that counts, one that could not take a record, or no thread.
    pub fn open(sinks: &[Sink], courier: Option<Arc<dyn Courier>>, watch: Box<dyn Watch>) -> Result<Self, AuditError> {
        let open = open_all(sinks, Assurance::Agent, courier.as_ref())?;
        let (entries, incoming) = mpsc::channel(QUEUE);
        let mirrors = Mirrors::of(sinks, watch);
        let writer = Writer { sinks: sinks.to_vec(), courier, open: Some(open), mirrors };
        let thread = thread::Builder::new().name("audit".into());
        thread.spawn(move || writer.serve(incoming)).map_err(|_| AuditError::Ended)?;
        Ok(Self { entries })
    }

    /// Begins the records of one access.
    ///
    /// # Errors
    /// The system's random generator failed.
    pub fn access(&self, context: Arc<Context>) -> Result<Access, AuditError> {
        Ok(Access { journal: self.clone(), context, id: new_access()?, request_ids: Vec::new() })
    }

    /// Goes on with the records of an access, as somebody names it.
    #[must_use]
    pub fn go_on(&self, access: super::Access, context: Arc<Context>) -> Access {
        Access { journal: self.clone(), context, id: access, request_ids: Vec::new() }
    }
}

impl Access {
    /// For what is done later because of this access.
    #[must_use]
    pub fn again(&self) -> Self {
        let (journal, context) = (self.journal.clone(), Arc::clone(&self.context));
        Self { journal, context, id: self.id.clone(), request_ids: Vec::new() }
    }

    /// What ties its records together.
    #[must_use]
    pub fn id(&self) -> &super::Access {
        &self.id
    }

    /// The next record carries these ids of AWS requests.
    pub fn note_request_ids(&mut self, ids: impl IntoIterator<Item = String>) {
        self.request_ids.extend(ids);
    }

    /// Writes down what is going to be fetched. Until this has returned, nothing may be.
    ///
    /// # Errors
    /// A sink did not take the record: there is no access.
    pub async fn request<'p>(&mut self, grant: Grant<'p>) -> Result<Permit<'p>, AuditError> {
        self.append(Event::AccessRequested, Outcome::Allowed, None, asked_for(&grant), None).await?;
        Ok(Permit { grant })
    }

    /// Writes down what `what` is going to be released with.
    ///
    /// # Errors
    /// A sink did not take the record: `what` is dropped.
    pub async fn release<T>(&mut self, what: T, secrets: &[SecretNote]) -> Result<Released<T>, AuditError> {
        self.append(Event::AccessReleased, Outcome::Succeeded, None, Lists::notes(secrets), None).await?;
        Ok(Released { inner: what })
    }

    /// Writes down anything else. `reason` must be a text of ours.
    ///
    /// # Errors
    /// A sink did not take the record.
    pub async fn record(
        &mut self,
        event: Event,
        outcome: Outcome,
        reason: Option<String>,
        secrets: &[SecretNote],
    ) -> Result<(), AuditError> {
        self.append(event, outcome, reason, Lists::notes(secrets), None).await
    }

    /// Writes down how a supervised child ended, as its supervisor says.
    ///
    /// # Errors
    /// A sink did not take the record.
    pub async fn child_exited(&mut self, pid: u32, end: End) -> Result<(), AuditError> {
        let (outcome, detail) = ended(pid, end);
        self.append(Event::ChildExited, outcome, None, Lists::default(), Some(detail)).await
    }

    async fn append(
        &mut self,
        event: Event,
        outcome: Outcome,
        reason: Option<String>,
        mut lists: Lists,
        detail: Option<Detail>,
    ) -> Result<(), AuditError> {
        for id in self.request_ids.drain(..) {
            lists.request(&id);
        }
        let (written, answer) = oneshot::channel();
        let (context, access) = (Arc::clone(&self.context), self.id.clone());
        let entry = Entry { context, access, event, outcome, reason, lists, detail, written };
        self.journal.entries.send(entry).await.map_err(|_| AuditError::Ended)?;
        answer.await.unwrap_or(Err(AuditError::Ended))
    }
}

struct Writer {
    sinks: Vec<Sink>,
    courier: Option<Arc<dyn Courier>>,
    /// Not there after a failure.
    open: Option<Vec<OpenSink>>,
    mirrors: Mirrors,
}

impl Writer {
    fn serve(mut self, mut incoming: mpsc::Receiver<Entry>) {
        let mut batch = Vec::new();
        while incoming.blocking_recv_many(&mut batch, TOGETHER) > 0 {
            self.write(std::mem::take(&mut batch));
        }
    }

    fn write(&mut self, batch: Vec<Entry>) {
        let now = SystemTime::now();
        let mut drafts = Vec::with_capacity(batch.len());
        let mut refused = Vec::new();
        for (index, entry) in batch.iter().enumerate() {
            let draft = entry.draft(now);
            match self.accepts(&draft) {
                Ok(()) => drafts.push(draft),
                Err(error) => refused.push((index, error)),
            }
        }
        let written = match batch.first() {
            Some(first) if !drafts.is_empty() => self.write_all(&first.author(), &drafts).map_err(Arc::new),
            Some(_) | None => Ok(()),
        };
        drop(drafts);
        let mut refused = refused.into_iter().peekable();
        for (index, entry) in batch.into_iter().enumerate() {
            let answer = match refused.next_if(|(at, _)| *at == index) {
                Some((_, error)) => Err(error),
                None => written.clone().map_err(AuditError::Together),
            };
            // Whoever asked may have gone away; the record stands all the same.
            entry.written.send(answer).unwrap_or_default();
        }
    }

    fn accepts(&self, draft: &Draft<'_>) -> Result<(), AuditError> {
        self.open.iter().flatten().try_for_each(|sink| match sink {
            OpenSink::File(file) => file.accepts(draft),
            OpenSink::Stream(_) => Ok(()),
        })
    }

    fn write_all(&mut self, author: &Author<'_>, drafts: &[Draft<'_>]) -> Result<(), AuditError> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => open_all(&self.sinks, Assurance::Agent, self.courier.as_ref())?,
        };
        write_all(&mut open, &mut self.mirrors, author, drafts)?;
        self.open = Some(open);
        Ok(())
    }
}

impl Entry {
    fn author(&self) -> Author<'_> {
        Author { context: &self.context, access: &self.access.0 }
    }

    fn draft(&self, now: SystemTime) -> Draft<'_> {
        let (reason, detail) = (self.reason.as_deref(), self.detail.as_ref());
        let statement = Statement { event: self.event, outcome: self.outcome, reason, detail };
        Draft::new(&self.author(), statement, &self.lists, now)
    }
}
