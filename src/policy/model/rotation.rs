//! `[secrets.NAME.rotate]`.

use std::path::PathBuf;
use std::time::Duration;

use super::Password;
use crate::name::VariableName;

/// How a value is rotated.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// How often.
    pub every: Option<Duration>,
    /// What makes the new value.
    pub generate: Generate,
    /// What makes the target accept it.
    pub apply: Apply,
    /// A version still unproven lies beside the item instead of on it.
    pub pending_separate: bool,
    /// How long the previous credential is left to those who still hold it; zero ends it at once. `None`: until the next
    /// rotation. With a target, never less than an agent may serve the previous value.
    pub retire_after: Option<Duration>,
    /// The policy's own `retire_after` is less than that.
    pub is_retired_later: bool,
}

/// What makes a new value. Two, so that whoever makes one cannot forget that a program has to be run for some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Generate {
    /// What a program prints.
    Command(Program),
    /// What is drawn here.
    Random(Random),
}

/// What is drawn from the kernel's randomness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Random {
    /// An age identity.
    Age,
    /// Random bytes in base64 with padding (RFC 4648 section 4).
    Base64 {
        /// Bytes before encoding.
        bytes: usize,
    },
    /// An Ed25519 key pair: PKCS #8 in PEM (RFC 5958, RFC 8410).
    Ed25519,
    /// Random bytes in hexadecimal.
    Hex {
        /// Bytes before encoding.
        bytes: usize,
    },
    /// Characters, each string that the rules allow as likely as any other.
    Password(Password),
    /// A random UUID (RFC 9562 section 5.4).
    Uuid,
    /// An X25519 private key in base64, as WireGuard takes it (RFC 7748).
    X25519,
}

/// A program of the operator's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Its absolute path.
    pub path: PathBuf,
    /// How long it may take for one step.
    pub timeout: Duration,
    /// Bindings whose values it gets in its environment, under their names: an administrator's credential. None of them is
    /// the value that is rotated.
    pub needs: Vec<VariableName>,
}

/// What makes the target accept a new value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Apply {
    /// A program of the operator's.
    Command(Program),
    /// Nothing: the value is only generated.
    None,
    /// The password of PostgreSQL roles.
    Postgres(Postgres),
}

/// A PostgreSQL credential. The value is a password, a connection URL, or a JSON object with `username` and `password`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postgres {
    /// The binding that holds the administrator's connection URL; not the value that is rotated.
    pub admin: VariableName,
    /// The roles.
    pub roles: Roles,
    /// A query that the new credential must be able to run, as in `SELECT 1 FROM orders LIMIT 1`: one line, without `;`.
    pub check: Option<String>,
}

/// Which roles a credential is for. Names have at most 63 bytes: PostgreSQL cuts longer ones off, without an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roles {
    /// Two different ones, by turns: the one in use is never altered, so both work until the next rotation.
    Alternating(String, String),
    /// One: between apply and the restart of a consumer its old password does not work.
    Single(String),
}
