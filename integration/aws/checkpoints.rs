//! Checkpoints of the audit log that go to a parameter: taken there by every command but `run`, by the agent and by a timer; and
//! what its history tells of a log that was cut.

use super::fake::fault::{Action, Fault};
use super::fake::server::eventually;
use super::fake::{Fake, REGION};
use super::moto::{Moto, boto3};
use super::scene::{AwsScene, canary};
use crate::agent_scene::{Agent, write_files};
use crate::harness::Outcome;

const NAME: &str = "/audit/api/0";

/// `checkpoints` of a sink, at each record, to a parameter of this endpoint.
fn to(endpoint: &str, more: &str) -> String {
    format!(
        "checkpoints = {{ every = 1, to = [{{ type = \"ssm\", name = \"/audit/api/0\", region = \"{REGION}\", \
         endpoint = \"{endpoint}\"{more} }}] }}\n"
    )
}

fn scene() -> AwsScene {
    let mut aws = AwsScene::with(&["A"]);
    aws.sink = to(&aws.fake.endpoint(), "");
    aws
}

/// The values of the parameter, oldest first.
fn versions(fake: &Fake) -> Vec<String> {
    let world = fake.world();
    let parameter = world.ssm.parameters.get(NAME);
    parameter.map(|it| it.versions.iter().map(|one| one.value.clone()).collect()).unwrap_or_default()
}

/// What the command line of AWS prints of its history.
fn write_history(aws: &AwsScene) {
    let values = versions(&aws.fake).into_iter().enumerate();
    let one = |(index, value)| {
        serde_json::json!({ "Name": NAME, "Type": "String", "Value": value, "Version": index + 1, "Labels": [],
            "LastModifiedDate": "2026-01-02T03:04:05+00:00" })
    };
    let printed = serde_json::json!({ "Parameters": values.map(one).collect::<Vec<_>>() });
    aws.scene.write("history.json", serde_json::to_string_pretty(&printed).unwrap().as_bytes());
}

fn key(aws: &AwsScene, log: &str) -> String {
    aws.scene.vouchsafe(&["audit", "checkpoint", "--key", log]).expect_status(0).out().trim_end().to_owned()
}

fn verify(aws: &AwsScene, key: &str, log: &str) -> Outcome {
    aws.scene.vouchsafe(&["audit", "verify", "--checkpoint", "history.json", "--key", key, log])
}

fn send(aws: &AwsScene) -> Outcome {
    let outcome = aws.vouchsafe(&["audit", "checkpoint", "--send"]);
    aws.says_nothing(&outcome);
    outcome
}

