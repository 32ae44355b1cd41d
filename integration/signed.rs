//! Signed policies with OpenSSH's own ssh-keygen: made by `policy sign`, checked by both, and every way to get around one.

use std::path::PathBuf;

use crate::aws::namespace::with_etc;
use crate::harness::{Outcome, Scene};
use crate::have;

/// A scene whose policy has a base, and keys: alice signs for `test`, bob for `other`, mallory for nothing.
struct Signed {
    scene: Scene,
    policy: PathBuf,
    trust: String,
}

impl Signed {
    fn new() -> Self {
        let scene = Scene::with(&[("A", "canary-of-A")]);
        let text = std::fs::read_to_string(scene.write_policy()).unwrap();
        let base = "version = 1\nserial = 12\nenvironment = \"*\"\n[child]\nset = { APP = \"1\" }\n";
        scene.write("base.toml", base.as_bytes());
        let text = text.replacen("version = 1\n", "version = 1\nserial = 12\nextends = \"base.toml\"\n", 1);
        let policy = scene.write("policy.toml", text.as_bytes());
        for key in ["alice", "bob", "mallory"] {
            let kind = if key == "bob" { "ecdsa" } else { "ed25519" };
            let made = scene.other("ssh-keygen", &["-q", "-t", kind, "-N", "", "-C", key, "-f", key]).status().unwrap();
            assert!(made.success());
        }
        let key = |name: &str| std::fs::read_to_string(scene.path(&format!("{name}.pub"))).unwrap().trim().to_owned();
        let trust = format!(
            "[trust]\nenvironments = [\"other\", \"test\"]\nmin_serial = {{ test = 12 }}\n[[trust.keys]]\nkey = \"{}\"\n\
             environments = [\"test\"]\n[[trust.keys]]\nkey = \"{}\"\nenvironments = [\"other\"]\n",
            key("alice"),
            key("bob")
        );
        Self { scene, policy, trust }
    }

    fn sign(&self, key: &str) -> Outcome {
        self.scene.vouchsafe(&["policy", "sign", self.policy.to_str().unwrap(), "--key", key])
    }

    fn run_under(&self, host: &str, extra: &[&str]) -> Outcome {
        let mut words = vec!["run", "--policy", self.policy.to_str().unwrap()];
        words.extend(extra);
        words.extend(["--", "printenv", "A"]);
        with_etc(&self.scene, &[("vouchsafe/host.toml", host)], &words)
    }

    fn run(&self) -> Outcome {
        self.run_under(&self.trust, &[])
    }

    #[track_caller]
    fn refused(&self, outcome: &Outcome, because: &str) {
        assert_eq!(outcome.status.code(), Some(121), "{}", outcome.transcript());
        assert!(outcome.err().contains(because), "{}", outcome.transcript());
        assert!(!outcome.out().contains("canary"));
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.scene.path(file)).unwrap();
        assert!(text.contains(from));
        self.scene.write(file, text.replacen(from, to, 1).as_bytes());
    }
}

fn is_possible() -> bool {
    have(&["unshare", "mount", "ssh-keygen"], true)
}

#[test]
fn what_we_sign_ssh_keygen_verifies_and_the_other_way_round() {
    if !have(&["ssh-keygen"], false) {
        return;
    }
    let signed = Signed::new();
    signed.sign("alice").expect_status(0);
    let scene = &signed.scene;
    let allowed = format!("alice {}", std::fs::read_to_string(scene.path("alice.pub")).unwrap());
    scene.write("allowed", allowed.as_bytes());
    for file in ["policy.toml", "base.toml"] {
        let signature = format!("{file}.sig");
        let words = ["-Y", "verify", "-f", "allowed", "-I", "alice", "-n", "vouchsafe", "-s", &signature];
        let input = std::fs::File::open(scene.path(file)).unwrap();
        assert!(scene.other("ssh-keygen", &words).stdin(input).status().unwrap().success(), "{file}");
        // The other way round: made by ssh-keygen alone, next to the file.
        std::fs::remove_file(scene.path(&signature)).unwrap();
        let words = ["-q", "-Y", "sign", "-n", "vouchsafe", "-f", "alice", file];
        assert!(scene.other("ssh-keygen", &words).status().unwrap().success());
    }
    scene.write("host.toml", signed.trust.as_bytes());
    let outcome = scene.vouchsafe(&["policy", "verify", "policy.toml", "--host", "host.toml"]).expect_status(0);
    assert!(outcome.out().contains("policy.toml: good, by SHA256:") && outcome.out().contains(" alice\n"));
    let records = std::fs::read_to_string(scene.path("audit.jsonl")).unwrap();
    assert_eq!(records.matches("\"policy.signed\"").count(), 4, "an intent and an outcome for each file: {records}");
}

