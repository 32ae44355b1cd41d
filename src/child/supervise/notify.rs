//! The service manager, where there is one: it has to know that the child is the main process of the service, or it takes no
//! message from it (`NotifyAccess=main`; sd_notify(3), `MAINPID`).

use std::ffi::{OsStr, OsString};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::process::Pid;

/// `NOTIFY_SOCKET`, if it is one that we can reach.
pub(super) struct Manager(Option<OsString>);

impl Manager {
    pub(super) fn at(socket: Option<&OsStr>) -> Self {
        Self(socket.map(OsStr::to_owned))
    }

    /// Tells it. That this fails is no reason to end a service: a manager that needs it finds the service not ready.
    pub(super) fn main_process_is(&self, pid: Pid) {
        let Some(socket) = &self.0 else { return };
        let Some(address) = address(socket) else { return };
        let Ok(sender) = UnixDatagram::unbound() else { return };
        // A manager that does not read must not hold the child's signals.
        sender.set_nonblocking(true).unwrap_or_default();
        sender.send_to_addr(format!("MAINPID={}", pid.as_raw_nonzero()).as_bytes(), &address).unwrap_or_default();
    }
}

/// A path, or after `@` a name in the abstract namespace (unix(7)).
fn address(socket: &OsStr) -> Option<SocketAddr> {
    match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok(),
        [b'/', ..] => SocketAddr::from_pathname(socket).ok(),
        // vsock, of virtual machines (systemd(1)).
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_path_or_an_abstract_name() {
        let path = address(OsStr::new("/run/systemd/notify")).unwrap();
        assert_eq!(path.as_pathname().unwrap(), "/run/systemd/notify");
        assert_eq!(address(OsStr::new("@name")).unwrap().as_abstract_name().unwrap(), b"name");
        assert!(address(OsStr::new("vsock:2:1234")).is_none());
        assert!(address(OsStr::new("")).is_none());
    }
}
