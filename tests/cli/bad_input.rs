//! Files that are unsafe, absurd or hostile: an error of ours with its status, at once, and no child. CFG-1 to CFG-7, FS-8
//! to FS-12.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::harness::{Outcome, Scene};
use crate::mask::assert_printable;

/// Stands in every value; no message may show it.
const CANARY: &str = "canary-51c0";

fn scene() -> Scene {
    Scene::with(&[("A", CANARY)])
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Every file of a folder, with what is in it.
fn snapshot(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files.extend(snapshot(&entry.path()));
        } else if kind.is_file() && !entry.file_name().to_string_lossy().starts_with("audit.jsonl") {
            files.push((entry.path(), std::fs::read(entry.path()).unwrap()));
        }
    }
    files.sort();
    files
}

/// Runs; demands this status, no child, no changed file, nothing unprintable and nothing of the value.
#[track_caller]
fn refused(scene: &Scene, policy: &str, status: i32) -> Outcome {
    let before = snapshot(&scene.path(""));
    let outcome = scene.vouchsafe(&["run", "--policy", policy, "--", "touch", "started"]).expect_status(status);
    assert!(!scene.path("started").exists(), "the child was started");
    assert_eq!(before, snapshot(&scene.path("")), "a file changed");
    assert_printable(&outcome);
    assert!(!outcome.transcript().contains(CANARY), "{}", outcome.transcript());
    assert_eq!(outcome.out(), "");
    outcome
}

fn fifo(path: &Path) {
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0)
        .unwrap();
}

#[test]
fn modes_of_the_policy() {
    let scene = scene();
    let policy = scene.write_policy();
    for (mode, status) in [(0o600, 0), (0o644, 0), (0o444, 0), (0o755, 0), (0o666, 121), (0o646, 121), (0o602, 121)] {
        chmod(&policy, mode);
        let outcome = scene.vouchsafe(&["run", "--policy", "policy.toml", "--", "true"]).expect_status(status);
        assert_eq!(outcome.err().contains("hint: chmod go-w "), status != 0, "{mode:o}: {}", outcome.err());
    }
    // By group 0 root alone is meant; whoever is not root has a group of his own.
    chmod(&policy, 0o664);
    scene.vouchsafe(&["run", "--policy", "policy.toml", "--", "true"]).expect_status(0);
    if is_root() {
        std::os::unix::fs::chown(&policy, None, Some(4242)).unwrap();
        let outcome = refused(&scene, "policy.toml", 121);
        assert!(outcome.err().contains("can be written by others (mode 0664)"), "{}", outcome.err());
    }
}

#[test]
fn folders_above_the_policy() {
    let scene = scene();
    let text = std::fs::read(scene.write_policy()).unwrap();
    scene.write("folder/below/policy.toml", &text);
    let run = |status: i32| match status {
        0 => scene.vouchsafe(&["run", "-p", "folder/below/policy.toml", "--", "true"]).expect_status(0),
        _ => refused(&scene, "folder/below/policy.toml", status),
    };
    for (mode, status) in [(0o755, 0), (0o700, 0), (0o777, 121), (0o757, 121)] {
        chmod(&scene.path("folder"), mode);
        let outcome = run(status);
        assert_eq!(outcome.err().contains("/folder` can be written by others"), status != 0, "{}", outcome.err());
    }
    // Sticky: nobody can move what belongs to another. That holds for folders below it, not for the file itself, and only
    // if root owns it: its owner may do anything.
    chmod(&scene.path("folder"), 0o1777);
    run(if is_root() { 0 } else { 121 });
    chmod(&scene.path("folder"), 0o755);
    chmod(&scene.path("folder/below"), 0o1777);
    run(121);
}

