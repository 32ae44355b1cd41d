//! The other commands: what each asks of AWS is within the IAM policy that `check --iam` prints for it, and no value comes
//! out.

use serde_json::Value;

use super::fake::fault::{Action, Fault};
use super::fake::kms::arn_of;
use super::fake::{ACCOUNT, iam};
use super::scene::{AwsScene, canary};

/// Everything that a policy can have of AWS.
fn everything() -> AwsScene {
    let scene = AwsScene::new().stores(&format!("account = \"{ACCOUNT}\"\n"));
    let blob = scene.fake.world().kms.seal(&scene.key, canary("inline").as_bytes(), &[("app", "x")]);
    let scene = scene.secrets(&format!(
        "[secrets]\nA = {{}}\nB = {{ item = \"/shared/b\" }}\nOLD = {{ item = \"A\", version = 1 }}\n\
         STAGED = {{ item = \"staged\", stage = \"current\" }}\n\
         INLINE = {{ store = \"sealed\", ciphertext = \"{blob}\", context = {{ app = \"x\" }} }}\n\
         FILED = {{ store = \"sealed\" }}\n[[bundles]]\npath = \"f/\"\n"
    ));
    scene.fake.secure("/test/api/A", &canary("A")).secure("/shared/b", &canary("B"));
    scene.fake.secure("/test/api/staged", &canary("staged")).secure("/test/api/f/in_bundle", &canary("bundle"));
    scene.set("FILED", &canary("FILED")).expect_status(0);
    scene.fake.forget();
    scene
}

/// The IAM policy that is printed for a command.
fn printed(scene: &AwsScene, of: &str) -> Value {
    let outcome = scene.vouchsafe(&["check", of]).expect_status(0);
    serde_json::from_str(outcome.out()).unwrap()
}

#[test]
fn the_printed_iam_policy_is_enough() {
    for (of, commands) in [
        ("--iam", &[&["run"][..], &["check"], &["list"]][..]),
        ("--iam=set", &[&["set", "A"], &["set", "FILED"]]),
        ("--iam=history", &[&["history", "A"], &["history", "FILED"]]),
        ("--iam=remove", &[&["remove", "A"], &["remove", "FILED"]]),
    ] {
        for command in commands {
            let scene = everything();
            let document = printed(&scene, of);
            assert_eq!(scene.fake.connections(), 1, "printing it asks nobody");
            scene.fake.world().iam = Some(document.clone());
            let outcome = match command {
                ["run"] => scene.run(&["true"]),
                ["set", name] => scene.set(name, &canary("new")),
                words => scene.vouchsafe(words),
            };
            assert_eq!(outcome.status.code(), Some(0), "{command:?}: {}\n{document:#}", outcome.transcript());
            assert!(!outcome.out().contains("canary-of"), "{}", outcome.transcript());
            scene.says_nothing(&outcome);
        }
    }
}

#[test]
fn every_right_that_is_printed_for_a_run_is_needed() {
    let scene = everything();
    let whole = printed(&scene, "--iam");
    let count = whole["Statement"].as_array().unwrap().len();
    assert!(count >= 4, "{whole:#}");
    for index in 0..count {
        let mut document = whole.clone();
        let gone = document["Statement"].as_array_mut().unwrap().remove(index);
        // Only for an ARN, or where no label is.
        let actions = gone["Action"].to_string();
        scene.fake.world().iam = Some(document);
        let outcome = scene.run(&["true"]);
        assert!(!outcome.status.success(), "not needed: {actions}");
        scene.says_nothing(&outcome);
        assert!(outcome.err().contains("ssm:") || outcome.err().contains("kms:"), "{}", outcome.transcript());
    }
    // Nor does it reach further than the policy: another service's names, another path that begins alike, another key.
    for (action, resource) in [
        ("ssm:GetParameters", "arn:aws:ssm:eu-west-1:111122223333:parameter/test/other/A"),
        ("ssm:GetParameters", "arn:aws:ssm:eu-west-1:111122223333:parameter/test/api/AB"),
        ("ssm:GetParametersByPath", "arn:aws:ssm:eu-west-1:111122223333:parameter/test/api"),
        ("ssm:GetParametersByPath", "arn:aws:ssm:eu-west-1:111122223333:parameter/test/api/f-other"),
        ("ssm:PutParameter", "arn:aws:ssm:eu-west-1:111122223333:parameter/test/api/A"),
        ("kms:Encrypt", &arn_of(&scene.key)),
        ("kms:Decrypt", &arn_of(&scene.key)),
    ] {
        assert!(!iam::allows(&whole, action, resource, &iam::Context::new()), "{action} on {resource}: {whole:#}");
    }
}

