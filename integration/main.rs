//! Real parts: stock age, strace, other uids, an empty root folder, AWS as a strict double of our own and as moto, TLS.
//!
//! Called by `integration/run`, which installs what is needed. A test whose part is missing prints `SKIPPED: ` and why; with
//! CI=true that is a failure.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    missing_docs,
    dead_code,
    unreachable_pub
)]

mod age_interop;
mod aws;
mod empty_root;
mod faults;
#[path = "../tests/cli/harness.rs"]
mod harness;
mod other_uids;
mod trace;

/// Whether all of `programs` are there, and we are root where `root` is wanted; says loudly what is skipped if not.
fn have(programs: &[&str], root: bool) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing: Vec<_> =
        programs.iter().filter(|name| !std::env::split_paths(&path).any(|folder| folder.join(name).exists())).collect();
    let is_root = rustix::process::geteuid().is_root();
    if missing.is_empty() && (is_root || !root) {
        return true;
    }
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    println!("\nSKIPPED: {test} (needs {missing:?}{})", if root && !is_root { ", root" } else { "" });
    false
}
