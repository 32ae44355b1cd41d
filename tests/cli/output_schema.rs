//! What `--json` prints is what `docs/spec/output.schema.json` says, and that file is what the types say.

use serde_json::Value;

use crate::harness::{Outcome, Scene};
use crate::rekey::Team;
use crate::rotate::rotating;
use crate::transcripts::lived_in;

fn committed() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/spec/output.schema.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap_or_default()).unwrap_or_default()
}

#[test]
fn the_committed_schema_is_what_the_types_say() {
    let schema = vouchsafe::schema::output_schema();
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/spec/output.schema.json");
        std::fs::write(path, serde_json::to_string_pretty(&schema).unwrap() + "\n").unwrap();
    }
    assert_eq!(committed(), schema, "UPDATE_SCHEMA=1 cargo test --test cli output_schema writes it");
}

#[track_caller]
pub fn conforms(command: &str, outcome: &Outcome) {
    let mut schema = committed();
    // Nothing unknown may be printed here, though later versions may add fields.
    for (_, definition) in schema["$defs"].as_object_mut().unwrap() {
        if definition["type"] == "object" {
            definition["additionalProperties"] = false.into();
        }
    }
    schema["$ref"] = format!("#/$defs/{command}").into();
    let lines: Vec<&str> = outcome.out().lines().collect();
    let is_one = lines.len() == 1 || (command == "rotate" && lines.len() > 1);
    assert!(is_one, "one object on one line: {}", outcome.transcript());
    let validator = jsonschema::validator_for(&schema).unwrap();
    for line in lines {
        let value: Value = serde_json::from_str(line).unwrap();
        let errors: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{command}: {errors:?} in {value}");
    }
}

#[test]
fn what_is_printed_conforms() {
    let scene = lived_in().and("GONE = { max_age = \"1d\" }\nMADE = { template = \"{TOKEN}\" }");
    let denied = Scene::with(&[("A", "1")]).grants("").variable("A", "x").variable("VOUCHSAFE_ENV", "test");
    conforms("list", &scene.verb(&["list", "--json"]).expect_status(0));
    conforms("check", &scene.verb(&["check", "--json"]).expect_status(10));
    conforms("check", &scene.verb(&["check", "--json", "--offline"]).expect_status(0));
    conforms("history", &scene.verb(&["history", "TOKEN", "--json"]).expect_status(0));
    conforms("explain", &scene.verb(&["explain", "--json", "--", "true"]).expect_status(0));
    conforms("explain", &denied.verb(&["explain", "--json"]).expect_status(0));
    let team = Team::new().named(false);
    conforms("rekey", &team.compromised(&["--json", "--dry-run"]).expect_status(10));
    conforms("rekey", &team.compromised(&["--json"]).expect_status(10));
    conforms("list", &team.scene.verb(&["list", "--json"]).expect_status(0));
    team.scene.write("sealed.age", b"damaged");
    conforms("rekey", &team.scene.verb(&["rekey", "--json"]).expect_status(122));
    conforms("audit-verify", &scene.vouchsafe(&["audit", "verify", "--json", "audit.jsonl"]).expect_status(0));
    let got = lived_in();
    got.run(&["true"]).expect_status(0);
    let report = ["audit", "report", "--principal", "0", "--since", "1h", "--json"];
    conforms("audit-report", &got.verb(&report).expect_status(0));
    conforms("audit-who-has", &got.verb(&["audit", "who-has", "TOKEN", "--json"]).expect_status(0));
    conforms("audit-who-has", &got.verb(&["audit", "who-has", "TOKEN", "--stale", "--json"]).expect_status(0));
    let log = std::fs::read_to_string(got.path("audit.jsonl")).unwrap();
    scene.write("bad.jsonl", log.split_inclusive('\n').skip(1).collect::<String>().as_bytes());
    conforms("audit-verify", &scene.vouchsafe(&["audit", "verify", "--json", "bad.jsonl"]));
    let rotating = rotating();
    conforms("rotate", &rotating.verb(&["rotate", "--all", "--json", "--dry-run"]).expect_status(0));
    conforms("rotate", &rotating.verb(&["rotate", "--all", "--json"]).expect_status(0));
}

/// The test above must be able to fail.
#[test]
#[should_panic(expected = "list: ")]
fn another_commands_output_does_not_conform() {
    conforms("list", &lived_in().verb(&["history", "TOKEN", "--json"]).expect_status(0));
}
