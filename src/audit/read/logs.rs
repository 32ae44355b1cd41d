//! Which files: the logs of the sinks that are files, with what was rotated beside them.
//!
//! Only the first such sink is read: every sink takes every record, so another one would say everything twice.

use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::audit::verify::Unreadable;
use crate::policy::model::Sink;

/// The logs of a host.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Logs {
    /// Each log oldest first, its rotated files (`.N`, `-DATE`) before it.
    pub paths: Vec<PathBuf>,
    /// Rotated files that are compressed, and therefore not read.
    pub compressed: Vec<PathBuf>,
}

/// Opens a log for reading.
///
/// # Errors
/// It cannot be opened.
pub fn open(path: &Path) -> Result<File, Unreadable> {
    File::open(path).map_err(|error| Unreadable { path: path.to_owned(), error })
}

impl Logs {
    /// The logs of the first sink that is a file. `{uid}` in its path stands for every uid.
    ///
    /// # Errors
    /// A folder cannot be listed: what it holds is not known.
    pub fn of(sinks: &[Sink]) -> Result<Self, Unreadable> {
        let mut logs = Self::default();
        let path = sinks.iter().find_map(|sink| match sink {
            Sink::File { path, .. } => Some(Path::new(path)),
            Sink::Fd(_) | Sink::Journald(_) | Sink::Stderr | Sink::Syslog(_) => None,
        });
        let Some(path) = path else { return Ok(logs) };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else { return Ok(logs) };
        for folder in expand(folder)? {
            logs.add(&folder, &name)?;
        }
        Ok(logs)
    }

    /// The logs of one folder that are called `name`.
    fn add(&mut self, folder: &Path, name: &str) -> Result<(), Unreadable> {
        let mut found = Vec::new();
        for entry in entries(folder)? {
            let Some((log, rotation)) = rotation(&entry, name) else { continue };
            if rotation == Rotation::Compressed {
                self.compressed.push(folder.join(&entry));
            } else {
                found.push((log.to_owned(), rotation, folder.join(&entry)));
            }
        }
        found.sort();
        self.paths.extend(found.into_iter().map(|(_, _, path)| path));
        self.compressed.sort();
        Ok(())
    }
}

/// Where a file stands in the order of one log's files: oldest first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Rotation {
    /// By logrotate's `dateext`.
    Dated(String),
    /// `.3` is older than `.2`.
    Numbered(std::cmp::Reverse<u32>),
    /// The log itself.
    Log,
    /// Not read.
    Compressed,
}

/// What `entry` is to the log called `name`, in which `{uid}` stands for digits: the log's own name, and which of its files.
fn rotation<'e>(entry: &'e str, name: &str) -> Option<(&'e str, Rotation)> {
    let length = length_of(entry, name)?;
    let (log, rest) = entry.split_at_checked(length)?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let plain = [".gz", ".xz", ".zst", ".bz2"].iter().find_map(|end| rest.strip_suffix(end));
    let is_rotated = |rest: &str| {
        rest.strip_prefix('.').is_some_and(is_number)
            || rest.strip_prefix('-').is_some_and(|date| date.split('-').all(is_number))
    };
    let rotation = match (rest, plain) {
        ("", _) => Rotation::Log,
        (_, Some(plain)) if is_rotated(plain) => Rotation::Compressed,
        (rest, None) if is_rotated(rest) => match rest.strip_prefix('.').map(str::parse) {
            Some(Ok(number)) => Rotation::Numbered(std::cmp::Reverse(number)),
            Some(Err(_)) => return None,
            None => Rotation::Dated(rest.to_owned()),
        },
        _ => return None,
    };
    Some((log, rotation))
}

/// How much of `entry` is `name`, each `{uid}` as digits.
fn length_of(entry: &str, name: &str) -> Option<usize> {
    let mut pieces = name.split("{uid}");
    let mut rest = entry.strip_prefix(pieces.next()?)?;
    for piece in pieces {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (_, after) = rest.split_at_checked(digits).filter(|_| digits > 0)?;
        rest = after.strip_prefix(piece)?;
    }
    Some(entry.len() - rest.len())
}

