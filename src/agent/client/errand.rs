//! What is asked for, and what becomes of the answer.

use std::os::fd::AsFd;
use std::path::Path;

use super::{ClientError, Connection, ReleasedByAgent};
use crate::agent::failure::Failure;
use crate::agent::protocol::decode_reply;
use crate::agent::protocol::reply::{Granted, Refusal, Reply};
use crate::agent::protocol::request::{Ask, CommandClaim, Purpose, Request};
use crate::audit::{Released, SecretNote};
use crate::child::command::Command;
use crate::child::exec::exec;
use crate::child::supervise::{Next, Told, Worker};
use crate::error::{Class, Error};
use crate::inject::{ChildEnv, Limits, ParentEnv, inject, injected};
use crate::name::{EnvironmentName, ServiceName, VariableName};
use crate::policy::eval::Pin;
use crate::policy::model::{HostFile, RunMode, RunRules, Sink};
use crate::resolve::{Resolved, Value};
use crate::secret::Secret;

/// What an agent has released. Made only from its answer. No `Debug`: it holds plaintext.
pub struct Received {
    values: Vec<Value>,
}

impl Received {
    fn of(granted: &Granted<'_>) -> Result<Self, ClientError> {
        let mut values: Vec<Value> = Vec::with_capacity(granted.values.len());
        for value in &granted.values {
            let name = VariableName::new(value.name).map_err(|_| ClientError::Senseless)?;
            // Sorted, so that no name comes twice.
            if values.last().is_some_and(|last| last.name >= name) {
                return Err(ClientError::Senseless);
            }
            let stage = value.stage.map(|stage| crate::policy::model::Stage::from(stage).word());
            let note = SecretNote {
                name: name.to_string(),
                version: value.version,
                stage,
                stale_seconds: value.stale_seconds,
                ..SecretNote::default()
            };
            values.push(Value { name, secret: Secret::new(value.bytes.0.to_vec()), note });
        }
        Ok(Self { values })
    }

    /// The values.
    #[must_use]
    pub(crate) fn into_values(self) -> Vec<Value> {
        self.values
    }
}

/// What is asked for, of whom.
#[derive(Clone)]
pub(super) struct Errand<'e> {
    pub(super) environment: EnvironmentName,
    pub(super) service: Option<ServiceName>,
    pub(super) only: Option<Vec<VariableName>>,
    pub(super) socket: &'e Path,
    pub(super) host: &'e HostFile,
}

/// What came of it.
pub(super) enum Taken {
    /// Everything is there.
    Ready(Box<Ready>),
    /// Values came that cannot be used: the agent has to hear of it.
    Unusable(Error),
    /// The command is to have a supervisor.
    Supervised(RunRules),
    /// The command has all that already.
    Unchanged,
}

/// Everything that is needed to become the command.
pub(super) struct Ready {
    environment: ChildEnv,
    proof: ReleasedByAgent,
    pin: Pin,
    /// What the supervisor says to it, if there is one.
    pub(super) next: Option<Next>,
}

impl Ready {
    /// Becomes the command. Answers why not, as the agent has heard it too.
    pub(super) fn become_command(self, agent: Connection, command: &Command) -> Error {
        let error = exec(command, self.pin, Released::by_agent(self.environment, &self.proof));
        agent.tell_unused(error.into())
    }
}

