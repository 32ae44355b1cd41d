//! Reading parameters: batches, selectors, absence, denial, pages (AWS-1 to AWS-5), and what a run without AWS does not do.

use std::time::Duration;

use serde_json::{Value, json};
use vouchsafe::name::ItemName;
use vouchsafe::store::stages::{StagedItem, Stages};

use super::fake::fault::{Action, Fault};
use super::fake::ssm::arn_of;
use super::rotator::{Rotator, author, done, secret};
use super::scene::{AwsScene, canary, numbers};
use crate::have;

#[test]
fn names_go_in_batches_of_ten_each_once_and_four_at_a_time() {
    for count in [1, 10, 11, 25, 100] {
        let scene = AwsScene::numbered(count);
        scene.fake.world().latency = Duration::from_millis(30);
        // The order of the reply is the service's own.
        scene.fake.fault(Fault::on(
            "GetParameters",
            Action::Rewrite(Box::new(|body| {
                body["Parameters"].as_array_mut().unwrap().reverse();
            })),
        ));
        let environment = scene.environment();
        for name in numbers(count) {
            assert_eq!(environment.get(&name), Some(&canary(&name)), "{name} of {count}");
        }
        let calls = scene.fake.calls("GetParameters");
        assert_eq!(calls.len(), count.div_ceil(10), "{count}");
        assert_eq!(scene.fake.records().len(), calls.len(), "{count}: other calls");
        let mut asked: Vec<_> = calls.iter().flat_map(super::fake::Record::names).collect();
        asked.sort();
        let wanted: Vec<_> = numbers(count).iter().map(|name| format!("/test/api/{name}")).collect();
        assert_eq!(asked, wanted);
        assert!(calls.iter().all(|call| call.body["WithDecryption"] == json!(true)));
        let most = calls.iter().map(|call| call.in_flight).max().unwrap();
        assert!(most <= 4 && (count < 25 || most >= 2), "{count} names: {most} in flight");
    }
}

#[test]
fn one_parameter_under_many_selectors_and_names() {
    let arn = arn_of("/test/api/db");
    let scene = AwsScene::new().secrets(&format!(
        "[secrets]\nLATEST = {{ item = \"db\" }}\nAGAIN = {{ item = \"db\" }}\nABSOLUTE = {{ item = \"/test/api/db\" }}\n\
         FIRST = {{ item = \"db\", version = 1 }}\nCURRENT = {{ item = \"db\", stage = \"current\" }}\n\
         PREVIOUS = {{ item = \"db\", stage = \"previous\" }}\nARN = {{ item = \"{arn}\" }}\n\
         ARN_1 = {{ item = \"{arn}\", version = 1 }}\nOTHER = {{ item = \"/shared/other\" }}\n"
    ));
    for value in ["one", "two", "three"] {
        scene.fake.secure("/test/api/db", value);
    }
    scene.fake.secure("/shared/other", "shared");
    scene.fake.world().ssm.seed_label("/test/api/db", 2, "vouchsafe-current");
    scene.fake.world().ssm.seed_label("/test/api/db", 1, "vouchsafe-previous");
    let environment = scene.environment();
    for (name, value) in [
        ("LATEST", "three"),
        ("AGAIN", "three"),
        ("ABSOLUTE", "three"),
        ("FIRST", "one"),
        ("CURRENT", "two"),
        ("PREVIOUS", "one"),
        ("ARN", "three"),
        ("ARN_1", "one"),
        ("OTHER", "shared"),
    ] {
        assert_eq!(environment.get(name).map(String::as_str), Some(value), "{name}");
    }
    let asked: Vec<_> = scene.fake.calls("GetParameters").iter().flat_map(super::fake::Record::names).collect();
    let unique: std::collections::BTreeSet<_> = asked.iter().collect();
    assert_eq!(unique.len(), asked.len(), "{asked:?}");
}

