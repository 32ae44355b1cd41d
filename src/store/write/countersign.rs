//! The signatures beside a sealed file that is being replaced. Two files cannot be renamed at one instant, and at every instant
//! the file that lies there must have a good signature. So there are three steps: `FILE.sig` gets the new signature beside those
//! of the old file; the file is replaced; `FILE.sig` is left with the new one alone. Whoever is stopped between two of them
//! leaves a file that is answered for, and the next writer tidies up.

use std::fs::File;
use std::path::Path;

use rustix::fs::{Mode, Stat};
use ssh_key::PublicKey;

use super::{Place, Temporary, open_folder_of};
use crate::checked_file::{self, FileError, FileErrorKind, Use};
use crate::policy::sealed_trust::{LARGEST, Signatures};
use crate::policy::trust::signature_of;
use crate::store::sealed::SealedErrorKind as Kind;

/// What `FILE.sig` is to hold while a file is replaced, and afterwards.
pub(super) struct Countersign {
    place: Place,
    old: Option<Stat>,
    /// Owner and group of a first signature file.
    like: Option<Stat>,
    /// Of the file that lies there.
    kept: Signatures,
    new: Signatures,
}

impl Countersign {
    /// Looks at the signatures beside the file at `path`, whose bytes are `old` and are to be those that `new` was made of.
    /// Without old bytes there may be a file that another program put there: all that is there stays until the end.
    pub(super) fn beside(path: &Path, old: Option<&[u8]>, like: Option<Stat>, new: Signatures) -> Result<Self, Kind> {
        let named = signature_of(path);
        // As for the file itself: where it is a link, its target is replaced.
        let target = match std::fs::canonicalize(&named) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => named.clone(),
            other => other.map_err(|error| FileError { path: named.clone(), kind: FileErrorKind::Io(error) })?,
        };
        let (folder, name) = open_folder_of(&target)?;
        let place = Place { folder, name };
        place.remove_leftovers()?;
        let (stat, there) = match checked_file::open(&named, Use::Public) {
            Ok(file) => {
                let stat = rustix::fs::fstat(&file).map_err(Kind::io("look at its signature"))?;
                (Some(stat), checked_file::read_opened(&file, &named, LARGEST)?)
            }
            Err(error) if error.is_absent() => (None, Vec::new()),
            Err(error) => return Err(error.into()),
        };
        // What is no signature at all is of no use to the old file either.
        let there = Signatures::parse(&there).unwrap_or_default();
        let kept = old.map_or_else(|| there.clone(), |bytes| there.made_of(bytes));
        Ok(Self { place, old: stat, like, kept, new })
    }

    /// `replace`, with a good signature of what lies there at every instant.
    pub(super) fn around(self, replace: impl FnOnce() -> Result<(), Kind>) -> Result<(), Kind> {
        let both = self.new.before(&self.kept);
        self.put(&both)?;
        replace()?;
        // What is left of the old file's is good for nothing that lies there, and the next writer's to take away.
        if both != self.new {
            self.put(&self.new).ok();
        }
        Ok(())
    }

    /// One more signature of a file that stays as it is, in place of an earlier one by the same key.
    pub(super) fn add(self, by: &PublicKey) -> Result<(), Kind> {
        self.put(&self.new.before(&self.kept.without(by)))
    }

    fn put(&self, signatures: &Signatures) -> Result<(), Kind> {
        // Whoever owns the file may write it again, whoever has signed it before.
        let like = self.like.as_ref().or(self.old.as_ref());
        // A signature is public. Whoever may read the file needs it, also where ssh-keygen has made it for its user alone.
        let readers = self.like.as_ref().map_or(0, |like| like.st_mode & 0o444);
        let mode = self.old.as_ref().map_or(0o644, |old| (old.st_mode & 0o777 | readers) & !0o022);
        let finish = |file: &File| {
            rustix::fs::fchmod(file, Mode::from_raw_mode(mode)).map_err(Kind::io("keep the mode of its signature"))
        };
        let written = self.place.write_temporary(signatures.to_text().as_bytes(), like, finish);
        written.and_then(Temporary::replace).map_err(|kind| match kind {
            Kind::Io { error, .. } => Kind::Io { doing: "write its signature beside it", error },
            other => other,
        })
    }
}
