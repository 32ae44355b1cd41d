//! Where a secret is not: what the engine knows, keeps, shows and copies. Beside it a variable given by `docker run --env`, which
//! is in all these places: so the search finds what there is to find.

use std::process::Command;

use base64::Engine as _;

use super::engine::Engine;
use super::image::{CANARY, PLAIN, USER_FLAG, identity};

/// A variable of the container's configuration.
const CONTROL: &str = "control-of-a-container-93ab";

/// As it is, and as it may have been encoded on its way.
fn forms(value: &str) -> [String; 3] {
    let hex = value.bytes().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    // Without the end, which depends on what follows.
    let base64 = base64::prelude::BASE64_STANDARD.encode(&value[..value.len() / 3 * 3]);
    [value.to_owned(), base64, hex]
}

fn is_in(value: &str, text: &str) -> bool {
    forms(value).iter().any(|form| text.contains(form.as_str()))
}

/// The files below the engine's folder, image archives too, that hold it.
fn files_with(engine: &Engine, value: &str) -> String {
    let mut command = Command::new("grep");
    command.args(["--recursive", "--text", "--fixed-strings", "--files-with-matches"]);
    for form in forms(value) {
        command.args(["-e", &form]);
    }
    let folders = ["data", "exec", "archives"].map(|name| engine.scene.path(name));
    let output = command.args(folders).output().unwrap();
    // 2 is an error, such as a socket that cannot be read.
    assert!(output.status.code().is_some_and(|code| code < 2), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub fn nowhere_but_in_the_environment(engine: &Engine) {
    let control = format!("--env=CONTROL={CONTROL}");
    let identity = identity(engine);
    let flags = [&USER_FLAG[..], &[&identity, &control]].concat();
    let container = engine.start_ready(&flags, PLAIN, &["/app", "wait"]);
    let name = container.name.as_str();

    // Where it is: otherwise none of what follows means anything.
    let environ = container.environ();
    assert!(environ.contains(&format!("DB_PASSWORD={CANARY}\0")) && environ.contains(CONTROL), "{environ}");

    let archives = engine.folder("archives");
    let archive = |name: &str| archives.join(name).display().to_string();
    engine.ask(&["commit", name, "committed"]);
    engine.ask(&["save", "--output", &archive("image.tar"), "committed"]);
    engine.ask(&["export", "--output", &archive("container.tar"), name]);
    let seen = [
        ("inspect", engine.ask(&["inspect", name]), true),
        ("inspect the image", engine.ask(&["image", "inspect", "committed"]), true),
        ("exec", engine.ask(&["exec", name, "/app", "show"]), true),
        ("history", engine.ask(&["history", "--no-trunc", "committed"]), false),
        ("top", engine.ask(&["top", name, "-o", "pid,args"]), false),
        ("events", engine.ask(&["events", "--since", "1h", "--until", "0s"]), false),
        ("diff", engine.ask(&["diff", name]), false),
    ];
    for (place, text, has_control) in &seen {
        assert!(!is_in(CANARY, text), "{place}: {text}");
        assert_eq!(is_in(CONTROL, text), *has_control, "{place}: {text}");
    }
    assert!(seen[2].1.contains("pid "), "{}", seen[2].1);
    let logs = engine.docker(&["logs", name]).expect_status(0);
    assert!(logs.out().contains("ready") && logs.err().contains("access.released"), "{}", logs.transcript());
    assert!(!is_in(CANARY, logs.out()) && !is_in(CANARY, logs.err()), "{}", logs.transcript());
    // It wrote nothing at all into its layer.
    let own: Vec<&str> =
        seen[6].1.lines().filter(|line| !line.ends_with(" /run") && !line.contains("/run/secrets")).collect();
    assert!(own.is_empty(), "{own:?}");

    assert_eq!(files_with(engine, CANARY), "");
    let found = files_with(engine, CONTROL);
    assert!(found.contains("/config.v2.json") && found.contains("image.tar"), "{found}");

    // Who looks in by `docker exec` gets a secret as the service does: by the prefix, and written down.
    let prefix = ["exec", name, "/usr/local/bin/vouchsafe", "run", "--env", "prod", "--service", "api", "--"];
    let prefixed = engine.docker(&[&prefix[..], &["/app", "show"]].concat()).expect_status(0);
    assert!(prefixed.out().contains(CANARY) && prefixed.err().contains("access.released"), "{}", prefixed.transcript());
}
