//! kill -9 and a new start: the chain goes on, the log is whole, and a client gets what is right or a clear refusal.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use super::{Dice, asking, exchange, values, verdict};
use crate::agent_scene::Agent;
use crate::harness::Scene;

#[test]
fn an_agent_that_is_killed_and_started_again_goes_on_where_it_was() {
    let scene = Scene::with(&[("A", "hunter2")]);
    let mut agent = Agent::start(&scene);
    let (done, served, lost) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    let socket = agent.socket();
    let through = format!("--agent={}", socket.display());
    let mut dice = Dice(3);
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
        for round in 1..=12 {
            // While requests are under way, at any point of any of them.
            let before = served.load(Ordering::Relaxed);
            while served.load(Ordering::Relaxed) < before + 10 {
                std::thread::sleep(Duration::from_micros(200));
            }
            std::thread::sleep(Duration::from_micros(dice.below(5000) as u64));
            let mut killed = agent.child.take().unwrap();
            killed.kill().unwrap();
            killed.wait().unwrap();
            assert_eq!(verdict(&agent, &scene, "agent.jsonl"), "intact", "after kill {round}");
            agent = Agent::start(&scene);
        }
        let before = served.load(Ordering::Relaxed);
        while served.load(Ordering::Relaxed) < before + 10 {
            std::thread::sleep(Duration::from_micros(200));
        }
        done.store(true, Ordering::Relaxed);
        let (good, told) = runner.join().unwrap();
        assert!(good > 0, "{good} good, {told} told");
    });
    assert!(lost.load(Ordering::Relaxed) > 0, "nobody noticed");
    let records = agent.audit();
    assert_eq!(records.iter().filter(|record| record["event"] == "agent.started").count(), 13);
    // One chain, in one go: each record is the next of the one before.
    let numbers: Vec<u64> = records.iter().map(|record| record["seq"].as_u64().unwrap()).collect();
    assert!(numbers.iter().zip(1..).all(|(seq, expected)| *seq == expected), "{numbers:?}");
    assert!(records.iter().all(|record| record["stream"] == records[0]["stream"]));
    agent.end();
}
