//! The decision on signatures of sealed files: which of several counts, and what a signature file may look like.

use std::time::Duration;

use super::*;
use crate::policy::trust::{NAMESPACE, fingerprint};
use crate::store::scratch::{Scratch, SigningKey, environment};

const FILE: &[u8] = b"age-encryption.org/v1\nnot looked into\n";
const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn signatures(blocks: &[String]) -> Signatures {
    Signatures::parse(blocks.concat().as_bytes()).unwrap()
}

#[test]
fn nothing_is_demanded_where_the_host_does_not_say_so() {
    let (prod, dev) = (environment("prod"), environment("dev"));
    let trust = SigningKey::new(1).trusted_for("prod");
    assert!(SealedDemand::of(None, &prod).is_none() && SealedDemand::of(Some(&trust), &dev).is_none());
    assert!(SealedDemand::of(Some(&trust), &prod).is_some());
    let policies_only = Trust { sealed_files: Vec::new(), ..trust };
    assert!(SealedDemand::of(Some(&policies_only), &prod).is_none());
}

#[test]
fn one_good_signature_is_enough_and_the_others_neither_help_nor_hurt() {
    let (alice, mallory) = (SigningKey::new(1), SigningKey::new(2));
    let (trust, prod) = (alice.trusted_for("prod"), environment("prod"));
    let demand = SealedDemand::of(Some(&trust), &prod).unwrap();
    let accept = |blocks: &[String]| demand.accept(FILE, &signatures(blocks), NOW);
    let good = alice.signature(SEALED_NAMESPACE, FILE);
    let of_other_bytes = alice.signature(SEALED_NAMESPACE, b"else");
    let of_a_policy = alice.signature(NAMESPACE, FILE);
    let foreign = mallory.signature(SEALED_NAMESPACE, FILE);
    let broken = good.replacen("U1NIU0lH", "AAAAAAAA", 1);
    assert_ne!(broken, good);
    let bad = [of_other_bytes.clone(), of_a_policy.clone(), foreign, broken.clone()];
    for other in &bad {
        assert!(accept(&[good.clone(), other.clone()]).is_ok() && accept(&[other.clone(), good.clone()]).is_ok());
    }
    let refused = |blocks: &[String]| accept(blocks).map(drop).unwrap_err();
    assert!(matches!(refused(std::slice::from_ref(&broken)), TrustErrorKind::Malformed));
    assert!(matches!(refused(&[broken, of_a_policy.clone()]), TrustErrorKind::Namespace));
    assert!(matches!(refused(&[of_a_policy, of_other_bytes]), TrustErrorKind::Forged));
    let text = fingerprint(&mallory.public());
    assert!(matches!(refused(&bad), TrustErrorKind::Untrusted(key) if key == text), "the closest one is told of");
}

#[test]
fn a_key_counts_for_its_environments_until_it_ends() {
    let (alice, prod) = (SigningKey::new(1), environment("prod"));
    let good = signatures(&[alice.signature(SEALED_NAMESPACE, FILE)]);
    let kind = |trust: &Trust| {
        let demand = SealedDemand::of(Some(trust), &prod).unwrap();
        let (read, written) = (demand.accept(FILE, &good, NOW), demand.may_sign(&alice.public(), NOW));
        assert_eq!(read.is_ok(), written.is_ok(), "what may be written is what will be read");
        read.map(drop)
    };
    let trust = alice.trusted_for("prod");
    assert!(kind(&trust).is_ok());
    let mut elsewhere = trust.clone();
    elsewhere.keys[0].environments = vec![environment("dev")];
    assert!(matches!(kind(&elsewhere), Err(TrustErrorKind::Foreign(_))));
    let mut expired = trust.clone();
    expired.keys[0].expires = Some(NOW);
    assert!(matches!(kind(&expired), Err(TrustErrorKind::Expired(_))));
    expired.keys[0].expires = Some(NOW + Duration::from_secs(1));
    assert!(kind(&expired).is_ok());
    let revoked = Trust { revoked: vec![alice.public().to_openssh().unwrap()], ..trust.clone() };
    assert!(matches!(kind(&revoked), Err(TrustErrorKind::Revoked)));
    let nobody = Trust { keys: Vec::new(), ..trust };
    assert!(matches!(kind(&nobody), Err(TrustErrorKind::Untrusted(_))));
}

#[test]
fn a_signature_file_holds_signatures_and_nothing_else() {
    let good = SigningKey::new(1).signature(SEALED_NAMESPACE, FILE);
    let parse = |text: &str| Signatures::parse(text.as_bytes());
    assert_eq!(parse(&good).unwrap().to_text(), good);
    assert_eq!(parse(&format!("\n{good}\n\n{good}")).unwrap().to_text(), good.repeat(2));
    assert_eq!(parse(good.trim_end()).unwrap().to_text(), good);
    assert!(parse(&good.repeat(MOST)).is_ok());
    let cut: String = good.lines().take(3).map(|line| format!("{line}\n")).collect();
    for wrong in [
        String::new(),
        "\n".into(),
        good.repeat(MOST + 1),
        format!("note\n{good}"),
        format!("{good}note\n"),
        cut.clone(),
        format!("{cut}{good}"),
        format!(" {good}"),
        good.replace("SSH SIGNATURE", "PGP SIGNATURE"),
    ] {
        assert!(matches!(parse(&wrong), Err(TrustErrorKind::Malformed)), "{wrong}");
    }
    assert!(Signatures::parse(b"\xff").is_err());
}

#[test]
fn a_writer_keeps_what_is_of_the_old_file() {
    let (alice, bob) = (SigningKey::new(1), SigningKey::new(2));
    let [old, new] = [b"old", b"new"].map(|bytes| [&alice, &bob].map(|key| key.signature(SEALED_NAMESPACE, bytes)));
    let there = signatures(&[old[0].clone(), new[1].clone(), alice.signature(NAMESPACE, b"old"), old[1].clone()]);
    let kept = there.made_of(b"old");
    assert_eq!(kept.to_text(), old.concat());
    assert_eq!(signatures(&[new[0].clone()]).before(&kept).to_text(), format!("{}{}", new[0], old.concat()));
    assert_eq!(kept.without(&alice.public()).to_text(), old[1]);
    let many = signatures(&vec![old[0].clone(); MOST]);
    let both = signatures(&[new[0].clone()]).before(&many);
    assert!(Signatures::parse(both.to_text().as_bytes()).is_ok() && both.to_text().starts_with(&new[0]));
}

#[test]
fn the_signature_lies_beside_the_file() {
    let (folder, alice, prod) = (Scratch::new(), SigningKey::new(1), environment("prod"));
    let trust = alice.trusted_for("prod");
    let demand = SealedDemand::of(Some(&trust), &prod).unwrap();
    let path = folder.write("prod.age", FILE, 0o600);
    let refused = || demand.admit(&path, FILE, NOW).map(drop).unwrap_err().kind;
    assert!(matches!(refused(), TrustErrorKind::Unsigned(Some(_))));
    let signature = folder.write("prod.age.sig", alice.signature(SEALED_NAMESPACE, FILE), 0o644);
    assert_eq!(demand.admit(&path, FILE, NOW).unwrap().key, trust.keys[0].key);
    crate::store::scratch::set_mode(&signature, 0o666);
    assert!(matches!(refused(), TrustErrorKind::Unreadable(_)), "others could have put it there");
    folder.write("prod.age.sig", vec![b'-'; LARGEST as usize + 1], 0o644);
    assert!(matches!(refused(), TrustErrorKind::Unreadable(_)));
}
