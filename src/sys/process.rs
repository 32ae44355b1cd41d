//! Processes as a supervisor needs them: made without `exec`, and looked at before they are reaped.

use std::ffi::c_int;
use std::io;

use rustix::process::Pid;

/// On which side of a [`fork`] we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The new process.
    Child,
    /// The old one, and the number of the new one.
    Parent(Pid),
}

/// Makes a second process out of this one.
///
/// The caller has no other thread: the new process has only the one that called, and a lock that another one held would
/// stay locked in it for ever (fork(2)). A supervisor never starts one, and forks before a store does.
///
/// # Errors
/// A limit on processes or memory.
pub fn fork() -> io::Result<Side> {
    // SAFETY: no other thread exists, so nothing is in the middle of a change; both sides go on like any process.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Pid::from_raw(pid).map_or(Side::Child, Side::Parent)),
    }
}

/// The process group of a process, or of this one. `None` where it has none that this PID namespace knows: its leader lies
/// outside, and the kernel says 0 (pid_namespaces(7)), for which `rustix` has no value.
#[must_use]
pub fn group_of(pid: Option<Pid>) -> Option<Pid> {
    // SAFETY: asks for a number; a process that is gone is the answer -1.
    Pid::from_raw(unsafe { libc::getpgid(Pid::as_raw(pid)) }).filter(|group| group.as_raw_nonzero().get() > 0)
}

/// The session of a process, or of this one, as [`group_of`].
#[must_use]
pub fn session_of(pid: Option<Pid>) -> Option<Pid> {
    // SAFETY: as above.
    Pid::from_raw(unsafe { libc::getsid(Pid::as_raw(pid)) }).filter(|session| session.as_raw_nonzero().get() > 0)
}

/// What became of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Which one.
    pub pid: Pid,
    /// What.
    pub kind: ChangeKind,
}

/// What became of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It goes on after a stop.
    Continued,
    /// It ended by itself, with this status, 0 to 255.
    Exited(u8),
    /// It died of this signal.
    Killed(c_int),
    /// This signal stopped it.
    Stopped(c_int),
}

impl ChangeKind {
    /// Whether nothing more comes of it.
    #[must_use]
    pub fn is_end(self) -> bool {
        matches!(self, Self::Exited(_) | Self::Killed(_))
    }
}

/// The next change of any child, without taking note of it: an ended child keeps its number until [`acknowledge`]d, so that
/// its process group can be signalled and no stranger be hit.
///
/// # Errors
/// `ECHILD`: there is no child at all.
pub fn next_change() -> io::Result<Option<Change>> {
    let flags = libc::WEXITED | libc::WSTOPPED | libc::WCONTINUED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the structure is valid to be written to, and for numbers zero is a value.
    let (result, info) = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        (libc::waitid(libc::P_ALL, 0, &raw mut info, flags), info)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: waitid has filled in these members, or left the zeros (waitid(2)).
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    let Some(pid) = Pid::from_raw(pid) else { return Ok(None) };
    let kind = match info.si_code {
        // The kernel keeps the low eight bits only.
        libc::CLD_EXITED => ChangeKind::Exited(u8::try_from(status & 0xff).unwrap_or(u8::MAX)),
        libc::CLD_KILLED | libc::CLD_DUMPED => ChangeKind::Killed(status),
        libc::CLD_CONTINUED => ChangeKind::Continued,
        _ => ChangeKind::Stopped(status),
    };
    Ok(Some(Change { pid, kind }))
}

/// Takes note of a change: an ended child is gone then.
pub fn acknowledge(change: Change) {
    let which = match change.kind {
        ChangeKind::Exited(_) | ChangeKind::Killed(_) => libc::WEXITED,
        ChangeKind::Stopped(_) => libc::WSTOPPED,
        ChangeKind::Continued => libc::WCONTINUED,
    };
    let pid = libc::id_t::try_from(change.pid.as_raw_nonzero().get()).unwrap_or(0);
    // SAFETY: as above. That the child has changed again meanwhile only means that the next look finds it.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        libc::waitid(libc::P_PID, pid, &raw mut info, which | libc::WNOHANG);
    }
}
