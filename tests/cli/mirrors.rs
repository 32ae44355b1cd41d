//! Mirrors: syslog and journald get the very lines of the log, and whatever they do, an access neither waits for them nor
//! fails by them, nor goes without a sink that counts.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;

use crate::agent_scene::Agent;
use crate::harness::{Scene, wait};

fn mirrored(scene: Scene, kind: &str, socket: &str) -> Scene {
    let (log, socket) = (scene.path("audit.jsonl"), scene.path(socket));
    let text = format!(
        "[[audit.sinks]]\ntype = \"file\"\npath = \"{}\"\nsync = false\n[[audit.sinks]]\ntype = \"{kind}\"\npath = \"{}\"\n",
        log.display(),
        socket.display()
    );
    scene.sinks(&text)
}

fn bind(scene: &Scene, name: &str) -> UnixDatagram {
    let socket = UnixDatagram::bind(scene.path(name)).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// Everything that has arrived.
fn received(socket: &UnixDatagram) -> Vec<String> {
    let mut messages = Vec::new();
    let mut buffer = vec![0; 1 << 18];
    while let Ok(count) = socket.recv(&mut buffer) {
        messages.push(String::from_utf8(buffer[..count].to_vec()).unwrap());
    }
    messages
}

/// What a message of syslog says, without its header.
fn text(message: &str) -> String {
    message.splitn(8, ' ').nth(7).unwrap().to_owned()
}

fn log(scene: &Scene, name: &str) -> Vec<String> {
    std::fs::read_to_string(scene.path(name)).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn syslog_has_what_the_log_has_and_the_child_nothing_of_it() {
    let plain = Scene::with(&[("TOKEN", "v4lue")]);
    let list = ["sh", "-c", "ls /proc/self/fd; echo $TOKEN"];
    let without = plain.run(&list).expect_status(0);
    let scene = mirrored(Scene::with(&[("TOKEN", "v4lue")]), "syslog", "log.sock");
    let socket = bind(&scene, "log.sock");
    let with = scene.run(&list).expect_status(0);
    assert_eq!((with.out(), with.err()), (without.out(), ""));
    // Whoever reads late reads all of it.
    let messages = received(&socket);
    assert_eq!(messages.iter().map(|message| text(message)).collect::<Vec<_>>(), log(&scene, "audit.jsonl"));
    assert_eq!(scene.events(), ["access.requested", "access.released"]);
    assert!(messages[0].contains(" access.requested - {") && !messages.concat().contains("v4lue"));
    // Taken out again, they are a log that verifies.
    let lines: String = messages.iter().map(|message| text(message) + "\n").collect();
    let copy = scene.write("copy.jsonl", lines.as_bytes());
    scene.vouchsafe(&["audit", "verify", copy.to_str().unwrap()]).expect_status(0);

    // What is denied is a warning, and what a supervisor and other commands write is there too.
    scene.verb(&["run", "--only", "NO", "--", "true"]).expect_status(120);
    assert!(received(&socket)[0].starts_with("<84>1 "));
    scene.verb(&["list"]).expect_status(0);
    scene.verb(&["run", "--supervise", "--", "true"]).expect_status(0);
    let events: Vec<String> =
        received(&socket).iter().map(|message| message.split(' ').nth(5).unwrap().to_owned()).collect();
    assert_eq!(events, ["secret.listed", "access.requested", "access.released", "child.exited"]);
}

#[test]
fn journald_has_the_line_and_fields_to_ask_by() {
    let scene = mirrored(Scene::with(&[("TOKEN", "v4lue")]), "journald", "journal.sock");
    let socket = bind(&scene, "journal.sock");
    scene.run(&["true"]).expect_status(0);
    let (entries, log) = (received(&socket), log(&scene, "audit.jsonl"));
    assert_eq!((entries.len(), log.len()), (2, 2));
    for (entry, line) in entries.iter().zip(&log) {
        assert!(entry.starts_with(&format!("MESSAGE={line}\nMESSAGE_ID=")), "{entry}");
        let uid = rustix::process::getuid().as_raw();
        for field in ["VOUCHSAFE_SECRET=TOKEN", "VOUCHSAFE_ENVIRONMENT=test", &format!("VOUCHSAFE_UID={uid}")] {
            assert!(entry.contains(&format!("\n{field}\n")), "{field}: {entry}");
        }
    }
}

#[test]
fn a_record_in_parts_is_mirrored_part_by_part() {
    let names: Vec<String> = (0..100).map(|number| format!("A_SECRET_WITH_A_LONG_NAME_{number:04}")).collect();
    let values: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v4lue")).collect();
    let scene = Scene::with(&values);
    let path = scene.path("log.sock");
    let mirror = format!("[[audit.sinks]]\ntype = \"syslog\"\npath = \"{}\"\n", path.display());
    let scene = scene.sinks(&format!("{mirror}[[audit.sinks]]\ntype = \"stderr\"\n"));
    let socket = bind(&scene, "log.sock");
    let outcome = scene.run(&["true"]).expect_status(0);
    let messages: Vec<String> = received(&socket).iter().map(|message| text(message)).collect();
    assert!(messages.len() > 3 && messages.iter().any(|line| line.contains("\"part\":2,")), "{messages:?}");
    assert_eq!(messages, outcome.err().lines().collect::<Vec<_>>());
}

/// Runs a child with a mirror that does not work; the child runs, and one warning says why.
#[track_caller]
fn runs_with_one_warning(scene: &Scene, why: &str) {
    let outcome = scene.run(&["echo", "ran"]).expect_status(0);
    assert_eq!(outcome.out(), "ran\n");
    assert_eq!(outcome.err().lines().count(), 1, "{}", outcome.err());
    let expected = format!(
        "vouchsafe: warning: audit records are not mirrored to syslog `{}`: ",
        scene.path("log.sock").display()
    );
    assert!(outcome.err().starts_with(&expected) && outcome.err().contains(why), "{}", outcome.err());
    scene.vouchsafe(&["audit", "verify", "audit.jsonl"]).expect_status(0);
}

#[test]
fn a_dead_mirror_is_a_warning() {
    let scene = mirrored(Scene::with(&[("TOKEN", "x")]), "syslog", "log.sock");
    runs_with_one_warning(&scene, "no such file");
    drop(bind(&scene, "log.sock"));
    runs_with_one_warning(&scene, "connection refused");
    std::fs::remove_file(scene.path("log.sock")).unwrap();
    scene.write("log.sock", b"");
    runs_with_one_warning(&scene, "");
    assert_eq!(scene.events().len(), 6);
    assert_eq!(std::fs::read(scene.path("log.sock")).unwrap(), b"");
}

#[test]
fn a_full_mirror_is_a_warning() {
    let scene = mirrored(Scene::with(&[("TOKEN", "x")]), "syslog", "log.sock");
    let socket = bind(&scene, "log.sock");
    // Until even one that has sent nothing yet finds no room.
    let mut senders = Vec::new();
    loop {
        let sender = UnixDatagram::unbound().unwrap();
        sender.set_nonblocking(true).unwrap();
        let first = sender.send_to(b"x", scene.path("log.sock"));
        if first.is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
            break;
        }
        while sender.send_to(b"x", scene.path("log.sock")).is_ok() {}
        senders.push(sender);
    }
    runs_with_one_warning(&scene, "its queue is full");
    assert!(received(&socket).iter().all(|message| message == "x"));
}

#[test]
fn mirrors_alone_are_refused_and_a_sink_that_counts_is_never_made_up_for() {
    let scene = mirrored(Scene::with(&[("TOKEN", "x")]), "syslog", "log.sock");
    let socket = bind(&scene, "log.sock");
    std::fs::create_dir(scene.path("audit.jsonl")).unwrap();
    let outcome = scene.run(&["echo", "ran"]).expect_status(123);
    assert_eq!((outcome.out(), received(&socket)), ("", vec![]));

    let path = scene.path("log.sock");
    let scene = scene.sinks(&format!("[[audit.sinks]]\ntype = \"journald\"\npath = \"{}\"\n", path.display()));
    let outcome = scene.run(&["echo", "ran"]).expect_status(121);
    assert!(outcome.err().contains("mirrors only") && outcome.err().contains("hint: add: "), "{}", outcome.err());
    let policy = scene.write_policy();
    scene.vouchsafe(&[Path::new("policy"), Path::new("lint"), &policy]).expect_status(121);
    scene.write("host.toml", b"[[audit.sinks]]\ntype = \"syslog\"\n");
    let line = ["agent", "--policies", ".", "--host", "host.toml", "--socket", "agent.sock"];
    let outcome = scene.vouchsafe(&line).expect_status(121);
    assert!(outcome.err().contains("mirrors only"), "{}", outcome.err());
}

#[test]
fn the_agent_finds_a_mirror_that_was_started_again_and_says_how_much_it_lacks() {
    let scene = Scene::with(&[("TOKEN", "x")]);
    let path = scene.path("log.sock");
    let socket = bind(&scene, "log.sock");
    let host = format!("[[audit.sinks]]\ntype = \"syslog\"\npath = \"{}\"\n", path.display());
    let agent = Agent::start_with(&scene, &host, &[]);
    agent.run(&["--", "true"]).expect_status(0);
    let before = received(&socket);
    assert_eq!(before.iter().map(|message| text(message)).collect::<Vec<_>>(), log(&scene, "agent.jsonl"));
    let lost_so_far = || {
        let status: serde_json::Value = serde_json::from_str(agent.ask("status", &["--json"]).out()).unwrap();
        status["records_not_mirrored"].as_u64().unwrap()
    };
    assert_eq!(lost_so_far(), 0);

    drop(socket);
    std::fs::remove_file(&path).unwrap();
    let written = log(&scene, "agent.jsonl").len();
    for _ in 0..3 {
        agent.run(&["--", "true"]).expect_status(0);
    }
    assert_eq!(lost_so_far(), (log(&scene, "agent.jsonl").len() - written) as u64);
    let said = |event: &str| {
        let log = agent.log();
        log.lines().filter(|line| line.contains(event)).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!((said("\"mirror.fails\"").len(), said("\"mirror.works\"").len()), (1, 0));

    // Another daemon in its place. It is tried again once in a second, so some more may be lost.
    let socket = bind(&scene, "log.sock");
    let messages = loop {
        agent.run(&["--", "true"]).expect_status(0);
        let messages = received(&socket);
        if !messages.is_empty() {
            break messages;
        }
    };
    let lost = lost_so_far();
    assert_eq!(text(&messages[0]), format!("not mirrored before the next one: {lost} audit records"));
    assert!(messages[0].contains(" mirror.lost - "));
    let log = log(&scene, "agent.jsonl");
    let next: Vec<String> = messages[1..].iter().map(|message| text(message)).collect();
    let at = written + usize::try_from(lost).unwrap();
    assert_eq!(next, log[at..at + next.len()]);
    let status = agent.ask("status", &[]);
    assert!(status.out().contains(&format!("\nnot mirrored {lost} records of the audit\n")), "{}", status.out());
    assert!(said("\"mirror.works\"")[0].contains(&format!("\"lost\":{lost}")), "{}", agent.log());
    agent.end();
    let last = received(&socket).pop().unwrap();
    assert!(last.contains(" agent.stopped - "), "{last}");
}

#[test]
fn a_warning_that_nobody_reads_holds_nothing_up() {
    let scene = mirrored(Scene::with(&[("TOKEN", "x")]), "syslog", "log.sock");
    let (reader, mut writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while std::io::Write::write(&mut writer, &[b'x'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    let mut command = scene.command(&scene.run_arguments(&["echo", "ran"]));
    let child = command.stdout(Stdio::piped()).stderr(writer).spawn().unwrap();
    drop(command);
    let output = wait(child);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"ran\n"[..]));
    drop(reader);
}
