//! `vouchsafe audit ...`: the arguments of what reads audit logs.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::Selection;
use crate::audit::VerifierKey;
use crate::audit::read::{Wanted, When};
use crate::name::{EnvironmentName, ServiceName};
use crate::policy::pattern::Pattern;

/// `vouchsafe audit`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub struct AuditCommand {
    /// Print what leaves no record in a log, and why.
    #[arg(long)]
    pub unaudited: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Audit>,
}

/// `vouchsafe audit ...`.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Begin the seals of a log: whoever takes the host later cannot rewrite what is in it. Run it as the user that writes
    /// the log.
    Init(AuditInit),
    /// Print the signed statement of where a log stands now, for somebody elsewhere to keep, or send it there. Run it as the
    /// user that writes the log.
    Checkpoint(AuditCheckpoint),
    /// Was a record changed, removed, added or moved? Exit status 0, 11 (tampered) or 12 (incomplete).
    Verify(Verify),
    /// The records as a table, all or those that match.
    Show(Show),
    /// Who got a secret, in which version, and which of those processes still run.
    WhoHas(WhoHas),
    /// What a user could read under the policy, and what the logs say that it read.
    Report(AuditReport),
}

/// `vouchsafe audit init`.
#[derive(Debug, Args)]
pub struct AuditInit {
    /// The auditor's age recipient (age1...), to whom the seed is encrypted.
    #[arg(long, value_name = "RECIPIENT", value_parser = quiet_recipient)]
    pub auditor: String,
    /// Where the seed goes; it must not be there yet. Default: beside the log.
    #[arg(long, value_name = "FILE")]
    pub seed: Option<PathBuf>,
    /// The log. It need not be there yet.
    #[arg(value_name = "LOG")]
    pub log: PathBuf,
}

/// `vouchsafe audit checkpoint`.
#[derive(Debug, Args)]
pub struct AuditCheckpoint {
    /// Print the key that checkpoints of this log are signed by instead, for `audit verify --key`.
    #[arg(long, conflicts_with = "send")]
    pub key: bool,
    /// Take it to where the checkpoints of each log go, by the sinks of the host file, or where that has none, of the policy.
    /// For a timer.
    #[arg(long)]
    pub send: bool,
    /// Whose sinks, with `--send`.
    #[command(flatten)]
    pub selection: Selection,
    /// The log.
    #[arg(value_name = "LOG", required_unless_present = "send", conflicts_with_all = ["send", "policy", "env", "service"])]
    pub log: Option<PathBuf>,
}

/// `vouchsafe audit verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// The log files, oldest first.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// A seed that `audit init` has made, or a writer that lost its state: check the seals too. May be repeated.
    #[arg(long, value_name = "FILE")]
    pub seed: Vec<PathBuf>,
    /// A private age key that opens the seeds. May be repeated.
    #[arg(long, value_name = "FILE", requires = "seed")]
    pub identity: Vec<PathBuf>,
    /// Checkpoints that left the host: notes, or lines of a log that hold them. The logs have to hold every record that one
    /// names, and their clock has to have gone forward. May be repeated.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub checkpoint: Vec<PathBuf>,
    /// The key of the checkpoints, as `audit checkpoint --key` printed it on the host.
    #[arg(long, value_name = "KEY", value_parser = verifier_key, requires = "checkpoint")]
    pub key: Option<VerifierKey>,
    /// The beginning of the log was removed on purpose: its chain may start anywhere.
    #[arg(long)]
    pub anywhere: bool,
    /// One JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `vouchsafe audit show`. A record is shown if it matches every option that is given; one that may be repeated matches if any
