//! The agent in front of AWS: one request for many, bad times, and denials.

use super::fake::fault::Fault;
use super::scene::{AwsScene, canary};
use crate::agent_scene::{Agent, write_files};

/// The scene, with this `[cache]`.
fn cached(mut aws: AwsScene, cache: &str) -> AwsScene {
    aws.secrets.push_str(&format!("[cache]\n{cache}\n"));
    aws
}

/// An agent that serves the scene's policy as the service `api` of `test`.
fn start(aws: &AwsScene) -> Agent<'_> {
    let policy = aws.policy();
    write_files(&aws.scene, "");
    std::fs::remove_file(aws.scene.path("served/test.toml")).unwrap();
    aws.scene.write("served/test/api.toml", &std::fs::read(policy).unwrap());
    let socket = aws.scene.path("agent.sock");
    let words = ["agent", "--policies", "served", "--host", "host.toml", "--socket", socket.to_str().unwrap()];
    Agent::spawn(&aws.scene, aws.scene.command(&words))
}

#[test]
fn a_crowd_at_the_agents_door_is_one_request_at_aws() {
    let aws = cached(AwsScene::numbered(25), "ttl = \"5m\"");
    let through = format!("--agent={}", aws.scene.path("agent.sock").display());
    let agent = start(&aws);
    let line = ["run", &through, "-e", "test", "-s", "api", "--", "printenv", "S024"];
    let children: Vec<_> = (0..50)
        .map(|_| {
            let mut command = aws.scene.command(&line);
            // The client's own environment has no key: it needs none.
            command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
            command.stdout(std::process::Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), canary("S024") + "\n");
    }
    assert_eq!(aws.fake.count("GetParameters"), 3, "25 names in batches of 10, once");
    let records = agent.audit();
    let with_ids = records.iter().filter(|record| record.get("requests").is_some()).count();
    assert_eq!(with_ids, 1, "the request ids stand with the access that made the requests");
    assert_eq!(records.iter().filter(|record| record["event"] == "access.released").count(), 50);
    agent.end();
}

#[test]
fn while_aws_is_down_the_old_value_is_served_and_marked_and_after_a_denial_never() {
    let aws = cached(AwsScene::with(&["A"]).deadline("3s"), "ttl = \"0s\"\nmax_stale = \"1h\"");
    let agent = start(&aws);
    let run = || agent.run(&["-s", "api", "--", "printenv", "A"]);
    assert_eq!(run().expect_status(0).out(), canary("A") + "\n");
    aws.fake.fault(Fault::error("GetParameters", 500, "InternalServerError"));
    assert_eq!(run().expect_status(0).out(), canary("A") + "\n");
    let last = agent.audit().pop().unwrap();
    assert_eq!(last["event"], "access.released");
    assert!(last["secrets"][0]["stale_seconds"].as_u64().unwrap() >= 1, "{last}");
    let status: serde_json::Value = serde_json::from_str(agent.ask("status", &["--json"]).out()).unwrap();
    assert_eq!(status["unready"], "a store is down");
    assert_eq!(status["policies"][0]["stores_down"][0], "params");

    // Another agent, another time: the denial wipes, so that the outage after it finds nothing.
    agent.end();
    aws.fake.forget();
    let agent = start(&aws);
    let run = || agent.run(&["-s", "api", "--", "printenv", "A"]);
    run().expect_status(0);
    aws.fake.fault(Fault::error("GetParameters", 400, "AccessDeniedException").times(1));
    assert!(run().expect_status(124).err().contains("AWS denied access"));
    aws.fake.fault(Fault::error("GetParameters", 500, "InternalServerError"));
    run().expect_status(122);
    assert!(!agent.log().contains("canary") && !format!("{:?}", agent.audit()).contains("canary"));
}
