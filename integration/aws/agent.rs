//! The agent in front of AWS: one request for many, bad times, and denials.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use vouchsafe::agent::protocol::request::{Ask, Purpose, Request};
use vouchsafe::agent::protocol::{HEADER, LARGEST_REPLY, body_length, decode_reply, encode_request};
use vouchsafe::name::{EnvironmentName, ServiceName};

use super::fake::fault::{Action, Fault};
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

const CROWD: usize = 1000;

/// What the agent says next on a connection.
fn hear(stream: &mut UnixStream) -> String {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).unwrap();
    let mut body = vec![0; body_length(header, LARGEST_REPLY).unwrap()];
    stream.read_exact(&mut body).unwrap();
    format!("{:?}", decode_reply(&body).unwrap())
}

/// A connection that waits for a change, and has heard that nothing is not what it would get.
fn subscribe(agent: &Agent<'_>) -> UnixStream {
    let ask = Ask {
        environment: EnvironmentName::new("test").unwrap(),
        service: Some(ServiceName::new("api").unwrap()),
        only: None,
        command: None,
        parent: 1,
        terminal: None,
        purpose: Purpose::Watch { has: [0; 32] },
    };
    let mut stream = UnixStream::connect(agent.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(&encode_request(&Request::Resolve(ask)).unwrap()).unwrap();
    assert_eq!([hear(&mut stream), hear(&mut stream)], ["Watching", "Changed"]);
    stream
}

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// However many wait, AWS is asked once in each interval; and all of them hear of a change.
#[test]
fn a_crowd_that_waits_for_a_change_is_one_request_in_each_interval() {
    let mut aws = cached(AwsScene::with(&["A", "B"]), "ttl = \"5m\"");
    aws.run_rules = "watch = \"2s\"";
    let agent = start(&aws);
    let pid = agent.child.as_ref().unwrap().id();
    let before = resident(pid);
    let mut crowd: Vec<UnixStream> = (0..CROWD).map(|_| subscribe(&agent)).collect();
    let all = Instant::now();
    let held = resident(pid).saturating_sub(before);
    let asked = aws.fake.count("GetParameters");
    // As many looks as there are seconds for, and one that may have been under way; the others are the fixed costs of none.
    let looks = || agent.audit().iter().filter(|record| record["event"] == "secret.refreshed").count();
    crate::supervised::wait_until("three looks", || looks() >= 3);
    let most = |since: Instant| usize::try_from(since.elapsed().as_secs() / 2 + 2).unwrap();
    assert!(aws.fake.count("GetParameters") - asked <= most(all), "{}", aws.fake.count("GetParameters"));

    let (told, asked) = (Instant::now(), aws.fake.count("GetParameters"));
    aws.fake.secure("/test/api/A", "another canary");
    for stream in &mut crowd {
        assert_eq!(hear(stream), "Changed");
    }
    let took = told.elapsed();
    assert!(aws.fake.count("GetParameters") - asked <= most(told), "{}", aws.fake.count("GetParameters"));
    println!("{CROWD} subscribers: {held} KiB resident, all told after {took:?}");
    let records = agent.audit();
    assert!(!records.iter().any(|record| record["event"] == "access.released"), "nothing has left the agent");
    assert!(!agent.log().contains("canary"));
    assert!(held < 16 * 1024, "{held} KiB");

    // Somebody who asks now gets what is new, and nobody asks AWS for it.
    let asked = aws.fake.count("GetParameters");
    drop(crowd);
    assert_eq!(agent.run(&["-s", "api", "--", "printenv", "A"]).expect_status(0).out(), "another canary\n");
    assert!(aws.fake.count("GetParameters") - asked <= 1);
    let status = || -> serde_json::Value {
        serde_json::from_str(agent.ask("status", &["--json"]).expect_status(0).out()).unwrap()
    };
    crate::supervised::wait_until("nobody waits any more", || status()["subscribers"]["open"] == 0);
    agent.end();
}

/// A store that denies is no store that is down: who waits is told, and that is the end.
#[test]
fn a_denial_ends_a_subscription_and_an_outage_does_not() {
    let mut aws = cached(AwsScene::with(&["A"]).deadline("3s"), "ttl = \"5m\"");
    aws.run_rules = "watch = \"200ms\"";
    let agent = start(&aws);
    let mut stream = subscribe(&agent);
    aws.fake.fault(Fault::error("GetParameters", 500, "InternalServerError"));
    let failures = || {
        let records = agent.audit();
        records.iter().filter(|one| one["event"] == "secret.refreshed" && one["outcome"] == "failed").count()
    };
    crate::supervised::wait_until("a look that fails", || failures() >= 1);
    aws.fake.forget();
    aws.fake.secure("/test/api/A", "another canary");
    assert_eq!(hear(&mut stream), "Changed", "it has outlived that");
    aws.fake.fault(Fault::error("GetParameters", 400, "AccessDeniedException"));
    let last = hear(&mut stream);
    assert!(last.starts_with("Refused(Failed") && !last.contains("canary"), "{last}");
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "and it is closed");
    agent.end();
}

/// A store that is down for longer than the policy allows: the old value is served to the last of `max_stale` and not beyond,
/// and when the store is back, so is the value.
#[test]
fn an_outage_is_bridged_for_as_long_as_the_policy_says_and_no_longer() {
    let aws = cached(AwsScene::with(&["A"]).deadline("500ms"), "ttl = \"1s\"\nmax_stale = \"3s\"");
    let agent = start(&aws);
    let run = || agent.run(&["-s", "api", "--", "printenv", "A"]);
    let before = Instant::now();
    assert_eq!(run().expect_status(0).out(), canary("A") + "\n");
    let fetched = Instant::now();
    aws.fake.fault(Fault::on("GetParameters", Action::DropBefore));
    let mut stale = 0;
    let last = loop {
        let asked = Instant::now();
        let outcome = run();
        match outcome.status.code() {
            Some(0) => {
                assert_eq!(outcome.out(), canary("A") + "\n");
                assert!(asked.elapsed() + (asked - fetched) < Duration::from_secs(8), "it is served for ever");
                let record = agent.audit().pop().unwrap();
                stale += usize::from(record["secrets"][0].get("stale_seconds").is_some());
            }
            Some(122) => break asked,
            other => panic!("{other:?}: {}", outcome.transcript()),
        }
        assert!(asked < fetched + Duration::from_secs(4), "asked after its time, and served");
    };
    // Four seconds, less what the first fetch and the last refusal took.
    assert!(last + Duration::from_millis(1500) > before + Duration::from_secs(4), "{:?}", last - before);
    assert!(stale > 0, "nothing was marked");
    run().expect_status(122);
    aws.fake.forget();
    let back = Instant::now();
    while run().status.code() != Some(0) {
        assert!(back.elapsed() < Duration::from_secs(20), "it does not ask again");
    }
    agent.end();
}
