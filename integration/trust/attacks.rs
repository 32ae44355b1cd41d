//! Attacks on the policies of a host, each by somebody who can write the repository and the folder of policies, and has every version
//! that was ever signed. What he does not have is a key of prod's.
//!
//! The rows are those of the table in `docs/trust.md`: what catches it where `run` reads the policy itself, at a start of the agent,
//! and in an agent that runs.

use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::Value;

use super::{CANARY, LEAST, SERIAL, Site, file_of, refused, run_prod, served, status};
use crate::agent_scene::Agent;
use crate::aws::namespace::with_etc;
use crate::have;

/// What a refusal says, and what that is called in the table.
const CAUGHT: &[(&str, &str)] = &[
    ("is not signed", "no signature"),
    ("is no signature", "no signature"),
    ("does not fit", "the signature"),
    ("was made for another purpose", "its purpose"),
    ("does not trust", "the key"),
    ("may not sign for", "the key"),
    ("has expired", "the key"),
    ("has revoked", "the key"),
    ("and this host accepts", "`min_serial`"),
    ("it does not go back", "the mark"),
    ("speaks for the environment", "its environment"),
    ("speaks for the service", "its service"),
    ("does not say that it speaks for the service", "its service"),
    ("host.toml", "the host file"),
];

/// One attack on a site.
struct Attack<'s> {
    site: &'s Site,
    /// The file that is attacked, and the slot that it is to be served in.
    file: String,
    /// What stands between `run` and `--`.
    words: Vec<&'static str>,
    /// Where it cannot be tried.
    runs: bool,
    starts: bool,
    reloads: bool,
    /// The agent does not start at all.
    is_fatal: bool,
    /// Somebody takes away what the agent remembers, while it does not run.
    forgets: bool,
}

impl<'s> Attack<'s> {
    fn on(site: &'s Site) -> Self {
        Self {
            site,
            file: "prod.toml".into(),
            words: vec!["--policy", "served/prod.toml", "--env", "prod"],
            runs: true,
            starts: true,
            reloads: true,
            is_fatal: false,
            forgets: false,
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.site.scene.path(&format!("served/{name}"))
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.path(name)).unwrap();
    }

    /// Somebody adds a line to a file, and leaves its signature.
    fn edit(&self, name: &str) {
        let text = std::fs::read_to_string(self.path(name)).unwrap();
        self.site.scene.write(&format!("served/{name}"), format!("{text}\n# more\n").as_bytes());
    }

    /// Two policies change places, each with its signature.
    fn swap(&self, one: &str, two: &str) {
        for end in ["", ".sig"] {
            let (one, two) = (self.path(&format!("{one}{end}")), self.path(&format!("{two}{end}")));
            let aside = self.path("aside");
            std::fs::rename(&one, &aside).unwrap();
            std::fs::rename(&two, &one).unwrap();
            std::fs::rename(&aside, &two).unwrap();
        }
    }

    /// The host file, which an agent that runs has read long ago.
    fn change_host(&mut self, change: impl FnOnce(String) -> String) {
        self.site.write_host(&change(self.site.host()));
        self.reloads = false;
    }

    fn trust_is(&mut self, text: &str) {
        self.change_host(|host| format!("{}{text}", host.split("[trust]").next().unwrap()));
        self.is_fatal = true;
    }

    /// A policy that was signed by its author, at a link instead of where it lies.
    fn link(&self, ends: &[&str]) {
        for end in ends {
            self.remove(&format!("prod.toml{end}"));
            symlink(self.site.scene.path(&format!("elsewhere/old.toml{end}")), self.path(&format!("prod.toml{end}")))
                .unwrap();
        }
    }

    /// An old version, well signed.
    fn put_elsewhere(&self) {
        std::fs::create_dir(self.site.scene.path("elsewhere")).unwrap();
        self.site.put("../elsewhere/old.toml", &self.site.policy("prod", None, SERIAL - 1), "alice");
    }
}

type Row = (&'static str, fn(&mut Attack<'_>));

