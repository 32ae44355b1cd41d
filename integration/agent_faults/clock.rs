//! Clocks that jump by years while the agent serves. How long something is kept, waited for or left alone counts by a clock
//! that nobody sets (CLOCK_MONOTONIC); the time of day is written into records, and no chain depends on its order.

use std::path::Path;
use std::time::{Duration, Instant};

use vouchsafe::agent::protocol::reply::Refusal;

use super::{resolve, verdict};
use crate::agent_scene::{Agent, write_files};
use crate::harness::Scene;

/// Debian's libfaketime: the time of day is what a file says, the monotonic clock is left alone.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

fn start<'s>(scene: &'s Scene, cache: &str) -> Agent<'s> {
    write_files(scene, "");
    let policy = std::fs::read_to_string(scene.path("served/test.toml")).unwrap();
    scene.write("served/test.toml", format!("{policy}\n[cache]\n{cache}\n").as_bytes());
    let socket = scene.path("agent.sock");
    let words = ["agent", "--policies", "served", "--host", "host.toml", "--socket", socket.to_str().unwrap()];
    set(scene, "+0");
    let mut command = scene.command(&words);
    command.env("LD_PRELOAD", FAKETIME).env("FAKETIME_TIMESTAMP_FILE", scene.path("clock"));
    command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
    Agent::spawn(scene, command)
}

fn set(scene: &Scene, offset: &str) {
    scene.write("clock.next", format!("{offset}\n").as_bytes());
    std::fs::rename(scene.path("clock.next"), scene.path("clock")).unwrap();
}

fn is_possible() -> bool {
    let there = Path::new(FAKETIME).exists();
    if !there {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        println!("\nSKIPPED: {test} (needs faketime)");
    }
    there
}

fn last_year(agent: &Agent<'_>) -> i32 {
    agent.audit().last().unwrap()["time"].as_str().unwrap()[..4].parse().unwrap()
}

#[test]
fn what_is_cached_neither_dies_nor_lives_on_when_the_clock_is_set() {
    if !is_possible() {
        return;
    }
    let scene = Scene::with(&[("A", "hunter2")]);
    let agent = start(&scene, "ttl = \"1h\"");
    resolve(&agent).unwrap();
    let year = last_year(&agent);
    // From here on only the cache has it.
    std::fs::remove_file(scene.path("store.age")).unwrap();
    for (offset, years) in [("+10y", 10), ("-10y", -10), ("+60y", 60), ("+0", 0)] {
        set(&scene, offset);
        resolve(&agent).unwrap();
        assert_eq!(last_year(&agent), year + years, "the clock was not set");
    }
    assert_eq!(verdict(&agent, &scene, "agent.jsonl"), "intact");
    agent.end();
}

#[test]
fn a_clock_that_stands_in_the_past_makes_nothing_last_longer() {
    if !is_possible() {
        return;
    }
    let scene = Scene::with(&[("A", "hunter2")]);
    let agent = start(&scene, "ttl = \"2s\"");
    let asked = Instant::now();
    resolve(&agent).unwrap();
    std::fs::remove_file(scene.path("store.age")).unwrap();
    set(&scene, "-10y");
    loop {
        match resolve(&agent) {
            Ok(_) => assert!(asked.elapsed() < Duration::from_secs(10), "it is served past its time"),
            Err(Refusal::Failed { .. }) => break,
            Err(other) => panic!("{other:?}"),
        }
    }
    let gone = asked.elapsed();
    // Due from 1.4 s on: a refresh that fails takes it away, since a file that is gone is no outage.
    assert!(gone > Duration::from_millis(1300), "{gone:?}");
    agent.end();
}