fn failures(aws: &AwsScene) -> Vec<String> {
    let failed = aws.scene.audit().into_iter().filter(|record| record["event"] == "audit.checkpoint_failed");
    failed.map(|record| record["reason"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn writing_commands_take_them_along() {
    let mut aws = scene();
    aws.secrets = "[secrets]\nA = { rotate = { every = \"30d\" } }\n".into();
    for words in [&["rotate", "A"][..], &["history", "A"], &["check"], &["set", "A"]] {
        let before = versions(&aws.fake).len();
        let outcome = match words {
            ["set", name] => aws.set(name, &canary("new")),
            words => aws.vouchsafe(words),
        };
        aws.says_nothing(&outcome.expect_status(0));
        assert!(versions(&aws.fake).len() > before, "{words:?}");
    }
    assert_eq!(failures(&aws), [""; 0]);
    write_history(&aws);
    verify(&aws, &key(&aws, "audit.jsonl"), "audit.jsonl").expect_status(0);
}

#[test]
fn every_command_but_run_takes_what_is_due_to_the_parameter() {
    let aws = scene();
    let run = || assert_eq!(aws.run(&["printenv", "A"]).expect_status(0).out(), canary("A") + "\n");
    run();
    assert_eq!(aws.fake.count("PutParameter"), 0, "a run asks for its secrets, and for nothing else");
    assert!(!aws.scene.path("audit.jsonl.checkpoint.ssm").exists());
    aws.vouchsafe(&["list"]).expect_status(0);
    let records = aws.scene.audit();
    let puts = aws.fake.calls("PutParameter");
    assert!(!puts.is_empty());
    for put in &puts {
        let body = &put.body;
        assert_eq!(
            (&body["Type"], &body["Tier"], &body["Overwrite"]),
            (&"String".into(), &"Standard".into(), &true.into())
        );
        assert!(!body.to_string().contains("canary"), "{body}");
    }
    // What runs wrote since is in the next one.
    run();
    assert_eq!(aws.fake.count("PutParameter"), puts.len());
    let outcome = send(&aws).expect_status(0);
    assert_eq!(
        outcome.out(),
        format!("{}: the checkpoint of now went to ssm:{NAME}\n", aws.scene.path("audit.jsonl").display())
    );
    let last = versions(&aws.fake).pop().unwrap();
    assert_eq!(last.lines().nth(1), Some((records.len() + 2).to_string().as_str()), "{last}");
    assert_eq!(failures(&aws), [""; 0]);
    write_history(&aws);
    let key = key(&aws, "audit.jsonl");
    let seen = verify(&aws, &key, "audit.jsonl").expect_status(0);
    assert!(seen.out().contains(&format!("{} checkpoint", versions(&aws.fake).len())), "{}", seen.out());
}

#[test]
fn a_log_that_was_cut_and_resumed_is_caught_by_the_history() {
    let aws = scene();
    for _ in 0..3 {
        aws.run(&["true"]).expect_status(0);
    }
    send(&aws).expect_status(0);
    let key = key(&aws, "audit.jsonl");
    // Whoever has the host: the last two runs never were.
    let text = std::fs::read_to_string(aws.scene.path("audit.jsonl")).unwrap();
    let kept: String = text.lines().take(2).map(|line| format!("{line}\n")).collect();
    aws.scene.write_mode("audit.jsonl", kept.as_bytes(), 0o600);
    for file in ["head", "checkpoint.ssm"] {
        std::fs::remove_file(aws.scene.path(&format!("audit.jsonl.{file}"))).unwrap();
    }
    write_history(&aws);
    verify(&aws, &key, "audit.jsonl").expect_status(12);
    for _ in 0..3 {
        aws.run(&["true"]).expect_status(0);
    }
    aws.scene.vouchsafe(&["audit", "verify", "audit.jsonl"]).expect_status(0);
    verify(&aws, &key, "audit.jsonl").expect_status(11);
    // With the rights of the host he can put another one on top; what lies below stays.
    send(&aws).expect_status(0);
    write_history(&aws);
    let seen = verify(&aws, &key, "audit.jsonl").expect_status(11);
    assert!(seen.out().contains("the log was rewritten"), "{}", seen.out());
}

#[test]
fn what_does_not_arrive_is_written_down_and_told() {
    let aws = scene();
    aws.run(&["true"]).expect_status(0);
    let fails = |aws: &AwsScene, because: &str| {
        let before = failures(aws).len();
        let outcome = send(aws).expect_status(123);
        assert!(outcome.err().contains(because), "{}", outcome.transcript());
        let all = failures(aws);
        assert_eq!(all.len(), before + 1, "{all:?}");
        assert!(
            all.last().unwrap().contains(&format!("ssm:{NAME}: ")) && all.last().unwrap().contains(because),
            "{all:?}"
        );
    };
    let denied = || Fault::error("PutParameter", 400, "AccessDeniedException");
    aws.fake.fault(denied());
    fails(&aws, &format!("AWS denied access (ssm:PutParameter on `{NAME}`)"));
    // Commands that are about something else go on.
    aws.vouchsafe(&["list"]).expect_status(0);
    aws.fake.forget();
    aws.fake.fault(Fault::error("PutParameter", 400, "ThrottlingException"));
    fails(&aws, "AWS throttles the requests");
    aws.fake.forget();
    aws.fake.fault(Fault::on("PutParameter", Action::Silence));
    fails(&aws, "deadline");
    aws.fake.forget();
    // Throttled for a while, and an answer that is lost: it arrives, perhaps twice.
    aws.fake.fault(Fault::error("PutParameter", 400, "ThrottlingException").times(2));
    aws.fake.fault(Fault::on("PutParameter", Action::DropAfter).times(1));
    let before = versions(&aws.fake).len();
    send(&aws).expect_status(0);
    let after = versions(&aws.fake);
    assert_eq!(after.len(), before + 2);
    assert_eq!(after[before], after[before + 1]);
    // A parameter that holds a secret is not written over: AWS does not change its type.
    let value = canary("mistaken");
    aws.fake.world().ssm.parameters.remove(NAME);
    aws.fake.secure(NAME, &value);
    let outcome = send(&aws).expect_status(123);
    assert!(outcome.err().contains("refused"), "{}", outcome.transcript());
    assert_eq!(versions(&aws.fake), [value]);
}

#[test]
fn a_dead_endpoint_and_another_account_are_failures_of_their_own() {
    let mut aws = scene();
    aws.run(&["true"]).expect_status(0);
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    aws.sink = to(&format!("http://{dead}"), "");
    let outcome = send(&aws).expect_status(123);
    assert!(outcome.err().contains("cannot be reached"), "{}", outcome.transcript());
    aws.sink = to(&aws.fake.endpoint(), ", account = \"999999999999\"");
    let outcome = send(&aws).expect_status(123);
    assert!(outcome.err().contains("the policy pins `999999999999`"), "{}", outcome.transcript());
    assert_eq!(aws.fake.count("PutParameter"), 0);
    assert_eq!(failures(&aws).len(), 2);
}

#[test]
fn the_printed_right_is_enough_and_needed() {
    let aws = scene();
    aws.run(&["true"]).expect_status(0);
    let printed = |command: &str| -> serde_json::Value {
        serde_json::from_str(aws.vouchsafe(&["check", &format!("--iam={command}")]).expect_status(0).out()).unwrap()
    };
    let right = printed("checkpoint");
    assert_eq!(right["Statement"].as_array().unwrap().len(), 1);
    aws.fake.world().iam = Some(right);
    send(&aws).expect_status(0);
    aws.fake.world().iam = Some(printed("run"));
    send(&aws).expect_status(123);
}

#[test]
fn the_agent_takes_them_there_beside_the_accesses() {
    let aws = AwsScene::with(&["A"]);
    let policy = aws.policy();
    let host = to(&aws.fake.endpoint(), "");
    write_files(&aws.scene, &host);
    std::fs::remove_file(aws.scene.path("served/test.toml")).unwrap();
    aws.scene.write("served/test/api.toml", &std::fs::read(policy).unwrap());
    let socket = aws.scene.path("agent.sock");
    let words = ["agent", "--policies", "served", "--host", "host.toml", "--socket", socket.to_str().unwrap()];
    let agent = Agent::spawn(&aws.scene, aws.scene.command(&words));
    let run =
        || assert_eq!(agent.run(&["-s", "api", "--", "printenv", "A"]).expect_status(0).out(), canary("A") + "\n");
    run();
    eventually("a checkpoint", || !versions(&aws.fake).is_empty());
    // A service that does not answer holds nobody up; that it did not is written down.
    aws.fake.fault(Fault::on("PutParameter", Action::Silence));
    eventually("a failure in the log", || {
        run();
        agent.events().contains(&"audit.checkpoint_failed".into())
    });
    aws.fake.forget();
    let before = versions(&aws.fake).len();
    eventually("another checkpoint", || {
        run();
        versions(&aws.fake).len() > before
    });
    agent.end();
    write_history(&aws);
    verify(&aws, &key(&aws, "agent.jsonl"), "agent.jsonl").expect_status(0);
}

#[test]
fn what_boto3_reads_of_the_history_verifies() {
    let Some(moto) = Moto::start() else { return };
    let mut aws = AwsScene::new();
    aws.stores = format!("region = \"{REGION}\"\nendpoint = \"{}\"\n", moto.endpoint);
    aws.secrets = "[secrets]\nA = { required = false }\n".into();
    aws.sink = to(&moto.endpoint, "");
    for _ in 0..3 {
        aws.run(&["true"]).expect_status(0);
        send(&aws).expect_status(0);
    }
    let key = key(&aws, "audit.jsonl");
    for (call, count) in [("get_parameter_history", 3), ("get_parameter", 1)] {
        let printed =
            boto3(&moto.endpoint, &format!("print(json.dumps(ssm.{call}(Name='{NAME}'), default=str, indent=4))\n"));
        aws.scene.write("history.json", printed.as_bytes());
        let seen = verify(&aws, &key, "audit.jsonl").expect_status(0);
        assert!(seen.out().contains(&format!(", {count} checkpoint")), "{call}: {}", seen.out());
    }
}
