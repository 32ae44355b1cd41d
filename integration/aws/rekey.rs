//! `rekey` of files under KMS: another key, an old one that is disabled, another context; and no key that was not named is
//! ever asked.

use serde_json::{Value, json};

use super::fake::ACCOUNT;
use super::fake::fault::{Action, Fault};
use super::fake::kms::arn_of;
use super::scene::{AwsScene, canary};
use crate::harness::Outcome;
use crate::have;

const SECRETS: &str = "[secrets]\nA = { store = \"sealed\" }\nB = { store = \"sealed\" }\n";

/// `A` and `B` under the first key; the policy names the second one. The first key's id.
fn moved() -> (AwsScene, String) {
    moved_with(AwsScene::new().secrets(SECRETS))
}

fn moved_with(scene: AwsScene) -> (AwsScene, String) {
    for name in ["A", "B"] {
        scene.set(name, &canary(name)).expect_status(0);
    }
    scene.fake.forget();
    let (old, new) = (scene.key.clone(), scene.fake.key());
    (AwsScene { key: new, ..scene }, old)
}

fn rekey(scene: &AwsScene, words: &[&str]) -> Outcome {
    let outcome = scene.vouchsafe(&[&["rekey"], words].concat());
    assert!(!outcome.out().contains("canary-of"), "{}", outcome.transcript());
    scene.says_nothing(&outcome);
    outcome
}

fn file(scene: &AwsScene) -> Vec<u8> {
    std::fs::read(scene.scene.path("sealed.age")).unwrap()
}

fn keys_asked(scene: &AwsScene, operation: &str) -> Vec<Value> {
    scene.fake.calls(operation).into_iter().map(|call| call.body["KeyId"].clone()).collect()
}

#[test]
fn a_file_moves_to_the_key_that_the_policy_names_now() {
    let (scene, old) = moved();
    let before = file(&scene);
    // Without the word nothing is asked, and the hint has it.
    let refused = rekey(&scene, &[]).expect_status(122);
    assert!(refused.err().contains("--old-key") && refused.err().contains(&arn_of(&old)), "{}", refused.transcript());
    assert_eq!((scene.fake.records().len(), file(&scene)), (0, before.clone()));
    // Another key than the file's is not asked either.
    let third = scene.fake.key();
    rekey(&scene, &["--old-key", &arn_of(&third)]).expect_status(122);
    assert_eq!((scene.fake.records().len(), file(&scene)), (0, before));

    let outcome = rekey(&scene, &["--old-key", &arn_of(&old), "--json"]).expect_status(0);
    let report: Value = serde_json::from_str(outcome.out()).unwrap();
    assert_eq!(report["files"][0]["before"]["kms_keys"], json!([arn_of(&old)]));
    assert_eq!(report["files"][0]["now"]["kms_keys"], json!([arn_of(&scene.key)]));
    let context = json!({ "vouchsafe:environment": "test", "vouchsafe:service": "api" });
    assert_eq!(keys_asked(&scene, "Decrypt"), [arn_of(&old), arn_of(&scene.key)], "opened, and read back");
    assert_eq!(keys_asked(&scene, "Encrypt"), [arn_of(&scene.key)]);
    assert!(scene.fake.records().iter().all(|call| call.body["EncryptionContext"] == context));
    // The old key can go: everything opens without it, and it is not asked again.
    scene.fake.world().kms.keys.get_mut(&old).unwrap().state = "PendingDeletion";
    scene.fake.forget();
    assert_eq!(scene.environment()["A"], canary("A"));
    assert_eq!(keys_asked(&scene, "Decrypt"), [arn_of(&scene.key)]);
    scene.set("A", &canary("new")).expect_status(0);
    // Once more, with the same words: nothing is left to do, and the old key is not asked.
    scene.fake.forget();
    rekey(&scene, &["--old-key", &arn_of(&old)]).expect_status(0);
    assert!(!keys_asked(&scene, "Decrypt").contains(&json!(arn_of(&old))));
    // What the log says is found in CloudTrail.
    let log = std::fs::read_to_string(scene.scene.path("audit.jsonl")).unwrap();
    let records = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let rekeyed: Vec<Value> = records.filter(|record| record["event"] == "secret.rekeyed").collect();
    assert!(
        rekeyed.iter().filter(|record| record["outcome"] == "succeeded").all(|record| record["requests"].is_array())
    );
}

