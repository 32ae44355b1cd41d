//! When a checkpoint is due: after so many records, or so long after the last one. The last one lies in `<log>.checkpoint`, for
//! every writer of the log; who finds one due under the lock makes it, so that there is one. The last one that went to parameters
//! lies in `<log>.checkpoint.ssm`: not every writer takes it there.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::key::Signer;
use super::note::Checkpoint;
use crate::audit::chain::Chain;
use crate::audit::error::AuditError;
use crate::audit::head::{Making, open_checked_as};
use crate::audit::record::rfc3339;
use crate::policy::model::Checkpoints;

/// What a writer knows of the log's checkpoints.
pub(in crate::audit) struct Schedule {
    log: PathBuf,
    path: PathBuf,
    last: Option<(Chain, SystemTime)>,
}

/// No note of ours is longer.
const LONGEST: usize = 4096;

impl Schedule {
    pub(in crate::audit) fn of_log(log: &Path) -> Self {
        let mut path = log.as_os_str().to_owned();
        path.push(".checkpoint");
        Self { log: log.to_owned(), path: path.into(), last: None }
    }

    /// That of the checkpoints that go to parameters.
    pub(in crate::audit) fn of_parameters(log: &Path) -> Self {
        let mut this = Self::of_log(log);
        this.path.as_mut_os_string().push(".ssm");
        this
    }

    /// The note, if one is due now that the chain stands here. For whoever holds the lock.
    ///
    /// # Errors
    /// The last one cannot be read, or this one not be noted.
    pub(in crate::audit) fn claim(
        &mut self,
        rules: &Checkpoints,
        chain: Chain,
        now: SystemTime,
    ) -> Result<Option<String>, AuditError> {
        if self.last.is_some_and(|last| !is_due(rules, last, chain, now)) {
            return Ok(None);
        }
        // Another writer may have made one meanwhile.
        self.last = self.read()?;
        if self.last.is_some_and(|last| !is_due(rules, last, chain, now)) {
            return Ok(None);
        }
        self.make(chain, now).map(Some)
    }

    /// The note of now, for somebody who takes it himself: what is due is still due. Only now is the key read, or made.
    ///
    /// # Errors
    /// Those of [`Signer::of_log`].
    pub(in crate::audit) fn sign(&self, chain: Chain, now: SystemTime) -> Result<String, AuditError> {
        Ok(Checkpoint { chain, time: rfc3339(now) }.sign(&Signer::of_log(&self.log)?))
    }

    /// The same, noted as the last one that was made.
    ///
    /// # Errors
    /// Those of [`Self::sign`]; it cannot be noted.
    pub(in crate::audit) fn make(&mut self, chain: Chain, now: SystemTime) -> Result<String, AuditError> {
        let note = self.sign(chain, now)?;
        let file = self.open()?;
        file.write_all_at(note.as_bytes(), 0)
            .and_then(|()| file.set_len(note.len() as u64))
            .map_err(|error| self.failed("write", error))?;
        self.last = Some((chain, now));
        Ok(note)
    }

    fn read(&self) -> Result<Option<(Chain, SystemTime)>, AuditError> {
        let mut text = vec![0; LONGEST];
        let read = self.open()?.read_at(&mut text, 0).map_err(|error| self.failed("read", error))?;
        let text = String::from_utf8_lossy(text.get(..read).unwrap_or_default());
        // It is our own file, and says only when the next one is due.
        let last = text.split("\n\n").next().and_then(|text| Checkpoint::parse(&format!("{text}\n")));
        Ok(last.and_then(|last| Some((last.chain, humantime::parse_rfc3339(&last.time).ok()?))))
    }

    fn open(&self) -> Result<File, AuditError> {
        let opened = open_checked_as(&self.path, rustix::fs::OFlags::empty(), Making::IfAbsent)?;
        opened.map(|(file, _)| file).ok_or_else(|| self.failed("open", std::io::ErrorKind::NotFound.into()))
    }

    fn failed(&self, doing: &'static str, error: std::io::Error) -> AuditError {
        AuditError::File { path: self.path.clone(), doing, error }
    }
}

/// A chain that is another one, or a clock that went back, is told of at once.
fn is_due(rules: &Checkpoints, (last, at): (Chain, SystemTime), chain: Chain, now: SystemTime) -> bool {
    let records = chain.seq.checked_sub(last.seq).filter(|_| last.stream == chain.stream);
    match (records, now.duration_since(at)) {
        (Some(0), _) => false,
        (Some(records), Ok(passed)) => records >= rules.every || passed >= rules.interval,
        (None, _) | (_, Err(_)) => true,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::audit::chain::{Digest, StreamId};

    #[test]
    fn due_is_a_table() {
        let chain = |stream, seq| Chain { stream: StreamId([stream; 16]), seq, hash: Digest([1; 32]) };
        let rules = Checkpoints { every: 10, interval: Duration::from_secs(60), to: Vec::new() };
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        for (now, seconds, due) in [
            (chain(1, 5), 0, false),
            (chain(1, 5), 100, false),
            (chain(1, 6), 59, false),
            (chain(1, 6), 60, true),
            (chain(1, 14), 0, false),
            (chain(1, 15), 0, true),
            (chain(1, 4), 0, true),
            (chain(2, 6), 0, true),
        ] {
            assert_eq!(
                is_due(&rules, (chain(1, 5), at), now, at + Duration::from_secs(seconds)),
                due,
                "{now:?} {seconds}"
            );
        }
        assert!(is_due(&rules, (chain(1, 5), at), chain(1, 6), at - Duration::from_secs(1)), "the clock went back");
    }
}
