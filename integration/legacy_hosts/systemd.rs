//! What systemd does to the agent and to a service, done by the test and by `systemd-socket-activate`: the socket is handed over,
//! the notices are heard, the signals sent. The command lines, users and modes are those of the units.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::unit::Unit;
use super::{Host, Manager, Running, text_of};
use crate::supervised::wait_until;

/// A tenth of the unit's, for the test's sake.
const WATCHDOG: Duration = Duration::from_secs(3);

/// An agent as its units say, which starts when somebody knocks; after it, once more when `/run/go` is there.
struct Activated<'h> {
    host: &'h Host,
    manager: Manager,
    holder: Running,
}

impl<'h> Activated<'h> {
    fn new(host: &'h Host, mode: Option<u32>) -> Self {
        let unit = Unit::shipped("systemd/vouchsafe-agent.service");
        let socket = Unit::shipped("systemd/vouchsafe-agent.socket");
        let path = socket.get("ListenStream");
        host.ok(&["install", "-d", "-m", socket.get("DirectoryMode"), "/run/vouchsafe"], "");
        let manager = Manager::new(host);
        let notify = format!("NOTIFY_SOCKET={}", manager.path.display());
        let watchdog = format!("WATCHDOG_USEC={}", WATCHDOG.as_micros());
        // The process is the one whose number it is told; and its parent keeps the socket, as systemd does.
        let line = [unit.as_user(), unit.words()].concat().join(" ");
        let once = format!("sh -c 'export LISTEN_PID=$$ WATCHDOG_PID=$$; exec {line}'");
        let script = format!("{once}; until [ -e /run/go ]; do sleep 0.05; done; {once}");
        let words = ["systemd-socket-activate", "-l", path, "-E", &notify, "-E", &watchdog, "sh", "-c", &script];
        let log = std::fs::File::create(host.scene.path("agent.log")).unwrap();
        let holder = Running(Some(host.command(&words).stderr(log).spawn().unwrap()));
        wait_until("the socket", || host.path(path).exists());
        let mode = mode.unwrap_or_else(|| u32::from_str_radix(socket.get("SocketMode"), 8).unwrap());
        std::fs::set_permissions(host.path(path), PermissionsExt::from_mode(mode)).unwrap();
        Self { host, manager, holder }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.host.scene.path("agent.log")).unwrap()
    }

    fn signal(&self, signal: &str) {
        self.host.ok(&["pkill", "--signal", signal, "--uid", "vouchsafe"], "");
    }
}

fn service() -> Unit {
    Unit::shipped("systemd/vouchsafe-run-agent-example.service")
}

/// The example's service, from its start to where it says that it is ready; and its number on the host.
fn start_service(host: &Host, meanwhile: impl FnOnce()) -> (Running, String) {
    let mut child = service().command(host).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let runs = Running(Some(child));
    meanwhile();
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let pid = host.ok(&["pgrep", "--uid", "api", "--full", "^/opt/api/bin/api --port 8080$"], "");
    (runs, pid.trim().to_owned())
}

fn microseconds() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec * 1_000_000 + now.tv_nsec / 1000).unwrap()
}

#[test]
fn the_units_as_systemd_would_run_them() {
    let Some(host) = Host::start(&["systemd-socket-activate", "pkill", "pgrep"]) else { return };
    let mut activated = Activated::new(&host, None);
    let manager = &activated.manager;
    assert_eq!(host.run(&["pgrep", "--uid", "vouchsafe"], "").status.code(), Some(1), "nobody has knocked");

    // The service is early: it knocks, and is served by the agent that comes.
    let (mut runs, api) = start_service(&host, || ());
    assert!(manager.hear().starts_with("READY=1"));
    assert_eq!(host.user_of(&api), "api");
    assert!(host.environment(&api).contains(&"DATABASE_URL=canary-of-api".to_owned()));
    host.was_last("access.released", "api", "api");
    host.has_no_means("api");
    assert!(activated.log().contains("\"handed_over\":true"), "{}", activated.log());

    // Alive, about twice as often as is asked for, and not if it hangs.
    manager.hear_of("WATCHDOG=1");
    for _ in 0..2 {
        let since = Instant::now();
        manager.hear_of("WATCHDOG=1");
        assert!((WATCHDOG / 4..WATCHDOG).contains(&since.elapsed()), "{:?}", since.elapsed());
    }
    activated.signal("STOP");
    manager.hear_nothing_for(WATCHDOG);
    activated.signal("CONT");
    manager.hear_of("WATCHDOG=1");

    let before = microseconds();
    activated.signal("HUP");
    let heard = manager.hear_of("RELOADING=1\nMONOTONIC_USEC=");
    let at: u64 = heard.rsplit_once('=').unwrap().1.parse().unwrap();
    assert!((before..=microseconds()).contains(&at), "{before} {at}");
    manager.hear_of("READY=1");

    // Stopped, it leaves the socket. Who knocks meanwhile is served by the next one.
    activated.signal("TERM");
    manager.hear_of("STOPPING=1");
    wait_until("the end", || host.run(&["pgrep", "--uid", "vouchsafe"], "").status.code() == Some(1));
    assert_eq!(host.audit().last().unwrap()["event"], "agent.stopped");
    assert!(host.path("/run/vouchsafe/agent.sock").exists() && host.lives(&api));
    host.ok(&["kill", "-TERM", &api], "");
    assert_eq!(runs.end().status.code(), Some(0));
    host.set("api", "DATABASE_URL", "canary-of-later");
    let (mut runs, api) = start_service(&host, || {
        wait_until("somebody who waits", || host.run(&["pgrep", "--uid", "api"], "").status.success());
        host.write("/run/go", "", 0o644);
        manager.hear_of("READY=1");
    });
    assert!(host.environment(&api).contains(&"DATABASE_URL=canary-of-later".to_owned()));
    host.ok(&["kill", "-TERM", &api], "");
    assert_eq!(runs.end().status.code(), Some(0));
    assert!(!activated.log().contains("canary"));
    activated.signal("TERM");
    assert_eq!(activated.holder.end().status.code(), Some(0));
}