/// The folders that a path with `{uid}` in it stands for; itself, where it has none.
fn expand(folder: &Path) -> Result<Vec<PathBuf>, Unreadable> {
    let mut folders = vec![PathBuf::new()];
    for component in folder.components() {
        let name = component.as_os_str().to_string_lossy();
        if !matches!(component, Component::Normal(_)) || !name.contains("{uid}") {
            folders.iter_mut().for_each(|folder| folder.push(component));
            continue;
        }
        let mut next = Vec::new();
        for folder in folders {
            let mut names = entries(&folder)?;
            names.retain(|entry| length_of(entry, &name) == Some(entry.len()));
            names.sort();
            next.extend(names.into_iter().map(|entry| folder.join(entry)));
        }
        folders = next;
    }
    Ok(folders)
}

/// The names in a folder; none, if there is no such folder: nobody has written there yet.
fn entries(folder: &Path) -> Result<Vec<String>, Unreadable> {
    let failed = |error| Unreadable { path: folder.to_owned(), error };
    let at = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let list = match fs::read_dir(at) {
        Ok(list) => list,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    list.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()).map_err(failed)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::scratch::Scratch;

    #[test]
    fn names_of_rotated_files_are_told_from_others() {
        let numbered = |number| Rotation::Numbered(std::cmp::Reverse(number));
        for (entry, expected) in [
            ("7.jsonl", Some(("7.jsonl", Rotation::Log))),
            ("1000.jsonl.12", Some(("1000.jsonl", numbered(12)))),
            ("7.jsonl-20260102", Some(("7.jsonl", Rotation::Dated("-20260102".into())))),
            ("7.jsonl.3.gz", Some(("7.jsonl", Rotation::Compressed))),
            ("7.jsonl-20260102.zst", Some(("7.jsonl", Rotation::Compressed))),
            ("7.jsonl.head", None),
            ("7.jsonl.aside", None),
            ("7.jsonl.1.head", None),
            ("7.jsonl.gz", None),
            (".jsonl", None),
            ("x7.jsonl", None),
            ("7.json", None),
            ("7.jsonl.99999999999", None),
        ] {
            assert_eq!(rotation(entry, "{uid}.jsonl"), expected, "{entry}");
        }
        assert_eq!(rotation("audit.jsonl.1", "audit.jsonl"), Some(("audit.jsonl", numbered(1))));
    }

    #[test]
    fn each_log_comes_oldest_first_and_for_every_uid() {
        let scratch = Scratch::new();
        let folder = scratch.path("logs");
        for name in
            ["7/a.jsonl", "7/a.jsonl.1", "7/a.jsonl.10", "7/a.jsonl.2", "7/a.jsonl.3.gz", "12/a.jsonl", "x/a.jsonl"]
        {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        }
        let sink = |name: &str| Sink::File {
            path: format!("{}/{name}", folder.display()),
            sync: true,
            evidence: crate::policy::model::Evidence::default(),
        };
        let names = |paths: &[PathBuf]| -> Vec<String> {
            paths.iter().map(|path| path.strip_prefix(&folder).unwrap().display().to_string()).collect()
        };
        let logs = Logs::of(&[Sink::Stderr, sink("{uid}/a.jsonl"), sink("x/a.jsonl")]).unwrap();
        assert_eq!(names(&logs.paths), ["12/a.jsonl", "7/a.jsonl.10", "7/a.jsonl.2", "7/a.jsonl.1", "7/a.jsonl"]);
        assert_eq!(names(&logs.compressed), ["7/a.jsonl.3.gz"]);
        assert_eq!(Logs::of(&[sink("nowhere/a.jsonl")]).unwrap(), Logs::default());
        assert_eq!(Logs::of(&[Sink::Stderr]).unwrap(), Logs::default());
        assert!(Logs::of(&[sink("7/a.jsonl/b")]).is_err(), "a folder that is a file");
    }
}
