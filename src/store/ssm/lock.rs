//! The right to rotate what lies below a prefix: claims in the versions of one parameter. Pure but for [`Process`].
//!
//! Parameter Store has no compare-and-swap. But versions are counted without gaps, so a claim that names the version it was
//! made after shows by its own number whether anything came in between: if it did, the claim counts for nothing, and everyone
//! sees that. See `docs/spec/ssm-stages.md` for the times.

use std::fs::File;
use std::io::Read;
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};

use crate::store::stages::Holder;

/// How long a claim lets its process write.
pub(super) const WRITES: Duration = Duration::from_secs(5 * 60);
/// A claim of which less is left is renewed.
pub(super) const RENEWED: Duration = Duration::from_secs(150);
/// How old a claim is by the time of AWS when nothing that it covered can arrive any more: its process writes for 5 minutes,
/// signs with a clock that is at most 5 minutes ahead, and AWS takes a signature for 5 minutes (IAM User Guide, "Elements of an
/// AWS API request signature"). Our own clock may be 5 minutes ahead as well.
const OVER: Duration = Duration::from_secs(20 * 60);
const FORMAT: &str = "vouchsafe-rotation-lock/1";
/// Characters of an owner that are kept.
const MOST_OWNER: usize = 300;

/// What a version of the lock says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claim {
    format: String,
    /// The version that it was made after: it counts only as the very next one.
    pub(super) after: u64,
    /// Taken, or given back.
    is_held: bool,
    /// User, host and process.
    owner: String,
    /// Since when (RFC 3339).
    since: String,
    /// Of the claims of one process, and of no other.
    pub(super) token: String,
    /// Which process, where it can be told.
    process: Option<Process>,
}

impl Claim {
    /// To hold the right.
    pub(super) fn held(after: u64, holder: &Holder, token: &str, process: Option<Process>) -> Self {
        // `{{` in a value is taken for a reference (PutParameter, Value).
        let owner = holder.owner.replace('{', "(").chars().take(MOST_OWNER).collect();
        let since = humantime::format_rfc3339_seconds(holder.since).to_string();
        Self { format: FORMAT.into(), after, is_held: true, owner, since, token: token.into(), process }
    }

    /// To give it back.
    pub(super) fn free(after: u64, token: &str) -> Self {
        let (owner, since) = (String::new(), String::new());
        Self { format: FORMAT.into(), after, is_held: false, owner, since, token: token.into(), process: None }
    }

    /// As it is written.
    pub(super) fn text(&self) -> Option<String> {
        serde_json::to_string(self).ok()
    }

    /// The claim in this version of the lock, if it counts.
    pub(super) fn of(version: u64, text: &[u8]) -> Option<Self> {
        let claim: Self = serde_json::from_slice(text).ok()?;
        (claim.format == FORMAT && claim.after.checked_add(1) == Some(version)).then_some(claim)
    }
}

/// What the lock says now.
pub(super) struct Seen {
    /// Its newest version; 0 if there is none.
    pub(super) newest: u64,
    /// The newest claim that counts.
    pub(super) claim: Option<Claim>,
    /// When that was written, or where no claim counts, the newest version.
    pub(super) written: Option<SystemTime>,
}

/// Whose the right is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Free,
    Ours,
    Theirs(Holder),
}

impl Seen {
    /// For the process with this token. `now` may be off by as much as AWS allows a signature to be.
    pub(super) fn standing(&self, token: &str, now: SystemTime, this: Option<&Process>) -> Standing {
        if self.newest == 0 {
            return Standing::Free;
        }
        // A time in the future is not old, and what has no time is not either.
        let is_over = self.written.is_some_and(|written| now.duration_since(written).is_ok_and(|age| age >= OVER));
        let Some(claim) = &self.claim else {
            // Somebody else's text, or more claims that lost than versions are kept.
            let since = self.written.unwrap_or(now);
            let owner = "somebody whose claim cannot be read".to_owned();
            return if is_over { Standing::Free } else { Standing::Theirs(Holder { owner, since }) };
        };
        if !claim.is_held {
            return Standing::Free;
        }
        if claim.token == token {
            return Standing::Ours;
        }
        let is_gone = || matches!((&claim.process, this), (Some(one), Some(this)) if one.is_gone(this));
        if is_over || is_gone() {
            return Standing::Free;
        }
        let since = humantime::parse_rfc3339(&claim.since).ok().or(self.written).unwrap_or(now);
        Standing::Theirs(Holder { owner: claim.owner.clone(), since })
    }
}

/// A process, so that another one on the same machine can tell that it is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    /// The machine, since it started (random(4), boot_id).
    boot: String,
    /// Where its number counts (pid_namespaces(7)).
    namespace: String,
    pid: i32,
    /// When it started, in ticks since boot (proc_pid_stat(5), field 22); another process may get its number.
    start: Option<u64>,
}

