//! What a supervisor has to say of its child, to the agent that writes it down.

use std::path::PathBuf;

use super::errand::{Errand, claim};
use super::{ClientError, Connection};
use crate::agent::failure::Failure;
use crate::agent::protocol::decode_reply;
use crate::agent::protocol::reply::{Refusal, Reply};
use crate::agent::protocol::request::{ChildEvent, ChildReport, CommandClaim, Request};
use crate::audit::{Access, End};
use crate::child::command::Command;
use crate::child::supervise::{Book, Why};
use crate::error::{Class, Error};
use crate::name::{EnvironmentName, ServiceName, escape};
use crate::policy::model::HostFile;

/// The way to the agent's log.
pub(super) struct Report {
    environment: EnvironmentName,
    service: Option<ServiceName>,
    command: CommandClaim,
    socket: PathBuf,
    host: HostFile,
}

impl Report {
    pub(super) fn new(errand: &Errand<'_>, command: &Command) -> Self {
        Self {
            environment: errand.environment.clone(),
            service: errand.service.clone(),
            command: claim(command),
            socket: errand.socket.to_owned(),
            host: errand.host.clone(),
        }
    }

    /// Waits a few seconds at most: there are signals to be passed on.
    fn say(&self, access: &Access, event: ChildEvent) -> Result<(), Error> {
        let mut agent = Connection::open(&self.socket, &self.host)?;
        agent.hurry();
        let report = ChildReport {
            environment: self.environment.clone(),
            service: self.service.clone(),
            command: self.command.clone(),
            parent: std::os::unix::process::parent_id(),
            access: access.to_bytes(),
            event,
        };
        let body = agent.ask(&Request::Child(report))?;
        match decode_reply(body.expose()).map_err(ClientError::Frame)? {
            Reply::Done(_) => Ok(()),
            Reply::Refused(Refusal::Busy) => Err(ClientError::Busy(self.socket.clone()).into()),
            Reply::Refused(Refusal::Failed { message, .. }) => {
                let message = escape(&format!("agent: {message}"));
                Err(Failure { class: Class::Audit, message, hint: None }.into())
            }
            _ => Err(ClientError::Unwritten(self.socket.clone()).into()),
        }
    }
}

impl Book for Report {
    fn child_exited(&mut self, access: &Access, pid: u32, end: End) -> Result<(), Error> {
        let event = match end {
            End::Status(status) => ChildEvent::Exited { pid, status },
            End::Signal(signal) => ChildEvent::Killed { pid, signal: u8::try_from(signal).unwrap_or_default() },
        };
        self.say(access, event)
    }

    fn restarting(&mut self, access: &Access, why: Why) -> Result<(), Error> {
        let event = match why {
            Why::Changed => ChildEvent::Changed,
            Why::Again { start, of } => ChildEvent::Again { start, of },
            // What an agent gave is not kept, so there is nothing to go back to.
            Why::Back => return Err(ClientError::Senseless.into()),
        };
        self.say(access, event)
    }
}
