//! Every command leaves the records that it must, before what they are about; without a record there is no access. AUD-1 to
//! AUD-8.

use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use crate::harness::{Outcome, Scene, wait};
use crate::transcripts::lived_in;

/// Runs `words` in a scene that has lived, and gives the records that this one command left.
#[track_caller]
fn left_by(scene: &Scene, words: &[&str], input: &[u8], status: i32) -> Vec<serde_json::Value> {
    let before = scene.audit().len();
    scene.verb_reading(words, input).expect_status(status);
    scene.audit().split_off(before)
}

fn events(records: &[serde_json::Value]) -> String {
    let event = |record: &serde_json::Value| {
        format!("{} {}", record["event"].as_str().unwrap(), record["outcome"].as_str().unwrap())
    };
    records.iter().map(event).collect::<Vec<_>>().join(", ")
}

const REQUESTED: &str = "access.requested allowed";
const LISTED: &str = "secret.listed allowed";
const WRITE: &str = "secret.write_requested allowed";

#[test]
fn each_command_and_outcome_leaves_its_records() {
    let scene = lived_in();
    let table: &[(&[&str], &[u8], i32, &str)] = &[
        (&["run", "--", "true"], b"", 0, &format!("{REQUESTED}, access.released succeeded")),
        (&["run", "--only", "NO", "--", "true"], b"", 120, "access.denied denied"),
        (&["run", "--", "no-such"], b"", 127, ""),
        (&["run", "--env", "prod", "--", "true"], b"", 121, ""),
        (&["list"], b"", 0, LISTED),
        (&["list", "--file", "sealed.age"], b"", 0, LISTED),
        (&["list", "--file", "audit.jsonl"], b"", 122, &format!("{LISTED}, secret.listed failed")),
        (&["check"], b"", 0, LISTED),
        (&["check", "--offline"], b"", 0, ""),
        (&["history", "TOKEN"], b"", 0, LISTED),
        (&["explain", "--", "true"], b"", 0, ""),
        (&["set", "TOKEN"], b"x", 0, &format!("{WRITE}, secret.written succeeded")),
        (&["set", "TOKEN"], b"", 2, ""),
        (&["set", "NO"], b"x", 2, ""),
        (&["remove", "TOKEN"], b"", 0, &format!("{WRITE}, secret.removed succeeded")),
        (&["remove", "TOKEN"], b"", 122, &format!("{WRITE}, secret.removed failed")),
        (&["history", "TOKEN"], b"", 122, LISTED),
        (&["run", "--", "true"], b"", 122, &format!("{REQUESTED}, access.failed failed")),
        (&["check"], b"", 10, LISTED),
    ];
    for (words, input, status, expected) in table {
        assert_eq!(events(&left_by(&scene, words, input, *status)), *expected, "{words:?}");
    }
    // Of one access, all records carry one name; no other access has it.
    let records = scene.audit();
    let accesses: std::collections::BTreeSet<_> = records.iter().map(|record| record["access"].to_string()).collect();
    let beginnings = records.iter().filter(|record| {
        matches!(record["event"].as_str(), Some("access.requested" | "access.denied" | "secret.write_requested"))
            || (record["event"] == "secret.listed" && record["outcome"] == "allowed")
    });
    assert_eq!(accesses.len(), beginnings.count());
    scene.vouchsafe(&["audit", "verify", "audit.jsonl"]).expect_status(0);
}

