//! Expected verdicts, and those that are not as expected. Pure: the very decision that `run` makes is asked, for each secret by
//! itself.

use super::eval::{Caller, CommandFacts, Request, Verdict, evaluate, mismatches};
use super::model::{Audience, Policy, Principal};
use super::reach::with_parts;
use crate::name::VariableName;

/// What one caller is to get and not to get.
#[derive(Debug, Clone)]
pub struct Expectation {
    /// What the report calls it.
    pub name: Option<String>,
    /// Where it stands: `path:line`.
    pub place: String,
    /// Who asks.
    pub caller: Caller,
    /// For what program.
    pub command: Option<CommandFacts>,
    /// Through the agent.
    pub claimed: bool,
    /// Secrets that he is to get, sorted.
    pub granted: Vec<VariableName>,
    /// Secrets that he is not to get, sorted.
    pub denied: Vec<VariableName>,
}

/// A verdict that is not the expected one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surprise {
    /// The secret.
    pub secret: VariableName,
    /// Whether it is granted; the opposite was expected.
    pub is_granted: bool,
    /// The grants that give it; or that name it and are for others, with the fields that do not match.
    pub because: Vec<String>,
}

impl Expectation {
    /// How many verdicts it expects.
    #[must_use]
    pub fn count(&self) -> usize {
        self.granted.len() + self.denied.len()
    }

    /// The verdicts that are not as expected.
    #[must_use]
    pub fn surprises(&self, policy: &Policy) -> Vec<Surprise> {
        let expected = self.granted.iter().map(|name| (name, true)).chain(self.denied.iter().map(|name| (name, false)));
        let surprises = expected.filter_map(|(name, is_expected)| {
            let request = Request {
                caller: self.caller.clone(),
                command: self.command.clone(),
                only: Some(vec![name.clone()]),
                claimed: self.claimed,
            };
            let is_given = match evaluate(policy, &request) {
                Verdict::Granted(grant) => policy.secrets.contains_key(name) || grant.covers_from_bundle(name),
                Verdict::Denied(_) => false,
            };
            let inside = self.granted_templates_with(policy, name);
            let is_granted = is_given || !inside.is_empty();
            let mut because = because(policy, &request, name, is_given);
            because.extend(inside.into_iter().map(|whole| format!("`{whole}`, whose part it is and which is granted")));
            (is_granted != is_expected).then(|| Surprise { secret: name.clone(), is_granted, because })
        });
        surprises.collect()
    }
}

impl Expectation {
    /// The templates that are granted and have `name` in them: who gets one sees its parts.
    fn granted_templates_with<'p>(&self, policy: &'p Policy, name: &VariableName) -> Vec<&'p VariableName> {
        let holds =
            |whole: &&VariableName| with_parts(policy, whole).any(|(part, inside)| inside.is_some() && part == name);
        let is_granted = |whole: &&VariableName| {
            let only = Some(vec![(*whole).clone()]);
            let (caller, command) = (self.caller.clone(), self.command.clone());
            let request = Request { caller, command, only, claimed: self.claimed };
            matches!(evaluate(policy, &request), Verdict::Granted(_))
        };
        policy.secrets.keys().filter(holds).filter(is_granted).collect()
    }
}

/// Users of whom nothing can be granted by their name: no grant has it, and no other row. Such a row may be meant, for a
/// stranger; or the name is mistyped, and its denials prove nothing.
#[must_use]
pub fn strangers<'e>(policy: &Policy, expected: &'e [Expectation]) -> Vec<&'e str> {
    let in_grants = |user: &str| {
        policy.grants.iter().any(|rule| match &rule.to {
            Audience::Anyone => false,
            Audience::Matching(fields) => fields.users.iter().flatten().any(|one| *one == Principal::Name(user.into())),
        })
    };
    let users = |one: &'e Expectation| one.caller.user.as_deref();
    let is_alone = |user: &&str| expected.iter().filter(|one| users(one) == Some(*user)).count() == 1;
    expected.iter().filter_map(users).filter(|user| !in_grants(user)).filter(is_alone).collect()
}

/// The grants that speak of a secret, as far as they explain the verdict.
fn because(policy: &Policy, request: &Request, name: &VariableName, is_granted: bool) -> Vec<String> {
    let naming = policy.grants.iter().filter(|rule| rule.secrets.iter().any(|pattern| pattern.matches(name.as_str())));
    let reasons = naming.filter_map(|rule| {
        let fields = mismatches(rule, request);
        match (fields.is_empty(), is_granted) {
            (true, true) => Some(rule.place.clone()),
            (false, false) => Some(format!("{} (does not match: {})", rule.place, fields.join(", "))),
            (true, false) | (false, true) => None,
        }
    });
    reasons.collect()
}
