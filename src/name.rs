//! Checked names: environment, service, store, variable, item.
//!
//! The constructor is the check, so whoever holds one of these may use it as its doc line says. Names are public: they
//! print everywhere, in contrast to a [`crate::secret::Secret`], which prints nowhere.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a text is not a name. The text itself is cited, because a name is never secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameError {
    kind: &'static str,
    text: String,
    rule: &'static str,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a valid {}: {}", escape(&self.text), self.kind, self.rule)
    }
}

impl std::error::Error for NameError {}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $check:path, $rule:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Checks `text`.
            ///
            /// # Errors
            /// The rule that `text` breaks.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                if $check(&text) { Ok(Self(text)) } else { Err(NameError { kind: $kind, text, rule: $rule }) }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl std::str::FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }
    };
}

name!(
    /// The name of an environment, such as `prod`. Safe as one component of a path.
    EnvironmentName,
    "environment name",
    is_label,
    LABEL_RULE
);
name!(
    /// The name of a service, such as `api`. Safe as one component of a path.
    ServiceName,
    "service name",
    is_label,
    LABEL_RULE
);
name!(
    /// The name of a store within a policy, such as `params`.
    StoreName,
    "store name",
    is_label,
    LABEL_RULE
);
name!(
    /// The name of an environment variable: POSIX.1-2017 section 8.1 without its wider, implementation-defined set.
    VariableName,
    "variable name",
    is_variable,
    VARIABLE_RULE
);
name!(
    /// The name of a value inside a store. 1,011 bytes is what SSM allows including the ARN, the widest of our stores.
    ItemName,
    "item name",
    is_item,
    "1 to 1011 bytes, without control characters or spaces at its ends"
);

/// What the name of an environment, service or store is made of.
pub const LABEL_RULE: &str = "letters, digits, `_`, `-` and `.`, starting with a letter or digit, at most 64 bytes";

/// What the name of a variable is made of.
pub const VARIABLE_RULE: &str = "letters, digits and `_`, not starting with a digit, at most 256 bytes";

fn is_label(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

fn is_variable(text: &str) -> bool {
    text.len() <= 256
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn is_item(text: &str) -> bool {
    // Nearly every name: a check by bytes takes many at a time.
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    (1..=1011).contains(&text.len()) && (is_plain || (!text.chars().any(is_unprintable) && text.trim() == text))
}

/// True for characters that could forge a line or hide text in a terminal: controls, bidirectional overrides, invisible
/// separators (Unicode Technical Report 36, section 3).
#[must_use]
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// Makes text from outside safe to print in a message or a listing: unprintable characters become `\u{..}`.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unprintable(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

/// A path in a message: bytes that are not UTF-8 are replaced, unprintable characters escaped.
#[must_use]
pub fn show(path: &std::path::Path) -> String {
    escape(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_safe_as_a_path_component() {
        for good in ["prod", "eu-west-1.prod", "a", "0", &"a".repeat(64)] {
            assert!(EnvironmentName::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "../prod", "a/b", "-x", ".hidden", "a b", "a\0", "prod\n", "é", &"a".repeat(65)] {
            assert!(EnvironmentName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_variable_name_can_hold_no_equals_sign() {
        for good in ["A", "_", "DATABASE_URL", "a1", &"A".repeat(256)] {
            assert!(VariableName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "1A", "A=B", "A-B", "A B", "A\0", "Ä", &"A".repeat(257)] {
            assert!(VariableName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_item_name_holds_nothing_that_forges_a_line() {
        for good in ["db", "/prod/api/db_url", "a b", "arn:aws:ssm:eu-west-1:111122223333:parameter/x", "clé"] {
            assert!(ItemName::new(good).is_ok(), "{good}");
        }
        for bad in ["", " a", "a ", "a\nb", "a\u{202e}b", "\u{1b}[31m", &"a".repeat(1012)] {
            assert!(ItemName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn escaping_leaves_no_control_byte() {
        assert_eq!(escape("a\n\u{1b}[1m\u{202e}é"), "a\\u{a}\\u{1b}[1m\\u{202e}é");
    }
}
