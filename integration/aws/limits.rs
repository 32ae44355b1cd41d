//! All or nothing over several stores, values of any bytes, and numbers that are larger than usual.

use std::time::Duration;

use serde_json::json;

use super::fake::fault::{Action, Fault};
use super::fake::ssm::arn_of;
use super::scene::{AwsScene, canary, timed};

#[test]
fn one_store_that_fails_fails_everything() {
    let secrets = "[secrets]\nA = {}\nB = { store = \"sealed\" }\n";
    for target in ["GetParameters", "Decrypt"] {
        let scene = AwsScene::new().secrets(secrets);
        scene.fake.secure("/test/api/A", &canary("A"));
        scene.set("B", &canary("B")).expect_status(0);
        scene.run(&["true"]).expect_status(0);
        scene.fake.fault(Fault::error(target, 400, "AccessDeniedException"));
        let outcome = scene.fails();
        assert!(outcome.err().contains("store `"), "which store: {}", outcome.transcript());
    }
}

#[test]
fn a_value_goes_through_as_it_is_or_not_at_all() {
    let scene = AwsScene::with(&["A"]);
    for value in ["line 1\nline 2\n", " spaces ", "\u{1b}[31m\t=%\"'$`\\", "\u{1f511} é", "=", &"x".repeat(8192)] {
        scene.fake.secure("/test/api/A", value);
        assert_eq!(scene.environment()["A"], value);
    }
    // No environment can hold this.
    scene.fake.secure("/test/api/A", "canary-of-before\0canary-of-after");
    scene.fails();
    // Bytes that are no text, of a KMS ciphertext.
    let scene = AwsScene::new();
    let blob = scene.fake.world().kms.seal(&scene.key, b"\xff\xfe\x01", &[]);
    let scene = scene.secrets(&format!("[secrets]\nA = {{ store = \"sealed\", ciphertext = \"{blob}\" }}\n"));
    assert_eq!(scene.run(&["printenv", "A"]).expect_status(0).stdout, b"\xff\xfe\x01\n");
}

#[test]
fn two_hundred_names_with_twenty_in_flight_go_out_at_once() {
    let scene = AwsScene::numbered(200).params("in_flight = 20\n");
    scene.fake.world().latency = Duration::from_millis(150);
    let (environment, took) = timed(|| scene.environment());
    assert_eq!(environment.keys().filter(|name| name.starts_with('S')).count(), 200);
    let calls = scene.fake.calls("GetParameters");
    assert_eq!(calls.len(), 20);
    // All are under way together: nobody waits for anybody's answer.
    assert_eq!(calls.iter().map(|call| call.in_flight).max(), Some(20), "{took:?}");
}

#[test]
fn pages_without_end_are_left() {
    let scene = AwsScene::new().secrets("[secrets]\n[[bundles]]\npath = \"f/\"\n").deadline("3s");
    let mut count = 0;
    scene.fake.fault(Fault::on(
        "GetParametersByPath",
        Action::Answer(Box::new(move |_| {
            count += 1;
            let name = format!("/test/api/f/n{count}");
            let one = json!({ "Name": name, "Value": "v", "Type": "SecureString", "Version": 1, "ARN": arn_of(&name) });
            json!({ "Parameters": [one], "NextToken": format!("token {count}") })
        })),
    ));
    let (outcome, took) = timed(|| scene.fails());
    assert_eq!(outcome.status.code(), Some(122), "{}", outcome.transcript());
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn one_connection_serves_calls_that_follow_each_other() {
    let scene = AwsScene::new().secrets("[secrets]\n[[bundles]]\npath = \"f/\"\n");
    for number in 0..35 {
        scene.fake.secure(&format!("/test/api/f/n{number}"), "v");
    }
    scene.environment();
    assert_eq!(scene.fake.count("GetParametersByPath"), 4);
    assert_eq!(scene.fake.connections(), 1);
}

#[test]
fn the_record_names_what_was_read_and_by_which_calls() {
    let scene = AwsScene::numbered(25);
    scene.run(&["true"]).expect_status(0);
    let released = scene.scene.audit().pop().unwrap();
    assert_eq!(released["event"], "access.released");
    assert_eq!(released["secrets"].as_array().unwrap().len(), 25);
    assert_eq!(released["secrets"][0]["version"], 1);
    assert_eq!(released["requests"].as_array().unwrap().len(), 3);
    // A failure is written down too, with what was asked.
    scene.fake.fault(Fault::error("GetParameters", 400, "AccessDeniedException"));
    scene.fails();
    let failed = scene.scene.audit().pop().unwrap();
    assert_eq!(failed["event"], "access.failed", "{failed}");
    assert!(!failed["requests"].as_array().unwrap().is_empty(), "{failed}");
}

#[test]
fn one_parameter_whose_key_cannot_be_used_is_named() {
    let scene = AwsScene::numbered(25);
    let key = scene.fake.key();
    {
        let mut world = scene.fake.world();
        world.ssm.parameters.get_mut("/test/api/S013").unwrap().versions[0].key = Some(key.clone());
        world.kms.keys.get_mut(&key).unwrap().state = "Disabled";
    }
    let outcome = scene.fails().expect_status(122);
    assert!(outcome.err().contains("S013") && !outcome.err().contains("S012"), "{}", outcome.transcript());
    scene.fake.world().kms.keys.get_mut(&key).unwrap().state = "Enabled";
    scene.fake.world().kms.denied.push(key);
    let outcome = scene.fails();
    assert!(outcome.err().contains("S013") && !outcome.err().contains("S012"), "{}", outcome.transcript());
}
