//! A value is in the environment block of the child and nowhere else: not in any other system call, not on a standard
//! stream, not in any file, in no encoding, whatever goes wrong and whatever the environment asks libraries to log.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::harness::{Scene, VOUCHSAFE};
use crate::have;
use crate::sealed::Sealed;
use crate::strace::{Call, Traced, trace, vouchsafe};

/// Long enough to be nobody else's, and of the kinds that quoting and escaping treat differently.
const CANARIES: [(&str, &str); 4] = [
    ("PLAIN", "kanarienvogel7Qx93ZsP0"),
    ("QUOTED", "kana\"rien'vogel\\8Wm4\nzweite zeile\t$(id)"),
    ("UNICODE", "kanärien vögel/9+Lt=?&%"),
    ("URL", "postgres://u:kanarie5Vb2@h:5432/d?x=1"),
];

/// What a value looks like when it was put through something.
fn forms(value: &str) -> Vec<(String, Vec<u8>)> {
    let bytes = value.as_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let url: String = bytes
        .iter()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(*byte).to_string() } else { format!("%{byte:02X}") })
        .collect();
    let json = serde_json::to_string(value).unwrap();
    let mut forms = vec![
        ("raw".to_owned(), bytes.to_vec()),
        ("hex".to_owned(), hex.clone().into_bytes()),
        ("HEX".to_owned(), hex.to_uppercase().into_bytes()),
        ("url".to_owned(), url.clone().into_bytes()),
        ("url, lower case".to_owned(), url.to_lowercase().into_bytes()),
        ("JSON".to_owned(), json.trim_matches('"').as_bytes().to_vec()),
        ("Debug".to_owned(), format!("{value:?}").trim_matches('"').as_bytes().to_vec()),
    ];
    for shift in 0..3 {
        // What is left when the characters are cut off that the bytes before and after have a part in.
        let shifted = [&b"xyz"[..shift], bytes].concat();
        let whole = shifted.len() / 3 * 3;
        let text = STANDARD.encode(&shifted[..whole]);
        let text = &text[if shift == 0 { 0 } else { 4 }..];
        forms.push((format!("base64 + {shift}"), text.as_bytes().to_vec()));
        forms.push((format!("base64url + {shift}"), text.replace('+', "-").replace('/', "_").into_bytes()));
    }
    forms
}

/// Which canary, in which form, is in `haystack`.
fn found(haystack: &[u8]) -> Option<String> {
    CANARIES.iter().find_map(|(name, value)| {
        let form = forms(value).into_iter().find(|(_, form)| contains(haystack, form));
        form.map(|(form, _)| format!("{name} as {form}"))
    })
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    let (first, rest) = needle.split_first().unwrap();
    let mut at = haystack;
    while let Some(next) = at.iter().position(|byte| byte == first) {
        at = &at[next + 1..];
        if at.starts_with(rest) {
            return true;
        }
    }
    false
}

