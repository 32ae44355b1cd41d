//! Attacks on the log, each by somebody who has the host: the log, its head, the state of its seals and the key of its checkpoints,
//! all as they are now. What he does not have is the auditor's seed, and the checkpoints that left the host before.
//!
//! The rows are those of the table in `docs/audit.md`: what is found by the chain alone, by the seals, by the checkpoints.

use ring::hmac;

use crate::harness::Scene;

/// A host with eleven records of five runs, all sealed, and checkpoints of the records 2, 6 and 10 elsewhere.
struct Host {
    scene: Scene,
    key: String,
    /// The logs, oldest first.
    logs: Vec<&'static str>,
    /// What the auditor takes for his seeds.
    seeds: Vec<&'static str>,
}

impl Host {
    fn new() -> Self {
        let scene = Scene::with(&[("A", "1")]);
        let auditor = scene.recipient();
        std::fs::create_dir(scene.path("elsewhere")).unwrap();
        let sinks = format!(
            "[[audit.sinks]]\ntype = \"file\"\npath = \"{}\"\nsync = false\nauditor = \"{auditor}\"\n\
             checkpoints = {{ every = 4, interval = \"1h\", to = [\"file:{}\"] }}\n",
            scene.path("audit.jsonl").display(),
            scene.path("elsewhere/notes").display()
        );
        let scene = scene.sinks(&sinks);
        scene
            .vouchsafe(&["audit", "init", "--auditor", &auditor, "--seed", "seed.age", "audit.jsonl"])
            .expect_status(0);
        let host = Self { key: String::new(), scene, logs: vec!["audit.jsonl"], seeds: vec!["seed.age"] };
        (0..5).for_each(|_| host.run());
        let key = host.scene.vouchsafe(&["audit", "checkpoint", "--key", "audit.jsonl"]).expect_status(0);
        // What he can get at is a copy.
        std::fs::rename(host.scene.path("elsewhere/notes"), host.scene.path("kept")).unwrap();
        assert_eq!(host.lines().len(), 11);
        Self { key: key.out().trim_end().to_owned(), ..host }
    }

    fn run(&self) {
        self.scene.run(&["true"]).expect_status(0);
    }

    fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.scene.path("audit.jsonl")).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn put(&self, lines: &[String]) {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        self.scene.write_mode("audit.jsonl", text.as_bytes(), 0o600);
    }

    fn change(&self, change: impl FnOnce(&mut Vec<String>)) {
        let mut lines = self.lines();
        change(&mut lines);
        self.put(&lines);
    }

    fn remove(&self, endings: &[&str]) {
        for ending in endings {
            std::fs::remove_file(self.scene.path(&format!("audit.jsonl.{ending}"))).unwrap();
        }
    }

    fn move_away(&self) {
        std::fs::rename(self.scene.path("audit.jsonl"), self.scene.path("audit.jsonl.1")).unwrap();
    }

    /// The key for the record after the last, as it lies on the host.
    fn stolen(&self) -> Vec<u8> {
        let state = std::fs::read_to_string(self.scene.path("audit.jsonl.seal")).unwrap();
        let hex = state.split(' ').nth(6).unwrap();
        (0..32).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
    }

    /// Exit statuses: of the chain alone, with the seals, with the checkpoints.
    fn found(&self) -> [i32; 3] {
        let mut seals = vec!["--identity", "identity.key"];
        self.seeds.iter().for_each(|seed| seals.extend(["--seed", seed]));
        let checkpoints = ["--checkpoint", "kept", "--key", &self.key];
        [&[][..], &seals, &checkpoints].map(|means| {
            let line = [&["audit", "verify"], means, &self.logs].concat();
            self.scene.vouchsafe(&line).status.code().unwrap()
        })
    }
}

/// How somebody seals who makes a chain anew.
enum Seals {
    /// As each record was.
    Kept,
    /// As each record was, and from the record of this number on not at all.
    Until(usize),
    /// Not at all.
    None,
    /// By this key, and those that follow from it, from the record of this number on.
    By(Vec<u8>, u64),
}

fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn member<'l>(line: &'l str, name: &str) -> &'l str {
    line.split(&format!("\"{name}\":\"")).nth(1).unwrap().split('"').next().unwrap()
}

