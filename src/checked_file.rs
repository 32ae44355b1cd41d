//! Files that are trusted only if nobody else could have written them.
//!
//! The rules are those of `OpenSSH`'s `safe_path` with the cases of containers added: the file is regular, owned by root or
//! by us, and not writable by others, and so is every folder above it, as the path was written and as each link on it leads.
//! Ownership is read from the opened descriptor, never from the name; with every folder above safe, no one else can have
//! swapped the file between the two looks.
//!
//! - Group-writable is refused where we run as root or as the agent, unless the group is 0 and no ACL names others.
//! - On a read-only mount nothing counts as writable (Kubernetes mounts `ConfigMaps` as 0777 folders, read-only).
//! - A sticky folder owned by root, such as `/tmp`, is safe as a parent of a safe folder, not of the file itself.
//! - An identity gives no rights to others; group-read is accepted where root owns it. A `credential:` file is checked for
//!   others only, since systemd grants access to it by ACL, which shows in the group bits.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::name::show;

/// Set once, by a process that holds the means of others: the agent.
static GROUPS_ARE_DISTRUSTED: AtomicBool = AtomicBool::new(false);

/// From now on a file that a group could write is unsafe for this process whoever it runs as, as it is for root.
pub fn distrust_groups() {
    GROUPS_ARE_DISTRUSTED.store(true, Ordering::Relaxed);
}

/// What the file is for, which decides how strict the check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// A private key in `$CREDENTIALS_DIRECTORY`.
    Credential,
    /// A private key.
    Identity,
    /// Policy, host file, recipients: public, but they decide.
    Public,
}

/// Why a file was not used. Holds no content.
#[derive(Debug)]
pub struct FileError {
    /// The file as it was asked for.
    pub path: PathBuf,
    /// Why.
    pub kind: FileErrorKind,
}

/// Why a file was not used.
#[derive(Debug)]
pub enum FileErrorKind {
    /// The system call failed.
    Io(io::Error),
    /// Not a regular file: a folder, a FIFO, a device.
    NotRegular,
    /// Owned by neither root nor us.
    Owner {
        /// The file, or the folder above it, that is.
        at: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Others could write it.
    Writable {
        /// The file, or the folder above it, that is.
        at: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Others could read it.
    Readable {
        /// Its mode.
        mode: u32,
    },
    /// Over its limit.
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// Not UTF-8.
    NotText,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = show(&self.path);
        match &self.kind {
            FileErrorKind::Io(error) => write!(f, "`{path}`: {}", plain_io(error)),
            FileErrorKind::NotRegular => write!(f, "`{path}` is not a regular file"),
            FileErrorKind::Owner { at, uid } => {
                write!(f, "`{path}` is unsafe: `{}` belongs to uid {uid}, neither root nor you", show(at))
            }
            FileErrorKind::Writable { at, mode } => {
                write!(f, "`{path}` is unsafe: `{}` can be written by others (mode {mode:04o})", show(at))
            }
            FileErrorKind::Readable { mode } => {
                write!(f, "`{path}` is unsafe: others have rights to it (mode {mode:04o})")
            }
            FileErrorKind::TooLarge { limit } => write!(f, "`{path}` is larger than {limit} bytes"),
            FileErrorKind::NotText => write!(f, "`{path}` is not UTF-8 text"),
        }
    }
}

impl FileError {
    /// A command that mends it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match &self.kind {
            FileErrorKind::Owner { at, .. } => {
                Some(format!("chown 0 {}   # or the user that runs vouchsafe", show(at)))
            }
            FileErrorKind::Writable { at, .. } => Some(format!("chmod go-w {}", show(at))),
            FileErrorKind::Readable { .. } => Some(format!("chmod 0600 {}", show(&self.path))),
            FileErrorKind::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Some(format!("namei -l {}   # shows which file or folder above it keeps you out", show(&self.path)))
            }
            FileErrorKind::Io(_)
            | FileErrorKind::NotRegular
            | FileErrorKind::TooLarge { .. }
            | FileErrorKind::NotText => None,
        }
    }

    /// Whether the file simply is not there.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(&self.kind, FileErrorKind::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// An I/O error as a sentence, without Rust's ` (os error 2)`.
