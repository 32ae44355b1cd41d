//! The head file beside a log: the lock of its writers, and what the last of them left.
//!
//! It is what lets a chain run on when the log was moved away, and what notices a log that was cut. It is overwritten in
//! place with a line of fixed width and never synced: a log that is ahead of its head is right (`chain::resume`), also one
//! that was moved away since (`rotated`).

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::chain::{Chain, Digest, Stored, StreamId, push_hex, take_hex};
use super::error::{AuditError, Problem};
use super::process::boot_id;
use super::seal::EpochId;

/// What the last writer left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) chain: Chain,
    /// The log that the record went to.
    pub(super) log: Identity,
    /// How long that log then was; 0 where the log was made and nothing was written yet.
    pub(super) bytes: u64,
    /// The epoch that the record is sealed in, so that a sealed log is known as one when its state is gone.
    pub(super) epoch: Option<EpochId>,
    /// The start of the kernel under which this was written.
    pub(super) boot: Option<Boot>,
}

/// A start of the kernel. What was written under this one is what was written last: only a power cut, or the like, makes a file
/// older than its last writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Boot(pub(super) [u8; 8]);

impl Boot {
    /// This one, if the kernel shows it.
    pub(super) fn now() -> Option<Self> {
        let (digits, _) = boot_id()?.split_at_checked(16)?;
        take_hex::<8>(digits.as_bytes()).map(|(_, bytes)| Self(bytes))
    }
}

/// Which file a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) device: u64,
    pub(super) inode: u64,
}

impl Identity {
    pub(super) fn of(stat: &Stat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino }
    }
}

/// The opened head file.
pub(super) struct HeadFile {
    path: PathBuf,
    file: File,
}

impl HeadFile {
    /// The head file of a log.
    pub(super) fn path_of(log: &Path) -> PathBuf {
        let mut path = log.as_os_str().to_owned();
        path.push(".head");
        path.into()
    }

    pub(super) fn open(log: &Path) -> Result<Self, AuditError> {
        let path = Self::path_of(log);
        let (file, _) = open_checked(&path, OFlags::empty())?;
        Ok(Self { path, file })
    }

    /// Takes the lock, or gives up after [`PATIENCE`].
    pub(super) fn lock(&mut self) -> Result<(), AuditError> {
        let started = Instant::now();
        let mut pause = Duration::from_micros(50);
        loop {
            match rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    // Someone may have removed the file while we waited; then two writers would hold two locks.
                    let opened = identity(&self.file).map_err(|error| self.failed("look at", error))?;
                    if rustix::fs::lstat(&self.path).is_ok_and(|stat| Identity::of(&stat) == opened) {
                        return Ok(());
                    }
                    self.file = open_checked(&self.path, OFlags::empty())?.0;
                }
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(10));
                }
                Err(errno) => return Err(self.failed("lock", errno)),
            }
            if started.elapsed() >= PATIENCE {
                return Err(AuditError::Locked { path: self.path.clone(), waited_ms: started.elapsed().as_millis() });
            }
        }
    }

    /// Lets the lock go. Closing the descriptor would do it too, so a failure is no news.
    pub(super) fn unlock(&self) {
        rustix::fs::flock(&self.file, FlockOperation::Unlock).unwrap_or_default();
    }

    pub(super) fn read(&self) -> Result<(Stored, Option<Head>), AuditError> {
        let mut text = [0; LINE + 1];
        let mut read = 0;
        while let Some(rest) = text.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, read as u64) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed("read", error)),
            }
        }
        Ok(match text.get(..read).unwrap_or_default() {
            [] => (Stored::Nothing, None),
            text => parse(text).map_or((Stored::Damaged, None), |head| (Stored::Chain(head.chain), Some(head))),
        })
    }

    /// What was damaged may be longer than a head is.
    pub(super) fn shorten(&self) -> Result<(), AuditError> {
        self.file.set_len(LINE as u64).map_err(|error| self.failed("mend", error))
    }

    pub(super) fn write(&self, head: &Head) -> Result<(), AuditError> {
        self.file.write_all_at(&render(head), 0).map_err(|error| self.failed("write", error))
    }

    fn failed(&self, doing: &'static str, error: impl Into<io::Error>) -> AuditError {
        AuditError::File { path: self.path.clone(), doing, error: error.into() }
    }
}

/// Reads a head file that may belong to someone else, for `verify`. `None` if there is none, or it makes no sense.
pub(super) fn read_foreign(log: &Path) -> Option<Head> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(HeadFile::path_of(log), flags, Mode::empty()).ok()?);
    let mut text = vec![0; LINE];
    file.read_exact_at(&mut text, 0).ok()?;
    parse(&text)
}

/// How long a lock is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

const MAGIC: &[u8] = b"vouchsafe-audit-head/1 ";
/// Magic, stream, number, hash, device, inode, length, epoch, boot, check: see docs/spec/audit-record.md, section 7.
const LINE: usize = MAGIC.len() + 33 + 17 + 65 + 17 + 17 + 17 + 17 + 17 + 16 + 1;
const _: () = assert!(LINE < 512, "it fits into a sector");
/// In the place of an epoch or a boot that is none.
const NONE: [u8; 8] = [0; 8];

