//! Policies that change by the hundred while clients ask: what they get is one policy's, whole, and never one that was not
//! there; what is denied by a reload is denied from then on.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use rustix::process::Signal;
use vouchsafe::agent::protocol::decode_reply;
use vouchsafe::agent::protocol::reply::{Refusal, Reply};

use super::{Done, PATIENCE, Usage, asking, exchange, resolve, status, verdict};
use crate::agent_scene::{Agent, write_files};
use crate::harness::Scene;
use crate::have;

/// Every policy names items of its own number, and says it in a variable too.
fn policy(base: &str, number: usize) -> String {
    let bindings = format!("A = {{ item = \"A{number}\" }}\nB = {{ item = \"B{number}\" }}\n");
    base.replace("[secrets]\nA0 = {}\n", &format!("[child]\nset = {{ NUMBER = \"{number}\" }}\n[secrets]\n{bindings}"))
}

#[test]
fn a_storm_of_reloads_never_mixes_policies() {
    let stored: Vec<(String, String)> =
        (0..3).flat_map(|n| [(format!("A{n}"), format!("a{n}")), (format!("B{n}"), format!("b{n}"))]).collect();
    let scene = Scene::new().policy("[secrets]\nA0 = {}\n");
    scene.store(&stored.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect::<Vec<_>>());
    let agent = Agent::start(&scene);
    let base = std::fs::read_to_string(scene.path("served/test.toml")).unwrap();
    let put = |text: &str| {
        scene.write("next.toml", text.as_bytes());
        std::fs::rename(scene.path("next.toml"), scene.path("served/test.toml")).unwrap();
    };
    let (done, seen, socket) = (AtomicBool::new(false), [const { AtomicU32::new(0) }; 3], agent.socket());
    put(&policy(&base, 0));
    agent.reload();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let body = exchange(&socket, &asking()).unwrap();
                    let Ok(Reply::Granted(granted)) = decode_reply(&body) else { panic!("{:?}", decode_reply(&body)) };
                    let number = granted.child.set.iter().find(|(name, _)| *name == "NUMBER").unwrap().1;
                    let values: Vec<_> = granted.values.iter().map(|value| value.bytes.0.to_vec()).collect();
                    let own = [format!("a{number}").into_bytes(), format!("b{number}").into_bytes()];
                    assert_eq!(values, own, "the policy {number}");
                    seen[number.parse::<usize>().unwrap()].fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let end = Done(&done);
        // As fast as it goes, with files that are no policy in between.
        for round in 0..300 {
            match round % 4 {
                3 => put("[[[ no policy"),
                number => put(&policy(&base, number)),
            }
            agent.signal(Signal::HUP);
            if round % 10 == 9 {
                agent.reload_at_last();
            }
        }
        // Heard once for each, or once for several; so which of them were served meanwhile is chance. Now each is.
        for (number, count) in seen.iter().enumerate() {
            put(&policy(&base, number));
            agent.reload_at_last();
            let (start, before) = (Instant::now(), count.load(Ordering::Relaxed));
            while count.load(Ordering::Relaxed) == before {
                assert!(start.elapsed() < PATIENCE, "the policy {number} is not served: {seen:?}");
                std::thread::yield_now();
            }
        }
        drop(end);
    });
    // From here on one by one: the answer after a reload is that of what it has read.
    let before = Usage::settled(&agent);
    // Of one user's denials the agent writes down 50 in a second, and does not look at more.
    for round in 0..40 {
        let number = round % 3;
        put(&policy(&base, number));
        agent.reload_at_last();
        let values = resolve(&agent).unwrap();
        assert_eq!(values[0].1, format!("a{number}"));
        put(&policy(&base, number).replace("to = \"anyone\"", "to = { users = [4242] }"));
        agent.reload_at_last();
        assert_eq!(resolve(&agent), Err(Refusal::Denied));
    }
    Usage::returns(before, &agent, 2048);
    assert_eq!(verdict(&agent, &scene, "agent.jsonl"), "intact");
    agent.end();
}

/// Whatever makes a new version of a policy unacceptable, the old one is served on, and everybody is told; a signature that does
/// not fit is no other case than a typo.
#[test]
fn a_new_version_without_its_signature_leaves_the_old_one_and_says_so() {
    if !have(&["ssh-keygen"], false) {
        return;
    }
    let scene = Scene::with(&[("A", "hunter2")]);
    write_files(&scene, "");
    let made = scene.other("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", "alice"]).status().unwrap();
    assert!(made.success());
    let key = std::fs::read_to_string(scene.path("alice.pub")).unwrap();
    let host = format!(
        "[trust]\nenvironments = [\"test\"]\n[[trust.keys]]\nkey = \"{}\"\nenvironments = [\"test\"]\n",
        key.trim()
    );
    let sign = || scene.vouchsafe(&["policy", "sign", "served/test.toml", "--key", "alice"]).expect_status(0);
    sign();
    // The policy is written again by the start, as it was signed.
    let agent =
        Agent::start_with(&scene, &host, &["--health", &format!("unix:{}", scene.path("health.sock").display())]);
    let outdated = || {
        let mut stream = UnixStream::connect(scene.path("health.sock")).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let line = answer.lines().find(|line| line.starts_with("vouchsafe_agent_policies_outdated ")).unwrap();
        line.rsplit(' ').next().unwrap().to_owned()
    };
    let first = status(&agent)["policies"][0]["digest"].clone();
    assert_eq!((resolve(&agent).is_ok(), outdated()), (true, "0".into()));

    let good = std::fs::read_to_string(scene.path("served/test.toml")).unwrap();
    let denying = good.replace("to = \"anyone\"", "to = { users = [4242] }");
    scene.write("served/test.toml", denying.as_bytes());
    for _ in 0..2 {
        agent.reload();
        assert_eq!(resolve(&agent).unwrap(), [("A".to_owned(), "hunter2".to_owned())]);
        assert_eq!(outdated(), "1");
        let status = status(&agent);
        assert_eq!((&status["policies"][0]["digest"], &status["refused"][0]["served"]), (&first, &first));
        assert_eq!(status["ready"], true);
    }
    let told = "of before is served on";
    let refused: Vec<_> = agent.audit().into_iter().filter(|record| record["event"] == "policy.refused").collect();
    assert_eq!(refused.len(), 2);
    assert!(refused[0]["reason"].as_str().unwrap().ends_with(told) && refused[0]["policy"] == first, "{refused:?}");
    let logged: Vec<_> =
        agent.log().lines().filter(|line| line.contains("\"policy.refused\"")).map(str::to_owned).collect();
    assert!(logged.len() == 2 && logged[0].contains("\"level\":\"error\"") && logged[0].contains(told), "{logged:?}");
    assert!(agent.ask("status", &[]).out().contains(told));

    // Signed, it counts at once, and takes away.
    sign();
    agent.reload();
    assert_eq!((resolve(&agent), outdated()), (Err(Refusal::Denied), "0".into()));
    assert_eq!(status(&agent)["refused"], serde_json::json!([]));
    agent.end();

    // An agent that starts has no version of before.
    scene.write("served/test.toml", good.as_bytes());
    let socket = scene.path("agent.sock");
    let words = ["agent", "--policies", "served", "--host", "host.toml", "--socket", socket.to_str().unwrap()];
    scene.vouchsafe(&words).expect_status(121);
}
