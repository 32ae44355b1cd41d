//! Staying with the child: signals to it, its end from it, and its orphans reaped.
//!
//! [`supervise`] forks before anything is fetched ([`worker`]) and returns in the new process only, which becomes the child.
//! The old one stays here until the child has ended, and ends the same way. What must stay true:
//! - no signal is lost: all are blocked before the fork, and read one by one ([`forward`] says which are the child's);
//! - every orphan below us is reaped, as PID 1 or as subreaper (prctl(2), `PR_SET_CHILD_SUBREAPER`);
//! - a supervisor is not there for the child: its group and terminal are as they would be without ([`terminal`]), its stop is
//!   ours and its status is ours;
//! - the supervisor shortens nothing: between TERM and KILL there is only what whoever sent the TERM waits.

mod forward;
mod notify;
mod terminal;
mod worker;

use std::fmt;
use std::io;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, getpid, kill_process, kill_process_group, set_child_subreaper};

use crate::audit::{Auditor, End};
use crate::checked_file::plain_io;
use crate::error::{Cause, Class, Error, Format};
use crate::output;
use crate::sys;
use crate::sys::process::{Change, ChangeKind, acknowledge, next_change};
use crate::sys::signal::{Mask, Received, Signals};
use notify::Manager;
use terminal::Terminal;
pub use worker::Worker;
use worker::{Forked, Spawned, StartState, spawn};

/// The supervisor could not begin or go on.
#[derive(Debug)]
pub struct SuperviseError {
    doing: &'static str,
    error: io::Error,
}

impl fmt::Display for SuperviseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the supervisor cannot {}: {}", self.doing, plain_io(&self.error))
    }
}

impl Cause for SuperviseError {
    fn class(&self) -> Class {
        Class::Internal
    }
}

fn failed(doing: &'static str) -> impl Fn(io::Error) -> SuperviseError {
    move |error| SuperviseError { doing, error }
}

/// Begins to supervise. Returns in the process that is to become the child; the one that called stays in here, and ends as
/// the child ended.
///
/// `auditor` is the supervisor's own, for the record of that end; `notify_socket` is where the service manager listens.
///
/// # Errors
/// There is no second process to be had.
pub fn supervise(auditor: Auditor, notify_socket: Option<&std::ffi::OsStr>) -> Result<Worker, SuperviseError> {
    let mask = Mask::block_all().map_err(failed("block signals"))?;
    let start = StartState { mask, ignored_children: sys::signal::heed_children() };
    let signals = Signals::open().map_err(failed("read signals"))?;
    // PID 1 gets every orphan anyway. Where the kernel refuses, they go to PID 1, as without us.
    set_child_subreaper(Some(getpid())).unwrap_or_default();
    let terminal = Terminal::look();
    let access = auditor.access().clone();
    match spawn(start, &terminal, access).map_err(failed("start a process"))? {
        Forked::Worker(worker) => Ok(worker),
        Forked::Supervisor(child) => {
            let manager = Manager::at(notify_socket);
            manager.main_process_is(child.pid);
            let own = getpid();
            Supervisor { own, signals, terminal, auditor, child, asked_to_stop: false }.stay()
        }
    }
}

struct Supervisor {
    own: Pid,
    signals: Signals,
    terminal: Terminal,
    auditor: Auditor,
    child: Spawned,
    /// A signal that stops was passed on: if the child stops, we do.
    asked_to_stop: bool,
}

impl Supervisor {
    /// Until the child ends.
    fn stay(mut self) -> Result<Worker, SuperviseError> {
        loop {
            while let Some(received) = self.signals.next().map_err(failed("read signals"))? {
                self.on_signal(&received);
            }
            while let Some(change) = changed()? {
                self.on_change(change);
            }
            let mut ready = [PollFd::new(&self.signals, PollFlags::IN)];
            match poll(&mut ready, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(failed("wait")(errno.into())),
            }
        }
    }

    fn on_signal(&mut self, received: &Received) {
        let own = self.own.as_raw_nonzero().get().unsigned_abs();
        if !forward::is_for_child(received, own, self.terminal.reaches_child()) {
            return;
        }
        self.asked_to_stop |= forward::asks_to_stop(received.signal);
        if received.signal == libc::SIGCONT {
            self.asked_to_stop = false;
            self.terminal.hand_over(self.child.pid);
            if let Some(group) = self.terminal.group_of(self.child.pid) {
                // The terminal stopped all of it.
                kill_process_group(group, Signal::CONT).unwrap_or_default();
                return;
            }
        }
        // It may run as somebody else by now, whom we may signal no more than whoever sent this; or be gone, as we see next.
        received.pass_to(self.child.pid).unwrap_or_default();
    }

    fn on_change(&mut self, change: Change) {
        let is_child = change.pid == self.child.pid;
        match change.kind {
            ChangeKind::Exited(status) if is_child => self.end(change, End::Status(status)),
            ChangeKind::Killed(signal) if is_child => self.end(change, End::Signal(signal)),
            ChangeKind::Stopped(signal) if is_child => {
                acknowledge(change);
                self.on_stop(signal);
            }
            _ => acknowledge(change),
        }
    }

    /// Whoever watches us sees the child's stop as ours.
    fn on_stop(&mut self, signal: i32) {
        if self.asked_to_stop || self.terminal.has_job_control() {
            self.asked_to_stop = false;
            self.terminal.take_back(self.child.pid);
            // Goes on with the SIGCONT that continues us, which is then read and passed on.
            kill_process(self.own, Signal::STOP).unwrap_or_default();
        } else if signal == libc::SIGTSTP && self.terminal.is_there() {
            // Ctrl-Z where nobody could continue us, as in a container. Without us the kernel would not have stopped it.
            if let Some(group) = self.terminal.group_of(self.child.pid) {
                kill_process_group(group, Signal::CONT).unwrap_or_default();
            }
        }
    }

    /// The child has ended: so do we, in the same way.
    fn end(&mut self, change: Change, end: End) -> ! {
        let child = self.child.pid;
        // What is left of its group is asked to end too. Until it is acknowledged, no stranger has its number.
        if let Some(group) = self.terminal.group_of(child) {
            kill_process_group(group, Signal::TERM).unwrap_or_default();
        }
        acknowledge(change);
        self.terminal.take_back(child);
        while let Ok(Some(change)) = next_change() {
            acknowledge(change);
        }
        if self.child.was_executed()
            && let Err(error) = self.auditor.child_exited(child.as_raw_nonzero().get().unsigned_abs(), end)
        {
            // The access was written down, and what it was for is over: its status is still what counts.
            drop(output::complain(&(Error::from(error).render(Format::Text) + "\n")));
        }
        match end {
            End::Status(status) => sys::exit_now(status),
            End::Signal(signal) => sys::signal::die_of(signal),
        }
    }
}

/// That there is no child at all is said as an error by the kernel; while ours lives or is a zombie, it cannot be.
fn changed() -> Result<Option<Change>, SuperviseError> {
    next_change().map_err(failed("wait for the child"))
}
