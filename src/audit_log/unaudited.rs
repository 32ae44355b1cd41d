//! `vouchsafe audit --unaudited`: what leaves no record, and why that loses nothing. `tests/cli/unaudited.rs` runs every
//! command to each of its ends, and holds what that leaves against this table.

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
const REFUSED: &str = "the name is refused";
const NO_AGENT: &str = "the agent is not there or does not answer";

/// All of it. What is not here leaves at least one record, or does not happen.
pub const UNAUDITED: &[Unaudited] = &[
    row("(any)", "the command line is wrong", "nothing is read"),
    row(
        "(any)",
        "the policy is absent, invalid or not trusted",
        "it says where records go, and nothing is fetched; the agent has a log of its own, and writes policy.refused there",
    ),
    row("(any)", "the log takes no record", "nothing is fetched and nothing is written (status 123)"),
    row(
        "(any)",
        "it is started set-uid, set-gid or with file capabilities, or cannot keep its memory out of core dumps",
        "it does nothing at all, with rights that are not its caller's least of all",
    ),
    row(
        "run",
        "the command is not found or cannot be executed, or there is no process for its supervisor",
        "the policy is not asked, and nothing is fetched",
    ),
    row(
        "run",
        "the agent that it goes by is not there, does not answer, or is somebody else",
        "nothing is fetched; what reaches the agent is in the log of the agent",
    ),
    row("check", "--offline, --iam", NO_STORE),
    row("explain", "", NO_STORE),
    row("list", "--file without a policy, or of a file that cannot be read", "shows what is public, and opens nothing"),
    row("history", REFUSED, NO_STORE),
    row("set", "the value, the name or the store is refused", NO_STORE),
    row("remove", REFUSED, NO_STORE),
    row("copy", "a name, or a store that it would write to, is refused", NO_STORE),
    row("rotate", "a name is refused, or none is given", NO_STORE),
    row("rekey", "what is asked for is refused, such as removing who is still named", NO_STORE),
    row("rekey", "a store has no file yet", "there is nothing to encrypt anew"),
    row("init", "", "makes an identity and a store without secrets; its policy begins the log"),
    row(
        "agent",
        "it does not start, and not for a policy that it refuses",
        "it serves nobody; why is on standard error",
    ),
    row(
        "agent",
        "somebody asks again who was refused too often of late",
        "he gets nothing and may not fill the log; the refusals before have records, and the metrics count these",
    ),
    row("agent status", "", "numbers, policies and stores of the agent, and no secret"),
    row("agent flush", NO_AGENT, "nothing is forgotten"),
    row("audit", "--unaudited", "prints what is the same everywhere"),
    row("audit init", "the log is sealed already, or cannot be", "opens no store; what begins or ends has its record"),
    row("audit verify", "", LOGS),
    row("audit show", "", LOGS),
    row("audit who-has", "", LOGS),
    row("audit report", "", LOGS),
    row(
        "audit checkpoint",
        "it is printed, or arrives, or there is no log or no sink for it",
        "signs what the log holds already",
    ),
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
