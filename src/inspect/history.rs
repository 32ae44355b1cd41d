//! `vouchsafe history`: the versions of one item.

use schemars::JsonSchema;
use serde::Serialize;

use super::{NoItem, bound_item, note_of, note_requests, rfc3339, written_down};
use crate::audit::{Event, Outcome};
use crate::error::Error;
use crate::inject::ParentEnv;
use crate::name::escape;
use crate::resolve::place_of;
use crate::setting::Setting;
use crate::{caller, cli, output};

/// What `vouchsafe history --json` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct History {
    /// The variable.
    name: String,
    /// The store.
    store: String,
    /// The item.
    item: String,
    /// Its versions, newest first. Of a sealed file, what is older than the previous one is in the history of the file.
    versions: Vec<VersionEntry>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct VersionEntry {
    /// The number.
    version: u64,
    /// The stage, if it has one.
    stage: Option<String>,
    /// When it was written (RFC 3339), if the store knows.
    time: Option<String>,
    /// Who wrote it, if the store knows.
    author: Option<String>,
}

/// `vouchsafe history`.
///
/// # Errors
/// The name is not bound to an item, or the store fails or keeps no versions.
pub fn history(options: &cli::History, parent: &ParentEnv) -> Result<(), Error> {
    let setting = Setting::load(&options.selection, parent)?;
    let item = bound_item(&setting.policy, &options.name)?;
    let mut auditor = setting.open_auditor(&caller::of_this_process(false), None)?;
    auditor.record(Event::SecretListed, Outcome::Allowed, Some("history"), &[note_of(&options.name, item)])?;
    let known =
        setting.open_versions(&item.store).and_then(|mut store| Ok(store.history(&item.item, setting.deadline())?));
    let known = written_down(known, &mut auditor, "history")?;
    note_requests(&mut auditor, &setting)?;
    let mut versions: Vec<VersionEntry> = known
        .into_iter()
        .map(|version| VersionEntry {
            version: version.number,
            stage: version.stage.map(|stage| stage.word().into()),
            time: version.time.map(rfc3339),
            author: version.author.map(|author| escape(&author)),
        })
        .collect();
    versions.sort_by_key(|entry| std::cmp::Reverse(entry.version));
    if versions.is_empty() {
        return Err(NoItem { name: options.name.clone(), place: place_of(item), selection: setting.selection() }.into());
    }
    let history = History {
        name: options.name.to_string(),
        store: item.store.to_string(),
        item: escape(item.item.as_str()),
        versions,
    };
    if options.json {
        return output::print_json(&history);
    }
    let rows: Vec<Vec<String>> = history
        .versions
        .iter()
        .map(|v| {
            let text = |field: &Option<String>| field.clone().unwrap_or_default();
            vec![v.version.to_string(), text(&v.stage), text(&v.time), text(&v.author)]
        })
        .collect();
    output::print(&output::table(&["VERSION", "STAGE", "WRITTEN", "BY"], &rows))
}
