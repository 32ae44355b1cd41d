//! What is fetched again that nobody waits for: written down before it is, and after.

use std::rc::Rc;
use std::sync::Arc;

use super::Agent;
use super::policies::Served;
use super::rendered::note_of;
use crate::audit::journal::Access;
use crate::audit::{Event, Outcome, SecretNote};
use crate::name::StoreName;
use crate::resolve::Order;
use crate::store::Wanted;

/// Fetches what is due of these.
pub(super) fn refresh_all(agent: &Rc<Agent>, served: &Arc<Served>, due: Vec<Order>, access: &Access) {
    for order in due {
        refresh_later(agent, served, order, access);
    }
}

/// Fetches again what is going to be wanted again, on behalf of the access that showed it.
fn refresh_later(agent: &Rc<Agent>, served: &Arc<Served>, order: Order, access: &Access) {
    let (agent, served, mut access) = (Rc::clone(agent), Arc::clone(served), access.again());
    tokio::task::spawn_local(async move {
        let mut fetched = Vec::new();
        let may_fetch = async |wanted: &[Wanted]| {
            fetched = wanted.to_vec();
            note_refresh(&agent, &mut access, order.store(), wanted, Outcome::Allowed, None).await
        };
        let Some((outcome, request_ids)) = agent.cache.refresh(&served, &order, may_fetch).await else { return };
        access.note_request_ids(request_ids);
        agent.metrics.refreshed(outcome.is_ok());
        let (outcome, reason) = match outcome {
            Ok(()) => (Outcome::Succeeded, None),
            Err(failure) => (Outcome::Failed, Some(failure.message)),
        };
        note_refresh(&agent, &mut access, order.store(), &fetched, outcome, reason).await;
    });
}

/// Writes down that something is fetched that nobody waits for, before it is, and how that went; `false`: it is not written.
pub(super) async fn note_refresh(
    agent: &Agent,
    access: &mut Access,
    store: &StoreName,
    wanted: &[Wanted],
    outcome: Outcome,
    reason: Option<String>,
) -> bool {
    let notes: Vec<SecretNote> = wanted.iter().map(|wanted| note_of(store, wanted)).collect();
    let written = access.record(Event::SecretRefreshed, outcome, reason, &notes).await;
    match &written {
        Ok(()) => agent.audit_works.set(true),
        Err(error) => agent.audit_failed(error),
    }
    written.is_ok()
}
