//! Putting a sealed file in place of another: nothing is lost, whatever happens in between.
//!
//! The order is the promise (`docs/spec/sealed-file.md`, "Writing"): lock the folder, read, change, encrypt, read back and
//! compare, write a temporary file beside it, fsync it, rename it over the old one, fsync the folder. Until the rename
//! the old file is whole, from the rename on the new one is. The lock is the folder's (flock(2)), not the file's, because
//! the file is replaced; it ends with the process that holds it, so a temporary file found under the lock belongs to a
//! dead writer and is removed. Readers take no lock.
//!
//! The result of close(2) is not looked at: fsync(2) has reported by then whatever a file system would say there.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ::age::Recipient;
use ring::rand::{SecureRandom, SystemRandom};
use rustix::fs::{AtFlags, FlockOperation, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use super::document::{Document, DocumentError};
use super::sealed::{self, MAX_FILE, SealedError, SealedErrorKind as Kind};
use crate::checked_file::{self, Use};
use crate::secret::Secret;

/// How long a writer waits for another one.
pub const LOCK_LIMIT: Duration = Duration::from_secs(2);
/// `.NAME.` + 16 hexadecimal digits + this.
const TEMPORARY: &str = ".tmp";
const TAG_DIGITS: usize = 16;

/// How one sealed file is opened and sealed again. The `age` and the `kms` store differ in this alone.
pub trait Keys {
    /// The plaintext of a sealed file, or that no key at hand opens it.
    ///
    /// # Errors
    /// [`Kind::NoIdentityFits`], or what is wrong with the file.
    fn open(&self, bytes: &[u8]) -> Result<Secret, Kind>;

    /// Calls `seal` with everyone who is to open the file from now on.
    ///
    /// # Errors
    /// A recipient is malformed or does not answer; those of `seal`.
    fn with_recipients(&self, seal: Seal<'_>) -> Result<Vec<u8>, Kind>;
}

/// Encrypts to the recipients it is given.
pub type Seal<'a> = &'a mut dyn FnMut(&[&dyn Recipient]) -> Result<Vec<u8>, Kind>;

/// Why nothing was written: for a reason of the file, or because the change itself was refused.
#[derive(Debug)]
pub enum Failure<E> {
    /// The closure's own error.
    Change(E),
    /// Opening, encrypting or writing failed.
    File(Kind),
}

impl<E> From<Kind> for Failure<E> {
    fn from(kind: Kind) -> Self {
        Self::File(kind)
    }
}

/// Changes a document under the lock and puts it in place. The closure sees the newest one; its error leaves everything
/// as it was.
///
/// # Errors
/// Another writer holds the lock for [`LOCK_LIMIT`]; the file cannot be opened; the closure fails; nobody here could
/// open the result; a system call fails. The old file is whole in every case but one: if only the last `fsync`, of the
/// folder, fails, the new file is in place, and may not be after a power cut.
pub fn update<T, E>(
    path: &Path,
    keys: &dyn Keys,
    change: impl FnOnce(&mut Document) -> Result<T, E>,
) -> Result<T, Failure<E>> {
    // Where the path is a link its target is replaced, in the target's folder, and the link stays.
    let target = std::fs::canonicalize(path).map_err(|error| Kind::File(file_error(path, error)))?;
    let place = Place::lock(&target)?;
    let old = checked_file::open(path, Use::Public).map_err(Kind::File)?;
    let stat = rustix::fs::fstat(&old).map_err(Kind::io("look at it"))?;
    place.holds(&stat)?;
    let bytes = checked_file::read_opened(&old, path, MAX_FILE).map_err(Kind::File)?;
    let (answer, sealed) = remake(&bytes, keys, change)?;
    let temporary = place.write_temporary(&sealed, Some(&stat))?;
    temporary.replace()?;
    Ok(answer)
}

/// What [`update`] does, up to the write: nothing is locked, made or touched. Whether it would go well can be told from it.
///
/// # Errors
/// Those of [`update`] but for the lock and the write.
pub fn rehearse<T, E>(
    path: &Path,
    keys: &dyn Keys,
    change: impl FnOnce(&mut Document) -> Result<T, E>,
) -> Result<T, Failure<E>> {
    let bytes = checked_file::read(path, Use::Public, MAX_FILE).map_err(Kind::File)?;
    remake(&bytes, keys, change).map(|(answer, _)| answer)
}

fn remake<T, E>(
    bytes: &[u8],
    keys: &dyn Keys,
    change: impl FnOnce(&mut Document) -> Result<T, E>,
) -> Result<(T, Vec<u8>), Failure<E>> {
    let mut document = Document::parse(keys.open(bytes)?.expose()).map_err(Kind::Malformed)?;
    let answer = change(&mut document).map_err(Failure::Change)?;
    Ok((answer, seal(&mut document, keys)?))
}

/// Writes a first document. The file gets mode 0600.
///
/// # Errors
/// There is a file of that name ([`Kind::Exists`]); otherwise those of [`update`].
pub fn create(path: &Path, mut document: Document, keys: &dyn Keys) -> Result<(), Kind> {
    let place = Place::lock(path)?;
    if std::fs::symlink_metadata(path).is_ok() {
        return Err(Kind::Exists);
    }
    let sealed = seal(&mut document, keys)?;
    place.write_temporary(&sealed, None)?.link()
}

/// Puts a small file of our own, which is no sealed file, in place of another in the same way. It gets mode 0600.
///
/// # Errors
/// Another writer holds the lock for [`LOCK_LIMIT`]; others could write the folder; a system call fails.
pub fn replace_small(path: &Path, bytes: &[u8]) -> Result<(), SealedError> {
    let replace = || Place::lock(path)?.write_temporary(bytes, None)?.replace();
    replace().map_err(|kind: Kind| kind.at(path))
}

/// Counts the generation up, encrypts, and proves that the result opens here and holds the same.
fn seal(document: &mut Document, keys: &dyn Keys) -> Result<Vec<u8>, Kind> {
    document.generation = document.generation.checked_add(1).ok_or(Kind::Change(DocumentError::Exhausted))?;
    let plaintext = document.to_plaintext();
    let sealed = keys.with_recipients(&mut |recipients| sealed::encrypt(&plaintext, recipients.iter().copied()))?;
    match keys.open(&sealed) {
        Ok(read_back) if read_back.same_as(&plaintext) => {}
        Ok(_) => return Err(Kind::ReadBackDiffers),
        Err(Kind::NoIdentityFits { .. }) => return Err(Kind::NoReadBack),
        Err(error) => return Err(error),
    }
    // What cannot be parsed must not be written either, whatever the closure did.
    Document::parse(plaintext.expose())?;
    Ok(sealed)
}

/// A locked folder and the name of the file in it.
struct Place {
    folder: OwnedFd,
    name: OsString,
}

impl Place {
    fn lock(path: &Path) -> Result<Self, Kind> {
        let (folder, name) = open_folder_of(path)?;
        wait_for_lock(&folder)?;
        let place = Self { folder, name };
        place.remove_leftovers()?;
        Ok(place)
    }

    /// That the file which was opened is the one that will be replaced. While the lock was waited for, a link or a folder on
    /// the way may have been turned to another store; its content must not be written over this one's.
    fn holds(&self, opened: &Stat) -> Result<(), Kind> {
        let here = rustix::fs::statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(Kind::io("look at it in its folder"))?;
        if (here.st_dev, here.st_ino) == (opened.st_dev, opened.st_ino) {
            Ok(())
        } else {
            let error = std::io::Error::other("its path was replaced meanwhile");
            Err(Kind::Io { doing: "lock it", error })
        }
    }

    /// Files that a writer left which was killed before its rename.
    fn remove_leftovers(&self) -> Result<(), Kind> {
        for entry in rustix::fs::Dir::read_from(&self.folder).map_err(Kind::io("list its folder"))? {
            let entry = entry.map_err(Kind::io("list its folder"))?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if self.is_temporary(name) {
                rustix::fs::unlinkat(&self.folder, name, AtFlags::empty())
                    .map_err(Kind::io("remove a leftover of a dead writer"))?;
            }
        }
        Ok(())
    }

    fn is_temporary(&self, name: &OsStr) -> bool {
        let tag = name
            .as_bytes()
            .strip_prefix(b".")
            .and_then(|rest| rest.strip_prefix(self.name.as_bytes()))
            .and_then(|rest| rest.strip_prefix(b"."))
            .and_then(|rest| rest.strip_suffix(TEMPORARY.as_bytes()));
        tag.is_some_and(|tag| tag.len() == TAG_DIGITS && tag.iter().all(u8::is_ascii_hexdigit))
    }

    /// Writes and syncs a temporary file, with the mode and owner of the old one.
    fn write_temporary(&self, bytes: &[u8], like: Option<&Stat>) -> Result<Temporary<'_>, Kind> {
        let mut tag = [0; TAG_DIGITS / 2];
        SystemRandom::new()
            .fill(&mut tag)
            .map_err(|_| Kind::Io { doing: "read randomness", error: std::io::ErrorKind::Other.into() })?;
        let mut name = OsString::from(".");
        name.push(&self.name);
        name.push(format!(".{:016x}{TEMPORARY}", u64::from_be_bytes(tag)));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.folder, &name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(Kind::io("create a temporary file in its folder"))?;
        let temporary = Temporary { place: self, name, is_there: true };
        let mut file = File::from(file);
        file.write_all(bytes).map_err(|error| Kind::Io { doing: "write a temporary file in its folder", error })?;
        if let Some(old) = like {
            take_after(&file, old)?;
        }
        rustix::fs::fsync(&file).map_err(Kind::io("sync a temporary file in its folder"))?;
        Ok(temporary)
    }
}

/// The folder of a file that is going to be written, if nobody else can put names there, and the file's name in it.
///
/// # Errors
/// Others could write the folder; a system call fails.
pub(super) fn open_folder_of(path: &Path) -> Result<(OwnedFd, OsString), Kind> {
    let name = path.file_name().ok_or_else(|| Kind::Io { doing: "write it", error: Errno::ISDIR.into() })?.to_owned();
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    checked_file::check_folder(parent)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(parent, flags, Mode::empty()).map_err(Kind::io("open its folder"))?;
    // A sticky folder such as /tmp is safe above a store's folder, not as that folder: others can put names there.
    let mode = rustix::fs::fstat(&folder).map_err(Kind::io("look at its folder"))?.st_mode & 0o7777;
    if mode & 0o002 != 0 {
        let kind = checked_file::FileErrorKind::Writable { at: parent.to_owned(), mode };
        return Err(Kind::File(checked_file::FileError { path: path.to_owned(), kind }));
    }
    Ok((folder, name))
}

/// Owner first: changing it may take bits of the mode away (chown(2)).
fn take_after(file: &File, old: &Stat) -> Result<(), Kind> {
    let new = rustix::fs::fstat(file).map_err(Kind::io("look at a temporary file"))?;
    if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid) {
        let (uid, gid) = (Uid::from_raw(old.st_uid), Gid::from_raw(old.st_gid));
        rustix::fs::fchown(file, Some(uid), Some(gid)).map_err(Kind::io("keep its owner and group"))?;
    }
    let mode = Mode::from_raw_mode(old.st_mode & 0o777);
    rustix::fs::fchmod(file, mode).map_err(Kind::io("keep its mode"))
}

