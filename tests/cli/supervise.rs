//! `run --supervise`: the ideas of the tests of tini (T) and dumb-init (D), and faults that other supervisors had, each named
//! for the program and its issue. What needs root is in `integration/supervise.rs`, the terminal in `supervise_terminal`.

use std::ffi::OsString;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use crate::harness::{Scene, VOUCHSAFE};
use crate::supervised::{Supervised, arguments, children, every_signal, send, stat, state, supervised, wait_until};

fn status_field(pid: u32, field: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default().trim().to_owned()
}

/// T: all 256 exit codes.
#[test]
fn every_exit_status_passes_through() {
    let scene = Scene::with(&[("A", "1")]);
    let arguments = arguments(&scene, &["sh", "-c", "exit $0"]);
    for status in 0..=255 {
        let mut arguments = arguments.clone();
        arguments.push(status.to_string().into());
        let ended = scene.command(&arguments).stderr(Stdio::null()).status().unwrap();
        assert_eq!(ended.code(), Some(status));
    }
    let records = scene.audit();
    let statuses: Vec<_> = records.iter().filter(|record| record["event"] == "child.exited").collect();
    assert_eq!(statuses.len(), 256);
    for (status, record) in statuses.iter().enumerate() {
        assert_eq!(record["child"]["status"], status, "{record}");
        assert_eq!(record["outcome"], if status == 0 { "succeeded" } else { "failed" });
    }
}

/// T, D: death by a signal, which they can only show as 128+n.
#[test]
fn death_by_a_signal_is_seen_as_that_signal() {
    let scene = Scene::with(&[("A", "1")]);
    for number in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 24, 25, 26, 27, 29, 30, 31, 34, 64] {
        let script = format!("ulimit -c 0; kill -{number} $$; sleep 60");
        supervised(&scene, &["sh", "-c", &script]).expect_signal(number);
        let record = scene.audit().pop().unwrap();
        assert_eq!((&record["event"], &record["child"]["signal"]), (&"child.exited".into(), &number.into()));
        assert!(record["child"]["status"].is_null() && record["outcome"] == "failed", "{record}");
    }
}

/// D `test_proxies_signals`, envconsul #31, #63, #90: not forwarded, or only some. Real-time signals are systemd's.
#[test]
fn every_signal_reaches_the_child_once() {
    let mut supervised = Supervised::counting();
    let child = supervised.child();
    for signal in every_signal() {
        supervised.send(signal);
        assert_eq!(supervised.line(), signal.to_string());
    }
    send(&supervised.scene, 9, child);
    let (status, rest, _) = supervised.end();
    assert_eq!((status.signal(), rest.as_str()), (Some(9), ""), "each arrived once");
}

/// bank-vaults PR #956: only the first one. vault #17873: a repeated HUP crashes it.
#[test]
fn bank_vaults_forwards_only_the_first_signal() {
    let mut supervised = Supervised::counting();
    for _ in 0..50 {
        supervised.send("HUP");
        assert_eq!(supervised.line(), "1");
    }
    send(&supervised.scene, 9, supervised.child());
    assert_eq!(supervised.end().0.signal(), Some(9));
}

/// envconsul #254: the runtime's own SIGURG reached the child. Ours makes SIGCHLD (orphans) and SIGPIPE (a log nobody reads).
#[test]
fn envconsul_forwards_what_its_runtime_made() {
    let scene = Scene::with(&[("A", "1")]);
    let script = "trap 'echo PIPE' PIPE; trap 'echo URG' URG; trap 'echo CHLD' CHLD; echo ready; exec 3<&0; \
                  (sleep 0 & sleep 0 & exit 0) <&3; wait; echo made; read -r line";
    let mut supervised = Supervised::start(scene, script);
    assert_eq!(supervised.line(), "ready");
    // One CHLD at most is the shell's own, for the child that it made itself.
    let mut own = 0;
    loop {
        match supervised.line().as_str() {
            "CHLD" => own += 1,
            "made" => break,
            other => panic!("{other}"),
        }
    }
    wait_until("the orphans are gone", || children(supervised.pid()).len() == 1);
    let (status, rest, _) = supervised.end();
    assert_eq!((status.code(), rest.as_str()), (Some(1), ""), "read met the end of its input, and no trap ran");
    assert!(own <= 1, "{own}");
}

