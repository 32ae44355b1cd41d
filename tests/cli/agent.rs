//! The agent as one user sees it: what comes through, what does not, what is written down, and that nothing breaks it.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;

use rustix::process::Signal;
use vouchsafe::agent::protocol::reply::{Refusal, Reply};
use vouchsafe::agent::protocol::request::{Ask, Purpose, Request};
use vouchsafe::agent::protocol::{HEADER, decode_reply, encode_request};
use vouchsafe::name::EnvironmentName;

use crate::agent_scene::{Agent, records, write_files};
use crate::harness::{Scene, wait};

fn scene() -> Scene {
    Scene::with(&[("A", "hunter2"), ("B", "correct horse")])
}

#[test]
fn values_reach_the_child_and_the_agent_alone_writes_it_down() {
    let scene = scene().variable("VOUCHSAFE_ENV", "test");
    let agent = Agent::start(&scene);
    let output = agent.run(&["--", "env"]).expect_status(0);
    assert_eq!(output.out(), "PATH=/usr/bin:/bin\nA=hunter2\nB=correct horse\n");
    assert!(!scene.path("audit.jsonl").exists(), "the wrapper wrote a record of its own");
    assert_eq!(agent.events(), ["agent.started", "policy.loaded", "access.requested", "access.released"]);
    let records = agent.audit();
    let released = &records[3];
    assert_eq!(released["assurance"], "agent");
    assert_eq!(released["actor"]["uid"], rustix::process::getuid().as_raw());
    assert_eq!(released["actor"]["agent"]["pid"], agent.child.as_ref().unwrap().id());
    assert_eq!(released["command"]["claimed"], true);
    assert_eq!(released["access"], records[2]["access"]);
    assert_eq!(released["policy"], records[1]["policy"]);
    let schema = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/spec/audit-record.schema.json"));
    let validator = jsonschema::validator_for(&serde_json::from_str(&schema.unwrap()).unwrap()).unwrap();
    for record in &records {
        let wrong: Vec<_> = validator.iter_errors(record).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{wrong:?} {record}");
    }
    let log = agent.log();
    assert!(log.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{log}");
    assert!(!log.contains("hunter2") && !format!("{records:?}").contains("hunter2"));
    agent.end();
    assert!(!scene.path("agent.sock").exists());
}

#[test]
fn the_rules_of_the_policy_come_with_the_values() {
    let scene = scene()
        .and("[child]\ninherit = [\"KEPT\"]\nset = { APP = \"x\" }\non_collision = \"secret\"")
        .variable("KEPT", "1")
        .variable("DROPPED", "1")
        .variable("A", "from outside");
    let agent = Agent::start(&scene);
    assert_eq!(agent.run(&["--", "/usr/bin/env"]).out(), "KEPT=1\nAPP=x\nA=hunter2\nB=correct horse\n");
    assert_eq!(agent.run(&["--only", "B", "--", "/usr/bin/printenv", "B"]).out(), "correct horse\n");
}

#[test]
fn what_is_cached_outlives_the_store_until_it_is_flushed() {
    let scene = scene();
    let agent = Agent::start(&scene);
    agent.run(&["--", "true"]).expect_status(0);
    std::fs::remove_file(scene.path("store.age")).unwrap();
    assert_eq!(agent.run(&["--", "printenv", "A"]).expect_status(0).out(), "hunter2\n");
    let status = agent.ask("status", &["--json"]).expect_status(0);
    let status: serde_json::Value = serde_json::from_str(status.out()).unwrap();
    assert_eq!((&status["cache"]["values"], &status["ready"]), (&2.into(), &true.into()));
    assert!(!status.to_string().contains("hunter2"));
    let none = agent.ask("flush", &["--env", "other"]).expect_status(121);
    assert!(none.err().contains("no policy that is served speaks for that environment"), "{}", none.err());
    // The policy of the environment is that of a service which has none of its own.
    let flushed = agent.ask("flush", &["--env", "test", "--service", "api"]).expect_status(0);
    assert_eq!(flushed.out(), "2 entries forgotten\n");
    let failed = agent.run(&["--", "true"]).expect_status(122);
    assert!(failed.err().contains("agent: store `files`: "), "{}", failed.err());
    let events = agent.events();
    assert_eq!(events[events.len() - 4..], ["agent.flushed", "agent.flushed", "access.requested", "access.failed"]);
    assert!(agent.ask("status", &[]).expect_status(0).out().contains("policy       test  "));
}

/// After a promotion the agent has nothing of before. One that cannot be told is a warning, and none is nothing.
#[test]
fn a_rotation_makes_the_agent_forget() {
    let scene = Scene::sealed(&[]).and("[secrets.A.rotate]\ngenerate = { type = \"hex\" }\n[cache]\nttl = \"1d\"");
    scene.verb_reading(&["set", "A"], b"hunter2").expect_status(0);
    let socket = scene.path("agent.sock").display().to_string();
    let scene = scene.variable("VOUCHSAFE_AGENT", &socket);
    let unheard = scene.verb(&["rotate", "A"]).expect_status(0);
    assert!(!unheard.err().contains("agent"), "{}", unheard.err());
    let agent = Agent::start(&scene);
    let value = || agent.run(&["--", "/usr/bin/printenv", "A"]).expect_status(0).out().to_owned();
    let before = value();
    for words in [["rotate", "A"], ["rotate", "--rollback"]] {
        let last = value();
        let words = if words[1] == "A" { words.to_vec() } else { [&words[..], &["A"]].concat() };
        let outcome = scene.verb(&words).expect_status(0);
        assert!(!outcome.err().contains("warning"), "{}", outcome.err());
        assert_ne!(value(), last);
    }
    assert_eq!(value(), before, "it was rolled back");
    assert_eq!(agent.events().iter().filter(|event| *event == "agent.flushed").count(), 2);
    drop(agent);
    // Somebody listens who does not answer as an agent does.
    std::fs::remove_file(&socket).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    let deaf = std::thread::spawn(move || drop(listener.accept().unwrap()));
    let outcome = scene.verb(&["rotate", "A"]).expect_status(0);
    deaf.join().unwrap();
    assert!(outcome.out().ends_with("is current\n"), "{}", outcome.transcript());
    let said = outcome.err();
    assert!(
        said.contains("warning: the agent may serve the previous value") && said.contains("agent flush --env test")
    );
}

/// The bytes of the answer to a request for an environment.
fn answer_for(agent: &Agent<'_>, environment: &str, only: Option<&str>) -> Vec<u8> {
    let ask = Ask {
        environment: EnvironmentName::new(environment).unwrap(),
        service: None,
        only: only.map(|name| vec![vouchsafe::name::VariableName::new(name).unwrap()]),
        command: None,
        parent: 1,
        terminal: None,
        purpose: Purpose::Become,
    };
    agent.raw(&encode_request(&Request::Resolve(ask)).unwrap())
}

#[test]
fn denied_and_absent_are_the_same_answer_and_both_are_written_down() {
    let scene = scene().grants("[[grants]]\nsecrets = [\"A\"]\nto = { users = [4242] }\n");
    let agent = Agent::start(&scene);
    let denied = answer_for(&agent, "test", None);
    assert!(matches!(decode_reply(&denied[HEADER..]), Ok(Reply::Refused(Refusal::Denied))));
    assert_eq!(answer_for(&agent, "nowhere", None), denied);
    assert_eq!(answer_for(&agent, "test", Some("NOTHING")), denied);
    assert_eq!(agent.events()[2..], ["access.denied", "access.denied", "access.denied"]);
    let records = agent.audit();
    assert_eq!(records[2]["secrets"][0]["name"], "A");
    assert_eq!(records[3]["environment"], "nowhere");
    let told = agent.run(&["--", "true"]).expect_status(120);
    assert!(told.err().contains("gives you nothing for `test`"), "{}", told.err());
}

#[test]
fn commands_and_digests_are_claims_that_only_some_grants_take() {
    let digest = {
        let mut bytes = Vec::new();
        std::fs::File::open("/usr/bin/env").unwrap().read_to_end(&mut bytes).unwrap();
        let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    for (to, claimed, status) in [
        ("commands = [\"/usr/bin/env\"]".to_owned(), "", 120),
        ("commands = [\"/usr/bin/env\"]".to_owned(), "claimed = true", 0),
        ("commands = [\"/usr/bin/true\"]".to_owned(), "claimed = true", 120),
        (format!("sha256 = [\"{digest}\"]"), "", 120),
        (format!("sha256 = [\"{digest}\"]"), "claimed = true", 0),
        (format!("sha256 = [\"{}\"]", "0".repeat(64)), "claimed = true", 120),
    ] {
        let scene = scene().grants(&format!("[[grants]]\nsecrets = [\"*\"]\nto = {{ {to} }}\n{claimed}\n"));
        let agent = Agent::start(&scene);
        let outcome = agent.run(&["--", "/usr/bin/env"]).expect_status(status);
        assert_eq!(outcome.out().contains("A=hunter2"), status == 0, "{to} {claimed}");
    }
}

/// That a digest would help is told to those only whom it would give all that they ask for.
#[test]
fn a_digest_is_asked_for_only_where_it_would_be_enough() {
    let digest = "0".repeat(64);
    let grant = format!("[[grants]]\nsecrets = [\"A\"]\nto = {{ sha256 = [\"{digest}\"] }}\nclaimed = true\n");
    let scene = scene().grants(&grant);
    let agent = Agent::start(&scene);
    let ask = |only: &str| {
        let command = vouchsafe::agent::protocol::request::CommandClaim {
            found: "/x".into(),
            canonical: "/x".into(),
            arguments: 0,
            sha256: None,
        };
        let ask = Ask {
            environment: EnvironmentName::new("test").unwrap(),
            service: None,
            only: Some(vec![vouchsafe::name::VariableName::new(only).unwrap()]),
            command: Some(command),
            parent: 1,
            terminal: None,
            purpose: Purpose::Become,
        };
        let answer = agent.raw(&encode_request(&Request::Resolve(ask)).unwrap());
        match decode_reply(&answer[HEADER..]) {
            Ok(Reply::Refused(refusal)) => refusal,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!([ask("A"), ask("B"), ask("NOTHING")], [Refusal::DigestWanted, Refusal::Denied, Refusal::Denied]);
    assert_eq!(agent.events()[2..], ["access.denied", "access.denied"]);
    agent.end();
}

/// However much there was to look at: the answer comes at a tick.
#[test]
fn a_denial_takes_as_long_whatever_the_reason() {
    let scene = scene().grants("[[grants]]\nsecrets = [\"A\"]\nto = { users = [4242] }\n");
    let agent = Agent::start(&scene);
    for environment in ["test", "nowhere"] {
        for _ in 0..5 {
            let asked = std::time::Instant::now();
            answer_for(&agent, environment, None);
            assert!(asked.elapsed() >= std::time::Duration::from_millis(10), "{environment}: {:?}", asked.elapsed());
        }
    }
    agent.end();
}

#[test]
fn a_reload_takes_what_is_good_and_keeps_what_was() {
    let scene = scene();
    let agent = Agent::start(&scene);
    agent.run(&["--", "true"]).expect_status(0);
    let good = std::fs::read_to_string(scene.path("served/test.toml")).unwrap();

    scene.write("served/test.toml", good.replace("[[grants]]", "[[grants").as_bytes());
    agent.reload();
    agent.run(&["--", "true"]).expect_status(0);
    assert_eq!(agent.events()[4], "policy.refused");
    assert!(agent.ask("status", &[]).out().contains("refused      "));

    scene.write("served/test.toml", good.replace("to = \"anyone\"", "to = { users = [4242] }").as_bytes());
    agent.reload();
    agent.run(&["--", "true"]).expect_status(120);

    scene.write("served/test.toml", good.as_bytes());
    agent.reload();
    agent.run(&["--", "true"]).expect_status(0);

    std::fs::remove_file(scene.path("served/test.toml")).unwrap();
    agent.reload();
    agent.run(&["--", "true"]).expect_status(120);
    agent.end();
}

#[test]
fn what_is_no_request_is_refused_and_harms_nobody() {
    let scene = scene();
    let agent = Agent::start(&scene);
    let refusal = |answer: &[u8]| match decode_reply(&answer[HEADER..]) {
        Ok(Reply::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    let status = encode_request(&Request::Status).unwrap();
    let two = [&status[..], &status].concat();
    for bytes in
        [&[0xff; 4][..], &[0, 0, 0, 0], &[0, 0, 0, 2, 1, 9], &[0, 0, 0, 2, 2, 0], &two, b"GET / HTTP/1.1\r\n\r\n"]
    {
        assert_eq!(refusal(&agent.raw(bytes)), Refusal::Malformed, "{bytes:?}");
    }
    for end in 0..status.len() {
        assert_eq!(agent.raw(&status[..end]), b"", "cut off");
    }
    // Half-open ones take no place from the next.
    let open: Vec<_> = (0..200).map(|_| UnixStream::connect(agent.socket()).unwrap()).collect();
    agent.run(&["--", "true"]).expect_status(0);
    drop(open);
    assert!(!agent.log().contains("internal"), "{}", agent.log());
    agent.end();
}

#[test]
fn an_agent_that_is_wanted_and_not_there_is_not_passed_over() {
    let scene = scene();
    let policy = scene.write_policy();
    let nowhere = format!("--agent={}", scene.path("none.sock").display());
    let failed = scene.vouchsafe(&["run", &nowhere, "--env", "test", "--", "env"]).expect_status(122);
    assert!(failed.err().contains("vouchsafe run --no-agent"), "{}", failed.err());
    let variable = scene.path("none.sock");
    let mut command = scene.command(&["run", "--env", "test", "--", "env"]);
    let output = command.env("VOUCHSAFE_AGENT", &variable).output().unwrap();
    assert_eq!(output.status.code(), Some(122));
    scene.vouchsafe(&["run", &nowhere, "--", "env"]).expect_status(2);
    let both = scene.vouchsafe(&["run", &nowhere, "--policy", policy.to_str().unwrap(), "--", "env"]);
    both.expect_status(2);
    let file = scene.write("file.sock", b"");
    scene.vouchsafe(&["run", &format!("--agent={}", file.display()), "-e", "test", "--", "env"]).expect_status(122);
    // Passed over by word, it is: that is written down, whatever the word was.
    for (words, why) in [(&["--no-agent"][..], "--no-agent"), (&[], "--policy")] {
        let words = [&["run"], words, &["--policy", policy.to_str().unwrap(), "--", "true"]].concat();
        let output = scene.command(&words).env("VOUCHSAFE_AGENT", &variable).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        let log = std::fs::read_to_string(scene.path("audit.jsonl")).unwrap();
        let told = format!("the agent at `{}` was passed over: {why}", variable.display());
        assert!(log.lines().rev().nth(1).unwrap().contains(&told), "{log}");
    }
}

#[test]
fn a_policy_can_demand_the_agent_or_forbid_it() {
    let demanding = scene().and("[run]\nagent = \"require\"");
    let agent = Agent::start(&demanding);
    agent.run(&["--", "true"]).expect_status(0);
    let refused = demanding.run(&["true"]).expect_status(120);
    assert!(refused.err().contains("vouchsafe run --agent --env test"), "{}", refused.err());
    let forbidding = scene().and("[run]\nagent = \"forbid\"");
    let agent = Agent::start(&forbidding);
    agent.run(&["--", "true"]).expect_status(120);
    assert!(agent.audit().last().unwrap()["reason"].as_str().unwrap().contains("forbids the agent"));
    forbidding.run(&["true"]).expect_status(0);
}

#[test]
fn what_was_released_and_reached_no_child_is_written_down() {
    let scene = scene().variable("A", "collides");
    let agent = Agent::start(&scene);
    agent.run(&["--", "true"]).expect_status(125);
    let script = scene.write_mode("script", b"#!/nonexistent\n", 0o755);
    agent.run(&["--only", "B", "--", script.to_str().unwrap()]).expect_status(126);
    let events = agent.events();
    let once = ["access.requested", "access.released", "access.unused"];
    assert_eq!(events[2..], [once, once].concat());
    let records = agent.audit();
    assert_eq!(records[4]["access"], records[3]["access"]);
    assert!(records[4]["reason"].as_str().unwrap().ends_with("environment"));
    assert!(records[7]["reason"].as_str().unwrap().ends_with("not-executable"));
    // A caller that goes away before it has the answer.
    let large = Scene::with(&[("A", &"x".repeat(100_000)), ("B", &"y".repeat(100_000)), ("C", &"z".repeat(100_000))]);
    let agent = Agent::start(&large);
    let mut stream = UnixStream::connect(agent.socket()).unwrap();
    let ask = Ask {
        environment: EnvironmentName::new("test").unwrap(),
        service: None,
        only: None,
        command: None,
        parent: 1,
        terminal: None,
        purpose: Purpose::Become,
    };
    stream.write_all(&encode_request(&Request::Resolve(ask)).unwrap()).unwrap();
    stream.read_exact(&mut [0; 4]).unwrap();
    drop(stream);
    agent.end();
    assert!(records_of(&large).contains(&"access.unused".to_owned()));
}

fn records_of(scene: &Scene) -> Vec<String> {
    records(scene).iter().map(|record| record["event"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_second_agent_and_a_place_that_is_taken_are_refused() {
    let scene = scene();
    let agent = Agent::start(&scene);
    let socket = agent.socket();
    let words = ["agent", "--policies", "served", "--host", "host.toml", "--socket", socket.to_str().unwrap()];
    let second = scene.vouchsafe(&words).expect_status(122);
    assert!(second.err().contains("another process serves the socket"), "{}", second.err());
    agent.run(&["--", "true"]).expect_status(0);
    let file = scene.write("file", b"mine");
    let words = ["agent", "--policies", "served", "--host", "host.toml", "--socket", file.to_str().unwrap()];
    scene.vouchsafe(&words).expect_status(125);
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    let none = scene.vouchsafe(&["agent", "--policies", "empty", "--host", "host.toml", "--socket", "x.sock"]);
    none.expect_status(121);
    scene.write("bare.toml", b"[agent]\nusers = [1]\n");
    let bare = scene.vouchsafe(&["agent", "--policies", "served", "--host", "bare.toml", "--socket", "x.sock"]);
    assert!(bare.expect_status(123).err().contains("has no audit sink"));
    agent.end();
}

#[test]
fn a_kill_leaves_a_socket_that_the_next_agent_replaces() {
    let scene = scene();
    let mut agent = Agent::start(&scene);
    agent.run(&["--", "true"]).expect_status(0);
    agent.signal(Signal::KILL);
    wait(agent.child.take().unwrap());
    assert!(agent.socket().exists());
    assert!(agent.run(&["--", "true"]).expect_status(122).err().contains("connection refused"));
    drop(agent);
    let agent = Agent::start(&scene);
    agent.run(&["--", "true"]).expect_status(0);
    agent.end();
}

#[test]
fn health_is_told_without_names() {
    let scene = scene();
    let agent = Agent::start_with(&scene, "", &["--health", &format!("unix:{}", scene.path("health.sock").display())]);
    agent.run(&["--", "true"]).expect_status(0);
    let get = |path: &str| {
        let mut stream = UnixStream::connect(scene.path("health.sock")).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(get("/livez").starts_with("HTTP/1.1 200"));
    assert!(get("/readyz").starts_with("HTTP/1.1 200"));
    let metrics = get("/metrics");
    assert!(metrics.contains("vouchsafe_agent_requests_total{outcome=\"granted\"} 1\n"), "{metrics}");
    assert!(metrics.contains("vouchsafe_agent_lookups_total{from=\"store\"} 2\n"), "{metrics}");
    assert!(metrics.contains("vouchsafe_agent_records_not_mirrored_total 0\n"), "{metrics}");
    for word in ["hunter2", "files", "\"A\"", "test"] {
        assert!(!metrics.contains(word), "{word}: {metrics}");
    }
    // The log turns into something that cannot be written: not ready, alive, and nothing is given.
    let head = scene.path("agent.jsonl.head");
    std::fs::rename(&head, scene.path("aside")).unwrap();
    std::fs::create_dir(&head).unwrap();
    agent.run(&["--", "true"]).expect_status(123);
    assert!(get("/readyz").starts_with("HTTP/1.1 503"));
    assert!(get("/livez").starts_with("HTTP/1.1 200"));
    std::fs::remove_dir(&head).unwrap();
    std::fs::rename(scene.path("aside"), &head).unwrap();
    // Whoever looks after readiness sends nobody here before it is: the agent finds out by itself.
    crate::supervised::wait_until("it is ready again", || get("/readyz").starts_with("HTTP/1.1 200"));
    assert_eq!(agent.events().last().unwrap(), "audit.resumed");
    // Those who say nothing keep nobody from asking.
    assert_eq!(std::fs::metadata(scene.path("health.sock")).unwrap().permissions().mode() & 0o777, 0o600);
    let silent: Vec<_> = (0..100).map(|_| UnixStream::connect(scene.path("health.sock")).unwrap()).collect();
    let asked = std::time::Instant::now();
    assert!(get("/livez").starts_with("HTTP/1.1 200"));
    assert!(asked.elapsed() < std::time::Duration::from_secs(2), "{:?}", asked.elapsed());
    drop(silent);
    agent.run(&["--", "true"]).expect_status(0);
    agent.end();
}

#[test]
fn a_socket_that_was_handed_over_is_served_and_left() {
    let scene = scene();
    write_files(&scene, "");
    let path = scene.path("agent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let kept = listener.try_clone().unwrap();
    let script =
        "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" agent --policies served --host host.toml";
    let mut command = scene.other("sh", &["-c", script, crate::harness::VOUCHSAFE]);
    command.stdin(Stdio::from(OwnedFd::from(listener)));
    let agent = Agent::spawn(&scene, command);
    agent.run(&["--", "true"]).expect_status(0);
    agent.end();
    assert!(path.exists(), "it is not ours to take away");
    drop(kept);
}
