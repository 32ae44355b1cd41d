//! The decision on signatures: what OpenSSH made, what was changed since, and every way in which a good one does not count.

use std::time::Duration;

use ring::signature::{Ed25519KeyPair, KeyPair};
use ssh_key::public::{Ed25519PublicKey, SkEd25519};
use ssh_key::{LineEnding, Signature};

use super::*;

macro_rules! vector {
    ($name:literal) => {
        include_bytes!(concat!("../../tests/vectors/trust/", $name))
    };
}

const POLICY: &[u8] = vector!("policy.toml");
const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn name(environment: &str) -> EnvironmentName {
    EnvironmentName::new(environment).unwrap()
}

fn line(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap().trim_end().to_owned()
}

fn key(line: impl Into<String>) -> TrustedKey {
    TrustedKey { key: line.into(), environments: vec![name("prod")], expires: None }
}

fn trust() -> Trust {
    Trust {
        environments: vec![name("prod")],
        keys: vec![key(line(vector!("alice.pub"))), key(line(vector!("bob.pub")))],
        ..Trust::default()
    }
}

fn kind<T>(result: Result<T, TrustErrorKind>) -> TrustErrorKind {
    result.map(|_| ()).unwrap_err()
}

/// What a security key would answer over `message`, with these flags.
fn hardware_signature(message: &[u8], flags: u8) -> (PublicKey, Vec<u8>) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let point = Ed25519PublicKey::try_from(pair.public_key().as_ref()).unwrap();
    let public = PublicKey::from(KeyData::SkEd25519(SkEd25519::new(point, "ssh:")));
    let counter = 5_u32.to_be_bytes();
    let digest = |bytes: &[u8]| ring::digest::digest(&ring::digest::SHA256, bytes);
    let data = SshSig::signed_data(NAMESPACE, HashAlg::Sha512, message).unwrap();
    let mut signed = digest(b"ssh:").as_ref().to_vec();
    signed.push(flags);
    signed.extend(counter);
    signed.extend(digest(&data).as_ref());
    let mut bytes = pair.sign(&signed).as_ref().to_vec();
    bytes.push(flags);
    bytes.extend(counter);
    let made = Signature::new(Algorithm::SkEd25519, bytes).unwrap();
    let signature = SshSig::new(public.key_data().clone(), NAMESPACE, HashAlg::Sha512, made).unwrap();
    (public, signature.to_pem(LineEnding::LF).unwrap().into_bytes())
}

#[test]
fn what_openssh_signed_is_good() {
    for (signature, by) in [
        (&vector!("alice.sig")[..], vector!("alice.pub").as_slice()),
        (vector!("alice-sha256.sig"), vector!("alice.pub")),
        (vector!("bob.sig"), vector!("bob.pub")),
    ] {
        assert_eq!(signer(POLICY, signature, NAMESPACE, &trust(), NOW).unwrap().key, line(by));
    }
}

#[test]
fn every_byte_counts() {
    for at in 0..POLICY.len() {
        let mut policy = POLICY.to_vec();
        policy[at] ^= 1;
        assert!(
            matches!(kind(signer(&policy, vector!("alice.sig"), NAMESPACE, &trust(), NOW)), TrustErrorKind::Forged),
            "{at}"
        );
    }
    let longer = [POLICY, b"\n"].concat();
    assert!(matches!(kind(signer(&longer, vector!("alice.sig"), NAMESPACE, &trust(), NOW)), TrustErrorKind::Forged));
    let signature = vector!("alice.sig");
    for at in 0..signature.len() {
        for bit in 0..8 {
            let mut changed = signature.to_vec();
            changed[at] ^= 1 << bit;
            // The last newline, and the unused bits of base64, carry nothing; what is accepted must be what was signed.
            if let Ok(found) = signer(POLICY, &changed, NAMESPACE, &trust(), NOW) {
                assert_eq!(found.key, line(vector!("alice.pub")));
                let decoded = SshSig::from_pem(&changed).unwrap();
                assert_eq!(decoded, SshSig::from_pem(signature).unwrap(), "byte {at}, bit {bit}");
            }
        }
    }
}

