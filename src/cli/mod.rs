//! Arguments to one strict struct for each command. Reads no file, no clock and no environment.
//!
//! No option has a default from the environment here and none takes a value: what clap does not know it cannot print in
//! `--help`. Its error messages are rewritten, because they cite what was typed, and a secret typed in the wrong place must
//! not end up on a terminal that is recorded, or in a log of CI.

pub mod agent;
mod audit;
mod rekey;
mod rotate;
mod usage;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

pub use audit::{
    Audit, AuditCheckpoint, AuditCommand, AuditInit, AuditReport, EVENT_RULE, GLOB_RULE, Glob, OutcomeWord, Show,
    Verify, WhoHas, nearest_event,
};
pub use rekey::Rekey;
pub use rotate::{OnlyStep, Rotate};
pub use usage::UsageError;

use crate::error::Format;
use crate::name::{EnvironmentName, ServiceName, VARIABLE_RULE, VariableName};

/// Grants a process exactly the secrets its policy allows, as environment variables and in no other way, and writes every
/// access down first.
#[derive(Debug, Parser)]
#[command(
    name = "vouchsafe",
    version,
    disable_help_subcommand = true,
    max_term_width = 100,
    arg_required_else_help = true
)]
pub struct Cli {
    /// How errors are printed on standard error.
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t = ErrorFormat::Text)]
    pub error_format: ErrorFormat,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// `--error-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ErrorFormat {
    /// Lines for a person.
    Text,
    /// One JSON object.
    Json,
}

impl From<ErrorFormat> for Format {
    fn from(format: ErrorFormat) -> Self {
        match format {
            ErrorFormat::Json => Self::Json,
            ErrorFormat::Text => Self::Text,
        }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Fetch, decrypt, inject, and become the command, or its supervisor.
    Run(Run),
    /// Is this policy valid, reachable, complete, due? Shows no value.
    Check(Check),
    /// What would this user and command get, and why; what of the environment stays and goes? Fetches nothing.
    Explain(Explain),
    /// Names, stores, versions, stages, age. Shows no value.
    List(List),
    /// Write a value: from standard input, a prompt, a file or the generator.
    Set(Set),
    /// Remove an item from its store.
    Remove(Remove),
    /// The versions of an item. Shows no value.
    History(History),
    /// Copy values from one environment's store to another's. Shows no value.
    Copy(Copy),
    /// Encrypt sealed files anew, to the recipients and the KMS key that the policy names now. Shows no value.
    Rekey(Rekey),
    /// Give secrets new values: created, accepted by their targets, proven, and only then current. Shows no value.
    Rotate(Rotate),
    /// Write a first policy, identity and sealed file that work at once.
    Init(Init),
    /// Serve the secrets of this host to its services, over a Unix socket.
    Agent(agent::Agent),
    /// Read and verify audit logs.
    Audit(AuditCommand),
    /// Look at policies themselves.
    #[command(subcommand)]
    Policy(Policy),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    Man,
}

/// Which policy.
#[derive(Debug, Clone, Default, Args)]
pub struct Selection {
    /// The environment, such as prod. Also VOUCHSAFE_ENV.
    #[arg(long, short = 'e', value_name = "ENVIRONMENT")]
    pub env: Option<EnvironmentName>,
    /// The service, such as api. Also VOUCHSAFE_SERVICE.
    #[arg(long, short = 's', value_name = "SERVICE")]
    pub service: Option<ServiceName>,
    /// The policy file. Also VOUCHSAFE_POLICY.
    #[arg(long, short = 'p', value_name = "FILE")]
    pub policy: Option<PathBuf>,
}

/// Who signs what is written to sealed files.
#[derive(Debug, Clone, Default, Args)]
pub struct Signing {
    /// Sign the sealed file that is written, by ssh-keygen, for hosts that demand it: a private key, or a public one whose
    /// private half ssh-agent holds. Also VOUCHSAFE_SIGN_KEY.
    #[arg(long, value_name = "FILE")]
    pub sign_key: Option<PathBuf>,
}

/// `vouchsafe run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Which policy.
    #[command(flatten)]
    pub selection: Selection,
    /// Ask for these secrets only, instead of all that the policy injects.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub only: Option<Vec<VariableName>>,
    /// Whether to go through the agent.
    #[command(flatten)]
    pub through: agent::Through,
    /// Stay as the parent of the command, pass signals on and end as it ends, instead of becoming it. Also `[run] mode`.
    #[arg(long)]
    pub supervise: bool,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// `vouchsafe explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// Which policy.
    #[command(flatten)]
    pub selection: Selection,
    /// Explain these secrets only.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub only: Option<Vec<VariableName>>,
    /// One JSON object.
    #[arg(long)]
    pub json: bool,
    /// The command and its arguments.
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// `vouchsafe check`.
#[derive(Debug, Args)]
pub struct Check {
    /// Which policy.
    #[command(flatten)]
    pub selection: Selection,
    /// Look at the policy and at the modes of the stores' files only; open no store.
    #[arg(long)]
    pub offline: bool,
    /// Print the IAM policy that a command needs on AWS, and nothing else; open no store.
    #[arg(long, value_name = "COMMAND", value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "run")]
    pub iam: Option<IamFor>,
    /// One JSON object.
    #[arg(long)]
    pub json: bool,
}

/// The commands that differ in what they need of AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum IamFor {
    /// `run`, `check`, `list`, and the reading end of `copy`.
    Run,
    /// `set`, and the writing end of `copy`.
    Set,
    /// `remove`.
    Remove,
    /// `history`.
    History,
    /// `rekey`.
    Rekey,
    /// `rotate`.
    Rotate,
    /// `audit checkpoint --send`; the agent needs it besides that of `run`.
    Checkpoint,
}

