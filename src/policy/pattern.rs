//! Globs over names and paths: anchored, `*` is the only wildcard and does not cross `/`.
//!
//! Kept this small so that it can be checked against a reference by a property test: a pattern decides who gets a secret.

use std::fmt;

use crate::name::escape;

/// A glob. `*` matches any run of characters but `/`; every other character matches itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern(String);

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternError {
    text: String,
    rule: &'static str,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a valid pattern: {}", escape(&self.text), self.rule)
    }
}

impl Pattern {
    /// The longest pattern, in bytes.
    pub const MAX: usize = 1024;

    /// Checks `text`. Characters that other glob languages give a meaning are refused instead of taken literally, so that
    /// nobody believes that `{a,b}` or `**` works here.
    ///
    /// # Errors
    /// The rule that `text` breaks.
    pub fn new(text: impl Into<String>) -> Result<Self, PatternError> {
        let text = text.into();
        let rule = if text.is_empty() {
            "it is empty"
        } else if text.len() > Self::MAX {
            "it is longer than 1024 bytes"
        } else if text.contains("**") {
            "`*` does not cross `/`, and there is no `**`"
        } else if text.contains(['?', '[', ']', '{', '}', '!', '\\']) {
            "`*` is the only wildcard"
        } else if text.chars().any(crate::name::is_unprintable) {
            "it contains unprintable characters"
        } else {
            return Ok(Self(text));
        };
        Err(PatternError { text, rule })
    }

    /// Whether the whole of `text` matches. Linear in each `*`: the last star is the only one that is ever retried.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut p, mut t) = (0, 0);
        let mut retry: Option<(usize, usize)> = None;
        while t < text.len() {
            if pattern.get(p) == Some(&b'*') {
                retry = Some((p + 1, t));
                p += 1;
            } else if pattern.get(p).is_some() && pattern.get(p) == text.get(t) {
                p += 1;
                t += 1;
            } else if let Some((after_star, taken_to)) = retry
                && text.get(taken_to) != Some(&b'/')
            {
                retry = Some((after_star, taken_to + 1));
                p = after_star;
                t = taken_to + 1;
            } else {
                return false;
            }
        }
        pattern.get(p..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
    }

    /// The pattern as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it has a wildcard.
    #[must_use]
    pub fn is_glob(&self) -> bool {
        self.0.contains('*')
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What `matches` has to agree with: every way to split, tried one after the other.
    fn reference(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => {
                reference(rest, text)
                    || text.split_first().is_some_and(|(first, t)| *first != b'/' && reference(pattern, t))
            }
            (Some((p, pattern)), Some((t, text))) => p == t && reference(pattern, text),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_reference(pattern in "[ab/*]{1,8}", text in "[ab/]{0,10}") {
            prop_assume!(!pattern.contains("**"));
            let compiled = Pattern::new(pattern.clone()).unwrap();
            prop_assert_eq!(compiled.matches(&text), reference(pattern.as_bytes(), text.as_bytes()));
        }
    }

    #[test]
    fn a_star_stays_within_its_segment() {
        let pattern = |text: &str| Pattern::new(text).unwrap();
        assert!(pattern("DB_*").matches("DB_URL"));
        assert!(pattern("*").matches(""));
        assert!(pattern("/usr/bin/*").matches("/usr/bin/api"));
        assert!(!pattern("/usr/*").matches("/usr/bin/api"));
        assert!(!pattern("DB_*").matches("XDB_URL"));
        assert!(!pattern("*").matches("a/b"));
        assert!(pattern("*/*").matches("a/b"));
        assert!(!pattern("*/*").matches("a/b/c"));
    }

    #[test]
    fn other_glob_languages_are_refused() {
        for text in ["", "**", "a?", "[ab]", "{a,b}", "[!-~]", "a\\*", "a\nb", &"a".repeat(1025)] {
            assert!(Pattern::new(text).is_err(), "{text:?}");
        }
    }
}
