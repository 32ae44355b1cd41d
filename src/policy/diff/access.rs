//! Who can get which value: by grants, inside templates, out of bundles, and as a program that rotates. Pure.
//!
//! Access is a set of pairs, of who and of what it reaches. A pair that another one takes in is no access of its own, so that
//! two rules that say the same otherwise are no difference.

use std::collections::BTreeMap;

use super::audience::Who;
use super::side::{Side, StoreId};
use super::{Found, Sign, quoted};
use crate::name::{ItemName, VariableName};
use crate::policy::model::{Apply, Binding, Generate, JsonPointer, NameStyle, Source, Stage};
use crate::policy::pattern::Pattern;
use crate::policy::reach;

/// What somebody can get.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum What<'p> {
    /// What a bundle brings under names that match.
    Bundled { names: Pattern, store: StoreId<'p>, path: &'p str, recursive: bool, style: NameStyle },
    /// A variable, and which value that is.
    Variable { name: VariableName, value: Value<'p> },
}

/// Which value a variable has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Value<'p> {
    /// A ciphertext of the policy.
    Ciphertext { store: StoreId<'p>, ciphertext: &'p [u8], context: &'p BTreeMap<String, String>, field: &'p [String] },
    /// An item.
    Item { store: StoreId<'p>, item: &'p str, version: Option<u64>, stage: Option<Stage>, field: &'p [String] },
    /// Made of others, each of which is an access of its own.
    Made,
}

/// The template that brings it along, if it is not got by itself.
type Access<'p> = BTreeMap<(What<'p>, Who), Option<VariableName>>;

pub(super) fn compare(old: &Side<'_>, new: &Side<'_>, found: &mut Found) {
    let (before, after) = (access(old), access(new));
    for (who, what) in beyond(&after, &before) {
        found.add(Sign::Gain, format!("{who} can get {what}"));
    }
    for (who, what) in beyond(&before, &after) {
        found.add(Sign::Loss, format!("{who} can no longer get {what}"));
    }
}

/// What is in the first and not in the second.
fn beyond(these: &Access<'_>, those: &Access<'_>) -> Vec<(String, String)> {
    let mut by_what: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (what, who) in those.keys() {
        by_what.entry(what.name()).or_default().push((what, who));
    }
    let differ = these.iter().flat_map(|((what, who), inside)| {
        let near = by_what.get(&what.name()).into_iter().flatten();
        let holders: Vec<&Who> = near.filter(|(other, _)| other.covers(what)).map(|(_, who)| *who).collect();
        let words = what.words(inside.as_ref());
        who.beyond(&holders).into_iter().map(move |who| (who.words(), words.clone()))
    });
    differ.collect()
}

fn access<'p>(side: &Side<'p>) -> Access<'p> {
    let mut access = Access::new();
    let mut add = |who: Who, (name, inside): (&VariableName, Option<&VariableName>)| {
        let Some(binding) = side.policy.secrets.get(name) else { return };
        let what = What::Variable { name: name.clone(), value: value(side, binding) };
        let through = access.entry((what, who)).or_insert_with(|| inside.cloned());
        if inside.is_none() {
            *through = None;
        }
    };
    for rule in &side.policy.grants {
        for given in reach::given(side.policy, rule) {
            add(Who::of(rule), given);
        }
    }
    for (name, binding) in &side.policy.secrets {
        for (who, needs) in rotators(name, binding) {
            for need in needs {
                reach::with_parts(side.policy, need).for_each(|reached| add(who.clone(), reached));
            }
        }
    }
    for rule in &side.policy.grants {
        // A name that a binding has is none that a bundle could bring.
        let is_bound = |pattern: &Pattern| side.policy.secrets.keys().any(|name| name.as_str() == pattern.as_str());
        for names in rule.secrets.iter().filter(|pattern| !is_bound(pattern)) {
            for bundle in &side.policy.bundles {
                let Some(store) = side.id(&bundle.store) else { continue };
                let (recursive, style) = (bundle.recursive, bundle.names);
                let what = What::Bundled { names: names.clone(), store, path: &bundle.path, recursive, style };
                access.insert((what, Who::of(rule)), None);
            }
        }
    }
    access
}