/// `vouchsafe list`.
#[derive(Debug, Args)]
pub struct List {
    /// Which policy.
    #[command(flatten)]
    pub selection: Selection,
    /// Show what this sealed file holds, as text that git can compare (textconv). Without a policy, or an identity that
    /// opens the file, show who can open it.
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// One JSON object.
    #[arg(long, conflicts_with = "file")]
    pub json: bool,
}

/// `vouchsafe set`.
#[derive(Debug, Args)]
pub struct Set {
    /// The name of the secret, as the policy binds it.
    #[arg(value_parser = quiet_name)]
    pub name: VariableName,
    /// Which policy.
    #[command(flatten)]
    pub selection: Selection,
    /// Generate the value, as the policy's `rotate.generate` says.
    #[arg(long, conflicts_with = "from_file")]
    pub generate: bool,
    /// Take the value from this file, byte for byte.
    #[arg(long, value_name = "FILE")]
    pub from_file: Option<PathBuf>,
    /// Keep the final newline of standard input, which is otherwise taken off.
    #[arg(long, conflicts_with_all = ["generate", "from_file"])]
    pub keep_newline: bool,
    /// An empty value is meant.
    #[arg(long)]
    pub allow_empty: bool,
    /// Who signs.
    #[command(flatten)]
    pub signing: Signing,
}

/// `vouchsafe remove`.
#[derive(Debug, Args)]
pub struct Remove {
    /// The name of the secret, as the policy binds it.
    #[arg(value_parser = quiet_name)]
    pub name: VariableName,
    /// Which policy.
    #[command(flatten)]
    pub selection: Selection,
    /// Who signs.
    #[command(flatten)]
    pub signing: Signing,
}