#[test]
fn explain_asks_nobody_and_check_says_what_is_missing() {
    let mut scene = everything();
    let before = scene.fake.connections();
    scene.vouchsafe(&["explain"]).expect_status(0);
    scene.vouchsafe(&["check", "--offline"]).expect_status(0);
    assert_eq!(scene.fake.connections(), before);
    scene.secrets = scene.secrets.replacen("[secrets]\n", "[secrets]\nGONE = {}\nMAY_BE = { required = false }\n", 1);
    let outcome = scene.vouchsafe(&["check"]).expect_status(10);
    assert!(outcome.out().contains("`GONE` is missing"), "{}", outcome.transcript());
    assert!(!outcome.out().contains("`MAY_BE` is missing"), "{}", outcome.transcript());
    assert!(!outcome.out().contains("canary-of"), "{}", outcome.transcript());
    // A store that fails is not a secret that is missing.
    scene.fake.fault(Fault::error("*", 400, "AccessDeniedException"));
    let outcome = scene.vouchsafe(&["check"]);
    assert!(!matches!(outcome.status.code(), Some(0 | 10)), "{}", outcome.transcript());
}

#[test]
fn a_removal_whose_answer_is_lost_counts() {
    for action in [Action::DropAfter, Action::ErrorAfter { status: 500, code: "InternalServerError".into() }] {
        let scene = AwsScene::with(&["A"]);
        scene.fake.fault(Fault::on("DeleteParameter", action).times(1));
        scene.vouchsafe(&["remove", "A"]).expect_status(0);
        assert!(scene.versions("A").is_empty());
    }
    let scene = AwsScene::new().secrets("[secrets]\nA = {}\n");
    scene.vouchsafe(&["remove", "A"]).expect_status(122);
}

#[test]
fn values_are_copied_between_stores_without_being_shown() {
    let scene = AwsScene::with(&["A", "B"]);
    let from = scene.policy();
    let text = std::fs::read_to_string(&from).unwrap();
    let other = text.replace("/test/api/", "/stage/api/").replace("environment = \"test\"", "environment = \"stage\"");
    let to = scene.scene.write("stage.toml", other.as_bytes()).display().to_string();
    let sealed = other.replace("store = \"params\"", "store = \"sealed\"");
    let sealed = scene.scene.write("sealed.toml", sealed.as_bytes()).display().to_string();
    for (from, to) in [(&from, &to), (&to, &sealed)] {
        let outcome = scene.scene.vouchsafe(&["copy", "--from", from, "--to", to, "A", "B"]).expect_status(0);
        assert!(!outcome.out().contains("canary-of"), "{}", outcome.transcript());
        scene.says_nothing(&outcome);
    }
    let read = scene.scene.vouchsafe(&["run", "--policy", &sealed, "--", "printenv", "A", "B"]).expect_status(0);
    assert_eq!(read.out(), "canary-of-A\ncanary-of-B\n");
    // What is there is not written over unless told.
    let again = scene.scene.vouchsafe(&["copy", "--from", &from, "--to", &to, "A"]);
    let count = scene.fake.world().ssm.parameters["/stage/api/A"].versions.len();
    assert_eq!(count, 1, "{}", again.transcript());
}

#[test]
fn two_writers_of_a_sealed_file_lose_nothing() {
    let names: Vec<_> = (0..6).map(|number| format!("N{number}")).collect();
    let lines: String = names.iter().map(|name| format!("{name} = {{ store = \"sealed\" }}\n")).collect();
    let scene = AwsScene::new().secrets(&format!("[secrets]\n{lines}"));
    scene.set("N0", &canary("N0")).expect_status(0);
    let policy = scene.policy();
    std::thread::scope(|scope| {
        for name in &names[1..] {
            let (scene, policy) = (&scene.scene, &policy);
            scope.spawn(move || {
                let words = ["set", name, "--policy", policy];
                scene.vouchsafe_reading(&words, canary(name).as_bytes()).expect_status(0);
            });
        }
    });
    let environment = scene.environment();
    assert!(names.iter().all(|name| environment[name] == canary(name)));
}
