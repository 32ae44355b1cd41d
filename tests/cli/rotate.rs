//! `rotate` of a sealed file: new values that nobody gets before they are current, and a way on from everywhere.

use std::io::{PipeWriter, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::harness::{Outcome, Scene, wait};
use crate::hostile_names::write_document;
use crate::signals::{handles, program, sleeping, wait_until};

/// `A` and `B` rotate, `PLAIN` does not; all have a first value.
pub fn rotating() -> Scene {
    let scene = Scene::sealed(&["PLAIN"])
        .and("[secrets.A]\nrotate = { every = \"30d\" }\n[secrets.B]\nrotate = { generate = { length = 20 } }");
    for name in ["A", "B", "PLAIN"] {
        set(&scene, name, &format!("first {name}"));
    }
    scene
}

pub fn set(scene: &Scene, name: &str, value: &str) {
    scene.verb_reading(&["set", name], value.as_bytes()).expect_status(0);
}

pub fn rotate(scene: &Scene, words: &[&str], status: i32) -> Outcome {
    scene.verb(&[&["rotate"], words].concat()).expect_status(status)
}

/// Version and stage, newest first.
fn history(scene: &Scene, name: &str) -> Vec<(u64, String)> {
    let outcome = scene.verb(&["history", name, "--json"]).expect_status(0);
    let json: Value = serde_json::from_slice(&outcome.stdout).unwrap();
    let entry = |entry: &Value| (entry["version"].as_u64().unwrap(), entry["stage"].as_str().unwrap().to_owned());
    json["versions"].as_array().unwrap().iter().map(entry).collect()
}

pub fn stages(scene: &Scene, name: &str) -> String {
    let all: Vec<String> = history(scene, name).iter().map(|(version, stage)| format!("{version} {stage}")).collect();
    all.join(", ")
}

fn value(scene: &Scene, name: &str) -> String {
    scene.run(&["printenv", name]).expect_status(0).out().trim_end().to_owned()
}

/// Event, outcome and version of the records of rotations, oldest first.
fn steps(scene: &Scene) -> Vec<String> {
    let records = scene.audit();
    let rotation = records.iter().filter(|record| record["event"].as_str().unwrap().starts_with("rotation."));
    let text = |record: &Value| {
        let version = record["secrets"][0]["version"].as_u64().map(|version| format!("@{version}")).unwrap_or_default();
        let event = record["event"].as_str().unwrap().trim_start_matches("rotation.");
        format!("{event}{version} {}", record["outcome"].as_str().unwrap())
    };
    rotation.map(text).collect()
}

#[test]
fn a_rotation_makes_one_version_more_and_consumers_get_it() {
    let scene = rotating();
    assert_eq!(value(&scene, "A"), "first A");
    let outcome = rotate(&scene, &["A"], 0);
    assert_eq!(outcome.out(), "A: version 2 created, version 2 is current\n");
    assert_eq!(stages(&scene, "A"), "2 current, 1 previous");
    assert_eq!(stages(&scene, "B"), "1 current");
    let new = value(&scene, "A");
    assert_eq!(new.len(), 40);
    let all = [outcome.stdout, outcome.stderr, std::fs::read(scene.path("audit.jsonl")).unwrap()].concat();
    assert!(!String::from_utf8_lossy(&all).contains(&new), "the value is shown");
    assert_eq!(
        steps(&scene),
        ["started allowed", "created allowed", "created@2 succeeded", "promoted@2 allowed", "promoted@2 succeeded"]
    );
    let started = scene.audit().into_iter().find(|record| record["event"] == "rotation.started").unwrap();
    assert_eq!((&started["reason"], &started["secrets"][0]["item"]), (&"rotate; no target".into(), &"A".into()));
    scene.vouchsafe(&["audit", "verify", "audit.jsonl"]).expect_status(0);
    rotate(&scene, &["A"], 0);
    assert_eq!(stages(&scene, "A"), "3 current, 2 previous");
    assert!(!scene.path(".sealed.age.rotating").exists());
}

#[test]
fn globs_and_all_mean_what_rotates() {
    let scene = rotating().and("[secrets.A_LONG_ONE]\nrotate = {}");
    set(&scene, "A_LONG_ONE", "x");
    rotate(&scene, &["A*"], 0);
    assert_eq!([stages(&scene, "A"), stages(&scene, "B")], ["2 current, 1 previous", "1 current"]);
    let outcome = rotate(&scene, &["--all"], 0);
    assert_eq!(outcome.out().lines().count(), 3, "{}", outcome.transcript());
    assert_eq!([stages(&scene, "A_LONG_ONE"), stages(&scene, "PLAIN")], ["3 current, 2 previous", "1 current"]);
    assert_eq!(value(&scene, "B").len(), 20);
}

#[test]
fn one_field_is_replaced_and_the_rest_of_the_item_kept() {
    let scene = Scene::sealed(&[])
        .and("DB = { inject = false }\nUSER = { item = \"DB\", field = \"/username\" }")
        .and("PASSWORD = { item = \"DB\", field = \"/password\", rotate = {} }");
    set(&scene, "DB", "{ \"username\":\"api\", \"n\": 1.50,\"password\":\"old\" }");
    rotate(&scene, &["PASSWORD"], 0);
    let password = value(&scene, "PASSWORD");
    assert_eq!(password.len(), 40);
    let whole = scene.verb(&["run", "--only", "DB", "--", "printenv", "DB"]).expect_status(0);
    assert_eq!(whole.out(), format!("{{ \"username\":\"api\", \"n\": 1.50,\"password\":\"{password}\" }}\n"));
    let hint = rotate(&scene, &["USER"], 2);
    assert!(hint.err().contains("vouchsafe rotate PASSWORD"), "{}", hint.transcript());
    set(&scene, "DB", "hunter2 is no JSON");
    let failed = rotate(&scene, &["PASSWORD"], 122);
    assert!(
        failed.err().contains("the value is not JSON") && !failed.err().contains("hunter2"),
        "{}",
        failed.transcript()
    );
    assert_eq!(stages(&scene, "DB"), "3 current, 2 previous", "nothing is pending");
}

#[test]
fn what_was_begun_is_finished_by_resume_and_by_its_name() {
    let scene = rotating();
    for finish in [&["--resume"][..], &["--resume", "A"], &["A"], &["--due"]] {
        let before = history(&scene, "A")[0].0;
        rotate(&scene, &["--only-step", "create", "A"], 0);
        assert_eq!(history(&scene, "A")[0], (before + 1, "pending".into()));
        let consumer = value(&scene, "A");
        let refused = scene.verb_reading(&["set", "A"], b"x").expect_status(122);
        assert!(refused.err().contains("vouchsafe rotate --resume"), "{}", refused.transcript());
        let refused = scene.verb(&["remove", "A"]).expect_status(122);
        assert!(refused.err().contains("is pending"), "{}", refused.transcript());
        let outcome = rotate(&scene, finish, 0);
        let next = before + 1;
        assert_eq!(outcome.out(), format!("A: goes on with version {next}, version {next} is current\n"));
        assert_eq!(stages(&scene, "A"), format!("{next} current, {before} previous"), "{finish:?}");
        assert_ne!(value(&scene, "A"), consumer);
    }
    assert_eq!(rotate(&scene, &["--resume"], 0).out(), "nothing to do\n");
    assert_eq!(stages(&scene, "B"), "1 current");
}

#[test]
fn back_drops_what_is_pending_and_then_swaps() {
    let scene = rotating();
    rotate(&scene, &["A"], 0);
    let second = value(&scene, "A");
    rotate(&scene, &["--only-step", "create", "A"], 0);
    assert_eq!(rotate(&scene, &["--rollback", "A"], 0).out(), "A: version 3 discarded\n");
    assert_eq!((stages(&scene, "A"), value(&scene, "A")), ("2 current, 1 previous".into(), second));
    assert_eq!(rotate(&scene, &["--rollback", "A"], 0).out(), "A: version 1 is current again\n");
    assert_eq!((stages(&scene, "A"), value(&scene, "A")), ("2 previous, 1 current".into(), "first A".into()));
    assert_eq!(
        rotate(&scene, &["--rollback", "A"], 0).out(),
        "A: nothing to do\n",
        "a second time is not forward again"
    );
    rotate(&scene, &["A"], 0);
    assert_eq!(stages(&scene, "A"), "3 current, 1 previous", "no number is given twice");
}

#[test]
fn due_is_what_is_old_and_nothing_else() {
    let scene = rotating().and("[secrets.C]\nmax_age = \"10d\"\nrotate = {}");
    let ago = |days: u64| SystemTime::now() - Duration::from_secs(days * 86_400);
    let at = |a, b, c| write_document(&scene, &[("A", "1", ago(a)), ("B", "1", ago(b)), ("C", "1", ago(c))]);
    at(29, 999, 9);
    scene.verb(&["check"]).expect_status(10);
    assert_eq!(rotate(&scene, &["--due"], 0).out(), "nothing to do\n");
    at(31, 999, 11);
    let due = scene.verb(&["check"]).expect_status(10);
    assert!(due.err().contains("vouchsafe rotate --due"), "{}", due.transcript());
    assert_eq!(rotate(&scene, &["--due", "C"], 0).out(), "C: version 2 created, version 2 is current\n");
    let planned = rotate(&scene, &["--due", "--dry-run"], 0);
    assert!(planned.out().contains("A ") && !planned.out().contains("C "), "{}", planned.transcript());
    assert_eq!(rotate(&scene, &["--due"], 0).out(), "A: version 2 created, version 2 is current\n");
    assert_eq!(rotate(&scene, &["--due"], 0).out(), "nothing to do\n");
    assert_eq!(stages(&scene, "B"), "1 current", "it has no time limit");
}

#[test]
fn a_dry_run_changes_nothing_and_is_written_down() {
    let scene = rotating();
    let before = std::fs::read(scene.path("sealed.age")).unwrap();
    for words in [&["--all", "--dry-run"][..], &["--all", "--dry-run", "--json"], &["--rollback", "A", "--dry-run"]] {
        let status = if words.contains(&"--rollback") { 122 } else { 0 };
        rotate(&scene, words, status);
    }
    assert_eq!(std::fs::read(scene.path("sealed.age")).unwrap(), before);
    assert!(steps(&scene).is_empty());
    let listed: Vec<Value> = scene.audit().into_iter().filter(|one| one["reason"] == "rotate").collect();
    assert_eq!(listed.len(), 3);
    assert!(listed.iter().all(|one| one["event"] == "secret.listed"));
}

#[test]
fn one_failure_does_not_stop_the_others() {
    let scene = rotating();
    scene.verb(&["remove", "A"]).expect_status(0);
    let outcome = rotate(&scene, &["A", "B"], 122);
    assert_eq!(outcome.out(), "B: version 2 created, version 2 is current\n");
    assert!(outcome.err().contains("error[missing]: `A`: there is no current version"), "{}", outcome.transcript());
    assert_eq!(stages(&scene, "B"), "2 current, 1 previous");
    assert_eq!(steps(&scene)[1], "failed failed");
}

#[test]
fn the_second_rotator_hears_who_holds_it() {
    let scene = rotating();
    let lock = scene.write_mode(
        ".sealed.age.rotating",
        b"{\"owner\":\"ann@one, process 7\",\"since\":\"2026-01-02T03:04:05Z\"}",
        0o600,
    );
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&lock).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let outcome = rotate(&scene, &["--all"], 122);
    let told = "being rotated by ann@one, process 7 since 2026-01-02T03:04:05Z";
    assert!(outcome.err().contains("error[busy]") && outcome.err().contains(told), "{}", outcome.transcript());
    assert_eq!(stages(&scene, "A"), "1 current");
    assert_eq!(value(&scene, "A"), "first A", "readers are not kept waiting");
    // Whoever held it is gone: its file alone means nothing.
    drop(file);
    rotate(&scene, &["--all"], 0);
    assert_eq!([stages(&scene, "A"), stages(&scene, "B")], ["2 current, 1 previous"; 2]);
}

