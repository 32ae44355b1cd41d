//! SIGCHLD ignored by whoever starts us, as `trap '' CHLD` and some service managers leave it: the kernel then forgets how
//! children ended, unless we heed them. What we become finds it ignored, as we did. EXEC-2.

use std::ffi::OsString;
use std::fs::read_to_string;
use std::process::Stdio;

use crate::harness::{Outcome, Scene, VOUCHSAFE, wait};

const PROBE: [&str; 3] = ["grep", "^SigIgn", "/proc/self/status"];

/// The binary, started with SIGCHLD ignored.
pub fn ignoring(scene: &Scene, arguments: &[OsString]) -> Outcome {
    let words: Vec<OsString> = ["--ignore-signal=CHLD", VOUCHSAFE].map(OsString::from).into_iter().collect();
    let words = [&words, arguments].concat();
    let child = scene.other("env", &words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    scene.outcome(arguments, wait(child))
}

fn verb(scene: &Scene, words: &[&str]) -> Outcome {
    let mut line: Vec<OsString> = words.iter().map(OsString::from).collect();
    line.extend([OsString::from("--policy"), scene.write_policy().into()]);
    ignoring(scene, &line)
}

/// A scene whose log sends a checkpoint to a program at each record.
fn anchored(scene: Scene) -> Scene {
    let program = scene.write_mode(
        "anchor",
        format!(
            "#!/bin/sh\ngrep '^SigIgn' /proc/$$/status >>{0}\necho \"$VOUCHSAFE_CHECKPOINT\" >>{0}\n",
            scene.path("notes").display()
        )
        .as_bytes(),
        0o700,
    );
    let sinks = format!(
        "[[audit.sinks]]\ntype = \"file\"\npath = \"{}\"\nsync = false\ncheckpoints = {{ every = 1, to = [\"command:{}\"] }}\n",
        scene.path("audit.jsonl").display(),
        program.display()
    );
    scene.sinks(&sinks)
}

#[test]
fn a_program_is_waited_for_and_the_child_finds_what_the_caller_had() {
    for options in [&[][..], &["--supervise"]] {
        let scene = anchored(Scene::with(&[("A", "1")]));
        let direct = scene.other("env", &[&["--ignore-signal=CHLD"][..], &PROBE].concat()).output().unwrap();
        let direct = String::from_utf8(direct.stdout).unwrap();
        let mut line = scene.run_arguments(&PROBE);
        line.splice(1..1, options.iter().map(OsString::from));
        let outcome = ignoring(&scene, &line).expect_status(0);
        assert_eq!(outcome.out(), direct, "{options:?}");
        assert!(!scene.events().contains(&"audit.checkpoint_failed".into()), "{:?}", scene.events());
        let notes = read_to_string(scene.path("notes")).unwrap();
        assert_eq!(notes.matches("stream ").count(), scene.events().len(), "{notes}");
        // The operator's programs begin with nothing ignored.
        assert_eq!(notes.matches("SigIgn:\t0000000000000000\n").count(), scene.events().len(), "{notes}");
        // How the child ended is told, too.
        let mut line = scene.run_arguments(&["sh", "-c", "exit 7"]);
        line.splice(1..1, options.iter().map(OsString::from));
        ignoring(&scene, &line).expect_status(7);
        let record = scene.audit().into_iter().rfind(|record| record["event"] == "child.exited");
        assert_eq!(record.map(|record| record["child"]["status"] == 7), (!options.is_empty()).then_some(true));
    }
}

#[test]
fn a_rotation_waits_for_its_programs() {
    let scene = Scene::sealed(&[]);
    let at = |name: &str| scene.path(name).display().to_string();
    scene.write_mode("generate", b"#!/bin/sh\necho made-by-a-program\n", 0o700);
    let hook = format!("#!/bin/sh\necho $VOUCHSAFE_STEP >>{}\n", at("steps"));
    scene.write_mode("hook", hook.as_bytes(), 0o700);
    let failing = "#!/bin/sh\nexit 3\n";
    scene.write_mode("failing", failing.as_bytes(), 0o700);
    let policy = |hook: &str| {
        format!(
            "[secrets.A.rotate]\nevery = \"30d\"\ngenerate = {{ type = \"command\", program = \"{}\" }}\n\
             apply = {{ type = \"command\", program = \"{}\" }}\n",
            at("generate"),
            at(hook)
        )
    };
    let (good, bad) = (policy("hook"), policy("failing"));
    let scene = anchored(scene).policy(&good);
    scene.verb_reading(&["set", "A"], b"first").expect_status(0);
    verb(&scene, &["rotate", "A"]).expect_status(0);
    assert_eq!(scene.run(&["printenv", "A"]).expect_status(0).out(), "made-by-a-program\n");
    assert!(read_to_string(scene.path("steps")).unwrap().contains("apply\n"));
    // A status is a status: not a time-out, nor a success.
    let scene = scene.policy(&bad);
    let outcome = verb(&scene, &["rotate", "A"]);
    assert!(outcome.err().contains("status 3"), "{}", outcome.transcript());
    assert!(!scene.events().contains(&"audit.checkpoint_failed".into()), "{:?}", scene.events());
}
