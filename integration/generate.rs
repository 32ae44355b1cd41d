//! Generated values: keys that other programs read, and a kernel that gives no randomness.

use std::path::PathBuf;
use std::process::Stdio;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::have;
use crate::sealed::Sealed;
use crate::strace::{Traced, baseline, points, trace, vouchsafe};

const KINDS: [&str; 7] = [
    "length = 40, require = [\"digit\", \"upper\"]",
    "type = \"hex\"",
    "type = \"base64\"",
    "type = \"uuid\"",
    "type = \"ed25519\"",
    "type = \"x25519\"",
    "type = \"age\"",
];
const SET: [&str; 5] = ["set", "A", "--generate", "--policy", "policy.toml"];

/// A store with `A = "first"`, whose policy generates values of this kind.
fn generating(kind: &str) -> Sealed {
    let sealed = Sealed::with(&[("A", "first")]);
    let policy = std::fs::read_to_string(sealed.scene.path("policy.toml")).unwrap();
    let rules = format!("\nA = {{ rotate = {{ generate = {{ {kind} }} }} }}\n");
    let changed = policy.replace("\nA = {}\n", &rules);
    assert_ne!(changed, policy);
    sealed.scene.write("policy.toml", changed.as_bytes());
    sealed
}

/// The value that `set --generate` made of this kind, in a file that only we may read, and the public half that it printed.
fn generated(kind: &str) -> (Sealed, PathBuf, String) {
    let sealed = generating(kind);
    let outcome = sealed.scene.vouchsafe(&SET).expect_status(0);
    let public =
        outcome.out().split_once("its public half, which is no secret:\n").expect("a public half").1.to_owned();
    sealed.run(&["sh", "-c", "umask 077; printf %s \"$A\" > value"]).expect_status(0);
    let value = sealed.scene.path("value");
    assert!(!outcome.transcript().contains(std::fs::read_to_string(&value).unwrap().trim_end()));
    (sealed, value, public)
}

