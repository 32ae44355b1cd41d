//! `vouchsafe audit --unaudited`: what leaves no record, and why that loses nothing. `tests/cli/audit.rs` runs each line, and
//! holds the list of commands against what the command line has.

use crate::error::Error;
use crate::output;

/// Something that leaves no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unaudited {
    /// The command, without `vouchsafe`; `(any)` for all of them.
    pub command: &'static str,
    /// Of what it does, that which leaves none; empty: anything it does.
    pub case: &'static str,
    /// Why.
    pub why: &'static str,
}

const fn row(command: &'static str, case: &'static str, why: &'static str) -> Unaudited {
    Unaudited { command, case, why }
}

const LOGS: &str = "reads logs, which hold no values; their modes say who may";
const POLICIES: &str = "reads policies, which hold no values";
const NO_STORE: &str = "opens no store";

/// All of it. What is not here leaves at least one record, or does not happen.
pub const UNAUDITED: &[Unaudited] = &[
    row("(any)", "the command line is wrong", "nothing is read"),
    row(
        "(any)",
        "the policy is absent, invalid or not trusted",
        "it says where records go, and nothing is fetched; the agent has a log of its own, and writes policy.refused there",
    ),
    row("(any)", "the log takes no record", "nothing is fetched and nothing is written (status 123)"),
    row("run", "the command is not found or cannot be executed", "the policy is not asked, and nothing is fetched"),
    row("check", "--offline, --iam", NO_STORE),
    row("explain", "", NO_STORE),
    row("set", "the value or the name is refused", NO_STORE),
    row("rotate", "a name is refused, or none is given", NO_STORE),
    row("init", "", "makes an identity and a store without secrets; its policy begins the log"),
    row("agent status", "", "numbers, policies and stores of the agent, and no secret"),
    row("audit verify", "", LOGS),
    row("audit show", "", LOGS),
    row("audit who-has", "", LOGS),
    row("audit report", "", LOGS),
    row("audit checkpoint", "it is printed, or arrives", "signs what the log holds already"),
    row("policy lint", "", POLICIES),
    row("policy diff", "", POLICIES),
    row("policy test", "", POLICIES),
    row("policy verify", "", POLICIES),
    row("policy schema", "", "prints what is the same everywhere"),
    row("completions", "", "prints what is the same everywhere"),
    row("man", "", "prints what is the same everywhere"),
];

/// Prints it.
///
/// # Errors
/// Standard output cannot be written.
pub(super) fn unaudited() -> Result<(), Error> {
    let rows: Vec<Vec<String>> =
        UNAUDITED.iter().map(|row| [row.command, row.case, row.why].map(Into::into).into()).collect();
    output::print(&output::table(&["COMMAND", "WHERE", "WHY"], &rows))
}
