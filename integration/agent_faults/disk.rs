//! A full disk under the audit log: nothing is given, everybody is told, and it goes on when there is room again.

use vouchsafe::agent::protocol::reply::Refusal;

use super::{Usage, resolve, status, verdict};
use crate::agent_scene::{Agent, write_files};
use crate::full_disk::{fill, mounted_tmpfs};
use crate::harness::Scene;
use crate::have;

#[test]
fn while_the_log_has_no_room_everybody_is_refused_and_nobody_after() {
    if !have(&["mount", "umount"], true) {
        return;
    }
    let scene = Scene::with(&[("A", "hunter2")]);
    let disk = scene.path("log");
    // Dropped before the scene, and after the agent.
    let Some(_mounted) = mounted_tmpfs(&scene, &disk) else { return };
    write_files(&scene, "");
    let log = disk.join("agent.jsonl");
    let host = format!("[[audit.sinks]]\ntype = \"file\"\npath = \"{}\"\n", log.display());
    scene.write("host.toml", host.as_bytes());
    let socket = scene.path("agent.sock");
    let words = ["agent", "--policies", "served", "--host", "host.toml", "--socket", socket.to_str().unwrap()];
    let agent = Agent::spawn(&scene, scene.command(&words));
    let released = || {
        let text = std::fs::read_to_string(&log).unwrap();
        text.lines().filter(|line| line.contains("\"event\":\"access.released\"")).count()
    };
    for _ in 0..20 {
        resolve(&agent).unwrap();
    }
    let before = Usage::settled(&agent);
    for _ in 0..3 {
        let filler = fill(&disk);
        // What is left of the log's last page may take a record or two; then there is an end to it.
        let mut refused = 0;
        for _ in 0..200 {
            let (count, answer) = (released(), resolve(&agent));
            match answer {
                Ok(_) => assert_eq!((released(), refused), (count + 1, 0), "given, and not written down"),
                Err(Refusal::Failed { class, message, .. }) => {
                    assert_eq!(class, "audit");
                    assert!(message.contains("no space left"), "{message}");
                    refused += 1;
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        assert!(refused > 150, "{refused} were refused");
        let refusal = agent.run(&["--", "env"]).expect_status(123);
        assert!(!refusal.out().contains("hunter2"));
        assert_eq!(status(&agent)["unready"], "the last record of the audit could not be written");
        std::fs::remove_file(filler).unwrap();
        assert_eq!(agent.run(&["--", "printenv", "A"]).expect_status(0).out(), "hunter2\n");
        assert_eq!(status(&agent)["ready"], true);
    }
    Usage::returns(before, &agent, 2048);
    assert_eq!(agent.log().matches("\"audit.failed\"").count(), 3, "{}", agent.log());
    assert_eq!(verdict(&agent, &scene, log.to_str().unwrap()), "intact");
}
