//! Records for people: one row for each. A line that is no record is a row too, marked `?`, once there was a record at all.

use std::borrow::Cow;
use std::io::{self, Write};

use super::record::{Record, Secret};
use crate::name::escape;

/// Writes rows as records come. The head comes with the first one: what is no log gets no table.
#[derive(Debug, Default)]
pub struct Table {
    has_head: bool,
}

impl Table {
    /// Writes the row of a record.
    ///
    /// # Errors
    /// Writing fails.
    pub fn record(&mut self, out: &mut impl Write, record: &Record<'_>) -> io::Result<()> {
        self.head(out)?;
        row(out, &columns(record))
    }

    /// Writes the row of a line that is no record.
    ///
    /// # Errors
    /// Writing fails.
    pub fn other(&mut self, out: &mut impl Write) -> io::Result<()> {
        self.head(out)?;
        row(out, &["?"; 6].map(Cow::Borrowed))
    }

    /// Writes the head, if it is not there yet.
    ///
    /// # Errors
    /// Writing fails.
    pub fn head(&mut self, out: &mut impl Write) -> io::Result<()> {
        if std::mem::replace(&mut self.has_head, true) {
            return Ok(());
        }
        row(out, &["TIME", "EVENT", "OUTCOME", "USER", "COMMAND", "SECRETS"].map(Cow::Borrowed))
    }
}

fn columns<'r>(record: &'r Record<'_>) -> [Cow<'r, str>; 6] {
    // What is left of a record whose first part is missing.
    let is_later_part = record.part.is_some_and(|part| part > 1);
    let absent = || Cow::Borrowed(if is_later_part { "\"" } else { "-" });
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