/// The lines as one perfect chain: numbered, chained, hashed.
fn chained(lines: &[String], seals: Seals) -> Vec<String> {
    let stream = member(&lines[0], "stream").to_owned();
    let (mut prev, mut out) = ("0".repeat(64), Vec::new());
    let (mut key, from) = match &seals {
        Seals::By(key, from) => (key.clone(), *from),
        Seals::Kept | Seals::None | Seals::Until(_) => (Vec::new(), u64::MAX),
    };
    for (seq, line) in (1_u64..).zip(lines) {
        let head = line.split(",\"stream\":").next().unwrap();
        let mut body = format!("{head},\"stream\":\"{stream}\",\"seq\":{seq},\"prev\":\"{prev}");
        if seq >= from {
            let seal = mac(&mac(&key, b"vouchsafe-audit-seal/1 seal"), body.as_bytes());
            key = mac(&key, b"vouchsafe-audit-seal/1 next");
            body.push_str(&format!("\",\"seal\":\"{}", hex(&seal)));
        } else if match seals {
            Seals::None => false,
            Seals::Until(last) => seq <= last as u64,
            Seals::Kept | Seals::By(..) => true,
        } {
            body.push_str(&format!("\",\"seal\":\"{}", member(line, "seal")));
        }
        body.push('"');
        prev = hex(ring::digest::digest(&ring::digest::SHA256, body.as_bytes()).as_ref());
        out.push(format!("{body},\"hash\":\"{prev}\"}}"));
    }
    out
}

fn edited(line: &str) -> String {
    let other = line.replace("\"name\":\"A\"", "\"name\":\"B\"");
    assert_ne!(other, line);
    other
}

fn edited_if(line: &str) -> String {
    line.replace("\"name\":\"A\"", "\"name\":\"B\"")
}

fn as_stream(line: &str) -> String {
    line.replace("\"assurance\":\"file\"", "\"assurance\":\"stream\"")
}

/// A record that says that the seals begin anew.
fn unknown_epoch(begun: &str) -> String {
    let (from, to) = begun.split_once("\"epoch\":{\"id\":\"").unwrap();
    format!("{from}\"epoch\":{{\"id\":\"0123456789abcdef{}", &to[16..])
}

