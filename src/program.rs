//! One run of a program of the operator's: started, watched, ended with all that it started, its output kept within bounds.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process_group, pidfd_open, waitid, waitpid,
};
use zeroize::Zeroizing;

use crate::sys::{self, Strings};

/// Bytes of each stream that are kept.
pub const MAX_OUTPUT: usize = 64 * 1024;
/// Between TERM and KILL.
const GRACE: Duration = Duration::from_secs(2);
/// How long a killed process may take to be gone: one in the middle of a system call of a dead disk is left behind.
const LAST_WAIT: Duration = Duration::from_secs(5);
/// How often is looked where the kernel cannot tell of an end.
const TICK: Duration = Duration::from_millis(20);
/// Reads between two looks at the clock: a program that prints without end does not stop it.
const READS: usize = 64;

/// What is left of a program. No `Debug`: it may have printed values.
pub struct Ended {
    /// How it ended.
    pub how: How,
    /// Its standard output.
    pub stdout: Output,
    /// Its standard error.
    pub stderr: Output,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// By itself, with this status.
    Exited(i32),
    /// By a signal that was not ours.
    Signaled(i32),
    /// It took too long, and was killed.
    TimedOut,
}

/// The beginning of a stream.
pub struct Output {
    /// At most [`MAX_OUTPUT`] bytes.
    pub bytes: Zeroizing<Vec<u8>>,
    /// There was more.
    pub is_cut: bool,
}

/// Runs a program until its end, or until `timeout` and then at most a few seconds more.
///
/// # Errors
/// It could not be started.
pub fn run(path: &CStr, argv: &Strings, envp: &Strings, timeout: Duration) -> io::Result<Ended> {
    let null = File::open("/dev/null")?;
    let (stdout, child_stdout) = pipe_with(PipeFlags::CLOEXEC)?;
    let (stderr, child_stderr) = pipe_with(PipeFlags::CLOEXEC)?;
    for end in [&stdout, &stderr] {
        rustix::fs::fcntl_setfl(end, OFlags::NONBLOCK)?;
    }
    let streams = [null.as_fd(), child_stdout.as_fd(), child_stderr.as_fd()];
    let pid = sys::spawn(&sys::Program { path, argv, envp, streams })?;
    // Ours would keep the pipes open.
    drop((child_stdout, child_stderr));
    Ok(watch(pid, [Stream::new(stdout), Stream::new(stderr)], Instant::now() + timeout))
}

/// One stream, until it is closed.
struct Stream {
    end: Option<OwnedFd>,
    output: Output,
}

impl Stream {
    fn new(end: OwnedFd) -> Self {
        let bytes = Zeroizing::new(Vec::with_capacity(MAX_OUTPUT));
        Self { end: Some(end), output: Output { bytes, is_cut: false } }
    }

    /// Takes what is there.
    fn drain(&mut self) {
        let mut chunk = Zeroizing::new([0_u8; 16 * 1024]);
        for _ in 0..READS {
            let Some(end) = &self.end else { return };
            match rustix::io::read(end, chunk.as_mut_slice()) {
                Ok(0) => self.end = None,
                Ok(count) => {
                    let room = MAX_OUTPUT - self.output.bytes.len();
                    self.output.bytes.extend(chunk.iter().take(count.min(room)));
                    self.output.is_cut |= count > room;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.end = None,
            }
        }
    }
}

/// How far the program has been pushed.
enum Push {
    None,
    Term,
    Kill,
}

fn watch(pid: Pid, mut streams: [Stream; 2], mut until: Instant) -> Ended {
    let end = pidfd_open(pid, PidfdFlags::empty()).ok();
    let mut push = Push::None;
    let is_over = loop {
        if has_ended(pid) {
            break true;
        }
        streams.iter_mut().for_each(Stream::drain);
        let now = Instant::now();
        if now >= until {
            // A group that is gone already is the end that the next look finds.
            let (next, signal, more) = match push {
                Push::None => (Push::Term, Signal::TERM, GRACE),
                Push::Term => (Push::Kill, Signal::KILL, LAST_WAIT),
                Push::Kill => break false,
            };
            kill_process_group(pid, signal).unwrap_or_default();
            (push, until) = (next, now + more);
            continue;
        }
        let wait = (until - now).min(if end.is_some() { Duration::from_secs(60) } else { TICK });
        let wait = Timespec::try_from(wait).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        let open = streams.iter().filter_map(|stream| stream.end.as_ref()).chain(&end);
        let mut open: Vec<PollFd<'_>> = open.map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        // An interruption only means another look.
        poll(&mut open, Some(&wait)).unwrap_or_default();
    };
    // While its end is not taken note of, its number, and so its group's, is nobody else's. What it left running there has
    // its values, and may hold the pipes open.
    kill_process_group(pid, Signal::KILL).unwrap_or_default();
    let status = if is_over { waitpid(Some(pid), WaitOptions::empty()).ok().flatten() } else { None };
    streams.iter_mut().for_each(Stream::drain);
    let status = status.map(|(_, status)| status);
    let how = match (push, status) {
        (Push::Term | Push::Kill, _) | (Push::None, None) => How::TimedOut,
        (Push::None, Some(status)) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => How::Exited(code),
            (None, Some(signal)) => How::Signaled(signal),
            (None, None) => How::TimedOut,
        },
    };
    let [stdout, stderr] = streams.map(|stream| stream.output);
    Ended { how, stdout, stderr }
}

/// Whether the process ended, which is left to be reaped: until then its number stays its own.
fn has_ended(pid: Pid) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(waitid(WaitId::Pid(pid), options), Ok(None) | Err(Errno::INTR))
}
