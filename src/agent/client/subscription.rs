//! Hearing from the agent that something has changed. Nothing here waits, and no value comes this way.

use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use super::Connection;
use super::errand::{Errand, claim};
use crate::agent::protocol::reply::{Refusal, Reply};
use crate::agent::protocol::request::{Ask, Purpose, Request};
use crate::agent::protocol::{HEADER, LARGEST_REQUEST, body_length, decode_reply, encode_request};
use crate::child::command::Command;
use crate::child::supervise::{Heard, Notices};
use crate::name::{EnvironmentName, ServiceName, VariableName};
use crate::policy::model::HostFile;

/// A connection that the agent speaks on when there is something to say; between two of them, the question.
pub(super) struct Subscription {
    environment: EnvironmentName,
    service: Option<ServiceName>,
    only: Option<Vec<VariableName>>,
    socket: PathBuf,
    host: HostFile,
    words: Vec<OsString>,
    path: Option<OsString>,
    /// The agent wants the command's digest.
    with_digest: bool,
    /// What was asked last, to be asked again with the digest.
    set: [u8; 32],
    stream: Option<UnixStream>,
    heard: Vec<u8>,
}

impl Subscription {
    pub(super) fn new(errand: &Errand<'_>, words: Vec<OsString>, path: Option<&OsStr>) -> Self {
        Self {
            environment: errand.environment.clone(),
            service: errand.service.clone(),
            only: errand.only.clone(),
            socket: errand.socket.to_owned(),
            host: errand.host.clone(),
            words,
            path: path.map(OsStr::to_owned),
            with_digest: false,
            set: [0; 32],
            stream: None,
            heard: Vec::new(),
        }
    }

    fn try_to_ask(&self) -> Option<UnixStream> {
        // What is there now: the command may have been replaced since the start.
        let mut command = Command::look_up(self.words.clone(), self.path.as_deref()).ok()?;
        if self.with_digest {
            command.take_digest().ok()?;
        }
        let ask = Ask {
            environment: self.environment.clone(),
            service: self.service.clone(),
            only: self.only.clone(),
            command: Some(claim(&command)),
            parent: std::os::unix::process::parent_id(),
            terminal: None,
            purpose: Purpose::Watch { has: self.set },
        };
        let frame = encode_request(&Request::Resolve(ask)).ok()?;
        let mut stream = Connection::open_at_once(&self.socket, &self.host).ok()?;
        // A fresh connection has room for a request; one that has not is not worth waiting for.
        stream.write_all(&frame).ok()?;
        Some(stream)
    }

    /// Reads what has come. `false`: nothing more will.
    fn read(&mut self) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        let mut part = [0; 512];
        while self.heard.len() < HEADER + LARGEST_REQUEST {
            match stream.read(&mut part) {
                Ok(0) => return false,
                Ok(length) => self.heard.extend_from_slice(part.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
        true
    }

    /// The first message of what has come, as far as it is whole.
    fn next(&mut self) -> Option<Heard> {
        let header = self.heard.first_chunk::<HEADER>()?;
        // No message that is for us is longer than a request may be.
        let Ok(length) = body_length(*header, LARGEST_REQUEST) else { return Some(Heard::Ends) };
        let body = self.heard.get(HEADER..HEADER + length)?;
        let heard = match decode_reply(body) {
            Ok(Reply::Watching) => Heard::Begins,
            Ok(Reply::Changed) => Heard::Changed,
            Ok(Reply::Refused(refusal)) => {
                self.with_digest |= refusal == Refusal::DigestWanted;
                Heard::Ends
            }
            Ok(Reply::Granted(_) | Reply::Done(_) | Reply::Status(_)) | Err(_) => Heard::Ends,
        };
        self.heard.drain(..HEADER + length);
        Some(heard)
    }
}

impl Notices for Subscription {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.stream.as_ref().map(AsFd::as_fd)
    }

    fn ask(&mut self, set: [u8; 32]) -> bool {
        self.set = set;
        self.heard.clear();
        self.stream = self.try_to_ask();
        self.stream.is_some()
    }

    fn hear(&mut self) -> Option<Heard> {
        self.stream.as_ref()?;
        let goes_on = self.read();
        let heard = self.next();
        if heard == Some(Heard::Ends) || (heard.is_none() && !goes_on) {
            self.stream = None;
            return Some(Heard::Ends);
        }
        heard
    }
}
