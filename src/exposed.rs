//! What somebody removed could open, in the words of a policy: the name that it binds to an item, and the command that
//! replaces its value. `rekey`, `check` and `list` say it.

use schemars::JsonSchema;
use serde::Serialize;

use crate::inspect::rfc3339;
use crate::name::{StoreName, VariableName, escape};
use crate::policy::model::{Apply, Binding, ItemRef, Policy, Source, Stage};
use crate::store::document::{Exposed, ExposedState};

/// One item that somebody could open who must not any more.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ExposedValue {
    /// The variable; `null` where the policy binds the item to none.
    pub name: Option<String>,
    /// The store.
    pub store: String,
    /// The item.
    pub item: String,
    /// Its versions up to this one could be opened.
    pub version: u64,
    /// By whom: an age recipient, or the ARN of a KMS key.
    pub recipient: String,
    /// When that was noted (RFC 3339).
    pub since: String,
    /// What has become of it.
    pub state: State,
    /// The command that replaces the value, if that is due and there is one.
    pub next: Option<String>,
}

/// What has become of an exposed item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// An exposed version is in use, or pending; or it is the previous one, and the target that it is rotated at may accept it.
    Due,
    /// An exposed version is still the previous one; what is in use is not exposed, and no target is known.
    Previous,
    /// The item was removed.
    Removed,
    /// No exposed version is left.
    Replaced,
}

impl State {
    /// As it is printed.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Due => "DUE",
            Self::Previous => "previous",
            Self::Removed => "removed",
            Self::Replaced => "replaced",
        }
    }
}

impl ExposedValue {
    /// `selection` is the option that selects the policy, for the command.
    #[must_use]
    pub fn new(policy: &Policy, selection: &str, store: &StoreName, exposed: &Exposed) -> Self {
        let bound = best_binding(policy, store, exposed);
        let accepting = rotated_at_a_target(policy, store, exposed);
        let next = match (exposed.state, bound) {
            (ExposedState::Previous(_), _) => {
                accepting.map(|name| format!("vouchsafe rotate --only-step retire {name} {selection}"))
            }
            (ExposedState::Due, Some((name, Use::Rotated))) => Some(format!("vouchsafe rotate {name} {selection}")),
            (ExposedState::Due, Some((name, Use::Whole))) => Some(format!("vouchsafe set {name} {selection}")),
            _ => None,
        };
        Self {
            name: bound.map(|(name, _)| name).or(accepting).map(ToString::to_string),
            store: store.to_string(),
            item: escape(exposed.item.as_str()),
            version: exposed.number,
            recipient: escape(&exposed.recipient),
            since: rfc3339(exposed.since),
            state: match exposed.state {
                ExposedState::Due => State::Due,
                ExposedState::Gone => State::Replaced,
                ExposedState::Previous(_) if accepting.is_some() => State::Due,
                ExposedState::Previous(_) => State::Previous,
                ExposedState::Removed => State::Removed,
            },
            next,
        }
    }

    /// One sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let Self { store, item, version, recipient, .. } = self;
        let name = self.name.as_deref().unwrap_or("an item without a name");
        let (is, end) = match self.state {
            State::Due => ("is", format!("; to do: {}", self.to_do())),
            State::Previous => ("was", "; the previous version still is".to_owned()),
            State::Removed | State::Replaced => ("was", "; it is replaced".to_owned()),
        };
        format!("`{name}` ({store}:{item}) {is} exposed up to version {version}, to {recipient}{end}")
    }

    /// What replaces it; in words, where no command does.
    #[must_use]
    pub fn to_do(&self) -> &str {
        match (&self.next, self.state) {
            (Some(next), _) => next,
            (None, State::Due) => "bind the whole item to a name in the policy, then: vouchsafe set NAME",
            (None, _) => "",
        }
    }
}

/// What a binding makes of its item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    Rotated,
    Whole,
    /// A field, a fixed version or another stage: nothing that can be set.
    Part,
}

/// Several names may stand for one item; the one that can replace its value comes first.
fn best_binding<'p>(policy: &'p Policy, store: &StoreName, exposed: &Exposed) -> Option<(&'p VariableName, Use)> {
    let of_item = |(name, binding): (&'p VariableName, &'p Binding)| match &binding.source {
        Source::Item(item) if item.store == *store && item.item == exposed.item => Some((name, use_of(binding, item))),
        Source::Item(_) | Source::Ciphertext { .. } | Source::Template(_) => None,
    };
    policy.secrets.iter().filter_map(of_item).min_by_key(|(_, of)| *of)
}

/// The name by which something that accepts credentials is told to forget one of this item.
fn rotated_at_a_target<'p>(policy: &'p Policy, store: &StoreName, exposed: &Exposed) -> Option<&'p VariableName> {
    let is_of =
        |source: &Source| matches!(source, Source::Item(item) if item.store == *store && item.item == exposed.item);
    let has_target =
        |binding: &Binding| binding.rotate.as_ref().is_some_and(|rotation| !matches!(rotation.apply, Apply::None));
    policy.secrets.iter().find(|(_, binding)| is_of(&binding.source) && has_target(binding)).map(|(name, _)| name)
}

fn use_of(binding: &Binding, item: &ItemRef) -> Use {
    let is_whole =
        item.version.is_none() && item.field.is_none() && !matches!(item.stage, Some(Stage::Pending | Stage::Previous));
    match (is_whole, binding.rotate.is_some()) {
        (true, true) => Use::Rotated,
        (true, false) => Use::Whole,
        (false, _) => Use::Part,
    }
}
