//! `rekey`: who is taken out cannot open what is written now, what he could open is known and listed until it is replaced, and
//! nothing is lost on the way.

use std::path::Path;

use age::secrecy::ExposeSecret;
use age::x25519::Identity;
use serde_json::{Value, json};

use crate::harness::{Outcome, Scene};

/// A scene with a second recipient, who is somebody else.
pub struct Team {
    pub scene: Scene,
    pub eve: Identity,
}

/// One sealed store of a scene's policy.
pub fn store(scene: &Scene, name: &str, file: &str, recipients: &[&str]) -> String {
    let at = scene.path("").display().to_string();
    let list: Vec<String> = recipients.iter().map(|one| format!("  \"{one}\",\n")).collect();
    format!(
        "[stores.{name}]\ntype = \"age\"\npath = \"{at}{file}\"\nidentities = [\"file:{at}identity.key\"]\n\
         recipients = [\n{}]\n",
        list.concat()
    )
}

impl Team {
    /// `A` written twice and `B` once, for both recipients; `A` is rotated.
    pub fn new() -> Self {
        Self::with("[secrets]\nB = {}\nPART = { item = \"A\", version = 1, required = false }\n[secrets.A.rotate]\n")
    }

    pub fn with(secrets: &str) -> Self {
        let team = Self { scene: Scene::new().policy(secrets), eve: Identity::generate() };
        let mut team = team.named(true);
        for (name, value) in [("A", "a1"), ("A", "a2"), ("B", "b1")] {
            team.set(name, value);
        }
        team = team.named(true);
        team
    }

    pub fn recipient(&self) -> String {
        self.eve.to_public().to_string()
    }

    /// Whether the policy names the second recipient.
    pub fn named(self, is_named: bool) -> Self {
        let (own, eve) = (self.scene.recipient(), self.recipient());
        let recipients = if is_named { vec![own.as_str(), &eve] } else { vec![own.as_str()] };
        let text = store(&self.scene, "files", "sealed.age", &recipients);
        Self { scene: self.scene.stores(&text), ..self }
    }

    pub fn set(&self, name: &str, value: &str) {
        self.scene.verb_reading(&["set", name], value.as_bytes()).expect_status(0);
    }

    /// `rekey --remove EVE --compromised`.
    pub fn compromised(&self, more: &[&str]) -> Outcome {
        let eve = self.recipient();
        self.scene.verb(&[&["rekey", "--remove", &eve, "--compromised"], more].concat())
    }

    pub fn file(&self) -> Vec<u8> {
        std::fs::read(self.scene.path("sealed.age")).unwrap()
    }

    pub fn opens(&self) -> bool {
        age::decrypt(&self.eve, &self.file()).is_ok()
    }

    /// The document, by the key that stays.
    pub fn document(&self) -> Value {
        document(&self.scene, "sealed.age")
    }
}

fn own_identity(scene: &Scene) -> Identity {
    std::fs::read_to_string(scene.path("identity.key")).unwrap().trim().parse().unwrap()
}

fn document(scene: &Scene, file: &str) -> Value {
    let plaintext = age::decrypt(&own_identity(scene), &std::fs::read(scene.path(file)).unwrap()).unwrap();
    serde_json::from_slice(&plaintext).unwrap()
}

/// Recipients' stanzas in the header, but for those that nobody can open.
fn stanzas(file: &[u8]) -> usize {
    let text = std::str::from_utf8(file).unwrap();
    let binary: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
    let binary = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, binary).unwrap();
    let head = String::from_utf8_lossy(&binary).into_owned();
    let header = head.lines().take_while(|line| !line.starts_with("---"));
    header.filter(|line| line.starts_with("-> ") && !line.contains("-grease")).count()
}

fn json(outcome: &Outcome) -> Value {
    serde_json::from_str(outcome.out()).unwrap_or_else(|_| panic!("{}", outcome.transcript()))
}

