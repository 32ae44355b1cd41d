//! From the command line to the loop, and from the loop to its end.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ring::hmac;
use ring::rand::SystemRandom;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{AbortHandle, LocalSet};

use super::access::Peer;
use super::fetch::{AT_ONCE, Stores};
use super::limits::{Budget, CONNECTIONS, RESERVED, Releases, SUBSCRIBERS, Slots};
use super::log::{Level, log};
use super::mirrors::Losses;
use super::notify::Notify;
use super::policies::{Changes, NoPolicy, Policies};
use super::socket::{Socket, SocketError, handed_over, make};
use super::watched::Hub;
use super::{Agent, changes, connection};
use crate::agent::cache::{BYTES, Cache, VALUES};
use crate::agent::health::metrics::Metrics;
use crate::agent::health::{self, Address};
use crate::agent::marks::Marks;
use crate::audit::journal::Journal;
use crate::audit::{Actor, Event, Outcome};
use crate::caller::{self, Names};
use crate::checked_file::{distrust_groups, plain_io};
use crate::cli::agent::Serve;
use crate::courier::ToParameters;
use crate::error::{Cause, Class, Error};
use crate::inject::ParentEnv;
use crate::name::show;
use crate::policy::file::{HOST_FILE, load_host};
use crate::policy::model::Sink;
use crate::setting::load_host_file;
use crate::sys::{locked, peer};

/// How long connections get to finish when the agent ends.
const DRAIN: Duration = Duration::from_secs(25);

/// Questions after our health that are answered at once; one more takes the place of the oldest.
const HEALTH_AT_ONCE: usize = 32;

/// How often what no longer counts is wiped, even if nobody asks for it.
const SWEEP: Duration = Duration::from_secs(15);

/// Why the agent does not serve.
#[derive(Debug)]
enum StartError {
    /// The host file says nothing of an audit log.
    NoSink(PathBuf),
    /// No memory for the cache.
    Memory,
    /// The event loop, a signal handler or a health address is not to be had.
    Io { what: String, error: io::Error },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSink(path) => {
                write!(f, "the host file `{}` has no audit sink, and the agent writes the log of the host", show(path))
            }
            Self::Memory => write!(f, "there is no memory for the agent's cache"),
            Self::Io { what, error } => write!(f, "cannot set up {what}: {}", plain_io(error)),
        }
    }
}

impl Cause for StartError {
    fn class(&self) -> Class {
        match self {
            Self::NoSink(_) => Class::Audit,
            Self::Memory | Self::Io { .. } => Class::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoSink(path) => {
                Some(format!("vi {}   # [[audit.sinks]] with type = \"file\" and path = \"...\"", show(path)))
            }
            Self::Memory | Self::Io { .. } => None,
        }
    }
}

