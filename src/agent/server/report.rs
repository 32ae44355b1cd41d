//! What became of values that were released, and of a child that has them: written down as what it is, the claim of the user
//! who says it.

use std::rc::Rc;
use std::sync::Arc;

use super::Agent;
use super::access::{Last, Peer, note_of_command, unwritten};
use crate::agent::protocol::reply::Refusal;
use crate::agent::protocol::request::{COMPARED, ChildEvent, ChildReport};
use crate::audit::{Access, Actor, Context, End, Event, Outcome, journal};
use crate::child::supervise::Why;
use crate::error::Class;
use crate::policy::eval::Caller;

/// Writes it down, under the access that it names.
pub(super) async fn write(agent: &Rc<Agent>, peer: &Peer, caller: &Caller, report: ChildReport) -> Result<(), Refusal> {
    let signal = match report.event {
        ChildEvent::Killed { signal, .. } => signal,
        ChildEvent::Exited { .. } | ChildEvent::Changed | ChildEvent::Again { .. } => 1,
    };
    if !(1..=64).contains(&signal) {
        return Err(Refusal::Malformed);
    }
    let context = Arc::new(Context {
        actor: Actor { ppid: report.parent, ..agent.actor(caller, peer) },
        environment: Some(report.environment),
        service: report.service,
        // Another policy may be served by now than the one that it was started under, which the release names.
        policy_digest: String::new(),
        command: Some(note_of_command(&report.command)),
    });
    if !agent.may_connect(caller) {
        let mut access = agent.journal.access(context).map_err(|error| unwritten(agent, &error))?;
        let reason = Some("the host file does not let this user connect".to_owned());
        let written = access.record(Event::AccessDenied, Outcome::Denied, reason, &[]).await;
        written.map_err(|error| unwritten(agent, &error))?;
        return Err(Refusal::Denied);
    }
    let mut access = agent.journal.go_on(Access::of_bytes(&report.access), context);
    let why = match report.event {
        ChildEvent::Exited { pid, status } => {
            return written(agent, access.child_exited(pid, End::Status(status)).await);
        }
        ChildEvent::Killed { pid, signal } => {
            return written(agent, access.child_exited(pid, End::Signal(signal.into())).await);
        }
        ChildEvent::Changed => Why::Changed,
        ChildEvent::Again { start, of } => Why::Again { start, of },
    };
    written(agent, access.record(Event::ChildRestarting, Outcome::Allowed, Some(why.text()), &[]).await)
}

fn written(agent: &Agent, result: Result<(), crate::audit::AuditError>) -> Result<(), Refusal> {
    result.map_err(|error| unwritten(agent, &error))?;
    agent.audit_works.set(true);
    Ok(())
}

/// Writes down that a released access reached no child. The word is one of ours or none.
pub(super) async fn note_unused(access: &mut journal::Access, class: &str) {
    let known = Class::ALL.iter().find(|known| known.word() == class).map_or("unknown", |known| known.word());
    let reason = match class {
        COMPARED => "it was only compared with what the child has, says the caller".to_owned(),
        _ => format!("the child was not started, says the caller: {known}"),
    };
    // The release is written down; that this one is not changes nothing any more.
    access.record(Event::AccessUnused, Outcome::Failed, Some(reason), &[]).await.unwrap_or_default();
}

/// Writes down that a released access did not even reach the caller.
pub(super) async fn note_undelivered(last: &mut Last) {
    if let Some(mut access) = last.take() {
        let reason = "the caller did not take the answer".to_owned();
        access.record(Event::AccessUnused, Outcome::Failed, Some(reason), &[]).await.unwrap_or_default();
    }
}