/// Name, version and state of each exposed value.
fn listed(outcome: &Outcome) -> Vec<(String, u64, String)> {
    let of = |one: &Value| {
        let text = |field: &str| one[field].as_str().unwrap_or("-").to_owned();
        (text("name"), one["version"].as_u64().unwrap(), text("state"))
    };
    json(outcome)["exposed"].as_array().unwrap().iter().map(of).collect()
}

fn row(name: &str, version: u64, state: &str) -> (String, u64, String) {
    (name.into(), version, state.into())
}

#[test]
fn who_is_taken_out_cannot_open_what_is_written_now() {
    let team = Team::new();
    let (before, old) = (team.document(), team.file());
    assert!(team.opens());
    assert_eq!(stanzas(&old), 2);
    let team = team.named(false);
    let eve = team.recipient();
    let outcome = team.scene.verb(&["rekey", "--remove", &eve]).expect_status(0);
    assert!(!team.opens(), "{}", outcome.transcript());
    assert_eq!(stanzas(&team.file()), 1);
    let mut expected = before;
    expected["generation"] = json!(expected["generation"].as_u64().unwrap() + 1);
    assert_eq!(team.document(), expected, "nothing but the generation");
    assert!(outcome.out().contains("2 X25519") && outcome.out().contains("now: 1 X25519"), "{}", outcome.transcript());
    // Nor does anybody take back what was: that is said.
    assert!(outcome.out().contains("Older versions"), "{}", outcome.transcript());
    assert!(age::decrypt(&team.eve, &old).is_ok());
}

#[test]
fn who_is_named_now_can_open_what_was_written_before() {
    let team = Team::new().named(false);
    team.scene.verb(&["rekey"]).expect_status(0);
    assert!(!team.opens());
    let team = team.named(true);
    assert!(!team.opens());
    team.scene.verb(&["rekey"]).expect_status(0);
    assert!(team.opens());
}

/// sops#365, #901: one command takes the recipients of the policy, another one makes a new data key; taking a person out
/// takes both. Here one does both, every time.
#[test]
fn every_time_all_is_encrypted_anew_and_nothing_else_changes() {
    let team = Team::new();
    let mut seen = std::collections::BTreeSet::new();
    let values = team.document()["items"].clone();
    for round in 0..4 {
        let generation = team.document()["generation"].as_u64().unwrap();
        team.scene.verb(&["rekey"]).expect_status(0);
        let text = String::from_utf8(team.file()).unwrap();
        for line in text.lines().filter(|line| line.len() == 64 && !line.starts_with("YWdlLWVuY3J5cHRpb24")) {
            assert!(seen.insert(line.to_owned()), "round {round}: a line of the file was there before");
        }
        assert_eq!(team.document()["generation"], generation + 1);
        assert_eq!(team.document()["items"], values);
    }
}

#[test]
fn who_is_named_still_is_not_taken_out() {
    let team = Team::new();
    let before = team.file();
    let eve = team.recipient();
    let outcome = team.scene.verb(&["rekey", "--remove", &eve]).expect_status(121);
    let text = std::fs::read_to_string(team.scene.path("policy.toml")).unwrap();
    let line = 1 + text.lines().position(|line| line.contains(&eve)).unwrap();
    assert!(outcome.err().contains(&format!("policy.toml:{line}")), "{}", outcome.transcript());
    assert_eq!(
        (team.file(), team.scene.events().iter().filter(|event| *event == "secret.rekeyed").count()),
        (before, 0)
    );
    // In a file of recipients.
    let text =
        store(&team.scene, "files", "sealed.age", &[&team.scene.recipient()]) + "recipients_file = \"team.txt\"\n";
    team.scene.write("team.txt", format!("# the team, once with {eve}\n\n{eve}\n").as_bytes());
    let team = Team { scene: team.scene.stores(&text), ..team };
    let outcome = team.scene.verb(&["rekey", "--remove", &eve]).expect_status(121);
    assert!(outcome.err().contains("team.txt:3"), "{}", outcome.transcript());
}

