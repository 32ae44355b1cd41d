//! Passwords: every string that the rules allow is as likely as any other.
//!
//! Bytes that would favour the first characters are thrown away, so there is no modulo bias; a string that lacks a required
//! class is thrown away as a whole. To put the missing character in instead would favour strings that have only one of it.

use zeroize::{Zeroize, Zeroizing};

use super::{Fill, GenerateError};
use crate::policy::model::Password;
use crate::secret::Secret;

/// Characters that one value may have.
pub const MAX_LENGTH: usize = 4096;

/// Strings drawn until one has every class. Of any rules that a policy may have, at least one string in 17 does
/// (`the_tries_are_enough`), so all of them fail with a chance below 2^-350: then the randomness is none.
const TRIES: usize = 4096;

pub(super) fn draw(what: &Password, fill: &mut Fill<'_>) -> Result<Secret, GenerateError> {
    if what.length == 0 || what.length > MAX_LENGTH {
        return Err(GenerateError::Length);
    }
    let characters = what.characters();
    if characters.is_empty() {
        return Err(GenerateError::Rules);
    }
    let mut value = Zeroizing::new(Vec::with_capacity(what.length));
    for _ in 0..TRIES {
        value.zeroize();
        string(&characters, what.length, &mut value, fill)?;
        if what.require.iter().all(|class| value.iter().any(|byte| class.has(*byte))) {
            return Ok(Secret::new(std::mem::take(&mut *value)));
        }
    }
    Err(GenerateError::Rules)
}