/// What rotates a value, and what it gets for that: the value itself, and what it needs.
fn rotators<'p>(name: &'p VariableName, binding: &'p Binding) -> Vec<(Who, Vec<&'p VariableName>)> {
    let Some(rotation) = &binding.rotate else { return Vec::new() };
    let apply = match &rotation.apply {
        Apply::Command(program) => Some(program),
        Apply::None | Apply::Postgres(_) => None,
    };
    let generate = match &rotation.generate {
        Generate::Command(program) => Some(program),
        Generate::Random(_) => None,
    };
    let programs = apply.into_iter().chain(generate).map(|program| {
        let path = program.path.to_string_lossy().into_owned();
        (Who::Program { path, of: name.clone() }, [name].into_iter().chain(&program.needs).collect())
    });
    let postgres = match &rotation.apply {
        Apply::Postgres(postgres) => Some((Who::Postgres { of: name.clone() }, vec![name, &postgres.admin])),
        Apply::Command(_) | Apply::None => None,
    };
    programs.chain(postgres).collect()
}

/// What the variable's value is, as far as it can be told without a store.
pub(super) fn value<'p>(side: &Side<'p>, binding: &'p Binding) -> Value<'p> {
    let pointer = |field: &'p Option<JsonPointer>| field.as_ref().map_or(&[][..], |pointer| pointer.0.as_slice());
    match &binding.source {
        Source::Ciphertext { store, ciphertext, context, field } => match side.id(store) {
            Some(store) => Value::Ciphertext { store, ciphertext, context, field: pointer(field) },
            None => Value::Made,
        },
        Source::Item(item) => match side.id(&item.store) {
            Some(store) => Value::Item {
                store,
                item: ItemName::as_str(&item.item),
                version: item.version,
                // What `rotate` says anyhow.
                stage: item.stage.filter(|stage| *stage != Stage::Current),
                field: pointer(&item.field),
            },
            None => Value::Made,
        },
        Source::Template(_) => Value::Made,
    }
}

impl What<'_> {
    /// What can only be covered by what has the same.
    fn name(&self) -> Option<&VariableName> {
        match self {
            Self::Bundled { .. } => None,
            Self::Variable { name, .. } => Some(name),
        }
    }

    /// Whether who has this has `other` too.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Bundled { names, store, path, recursive, style },
                Self::Bundled { names: n, store: s, path: p, recursive: r, style: y },
            ) => names.matches(n.as_str()) && (store, path, style) == (s, p, y) && (*recursive || !*r),
            (Self::Variable { name, value }, Self::Variable { name: n, value: v }) => name == n && value.covers(v),
            (Self::Bundled { .. }, Self::Variable { .. }) | (Self::Variable { .. }, Self::Bundled { .. }) => false,
        }
    }

    fn words(&self, inside: Option<&VariableName>) -> String {
        match self {
            Self::Bundled { names, store, path, recursive, style: _ } => {
                let below = if *recursive { "anywhere below" } else { "below" };
                let (names, path, store) = (quoted(names.as_str()), quoted(path), store.words());
                format!("what a bundle brings as {names} from {below} {path} of store {store}")
            }
            Self::Variable { name, value } => {
                let inside = inside.map(|whole| format!(", inside {}", quoted(whole.as_str()))).unwrap_or_default();
                match value {
                    Value::Made => format!("{}{inside}", quoted(name.as_str())),
                    _ => format!("{}, which is {}{inside}", quoted(name.as_str()), value.words()),
                }
            }
        }
    }
}

impl Value<'_> {
    /// Whether who has this has `other` too: the whole of a JSON value has each field of it.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Ciphertext { store, ciphertext, context, field },
                Self::Ciphertext { store: s, ciphertext: t, context: c, field: f },
            ) => (store, ciphertext, context) == (s, t, c) && f.starts_with(field),
            (
                Self::Item { store, item, version, stage, field },
                Self::Item { store: s, item: i, version: v, stage: t, field: f },
            ) => (store, item, version, stage) == (s, i, v, t) && f.starts_with(field),
            (Self::Made, Self::Made) => true,
            (Self::Ciphertext { .. } | Self::Item { .. } | Self::Made, _) => false,
        }
    }

    pub(super) fn words(&self) -> String {
        let pointer = |field: &[String]| match field {
            [] => String::new(),
            tokens => {
                let tokens = tokens.iter().map(|token| token.replace('~', "~0").replace('/', "~1"));
                let text: String = tokens.map(|token| format!("/{token}")).collect();
                format!("field {} of ", quoted(&text))
            }
        };
        match self {
            Self::Ciphertext { store, ciphertext: _, context, field } => {
                let context = super::list(context.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]));
                format!(
                    "{}a ciphertext of the policy under store {} with context {context}",
                    pointer(field),
                    store.words()
                )
            }
            Self::Item { store, item, version, stage, field } => {
                let version = version.map(|version| format!("version {version} of ")).unwrap_or_default();
                let stage = stage.map(|stage| format!("the {} version of ", stage.word())).unwrap_or_default();
                format!("{}{version}{stage}item {} of store {}", pointer(field), quoted(item), store.words())
            }
            Self::Made => "made of others".to_owned(),
        }
    }
}