/// T: orphans are reaped. consul-template #428: they are not. In `integration` ten thousand of them, and as PID 1.
#[test]
fn orphans_are_reaped() {
    let script = "i=0; while [ $i -lt 300 ]; do (sh -c 'exit 3' & exit 0); i=$((i+1)); done; echo made; read -r line";
    let mut supervised = Supervised::start(Scene::with(&[("A", "1")]), script);
    assert_eq!(supervised.line(), "made");
    let child = supervised.child();
    wait_until("no child but the one", || children(supervised.pid()) == [child]);
    let (status, _, scene) = supervised.end();
    assert_eq!(status.code(), Some(1), "no orphan's status is taken for the child's");
    assert_eq!(scene.events().iter().filter(|event| *event == "child.exited").count(), 1);
}

/// T subreaper: not PID 1, and yet the parent of what is left over.
#[test]
fn an_orphan_becomes_the_supervisors_child() {
    // The orphan looks until its parent is the one that it was told of.
    let orphan = "until [ $(cut -d' ' -f4 /proc/$$/stat) = $0 ]; do :; done; echo adopted";
    let script = format!("(sh -c '{}' $PPID & exit 0); read -r line", orphan.replace('\'', "'\\''"));
    let mut supervised = Supervised::start(Scene::with(&[("A", "1")]), &script);
    assert_eq!(supervised.line(), "adopted");
    assert_eq!(supervised.end().0.code(), Some(1));
}

/// D: TSTP, TTIN and TTOU suspend child and supervisor; CONT wakes both.
#[test]
fn stop_signals_suspend_both_and_cont_wakes_both() {
    let mut supervised = Supervised::start(
        Scene::with(&[("A", "1")]),
        "sleep 1000 & trap 'echo awake' CONT; echo ready; while :; do wait; done",
    );
    assert_eq!(supervised.line(), "ready");
    let child = supervised.child();
    for signal in ["TSTP", "TTIN", "TTOU"] {
        supervised.send(signal);
        wait_until("both stopped", || state(supervised.pid()) == "T" && state(child) == "T");
        supervised.send("CONT");
        assert_eq!(supervised.line(), "awake");
        wait_until("both awake", || state(supervised.pid()) == "S" && state(child) == "S");
    }
    supervised.send("TERM");
    assert_eq!(supervised.end().0.signal(), Some(15));
}

/// A stop that was meant for the child alone is not ours: the supervisor must be there for what comes next.
#[test]
fn a_child_stopped_by_hand_does_not_stop_the_supervisor() {
    let mut supervised = Supervised::start(Scene::with(&[("A", "1")]), "echo ready; exec sleep 1000");
    assert_eq!(supervised.line(), "ready");
    let child = supervised.child();
    send(&supervised.scene, "STOP", child);
    wait_until("the child stopped", || state(child) == "T");
    supervised.send("TERM");
    supervised.send("CONT");
    assert_eq!(supervised.end().0.signal(), Some(15));
}

/// T sigconf-test: blocked and ignored signals arrive as they were. SIGCHLD ignored would also hide how the child ended.
#[test]
fn masks_and_dispositions_are_those_that_the_caller_had() {
    let scene = Scene::with(&[("A", "1")]);
    let probe = ["grep", "^Sig[BIC]", "/proc/self/status"];
    for options in [
        &["--default-signal"][..],
        &["--ignore-signal=PIPE"],
        &["--ignore-signal=HUP"],
        &["--ignore-signal=CHLD"],
        &["--ignore-signal=TSTP", "--ignore-signal=TTIN", "--ignore-signal=TTOU", "--ignore-signal=TERM"],
        &["--block-signal=USR1", "--block-signal=TERM", "--block-signal=CHLD", "--block-signal=CONT"],
        &["--ignore-signal", "--block-signal"],
    ] {
        let text = |words: Vec<OsString>| {
            let output = scene.other("env", &words).output().unwrap();
            (String::from_utf8(output.stdout).unwrap(), output.status.code())
        };
        let own = |more: Vec<OsString>| options.iter().map(OsString::from).chain(more).collect::<Vec<_>>();
        let mut through = vec![OsString::from(VOUCHSAFE)];
        through.extend(arguments(&scene, &probe));
        let direct = probe.iter().map(OsString::from).collect();
        let (through, direct) = (text(own(through)), text(own(direct)));
        assert_eq!(through, direct, "{options:?}");
        assert!(direct.0.contains("SigBlk"), "{}", direct.0);
    }
}

