//! What changes between two policies, in words: who gains and who loses what, first of all. Pure.
//!
//! Grants only add, so access is compared as a set: for each variable, the audiences that some grant gives it to. Two rules
//! that say the same in another order are no change; one that is wider by a glob is told as what it names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::model::{
    AgeStore, Anchor, Audience, AwsAccess, Binding, GrantRule, IdentitySource, KmsStore, Policy, Principal, Sink,
    Source, SsmStore, Store,
};
use super::pattern::Pattern;
use crate::name::{escape, show};

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// Which way.
    pub sign: Sign,
    /// In words.
    pub text: String,
}

/// Which way a difference goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sign {
    /// Somebody can do what he could not.
    Gain,
    /// Somebody can do no longer what he could.
    Loss,
    /// Neither: something is done otherwise.
    Change,
}

impl Sign {
    /// `+`, `-` or `~`.
    #[must_use]
    pub fn mark(self) -> char {
        match self {
            Self::Gain => '+',
            Self::Loss => '-',
            Self::Change => '~',
        }
    }

    /// The word for it in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Gain => "gain",
            Self::Loss => "loss",
            Self::Change => "change",
        }
    }
}

/// All differences, gains first.
#[must_use]
pub fn diff(old: &Policy, new: &Policy) -> Vec<Difference> {
    let mut found = Vec::new();
    sets(&access(old), &access(new), &mut found, |(name, audience)| {
        (format!("{audience} can get {name}"), format!("{audience} can no longer get {name}"))
    });
    sets(&readers(old), &readers(new), &mut found, |(recipient, store)| {
        (
            format!("{recipient} can open what is written to store `{store}`"),
            format!("{recipient} can no longer open what is written to store `{store}`; it keeps what it has opened"),
        )
    });
    let name = |text: &String| escape(text);
    tables(&sources(old), &sources(new), "secret", &name, &mut found);
    tables(&stores(old), &stores(new), "store", &name, &mut found);
    tables(&rules(old), &rules(new), "rule", &|rule| format!("[{rule}]"), &mut found);
    sets(&sinks(old), &sinks(new), &mut found, |sink| {
        (format!("accesses are written down in {sink}"), format!("accesses are no longer written down in {sink}"))
    });
    if old.environment != new.environment {
        found.push(change(format!("the environment was `{}` and is `{}`", old.environment, new.environment)));
    }
    if old.service != new.service {
        let word =
            |policy: &Policy| policy.service.as_ref().map_or_else(|| "every service".into(), |s| format!("`{s}`"));
        found.push(change(format!("it was for {} and is for {}", word(old), word(new))));
    }
    found.sort();
    found
}

/// Who can get what: every pair of a variable and an audience that some grant names together.
fn access(policy: &Policy) -> BTreeSet<(String, String)> {
    let mut pairs = BTreeSet::new();
    for rule in &policy.grants {
        for pattern in &rule.secrets {
            let names = policy.secrets.keys().filter(|name| pattern.matches(name.as_str()));
            pairs.extend(names.map(|name| (name.to_string(), audience(rule))));
            if !policy.bundles.is_empty() {
                pairs.insert((format!("what bundles bring as {}", escape(pattern.as_str())), audience(rule)));
            }
        }
    }
    pairs
}

fn audience(rule: &GrantRule) -> String {
    let Audience::Matching(fields) = &rule.to else { return "anyone".into() };
    let list = |word: &str, entries: Option<Vec<String>>| {
        entries.map(|mut entries| {
            entries.sort();
            entries.dedup();
            format!("{word} {}", entries.join(" or "))
        })
    };
    let principals = |list: &Option<Vec<Principal>>| list.as_ref().map(|list| list.iter().map(principal).collect());
    let patterns = |list: &[Pattern]| list.iter().map(|pattern| escape(pattern.as_str())).collect();
    let parts = [
        list("user", principals(&fields.users)),
        list("group", principals(&fields.groups)),
        list("command", fields.commands.as_deref().map(patterns)),
        list("digest", fields.sha256.clone()),
    ];
    let text = parts.into_iter().flatten().collect::<Vec<_>>().join(" with ");
    if rule.claimed { format!("{text} (claimed is enough)") } else { text }
}

fn principal(principal: &Principal) -> String {
    match principal {
        Principal::Id(number) => number.to_string(),
        Principal::Name(name) => escape(name),
    }
}

/// Who can open what is written from now on. A store of SSM is opened by whoever IAM lets.
fn readers(policy: &Policy) -> BTreeSet<(String, String)> {
    let mut pairs = BTreeSet::new();
    for (name, store) in &policy.stores {
        let (recipients, file, key) = match store {
            Store::Age(store) => (&store.recipients, store.recipients_file.as_ref(), None),
            Store::Kms(store) => (&store.recipients, None, Some(&store.key)),
            Store::Ssm(_) => continue,
        };
        let own = recipients.iter().map(|recipient| format!("recipient {}", escape(recipient)));
        let file = file.map(|file| format!("each recipient of {}", relative(file, policy)));
        let key = key.map(|key| format!("whoever may use {}", escape(key)));
        pairs.extend(own.chain(file).chain(key).map(|reader| (reader, name.to_string())));
    }
    pairs
}

