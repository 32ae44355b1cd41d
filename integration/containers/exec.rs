//! `ENTRYPOINT ["vouchsafe", "run", ..., "--"]` in exec mode: it starts anywhere, becomes the command, and says with its exit
//! status what became of it.

use super::engine::Engine;
use super::image::{CANARY, PLAIN, PREFIXED, USER_FLAG, identity};
use crate::harness::Outcome;

/// The environment that `/app show` printed holds the secret, and it is PID 1.
fn became_the_command(outcome: Outcome) {
    let outcome = outcome.expect_status(0);
    let lines: Vec<&str> = outcome.out().lines().collect();
    assert!(lines.contains(&format!("DB_PASSWORD={CANARY}").as_str()), "{}", outcome.transcript());
    assert!(lines.contains(&"pid 1"), "{}", outcome.transcript());
    assert!(!outcome.out().contains("VOUCHSAFE_"), "{}", outcome.transcript());
}

pub fn any_user_any_restriction(engine: &Engine) {
    let identity = identity(engine);
    let alone: [&[&str]; 6] = [
        &[],
        &USER_FLAG,
        &["--read-only"],
        &["--cap-drop=ALL"],
        &["--security-opt=no-new-privileges"],
        &["--network=none"],
    ];
    for flags in alone {
        became_the_command(engine.run(&[flags, &[&identity]].concat(), PLAIN, &["/app", "show"]));
    }
    let mut all = alone.concat();
    all.extend([identity.as_str(), "--env=VOUCHSAFE_SERVICE=unused"]);
    became_the_command(engine.run(&all, PLAIN, &["/app", "show"]));
    // The restrictions were there, and reach the command.
    let status = engine.run(&all, PLAIN, &["/app", "cat", "/proc/self/status"]).expect_status(0);
    for line in ["Uid:\t65532\t65532\t65532\t65532", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"] {
        assert!(status.out().lines().any(|found| found == line), "{line}: {}", status.transcript());
    }
    // A grant that names the user and the command: nobody else, nothing else.
    let pinned = [&all[..], &["--entrypoint=/usr/local/bin/vouchsafe"]].concat();
    let words = |command| ["run", "--env", "prod", "--service", "pinned", "--", command, "show"];
    became_the_command(engine.run(&pinned, PLAIN, &words("/app")));
    engine.run(&pinned, PLAIN, &words("/usr/local/bin/vouchsafe")).expect_status(120);
    let root = ["--entrypoint=/usr/local/bin/vouchsafe", &identity];
    engine.run(&root, PLAIN, &words("/app")).expect_status(120);
}

pub fn in_front_of_an_entrypoint(engine: &Engine) {
    let identity = identity(engine);
    let outcome = engine.run(&[&identity], PREFIXED, &[]);
    assert!(outcome.out().starts_with("prepared for /app with a password\n"), "{}", outcome.transcript());
    became_the_command(outcome);
    // Arguments of `docker run` replace CMD, as they did before.
    let outcome = engine.run(&[&identity], PREFIXED, &["sh", "-c", "echo \"$0 $DB_PASSWORD\""]).expect_status(0);
    assert_eq!(outcome.out(), format!("prepared for sh with a password\nsh {CANARY}\n"));
}

pub fn no_command(engine: &Engine) {
    // What a prefix in a child image does to the CMD of its base.
    engine
        .derive("forgotten", &format!("FROM {PREFIXED}\nENTRYPOINT [\"/usr/local/bin/vouchsafe\", \"run\", \"--\"]\n"));
    let cmd = engine.ask(&["inspect", "--format={{json .Config.Cmd}}", "forgotten"]);
    assert_eq!(cmd, "null");
    let outcome = engine.run(&[], "forgotten", &[]).expect_status(2);
    assert!(outcome.err().contains("missing: `COMMAND`"), "{}", outcome.transcript());
    assert!(outcome.err().contains("write CMD again"), "{}", outcome.transcript());
    // The shell form needs a shell, which is not there.
    engine.derive("shell-form", &format!("FROM {PLAIN}\nENTRYPOINT /usr/local/bin/vouchsafe run -- /app show\n"));
    let outcome = engine.run(&[], "shell-form", &[]).expect_status(127);
    assert!(outcome.err().contains("/bin/sh"), "{}", outcome.transcript());
}