#[test]
fn a_unit_whose_user_has_no_grant_does_not_start() {
    let Some(host) = Host::start(&["systemd-socket-activate"]) else { return };
    let _agent = Activated::new(&host, None);
    for user in ["shop", "stranger"] {
        let unit = Unit(service().0.replace("User=api", &format!("User={user}")));
        let refused = unit.command(&host).output().unwrap();
        let text = text_of(&refused);
        assert_eq!(refused.status.code(), Some(120), "{text}");
        assert!(text.contains("gives you nothing for `prod`, service `api`") && !text.contains("canary"), "{text}");
        host.was_last("access.denied", user, "api");
        // What it says to do, root can do.
        let hint = text.split_once("vouchsafe audit show ").unwrap().1.split("   #").next().unwrap();
        let shown = host.ok(&["sh", "-c", &format!("/usr/local/bin/vouchsafe audit show {hint}")], "");
        assert!(shown.contains("access.denied"), "{shown}");
    }
}

#[test]
fn a_socket_that_lets_nobody_in_is_not_served() {
    let Some(host) = Host::start(&["systemd-socket-activate"]) else { return };
    let activated = Activated::new(&host, Some(0o644));
    let _knocks = UnixStream::connect(host.path("/run/vouchsafe/agent.sock")).unwrap();
    wait_until("a word", || activated.log().contains("error[internal]"));
    wait_until("the hint", || activated.log().contains("SocketMode=0666"));
}

/// The calls of `@group` as systemd has it, and of the groups in it.
fn calls(listing: &str, group: &str, into: &mut BTreeSet<String>) {
    let of_group = listing.lines().skip_while(|line| *line != group).skip(1).take_while(|line| line.starts_with(' '));
    for name in of_group.map(str::trim).filter(|name| !name.starts_with('#')) {
        if name.starts_with('@') {
            calls(listing, name, into);
        } else {
            into.insert(name.to_owned());
        }
    }
}

/// What the unit takes from the agent, the agent does not need: what it asks of the kernel, from its start to its end, is what
/// the filters let through. That it raises its limit of descriptors is not; the unit does that.
#[test]
fn the_filters_of_the_unit_let_the_agent_work() {
    let Some(host) = Host::start(&["strace", "systemd-analyze", "pkill"]) else { return };
    let unit = Unit::shipped("systemd/vouchsafe-agent.service");
    let listing = host.ok(&["systemd-analyze", "syscall-filter", "--no-pager"], "");
    let (mut allowed, mut refused) = (BTreeSet::new(), BTreeSet::new());
    for filter in unit.0.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (groups, into) = filter.strip_prefix('~').map_or((filter, &mut allowed), |rest| (rest, &mut refused));
        groups.split(' ').for_each(|group| calls(&listing, group, into));
    }
    assert!(allowed.len() > 200 && refused.contains("setrlimit"), "{} {}", allowed.len(), refused.len());

    for folder in ["/run/vouchsafe", "/run/trace"] {
        host.ok(&["install", "-d", "-o", "vouchsafe", folder], "");
    }
    let manager = Manager::new(&host);
    let strace = ["strace", "-f", "-qq", "-o", "/run/trace/calls"];
    let mut command = host.command(&[&unit.as_user(), &strace[..], &unit.words()].concat());
    let notify = command.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "100000");
    let mut agent = Running(Some(notify.stderr(Stdio::null()).spawn().unwrap()));
    manager.hear_of("READY=1");
    let (mut runs, api) = start_service(&host, || ());
    host.ok(&["kill", &api], "");
    runs.end();
    host.ok(&["pkill", "--signal", "HUP", "--exact", "vouchsafe"], "");
    manager.hear_of("RELOADING=1");
    manager.hear_of("READY=1");
    manager.hear_of("WATCHDOG=1");
    host.ok(&["/usr/local/bin/vouchsafe", "agent", "flush"], "");
    host.ok(&["pkill", "--signal", "TERM", "--exact", "vouchsafe"], "");
    assert_eq!(agent.end().status.code(), Some(0));

    let trace = host.read("/run/trace/calls");
    let lines = trace.lines().filter_map(|line| line.split_once(' ').map(|(_, call)| call.trim_start()));
    let mut seen = BTreeSet::new();
    for line in lines.filter(|line| !line.starts_with(['<', '+', '-'])) {
        let name = line.split_once('(').unwrap_or_else(|| panic!("{line}")).0;
        seen.insert(name.to_owned());
        let is_allowed = allowed.contains(name) && !refused.contains(name) || name == "prlimit64";
        assert!(is_allowed, "{line}");
        // MemoryDenyWriteExecute.
        assert!(!(name == "mmap" && line.contains("PROT_WRITE|PROT_EXEC")), "{line}");
        assert!(!(name == "mprotect" && line.contains("PROT_EXEC")), "{line}");
        let family = line.strip_prefix("socket(").map(|rest| rest.split(',').next().unwrap());
        assert!(
            family.is_none_or(|family| unit.get("RestrictAddressFamilies").split(' ').any(|word| word == family)),
            "{line}"
        );
    }
    assert!(seen.contains("accept4") && seen.contains("fdatasync") && seen.contains("mlock2"), "{seen:?}");
}
