//! The policies that the agent serves: those of a folder, each at the place where a search would find it.
//!
//! `<folder>/<environment>.toml` and `<folder>/<environment>/<service>.toml`, as below `/etc/vouchsafe/policies`. Each is
//! loaded and checked as a whole; one that is not accepted leaves the one that was loaded before. Where the host demands
//! signatures, one that is older than what was served before is not accepted either ([`crate::agent::marks`]).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use crate::agent::failure::Failure;
use crate::agent::marks::{Mark, Marks, Refusal, Subject};
use crate::error::{Cause, Class};
use crate::name::{EnvironmentName, ServiceName, show};
use crate::policy::file::{LoadOptions, is_base, load_trusted};
use crate::policy::locate::check_match;
use crate::policy::model::{HostFile, Policy};
use crate::policy::trust::Demand;

/// Which policy: an environment, and a service where it has one of its own.
pub type Slot = (EnvironmentName, Option<ServiceName>);

/// A policy that is served.
#[derive(Debug)]
pub struct Served {
    /// Another content is another number, in the life of a process.
    pub number: u64,
    /// Where it was found.
    pub slot: Slot,
    /// The policy.
    pub policy: Policy,
    retired: AtomicBool,
}

impl Served {
    /// A policy to be served at `slot`.
    #[must_use]
    pub fn new(slot: Slot, policy: Policy) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self { number, slot, policy, retired: AtomicBool::new(false) }
    }

    /// Another has taken its place, or none.
    pub(in crate::agent) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Whether another has taken its place.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }
}

/// All that are served.
#[derive(Debug, Default)]
pub struct Policies {
    served: BTreeMap<Slot, Arc<Served>>,
    /// Those that are there and are not, or not as they now stand.
    refused: Vec<Refused>,
    marks: Arc<Marks>,
}

/// A file that is not accepted as it now stands.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The file.
    pub path: PathBuf,
    /// Why not.
    pub failure: Failure,
    /// What was accepted in its place before, and is served on: a typo, or a signature that is not there yet, must not stop
    /// the starts of a host.
    pub kept: Option<Arc<Served>>,
}

impl Refused {
    /// What is not accepted, and what that means.
    #[must_use]
    pub fn reason(&self) -> String {
        let message = &self.failure.message;
        match &self.kept {
            Some(kept) => format!("{message}; the policy {} of before is served on", kept.policy.digest),
            None => format!("{message}; nothing is served in its place"),
        }
    }
}

/// What a reload has changed.
#[derive(Debug, Default)]
pub struct Changes {
    /// New, or with another content.
    pub loaded: Vec<Arc<Served>>,
    /// No longer served, or not with that content.
    pub retired: Vec<Arc<Served>>,
    /// Gone without another in their place.
    pub gone: Vec<Slot>,
    /// Not accepted.
    pub refused: Vec<Refused>,
    /// The file of marks, where there was none.
    pub marks_begun: Option<PathBuf>,
}

impl Policies {
    /// None yet; and none that is behind these marks ever.
    #[must_use]
    pub fn not_behind(marks: Arc<Marks>) -> Self {
        Self { marks, ..Self::default() }
    }

    /// The policy that `run` would find for this environment and service.
    #[must_use]
    pub fn find(&self, environment: &EnvironmentName, service: Option<&ServiceName>) -> Option<&Arc<Served>> {
        let own = service.and_then(|service| self.served.get(&(environment.clone(), Some(service.clone()))));
        let found = own.or_else(|| self.served.get(&(environment.clone(), None)))?;
        check_match(&found.policy, Some(environment), service).is_ok().then_some(found)
    }

