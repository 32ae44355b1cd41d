//! New values, from the kernel's randomness (getrandom(2), by `ring`) and from nothing else.
//!
//! Where the kernel gives none, nothing is made, never something weaker. What is made on the way is wiped.
//!
//! - [`password`]: characters by rules;
//! - [`keys`]: key pairs, whose public half is told besides.

mod keys;
mod password;

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use uuid::Uuid;
use uuid::fmt::Hyphenated;
use zeroize::Zeroizing;

use crate::error::{Cause, Class};
use crate::policy::model::Random;
use crate::secret::Secret;

pub use password::MAX_LENGTH;

/// Random bytes that one value may have before they are encoded.
pub const MAX_BYTES: usize = 4096;

/// A new value. No `Debug`: it holds plaintext.
///
/// ```compile_fail,E0277
/// let made = vouchsafe::rotate::generate::generate(&vouchsafe::policy::model::Random::Uuid).unwrap();
/// println!("{:?}", made);
/// ```
pub struct Generated {
    /// The value.
    pub value: Secret,
    /// Of a key pair, the half that is no secret, as others want it.
    pub public: Option<String>,
}

/// Why no value was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GenerateError {
    /// The libraries that write and read a key disagree about it.
    Encoding,
    /// No characters or bytes, or more than [`MAX_LENGTH`] or [`MAX_BYTES`].
    Length,
    /// The kernel gave no randomness.
    Randomness,
    /// No string follows the rules, or so few do that none was found.
    Rules,
}

/// Makes a value.
///
/// # Errors
/// The rules are out of bounds, or the kernel gives no randomness: then there is no value at all, never a weaker one.
pub fn generate(what: &Random) -> Result<Generated, GenerateError> {
    let random = SystemRandom::new();
    draw(what, &mut |bytes| random.fill(bytes).map_err(|_| GenerateError::Randomness))
}

/// Fills a buffer with randomness, all of it, or fails.
type Fill<'f> = dyn FnMut(&mut [u8]) -> Result<(), GenerateError> + 'f;

fn draw(what: &Random, fill: &mut Fill<'_>) -> Result<Generated, GenerateError> {
    let value = match what {
        Random::Age => return keys::age(fill),
        Random::Ed25519 => return keys::ed25519(fill),
        Random::X25519 => return keys::x25519(fill),
        Random::Base64 { bytes } => STANDARD.encode(&*random(*bytes, fill)?).into_bytes(),
        Random::Hex { bytes } => hex(&random(*bytes, fill)?),
        Random::Password(what) => return password::draw(what, fill).map(|value| Generated { value, public: None }),
        Random::Uuid => uuid(fill)?,
    };
    Ok(Generated { value: Secret::new(value), public: None })
}

fn random(bytes: usize, fill: &mut Fill<'_>) -> Result<Zeroizing<Vec<u8>>, GenerateError> {
    if bytes == 0 || bytes > MAX_BYTES {
        return Err(GenerateError::Length);
    }
    let mut drawn = Zeroizing::new(vec![0; bytes]);
    fill(&mut drawn)?;
    Ok(drawn)
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble };
    let mut text = Vec::with_capacity(bytes.len() * 2);
    text.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]));
    text
}

/// RFC 9562 section 5.4: 122 random bits, and six that say what it is.
fn uuid(fill: &mut Fill<'_>) -> Result<Vec<u8>, GenerateError> {
    let mut bytes = Zeroizing::new([0_u8; 16]);
    fill(bytes.as_mut())?;
    let [_, _, _, _, _, _, version, _, variant, ..] = &mut *bytes;
    *version = *version & 0x0f | 0x40;
    *variant = *variant & 0x3f | 0x80;
    let mut text = vec![0; Hyphenated::LENGTH];
    Uuid::from_bytes_ref(&bytes).as_hyphenated().encode_lower(&mut text);
    Ok(text)
}

impl fmt::Display for GenerateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encoding => write!(f, "a new key could not be read back in the form that it is written in"),
            Self::Length => {
                write!(f, "a generated value has 1 to {MAX_LENGTH} characters, or is made of 1 to {MAX_BYTES} bytes")
            }
            Self::Randomness => write!(f, "the kernel gives no randomness"),
            Self::Rules => write!(f, "no password was found that follows the rules of `generate`"),
        }
    }
}

