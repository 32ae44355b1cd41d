//! Real parts: stock age, openssl, strace, other uids, PID 1 of a namespace, disks that are full or lose power, an empty root
//! folder, the agent and its faults, AWS as a strict double of our own and as moto, TLS, PostgreSQL, MariaDB, containers, hosts
//! with sysvinit, runit and php-fpm, journald, rsyslog and logrotate, the examples of `deploy/` by the tools of their platforms, the recipes with jq.
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
    clippy::type_complexity,
    missing_docs,
    dead_code,
    unreachable_pub
)]

use std::os::unix::fs::PermissionsExt;

mod age_interop;
mod agent;
mod agent_faults;
#[path = "../tests/cli/agent_scene.rs"]
mod agent_scene;
mod audit_faults;
mod aws;
mod containers;
mod crowd;
mod deploy;
mod empty_root;
mod faults;
mod full_disk;
mod generate;
#[path = "../tests/cli/harness.rs"]
mod harness;
mod held;
mod leaks;
mod legacy_hosts;
mod logrotate;
mod mariadb;
mod mirrors;
mod namespaces;
mod other_uids;
mod postgres;
mod recipes;
mod rekey;
mod rotate_faults;
mod rotate_units;
mod rotation_shows;
mod sealed;
mod security_key;
mod signed;
mod strace;
mod supervise;
#[path = "../tests/cli/supervised.rs"]
mod supervised;
mod trace;
mod trust;

/// Whether all of `programs` are there, and we are root where `root` is wanted; says loudly what is skipped if not.
fn have(programs: &[&str], root: bool) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing: Vec<_> =
        programs.iter().filter(|name| !std::env::split_paths(&path).any(|folder| folder.join(name).exists())).collect();
    let is_root = rustix::process::geteuid().is_root();
    // A wrapper that may not look for a host file refuses, so other users get nowhere on such a machine.
    let is_closed = programs.contains(&"setpriv")
        && std::fs::metadata("/etc/vouchsafe").is_ok_and(|folder| folder.permissions().mode() & 0o001 == 0);
    if missing.is_empty() && (is_root || !root) && !is_closed {
        return true;
    }
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let also = if root && !is_root { ", root" } else { "" };
    let also = if is_closed { ", an /etc/vouchsafe that other users may enter" } else { also };
    println!("\nSKIPPED: {test} (needs {missing:?}{also})");
    false
}

/// A copy of a program that anyone may execute. Made by another process: while this one has a file open for writing, a
/// test that forks in another thread hands the descriptor on, and the copy cannot be executed (ETXTBSY).
fn copy_program(program: &str, to: &std::path::Path) -> std::path::PathBuf {
    let status = std::process::Command::new("install").args(["-m", "0755", program]).arg(to).status().unwrap();
    assert!(status.success());
    to.to_owned()
}
