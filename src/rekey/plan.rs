//! Which files are encrypted anew, to whom, and what of the policy that does not reach. Whatever can be refused without
//! opening a file is refused here, before the first one is written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use super::report::NotCovered;
use crate::checked_file::{self, Use};
use crate::cli::{self, UsageError};
use crate::error::{Cause, Class, Error, suggest};
use crate::name::{StoreName, escape, show};
use crate::policy::model::{DocumentFormat, KmsStore, Policy, Source, Store};
use crate::store::identity::{self, MAX_RECIPIENTS, RecipientError};
use crate::store::rekey::OldKey;

/// What is going to be done.
pub(super) struct Plan<'p> {
    pub(super) files: Vec<File<'p>>,
    pub(super) removal: Option<Removal>,
    pub(super) not_covered: Vec<NotCovered>,
}

/// One sealed file.
pub(super) struct File<'p> {
    pub(super) store: &'p StoreName,
    pub(super) path: &'p Path,
    pub(super) old_key: Option<OldKey>,
    /// Who can open it afterwards: age recipients and the ARN of a KMS key.
    pub(super) named: BTreeSet<String>,
    /// What else has to be the same for two stores to write the same file.
    context: BTreeMap<String, String>,
}

/// Who is taken out.
pub(super) struct Removal {
    pub(super) recipient: String,
    pub(super) is_compromised: bool,
}

impl<'p> Plan<'p> {
    pub(super) fn of(policy: &'p Policy, options: &cli::Rekey) -> Result<Self, Error> {
        let old_key = options.old_key.as_deref().map(parse_key).transpose()?;
        let removal = match &options.remove {
            Some(text) => Some(Removal { recipient: parse_removed(text)?, is_compromised: options.compromised }),
            None => None,
        };
        let mut plan = Self { files: Vec::new(), removal, not_covered: Vec::new() };
        for (name, store) in chosen(policy, &options.stores)? {
            match store {
                Store::Age(age) if age.format == DocumentFormat::Sealed => {
                    let recipients = identity::recipients(age).map_err(|error| Refusal::recipient(name, error))?;
                    let named = recipients.into_iter().map(|one| one.text).collect();
                    let context = BTreeMap::new();
                    plan.add(File { store: name, path: &age.path, old_key: None, named, context })?;
                }
                Store::Age(age) => plan.not_covered.push(NotCovered::by_hand(name, &age.path, plan.removal.is_some())),
                Store::Kms(kms) => plan.add_kms(policy, name, kms, old_key.as_deref())?,
                Store::Ssm(_) => plan.not_covered.push(NotCovered::ssm(policy, name)),
            }
        }
        if plan.files.is_empty() {
            return Err(UsageError::new("no sealed file is selected: nothing could be encrypted anew", None).into());
        }
        if old_key.is_some() && plan.files.iter().all(|file| file.old_key.is_none()) {
            return Err(UsageError::new("--old-key is for stores of type `kms`, and none is selected", None).into());
        }
        plan.refuse_named(policy)?;
        Ok(plan)
    }

    fn add_kms(
        &mut self,
        policy: &Policy,
        name: &'p StoreName,
        kms: &'p KmsStore,
        old_key: Option<&str>,
    ) -> Result<(), Error> {
        self.not_covered.extend(NotCovered::inline(policy, name));
        let Some(path) = &kms.path else { return Ok(()) };
        let offline =
            identity::validate_recipients(&kms.recipients).map_err(|error| Refusal::recipient(name, error))?;
        let named = offline.into_iter().map(|one| one.text).chain([kms.key.clone()]).collect();
        let old_key = old_key.map(|arn| OldKey::new(arn, kms));
        self.add(File { store: name, path, old_key, named, context: kms.context.clone() })
    }

    /// Of several stores in one file only the first is written, and only if they agree: else the last one would win.
    fn add(&mut self, file: File<'p>) -> Result<(), Error> {
        let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        match self.files.iter().find(|other| real(other.path) == real(file.path)) {
            None => self.files.push(file),
            Some(other) if (&other.named, &other.context) == (&file.named, &file.context) => {}
            Some(other) => {
                let stores = [other.store.clone(), file.store.clone()];
                return Err(Refusal::OneFile { stores, path: file.path.to_owned() }.into());
            }
        }
        Ok(())
    }

