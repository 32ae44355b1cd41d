//! A wrong command line, said without citing what was typed.
//!
//! clap's own messages cite it; a secret typed in the wrong place must not end up on a terminal that is recorded, or in a
//! log of CI. So only options are named, and what they want.

use std::ffi::OsString;
use std::fmt;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::{EVENT_RULE, GLOB_RULE, definition, nearest_event};
use crate::audit::read::{Wanted, When};
use crate::error::{Cause, Class, suggest};
use crate::name::{LABEL_RULE, VARIABLE_RULE, escape};

/// The command line is wrong. Cites options and what they want, never a word that could be a value.
#[derive(Debug)]
pub struct UsageError {
    message: String,
    hint: Option<String>,
}

impl UsageError {
    /// A wrong command line that only the command itself can see.
    #[must_use]
    pub fn new(message: impl Into<String>, hint: Option<String>) -> Self {
        Self { message: message.into(), hint }
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Cause for UsageError {
    fn class(&self) -> Class {
        Class::Usage
    }

    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}

/// The command that the arguments begin with, as `audit init`: what help to offer.
fn verbs_of(arguments: &[OsString]) -> Vec<String> {
    let own =
        arguments.iter().skip(1).take_while(|argument| *argument != "--").filter_map(|argument| argument.to_str());
    let known = definition();
    let (mut at, mut verbs) = (&known, Vec::new());
    for word in own {
        if let Some(verb) = at.find_subcommand(word) {
            verbs.push(verb.get_name().to_owned());
            at = verb;
        }
    }
    verbs
}

/// Why clap's own suggestion is not taken: it finds `init` near to `printenv`.
fn verb_like(typed: &str) -> Option<String> {
    // What others call it. First of all the one that is not there on purpose: `get` is near to `set`.
    match typed {
        "get" | "read" | "show" | "export" | "env" | "print" | "cat" => {
            return Some("no command prints a value: vouchsafe run --env ENVIRONMENT -- printenv NAME".into());
        }
        "exec" => return Some("vouchsafe run --env ENVIRONMENT -- COMMAND [ARGUMENT...]".into()),
        "write" | "put" | "add" | "edit" => return Some("vouchsafe set NAME --env ENVIRONMENT".into()),
        "delete" | "rm" | "unset" => return Some("vouchsafe remove NAME --env ENVIRONMENT".into()),
        "ls" => return Some("vouchsafe list --env ENVIRONMENT".into()),
        _ => {}
    }
    let known = definition();
    let names: Vec<&str> = known.get_subcommands().map(clap::Command::get_name).collect();
    suggest(typed, names).map(|name| format!("did you mean `{name}`?"))
}

impl UsageError {
    pub(super) fn of(error: &clap::Error, arguments: &[OsString]) -> Self {
        let verbs = verbs_of(arguments);
        let verb = verbs.first();
        let ends_in_dashes = arguments.last().is_some_and(|last| last == "--");
        let argument = context(error, ContextKind::InvalidArg);
        let is_option = argument.starts_with('-');
        let starts_a_command = matches!(verb.map(String::as_str), Some("run" | "explain"));
        let hint = match error.kind() {
            ErrorKind::UnknownArgument if !is_option && starts_a_command => {
                Some("the command stands after `--`: vouchsafe run --env ENVIRONMENT -- COMMAND [ARGUMENT...]".into())
            }
            ErrorKind::UnknownArgument if !is_option && verb.is_some_and(|verb| verb == "set") => Some(
                "a value is never an argument, where `ps` and the shell's history would keep it: \
                 use standard input or --from-file"
                    .into(),
            ),
            ErrorKind::UnknownArgument => suggestion(error, ContextKind::SuggestedArg),
            ErrorKind::InvalidSubcommand => verb_like(&context(error, ContextKind::InvalidSubcommand)).or_else(|| {
                verb.is_none().then(|| "to run a command write: vouchsafe run --env ENVIRONMENT -- COMMAND".into())
            }),
            // As the entrypoint of an image: what should have followed is the image's CMD.
            ErrorKind::MissingRequiredArgument if argument.contains("COMMAND") && ends_in_dashes => Some(
                "nothing follows `--`; in an image, ENTRYPOINT takes the CMD of the image below away: write CMD again \
                 after it"
                    .into(),
            ),
            ErrorKind::MissingRequiredArgument if argument.contains("COMMAND") => {
                Some("vouchsafe run --env ENVIRONMENT -- COMMAND [ARGUMENT...]".into())
            }
            ErrorKind::ValueValidation if argument.contains("ENVIRONMENT") || argument.contains("SERVICE") => {
                Some(LABEL_RULE.into())
            }
            ErrorKind::ValueValidation if argument.contains("NAME[@VERSION]") => Some(Wanted::RULE.into()),
            ErrorKind::ValueValidation if argument.contains("NAME") => Some(VARIABLE_RULE.into()),
            ErrorKind::ValueValidation if argument.contains("WHEN") => Some(When::RULE.into()),
            ErrorKind::ValueValidation if argument.contains("GLOB") => Some(GLOB_RULE.into()),
            ErrorKind::ValueValidation if argument.contains("UID") => {
                Some("a number: $(id -u NAME) gives that of a user".into())
            }
            ErrorKind::ValueValidation if argument.contains("RECIPIENT") => {
                Some("an age recipient, as `age-keygen -y KEY` prints it: age1...".into())
            }
            ErrorKind::ValueValidation if argument.contains("EVENT") => {
                let nearest = nearest_event(&context(error, ContextKind::InvalidValue));
                Some(nearest.map_or_else(|| EVENT_RULE.into(), |event| format!("did you mean `{event}`?")))
            }
            _ => None,
        };
        let argument = escape(&plain_argument(&argument));
        let message = match error.kind() {
            ErrorKind::UnknownArgument if is_option => format!("there is no option `{argument}` here"),
            ErrorKind::UnknownArgument => "there is an argument too many (not shown, it may be a value)".into(),
            ErrorKind::InvalidSubcommand => {
                format!("there is no command `{}`", escape(&context(error, ContextKind::InvalidSubcommand)))
            }
            ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                "no command is given".into()
            }
            ErrorKind::MissingRequiredArgument => format!("missing: `{argument}`"),
            ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
                let wanted = context(error, ContextKind::ValidValue);
                let wanted = if wanted.is_empty() { String::new() } else { format!("; one of: {wanted}") };
                format!("what `{argument}` was given is not valid (not shown){wanted}")
            }
            ErrorKind::ArgumentConflict => {
                let other = plain_argument(&context(error, ContextKind::PriorArg));
                match (argument.is_empty(), other.is_empty()) {
                    (true, _) => format!("`{}` stands by itself", escape(&other)),
                    (_, true) => format!("`{argument}` stands by itself"),
                    (false, false) => format!("`{argument}` cannot stand beside `{}`", escape(&other)),
                }
            }
            ErrorKind::NoEquals => format!("`{argument}` wants its value after `=`"),
            ErrorKind::TooManyValues | ErrorKind::TooFewValues | ErrorKind::WrongNumberOfValues => {
                format!("`{argument}` was given the wrong number of values")
            }
            _ => "the command line is wrong".into(),
        };
        let help = || ["vouchsafe"].into_iter().chain(verbs.iter().map(String::as_str)).chain(["--help"]);
        let help = || help().collect::<Vec<_>>().join(" ");
        Self { message, hint: Some(hint.unwrap_or_else(help)) }
    }
}

/// `--env <ENVIRONMENT>` is `--env`, `<COMMAND>...` is `COMMAND`, `[NAME]...` is `NAME`, `--x=y` is `--x`; several keep their commas.
fn plain_argument(text: &str) -> String {
    let plain = |one: &str| {
        let first = one.split(['=', ' ']).next().unwrap_or_default();
        let first = first.trim_end_matches("...");
        let inside = |open, close| first.strip_prefix(open).and_then(|rest| rest.strip_suffix(close));
        // One pair: what is optional may have brackets of its own.
        inside('<', '>').or_else(|| inside('[', ']')).unwrap_or(first).to_owned()
    };
    text.split(", ").map(plain).collect::<Vec<_>>().join("`, `")
}

fn context(error: &clap::Error, kind: ContextKind) -> String {
    match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        _ => String::new(),
    }
}

fn suggestion(error: &clap::Error, kind: ContextKind) -> Option<String> {
    let nearest = context(error, kind);
    (!nearest.is_empty()).then(|| format!("did you mean `{nearest}`?"))
}