#[test]
fn modes_of_identity_store_and_recipients() {
    let scene = scene();
    for (mode, status) in [(0o600, 0), (0o400, 0), (0o644, 124), (0o604, 124), (0o620, 124), (0o601, 124)] {
        // By the group of root's file, only reading is somebody's business.
        let status = if mode == 0o620 && is_root() { 0 } else { status };
        chmod(&scene.path("identity.key"), mode);
        let outcome = scene.run(&["true"]);
        assert_eq!(outcome.status.code(), Some(status), "{mode:o}: {}", outcome.transcript());
        assert_eq!(outcome.err().contains("hint: chmod "), status != 0, "{}", outcome.err());
    }
    chmod(&scene.path("identity.key"), 0o600);
    chmod(&scene.path("store.age"), 0o666);
    refused(&scene, "policy.toml", 122);

    let scene = Scene::sealed(&["A"]);
    scene.write_mode("recipients", scene.recipient().as_bytes(), 0o666);
    let policy = std::fs::read_to_string(scene.write_policy()).unwrap();
    let line = format!("recipients = [\"{}\"]", scene.recipient());
    scene.write("policy.toml", policy.replace(&line, "recipients_file = \"recipients\"").as_bytes());
    let set = |status| {
        scene.vouchsafe_reading(&["set", "A", "-p", "policy.toml"], CANARY.as_bytes()).expect_status(status);
        assert_eq!(scene.path("sealed.age").exists(), status == 0);
    };
    set(121);
    chmod(&scene.path("recipients"), 0o644);
    set(0);
}

#[test]
fn links_are_followed_if_nobody_else_could_turn_them() {
    let scene = scene();
    let text = std::fs::read(scene.write_policy()).unwrap();
    // As Kubernetes mounts a ConfigMap: policy.toml -> ..data/policy.toml, ..data -> ..2026_01_01.
    scene.write("mounted/..2026_01_01/policy.toml", &text);
    symlink("..2026_01_01", scene.path("mounted/..data")).unwrap();
    symlink("..data/policy.toml", scene.path("mounted/policy.toml")).unwrap();
    scene.vouchsafe(&["run", "-p", "mounted/policy.toml", "--", "true"]).expect_status(0);
    // The link is safe where it stands, and leads to where it is not.
    scene.write("open/policy.toml", &text);
    chmod(&scene.path("open"), 0o777);
    symlink(scene.path("open/policy.toml"), scene.path("link.toml")).unwrap();
    refused(&scene, "link.toml", 121);
    // What it leads to is safe, but the link stands where anybody can turn it.
    symlink(scene.path("policy.toml"), scene.path("open/link.toml")).unwrap();
    refused(&scene, "open/link.toml", 121);
    symlink("nowhere", scene.path("dangling.toml")).unwrap();
    refused(&scene, "dangling.toml", 121);
    symlink("loop.toml", scene.path("loop.toml")).unwrap();
    refused(&scene, "loop.toml", 121);
}

#[test]
fn what_is_no_file_is_refused_without_waiting() {
    for (name, status) in [("policy.toml", 121), ("identity.key", 124), ("store.age", 122)] {
        let replace = |with: &dyn Fn(&Path)| {
            let scene = scene();
            scene.write_policy();
            std::fs::remove_file(scene.path(name)).unwrap();
            with(&scene.path(name));
            refused(&scene, "policy.toml", status)
        };
        assert!(replace(&|path| fifo(path)).err().contains("is not a regular file"));
        assert!(replace(&|path| std::fs::create_dir(path).unwrap()).err().contains("is not a regular file"));
        for device in ["/dev/null", "/dev/zero", "/dev/tty", "/proc/self/fd/0"] {
            replace(&|path| symlink(device, path).unwrap());
        }
    }
    let scene = Scene::sealed(&["A"]);
    fifo(&scene.path("value"));
    scene.verb(&["set", "A", "--from-file", "value"]).expect_status(2);
    fifo(&scene.path("recipients"));
    let policy = std::fs::read_to_string(scene.write_policy()).unwrap();
    let line = format!("recipients = [\"{}\"]", scene.recipient());
    scene.write("policy.toml", policy.replace(&line, "recipients_file = \"recipients\"").as_bytes());
    scene.vouchsafe_reading(&["set", "A", "-p", "policy.toml"], b"x").expect_status(121);
    for words in [&["audit", "verify", "value"][..], &["list", "--file", "value"], &["policy", "lint", "value"]] {
        let outcome = scene.vouchsafe(words);
        assert!(outcome.err().contains("not a regular file"), "{}", outcome.transcript());
    }
}