#[test]
fn a_log_that_takes_nothing_stops_before_the_first_step() {
    let scene = rotating();
    let before = std::fs::read(scene.path("sealed.age")).unwrap();
    let scene = scene.sinks("[[audit.sinks]]\ntype = \"file\"\npath = \"/proc/no/such.jsonl\"\n");
    let outcome = rotate(&scene, &["--all"], 123);
    assert!(outcome.err().contains("error[audit]"), "{}", outcome.transcript());
    assert_eq!(std::fs::read(scene.path("sealed.age")).unwrap(), before);
}

/// A full pipe as standard output holds it after its first step.
#[test]
fn a_signal_ends_it_after_the_step_that_it_is_at() {
    for (name, number) in [("TERM", 15), ("INT", 2)] {
        let scene = rotating();
        let policy = scene.write_policy();
        let (mut reader, writer) = std::io::pipe().unwrap();
        // A command keeps its end of the pipe until it is dropped.
        let into = |mut command: Command, out: PipeWriter| command.stdout(out).stderr(Stdio::piped()).spawn().unwrap();
        let mut filler = into(scene.other("sh", &["-c", "exec yes"]), writer.try_clone().unwrap());
        wait_until(|| program(filler.id()) == "yes" && sleeping(filler.id()));
        let words = ["rotate", "--all", "--json", "--policy", policy.to_str().unwrap()];
        let rotator = into(scene.command(&words), writer);
        wait_until(|| handles(rotator.id(), number) && sleeping(rotator.id()) && steps(&scene).len() >= 3);
        assert!(scene.other("sh", &["-c", &format!("kill -{name} {}", rotator.id())]).status().unwrap().success());
        filler.kill().unwrap();
        filler.wait().unwrap();
        let drain = std::thread::spawn(move || reader.read_to_end(&mut Vec::new()).unwrap());
        let outcome = scene.outcome(&words, wait(rotator));
        drain.join().unwrap();
        assert_eq!(
            (outcome.status.code(), outcome.status.signal()),
            (Some(128 + number), None),
            "{}",
            outcome.transcript()
        );
        let told = format!("ended by signal {number}; left to do: A, B");
        assert!(outcome.err().contains(&told), "{}", outcome.transcript());
        assert_eq!(stages(&scene, "A"), "2 pending, 1 current");
        assert_eq!(steps(&scene)[2..], ["created@2 succeeded", "failed@2 failed"]);
        assert!(!scene.path(".sealed.age.rotating").exists());
        // As the hint says.
        let hint = outcome.err().lines().find_map(|line| line.strip_prefix("hint: ")).unwrap().to_owned();
        for command in hint.split(" && ") {
            let words: Vec<&str> = command.split(' ').skip(1).collect();
            scene.vouchsafe(&words).expect_status(0);
        }
        assert_eq!([stages(&scene, "A"), stages(&scene, "B")], ["2 current, 1 previous"; 2]);
    }
}

