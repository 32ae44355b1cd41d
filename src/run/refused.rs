//! Runs that are refused before a policy is asked, because they go by the agent that they have to go through: who tried is
//! written down all the same.

use std::fmt;

use crate::agent::client::ClientError;
use crate::audit::{Actor, Auditor, CommandNote, Context, Event, Outcome, SecretNote};
use crate::caller;
use crate::child::command::Command;
use crate::cli;
use crate::error::{Cause, Class, Error};
use crate::inject::ParentEnv;
use crate::name::show;
use crate::policy::model::HostFile;
use crate::setting::{Setting, wanted};

/// The host demands the agent. Its sinks count where it has some; else those of the policy that was selected. Where there is
/// neither, there is no log that this could be in.
pub(super) fn by_host(host: &HostFile, options: &cli::Run, parent: &ParentEnv, why: ClientError) -> Error {
    match Setting::load(&options.selection, parent) {
        Ok(setting) => by_policy(&setting, options, parent, why),
        Err(_) if host.sinks.is_empty() => why.into(),
        // Whoever has to go through the agent seldom can read a policy.
        Err(_) => {
            let wanted = wanted(&options.selection, parent).ok();
            let context = Context {
                actor: Actor::of_this_process(&caller::of_this_process(false)),
                environment: wanted.as_ref().and_then(|wanted| wanted.environment.clone()),
                service: wanted.and_then(|wanted| wanted.service),
                policy_digest: String::new(),
                command: find(options, parent).map(|command| CommandNote {
                    path: show(command.found()),
                    argument_count: command.argv().len().saturating_sub(1),
                }),
            };
            write_down(Auditor::open(&host.sinks, context).map_err(Error::from), options, why)
        }
    }
}

/// The policy demands the agent.
pub(super) fn by_policy(setting: &Setting<'_>, options: &cli::Run, parent: &ParentEnv, why: ClientError) -> Error {
    let caller = caller::of_this_process(false);
    write_down(setting.open_auditor(&caller, find(options, parent).as_ref()), options, why)
}

/// A command that is not there is refused like any other.
fn find(options: &cli::Run, parent: &ParentEnv) -> Option<Command> {
    Command::look_up(options.command.clone(), parent.get("PATH")).ok()
}

fn write_down(auditor: Result<Auditor, Error>, options: &cli::Run, why: ClientError) -> Error {
    let named = |name: &crate::name::VariableName| SecretNote { name: name.to_string(), ..SecretNote::default() };
    let secrets: Vec<SecretNote> = options.only.iter().flatten().map(named).collect();
    let reason = why.to_string();
    let written = auditor
        .and_then(|mut auditor| Ok(auditor.record(Event::AccessDenied, Outcome::Denied, Some(&reason), &secrets)?));
    match written {
        Ok(()) => why.into(),
        Err(unwritten) => Unwritten { why, unwritten }.into(),
    }
}

/// Refused, and nobody can look that up. Both are said: the log is often the agent's, where the caller writes nothing.
#[derive(Debug)]
struct Unwritten {
    why: ClientError,
    unwritten: Error,
}

impl fmt::Display for Unwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; and that this was refused could not be written down: {}", self.why, self.unwritten)
    }
}

impl Cause for Unwritten {
    fn class(&self) -> Class {
        Class::Audit
    }

    fn hint(&self) -> Option<String> {
        self.why.hint()
    }
}
