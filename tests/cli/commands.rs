//! Writing and looking, end to end: set, remove, history, copy, check, list, completions, man.

use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use crate::harness::{Scene, wait};
use crate::hostile_names::write_document;

/// What a child sees of a variable, byte for byte.
fn value_of(scene: &Scene, name: &str) -> Vec<u8> {
    let outcome = scene.run(&["sh", "-c", &format!("printf %s \"${name}\"")]).expect_status(0);
    outcome.stdout
}

#[test]
fn standard_input_loses_one_newline_and_a_file_none() {
    let scene = Scene::sealed(&["A"]);
    let set = |words: &[&str], input: &[u8]| {
        scene.verb_reading(&[&["set", "A"], words].concat(), input).expect_status(0);
        value_of(&scene, "A")
    };
    assert_eq!(set(&[], b"x\n"), b"x");
    assert_eq!(set(&[], b"x\r\n"), b"x");
    assert_eq!(set(&[], b"x\n\n"), b"x\n");
    assert_eq!(set(&[], b" x y\t"), b" x y\t");
    assert_eq!(set(&[], b"\xff\xfe"), b"\xff\xfe");
    assert_eq!(set(&["--keep-newline"], b"x\n"), b"x\n");
    assert_eq!(set(&["--allow-empty"], b""), b"");
    assert_eq!(set(&[], b"$2a$10$N9qo8uLOickgx2ZMRZoMyeIj"), b"$2a$10$N9qo8uLOickgx2ZMRZoMyeIj");
    scene.write("value", b"line\r\n\n");
    assert_eq!(set(&["--from-file", "value"], b"ignored"), b"line\r\n\n");
    let longest = "x".repeat(131_072);
    scene.verb_reading(&["set", "A"], longest.as_bytes()).expect_status(0);
    scene.verb_reading(&["set", "A"], format!("{longest}x").as_bytes()).expect_status(2);
}