/// A target behind a program: it accepts the keys that are lines of `accepted`, and has room for two.
const HOOK: &str = r#"#!/bin/sh
set -eu
at=AT/accepted
works() { grep -qxF -e "$1" "$at"; }
[ "$ADMIN" = "first ADMIN" ] || exit 3
case $VOUCHSAFE_STEP in
create) ;;
apply)
  works "$VOUCHSAFE_PENDING" && exit 0
  works "$VOUCHSAFE_CURRENT" || { echo "it is not $VOUCHSAFE_CURRENT" >&2; exit 1; }
  [ "$(wc -l <"$at")" -lt 2 ] || exit 4
  echo "$VOUCHSAFE_PENDING" >>"$at" ;;
verify) works "$VOUCHSAFE_PENDING" ;;
retire)
  works "$VOUCHSAFE_CURRENT"
  grep -vxF -e "$VOUCHSAFE_PREVIOUS" "$at" >"$at.new" || true
  mv "$at.new" "$at" ;;
esac
"#;

/// `A` rotates through [`HOOK`], which needs `ADMIN`.
pub fn hooked(rules: &str) -> Scene {
    let scene = Scene::sealed(&[]);
    let at = scene.path("").display().to_string();
    scene.write_mode("hook", HOOK.replace("AT/", &at).as_bytes(), 0o755);
    let scene = scene.and("ADMIN = { inject = false }").and(&format!(
        "[secrets.A.rotate]\n{rules}\napply = {{ type = \"command\", program = \"{at}hook\", needs = [\"ADMIN\"] }}"
    ));
    for name in ["A", "ADMIN"] {
        set(&scene, name, &format!("first {name}"));
    }
    scene.write_mode("accepted", b"first A\n", 0o600);
    scene
}