#[test]
fn what_was_exposed_is_listed_until_it_is_replaced_by_whomever() {
    let team = Team::new().named(false);
    let first = team.compromised(&["--json"]).expect_status(10);
    assert_eq!(listed(&first), [row("A", 2, "due"), row("B", 1, "due")]);
    assert!(!team.opens());
    assert_eq!(team.document()["exposed"][0]["recipient"], team.recipient().as_str());
    assert_eq!(team.document()["exposed"][0]["items"], json!({ "A": 2, "B": 1 }));
    let next: Vec<Value> = json(&first)["exposed"].as_array().unwrap().iter().map(|one| one["next"].clone()).collect();
    assert!(next[0].as_str().unwrap().starts_with("vouchsafe rotate A --policy "), "{next:?}");
    assert!(next[1].as_str().unwrap().starts_with("vouchsafe set B --policy "), "{next:?}");
    // Nothing was done: nothing changes, however often and with whichever words.
    assert_eq!(listed(&team.compromised(&["--json"]).expect_status(10)), listed(&first));
    assert_eq!(listed(&team.scene.verb(&["rekey", "--json"]).expect_status(10)), listed(&first));
    // A new item was never exposed, one of the two is replaced.
    team.set("B", "b2");
    let outcome = team.compromised(&["--json"]).expect_status(10);
    assert_eq!(listed(&outcome), [row("A", 2, "due"), row("B", 1, "previous")]);
    let check = team.scene.verb(&["check"]).expect_status(10);
    assert!(check.out().contains("`A` (files:A) is exposed") && !check.out().contains("`B` (files:B) is exposed"));
    let list = team.scene.verb(&["list"]).expect_status(0);
    assert!(list.out().contains("`A` (files:A) is exposed up to version 2"), "{}", list.transcript());
    assert!(list.out().contains("`B` (files:B) was exposed"), "{}", list.transcript());
    // The other too: success, though a rollback would make it due again, so the note stands.
    team.set("A", "a3");
    let outcome = team.compromised(&["--json"]).expect_status(0);
    assert_eq!(listed(&outcome), [row("A", 2, "previous"), row("B", 1, "previous")]);
    assert_eq!(json(&outcome)["ok"], true);
    team.scene.verb(&["check"]).expect_status(0);
    // The exposed versions are out of the file: the note goes.
    team.set("A", "a4");
    team.set("B", "b3");
    let outcome = team.compromised(&["--json"]).expect_status(0);
    assert_eq!(listed(&outcome), [row("A", 2, "replaced"), row("B", 1, "replaced")]);
    assert!(team.document().get("exposed").is_none());
    assert!(!team.opens());
}

#[test]
fn the_same_value_again_does_not_count() {
    let team = Team::new().named(false);
    team.compromised(&[]).expect_status(10);
    for value in ["b1", "b1", "b1"] {
        team.set("B", value);
    }
    let outcome = team.compromised(&["--json"]).expect_status(10);
    assert_eq!(listed(&outcome)[1], row("B", 4, "due"));
}

#[test]
fn an_item_without_a_name_and_one_that_is_removed_are_listed_too() {
    let team = Team::new();
    // Another policy of the same file binds only `A`, and only a part of it.
    let scene = Team { scene: team.scene.policy("[secrets]\nPART = { item = \"A\", version = 2 }\n"), eve: team.eve };
    let team = scene.named(false);
    let outcome = team.compromised(&["--json"]).expect_status(10);
    assert_eq!(listed(&outcome), [row("PART", 2, "due"), row("-", 1, "due")]);
    assert_eq!(json(&outcome)["exposed"][1]["item"], "B");
    assert!(team.compromised(&[]).expect_status(10).out().contains("bind the whole item to a name"));
    let team = Team { scene: team.scene.policy("[secrets]\nA = {}\nB = {}\n"), ..team };
    team.scene.verb(&["remove", "B"]).expect_status(0);
    team.set("A", "a3");
    let outcome = team.compromised(&["--json"]).expect_status(0);
    assert_eq!(listed(&outcome), [row("A", 2, "previous"), row("B", 1, "removed")]);
    // What comes back under its name is another value.
    team.set("B", "b2");
    assert_eq!(listed(&team.compromised(&["--json"]).expect_status(0)), [row("A", 2, "previous")]);
}

