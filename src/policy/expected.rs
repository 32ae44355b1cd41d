//! Expected verdicts, and those that are not as expected. Pure: the very decision that `run` makes is asked, for each secret by
//! itself.

use super::eval::{Caller, CommandFacts, Request, Verdict, evaluate, mismatches};
use super::model::Policy;
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
            let is_granted = match evaluate(policy, &request) {
                Verdict::Granted(grant) => policy.secrets.contains_key(name) || grant.covers_from_bundle(name),
                Verdict::Denied(_) => false,
            };
            let because = because(policy, &request, name, is_granted);
            (is_granted != is_expected).then(|| Surprise { secret: name.clone(), is_granted, because })
        });
        surprises.collect()
    }
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
