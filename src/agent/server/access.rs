//! One request, from what was asked to what is answered: the agent's own decision and its own records. The order is that of
//! `run`: decide, write down, fetch, write down, release.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::Agent;
use super::limits::Whose;
use super::policies::Served;
use super::refresh::refresh_all;
use super::rendered::{Held, encode, not_held, set_of, stale_seconds};
use super::report;
use super::watched::Watching;
use crate::agent::failure::Failure;
use crate::agent::protocol::encode_reply;
use crate::agent::protocol::reply::{Refusal, Reply};
use crate::agent::protocol::request::{Ask, CommandClaim, Purpose, Request};
use crate::audit::journal::Access;
use crate::audit::{
    Actor, AuditError, CommandNote, Context, Event, Outcome, Permit, ProcessIdentity, Released, SecretNote,
};
use crate::error::{Cause, Class, Error};
use crate::name::{StoreName, show};
use crate::policy::eval::{Caller, CommandFacts, Denial, Verdict, evaluate, mismatches};
use crate::policy::model::{AgentUse, RunMode};
use crate::policy::{self};
use crate::resolve::{orders, resolve};
use crate::secret::Secret;
use crate::store::Store;
use crate::sys::peer::{Credentials, Unmapped};

/// Who is connected, as the kernel said when the connection was accepted.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) credentials: Credentials,
    pub(super) groups: Vec<u32>,
    pub(super) process: ProcessIdentity,
}

impl Peer {
    /// Who has just connected. A process that our namespace has no number for (0) cannot be told from others.
    /// A group that anybody's may be shown as is none: groups only add rights.
    pub(super) fn new(mut credentials: Credentials, mut groups: Vec<u32>, unmapped: Unmapped) -> Self {
        groups.retain(|gid| !unmapped.is_group(*gid));
        if unmapped.is_group(credentials.gid) {
            // (gid_t) -1 is no group (credentials(7), chown(2)).
            credentials.gid = u32::MAX;
        }
        let process = match credentials.pid {
            0 => ProcessIdentity { pid_namespace: None, ..ProcessIdentity::here() },
            pid => ProcessIdentity::of(pid),
        };
        Self { credentials, groups, process }
    }
}

/// What goes back.
pub(super) enum Frame {
    /// Values, whose release is written down.
    Granted(Released<Secret>),
    /// No values.
    Other(Secret),
}

/// What came of a request that is granted.
pub(super) enum Answered {
    /// Values.
    Values(Released<Secret>),
    /// What stands for them, for one who waits for others.
    Seen([u8; 32], Watching),
}

/// The access of this connection that was granted last, until it is known to have reached a child.
pub(super) type Last = Option<Access>;

/// Answers one request.
pub(super) async fn answer(agent: &Rc<Agent>, peer: &Peer, request: Request, last: &mut Last) -> Frame {
    let caller = agent.caller(peer);
    match request {
        Request::Resolve(ask) => {
            last.take();
            let (whose, started) = (agent.whose(&caller), Instant::now());
            // Too much of late: nothing is looked at, and nothing more is written down.
            if let Err(refusal) = may_ask(agent, whose) {
                return refuse(refusal);
            }
            agent.budget.writes(whose, 2, started);
            let answered = resolve_for(agent, peer, &caller, ask, last).await;
            // Both have a record.
            if matches!(answered, Ok(_) | Err(Refusal::Denied)) {
                agent.audit_works.set(true);
            }
            agent.metrics.answered(&answered, started.elapsed());
            match answered {
                Ok(Answered::Values(frame)) => Frame::Granted(frame),
                // Who waits is served elsewhere.
                Ok(Answered::Seen(..)) => refuse(Refusal::Malformed),
                Err(refusal) => {
                    if matches!(refusal, Refusal::Denied | Refusal::DigestWanted) {
                        agent.budget.refused(whose, Instant::now());
                    }
                    if refusal == Refusal::Denied {
                        until_tick(started).await;
                    }
                    refuse(refusal)
                }
            }
        }
        Request::Unused { class } => {
            if let Some(mut access) = last.take() {
                agent.budget.writes(agent.whose(&caller), 1, Instant::now());
                report::note_unused(&mut access, &class).await;
            }
            encoded(&Reply::Done(0))
        }
        Request::Child(report) => {
            let whose = agent.whose(&caller);
            if let Err(refusal) = may_ask(agent, whose) {
                return refuse(refusal);
            }
            agent.budget.writes(whose, 1, Instant::now());
            match report::write(agent, peer, &caller, report).await {
                Ok(()) => encoded(&Reply::Done(0)),
                Err(refusal) => {
                    if refusal == Refusal::Denied {
                        agent.budget.refused(whose, Instant::now());
                    }
                    refuse(refusal)
                }
            }
        }
        Request::Status if agent.is_trusted(&caller) => encoded(&Reply::Status(agent.status().to_string())),
        Request::Flush { environment, service } if agent.is_trusted(&caller) => {
            match agent.flush(&caller, peer, environment.as_ref(), service.as_ref()).await {
                Ok(Some(count)) => encoded(&Reply::Done(count)),
                Ok(None) => {
                    let message = "no policy that is served speaks for that environment and service".to_owned();
                    let hint = Some("vouchsafe agent status   # says which are".to_owned());
                    refuse(failed(&Failure { class: Class::Policy, message, hint }))
                }
                Err(error) => refuse(failed(&Failure::of(&error))),
            }
        }
        // No record of one who only looks, since nobody reads names out of it; and no way to keep us busy.
        request @ (Request::Status | Request::Flush { .. }) => {
            let (whose, started) = (agent.whose(&caller), Instant::now());
            if let Err(refusal) = may_ask(agent, whose) {
                return refuse(refusal);
            }
            agent.budget.refused(whose, started);
            let Request::Flush { environment, service } = request else { return refuse(Refusal::Denied) };
            agent.budget.writes(whose, 1, started);
            let refusal = match agent.refuse_flush(&caller, peer, environment, service).await {
                Ok(()) => {
                    agent.audit_works.set(true);
                    Refusal::Denied
                }
                Err(error) => unwritten(agent, &error),
            };
            until_tick(started).await;
            refuse(refusal)
        }
    }
}

