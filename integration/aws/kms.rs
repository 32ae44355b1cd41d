//! KMS: inline ciphertexts and sealed files (AWS-7, AWS-8): one Decrypt for a file, the key always named, the context exact,
//! and an offline key that opens it too.

use std::time::Duration;

use serde_json::json;

use super::fake::fault::{Action, Fault};
use super::fake::kms::arn_of;
use super::scene::{AwsScene, canary};
use crate::have;

/// One secret, `INLINE`, a ciphertext under the key of the store.
pub fn with_inline_ciphertext() -> AwsScene {
    let scene = AwsScene::new();
    let blob = scene.fake.world().kms.seal(&scene.key, canary("inline").as_bytes(), &[("app", "x")]);
    let line = format!("INLINE = {{ store = \"sealed\", ciphertext = \"{blob}\", context = {{ app = \"x\" }} }}");
    scene.secrets(&format!("[secrets]\n{line}\n"))
}

/// Three secrets in the sealed file.
fn with_sealed_file() -> AwsScene {
    let secrets = "[secrets]\nA = { store = \"sealed\" }\nB = { store = \"sealed\" }\nC = { store = \"sealed\" }\n";
    with_sealed_file_in(AwsScene::new().secrets(secrets))
}

fn with_sealed_file_in(scene: AwsScene) -> AwsScene {
    for name in ["A", "B", "C"] {
        let outcome = scene.set(name, &canary(name)).expect_status(0);
        scene.says_nothing(&outcome);
    }
    scene.fake.forget();
    scene
}

#[test]
fn an_inline_ciphertext_is_opened_with_its_own_context_and_the_key_named() {
    let scene = with_inline_ciphertext();
    assert_eq!(scene.environment()["INLINE"], canary("inline"));
    let calls = scene.fake.calls("Decrypt");
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].body["KeyId"], arn_of(&scene.key));
    assert_eq!(calls[0].body["EncryptionContext"], json!({ "app": "x" }));
}

#[test]
fn many_inline_ciphertexts_are_opened_side_by_side() {
    let mut scene = AwsScene::new().secrets("[secrets]\n");
    for number in 0..12 {
        let blob = scene.fake.world().kms.seal(&scene.key, canary(&number.to_string()).as_bytes(), &[]);
        scene.secrets.push_str(&format!("K{number} = {{ store = \"sealed\", ciphertext = \"{blob}\" }}\n"));
    }
    scene.fake.world().latency = Duration::from_millis(30);
    let environment = scene.environment();
    for number in 0..12 {
        assert_eq!(environment[&format!("K{number}")], canary(&number.to_string()));
    }
    let calls = scene.fake.calls("Decrypt");
    assert_eq!(calls.len(), 12);
    let most = calls.iter().map(|call| call.in_flight).max().unwrap();
    assert!((2..=4).contains(&most), "{most} in flight");
}

#[test]
fn another_context_is_told_apart_from_another_key() {
    for (policy, made) in [
        ("{ app = \"y\" }", "x"),
        ("{ App = \"x\" }", "x"),
        ("{ app = \"x\", more = \"\" }", "x"),
        ("{}", "x"),
        ("{ ap = \"px\" }", "x"),
    ] {
        let mut scene = with_inline_ciphertext();
        scene.secrets = scene.secrets.replace("{ app = \"x\" }", policy);
        let outcome = scene.fails().expect_status(122);
        assert!(outcome.err().contains("context"), "{policy} {made}: {}", outcome.transcript());
        assert_eq!(scene.fake.count("Decrypt"), 1);
    }
    let mut scene = with_inline_ciphertext();
    scene.key = scene.fake.key();
    let outcome = scene.fails().expect_status(122);
    assert!(outcome.err().contains("another KMS key"), "{}", outcome.transcript());
}

#[test]
fn the_state_of_the_key_is_said_and_nothing_else_is_tried() {
    for (state, word) in [("Disabled", "disabled"), ("PendingDeletion", "pending"), ("PendingImport", "pending")] {
        for scene in [with_inline_ciphertext(), with_sealed_file()] {
            let key = scene.key.clone();
            scene.fake.world().kms.keys.get_mut(&key).unwrap().state = state;
            let outcome = scene.fails().expect_status(122);
            assert!(outcome.err().contains(word), "{state}: {}", outcome.transcript());
            assert_eq!(scene.fake.count("Decrypt"), 1, "{state}");
        }
    }
    let scene = with_inline_ciphertext();
    scene.fake.world().denied_operations.insert("Decrypt".into());
    let outcome = scene.fails();
    assert!(outcome.err().contains("kms:Decrypt"), "the missing right: {}", outcome.transcript());
    assert!(outcome.err().contains(&scene.key), "the key: {}", outcome.transcript());
}

