//! Everything that a user can read, as files to be read: `snapshots/*.snap`. The rules of wording stand in `src/error.rs`.
//!
//! One snapshot for each theme. Modes, owners and the like differ between root and others, so their messages are asserted
//! in `bad_input`; what is here is the same for everybody.

use std::os::unix::fs::PermissionsExt;

use crate::harness::{Outcome, Scene};
use crate::mask::Transcripts;
use crate::rekey::{Team, pair, pair_named};
use crate::rotate::{hooked, rotating};

/// A sealed scene with `TOKEN` written twice and `OTHER` once.
pub fn lived_in() -> Scene {
    let scene = Scene::sealed(&["TOKEN", "OTHER"]);
    for (name, value) in [("TOKEN", "first"), ("TOKEN", "second"), ("OTHER", "other")] {
        scene.verb_reading(&["set", name], value.as_bytes()).expect_status(0);
    }
    scene
}

fn theme(name: &str, transcripts: &[(&str, &Outcome)]) {
    let mut all = Transcripts::default();
    transcripts.iter().for_each(|(what, outcome)| all.add(what, outcome));
    all.assert(name);
}

#[test]
fn usage_errors() {
    let scene = Scene::new();
    let mut all = Transcripts::default();
    for (what, line) in [
        ("nothing", &[][..]),
        ("a command that does not exist", &["rnu"]),
        ("an option that does not exist, and a near one", &["run", "--polcy", "x", "--", "true"]),
        ("the command to run without its verb", &["printenv", "HOME"]),
        ("no command to run", &["run", "--env", "test"]),
        ("a command without the dashes", &["run", "printenv"]),
        ("neither environment nor policy", &["run", "--", "true"]),
        ("an environment that is a path", &["check", "--env", "../prod"]),
        ("a value as an argument", &["set", "TOKEN", "hunter2"]),
        ("a value in the place of the name", &["set", "hunter-2"]),
        ("no name", &["set"]),
        ("two sources of the value", &["set", "TOKEN", "--generate", "--from-file", "x"]),
        ("a newline to be kept that is not read", &["set", "TOKEN", "--generate", "--keep-newline"]),
        ("copy without its ends", &["copy", "TOKEN"]),
        ("a format that does not exist", &["--error-format", "xml", "check"]),
        ("a shell that does not exist", &["completions", "cobol"]),
        ("audit without a verb", &["audit"]),
        ("no log to verify", &["audit", "verify"]),
    ] {
        all.add(what, &scene.vouchsafe(line).expect_status(2));
    }
    let broken = Scene::new().variable("VOUCHSAFE_ENV", "../prod");
    all.add("a variable that holds no name", &broken.vouchsafe(&["check"]).expect_status(2));
    all.assert("usage");
}

#[test]
fn errors_as_json() {
    let scene = Scene::with(&[("TOKEN", "x")]).grants("");
    theme(
        "errors_as_json",
        &[
            ("usage", &scene.vouchsafe(&["--error-format=json", "run"]).expect_status(2)),
            ("usage, after the verb", &scene.vouchsafe(&["run", "--error-format", "json"]).expect_status(2)),
            ("denied", &scene.verb(&["run", "--error-format", "json", "--", "true"]).expect_status(120)),
            (
                "policy",
                &scene.vouchsafe(&["check", "--policy", "no.toml", "--error-format", "json"]).expect_status(121),
            ),
        ],
    );
}

#[test]
fn policy_errors() {
    let scene = Scene::new();
    let head = "version = 1\nenvironment = \"test\"\n";
    let lint = |name: &str, text: &str| {
        let path = scene.write(name, text.as_bytes());
        scene.vouchsafe(&["check", "--policy", path.to_str().unwrap()]).expect_status(121)
    };
    theme(
        "policy_errors",
        &[
            ("not there", &scene.vouchsafe(&["check", "--policy", "absent.toml"]).expect_status(121)),
            ("a folder", &scene.vouchsafe(&["check", "--policy", "."]).expect_status(121)),
            ("not TOML", &lint("a.toml", "version = 1\nenvironment = \"test\n")),
            ("an unknown field", &lint("b.toml", &format!("{head}[secret]\nA = {{}}\n"))),
            ("a wrong type", &lint("c.toml", &format!("{head}[secrets]\nA = \"x\"\n"))),
            ("a key twice", &lint("d.toml", &format!("{head}version = 1\n"))),
            ("not UTF-8", &{
                let path = scene.write("e.toml", b"version = 1 # \xff\n");
                scene.vouchsafe(&["check", "--policy", path.to_str().unwrap()]).expect_status(121)
            }),
            ("a byte order mark", &lint("f.toml", &format!("\u{feff}{head}"))),
            ("a NUL byte", &lint("g.toml", &format!("{head}[secrets]\n\0"))),
            ("a grant to nobody", &lint("h.toml", &format!("{head}[[grants]]\nsecrets = [\"*\"]\n"))),
            (
                "a duration without end",
                &lint("i.toml", &format!("{head}[run]\ndeadline = \"99999999999999999999y\"\n")),
            ),
            ("an unknown store type", &lint("j.toml", &format!("{head}[stores.s]\ntype = \"vault\"\n"))),
            (
                "a reserved name",
                &lint(
                    "k.toml",
                    &format!(
                        "{head}store = \"s\"\n[stores.s]\ntype = \"age\"\npath = \"x\"\nidentities = [\"env:K\"]\n[secrets]\nLD_PRELOAD = {{}}\n"
                    ),
                ),
            ),
        ],
    );
}

