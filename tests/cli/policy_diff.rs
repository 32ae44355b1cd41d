//! `policy diff`: whatever widens a policy is a gain, and what has no effect is no difference.

use crate::harness::Scene;

/// A policy that says something of everything that can be widened.
const BASE: &str = r#"version = 1
serial = 9
environment = "prod"
service = "api"
store = "files"
[stores.files]
type = "age"
path = "p.age"
min_generation = 3
recipients = ["age1one"]
identities = ["env:K", "file:k.txt"]
[stores.listed]
type = "age"
path = "l.age"
recipients_file = "readers.txt"
identities = ["env:K"]
[stores.sealed]
type = "kms"
path = "s.age"
key = "arn:aws:kms:eu-west-1:111122223333:key/one"
context = { team = "one" }
region = "eu-west-1"
[stores.params]
type = "ssm"
region = "eu-west-1"
prefix = "/prod/"
endpoint = "https://ssm.example.com"
role_arn = "arn:aws:iam::111122223333:role/one"
account = "111122223333"
profile = "one"
credential_source = "imds"
[secrets]
A = {}
B = { store = "params", plain = false, max_age = "90d", on_expired = "refuse" }
C = { inject = false }
D = { field = "/password" }
E = { store = "params", version = 3 }
LISTED = { store = "listed" }
T = { template = "x{A}" }
[secrets.R.rotate]
every = "30d"
retire_after = "1d"
generate = { length = 40 }
apply = { type = "command", program = "/bin/hook", needs = ["C"] }
[[bundles]]
store = "params"
path = "features/"
at_least = 1
[[grants]]
secrets = ["A", "D", "E", "T", "F_*"]
to = { users = ["api", "worker"], groups = ["web"], commands = ["/bin/api"] }
claimed = false
[[grants]]
secrets = ["B"]
to = { commands = ["/bin/api or /bin/sh"], sha256 = ["0000000000000000000000000000000000000000000000000000000000000000"] }
[[grants]]
secrets = ["LISTED"]
to = { commands = ["/bin/api (claimed is enough)"] }
[child]
inherit = ["PATH"]
aws_role = "strip"
on_collision = "error"
[run]
agent = "require"
[cache]
ttl = "5m"
max_stale = "1m"
[[audit.sinks]]
type = "file"
path = "log.jsonl"
sync = true
auditor = "age1auditor"
checkpoints = { every = 100, interval = "1m", to = ["syslog", "file:/mnt/checkpoints", { type = "ssm", name = "/audit", account = "111122223333" }] }
[[audit.sinks]]
type = "file"
path = "x.jsonl"
auditor = "age1zzz"
"#;

struct Pair {
    scene: Scene,
    /// The one whom both files of recipients name.
    reader: String,
}

impl Pair {
    fn new() -> Self {
        let (scene, reader) = (Scene::new(), recipient());
        for folder in ["old", "new"] {
            std::fs::create_dir(scene.path(folder)).unwrap();
            scene.write(&format!("{folder}/readers.txt"), reader.as_bytes());
        }
        Self { scene, reader }
    }

    /// What is told, `KIND: TEXT` each, and that the status is that of it.
    fn told(&self, old: &str, new: &str) -> Vec<String> {
        self.scene.write("old/p.toml", old.as_bytes());
        self.scene.write("new/p.toml", new.as_bytes());
        let outcome = self.scene.vouchsafe(&["policy", "diff", "old/p.toml", "new/p.toml", "--json"]);
        assert!(matches!(outcome.status.code(), Some(0 | 13)), "{new}\n{}", outcome.transcript());
        let answer: serde_json::Value = serde_json::from_str(outcome.out()).unwrap();
        let one =
            |one: &serde_json::Value| format!("{}: {}", one["kind"].as_str().unwrap(), one["text"].as_str().unwrap());
        let told: Vec<String> = answer["differences"].as_array().unwrap().iter().map(one).collect();
        assert_eq!(outcome.status.code(), Some(if told.is_empty() { 0 } else { 13 }), "{}", outcome.transcript());
        told
    }
}

fn recipient() -> String {
    age::x25519::Identity::generate().to_public().to_string()
}

fn edited(edits: &[(&str, &str)]) -> String {
    edits.iter().fold(BASE.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    })
}