/// An ignored signal that is sent to the supervisor is the child's to ignore.
#[test]
fn a_signal_that_the_child_ignores_ends_nobody() {
    let scene = Scene::with(&[("A", "1")]);
    let mut words: Vec<OsString> = ["--ignore-signal=HUP", "--ignore-signal=TERM", VOUCHSAFE].map(Into::into).to_vec();
    words.extend(arguments(
        &scene,
        &["sh", "-c", "trap 'echo USR1' USR1; echo ready; read -r line; echo $line; exit 5"],
    ));
    let mut supervised = Supervised::spawn(scene, "env", &words);
    assert_eq!(supervised.line(), "ready");
    supervised.send("HUP");
    supervised.send("TERM");
    supervised.answer("still there\n");
    assert_eq!(supervised.line(), "still there");
    assert_eq!(supervised.end().0.code(), Some(5));
}

/// D cwd, T: what else the child must find as it was. The arguments, descriptors and limits are compared with a direct start.
#[test]
fn everything_else_is_as_the_caller_had_it() {
    let scene = Scene::with(&[("A", "1")]);
    let probe = "ls /proc/self/fd; cat /proc/self/limits /proc/self/oom_score_adj; umask; pwd; nice; cut -d' ' -f6 /proc/$$/stat";
    for setting in [
        "exec \"$@\"",
        "exec 3</dev/null 9</dev/null; exec \"$@\"",
        "exec <&-; exec \"$@\"",
        "exec 2>&-; exec \"$@\"",
        "umask 027; ulimit -n 77; ulimit -c 0; ulimit -s 4096; cd /; exec \"$@\"",
    ] {
        let mut words: Vec<OsString> = ["-c", setting, "sh", VOUCHSAFE].map(Into::into).to_vec();
        words.extend(arguments(&scene, &["sh", "-c", probe]));
        let through = scene.other("sh", &words).output().unwrap();
        let direct = scene.other("sh", &["-c", setting, "sh", "sh", "-c", probe]).output().unwrap();
        assert_eq!(String::from_utf8(through.stdout).unwrap(), String::from_utf8(direct.stdout).unwrap(), "{setting}");
    }
}

/// T `-g`, envconsul #177: without a terminal the child leads a process group of its own, in our session.
#[test]
fn the_child_leads_its_own_process_group() {
    let mut supervised = Supervised::start(Scene::with(&[("A", "1")]), "echo ready; read -r line");
    assert_eq!(supervised.line(), "ready");
    let (own, child) = (stat(supervised.pid()), stat(supervised.child()));
    assert_eq!(child[2], supervised.child().to_string());
    assert_eq!((&child[1], &child[3]), (&supervised.pid().to_string(), &own[3]));
    assert_ne!(own[2], child[2]);
    assert_eq!(supervised.end().0.code(), Some(1));
}

/// D `test_all_processes_receive_term_on_exit_if_setsid`; envconsul #117: something outlives the wrapper, or holds it up.
#[test]
fn what_is_left_of_the_group_is_asked_to_end_and_not_waited_for() {
    let left = "$| = 1; $SIG{TERM} = sub { print qq(left\\n); exit }; print qq(up\\n); sleep 1000 while 1";
    let script = format!("perl -e '{left}' & read -r line; exit 4");
    let mut supervised = Supervised::start(Scene::with(&[("A", "1")]), &script);
    assert_eq!(supervised.line(), "up");
    let (status, rest, _) = supervised.end();
    assert_eq!((status.code(), rest.as_str()), (Some(4), "left\n"));
}

/// T `-p`: kill -9 of the supervisor leaves no child behind that nobody watches.
#[test]
fn the_child_is_asked_to_end_when_the_supervisor_is_killed() {
    let script = "sleep 1000 & trap 'kill $!; echo asked; exit 0' TERM; echo ready; wait";
    let mut supervised = Supervised::start(Scene::with(&[("A", "1")]), script);
    assert_eq!(supervised.line(), "ready");
    supervised.send("KILL");
    assert_eq!(supervised.line(), "asked");
}

/// platforms: `docker stop` sends one TERM, and its own KILL later. We shorten nothing.
#[test]
fn the_supervisor_waits_for_a_child_that_takes_its_time() {
    let script = "sleep 1000 & trap 'echo one' TERM; echo ready; while :; do wait; done";
    let scene = Scene::with(&[("A", "1")]).and("[run]\ngrace = \"1ms\"");
    let mut supervised = Supervised::start(scene, script);
    assert_eq!(supervised.line(), "ready");
    let child = supervised.child();
    for _ in 0..10 {
        supervised.send("TERM");
        assert_eq!(supervised.line(), "one");
    }
    wait_until("both wait", || state(child) == "S" && state(supervised.pid()) == "S");
    send(&supervised.scene, 9, child);
    assert_eq!(supervised.end().0.signal(), Some(9));
}