#[test]
fn sizes() {
    let scene = scene();
    let text = std::fs::read_to_string(scene.write_policy()).unwrap();
    let padded = |size: usize| format!("{text}\n#{}", "x".repeat(size - text.len() - 2));
    scene.write("policy.toml", padded(1 << 20).as_bytes());
    scene.vouchsafe(&["run", "-p", "policy.toml", "--", "true"]).expect_status(0);
    scene.write("policy.toml", padded((1 << 20) + 1).as_bytes());
    assert!(refused(&scene, "policy.toml", 121).err().contains("larger than 1048576 bytes"));
    scene.write("policy.toml", text.as_bytes());

    let identity = std::fs::read_to_string(scene.path("identity.key")).unwrap();
    scene.write_mode("identity.key", format!("{identity}\n#{}", "x".repeat(64 * 1024)).as_bytes(), 0o600);
    assert!(refused(&scene, "policy.toml", 124).err().contains("larger than 65536 bytes"));
    scene.write_mode("identity.key", identity.as_bytes(), 0o600);

    let file = std::fs::OpenOptions::new().write(true).open(scene.path("store.age")).unwrap();
    file.set_len(16 * 1024 * 1024 + 1).unwrap();
    let outcome = scene.vouchsafe(&["run", "-p", "policy.toml", "--", "true"]).expect_status(122);
    assert!(outcome.err().contains("larger than 16777216 bytes"), "{}", outcome.err());
}

#[test]
fn ten_thousand_items_and_no_more() {
    let json = |count: usize| {
        let items: Vec<String> = (0..count).map(|n| format!("\"S{n}\":\"{CANARY}\"")).collect();
        format!("{{{}}}", items.join(","))
    };
    let scene = Scene::with(&[("S9999", "")]);
    scene.store_plaintext(json(10_000).as_bytes());
    assert_eq!(scene.run(&["printenv", "S9999"]).expect_status(0).out(), format!("{CANARY}\n"));
    scene.store_plaintext(json(10_001).as_bytes());
    assert!(refused(&scene, "policy.toml", 122).err().contains("more than 10000 items"));
}

#[test]
fn texts_that_are_no_policy() {
    let scene = scene();
    let text = std::fs::read_to_string(scene.write_policy()).unwrap();
    let deep = format!("{text}\nx = {}{}\n", "[".repeat(10_000), "]".repeat(10_000));
    let tables = format!("{text}\n[{}]\n", vec!["a"; 10_000].join("."));
    let inline = format!("{text}\nx = {}1{}\n", "{a=".repeat(10_000), "}".repeat(10_000));
    for (what, text) in [
        ("byte order mark", format!("\u{feff}{text}")),
        ("NUL", format!("{text}\0")),
        ("arrays in arrays", deep),
        ("tables in tables", tables),
        ("inline tables in inline tables", inline),
        ("a key twice", format!("version = 1\n{text}")),
        ("a table twice", format!("{text}\n[secrets]\n")),
        ("twins", text.replace("A = {}", "A = {}\na = {}")),
        ("an escape sequence", format!("{text}\n\x1b]0;forged\x07 = 1\n")),
        ("an escape sequence in a name", format!("{text}\n\"\\u001b[31m\" = 1\n")),
        ("a right-to-left override", format!("{text}\n\"\u{202e}\" = 1\n")),
        ("nothing", String::new()),
        ("a duration of ages", format!("{text}\n[run]\ndeadline = \"9223372036854775807y\"\n")),
        ("a duration of many parts", format!("{text}\n[run]\ndeadline = \"{}\"\n", "18446744073709551615s ".repeat(9))),
        ("a negative duration", format!("{text}\n[run]\ndeadline = \"-1s\"\n")),
        ("101 years", format!("{text}\n[run]\ndeadline = \"101y\"\n")),
    ] {
        scene.write("bad.toml", text.as_bytes());
        let outcome = refused(&scene, "bad.toml", 121);
        assert!(outcome.err().starts_with("vouchsafe: error[policy]: "), "{what}: {}", outcome.err());
        assert!(outcome.err().len() < 4096, "{what}: {} bytes of message", outcome.err().len());
    }
    for (what, text) in [("CRLF", text.replace('\n', "\r\n")), ("tabs", text.replace(" = ", "\t=\t"))] {
        scene.write("good.toml", text.as_bytes());
        let outcome = scene.vouchsafe(&["run", "-p", "good.toml", "--", "true"]);
        assert_eq!(outcome.status.code(), Some(0), "{what}: {}", outcome.transcript());
    }
}

