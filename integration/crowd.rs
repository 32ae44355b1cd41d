//! Many at once: one unbroken log, no lost update.

use std::process::{Child, Stdio};

use crate::have;
use crate::sealed::Sealed;

fn start(sealed: &Sealed, words: &[&str]) -> Child {
    sealed.scene.command(words).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_thousand_runs_fifty_at_a_time_make_one_chain() {
    if !have(&[], false) {
        return;
    }
    let sealed = Sealed::with(&[("A", "1")]);
    let run = ["run", "--policy", "policy.toml", "--", "/usr/bin/true"];
    for _ in 0..20 {
        let crowd: Vec<Child> = (0..50).map(|_| start(&sealed, &run)).collect();
        for child in crowd {
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
    let report = sealed.verify();
    assert_eq!((&report["state"], &report["chains"]), (&"intact".into(), &1.into()), "{report:#}");
    assert_eq!((&report["discontinuities"], &report["quarantined"]), (&0.into(), &0.into()), "{report:#}");
    assert_eq!(sealed.counts(), [1000, 1000, 0]);
    // Each access has its two records, whoever wrote in between.
    let mut accesses = std::collections::HashMap::<String, Vec<String>>::new();
    for record in sealed.records() {
        let (access, event) = (record["access"].as_str().unwrap(), record["event"].as_str().unwrap());
        accesses.entry(access.to_owned()).or_default().push(event.to_owned());
    }
    let pairs = accesses.values().filter(|events| **events == ["access.requested", "access.released"]).count();
    assert_eq!(pairs, 1000);
}

#[test]
fn of_twenty_writers_none_is_lost() {
    if !have(&[], false) {
        return;
    }
    let names: Vec<String> = (0..20).map(|number| format!("S{number}")).collect();
    let values: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "old")).collect();
    let sealed = Sealed::with(&values);
    let before = sealed.content().generation;
    let mut written = 0;
    for round in 0..5 {
        let crowd: Vec<(usize, Child)> = (0..20)
            .map(|number| {
                let input = format!("input-{number}");
                sealed.scene.write_mode(&input, format!("{round}/{number}").as_bytes(), 0o600);
                let words = ["set", &names[number], "--policy", "policy.toml", "--from-file", &input];
                (number, start(&sealed, &words))
            })
            .collect();
        let mut took = [false; 20];
        for (number, child) in crowd {
            let output = child.wait_with_output().unwrap();
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            took[number] = output.status.success();
            // A writer may give up after its two seconds on a slow machine, if it says so.
            assert!(took[number] || told.contains("is being written by") || told.contains("lock"), "{told}");
        }
        let content = sealed.content();
        for (number, name) in names.iter().enumerate().filter(|(number, _)| took[*number]) {
            assert_eq!(content.values[name], format!("{round}/{number}"));
        }
        written += took.iter().filter(|took| **took).count() as u64;
        assert_eq!(content.generation, before + written);
    }
    assert!(written >= 60, "{written} of 100");
    assert!(sealed.leftovers().is_empty());
    sealed.expect_intact("a crowd of writers");
}

#[test]
fn whoever_holds_the_log_and_is_gone_does_not_block_the_next() {
    if !have(&[], false) {
        return;
    }
    let sealed = Sealed::with(&[("A", "1")]);
    let head = std::fs::File::open(sealed.scene.path("log/audit.jsonl.head")).unwrap();
    rustix::fs::flock(&head, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let outcome = sealed.run(&["/usr/bin/touch", "marker"]).expect_status(123);
    assert!(outcome.err().contains("error[audit]"), "{}", outcome.transcript());
    assert!(!sealed.scene.path("marker").exists());
    drop(head);
    sealed.run(&["/usr/bin/touch", "marker"]).expect_status(0);
    sealed.expect_intact("a holder of the lock");
}