/// Where values come from, and on what terms.
fn sources(policy: &Policy) -> BTreeMap<String, Vec<String>> {
    policy.secrets.iter().map(|(name, binding)| (name.to_string(), source(binding))).collect()
}

fn source(binding: &Binding) -> Vec<String> {
    let from = match &binding.source {
        Source::Ciphertext { store, field, context, ciphertext } => {
            format!("ciphertext {ciphertext:?} of store `{store}` {context:?} {field:?}")
        }
        Source::Item(item) => format!(
            "store `{}` item `{}` version {:?} stage {:?} field {:?}",
            item.store, item.item, item.version, item.stage, item.field
        ),
        Source::Template(template) => format!("{template:?}"),
    };
    vec![
        field("where its value comes from", from),
        field("inject", binding.inject),
        field("required", binding.required),
        field("reserved", binding.reserved),
        field("plain", binding.plain),
        field("max_age", binding.max_age),
        field("on_expired", binding.on_expired),
        field("rotate", &binding.rotate),
    ]
}

/// A field and its value, told apart by the first line break, which no name of ours has.
fn field(name: &str, value: impl std::fmt::Debug) -> String {
    format!("{name}\n{value:?}")
}

fn stores(policy: &Policy) -> BTreeMap<String, Vec<String>> {
    let identities = |list: &[IdentitySource]| {
        list.iter()
            .map(|source| match source {
                IdentitySource::File(path) => format!("file:{}", relative(path, policy)),
                other => other.describe(),
            })
            .collect::<Vec<_>>()
    };
    let fields = |store: &Store| match store {
        Store::Age(AgeStore { path, format, unbound, recipients: _, recipients_file: _, identities: sources }) => vec![
            field("type", "age"),
            field("path", relative(path, policy)),
            field("format", format),
            field("unbound", unbound),
            field("identities", identities(sources)),
        ],
        Store::Kms(KmsStore { aws, key: _, path, recipients: _, context, identities: sources }) => vec![
            field("type", "kms"),
            field("path", path.as_ref().map(|path| relative(path, policy))),
            field("context", context),
            field("identities", identities(sources)),
            field("access to AWS", aws),
        ],
        Store::Ssm(SsmStore { aws, prefix, key }) => {
            vec![field("type", "ssm"), field("prefix", prefix), field("key", key), field("access to AWS", aws)]
        }
    };
    policy.stores.iter().map(|(name, store)| (name.to_string(), fields(store))).collect()
}

/// The tables of which there is one each, and the bundles.
fn rules(policy: &Policy) -> BTreeMap<String, Vec<String>> {
    let (child, run) = (&policy.child, &policy.run);
    [
        (
            "child",
            vec![
                field("inherit", &child.inherit),
                field("set", &child.set),
                field("aws_role", child.aws_role),
                field("on_collision", child.on_collision),
            ],
        ),
        ("run", vec![field("what it says", run)]),
        ("cache", vec![field("what it says", &policy.cache)]),
        ("[bundles]", vec![field("what they bring", &policy.bundles)]),
    ]
    .map(|(name, fields)| (name.to_owned(), fields))
    .into()
}

fn sinks(policy: &Policy) -> BTreeSet<String> {
    let word = |sink: &Sink| match sink {
        Sink::Fd(number) => format!("descriptor {number}"),
        Sink::File { path, sync, evidence } => {
            let path = relative(Path::new(path), policy);
            let sealed = evidence.auditor.as_ref().map(|auditor| format!(", sealed for {auditor}"));
            let anchors = evidence.checkpoints.as_ref().map(|rules| {
                let to: Vec<String> = rules.to.iter().map(anchor).collect();
                let interval = humantime::format_duration(rules.interval);
                format!(", checkpoints every {} records or {interval} to {}", rules.every, to.join(", "))
            });
            let synced = if *sync { "" } else { ", without sync" };
            format!("file {path}{synced}{}{}", sealed.unwrap_or_default(), anchors.unwrap_or_default())
        }
        Sink::Stderr => "standard error".into(),
    };
    policy.sinks.iter().map(word).collect()
}

/// With who takes it there: somebody else's account is somebody else's history.
fn anchor(anchor: &Anchor) -> String {
    let Anchor::Parameter(parameter) = anchor else { return anchor.word() };
    let AwsAccess { region, endpoint, profile, role_arn, account, credential_source, in_flight: _ } = &parameter.aws;
    let source = credential_source.map(|source| format!("{source:?}"));
    let said = [
        ("region", region),
        ("endpoint", endpoint),
        ("profile", profile),
        ("role", role_arn),
        ("account", account),
        ("credentials", &source),
    ];
    let said = said.into_iter().filter_map(|(what, text)| text.as_ref().map(|text| format!(" {what} {text}")));
    anchor.word() + &said.collect::<String>()
}

/// A path as the policy may have written it, so that a copy of the policy elsewhere is no change.
fn relative(path: &Path, policy: &Policy) -> String {
    let folder = policy.files.first().and_then(|file| file.parent()).map(PathBuf::from).unwrap_or_default();
    show(path.strip_prefix(&folder).unwrap_or(path))
}

