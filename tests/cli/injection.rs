//! What a policy can say about what is injected and to whom, end to end: templates, fields, bundles, grants, `extends`.

use std::os::unix::fs::PermissionsExt;
use std::time::SystemTime;

use crate::harness::{Outcome, Scene};
use crate::hostile_names::write_document;

fn digest_of(path: &std::path::Path) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, &std::fs::read(path).unwrap());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn absence_is_excused_and_nothing_else() {
    let scene =
        Scene::with(&[("A", "1")]).and("B = { required = false }\nC = { template = \"{A}-{B}\", required = false }");
    let seen = scene.run(&["env"]).expect_status(0);
    assert!(seen.out().contains("A=1\n") && !seen.out().contains("B=") && !seen.out().contains("C="), "{}", seen.out());
    let denied = Scene::with(&[("A", "1")])
        .and("B = { required = false }")
        .grants("[[grants]]\nsecrets = [\"A\"]\nto = \"anyone\"\n");
    denied.run(&["true"]).expect_status(120);
    std::fs::remove_file(scene.path("identity.key")).unwrap();
    scene.verb(&["run", "--only", "B", "--", "true"]).expect_status(124);
}

#[test]
fn templates_are_made_of_parts_that_need_not_be_injected() {
    let scene = Scene::with(&[("USER_PART", "a@b"), ("KEY_PART", "p/w?&%\u{e9} ")]).policy(
        "[secrets]\nUSER_PART = { inject = false }\nKEY_PART = { inject = false }\n\
         URL = { template = \"https://{USER_PART:url}:{KEY_PART:url}@host/{{x}}\" }\nRAW = { template = \"{KEY_PART}\" }\n",
    );
    let seen = scene.run(&["env"]).expect_status(0);
    assert!(seen.out().contains("URL=https://a%40b:p%2Fw%3F%26%25%C3%A9%20@host/{x}\n"), "{}", seen.out());
    assert!(seen.out().contains("RAW=p/w?&%\u{e9} \n") && !seen.out().contains("_PART="), "{}", seen.out());
    let released = &scene.audit()[1]["secrets"];
    assert_eq!(released.as_array().unwrap().len(), 4, "the parts are written down too: {released}");
    scene.store(&[("USER_PART", "x")]);
    assert!(scene.run(&["true"]).expect_status(122).err().contains("`URL`"));
}

#[test]
fn fields_of_json() {
    let json = r#"{"password":"hunter2","port":5432,"tls":true,"a/b":["x",{"c~d":"deep"}],"none":null}"#;
    let scene = Scene::with(&[("DB", json)]).policy(
        "[secrets]\nPASSWORD = { item = \"DB\", field = \"/password\" }\nPORT = { item = \"DB\", field = \"/port\" }\n\
         TLS = { item = \"DB\", field = \"/tls\" }\nDEEP = { item = \"DB\", field = \"/a~1b/1/c~0d\" }\nDB = {}\n",
    );
    let seen = scene.run(&["sh", "-c", "echo $PASSWORD $PORT $TLS $DEEP; echo \"$DB\""]).expect_status(0);
    assert_eq!(seen.out(), format!("hunter2 5432 true deep\n{json}\n"));
    for field in ["/none", "/nothing", "/a~1b", "/password/x"] {
        let scene =
            Scene::with(&[("DB", json)]).policy(&format!("[secrets]\nX = {{ item = \"DB\", field = \"{field}\" }}\n"));
        let outcome = scene.run(&["true"]).expect_status(122);
        assert!(outcome.err().contains("the field of `X`") && !outcome.err().contains("hunter2"), "{}", outcome.err());
    }
}

/// A scene with a bundle and what lies below its path.
fn bundle(rules: &str, items: &[(&str, &str)]) -> Scene {
    let scene = Scene::sealed(&[]).policy(&format!("[[bundles]]\nstore = \"files\"\n{rules}\n"));
    let now = SystemTime::now();
    let items: Vec<_> = items.iter().map(|(name, value)| (*name, *value, now)).collect();
    write_document(&scene, &items);
    scene
}

