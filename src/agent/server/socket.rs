//! The socket: made in a safe folder, never in the place of something else, or handed over by systemd.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FileType, FlockOperation, Mode, OFlags};

use crate::agent::connect::connect;
use crate::checked_file::{FileError, check_folder, plain_io};
use crate::error::{Cause, Class};
use crate::inject::ParentEnv;
use crate::name::show;
use crate::sys::peer;

/// The first descriptor that systemd hands over (`sd_listen_fds(3)`).
const FIRST_HANDED_OVER: i32 = 3;

/// How long another process may be about to make the same socket.
const MAKING: Duration = Duration::from_secs(2);

/// The agent's socket, taken away when dropped, if we made it.
#[derive(Debug)]
pub(super) struct Socket {
    /// Listens; does not block. Not there once it was taken.
    listener: Option<UnixListener>,
    /// Where clients find it.
    pub(super) path: PathBuf,
    /// Device and inode, if we made it.
    made: Option<(u64, u64)>,
}

/// Why there is no socket.
#[derive(Debug)]
pub(super) enum SocketError {
    /// What systemd handed over is closed to those whom the host file lets in.
    Closed(PathBuf),
    /// The folder is not safe, or not there.
    Folder(FileError),
    /// What systemd handed over is no listening Unix socket.
    HandedOver,
    /// A system call failed.
    Io { path: PathBuf, doing: &'static str, error: io::Error },
    /// Another agent answers there.
    Live(PathBuf),
    /// Somebody holds the lock of those who make it, and does not let go.
    Locked(PathBuf),
    /// Something else lies there.
    NotASocket(PathBuf),
    /// What systemd handed over belongs to somebody else, who could close it or move it.
    Owner { path: PathBuf, uid: u32 },
    /// Nobody says where.
    Unnamed,
}

impl fmt::Display for SocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(path) => {
                write!(f, "the host file has users of the agent, and the socket `{}` lets nobody in", show(path))
            }
            Self::Folder(error) => write!(f, "the folder of the agent's socket: {error}"),
            Self::HandedOver => {
                write!(f, "what was handed over by LISTEN_FDS is not one listening Unix socket with an absolute path")
            }
            Self::Io { path, doing, error } => {
                write!(f, "cannot {doing} the socket `{}`: {}", show(path), plain_io(error))
            }
            Self::Live(path) => write!(f, "another process serves the socket `{}`", show(path)),
            Self::Locked(path) => {
                write!(f, "another process has held the lock `{}` of the agent's socket for 2 s", show(path))
            }
            Self::NotASocket(path) => write!(f, "`{}` is there and is not a socket; it stays", show(path)),
            Self::Owner { path, uid } => {
                write!(f, "the socket `{}` that was handed over belongs to uid {uid}", show(path))
            }
            Self::Unnamed => write!(f, "nothing says where the agent's socket is to be"),
        }
    }
}

impl Cause for SocketError {
    fn class(&self) -> Class {
        match self {
            Self::Unnamed => Class::Usage,
            Self::Live(_) | Self::Locked(_) => Class::Busy,
            Self::Closed(_)
            | Self::Folder(_)
            | Self::HandedOver
            | Self::Io { .. }
            | Self::NotASocket(_)
            | Self::Owner { .. } => Class::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Closed(_) => {
                Some("in the .socket unit: SocketMode=0666; who comes in is decided by who he is".into())
            }
            Self::Folder(error) if error.is_absent() => Some(format!("install -d -m 0755 {}", show(&error.path))),
            Self::Folder(error) => error.hint(),
            Self::Live(path) => Some(format!("vouchsafe agent status --socket {}", show(path))),
            Self::Locked(path) => Some(format!("fuser -v {}   # says who; or start the agent again", show(path))),
            Self::NotASocket(path) | Self::Owner { path, .. } => Some(format!("ls -l {}", show(path))),
            Self::Unnamed => Some("vouchsafe agent --policies DIR --socket PATH".into()),
            Self::HandedOver | Self::Io { .. } => None,
        }
    }
}

/// The socket that systemd has handed over, if it has: held to what we would have made, and open to others if `for_all`.
///
/// # Errors
/// What it handed over is something else, or lies where others could put theirs.
pub(super) fn handed_over(parent: &ParentEnv, for_all: bool) -> Result<Option<Socket>, SocketError> {
    let number = |name| parent.get(name).and_then(|text| text.to_str()).and_then(|text| text.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) || parent.get("LISTEN_FDS").is_none() {
        return Ok(None);
    }
    if number("LISTEN_FDS") != Some(1) {
        return Err(SocketError::HandedOver);
    }
    let fd = peer::take_inherited(FIRST_HANDED_OVER).ok_or(SocketError::HandedOver)?;
    accept_handed_over(fd, for_all).map(Some)
}

