//! Policies signed by a security key, through ssh-keygen, its helper and a key in software (`provider.c`): they count if somebody
//! touched it.

use std::path::{Path, PathBuf};

use crate::aws::namespace::with_etc;
use crate::harness::{Outcome, Scene};
use crate::have;

/// A scene with a policy and a key that the host trusts.
struct Signed {
    scene: Scene,
    trust: String,
}

const HEADER: &str = "/usr/include/openssl/evp.h";

impl Signed {
    /// `None` where a security key cannot be built, which is said.
    fn new(kind: &str, more: &[&str]) -> Option<Self> {
        if !have(&["cc", "mount", "ssh-keygen", "unshare"], true) {
            return None;
        }
        if !Path::new(HEADER).exists() {
            println!("\nSKIPPED: {kind} (needs {HEADER}, of libssl-dev)");
            return None;
        }
        let scene = Scene::with(&[("A", "canary-of-A")]);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/security_key/provider.c");
        let library = scene.path("key.so").display().to_string();
        // The functions for one curve are old ones there.
        let options =
            ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-deprecated-declarations", "-o", &library];
        let built = scene.other("cc", &options).arg(source).arg("-lcrypto").status().unwrap();
        assert!(built.success());
        let scene = scene.variable("SSH_SK_PROVIDER", &library);
        let words = [&["-q", "-t", kind, "-N", "", "-C", "alice", "-f", "alice"], more].concat();
        assert!(scene.other("ssh-keygen", &words).status().unwrap().success());
        let key = std::fs::read_to_string(scene.path("alice.pub")).unwrap();
        let trust = format!(
            "[trust]\nenvironments = [\"test\"]\n[[trust.keys]]\nkey = \"{}\"\nenvironments = [\"test\"]\n",
            key.trim()
        );
        scene.write_policy();
        Some(Self { scene, trust })
    }

    fn sign(&self) -> Outcome {
        self.scene.vouchsafe(&["policy", "sign", "policy.toml", "--key", "alice"])
    }

    /// The same by ssh-keygen alone.
    fn sign_by_hand(&self, variables: &[(&str, &str)]) {
        std::fs::remove_file(self.signature()).unwrap_or_default();
        let words = ["-q", "-Y", "sign", "-n", "vouchsafe", "-f", "alice", "policy.toml"];
        let mut command = self.scene.other("ssh-keygen", &words);
        assert!(command.envs(variables.iter().copied()).status().unwrap().success());
    }

    fn signature(&self) -> PathBuf {
        self.scene.path("policy.toml.sig")
    }

    fn run(&self) -> Outcome {
        let policy = self.scene.path("policy.toml");
        let words = ["run", "--policy", policy.to_str().unwrap(), "--", "printenv", "A"];
        with_etc(&self.scene, &[("vouchsafe/host.toml", &self.trust)], &words)
    }

    /// OpenSSH itself takes both: it is for the host to want a touch.
    fn is_good_for_openssh(&self) -> bool {
        let key = std::fs::read_to_string(self.scene.path("alice.pub")).unwrap();
        self.scene.write("allowed", format!("alice {key}").as_bytes());
        let words = ["-Y", "verify", "-f", "allowed", "-I", "alice", "-n", "vouchsafe", "-s", "policy.toml.sig"];
        let input = std::fs::File::open(self.scene.path("policy.toml")).unwrap();
        self.scene.other("ssh-keygen", &words).stdin(input).status().unwrap().success()
    }

    fn refused(&self) {
        let outcome = self.run().expect_status(121);
        assert!(outcome.err().contains("security key that nobody had touched"), "{}", outcome.transcript());
        assert!(!outcome.out().contains("canary"));
    }
}

#[test]
fn a_security_key_that_was_touched_signs_a_policy() {
    for kind in ["ed25519-sk", "ecdsa-sk"] {
        let Some(signed) = Signed::new(kind, &[]) else { return };
        signed.sign().expect_status(0);
        assert!(signed.is_good_for_openssh(), "{kind}");
        assert_eq!(signed.run().expect_status(0).out(), "canary-of-A\n", "{kind}");
        signed.sign_by_hand(&[]);
        assert_eq!(signed.run().expect_status(0).out(), "canary-of-A\n", "{kind}");
        // One byte of the policy more, and it is another policy.
        let policy = std::fs::read(signed.scene.path("policy.toml")).unwrap();
        signed.scene.write("policy.toml", &[&policy[..], b"\n"].concat());
        signed.run().expect_status(121);
    }
}

#[test]
fn a_security_key_that_nobody_touched_signs_none() {
    for kind in ["ed25519-sk", "ecdsa-sk"] {
        // One that wants no touch.
        let Some(signed) = Signed::new(kind, &["-O", "no-touch-required"]) else { return };
        let outcome = signed.sign().expect_status(124);
        assert!(outcome.err().contains("nobody touched the security key"), "{}", outcome.transcript());
        assert!(!signed.signature().exists());
        signed.sign_by_hand(&[]);
        assert!(signed.is_good_for_openssh(), "{kind}");
        signed.refused();
        // One that is to want one, and does not.
        let Some(signed) = Signed::new(kind, &[]) else { return };
        signed.sign_by_hand(&[("VOUCHSAFE_TEST_UNTOUCHED", "1")]);
        assert!(signed.is_good_for_openssh(), "{kind}");
        signed.refused();
    }
}

/// The flags are signed: who writes another one in has no signature any more.
#[test]
fn a_touch_cannot_be_written_in() {
    let Some(signed) = Signed::new("ed25519-sk", &["-O", "no-touch-required"]) else { return };
    signed.sign_by_hand(&[]);
    let text = std::fs::read_to_string(signed.signature()).unwrap();
    let mut signature = ssh_key::SshSig::from_pem(&text).unwrap();
    let inner = signature.signature_bytes().to_vec();
    let flags = inner.len() - 5;
    assert_eq!(inner[flags], 0);
    let mut touched = inner;
    touched[flags] = 1;
    let algorithm = signature.algorithm();
    let changed = ssh_key::Signature::new(algorithm, touched).unwrap();
    signature =
        ssh_key::SshSig::new(signature.public_key().clone(), signature.namespace(), signature.hash_alg(), changed)
            .unwrap();
    signed.scene.write("policy.toml.sig", signature.to_pem(ssh_key::LineEnding::LF).unwrap().as_bytes());
    let outcome = signed.run().expect_status(121);
    assert!(!outcome.err().contains("nobody had touched"), "{}", outcome.transcript());
}
