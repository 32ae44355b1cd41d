//! `vouchsafe audit init`: what the auditor gets from the host of a log: the seed of its seals.

use crate::audit;
use crate::cli;
use crate::error::Error;
use crate::name::show;
use crate::output;

/// Begins the seals of a log.
///
/// # Errors
/// It is sealed already; the recipient is none; a file cannot be written.
pub(super) fn init(options: &cli::AuditInit) -> Result<(), Error> {
    let log = options.log.to_str().ok_or_else(|| cli::UsageError::new("the path of a log is UTF-8", None))?;
    let begun = audit::seal_log(log, &options.auditor, options.seed.as_deref())?;
    let (seed, log) = (show(&begun.seed), show(&options.log));
    let anew = if begun.anew { ", anew: `audit verify` tells that the state was lost" } else { "" };
    let mut text = format!(
        "{log}: sealed from record {} on, as epoch {}{anew}\n{seed}: the seed, which only the auditor can open\n\n\
         Bring the seed to the auditor, who verifies with: vouchsafe audit verify --seed {seed} --identity KEY {log}\n\
         And say in the sink of this log: auditor = \"{}\"   # then nothing is written there that is not sealed\n",
        begun.first, begun.epoch, options.auditor
    );
    if !rustix::process::geteuid().is_root() {
        text.push_str(
            "\nNote: seals hold against whoever takes this user's place later, not against the user himself, who may keep \
             the keys.\n",
        );
    }
    output::print(&text)
}
