//! Writing parameters: what is sent, what is refused before it is sent, and that a write happens once whatever the network
//! does (ROT-2, ROT-7, ROT-9).

use std::time::Duration;

use serde_json::json;

use super::fake::SDK_CANARY;
use super::fake::fault::{Action, Fault};
use super::fake::kms;
use super::scene::{AwsScene, canary, timed};

#[test]
fn a_value_is_written_as_a_secure_string_and_read_back() {
    let mut scene = AwsScene::new().secrets("[secrets]\nA = {}\n");
    let key = scene.fake.key();
    scene = scene.params(&format!("key = \"{}\"\n", kms::arn_of(&key)));
    let outcome = scene.set("A", &canary("first")).expect_status(0);
    scene.says_nothing(&outcome);
    scene.set("A", &canary("second")).expect_status(0);
    assert_eq!(scene.versions("A"), [canary("first"), canary("second")]);
    for call in scene.fake.calls("PutParameter") {
        assert_eq!(call.body["Type"], "SecureString");
        assert_eq!(call.body["KeyId"], kms::arn_of(&key));
        assert_ne!(call.body["Tier"], "Advanced");
    }
    assert_eq!(scene.environment()["A"], canary("second"));
    let history = scene.vouchsafe(&["history", "A"]).expect_status(0);
    assert!(history.out().contains('2') && !history.out().contains("canary-of"), "{}", history.transcript());
    let list = scene.vouchsafe(&["list"]).expect_status(0);
    assert!(list.out().contains('A') && !list.out().contains("canary-of"), "{}", list.transcript());
    let check = scene.vouchsafe(&["check"]);
    assert!(!check.out().contains("canary-of"), "{}", check.transcript());
    scene.vouchsafe(&["remove", "A"]).expect_status(0);
    assert!(scene.versions("A").is_empty());
    scene.fails().expect_status(122);
}

#[test]
fn sizes_decide_the_tier_and_what_cannot_be_written_is_refused_before_a_call() {
    let scene = AwsScene::new().secrets("[secrets]\nA = {}\n");
    for (length, tier) in [(4096, "Standard"), (4097, "Advanced"), (8192, "Advanced")] {
        scene.set("A", &"x".repeat(length)).expect_status(0);
        assert_eq!(scene.fake.world().ssm.parameters["/test/api/A"].versions.last().unwrap().tier, tier, "{length}");
    }
    // An advanced parameter does not go back.
    scene.set("A", "small").expect_status(0);
    let before = scene.fake.count("PutParameter");
    for value in ["x".repeat(8193), "{{ssm:other}}".into(), String::new()] {
        let outcome = scene.set("A", &value);
        assert!(!outcome.status.success(), "{}", outcome.transcript());
    }
    for item in ["/test/api/b ad", "/aws/x", "ssmx", "/a//b", "/a/", "a/b", "/a/{{b}}"] {
        let scene = AwsScene::new().secrets(&format!("[secrets]\nA = {{ item = \"{item}\" }}\n"));
        let outcome = scene.set("A", "v");
        // What the prefix makes legal is written; the fake would refuse what is not.
        let legal = ["ssmx", "a/b"].contains(&item);
        assert_eq!(outcome.status.success(), legal, "{item}: {}", outcome.transcript());
        assert_eq!(scene.fake.count("PutParameter"), usize::from(legal), "{item}");
    }
    assert_eq!(scene.fake.count("PutParameter"), before);
}

/// What can happen to the answer of a write: the history grows by exactly one, whether or not it was done.
fn lossy(action: fn() -> Action) {
    for existing in [0, 1, 3] {
        for times in [1, 2] {
            let scene = AwsScene::new().secrets("[secrets]\nA = {}\n");
            for number in 0..existing {
                scene.fake.secure("/test/api/A", &canary(&number.to_string()));
            }
            scene.fake.fault(Fault::on("PutParameter", action()).times(times));
            let outcome = scene.set("A", &canary("new"));
            scene.says_nothing(&outcome);
            let versions = scene.versions("A");
            assert_eq!(versions.len(), existing + 1, "{existing} before, {times} faults: {}", outcome.transcript());
            assert_eq!(versions.last(), Some(&canary("new")));
            assert_eq!(outcome.status.code(), Some(0), "{existing}, {times}: {}", outcome.transcript());
        }
    }
}

#[test]
fn a_write_lost_before_it_was_done_is_repeated() {
    lossy(|| Action::DropBefore);
}

#[test]
fn a_write_whose_answer_is_lost_is_not_doubled() {
    lossy(|| Action::DropAfter);
}

