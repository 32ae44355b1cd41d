//! The static binary, alone in an empty root folder: no libc, no /etc/passwd, no /proc, no shell.

use crate::harness::Scene;
use crate::{copy_program, have};

/// The static binary that `integration/run` has built.
pub fn static_binary() -> Option<std::path::PathBuf> {
    let path = std::env::var_os("VOUCHSAFE_STATIC").map(std::path::PathBuf::from);
    if path.is_none() {
        println!("\nSKIPPED: the empty root folder, containers (need the static binary, which integration/run builds)");
    }
    path
}

#[test]
fn it_runs_in_an_empty_root_folder() {
    if !have(&["chroot", "busybox"], true) {
        return;
    }
    let Some(binary) = static_binary() else { return };
    let scene = Scene::with(&[("A", "from the store")]);
    let policy = std::fs::read_to_string(scene.write_policy()).unwrap();
    let policy = policy.replace(&scene.path("").display().to_string(), "/").replace("/audit.jsonl", "/log/audit.jsonl");
    let root = scene.path("root");
    std::fs::create_dir_all(root.join("log")).unwrap();
    copy_program(binary.to_str().unwrap(), &root.join("vouchsafe"));
    // Not every busybox has a printenv; the one of Debian has not.
    copy_program("/bin/busybox", &root.join("env"));
    std::fs::copy(scene.path("store.age"), root.join("store.age")).unwrap();
    scene.write_mode("root/identity.key", &std::fs::read(scene.path("identity.key")).unwrap(), 0o600);
    scene.write("root/policy.toml", policy.as_bytes());
    let words = [root.to_str().unwrap(), "/vouchsafe", "run", "--policy", "/policy.toml", "--", "/env"];
    let output = scene.other("chroot", &words).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output().unwrap();
    let environment = String::from_utf8_lossy(&output.stdout);
    let arrived = environment.lines().any(|line| line == "A=from the store");
    assert!(arrived, "{environment}{}", String::from_utf8_lossy(&output.stderr));
    let log = std::fs::read_to_string(root.join("log/audit.jsonl")).unwrap();
    assert_eq!(log.lines().count(), 2);
}
