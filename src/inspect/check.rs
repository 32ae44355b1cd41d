//! `vouchsafe check`: is this policy valid, reachable, complete, due? For CI, by its exit status.

use schemars::JsonSchema;
use serde::Serialize;

use super::{Entry, Seen, entries_table, iam, look, unasked};
use crate::audit::AuditError;
use crate::checked_file::Use;
use crate::error::{Cause, Class, Error};
use crate::exposed::{ExposedValue, State};
use crate::inject::ParentEnv;
use crate::policy::model::{DocumentFormat, Policy, Store as StoreModel};
use crate::setting::Setting;
use crate::store::identity;
use crate::{checked_file, cli, output};

/// What `vouchsafe check --json` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Report {
    /// The environment.
    environment: String,
    /// The service.
    service: Option<String>,
    /// Whether nothing is missing and nothing is due.
    ok: bool,
    /// Whether the stores were asked.
    online: bool,
    /// What is wrong, one sentence each.
    findings: Vec<String>,
    /// Every binding of the policy.
    secrets: Vec<Entry>,
}

/// `vouchsafe check`. Every store is asked; one that fails is a finding, and its status stands over that of the others: who
/// cannot look cannot say that nothing is due.
///
/// # Errors
/// The policy is invalid, a store fails, or something is due or missing.
pub fn check(options: &cli::Check, parent: &ParentEnv) -> Result<(), Error> {
    let setting = Setting::load(&options.selection, parent)?;
    if let Some(command) = options.iam {
        return iam::print(&setting.policy, setting.sinks(), command);
    }
    let mut findings = writing_findings(&setting.policy);
    let Seen { entries: secrets, problems, failures, exposed } = if options.offline {
        findings.append(&mut file_findings(&setting.policy));
        if setting.sinks().is_empty() {
            findings.push(AuditError::NoSink.to_string());
        }
        Seen { entries: unasked(&setting.policy), problems: Vec::new(), failures: Vec::new(), exposed: Vec::new() }
    } else {
        look(&setting, "check")?
    };
    findings.extend(failures.iter().map(ToString::to_string));
    findings.extend(problems);
    findings.extend(exposed.iter().filter(|one| one.state == State::Due).map(ExposedValue::sentence));
    for entry in &secrets {
        if entry.present == Some(false) && entry.required {
            findings.push(format!("`{}` is missing ({})", entry.name, entry.source));
        }
        if entry.is_due {
            let by = entry.due_by.as_ref().map(|by| format!(", by `{by}`")).unwrap_or_default();
            findings.push(format!("`{}` is due since {}{by}", entry.name, entry.due.as_deref().unwrap_or("long ago")));
        }
        if let Some(pending) = &entry.pending {
            let since = pending.since.as_ref().map(|since| format!(" since {since}")).unwrap_or_default();
            findings.push(format!("the rotation of `{}` is unfinished{since}", entry.name));
        }
    }
    let unfinished = secrets.iter().find(|entry| entry.pending.is_some());
    let rotates = |entry: &Entry| {
        let binding = setting.policy.secrets.iter().find(|(name, _)| name.as_str() == entry.name);
        entry.is_due && binding.is_some_and(|(_, binding)| binding.rotate.is_some())
    };
    let due = secrets.iter().any(rotates).then(|| format!("vouchsafe rotate --due {}", setting.selection()));
    let resume = unfinished.map(|entry| format!("vouchsafe rotate {} --resume {}", entry.name, setting.selection()));
    let hint = resume.or(due);
    let report = Report {
        environment: setting.policy.environment.to_string(),
        service: setting.policy.service.as_ref().map(ToString::to_string),
        ok: findings.is_empty(),
        online: !options.offline,
        findings,
        secrets,
    };
    if options.json {
        output::print_json(&report)?;
    } else {
        let lines: String = report.findings.iter().map(|finding| format!("{finding}\n")).collect();
        let end = match (report.ok, options.offline) {
            (true, true) => "ok as far as can be seen without asking a store\n",
            (true, false) => "ok\n",
            (false, _) => "",
        };
        output::print(&format!("{}\n{lines}{end}", entries_table(&report.secrets)))?;
    }
    match failures.into_iter().next() {
        Some(failure) => Err(failure),
        None if report.ok => Ok(()),
        None => Err(Findings { count: report.findings.len(), hint }.into()),
    }
}

/// Whether what is written could be opened again.
fn writing_findings(policy: &Policy) -> Vec<String> {
    let faults = policy.stores.iter().filter_map(|(name, store)| {
        let recipients = match store {
            StoreModel::Age(store) if store.format == DocumentFormat::Sealed => identity::recipients(store),
            // Its first recipient is the KMS key; offline ones are a choice.
            StoreModel::Kms(store) => identity::validate_recipients(&store.recipients),
            StoreModel::Age(_) | StoreModel::Ssm(_) => return None,
        };
        recipients.err().map(|error| format!("store `{name}`: {error}"))
    });
    faults.collect()
}

/// Whether the files of the stores are there and safe: what can be seen without opening one.
fn file_findings(policy: &Policy) -> Vec<String> {
    let files = policy.stores.iter().filter_map(|(name, store)| match store {
        StoreModel::Age(store) => Some((name, &store.path)),
        StoreModel::Kms(store) => Some((name, store.path.as_ref()?)),
        StoreModel::Ssm(_) => None,
    });
    let opened = files.map(|(name, path)| (name, checked_file::open(path, Use::Public)));
    opened.filter_map(|(name, opened)| opened.err().map(|error| format!("store `{name}`: {error}"))).collect()
}

/// Something is due, missing or incomplete.
#[derive(Debug)]
struct Findings {
    count: usize,
    hint: Option<String>,
}

impl std::fmt::Display for Findings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", output::count(self.count as u64, "finding"))
    }
}

impl Cause for Findings {
    fn class(&self) -> Class {
        Class::Due
    }

    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}
