//! What the two policies say of secrets, stores and everything else of which there is one: field by field, each with what it
//! was and what it is. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::access;
use super::side::{Side, StoreId};
use super::{Found, Sign, always, later, list, never, quoted, quoted_or_none, rotation, time, time_or_none, unpinned};
use super::{unset, yes_or_no};
use crate::name::{ServiceName, VariableName};
use crate::policy::model::{
    AgeStore, AgentUse, AwsAccess, AwsRole, Binding, CredentialSource, DocumentFormat, IdentitySource, Inherit,
    KmsStore, NameStyle, OnCollision, OnExpired, Policy, Source, SsmStore, Store,
};

pub(super) fn compare(old: &Side<'_>, new: &Side<'_>, found: &mut Found) {
    head(old.policy, new.policy, found);
    serials(old, new, found);
    secrets(old, new, found);
    stores(old, new, found);
    bundles(old, new, found);
    child(old.policy, new.policy, found);
    run(old.policy, new.policy, found);
}

fn head(old: &Policy, new: &Policy, found: &mut Found) {
    let words = |name: &str| quoted(name);
    found.setting("the environment", (old.environment.as_str(), new.environment.as_str()), words, never);
    let service = |service: &Option<ServiceName>| {
        service.as_ref().map_or_else(|| "every service".to_owned(), |service| quoted(service.as_str()))
    };
    found.setting("the service", (&old.service, &new.service), service, unpinned);
}

/// The serial of the policy, and of each file that both extend.
fn serials(old: &Side<'_>, new: &Side<'_>, found: &mut Found) {
    let (before, after) = (serials_of(old), serials_of(new));
    for (file, new) in &after {
        let Some(old) = before.get(file) else { continue };
        let name =
            file.as_deref().map_or_else(|| "the serial".to_owned(), |file| format!("the serial of {}", shown(file)));
        if new < old {
            let text =
                format!("{name} was {old} and is {new}: LOWER, so this is an older one, or one that passes for it");
            found.add(Sign::Gain, text);
        } else {
            found.setting(&name, (old, new), u64::to_string, never);
        }
    }
}

/// By file; the policy itself, which may lie elsewhere, has no name.
fn serials_of(side: &Side<'_>) -> BTreeMap<Option<PathBuf>, u64> {
    let files = side.policy.files.iter().zip(&side.policy.serials).enumerate();
    files.map(|(index, (file, serial))| ((index > 0).then(|| side.path(file)), *serial)).collect()
}

fn secrets(old: &Side<'_>, new: &Side<'_>, found: &mut Found) {
    only_in(&old.policy.secrets, &new.policy.secrets, "secret", found);
    for (name, after) in &new.policy.secrets {
        let Some(before) = old.policy.secrets.get(name) else { continue };
        let of = |field: &str| format!("secret {}: `{field}`", quoted(name.as_str()));
        let source = (made_of(old, before), made_of(new, after));
        if source.0 != source.1 {
            let words = (words_of(old, before), words_of(new, after));
            let name = quoted(name.as_str());
            found.add(Sign::Change, format!("the value of secret {name} was {} and is {}", words.0, words.1));
        }
        found.setting(&of("inject"), (&before.inject, &after.inject), yes_or_no, never);
        found.setting(&of("required"), (&before.required, &after.required), yes_or_no, never);
        found.setting(&of("reserved"), (&before.reserved, &after.reserved), yes_or_no, |old, new| !*old && *new);
        found.setting(&of("plain"), (&before.plain, &after.plain), yes_or_no, |old, new| !*old && *new);
        found.setting(&of("max_age"), (&before.max_age, &after.max_age), time_or_none, later);
        let word = |what: &OnExpired| match what {
            OnExpired::Refuse => "refuse".to_owned(),
            OnExpired::Warn => "warn".to_owned(),
        };
        found.setting(&of("on_expired"), (&before.on_expired, &after.on_expired), word, |_, new| {
            *new == OnExpired::Warn
        });
        rotation::compare(name, before.rotate.as_ref(), after.rotate.as_ref(), found);
    }
}