#[test]
fn rotation_policy_errors() {
    let scene = Scene::new();
    let head = "version = 1\nenvironment = \"test\"\n[stores.params]\ntype = \"ssm\"\nprefix = \"/test/\"\nnames = \"lower_snake\"\n\
        [secrets]\nADMIN_URL = {}\n";
    let postgres = |rest: &str| format!("A = {{ rotate = {{ apply = {{ type = \"postgres\", {rest} }} }} }}\n");
    let generate = |rules: &str| format!("A = {{ rotate = {{ generate = {{ {rules} }} }} }}\n");
    let mut all = Transcripts::default();
    for (index, (what, text)) in [
        ("nothing is left of the alphabet", generate("alphabet = \"hex\", exclude = \"0123456789abcdef\"")),
        ("nothing is left of a class", generate("exclude = \"0123456789\", require = [\"digit\"]")),
        ("a class that the alphabet lacks", generate("alphabet = \"alphanumeric\", require = [\"symbol\"]")),
        ("a class that hex lacks", generate("alphabet = \"hex\", require = [\"upper\"]")),
        ("too few passwords", generate("length = 16, alphabet = \"hex\", exclude = \"23456789\"")),
        ("too few passwords of any length", generate("alphabet = \"hex\", exclude = \"123456789abcdef\"")),
        ("a field of another generator", generate("type = \"uuid\", length = 40")),
        ("a generator that does not exist", generate("type = \"uid\"")),
        ("a program that is not named", generate("type = \"command\"")),
        ("no administrator", postgres("role = \"api\"")),
        ("an unknown administrator", postgres("admin = \"ADMIN\", role = \"api\"")),
        ("the value itself as administrator", postgres("admin = \"A\", role = \"api\"")),
        (
            "the item under another name",
            format!("{}B = {{ item = \"a\" }}\n", postgres("admin = \"B\", role = \"api\"")),
        ),
        (
            "the value inside a template",
            format!("{}B = {{ template = \"{{A}}\" }}\n", postgres("admin = \"B\", role = \"api\"")),
        ),
        ("no role", postgres("admin = \"ADMIN_URL\"")),
        ("role and roles", postgres("admin = \"ADMIN_URL\", role = \"a\", roles = [\"a\", \"b\"]")),
        ("three roles", postgres("admin = \"ADMIN_URL\", roles = [\"a\", \"b\", \"c\"]")),
        ("two roles that are one", postgres("admin = \"ADMIN_URL\", roles = [\"a\", \"a\"]")),
        ("two queries", postgres("admin = \"ADMIN_URL\", role = \"a\", check = \"SELECT 1; SELECT 2\"")),
        ("two rotations of one item", "A = { rotate = {} }\nB = { item = \"a\", rotate = {} }\n".into()),
        ("what lies pending", "A = { rotate = { pending = \"separate\" } }\nB = { item = \"a.pending\" }\n".into()),
    ]
    .into_iter()
    .enumerate()
    {
        let path = scene.write(&format!("{index}.toml"), format!("{head}{text}").as_bytes());
        all.add(what, &scene.vouchsafe(&["policy", "lint", path.to_str().unwrap()]).expect_status(121));
    }
    all.assert("rotation_policy");
}

#[test]
fn lint_says_everything_at_once() {
    let scene = Scene::with(&[("TOKEN", "x")]);
    let good = scene.write_policy();
    let bad = scene.write(
        "bad.toml",
        b"version = 1\nenvironment = \"test\"\nstore = \"fils\"\n\n[stores.files]\ntype = \"age\"\npath = \"x.age\"\nidentities = [\"env:KEY\"]\n\n[secrets]\nTOKEN = { max_age = \"soon\" }\ntoken = { item = \"\" }\n\n[[grants]]\nsecrets = [\"TOKE\"]\nto = { users = [\"a b\"] }\n\n[[audit.sinks]]\ntype = \"file\"\n",
    );
    let files = [good.to_str().unwrap(), bad.to_str().unwrap(), "absent.toml"];
    theme(
        "lint",
        &[
            ("a good one", &scene.vouchsafe(&["policy", "lint", files[0]]).expect_status(0)),
            ("a good one, one with several problems, and none", &{
                let line = [&["policy", "lint"][..], &files].concat();
                scene.vouchsafe(&line).expect_status(121)
            }),
        ],
    );
}

