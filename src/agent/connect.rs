//! Connecting to a Unix socket without waiting for ever: where nobody accepts, `connect` waits for a place in the queue.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect as connect_to, socket_with};

/// Connects to `path`, or gives up after `patience` with [`io::ErrorKind::WouldBlock`].
///
/// # Errors
/// Nobody listens there, or nobody accepts.
pub(crate) fn connect(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // The limit of sending is that of connecting too (unix(7) does not say so; net/unix/af_unix.c does).
    set_socket_timeout(&socket, Timeout::Send, Some(patience))?;
    connect_to(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_full_queue_is_not_waited_for_for_ever() {
        let path = std::env::temp_dir().join(format!("vouchsafe-connect-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let patience = Duration::from_millis(50);
        let mut open = Vec::new();
        let start = Instant::now();
        let error = loop {
            match connect(&path, patience) {
                Ok(stream) => open.push(stream),
                Err(error) => break error,
            }
            assert!(open.len() < 10, "the queue is never full");
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(start.elapsed() >= patience);
        drop(listener);
        assert_eq!(connect(&path, patience).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        std::fs::remove_file(&path).unwrap();
    }
}
