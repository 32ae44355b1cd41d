//! What leaves no record, and what does: every command to each of its ends. Whatever is no row of `audit --unaudited` leaves a
//! record, and what is a row leaves none.

use std::collections::BTreeSet;

use clap::CommandFactory;
use vouchsafe::audit_log::UNAUDITED;

use crate::agent_scene::Agent;
use crate::harness::Scene;

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Done,
    Denied,
    Failed,
    Usage,
}
use End::{Denied, Done, Failed, Usage};

/// What it leaves.
#[derive(Debug, Clone, Copy)]
enum Left {
    /// These records.
    Records(&'static str),
    /// None, as the row of this command and case says.
    Row(&'static str, &'static str),
}
use Left::{Records, Row};

const ANY: &str = "(any)";
const WRONG: Left = Row(ANY, "the command line is wrong");
const NO_POLICY: Left = Row(ANY, "the policy is absent, invalid or not trusted");
const NO_LOG: Left = Row(ANY, "the log takes no record");
const NAME: &str = "the name is refused";
const FILE: &str = "--file without a policy, or of a file that cannot be read";
const COMMAND: &str = "the command is not found or cannot be executed, or there is no process for its supervisor";
const OTHER_AGENT: &str = "the agent that it goes by is not there, does not answer, or is somebody else";
const REKEY: &str = "what is asked for is refused, such as removing who is still named";
const UNSTARTED: &str = "it does not start, and not for a policy that it refuses";
const CHECKPOINT: &str = "it is printed, or arrives, or there is no log or no sink for it";
const UNSEALED: &str = "the log is sealed already, or cannot be";
const NO_AGENT: &str = "the agent is not there or does not answer";
const RELEASED: Left = Records("access.requested allowed, access.released succeeded");
const UNFETCHED: Left = Records("access.requested allowed, access.failed failed");
const DENIED: Left = Records("access.denied denied");
const LISTED: Left = Records("secret.listed allowed");
const UNLISTED: Left = Records("secret.listed allowed, secret.listed failed");
const UNWRITTEN: Left = Records("secret.write_requested allowed, secret.written failed");

/// Command, end, the line, its standard input, its status, and what it leaves. One after the other in one scene.
type Cell = (&'static str, End, &'static str, &'static str, i32, Left);

const CELLS: &[Cell] = &[
    ("run", Done, "run --policy policy.toml -- true", "", 0, RELEASED),
    ("run", Done, "run --agent=agent.sock --env test -- true", "", 0, RELEASED),
    ("run", Denied, "run --policy policy.toml --only NO -- true", "", 120, DENIED),
    ("run", Denied, "run --agent=agent.sock --env test --only NO -- true", "", 120, DENIED),
    ("run", Denied, "run --policy demands.toml --no-agent -- true", "", 120, DENIED),
    ("run", Denied, "run --policy demands.toml --only TOKEN -- no-such", "", 120, DENIED),
    ("run", Denied, "run --policy demands.toml --supervise -- true", "", 120, DENIED),
    ("run", Failed, "run --policy broken.toml -- true", "", 122, UNFETCHED),
    ("run", Failed, "run --policy policy.toml -- no-such", "", 127, Row("run", COMMAND)),
    ("run", Failed, "run --policy policy.toml -- /etc/passwd", "", 126, Row("run", COMMAND)),
    ("run", Failed, "run --agent=none.sock --env test -- true", "", 122, Row("run", OTHER_AGENT)),
    ("run", Failed, "run --policy absent.toml -- true", "", 121, NO_POLICY),
    ("run", Failed, "run --policy policy.toml --env prod -- true", "", 121, NO_POLICY),
    ("run", Failed, "run --policy full.toml -- true", "", 123, NO_LOG),
    ("run", Failed, "run --policy full.toml --only NO -- true", "", 123, NO_LOG),
    ("run", Usage, "run", "", 2, WRONG),
    ("list", Done, "list --policy policy.toml", "", 0, LISTED),
    ("list", Done, "list --policy policy.toml --file sealed.age", "", 0, LISTED),
    ("list", Done, "list --file sealed.age", "", 0, Row("list", FILE)),
    ("list", Failed, "list --policy broken.toml", "", 122, UNLISTED),
    ("list", Failed, "list --policy policy.toml --file broken.age", "", 122, UNLISTED),
    ("list", Failed, "list --policy policy.toml --file absent.age", "", 122, Row("list", FILE)),
    ("list", Failed, "list --policy full.toml", "", 123, NO_LOG),
    ("list", Usage, "list --no-such", "", 2, WRONG),
    ("check", Done, "check --policy policy.toml", "", 0, LISTED),
    ("check", Done, "check --policy policy.toml --offline", "", 0, Row("check", "--offline, --iam")),
    ("check", Done, "check --policy policy.toml --iam", "", 0, Row("check", "--offline, --iam")),
    ("check", Failed, "check --policy broken.toml", "", 122, UNLISTED),
    ("check", Usage, "check --no-such", "", 2, WRONG),
    ("history", Done, "history --policy policy.toml TOKEN", "", 0, LISTED),
    ("history", Failed, "history --policy broken.toml TOKEN", "", 122, UNLISTED),
    ("history", Usage, "history --policy policy.toml NO", "", 2, Row("history", NAME)),
    ("explain", Done, "explain --policy policy.toml -- true", "", 0, Row("explain", "")),
    ("explain", Failed, "explain --policy absent.toml -- true", "", 121, NO_POLICY),
    ("explain", Usage, "explain --no-such", "", 2, WRONG),
    (
        "set",
        Done,
        "set --policy policy.toml TOKEN",
        "x",
        0,
        Records("secret.write_requested allowed, secret.written succeeded"),
    ),
    ("set", Failed, "set --policy broken.toml TOKEN", "x", 122, UNWRITTEN),
    ("set", Failed, "set --policy full.toml TOKEN", "x", 123, NO_LOG),
    ("set", Usage, "set --policy policy.toml TOKEN", "", 2, Row("set", "the value, the name or the store is refused")),
    ("set", Usage, "set --policy policy.toml NO", "x", 2, Row("set", "the value, the name or the store is refused")),
    (
        "copy",
        Done,
        "copy --from policy.toml --to prod.toml TOKEN",
        "",
        0,
        Records(
            "access.requested allowed, access.released succeeded, secret.write_requested allowed, secret.written succeeded",
        ),
    ),
    ("copy", Failed, "copy --from broken.toml --to prod.toml TOKEN", "", 122, UNFETCHED),
    (
        "copy",
        Failed,
        "copy --from policy.toml --to prod.toml TOKEN",
        "",
        2,
        Records(
            "access.requested allowed, access.released succeeded, secret.write_requested allowed, secret.written failed",
        ),
    ),
    (
        "copy",
        Usage,
        "copy --from policy.toml --to prod.toml NO",
        "",
        2,
        Row("copy", "a name, or a store that it would write to, is refused"),
    ),
    (
        "rotate",
        Done,
        "rotate --policy policy.toml SPUN",
        "",
        0,
        Records(
            "secret.listed allowed, rotation.started allowed, rotation.created allowed, rotation.created succeeded, \
             rotation.promoted allowed, rotation.promoted succeeded",
        ),
    ),
    (
        "rotate",
        Failed,
        "rotate --policy broken.toml SPUN",
        "",
        122,
        Records("secret.listed allowed, rotation.started allowed, rotation.failed failed"),
    ),
    ("rotate", Usage, "rotate --policy policy.toml NO", "", 2, Row("rotate", "a name is refused, or none is given")),
    ("rotate", Usage, "rotate --policy policy.toml", "", 2, Row("rotate", "a name is refused, or none is given")),
    ("rekey", Done, "rekey --policy fresh.toml", "", 0, Row("rekey", "a store has no file yet")),
    (
        "rekey",
        Done,
        "rekey --policy policy.toml",
        "",
        0,
        Records("secret.write_requested allowed, secret.rekeyed succeeded"),
    ),
    (
        "rekey",
        Failed,
        "rekey --policy broken.toml",
        "",
        122,
        Records("secret.write_requested allowed, secret.rekeyed failed"),
    ),
    ("rekey", Failed, "rekey --policy policy.toml --remove RECIPIENT", "", 121, Row("rekey", REKEY)),
    ("rekey", Usage, "rekey --policy policy.toml --remove nonsense", "", 2, Row("rekey", REKEY)),
    ("rekey", Usage, "rekey --policy policy.toml --store nope", "", 2, Row("rekey", REKEY)),
    ("init", Done, "init --identity new/dev.key --log new.jsonl new", "", 0, Row("init", "")),
    ("init", Failed, "init --identity new/dev.key --log new.jsonl new", "", 2, Row("init", "")),
    ("init", Usage, "init --no-such", "", 2, WRONG),
    ("agent", Failed, "agent --policies absent --host host.toml --socket x.sock", "", 121, Row("agent", UNSTARTED)),
    ("agent", Failed, "agent --policies served --host bare.toml --socket x.sock", "", 123, Row("agent", UNSTARTED)),
    (
        "agent",
        Failed,
        "agent --policies bad --host other.toml --socket x.sock",
        "",
        121,
        Records("policy.refused failed"),
    ),
    ("agent", Usage, "agent --no-such", "", 2, WRONG),
    ("agent status", Done, "agent status --socket agent.sock", "", 0, Row("agent status", "")),
    ("agent status", Failed, "agent status --socket none.sock", "", 122, Row("agent status", "")),
    ("agent status", Usage, "agent status --no-such", "", 2, WRONG),
    ("agent flush", Done, "agent flush --socket agent.sock", "", 0, Records("agent.flushed succeeded")),
    ("agent flush", Failed, "agent flush --socket agent.sock --env other", "", 121, Records("agent.flushed failed")),
    ("agent flush", Failed, "agent flush --socket none.sock", "", 122, Row("agent flush", NO_AGENT)),
    ("agent flush", Usage, "agent flush --no-such", "", 2, WRONG),
    ("audit", Done, "audit --unaudited", "", 0, Row("audit", "--unaudited")),
    ("audit", Usage, "audit", "", 2, WRONG),
    ("audit verify", Done, "audit verify audit.jsonl", "", 0, Row("audit verify", "")),
    ("audit verify", Failed, "audit verify absent", "", 123, Row("audit verify", "")),
    ("audit verify", Usage, "audit verify", "", 2, WRONG),
    ("audit show", Done, "audit show audit.jsonl", "", 0, Row("audit show", "")),
    ("audit show", Failed, "audit show absent", "", 123, Row("audit show", "")),
    ("audit show", Usage, "audit show --event odd audit.jsonl", "", 2, WRONG),
    ("audit who-has", Done, "audit who-has TOKEN audit.jsonl", "", 0, Row("audit who-has", "")),
    ("audit who-has", Failed, "audit who-has TOKEN absent", "", 123, Row("audit who-has", "")),
    ("audit who-has", Usage, "audit who-has", "", 2, WRONG),
    (
        "audit report",
        Done,
        "audit report --policy policy.toml --principal root --since 1d audit.jsonl",
        "",
        0,
        Row("audit report", ""),
    ),
    (
        "audit report",
        Failed,
        "audit report --policy policy.toml --principal root --since 1d absent",
        "",
        123,
        Row("audit report", ""),
    ),
    ("audit report", Usage, "audit report", "", 2, WRONG),
    ("audit checkpoint", Done, "audit checkpoint audit.jsonl", "", 0, Row("audit checkpoint", CHECKPOINT)),
    ("audit checkpoint", Failed, "audit checkpoint none/absent", "", 123, Row("audit checkpoint", CHECKPOINT)),
    (
        "audit checkpoint",
        Failed,
        "audit checkpoint --send --policy policy.toml",
        "",
        2,
        Row("audit checkpoint", CHECKPOINT),
    ),
    (
        "audit checkpoint",
        Failed,
        "audit checkpoint --send --policy unsent.toml",
        "",
        123,
        Records("audit.checkpoint_failed failed"),
    ),
    ("audit checkpoint", Usage, "audit checkpoint", "", 2, WRONG),
    ("policy lint", Done, "policy lint policy.toml", "", 0, Row("policy lint", "")),
    ("policy lint", Failed, "policy lint absent", "", 121, Row("policy lint", "")),
    ("policy lint", Usage, "policy lint", "", 2, WRONG),
    ("policy schema", Done, "policy schema", "", 0, Row("policy schema", "")),
    ("policy schema", Usage, "policy schema --no-such", "", 2, WRONG),
    ("policy diff", Done, "policy diff policy.toml policy.toml", "", 0, Row("policy diff", "")),
    ("policy diff", Failed, "policy diff policy.toml absent", "", 121, Row("policy diff", "")),
    ("policy diff", Usage, "policy diff policy.toml", "", 2, WRONG),
    ("policy test", Done, "policy test policy.toml", "", 0, Row("policy test", "")),
    ("policy test", Failed, "policy test prod.toml", "", 121, Row("policy test", "")),
    ("policy test", Usage, "policy test", "", 2, WRONG),
    (
        "policy sign",
        Failed,
        "policy sign policy.toml --key absent",
        "",
        124,
        Records("policy.signed allowed, policy.signed failed"),
    ),
    ("policy sign", Failed, "policy sign full.toml --key absent", "", 123, NO_LOG),
    ("policy sign", Usage, "policy sign policy.toml", "", 2, WRONG),
    ("policy verify", Failed, "policy verify policy.toml --host bare.toml", "", 121, Row("policy verify", "")),
    ("policy verify", Usage, "policy verify", "", 2, WRONG),
    ("completions", Done, "completions bash", "", 0, Row("completions", "")),
    ("completions", Usage, "completions cobol", "", 2, WRONG),
    ("man", Done, "man", "", 0, Row("man", "")),
    ("man", Usage, "man --no-such", "", 2, WRONG),
    (
        "remove",
        Done,
        "remove --policy policy.toml TOKEN",
        "",
        0,
        Records("secret.write_requested allowed, secret.removed succeeded"),
    ),
    (
        "remove",
        Failed,
        "remove --policy policy.toml TOKEN",
        "",
        122,
        Records("secret.write_requested allowed, secret.removed failed"),
    ),
    ("remove", Usage, "remove --policy policy.toml NO", "", 2, Row("remove", NAME)),
    // Last: the log has seals from here on.
    ("audit init", Done, "audit init --auditor RECIPIENT audit.jsonl", "", 0, Records("audit.sealing_begun succeeded")),
    ("audit init", Failed, "audit init --auditor RECIPIENT audit.jsonl", "", 123, Row("audit init", UNSEALED)),
    ("audit init", Usage, "audit init audit.jsonl", "", 2, WRONG),
];

/// What takes more than a line here, and the test that has it.
const ELSEWHERE: &[(&str, End)] = &[
    ("agent", Done),          // below: its start
    ("agent status", Denied), // integration/agent.rs: an_open_socket_lets_nobody_in
    ("agent flush", Denied),  // the same
    ("policy sign", Done),    // integration/signed.rs: what_we_sign_ssh_keygen_verifies_and_the_other_way_round
    ("policy verify", Done),  // the same
];

/// Rows that take more than a line here.
const ROWS_ELSEWHERE: [&str; 2] = [
    "it is started set-uid, set-gid or with file capabilities, or cannot keep its memory out of core dumps",
    "somebody asks again who was refused too often of late",
];

/// A policy denies what goes to a child, and the agent whom it does not serve. Of the rest nothing is asked of a policy.
fn can_be(command: &str, end: End) -> bool {
    match end {
        Denied => matches!(command, "run" | "agent status" | "agent flush"),
        Failed => !matches!(command, "audit" | "policy schema" | "completions" | "man"),
        Done | Usage => true,
    }
}

/// Every command that does something by itself.
fn leaves(command: &clap::Command, words: &str, found: &mut Vec<String>) {
    let has_its_own = command.get_arguments().any(|one| !matches!(one.get_id().as_str(), "help" | "error_format"));
    if !words.is_empty() && (has_its_own || !command.has_subcommands()) {
        found.push(words.to_owned());
    }
    for one in command.get_subcommands().filter(|one| one.get_name() != "help") {
        leaves(one, format!("{words} {}", one.get_name()).trim_start(), found);
    }
}

#[test]
fn every_end_of_every_command_is_a_record_or_a_row() {
    let mut commands = Vec::new();
    leaves(&vouchsafe::cli::Cli::command(), "", &mut commands);
    assert!(commands.len() > 20, "{commands:?}");
    let cells: BTreeSet<(&str, End)> =
        CELLS.iter().map(|cell| (cell.0, cell.1)).chain(ELSEWHERE.iter().copied()).collect();
    for command in &commands {
        for end in [Done, Denied, Failed, Usage] {
            let is_there = cells.contains(&(command.as_str(), end));
            assert_eq!(is_there, can_be(command, end), "`{command}` to the end {end:?}: what does that leave?");
        }
    }
    for row in UNAUDITED {
        assert!(row.command == ANY || commands.iter().any(|command| command == row.command), "{}", row.command);
        let is_run = CELLS.iter().any(|cell| matches!(cell.5, Row(of, case) if (of, case) == (row.command, row.case)));
        assert!(is_run || ROWS_ELSEWHERE.contains(&row.case), "nothing shows that this is true: {row:?}");
    }
    let printed = Scene::new().vouchsafe(&["audit", "--unaudited"]).expect_status(0);
    assert_eq!(printed.out().lines().count(), UNAUDITED.len() + 1);
}

/// The records of both logs.
fn records(scene: &Scene) -> [Vec<String>; 2] {
    ["audit.jsonl", "agent.jsonl"].map(|log| {
        let text = std::fs::read_to_string(scene.path(log)).unwrap_or_default();
        let event = |line: &str| {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            format!("{} {}", record["event"].as_str().unwrap(), record["outcome"].as_str().unwrap())
        };
        text.lines().map(event).collect()
    })
}

#[test]
fn each_leaves_what_is_said() {
    let scene = Scene::sealed(&["TOKEN"]).and("SPUN = { rotate = { every = \"30d\" } }");
    for name in ["TOKEN", "SPUN"] {
        scene.verb_reading(&["set", name], b"x").expect_status(0);
    }
    let good = std::fs::read_to_string(scene.write_policy()).unwrap();
    scene.write("broken.age", b"x");
    let variant = |name: &str, from: &str, to: &str| {
        assert!(good.contains(from));
        scene.write(name, good.replace(from, to).as_bytes());
    };
    variant("broken.toml", "sealed.age", "broken.age");
    variant("fresh.toml", "sealed.age", "fresh.age");
    variant("full.toml", &scene.path("audit.jsonl").display().to_string(), "/dev/full");
    variant("unsent.toml", "sync = false\n", "sync = false\ncheckpoints = { to = [\"file:/dev/full\"] }\n");
    variant("demands.toml", "version = 1\n", "version = 1\nrun.agent = \"require\"\n");
    scene.write("prod.toml", good.replace("\"test\"", "\"prod\"").replace("sealed.age", "prod.age").as_bytes());
    scene.write("policy.toml.tests", b"[[tests]]\nuser = \"nobody-here\"\ngranted = [\"TOKEN\", \"SPUN\"]\n");
    scene.write("bare.toml", b"");
    scene.write("bad/test.toml", b"nonsense");
    let log = scene.path("audit.jsonl").display().to_string();
    scene.write("other.toml", format!("[[audit.sinks]]\ntype = \"file\"\npath = \"{log}\"\nsync = false\n").as_bytes());
    std::fs::create_dir(scene.path("new")).unwrap();
    let agent = Agent::start(&scene);
    assert_eq!(agent.events(), ["agent.started", "policy.loaded"]);
    let mut wrong = Vec::new();
    for (command, end, line, input, status, left) in CELLS {
        let recipient = scene.recipient();
        let words: Vec<&str> =
            line.split_whitespace().map(|word| if word == "RECIPIENT" { &recipient } else { word }).collect();
        let before = records(&scene);
        let outcome = scene.vouchsafe_reading(&words, input.as_bytes());
        let after = records(&scene);
        let new: Vec<&str> = before
            .iter()
            .zip(&after)
            .flat_map(|(before, after)| after[before.len()..].iter().map(String::as_str))
            .collect();
        let expected = match left {
            Records(events) => *events,
            Row(of, case) => {
                assert!(*of == ANY || of == command, "{line}");
                let is_row = UNAUDITED.iter().any(|row| (row.command, row.case) == (*of, *case));
                assert!(is_row, "there is no such row: {of}, {case}");
                ""
            }
        };
        if (outcome.status.code(), new.join(", ").as_str()) != (Some(*status), expected) {
            wrong.push(format!("{command} to the end {end:?} left {new:?}: {}", outcome.transcript()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    agent.end();
}