#[test]
fn selection_errors() {
    let service = Scene::with(&[("TOKEN", "x")]);
    let mirror = Scene::with(&[("TOKEN", "x")]).sinks("[[audit.sinks]]\ntype = \"syslog\"\n");
    let policy = std::fs::read_to_string(service.write_policy()).unwrap();
    let policy = policy.replace("environment = \"test\"\n", "environment = \"test\"\nservice = \"api\"\n");
    let path = service.write("api.toml", policy.as_bytes());
    let path = path.to_str().unwrap();
    theme(
        "selection",
        &[
            ("a policy of another environment", &service.verb(&["check", "--env", "prod"]).expect_status(121)),
            ("a policy with nothing but a mirror", &mirror.verb(&["run", "--", "true"]).expect_status(121)),
            ("a policy of another service", &service.vouchsafe(&["check", "-p", path, "-s", "web"]).expect_status(121)),
        ],
    );
    // Where it is looked for depends on who asks.
    let absent = service.vouchsafe(&["check", "--env", "nowhere"]).expect_status(121);
    assert!(absent.err().contains("error[policy]: no policy found; looked for `"), "{}", absent.err());
    assert!(absent.err().contains("`/etc/vouchsafe/policies/nowhere.toml`"), "{}", absent.err());
}

#[test]
fn denials() {
    let scene = Scene::with(&[("A", "1"), ("B", "2"), ("DATABASE_URL", "3")]).grants(
        "[[grants]]\nsecrets = [\"A\"]\nto = \"anyone\"\n[[grants]]\nsecrets = [\"B\"]\nto = { commands = [\"/usr/bin/no\"] }\n",
    );
    theme(
        "denials",
        &[
            ("many", &scene.verb(&["run", "--", "true"]).expect_status(120)),
            ("one", &scene.verb(&["run", "--only", "B", "--", "true"]).expect_status(120)),
            ("unknown, and near", &scene.verb(&["run", "--only", "DATABSE_URL", "--", "true"]).expect_status(120)),
            ("unknown", &scene.verb(&["run", "--only", "NOTHING_LIKE_IT", "--", "true"]).expect_status(120)),
        ],
    );
}

#[test]
fn missing_and_environment() {
    let scene = Scene::with(&[("A", "1"), ("B", "2")]);
    scene.store(&[("C", "3")]);
    let sealed = Scene::sealed(&["TOKEN"]);
    sealed.verb_reading(&["set", "TOKEN"], b"x").expect_status(0);
    sealed.verb(&["remove", "TOKEN"]).expect_status(0);
    let collision = Scene::with(&[("TOKEN", "x")]).variable("TOKEN", "y");
    let field = Scene::with(&[("TOKEN", "not json")]).policy("[secrets]\nTOKEN = { field = \"/a\" }\n");
    theme(
        "missing_and_environment",
        &[
            ("missing in a file made by hand", &scene.verb(&["run", "--", "true"]).expect_status(122)),
            ("missing in a sealed file", &sealed.verb(&["run", "--", "true"]).expect_status(122)),
            ("a collision", &collision.verb(&["run", "--", "true"]).expect_status(125)),
            ("a NUL byte", &Scene::with(&[("A", "x\0y")]).verb(&["run", "--", "true"]).expect_status(125)),
            ("a shell function", &Scene::with(&[("A", "() { :; }")]).verb(&["run", "--", "true"]).expect_status(125)),
            ("too long", &Scene::with(&[("A", &"x".repeat(131_071))]).verb(&["run", "--", "true"]).expect_status(125)),
            ("a field of what is not JSON", &field.verb(&["run", "--", "true"]).expect_status(122)),
        ],
    );
}

#[test]
fn identity_errors() {
    let absent = Scene::with(&[("A", "1")]);
    std::fs::remove_file(absent.path("identity.key")).unwrap();
    let open = Scene::with(&[("A", "1")]);
    std::fs::set_permissions(open.path("identity.key"), PermissionsExt::from_mode(0o644)).unwrap();
    let wrong = Scene::with(&[("A", "1")]);
    std::fs::copy(open.path("identity.key"), wrong.path("identity.key")).unwrap();
    std::fs::set_permissions(wrong.path("identity.key"), PermissionsExt::from_mode(0o600)).unwrap();
    let with_identity = |text: &str| {
        let scene = Scene::with(&[("A", "1")]);
        scene.write_mode("identity.key", text.as_bytes(), 0o600);
        scene.verb(&["run", "--", "true"]).expect_status(124)
    };
    theme(
        "identity",
        &[
            ("absent", &absent.verb(&["run", "--", "true"]).expect_status(124)),
            ("readable by others", &open.verb(&["run", "--", "true"]).expect_status(124)),
            ("of another", &wrong.verb(&["run", "--", "true"]).expect_status(124)),
            ("empty", &with_identity("# nothing\n")),
            ("cut short", &with_identity("AGE-SECRET-KEY-1QQQQ\n")),
            ("of a plugin", &with_identity("AGE-PLUGIN-X-1QQQQ\n")),
            ("a public key", &with_identity(&Scene::new().recipient())),
        ],
    );
}

