//! The decision: `(&Policy, &Request) -> Verdict`, pure. No file, clock or environment is read here.
//!
//! Grants only add, there is no deny, and order means nothing: a secret is granted if some rule names it and that rule's
//! audience matches the caller. `run` asks for a set, and gets all of it or nothing.
//!
//! This is the only place that makes a [`Grant`].

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use super::model::{Audience, GrantRule, Match, Policy, Source};
use crate::error::{Cause, Class, suggest};
use crate::name::{VariableName, escape, show};

/// Who asks, for what.
#[derive(Debug, Clone)]
pub struct Request {
    /// Who asks.
    pub caller: Caller,
    /// The program that would receive the secrets; `None` where no program is started.
    pub command: Option<CommandFacts>,
    /// `--only`; `None` asks for every binding with `inject = true` and every bundle.
    pub only: Option<Vec<VariableName>>,
    /// Whether command and digest are only what the caller claims (through the agent), not what the wrapper saw.
    pub claimed: bool,
}

/// Who asks, as the kernel says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    /// Real uid.
    pub uid: u32,
    /// Its name in `/etc/passwd`, if it has one.
    pub user: Option<String>,
    /// The real gid and the supplementary groups, each with its name in `/etc/group`, if it has one.
    pub groups: Vec<(u32, Option<String>)>,
}

/// What is known of a command before anything is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandFacts {
    /// The absolute path that the look-up found.
    pub found: PathBuf,
    /// The same with every symbolic link resolved.
    pub canonical: PathBuf,
    /// SHA-256 of the opened file, in hexadecimal, if it is ELF and the policy pins by digest.
    pub sha256: Option<String>,
}

/// What the policy says to a request.
#[must_use]
#[derive(Debug)]
pub enum Verdict<'p> {
    /// Nothing, and why.
    Denied(Denial),
    /// All of it.
    Granted(Grant<'p>),
}

/// Proof that the policy allows exactly this. Made only by [`evaluate`]; turned into a `Permit` by the audit.
///
/// ```compile_fail,E0451
/// fn forge(grant: vouchsafe::policy::eval::Grant<'_>) -> vouchsafe::policy::eval::Grant<'_> {
///     vouchsafe::policy::eval::Grant { names: vec![], ..grant }
/// }
/// ```
#[derive(Debug)]
pub struct Grant<'p> {
    policy: &'p Policy,
    names: Vec<VariableName>,
    parts: Vec<VariableName>,
    bundles: Option<BundleGrant>,
    rules: Vec<usize>,
    pin: Pin,
}

/// What of the bundles is granted; their names are known only once the store has answered.
#[derive(Debug)]
struct BundleGrant {
    rules: Vec<usize>,
    only: Option<Vec<VariableName>>,
}

/// How firmly the grant holds to the command that was looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pin {
    /// The grant does not depend on the command.
    None,
    /// The grant names the path as it was found: nobody else may be able to swap it, and it is looked at again.
    Found,
    /// The grant names the path with its links resolved, so that one is executed.
    Canonical,
    /// The grant names the digest of the opened file, so that descriptor is executed.
    Digest,
}

impl<'p> Grant<'p> {
    /// The policy that granted.
    #[must_use]
    pub fn policy(&self) -> &'p Policy {
        self.policy
    }

    /// The bindings to inject, sorted.
    #[must_use]
    pub fn names(&self) -> &[VariableName] {
        &self.names
    }

    /// The bindings that templates among [`Self::names`] are made of and that are not injected themselves.
    #[must_use]
    pub fn parts(&self) -> &[VariableName] {
        &self.parts
    }

    /// Whether bundles are part of it.
    #[must_use]
    pub fn wants_bundles(&self) -> bool {
        self.bundles.is_some()
    }

    /// Whether a variable that a bundle brought was asked for at all (`--only` may leave it out).
    #[must_use]
    pub fn asks_bundle_for(&self, name: &VariableName) -> bool {
        self.bundles.as_ref().is_some_and(|b| b.only.as_ref().is_none_or(|only| only.contains(name)))
    }

    /// Names of `--only` that no binding has, so that a bundle must bring them.
    #[must_use]
    pub fn expected_of_bundles(&self) -> &[VariableName] {
        self.bundles.as_ref().and_then(|b| b.only.as_deref()).unwrap_or_default()
    }

    /// Whether a rule that matches this caller names a variable that a bundle brought.
    #[must_use]
    pub fn covers_from_bundle(&self, name: &VariableName) -> bool {
        self.bundles.as_ref().is_some_and(|bundles| {
            bundles
                .rules
                .iter()
                .filter_map(|index| self.policy.grants.get(*index))
                .any(|rule| rule.secrets.iter().any(|pattern| pattern.matches(name.as_str())))
        })
    }

    /// Where the rules stand that granted: `path:line`.
    pub fn places(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().filter_map(|index| self.policy.grants.get(*index)).map(|rule| rule.place.as_str())
    }

    /// How firmly it holds to the command.
    #[must_use]
    pub fn pin(&self) -> Pin {
        self.pin
    }
}

