//! The log that was moved away: how far the chain went in it.
//!
//! The head file is not synced, so after a power cut it may be older than the log; and a writer that is killed may not have come
//! to write it. While the log is in its place its own end says how far it goes. Where it was moved since, it is looked for: by the
//! inode that the head names, under whatever name, and among the names that begin as the log's does, for it may have been moved
//! more than once. A chain that went on from the head alone would use numbers, and keys of seals, for the second time.

use std::fs::{DirEntry, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::chain::Chain;
use super::end::{End, read_end};
use super::error::AuditError;
use super::head::{Identity, folder_of};

/// What lies beside a log, and is none.
const BESIDE: [&[u8]; 5] = [b".checkpoint", b".head", b".key", b".seal", b".seed-"];

/// What is packed has no line that could be read.
const PACKED: [&[u8]; 4] = [b".bz2", b".gz", b".xz", b".zst"];

/// Entries of a folder that are looked at.
const ENTRIES: usize = 10_000;

/// Files that are read, the last changed first: the end of each.
const FILES: usize = 16;

/// The end of the log that was moved away: with the record of `head`, or a later one of its chain. `None` if neither is found in the
/// folder, or it may not be listed.
///
/// # Errors
/// The folder, or the file of the inode, is there and cannot be read.
pub(super) fn last_moved(log: &Path, moved: Option<Identity>, head: Chain) -> Result<Option<End>, AuditError> {
    let folder = folder_of(log);
    let failed = |path: &Path, error| AuditError::File { path: path.to_owned(), doing: "read", error };
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
        entries => entries.map_err(|error| failed(folder, error))?.take(ENTRIES),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| failed(folder, error))?;
        files.extend(candidate(&entry, log, moved));
    }
    files.sort_by_key(|(order, _)| std::cmp::Reverse(*order));
    let mut last: Option<(Chain, End)> = None;
    for ((is_moved, ..), path) in files.iter().take(FILES) {
        let end = match end_of(path) {
            Ok(end) => end,
            Err(error) if *is_moved && !is_out_of_reach(&error) => return Err(failed(path, error)),
            // Another's, or none of ours.
            Err(_) => None,
        };
        let end = end.and_then(|end| Some((end.chain?, end)));
        let goes_on = |(end, _): &(Chain, End)| end.stream == head.stream && (end.seq > head.seq || *end == head);
        last = last.into_iter().chain(end.filter(goes_on)).max_by_key(|(end, _)| end.seq);
    }
    Ok(last.map(|(_, end)| end))
}

/// Gone meanwhile, or nobody's to read: as if it had been moved elsewhere.
fn is_out_of_reach(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
}

/// A file that may be a log of the same chain: its path, and what sorts the likelier ones last.
fn candidate(entry: &DirEntry, log: &Path, moved: Option<Identity>) -> Option<((bool, i64, i64), PathBuf)> {
    let (name, own) = (entry.file_name(), log.file_name()?);
    let is_moved = moved.is_some_and(|moved| moved.inode == entry.ino());
    let end = name.as_bytes().strip_prefix(own.as_bytes());
    let is_log = |end: &[u8]| {
        let is_beside = BESIDE.iter().any(|beside| end.starts_with(beside));
        !end.is_empty() && !is_beside && !PACKED.iter().any(|packed| end.ends_with(packed))
    };
    let is_named = end.is_some_and(is_log);
    if name == own || !(is_moved || is_named) {
        return None;
    }
    let metadata = entry.metadata().ok().filter(is_ours)?;
    Some(((is_moved, metadata.mtime(), metadata.mtime_nsec()), entry.path()))
}

fn is_ours(metadata: &Metadata) -> bool {
    metadata.is_file() && metadata.uid() == rustix::process::geteuid().as_raw()
}

fn end_of(path: &Path) -> io::Result<Option<End>> {
    // NONBLOCK: it may have become a FIFO since it was looked at.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if metadata.len() == 0 || !is_ours(&metadata) {
        return Ok(None);
    }
    read_end(&file, metadata.len())
}
