//! The `ssm` store: AWS Systems Manager Parameter Store.
//!
//! - [`names`]: names, selectors, batches, sizes, pages; [`labels`], [`mark`], [`apart`]: which version is which; [`lock`]: who
//!   rotates: pure;
//! - [`read`]: `GetParameters`, `GetParametersByPath`, `GetParameterHistory`;
//! - [mod@write]: `PutParameter` and `DeleteParameter`, never doubled; [`relabel`]: moving labels;
//! - [`mod@publish`]: a public text, such as a checkpoint of the audit log;
//! - [`stages`], [`work`]: what rotation does, on all of these; [`hold`]: the right to do it.
//!
//! A stage is a label, `vouchsafe-current` and so on. A parameter without any such label has only its newest version, which
//! counts as current.

mod apart;
mod hold;
mod labels;
mod lock;
mod mark;
pub mod names;
mod publish;
mod read;
mod refusal;
mod relabel;
mod stages;
mod work;
mod write;

use std::collections::{BTreeSet, HashMap};
use std::time::{Instant, SystemTime};

use aws_sdk_ssm::types::ParameterType;

use self::names::{Key, Selector};
pub use self::publish::publish;
pub use self::refusal::Refusal;
use self::relabel::Right;
pub use self::stages::apart_of;
use super::aws::error::{AwsError, Problem};
use super::aws::{Access, Aws, Calls};
use super::stages::Holder;
use super::{Answer, Author, Fetched, Store, StoreError, StoreErrorKind, VersionNote, Versions, Wanted, is_below};
use crate::name::{ItemName, StoreName};
use crate::policy::model::{SsmStore, Stage};
use crate::secret::Secret;

/// An `ssm` store of a policy.
pub struct Parameters<'a> {
    name: &'a StoreName,
    store: &'a SsmStore,
    aws: Aws<'a>,
    /// Says of a claim that it is ours; made once.
    token: Option<String>,
    right: Option<Right>,
}

/// One parameter as it was read. No `Debug`: it holds a plaintext.
struct Got {
    value: Secret,
    version: u64,
    is_encrypted: bool,
    written: Option<SystemTime>,
}

/// What goes wrong inside a conversation with AWS.
enum Fault {
    Aws(AwsError),
    Refused(Refusal),
    /// Somebody else has the right to rotate.
    Held(Holder),
    /// Another version is there than was meant.
    Moved(ItemName, String),
}