#[test]
fn a_stage_that_is_labelled_nowhere_is_the_latest_only_without_any_label() {
    let binding = "[secrets]\nDB = { stage = \"current\" }\n";
    let scene = AwsScene::new().secrets(binding);
    scene.fake.secure("/test/api/DB", "one").secure("/test/api/DB", "two");
    assert_eq!(scene.environment()["DB"], "two");
    // Pending alone: the first rotation is under way, and was not begun by us. Nobody gets the pending value.
    scene.fake.world().ssm.seed_label("/test/api/DB", 2, "vouchsafe-pending");
    let outcome = scene.fails().expect_status(122);
    assert!(outcome.err().contains("DB"), "{}", outcome.transcript());
    scene.fake.world().ssm.seed_label("/test/api/DB", 1, "vouchsafe-current");
    assert_eq!(scene.environment()["DB"], "one");
}

#[test]
fn a_list_tells_of_pending_versions_and_needs_no_right_to_those_that_lie_apart() {
    let scene = AwsScene::new().secrets(
        "[secrets]\nA = { rotate = {} }\nB = { rotate = {} }\nC = { rotate = { pending = \"separate\" } }\n\
         D = { rotate = { pending = \"separate\" } }\n",
    );
    for name in ["A", "B", "C", "D"] {
        scene.fake.secure(&format!("/test/api/{name}"), "one").secure(&format!("/test/api/{name}"), "two");
    }
    for name in ["A", "B"] {
        scene.fake.world().ssm.seed_label(&format!("/test/api/{name}"), 1, "vouchsafe-current");
    }
    scene.fake.world().ssm.seed_label("/test/api/A", 2, "vouchsafe-pending");
    // Promoted, and the label was left.
    scene.fake.world().ssm.seed_label("/test/api/B", 1, "vouchsafe-pending");
    let (rotator, apart) = (Rotator::new(&scene.fake), |name: &str| StagedItem {
        item: ItemName::new(format!("/test/api/{name}")).unwrap(),
        pending_separate: true,
    });
    let canary = secret("canary of what is pending");
    rotator.holding(|store| {
        for name in ["C", "D"] {
            done(store.stage_pending(&apart(name), &canary, &author(), rotator.deadline()));
        }
        done(store.promote(&apart("D"), 1, &author(), rotator.deadline()));
    });
    scene.fake.forget();
    let pending = || {
        let outcome = scene.vouchsafe(&["list", "--json"]).expect_status(0);
        scene.says_nothing(&outcome);
        assert!(!outcome.out().contains("canary"));
        let listing: Value = serde_json::from_str(outcome.out()).unwrap();
        let one = |entry: &Value| format!("{} {}", entry["name"].as_str().unwrap(), entry["pending"]["version"]);
        listing["secrets"].as_array().unwrap().iter().map(one).collect::<Vec<_>>()
    };
    assert_eq!(pending(), ["A 2", "B null", "C 1", "D null"]);
    assert_eq!(scene.fake.count("GetParameters"), 2, "current ones, pending ones");
    assert_eq!(scene.fake.count("GetParameterHistory"), 4, "two for each whose pending version lies apart");
    for name in ["C", "D"] {
        scene.fake.world().denied.insert(format!("/test/api/{name}.pending"));
    }
    assert_eq!(pending(), ["A 2", "B null", "C null", "D null"]);
}

#[test]
fn absent_names_are_all_named_and_excused_only_where_the_policy_says() {
    let mut scene = AwsScene::numbered(12);
    scene.secrets.push_str("GONE_1 = {}\nGONE_2 = {}\nGONE_3 = { version = 7 }\nMAY_BE = { required = false }\n");
    scene.fake.secure("/test/api/GONE_3", "v");
    let outcome = scene.fails().expect_status(122);
    for name in ["GONE_1", "GONE_2", "GONE_3"] {
        assert!(outcome.err().contains(name), "{}", outcome.transcript());
    }
    assert!(!outcome.err().contains("MAY_BE") && !outcome.err().contains("S003"), "{}", outcome.transcript());
    for name in ["GONE_1", "GONE_2"] {
        scene.fake.secure(&format!("/test/api/{name}"), "v");
    }
    scene.secrets = scene.secrets.replace("{ version = 7 }", "{}");
    let environment = scene.environment();
    assert!(environment.contains_key("GONE_1") && !environment.contains_key("MAY_BE"));
}

