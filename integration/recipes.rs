//! The recipes of `docs/audit.md`, run as they stand there.

use std::path::Path;
use std::process::{Output, Stdio};

use crate::harness::{Scene, VOUCHSAFE, wait};
use crate::have;

/// Blocks that begin with a line of three backticks and `sh recipe`.
fn recipes() -> Vec<String> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/audit.md")).unwrap();
    text.split("```sh recipe\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// Runs a recipe on the scene's log.
fn run(scene: &Scene, recipe: &str, input: &[u8]) -> Output {
    use std::io::Write;
    let folder = Path::new(VOUCHSAFE).parent().unwrap().display().to_string();
    let script = recipe.replace("/var/log/vouchsafe/*.jsonl", "audit.jsonl");
    let mut shell = scene.other("sh", &["-eu", "-c", &script]);
    shell.env("PATH", format!("{folder}:/usr/bin:/bin"));
    let mut child = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    wait(child)
}

fn lines(output: &Output) -> Vec<String> {
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn denied_accesses_raise_an_alert() {
    if !have(&["jq"], false) {
        return;
    }
    let [rows, check, collector] = recipes().try_into().unwrap();
    let scene = Scene::with(&[("A", "1"), ("B", "2")]).grants("[[grants]]\nsecrets = [\"A\"]\nto = \"anyone\"\n");
    scene.verb(&["run", "--only", "A", "--", "true"]).expect_status(0);
    assert!(lines(&run(&scene, &rows, b"")).is_empty());
    assert!(run(&scene, &check, b"").status.success());
    scene.verb(&["run", "--only", "B", "--", "true"]).expect_status(120);
    let seen = lines(&run(&scene, &rows, b""));
    assert_eq!(seen.len(), 1, "{seen:?}");
    let fields: Vec<&str> = seen[0].split('\t').collect();
    assert_eq!((fields.len(), fields[3], fields[4]), (6, "/usr/bin/true", "B"));
    assert!(!run(&scene, &check, b"").status.success());

    // A stream, as a collector gets it.
    let scene = scene.sinks("[[audit.sinks]]\ntype = \"stderr\"\n");
    let granted = scene.verb(&["run", "--only", "A", "--", "sh", "-c", "echo '{\"level\":\"info\"}' >&2; echo [1 >&2"]);
    let denied = scene.verb(&["run", "--only", "B", "--", "true"]).expect_status(120);
    let seen = lines(&run(&scene, &collector, &[granted.stderr, denied.stderr].concat()));
    assert_eq!(seen.len(), 1, "{seen:?}");
    let alert: serde_json::Value = serde_json::from_str(&seen[0]).unwrap();
    assert_eq!((&alert["secrets"][0], &alert["uid"]), (&"B".into(), &rustix::process::getuid().as_raw().into()));
}