fn render(head: &Head) -> Vec<u8> {
    let mut out = Vec::with_capacity(LINE);
    out.extend_from_slice(MAGIC);
    push_hex(&mut out, &head.chain.stream.0);
    out.push(b' ');
    push_hex(&mut out, &head.chain.seq.to_be_bytes());
    out.push(b' ');
    push_hex(&mut out, &head.chain.hash.0);
    let numbers = [head.log.device, head.log.inode, head.bytes].map(u64::to_be_bytes);
    let names = [head.epoch.map_or(NONE, |epoch| epoch.0), head.boot.map_or(NONE, |boot| boot.0)];
    for word in numbers.iter().chain(&names) {
        out.push(b' ');
        push_hex(&mut out, word);
    }
    out.push(b' ');
    let check = Digest::of(&out);
    push_hex(&mut out, check.0.get(..8).unwrap_or_default());
    out.push(b'\n');
    out
}

fn parse(text: &[u8]) -> Option<Head> {
    let rest = text.strip_suffix(b"\n")?;
    let (checked, check) = take_hex::<8>(rest)?;
    if Digest::of(checked).0.get(..8) != Some(check.as_slice()) {
        return None;
    }
    let named = |bytes: [u8; 8]| (bytes != NONE).then_some(bytes);
    let (rest, boot) = take_hex::<8>(checked.strip_suffix(b" ")?)?;
    let (rest, epoch) = take_hex::<8>(rest.strip_suffix(b" ")?)?;
    let (rest, bytes) = take_hex::<8>(rest.strip_suffix(b" ")?)?;
    let (rest, inode) = take_hex::<8>(rest.strip_suffix(b" ")?)?;
    let (rest, device) = take_hex::<8>(rest.strip_suffix(b" ")?)?;
    let (rest, hash) = take_hex::<32>(rest.strip_suffix(b" ")?)?;
    let (rest, seq) = take_hex::<8>(rest.strip_suffix(b" ")?)?;
    let (rest, stream) = take_hex::<16>(rest.strip_suffix(b" ")?)?;
    (rest == MAGIC).then_some(Head {
        chain: Chain { stream: StreamId(stream), seq: u64::from_be_bytes(seq), hash: Digest(hash) },
        log: Identity { device: u64::from_be_bytes(device), inode: u64::from_be_bytes(inode) },
        bytes: u64::from_be_bytes(bytes),
        epoch: named(epoch).map(EpochId),
        boot: named(boot).map(Boot),
    })
}

pub(super) fn identity(fd: impl AsFd) -> Result<Identity, Errno> {
    rustix::fs::fstat(fd).map(|stat| Identity::of(&stat))
}

/// Whether a file is made where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Making {
    IfAbsent,
    Never,
}

/// Opens or makes a file of ours, and checks what was opened; says whether it was made.
pub(super) fn open_checked(path: &Path, also: OFlags) -> Result<(File, bool), AuditError> {
    let absent = || AuditError::File { path: path.to_owned(), doing: "open", error: Errno::NOENT.into() };
    open_checked_as(path, also, Making::IfAbsent)?.ok_or_else(absent)
}

/// The same; `None` if there is no such file, and none is to be made.
pub(super) fn open_checked_as(path: &Path, also: OFlags, making: Making) -> Result<Option<(File, bool)>, AuditError> {
    let failed = |doing, error: Errno| AuditError::File { path: path.to_owned(), doing, error: error.into() };
    let refused = |problem| AuditError::Unsafe { path: path.to_owned(), problem };
    // NONBLOCK: a FIFO in this place must not be waited for. A regular file does not care.
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | also;
    let mut created = false;
    let fd = loop {
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => break fd,
            Err(Errno::NOENT) if making == Making::Never => return Ok(None),
            Err(Errno::NOENT) => {}
            Err(Errno::LOOP) => return Err(refused(Problem::Link)),
            Err(Errno::ISDIR | Errno::NXIO) => return Err(refused(Problem::NotRegular)),
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(failed("open", errno)),
        }
        match rustix::fs::open(path, flags | OFlags::CREATE | OFlags::EXCL, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => {
                created = true;
                break fd;
            }
            Err(Errno::EXIST | Errno::INTR) => {}
            Err(errno) => return Err(failed("create", errno)),
        }
    };
    if created {
        // The umask may have taken our own rights.
        rustix::fs::fchmod(&fd, Mode::RUSR | Mode::WUSR).map_err(|errno| failed("create", errno))?;
        sync_folder(path).map_err(|errno| failed("sync the folder of", errno))?;
    }
    let stat = rustix::fs::fstat(&fd).map_err(|errno| failed("look at", errno))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(refused(Problem::NotRegular));
    }
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(refused(Problem::Owner(stat.st_uid)));
    }
    if stat.st_mode & 0o7137 != 0 {
        return Err(refused(Problem::Mode(stat.st_mode & 0o7777)));
    }
    Ok(Some((File::from(fd), created)))
}

/// The folder that `path` is in.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

pub(super) fn sync_folder(path: &Path) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::fsync(rustix::fs::open(folder_of(path), flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_with_any_byte_changed_is_none() {
        let chain = Chain { stream: StreamId([3; 16]), seq: 77, hash: Digest([9; 32]) };
        let log = Identity { device: 1, inode: u64::MAX };
        let head = Head { chain, log, bytes: 5, epoch: Some(EpochId([6; 8])), boot: None };
        let text = render(&head);
        assert_eq!(text.len(), LINE);
        assert_eq!(parse(&text), Some(head));
        let other = Head { epoch: None, boot: Boot::now(), ..head };
        assert_eq!(parse(&render(&other)), Some(other));
        for at in 0..text.len() {
            let mut text = text.clone();
            text[at] ^= 1;
            assert_eq!(parse(&text), None, "byte {at}");
        }
        assert_eq!(parse(b""), None);
    }
}