/// `vouchsafe history`.
#[derive(Debug, Args)]
pub struct History {
    /// The name of the secret, as the policy binds it.
    #[arg(value_parser = quiet_name)]
    pub name: VariableName,
    /// Which policy.
    #[command(flatten)]
    pub selection: Selection,
    /// One JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `vouchsafe copy`.
#[derive(Debug, Args)]
pub struct Copy {
    /// The policy file to copy from.
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,
    /// The policy file to copy to.
    #[arg(long, value_name = "FILE")]
    pub to: PathBuf,
    /// The environment of the policy to copy from, where this host demands signatures and not for that one.
    #[arg(long, value_name = "ENV")]
    pub from_env: Option<EnvironmentName>,
    /// The environment of the policy to copy to, likewise.
    #[arg(long, value_name = "ENV")]
    pub to_env: Option<EnvironmentName>,
    /// Write over values that are already there.
    #[arg(long)]
    pub overwrite: bool,
    /// Who signs.
    #[command(flatten)]
    pub signing: Signing,
    /// The names of the secrets, bound by both policies.
    #[arg(required = true, value_name = "NAME", value_parser = quiet_name)]
    pub names: Vec<VariableName>,
}

/// `vouchsafe init`.
#[derive(Debug, Args)]
pub struct Init {
    /// The environment.
    #[arg(long, short = 'e', value_name = "ENVIRONMENT", default_value = "dev")]
    pub env: EnvironmentName,
    /// The service; without it the policy is for every service of the environment.
    #[arg(long, short = 's', value_name = "SERVICE")]
    pub service: Option<ServiceName>,
    /// Where to write `policies/` and `secrets/`.
    #[arg(value_name = "FOLDER", default_value = ".")]
    pub folder: PathBuf,
    /// Where to write the identity. Default: ~/.config/vouchsafe/ENVIRONMENT.key; as root /etc/vouchsafe/ENVIRONMENT.key.
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// Where the policy is to write accesses down; `{uid}` stands for the user. Default: ~/.local/state/vouchsafe/{uid}.jsonl;
    /// as root /var/log/vouchsafe/{uid}.jsonl.
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
}

/// `vouchsafe policy`.
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Check policy files, without looking at stores.
    Lint {
        /// The policy files.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Print the JSON Schema of the policy file.
    Schema,
    /// What changes between two policies, in words: who gains and who loses what. Exit status 0, or 13 if they differ.
    Diff {
        /// The policy as it was.
        #[arg(value_name = "OLD")]
        old: PathBuf,
        /// The policy as it is to be.
        #[arg(value_name = "NEW")]
        new: PathBuf,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Does each policy give what the table FILE.tests beside it expects, and no more? Exit status 0, or 13 if not.
    Test {
        /// The policy files.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Sign a policy and what it extends, by ssh-keygen, for hosts that demand it. Writes FILE.sig beside each file.
    Sign {
        /// The policy file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The key: a private key, or a public one whose private half ssh-agent holds.
        #[arg(long, short = 'k', value_name = "FILE")]
        key: PathBuf,
        /// Sign each sealed file of the policy too, as it lies there: look who wrote it first.
        #[arg(long)]
        sealed_files: bool,
    },
    /// Would this host use the policy, and who answers for it?
    Verify {
        /// The policy file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The host file whose `[trust]` counts. Default: /etc/vouchsafe/host.toml.
        #[arg(long, value_name = "FILE")]
        host: Option<PathBuf>,
        /// The policy's environment, as `run` would be told it: without it, nothing unsigned is looked into.
        #[arg(long, value_name = "ENV")]
        env: Option<EnvironmentName>,
    },
}

/// A name in a place where somebody may type the value instead: the text is not cited.
fn quiet_name(text: &str) -> Result<VariableName, &'static str> {
    VariableName::new(text).map_err(|_| VARIABLE_RULE)
}

/// What parsing leads to.
#[derive(Debug)]
pub enum Parsed {
    /// A command.
    Command(Box<Cli>),
    /// Help or version, for standard output.
    Text(String),
}

/// Parses the arguments, the program's own name first.
///
/// # Errors
/// The command line is wrong.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Parsed, UsageError> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if let Some(run) = parse_run(&arguments) {
        return Ok(Parsed::Command(Box::new(run)));
    }
    let mut definition = Cli::command();
    let parsed =
        definition.try_get_matches_from_mut(&arguments).and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches));
    // Most often the next thing is the exec, which forgets everything at once: taking the definition apart is for nothing.
    std::mem::forget(definition);
    match parsed {
        Ok(cli) => Ok(Parsed::Command(Box::new(cli))),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(Parsed::Text(error.render().to_string())),
            _ => Err(UsageError::of(&error, &arguments)),
        },
    }
}

/// What a start of a program needs of [`Cli`], which takes longer to put together than all else that `run` does before it
/// asks for secrets.
#[derive(Debug, Parser)]
#[command(name = "vouchsafe", disable_help_subcommand = true)]
struct OnlyRun {
    #[arg(long, global = true, value_enum, default_value_t = ErrorFormat::Text)]
    error_format: ErrorFormat,
    #[command(subcommand)]
    command: RunCommand,
}

#[derive(Debug, Subcommand)]
enum RunCommand {
    Run(Run),
}

