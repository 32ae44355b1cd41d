//! Who holds which version, and which of those processes still run: real processes, held and let go by their standard
//! input. ROT-12.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, ChildStdin, Stdio};

use serde_json::Value;

use crate::harness::{Outcome, Scene, wait};
use crate::mask::masked;

/// A consumer that has got its secrets and runs until it is let go.
struct Consumer {
    child: Child,
    input: ChildStdin,
}

impl Consumer {
    /// Returns once the program runs: what it prints, it prints after exec.
    fn start(scene: &Scene) -> Self {
        let line = scene.run_arguments(&["sh", "-c", "echo started; exec cat"]);
        let mut child = scene.command(&line).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut started = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut started).unwrap();
        assert_eq!(started, "started\n");
        let input = child.stdin.take().unwrap();
        Self { child, input }
    }

    fn pid(&self) -> u64 {
        self.child.id().into()
    }

    fn let_go(self) {
        drop(self.input);
        wait(self.child);
    }
}

fn json(outcome: &Outcome) -> Value {
    serde_json::from_str(outcome.out()).unwrap()
}

fn holders(found: &Value) -> Vec<(u64, String, u64, u64)> {
    let holders = found["items"][0]["holders"].as_array().unwrap();
    let row = |one: &Value| {
        let number = |field: &str| one[field].as_u64().unwrap();
        (number("version"), one["state"].as_str().unwrap().to_owned(), number("pid"), number("times"))
    };
    holders.iter().map(row).collect()
}

/// `who-has ... --stale && echo nobody is left` must not be true of what was mistyped.
#[test]
fn nobody_is_left_of_what_was_never_there_is_no_answer() {
    let scene = Scene::sealed(&["TOKEN", "UNUSED"]);
    scene.verb_reading(&["set", "TOKEN"], b"x").expect_status(0);
    let stale = |words: &[&str], status: i32| {
        let (name, words) = words.split_first().unwrap();
        let line = [&["audit", "who-has", name, "audit.jsonl", "--stale"], words].concat();
        scene.vouchsafe(&line).expect_status(status)
    };
    stale(&["TOKEN"], 0);
    stale(&["TOKEN", "--env", "test"], 0);
    stale(&["TOKEN", "--since", "0s"], 0);
    for (words, hint) in [
        (&["TOKN"][..], "did you mean `TOKEN`?"),
        (&["TOKEN", "--env", "tset"], "records name it in test"),
        (&["TOKEN", "--service", "apii"], "records name it in test"),
        (&["UNUSED"], "name the logs in which it is"),
    ] {
        let refused = stale(words, 123);
        assert!(refused.err().contains("so nobody can say who has it"), "{}", refused.err());
        assert!(refused.err().contains(hint), "{}", refused.err());
        assert_eq!(refused.out(), "");
    }
    // Where the policy was asked for the logs, what it does not bind is mistyped.
    scene.vouchsafe(&["audit", "who-has", "TOKN", "audit.jsonl"]).expect_status(0);
    let unbound = scene.verb(&["audit", "who-has", "TOKN"]).expect_status(123);
    assert!(unbound.err().contains("the policy does not bind it"), "{}", unbound.err());
    assert!(unbound.err().contains("did you mean `TOKEN`?"), "{}", unbound.err());
    scene.verb(&["audit", "who-has", "UNUSED"]).expect_status(0);
}

