//! `audit show` with its filters and `--follow`, `audit report`, and what is no log.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use crate::harness::Scene;
use crate::transcripts::lived_in;

fn records(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn filters_select_records_for_people_and_for_programs() {
    let scene = lived_in();
    scene.run(&["true"]).expect_status(0);
    scene.run(&["sh", "-c", ":"]).expect_status(0);
    scene.verb(&["run", "--only", "NO", "--", "true"]).expect_status(120);
    let uid = rustix::process::getuid().as_raw().to_string();
    let shown = |words: &[&str]| {
        let json = [&["audit", "show", "audit.jsonl", "--json"], words].concat();
        let json = records(scene.vouchsafe(&json).expect_status(0).out());
        let table = scene.vouchsafe(&[&["audit", "show", "audit.jsonl"], words].concat()).expect_status(0);
        assert_eq!(table.out().lines().count(), json.len() + 1, "{words:?}");
        json.len()
    };
    let all = scene.audit().len();
    assert_eq!(all, 11);
    for (words, expected) in [
        (&[][..], all),
        (&["--secret", "TOKEN"], 8),
        (&["--secret", "T*", "--secret", "NO"], 9),
        (&["--event", "access.*"], 5),
        (&["--event", "access.denied", "--event", "secret.written"], 4),
        (&["--outcome", "denied"], 1),
        (&["--outcome", "denied", "--outcome", "succeeded"], 6),
        (&["--command", "/usr/bin/sh"], 2),
        (&["--command", "tr*"], 3),
        (&["--uid", &uid], all),
        (&["--uid", "4294967294"], 0),
        (&["--env", "test"], all),
        (&["--env", "prod"], 0),
        (&["--service", "api"], 0),
        (&["--since", "1h"], all),
        (&["--until", "1h"], 0),
        (&["--since", "2000-01-01", "--until", "2999-01-01T00:00:00+01:00"], all),
        (&["--secret", "TOKEN", "--event", "access.released", "--command", "sh"], 1),
    ] {
        assert_eq!(shown(words), expected, "{words:?}");
    }
    for (words, hint) in [
        (&["--since", "yesterday"][..], "or how long ago: 30m, 2h, 7d"),
        (&["--secret", "A?"], "`*` is the only wildcard"),
        (&["--event", "acces.denied"], "did you mean `access.denied`?"),
        (&["--event", "access.*", "--event", "denied.*"], "an event such as access.denied, or several"),
        (&["--outcome", "odd"], "allowed, denied, failed, succeeded, unknown"),
        (&["--follow", "--until", "1h"], "cannot stand beside"),
    ] {
        let outcome = scene.vouchsafe(&[&["audit", "show", "audit.jsonl"], words].concat()).expect_status(2);
        assert!(outcome.err().contains(hint), "{}", outcome.err());
    }
}

/// Why something was denied, and where, without JSON.
#[test]
fn a_row_says_why_and_a_wide_one_where() {
    let scene = lived_in();
    scene.verb(&["run", "--only", "NO", "--", "true"]).expect_status(120);
    let row = |words: &[&str]| {
        let line = [&["audit", "show", "audit.jsonl", "--event", "access.denied"], words].concat();
        scene.vouchsafe(&line).expect_status(0).out().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let [head, denied] = row(&[]).try_into().unwrap();
    assert!(head.ends_with("  REASON") && !head.contains("HOST"), "{head}");
    let reason = scene.audit().pop().unwrap()["reason"].as_str().unwrap().to_owned();
    assert!(denied.ends_with(&format!("  {reason}")), "{denied}");
    let [head, denied] = row(&["--wide"]).try_into().unwrap();
    let host = scene.audit().pop().unwrap()["actor"]["host"].as_str().unwrap().to_owned();
    let columns: Vec<&str> = head.split_whitespace().collect();
    assert_eq!(columns[2..6], ["OUTCOME", "ENVIRONMENT", "SERVICE", "HOST"]);
    assert_eq!(denied.split_whitespace().skip(2).take(4).collect::<Vec<_>>(), ["denied", "test", "-", &host]);
}

/// A check has one status for each answer, and no answer is no 0.
#[test]
fn a_check_says_by_its_status_whether_a_record_matches() {
    let scene = lived_in();
    let check = |words: &[&str], status| {
        scene.vouchsafe(&[&["audit", "show", "--exit-status"], words].concat()).expect_status(status)
    };
    check(&["--outcome", "denied", "audit.jsonl"], 0);
    let matched = check(&["--event", "secret.written", "audit.jsonl"], 10);
    assert!(matched.err().contains("error[due]: 3 records match"), "{}", matched.err());
    assert_eq!(matched.out().lines().count(), 4, "they are shown all the same");
    check(&["--json", "--event", "secret.written", "audit.jsonl"], 10);
    for log in ["absent", ".", "policy.toml"] {
        check(&["--outcome", "denied", "audit.jsonl", log], 123);
    }
    check(&["--follow", "audit.jsonl"], 2);
    scene.vouchsafe(&["audit", "show", "--follow"]).expect_status(2);
    // Without files, those of the policy.
    let scene = scene.variable("VOUCHSAFE_POLICY", "policy.toml");
    let check =
        |status| scene.vouchsafe(&["audit", "show", "--exit-status", "--outcome", "denied"]).expect_status(status);
    check(0);
    scene.vouchsafe(&["run", "--only", "NO", "--", "true"]).expect_status(120);
    check(10);
    std::fs::rename(scene.path("audit.jsonl"), scene.path("audit.jsonl.1")).unwrap();
    check(10);
    std::fs::remove_file(scene.path("audit.jsonl.1")).unwrap();
    check(123);
}

/// A path that was mistyped must not look like a log in which nothing happened.
#[test]
fn what_is_no_log_is_an_error() {
    let scene = lived_in();
    scene.write("notes", b"one\ntwo\n{\"a\":1}\n");
    scene.write("binary", &[0, 159, 146, 150]);
    scene.write("empty", b"");
    for (name, says) in [("notes", "none of its 3 lines is a record"), ("binary", "its one line is no record")] {
        for words in [&["show"][..], &["show", "--json"], &["who-has", "TOKEN"]] {
            let line = [&["audit"], words, &[name]].concat();
            let outcome = scene.vouchsafe(&line).expect_status(123);
            assert!(outcome.err().contains(&format!("`{name}` is no audit log: {says}")), "{}", outcome.transcript());
            assert_eq!(outcome.out(), "", "{line:?}");
        }
    }
    for name in ["absent", "."] {
        scene.vouchsafe(&["audit", "show", name]).expect_status(123);
    }
    assert_eq!(scene.vouchsafe(&["audit", "show", "empty"]).expect_status(0).out().lines().count(), 1);
    assert_eq!(scene.vouchsafe(&["audit", "show", "--json", "empty"]).expect_status(0).out(), "");
    // Some lines of a log are none: told of, and the rest is shown.
    let mut log = b"junk\n".to_vec();
    log.extend(std::fs::read(scene.path("audit.jsonl")).unwrap());
    log.extend(b"torn");
    scene.write("mixed", &log);
    let table = scene.vouchsafe(&["audit", "show", "mixed"]).expect_status(0);
    assert_eq!(table.out().lines().filter(|line| line.starts_with("?  ")).count(), 2, "{}", table.out());
    assert!(table.err().contains("2 lines are no record"), "{}", table.err());
    let json = scene.vouchsafe(&["audit", "show", "--json", "mixed"]).expect_status(0);
    assert_eq!(records(json.out()), scene.audit());
    let piped = scene.vouchsafe_reading(&["audit", "show", "--json", "/dev/stdin"], &log).expect_status(0);
    assert_eq!(records(piped.out()), scene.audit());
}

/// Every line is waited for on the pipe; nothing is slept for.
#[test]
fn following_goes_on_where_the_log_is_moved_cut_and_made_anew() {
    let scene = Scene::sealed(&["TOKEN"]);
    scene.verb_reading(&["set", "TOKEN"], b"x").expect_status(0);
    let line = ["audit", "show", "--follow", "--json", "--event", "access.*", "audit.jsonl"];
    let mut child = scene.command(&line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (send, lines) = mpsc::channel();
    let output = BufReader::new(child.stdout.take().unwrap());
    let reader = std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
    let next = || {
        let line = lines.recv_timeout(Duration::from_secs(30)).unwrap();
        let record: Value = serde_json::from_str(&line).unwrap();
        format!("{} {}", record["event"].as_str().unwrap(), record["seq"])
    };
    scene.run(&["true"]).expect_status(0);
    assert_eq!([next(), next()], ["access.requested 3", "access.released 4"]);
    scene.run(&["true"]).expect_status(0);
    std::fs::rename(scene.path("audit.jsonl"), scene.path("audit.jsonl.1")).unwrap();
    scene.run(&["true"]).expect_status(0);
    let four = [next(), next(), next(), next()];
    assert_eq!(four, ["access.requested 5", "access.released 6", "access.requested 7", "access.released 8"]);
    // As `copytruncate` does, which loses records that are written in between.
    std::fs::File::options().write(true).open(scene.path("audit.jsonl")).unwrap().set_len(0).unwrap();
    let mut complaints = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(complaints.next().unwrap().contains("`audit.jsonl` is another file now"));
    assert!(complaints.next().unwrap().contains("`audit.jsonl` was cut"), "seen before anything is appended");
    scene.run(&["true"]).expect_status(0);
    assert!(next().starts_with("access.requested"));
    assert!(next().starts_with("access.released"));
    // Half a line waits for its other half.
    let log = scene.path("audit.jsonl");
    let text = std::fs::read_to_string(&log).unwrap();
    let last = text.lines().last().unwrap();
    let append = |piece: &str| {
        use std::io::Write;
        std::fs::File::options().append(true).open(&log).unwrap().write_all(piece.as_bytes()).unwrap();
    };
    append(&last[..100]);
    append(&last[100..]);
    append("\n");
    assert!(next().starts_with("access.released"));
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap().unwrap_or_default();
    assert!(lines.try_recv().is_err(), "nothing twice");
}

/// `audit show --follow | head -1` ends.
#[test]
fn following_ends_when_nobody_reads_any_more() {
    let scene = lived_in();
    let mut child =
        scene.command(&["audit", "show", "--follow", "audit.jsonl"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    drop(output);
    assert!(line.starts_with("TIME"));
    assert!(crate::harness::wait(child).status.success());
}

fn report(scene: &Scene, words: &[&str]) -> Value {
    let line = [&["audit", "report", "--json", "--since", "1h"], words].concat();
    serde_json::from_str(scene.verb(&line).expect_status(0).out()).unwrap()
}

#[test]
fn a_report_says_what_could_be_read_and_what_was() {
    let uid = rustix::process::getuid().as_raw().to_string();
    let scene =
        Scene::sealed(&["TOKEN", "OTHER", "PART", "LOCKED"]).and("URL = { template = \"x{PART}\" }").grants(&format!(
            "[[grants]]\nsecrets = [\"TOKEN\", \"URL\"]\nto = {{ users = [{uid}] }}\n\
         [[grants]]\nsecrets = [\"OTHER\"]\nto = {{ users = [{uid}], commands = [\"/usr/bin/sh\"] }}\n\
         [[grants]]\nsecrets = [\"LOCKED\"]\nto = {{ users = [4294967294] }}\n"
        ));
    for name in ["TOKEN", "OTHER", "PART", "LOCKED"] {
        scene.verb_reading(&["set", name], b"x").expect_status(0);
    }
    scene.verb(&["run", "--only", "TOKEN,URL", "--", "true"]).expect_status(0);
    scene.verb(&["run", "--only", "TOKEN,OTHER", "--", "sh", "-c", ":"]).expect_status(0);
    scene.verb(&["run", "--only", "LOCKED", "--", "true"]).expect_status(120);
    let found = report(&scene, &["--principal", &uid]);
    let secret = |found: &Value, name: &str| -> Value {
        found["secrets"].as_array().unwrap().iter().find(|one| one["name"] == name).cloned().unwrap_or_default()
    };
    let token = secret(&found, "TOKEN");
    assert_eq!((&token["could_read"], &token["read"]["times"]), (&true.into(), &2.into()));
    assert_eq!(token["read"]["versions"], serde_json::json!([1]));
    assert_eq!(token["read"]["commands"], serde_json::json!(["/usr/bin/sh", "/usr/bin/true"]));
    assert!(token["ways"][0]["grant"].as_str().unwrap().contains("policy.toml:"));
    let part = secret(&found, "PART");
    assert_eq!((&part["ways"][0]["inside"], &part["read"]["times"]), (&"URL".into(), &1.into()));
    assert_eq!(secret(&found, "OTHER")["ways"][0]["commands"], serde_json::json!(["/usr/bin/sh"]));
    let locked = secret(&found, "LOCKED");
    assert_eq!((&locked["could_read"], &locked["denied"], &locked["read"]), (&false.into(), &1.into(), &Value::Null));

    let nobody = report(&scene, &["--principal", "4294967294"]);
    assert_eq!(nobody["secrets"].as_array().unwrap().len(), 1, "{nobody}");
    assert_eq!(secret(&nobody, "LOCKED")["could_read"], true);
    let later = scene.verb(&["audit", "report", "--principal", &uid, "--since", "2999-01-01"]).expect_status(0);
    assert!(later.out().contains("\ndid read\n  nothing\n"), "{}", later.out());
    let text = scene.verb(&["audit", "report", "--principal", &uid, "--since", "1h"]).expect_status(0);
    for part in [
        "  OTHER: /usr/bin/sh (",
        "  PART: any command, inside URL (",
        "\nTOKEN   1         2      ",
        "\nwas denied\n  LOCKED: 1 time, the last at ",
    ] {
        assert!(text.out().contains(part), "{part} is not in {}", text.out());
    }
    assert!(!text.out().contains("not granted by the policy as it is now"), "{}", text.out());
    assert!(text.err().contains("the chain was not verified"), "{}", text.err());

    // What the same user got under other policies is not passed over, and not put into one row with this one's.
    let text = std::fs::read_to_string(scene.write_policy()).unwrap();
    for service in ["web", "api"] {
        let head = format!("environment = \"test\"\nservice = \"{service}\"");
        let other = text.replace("environment = \"test\"", &head).replace("sealed.age", &format!("{service}.age"));
        let path = scene.write(&format!("{service}.toml"), other.as_bytes());
        let on = |words: &[&str]| scene.vouchsafe_reading(words, b"x").expect_status(0);
        on(&["set", "TOKEN", "--policy", path.to_str().unwrap()]);
        on(&["run", "--only", "TOKEN", "--policy", path.to_str().unwrap(), "--", "true"]);
    }
    let of = |policy: &str| -> Value {
        let line = ["audit", "report", "--json", "--since", "1h", "--principal", &uid, "--policy", policy];
        serde_json::from_str(scene.vouchsafe(&line).expect_status(0).out()).unwrap()
    };
    let web = of("web.toml");
    assert_eq!(secret(&web, "TOKEN")["read"]["times"], 1);
    let elsewhere = |service: Value, releases: u64| serde_json::json!({ "environment": "test", "service": service, "releases": releases });
    assert_eq!(web["elsewhere"], serde_json::json!([elsewhere(Value::Null, 2), elsewhere("api".into(), 1)]));
    let any = of("policy.toml");
    let tokens: Vec<(&Value, &Value)> = any["secrets"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["name"] == "TOKEN")
        .map(|one| (&one["service"], &one["read"]["times"]))
        .collect();
    assert_eq!(tokens, [(&Value::Null, &2.into()), (&"api".into(), &1.into()), (&"web".into(), &1.into())]);

    // A right that was taken away since is seen.
    let scene = scene.grants("");
    let text = scene.verb(&["audit", "report", "--principal", &uid, "--since", "1h"]).expect_status(0);
    assert!(
        text.out().contains(
            "read, and not granted by the policy as it is now: OTHER, PART, TOKEN, TOKEN (api), TOKEN (web), URL"
        ),
        "{}",
        text.out()
    );
    let unknown = scene.verb(&["audit", "report", "--principal", "no-such-user", "--since", "1h"]).expect_status(2);
    assert!(unknown.err().contains("--principal $(id -u NAME)") && !unknown.err().contains("no-such-user"));
}