fn accept_handed_over(fd: OwnedFd, for_all: bool) -> Result<Socket, SocketError> {
    if !peer::is_listening_unix(&fd) {
        return Err(SocketError::HandedOver);
    }
    let listener = UnixListener::from(fd);
    let address = listener.local_addr().map_err(|_| SocketError::HandedOver)?;
    // An abstract name is anybody's who is first; a relative one depends on who looks.
    let path = address.as_pathname().filter(|path| path.is_absolute()).ok_or(SocketError::HandedOver)?.to_owned();
    check_folder(path.parent().unwrap_or_else(|| Path::new("/"))).map_err(SocketError::Folder)?;
    let failed = |doing, error| SocketError::Io { path: path.clone(), doing, error };
    // Who may replace what lies there are root and we, so that it is still the one that listens.
    let stat = rustix::fs::lstat(&path).map_err(|errno| failed("look at", errno.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(SocketError::NotASocket(path));
    }
    if stat.st_uid != 0 && stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(SocketError::Owner { path, uid: stat.st_uid });
    }
    // Group or others; where there is an access control list, the group's bits are its mask. To connect is to write (unix(7)).
    if for_all && stat.st_mode & 0o022 == 0 {
        return Err(SocketError::Closed(path));
    }
    listener.set_nonblocking(true).map_err(|error| failed("listen at", error))?;
    Ok(Socket { listener: Some(listener), path, made: None })
}

/// Makes the socket. Only its own user may knock at first; everybody may, once it stands, if `for_all`: who comes in is
/// decided by who he is.
///
/// # Errors
/// The folder is unsafe, another agent is there, or something else is.
pub(super) fn make(path: &Path, for_all: bool) -> Result<Socket, SocketError> {
    let failed = |doing, error| SocketError::Io { path: path.to_owned(), doing, error };
    let path = std::path::absolute(path).map_err(|error| failed("name", error))?;
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    check_folder(folder).map_err(SocketError::Folder)?;
    // Two that start at once would each take the other's socket for a dead one.
    let _lock = Lock::take(&path)?;
    clear(&path)?;
    let before = peer::mask_new_files(0o177);
    let bound = UnixListener::bind(&path);
    peer::mask_new_files(before);
    let listener = bound.map_err(|error| failed("make", error))?;
    listener.set_nonblocking(true).map_err(|error| failed("listen at", error))?;
    let stat = rustix::fs::lstat(&path).map_err(|errno| failed("look at", errno.into()))?;
    let socket = Socket { listener: Some(listener), path: path.clone(), made: Some((stat.st_dev, stat.st_ino)) };
    if for_all {
        rustix::fs::chmod(&path, Mode::from_raw_mode(0o666)).map_err(|errno| failed("open", errno.into()))?;
    }
    Ok(socket)
}

/// Held by the one who makes the socket. A file of his own, which nobody else can open: the folder is everybody's to lock.
struct Lock {
    path: PathBuf,
    _file: OwnedFd,
}

impl Lock {
    fn take(socket: &Path) -> Result<Self, SocketError> {
        let mut name = socket.file_name().unwrap_or_default().to_owned();
        name.push(".lock");
        let path = socket.with_file_name(name);
        let failed = |error| SocketError::Io { path: socket.to_owned(), doing: "lock the place of", error };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let start = Instant::now();
        while start.elapsed() < MAKING {
            let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(|errno| failed(errno.into()))?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // The one before may have taken it away just now: then it is a lock that nobody else sees.
                Ok(()) => {
                    let is = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
                    let own = rustix::fs::fstat(&file).map(is).map_err(|errno| failed(errno.into()))?;
                    if rustix::fs::lstat(&path).is_ok_and(|stat| is(stat) == own) {
                        return Ok(Self { path, _file: file });
                    }
                }
                Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(Duration::from_millis(20)),
                Err(errno) => return Err(failed(errno.into())),
            }
        }
        Err(SocketError::Locked(path))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is still locked, so that it is ours.
        std::fs::remove_file(&self.path).unwrap_or_default();
    }
}

/// Takes away what an agent that is gone has left; nothing else.
fn clear(path: &Path) -> Result<(), SocketError> {
    let failed = |doing, error| SocketError::Io { path: path.to_owned(), doing, error };
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at", error)),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(SocketError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match connect(path, Duration::from_secs(1)) {
        Ok(_) => Err(SocketError::Live(path.to_owned())),
        // Nobody listens any more.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|error| failed("take away the old", error))
        }
        // Its queue is full: somebody is there.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(SocketError::Live(path.to_owned())),
        Err(error) => Err(failed("try", error)),
    }
}

impl Socket {
    /// What listens, for the event loop; once.
    pub(super) fn listen(&mut self) -> io::Result<tokio::net::UnixListener> {
        let listener = self.listener.take().ok_or(io::ErrorKind::NotConnected)?;
        tokio::net::UnixListener::from_std(listener)
    }

