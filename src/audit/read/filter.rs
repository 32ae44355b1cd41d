//! Which records: pure.

use super::record::{Command, Record};
use super::when::Instant;
use crate::policy::pattern::Pattern;

/// What a record has to match: every field that is not empty, each by any of its entries.
#[derive(Debug, Default)]
pub struct Filter {
    /// It names one of these secrets, by itself or as a part of a template.
    pub secrets: Vec<Pattern>,
    /// It is by one of these uids.
    pub uids: Vec<u32>,
    /// It is about one of these commands; a pattern without `/` means the last part of the path.
    pub commands: Vec<Pattern>,
    /// It says one of these events.
    pub events: Vec<Pattern>,
    /// It ended like this.
    pub outcomes: Vec<String>,
    /// The environment.
    pub environment: Option<String>,
    /// The service.
    pub service: Option<String>,
    /// Not before.
    pub since: Option<Instant>,
    /// Before.
    pub until: Option<Instant>,
}

impl Filter {
    /// Whether every record matches.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty()
            && self.uids.is_empty()
            && self.commands.is_empty()
            && self.events.is_empty()
            && self.outcomes.is_empty()
            && self.environment.is_none()
            && self.service.is_none()
            && self.since.is_none()
            && self.until.is_none()
    }

    /// Whether `record` matches.
    #[must_use]
    pub fn matches(&self, record: &Record<'_>) -> bool {
        let time = &*record.time;
        self.since.as_ref().is_none_or(|since| time >= since.as_str())
            && self.until.as_ref().is_none_or(|until| time < until.as_str())
            && (self.events.is_empty() || self.events.iter().any(|event| event.matches(&record.event)))
            && (self.outcomes.is_empty()
                || record.outcome.as_ref().is_some_and(|outcome| self.outcomes.iter().any(|one| **one == **outcome)))
            && is_or_absent(self.environment.as_deref(), record.environment.as_deref())
            && is_or_absent(self.service.as_deref(), record.service.as_deref())
            && (self.uids.is_empty() || record.actor.as_ref().is_some_and(|actor| self.uids.contains(&actor.uid)))
            && (self.commands.is_empty() || record.command.as_ref().is_some_and(|command| self.is_command(command)))
            && (self.secrets.is_empty() || self.names_secret(record))
    }

    fn is_command(&self, command: &Command<'_>) -> bool {
        let last = command.path.rsplit('/').next().unwrap_or_default();
        self.commands
            .iter()
            .any(|pattern| pattern.matches(if pattern.as_str().contains('/') { &command.path } else { last }))
    }

    fn names_secret(&self, record: &Record<'_>) -> bool {
        let names = record.secrets.iter().flat_map(|secret| secret.name.iter().chain(&secret.template));
        names.into_iter().any(|name| self.secrets.iter().any(|pattern| pattern.matches(name)))
    }
}

fn is_or_absent(wanted: Option<&str>, found: Option<&str>) -> bool {
    wanted.is_none() || wanted == found
}
