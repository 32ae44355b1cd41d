//! Containers for real: the static binary in images made `FROM scratch`, in front of the entrypoints of others, as PID 1,
//! under `docker stop`, in Swarm, with AWS; and that no secret is anywhere but in the child's environment.
//!
//! One engine serves all steps, one after the other; a step that fails does not hide the next.

mod aws;
mod engine;
mod exec;
mod image;
mod leaks;
mod shipped;
mod stop;
mod supervised;
mod swarm;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use engine::Engine;

type Step = fn(&Engine);

const STEPS: [(&str, Step); 19] = [
    ("strict conditions", exec::any_user_any_restriction),
    ("an image's own entrypoint", exec::in_front_of_an_entrypoint),
    ("no command", exec::no_command),
    ("exit status", exec::exit_status_passes_through),
    ("our own exit status", exec::each_failure_has_its_status),
    ("the audit in the log", exec::the_collected_log_is_a_chain),
    ("stop", stop::the_table),
    ("zombies", stop::zombies),
    ("leaks", leaks::nowhere_but_in_the_environment),
    ("AWS credentials", aws::every_source),
    ("AWS refusals", aws::a_pinned_source_has_no_fallback),
    ("signals while fetching", aws::a_signal_while_it_fetches),
    ("a ConfigMap", shipped::a_policy_from_a_config_map),
    ("the shipped images", shipped::the_dockerfiles_build_and_run),
    ("Swarm", swarm::the_shipped_stack),
    ("supervised", supervised::as_strict_as_exec),
    ("supervised status", supervised::the_status_is_the_childs),
    ("supervised audit", supervised::the_end_is_written_down),
    ("restart on change", supervised::three_replicas_and_a_rotation),
];

#[test]
fn containers() {
    let Some(binary) = crate::empty_root::static_binary() else { return };
    let start = Instant::now();
    let Some(engine) = Engine::start(image::scene()) else { return };
    image::build(&engine, &binary);
    supervised::build(&engine);
    println!("\ncontainers: engine and images: {:.1} s", start.elapsed().as_secs_f64());
    // For work on some of them: `VOUCHSAFE_TEST_STEP=stop,zombies`.
    let only = std::env::var("VOUCHSAFE_TEST_STEP").unwrap_or_default();
    let is_wanted = |name: &str| only.split(',').any(|part| name.contains(part));
    let mut failed = Vec::new();
    for (name, step) in STEPS.iter().filter(|(name, _)| is_wanted(name)) {
        let start = Instant::now();
        if catch_unwind(AssertUnwindSafe(|| step(&engine))).is_err() {
            failed.push(*name);
        }
        println!("\ncontainers: {name}: {:.1} s", start.elapsed().as_secs_f64());
    }
    assert!(failed.is_empty(), "{failed:?}");
}
