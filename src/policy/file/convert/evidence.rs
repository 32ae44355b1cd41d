//! What a sink of type `file` says about seals and checkpoints.

use std::path::PathBuf;
use std::time::Duration;

use super::Context;
use super::values::Zero;
use crate::policy::file::raw::{At, RawCheckpoints, RawSink};
use crate::policy::model::{Anchor, Checkpoints, Evidence};

pub(super) fn evidence(raw: &RawSink, context: &mut Context<'_>) -> Evidence {
    Evidence {
        auditor: raw.auditor.as_ref().and_then(|at| context.line("auditor", at)),
        checkpoints: raw.checkpoints.as_ref().and_then(|at| checkpoints(at, context)),
    }
}

fn checkpoints(at: &At<RawCheckpoints>, context: &mut Context<'_>) -> Option<Checkpoints> {
    let raw = &at.value;
    let every = match &raw.every {
        None => 1000,
        Some(at) => u64::try_from(at.value).ok().filter(|every| *every > 0).unwrap_or_else(|| {
            context.findings.wrong(at, "`every` is a number of records, 1 or more");
            1
        }),
    };
    let interval = raw.interval.as_ref().and_then(|at| context.duration(at, Zero::Refused));
    let Some(to) = &raw.to else {
        context
            .findings
            .wrong(at, "the checkpoints go nowhere: there is no `to`")
            .hint("to = [\"syslog\"]   # or \"file:PATH\", \"fd:NUMBER\", \"command:PATH\"");
        return None;
    };
    context.not_empty("to", to);
    let to = to.value.iter().filter_map(|at| anchor(at, context)).collect();
    Some(Checkpoints { every, interval: interval.unwrap_or(Duration::from_secs(60)), to })
}

fn anchor(at: &At<String>, context: &mut Context<'_>) -> Option<Anchor> {
    let text = at.as_str();
    let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
    let absolute = || Some(PathBuf::from(rest)).filter(|path| path.is_absolute() && !rest.contains('\0'));
    let found = match kind {
        "command" => absolute().map(Anchor::Command),
        "fd" => rest.parse().ok().filter(|fd| (3..1 << 20).contains(fd)).map(Anchor::Fd),
        "file" => absolute().map(Anchor::File),
        "syslog" if rest.is_empty() && text == kind => Some(Anchor::Syslog("/dev/log".into())),
        "syslog" => absolute().map(Anchor::Syslog),
        _ => None,
    };
    if found.is_none() {
        context.findings.wrong(
            at,
            "a checkpoint goes to `file:PATH`, `fd:NUMBER` (3 or above), `syslog`, `syslog:SOCKET` or `command:PATH`, each \
             path absolute",
        );
    }
    found
}
