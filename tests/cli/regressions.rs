//! Faults of programs that do what this one does, each as a test of ours, named for the program and its issue. What is not
//! here has its test elsewhere: signals and exit statuses in `signals` and `exec`, `| head` in `commands`.

use std::time::SystemTime;

use crate::harness::Scene;
use crate::hostile_names::write_document;

fn not_started(scene: &Scene, words: &[&str], status: i32) -> String {
    let line = [&["run"], words, &["--", "touch", "started"]].concat();
    let outcome = scene.verb(&line).expect_status(status);
    assert!(!scene.path("started").exists(), "{}", outcome.transcript());
    outcome.transcript()
}

/// chamber PR #8: a service that does not exist is an empty list, and the program runs without its secrets.
#[test]
fn chamber_runs_the_program_for_a_service_that_does_not_exist() {
    let scene = Scene::sealed(&[]).policy("[[bundles]]\nstore = \"files\"\npath = \"does-not-exist/\"\n");
    write_document(&scene, &[("exists/a", "1", SystemTime::now())]);
    not_started(&scene, &[], 122);
    not_started(&scene, &["--service", "does-not-exist", "--env", "nor-this"], 121);
    not_started(&scene, &["--only", "NOT_THERE"], 122);
}

/// chamber `--strict` checks each service alone, so two services never pass.
#[test]
fn chamber_strict_fails_with_two_services() {
    let scene = Scene::sealed(&[])
        .policy("[[bundles]]\nstore = \"files\"\npath = \"one/\"\n[[bundles]]\nstore = \"files\"\npath = \"two/\"\n");
    let now = SystemTime::now();
    write_document(&scene, &[("one/a", "1", now), ("two/b", "2", now)]);
    assert_eq!(scene.run(&["sh", "-c", "echo $A $B"]).expect_status(0).out(), "1 2\n");
    assert_eq!(scene.verb(&["run", "--only", "A,B", "--", "printenv", "B"]).expect_status(0).out(), "2\n");
}

/// chamber `--strict`: "was expecting value "chamberme", not "REALPARENTSECRET"".
#[test]
fn chamber_strict_prints_the_parents_value() {
    let scene = Scene::with(&[("A", "from-store")]).variable("A", "REALPARENTSECRET");
    let transcript = not_started(&scene, &[], 125);
    assert!(transcript.contains("`A`") && !transcript.contains("REALPARENT") && !transcript.contains("from-store"));
}

/// chamber `--verbose`, envconsul at `trace`: the whole environment in the log.
#[test]
fn chamber_verbose_prints_the_whole_environment() {
    let scene = ["RUST_LOG", "LOG_SENSITIVE_BODIES", "RUST_BACKTRACE", "DEBUG", "VERBOSE"]
        .iter()
        .fold(Scene::with(&[("A", "1")]), |scene, name| scene.variable(name, "trace"));
    assert_eq!(scene.run(&["true"]).expect_status(0).transcript().lines().count(), 2);
    scene.vouchsafe(&["--verbose", "run", "--", "true"]).expect_status(2);
}

/// chamber `svc:label`: what selects a version is taken as a part of the name, and matches nothing without a word.
#[test]
fn chamber_ignores_the_version_that_was_asked_for() {
    let scene = Scene::sealed(&[]).policy("[secrets]\nA = { version = 7 }\n");
    scene.verb_reading(&["set", "A"], b"x").expect_status(2);
    write_document(&scene, &[("A", "1", SystemTime::now())]);
    assert!(not_started(&scene, &[], 122).contains("no value for `A` (item `A` of store `files`, version 7)"));
}

/// chamber injects `_CHAMBER_METADATA`, its own bookkeeping with authors in it.
#[test]
fn chamber_injects_its_own_metadata() {
    let scene =
        Scene::sealed(&[]).policy("[[bundles]]\nstore = \"files\"\npath = \"\"\n").and("[child]\ninherit = \"none\"");
    write_document(&scene, &[("a", "1", SystemTime::now())]);
    assert_eq!(scene.run(&["/usr/bin/env"]).expect_status(0).out(), "A=1\n");
}

/// chamber: `api-key` and `api_key` become one name, and chance decides. secretspec #219: `a/b-c` and `a-b/c`.
#[test]
fn chamber_lets_chance_choose_between_two_keys() {
    for items in [["b/api-key", "b/api_key"], ["b/a/b-c", "b/a-b/c"]] {
        let scene = Scene::sealed(&[]).policy("[[bundles]]\nstore = \"files\"\npath = \"b/\"\nrecursive = true\n");
        let now = SystemTime::now();
        write_document(&scene, &[(items[0], "1", now), (items[1], "2", now)]);
        assert!(not_started(&scene, &[], 121).contains("two sources bring `A"));
    }
}