#[test]
fn one_decryption_opens_a_file_however_much_it_holds() {
    let scene = with_sealed_file();
    let environment = scene.environment();
    for name in ["A", "B", "C"] {
        assert_eq!(environment[name], canary(name));
    }
    let calls = scene.fake.calls("Decrypt");
    assert_eq!(calls.len(), 1);
    assert_eq!(scene.fake.records().len(), 1);
    assert_eq!(calls[0].body["KeyId"], arn_of(&scene.key));
    assert_eq!(
        calls[0].body["EncryptionContext"],
        json!({ "vouchsafe:environment": "test", "vouchsafe:service": "api" })
    );
    let file = std::fs::read_to_string(scene.scene.path("sealed.age")).unwrap();
    assert!(file.starts_with("-----BEGIN AGE ENCRYPTED FILE-----"), "{file}");
}

#[test]
fn the_stores_context_is_added_to_that_of_the_file() {
    let mut scene = AwsScene::new().secrets("[secrets]\nA = { store = \"sealed\" }\n");
    scene.sealed = "context = { team = \"payments\" }\n".into();
    scene.set("A", &canary("A")).expect_status(0);
    let wanted = [("team", "payments"), ("vouchsafe:environment", "test"), ("vouchsafe:service", "api")];
    let wanted = wanted.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
    let made = scene.fake.count("Encrypt");
    assert_eq!(scene.fake.world().kms.contexts(), vec![wanted; made]);
    assert_eq!(scene.environment()["A"], canary("A"));
    // Another team's policy does not open it.
    scene.sealed = "context = { team = \"billing\" }\n".into();
    let outcome = scene.fails().expect_status(122);
    assert!(outcome.err().contains("context"), "{}", outcome.transcript());
    // What is ours cannot be claimed by a policy.
    scene.sealed = "context = { \"vouchsafe:environment\" = \"prod\" }\n".into();
    let before = scene.fake.count("Decrypt");
    scene.fails();
    let claimed = scene.fake.calls("Decrypt")[before..]
        .iter()
        .any(|call| call.body["EncryptionContext"]["vouchsafe:environment"] != "test");
    assert!(!claimed);
}

#[test]
fn a_file_of_another_environment_or_service_does_not_open() {
    let scene = with_sealed_file();
    let policy = std::fs::read_to_string(scene.policy()).unwrap();
    for (from, to) in [("environment = \"test\"", "environment = \"prod\""), ("service = \"api\"", "service = \"web\"")]
    {
        let other = scene.scene.write("other.toml", policy.replace(from, to).as_bytes()).display().to_string();
        let outcome = scene.scene.vouchsafe(&["run", "--policy", &other, "--only", "A", "--", "echo", "started"]);
        assert_eq!(outcome.status.code(), Some(122), "{}", outcome.transcript());
        assert_eq!(outcome.out(), "");
        scene.says_nothing(&outcome);
    }
}

