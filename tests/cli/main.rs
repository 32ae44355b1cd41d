//! The real binary in a clean environment. No network, no root, no sleep.
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

mod aws;
mod environment;
mod exec;
mod harness;
mod signals;