const ATTACKS: &[Row] = &[
    ("nothing: the policies as they were signed", |_| ()),
    ("edit the policy", |attack| attack.edit("prod.toml")),
    ("edit a file that it extends", |attack| attack.edit("base.toml")),
    ("take the signature away", |attack| attack.remove("prod.toml.sig")),
    ("take the signature of a file away that it extends", |attack| attack.remove("base.toml.sig")),
    ("empty the signature", |attack| drop(attack.site.scene.write("served/prod.toml.sig", b""))),
    ("put the signature of another file in its place", |attack| {
        std::fs::copy(attack.path("base.toml.sig"), attack.path("prod.toml.sig")).unwrap();
    }),
    ("edit the policy and sign it by a key that is not listed", |attack| {
        attack.edit("prod.toml");
        attack.site.sign("prod.toml", "mallory", "vouchsafe");
    }),
    ("edit the policy and sign it by the key of dev", |attack| {
        attack.edit("prod.toml");
        attack.site.sign("prod.toml", "dave", "vouchsafe");
    }),
    ("edit a file that it extends and sign that by the key of dev", |attack| {
        attack.edit("base.toml");
        attack.site.sign("base.toml", "dave", "vouchsafe");
    }),
    ("get the author's signature over it for another purpose (`-n git`)", |attack| {
        attack.edit("prod.toml");
        attack.site.sign("prod.toml", "alice", "git");
    }),
    ("put dev's policy, well signed, in the place of prod's", |attack| attack.swap("prod.toml", "dev.toml")),
    ("the same, and the caller does not say which environment he means", |attack| {
        attack.swap("prod.toml", "dev.toml");
        attack.words.truncate(2);
        (attack.starts, attack.reloads) = (false, false);
    }),
    ("swap the policies of two services", |attack| {
        attack.swap("prod/api.toml", "prod/web.toml");
        attack.file = file_of("prod", Some("api"));
        attack.words = vec!["--policy", "served/prod/api.toml", "--env", "prod", "--service", "api"];
    }),
    ("put the policy of the whole environment, well signed, in the place of a service's", |attack| {
        for end in ["", ".sig"] {
            std::fs::copy(attack.path(&format!("prod.toml{end}")), attack.path(&format!("prod/api.toml{end}")))
                .unwrap();
            std::fs::copy(attack.path(&format!("base.toml{end}")), attack.path(&format!("prod/base.toml{end}")))
                .unwrap();
        }
        attack.file = file_of("prod", Some("api"));
        attack.words = vec!["--policy", "served/prod/api.toml", "--env", "prod", "--service", "api"];
    }),
    ("replay an old version of it there, under the name of a service that had no policy", |attack| {
        attack.put_elsewhere();
        for end in ["", ".sig"] {
            let old = attack.site.scene.path(&format!("elsewhere/old.toml{end}"));
            std::fs::copy(old, attack.path(&format!("prod/new.toml{end}"))).unwrap();
            std::fs::copy(attack.path(&format!("base.toml{end}")), attack.path(&format!("prod/base.toml{end}")))
                .unwrap();
        }
        attack.file = file_of("prod", Some("new"));
        attack.words = vec!["--policy", "served/prod/new.toml", "--env", "prod", "--service", "new"];
    }),
    ("remove a service's policy, so that the one of its environment is used", |attack| {
        attack.remove("prod/api.toml");
        attack.file = file_of("prod", Some("api"));
        attack.runs = false;
    }),
    ("replay an old version, below `min_serial`", |attack| attack.site.put_prod(LEAST - 1)),
    ("replay an old version that `min_serial` allows", |attack| attack.site.put_prod(SERIAL - 1)),
    ("replay an old version of a file that it extends", |attack| attack.site.put_base(SERIAL - 1)),
    ("replay an old version, and remove what the agent remembers", |attack| {
        attack.site.put_prod(SERIAL - 1);
        attack.forgets = true;
    }),
    ("replay another version with the same serial", |attack| {
        let text = format!("{}# another\n", attack.site.policy("prod", None, SERIAL));
        attack.site.put("prod.toml", &text, "alice");
    }),
    ("use a key that has expired", |attack| {
        attack.change_host(|host| {
            host.replacen("[\"prod\"]\n[[", "[\"prod\"]\nexpires = \"2024-01-01T00:00:00Z\"\n[[", 1)
        });
    }),
    ("use a key that was revoked", |attack| {
        let alice = attack.site.key("alice");
        attack.change_host(|host| {
            host.replacen("[[trust.keys]]", &format!("revoked = [\"{alice}\"]\n[[trust.keys]]"), 1)
        });
    }),
    ("a link to another policy, in the place of the policy", |attack| {
        attack.put_elsewhere();
        attack.link(&[""]);
    }),
    ("links to an old version and to its signature", |attack| {
        attack.put_elsewhere();
        attack.link(&["", ".sig"]);
    }),
    ("`--policy` with one that nobody signed", |attack| {
        let text = attack.site.without_base("prod");
        attack.site.scene.write("elsewhere/own.toml", text.as_bytes());
        attack.words = vec!["--policy", "elsewhere/own.toml"];
        (attack.starts, attack.reloads) = (false, false);
    }),
    ("the same, and name an environment that demands no signature", |attack| {
        let text = attack.site.without_base("prod");
        attack.site.scene.write("elsewhere/own.toml", text.as_bytes());
        attack.words = vec!["--policy", "elsewhere/own.toml", "--env", "free"];
        (attack.starts, attack.reloads) = (false, false);
    }),
    ("`[trust]` without keys", |attack| attack.trust_is("[trust]\nenvironments = [\"prod\"]\n")),
    ("`[trust]` with nothing in it", |attack| attack.trust_is("[trust]\n")),
    ("`[trust]` with an empty list of environments", |attack| {
        let alice = attack.site.key("alice");
        attack.trust_is(&format!(
            "[trust]\nenvironments = []\n[[trust.keys]]\nkey = \"{alice}\"\nenvironments = [\"prod\"]\n"
        ));
    }),
    ("a host file that others can write", |attack| {
        attack.change_host(|host| host);
        attack.is_fatal = true;
        let path = attack.site.scene.path("etc/vouchsafe/host.toml");
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o666)).unwrap();
    }),
    ("a host file that cannot be read", |attack| {
        attack.change_host(|host| host);
        attack.is_fatal = true;
        let path = attack.site.scene.path("etc/vouchsafe/host.toml");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(path).unwrap();
    }),
    ("as root: take `[trust]` out of the host file, and every signature away", |attack| {
        attack.change_host(|host| host.split("[trust]").next().unwrap().to_owned());
        attack.remove("prod.toml.sig");
    }),
    ("steal a key of prod's", |attack| {
        attack.edit("prod.toml");
        attack.site.sign("prod.toml", "alice", "vouchsafe");
    }),
];

