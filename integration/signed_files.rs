//! Signed sealed files: every way around the signature, and every command that reads or writes one on a host that demands it.
//!
//! The rows of the table are those of `docs/signatures.md`.

use std::path::Path;

use crate::agent_scene::{Agent, write_files};
use crate::aws::namespace::with_etc;
use crate::harness::{Outcome, Scene};
use crate::have;

/// Three stores for one identity: of `prod` and its services `api` and `web`, and of `dev`. Alice signs for `prod`, bob for `dev`,
/// carol for `prod` too, mallory for nothing.
pub struct Host {
    pub scene: Scene,
    /// `[trust]` of the host file.
    trust: String,
    demands: bool,
}

const KEYS: [&str; 4] = ["alice", "bob", "carol", "mallory"];
const POLICIES: [(&str, &str); 3] = [("prod", "api"), ("prod", "web"), ("dev", "api")];
const FILES: [&str; 6] =
    ["prod-api.age", "prod-api.age.sig", "prod-web.age", "prod-web.age.sig", "dev-api.age", "dev-api.age.sig"];

impl Host {
    fn new() -> Self {
        let scene = Scene::new();
        for folder in ["log", "saved", "older"] {
            std::fs::create_dir(scene.path(folder)).unwrap();
        }
        for key in KEYS {
            let words = ["-q", "-t", "ed25519", "-N", "", "-C", key, "-f", key];
            assert!(scene.other("ssh-keygen", &words).status().unwrap().success());
        }
        let line = |name: &str| std::fs::read_to_string(scene.path(&format!("{name}.pub"))).unwrap().trim().to_owned();
        let key = |name: &str, environment: &str| {
            format!("[[trust.keys]]\nkey = \"{}\"\nenvironments = [\"{environment}\"]\n", line(name))
        };
        let trust = [key("alice", "prod"), key("bob", "dev"), key("carol", "prod")].concat();
        let host = Self { trust, scene, demands: true };
        for (environment, service) in POLICIES {
            host.write_policy(environment, service, "");
            for value in ["old", "new"] {
                let key = if environment == "prod" { "alice" } else { "bob" };
                host.set(&format!("{environment}-{service}"), &format!("{value} of {environment} {service}"), key)
                    .expect_status(0);
                if value == "old" {
                    for end in ["age", "age.sig"] {
                        let file = format!("{environment}-{service}.{end}");
                        host.copy(&file, &format!("older/{file}"));
                    }
                }
            }
        }
        host.copy_all("", "saved/");
        host
    }

    fn write_policy(&self, environment: &str, service: &str, store: &str) {
        let at = self.scene.path("").display().to_string();
        let rotate =
            "{ every = \"30d\", generate = { length = 20 }, apply = { type = \"command\", program = \"/bin/true\" } }";
        let binding = if store.contains("format") { "{}".to_owned() } else { format!("{{ rotate = {rotate} }}") };
        let text = format!(
            "version = 1\nenvironment = \"{environment}\"\nservice = \"{service}\"\nstore = \"files\"\n[stores.files]\n\
             type = \"age\"\npath = \"{at}{environment}-{service}.age\"\nrecipients = [\"{}\"]\n\
             identities = [\"file:{at}identity.key\"]\n{store}[secrets]\nA = {binding}\n\
             [[grants]]\nsecrets = [\"*\"]\nto = \"anyone\"\n\
             [[audit.sinks]]\ntype = \"file\"\npath = \"{at}log/audit.jsonl\"\nsync = false\n",
            self.scene.recipient()
        );
        let name = format!("{environment}-{service}.toml");
        self.scene.write(&name, text.as_bytes());
        let key = if environment == "prod" { "alice" } else { "bob" };
        self.scene.vouchsafe(&["policy", "sign", &name, "--key", key]).expect_status(0);
    }

    /// Writes a value where nothing is demanded, and signs.
    fn set(&self, policy: &str, value: &str, key: &str) -> Outcome {
        let policy = format!("{policy}.toml");
        let words = ["set", "A", "--policy", &policy, "--sign-key", key];
        self.scene.vouchsafe_reading(&words, value.as_bytes())
    }

    fn copy_all(&self, from: &str, to: &str) {
        for file in FILES {
            let source = self.scene.path(&format!("{from}{file}"));
            if source.exists() {
                std::fs::copy(source, self.scene.path(&format!("{to}{file}"))).unwrap();
            }
        }
    }

    fn copy(&self, from: &str, to: &str) {
        std::fs::copy(self.scene.path(from), self.scene.path(to)).unwrap();
    }

