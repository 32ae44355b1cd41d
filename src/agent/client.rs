//! `run` through an agent: the same story, with the agent in the place of policy, audit and stores. No event loop: one
//! connection, one question, one answer.
//!
//! What must stay true: nothing is sent before it is known who answers; a demanded agent is never passed over in silence;
//! values arrive in buffers that are wiped; and only what an agent has released becomes a [`Received`].

use std::convert::Infallible;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) use connection::Connection;
pub use errand::Received;
use errand::{Errand, Taken};
pub use error::ClientError;
use report::Report;
use subscription::Subscription;

use super::protocol::request::Purpose;
use crate::child::command::Command;
use crate::child::supervise::{Next, supervise};
use crate::cli;
use crate::error::Error;
use crate::inject::ParentEnv;
use crate::policy::model::{HostFile, RunRules};
use crate::{setting, sys};

mod connection;
mod errand;
mod error;
mod report;
mod subscription;

/// Where an agent is looked for where nothing says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/vouchsafe/agent.sock";

/// For a place in the agent's queue, and for each piece of a request.
const PATIENCE: Duration = Duration::from_secs(2);

/// For an answer: longer than a policy's deadline would be sensible.
const ANSWER: Duration = Duration::from_secs(120);

/// How `run` comes to its secrets.
#[derive(Debug, PartialEq, Eq)]
pub enum Way {
    /// Through the agent at this socket, and in no other way.
    Agent(PathBuf),
    /// With the means of the caller.
    Direct {
        /// An agent that is there and was passed over because the caller said so; for the record.
        passed_over: Option<PathBuf>,
    },
}

/// Decides for one `run`. An agent that is there is used, unless the caller chose a policy by its path or said `--no-agent`; it
/// is never passed over because it fails.
///
/// # Errors
/// The host demands the agent, and the caller does not want it.
pub fn choose(options: &cli::Run, parent: &ParentEnv, host: &HostFile) -> Result<Way, ClientError> {
    let variable = |name| parent.get(name).filter(|text| !text.is_empty());
    let usual = || host.agent.socket.clone().unwrap_or_else(|| DEFAULT_SOCKET.into());
    let must = host.agent.require && !setting::is_root();
    let direct = |passed_over| if must { Err(ClientError::Demanded) } else { Ok(Way::Direct { passed_over }) };
    let is_there = |socket: &Path| socket.symlink_metadata().is_ok();
    match (&options.through.agent, variable("VOUCHSAFE_AGENT")) {
        (Some(Some(socket)), _) => Ok(Way::Agent(socket.clone())),
        (Some(None), Some(socket)) => Ok(Way::Agent(socket.into())),
        (Some(None), None) => Ok(Way::Agent(usual())),
        (None, _) if options.through.no_agent => direct(Some(usual()).filter(|socket| is_there(socket))),
        (None, _) if options.selection.policy.is_some() => direct(None),
        (None, Some(socket)) => Ok(Way::Agent(socket.into())),
        (None, None) if variable("VOUCHSAFE_POLICY").is_some() => direct(None),
        (None, None) if must || is_there(&usual()) => Ok(Way::Agent(usual())),
        (None, None) => direct(None),
    }
}

/// Proof that an agent has written the release down. Made only from its answer.
pub struct ReleasedByAgent(());

/// `vouchsafe run` through the agent at `socket`. Returns only an error.
///
/// # Errors
/// The command was not found, the agent is not there or not one, it refuses, or the kernel refused the exec. In each case the
/// command was not started.
pub fn run(options: cli::Run, parent: &ParentEnv, host: &HostFile, socket: &Path) -> Result<Infallible, Error> {
    sys::keep_freed_memory();
    sys::end_on_signals();
    let wanted = setting::wanted(&options.selection, parent)?;
    let environment = wanted.environment.ok_or(ClientError::NoEnvironment)?;
    let errand = Errand { environment, service: wanted.service, only: options.only, socket, host };
    let mut command = Command::look_up(options.command.clone(), parent.get("PATH"))?;
    let purpose = if options.supervise { Purpose::Supervise } else { Purpose::Become };
    let (agent, body) = errand.ask(&mut command, purpose)?;
    match errand.take(body, &command, parent, None)? {
        Taken::Ready(ready) => Err(ready.become_command(agent, &command)),
        Taken::Unusable(error) => Err(agent.tell_unused(error)),
        Taken::Supervised(rules) => {
            drop(agent);
            supervised(&errand, &rules, command, options.command, parent)
        }
        Taken::Unchanged => Err(ClientError::Senseless.into()),
    }
}