impl Cause for GenerateError {
    fn class(&self) -> Class {
        match self {
            Self::Length | Self::Rules => Class::Policy,
            Self::Encoding | Self::Randomness => Class::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::model::{Alphabet, CharacterClass, Password};

    fn password() -> Password {
        Password {
            length: 40,
            alphabet: Alphabet::Printable,
            exclude: b"$".to_vec(),
            require: vec![CharacterClass::Digit, CharacterClass::Symbol],
        }
    }

    fn all() -> [Random; 7] {
        [
            Random::Age,
            Random::Base64 { bytes: 32 },
            Random::Ed25519,
            Random::Hex { bytes: 32 },
            Random::Password(password()),
            Random::Uuid,
            Random::X25519,
        ]
    }

    fn text(value: &Secret) -> String {
        String::from_utf8(value.expose().to_vec()).unwrap()
    }

    #[test]
    fn values_have_the_form_of_their_kind() {
        let value = |what: &Random| generate(what).unwrap().value;
        let hex = text(&value(&Random::Hex { bytes: 20 }));
        assert!(hex.len() == 40 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{hex}");
        let base64 = text(&value(&Random::Base64 { bytes: 20 }));
        assert_eq!((base64.len(), STANDARD.decode(&base64).unwrap().len()), (28, 20));
        let uuid = text(&value(&Random::Uuid));
        let parsed = Uuid::parse_str(&uuid).unwrap();
        assert_eq!(parsed.hyphenated().to_string(), uuid);
        assert_eq!((parsed.get_version_num(), parsed.get_variant()), (4, uuid::Variant::RFC4122));
    }

    #[test]
    fn bytes_are_written_as_others_write_them() {
        let fixed = |what| {
            let mut next = 0;
            let mut fill = |bytes: &mut [u8]| {
                bytes.iter_mut().for_each(|byte| {
                    *byte = next;
                    next = next.wrapping_add(0x11);
                });
                Ok(())
            };
            text(&draw(&what, &mut fill).unwrap().value)
        };
        assert_eq!(fixed(Random::Hex { bytes: 16 }), "00112233445566778899aabbccddeeff");
        assert_eq!(fixed(Random::Base64 { bytes: 16 }), "ABEiM0RVZneImaq7zN3u/w==");
        assert_eq!(fixed(Random::Uuid), "00112233-4455-4677-8899-aabbccddeeff");
    }

    #[test]
    fn two_values_are_never_the_same() {
        for what in all() {
            let [first, second] = [(); 2].map(|()| generate(&what).unwrap());
            assert!(!first.value.same_as(&second.value), "{what:?}");
            assert!(first.public.is_none() || first.public != second.public, "{what:?}");
        }
    }

    /// Failing at the first draw, at the second, and so on as long as there is one.
    #[test]
    fn without_randomness_there_is_no_value() {
        for what in all() {
            let with_draws = |good: u8| {
                let mut drawn = 0;
                let mut fill = |bytes: &mut [u8]| {
                    if drawn == good {
                        return Err(GenerateError::Randomness);
                    }
                    // A first string of one character only lacks a class; the second one has them all.
                    for (byte, number) in bytes.iter_mut().zip(0..) {
                        *byte = if drawn == 0 { 7 } else { number };
                    }
                    drawn += 1;
                    Ok(())
                };
                draw(&what, &mut fill).map(|_| ())
            };
            let needed = if matches!(what, Random::Password(_)) { 2 } else { 1 };
            for good in 0..needed {
                assert_eq!(with_draws(good), Err(GenerateError::Randomness), "{what:?} after {good} draws");
            }
            assert_eq!(with_draws(needed), Ok(()), "{what:?}");
        }
    }

    #[test]
    fn amounts_have_bounds() {
        for bytes in [0, MAX_BYTES + 1, usize::MAX] {
            for what in [Random::Hex { bytes }, Random::Base64 { bytes }] {
                assert_eq!(generate(&what).err(), Some(GenerateError::Length));
            }
        }
        assert_eq!(generate(&Random::Hex { bytes: MAX_BYTES }).unwrap().value.expose().len(), 2 * MAX_BYTES);
    }
}
