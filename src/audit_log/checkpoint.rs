//! `vouchsafe audit checkpoint`: the key of a log's checkpoints, and a checkpoint of now, printed or sent.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::audit::{self, Actor, Auditor, Context, Sent};
use crate::cli::{self, UsageError};
use crate::courier::ToParameters;
use crate::error::{Cause, Class, Error};
use crate::inject::ParentEnv;
use crate::name::show;
use crate::setting::{Setting, load_host_file};
use crate::{caller, output};

/// Prints the checkpoint of now, or the key that checkpoints are signed by, or sends it.
///
/// # Errors
/// There is no log, or it is not ours; a checkpoint did not arrive.
pub(super) fn checkpoint(options: &cli::AuditCheckpoint, parent: &ParentEnv) -> Result<(), Error> {
    match &options.log {
        Some(log) => print(log, options.key),
        None => send(&options.selection, parent),
    }
}

fn print(log: &Path, key_only: bool) -> Result<(), Error> {
    let log = log.to_str().ok_or_else(|| UsageError::new("the path of a log is UTF-8", None))?;
    let (note, key) = audit::checkpoint(log)?;
    output::print(&if key_only { format!("{key}\n") } else { note })
}

fn send(selection: &cli::Selection, parent: &ParentEnv) -> Result<(), Error> {
    let sent = open(selection, parent)?.send_checkpoints()?;
    if sent.is_empty() {
        let hint = "checkpoints = { to = [\"syslog\"] }   # in a sink of type `file`";
        return Err(UsageError::new("no sink has checkpoints", Some(hint.into())).into());
    }
    let mut failed = Vec::new();
    for Sent { log, to, failures } in sent {
        if failures.is_empty() {
            output::print(&format!("{}: the checkpoint of now went to {}\n", show(&log), to.join(", ")))?;
        } else {
            failed.push((log, failures));
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(NotSent(failed).into()) }
}

/// The sinks that count here: the host's need no policy.
fn open(selection: &cli::Selection, parent: &ParentEnv) -> Result<Auditor, Error> {
    let (host, caller) = (load_host_file()?, caller::of_this_process(false));
    if selection.policy.is_some() || host.sinks.is_empty() {
        return Setting::load(selection, parent)?.open_auditor(&caller, None);
    }
    let courier = ToParameters::of(&host.sinks, &host.network, || Arc::new(parent.clone()));
    let context = Context {
        actor: Actor::of_this_process(&caller),
        environment: None,
        service: None,
        policy_digest: String::new(),
        command: None,
    };
    Ok(Auditor::open(&host.sinks, context)?.with_courier(courier.as_ref()))
}

/// Checkpoints that did not arrive everywhere: of which log, and where and why not.
#[derive(Debug)]
struct NotSent(Vec<(PathBuf, Vec<String>)>);

impl fmt::Display for NotSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |(log, failures): &(PathBuf, Vec<String>)| {
            format!("the checkpoint of `{}` did not arrive: {}", show(log), failures.join("; "))
        };
        f.write_str(&self.0.iter().map(one).collect::<Vec<_>>().join("; "))
    }
}

impl Cause for NotSent {
    fn class(&self) -> Class {
        Class::Audit
    }

    fn hint(&self) -> Option<String> {
        let is_of_aws = self.0.iter().flat_map(|(_, failures)| failures).any(|failure| failure.starts_with("ssm:"));
        is_of_aws
            .then(|| "vouchsafe check --iam=checkpoint   # the right to a parameter, if that is what AWS denied".into())
    }
}