/// A denial is answered at a tick after its arrival, so that its time does not say what there was to look at.
const TICK: Duration = Duration::from_millis(10);

/// Waits for the next tick after `started`.
async fn until_tick(started: Instant) {
    let ticks = u32::try_from(started.elapsed().as_millis() / TICK.as_millis()).unwrap_or(u32::MAX).saturating_add(1);
    let at = TICK.checked_mul(ticks).and_then(|wait| started.checked_add(wait));
    if let Some(at) = at {
        tokio::time::sleep_until(at.into()).await;
    }
}

/// Whether a request is looked at. Who is not listed hears what he would hear anyway.
pub(super) fn may_ask(agent: &Agent, whose: Whose) -> Result<(), Refusal> {
    if agent.budget.is_left(whose, Instant::now()) {
        return Ok(());
    }
    agent.metrics.refused_unseen();
    Err(if whose == Whose::Strangers { Refusal::Denied } else { Refusal::Busy })
}

/// How often a request is decided again because its policy was replaced while it was under way.
const DECISIONS: usize = 20;

/// Decides, writes down, fetches, writes down. `last` is left with the access whose values go out.
pub(super) async fn resolve_for(
    agent: &Rc<Agent>,
    peer: &Peer,
    caller: &Caller,
    ask: Ask,
    last: &mut Last,
) -> Result<Answered, Refusal> {
    for _ in 0..DECISIONS {
        if let Some(answered) = decide(agent, peer, caller, ask.clone(), last).await? {
            return Ok(answered);
        }
    }
    Err(Refusal::Busy)
}

/// Decides once. `None`: what it was decided by is not served any more.
async fn decide(
    agent: &Rc<Agent>,
    peer: &Peer,
    caller: &Caller,
    ask: Ask,
    last: &mut Last,
) -> Result<Option<Answered>, Refusal> {
    let served = agent.find(&ask);
    let context = Arc::new(context(agent, peer, caller, &ask, served.as_deref()));
    let mut access = agent.journal.access(context).map_err(|error| unwritten(agent, &error))?;
    let purpose = ask.purpose;
    let of = (ask.environment.clone(), ask.service.clone());
    let request = policy::eval::Request {
        caller: caller.clone(),
        command: ask.command.map(facts),
        only: ask.only,
        // What the client says of its command is what it says.
        claimed: true,
    };
    let denied = match &served {
        None => Denied::new("the agent has no such policy"),
        Some(_) if !agent.may_connect(caller) => Denied::new("the host file does not let this user connect"),
        Some(served) if served.policy.run.agent == AgentUse::Forbid => Denied::new("the policy forbids the agent"),
        Some(served) => match evaluate(&served.policy, &request) {
            // To the process that is to become the command, and to no other.
            Verdict::Granted(_) if is_for_supervisor(purpose, &served.policy) => {
                return Err(Refusal::Supervised((&served.policy.run).into()));
            }
            // Nobody looks, as the policy says.
            Verdict::Granted(_) if matches!(purpose, Purpose::Watch { .. }) && served.policy.run.watch.is_none() => {
                return Err(Refusal::NotOffered);
            }
            Verdict::Granted(grant) => {
                let permit = access.request(grant).await.map_err(|error| unwritten(agent, &error))?;
                let answered = release(agent, served, permit, purpose, &mut access).await?;
                if matches!(answered, Some(Answered::Values(_))) {
                    if matches!(purpose, Purpose::Child | Purpose::Look { .. }) {
                        agent.releases.note(caller.uid, access.id().to_bytes(), of);
                    }
                    *last = Some(access);
                }
                return Ok(answered);
            }
            Verdict::Denied(denial) if wants_digest(&served.policy, &request, &denial) => {
                drop(denial);
                return Err(Refusal::DigestWanted);
            }
            Verdict::Denied(denial) => Denied::of(&denial),
        },
    };
    let Denied { reason, secrets } = denied;
    let written = access.record(Event::AccessDenied, Outcome::Denied, Some(reason), &secrets).await;
    written.map_err(|error| unwritten(agent, &error))?;
    // The same answer, whatever the reason.
    Err(Refusal::Denied)
}

