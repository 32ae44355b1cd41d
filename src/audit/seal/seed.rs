//! What the auditor keeps: the first key of an epoch, and what it is for. It leaves the host as an age file to his recipient.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::SystemTime;

use zeroize::Zeroizing;

use super::{EpochId, EpochKey};
use crate::audit::chain::{StreamId, push_hex, take_hex};
use crate::audit::error::AuditError;
use crate::audit::head::sync_folder;
use crate::audit::record::rfc3339;
use crate::secret::Secret;
use crate::store::identity::parse_recipient;
use crate::store::sealed::{self, SealedErrorKind};

/// The first key of an epoch.
pub(in crate::audit) struct Seed {
    pub(in crate::audit) stream: StreamId,
    /// The number of the first record that it seals.
    pub(in crate::audit) first: u64,
    pub(in crate::audit) key: EpochKey,
}

/// Why an epoch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::audit) enum Beginning {
    /// The log was not sealed before.
    Init,
    /// The state of the epoch before is lost.
    Lost,
    /// The epoch before was ended.
    Next,
}

impl Beginning {
    fn word(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Lost => "lost",
            Self::Next => "next",
        }
    }
}

/// No seed is longer.
pub(in crate::audit) const LARGEST: u64 = 64 * 1024;

const MAGIC: &str = "vouchsafe-audit-seed/1";

impl Seed {
    /// The seed as the auditor gets it: an armored age file.
    ///
    /// # Errors
    /// The recipient is none.
    pub(in crate::audit) fn encrypt(&self, auditor: &str, why: Beginning) -> Result<Vec<u8>, AuditError> {
        let recipient = parse_recipient(auditor).map_err(AuditError::Auditor)?;
        let text = self.render(why);
        sealed::encrypt(&text, [&*recipient.recipient as &dyn age::Recipient]).map_err(|error| match error {
            SealedErrorKind::Encrypt(why) => AuditError::Auditor(why),
            _ => AuditError::Auditor("nothing could be encrypted to it"),
        })
    }

    pub(in crate::audit) fn render(&self, why: Beginning) -> Secret {
        // Longer than it gets: a buffer that grows leaves its key behind.
        let mut text = String::with_capacity(1024);
        let mut hex = Zeroizing::new(Vec::with_capacity(64));
        let host = rustix::system::uname();
        let host = crate::name::escape(&host.nodename().to_string_lossy());
        let begins = why.word();
        let (epoch, time) = (self.key.id().hex(), rfc3339(SystemTime::now()));
        push_hex(&mut hex, &self.stream.0);
        // Writing into a `String` cannot fail.
        write!(text, "{MAGIC}\nepoch {epoch}\nstream {}\n", String::from_utf8_lossy(&hex)).unwrap_or_default();
        write!(text, "first {}\nbegins {begins}\nhost {host}\ntime {time}\nkey ", self.first).unwrap_or_default();
        hex.clear();
        push_hex(&mut hex, self.key.expose());
        text.push_str(std::str::from_utf8(&hex).unwrap_or_default());
        text.push('\n');
        Secret::new(text.into_bytes())
    }

    /// Reads a decrypted seed. Members that are not known are left alone.
    pub(in crate::audit) fn parse(text: &Secret) -> Option<Self> {
        let text = std::str::from_utf8(text.expose()).ok()?;
        let mut lines = text.lines();
        if lines.next()? != MAGIC {
            return None;
        }
        let (mut epoch, mut stream, mut first, mut key) = (None, None, None, None);
        for (word, rest) in lines.filter_map(|line| line.split_once(' ')) {
            match word {
                "epoch" => epoch = whole_hex::<8>(rest).map(EpochId),
                "stream" => stream = whole_hex::<16>(rest).map(StreamId),
                "first" => first = rest.parse().ok(),
                "key" => key = whole_hex::<32>(rest).map(EpochKey::from_bytes),
                _ => {}
            }
        }
        let seed = Self { stream: stream?, first: first?, key: key? };
        (seed.first > 0 && Some(seed.key.id()) == epoch).then_some(seed)
    }
}

/// Whether a decrypted seed says that it begins anew what was lost.
pub(in crate::audit) fn begins_anew(text: &Secret) -> bool {
    text.expose().split(|byte| *byte == b'\n').any(|line| line == b"begins lost")
}

fn whole_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    take_hex::<N>(text.as_bytes()).filter(|(rest, _)| rest.is_empty()).map(|(_, bytes)| bytes)
}

/// Writes a seed's file, which must not be there yet; when this returns, it is on the disk.
///
/// # Errors
/// It is there, or cannot be written.
pub(in crate::audit) fn write(path: &Path, bytes: &[u8]) -> Result<(), AuditError> {
    let failed = |doing, error| AuditError::File { path: path.to_owned(), doing, error };
    let mut options = std::fs::OpenOptions::new();
    let mut file =
        options.write(true).create_new(true).mode(0o600).open(path).map_err(|error| failed("create", error))?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if let Err(error) = written {
        // Half a seed is none; that it cannot be removed is the lesser problem.
        std::fs::remove_file(path).unwrap_or_default();
        return Err(failed("write", error));
    }
    sync_folder(path).map_err(|errno| failed("sync the folder of", errno.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed() -> Seed {
        Seed { stream: StreamId([3; 16]), first: 12, key: EpochKey::from_bytes([7; 32]) }
    }

    #[test]
    fn a_seed_is_read_as_it_was_written() {
        let read = Seed::parse(&seed().render(Beginning::Init)).unwrap();
        assert_eq!((read.stream, read.first, read.key.expose()), (seed().stream, 12, seed().key.expose()));
    }

    #[test]
    fn a_seed_that_lacks_anything_or_does_not_fit_its_name_is_none() {
        let text = String::from_utf8(seed().render(Beginning::Lost).expose().to_vec()).unwrap();
        for line in ["epoch ", "stream ", "first ", "key ", MAGIC] {
            let less: String =
                text.lines().filter(|one| !one.starts_with(line)).map(|one| format!("{one}\n")).collect();
            assert_ne!(less, text);
            assert!(Seed::parse(&Secret::new(less.into_bytes())).is_none(), "{line}");
        }
        let other = text.replace("key 07", "key 08");
        assert_ne!(other, text);
        assert!(Seed::parse(&Secret::new(other.into_bytes())).is_none());
        assert!(Seed::parse(&Secret::new(b"\xff".to_vec())).is_none());
    }

    #[test]
    fn what_is_no_recipient_gets_nothing() {
        assert!(matches!(seed().encrypt("age1nonsense", Beginning::Init), Err(AuditError::Auditor(_))));
    }
}
