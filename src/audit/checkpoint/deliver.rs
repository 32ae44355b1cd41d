//! Where a checkpoint goes: another file, a descriptor, syslog, a program, a parameter. None of them is the record, so none of
//! them holds up an access for longer than its limit, and what fails is written down.

use std::ffi::CString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
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

/// How long a program may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Takes checkpoints where they are to go, at once or beside the work that goes on.
pub(in crate::audit) struct Deliverer {
    failures: Arc<Mutex<Vec<String>>>,
    /// A thread of its own, one at a time: for a writer that others wait for.
    apart: bool,
    under_way: Arc<Mutex<()>>,
    courier: Option<Arc<dyn Courier>>,
}

impl Deliverer {
    pub(in crate::audit) fn new(apart: bool, courier: Option<Arc<dyn Courier>>) -> Self {
        Self { failures: Arc::default(), apart, under_way: Arc::default(), courier }
    }

    /// Whether the last delivery is still under way.
    pub(in crate::audit) fn is_busy(&self) -> bool {
        self.under_way.try_lock().is_err()
    }

    pub(in crate::audit) fn deliver(&self, note: String, to: Vec<Anchor>) {
        let (failures, under_way) = (Arc::clone(&self.failures), Arc::clone(&self.under_way));
        let courier = self.courier.clone();
        let work = move || {
            let _under_way = under_way.lock().unwrap_or_else(PoisonError::into_inner);
            for anchor in &to {
                if let Err(why) = deliver(&note, anchor, courier.as_deref()) {
                    failures.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{}: {why}", anchor.word()));
                }
            }
        };
        if !self.apart {
            return work();
        }
        let thread = std::thread::Builder::new().name("checkpoint".into()).spawn(work);
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
pub(in crate::audit) fn deliver(note: &str, to: &Anchor, courier: Option<&dyn Courier>) -> Result<(), String> {
    match to {
        Anchor::Command(path) => run(note, path),
        Anchor::Fd(number) => {
            StreamSink::open(*number).and_then(|stream| stream.put(note.as_bytes())).map_err(|error| error.to_string())
        }
        Anchor::File(path) => {
            let (mut file, _) = open_checked(path, OFlags::APPEND).map_err(|error| error.to_string())?;
            // One write, so that writers that share the file do not tear each other's.
            file.write_all(format!("{note}\n").as_bytes())
                .and_then(|()| file.sync_data())
                .map_err(|error| plain_io(&error))
        }
        Anchor::Parameter(parameter) => match courier {
            Some(courier) => courier.take(note, parameter),
            None => Err("nobody here takes it there".to_owned()),
        },
        Anchor::Syslog(path) => syslog(note, path).map_err(|error| plain_io(&error)),
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
