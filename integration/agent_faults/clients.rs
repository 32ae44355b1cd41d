//! Clients that die anywhere, hang, trickle, lie about lengths and take no answer; and an agent with few descriptors.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::{Dice, PATIENCE, Usage, asking, exchange, read_body, resolve, status, values};
use crate::agent::half_open;
use crate::agent_scene::{Agent, write_files};
use crate::harness::{Scene, VOUCHSAFE};
use crate::have;

const OTHER: u32 = 54_322;

fn scene() -> Scene {
    Scene::with(&[("A", "hunter2"), ("B", "correct horse")])
}

fn expected() -> Vec<(String, String)> {
    vec![("A".into(), "hunter2".into()), ("B".into(), "correct horse".into())]
}

/// What a client does that is killed at some point: the kernel closes its descriptor, and that is all the agent sees.
fn die_somewhere(socket: &Path, request: &[u8], dice: &mut Dice) {
    let mut stream = UnixStream::connect(socket).unwrap();
    let sent = match dice.below(4) {
        0 => dice.below(request.len()),
        _ => request.len(),
    };
    stream.write_all(&request[..sent]).unwrap();
    if sent < request.len() {
        return;
    }
    // At once, while it is looked at; after some of the answer; after all of it.
    match dice.below(3) {
        0 => {}
        1 => {
            let mut some = vec![0; 1 + dice.below(100)];
            stream.read(&mut some).map(drop).unwrap_or_default();
        }
        _ => assert_eq!(values(&read_body(&mut stream).unwrap()), Ok(expected())),
    }
}

fn storm(agent: &Agent<'_>, count: usize) {
    let (socket, request) = (agent.socket(), asking());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (socket, request) = (&socket, &request);
            scope.spawn(move || {
                let mut dice = Dice(0x9e37_79b9 + thread);
                (0..count / 4).for_each(|_| die_somewhere(socket, request, &mut dice));
            });
        }
    });
}

#[test]
fn ten_thousand_clients_that_are_killed_anywhere_leave_nothing_behind() {
    let scene = scene();
    let agent = Agent::start(&scene);
    // What memory the work itself needs is known after some of it.
    storm(&agent, 2000);
    let before = Usage::settled(&agent);
    storm(&agent, 8000);
    // And wrappers for real, at any time between their start and the end of their child.
    let mut dice = Dice(7);
    let through = format!("--agent={}", agent.socket().display());
    let mut ended = 0;
    for _ in 0..300 {
        let mut command = scene.command(&["run", &through, "--env", "test", "--", "true"]);
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(dice.below(25_000) as u64));
        child.kill().unwrap();
        ended += usize::from(child.wait().unwrap().success());
    }
    assert!(ended < 300, "nobody was killed");
    Usage::returns(before, &agent, 2048);
    assert_eq!(resolve(&agent), Ok(expected()));
    // Whatever was begun has an end, whoever was still there to see it.
    let mut open = HashMap::new();
    for record in agent.audit() {
        let count: &mut i32 = open.entry(record["access"].as_str().unwrap().to_owned()).or_default();
        match record["event"].as_str().unwrap() {
            "access.requested" => *count += 1,
            "access.released" | "access.failed" | "access.denied" => *count -= 1,
            _ => {}
        }
    }
    assert!(open.len() > 5000 && open.values().all(|count| *count == 0), "{} accesses", open.len());
    assert!(!agent.log().contains("\"internal\""), "{}", agent.log());
    agent.end();
}

/// Writes a byte to each of those that are open, and forgets those that the agent has closed; how many are left.
fn trickle(open: &mut Vec<UnixStream>, byte: u8) -> usize {
    open.retain_mut(|stream| {
        // EPIPE once it is closed; a full buffer is no news.
        let written = stream.write(&[byte]);
        !written.is_err_and(|error| error.kind() != ErrorKind::WouldBlock)
    });
    open.len()
}

