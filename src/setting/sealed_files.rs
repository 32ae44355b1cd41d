//! The sealed files of a policy, as far as they are signed: what this host demands of them, and who signs what is written.

use std::path::{Path, PathBuf};

use super::Setting;
use crate::checked_file::{self, Use};
use crate::cli::Signing;
use crate::inject::ParentEnv;
use crate::name::{StoreName, show};
use crate::output;
use crate::policy::model::{Policy, Store};
use crate::policy::sealed_trust::SealedDemand;
use crate::policy::trust::signature_of;
use crate::ssh_keygen::SshKeygen;
use crate::store::sealed::{SealedError, SealedErrorKind};
use crate::store::vouched::{Guard, Sign, is_signature_outdated};

impl Setting<'_> {
    /// Signs what is written to sealed files with the key that was named: by option, else by variable.
    #[must_use]
    pub fn signing(self, options: &Signing, parent: &ParentEnv) -> Self {
        let variable = || parent.get("VOUCHSAFE_SIGN_KEY").filter(|text| !text.is_empty()).map(PathBuf::from);
        let key = options.sign_key.clone().or_else(variable);
        Self { signer: key.map(|key| SshKeygen::new(&key, parent)), ..self }
    }

    /// Says of each sealed file that was written without its signature, where nothing is demanded of it here: other hosts may
    /// demand one.
    pub fn note_outdated_signatures(&self) {
        let outdated = sealed_files_of(&self.policy).filter(|(_, path)| is_signature_outdated(path));
        for (_, path) in outdated {
            let policy = self.policy.files.first().map(|path| show(path)).unwrap_or_default();
            let path = show(&signature_of(path));
            let hint = format!("vouchsafe policy sign {policy} --key KEY --sealed-files");
            output::complain(&format!("vouchsafe: note: `{path}` is not of the file as it is now: {hint}\n"))
                .unwrap_or_default();
        }
    }

    /// Whether the file at `path` is safe, and answered for where the host demands it. It is not opened.
    ///
    /// # Errors
    /// It is not.
    pub fn look_at_file(&self, path: &Path) -> Result<(), SealedError> {
        let guard = self.guard(0);
        let looked = match guard.demand {
            Some(_) => guard.read(path).map(drop),
            None => checked_file::open(path, Use::Public).map(drop).map_err(SealedErrorKind::File),
        };
        looked.map_err(|kind| kind.at(path))
    }

    /// What a sealed file of this policy must have to be used here.
    pub(super) fn guard(&self, min_generation: u64) -> Guard<'_> {
        Guard {
            demand: SealedDemand::of(self.host.trust.as_ref(), &self.policy.environment),
            min_generation,
            signer: self.signer.as_ref().map(|signer| signer as &dyn Sign),
        }
    }
}

/// Every file that is a store of the policy, with the name of the store.
pub fn sealed_files_of(policy: &Policy) -> impl Iterator<Item = (&StoreName, &Path)> {
    policy.stores.iter().filter_map(|(name, store)| match store {
        Store::Age(store) => Some((name, store.path.as_path())),
        Store::Kms(store) => Some((name, store.path.as_deref()?)),
        Store::Ssm(_) => None,
    })
}
