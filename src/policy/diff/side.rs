//! One of the two policies, so that it can be compared: its stores with paths as they are written, and known again under
//! another name; and who can open what they hold. Pure.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{Found, Held, Sign, quoted};
use crate::name::StoreName;
use crate::policy::model::{IdentitySource, Policy, Store};

/// One of the two policies.
pub(super) struct Side<'p> {
    pub(super) policy: &'p Policy,
    /// By their number.
    pub(super) stores: BTreeMap<usize, (&'p StoreName, Store)>,
    held: BTreeMap<usize, Option<Vec<String>>>,
}

/// A store of either policy. The same number is the same store, whatever its name.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoreId<'p> {
    number: usize,
    name: &'p StoreName,
}

impl<'p> Side<'p> {
    /// Both of them, with the same number for the same store.
    pub(super) fn both(old: &'p Policy, new: &'p Policy, held: Held<'_>) -> (Self, Self) {
        let old_stores: Vec<(&StoreName, Store)> =
            old.stores.iter().map(|(name, s)| (name, as_written(s, old))).collect();
        let new_stores: Vec<(&StoreName, Store)> =
            new.stores.iter().map(|(name, s)| (name, as_written(s, new))).collect();
        let numbers = numbers(&old_stores, &new_stores);
        let side = |policy: &'p Policy, stores: Vec<(&'p StoreName, Store)>, numbers: &[usize]| {
            let held = numbers.iter().zip(policy.stores.values()).filter_map(|(number, store)| match store {
                Store::Age(store) => Some((*number, held(store.recipients_file.as_ref()?))),
                Store::Kms(_) | Store::Ssm(_) => None,
            });
            Self { policy, held: held.collect(), stores: numbers.iter().copied().zip(stores).collect() }
        };
        let in_order: Vec<usize> = (0..old_stores.len()).collect();
        (side(old, old_stores, &in_order), side(new, new_stores, &numbers))
    }

    pub(super) fn id(&self, name: &StoreName) -> Option<StoreId<'p>> {
        let (number, (name, _)) = self.stores.iter().find(|(_, (known, _))| *known == name)?;
        Some(StoreId { number: *number, name })
    }

    /// A path as the policy may have written it, so that a copy of the policy elsewhere is no change.
    pub(super) fn path(&self, path: &Path) -> PathBuf {
        relative(path, self.policy)
    }
}

/// Which of the old stores each of the new ones is: first of all the one that has its name and says the same, then one that
/// says the same under another name, then the one that has its name. What is left is new.
fn numbers(old: &[(&StoreName, Store)], new: &[(&StoreName, Store)]) -> Vec<usize> {
    type Rule = fn(&(&StoreName, Store), &(&StoreName, Store)) -> bool;
    let rules: [Rule; 3] = [|one, other| one == other, |one, other| one.1 == other.1, |one, other| one.0 == other.0];
    let mut numbers: Vec<Option<usize>> = vec![None; new.len()];
    for rule in rules {
        for at in 0..new.len() {
            let (Some(None), Some(store)) = (numbers.get(at), new.get(at)) else { continue };
            let is_free = |number: &usize| !numbers.contains(&Some(*number));
            let number =
                (0..old.len()).filter(is_free).find(|number| old.get(*number).is_some_and(|old| rule(old, store)));
            if let Some(slot) = numbers.get_mut(at) {
                *slot = number;
            }
        }
    }
    numbers.into_iter().enumerate().map(|(at, number)| number.unwrap_or(old.len() + at)).collect()
}

fn as_written(store: &Store, policy: &Policy) -> Store {
    let shorten = |path: &mut PathBuf| *path = relative(path, policy);
    let shorten_all = |sources: &mut Vec<IdentitySource>| {
        for source in sources {
            if let IdentitySource::File(path) = source {
                shorten(path);
            }
        }
    };
    let mut store = store.clone();
    match &mut store {
        Store::Age(store) => {
            shorten(&mut store.path);
            store.recipients_file.iter_mut().for_each(shorten);
            shorten_all(&mut store.identities);
            store.recipients.sort();
            store.recipients.dedup();
        }
        Store::Kms(store) => {
            store.path.iter_mut().for_each(shorten);
            shorten_all(&mut store.identities);
            store.recipients.sort();
            store.recipients.dedup();
        }
        Store::Ssm(_) => {}
    }
    store
}

fn relative(path: &Path, policy: &Policy) -> PathBuf {
    let folder = policy.files.first().and_then(|file| file.parent()).map(PathBuf::from).unwrap_or_default();
    path.strip_prefix(&folder).unwrap_or(path).to_owned()
}

/// Who can open what is written to a store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Reader {
    /// Whoever may use the key that the account has for it.
    DefaultKey,
    /// Whoever is named in a file that cannot be read here.
    InFile(PathBuf),
    Key(String),
    Recipient(String),
}

/// Who can open what is written from now on.
pub(super) fn compare_readers(old: &Side<'_>, new: &Side<'_>, found: &mut Found) {
    let (before, after) = (readers(old), readers(new));
    for (store, reader) in after.difference(&before) {
        found.add(Sign::Gain, format!("{} can open what is written to store {}", reader.words(), store.words()));
    }
    for (store, reader) in before.difference(&after) {
        let (reader, store) = (reader.words(), store.words());
        let text = format!("{reader} can no longer open what is written to store {store}; it keeps what it has opened");
        found.add(Sign::Loss, text);
    }
}

fn readers<'p>(side: &Side<'p>) -> BTreeSet<(StoreId<'p>, Reader)> {
    let mut readers = BTreeSet::new();
    for (number, (name, store)) in &side.stores {
        let id = StoreId { number: *number, name };
        let mut add = |reader| {
            readers.insert((id, reader));
        };
        let named = |recipients: &[String]| recipients.iter().cloned().map(Reader::Recipient).collect::<Vec<_>>();
        match store {
            Store::Age(store) => {
                named(&store.recipients).into_iter().for_each(&mut add);
                match (side.held.get(number).and_then(Option::as_deref), &store.recipients_file) {
                    (Some(held), _) => named(held).into_iter().for_each(&mut add),
                    (None, Some(file)) => add(Reader::InFile(file.clone())),
                    (None, None) => {}
                }
            }
            Store::Kms(store) => {
                named(&store.recipients).into_iter().for_each(&mut add);
                add(Reader::Key(store.key.clone()));
            }
            Store::Ssm(store) => add(store.key.clone().map_or(Reader::DefaultKey, Reader::Key)),
        }
    }
    readers
}

impl Reader {
    fn words(&self) -> String {
        match self {
            Self::DefaultKey => "whoever may use the account's default key".to_owned(),
            Self::InFile(path) => format!("each recipient of {}", quoted(&path.to_string_lossy())),
            Self::Key(key) => format!("whoever may use {}", quoted(key)),
            Self::Recipient(recipient) => format!("recipient {}", quoted(recipient)),
        }
    }
}

impl StoreId<'_> {
    pub(super) fn words(self) -> String {
        quoted(self.name.as_str())
    }
}

impl PartialEq for StoreId<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for StoreId<'_> {}

impl PartialOrd for StoreId<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for StoreId<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.number.cmp(&other.number)
    }
}
