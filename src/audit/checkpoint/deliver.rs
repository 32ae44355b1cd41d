//! Where a checkpoint goes: another file, a descriptor, syslog, a program, a parameter. None of them is the record, so none of
//! them holds up an access for longer than its limit, and what fails is written down.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::OFlags;

use super::courier::Courier;
use super::note::LINE_MARK;
use crate::audit::head::open_checked;
use crate::audit::record::rfc3339;
use crate::audit::sink_stream::StreamSink;
use crate::audit::syslog::{self, Severity};
use crate::checked_file::{check_program, plain_io};
use crate::name::show;
use crate::policy::model::Anchor;
use crate::program::{self, How};
use crate::sys::Strings;

/// How long a program may take, and a file.
const PATIENCE: Duration = Duration::from_secs(5);

/// Takes checkpoints where they are to go, at once or beside the work that goes on.
pub(in crate::audit) struct Deliverer {
    failures: Arc<Mutex<Vec<String>>>,
    /// A thread of its own, one at a time: for a writer that others wait for.
    apart: bool,
    under_way: Arc<Mutex<()>>,
    courier: Option<Arc<dyn Courier>>,
    writing: Writing,
}

impl Deliverer {
    pub(in crate::audit) fn new(apart: bool, courier: Option<Arc<dyn Courier>>) -> Self {
        Self { failures: Arc::default(), apart, under_way: Arc::default(), courier, writing: Writing::default() }
    }

    /// Whether the last delivery is still under way.
    pub(in crate::audit) fn is_busy(&self) -> bool {
        self.under_way.try_lock().is_err()
    }

    pub(in crate::audit) fn deliver(&self, note: String, to: Vec<Anchor>) {
        let (failures, under_way) = (Arc::clone(&self.failures), Arc::clone(&self.under_way));
        let (courier, writing) = (self.courier.clone(), self.writing.clone());
        let work = move || {
            let _under_way = under_way.lock().unwrap_or_else(PoisonError::into_inner);
            for anchor in &to {
                if let Err(why) = deliver(&note, anchor, courier.as_deref(), &writing) {
                    failures.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{}: {why}", anchor.word()));
                }
            }
        };
        if !self.apart {
            return work();
        }
        let thread = thread::Builder::new().name("checkpoint".into()).spawn(work);
        if thread.is_err() {
            let why = "no thread could be started".to_owned();
            self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(why);
        }
    }

