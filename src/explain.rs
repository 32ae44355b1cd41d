//! `vouchsafe explain`: what would this user and command get, and why; what of the environment stays and goes. Nothing is
//! fetched, and the decision is the very one that `run` makes.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Serialize;

use crate::child::command::Command;
use crate::cli;
use crate::error::Error;
use crate::inject::{OwnMeans, ParentEnv, plan};
use crate::name::{VariableName, escape, show};
use crate::output;
use crate::policy::eval::{Request, Verdict, evaluate, mismatches};
use crate::policy::model::{Policy, Sink};
use crate::setting::Setting;
use crate::{caller, inspect};

/// What `vouchsafe explain --json` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Explanation {
    /// The policy file.
    policy: String,
    /// The environment it speaks for.
    environment: String,
    /// The service it speaks for.
    service: Option<String>,
    /// Who asks.
    user: String,
    /// The command, as it was found.
    command: Option<String>,
    /// Whether `run` would go on to fetch.
    granted: bool,
    /// Why not.
    denial: Option<String>,
    /// Every secret asked for.
    secrets: Vec<SecretExplanation>,
    /// Bundles: their names are known only once they are fetched.
    bundles: Vec<String>,
    /// What of the parent environment goes, and why.
    removed: Vec<RemovedVariable>,
    /// What of the parent environment stays.
    kept: Vec<String>,
    /// What is set besides.
    set: Vec<String>,
    /// Names that the parent environment and a secret both have, or `NAME_FILE` beside a secret `NAME`, where the policy does
    /// not say who wins.
    collisions: Vec<String>,
    /// Where the access would be written down.
    audit: Vec<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct SecretExplanation {
    /// The variable.
    name: String,
    /// Where its value comes from.
    source: String,
    /// The grants that give it: `path:line`.
    granted_by: Vec<String>,
    /// Grants that name it and are for others, with the fields that do not match.
    not_granted_by: Vec<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct RemovedVariable {
    /// The variable.
    name: String,
    /// Why it goes.
    why: String,
}

/// Explains.
///
/// # Errors
/// There is no policy to explain, or the command is not to be found.
pub fn explain(options: &cli::Explain, parent: &ParentEnv) -> Result<(), Error> {
    let setting = Setting::load(&options.selection, parent)?;
    let explanation = explanation(options, &setting, parent)?;
    if options.json { output::print_json(&explanation) } else { output::print(&explanation.to_text()) }
}

fn explanation(options: &cli::Explain, setting: &Setting<'_>, parent: &ParentEnv) -> Result<Explanation, Error> {
    let policy = &setting.policy;
    let mut command = match options.command.is_empty() {
        true => None,
        false => Some(Command::look_up(options.command.clone(), parent.get("PATH"))?),
    };
    if let (Some(command), true) = (&mut command, policy.pins_digests()) {
        command.take_digest()?;
    }
    let request = Request {
        caller: caller::of_this_process(policy.names_groups()),
        command: command.as_ref().map(Command::facts),
        only: options.only.clone(),
        claimed: false,
    };
    let verdict = evaluate(policy, &request);
    let mut denial = match &verdict {
        Verdict::Denied(denial) => Some(denial.to_string()),
        Verdict::Granted(_) => None,
    };
    if let (Verdict::Granted(grant), Some(command)) = (&verdict, &command)
        && let Err(error) = command.check_pin(grant.pin())
    {
        denial = Some(error.to_string());
    }
    let asked: Vec<&VariableName> = match &options.only {
        Some(only) => only.iter().filter(|name| policy.secrets.contains_key(*name)).collect(),
        None => policy.secrets.iter().filter(|(_, binding)| binding.inject).map(|(name, _)| name).collect(),
    };
    let names: BTreeSet<&VariableName> = asked.iter().copied().collect();
    let own = OwnMeans { static_aws_keys: setting.would_use_static_keys(&names), ..setting.own_means() };
    let plan = plan(parent, &policy.child, &own, &names);
    let collisions: Vec<String> = plan.collisions.iter().chain(&plan.twins).map(ToString::to_string).collect();
    let text = |name: &std::ffi::OsString| escape(&name.to_string_lossy());
    Ok(Explanation {
        policy: policy.files.first().map(|path| show(path)).unwrap_or_default(),
        environment: policy.environment.to_string(),
        service: policy.service.as_ref().map(ToString::to_string),
        user: request.caller.user.as_ref().map_or_else(|| request.caller.uid.to_string(), |user| escape(user)),
        command: command.as_ref().map(|command| show(command.found())),
        granted: denial.is_none() && collisions.is_empty(),
        denial,
        secrets: asked.iter().map(|name| secret(policy, name, &request)).collect(),
        bundles: policy.bundles.iter().map(|bundle| format!("{}:{}", bundle.store, escape(&bundle.path))).collect(),
        removed: plan
            .removed
            .iter()
            .map(|(name, why)| RemovedVariable { name: text(name), why: why.reason().into() })
            .collect(),
        kept: plan.kept.iter().map(|(name, _)| text(name)).collect(),
        set: policy.child.set.keys().map(ToString::to_string).collect(),
        collisions,
        audit: setting.sinks().iter().map(describe_sink).collect(),
    })
}

fn secret(policy: &Policy, name: &VariableName, request: &Request) -> SecretExplanation {
    let naming = policy.grants.iter().filter(|rule| rule.secrets.iter().any(|pattern| pattern.matches(name.as_str())));
    let (mut granted_by, mut not_granted_by) = (Vec::new(), Vec::new());
    for rule in naming {
        let fields = mismatches(rule, request);
        if fields.is_empty() {
            granted_by.push(rule.place.clone());
        } else {
            not_granted_by.push(format!("{} (does not match: {})", rule.place, fields.join(", ")));
        }
    }
    let source = policy.secrets.get(name).map(|binding| inspect::describe_source(&binding.source)).unwrap_or_default();
    SecretExplanation { name: name.to_string(), source, granted_by, not_granted_by }
}

fn describe_sink(sink: &Sink) -> String {
    match sink {
        Sink::Fd(number) => format!("fd {number} (stream)"),
        Sink::File { path, sync, evidence } => {
            let synced = if *sync { ", synced" } else { ", not synced" };
            let sealed = if evidence.auditor.is_some() { ", sealed" } else { "" };
            let anchored = if evidence.checkpoints.is_some() { ", checkpoints leave the host" } else { "" };
            format!("{} (file{synced}{sealed}{anchored})", escape(path))
        }
        Sink::Journald(path) => format!("journald {} (mirror)", show(path)),
        Sink::Stderr => "standard error (stream)".into(),
        Sink::Syslog(path) => format!("syslog {} (mirror)", show(path)),
    }
}

impl Explanation {
    fn to_text(&self) -> String {
        let mut out = format!(
            "policy       {}\nenvironment  {}\nservice      {}\nuser         {}\ncommand      {}\nverdict      {}\n",
            self.policy,
            self.environment,
            self.service.as_deref().unwrap_or("(any)"),
            self.user,
            self.command.as_deref().unwrap_or("(none given)"),
            match (&self.denial, self.collisions.is_empty()) {
                (Some(denial), _) => format!("denied: {denial}"),
                (None, false) => format!("not started: the parent environment has {} too", self.collisions.join(", ")),
                (None, true) => "granted".into(),
            }
        );
        let rows: Vec<Vec<String>> = self
            .secrets
            .iter()
            .map(|secret| {
                let why = if secret.granted_by.is_empty() {
                    match secret.not_granted_by.as_slice() {
                        [] => "no grant names it".to_owned(),
                        others => format!("not by {}", others.join("; not by ")),
                    }
                } else {
                    secret.granted_by.join(", ")
                };
                vec![secret.name.clone(), secret.source.clone(), why]
            })
            .collect();
        out.push('\n');
        out.push_str(&output::table(&["SECRET", "FROM", "GRANTED BY"], &rows));
        let mut section = |title: &str, lines: Vec<String>| {
            if !lines.is_empty() {
                out.push_str(&format!("\n{title}\n"));
                lines.iter().for_each(|line| out.push_str(&format!("  {line}\n")));
            }
        };
        section("bundles", self.bundles.clone());
        section(
            "removed from the environment",
            self.removed.iter().map(|one| format!("{} ({})", one.name, one.why)).collect(),
        );
        section(
            "kept in the environment",
            vec![self.kept.join(" ")].into_iter().filter(|line| !line.is_empty()).collect(),
        );
        section("set in the environment", self.set.clone());
        section("written down in", self.audit.clone());
        out
    }
}
