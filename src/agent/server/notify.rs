//! What systemd is told (`sd_notify(3)`): ready, reloading, alive, stopping. Where nobody asked to be told, nobody is.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::inject::ParentEnv;

/// The way to whoever started us.
pub(super) struct Notify {
    socket: Option<UnixDatagram>,
    /// How often it wants to hear that we are alive.
    pub(super) watchdog: Option<Duration>,
}

impl Notify {
    /// By `NOTIFY_SOCKET`, and `WATCHDOG_USEC` where `WATCHDOG_PID` is ours or absent.
    pub(super) fn new(parent: &ParentEnv) -> Self {
        let socket = parent.get("NOTIFY_SOCKET").and_then(connect);
        let number = |name: &str| parent.get(name).and_then(OsStr::to_str).and_then(|text| text.parse::<u64>().ok());
        let is_ours = parent.get("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(std::process::id().into());
        let watchdog = number("WATCHDOG_USEC").filter(|microseconds| is_ours && *microseconds > 0);
        // Twice as often as is asked for, as sd_watchdog_enabled(3) advises.
        Self { socket, watchdog: watchdog.map(|microseconds| Duration::from_micros(microseconds) / 2) }
    }

    /// Tells a state, such as `READY=1`.
    pub(super) fn tell(&self, state: &str) {
        if let Some(socket) = &self.socket {
            // Nobody to tell, or too busy to listen: the watchdog shows it.
            socket.send(state.as_bytes()).map(drop).unwrap_or_default();
        }
    }

    /// `RELOADING=1`, with the time that `Type=notify-reload` wants beside it.
    pub(super) fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let microseconds = now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1000);
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
    }
}

fn connect(name: &OsStr) -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest).ok()?,
        [b'/', ..] => SocketAddr::from_pathname(name).ok()?,
        _ => return None,
    };
    socket.connect_addr(&address).ok()?;
    Some(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_was_named_hears_of_it() {
        let path = std::env::temp_dir().join(format!("vouchsafe-notify-{}", std::process::id()));
        let listener = UnixDatagram::bind(&path).unwrap();
        let environment = |watchdog_pid: u32| {
            ParentEnv::new(vec![
                ("NOTIFY_SOCKET".into(), path.clone().into()),
                ("WATCHDOG_USEC".into(), "2000000".into()),
                ("WATCHDOG_PID".into(), watchdog_pid.to_string().into()),
            ])
        };
        let notify = Notify::new(&environment(std::process::id()));
        assert_eq!(notify.watchdog, Some(Duration::from_secs(1)));
        assert_eq!(Notify::new(&environment(1)).watchdog, None);
        notify.tell("READY=1");
        notify.reloading();
        let mut buffer = [0; 100];
        let mut hear = || {
            let count = listener.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..count]).into_owned()
        };
        assert_eq!(hear(), "READY=1");
        assert!(hear().starts_with("RELOADING=1\nMONOTONIC_USEC="));
        std::fs::remove_file(&path).unwrap();
        notify.tell("nobody listens");
        Notify::new(&ParentEnv::new(Vec::new())).tell("READY=1");
    }
}