#[test]
fn each_failure_of_a_store_is_written_down() {
    for (break_it, status) in [
        (&(|scene: &Scene| drop(scene.write("sealed.age", b"x"))) as &dyn Fn(&Scene), 122),
        (&|scene: &Scene| std::fs::remove_file(scene.path("sealed.age")).unwrap(), 122),
        (&|scene: &Scene| std::fs::remove_file(scene.path("identity.key")).unwrap(), 124),
    ] {
        let scene = lived_in();
        let copy = std::fs::read_to_string(scene.write_policy()).unwrap();
        let copy = copy.replace("environment = \"test\"", "environment = \"prod\"").replace("sealed.age", "prod.age");
        scene.write("prod.toml", copy.as_bytes());
        break_it(&scene);
        let failed = |begin: &str, end: &str| format!("{begin}, {end} failed");
        assert_eq!(
            events(&left_by(&scene, &["run", "--", "true"], b"", status)),
            failed(REQUESTED, "access.failed"),
            "the request is written before the store is looked at"
        );
        for words in [&["list"][..], &["check"], &["history", "TOKEN"]] {
            assert_eq!(events(&left_by(&scene, words, b"", status)), failed(LISTED, "secret.listed"), "{words:?}");
        }
        let before = scene.audit().len();
        let copied = ["copy", "--from", "policy.toml", "--to", "prod.toml", "TOKEN"];
        scene.vouchsafe(&copied).expect_status(status);
        assert_eq!(events(&scene.audit()[before..]), failed(REQUESTED, "access.failed"));
        if status == 124 {
            assert_eq!(events(&left_by(&scene, &["set", "TOKEN"], b"x", status)), failed(WRITE, "secret.written"));
        }
        assert_eq!(events(&left_by(&scene, &["remove", "TOKEN"], b"", status)), failed(WRITE, "secret.removed"));
    }
}

#[test]
fn a_copy_is_a_release_at_one_end_and_a_write_at_the_other() {
    let scene = lived_in();
    let text = std::fs::read_to_string(scene.write_policy()).unwrap();
    let text = text.replace("environment = \"test\"", "environment = \"prod\"").replace("sealed.age", "prod.age");
    scene.write("prod.toml", text.as_bytes());
    let before = scene.audit().len();
    scene.vouchsafe(&["copy", "--from", "policy.toml", "--to", "prod.toml", "TOKEN"]).expect_status(0);
    let records = scene.audit().split_off(before);
    let expected = format!("{REQUESTED}, access.released succeeded, {WRITE}, secret.written succeeded");
    assert_eq!(events(&records), expected);
    let environments: Vec<_> = records.iter().map(|record| record["environment"].as_str().unwrap()).collect();
    assert_eq!(environments, ["test", "test", "prod", "prod"]);
    assert_eq!(records[1]["secrets"][0]["version"], 2);
    assert_eq!(records[3]["secrets"][0]["version"], 1);
}

#[test]
fn a_record_says_who_what_and_where_from() {
    let scene = lived_in();
    let records = left_by(&scene, &["run", "--", "sh", "-c", "exit 0", "secret-argument"], b"", 0);
    for record in &records {
        assert_eq!(record["environment"], "test");
        assert_eq!(record["actor"]["uid"], rustix::process::getuid().as_raw());
        assert_eq!(record["command"]["path"], "/usr/bin/sh");
        assert_eq!(record["command"]["arguments"], 3);
        assert_eq!(record["policy"].as_str().unwrap().len(), 64);
        assert!(!record.to_string().contains("secret-argument"), "arguments may hold secrets");
    }
    assert!(records[0]["grants"][0].as_str().unwrap().contains("policy.toml:"));
    assert_eq!(records[1]["secrets"][1]["name"], "TOKEN");
    assert_eq!(records[1]["secrets"][1]["version"], 2);
}

fn no_child(scene: &Scene, status: i32) -> Outcome {
    let outcome = scene.run(&["touch", "started"]).expect_status(status);
    assert!(!scene.path("started").exists(), "the child was started without a record");
    outcome
}

#[test]
fn without_a_record_there_is_no_access() {
    let with = |sinks: &str| Scene::with(&[("A", "1")]).sinks(sinks);
    no_child(&with(""), 123);
    no_child(&with("[[audit.sinks]]\ntype = \"fd\"\nfd = 7\n"), 123);
    let file = |path: &str| with(&format!("[[audit.sinks]]\ntype = \"file\"\npath = \"{path}\"\n"));
    no_child(&file("/proc/version"), 123);
    no_child(&file("/dev/full"), 123);
    no_child(&file("no/such/folder/log"), 123);
    for mode in [0o604, 0o620, 0o700] {
        let scene = Scene::with(&[("A", "1")]);
        scene.write_mode("audit.jsonl", b"", mode);
        no_child(&scene, 123);
        assert_eq!(std::fs::read(scene.path("audit.jsonl")).unwrap(), b"");
    }
    let scene = Scene::with(&[("A", "1")]);
    std::fs::create_dir(scene.path("open")).unwrap();
    std::fs::set_permissions(scene.path("open"), PermissionsExt::from_mode(0o777)).unwrap();
    let path = scene.path("open/log");
    let scene = scene.sinks(&format!("[[audit.sinks]]\ntype = \"file\"\npath = \"{}\"\n", path.display()));
    no_child(&scene, 123);
}