#[test]
fn one_denied_name_of_25_is_named_and_nothing_starts() {
    for denied in ["S000", "S017", "S024"] {
        let mut scene = AwsScene::numbered(25);
        scene.secrets =
            scene.secrets.replace(&format!("{denied} = {{}}"), &format!("{denied} = {{ required = false }}"));
        scene.fake.world().denied.insert(format!("/test/api/{denied}"));
        let outcome = scene.fails();
        assert!(outcome.err().contains(denied), "{}", outcome.transcript());
        assert!(outcome.err().contains("ssm:GetParameters"), "the missing right: {}", outcome.transcript());
        let others = numbers(25).into_iter().filter(|name| name != denied && outcome.err().contains(name.as_str()));
        assert_eq!(others.count(), 0, "{}", outcome.transcript());
        // Never retried for its own sake: 3 batches, and the names of one of them alone.
        assert!(scene.fake.count("GetParameters") <= 13, "{}", scene.fake.count("GetParameters"));
    }
    // Everything is denied: the first of them is enough to know.
    let scene = AwsScene::numbered(25);
    scene.fake.world().denied_operations.insert("GetParameters".into());
    let outcome = scene.fails();
    assert!(outcome.err().contains("ssm:GetParameters"), "{}", outcome.transcript());
}

#[test]
fn what_is_absent_is_absent_in_the_pinned_account() {
    // Nothing comes back that could name the account, so it is asked for.
    let bundle = "[secrets]\n[[bundles]]\npath = \"f/\"\nat_least = 0\n";
    for secrets in ["[secrets]\nA = { required = false }\n", "[secrets]\nA = {}\n", bundle] {
        let scene = AwsScene::new().secrets(secrets).stores("account = \"999999999999\"\n");
        let outcome = scene.fails().expect_status(122);
        assert!(outcome.err().contains("999999999999"), "{}", outcome.transcript());
    }
    let scene = AwsScene::new().secrets("[secrets]\nA = { required = false }\n");
    let scene = scene.stores("account = \"111122223333\"\n");
    scene.run(&["true"]).expect_status(0);
    assert_eq!(scene.fake.count("GetCallerIdentity"), 1);
}

const BUNDLE: &str = "[secrets]\n[[bundles]]\npath = \"f/\"\n";

#[test]
fn pages_may_be_empty_full_or_last_with_a_token() {
    for pages in [vec![10, 0, 3], vec![0, 0, 10, 3, 0], vec![10, 10], vec![1; 13], vec![]] {
        let scene = AwsScene::new().secrets(BUNDLE);
        for number in 0..13 {
            scene.fake.secure(&format!("/test/api/f/n{number}"), &canary(&number.to_string()));
        }
        scene.fake.world().ssm.pages.clone_from(&pages);
        let environment = scene.environment();
        for number in 0..13 {
            assert_eq!(environment.get(&format!("N{number}")), Some(&canary(&number.to_string())), "{pages:?}");
        }
    }
}

#[test]
fn a_token_that_repeats_or_is_not_taken_back_ends_the_run() {
    let endless =
        || Fault::on("GetParametersByPath", Action::Rewrite(Box::new(|body| body["NextToken"] = "again".into())));
    let scene = AwsScene::new().secrets(BUNDLE).deadline("10s");
    scene.fake.secure("/test/api/f/a", &canary("a"));
    // The fake would refuse `again`; here it never looks at it.
    scene.fake.fault(Fault::on(
        "GetParametersByPath",
        Action::Body(json!({ "Parameters": [], "NextToken": "again" }).to_string().into_bytes()),
    ));
    scene.fails().expect_status(122);
    let calls = scene.fake.count("GetParametersByPath");
    assert!((2..=3).contains(&calls), "{calls} calls for a token that repeats");
    scene.fake.forget().fault(endless().times(1));
    scene.fails().expect_status(122);
    assert_eq!(scene.fake.count("GetParametersByPath"), 2, "InvalidNextToken is not worth a repetition");
}

