//! The process that becomes the child, on both sides of its fork.
//!
//! The supervisor never sees a value: it forks before anything is fetched, and the new process, the *worker*, goes through
//! the same story as without supervision, asks, fetches, writes down, and becomes the command. So the supervisor has nothing
//! to wipe, what it dies of holds nothing, and whatever holds for `exec` holds here: the child's environment, descriptors,
//! signal mask, and the statuses of our own failures.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal, setpgid};

use super::terminal::{Group, Terminal};
use crate::audit::Access;
use crate::sys;
use crate::sys::process::{Side, fork};
use crate::sys::signal::Mask;

/// What a worker says on its channel.
const EXECUTING: u8 = b'x';
const NOT_EXECUTED: u8 = b'-';

/// How things were when we were started: what a child gets back.
#[derive(Clone, Copy)]
pub(super) struct StartState {
    pub(super) mask: Mask,
    pub(super) ignored_children: bool,
}

/// The worker's own side: it lives in the process that is to become the child.
pub struct Worker {
    channel: UnixStream,
    supervisor: Pid,
    access: Access,
}

/// The supervisor's side.
pub(super) struct Spawned {
    pub(super) pid: Pid,
    channel: UnixStream,
}

/// Where a fork leads.
pub(super) enum Forked {
    Worker(Worker),
    Supervisor(Spawned),
}

/// Makes a worker. All signals are blocked when this is called; in the worker they are as the caller had them when this
/// returns.
pub(super) fn spawn(start: StartState, terminal: &Terminal, access: Access) -> io::Result<Forked> {
    let (channel, workers) = UnixStream::pair()?;
    let supervisor = getpid();
    match fork()? {
        Side::Parent(pid) => {
            drop(workers);
            // On both sides, so that it is true on either as soon as it goes on. After the exec it fails, and is done.
            if terminal.group() == Group::Own {
                setpgid(Some(pid), Some(pid)).unwrap_or_default();
            }
            Ok(Forked::Supervisor(Spawned { pid, channel }))
        }
        Side::Child => {
            drop(channel);
            settle(start, terminal, supervisor)?;
            Ok(Forked::Worker(Worker { channel: workers, supervisor, access }))
        }
    }
}

/// What the worker has to change of what it was born with.
fn settle(start: StartState, terminal: &Terminal, supervisor: Pid) -> io::Result<()> {
    // kill -9 of the supervisor must not leave a child that nobody stops: it is asked to end, as `docker stop` would ask.
    set_parent_process_death_signal(Some(Signal::TERM))?;
    if getppid() != Some(supervisor) {
        // It was gone before we could say so.
        sys::exit_now(128 + 15);
    }
    if terminal.group() == Group::Own {
        setpgid(None, None)?;
        terminal.take_over();
    }
    if start.ignored_children {
        sys::signal::ignore_children();
    }
    start.mask.restore();
    Ok(())
}

impl Worker {
    /// The process that watches this one.
    #[must_use]
    pub fn supervisor(&self) -> Pid {
        self.supervisor
    }

    /// The access under which everything about this worker is written down.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Tells the supervisor that the command is executed next.
    pub fn executes(&mut self) {
        // A supervisor that is gone cannot hear it, and has had us told to end.
        self.channel.write_all(&[EXECUTING]).unwrap_or_default();
    }

    /// Tells the supervisor that it was not.
    pub fn did_not_execute(&mut self) {
        self.channel.write_all(&[NOT_EXECUTED]).unwrap_or_default();
    }
}

impl Spawned {
    /// Of a worker that has ended: whether the command had been executed.
    pub(super) fn was_executed(&self) -> bool {
        // The worker's end is closed, so this does not wait; but what the command has given to others must not hold us.
        let Ok(channel) = self.channel.try_clone() else { return true };
        let mut said = Vec::with_capacity(8);
        channel.set_nonblocking(true).unwrap_or_default();
        File::from(OwnedFd::from(channel)).read_to_end(&mut said).unwrap_or_default();
        said.last() == Some(&EXECUTING)
    }
}
