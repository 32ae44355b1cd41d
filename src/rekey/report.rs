//! What `rekey` says: file by file, what was exposed, and what it does not reach.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use super::plan::{File, inline_names};
use crate::exposed::{ExposedValue, State};
use crate::name::{StoreName, escape, show};
use crate::output;
use crate::policy::model::{Policy, Source};
use crate::store::rekey::Stanzas;
use crate::store::sealed::KMS_STANZA;

/// What `vouchsafe rekey --json` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Rekeying {
    /// The environment.
    pub(super) environment: String,
    /// The service.
    pub(super) service: Option<String>,
    /// Nothing was written.
    pub(super) dry_run: bool,
    /// Whether every file is done and nothing that was exposed is in use.
    pub(super) ok: bool,
    /// Every sealed file that was selected.
    pub(super) files: Vec<FileEntry>,
    /// Who was removed and is trusted still; a compromised one is in `exposed`.
    pub(super) removed: Option<String>,
    /// What somebody could open who must not any more, of the files that were opened.
    pub(super) exposed: Vec<ExposedValue>,
    /// What of the policy is in no sealed file.
    pub(super) not_covered: Vec<NotCovered>,
}

/// One file.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct FileEntry {
    /// The store.
    pub(super) store: String,
    /// The file.
    pub(super) path: String,
    /// What was done with it.
    pub(super) state: FileState,
    /// How often it was written, this time included.
    pub(super) generation: Option<u64>,
    /// Who could open it before.
    pub(super) before: Option<Recipients>,
    /// Who can open it now.
    pub(super) now: Option<Recipients>,
    /// Recipients whose notes were dropped, because the policy names them again.
    pub(super) trusted_again: Vec<String>,
    /// What went wrong.
    pub(super) error: Option<String>,
}

/// What was done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum FileState {
    /// There is no file yet.
    Absent,
    /// It could not be encrypted anew; the error says why.
    Failed,
    /// A dry run: it could be.
    Possible,
    /// It is encrypted anew.
    Rekeyed,
    /// Not tried, after an earlier failure.
    Untouched,
}

/// What a file says of those who can open it.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Recipients {
    /// How many there are of each kind. Whose an age recipient's is, age does not say.
    stanzas: BTreeMap<String, usize>,
    /// The KMS keys.
    kms_keys: Vec<String>,
}

/// Something that no sealed file holds.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct NotCovered {
    /// The store.
    store: String,
    /// The names that are meant.
    names: Vec<String>,
    /// Why, and what to do.
    why: String,
    /// Whether the recipient that is removed may still open it.
    pub(super) is_open: bool,
}

impl FileEntry {
    pub(super) fn new(file: &File<'_>, state: FileState) -> Self {
        Self {
            store: file.store.to_string(),
            path: show(file.path),
            state,
            generation: None,
            before: None,
            now: None,
            trusted_again: Vec::new(),
            error: None,
        }
    }

    /// Some lines for a person.
    pub(super) fn text(&self) -> String {
        let Self { store, path, .. } = self;
        let generation = self.generation.map(|number| format!(", generation {number}")).unwrap_or_default();
        let mut text = match self.state {
            FileState::Absent => format!("{store}: `{path}` does not exist yet\n"),
            FileState::Failed => {
                format!("{store}: `{path}` FAILED: {}\n", self.error.as_deref().unwrap_or("the error is below"))
            }
            FileState::Possible => format!("{store}: `{path}` would be encrypted anew\n"),
            FileState::Rekeyed => format!("{store}: `{path}` is encrypted anew{generation}\n"),
            FileState::Untouched => format!("{store}: `{path}` was not tried\n"),
        };
        if let (Some(before), Some(now)) = (&self.before, &self.now) {
            let then = if self.state == FileState::Possible { "then" } else { "now" };
            text.push_str(&format!("  before: {}; {then}: {}\n", before.text(), now.text()));
        }
        for recipient in &self.trusted_again {
            text.push_str(&format!("  the policy names {recipient} again: nothing counts as exposed to it any more\n"));
        }
        text
    }
}

impl From<Stanzas> for Recipients {
    fn from(stanzas: Stanzas) -> Self {
        let kinds = stanzas.kinds.into_iter().map(|(kind, count)| (escape(&kind), count));
        Self { stanzas: kinds.collect(), kms_keys: stanzas.kms_keys.iter().map(|key| escape(key)).collect() }
    }
}