#[test]
fn a_write_that_is_said_to_have_failed_is_not_doubled() {
    lossy(|| Action::ErrorAfter { status: 500, code: "InternalServerError".into() });
    lossy(|| Action::ErrorAfter { status: 400, code: "ThrottlingException".into() });
    lossy(|| Action::ErrorAfter { status: 503, code: "ServiceUnavailable".into() });
}

#[test]
fn a_write_whose_answer_is_cut_off_is_not_doubled() {
    lossy(|| Action::Truncate(4));
}

#[test]
fn a_write_that_is_never_answered_is_not_doubled() {
    let scene = AwsScene::new().secrets("[secrets]\nA = {}\n").deadline("20s");
    scene.fake.secure("/test/api/A", "old");
    scene.fake.fault(Fault::on("PutParameter", Action::SilenceAfter).times(1));
    let (outcome, took) = timed(|| scene.set("A", &canary("new")));
    assert!(took < Duration::from_secs(21), "{took:?}");
    assert_eq!(scene.versions("A"), ["old".to_owned(), canary("new")], "{}", outcome.transcript());
    scene.says_nothing(&outcome);
}

#[test]
fn the_same_value_again_is_still_a_new_version() {
    // What is read back to settle a lost answer must not be an old version that happens to hold the same value.
    let scene = AwsScene::new().secrets("[secrets]\nA = {}\n");
    scene.fake.secure("/test/api/A", &canary("same"));
    scene.fake.fault(Fault::on("PutParameter", Action::DropBefore).times(1));
    scene.set("A", &canary("same")).expect_status(0);
    assert_eq!(scene.versions("A").len(), 2);
}

