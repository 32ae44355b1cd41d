//! Passwords: which characters they have, and how many of them there are.

/// A password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Password {
    /// Characters.
    pub length: usize,
    /// Which characters.
    pub alphabet: Alphabet,
    /// Characters that it must not have, ASCII.
    pub exclude: Vec<u8>,
    /// Classes of which it has at least one character each.
    pub require: Vec<CharacterClass>,
}

/// The characters of a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alphabet {
    /// `A-Z a-z 0-9`.
    Alphanumeric,
    /// `0-9 a-f`.
    Hex,
    /// Every printable ASCII character but space, quotes, backslash, `@` and `/`.
    Printable,
    /// `A-Z a-z 0-9 - _` (RFC 4648 section 5).
    UrlSafe,
}

/// What a target may want at least one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CharacterClass {
    /// `0-9`.
    Digit,
    /// `a-z`.
    Lower,
    /// Anything that is no letter and no digit.
    Symbol,
    /// `A-Z`.
    Upper,
}

impl Alphabet {
    /// Its characters, each once, in ASCII order.
    #[must_use]
    pub fn characters(self) -> Vec<u8> {
        let wanted = |byte: &u8| match self {
            Self::Alphanumeric => byte.is_ascii_alphanumeric(),
            Self::Hex => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
            Self::Printable => byte.is_ascii_graphic() && !b"'\"`\\@/".contains(byte),
            Self::UrlSafe => byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'),
        };
        (0..=u8::MAX).filter(wanted).collect()
    }
}

impl CharacterClass {
    /// Whether `byte`, a character of an alphabet, is of this class.
    #[must_use]
    pub fn has(self, byte: u8) -> bool {
        match self {
            Self::Digit => byte.is_ascii_digit(),
            Self::Lower => byte.is_ascii_lowercase(),
            Self::Symbol => byte.is_ascii_punctuation(),
            Self::Upper => byte.is_ascii_uppercase(),
        }
    }

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Digit => "digit",
            Self::Lower => "lower",
            Self::Symbol => "symbol",
            Self::Upper => "upper",
        }
    }
}

impl Password {
    /// What it is made of: the alphabet without what is excluded.
    #[must_use]
    pub fn characters(&self) -> Vec<u8> {
        let mut characters = self.alphabet.characters();
        characters.retain(|byte| !self.exclude.contains(byte));
        characters
    }

    /// How many bits whoever guesses it lacks: the binary logarithm of the number of passwords that it may be, since each is
    /// as likely as any other. Nothing, or infinitely less, if there is none.
    #[must_use]
    pub fn bits(&self) -> f64 {
        let characters = self.characters().len();
        self.length as f64 * (characters as f64).log2() + self.share_with_all_classes().log2()
    }

    /// The share of the strings over [`Self::characters`] that have every required class, from 0 to 1: by inclusion and
    /// exclusion over the classes that a string lacks.
    #[must_use]
    pub fn share_with_all_classes(&self) -> f64 {
        let characters = self.characters();
        let mut classes = self.require.clone();
        classes.sort_unstable();
        classes.dedup();
        // What cancels out on paper leaves a trace in floating point.
        if !classes.iter().all(|class| characters.iter().any(|byte| class.has(*byte))) {
            return 0.0;
        }
        let lacking = |which: usize| {
            let lacked = classes.iter().enumerate().filter(|(bit, _)| which >> bit & 1 == 1);
            let lacked: Vec<_> = lacked.map(|(_, class)| class).collect();
            let left = characters.iter().filter(|byte| !lacked.iter().any(|class| class.has(**byte))).count();
            let share = (left as f64 / characters.len().max(1) as f64).powf(self.length as f64);
            if lacked.len().is_multiple_of(2) { share } else { -share }
        };
        (0..1_usize << classes.len()).map(lacking).sum::<f64>().clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASSES: [CharacterClass; 4] =
        [CharacterClass::Digit, CharacterClass::Lower, CharacterClass::Symbol, CharacterClass::Upper];

    #[test]
    fn alphabets_are_exact() {
        let text = |alphabet: Alphabet| String::from_utf8(alphabet.characters()).unwrap();
        let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
        let lower = letters.to_lowercase();
        assert_eq!(text(Alphabet::Hex), "0123456789abcdef");
        assert_eq!(text(Alphabet::Alphanumeric), format!("0123456789{letters}{lower}"));
        assert_eq!(text(Alphabet::UrlSafe), format!("-0123456789{letters}_{lower}"));
        assert_eq!(text(Alphabet::Printable), format!("!#$%&()*+,-.0123456789:;<=>?{letters}[]^_{lower}{{|}}~"));
    }

    #[test]
    fn every_character_is_of_one_class() {
        for alphabet in [Alphabet::Alphanumeric, Alphabet::Hex, Alphabet::Printable, Alphabet::UrlSafe] {
            for byte in alphabet.characters() {
                assert_eq!(CLASSES.iter().filter(|class| class.has(byte)).count(), 1, "{byte}");
            }
        }
    }

    /// Counted one by one, over all strings of an alphabet that is small enough for it.
    #[test]
    fn the_share_and_the_bits_are_those_of_counting() {
        let exclude: Vec<u8> = (0..=u8::MAX).filter(|byte| !b"07abcXY-".contains(byte)).collect();
        for length in 1..=5 {
            for which in 0..16 {
                let require: Vec<_> = CLASSES
                    .iter()
                    .enumerate()
                    .filter(|(bit, _)| which >> bit & 1 == 1)
                    .map(|(_, class)| *class)
                    .collect();
                let what = Password { length, alphabet: Alphabet::UrlSafe, exclude: exclude.clone(), require };
                let characters = what.characters();
                let all = characters.len().pow(u32::try_from(length).unwrap());
                let good = (0..all).filter(|index| {
                    let string: Vec<u8> = (0..length)
                        .scan(*index, |rest, _| {
                            let byte = characters[*rest % characters.len()];
                            *rest /= characters.len();
                            Some(byte)
                        })
                        .collect();
                    what.require.iter().all(|class| string.iter().any(|byte| class.has(*byte)))
                });
                let good = good.count();
                let share = good as f64 / all as f64;
                assert!((what.share_with_all_classes() - share).abs() < 1e-9, "{what:?}: {share}");
                if good > 0 {
                    assert!((what.bits() - (good as f64).log2()).abs() < 1e-6, "{what:?}: {good}");
                } else {
                    assert!(what.bits() == f64::NEG_INFINITY || length < what.require.len(), "{what:?}");
                }
            }
        }
    }
}