/// secrets-init: one failure drops all values, and the program starts with references in their place. vault #18433: a
/// missing key is injected as `<no value>`. fnox #20: a missing secret is a warning.
#[test]
fn secrets_init_starts_the_program_after_a_failure() {
    let scene = Scene::with(&[("A", "1"), ("B", "2")]);
    scene.store(&[("A", "1")]);
    not_started(&scene, &[], 122);
    scene.write("store.age", b"");
    not_started(&scene, &[], 122);
    std::fs::remove_file(scene.path("identity.key")).unwrap();
    scene.store(&[("A", "1"), ("B", "2")]);
    not_started(&scene, &[], 124);
}

/// secrets-init without a command ends with 0.
#[test]
fn secrets_init_succeeds_without_a_command() {
    let scene = Scene::with(&[("A", "1")]);
    scene.verb(&["run"]).expect_status(2);
    scene.verb(&["run", "--"]).expect_status(2);
    scene.verb(&["run", "--", ""]).expect_status(127);
}

/// infisical #2356, aws-vault, chamber on Windows: every status becomes 1, and `RestartPreventExitStatus=` means nothing.
#[test]
fn infisical_turns_every_status_into_one() {
    let scene = Scene::with(&[("A", "1")]);
    for status in [2, 3, 7, 42, 120, 127] {
        scene.run(&["sh", "-c", &format!("exit {status}")]).expect_status(status);
    }
}

/// sops, secrets-init, summon: the death of the child by a signal is seen as 255 or 127. sops #840: the child outlives it.
#[test]
fn sops_hides_the_signal_that_ended_the_child() {
    let scene = Scene::with(&[("A", "1")]);
    scene.run(&["sh", "-c", "kill -TERM $$"]).expect_signal(15);
    scene.run(&["sh", "-c", "kill -KILL $$"]).expect_signal(9);
}

/// vault-env in daemon mode hands its own token on; every SSM and KMS peer hands on what it fetched with.
#[test]
fn vault_env_hands_its_own_means_to_the_child() {
    let scene = Scene::with(&[("A", "1")]);
    let key = std::fs::read_to_string(scene.path("identity.key")).unwrap();
    let policy = std::fs::read_to_string(scene.write_policy()).unwrap();
    let file = format!("file:{}", scene.path("identity.key").display());
    let policy = policy.replace(&file, "env:VOUCHSAFE_AGE_IDENTITY\", \"env:SECOND_KEY");
    let scene = scene.variable("VOUCHSAFE_AGE_IDENTITY", key.trim()).variable("SECOND_KEY", key.trim());
    let path = scene.write("env.toml", policy.as_bytes());
    let outcome = scene.vouchsafe(&["run", "--policy", path.to_str().unwrap(), "--", "env"]).expect_status(0);
    assert!(!outcome.out().contains("KEY"), "{}", outcome.out());
}

/// aws-env #13: what a shell would make of the value. secretspec #73: `$2a$10$` expanded as dotenv does.
#[test]
fn aws_env_lets_a_value_be_a_command() {
    let values =
        ["x'; touch started; echo '", "$(touch started)", "C:\\new\\table", "$2a$10$N9qo8uLO", "`id`", "${HOME}"];
    for value in values {
        let scene = Scene::with(&[("A", value)]);
        assert_eq!(scene.run(&["printenv", "A"]).expect_status(0).out(), format!("{value}\n"));
        assert!(!scene.path("started").exists());
    }
    let scene = Scene::with(&[("A", "x"), ("B", "x")]);
    scene.store_plaintext(b"A=$2a$10$N9qo8uLO\nB='${HOME} $(id)'\n");
    let policy = std::fs::read_to_string(scene.write_policy()).unwrap().replace("\"json\"", "\"dotenv\"");
    let path = scene.write("dotenv.toml", policy.as_bytes());
    let line = ["run", "--policy", path.to_str().unwrap(), "--", "sh", "-c", "printenv A; printenv B"];
    assert_eq!(scene.vouchsafe(&line).expect_status(0).out(), "$2a$10$N9qo8uLO\n${HOME} $(id)\n");
}

