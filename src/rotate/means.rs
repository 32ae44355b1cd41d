//! What a rotation needs besides the value: an administrator's URL, a program's credentials. Bindings like any other, read
//! only under the permit that names them, and kept for the run, since many secrets may need the same ones.

use std::collections::{BTreeMap, BTreeSet};

use crate::audit::{RotationPermit, SecretNote};
use crate::error::Error;
use crate::inspect::{NoItem, note_of};
use crate::name::{ItemName, StoreName, VariableName};
use crate::policy::model::{Apply, Binding, Generate, JsonPointer, Policy, Rotation, Source};
use crate::policy::template::RenderError;
use crate::resolve::{ResolveError, pick, place_of};
use crate::rotate::stuck::Failure;
use crate::secret::Secret;
use crate::setting::Setting;
use crate::store::{Answer, Wanted};

/// Values by the names of their bindings.
#[derive(Default)]
pub(super) struct Means(BTreeMap<VariableName, Secret>);

/// The bindings that this rotation reads, and the parts of those that are templates.
pub(crate) fn names_of<'p>(policy: &'p Policy, rotation: &'p Rotation) -> BTreeSet<&'p VariableName> {
    let applies: &[VariableName] = match &rotation.apply {
        Apply::Command(program) => &program.needs,
        Apply::Postgres(postgres) => std::slice::from_ref(&postgres.admin),
        Apply::None => &[],
    };
    let generates: &[VariableName] = match &rotation.generate {
        Generate::Command(program) => &program.needs,
        _ => &[],
    };
    let named = applies.iter().chain(generates);
    let parts = named.clone().filter_map(|name| match &policy.secrets.get(name)?.source {
        Source::Template(template) => Some(template.references()),
        Source::Ciphertext { .. } | Source::Item(_) => None,
    });
    named.chain(parts.flatten()).collect()
}

/// What the record of the rotation says of them.
pub(super) fn notes(policy: &Policy, names: &BTreeSet<&VariableName>) -> Vec<SecretNote> {
    let bound = names.iter().filter_map(|name| policy.secrets.get_key_value(*name));
    bound
        .map(|(name, binding)| match &binding.source {
            Source::Item(item) => note_of(name, item),
            Source::Ciphertext { store, .. } => {
                SecretNote { name: name.to_string(), store: store.to_string(), ..SecretNote::default() }
            }
            Source::Template(template) => {
                let parts: BTreeSet<_> = template.references().map(ToString::to_string).collect();
                let template = parts.into_iter().collect();
                SecretNote { name: name.to_string(), template, ..SecretNote::default() }
            }
        })
        .collect()
}

impl Means {
    /// Reads what is not at hand yet.
    pub(super) fn fetch(
        &mut self,
        setting: &Setting<'_>,
        permit: &RotationPermit,
        names: &BTreeSet<&VariableName>,
    ) -> Result<(), Error> {
        // Templates last: their parts are among the names.
        let is_template = |name: &VariableName| {
            setting.policy.secrets.get(name).is_some_and(|binding| matches!(binding.source, Source::Template(_)))
        };
        let (templates, plain): (Vec<&VariableName>, Vec<_>) = names.iter().partition(|name| is_template(name));
        for name in plain.into_iter().chain(templates) {
            if !permit.covers_means(name) {
                return Err(Failure::NotCovered.into());
            }
            if !self.0.contains_key(name) {
                let value = self.read(setting, name)?;
                self.0.insert(name.clone(), value);
            }
        }
        Ok(())
    }

    /// The value of a binding that was read.
    pub(super) fn get(&self, name: &VariableName) -> Option<&Secret> {
        self.0.get(name)
    }

    /// Forgets what is made of an item, because that has another value now.
    pub(super) fn forget(&mut self, policy: &Policy, store: &StoreName, item: &ItemName) {
        let is_of =
            |binding: &Binding| matches!(&binding.source, Source::Item(of) if of.store == *store && of.item == *item);
        let reads = |name: &VariableName| match policy.secrets.get(name) {
            Some(Binding { source: Source::Template(template), .. }) => {
                template.references().any(|part| policy.secrets.get(part).is_some_and(is_of))
            }
            Some(binding) => is_of(binding),
            None => false,
        };
        self.0.retain(|name, _| !reads(name));
    }

    fn read(&self, setting: &Setting<'_>, name: &VariableName) -> Result<Secret, Error> {
        let Some(binding) = setting.policy.secrets.get(name) else { return Err(Failure::NotCovered.into()) };
        match &binding.source {
            Source::Item(item) => {
                let wanted = Wanted::Item {
                    item: item.item.clone(),
                    version: item.version,
                    stage: item.stage,
                    plain: binding.plain,
                };
                fetch_one(setting, name, &item.store, &wanted, item.field.as_ref(), &place_of(item))
            }
            Source::Ciphertext { store, ciphertext, context, field } => {
                let wanted = Wanted::Ciphertext { ciphertext: ciphertext.clone(), context: context.clone() };
                fetch_one(setting, name, store, &wanted, field.as_ref(), "a ciphertext of the policy")
            }
            Source::Template(template) => {
                let rendered = template.render(|part| self.get(part).map(Secret::expose));
                rendered.map(Secret::new).map_err(|error| match error {
                    RenderError::NotText(part) => ResolveError::NotText { name: name.clone(), part }.into(),
                    RenderError::Absent(_) => Failure::NotCovered.into(),
                })
            }
        }
    }
}

fn fetch_one(
    setting: &Setting<'_>,
    name: &VariableName,
    store: &StoreName,
    wanted: &Wanted,
    field: Option<&JsonPointer>,
    place: &str,
) -> Result<Secret, Error> {
    let mut answers = setting.open_store(store)?.fetch(std::slice::from_ref(wanted), setting.deadline())?;
    match answers.pop() {
        Some(Answer::Found(found)) => Ok(pick(name, found.value, field)?),
        _ => Err(NoItem { name: name.clone(), place: place.to_owned(), selection: setting.selection() }.into()),
    }
}
