//! Whether a secret is named at all, for whoever hears that nobody has it.

use std::collections::BTreeSet;

use super::record::{Record, Text};
use super::who_has::{Scope, Wanted};

/// Whether records name the secret at all: nobody having it says nothing of a name that was mistyped.
#[derive(Debug, Default)]
pub struct Named {
    /// One does, in the environment and service that were asked about.
    pub is_here: bool,
    /// Where else: the first few, as `prod/api`.
    pub elsewhere: BTreeSet<String>,
    /// What else is named: the first names.
    pub others: BTreeSet<String>,
}

/// Names and places that are kept for a hint.
const HINTS: usize = 1_000;

/// Places that are told.
const PLACES: usize = 8;

impl Named {
    pub(super) fn record(&mut self, wanted: &Wanted, scope: &Scope, record: &Record<'_>) {
        if self.is_here {
            return;
        }
        let names = || record.secrets.iter().filter_map(|secret| secret.name.as_deref());
        if !names().any(|name| name == wanted.name.as_str()) {
            if self.others.len() < HINTS {
                self.others.extend(names().map(str::to_owned));
            }
            return;
        }
        let is_it = |wanted: &Option<String>, found: &Option<Text<'_>>| {
            wanted.is_none() || wanted.as_deref() == found.as_deref()
        };
        if is_it(&scope.environment, &record.environment) && is_it(&scope.service, &record.service) {
            self.is_here = true;
        } else if self.elsewhere.len() < PLACES {
            let environment = record.environment.as_deref().unwrap_or_default();
            let service = record.service.as_deref().map(|service| format!("/{service}")).unwrap_or_default();
            self.elsewhere.insert(format!("{environment}{service}"));
        }
    }
}