#[test]
fn a_good_signature_that_does_not_count() {
    let refused = |signature: &[u8], trust: &Trust| kind(signer(POLICY, signature, NAMESPACE, trust, NOW));
    assert!(matches!(refused(vector!("mallory.sig"), &trust()), TrustErrorKind::Untrusted(_)));
    assert!(matches!(refused(vector!("rsa.sig"), &trust()), TrustErrorKind::Untrusted(_)));
    assert!(matches!(refused(vector!("alice-git.sig"), &trust()), TrustErrorKind::Namespace));
    assert!(matches!(refused(b"", &trust()), TrustErrorKind::Malformed));
    assert!(matches!(
        refused(&[vector!("mallory.sig").as_slice(), vector!("alice.sig")].concat(), &trust()),
        TrustErrorKind::Malformed | TrustErrorKind::Untrusted(_)
    ));
    let nobody = Trust { keys: Vec::new(), ..trust() };
    assert!(matches!(refused(vector!("alice.sig"), &nobody), TrustErrorKind::Untrusted(_)));
    let revoked = Trust { revoked: vec![line(vector!("alice.pub"))], ..trust() };
    assert!(matches!(refused(vector!("alice.sig"), &revoked), TrustErrorKind::Revoked));
    assert!(signer(POLICY, vector!("bob.sig"), NAMESPACE, &revoked, NOW).is_ok());
    let mut expired = trust();
    expired.keys[0].expires = Some(NOW + Duration::from_secs(10));
    assert!(signer(POLICY, vector!("alice.sig"), NAMESPACE, &expired, NOW + Duration::from_secs(9)).is_ok());
    let late = kind(signer(POLICY, vector!("alice.sig"), NAMESPACE, &expired, NOW + Duration::from_secs(10)));
    assert!(matches!(late, TrustErrorKind::Expired(_)));
}

#[test]
fn a_security_key_has_to_be_touched() {
    let (public, touched) = hardware_signature(POLICY, 0x01);
    let trust = Trust { keys: vec![key(public.to_openssh().unwrap())], ..trust() };
    assert!(signer(POLICY, &touched, NAMESPACE, &trust, NOW).is_ok());
    for flags in [0x00, 0x04, 0x80] {
        let (_, untouched) = hardware_signature(POLICY, flags);
        assert!(
            matches!(kind(signer(POLICY, &untouched, NAMESPACE, &trust, NOW)), TrustErrorKind::NotPresent),
            "{flags}"
        );
    }
    assert!(matches!(kind(signer(b"else", &touched, NAMESPACE, &trust, NOW)), TrustErrorKind::Forged));
}

#[test]
fn nothing_is_parsed_that_is_not_admitted() {
    let folder = crate::store::scratch::Scratch::new();
    let path = folder.write("policy.toml", POLICY, 0o600);
    let trust = trust();
    let (prod, dev) = (name("prod"), name("dev"));
    let admit = |environment| Demand { trust: Some(&trust), environment }.admit(&path, POLICY, NOW);
    let refused = |environment| matches!(admit(environment).unwrap_err().kind, TrustErrorKind::Unsigned(_));
    assert!(refused(Some(&prod)) && refused(None));
    assert!(admit(Some(&dev)).unwrap().key.is_none());
    assert!(Demand::default().admit(&path, POLICY, NOW).unwrap().key.is_none());
    let everything = Trust { environments: Vec::new(), ..trust.clone() };
    let demand = Demand { trust: Some(&everything), environment: Some(&dev) };
    assert!(demand.admit(&path, POLICY, NOW).is_err());

    // A signature that is there has to be good, wherever it is demanded.
    let signature = folder.write("policy.toml.sig", vector!("mallory.sig"), 0o600);
    assert!(admit(Some(&dev)).is_err());
    std::fs::write(&signature, vector!("alice.sig")).unwrap();
    assert_eq!(admit(None).unwrap().key.unwrap().key, line(vector!("alice.pub")));
    std::fs::remove_file(&signature).unwrap();
    std::fs::create_dir(&signature).unwrap();
    assert!(matches!(admit(Some(&dev)).unwrap_err().kind, TrustErrorKind::Unreadable(_)));
}

#[test]
fn a_policy_is_used_where_every_file_is_answered_for_and_new_enough() {
    let mut trust = trust();
    trust.min_serial.insert(name("prod"), 12);
    trust.keys[1].environments = vec![name("staging")];
    let demand = Demand { trust: Some(&trust), environment: None };
    let (alice, bob, nobody) =
        (Admitted { key: trust.keys.first() }, Admitted { key: trust.keys.get(1) }, Admitted { key: None });
    let (api, base) = (Path::new("api.toml"), Path::new("base.toml"));
    let accept = |environment: &str, files: &[_]| demand.accept(&name(environment), files).map_err(|error| error.kind);
    assert!(accept("prod", &[(api, alice, 12), (base, alice, 13)]).is_ok());
    assert!(matches!(
        kind(accept("prod", &[(api, alice, 12), (base, alice, 11)])),
        TrustErrorKind::Serial { found: 11, least: 12 }
    ));
    assert!(matches!(kind(accept("prod", &[(api, alice, 0)])), TrustErrorKind::Serial { .. }));
    assert!(matches!(kind(accept("prod", &[(api, alice, 12), (base, nobody, 12)])), TrustErrorKind::Unsigned(_)));
    assert!(matches!(kind(accept("prod", &[(api, bob, 12)])), TrustErrorKind::Foreign(_)));
    assert!(accept("dev", &[(api, nobody, 0)]).is_ok());
}
