//! The sinks of one writer: those that count, one after the other, and then the mirrors.

use std::sync::Arc;

use super::Courier;
use super::error::AuditError;
use super::event::Assurance;
use super::mirror::Mirrors;
use super::record::{Author, Draft};
use super::sink_file::FileSink;
use super::sink_stream::StreamSink;
use crate::policy::model::Sink;

/// A sink that counts.
pub(super) enum OpenSink {
    File(FileSink),
    Stream(StreamSink),
}

/// Opens every sink that counts; there has to be one. `assurance` is what records of files say of themselves, `courier` takes
/// checkpoints of files to parameters.
pub(super) fn open_all(
    sinks: &[Sink],
    assurance: Assurance,
    courier: Option<&Arc<dyn Courier>>,
) -> Result<Vec<OpenSink>, AuditError> {
    let open = |sink: &Sink| match sink {
        Sink::Fd(number) => Some(StreamSink::open(*number).map(OpenSink::Stream)),
        Sink::File { path, sync, evidence } => {
            Some(FileSink::open(path, *sync, evidence, assurance).map(OpenSink::File))
        }
        Sink::Stderr => Some(StreamSink::open(2).map(OpenSink::Stream)),
        Sink::Journald(_) | Sink::Syslog(_) => None,
    };
    let mut open: Vec<OpenSink> = sinks.iter().filter_map(open).collect::<Result<_, _>>()?;
    if let Some(courier) = courier {
        open.iter_mut().for_each(|sink| sink.send_by(courier));
    }
    let is_mirrored = sinks.iter().any(Sink::is_mirror);
    match open.first_mut() {
        None if is_mirrored => Err(AuditError::OnlyMirrors),
        None => Err(AuditError::NoSink),
        Some(first) => {
            if is_mirrored {
                first.keep_lines();
            }
            Ok(open)
        }
    }
}

/// Writes records to all of them, and when all have accepted them, to the mirrors what the first one has.
pub(super) fn write_all(
    open: &mut [OpenSink],
    mirrors: &mut Mirrors,
    author: &Author<'_>,
    drafts: &[Draft<'_>],
) -> Result<(), AuditError> {
    let written = open.iter_mut().try_for_each(|sink| match sink {
        OpenSink::File(file) => file.write(author, drafts),
        OpenSink::Stream(stream) => drafts.iter().try_for_each(|draft| stream.write(draft)),
    });
    if !mirrors.is_empty() {
        let lines = open.first_mut().map(OpenSink::take_lines).unwrap_or_default();
        match &written {
            Ok(()) => mirrors.repeat(&lines),
            Err(_) => mirrors.pass_over(&lines),
        }
    }
    written
}

impl OpenSink {
    fn keep_lines(&mut self) {
        match self {
            Self::File(file) => file.lines = Some(Vec::new()),
            Self::Stream(stream) => stream.lines = Some(Vec::new()),
        }
    }

    /// What was written since this was asked last.
    pub(super) fn take_lines(&mut self) -> Vec<u8> {
        let lines = match self {
            Self::File(file) => &mut file.lines,
            Self::Stream(stream) => &mut stream.lines,
        };
        lines.as_mut().map(std::mem::take).unwrap_or_default()
    }
}
