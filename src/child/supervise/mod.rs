//! Staying with the child: signals to it, its end from it, and its orphans reaped; and a new child when a secret changed.
//!
//! [`supervise`] forks before anything is fetched ([`worker`]) and returns in the new process only, which becomes the child.
//! The old one stays here until the child has ended, and ends the same way. What must stay true:
//! - no signal is lost: all are blocked before the fork, and read one by one ([`forward`] says which are the child's);
//! - every orphan below us is reaped, as PID 1 or as subreaper (prctl(2), `PR_SET_CHILD_SUBREAPER`);
//! - a supervisor is not there for the child: its group and terminal are as they would be without ([`terminal`]), its stop is
//!   ours and its status is ours;
//! - the supervisor shortens nothing: between TERM and KILL there is only what whoever sent the TERM waits;
//! - nothing secret is in here; but for what a child that cannot live with a change is to go back to, where the policy wants
//!   that ([`before`]);
//! - a child is stopped for a new one only when that one waits for its start, with everything granted, fetched and written
//!   down ([`restart`]; [`changes`] says when to look).

mod before;
mod book;
mod changes;
mod forward;
mod notify;
mod restart;
mod spawned;
mod terminal;
mod worker;

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use ring::hmac;
use ring::rand::SystemRandom;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, getpid, kill_process, kill_process_group, set_child_subreaper};

use crate::audit::End;
use crate::checked_file::plain_io;
use crate::error::{Cause, Class, Error, Format};
use crate::output;
use crate::policy::model::{OnChange, OnCrash, RunRules};
use crate::sys;
use crate::sys::process::{Change, ChangeKind, acknowledge, next_change};
use crate::sys::signal::{Mask, Received, Signals};
use before::Before;
pub use book::{Book, Why};
use changes::{Chances, Changes, Noticing, Polling};
pub use changes::{Heard, Notices};
use notify::Manager;
use restart::Phase;
use spawned::Spawned;
use terminal::Terminal;
use worker::{Digest, Forked, Task, spawn};
pub use worker::{Next, Told, Worker};

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

    fn hint(&self) -> Option<String> {
        let memory = self.doing == worker::LOCK_MEMORY;
        memory.then(|| "ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit, or on_crash = \"again\"".into())
    }
}

fn failed(doing: &'static str) -> impl Fn(io::Error) -> SuperviseError {
    move |error| SuperviseError { doing, error }
}

/// Begins to supervise. Returns in the process that is to become the child, and in every later one; the one that called
/// stays in here, and ends as the child ended.
///
/// `book` is where the ends of children are written down; `notices` is who tells of changes, where somebody does;
/// `notify_socket` is where the service manager listens.
///
/// # Errors
/// There is no second process to be had.
pub fn supervise(
    book: Box<dyn Book>,
    rules: &RunRules,
    notices: Option<Box<dyn Notices>>,
    notify_socket: Option<&OsStr>,
) -> Result<Worker, SuperviseError> {
    let no_random = |_| failed("draw a random key")(io::ErrorKind::Other.into());
    let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map_err(no_random)?;
    let mask = Mask::block_all().map_err(failed("block signals"))?;
    sys::signal::heed_children();
    let signals = Signals::open().map_err(failed("read signals"))?;
    // PID 1 gets every orphan anyway. Where the kernel refuses, they go to PID 1, as without us.
    set_child_subreaper(Some(getpid())).unwrap_or_default();
    let terminal = Terminal::look();
    let watch = rules.watch.filter(|_| rules.on_change == OnChange::Restart);
    let keeps = watch.is_some() && rules.on_crash == OnCrash::Previous;
    match spawn(mask, &terminal, Task::First, &key, keeps).map_err(failed("start a process"))? {
        Forked::Worker(worker) => Ok(*worker),
        Forked::Supervisor(child) => {
            let manager = Manager::at(notify_socket);
            manager.main_process_is(child.pid);
            let changes = watch.map(|every| changes_of(every, notices));
            let supervisor = Supervisor {
                own: getpid(),
                mask,
                key,
                grace: rules.grace,
                patience: rules.deadline + Duration::from_secs(10),
                signals,
                terminal,
                manager,
                book,
                child,
                asked_to_stop: false,
                changes,
                phase: Phase::Running,
                chances: Chances::default(),
                keeps,
                before: None,
                unfit: None,
                left_alone_until: None,
            };
            supervisor.stay()
        }
    }
}

fn changes_of(every: Duration, notices: Option<Box<dyn Notices>>) -> Box<dyn Changes> {
    let now = Instant::now();
    let polling = Polling::new(every, restart::chance, now);
    match notices {
        Some(notices) => Box::new(Noticing::new(polling, notices, now)),
        None => Box::new(polling),
    }
}