fn accepted(scene: &Scene) -> usize {
    std::fs::read_to_string(scene.path("accepted")).unwrap().lines().count()
}

#[test]
fn a_target_accepts_and_proves_before_anybody_gets_the_value() {
    let scene = hooked("");
    let outcome = rotate(&scene, &["A"], 0);
    assert_eq!(outcome.out(), "A: version 2 created, applied, verified, version 2 is current\n");
    assert_eq!(accepted(&scene), 2, "the previous one works until the next rotation");
    let started = scene.audit().into_iter().find(|record| record["event"] == "rotation.started").unwrap();
    assert!(started["reason"].as_str().unwrap().ends_with("/hook`"), "{started}");
    assert_eq!((&started["secrets"][1]["name"], &started["secrets"][1]["inject"]), (&"ADMIN".into(), &false.into()));
    let outcome = rotate(&scene, &["A"], 0);
    let told = "A: version 1 retired, version 3 created, applied, verified, version 3 is current\n";
    assert_eq!((outcome.out(), accepted(&scene)), (told, 2));
    let at_once = hooked("retire_after = \"0s\"").and("[run]\nagent = \"forbid\"");
    let outcome = rotate(&at_once, &["A"], 0);
    assert!(outcome.out().ends_with("version 2 is current, version 1 retired\n"), "{}", outcome.transcript());
    assert_eq!((accepted(&at_once), stages(&at_once, "A")), (1, "2 current".into()));
}

