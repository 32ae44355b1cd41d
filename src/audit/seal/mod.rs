//! Forward-secure seals: who takes the host today cannot rewrite what was written down yesterday.
//!
//! Each record carries a MAC by a key that is for it alone. The keys come out of each other by a one-way function, and the
//! host keeps only the next one, overwriting the last; the first one, the *seed*, goes to the auditor, encrypted, and is kept
//! nowhere on the host. The construction is that of Bellare and Yee (Forward-Security in Private-Key Cryptography, CT-RSA
//! 2003) for audit logs, after Schneier and Kelsey (Secure Audit Logs to Support Computer Forensics, 1999); journald's
//! sealing is of the same family. Its pseudorandom function is HMAC-SHA-256, by ring.
//!
//! - [`key`]: the keys, pure;
//! - [`state`]: what the host keeps, in `<log>.seal`;
//! - [`seed`]: what the auditor keeps;
//! - [`epoch`]: how sealing begins, and begins anew where the state was lost.
//!
//! Specified in `docs/spec/audit-sealing.md`, with what it does not protect.

pub(super) mod epoch;
pub(super) mod key;
pub(super) mod seed;
pub(super) mod state;

use std::path::PathBuf;

pub(super) use key::{EpochId, EpochKey, RecordKey};

/// Sealing that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// The name of the epoch, 16 hexadecimal digits.
    pub epoch: String,
    /// The number of the first record that is going to be sealed.
    pub first: u64,
    /// Where the encrypted seed lies.
    pub seed: PathBuf,
    /// The log was sealed before, and that state is lost.
    pub anew: bool,
}
