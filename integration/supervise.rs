//! The supervisor where root is needed: as PID 1 of a PID namespace, ten thousand orphans, and what is in its memory.

use std::ffi::OsString;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use crate::harness::{Scene, VOUCHSAFE};
use crate::have;
use crate::supervised::{Supervised, arguments, children, every_signal, send, state, wait_until};

const CANARY: &str = "kanarienvogel5Zp3Wd";

/// `vouchsafe run --supervise -- sh -c SCRIPT` as PID 1 of a PID namespace with its own /proc.
fn as_pid_1(scene: Scene, script: &str) -> Supervised {
    let mut words: Vec<OsString> =
        ["--pid", "--fork", "--mount-proc", "--kill-child", VOUCHSAFE].iter().map(Into::into).collect();
    words.extend(arguments(&scene, &["sh", "-c", script]));
    Supervised::spawn(scene, "unshare", &words)
}

/// The supervisor, seen from outside its namespace.
fn outside(supervised: &Supervised) -> u32 {
    supervised.child()
}

#[test]
fn as_pid_1_the_status_passes_and_a_signal_is_128_and_its_number() {
    if !have(&["unshare"], true) {
        return;
    }
    for status in [0, 1, 7, 127, 254, 255] {
        let supervised = as_pid_1(Scene::with(&[("A", "1")]), &format!("exit {status}"));
        assert_eq!(supervised.end().0.code(), Some(status));
    }
    for signal in [1, 2, 6, 9, 11, 15, 34, 64] {
        let supervised = as_pid_1(Scene::with(&[("A", "1")]), &format!("ulimit -c 0; kill -{signal} $$; sleep 60"));
        let (status, _, scene) = supervised.end();
        assert_eq!((status.code(), status.signal()), (Some(128 + signal), None));
        assert_eq!(scene.audit().pop().unwrap()["child"]["signal"], signal);
    }
}

/// `docker stop` of a command without a handler: the kernel gives PID 1 no default action, and so it waits in vain.
#[test]
fn as_pid_1_term_ends_a_command_without_a_handler() {
    if !have(&["unshare"], true) {
        return;
    }
    let mut supervised = as_pid_1(Scene::with(&[("A", "1")]), "echo $PPID; exec sleep 1000");
    assert_eq!(supervised.line(), "1", "the supervisor is PID 1");
    let pid_1 = outside(&supervised);
    wait_until("the exec", || children(pid_1).iter().any(|child| comm(*child) == "sleep"));
    send(&supervised.scene, "TERM", pid_1);
    assert_eq!(supervised.end().0.code(), Some(143));
}

fn comm(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// STOPSIGNAL of any kind, real-time ones too: docker's `--stop-signal RTMIN+3` for systemd, QUIT for php-fpm.
#[test]
fn as_pid_1_every_signal_is_passed_on() {
    if !have(&["unshare"], true) {
        return;
    }
    let traps: String = every_signal().map(|signal| format!("trap 'echo {signal}' {signal}; ")).collect();
    let script = format!("sleep 1000 & {traps} echo ready; while :; do wait; done");
    let mut supervised = as_pid_1(Scene::with(&[("A", "1")]), &script);
    assert_eq!(supervised.line(), "ready");
    let pid_1 = outside(&supervised);
    for signal in every_signal() {
        send(&supervised.scene, signal, pid_1);
        assert_eq!(supervised.line(), signal.to_string());
    }
    send(&supervised.scene, 9, children(pid_1)[0]);
    assert_eq!(supervised.end().0.code(), Some(137));
}

/// platforms: three orphans are three zombies under a wrapper that waits for its child only.
#[test]
fn ten_thousand_orphans_leave_no_zombie() {
    if !have(&["unshare", "perl"], true) {
        return;
    }
    // Each child makes an orphan and ends; at most a thousand at a time, so that no limit is met.
    let script = "perl -e 'for my $round (1..10) { for (1..1000) { my $pid = fork; next if $pid; fork; exit 3 } \
                  1 while wait > 0; }'; echo made; read -r line; exit 6";
    for pid_1 in [false, true] {
        let scene = Scene::with(&[("A", "1")]);
        let mut supervised = if pid_1 { as_pid_1(scene, script) } else { Supervised::start(scene, script) };
        assert_eq!(supervised.line(), "made");
        let supervisor = if pid_1 { outside(&supervised) } else { supervised.pid() };
        wait_until("no child but the one", || children(supervisor).len() == 1);
        assert_ne!(state(children(supervisor)[0]), "Z");
        assert_eq!(supervised.end().0.code(), Some(6));
    }
}

/// How often the canary is in the memory of a process, as root sees it.
fn copies(pid: u32) -> usize {
    copies_of(CANARY, pid)
}

fn copies_of(canary: &str, pid: u32) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let readable = maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|rights| rights.starts_with('r')));
    readable
        .map(|line| {
            let (from, to) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
            let [from, to] = [from, to].map(|end| u64::from_str_radix(end, 16).unwrap());
            let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
            let read = memory.read_at(&mut bytes, from).unwrap_or_default();
            bytes[..read].windows(canary.len()).filter(|window| *window == canary.as_bytes()).count()
        })
        .sum()
}

