//! One connection: who listens there, one question, one answer.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{ANSWER, ClientError, PATIENCE};
use crate::agent::connect::connect;
use crate::agent::protocol::request::{COMPARED, Request};
use crate::agent::protocol::{HEADER, LARGEST_REPLY, body_length, encode_request};
use crate::caller::Names;
use crate::error::Error;
use crate::policy::model::HostFile;
use crate::secret::Secret;
use crate::sys::peer;

/// For a place in the agent's queue where there are signals to be passed on: the shortest time there is.
const AT_ONCE: Duration = Duration::from_millis(1);

/// A connection to an agent that is one.
pub(in crate::agent) struct Connection {
    stream: UnixStream,
    socket: PathBuf,
}

impl Connection {
    /// Connects, and checks who listens there before anything is said.
    pub(in crate::agent) fn open(socket: &Path, host: &HostFile) -> Result<Self, ClientError> {
        let failed = |doing, error| ClientError::Io { socket: socket.to_owned(), doing, error };
        Self::check(connect(socket, PATIENCE).map_err(|error| failed("reach", error))?, socket, host)
    }

    /// The same for a connection that waits for nothing.
    pub(super) fn open_at_once(socket: &Path, host: &HostFile) -> Result<UnixStream, ClientError> {
        let failed = |error| ClientError::Io { socket: socket.to_owned(), doing: "reach", error };
        let stream = connect(socket, AT_ONCE).map_err(failed)?;
        stream.set_nonblocking(true).map_err(failed)?;
        Ok(Self::check(stream, socket, host)?.stream)
    }

    fn check(stream: UnixStream, socket: &Path, host: &HostFile) -> Result<Self, ClientError> {
        let failed = |doing, error| ClientError::Io { socket: socket.to_owned(), doing, error };
        let listens = peer::credentials(&stream).map_err(|error| failed("look at", error))?;
        let own = rustix::process::geteuid().as_raw();
        let is_named = || {
            host.agent
                .user
                .as_ref()
                .is_some_and(|user| user.is(listens.uid, Names::default().user(listens.uid).as_deref()))
        };
        // Where not everybody has a number, one number is many: then it is no evidence of anybody.
        let is_anybodys = || peer::Unmapped::here().is_user(listens.uid);
        if listens.uid != 0 && (is_anybodys() || (listens.uid != own && !is_named())) {
            return Err(ClientError::Stranger { socket: socket.to_owned(), uid: listens.uid });
        }
        stream.set_read_timeout(Some(ANSWER)).map_err(|error| failed("use", error))?;
        Ok(Self { stream, socket: socket.to_owned() })
    }

    /// Sends a request and takes the body of the reply, in a buffer that does not grow and is wiped.
    pub(in crate::agent) fn ask(&mut self, request: &Request) -> Result<Secret, ClientError> {
        let frame = encode_request(request).map_err(ClientError::Frame)?;
        // An agent that has no room says so and closes, perhaps before it has read: its word is there all the same.
        let sent = self.stream.write_all(&frame);
        let answer = self.read();
        match (sent, answer) {
            (_, Ok(body)) => Ok(body),
            (Err(error), Err(_)) => Err(self.failed("ask", error)),
            (Ok(()), Err(error)) => Err(error),
        }
    }

    fn read(&mut self) -> Result<Secret, ClientError> {
        let mut header = [0; HEADER];
        self.stream.read_exact(&mut header).map_err(|error| self.failed("hear", error))?;
        let length = body_length(header, LARGEST_REPLY).map_err(ClientError::Frame)?;
        let mut body = vec![0; length];
        let read = self.stream.read_exact(&mut body);
        let body = Secret::new(body);
        read.map_err(|error| self.failed("hear", error))?;
        Ok(body)
    }

    /// Tells the agent that what it released reached no child because of `error`, which is given back. If the agent does not
    /// hear it, the log says released: that is true.
    pub(super) fn tell_unused(mut self, error: Error) -> Error {
        self.tell(Request::Unused { class: error.class().word().to_owned() });
        error
    }

    /// Tells the agent that what it released was only compared with what a child has.
    pub(super) fn tell_compared(&mut self) {
        self.tell(Request::Unused { class: COMPARED.to_owned() });
    }

    fn tell(&mut self, request: Request) {
        self.hurry();
        self.ask(&request).map(drop).unwrap_or_default();
    }

    /// From here on, an answer that takes long is none.
    pub(in crate::agent) fn hurry(&mut self) {
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap_or_default();
    }

    fn failed(&self, doing: &'static str, error: std::io::Error) -> ClientError {
        if error.kind() == ErrorKind::UnexpectedEof {
            return ClientError::Closed(self.socket.clone());
        }
        ClientError::Io { socket: self.socket.clone(), doing, error }
    }
}