#[test]
fn what_cannot_be_written_down_is_not_signed() {
    if !have(&["ssh-keygen"], false) {
        return;
    }
    let signed = Signed::new();
    let text = std::fs::read_to_string(&signed.policy).unwrap();
    let log = signed.scene.path("audit.jsonl").display().to_string();
    signed.scene.write("policy.toml", text.replace(&log, "/dev/full").as_bytes());
    signed.sign("alice").expect_status(123);
    for file in ["policy.toml.sig", "base.toml.sig"] {
        assert!(!signed.scene.path(file).exists(), "{file} was made without a record");
    }
}

#[test]
fn every_way_around_a_signature() {
    if !is_possible() {
        return;
    }
    let signed = Signed::new();
    let good = || {
        signed.sign("alice").expect_status(0);
        assert_eq!(signed.run().expect_status(0).out(), "canary-of-A\n");
    };

    signed.refused(&signed.run(), "is not signed");
    good();

    // Stripped: of the policy, of its base.
    for file in ["policy.toml", "base.toml"] {
        std::fs::remove_file(signed.scene.path(&format!("{file}.sig"))).unwrap();
        signed.refused(&signed.run(), &format!("{file}` is not signed"));
        good();
    }
    // Changed after it was signed: one grant more, in either file.
    signed.edit("policy.toml", "to = \"anyone\"", "to = \"anyone\" ");
    signed.refused(&signed.run(), "does not fit");
    signed.edit("policy.toml", "to = \"anyone\" ", "to = \"anyone\"");
    signed.edit("base.toml", "APP", "LD_PRELOAD");
    signed.refused(&signed.run(), "does not fit");
    signed.edit("base.toml", "LD_PRELOAD", "APP");
    // Replaced by that of another file, another key, another environment's key.
    std::fs::copy(signed.scene.path("base.toml.sig"), signed.scene.path("policy.toml.sig")).unwrap();
    signed.refused(&signed.run(), "does not fit");
    signed.sign("mallory").expect_status(0);
    signed.refused(&signed.run(), "does not trust");
    signed.sign("bob").expect_status(0);
    signed.refused(&signed.run(), "may not sign for `test`");
    good();
    // Replayed: an older serial with its own good signature, of the policy or of the base alone.
    for file in ["policy.toml", "base.toml"] {
        signed.edit(file, "serial = 12", "serial = 11");
        signed.sign("alice").expect_status(0);
        signed.refused(&signed.run(), "has serial 11, and this host accepts 12");
        signed.edit(file, "serial = 11", "serial = 12");
    }
    good();
    // Revoked, expired, or no key left to trust.
    let alice = std::fs::read_to_string(signed.scene.path("alice.pub")).unwrap();
    let revoked =
        signed.trust.replacen("[[trust.keys]]", &format!("revoked = [\"{}\"]\n[[trust.keys]]", alice.trim()), 1);
    signed.refused(&signed.run_under(&revoked, &[]), "has revoked");
    let until = |time: &str| {
        signed.trust.replacen(
            "environments = [\"test\"]\n[[",
            &format!("environments = [\"test\"]\nexpires = \"{time}\"\n[["),
            1,
        )
    };
    signed.refused(&signed.run_under(&until("2024-01-01T00:00:00Z"), &[]), "has expired");
    assert_eq!(signed.run_under(&until("2999-01-01T00:00:00Z"), &[]).expect_status(0).out(), "canary-of-A\n");
    signed.refused(&signed.run_under("[trust]\nenvironments = [\"test\"]\n", &[]), "has no keys");
    signed.refused(&signed.run_under("[trust]\n", &[]), "host.toml");
    // Another environment's policy, unsigned, called for what it is not.
    std::fs::remove_file(signed.scene.path("policy.toml.sig")).unwrap();
    signed.refused(&signed.run_under(&signed.trust, &["--env", "dev"]), "is not signed");
    signed.refused(&signed.run_under(&signed.trust, &["--env", "test"]), "is not signed");
    let elsewhere = signed.trust.replace("\"test\"]", "\"prod\"]").replace("test = 12", "prod = 12");
    assert_eq!(signed.run_under(&elsewhere, &["--env", "test"]).expect_status(0).out(), "canary-of-A\n");
    signed.refused(&signed.run_under(&elsewhere, &[]), "no environment was named");
}