#[test]
fn every_sink_is_required() {
    let scene = Scene::with(&[("A", "1")]);
    let file = |name: &str| format!("[[audit.sinks]]\ntype = \"file\"\npath = \"{}\"\n", scene.path(name).display());
    let sinks = file("one.jsonl") + &file("two.jsonl");
    let scene = scene.sinks(&sinks);
    scene.run(&["true"]).expect_status(0);
    let lines = |name: &str| std::fs::read_to_string(scene.path(name)).unwrap().lines().count();
    assert_eq!((lines("one.jsonl"), lines("two.jsonl")), (2, 2));
    std::fs::set_permissions(scene.path("two.jsonl"), PermissionsExt::from_mode(0o644)).unwrap();
    let outcome = no_child(&scene, 123);
    assert!(outcome.err().contains("two.jsonl"), "{}", outcome.err());
}

#[test]
fn standard_error_and_other_descriptors() {
    let scene = Scene::with(&[("A", "1")]).sinks("[[audit.sinks]]\ntype = \"stderr\"\n");
    let outcome = scene.run(&["true"]).expect_status(0);
    let lines: Vec<serde_json::Value> = outcome.err().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events(&lines), format!("{REQUESTED}, access.released succeeded"));
    scene.write("collected", &outcome.stderr);
    scene.vouchsafe(&["audit", "verify", "collected"]).expect_status(0);

    let scene = Scene::with(&[("A", "1")]).sinks("[[audit.sinks]]\ntype = \"fd\"\nfd = 9\n");
    let line = scene.run_arguments(&["sh", "-c", "echo from the child >&9"]);
    let mut words: Vec<std::ffi::OsString> =
        ["-c", "exec \"$@\" 9>>log", "sh", crate::harness::VOUCHSAFE].map(Into::into).to_vec();
    words.extend(line);
    assert!(scene.other("sh", &words).status().unwrap().success());
    let log = std::fs::read_to_string(scene.path("log")).unwrap();
    assert_eq!(log.lines().count(), 3, "the descriptor is the child's too: {log}");
    assert!(log.ends_with("from the child\n"));
    scene.vouchsafe(&["audit", "verify", "log"]).expect_status(0);
}

#[test]
fn a_thousand_secrets_fit_into_lines_that_a_pipe_does_not_tear() {
    let values: Vec<(String, String)> =
        (0..1000).map(|n| (format!("A_RATHER_LONG_NAME_OF_A_SECRET_{n:04}"), format!("v{n}"))).collect();
    let pairs: Vec<(&str, &str)> = values.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let scene = Scene::with(&pairs).sinks("[[audit.sinks]]\ntype = \"stderr\"\n");
    let outcome = scene.run(&["true"]).expect_status(0);
    let longest = outcome.err().lines().map(|line| line.len() + 1).max().unwrap();
    assert!(longest <= 4096, "{longest} bytes");
    let named = |event: &str| -> usize {
        let records = outcome.err().lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        records.filter(|r| r["event"] == event).map(|r| r["secrets"].as_array().map_or(0, Vec::len)).sum()
    };
    assert_eq!((named("access.requested"), named("access.released")), (1000, 1000));
    scene.write("collected", &outcome.stderr);
    scene.vouchsafe(&["audit", "verify", "collected"]).expect_status(0);
}

