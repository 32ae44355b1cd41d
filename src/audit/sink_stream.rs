//! The stream sink: standard error or a descriptor that the wrapper was started with, for whoever collects it.
//!
//! Lines are at most 4,096 bytes (`PIPE_BUF`), so that writers that share a pipe do not tear each other's; a longer record
//! comes in parts. A reader that does not read must not hang the wrapper, and the descriptor's flags must stay as they are,
//! since the child shares them: so each write says itself that it will not wait, and waiting is `poll` with a limit.

use std::fs::File;
use std::io::{IoSlice, Stderr, Stdin, Stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::{Errno, ReadWriteFlags};
use rustix::process::{PidfdFlags, PidfdGetfdFlags};

use super::chain::Chain;
use super::error::AuditError;
use super::event::Assurance;
use super::record::{Draft, number_part};
use super::sink_file::new_stream;

/// An opened stream sink.
pub(super) struct StreamSink {
    name: String,
    target: Target,
    kind: FileType,
    chain: Chain,
    broken: bool,
    /// What was written, for mirrors; `None` where there are none.
    pub(super) lines: Option<Vec<u8>>,
}

enum Target {
    Stdin(Stdin),
    Stdout(Stdout),
    Stderr(Stderr),
    Other(OwnedFd),
}

impl AsFd for Target {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Stdin(fd) => fd.as_fd(),
            Self::Stdout(fd) => fd.as_fd(),
            Self::Stderr(fd) => fd.as_fd(),
            Self::Other(fd) => fd.as_fd(),
        }
    }
}

impl StreamSink {
    /// Takes a descriptor by number and checks that it is open, can be written to, and leads somewhere.
    pub(super) fn open(number: i32) -> Result<Self, AuditError> {
        let name = if number == 2 { "`stderr`".to_owned() } else { format!("`fd:{number}`") };
        let refused = |problem| AuditError::Descriptor { sink: name.clone(), problem };
        let target = match number {
            0 => Target::Stdin(std::io::stdin()),
            1 => Target::Stdout(std::io::stdout()),
            2 => Target::Stderr(std::io::stderr()),
            // The number may meanwhile be that of a file of ours, another sink's even; nobody collects what goes there.
            _ if !crate::sys::is_inherited(number) => return Err(refused("is not open")),
            _ => Target::Other(inherited(number).map_err(|errno| match errno {
                Errno::BADF | Errno::NOENT => refused("is not open"),
                Errno::ACCESS => refused("cannot be written to"),
                errno => AuditError::Stream { sink: name.clone(), error: errno.into() },
            })?),
        };
        let flags = rustix::fs::fcntl_getfl(&target).map_err(|_| refused("is not open"))?;
        if flags.contains(OFlags::PATH) || flags & OFlags::ACCMODE == OFlags::RDONLY {
            return Err(refused("is not open for writing"));
        }
        let stat = rustix::fs::fstat(&target).map_err(|_| refused("is not open"))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        // Rust's start-up puts the null device in the place of a descriptor that was closed; and there nobody reads.
        if kind == FileType::CharacterDevice && stat.st_rdev == rustix::fs::makedev(1, 3) {
            return Err(refused("is closed or leads to the null device, where nothing is kept"));
        }
        let chain = Chain::begin(new_stream()?);
        Ok(Self { name, target, kind, chain, broken: false, lines: None })
    }

    /// Writes one record, in as many lines as it takes.
    pub(super) fn write(&mut self, draft: &Draft<'_>) -> Result<(), AuditError> {
        if self.broken {
            return Err(AuditError::Broken { sink: self.name.clone() });
        }
        let parts = draft
            .divide(Assurance::Stream, LINE_MAX)
            .ok_or_else(|| AuditError::TooLong { sink: self.name.clone(), limit: LINE_MAX })?;
        let (record, count) = (self.chain.seq.saturating_add(1), parts.len());
        let deadline = Instant::now() + PATIENCE;
        let mut line = Vec::with_capacity(LINE_MAX);
        for (index, entries) in parts.into_iter().enumerate() {
            line.clear();
            draft.part(Assurance::Stream, entries, index == 0, &mut line);
            if count > 1 {
                number_part(&mut line, record, index + 1, count);
            }
            let next = self.chain.seal(&mut line, 0);
            self.send(&line, deadline).inspect_err(|_| self.broken = true)?;
            self.chain = next;
            if let Some(lines) = &mut self.lines {
                lines.extend_from_slice(&line);
            }
        }
        Ok(())
    }