/// The same, in a process of its own, which this one stays with. It asks for itself: nothing secret ever is in this one.
fn supervised(
    errand: &Errand<'_>,
    rules: &RunRules,
    mut command: Command,
    words: Vec<OsString>,
    parent: &ParentEnv,
) -> Result<Infallible, Error> {
    let book = Box::new(Report::new(errand, &command));
    let notices = Box::new(Subscription::new(errand, words.clone(), parent.get("PATH")));
    let mut worker = supervise(book, rules, Some(notices), parent.get("NOTIFY_SOCKET"))?;
    let parent = worker.hand_on(parent);
    if worker.is_later() {
        // What was looked at is from before.
        command = Command::look_up(words, parent.get("PATH"))?;
    }
    let purpose = worker.looks_for_other_than().map_or(Purpose::Child, |has| Purpose::Look { has });
    let (mut agent, body) = errand.ask(&mut command, purpose)?;
    let ready = match errand.take(body, &command, &parent, Some(&mut worker))? {
        Taken::Ready(ready) => ready,
        Taken::Unusable(error) => return Err(agent.tell_unused(error)),
        Taken::Unchanged => {
            worker.has_seen_no_change();
            sys::exit_now(0);
        }
        Taken::Supervised(_) => return Err(ClientError::Senseless.into()),
    };
    if matches!(ready.next, Some(Next::Done(_))) || !worker.may_execute() {
        agent.tell_compared();
        sys::exit_now(0);
    }
    let error = ready.become_command(agent, &command);
    worker.did_not_execute();
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(words: &[&str]) -> cli::Run {
        let words = ["vouchsafe", "run"].iter().chain(words).chain(&["--", "true"]).map(Into::into);
        match cli::parse(words).unwrap() {
            cli::Parsed::Command(cli) => match cli.command {
                cli::Command::Run(run) => run,
                _ => panic!("not run"),
            },
            cli::Parsed::Text(_) => panic!("not a command"),
        }
    }

    fn way(words: &[&str], variables: &[(&str, &str)], host: &HostFile) -> Result<Way, ClientError> {
        let entries = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        choose(&options(words), &ParentEnv::new(entries), host)
    }

    #[test]
    fn an_agent_is_passed_over_only_by_word() {
        let (there, none) = ("/dev/null", "/nonexistent/agent.sock");
        let host = |socket: &str| HostFile {
            agent: crate::policy::model::HostAgent { socket: Some(socket.into()), ..Default::default() },
            ..HostFile::default()
        };
        let agent = |socket: &str| Way::Agent(socket.into());
        let direct = |over: Option<&str>| Way::Direct { passed_over: over.map(Into::into) };
        let variable = [("VOUCHSAFE_AGENT", "/a")];
        let policy = [("VOUCHSAFE_POLICY", "p.toml")];
        for (words, variables, socket, expected) in [
            (&["--agent=/b"][..], &variable[..], there, agent("/b")),
            (&["--agent"], &variable, there, agent("/a")),
            (&["--agent"], &[], none, agent(none)),
            (&["--no-agent"], &variable, there, direct(Some(there))),
            (&["--no-agent"], &[], none, direct(None)),
            (&["--policy=p"], &variable, there, direct(None)),
            (&[], &variable, none, agent("/a")),
            (&[], &[("VOUCHSAFE_AGENT", "")], none, direct(None)),
            (&[], &policy, there, direct(None)),
            (&[], &[], there, agent(there)),
            (&[], &[], none, direct(None)),
        ] {
            assert_eq!(way(words, variables, &host(socket)).unwrap(), expected, "{words:?} {variables:?} {socket}");
        }
        let both = ["--agent", "--no-agent"].map(OsString::from);
        let words = ["vouchsafe", "run"].map(Into::into).into_iter().chain(both).chain(["--", "x"].map(Into::into));
        assert!(cli::parse(words).is_err());
    }
}