/// Why nothing was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denial {
    /// Secrets that no rule gives to this caller.
    NotGranted {
        /// The secrets, sorted.
        names: Vec<VariableName>,
        /// Who asked, in words.
        caller: String,
        /// What `vouchsafe explain` is to be given to say which grant fails on what.
        arguments: String,
    },
    /// Names of `--only` that the policy does not have.
    Unknown {
        /// The names.
        names: Vec<VariableName>,
        /// The nearest name that the policy has.
        nearest: Option<VariableName>,
    },
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotGranted { names, caller, .. } => {
                write!(f, "no grant gives {} to {caller}", list(names))
            }
            Self::Unknown { names, .. } => write!(f, "the policy has no secret {}", list(names)),
        }
    }
}

impl Cause for Denial {
    fn class(&self) -> Class {
        Class::Denied
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NotGranted { arguments, .. } => {
                Some(format!("vouchsafe explain{arguments}   # says which grant fails on what"))
            }
            Self::Unknown { nearest, .. } => nearest.as_ref().map(|name| format!("did you mean `{name}`?")),
        }
    }
}

fn list(names: &[VariableName]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Decides `request` by `policy`.
pub fn evaluate<'p>(policy: &'p Policy, request: &Request) -> Verdict<'p> {
    let unknown = unknown_names(policy, request);
    if !unknown.is_empty() {
        let nearest = unknown.first().and_then(|name| {
            let known = policy.secrets.keys().map(VariableName::as_str);
            suggest(name.as_str(), known).and_then(|name| VariableName::new(name).ok())
        });
        return Verdict::Denied(Denial::Unknown { names: unknown, nearest });
    }

    let matching: Vec<(usize, &GrantRule, Pin)> = policy
        .grants
        .iter()
        .enumerate()
        .filter_map(|(index, rule)| audience_matches(rule, request).map(|pin| (index, rule, pin)))
        .collect();

    let mut names = asked_for(policy, request);
    names.sort();
    names.dedup();
    let mut denied = Vec::new();
    let mut used = BTreeSet::new();
    for name in &names {
        // The least firm rule that grants it is enough: a rule without a command also grants where another names one.
        let granting = matching.iter().filter(|(_, rule, _)| rule.secrets.iter().any(|p| p.matches(name.as_str())));
        match granting.min_by_key(|(_, _, pin)| *pin) {
            Some((index, _, pin)) => {
                used.insert((*index, *pin));
            }
            None => denied.push(name.clone()),
        }
    }

    let bundles = bundle_request(policy, request);
    if bundles.is_some() {
        used.extend(matching.iter().map(|(index, _, pin)| (*index, *pin)));
    }
    if bundles.is_some() && matching.is_empty() {
        denied.extend(bundles.iter().flatten().flatten().cloned());
    }
    if !denied.is_empty() || (bundles.is_some() && matching.is_empty()) {
        return Verdict::Denied(Denial::NotGranted {
            names: denied,
            caller: describe(request),
            arguments: arguments(policy, request),
        });
    }

    Verdict::Granted(Grant {
        parts: parts_of(policy, &names),
        names,
        bundles: bundles.map(|only| BundleGrant { rules: matching.iter().map(|(index, _, _)| *index).collect(), only }),
        rules: used.iter().map(|(index, _)| *index).collect(),
        pin: used.iter().map(|(_, pin)| *pin).max().unwrap_or(Pin::None),
        policy,
    })
}

/// Why the audience of one rule does not match, field by field; empty if it does. For `explain`.
#[must_use]
pub fn mismatches(rule: &GrantRule, request: &Request) -> Vec<&'static str> {
    let Audience::Matching(fields) = &rule.to else { return Vec::new() };
    let mut out = Vec::new();
    if !users_match(fields, &request.caller) {
        out.push("users");
    }
    if !groups_match(fields, &request.caller) {
        out.push("groups");
    }
    if command_match(fields, request).is_none() {
        out.push("commands");
    }
    if !digest_matches(fields, request) {
        out.push("sha256");
    }
    if request.claimed && !rule.claimed && (fields.commands.is_some() || fields.sha256.is_some()) {
        out.push("claimed");
    }
    out
}

