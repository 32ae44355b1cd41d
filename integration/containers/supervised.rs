//! The same images with `run --supervise`: the supervisor is PID 1 and the application is not, so signals without a handler end
//! it, orphans are waited for, and a rotation restarts it.

use std::time::Instant;

use super::engine::{Engine, children, environ};
use super::image::{CANARY, PLAIN, PREFIX, USER_FLAG, identity, policy};
use super::stop::Mode;
use crate::aws::fake::server::eventually;
use crate::harness::Scene;

/// `PLAIN` with `--supervise`.
const IMAGE: &str = "supervised";

/// The row of the tables, with its image built.
pub fn mode(engine: &Engine) -> Option<Mode> {
    build(engine).then_some(Mode { name: "supervise", image: IMAGE, flags: &[], has_init: true })
}

/// Builds the image. False where this build has no `--supervise` yet.
fn build(engine: &Engine) -> bool {
    let help = engine.run(&["--entrypoint=/usr/local/bin/vouchsafe"], PLAIN, &["run", "--help"]);
    if !help.out().contains("--supervise") {
        return false;
    }
    let prefix = PREFIX.replace("\"run\",", "\"run\", \"--supervise\",");
    engine.derive(IMAGE, &format!("FROM {PLAIN}\nENTRYPOINT {prefix}\nCMD [\"/app\", \"wait\"]\n"));
    true
}

pub fn as_strict_as_exec(engine: &Engine) {
    if !build(engine) {
        return;
    }
    let identity = identity(engine);
    let restrictions = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=none"];
    let flags = [&USER_FLAG[..], &restrictions, &[&identity]].concat();
    let outcome = engine.run(&flags, IMAGE, &["/app", "show"]).expect_status(0);
    let lines: Vec<&str> = outcome.out().lines().collect();
    assert!(lines.contains(&format!("DB_PASSWORD={CANARY}").as_str()), "{}", outcome.transcript());
    assert!(!lines.contains(&"pid 1"), "{}", outcome.transcript());
    // The secret is in the environment of the application, and not in that of its supervisor.
    let container = engine.start_ready(&flags, IMAGE, &["/app", "wait"]);
    let supervisor = container.pid();
    assert!(!environ(supervisor).contains(CANARY));
    let application = children(supervisor);
    assert!(application.iter().any(|pid| environ(*pid).contains(CANARY)), "{application:?}");
    assert!(!engine.ask(&["inspect", &container.name]).contains(CANARY));
    // Nor can another process of its uid look into the supervisor.
    engine.docker(&["exec", &container.name, "/app", "cat", "/proc/1/environ"]).expect_status(1);
}

pub fn the_status_is_the_childs(engine: &Engine) {
    if !build(engine) {
        return;
    }
    let identity = identity(engine);
    for status in [0, 1, 7, 120, 125, 255] {
        engine.run(&[&identity], IMAGE, &["/app", "exit", &status.to_string()]).expect_status(status);
    }
    // PID 1 cannot die of a signal, so it says so with its status.
    for signal in [libc::SIGHUP, libc::SIGKILL, libc::SIGTERM, libc::SIGUSR1] {
        engine.run(&[&identity], IMAGE, &["/app", "die", &signal.to_string()]).expect_status(128 + signal);
    }
    engine.run(&[&identity], IMAGE, &["/app", "crash"]).expect_status(128 + libc::SIGSEGV);
    engine.run(&[&identity], IMAGE, &["/app2"]).expect_status(127);
    engine.run(&[], IMAGE, &["/app", "show"]).expect_status(124);
}

/// One record more than in exec mode, in the same chain.
pub fn the_end_is_written_down(engine: &Engine) {
    if !build(engine) {
        return;
    }
    let outcome = engine.run(&[&identity(engine)], IMAGE, &["/app", "exit", "7"]).expect_status(7);
    let events: Vec<serde_json::Value> =
        outcome.err().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["access.requested", "access.released", "child.exited"]);
    assert_eq!(events[2]["child"]["status"], 7);
    let collected = engine.scene.write("supervised.jsonl", outcome.err().as_bytes()).display().to_string();
    engine.scene.vouchsafe(&["audit", "verify", &collected]).expect_status(0);
}

/// The lines of a policy that asks for restarts; no two of three replicas restart at the same moment.
const RESTART: &str = "[run]\nmode = \"supervise\"\nwatch = \"200ms\"\nsplay = \"3s\"\n";

/// Three replicas that look by themselves: after a rotation all have the new value, and never were all of them down.
pub fn three_replicas_and_a_rotation(engine: &Engine) {
    const ROTATED: &str = "canary-after-the-rotation-2b6e";
    if !build(engine) {
        return;
    }
    let scene = Scene::new();
    scene.store(&[("DB_PASSWORD", CANARY)]);
    let folder = scene.path("policies");
    let text = policy(|text| text.replace("/etc/vouchsafe/secrets/", "/run/store/") + RESTART);
    let file = scene.write("policies/api.toml", text.as_bytes()).display().to_string();
    if !engine.scene.vouchsafe(&["policy", "lint", &file]).status.success() {
        println!("\ncontainers: restart on change: this build does not know {RESTART:?}");
        return;
    }
    let store = scene.path("store");
    std::fs::create_dir(&store).unwrap();
    std::fs::rename(scene.path("store.age"), store.join("prod.age")).unwrap();
    let mounts = [
        format!("--volume={}:/etc/vouchsafe/policies/prod:ro", folder.display()),
        format!("--volume={}:/run/store:ro", store.display()),
        format!("--volume={}:/run/secrets/prod-age:ro", scene.path("identity.key").display()),
    ];
    let flags: Vec<&str> = mounts.iter().map(String::as_str).collect();
    let replicas = [0; 3].map(|_| engine.start_ready(&flags, IMAGE, &["/app", "handle"]));
    let pids = replicas.each_ref().map(super::engine::Container::pid);
    let with = |value: &str| {
        let entry = format!("DB_PASSWORD={value}\0");
        pids.iter().filter(|pid| children(**pid).iter().any(|child| environ(*child).contains(&entry))).count()
    };
    assert_eq!(with(CANARY), 3);
    let start = Instant::now();
    scene.store(&[("DB_PASSWORD", ROTATED)]);
    std::fs::rename(scene.path("store.age"), store.join("prod.age")).unwrap();
    let (mut least, mut first) = (3, None);
    eventually("three restarts", || {
        let (old, new) = (with(CANARY), with(ROTATED));
        least = least.min(old + new);
        if new > 0 {
            first.get_or_insert_with(|| start.elapsed());
        }
        new == 3
    });
    println!(
        "\ncontainers: restart on change: the first after {:.1} s, all 3 after {:.1} s, at least {least} running",
        first.unwrap_or_default().as_secs_f64(),
        start.elapsed().as_secs_f64()
    );
    assert!(least >= 1, "all were down at once");
}