/// `set` of the same value, or of another field of the item: what is previous is what is in use.
#[test]
fn a_credential_that_is_in_use_is_not_retired() {
    let scene = hooked("");
    set(&scene, "A", "first A");
    assert_eq!(stages(&scene, "A"), "2 current, 1 previous");
    rotate(&scene, &["--only-step", "retire", "A"], 0);
    assert_eq!((accepted(&scene), stages(&scene, "A")), (1, "2 current".into()));
    rotate(&scene, &["A"], 0);
    assert_eq!(accepted(&scene), 2, "and it goes on");
}

/// Whoever starts through an agent gets the previous value until its cache is over: until then it has to work.
#[test]
fn nothing_is_retired_while_an_agent_may_serve_it() {
    let scene = hooked("retire_after = \"0s\"").and("[cache]\nttl = \"1s\"\nmax_stale = \"1s\"");
    let start = SystemTime::now();
    let outcome = rotate(&scene, &["A"], 0);
    assert!(outcome.out().ends_with("version 2 is current\n"), "{}", outcome.transcript());
    let retired = loop {
        let outcome = rotate(&scene, &["--resume"], 0);
        if outcome.out() != "nothing to do\n" {
            break outcome;
        }
        assert!(start.elapsed().unwrap() < Duration::from_secs(30), "it is never retired");
    };
    assert!(start.elapsed().unwrap() >= Duration::from_secs(2), "too early");
    assert_eq!((retired.out(), accepted(&scene)), ("A: version 1 retired\n", 1));
}

#[test]
fn a_target_that_refuses_leaves_the_old_value_and_a_way_on() {
    let scene = hooked("");
    scene.write_mode("accepted", b"somebody else's\n", 0o600);
    let outcome = rotate(&scene, &["A"], 122);
    assert_eq!(outcome.out(), "A: create failed\n");
    assert!(outcome.err().contains("`vouchsafe set NAME`"), "{}", outcome.transcript());
    assert_eq!((stages(&scene, "A"), value(&scene, "A")), ("1 current".into(), "first A".into()));
    // It stopped working after a version was made.
    scene.write_mode("accepted", b"first A\n", 0o600);
    rotate(&scene, &["--only-step", "create", "A"], 0);
    scene.write_mode("accepted", b"somebody else's\n", 0o600);
    let outcome = rotate(&scene, &["A"], 122);
    assert_eq!(outcome.out(), "A: goes on with version 2, apply failed\n");
    assert!(outcome.err().contains("error[target]") && !outcome.err().contains("first A"), "{}", outcome.transcript());
    assert_eq!((stages(&scene, "A"), value(&scene, "A")), ("2 pending, 1 current".into(), "first A".into()));
    assert_eq!(steps(&scene).last().unwrap(), "failed@2 failed");
    let back = rotate(&scene, &["--rollback", "A"], 122);
    assert_eq!(stages(&scene, "A"), "2 pending, 1 current", "what is gone back to does not work either");
    assert!(back.err().contains("`vouchsafe rotate --abandon NAME`"), "{}", back.transcript());
    scene.write_mode("accepted", b"first A\n", 0o600);
    let hint = outcome.err().lines().find_map(|line| line.split("vouchsafe rotate --resume").nth(1)).unwrap();
    assert!(hint.contains(" A --policy "), "{}", outcome.transcript());
    assert_eq!(rotate(&scene, &["--only-step", "verify", "A"], 122).out(), "A: verify failed\n", "not applied yet");
    assert_eq!(rotate(&scene, &["--only-step", "promote", "A"], 122).out(), "A: verify failed\n", "nothing unproven");
    for step in ["apply", "apply", "verify", "verify", "promote", "retire"] {
        rotate(&scene, &["--only-step", step, "A"], 0);
    }
    assert_eq!((stages(&scene, "A"), accepted(&scene)), ("2 current".into(), 1));
}

