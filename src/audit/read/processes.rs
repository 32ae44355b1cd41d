//! Which of the processes in a log still run: proc(5), kill(2).
//!
//! "Gone" is only said of a process that certainly ended: an operator retires a credential on the strength of it. What runs
//! on another host, in another PID namespace, or where we may not look, is unknown. And it is said of the process that was
//! started, not of those that it started in turn, which inherit its environment.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, SystemTime};

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::record::Actor;
use super::when::Instant;
use crate::audit::process::{ProcessIdentity, Stat, has_our_clock, is_own_proc};

/// What is known of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Life {
    /// It runs.
    Running,
    /// Nobody here can say.
    Unknown(Unknown),
    /// It has ended.
    Gone,
}

/// Why nobody can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unknown {
    /// It was started on another host.
    OtherHost,
    /// Its number counts in another PID namespace: a container, or the host around ours.
    OtherNamespace,
    /// A process of that number runs, and the record or `/proc` does not say whether it is the same one.
    NotTold,
}

impl Life {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Running => "running",
            Self::Unknown(_) => "unknown",
        }
    }

    /// Why nobody can say.
    #[must_use]
    pub fn why(self) -> Option<&'static str> {
        match self {
            Self::Gone | Self::Running => None,
            Self::Unknown(Unknown::NotTold) => Some("no access to tell"),
            Self::Unknown(Unknown::OtherHost) => Some("another host"),
            Self::Unknown(Unknown::OtherNamespace) => Some("another container"),
        }
    }
}

/// What the kernel says of a process number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// No process has it.
    Absent,
    /// A process has it; more is not shown.
    Hidden,
    /// The process that has it was started then.
    Started(u64),
}

/// Where we look from.
#[derive(Debug, Clone, Default)]
pub(super) struct Here {
    pub(super) process: ProcessIdentity,
    pub(super) host: String,
    /// When the kernel was started.
    pub(super) booted: Option<Instant>,
}

/// The processes of this host, asked for as they come up.
pub struct Processes<'a> {
    here: Here,
    look: Box<dyn FnMut(u32) -> Look + 'a>,
    /// When the process of a number was started: at most one entry for each process that runs.
    started: HashMap<u32, u64>,
}

impl Processes<'_> {
    /// Those that this process can see.
    #[must_use]
    pub fn here() -> Self {
        let here = Here {
            process: ProcessIdentity::here(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            booted: booted(SystemTime::now()),
        };
        let can_see = is_own_proc();
        Self::new(here, move |pid| look(pid, can_see))
    }
}

impl<'a> Processes<'a> {
    pub(super) fn new(here: Here, look: impl FnMut(u32) -> Look + 'a) -> Self {
        Self { here, look: Box::new(look), started: HashMap::new() }
    }

    /// What is known of the process of a record that was written at `time`.
    pub fn life(&mut self, actor: &Actor<'_>, time: &str) -> Life {
        let here = &self.here.process;
        let (Some(boot), Some(namespace), Some(start)) = (&actor.boot_id, actor.pid_namespace, actor.start_ticks)
        else {
            return self.life_of_number(actor, time);
        };
        if here.boot_id.as_deref() != Some(boot) {
            return self.life_before(actor, time);
        }
        if here.pid_namespace != Some(namespace) {
            return Life::Unknown(Unknown::OtherNamespace);
        }
        // Of one number, a later process has a later start; what ran when we looked is asked for again at the end.
        match self.started.get(&actor.pid) {
            Some(known) if start < *known => Life::Gone,
            Some(known) if start == *known => Life::Running,
            _ => self.life_of(actor.pid, start),
        }
    }

    /// What is known now of a process of our own namespace.
    pub fn life_of(&mut self, pid: u32, start: u64) -> Life {
        match (self.look)(pid) {
            Look::Absent => Life::Gone,
            Look::Hidden => Life::Unknown(Unknown::NotTold),
            Look::Started(found) => {
                self.started.insert(pid, found);
                if found == start { Life::Running } else { Life::Gone }
            }
        }
    }

