//! Users of one host who take what they can get: stores that hang, reports that nobody can check, refusals without end. The
//! others are served all the same, and the log does not grow with it.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use vouchsafe::agent::protocol::reply::{Refusal, Reply};
use vouchsafe::agent::protocol::request::{ChildEvent, ChildReport, CommandClaim, Request};
use vouchsafe::agent::protocol::{HEADER, decode_reply, encode_request};
use vouchsafe::name::EnvironmentName;

use super::{PATIENCE, ask_for, asking, exchange, resolve};
use crate::agent::half_open;
use crate::agent_scene::{Agent, write_files};
use crate::harness::{Scene, VOUCHSAFE};
use crate::{copy_program, have};

const LISTED: u32 = 54_321;
const OTHER: u32 = 54_322;

fn scene(grants: &str) -> Scene {
    let scene = Scene::with(&[("A", "hunter2"), ("B", "correct horse")]).grants(grants);
    std::fs::set_permissions(scene.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    copy_program(VOUCHSAFE, &scene.path("vouchsafe"));
    scene
}

/// A store that accepts and never answers, and 64 who want something of it: those who want a file's values get them.
#[test]
fn a_store_that_hangs_holds_up_nobody_else() {
    let hole = TcpListener::bind("127.0.0.1:0").unwrap();
    let scene = Scene::with(&[("A", "hunter2"), ("B", "correct horse")])
        .variable("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
        .variable("AWS_SECRET_ACCESS_KEY", "none");
    for (name, ttl) in [("none", "0s"), ("some", "5m")] {
        let text = format!(
            "version = 1\nenvironment = \"{name}\"\n[stores.s]\ntype = \"ssm\"\nregion = \"eu-west-1\"\n\
             endpoint = \"http://{}\"\n[secrets]\nX = {{}}\n[run]\ndeadline = \"6s\"\n[cache]\nttl = \"{ttl}\"\n\
             [[grants]]\nsecrets = [\"*\"]\nto = \"anyone\"\n",
            hole.local_addr().unwrap()
        );
        scene.write(&format!("served/{name}.toml"), text.as_bytes());
    }
    let agent = Agent::start(&scene);
    let start = Instant::now();
    let waiting: Vec<UnixStream> = (0..80)
        .map(|n| {
            let mut stream = UnixStream::connect(agent.socket()).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(&ask_for(if n < 64 { "none" } else { "some" })).unwrap();
            stream
        })
        .collect();
    // They are at it: what is asked of the store has come there.
    hole.accept().map(drop).unwrap();
    for _ in 0..3 {
        agent.ask("flush", &["--env", "test"]).expect_status(0);
        let asked = Instant::now();
        assert_eq!(resolve(&agent).unwrap().len(), 2);
        assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    }
    assert!(start.elapsed() < Duration::from_secs(6), "they still wait");
    // Each of them hears of it in its own time.
    for mut stream in waiting {
        let body = super::read_body(&mut stream).unwrap();
        assert!(matches!(decode_reply(&body), Ok(Reply::Refused(Refusal::Failed { .. }))), "{:?}", decode_reply(&body));
    }
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    agent.end();
}

/// Requests as another user, each on a connection of its own; the answers.
fn as_user(scene: &Scene, uid: u32, request: &[u8], count: usize) -> Vec<Vec<u8>> {
    let hex: String = request.iter().map(|byte| format!("{byte:02x}")).collect();
    let program = format!(
        "import socket\nfor _ in range({count}):\n s=socket.socket(socket.AF_UNIX)\n s.connect({:?})\n \
         try:\n  s.sendall(bytes.fromhex('{hex}'))\n  s.shutdown(1)\n except OSError: pass\n got=b''\n \
         while True:\n  more=s.recv(4096)\n  if not more: break\n  got+=more\n print(got.hex())\n",
        scene.path("agent.sock").to_str().unwrap()
    );
    let id = uid.to_string();
    let line = ["--reuid", &id, "--regid", &id, "--clear-groups", "python3", "-c", &program];
    let output = scene.other("setpriv", &line).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let bytes =
        |line: &str| (0..line.len()).step_by(2).map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap()).collect();
    String::from_utf8(output.stdout).unwrap().lines().map(bytes).collect()
}

fn refusal(answer: &[u8]) -> Refusal {
    match decode_reply(&answer[HEADER..]) {
        Ok(Reply::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn those_who_are_not_listed_take_no_places_and_fill_no_log() {
    if !have(&["setpriv", "python3"], true) {
        return;
    }
    let scene = scene("[[grants]]\nsecrets = [\"*\"]\nto = \"anyone\"\n");
    let agent = Agent::start_with(&scene, &format!("[agent]\nusers = [{LISTED}]\n"), &[]);
    let mut crowds: Vec<_> = (0..3).map(|n| half_open(&scene, OTHER + n, 500)).collect();
    assert!(super::connections(&agent) <= 33, "{}", super::connections(&agent));
    for crowd in &mut crowds {
        drop(crowd.stdin.take());
        crowd.wait().unwrap();
    }
    let start = Instant::now();
    let answers = as_user(&scene, OTHER, &asking(), 300);
    let seconds = usize::try_from(start.elapsed().as_secs()).unwrap() + 1;
    assert!(answers.iter().all(|answer| refusal(answer) == Refusal::Denied), "and no other word");
    let written = agent.audit().iter().filter(|record| record["event"] == "access.denied").count();
    assert!(written > 0 && written <= 10 + 5 * seconds, "{written} records in {seconds} s");
    agent.end();
}

/// Who is listed and has no grant cannot make up children; who was given something may speak of that.
#[test]
fn a_report_is_written_down_only_where_there_was_a_release() {
    if !have(&["setpriv", "python3"], true) {
        return;
    }
    let scene = scene(&format!("[[grants]]\nsecrets = [\"*\"]\nto = {{ users = [{LISTED}] }}\n"));
    let agent = Agent::start_with(&scene, &format!("[agent]\nusers = [{LISTED}, {OTHER}]\n"), &[]);
    let report = |environment: &str| {
        let command = CommandClaim { found: "/x".into(), canonical: "/x".into(), arguments: 0, sha256: None };
        encode_request(&Request::Child(ChildReport {
            environment: EnvironmentName::new(environment).unwrap(),
            service: None,
            command,
            parent: 1,
            access: [7; 8],
            event: ChildEvent::Changed,
        }))
        .unwrap()
    };
    let start = Instant::now();
    let answers = as_user(&scene, OTHER, &report("test"), 500);
    let seconds = usize::try_from(start.elapsed().as_secs()).unwrap() + 1;
    assert!(answers.iter().all(|answer| matches!(refusal(answer), Refusal::Denied | Refusal::Busy)));
    // A grant somewhere is none elsewhere; and a supervisor outlives the agent, so that it is enough where it is.
    assert_eq!(refusal(&as_user(&scene, LISTED, &report("nowhere"), 1)[0]), Refusal::Denied);
    let done = &as_user(&scene, LISTED, &report("test"), 1)[0];
    assert!(matches!(decode_reply(&done[HEADER..]), Ok(Reply::Done(0))));
    let events = agent.events();
    assert_eq!(events.iter().filter(|event| *event == "child.restarting").count(), 1);
    let denied = events.iter().filter(|event| *event == "access.denied").count();
    assert!(denied <= 51 + 50 * seconds, "{denied} records in {seconds} s");
    agent.end();
}

/// One who is granted everything cannot write without end either.
#[test]
fn one_users_records_are_counted_whatever_comes_of_them() {
    if !have(&["setpriv", "python3"], true) {
        return;
    }
    let scene = scene("[[grants]]\nsecrets = [\"*\"]\nto = \"anyone\"\n");
    let agent = Agent::start_with(&scene, &format!("[agent]\nusers = [{LISTED}, {OTHER}]\n"), &[]);
    let start = Instant::now();
    let answers = as_user(&scene, LISTED, &asking(), 4000);
    let seconds = usize::try_from(start.elapsed().as_secs()).unwrap() + 1;
    let granted = answers.iter().filter(|answer| answer.len() > 100).count();
    assert!(granted >= 1000 && granted <= 1000 + 100 * seconds, "{granted} in {seconds} s");
    assert_eq!(as_user(&scene, OTHER, &asking(), 1)[0].len(), answers[0].len(), "another one is served");
    agent.end();
}

/// Whoever locks the socket's folder, which is everybody's to do, does not keep the agent from starting.
#[test]
fn a_lock_on_the_folder_keeps_nobody_from_starting() {
    if !have(&["setpriv", "flock"], true) {
        return;
    }
    let scene = scene("[[grants]]\nsecrets = [\"*\"]\nto = \"anyone\"\n");
    write_files(&scene, "");
    let id = OTHER.to_string();
    let folder = scene.path("");
    let line = ["--reuid", &id, "--regid", &id, "--clear-groups", "flock", "-x", folder.to_str().unwrap(), "cat"];
    let mut command = scene.other("setpriv", &line);
    let mut locker = command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    locker.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    locker.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let health = format!("unix:{}", scene.path("health.sock").display());
    let agent = Agent::start_with(&scene, "", &["--health", &health]);
    assert!(exchange(&agent.socket(), &asking()).is_ok());
    drop(locker.stdin.take());
    locker.wait().unwrap();
    agent.end();
}

/// In a user namespace everybody without a number in it is shown as one and the same: he is nobody, listed or not.
#[test]
fn who_has_no_number_here_is_nobody() {
    if !have(&["setpriv", "python3", "unshare"], true) {
        return;
    }
    let scene = scene("[[grants]]\nsecrets = [\"*\"]\nto = { users = [65534] }\n");
    write_files(&scene, "[agent]\nusers = [65534]\n");
    let socket = scene.path("agent.sock");
    let words = ["agent", "--policies", "served", "--host", "host.toml", "--socket", socket.to_str().unwrap()];
    // Where everybody has a number, `nobody` is a user as any other.
    let agent = Agent::spawn(&scene, scene.command(&words));
    assert!(as_user(&scene, 65_534, &asking(), 1)[0].len() > 100);
    agent.end();
    let inside = [&["--user", "--map-root-user", VOUCHSAFE], &words[..]].concat();
    let agent = Agent::spawn(&scene, scene.other("unshare", &inside));
    for uid in [OTHER, 65_534] {
        assert_eq!(refusal(&as_user(&scene, uid, &asking(), 1)[0]), Refusal::Denied);
    }
    let last = agent.audit().pop().unwrap();
    assert_eq!((last["event"].as_str(), last["actor"]["uid"].as_u64()), (Some("access.denied"), Some(65_534)));
    agent.end();
}
