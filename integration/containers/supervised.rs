//! The same images with `run --supervise`: the supervisor is PID 1 and the application is not, so signals without a handler end
//! it, orphans are waited for, and a rotation restarts it.

use std::time::{Duration, Instant};

use super::engine::{Container, Engine, children, environ};
use super::image::{CANARY, PLAIN, PREFIX, USER_FLAG, identity, policy};
use super::stop::Mode;
use crate::aws::fake::server::eventually;
use crate::harness::Scene;

/// `PLAIN` with `--supervise`.
const IMAGE: &str = "supervised";

/// The row of the tables.
pub const MODE: Mode = Mode { name: "supervise", image: IMAGE, flags: &[], has_init: true };

/// Builds the image.
pub fn build(engine: &Engine) {
    let prefix = PREFIX.replace("\"run\",", "\"run\", \"--supervise\",");
    engine.derive(IMAGE, &format!("FROM {PLAIN}\nENTRYPOINT {prefix}\nCMD [\"/app\", \"wait\"]\n"));
}

pub fn as_strict_as_exec(engine: &Engine) {
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
    let outcome = engine.run(&[&identity(engine)], IMAGE, &["/app", "exit", "7"]).expect_status(7);
    let events: Vec<serde_json::Value> =
        outcome.err().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["access.requested", "access.released", "child.exited"]);
    assert_eq!(events[2]["child"]["status"], 7);
    let collected = engine.scene.write("supervised.jsonl", outcome.err().as_bytes()).display().to_string();
    engine.scene.vouchsafe(&["audit", "verify", &collected]).expect_status(0);
}

/// Three replicas that look by themselves: after a rotation all have the new value, and never were all of them down. Each of them
/// is down for a moment only, since the new process has fetched before the old one is stopped.
pub fn three_replicas_and_a_rotation(engine: &Engine) {
    const ROTATED: &str = "canary-after-the-rotation-2b6e";
    let scene = Scene::new();
    scene.store(&[("DB_PASSWORD", CANARY)]);
    let text = policy(|text| text.replace("/etc/vouchsafe/secrets/", "/run/store/") + "[run]\nwatch = \"500ms\"\n");
    scene.write("policies/api.toml", text.as_bytes());
    let (folder, store) = (scene.path("policies"), scene.path("store"));
    std::fs::create_dir(&store).unwrap();
    std::fs::rename(scene.path("store.age"), store.join("prod.age")).unwrap();
    let mounts = [
        format!("--volume={}:/etc/vouchsafe/policies/prod:ro", folder.display()),
        format!("--volume={}:/run/store:ro", store.display()),
        format!("--volume={}:/run/secrets/prod-age:ro", scene.path("identity.key").display()),
    ];
    let flags: Vec<&str> = mounts.iter().map(String::as_str).collect();
    let mut replicas = [0; 3].map(|_| engine.start_ready(&flags, IMAGE, &["/app", "handle"]));
    let pids = replicas.each_ref().map(Container::pid);
    // What each of them runs with: the old value, the new one, or nothing at this moment.
    let look = || {
        pids.map(|pid| {
            let environs: String = children(pid).into_iter().map(environ).collect();
            [CANARY, ROTATED].into_iter().find(|value| environs.contains(&format!("DB_PASSWORD={value}\0")))
        })
    };
    assert_eq!(look(), [Some(CANARY); 3]);
    let start = Instant::now();
    scene.store(&[("DB_PASSWORD", ROTATED)]);
    std::fs::rename(scene.path("store.age"), store.join("prod.age")).unwrap();
    let (mut least, mut last_old, mut first_new) = (3, [Duration::ZERO; 3], [None; 3]);
    eventually("three restarts", || {
        let (seen, now) = (look(), start.elapsed());
        least = least.min(seen.iter().flatten().count());
        for (replica, value) in seen.iter().enumerate() {
            match value {
                Some(CANARY) => last_old[replica] = now,
                Some(_) if first_new[replica].is_none() => first_new[replica] = Some(now),
                _ => {}
            }
        }
        seen == [Some(ROTATED); 3]
    });
    let new = first_new.map(Option::unwrap);
    let gaps: Vec<u128> = new.iter().zip(last_old).map(|(new, old)| (*new - old).as_millis()).collect();
    println!(
        "\ncontainers: restart on change: new values {:?} ms after the rotation, {gaps:?} ms between old and new, at least {least} running",
        new.map(|at| at.as_millis())
    );
    assert!(least >= 1, "all were down at once");
    // Each is the same container, and has become ready again.
    for (replica, pid) in replicas.iter_mut().zip(pids) {
        replica.read_until("signal 15\n");
        replica.read_until("ready\n");
        assert_eq!(replica.pid(), pid);
        let log = engine.docker(&["logs", &replica.name]).expect_status(0).err().to_owned();
        assert!(log.contains("\"child.restarting\"") && !log.contains(ROTATED) && !log.contains(CANARY), "{log}");
        let collected = scene.write("restarted.jsonl", log.as_bytes()).display().to_string();
        engine.scene.vouchsafe(&["audit", "verify", &collected]).expect_status(0);
    }
}