/// One widening for each row: the edits, and what the gain must say.
const WIDENINGS: &[(&[(&str, &str)], &str)] = &[
    // Who.
    (
        &[(r#"["api", "worker"]"#, r#"["api", "worker", "eve"]"#)],
        r#"user "eve" with group "web" with command "/bin/api" can get "A""#,
    ),
    (&[(r#", groups = ["web"]"#, "")], r#"can get "A""#),
    (&[(r#"["web"]"#, r#"["web", 0]"#)], r#"with group 0 with"#),
    (&[(r#"commands = ["/bin/api"]"#, r#"commands = ["/bin/*"]"#)], r#"command "/bin/*" can get "A""#),
    (&[("claimed = false", "claimed = true")], "a claim is enough"),
    (
        &[(
            r#"to = { users = ["api", "worker"], groups = ["web"], commands = ["/bin/api"] }
claimed = false"#,
            "to = \"anyone\"",
        )],
        r#"anyone can get "A""#,
    ),
    (&[(r#"["/bin/api or /bin/sh"]"#, r#"["/bin/api", "/bin/sh"]"#)], r#"command "/bin/api" or "/bin/sh" with digest"#),
    (
        &[(r#"["/bin/api or /bin/sh"], sha256 = ["#, r#"["/bin/api or /bin/sh with digest 00"], sha256 = ["#)],
        "with digest 00\"",
    ),
    (
        &[(r#"["/bin/api (claimed is enough)"] }"#, "[\"/bin/api\"] }\nclaimed = true")],
        r#"command "/bin/api" (through the agent a claim is enough) can get "LISTED""#,
    ),
    (&[("\"0000", "\"1111")], r#"digest "1111"#),
    // What.
    (&[(r#"secrets = ["B"]"#, r#"secrets = ["B", "C"]"#)], r#"can get "C""#),
    (
        &[(r#"template = "x{A}""#, r#"template = "x{A}{C}""#)],
        r#"can get "C", which is item "C" of store "files", inside "T""#,
    ),
    (&[("A = {}", r#"A = { item = "C" }"#)], r#"can get "A", which is item "C" of store "files""#),
    (&[("A = {}", r#"A = { store = "params" }"#)], r#"can get "A", which is item "/prod/A" of store "params""#),
    (&[(r#"{ field = "/password" }"#, "{}")], r#"can get "D""#),
    (&[(r#"{ field = "/password" }"#, r#"{ field = "/root" }"#)], r#"field "/root" of item "D""#),
    (&[("version = 3", "version = 2")], "version 2 of item"),
    (&[(", version = 3", "")], r#"which is item "/prod/E""#),
    (&[(r#""F_*""#, r#""F_*", "G_*""#)], r#"what a bundle brings as "G_*""#),
    (&[(r#""features/""#, r#""keys/""#)], r#"from below "/prod/keys/""#),
    (&[("at_least = 1", "at_least = 1\nrecursive = true")], "anywhere below"),
    // Programs that rotate.
    (&[(r#"needs = ["C"]"#, r#"needs = ["C", "A"]"#)], r#"the program "/bin/hook", which rotates "R", can get "A""#),
    (&[("/bin/hook", "/bin/other")], r#"the program "/bin/other", which rotates "R", can get "R""#),
    (&[("length = 40", "length = 16")], "was 40 characters"),
    (&[("every = \"30d\"\n", "")], "`rotate.every` was 30d and is not set"),
    (&[("retire_after = \"1d\"", "retire_after = \"9d\"")], "`rotate.retire_after` was 1d and is 9d"),
    // Terms of secrets.
    (&[("plain = false", "plain = true")], "`plain` was false and is true"),
    (&[("max_age = \"90d\"", "max_age = \"91d\"")], "`max_age` was 90d and is 91d"),
    (&[("\"refuse\"", "\"warn\"")], "`on_expired` was refuse and is warn"),
    (&[("A = {}", "A = { reserved = true }")], "`reserved` was false and is true"),
    // Who can open what is written.
    (
        &[("\"age1one\"", "\"age1one\", \"age1two\"")],
        r#"recipient "age1two" can open what is written to store "files""#,
    ),
    (&[("key/one", "key/two")], r#"whoever may use "arn:aws:kms:eu-west-1:111122223333:key/two""#),
    (&[("\"age1one\"]", "\"age1one\"]\nrecipients_file = \"readers.txt\"")], r#"`recipients_file` was not set and is"#),
    // Where values lie and what is asked for them.
    (&[("\"p.age\"", "\"q.age\"")], r#"store "files": `path` was "p.age" and is "q.age""#),
    (&[("min_generation = 3", "min_generation = 2")], "`min_generation` was 3 and is 2"),
    (&[("\"l.age\"", "\"l.age\"\nformat = \"json\"\nunbound = true")], "`unbound` was false and is true"),
    (&[("\"env:K\", \"file:k.txt\"", "\"file:k.txt\"")], "`identities` was"),
    (&[("team = \"one\"", "team = \"two\"")], "`context` was"),
    (&[("\"/prod/\"", "\"/dev/\"")], r#"`prefix` was "/prod/" and is "/dev/""#),
    (
        &[("ssm.example.com", "evil.example.com")],
        r#"`endpoint` was "https://ssm.example.com" and is "https://evil.example.com""#,
    ),
    (&[("endpoint = \"https://ssm.example.com\"\n", "")], "and is not set"),
    (&[("role/one", "role/two")], "`role_arn` was"),
    (&[("role_arn = \"arn:aws:iam::111122223333:role/one\"\n", "")], "`role_arn` was"),
    (&[("account = \"111122223333\"\n", "")], "`account` was \"111122223333\" and is not set"),
    (&[("profile = \"one\"", "profile = \"two\"")], "`profile` was"),
    (&[("credential_source = \"imds\"\n", "")], "`credential_source` was \"imds\" and is not set"),
    (
        &[("prefix = \"/prod/\"", "prefix = \"/prod/\"\nkey = \"arn:aws:kms:eu-west-1:111122223333:key/x\"")],
        "whoever may use",
    ),
    // What holds runs.
    (&[("agent = \"require\"\n", "")], r#"[run] `agent` was "require" and is "allow""#),
    (&[("agent = \"require\"", "agent = \"forbid\"")], r#"[run] `agent` was "require""#),
    (&[("aws_role = \"strip\"", "aws_role = \"pass\"")], r#"`aws_role` was "strip" and is "pass""#),
    (&[("on_collision = \"error\"", "on_collision = \"inherited\"")], "`on_collision` was"),
    (&[("inherit = [\"PATH\"]", "inherit = [\"PATH\", \"LD_*\"]")], "`inherit` was [\"PATH\"] and is"),
    (&[("inherit = [\"PATH\"]\n", "")], "`inherit` was [\"PATH\"] and is \"all\""),
    (&[("ttl = \"5m\"", "ttl = \"5h\"")], "[cache] `ttl` was 5m and is 5h"),
    (&[("max_stale = \"1m\"", "max_stale = \"1h\"")], "`max_stale` was"),
    (&[("at_least = 1", "at_least = 0")], "`at_least` was 1 and is 0"),
    (&[("at_least = 1", "at_least = 1\nplain = true")], "`plain` was false and is true"),
    // What holds the log.
    (&[("sync = true", "sync = false")], "`sync` was true and is false"),
    (&[("auditor = \"age1auditor\"\n", "")], "`auditor` was \"age1auditor\" and is not set"),
    (&[("\"age1auditor\"", "\"age1eve\"")], "`auditor` was"),
    (&[("every = 100", "every = 1000")], "`checkpoints.every` was 100 and is 1000"),
    (&[("interval = \"1m\"", "interval = \"1h\"")], "`checkpoints.interval` was"),
    (&[("\"/audit\", account = \"111122223333\"", "\"/audit\"")], "`checkpoints.to` was"),
    (&[(", \"file:/mnt/checkpoints\"", "")], "`checkpoints.to` was"),
    (
        &[(
            "checkpoints = { every = 100, interval = \"1m\", to = [\"syslog\", \"file:/mnt/checkpoints\", { type = \"ssm\", name = \"/audit\", account = \"111122223333\" }] }\n",
            "",
        )],
        "`checkpoints` was",
    ),
    (
        &[("path = \"x.jsonl\"\nauditor = \"age1zzz\"", "path = \"x.jsonl, sealed for age1zzz\"")],
        "accesses are no longer written down in file \"x.jsonl\"",
    ),
    // The policy itself.
    (&[("serial = 9", "serial = 5")], "the serial was 9 and is 5: LOWER"),
    (&[("serial = 9\n", "")], "the serial was 9 and is 0: LOWER"),
    (&[("service = \"api\"\n", "")], "the service was \"api\" and is every service"),
];

#[test]
fn whatever_widens_a_policy_is_a_gain() {
    let pair = Pair::new();
    for (edits, words) in WIDENINGS {
        let told = pair.told(BASE, &edited(edits));
        let is_told = told.iter().any(|one| one.starts_with("gain: ") && one.contains(words));
        assert!(is_told, "{edits:?}\n{words}\n{told:#?}");
    }
}

/// What a file of recipients holds is compared, not only where it lies.
#[test]
fn a_line_more_in_a_file_of_recipients_is_a_gain() {
    let (pair, another) = (Pair::new(), recipient());
    let lines = format!("# both\n{}\n{another}\n", pair.reader);
    pair.scene.write("new/readers.txt", lines.as_bytes());
    let gain = format!("gain: recipient \"{another}\" can open what is written to store \"listed\"");
    assert_eq!(pair.told(BASE, BASE), [gain]);
    // To write it down in the policy is no gain, where the file had it.
    let listed = edited(&[("recipients_file = \"readers.txt\"", &format!("recipients = [\"{}\"]", pair.reader))]);
    pair.scene.write("new/readers.txt", pair.reader.as_bytes());
    let loss = "loss: store \"listed\": `recipients_file` was \"readers.txt\" and is not set";
    assert_eq!(pair.told(BASE, &listed), [loss]);
    // One that cannot be read is told as such.
    pair.scene.write("new/readers.txt", b"no recipient\n");
    let gain = "gain: each recipient of \"readers.txt\" can open what is written to store \"listed\"";
    assert_eq!(pair.told(BASE, BASE).first().map(String::as_str), Some(gain));
}

#[test]
fn what_has_no_effect_is_no_difference() {
    let pair = Pair::new();
    let grant = "[[grants]]\nsecrets = [\"A\", \"D\", \"E\", \"T\", \"F_*\"]\n";
    let to = "to = { users = [\"api\", \"worker\"], groups = [\"web\"], commands = [\"/bin/api\"] }\nclaimed = false\n";
    let split = format!(
        "{grant}to = {{ commands = [\"/bin/api\"], users = [\"api\"], groups = [\"web\"] }}\n\
         [[grants]]\nsecrets = [\"T\", \"E\", \"D\", \"A\", \"F_*\"]\nto = {{ users = [\"worker\"], groups = [\"web\"], commands = [\"/bin/api\"] }}\n"
    );
    let narrower = format!(
        "[[grants]]\nsecrets = [\"A\", \"F_X\"]\nto = {{ users = [\"api\"], groups = [\"web\"], commands = [\"/bin/api\"] }}\n{grant}"
    );
    let renamed = BASE.replace("[stores.files]", "[stores.vault]").replace("store = \"files\"", "store = \"vault\"");
    let swapped = BASE
        .replace("listed", "x")
        .replace("sealed", "listed")
        .replace("\"x\"", "\"sealed\"")
        .replace(".x]", ".sealed]");
    let rewrites: [String; 12] = [
        BASE.to_owned(),
        edited(&[(&format!("{grant}{to}"), &split)]),
        // A grant that another one takes in.
        edited(&[(grant, &narrower)]),
        edited(&[("[\"api\", \"worker\"]", "[\"worker\", \"api\", \"api\"]")]),
        renamed,
        swapped,
        // What is said anyhow.
        edited(&[("A = {}", "A = { required = true, inject = true, item = \"A\", store = \"files\" }")]),
        edited(&[("sync = true\n", "")]),
        edited(&[("plain = false, ", "")]),
        edited(&[("[\"syslog\", \"file:/mnt/checkpoints\",", "[\"file:/mnt/checkpoints\", \"syslog\",")]),
        edited(&[("A = {}\n", ""), ("LISTED = ", "A = {}\nLISTED = ")]),
        edited(&[("on_collision = \"error\"\n", "")]),
    ];
    for rewrite in rewrites {
        assert_eq!(pair.told(BASE, &rewrite), [] as [&str; 0], "{rewrite}");
    }
}

#[test]
fn an_entry_passes_for_no_two() {
    let pair = Pair::new();
    let sly = edited(&[(r#"commands = ["/bin/api"]"#, r#"commands = ["/bin/api\" or \"/bin/sh"]"#)]);
    let told = pair.told(BASE, &sly);
    assert!(told.iter().any(|one| one.contains(r#"command "/bin/api\" or \"/bin/sh" can"#)), "{told:#?}");
}

#[test]
fn a_serial_that_rises_is_told_and_widens_nothing() {
    let pair = Pair::new();
    assert_eq!(pair.told(BASE, &edited(&[("serial = 9", "serial = 10")])), ["change: the serial was 9 and is 10"]);
}

#[test]
fn a_base_is_compared_by_itself() {
    let pair = Pair::new();
    let base = "version = 1\nserial = 3\nenvironment = \"*\"\n[stores.s]\ntype = \"ssm\"\nprefix = \"/p/\"\n[secrets]\nA = {}\n\
        [[grants]]\nsecrets = [\"*\"]\nto = { users = [\"api\"] }\n[child]\naws_role = \"strip\"\n";
    assert_eq!(pair.told(base, base), [] as [&str; 0]);
    let wider = base.replace("strip", "pass").replace("serial = 3", "serial = 2").replace("A = {}", "A = {}\nB = {}");
    assert_eq!(
        pair.told(base, &wider),
        [
            "gain: [child] `aws_role` was \"strip\" and is \"pass\"",
            "gain: the serial of \"p.toml\" was 3 and is 2: LOWER, so this is an older one, or one that passes for it",
            "gain: user \"api\" can get \"B\", which is item \"/p/B\" of store \"s\"",
            "change: secret \"B\" is new",
        ]
    );
}
