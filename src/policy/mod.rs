//! The policy: what one service gets in one environment. It does not know how a store works.
//!
//! - [`mod@file`]: TOML text to types, with errors that cite the line;
//! - [`locate`]: where a policy is found;
//! - [`model`]: the types;
//! - [`pattern`], [`template`]: the two small languages inside;
//! - [`reserved`]: names that a secret may not be bound to;
//! - [`eval`]: the decision, pure; [`mod@reach`]: what a user could be granted at all;
//! - [`expected`]: verdicts that a policy's author expects;
//! - [`diff`]: what changes between two policies, in words;
//! - [`trust`]: signatures, before anything is parsed; [`sealed_trust`]: those of sealed files;
//! - [`schema`]: what editors know of a policy.

pub mod diff;
pub mod eval;
#[cfg(test)]
mod eval_tests;
pub mod expected;
pub mod file;
pub mod locate;
pub mod model;
pub mod pattern;
pub mod reach;
pub mod reserved;
pub mod schema;
pub mod sealed_trust;
pub mod template;
pub mod trust;
