//! Where every command starts: the policy that was selected, the host file, and the environment that we were started with.

mod sealed_files;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::agent::client::{ClientError, DEFAULT_SOCKET};
use crate::audit::{Actor, Auditor, CommandNote, Context};
use crate::child::command::Command;
use crate::cli::{Selection, UsageError};
use crate::courier::ToParameters;
use crate::error::Error;
use crate::inject::{OwnMeans, ParentEnv};
use crate::name::{EnvironmentName, LABEL_RULE, StoreName, VariableName, show};
use crate::policy::eval::Caller;
use crate::policy::file::{HOST_FILE, LoadOptions, PolicyError, load, load_host, load_trusted};
use crate::policy::locate::{self, Wanted};
use crate::policy::model::{
    AgeStore, AgentUse, AwsAccess, CredentialSource, HostFile, IdentitySource, KmsStore, Policy, Sink, Source,
    SsmStore, Store as StoreModel,
};
use crate::policy::trust::Demand;
use crate::ssh_keygen::SshKeygen;
use crate::store::age::AgeFile;
use crate::store::aws::{Access, Notes};
use crate::store::document::Document;
use crate::store::kms::{self, KmsFile};
use crate::store::rekey::{OldKey, Rekey};
use crate::store::sealed_file::SealedFile;
use crate::store::sealed_stages::SealedStages;
use crate::store::ssm::Parameters;
use crate::store::stages::Stages;
use crate::store::{Store, StoreError, StoreErrorKind, Versions};

pub use sealed_files::sealed_files_of;

type Lookup<'e> = dyn Fn(&str) -> Option<OsString> + 'e;

/// A policy that was found, checked and may be used on this host.
pub struct Setting<'e> {
    /// The policy.
    pub policy: Policy,
    /// The host file, or its defaults where there is none.
    pub host: HostFile,
    /// What was done with AWS.
    pub aws: Notes,
    /// Looks a variable of our own environment up.
    variable: Box<Lookup<'e>>,
    /// Who signs the sealed files that are written, if anybody.
    signer: Option<SshKeygen>,
    parent: &'e ParentEnv,
}

impl<'e> Setting<'e> {
    /// Finds and loads the policy that `selection` and the environment select.
    ///
    /// # Errors
    /// There is none, or it is invalid or unsafe, or the host demands a signature.
    pub fn load(selection: &Selection, parent: &'e ParentEnv) -> Result<Self, Error> {
        let host = load_host_file()?;
        let wanted = wanted(selection, parent)?;
        let path = locate::locate(&wanted, locate::is_there)?;
        let demand = Demand { trust: host.trust.as_ref(), environment: wanted.environment.as_ref() };
        let policy = load_trusted(&path, &load_options(parent), &demand, SystemTime::now());
        let policy = policy.map_err(PolicyError::first_only)?;
        locate::check_match(&policy, wanted.environment.as_ref(), wanted.service.as_ref())?;
        Ok(Self::with(policy, host, parent))
    }

    /// Loads the policy of this path, of this environment if one is named: by `option`, as hints have it.
    ///
    /// # Errors
    /// Those of [`Self::load`].
    pub fn of_file(
        path: &Path,
        environment: Option<&EnvironmentName>,
        option: &str,
        parent: &'e ParentEnv,
    ) -> Result<Self, Error> {
        let host = load_host_file()?;
        let demand = Demand { trust: host.trust.as_ref(), environment };
        let policy = load_trusted(path, &load_options(parent), &demand, SystemTime::now());
        let policy = policy.map_err(|error| error.first_only().with_option(option))?;
        locate::check_match(&policy, environment, None)?;
        Ok(Self::with(policy, host, parent))
    }

    /// A policy that was loaded before, on the host of that host file: for a process that serves many. Whether the host may
    /// use it was decided when it was loaded.
    #[must_use]
    pub fn of_loaded(policy: Policy, host: HostFile, parent: &'e ParentEnv) -> Self {
        Self::with(policy, host, parent)
    }

    /// Loads the policy of this path though it may not be signed yet: for the one who signs it.
    ///
    /// # Errors
    /// There is none, or it is invalid or unsafe.
    pub fn to_be_signed(path: &Path, parent: &'e ParentEnv) -> Result<Self, Error> {
        let mut policy = load(path, &load_options(parent)).map_err(PolicyError::first_only)?;
        let host = load_host_file()?;
        if (Demand { trust: host.trust.as_ref(), environment: None }).is_for(&policy.environment) {
            policy.refuse_recipients_files();
        }
        Ok(Self::with(policy, host, parent))
    }