    /// What failed since this was asked last.
    pub(in crate::audit) fn failures(&self) -> Vec<String> {
        std::mem::take(&mut *self.failures.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Takes a note to one place.
///
/// # Errors
/// Why not, in words of ours.
fn deliver(note: &str, to: &Anchor, courier: Option<&dyn Courier>, writing: &Writing) -> Result<(), String> {
    match to {
        Anchor::Command(path) => run(note, path),
        Anchor::Fd(number) => {
            StreamSink::open(*number).and_then(|stream| stream.put(note.as_bytes())).map_err(|error| error.to_string())
        }
        Anchor::File(path) => {
            let (entry, to) = (entry(note), path.clone());
            writing.within(path, PATIENCE, move || {
                let (mut file, _) = open_checked(&to, OFlags::APPEND).map_err(|error| error.to_string())?;
                // One write, so that writers that share the file do not tear each other's.
                file.write_all(entry.as_bytes()).and_then(|()| file.sync_data()).map_err(|error| plain_io(&error))
            })
        }
        Anchor::Parameter(parameter) => match courier {
            Some(courier) => courier.take(note, parameter),
            None => Err("nobody here takes it there".to_owned()),
        },
        Anchor::Syslog(path) => syslog(note, path).map_err(|error| plain_io(&error)),
    }
}

/// What is appended to a file. The one before may have been torn anywhere, by a full disk for one: the first newline ends its line,
/// and the empty line after that ends its text.
fn entry(note: &str) -> String {
    format!("\n\n{note}")
}

/// The files that a note is being written to. Each write is a thread of its own, since nothing else ends the wait for a disk; there
/// is one for each file, however long the disk does not answer.
#[derive(Clone, Default)]
struct Writing(Arc<Mutex<BTreeSet<PathBuf>>>);

impl Writing {
    fn within(
        &self,
        path: &Path,
        patience: Duration,
        work: impl FnOnce() -> Result<(), String> + Send + 'static,
    ) -> Result<(), String> {
        let files = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !files().insert(path.to_owned()) {
            return Err("one before is still being written there".to_owned());
        }
        let (this, of) = (self.clone(), path.to_owned());
        let (done, answer) = sync_channel(1);
        let thread = thread::Builder::new().name("checkpoint-file".into()).spawn(move || {
            let written = work();
            this.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&of);
            // Nobody waits any more, if it was late.
            done.send(written).unwrap_or_default();
        });
        let Ok(thread) = thread else {
            files().remove(path);
            return Err("no thread could be started".to_owned());
        };
        match answer.recv_timeout(patience) {
            Err(RecvTimeoutError::Timeout) => Err(format!("it took longer than {} s", patience.as_secs())),
            Ok(written) => {
                // It has nothing left to do; what forks next is alone.
                thread.join().unwrap_or_default();
                written
            }
            Err(RecvTimeoutError::Disconnected) => Err("it could not be written".to_owned()),
        }
    }
}

/// The local socket of a syslog daemon must take it at once.
fn syslog(note: &str, path: &Path) -> std::io::Result<()> {
    let text = format!("{LINE_MARK}{}", STANDARD.encode(note));
    let message = syslog::message(Severity::Notice, &rfc3339(SystemTime::now()), &syslog::host(), "checkpoint", &text);
    Ok(syslog::socket(path).send(message.as_bytes())?)
}

/// The note is in `VOUCHSAFE_CHECKPOINT`, and in nothing else: it is public.
fn run(note: &str, path: &Path) -> Result<(), String> {
    // Each time: somebody may have got at it meanwhile.
    check_program(path).map_err(|error| error.to_string())?;
    let bytes = path.as_os_str().as_bytes();
    let name = CString::new(bytes).map_err(|_| "its path has a NUL".to_owned())?;
    let mut argv = Strings::default();
    argv.push(&[bytes]);
    let mut envp = Strings::default();
    envp.push(&[b"PATH=/usr/bin:/bin"]);
    envp.push(&[b"LANG=C.UTF-8"]);
    envp.push(&[b"VOUCHSAFE_CHECKPOINT=", note.as_bytes()]);
    let ended = program::run(&name, &argv, &envp, PATIENCE).map_err(|error| plain_io(&error))?;
    match ended.how {
        How::Exited(0) => Ok(()),
        How::Exited(status) => Err(format!("`{}` ended with status {status}", show(path))),
        How::Signaled(signal) => Err(format!("`{}` was ended by signal {signal}", show(path))),
        How::TimedOut => Err(format!("`{}` took longer than {} s and was killed", show(path), PATIENCE.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::chain::{Chain, Digest, StreamId};
    use crate::audit::checkpoint::key::Signer;
    use crate::audit::checkpoint::note::{Checkpoint, open_all};

    #[test]
    fn a_note_that_was_torn_anywhere_spoils_none() {
        let signer = Signer::of_seed("host-1/audit", &[7; 32]).unwrap();
        let checkpoint = |seq| {
            let chain = Chain { stream: StreamId([3; 16]), seq, hash: Digest([9; 32]) };
            Checkpoint { chain, time: "2026-01-02T03:04:05.000000Z".into() }
        };
        let [one, two, three] = [1, 2, 3].map(|seq| entry(&checkpoint(seq).sign(&signer)));
        for cut in 0..=two.len() {
            let bytes = [one.as_bytes(), &two.as_bytes()[..cut], three.as_bytes()].concat();
            let opened = open_all(&String::from_utf8_lossy(&bytes), &signer.verifier());
            let seen: Vec<u64> = opened.checkpoints.iter().map(|checkpoint| checkpoint.chain.seq).collect();
            // The newline at its end is not missed.
            let expected = if cut + 1 < two.len() { vec![1, 3] } else { vec![1, 2, 3] };
            assert_eq!((seen, opened.forged), (expected, 0), "cut at {cut} of {}", two.len());
        }
    }

    #[test]
    fn a_file_that_does_not_answer_is_given_up_and_not_asked_again_meanwhile() {
        let writing = Writing::default();
        let (path, short) = (Path::new("notes"), Duration::from_millis(1));
        let (release, held) = sync_channel::<()>(0);
        let late = writing.within(path, short, move || held.recv().map_err(|error| error.to_string()));
        assert!(late.unwrap_err().contains("longer"));
        let again = writing.within(path, PATIENCE, || panic!("it is asked"));
        assert!(again.unwrap_err().contains("still"));
        // Others are.
        assert_eq!(writing.within(Path::new("others"), PATIENCE, || Ok(())), Ok(()));
        assert_eq!(writing.within(Path::new("others"), PATIENCE, || Err("why".to_owned())), Err("why".to_owned()));
        release.send(()).unwrap();
        while writing.within(path, PATIENCE, || Ok(())).is_err() {
            thread::yield_now();
        }
    }
}
