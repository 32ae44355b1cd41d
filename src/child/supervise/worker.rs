//! The process that becomes the child, on both sides of its fork.
//!
//! The supervisor never sees a value: it forks before anything is fetched, and the new process, the *worker*, goes through
//! the same story as without supervision, asks, fetches, writes down, and becomes the command. So the supervisor has nothing
//! to wipe, what it dies of holds nothing, and whatever holds for `exec` holds here: the child's environment, descriptors,
//! signal mask, and the statuses of our own failures.
//!
//! To see whether a secret changed, another worker does the same beside the running child, and tells a digest of what it
//! got, keyed by a random key of the supervisor: equal sets have equal digests, and a digest says nothing without the key.
//! What it has fetched stays in it; if the child is to be started again, it is this worker that becomes it.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use ring::hmac;
use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal, setpgid};

use super::notify::handed_on;
use super::terminal::{Group, Terminal};
use crate::audit::Access;
use crate::inject::ParentEnv;
use crate::name::VariableName;
use crate::sys;
use crate::sys::process::{Side, fork};
use crate::sys::signal::Mask;

/// What a worker says on its channel; a digest, an access and an agent's word for the set follow the first.
const FETCHED: u8 = b'd';
const READY: u8 = b'r';
const EXECUTING: u8 = b'x';
const NOT_EXECUTED: u8 = b'-';
/// What the supervisor answers.
const NOTHING_NEW: u8 = b'=';
const LOOK_AGAIN: u8 = b'~';
const CHANGED: u8 = b'!';
const START: u8 = b'>';

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
    digest: Digest,
    set: [u8; 32],
}

/// Length of what a worker says once it has fetched.
const FETCHED_LENGTH: usize = 1 + 32 + 8 + 32;

/// How things were when we were started: what a child gets back.
#[derive(Clone, Copy)]
pub(super) struct StartState {
    pub(super) mask: Mask,
    pub(super) ignored_children: bool,
}

/// What a worker is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// To become the first child as soon as it can.
    First,
    /// To become another one as soon as it can.
    Again,
    /// To look, and to become the child when it is told to.
    Look(Has),
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
}

/// The supervisor's side.
pub(super) struct Spawned {
    pub(super) pid: Pid,
    pub(super) channel: UnixStream,
    said: Vec<u8>,
    /// A later word of an agent for the same set.
    renamed: Option<[u8; 32]>,
    goes_on: bool,
    /// The worker's end is closed: it became the child, or ended.
    pub(super) is_silent: bool,
}

/// Where a fork leads.
pub(super) enum Forked {
    Worker(Box<Worker>),
    Supervisor(Spawned),
}

/// Makes a worker. All signals are blocked when this is called; in the worker they are as the caller had them when this
/// returns.
pub(super) fn spawn(start: StartState, terminal: &Terminal, task: Task, key: &hmac::Key) -> io::Result<Forked> {
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
            Ok(Forked::Supervisor(Spawned {
                pid,
                channel,
                said: Vec::new(),
                renamed: None,
                goes_on: false,
                is_silent: false,
            }))
        }
        Side::Child => {
            drop(channel);
            settle(start, terminal, supervisor, task)?;
            Ok(Forked::Worker(Box::new(Worker { channel: workers, supervisor, task, key: key.clone() })))
        }
    }
}

/// What the worker has to change of what it was born with.
fn settle(start: StartState, terminal: &Terminal, supervisor: Pid, task: Task) -> io::Result<()> {
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
    if start.ignored_children {
        sys::signal::ignore_children();
    }
    start.mask.restore();
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
            Task::First | Task::Again => None,
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

    /// Tells the supervisor what was fetched, without telling it, and hears what is to become of it.
    pub fn has_fetched<'v>(
        &mut self,
        injected: impl Iterator<Item = (&'v VariableName, &'v [u8])>,
        told: Told,
    ) -> Next {
        let mut context = hmac::Context::with_key(&self.key);
        for (name, value) in injected {
            for part in [name.as_str().as_bytes(), value] {
                context.update(&(part.len() as u64).to_be_bytes());
                context.update(part);
            }
        }
        self.say(&[&[FETCHED], context.sign().as_ref(), &told.access, &told.set].concat());
        match self.task {
            Task::First | Task::Again => Next::GoOn,
            Task::Look(_) => match self.hear() {
                Some(CHANGED) => Next::GoOn,
                Some(NOTHING_NEW) => Next::Done("nothing has changed"),
                Some(LOOK_AGAIN) => Next::Done("something has changed; it is looked at again before a restart"),
                _ => Next::Done("the child has ended meanwhile"),
            },
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

impl Spawned {
    /// Takes what was said since.
    pub(super) fn listen(&mut self) {
        let mut part = [0; 64];
        loop {
            match self.channel.read(&mut part) {
                Ok(0) => self.is_silent = true,
                Ok(length) => {
                    self.said.extend_from_slice(part.get(..length).unwrap_or_default());
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => self.is_silent |= error.kind() != ErrorKind::WouldBlock,
            }
            return;
        }
    }

    /// What the worker has fetched, once it said so.
    pub(super) fn digest(&self) -> Option<Digest> {
        let (&FETCHED, rest) = self.said.split_first()? else { return None };
        rest.first_chunk().copied().filter(|_| self.said.len() >= FETCHED_LENGTH).map(Digest)
    }

    /// What it has, for those who look whether there is something else now.
    pub(super) fn told(&self) -> Option<Has> {
        Some(Has { digest: self.digest()?, set: self.set()? })
    }

    /// What an agent calls what it has.
    pub(super) fn set(&self) -> Option<[u8; 32]> {
        self.renamed.or_else(|| self.said.get(1 + 32 + 8..)?.first_chunk().copied())
    }

    /// Takes over what an agent has called the same set, asked by another one.
    pub(super) fn rename(&mut self, other: &Self) {
        self.renamed = other.set();
    }

    /// The access under which everything about it is written down.
    pub(super) fn access(&self) -> Option<Access> {
        Some(Access::of_bytes(self.said.get(1 + 32..)?.first_chunk()?))
    }

    /// Whether it only waits for its start.
    pub(super) fn is_ready(&self) -> bool {
        self.said.last() == Some(&READY) && self.said.len() == FETCHED_LENGTH + 1
    }

    /// Of a worker that has ended: whether the command had been executed.
    pub(super) fn was_executed(&mut self) -> bool {
        self.listen();
        self.said.len() > FETCHED_LENGTH && self.said.last() == Some(&EXECUTING)
    }

    /// Whether it was told that it is to be the next child.
    pub(super) fn is_to_go_on(&self) -> bool {
        self.goes_on
    }

    pub(super) fn nothing_new(&mut self) {
        self.answer(NOTHING_NEW);
    }

    pub(super) fn look_again(&mut self) {
        self.answer(LOOK_AGAIN);
    }

    pub(super) fn changed(&mut self) {
        self.goes_on = true;
        self.answer(CHANGED);
    }

    pub(super) fn start(&mut self) {
        self.answer(START);
    }

    /// One that is gone is seen by its end.
    fn answer(&mut self, word: u8) {
        self.channel.write_all(&[word]).unwrap_or_default();
    }
}
