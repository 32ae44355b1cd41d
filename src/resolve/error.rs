//! Why there is not everything that was granted. Names only.

use std::fmt;

use crate::error::{Cause, Class};
use crate::name::{ItemName, StoreName, VariableName, escape};

/// Why there is not everything. Names only.
#[derive(Debug)]
pub enum ResolveError {
    /// A bundle brought a variable that no grant covers.
    BundleDenied(Vec<VariableName>),
    /// A bundle brought fewer items than `at_least`.
    BundleTooSmall {
        /// The store.
        store: StoreName,
        /// The path.
        path: String,
        /// What the policy wants.
        at_least: u32,
    },
    /// Two sources bring the same variable.
    Duplicate(VariableName),
    /// Older than `max_age`, or of unknown age, with `on_expired = "refuse"`.
    Expired(Vec<VariableName>),
    /// The value is no JSON, or has nothing at the pointer, or something that is no text.
    Field {
        /// The variable.
        name: VariableName,
        /// What is wrong.
        why: &'static str,
    },
    /// What ran before had other names than are granted now: these.
    NotAsBefore(Vec<VariableName>),
    /// Required and absent.
    Missing {
        /// Each one, and where it should be.
        missing: Vec<(VariableName, String)>,
        /// What to do about the first.
        hint: Option<String>,
    },
    /// A bundle's item whose name makes no variable, or one that changes how programs load.
    Unbindable {
        /// The item.
        item: ItemName,
        /// Why not.
        why: &'static str,
    },
    /// A template's part is not text where the filter needs text.
    NotText {
        /// The template's variable.
        name: VariableName,
        /// The part.
        part: VariableName,
    },
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BundleDenied(names) => write!(f, "no grant covers {}, which a bundle brings", list(names)),
            Self::BundleTooSmall { store, path, at_least } => {
                write!(f, "the bundle `{}` of store `{store}` holds fewer than {at_least} items", escape(path))
            }
            Self::Duplicate(name) => write!(f, "two sources bring `{name}`"),
            Self::Expired(names) => write!(f, "older than its `max_age`, or of unknown age: {}", list(names)),
            Self::Field { name, why } => write!(f, "the field of `{name}`: {why}"),
            Self::Missing { missing, .. } => {
                let missing: Vec<_> = missing.iter().map(|(name, place)| format!("`{name}` ({place})")).collect();
                write!(f, "no value for {}", missing.join(", "))
            }
            Self::NotAsBefore(names) => {
                write!(f, "what is granted are not the secrets of before any more: {}", list(names))
            }
            Self::Unbindable { item, why } => write!(f, "the item `{}` of a bundle {why}", escape(item.as_str())),
            Self::NotText { name, part } => {
                write!(f, "the template of `{name}` needs text, and `{part}` is not UTF-8")
            }
        }
    }
}

impl Cause for ResolveError {
    fn class(&self) -> Class {
        match self {
            Self::BundleDenied(_) | Self::NotAsBefore(_) => Class::Denied,
            Self::BundleTooSmall { .. } | Self::Missing { .. } => Class::Missing,
            Self::Duplicate(_) | Self::Unbindable { .. } => Class::Policy,
            Self::Expired(_) | Self::Field { .. } | Self::NotText { .. } => Class::Store,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Expired(names) => names.first().map(|name| format!("vouchsafe set {name}   # writes a new version")),
            Self::Missing { hint, .. } => hint.clone(),
            Self::BundleTooSmall { .. } => Some("an empty bundle is fine with `at_least = 0`".into()),
            Self::Unbindable { .. } => Some("bind it by name under [secrets] instead".into()),
            Self::BundleDenied(_)
            | Self::Duplicate(_)
            | Self::NotAsBefore(_)
            | Self::Field { .. }
            | Self::NotText { .. } => None,
        }
    }
}

fn list(names: &[VariableName]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
