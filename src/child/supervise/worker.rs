//! The process that becomes the child, on its own side of the fork ([`super::spawned`] is the other).
//!
//! The supervisor never sees a value: it forks before anything is fetched, and the new process, the *worker*, goes through
//! the same story as without supervision, asks, fetches, writes down, and becomes the command. So the supervisor has nothing
//! to wipe, what it dies of holds nothing, and whatever holds for `exec` holds here: the child's environment, descriptors,
//! signal mask, and the statuses of our own failures.
//!
//! To see whether a secret changed, another worker does the same beside the running child, and tells a digest of what it
//! got, keyed by a random key of the supervisor: equal sets have equal digests, and a digest says nothing without the key.
//! What it has fetched stays in it; if the child is to be started again, it is this worker that becomes it.
//!
//! Only where the policy says `on_crash = "previous"` does the worker that becomes the child hand over what it fetched, and it
//! waits until the supervisor has locked memory for it ([`super::before`]).

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use ring::hmac;
use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal, setpgid};

use super::before::{Before, packed};
use super::notify::handed_on;
use super::spawned::Spawned;
use super::terminal::{Group, Terminal};
use super::{SuperviseError, failed};
use crate::audit::Access;
use crate::inject::ParentEnv;
use crate::resolve::Value;
use crate::sys;
use crate::sys::process::{Side, fork};
use crate::sys::signal::Mask;

/// What a worker says on its channel; a digest, an access and an agent's word for the set follow the first.
pub(super) const FETCHED: u8 = b'd';
/// What it has fetched follows, once the supervisor has room for it; the length of that comes with the word.
pub(super) const KEEP: u8 = b'k';
pub(super) const READY: u8 = b'r';
pub(super) const EXECUTING: u8 = b'x';
pub(super) const NOT_EXECUTED: u8 = b'-';
/// What the supervisor answers.
pub(super) const NOTHING_NEW: u8 = b'=';
pub(super) const LOOK_AGAIN: u8 = b'~';
pub(super) const CHANGED: u8 = b'!';
pub(super) const OF_NO_USE: u8 = b'?';
pub(super) const ROOM: u8 = b'k';
pub(super) const NO_ROOM: u8 = b'-';
pub(super) const START: u8 = b'>';

/// What cannot be done, where the kernel lets this user lock too little.
pub(super) const LOCK_MEMORY: &str = "lock the memory that `on_crash = \"previous\"` needs";

/// A keyed digest of an injected set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest(pub(super) [u8; 32]);

/// What a worker tells with its digest, so that what follows can be written down and compared. Nothing secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    access: [u8; 8],
    set: [u8; 32],
}

impl Told {
    /// Of an access of our own.
    #[must_use]
    pub fn of(access: &Access) -> Self {
        Self { access: access.to_bytes(), set: [0; 32] }
    }

    /// Of what an agent gave under this access; `set` is its own word for it.
    #[must_use]
    pub fn of_agent(access: [u8; 8], set: [u8; 32]) -> Self {
        Self { access, set }
    }
}

/// What the child has, in nobody's words but the supervisor's and the agent's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Has {
    pub(super) digest: Digest,
    pub(super) set: [u8; 32],
}

/// Length of what a worker says once it has fetched.
pub(super) const FETCHED_LENGTH: usize = 1 + 32 + 8 + 32;
/// Length of [`KEEP`] and the number after it.
pub(super) const KEEP_LENGTH: usize = 1 + 8;

/// What a worker is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// To become the first child as soon as it can.
    First,
    /// To become another one as soon as it can.
    Again,
    /// To look, and to become the child when it is told to.
    Look(Has),
    /// To become another one with what the one before had, as soon as that is granted.
    Back,
}

/// What follows from what a worker has fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It goes on to the release.
    GoOn,
    /// It has looked, and that was all. The reason is for the audit.
    Done(&'static str),
}

/// The worker's own side: it lives in the process that is to become the child.
pub struct Worker {
    channel: UnixStream,
    supervisor: Pid,
    task: Task,
    key: hmac::Key,
    /// The supervisor keeps what was fetched.
    is_kept: bool,
    /// What the child before had.
    pub(super) before: Option<Before>,
}

/// Where a fork leads.
pub(super) enum Forked {
    Worker(Box<Worker>),
    Supervisor(Spawned),
}

/// Makes a worker. All signals are blocked when this is called; in the worker they are as the caller had them when this
/// returns.
pub(super) fn spawn(mask: Mask, terminal: &Terminal, task: Task, key: &hmac::Key, is_kept: bool) -> io::Result<Forked> {
    let (channel, workers) = UnixStream::pair()?;
    channel.set_nonblocking(true)?;
    let supervisor = getpid();
    match fork()? {
        Side::Parent(pid) => {
            drop(workers);
            // On both sides, so that it is true on either as soon as it goes on. After the exec it fails, and is done.
            if terminal.group() == Group::Own {
                setpgid(Some(pid), Some(pid)).unwrap_or_default();
            }
            Ok(Forked::Supervisor(Spawned::new(pid, channel)))
        }
        Side::Child => {
            drop(channel);
            settle(mask, terminal, supervisor, task)?;
            let key = key.clone();
            Ok(Forked::Worker(Box::new(Worker { channel: workers, supervisor, task, key, is_kept, before: None })))
        }
    }
}