/// What a value is, templates by their text, so that two can be compared.
fn made_of<'p>(side: &Side<'p>, binding: &'p Binding) -> (access::Value<'p>, Option<String>) {
    let template = match &binding.source {
        Source::Template(template) => Some(template.to_string()),
        Source::Ciphertext { .. } | Source::Item(_) => None,
    };
    (access::value(side, binding), template)
}

fn words_of(side: &Side<'_>, binding: &Binding) -> String {
    let (value, template) = made_of(side, binding);
    template.map_or_else(|| value.words(), |template| format!("the template {}", quoted(&template)))
}

fn only_in<V>(old: &BTreeMap<VariableName, V>, new: &BTreeMap<VariableName, V>, what: &str, found: &mut Found) {
    for name in new.keys().filter(|name| !old.contains_key(*name)) {
        found.add(Sign::Change, format!("{what} {} is new", quoted(name.as_str())));
    }
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        found.add(Sign::Change, format!("{what} {} is gone", quoted(name.as_str())));
    }
}

fn stores(old: &Side<'_>, new: &Side<'_>, found: &mut Found) {
    for (number, (name, after)) in &new.stores {
        let name = quoted(name.as_str());
        let Some((_, before)) = old.stores.get(number) else {
            found.add(Sign::Change, format!("store {name} is new"));
            continue;
        };
        store(&format!("store {name}"), before, after, found);
    }
    for (name, _) in old.stores.iter().filter(|(number, _)| !new.stores.contains_key(number)).map(|(_, store)| store) {
        found.add(Sign::Change, format!("store {} is gone", quoted(name.as_str())));
    }
}

fn store(store: &str, old: &Store, new: &Store, found: &mut Found) {
    let of = |field: &str| format!("{store}: `{field}`");
    match (old, new) {
        (Store::Age(old), Store::Age(new)) => {
            let AgeStore {
                path,
                format,
                unbound,
                recipients: _,
                recipients_file,
                is_file_refused: _,
                identities,
                min_generation,
            } = old;
            found.setting(&of("min_generation"), (min_generation, &new.min_generation), u64::to_string, |old, new| {
                new < old
            });
            found.setting(&of("path"), (path.as_path(), new.path.as_path()), shown, always);
            let word = |format: &DocumentFormat| format!("{format:?}").to_lowercase();
            found.setting(&of("format"), (format, &new.format), word, |old, _| *old == DocumentFormat::Sealed);
            found.setting(&of("unbound"), (unbound, &new.unbound), yes_or_no, |old, new| !*old && *new);
            // Whoever can write that file says who can open the store, and it is under no signature.
            let file = |path: &Option<PathBuf>| path.as_deref().map_or_else(unset, shown);
            found
                .setting(&of("recipients_file"), (recipients_file, &new.recipients_file), file, |_, new| new.is_some());
            found.setting(
                &of("identities"),
                (identities.as_slice(), new.identities.as_slice()),
                identity_words,
                is_left,
            );
        }
        (Store::Kms(old), Store::Kms(new)) => {
            let KmsStore { aws, key: _, path, recipients: _, context, identities, min_generation } = old;
            found.setting(&of("min_generation"), (min_generation, &new.min_generation), u64::to_string, |old, new| {
                new < old
            });
            let file = |path: &Option<PathBuf>| path.as_deref().map_or_else(unset, shown);
            found.setting(&of("path"), (path, &new.path), file, always);
            let words = |context: &BTreeMap<String, String>| {
                list(context.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]))
            };
            found.setting(&of("context"), (context, &new.context), words, always);
            found.setting(
                &of("identities"),
                (identities.as_slice(), new.identities.as_slice()),
                identity_words,
                is_left,
            );
            aws_access(store, aws, &new.aws, found);
        }
        (Store::Ssm(old), Store::Ssm(new)) => {
            let SsmStore { aws, prefix, key: _ } = old;
            found.setting(&of("prefix"), (prefix, &new.prefix), |prefix| quoted(prefix), always);
            aws_access(store, aws, &new.aws, found);
        }
        (old, new) => found.setting(&of("type"), (old.kind(), new.kind()), quoted, always),
    }
}