/// From the permit to a frame with the values, its release written down. `None`: the policy was replaced meanwhile.
async fn release(
    agent: &Rc<Agent>,
    served: &Arc<Served>,
    permit: Permit<'_>,
    purpose: Purpose,
    access: &mut Access,
) -> Result<Option<Answered>, Refusal> {
    let (deadline, pin) = (Instant::now() + served.policy.run.deadline, permit.grant().pin());
    let mut fetched = Vec::new();
    let mut due = Vec::new();
    let orders = orders(&permit);
    // Before anything is looked at, so that nothing is missed.
    let watching = match (purpose, served.policy.run.watch) {
        (Purpose::Watch { .. }, Some(every)) => Some(agent.hub.watch(agent, served, every, &orders, access)),
        _ => None,
    };
    for order in orders {
        match agent.cache.answers(served, &order, deadline).await {
            Ok(mut found) => {
                access.note_request_ids(std::mem::take(&mut found.request_ids));
                agent.metrics.looked_up(&found);
                if found.is_due {
                    due.push(order.clone());
                }
                if watching.is_some() {
                    agent.hub.observe(served.number, order.store(), order.wanted(), &found.answers);
                }
                fetched.push((order, found));
            }
            Err(failure) => return Err(write_failure(agent, access, &failure).await),
        }
    }
    // What was decided by a policy that does not hold any more is not handed over; it may grant nothing now.
    if served.is_retired() {
        let reason = "the policy was replaced while this was fetched; it is decided anew".to_owned();
        let written = access.record(Event::AccessFailed, Outcome::Failed, Some(reason), &[]).await;
        written.map_err(|error| unwritten(agent, &error))?;
        return Ok(None);
    }
    let stale = stale_seconds(&fetched);
    let mut held: Vec<_> =
        fetched.into_iter().map(|(order, found)| Some(Held { order, answers: found.answers })).collect();
    let mut open = |name: &StoreName| -> Result<Box<dyn Store + '_>, Error> {
        let own = held.iter_mut().find(|held| held.as_ref().is_some_and(|held| held.order.store() == name));
        match own.and_then(Option::take) {
            Some(held) => Ok(Box::new(held)),
            None => Err(not_held(name).into()),
        }
    };
    let resolved = match resolve(permit, &mut open, deadline, SystemTime::now()) {
        Ok(resolved) => resolved,
        Err(error) => return Err(write_failure(agent, access, &Failure::of_error(&error)).await),
    };
    let stale_of = |note: &SecretNote| {
        stale.iter().filter(|(store, item, _)| *store == note.store && *item == note.item).map(|(.., past)| *past).max()
    };
    let set = set_of(&agent.set_key, &resolved);
    if let (Purpose::Watch { has }, Some(watching)) = (purpose, watching) {
        let notes = resolved.into_notes();
        let reason = if set == has { "nothing has changed" } else { "something has changed; the caller is told so" };
        let written = access.record(Event::AccessCompared, Outcome::Succeeded, Some(reason.to_owned()), &notes).await;
        written.map_err(|error| unwritten(agent, &error))?;
        return Ok(Some(Answered::Seen(set, watching)));
    }
    if purpose == (Purpose::Look { has: set }) {
        let notes = resolved.into_notes();
        let reason = Some("nothing has changed".to_owned());
        let written = access.record(Event::AccessCompared, Outcome::Succeeded, reason, &notes).await;
        written.map_err(|error| unwritten(agent, &error))?;
        refresh_all(agent, served, due, access);
        return Err(Refusal::Unchanged);
    }
    let Ok(frame) = encode(served, access.id(), set, pin, &resolved, stale_of) else {
        let message = "all values together are larger than the agent's protocol allows".to_owned();
        let failure = Failure { class: Class::Environment, message, hint: None };
        return Err(write_failure(agent, access, &failure).await);
    };
    // The values are in the frame now; no second copy outlives this line.
    let notes: Vec<SecretNote> =
        resolved.into_notes().into_iter().map(|note| SecretNote { stale_seconds: stale_of(&note), ..note }).collect();
    let released = access.release(frame, &notes).await.map_err(|error| unwritten(agent, &error))?;
    refresh_all(agent, served, due, access);
    Ok(Some(Answered::Values(released)))
}