#[test]
fn five_children_of_two_versions() {
    let scene = Scene::sealed(&["TOKEN"]);
    let who_has = |words: &[&str], status: i32| {
        scene.verb(&[&["audit", "who-has", "TOKEN"], words].concat()).expect_status(status)
    };
    scene.verb_reading(&["set", "TOKEN"], b"first").expect_status(0);
    let (a, b) = (Consumer::start(&scene), Consumer::start(&scene));
    assert!(who_has(&["--stale"], 0).out().contains("no process is known to hold another version"));
    scene.verb_reading(&["set", "TOKEN"], b"second").expect_status(0);
    let [c, d, e] = [(); 3].map(|()| Consumer::start(&scene));

    let found = json(&who_has(&["--json"], 0));
    let running = |version: u64, consumer: &Consumer| (version, "running".to_owned(), consumer.pid(), 1);
    let mut seen = holders(&found);
    seen.sort();
    let mut all = vec![running(1, &a), running(1, &b), running(2, &c), running(2, &d), running(2, &e)];
    all.sort();
    assert_eq!(seen, all);
    let item = &found["items"][0];
    assert_eq!((&item["current"]["version"], &item["current"]["event"]), (&2.into(), &"secret.written".into()));
    let first = &item["holders"][0];
    assert_eq!(first["uid"], rustix::process::getuid().as_raw());
    assert_eq!(
        (&first["via"], &first["command"], &first["why"]),
        (&"direct".into(), &"/usr/bin/sh".into(), &Value::Null)
    );
    assert_eq!(first["host"], rustix::system::uname().nodename().to_str().unwrap());

    // A release that came to nothing: the file is there and cannot be executed.
    scene.write_mode("broken", b"#!/no/such/interpreter\n", 0o755);
    scene.run(&["./broken"]).expect_status(126);
    // A request that was not fulfilled, and one that was not granted.
    std::fs::rename(scene.path("identity.key"), scene.path("aside.key")).unwrap();
    scene.run(&["true"]).expect_status(124);
    std::fs::rename(scene.path("aside.key"), scene.path("identity.key")).unwrap();
    scene.verb(&["run", "--only", "NO", "--", "true"]).expect_status(120);
    assert_eq!(holders(&json(&who_has(&["--json"], 0))).len(), 5);

    let stale = who_has(&["--stale"], 10);
    assert!(stale.err().contains("error[due]: 2 processes run with another version of `TOKEN`"), "{}", stale.err());
    assert_eq!(stale.out().matches("1 (old)").count(), 2, "{}", stale.out());
    let policy = scene.path("policy.toml").display().to_string();
    let again = format!("look again: vouchsafe audit who-has TOKEN --stale --policy {policy}\n");
    assert!(stale.err().contains(&again), "{}", stale.err());
    let gone = a.pid();
    a.let_go();
    assert_eq!(holders(&json(&who_has(&["--stale", "--json"], 10))), [running(1, &b)]);
    let one = scene.verb(&["audit", "who-has", "TOKEN@1", "--json"]).expect_status(0);
    assert_eq!(holders(&json(&one)), [running(1, &b), (1, "gone".to_owned(), gone, 1)]);
    b.let_go();
    assert_eq!(who_has(&["--stale", "--json"], 0).out().matches("holders\":[]").count(), 1);
    [c, d, e].into_iter().for_each(Consumer::let_go);
    assert!(holders(&json(&who_has(&["--json"], 0))).iter().all(|(_, state, ..)| state == "gone"));
    scene.vouchsafe(&["audit", "verify", "audit.jsonl"]).expect_status(0);
}

#[test]
fn a_rotation_and_its_rollback_say_what_is_current() {
    let scene = Scene::sealed(&[]).policy("[secrets]\nTOKEN = { rotate = {} }\n");
    let stale = |status: i32| {
        let found = json(&scene.verb(&["audit", "who-has", "TOKEN", "--stale", "--json"]).expect_status(status));
        let current = &found["items"][0]["current"];
        let pids: Vec<u64> = holders(&found).into_iter().map(|(_, _, pid, _)| pid).collect();
        (current["version"].as_u64().unwrap(), current["event"].as_str().unwrap().to_owned(), pids)
    };
    scene.verb_reading(&["set", "TOKEN"], b"x").expect_status(0);
    let old = Consumer::start(&scene);
    scene.verb(&["rotate", "TOKEN"]).expect_status(0);
    assert_eq!(stale(10), (2, "rotation.promoted".to_owned(), vec![old.pid()]));
    let new = Consumer::start(&scene);
    assert_eq!(stale(10).2, [old.pid()]);
    scene.verb(&["rotate", "TOKEN", "--rollback"]).expect_status(0);
    assert_eq!(stale(10), (1, "rotation.rolled_back".to_owned(), vec![new.pid()]));
    new.let_go();
    assert_eq!(stale(0).2, [0_u64; 0]);
    old.let_go();
}