/// D bad exec; T 126 and 127.
#[test]
fn a_command_that_cannot_be_executed_is_told_as_without_supervision() {
    let scene = Scene::with(&[("A", "1")]);
    supervised(&scene, &["no-such-command"]).expect_status(127);
    supervised(&scene, &["/etc/passwd"]).expect_status(126);
    supervised(&scene, &["/"]).expect_status(126);
    assert!(scene.events().is_empty());
    let script = scene.write_mode("script", b"#!/no/such/interpreter\n", 0o755);
    let exec = scene.run(&[&script]).expect_status(126);
    let outcome = supervised(&scene, &[script.to_str().unwrap()]).expect_status(126);
    assert_eq!(outcome.err(), exec.err());
    let once = ["access.requested", "access.released", "access.unused"];
    assert_eq!(scene.events(), [once, once].concat(), "no child ended, for there was none");
}

#[test]
fn our_own_failures_keep_their_statuses() {
    let scene = || Scene::with(&[("A", "1")]);
    supervised(&scene().grants("[[grants]]\nsecrets = [\"A\"]\nto = { users = [\"nobody-at-all\"] }\n"), &["true"])
        .expect_status(120);
    supervised(&scene().policy("[secrets]\nGONE = {}"), &["true"]).expect_status(122);
    supervised(&scene().sinks(""), &["true"]).expect_status(123);
    supervised(&scene().variable("A", "inherited"), &["true"]).expect_status(125);
    let missing = scene();
    std::fs::remove_file(missing.path("identity.key")).unwrap();
    supervised(&missing, &["true"]).expect_status(124);
    assert_eq!(missing.events(), ["access.requested", "access.failed"]);
}

/// Until there is a child, a signal ends the wrapper, as without supervision. A full pipe as the audit sink holds it.
#[test]
fn a_signal_while_fetching_ends_the_wrapper() {
    for (name, number) in [("TERM", 15), ("INT", 2), ("HUP", 1), ("QUIT", 3)] {
        let scene = Scene::with(&[("A", "1")]).sinks("[[audit.sinks]]\ntype = \"stderr\"\n");
        let arguments = arguments(&scene, &["true"]);
        let (reader, writer) = std::io::pipe().unwrap();
        let mut filler = scene.other("sh", &["-c", "exec yes >&2"]);
        let mut filler = filler.stderr(writer.try_clone().unwrap()).spawn().unwrap();
        let is_yes = |pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "yes\n");
        wait_until("a full pipe", || is_yes(filler.id()) && state(filler.id()) == "S");
        let mut wrapper = scene.command(&arguments).stderr(writer).spawn().unwrap();
        wait_until("a worker that waits", || {
            children(wrapper.id()).first().is_some_and(|worker| state(*worker) == "S")
        });
        send(&scene, name, wrapper.id());
        let status = wrapper.wait().unwrap();
        assert_eq!((status.code(), status.signal()), (Some(128 + number), None), "{name}");
        filler.kill().unwrap();
        filler.wait().unwrap();
        drop(reader);
    }
}

/// Socket activation and watchdog: what names the wrapper's pid names the child's, and the sockets are there.
#[test]
fn what_names_our_pid_names_the_childs() {
    let scene = Scene::with(&[("A", "1")]).variable("LISTEN_FDS", "1").variable("LISTEN_FDNAMES", "web");
    let probe = "echo $LISTEN_PID $WATCHDOG_PID $SYSTEMD_EXEC_PID $LISTEN_FDS $LISTEN_FDNAMES ${LISTEN_PIDFDID-none}; \
                 echo $$; readlink /proc/$$/fd/3; read -r line";
    let setting = "exec 3</dev/null; LISTEN_PID=$$ WATCHDOG_PID=$$ SYSTEMD_EXEC_PID=$$ LISTEN_PIDFDID=1234 exec \"$@\"";
    let mut words: Vec<OsString> = ["-c", setting, "sh", VOUCHSAFE].map(Into::into).to_vec();
    words.extend(arguments(&scene, &["sh", "-c", probe]));
    let mut supervised = Supervised::spawn(scene, "sh", &words);
    let (said, pid) = (supervised.line(), supervised.line());
    assert_eq!(said, format!("{pid} {pid} {pid} 1 web none"));
    assert_ne!(pid, supervised.pid().to_string());
    assert_eq!(supervised.line(), "/dev/null");
    drop(supervised.end());

    // What is meant for another process stays as it is.
    let scene = Scene::with(&[("A", "1")]).variable("LISTEN_PID", "1").variable("LISTEN_PIDFDID", "7");
    let outcome = supervised_text(&scene, "echo $LISTEN_PID $LISTEN_PIDFDID ${WATCHDOG_PID-none}");
    assert_eq!(outcome, "1 7 none\n");
}

