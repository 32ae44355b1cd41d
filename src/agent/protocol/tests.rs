//! Round trips, every truncation, random bytes, and the worked example of the specification.

use proptest::prelude::*;

use super::reply::{Granted, Plain, Refusal, Value};
use super::request::{Ask, ChildEvent, ChildReport, CommandClaim, Purpose};
use super::rules::*;
use super::*;
use crate::inject::OwnMeans;
use crate::name::{EnvironmentName, ServiceName, VariableName};

const SPECIFICATION: &str = include_str!("../../../docs/spec/agent-protocol.md");

fn ask() -> Ask {
    Ask {
        environment: EnvironmentName::new("prod").unwrap(),
        service: Some(ServiceName::new("api").unwrap()),
        only: None,
        command: Some(CommandClaim {
            found: "/usr/bin/api".into(),
            canonical: "/usr/bin/api".into(),
            arguments: 2,
            sha256: None,
        }),
        parent: 300,
        terminal: None,
        purpose: Purpose::Become,
    }
}

fn granted(values: Vec<Value<'_>>) -> Granted<'_> {
    Granted {
        policy: [0xab; 32],
        access: [1, 2, 3, 4, 5, 6, 7, 8],
        set: [0xcd; 32],
        pin: PinWire::None,
        child: ChildWire {
            inherit: InheritWire::Names(vec!["PATH"]),
            set: vec![("APP_ENV", "prod")],
            aws_role: AwsRoleWire::Strip,
            on_collision: CollisionWire::Error,
            identities: vec!["MY_KEY"],
        },
        run: RunWire {
            mode: ModeWire::Exec,
            deadline: 20_000,
            on_change: OnChangeWire::Restart,
            grace: 10_000,
            watch: Some(300_000),
        },
        values,
    }
}

fn value<'a>(name: &'a str, bytes: &'a [u8]) -> Value<'a> {
    Value { name, bytes: Plain(bytes), version: Some(7), stage: Some(StageWire::Current), stale_seconds: None }
}

/// The hexadecimal digits of the block of the specification that follows this word.
fn example(word: &str) -> Vec<u8> {
    let block = SPECIFICATION.split(&format!("```hex {word}\n")).nth(1).unwrap().split("```").next().unwrap();
    let digits: String = block.lines().map(|line| line.split('#').next().unwrap()).collect();
    let digits: Vec<u8> = digits.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_worked_example_is_what_is_sent() {
    let request = encode_request(&Request::Resolve(ask())).unwrap();
    assert_eq!(hex(&request), hex(&example("request")));
    let reply = encode_reply(&Reply::Granted(granted(vec![value("DB", b"x y")]))).unwrap();
    assert_eq!(hex(reply.expose()), hex(&example("reply")));
    let report = encode_request(&Request::Child(ChildReport {
        environment: EnvironmentName::new("prod").unwrap(),
        service: Some(ServiceName::new("api").unwrap()),
        command: ask().command.unwrap(),
        parent: 300,
        access: [1, 2, 3, 4, 5, 6, 7, 8],
        event: ChildEvent::Exited { pid: 4242, status: 0 },
    }));
    assert_eq!(hex(&report.unwrap()), hex(&example("report")));
    for (reply, word) in [(Reply::Watching, "watching"), (Reply::Changed, "changed")] {
        assert_eq!(hex(encode_reply(&reply).unwrap().expose()), hex(&example(word)));
    }
    let watch = Request::Resolve(Ask { purpose: Purpose::Watch { has: [0xcd; 32] }, ..ask() });
    let mut asked = example("request");
    // The same but for its length and its last field.
    asked.pop();
    asked.push(4);
    asked.extend([0xcd; 32]);
    asked[3] += 32;
    assert_eq!(hex(&encode_request(&watch).unwrap()), hex(&asked));
    let refused = encode_reply(&Reply::Refused(Refusal::Denied)).unwrap();
    assert_eq!(hex(refused.expose()), hex(&example("refusal")));
}

#[test]
fn a_length_is_bounded_and_not_zero() {
    assert_eq!(body_length([0, 0, 0, 0], 10), Err(FrameError::Malformed));
    assert_eq!(body_length([0, 0, 0, 10], 10), Ok(10));
    assert_eq!(body_length([0, 0, 0, 11], 10), Err(FrameError::TooLong));
    assert_eq!(body_length([0xff; 4], LARGEST_REPLY), Err(FrameError::TooLong));
}

#[test]
fn what_is_too_long_is_not_sent() {
    let only = (0..1000).map(|n| VariableName::new(format!("{}_{n}", "A".repeat(100))).unwrap()).collect();
    let long = Request::Resolve(Ask { only: Some(only), ..ask() });
    assert_eq!(encode_request(&long), Err(FrameError::TooLong));
    let bytes = vec![b'v'; LARGEST_REPLY];
    assert!(encode_reply(&Reply::Granted(granted(vec![value("A", &bytes)]))).is_err());
}

#[test]
fn another_version_is_told_apart_from_nonsense() {
    let frame = encode_request(&Request::Status).unwrap();
    let mut body = frame[HEADER..].to_vec();
    assert_eq!(decode_request(&body), Ok(Request::Status));
    body[0] = 2;
    assert_eq!(decode_request(&body), Err(FrameError::Version(2)));
    assert_eq!(decode_request(&[]), Err(FrameError::Malformed));
}

#[test]
fn every_truncation_and_every_addition_is_refused() {
    let frame = encode_request(&Request::Resolve(ask())).unwrap();
    let body = &frame[HEADER..];
    for end in 0..body.len() {
        assert_eq!(decode_request(&body[..end]), Err(FrameError::Malformed), "{end} bytes");
    }
    assert_eq!(decode_request(&[body, &[0]].concat()), Err(FrameError::Malformed));
    let reply = encode_reply(&Reply::Granted(granted(vec![value("A", b"1"), value("B", b"2")]))).unwrap();
    let body = &reply.expose()[HEADER..];
    for end in 0..body.len() {
        assert!(decode_reply(&body[..end]).is_err(), "{end} bytes");
    }
    assert!(decode_reply(&[body, &[0]].concat()).is_err());
}

#[test]
fn a_number_with_needless_bytes_is_refused() {
    let frame = encode_request(&Request::Status).unwrap();
    assert_eq!(frame[HEADER..], [VERSION, 2]);
    // The variant 2, in two bytes instead of one.
    assert_eq!(decode_request(&[VERSION, 0x82, 0]), Err(FrameError::Malformed));
}

#[test]
fn a_list_that_claims_to_be_long_takes_no_memory() {
    // A `Granted` whose list of globs claims 2^32-1 entries.
    let reply = encode_reply(&Reply::Granted(granted(Vec::new()))).unwrap();
    let mut body = reply.expose()[HEADER..].to_vec();
    let at = body.windows(5).position(|window| window == b"\x04PATH").unwrap() - 1;
    body.splice(at..=at, [0xff, 0xff, 0xff, 0xff, 0x0f]);
    assert!(decode_reply(&body).is_err());
}

#[test]
fn names_are_checked_while_they_are_read() {
    let frame = encode_request(&Request::Resolve(ask())).unwrap();
    let mut body = frame[HEADER..].to_vec();
    let at = body.windows(4).position(|window| window == b"prod").unwrap();
    body[at] = b'/';
    assert_eq!(decode_request(&body), Err(FrameError::Malformed));
}

#[test]
fn no_value_is_printed() {
    let text = format!("{:?}", Reply::Granted(granted(vec![value("A", b"hunter2")])));
    assert_eq!(text, "Granted(1 values)");
}

#[test]
fn rules_survive_the_journey() {
    let text = "version = 1\nenvironment = \"prod\"\n[child]\ninherit = [\"PATH\", \"LC_*\"]\nset = { A = \"b\" }\n\
                aws_role = \"strip\"\non_collision = \"inherited\"\n[run]\ndeadline = \"3s\"\ngrace = \"4s\"\non_change = \"ignore\"\nwatch = \"9s\"\n";
    let policy = crate::policy::file::parse_text(text, std::path::Path::new("p.toml"), &Default::default()).unwrap();
    let own = OwnMeans { identities: [VariableName::new("KEY").unwrap()].into(), static_aws_keys: true };
    let (rules, means) = ChildWire::of(&policy.child, &own).rules().unwrap();
    assert_eq!(format!("{rules:?}"), format!("{:?}", policy.child));
    assert_eq!((&means.identities, means.static_aws_keys), (&own.identities, false));
    let run = crate::policy::model::RunRules::from(RunWire::from(&policy.run));
    assert_eq!(format!("{run:?}"), format!("{:?}", policy.run));
    let wire = ChildWire { identities: vec!["A=B"], ..ChildWire::of(&policy.child, &own) };
    assert!(wire.rules().is_err());
}

fn asks() -> impl Strategy<Value = Ask> {
    let label = "[a-z0-9][a-z0-9._-]{0,20}";
    let variable = "[A-Z_][A-Z0-9_]{0,20}";
    let command = (any::<Vec<u8>>(), any::<u32>(), any::<Option<[u8; 32]>>()).prop_map(|(path, arguments, sha256)| {
        use std::os::unix::ffi::OsStringExt;
        let path: std::path::PathBuf = std::ffi::OsString::from_vec(path).into();
        CommandClaim { found: path.clone(), canonical: path, arguments, sha256 }
    });
    let only = proptest::option::of(proptest::collection::vec(variable, 0..20));
    (
        label,
        proptest::option::of(label),
        only,
        proptest::option::of(command),
        any::<u32>(),
        any::<Option<[u8; 32]>>(),
        any::<Option<String>>(),
    )
        .prop_map(|(environment, service, only, command, parent, has, terminal)| Ask {
            environment: EnvironmentName::new(environment).unwrap(),
            service: service.map(|name| ServiceName::new(name).unwrap()),
            only: only.map(|names| names.into_iter().map(|name| VariableName::new(name).unwrap()).collect()),
            command,
            parent,
            terminal,
            purpose: match has {
                None => Purpose::Child,
                Some(has) if parent % 2 == 0 => Purpose::Look { has },
                Some(has) => Purpose::Watch { has },
            },
        })
}

proptest! {
    #[test]
    fn requests_survive_the_journey(ask in asks()) {
        let request = Request::Resolve(ask);
        let frame = encode_request(&request).unwrap();
        let (header, body) = frame.split_at(HEADER);
        prop_assert_eq!(body_length(header.try_into().unwrap(), LARGEST_REQUEST), Ok(body.len()));
        prop_assert_eq!(decode_request(body), Ok(request));
    }

    #[test]
    fn reports_survive_the_journey(ask in asks(), access in any::<[u8; 8]>(), pid in any::<u32>(), number in any::<u8>()) {
        let Ask { environment, service, command, parent, .. } = ask;
        let Some(command) = command else { return Ok(()) };
        for event in [
            ChildEvent::Exited { pid, status: number },
            ChildEvent::Killed { pid, signal: number },
            ChildEvent::Changed,
            ChildEvent::Again { start: pid, of: pid },
        ] {
            let (environment, service, command) = (environment.clone(), service.clone(), command.clone());
            let request = Request::Child(ChildReport { environment, service, command, parent, access, event });
            let frame = encode_request(&request).unwrap();
            prop_assert_eq!(decode_request(&frame[HEADER..]), Ok(request));
        }
    }

    #[test]
    fn replies_survive_the_journey(
        values in proptest::collection::vec(("[A-Z]{1,9}", any::<Vec<u8>>(), any::<Option<u64>>(), any::<Option<u64>>()), 0..9),
    ) {
        let values = values.iter().map(|(name, bytes, version, stale_seconds)| Value {
            name, bytes: Plain(bytes), version: *version, stage: None, stale_seconds: *stale_seconds,
        });
        let reply = Reply::Granted(granted(values.collect()));
        let frame = encode_reply(&reply).unwrap();
        prop_assert!(decode_reply(&frame.expose()[HEADER..]) == Ok(reply));
    }

    #[test]
    fn random_bytes_are_refused_or_mean_what_they_say(body in any::<Vec<u8>>(), version in 0..3_u8) {
        let body = [&[version][..], &body].concat();
        if let Ok(request) = decode_request(&body) {
            prop_assert_eq!(&encode_request(&request).unwrap()[HEADER..], &body[..]);
        }
        if let Ok(Reply::Granted(granted)) = decode_reply(&body) {
            drop(granted.child.rules());
        }
    }

    #[test]
    fn a_changed_byte_never_panics(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let frame = encode_request(&Request::Resolve(ask())).unwrap();
        let mut body = frame[HEADER..].to_vec();
        let at = at.index(body.len());
        body[at] = byte;
        drop(decode_request(&body));
        let frame = encode_reply(&Reply::Granted(granted(vec![value("A", b"1")]))).unwrap();
        let mut body = frame.expose()[HEADER..].to_vec();
        let at = at % body.len();
        body[at] = byte;
        drop(decode_reply(&body));
    }
}