impl Process {
    /// This process; `None` where the kernel does not tell enough to recognise it.
    pub(super) fn this() -> Option<Self> {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let boot = read_start("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?.to_str()?.to_owned();
        (!boot.is_empty()).then(|| Self { boot, namespace, pid, start: start_of(pid) })
    }

    /// Whether it has certainly ended, as seen by `this` one. On another machine, or in another container, nobody knows.
    fn is_gone(&self, this: &Self) -> bool {
        if (&self.boot, &self.namespace) != (&this.boot, &this.namespace) {
            return false;
        }
        let Some(pid) = Pid::from_raw(self.pid) else { return false };
        match test_kill_process(pid) {
            Err(rustix::io::Errno::SRCH) => true,
            // There, but another one: only a number that is known to differ says so.
            _ => matches!((self.start, start_of(self.pid)), (Some(then), Some(now)) if then != now),
        }
    }
}

fn start_of(pid: i32) -> Option<u64> {
    let stat = read_start(&format!("/proc/{pid}/stat"))?;
    // The name is in parentheses, and may hold anything; the state after it is field 3.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

fn read_start(path: &str) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(4096).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder() -> Holder {
        Holder { owner: "root@a pid 7".into(), since: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) }
    }

    fn held(after: u64, token: &str, process: Option<Process>) -> Claim {
        Claim::held(after, &holder(), token, process)
    }

    fn read_back(claim: &Claim, version: u64) -> Option<Claim> {
        Claim::of(version, claim.text().unwrap().as_bytes())
    }

    #[test]
    fn a_claim_counts_only_as_the_version_after_the_one_it_was_made_after() {
        let claim = held(4, "t", Process::this());
        for (version, counts) in [(0, false), (4, false), (5, true), (6, false), (u64::MAX, false)] {
            assert_eq!(read_back(&claim, version).is_some(), counts, "{version}");
        }
        assert_eq!(read_back(&claim, 5), Some(claim));
        assert!(read_back(&held(u64::MAX, "t", None), 0).is_none());
        for text in ["", "x", "{}", r#"{"format":"other/1","after":4}"#] {
            assert!(Claim::of(5, text.as_bytes()).is_none(), "{text}");
        }
    }

    #[test]
    fn an_owner_cannot_make_a_value_that_is_refused() {
        let holder = Holder { owner: format!("{{{{ssm:x}}}}{}", "é".repeat(5000)), ..holder() };
        let text = Claim::held(1, &holder, &"f".repeat(32), Process::this()).text().unwrap();
        assert!(super::super::names::check_value(text.as_bytes()).is_ok() && text.len() < 4096);
    }

    #[test]
    fn whose_the_right_is() {
        let start = holder().since;
        let theirs = || Standing::Theirs(holder());
        let seen = |claim: Option<Claim>, written| Seen { newest: 5, claim, written };
        let after = |seconds| start + Duration::from_secs(seconds);
        for (name, seen, now, expected) in [
            ("no lock", Seen { newest: 0, claim: None, written: None }, start, Standing::Free),
            ("given back", seen(Some(Claim::free(4, "b")), Some(start)), start, Standing::Free),
            ("ours", seen(Some(held(4, "a", None)), Some(start)), start, Standing::Ours),
            ("ours, old", seen(Some(held(4, "a", None)), Some(start)), after(99_999), Standing::Ours),
            ("theirs", seen(Some(held(4, "b", None)), Some(start)), after(1199), theirs()),
            ("theirs, over", seen(Some(held(4, "b", None)), Some(start)), after(1200), Standing::Free),
            ("theirs, from the future", seen(Some(held(4, "b", None)), Some(after(9))), start, theirs()),
            ("theirs, without a time", seen(Some(held(4, "b", None)), None), after(99_999), theirs()),
            ("unreadable, old", seen(None, Some(start)), after(1200), Standing::Free),
        ] {
            assert_eq!(seen.standing("a", now, None), expected, "{name}");
        }
        let unreadable = seen(None, Some(start)).standing("a", after(5), None);
        assert!(matches!(unreadable, Standing::Theirs(_)), "{unreadable:?}");
    }

    #[test]
    fn what_was_of_a_process_that_is_gone_is_free_at_once_and_only_then() {
        let this = Process::this().unwrap();
        // The largest number that Linux gives is 2^22 (proc_sys_kernel(5), pid_max).
        let none = Process { pid: i32::MAX, ..this.clone() };
        for (name, process, is_free) in [
            ("alive", this.clone(), false),
            ("gone", none.clone(), true),
            ("another one has its number", Process { start: Some(1), ..this.clone() }, true),
            ("nobody knows when it started", Process { start: None, ..this.clone() }, false),
            ("on another machine", Process { boot: "x".into(), ..none.clone() }, false),
            ("in another container", Process { namespace: "pid:[1]".into(), ..none.clone() }, false),
            ("no number", Process { pid: 0, ..this.clone() }, false),
        ] {
            let seen = Seen { newest: 5, claim: Some(held(4, "b", Some(process))), written: Some(holder().since) };
            let standing = seen.standing("a", holder().since, Some(&this));
            assert_eq!(standing == Standing::Free, is_free, "{name}");
        }
        let seen = Seen { newest: 5, claim: Some(held(4, "b", Some(none))), written: Some(holder().since) };
        assert_ne!(seen.standing("a", holder().since, None), Standing::Free, "nobody knows who asks");
    }
}
