//! The loader: damage at every place, limits, both passes.

use std::collections::HashSet;

use ::age::x25519;
use ::age::{EncryptError, secrecy::ExposeSecret};

use super::*;
use crate::store::vouched::Vouched;

const CHUNK: usize = 64 * 1024;

fn seal(plaintext: &[u8], key: &x25519::Identity) -> Vec<u8> {
    encrypt(&Secret::new(plaintext.to_vec()), [&key.to_public() as &dyn Recipient]).unwrap()
}

fn binary(armored: &[u8]) -> Vec<u8> {
    header::prepare(armored).unwrap().into_owned()
}

fn try_open(bytes: &[u8], key: &x25519::Identity) -> Result<Vec<u8>, SealedErrorKind> {
    match open(Vouched::of_no_store(bytes), [key as &dyn Identity])? {
        Opening::Opened(plaintext) => Ok(plaintext.expose().to_vec()),
        Opening::Locked(_) => Err(SealedErrorKind::NoIdentityFits { tried: Vec::new() }),
    }
}

/// Stands for a KMS key: the body of its stanza is the file key under exclusive or.
struct Kms(&'static str);

impl Recipient for Kms {
    fn wrap_file_key(&self, file_key: &FileKey) -> Result<(Vec<Stanza>, HashSet<String>), EncryptError> {
        let body = file_key.expose_secret().iter().map(|byte| byte ^ 0x55).collect();
        Ok((vec![Stanza { tag: KMS_STANZA.to_owned(), args: vec![self.0.to_owned()], body }], HashSet::new()))
    }
}

#[test]
fn what_is_sealed_opens_armored_and_binary() {
    let key = x25519::Identity::generate();
    for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
        let plaintext: Vec<u8> = (0..length).map(|index| index as u8).collect();
        let armored = seal(&plaintext, &key);
        assert!(armored.starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----\n") && armored.ends_with(b"-----\n"));
        assert_eq!(try_open(&armored, &key).unwrap(), plaintext);
        assert_eq!(try_open(&binary(&armored), &key).unwrap(), plaintext);
    }
}

#[test]
fn the_plaintext_lies_in_one_buffer_of_the_files_size() {
    let key = x25519::Identity::generate();
    let file = binary(&seal(&[7; 3 * CHUNK], &key));
    let Ok(Opening::Opened(plaintext)) = open(Vouched::of_no_store(&file), [&key as &dyn Identity]) else { panic!() };
    assert!(plaintext.expose().len() < file.len());
}

#[test]
fn a_kms_stanza_is_noted_and_its_file_key_opens_the_file() {
    let plaintext = Secret::new(b"value".to_vec());
    let (key, other) = (x25519::Identity::generate(), x25519::Identity::generate());
    let kms = Kms("arn:aws:kms:eu-west-1:111122223333:key/x");
    let public = key.to_public();
    let file = encrypt(&plaintext, [&kms as &dyn Recipient, &public]).unwrap();
    let parsed = SealedBytes::parse(Vouched::of_no_store(&file)).unwrap();
    let Ok(Opening::Opened(opened)) = parsed.open([&other as &dyn Identity, &key]) else {
        panic!("a local identity fits, so KMS is not asked")
    };
    assert!(opened.same_as(&plaintext));
    let Ok(Opening::Locked(stanzas)) = parsed.open([&other as &dyn Identity]) else { panic!() };
    assert_eq!((stanzas.len(), stanzas[0].key.as_str()), (1, kms.0));
    let file_key = |with: u8| {
        FileKey::init_with_mut(|place| {
            place.iter_mut().zip(&stanzas[0].ciphertext).for_each(|(byte, wrapped)| *byte = wrapped ^ with);
        })
    };
    assert!(parsed.open_with_file_key(file_key(0x55)).unwrap().same_as(&plaintext));
    assert!(matches!(parsed.open_with_file_key(file_key(0x54)), Err(SealedErrorKind::HeaderMac)));
}

/// Fails on everything, as a plugin or a wrong passphrase would.
struct Broken;

impl Identity for Broken {
    fn unwrap_stanza(&self, _: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        Some(Err(DecryptError::DecryptionFailed))
    }
}

#[test]
fn an_identity_that_fails_does_not_end_the_search() {
    let key = x25519::Identity::generate();
    let file = seal(b"value", &key);
    assert!(matches!(open(Vouched::of_no_store(&file), [&Broken as &dyn Identity, &key]), Ok(Opening::Opened(_))));
    assert!(
        matches!(open(Vouched::of_no_store(&file), [&Broken as &dyn Identity]), Ok(Opening::Locked(stanzas)) if stanzas.is_empty())
    );
}

#[test]
fn each_byte_changed_is_an_error_and_never_another_value() {
    let key = x25519::Identity::generate();
    let armored = seal(b"DATABASE_URL is here", &key);
    for (file, is_armored) in [(binary(&armored), false), (armored, true)] {
        for at in 0..file.len() {
            for flip in [0x01, 0x20, 0x80] {
                let mut changed = file.clone();
                changed[at] ^= flip;
                match try_open(&changed, &key) {
                    Err(_) => {}
                    // Armor has bytes that say nothing: a blank for a line end after the end marker.
                    Ok(value) => assert!(is_armored && value == b"DATABASE_URL is here", "byte {at}"),
                }
            }
        }
    }
}

#[test]
fn a_file_cut_short_anywhere_opens_not_at_all() {
    let key = x25519::Identity::generate();
    let file = binary(&seal(&[7; 3 * CHUNK + 100], &key));
    let payload = file.len() - (3 * (CHUNK + 16) + 100 + 16);
    for chunk in 0..=3 {
        for offset in [-1, 0, 1] {
            let end = (payload + chunk * (CHUNK + 16)).checked_add_signed(offset).unwrap();
            assert!(matches!(try_open(&file[..end], &key), Err(SealedErrorKind::Payload | SealedErrorKind::Header(_))));
        }
    }
    let small = binary(&seal(b"value", &key));
    for end in 0..small.len() {
        assert!(try_open(&small[..end], &key).is_err(), "{end}");
    }
    let mut longer = small;
    longer.push(0);
    assert!(matches!(try_open(&longer, &key), Err(SealedErrorKind::Payload)));
}

#[test]
fn a_file_over_the_limit_is_refused_unread() {
    let bytes = vec![0; usize::try_from(MAX_FILE).unwrap() + 1];
    assert!(matches!(
        SealedBytes::parse(Vouched::of_no_store(&bytes)),
        Err(SealedErrorKind::Limit("bytes of the file", MAX_FILE))
    ));
    assert!(matches!(SealedBytes::parse(Vouched::of_no_store(&bytes[1..])), Err(SealedErrorKind::NotAge)));
}

#[test]
fn the_largest_header_takes_no_time() {
    let mut file = b"age-encryption.org/v1\n".to_vec();
    for stanza in 0..header::MAX_STANZAS {
        file.extend_from_slice(format!("-> t{stanza} {}\n", "a".repeat(1900)).as_bytes());
        for _ in 0..29 {
            file.extend_from_slice(&[b'A'; 64]);
            file.push(b'\n');
        }
        file.push(b'\n');
    }
    file.extend_from_slice(b"--- AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n0123456789abcdef0123456789abcdef");
    let start = std::time::Instant::now();
    assert!(
        matches!(open(Vouched::of_no_store(&file), [&Broken as &dyn Identity]), Ok(Opening::Locked(_))),
        "{}",
        file.len()
    );
    println!("{:?} for {} bytes", start.elapsed(), file.len());
    assert!(start.elapsed() < std::time::Duration::from_secs(5));
}

#[test]
fn encryption_without_or_with_unlike_recipients_is_refused() {
    let plaintext = Secret::new(b"value".to_vec());
    assert!(matches!(encrypt(&plaintext, []), Err(SealedErrorKind::Encrypt("there is no recipient"))));
    struct Labelled;
    impl Recipient for Labelled {
        fn wrap_file_key(&self, _: &FileKey) -> Result<(Vec<Stanza>, HashSet<String>), EncryptError> {
            Ok((Vec::new(), HashSet::from(["postquantum".to_owned()])))
        }
    }
    let public = x25519::Identity::generate().to_public();
    let mixed = encrypt(&plaintext, [&public as &dyn Recipient, &Labelled]);
    assert!(matches!(mixed, Err(SealedErrorKind::Encrypt(why)) if why.starts_with("post-quantum")));
}