#[test]
fn what_lies_outside_the_path_is_dropped() {
    let entry = |name: &str, arn: &str| json!({ "Name": name, "Value": canary(name), "Type": "SecureString", "Version": 1, "ARN": arn_of(arn) });
    let body = json!({ "Parameters": [
        entry("/test/api/f/good", "/test/api/f/good"),
        entry("/test/api/f/../evil_up", "/test/api/evil_up"),
        entry("/test/api/f-other/evil_sibling", "/test/api/f-other/evil_sibling"),
        entry("/test/api/f/deep/evil_deep", "/test/api/f/deep/evil_deep"),
        entry("/test/api/f//evil_double", "/test/api/f//evil_double"),
        entry("/test/evil_above", "/test/evil_above"),
        entry("evil_bare", "evil_bare"),
        entry("/test/api/F/evil_case", "/test/api/F/evil_case"),
    ] });
    for recursive in [false, true] {
        let scene = AwsScene::new().secrets(&format!("{BUNDLE}recursive = {recursive}\n"));
        scene.fake.fault(Fault::on("GetParametersByPath", Action::Body(body.to_string().into_bytes())));
        let environment = scene.environment();
        assert_eq!(environment.get("GOOD"), Some(&canary("/test/api/f/good")));
        let evil: Vec<_> = environment.keys().filter(|name| name.contains("EVIL")).collect();
        let wanted: &[&str] = if recursive { &["DEEP_EVIL_DEEP"] } else { &[] };
        assert_eq!(evil, wanted, "recursive: {recursive}");
        assert_eq!(scene.fake.calls("GetParametersByPath")[0].body["Recursive"].as_bool().unwrap_or(false), recursive);
    }
}

#[test]
fn an_empty_bundle_is_an_error_unless_it_may_be() {
    let scene = AwsScene::new().secrets(BUNDLE);
    scene.fails().expect_status(122);
    let scene = AwsScene::new().secrets(&format!("{BUNDLE}at_least = 0\n"));
    scene.run(&["true"]).expect_status(0);
}

#[test]
fn an_unencrypted_parameter_is_refused_unless_that_is_meant() {
    let mut scene = AwsScene::new().secrets("[secrets]\nA = {}\n");
    scene.fake.world().ssm.seed("/test/api/A", &canary("A"), "String");
    let outcome = scene.fails().expect_status(122);
    assert!(outcome.err().contains("plain = true"), "{}", outcome.transcript());
    scene.secrets = "[secrets]\nA = { plain = true }\n".into();
    assert_eq!(scene.environment()["A"], canary("A"));
}

#[test]
fn an_answer_that_no_honest_service_gives_starts_nothing() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 9] = [
        ("no value", |one| one["Value"] = Value::Null),
        ("another name", |one| one["Name"] = "/test/api/OTHER".into()),
        ("no name", |one| one["Name"] = Value::Null),
        ("a String", |one| one["Type"] = "String".into()),
        ("an unknown type", |one| one["Type"] = "Strange".into()),
        ("another account", |one| one["ARN"] = "arn:aws:ssm:eu-west-1:999999999999:parameter/test/api/A".into()),
        ("no account", |one| one["ARN"] = Value::Null),
        ("a negative version", |one| one["Version"] = (-1).into()),
        ("a number for a value", |one| one["Value"] = 7.into()),
    ];
    for (what, change) in cases {
        let scene = AwsScene::with(&["A"]).stores("account = \"111122223333\"\n");
        scene.fake.fault(Fault::on(
            "GetParameters",
            Action::Rewrite(Box::new(move |body| {
                change(&mut body["Parameters"][0]);
            })),
        ));
        let outcome = scene.fails();
        assert_eq!(outcome.status.code(), Some(122), "{what}: {}", outcome.transcript());
    }
    // Left out altogether: in neither list.
    let scene = AwsScene::with(&["A", "B"]);
    scene.fake.fault(Fault::on(
        "GetParameters",
        Action::Rewrite(Box::new(|body| {
            body["Parameters"].as_array_mut().unwrap().pop();
        })),
    ));
    scene.fails().expect_status(122);
}

