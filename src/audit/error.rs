//! Why a record could not be written, so that there was no access.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::checked_file::{FileError, plain_io};
use crate::error::{Cause, Class};
use crate::name::show;

/// Why a record could not be written. Holds paths and numbers, never what the record says.
#[derive(Debug)]
pub enum AuditError {
    /// No sink is configured.
    NoSink,
    /// The sinks are mirrors, none of which counts.
    OnlyMirrors,
    /// The recipient to whom seeds of sealing go is none. Says why, never what it is.
    Auditor(&'static str),
    /// A file that is to hold the key of checkpoints holds none.
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The log has to be sealed, and sealing was never begun.
    NotSealed {
        /// The log.
        path: PathBuf,
    },
    /// The log is sealed already.
    Sealed {
        /// The log.
        path: PathBuf,
    },
    /// The log is sealed, and with what is not there any more.
    SealLost {
        /// The log.
        path: PathBuf,
    },
    /// The random generator of the system failed.
    Random,
    /// The folder of the log does not exist.
    MissingFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder of the log is not safe, or cannot be looked at.
    Folder(FileError),
    /// The log or its head file is not what it has to be.
    Unsafe {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: Problem,
    },
    /// A system call on the log or its head file failed.
    File {
        /// The file.
        path: PathBuf,
        /// What was tried, as in "cannot ...".
        doing: &'static str,
        /// Why not.
        error: io::Error,
    },
    /// Someone holds the lock of the log. Nobody can say who: `flock` does not tell.
    Locked {
        /// The head file, which is what is locked.
        path: PathBuf,
        /// How long it was waited for.
        waited_ms: u128,
    },
    /// The end of the log holds no record as far as it was looked at.
    NoRecord {
        /// The log.
        path: PathBuf,
        /// How far.
        bytes: u64,
    },
    /// A write or sync of this sink failed before; what then reached it is not known.
    Broken {
        /// The sink.
        sink: String,
    },
    /// A record is longer than a line may be.
    TooLong {
        /// The sink.
        sink: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// A descriptor cannot be written to.
    Descriptor {
        /// The sink.
        sink: String,
        /// Why not.
        problem: &'static str,
    },
    /// A write to a descriptor failed.
    Stream {
        /// The sink.
        sink: String,
        /// Why.
        error: io::Error,
    },
    /// The one that writes the records of this process has ended.
    Ended,
    /// Records that were to be written together, none of which counts.
    Together(std::sync::Arc<Self>),
    /// Nobody reads the other end of a descriptor.
    Full {
        /// The sink.
        sink: String,
        /// How long it was waited for.
        waited_ms: u128,
    },
}

/// What is wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// A symbolic link.
    Link,
    /// Not a regular file.
    NotRegular,
    /// Owned by someone else.
    Owner(u32),
    /// Others could write it, read it, or execute it.
    Mode(u32),
}

impl fmt::Display for AuditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSink => write!(f, "no audit sink is configured, so nothing would be written down"),
            Self::OnlyMirrors => {
                write!(f, "the audit sinks are mirrors only, which can drop records, so nothing would be written down")
            }
            Self::Random => write!(f, "the system's random generator failed, so no audit stream can be named"),
            Self::Auditor(why) => write!(f, "the auditor's recipient is {why}"),
            Self::NoKey { path } => write!(f, "`{}` holds no key that signs checkpoints", show(path)),
            Self::NotSealed { path } => {
                write!(f, "the audit log `{}` has to be sealed, and sealing was never begun", show(path))
            }
            Self::Sealed { path } => write!(f, "the audit log `{}` is sealed already", show(path)),
            Self::SealLost { path } => {
                write!(f, "the state of the seals of the audit log `{}` is gone or damaged", show(path))
            }
            Self::MissingFolder { folder } => {
                write!(f, "the folder of the audit log, `{}`, does not exist", show(folder))
            }
            Self::Folder(error) => write!(f, "the folder of the audit log: {error}"),
            Self::Unsafe { path, problem } => {
                let path = show(path);
                match problem {
                    Problem::Link => write!(f, "the audit file `{path}` is a symbolic link"),
                    Problem::NotRegular => write!(f, "the audit file `{path}` is not a regular file"),
                    Problem::Owner(uid) => write!(f, "the audit file `{path}` belongs to uid {uid}, not to you"),
                    Problem::Mode(mode) => {
                        write!(f, "the audit file `{path}` gives rights to others (mode {mode:04o})")
                    }
                }
            }
            Self::File { path, doing, error } => {
                write!(f, "cannot {doing} the audit file `{}`: {}", show(path), plain_io(error))
            }
            Self::Locked { path, waited_ms } => {
                write!(f, "the audit lock `{}` is held by another process; waited {waited_ms} ms", show(path))
            }
            Self::NoRecord { path, bytes } => {
                write!(f, "the last {bytes} bytes of the audit log `{}` hold no record", show(path))
            }
            Self::Broken { sink } => write!(f, "the audit sink {sink} failed before, so what it holds is not known"),
            Self::TooLong { sink, limit } => {
                write!(f, "the record is longer than the {limit} bytes that the audit sink {sink} takes")
            }
            Self::Descriptor { sink, problem } => write!(f, "the audit sink {sink} {problem}"),
            Self::Stream { sink, error } => write!(f, "cannot write to the audit sink {sink}: {}", plain_io(error)),
            Self::Ended => write!(f, "the writer of the audit has ended"),
            Self::Together(error) => error.fmt(f),
            Self::Full { sink, waited_ms } => {
                write!(f, "the audit sink {sink} is full and nobody reads it; waited {waited_ms} ms")
            }
        }
    }
}