#[test]
fn updates_of_eight_writers_at_once_all_count_once() {
    let scene = AwsScene::new().secrets("[secrets]\nA = {}\n").deadline("40s");
    scene.fake.secure("/test/api/A", "old");
    scene.fake.world().write_time = Duration::from_millis(20);
    let policy = scene.policy();
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let (scene, policy) = (&scene.scene, &policy);
        let one = move |writer: usize| {
            (0..3)
                .map(|number| {
                    let value = canary(&format!("{writer}-{number}"));
                    (scene.vouchsafe_reading(&["set", "A", "--policy", policy], value.as_bytes()), value)
                })
                .collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..8).map(|writer| scope.spawn(move || one(writer))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let versions = scene.versions("A");
    let done: Vec<_> = outcomes.iter().filter(|(outcome, _)| outcome.status.success()).collect();
    assert!(scene.fake.records().iter().any(|record| record.outcome == "TooManyUpdates"), "the writers never met");
    for (outcome, value) in &outcomes {
        let times = versions.iter().filter(|have| *have == value).count();
        assert_eq!(times, usize::from(outcome.status.success()), "{}", outcome.transcript());
    }
    assert_eq!(
        done.len(),
        outcomes.len(),
        "some gave up: {}",
        outcomes.iter().find(|(o, _)| !o.status.success()).map_or(String::new(), |(o, _)| o.transcript())
    );
}

#[test]
fn a_string_is_not_overwritten_and_a_downgrade_is_found() {
    let scene = AwsScene::new().secrets("[secrets]\nA = {}\n");
    scene.fake.world().ssm.seed("/test/api/A", "plain", "String");
    scene.fake.world().ssm.lax_types = true;
    let outcome = scene.set("A", &canary("new"));
    assert!(!outcome.status.success(), "{}", outcome.transcript());
    assert_eq!(scene.versions("A"), ["plain"]);
    // Somebody else's store turns it into a String as it is written.
    let scene = AwsScene::new().secrets("[secrets]\nA = {}\n");
    scene.fake.secure("/test/api/A", "old");
    let plain = |body: &mut serde_json::Value| {
        for entry in body["Parameters"].as_array_mut().unwrap() {
            if entry["Version"] == 2 {
                entry["Type"] = json!("String");
            }
        }
    };
    scene.fake.fault(Fault::on("GetParameterHistory", Action::Rewrite(Box::new(plain))));
    scene.fake.fault(Fault::on(
        "GetParameter",
        Action::Rewrite(Box::new(|body| {
            body["Parameter"]["Type"] = json!("String");
        })),
    ));
    let outcome = scene.set("A", &canary("new"));
    assert!(!outcome.status.success(), "{}", outcome.transcript());
}

#[test]
fn at_the_version_cap_a_labelled_version_is_not_lost() {
    let scene = AwsScene::new().secrets("[secrets]\nA = {}\n");
    for number in 0..100 {
        scene.fake.secure("/test/api/A", &number.to_string());
    }
    scene.fake.world().ssm.seed_label("/test/api/A", 1, "release");
    let outcome = scene.set("A", &canary("new")).expect_status(122);
    assert!(outcome.err().contains("100 versions"), "{}", outcome.transcript());
    assert_eq!(scene.versions("A").len(), 100);
    scene.fake.world().ssm.seed_label("/test/api/A", 50, "release");
    scene.set("A", &canary("new")).expect_status(0);
    assert_eq!(scene.versions("A").last(), Some(&canary("new")));
}

#[test]
fn a_key_that_does_not_exist_or_is_disabled_is_said_to_be_that() {
    let mut scene = AwsScene::new().secrets("[secrets]\nA = {}\n");
    scene = scene.params("key = \"alias/none\"\n");
    let outcome = scene.set("A", &canary("new")).expect_status(122);
    assert!(outcome.err().contains("key"), "{}", outcome.transcript());
    assert!(!outcome.err().contains(SDK_CANARY));
    assert!(scene.versions("A").is_empty());
    assert_eq!(scene.fake.count("PutParameter"), 1);
}

#[test]
fn a_value_travels_only_in_the_request_that_writes_it() {
    let scene = AwsScene::new().secrets("[secrets]\nA = {}\n");
    scene.set("A", &canary("new")).expect_status(0);
    scene.run(&["true"]).expect_status(0);
    for record in scene.fake.records() {
        let head = format!("{} {} {:?}", record.request.path, record.request.query, record.request.headers);
        assert!(!head.contains("canary-of"), "{head}");
        let has = String::from_utf8_lossy(&record.request.body).contains("canary-of");
        assert_eq!(has, record.target == "PutParameter", "{}", record.target);
    }
}

#[test]
fn a_write_that_is_only_slow_is_not_doubled() {
    // The request is under way somewhere while the client has given up on it: nothing was written yet when it looks, and the
    // write happens a moment later. Whoever sends it again by then has written twice.
    let scene = AwsScene::new().secrets("[secrets]\nA = {}\n").deadline("30s");
    scene.fake.secure("/test/api/A", "old");
    scene.fake.fault(Fault::on("PutParameter", Action::Delay(Duration::from_secs(10))).times(1));
    let outcome = scene.set("A", &canary("new"));
    scene.says_nothing(&outcome);
    super::fake::server::eventually("the slow write", || {
        scene.fake.calls("PutParameter").iter().all(|call| call.outcome != "unanswered")
    });
    assert_eq!(scene.versions("A"), ["old".to_owned(), canary("new")], "{}", outcome.transcript());
}

#[test]
fn nothing_is_written_or_removed_in_another_account() {
    // A value that is sent to the wrong account is in the wrong hands, whatever is found out afterwards.
    let scene = AwsScene::new().secrets("[secrets]\nA = {}\n").stores("account = \"999999999999\"\n");
    let outcome = scene.set("A", &canary("new"));
    assert_eq!(scene.fake.count("PutParameter"), 0, "{}", outcome.transcript());
    assert!(!outcome.status.success(), "{}", outcome.transcript());
    scene.fake.secure("/test/api/A", &canary("A"));
    let outcome = scene.vouchsafe(&["remove", "A"]);
    assert_eq!(scene.versions("A").len(), 1, "{}", outcome.transcript());
    let outcome = scene.vouchsafe(&["history", "A"]);
    assert!(!outcome.status.success(), "{}", outcome.transcript());
    // In the right one it goes through.
    let scene = AwsScene::new().secrets("[secrets]\nA = {}\n").stores("account = \"111122223333\"\n");
    scene.set("A", &canary("new")).expect_status(0);
}

#[test]
fn a_write_is_written_down_whether_or_not_it_succeeds() {
    let scene = AwsScene::new().secrets("[secrets]\nA = {}\n");
    scene.set("A", &canary("new")).expect_status(0);
    let done = scene.scene.audit().pop().unwrap();
    assert_eq!((&done["outcome"], &done["secrets"][0]["version"]), (&json!("succeeded"), &json!(1)), "{done}");
    assert!(!done["requests"].as_array().unwrap().is_empty(), "the ids of the calls: {done}");
    scene.fake.fault(Fault::error("PutParameter", 400, "AccessDeniedException"));
    let outcome = scene.set("A", &canary("newer"));
    assert!(outcome.err().contains("ssm:PutParameter"), "{}", outcome.transcript());
    let failed = scene.scene.audit().pop().unwrap();
    assert_eq!(failed["outcome"], "failed", "{failed}");
    scene.says_nothing(&outcome);
}
