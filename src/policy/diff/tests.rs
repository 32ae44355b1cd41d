//! What takes in what, held against the evaluation itself.

use super::audience::Who;
use super::*;
use crate::policy::eval::{Caller, CommandFacts, Request, Verdict, evaluate};
use crate::policy::file::{LoadOptions, parse_text};

const HEAD: &str =
    "version = 1\nenvironment = \"prod\"\n[stores.s]\ntype = \"ssm\"\nprefix = \"/p/\"\n[secrets]\nA = {}\n";

fn of(grants: &str) -> Policy {
    parse_text(&format!("{HEAD}{grants}"), Path::new("folder/p.toml"), &LoadOptions::default()).unwrap()
}

fn told(old: &Policy, new: &Policy) -> Vec<String> {
    diff(old, new, &|_| None).iter().map(|one| format!("{} {}", one.sign.mark(), one.text)).collect()
}

/// The decision and this page of it must not drift apart: whom one audience is said to take in, to him its grant gives what
/// the other's gives.
#[test]
fn an_audience_that_covers_another_is_granted_what_that_one_is() {
    let digest = "0".repeat(64);
    let audiences = [
        "to = \"anyone\"".to_owned(),
        "to = { users = [\"api\"] }".into(),
        "to = { users = [\"api\", 7] }".into(),
        "to = { users = [1000] }".into(),
        "to = { groups = [50] }".into(),
        "to = { users = [\"api\"], groups = [50] }".into(),
        "to = { commands = [\"/bin/x\"] }".into(),
        "to = { commands = [\"/bin/x\"] }\nclaimed = true".into(),
        "to = { commands = [\"/bin/*\"] }".into(),
        "to = { commands = [\"/bin/x*\", \"/sbin/y\"] }\nclaimed = true".into(),
        "to = { users = [7], commands = [\"/bin/x\"] }".into(),
        format!("to = {{ sha256 = [\"{digest}\"] }}"),
        format!("to = {{ commands = [\"/*/y\"], sha256 = [\"{digest}\"] }}"),
    ];
    let policies: Vec<Policy> =
        audiences.iter().map(|to| of(&format!("[[grants]]\nsecrets = [\"A\"]\n{to}\n"))).collect();
    let mut requests = Vec::new();
    for (uid, user) in [(1000, "api"), (7, "x")] {
        for groups in [vec![], vec![(50, None)]] {
            for path in ["/bin/x", "/bin/xy", "/sbin/y"] {
                for sha256 in [None, Some(digest.clone())] {
                    for claimed in [false, true] {
                        requests.push(Request {
                            caller: Caller { uid, user: Some(user.into()), groups: groups.clone() },
                            command: Some(CommandFacts {
                                found: path.into(),
                                canonical: path.into(),
                                sha256: sha256.clone(),
                            }),
                            only: None,
                            claimed,
                        });
                    }
                }
            }
        }
    }
    let is_granted = |policy: &Policy, request: &Request| matches!(evaluate(policy, request), Verdict::Granted(_));
    let mut count = 0;
    for wide in &policies {
        for narrow in &policies {
            let (one, other) = (Who::of(&wide.grants[0]), Who::of(&narrow.grants[0]));
            if one.covers(&other) {
                count += 1;
                for request in &requests {
                    assert!(!is_granted(narrow, request) || is_granted(wide, request), "{one:?} {other:?} {request:?}");
                }
                assert!(!told(wide, narrow).iter().any(|text| text.starts_with('+')));
            } else {
                assert!(told(wide, narrow).iter().any(|text| text.starts_with("+ ")), "{one:?} {other:?}");
            }
        }
    }
    assert!(count > policies.len() + 10, "{count}");
}

#[test]
fn who_gains_and_who_loses_what() {
    let one = of("[[grants]]\nsecrets = [\"A\"]\nto = { users = [\"api\", \"web\"] }\n");
    let other = of("[[grants]]\nsecrets = [\"A\"]\nto = { users = [\"api\", 7] }\n");
    let item = "which is item \"/p/A\" of store \"s\"";
    assert_eq!(
        told(&one, &other),
        [format!("+ user 7 can get \"A\", {item}"), format!("- user \"web\" can no longer get \"A\", {item}")]
    );
    assert_eq!(told(&one, &one), [] as [&str; 0]);
}

#[test]
fn times_are_told_as_a_policy_writes_them() {
    for (seconds, text) in [(0, "0s"), (90 * 86_400, "90d"), (5400, "1h 30m"), (61, "1m 1s")] {
        assert_eq!(time(&Duration::from_secs(seconds)), text);
    }
    assert_eq!(time(&Duration::from_millis(1500)), "1s 500ms");
}