#[must_use]
pub fn plain_io(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// Opens `path` for reading and checks what was opened.
///
/// # Errors
/// The file cannot be opened, or someone else could have written it, or (for an identity) read it.
pub fn open(path: &Path, purpose: Use) -> Result<File, FileError> {
    let fail = |kind| FileError { path: path.to_owned(), kind };
    // NONBLOCK: opening a FIFO must not wait for a writer. A regular file does not care.
    let fd =
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty())
            .map_err(|errno| fail(FileErrorKind::Io(errno.into())))?;
    let stat = rustix::fs::fstat(&fd).map_err(|errno| fail(FileErrorKind::Io(errno.into())))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(fail(FileErrorKind::NotRegular));
    }
    let us = rustix::process::geteuid().as_raw();
    check_owner(&stat, us, path).map_err(fail)?;
    if writable(&stat, us, purpose, || has_acl(&fd)) && !read_only(&fd) {
        return Err(fail(FileErrorKind::Writable { at: path.to_owned(), mode: stat.st_mode & 0o7777 }));
    }
    if gives_away(&stat, purpose) {
        return Err(fail(FileErrorKind::Readable { mode: stat.st_mode & 0o7777 }));
    }
    check_folders_above(path)?;
    Ok(File::from(fd))
}

/// [`open`], then reads at most `limit` bytes into a buffer that does not grow (a growing one leaves copies behind).
///
/// # Errors
/// Those of [`open`]; reading fails; the file is over `limit`.
pub fn read(path: &Path, purpose: Use, limit: u64) -> Result<Vec<u8>, FileError> {
    read_opened(&open(path, purpose)?, path, limit)
}

/// Reads at most `limit` bytes of an opened file.
///
/// # Errors
/// Reading fails; the file is over `limit`.
pub fn read_opened(file: &File, path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let fail = |kind| FileError { path: path.to_owned(), kind };
    let size = file.metadata().map_err(|error| fail(FileErrorKind::Io(error)))?.len();
    if size > limit {
        return Err(fail(FileErrorKind::TooLarge { limit }));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default() + 1);
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|error| fail(FileErrorKind::Io(error)))?;
    if bytes.len() as u64 > limit {
        return Err(fail(FileErrorKind::TooLarge { limit }));
    }
    Ok(bytes)
}

/// [`read`] as UTF-8 text.
///
/// # Errors
/// Those of [`read`]; the text is not UTF-8.
pub fn read_text(path: &Path, purpose: Use, limit: u64) -> Result<String, FileError> {
    let bytes = read(path, purpose, limit)?;
    String::from_utf8(bytes).map_err(|_| FileError { path: path.to_owned(), kind: FileErrorKind::NotText })
}

/// Checks every folder that the way to `path` leads through: as it was written, and where each link on it leads.
///
/// # Errors
/// A folder that someone else could write, or that cannot be looked at.
pub fn check_folders_above(path: &Path) -> Result<(), FileError> {
    let fail = |kind| FileError { path: path.to_owned(), kind };
    let written = std::path::absolute(path).map_err(|error| fail(FileErrorKind::Io(error)))?;
    check_way(&written, false).map(drop).map_err(fail)
}

/// Checks `folder` and everything that the way to it leads through, for a file that is going to be made in it. A sticky
/// folder of root's is accepted as it is: what lies there is checked by its owner, and only its owner can move it.
///
/// # Errors
/// A folder that someone else could write, or that cannot be looked at.
pub fn check_folder(folder: &Path) -> Result<(), FileError> {
    let fail = |kind| FileError { path: folder.to_owned(), kind };
    let written = std::path::absolute(folder).map_err(|error| fail(FileErrorKind::Io(error)))?;
    let resolved = check_way(&written, true).map_err(fail)?;
    check_one_folder(&resolved, rustix::process::geteuid().as_raw(), true).map_err(fail)
}

/// Checks a program that a grant names: the file, which need not be readable, and every folder above it.
///
/// # Errors
/// Someone else could write it or put another file in its place.
pub fn check_program(path: &Path) -> Result<(), FileError> {
    let fail = |kind| FileError { path: path.to_owned(), kind };
    let stat = rustix::fs::stat(path).map_err(|errno| fail(FileErrorKind::Io(errno.into())))?;
    let us = rustix::process::geteuid().as_raw();
    check_owner(&stat, us, path).map_err(fail)?;
    if writable(&stat, us, Use::Public, || has_acl_at(path)) && !read_only_at(path) {
        return Err(fail(FileErrorKind::Writable { at: path.to_owned(), mode: stat.st_mode & 0o7777 }));
    }
    check_folders_above(path)
}

