//! `vouchsafe audit report`: what a user could read under the policy, and what the logs say that it read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::Serialize;

use super::sources::{Sources, complain_of_limits};
use crate::audit::read::{History, Of, Read, Refused};
use crate::error::{Cause, Class, Error};
use crate::inject::ParentEnv;
use crate::name::{escape, show};
use crate::policy::eval::Caller;
use crate::policy::reach::{Way, reach, reach_of_bundles};
use crate::setting::Setting;
use crate::{caller, cli, output};

/// What `vouchsafe audit report --json` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PrincipalReport {
    /// The uid.
    uid: u32,
    /// Its name in `/etc/passwd`.
    user: Option<String>,
    /// Its groups, as a login would give them.
    groups: Vec<GroupEntry>,
    /// The policy file.
    policy: String,
    /// The environment it speaks for.
    environment: String,
    /// The service it speaks for.
    service: Option<String>,
    /// Since when (RFC 3339).
    since: String,
    /// The logs that were read. Their chains were not verified.
    logs: Vec<String>,
    /// Logs that were not read, and why.
    unread: Vec<String>,
    /// Every secret that it could be granted, or read, or was denied.
    secrets: Vec<SecretReport>,
    /// What it could be granted of bundles, whose names only the store knows.
    bundles: Vec<WayEntry>,
    /// What the logs say that it was given besides, under other policies: in other environments and for other services.
    elsewhere: Vec<ElsewhereEntry>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ElsewhereEntry {
    /// The environment.
    environment: String,
    /// The service.
    service: Option<String>,
    /// How many releases.
    releases: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
struct GroupEntry {
    /// The gid.
    gid: u32,
    /// Its name in `/etc/group`.
    name: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct SecretReport {
    /// The variable.
    name: String,
    /// The service that it was read for, or denied to, where the policy is for any: a secret of each is one of its own.
    service: Option<String>,
    /// Whether the policy as it is now could grant it.
    could_read: bool,
    /// The grants that could give it.
    ways: Vec<WayEntry>,
    /// What was read; `null` if it was not.
    read: Option<ReadEntry>,
    /// How often it was denied.
    denied: u64,
    /// When it was denied last (RFC 3339).
    denied_last: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct WayEntry {
    /// The grant: `path:line`.
    grant: String,
    /// The names that the grant gives, where only the store knows which there are.
    names: Option<Vec<String>>,
    /// The commands that it is for; `null`: any.
    commands: Option<Vec<String>>,
    /// The digests that the program must have; `null`: any.
    sha256: Option<Vec<String>>,
    /// The template that brings it along.
    inside: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ReadEntry {
    /// The versions, where the store counts them.
    versions: Vec<u64>,
    /// How often.
    times: u64,
    /// The first time (RFC 3339).
    first: String,
    /// The last time (RFC 3339).
    last: String,
    /// The programs, at most 32 of them.
    commands: Vec<String>,
    /// The hosts, at most 32 of them.
    hosts: Vec<String>,
}

/// `vouchsafe audit report`.
///
/// # Errors
/// There is no such user or policy; a log cannot be read.
pub(super) fn report(options: &cli::AuditReport, parent: &ParentEnv) -> Result<(), Error> {
    let principal = caller::of_principal(&options.principal).ok_or(NoSuchUser)?;
    let setting = Setting::load(&options.selection, parent)?;
    let policy = &setting.policy;
    let sources = match options.files.as_slice() {
        [] => Sources::of(setting.sinks())?,
        files => Sources::named(files),
    };
    let since = options.since.instant(SystemTime::now());
    let service = policy.service.as_ref().map(ToString::to_string);
    let mut history = History::new(principal.uid, policy.environment.as_str(), service.as_deref(), since.clone());
    let sum = sources.read(History::EVENTS, |record| history.record(record))?;
    let (reads, refused, elsewhere) = history.finish();
    let report = PrincipalReport {
        uid: principal.uid,
        user: principal.user.as_deref().map(escape),
        groups: principal
            .groups
            .iter()
            .map(|(gid, name)| GroupEntry { gid: *gid, name: name.as_deref().map(escape) })
            .collect(),
        policy: policy.files.first().map(|path| show(path)).unwrap_or_default(),
        environment: policy.environment.to_string(),
        service,
        since: since.as_str().to_owned(),
        logs: sum.logs.iter().map(|path| show(path)).collect(),
        unread: sum.unread.iter().map(|(path, why): &(PathBuf, String)| format!("{}: {why}", show(path))).collect(),
        secrets: secrets(&setting, &principal, &reads, &refused),
        bundles: reach_of_bundles(policy, &principal)
            .into_iter()
            .map(|(names, way)| WayEntry { names: Some(names), ..WayEntry::from(&way) })
            .collect(),
        elsewhere: elsewhere
            .into_iter()
            .map(|((environment, service), releases)| ElsewhereEntry {
                environment: escape(&environment),
                service: service.as_deref().map(escape),
                releases,
            })
            .collect(),
    };
    if options.json {
        return output::print_json(&report);
    }
    output::print(&report.to_text())?;
    complain_of_limits(&sum);
    Ok(())
}

fn secrets(
    setting: &Setting<'_>,
    principal: &Caller,
    reads: &BTreeMap<Of, Read>,
    refused: &BTreeMap<Of, Refused>,
) -> Vec<SecretReport> {
    let own = setting.policy.service.as_ref().map(ToString::to_string);
    let ways: BTreeMap<String, Vec<Way>> =
        reach(&setting.policy, principal).into_iter().map(|one| (one.name.to_string(), one.ways)).collect();
    let mut all: BTreeSet<Of> = reads.keys().chain(refused.keys()).cloned().collect();
    for name in ways.keys() {
        if !all.iter().any(|(of, _)| of == name) {
            all.insert((name.clone(), own.clone()));
        }
    }
    let report = |of: Of| {
        let ways: Vec<WayEntry> = ways.get(&of.0).into_iter().flatten().map(WayEntry::from).collect();
        let refused = refused.get(&of);
        SecretReport {
            could_read: !ways.is_empty(),
            ways,
            read: reads.get(&of).map(ReadEntry::from),
            denied: refused.map_or(0, |refused| refused.times),
            denied_last: refused.map(|refused| escape(&refused.last)),
            name: escape(&of.0),
            service: of.1.filter(|_| own.is_none()).as_deref().map(escape),
        }
    };
    all.into_iter().map(report).collect()
}

impl From<&Way> for WayEntry {
    fn from(way: &Way) -> Self {
        let escaped = |texts: &Vec<String>| texts.iter().map(|text| escape(text)).collect();
        Self {
            grant: escape(&way.place),
            names: None,
            commands: way.commands.as_ref().map(escaped),
            sha256: way.sha256.clone(),
            inside: way.inside.as_ref().map(ToString::to_string),
        }
    }
}

impl From<&Read> for ReadEntry {
    fn from(read: &Read) -> Self {
        let escaped = |texts: &BTreeSet<String>| texts.iter().map(|text| escape(text)).collect();
        Self {
            versions: read.versions.iter().copied().collect(),
            times: read.times,
            first: escape(&read.first),
            last: escape(&read.last),
            commands: escaped(&read.commands),
            hosts: escaped(&read.hosts),
        }
    }
}

impl WayEntry {
    fn to_text(&self) -> String {
        let commands = self.commands.as_ref().map_or_else(|| "any command".to_owned(), |commands| commands.join(", "));
        let digest = if self.sha256.is_some() { ", by digest" } else { "" };
        let inside = self.inside.as_ref().map(|whole| format!(", inside {whole}")).unwrap_or_default();
        format!("{commands}{digest}{inside} ({})", self.grant)
    }
}

impl PrincipalReport {
    fn to_text(&self) -> String {
        let named = |number: u32, name: &Option<String>| match name {
            Some(name) => format!("{name} ({number})"),
            None => number.to_string(),
        };
        let groups: Vec<String> = self.groups.iter().map(|group| named(group.gid, &group.name)).collect();
        let mut out = format!(
            "user         {}\ngroups       {}\npolicy       {}\nenvironment  {}\nservice      {}\nsince        {}\n",
            named(self.uid, &self.user),
            if groups.is_empty() { "(none known)".to_owned() } else { groups.join(", ") },
            self.policy,
            self.environment,
            self.service.as_deref().unwrap_or("(any)"),
            self.since
        );
        let (reachable, unreachable): (Vec<_>, Vec<_>) = self.secrets.iter().partition(|secret| secret.could_read);
        out.push_str("\ncould read by `run`, under the policy as it is now\n");
        if reachable.is_empty() && self.bundles.is_empty() {
            out.push_str("  nothing\n");
        }
        let mut told = BTreeSet::new();
        for secret in reachable.iter().filter(|secret| told.insert(secret.name.as_str())) {
            let ways: Vec<String> = secret.ways.iter().map(WayEntry::to_text).collect();
            out.push_str(&format!("  {}: {}\n", secret.name, ways.join("; ")));
        }
        for way in &self.bundles {
            let names = way.names.as_ref().map(|names| names.join(", ")).unwrap_or_default();
            out.push_str(&format!("  of bundles, {names}: {}\n", way.to_text()));
        }
        out.push_str("\ndid read\n");
        let rows: Vec<Vec<String>> = self.secrets.iter().filter_map(SecretReport::row).collect();
        match rows.is_empty() {
            true => out.push_str("  nothing\n"),
            false => out.push_str(&output::table(&["SECRET", "VERSIONS", "TIMES", "FIRST", "LAST", "COMMANDS"], &rows)),
        }
        let no_more: Vec<String> =
            unreachable.iter().filter(|secret| secret.read.is_some()).map(|secret| secret.called()).collect();
        if !no_more.is_empty() && self.bundles.is_empty() {
            out.push_str(&format!("\nread, and not granted by the policy as it is now: {}\n", no_more.join(", ")));
        }
        let denied = self.secrets.iter().filter(|secret| secret.denied > 0).map(|secret| {
            let last = secret.denied_last.as_deref().unwrap_or_default();
            format!("  {}: {}, the last at {last}\n", secret.called(), output::count(secret.denied, "time"))
        });
        let denied: String = denied.collect();
        if !denied.is_empty() {
            out.push_str(&format!("\nwas denied\n{denied}"));
        }
        let elsewhere = self.elsewhere.iter().map(|one| {
            let service = one.service.as_ref().map(|service| format!("/{service}")).unwrap_or_default();
            format!("  {}{service}: {}\n", one.environment, output::count(one.releases, "release"))
        });
        let elsewhere: String = elsewhere.collect();
        if !elsewhere.is_empty() {
            out.push_str(&format!("\nnot in this report: what it was given under other policies\n{elsewhere}"));
        }
        out
    }
}

impl SecretReport {
    /// Its name, and whose it is where the policy is for any service.
    fn called(&self) -> String {
        self.service.as_ref().map_or_else(|| self.name.clone(), |service| format!("{} ({service})", self.name))
    }

    fn row(&self) -> Option<Vec<String>> {
        let read = self.read.as_ref()?;
        let versions: Vec<String> = read.versions.iter().map(ToString::to_string).collect();
        Some(vec![
            self.called(),
            if versions.is_empty() { "-".to_owned() } else { versions.join(",") },
            read.times.to_string(),
            read.first.clone(),
            read.last.clone(),
            if read.commands.is_empty() { "-".to_owned() } else { read.commands.join(", ") },
        ])
    }
}

/// The user is in no database that can be read here.
#[derive(Debug)]
struct NoSuchUser;

impl fmt::Display for NoSuchUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no such user in /etc/passwd (not shown)")
    }
}

impl Cause for NoSuchUser {
    fn class(&self) -> Class {
        Class::Usage
    }

    fn hint(&self) -> Option<String> {
        Some("give the uid instead: --principal $(id -u NAME)".into())
    }
}