/// of its values does.
#[derive(Debug, Args)]
pub struct Show {
    /// The log files, oldest first.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Only records that name this secret; `*` is a wildcard. May be repeated.
    #[arg(long, value_name = "GLOB")]
    pub secret: Vec<Glob>,
    /// Only records of this uid. May be repeated.
    #[arg(long, value_name = "UID")]
    pub uid: Vec<u32>,
    /// Only records about this command: its path, or its last part; `*` is a wildcard. May be repeated.
    #[arg(long, value_name = "GLOB")]
    pub command: Vec<Glob>,
    /// Only these events, such as access.denied or `rotation.*`. May be repeated.
    #[arg(long, value_name = "GLOB")]
    pub event: Vec<Glob>,
    /// Only records that ended like this. May be repeated.
    #[arg(long, value_name = "OUTCOME", value_enum)]
    pub outcome: Vec<OutcomeWord>,
    /// Only records of this environment.
    #[arg(long, short = 'e', value_name = "ENVIRONMENT")]
    pub env: Option<EnvironmentName>,
    /// Only records of this service.
    #[arg(long, short = 's', value_name = "SERVICE")]
    pub service: Option<ServiceName>,
    /// Not before: a time (RFC 3339), or how long ago, such as 2h.
    #[arg(long, value_name = "WHEN")]
    pub since: Option<When>,
    /// Before: a time (RFC 3339), or how long ago, such as 30m.
    #[arg(long, value_name = "WHEN", conflicts_with = "follow")]
    pub until: Option<When>,
    /// Go on with what is appended, also where a log is moved and a new one begins. `--since 0s` shows only what is new.
    #[arg(long, short = 'f')]
    pub follow: bool,
    /// The records as they are, one JSON object on each line.
    #[arg(long)]
    pub json: bool,
}

/// `vouchsafe audit who-has`.
#[derive(Debug, Args)]
pub struct WhoHas {
    /// The name of the secret, and perhaps the one version to look for.
    #[arg(value_name = "NAME[@VERSION]", value_parser = quiet_wanted)]
    pub wanted: Wanted,
    /// The log files, oldest first. Default: those of the host file or the policy, with what was rotated beside them.
    #[arg(value_name = "FILE", conflicts_with = "policy")]
    pub files: Vec<PathBuf>,
    /// Which policy; its environment and service also select records.
    #[command(flatten)]
    pub selection: Selection,
    /// Only what was released since: a time (RFC 3339), or how long ago, such as 30d.
    #[arg(long, value_name = "WHEN")]
    pub since: Option<When>,
    /// Only processes that may still hold another version than the current one; exit status 10 if there are any.
    #[arg(long)]
    pub stale: bool,
    /// One JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `vouchsafe audit report`.
#[derive(Debug, Args)]
pub struct AuditReport {
    /// Whose report: a name in /etc/passwd, or a uid.
    #[arg(long, value_name = "USER")]
    pub principal: String,
    /// What was read since: a time (RFC 3339), or how long ago, such as 30d.
    #[arg(long, value_name = "WHEN")]
    pub since: When,
    /// The log files, oldest first. Default: those of the host file or the policy, with what was rotated beside them.
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Which policy.
    #[command(flatten)]
    pub selection: Selection,
    /// One JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `--outcome`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutcomeWord {
    /// Allowed, and not yet done.
    Allowed,
    /// Refused by policy.
    Denied,
    /// Tried in vain.
    Failed,
    /// Done.
    Succeeded,
    /// An answer was lost.
    Unknown,
}

/// A pattern as the policy has them: `*` is the only wildcard and does not cross `/`.
#[derive(Debug, Clone)]
pub struct Glob(pub Pattern);

impl std::str::FromStr for Glob {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Pattern::new(text).map(Self).map_err(|_| GLOB_RULE)
    }
}

/// What a glob is made of.
pub const GLOB_RULE: &str = "`*` is the only wildcard, and does not cross `/`";

fn verifier_key(text: &str) -> Result<VerifierKey, &'static str> {
    VerifierKey::parse(text).ok_or("no key of checkpoints: NAME+ID+KEY")
}

/// Somebody may type the private key instead: the text is not cited.
fn quiet_recipient(text: &str) -> Result<String, &'static str> {
    crate::store::identity::parse_recipient(text).map(|recipient| recipient.text)
}

/// Somebody may type the value instead: the text is not cited.
fn quiet_wanted(text: &str) -> Result<Wanted, &'static str> {
    Wanted::parse(text).ok_or(Wanted::RULE)
}