    /// Another start of a kernel: this host's before its last one, if the name says so and the time fits. Of a container
    /// neither tells, since names of containers come again.
    fn life_before(&self, actor: &Actor<'_>, time: &str) -> Life {
        let is_earlier = self.here.booted.as_ref().is_some_and(|booted| time < booted.as_str());
        let is_container = actor.container_id.is_some() || actor.pid_namespace != Some(FIRST_NAMESPACE);
        if is_earlier && !is_container && *actor.host == *self.here.host && self.here.process.boot_id.is_some() {
            Life::Gone
        } else {
            Life::Unknown(Unknown::OtherHost)
        }
    }

    /// A record that does not say which process it was, only its number. If nothing has that number, it is gone.
    fn life_of_number(&mut self, actor: &Actor<'_>, time: &str) -> Life {
        if *actor.host != *self.here.host {
            return Life::Unknown(Unknown::OtherHost);
        }
        // 0 is no process's: who connected to the agent was in a namespace that shows the agent no number.
        if actor.container_id.is_some() || actor.pid == 0 {
            return Life::Unknown(Unknown::OtherNamespace);
        }
        if actor.pid_namespace.is_none() && self.here.process.pid_namespace.is_some_and(|own| own != FIRST_NAMESPACE) {
            return Life::Unknown(Unknown::OtherNamespace);
        }
        if self.here.booted.as_ref().is_some_and(|booted| time < booted.as_str()) {
            return Life::Gone;
        }
        match (self.look)(actor.pid) {
            Look::Absent => Life::Gone,
            Look::Hidden | Look::Started(_) => Life::Unknown(Unknown::NotTold),
        }
    }
}

/// `PROC_PID_INIT_INO` (Linux, include/linux/proc_ns.h): the PID namespace that a host begins with.
const FIRST_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Signal 0 is cheap and is not fooled by `hidepid`, which makes `/proc` look as if others' processes were not there.
fn look(pid: u32, can_see: bool) -> Look {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
    match number.map(test_kill_process) {
        None | Some(Err(Errno::SRCH)) => return Look::Absent,
        Some(Ok(()) | Err(_)) => {}
    }
    let stat: io::Result<Option<Stat>> = if can_see { Stat::of(pid) } else { Ok(None) };
    match stat {
        Ok(Some(stat)) if stat.is_dead => Look::Absent,
        Ok(Some(stat)) if has_our_clock(pid) => Look::Started(stat.start_ticks),
        Ok(Some(_)) => Look::Hidden,
        // It may have ended in between; if it is still there, it is hidden.
        Ok(None) | Err(_) => match number.map(test_kill_process) {
            Some(Err(Errno::SRCH)) => Look::Absent,
            _ => Look::Hidden,
        },
    }
}