/// `vouchsafe agent`: serves until it is told to end.
///
/// # Errors
/// There is nothing to serve, nowhere to serve it, or nowhere to write it down.
pub fn serve(options: &Serve, parent: &ParentEnv) -> Result<(), Error> {
    survive_panics();
    distrust_groups();
    let locks_everything = locked::lock_everything();
    let descriptors = raise_descriptor_limit();
    let host = Arc::new(match &options.host {
        Some(path) => load_host(path, false)?,
        None => load_host_file()?,
    });
    let folder = options.policies.clone().unwrap_or_default();
    // Policies are named in records, which are read elsewhere.
    let folder = std::path::absolute(&folder).unwrap_or(folder);
    let own = Actor::of_this_process(&caller::of_this_process(false));
    let marks = Marks::kept_in(host.agent.state.as_deref());
    let mut policies = Policies::not_behind(Arc::new(marks));
    let found = policies.reload(&folder, &host)?;
    if policies.iter().next().is_none() {
        let first = found.refused.first().map(|refused| refused.failure.clone());
        changes::note_unserved(&host, &own, &found.refused);
        return Err(NoPolicy { folder, first }.into());
    }
    if host.sinks.is_empty() {
        return Err(StartError::NoSink(options.host.clone().unwrap_or_else(|| HOST_FILE.into())).into());
    }
    let for_all = !host.agent.users.is_empty();
    let mut socket = match handed_over(parent, for_all)? {
        Some(socket) => socket,
        None => {
            let path = options.socket.as_deref().or(host.agent.socket.as_deref()).ok_or(SocketError::Unnamed)?;
            make(path, for_all)?
        }
    };
    let losses = Losses::default();
    // The agent's own copy: its stores are asked in other threads.
    let environment = Arc::new(ParentEnv::of_this_process());
    let courier = ToParameters::of(&host.sinks, &host.network, || Arc::clone(&environment));
    let journal = Journal::open(&host.sinks, courier, Box::new(losses.clone()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(AT_ONCE).build();
    let runtime = runtime.map_err(|error| StartError::Io { what: "the event loop".into(), error })?;

    let stores = Stores::new(Arc::clone(&host), environment);
    let mut cache = Cache::new(BYTES, VALUES, Box::new(stores)).ok_or(StartError::Memory)?;
    let no_key = |_| StartError::Io { what: "a random key".into(), error: io::ErrorKind::Other.into() };
    let key = || hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map_err(no_key);
    let (hub, set_key) = (Rc::new(Hub::new(key()?)), key()?);
    let observer = Rc::clone(&hub);
    cache.tell(Box::new(move |(policy, store), wanted, answers| observer.observe(*policy, store, wanted, answers)));
    let mut lacks = cache.lacks();
    lacks.retain(|what| !locks_everything || *what != "locked");
    let agent = Rc::new(Agent {
        host,
        folder,
        socket: socket.path.clone(),
        policies: policies.into(),
        journal,
        losses,
        cache,
        metrics: Metrics::new(),
        names: Names::default().into(),
        budget: Budget::default(),
        releases: Releases::default(),
        slots: Slots::new(descriptors),
        subscribers: Slots::of_subscribers(descriptors),
        hub,
        stopping: watch::Sender::new(false),
        set_key,
        audit_works: true.into(),
        own,
        started: SystemTime::now(),
        lacks,
        unmapped: peer::Unmapped::here(),
    });
    let notify = Notify::new(parent);
    let served = LocalSet::new().block_on(&runtime, run(&agent, &mut socket, options.health.as_ref(), &notify, &found));
    // A store that hangs must not keep us: what it still brings, nobody wants.
    runtime.shutdown_background();
    served
}

async fn run(
    agent: &Rc<Agent>,
    socket: &mut Socket,
    health: Option<&Address>,
    notify: &Notify,
    found: &Changes,
) -> Result<(), Error> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error| StartError::Io { what, error }
    };
    let listener = socket.listen().map_err(failed("the socket"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed("SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed("SIGINT"))?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed("SIGHUP"))?;
    let _health = match health {
        Some(address) => Some(listen_for_health(agent, address).await?),
        None => None,
    };
    tell_start(agent, socket, health);
    changes::tell_unkept(&agent.host);
    let reason = format!("policies that are served: {}", agent.policies.borrow().iter().count());
    agent.note(Event::AgentStarted, Outcome::Succeeded, reason, None).await?;
    changes::note(agent, found).await?;
    notify.tell("READY=1\nSTATUS=serving");

    let mut stopping = agent.stopping.subscribe();
    let mut sweep = tokio::time::interval(SWEEP);
    let mut alive = tokio::time::interval(notify.watchdog.unwrap_or(SWEEP));
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => admit(agent, stream),
                // No descriptors, or no memory: those who are here will go.
                Err(error) => {
                    log(Level::Warning, "connection.failed", json!({ "message": plain_io(&error) }));
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            _ = hangup.recv() => reload(agent, notify).await,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = stopping.wait_for(|stopping| *stopping) => break,
            _ = sweep.tick() => {
                agent.cache.sweep();
                try_audit(agent);
            }
            _ = alive.tick() => if notify.watchdog.is_some() {
                notify.tell("WATCHDOG=1");
            },
        }
    }
    drop(listener);
    end(agent, notify).await
}

/// Lets a client in, if there is room for it.
fn admit(agent: &Rc<Agent>, stream: UnixStream) {
    // Who is gone already has no credentials to show.
    let Ok(credentials) = peer::credentials(&stream) else { return };
    let groups = peer::groups(&stream).unwrap_or_default();
    let peer = Peer::new(credentials, groups, agent.unmapped);
    // Those who get nothing in any case take no place of those who might.
    let Some(slot) = agent.slots.take(agent.whose(&agent.caller(&peer))) else {
        agent.metrics.turned_away();
        connection::turn_away(&stream);
        return;
    };
    tokio::task::spawn_local(connection::serve(Rc::clone(agent), stream, peer, slot));
}

/// SIGHUP: reads the policies again. Requests that are under way end as they began.
async fn reload(agent: &Rc<Agent>, notify: &Notify) {
    notify.reloading();
    let reloaded = agent.policies.borrow_mut().reload(&agent.folder, &agent.host);
    let noted = match reloaded {
        Ok(changes) => {
            let retired: Vec<u64> = changes.retired.iter().map(|served| served.number).collect();
            agent.cache.forget(|number| retired.contains(&number));
            agent.hub.retire(&retired);
            changes::note(agent, &changes).await
        }
        Err(failure) => {
            log(Level::Error, "policies.unreadable", json!({ "message": failure.message }));
            agent.note(Event::PolicyRefused, Outcome::Failed, failure.message, None).await
        }
    };
    if let Err(error) = noted {
        agent.audit_failed(&error);
    }
    notify.tell("READY=1");
}

/// Nobody may ask while it is known that nothing can be written down: tries whether something can be again.
fn try_audit(agent: &Rc<Agent>) {
    if agent.audit_works.get() {
        return;
    }
    let agent = Rc::clone(agent);
    tokio::task::spawn_local(async move {
        let reason = "records could not be written for a while, and no access was given".to_owned();
        if agent.note(Event::AuditResumed, Outcome::Succeeded, reason, None).await.is_ok() {
            log(Level::Info, "audit.resumed", json!({}));
        }
    });
}

/// Finishes what was begun, then says so.
async fn end(agent: &Rc<Agent>, notify: &Notify) -> Result<(), Error> {
    notify.tell("STOPPING=1\nSTATUS=draining");
    log(Level::Info, "agent.stopping", json!({ "connections": agent.slots.taken() }));
    agent.stopping.send_replace(true);
    let drained = async {
        while agent.slots.taken() > 0 {
            agent.slots.gone.notified().await;
        }
    };
    let is_clean = tokio::time::timeout(DRAIN, drained).await.is_ok();
    agent.cache.forget(|_| true);
    let left = agent.slots.taken();
    let reason =
        if is_clean { "told to end".to_owned() } else { format!("told to end; {left} connections were cut off") };
    agent.note(Event::AgentStopped, Outcome::Succeeded, reason, None).await?;
    log(Level::Info, "agent.stopped", json!({ "cut_off": left }));
    Ok(())
}

fn tell_start(agent: &Agent, socket: &Socket, health: Option<&Address>) {
    if !agent.lacks.is_empty() {
        let message = format!("the memory of the cache is not {}", agent.lacks.join(", not "));
        let hint = "LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited";
        log(Level::Warning, "memory.unprotected", json!({ "message": message, "hint": hint }));
    }
    let sink = |sink: &Sink| match sink {
        Sink::Fd(number) => format!("fd:{number}"),
        Sink::File { path, .. } => path.clone(),
        Sink::Journald(path) => format!("journald:{}", show(path)),
        Sink::Stderr => "stderr".to_owned(),
        Sink::Syslog(path) => format!("syslog:{}", show(path)),
    };
    let sinks: Vec<String> = agent.host.sinks.iter().map(sink).collect();
    let mut started = agent.status();
    if let Some(started) = started.as_object_mut() {
        started.remove("schema");
        started.insert("handed_over".into(), json!(socket.is_handed_over()));
        started.insert("health".into(), json!(health.map(ToString::to_string)));
        started.insert("sinks".into(), json!(sinks));
    }
    log(Level::Info, "agent.started", started);
}

/// Listens for who asks how we are; ends when the answer is dropped with the runtime.
async fn listen_for_health(agent: &Rc<Agent>, address: &Address) -> Result<Option<Socket>, Error> {
    match address {
        Address::Unix(path) => {
            // Nothing that is told there is a secret; but whoever can knock can take time.
            let mut socket = make(path, false)?;
            let failed = |error| StartError::Io { what: format!("the health socket `{}`", show(path)), error };
            let listener = socket.listen().map_err(failed)?;
            tokio::task::spawn_local(answer_health(Rc::clone(agent), async move || listener.accept().await));
            Ok(Some(socket))
        }
        Address::Loopback(address) => {
            let failed = |error| StartError::Io { what: format!("the health address `{address}`"), error };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            tokio::task::spawn_local(answer_health(Rc::clone(agent), async move || listener.accept().await));
            Ok(None)
        }
    }
}

/// Answers those who ask how we are, a few at a time: who says nothing makes room for the next.
async fn answer_health<S, A>(agent: Rc<Agent>, accept: impl AsyncFn() -> io::Result<(S, A)>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        match accept().await {
            Ok((stream, _)) => {
                open.retain(|task| !task.is_finished());
                if open.len() >= HEALTH_AT_ONCE
                    && let Some(oldest) = open.pop_front()
                {
                    oldest.abort();
                }
                let agent = Rc::clone(&agent);
                let task = tokio::task::spawn_local(async move { health::serve(stream, &*agent).await });
                open.push_back(task.abort_handle());
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// One task that panics must not take the others along. Its message may hold anything, so only its place is told.
fn survive_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(|| "unknown".into(), |at| format!("{}:{}", at.file(), at.line()));
        log(
            Level::Error,
            "internal",
            json!({ "message": format!("internal error at {place}"), "hint": "please report it" }),
        );
    }));
}

/// As many descriptors as the kernel lets us have; answers how many.
fn raise_descriptor_limit() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // More are of no use, and some kernels make everything that asks for the limit slow if there is none.
    let wanted = maximum.unwrap_or(u64::MAX).min((CONNECTIONS + SUBSCRIBERS + RESERVED) as u64);
    let now = current.unwrap_or(u64::MAX);
    let raised = now < wanted && setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).is_ok();
    usize::try_from(if raised { wanted } else { now }).unwrap_or(usize::MAX)
}
