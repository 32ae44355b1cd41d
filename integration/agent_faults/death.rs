//! kill -9 and a new start: the chain goes on, the log is whole, and a client gets what is right or a clear refusal.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{Dice, Done, PATIENCE, asking, exchange, values, verdict};
use crate::agent_scene::Agent;
use crate::harness::{Scene, wait};

#[test]
fn an_agent_that_is_killed_and_started_again_goes_on_where_it_was() {
    let scene = Scene::with(&[("A", "hunter2")]);
    let mut agent = Agent::start(&scene);
    let (done, served, lost) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    let socket = agent.socket();
    let through = format!("--agent={}", socket.display());
    let (mut dice, mut torn) = (Dice(3), 0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    match exchange(&socket, &asking()) {
                        Ok(body) => {
                            assert_eq!(values(&body).unwrap(), [("A".to_owned(), "hunter2".to_owned())]);
                            served.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => {
                            let gone = [
                                ErrorKind::BrokenPipe,
                                ErrorKind::ConnectionRefused,
                                ErrorKind::ConnectionReset,
                                ErrorKind::NotFound,
                                ErrorKind::UnexpectedEof,
                            ];
                            assert!(gone.contains(&error.kind()), "{error:?}");
                            lost.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
        let runner = scope.spawn(|| {
            let (mut good, mut told) = (0, 0);
            while !done.load(Ordering::Relaxed) {
                let outcome = scene.vouchsafe(&["run", &through, "--env", "test", "--", "printenv", "A"]);
                match outcome.status.code() {
                    Some(0) => {
                        assert_eq!(outcome.out(), "hunter2\n");
                        good += 1;
                    }
                    Some(122) => {
                        assert!(outcome.err().contains("agent"), "{}", outcome.err());
                        assert_eq!(outcome.out(), "");
                        told += 1;
                    }
                    other => panic!("{other:?}: {}", outcome.transcript()),
                }
            }
            (good, told)
        });
        let end = Done(&done);
        let until_ten_more_are_served = || {
            let (start, before) = (Instant::now(), served.load(Ordering::Relaxed));
            while served.load(Ordering::Relaxed) < before + 10 {
                assert!(start.elapsed() < PATIENCE, "nobody is served");
                std::thread::sleep(Duration::from_micros(200));
            }
        };
        for round in 1..=12 {
            // While requests are under way, at any point of any of them.
            until_ten_more_are_served();
            std::thread::sleep(Duration::from_micros(dice.below(5000) as u64));
            let mut killed = agent.child.take().unwrap();
            killed.kill().unwrap();
            killed.wait().unwrap();
            // The kernel ends a write between two pages if its writer is killed: the last line may be torn, and nothing else.
            let log = std::fs::read(scene.path("agent.jsonl")).unwrap();
            let expected = if log.ends_with(b"\n") { "intact" } else { "incomplete" };
            assert_eq!(verdict(&agent, &scene, "agent.jsonl"), expected, "after kill {round}");
            let last = log.split(|byte| *byte == b'\n').next_back().unwrap_or_default();
            torn += u64::from(!last.is_empty() && serde_json::from_slice::<serde_json::Value>(last).is_err());
            agent = Agent::start(&scene);
        }
        until_ten_more_are_served();
        drop(end);
        let (good, told) = runner.join().unwrap();
        assert!(good > 0, "{good} good, {told} told");
    });
    assert!(lost.load(Ordering::Relaxed) > 0, "nobody noticed");
    agent.signal(Signal::TERM);
    assert_eq!(wait(agent.child.take().unwrap()).status.code(), Some(0), "{}", agent.log());
    // What was torn is said to be, by a record of its own, and the log is whole.
    assert_eq!(verdict(&agent, &scene, "agent.jsonl"), "intact");
    let log = String::from_utf8(std::fs::read(scene.path("agent.jsonl")).unwrap()).unwrap();
    let records: Vec<serde_json::Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let count = |event: &str| records.iter().filter(|record| record["event"] == event).count() as u64;
    assert_eq!((count("agent.started"), count("agent.stopped"), count("audit.quarantined")), (13, 1, torn));
    assert_eq!(log.lines().count() as u64, records.len() as u64 + torn);
    // One chain, in one go: each record is the next of the one before.
    let numbers: Vec<u64> = records.iter().map(|record| record["seq"].as_u64().unwrap()).collect();
    assert!(numbers.iter().zip(1..).all(|(seq, expected)| *seq == expected), "{numbers:?}");
    assert!(records.iter().all(|record| record["stream"] == records[0]["stream"]));
}
