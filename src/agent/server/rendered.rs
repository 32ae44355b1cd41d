//! Between the cache, [`resolve`](crate::resolve::resolve) and the wire: answers that are at hand, and values as a frame.

use std::time::Instant;

use ring::hmac;

use super::policies::Served;
use crate::agent::cache::Found;
use crate::agent::protocol::reply::{Granted, Plain, Reply, Value};
use crate::agent::protocol::rules::{ChildWire, StageWire};
use crate::agent::protocol::{FrameError, encode_reply};
use crate::audit::{Access, SecretNote};
use crate::name::StoreName;
use crate::policy::eval::Pin;
use crate::policy::model::Stage;
use crate::resolve::{Order, Resolved};
use crate::secret::Secret;
use crate::store::{Answer, Store, StoreError, StoreErrorKind, Wanted};

/// Store, item and seconds of whatever was served past its time.
pub(super) fn stale_seconds(fetched: &[(Order, Found)]) -> Vec<(String, String, u64)> {
    let mut out = Vec::new();
    for (order, found) in fetched {
        for (index, past) in &found.stale {
            let seconds = past.as_secs().max(1);
            let store = order.store().to_string();
            match (order.wanted().get(*index), found.answers.get(*index)) {
                (_, Some(Answer::Bundle(items))) => {
                    out.extend(items.iter().map(|(item, _)| (store.clone(), item.to_string(), seconds)));
                }
                (Some(Wanted::Item { item, .. }), _) => out.push((store, item.to_string(), seconds)),
                (Some(_), _) => out.push((store, String::new(), seconds)),
                (None, _) => {}
            }
        }
    }
    out
}

/// What stands for a set of names and values, and for nothing without the key.
pub(super) fn set_of(key: &hmac::Key, resolved: &Resolved) -> [u8; 32] {
    let mut context = hmac::Context::with_key(key);
    for value in resolved.values() {
        for part in [value.name.as_str().as_bytes(), value.secret.expose()] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
    }
    context.sign().as_ref().first_chunk().copied().unwrap_or_default()
}

/// The values and their rules as a frame.
pub(super) fn encode(
    served: &Served,
    access: &Access,
    set: [u8; 32],
    pin: Pin,
    resolved: &Resolved,
    stale_of: impl Fn(&SecretNote) -> Option<u64>,
) -> Result<Secret, FrameError> {
    let policy = &served.policy;
    let own = crate::setting::identity_variables(policy);
    let values = resolved.values().iter().map(|value| Value {
        name: value.name.as_str(),
        bytes: Plain(value.secret.expose()),
        version: value.note.version,
        stage: value.note.stage.and_then(stage),
        stale_seconds: stale_of(&value.note),
    });
    encode_reply(&Reply::Granted(Granted {
        policy: from_hex(&policy.digest),
        access: access.to_bytes(),
        set,
        pin: pin.into(),
        child: ChildWire::of(&policy.child, &own),
        run: (&policy.run).into(),
        values: values.collect(),
    }))
}

fn stage(word: &'static str) -> Option<StageWire> {
    [Stage::Current, Stage::Pending, Stage::Previous].into_iter().find(|stage| stage.word() == word).map(Into::into)
}

/// The bytes of our own hexadecimal digits.
fn from_hex<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).unwrap_or_default();
        *byte = u8::from_str_radix(pair, 16).unwrap_or_default();
    }
    bytes
}

/// The answers to one order, for `resolve`, which asks for exactly that.
pub(super) struct Held {
    pub(super) order: Order,
    pub(super) answers: Vec<Answer>,
}

impl Store for Held {
    fn fetch(&mut self, wanted: &[Wanted], _deadline: Instant) -> Result<Vec<Answer>, StoreError> {
        if wanted == self.order.wanted() {
            Ok(std::mem::take(&mut self.answers))
        } else {
            Err(not_held(self.order.store()))
        }
    }
}

pub(super) fn not_held(store: &StoreName) -> StoreError {
    StoreError { store: store.clone(), kind: StoreErrorKind::NotOffered { what: "answer to what was not asked" } }
}

/// What a record says of something that a store is asked for.
pub(super) fn note_of(store: &StoreName, wanted: &Wanted) -> SecretNote {
    let item = match wanted {
        Wanted::Item { item, .. } => item.to_string(),
        Wanted::Bundle { path, .. } => path.clone(),
        Wanted::Ciphertext { .. } => String::new(),
    };
    SecretNote { name: item.clone(), store: store.to_string(), item, ..SecretNote::default() }
}