    fn with(policy: Policy, host: HostFile, parent: &'e ParentEnv) -> Self {
        let variable = Box::new(|name: &str| parent.get(name).map(OsString::from));
        Self { policy, host, aws: Notes::default(), variable, parent, signer: None }
    }

    /// Where the agent of this host listens, if there is one.
    #[must_use]
    pub fn agent_socket(&self) -> PathBuf {
        let named = (self.variable)("VOUCHSAFE_AGENT").filter(|text| !text.is_empty()).map(PathBuf::from);
        named.or_else(|| self.host.agent.socket.clone()).unwrap_or_else(|| DEFAULT_SOCKET.into())
    }

    /// The option that selects this policy, for hints.
    #[must_use]
    pub fn selection(&self) -> String {
        let path = self.policy.files.first().map(|path| show(path)).unwrap_or_default();
        format!("--policy {path}")
    }

    /// The sinks that count: the host's where it has some, else the policy's.
    #[must_use]
    pub fn sinks(&self) -> &[Sink] {
        if self.host.sinks.is_empty() { &self.policy.sinks } else { &self.host.sinks }
    }

    /// Opens the audit for `caller`.
    ///
    /// # Errors
    /// There is no sink, or one of them could not take a record.
    pub fn open_auditor(&self, caller: &Caller, command: Option<&Command>) -> Result<Auditor, Error> {
        // Whoever is to be started does not wait for AWS: a later command, the agent or a timer takes the checkpoint there.
        let courier = match command {
            Some(_) => None,
            None => ToParameters::of(self.sinks(), &self.host.network, || Arc::new(self.parent.clone())),
        };
        let command = command.map(|command| CommandNote {
            path: show(command.found()),
            argument_count: command.argv().len().saturating_sub(1),
        });
        let context = Context {
            actor: Actor::of_this_process(caller),
            environment: Some(self.policy.environment.clone()),
            service: self.policy.service.clone(),
            policy_digest: self.policy.digest.clone(),
            command,
        };
        Ok(Auditor::open(self.sinks(), context)?.with_courier(courier.as_ref()))
    }