/// What is not signed is not even looked into: a parser's error about it would show that it was.
#[test]
fn an_unsigned_file_never_reaches_the_parser() {
    if !is_possible() {
        return;
    }
    let signed = Signed::new();
    for garbage in
        [&b"version = 1\nenvironment = \x22test"[..], b"\xff\xfe", b"", b"[[[[[[[[", b"extends = \"/etc/shadow\"\n"]
    {
        signed.scene.write("policy.toml", garbage);
        let outcome = signed.run();
        signed.refused(&outcome, "is not signed");
        assert!(!outcome.err().contains("policy.toml:"), "{}", outcome.transcript());
    }
}

#[test]
fn an_encrypted_key_and_one_that_an_agent_holds_can_sign() {
    if !have(&["ssh-agent", "ssh-add", "ssh-keygen"], false) {
        return;
    }
    let signed = Signed::new();
    let scene = &signed.scene;
    let script = "set -e\neval \"$(ssh-agent -s)\" >/dev/null\ntrap 'kill $SSH_AGENT_PID' EXIT\nssh-add -q alice\nrm alice\n\
         \"$0\" policy sign policy.toml --key alice.pub\n";
    let output = scene.other("sh", &["-c", script, crate::harness::VOUCHSAFE]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    scene.write("host.toml", signed.trust.as_bytes());
    scene.vouchsafe(&["policy", "verify", "policy.toml", "--host", "host.toml"]).expect_status(0);
    // Whoever starts us may ignore how children end.
    let words = ["--ignore-signal=CHLD", crate::harness::VOUCHSAFE, "policy", "sign", "policy.toml", "--key", "bob"];
    let output = scene.other("env", &words).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // A key that is not there makes nothing, and leaves what is there.
    let before = std::fs::read(scene.path("policy.toml.sig")).unwrap();
    let outcome = signed.sign("nobody").expect_status(124);
    assert!(outcome.err().contains("ssh-keygen made no signature"), "{}", outcome.transcript());
    assert_eq!(std::fs::read(scene.path("policy.toml.sig")).unwrap(), before);
}

/// What a file of recipients holds is under no signature: whoever can write it could let himself in.
#[test]
fn recipients_of_a_signed_policy_stand_in_the_policy() {
    if !is_possible() {
        return;
    }
    let signed = Signed::new();
    let scene = &signed.scene;
    let store = "[stores.more]\ntype = \"age\"\npath = \"more.age\"\nrecipients_file = \"readers.txt\"\n\
         identities = [\"file:identity.key\"]\n\n[secrets]\nM = { store = \"more\", required = false }\n";
    signed.edit("policy.toml", "[secrets]\n", store);
    let readers = format!("{}\n", scene.recipient());
    scene.write("readers.txt", readers.as_bytes());
    // Elsewhere nothing changes.
    signed.sign("alice").expect_status(0);
    let policy = signed.policy.to_str().unwrap();
    scene.vouchsafe(&["set", "M", "--generate", "--policy", policy]).expect_status(0);
    let sealed = std::fs::read(scene.path("more.age")).unwrap();
    let under = |words: &[&str]| with_etc(scene, &[("vouchsafe/host.toml", &signed.trust)], words);
    assert_eq!(signed.run().expect_status(0).out(), "canary-of-A\n");
    for words in [
        &["set", "M", "--generate", "--policy", policy][..],
        &["remove", "M", "--policy", policy],
        &["rekey", "--policy", policy],
        &["copy", "--from", policy, "--to", policy, "--overwrite", "M"],
        &["policy", "verify", policy],
        &["policy", "sign", policy, "--key", "alice"],
    ] {
        let outcome = under(words);
        signed.refused(&outcome, "readers.txt`: this host demands a signature of the policy");
        assert!(outcome.err().contains("hint: recipients = ["), "{}", outcome.transcript());
    }
    assert_eq!(std::fs::read(scene.path("more.age")).unwrap(), sealed);
    // As it says.
    signed.edit(
        "policy.toml",
        "recipients_file = \"readers.txt\"",
        &format!("recipients = [\"{}\"]", scene.recipient()),
    );
    signed.sign("alice").expect_status(0);
    under(&["set", "M", "--generate", "--policy", policy]).expect_status(0);
    under(&["policy", "verify", policy]).expect_status(0);
}

#[test]
fn a_signature_is_written_down_before_it_is_there() {
    if !have(&["ssh-keygen"], false) {
        return;
    }
    let signed = Signed::new();
    let text = std::fs::read_to_string(&signed.policy).unwrap();
    let (head, _) = text.split_once("[[audit.sinks]]").unwrap();
    signed.scene.write("policy.toml", format!("{head}[[audit.sinks]]\ntype = \"stderr\"\n").as_bytes());
    let script = "exec \"$0\" policy sign policy.toml --key alice 2> /dev/full";
    let status = signed.scene.other("sh", &["-c", script, crate::harness::VOUCHSAFE]).status().unwrap();
    assert_eq!(status.code(), Some(123));
    for file in ["policy.toml.sig", "base.toml.sig"] {
        assert!(!signed.scene.path(file).exists(), "{file}");
    }
}

#[test]
fn a_key_that_no_host_accepts_is_named_as_such() {
    if !have(&["ssh-keygen"], false) {
        return;
    }
    let signed = Signed::new();
    for (name, kind, bits) in [("rsa", "rsa", "2048"), ("p384", "ecdsa", "384")] {
        let words = ["-q", "-t", kind, "-b", bits, "-N", "", "-f", name];
        assert!(signed.scene.other("ssh-keygen", &words).status().unwrap().success());
        let outcome = signed.sign(name).expect_status(124);
        assert!(outcome.err().contains(&format!("`{name}` is a key of type")), "{}", outcome.transcript());
        assert!(outcome.err().contains("hint: ssh-keygen -t ed25519"), "{}", outcome.transcript());
        assert!(!signed.scene.path("policy.toml.sig").exists());
    }
}

/// Each hint is a command that works.
#[test]
fn hints_about_signatures_can_be_followed() {
    if !is_possible() {
        return;
    }
    let signed = Signed::new();
    let (scene, policy) = (&signed.scene, signed.policy.to_str().unwrap());
    let under = |host: &str, words: &[&str]| with_etc(scene, &[("vouchsafe/host.toml", host)], words);
    // It is the policy that is signed, also where its base is not.
    signed.sign("alice").expect_status(0);
    std::fs::remove_file(scene.path("base.toml.sig")).unwrap();
    let outcome = signed.run_under(&signed.trust, &["--env", "test"]);
    signed.refused(&outcome, "base.toml` is not signed");
    assert!(
        outcome.err().contains("policy sign") && outcome.err().contains("policy.toml --key"),
        "{}",
        outcome.transcript()
    );
    // A policy for which nothing is demanded, and the option that says so.
    let elsewhere = signed.trust.replace("\"test\"]", "\"prod\"]").replace("test = 12", "prod = 12");
    std::fs::remove_file(scene.path("policy.toml.sig")).unwrap();
    for (words, option) in [
        (&["policy", "verify", policy][..], "--env"),
        (&["copy", "--from", policy, "--to", policy, "A"], "--from-env"),
        (&["copy", "--from", policy, "--to", policy, "A", "--from-env", "test"], "--to-env"),
    ] {
        let outcome = under(&elsewhere, words);
        signed.refused(&outcome, "is not signed");
        assert!(outcome.err().contains(&format!("hint: {option} dev")), "{}", outcome.transcript());
    }
    let outcome = under(&elsewhere, &["policy", "verify", policy, "--env", "test"]).expect_status(0);
    assert!(outcome.out().contains("policy.toml: not signed\n"), "{}", outcome.transcript());
    assert!(outcome.out().contains("test: note: this host demands no signature for it"), "{}", outcome.transcript());
    // It was made by hand, so that nothing is written to it; but both policies are used.
    let words = ["copy", "--from", policy, "--to", policy, "A", "--from-env", "test", "--to-env", "test"];
    let outcome = under(&elsewhere, &words).expect_status(122);
    assert!(!outcome.err().contains("signed"), "{}", outcome.transcript());
    // What is demanded for one environment is not got around by naming another.
    signed.refused(&under(&elsewhere, &["policy", "verify", policy, "--env", "prod"]), "is not signed");
    signed.refused(&under(&elsewhere, &["policy", "verify", policy, "--env", "dev"]), "--env");
}
