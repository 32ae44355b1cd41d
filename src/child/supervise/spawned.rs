//! The process that becomes the child, as its supervisor sees it: what it said, and what it is answered.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use rustix::process::Pid;

use super::before::Before;
use super::worker::{
    CHANGED, Digest, EXECUTING, FETCHED, FETCHED_LENGTH, Has, KEEP, KEEP_LENGTH, LOOK_AGAIN, NO_ROOM, NOTHING_NEW,
    OF_NO_USE, READY, ROOM, START,
};
use crate::audit::Access;

/// The supervisor's side.
pub(super) struct Spawned {
    pub(super) pid: Pid,
    pub(super) channel: UnixStream,
    said: Vec<u8>,
    /// What it has, if that is kept.
    pub(super) kept: Option<Before>,
    /// A later word of an agent for the same set.
    renamed: Option<[u8; 32]>,
    goes_on: bool,
    /// The worker's end is closed: it became the child, or ended.
    pub(super) is_silent: bool,
}

impl Spawned {
    pub(super) fn new(pid: Pid, channel: UnixStream) -> Self {
        Self { pid, channel, said: Vec::new(), kept: None, renamed: None, goes_on: false, is_silent: false }
    }

    /// Takes what was said since.
    pub(super) fn listen(&mut self) {
        let mut part = [0; 64];
        loop {
            // What is kept goes straight to where it stays.
            let kept = self.kept.as_mut().filter(|kept| !kept.is_full());
            let read = match kept {
                Some(kept) => {
                    self.channel.read(kept.room()).inspect(|length| kept.has_got(*length)).map(|length| (length, true))
                }
                None => self.channel.read(&mut part).map(|length| (length, false)),
            };
            match read {
                Ok((0, _)) => self.is_silent = true,
                Ok((_, true)) => continue,
                Ok((length, false)) => {
                    self.said.extend_from_slice(part.get(..length).unwrap_or_default());
                    self.make_room();
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => self.is_silent |= error.kind() != ErrorKind::WouldBlock,
            }
            return;
        }
    }

    /// For what it wants to be kept: it says no more until it is answered.
    fn make_room(&mut self) {
        let Some((&KEEP, length)) = self.said.get(FETCHED_LENGTH..).and_then(<[u8]>::split_first) else { return };
        let Some(length) = length.first_chunk::<{ KEEP_LENGTH - 1 }>() else { return };
        self.kept = Before::with_room(u64::from_be_bytes(*length));
        self.said.truncate(FETCHED_LENGTH);
        self.answer(if self.kept.is_some() { ROOM } else { NO_ROOM });
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

    pub(super) fn of_no_use(&mut self) {
        self.answer(OF_NO_USE);
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