/// EXEC-15, MEM-5: the supervisor holds no plaintext. The child, searched in the same way, does.
#[test]
fn the_supervisor_holds_no_value() {
    if !have(&[], true) {
        return;
    }
    let scene = Scene::with(&[("A", CANARY), ("B", &CANARY.repeat(3000))]);
    let mut supervised = Supervised::start(scene, "echo ready; read -r line");
    assert_eq!(supervised.line(), "ready");
    let (supervisor, child) = (supervised.pid(), supervised.child());
    assert!(copies(child) > 3000, "the search finds what is there");
    assert_eq!(copies(supervisor), 0);
    // Nor can anybody of its own uid look: what it was given in its environment stays its own.
    let status = std::fs::metadata(format!("/proc/{supervisor}/environ")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&status) & 0o777, 0o400);
    drop(supervised.end());
}

/// Nor after it has looked for changes and started another child: what a look has fetched stays in the process that looked.
#[test]
fn the_supervisor_holds_no_value_after_a_restart_either() {
    if !have(&[], true) {
        return;
    }
    let scene = Scene::with(&[("A", CANARY), ("B", "1")]).and("[run]\nwatch = \"100ms\"");
    let mut supervised = Supervised::start(scene, "echo $B; exec sleep 1000");
    for value in ["1", "2", "3"] {
        assert_eq!(supervised.line(), value);
        supervised.scene.store(&[("A", CANARY), ("B", &(value.parse::<u32>().unwrap() + 1).to_string())]);
    }
    assert_eq!(supervised.line(), "4");
    assert_eq!(copies(supervised.pid()), 0);
    let child = *children(supervised.pid()).first().unwrap();
    assert!(copies(child) > 0);
    supervised.send("TERM");
    assert_eq!(supervised.end().0.signal(), Some(15));
}

/// `on_crash = "previous"`: what each child has is there once, what one ended of is not, and what was before goes when the next
/// one has settled. Whoever looks beside the child finds none of it.
#[test]
fn what_is_kept_to_go_back_to_is_there_once_and_for_its_time() {
    if !have(&[], true) {
        return;
    }
    const NEXT: &str = "wellensittich8Kq2Vn";
    const BAD: &str = "blaumeise4Xt9Lw";
    let rules = "[run]\nwatch = \"100ms\"\non_crash = \"previous\"\nagent = \"forbid\"";
    let scene = Scene::with(&[("A", CANARY)]).and(rules);
    let mut supervised = Supervised::start(scene, "echo $A; case $A in blau*) exit 9;; esac; exec sleep 1000");
    let pid = supervised.pid();
    let found = || [CANARY, BAD, NEXT].map(|canary| copies_of(canary, pid));
    assert_eq!(supervised.line(), CANARY);
    assert_eq!(found(), [1, 0, 0]);

    supervised.scene.store(&[("A", BAD)]);
    assert_eq!([supervised.line(), supervised.line()], [BAD, CANARY], "and back");
    assert_eq!(found(), [1, 0, 0]);

    supervised.scene.store(&[("A", NEXT)]);
    assert_eq!(supervised.line(), NEXT);
    assert_eq!(found(), [1, 0, 1]);
    wait_until("it has settled", || found() == [0, 0, 1]);
    supervised.send("TERM");
    assert_eq!(supervised.end().0.signal(), Some(15));
}

/// `sigqueue` with its value, as it came: python sees who queued and how.
#[test]
fn a_queued_signal_arrives_as_queued() {
    if !have(&["python3"], true) {
        return;
    }
    let receiver = "import signal,sys\nsignal.pthread_sigmask(signal.SIG_BLOCK,[40,41])\nprint('ready',flush=True)\n\
                    for _ in range(2):\n i=signal.sigwaitinfo([40,41])\n print(i.si_signo,i.si_code,flush=True)";
    let scene = Scene::with(&[("A", "1")]).variable("PATH", std::env::var_os("PATH").unwrap());
    let scene = Scene::variable(scene, "RECEIVER", receiver);
    let mut supervised = Supervised::start(scene, "exec python3 -c \"$RECEIVER\"");
    assert_eq!(supervised.line(), "ready");
    let pid = supervised.pid().to_string();
    assert!(Command::new("/bin/kill").args(["--queue", "77", "-s", "40", &pid]).status().unwrap().success());
    assert_eq!(supervised.line(), "40 -1", "SI_QUEUE");
    supervised.send(41);
    assert_eq!(supervised.line(), "41 0", "SI_USER");
    assert_eq!(supervised.end().0.code(), Some(0));
}