type Attack = (&'static str, fn(&mut Host));

const ATTACKS: &[Attack] = &[
    ("nothing: the log as it is", |_| ()),
    ("edit a record", |host| host.change(|lines| lines[5] = edited(&lines[5]))),
    ("edit a record and make the chain anew", |host| {
        host.change(|lines| {
            lines[5] = edited(&lines[5]);
            *lines = chained(lines, Seals::Kept);
        });
        host.remove(&["head"]);
    }),
    ("delete a record", |host| host.change(|lines| drop(lines.remove(5)))),
    ("delete a record and make the chain anew", |host| {
        host.change(|lines| {
            lines.remove(5);
            *lines = chained(lines, Seals::Kept);
        });
        host.remove(&["head"]);
    }),
    ("insert a record", |host| {
        host.change(|lines| {
            let forged = chained(&lines[..6], Seals::None).pop().unwrap();
            lines.insert(6, forged);
        });
    }),
    ("insert a record and make the chain anew", |host| {
        host.change(|lines| {
            lines.insert(6, edited(&lines[5]));
            *lines = chained(lines, Seals::Kept);
        });
        host.remove(&["head"]);
    }),
    ("reorder two records", |host| host.change(|lines| lines.swap(5, 6))),
    ("duplicate a record", |host| host.change(|lines| lines.insert(6, lines[5].clone()))),
    ("take the seals off and make the chain anew", |host| {
        host.change(|lines| *lines = chained(lines, Seals::None));
        host.remove(&["head"]);
    }),
    ("delete every second record of forty, and edit one after them", |host| {
        (0..20).for_each(|_| host.run());
        host.change(|lines| {
            let mut kept = (0..42).step_by(2).map(|at| lines[at].clone()).collect::<Vec<_>>();
            kept.extend_from_slice(&lines[42..]);
            let last = kept.len() - 2;
            kept[last] = edited(&kept[last]);
            *lines = kept;
        });
    }),
    ("truncate", |host| host.change(|lines| lines.truncate(6))),
    ("truncate, and remove the head and the state of the seals", |host| {
        host.change(|lines| lines.truncate(6));
        host.remove(&["head", "seal"]);
    }),
    ("the same, only what came after the last checkpoint", |host| {
        host.change(|lines| lines.truncate(10));
        host.remove(&["head", "seal"]);
    }),
    ("truncate, remove the head, and resume", |host| {
        host.change(|lines| lines.truncate(6));
        host.remove(&["head"]);
        host.run();
    }),
    ("truncate, remove the head and the state of the seals, and resume", |host| {
        host.change(|lines| lines.truncate(6));
        host.remove(&["head", "seal"]);
        host.run();
        host.run();
    }),
    ("delete a rotated file", |host| {
        host.move_away();
        host.run();
        std::fs::remove_file(host.scene.path("audit.jsonl.1")).unwrap();
    }),
    ("swap rotated files", |host| {
        host.move_away();
        host.run();
        host.logs = vec!["audit.jsonl", "audit.jsonl.1"];
    }),
    ("rewrite all: a fresh chain in the place of the log", |host| {
        let fresh = Scene::with(&[("A", "1")]);
        (0..6).for_each(|_| drop(fresh.run(&["true"]).expect_status(0)));
        for name in ["audit.jsonl", "audit.jsonl.head"] {
            std::fs::copy(fresh.path(name), host.scene.path(name)).unwrap();
        }
    }),
    ("the same, as a collected stream", |host| {
        host.change(|lines| {
            *lines = lines.iter().map(|line| as_stream(&edited_if(line))).collect();
            *lines = chained(lines, Seals::None);
        });
        host.remove(&["head"]);
    }),
    ("the same, as a collected stream, and leave the head", |host| {
        host.change(|lines| {
            *lines = chained(&lines.iter().map(|line| as_stream(line)).collect::<Vec<_>>()[..6], Seals::None);
        });
    }),
    ("the same, sealed for the same auditor, who takes the new seed too", |host| {
        for ending in ["", ".head", ".seal", ".checkpoint"] {
            std::fs::remove_file(host.scene.path(&format!("audit.jsonl{ending}"))).unwrap();
        }
        let auditor = host.scene.recipient();
        let init = ["audit", "init", "--auditor", &auditor, "--seed", "own.age", "audit.jsonl"];
        host.scene.vouchsafe(&init).expect_status(0);
        (0..6).for_each(|_| host.run());
        host.seeds.push("own.age");
    }),
    ("put a forged file among the rotated ones, as a collected stream", |host| {
        host.move_away();
        host.run();
        let forged: Vec<_> = host.lines().iter().map(|line| as_stream(line)).collect();
        let forged = chained(&forged, Seals::None).join("\n") + "\n";
        host.scene.write_mode("forged.jsonl", forged.as_bytes(), 0o600);
        host.logs = vec!["audit.jsonl.1", "forged.jsonl", "audit.jsonl"];
    }),
    ("put garbage in the place of the log after its rotation", |host| {
        host.move_away();
        host.run();
        host.scene.write_mode("audit.jsonl", b"nothing\nto see\n", 0o600);
        host.remove(&["head"]);
        host.logs = vec!["audit.jsonl.1", "audit.jsonl"];
    }),
    ("edit the last record, and take the end of its line", |host| {
        host.change(|lines| lines[10] = edited(&lines[10]));
        let text = host.lines().join("\n");
        host.scene.write_mode("audit.jsonl", text.as_bytes(), 0o600);
    }),
    ("excuse what is rewritten by an epoch that nobody knows", |host| {
        host.change(|lines| {
            lines[5] = unknown_epoch(&lines[0]);
            *lines = chained(lines, Seals::Until(5));
        });
        host.remove(&["head"]);
    }),
    ("the same, sealed by keys of one's own", |host| {
        host.change(|lines| {
            lines[5] = unknown_epoch(&lines[0]);
            let by = Seals::By(vec![7; 32], 6);
            *lines = chained(lines, by);
        });
        host.remove(&["head"]);
    }),
    ("swap the logs of two hosts", |host| {
        let other = Host::new();
        for name in ["audit.jsonl", "audit.jsonl.head", "audit.jsonl.seal"] {
            std::fs::copy(other.scene.path(name), host.scene.path(name)).unwrap();
        }
    }),
    ("put a record of another host in", |host| {
        let other = Host::new();
        host.change(|lines| lines[5] = other.lines()[5].clone());
    }),
    ("set the clock back by an hour", |host| {
        // What a writer leaves whose clock was set back: the present key is the right one for it.
        let key = host.stolen();
        host.change(|lines| {
            let earlier = lines[10].replace(member(&lines[10], "time"), "2026-01-01T00:00:00.000000Z");
            lines.push(earlier);
            let all = chained(lines, Seals::By(key, 12));
            *lines = all;
        });
    }),
    ("steal the present key and rewrite what was", |host| {
        let key = host.stolen();
        host.change(|lines| {
            lines[5] = edited(&lines[5]);
            *lines = chained(lines, Seals::By(key, 6));
        });
        host.remove(&["head"]);
    }),
    ("steal the present key and write on", |host| {
        let key = host.stolen();
        host.change(|lines| {
            lines.push(edited(&lines[10]));
            *lines = chained(lines, Seals::By(key, 12));
        });
    }),
];

#[test]
fn the_table_of_attacks_is_true() {
    let word = |status: i32| match status {
        0 => "not found",
        11 => "tampered",
        12 => "incomplete",
        other => panic!("status {other}"),
    };
    let rows: Vec<String> = ATTACKS
        .iter()
        .map(|(name, attack)| {
            let mut host = Host::new();
            attack(&mut host);
            let [chain, seals, checkpoints] = host.found().map(word);
            format!("| {name} | {chain} | {seals} | {checkpoints} |")
        })
        .collect();
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/audit.md")).unwrap();
    let table = text.split("| attack |").nth(1).unwrap_or_default();
    let documented: Vec<&str> = table.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    assert_eq!(documented, rows, "\n{}", rows.join("\n"));
}

/// A byte of the notes that were kept, or of the key, is no less than a byte of the log.
#[test]
fn checkpoints_that_are_not_by_the_key_are_no_checkpoints() {
    let host = Host::new();
    let notes = std::fs::read_to_string(host.scene.path("kept")).unwrap();
    let verify = |status| {
        host.scene
            .vouchsafe(&["audit", "verify", "--checkpoint", "kept", "--key", &host.key, "audit.jsonl"])
            .expect_status(status)
    };
    assert!(verify(0).out().contains("3 checkpoints"));
    host.scene.write("kept", notes.replace("\n10\n", "\n8\n").as_bytes());
    assert!(verify(11).err().contains("not signed by the key"));
    host.scene.write("kept", b"");
    verify(123);
    std::fs::remove_file(host.scene.path("kept")).unwrap();
    verify(123);
    let other = Host::new();
    host.scene.write("kept", &std::fs::read(other.scene.path("kept")).unwrap());
    let is_other = other.key != host.key;
    assert!(is_other, "each log has a key of its own");
    // The name is the same, the key is not.
    verify(123);
    host.scene.vouchsafe(&["audit", "verify", "--checkpoint", "kept", "audit.jsonl"]).expect_status(2);
    host.scene
        .vouchsafe(&["audit", "verify", "--key", "x+y+z", "--checkpoint", "kept", "audit.jsonl"])
        .expect_status(2);
}

#[test]
fn the_checkpoint_of_now_is_printed_and_verifies() {
    let host = Host::new();
    let note = host.scene.vouchsafe(&["audit", "checkpoint", "audit.jsonl"]).expect_status(0);
    assert!(note.out().lines().nth(1) == Some("11"), "{}", note.out());
    host.scene.write("kept", note.out().as_bytes());
    assert_eq!(host.found(), [0, 0, 0]);
    host.change(|lines| lines.truncate(10));
    host.remove(&["head", "seal"]);
    assert_eq!(host.found(), [0, 0, 12]);
    host.scene.vouchsafe(&["audit", "checkpoint", "none.jsonl"]).expect_status(123);
    assert!(!host.scene.path("none.jsonl").exists());
}

#[test]
fn the_checkpoint_of_now_is_sent_everywhere() {
    let host = Host::new();
    let send = |status| host.scene.verb(&["audit", "checkpoint", "--send"]).expect_status(status);
    let notes = || std::fs::read_to_string(host.scene.path("elsewhere/notes")).unwrap_or_default();
    assert!(send(0).out().contains("audit.jsonl: the checkpoint of now went to file:"));
    assert_eq!(notes().trim_start().lines().nth(1), Some("11"), "{}", notes());
    assert_eq!(host.lines().len(), 11, "one that arrives is no record");
    // Of a log that rests, again.
    send(0);
    assert_eq!(notes().matches("stream ").count(), 2);
    host.scene.write("notes", notes().as_bytes());
    host.scene
        .vouchsafe(&["audit", "verify", "--checkpoint", "notes", "--key", &host.key, "audit.jsonl"])
        .expect_status(0);
    std::fs::remove_dir_all(host.scene.path("elsewhere")).unwrap();
    let outcome = send(123);
    assert!(outcome.err().contains("did not arrive: file:"), "{}", outcome.transcript());
    assert!(host.lines().last().unwrap().contains("audit.checkpoint_failed"));
    for wrong in [&["audit", "checkpoint"][..], &["audit", "checkpoint", "--send", "audit.jsonl"]] {
        host.scene.vouchsafe(wrong).expect_status(2);
    }
    Scene::with(&[("A", "1")]).verb(&["audit", "checkpoint", "--send"]).expect_status(2);
}

#[test]
fn who_leaves_checkpoints_to_others_is_told() {
    let sink = "[[audit.sinks]]\ntype = \"file\"\npath = \"log\"\ncheckpoints = { to = [{ type = \"ssm\", name = \"/a\" }] }\n";
    let scene = Scene::with(&[("A", "1")]).sinks(sink);
    scene.write_policy();
    let outcome = scene.vouchsafe(&["policy", "lint", "policy.toml"]).expect_status(0);
    assert!(outcome.out().contains("note: no `run` takes checkpoints to `ssm:/a`"), "{}", outcome.out());
    // Nothing says in which region: a run does not ask.
    scene.run(&["true"]).expect_status(0);
    // Whose account it is in is told too.
    std::fs::copy(scene.path("policy.toml"), scene.path("old.toml")).unwrap();
    let text = std::fs::read_to_string(scene.path("old.toml")).unwrap();
    scene.write("policy.toml", text.replace("\"/a\"", "\"/a\", account = \"111122223333\"").as_bytes());
    let outcome = scene.vouchsafe(&["policy", "diff", "old.toml", "policy.toml"]).expect_status(13);
    assert!(outcome.out().contains("[\"ssm:/a\" account \"111122223333\"]"), "{}", outcome.out());
}

/// The agent's log is the one that this is for.
#[test]
fn the_agent_seals_and_anchors_its_log() {
    let scene = Scene::with(&[("A", "1")]);
    let auditor = scene.recipient();
    scene.vouchsafe(&["audit", "init", "--auditor", &auditor, "--seed", "seed.age", "agent.jsonl"]).expect_status(0);
    let host = format!(
        "auditor = \"{auditor}\"\ncheckpoints = {{ every = 2, to = [\"file:{}\"] }}\n",
        scene.path("notes").display()
    );
    let agent = crate::agent_scene::Agent::start_with(&scene, &host, &[]);
    for _ in 0..4 {
        agent.run(&["--", "true"]).expect_status(0);
    }
    agent.end();
    let key = scene.vouchsafe(&["audit", "checkpoint", "--key", "agent.jsonl"]).expect_status(0);
    let outcome = scene.vouchsafe(&[
        "audit",
        "verify",
        "--seed",
        "seed.age",
        "--identity",
        "identity.key",
        "--checkpoint",
        "notes",
        "--key",
        key.out().trim_end(),
        "agent.jsonl",
    ]);
    let outcome = outcome.expect_status(0);
    let records = std::fs::read_to_string(scene.path("agent.jsonl")).unwrap().lines().count();
    assert!(outcome.out().contains(&format!("{records} sealed")), "{}", outcome.out());
}
