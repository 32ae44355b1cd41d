//! A failure that several wait for: what is said of it, without what it was.

use std::fmt;

use crate::error::{Cause, Class, Error};

/// Class, sentence and hint of an error. Names only, as in any error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its class.
    pub class: Class,
    /// What failed, on what object.
    pub message: String,
    /// What can be done about it.
    pub hint: Option<String>,
}

impl Failure {
    /// What is said of `cause`.
    #[must_use]
    pub fn of(cause: &dyn Cause) -> Self {
        Self { class: cause.class(), message: cause.to_string(), hint: cause.hint() }
    }

    /// What is said of `error`.
    #[must_use]
    pub fn of_error(error: &Error) -> Self {
        Self { class: error.class(), message: error.to_string(), hint: error.hint() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Cause for Failure {
    fn class(&self) -> Class {
        self.class
    }

    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}
