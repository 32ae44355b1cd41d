//! The service manager, where there is one: it has to know that the child is the main process of the service, or it takes no
//! message from it (`NotifyAccess=main`; sd_notify(3), `MAINPID`). And the child has to find its own pid where the manager
//! had written ours.

use std::ffi::{OsStr, OsString};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::process::Pid;

use crate::inject::ParentEnv;

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

/// The environment as it would be had `own` been started in the place of `started`: what names the process that it is meant
/// for, names the new one. `LISTEN_PID` and `WATCHDOG_PID` are checked by those whom they are for (`sd_listen_fds(3)`,
/// `sd_watchdog_enabled(3)`); the pidfd of the old process is no use to the new one.
pub(super) fn handed_on(parent: &ParentEnv, started: u32, own: u32) -> ParentEnv {
    let (started, own) = (started.to_string(), own.to_string());
    let names_it = |value: &OsStr| value.as_bytes() == started.as_bytes();
    let was_for_it = parent.get("LISTEN_PID").is_some_and(names_it);
    let entries = parent.iter().filter(|(name, _)| !(was_for_it && name == "LISTEN_PIDFDID"));
    let entries = entries.map(|(name, value)| {
        let is_pid = matches!(name.as_bytes(), b"LISTEN_PID" | b"WATCHDOG_PID" | b"SYSTEMD_EXEC_PID");
        (name.clone(), if is_pid && names_it(value) { own.clone().into() } else { value.clone() })
    });
    ParentEnv::new(entries.collect())
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
