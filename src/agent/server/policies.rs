//! The policies that the agent serves: those of a folder, each at the place where a search would find it.
//!
//! `<folder>/<environment>.toml` and `<folder>/<environment>/<service>.toml`, as below `/etc/vouchsafe/policies`. Each is
//! loaded and checked as a whole; one that is not accepted leaves the one that was loaded before.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use crate::agent::failure::Failure;
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
}

impl Policies {
    /// The policy that `run` would find for this environment and service.
    #[must_use]
    pub fn find(&self, environment: &EnvironmentName, service: Option<&ServiceName>) -> Option<&Arc<Served>> {
        let own = service.and_then(|service| self.served.get(&(environment.clone(), Some(service.clone()))));
        let found = own.or_else(|| self.served.get(&(environment.clone(), None)))?;
        check_match(&found.policy, Some(environment), service).is_ok().then_some(found)
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
        for (slot, path) in files {
            let before = self.served.remove(&slot);
            match accept(&slot, &path, host, now) {
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
    Ok(policy)
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
mod tests {
    use std::io::Write;
    use std::os::unix::fs::DirBuilderExt;

    use super::*;
    use crate::policy::model::Trust;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("vouchsafe-policies-{name}-{}", std::process::id()));
            std::fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
            Self(path)
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.0.join(name);
            std::fs::DirBuilder::new().mode(0o700).recursive(true).create(path.parent().unwrap()).unwrap();
            std::fs::File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn of(environment: &str, service: Option<&str>) -> Slot {
        (EnvironmentName::new(environment).unwrap(), service.map(|name| ServiceName::new(name).unwrap()))
    }

    fn found(policies: &Policies, environment: &str, service: Option<&str>) -> Option<Slot> {
        let (environment, service) = of(environment, service);
        policies.find(&environment, service.as_ref()).map(|served| served.slot.clone())
    }

    #[test]
    fn policies_are_found_where_a_search_would_find_them() {
        let folder = Folder::new("places");
        folder.write(
            "prod/api.toml",
            "version = 1\nenvironment = \"prod\"\nservice = \"api\"\nextends = \"../base.toml\"\n",
        );
        folder.write("prod.toml", "version = 1\nenvironment = \"prod\"\n");
        folder.write("dev.toml", "version = 1\nenvironment = \"dev\"\nservice = \"web\"\n");
        folder.write("base.toml", "version = 1\nenvironment = \"*\"\n");
        folder.write("README.md", "not a policy");
        folder.write("test.toml", "version = 1\nenvironment = \"prod\"\n");
        let mut policies = Policies::default();
        let changes = policies.reload(&folder.0, &HostFile::default()).unwrap();
        assert_eq!(changes.loaded.len(), 3);
        assert_eq!(changes.refused.len(), 1);
        assert!(changes.refused[0].failure.message.ends_with("speaks for the environment `prod`, not for `test`"));
        assert_eq!(found(&policies, "prod", Some("api")), Some(of("prod", Some("api"))));
        assert_eq!(found(&policies, "prod", Some("other")), Some(of("prod", None)));
        assert_eq!(found(&policies, "prod", None), Some(of("prod", None)));
        assert_eq!(found(&policies, "dev", Some("web")), Some(of("dev", None)));
        assert_eq!(found(&policies, "dev", Some("api")), None);
        assert_eq!(found(&policies, "test", None), None);
        assert_eq!(found(&policies, "base", None), None);
    }

    #[test]
    fn what_the_host_demands_a_signature_for_is_not_even_parsed_without_one() {
        let folder = Folder::new("trust");
        folder.write("prod.toml", "not = [a policy");
        folder.write("dev.toml", "version = 1\nenvironment = \"dev\"\n");
        folder.write("test.toml", "version = 1\nenvironment = \"prod\"\n");
        folder.write("base.toml", "version = 1\nenvironment = \"*\"\n");
        let trusting = |environments: &[&str]| HostFile {
            trust: Some(Trust {
                environments: environments.iter().map(|name| EnvironmentName::new(*name).unwrap()).collect(),
                ..Trust::default()
            }),
            ..HostFile::default()
        };
        let mut policies = Policies::default();
        let changes = policies.reload(&folder.0, &trusting(&["prod"])).unwrap();
        assert_eq!(changes.loaded.iter().map(|served| served.slot.clone()).collect::<Vec<_>>(), [of("dev", None)]);
        let refused: Vec<&str> = changes.refused.iter().map(|refused| refused.failure.message.as_str()).collect();
        assert_eq!(refused.len(), 2);
        assert!(refused.iter().all(|message| message.ends_with("is not signed, which this host demands for `prod`")));
        // An empty list demands everything: not even whether a file is a base is looked for in one that nobody signed.
        let changes = Policies::default().reload(&folder.0, &trusting(&[])).unwrap();
        assert!(changes.loaded.is_empty());
        assert_eq!(changes.refused.len(), 4);
        assert!(
            changes
                .refused
                .iter()
                .all(|refused| refused.failure.message.contains("is not signed") && refused.kept.is_none())
        );
    }

    #[test]
    fn a_reload_changes_only_what_changed_and_keeps_what_was_good() {
        let folder = Folder::new("reload");
        for name in ["a", "b", "c"] {
            folder.write(&format!("{name}.toml"), &format!("version = 1\nenvironment = \"{name}\"\n"));
        }
        let mut policies = Policies::default();
        let first = policies.reload(&folder.0, &HostFile::default()).unwrap();
        let again = policies.reload(&folder.0, &HostFile::default()).unwrap();
        assert!(again.loaded.is_empty() && again.retired.is_empty() && again.refused.is_empty());
        folder.write("a.toml", "version = 1\nenvironment = \"a\"\n[cache]\nttl = \"1s\"\n");
        folder.write("b.toml", "version = 1\nenvironment = \"b\"\nnonsense = 1\n");
        std::fs::remove_file(folder.0.join("c.toml")).unwrap();
        let changes = policies.reload(&folder.0, &HostFile::default()).unwrap();
        let numbers = |list: &[Arc<Served>]| list.iter().map(|served| served.slot.0.to_string()).collect::<Vec<_>>();
        assert_eq!(numbers(&changes.loaded), ["a"]);
        assert_eq!(numbers(&changes.retired), ["a", "c"]);
        assert_eq!(changes.gone, [of("c", None)]);
        assert_eq!(changes.refused.len(), 1);
        let refused: Vec<_> = policies.refused().collect();
        assert_eq!(refused.len(), 1);
        let kept = refused[0].kept.as_ref().unwrap();
        assert_eq!(kept.slot, of("b", None));
        assert!(refused[0].reason().ends_with(&format!("; the policy {} of before is served on", kept.policy.digest)));
        let old = |name: &str| first.loaded.iter().find(|served| served.slot == of(name, None)).unwrap();
        assert!(old("a").is_retired() && old("c").is_retired() && !old("b").is_retired());
        assert_eq!(found(&policies, "b", None), Some(of("b", None)));
        assert_eq!(found(&policies, "c", None), None);
        std::fs::remove_dir_all(&folder.0).unwrap();
        assert!(policies.reload(&folder.0, &HostFile::default()).is_err());
        assert_eq!(found(&policies, "b", None), Some(of("b", None)), "everything stays as it was");
        std::fs::create_dir(&folder.0).unwrap();
    }
}
