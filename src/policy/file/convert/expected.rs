//! The table of expected verdicts. What could only pass by mistake (a name that the policy does not have, a user whose number
//! the grants ask for and the table does not give) is wrong, and said.

use std::path::{Path, PathBuf};

use super::Context;
use super::grants::digest;
use super::values::is_plain_absolute;
use crate::name::VariableName;
use crate::policy::eval::{Caller, CommandFacts, users_match};
use crate::policy::expected::Expectation;
use crate::policy::file::diagnostic::place;
use crate::policy::file::raw::{At, RawExpectation, RawExpectations, RawPrincipal};
use crate::policy::model::{Audience, GrantRule, Match, Policy, Principal};
use crate::policy::reach::given;

/// A number that is nobody's: `(uid_t) -1`, which the kernel takes as "no id" (setreuid(2)).
const NOBODY: u32 = u32::MAX;

/// Checks and converts a table for `policy`. `None`, if anything is wrong.
pub(in crate::policy::file) fn expectations(
    raw: &RawExpectations,
    policy: &Policy,
    context: &mut Context<'_>,
) -> Option<Vec<Expectation>> {
    let found: Vec<Option<Expectation>> = raw.tests.iter().map(|at| expectation(at, policy, context)).collect();
    if raw.tests.is_empty() && context.findings.is_empty() {
        context.findings.wrong_at((0..0).into(), "the table expects nothing").hint("begin with a line [[tests]]");
    }
    if context.findings.is_empty() { found.into_iter().collect() } else { None }
}

fn expectation(at: &At<RawExpectation>, policy: &Policy, context: &mut Context<'_>) -> Option<Expectation> {
    let raw = &at.value;
    let name = raw.name.as_ref().and_then(|name| context.line("name", name));
    let caller = caller(at, policy, context);
    if let (Some(sha256), None) = (&raw.sha256, &raw.command) {
        context.findings.wrong(sha256, "`sha256` is about `command`, and there is none");
    }
    let sha256 = raw.sha256.as_ref().and_then(|sha256| digest(sha256, context));
    let mut path = |at: &At<String>| {
        let rule = "a command is an absolute path, without `.`, `..`, empty segments or a `/` at its end";
        context.checked(at, rule, |text| is_plain_absolute(text) && !text.contains('*')).map(PathBuf::from)
    };
    let found = raw.command.as_ref().and_then(&mut path);
    let resolved = raw.resolved.as_ref().and_then(&mut path);
    if let (Some(resolved), None) = (&raw.resolved, &raw.command) {
        context.findings.wrong(resolved, "`resolved` is about `command`, and there is none");
    }
    let command =
        found.map(|found| CommandFacts { canonical: resolved.unwrap_or_else(|| found.clone()), found, sha256 });
    if raw.granted.is_none() && raw.denied.is_none() {
        context.findings.wrong(at, "this expects nothing").hint("denied = [\"*\"]   # or granted = [\"NAME\"]");
    }
    let granted = secrets("granted", raw.granted.as_ref(), policy, context);
    let denied = secrets("denied", raw.denied.as_ref(), policy, context);
    if let Some((both, list)) = granted.iter().find(|name| denied.contains(name)).zip(raw.denied.as_ref()) {
        context.findings.wrong(list, format!("`{both}` is expected to be granted and denied"));
    }
    let caller = caller?;
    proves_denials(raw, &caller, &denied, policy, context);
    let source = context.sources.get(context.findings.file)?;
    let path: &Path = &source.path;
    let place = place(path, crate::policy::file::diagnostic::line_of(&source.text, at.span.start));
    let claimed = raw.agent.as_ref().is_some_and(|agent| agent.value);
    Some(Expectation { name, place, caller, command, claimed, granted, denied })
}