    /// The numbers of all that speak for this environment, or any, and this service, or any: what a request that says so would
    /// be decided by.
    #[must_use]
    pub fn speaking_for(&self, environment: Option<&EnvironmentName>, service: Option<&ServiceName>) -> BTreeSet<u64> {
        let all = self.served.values().filter(|served| environment.is_none_or(|wanted| *wanted == served.slot.0));
        match service {
            None => all.map(|served| served.number).collect(),
            Some(service) => {
                all.filter_map(|served| self.find(&served.slot.0, Some(service))).map(|served| served.number).collect()
            }
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Served>> {
        self.served.values()
    }

    /// Those that are not accepted as they now stand.
    pub fn refused(&self) -> impl Iterator<Item = &Refused> {
        self.refused.iter()
    }

    /// Reads the folder again. What is the same stays; what is not accepted leaves what was there.
    ///
    /// # Errors
    /// The folder cannot be read: everything stays as it was.
    pub fn reload(&mut self, folder: &Path, host: &HostFile) -> Result<Changes, Failure> {
        let now = SystemTime::now();
        let files = files_of(folder, host, now).map_err(|error| unreadable(folder, &error))?;
        let mut changes = Changes::default();
        let mut served = BTreeMap::new();
        let found: Vec<_> =
            files.into_iter().map(|(slot, path)| (accept(&slot, &path, host, now), slot, path)).collect();
        let numbers = found.iter().map(|(policy, slot, _)| {
            policy.as_ref().map_or_else(|_| Vec::new(), |policy| marks_of(slot, policy, host))
        });
        let held = self.marks.admit(&numbers.collect::<Vec<_>>());
        for ((policy, slot, path), held) in found.into_iter().zip(held) {
            let before = self.served.remove(&slot);
            let admitted = policy.and_then(|policy| match held {
                Ok(()) => Ok(policy),
                Err(refusal) => Err(not_admitted(&policy, refusal)),
            });
            match admitted {
                Ok(policy) => match before {
                    Some(before) if before.policy.digest == policy.digest => {
                        served.insert(slot, before);
                    }
                    before => {
                        let new = Arc::new(Served::new(slot.clone(), policy));
                        changes.retired.extend(before);
                        changes.loaded.push(Arc::clone(&new));
                        served.insert(slot, new);
                    }
                },
                Err(failure) => {
                    changes.refused.push(Refused { path, failure, kept: before.clone() });
                    served.extend(before.map(|before| (slot, before)));
                }
            }
        }
        for (slot, gone) in std::mem::replace(&mut self.served, served) {
            changes.gone.push(slot);
            changes.retired.push(gone);
        }
        changes.retired.iter().for_each(|retired| retired.retire());
        self.refused.clone_from(&changes.refused);
        changes.marks_begun = self.marks.take_begun().map(Path::to_owned);
        Ok(changes)
    }
}

fn accept(slot: &Slot, path: &Path, host: &HostFile, now: SystemTime) -> Result<Policy, Failure> {
    // The agent's home is nobody's: `~/` means nothing.
    let options = LoadOptions { home: None, is_root: true };
    let (environment, service) = slot;
    let policy = load_trusted(path, &options, &demand(slot, host), now);
    let policy = policy.map_err(|error| Failure::of(&error.first_only()))?;
    check_match(&policy, Some(environment), service.as_ref()).map_err(|error| Failure::of(&error))?;
    match service {
        // Where a file lies is not signed: it could be another one, or an old one, of any service of the environment.
        Some(service) if policy.service.is_none() && demand(slot, host).is_for(environment) => {
            let path = show(path);
            Err(Failure {
                class: Class::Policy,
                message: format!(
                    "`{path}` does not say that it speaks for the service `{service}`, so its signature does not"
                ),
                hint: Some(format!("service = \"{service}\"   # in {path}, and sign it again")),
            })
        }
        _ => Ok(policy),
    }
}

/// The serials of the files of a policy, where each is signed because the host demands it. What it extends is called as its
/// signed files call it, so that it is the same one wherever they lie.
fn marks_of(slot: &Slot, policy: &Policy, host: &HostFile) -> Vec<Mark> {
    if !demand(slot, host).is_for(&policy.environment) {
        return Vec::new();
    }
    let (environment, service) = (&policy.environment, policy.service.as_ref());
    let folder = policy.files.first().and_then(|path| path.parent()).unwrap_or_else(|| Path::new(""));
    let subject = |(at, path): (usize, &PathBuf)| match at {
        0 => Subject::policy(environment, service),
        _ => Subject::base(environment, service, path.strip_prefix(folder).unwrap_or(path)),
    };
    policy.files.iter().enumerate().map(subject).zip(policy.serials.iter().copied()).collect()
}

fn not_admitted(policy: &Policy, refusal: Refusal) -> Failure {
    let (at, mark) = match refusal {
        Refusal::Behind { at, mark } => (at, mark),
        Refusal::State(failure) => return failure,
    };
    let path = policy.files.get(at).map(|path| show(path)).unwrap_or_default();
    let found = policy.serials.get(at).copied().unwrap_or_default();
    Failure {
        class: Class::Policy,
        message: format!("`{path}` has serial {found}, and this agent has served serial {mark}: it does not go back"),
        hint: Some(format!(
            "serial = {}   # in {path}, and sign it again, if it is not an old copy",
            mark.saturating_add(1)
        )),
    }
}

/// Where a file lies says which environment it is for, as an option says it to `run`.
fn demand<'h>(slot: &'h Slot, host: &'h HostFile) -> Demand<'h> {
    Demand { trust: host.trust.as_ref(), environment: Some(&slot.0) }
}

/// Every file that is a policy by its place. Others are somebody else's; a base is part of those that extend it.
fn files_of(folder: &Path, host: &HostFile, now: SystemTime) -> std::io::Result<Vec<(Slot, PathBuf)>> {
    let mut found = Vec::new();
    for (name, path) in entries(folder)? {
        if path.is_dir() {
            let Ok(environment) = EnvironmentName::new(name) else { continue };
            for (name, path) in entries(&path)? {
                let service = name.strip_suffix(".toml").and_then(|name| ServiceName::new(name).ok());
                found.extend(service.map(|service| ((environment.clone(), Some(service)), path)));
            }
        } else {
            let environment = name.strip_suffix(".toml").and_then(|name| EnvironmentName::new(name).ok());
            found.extend(environment.map(|environment| ((environment, None), path)));
        }
    }
    found.retain(|(slot, path)| !is_base(path, &demand(slot, host), now));
    found.sort();
    Ok(found)
}

fn entries(folder: &Path) -> std::io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        // What has a name that is not UTF-8 is no policy's.
        found.extend(entry.file_name().into_string().ok().map(|name| (name, entry.path())));
    }
    Ok(found)
}

fn unreadable(folder: &Path, error: &std::io::Error) -> Failure {
    let message =
        format!("the folder of policies `{}` cannot be read: {}", show(folder), crate::checked_file::plain_io(error));
    Failure { class: Class::Policy, message, hint: Some(format!("ls -l {}", show(folder))) }
}

/// There is nothing to serve.
#[derive(Debug)]
pub struct NoPolicy {
    /// The folder.
    pub folder: PathBuf,
    /// Why the first one that is there is not accepted.
    pub first: Option<Failure>,
}

impl std::fmt::Display for NoPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.first {
            Some(failure) => failure.fmt(f),
            None => write!(f, "there is no policy in `{}`", show(&self.folder)),
        }
    }
}

impl Cause for NoPolicy {
    fn class(&self) -> Class {
        self.first.as_ref().map_or(Class::Policy, |failure| failure.class)
    }

    fn hint(&self) -> Option<String> {
        match &self.first {
            Some(failure) => failure.hint.clone(),
            None => Some("a policy lies at ENVIRONMENT.toml or at ENVIRONMENT/SERVICE.toml in that folder".into()),
        }
    }
}

#[cfg(test)]
#[path = "policies_tests.rs"]
mod tests;
