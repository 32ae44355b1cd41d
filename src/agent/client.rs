//! `run` through an agent: the same story, with the agent in the place of policy, audit and stores. No event loop: one
//! connection, one question, one answer.
//!
//! What must stay true: nothing is sent before it is known who answers; a demanded agent is never passed over in silence;
//! values arrive in buffers that are wiped; and only what an agent has released becomes a [`Received`].

use std::convert::Infallible;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use error::ClientError;

use super::connect::connect;
use super::failure::Failure;
use super::protocol::reply::{Granted, Refusal, Reply};
use super::protocol::request::{Ask, CommandClaim, Request};
use super::protocol::{HEADER, LARGEST_REPLY, body_length, decode_reply, encode_request};
use crate::audit::{Released, SecretNote};
use crate::caller::Names;
use crate::child::command::Command;
use crate::child::exec::exec;
use crate::cli;
use crate::error::{Class, Error};
use crate::inject::{ChildEnv, Limits, ParentEnv, inject};
use crate::name::VariableName;
use crate::policy::eval::Pin;
use crate::policy::model::{HostFile, RunMode, Sink};
use crate::resolve::{Resolved, Value};
use crate::secret::Secret;
use crate::setting::{self, Setting};
use crate::sys::{self, peer};

mod error;

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
    let mut command = Command::look_up(options.command, parent.get("PATH"))?;
    let mut agent = Connection::open(socket, host)?;
    let terminal = rustix::termios::ttyname(std::io::stdin().as_fd(), Vec::new()).ok();
    let mut ask = Ask {
        environment,
        service: wanted.service,
        only: options.only,
        command: Some(claim(&command)),
        parent: std::os::unix::process::parent_id(),
        terminal: terminal.map(|name| name.to_string_lossy().into_owned()),
        subscribe: false,
    };
    let mut body = agent.ask(&Request::Resolve(ask.clone()))?;
    if matches!(decode_reply(body.expose()), Ok(Reply::Refused(Refusal::DigestWanted))) {
        command.take_digest()?;
        ask.command = Some(claim(&command));
        body = agent.ask(&Request::Resolve(ask.clone()))?;
    }
    let granted = match decode_reply(body.expose()).map_err(ClientError::Frame)? {
        Reply::Granted(granted) => granted,
        Reply::Refused(refusal) => return Err(refused(refusal, &ask, socket, host)),
        Reply::Done(_) | Reply::Status(_) => return Err(ClientError::Senseless.into()),
    };
    let pin = granted.pin.into();
    let prepared = prepare(&granted, &command, pin, parent);
    drop(body);
    let error = match prepared {
        Ok((environment, proof)) => exec(&command, pin, Released::by_agent(environment, &proof)).into(),
        Err(error) => error,
    };
    agent.tell_unused(&error);
    Err(error)
}

/// The child's environment, by the rules that the agent has sent.
fn prepare(
    granted: &Granted<'_>,
    command: &Command,
    pin: Pin,
    parent: &ParentEnv,
) -> Result<(ChildEnv, ReleasedByAgent), Error> {
    Setting::refuse_mode(RunMode::from(granted.run.mode))?;
    command.check_pin(pin)?;
    let (rules, own) = granted.child.rules().map_err(ClientError::Frame)?;
    let resolved = Resolved::of_agent(Received::of(granted)?);
    let limits = Limits { stack: rustix::process::getrlimit(rustix::process::Resource::Stack).current };
    let environment = inject(parent, &rules, &own, &resolved, command.argv(), limits)?;
    Ok((environment, ReleasedByAgent(())))
}