fn unknown_names(policy: &Policy, request: &Request) -> Vec<VariableName> {
    if !policy.bundles.is_empty() {
        return Vec::new();
    }
    let only = request.only.iter().flatten();
    only.filter(|name| !policy.secrets.contains_key(*name)).cloned().collect()
}

/// The bindings asked for. `--only` may name one with `inject = false`: then it was asked for.
fn asked_for(policy: &Policy, request: &Request) -> Vec<VariableName> {
    match &request.only {
        Some(only) => only.iter().filter(|name| policy.secrets.contains_key(*name)).cloned().collect(),
        None => policy.secrets.iter().filter(|(_, binding)| binding.inject).map(|(name, _)| name.clone()).collect(),
    }
}

/// `Some` if bundles are asked for, with the names that only a bundle can bring (`None`: all that it brings).
#[expect(clippy::option_option, reason = "asked for or not, and then all or some: two questions")]
fn bundle_request(policy: &Policy, request: &Request) -> Option<Option<Vec<VariableName>>> {
    if policy.bundles.is_empty() {
        return None;
    }
    let Some(only) = &request.only else { return Some(None) };
    let rest: Vec<_> = only.iter().filter(|name| !policy.secrets.contains_key(*name)).cloned().collect();
    if rest.is_empty() { None } else { Some(Some(rest)) }
}

/// A template's parts need no grant of their own: who may have the whole may have it made. Templates do not nest.
fn parts_of(policy: &Policy, names: &[VariableName]) -> Vec<VariableName> {
    let templates = names.iter().filter_map(|name| match &policy.secrets.get(name)?.source {
        Source::Template(template) => Some(template),
        Source::Ciphertext { .. } | Source::Item(_) => None,
    });
    let parts: BTreeSet<_> =
        templates.flat_map(|template| template.references()).filter(|part| !names.contains(part)).cloned().collect();
    parts.into_iter().collect()
}

fn audience_matches(rule: &GrantRule, request: &Request) -> Option<Pin> {
    let fields = match &rule.to {
        Audience::Anyone => return Some(Pin::None),
        Audience::Matching(fields) => fields,
    };
    let depends_on_command = fields.commands.is_some() || fields.sha256.is_some();
    if request.claimed && depends_on_command && !rule.claimed {
        return None;
    }
    let pin = command_match(fields, request)?;
    let everything = users_match(fields, &request.caller)
        && groups_match(fields, &request.caller)
        && digest_matches(fields, request);
    let pin = if fields.sha256.is_some() { Pin::Digest } else { pin };
    everything.then_some(pin)
}

pub(in crate::policy) fn users_match(fields: &Match, caller: &Caller) -> bool {
    fields.users.as_ref().is_none_or(|users| users.iter().any(|user| user.is(caller.uid, caller.user.as_deref())))
}

pub(super) fn groups_match(fields: &Match, caller: &Caller) -> bool {
    fields.groups.as_ref().is_none_or(|groups| {
        groups.iter().any(|group| caller.groups.iter().any(|(gid, name)| group.is(*gid, name.as_deref())))
    })
}

/// `None` if `commands` is there and does not match.
fn command_match(fields: &Match, request: &Request) -> Option<Pin> {
    let Some(patterns) = &fields.commands else { return Some(Pin::None) };
    let command = request.command.as_ref()?;
    let any = |path: &Path| path.to_str().is_some_and(|text| patterns.iter().any(|pattern| pattern.matches(text)));
    if any(&command.found) {
        Some(Pin::Found)
    } else if any(&command.canonical) {
        Some(Pin::Canonical)
    } else {
        None
    }
}

fn digest_matches(fields: &Match, request: &Request) -> bool {
    let Some(digests) = &fields.sha256 else { return true };
    let digest = request.command.as_ref().and_then(|command| command.sha256.as_ref());
    digest.is_some_and(|digest| digests.contains(digest))
}

/// What `explain` is to be given to explain this request, as far as it is known here.
fn arguments(policy: &Policy, request: &Request) -> String {
    let file = policy.files.first().map(|path| format!(" --policy {}", show(path))).unwrap_or_default();
    let only = request.only.iter().flatten().map(|name| format!(" --only {name}")).collect::<String>();
    let command = request.command.as_ref().map(|command| format!(" -- {}", show(&command.found))).unwrap_or_default();
    format!("{file}{only}{command}")
}

fn describe(request: &Request) -> String {
    let caller = &request.caller;
    let who =
        caller.user.as_ref().map_or_else(|| format!("uid {}", caller.uid), |user| format!("user `{}`", escape(user)));
    match &request.command {
        Some(command) => format!("{who} for the command `{}`", show(&command.found)),
        None => who,
    }
}