/// Every string of a call as strace writes it with `-xx`, one after the other.
fn strings(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('"') {
        rest = &rest[at + 1..];
        while let Some(escaped) = rest.strip_prefix("\\x") {
            out.push(u8::from_str_radix(&escaped[..2], 16).unwrap());
            rest = &escaped[2..];
        }
        rest = rest.strip_prefix('"').unwrap_or(rest);
        out.push(0);
    }
    out
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

/// Where a value may be in a trace: nowhere, in the read of its own input, or also in the block that is executed.
#[derive(Clone, Copy, PartialEq)]
enum Allowed {
    Nowhere,
    InItsInput,
    InTheBlock,
}

/// Runs it, expects the status, and looks everywhere.
fn search(scene: &Scene, what: &str, status: i32, may: Allowed, command: &[OsString], input: &[u8]) -> Traced {
    let traced = trace(scene, &["-v", "-xx", "-s", "400000"], command, input);
    let stderr = String::from_utf8_lossy(&traced.stderr).into_owned();
    assert_eq!(traced.status.code(), Some(status), "{what}: {stderr}");
    assert_eq!(found(&traced.stdout), None, "{what}: standard output");
    assert_eq!(found(&traced.stderr), None, "{what}: standard error\n{stderr}");
    let last_exec = traced.calls.iter().rposition(|call| call.name.starts_with("execve")).unwrap();
    assert!(last_exec > 0 || may != Allowed::InTheBlock, "{what}: nothing was executed");
    for (at, call) in traced.calls.iter().enumerate() {
        if may == Allowed::InItsInput && call.name == "read" {
            continue;
        }
        let text = if at == last_exec && may == Allowed::InTheBlock { before_environment(call) } else { &call.text };
        assert_eq!(found(&strings(text)), None, "{what}: {} (call {at})", call.name);
    }
    for file in files_below(&scene.path("")) {
        let is_input = file.file_name().is_some_and(|name| name == "input");
        let content = std::fs::read(&file).unwrap();
        assert!(is_input || found(&content).is_none(), "{what}: {} is in {}", found(&content).unwrap(), file.display());
        assert_eq!(found(file.to_string_lossy().as_bytes()), None, "{what}: the name of a file");
        for (name, value) in CANARIES {
            for digest in digests(value) {
                assert!(is_input || !contains(&content, digest.as_bytes()), "{what}: a digest of {name}");
            }
        }
    }
    traced
}

/// Path and arguments of an exec, without the environment: the second list.
fn before_environment(call: &Call) -> &str {
    call.text.split_once("], [").unwrap_or_else(|| panic!("strace -v shows both lists: {}", call.text)).0
}

fn digests(value: &str) -> [String; 3] {
    use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA512, digest};
    [&SHA1_FOR_LEGACY_USE_ONLY, &SHA256, &SHA512].map(|algorithm| {
        digest(algorithm, value.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    })
}

/// Asks every library that would listen to talk.
fn talkative(scene: Scene) -> Scene {
    ["RUST_LOG=trace", "LOG_SENSITIVE_BODIES=true", "RUST_BACKTRACE=full", "AWS_LOG_LEVEL=trace"]
        .iter()
        .map(|entry| entry.split_once('=').unwrap())
        .fold(scene, |scene, (name, value)| scene.variable(name, value))
}

fn flat(scene: &Scene) -> Vec<OsString> {
    let mut command: Vec<OsString> = vec![VOUCHSAFE.into()];
    command.extend(scene.run_arguments(&["/usr/bin/true"]));
    command
}

#[test]
fn the_search_finds_what_it_looks_for() {
    for (name, value) in CANARIES {
        for (form, bytes) in forms(value) {
            assert!(found(&bytes).is_some(), "{name} as {form}");
        }
        for prefix in ["", "a", "ab", "abc"] {
            let encoded = STANDARD.encode(format!("{prefix}{value}, and more"));
            assert!(found(encoded.as_bytes()).is_some(), "{name} within base64 after {prefix:?}");
        }
    }
    assert_eq!(strings(r#"write(3, "\x61\x62", 2) = 2"#), b"ab\0");
    assert_eq!(found(b"kanarienvogel7Qx93ZsP"), None);
}

#[test]
fn a_granted_run_shows_values_to_the_child_alone() {
    if !have(&["strace"], true) {
        return;
    }
    let scene = talkative(Scene::with(&CANARIES)).and("SHOUTED = { template = \"<{PLAIN}|{QUOTED:url}>\" }");
    let traced = search(&scene, "run", 0, Allowed::InTheBlock, &flat(&scene), b"");
    // The search looks where the values really are.
    let exec = traced.calls.iter().rfind(|call| call.name.starts_with("execve")).unwrap();
    let block = strings(exec.text.split_once("], [").unwrap().1);
    for (name, value) in CANARIES {
        assert!(contains(&block, format!("{name}={value}\0").as_bytes()), "{name} did not arrive");
    }
    let scene = scene.sinks("[[audit.sinks]]\ntype = \"stderr\"\n");
    let traced = search(&scene, "run, the log on standard error", 0, Allowed::InTheBlock, &flat(&scene), b"");
    assert!(String::from_utf8_lossy(&traced.stderr).contains("access.released"));
}

#[test]
fn a_run_that_fails_shows_no_value() {
    if !have(&["strace"], true) {
        return;
    }
    let store = |values: &[(&str, &str)]| {
        let scene = talkative(Scene::with(&CANARIES));
        scene.store(values);
        scene
    };
    let with = |name: &'static str, value: &str| {
        let scene = talkative(Scene::with(&CANARIES));
        let mut values: Vec<(&str, &str)> = CANARIES.to_vec();
        values.push((name, value));
        scene.store(&values);
        scene.and(&format!("{name} = {{}}"))
    };
    let all = || store(&CANARIES);
    let nowhere = |what: &str, status: i32, scene: &Scene| {
        search(scene, what, status, Allowed::Nowhere, &flat(scene), b"");
    };
    nowhere("denied", 120, &all().grants("[[grants]]\nsecrets = [\"PLAIN\"]\nto = \"anyone\"\n"));
    nowhere("missing", 122, &store(&CANARIES[1..]));
    nowhere("collision", 125, &all().variable("PLAIN", "inherited"));
    nowhere("NUL", 125, &with("NUL", "kanarienvogel7Qx93ZsP0\0kanarienvogel7Qx93ZsP0"));
    nowhere("too long", 125, &with("LONG", &("kanarienvogel7Qx93ZsP0".repeat(5957) + &"x".repeat(18))));
    nowhere("a function", 125, &with("FUNCTION", "() { kanarienvogel7Qx93ZsP0; }"));
    nowhere("a field of what is no JSON", 122, &all().and("FIELD = { item = \"QUOTED\", field = \"/x\" }"));
    nowhere(
        "a field of JSON that is not there",
        122,
        &with("OBJECT", r#"{"a":"kanarienvogel7Qx93ZsP0"}"#).and("FIELD = { item = \"OBJECT\", field = \"/b\" }"),
    );
    nowhere(
        "an audit that cannot be written",
        123,
        &all().sinks("[[audit.sinks]]\ntype = \"file\"\npath = \"/dev/full\"\n"),
    );

    let scene = all();
    scene.store_plaintext(br#"{"PLAIN": "kanarienvogel7Qx93ZsP0", "QUOTED": kanarienvogel7Qx93ZsP0}"#);
    nowhere("a store that is not JSON", 122, &scene);
    for (format, text) in [
        ("dotenv", "PLAIN='kanarienvogel7Qx93ZsP0\nkanarienvogel7Qx93ZsP0"),
        ("toml", "PLAIN = \"kanarienvogel7Qx93ZsP0\nQUOTED = kanarienvogel7Qx93ZsP0"),
        ("json", r#"{"PLAIN": ["kanarienvogel7Qx93ZsP0"]}"#),
        ("json", r#"{"PLAIN": "a", "PLAIN": "kanarienvogel7Qx93ZsP0"}"#),
        ("json", r#"{"kanarienvogel7Qx93ZsP0 kanarienvogel7Qx93ZsP0": {}}"#),
    ] {
        let scene = all();
        scene.store_plaintext(text.as_bytes());
        let command = flat(&scene);
        let policy = std::fs::read_to_string(scene.path("policy.toml")).unwrap();
        scene.write("policy.toml", policy.replace("\"json\"", &format!("\"{format}\"")).as_bytes());
        search(&scene, &format!("malformed {format}: {text}"), 122, Allowed::Nowhere, &command, b"");
    }

    // Executed in vain: the values are in the block of the exec that failed.
    let scene = all();
    let script = scene.write_mode("script", b"#!/no/such/interpreter\n", 0o755);
    let mut command = flat(&scene);
    *command.last_mut().unwrap() = script.into();
    let traced = search(&scene, "a failing exec", 126, Allowed::InTheBlock, &command, b"");
    assert!(!traced.calls.iter().rfind(|call| call.name.starts_with("execve")).unwrap().succeeded());
}

#[test]
fn a_damaged_or_foreign_store_shows_no_value() {
    if !have(&["strace"], true) {
        return;
    }
    let mut sealed = Sealed::with(&CANARIES);
    sealed.scene = talkative(sealed.scene);
    let run = Sealed::run_command(&["/usr/bin/true"]);
    let file = sealed.scene.path("store/store.age");
    let whole = std::fs::read(&file).unwrap();
    for at in [whole.len() / 4, whole.len() / 2, whole.len() - 60] {
        let mut damaged = whole.clone();
        damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
        sealed.scene.write("store/store.age", &damaged);
        search(&sealed.scene, "damaged", 122, Allowed::Nowhere, &run, b"");
        sealed.scene.write("store/store.age", &whole[..at]);
        search(&sealed.scene, "cut", 122, Allowed::Nowhere, &run, b"");
    }
    sealed.scene.write("store/store.age", &whole);
    let policy = std::fs::read_to_string(sealed.scene.path("policy.toml")).unwrap();
    sealed.scene.write("policy.toml", policy.replace("environment = \"test\"", "environment = \"other\"").as_bytes());
    search(&sealed.scene, "bound to another environment", 122, Allowed::Nowhere, &run, b"");
    let set = Sealed::set_command("PLAIN");
    search(&sealed.scene, "set into another environment's", 122, Allowed::InItsInput, &set, CANARIES[0].1.as_bytes());
    let other = Scene::new();
    let foreign = age::encrypt(&other.recipient().parse::<age::x25519::Recipient>().unwrap(), CANARIES[0].1.as_bytes());
    sealed.scene.write("store/store.age", &foreign.unwrap());
    search(&sealed.scene, "for someone else", 124, Allowed::Nowhere, &run, b"");
    search(&sealed.scene, "set where nothing opens", 124, Allowed::InItsInput, &set, CANARIES[0].1.as_bytes());
}

#[test]
fn what_looks_or_writes_shows_no_value() {
    if !have(&["strace"], true) {
        return;
    }
    let mut sealed = Sealed::with(&CANARIES);
    sealed.scene = talkative(sealed.scene);
    let policy = std::fs::read_to_string(sealed.scene.path("policy.toml")).unwrap();
    let there = policy.replace("store/store.age", "there/store.age");
    std::fs::create_dir(sealed.scene.path("there")).unwrap();
    sealed.scene.write("there.toml", there.as_bytes());
    sealed.scene.write("mistaken.toml", policy.replace("[secrets]", "[secrets]\nPLIAN = { itme = 1 }").as_bytes());
    let scene = &sealed.scene;
    let line = |text: &str| vouchsafe(&text.split_whitespace().collect::<Vec<_>>());
    for (text, status) in [
        ("list --policy policy.toml", 0),
        ("list --policy policy.toml --json", 0),
        ("list --policy policy.toml --file store/store.age", 0),
        ("history PLAIN --policy policy.toml", 0),
        ("history QUOTED --policy policy.toml --json", 0),
        ("check --policy policy.toml", 0),
        ("explain --policy policy.toml -- /usr/bin/true", 0),
        ("copy --from policy.toml --to there.toml PLAIN QUOTED UNICODE URL", 0),
        ("copy --from policy.toml --to there.toml PLAIN", 2),
        ("copy --from policy.toml --to there.toml PLAIN --overwrite", 0),
        ("list --policy mistaken.toml", 121),
        ("remove PLAIN --policy there.toml", 0),
        ("audit show log/audit.jsonl", 0),
        ("audit verify log/audit.jsonl", 0),
    ] {
        search(scene, text, status, Allowed::Nowhere, &line(text), b"");
    }
    for (name, value) in CANARIES {
        let text = format!("set {name} --policy policy.toml");
        search(scene, &text, 0, Allowed::InItsInput, &line(&text), value.as_bytes());
        scene.write_mode("input", value.as_bytes(), 0o600);
        let text = format!("set {name} --policy policy.toml --from-file input");
        search(scene, &text, 0, Allowed::InItsInput, &line(&text), b"");
    }
    for (text, input, status) in [
        ("set PLAIN --policy mistaken.toml", "kanarienvogel7Qx93ZsP0".to_owned(), 121),
        ("set NO_SUCH_NAME --policy policy.toml", "kanarienvogel7Qx93ZsP0".to_owned(), 2),
        ("set PLAIN --policy policy.toml", "kanarienvogel7Qx93ZsP0\0x".to_owned(), 2),
        ("set PLAIN --policy policy.toml", "kanarienvogel7Qx93ZsP0".repeat(6000), 2),
        ("set PLAIN --policy policy.toml --from-file no-such-file", String::new(), 2),
        ("set PLAIN --policy policy.toml --from-file store", String::new(), 2),
    ] {
        search(scene, text, status, Allowed::InItsInput, &line(text), input.as_bytes());
    }
}