impl Errand<'_> {
    /// Asks; with the digest of the command too if that is wanted.
    pub(super) fn ask(&self, command: &mut Command, purpose: Purpose) -> Result<(Connection, Secret), Error> {
        let mut agent = Connection::open(self.socket, self.host)?;
        let terminal = rustix::termios::ttyname(std::io::stdin().as_fd(), Vec::new()).ok();
        let mut ask = Ask {
            environment: self.environment.clone(),
            service: self.service.clone(),
            only: self.only.clone(),
            command: Some(claim(command)),
            parent: std::os::unix::process::parent_id(),
            terminal: terminal.map(|name| name.to_string_lossy().into_owned()),
            purpose,
        };
        let mut body = agent.ask(&Request::Resolve(ask.clone()))?;
        if matches!(decode_reply(body.expose()), Ok(Reply::Refused(Refusal::DigestWanted))) {
            command.take_digest()?;
            ask.command = Some(claim(command));
            body = agent.ask(&Request::Resolve(ask))?;
        }
        Ok((agent, body))
    }

    /// Makes of an answer what it is good for. The buffer that the values came in is wiped with it.
    pub(super) fn take(
        &self,
        body: Secret,
        command: &Command,
        parent: &ParentEnv,
        worker: Option<&mut Worker>,
    ) -> Result<Taken, Error> {
        match decode_reply(body.expose()).map_err(ClientError::Frame)? {
            Reply::Granted(granted) => Ok(match prepare(&granted, command, parent, worker) {
                Ok(ready) => Taken::Ready(Box::new(ready)),
                Err(error) => Taken::Unusable(error),
            }),
            Reply::Refused(Refusal::Supervised(rules)) => Ok(Taken::Supervised(rules.into())),
            Reply::Refused(Refusal::Unchanged) => Ok(Taken::Unchanged),
            Reply::Refused(refusal) => Err(self.refused(refusal)),
            Reply::Done(_) | Reply::Status(_) | Reply::Watching | Reply::Changed => Err(ClientError::Senseless.into()),
        }
    }

    pub(super) fn refused(&self, refusal: Refusal) -> Error {
        let log = self.host.sinks.iter().find_map(|sink| match sink {
            // Whose number it has there, the kernel need not have told us: that of systemd, if the socket is its.
            Sink::File { path, .. } => Some(path.replace("{uid}", "*")),
            Sink::Fd(_) | Sink::Journald(_) | Sink::Stderr | Sink::Syslog(_) => None,
        });
        let socket = self.socket.to_owned();
        match refusal {
            Refusal::Failed { class, message, hint } => {
                let class = Class::ALL.into_iter().find(|known| known.word() == class).unwrap_or(Class::Internal);
                // The agent is trusted with our secrets, so with a line on the terminal too; escaped all the same.
                let message = crate::name::escape(&format!("agent: {message}"));
                Failure { class, message, hint: hint.map(|hint| crate::name::escape(&hint)) }.into()
            }
            Refusal::Denied | Refusal::DigestWanted => {
                let (environment, service) = (self.environment.clone(), self.service.clone());
                ClientError::Denied { socket, environment, service, log }.into()
            }
            Refusal::Busy => ClientError::Busy(socket).into(),
            Refusal::Malformed | Refusal::NotOffered => ClientError::NotUnderstood.into(),
            Refusal::Supervised(_) | Refusal::Unchanged => ClientError::Senseless.into(),
        }
    }
}

/// The child's environment, by the rules that the agent has sent.
fn prepare(
    granted: &Granted<'_>,
    command: &Command,
    parent: &ParentEnv,
    worker: Option<&mut Worker>,
) -> Result<Ready, Error> {
    // A policy that counts on a supervisor must not get a plain exec instead.
    if worker.is_none() && RunMode::from(granted.run.mode) == RunMode::Supervise {
        return Err(ClientError::Senseless.into());
    }
    let pin = granted.pin.into();
    command.check_pin(pin)?;
    let (rules, own) = granted.child.rules().map_err(ClientError::Frame)?;
    let resolved = Resolved::of_agent(Received::of(granted)?);
    let limits = Limits { stack: rustix::process::getrlimit(rustix::process::Resource::Stack).current };
    let environment = inject(parent, &rules, &own, &resolved, command.argv(), limits)?;
    let told = Told::of_agent(granted.access, granted.set);
    let next = worker.map(|worker| worker.has_fetched(injected(&resolved, &environment), told)).transpose()?;
    Ok(Ready { environment, proof: ReleasedByAgent(()), pin, next })
}

pub(super) fn claim(command: &Command) -> CommandClaim {
    let facts = command.facts();
    let sha256 = facts.sha256.as_deref().map(|text| {
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).unwrap_or_default(), 16).unwrap_or_default();
        }
        digest
    });
    let arguments = u32::try_from(command.argv().len().saturating_sub(1)).unwrap_or(u32::MAX);
    CommandClaim { found: facts.found, canonical: facts.canonical, arguments, sha256 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::protocol::reply::{Plain, Value as WireValue};
    use crate::agent::protocol::rules::*;

    #[test]
    fn what_is_received_is_checked_again() {
        let value = |name| WireValue { name, bytes: Plain(b"v"), version: None, stage: None, stale_seconds: Some(3) };
        let granted = |values| Granted {
            policy: [0; 32],
            access: [0; 8],
            set: [0; 32],
            pin: PinWire::None,
            child: ChildWire {
                inherit: InheritWire::All,
                set: Vec::new(),
                aws_role: AwsRoleWire::Pass,
                on_collision: CollisionWire::Error,
                identities: Vec::new(),
            },
            run: RunWire { mode: ModeWire::Exec, deadline: 1, on_change: OnChangeWire::Ignore, grace: 1, watch: None },
            values,
        };
        let received = Received::of(&granted(vec![value("A"), value("B")])).map(Received::into_values);
        let received = received.unwrap_or_default();
        assert_eq!(received.iter().map(|value| value.name.as_str()).collect::<Vec<_>>(), ["A", "B"]);
        assert!(received.iter().all(|value| value.note.stale_seconds == Some(3)));
        for wrong in [vec![value("A"), value("A")], vec![value("B"), value("A")], vec![value("A=B")]] {
            assert!(matches!(Received::of(&granted(wrong)), Err(ClientError::Senseless)));
        }
    }
}