fn booted(now: SystemTime) -> Option<Instant> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open("/proc/uptime").ok()?.take(256).read_to_string(&mut text).ok()?;
    let seconds: f64 = text.split_ascii_whitespace().next()?.parse().ok()?;
    now.checked_sub(Duration::try_from_secs_f64(seconds).ok()?).map(Instant::of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::read::record::Text;

    fn here() -> Here {
        Here {
            process: ProcessIdentity {
                boot_id: Some("b".repeat(32)),
                pid_namespace: Some(FIRST_NAMESPACE),
                start_ticks: None,
            },
            host: "host-1".into(),
            booted: Some(Instant::of(humantime::parse_rfc3339("2026-01-02T00:00:00Z").unwrap())),
        }
    }

    fn actor(pid: u32) -> Actor<'static> {
        Actor {
            pid,
            host: Text("host-1".into()),
            boot_id: Some(Text("b".repeat(32).into())),
            pid_namespace: Some(FIRST_NAMESPACE),
            start_ticks: Some(500),
            ..Actor::default()
        }
    }

    /// 7 runs since 500, 8 since 900, 9 is another user's, 10 is gone.
    fn life(actor: &Actor<'_>, time: &str) -> Life {
        let look = |pid| match pid {
            7 => Look::Started(500),
            8 => Look::Started(900),
            9 => Look::Hidden,
            _ => Look::Absent,
        };
        Processes::new(here(), look).life(actor, time)
    }

    const NOW: &str = "2026-01-03T00:00:00.000000Z";
    const BEFORE: &str = "2026-01-01T00:00:00.000000Z";

    #[test]
    fn only_what_certainly_ended_is_gone() {
        use Life::{Gone, Running};
        let unknown = Life::Unknown;
        let other_boot = |pid| Actor { boot_id: Some(Text("c".repeat(32).into())), ..actor(pid) };
        let contained = |pid| Actor { pid_namespace: Some(4_026_532_999), ..actor(pid) };
        let old = |pid| Actor { boot_id: None, pid_namespace: None, start_ticks: None, ..actor(pid) };
        let elsewhere = |actor: Actor<'static>| Actor { host: Text("host-2".into()), ..actor };
        let id = || Some(Text("a".repeat(64).into()));
        for (what, actor, time, expected) in [
            ("the same", actor(7), NOW, Running),
            ("its number was given out again", actor(8), NOW, Gone),
            ("no such number", actor(10), NOW, Gone),
            ("not shown", actor(9), NOW, unknown(Unknown::NotTold)),
            ("a container renamed, on this kernel", elsewhere(actor(7)), NOW, Running),
            ("another namespace", contained(7), NOW, unknown(Unknown::OtherNamespace)),
            ("before this host's last start", other_boot(7), BEFORE, Gone),
            ("a later time than that: another host of that name", other_boot(7), NOW, unknown(Unknown::OtherHost)),
            ("another host", elsewhere(other_boot(7)), BEFORE, unknown(Unknown::OtherHost)),
            (
                "a container before the last start, somewhere",
                Actor { container_id: id(), ..other_boot(7) },
                BEFORE,
                unknown(Unknown::OtherHost),
            ),
            (
                "a namespace before the last start, somewhere",
                Actor { pid_namespace: Some(4_026_532_999), ..other_boot(7) },
                BEFORE,
                unknown(Unknown::OtherHost),
            ),
            ("only a number, and it runs", old(7), NOW, unknown(Unknown::NotTold)),
            ("only a number, and none runs", old(10), NOW, Gone),
            ("no number, of who connected to the agent", old(0), NOW, unknown(Unknown::OtherNamespace)),
            ("only a number, from before the last start", old(7), BEFORE, Gone),
            ("only a number, on another host", elsewhere(old(10)), BEFORE, unknown(Unknown::OtherHost)),
            (
                "only a number, in a container",
                Actor { container_id: id(), ..old(10) },
                NOW,
                unknown(Unknown::OtherNamespace),
            ),
        ] {
            assert_eq!(life(&actor, time), expected, "{what}");
        }
    }

    #[test]
    fn a_process_is_looked_at_once_for_many_records() {
        let looks = std::cell::Cell::new(0);
        let look = |_| {
            looks.set(looks.get() + 1);
            Look::Started(500)
        };
        let mut processes = Processes::new(here(), look);
        let earlier = Actor { start_ticks: Some(400), ..actor(7) };
        let later = Actor { start_ticks: Some(600), ..actor(7) };
        let lives: Vec<_> = [&actor(7), &actor(7), &earlier].map(|actor| processes.life(actor, NOW)).to_vec();
        assert_eq!((lives, looks.get()), (vec![Life::Running, Life::Running, Life::Gone], 1));
        assert_eq!(
            (processes.life(&later, NOW), looks.get()),
            (Life::Gone, 2),
            "the number may have been given out since"
        );
        assert_eq!((processes.life_of(7, 500), looks.get()), (Life::Running, 3));
    }

    #[test]
    fn this_host_can_be_asked() {
        let own = ProcessIdentity::of_this_process();
        let boot = own.boot_id.unwrap();
        let mut actor = Actor {
            pid: std::process::id(),
            boot_id: Some(Text(boot.as_str().into())),
            pid_namespace: own.pid_namespace,
            start_ticks: own.start_ticks,
            ..Actor::default()
        };
        let mut processes = Processes::here();
        assert_eq!(processes.life(&actor, NOW), Life::Running);
        actor.start_ticks = actor.start_ticks.map(|ticks| ticks - 1);
        assert_eq!(processes.life(&actor, NOW), Life::Gone);
        // More than the kernel ever gives out (PID_MAX_LIMIT).
        assert_eq!(processes.life(&Actor { pid: 4_194_305, ..actor.clone() }, NOW), Life::Gone);
        assert_eq!(processes.life(&Actor { pid: 0, ..actor }, NOW), Life::Gone);
        assert!(booted(SystemTime::now()).unwrap() < Instant::of(SystemTime::now()));
    }
}
