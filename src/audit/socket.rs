//! The local socket of a log daemon: a message is sent at once or not at all, and nobody waits.
//!
//! Datagrams go to the path, not over a connection, so a daemon that was started again, or another one that has taken its
//! place, is found by the next message (unix(7)). Some syslog daemons listen for streams instead; there is a connection then, and
//! each message ends with a newline, which is what syslog-ng separates them by. Descriptors are closed on exec.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::cmsg_space;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    connect, send, sendmsg_addr, sendto, socket_with,
};

/// A socket by its path. Nothing is opened before there is something to send.
pub(super) struct LocalSocket {
    path: PathBuf,
    held: Held,
    /// The daemon may listen for streams instead.
    may_stream: bool,
}

enum Held {
    Nothing,
    Datagram(OwnedFd),
    Stream(OwnedFd),
}

impl LocalSocket {
    /// A daemon that takes datagrams only.
    pub(super) fn of_datagrams(path: &Path) -> Self {
        Self { path: path.to_owned(), held: Held::Nothing, may_stream: false }
    }

    /// A daemon that takes datagrams, or lines of a stream.
    pub(super) fn of_any(path: &Path) -> Self {
        Self { may_stream: true, ..Self::of_datagrams(path) }
    }

    /// Sends one message. `AGAIN`: there is no room for it now.
    pub(super) fn send(&mut self, message: &[u8]) -> Result<(), Errno> {
        let to = SocketAddrUnix::new(self.path.as_path())?;
        match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Stream(stream) => match self.send_line(stream, message) {
                // It was started again: once more, over another connection.
                Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => self.send_by_datagram(None, &to, message),
                sent => sent,
            },
            Held::Datagram(socket) => self.send_by_datagram(Some(socket), &to, message),
            Held::Nothing => self.send_by_datagram(None, &to, message),
        }
    }

    fn send_by_datagram(&mut self, socket: Option<OwnedFd>, to: &SocketAddrUnix, message: &[u8]) -> Result<(), Errno> {
        let socket = socket.map_or_else(|| open(SocketType::DGRAM), Ok)?;
        match sendto(&socket, message, FLAGS, to) {
            Err(Errno::PROTOTYPE) if self.may_stream => {
                let stream = open(SocketType::STREAM)?;
                connect(&stream, to)?;
                self.send_line(stream, message)
            }
            sent => {
                self.held = Held::Datagram(socket);
                sent.map(drop)
            }
        }
    }

    /// Where there is no room, the connection stays. What went out in part only is torn: the connection is given up, so that
    /// nothing is added to the piece.
    fn send_line(&mut self, stream: OwnedFd, message: &[u8]) -> Result<(), Errno> {
        let line = [message, b"\n"].concat();
        match send(&stream, &line, FLAGS) {
            Ok(sent) if sent < line.len() => Err(Errno::AGAIN),
            Ok(_) => {
                self.held = Held::Stream(stream);
                Ok(())
            }
            Err(errno) => {
                if errno == Errno::AGAIN {
                    self.held = Held::Stream(stream);
                }
                Err(errno)
            }
        }
    }

    /// Hands a message over as a sealed file in memory, for what no datagram takes. To a daemon of datagrams only.
    pub(super) fn pass(&mut self, message: &[u8]) -> Result<(), Errno> {
        let to = SocketAddrUnix::new(self.path.as_path())?;
        let file = sealed(message)?;
        let socket = match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Datagram(socket) => socket,
            Held::Stream(_) | Held::Nothing => open(SocketType::DGRAM)?,
        };
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [file.as_fd()];
        if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(Errno::INVAL);
        }
        let sent = sendmsg_addr(&socket, &to, &[] as &[IoSlice<'_>], &mut control, FLAGS);
        self.held = Held::Datagram(socket);
        sent.map(drop)
    }
}

/// Never waits, and no SIGPIPE where the daemon has gone.
const FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

fn open(kind: SocketType) -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

/// Nobody can change it any more, which is what journald wants before it reads it.
fn sealed(message: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let made = match rustix::fs::memfd_create(c"vouchsafe-record", flags) {
        // vm.memfd_noexec = 2 wants it said; older versions of systemd want it not said.
        Err(Errno::ACCESS) => rustix::fs::memfd_create(c"vouchsafe-record", flags | MemfdFlags::NOEXEC_SEAL),
        made => made,
    };
    let file = made?;
    let mut rest = message;
    while !rest.is_empty() {
        match rustix::io::write(&file, rest) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
    Ok(file)
}
