//! New values: characters of an alphabet, each as likely as any other, from the kernel's randomness.
//!
//! Bytes that would favour the alphabet's first characters are thrown away (rejection sampling), so there is no modulo bias.

use std::fmt;

use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::error::{Cause, Class};
use crate::policy::model::Password;
use crate::secret::Secret;

/// Characters that one value may have.
pub const MAX_LENGTH: usize = 4096;

/// Why no value was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GenerateError {
    /// A length of 0, or over [`MAX_LENGTH`].
    Length,
    /// The kernel gave no randomness.
    Randomness,
}

/// Makes a value.
///
/// # Errors
/// The length is out of bounds, or the kernel gives no randomness: then there is no value at all, never a weaker one.
pub fn generate(what: &Password) -> Result<Secret, GenerateError> {
    let random = SystemRandom::new();
    draw(what, &mut |bytes| random.fill(bytes).map_err(|_| GenerateError::Randomness))
}

fn draw(
    what: &Password,
    fill: &mut dyn FnMut(&mut [u8]) -> Result<(), GenerateError>,
) -> Result<Secret, GenerateError> {
    if what.length == 0 || what.length > MAX_LENGTH {
        return Err(GenerateError::Length);
    }
    let characters = what.alphabet.characters();
    let even = 256 - 256 % characters.len();
    let mut value = Zeroizing::new(Vec::with_capacity(what.length));
    let mut bytes = Zeroizing::new([0_u8; 128]);
    while value.len() < what.length {
        fill(bytes.as_mut())?;
        let drawn = bytes.iter().map(|byte| usize::from(*byte)).filter(|number| *number < even);
        let drawn = drawn.filter_map(|number| characters.get(number % characters.len()));
        let missing = what.length - value.len();
        value.extend(drawn.take(missing));
    }
    Ok(Secret::new(std::mem::take(&mut *value)))
}

impl fmt::Display for GenerateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length => write!(f, "a generated value has 1 to {MAX_LENGTH} characters"),
            Self::Randomness => write!(f, "the kernel gives no randomness"),
        }
    }
}

impl Cause for GenerateError {
    fn class(&self) -> Class {
        match self {
            Self::Length => Class::Policy,
            Self::Randomness => Class::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::model::Alphabet;

    const ALL: [Alphabet; 4] = [Alphabet::Alphanumeric, Alphabet::Hex, Alphabet::Printable, Alphabet::UrlSafe];

    #[test]
    fn a_value_has_its_length_and_only_characters_of_its_alphabet() {
        for alphabet in ALL {
            for length in [1, 40, 127, 129, MAX_LENGTH] {
                let value = generate(&Password { length, alphabet, exclude: Vec::new(), require: Vec::new() }).unwrap();
                assert_eq!(value.expose().len(), length);
                assert!(value.expose().iter().all(|byte| alphabet.characters().contains(byte)));
            }
        }
        assert!(matches!(
            generate(&Password { length: 0, alphabet: Alphabet::Hex, exclude: Vec::new(), require: Vec::new() }),
            Err(GenerateError::Length)
        ));
        let too_long =
            Password { length: MAX_LENGTH + 1, alphabet: Alphabet::Hex, exclude: Vec::new(), require: Vec::new() };
        assert!(matches!(generate(&too_long), Err(GenerateError::Length)));
    }

    /// Over every byte value once, each character must come out equally often: that is what "no modulo bias" means.
    #[test]
    fn every_character_is_as_likely_as_any_other() {
        for alphabet in ALL {
            let size = alphabet.characters().len();
            let per_round = 256 - 256 % size;
            let mut next = 0_u8;
            let mut fill = |bytes: &mut [u8]| {
                bytes.iter_mut().for_each(|byte| {
                    *byte = next;
                    next = next.wrapping_add(1);
                });
                Ok(())
            };
            let value =
                draw(&Password { length: per_round, alphabet, exclude: Vec::new(), require: Vec::new() }, &mut fill)
                    .unwrap();
            for character in alphabet.characters() {
                let count = value.expose().iter().filter(|byte| **byte == character).count();
                assert_eq!(count, per_round / size);
            }
        }
    }

    /// Chi-square over 400,000 draws. The bound is 8 standard deviations, so that it fails for a reason only.
    #[test]
    fn real_draws_look_uniform() {
        for alphabet in ALL {
            let characters = alphabet.characters();
            let mut counts = vec![0_f64; 256];
            for _ in 0..100 {
                for byte in generate(&Password { length: 4000, alphabet, exclude: Vec::new(), require: Vec::new() })
                    .unwrap()
                    .expose()
                {
                    counts[usize::from(*byte)] += 1.0;
                }
            }
            let expected = 400_000.0 / characters.len() as f64;
            let chi: f64 = characters.iter().map(|c| (counts[usize::from(*c)] - expected).powi(2) / expected).sum();
            let freedom = (characters.len() - 1) as f64;
            assert!(chi < freedom + 8.0 * (2.0 * freedom).sqrt(), "{chi}");
        }
    }

    #[test]
    fn without_randomness_there_is_no_value() {
        let what = Password { length: 10, alphabet: Alphabet::Hex, exclude: Vec::new(), require: Vec::new() };
        assert!(matches!(draw(&what, &mut |_| Err(GenerateError::Randomness)), Err(GenerateError::Randomness)));
    }
}