#[test]
fn stock_age_opens_it_with_the_offline_key() {
    if !have(&["age"], false) {
        return;
    }
    let mut scene = AwsScene::new();
    scene.sealed = format!("recipients = [\"{}\"]\n", scene.scene.recipient());
    let scene = with_sealed_file_in(
        scene
            .secrets("[secrets]\nA = { store = \"sealed\" }\nB = { store = \"sealed\" }\nC = { store = \"sealed\" }\n"),
    );
    let output = scene.scene.other("age", &["-d", "-i", "identity.key", "sealed.age"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["items"]["A"]["current"]["value"], canary("A"));
    assert_eq!(document["environment"], "test");
}

#[test]
fn either_key_opens_it_whatever_happens_to_the_other() {
    let recipient = |scene: &AwsScene| format!("recipients = [\"{}\"]\n", scene.scene.recipient());
    let identity =
        |scene: &AwsScene| format!("identities = [\"file:{}identity.key\"]\n", scene.scene.path("").display());
    let secrets = "[secrets]\nA = { store = \"sealed\" }\nB = { store = \"sealed\" }\nC = { store = \"sealed\" }\n";
    let mut scene = AwsScene::new().secrets(secrets);
    scene.sealed = recipient(&scene);
    let mut scene = with_sealed_file_in(scene);
    // KMS alone.
    assert_eq!(scene.environment()["A"], canary("A"));
    assert_eq!(scene.fake.count("Decrypt"), 1);
    // The offline key is there: KMS is not even asked, and may be down.
    scene.sealed = recipient(&scene) + &identity(&scene);
    scene.fake.forget().fault(Fault::on("*", Action::DropBefore));
    assert_eq!(scene.environment()["B"], canary("B"));
    assert_eq!(scene.fake.records().len(), 0);
    // An offline key that does not fit is passed over.
    let other = age::x25519::Identity::generate();
    let text = age::secrecy::ExposeSecret::expose_secret(&other.to_string()).to_owned();
    scene.scene.write_mode("identity.key", text.as_bytes(), 0o600);
    scene.fake.forget();
    assert_eq!(scene.environment()["C"], canary("C"));
    // Neither: KMS says why.
    scene.fake.world().denied_operations.insert("Decrypt".into());
    let outcome = scene.fails();
    assert!(outcome.err().contains("kms:Decrypt"), "{}", outcome.transcript());
}

#[test]
fn a_stanza_of_a_key_that_the_policy_does_not_name_is_not_asked_for() {
    let mut scene = with_sealed_file();
    // The file is as it was; the policy names another key.
    scene.key = scene.fake.key();
    scene.fails().expect_status(122);
    assert_eq!(scene.fake.count("Decrypt"), 0);
}

#[test]
fn a_damaged_file_is_said_to_be_damaged() {
    let scene = with_sealed_file();
    let good = std::fs::read_to_string(scene.scene.path("sealed.age")).unwrap();
    let lines: Vec<_> = good.lines().collect();
    for line in 1..lines.len() - 1 {
        let mut changed = lines.clone();
        let flipped = lines[line].chars().rev().collect::<String>();
        if flipped == lines[line] {
            continue;
        }
        changed[line] = &flipped;
        scene.scene.write("sealed.age", (changed.join("\n") + "\n").as_bytes());
        let outcome = scene.fails();
        assert!(matches!(outcome.status.code(), Some(122 | 124)), "line {line}: {}", outcome.transcript());
    }
}

#[test]
fn a_plaintext_of_the_wrong_size_or_from_another_key_is_refused() {
    let changes: [(&str, fn(&mut serde_json::Value)); 4] = [
        ("short", |body| body["Plaintext"] = "AAAA".into()),
        ("long", |body| body["Plaintext"] = "A".repeat(4096).into()),
        ("none", |body| body["Plaintext"] = serde_json::Value::Null),
        ("another key", |body| body["KeyId"] = arn_of("00000000-0000-0000-0000-000000000000").into()),
    ];
    for (what, change) in changes {
        let scene = with_sealed_file();
        scene.fake.fault(Fault::on("Decrypt", Action::Rewrite(Box::new(change))));
        let outcome = scene.fails();
        assert_eq!(outcome.status.code(), Some(122), "{what}: {}", outcome.transcript());
    }
}

#[test]
fn a_write_that_kms_refuses_leaves_the_old_file() {
    let scene = with_sealed_file();
    let before = std::fs::read(scene.scene.path("sealed.age")).unwrap();
    for action in [Action::DropBefore, Action::Page(403), Action::Body(b"{}".to_vec()), Action::Silence] {
        let scene_deadline = Fault::on("Encrypt", action);
        scene.fake.forget().fault(scene_deadline);
        let policy = scene.policy().replace("aws.toml", "short.toml");
        let text = std::fs::read_to_string(scene.policy()).unwrap().replace("\"20s\"", "\"2s\"");
        scene.scene.write("short.toml", text.as_bytes());
        let outcome = scene.scene.vouchsafe_reading(&["set", "A", "--policy", &policy], b"canary-of-new");
        assert!(!outcome.status.success(), "{}", outcome.transcript());
        scene.says_nothing(&outcome);
        assert_eq!(std::fs::read(scene.scene.path("sealed.age")).unwrap(), before);
    }
    let left: Vec<_> =
        std::fs::read_dir(scene.scene.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("tmp")), "{left:?}");
}
