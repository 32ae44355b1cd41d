//! What a child was given, kept by the supervisor so that a child that cannot live with a change is followed by one that has
//! what the one before it had: `[run] on_crash = "previous"`, and only then. It is kept in memory that is neither swapped nor
//! dumped nor found by the processes that are forked, but for the one that is to become that child.

use serde::{Deserialize, Serialize};

use crate::audit::SecretNote;
use crate::name::VariableName;
use crate::resolve::Value;
use crate::secret::Secret;
use crate::sys::locked::Locked;

/// What a child has, or had. Wiped when dropped. No `Debug`: it holds plaintext.
pub(super) struct Before {
    memory: Locked,
    length: usize,
    filled: usize,
}

/// More than the kernel takes for a child's arguments and environment together (execve(2): three quarters of 8 MiB), and what
/// belongs to each value besides.
const MOST: usize = 16 * 1024 * 1024;

impl Before {
    /// Room for so many bytes; `None` if the kernel does not lock that much memory for this user.
    pub(super) fn with_room(length: u64) -> Option<Self> {
        let length = usize::try_from(length).ok().filter(|length| *length <= MOST)?;
        let memory = Locked::new(length)?;
        memory.lacks().is_empty().then_some(Self { memory, length, filled: 0 })
    }

    /// What is still empty.
    pub(super) fn room(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.filled..self.length).unwrap_or_default()
    }

    /// So much more has come.
    pub(super) fn has_got(&mut self, count: usize) {
        self.filled = self.length.min(self.filled + count);
    }

    pub(super) fn is_full(&self) -> bool {
        self.filled == self.length
    }

    /// Whether a process that is forked from now on finds it; `false`: the kernel refused, and nothing has changed.
    #[must_use]
    pub(super) fn hand_on(&mut self, hand_on: bool) -> bool {
        self.memory.hand_on(hand_on)
    }

    /// The values; `None` if that is not what was kept.
    pub(super) fn values(&self) -> Option<Vec<Value>> {
        let (entries, rest): (Vec<Entry<'_>>, _) = postcard::take_from_bytes(self.memory.get(..self.filled)?).ok()?;
        rest.is_empty().then_some(())?;
        entries.into_iter().map(Entry::value).collect()
    }
}

/// One value, and what a record says of it.
#[derive(Serialize, Deserialize)]
struct Entry<'v> {
    name: &'v str,
    bytes: &'v [u8],
    store: &'v str,
    item: &'v str,
    #[serde(borrow)]
    template: Vec<&'v str>,
    version: Option<u64>,
}

impl<'v> Entry<'v> {
    fn of(value: &'v Value) -> Self {
        Self {
            name: value.name.as_str(),
            bytes: value.secret.expose(),
            store: &value.note.store,
            item: &value.note.item,
            template: value.note.template.iter().map(String::as_str).collect(),
            version: value.note.version,
        }
    }

    /// Without the stage: it may have another one by now.
    fn value(self) -> Option<Value> {
        let note = SecretNote {
            name: self.name.to_owned(),
            store: self.store.to_owned(),
            item: self.item.to_owned(),
            template: self.template.into_iter().map(str::to_owned).collect(),
            version: self.version,
            ..SecretNote::default()
        };
        Some(Value { name: VariableName::new(self.name).ok()?, secret: Secret::new(self.bytes.to_vec()), note })
    }
}

/// As [`Before`] keeps it.
pub(super) fn packed<'v>(values: impl Iterator<Item = &'v Value>) -> Secret {
    let entries: Vec<_> = values.map(Entry::of).collect();
    // Entries of known length have an encoding; `values` would not take another one.
    Secret::new(postcard::to_extend(&entries, Vec::new()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str, bytes: &[u8]) -> Value {
        let note = SecretNote {
            name: name.into(),
            store: "files".into(),
            item: "a/b".into(),
            template: vec!["X".into(), "Y".into()],
            version: Some(7),
            stage: Some("current"),
            ..SecretNote::default()
        };
        Value { name: VariableName::new(name).unwrap(), secret: Secret::new(bytes.to_vec()), note }
    }

    fn kept(bytes: &[u8]) -> Before {
        let mut before = Before::with_room(bytes.len() as u64).unwrap();
        // As it comes: in pieces.
        for piece in bytes.chunks(1000) {
            before.room()[..piece.len()].copy_from_slice(piece);
            before.has_got(piece.len());
        }
        before
    }

    #[test]
    fn what_is_kept_comes_back() {
        let given = [value("A", b"one"), value("B", &[0xff; 5000]), value("C", b"")];
        let before = kept(packed(given.iter()).expose());
        assert!(before.is_full());
        let values = before.values().unwrap();
        assert_eq!(values.len(), 3);
        for (given, value) in given.iter().zip(&values) {
            assert!(value.name == given.name && value.secret.same_as(&given.secret), "{}", given.name);
            assert_eq!(value.note, SecretNote { stage: None, ..given.note.clone() });
        }
    }

    #[test]
    fn a_part_of_it_is_nothing() {
        let bytes = packed([value("A", b"one"), value("B", b"two")].iter());
        for length in 1..bytes.expose().len() {
            assert!(kept(&bytes.expose()[..length]).values().is_none(), "{length}");
        }
        assert!(Before::with_room(MOST as u64 + 1).is_none());
    }
}
