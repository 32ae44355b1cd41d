//! The `ssm` store: AWS Systems Manager Parameter Store.
//!
//! - [`names`]: names, selectors, batches, sizes, pages: pure;
//! - [`read`]: `GetParameters`, `GetParametersByPath`, `GetParameterHistory`;
//! - [mod@write]: `PutParameter` and `DeleteParameter`, never doubled.
//!
//! A stage is a label, `vouchsafe-current` and so on. A parameter without any such label has only its newest version, which
//! counts as current.

pub mod names;
mod read;
mod write;

use std::collections::HashMap;
use std::fmt;
use std::time::{Instant, SystemTime};

use aws_sdk_ssm::types::ParameterType;

use self::names::{Key, Selector};
use super::aws::error::{AwsError, Problem};
use super::aws::{Access, Aws, Calls};
use super::{Answer, Author, Fetched, Store, StoreError, StoreErrorKind, VersionNote, Versions, Wanted, is_below};
use crate::error::{Cause, Class};
use crate::name::{ItemName, StoreName, escape};
use crate::policy::model::{SsmStore, Stage};
use crate::secret::Secret;

/// An `ssm` store of a policy.
pub struct Parameters<'a> {
    name: &'a StoreName,
    store: &'a SsmStore,
    aws: Aws<'a>,
}

/// One parameter as it was read. No `Debug`: it holds a plaintext.
struct Got {
    value: Secret,
    version: u64,
    is_encrypted: bool,
    written: Option<SystemTime>,
}

/// Why a parameter is not used, or not written, whatever AWS says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It is stored unencrypted, and the policy does not say `plain`.
    Plain(String),
    /// It exists with type `String` or `StringList`: writing would leave old versions readable, or downgrade the new one.
    ExistsPlain(String),
    /// After the write its type was another one.
    Downgraded(String),
    /// The name is not one that Parameter Store takes.
    Name(String, &'static str),
    /// Its versions have stages, which a plain write would leave where they are.
    Staged(String),
    /// The value is not one that Parameter Store takes.
    Value(String, &'static str),
}

/// What goes wrong inside a conversation with AWS.
enum Fault {
    Aws(AwsError),
    Refused(Refusal),
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
        Self { name, store, aws: Aws::new(access) }
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
    let keys = wanted.iter().filter_map(|one| match one {
        Wanted::Item { item, version, stage, .. } => Some(Key::new(item, *version, *stage)),
        Wanted::Bundle { .. } | Wanted::Ciphertext { .. } => None,
    });
    let mut found = read::parameters(calls, keys).await?;
    read::unlabelled(calls, &mut found).await?;
    let mut answers = Vec::with_capacity(wanted.len());
    for one in wanted {
        answers.push(match one {
            Wanted::Item { item, version, stage, plain } => {
                let key = Key::new(item, *version, *stage);
                match found.get(&key).and_then(Option::as_ref) {
                    Some(got) if got.is_encrypted || *plain => Answer::Found(fetched(got, *stage)),
                    Some(_) => return Err(Refusal::Plain(item.to_string()).into()),
                    None => Answer::Absent,
                }
            }
            Wanted::Bundle { path, recursive, plain } => Answer::Bundle(bundle(calls, path, *recursive, *plain).await?),
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

/// IAM lets a recursive read of `/a` see `/a/b` even where that is denied, so what was not asked for is dropped here.
async fn bundle(
    calls: &Calls<'_>,
    path: &str,
    recursive: bool,
    plain: bool,
) -> Result<Vec<(ItemName, Fetched)>, Fault> {
    let mut items = Vec::new();
    for (name, got) in read::below(calls, path, recursive).await? {
        if !is_below(&name, path, recursive) {
            continue;
        }
        if !got.is_encrypted && !plain {
            return Err(Refusal::Plain(name).into());
        }
        let item = ItemName::new(name).map_err(|_| Problem::BadAnswer("a name that no parameter can have"))?;
        items.push((item, fetched(&got, None)));
    }
    items.sort_by(|(a, _), (b, _)| a.cmp(b));
    items.dedup_by(|(a, _), (b, _)| a == b);
    Ok(items)
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
            Ok(read::history(calls, item.as_str()).await?)
        })?;
        let past = past.unwrap_or_default();
        let is_labelled = past.iter().any(|one| one.stages().next().is_some());
        let newest = past.iter().map(|one| one.version).max();
        let note = |one: &read::Past| {
            let by_age = (!is_labelled && Some(one.version) == newest).then_some(Stage::Current);
            let stage = one.stages().next().or(by_age);
            VersionNote { number: one.version, stage, time: one.written, author: one.author.clone() }
        };
        Ok(past.iter().map(note).collect())
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

/// The answers to keys; `None` is "absent".
type Found = HashMap<Key, Option<Got>>;

fn is_encrypted(kind: Option<&ParameterType>) -> bool {
    matches!(kind, Some(ParameterType::SecureString))
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(name) => {
                write!(f, "`{}` is a parameter of type String, stored without encryption", escape(name))
            }
            Self::ExistsPlain(name) => {
                write!(f, "`{}` exists as a parameter of type String; nothing was written", escape(name))
            }
            Self::Downgraded(name) => write!(f, "`{}` was written, but is not a SecureString now", escape(name)),
            Self::Name(name, rule) => write!(f, "Parameter Store does not take the name `{}`: {rule}", escape(name)),
            Self::Staged(name) => write!(
                f,
                "the versions of `{}` have stages by label, so a new one would not be read; nothing was written",
                escape(name)
            ),
            Self::Value(name, rule) => {
                write!(f, "Parameter Store does not take the value for `{}`: {rule}", escape(name))
            }
        }
    }
}

impl Cause for Refusal {
    fn class(&self) -> Class {
        match self {
            Self::Name(..) => Class::Policy,
            Self::Plain(_) | Self::ExistsPlain(_) | Self::Downgraded(_) | Self::Staged(_) | Self::Value(..) => {
                Class::Store
            }
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Plain(_) => Some("plain = true   # in its binding, if that is meant".into()),
            Self::ExistsPlain(_) => {
                Some("remove it, wait 30 seconds, and set it again: its type cannot be changed safely".into())
            }
            Self::Downgraded(_) => {
                Some("somebody else writes it too; rotate the value, it was readable without its key".into())
            }
            Self::Staged(name) => Some(format!(
                "write it and move the label: aws ssm put-parameter --overwrite ... && aws ssm label-parameter-version \
                 --name {} --labels vouchsafe-current",
                escape(name)
            )),
            Self::Name(..) | Self::Value(..) => None,
        }
    }
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