/// Links that one way may have, as the kernel counts (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// Walks to `path` as the kernel does, link by link, and checks every folder in which a name is looked up: whoever could
/// write one of them could lead the way elsewhere. Answers where the way ends. `sticky_is_safe`: also for the last name.
fn check_way(path: &Path, sticky_is_safe: bool) -> Result<PathBuf, FileErrorKind> {
    let io = |errno: Errno| FileErrorKind::Io(errno.into());
    let us = rustix::process::geteuid().as_raw();
    let mut at = PathBuf::from("/");
    let mut links = 0;
    // The names that are still to come, the last one first.
    let mut names = names_of(path);
    while let Some(name) = names.pop() {
        // No link is left in `at`, so that its parent by name is its parent.
        if name == ".." {
            at.pop();
            continue;
        }
        let is_last = names.is_empty();
        check_one_folder(&at, us, !is_last || sticky_is_safe)?;
        let next = at.join(&name);
        let stat = rustix::fs::lstat(&next).map_err(io)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            at = next;
            continue;
        }
        if !is_last || sticky_is_safe {
            // Whoever owns a link in a sticky folder can put another in its place.
            check_owner(&stat, us, &next)?;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(io(Errno::LOOP));
        }
        let target = std::fs::read_link(&next).map_err(FileErrorKind::Io)?;
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        names.extend(names_of(&target));
    }
    Ok(at)
}

fn names_of(path: &Path) -> Vec<OsString> {
    let is_name = |component: &Component<'_>| matches!(component, Component::Normal(_) | Component::ParentDir);
    path.components().rev().filter(is_name).map(|component| component.as_os_str().to_owned()).collect()
}

fn check_one_folder(at: &Path, us: u32, sticky_is_safe: bool) -> Result<(), FileErrorKind> {
    let stat = rustix::fs::lstat(at).map_err(|errno| FileErrorKind::Io(errno.into()))?;
    check_owner(&stat, us, at)?;
    let sticky = stat.st_mode & 0o1000 != 0 && stat.st_uid == 0;
    if writable(&stat, us, Use::Public, || has_acl_at(at)) && !(sticky && sticky_is_safe) && !read_only_at(at) {
        return Err(FileErrorKind::Writable { at: at.to_owned(), mode: stat.st_mode & 0o7777 });
    }
    Ok(())
}

fn check_owner(stat: &Stat, us: u32, at: &Path) -> Result<(), FileErrorKind> {
    if stat.st_uid == 0 || stat.st_uid == us {
        Ok(())
    } else {
        Err(FileErrorKind::Owner { at: at.to_owned(), uid: stat.st_uid })
    }
}

fn writable(stat: &Stat, us: u32, purpose: Use, has_acl: impl FnOnce() -> bool) -> bool {
    let by_others = stat.st_mode & 0o002 != 0;
    let is_strict = us == 0 || GROUPS_ARE_DISTRUSTED.load(Ordering::Relaxed);
    let group_counts = stat.st_mode & 0o020 != 0 && is_strict && purpose != Use::Credential;
    by_others || (group_counts && (stat.st_gid != 0 || has_acl()))
}

/// With an ACL the group's bits are its mask (acl(5)): the right to write may be anyone's, whatever the group is.
fn has_acl(fd: impl AsFd) -> bool {
    is_there(rustix::fs::fgetxattr(fd, ACL, &mut [0_u8; 64]))
}

fn has_acl_at(path: &Path) -> bool {
    is_there(rustix::fs::getxattr(path, ACL, &mut [0_u8; 64]))
}

/// An ACL that is longer than the buffer, or that we may not see, is one.
fn is_there(attribute: Result<usize, Errno>) -> bool {
    !matches!(attribute, Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS))
}

const ACL: &str = "system.posix_acl_access";

fn gives_away(stat: &Stat, purpose: Use) -> bool {
    match purpose {
        Use::Credential => stat.st_mode & 0o007 != 0,
        Use::Identity => stat.st_mode & 0o007 != 0 || (stat.st_mode & 0o070 != 0 && stat.st_uid != 0),
        Use::Public => false,
    }
}

