//! The real logrotate on the log, while runs write to it: by rename nothing is ever lost, and what `copytruncate` loses is found.

use std::path::PathBuf;
use std::sync::mpsc;

use crate::harness::Scene;
use crate::have;

const SBIN: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A log that is rotated, and runs that go on meanwhile.
struct Rotated {
    scene: Scene,
    configuration: PathBuf,
}

impl Rotated {
    /// `rules` are what stands between the braces of logrotate's configuration.
    fn new(rules: &str) -> Self {
        let scene = Scene::with(&[("TOKEN", "x")]);
        std::fs::create_dir(scene.path("log")).unwrap();
        std::fs::set_permissions(scene.path("log"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let log = scene.path("log/audit.jsonl");
        let scene =
            scene.sinks(&format!("[[audit.sinks]]\ntype = \"file\"\npath = \"{}\"\nsync = false\n", log.display()));
        let text = format!("{} {{\n{rules}\n}}\n", scene.path("log").join("*.jsonl").display());
        let configuration = scene.write("logrotate.conf", text.as_bytes());
        scene.run(&["true"]).expect_status(0);
        Self { scene, configuration }
    }

    /// As the timer does; its own state is the test's.
    fn rotate(&self) {
        let state = self.scene.path("logrotate.state");
        let words = ["-f", "-s", state.to_str().unwrap(), self.configuration.to_str().unwrap()];
        let output = self.scene.other("logrotate", &words).env("PATH", SBIN).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        // That a file is there again, which a run made in between, is what it says of `create`.
        assert!(output.status.success() || said.contains("already exists, renaming"), "{said}");
        // Another one like it within the hour would take its name.
        for path in self.files() {
            if path.extension().is_some_and(|end| end == "backup") {
                let first = first_seq(&path);
                std::fs::rename(&path, path.with_file_name(format!("audit.jsonl-kept-{first}"))).unwrap();
            }
        }
    }

    /// Rotates again and again while runs write. After each rotation some run begins and ends.
    fn rotate_among_runs(&self, times: usize) {
        let line = self.scene.run_arguments(&["true"]);
        let (ended, runs) = mpsc::channel();
        let (stop, stopped) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while let Err(mpsc::TryRecvError::Empty) = stopped.try_recv() {
                    let status = self.scene.command(&line).status().unwrap();
                    ended.send(status.code()).unwrap_or_default();
                }
            });
            for _ in 0..times {
                self.rotate();
                while runs.try_recv().is_ok() {}
                // Of two that end from now on, one began since.
                assert_eq!([runs.recv().unwrap(), runs.recv().unwrap()], [Some(0), Some(0)]);
            }
            drop(stop);
        });
    }

    /// The logs, oldest first: by their first records, whatever they are called.
    fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.scene.path("log")).unwrap();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| !path.to_str().unwrap().ends_with(".head") && std::fs::metadata(path).unwrap().len() > 0);
        files.sort_by_key(|path| first_seq(path));
        files
    }

    /// `audit verify` of all of them.
    fn verified(&self, status: i32) -> serde_json::Value {
        let mut words: Vec<std::ffi::OsString> = ["audit", "verify", "--json"].map(Into::into).into();
        words.extend(self.files().into_iter().map(Into::into));
        serde_json::from_str(self.scene.vouchsafe(&words).expect_status(status).out()).unwrap()
    }

    fn records(&self) -> Vec<serde_json::Value> {
        let text: Vec<String> = self.files().iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
        text.concat().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

fn first_seq(path: &std::path::Path) -> u64 {
    let text = std::fs::read_to_string(path).unwrap();
    serde_json::from_str::<serde_json::Value>(text.lines().next().unwrap()).unwrap()["seq"].as_u64().unwrap()
}

/// Every record is there and nothing was noticed.
fn assert_whole(rotated: &Rotated) {
    let report = rotated.verified(0);
    assert_eq!((&report["state"], &report["discontinuities"]), (&"intact".into(), &0.into()), "{report:#}");
    let records = rotated.records();
    assert_eq!(records.last().unwrap()["seq"], records.len());
}

#[test]
fn by_rename_the_chain_runs_on_across_all_files() {
    if !have(&["sh"], true) || !have_logrotate() {
        return;
    }
    // As it is shipped.
    let shipped =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/logrotate.d/vouchsafe")).unwrap();
    let (_, rules) = shipped.split_once("/var/log/vouchsafe/*.jsonl /var/log/vouchsafe/*/*.jsonl {").unwrap();
    let rotated = Rotated::new(rules.split('}').next().unwrap());
    rotated.rotate_among_runs(4);
    assert_eq!(rotated.files().len(), 5);
    assert_whole(&rotated);
    // `who-has` finds them all by itself.
    let found = rotated.scene.verb(&["audit", "who-has", "TOKEN", "--json"]).expect_status(0);
    let found: serde_json::Value = serde_json::from_str(found.out()).unwrap();
    assert!(found.to_string().contains("TOKEN"), "{found:#}");

    let rotated = Rotated::new("rotate 10\ncreate 0600\ncompress\ndelaycompress");
    rotated.rotate_among_runs(1);
    assert_whole(&rotated);
}

#[test]
fn the_agent_writes_on_in_a_new_file() {
    if !have(&["sh"], true) || !have_logrotate() {
        return;
    }
    use crate::agent_scene::Agent;
    let scene = Scene::with(&[("TOKEN", "x")]);
    let agent = Agent::start(&scene);
    let log = scene.path("agent.jsonl");
    let text = format!("{} {{\nrotate 10\nnocreate\n}}\n", log.display());
    let configuration = scene.write("logrotate.conf", text.as_bytes());
    let state = scene.path("logrotate.state");
    let words = ["-f", "-s", state.to_str().unwrap(), configuration.to_str().unwrap()];
    for _ in 0..2 {
        agent.run(&["--", "true"]).expect_status(0);
        let output = scene.other("logrotate", &words).env("PATH", SBIN).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(!log.exists());
    }
    agent.run(&["--", "true"]).expect_status(0);
    let files = ["agent.jsonl.2", "agent.jsonl.1", "agent.jsonl"];
    let outcome = scene.vouchsafe(&[&["audit", "verify", "--json"][..], &files].concat()).expect_status(0);
    let report: serde_json::Value = serde_json::from_str(outcome.out()).unwrap();
    assert_eq!((&report["state"], &report["discontinuities"]), (&"intact".into(), &0.into()), "{report:#}");
}

#[test]
fn what_copytruncate_loses_is_found() {
    if !have(&["sh"], true) || !have_logrotate() {
        return;
    }
    // Nobody writes: nothing is lost, and the next writer says that a log was cut.
    let rotated = Rotated::new("rotate 10\ncopytruncate");
    rotated.rotate();
    rotated.scene.run(&["true"]).expect_status(0);
    let report = rotated.verified(0);
    assert_eq!((&report["state"], &report["discontinuities"]), (&"intact".into(), &1.into()), "{report:#}");
    assert_eq!(rotated.records()[2]["event"], "audit.discontinuity");

    // Runs write: whatever is missing is found missing, and nothing that is there is doubted.
    let rotated = Rotated::new("rotate 10\ncopytruncate");
    rotated.rotate_among_runs(3);
    let records = rotated.records();
    let missing = records.last().unwrap()["seq"].as_u64().unwrap() - records.len() as u64;
    let report = rotated.verified(if missing == 0 { 0 } else { 12 });
    assert_eq!(report["state"], if missing == 0 { "intact" } else { "incomplete" }, "{report:#}");

    // A run between its copy and its cut, which are these two calls.
    let rotated = Rotated::new("rotate 10\ncopytruncate");
    let (log, copy) = (rotated.scene.path("log/audit.jsonl"), rotated.scene.path("log/audit.jsonl.1"));
    std::fs::copy(&log, &copy).unwrap();
    rotated.scene.run(&["true"]).expect_status(0);
    std::fs::File::options().write(true).open(&log).unwrap().set_len(0).unwrap();
    rotated.scene.run(&["true"]).expect_status(0);
    let report = rotated.verified(12);
    assert_eq!(report["state"], "incomplete", "{report:#}");
    assert!(report.to_string().contains("3 to 4"), "{report:#}");
}

fn have_logrotate() -> bool {
    let is_there = std::path::Path::new("/usr/sbin/logrotate").exists();
    if !is_there {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        println!("\nSKIPPED: {test} (needs logrotate)");
    }
    is_there
}
