//! What a look at the policies has changed: told to whoever reads the log, and written down.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::Agent;
use super::log::{Level, log};
use super::mirrors::Losses;
use super::policies::{Changes, Refused};
use crate::audit::journal::Journal;
use crate::audit::{Actor, AuditError, Context, Event, Outcome};
use crate::name::show;
use crate::policy::model::{HostFile, Policy};

/// Says what is served now that was not, and what is not.
pub(super) async fn note(agent: &Agent, changes: &Changes) -> Result<(), AuditError> {
    let begun = changes.marks_begun.as_deref().map(tell_begun).unwrap_or_default();
    for served in &changes.loaded {
        let policy = &served.policy;
        let file = policy.files.first().map(|path| show(path)).unwrap_or_default();
        let more = json!({
            "file": file,
            "environment": policy.environment,
            "service": policy.service,
            "digest": policy.digest,
            "serials": policy.serials,
        });
        log(Level::Info, "policy.loaded", more);
        let reason = format!("loaded from `{file}`{}{begun}", serials(policy));
        agent.note(Event::PolicyLoaded, Outcome::Succeeded, reason, Some(served)).await?;
    }
    for (environment, service) in &changes.gone {
        log(Level::Info, "policy.gone", json!({ "environment": environment, "service": service }));
        let service = service.as_ref().map(|service| format!(", service `{service}`")).unwrap_or_default();
        let reason = format!("the policy of `{environment}`{service} is gone and is not served any more");
        agent.note(Event::PolicyRefused, Outcome::Succeeded, reason, None).await?;
    }
    for refused in &changes.refused {
        tell_refused(refused);
        let kept = refused.kept.as_deref();
        agent.note(Event::PolicyRefused, Outcome::Failed, refused.reason(), kept).await?;
    }
    Ok(())
}

/// Where any of its files says one: `, serial 12`; of a chain, in its order: `, serials 12, 3`.
fn serials(policy: &Policy) -> String {
    match policy.serials.as_slice() {
        [serial] if *serial > 0 => format!(", serial {serial}"),
        serials if serials.iter().any(|serial| *serial > 0) => {
            let serials: Vec<_> = serials.iter().map(ToString::to_string).collect();
            format!(", serials {}", serials.join(", "))
        }
        _ => String::new(),
    }
}

fn tell_refused(refused: &Refused) {
    let more = json!({
        "file": show(&refused.path),
        "message": refused.reason(),
        "hint": refused.failure.hint,
        "served": refused.kept.as_deref().map(|kept| &kept.policy.digest),
    });
    log(Level::Error, "policy.refused", more);
}

/// Says what stands in the way of a start at which nothing is served: somebody may have put an old policy in the place of
/// another. It does not start in any case, so that the log takes no record is told and no more.
pub(super) fn note_unserved(host: &HostFile, own: &Actor, refused: &[Refused]) {
    refused.iter().for_each(tell_refused);
    if host.sinks.is_empty() || refused.is_empty() {
        return;
    }
    let write = async {
        // It ends at once: a checkpoint that is to go to a parameter stays due.
        let journal = Journal::open(&host.sinks, None, Box::new(Losses::default()))?;
        for refused in refused {
            let context = Context {
                actor: own.clone(),
                environment: None,
                service: None,
                policy_digest: String::new(),
                command: None,
            };
            let mut access = journal.access(Arc::new(context))?;
            access.record(Event::PolicyRefused, Outcome::Failed, Some(refused.reason()), &[]).await?;
        }
        Ok::<(), AuditError>(())
    };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
    if let Err(error) = runtime.block_on(write) {
        log(Level::Error, "audit.failed", json!({ "message": error.to_string() }));
    }
}

/// What is said of policies whose serials are the first that are known. Nobody can tell the first time from one after which the
/// marks were taken away.
fn tell_begun(path: &Path) -> String {
    let message = format!("`{}` was not there: no serial of before is known", show(path));
    log(Level::Warning, "marks.begun", json!({ "message": message }));
    format!("; marks of serials begin anew in `{}`", show(path))
}

/// What is said where signed policies are demanded and nothing is remembered of them.
pub(super) fn tell_unkept(host: &HostFile) {
    if host.trust.is_some() && host.agent.state.is_none() {
        let hint =
            format!("vi {}   # [agent] state = \"/var/lib/vouchsafe\", a folder of the agent's own", show(&host.path));
        let message = "which serials were served is forgotten when the agent ends";
        log(Level::Warning, "marks.unkept", json!({ "message": message, "hint": hint }));
    }
}
