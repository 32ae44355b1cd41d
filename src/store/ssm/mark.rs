//! The mark of a version that rotation wrote: what it came after, in the parameter's description. Pure.
//!
//! A label can only be put on a version that is there already, so between the two calls a kill would leave a version that
//! nothing tells from one of another tool. The description is written in the same call as the value. It is inherited where
//! a later writer gives none, so a mark says after which version it was written, and counts on the very next one alone.

use std::fmt;

/// Characters of a description (PutParameter, Description).
const MOST: usize = 1024;
const OPENING: &str = "[vouchsafe rotate: after version ";

/// What rotation wrote down with a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// The newest version before it.
    pub(super) after: u64,
    /// What it was written for.
    pub(super) purpose: Purpose,
}

/// What a version was written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To become current where it stands.
    Here,
    /// Apart: to come after this version of the parameter itself.
    Apart(u64),
    /// On the parameter itself: what this version of the one apart holds.
    Promoted(u64),
    /// On the parameter itself: what this older version of it holds.
    Again(u64),
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{OPENING}{}", self.after)?;
        match self.purpose {
            Purpose::Here => write!(f, "]"),
            Purpose::Apart(number) => write!(f, ", for version {number}]"),
            Purpose::Promoted(number) => write!(f, ", from pending version {number}]"),
            Purpose::Again(number) => write!(f, ", again version {number}]"),
        }
    }
}

/// The text of a description without a mark, and the mark, whichever version it was written for.
pub(super) fn split(description: &str) -> (&str, Option<Mark>) {
    match description.rfind(OPENING).and_then(|at| description.split_at_checked(at)) {
        Some((text, mark)) => match parse(mark) {
            Some(mark) => (text.trim_end(), Some(mark)),
            None => (description, None),
        },
        None => (description, None),
    }
}

fn parse(text: &str) -> Option<Mark> {
    let inside = text.strip_prefix(OPENING)?.strip_suffix(']')?;
    let (after, purpose) = match inside.split_once(", ") {
        None => (inside, Purpose::Here),
        Some((after, rest)) => {
            let (words, number) = rest.rsplit_once(' ')?;
            let number = number.parse().ok()?;
            let purpose = match words {
                "for version" => Purpose::Apart(number),
                "from pending version" => Purpose::Promoted(number),
                "again version" => Purpose::Again(number),
                _ => return None,
            };
            (after, purpose)
        }
    };
    Some(Mark { after: after.parse().ok()?, purpose })
}

/// The description of a new version: the text that stood there, as far as there is room for it, and the mark.
pub(super) fn describe(text: &str, mark: Mark) -> String {
    let mark = mark.to_string();
    if text.is_empty() {
        return mark;
    }
    let text: String = text.chars().take(MOST.saturating_sub(mark.chars().count() + 1)).collect();
    format!("{text} {mark}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written_and_the_text_stays() {
        let purposes = [Purpose::Here, Purpose::Apart(7), Purpose::Promoted(2), Purpose::Again(u64::MAX)];
        for mark in purposes.map(|purpose| Mark { after: 41, purpose }) {
            for text in ["", "of the payments team", "a [bracket]", "12"] {
                assert_eq!(split(&describe(text, mark)), (text, Some(mark)));
                // The next rotation replaces the mark, and does not add one.
                let next = Mark { after: 42, ..mark };
                assert_eq!(split(&describe(split(&describe(text, mark)).0, next)), (text, Some(next)));
            }
        }
    }

    #[test]
    fn what_is_not_exactly_a_mark_is_text() {
        for text in [
            "",
            "7",
            "[vouchsafe rotate: after version 7",
            "[vouchsafe rotate: after version -7]",
            "[vouchsafe rotate: after version 7, for version]",
            "[vouchsafe rotate: after version 7, for version x]",
            "[vouchsafe rotate: after version 7, of version 8]",
            "[vouchsafe rotate: after version 7] and more",
        ] {
            assert_eq!(split(text), (text, None));
        }
    }

    proptest! {
        #[test]
        fn a_description_is_never_too_long_and_keeps_its_mark(text in "\\PC{0,1100}", after: u64) {
            let mark = Mark { after, purpose: Purpose::Again(after) };
            let made = describe(&text, mark);
            prop_assert!(made.chars().count() <= MOST);
            prop_assert_eq!(split(&made).1, Some(mark));
        }
    }
}