    /// A signature of `file` as it is, by OpenSSH alone.
    fn sign(&self, file: &str, key: &str, namespace: &str) {
        let words = ["-q", "-Y", "sign", "-n", namespace, "-f", key, file];
        std::fs::remove_file(self.scene.path(&format!("{file}.sig"))).unwrap_or_default();
        assert!(self.scene.other("ssh-keygen", &words).status().unwrap().success());
    }

    /// What somebody makes who knows the recipients and nothing else.
    fn counterfeit(&self) {
        let recipient: age::x25519::Recipient = self.scene.recipient().parse().unwrap();
        let document = "{\"format\":\"vouchsafe-sealed/1\",\"environment\":\"prod\",\"service\":\"api\",\"generation\":99,\
                        \"items\":{\"A\":{\"current\":{\"number\":9,\"time\":\"2026-01-01T00:00:00Z\",\"author\":\"m\",\
                        \"value\":\"counterfeit\"}}}}";
        self.scene.write("prod-api.age", &age::encrypt(&recipient, document.as_bytes()).unwrap());
    }

    fn host_file(&self) -> String {
        let sealed = if self.demands { "sealed_files = [\"prod\", \"dev\"]\n" } else { "" };
        format!("[trust]\nenvironments = [\"prod\", \"dev\"]\n{sealed}{}", self.trust)
    }

    fn vouchsafe(&self, words: &[&str]) -> Outcome {
        with_etc(&self.scene, &[("vouchsafe/host.toml", &self.host_file())], words)
    }

    fn run(&self) -> Outcome {
        self.vouchsafe(&["run", "--policy", "prod-api.toml", "--", "printenv", "A"])
    }
}

fn is_possible() -> bool {
    have(&["unshare", "mount", "ssh-keygen"], true)
}