fn output(sealed: &Sealed, program: &str, arguments: &[&str]) -> Option<String> {
    let output = sealed.scene.other(program, arguments).stderr(Stdio::null()).output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

#[test]
fn openssl_reads_an_ed25519_key_and_says_the_same_public_half() {
    if !have(&["openssl"], false) {
        return;
    }
    let (sealed, value, public) = generated("type = \"ed25519\"");
    let value = value.to_str().unwrap();
    assert_eq!(output(&sealed, "openssl", &["pkey", "-in", value, "-pubout"]), Some(public.clone()));
    // Byte for byte what openssl would have written.
    let again = output(&sealed, "openssl", &["pkey", "-in", value]).unwrap();
    assert_eq!(again, std::fs::read_to_string(value).unwrap());
    sealed.scene.write("public.pem", public.as_bytes());
    sealed.scene.write("message", b"signed");
    let sign = ["pkeyutl", "-sign", "-inkey", value, "-rawin", "-in", "message", "-out", "signature"];
    output(&sealed, "openssl", &sign).unwrap();
    let verify =
        ["pkeyutl", "-verify", "-pubin", "-inkey", "public.pem", "-rawin", "-in", "message", "-sigfile", "signature"];
    output(&sealed, "openssl", &verify).unwrap();
}

#[test]
fn ssh_keygen_reads_an_ed25519_key_where_it_reads_such_files_at_all() {
    if !have(&["ssh-keygen", "openssl"], false) {
        return;
    }
    let (sealed, value, public) = generated("type = \"ed25519\"");
    let stock = ["genpkey", "-algorithm", "ed25519", "-out", "stock.pem"];
    output(&sealed, "openssl", &stock).unwrap();
    // OpenSSH reads PKCS #8 of Ed25519 since 9.6. One that does not read openssl's keys need not read ours.
    let reads = |file: &str| output(&sealed, "ssh-keygen", &["-y", "-P", "", "-f", file]);
    let ours = reads(value.to_str().unwrap());
    assert_eq!(ours.is_some(), reads("stock.pem").is_some());
    let Some(ours) = ours else { return };
    let of_ssh = STANDARD.decode(ours.split(' ').nth(1).unwrap().trim()).unwrap();
    let of_pem = STANDARD.decode(public.lines().nth(1).unwrap()).unwrap();
    assert_eq!(of_ssh[of_ssh.len() - 32..], of_pem[of_pem.len() - 32..]);
}

#[test]
fn openssl_computes_the_public_half_of_an_x25519_key() {
    if !have(&["openssl"], false) {
        return;
    }
    let (sealed, value, public) = generated("type = \"x25519\"");
    let key = STANDARD.decode(std::fs::read(value).unwrap()).unwrap();
    assert_eq!((key.len(), key[0] & 7, key[31] >> 6), (32, 0, 1), "clamped, as WireGuard's own keys are");
    // RFC 8410 section 7, the OID of X25519.
    let header = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x6e\x04\x22\x04\x20";
    sealed.scene.write("key.der", &[&header[..], &key].concat());
    let convert = ["pkey", "-inform", "DER", "-in", "key.der", "-pubout", "-outform", "DER", "-out", "public.der"];
    output(&sealed, "openssl", &convert).unwrap();
    let theirs = std::fs::read(sealed.scene.path("public.der")).unwrap();
    assert_eq!(public.trim_end(), STANDARD.encode(&theirs[theirs.len() - 32..]));
}

#[test]
fn stock_age_encrypts_to_a_generated_identity() {
    if !have(&["age", "age-keygen"], false) {
        return;
    }
    let (sealed, value, public) = generated("type = \"age\"");
    let value = value.to_str().unwrap();
    assert_eq!(output(&sealed, "age-keygen", &["-y", value]), Some(public.clone()));
    sealed.scene.write("plain", b"for the identity");
    output(&sealed, "age", &["-r", public.trim_end(), "-o", "sealed", "plain"]).unwrap();
    assert_eq!(output(&sealed, "age", &["-d", "-i", value, "sealed"]).unwrap(), "for the identity");
    let identity: age::x25519::Identity = std::fs::read_to_string(value).unwrap().parse().unwrap();
    let opened = age::decrypt(&identity, &std::fs::read(sealed.scene.path("sealed")).unwrap()).unwrap();
    assert_eq!(opened, b"for the identity");
}

/// From each place on at which the kernel is asked for randomness it gives none: no value, no write, an error.
#[test]
fn without_randomness_nothing_is_written() {
    if !have(&["strace"], true) {
        return;
    }
    for kind in KINDS {
        let sealed = generating(kind);
        let command = vouchsafe(&SET);
        let good = baseline(&sealed.scene, &command, b"");
        assert_eq!(good.status.code(), Some(0), "{}", good.transcript());
        let written = good.position("the store's rename", |call| {
            call.name.starts_with("rename") && call.mentions("store.age") && call.succeeded()
        });
        let calls = good.calls.into_iter().take(written).collect();
        let points = points(&Traced { calls, ..good }, &["getrandom"]);
        assert!(points.len() > 2, "{kind}: the value, the file key and the nonce at least");
        let before = std::fs::read(sealed.scene.path("store/store.age")).unwrap();
        for point in points {
            let rule = format!("inject=getrandom:error=EIO:when={}+", point.ordinal);
            let traced = trace(&sealed.scene, &["-e", "trace=getrandom", "-e", &rule], &command, b"");
            let when = format!("{kind}, call {}\n{}", point.ordinal, traced.transcript());
            assert!(traced.calls.iter().any(|call| call.mentions("(INJECTED)")), "{when}");
            assert!(traced.status.code().is_some_and(|code| code > 2), "{when}");
            assert!(String::from_utf8_lossy(&traced.stderr).contains("vouchsafe: error["), "{when}");
            assert_eq!(std::fs::read(sealed.scene.path("store/store.age")).unwrap(), before, "{when}");
        }
        sealed.scene.vouchsafe(&SET).expect_status(0);
    }
}
