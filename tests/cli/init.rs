//! `init`: what it prints next works word for word, with the modes that the checks want, and nothing is written over.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::harness::{Outcome, Scene, VOUCHSAFE};

/// A scene with a home of its own, and the options that keep root's files in it too.
struct Home {
    scene: Scene,
    options: Vec<String>,
    identity: PathBuf,
    log: PathBuf,
}

fn home() -> Home {
    let scene = Scene::new();
    let folder = scene.path("home");
    std::fs::create_dir(&folder).unwrap();
    let scene = scene.variable("HOME", &folder);
    let at = |name: &str| folder.join(name);
    let uid = rustix::process::getuid().as_raw();
    if rustix::process::geteuid().is_root() {
        // Root's own places are below /etc and /var.
        let (identity, log) = (at("keys/dev.key"), at("log/{uid}.jsonl"));
        let options = ["--identity".into(), identity.display().to_string(), "--log".into(), log.display().to_string()];
        Home { scene, options: options.into(), identity, log: at(&format!("log/{uid}.jsonl")) }
    } else {
        let (identity, log) = (at(".config/vouchsafe/dev.key"), at(&format!(".local/state/vouchsafe/{uid}.jsonl")));
        Home { scene, options: Vec::new(), identity, log }
    }
}

impl Home {
    fn init(&self, words: &[&str], status: i32) -> Outcome {
        let line: Vec<String> = std::iter::once("init")
            .chain(words.iter().copied())
            .map(str::to_owned)
            .chain(self.options.iter().cloned())
            .collect();
        self.scene.vouchsafe(&line).expect_status(status)
    }

    /// Runs a line of a shell that has the binary in its PATH.
    fn shell(&self, line: &str) -> std::process::Output {
        let folder = std::path::Path::new(VOUCHSAFE).parent().unwrap().display().to_string();
        let mut shell = self.scene.other("sh", &["-c", line]);
        shell.env("PATH", format!("{folder}:/usr/bin:/bin")).output().unwrap()
    }
}

fn mode(path: &std::path::Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn next_steps(outcome: &Outcome) -> Vec<String> {
    let steps = outcome.out().lines().filter_map(|line| line.strip_prefix("  vouchsafe "));
    steps.map(|rest| format!("vouchsafe {rest}")).collect()
}

#[test]
fn the_printed_steps_work_word_for_word() {
    for folder in [".", "with a space, 'quotes' and \"more\"", "été"] {
        for words in [&[][..], &["--env", "prod", "--service", "api"]] {
            let home = home();
            std::fs::create_dir_all(home.scene.path(folder)).unwrap();
            let outcome = home.init(&[&[folder], words].concat(), 0);
            let steps = next_steps(&outcome);
            assert_eq!(steps.len(), 2, "{}", outcome.out());
            for step in &steps {
                let done = home.shell(step);
                assert!(done.status.success(), "{step}: {}", String::from_utf8_lossy(&done.stderr));
                assert!(step.contains("set") || done.stdout.len() == 44, "{step}: a value of 43 characters");
            }
            let log = home.log.to_str().unwrap();
            home.scene.vouchsafe(&["audit", "verify", log]).expect_status(0);
        }
    }
}

#[test]
fn what_it_writes_is_for_its_owner() {
    let home = home();
    let outcome = home.init(&["."], 0);
    assert!(!outcome.out().contains("AGE-SECRET-KEY"));
    let scene = &home.scene;
    assert_eq!(mode(&home.identity), 0o600);
    for folder in [home.identity.parent(), home.log.parent()] {
        assert_eq!(mode(folder.unwrap()), 0o700, "{folder:?}");
    }
    assert_eq!(mode(&scene.path("policies")), 0o700);
    assert_eq!(mode(&scene.path("policies/dev.toml")), 0o644);
    assert_eq!(mode(&scene.path("secrets/dev.age")) & 0o022, 0);
    let key = std::fs::read_to_string(&home.identity).unwrap();
    assert_eq!(key.matches("AGE-SECRET-KEY-1").count(), 1);
    for file in ["policies/dev.toml", "secrets/dev.age"] {
        assert!(!std::fs::read_to_string(scene.path(file)).unwrap().contains("AGE-SECRET-KEY"));
    }
    scene.vouchsafe(&["policy", "lint", "policies/dev.toml"]).expect_status(0);
    scene.vouchsafe(&["check", "--policy", "policies/dev.toml"]).expect_status(10);
}

#[test]
fn nothing_is_written_over() {
    let home = home();
    home.init(&["."], 0);
    let files = ["policies/dev.toml", "secrets/dev.age"].map(|name| home.scene.path(name));
    let files = [&files[0], &files[1], &home.identity];
    let before = files.map(|file| std::fs::read(file).unwrap());
    let again = home.init(&["."], 2);
    assert!(again.err().contains("policies/dev.toml` exists; nothing was written\nhint: "), "{}", again.err());
    std::fs::create_dir(home.scene.path("elsewhere")).unwrap();
    let elsewhere = home.init(&["elsewhere"], 2);
    assert!(elsewhere.err().contains("hint: another place for the new one: --identity FILE"), "{}", elsewhere.err());
    assert!(!home.scene.path("elsewhere/policies").exists());
    assert_eq!(before, files.map(|file| std::fs::read(file).unwrap()));
}

#[test]
fn without_a_home_the_options_say_where() {
    let scene = Scene::new();
    if !rustix::process::geteuid().is_root() {
        let outcome = scene.vouchsafe(&["init"]).expect_status(2);
        assert!(outcome.err().contains("hint: vouchsafe init --identity FILE --log FILE"), "{}", outcome.err());
        scene.vouchsafe(&["init", "--identity", "key"]).expect_status(2);
    }
    assert!(!scene.path("policies").exists());
    scene.vouchsafe(&["init", "--identity", "own/key", "--log", "own/{uid}.jsonl"]).expect_status(0);
    let set = ["set", "EXAMPLE_TOKEN", "--generate", "--policy", "policies/dev.toml"];
    scene.vouchsafe(&set).expect_status(0);
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let home = home();
    let outcome = home.init(&["no/such/folder"], 2);
    assert!(outcome.err().contains("`no/such/folder`: no such file or directory"), "{}", outcome.err());
    assert!(!home.identity.exists());
}