#[test]
fn bundles_bring_what_lies_below_their_path() {
    let items = [("f/dark-mode", "on"), ("f/x.y", "1"), ("f/deep/er", "2"), ("f2/other", "3"), ("g", "4")];
    let names = |rules: &str| {
        let scene = bundle(rules, &items).variable("PATH", "/usr/bin:/bin").and("[child]\ninherit = \"none\"");
        let seen = scene.run(&["/usr/bin/env"]).expect_status(0);
        let mut names: Vec<String> =
            seen.out().lines().map(|line| line.split('=').next().unwrap().to_owned()).collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(names("path = \"f/\"\nnames = \"UPPER_SNAKE\""), "DARK_MODE X_Y");
    assert_eq!(names("path = \"f/\"\nnames = \"lower_snake\""), "dark_mode x_y");
    assert_eq!(names("path = \"f/\"\nnames = \"UPPER_SNAKE\"\nrecursive = true"), "DARK_MODE DEEP_ER X_Y");
    assert_eq!(names("path = \"none/\"\nat_least = 0"), "");
}

#[test]
fn bundles_that_cannot_be_injected_stop_the_child() {
    let run = |rules: &str, items: &[(&str, &str)], more: &str, status: i32, part: &str| {
        let scene = bundle(rules, items).and(more);
        let outcome = scene.run(&["true"]).expect_status(status);
        assert!(outcome.err().contains(part), "{}", outcome.err());
        assert_eq!(scene.events().last().unwrap().split('.').next(), Some("access"));
    };
    let upper = "path = \"f/\"\nnames = \"UPPER_SNAKE\"";
    run("path = \"f/\"", &[("g/a", "1")], "", 122, "holds fewer than 1 item");
    run("path = \"f/\"\nat_least = 3", &[("f/a", "1"), ("f/b", "1")], "", 122, "holds fewer than 3 items");
    run(upper, &[("f/a-b", "1"), ("f/a_b", "2")], "", 121, "two sources bring `A_B`");
    run(upper, &[("f/a", "1")], "[secrets]\nA = { item = \"f/a\" }", 121, "two sources bring `A`");
    run(upper, &[("f/a", "1")], "[child]\nset = { A = \"x\" }", 121, "two sources bring `A`");
    run(upper, &[("f/ld-preload", "1")], "", 121, "would change how programs load or shells start");
    run(upper, &[("f/1a", "1")], "", 121, "makes no variable");
    let scene = bundle(upper, &[("f/a", "1"), ("f/b", "1")]).grants("[[grants]]\nsecrets = [\"A\"]\nto = \"anyone\"\n");
    let outcome = scene.run(&["true"]).expect_status(120);
    assert!(outcome.err().contains("no grant covers `B`"), "{}", outcome.err());
    assert_eq!(scene.events().last().unwrap(), "access.denied");
}

#[test]
fn only_asks_for_less() {
    let scene = Scene::with(&[("A", "1"), ("B", "2")]).and("PART = { item = \"A\", inject = false }");
    let run = |only: &[&str]| {
        let line = [&["run"], only, &["--", "sh", "-c", "echo ${A-no} ${B-no} ${PART-no}"]].concat();
        scene.verb(&line).expect_status(0).out().to_owned()
    };
    assert_eq!(run(&[]), "1 2 no\n");
    assert_eq!(run(&["--only", "A"]), "1 no no\n");
    assert_eq!(run(&["--only", "A,B"]), "1 2 no\n");
    assert_eq!(run(&["--only", "A", "--only", "B"]), "1 2 no\n");
    assert_eq!(run(&["--only", "PART"]), "no no 1\n");
    scene.verb(&["run", "--only", "A,C", "--", "true"]).expect_status(120);
    scene.verb(&["run", "--only", "", "--", "true"]).expect_status(2);
}

#[test]
fn grants_by_user_and_group() {
    let uid = rustix::process::getuid().as_raw();
    let gid = rustix::process::getgid().as_raw();
    let run = |to: &str, status: i32| {
        let scene = Scene::with(&[("A", "1")]).grants(&format!("[[grants]]\nsecrets = [\"A\"]\nto = {to}\n"));
        scene.run(&["true"]).expect_status(status);
    };
    run(&format!("{{ users = [{uid}] }}"), 0);
    run(&format!("{{ users = [{}] }}", uid + 1), 120);
    run(&format!("{{ groups = [{gid}] }}"), 0);
    run(&format!("{{ groups = [{}] }}", gid + 4242), 120);
    run(&format!("{{ users = [{}, {uid}], groups = [{gid}] }}", uid + 1), 0);
    run(&format!("{{ users = [{uid}], groups = [{}] }}", gid + 4242), 120);
    run("{ users = [\"no-such-user-anywhere\"] }", 120);
    if let Some(user) = vouchsafe::caller::of_this_process(false).user {
        run(&format!("{{ users = [\"{user}\"] }}"), 0);
    }
}

fn with_command_grant(scene: Scene, to: &str) -> Scene {
    scene.grants(&format!("[[grants]]\nsecrets = [\"A\"]\nto = {to}\n"))
}

#[test]
fn grants_by_command() {
    let scene = Scene::with(&[("A", "1")]);
    std::fs::copy("/usr/bin/printenv", scene.path("tool")).unwrap();
    std::os::unix::fs::symlink("tool", scene.path("link")).unwrap();
    let tool = scene.path("tool").display().to_string();
    let scene = with_command_grant(scene, &format!("{{ commands = [\"{tool}\"] }}"));
    let run = |words: &[&str], status: i32| -> Outcome { scene.run(words).expect_status(status) };
    assert_eq!(run(&[&tool, "A"], 0).out(), "1\n");
    run(&["./tool", "A"], 0);
    run(&["./link", "A"], 0);
    run(&["printenv", "A"], 120);
    run(&["sh", "-c", "./tool A"], 120);
    // Others could put anything in its place.
    std::fs::set_permissions(&tool, PermissionsExt::from_mode(0o777)).unwrap();
    let outcome = run(&["./tool", "A"], 120);
    assert!(outcome.err().contains("the grant names the command, but") && outcome.err().contains("hint: chmod go-w"));
}

#[test]
fn grants_by_digest() {
    let scene = Scene::with(&[("A", "1")]);
    std::fs::copy("/usr/bin/printenv", scene.path("tool")).unwrap();
    scene.write_mode("script", b"#!/bin/sh\necho $A\n", 0o755);
    let digests = [digest_of(&scene.path("tool")), digest_of(&scene.path("script"))];
    let scene = with_command_grant(scene, &format!("{{ sha256 = [\"{}\", \"{}\"] }}", digests[0], digests[1]));
    assert_eq!(scene.run(&["./tool", "A"]).expect_status(0).out(), "1\n");
    // Of a script, the interpreter is what runs: no digest of it proves anything.
    scene.run(&["./script"]).expect_status(120);
    std::fs::rename(scene.path("tool"), scene.path("moved")).unwrap();
    scene.run(&["./moved", "A"]).expect_status(0);
    std::fs::copy("/bin/true", scene.path("tool")).unwrap();
    scene.run(&["./tool", "A"]).expect_status(120);
    let events = scene.events();
    assert_eq!(events.iter().filter(|event| *event == "access.denied").count(), 2);
}

#[test]
fn a_base_is_extended() {
    let scene = Scene::with(&[("A", "1"), ("B", "2"), ("C", "3")]);
    scene.write(
        "base.toml",
        b"version = 1\nenvironment = \"*\"\n[secrets]\nA = { item = \"C\" }\nB = {}\n[child]\nset = { FROM = \"base\" }\n\
          [[grants]]\nsecrets = [\"B\"]\nto = \"anyone\"\n",
    );
    let text = std::fs::read_to_string(scene.write_policy()).unwrap();
    let text = text.replace("store = \"files\"\n", "store = \"files\"\nextends = \"base.toml\"\n");
    let text = text.replacen("B = {}\nC = {}\n", "", 1).replace("secrets = [\"*\"]", "secrets = [\"A\"]");
    let path = scene.write("own.toml", text.as_bytes());
    let line = ["run", "--policy", path.to_str().unwrap(), "--", "sh", "-c", "echo $A $B ${C-no} $FROM"];
    assert_eq!(scene.vouchsafe(&line).expect_status(0).out(), "1 2 no base\n");
    // A base by itself speaks for no environment.
    scene.vouchsafe(&["check", "--policy", "base.toml"]).expect_status(121);
    std::fs::set_permissions(scene.path("base.toml"), PermissionsExt::from_mode(0o666)).unwrap();
    let outcome = scene.vouchsafe(&line).expect_status(121);
    assert!(outcome.err().contains("base.toml"), "{}", outcome.err());
    assert_ne!(scene.audit()[0]["policy"], serde_json::Value::Null);
}