#[test]
fn store_errors() {
    let run = |scene: &Scene, status: i32| scene.verb(&["run", "--", "true"]).expect_status(status);
    let absent = Scene::with(&[("A", "1")]);
    std::fs::remove_file(absent.path("store.age")).unwrap();
    let never_written = Scene::sealed(&["A"]);
    let truncated = Scene::with(&[("A", "1")]);
    let bytes = std::fs::read(truncated.path("store.age")).unwrap();
    truncated.write("store.age", &bytes[..bytes.len() - 5]);
    let corrupt = Scene::with(&[("A", "1")]);
    let mut bytes = std::fs::read(corrupt.path("store.age")).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    corrupt.write("store.age", &bytes);
    let not_age = Scene::with(&[("A", "1")]);
    not_age.write("store.age", b"A=1\n");
    let not_json = Scene::with(&[("A", "1")]);
    not_json.store_plaintext(b"A=hunter2\n");
    let twice = Scene::with(&[("A", "1")]);
    twice.store_plaintext(br#"{"A":"hunter2","A":"3"}"#);
    let unbound = Scene::with(&[("A", "1")]);
    let policy = std::fs::read_to_string(unbound.write_policy()).unwrap().replace("unbound = true\n", "");
    unbound.write("bound.toml", policy.as_bytes());
    let elsewhere = lived_in();
    let policy = std::fs::read_to_string(elsewhere.write_policy()).unwrap();
    let policy = policy.replace("environment = \"test\"", "environment = \"prod\"");
    elsewhere.write("prod.toml", policy.as_bytes());
    theme(
        "store",
        &[
            ("absent", &run(&absent, 122)),
            ("never written", &run(&never_written, 122)),
            ("cut short", &run(&truncated, 122)),
            ("a bit flipped", &run(&corrupt, 122)),
            ("not an age file", &run(&not_age, 122)),
            ("not what the policy says", &run(&not_json, 122)),
            ("a name twice", &run(&twice, 122)),
            ("bound to nothing", &unbound.vouchsafe(&["run", "-p", "bound.toml", "--", "true"]).expect_status(121)),
            (
                "of another environment",
                &elsewhere.vouchsafe(&["run", "-p", "prod.toml", "--", "true"]).expect_status(122),
            ),
        ],
    );
}

#[test]
fn audit_errors() {
    let run = |scene: Scene| scene.verb(&["run", "--", "true"]).expect_status(123);
    let with = |sinks: &str| Scene::with(&[("A", "1")]).sinks(sinks);
    let absent = Scene::with(&[("A", "1")]);
    let absent_folder = absent.path("no/such/{uid}.jsonl");
    let absent = absent.sinks(&format!("[[audit.sinks]]\ntype = \"file\"\npath = \"{}\"\n", absent_folder.display()));
    let open = Scene::with(&[("A", "1")]);
    open.write_mode("audit.jsonl", b"", 0o644);
    let link = Scene::with(&[("A", "1")]);
    std::os::unix::fs::symlink("elsewhere", link.path("audit.jsonl")).unwrap();
    let folder = Scene::with(&[("A", "1")]);
    std::fs::create_dir(folder.path("audit.jsonl")).unwrap();
    theme(
        "audit_sinks",
        &[
            ("no sink", &run(with(""))),
            ("no folder", &run(absent)),
            ("a log that others may read", &run(open)),
            ("a log that is a link", &run(link)),
            ("a log that is a folder", &run(folder)),
            ("a closed descriptor", &run(with("[[audit.sinks]]\ntype = \"fd\"\nfd = 9\n"))),
        ],
    );
}

#[test]
fn command_errors() {
    let scene = Scene::with(&[("A", "1")]);
    scene.write_mode("plain", b"echo\n", 0o644);
    scene.write_mode("text", b"echo\n", 0o755);
    scene.write_mode("script", b"#!/no/such/interpreter\n", 0o755);
    let run = |command: &str, status: i32| scene.verb(&["run", "--", command]).expect_status(status);
    theme(
        "commands",
        &[
            ("not found", &run("no-such-command", 127)),
            ("not found, with its arguments", &run("printenv HOME", 127)),
            ("no such path", &run("./no/such", 127)),
            ("empty", &run("", 127)),
            ("not executable", &run("./plain", 126)),
            ("a folder", &run("/", 126)),
            ("a script without an interpreter", &run("./script", 126)),
            ("a text", &run("./text", 126)),
        ],
    );
}

#[test]
fn writing() {
    let scene = Scene::sealed(&["TOKEN", "OTHER"])
        .and("PART = { field = \"/a\" }\nFIXED = { version = 1 }\nURL = { template = \"x-{TOKEN}\" }");
    let hand = Scene::with(&[("TOKEN", "x")]);
    let set = |words: &[&str], input: &str, status| scene.verb_reading(words, input.as_bytes()).expect_status(status);
    theme(
        "writing",
        &[
            ("set", &set(&["set", "TOKEN"], "hunter2\n", 0)),
            ("set again", &set(&["set", "TOKEN"], "hunter3\n", 0)),
            ("generate", &set(&["set", "OTHER", "--generate"], "", 0)),
            ("empty", &set(&["set", "TOKEN"], "\n", 2)),
            ("a NUL byte", &set(&["set", "TOKEN"], "a\0b", 2)),
            ("too large", &set(&["set", "TOKEN"], &"x".repeat(131_073), 2)),
            ("no such file", &set(&["set", "TOKEN", "--from-file", "absent"], "", 2)),
            ("not bound, and near", &set(&["set", "TOKEM"], "x", 2)),
            ("not bound", &set(&["set", "SOMETHING_ELSE"], "x", 2)),
            ("a template", &set(&["set", "URL"], "x", 2)),
            ("a field", &set(&["set", "PART"], "x", 2)),
            ("a fixed version", &set(&["set", "FIXED"], "x", 2)),
            ("a file made by hand", &hand.verb_reading(&["set", "TOKEN"], b"x").expect_status(122)),
            ("remove", &set(&["remove", "OTHER"], "", 0)),
            ("remove again", &set(&["remove", "OTHER"], "", 122)),
            ("history", &set(&["history", "TOKEN"], "", 0)),
            ("history of nothing", &set(&["history", "OTHER"], "", 122)),
            ("history of a file made by hand", &hand.verb(&["history", "TOKEN"]).expect_status(122)),
        ],
    );
}

#[test]
fn copying() {
    let scene = lived_in();
    let here = scene.write_policy();
    let text = std::fs::read_to_string(&here).unwrap();
    let text = text.replace("environment = \"test\"", "environment = \"staging\"").replace("sealed.age", "staging.age");
    scene.write("staging.toml", text.as_bytes());
    let copy = |words: &[&str], status| {
        let line = [&["copy", "--from", "policy.toml", "--to", "staging.toml"][..], words].concat();
        scene.vouchsafe(&line).expect_status(status)
    };
    theme(
        "copy",
        &[
            ("one", &copy(&["TOKEN"], 0)),
            ("one that is there, after one that is not", &copy(&["OTHER", "TOKEN"], 2)),
            ("both, meant", &copy(&["OTHER", "TOKEN", "--overwrite"], 0)),
            ("not bound", &copy(&["TOKN"], 2)),
        ],
    );
}

#[test]
fn rekeying() {
    let team = Team::new();
    let eve = team.recipient();
    let named = team.scene.verb(&["rekey", "--remove", &eve]).expect_status(121);
    let same = team.scene.verb(&["rekey"]).expect_status(0);
    let team = team.named(false);
    let dry = team.compromised(&["--dry-run"]).expect_status(10);
    let first = team.compromised(&[]).expect_status(10);
    let check = team.scene.verb(&["check"]).expect_status(10);
    let list = team.scene.verb(&["list"]).expect_status(0);
    let textconv = team.scene.verb(&["list", "--file", "sealed.age"]).expect_status(0);
    team.set("A", "a3");
    team.set("B", "b2");
    let done = team.compromised(&[]).expect_status(0);
    let shown = team.scene.vouchsafe(&["audit", "show", "audit.jsonl"]).expect_status(0);
    let again = team.named(true);
    let trusted = again.scene.verb(&["rekey"]).expect_status(0);
    let absent = Team::new().named(false);
    std::fs::remove_file(absent.scene.path("sealed.age")).unwrap();
    let halves = pair_named(pair(), false);
    halves.scene.write("other/two.age", b"damaged");
    let gone = halves.recipient();
    let half = halves.scene.verb(&["rekey", "--remove", &gone]).expect_status(122);
    let one = halves.scene.verb(&["rekey", "--remove", &gone, "--store", "one"]).expect_status(0);
    let hand = Scene::with(&[("TOKEN", "x")]);
    let at = hand.path("").display().to_string();
    let vector = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/kms/sealed.age");
    hand.write("kms.age", &std::fs::read(vector).unwrap());
    let kms = format!(
        "[stores.files]\ntype = \"age\"\nformat = \"json\"\nunbound = true\npath = \"{at}store.age\"\n\
         identities = [\"env:NONE\"]\n[stores.params]\ntype = \"ssm\"\nregion = \"eu-west-1\"\n\
         [stores.sealed]\ntype = \"kms\"\nkey = \"arn:aws:kms:eu-west-1:111122223333:key/new\"\npath = \"{at}kms.age\"\n"
    );
    let hand = hand.stores(&kms).and("SEALED = { store = \"sealed\" }\nCIPHER = { store = \"sealed\", ciphertext = \"AAAA\" }\nPARAMETER = { store = \"params\" }");
    let moved = hand.verb(&["rekey"]).expect_status(122);
    let by_hand = hand.verb(&["rekey", "--store", "files"]).expect_status(2);
    let usage = |words: &[&str]| absent.scene.verb(&[&["rekey"], words].concat()).expect_status(2);
    theme(
        "rekey",
        &[
            ("who is removed is named still", &named),
            ("to the same recipients", &same),
            ("a dry run", &dry),
            ("one is compromised", &first),
            ("check says it", &check),
            ("list says it", &list),
            ("a diff in git says it", &textconv),
            ("all replaced", &done),
            ("the log", &shown),
            ("named again", &trusted),
            ("one file is done, one fails", &half),
            ("removed, and trusted", &one),
            ("under another KMS key, and what lies in no sealed file", &moved),
            ("a store made by hand", &by_hand),
            ("a file that nobody has written yet", &absent.scene.verb(&["rekey"]).expect_status(0)),
            ("compromised, and nobody removed", &usage(&["--compromised"])),
            ("no such store, and a near one", &usage(&["--store", "file"])),
            ("what is removed is no recipient", &usage(&["--remove", "eve"])),
            ("an SSH key is removed", &usage(&["--remove", "ssh-ed25519 AAAA"])),
            ("an alias of a KMS key", &usage(&["--old-key", "arn:aws:kms:eu-west-1:111122223333:alias/x"])),
            ("an old key, and no store for it", &usage(&["--old-key", "arn:aws:kms:eu-west-1:111122223333:key/x"])),
        ],
    );
}

#[test]
fn looking() {
    let scene = lived_in().and(
        "PART = { item = \"nothing\", required = false }\nURL = { template = \"https://{TOKEN:url}@host/\" }\n\
         AGED = { item = \"TOKEN\", max_age = \"90d\" }",
    );
    let missing = lived_in().and("GONE = {}");
    let broken = lived_in();
    broken.write("sealed.age", b"not age");
    let sealed = scene.path("sealed.age");
    let sealed = sealed.to_str().unwrap();
    theme(
        "looking",
        &[
            ("check", &scene.verb(&["check"]).expect_status(0)),
            ("check, offline", &scene.verb(&["check", "--offline"]).expect_status(0)),
            ("check with a missing one", &missing.verb(&["check"]).expect_status(10)),
            ("check with a broken store", &broken.verb(&["check"]).expect_status(122)),
            ("list", &scene.verb(&["list"]).expect_status(0)),
            ("list of a broken store", &broken.verb(&["list"]).expect_status(122)),
            ("list of a file, without a policy", &scene.vouchsafe(&["list", "--file", sealed]).expect_status(0)),
            ("list of a file, with a policy", &scene.verb(&["list", "--file", sealed]).expect_status(0)),
            ("list of a file that is none", &broken.vouchsafe(&["list", "--file", "sealed.age"]).expect_status(122)),
            ("list of a file that is not there", &broken.vouchsafe(&["list", "--file", "absent"]).expect_status(122)),
        ],
    );
}

#[test]
fn explaining() {
    let scene = Scene::with(&[("A", "1"), ("B", "2")])
        .and("C = { template = \"{A}{B}\" }\n[child]\ninherit = [\"PATH\", \"LANG\"]\nset = { APP = \"x\" }")
        .variable("LANG", "C")
        .variable("HOME", "/home/x")
        .variable("VOUCHSAFE_ENV", "test");
    let denied = Scene::with(&[("A", "1"), ("B", "2")])
        .grants("[[grants]]\nsecrets = [\"A\"]\nto = { uids = [4294967294] }\n".replace("uids", "users").as_str());
    let collision = Scene::with(&[("A", "1")]).variable("A", "x").variable("KEPT", "y").variable("VOUCHSAFE_X", "z");
    let command = ["explain", "--", "/bin/sh"];
    theme(
        "explain",
        &[
            ("granted", &scene.verb(&command).expect_status(0)),
            ("denied", &denied.verb(&command).expect_status(0)),
            ("a collision", &collision.verb(&command).expect_status(0)),
            ("no command", &scene.verb(&["explain", "--only", "A"]).expect_status(0)),
            ("a command that is not there", &scene.verb(&["explain", "--", "no-such"]).expect_status(127)),
        ],
    );
}

#[test]
fn logs() {
    let scene = lived_in();
    scene.verb(&["run", "--", "true"]).expect_status(0);
    scene.verb(&["run", "--only", "TOKEN", "--only", "X", "--", "true"]).expect_status(120);
    let text = std::fs::read_to_string(scene.path("audit.jsonl")).unwrap();
    scene.write("tampered.jsonl", text.replacen("\"TOKEN\"", "\"token\"", 1).as_bytes());
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    scene.write("gap.jsonl", [&lines[..2], &lines[3..]].concat().concat().as_bytes());
    scene.write("late.jsonl", lines[2..].concat().as_bytes());
    scene.write("empty.jsonl", b"");
    let audit = |words: &[&str], status| scene.vouchsafe(&[&["audit"], words].concat()).expect_status(status);
    theme(
        "logs",
        &[
            ("whole", &audit(&["verify", "audit.jsonl"], 0)),
            ("changed", &audit(&["verify", "tampered.jsonl"], 11)),
            ("a record is missing", &audit(&["verify", "gap.jsonl"], 12)),
            ("the beginning is missing", &audit(&["verify", "late.jsonl"], 12)),
            ("the beginning is missing, and that is known", &audit(&["verify", "--anywhere", "late.jsonl"], 0)),
            ("empty", &audit(&["verify", "empty.jsonl"], 12)),
            ("no such log", &audit(&["verify", "absent.jsonl"], 123)),
            ("show", &audit(&["show", "audit.jsonl"], 0)),
            ("show no such log", &audit(&["show", "absent.jsonl"], 123)),
        ],
    );
}

#[test]
fn policies_compared() {
    let scene =
        Scene::with(&[("A", "1"), ("B", "1")]).grants("[[grants]]\nsecrets = [\"A\"]\nto = { users = [\"api\"] }\n");
    let old = std::fs::read_to_string(scene.write_policy()).unwrap();
    let new =
        old.replace("secrets = [\"A\"]", "secrets = [\"A\", \"B\"]").replace("B = {}", "B = { required = false }");
    scene.write("new.toml", new.as_bytes());
    let diff = |words: &[&str], status| scene.vouchsafe(&[&["policy", "diff"], words].concat()).expect_status(status);
    theme(
        "policies_compared",
        &[
            ("the same", &diff(&["policy.toml", "policy.toml"], 0)),
            ("one grant more", &diff(&["policy.toml", "new.toml"], 13)),
            ("one grant less", &diff(&["new.toml", "policy.toml"], 13)),
            ("for machines", &diff(&["policy.toml", "new.toml", "--json"], 13)),
            ("no such policy", &diff(&["policy.toml", "absent.toml"], 121)),
        ],
    );
}

#[test]
fn verdicts_expected() {
    let scene = Scene::with(&[("A", "1"), ("B", "1")]).grants(
        "[[grants]]\nsecrets = [\"A\"]\nto = { users = [\"api\"], commands = [\"/bin/api\"] }\n\
         [[grants]]\nsecrets = [\"*\"]\nto = { users = [17], groups = [\"ops\"] }\n",
    );
    scene.write_policy();
    let test = |table: &str, status| {
        scene.write("policy.toml.tests", table.as_bytes());
        scene.vouchsafe(&["policy", "test", "policy.toml"]).expect_status(status)
    };
    let absent = scene.vouchsafe(&["policy", "test", "policy.toml"]).expect_status(121);
    let api = "[[tests]]\nname = \"the API\"\nuser = \"api\"\nuid = 18\ncommand = \"/bin/api\"\n";
    let surprise = format!("{api}granted = [\"*\"]\n[[tests]]\nuser = 17\ngroups = [\"ops\"]\ndenied = [\"B\"]\n");
    theme(
        "verdicts_expected",
        &[
            ("no table", &absent),
            ("as expected", &test(&format!("{api}granted = [\"A\"]\ndenied = [\"B\"]\n"), 0)),
            ("a secret without a verdict", &test(&format!("{api}granted = [\"A\"]\n"), 0)),
            ("a claim is not enough", &test(&format!("{api}agent = true\ngranted = [\"A\"]\n"), 13)),
            ("surprises", &test(&surprise, 13)),
            ("for machines", &scene.vouchsafe(&["policy", "test", "--json", "policy.toml"]).expect_status(13)),
            ("a name of no secret", &test(&format!("{api}denied = [\"C\"]\n"), 121)),
            ("who?", &test("[[tests]]\ndenied = [\"*\"]\n", 121)),
            ("what?", &test(api, 121)),
            ("nothing", &test("", 121)),
            ("a number is asked for", &test("[[tests]]\nuser = \"api\"\ndenied = [\"*\"]\n", 121)),
            ("a group by its other half", &test("[[tests]]\nuser = 17\ngroups = [3]\ndenied = [\"*\"]\n", 121)),
            ("a digest of nothing", &test("[[tests]]\nuser = 17\nsha256 = \"00\"\ndenied = [\"*\"]\n", 121)),
        ],
    );
}

#[test]
fn rotations() {
    let scene = rotating();
    let rotate = |words: &[&str], status| scene.verb(&[&["rotate"], words].concat()).expect_status(status);
    let absent = Scene::sealed(&["PLAIN"]).and("[secrets.A]\nrotate = {}");
    let target = hooked("");
    target.write_mode("accepted", b"another\n", 0o600);
    let held = rotating();
    let note = b"{\"owner\":\"ann@one, process 7\",\"since\":\"1999-01-02T03:04:05Z\"}";
    let lock = held.write_mode(".sealed.age.rotating", note, 0o600);
    let lock = std::fs::OpenOptions::new().read(true).write(true).open(lock).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    theme(
        "rotate",
        &[
            ("nothing is said", &rotate(&[], 2)),
            ("a way back of nothing", &rotate(&["--rollback"], 2)),
            ("a step of nothing", &rotate(&["--only-step", "apply"], 2)),
            ("two ways", &rotate(&["--due", "--all"], 2)),
            ("all and one", &rotate(&["--all", "A"], 2)),
            ("a step that does not exist", &rotate(&["--only-step", "hunter2", "A"], 2)),
            ("a name that is none", &rotate(&["hunter-2"], 2)),
            ("not bound, and near", &rotate(&["AA"], 2)),
            ("not rotated", &rotate(&["PLAIN"], 2)),
            ("a glob that matches nothing", &rotate(&["X_*"], 2)),
            ("a plan", &rotate(&["--all", "--dry-run"], 0)),
            ("one", &rotate(&["A"], 0)),
            ("all", &rotate(&["--all"], 0)),
            ("nothing is due", &rotate(&["--due"], 0)),
            ("a step that is not next", &rotate(&["--only-step", "promote", "A"], 2)),
            ("a step", &rotate(&["--only-step", "create", "A"], 0)),
            ("the same again", &rotate(&["--only-step", "create", "A"], 2)),
            ("the plan to finish it", &rotate(&["--resume", "--dry-run"], 0)),
            ("finished", &rotate(&["--resume"], 0)),
            ("back", &rotate(&["--rollback", "A"], 0)),
            ("back again", &rotate(&["--rollback", "A"], 0)),
            ("back, where nothing was before", &{
                set_once(&absent);
                absent.verb(&["rotate", "--rollback", "A"]).expect_status(122)
            }),
            ("no store yet", &Scene::sealed(&[]).and("A = { rotate = {} }").verb(&["rotate", "A"]).expect_status(122)),
            ("a plan with a target", &target.verb(&["rotate", "A", "--dry-run"]).expect_status(0)),
            ("a target that refuses", &target.verb(&["rotate", "A"]).expect_status(122)),
            ("somebody else is at it", &held.verb(&["rotate", "--all"]).expect_status(122)),
        ],
    );
}

fn set_once(scene: &Scene) {
    scene.verb_reading(&["set", "A"], b"first").expect_status(0);
}

#[test]
fn targets_of_rotation() {
    let program = |name: &str| {
        format!("TOKEN = {{ rotate = {{ apply = {{ type = \"command\", program = \"[AT]/{name}\" }} }} }}\n")
    };
    let scene = Scene::sealed(&[]);
    let at = scene.path("").display().to_string();
    let scene = scene.and(&program("hook").replace("[AT]/", &at));
    scene.write_policy();
    scene.write_mode("hook", b"#!/bin/sh\n[ \"$VOUCHSAFE_STEP\" != \"$(cat refused)\" ] || { echo \"no: $VOUCHSAFE_PENDING\" >&2; exit 1; }\n".as_slice(), 0o700);
    let text = std::fs::read_to_string(scene.path("hook")).unwrap().replace("cat refused", &format!("cat {at}refused"));
    scene.write_mode("hook", text.as_bytes(), 0o700);
    let policy = ["--policy", "policy.toml"];
    scene.vouchsafe_reading(&[&["set", "TOKEN"][..], &policy].concat(), b"first-value\n").expect_status(0);
    let rotate =
        |words: &[&str], status| scene.vouchsafe(&[&["rotate"], words, &policy].concat()).expect_status(status);
    let refused = |step: &str| {
        scene.write("refused", step.as_bytes());
    };
    refused("apply");
    let apply = rotate(&["TOKEN"], 122);
    refused("verify");
    let verify = rotate(&["TOKEN", "--resume"], 122);
    refused("nothing");
    let resumed = rotate(&["TOKEN", "--resume"], 0);
    scene.write_mode("hook", b"#!/bin/sh\n", 0o722);
    let unsafe_file = rotate(&["TOKEN"], 122);
    theme(
        "targets_of_rotation",
        &[
            ("a program that refuses, and says the value", &apply),
            ("a new value that does not work", &verify),
            ("goes on", &resumed),
            ("a program that others could have written", &unsafe_file),
        ],
    );
}

/// No class of failure without a transcript, but for those that no command of this build can end in.
#[test]
fn every_class_has_a_transcript() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/snapshots");
    let all: String = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    let unseen: Vec<&str> = vouchsafe::error::Class::ALL
        .iter()
        .map(|class| class.word())
        .filter(|word| !all.contains(&format!("error[{word}]: ")))
        .collect();
    assert_eq!(unseen, ["unsupported", "internal"]);
}
