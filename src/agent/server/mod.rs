//! The daemon: one event loop in one thread, which decides and never waits for a disk or a store.
//!
//! - [`start`]: from the command line to the loop, and to its end; [`socket`]: where it listens; [`notify`]: what systemd hears;
//!   [`mod@log`]: what everybody else hears;
//! - [`connection`]: frames and their time; [`limits`]: how many; [`access`]: one request, the story of this module;
//!   [`rendered`]: its values on their way; [`refresh`]: what nobody waits for; [`report`]: what supervisors say;
//!   [`subscription`]: who waits for a change; [`watched`]: and for what;
//! - [`policies`]: what is served; [`changes`]: what is said when that changes; [`fetch`]: asking stores, in threads of their
//!   own.
//!
//! A client is a request, not an authority: who it is says the kernel, what it may have says the policy that the agent has
//! loaded itself, and the agent's own record stands before anything leaves.

mod access;
mod changes;
mod connection;
mod fetch;
mod limits;
pub(crate) mod log;
mod mirrors;
mod notify;
pub mod policies;
mod refresh;
mod rendered;
mod report;
mod socket;
mod start;
mod subscription;
mod watched;

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use ring::hmac;
use serde_json::json;
use tokio::sync::watch;

pub use start::serve;

use self::access::Peer;
use self::limits::{Budget, Releases, Slots, Whose};
use self::log::{Level, log};
use self::mirrors::Losses;
use self::policies::{Policies, Served};
use self::watched::Hub;
use super::cache::Cache;
use super::health::Tell;
use super::health::metrics::{Metrics, Now};
use super::protocol::request::Ask;
use crate::audit::journal::Journal;
use crate::audit::{Actor, AgentNote, AuditError, Context, Event, Outcome};
use crate::caller::Names;
use crate::name::{EnvironmentName, ServiceName, show};
use crate::policy::eval::Caller;
use crate::policy::model::HostFile;
use crate::sys::peer::Unmapped;

/// Everything that the connections share. Only the thread of the loop has it.
struct Agent {
    host: Arc<HostFile>,
    folder: PathBuf,
    socket: PathBuf,
    policies: RefCell<Policies>,
    journal: Journal,
    losses: Losses,
    cache: Cache,
    metrics: Metrics,
    names: RefCell<Names>,
    budget: Budget,
    releases: Releases,
    slots: Rc<Slots>,
    subscribers: Rc<Slots>,
    /// In the cache too, which has more to say to it.
    hub: Rc<Hub>,
    stopping: watch::Sender<bool>,
    /// For [`rendered::set_of`]; random, of this process.
    set_key: hmac::Key,
    /// The last record was written.
    audit_works: Cell<bool>,
    /// This process, for its own records.
    own: Actor,
    started: SystemTime,
    /// What the kernel did not grant for the cache's memory.
    lacks: Vec<&'static str>,
    /// Who is nobody here.
    unmapped: Unmapped,
}

impl Agent {
    /// Who is connected, with the names that this host has for it.
    fn caller(&self, peer: &Peer) -> Caller {
        let credentials = peer.credentials;
        self.names.borrow_mut().caller(credentials.uid, credentials.gid, &peer.groups)
    }

    /// Whether this user may ask for anything at all. Root is everyone anyway.
    fn may_connect(&self, caller: &Caller) -> bool {
        let is_listed = || self.host.agent.users.iter().any(|user| user.is(caller.uid, caller.user.as_deref()));
        // A number that is everybody's who has none is nobody's.
        !self.unmapped.is_user(caller.uid) && (self.is_trusted(caller) || is_listed())
    }

    /// In whose name it is counted what this user asks.
    fn whose(&self, caller: &Caller) -> Whose {
        if self.may_connect(caller) { Whose::User(caller.uid) } else { Whose::Strangers }
    }

    /// Whether this is root or the agent's own user.
    fn is_trusted(&self, caller: &Caller) -> bool {
        caller.uid == 0 || (caller.uid == self.own.uid && !self.unmapped.is_user(caller.uid))
    }

    /// The policy that speaks for what is asked.
    fn find(&self, ask: &Ask) -> Option<Arc<Served>> {
        self.policies.borrow().find(&ask.environment, ask.service.as_ref()).cloned()
    }

    /// The caller as the actor of a record.
    fn actor(&self, caller: &Caller, peer: &Peer) -> Actor {
        Actor {
            uid: caller.uid,
            user: caller.user.clone(),
            groups: caller.groups.iter().map(|(gid, _)| *gid).collect(),
            pid: peer.credentials.pid,
            host: self.own.host.clone(),
            process: peer.process.clone(),
            agent: Some(AgentNote { uid: self.own.uid, pid: self.own.pid }),
            ..Actor::default()
        }
    }