struct Supervisor {
    own: Pid,
    /// What was blocked when we were started: a child gets that back.
    mask: Mask,
    key: hmac::Key,
    grace: Duration,
    /// How long a worker may take to fetch.
    patience: Duration,
    signals: Signals,
    terminal: Terminal,
    manager: Manager,
    book: Box<dyn Book>,
    child: Spawned,
    /// A signal that stops was passed on: if the child stops, we do.
    asked_to_stop: bool,
    /// Where changes are learned from, if anywhere.
    changes: Option<Box<dyn Changes>>,
    phase: Phase,
    chances: Chances,
    /// What a child has is kept, to go back to.
    keeps: bool,
    /// What the child before had, until this one has settled.
    before: Option<Before>,
    /// What a child ended of: not tried again until the stores have something else.
    unfit: Option<Digest>,
    /// Until then nobody looks: the child was asked to end.
    left_alone_until: Option<Instant>,
}

impl Supervisor {
    /// Until the child ends. Returns in each new worker.
    fn stay(mut self) -> Result<Worker, SuperviseError> {
        loop {
            while let Some(received) = self.signals.next().map_err(failed("read signals"))? {
                self.on_signal(&received);
            }
            while let Some(change) = changed()? {
                self.on_change(change);
            }
            if let Some(worker) = self.advance(Instant::now()) {
                return Ok(worker);
            }
            self.wait()?;
        }
    }

    /// Until something may have happened.
    fn wait(&self) -> Result<(), SuperviseError> {
        let mut ready = vec![PollFd::new(&self.signals, PollFlags::IN)];
        ready.extend(self.channel().map(|channel| PollFd::new(channel, PollFlags::IN)));
        let notice = self.changes.as_ref().filter(|_| self.may_look()).and_then(|changes| changes.notice());
        ready.extend(notice.as_ref().map(|notice| PollFd::new(notice, PollFlags::IN)));
        let limit = self.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
        // A wait that is too long for the type is looked at again when it is over.
        let limit = limit.map(|limit| Timespec::try_from(limit).unwrap_or(Timespec { tv_sec: 3600, tv_nsec: 0 }));
        match poll(&mut ready, limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(failed("wait")(errno.into())),
        }
    }

    fn on_signal(&mut self, received: &Received) {
        let own = number(self.own);
        if !forward::is_for_child(received, own, self.terminal.reaches_child()) {
            return;
        }
        if forward::asks_to_end(received.signal) {
            self.call_off();
        }
        if self.is_child_gone() {
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
        let is_child = change.pid == self.child.pid && !self.is_child_gone();
        match change.kind {
            ChangeKind::Exited(status) if is_child => self.on_end(change, End::Status(status)),
            ChangeKind::Killed(signal) if is_child => self.on_end(change, End::Signal(signal)),
            ChangeKind::Stopped(signal) if is_child => {
                acknowledge(change);
                self.on_stop(signal);
            }
            kind => {
                acknowledge(change);
                if kind.is_end() {
                    self.on_end_of_another(change.pid);
                }
            }
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

    /// The child has ended.
    fn on_end(&mut self, change: Change, end: End) {
        // What is left of its group is asked to end too. Until it is acknowledged, no stranger has its number.
        if let Some(group) = self.terminal.group_of(self.child.pid) {
            kill_process_group(group, Signal::TERM).unwrap_or_default();
        }
        acknowledge(change);
        self.terminal.take_back(self.child.pid);
        let was_executed = self.child.was_executed();
        if let Some(access) = self.child.access().filter(|_| was_executed) {
            let written = self.book.child_exited(&access, number(self.child.pid), end);
            // The access was written down, and what it was for is over: its status is still what counts.
            complain_if(written);
        }
        if !self.is_followed_by_another(end, was_executed) {
            finish(end);
        }
    }
}

/// The child has ended: so do we, in the same way.
fn finish(end: End) -> ! {
    while let Ok(Some(change)) = next_change() {
        acknowledge(change);
    }
    match end {
        End::Status(status) => sys::exit_now(status),
        End::Signal(signal) => sys::signal::die_of(signal),
    }
}

fn complain_if(written: Result<(), Error>) {
    if let Err(error) = written {
        drop(output::complain(&(error.render(Format::Text) + "\n")));
    }
}

fn number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}

/// That there is no child at all is said as an error by the kernel. It is none while we wait with the next start.
fn changed() -> Result<Option<Change>, SuperviseError> {
    match next_change() {
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Ok(None),
        other => other.map_err(failed("wait for the child")),
    }
}
