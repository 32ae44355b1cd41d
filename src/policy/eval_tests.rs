//! The decision against a table of cases that a reader can check by eye, and against an independent statement of the rule
//! for every policy of up to three grants over three names and three callers.

use std::path::Path;

use super::eval::{Caller, CommandFacts, Denial, Pin, Request, Verdict, evaluate, mismatches};
use super::file::{LoadOptions, parse_text};
use super::model::{Audience, GrantRule, Match, Policy, Principal};
use super::pattern::Pattern;
use crate::name::VariableName;

const DIGEST: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn name(text: &str) -> VariableName {
    VariableName::new(text).unwrap()
}

fn policy(rest: &str) -> Policy {
    let head = "version = 1\nenvironment = \"prod\"\n[stores.s]\ntype = \"ssm\"\nprefix = \"/p/\"\n[secrets]\nA = {}\nB = {}\n\
        C = { inject = false }\nT = { template = \"{C}\", inject = false }\n";
    parse_text(&format!("{head}{rest}"), Path::new("p.toml"), &LoadOptions::default()).unwrap()
}

/// User 1000 `api`, in the groups 1000 `api` and 50 `staff`, starting /usr/bin/api, a link to /opt/api/bin/api-1.2.
fn request(only: &[&str]) -> Request {
    Request {
        caller: Caller {
            uid: 1000,
            user: Some("api".into()),
            groups: vec![(1000, Some("api".into())), (50, Some("staff".into()))],
        },
        command: Some(CommandFacts {
            found: "/usr/bin/api".into(),
            canonical: "/opt/api/bin/api-1.2".into(),
            sha256: Some(DIGEST.into()),
        }),
        only: Some(only.iter().map(|only| name(only)).collect()),
        claimed: false,
    }
}

fn grant(secrets: &str, to: &str) -> String {
    format!("[[grants]]\nsecrets = {secrets}\nto = {to}\n")
}

fn pin(policy: &Policy, request: &Request) -> Option<Pin> {
    match evaluate(policy, request) {
        Verdict::Granted(grant) => Some(grant.pin()),
        Verdict::Denied(_) => None,
    }
}

#[test]
fn every_field_of_an_audience_must_match() {
    let sha256 = format!("{{ sha256 = [\"{DIGEST}\"] }}");
    let other = format!("{{ users = [\"api\"], sha256 = [\"{}\"] }}", "0".repeat(64));
    for (to, expected) in [
        ("\"anyone\"", Some(Pin::None)),
        ("{ users = [\"api\"] }", Some(Pin::None)),
        ("{ users = [1000] }", Some(Pin::None)),
        ("{ users = [\"web\", 1000] }", Some(Pin::None)),
        ("{ users = [\"web\"] }", None),
        ("{ users = [0] }", None),
        ("{ groups = [\"staff\"] }", Some(Pin::None)),
        ("{ groups = [50] }", Some(Pin::None)),
        ("{ groups = [\"wheel\", 51] }", None),
        ("{ users = [\"api\"], groups = [\"wheel\"] }", None),
        ("{ commands = [\"/usr/bin/api\"] }", Some(Pin::Found)),
        ("{ commands = [\"/usr/bin/*\"] }", Some(Pin::Found)),
        ("{ commands = [\"/usr/*\"] }", None),
        ("{ commands = [\"/opt/api/bin/api-*\"] }", Some(Pin::Canonical)),
        ("{ commands = [\"/usr/bin/web\"] }", None),
        ("{ users = [\"web\"], commands = [\"/usr/bin/api\"] }", None),
        (sha256.as_str(), Some(Pin::Digest)),
        (other.as_str(), None),
    ] {
        let policy = policy(&grant("[\"A\"]", to));
        assert_eq!(pin(&policy, &request(&["A"])), expected, "{to}");
        // `explain` and the decision never differ.
        assert_eq!(mismatches(&policy.grants[0], &request(&["A"])).is_empty(), expected.is_some(), "{to}");
    }
}

#[test]
fn a_number_in_a_name_is_no_uid_and_a_nameless_user_has_only_a_number() {
    let named = policy(&grant("[\"A\"]", "{ users = [\"api\"] }"));
    let mut nameless = request(&["A"]);
    nameless.caller.user = None;
    assert_eq!(pin(&named, &nameless), None);
    assert_eq!(pin(&policy(&grant("[\"A\"]", "{ users = [1000] }")), &nameless), Some(Pin::None));
}

