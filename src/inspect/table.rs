//! Bindings as rows, for `check` and `list`.

use super::Entry;
use crate::output;

pub(super) fn entries_table(entries: &[Entry]) -> String {
    let rows: Vec<Vec<String>> = entries
        .iter()
        .map(|entry| {
            let state = match (entry.present, entry.is_due, entry.required) {
                (None, ..) => "not asked",
                (Some(false), _, true) => "MISSING",
                (Some(false), _, false) => "absent",
                (Some(true), true, _) => "DUE",
                (Some(true), false, _) => "ok",
            };
            vec![
                entry.name.clone(),
                state.into(),
                entry.source.clone(),
                entry.version.map(|version| version.to_string()).unwrap_or_default(),
                stages(entry),
                entry.age_days.map(|days| format!("{days}d")).unwrap_or_default(),
                due(entry),
            ]
        })
        .collect();
    output::table(&["NAME", "STATE", "FROM", "VERSION", "STAGE", "AGE", "DUE"], &rows)
}

/// `current, 3 pending`: what consumers get, and what a rotation has made beside it.
fn stages(entry: &Entry) -> String {
    let pending = entry.pending.as_ref().map(|pending| match pending.version {
        Some(version) => format!("{version} pending"),
        None => "one pending".to_owned(),
    });
    entry.stage.clone().into_iter().chain(pending).collect::<Vec<_>>().join(", ")
}

fn due(entry: &Entry) -> String {
    let due = entry.due.clone().unwrap_or_default();
    match entry.overdue_days {
        None => due,
        Some(days) => format!("{due}, {days}d overdue"),
    }
}
