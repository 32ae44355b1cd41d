//! Finding the command, before anything is fetched: a typo costs no API call and leaves no access in the log.
//!
//! The look-up is that of `execvp` (exec(3)) with the caller's `PATH`, with one difference: a file that is neither ELF nor
//! starts with `#!` is refused, where `execvp` would hand it to `/bin/sh` behind the back of a policy that names commands.
//!
//! If a grant depends on the command, the file and all folders above it must be safe from others, and what is executed is
//! what was looked at: the same inode, or, pinned by digest, the very descriptor.

use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use crate::checked_file::{self, FileError, plain_io};
use crate::error::{Cause, Class};
use crate::name::{escape, show};
use crate::policy::eval::{CommandFacts, Pin};

/// What execvp searches where `PATH` is not set (confstr(3), `_CS_PATH` of glibc).
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// A command that was found and looks executable.
#[derive(Debug)]
pub struct Command {
    argv: Vec<OsString>,
    /// What `execvp` would execute: as typed, or a folder of `PATH` joined with what was typed.
    path: PathBuf,
    found: PathBuf,
    canonical: PathBuf,
    inode: (u64, u64),
    /// Opened, if it is to be executed by descriptor.
    opened: Option<OwnedFd>,
    sha256: Option<String>,
}

/// Why there is no command to run.
#[derive(Debug)]
pub enum CommandError {
    /// The file changed between the look-up and the exec.
    Changed(PathBuf),
    /// Not in any folder of `PATH`, or no such file.
    NotFound(OsString),
    /// Found, but not executable, and why.
    NotExecutable {
        /// What was found.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Pinned by a grant, but others could swap it.
    Unsafe(FileError),
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed(path) => write!(f, "the command `{}` was replaced while secrets were fetched", show(path)),
            Self::NotFound(typed) if typed.is_empty() => write!(f, "the command is an empty word"),
            Self::NotFound(typed) => write!(f, "the command `{}` was not found", escape(&typed.to_string_lossy())),
            Self::NotExecutable { path, why } => write!(f, "the command `{}` cannot be executed: {why}", show(path)),
            Self::Unsafe(error) => write!(f, "the grant names the command, but {error}"),
        }
    }
}

impl Cause for CommandError {
    fn class(&self) -> Class {
        match self {
            Self::Changed(_) | Self::Unsafe(_) => Class::Denied,
            Self::NotFound(_) => Class::NotFound,
            Self::NotExecutable { .. } => Class::NotExecutable,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound(typed) if typed.as_bytes().contains(&b' ') => {
                Some("a command and its arguments are separate words; for a shell line write: -- sh -c '...'".into())
            }
            Self::NotFound(typed) if typed.is_empty() => Some("is a variable of the calling script not set?".into()),
            Self::NotFound(typed) if !typed.as_bytes().contains(&b'/') => {
                Some("it is looked up in PATH; a path needs a `/`".into())
            }
            Self::Unsafe(error) => error.hint(),
            Self::Changed(_) | Self::NotFound(_) | Self::NotExecutable { .. } => None,
        }
    }
}

impl Command {
    /// Looks `argv[0]` up in `search_path` (the caller's `PATH`).
    ///
    /// # Errors
    /// Not found, or found and not executable.
    pub fn look_up(argv: Vec<OsString>, search_path: Option<&OsStr>) -> Result<Self, CommandError> {
        let typed = argv.first().cloned().unwrap_or_default();
        let path = search(&typed, search_path)?;
        let not_executable = |why: &str| CommandError::NotExecutable { path: path.clone(), why: why.to_owned() };
        let metadata = std::fs::metadata(&path).map_err(|error| not_executable(&plain_io(&error)))?;
        refuse_unknown_format(&path)?;
        let io = |error: io::Error| not_executable(&plain_io(&error));
        let found = std::path::absolute(&path).map_err(io)?;
        let canonical = std::fs::canonicalize(&path).map_err(io)?;
        Ok(Self { argv, found, canonical, inode: (metadata.dev(), metadata.ino()), opened: None, sha256: None, path })
    }

    /// Opens the file and takes its digest, for a policy that pins one. Only ELF files have one: of a script, the
    /// interpreter is what runs.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn take_digest(&mut self) -> Result<(), CommandError> {
        let io = |error: io::Error| CommandError::NotExecutable { path: self.path.clone(), why: plain_io(&error) };
        let mut file = File::open(&self.path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if (metadata.dev(), metadata.ino()) != self.inode {
            return Err(CommandError::Changed(self.found.clone()));
        }
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        let mut chunk = vec![0; 128 * 1024];
        let mut first = true;
        loop {
            let count = file.read(&mut chunk).map_err(io)?;
            let Some(read) = chunk.get(..count).filter(|read| !read.is_empty()) else { break };
            if first && !read.starts_with(b"\x7fELF") {
                return Ok(());
            }
            first = false;
            digest.update(read);
        }
        let hex = digest.finish().as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a String does not fail.
            write!(hex, "{byte:02x}").unwrap_or_default();
            hex
        });
        self.sha256 = Some(hex);
        self.opened = Some(file.into());
        Ok(())
    }

    /// What evaluation may know of it.
    #[must_use]
    pub fn facts(&self) -> CommandFacts {
        CommandFacts { found: self.found.clone(), canonical: self.canonical.clone(), sha256: self.sha256.clone() }
    }

    /// Checks that nobody else could put another program where a grant names this one.
    ///
    /// # Errors
    /// The file or a folder above it can be written by others.
    pub fn check_pin(&self, pin: Pin) -> Result<(), CommandError> {
        match pin {
            Pin::None => Ok(()),
            Pin::Found | Pin::Canonical | Pin::Digest => {
                checked_file::check_program(&self.found).map_err(CommandError::Unsafe)
            }
        }
    }

    /// The arguments, the command's own name first, as typed.
    #[must_use]
    pub fn argv(&self) -> &[OsString] {
        &self.argv
    }

    /// The absolute path that the look-up found.
    #[must_use]
    pub fn found(&self) -> &Path {
        &self.found
    }

    /// What the kernel is to execute.
    pub(super) fn target(&self, pin: Pin) -> Result<Target<'_>, CommandError> {
        let path = match pin {
            Pin::Digest => {
                let opened = self.opened.as_ref().ok_or_else(|| CommandError::Changed(self.found.clone()))?;
                return Ok(Target::Descriptor(opened));
            }
            Pin::Canonical => &self.canonical,
            Pin::None | Pin::Found => &self.path,
        };
        if pin != Pin::None {
            let now = std::fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
            if now != Some(self.inode) {
                return Err(CommandError::Changed(self.found.clone()));
            }
        }
        let path = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| CommandError::NotFound(path.as_os_str().to_owned()))?;
        Ok(Target::Path(path))
    }
}

