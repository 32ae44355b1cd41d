//! Versions that a rotation has made and not yet put in place.

use std::time::Instant;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Gathering, rfc3339};
use crate::name::StoreName;
use crate::policy::model::{Binding, Source, Stage};
use crate::setting::Setting;
use crate::store::Wanted;
use crate::store::stages::StagedItem;

/// A rotation that is not finished.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PendingVersion {
    /// The version.
    pub version: Option<u64>,
    /// When it was made (RFC 3339).
    pub since: Option<String>,
}

/// Pending versions that lie in parameters of their own, which stay there when a rotation has ended: only both histories tell
/// whether one still waits. Who may read the secrets need not have a right to those, so a store that does not answer here
/// says nothing.
pub(super) fn look_apart(setting: &Setting<'_>, deadline: Instant, gathering: &mut Gathering) {
    for (name, binding) in &setting.policy.secrets {
        let Some((store, item)) = apart(binding) else { continue };
        let staged = setting.open_stages(store).and_then(|mut store| Ok(store.staged(&item, deadline)?));
        let Some(found) = staged.ok().and_then(|staged| staged.pending) else { continue };
        if let Some(entry) = gathering.entries.get_mut(name.as_str()) {
            entry.pending = Some(PendingVersion { version: Some(found.number), since: found.time.map(rfc3339) });
        }
    }
}

/// The item of a binding whose pending version lies apart from it.
fn apart(binding: &Binding) -> Option<(&StoreName, StagedItem)> {
    binding.rotate.as_ref().filter(|rotation| rotation.pending_separate)?;
    let Source::Item(item) = &binding.source else { return None };
    Some((&item.store, StagedItem { item: item.item.clone(), pending_separate: true }))
}

/// Where the pending version of a binding that rotates lies, if it is a version of the item itself.
pub(super) fn pending(binding: &Binding) -> Option<(&StoreName, Wanted)> {
    binding.rotate.as_ref().filter(|rotation| !rotation.pending_separate)?;
    let Source::Item(item) = &binding.source else { return None };
    let (name, stage) = (item.item.clone(), Some(Stage::Pending));
    Some((&item.store, Wanted::Item { item: name, version: None, stage, plain: binding.plain }))
}
