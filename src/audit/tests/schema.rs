//! What is written fits the committed schema, and the request lists what the policy says.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::policy::eval::{Caller, Request, Verdict, evaluate};
use crate::policy::model::*;
use crate::policy::pattern::Pattern;
use crate::policy::template::Template;

const SCHEMA: &str = include_str!("../../../docs/spec/audit-record.schema.json");
const SPEC: &str = include_str!("../../../docs/spec/audit-record.md");

#[track_caller]
fn assert_fits(lines: &[String]) {
    let schema = serde_json::from_str(SCHEMA).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    assert!(!lines.is_empty());
    for line in lines {
        let value = serde_json::from_str(line).unwrap();
        let wrong: Vec<_> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{wrong:?}\n{line}");
    }
}

fn text_lines(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect()
}

#[test]
fn every_event_fits_the_schema_and_is_in_the_spec() {
    let folder = Folder::new();
    let mut auditor = folder.auditor();
    let own = [Event::Quarantined, Event::Discontinuity, Event::SealingBegun, Event::ChildExited];
    for event in Event::ALL.iter().filter(|event| !own.contains(event)) {
        auditor.note_request_ids(["0b7c".to_owned()]);
        auditor.record(*event, Outcome::Succeeded, Some("why"), &[note("A")]).unwrap();
    }
    for outcome in Outcome::ALL {
        auditor.record(Event::AccessFailed, *outcome, None, &[]).unwrap();
    }
    for end in [End::Status(0), End::Status(255), End::Signal(9)] {
        auditor.child_exited(7, end).unwrap();
    }
    // One of each of the sink's own.
    let mut log = read(&folder.log());
    log.extend_from_slice(b"torn");
    put(&folder.log(), &log);
    std::fs::remove_file(folder.0.join("audit.jsonl.head")).unwrap();
    sealing::begin(&folder);
    write(&mut folder.auditor(), 1);
    let lines = lines(&folder.log());
    assert_fits(&lines.into_iter().filter(|line| line != "torn").collect::<Vec<_>>());
    assert_fits(&text_lines(&stream::written(1, 200)));
    for word in Event::ALL.iter().map(|event| event.word()).chain(Outcome::ALL.iter().map(|outcome| outcome.word())) {
        assert!(SPEC.contains(&format!("`{word}`")), "{word} is not in the spec");
        assert!(SCHEMA.contains(&format!("\"{word}\"")), "{word} is not in the schema");
    }
}

#[test]
fn the_worked_example_of_the_spec_is_true() {
    let example = SPEC.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    assert_fits(&text_lines(example.as_bytes()));
    let report = verify_bytes(example.as_bytes(), Start::Beginning);
    assert_eq!((report.state(), report.records), (State::Intact, 2), "{:?}", report.findings);
}

#[test]
fn a_request_lists_what_was_asked_for_before_anything_is_fetched() {
    let policy = policy();
    let request = Request { caller: Caller { uid: 7, ..Caller::default() }, command: None, only: None, claimed: false };
    let Verdict::Granted(grant) = evaluate(&policy, &request) else { panic!("denied") };
    let folder = Folder::new();
    let permit = folder.auditor().request(grant).unwrap();
    assert_eq!(permit.grant().names().len(), 3);
    let lines = lines(&folder.log());
    assert_fits(&lines);
    let value: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(value["event"], "access.requested");
    assert_eq!(value["grants"], serde_json::json!(["api.toml:12"]));
    assert_eq!(
        value["secrets"],
        serde_json::json!([
            { "name": "A", "store": "params", "item": "/prod/a", "stage": "current" },
            { "name": "INLINE", "store": "sealed", "inline": true },
            { "name": "URL", "template": ["USER"] },
            { "name": "USER", "store": "params", "item": "/prod/user", "inject": false, "version": 4 },
            { "store": "params", "bundle": "/prod/features/", "recursive": true },
        ])
    );
}

fn policy() -> Policy {
    let name = |text| VariableName::new(text).unwrap();
    let store = |text| StoreName::new(text).unwrap();
    let binding = |source, inject| Binding {
        source,
        inject,
        required: true,
        reserved: false,
        plain: false,
        max_age: None,
        on_expired: OnExpired::Warn,
        rotate: None,
    };
    let item = |text, version, stage| {
        let item = ItemName::new(text).unwrap();
        Source::Item(ItemRef { store: store("params"), item, version, stage, field: None })
    };
    let ciphertext = Source::Ciphertext {
        store: store("sealed"),
        ciphertext: b"not to be seen".to_vec(),
        context: BTreeMap::new(),
        field: None,
    };
    Policy {
        serials: Vec::new(),
        environment: EnvironmentName::new("prod").unwrap(),
        service: None,
        files: Vec::new(),
        digest: "ab".repeat(32),
        stores: BTreeMap::new(),
        secrets: BTreeMap::from([
            (name("A"), binding(item("/prod/a", None, Some(Stage::Current)), true)),
            (name("INLINE"), binding(ciphertext, true)),
            (name("URL"), binding(Source::Template(Template::parse("https://{USER:url}@host").unwrap()), true)),
            (name("USER"), binding(item("/prod/user", Some(4), None), false)),
        ]),
        bundles: vec![Bundle {
            store: store("params"),
            path: "/prod/features/".into(),
            recursive: true,
            names: NameStyle::UpperSnake,
            at_least: 1,
            plain: false,
        }],
        grants: vec![GrantRule {
            secrets: vec![Pattern::new("*").unwrap()],
            to: Audience::Anyone,
            claimed: false,
            place: "api.toml:12".into(),
        }],
        child: ChildRules {
            inherit: Inherit::All,
            set: BTreeMap::new(),
            aws_role: AwsRole::Pass,
            on_collision: OnCollision::Error,
        },
        run: RunRules {
            agent: AgentUse::Allow,
            mode: RunMode::Exec,
            deadline: Duration::from_secs(20),
            on_change: OnChange::Ignore,
            on_crash: OnCrash::Again,
            watch: None,
            grace: Duration::from_secs(10),
        },
        cache: CacheRules { ttl: Duration::from_secs(300), max_stale: Duration::ZERO },
        sinks: Vec::new(),
    }
}