/// The chain is no matter here: lines of a log that names this very process, as it was and as it could not have been.
#[test]
fn another_process_of_the_same_number_is_told_apart() {
    let scene = Scene::sealed(&["TOKEN"]);
    scene.verb_reading(&["set", "TOKEN"], b"x").expect_status(0);
    let consumer = Consumer::start(&scene);
    let log = std::fs::read_to_string(scene.path("audit.jsonl")).unwrap();
    let states = |from: &str, to: &str| {
        let altered = log.replace(from, to);
        assert_ne!(altered, log, "{from}");
        scene.write("altered.jsonl", altered.as_bytes());
        let found = scene.vouchsafe(&["audit", "who-has", "TOKEN", "altered.jsonl", "--json"]).expect_status(0);
        let holder = &json(&found)["items"][0]["holders"][0];
        format!("{} {}", holder["state"].as_str().unwrap(), holder["why"].as_str().unwrap_or("-"))
    };
    let released: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    let member = |name: &str| format!("\"{name}\":{}", released["actor"][name]);
    assert_eq!(states("\"event\":\"secret.written\"", "\"event\":\"secret.listed\""), "running -");
    assert_eq!(states(&member("start_ticks"), "\"start_ticks\":1"), "gone -");
    assert_eq!(states(&member("pid"), "\"pid\":4194305"), "gone -");
    assert_eq!(states(&member("pid_namespace"), "\"pid_namespace\":7"), "unknown another container");
    assert_eq!(states(&member("boot_id"), "\"boot_id\":\"00000000000000000000000000000000\""), "unknown another host");
    assert_eq!(states(&member("start_ticks"), "\"x\":1"), "unknown no access to tell");
    consumer.let_go();
    assert_eq!(states("\"event\":\"secret.written\"", "\"event\":\"secret.listed\""), "gone -");
}

#[test]
fn the_logs_of_the_policy_are_found_with_what_was_rotated() {
    let scene = Scene::sealed(&["TOKEN"]);
    std::fs::create_dir(scene.path("logs")).unwrap();
    std::fs::set_permissions(scene.path("logs"), PermissionsExt::from_mode(0o700)).unwrap();
    let at = scene.path("logs").display().to_string();
    let sink = |path: &str| format!("[[audit.sinks]]\ntype = \"file\"\npath = \"{path}\"\nsync = false\n");
    // Two sinks: what both have counts once.
    let scene = scene.sinks(&(sink(&format!("{at}/{{uid}}.jsonl")) + &sink(&format!("{at}/again.jsonl"))));
    let log = scene.path(&format!("logs/{}.jsonl", rustix::process::getuid().as_raw()));
    let rotated = |end: &str| std::path::PathBuf::from(format!("{}{end}", log.display()));
    let found = |words: &[&str], status: i32| {
        scene.verb(&[&["audit", "who-has", "TOKEN"], words].concat()).expect_status(status)
    };
    let nothing = found(&[], 123);
    assert!(nothing.err().contains("no such file"), "{}", nothing.err());
    scene.verb_reading(&["set", "TOKEN"], b"x").expect_status(0);
    for end in [".2", ".1", ""] {
        scene.run(&["true"]).expect_status(0);
        if !end.is_empty() {
            std::fs::rename(&log, rotated(end)).unwrap();
        }
    }
    let one = json(&found(&["--json"], 0));
    assert_eq!(one["logs"].as_array().unwrap().len(), 3);
    assert_eq!(holders(&one)[0].3, 3);
    let (first, again) = (log.to_str().unwrap(), scene.path("logs/again.jsonl"));
    let both = [&["audit", "who-has", "TOKEN", "--json", again.to_str().unwrap(), first][..]].concat();
    assert_eq!(holders(&json(&scene.vouchsafe(&both).expect_status(0)))[0].3, 3, "each access once");
    assert!(found(&["--since", "2999-01-01"], 0).out().contains("nobody got it"));

    // What is packed is not read, and said; who relies on the answer is not told that all is well.
    std::fs::rename(rotated(".2"), rotated(".2.gz")).unwrap();
    let packed = found(&[], 0);
    assert!(packed.err().contains(".2.gz`: it is compressed"), "{}", packed.err());
    assert!(packed.err().contains("the chain was not verified: vouchsafe audit verify FILE..."), "{}", packed.err());
    assert!(found(&["--stale"], 123).err().contains("so nobody can say that no process is left"));
}

