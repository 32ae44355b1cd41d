//! `vouchsafe agent status`, `vouchsafe agent flush`: asking an agent that runs; and the flush after a rotation.

use std::fmt::Write;
use std::io::ErrorKind;
use std::path::PathBuf;

use serde_json::Value;

use super::client::{ClientError, Connection, DEFAULT_SOCKET};
use super::protocol::decode_reply;
use super::protocol::reply::{Refusal, Reply};
use super::protocol::request::Request;
use crate::cli::agent::AgentCommand;
use crate::error::{Class, Error};
use crate::inject::ParentEnv;
use crate::name::escape;
use crate::output;
use crate::policy::model::AgentUse;
use crate::setting::{Setting, load_host_file};

/// Asks, and prints the answer.
///
/// # Errors
/// There is no agent, or it does not answer that to this user.
pub fn ask(command: &AgentCommand, parent: &ParentEnv) -> Result<(), Error> {
    let (AgentCommand::Status { socket, .. } | AgentCommand::Flush { socket, .. }) = command;
    let host = load_host_file()?;
    let variable = || parent.get("VOUCHSAFE_AGENT").filter(|text| !text.is_empty()).map(PathBuf::from);
    let usual = || host.agent.socket.clone().unwrap_or_else(|| DEFAULT_SOCKET.into());
    let socket = socket.clone().or_else(variable).unwrap_or_else(usual);
    let request = match command {
        AgentCommand::Status { .. } => Request::Status,
        AgentCommand::Flush { env, service, .. } => {
            Request::Flush { environment: env.clone(), service: service.clone() }
        }
    };
    let body = Connection::open(&socket, &host)?.ask(&request)?;
    match (decode_reply(body.expose()).map_err(ClientError::Frame)?, command) {
        (Reply::Status(text), AgentCommand::Status { json: true, .. }) => output::print(&(text + "\n")),
        (Reply::Status(text), AgentCommand::Status { .. }) => {
            let status = serde_json::from_str(&text).map_err(|_| ClientError::Senseless)?;
            output::print(&table(&status))
        }
        (Reply::Done(count), AgentCommand::Flush { .. }) => output::print(&format!("{count} entries forgotten\n")),
        (Reply::Refused(Refusal::Denied), _) => Err(ClientError::Untrusted(socket).into()),
        (Reply::Refused(Refusal::Busy), _) => Err(ClientError::Busy(socket).into()),
        (Reply::Refused(Refusal::Failed { class, message, hint }), _) => {
            let class = Class::ALL.into_iter().find(|known| known.word() == class).unwrap_or(Class::Internal);
            Err(super::failure::Failure { class, message: escape(&message), hint: hint.map(|hint| escape(&hint)) }
                .into())
        }
        _ => Err(ClientError::Senseless.into()),
    }
}

/// Makes this host's agent forget what it has of an environment, after a value was promoted: who starts from now on gets the
/// new one. Says what is still so where that fails; where no agent listens, there is nothing to forget.
pub fn forget(setting: &Setting<'_>) -> Option<String> {
    if setting.policy.run.agent == AgentUse::Forbid {
        return None;
    }
    let socket = setting.agent_socket();
    let environment = setting.policy.environment.clone();
    let request = Request::Flush { environment: Some(environment.clone()), service: None };
    let asked = Connection::open(&socket, &setting.host).and_then(|mut agent| {
        agent.hurry();
        agent.ask(&request)
    });
    let why = match &asked {
        Ok(body) => match decode_reply(body.expose()).map_err(ClientError::Frame) {
            Ok(Reply::Done(_)) => return None,
            Ok(Reply::Refused(Refusal::Denied)) => ClientError::Untrusted(socket).to_string(),
            Ok(Reply::Refused(Refusal::Busy)) => ClientError::Busy(socket).to_string(),
            // It serves nothing of that environment.
            Ok(Reply::Refused(Refusal::Failed { class, .. })) if class == Class::Policy.word() => return None,
            Ok(Reply::Refused(Refusal::Failed { message, .. })) => escape(&message),
            Ok(_) => ClientError::Senseless.to_string(),
            Err(error) => error.to_string(),
        },
        Err(ClientError::Io { error, .. })
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) =>
        {
            return None;
        }
        Err(error) => error.to_string(),
    };
    Some(format!(
        "the agent may serve the previous value until its `cache.ttl` is over: {why}\nhint: vouchsafe agent flush --env \
         {environment}"
    ))
}

/// The JSON object in lines for a person.
fn table(status: &Value) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let mut line = |name: &str, value: String| writeln!(out, "{name:<12} {value}").unwrap_or_default();
    let at = |path| text(status.pointer(path));
    line("socket", at("/socket"));
    line("process", format!("{} (uid {}), since {}", at("/pid"), at("/uid"), at("/started")));
    let unready = at("/unready");
    line("ready", if unready == "-" { "yes".into() } else { format!("no: {unready}") });
    line("connections", format!("{} of {}", at("/connections/open"), at("/connections/at_most")));
    line("subscribers", format!("{} of {}", at("/subscribers/open"), at("/subscribers/at_most")));
    let bytes = format!("{} of {} bytes", at("/cache/bytes"), at("/cache/bytes_at_most"));
    line("cached", format!("{} values, {bytes}", at("/cache/values")));
    let lacks = texts(status.pointer("/cache/memory_lacks"));
    if !lacks.is_empty() {
        line("memory", format!("not {}", lacks.join(", not ")));
    }
    if status.get("records_not_mirrored").and_then(Value::as_u64).is_some_and(|lost| lost > 0) {
        line("not mirrored", format!("{} records of the audit", at("/records_not_mirrored")));
    }
    for policy in all(status.get("policies")) {
        let service = policy.get("service").and_then(Value::as_str).map(|name| format!("/{}", escape(name)));
        let down = texts(policy.get("stores_down"));
        let down = if down.is_empty() { String::new() } else { format!("  (down: {})", down.join(", ")) };
        let (environment, file) = (text(policy.get("environment")), text(policy.get("file")));
        let serials = texts(policy.get("serials"));
        let has_none = serials.iter().all(|serial| serial == "0");
        let serials = if has_none { String::new() } else { format!("  (serial {})", serials.join(", ")) };
        line("policy", format!("{environment}{}  {file}{serials}{down}", service.unwrap_or_default()));
    }
    for refused in all(status.get("refused")) {
        line("refused", format!("{}: {}", text(refused.get("file")), text(refused.get("message"))));
    }
    out
}

fn all(list: Option<&Value>) -> impl Iterator<Item = &Value> {
    list.and_then(Value::as_array).into_iter().flatten()
}

fn texts(list: Option<&Value>) -> Vec<String> {
    all(list).map(|value| text(Some(value))).collect()
}

fn text(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => escape(text),
        None | Some(Value::Null) => "-".to_owned(),
        Some(other) => other.to_string(),
    }
}
