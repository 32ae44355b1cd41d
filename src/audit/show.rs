//! Logs for people: one row for each record. A line that is no record is a row too, marked `?`, and stops nothing.

use std::borrow::Cow;
use std::io::{self, BufRead, Write};

use serde::Deserialize;

use crate::name::escape;

/// How records are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The lines themselves.
    Json,
    /// Time, event, outcome, user, command, secrets.
    Table,
}

/// Shows every line of `log`.
///
/// # Errors
/// Reading or writing fails. A malformed line is no error.
pub fn show(log: &mut impl BufRead, form: Form, out: &mut impl Write) -> io::Result<()> {
    if form == Form::Table {
        row(out, &["TIME", "EVENT", "OUTCOME", "USER", "COMMAND", "SECRETS"].map(Cow::Borrowed))?;
    }
    let mut line = Vec::new();
    loop {
        line.clear();
        if io::Read::take(&mut *log, LINE_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        line.pop_if(|byte| *byte == b'\n');
        match form {
            Form::Json if line.iter().all(|byte| matches!(byte, b' '..=b'~')) => {
                out.write_all(&line)?;
                out.write_all(b"\n")?;
            }
            Form::Json => writeln!(out, "{}", ascii(&String::from_utf8_lossy(&line)))?,
            Form::Table => match serde_json::from_slice(&line) {
                Ok(record) => row(out, &columns(&record))?,
                Err(_) => row(out, &["?"; 6].map(Cow::Borrowed))?,
            },
        }
    }
}

/// A line that a terminal could misread: no record of ours is one.
fn ascii(text: &str) -> String {
    text.chars().flat_map(|c| if matches!(c, ' '..='~') { vec![c] } else { c.escape_default().collect() }).collect()
}

const LINE_MAX: u64 = 17 * 1024 * 1024;

#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    outcome: Option<Cow<'a, str>>,
    #[serde(borrow)]
    actor: Option<Actor<'a>>,
    #[serde(borrow)]
    command: Option<Command<'a>>,
    #[serde(borrow, default)]
    secrets: Vec<Secret<'a>>,
    part: Option<u64>,
}

#[derive(Deserialize)]
struct Actor<'a> {
    uid: u32,
    #[serde(borrow)]
    user: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Command<'a> {
    #[serde(borrow)]
    path: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Secret<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    store: Option<Cow<'a, str>>,
    #[serde(borrow)]
    item: Option<Cow<'a, str>>,
    #[serde(borrow)]
    bundle: Option<Cow<'a, str>>,
    version: Option<u64>,
}

fn columns<'r>(record: &'r Record<'_>) -> [Cow<'r, str>; 6] {
    let later_part = record.part.is_some_and(|part| part > 1);
    let absent = || Cow::Borrowed(if later_part { "\"" } else { "-" });
    let user = record.actor.as_ref().map_or_else(absent, |actor| match &actor.user {
        Some(user) => Cow::Borrowed(&**user),
        None => Cow::Owned(actor.uid.to_string()),
    });
    let secrets: Vec<String> = record.secrets.iter().map(secret).collect();
    [
        Cow::Borrowed(&*record.time),
        Cow::Borrowed(&*record.event),
        record.outcome.as_deref().map_or_else(absent, Cow::Borrowed),
        user,
        record.command.as_ref().map_or_else(absent, |command| Cow::Borrowed(&*command.path)),
        if secrets.is_empty() { Cow::Borrowed("-") } else { Cow::Owned(secrets.join(", ")) },
    ]
}

fn secret(secret: &Secret<'_>) -> String {
    let store = secret.store.as_deref().unwrap_or("?");
    let text = match (secret.name.as_deref(), secret.item.as_deref(), secret.bundle.as_deref()) {
        // An item that the policy binds to no name.
        (Some(""), Some(item), _) => format!("{store}:{item}"),
        (Some(name), _, _) => name.to_owned(),
        // All of a store.
        (None, _, Some("")) => format!("{store}:*"),
        (None, _, path) => path.unwrap_or("?").to_owned(),
    };
    secret.version.map_or_else(|| text.clone(), |version| format!("{text}@{version}"))
}

fn row(out: &mut impl Write, columns: &[Cow<'_, str>; 6]) -> io::Result<()> {
    let [time, event, outcome, user, command, secrets] = columns.each_ref().map(|column| escape(column));
    writeln!(out, "{time:<27}  {event:<22}  {outcome:<9}  {user:<12}  {command:<28}  {secrets}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(log: &[u8], form: Form) -> String {
        let mut out = Vec::new();
        show(&mut &*log, form, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_row_says_who_got_what() {
        let log = br#"{"time":"T","event":"access.released","outcome":"succeeded","actor":{"uid":7},"command":{"path":"/bin/x"},"secrets":[{"name":"A","version":3},{"bundle":"b/"},{"store":"s","bundle":""},{"name":"","store":"s","item":"i","version":2}]}"#;
        let text = shown(log, Form::Table);
        let words: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(words, ["T", "access.released", "succeeded", "7", "/bin/x", "A@3,", "b/,", "s:*,", "s:i@2"]);
    }

    #[test]
    fn nothing_reaches_the_terminal_unescaped_and_nothing_stops_it() {
        let log = b"\x1b[31m\xff\n{\"time\":\"\\u001b[1m\\n\",\"event\":\"\\u202e\"}\n{}\n[\n\n";
        for form in [Form::Table, Form::Json] {
            let text = shown(log, form);
            assert!(text.chars().all(|c| c == '\n' || !crate::name::is_unprintable(c)), "{text:?}");
            assert_eq!(text.lines().count(), 5 + usize::from(form == Form::Table));
        }
    }
}