#[test]
fn a_stream_as_a_collector_keeps_it() {
    let values: Vec<(String, String)> = (0..300).map(|n| (format!("SECRET_{n:04}"), format!("v{n}"))).collect();
    let pairs: Vec<(&str, &str)> = values.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let scene = Scene::with(&pairs).sinks("[[audit.sinks]]\ntype = \"stderr\"\n");
    let outcome = scene.run(&["true"]).expect_status(0);
    assert!(outcome.err().lines().count() > 4, "records in parts");
    let collected: String =
        outcome.err().lines().map(|line| format!("2026-01-02T03:04:05Z stderr F {line}\nready\n")).collect();
    scene.write("collected", collected.as_bytes());
    let found = scene.vouchsafe(&["audit", "who-has", "SECRET_0299", "collected", "--json"]).expect_status(0);
    let found = json(&found);
    assert_eq!((&found["records"], found["other_lines"].as_u64().unwrap() > 4), (&2.into(), true));
    let holder = &found["items"][0]["holders"][0];
    assert_eq!((&holder["state"], &holder["version"], &holder["times"]), (&"gone".into(), &Value::Null, &1.into()));
    let refused = scene.verb(&["audit", "who-has", "SECRET_0299"]).expect_status(2);
    assert!(refused.err().contains("no sink is a file"), "{}", refused.err());
}

#[test]
fn what_it_says_to_a_person() {
    let scene = Scene::sealed(&["TOKEN"]).and("URL = { template = \"x{TOKEN}\" }");
    scene.verb_reading(&["set", "TOKEN"], b"x").expect_status(0);
    let consumer = Consumer::start(&scene);
    scene.verb_reading(&["set", "TOKEN"], b"y").expect_status(0);
    scene.run(&["true"]).expect_status(0);
    let pid = consumer.pid().to_string();
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let squeezed = |words: &[&str], status: i32| {
        let outcome = scene.verb(words).expect_status(status);
        let user = vouchsafe::caller::of_this_process(false);
        let user = user.user.map_or_else(|| user.uid.to_string(), |name| format!("{name} ({})", user.uid));
        let text = masked(outcome.out()).replace(&pid, "PID").replace(&host, "HOST").replace(&user, "USER");
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect::<String>()
    };
    let time = "YYYY-MM-DDThh:mm:ss.uuuuuuZ";
    let current = format!("version 2 is current since {time} (secret.written)");
    assert_eq!(
        squeezed(&["audit", "who-has", "TOKEN", "--stale"], 10),
        format!(
            "TOKEN in test (files:TOKEN): {current}\nVERSION STATE HOST USER SERVICE PID COMMAND VIA TIMES LAST\n\
             1 (old) running HOST USER - PID /usr/bin/sh direct 1 {time}\n"
        )
    );
    let all = squeezed(&["audit", "who-has", "URL"], 0);
    assert!(
        all.starts_with("URL in test (a template: ask for its parts, which have versions): its current version"),
        "{all}"
    );
    assert_eq!(squeezed(&["audit", "who-has", "NO"], 123), "");
    consumer.let_go();
    // What may be a value is not repeated.
    let wrong = scene.vouchsafe(&["audit", "who-has", "hun-ter2", "audit.jsonl"]).expect_status(2);
    assert!(!wrong.err().contains("hun-ter2") && wrong.err().contains("NAME or NAME@VERSION"), "{}", wrong.err());
}

/// Who held the value may have stood in the line that cannot be read any more.
#[test]
fn a_damaged_line_may_have_been_that_of_a_holder() {
    let scene = Scene::with(&[("A", "1")]);
    (0..2).for_each(|_| drop(scene.run(&["true"]).expect_status(0)));
    let ask =
        |file: &str, status: i32| scene.vouchsafe(&["audit", "who-has", "A", "--stale", file]).expect_status(status);
    ask("audit.jsonl", 0);
    let whole = std::fs::read_to_string(scene.path("audit.jsonl")).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    for damaged in [&lines[1][..lines[1].len() - 1], &lines[1].replace("\"actor\":", "\"actor\":7,\"actor\":"), "x"] {
        let text = [lines[0], damaged, lines[2], lines[3], ""].join("\n");
        scene.write("damaged.jsonl", text.as_bytes());
        let failed = ask("damaged.jsonl", 123);
        assert!(failed.err().contains("1 line of the logs is no record, so nobody can say"), "{}", failed.err());
        scene.vouchsafe(&["audit", "who-has", "A", "damaged.jsonl"]).expect_status(0);
    }
    // What a killed writer has left, and the next one has told of, was no record of anything that went on.
    scene.write_mode("audit.jsonl", format!("{whole}{}", &lines[0][..100]).as_bytes(), 0o600);
    ask("audit.jsonl", 123);
    scene.run(&["true"]).expect_status(0);
    ask("audit.jsonl", 0);
}