/// Whether nothing is to be fetched for the one who asks, since he is not the one who becomes the command.
fn is_for_supervisor(purpose: Purpose, policy: &policy::model::Policy) -> bool {
    match purpose {
        Purpose::Supervise => true,
        Purpose::Become => policy.run.mode == RunMode::Supervise,
        Purpose::Child | Purpose::Look { .. } | Purpose::Watch { .. } => false,
    }
}

/// So many of the names that were asked for in vain are written down.
const NAMES_OF_A_DENIAL: usize = 64;

/// Why there is nothing, for the record alone.
struct Denied {
    reason: String,
    secrets: Vec<SecretNote>,
}

impl Denied {
    fn new(reason: &str) -> Self {
        Self { reason: reason.to_owned(), secrets: Vec::new() }
    }

    fn of(denial: &Denial) -> Self {
        let (Denial::NotGranted { names, .. } | Denial::Unknown { names, .. }) = denial;
        let named = |name: &crate::name::VariableName| SecretNote { name: name.to_string(), ..SecretNote::default() };
        // What is asked for is the caller's to choose; how much of it is written down is not.
        Self { reason: denial.to_string(), secrets: names.iter().take(NAMES_OF_A_DENIAL).map(named).collect() }
    }
}

/// Whether grants would give all that is missing, were it not for a digest that was not claimed. Told only to those whom it
/// concerns.
fn wants_digest(policy: &policy::model::Policy, request: &policy::eval::Request, denial: &Denial) -> bool {
    let Denial::NotGranted { names, .. } = denial else { return false };
    let has_none = request.command.as_ref().is_some_and(|command| command.sha256.is_none());
    let fitting: Vec<_> = policy.grants.iter().filter(|rule| mismatches(rule, request) == ["sha256"]).collect();
    let is_named = |name: &crate::name::VariableName| {
        fitting.iter().any(|rule| rule.secrets.iter().any(|pattern| pattern.matches(name.as_str())))
    };
    has_none && !fitting.is_empty() && names.iter().all(is_named)
}

pub(super) fn facts(claim: CommandClaim) -> CommandFacts {
    use std::fmt::Write;
    let hex = |digest: [u8; 32]| {
        digest.iter().fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a String does not fail.
            write!(hex, "{byte:02x}").unwrap_or_default();
            hex
        })
    };
    CommandFacts { found: claim.found, canonical: claim.canonical, sha256: claim.sha256.map(hex) }
}

/// What a record says of a command that is claimed.
pub(super) fn note_of_command(command: &CommandClaim) -> CommandNote {
    CommandNote {
        path: show(&PathBuf::from(&command.found)),
        argument_count: usize::try_from(command.arguments).unwrap_or(usize::MAX),
    }
}

fn context(agent: &Agent, peer: &Peer, caller: &Caller, ask: &Ask, served: Option<&Served>) -> Context {
    let command = ask.command.as_ref().map(note_of_command);
    Context {
        actor: Actor { ppid: ask.parent, tty: ask.terminal.clone(), ..agent.actor(caller, peer) },
        environment: Some(ask.environment.clone()),
        service: ask.service.clone(),
        policy_digest: served.map(|served| served.policy.digest.clone()).unwrap_or_default(),
        command,
    }
}

async fn write_failure(agent: &Agent, access: &mut Access, failure: &Failure) -> Refusal {
    let (event, outcome) = match failure.class {
        Class::Denied => (Event::AccessDenied, Outcome::Denied),
        _ => (Event::AccessFailed, Outcome::Failed),
    };
    match access.record(event, outcome, Some(failure.message.clone()), &[]).await {
        Ok(()) => failed(failure),
        Err(error) => unwritten(agent, &error),
    }
}

/// No record, no access; and somebody has to hear of it.
pub(super) fn unwritten(agent: &Agent, error: &AuditError) -> Refusal {
    agent.audit_failed(error);
    failed(&Failure { class: error.class(), message: error.to_string(), hint: error.hint() })
}

fn failed(failure: &Failure) -> Refusal {
    let Failure { class, message, hint } = failure.clone();
    Refusal::Failed { class: class.word().to_owned(), message, hint }
}

pub(super) fn refuse(refusal: Refusal) -> Frame {
    encoded(&Reply::Refused(refusal))
}

pub(super) fn encoded(reply: &Reply<'_>) -> Frame {
    // A message without values is short: names are bounded, and a list of them by the policy's own limit.
    Frame::Other(encode_reply(reply).unwrap_or_else(|_| Secret::new(Vec::new())))
}

/// How long a caller may take to read an answer.
pub(super) const READING: Duration = Duration::from_secs(10);