#[test]
fn what_a_caller_claims_counts_only_where_the_grant_says_so() {
    let to = "{ commands = [\"/usr/bin/api\"] }";
    let mut claimed = request(&["A"]);
    claimed.claimed = true;
    assert_eq!(pin(&policy(&grant("[\"A\"]", to)), &claimed), None);
    assert_eq!(pin(&policy(&format!("{}claimed = true\n", grant("[\"A\"]", to))), &claimed), Some(Pin::Found));
    assert_eq!(pin(&policy(&grant("[\"A\"]", "{ users = [\"api\"] }")), &claimed), Some(Pin::None));
}

#[test]
fn a_grant_of_commands_needs_a_command() {
    let mut without = request(&["A"]);
    without.command = None;
    assert_eq!(pin(&policy(&grant("[\"A\"]", "{ commands = [\"/*\"] }")), &without), None);
    assert_eq!(pin(&policy(&grant("[\"A\"]", &format!("{{ sha256 = [\"{DIGEST}\"] }}"))), &without), None);
}

#[test]
fn all_or_nothing_and_nothing_by_default() {
    let none = policy("");
    assert_eq!(pin(&none, &request(&["A"])), None);
    let some = policy(&grant("[\"A\"]", "\"anyone\""));
    assert_eq!(pin(&some, &request(&["A", "B"])), None);
    let Verdict::Denied(Denial::NotGranted { names, .. }) = evaluate(&some, &request(&["B", "A"])) else { panic!() };
    assert_eq!(names, [name("B")]);
    let Verdict::Denied(Denial::Unknown { nearest, .. }) = evaluate(&policy(""), &request(&["a"])) else { panic!() };
    assert_eq!(nearest, Some(name("A")));
}

#[test]
fn without_only_all_that_is_injected_is_asked_for() {
    let all = policy(&grant("[\"*\"]", "\"anyone\""));
    let mut request = request(&[]);
    request.only = None;
    let Verdict::Granted(grant) = evaluate(&all, &request) else { panic!() };
    assert_eq!(grant.names(), [name("A"), name("B")]);
    assert!(grant.parts().is_empty());
}

#[test]
fn who_may_have_a_template_has_its_parts_only_in_it() {
    let policy = policy(&grant("[\"T\"]", "\"anyone\""));
    let Verdict::Granted(grant) = evaluate(&policy, &request(&["T"])) else { panic!() };
    assert_eq!((grant.names(), grant.parts()), (&[name("T")][..], &[name("C")][..]));
    assert_eq!(pin(&policy, &request(&["C"])), None);
}

#[test]
fn the_least_firm_rule_that_grants_is_enough() {
    let two = format!("{}{}", grant("[\"A\"]", "{ commands = [\"/usr/bin/api\"] }"), grant("[\"*\"]", "\"anyone\""));
    assert_eq!(pin(&policy(&two), &request(&["A"])), Some(Pin::None));
    let firm = format!("{}{}", grant("[\"A\"]", "{ commands = [\"/usr/bin/api\"] }"), grant("[\"B\"]", "\"anyone\""));
    assert_eq!(pin(&policy(&firm), &request(&["A", "B"])), Some(Pin::Found));
}

#[test]
fn a_bundle_is_granted_name_by_name_and_only_to_a_caller_whom_some_rule_matches() {
    let bundle = "[[bundles]]\npath = \"x\"\n";
    let granted = policy(&format!("{bundle}{}", grant("[\"A\", \"FEATURE_*\"]", "{ users = [\"api\"] }")));
    let Verdict::Granted(grant_of) = evaluate(&granted, &request(&["A", "FEATURE_X"])) else { panic!() };
    assert!(grant_of.wants_bundles() && grant_of.covers_from_bundle(&name("FEATURE_X")));
    assert!(!grant_of.covers_from_bundle(&name("OTHER")));
    assert_eq!(grant_of.expected_of_bundles(), [name("FEATURE_X")]);
    let nobody = policy(&format!("{bundle}{}", grant("[\"*\"]", "{ users = [\"web\"] }")));
    assert_eq!(pin(&nobody, &request(&["FEATURE_X"])), None);
}

