//! Who is at the other end of a Unix socket, as the kernel says (unix(7), `SO_PEERCRED`, `SO_PEERGROUPS`), and descriptors
//! that the process was handed (`sd_listen_fds(3)`).

use std::ffi::c_int;
use std::fs::File;
use std::io::{self, Read};
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Who called `connect`, or, seen from there, who called `listen`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    /// Its process, as our namespace has it; 0 if it has none there.
    pub pid: u32,
    /// Its effective uid.
    pub uid: u32,
    /// Its effective gid.
    pub gid: u32,
}

/// The credentials of the other end, as they were when the connection was made.
///
/// # Errors
/// It is no connected Unix socket.
pub fn credentials(socket: impl AsFd) -> io::Result<Credentials> {
    let mut found = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = socklen(size_of::<libc::ucred>());
    // SAFETY: the kernel writes at most `length` bytes into `found`, which is that long and of plain numbers.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Credentials { pid: u32::try_from(found.pid).unwrap_or_default(), uid: found.uid, gid: found.gid })
}

/// The supplementary groups of the other end, as they were when the connection was made. None where the kernel cannot tell
/// (before Linux 4.13): groups only add rights.
///
/// # Errors
/// It is no connected Unix socket.
pub fn groups(socket: impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut length = socklen(groups.len() * size_of::<libc::gid_t>());
        // SAFETY: the kernel writes at most `length` bytes into `groups`, which is that long and of plain numbers.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let count = usize::try_from(length).unwrap_or_default() / size_of::<libc::gid_t>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        match io::Error::last_os_error() {
            // `length` is now what there would have to be room for (socket(7) does not say so; net/core/sock.c does).
            error if error.raw_os_error() == Some(libc::ERANGE) && count > groups.len() => groups.resize(count, 0),
            error if error.raw_os_error() == Some(libc::ENOPROTOOPT) => return Ok(Vec::new()),
            error => return Err(error),
        }
    }
}

/// The numbers that stand for everybody whom the namespace of this process has no number for. They are also those of a user
/// (`nobody`) and a group, who cannot be told from all these then (user_namespaces(7), "Unmapped user and group IDs").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unmapped {
    uid: Option<u32>,
    gid: Option<u32>,
}

impl Unmapped {
    /// As it is here; nobody, where everybody has a number.
    #[must_use]
    pub fn here() -> Self {
        let read = |path: &str| {
            let mut text = String::new();
            let read = File::open(path).and_then(|file| file.take(4096).read_to_string(&mut text));
            read.ok().map(|_| text)
        };
        let of = |map: &str, number: &str| unmapped(read(map).as_deref(), read(number).as_deref());
        Self {
            uid: of("/proc/self/uid_map", "/proc/sys/kernel/overflowuid"),
            gid: of("/proc/self/gid_map", "/proc/sys/kernel/overflowgid"),
        }
    }

    /// Whether this uid may be anybody's.
    #[must_use]
    pub fn is_user(self, uid: u32) -> bool {
        self.uid == Some(uid)
    }

    /// Whether this gid may be anybody's.
    #[must_use]
    pub fn is_group(self, gid: u32) -> bool {
        self.gid == Some(gid)
    }
}

/// The overflow number, unless the map is known to be of everybody to himself.
fn unmapped(map: Option<&str>, number: Option<&str>) -> Option<u32> {
    const USUAL: u32 = 65_534;
    let map: Vec<&str> = map.unwrap_or_default().split_ascii_whitespace().collect();
    (map != ["0", "0", "4294967295"]).then(|| number.and_then(|text| text.trim().parse().ok()).unwrap_or(USUAL))
}

/// Takes over a descriptor that the process was started with; an exec will close it. `None` if it was not, or is not open:
/// then it may be one of our own, which nobody handed to us.
#[must_use]
pub fn take_inherited(number: RawFd) -> Option<OwnedFd> {
    if number < 3 || !super::is_inherited(number) {
        return None;
    }
    // SAFETY: changes a flag of an open descriptor.
    unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    // SAFETY: open and inherited, so none of our objects owns it; and with the flag set nobody takes it twice.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Takes the rights of group and others from every file that is made from now on; answers what was taken before.
pub fn mask_new_files(mask: u32) -> u32 {
    // SAFETY: sets one number of the process; cannot fail (umask(2)).
    unsafe { libc::umask(mask) }
}

fn socklen(size: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(size).unwrap_or(libc::socklen_t::MAX)
}

/// Whether a descriptor is a listening Unix stream socket.
#[must_use]
pub fn is_listening_unix(socket: impl AsFd) -> bool {
    let option = |name: c_int| {
        let mut value: c_int = 0;
        let mut length = socklen(size_of::<c_int>());
        // SAFETY: the kernel writes at most `length` bytes into `value`.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                name,
                (&raw mut value).cast(),
                &raw mut length,
            )
        };
        (result == 0).then_some(value)
    };
    option(libc::SO_DOMAIN) == Some(libc::AF_UNIX)
        && option(libc::SO_TYPE) == Some(libc::SOCK_STREAM)
        && option(libc::SO_ACCEPTCONN) == Some(1)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn both_ends_see_each_other() {
        let (a, b) = UnixStream::pair().unwrap();
        let us = rustix::process::geteuid().as_raw();
        for end in [&a, &b] {
            let seen = credentials(end).unwrap();
            assert_eq!((seen.uid, seen.pid), (us, std::process::id()));
        }
        let mut own: Vec<u32> = rustix::process::getgroups().unwrap().iter().map(|gid| gid.as_raw()).collect();
        let mut seen = groups(&a).unwrap();
        own.sort_unstable();
        seen.sort_unstable();
        assert_eq!(seen, own);
        let file = File::open("/dev/null").unwrap();
        assert!(credentials(&file).is_err() && groups(&file).is_err());
    }

    #[test]
    fn where_somebody_has_no_number_one_number_is_nobodys() {
        assert_eq!(unmapped(Some("         0          0 4294967295\n"), Some("65534\n")), None);
        for partial in ["0 100000 65536", "0 0 1", "0 0 4294967295 5 5 1", ""] {
            assert_eq!(unmapped(Some(partial), Some("77\n")), Some(77), "{partial}");
        }
        assert_eq!(unmapped(None, None), Some(65_534));
        let some = Unmapped { uid: Some(7), gid: None };
        assert!(some.is_user(7) && !some.is_user(8) && !some.is_group(7));
    }

    #[test]
    fn only_a_listening_unix_socket_is_one() {
        let path = std::env::temp_dir().join(format!("vouchsafe-listening-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        assert!(is_listening_unix(&listener));
        std::fs::remove_file(&path).unwrap();
        assert!(!is_listening_unix(UnixStream::pair().unwrap().0));
        assert!(!is_listening_unix(std::net::TcpListener::bind("127.0.0.1:0").unwrap()));
    }
}
