//! The right to rotate the items of a sealed file: a lock file beside it, `.NAME.rotating`.
//!
//! The right is the lock (flock(2)), not the file: it ends with the process, so a file that a killed rotator left means
//! nothing and is taken over. What stands in the file is for the one who comes second. The write lock of the folder is
//! another one and held only for each write, so that `set` and readers go on during a rotation.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::sealed::SealedErrorKind as Kind;
use super::stages::Holder;
use super::write::open_folder_of;
use crate::checked_file::{FileError, FileErrorKind};

/// `.NAME` + this.
const SUFFIX: &str = ".rotating";
/// What is read of the file of another.
const NOTE_LIMIT: u64 = 4096;
/// How often the file may be taken away between opening and locking it.
const ATTEMPTS: usize = 16;

/// The right to rotate, until it is dropped.
#[derive(Debug)]
pub struct Hold {
    folder: OwnedFd,
    name: OsString,
    file: File,
}

/// Why there is no right to rotate.
#[derive(Debug)]
pub enum Refusal {
    /// Somebody else has it.
    Held(Holder),
    /// The lock file cannot be made, or others could have made it.
    File(Kind),
}

impl From<Kind> for Refusal {
    fn from(kind: Kind) -> Self {
        Self::File(kind)
    }
}

/// What stands in the file.
#[derive(Serialize, Deserialize)]
struct Note {
    owner: String,
    /// RFC 3339.
    since: String,
}

impl Hold {
    /// Takes the right to rotate the sealed file at `path`, at once or not at all.
    ///
    /// # Errors
    /// Somebody else has it, or the lock file cannot be had.
    pub fn take(path: &Path, holder: &Holder) -> Result<Self, Refusal> {
        // As for writing: where the path is a link, it is its target that is rotated.
        let target = std::fs::canonicalize(path).map_err(|error| {
            let error = FileError { path: path.to_owned(), kind: FileErrorKind::Io(error) };
            if error.is_absent() { Kind::NeverWritten } else { Kind::File(error) }
        })?;
        let (folder, own) = open_folder_of(&target)?;
        let mut name = OsString::from(".");
        name.push(&own);
        name.push(SUFFIX);
        let shown = target.with_file_name(&name);
        for _ in 0..ATTEMPTS {
            let file = open(&folder, &name, &shown)?;
            let stat = rustix::fs::fstat(&file).map_err(Kind::io("look at its rotation lock"))?;
            if !lock(&file)? {
                return Err(Refusal::Held(holder_in(file, &stat)));
            }
            // Whoever held it before may have removed it meanwhile; a lock on a file that nobody finds is none.
            match rustix::fs::statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(here) if (here.st_dev, here.st_ino) == (stat.st_dev, stat.st_ino) => {}
                Ok(_) | Err(Errno::NOENT) => continue,
                Err(errno) => return Err(Kind::io("look at its rotation lock")(errno).into()),
            }
            let hold = Self { folder, name, file };
            hold.say(holder).map_err(|error| Kind::Io { doing: "write its rotation lock", error })?;
            return Ok(hold);
        }
        Err(Kind::Io { doing: "lock it for rotation", error: Errno::BUSY.into() }.into())
    }

    fn say(&self, holder: &Holder) -> std::io::Result<()> {
        let since = humantime::format_rfc3339_seconds(holder.since).to_string();
        let note = serde_json::to_vec(&Note { owner: holder.owner.clone(), since })?;
        self.file.set_len(0)?;
        (&self.file).write_all(&note)
    }
}

/// Removed while it is still locked, so that nobody else's is. If that fails, the file means nothing and stays.
impl Drop for Hold {
    fn drop(&mut self) {
        rustix::fs::unlinkat(&self.folder, &self.name, AtFlags::empty()).ok();
    }
}

/// A regular file with one name, of root or ours, that nobody else can write: not one that somebody put there to be
/// overwritten.
fn open(folder: &OwnedFd, name: &OsString, shown: &Path) -> Result<File, Kind> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file =
        rustix::fs::openat(folder, name, flags, Mode::RUSR | Mode::WUSR).map_err(Kind::io("open its rotation lock"))?;
    let stat = rustix::fs::fstat(&file).map_err(Kind::io("look at its rotation lock"))?;
    let us = rustix::process::geteuid().as_raw();
    let kind = if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_nlink > 1 {
        FileErrorKind::NotRegular
    } else if stat.st_uid != 0 && stat.st_uid != us {
        FileErrorKind::Owner { at: shown.to_owned(), uid: stat.st_uid }
    } else if stat.st_mode & 0o022 != 0 {
        FileErrorKind::Writable { at: shown.to_owned(), mode: stat.st_mode & 0o7777 }
    } else {
        return Ok(File::from(file));
    };
    Err(Kind::File(FileError { path: PathBuf::from(shown), kind }))
}