    /// Opens a store for reading.
    ///
    /// # Errors
    /// This build has no such store.
    pub fn open_store(&self, name: &StoreName) -> Result<Box<dyn Store + '_>, Error> {
        match self.policy.stores.get_key_value(name) {
            Some((name, StoreModel::Age(store))) => Ok(Box::new(self.age_file(name, store))),
            Some((name, StoreModel::Kms(store))) => Ok(Box::new(self.kms_file(name, store))),
            Some((name, StoreModel::Ssm(store))) => Ok(Box::new(self.parameters(name, store))),
            None => Err(unsupported(name, "unknown")),
        }
    }

    /// Opens a store for writing and looking back.
    ///
    /// # Errors
    /// There is no such store.
    pub fn open_versions(&self, name: &StoreName) -> Result<Box<dyn Versions + '_>, Error> {
        match self.policy.stores.get_key_value(name) {
            Some((name, StoreModel::Age(store))) => Ok(Box::new(self.age_file(name, store))),
            Some((name, StoreModel::Kms(store))) => Ok(Box::new(self.kms_file(name, store))),
            Some((name, StoreModel::Ssm(store))) => Ok(Box::new(self.parameters(name, store))),
            None => Err(unsupported(name, "unknown")),
        }
    }

    /// Opens a store for rotating.
    ///
    /// # Errors
    /// There is no such store.
    pub fn open_stages(&self, name: &StoreName) -> Result<Box<dyn Stages + '_>, Error> {
        match self.policy.stores.get_key_value(name) {
            Some((name, StoreModel::Age(store))) => Ok(Box::new(SealedStages::new(self.age_file(name, store)))),
            Some((name, StoreModel::Kms(store))) => Ok(Box::new(SealedStages::new(self.kms_file(name, store)))),
            Some((name, StoreModel::Ssm(store))) => Ok(Box::new(self.parameters(name, store))),
            None => Err(unsupported(name, "unknown")),
        }
    }

    /// Until when a command that begins now has to be done with its stores.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.policy.run.deadline
    }

    fn kms_file<'s>(&'s self, name: &'s StoreName, store: &'s KmsStore) -> KmsFile<'s> {
        let access = self.access(&store.aws, kms::region_of(&store.key));
        let guard = self.guard(store.min_generation);
        KmsFile::new(name, store, &self.policy.environment, self.policy.service.as_ref(), access, guard)
    }

    fn parameters<'s>(&'s self, name: &'s StoreName, store: &'s SsmStore) -> Parameters<'s> {
        Parameters::new(name, store, self.access(&store.aws, None))
    }

    fn access<'s>(&'s self, policy: &'s AwsAccess, fallback_region: Option<&'s str>) -> Access<'s> {
        Access { policy, network: &self.host.network, env: &*self.variable, notes: &self.aws, fallback_region }
    }

    /// A store whose sealed file is to be encrypted anew, and opened with `old_key` too if need be.
    ///
    /// # Errors
    /// There is no such store, or it is in no file.
    pub fn open_rekey<'s>(
        &'s self,
        name: &StoreName,
        old_key: Option<&'s OldKey>,
    ) -> Result<Box<dyn Rekey + 's>, Error> {
        match self.policy.stores.get_key_value(name) {
            Some((name, StoreModel::Age(store))) => Ok(Box::new(self.age_file(name, store))),
            Some((name, StoreModel::Kms(store))) => {
                let file = self.kms_file(name, store);
                Ok(Box::new(match old_key {
                    Some(old) => file.with_old_key(&old.arn, self.access(&old.access, None)),
                    None => file,
                }))
            }
            Some((_, other)) => Err(unsupported(name, other.kind())),
            None => Err(unsupported(name, "unknown")),
        }
    }

    /// The age store of that name, for what only it can do.
    ///
    /// # Errors
    /// The store is of another type.
    pub fn open_age_file(&self, name: &StoreName) -> Result<AgeFile<'_>, Error> {
        match self.policy.stores.get_key_value(name) {
            Some((name, StoreModel::Age(store))) => Ok(self.age_file(name, store)),
            Some((_, other)) => Err(unsupported(name, other.kind())),
            None => Err(unsupported(name, "unknown")),
        }
    }

    /// The document in `bytes`, by whichever sealed store of the policy can open it.
    ///
    /// # Errors
    /// None of them can; the last failure is the one told.
    pub fn document_in(&self, path: &Path, bytes: &[u8]) -> Result<Document, Error> {
        let (mut failure, deadline) = (None, self.deadline());
        for (name, store) in &self.policy.stores {
            let opened = match store {
                StoreModel::Age(store) => self.age_file(name, store).document_in(bytes),
                StoreModel::Kms(store) => self.kms_file(name, store).document_in(bytes, deadline),
                StoreModel::Ssm(_) => continue,
            };
            match opened {
                Ok(document) => return Ok(document),
                Err(mut error) => {
                    // Not the store's own file, though the same keys open it.
                    if let StoreErrorKind::Sealed(sealed) = &mut error.kind {
                        path.clone_into(&mut sealed.path);
                    }
                    failure = Some(error);
                }
            }
        }
        Err(failure
            .map_or_else(|| UsageError::new("the policy has no store with a sealed file", None).into(), Error::from))
    }

    fn age_file<'s>(&'s self, name: &'s StoreName, store: &'s AgeStore) -> AgeFile<'s> {
        let (environment, service) = (&self.policy.environment, self.policy.service.as_ref());
        AgeFile::new(name, store, environment, service, &*self.variable, self.guard(store.min_generation))
    }

    /// What the wrapper uses for itself and the child must not get: every variable that a store of the policy may take an
    /// identity from, whether this run opens that store or not.
    #[must_use]
    pub fn own_means(&self) -> OwnMeans {
        OwnMeans { static_aws_keys: self.aws.used_static_keys(), ..identity_variables(&self.policy) }
    }

    /// Whether a run that asks for `names` would take static AWS keys from the environment, by what can be seen without
    /// asking anybody: some secret needs AWS, and neither a pin nor a profile comes before the keys.
    #[must_use]
    pub fn would_use_static_keys(&self, names: &BTreeSet<&VariableName>) -> bool {
        let stores = names.iter().flat_map(|name| self.stores_of(name, 8));
        let bundles = self.policy.bundles.iter().map(|bundle| &bundle.store);
        let takes_them = stores.chain(bundles).any(|store| {
            let access = match self.policy.stores.get(store) {
                Some(StoreModel::Kms(store)) => &store.aws,
                Some(StoreModel::Ssm(store)) => &store.aws,
                Some(StoreModel::Age(_)) | None => return false,
            };
            match access.credential_source {
                Some(pin) => pin == CredentialSource::Environment,
                None => access.profile.is_none(),
            }
        });
        takes_them && (self.variable)("AWS_ACCESS_KEY_ID").is_some_and(|id| !id.is_empty())
    }

    /// The stores that a name draws on, through templates. `depth` ends what the policy's own check has excluded.
    fn stores_of(&self, name: &VariableName, depth: u8) -> Vec<&StoreName> {
        match self.policy.secrets.get(name).map(|binding| &binding.source) {
            Some(Source::Item(item)) => vec![&item.store],
            Some(Source::Ciphertext { store, .. }) => vec![store],
            Some(Source::Template(template)) if depth > 0 => {
                template.references().flat_map(|part| self.stores_of(part, depth - 1)).collect()
            }
            Some(Source::Template(_)) | None => Vec::new(),
        }
    }
}