fn claim(command: &Command) -> CommandClaim {
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

fn refused(refusal: Refusal, ask: &Ask, socket: &Path, host: &HostFile) -> Error {
    let log = host.sinks.iter().find_map(|sink| match sink {
        Sink::File { path, .. } => Some(path.clone()),
        Sink::Fd(_) | Sink::Stderr => None,
    });
    match refusal {
        Refusal::Failed { class, message, hint } => {
            let class = Class::ALL.into_iter().find(|known| known.word() == class).unwrap_or(Class::Internal);
            // The agent is trusted with our secrets, so with a line on the terminal too; escaped all the same.
            let message = crate::name::escape(&format!("agent: {message}"));
            Failure { class, message, hint: hint.map(|hint| crate::name::escape(&hint)) }.into()
        }
        Refusal::Denied | Refusal::DigestWanted => {
            let (environment, service) = (ask.environment.clone(), ask.service.clone());
            ClientError::Denied { socket: socket.to_owned(), environment, service, log }.into()
        }
        Refusal::Busy => ClientError::Busy(socket.to_owned()).into(),
        Refusal::Malformed | Refusal::NotOffered => ClientError::NotUnderstood.into(),
    }
}

/// A connection to an agent that is one.
pub(super) struct Connection {
    stream: UnixStream,
    socket: PathBuf,
}

impl Connection {
    /// Connects, and checks who listens there before anything is said.
    pub(super) fn open(socket: &Path, host: &HostFile) -> Result<Self, ClientError> {
        let failed = |doing, error| ClientError::Io { socket: socket.to_owned(), doing, error };
        let stream = connect(socket, PATIENCE).map_err(|error| failed("reach", error))?;
        let listens = peer::credentials(&stream).map_err(|error| failed("look at", error))?;
        let own = rustix::process::geteuid().as_raw();
        let is_named = || {
            host.agent
                .user
                .as_ref()
                .is_some_and(|user| user.is(listens.uid, Names::default().user(listens.uid).as_deref()))
        };
        if listens.uid != 0 && listens.uid != own && !is_named() {
            return Err(ClientError::Stranger { socket: socket.to_owned(), uid: listens.uid });
        }
        stream.set_read_timeout(Some(ANSWER)).map_err(|error| failed("use", error))?;
        Ok(Self { stream, socket: socket.to_owned() })
    }

    /// Sends a request and takes the body of the reply, in a buffer that does not grow and is wiped.
    pub(super) fn ask(&mut self, request: &Request) -> Result<Secret, ClientError> {
        let frame = encode_request(request).map_err(ClientError::Frame)?;
        // An agent that has no room says so and closes, perhaps before it has read: its word is there all the same.
        let sent = self.stream.write_all(&frame);
        let answer = self.read();
        match (sent, answer) {
            (_, Ok(body)) => Ok(body),
            (Err(error), Err(_)) => Err(self.failed("ask", error)),
            (Ok(()), Err(error)) => Err(error),
        }
    }

    fn read(&mut self) -> Result<Secret, ClientError> {
        let mut header = [0; HEADER];
        self.stream.read_exact(&mut header).map_err(|error| self.failed("hear", error))?;
        let length = body_length(header, LARGEST_REPLY).map_err(ClientError::Frame)?;
        let mut body = vec![0; length];
        let read = self.stream.read_exact(&mut body);
        let body = Secret::new(body);
        read.map_err(|error| self.failed("hear", error))?;
        Ok(body)
    }

    /// Tells the agent that what it released reached no child. If it does not hear it, the log says released: that is true.
    fn tell_unused(&mut self, error: &Error) {
        let request = Request::Unused { class: error.class().word().to_owned() };
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap_or_default();
        self.ask(&request).map(drop).unwrap_or_default();
    }

    fn failed(&self, doing: &'static str, error: std::io::Error) -> ClientError {
        if error.kind() == ErrorKind::UnexpectedEof {
            return ClientError::Closed(self.socket.clone());
        }
        ClientError::Io { socket: self.socket.clone(), doing, error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::protocol::reply::{Plain, Value as WireValue};
    use crate::agent::protocol::rules::*;

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
        let both = ["--agent", "--no-agent"].map(std::ffi::OsString::from);
        let words = ["vouchsafe", "run"].map(Into::into).into_iter().chain(both).chain(["--", "x"].map(Into::into));
        assert!(cli::parse(words).is_err());
    }

    #[test]
    fn what_is_received_is_checked_again() {
        let value = |name| WireValue { name, bytes: Plain(b"v"), version: None, stage: None, stale_seconds: Some(3) };
        let granted = |values| Granted {
            policy: [0; 32],
            access: [0; 8],
            pin: PinWire::None,
            child: ChildWire {
                inherit: InheritWire::All,
                set: Vec::new(),
                aws_role: AwsRoleWire::Pass,
                on_collision: CollisionWire::Error,
                identities: Vec::new(),
            },
            run: RunWire { mode: ModeWire::Exec, deadline: 1, on_change: OnChangeWire::Ignore, grace: 1 },
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