/// What the kernel is to execute.
pub(super) enum Target<'c> {
    Descriptor(&'c OwnedFd),
    Path(CString),
}

/// exec(3): a name with a slash is a path; any other is looked for in each folder of `PATH`, an empty one meaning the
/// working folder. A file without the right to execute it does not end the search, but is what the error is about.
fn search(typed: &OsStr, search_path: Option<&OsStr>) -> Result<PathBuf, CommandError> {
    if typed.is_empty() {
        return Err(CommandError::NotFound(typed.to_owned()));
    }
    if typed.as_bytes().contains(&b'/') {
        let path = PathBuf::from(typed);
        return match rejection(&path) {
            None => Ok(path),
            Some(Rejection::Absent) => Err(CommandError::NotFound(typed.to_owned())),
            Some(Rejection::Because(why)) => Err(CommandError::NotExecutable { path, why }),
        };
    }
    let mut rejected = None;
    for folder in search_path.unwrap_or_else(|| OsStr::new(DEFAULT_PATH)).as_bytes().split(|byte| *byte == b':') {
        let folder = if folder.is_empty() { OsStr::new(".") } else { OsStr::from_bytes(folder) };
        let path = Path::new(folder).join(typed);
        match rejection(&path) {
            None => return Ok(path),
            Some(Rejection::Absent) => {}
            Some(Rejection::Because(why)) => rejected = rejected.or(Some(CommandError::NotExecutable { path, why })),
        }
    }
    Err(rejected.unwrap_or_else(|| CommandError::NotFound(typed.to_owned())))
}

enum Rejection {
    Absent,
    Because(String),
}

fn rejection(path: &Path) -> Option<Rejection> {
    match std::fs::metadata(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Some(Rejection::Absent)
        }
        Err(error) => Some(Rejection::Because(plain_io(&error))),
        Ok(metadata) if metadata.is_dir() => Some(Rejection::Because("it is a folder".into())),
        Ok(metadata) if !metadata.is_file() => Some(Rejection::Because("it is not a regular file".into())),
        // The effective ids decide at exec; they equal the real ones, since a set-uid start was refused.
        Ok(_) => match rustix::fs::access(path, Access::EXEC_OK) {
            Ok(()) => None,
            Err(errno) => Some(Rejection::Because(plain_io(&errno.into()))),
        },
    }
}

/// A file that may be executed but not read (mode 0711) is left to the kernel to judge.
fn refuse_unknown_format(path: &Path) -> Result<(), CommandError> {
    let Ok(file) = File::open(path) else { return Ok(()) };
    let mut start = Vec::with_capacity(4);
    if file.take(4).read_to_end(&mut start).is_err() || start.starts_with(b"#!") || start.starts_with(b"\x7fELF") {
        return Ok(());
    }
    if is_registered_format() {
        return Ok(());
    }
    let why = "it is neither an ELF program nor a script with a `#!` line".to_owned();
    Err(CommandError::NotExecutable { path: path.to_owned(), why })
}

/// binfmt_misc can make anything executable (Java archives, foreign ELF, Wine); then only the kernel can tell.
fn is_registered_format() -> bool {
    Path::new("/proc/sys/fs/binfmt_misc/register").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look_up(typed: &str, path: &str) -> Result<Command, CommandError> {
        Command::look_up(vec![typed.into(), "arg".into()], Some(OsStr::new(path)))
    }

    #[test]
    fn the_search_is_that_of_execvp() {
        let found = look_up("sh", "/nowhere:/bin").unwrap();
        assert_eq!(found.found(), Path::new("/bin/sh"));
        assert!(matches!(look_up("sh", "/nowhere"), Err(CommandError::NotFound(_))));
        assert!(matches!(look_up("", "/bin"), Err(CommandError::NotFound(_))));
        assert!(matches!(look_up("/bin/no-such-program", "/bin"), Err(CommandError::NotFound(_))));
        assert!(matches!(look_up("/bin", "/bin"), Err(CommandError::NotExecutable { .. })));
        assert!(matches!(look_up("/etc/passwd", "/bin"), Err(CommandError::NotExecutable { .. })));
        assert!(matches!(look_up("passwd", "/etc"), Err(CommandError::NotExecutable { .. })));
        assert!(matches!(look_up("null", "/dev"), Err(CommandError::NotExecutable { .. })));
        assert!(Command::look_up(vec!["sh".into()], None).is_ok());
    }

    #[test]
    fn only_elf_has_a_digest() {
        let mut elf = look_up("sh", "/bin").unwrap();
        elf.take_digest().unwrap();
        assert_eq!(elf.facts().sha256.unwrap().len(), 64);
    }
}
