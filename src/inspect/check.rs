//! `vouchsafe check`: is this policy valid, reachable, complete, due? For CI, by its exit status.

use schemars::JsonSchema;
use serde::Serialize;

use super::{Entry, entries_of, entries_table, iam, unasked};
use crate::error::{Cause, Class, Error};
use crate::inject::ParentEnv;
use crate::policy::model::{Policy, Store as StoreModel};
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

/// `vouchsafe check`.
///
/// # Errors
/// The policy is invalid, a store fails, or something is due or missing.
pub fn check(options: &cli::Check, parent: &ParentEnv) -> Result<(), Error> {
    let setting = Setting::load(&options.selection, parent)?;
    if let Some(command) = options.iam {
        return iam::print(&setting.policy, command);
    }
    let mut findings = offline_findings(&setting.policy);
    let secrets = if options.offline { unasked(&setting.policy) } else { entries_of(&setting)? };
    for entry in &secrets {
        if entry.present == Some(false) && entry.required {
            findings.push(format!("`{}` is missing ({})", entry.name, entry.source));
        }
        if entry.is_due {
            findings.push(format!("`{}` is due since {}", entry.name, entry.due.as_deref().unwrap_or("long ago")));
        }
    }
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
        let end = if report.ok { "ok\n" } else { "" };
        output::print(&format!("{}\n{lines}{end}", entries_table(&report.secrets)))?;
    }
    if report.ok { Ok(()) } else { Err(Findings(report.findings.len()).into()) }
}

/// What can be seen without opening a store: whether writes would work, whether files are there and safe.
fn offline_findings(policy: &Policy) -> Vec<String> {
    let mut findings = Vec::new();
    for (name, store) in &policy.stores {
        let (recipients, path) = match store {
            StoreModel::Age(store) => (identity::recipients(store), Some(&store.path)),
            // Its first recipient is the KMS key; offline ones are a choice.
            StoreModel::Kms(store) => (identity::validate_recipients(&store.recipients), store.path.as_ref()),
            StoreModel::Ssm(_) => continue,
        };
        if let Err(error) = recipients {
            findings.push(format!("store `{name}`: {error}"));
        }
        if let Some(Err(error)) = path.map(|path| checked_file::open(path, checked_file::Use::Public)) {
            findings.push(format!("store `{name}`: {error}"));
        }
    }
    findings
}

/// Something is due, missing or incomplete.
#[derive(Debug)]
struct Findings(usize);

impl std::fmt::Display for Findings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} found", if self.0 == 1 { "1 thing was".into() } else { format!("{} things were", self.0) })
    }
}

impl Cause for Findings {
    fn class(&self) -> Class {
        Class::Due
    }
}