const NOT: &str = "not caught";
/// It cannot be tried there.
const NONE: &str = "-";

#[track_caller]
fn caught_by(message: &str) -> &'static str {
    let found = CAUGHT.iter().find(|(says, _)| message.contains(says));
    found.unwrap_or_else(|| panic!("{message}")).1
}

/// What an agent says of the file. Where nothing is wrong with it, the attack has worked.
fn told(status: &Value, file: &str) -> &'static str {
    refused(status, file).map_or(NOT, |message| caught_by(&message))
}

/// An agent that has served what was signed, and then looks again.
fn running(attack: &Attack<'_>, agent: &Agent<'_>, before: Option<String>) -> &'static str {
    if !attack.reloads {
        return NONE;
    }
    agent.reload();
    let status = status(agent);
    let caught = told(&status, &attack.file);
    if caught != NOT {
        assert_eq!(served(&status, &attack.file), before, "what was served before is served on");
        let is_told =
            |record: &Value| record["event"] == "policy.refused" && record["policy"].as_str() == before.as_deref();
        assert!(agent.audit().iter().any(is_told));
        assert_eq!(run_prod(attack.site, agent).expect_status(0).out(), format!("{CANARY}\n"));
    }
    caught
}

fn starting(attack: &Attack<'_>) -> &'static str {
    if !attack.starts {
        return NONE;
    }
    if attack.is_fatal {
        return caught_by(attack.site.start_in_vain(121).err());
    }
    let agent = attack.site.start();
    let status = status(&agent);
    let caught = told(&status, &attack.file);
    if caught != NOT {
        assert_eq!(served(&status, &attack.file), None, "nothing is served in its place");
    }
    agent.end();
    caught
}

fn direct(attack: &Attack<'_>) -> &'static str {
    if !attack.runs {
        return NONE;
    }
    let words = [&["run"], attack.words.as_slice(), &["--", "printenv", "A"]].concat();
    let outcome = with_etc(&attack.site.scene, &[], &words);
    if outcome.status.code() == Some(0) {
        assert_eq!(outcome.out(), format!("{CANARY}\n"));
        return NOT;
    }
    let outcome = outcome.expect_status(121);
    assert_eq!(outcome.out(), "");
    caught_by(outcome.err())
}

#[test]
fn the_table_of_attacks_on_policies_is_true() {
    if !have(&["unshare", "mount", "ssh-keygen"], true) {
        return;
    }
    let rows: Vec<String> = ATTACKS
        .iter()
        .map(|(name, change)| {
            let site = Site::new();
            let mut attack = Attack::on(&site);
            let agent = site.start();
            let before = status(&agent);
            assert_eq!(before["refused"], serde_json::json!([]));
            change(&mut attack);
            let running = running(&attack, &agent, served(&before, &attack.file));
            agent.end();
            if attack.forgets {
                std::fs::remove_file(site.scene.path("state/marks.json")).unwrap();
            }
            let (starting, direct) = (starting(&attack), direct(&attack));
            format!("| {name} | {direct} | {starting} | {running} |")
        })
        .collect();
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/trust.md")).unwrap();
    let table = text.split("| attack on a policy |").nth(1).unwrap_or_default();
    let documented: Vec<&str> = table.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    assert_eq!(documented, rows, "\n{}", rows.join("\n"));
}

/// By the command that says what `run` would do: each byte of a policy, and a sample of those of its signature.
#[test]
fn every_byte_of_a_policy_counts() {
    if !have(&["ssh-keygen"], false) {
        return;
    }
    let site = Site::new();
    let words = ["policy", "verify", "served/dev.toml", "--host", "etc/vouchsafe/host.toml"];
    site.scene.vouchsafe(&words).expect_status(0);
    let refused_with = |file: &str, at: usize| {
        let good = std::fs::read(site.scene.path(file)).unwrap();
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        site.scene.write(file, &bytes);
        let outcome = site.scene.vouchsafe(&words);
        site.scene.write(file, &good);
        outcome.expect_status(121).err().to_owned()
    };
    let length = |file: &str| std::fs::read(site.scene.path(file)).unwrap().len();
    for at in 0..length("served/dev.toml") {
        assert!(refused_with("served/dev.toml", at).contains("does not fit"), "byte {at}");
    }
    // All of them, and each bit: src/policy/trust_tests.rs. The last ones are a line of dashes.
    for at in (0..length("served/dev.toml.sig") - 40).step_by(7) {
        refused_with("served/dev.toml.sig", at);
    }
    site.scene.vouchsafe(&words).expect_status(0);
}
