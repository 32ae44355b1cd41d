//! What the agent answers. The one message that holds values is [`Granted`]; it borrows them, and prints none.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use super::rules::{ChildWire, PinWire, RunWire, StageWire};

/// A message of the agent.
#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(PartialEq))]
pub enum Reply<'a> {
    /// All that was asked for. The release is written down.
    #[serde(borrow)]
    Granted(Granted<'a>),
    /// Nothing, and why.
    Refused(Refusal),
    /// Done; how many entries of the cache were forgotten.
    Done(u64),
    /// What the agent serves, as a JSON object without values.
    Status(String),
    /// From here on the agent speaks when there is something to say: [`Self::Changed`], or a refusal, which is the end.
    Watching,
    /// What would be granted now is not what the caller has.
    Changed,
}

impl Reply<'_> {
    /// At least how many bytes the frame will have, and seldom more than a few over.
    pub(super) fn size_hint(&self) -> usize {
        match self {
            Self::Granted(granted) => {
                let values: usize =
                    granted.values.iter().map(|value| value.name.len() + value.bytes.0.len() + 24).sum();
                let set: usize = granted.child.set.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
                512 + values + set
            }
            Self::Refused(_) | Self::Done(_) | Self::Status(_) | Self::Watching | Self::Changed => 1024,
        }
    }
}

/// Values, and the rules that a child gets them by.
#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(PartialEq))]
pub struct Granted<'a> {
    /// SHA-256 of the policy's files: [`Policy::digest`](crate::policy::model::Policy::digest).
    pub policy: [u8; 32],
    /// What ties the records of this access together in the agent's log.
    pub access: [u8; 8],
    /// Stands for the names and values below, and for nothing without the key that only the agent has: equal sets of one
    /// agent's life have the same.
    pub set: [u8; 32],
    /// How firmly the grant holds to the claimed command: the client keeps to it.
    pub pin: PinWire,
    /// `[child]`.
    #[serde(borrow)]
    pub child: ChildWire<'a>,
    /// `[run]`.
    pub run: RunWire,
    /// The values to inject, sorted by name.
    #[serde(borrow)]
    pub values: Vec<Value<'a>>,
}

/// One value.
#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(PartialEq))]
pub struct Value<'a> {
    /// The variable.
    pub name: &'a str,
    /// The plaintext.
    #[serde(borrow)]
    pub bytes: Plain<'a>,
    /// The version that was served, where its store counts them.
    pub version: Option<u64>,
    /// Its stage, where its store keeps them.
    pub stage: Option<StageWire>,
    /// How far past its time to live it was served, since its store is down.
    pub stale_seconds: Option<u64>,
}

/// Bytes of a value, wherever they lie. No `Debug`.
#[derive(Deserialize)]
#[cfg_attr(test, derive(PartialEq))]
#[serde(transparent)]
pub struct Plain<'a>(#[serde(borrow)] pub &'a [u8]);

impl Serialize for Plain<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// Why nothing is granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// Too many connections or requests, of this user or in all. Nothing was looked at.
    Busy,
    /// The agent gives nothing of this to this user. The same whether it exists or not.
    Denied,
    /// A grant names digests of commands: ask again, with the command's.
    DigestWanted,
    /// It is granted, and could not be had.
    Failed {
        /// [`Class::word`](crate::error::Class::word).
        class: String,
        /// What failed, on what object.
        message: String,
        /// What can be done about it.
        hint: Option<String>,
    },
    /// The request makes no sense, or was too long or too slow.
    Malformed,
    /// This agent does not do that.
    NotOffered,
    /// It is granted, to a command that has a supervisor: ask again from the process that is to become it. These are the
    /// rules.
    Supervised(RunWire),
    /// It is granted, and is what the caller has.
    Unchanged,
}

impl fmt::Debug for Reply<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Granted(granted) => write!(f, "Granted({} values)", granted.values.len()),
            Self::Refused(refusal) => write!(f, "Refused({refusal:?})"),
            Self::Done(count) => write!(f, "Done({count})"),
            Self::Status(_) => write!(f, "Status"),
            Self::Watching => write!(f, "Watching"),
            Self::Changed => write!(f, "Changed"),
        }
    }
}