#[test]
fn who_is_named_again_is_not_forgotten_by_a_write_and_is_by_a_rekey() {
    let team = Team::new().named(false);
    team.compromised(&[]).expect_status(10);
    team.set("B", "b2");
    // Somebody reverts the policy, and somebody else writes with it.
    let team = team.named(true);
    team.set("A", "a3");
    assert!(team.opens());
    let team = team.named(false);
    let outcome = team.compromised(&["--json"]).expect_status(10);
    assert_eq!(listed(&outcome), [row("A", 3, "due"), row("B", 2, "due")], "what was written then was seen");
    let team = team.named(true);
    let outcome = team.scene.verb(&["rekey", "--json"]).expect_status(0);
    assert_eq!(json(&outcome)["files"][0]["trusted_again"], json!([team.recipient()]));
    assert!(team.opens() && team.document().get("exposed").is_none());
}

#[test]
fn a_policy_that_would_lock_everybody_here_out_is_refused() {
    let team = Team::new();
    let (before, eve) = (team.file(), team.recipient());
    let text = store(&team.scene, "files", "sealed.age", &[&eve]);
    let team = Team { scene: team.scene.stores(&text), ..team };
    for words in [&["rekey"][..], &["rekey", "--dry-run"]] {
        let outcome = team.scene.verb(words).expect_status(124);
        assert!(outcome.err().contains("age-keygen -y"), "{}", outcome.transcript());
    }
    // A recipient that is none stops before the first file is touched.
    let text = store(&team.scene, "a", "none.age", &[&team.scene.recipient()])
        + &store(&team.scene, "files", "sealed.age", &["age1mistyped"]);
    let team = Team { scene: team.scene.stores(&text), ..team };
    team.scene.verb(&["rekey"]).expect_status(121);
    assert_eq!(team.file(), before);
}

#[test]
fn a_file_that_does_not_open_stays_as_it_is() {
    let team = Team::new().named(false);
    let before = team.file();
    let key = Identity::generate().to_string().expose_secret().to_owned();
    let own = std::fs::read(team.scene.path("identity.key")).unwrap();
    team.scene.write_mode("identity.key", key.as_bytes(), 0o600);
    team.compromised(&[]).expect_status(124);
    team.scene.write_mode("identity.key", &own, 0o600);
    assert_eq!(team.file(), before);
    // sops#146, #484, #703: what failed to be encrypted anew was cut to nothing, with status 0.
    for damaged in [&b""[..], b"not age", &before[..before.len() / 2]] {
        team.scene.write("sealed.age", damaged);
        team.compromised(&[]).expect_status(122);
        assert_eq!(team.file(), damaged);
    }
}

#[test]
fn a_dry_run_says_all_of_it_and_writes_nothing() {
    let team = Team::new().named(false);
    let before = (team.file(), names(&team.scene));
    let outcome = team.compromised(&["--dry-run", "--json"]).expect_status(10);
    assert_eq!(listed(&outcome), [row("A", 2, "due"), row("B", 1, "due")]);
    assert_eq!(json(&outcome)["files"][0]["state"], "possible");
    assert_eq!((team.file(), names(&team.scene)), before);
    let events = team.scene.events();
    assert_eq!(events.last().unwrap(), "secret.listed");
    assert!(team.opens());
}

