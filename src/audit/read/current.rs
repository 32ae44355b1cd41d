//! Which version of an item is the current one, as far as records say.

use std::collections::HashMap;

use super::record::{Record, Secret, Text};
use crate::audit::event::Event;
use crate::policy::model::Stage;

/// Where a secret lies: the same for all who got it from there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The environment.
    pub environment: String,
    /// The store; empty for a template.
    pub store: String,
    /// The item; empty for a template and for a ciphertext of the policy.
    pub item: String,
}

impl Place {
    /// Where an entry of a record's `secrets` lies.
    pub(super) fn of(record: &Record<'_>, secret: &Secret<'_>) -> Self {
        let text = |text: &Option<Text<'_>>| text.as_deref().unwrap_or_default().to_owned();
        Self { environment: text(&record.environment), store: text(&secret.store), item: text(&secret.item) }
    }
}

/// The version that consumers get now, as far as the logs say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Current {
    /// The number.
    pub version: u64,
    /// The time of the record that says so.
    pub since: String,
    /// Its event.
    pub event: String,
}

/// What is known of the current version of a place.
struct Version {
    current: Current,
    /// A record of a write says so, not only that it was served.
    is_written: bool,
    /// It was current, and was taken back.
    rolled_back: Option<u64>,
}

/// The current versions of all items that a log names: as many as the stores have.
#[derive(Default)]
pub(super) struct Currents(HashMap<Place, Version>);

impl Currents {
    /// What is known of an item.
    pub(super) fn take(&mut self, place: &Place) -> Option<Current> {
        self.0.remove(place).map(|version| version.current)
    }

    /// Takes a record in that succeeded.
    pub(super) fn written(&mut self, record: &Record<'_>) {
        let is_removal = record.is(Event::SecretRemoved);
        if !is_removal && !WRITES.iter().any(|event| record.is(*event)) {
            return;
        }
        for secret in &record.secrets {
            self.write(record, secret, is_removal);
        }
    }

    fn write(&mut self, record: &Record<'_>, secret: &Secret<'_>, is_removal: bool) {
        let place = Place::of(record, secret);
        let known = self.0.get(&place);
        if known.is_some_and(|known| *record.time < *known.current.since) {
            return;
        }
        if is_removal {
            self.0.remove(&place);
            return;
        }
        let is_current = secret.stage.as_deref().is_none_or(|stage| stage == Stage::Current.word());
        let Some(version) = secret.version.filter(|_| is_current) else { return };
        let before = known.map(|known| known.current.version);
        let rolled_back = if record.is(Event::RotationRolledBack) { before } else { None };
        let current = Current { version, since: record.time.to_string(), event: record.event.to_string() };
        self.0.insert(place, Version { current, is_written: true, rolled_back });
    }

    /// A version that was served as current is current, if nothing newer is known: it may have been written elsewhere. A
    /// record of its release may come just after the one that replaces it, so it never puts an older version in place of a
    /// newer one.
    pub(super) fn served(&mut self, place: &Place, secret: &Secret<'_>, time: &str) {
        let Some(version) = secret.version else { return };
        if secret.stage.as_deref().is_some_and(|stage| stage != Stage::Current.word()) {
            return;
        }
        let is_news = self.0.get(place).is_none_or(|known| {
            version > known.current.version
                && Some(version) != known.rolled_back
                && (!known.is_written || time > known.current.since.as_str())
        });
        if is_news {
            let current = Current { version, since: time.to_owned(), event: Event::AccessReleased.word().to_owned() };
            self.0.insert(place.clone(), Version { current, is_written: false, rolled_back: None });
        }
    }
}

/// After these the version that they name is the current one.
const WRITES: [Event; 3] = [Event::SecretWritten, Event::RotationPromoted, Event::RotationRolledBack];
