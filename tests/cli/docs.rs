//! The documents say what the code does: the table of exit statuses, the sample policies, the commands of the README.

use std::path::{Path, PathBuf};

use vouchsafe::error::Class;

use crate::harness::{Scene, VOUCHSAFE};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn the_table_of_exit_statuses_is_that_of_the_code() {
    let text = std::fs::read_to_string(repository("docs/exit-status.md")).unwrap();
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| status")).collect();
    let expected: Vec<String> = Class::ALL
        .iter()
        .map(|class| format!("| {} | `{}` | {} |", class.status(), class.word(), class.meaning()))
        .collect();
    assert_eq!(rows, expected);
}

/// As they lie in a fresh checkout, whatever the umask was here.
fn copy_of(folder: &str) -> Scene {
    let scene = Scene::new();
    for entry in std::fs::read_dir(repository(folder)).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
            scene.write(&name, &std::fs::read(entry.path()).unwrap());
        }
    }
    scene
}

#[test]
fn the_sample_policies_give_what_their_tables_expect() {
    let scene = copy_of("policies");
    let outcome = scene.vouchsafe(&["policy", "test", "policies/prod.toml"]).expect_status(0);
    assert_eq!(outcome.out(), "policies/prod.toml: ok, 16 verdicts\n");
    // Not because nothing is looked at.
    let text = std::fs::read_to_string(scene.path("policies/prod.toml")).unwrap();
    let wider = text.replace("secrets = [\"DATABASE_URL\"]", "secrets = [\"*\"]");
    assert_ne!(wider, text);
    scene.write("policies/prod.toml", wider.as_bytes());
    let outcome = scene.vouchsafe(&["policy", "test", "policies/prod.toml"]).expect_status(13);
    assert!(outcome.out().contains("3 of 16 verdicts not as expected"), "{}", outcome.transcript());
}

#[test]
fn every_sample_policy_passes_lint() {
    let scene = copy_of("policies");
    let home = scene.path("home");
    let scene = scene.variable("HOME", home);
    let is_root = rustix::process::geteuid().is_root();
    let mut seen = 0;
    for entry in std::fs::read_dir(scene.path("policies")).unwrap().map(Result::unwrap) {
        let name = format!("policies/{}", entry.file_name().to_string_lossy());
        if !name.ends_with(".toml") {
            continue;
        }
        seen += 1;
        let outcome = scene.vouchsafe(&["policy", "lint", &name]);
        if is_root && name.ends_with("/dev.toml") {
            // For root, `~/` means nothing: a policy that says it is a user's own.
            assert!(outcome.expect_status(121).err().contains("`~/`"));
        } else if name.ends_with("/base.toml") {
            // A base speaks for no environment: by itself it is no policy.
            assert!(outcome.expect_status(121).err().contains("this is a base"));
        } else {
            outcome.expect_status(0);
        }
    }
    assert!(seen >= 5, "{seen} policies");
}

#[test]
fn the_demo_works_as_its_page_says() {
    let page = std::fs::read_to_string(repository("policies/README.md")).unwrap();
    let identity = page.split("VOUCHSAFE_AGE_IDENTITY=").nth(1).unwrap().lines().next().unwrap();
    let scene = copy_of("policies").variable("VOUCHSAFE_AGE_IDENTITY", identity);
    let line = ["run", "--policy", "policies/demo.toml", "--", "printenv", "API_URL"];
    let outcome = scene.vouchsafe(&line).expect_status(0);
    assert!(
        outcome.out().starts_with("https://") && outcome.out().ends_with("@api.example.com/\n"),
        "{}",
        outcome.out()
    );
}

/// Blocks that begin with a line of three backticks and `sh test`: all in one shell, in order, in a copy of what they may
/// name. A comment that begins with `# prints ` gives the end of what is printed so far.
#[test]
fn the_commands_of_the_readme_run() {
    let text = std::fs::read_to_string(repository("README.md")).unwrap();
    let script = tested_blocks(&text);
    assert!(script.contains("vouchsafe") || script.contains("cargo run"), "no block of the README is run");
    let scene = copy_of("policies");
    let folder = Path::new(VOUCHSAFE).parent().unwrap().display().to_string();
    let home = scene.path("home");
    std::fs::create_dir(&home).unwrap();
    // What cargo would build is built already, and cargo itself must not run within its own tests.
    let cargo =
        format!("#!/bin/sh\n[ \"$1 $2 $3\" = 'run --quiet --' ] || exit 99\nshift 3\nexec {VOUCHSAFE} \"$@\"\n");
    scene.write_mode("bin/cargo", cargo.as_bytes(), 0o755);
    let shims = scene.path("bin").display().to_string();
    let mut shell = scene.other("sh", &["-eu", "-c", &script]);
    let output = shell.env("PATH", format!("{shims}:{folder}:/usr/bin:/bin")).env("HOME", &home).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{script}\n{stdout}\n{}", String::from_utf8_lossy(&output.stderr));
    for line in script.lines().filter_map(|line| line.trim().strip_prefix("# prints ")) {
        assert!(stdout.lines().any(|printed| printed == line), "`{line}` is not printed:\n{stdout}");
    }
}

fn tested_blocks(text: &str) -> String {
    let mut script = String::new();
    let mut is_inside = false;
    for line in text.lines() {
        match line {
            "```sh test" => is_inside = true,
            "```" => is_inside = false,
            line if is_inside => {
                script.push_str(line);
                script.push('\n');
            }
            _ => {}
        }
    }
    script
}

#[test]
fn only_marked_blocks_are_run() {
    let text = "text\n```sh test\necho 1\n```\n```sh\nexit 1\n```\n```sh test\necho 2\n```\n";
    assert_eq!(tested_blocks(text), "echo 1\necho 2\n");
}