/// Something that an attacker does, and how it is refused: where only policies are signed, and where sealed files are too.
type Attack = (&'static str, fn(&mut Host), Option<&'static str>, Option<&'static str>);

const ATTACKS: &[Attack] = &[
    ("nothing: the file as it is", |_| (), None, None),
    (
        "put another file in its place, made by somebody who knows the recipients",
        |host| host.counterfeit(),
        None,
        Some("does not fit"),
    ),
    (
        "the same, signed with a key that the host does not list",
        |host| {
            host.counterfeit();
            host.sign("prod-api.age", "mallory", "vouchsafe-sealed");
        },
        None,
        Some("does not trust"),
    ),
    (
        "the same, signed with the key of another environment",
        |host| {
            host.counterfeit();
            host.sign("prod-api.age", "bob", "vouchsafe-sealed");
        },
        None,
        Some("may not sign for `prod`"),
    ),
    (
        "the same, without a signature",
        |host| {
            host.counterfeit();
            std::fs::remove_file(host.scene.path("prod-api.age.sig")).unwrap();
        },
        None,
        Some("is not signed"),
    ),
    (
        "strip the signature",
        |host| std::fs::remove_file(host.scene.path("prod-api.age.sig")).unwrap(),
        None,
        Some("is not signed"),
    ),
    (
        "put something else in place of the signature",
        |host| drop(host.scene.write("prod-api.age.sig", b"-----BEGIN SSH SIGNATURE-----\n")),
        None,
        Some("is no signature"),
    ),
    (
        "the signature of the file before",
        |host| host.copy("older/prod-api.age.sig", "prod-api.age.sig"),
        None,
        Some("does not fit"),
    ),
    (
        "a signature of the same bytes, made as one of a policy",
        |host| host.sign("prod-api.age", "alice", "vouchsafe"),
        None,
        Some("made for another purpose"),
    ),
    (
        "a signature of a policy's bytes, made as one of a sealed file",
        |host| host.sign("prod-api.toml", "alice", "vouchsafe-sealed"),
        Some("made for another purpose"),
        Some("made for another purpose"),
    ),
    (
        "sign with a key that has expired",
        |host| {
            let until = "environments = [\"prod\"]\nexpires = \"2024-01-01T00:00:00Z\"\n[[";
            host.trust = host.trust.replacen("environments = [\"prod\"]\n[[", until, 1);
            host.sign("prod-api.toml", "carol", "vouchsafe");
        },
        None,
        Some("has expired"),
    ),
    (
        "sign with a key that was revoked",
        |host| {
            let alice = std::fs::read_to_string(host.scene.path("alice.pub")).unwrap();
            host.trust = format!("revoked = [\"{}\"]\n{}", alice.trim(), host.trust);
            host.sign("prod-api.toml", "carol", "vouchsafe");
        },
        None,
        Some("has revoked"),
    ),
    (
        "put the file and the signature of `dev` in place of those of `prod`",
        |host| {
            host.copy("dev-api.age", "prod-api.age");
            host.copy("dev-api.age.sig", "prod-api.age.sig");
        },
        Some("it belongs to environment `dev`, not to `prod`"),
        Some("may not sign for `prod`"),
    ),
    (
        "put the file and the signature of another service of `prod` in their place",
        |host| {
            host.copy("prod-web.age", "prod-api.age");
            host.copy("prod-web.age.sig", "prod-api.age.sig");
        },
        Some("it belongs to service `web`, not to `api`"),
        Some("it belongs to service `web`, not to `api`"),
    ),
    (
        "put an older file with its own signature in their place",
        |host| {
            host.copy("older/prod-api.age", "prod-api.age");
            host.copy("older/prod-api.age.sig", "prod-api.age.sig");
        },
        None,
        None,
    ),
    (
        "the same, where the policy says `min_generation`",
        |host| {
            host.write_policy("prod", "api", "min_generation = 3\n");
            host.copy("older/prod-api.age", "prod-api.age");
            host.copy("older/prod-api.age.sig", "prod-api.age.sig");
        },
        Some("has generation 2, and the policy accepts 3 and newer"),
        Some("has generation 2, and the policy accepts 3 and newer"),
    ),
    (
        "the same, and an older policy that did not say it yet, where the host file says `min_serial`",
        |host| {
            host.trust = format!("min_serial = {{ prod = 2 }}\n{}", host.trust);
            host.copy("older/prod-api.age", "prod-api.age");
            host.copy("older/prod-api.age.sig", "prod-api.age.sig");
        },
        Some("has serial 0, and this host accepts 2 and newer"),
        Some("has serial 0, and this host accepts 2 and newer"),
    ),
];

#[test]
fn the_table_of_attacks_on_sealed_files_is_true() {
    if !is_possible() {
        return;
    }
    let mut host = Host::new();
    let trust = host.trust.clone();
    let mut rows = Vec::new();
    for (name, attack, without, with) in ATTACKS {
        host.copy_all("saved/", "");
        host.trust.clone_from(&trust);
        host.write_policy("prod", "api", "");
        attack(&mut host);
        let cells = [(false, without), (true, with)].map(|(demands, refusal)| {
            host.demands = demands;
            let outcome = host.run();
            match refusal {
                None => assert!(!outcome.expect_status(0).out().is_empty()),
                Some(words) => {
                    let err = outcome.err();
                    assert!(
                        outcome.status.code() != Some(0) && err.contains(words),
                        "{name}: {}",
                        outcome.transcript()
                    );
                    assert!(outcome.stdout.is_empty());
                }
            }
            refusal.map_or_else(|| "used".to_owned(), |words| format!("refused: {words}"))
        });
        let [without, with] = cells;
        rows.push(format!("| {name} | {without} | {with} |"));
    }
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/signatures.md")).unwrap();
    let table = page.split("| attack |").nth(1).unwrap_or_default();
    let documented: Vec<&str> = table.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    assert_eq!(documented, rows, "\n{}", rows.join("\n"));
}

/// One check, and every way to the file leads through it.
#[test]
fn no_command_opens_a_file_that_nobody_answers_for() {
    if !is_possible() {
        return;
    }
    let host = Host::new();
    host.counterfeit();
    let policy = ["--policy", "prod-api.toml"];
    let before = std::fs::read(host.scene.path("prod-api.age")).unwrap();
    host.scene.write("value", b"x");
    for (status, words) in [
        (122, &["run"][..]),
        (122, &["check"]),
        (10, &["check", "--offline"]),
        (122, &["list"]),
        (122, &["history", "A"]),
        (122, &["set", "A", "--from-file", "value", "--sign-key", "alice"]),
        (122, &["remove", "A", "--sign-key", "alice"]),
        (122, &["rekey", "--sign-key", "alice"]),
        (122, &["rekey", "--dry-run", "--sign-key", "alice"]),
        (122, &["rotate", "A", "--sign-key", "alice"]),
        (122, &["rotate", "A", "--dry-run"]),
    ] {
        let mut line = [words, &policy].concat();
        if words == ["run"] {
            line.extend(["--", "printenv", "A"]);
        }
        let outcome = host.vouchsafe(&line);
        let said = format!("{}{}", outcome.out(), outcome.err());
        assert_eq!(outcome.status.code(), Some(status), "{}", outcome.transcript());
        assert!(said.contains("does not fit") && !said.contains("counterfeit"), "{}", outcome.transcript());
    }
    let copy = ["copy", "--from", "prod-api.toml", "--to", "dev-api.toml", "A", "--overwrite", "--sign-key", "bob"];
    assert!(host.vouchsafe(&copy).expect_status(122).err().contains("does not fit"));
    let copy = ["copy", "--from", "dev-api.toml", "--to", "prod-api.toml", "A", "--overwrite", "--sign-key", "alice"];
    assert!(host.vouchsafe(&copy).expect_status(122).err().contains("does not fit"));
    let outcome = host.vouchsafe(&["policy", "verify", "prod-api.toml"]).expect_status(122);
    assert!(outcome.out().contains("prod-api.age: not good"), "{}", outcome.transcript());
    assert_eq!(std::fs::read(host.scene.path("prod-api.age")).unwrap(), before);
}

#[test]
fn a_stock_age_file_is_signed_like_any_other() {
    if !is_possible() {
        return;
    }
    let host = Host::new();
    let recipient: age::x25519::Recipient = host.scene.recipient().parse().unwrap();
    host.write_policy("prod", "api", "format = \"dotenv\"\nunbound = true\n");
    host.scene.write("prod-api.age", &age::encrypt(&recipient, b"A=by hand\n").unwrap());
    assert!(host.run().expect_status(122).err().contains("does not fit"));
    let outcome =
        host.scene.vouchsafe(&["policy", "sign", "prod-api.toml", "--key", "alice", "--sealed-files"]).expect_status(0);
    assert!(outcome.out().contains("prod-api.age: of store `files`, to be signed as it is"), "{}", outcome.out());
    assert_eq!(host.run().expect_status(0).out(), "by hand\n");
}

#[test]
fn what_writes_signs_or_is_refused_before_anything_changes() {
    if !is_possible() {
        return;
    }
    let host = Host::new();
    host.scene.write("value", b"written");
    let policy = ["--policy", "prod-api.toml"];
    let state = || ["prod-api.age", "prod-api.age.sig"].map(|file| std::fs::read(host.scene.path(file)).unwrap());
    let writers: [&[&str]; 6] = [
        &["set", "A", "--from-file", "value"],
        &["rekey"],
        &["rotate", "A"],
        &["rotate", "A", "--rollback"],
        &["copy", "--from", "dev-api.toml", "--to", "prod-api.toml", "A", "--overwrite"],
        &["remove", "A"],
    ];
    let generation = || {
        let outcome = host.vouchsafe(&[&["check", "--json"], &policy[..]].concat());
        let report: serde_json::Value = serde_json::from_slice(&outcome.stdout).unwrap();
        let file = &report["sealed_files"][0];
        assert!(file["signed_by"].as_str().unwrap().starts_with("SHA256:"));
        file["generation"].as_u64().unwrap()
    };
    for words in writers {
        let line = |key: &[&'static str]| match words[0] {
            "copy" => [words, key].concat(),
            _ => [words, &policy, key].concat(),
        };
        let before = state();
        let outcome = host.vouchsafe(&line(&[])).expect_status(124);
        let err = outcome.err();
        assert!(err.contains("no key was given") && err.contains("--sign-key FILE"), "{}", outcome.transcript());
        for key in ["bob", "mallory", "mallory.pub", "nobody"] {
            let outcome = host.vouchsafe(&line(&["--sign-key", key])).expect_status(124);
            assert!(outcome.err().contains("was not written"), "{}", outcome.transcript());
        }
        assert_eq!(state(), before, "{words:?}");
        let at = generation();
        let outcome = host.vouchsafe(&line(&["--sign-key", "alice"])).expect_status(0);
        assert!(generation() > at, "{words:?} counts up: {}", outcome.transcript());
        let outcome = host.vouchsafe(&["policy", "verify", "prod-api.toml"]).expect_status(0);
        assert!(outcome.out().contains("prod-api.age: good, by SHA256:"), "{}", outcome.transcript());
    }
    let names = std::fs::read_dir(host.scene.path("")).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = names.filter(|name| name.to_string_lossy().ends_with(".tmp")).collect();
    assert!(left.is_empty(), "{left:?}");
    // A first file, and the key by its variable.
    for file in ["prod-api.age", "prod-api.age.sig"] {
        std::fs::remove_file(host.scene.path(file)).unwrap();
    }
    let line = ["set", "A", "--from-file", "value", "--policy", "prod-api.toml"];
    host.vouchsafe(&line).expect_status(124);
    assert!(!host.scene.path("prod-api.age").exists());
    let Host { scene, trust, .. } = host;
    let host = Host { scene: scene.variable("VOUCHSAFE_SIGN_KEY", "carol"), trust, demands: true };
    host.vouchsafe(&line).expect_status(0);
    assert_eq!(host.run().expect_status(0).out(), "written\n");
    let outcome = host.vouchsafe(&["run", "--policy", "prod-api.toml", "--", "env"]).expect_status(0);
    assert!(!outcome.out().contains("VOUCHSAFE_"), "{}", outcome.out());
}

#[test]
fn openssh_signs_and_verifies_sealed_files_both_ways() {
    if !is_possible() {
        return;
    }
    let host = Host::new();
    let scene = &host.scene;
    let allowed = format!("alice {}", std::fs::read_to_string(scene.path("alice.pub")).unwrap());
    scene.write("allowed", allowed.as_bytes());
    let verify = || {
        let words =
            ["-Y", "verify", "-f", "allowed", "-I", "alice", "-n", "vouchsafe-sealed", "-s", "prod-api.age.sig"];
        let input = std::fs::File::open(scene.path("prod-api.age")).unwrap();
        scene.other("ssh-keygen", &words).stdin(input).status().unwrap().success()
    };
    assert!(verify(), "made by `set`");
    host.sign("prod-api.age", "alice", "vouchsafe-sealed");
    assert_eq!(host.run().expect_status(0).out(), "new of prod api\n");
    // A second signature of the same bytes stands behind the new one; each counts.
    host.scene.vouchsafe(&["policy", "sign", "prod-api.toml", "--key", "carol", "--sealed-files"]).expect_status(0);
    let text = std::fs::read_to_string(scene.path("prod-api.age.sig")).unwrap();
    assert_eq!(text.matches("BEGIN SSH SIGNATURE").count(), 2);
    host.run().expect_status(0);
    host.scene.vouchsafe(&["policy", "sign", "prod-api.toml", "--key", "alice", "--sealed-files"]).expect_status(0);
    assert!(verify());
}

#[test]
fn a_host_file_cannot_half_demand() {
    if !is_possible() {
        return;
    }
    let host = Host::new();
    let words = ["run", "--policy", "prod-api.toml", "--", "printenv", "A"];
    for (line, said) in [
        ("environments = [\"dev\"]\nsealed_files = [\"prod\"]\n", "its policies are not"),
        ("environments = [\"prod\"]\nsealed_files = []\n", "sealed_files"),
        ("environments = [\"prod\"]\nsealed_files = \"prod\"\n", "sealed_files"),
        ("environments = [\"prod\"]\nsealed_file = [\"prod\"]\n", "sealed_file"),
    ] {
        let text = format!("[trust]\n{line}{}", host.trust);
        let outcome = with_etc(&host.scene, &[("vouchsafe/host.toml", &text)], &words).expect_status(121);
        assert!(outcome.err().contains(said) && outcome.stdout.is_empty(), "{}", outcome.transcript());
    }
}

/// What the agent serves it has read itself, under its own host file.
#[test]
fn the_agent_serves_nothing_that_nobody_answers_for() {
    if !have(&["ssh-keygen"], false) {
        return;
    }
    let scene = Scene::sealed(&["A"]);
    let words = ["-q", "-t", "ed25519", "-N", "", "-f", "alice"];
    assert!(scene.other("ssh-keygen", &words).status().unwrap().success());
    let alice = std::fs::read_to_string(scene.path("alice.pub")).unwrap();
    let trust = format!(
        "[trust]\nenvironments = [\"test\"]\nsealed_files = [\"test\"]\n[[trust.keys]]\nkey = \"{}\"\n\
         environments = [\"test\"]\n",
        alice.trim()
    );
    let set = |key: &[&str]| scene.verb_reading(&[&["set", "A"], key].concat(), b"value");
    set(&["--sign-key", "alice"]).expect_status(0);
    write_files(&scene, "");
    scene.vouchsafe(&["policy", "sign", "served/test.toml", "--key", "alice"]).expect_status(0);
    let agent = Agent::start_with(&scene, &trust, &[]);
    assert_eq!(agent.run(&["--", "printenv", "A"]).expect_status(0).out(), "value\n");
    // Somebody who knows the recipients, and the agent with nothing in its memory.
    set(&[]).expect_status(0);
    agent.ask("flush", &[]).expect_status(0);
    let outcome = agent.run(&["--", "printenv", "A"]);
    assert!(outcome.status.code() != Some(0) && outcome.stdout.is_empty(), "{}", outcome.transcript());
    assert!(
        agent.audit().iter().any(|record| record["reason"].as_str().is_some_and(|why| why.contains("does not fit")))
    );
    agent.end();
}
