//! `vouchsafe audit`: reading logs. Read-only; a policy is needed only to find logs, and by the report.
//!
//! `verify` is here; `init` begins the seals of a log; `checkpoint` says where one stands; `show`, `who_has` and `report` have files of their own, and `sources` says which logs they read.

mod checkpoint;
mod init;
mod progress;
mod report;
mod show;
mod sources;
mod unaudited;
mod who_has;

use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use crate::audit::verify::{Anchors, Finding, Means, Report, Seals, Start, State, verify};
use crate::cli;
use crate::error::Error;
use crate::inject::ParentEnv;
use crate::output;
use sources::NotALog;

pub use report::PrincipalReport;
pub use unaudited::{UNAUDITED, Unaudited};
pub use who_has::Holding;

/// What `vouchsafe audit verify --json` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Verification {
    /// `intact`, `incomplete` or `tampered`.
    state: &'static str,
    /// Records whose hash fits.
    records: u64,
    /// Chains.
    chains: u64,
    /// Lines of a collected stream that are not ours.
    foreign_lines: u64,
    /// Blocks of bytes that are no record and that a later record accounts for.
    quarantined: u64,
    /// Records whose seal is by the seeds that were given.
    sealed: u64,
    /// Records with a seal that was not checked, or, where seeds were given, that none of them speaks for.
    unproven: u64,
    /// Checkpoints that the logs were compared with.
    checkpoints: u64,
    /// Lines of a log that hold a checkpoint which the key did not sign. Whoever writes to that log could have put them there.
    unverified_checkpoints: u64,
    /// The last record that a checkpoint speaks for.
    anchored: Option<u64>,
    /// How many records of its chain come after it: no checkpoint says anything of them.
    beyond_anchor: Option<u64>,
    /// Notes in the files of checkpoints that are not by the key that was given, or cannot be read.
    other_notes: u64,
    /// Whether there was a head file beside the last log to compare it with.
    head_compared: bool,
    /// How often the clock was set back, by the times of the records.
    clock_steps: u64,
    /// Records in which a writer says that it did not find what the last one had left.
    discontinuities: u64,
    /// The first findings, `path:line: what`.
    findings: Vec<String>,
    /// How many findings there are in all.
    findings_total: u64,
}

impl From<&Report> for Verification {
    fn from(report: &Report) -> Self {
        Self {
            state: match report.state() {
                State::Intact => "intact",
                State::Incomplete => "incomplete",
                State::Tampered => "tampered",
            },
            records: report.records,
            chains: report.streams,
            foreign_lines: report.foreign_lines,
            quarantined: report.quarantined,
            sealed: report.sealed,
            unproven: report.unproven,
            checkpoints: report.checkpoints,
            unverified_checkpoints: report.unverified_checkpoints,
            anchored: report.anchored,
            beyond_anchor: report.beyond_anchor,
            other_notes: report.other_notes,
            head_compared: report.head_compared,
            clock_steps: report.clock_steps,
            discontinuities: report.discontinuities,
            findings: report.findings.iter().map(ToString::to_string).collect(),
            findings_total: report.findings_total,
        }
    }
}

/// Does what `vouchsafe audit` was asked for.
///
/// # Errors
/// A log cannot be read; `verify` found something; `who-has --stale` or `show --exit-status` did; there is no policy to report on.
pub fn audit(options: &cli::AuditCommand, parent: &ParentEnv) -> Result<(), Error> {
    let Some(command) = &options.command else { return unaudited::unaudited() };
    match command {
        cli::Audit::Report(options) => report::report(options, parent),
        cli::Audit::Show(options) => show::show(options, parent),
        cli::Audit::Checkpoint(options) => checkpoint::checkpoint(options, parent),
        cli::Audit::Init(options) => init::init(options),
        cli::Audit::Verify(options) => verify_logs(options),
        cli::Audit::WhoHas(options) => who_has::who_has(options, parent),
    }
}

/// A file that was given by mistake. Bytes in the place of a log that others speak of, a head, seeds or checkpoints, are a finding.
fn wrong_file(options: &cli::Verify, report: &Report) -> Option<NotALog> {
    let is_spoken_of = report.head_compared || !options.seed.is_empty() || !options.checkpoint.is_empty();
    let is_wrong = report.records == 0 && !is_spoken_of && report.state() == State::Tampered;
    let no_log = |path: &Path| report.no_logs.iter().any(|(of, _)| of == path);
    let is_known = report.findings_total == report.findings.len() as u64;
    let is_else = |finding: &Finding| finding.kind.is_tampering() && !no_log(&finding.path);
    let is_sound = is_known && !report.findings.iter().any(is_else) && (report.records > 0 || !is_spoken_of);
    let errors = report.no_logs.iter().map(|(path, lines)| NotALog::new(path, *lines));
    errors.into_iter().find(|error| is_wrong || (is_sound && error.is_compressed()))
}

fn verify_logs(options: &cli::Verify) -> Result<(), Error> {
    let start = if options.anywhere { Start::Anywhere } else { Start::Beginning };
    let seals = match options.seed.as_slice() {
        [] => None,
        seeds => Some(Seals::load(seeds, &options.identity)?),
    };
    let anchors = match (options.checkpoint.as_slice(), &options.key) {
        ([], _) | (_, None) => None,
        (files, Some(key)) => Some(Anchors::load(files, key)?),
    };
    let progress = progress::shown(&options.files);
    let is_shown = progress.is_some();
    let report = verify(&options.files, start, Means { seals, anchors, progress });
    if is_shown {
        progress::clear();
    }
    let report = report?;
    if let Some(error) = wrong_file(options, &report) {
        return Err(error.into());
    }
    let seen = Verification::from(&report);
    if options.json {
        output::print_json(&seen)?;
    } else {
        let mut text: String = seen.findings.iter().map(|finding| format!("{finding}\n")).collect();
        text.push_str(&format!(
            "{}: {} in {}",
            seen.state,
            output::count(seen.records, "record"),
            output::count(seen.chains, "chain")
        ));
        for (count, what) in [(seen.sealed, "sealed"), (seen.unproven, "of unproven seal")] {
            if count > 0 {
                text.push_str(&format!(", {count} {what}"));
            }
        }
        for (count, what) in [
            (seen.quarantined, "quarantined torn write"),
            (seen.discontinuities, "noted discontinuity"),
            (seen.checkpoints, "checkpoint"),
            (seen.unverified_checkpoints, "unverified checkpoint"),
            (seen.other_notes, "note that is not by the key"),
            (seen.clock_steps, "step back of the clock"),
            (seen.foreign_lines, "foreign line"),
        ] {
            if count > 0 {
                text.push_str(&format!(", {}", output::count(count, what)));
            }
        }
        if let (Some(last), Some(beyond)) = (seen.anchored, seen.beyond_anchor) {
            text.push_str(&format!(", anchored up to record {last} ({beyond} beyond)"));
        }
        if seen.head_compared {
            text.push_str(", head compared");
        }
        output::print(&(text + "\n"))?;
    }
    report.failure().map_or(Ok(()), |failure| Err(failure.into()))
}