/// Audiences of the small model, each with what it means: which of the three callers it matches.
fn audiences() -> Vec<(Audience, [bool; 3])> {
    let users = |ids: &[u32]| Some(ids.iter().map(|id| Principal::Id(*id)).collect());
    let commands = Some(vec![Pattern::new("/bin/x").unwrap()]);
    vec![
        (Audience::Anyone, [true, true, true]),
        (Audience::Matching(Match { users: users(&[1]), ..Match::default() }), [true, true, false]),
        (Audience::Matching(Match { users: users(&[2, 3]), ..Match::default() }), [false, false, true]),
        (Audience::Matching(Match { commands: commands.clone(), ..Match::default() }), [true, false, true]),
        (Audience::Matching(Match { users: users(&[1]), commands, ..Match::default() }), [true, false, false]),
        (Audience::Matching(Match { groups: users(&[9]), ..Match::default() }), [false, false, false]),
    ]
}

/// Who runs what: user 1 starts x, user 1 starts y, user 2 starts x.
fn callers() -> [(u32, &'static str); 3] {
    [(1, "/bin/x"), (1, "/bin/y"), (2, "/bin/x")]
}

/// A rule of the small model: which of the names A, B, C, and the index of its audience.
type Rule = ([bool; 3], usize);

/// The rule that the design states, and nothing else of ours: a name is granted if some rule has it and matches the caller.
fn specified(rules: &[Rule], meanings: &[[bool; 3]], caller: usize, wanted: &[usize]) -> bool {
    wanted.iter().all(|name| rules.iter().any(|(names, audience)| names[*name] && meanings[*audience][caller]))
}

#[test]
fn agrees_with_the_rule_on_every_small_policy() {
    let names = ["A", "B", "C"];
    let audiences = audiences();
    let meanings: Vec<_> = audiences.iter().map(|(_, meaning)| *meaning).collect();
    let subsets =
        [[true, false, false], [false, true, false], [true, true, false], [false, true, true], [true, true, true]];
    let every: Vec<Rule> = subsets.iter().flat_map(|names| (0..audiences.len()).map(|to| (*names, to))).collect();
    let compiled: Vec<GrantRule> = every
        .iter()
        .map(|(has, to)| GrantRule {
            secrets: (0..3).filter(|n| has[*n]).map(|n| Pattern::new(names[n]).unwrap()).collect(),
            to: audiences[*to].0.clone(),
            claimed: false,
            place: String::new(),
        })
        .collect();
    let requests: Vec<_> = callers()
        .iter()
        .enumerate()
        .flat_map(|(caller, (uid, path))| {
            [vec![0], vec![1, 2], vec![0, 1, 2]].into_iter().map(move |wanted| {
                let request = Request {
                    caller: Caller { uid: *uid, user: None, groups: Vec::new() },
                    command: Some(CommandFacts { found: path.into(), canonical: path.into(), sha256: None }),
                    only: Some(wanted.iter().map(|n| name(names[*n])).collect()),
                    claimed: false,
                };
                (caller, wanted, request)
            })
        })
        .collect();

    // Every choice of up to two rules in every order, and every set of three.
    let count = every.len();
    let mut choices: Vec<Vec<usize>> = vec![Vec::new()];
    choices.extend((0..count).map(|i| vec![i]));
    choices.extend((0..count).flat_map(|i| (0..count).map(move |j| vec![i, j])));
    choices.extend((0..count).flat_map(|i| (0..i).flat_map(move |j| (0..j).map(move |k| vec![i, j, k]))));

    let mut policy = policy("");
    let (mut granted, mut denied) = (0, 0);
    for choice in choices {
        policy.grants = choice.iter().map(|index| compiled[*index].clone()).collect();
        let rules: Vec<_> = choice.iter().map(|index| every[*index]).collect();
        for (caller, wanted, request) in &requests {
            let expected = specified(&rules, &meanings, *caller, wanted);
            match evaluate(&policy, request) {
                Verdict::Granted(grant) => {
                    let exact: Vec<_> = wanted.iter().map(|n| name(names[*n])).collect();
                    assert!(expected && grant.names() == exact, "{rules:?} {caller} {wanted:?}");
                    granted += 1;
                }
                Verdict::Denied(_) => {
                    assert!(!expected, "{rules:?} {caller} {wanted:?}");
                    denied += 1;
                }
            }
        }
    }
    assert!(granted > 5_000 && denied > 5_000, "the model is lopsided: {granted} granted, {denied} denied");
}