impl Cause for AuditError {
    fn class(&self) -> Class {
        Class::Audit
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoSink | Self::OnlyMirrors => {
                Some("add to the policy: [[audit.sinks]] with type = \"file\" and path = \"...\"".into())
            }
            Self::Auditor(_) => Some("the public key of the auditor, as `age-keygen` prints it: age1...".into()),
            Self::NoKey { path } => {
                let path = show(path);
                Some(format!("mv {path} {path}.aside   # then a new one is made; tell the auditor"))
            }
            Self::NotSealed { path } => Some(format!("vouchsafe audit init --auditor RECIPIENT {}", show(path))),
            Self::Sealed { path } => {
                let path = show(path);
                Some(format!("mv {path}.seal {path}.seal.aside   # then `audit init` begins another epoch"))
            }
            Self::SealLost { path } => Some(format!(
                "vouchsafe audit init --auditor RECIPIENT {}   # another epoch, of which `audit verify` tells",
                show(path)
            )),
            Self::MissingFolder { folder } => Some(format!("install -d -m 0700 {}", show(folder))),
            Self::Folder(error) => error.hint(),
            Self::Unsafe { path, problem: Problem::Mode(_) } => Some(format!("chmod 0600 {}", show(path))),
            Self::Unsafe { path, problem: Problem::Owner(_) } => Some(format!(
                "chown $(id -u) {}   # or `{{uid}}` in the path of the sink: one file for each user",
                show(path)
            )),
            Self::Unsafe { path, .. } | Self::NoRecord { path, .. } => {
                let path = show(path);
                Some(format!("mv {path} {path}.aside   # the chain goes on in a new file"))
            }
            Self::Locked { path, .. } => Some(format!("fuser -v {}   # says who", show(path))),
            Self::File { path, error, .. } => match error.kind() {
                io::ErrorKind::StorageFull => Some(format!("df -h {}", show(path))),
                io::ErrorKind::PermissionDenied => {
                    Some(format!("ls -ld {} {}", show(path.parent().unwrap_or_else(|| Path::new("/"))), show(path)))
                }
                _ => None,
            },
            Self::Together(error) => error.hint(),
            Self::Ended
            | Self::Random
            | Self::Broken { .. }
            | Self::TooLong { .. }
            | Self::Descriptor { .. }
            | Self::Stream { .. }
            | Self::Full { .. } => None,
        }
    }
}
