//! Stock `age` opens what vouchsafe wrote, and vouchsafe runs from what stock `age` wrote. No lock-in, and a way in when all
//! else is down.

use std::io::Write;
use std::process::Stdio;

use crate::harness::Scene;
use crate::have;

/// The policy of a scene, with a store of vouchsafe's own format.
fn sealed_policy(scene: &Scene) -> String {
    let folder = scene.path("");
    let folder = folder.display();
    let text = format!(
        "version = 1\nenvironment = \"test\"\nstore = \"files\"\n[stores.files]\ntype = \"age\"\npath = \"{folder}sealed.age\"\n\
         recipients = [\"{}\"]\nidentities = [\"file:{folder}identity.key\"]\n[secrets]\nDB_PASSWORD = {{}}\nBINARY = {{}}\n\
         [[grants]]\nsecrets = [\"*\"]\nto = \"anyone\"\n[[audit.sinks]]\ntype = \"file\"\npath = \"{folder}audit.jsonl\"\n",
        scene.recipient()
    );
    scene.write("sealed.toml", text.as_bytes()).display().to_string()
}

#[test]
fn stock_age_opens_what_vouchsafe_wrote() {
    if !have(&["age"], false) {
        return;
    }
    let scene = Scene::new();
    let policy = sealed_policy(&scene);
    scene.vouchsafe_reading(&["set", "DB_PASSWORD", "--policy", &policy], b"hunter2\n").expect_status(0);
    scene.vouchsafe_reading(&["set", "BINARY", "--policy", &policy], b"\xff\xfe\x01").expect_status(0);
    let output = scene.other("age", &["-d", "-i", "identity.key", "sealed.age"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["items"]["DB_PASSWORD"]["current"]["value"], "hunter2");
    assert_eq!(document["items"]["BINARY"]["current"]["base64"], "//4B");
    assert_eq!(document["generation"], 3);
}

#[test]
fn vouchsafe_runs_from_what_stock_age_wrote() {
    if !have(&["age"], false) {
        return;
    }
    for (format, plaintext) in [
        ("dotenv", "# a comment\nexport DB_PASSWORD='hun ter2'\nTOKEN=\"a\\nb\"\n"),
        ("json", r#"{"DB_PASSWORD": "hun ter2", "TOKEN": "a\nb"}"#),
        ("toml", "DB_PASSWORD = \"hun ter2\"\nTOKEN = \"a\\nb\"\n"),
    ] {
        for armor in [&["-r"][..], &["-a", "-r"]] {
            let scene = Scene::with(&[("DB_PASSWORD", "x"), ("TOKEN", "x")]);
            let policy = std::fs::read_to_string(scene.write_policy()).unwrap();
            let policy = policy.replace("format = \"json\"", &format!("format = \"{format}\""));
            let policy = scene.write("policy-2.toml", policy.as_bytes());
            let mut words: Vec<String> = armor.iter().map(ToString::to_string).collect();
            words.extend([scene.recipient(), "-o".into(), "store.age".into()]);
            std::fs::remove_file(scene.path("store.age")).unwrap();
            let mut age = scene.other("age", &words).stdin(Stdio::piped()).spawn().unwrap();
            age.stdin.take().unwrap().write_all(plaintext.as_bytes()).unwrap();
            assert!(age.wait().unwrap().success());
            let run = [
                "run",
                "--policy",
                policy.to_str().unwrap(),
                "--",
                "sh",
                "-c",
                "printf '%s|%s' \"$DB_PASSWORD\" \"$TOKEN\"",
            ];
            assert_eq!(scene.vouchsafe(&run).expect_status(0).out(), "hun ter2|a\nb", "{format}");
        }
    }
}

#[test]
fn a_stock_identity_file_is_read_as_it_is() {
    if !have(&["age", "age-keygen"], false) {
        return;
    }
    let scene = Scene::with(&[("A", "1")]);
    std::fs::remove_file(scene.path("identity.key")).unwrap();
    assert!(scene.other("age-keygen", &["-o", "identity.key"]).stderr(Stdio::null()).status().unwrap().success());
    let recipient = scene.other("age-keygen", &["-y", "identity.key"]).output().unwrap();
    let recipient = String::from_utf8(recipient.stdout).unwrap();
    std::fs::remove_file(scene.path("store.age")).unwrap();
    let mut age =
        scene.other("age", &["-r", recipient.trim(), "-o", "store.age"]).stdin(Stdio::piped()).spawn().unwrap();
    age.stdin.take().unwrap().write_all(br#"{"A":"from stock age"}"#).unwrap();
    assert!(age.wait().unwrap().success());
    assert_eq!(scene.run(&["printenv", "A"]).expect_status(0).out(), "from stock age\n");
}