/// A temporary file, removed when dropped unless it became the file itself.
struct Temporary<'a> {
    place: &'a Place,
    name: OsString,
    is_there: bool,
}

impl Temporary<'_> {
    fn replace(mut self) -> Result<(), Kind> {
        let Place { folder, name } = self.place;
        rustix::fs::renameat(folder, &self.name, folder, name).map_err(Kind::io("replace it"))?;
        self.is_there = false;
        rustix::fs::fsync(folder).map_err(Kind::io("sync its folder, though it was replaced"))
    }

    /// Unlike rename(2), link(2) never replaces.
    fn link(self) -> Result<(), Kind> {
        let Place { folder, name } = self.place;
        match rustix::fs::linkat(folder, &self.name, folder, name, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(Kind::Exists),
            Err(errno) => return Err(Kind::io("create it")(errno)),
        }
        let folder = self.place;
        drop(self);
        rustix::fs::fsync(&folder.folder).map_err(Kind::io("sync its folder, though it was created"))
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if self.is_there {
            // If even this fails, the next writer removes it. There is nobody to tell but the error under way.
            rustix::fs::unlinkat(&self.place.folder, &self.name, AtFlags::empty()).ok();
        }
    }
}

/// Asks again and again rather than waiting in the kernel: a wait there has no limit without a signal.
fn wait_for_lock(folder: &OwnedFd) -> Result<(), Kind> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        match rustix::fs::flock(folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if start.elapsed() < LOCK_LIMIT => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(20));
            }
            Err(Errno::WOULDBLOCK) => return Err(Kind::Locked { holder: holder(folder) }),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Kind::io("lock its folder")(errno)),
        }
    }
}

