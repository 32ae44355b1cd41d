//! `vouchsafe list`: names, stores, versions, stages, age; `--file` for git's textconv.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Entry, SealedFileEntry, entries_table, look, rfc3339, written_down};
use crate::audit::{Event, Outcome};
use crate::checked_file::Use;
use crate::error::{Cause, Class, Error};
use crate::exposed::ExposedValue;
use crate::inject::ParentEnv;
use crate::name::escape;
use crate::setting::Setting;
use crate::store::document::Document;
use crate::store::sealed;
use crate::store::vouched::Vouched;
use crate::{caller, checked_file, cli, output};

/// What `vouchsafe list --json` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Listing {
    /// The environment.
    environment: String,
    /// The service.
    service: Option<String>,
    /// Every binding of the policy, and what bundles bring.
    secrets: Vec<Entry>,
    /// What somebody removed could open, and is in a store still.
    exposed: Vec<ExposedValue>,
    /// The files of stores that were opened.
    sealed_files: Vec<SealedFileEntry>,
}

/// `vouchsafe list`.
///
/// # Errors
/// The policy is invalid, or a store fails.
pub fn list(options: &cli::List, parent: &ParentEnv) -> Result<(), Error> {
    if let Some(path) = &options.file {
        return list_file(path, options, parent);
    }
    let setting = Setting::load(&options.selection, parent)?;
    let seen = look(&setting, "list")?;
    if let Some(failure) = seen.failures.into_iter().next() {
        return Err(failure);
    }
    let listing = Listing {
        environment: setting.policy.environment.to_string(),
        service: setting.policy.service.as_ref().map(ToString::to_string),
        secrets: seen.entries,
        exposed: seen.exposed,
        sealed_files: seen.files,
    };
    if options.json {
        return output::print_json(&listing);
    }
    let exposed: String = listing.exposed.iter().map(|one| format!("{}\n", one.sentence())).collect();
    let gap = if exposed.is_empty() { "" } else { "\n" };
    output::print(&format!("{}{gap}{exposed}", entries_table(&listing.secrets)))
}

/// As git's textconv: the text changes whenever the file's content does, and shows none of it. Without a policy there is
/// neither an identity nor a place to write the access down, so only what is public is shown; without an identity that
/// opens the file likewise.
fn list_file(path: &Path, options: &cli::List, parent: &ParentEnv) -> Result<(), Error> {
    let bytes = checked_file::read(path, Use::Public, sealed::MAX_FILE)
        .map_err(|error| Unreadable(error.to_string(), error.hint()))?;
    let wants_policy = options.selection.policy.is_some()
        || options.selection.env.is_some()
        || parent.get("VOUCHSAFE_POLICY").is_some()
        || parent.get("VOUCHSAFE_ENV").is_some();
    if !wants_policy {
        return output::print(&public_text(path, &bytes)?);
    }
    let setting = Setting::load(&options.selection, parent)?;
    let mut auditor = setting.open_auditor(&caller::of_this_process(false), None)?;
    auditor.record(Event::SecretListed, Outcome::Allowed, Some("list --file"), &[])?;
    match written_down(setting.document_in(path, &bytes), &mut auditor, "list --file") {
        Ok(document) => output::print(&document_text(&document)),
        // `git log -p` ends where a textconv fails: a colleague without the key, or an older version under another one,
        // must not keep the rest from being shown.
        Err(error) if error.class() == Class::Identity => {
            let text = public_text(path, &bytes)?;
            output::complain(&format!("vouchsafe: only what is public is shown: {error}\n")).unwrap_or_default();
            output::print(&text)
        }
        Err(error) => Err(error),
    }
}

/// Who can open the file, and a line that differs where the content does.
fn public_text(path: &Path, bytes: &[u8]) -> Result<String, Error> {
    let stanzas = sealed::SealedBytes::parse(Vouched::of_no_store(bytes))
        .and_then(|sealed| sealed.stanza_types())
        .map_err(|kind| Unreadable(kind.at(path).to_string(), None))?;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    // The age crate adds a stanza of random kind (C2SP age.md, "grease") that nobody can open.
    for stanza in stanzas.into_iter().filter(|stanza| !stanza.ends_with("-grease")) {
        *counts.entry(escape(&stanza)).or_default() += 1;
    }
    let lines: String = counts.iter().map(|(stanza, count)| format!("recipients {stanza}: {count}\n")).collect();
    Ok(format!("age file, sealed\n{lines}sha256 {}\n", sha256_hex(bytes)))
}

/// Of what lies on the disk, which is public: it makes the text differ where the content does.
fn sha256_hex(sealed: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, sealed);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn document_text(document: &Document) -> String {
    let mut out = format!(
        "environment {}\nservice {}\ngeneration {}\n",
        document.environment,
        document.service.as_ref().map_or("(any)", |service| service.as_str()),
        document.generation
    );
    for (name, item) in document.items() {
        for (stage, version) in item.versions() {
            out.push_str(&format!(
                "{} {} version {} written {} by {}\n",
                escape(name.as_str()),
                stage.word(),
                version.number,
                rfc3339(version.time),
                escape(&version.author)
            ));
        }
    }
    for one in document.exposed() {
        let (item, recipient, since) = (escape(one.item.as_str()), escape(&one.recipient), rfc3339(one.since));
        out.push_str(&format!("{item} up to version {} exposed to {recipient} since {since}\n", one.number));
    }
    out
}

/// The file given by `--file` cannot be read as a sealed file.
#[derive(Debug)]
struct Unreadable(String, Option<String>);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Cause for Unreadable {
    fn class(&self) -> Class {
        Class::Store
    }

    fn hint(&self) -> Option<String> {
        self.1.clone()
    }
}