/// `vouchsafe run` where there is nothing wrong with it and no help is wanted; all else is for [`Cli`] to say.
fn parse_run(arguments: &[OsString]) -> Option<Cli> {
    if arguments.get(1).is_none_or(|verb| verb != "run") {
        return None;
    }
    let mut definition = OnlyRun::command();
    let parsed = definition.try_get_matches_from_mut(arguments);
    let parsed = parsed.and_then(|mut matches| OnlyRun::from_arg_matches_mut(&mut matches));
    std::mem::forget(definition);
    let OnlyRun { error_format, command: RunCommand::Run(run) } = parsed.ok()?;
    Some(Cli { error_format, command: Command::Run(run) })
}

/// The definition of the command line, for completions and the manual.
#[must_use]
pub fn definition() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Cause;

    fn parse(line: &[&str]) -> Result<Parsed, UsageError> {
        super::parse(std::iter::once("vouchsafe").chain(line.iter().copied()).map(OsString::from))
    }

    #[test]
    fn the_definition_is_sound() {
        definition().debug_assert();
    }

    #[test]
    fn a_run_is_understood_the_same_without_the_other_commands() {
        let lines = [
            &["run", "--", "x"][..],
            &["run", "-e", "prod", "-s", "api", "--only", "A,B", "--only=C", "--", "x", "--env", "y", "--"],
            &["run", "--error-format", "json", "--policy=p.toml", "--supervise", "--", "run", "run"],
            &["run", "--error-format=json", "--agent=/s", "--env=prod", "--", "x"],
            &["run", "--agent", "--", "x"],
            &["run", "--no-agent", "-eprod", "--", ""],
        ];
        for line in lines {
            let line: Vec<OsString> = ["vouchsafe"].iter().chain(line).map(OsString::from).collect();
            let lean = parse_run(&line).unwrap();
            let full = Cli::try_parse_from(&line).unwrap();
            assert_eq!(format!("{lean:?}"), format!("{full:?}"), "{line:?}");
        }
        for line in [
            &["run"][..],
            &["run", "--help"],
            &["run", "-h"],
            &["run", "-V"],
            &["run", "x"],
            &["run", "--nope", "--", "x"],
        ] {
            let line: Vec<OsString> = ["vouchsafe"].iter().chain(line).map(OsString::from).collect();
            assert!(parse_run(&line).is_none() && Cli::try_parse_from(&line).is_err(), "{line:?}");
        }
        let (lean, full) = (OnlyRun::command(), definition());
        let arguments = |command: &clap::Command| {
            let run = command.find_subcommand("run").unwrap();
            run.get_arguments().map(|argument| format!("{argument:?}")).collect::<Vec<_>>()
        };
        assert_eq!(arguments(&lean), arguments(&full));
    }

    #[test]
    fn no_option_takes_anything_from_the_environment() {
        fn walk(command: &clap::Command) {
            // clap's `env` feature is off, so an argument has no way to name a variable; this holds the other half.
            for argument in command.get_arguments() {
                assert!(!argument.get_default_values().iter().any(|value| value.to_string_lossy().contains('$')));
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&definition());
    }

    #[test]
    fn a_value_in_the_wrong_place_is_not_cited() {
        for line in [
            &["set", "NAME", "hunter2"][..],
            &["set", "hun-ter2"],
            &["set", "--from-file=x", "--hunter2=hunter2"],
            &["run", "--only", "hun-ter2", "--", "x"],
            &["run", "--env", "hun/ter2", "--", "x"],
            &["set", "NAME", "--generate=hunter2"],
        ] {
            let error = parse(line).unwrap_err();
            let text = format!("{error} {:?}", error.hint());
            let cited = text.replace("--hunter2`", "");
            assert!(!cited.contains("hunter2") && !cited.contains("hun-ter2") && !cited.contains("hun/ter2"), "{text}");
        }
    }

    #[test]
    fn everything_after_the_dashes_belongs_to_the_child() {
        let Ok(Parsed::Command(cli)) = parse(&["run", "--env", "prod", "--", "cmd", "--env", "x", "--", "-h"]) else {
            panic!("does not parse")
        };
        let Command::Run(run) = cli.command else { panic!("not run") };
        assert_eq!(run.command, ["cmd", "--env", "x", "--", "-h"]);
        assert_eq!(run.selection.env.unwrap().as_str(), "prod");
    }
}