#[test]
fn what_is_new_in_an_answer_is_passed_over() {
    let scene = AwsScene::with(&["A"]);
    scene.fake.fault(Fault::on(
        "GetParameters",
        Action::Rewrite(Box::new(|body| {
            body["Extra"] = json!({ "deep": [[[{ "er": null }]]] });
            body["Parameters"][0]["New"] = json!([1, 2, 3]);
            body["Parameters"].as_array_mut().unwrap().push(json!({
                "Name": "/test/api/UNASKED", "Value": canary("UNASKED"), "Type": "SecureString", "Version": 1,
                "ARN": arn_of("/test/api/UNASKED"),
            }));
        })),
    ));
    let environment = scene.environment();
    assert_eq!(environment["A"], canary("A"));
    assert!(!environment.values().any(|value| *value == canary("UNASKED")));
}

#[test]
fn a_run_that_needs_no_aws_makes_no_connection_and_no_thread() {
    if !have(&["strace"], false) {
        return;
    }
    let scene = AwsScene::with(&["A"]);
    scene.scene.store(&[("LOCAL", "1")]);
    let folder = scene.scene.path("");
    let secrets = format!(
        "[stores.files]\ntype = \"age\"\nformat = \"json\"\nunbound = true\npath = \"{0}store.age\"\n\
         identities = [\"file:{0}identity.key\"]\n{1}LOCAL = {{ store = \"files\" }}\n",
        folder.display(),
        scene.secrets
    );
    let scene = scene.secrets(&secrets);
    let policy = scene.policy();
    let traced = |only: &str| {
        let words = [
            "-f",
            "-qq",
            "-e",
            "trace=socket,connect,clone,clone3,fork,vfork,openat,readlink",
            "-o",
            "trace.txt",
            crate::harness::VOUCHSAFE,
            "run",
            "--policy",
            &policy,
            "--only",
            only,
            "--",
            "/bin/true",
        ];
        let home = scene.scene.path("").display().to_string();
        let status = scene.scene.other("strace", &words).env("HOME", home).status().unwrap();
        assert!(status.success());
        std::fs::read_to_string(scene.scene.path("trace.txt")).unwrap()
    };
    let trace = traced("LOCAL");
    for never in ["socket(", "connect(", "clone", "fork", ".aws", "resolv.conf", "/etc/hosts"] {
        assert!(!trace.contains(never), "{never} in {trace}");
    }
    assert_eq!(scene.fake.connections(), 0);
    // The same trace sees them where AWS is needed, and sees no thread there either.
    let trace = traced("A");
    assert!(trace.contains("connect("), "{trace}");
    assert!(!trace.contains("clone") && !trace.contains("fork"), "{trace}");
    assert!(scene.fake.connections() > 0);
}

#[test]
fn the_child_gets_no_descriptor_thread_or_key_of_the_wrapper() {
    let scene = AwsScene::with(&["A"]).variable("AWS_SESSION_TOKEN", "");
    // Without a pipe, whose ends the shell would have open at times.
    let script = "ls -m /proc/$$/fd; set -- /proc/$$/task/*; echo $#";
    // Whatever this test itself was started with is open in both.
    let bare = scene.scene.other("sh", &["-c", script]).output().unwrap();
    assert_eq!(scene.run(&["sh", "-c", script]).expect_status(0).stdout, bare.stdout);
    let names: Vec<_> = scene.environment().into_keys().filter(|name| name.starts_with("AWS_")).collect();
    assert_eq!(names, [""; 0]);
}

#[test]
fn every_access_is_written_down_before_it_is_made() {
    let scene = AwsScene::with(&["A", "B"]);
    scene.run(&["true"]).expect_status(0);
    assert_eq!(scene.scene.events(), ["access.requested", "access.released"]);
    let text = std::fs::read_to_string(scene.scene.path("audit.jsonl")).unwrap();
    assert!(!text.contains("canary-of"), "{text}");
    let released = &scene.scene.audit()[1];
    assert_eq!(released["requests"].as_array().map(Vec::len), Some(1), "{released}");
    // Nowhere to write: nothing is asked.
    let scene = AwsScene::with(&["A"]);
    std::fs::create_dir(scene.scene.path("audit.jsonl")).unwrap();
    scene.fails().expect_status(123);
    assert_eq!(scene.fake.connections(), 0);
}
