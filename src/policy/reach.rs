//! What a user could be granted at all, whatever command it ran, and what a grant brings along: pure, for `audit report` and
//! `policy diff`.
//!
//! The question is another one than [`super::eval`]'s: no command is given, so a grant that wants one is named with the
//! commands that it wants. What no grant gives is not in it. No file, clock or environment is read here.

use std::collections::BTreeSet;

use super::eval::{Caller, groups_match, users_match};
use super::model::{Audience, GrantRule, Policy, Source};
use crate::name::VariableName;

/// A secret that a user could be granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// The variable.
    pub name: VariableName,
    /// The grants that could give it, as they stand in the policy.
    pub ways: Vec<Way>,
}

/// One grant that could give it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Where the grant stands: `path:line`.
    pub place: String,
    /// The commands that it is for; `None`: any.
    pub commands: Option<Vec<String>>,
    /// The digests that the program must have; `None`: any.
    pub sha256: Option<Vec<String>>,
    /// The template that brings it along; `None`: it is given itself.
    pub inside: Option<VariableName>,
}

/// What `caller` could be granted, sorted by name.
#[must_use]
pub fn reach(policy: &Policy, caller: &Caller) -> Vec<Reach> {
    let rules = policy.grants.iter().filter(|rule| could_match(rule, caller));
    let rules: Vec<_> = rules.map(|rule| (rule, given(policy, rule).into_iter().collect::<BTreeSet<_>>())).collect();
    let templates: Vec<&VariableName> =
        policy.secrets.keys().filter(|name| parts(policy, name).next().is_some()).collect();
    let mut out = Vec::new();
    for name in policy.secrets.keys() {
        let through = [None].into_iter().chain(templates.iter().map(|whole| Some(*whole)));
        let ways = through.flat_map(|inside| {
            let giving = rules.iter().filter(move |(_, given)| given.contains(&(name, inside)));
            giving.map(move |(rule, _)| way(rule, inside))
        });
        let ways: Vec<Way> = ways.collect();
        if !ways.is_empty() {
            out.push(Reach { name: name.clone(), ways });
        }
    }
    out
}

/// What one grant gives of the bindings: each by itself, and with each template its parts, for who may have a template may
/// have it made and sees its parts in it.
#[must_use]
pub fn given<'p>(policy: &'p Policy, rule: &GrantRule) -> Vec<(&'p VariableName, Option<&'p VariableName>)> {
    let named = |name: &&VariableName| rule.secrets.iter().any(|pattern| pattern.matches(name.as_str()));
    let names = policy.secrets.keys().filter(named);
    names.flat_map(|name| with_parts(policy, name)).collect()
}

/// A binding, and the parts of it with the template that they are inside of.
pub fn with_parts<'p>(
    policy: &'p Policy,
    name: &'p VariableName,
) -> impl Iterator<Item = (&'p VariableName, Option<&'p VariableName>)> {
    [(name, None)].into_iter().chain(parts(policy, name).map(move |part| (part, Some(name))))
}

fn parts<'p>(policy: &'p Policy, name: &VariableName) -> impl Iterator<Item = &'p VariableName> + use<'p> {
    let template = match policy.secrets.get(name).map(|binding| &binding.source) {
        Some(Source::Template(template)) => Some(template),
        Some(Source::Ciphertext { .. } | Source::Item(_)) | None => None,
    };
    template.into_iter().flat_map(|template| template.references())
}

/// What `caller` could be granted of the bundles, whose names only the store knows: patterns of names, and the grant.
#[must_use]
pub fn reach_of_bundles(policy: &Policy, caller: &Caller) -> Vec<(Vec<String>, Way)> {
    if policy.bundles.is_empty() {
        return Vec::new();
    }
    let rules = policy.grants.iter().filter(|rule| could_match(rule, caller));
    rules.map(|rule| (rule.secrets.iter().map(ToString::to_string).collect(), way(rule, None))).collect()
}

fn could_match(rule: &GrantRule, caller: &Caller) -> bool {
    match &rule.to {
        Audience::Anyone => true,
        Audience::Matching(fields) => users_match(fields, caller) && groups_match(fields, caller),
    }
}