#[test]
fn those_who_hang_trickle_and_lie_hold_up_nobody() {
    if !have(&["setpriv", "python3"], true) {
        return;
    }
    let scene = scene();
    std::fs::set_permissions(scene.path(""), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let agent = Agent::start_with(&scene, &format!("[agent]\nusers = [{OTHER}]\n"), &[]);
    let mut before = None;
    for round in 0..3 {
        let mut crowd = half_open(&scene, OTHER, 2000);
        let connect = || {
            let stream = UnixStream::connect(agent.socket()).unwrap();
            stream.set_nonblocking(true).unwrap();
            stream
        };
        let start = Instant::now();
        // A frame of 60,000 bytes, byte by byte; and one of 4 GiB, which is not waited for.
        let mut slow: Vec<UnixStream> = (0..100).map(|_| connect()).collect();
        slow.iter_mut().for_each(|stream| stream.write_all(&60_000_u32.to_be_bytes()).unwrap());
        let mut liars: Vec<UnixStream> = (0..100).map(|_| connect()).collect();
        liars.iter_mut().for_each(|stream| stream.write_all(&[0xff; 4]).unwrap());
        let (mut best, mut liars_are_gone) = (PATIENCE, false);
        while trickle(&mut slow, 0) > 0 {
            liars_are_gone |= trickle(&mut liars, 0xff) == 0;
            let asked = Instant::now();
            assert_eq!(resolve(&agent), Ok(expected()));
            best = best.min(asked.elapsed());
            assert!(start.elapsed() < PATIENCE, "{} are still let to trickle", slow.len());
        }
        assert!(start.elapsed() > Duration::from_millis(1500), "who is slow has 2 s");
        assert!(liars_are_gone, "they came last, and are not waited for");
        assert!(best < Duration::from_millis(100), "{best:?}");
        drop(crowd.stdin.take());
        crowd.wait().unwrap();
        match before {
            None => before = Some(Usage::settled(&agent)),
            Some(before) => Usage::returns(before, &agent, 1024 * round),
        }
    }
    agent.end();
}

/// 32 who ask for 1 MiB each and read nothing; this is the so manieth crowd. They hold on until all are served; the agent lets
/// go of them by itself.
fn crowd_of_deaf(agent: &Agent<'_>, crowd: usize) {
    let request = asking();
    let deaf: Vec<UnixStream> = (0..32)
        .map(|_| {
            let mut stream = UnixStream::connect(agent.socket()).unwrap();
            stream.write_all(&request).unwrap();
            stream
        })
        .collect();
    let count = |name: &str| agent.events().iter().filter(|event| *event == name).count();
    let start = Instant::now();
    // One more is served in each crowd: who does read.
    while count("access.released") < 33 * crowd - 1 {
        assert!(start.elapsed() < PATIENCE, "they are not served");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(resolve(agent).unwrap().len(), 10);
    Usage::settled(agent);
    drop(deaf);
    assert_eq!(count("access.unused"), 32 * crowd);
}

/// A reply that no socket's buffer takes, and nobody reads.
#[test]
fn who_does_not_take_its_answer_costs_memory_for_a_while_only() {
    let large = "x".repeat(100_000);
    let names: Vec<String> = (10..20).map(|n| format!("S{n}")).collect();
    let scene = Scene::with(&names.iter().map(|name| (name.as_str(), large.as_str())).collect::<Vec<_>>());
    let agent = Agent::start(&scene);
    // What the allocator keeps of one crowd's 32 MiB is its own affair, and differs from host to host. A leak adds up.
    crowd_of_deaf(&agent, 1);
    let before = Usage::settled(&agent);
    (2..=3).for_each(|crowd| crowd_of_deaf(&agent, crowd));
    Usage::returns(before, &agent, 32 << 10);
    agent.end();
}

#[test]
fn with_64_descriptors_it_refuses_in_time_and_serves_again() {
    if !have(&["setpriv", "python3", "prlimit"], true) {
        return;
    }
    let scene = scene();
    std::fs::set_permissions(scene.path(""), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    write_files(&scene, &format!("[agent]\nusers = [{OTHER}]\n"));
    let socket = scene.path("agent.sock");
    let words = ["agent", "--policies", "served", "--host", "host.toml", "--socket", socket.to_str().unwrap()];
    let limited = [&["--nofile=64:64", VOUCHSAFE], &words[..]].concat();
    let agent = Agent::spawn(&scene, scene.other("prlimit", &limited));
    assert_eq!(status(&agent)["connections"]["at_most"], 32);
    let mut before = None;
    for _ in 0..3 {
        crowd_out(&agent, &scene);
        match before {
            None => before = Some(Usage::settled(&agent)),
            Some(before) => Usage::returns(before, &agent, 2048),
        }
    }
    assert!(!agent.log().contains("connection.failed"), "{}", agent.log());
    agent.end();
}

fn crowd_out(agent: &Agent<'_>, scene: &Scene) {
    agent.ask("flush", &[]).expect_status(0);
    // Another user has what one user can have; there is a store to be read, and a log to be written.
    let mut crowd = half_open(scene, OTHER, 300);
    assert_eq!(resolve(agent), Ok(expected()));
    // And root all the rest: the next one is told, and does not wait.
    let held: Vec<UnixStream> = (0..64).map(|_| UnixStream::connect(agent.socket()).unwrap()).collect();
    let busy = vouchsafe::agent::protocol::reply::Refusal::Busy;
    assert_eq!(values(&exchange(&agent.socket(), &asking()).unwrap()), Err(busy));
    drop(held);
    drop(crowd.stdin.take());
    crowd.wait().unwrap();
    let start = Instant::now();
    while values(&exchange(&agent.socket(), &asking()).unwrap()) != Ok(expected()) {
        assert!(start.elapsed() < PATIENCE, "it does not serve again");
    }
    agent.run(&["--", "true"]).expect_status(0);
}