/// Every variable that a store of the policy may take an identity from.
#[must_use]
pub fn identity_variables(policy: &Policy) -> OwnMeans {
    let sources = policy.stores.values().flat_map(|store| match store {
        StoreModel::Age(store) => store.identities.as_slice(),
        StoreModel::Kms(store) => store.identities.as_slice(),
        StoreModel::Ssm(_) => &[],
    });
    let identities = sources.filter_map(|source| match source {
        IdentitySource::Env(name) => Some(name.clone()),
        IdentitySource::Credential(_) | IdentitySource::File(_) => None,
    });
    OwnMeans { identities: identities.collect(), static_aws_keys: false }
}

impl Setting<'_> {
    /// A policy that demands the agent is not gone by directly, whoever holds its means.
    ///
    /// # Errors
    /// The policy says `agent = "require"`.
    pub fn refuse_what_only_the_agent_gives(&self) -> Result<(), ClientError> {
        match self.policy.run.agent {
            AgentUse::Allow | AgentUse::Forbid => Ok(()),
            AgentUse::Require => Err(ClientError::DemandedByPolicy(self.policy.environment.clone())),
        }
    }
}

/// What was selected: by option, else by variable. An empty variable counts as absent.
pub(crate) fn wanted(selection: &Selection, parent: &ParentEnv) -> Result<Wanted, Error> {
    Ok(Wanted {
        policy: selection.policy.clone(),
        policy_variable: parent.get("VOUCHSAFE_POLICY").map(PathBuf::from),
        environment: match &selection.env {
            Some(environment) => Some(environment.clone()),
            None => name_in(parent, "VOUCHSAFE_ENV")?,
        },
        service: match &selection.service {
            Some(service) => Some(service.clone()),
            None => name_in(parent, "VOUCHSAFE_SERVICE")?,
        },
        is_root: is_root(),
    })
}

/// The content is not cited: a variable may hold anything.
fn name_in<N: FromStr>(parent: &ParentEnv, variable: &'static str) -> Result<Option<N>, Error> {
    let Some(text) = parent.get(variable).filter(|text| !text.is_empty()) else { return Ok(None) };
    let name = text.to_str().and_then(|text| text.parse().ok());
    name.map(Some).ok_or_else(|| {
        UsageError::new(format!("the content of {variable} is not a valid name (not shown)"), Some(LABEL_RULE.into()))
            .into()
    })
}

fn unsupported(name: &StoreName, kind: &'static str) -> Error {
    StoreError { store: name.clone(), kind: StoreErrorKind::Unsupported(kind) }.into()
}

/// There is no option for its place: what it says binds whoever runs the wrapper. No host file, no rules of the host; but
/// one that is there and cannot be read might have had some.
pub(crate) fn load_host_file() -> Result<HostFile, Error> {
    load_host_file_at(Path::new(HOST_FILE))
}

fn load_host_file_at(path: &Path) -> Result<HostFile, Error> {
    match load_host(path, true) {
        Ok(host) => Ok(host),
        Err(error) if error.is_absent() && !is_cut_off(path) => Ok(HostFile::default()),
        Err(error) => Err(error.into()),
    }
}

/// Whether the file, or a folder above it, is a link that leads nowhere: a volume that is not mounted yet, say. The file is
/// there then, and only its content is not.
fn is_cut_off(path: &Path) -> bool {
    path.ancestors().any(|at| at.symlink_metadata().is_ok() && at.metadata().is_err())
}

/// `~/` is a user's own convenience; for root it would mean that a policy's meaning depends on who set `HOME`.
pub(crate) fn load_options(parent: &ParentEnv) -> LoadOptions {
    LoadOptions { home: parent.get("HOME").map(PathBuf::from), is_root: is_root() }
}

/// Whether this process runs as root.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_host_file_is_absent_only_where_nothing_stands_for_it() {
        let folder = std::env::temp_dir().join(format!("vouchsafe-host-file-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let (file, link) = (folder.join("host.toml"), folder.join("link"));
        assert!(load_host_file_at(&file).is_ok(), "no host file");
        assert!(load_host_file_at(&folder.join("none/host.toml")).is_ok(), "no folder either");
        symlink("/nonexistent/host.toml", &file).unwrap();
        assert!(load_host_file_at(&file).is_err(), "a link that leads nowhere");
        symlink("/nonexistent", &link).unwrap();
        assert!(load_host_file_at(&link.join("host.toml")).is_err(), "a folder that leads nowhere");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
