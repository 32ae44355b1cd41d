//! Mirrors by the daemons that they are for: a journald and an rsyslogd of the test's own, in folders of its own.

use std::io::BufRead;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Outcome, Scene, VOUCHSAFE, wait};
use crate::have;

/// No daemon takes longer for anything, or it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

const JOURNALD: &str = "/lib/systemd/systemd-journald";
const RSYSLOGD: &str = "/usr/sbin/rsyslogd";

/// Ends when dropped.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap_or_default();
        self.0.wait().unwrap();
    }
}

/// Whether a daemon that is in nobody's PATH is there; says loudly if not.
fn have_daemon(path: &str) -> bool {
    let is_there = std::path::Path::new(path).exists();
    if !is_there {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        println!("\nSKIPPED: {test} (needs {path})");
    }
    is_there
}

/// A journald in a mount namespace with a /run of its own, of which the scene's folder has the sockets and the journal.
fn journald(scene: &Scene) -> Daemon {
    let notify = scene.path("notify.sock");
    std::fs::remove_file(&notify).unwrap_or_default();
    let told = UnixDatagram::bind(&notify).unwrap();
    told.set_read_timeout(Some(PATIENCE)).unwrap();
    let script = "set -e
        mkdir -p \"$0/journal\" \"$0/log\"
        mount -t tmpfs none /run
        mkdir -p /run/systemd/journal /run/log /run/systemd/journald.conf.d
        mount --bind \"$0/journal\" /run/systemd/journal
        mount --bind \"$0/log\" /run/log
        printf '[Journal]\\nStorage=volatile\\nReadKMsg=no\\nAudit=no\\nForwardToWall=no\\nRateLimitIntervalSec=0\\n' \\
            >/run/systemd/journald.conf.d/test.conf
        mkdir -p /run/log/journal
        exec \"$1\"";
    let folder = scene.path("");
    let folder = folder.to_str().unwrap().trim_end_matches('/');
    let words = ["-m", "--propagation", "private", "sh", "-c", script, folder, JOURNALD];
    let mut command = scene.other("unshare", &words);
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("NOTIFY_SOCKET", &notify);
    let log = std::fs::File::create(scene.path("journald.err")).unwrap();
    let daemon = Daemon(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap());
    let mut buffer = [0; 4096];
    loop {
        let count = told.recv(&mut buffer).unwrap_or_else(|error| {
            panic!("{error}: {}", std::fs::read_to_string(scene.path("journald.err")).unwrap())
        });
        if String::from_utf8_lossy(&buffer[..count]).contains("READY=1") {
            return daemon;
        }
    }
}