/// Who holds the lock, from /proc/locks (proc(5)): `1: FLOCK ADVISORY WRITE 1234 08:01:5678 0 EOF`.
fn holder(folder: &OwnedFd) -> Option<String> {
    let stat = rustix::fs::fstat(folder).ok()?;
    let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    let wanted = format!("{major:02x}:{minor:02x}:{}", stat.st_ino);
    let locks = BufReader::new(File::open("/proc/locks").ok()?.take(1 << 20));
    let pid = locks.lines().map_while(Result::ok).find_map(|line| {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        match words.as_slice() {
            [_, "FLOCK", _, _, pid, place, ..] if *place == wanted => pid.parse::<u32>().ok().filter(|pid| *pid > 0),
            _ => None,
        }
    })?;
    let mut name = String::new();
    let comm = File::open(format!("/proc/{pid}/comm")).ok().map(|file| file.take(64).read_to_string(&mut name));
    Some(match comm {
        Some(Ok(_)) => format!("process {pid} (`{}`)", crate::name::escape(name.trim_end())),
        _ => format!("process {pid}"),
    })
}

fn file_error(path: &Path, error: std::io::Error) -> checked_file::FileError {
    checked_file::FileError { path: PathBuf::from(path), kind: checked_file::FileErrorKind::Io(error) }
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
