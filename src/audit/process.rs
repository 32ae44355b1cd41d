//! What tells a process from every other one, also after its number was given to another: proc(5), namespaces(7).
//!
//! execve changes none of it, so a record that the wrapper wrote still names its child. What the kernel does not show is
//! left out; nothing here may fail an access.

use std::fs::File;
use std::io::Read;
use std::sync::OnceLock;

/// A process, more exactly than by its number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessIdentity {
    /// This start of the kernel: 32 hexadecimal digits, as journald's `_BOOT_ID`. The same in every container of a host.
    pub boot_id: Option<String>,
    /// The inode of the PID namespace that the process number counts in.
    pub pid_namespace: Option<u64>,
    /// When the process was started: clock ticks since the start of the kernel.
    pub start_ticks: Option<u64>,
}

impl ProcessIdentity {
    /// This process.
    #[must_use]
    pub fn of_this_process() -> Self {
        Self {
            start_ticks: read("/proc/self/stat").and_then(|text| Stat::parse(&text)).map(|stat| stat.start_ticks),
            ..Self::here()
        }
    }

    /// Another process of our PID namespace: a peer, as the kernel has told its number.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        // Of the place nothing changes while a process lives, and who asks for one peer asks for thousands.
        static PLACE: OnceLock<(ProcessIdentity, bool)> = OnceLock::new();
        let (here, is_own_proc) = PLACE.get_or_init(|| (Self::here(), is_own_proc()));
        let start_ticks = if *is_own_proc { Stat::of(pid).ok().flatten().map(|stat| stat.start_ticks) } else { None };
        Self { start_ticks, ..here.clone() }
    }

    /// Where processes that are seen from here are, without any one of them.
    #[must_use]
    pub fn here() -> Self {
        Self {
            boot_id: boot_id().map(str::to_owned),
            pid_namespace: std::fs::read_link("/proc/self/ns/pid").ok().and_then(|link| inode(&link.to_string_lossy())),
            start_ticks: None,
        }
    }
}

/// This start of the kernel, asked for once.
pub(super) fn boot_id() -> Option<&'static str> {
    static BOOT: OnceLock<Option<String>> = OnceLock::new();
    let ask = || {
        let id = read("/proc/sys/kernel/random/boot_id")?.trim().replace('-', "");
        (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
    };
    BOOT.get_or_init(ask).as_deref()
}

/// `pid:[4026531836]`.
fn inode(link: &str) -> Option<u64> {
    link.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok()
}

/// Whether `/proc` shows the processes of our own PID namespace; it may be mounted for another one.
pub(super) fn is_own_proc() -> bool {
    let own = std::process::id().to_string();
    std::fs::read_link("/proc/self").is_ok_and(|link| link.as_os_str() == own.as_str())
}

/// Whether a process counts time since the start of the kernel as we do. In a time namespace (time_namespaces(7)) it need not,
/// and then its start, as its own record has it, is not the one that we see.
pub(super) fn has_our_clock(pid: u32) -> bool {
    let offset = |path: &str| read(path).map(|text| boot_offset(&text)).unwrap_or_default();
    offset(&format!("/proc/{pid}/timens_offsets")) == offset("/proc/self/timens_offsets")
}

/// `boottime 0 0`, in seconds and nanoseconds. A kernel without such namespaces has no such file.
fn boot_offset(text: &str) -> Option<(i64, i64)> {
    let line = text.lines().find(|line| line.starts_with("boottime"))?;
    let mut numbers = line.split_ascii_whitespace().skip(1).map(str::parse);
    let offset = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    (offset != (0, 0)).then_some(offset)
}

/// What `/proc/PID/stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// It has ended, memory and all, and only waits for its parent.
    pub(super) is_dead: bool,
    pub(super) start_ticks: u64,
}

impl Stat {
    /// `None` if there is no such process, or none that we may see.
    pub(super) fn of(pid: u32) -> std::io::Result<Option<Self>> {
        let mut bytes = Vec::with_capacity(512);
        match File::open(format!("/proc/{pid}/stat")).and_then(|file| file.take(4096).read_to_end(&mut bytes)) {
            Ok(_) => Ok(Self::parse(&String::from_utf8_lossy(&bytes))),
            // ESRCH: it ended between the two calls.
            Err(error)
                if error.kind() == std::io::ErrorKind::NotFound
                    || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The name in parentheses may hold anything, so fields are counted from the last closing one: 3 is the state, 20 the
    /// number of threads, 22 the start. A process whose first thread has ended while others go on shows `Z` too.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?;
        let threads: u64 = fields.nth(16)?.parse().ok()?;
        let start_ticks = fields.nth(1)?.parse().ok()?;
        Some(Self { is_dead: matches!(state, "Z" | "X" | "x") && threads <= 1, start_ticks })
    }
}

fn read(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(512);
    File::open(path).ok()?.take(4096).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_program_is_called() {
        let line = |name: &str, state: &str, threads: u32| {
            format!(
                "7 ({name}) {state} 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 {threads} 0 12345 2322432 187 18446744073709551615\n"
            )
        };
        for name in ["cat", "a b", "x) R 1 (y", ") Z ("] {
            assert_eq!(Stat::parse(&line(name, "S", 1)), Some(Stat { is_dead: false, start_ticks: 12345 }), "{name}");
        }
        assert_eq!(Stat::parse(&line("cat", "Z", 1)).map(|stat| stat.is_dead), Some(true));
        assert_eq!(Stat::parse(&line("cat", "Z", 3)).map(|stat| stat.is_dead), Some(false), "other threads go on");
        for text in ["", "7 (cat", "7 (cat) S 1 2", "7 (cat) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 x 0 12345"] {
            assert_eq!(Stat::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_clock_of_another_time_namespace_is_told() {
        assert_eq!(boot_offset("monotonic           0         0\nboottime            0         0\n"), None);
        assert_eq!(boot_offset("monotonic           0         0\nboottime          -99         5\n"), Some((-99, 5)));
        assert_eq!(boot_offset(""), None);
        assert!(has_our_clock(std::process::id()));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a plain child, to look at")]
    fn this_process_is_itself_and_no_other() {
        let own = ProcessIdentity::of_this_process();
        assert_eq!(own, ProcessIdentity::of(std::process::id()));
        assert!(own.boot_id.is_some() && own.pid_namespace.is_some() && own.start_ticks.is_some(), "{own:?}");
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let other = ProcessIdentity::of(child.id());
        assert!(other.start_ticks.is_some() && other.boot_id == own.boot_id);
        drop(child.stdin.take());
        // Ended, and not waited for: a zombie.
        rustix::process::waitid(
            rustix::process::WaitId::Pid(rustix::process::Pid::from_child(&child)),
            rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT,
        )
        .unwrap();
        assert_eq!(Stat::of(child.id()).unwrap().map(|stat| stat.is_dead), Some(true));
        child.wait().unwrap();
        assert_eq!(Stat::of(child.id()).unwrap(), None);
    }
}