fn way(rule: &GrantRule, inside: Option<&VariableName>) -> Way {
    let (commands, sha256) = match &rule.to {
        Audience::Anyone => (None, None),
        Audience::Matching(fields) => (fields.commands.as_ref(), fields.sha256.as_ref()),
    };
    Way {
        place: rule.place.clone(),
        commands: commands.map(|patterns| patterns.iter().map(ToString::to_string).collect()),
        sha256: sha256.cloned(),
        inside: inside.cloned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::policy::eval::{CommandFacts, Request, Verdict, evaluate};
    use crate::policy::file::{LoadOptions, parse_text};

    fn policy(grants: &str) -> Policy {
        let head = "version = 1\nenvironment = \"prod\"\n[stores.s]\ntype = \"ssm\"\nprefix = \"/p/\"\n[secrets]\nA = {}\nB = {}\n\
            C = { inject = false }\nT = { template = \"{C}\", inject = false }\n";
        parse_text(&format!("{head}{grants}"), Path::new("p.toml"), &LoadOptions::default()).unwrap()
    }

    fn grant(secrets: &str, to: &str) -> String {
        format!("[[grants]]\nsecrets = {secrets}\nto = {to}\n")
    }

    fn caller(uid: u32, user: &str, groups: &[(u32, &str)]) -> Caller {
        let groups = groups.iter().map(|(gid, name)| (*gid, Some((*name).to_owned()))).collect();
        Caller { uid, user: Some(user.into()), groups }
    }

    fn said(policy: &Policy, caller: &Caller) -> String {
        let way = |way: &Way| {
            let commands =
                way.commands.as_ref().map(|commands| format!(" for {}", commands.join(" "))).unwrap_or_default();
            let inside = way.inside.as_ref().map(|whole| format!(" inside {whole}")).unwrap_or_default();
            format!("{}{commands}{inside}", way.place)
        };
        let one = |one: Reach| format!("{}: {}", one.name, one.ways.iter().map(way).collect::<Vec<_>>().join(", "));
        reach(policy, caller).into_iter().map(one).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn grants_that_could_match_are_named_with_their_commands() {
        let policy = policy(
            &[
                grant("[\"A\"]", "{ users = [\"api\"], commands = [\"/usr/bin/api\"] }"),
                grant("[\"A\", \"B\"]", "{ groups = [\"staff\"] }"),
                grant("[\"T\"]", "{ users = [7] }"),
            ]
            .concat(),
        );
        let place = |line: u32| format!("p.toml:{line}");
        let (first, second, third) = (place(11), place(14), place(17));
        let api = caller(1000, "api", &[(1000, "api")]);
        assert_eq!(said(&policy, &api), format!("A: {first} for /usr/bin/api"));
        let staff = caller(1000, "api", &[(50, "staff")]);
        assert_eq!(said(&policy, &staff), format!("A: {first} for /usr/bin/api, {second}; B: {second}"));
        assert_eq!(said(&policy, &caller(7, "x", &[])), format!("C: {third} inside T; T: {third}"));
        assert_eq!(said(&policy, &caller(8, "x", &[])), "");
    }

    /// The decision and this page of it must not drift apart: what is granted to some command is reached, and what is
    /// reached is granted to a command that it names.
    #[test]
    fn what_is_reached_is_what_some_command_is_granted() {
        let audiences = [
            "\"anyone\"",
            "{ users = [\"api\"] }",
            "{ groups = [50] }",
            "{ users = [\"api\"], groups = [50] }",
            "{ commands = [\"/bin/x\"] }",
            "{ users = [7], commands = [\"/bin/x\"] }",
        ];
        let callers = [caller(1000, "api", &[]), caller(1000, "api", &[(50, "staff")]), caller(7, "x", &[])];
        let command = CommandFacts { found: "/bin/x".into(), canonical: "/bin/x".into(), sha256: None };
        for first in audiences {
            for second in audiences {
                let policy = policy(&(grant("[\"A\"]", first) + &grant("[\"B\", \"T\"]", second)));
                for caller in &callers {
                    let direct: Vec<String> = reach(&policy, caller)
                        .into_iter()
                        .filter(|one| one.ways.iter().any(|way| way.inside.is_none()))
                        .map(|one| one.name.to_string())
                        .collect();
                    let granted = |name: &&VariableName| {
                        let request = Request {
                            caller: caller.clone(),
                            command: Some(command.clone()),
                            only: Some(vec![(*name).clone()]),
                            claimed: false,
                        };
                        matches!(evaluate(&policy, &request), Verdict::Granted(_))
                    };
                    let expected: Vec<String> =
                        policy.secrets.keys().filter(granted).map(ToString::to_string).collect();
                    assert_eq!(direct, expected, "{first} {second} {caller:?}");
                }
            }
        }
    }
}