/// The lines of the journal that match.
fn journalctl(scene: &Scene, matches: &[&str]) -> Vec<String> {
    let folder = scene.path("log/journal");
    let words = [&["--directory", folder.to_str().unwrap(), "--no-pager", "--quiet", "-o", "cat"], matches].concat();
    let output = scene.other("journalctl", &words).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Asks again until it is `enough`: what was sent is read when the daemon comes to it.
fn until<T>(what: &str, ask: impl Fn() -> T, enough: impl Fn(&T) -> bool) -> T {
    let began = std::time::Instant::now();
    loop {
        let answer = ask();
        if enough(&answer) {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

fn log(scene: &Scene) -> Vec<String> {
    std::fs::read_to_string(scene.path("audit.jsonl")).unwrap().lines().map(str::to_owned).collect()
}

fn sinks(scene: Scene, mirrors: &str) -> Scene {
    let text = format!(
        "[[audit.sinks]]\ntype = \"file\"\npath = \"{}\"\nsync = false\n{mirrors}",
        scene.path("audit.jsonl").display()
    );
    scene.sinks(&text)
}

/// What came back is a log that verifies.
#[track_caller]
fn verifies(scene: &Scene, lines: &[String]) -> Outcome {
    let copy = scene.write("copy.jsonl", (lines.join("\n") + "\n").as_bytes());
    scene.vouchsafe(&["audit", "verify", copy.to_str().unwrap()]).expect_status(0)
}

const RECORDS: &str = "MESSAGE_ID=8f7a0b7a6f0d4b0fb1c9a6c1d94f3b52";

#[test]
fn journald_gives_back_what_the_log_has() {
    if !have(&["unshare", "mount", "journalctl"], true) || !have_daemon(JOURNALD) {
        return;
    }
    let names: Vec<String> =
        (0..2500).map(|number| format!("A_SECRET_WITH_A_NAME_THAT_IS_AS_LONG_AS_ANY_{number:04}")).collect();
    let mut values: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v4lue")).collect();
    values.push(("DB_PASSWORD", "v4lue"));
    let scene = Scene::with(&values);
    let socket = scene.path("journal/socket");
    let scene = sinks(scene, &format!("[[audit.sinks]]\ntype = \"journald\"\npath = \"{}\"\n", socket.display()));
    let daemon = journald(&scene);
    let run = |words: &[&str]| {
        let outcome = scene.verb(words);
        assert_eq!(outcome.err().matches("not mirrored").count(), 0, "{}", outcome.err());
    };
    run(&["run", "--only", "DB_PASSWORD", "--", "true"]);
    run(&["run", "--only", "NO", "--", "true"]);
    // A record that no datagram takes.
    run(&["run", "--", "true"]);
    let log = log(&scene);
    assert!(log.len() == 5 && log[4].len() > 200 << 10, "{}", log[4].len());
    let all = until("all records", || journalctl(&scene, &[RECORDS]), |lines| lines.len() >= log.len());
    assert_eq!(all, log);
    verifies(&scene, &all);
    assert_eq!(journalctl(&scene, &["VOUCHSAFE_SECRET=DB_PASSWORD", "VOUCHSAFE_EVENT=access.released"])[0], log[1]);
    assert_eq!(journalctl(&scene, &["-p", "warning", "-t", "vouchsafe"]), [log[2].clone()]);
    assert_eq!(journalctl(&scene, &["VOUCHSAFE_OUTCOME=denied", "VOUCHSAFE_ENVIRONMENT=test"]), [log[2].clone()]);
    assert!(journalctl(&scene, &["MESSAGE=v4lue"]).is_empty() && !all.concat().contains("v4lue"));

    // It ends, and another one takes its place; how many are missing is said where they are missing.
    drop(daemon);
    let outcome = scene.verb(&["run", "--only", "DB_PASSWORD", "--", "true"]).expect_status(0);
    assert!(outcome.err().contains("warning: audit records are not mirrored to journald"), "{}", outcome.err());
    let _daemon = journald(&scene);
    run(&["run", "--only", "DB_PASSWORD", "--", "true"]);
    let log = self::log(&scene);
    let last = log.last().unwrap();
    until("the last record", || journalctl(&scene, &[RECORDS]), |lines| lines.last() == Some(last));
    let missing = journalctl(&scene, &[RECORDS]);
    let copy = scene.write("copy.jsonl", (missing.join("\n") + "\n").as_bytes());
    let outcome = scene.vouchsafe(&["audit", "verify", copy.to_str().unwrap()]).expect_status(12);
    assert!(outcome.out().contains("6 to 7") || outcome.err().contains("6 to 7"), "{}", outcome.transcript());
}

/// Runs that go on at the same time write to the log in turn, and to the mirror as they come.
#[test]
fn what_came_in_any_order_is_put_in_order_as_the_documentation_says() {
    if !have(&["unshare", "mount", "journalctl", "awk"], true) || !have_daemon(JOURNALD) {
        return;
    }
    let scene = Scene::with(&[("TOKEN", "x")]);
    let socket = scene.path("journal/socket");
    let scene = sinks(scene, &format!("[[audit.sinks]]\ntype = \"journald\"\npath = \"{}\"\n", socket.display()));
    let _daemon = journald(&scene);
    let line = scene.run_arguments(&["true"]);
    // A socket may hold no more than ten messages that journald has not come to (net.unix.max_dgram_qlen).
    let runs: Vec<Child> = (0..4).map(|_| scene.command(&line).stderr(Stdio::null()).spawn().unwrap()).collect();
    for run in runs {
        assert_eq!(wait(run).status.code(), Some(0));
    }
    let log = log(&scene);
    until("all records", || journalctl(&scene, &[RECORDS]), |lines| lines.len() >= log.len());
    let block = block_with("```sh\n", "journalctl -o cat");
    let first: serde_json::Value = serde_json::from_str(&log[0]).unwrap();
    let stream = block.split("VOUCHSAFE_STREAM=").nth(1).unwrap().split(' ').next().unwrap();
    let folder = scene.path("log/journal");
    let script = block
        .replace(stream, first["stream"].as_str().unwrap())
        .replace("journalctl ", &format!("journalctl --directory {} ", folder.display()));
    let folder = std::path::Path::new(VOUCHSAFE).parent().unwrap().display().to_string();
    let mut shell = scene.other("sh", &["-eu", "-c", &script]);
    let output = shell.env("PATH", format!("{folder}:/usr/bin:/bin")).output().unwrap();
    assert!(output.status.success(), "{script}\n{output:?}");
    assert_eq!(file_lines(&scene, "journal.jsonl"), log);
}

/// A block of docs/audit.md.
fn block_with(fence: &str, what: &str) -> String {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/audit.md")).unwrap();
    let mut blocks = text.split(fence).skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.find(|block| block.contains(what)).unwrap().to_owned()
}

/// The configuration that docs/audit.md shows, with the paths of the scene.
fn rsyslog_configuration(scene: &Scene) -> String {
    let block = block_with("```rsyslog\n", "imuxsock");
    let own = block
        .replace("/run/vouchsafe-log.sock", scene.path("log.sock").to_str().unwrap())
        .replace("/var/log/vouchsafe-mirror.jsonl", scene.path("mirror.jsonl").to_str().unwrap());
    assert_eq!(own.matches(scene.path("").to_str().unwrap()).count(), 2, "{own}");
    let whole = format!(
        "action(type=\"omfile\" file=\"{}\" template=\"RSYSLOG_SyslogProtocol23Format\")\n",
        scene.path("rfc5424").display()
    );
    let folder = scene.path("").display().to_string();
    format!("global(workDirectory=\"{}\")\n{own}\n{whole}", folder.trim_end_matches('/'))
}

fn rsyslogd(scene: &Scene) -> Daemon {
    let configuration = scene.write("rsyslog.conf", rsyslog_configuration(scene).as_bytes());
    let pid = scene.path("rsyslog.pid");
    let words = ["-n", "-f", configuration.to_str().unwrap(), "-i", pid.to_str().unwrap()];
    let check = scene.other(RSYSLOGD, &["-N1", "-f", configuration.to_str().unwrap()]).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    let daemon = Daemon(scene.other(RSYSLOGD, &words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let probe = || {
        let sender = UnixDatagram::unbound().unwrap();
        sender.send_to(b"<85>1 - - probe - - - there?", scene.path("log.sock")).is_ok()
    };
    until("rsyslogd", probe, |is_there| *is_there);
    daemon
}

fn file_lines(scene: &Scene, name: &str) -> Vec<String> {
    let Ok(file) = std::fs::File::open(scene.path(name)) else { return Vec::new() };
    std::io::BufReader::new(file).lines().map_while(Result::ok).collect()
}

#[test]
fn rsyslogd_writes_the_record_whole_and_as_rfc_5424() {
    if !have(&["sh"], true) || !have_daemon(RSYSLOGD) {
        return;
    }
    let names: Vec<String> = (0..300).map(|number| format!("A_SECRET_WITH_A_LONG_NAME_{number:04}")).collect();
    let values: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v4lue")).collect();
    let scene = Scene::with(&values);
    let socket = scene.path("log.sock");
    let scene = sinks(scene, &format!("[[audit.sinks]]\ntype = \"syslog\"\npath = \"{}\"\n", socket.display()));
    let daemon = rsyslogd(&scene);
    let run = |words: &[&str]| {
        let outcome = scene.verb(words);
        assert_eq!(outcome.err().matches("not mirrored").count(), 0, "{}", outcome.err());
    };
    run(&["run", "--", "true"]);
    run(&["run", "--only", "NO", "--", "true"]);
    let log = log(&scene);
    assert!(log.len() == 3 && log[1].len() > 8 << 10, "more than rsyslog takes unless it is told to");
    let mirror = until("all records", || file_lines(&scene, "mirror.jsonl"), |lines| lines.len() >= log.len());
    assert_eq!(mirror, log);
    verifies(&scene, &mirror);
    let whole = until("the same in RFC 5424", || file_lines(&scene, "rfc5424"), |lines| lines.len() > log.len());
    let whole: Vec<String> = whole.into_iter().filter(|line| line.contains(" vouchsafe ")).collect();
    assert!(whole[0].starts_with("<85>1 ") && whole[0].contains(" access.requested - {"), "{}", whole[0]);
    assert!(whole[2].starts_with("<84>1 ") && whole[2].contains(" access.denied - {"), "{}", whole[2]);

    // Started again while nobody looked.
    drop(daemon);
    std::fs::remove_file(scene.path("log.sock")).unwrap_or_default();
    let _daemon = rsyslogd(&scene);
    run(&["run", "--only", "NO", "--", "true"]);
    let log = self::log(&scene);
    let mirror = until("the record after", || file_lines(&scene, "mirror.jsonl"), |lines| lines.len() >= log.len());
    assert_eq!(mirror, log);
}

#[test]
fn a_mirror_costs_a_run_one_call_for_each_record_after_it_is_on_the_disk() {
    use crate::strace::trace;
    if !have(&["strace"], true) {
        return;
    }
    for kind in ["journald", "syslog"] {
        let scene = Scene::with(&[("TOKEN", "x")]);
        let socket = scene.path("log.sock");
        let _listens = UnixDatagram::bind(&socket).unwrap();
        let text = format!(
            "[[audit.sinks]]\ntype = \"file\"\npath = \"{}\"\n[[audit.sinks]]\ntype = \"{kind}\"\npath = \"{}\"\n",
            scene.path("audit.jsonl").display(),
            socket.display()
        );
        let scene = scene.sinks(&text);
        let mut line = vec![std::ffi::OsString::from(VOUCHSAFE)];
        line.extend(scene.run_arguments(&["/usr/bin/true"]));
        let traced = trace(&scene, &["-y", "-s", "4096"], &line, b"");
        assert_eq!(traced.status.code(), Some(0), "{}", traced.transcript());
        let count = |name: &str| traced.count(|call| call.name == name);
        assert_eq!((count("socket"), count("sendto"), count("connect")), (1, 2, 0), "{}", traced.transcript());
        let socket = &traced.calls[traced.position("socket", |call| call.name == "socket")];
        assert!(socket.mentions("SOCK_CLOEXEC"), "{}", socket.text);
        for event in ["access.requested", "access.released"] {
            let of = |name: &'static str| traced.position(name, |call| call.name == name && call.mentions(event));
            let synced = traced.calls[..of("sendto")].iter().rposition(|call| call.name == "fdatasync");
            assert!(synced.is_some_and(|synced| of("write") < synced), "{}", traced.transcript());
            assert!(traced.calls[of("sendto")].mentions("MSG_DONTWAIT"));
        }
    }
}
