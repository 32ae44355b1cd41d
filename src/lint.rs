//! `vouchsafe policy`: policies themselves, without looking at stores.

use std::path::PathBuf;

use crate::error::Error;
use crate::inject::ParentEnv;
use crate::name::show;
use crate::policy::file::{self, PolicyError};
use crate::policy::schema::schema;
use crate::setting::load_options;
use crate::{cli, output};

/// `vouchsafe policy`.
///
/// # Errors
/// A policy is invalid.
pub fn policy(command: &cli::Policy, parent: &ParentEnv) -> Result<(), Error> {
    match command {
        cli::Policy::Lint { files } => lint(files, parent),
        cli::Policy::Schema => {
            let schema = serde_json::to_string_pretty(&schema()).unwrap_or_default();
            output::print(&(schema + "\n"))
        }
    }
}

/// All problems of all files, not only the first.
fn lint(files: &[PathBuf], parent: &ParentEnv) -> Result<(), Error> {
    let options = load_options(parent);
    let mut problems = Vec::new();
    for path in files {
        match file::load(path, &options) {
            Ok(policy) => output::print(&format!(
                "{}: ok, {}, {}\n",
                show(path),
                output::count(policy.secrets.len() as u64, "secret"),
                output::count(policy.grants.len() as u64, "grant")
            ))?,
            Err(error) => problems.push(error),
        }
    }
    match PolicyError::join(problems) {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}