fn lock(file: &File) -> Result<bool, Kind> {
    loop {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Kind::io("lock it for rotation")(errno)),
        }
    }
}

/// Who says that he holds it; the time of the file where he has not said it yet.
fn holder_in(mut file: File, stat: &Stat) -> Holder {
    let mut text = Vec::new();
    let read = file.rewind().and_then(|()| file.take(NOTE_LIMIT).read_to_end(&mut text));
    let note = read.ok().and_then(|_| serde_json::from_slice::<Note>(&text).ok());
    let said = note.and_then(|note| Some((note.owner, humantime::parse_rfc3339(&note.since).ok()?)));
    let (owner, since) = said.unwrap_or_else(|| {
        let seconds = u64::try_from(stat.st_mtime).unwrap_or_default();
        ("another process".into(), SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
    });
    Holder { owner, since }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::Duration;

    use super::*;
    use crate::store::scratch::{Scratch, read};

    fn holder(owner: &str) -> Holder {
        Holder { owner: owner.into(), since: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000) }
    }

    fn held(refusal: Refusal) -> Holder {
        match refusal {
            Refusal::Held(holder) => holder,
            Refusal::File(kind) => panic!("{kind:?}"),
        }
    }

    #[test]
    fn one_holds_and_the_other_hears_who() {
        let folder = Scratch::new();
        let store = folder.write("store.age", "x", 0o600);
        let lock = store.with_file_name(".store.age.rotating");
        let first = Hold::take(&store, &holder("ann@one")).unwrap();
        assert_eq!(std::fs::metadata(&lock).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(held(Hold::take(&store, &holder("bob@two")).unwrap_err()), holder("ann@one"));
        let link = store.with_file_name("link.age");
        symlink(&store, &link).unwrap();
        assert_eq!(held(Hold::take(&link, &holder("bob@two")).unwrap_err()), holder("ann@one"), "by a link too");
        // Before he has said who he is.
        first.file.set_len(0).unwrap();
        assert_eq!(held(Hold::take(&store, &holder("bob@two")).unwrap_err()).owner, "another process");
        drop(first);
        assert!(!lock.exists());
        drop(Hold::take(&store, &holder("bob@two")).unwrap());
    }

    #[test]
    fn what_a_killed_rotator_left_is_taken_over() {
        let folder = Scratch::new();
        let store = folder.write("store.age", "x", 0o600);
        let lock = folder.write(".store.age.rotating", "{\"owner\":\"a longer name than the next one\"", 0o600);
        let hold = Hold::take(&store, &holder("bob@two")).unwrap();
        let note: Note = serde_json::from_slice(&read(&lock)).unwrap();
        assert_eq!((note.owner.as_str(), note.since.as_str()), ("bob@two", "2023-11-14T22:13:20Z"));
        drop(hold);
    }

    #[test]
    fn a_lock_file_that_is_not_ours_alone_is_not_written() {
        let folder = Scratch::new();
        let store = folder.write("store.age", "x", 0o600);
        let lock = store.with_file_name(".store.age.rotating");
        let precious = folder.write("precious", "keep", 0o600);
        for put in ["link", "second name", "mode", "folder"] {
            match put {
                "link" => symlink(&precious, &lock).unwrap(),
                "second name" => std::fs::hard_link(&precious, &lock).unwrap(),
                "mode" => {
                    std::fs::write(&lock, "").unwrap();
                    std::fs::set_permissions(&lock, PermissionsExt::from_mode(0o666)).unwrap();
                }
                _ => std::fs::create_dir(&lock).unwrap(),
            }
            assert!(matches!(Hold::take(&store, &holder("x")), Err(Refusal::File(_))), "{put}");
            assert_eq!(read(&precious), b"keep");
            if put == "folder" { std::fs::remove_dir(&lock) } else { std::fs::remove_file(&lock) }.unwrap();
        }
        let absent = store.with_file_name("absent.age");
        assert!(matches!(Hold::take(&absent, &holder("x")), Err(Refusal::File(Kind::NeverWritten))));
    }
}
