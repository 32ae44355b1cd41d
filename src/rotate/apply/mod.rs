//! The targets: what makes a system accept a new credential.
//!
//! - [`postgres`]: the password of PostgreSQL roles;
//! - [`command`]: a program of the operator's.
//!
//! Each takes what it needs as plain values. It knows no store and no policy file, and writes no audit record.

pub mod command;
pub mod postgres;
