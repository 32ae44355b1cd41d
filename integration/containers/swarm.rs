//! Swarm: the stack of `deploy/docker`, deployed on one node, its identity a Swarm secret; and its rolling update after a
//! rotation, in which one of the three always serves.

use std::collections::BTreeSet;

use super::engine::Engine;
use super::image::{CANARY, USER};
use super::shipped::{self, API};
use crate::aws::fake::server::eventually;

const SERVICE: &str = "shop_api";
const ROTATED: &str = "canary-of-a-rotated-container-51e8";

/// The first processes of the service's containers that run, by what they hold.
fn replicas(engine: &Engine) -> Vec<(String, String)> {
    let filter = format!("label=com.docker.swarm.service.name={SERVICE}");
    let ids = engine.ask(&["ps", "--quiet", "--no-trunc", "--filter", &filter]);
    let environ = |id: &str| {
        // One may end between the two questions.
        let pid = engine.docker(&["inspect", "--format={{.State.Pid}}", id]).out().trim().to_owned();
        let bytes = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        Some((id.to_owned(), String::from_utf8_lossy(&bytes).into_owned()))
    };
    ids.lines().filter_map(environ).collect()
}

/// How many of them have started with this value.
fn with(engine: &Engine, value: &str) -> usize {
    let entry = format!("DATABASE_URL={value}\0");
    replicas(engine).iter().filter(|(_, environ)| environ.contains(&entry)).count()
}

pub fn the_shipped_stack(engine: &Engine) {
    engine.ask(&["swarm", "init", "--listen-addr=127.0.0.1:2377", "--advertise-addr=127.0.0.1"]);
    let key = engine.scene.path("identity.key").display().to_string();
    engine.ask(&["secret", "create", "prod-age", &key]);
    let stack = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/docker/stack.yaml");
    // No overlay network on a host that has loopback only, a store that can change, no waiting between replicas, and a service
    // with a handler for TERM.
    let store = engine.scene.path("api/secrets").display().to_string();
    let here = format!(
        "version: \"3.8\"\nservices:\n  api:\n    networks: [outside]\n    command: [\"/usr/bin/api\", \"handle\"]\n    volumes: [\"{store}:/etc/vouchsafe/secrets:ro\"]\n    \
         deploy:\n      update_config:\n        monitor: 100ms\n\
         networks:\n  outside:\n    external: true\n    name: host\n"
    );
    let here = engine.scene.write("stack-here.yaml", here.as_bytes()).display().to_string();
    engine.ask(&["stack", "deploy", "--resolve-image=never", "-c", stack, "-c", &here, "shop"]);
    eventually("three replicas", || with(engine, CANARY) == 3);

    let mut known = vec![engine.ask(&["service", "inspect", SERVICE])];
    for (id, _) in replicas(engine) {
        known.push(engine.ask(&["inspect", &id]));
        known.push(engine.ask(&["exec", &id, "/usr/bin/api", "show"]));
        // The key is a file of the service's user, and of nobody else.
        let status = engine.ask(&["exec", &id, "/usr/bin/api", "cat", "/proc/1/status"]);
        assert!(status.contains(&format!("Uid:\t{USER}\t")), "{status}");
    }
    assert!(known[0].contains(API) && known[0].contains("prod-age"), "{}", known[0]);
    assert!(!known.iter().any(|text| text.contains(CANARY)));

    rolling_update(engine);
    engine.ask(&["stack", "rm", "shop"]);
    eventually("the end of the stack", || replicas(engine).is_empty());
    engine.ask(&["swarm", "leave", "--force"]);
}

/// A rotation reaches a service in exec mode by a rolling update: the new one first, one after the other.
fn rolling_update(engine: &Engine) {
    let policy = engine.scene.path("api/policies/prod/api.toml");
    let text = std::fs::read_to_string(&policy).unwrap();
    let key = engine.scene.path("identity.key").display().to_string();
    let folder = engine.folder("api/rotate/by");
    std::fs::write(folder.join("host.toml"), text.replace("/run/secrets/prod-age", &key)).unwrap();
    shipped::set(engine, &folder.join("host.toml").display().to_string(), ROTATED);
    // Nothing changes by itself.
    assert_eq!((with(engine, CANARY), with(engine, ROTATED)), (3, 0));
    let before: BTreeSet<String> = replicas(engine).into_iter().map(|(id, _)| id).collect();
    engine.ask(&["service", "update", "--force", "--detach", SERVICE]);
    let (mut least, mut seen) = (usize::MAX, 0);
    eventually("the rolling update", || {
        let (old, new) = (with(engine, CANARY), with(engine, ROTATED));
        least = least.min(old + new);
        seen += 1;
        let state = engine.ask(&["service", "inspect", "--format={{.UpdateStatus.State}}", SERVICE]);
        assert!(!state.contains("paused") && !state.contains("rollback"), "{state}");
        (old, new) == (0, 3)
    });
    println!("\ncontainers: rolling update of 3: at least {least} running in {seen} looks");
    assert!(least >= 2, "only {least} of 3 were running");
    assert!(replicas(engine).iter().all(|(id, _)| !before.contains(id)));
}
