//! Versions that a rotation has made and not yet put in place.

use std::collections::BTreeMap;
use std::time::Instant;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Asker, Gathering};
use crate::name::{ItemName, StoreName, VariableName};
use crate::policy::model::{Binding, Source, Stage};
use crate::setting::Setting;
use crate::store::Wanted;

/// A rotation that is not finished.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PendingVersion {
    /// The version.
    pub version: Option<u64>,
    /// When it was made (RFC 3339).
    pub since: Option<String>,
}

/// Pending versions that lie in parameters of their own. Who may read the secrets need not have a right to those, so a store
/// that does not answer here says nothing.
pub(super) fn look_apart(setting: &Setting<'_>, deadline: Instant, gathering: &mut Gathering) {
    let mut orders: BTreeMap<&StoreName, Vec<(&VariableName, Wanted)>> = BTreeMap::new();
    for (name, binding) in &setting.policy.secrets {
        if let Some((store, wanted)) = pending(binding, true) {
            orders.entry(store).or_default().push((name, wanted));
        }
    }
    for (store, order) in orders {
        let (names, wanted): (Vec<_>, Vec<_>) = order.into_iter().unzip();
        let answers = setting.open_store(store).and_then(|mut store| Ok(store.fetch(&wanted, deadline)?));
        let answers = answers.unwrap_or_default();
        names.into_iter().zip(answers).for_each(|(name, answer)| gathering.take(Asker::Pending(name, true), answer));
    }
}

/// Where the pending version of a binding that rotates lies: on the item, or `apart` from it.
pub(super) fn pending(binding: &Binding, apart: bool) -> Option<(&StoreName, Wanted)> {
    let rotation = binding.rotate.as_ref().filter(|rotation| rotation.pending_separate == apart)?;
    let Source::Item(item) = &binding.source else { return None };
    let (name, stage) = match rotation.pending_separate {
        true => (ItemName::new(format!("{}.pending", item.item)).ok()?, None),
        false => (item.item.clone(), Some(Stage::Pending)),
    };
    Some((&item.store, Wanted::Item { item: name, version: None, stage, plain: binding.plain }))
}
