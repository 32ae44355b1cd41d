//! A connection that waits to be told of a change. Between two looks it is a socket, a question and a digest.
//!
//! Each look is an access of its own: decided by the policy as it is now, written down, and nothing leaves the agent. Whoever
//! is not granted any more, or whose secrets are not to be had, is told so, and that is the end.

use std::rc::Rc;
use std::time::Instant;

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use super::Agent;
use super::access::{Answered, Peer, encoded, refuse, resolve_for};
use super::connection::write;
use super::limits::Slot;
use super::watched::Watching;
use crate::agent::protocol::reply::{Refusal, Reply};
use crate::agent::protocol::request::{Ask, Purpose};

/// Serves a subscriber to its end. `has` stands for what it has.
pub(super) async fn serve(
    agent: Rc<Agent>,
    mut stream: UnixStream,
    peer: Peer,
    slot: Slot,
    mut ask: Ask,
    mut has: [u8; 32],
) {
    let Some(place) = agent.subscribers.take(peer.credentials.uid) else {
        write(&mut stream, refuse(Refusal::Busy)).await.unwrap_or_default();
        return;
    };
    // A place of those who ask is for those who ask.
    drop(slot);
    let mut stopping = agent.stopping.subscribe();
    let mut held: Option<Watching> = None;
    loop {
        ask.purpose = Purpose::Watch { has };
        let is_first = held.is_none();
        // In memory of its own, since it is only needed now and then.
        let looked = Box::pin(look(&agent, &peer, ask.clone())).await;
        let (set, watching) = match looked {
            Ok(seen) => seen,
            Err(refusal) => {
                write(&mut stream, refuse(refusal)).await.unwrap_or_default();
                break;
            }
        };
        let watching = held.insert(watching);
        if is_first && write(&mut stream, encoded(&Reply::Watching)).await.is_err() {
            break;
        }
        let mut not_before = None;
        if set != has {
            has = set;
            agent.metrics.noticed();
            if write(&mut stream, encoded(&Reply::Changed)).await.is_err() {
                break;
            }
            not_before = Instant::now().checked_add(watching.every());
        }
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => break,
            () = gone(&mut stream) => break,
            () = watching.changed(not_before) => {}
        }
    }
    drop(place);
}

/// What it would be given now, and the wait for the next change.
async fn look(agent: &Rc<Agent>, peer: &Peer, ask: Ask) -> Result<([u8; 32], Watching), Refusal> {
    // Names and groups of a user may have changed since.
    let caller = agent.caller(peer);
    if agent.refusals.are_too_many(caller.uid, Instant::now()) {
        agent.metrics.refused_unseen();
        return Err(Refusal::Busy);
    }
    match resolve_for(agent, peer, &caller, ask, &mut None).await {
        Ok(Answered::Seen(set, watching)) => {
            agent.audit_works.set(true);
            Ok((set, watching))
        }
        // Asked for a notice, and for no value.
        Ok(Answered::Values(_)) => Err(Refusal::Malformed),
        Err(refusal) => {
            if refusal == Refusal::Denied {
                agent.audit_works.set(true);
                agent.refusals.count(caller.uid, Instant::now());
            }
            Err(refusal)
        }
    }
}

/// Until the other side is gone, or speaks though it is not its turn.
async fn gone(stream: &mut UnixStream) {
    stream.read(&mut [0]).await.map(drop).unwrap_or_default();
}
