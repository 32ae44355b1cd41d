//! A name on the command line that is not what the command works on.

use std::fmt;

use crate::error::{Cause, Class};
use crate::name::VariableName;

/// The name is bound to something that is no single item.
#[derive(Debug)]
pub struct NotAnItem {
    /// The variable.
    pub name: VariableName,
}

impl fmt::Display for NotAnItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is a template or a ciphertext of the policy itself, not an item of a store", self.name)
    }
}

impl Cause for NotAnItem {
    fn class(&self) -> Class {
        Class::Usage
    }

    fn hint(&self) -> Option<String> {
        Some("for a template, name one of its parts".into())
    }
}

/// The policy has no such name.
#[derive(Debug)]
pub struct NotBound {
    /// The variable.
    pub name: VariableName,
    /// The nearest name that the policy has.
    pub nearest: Option<String>,
}

impl fmt::Display for NotBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the policy has no secret `{}`", self.name)
    }
}

impl Cause for NotBound {
    fn class(&self) -> Class {
        Class::Usage
    }

    fn hint(&self) -> Option<String> {
        Some(self.nearest.as_ref().map_or_else(
            || format!("add a line under [secrets] first: {} = {{}}", self.name),
            |nearest| format!("did you mean `{nearest}`? A new one needs a line under [secrets] first"),
        ))
    }
}

/// The store has no such item.
#[derive(Debug)]
pub struct NoItem {
    /// The variable.
    pub name: VariableName,
    /// Where it should be.
    pub place: String,
    /// The option that selects the policy.
    pub selection: String,
}

impl fmt::Display for NoItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no value for `{}` ({})", self.name, self.place)
    }
}

impl Cause for NoItem {
    fn class(&self) -> Class {
        Class::Missing
    }

    fn hint(&self) -> Option<String> {
        Some(format!("vouchsafe list {}   # says what there is", self.selection))
    }
}
