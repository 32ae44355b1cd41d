//! `vouchsafe policy test`: does a policy give what the table beside it expects, and no more? Fetches nothing.

use std::fmt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;

use crate::error::{Cause, Class, Error};
use crate::inject::ParentEnv;
use crate::name::{escape, show};
use crate::output;
use crate::policy::expected::strangers;
use crate::policy::file::{self, LoadOptions, PolicyError};
use crate::setting::load_options;

/// What `vouchsafe policy test --json` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Verdicts {
    /// Whether every verdict is the expected one.
    ok: bool,
    /// Every policy that was asked for.
    policies: Vec<Tested>,
}

/// One policy against its table.
#[derive(Debug, Serialize, JsonSchema)]
struct Tested {
    /// The policy file.
    policy: String,
    /// The table.
    table: String,
    /// How many verdicts the table expects.
    expected: u64,
    /// Secrets of which the table expects no verdict at all.
    untested: Vec<String>,
    /// Users whom no grant names and no other row: strangers, or mistyped.
    strangers: Vec<String>,
    /// The verdicts that are not as expected.
    surprises: Vec<OneSurprise>,
}

/// A verdict that is not the expected one.
#[derive(Debug, Serialize, JsonSchema)]
struct OneSurprise {
    /// Where it is expected: `path:line`.
    place: String,
    /// What the table calls the caller.
    name: Option<String>,
    /// The secret.
    secret: String,
    /// Whether it is granted.
    is_granted: bool,
    /// The grants that give it, or that name it and are for others.
    because: Vec<String>,
}

/// Tests every policy, also after one has failed.
///
/// # Errors
/// A policy or table is absent or invalid; a verdict is not the expected one.
pub fn test(files: &[PathBuf], json: bool, parent: &ParentEnv) -> Result<(), Error> {
    let options = load_options(parent);
    let (mut policies, mut problems) = (Vec::new(), Vec::new());
    for path in files {
        match tested(path, &options) {
            Ok(tested) => policies.push(tested),
            Err(error) => problems.push(error),
        }
    }
    let count = policies.iter().map(|policy| policy.surprises.len()).sum();
    let verdicts = Verdicts { ok: count == 0 && problems.is_empty(), policies };
    if json {
        output::print_json(&verdicts)?;
    } else {
        output::print(&verdicts.policies.iter().map(Tested::to_text).collect::<String>())?;
    }
    match (PolicyError::join(problems), count) {
        (Some(error), _) => Err(error.into()),
        (None, 0) => Ok(()),
        (None, count) => Err(Surprised(count).into()),
    }
}

fn tested(path: &Path, options: &LoadOptions) -> Result<Tested, PolicyError> {
    let policy = file::load(path, options)?;
    let table = file::expectations_of(path);
    let expected = file::load_expectations(&table, &policy).map_err(|error| match error.is_absent() {
        true => {
            let message = format!("{}: there is no table of expected verdicts", show(&table));
            PolicyError::plain(message, Some("`policies/README.md` says what stands in it".into()))
        }
        false => error,
    })?;
    let is_tested = |name| expected.iter().any(|one| one.granted.contains(name) || one.denied.contains(name));
    let untested = policy.secrets.keys().filter(|name| !is_tested(name)).map(ToString::to_string).collect();
    let surprises = expected.iter().flat_map(|one| {
        one.surprises(&policy).into_iter().map(|surprise| OneSurprise {
            place: one.place.clone(),
            name: one.name.clone(),
            secret: surprise.secret.to_string(),
            is_granted: surprise.is_granted,
            because: surprise.because,
        })
    });
    Ok(Tested {
        policy: show(path),
        table: show(&table),
        expected: expected.iter().map(|one| one.count() as u64).sum(),
        untested,
        strangers: strangers(&policy, &expected).into_iter().map(escape).collect(),
        surprises: surprises.collect(),
    })
}

impl Tested {
    fn to_text(&self) -> String {
        let mut text: String = self.surprises.iter().map(OneSurprise::to_text).collect();
        let (policy, expected) = (&self.policy, output::count(self.expected, "verdict"));
        match self.surprises.len() as u64 {
            0 => text.push_str(&format!("{policy}: ok, {expected}\n")),
            count => text.push_str(&format!("{policy}: {count} of {expected} not as expected\n")),
        }
        if !self.untested.is_empty() {
            text.push_str(&format!("{policy}: note: no verdict is expected of {}\n", self.untested.join(", ")));
        }
        for user in &self.strangers {
            text.push_str(&format!(
                "{policy}: note: no grant names the user `{user}`, and no other row: is it mistyped?\n"
            ));
        }
        text
    }
}

impl OneSurprise {
    fn to_text(&self) -> String {
        let name = self.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
        let because = match (self.because.is_empty(), self.is_granted) {
            (true, _) => "by no grant that names it".to_owned(),
            (false, true) => format!("by {}", self.because.join(", ")),
            (false, false) => format!("not by {}", self.because.join("; not by ")),
        };
        let verdict = if self.is_granted { "is granted" } else { "is denied" };
        format!("{}{name}: `{}` {verdict}: {because}\n", self.place, self.secret)
    }
}

/// Verdicts that are not the expected ones: for a pipeline.
#[derive(Debug)]
struct Surprised(usize);

impl fmt::Display for Surprised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is = if self.0 == 1 { "is" } else { "are" };
        write!(f, "{} {is} not as expected", output::count(self.0 as u64, "verdict"))
    }
}

impl Cause for Surprised {
    fn class(&self) -> Class {
        Class::Differences
    }
}