#[test]
fn an_old_key_that_is_no_use_any_more_leaves_the_file_and_is_named() {
    for (state, word) in [("Disabled", "disabled"), ("PendingDeletion", "pending")] {
        let (scene, old) = moved();
        let before = file(&scene);
        scene.fake.world().kms.keys.get_mut(&old).unwrap().state = state;
        let outcome = rekey(&scene, &["--old-key", &arn_of(&old)]).expect_status(122);
        assert!(outcome.err().contains(word) && outcome.err().contains(&old), "{}", outcome.transcript());
        assert_eq!((file(&scene), scene.fake.count("Encrypt")), (before, 0));
        scene.fake.world().kms.keys.get_mut(&old).unwrap().state = "Enabled";
        rekey(&scene, &["--old-key", &arn_of(&old)]).expect_status(0);
        assert_eq!(scene.environment()["B"], canary("B"));
    }
    // The right to it is missing: which one, and to which key.
    let (scene, old) = moved();
    scene.fake.world().kms.denied.push(old.clone());
    let outcome = rekey(&scene, &["--old-key", &arn_of(&old)]).expect_status(124);
    assert!(outcome.err().contains("kms:Decrypt") && outcome.err().contains(&old), "{}", outcome.transcript());
}

#[test]
fn a_new_key_that_does_not_answer_leaves_the_old_file() {
    let (scene, old) = moved();
    let before = file(&scene);
    let new = scene.key.clone();
    scene.fake.world().kms.keys.get_mut(&new).unwrap().state = "Disabled";
    rekey(&scene, &["--old-key", &arn_of(&old)]).expect_status(122);
    scene.fake.world().kms.keys.get_mut(&new).unwrap().state = "Enabled";
    // It can be written and not read back: nobody could open it.
    for action in [Action::Page(403), Action::Body(b"{}".to_vec())] {
        scene.fake.forget().fault(Fault::on("Decrypt", action).skip(1));
        assert!(!rekey(&scene, &["--old-key", &arn_of(&old)]).status.success());
    }
    scene.fake.forget().fault(Fault::error("Encrypt", 400, "AccessDeniedException"));
    rekey(&scene, &["--old-key", &arn_of(&old)]).expect_status(124);
    // A dry run finds that too.
    rekey(&scene, &["--old-key", &arn_of(&old), "--dry-run"]).expect_status(124);
    assert_eq!(file(&scene), before);
    scene.fake.forget();
    rekey(&scene, &["--old-key", &arn_of(&old)]).expect_status(0);
}

#[test]
fn another_context_is_said_and_nothing_is_written() {
    let (mut scene, old) = moved();
    let before = file(&scene);
    scene.sealed = "context = { team = \"payments\" }\n".into();
    let outcome = rekey(&scene, &["--old-key", &arn_of(&old)]).expect_status(122);
    assert!(outcome.err().contains("context"), "{}", outcome.transcript());
    assert_eq!((file(&scene), scene.fake.count("Encrypt")), (before, 0));
}

#[test]
fn an_offline_identity_moves_a_file_without_the_old_key() {
    let identity = |scene: &AwsScene| {
        let at = scene.scene.path("").display().to_string();
        format!("recipients = [\"{}\"]\nidentities = [\"file:{at}identity.key\"]\n", scene.scene.recipient())
    };
    let mut scene = AwsScene::new().secrets(SECRETS);
    scene.sealed = identity(&scene);
    let (mut scene, old) = moved_with(scene);
    scene.fake.world().kms.keys.get_mut(&old).unwrap().state = "Disabled";
    rekey(&scene, &[]).expect_status(0);
    assert_eq!((scene.fake.count("Encrypt"), scene.fake.count("Decrypt")), (1, 0));
    scene.sealed = String::new();
    assert_eq!(scene.environment()["A"], canary("A"), "by the new key alone");
}