    /// Writes down something that the agent does by itself; of a policy, if it is about one.
    async fn note(
        &self,
        event: Event,
        outcome: Outcome,
        reason: String,
        of: Option<&Served>,
    ) -> Result<(), AuditError> {
        let context = Context {
            actor: self.own.clone(),
            environment: of.map(|served| served.policy.environment.clone()),
            service: of.and_then(|served| served.policy.service.clone()),
            policy_digest: of.map(|served| served.policy.digest.clone()).unwrap_or_default(),
            command: None,
        };
        let written = self.journal.access(Arc::new(context))?.record(event, outcome, Some(reason), &[]).await;
        self.audit_works.set(written.is_ok());
        written
    }

    fn audit_failed(&self, error: &AuditError) {
        self.metrics.audit_failed();
        // Once, not for each of a thousand requests.
        if self.audit_works.replace(false) {
            log(Level::Error, "audit.failed", json!({ "message": error.to_string() }));
        }
        // Nothing will ever be written again, so nothing given; whoever started us can start us anew.
        if matches!(error, AuditError::Ended) {
            self.stopping.send_replace(true);
        }
    }

    /// Forgets what is cached; of the policies that speak for an environment or a service, if one is named. `None`: none does.
    async fn flush(
        &self,
        caller: &Caller,
        peer: &Peer,
        environment: Option<&EnvironmentName>,
        service: Option<&ServiceName>,
    ) -> Result<Option<u64>, AuditError> {
        let meant = self.policies.borrow().speaking_for(environment, service);
        let count = self.cache.forget(|number| meant.contains(&number));
        self.hub.hurry(|number| meant.contains(&number));
        let context = Context {
            actor: self.actor(caller, peer),
            environment: environment.cloned(),
            service: service.cloned(),
            policy_digest: String::new(),
            command: None,
        };
        let mut access = self.journal.access(Arc::new(context))?;
        // All of none are none; but what is named has to be there.
        let is_nothing = meant.is_empty() && (environment.is_some() || service.is_some());
        let (outcome, reason) = match is_nothing {
            true => (Outcome::Failed, "no policy that is served speaks for that".to_owned()),
            false => (Outcome::Succeeded, format!("{count} entries forgotten")),
        };
        access.record(Event::AgentFlushed, outcome, Some(reason), &[]).await?;
        Ok((!is_nothing).then_some(count))
    }

    /// What is served and how things are, without values.
    fn status(&self) -> serde_json::Value {
        let policies = self.policies.borrow();
        let down = self.cache.down();
        let served = policies.iter().map(|served| {
            let policy = &served.policy;
            json!({
                "environment": served.slot.0,
                "service": served.slot.1,
                "file": policy.files.first().map(|path| show(path)),
                "digest": policy.digest,
                "serials": policy.serials,
                "stores": policy.stores.keys().collect::<Vec<_>>(),
                "stores_down": down.iter().filter(|(of, _)| *of == served.number).map(|(_, store)| store).collect::<Vec<_>>(),
                "names": policy.secrets.keys().collect::<Vec<_>>(),
            })
        });
        let refused = policies.refused().map(|refused| {
            json!({
                "file": show(&refused.path),
                "class": refused.failure.class.word(),
                "message": refused.reason(),
                "served": refused.kept.as_ref().map(|kept| &kept.policy.digest),
            })
        });
        let figures = self.cache.figures();
        json!({
            "schema": "vouchsafe.agent-status/1",
            "version": env!("CARGO_PKG_VERSION"),
            "pid": self.own.pid,
            "uid": self.own.uid,
            "started": humantime::format_rfc3339_seconds(self.started).to_string(),
            "socket": show(&self.socket),
            "ready": self.unready().is_none(),
            "unready": self.unready(),
            "policies": served.collect::<Vec<_>>(),
            "refused": refused.collect::<Vec<_>>(),
            "cache": {
                "values": figures.values,
                "bytes": figures.bytes,
                "bytes_at_most": figures.size,
                "evicted": figures.evicted,
                "oldest_seconds": figures.oldest.map(|at| at.elapsed().as_secs()),
                "memory_lacks": self.lacks,
            },
            "records_not_mirrored": self.losses.count(),
            "connections": { "open": self.slots.taken(), "at_most": self.slots.most() },
            "subscribers": { "open": self.subscribers.taken(), "at_most": self.subscribers.most() },
        })
    }
}

impl Tell for Agent {
    fn unready(&self) -> Option<&'static str> {
        if *self.stopping.borrow() {
            Some("it ends")
        } else if !self.audit_works.get() {
            Some("the last record of the audit could not be written")
        } else if !self.cache.down().is_empty() {
            Some("a store is down")
        } else {
            None
        }
    }

    fn metrics(&self) -> String {
        let policies = self.policies.borrow();
        self.metrics.text(Now {
            connections: self.slots.taken(),
            subscribers: self.subscribers.taken(),
            cache: self.cache.figures(),
            policies: policies.iter().count(),
            policies_refused: policies.refused().count(),
            policies_outdated: policies.refused().filter(|refused| refused.kept.is_some()).count(),
            stores_down: self.cache.down().len(),
            records_not_mirrored: self.losses.count(),
        })
    }
}