fn change(text: String) -> Difference {
    Difference { sign: Sign::Change, text }
}

/// `words` says a gain and a loss.
fn sets<T: Ord>(
    old: &BTreeSet<T>,
    new: &BTreeSet<T>,
    found: &mut Vec<Difference>,
    words: impl Fn(&T) -> (String, String),
) {
    found.extend(new.difference(old).map(|one| Difference { sign: Sign::Gain, text: words(one).0 }));
    found.extend(old.difference(new).map(|one| Difference { sign: Sign::Loss, text: words(one).1 }));
}

/// What is in one table only, and which fields of what is in both differ.
fn tables(
    old: &BTreeMap<String, Vec<String>>,
    new: &BTreeMap<String, Vec<String>>,
    what: &str,
    show: &dyn Fn(&String) -> String,
    found: &mut Vec<Difference>,
) {
    let only = |of: &BTreeMap<String, Vec<String>>, not: &BTreeMap<String, Vec<String>>, verb: &str| {
        let names = of.keys().filter(|name| !not.contains_key(*name));
        names.map(|name| change(format!("{what} {} {verb}", show(name)))).collect::<Vec<_>>()
    };
    found.extend(only(new, old, "is new"));
    found.extend(only(old, new, "is gone"));
    for (name, fields) in new {
        let Some(before) = old.get(name) else { continue };
        let differ = fields.iter().filter(|field| !before.contains(field));
        let differ: Vec<&str> = differ.filter_map(|field| field.split('\n').next()).collect();
        let before = before.iter().filter(|field| !fields.contains(field)).filter_map(|field| field.split('\n').next());
        let differ: BTreeSet<&str> = differ.into_iter().chain(before).collect();
        if !differ.is_empty() {
            let list = differ.into_iter().collect::<Vec<_>>().join(", ");
            found.push(change(format!("{what} {} differs: {list}", show(name))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::file::{LoadOptions, parse_text};

    const BASE: &str = "version = 1\nenvironment = \"prod\"\n[stores.files]\ntype = \"age\"\npath = \"p.age\"\n\
        recipients = [\"age1one\"]\nidentities = [\"env:K\"]\n[secrets]\nA = {}\nB = {}\n[[grants]]\nsecrets = [\"A\"]\n\
        to = { users = [\"api\"], commands = [\"/bin/api\"] }\n[[audit.sinks]]\ntype = \"stderr\"\n";

    fn of(text: &str, path: &str) -> Policy {
        parse_text(text, Path::new(path), &LoadOptions::default()).unwrap()
    }

    fn told(from: &str, to: &str) -> Vec<String> {
        let changed = BASE.replacen(from, to, 1);
        assert_ne!(changed, BASE, "{from}");
        let differences = diff(&of(BASE, "old/p.toml"), &of(&changed, "new/p.toml"));
        differences.iter().map(|one| format!("{} {}", one.sign.mark(), one.text)).collect()
    }

    #[test]
    fn the_same_policy_elsewhere_or_in_another_order_is_no_change() {
        assert_eq!(diff(&of(BASE, "old/p.toml"), &of(BASE, "new/x/p.toml")), []);
        let split = "[[grants]]\nsecrets = [\"A\"]\nto = { commands = [\"/bin/api\"], users = [\"api\"] }\n";
        assert_eq!(told("[[grants]]", &format!("{split}[[grants]]")), [] as [&str; 0]);
    }

    #[test]
    fn who_gains_and_who_loses_what() {
        assert_eq!(told("[\"A\"]", "[\"*\"]"), ["+ user api with command /bin/api can get B"]);
        assert_eq!(
            told("to = { users = [\"api\"], commands = [\"/bin/api\"] }", "to = \"anyone\""),
            ["+ anyone can get A", "- user api with command /bin/api can no longer get A"]
        );
        assert_eq!(told("A = {}", "A = {}\nANOTHER = {}"), ["~ secret ANOTHER is new"]);
        assert_eq!(
            told("[\"age1one\"]", "[\"age1two\"]"),
            [
                "+ recipient age1two can open what is written to store `files`",
                "- recipient age1one can no longer open what is written to store `files`; it keeps what it has opened",
            ]
        );
    }

    #[test]
    fn what_is_done_otherwise() {
        assert_eq!(
            told("A = {}", "A = { item = \"x\", required = false }"),
            ["~ secret A differs: required, where its value comes from"]
        );
        assert_eq!(told("\"p.age\"", "\"q.age\""), ["~ store files differs: path"]);
        assert_eq!(told("[secrets]", "[run]\ndeadline = \"5s\"\n[secrets]"), ["~ rule [run] differs: what it says"]);
        assert_eq!(
            told("type = \"stderr\"", "type = \"fd\"\nfd = 5"),
            ["+ accesses are written down in descriptor 5", "- accesses are no longer written down in standard error",]
        );
        assert_eq!(
            told("\"prod\"\n", "\"prod\"\nservice = \"api\"\n"),
            ["~ it was for every service and is for `api`"]
        );
    }
}