impl From<AwsError> for Fault {
    fn from(error: AwsError) -> Self {
        Self::Aws(error)
    }
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Self {
        Self::Aws(problem.into())
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl<'a> Parameters<'a> {
    /// Touches nothing yet.
    #[must_use]
    pub fn new(name: &'a StoreName, store: &'a SsmStore, access: Access<'a>) -> Self {
        Self { name, store, aws: Aws::new(access), token: None, right: None }
    }

    fn run<T>(
        &mut self,
        deadline: Instant,
        work: impl AsyncFnOnce(&Calls<'_>) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let store = self.name;
        self.aws.run(deadline, work).map_err(|fault| StoreError {
            store: store.clone(),
            kind: match fault {
                Fault::Aws(error) => StoreErrorKind::Aws(Box::new(error)),
                Fault::Refused(refusal) => StoreErrorKind::Parameter(refusal),
                Fault::Held(holder) => StoreErrorKind::Held(holder),
                Fault::Moved(item, found) => StoreErrorKind::Moved { item, found },
            },
        })
    }

    fn not_offered(&self, what: &'static str) -> StoreError {
        StoreError { store: self.name.clone(), kind: StoreErrorKind::NotOffered { what } }
    }
}

impl Store for Parameters<'_> {
    fn fetch(&mut self, wanted: &[Wanted], deadline: Instant) -> Result<Vec<Answer>, StoreError> {
        if wanted.iter().any(|one| matches!(one, Wanted::Ciphertext { .. })) {
            return Err(self.not_offered("ciphertexts of a policy"));
        }
        self.run(deadline, async |calls| fetch(calls, wanted).await)
    }
}

async fn fetch(calls: &Calls<'_>, wanted: &[Wanted]) -> Result<Vec<Answer>, Fault> {
    let mut listings = Vec::new();
    for one in wanted {
        if let Wanted::Bundle { path, recursive, staged, hidden, .. } = one {
            listings.push(list(calls, path, *recursive, staged, hidden).await?);
        }
    }
    let of_bundles = listings.iter().flat_map(|listing| &listing.staged).map(staged_key);
    let of_items = wanted.iter().filter_map(|one| match one {
        Wanted::Item { item, version, stage, .. } => Some(Key::new(item, *version, *stage)),
        Wanted::Bundle { .. } | Wanted::Ciphertext { .. } => None,
    });
    let mut found = read::parameters(calls, of_items.chain(of_bundles)).await?;
    read::unlabelled(calls, &mut found).await?;
    let mut answers = Vec::with_capacity(wanted.len());
    let mut listings = listings.into_iter();
    for one in wanted {
        answers.push(match one {
            Wanted::Item { item, version, stage, plain } => {
                let key = Key::new(item, *version, *stage);
                match found.get(&key).and_then(Option::as_ref) {
                    Some(got) => Answer::Found(usable(item, got, *stage, *plain)?),
                    None => Answer::Absent,
                }
            }
            Wanted::Bundle { plain, .. } => {
                Answer::Bundle(bundle(listings.next().unwrap_or_default(), &found, *plain)?)
            }
            Wanted::Ciphertext { .. } => Answer::Absent,
        });
    }
    // What was found says of which account it is; what was not found does not, and may be absent in the wrong account only.
    let is_nothing = |answer: &Answer| match answer {
        Answer::Absent => true,
        Answer::Bundle(items) => items.is_empty(),
        Answer::Found(_) => false,
    };
    if answers.iter().any(is_nothing) {
        calls.require_account().await?;
    }
    Ok(answers)
}

/// What lies below a path.
#[derive(Default)]
struct Listing {
    /// Those whose newest version counts.
    newest: Vec<(ItemName, Got)>,
    /// Those that are read at their stage, since their newest version may be unproven. What the listing brought of them is
    /// wiped unread.
    staged: Vec<ItemName>,
}

/// IAM lets a recursive read of `/a` see `/a/b` even where that is denied, so what was not asked for is dropped here; so is what
/// is no item: our own parameters, and those where unproven versions lie.
async fn list(
    calls: &Calls<'_>,
    path: &str,
    recursive: bool,
    staged: &BTreeSet<ItemName>,
    hidden: &BTreeSet<ItemName>,
) -> Result<Listing, Fault> {
    let mut listing = Listing::default();
    for (name, got) in read::below(calls, path, recursive).await? {
        if !is_below(&name, path, recursive) || names::is_own(&name) {
            continue;
        }
        let item = ItemName::new(name).map_err(|_| Problem::BadAnswer("a name that no parameter can have"))?;
        if staged.contains(&item) {
            listing.staged.push(item);
        } else if !hidden.contains(&item) {
            listing.newest.push((item, got));
        }
    }
    Ok(listing)
}

fn bundle(listing: Listing, found: &Found, plain: bool) -> Result<Vec<(ItemName, Fetched)>, Fault> {
    let mut items = Vec::with_capacity(listing.newest.len() + listing.staged.len());
    for (item, got) in listing.newest {
        let fetched = usable(&item, &got, None, plain)?;
        items.push((item, fetched));
    }
    for item in listing.staged {
        // It is there, and no version of it is current: nothing of it may be delivered, and its absence would go unnoticed.
        let got = found.get(&staged_key(&item)).and_then(Option::as_ref);
        let got = got.ok_or_else(|| Refusal::NoneIsCurrent(item.to_string()))?;
        let fetched = usable(&item, got, Some(Stage::Current), plain)?;
        items.push((item, fetched));
    }
    items.sort_by(|(a, _), (b, _)| a.cmp(b));
    items.dedup_by(|(a, _), (b, _)| a == b);
    Ok(items)
}

fn staged_key(item: &ItemName) -> Key {
    Key::new(item, None, Some(Stage::Current))
}

fn usable(item: &ItemName, got: &Got, stage: Option<Stage>, plain: bool) -> Result<Fetched, Refusal> {
    if got.is_encrypted || plain { Ok(fetched(got, stage)) } else { Err(Refusal::Plain(item.to_string())) }
}

fn fetched(got: &Got, stage: Option<Stage>) -> Fetched {
    Fetched { value: got.value.duplicate(), version: Some(got.version), stage, written: got.written }
}

impl Versions for Parameters<'_> {
    fn refuse_unwritable(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn history(&mut self, item: &ItemName, deadline: Instant) -> Result<Vec<VersionNote>, StoreError> {
        let past = self.run(deadline, async |calls| {
            calls.require_account().await?;
            Ok(read::past(calls, item.as_str()).await?)
        })?;
        Ok(past.iter().map(|one| note(one, labels::stage_of(&past, one))).collect())
    }

    fn put(
        &mut self,
        item: &ItemName,
        value: Secret,
        _author: &Author,
        only_if_absent: bool,
        deadline: Instant,
    ) -> Result<Option<u64>, StoreError> {
        let store = self.store;
        self.run(deadline, async |calls| {
            let order = write::Order { name: item.as_str(), value: &value, key: store.key.as_deref(), only_if_absent };
            write::put(calls, &order).await
        })
    }

    fn remove(&mut self, item: &ItemName, deadline: Instant) -> Result<bool, StoreError> {
        self.run(deadline, async |calls| write::remove(calls, item.as_str()).await)
    }
}

fn note(one: &read::Past, stage: Option<Stage>) -> VersionNote {
    VersionNote { number: one.version, stage, time: one.written, author: one.author.clone() }
}

/// The answers to keys; `None` is "absent".
type Found = HashMap<Key, Option<Got>>;

fn is_encrypted(kind: Option<&ParameterType>) -> bool {
    matches!(kind, Some(ParameterType::SecureString))
}

impl Selector {
    /// What follows the name, with its colon.
    fn suffix(&self) -> String {
        match self {
            Self::Newest => String::new(),
            Self::Version(number) => format!(":{number}"),
            Self::Stage(stage) => format!(":{}", names::label(*stage)),
        }
    }
}