    /// Writes bytes that are no record, for a reader that is waited for as long as for one.
    pub(super) fn put(&self, bytes: &[u8]) -> Result<(), AuditError> {
        self.send(bytes, Instant::now() + PATIENCE)
    }

    fn send(&self, line: &[u8], deadline: Instant) -> Result<(), AuditError> {
        let mut rest = line;
        let mut refusals = 0;
        while !rest.is_empty() {
            match self.write_some(rest, deadline) {
                Ok(0) => return Err(self.failed(Errno::IO)),
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.wait(deadline)?;
                    // Ready and yet not for this line: the room is less than the line.
                    refusals += 1;
                    if refusals > 1 {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
                Err(errno) => return Err(self.failed(errno)),
            }
        }
        Ok(())
    }

    /// One write that does not wait. Where the kernel cannot promise that (pipes before Linux 6.4, terminals), `poll` is
    /// asked first; another writer of the same pipe could then still take the room in between.
    fn write_some(&self, bytes: &[u8], deadline: Instant) -> Result<usize, Errno> {
        if matches!(self.kind, FileType::Fifo | FileType::Socket) {
            match rustix::io::pwritev2(&self.target, &[IoSlice::new(bytes)], u64::MAX, ReadWriteFlags::NOWAIT) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::PERM) => {}
                result => return result,
            }
        }
        if self.kind != FileType::RegularFile && !self.ready(deadline)? {
            return Err(Errno::AGAIN);
        }
        rustix::io::write(&self.target, bytes)
    }

    fn wait(&self, deadline: Instant) -> Result<(), AuditError> {
        loop {
            match self.ready(deadline) {
                Ok(_) if Instant::now() >= deadline => {
                    return Err(AuditError::Full { sink: self.name.clone(), waited_ms: PATIENCE.as_millis() });
                }
                Ok(true) => return Ok(()),
                Ok(false) | Err(Errno::INTR) => {}
                Err(errno) => return Err(self.failed(errno)),
            }
        }
    }

    /// Whether something can be written, or a write would say why not, before the deadline.
    fn ready(&self, deadline: Instant) -> Result<bool, Errno> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut fds = [PollFd::new(&self.target, PollFlags::OUT)];
        poll(&mut fds, Some(&timeout)).map(|ready| ready > 0)
    }

    fn failed(&self, errno: Errno) -> AuditError {
        AuditError::Stream { sink: self.name.clone(), error: errno.into() }
    }

    /// As messages call it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// How long a reader is waited for, for one record.
const PATIENCE: Duration = Duration::from_secs(2);

/// A line with its newline: what POSIX lets a pipe take in one piece.
const LINE_MAX: usize = 4096;

/// A duplicate of one of our own descriptors, known by its number only. The kernel hands one out by number
/// (`pidfd_getfd`); where a container's system call filter forbids that, `/proc` opens a pipe or file anew.
fn inherited(number: i32) -> Result<OwnedFd, Errno> {
    let us = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty());
    match us.and_then(|us| rustix::process::pidfd_getfd(us, number, PidfdGetfdFlags::empty())) {
        Err(Errno::PERM | Errno::NOSYS) => reopened(number),
        result => result,
    }
}

fn reopened(number: i32) -> Result<OwnedFd, Errno> {
    // Opening the reading end of a pipe for writing would succeed, so what the descriptor was opened for is looked up.
    let mut text = String::new();
    let mut info = File::open(format!("/proc/self/fdinfo/{number}")).map_err(|_| Errno::BADF)?;
    std::io::Read::read_to_string(&mut info, &mut text).map_err(|_| Errno::IO)?;
    let flags = text.lines().find_map(|line| u32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
    if flags.is_none_or(|flags| flags & OFlags::ACCMODE.bits() == 0) {
        return Err(Errno::ACCESS);
    }
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    rustix::fs::open(format!("/proc/self/fd/{number}"), flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn where_no_descriptor_is_handed_out_by_number_proc_does() {
        let (reader, writer) = std::io::pipe().unwrap();
        rustix::io::write(reopened(writer.as_raw_fd()).unwrap(), b"x").unwrap();
        let mut byte = [0];
        assert_eq!(rustix::io::read(&reader, &mut byte), Ok(1));
        assert_eq!(reopened(reader.as_raw_fd()).unwrap_err(), Errno::ACCESS);
        assert_eq!(reopened(1 << 20).unwrap_err(), Errno::BADF);
    }
}