#[test]
fn texts_that_are_no_store() {
    let scene = scene();
    scene.write_policy();
    let deep = format!("{{\"A\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    for text in [
        deep.as_str(),
        "",
        "null",
        "[]",
        &format!("{{\"A\":\"{CANARY}\""),
        &format!("{{\"A\":\"{CANARY}\",\"A\":\"{CANARY}\"}}"),
        &format!("{{\"A\":[\"{CANARY}\"]}}"),
        &format!("{{\"\\u001b[31m{CANARY}\":1}}"),
        &format!("{{\"A\":\"{CANARY}\"}} {CANARY}"),
        &format!("\u{feff}{{\"A\":\"{CANARY}\"}}"),
    ] {
        scene.store_plaintext(text.as_bytes());
        refused(&scene, "policy.toml", 122);
    }
}

/// FS-10: whatever byte the file ends at, nothing of it is used.
#[test]
fn a_store_cut_anywhere_releases_nothing() {
    let scene = Scene::with(&[("A", &"x".repeat(100_000))]);
    let text = std::fs::read(scene.path("store.age")).unwrap();
    let chunk = 64 * 1024 + 16;
    scene.write_policy();
    for cut in [0, 1, 21, 22, 100, chunk - 1, chunk, chunk + 1, text.len() - 17, text.len() - 16, text.len() - 1] {
        scene.write("store.age", &text[..cut]);
        refused(&scene, "policy.toml", 122);
    }
}

/// FS-13, RUSTSEC-2024-0433: a plugin's name chooses a program; ours starts none.
#[test]
fn a_plugin_identity_starts_nothing() {
    for (line, named) in [
        ("AGE-PLUGIN-X-1QQQQQQQQQQQQ", "plugin"),
        ("AGE-PLUGIN-..-X-1QQQQQQQQQQQQ", "plugin"),
        ("age1x1qqqqqqqqqqqqqqq", "recipient"),
    ] {
        let scene = scene();
        let bin = scene.path("bin");
        let scene = scene.variable("PATH", format!("{}:/usr/bin:/bin:.", bin.display()));
        let plugin = format!("#!/bin/sh\ntouch {}\n", scene.path("started").display());
        scene.write_mode("bin/age-plugin-x", plugin.as_bytes(), 0o755);
        scene.write_mode("age-plugin-x", plugin.as_bytes(), 0o755);
        scene.write_mode("identity.key", line.as_bytes(), 0o600);
        scene.write_policy();
        let outcome = refused(&scene, "policy.toml", 124);
        assert!(outcome.err().contains(named) && !outcome.err().contains("QQQQ"), "{}", outcome.err());
    }
    let scene = Scene::sealed(&["A"]).stores("");
    let stores = format!(
        "[stores.files]\ntype = \"age\"\npath = \"sealed.age\"\nrecipients = [\"{}\"]\nidentities = [\"file:{}\"]\n",
        "age1x1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq",
        scene.path("identity.key").display()
    );
    let scene = scene.stores(&stores);
    scene.write_mode("age-plugin-x", b"#!/bin/sh\ntouch started\n", 0o755);
    scene.verb_reading(&["set", "A"], b"x").expect_status(121);
    assert!(!scene.path("started").exists() && !scene.path("sealed.age").exists());
}
