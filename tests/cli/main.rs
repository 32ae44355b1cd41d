//! The real binary in a clean environment. No network, no root, no sleep. A host that has an `/etc/vouchsafe/host.toml` is not
//! clean: what it says counts here too.
//!
//! One module for each promise; `harness` makes a scene (folder, identity, sealed file, policy) and runs the binary in it.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    // Shared with `integration/`; each side uses a part.
    dead_code,
    unreachable_pub
)]

mod agent;
mod agent_scene;
mod agent_supervise;
mod audit;
mod audit_attacks;
mod audit_seals;
mod aws;
mod bad_input;
mod commands;
mod deploy;
mod docs;
mod environment;
mod exec;
mod expected_verdicts;
mod harness;
mod hostile_names;
mod ignored_children;
mod init;
mod injection;
mod leaks;
mod mask;
mod mirrors;
mod output_schema;
mod policy_diff;
mod progress;
mod prompt;
mod reading;
mod regressions;
mod rekey;
mod restart;
mod restart_back;
mod rotate;
mod rotate_ends;
mod rotate_units;
mod signals;
mod supervise;
mod supervise_terminal;
mod supervised;
mod terminal;
mod transcripts;
mod unaudited;
mod who_has;