impl Recipients {
    /// Whether there is a stanza that does not say whose it is.
    fn are_of_age(&self) -> bool {
        self.stanzas.keys().any(|kind| kind != KMS_STANZA)
    }

    fn text(&self) -> String {
        let keys = if self.kms_keys.is_empty() { String::new() } else { format!(" ({})", self.kms_keys.join(", ")) };
        let kinds: Vec<String> = self.stanzas.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        format!("{}{keys}", kinds.join(", "))
    }
}

impl NotCovered {
    pub(super) fn by_hand(store: &StoreName, path: &Path, is_open: bool) -> Self {
        let path = show(path);
        let why = format!(
            "`{path}` was made by hand and is only read: age -d -i KEY {path} | age -e -a -r RECIPIENT -o {path}.new && mv \
             {path}.new {path}; then select the others with --store"
        );
        Self { store: store.to_string(), names: Vec::new(), why, is_open }
    }

    /// Nothing, if the policy has no ciphertext of this store.
    pub(super) fn inline(policy: &Policy, store: &StoreName) -> Option<Self> {
        let names = inline_names(policy, store);
        let why = "ciphertexts in the policy itself: no age recipient opens them, whoever may use their KMS key does; for \
                   another key they must be made anew with `aws kms re-encrypt`";
        (!names.is_empty()).then(|| Self { store: store.to_string(), names, why: why.into(), is_open: false })
    }

    pub(super) fn ssm(policy: &Policy, store: &StoreName) -> Self {
        let is_of = |source: &Source| matches!(source, Source::Item(item) if item.store == *store);
        let bound = policy.secrets.iter().filter(|(_, binding)| is_of(&binding.source));
        let names = bound.map(|(name, _)| name.to_string()).collect();
        let why = "values in Parameter Store: no age recipient opens them; IAM and their KMS key decide who does";
        Self { store: store.to_string(), names, why: why.into(), is_open: false }
    }

    fn text(&self) -> String {
        let names = if self.names.is_empty() { String::new() } else { format!(" ({})", self.names.join(", ")) };
        format!("not covered: {}{names}: {}\n", self.store, self.why)
    }
}

impl Rekeying {
    /// What a person is told after the files.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let are_of_age = |recipients: &Option<Recipients>| recipients.as_ref().is_some_and(Recipients::are_of_age);
        if self.files.iter().any(|file| are_of_age(&file.before) || are_of_age(&file.now)) {
            text.push_str("age does not say whose a stanza is: who can open a file now is whom the policy names.\n");
        }
        if self.files.iter().any(|file| file.state == FileState::Rekeyed) {
            text.push_str("Older versions, in git or in backups, still open for whomever they were sealed to.\n");
        }
        if let Some(removed) = &self.removed
            && !self.exposed.iter().any(|one| one.recipient == *removed)
        {
            text.push_str(&format!(
                "{removed} keeps what it has read: where it is not trusted any more, add --compromised.\n"
            ));
        }
        text.extend(self.not_covered.iter().map(NotCovered::text));
        let recipients: BTreeSet<&String> = self.exposed.iter().map(|one| &one.recipient).collect();
        for recipient in recipients {
            let of_it: Vec<&ExposedValue> = self.exposed.iter().filter(|one| one.recipient == *recipient).collect();
            text.push_str(&format!("\nexposed to {recipient}\n{}", exposed_table(&of_it)));
        }
        let is = |state| self.exposed.iter().any(|one| one.state == state);
        if !self.exposed.is_empty() && !is(State::Due) {
            text.push_str("All of it is replaced.\n");
        }
        if is(State::Previous) {
            text.push_str(
                "previous: what is in use was replaced, and the exposed version before it is still there: a rollback brings \
                 it back, and its target may accept it until it is refused there.\n",
            );
        }
        if is(State::Removed) {
            text.push_str("removed: the value is not in the file any more; its target may accept it still.\n");
        }
        text
    }
}

fn exposed_table(exposed: &[&ExposedValue]) -> String {
    let rows: Vec<Vec<String>> = exposed
        .iter()
        .map(|one| {
            vec![
                one.name.clone().unwrap_or_else(|| "-".into()),
                one.state.word().into(),
                format!("{}:{}", one.store, one.item),
                one.version.to_string(),
                one.to_do().to_owned(),
            ]
        })
        .collect();
    output::table(&["NAME", "STATE", "FROM", "UP TO", "NEXT"], &rows)
}