#[test]
fn a_generated_value_is_what_the_policy_asks_for() {
    for (rules, length, allowed) in [
        ("", 43, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"),
        ("generate = { length = 16, alphabet = \"hex\" }", 16, "0123456789abcdef"),
        (
            "generate = { length = 200, alphabet = \"alphanumeric\" }",
            200,
            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
        ),
    ] {
        let scene = Scene::sealed(&["A"]);
        let scene = if rules.is_empty() { scene } else { scene.policy(&format!("[secrets.A.rotate]\n{rules}\n")) };
        scene.verb(&["set", "A", "--generate"]).expect_status(0);
        let first = value_of(&scene, "A");
        assert_eq!(first.len(), length, "{rules}");
        assert!(first.iter().all(|byte| allowed.as_bytes().contains(byte)), "{rules}");
        scene.verb(&["set", "A", "--generate"]).expect_status(0);
        assert_ne!(value_of(&scene, "A"), first);
    }
}

#[test]
fn a_second_value_is_version_two_and_the_first_is_kept() {
    let scene = Scene::sealed(&["A"])
        .and("OLD = { item = \"A\", stage = \"previous\" }\nFIRST = { item = \"A\", version = 1 }");
    for value in ["one", "two"] {
        scene.verb_reading(&["set", "A"], value.as_bytes()).expect_status(0);
    }
    let seen = scene.run(&["sh", "-c", "echo $A $OLD $FIRST"]).expect_status(0);
    assert_eq!(seen.out(), "two one one\n");
    let history: serde_json::Value =
        serde_json::from_str(scene.verb(&["history", "A", "--json"]).expect_status(0).out()).unwrap();
    let versions: Vec<_> =
        history["versions"].as_array().unwrap().iter().map(|v| (&v["version"], &v["stage"])).collect();
    assert_eq!(serde_json::to_string(&versions).unwrap(), r#"[[2,"current"],[1,"previous"]]"#);
    assert!(!scene.verb(&["history", "A"]).expect_status(0).out().contains("one"));
}

#[test]
fn what_was_removed_is_missing() {
    let scene = Scene::sealed(&["A", "B"]);
    for name in ["A", "B"] {
        scene.verb_reading(&["set", name], b"x").expect_status(0);
    }
    scene.verb(&["remove", "A"]).expect_status(0);
    assert!(scene.run(&["true"]).expect_status(122).err().contains("error[missing]: no value for `A`"));
    assert_eq!(scene.verb(&["run", "--only", "B", "--", "printenv", "B"]).expect_status(0).out(), "x\n");
    scene.verb_reading(&["set", "A"], b"back").expect_status(0);
    assert_eq!(value_of(&scene, "A"), b"back");
}

#[test]
fn nothing_is_written_that_is_refused() {
    let scene = Scene::sealed(&["A"]);
    scene.verb_reading(&["set", "A"], b"x").expect_status(0);
    let before = std::fs::read(scene.path("sealed.age")).unwrap();
    for (words, input, status) in [
        (&["set", "A"][..], &b""[..], 2),
        (&["set", "A"], b"a\0b", 2),
        (&["set", "B"], b"x", 2),
        (&["set", "A", "--generate", "--keep-newline"], b"", 2),
        (&["set", "A", "--from-file", "absent"], b"", 2),
        (&["set", "A", "--from-file", "."], b"", 2),
        (&["remove", "B"], b"", 2),
    ] {
        scene.verb_reading(words, input).expect_status(status);
    }
    std::fs::remove_file(scene.path("audit.jsonl")).unwrap();
    std::fs::create_dir(scene.path("audit.jsonl")).unwrap();
    scene.verb_reading(&["set", "A"], b"y").expect_status(123);
    scene.verb(&["remove", "A"]).expect_status(123);
    assert_eq!(before, std::fs::read(scene.path("sealed.age")).unwrap());
}

#[test]
fn a_copy_arrives_and_nothing_is_shown() {
    let scene = Scene::sealed(&["A", "B"]);
    for name in ["A", "B"] {
        scene.verb_reading(&["set", name], format!("value of {name}").as_bytes()).expect_status(0);
    }
    let text = std::fs::read_to_string(scene.write_policy()).unwrap();
    let text = text.replace("environment = \"test\"", "environment = \"prod\"").replace("sealed.age", "prod.age");
    scene.write("prod.toml", text.as_bytes());
    let copy = |names: &[&str], status| {
        let line = [&["copy", "--from", "policy.toml", "--to", "prod.toml"], names].concat();
        let outcome = scene.vouchsafe(&line).expect_status(status);
        assert!(!outcome.transcript().contains("value of"), "{}", outcome.transcript());
        outcome
    };
    copy(&["A"], 0);
    let run = |name: &str, status| {
        let line = ["run", "--policy", "prod.toml", "--only", name, "--", "printenv", name];
        scene.vouchsafe(&line).expect_status(status).out().to_owned()
    };
    assert_eq!(run("A", 0), "value of A\n");
    // What the policies refuse is refused before anything moves.
    copy(&["B", "C"], 2);
    run("B", 122);
    // What the target refuses stops it there; what was printed is done.
    let outcome = copy(&["B", "A"], 2);
    assert_eq!(outcome.out(), "B is version 1 in prod\n");
    assert_eq!(run("B", 0), "value of B\n");
    copy(&["A", "--overwrite"], 0);
    // A file of one environment never opens as another's, wherever it lies.
    std::fs::copy(scene.path("sealed.age"), scene.path("prod.age")).unwrap();
    run("A", 122);
    copy(&["A", "--overwrite"], 122);
}

#[test]
fn a_copy_takes_the_field_that_is_bound_and_nothing_beside_it() {
    let scene = Scene::sealed(&["A", "ITEM"]);
    scene.verb_reading(&["set", "ITEM"], br#"{"a":"value of a","b":"value of b"}"#).expect_status(0);
    let text = std::fs::read_to_string(scene.write_policy()).unwrap();
    let target = text.replace("environment = \"test\"", "environment = \"prod\"").replace("sealed.age", "prod.age");
    scene.write("prod.toml", target.as_bytes());
    let copy = |field: &str, status| {
        let bound = format!("\nA = {{ item = \"ITEM\", field = \"{field}\" }}\n");
        let source = text.replace("\nA = {}\n", &bound);
        assert_ne!(source, text, "the binding is replaced");
        scene.write("source.toml", source.as_bytes());
        scene.vouchsafe(&["copy", "--from", "source.toml", "--to", "prod.toml", "A"]).expect_status(status);
    };
    copy("/c", 122);
    copy("/a", 0);
    let line = ["run", "--policy", "prod.toml", "--only", "A", "--", "printenv", "A"];
    assert_eq!(scene.vouchsafe(&line).expect_status(0).out(), "value of a\n");
}

#[test]
fn check_says_what_is_due_and_run_refuses_where_it_shall() {
    let scene = |rules: &str| {
        let scene = Scene::sealed(&[]).policy(&format!("[secrets]\nA = {{ max_age = \"30d\"{rules} }}\n"));
        write_document(&scene, &[("A", "old", SystemTime::now() - Duration::from_secs(31 * 86_400))]);
        scene
    };
    let warned = scene("");
    let outcome = warned.verb(&["check"]).expect_status(10);
    assert!(outcome.out().contains("\n`A` is due since ") && outcome.out().contains("31d"), "{}", outcome.out());
    warned.run(&["true"]).expect_status(0);
    let refused = scene(", on_expired = \"refuse\"");
    let outcome = refused.run(&["true"]).expect_status(122);
    assert!(outcome.err().contains("older than its `max_age`, or of unknown age: `A`"), "{}", outcome.err());
    refused.verb_reading(&["set", "A"], b"new").expect_status(0);
    refused.verb(&["check"]).expect_status(0);
    refused.run(&["true"]).expect_status(0);
}

#[test]
fn check_looks_at_every_store() {
    let scene = Scene::sealed(&["A"]);
    let at = scene.path("");
    let table = |name: &str| {
        format!(
            "[stores.{name}]\ntype = \"age\"\npath = \"{}{name}.age\"\nrecipients = [\"{}\"]\nidentities = [\"file:{}identity.key\"]\n",
            at.display(),
            scene.recipient(),
            at.display()
        )
    };
    let stores = format!("{}{}{}", table("files"), table("broken"), table("absent"));
    let scene = scene.stores(&stores).policy(
        "[secrets]\nA = {}\nB = { store = \"broken\" }\nC = { store = \"absent\" }\nD = { field = \"/x\", item = \"A\" }\n\
         [[bundles]]\nstore = \"files\"\npath = \"none/\"\n",
    );
    scene.verb_reading(&["set", "A"], b"x").expect_status(0);
    scene.write("broken.age", b"not age");
    let outcome = scene.verb(&["check", "--json"]).expect_status(122);
    let report: serde_json::Value = serde_json::from_str(outcome.out()).unwrap();
    let findings = report["findings"].to_string();
    for part in ["`broken`", "`absent`", "field of `D`", "bundle `none/`"] {
        assert!(findings.contains(part), "{part} is not in {findings}");
    }
    let present: Vec<_> = report["secrets"].as_array().unwrap().iter().map(|entry| &entry["present"]).collect();
    assert_eq!(serde_json::to_string(&present).unwrap(), "[true,null,null,true]");
    assert!(outcome.err().contains("error[store]: store `absent`"), "{}", outcome.err());
    assert_eq!(scene.events()[2..], ["secret.listed"; 3], "looked, and two failures");
    assert!(scene.verb(&["check", "--offline"]).expect_status(10).out().contains("store `absent`: "));
}

#[test]
fn a_file_made_by_hand_needs_no_recipients() {
    let scene = Scene::with(&[("A", "1")]);
    scene.verb(&["check"]).expect_status(0);
    scene.verb(&["check", "--offline"]).expect_status(0);
}

#[test]
fn a_bundle_is_listed_under_the_names_that_run_injects() {
    let scene =
        Scene::sealed(&["A"]).and("[[bundles]]\nstore = \"files\"\npath = \"features/\"\nnames = \"UPPER_SNAKE\"\n");
    let now = SystemTime::now();
    write_document(&scene, &[("A", "1", now), ("features/dark-mode", "on", now), ("features/A2", "x", now)]);
    let outcome = scene.verb(&["list"]).expect_status(0);
    for line in ["A          ok", "A2         ok", "DARK_MODE  ok"] {
        assert!(outcome.out().contains(&format!("\n{line}")), "{}", outcome.out());
    }
    assert!(outcome.out().contains("files:features/dark-mode (bundle)"), "{}", outcome.out());
    assert_eq!(scene.run(&["printenv", "DARK_MODE"]).expect_status(0).out(), "on\n");
}

#[test]
fn textconv_differs_where_the_content_does() {
    let scene = Scene::sealed(&["A"]);
    let list = |with_policy: bool| {
        let line = ["list", "--file", "sealed.age"];
        let outcome = if with_policy { scene.verb(&line) } else { scene.vouchsafe(&line) };
        outcome.expect_status(0).out().to_owned()
    };
    scene.verb_reading(&["set", "A"], b"x").expect_status(0);
    let first = (list(false), list(true));
    assert_eq!(first, (list(false), list(true)));
    scene.verb_reading(&["set", "A"], b"x").expect_status(0);
    let second = (list(false), list(true));
    assert!(first.0 != second.0 && first.1 != second.1);
    assert!(first.0.contains("recipients X25519: 1\n") && !first.0.contains("grease"), "{}", first.0);
}

/// `git log -p` ends at the first textconv that fails.
#[test]
fn textconv_without_the_identity_shows_what_is_public() {
    let scene = Scene::sealed(&["A"]);
    scene.verb_reading(&["set", "A"], b"x").expect_status(0);
    let public = scene.vouchsafe(&["list", "--file", "sealed.age"]).expect_status(0).out().to_owned();
    std::fs::remove_file(scene.path("identity.key")).unwrap();
    let outcome = scene.verb(&["list", "--file", "sealed.age"]).expect_status(0);
    assert_eq!(outcome.out(), public);
    assert!(outcome.err().contains("no identity opens `sealed.age`"), "{}", outcome.err());
}

#[test]
fn remove_of_a_store_that_was_never_written_says_so() {
    let scene = Scene::sealed(&["A"]);
    let outcome = scene.verb(&["remove", "A"]).expect_status(122).err().to_owned();
    assert!(outcome.contains("sealed.age` does not exist yet"), "{outcome}");
}

#[test]
fn what_others_call_get_is_not_taken_for_set() {
    let outcome = Scene::new().vouchsafe(&["get", "A"]).expect_status(2).err().to_owned();
    assert!(outcome.contains("no command prints a value") && !outcome.contains("`set`"), "{outcome}");
}

#[test]
fn a_policy_that_asks_for_supervision_is_explained_and_checked_like_any_other() {
    let scene = Scene::sealed(&["A"]);
    let text = std::fs::read_to_string(scene.write_policy()).unwrap();
    scene.write("supervised.toml", format!("{text}\n[run]\nmode = \"supervise\"\n").as_bytes());
    for verb in [&["explain"][..], &["check", "--offline"]] {
        let line = |policy| [verb, &["--policy", policy]].concat();
        let plain = scene.vouchsafe(&line("policy.toml"));
        let supervised = scene.vouchsafe(&line("supervised.toml"));
        assert_eq!(supervised.out().replace("supervised.toml", "policy.toml"), plain.out());
        assert_eq!(supervised.status, plain.status);
    }
}

#[test]
fn the_environment_selects_what_the_options_do_not() {
    let scene = Scene::with(&[("A", "1")]);
    let text = std::fs::read_to_string(scene.write_policy()).unwrap();
    let text = text.replace("environment = \"test\"", "environment = \"test\"\nservice = \"api\"");
    let path = scene.write("api.toml", text.as_bytes());
    let scene = scene
        .variable("VOUCHSAFE_POLICY", &path)
        .variable("VOUCHSAFE_ENV", "test")
        .variable("VOUCHSAFE_SERVICE", "api");
    let seen = scene.vouchsafe(&["run", "--", "sh", "-c", "env | grep -c VOUCHSAFE; echo $A"]).expect_status(0);
    assert_eq!(seen.out(), "0\n1\n");
    scene.vouchsafe(&["run", "--env", "prod", "--", "true"]).expect_status(121);
    scene.vouchsafe(&["run", "--service", "web", "--", "true"]).expect_status(121);
    scene.vouchsafe(&["run", "--policy", "policy.toml", "--", "true"]).expect_status(0);
    let empty = scene.variable("VOUCHSAFE_ENV", "").variable("VOUCHSAFE_SERVICE", "").variable("VOUCHSAFE_POLICY", "");
    empty.vouchsafe(&["run", "--", "true"]).expect_status(2);
}

#[test]
fn policies_are_found_below_the_working_folder_unless_by_root() {
    let scene = Scene::with(&[("A", "1")]);
    let text = std::fs::read_to_string(scene.write_policy()).unwrap();
    scene.write("policies/test.toml", text.as_bytes());
    let with_service = text.replace("environment = \"test\"", "environment = \"test\"\nservice = \"api\"");
    scene.write("policies/test/api.toml", with_service.as_bytes());
    let is_root = rustix::process::geteuid().is_root();
    for (words, policy) in [(&[][..], "policies/test.toml"), (&["--service", "api"], "policies/test/api.toml")] {
        let line = [&["explain", "--env", "test"], words].concat();
        let outcome = scene.vouchsafe(&line);
        if is_root {
            assert!(outcome.expect_status(121).err().contains("root does not search the current folder"));
        } else {
            assert!(outcome.expect_status(0).out().contains(&format!("policy       {policy}\n")));
        }
    }
}

#[test]
fn shells_and_readers_get_something_sane() {
    let scene = Scene::new();
    for (shell, sign) in
        [("bash", "complete -F _vouchsafe"), ("zsh", "#compdef vouchsafe"), ("fish", "complete -c vouchsafe")]
    {
        let script = scene.vouchsafe(&["completions", shell]).expect_status(0);
        assert!(script.out().contains(sign) && script.out().contains("from-file"), "{shell}");
        if shell == "bash" {
            scene.write("completions", &script.stdout);
            assert!(
                scene
                    .other("sh", &["-c", "command -v bash >/dev/null || exit 0; bash -n completions"])
                    .status()
                    .unwrap()
                    .success()
            );
        }
    }
    let page = scene.vouchsafe(&["man"]).expect_status(0);
    assert!(page.out().starts_with(".ie") || page.out().contains(".TH vouchsafe 1"));
    for class in vouchsafe::error::Class::ALL {
        assert!(page.out().contains(class.meaning()), "{class:?} is not in the manual");
    }
    let help = scene.vouchsafe(&["init", "--help"]).expect_status(0);
    assert!(help.out().contains("--log <FILE>") && help.out().contains("--identity <FILE>"));
}

/// A reader that goes away has what it wanted; a full disk is an error; a closed descriptor is nobody's fault.
#[test]
fn standard_output_may_be_closed_but_not_full() {
    let scene = Scene::with(&[("A", "1")]);
    let policy = scene.write_policy();
    let policy = policy.to_str().unwrap();
    scene.run(&["true"]).expect_status(0);
    for line in [
        &["list", "--policy", policy][..],
        &["check", "--policy", policy],
        &["explain", "--policy", policy],
        &["completions", "bash"],
        &["man"],
        &["policy", "schema"],
        &["audit", "show", "audit.jsonl"],
        &["--help"],
    ] {
        let mut child = scene.command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = wait(child);
        assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]), "{line:?}");

        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut child = scene.command(line).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
        let mut text = String::new();
        child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        let status = wait(child).status.code();
        assert!(status != Some(0) && text.contains("no space left on device"), "{line:?}: {status:?} {text}");

        let words = [&["-c", "exec \"$@\" >&-", "sh", crate::harness::VOUCHSAFE], line].concat();
        assert_eq!(scene.other("sh", &words).status().unwrap().code(), Some(0), "{line:?}");
    }
}