pub fn exit_status_passes_through(engine: &Engine) {
    let identity = identity(engine);
    for status in [0, 1, 7, 120, 125, 126, 127, 255] {
        engine.run(&[&identity], PLAIN, &["/app", "exit", &status.to_string()]).expect_status(status);
    }
    // A signal that even PID 1 cannot ignore: from the kernel for what it did, or KILL.
    engine.run(&[&identity], PLAIN, &["/app", "crash"]).expect_status(128 + libc::SIGSEGV);
    assert_eq!(engine.start_ready(&[&identity], PLAIN, &[]).kill("KILL"), 137);
}

pub fn each_failure_has_its_status(engine: &Engine) {
    let identity = identity(engine);
    let service = |name: &str| format!("--env=VOUCHSAFE_SERVICE={name}");
    let (denied, absent, lost, mute) = (service("denied"), service("absent"), service("lost"), service("mute"));
    let by_service = ["--entrypoint=/usr/local/bin/vouchsafe", &identity];
    let cases: [(&[&str], &str, i32, &str); 9] = [
        (&[&denied], "/app", 120, "error[denied]"),
        (&[&absent], "/app", 121, "error[policy]"),
        (&[&lost], "/app", 122, "error[store]"),
        (&[&mute], "/app", 123, "error[audit]"),
        (&["--volume=/dev/null:/run/secrets/prod-age:ro"], "/app", 124, "error[identity]"),
        (&["--env=DB_PASSWORD=x"], "/app", 125, "`DB_PASSWORD`"),
        (&["--env=DB_PASSWORD_FILE=/x"], "/app", 125, "`DB_PASSWORD_FILE`"),
        (&[], "/etc", 126, "it is a folder"),
        (&[], "/app2", 127, "was not found"),
    ];
    for (flags, command, status, word) in cases {
        let mut all = by_service.to_vec();
        if flags.iter().any(|flag| flag.ends_with("/run/secrets/prod-age:ro")) {
            all.pop();
        }
        let with_default = service("api");
        if !flags.iter().any(|flag| flag.contains("VOUCHSAFE_SERVICE")) {
            all.push(&with_default);
        }
        all.extend(flags);
        let outcome = engine.run(&all, PLAIN, &["run", "--env", "prod", "--", command, "show"]).expect_status(status);
        assert!(outcome.err().contains(word), "{}", outcome.transcript());
        assert!(!format!("{}{}", outcome.out(), outcome.err()).contains(CANARY), "{}", outcome.transcript());
    }
}

/// The log that the engine collects from standard error holds a chain that verifies, with the engine's own id of the container.
pub fn the_collected_log_is_a_chain(engine: &Engine) {
    let container = engine.start_ready(&[&USER_FLAG[..], &[&identity(engine)]].concat(), PLAIN, &[]);
    let log = engine.docker(&["logs", &container.name]).expect_status(0).err().to_owned();
    let lines: Vec<&str> = log.lines().filter(|line| line.starts_with('{')).collect();
    let events: Vec<serde_json::Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 2, "{log}");
    assert_eq!((&events[0]["event"], &events[1]["event"]), (&"access.requested".into(), &"access.released".into()));
    let id = container.inspect("{{.Id}}");
    assert_eq!(
        (&events[1]["actor"]["uid"], &events[1]["actor"]["container_id"]),
        (&65_532.into(), &id.as_str().into())
    );

    let collected = engine.scene.write("collected.jsonl", log.as_bytes()).display().to_string();
    engine.scene.vouchsafe(&["audit", "verify", &collected]).expect_status(0);
    let changed = log.replacen("65532", "65533", 1);
    let changed = engine.scene.write("changed.jsonl", changed.as_bytes()).display().to_string();
    engine.scene.vouchsafe(&["audit", "verify", &changed]).expect_status(11);
    let cut = engine.scene.write("cut.jsonl", lines[1].as_bytes()).display().to_string();
    engine.scene.vouchsafe(&["audit", "verify", &cut]).expect_status(12);
}
