//! The keys of seals. Pure.
//!
//! With H = HMAC-SHA-256 and C(0) the seed: the record that is number i of its epoch is sealed by M(i) = H(C(i), "…seal"),
//! and C(i+1) = H(C(i), "…next"). Whoever has C(i) has every later key, and no earlier one.

use ring::hmac::{self, HMAC_SHA256};
use zeroize::Zeroizing;

use crate::audit::chain::push_hex;

const SEAL: &[u8] = b"vouchsafe-audit-seal/1 seal";
const NEXT: &[u8] = b"vouchsafe-audit-seal/1 next";
const EPOCH: &[u8] = b"vouchsafe-audit-seal/1 epoch";

/// C(i): all keys from the i-th on. No `Debug`, no copy: each one is wiped where the next takes its place.
pub(in crate::audit) struct EpochKey(Zeroizing<[u8; 32]>);

/// M(i): the key of one record.
pub(in crate::audit) struct RecordKey(Box<hmac::Key>);

/// What an epoch is called: made from its seed, and tells nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::audit) struct EpochId(pub(in crate::audit) [u8; 8]);

impl EpochKey {
    pub(in crate::audit) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// For the state and the seed, which are where it is kept.
    pub(in crate::audit) fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key of the next record.
    pub(in crate::audit) fn record_key(&self) -> RecordKey {
        let bytes = Zeroizing::new(self.derive(SEAL));
        RecordKey(Box::new(hmac::Key::new(HMAC_SHA256, bytes.as_slice())))
    }

    /// What takes its place once that record is sealed.
    pub(in crate::audit) fn next(&self) -> Self {
        Self::from_bytes(self.derive(NEXT))
    }

    /// The name of the epoch that begins with this key.
    pub(in crate::audit) fn id(&self) -> EpochId {
        let mut id = [0; 8];
        id.iter_mut().zip(self.derive(EPOCH)).for_each(|(to, from)| *to = from);
        EpochId(id)
    }

    fn derive(&self, label: &[u8]) -> [u8; 32] {
        // On the heap, which the global allocator wipes.
        let key = Box::new(hmac::Key::new(HMAC_SHA256, self.0.as_slice()));
        let mut out = [0; 32];
        out.iter_mut().zip(hmac::sign(&key, label).as_ref()).for_each(|(to, from)| *to = *from);
        out
    }
}

impl RecordKey {
    /// The seal of a line, of which `covered` is all that is before the seal.
    pub(in crate::audit) fn seal(&self, covered: &[u8]) -> [u8; 32] {
        let mut out = [0; 32];
        out.iter_mut().zip(hmac::sign(&self.0, covered).as_ref()).for_each(|(to, from)| *to = *from);
        out
    }

    pub(in crate::audit) fn verifies(&self, covered: &[u8], seal: &[u8; 32]) -> bool {
        hmac::verify(&self.0, covered, seal).is_ok()
    }
}

impl EpochId {
    pub(in crate::audit) fn hex(self) -> String {
        let mut out = Vec::with_capacity(16);
        push_hex(&mut out, &self.0);
        String::from_utf8(out).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        push_hex(&mut out, bytes);
        String::from_utf8(out).unwrap()
    }

    /// The vectors of docs/spec/audit-sealing.md, which were computed by Python's `hmac`.
    #[test]
    fn the_vectors_of_the_spec_are_true() {
        const SPEC: &str = include_str!("../../../docs/spec/audit-sealing.md");
        let vector = |name: &str| {
            let line = SPEC.lines().find(|line| line.starts_with(&format!("{name} = "))).unwrap();
            line.split_once(" = ").unwrap().1.to_owned()
        };
        let seed: [u8; 32] = std::array::from_fn(|at| at as u8);
        let first = EpochKey::from_bytes(seed);
        assert_eq!(hex(first.expose()), vector("C(0)"));
        assert_eq!(first.id().hex(), vector("epoch"));
        let second = first.next();
        let third = second.next();
        assert_eq!(hex(second.expose()), vector("C(1)"));
        assert_eq!(hex(third.expose()), vector("C(2)"));
        let covered = vector("body");
        for (name, key) in [("seal(0)", &first), ("seal(1)", &second), ("seal(2)", &third)] {
            let seal = key.record_key().seal(covered.as_bytes());
            assert_eq!(hex(&seal), vector(name));
            assert!(key.record_key().verifies(covered.as_bytes(), &seal));
            assert!(!key.next().record_key().verifies(covered.as_bytes(), &seal));
        }
    }
}