    /// Whether systemd made it.
    pub(super) fn is_handed_over(&self) -> bool {
        self.made.is_none()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let Some(made) = self.made else { return };
        if rustix::fs::lstat(&self.path).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == made) {
            std::fs::remove_file(&self.path).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
    use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("vouchsafe-socket-{name}-{}", std::process::id()));
            std::fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
            Self(path)
        }

        fn socket(&self) -> PathBuf {
            self.0.join("agent.sock")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn it_is_closed_to_others_unless_they_are_meant_and_goes_with_its_owner() {
        let folder = Folder::new("made");
        for (for_all, mode) in [(false, 0o600), (true, 0o666)] {
            let socket = make(&folder.socket(), for_all).unwrap();
            assert_eq!(folder.socket().metadata().unwrap().permissions().mode() & 0o777, mode);
            assert!(matches!(make(&folder.socket(), false), Err(SocketError::Live(_))));
            drop(socket);
            assert!(!folder.socket().exists());
        }
    }

    #[test]
    fn what_a_dead_agent_left_is_replaced_and_what_is_no_socket_stays() {
        let folder = Folder::new("left");
        let path = folder.socket();
        let mut dead = make(&path, false).unwrap();
        dead.made = None;
        drop(dead);
        assert!(path.exists());
        drop(make(&path, false).unwrap());
        std::fs::File::create(&path).unwrap();
        assert!(matches!(make(&path, false), Err(SocketError::NotASocket(_))));
        std::fs::remove_file(&path).unwrap();
        symlink("/dev/null", &path).unwrap();
        assert!(matches!(make(&path, false), Err(SocketError::NotASocket(_))));
        std::fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert!(matches!(make(&path, false), Err(SocketError::NotASocket(_))));
        assert!(path.exists());
    }

    #[test]
    fn only_who_can_write_the_folder_can_keep_it_from_being_made() {
        let folder = Folder::new("locked");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let everybodys = rustix::fs::open(&folder.0, flags, Mode::empty()).unwrap();
        rustix::fs::flock(&everybodys, FlockOperation::LockExclusive).unwrap();
        drop(make(&folder.socket(), false).unwrap());
        assert_eq!(folder.0.read_dir().unwrap().count(), 0, "nothing is left");
        let own = std::fs::File::create(folder.0.join("agent.sock.lock")).unwrap();
        rustix::fs::flock(&own, FlockOperation::LockExclusive).unwrap();
        let start = Instant::now();
        assert!(matches!(make(&folder.socket(), false), Err(SocketError::Locked(_))));
        assert!(start.elapsed() < MAKING * 5);
        drop(own);
        drop(make(&folder.socket(), false).unwrap());
    }

    #[test]
    fn another_socket_in_its_place_is_left_alone() {
        let folder = Folder::new("moved");
        let socket = make(&folder.socket(), false).unwrap();
        std::fs::remove_file(folder.socket()).unwrap();
        let other = UnixListener::bind(folder.socket()).unwrap();
        drop(socket);
        assert!(folder.socket().exists());
        drop(other);
    }

    #[test]
    fn an_unsafe_folder_is_refused() {
        let folder = Folder::new("unsafe");
        std::fs::set_permissions(&folder.0, PermissionsExt::from_mode(0o777)).unwrap();
        assert!(matches!(make(&folder.socket(), false), Err(SocketError::Folder(_))));
        assert!(matches!(make(&folder.0.join("none/agent.sock"), false), Err(SocketError::Folder(_))));
    }

    #[test]
    fn what_was_handed_over_is_held_to_what_we_would_have_made() {
        let folder = Folder::new("handed");
        let path = folder.socket();
        let hand_over = |for_all| {
            std::fs::remove_file(&path).unwrap_or_default();
            let listener = UnixListener::bind(&path).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            accept_handed_over(listener.into(), for_all)
        };
        assert_eq!(hand_over(false).unwrap().path, path);
        assert!(matches!(hand_over(true), Err(SocketError::Closed(at)) if at == path));

        std::fs::set_permissions(&folder.0, PermissionsExt::from_mode(0o777)).unwrap();
        assert!(matches!(hand_over(false), Err(SocketError::Folder(_))));
        std::fs::set_permissions(&folder.0, PermissionsExt::from_mode(0o700)).unwrap();

        // Its file was taken away, and something else lies there.
        for is_there in [false, true] {
            std::fs::remove_file(&path).unwrap_or_default();
            let listener = UnixListener::bind(&path).unwrap();
            std::fs::remove_file(&path).unwrap();
            if is_there {
                std::fs::File::create(&path).unwrap();
            }
            match accept_handed_over(listener.into(), false) {
                Err(SocketError::NotASocket(_)) => assert!(is_there),
                Err(SocketError::Io { .. }) => assert!(!is_there),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_is_no_listening_socket_with_a_path_is_not_taken() {
        let (one, _other) = UnixStream::pair().unwrap();
        let name = SocketAddr::from_abstract_name(format!("vouchsafe-{}", std::process::id())).unwrap();
        let datagrams = UnixDatagram::unbound().unwrap();
        let handed: [OwnedFd; 4] = [
            one.into(),
            UnixListener::bind_addr(&name).unwrap().into(),
            datagrams.into(),
            std::net::TcpListener::bind("127.0.0.1:0").unwrap().into(),
        ];
        for fd in handed {
            assert!(matches!(accept_handed_over(fd, false), Err(SocketError::HandedOver)));
        }
    }
}
