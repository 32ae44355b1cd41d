//! Key pairs: the private half in the form in which programs read it, the public half in the form in which others want it.

use age::x25519::Identity;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{Ed25519KeyPair, KeyPair};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::{Fill, GenerateError, Generated};
use crate::secret::Secret;

/// What stands before the 32 bytes of an Ed25519 private key in PKCS #8 (RFC 5958 version 1, RFC 8410 section 7): the one
/// form that every reader knows. `ring` itself writes version 2, with the public key inside, which OpenSSL 3.0 does not read.
const PKCS8_ED25519: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

/// What stands before the 32 bytes of an Ed25519 public key (SubjectPublicKeyInfo, RFC 8410 section 4).
const SPKI_ED25519: [u8; 12] = *b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// An Ed25519 key pair, both halves in PEM, as `openssl genpkey` and `openssl pkey -pubout` write them.
pub(super) fn ed25519(fill: &mut Fill<'_>) -> Result<Generated, GenerateError> {
    // RFC 8032 section 5.1.5: any 32 bytes.
    let mut seed = Zeroizing::new([0_u8; 32]);
    fill(seed.as_mut())?;
    let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_ref()).map_err(|_| GenerateError::Encoding)?;
    let public = pem("PUBLIC KEY", &SPKI_ED25519, pair.public_key().as_ref());
    Ok(Generated {
        value: Secret::new(pem("PRIVATE KEY", &PKCS8_ED25519, seed.as_ref())),
        public: Some(ascii(public)?),
    })
}

/// RFC 7468. `header` and `key` together are at most 48 bytes, which is one line of it.
fn pem(label: &str, header: &[u8], key: &[u8]) -> Vec<u8> {
    let der = Zeroizing::new([header, key].concat());
    let line = Zeroizing::new(STANDARD.encode(&*der));
    let mut text = Vec::with_capacity(line.len() + 2 * label.len() + 40);
    for part in ["-----BEGIN ", label, "-----\n", &line, "\n-----END ", label, "-----\n"] {
        text.extend_from_slice(part.as_bytes());
    }
    text
}

fn ascii(text: Vec<u8>) -> Result<String, GenerateError> {
    String::from_utf8(text).map_err(|_| GenerateError::Encoding)
}

/// An X25519 key pair, both halves in base64, as `wg genkey` and `wg pubkey` write them.
pub(super) fn x25519(fill: &mut Fill<'_>) -> Result<Generated, GenerateError> {
    let mut key = Zeroizing::new([0_u8; 32]);
    fill(key.as_mut())?;
    // RFC 7748 section 5. Whoever uses the key does so too; `wg genkey` writes it down already done.
    let [first, .., last] = &mut *key;
    *first &= 0b1111_1000;
    *last = *last & 0b0111_1111 | 0b0100_0000;
    let public = PublicKey::from(&StaticSecret::from(*key));
    let value = Secret::new(STANDARD.encode(key.as_slice()).into_bytes());
    Ok(Generated { value, public: Some(STANDARD.encode(public.as_bytes())) })
}

/// An age identity and its recipient (age-encryption.org/v1, "The X25519 recipient type").
pub(super) fn age(fill: &mut Fill<'_>) -> Result<Generated, GenerateError> {
    let mut key = Zeroizing::new([0_u8; 32]);
    fill(key.as_mut())?;
    let prefix = bech32::Hrp::parse("age-secret-key-").map_err(|_| GenerateError::Encoding)?;
    let mut text = Zeroizing::new(String::with_capacity(128));
    bech32::encode_upper_to_fmt::<bech32::Bech32, String>(&mut text, prefix, key.as_ref())
        .map_err(|_| GenerateError::Encoding)?;
    // `Identity::generate` would panic where there is no randomness; so the library reads what it has not drawn itself.
    let identity: Identity = text.parse().map_err(|_| GenerateError::Encoding)?;
    let value = Secret::new(std::mem::take(&mut *text).into_bytes());
    Ok(Generated { value, public: Some(identity.to_public().to_string()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use age::secrecy::ExposeSecret;

    /// Randomness that is known.
    fn known(bytes: [u8; 32]) -> impl FnMut(&mut [u8]) -> Result<(), GenerateError> {
        move |buffer| {
            buffer.copy_from_slice(&bytes);
            Ok(())
        }
    }

    fn decode(hex: &str) -> [u8; 32] {
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        bytes.try_into().unwrap()
    }

    /// The key pair of RFC 8410 section 10.
    #[test]
    fn ed25519_is_that_of_the_rfc() {
        let seed = decode("d4ee72dbf913584ad5b6d8f1f769f8ad3afe7c28cbf1d4fbe097a88f44755842");
        let made = ed25519(&mut known(seed)).unwrap();
        let private = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
            -----END PRIVATE KEY-----\n";
        let public = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
            -----END PUBLIC KEY-----\n";
        assert_eq!(made.value.expose(), private.as_bytes());
        assert_eq!(made.public.as_deref(), Some(public));
    }

    /// The first iteration of RFC 7748 section 5.2: the base point's own coordinate as the key, which is not clamped.
    #[test]
    fn x25519_is_that_of_the_rfc_and_clamped() {
        let mut key = [0; 32];
        key[0] = 9;
        let made = x25519(&mut known(key)).unwrap();
        (key[0], key[31]) = (8, 0x40);
        assert_eq!(STANDARD.decode(made.value.expose()).unwrap(), key);
        let public = decode("422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079");
        assert_eq!(made.public, Some(STANDARD.encode(public)));
    }

    #[test]
    fn an_age_identity_is_what_the_library_writes() {
        for byte in [0, 1, 0x55, 0xff] {
            let made = age(&mut known([byte; 32])).unwrap();
            let text = std::str::from_utf8(made.value.expose()).unwrap();
            let identity: Identity = text.parse().unwrap();
            assert_eq!(identity.to_string().expose_secret(), text);
            assert_eq!(made.public, Some(identity.to_public().to_string()));
        }
    }

    #[test]
    fn ring_reads_the_private_key_and_signs_for_the_public_one() {
        let made = super::super::generate(&crate::policy::model::Random::Ed25519).unwrap();
        let der = |text: &str| STANDARD.decode(text.lines().nth(1).unwrap()).unwrap();
        let private = der(std::str::from_utf8(made.value.expose()).unwrap());
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&private).unwrap();
        let public = &der(&made.public.unwrap())[SPKI_ED25519.len()..];
        let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, public);
        key.verify(b"message", pair.sign(b"message").as_ref()).unwrap();
    }
}