/// Nobody reads the pipe: refused after the limit, not a hang.
#[test]
fn a_pipe_that_nobody_reads_is_an_error_and_no_hang() {
    let scene = Scene::with(&[("A", "1")]).sinks("[[audit.sinks]]\ntype = \"stderr\"\n");
    let arguments = scene.run_arguments(&["touch", "started"]);
    let (reader, writer) = std::io::pipe().unwrap();
    let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
    rustix::fs::fcntl_setfl(&writer, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
    while rustix::io::write(writer.as_fd(), &[b'x'; 4096]).is_ok() {}
    rustix::fs::fcntl_setfl(&writer, flags).unwrap();
    let child = scene.command(&arguments).stdout(Stdio::piped()).stderr(writer).spawn().unwrap();
    assert_eq!(wait(child).status.code(), Some(123));
    assert!(!scene.path("started").exists());
    drop(reader);
}

#[test]
fn a_log_that_was_moved_is_followed_by_a_new_one() {
    let scene = Scene::with(&[("A", "1")]);
    scene.run(&["true"]).expect_status(0);
    std::fs::rename(scene.path("audit.jsonl"), scene.path("audit.jsonl.1")).unwrap();
    scene.run(&["true"]).expect_status(0);
    let verify = |words: &[&str], status: i32| {
        scene.vouchsafe(&[&["audit", "verify"], words].concat()).expect_status(status);
    };
    verify(&["audit.jsonl.1", "audit.jsonl"], 0);
    verify(&["audit.jsonl", "audit.jsonl.1"], 11);
    verify(&["audit.jsonl"], 12);
    verify(&["--anywhere", "audit.jsonl"], 0);
    let shown = scene.vouchsafe(&["audit", "show", "audit.jsonl.1", "audit.jsonl"]).expect_status(0);
    assert_eq!(shown.out().matches("access.released").count(), 2);
    let json = scene.vouchsafe(&["audit", "show", "--json", "audit.jsonl"]).expect_status(0);
    assert_eq!(json.stdout, std::fs::read(scene.path("audit.jsonl")).unwrap());
}

/// A mistyped path is no log that lost its records, two logs are no log that was replaced, and the hints can be typed.
#[test]
fn what_was_mistaken_for_a_log_is_not_called_damaged() {
    let scene = Scene::with(&[("A", "1")]);
    scene.run(&["true"]).expect_status(0);
    scene.write("notes", b"one\ntwo\n");
    scene.write("audit.jsonl.2.gz", &[0x1f, 0x8b, 8, 0, b'\n', 1]);
    let verify = |words: &[&str], status: i32| {
        scene.vouchsafe(&[&["audit", "verify"], words].concat()).expect_status(status).err().to_owned()
    };
    let said = verify(&["notes"], 123);
    assert!(said.contains("`notes` is no audit log: none of its 2 lines is a record"), "{said}");
    // In the place of a log that others speak of, it is what somebody made of it.
    verify(&["notes", "audit.jsonl"], 11);
    let note = scene.vouchsafe(&["audit", "checkpoint", "audit.jsonl"]).expect_status(0).stdout;
    let key =
        scene.vouchsafe(&["audit", "checkpoint", "--key", "audit.jsonl"]).expect_status(0).out().trim().to_owned();
    scene.write("note", &note);
    verify(&["--checkpoint", "note", "--key", &key, "notes"], 11);
    let said = verify(&["audit.jsonl.2.gz", "audit.jsonl"], 123);
    assert!(said.contains("is compressed") && said.contains("hint: zcat audit.jsonl.2.gz > FILE"), "{said}");
    for command in [&["show"][..], &["who-has", "A"]] {
        let line = [&["audit"], command, &["audit.jsonl.2.gz"]].concat();
        let said = scene.vouchsafe(&line).expect_status(123);
        assert!(said.err().contains("hint: zcat audit.jsonl.2.gz > FILE"), "{}", said.err());
    }
    // The logs of two users.
    std::fs::rename(scene.path("audit.jsonl"), scene.path("1000.jsonl")).unwrap();
    std::fs::remove_file(scene.path("audit.jsonl.head")).unwrap();
    scene.run(&["true"]).expect_status(0);
    let said = verify(&["1000.jsonl", "audit.jsonl"], 12);
    assert!(said.contains("this is another log, or"), "{said}");
    assert!(said.contains("hint: vouchsafe audit verify audit.jsonl   # each log by itself"), "{said}");
    verify(&["audit.jsonl"], 0);
    verify(&["1000.jsonl"], 0);
    // The file before the one before.
    let text = std::fs::read_to_string(scene.path("audit.jsonl")).unwrap();
    scene.write("l.1", text.split_inclusive('\n').next_back().unwrap().as_bytes());
    let said = verify(&["l.1"], 12);
    assert!(said.contains("hint: vouchsafe audit verify l.2 l.1   # rotated logs, oldest first"), "{said}");
}

/// Anybody on the host may write to syslog: his line says nothing of the log.
#[test]
fn a_forged_line_in_syslog_does_not_make_a_good_log_tampered() {
    use base64::Engine as _;
    let scene = Scene::with(&[("A", "1")]);
    scene.run(&["true"]).expect_status(0);
    let ask =
        |words: &[&str]| scene.vouchsafe(&[&["audit", "checkpoint", "audit.jsonl"], words].concat()).out().to_owned();
    let (note, key) = (ask(&[]), ask(&["--key"]));
    let forged = note.replacen("\n2\n", "\n1\n", 1);
    assert_ne!(forged, note);
    let line = |note: &str| {
        let note = base64::engine::general_purpose::STANDARD.encode(note);
        format!("Jan  2 03:04:05 host vouchsafe: vouchsafe-checkpoint/1 {note}\n")
    };
    scene.write("messages", (line(&forged) + &line(&note)).as_bytes());
    scene.write("forged", forged.as_bytes());
    let verify = |file: &str, status: i32| {
        let line = ["audit", "verify", "--checkpoint", file, "--key", key.trim(), "audit.jsonl"];
        scene.vouchsafe(&line).expect_status(status)
    };
    let good = verify("messages", 0);
    assert!(good.out().contains("1 checkpoint, 1 unverified checkpoint"), "{}", good.out());
    assert!(verify("forged", 11).err().contains("not signed by the key that they name"));
    // Rewritten all the same: the other line says so.
    let text = std::fs::read_to_string(scene.path("audit.jsonl")).unwrap();
    scene.write("audit.jsonl", text.split_inclusive('\n').next().unwrap().as_bytes());
    verify("messages", 12);
}

/// Truncated and written on, by somebody who has no idea of chains.
#[test]
fn a_log_that_was_cut_and_continued_does_not_verify() {
    let scene = Scene::with(&[("A", "1")]);
    for _ in 0..3 {
        scene.run(&["true"]).expect_status(0);
    }
    let text = std::fs::read_to_string(scene.path("audit.jsonl")).unwrap();
    let cut: String = text.split_inclusive('\n').take(3).collect();
    std::fs::write(scene.path("audit.jsonl"), cut).unwrap();
    scene.vouchsafe(&["audit", "verify", "audit.jsonl"]).expect_status(12);
    scene.run(&["true"]).expect_status(0);
    let outcome = scene.vouchsafe(&["audit", "verify", "audit.jsonl"]);
    assert!(matches!(outcome.status.code(), Some(11 | 12)), "{}", outcome.transcript());
}

/// The whole way of a seal: the auditor's recipient, the log, and back at the auditor with his key.
#[test]
fn a_sealed_log_is_verified_by_its_auditor_alone() {
    let scene = Scene::with(&[("A", "1")]);
    let auditor = scene.recipient();
    let sink = format!(
        "[[audit.sinks]]\ntype = \"file\"\npath = \"{}\"\nsync = false\nauditor = \"{auditor}\"\n",
        scene.path("audit.jsonl").display()
    );
    let scene = scene.sinks(&sink);
    let refused = no_child(&scene, 123);
    assert!(refused.err().contains("audit init --auditor"), "{}", refused.err());
    let begun = scene
        .vouchsafe(&["audit", "init", "--auditor", &auditor, "--seed", "seed.age", "audit.jsonl"])
        .expect_status(0);
    assert!(begun.out().contains("sealed from record 1 on"), "{}", begun.transcript());
    let seed = std::fs::read_to_string(scene.path("seed.age")).unwrap();
    assert!(seed.starts_with("-----BEGIN AGE ENCRYPTED FILE-----"));
    scene.run(&["true"]).expect_status(0);
    let verify = |words: &[&str], status| {
        scene.vouchsafe(&[&["audit", "verify", "audit.jsonl"], words].concat()).expect_status(status)
    };
    assert!(
        verify(&["--seed", "seed.age", "--identity", "identity.key"], 0)
            .out()
            .contains("3 records in 1 chain, 3 sealed")
    );
    assert!(verify(&[], 0).out().contains("3 of unproven seal"));
    verify(&["--seed", "seed.age"], 124);
    verify(&["--seed", "none.age", "--identity", "identity.key"], 123);
    verify(&["--seed", "policy.toml", "--identity", "identity.key"], 123);
    verify(&["--identity", "identity.key"], 2);
    // By the stock tool's means: a seed that was decrypted elsewhere.
    let key = std::fs::read_to_string(scene.path("identity.key")).unwrap();
    let identity: age::x25519::Identity = key.lines().find(|line| line.starts_with("AGE-")).unwrap().parse().unwrap();
    let plain = age::decrypt(&identity, seed.as_bytes()).unwrap();
    scene.write("plain", &plain);
    verify(&["--seed", "plain"], 0);
    // The seed is nowhere on the host but under the auditor's key.
    let plain = String::from_utf8(plain).unwrap();
    let key = plain.lines().find_map(|line| line.strip_prefix("key ")).unwrap();
    for name in ["audit.jsonl", "audit.jsonl.seal", "audit.jsonl.head", "seed.age"] {
        assert!(!std::fs::read_to_string(scene.path(name)).unwrap().contains(key), "{name}");
    }
    // Once is enough, and a private key in the place of the recipient is not shown.
    scene.vouchsafe(&["audit", "init", "--auditor", &auditor, "--seed", "other.age", "audit.jsonl"]).expect_status(123);
    let secret = key.to_owned();
    let mistaken = scene.vouchsafe(&["audit", "init", "--auditor", &secret, "log"]).expect_status(2);
    assert!(
        !mistaken.transcript().replace(&format!("--auditor {secret}"), "").contains(&secret),
        "{}",
        mistaken.transcript()
    );
}

#[test]
fn no_name_forges_a_line() {
    let odd = "x\n{\"event\":\"access.released\"}\n\u{202e}\x1b[31m";
    let scene = Scene::with(&[("A", "1")]);
    scene.write_mode(odd, b"#!/bin/sh\n", 0o755);
    scene.run(&[format!("./{odd}")]).expect_status(0);
    scene.run(&["sh", "-c", ":", odd]).expect_status(0);
    let log = std::fs::read_to_string(scene.path("audit.jsonl")).unwrap();
    assert_eq!(log.lines().count(), 4);
    assert!(log.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n')), "{log}");
    let command = scene.audit()[0]["command"]["path"].as_str().unwrap().to_owned();
    assert!(command.contains("access.released") && !command.contains('\n'), "{command:?}");
    scene.vouchsafe(&["audit", "verify", "audit.jsonl"]).expect_status(0);
}

/// AUD-7: with a secret of four digits, a hash or a length would be as good as the value.
#[test]
fn nothing_made_of_a_value_is_in_the_log() {
    let digest = |algorithm, value: &str| -> String {
        ring::digest::digest(algorithm, value.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let logs: Vec<String> = ["7391", "739182"]
        .iter()
        .map(|value| {
            let scene = Scene::sealed(&["PIN"]);
            scene.verb_reading(&["set", "PIN"], value.as_bytes()).expect_status(0);
            scene.run(&["true"]).expect_status(0);
            let log = std::fs::read_to_string(scene.path("audit.jsonl")).unwrap();
            for hash in [&ring::digest::SHA256, &ring::digest::SHA512, &ring::digest::SHA1_FOR_LEGACY_USE_ONLY] {
                assert!(!log.contains(&digest(hash, value)));
            }
            assert!(!log.contains(&format!("\"{value}\"")));
            // What is left once everything that differs between two runs is taken out.
            let fields = ["secrets", "event", "outcome", "environment", "command"];
            let kept = |record: &serde_json::Value| fields.map(|field| record[field].to_string()).join(" ");
            scene.audit().iter().map(kept).collect::<Vec<_>>().join("\n")
        })
        .collect();
    assert_eq!(logs[0], logs[1], "the log tells two values of different length apart");
}