    /// Who is still named would be a recipient again with this very write.
    fn refuse_named(&self, policy: &Policy) -> Result<(), Error> {
        let Some(Removal { recipient, .. }) = &self.removal else { return Ok(()) };
        let Some(file) = self.files.iter().find(|file| file.named.contains(recipient)) else { return Ok(()) };
        let of_store = match policy.stores.get(file.store) {
            Some(Store::Age(store)) => store.recipients_file.as_ref(),
            _ => None,
        };
        let place = policy.files.iter().chain(of_store).find_map(|path| line_with(path, recipient));
        Err(Refusal::StillNamed { store: file.store.clone(), recipient: recipient.clone(), place }.into())
    }
}

/// The stores by name, or all of them.
fn chosen<'p>(policy: &'p Policy, names: &[StoreName]) -> Result<Vec<(&'p StoreName, &'p Store)>, Error> {
    for name in names {
        let Some(store) = policy.stores.get(name) else {
            let known = policy.stores.keys().map(StoreName::as_str);
            let hint = suggest(name.as_str(), known).map(|near| format!("did you mean `{near}`?"));
            return Err(UsageError::new(format!("the policy has no store `{name}`"), hint).into());
        };
        let has_file = match store {
            Store::Age(store) => store.format == DocumentFormat::Sealed,
            Store::Kms(store) => store.path.is_some(),
            Store::Ssm(_) => false,
        };
        if !has_file {
            return Err(UsageError::new(format!("store `{name}` has no sealed file"), None).into());
        }
    }
    Ok(policy.stores.iter().filter(|(name, _)| names.is_empty() || names.contains(name)).collect())
}

/// The first line of a policy, or of a file of recipients, that holds `text`; as in `policy.toml:12`. Both are public.
fn line_with(path: &Path, text: &str) -> Option<String> {
    let bytes = checked_file::read(path, Use::Public, MAX_RECIPIENTS).ok()?;
    let content = String::from_utf8_lossy(&bytes);
    let is_it = |line: &str| line.contains(text) && !line.trim_start().starts_with('#');
    let number = 1 + content.lines().position(is_it)?;
    Some(format!("{}:{number}", show(path)))
}

/// What was typed is not cited: it may be the private key.
fn parse_removed(text: &str) -> Result<String, Error> {
    let text = text.trim();
    if text.starts_with("arn:") {
        return parse_key(text);
    }
    let parsed = identity::parse_recipient(text).map(|recipient| recipient.text);
    parsed.map_err(|why| UsageError::new(format!("what --remove names is {why}"), None).into())
}

/// `arn:PARTITION:kms:REGION:ACCOUNT:key/ID`, as the policy's own check has it.
fn parse_key(text: &str) -> Result<String, Error> {
    if crate::policy::model::is_key_arn(text) {
        Ok(text.to_owned())
    } else {
        let hint = "the ARN of a key, not of an alias: arn:aws:kms:REGION:ACCOUNT:key/ID";
        Err(UsageError::new("this is not the ARN of a KMS key", Some(hint.into())).into())
    }
}

/// The bindings of a store that are ciphertexts of the policy itself.
pub(super) fn inline_names(policy: &Policy, store: &StoreName) -> Vec<String> {
    let is_inline = |source: &Source| matches!(source, Source::Ciphertext { store: of, .. } if of == store);
    policy.secrets.iter().filter(|(_, binding)| is_inline(&binding.source)).map(|(name, _)| name.to_string()).collect()
}

/// Why nothing is begun.
#[derive(Debug)]
enum Refusal {
    OneFile { stores: [StoreName; 2], path: PathBuf },
    Recipient { store: StoreName, error: RecipientError },
    StillNamed { store: StoreName, recipient: String, place: Option<String> },
}

impl Refusal {
    fn recipient(store: &StoreName, error: RecipientError) -> Self {
        Self::Recipient { store: store.clone(), error }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneFile { stores: [one, other], path } => {
                write!(f, "the stores `{one}` and `{other}` are the same file, `{}`, for different keys", show(path))
            }
            Self::Recipient { store, error } => write!(f, "store `{store}`: {error}"),
            Self::StillNamed { store, recipient, .. } => {
                write!(f, "store `{store}` still names {}, so it could open what is written now", escape(recipient))
            }
        }
    }
}

impl Cause for Refusal {
    fn class(&self) -> Class {
        Class::Policy
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::OneFile { .. } => Some("give both stores the same `recipients`, or each a file of its own".into()),
            Self::Recipient { error, .. } => error.hint(),
            Self::StillNamed { place: Some(place), .. } => Some(format!("take it out first: {place}")),
            Self::StillNamed { place: None, .. } => Some("take it out of the store's `recipients` first".into()),
        }
    }
}