/// secret-init hands a value of one key on with its quotes; it and secrets-init fail on a number, `true` and a quoted text.
#[test]
fn secret_init_takes_values_for_json() {
    for value in ["\"hunter2\"", "5432", "true", "null", "{\"port\":5432}", "{\"a\":\"b\"}", "[1]"] {
        let scene = Scene::with(&[("A", value)]);
        assert_eq!(scene.run(&["printenv", "A"]).expect_status(0).out(), format!("{value}\n"));
    }
    let scene = Scene::with(&[("A", "{\"a\":\"hunter2\"}")]).policy("[secrets]\nA = { field = \"/a\" }\n");
    assert_eq!(scene.run(&["printenv", "A"]).expect_status(0).out(), "hunter2\n");
}

/// telia panics on a binary value.
#[test]
fn telia_panics_on_a_binary_value() {
    let scene = Scene::sealed(&["A"]);
    scene.verb_reading(&["set", "A"], b"\x80\xff\xfe").expect_status(0);
    assert_eq!(scene.run(&["printenv", "A"]).expect_status(0).stdout, b"\x80\xff\xfe\n");
}

/// credstash `getall` hangs for ever if one secret cannot be decrypted; vault #12399 tries for ever. (The harness kills what
/// hangs.)
#[test]
fn credstash_hangs_where_one_secret_cannot_be_decrypted() {
    let scene = Scene::with(&[("A", "1")]);
    let other = Scene::with(&[("A", "1")]);
    std::fs::copy(other.path("store.age"), scene.path("store.age")).unwrap();
    for words in [&["list"][..], &["check"], &["run", "--", "true"]] {
        scene.verb(words).expect_status(124);
    }
}

/// vault #3935: the log is deleted, and vault writes to the deleted file, failing open without knowing.
#[test]
fn vault_goes_on_writing_to_a_log_that_was_deleted() {
    let scene = Scene::with(&[("A", "1")]);
    scene.run(&["true"]).expect_status(0);
    std::fs::remove_file(scene.path("audit.jsonl")).unwrap();
    scene.run(&["true"]).expect_status(0);
    assert!(scene.events().contains(&"access.released".to_owned()));
    scene.vouchsafe(&["audit", "verify", "audit.jsonl"]).expect_status(12);
    std::fs::remove_file(scene.path("audit.jsonl")).unwrap();
    let deleted_by_the_child = ["sh", "-c", "rm audit.jsonl"];
    scene.run(&deleted_by_the_child).expect_status(0);
    scene.run(&["true"]).expect_status(0);
    assert!(!scene.events().is_empty());
}

/// fnox #350, #604: secrets that are not for the environment are exported all the same.
#[test]
fn fnox_injects_what_is_not_to_be_injected() {
    let scene = Scene::with(&[("A", "1"), ("B", "2")]).policy("[secrets]\nA = {}\nB = { inject = false }\n");
    assert!(!scene.run(&["env"]).expect_status(0).out().contains("B="));
    assert_eq!(scene.audit()[1]["secrets"].as_array().unwrap().len(), 1, "nor is it fetched");
}

/// secretspec #369: a secret of the same name in another profile is written over. #83: one refusal ends the search.
#[test]
fn secretspec_writes_over_the_same_name_of_another_profile() {
    let scene = Scene::sealed(&["A"]);
    scene.verb_reading(&["set", "A"], b"test").expect_status(0);
    let text = std::fs::read_to_string(scene.write_policy()).unwrap();
    let prod = text.replace("environment = \"test\"", "environment = \"prod\"");
    scene.write("prod.toml", prod.as_bytes());
    let before = std::fs::read(scene.path("sealed.age")).unwrap();
    scene.vouchsafe_reading(&["set", "A", "--policy", "prod.toml"], b"prod").expect_status(122);
    assert_eq!(before, std::fs::read(scene.path("sealed.age")).unwrap());
}

/// 1Password shell-plugins #413: masking takes the terminal away, so there is no masking here: what the wrapper has, the
/// child has.
#[test]
fn one_password_takes_the_terminal_away() {
    let scene = Scene::with(&[("A", "1")]);
    let streams = |words: &[std::ffi::OsString], program: &str| {
        let output = scene.other(program, words).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let probe = "readlink /proc/$$/fd/0; test -p /dev/stdout && echo pipe";
    let through = streams(&scene.run_arguments(&["sh", "-c", probe]), crate::harness::VOUCHSAFE);
    assert_eq!(through, streams(&["-c".into(), probe.into()], "sh"));
}
