//! Names from elsewhere that would forge a line or colour a terminal: no command prints a raw control byte. CFG-5.

use std::time::SystemTime;

use vouchsafe::name::{EnvironmentName, ItemName};
use vouchsafe::secret::Secret;
use vouchsafe::store::document::Document;
use vouchsafe::store::sealed;

use crate::harness::Scene;
use crate::mask::assert_printable;

/// Writes the sealed file of a scene as `set` would have, at other times, with other names.
pub fn write_document(scene: &Scene, items: &[(&str, &str, SystemTime)]) {
    let mut document = Document::new(EnvironmentName::new("test").unwrap(), None);
    for (name, value, time) in items {
        let item = ItemName::new(*name).unwrap();
        document.set(&item, Secret::new(value.as_bytes().to_vec()), "somebody@somewhere", *time).unwrap();
    }
    write_plaintext(scene, document.to_plaintext());
}

pub fn write_plaintext(scene: &Scene, plaintext: Secret) {
    let recipient: age::x25519::Recipient = scene.recipient().parse().unwrap();
    let bytes = sealed::encrypt(&plaintext, [&recipient as &dyn age::Recipient]);
    scene.write("sealed.age", &bytes.unwrap_or_else(|_| panic!("does not encrypt")));
}

const HOSTILE: [&str; 6] = [
    "\x1b[2J\x1b[31mred",
    "line\nforged: ok",
    "\r\x08\x08\x08hidden",
    "\u{202e}txt.exe",
    "\u{9b}31m",
    "a\u{200b}b\u{7}",
];

#[test]
fn names_of_files_are_escaped() {
    for name in HOSTILE {
        let scene = Scene::with(&[("A", "1")]);
        scene.write(name, b"not a policy, a store or a log");
        for line in [
            &["run", "--policy", name, "--", "true"][..],
            &["check", "--policy", name],
            &["policy", "lint", name],
            &["policy", "lint", &format!("absent{name}")],
            &["list", "--file", name],
            &["audit", "verify", name],
            &["audit", "show", name],
            &["audit", "show", &format!("absent{name}")],
            &["copy", "--from", name, "--to", name, "A"],
            &["init", name, "--identity", "key", "--log", "log"],
            &["init", ".", "--identity", name, "--log", "log"],
        ] {
            let outcome = scene.vouchsafe(line);
            assert_printable(&outcome);
            assert!(!matches!(outcome.status.code(), None | Some(101 | 134)), "{}", outcome.transcript());
        }
        for command in [name, &format!("./{name}")] {
            assert_printable(&scene.run(&[command]).expect_status(if command == name { 127 } else { 126 }));
        }
        assert_printable(&scene.verb(&["explain", "--only", name, "--", "true"]).expect_status(2));
        assert_printable(&scene.vouchsafe(&[name]).expect_status(2));
        assert_printable(&scene.vouchsafe(&[&format!("--{name}")]).expect_status(2));
    }
}

#[test]
fn names_of_variables_are_escaped() {
    for name in HOSTILE {
        let scene = Scene::with(&[("A", "1")]).variable(name, name).and("[child]\ninherit = [\"PATH\"]");
        for json in [false, true] {
            let line = if json { &["explain", "--json"][..] } else { &["explain"] };
            assert_printable(&scene.verb(line).expect_status(0));
        }
    }
}

#[test]
fn what_a_store_says_is_escaped() {
    // No document of ours takes such a name; one made by others may claim to.
    for name in HOSTILE.into_iter().chain(["A"]) {
        let scene = Scene::sealed(&["A"]).and("R = { item = \"A\", rotate = {} }");
        for (place, text) in [
            ("items", r#"{"NAME":{"current":{"number":1,"time":"2026-01-01T00:00:00Z","author":"x","value":"v"}}}"#),
            ("items", r#"{"A":{"current":{"number":1,"time":"2026-01-01T00:00:00Z","author":"NAME","value":"v"}}}"#),
            ("environment", "\"NAME\""),
            ("format", "\"NAME\""),
        ]
        .into_iter()
        .filter(|(place, _)| name != "A" || *place == "items")
        {
            let mut json = serde_json::json!({
                "format": "vouchsafe-sealed/1", "environment": "test", "service": null, "generation": 1, "items": {}
            });
            let quoted = serde_json::to_string(name).unwrap();
            json[place] = serde_json::from_str(&text.replace("NAME", quoted.trim_matches('"'))).unwrap();
            write_plaintext(&scene, Secret::new(serde_json::to_vec(&json).unwrap()));
            let file = scene.path("sealed.age");
            for line in [
                &["list"][..],
                &["list", "--json"],
                &["list", "--file", file.to_str().unwrap()],
                &["check"],
                &["history", "A"],
                &["run", "--", "true"],
                &["rotate", "--all"],
                &["remove", "A"],
            ] {
                let outcome = scene.verb(line);
                assert_printable(&outcome);
                // The plain name shows that the document fails for its names alone.
                assert_eq!(outcome.status.success(), name == "A", "{}", outcome.transcript());
            }
        }
    }
}

#[test]
fn what_a_bundle_brings_is_escaped() {
    let now = SystemTime::now();
    let scene = Scene::sealed(&["A"]).and("[[bundles]]\nstore = \"files\"\npath = \"b/\"\nnames = \"UPPER_SNAKE\"\n");
    write_document(&scene, &[("A", "1", now), ("b/odd name \"'$(id)`", "2", now), ("b/été", "3", now)]);
    for line in [&["list"][..], &["list", "--json"], &["check"], &["run", "--", "true"]] {
        let outcome = scene.verb(line);
        assert_printable(&outcome);
        assert_eq!(outcome.status.success(), line[0] == "list", "{}", outcome.transcript());
    }
}

/// A log is read as it was found, by whoever finds it.
#[test]
fn logs_of_others_are_escaped() {
    let scene = Scene::new();
    let mut log = Vec::new();
    for name in HOSTILE {
        let record = serde_json::json!({
            "time": name, "event": name, "outcome": name, "actor": { "uid": 1, "user": name },
            "command": { "path": name }, "secrets": [{ "name": name, "version": 1 }]
        });
        log.extend_from_slice(record.to_string().as_bytes());
        log.extend_from_slice(b"\n");
        log.extend_from_slice(name.as_bytes());
        log.extend_from_slice(b"\n\xff\xfe\n");
    }
    scene.write("foreign.jsonl", &log);
    for line in [
        &["audit", "show", "foreign.jsonl"][..],
        &["audit", "show", "--json", "foreign.jsonl"],
        &["audit", "verify", "foreign.jsonl"],
        &["audit", "verify", "--json", "foreign.jsonl"],
    ] {
        assert_printable(&scene.vouchsafe(line));
    }
}
