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
    let mut shell = scene.other("sh", &["-eu", "-c", recipe]);
    // The logs are found as they are on a host, by what says where records go.
    shell.env("PATH", format!("{folder}:/usr/bin:/bin")).env("VOUCHSAFE_POLICY", scene.write_policy());
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
    let [check, rows, collector] = recipes().try_into().unwrap();
    let scene = Scene::with(&[("A", "1"), ("B", "2")]).grants("[[grants]]\nsecrets = [\"A\"]\nto = \"anyone\"\n");
    scene.verb(&["run", "--only", "A", "--", "true"]).expect_status(0);
    assert!(lines(&run(&scene, &rows, b"")).is_empty());
    assert_eq!(run(&scene, &check, b"").status.code(), Some(0));
    scene.verb(&["run", "--only", "B", "--", "true"]).expect_status(120);
    let seen = lines(&run(&scene, &rows, b""));
    assert_eq!(seen.len(), 1, "{seen:?}");
    let fields: Vec<&str> = seen[0].split('\t').collect();
    assert_eq!((fields.len(), fields[3], fields[4]), (6, "/usr/bin/true", "B"));
    assert_eq!(run(&scene, &check, b"").status.code(), Some(10));
    // Rotated a moment ago: it is in the log all the same. Neither there nor readable: no "nothing denied".
    let (log, rotated) = (scene.path("audit.jsonl"), scene.path("audit.jsonl.1"));
    std::fs::rename(&log, &rotated).unwrap();
    assert_eq!(run(&scene, &check, b"").status.code(), Some(10));
    scene.verb(&["run", "--only", "A", "--", "true"]).expect_status(0);
    assert_eq!(run(&scene, &check, b"").status.code(), Some(10));
    std::fs::rename(&rotated, scene.path("audit.jsonl.1.gz")).unwrap();
    assert_eq!(run(&scene, &check, b"").status.code(), Some(123), "it was packed within the hour");
    let packed = std::fs::File::options().write(true).open(scene.path("audit.jsonl.1.gz")).unwrap();
    packed.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(7200)).unwrap();
    assert_eq!(
        run(&scene, &check, b"").status.code(),
        Some(0),
        "what was packed earlier holds nothing of the last hour"
    );
    std::fs::remove_file(scene.path("audit.jsonl.1.gz")).unwrap();
    std::fs::remove_file(&log).unwrap();
    assert_eq!(run(&scene, &check, b"").status.code(), Some(123), "absent");
    std::fs::create_dir(&log).unwrap();
    assert_eq!(run(&scene, &check, b"").status.code(), Some(123), "unreadable");
    std::fs::remove_dir(&log).unwrap();
    std::fs::write(&log, "lines\nof another program\n").unwrap();
    assert_eq!(run(&scene, &check, b"").status.code(), Some(123), "no log");
    std::fs::remove_file(&log).unwrap();

    // A stream, as a collector gets it.
    let scene = scene.sinks("[[audit.sinks]]\ntype = \"stderr\"\n");
    let granted = scene.verb(&["run", "--only", "A", "--", "sh", "-c", "echo '{\"level\":\"info\"}' >&2; echo [1 >&2"]);
    let denied = scene.verb(&["run", "--only", "B", "--", "true"]).expect_status(120);
    let seen = lines(&run(&scene, &collector, &[granted.stderr, denied.stderr].concat()));
    assert_eq!(seen.len(), 1, "{seen:?}");
    let alert: serde_json::Value = serde_json::from_str(&seen[0]).unwrap();
    assert_eq!((&alert["secrets"][0], &alert["uid"]), (&"B".into(), &rustix::process::getuid().as_raw().into()));
}
