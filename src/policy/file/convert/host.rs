//! The host file.

use std::collections::BTreeMap;

use super::{Context, child};
use crate::name::{EnvironmentName, escape};
use crate::policy::file::raw::{At, RawHost, RawKey, RawTrust};
use crate::policy::model::{HostAgent, HostFile, HostNetwork, Trust, TrustedKey};
use crate::policy::trust::parse_key;

const KEY_RULE: &str = "a trusted key is one line as OpenSSH writes it, of type ed25519, ecdsa-p256 or their sk- kinds";

/// Checks and converts the host file. `None`, if anything is wrong.
pub(in crate::policy::file) fn host_file(raw: &RawHost, context: &mut Context<'_>) -> Option<HostFile> {
    let host = HostFile {
        path: context.sources.first().map(|source| source.path.clone()).unwrap_or_default(),
        sinks: child::sinks(std::iter::once(&raw.audit), context),
        agent: HostAgent {
            socket: raw.agent.socket.as_ref().and_then(|at| context.path(at)),
            users: raw.agent.users.as_ref().map(|list| context.principals("users", list)).unwrap_or_default(),
            user: raw.agent.user.as_ref().and_then(|at| context.principal(at)),
            require: raw.agent.require.as_ref().is_some_and(|at| at.value),
            state: raw.agent.state.as_ref().and_then(|at| context.path(at)),
        },
        network: HostNetwork {
            env_endpoint: raw.network.env_endpoint.as_ref().is_some_and(|at| at.value),
            ca_files: raw.network.ca_files.iter().filter_map(|at| context.path(at)).collect(),
        },
        trust: raw.trust.as_ref().map(|at| trust(at, context)),
    };
    context.findings.is_empty().then_some(host)
}

/// A list of trust that names nothing would require nothing: it refuses instead.
fn trust(at: &At<RawTrust>, context: &mut Context<'_>) -> Trust {
    let raw = &at.value;
    let environments = match &raw.environments {
        Some(list) => {
            context.not_empty("environments", list);
            list.value.iter().filter_map(|at| context.noted(at, EnvironmentName::new(at.as_str()))).collect()
        }
        None => {
            context
                .findings
                .wrong(at, "`[trust]` does not say for which environments")
                .hint("environments = [\"prod\"]");
            Vec::new()
        }
    };
    let sealed_files = raw.sealed_files.as_ref().map(|list| sealed_files(list, &environments, context));
    let mut min_serial = BTreeMap::new();
    for (name, serial) in &raw.min_serial {
        let Ok(number) = u64::try_from(serial.value) else {
            context.findings.wrong(serial, "a serial counts from 0");
            continue;
        };
        demanded(name, &environments, context);
        min_serial.extend(context.noted(name, EnvironmentName::new(name.as_str())).map(|name| (name, number)));
    }
    if raw.keys.is_empty() {
        context.findings.wrong(at, "`[trust]` has no keys, so it could trust nothing").hint("[[trust.keys]]");
    }
    let keys = raw.keys.iter().filter_map(|at| trusted_key(at, context)).collect();
    for at in &raw.keys {
        at.value.environments.iter().flat_map(|list| &list.value).for_each(|at| demanded(at, &environments, context));
    }
    once_each(&raw.keys, context);
    let revoked = raw.revoked.iter().filter_map(|at| context.checked(at, KEY_RULE, is_ssh_key)).collect();
    Trust { environments, sealed_files: sealed_files.unwrap_or_default(), min_serial, keys, revoked }
}

/// A policy says which file is read and how: to trust the one and not the other would be for nothing.
fn sealed_files(
    list: &At<Vec<At<String>>>,
    environments: &[EnvironmentName],
    context: &mut Context<'_>,
) -> Vec<EnvironmentName> {
    context.not_empty("sealed_files", list);
    let mut names = Vec::new();
    for at in &list.value {
        let Some(name) = context.noted(at, EnvironmentName::new(at.as_str())) else { continue };
        if !environments.contains(&name) {
            context
                .findings
                .wrong(at, format!("sealed files of `{name}` are to be signed, and its policies are not"))
                .hint(format!("environments = [\"{name}\"]   # in [trust], with the others"));
        }
        names.push(name);
    }
    names
}

/// A name that `trust.environments` does not have would have no effect: a slip of the pen that nobody would notice.
fn demanded(at: &At<String>, environments: &[EnvironmentName], context: &mut Context<'_>) {
    if !environments.is_empty() && !environments.iter().any(|one| one.as_str() == at.as_str()) {
        let known = environments.iter().map(EnvironmentName::as_str);
        let message =
            format!("`{}` is not among `trust.environments`, so no signature is demanded for it", escape(at.as_str()));
        context.findings.wrong(at, message).did_you_mean(at.as_str(), known);
    }
}

/// Of two entries for one key only the first would count, whatever the other says.
fn once_each(keys: &[At<RawKey>], context: &mut Context<'_>) {
    let mut seen = Vec::new();
    for at in keys.iter().filter_map(|at| at.value.key.as_ref()) {
        let Some(key) = parse_key(at.as_str()) else { continue };
        if seen.contains(key.key_data()) {
            context.findings.wrong(at, "this key stands here already").hint("name all its `environments` in one entry");
        } else {
            seen.push(key.key_data().clone());
        }
    }
}

fn trusted_key(at: &At<RawKey>, context: &mut Context<'_>) -> Option<TrustedKey> {
    let (Some(key), Some(environments)) = (&at.value.key, &at.value.environments) else {
        context.findings.wrong(at, "a trusted key has a `key` and the `environments` that it may sign for");
        return None;
    };
    context.not_empty("environments", environments);
    let key = context.checked(key, KEY_RULE, is_ssh_key)?;
    let expires = at.value.expires.as_ref().and_then(|at| {
        let time = humantime::parse_rfc3339_weak(at.as_str()).ok();
        if time.is_none() {
            context
                .findings
                .wrong(at, "not a time in UTC as RFC 3339 has it")
                .hint("expires = \"2030-01-31T00:00:00Z\"");
        }
        time
    });
    let names = environments.value.iter().filter_map(|at| context.noted(at, EnvironmentName::new(at.as_str())));
    let environments = names.collect();
    Some(TrustedKey { key, environments, expires })
}

fn is_ssh_key(text: &str) -> bool {
    !text.chars().any(crate::name::is_unprintable) && parse_key(text).is_some()
}