/// Both ends: the offline recipient goes, and so does the KMS key; what either could open is due.
#[test]
fn a_recipient_and_a_key_can_be_compromised() {
    let mut scene = AwsScene::new().secrets(SECRETS);
    scene.sealed = format!("recipients = [\"{}\"]\n", scene.scene.recipient());
    let (mut scene, old) = moved_with(scene);
    let recipient = scene.scene.recipient();
    let own = || {
        let key = std::fs::read_to_string(scene.scene.path("identity.key")).unwrap();
        key.trim().parse::<age::x25519::Identity>().unwrap()
    };
    let own = own();
    assert!(age::decrypt(&own, &file(&scene)).is_ok());
    // Named still, the one as the other.
    rekey(&scene, &["--remove", &recipient, "--old-key", &arn_of(&old)]).expect_status(121);
    rekey(&scene, &["--remove", &arn_of(&scene.key)]).expect_status(121);
    scene.sealed = String::new();
    let lost = ["--old-key", &arn_of(&old), "--remove", &recipient, "--compromised", "--json"];
    let outcome = rekey(&scene, &lost).expect_status(10);
    assert!(age::decrypt(&own, &file(&scene)).is_err(), "{}", outcome.transcript());
    let outcome = rekey(&scene, &["--remove", &arn_of(&old), "--compromised", "--json"]).expect_status(10);
    let report: Value = serde_json::from_str(outcome.out()).unwrap();
    let exposed: Vec<_> =
        report["exposed"].as_array().unwrap().iter().map(|one| (&one["name"], &one["recipient"])).collect();
    let (old, age) = (json!(arn_of(&old)), json!(recipient));
    let (a, b) = (json!("A"), json!("B"));
    assert_eq!(exposed, [(&a, &age), (&b, &age), (&a, &old), (&b, &old)]);
    scene.vouchsafe(&["check"]).expect_status(10);
    for name in ["A", "B"] {
        scene.set(name, &canary("new")).expect_status(0);
    }
    rekey(&scene, &["--remove", &recipient, "--compromised"]).expect_status(0);
    scene.vouchsafe(&["check"]).expect_status(0);
}

#[test]
fn what_is_in_no_file_is_said_by_name() {
    let scene = AwsScene::new();
    let blob = scene.fake.world().kms.seal(&scene.key, canary("inline").as_bytes(), &[]);
    let scene = scene
        .secrets(&format!("{SECRETS}INLINE = {{ store = \"sealed\", ciphertext = \"{blob}\" }}\nPARAMETER = {{}}\n"));
    scene.set("A", &canary("A")).expect_status(0);
    let outcome = rekey(&scene, &["--json"]).expect_status(0);
    let report: Value = serde_json::from_str(outcome.out()).unwrap();
    let said: Vec<_> =
        report["not_covered"].as_array().unwrap().iter().map(|one| (&one["store"], &one["names"])).collect();
    let (params, sealed) = (json!("params"), json!("sealed"));
    assert_eq!(said, [(&params, &json!(["PARAMETER"])), (&sealed, &json!(["INLINE"]))]);
    assert!(rekey(&scene, &[]).out().contains("aws kms re-encrypt"));
}

#[test]
fn the_printed_iam_policy_is_enough() {
    let scene = AwsScene::new().stores(&format!("account = \"{ACCOUNT}\"\n")).secrets(SECRETS);
    scene.set("A", &canary("A")).expect_status(0);
    let printed = scene.vouchsafe(&["check", "--iam=rekey"]).expect_status(0);
    scene.fake.world().iam = Some(serde_json::from_str(printed.out()).unwrap());
    rekey(&scene, &[]).expect_status(0);
    // The old key is the policy's no more: its right is asked for by name.
    let (old, new) = (scene.key.clone(), scene.fake.key());
    let scene = AwsScene { key: new, ..scene };
    let printed = scene.vouchsafe(&["check", "--iam=rekey"]).expect_status(0);
    scene.fake.world().iam = Some(serde_json::from_str(printed.out()).unwrap());
    let outcome = rekey(&scene, &["--old-key", &arn_of(&old)]).expect_status(124);
    assert!(outcome.err().contains(&format!("allow kms:Decrypt on {}", arn_of(&old))), "{}", outcome.transcript());
}

#[test]
fn a_lost_answer_or_a_throttled_call_is_repeated() {
    let (scene, old) = moved();
    for action in [Action::DropAfter, Action::DropBefore] {
        scene.fake.forget().fault(Fault::on("Decrypt", action).times(1));
        rekey(&scene, &["--old-key", &arn_of(&old)]).expect_status(0);
    }
    scene.fake.forget().fault(Fault::error("Encrypt", 400, "ThrottlingException").times(2));
    rekey(&scene, &[]).expect_status(0);
    assert_eq!(scene.environment()["A"], canary("A"));
}

#[test]
fn stock_age_opens_a_file_that_was_moved() {
    if !have(&["age"], false) {
        return;
    }
    let mut scene = AwsScene::new().secrets(SECRETS);
    scene.sealed = format!("recipients = [\"{}\"]\n", scene.scene.recipient());
    let (scene, old) = moved_with(scene);
    rekey(&scene, &["--old-key", &arn_of(&old)]).expect_status(0);
    let output = scene.scene.other("age", &["-d", "-i", "identity.key", "sealed.age"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
