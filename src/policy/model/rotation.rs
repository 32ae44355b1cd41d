//! `[secrets.NAME.rotate]`.

use std::path::PathBuf;
use std::time::Duration;

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
    /// How long the previous credential is left to those who still hold it. `None`: until the next rotation.
    pub retire_after: Option<Duration>,
}

/// What makes a new value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Generate {
    /// Characters, drawn evenly.
    Password(Password),
    /// Random bytes in hexadecimal.
    Hex {
        /// Bytes before encoding.
        bytes: usize,
    },
    /// Random bytes in base64 with padding (RFC 4648 section 4).
    Base64 {
        /// Bytes before encoding.
        bytes: usize,
    },
    /// A random UUID (RFC 9562 section 5.4).
    Uuid,
    /// An Ed25519 key pair: PKCS #8 in PEM (RFC 5958, RFC 8410).
    Ed25519,
    /// An X25519 private key in base64, as WireGuard takes it (RFC 7748).
    X25519,
    /// An age identity.
    Age,
    /// What a program prints.
    Command(Program),
}

/// A password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Password {
    /// Characters.
    pub length: usize,
    /// Which characters.
    pub alphabet: Alphabet,
    /// Characters that it must not have, ASCII.
    pub exclude: Vec<u8>,
    /// Classes of which it has at least one character each.
    pub require: Vec<CharacterClass>,
}

/// The characters of a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alphabet {
    /// `A-Z a-z 0-9`.
    Alphanumeric,
    /// `0-9 a-f`.
    Hex,
    /// Every printable ASCII character but space, quotes, backslash, `@` and `/`.
    Printable,
    /// `A-Z a-z 0-9 - _` (RFC 4648 section 5).
    UrlSafe,
}

/// What a target may want at least one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CharacterClass {
    /// `0-9`.
    Digit,
    /// `a-z`.
    Lower,
    /// Anything that is no letter and no digit.
    Symbol,
    /// `A-Z`.
    Upper,
}

/// A program of the operator's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Its absolute path.
    pub path: PathBuf,
    /// How long it may take for one step.
    pub timeout: Duration,
    /// Bindings whose values it gets in its environment, under their names: an administrator's credential.
    pub needs: Vec<VariableName>,
}

/// What makes the target accept a new value.
#[derive(Debug, Clone)]
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
    /// The binding that holds the administrator's connection URL.
    pub admin: VariableName,
    /// The roles.
    pub roles: Roles,
    /// A query that the new credential must be able to run, as in `SELECT 1 FROM orders LIMIT 1`.
    pub check: Option<String>,
}

/// Which roles a credential is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roles {
    /// Two, by turns: the one in use is never altered, so both work until the next rotation.
    Alternating(String, String),
    /// One: between apply and the restart of a consumer its old password does not work.
    Single(String),
}