fn names(scene: &Scene) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> =
        std::fs::read_dir(scene.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

/// Two stores, `one` and `two`, each with an item of its own, for both recipients.
pub fn pair() -> Team {
    let secrets = "[secrets]\nA = { store = \"one\" }\nB = { store = \"two\" }\n";
    let team = pair_named(Team { scene: Scene::new().policy(secrets), eve: Identity::generate() }, true);
    team.set("A", "a1");
    team.set("B", "b1");
    team
}

pub fn pair_named(team: Team, is_named: bool) -> Team {
    let (own, eve) = (team.scene.recipient(), team.recipient());
    let recipients = if is_named { vec![own.as_str(), &eve] } else { vec![own.as_str()] };
    std::fs::create_dir_all(team.scene.path("other")).unwrap();
    // The default store of a scene's policy is never written here.
    let text = store(&team.scene, "files", "none.age", &[&own])
        + &store(&team.scene, "one", "one.age", &recipients)
        + &store(&team.scene, "two", "other/two.age", &recipients);
    Team { scene: team.scene.stores(&text), ..team }
}

fn opens(team: &Team, file: &str) -> bool {
    age::decrypt(&team.eve, &std::fs::read(team.scene.path(file)).unwrap()).is_ok()
}

#[test]
fn a_failure_in_one_file_is_said_and_the_same_command_finishes() {
    let team = pair_named(pair(), false);
    let good = std::fs::read(team.scene.path("other/two.age")).unwrap();
    team.scene.write("other/two.age", b"damaged");
    let outcome = team.compromised(&["--json"]).expect_status(122);
    let states: Vec<Value> =
        json(&outcome)["files"].as_array().unwrap().iter().map(|one| one["state"].clone()).collect();
    assert_eq!(states, ["absent", "rekeyed", "failed"]);
    assert_eq!(listed(&outcome), [row("A", 1, "due")], "what was done is known: {}", outcome.transcript());
    assert!(!opens(&team, "one.age") && outcome.err().contains("store `two`"), "{}", outcome.transcript());
    let outcome = team.compromised(&[]).expect_status(122);
    assert!(outcome.out().contains("one: ") && outcome.out().contains("two.age` FAILED"), "{}", outcome.transcript());
    team.scene.write("other/two.age", &good);
    let outcome = team.compromised(&["--json"]).expect_status(10);
    assert_eq!(listed(&outcome), [row("A", 1, "due"), row("B", 1, "due")]);
    assert!(!opens(&team, "one.age") && !opens(&team, "other/two.age"));
    for (name, value) in [("A", "a2"), ("B", "b2")] {
        team.set(name, value);
    }
    team.compromised(&[]).expect_status(0);
}

#[test]
fn only_the_stores_that_were_selected_are_touched() {
    let team = pair_named(pair(), false);
    let eve = team.recipient();
    team.scene.verb(&["rekey", "--store", "two", "--remove", &eve]).expect_status(0);
    assert!(opens(&team, "one.age") && !opens(&team, "other/two.age"));
    // The first failure does not keep the second one from being done.
    team.scene.write("one.age", b"damaged");
    team.scene.verb(&["rekey", "--store", "one", "--store", "two"]).expect_status(122);
    assert_eq!(document(&team.scene, "other/two.age")["generation"], 4);
}

#[test]
fn two_stores_in_one_file_have_to_agree() {
    let team = Team::new();
    let (own, eve) = (team.scene.recipient(), team.recipient());
    let two = |other: &[&str]| {
        store(&team.scene, "files", "sealed.age", &[&own]) + &store(&team.scene, "twin", "./sealed.age", other)
    };
    let (same, other) = (two(&[&own]), two(&[&own, &eve]));
    let before = team.file();
    let team = Team { scene: team.scene.stores(&other), ..team };
    team.scene.verb(&["rekey"]).expect_status(121);
    assert_eq!(team.file(), before);
    let generation = team.document()["generation"].as_u64().unwrap();
    let team = Team { scene: team.scene.stores(&same), ..team };
    team.scene.verb(&["rekey"]).expect_status(0);
    assert_eq!(team.document()["generation"], generation + 1, "once");
}

#[test]
fn what_is_in_no_sealed_file_is_said() {
    let team = Team::new();
    let own = team.scene.recipient();
    let at = team.scene.path("").display().to_string();
    let by_hand = format!(
        "[stores.hand]\ntype = \"age\"\nformat = \"json\"\nunbound = true\npath = \"{at}store.age\"\n\
         identities = [\"file:{at}identity.key\"]\n[stores.params]\ntype = \"ssm\"\nregion = \"eu-west-1\"\n"
    );
    team.scene.store(&[("X", "1")]);
    let text = store(&team.scene, "files", "sealed.age", &[&own]) + &by_hand;
    let team = Team { scene: team.scene.stores(&text), ..team };
    let by_hand = std::fs::read(team.scene.path("store.age")).unwrap();
    let outcome = team.scene.verb(&["rekey", "--json"]).expect_status(0);
    let stores: Vec<Value> =
        json(&outcome)["not_covered"].as_array().unwrap().iter().map(|one| one["store"].clone()).collect();
    assert_eq!(stores, ["hand", "params"]);
    // Who is removed may still open the one made by hand: that is no success.
    let eve = team.recipient();
    team.scene.verb(&["rekey", "--remove", &eve]).expect_status(10);
    team.scene.verb(&["rekey", "--remove", &eve, "--store", "files"]).expect_status(0);
    team.scene.verb(&["rekey", "--store", "hand"]).expect_status(2);
    team.scene.verb(&["rekey", "--store", "params"]).expect_status(2);
    assert_eq!(std::fs::read(team.scene.path("store.age")).unwrap(), by_hand);
}

#[test]
fn a_folder_that_is_not_there_is_no_store_without_a_file() {
    let team = Team::new().named(false);
    std::fs::remove_file(team.scene.path("sealed.age")).unwrap();
    let outcome = team.scene.verb(&["rekey", "--json"]).expect_status(0);
    assert_eq!(json(&outcome)["files"][0]["state"], "absent");
    assert!(!team.scene.path("sealed.age").exists());
    std::os::unix::fs::symlink("nowhere.age", team.scene.path("sealed.age")).unwrap();
    team.scene.verb(&["rekey"]).expect_status(122);
    let text = store(&team.scene, "files", "not-mounted/sealed.age", &[&team.scene.recipient()]);
    let team = Team { scene: team.scene.stores(&text), ..team };
    team.scene.verb(&["rekey"]).expect_status(122);
}

#[test]
fn it_is_written_down_before_and_after() {
    let team = Team::new().named(false);
    std::fs::remove_file(team.scene.path("audit.jsonl")).unwrap();
    std::fs::remove_file(team.scene.path("audit.jsonl.head")).unwrap();
    team.compromised(&[]).expect_status(10);
    let records = team.scene.audit();
    let whole = json!({ "store": "files", "bundle": "", "recursive": true });
    assert_eq!(team.scene.events(), ["secret.write_requested", "secret.rekeyed"]);
    assert_eq!((&records[0]["outcome"], &records[0]["secrets"]), (&json!("allowed"), &json!([whole])));
    assert_eq!(records[1]["outcome"], "succeeded");
    assert!(records[1]["reason"].as_str().unwrap().contains(&team.recipient()));
    let item = |name: &str, version: u64| json!({ "name": name, "store": "files", "item": name, "version": version });
    assert_eq!(records[1]["secrets"], json!([whole, item("A", 2), item("B", 1)]));
    assert_eq!(records[0]["access"], records[1]["access"]);
    team.scene.write("sealed.age", b"damaged");
    team.scene.verb(&["rekey"]).expect_status(122);
    let last = team.scene.audit().pop().unwrap();
    assert_eq!((&last["event"], &last["outcome"]), (&json!("secret.rekeyed"), &json!("failed")));
    team.scene.vouchsafe(&["audit", "verify", "audit.jsonl"]).expect_status(0);
    team.scene.vouchsafe(&["audit", "show", "audit.jsonl"]).expect_status(0);
}

#[test]
fn what_cannot_be_written_down_is_not_done() {
    let team = pair_named(pair(), false);
    let read = |file: &str| std::fs::read(team.scene.path(file)).unwrap();
    let before = (read("one.age"), read("other/two.age"));
    let log = read("audit.jsonl");
    std::fs::remove_file(team.scene.path("audit.jsonl")).unwrap();
    std::fs::create_dir(team.scene.path("audit.jsonl")).unwrap();
    team.compromised(&[]).expect_status(123);
    team.compromised(&["--dry-run"]).expect_status(123);
    assert_eq!((read("one.age"), read("other/two.age")), before);
    std::fs::remove_dir(team.scene.path("audit.jsonl")).unwrap();
    team.scene.write_mode("audit.jsonl", &log, 0o600);
}

#[test]
fn writers_and_rekeys_at_once_lose_nothing() {
    let names: Vec<String> = (0..6).map(|number| format!("N{number}")).collect();
    let lines: String = names.iter().map(|name| format!("{name} = {{}}\n")).collect();
    let team =
        Team { scene: Scene::new().policy(&format!("[secrets]\n{lines}")), eve: Identity::generate() }.named(true);
    team.set("N0", "0");
    let team = team.named(false);
    let policy = team.scene.write_policy();
    let policy = policy.to_str().unwrap();
    let generation = team.document()["generation"].as_u64().unwrap();
    let patient = |words: &[&str], input: &[u8]| loop {
        let outcome = team.scene.vouchsafe_reading(words, input);
        // The lock is waited for two seconds only; then nothing was done, and it is tried again.
        if !(outcome.status.code() == Some(122) && outcome.err().contains("is being written by")) {
            break outcome.expect_status(0);
        }
    };
    std::thread::scope(|scope| {
        for name in &names {
            let patient = &patient;
            scope.spawn(move || {
                for round in 1..5 {
                    patient(&["set", name, "--policy", policy], round.to_string().as_bytes());
                }
            });
        }
        for _ in 0..3 {
            let patient = &patient;
            scope.spawn(move || (0..4).for_each(|_| drop(patient(&["rekey", "--policy", policy], b""))));
        }
    });
    let document = team.document();
    assert_eq!(document["generation"], generation + 6 * 4 + 3 * 4);
    assert!(names.iter().all(|name| document["items"][name]["current"]["value"] == "4"), "{document:#}");
    assert!(!team.opens());
}

#[test]
fn a_private_key_in_the_wrong_place_is_not_cited() {
    let team = Team::new().named(false);
    let key = team.eve.to_string().expose_secret().to_owned();
    for words in [&["rekey", "--remove", &key][..], &["rekey", "--old-key", &key], &["rekey", "--store", &key]] {
        let outcome = team.scene.verb(words).expect_status(2);
        let said = outcome.err().to_uppercase();
        assert!(!said.contains(&key[20..40]), "{}", outcome.transcript());
    }
}

#[test]
fn the_mode_of_the_file_is_kept_and_a_link_is_followed() {
    use std::os::unix::fs::PermissionsExt;
    let team = Team::new().named(false);
    let (link, real) = (team.scene.path("sealed.age"), team.scene.path("real.age"));
    std::fs::rename(&link, &real).unwrap();
    std::os::unix::fs::symlink("real.age", &link).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    std::fs::set_permissions(&real, PermissionsExt::from_mode(0o640)).unwrap();
    team.scene.verb(&["rekey"]).expect_status(0);
    assert_eq!(mode(&real), 0o640);
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink() && !team.opens());
}