fn supervised_text(scene: &Scene, script: &str) -> String {
    supervised(scene, &["sh", "-c", script]).expect_status(0).out().to_owned()
}

/// systemd's `NotifyAccess=main` takes messages from the main process only.
#[test]
fn the_service_manager_is_told_who_the_main_process_is() {
    let scene = Scene::with(&[("A", "1")]);
    let path = scene.path("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let scene = scene.variable("NOTIFY_SOCKET", &path);
    let pid = supervised_text(&scene, "echo $$ $NOTIFY_SOCKET");
    let mut message = [0; 64];
    let length = manager.recv(&mut message).unwrap();
    let told = std::str::from_utf8(&message[..length]).unwrap();
    assert_eq!(format!("{} {}\n", told.strip_prefix("MAINPID=").unwrap(), path.display()), pid);
    // A manager that is gone is no reason for a service to end.
    drop(manager);
    assert_eq!(supervised_text(&scene, "echo fine"), "fine\n");
}

/// `perl -e 'alarm 1; exec ...'` is how scripts limit a command: the timer is ours, the alarm the child's.
#[test]
fn an_alarm_that_was_set_before_rings_for_the_child() {
    let scene = Scene::with(&[("A", "1")]);
    let mut words: Vec<OsString> = ["-e", "alarm 1; exec @ARGV", VOUCHSAFE].map(Into::into).to_vec();
    words.extend(arguments(&scene, &["sleep", "1000"]));
    let supervised = Supervised::spawn(scene, "perl", &words);
    assert_eq!(supervised.end().0.signal(), Some(14));
}

/// What was our child before we were executed is somebody's orphan now: it is reaped, and is not the child.
#[test]
fn a_child_from_before_our_own_exec_is_not_taken_for_the_child() {
    let scene = Scene::with(&[("A", "1")]);
    let mut words: Vec<OsString> = ["-c", "sh -c 'exit 9' & exec \"$@\"", "sh", VOUCHSAFE].map(Into::into).to_vec();
    words.extend(arguments(&scene, &["sh", "-c", "echo ready; read -r line; exit 6"]));
    let mut supervised = Supervised::spawn(scene, "sh", &words);
    assert_eq!(supervised.line(), "ready");
    wait_until("one child", || children(supervised.pid()).len() == 1);
    assert_eq!(supervised.end().0.code(), Some(6));
}

/// The policy can ask for it too.
#[test]
fn the_policy_decides_without_the_option() {
    let scene = Scene::with(&[("A", "value")]).and("[run]\nmode = \"supervise\"");
    let outcome = scene.run(&["sh", "-c", "echo $A $PPID; exit 3"]).expect_status(3);
    assert!(outcome.out().starts_with("value "), "{}", outcome.transcript());
    assert_eq!(outcome.err(), "", "the wrapper is silent");
    let records = scene.audit();
    assert_eq!(scene.events(), ["access.requested", "access.released", "child.exited"]);
    assert!(records.iter().all(|record| record["access"] == records[0]["access"]), "one access, two processes");
    assert_eq!(records[2]["child"]["pid"], records[0]["actor"]["pid"]);
    assert_eq!(records[2]["actor"]["pid"], records[0]["actor"]["ppid"]);
    scene.vouchsafe(&["audit", "verify", "audit.jsonl"]).expect_status(0);
}

/// The audit of a child's end cannot be written: the access was, so its status counts, and the wrapper says what is missing.
#[test]
fn an_end_that_cannot_be_written_down_is_told_and_changes_no_status() {
    let scene = Scene::with(&[("A", "1")]);
    let outcome = supervised(&scene, &["sh", "-c", "rm -f audit.jsonl audit.jsonl.head; mkdir audit.jsonl; exit 8"]);
    let outcome = outcome.expect_status(8);
    assert!(outcome.err().contains("error[audit]"), "{}", outcome.transcript());
}

/// The supervisor itself blocks everything: whatever is sent to it, it is there until the child has ended.
#[test]
fn the_supervisor_handles_nothing_and_blocks_everything() {
    let mut supervised = Supervised::start(Scene::with(&[("A", "1")]), "echo ready; read -r line");
    assert_eq!(supervised.line(), "ready");
    let blocked = u64::from_str_radix(&status_field(supervised.pid(), "SigBlk:"), 16).unwrap();
    for signal in every_signal().chain([17]) {
        assert_ne!(blocked & (1 << (signal - 1)), 0, "{signal} is not blocked");
    }
    assert_eq!(status_field(supervised.pid(), "Threads:"), "1");
    drop(supervised.end());
}