fn string(characters: &[u8], length: usize, value: &mut Vec<u8>, fill: &mut Fill<'_>) -> Result<(), GenerateError> {
    let even = 256 - 256 % characters.len();
    let mut bytes = Zeroizing::new([0_u8; 128]);
    while value.len() < length {
        fill(bytes.as_mut())?;
        let drawn = bytes.iter().map(|byte| usize::from(*byte)).filter(|number| *number < even);
        let drawn = drawn.filter_map(|number| characters.get(number % characters.len()));
        let missing = length - value.len();
        value.extend(drawn.take(missing));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::policy::model::{Alphabet, CharacterClass, Random};
    use crate::rotate::generate::generate;

    const ALPHABETS: [Alphabet; 4] = [Alphabet::Alphanumeric, Alphabet::Hex, Alphabet::Printable, Alphabet::UrlSafe];
    const CLASSES: [CharacterClass; 4] =
        [CharacterClass::Digit, CharacterClass::Lower, CharacterClass::Symbol, CharacterClass::Upper];

    fn plain(length: usize, alphabet: Alphabet) -> Password {
        Password { length, alphabet, exclude: Vec::new(), require: Vec::new() }
    }

    fn made(what: &Password) -> Secret {
        generate(&Random::Password(what.clone())).unwrap().value
    }

    fn refused(what: Password) -> Option<GenerateError> {
        generate(&Random::Password(what)).err()
    }

    /// The bytes 0 to 255, again and again.
    fn counting() -> impl FnMut(&mut [u8]) -> Result<(), GenerateError> {
        let mut next = 0_u8;
        move |bytes| {
            bytes.iter_mut().for_each(|byte| {
                *byte = next;
                next = next.wrapping_add(1);
            });
            Ok(())
        }
    }

    #[test]
    fn a_value_has_its_length_and_only_characters_of_its_alphabet() {
        for alphabet in ALPHABETS {
            for length in [1, 40, 127, 129, MAX_LENGTH] {
                let value = made(&plain(length, alphabet));
                assert_eq!(value.expose().len(), length);
                assert!(value.expose().iter().all(|byte| alphabet.characters().contains(byte)));
            }
        }
        assert_eq!(refused(plain(0, Alphabet::Hex)), Some(GenerateError::Length));
        assert_eq!(refused(plain(MAX_LENGTH + 1, Alphabet::Hex)), Some(GenerateError::Length));
    }

    #[test]
    fn what_is_excluded_is_absent_and_what_is_required_is_there() {
        let what = Password {
            length: 16,
            alphabet: Alphabet::Printable,
            exclude: b"0OIl1/@\"'\\$ abc".to_vec(),
            require: CLASSES.to_vec(),
        };
        for _ in 0..2000 {
            let value = made(&what);
            assert!(!value.expose().iter().any(|byte| what.exclude.contains(byte)));
            assert!(CLASSES.iter().all(|class| value.expose().iter().any(|byte| class.has(*byte))));
        }
    }

    #[test]
    fn rules_that_no_string_follows_end() {
        let hex = |exclude: &[u8], require: &[CharacterClass]| Password {
            exclude: exclude.to_vec(),
            require: require.to_vec(),
            ..plain(16, Alphabet::Hex)
        };
        assert_eq!(refused(hex(b"0123456789abcdef", &[])), Some(GenerateError::Rules));
        assert_eq!(refused(hex(b"", &[CharacterClass::Symbol])), Some(GenerateError::Rules));
        assert_eq!(refused(hex(b"0123456789", &[CharacterClass::Digit])), Some(GenerateError::Rules));
        assert_eq!(made(&hex(b"0123456789bcdef", &[])).expose(), b"aaaaaaaaaaaaaaaa");
    }

    /// Over every byte value once, each character must come out equally often: that is what "no modulo bias" means.
    #[test]
    fn every_character_is_as_likely_as_any_other() {
        for alphabet in ALPHABETS {
            for exclude in [&b""[..], b"a", b"0123abc"] {
                let mut what = Password { exclude: exclude.to_vec(), ..plain(0, alphabet) };
                let characters = what.characters();
                what.length = 256 - 256 % characters.len();
                let value = draw(&what, &mut counting()).unwrap();
                for character in &characters {
                    let count = value.expose().iter().filter(|byte| *byte == character).count();
                    assert_eq!(count, what.length / characters.len());
                }
            }
        }
    }

    /// Every sequence of bytes once: each string that follows the rules must come out equally often. Three characters `0`, `a`,
    /// `b` (of which the bytes 0 to 254 are 85 each) and one digit wanted in two: `00`, `0a`, `0b`, `a0`, `b0`.
    #[test]
    fn every_string_that_the_rules_allow_is_as_likely_as_any_other() {
        let exclude = b"123456789cdef".to_vec();
        let what = Password { exclude, require: vec![CharacterClass::Digit], ..plain(2, Alphabet::Hex) };
        let mut counts = BTreeMap::new();
        for first in 0..=254_u8 {
            for second in 0..=254_u8 {
                // A second string, if the first one lacks the digit, is counted apart.
                let mut draws = 0;
                let mut fill = |bytes: &mut [u8]| {
                    draws += 1;
                    bytes.fill(0);
                    if draws == 1 {
                        bytes[0] = first;
                        bytes[1] = second;
                    }
                    Ok(())
                };
                let value = draw(&what, &mut fill).unwrap();
                *counts.entry((draws, value.expose().to_vec())).or_insert(0) += 1;
            }
        }
        let expected: Vec<_> =
            [&b"00"[..], b"0a", b"0b", b"a0", b"b0"].map(|text| ((1, text.to_vec()), 85 * 85)).into();
        let (once, again): (Vec<_>, Vec<_>) = counts.into_iter().partition(|((draws, _), _)| *draws == 1);
        assert_eq!(once, expected);
        assert_eq!(again, [((2, b"00".to_vec()), 4 * 85 * 85)], "what lacks the digit is drawn again as a whole");
    }

    /// Chi-square over 400,000 draws. The bound is 8 standard deviations, so that it fails for a reason only.
    #[test]
    fn real_draws_look_uniform() {
        for alphabet in ALPHABETS {
            for exclude in [&b""[..], b"05af"] {
                let what = Password { exclude: exclude.to_vec(), ..plain(4000, alphabet) };
                let characters = what.characters();
                let mut counts = [0_f64; 256];
                for _ in 0..100 {
                    made(&what).expose().iter().for_each(|byte| counts[usize::from(*byte)] += 1.0);
                }
                let expected = 400_000.0 / characters.len() as f64;
                let chi: f64 = characters.iter().map(|c| (counts[usize::from(*c)] - expected).powi(2) / expected).sum();
                assert_likely(chi, characters.len() - 1);
            }
        }
    }

    /// The same over whole strings with required classes, where a generator that patches strings would be caught: of two
    /// characters `0` and `a` in three places, with both wanted, six strings are left.
    #[test]
    fn real_draws_with_required_classes_look_uniform() {
        let require = vec![CharacterClass::Digit, CharacterClass::Lower];
        let what = Password { exclude: b"123456789bcdef".to_vec(), require, ..plain(3, Alphabet::Hex) };
        let mut counts = BTreeMap::new();
        for _ in 0..60_000 {
            *counts.entry(made(&what).expose().to_vec()).or_insert(0_f64) += 1.0;
        }
        assert_eq!(counts.len(), 6);
        assert_likely(counts.values().map(|count| (count - 10_000.0).powi(2) / 10_000.0).sum(), 5);
    }

    fn assert_likely(chi: f64, freedom: usize) {
        let freedom = freedom as f64;
        assert!(chi < freedom + 8.0 * (2.0 * freedom).sqrt(), "{chi}");
    }

    /// The share of strings that have every class, by the number of characters that each has.
    fn share(counts: &[i32], length: i32) -> f64 {
        let all: i32 = counts.iter().sum();
        let lacking = |which: usize| {
            let lacked: Vec<i32> =
                counts.iter().enumerate().filter(|(bit, _)| which >> bit & 1 == 1).map(|(_, count)| *count).collect();
            let share = (f64::from(all - lacked.iter().sum::<i32>()) / f64::from(all)).powi(length);
            if lacked.len().is_multiple_of(2) { share } else { -share }
        };
        if counts.is_empty() { 1.0 } else { (0..1 << counts.len()).map(lacking).sum() }
    }

    /// By every number of characters of each class that exclusions may leave, at the least length of a policy. Longer strings
    /// have every class more often.
    #[test]
    fn the_tries_are_enough() {
        let mut least = 1.0_f64;
        for digits in 0..=10 {
            for lower in 0..=26 {
                for symbols in 0..=27 {
                    for upper in 0..=26 {
                        // A class of which nothing is left is not required.
                        let counts: Vec<i32> =
                            [digits, lower, symbols, upper].into_iter().filter(|count| *count > 0).collect();
                        least = least.min(share(&counts, 16));
                    }
                }
            }
        }
        assert!(least > 1.0 / 17.0, "{least}");
        let failure = (1.0 - least).log2() * TRIES as f64;
        assert!(failure < -350.0, "{failure}");
    }
}
