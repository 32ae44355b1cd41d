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

use schemars::JsonSchema;
use serde::Serialize;

use crate::audit::verify::{Anchors, Means, Report, Seals, Start, State, verify};
use crate::cli;
use crate::error::Error;
use crate::inject::ParentEnv;
use crate::output;

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
/// A log cannot be read; `verify` found something; `who-has --stale` did; there is no policy to report on.
pub fn audit(options: &cli::AuditCommand, parent: &ParentEnv) -> Result<(), Error> {
    let Some(command) = &options.command else { return unaudited::unaudited() };
    match command {
        cli::Audit::Report(options) => report::report(options, parent),
        cli::Audit::Show(options) => show::show(options),
        cli::Audit::Checkpoint(options) => checkpoint::checkpoint(options, parent),
        cli::Audit::Init(options) => init::init(options),
        cli::Audit::Verify(options) => verify_logs(options),
        cli::Audit::WhoHas(options) => who_has::who_has(options, parent),
    }
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
            (seen.clock_steps, "step back of the clock"),
            (seen.foreign_lines, "foreign line"),
        ] {
            if count > 0 {
                text.push_str(&format!(", {}", output::count(count, what)));
            }
        }
        output::print(&(text + "\n"))?;
    }
    report.failure().map_or(Ok(()), |failure| Err(failure.into()))
}
