//! A value goes into the child's environment and into sealed files, and nowhere else: no stream, no log, no other file, in
//! no form, whether things go well or not.

use base64::Engine as _;

use crate::harness::{Outcome, Scene};

/// Quotes, a slash, a blank and a letter beyond ASCII, so that every escaped form differs from the plain one.
const CANARY: &str = "c4n\"ry/7b1f \u{e9}&k9";

/// The forms in which a value could turn up.
fn forms(value: &str) -> Vec<String> {
    let bytes = value.as_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let url = |keep: &str| -> String {
        let one = |byte: &u8| match char::from(*byte) {
            c if c.is_ascii_alphanumeric() || keep.contains(c) => c.to_string(),
            _ => format!("%{byte:02X}"),
        };
        bytes.iter().map(one).collect()
    };
    let json = serde_json::to_string(value).unwrap();
    let ascii: String = json
        .chars()
        .flat_map(|c| if c.is_ascii() { vec![c] } else { format!("\\u{:04x}", c as u32).chars().collect() })
        .collect();
    let mut forms = vec![
        value.to_owned(),
        hex.clone(),
        hex.to_uppercase(),
        url("-_.~"),
        url("-_.~/&\" "),
        json.trim_matches('"').to_owned(),
        ascii.trim_matches('"').to_owned(),
        value.escape_debug().to_string(),
        value.escape_default().to_string(),
        format!("{bytes:?}").trim_matches(['[', ']']).to_owned(),
        // The parts between what may be escaped in yet another way.
        "ry/7b1f".to_owned(),
    ];
    for engine in [&base64::engine::general_purpose::STANDARD_NO_PAD, &base64::engine::general_purpose::URL_SAFE_NO_PAD]
    {
        // As part of something longer, the value can begin at each of three places; the characters at its ends are shared
        // with its neighbours.
        for shift in 0..3 {
            let encoded = engine.encode([&vec![b'x'; shift], bytes].concat());
            forms.push(encoded[if shift == 0 { 0 } else { 4 }..encoded.len() - 2].to_owned());
        }
    }
    forms
}

fn contains(bytes: &[u8], part: &str) -> bool {
    bytes.windows(part.len()).any(|window| window == part.as_bytes())
}

/// Neither what was printed nor any file of the scene holds the canary in any form.
#[track_caller]
fn holds_nothing(scene: &Scene, outcome: &Outcome) {
    let forms = forms(CANARY);
    let check = |what: &str, bytes: &[u8]| {
        for form in &forms {
            assert!(!contains(bytes, form), "{what} holds `{form}`: {}", String::from_utf8_lossy(bytes));
        }
    };
    check("standard output", &outcome.stdout);
    check("standard error", &outcome.stderr);
    let mut folders = vec![scene.path("")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            check("a file's name", entry.file_name().as_encoded_bytes());
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if entry.file_type().unwrap().is_file() {
                check(&entry.path().display().to_string(), &std::fs::read(entry.path()).unwrap());
            }
        }
    }
}

#[test]
fn the_forms_are_found_where_they_are() {
    for (index, form) in forms(CANARY).iter().enumerate() {
        assert!(contains(format!("before{form}after").as_bytes(), form), "{index}");
    }
    for shift in ["", "x", "xy", "xyz"] {
        let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{shift}{CANARY}tail"));
        assert!(forms(CANARY).iter().any(|form| encoded.contains(form.as_str())), "{shift}: {encoded}");
    }
    let scene = Scene::with(&[("A", CANARY)]);
    let outcome = scene.run(&["printenv", "A"]).expect_status(0);
    assert!(std::panic::catch_unwind(|| holds_nothing(&scene, &outcome)).is_err(), "the child's own output is seen");
}

#[test]
fn commands_that_succeed() {
    let scene = Scene::sealed(&["A", "B"])
        .and("URL = { template = \"x://{A:url}@{B}\" }\nAGED = { item = \"A\", max_age = \"1d\" }\nROTATED = { item = \"A\", rotate = {} }");
    let text = std::fs::read_to_string(scene.write_policy()).unwrap();
    let text = text.replace("environment = \"test\"", "environment = \"prod\"").replace("sealed.age", "prod.age");
    scene.write("prod.toml", text.as_bytes());
    let done = |outcome: Outcome| holds_nothing(&scene, &outcome.expect_status(0));
    for name in ["A", "B", "A"] {
        done(scene.verb_reading(&["set", name], format!("{CANARY}\n").as_bytes()));
    }
    for words in [
        &["run", "--", "true"][..],
        &["list"],
        &["list", "--json"],
        &["list", "--file", "sealed.age"],
        &["check"],
        &["check", "--json"],
        &["history", "A"],
        &["history", "A", "--json"],
        &["explain", "--", "true"],
        &["explain", "--json"],
        &["rekey", "--dry-run"],
        &["rekey"],
        &["rekey", "--json"],
    ] {
        done(scene.verb(words));
    }
    done(scene.vouchsafe(&["copy", "--from", "policy.toml", "--to", "prod.toml", "A", "B"]));
    for words in [
        &["rotate", "ROTATED", "--dry-run"][..],
        &["rotate", "ROTATED", "--json"],
        &["rotate", "--rollback", "ROTATED"],
        &["rotate", "--only-step", "create", "ROTATED"],
        &["rotate", "--rollback", "ROTATED"],
        &["rotate", "--due"],
        &["rotate", "--all"],
    ] {
        done(scene.verb(words));
    }
    done(scene.vouchsafe(&["list", "--file", "sealed.age"]));
    done(scene.vouchsafe(&["audit", "show", "audit.jsonl"]));
    done(scene.vouchsafe(&["audit", "show", "--json", "audit.jsonl"]));
    done(scene.vouchsafe(&["audit", "verify", "--json", "audit.jsonl"]));
    done(scene.verb(&["remove", "B"]));
}