/// What the worker has to change of what it was born with.
fn settle(mask: Mask, terminal: &Terminal, supervisor: Pid, task: Task) -> io::Result<()> {
    // kill -9 of the supervisor must not leave a child that nobody stops: it is asked to end, as `docker stop` would ask.
    set_parent_process_death_signal(Some(Signal::TERM))?;
    if getppid() != Some(supervisor) {
        // It was gone before we could say so.
        sys::exit_now(128 + 15);
    }
    if terminal.group() == Group::Own {
        setpgid(None, None)?;
        // While one only looks, the terminal is the child's.
        if !matches!(task, Task::Look(_)) {
            terminal.take_over();
        }
    }
    mask.restore();
    Ok(())
}

impl Worker {
    /// The environment of the supervisor, with this process in its place where a pid is named.
    #[must_use]
    pub fn hand_on(&self, parent: &ParentEnv) -> ParentEnv {
        handed_on(parent, self.supervisor.as_raw_nonzero().get().unsigned_abs(), std::process::id())
    }

    /// Whether a child was there before this one, so that policy and command may have changed since they were looked at.
    #[must_use]
    pub fn is_later(&self) -> bool {
        self.task != Task::First
    }

    /// Whether it is to look before anything else, and what an agent has called the set that the child has.
    #[must_use]
    pub fn looks_for_other_than(&self) -> Option<[u8; 32]> {
        match self.task {
            Task::First | Task::Again | Task::Back => None,
            Task::Look(has) => Some(has.set),
        }
    }

    /// Tells the supervisor that nothing has changed, where somebody else has seen that.
    pub fn has_seen_no_change(&mut self) {
        if let Task::Look(Has { digest, set }) = self.task {
            self.say(&[&[FETCHED], &digest.0[..], &[0; 8], &set].concat());
            self.hear();
        }
    }

    /// What the child before had, if this one is to have the same instead of what the stores have now.
    ///
    /// # Errors
    /// It was lost.
    pub fn before(&mut self) -> Result<Option<Vec<Value>>, SuperviseError> {
        if self.task != Task::Back {
            return Ok(None);
        }
        let values = self.before.take().and_then(|before| before.values());
        values.map(Some).ok_or_else(|| failed("find what ran before")(ErrorKind::NotFound.into()))
    }

    /// Tells the supervisor what was fetched, without telling it, and hears what is to become of it. Only a supervisor that is
    /// to keep the values gets them.
    ///
    /// # Errors
    /// It is to keep them, and cannot.
    pub fn has_fetched<'v>(
        &mut self,
        injected: impl Iterator<Item = &'v Value> + Clone,
        told: Told,
    ) -> Result<Next, SuperviseError> {
        let mut context = hmac::Context::with_key(&self.key);
        for value in injected.clone() {
            for part in [value.name.as_str().as_bytes(), value.secret.expose()] {
                context.update(&(part.len() as u64).to_be_bytes());
                context.update(part);
            }
        }
        self.say(&[&[FETCHED], context.sign().as_ref(), &told.access, &told.set].concat());
        let done = match self.task {
            Task::First | Task::Again | Task::Back => None,
            Task::Look(_) => match self.hear() {
                Some(CHANGED) => None,
                Some(NOTHING_NEW) => Some("nothing has changed"),
                Some(LOOK_AGAIN) => Some("something has changed; it is looked at again before a restart"),
                Some(OF_NO_USE) => Some("it is what a child ended of, and is not tried again"),
                _ => Some("the child has ended meanwhile"),
            },
        };
        match done {
            Some(why) => Ok(Next::Done(why)),
            // What it has had before, it has.
            None if self.is_kept && self.task != Task::Back => self.hand_over(injected).map(|()| Next::GoOn),
            None => Ok(Next::GoOn),
        }
    }

    /// Gives the supervisor what it is to keep, once it has room for it.
    fn hand_over<'v>(&mut self, injected: impl Iterator<Item = &'v Value>) -> Result<(), SuperviseError> {
        let kept = packed(injected);
        self.say(&[&[KEEP], &(kept.expose().len() as u64).to_be_bytes()[..]].concat());
        match self.hear() {
            Some(ROOM) => {
                self.say(kept.expose());
                Ok(())
            }
            _ => Err(failed(LOCK_MEMORY)(ErrorKind::OutOfMemory.into())),
        }
    }

    /// Waits until the command may be executed: until the old child is gone. `false`: it may not any more.
    #[must_use]
    pub fn may_execute(&mut self) -> bool {
        if matches!(self.task, Task::Look(_)) {
            self.say(&[READY]);
            if self.hear() != Some(START) {
                return false;
            }
        }
        self.say(&[EXECUTING]);
        true
    }

    /// Tells the supervisor that it was not.
    pub fn did_not_execute(&mut self) {
        self.say(&[NOT_EXECUTED]);
    }

    /// A supervisor that is gone cannot hear it, and has had us told to end.
    fn say(&mut self, message: &[u8]) {
        self.channel.write_all(message).unwrap_or_default();
    }

    fn hear(&mut self) -> Option<u8> {
        let mut answer = [0];
        self.channel.read_exact(&mut answer).ok().map(|()| answer[0])
    }
}