/// Where a store is, as whom it is asked, and what holds both. Whatever of it is another than it was can be somebody else's.
fn aws_access(store: &str, old: &AwsAccess, new: &AwsAccess, found: &mut Found) {
    let of = |field: &str| format!("{store}: `{field}`");
    let AwsAccess { region, endpoint, profile, role_arn, account, credential_source, in_flight } = old;
    found.setting(&of("region"), (region, &new.region), quoted_or_none, always);
    found.setting(&of("endpoint"), (endpoint, &new.endpoint), quoted_or_none, always);
    found.setting(&of("profile"), (profile, &new.profile), quoted_or_none, always);
    found.setting(&of("role_arn"), (role_arn, &new.role_arn), quoted_or_none, always);
    found.setting(&of("account"), (account, &new.account), quoted_or_none, unpinned);
    let word = |source: &Option<CredentialSource>| source.map_or_else(unset, |source| quoted(source.word()));
    found.setting(&of("credential_source"), (credential_source, &new.credential_source), word, unpinned);
    let number = |limit: &Option<usize>| limit.map_or_else(unset, |limit| limit.to_string());
    found.setting(&of("in_flight"), (in_flight, &new.in_flight), number, never);
}

/// A variable that is no identity any more is left to the child.
fn is_left(old: &[IdentitySource], new: &[IdentitySource]) -> bool {
    old.iter().any(|source| matches!(source, IdentitySource::Env(_)) && !new.contains(source))
}

fn shown(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

fn identity_words(sources: &[IdentitySource]) -> String {
    let words: Vec<String> = sources.iter().map(IdentitySource::describe).collect();
    list(words.iter().map(String::as_str))
}

/// What bundles demand; who gets what they bring is access.
fn bundles(old: &Side<'_>, new: &Side<'_>, found: &mut Found) {
    let (before, after) = (demands(old), demands(new));
    for (key, (at_least, plain)) in &after {
        let name = key.words();
        match before.get(key) {
            None => found.add(Sign::Change, format!("{name} is new")),
            Some((old_least, old_plain)) => {
                found.setting(&format!("{name}: `at_least`"), (old_least, at_least), u32::to_string, |old, new| {
                    new < old
                });
                found.setting(&format!("{name}: `plain`"), (old_plain, plain), yes_or_no, |old, new| !*old && *new);
            }
        }
    }
    for key in before.keys().filter(|key| !after.contains_key(key)) {
        found.add(Sign::Change, format!("{} is gone", key.words()));
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct BundleKey<'p> {
    store: StoreId<'p>,
    path: &'p str,
    recursive: bool,
    style: NameStyle,
}

/// What each bundle demands. Of two that are the same the milder one tells.
fn demands<'p>(side: &Side<'p>) -> BTreeMap<BundleKey<'p>, (u32, bool)> {
    let mut demands = BTreeMap::new();
    for bundle in &side.policy.bundles {
        let Some(store) = side.id(&bundle.store) else { continue };
        let key = BundleKey { store, path: &bundle.path, recursive: bundle.recursive, style: bundle.names };
        let (at_least, plain) = demands.entry(key).or_insert((bundle.at_least, bundle.plain));
        *at_least = bundle.at_least.min(*at_least);
        *plain |= bundle.plain;
    }
    demands
}

impl BundleKey<'_> {
    fn words(&self) -> String {
        let recursive = if self.recursive { ", recursive" } else { "" };
        let style = match self.style {
            NameStyle::AsWritten => "as written",
            NameStyle::LowerKebab => "lower-kebab",
            NameStyle::LowerSnake => "lower_snake",
            NameStyle::UpperSnake => "UPPER_SNAKE",
        };
        format!("the bundle of {} of store {}{recursive}, names {style},", quoted(self.path), self.store.words())
    }
}