/// Each command that a hint names is taken, and the last one mends it.
#[test]
fn where_nothing_works_the_hints_lead_out() {
    let scene = hooked("");
    rotate(&scene, &["--only-step", "create", "A"], 0);
    scene.write_mode("accepted", b"right\n", 0o600);
    for (words, hint) in
        [(&["--resume"][..], "rotate --rollback NAME"), (&["--rollback", "A"], "rotate --abandon NAME")]
    {
        let outcome = rotate(&scene, words, 122);
        assert!(outcome.err().contains(hint), "{}", outcome.transcript());
    }
    let refused = scene.verb_reading(&["set", "A"], b"right").expect_status(122);
    assert!(refused.err().contains("--rollback"), "{}", refused.transcript());
    // What did not answer has not refused it.
    let hook = std::fs::read(scene.path("hook")).unwrap();
    scene.write_mode("hook", b"#!/bin/sh\nexit 75\n", 0o755);
    let unknown = rotate(&scene, &["--abandon", "A"], 122);
    assert!(unknown.err().contains("nothing is given up before the target has refused it"), "{}", unknown.transcript());
    assert_eq!(stages(&scene, "A"), "2 pending, 1 current");
    scene.write_mode("hook", &hook, 0o755);
    let outcome = rotate(&scene, &["--abandon", "A"], 0);
    let told = "A: version 2 does not work, version 2 abandoned: the target was not told, and may accept it\n";
    assert_eq!(outcome.out(), told);
    let audit = scene.audit();
    let reasons: Vec<&str> = audit.iter().filter_map(|record| record["reason"].as_str()).collect();
    assert!(reasons.iter().any(|reason| reason.starts_with("abandon what is pending; program")), "{reasons:?}");
    assert_eq!(reasons.iter().filter(|reason| reason.starts_with("abandoned: the target was not told")).count(), 2);
    let refused = rotate(&scene, &["A"], 122);
    assert!(refused.err().contains("`vouchsafe set NAME`"), "{}", refused.transcript());
    set(&scene, "A", "right");
    rotate(&scene, &["--only-step", "retire", "A"], 0);
    rotate(&scene, &["A"], 0);
    assert_eq!(accepted(&scene), 2);
    rotate(&scene, &["--abandon"], 2);
}

#[test]
fn what_is_gone_back_to_is_proven_or_put_back() {
    let scene = hooked("");
    rotate(&scene, &["--only-step", "create", "A"], 0);
    rotate(&scene, &["--only-step", "apply", "A"], 0);
    assert_eq!(rotate(&scene, &["--rollback", "A"], 0).out(), "A: version 1 verified, version 2 discarded\n");
    assert_eq!((stages(&scene, "A"), accepted(&scene)), ("1 current".into(), 1), "the target forgot it too");
    rotate(&scene, &["A"], 0);
    let second = value(&scene, "A");
    scene.write_mode("accepted", format!("{second}\n").as_bytes(), 0o600);
    let outcome = rotate(&scene, &["--rollback", "A"], 0);
    let told = "A: version 1 does not work, version 1 applied again, version 1 verified, version 1 is current again\n";
    assert_eq!(outcome.out(), told);
    assert_eq!(value(&scene, "A"), "first A");
    assert_eq!(rotate(&scene, &["A"], 0).out().split(", ").next(), Some("A: version 2 retired"));
    assert_eq!((stages(&scene, "A"), accepted(&scene)), ("3 current, 1 previous".into(), 2));
}

#[test]
fn each_step_is_one_object_for_a_machine() {
    let scene = rotating();
    let outcome = rotate(&scene, &["A", "--json"], 0);
    let lines: Vec<Value> = outcome.out().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seen: Vec<_> =
        lines.iter().map(|line| (line["step"].as_str().unwrap(), line["outcome"].as_str().unwrap())).collect();
    assert_eq!(seen, [("create", "succeeded"), ("promote", "succeeded")]);
    assert!(lines.iter().all(|line| line["version"] == 2 && line["name"] == "A" && line["store"] == "files"));
    let planned = rotate(&scene, &["A", "--json", "--dry-run"], 0);
    assert!(planned.out().lines().all(|line| line.contains("\"outcome\":\"planned\"")), "{}", planned.transcript());
}
