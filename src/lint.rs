//! `vouchsafe policy`: policies themselves, without looking at stores.

use std::fmt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;

use crate::error::{Cause, Class, Error};
use crate::inject::ParentEnv;
use crate::name::show;
use crate::policy::diff::diff as policy_diff;
use crate::policy::file::{self, PolicyError};
use crate::policy::model::{Policy, parameters_of};
use crate::policy::schema::COMMITTED;
use crate::setting::load_options;
use crate::store::identity;
use crate::{cli, output, sign, verdicts};

/// `vouchsafe policy`.
///
/// # Errors
/// A policy is invalid.
pub fn policy(command: &cli::Policy, parent: &ParentEnv) -> Result<(), Error> {
    match command {
        cli::Policy::Lint { files } => lint(files, parent),
        cli::Policy::Diff { old, new, json } => diff(old, new, *json, parent),
        cli::Policy::Test { files, json } => verdicts::test(files, *json, parent),
        cli::Policy::Sign { file, key, sealed_files } => sign::sign(file, key, *sealed_files, parent),
        cli::Policy::Verify { file, host, env } => sign::verify(file, host.as_deref(), env.as_ref(), parent),
        cli::Policy::Schema => output::print(COMMITTED),
    }
}

/// What `policy diff --json` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Differences {
    /// Gains first, then losses, then what is only done otherwise.
    pub differences: Vec<OneDifference>,
}

/// One of them.
#[derive(Debug, Serialize, JsonSchema)]
pub struct OneDifference {
    /// `gain`, `loss` or `change`.
    pub kind: &'static str,
    /// In words.
    pub text: String,
}

fn diff(old: &Path, new: &Path, json: bool, parent: &ParentEnv) -> Result<(), Error> {
    let options = load_options(parent);
    let held = |path: &Path| {
        let recipients = identity::recipients_in(path).ok()?;
        Some(recipients.into_iter().map(|recipient| recipient.text).collect())
    };
    let found = policy_diff(&file::load_to_compare(old, &options)?, &file::load_to_compare(new, &options)?, &held);
    let count = found.len();
    if json {
        let differences = found.into_iter().map(|one| OneDifference { kind: one.sign.word(), text: one.text });
        output::print_json(&Differences { differences: differences.collect() })?;
    } else {
        for one in found {
            output::print(&format!("{} {}\n", one.sign.mark(), one.text))?;
        }
    }
    if count == 0 { Ok(()) } else { Err(Different(count).into()) }
}

/// The policies differ: for a pipeline that asks somebody then.
#[derive(Debug)]
struct Different(usize);

impl fmt::Display for Different {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the policies differ in {}", output::count(self.0 as u64, "point"))
    }
}

impl Cause for Different {
    fn class(&self) -> Class {
        Class::Differences
    }
}

/// What is valid and likely not what was meant. A policy with notes is still good.
fn oddities(policy: &Policy) -> Vec<String> {
    let mut notes = Vec::new();
    for (name, binding) in &policy.secrets {
        let Some(rotation) = &binding.rotate else { continue };
        if let (Some(every), Some(max_age)) = (rotation.every, binding.max_age)
            && every > max_age
        {
            notes.push(format!("`{name}` is too old by `max_age` before it is due by `rotate.every`"));
        }
        if let (Some(every), Some(retire_after)) = (rotation.every, rotation.retire_after)
            && retire_after > every
            && !rotation.is_retired_later
        {
            notes
                .push(format!("the next rotation of `{name}` comes before `rotate.retire_after` is over, and ends it"));
        }
        if rotation.is_retired_later {
            notes.push(format!(
                "an agent may serve the previous value of `{name}` for `cache.ttl` and `cache.max_stale`: it is retired no \
                 sooner, whatever `rotate.retire_after` says; `[run] agent = \"forbid\"` if there is none"
            ));
        }
    }
    for parameter in parameters_of(&policy.sinks) {
        notes.push(format!(
            "no `run` takes checkpoints to `ssm:{}`: a timer has to (vouchsafe audit checkpoint --send), or whatever other command \
             is used there",
            parameter.name
        ));
    }
    notes
}

/// All problems of all files, not only the first.
fn lint(files: &[PathBuf], parent: &ParentEnv) -> Result<(), Error> {
    let options = load_options(parent);
    let mut problems = Vec::new();
    for path in files {
        match file::load(path, &options) {
            Ok(policy) => {
                output::print(&format!(
                    "{}: ok, {}, {}\n",
                    show(path),
                    output::count(policy.secrets.len() as u64, "secret"),
                    output::count(policy.grants.len() as u64, "grant")
                ))?;
                for note in oddities(&policy) {
                    output::print(&format!("{}: note: {note}\n", show(path)))?;
                }
            }
            Err(error) => problems.push(error),
        }
    }
    match PolicyError::join(problems) {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}