fn child(old: &Policy, new: &Policy, found: &mut Found) {
    let (old, new) = (&old.child, &new.child);
    let kept = (inherited(&old.inherit), inherited(&new.inherit));
    let words = |kept: &Option<BTreeSet<&str>>| match kept {
        None => quoted("all"),
        Some(names) => list(names.iter().copied()),
    };
    let wider = |old: &Option<BTreeSet<&str>>, new: &Option<BTreeSet<&str>>| match (old, new) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(old), Some(new)) => !new.is_subset(old),
    };
    found.setting("[child] `inherit`", (&kept.0, &kept.1), words, wider);
    let names: BTreeSet<_> = old.set.keys().chain(new.set.keys()).collect();
    for name in names {
        let name_words = format!("[child] `set` of {}", quoted(name.as_str()));
        found.setting(&name_words, (&old.set.get(name).cloned(), &new.set.get(name).cloned()), quoted_or_none, never);
    }
    let word = |role: &AwsRole| match role {
        AwsRole::Pass => quoted("pass"),
        AwsRole::Strip => quoted("strip"),
    };
    found.setting("[child] `aws_role`", (&old.aws_role, &new.aws_role), word, |_, new| *new == AwsRole::Pass);
    let rank = |what: &OnCollision| match what {
        OnCollision::Error => 0,
        OnCollision::Secret => 1,
        OnCollision::Inherited => 2,
    };
    let word = |what: &OnCollision| match what {
        OnCollision::Error => quoted("error"),
        OnCollision::Secret => quoted("secret"),
        OnCollision::Inherited => quoted("inherited"),
    };
    let looser = |old: &OnCollision, new: &OnCollision| rank(new) > rank(old);
    found.setting("[child] `on_collision`", (&old.on_collision, &new.on_collision), word, looser);
}

/// The names and globs that pass; `None`: all.
fn inherited(inherit: &Inherit) -> Option<BTreeSet<&str>> {
    match inherit {
        Inherit::All => None,
        Inherit::None => Some(BTreeSet::new()),
        Inherit::Names(patterns) => Some(patterns.iter().map(|pattern| pattern.as_str()).collect()),
    }
}

fn run(old: &Policy, new: &Policy, found: &mut Found) {
    let (before, after) = (&old.run, &new.run);
    let word = |agent: &AgentUse| match agent {
        AgentUse::Allow => quoted("allow"),
        AgentUse::Forbid => quoted("forbid"),
        AgentUse::Require => quoted("require"),
    };
    // Each of the other two shuts one way, and opens the one that the other shuts.
    found.setting("[run] `agent`", (&before.agent, &after.agent), word, |old, _| *old != AgentUse::Allow);
    let mode = (format!("{:?}", before.mode).to_lowercase(), format!("{:?}", after.mode).to_lowercase());
    found.setting("[run] `mode`", (&mode.0, &mode.1), |word| quoted(word), never);
    found.setting("[run] `deadline`", (&before.deadline, &after.deadline), time, never);
    let change = (format!("{:?}", before.on_change).to_lowercase(), format!("{:?}", after.on_change).to_lowercase());
    found.setting("[run] `on_change`", (&change.0, &change.1), |word| quoted(word), never);
    let crash = (format!("{:?}", before.on_crash).to_lowercase(), format!("{:?}", after.on_crash).to_lowercase());
    found.setting("[run] `on_crash`", (&crash.0, &crash.1), |word| quoted(word), never);
    found.setting("[run] `grace`", (&before.grace, &after.grace), time, never);
    found.setting("[run] `watch`", (&before.watch, &after.watch), time_or_none, never);
    let (before, after) = (&old.cache, &new.cache);
    found.setting("[cache] `ttl`", (&before.ttl, &after.ttl), time, |old, new| new > old);
    found.setting("[cache] `max_stale`", (&before.max_stale, &after.max_stale), time, |old, new| new > old);
}