#[test]
fn writes_that_fail() {
    let scene = Scene::sealed(&["A"]).and("FIXED = { version = 1 }");
    let nul = format!("{CANARY}\0{CANARY}");
    let long = CANARY.repeat(10_000);
    for (words, input, status) in [
        (&["set", "A"][..], nul.as_str(), 2),
        (&["set", "A"], &long, 2),
        (&["set", "FIXED"], CANARY, 2),
        (&["set", "NO"], CANARY, 2),
        (&["set", CANARY], CANARY, 2),
        (&["set", "A", CANARY], CANARY, 2),
        (&["set", "A", "--generate", "--keep-newline"], CANARY, 2),
    ] {
        let mut outcome = scene.verb_reading(words, input.as_bytes()).expect_status(status);
        outcome.arguments.clear();
        holds_nothing(&scene, &outcome);
    }
    for sinks in ["", "[[audit.sinks]]\ntype = \"fd\"\nfd = 9\n"] {
        let scene = Scene::sealed(&["A"]).sinks(sinks);
        holds_nothing(&scene, &scene.verb_reading(&["set", "A"], CANARY.as_bytes()).expect_status(123));
    }
    std::fs::remove_file(scene.path("identity.key")).unwrap();
    holds_nothing(&scene, &scene.verb_reading(&["set", "A"], CANARY.as_bytes()).expect_status(124));
}

#[test]
fn runs_that_fail() {
    let json = serde_json::json!({ "a": CANARY, "b": [CANARY] }).to_string();
    let values = [
        ("A", CANARY),
        ("B", json.as_str()),
        ("NUL", &format!("{CANARY}\0")),
        ("FUNCTION", &format!("() {{ {CANARY}")),
    ];
    let run = |secrets: &str, more: &str, words: &[&str], status: i32| {
        let scene = Scene::with(&values).policy(&format!("[secrets]\n{secrets}\n{more}\n"));
        holds_nothing(&scene, &scene.verb(words).expect_status(status));
    };
    let command = ["run", "--", "true"];
    run("A = {}\nGONE = {}", "", &command, 122);
    run("NUL = {}", "", &command, 125);
    run("FUNCTION = {}", "", &command, 125);
    run("A = { field = \"/x\" }", "", &command, 122);
    run("B = { field = \"/b\" }", "", &command, 122);
    run("B = { field = \"/a/c\" }", "", &command, 122);
    run("A = { version = 3 }", "", &command, 121);
    run("A = {}\nGONE = {}", "[run]\nmode = \"supervise\"", &command, 122);
    run("A = {}", "", &["run", "--only", "B", "--", "true"], 120);
    let script = Scene::with(&[("A", CANARY)]);
    script.write_mode("script", b"#!/no/such/interpreter\n", 0o755);
    holds_nothing(&script, &script.run(&["./script"]).expect_status(126));
    let collision = Scene::with(&[("A", CANARY)]).variable("A", CANARY);
    holds_nothing(&collision, &collision.run(&["true"]).expect_status(125));
    holds_nothing(&collision, &collision.verb(&["explain", "--", "true"]).expect_status(0));
    let large: Vec<(String, String)> = (0..80).map(|n| (format!("S{n}"), CANARY.repeat(6_000))).collect();
    let large: Vec<(&str, &str)> = large.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let large = Scene::with(&large);
    holds_nothing(&large, &large.run(&["true"]).expect_status(125));
}

#[test]
fn stores_and_identities_that_are_broken_show_no_line_of_theirs() {
    let commands: [&[&str]; 4] = [&["run", "--", "true"], &["list"], &["check"], &["list", "--json"]];
    for text in [
        format!("{{\"A\": {CANARY}"),
        format!("{{\"{CANARY}\": 1.5}}"),
        format!("{{\"A\": \"{}\", \"A\": 2}}", CANARY.replace('"', "")),
        format!("A={CANARY}"),
    ] {
        let scene = Scene::with(&[("A", "x")]);
        scene.store_plaintext(text.as_bytes());
        for words in commands {
            holds_nothing(&scene, &scene.verb(words).expect_status(122));
        }
        for format in ["dotenv", "toml"] {
            let policy = std::fs::read_to_string(scene.write_policy()).unwrap();
            let policy = policy.replace("format = \"json\"", &format!("format = \"{format}\""));
            let path = scene.write("other.toml", policy.as_bytes());
            let outcome = scene.vouchsafe(&["run", "--policy", path.to_str().unwrap(), "--", "true"]);
            holds_nothing(&scene, &outcome);
        }
    }
    // An identity file with somebody's password in it: neither shown nor written down.
    let scene = Scene::with(&[("A", "x")]);
    std::fs::create_dir(scene.path("elsewhere")).unwrap();
    scene.write_mode("identity.key", CANARY.as_bytes(), 0o600);
    for words in commands {
        let outcome = scene.verb(words).expect_status(124);
        let shown = format!("{}{}", outcome.transcript(), std::fs::read_to_string(scene.path("audit.jsonl")).unwrap());
        assert!(!forms(CANARY).iter().any(|form| shown.contains(form.as_str())), "{shown}");
    }
}