fn read_only(fd: impl AsFd) -> bool {
    rustix::fs::fstatvfs(fd).is_ok_and(|vfs| vfs.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

fn read_only_at(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|vfs| vfs.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};

    use super::*;

    /// A folder of our own below the sticky folder for temporary files.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("checked-file-{}-{name}", std::process::id()));
            std::fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
            Self(path)
        }

        fn file(&self, name: &str, mode: u32) -> PathBuf {
            let path = self.0.join(name);
            std::fs::write(&path, "content").unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            path
        }

        fn mode(&self, mode: u32) {
            std::fs::set_permissions(&self.0, PermissionsExt::from_mode(mode)).unwrap();
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn modes_decide_by_use() {
        let folder = Folder::new("modes");
        for (mode, public, identity, credential) in [
            (0o600, true, true, true),
            (0o644, true, false, false),
            (0o640, true, rustix::process::geteuid().is_root(), true),
            (0o666, false, false, false),
            (0o602, false, false, false),
            (0o604, true, false, false),
            (0o601, true, false, false),
        ] {
            let path = folder.file("file", mode);
            for (purpose, accepted) in [(Use::Public, public), (Use::Identity, identity), (Use::Credential, credential)]
            {
                let opened = open(&path, purpose);
                assert_eq!(opened.is_ok(), accepted, "{mode:o} {purpose:?}: {:?}", opened.err());
            }
        }
    }

    #[test]
    fn a_folder_that_others_can_write_spoils_what_is_in_it() {
        let folder = Folder::new("folders");
        let path = folder.file("file", 0o600);
        for (mode, accepted) in [(0o700, true), (0o755, true), (0o777, false), (0o1777, false), (0o703, false)] {
            folder.mode(mode);
            let opened = open(&path, Use::Public);
            assert_eq!(opened.is_ok(), accepted, "{mode:o}: {:?}", opened.err());
        }
        folder.mode(0o700);
        let direct = std::env::temp_dir().join(format!("checked-file-{}-direct", std::process::id()));
        std::fs::write(&direct, "content").unwrap();
        assert!(matches!(open(&direct, Use::Public).unwrap_err().kind, FileErrorKind::Writable { .. }));
        std::fs::remove_file(&direct).unwrap();
    }

    #[test]
    fn a_link_is_followed_and_both_ends_are_checked() {
        let (folder, open_folder) = (Folder::new("link"), Folder::new("open"));
        open_folder.mode(0o777);
        let outside = open_folder.file("file", 0o644);
        symlink(&outside, folder.0.join("to-outside")).unwrap();
        assert!(open(&folder.0.join("to-outside"), Use::Public).is_err());
        let inside = folder.file("file", 0o644);
        symlink(&inside, folder.0.join("to-inside")).unwrap();
        assert!(open(&folder.0.join("to-inside"), Use::Public).is_ok());
        // Two links: the ends are safe, and the folder between them is not.
        symlink(&inside, open_folder.0.join("hop")).unwrap();
        symlink(open_folder.0.join("hop"), folder.0.join("by-way-of")).unwrap();
        assert!(
            open(&folder.0.join("by-way-of"), Use::Public).is_err(),
            "a link on the way lies in a folder of others"
        );
        assert!(check_program(&folder.0.join("by-way-of")).is_err());
        symlink(&folder.0, open_folder.0.join("hop-to-folder")).unwrap();
        symlink(open_folder.0.join("hop-to-folder"), folder.0.join("folder-by-way-of")).unwrap();
        assert!(open(&folder.0.join("folder-by-way-of/file"), Use::Public).is_err());
        assert!(check_folder(&folder.0.join("folder-by-way-of")).is_err());
        assert!(check_folder(&folder.0).is_ok());
        let around = folder.0.join("..").join(folder.0.file_name().unwrap()).join("file");
        assert!(open(&around, Use::Public).is_ok(), "`..` is followed");
        symlink("self", folder.0.join("self")).unwrap();
        assert!(check_folders_above(&folder.0.join("self")).is_err(), "a circle ends");
        symlink(&folder.0, open_folder.0.join("to-folder")).unwrap();
        assert!(
            open(&open_folder.0.join("to-folder/file"), Use::Public).is_err(),
            "the link lies in a folder of others"
        );
    }

    #[test]
    fn what_is_no_regular_file_does_not_hang() {
        let folder = Folder::new("kinds");
        let fifo = folder.0.join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        for path in [fifo.as_path(), &folder.0, Path::new("/dev/null"), Path::new("/dev/zero")] {
            assert!(matches!(open(path, Use::Public).unwrap_err().kind, FileErrorKind::NotRegular), "{path:?}");
        }
        assert!(open(&folder.0.join("nothing"), Use::Public).unwrap_err().is_absent());
    }

    #[test]
    fn a_limit_is_a_limit() {
        let folder = Folder::new("limit");
        let path = folder.file("file", 0o600);
        assert_eq!(read(&path, Use::Public, 7).unwrap(), b"content");
        assert!(matches!(read(&path, Use::Public, 6).unwrap_err().kind, FileErrorKind::TooLarge { limit: 6 }));
    }
}
