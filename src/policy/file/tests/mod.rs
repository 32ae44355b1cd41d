//! Policy files from text to types: the vectors under `tests/vectors/policy`, the look of messages, chains, limits.

mod messages;
mod repository;
mod rotation;
mod unsafe_files;

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::error::Cause;
use crate::error::Class;
use crate::name::{EnvironmentName, StoreName, VariableName};
use crate::policy::model::{
    Anchor, Audience, Evidence, IdentitySource, Inherit, OnCrash, Principal, Sink, Source, Stage, Store,
};

fn parse(text: &str) -> Result<Policy, PolicyError> {
    parse_text(text, Path::new("policies/prod.toml"), &LoadOptions::default())
}

fn variable(name: &str) -> VariableName {
    VariableName::new(name).unwrap()
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &Path) -> String {
    let mut text = String::new();
    std::fs::File::open(path).unwrap().read_to_string(&mut text).unwrap();
    text
}

/// Each vector tests one thing; its first line says what must come of it: `# expect: ok`, or
/// `# expect: error <line>:<column> <part of the message>`.
#[test]
fn every_vector_comes_out_as_it_says() {
    let mut wrong = String::new();
    let mut count = 0;
    for entry in std::fs::read_dir(repository("tests/vectors/policy")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !name.ends_with(".toml") {
            continue;
        }
        let text = read(&path);
        let expected = text.lines().next().unwrap().strip_prefix("# expect: ").unwrap().to_owned();
        count += 1;
        let result = parse_text(&text, Path::new(&name), &LoadOptions::default());
        let good = match (expected.strip_prefix("error "), &result) {
            (None, Ok(_)) => expected == "ok",
            (Some(error), Err(got)) => {
                let (at, message) = error.split_once(' ').unwrap_or((error, ""));
                got.problems().len() == 1
                    && got.to_string().starts_with(&format!("{name}:{at}: "))
                    && got.problems()[0].message.contains(message)
            }
            _ => false,
        };
        if !good {
            let got = result.map_or_else(|error| error.to_string(), |_| "ok".into());
            writeln!(wrong, "{name}\n  expected {expected}\n  got {got}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(count >= 100, "only {count} vectors were found");
}

/// Whoever binds an item that is rotated gets its current version, or, where the unproven one lies apart, the newest.
#[test]
fn a_rotated_item_is_read_by_stage_under_every_name() {
    let policy = parse(
        r#"
version = 1
environment = "dev"
store = "params"
[stores.params]
type = "ssm"
region = "eu-west-1"
prefix = "/dev/"
[secrets]
ROTATED = { item = "a", rotate = {} }
ALSO = { item = "a" }
FIRST = { item = "a", version = 1 }
BEFORE = { item = "a", stage = "previous" }
OTHER = { item = "b" }
APART = { item = "c", rotate = { pending = "separate" } }
APART_ALSO = { item = "c" }
APART_SAID = { item = "d", stage = "current", rotate = { pending = "separate" } }
[[grants]]
secrets = ["*"]
to = "anyone"
[[audit.sinks]]
type = "stderr"
"#,
    )
    .unwrap();
    for (name, stage, version) in [
        ("ROTATED", Some(Stage::Current), None),
        ("ALSO", Some(Stage::Current), None),
        ("FIRST", None, Some(1)),
        ("BEFORE", Some(Stage::Previous), None),
        ("OTHER", None, None),
        ("APART", None, None),
        ("APART_ALSO", None, None),
        ("APART_SAID", None, None),
    ] {
        let Source::Item(item) = &policy.secrets[&variable(name)].source else { panic!() };
        assert_eq!((item.stage, item.version), (stage, version), "{name}");
    }
}

#[test]
fn every_field_arrives() {
    let policy = parse(
        r#"
version = 1
environment = "prod"
service = "api"
store = "params"
[stores.params]
type = "ssm"
region = "eu-west-1"
account = "111122223333"
credential_source = "web-identity"
prefix = "/prod/api/"
names = "lower_snake"
[stores.files]
type = "age"
path = "../secrets/prod.age"
recipients = ["age1xyz"]
identities = ["credential:prod-age", "file:/etc/vouchsafe/prod.key", "env:VOUCHSAFE_AGE_IDENTITY"]
[secrets]
DATABASE_URL = {}
SENTRY_DSN = { item = "/shared/sentry_dsn", required = false }
[secrets.DB_PASSWORD]
store = "files"
field = "/a~1b/0"
max_age = "90d"
on_expired = "refuse"
[secrets.DB_PASSWORD.rotate]
every = "30d"
generate = { length = 20, alphabet = "hex" }
apply = { type = "postgres", admin = "DATABASE_URL", role = "api" }
[[bundles]]
path = "features"
[[grants]]
secrets = ["D*"]
to = { users = ["api", 1000], commands = ["/usr/bin/*"] }
[child]
inherit = ["LANG", "LC_*"]
set = { APP_ENV = "prod" }
[[audit.sinks]]
type = "file"
path = "log/{uid}.jsonl"
"#,
    )
    .unwrap();
    assert_eq!(policy.environment, EnvironmentName::new("prod").unwrap());
    let Source::Item(url) = &policy.secrets[&variable("DATABASE_URL")].source else { panic!() };
    assert_eq!(url.item.as_str(), "/prod/api/database_url");
    let sentry = &policy.secrets[&variable("SENTRY_DSN")];
    let Source::Item(dsn) = &sentry.source else { panic!() };
    assert_eq!(dsn.item.as_str(), "/shared/sentry_dsn");
    assert!(!sentry.required && sentry.inject);
    let Source::Item(password) = &policy.secrets[&variable("DB_PASSWORD")].source else { panic!() };
    assert_eq!((password.stage, password.item.as_str()), (Some(Stage::Current), "DB_PASSWORD"));
    assert_eq!(password.field.as_ref().unwrap().0, ["a/b", "0"]);
    let Store::Age(files) = &policy.stores[&StoreName::new("files").unwrap()] else { panic!() };
    assert_eq!(files.path, Path::new("policies/../secrets/prod.age"));
    assert_eq!(files.identities[0], IdentitySource::Credential("prod-age".into()));
    assert_eq!(policy.bundles[0].path, "/prod/api/features/");
    assert_eq!(policy.grants[0].place, "policies/prod.toml:32");
    let Audience::Matching(to) = &policy.grants[0].to else { panic!() };
    assert_eq!(to.users.as_ref().unwrap()[1], Principal::Id(1000));
    assert!(matches!(&policy.child.inherit, Inherit::Names(names) if names.len() == 2));
    assert_eq!(
        policy.sinks,
        [Sink::File { path: "policies/log/{uid}.jsonl".into(), sync: true, evidence: Evidence::default() }]
    );
}

#[test]
fn deep_nesting_is_an_error_and_no_overflow() {
    let deep = 10_000;
    let header = "version = 1\nenvironment = \"prod\"\n";
    for text in [
        format!("x = {}{}", "[".repeat(deep), "]".repeat(deep)),
        format!("x = {}", "[".repeat(deep)),
        format!("x = {}1{}", "{ a = ".repeat(deep), " }".repeat(deep)),
        format!("x{} = 1", ".a".repeat(deep)),
        format!("[x{}]", ".a".repeat(deep)),
        format!("[secrets]\nA = {}", "{ rotate = ".repeat(deep)),
        format!("[x{}]\ny{} = {{ z{} = 1 }}", ".a".repeat(70), ".b".repeat(70), ".c".repeat(70)),
    ] {
        // A thread of the size of Rust's own, so that the test's larger stack hides nothing.
        let text = format!("{header}{text}\n");
        let run = std::thread::Builder::new().stack_size(2 << 20).spawn(move || parse(&text).is_err());
        assert!(run.unwrap().join().unwrap());
    }
}

const BASE: &str = "version = 1\nenvironment = \"*\"\nstore = \"files\"\n[stores.files]\ntype = \"age\"\npath = \"base.age\"\n\
    identities = [\"env:KEY\"]\n[secrets]\nA = { item = \"base-a\" }\nB = { item = \"base-b\" }\n[[grants]]\nsecrets = [\"B\", \"X_*\"]\n\
    to = \"anyone\"\n[run]\ndeadline = \"5s\"\ngrace = \"1s\"\n";

#[test]
fn a_chain_is_one_policy_whose_nearer_entries_win() {
    let child = "version = 1\nenvironment = \"prod\"\nextends = \"../shared/base.toml\"\n[secrets]\nA = {}\n\
        [[grants]]\nsecrets = [\"A\"]\nto = \"anyone\"\n[run]\ngrace = \"2s\"\n";
    let files = [(Path::new("policies/prod/api.toml"), child), (Path::new("policies/shared/base.toml"), BASE)];
    let policy = parse_texts(&files, &LoadOptions::default()).unwrap();
    let item = |name: &str| match &policy.secrets[&variable(name)].source {
        Source::Item(item) => item.item.to_string(),
        _ => panic!(),
    };
    assert_eq!((item("A"), item("B")), ("A".into(), "base-b".into()));
    let Store::Age(store) = &policy.stores[&StoreName::new("files").unwrap()] else { panic!() };
    // Relative to the base's own folder.
    assert_eq!(store.path, Path::new("policies/prod/../shared/base.age"));
    let places: Vec<_> = policy.grants.iter().map(|grant| grant.place.as_str()).collect();
    assert_eq!(places, ["policies/prod/api.toml:6", "policies/prod/../shared/base.toml:11"]);
    assert_eq!((policy.run.deadline.as_secs(), policy.run.grace.as_secs()), (5, 2));
    assert_eq!(policy.files.len(), 2);

    let mut bytes = Vec::new();
    for text in [child, BASE] {
        bytes.extend((text.len() as u64).to_be_bytes());
        bytes.extend(text.as_bytes());
    }
    assert_eq!(policy.digest, hex(ring::digest::digest(&SHA256, &bytes).as_ref()));
}

#[test]
fn an_error_in_a_base_cites_the_base() {
    let child = "version = 1\nenvironment = \"prod\"\nextends = \"base.toml\"\n";
    let base = BASE.replace("\"*\"", "\"prod\"");
    let files = [(Path::new("api.toml"), child), (Path::new("base.toml"), base.as_str())];
    let error = parse_texts(&files, &LoadOptions::default()).unwrap_err();
    assert!(error.to_string().starts_with("base.toml:2:15: a policy that is extended is a base"), "{error}");
}

#[test]
fn loops_and_long_chains_end() {
    let text = |next: &str| format!("version = 1\nenvironment = \"*\"\nextends = \"{next}\"\n");
    let (a, b) = (text("x/../b.toml"), text("./a.toml"));
    let files = [(Path::new("a.toml"), a.as_str()), (Path::new("b.toml"), b.as_str())];
    let error = parse_texts(&files, &LoadOptions::default()).unwrap_err();
    assert!(error.problems().iter().any(|problem| problem.message == "the policy extends itself"), "{error}");

    let texts: Vec<_> =
        (0..12).map(|n| (PathBuf::from(format!("{n}.toml")), text(&format!("{}.toml", n + 1)))).collect();
    let files: Vec<_> = texts.iter().map(|(path, text)| (path.as_path(), text.as_str())).collect();
    let error = parse_texts(&files, &LoadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("7.toml:3:11: a chain of `extends` has at most 8 files"), "{error}");
}

#[test]
fn home_is_for_a_users_own_run() {
    let text = "version = 1\nenvironment = \"prod\"\n[stores.x]\ntype = \"age\"\npath = \"~/x.age\"\nidentities = [\"file:~/k\"]\n";
    let path = Path::new("p.toml");
    let user = LoadOptions { home: Some("/home/u".into()), is_root: false };
    let policy = parse_text(text, path, &user).unwrap();
    let Store::Age(store) = &policy.stores[&StoreName::new("x").unwrap()] else { panic!() };
    assert_eq!(store.path, Path::new("/home/u/x.age"));
    assert_eq!(store.identities, [IdentitySource::File("/home/u/k".into())]);
    let root = LoadOptions { home: Some("/root".into()), is_root: true };
    assert_eq!(parse_text(text, path, &root).unwrap_err().problems().len(), 2);
    assert!(parse_text(text, path, &LoadOptions::default()).is_err());
}

const HOST: &str = "[[audit.sinks]]\ntype = \"file\"\npath = \"/var/log/vouchsafe/audit.jsonl\"\n[agent]\n\
    socket = \"/run/vouchsafe/agent.sock\"\nusers = [\"api\", 1000]\n[network]\nenv_endpoint = true\n";
const TRUST: &str = "[trust]\nenvironments = [\"prod\"]\nmin_serial = { prod = 12 }\n[[trust.keys]]\n\
    key = \"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJvouchsafeTestKeyOfZeroWorthAAAAAAAAAAAAAAA someone\"\nenvironments = [\"prod\"]\n";

#[test]
fn a_host_file_says_what_only_the_host_decides() {
    let host = parse_host_text(HOST, Path::new("host.toml")).unwrap();
    assert_eq!(host.sinks.len(), 1);
    assert_eq!(host.agent.users, [Principal::Name("api".into()), Principal::Id(1000)]);
    assert!(host.network.env_endpoint && host.trust.is_none());
    assert!(!parse_host_text("", Path::new("host.toml")).unwrap().network.env_endpoint);
    for wrong in [
        "[trust]\n",
        "[trust]\nenvironments = []\n",
        "x = 1\n",
        "[agent]\nsocket = \"~/s\"\n",
        &TRUST.replace("ed25519", "rsa"),
    ] {
        assert!(parse_host_text(wrong, Path::new("host.toml")).is_err(), "{wrong}");
    }
}

/// What would have no effect is refused, and what would count only in part.
#[test]
fn a_list_of_trust_has_no_slips_of_the_pen() {
    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIL+7qx5WL0I/ikGZweQFwIb5gnlOpZG01KRQjcYgOtR6";
    let trust = |serial: &str, of: &str, more: &str| {
        let key = format!("[[trust.keys]]\nkey = \"{KEY} ann\"\nenvironments = [\"{of}\"]\n{more}");
        let text = format!("[trust]\nenvironments = [\"prod\"]\nmin_serial = {{ {serial} = 8 }}\n{key}");
        parse_host_text(&text, Path::new("host.toml")).map_err(|error| error.to_string())
    };
    trust("prod", "prod", "").unwrap();
    for (serial, of) in [("prd", "prod"), ("prod", "prd")] {
        let error = trust(serial, of, "").unwrap_err();
        assert!(error.contains("`prd` is not among `trust.environments`"), "{error}");
    }
    let twice = format!("[[trust.keys]]\nkey = \"{KEY} the same\"\nenvironments = [\"prod\"]\n");
    let error = trust("prod", "prod", &twice).unwrap_err();
    assert!(error.contains("this key stands here already"), "{error}");
}

#[test]
fn a_host_file_at_its_default_place_belongs_to_root() {
    let path = repository("Cargo.toml");
    let owner = std::fs::metadata(&path).unwrap().uid();
    let error = load_host(&path, true).unwrap_err().to_string();
    assert!(owner == 0 || error.contains("is unsafe"), "{error}");
    assert!(load_host(Path::new("/no/such/host.toml"), true).unwrap_err().is_absent());
}

#[test]
fn mirrors_have_their_usual_sockets_and_stand_beside_what_counts() {
    let sinks = |text: &str| parse(&format!("version = 1\nenvironment = \"dev\"\n{text}")).map(|policy| policy.sinks);
    let file = "[[audit.sinks]]\ntype = \"file\"\npath = \"log\"\n";
    let mirrors = "[[audit.sinks]]\ntype = \"syslog\"\n[[audit.sinks]]\ntype = \"journald\"\n";
    let found = sinks(&format!("{mirrors}{file}[[audit.sinks]]\ntype = \"syslog\"\npath = \"/s\"\n")).unwrap();
    assert_eq!(found[0], Sink::Syslog("/dev/log".into()));
    assert_eq!(found[1], Sink::Journald("/run/systemd/journal/socket".into()));
    assert_eq!(found[3], Sink::Syslog("/s".into()));
    assert_eq!(found.iter().map(Sink::is_mirror).collect::<Vec<_>>(), [true, true, false, true]);
    let only = sinks(mirrors).unwrap_err();
    assert!(only.to_string().contains("mirrors only"), "{only}");
    assert!(only.hint().unwrap().contains("type = \"file\""));
    let long = "/x".repeat(54);
    for path in ["", "log.sock", "{uid}", &long] {
        let error = sinks(&format!("{file}[[audit.sinks]]\ntype = \"journald\"\npath = \"{path}\"\n")).unwrap_err();
        assert!(error.to_string().contains("an absolute path"), "{error}");
    }
    assert_eq!(sinks("").unwrap(), [], "whether there is one at all is for the audit to say");
}

#[test]
fn checkpoints_go_to_places_that_are_named_in_full() {
    let with = |line: &str| {
        parse(&format!(
            "version = 1\nenvironment = \"dev\"\n[[audit.sinks]]\ntype = \"file\"\npath = \"log\"\ncheckpoints = {line}\n"
        ))
    };
    let policy = with(
        "{ every = 5, interval = \"2m\", to = [\"syslog\", \"syslog:/s\", \"fd:7\", \"file:/f\", \"command:/c\", \
         { type = \"ssm\", name = \"/audit/{host}/{uid}\", region = \"eu-west-1\" }] }",
    );
    let mut sinks = policy.unwrap().sinks;
    let Some(Sink::File { evidence, .. }) = sinks.pop() else { panic!("a file") };
    let rules = evidence.checkpoints.unwrap();
    let words: Vec<String> = rules.to.iter().map(Anchor::word).collect();
    assert_eq!(words, ["syslog:/dev/log", "syslog:/s", "fd:7", "file:/f", "command:/c", "ssm:/audit/{host}/{uid}"]);
    assert_eq!((rules.every, rules.interval), (5, Duration::from_secs(120)));
    for line in [
        "{}",
        "{ to = [] }",
        "{ every = 0, to = [\"syslog\"] }",
        "{ interval = \"0s\", to = [\"syslog\"] }",
        "{ to = [\"syslog:\"] }",
        "{ to = [\"fd:2\"] }",
        "{ to = [\"fd:x\"] }",
        "{ to = [\"file:relative\"] }",
        "{ to = [\"command:anchor\"] }",
        "{ to = [\"ssm:/a\"] }",
        "{ to = [7] }",
        "{ to = [{ name = \"/a\" }] }",
        "{ to = [{ type = \"ssm\" }] }",
        "{ to = [{ type = \"file\", name = \"/a\" }] }",
        "{ to = [{ type = \"ssm\", name = \"/a\", path = \"/a\" }] }",
        "{ to = [{ type = \"ssm\", name = \"a\" }] }",
        "{ to = [{ type = \"ssm\", name = \"/a/\" }] }",
        "{ to = [{ type = \"ssm\", name = \"/a b\" }] }",
        "{ to = [{ type = \"ssm\", name = \"/{name}\" }] }",
        "{ to = [{ type = \"ssm\", name = \"/a\", account = \"1\" }] }",
        "{ to = [{ type = \"ssm\", name = \"/a\", endpoint = \"http://example.com\" }] }",
        "{ to = [\"\"] }",
        "{ to = [\"syslog\"], of = 1 }",
    ] {
        assert_eq!(with(line).unwrap_err().class(), Class::Policy, "{line}");
    }
    let stderr = "version = 1\nenvironment = \"dev\"\n[[audit.sinks]]\ntype = \"stderr\"\nauditor = \"age1x\"\n";
    assert!(parse(stderr).unwrap_err().to_string().contains("means nothing"));
}

/// Fields of policies as pieces, so that arbitrary texts get past the first line.
const PIECES: [&str; 24] = [
    "version = 1\n",
    "environment = \"prod\"\n",
    "[secrets]\n",
    "A = {}\n",
    "A = { template = \"{B}\" }\n",
    "[[grants]]\n",
    "secrets = [\"A\", \"*\"]\n",
    "to = \"anyone\"\n",
    "to = { users = [1, \"x\"] }\n",
    "[stores.x]\n",
    "type = \"age\"\n",
    "type = \"ssm\"\n",
    "path = \"p\"\n",
    "identities = [\"env:X\"]\n",
    "extends = \"x\"\n",
    "[[bundles]]\n",
    "[child]\n",
    "inherit = []\n",
    "\u{202e}é\t",
    "[[audit.sinks]]\n",
    "= \"\"\"\n",
    "{ ",
    "\0",
    "\r\n",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let error = parse(&text).unwrap_err();
        prop_assert!(!error.to_string().is_empty());
    }

    #[test]
    fn no_mix_of_pieces_makes_it_panic(pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..30)) {
        if let Err(error) = parse(&pieces.concat()) {
            let is_safe = !error.to_string().contains('\u{202e}');
            prop_assert!(is_safe);
        }
    }
}

/// To go back takes a change to go back from, and values that are ours to keep.
#[test]
fn to_go_back_is_only_for_a_supervisor_that_looks_by_itself() {
    let head = "version = 1\nenvironment = \"prod\"\n[run]\non_crash = \"previous\"\n";
    let run = |rest: &str| parse_text(&format!("{head}{rest}"), Path::new("p.toml"), &LoadOptions::default());
    assert_eq!(run("watch = \"5m\"\nagent = \"forbid\"\n").unwrap().run.on_crash, OnCrash::Previous);
    for (rest, wrong) in [
        ("agent = \"forbid\"\n", "nobody looks for changes"),
        ("agent = \"forbid\"\nwatch = \"5m\"\non_change = \"ignore\"\n", "with `on_change = \"ignore\"`"),
        ("watch = \"5m\"\n", "what the agent gives is not kept"),
        ("watch = \"5m\"\nagent = \"require\"\n", "what the agent gives is not kept"),
    ] {
        let error = run(rest).unwrap_err().to_string();
        assert!(error.contains(wrong) && error.contains("p.toml:4:"), "{rest}: {error}");
    }
    let again = parse_text(&head.replace("previous", "again"), Path::new("p.toml"), &LoadOptions::default()).unwrap();
    assert_eq!(again.run.on_crash, OnCrash::Again);
}