fn caller(at: &At<RawExpectation>, policy: &Policy, context: &mut Context<'_>) -> Option<Caller> {
    let raw = &at.value;
    let Some(user) = &raw.user else {
        context.findings.wrong(at, "it is not said who asks").hint("user = \"api\"");
        return None;
    };
    let number = raw.uid.as_ref().and_then(|at| match &at.value {
        RawPrincipal::Id(_) => Some((at, context.principal(at)?)),
        RawPrincipal::Name(_) => {
            context.findings.wrong(at, "`uid` is a number; a name is `user`");
            None
        }
    });
    let (uid, name) = match (context.principal(user)?, number) {
        (Principal::Id(id), None) => (id, None),
        (Principal::Id(_), Some((at, _))) => {
            context.findings.wrong(at, "`user` is a number already");
            return None;
        }
        (Principal::Name(name), Some((_, Principal::Id(id)))) => (id, Some(name)),
        (Principal::Name(name), _) => {
            let rule = policy.grants.iter().find(|rule| names(&rule.to, |fields| fields.users.as_ref(), is_number));
            if let Some(rule) = rule {
                let message =
                    format!("`{name}` has no number here, and the grant at {} names users by number", rule.place);
                context.findings.wrong(user, message).hint("add the number, such as: uid = 1000");
            }
            (NOBODY, Some(name))
        }
    };
    let groups = raw.groups.iter().flat_map(|list| &list.value).filter_map(|at| context.principal(at));
    let groups: Vec<_> = groups
        .map(|group| match group {
            Principal::Id(id) => (id, None),
            Principal::Name(name) => (NOBODY, Some(name)),
        })
        .collect();
    // A group that is left out by its other half would be denied by mistake.
    for (is_kind, has_kind, kind) in [
        (is_number as fn(&Principal) -> bool, groups.iter().any(|(id, _)| *id != NOBODY), "number"),
        (is_name, groups.iter().any(|(_, name)| name.is_some()), "name"),
    ] {
        let rule = policy.grants.iter().find(|rule| names(&rule.to, |fields| fields.groups.as_ref(), is_kind));
        if let (Some(rule), Some(list), false, false) = (rule, &raw.groups, has_kind, groups.is_empty()) {
            let message = format!("no group has a {kind} here, and the grant at {} names groups by {kind}", rule.place);
            context.findings.wrong(list, message).hint("list a group by name and by number: groups = [\"web\", 33]");
        }
    }
    Some(Caller { uid, user: name, groups })
}

/// A denial proves nothing where the row leaves out what a grant asks for: `run` would know it.
fn proves_denials(
    raw: &RawExpectation,
    caller: &Caller,
    denied: &[VariableName],
    policy: &Policy,
    context: &mut Context<'_>,
) {
    let gives = |rule: &&GrantRule| {
        let named = |name: &VariableName| rule.secrets.iter().any(|pattern| pattern.matches(name.as_str()));
        denied.iter().any(named) || given(policy, rule).into_iter().any(|(name, _)| denied.contains(name))
    };
    let mut rules = policy.grants.iter().filter(gives);
    if let Some(user) = &raw.user
        && matches!(user.value, RawPrincipal::Id(_))
        && let Some(rule) = rules.clone().find(|rule| names(&rule.to, |fields| fields.users.as_ref(), is_name))
    {
        let message = format!("this user has no name here, and the grant at {} names users by name", rule.place);
        context.findings.wrong(user, message).hint("user = \"NAME\" and uid = NUMBER");
    }
    let by_group = rules.find(|rule| match &rule.to {
        Audience::Anyone => false,
        Audience::Matching(fields) => fields.groups.is_some() && users_match(fields, caller),
    });
    if let (Some(user), None, Some(rule)) = (&raw.user, &raw.groups, by_group) {
        let message =
            format!("it is not said in which groups this user is, and the grant at {} asks for one", rule.place);
        context.findings.wrong(user, message).hint("groups = [\"NAME\", NUMBER]   # or groups = []: in none");
    }
}

fn is_number(principal: &Principal) -> bool {
    matches!(principal, Principal::Id(_))
}

fn is_name(principal: &Principal) -> bool {
    matches!(principal, Principal::Name(_))
}

fn names(to: &Audience, of: impl Fn(&Match) -> Option<&Vec<Principal>>, kind: impl Fn(&Principal) -> bool) -> bool {
    match to {
        Audience::Anyone => false,
        Audience::Matching(fields) => of(fields).is_some_and(|principals| principals.iter().any(kind)),
    }
}

/// The names that a list means. A bundle's names are known to nobody here, so that each is to be written out.
fn secrets(
    what: &str,
    list: Option<&At<Vec<At<String>>>>,
    policy: &Policy,
    context: &mut Context<'_>,
) -> Vec<VariableName> {
    let Some(list) = list else { return Vec::new() };
    context.not_empty(what, list);
    let mut found = Vec::new();
    for at in &list.value {
        let Some(pattern) = context.pattern(at) else { continue };
        let known = policy.secrets.keys();
        let matched: Vec<_> = known.filter(|name| pattern.matches(name.as_str())).cloned().collect();
        match (matched.is_empty(), pattern.is_glob() || policy.bundles.is_empty()) {
            (false, _) => found.extend(matched),
            (true, false) => found.extend(context.noted(at, VariableName::new(at.as_str()))),
            (true, true) => {
                let known = policy.secrets.keys().map(VariableName::as_str);
                let message = format!("`{pattern}` matches no secret of this policy");
                context.findings.wrong(at, message).did_you_mean(pattern.as_str(), known);
            }
        }
    }
    found.sort();
    found.dedup();
    found
}
