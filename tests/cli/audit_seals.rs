//! Who begins the seals of a log, for whom, and how they go on when that changes, with the real binary.

use crate::harness::{Outcome, Scene};

/// A host whose sink names this auditor.
fn host(auditor: &str, scene: Scene) -> Scene {
    let sink = format!(
        "[[audit.sinks]]\ntype = \"file\"\npath = \"{}\"\nsync = false\nauditor = \"{auditor}\"\n",
        scene.path("audit.jsonl").display()
    );
    scene.sinks(&sink)
}

fn init(scene: &Scene, words: &[&str]) -> Outcome {
    scene.vouchsafe(&[&["audit", "init"], words, &["audit.jsonl"]].concat())
}

fn verify(scene: &Scene, seeds: &[&str], logs: &[&str]) -> Outcome {
    let seeds = seeds.iter().flat_map(|seed| ["--seed", seed]);
    let words: Vec<&str> = ["audit", "verify", "--identity", "identity.key"]
        .into_iter()
        .chain(seeds)
        .chain(logs.iter().copied())
        .collect();
    scene.vouchsafe(&words)
}

#[test]
fn the_record_of_sealing_is_by_whoever_ran_it_and_names_the_auditor() {
    let scene = Scene::with(&[("A", "1")]);
    let auditor = scene.recipient();
    let scene = host(&auditor, scene);
    init(&scene, &["--auditor", &auditor, "--seed", "seed.age"]).expect_status(0);
    let records = scene.audit();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0]["event"], "audit.sealing_begun");
    assert_eq!(records[0]["epoch"]["auditor"], auditor.as_str());
    let uid = rustix::process::getuid().as_raw();
    assert_eq!(records[0]["actor"]["uid"], uid);
    scene.run(&["true"]).expect_status(0);
    assert_eq!(scene.events(), ["audit.sealing_begun", "access.requested", "access.released"]);
    assert_ne!(scene.audit()[1]["actor"]["pid"], records[0]["actor"]["pid"]);
    verify(&scene, &["seed.age"], &["audit.jsonl"]).expect_status(0);
}

#[test]
fn a_log_that_is_sealed_for_another_auditor_is_refused_until_its_epoch_is_ended() {
    let scene = Scene::with(&[("A", "1")]);
    let (evil, real) = (age::x25519::Identity::generate().to_public().to_string(), scene.recipient());
    let scene = host(&real, scene);
    init(&scene, &["--auditor", &evil, "--seed", "evil.age"]).expect_status(0);
    let refused = scene.run(&["touch", "marker"]).expect_status(123);
    assert!(refused.err().contains("another auditor"), "{}", refused.err());
    assert!(refused.err().contains("vouchsafe audit init --new-epoch --auditor"), "{}", refused.err());
    assert!(!scene.path("marker").exists());
    assert_eq!(scene.audit().len(), 1);
    // Once more is no way out, and says what is.
    let again = init(&scene, &["--auditor", &real, "--seed", "seed.age"]).expect_status(123);
    assert!(again.err().contains("--new-epoch"), "{}", again.err());
    init(&scene, &["--new-epoch", "--auditor", &real, "--seed", "seed.age"]).expect_status(0);
    scene.run(&["touch", "marker"]).expect_status(0);
    assert!(scene.path("marker").exists());
    let events = scene.events();
    assert_eq!(events[..3], ["audit.sealing_begun", "audit.sealing_ended", "audit.sealing_begun"]);
}

#[test]
fn an_auditor_may_change_without_a_finding() {
    let scene = Scene::with(&[("A", "1")]);
    let auditor = scene.recipient();
    let scene = host(&auditor, scene);
    init(&scene, &["--new-epoch", "--auditor", &auditor, "--seed", "none.age"]).expect_status(123);
    assert!(!scene.path("none.age").exists() && !scene.path("audit.jsonl").exists());
    init(&scene, &["--auditor", &auditor, "--seed", "one.age"]).expect_status(0);
    scene.run(&["true"]).expect_status(0);
    init(&scene, &["--new-epoch", "--auditor", &auditor, "--seed", "two.age"]).expect_status(0);
    scene.run(&["true"]).expect_status(0);
    let whole = verify(&scene, &["one.age", "two.age"], &["audit.jsonl"]).expect_status(0);
    assert!(whole.out().contains("7 records in 1 chain, 7 sealed"), "{}", whole.out());
    verify(&scene, &["one.age"], &["audit.jsonl"]).expect_status(12);
    // A seed that is there is never overwritten, and nothing is ended for it.
    let before = scene.audit().len();
    init(&scene, &["--new-epoch", "--auditor", &auditor, "--seed", "two.age"]).expect_status(123);
    assert_eq!(scene.audit().len(), before);
    scene.run(&["true"]).expect_status(0);
    verify(&scene, &["one.age", "two.age"], &["audit.jsonl"]).expect_status(0);
}

/// The head and the seals are not synced: after a power cut they are those of some time ago, and the log was rotated since.
#[test]
fn a_power_cut_after_a_rotation_is_no_tampering() {
    let scene = Scene::with(&[("A", "1")]);
    let auditor = scene.recipient();
    let scene = host(&auditor, scene);
    init(&scene, &["--auditor", &auditor, "--seed", "seed.age"]).expect_status(0);
    let unsynced = ["audit.jsonl.head", "audit.jsonl.seal"];
    let then = unsynced.map(|name| std::fs::read(scene.path(name)).unwrap());
    scene.run(&["true"]).expect_status(0);
    std::fs::rename(scene.path("audit.jsonl"), scene.path("audit.jsonl.1")).unwrap();
    for (name, bytes) in unsynced.iter().zip(then) {
        std::fs::write(scene.path(name), bytes).unwrap();
    }
    scene.run(&["true"]).expect_status(0);
    let logs = ["audit.jsonl.1", "audit.jsonl"];
    let whole = verify(&scene, &["seed.age"], &logs).expect_status(0);
    assert!(whole.out().contains("5 records in 1 chain, 5 sealed"), "{}", whole.out());
    scene.vouchsafe(&["audit", "verify", logs[0], logs[1]]).expect_status(0);
}

#[test]
fn a_sealed_log_that_was_moved_and_lost_its_state_is_refused() {
    let scene = Scene::with(&[("A", "1")]);
    let auditor = scene.recipient();
    init(&scene, &["--auditor", &auditor, "--seed", "seed.age"]).expect_status(0);
    scene.run(&["true"]).expect_status(0);
    std::fs::rename(scene.path("audit.jsonl"), scene.path("audit.jsonl.1")).unwrap();
    std::fs::remove_file(scene.path("audit.jsonl.seal")).unwrap();
    let refused = scene.run(&["touch", "marker"]).expect_status(123);
    assert!(refused.err().contains("the state of the seals"), "{}", refused.err());
    assert!(!scene.path("marker").exists());
}
