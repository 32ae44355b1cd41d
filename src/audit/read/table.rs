//! Records for people: one row for each. A line that is no record is a row too, marked `?`, once there was a record at all.

use std::borrow::Cow;
use std::io::{self, Write};

use super::record::{Record, Secret};
use crate::name::escape;

/// Writes rows as records come. The head comes with the first one: what is no log gets no table.
#[derive(Debug, Default)]
pub struct Table {
    has_head: bool,
    is_wide: bool,
}

/// The columns, each with its width; the last one has none.
const NARROW: [(&str, usize); 7] =
    [("TIME", 27), ("EVENT", 22), ("OUTCOME", 9), ("USER", 12), ("COMMAND", 28), ("SECRETS", 20), ("REASON", 0)];

/// Those that a wide table has besides, after the outcome.
const WIDE: [(&str, usize); 3] = [("ENVIRONMENT", 11), ("SERVICE", 12), ("HOST", 16)];

/// Where they stand.
const WIDE_AT: usize = 3;

impl Table {
    /// A table that says where it happened, too.
    #[must_use]
    pub fn wide() -> Self {
        Self { is_wide: true, ..Self::default() }
    }

    /// Writes the row of a record.
    ///
    /// # Errors
    /// Writing fails.
    pub fn record(&mut self, out: &mut impl Write, record: &Record<'_>) -> io::Result<()> {
        self.head(out)?;
        let absent = absent(record);
        let text = |text: &Option<super::record::Text<'_>>| text.as_deref().map_or(absent, |text| text).to_owned();
        let host = record.actor.as_ref().map_or(absent, |actor| &*actor.host);
        let place = [text(&record.environment), text(&record.service), host.to_owned()];
        self.row(out, &columns(record), &place.each_ref().map(|column| Cow::Borrowed(&**column)))
    }

    /// Writes the row of a line that is no record.
    ///
    /// # Errors
    /// Writing fails.
    pub fn other(&mut self, out: &mut impl Write) -> io::Result<()> {
        self.head(out)?;
        self.row(out, &["?"; NARROW.len()].map(Cow::Borrowed), &["?"; WIDE.len()].map(Cow::Borrowed))
    }

    /// Writes the head, if it is not there yet.
    ///
    /// # Errors
    /// Writing fails.
    pub fn head(&mut self, out: &mut impl Write) -> io::Result<()> {
        if std::mem::replace(&mut self.has_head, true) {
            return Ok(());
        }
        self.row(out, &NARROW.map(|(name, _)| Cow::Borrowed(name)), &WIDE.map(|(name, _)| Cow::Borrowed(name)))
    }

    fn row(
        &self,
        out: &mut impl Write,
        columns: &[Cow<'_, str>; NARROW.len()],
        place: &[Cow<'_, str>; WIDE.len()],
    ) -> io::Result<()> {
        let mut all: Vec<(&str, usize)> =
            columns.iter().zip(NARROW).map(|(text, (_, width))| (&**text, width)).collect();
        if self.is_wide {
            let place = place.iter().zip(WIDE).map(|(text, (_, width))| (&**text, width));
            all.splice(WIDE_AT..WIDE_AT, place);
        }
        let mut line = String::new();
        for (text, width) in all {
            // Nothing is put behind the last column.
            let gap = if width == 0 { "" } else { "  " };
            line.push_str(&format!("{:<width$}{gap}", escape(text)));
        }
        writeln!(out, "{line}")
    }
}

/// What stands for nothing; and for what stood in the first part of a record, where that is missing.
fn absent(record: &Record<'_>) -> &'static str {
    if record.part.is_some_and(|part| part > 1) { "\"" } else { "-" }
}

fn columns<'r>(record: &'r Record<'_>) -> [Cow<'r, str>; NARROW.len()] {
    let absent = || Cow::Borrowed(absent(record));
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
        record.reason.as_deref().map_or_else(absent, Cow::Borrowed),
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
