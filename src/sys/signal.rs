//! Signals as a supervisor needs them: all blocked and read one by one, with who sent each, and passed on as they came.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, Resource, Rlimit};

use super::{disposition, exit_now};

/// The highest signal number (signal(7)); the real-time signals end there.
const LAST: c_int = 64;

/// Which signals are blocked.
#[derive(Clone, Copy)]
pub struct Mask(libc::sigset_t);

impl Mask {
    /// Blocks every signal that can be blocked, and gives what was blocked before. The two that the C library keeps for
    /// itself (32 and 33; nptl(7)) stay as they are. A fault of our own still ends us: the kernel does not ask the mask then.
    ///
    /// # Errors
    /// None that the kernel is known to give.
    pub fn block_all() -> io::Result<Self> {
        // SAFETY: both sets are valid to be written to; the calls have no other condition.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            match libc::sigprocmask(libc::SIG_SETMASK, &raw const all, &raw mut before) {
                0 => Ok(Self(before)),
                _ => Err(io::Error::last_os_error()),
            }
        }
    }

    /// Blocks exactly what is in this mask.
    pub fn restore(&self) {
        // SAFETY: the set was filled by the kernel.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
    }
}

/// A signal that reached this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Its number.
    pub signal: c_int,
    /// `si_code` (sigaction(2)): above 0 the kernel made it, else a process sent it.
    pub code: c_int,
    /// The process that sent it, as far as this PID namespace knows it; 0 if it does not.
    pub sender: u32,
    /// What `sigqueue(3)` carries along.
    pub value: u64,
}

impl Received {
    /// Passes the signal on to a process.
    ///
    /// # Errors
    /// The process is gone, or it runs as somebody else.
    pub fn pass_to(&self, pid: Pid) -> io::Result<()> {
        let pid = pid.as_raw_nonzero().get();
        let result = if self.code == libc::SI_QUEUE {
            // What was a pointer is passed as the number that it is; a receiver in another process reads it as an integer.
            let value = libc::sigval { sival_ptr: std::ptr::without_provenance_mut(self.value as usize) };
            // SAFETY: sends a signal to another process; the value is not looked at.
            unsafe { libc::sigqueue(pid, self.signal, value) }
        } else {
            // SAFETY: sends a signal to another process.
            unsafe { libc::kill(pid, self.signal) }
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// The signals of this process that are blocked, to be read one by one (signalfd(2)).
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// Opens it for all signals. What is not blocked is not seen here.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn open() -> io::Result<Self> {
        // SAFETY: the set is valid to be written to; a descriptor that was just made is ours alone.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            match libc::signalfd(-1, &raw const all, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
                -1 => Err(io::Error::last_os_error()),
                fd => Ok(Self(OwnedFd::from_raw_fd(fd))),
            }
        }
    }

    /// The next signal, if one is there.
    ///
    /// # Errors
    /// The kernel refused to say.
    pub fn next(&self) -> io::Result<Option<Received>> {
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: plain numbers, for which zero is a value.
        let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
        // SAFETY: `info` has room for one record, and the kernel writes whole records only (signalfd(2)).
        let got = unsafe { libc::read(self.0.as_raw_fd(), (&raw mut info).cast(), size) };
        if usize::try_from(got) == Ok(size) {
            let signal = c_int::try_from(info.ssi_signo).unwrap_or(0);
            return Ok(Some(Received { signal, code: info.ssi_code, sender: info.ssi_pid, value: info.ssi_ptr }));
        }
        match io::Error::last_os_error() {
            error if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
            error => Err(error),
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// SIGCHLD was ignored until [`heed_children`].
static CHILDREN_WERE_IGNORED: AtomicBool = AtomicBool::new(false);

/// For whoever is going to wait for a child. Where SIGCHLD is ignored, as some service managers and shells leave it, the kernel
/// throws away how children ended, and waiting finds none (waitpid(2), notes). What [`execve`](super::execve) starts finds it
/// ignored again.
pub fn heed_children() {
    if disposition(libc::SIGCHLD) == libc::SIG_IGN {
        CHILDREN_WERE_IGNORED.store(true, Ordering::Relaxed);
        set(libc::SIGCHLD, libc::SIG_DFL);
    }
}

/// Sets SIGCHLD for whoever this process becomes.
pub(super) fn hand_on_children() {
    if CHILDREN_WERE_IGNORED.load(Ordering::Relaxed) {
        set(libc::SIGCHLD, libc::SIG_IGN);
    }
}

fn set(signal: c_int, disposition: libc::sighandler_t) {
    // SAFETY: sets a disposition that needs no handler.
    unsafe { libc::signal(signal, disposition) };
}

/// Ends this process by `signal`, so that whoever waits for us sees what a child of ours died of; as PID 1, which signals of
/// its own do not end (pid_namespaces(7)), with status 128+n. No core: it would be of the wrong process.
pub fn die_of(signal: c_int) -> ! {
    // Lowering a limit always works.
    let none = Rlimit { current: Some(0), maximum: rustix::process::getrlimit(Resource::Core).maximum };
    rustix::process::setrlimit(Resource::Core, none).unwrap_or_default();
    if (1..=LAST).contains(&signal) {
        set(signal, libc::SIG_DFL);
        // SAFETY: the set is valid to be written to; the signal goes to ourselves, and its default is to end us.
        unsafe {
            let mut one: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut one);
            libc::sigaddset(&raw mut one, signal);
            libc::kill(libc::getpid(), signal);
            libc::sigprocmask(libc::SIG_UNBLOCK, &raw const one, std::ptr::null_mut());
        }
    }
    exit_now(u8::try_from(signal.saturating_add(128)).unwrap_or(125))
}
