//! What the network and the service can do wrong (AWS-6, AWS-12): the table of codes with counted attempts, broken bodies,
//! endpoints that never answer.

use std::net::TcpListener;
use std::sync::Mutex;
use std::time::Duration;

use super::fake::Fake;
use super::fake::fault::{Action, Fault};
use super::scene::{AwsScene, canary, timed};

/// How often a request that fails so is made.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Attempts {
    /// The same answer would come again.
    Once,
    /// Perhaps once more, with fresh credentials.
    Credentials,
    /// A few times.
    Few,
    /// Until the deadline.
    Patient,
}

use Attempts::{Credentials, Few, Once, Patient};

/// Status, code, attempts, exit status (0: not told here), a word of the message.
const CODES: [(u16, &str, Attempts, i32, &str); 38] = [
    (400, "AccessDeniedException", Once, 124, "denied"),
    (403, "AccessDenied", Once, 124, "denied"),
    (400, "ValidationException", Once, 122, "refused"),
    (400, "SerializationException", Once, 122, ""),
    (400, "InvalidKeyId", Once, 122, "key"),
    (400, "NotFoundException", Once, 0, ""),
    (400, "DisabledException", Once, 122, "disabled"),
    (400, "KMSInvalidStateException", Once, 122, "pending"),
    (400, "IncorrectKeyException", Once, 122, "another KMS key"),
    (400, "InvalidCiphertextException", Once, 122, "context"),
    (400, "InvalidKeyUsageException", Once, 122, "key"),
    (400, "InvalidGrantTokenException", Once, 122, ""),
    (400, "LimitExceededException", Once, 122, "limit"),
    (400, "ParameterLimitExceeded", Once, 122, "limit"),
    (400, "HierarchyLevelLimitExceededException", Once, 122, ""),
    (400, "UnsupportedParameterType", Once, 122, ""),
    (400, "UnknownOperationException", Once, 122, ""),
    (400, "SomethingNewException", Once, 122, ""),
    (404, "UnknownEndpoint", Once, 122, ""),
    (400, "OptInRequired", Once, 124, ""),
    (400, "ExpiredTokenException", Credentials, 124, "expired"),
    (403, "RequestExpired", Credentials, 124, "expired"),
    (400, "InvalidSignatureException", Credentials, 124, "credentials"),
    (400, "UnrecognizedClientException", Credentials, 124, "credentials"),
    (400, "IncompleteSignatureException", Credentials, 124, "credentials"),
    (403, "MissingAuthenticationTokenException", Credentials, 124, "credentials"),
    (400, "RequestTimeTooSkewed", Credentials, 122, "clock"),
    (500, "InternalServerError", Few, 122, ""),
    (500, "InternalFailure", Few, 122, ""),
    (503, "ServiceUnavailable", Few, 122, ""),
    (500, "KMSInternalException", Few, 122, ""),
    (500, "KeyUnavailableException", Few, 122, ""),
    (503, "DependencyTimeoutException", Few, 122, ""),
    (400, "ThrottlingException", Patient, 122, "throttle"),
    (400, "Throttling", Patient, 122, "throttle"),
    (503, "SlowDown", Patient, 122, "throttle"),
    (429, "TooManyRequestsException", Patient, 122, "throttle"),
    (400, "RequestLimitExceeded", Patient, 122, "throttle"),
];

/// Runs every case of a table, a few at a time: most of them wait.
fn each<T: Sync>(cases: &[T], one: impl Fn(&T) + Sync) {
    let next = Mutex::new(cases.iter());
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                loop {
                    let Some(case) = next.lock().unwrap().next() else { return };
                    one(case);
                }
            });
        }
    });
}

fn check_attempts(what: &str, attempts: Attempts, made: usize) {
    let fits = match attempts {
        Once => made == 1,
        Credentials => (1..=2).contains(&made),
        Few => (2..=6).contains(&made),
        Patient => made >= 3,
    };
    assert!(fits, "{what}: {made} attempts, {attempts:?} wanted");
}

fn fault(target: &str, status: u16, code: &str, message: bool) -> Fault {
    if message {
        return Fault::error(target, status, code);
    }
    Fault::on(target, Action::Error { status, code: code.into(), message: None })
}

/// Every code on every operation, with a message and, as KMS does it, without one.
fn table(target: &str, scene: impl Fn() -> AwsScene + Sync) {
    let cases: Vec<_> = CODES.iter().flat_map(|case| [(case, true), (case, false)]).collect();
    each(&cases, |((status, code, attempts, exit, word), message)| {
        let scene = scene().deadline("3s");
        scene.fake.fault(fault(target, *status, code, *message));
        let (outcome, took) = timed(|| scene.fails());
        let what = format!("{code} on {target}");
        check_attempts(&what, *attempts, scene.fake.count(target));
        assert!(*exit == 0 || outcome.status.code() == Some(*exit), "{what}: {}", outcome.transcript());
        // The deadline may come while another attempt is under way.
        let is_said = outcome.err().contains(word) || *attempts == Patient && outcome.err().contains("deadline");
        assert!(is_said, "{what}: {word}: {}", outcome.transcript());
        assert!(took < Duration::from_secs(4), "{what}: {took:?}");
        // What did not last is not noticed.
        if matches!(attempts, Few | Patient) {
            scene.fake.forget().fault(fault(target, *status, code, *message).times(1));
            scene.run(&["true"]).expect_status(0);
        }
    });
}

#[test]
fn every_code_on_a_read_of_parameters() {
    table("GetParameters", || AwsScene::with(&["A"]));
}

#[test]
fn every_code_on_a_read_by_path() {
    table("GetParametersByPath", || {
        let scene = AwsScene::new().secrets("[secrets]\n[[bundles]]\npath = \"f/\"\n");
        scene.fake.secure("/test/api/f/a", &canary("a"));
        scene
    });
}

#[test]
fn every_code_on_a_decryption() {
    table("Decrypt", super::kms::with_inline_ciphertext);
}

#[test]
fn every_code_on_a_write() {
    let cases: Vec<_> = CODES.iter().flat_map(|case| [(case, 0), (case, 1)]).collect();
    each(&cases, |((status, code, attempts, _, word), existing)| {
        let scene = AwsScene::new().secrets("[secrets]\nA = {}\n").deadline("3s");
        for _ in 0..*existing {
            scene.fake.secure("/test/api/A", "old");
        }
        scene.fake.fault(Fault::error("PutParameter", *status, code));
        let (outcome, took) = timed(|| scene.set("A", &canary("new")));
        let what = format!("{code} on a write");
        assert!(!outcome.status.success(), "{what}: {}", outcome.transcript());
        scene.says_nothing(&outcome);
        check_attempts(&what, *attempts, scene.fake.count("PutParameter"));
        let is_said = outcome.err().contains(word) || *attempts == Patient && outcome.err().contains("deadline");
        assert!(is_said, "{what}: {word}: {}", outcome.transcript());
        assert_eq!(scene.versions("A").len(), *existing, "{what}");
        assert!(took < Duration::from_secs(4), "{what}: {took:?}");
    });
}

/// A gzip file whose deflate blocks are stored: RFC 1952, without a checksum that fits.
fn gzip(content: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    let length = u16::try_from(content.len()).unwrap();
    out.push(1);
    out.extend(length.to_le_bytes());
    out.extend((!length).to_le_bytes());
    out.extend(content);
    out.extend([0; 8]);
    out
}

#[test]
fn a_body_that_is_not_what_it_should_be() {
    let good = format!(
        r#"{{"Parameters":[{{"Name":"/test/api/A","Value":"{}","Type":"SecureString","Version":1}}]}}"#,
        canary("A")
    );
    let deep = format!("{{\"Parameters\":{}", "[".repeat(200_000));
    let huge = format!("{{\"Parameters\":[],\"x\":\"{}\"}}", "y".repeat(3_000_000));
    let value = format!(
        r#"{{"Parameters":[{{"Name":"/test/api/A","Value":"{}","Type":"SecureString","Version":1}}]}}"#,
        "v".repeat(2_000_000)
    );
    let cases: Vec<(&str, fn(&[u8]) -> Action, Vec<u8>)> = vec![
        ("nothing", |body| Action::Body(body.into()), Vec::new()),
        ("null", |body| Action::Body(body.into()), b"null".to_vec()),
        ("a list", |body| Action::Body(body.into()), b"[]".to_vec()),
        ("an empty object", |body| Action::Body(body.into()), b"{}".to_vec()),
        ("a word", |body| Action::Body(body.into()), b"canary-of-garbage".to_vec()),
        ("binary", |body| Action::Body(body.into()), vec![0xff, 0xfe, 0, 0x80, 0xc3, 0x28]),
        ("half an object", |body| Action::Body(body.into()), good.as_bytes()[..60].to_vec()),
        ("two objects", |body| Action::Body(body.into()), [good.as_bytes(), good.as_bytes()].concat()),
        ("wrong types", |body| Action::Body(body.into()), br#"{"Parameters":{"Name":"/test/api/A"}}"#.to_vec()),
        ("deep", |body| Action::Body(body.into()), deep.into_bytes()),
        ("huge", |body| Action::Body(body.into()), huge.into_bytes()),
        ("a huge value", |body| Action::Body(body.into()), value.into_bytes()),
        ("gzip", |body| Action::Encoded("gzip", body.into()), gzip(good.as_bytes())),
        ("no gzip", |body| Action::Encoded("gzip", body.into()), b"\x1f\x8bcanary-of-garbage".to_vec()),
        ("a page with 500", |_| Action::Page(500), Vec::new()),
        ("a page with 502", |_| Action::Page(502), Vec::new()),
        ("a page with 404", |_| Action::Page(404), Vec::new()),
        ("a page with 403", |_| Action::Page(403), Vec::new()),
        ("a page with 200", |_| Action::Page(200), Vec::new()),
        ("cut off at once", |_| Action::Truncate(0), Vec::new()),
        ("cut off", |_| Action::Truncate(50), Vec::new()),
        ("no reply", |_| Action::DropBefore, Vec::new()),
        ("another status", |_| Action::Error { status: 299, code: "Odd".into(), message: None }, Vec::new()),
    ];
    each(&cases, |(what, action, body)| {
        let scene = AwsScene::with(&["A"]).deadline("3s");
        scene.fake.fault(Fault::on("GetParameters", action(body)));
        let (outcome, took) = timed(|| scene.fails());
        let status = outcome.status.code();
        assert!(matches!(status, Some(122 | 124)), "{what}: {}", outcome.transcript());
        assert!(took < Duration::from_secs(4), "{what}: {took:?}");
        assert!(scene.fake.count("GetParameters") <= 6, "{what}: {}", scene.fake.count("GetParameters"));
    });
}

#[test]
fn another_content_type_leaks_nothing() {
    for kind in ["text/html", "application/xml", "", "multipart/form-data; boundary=x"] {
        let scene = AwsScene::with(&["A"]).deadline("3s");
        scene.fake.fault(Fault::on("GetParameters", Action::ContentType(kind)));
        let outcome = scene.run(&["true"]);
        scene.says_nothing(&outcome);
        assert!(matches!(outcome.status.code(), Some(0 | 122)), "{kind}: {}", outcome.transcript());
    }
}

#[test]
fn a_redirect_is_not_followed() {
    let other = Fake::start();
    let scene = AwsScene::with(&["A"]).deadline("3s");
    scene.fake.fault(Fault::on("GetParameters", Action::Redirect(format!("{}/steal", other.endpoint()))));
    scene.fails().expect_status(122);
    assert_eq!(other.connections(), 0);
}

#[test]
fn a_call_that_is_lost_once_is_made_again() {
    let actions: [fn() -> Action; 4] =
        [|| Action::DropBefore, || Action::DropAfter, || Action::Truncate(30), || Action::Page(503)];
    for (number, action) in actions.into_iter().enumerate() {
        let scene = AwsScene::numbered(25);
        scene.fake.fault(Fault::on("GetParameters", action()).times(2));
        assert_eq!(scene.environment().iter().filter(|(name, _)| name.starts_with('S')).count(), 25, "{number}");
        assert_eq!(scene.fake.count("GetParameters"), 5, "{number}");
    }
}

#[test]
fn whatever_never_answers_is_left_by_the_deadline() {
    let never: [(&str, fn() -> Action); 3] = [
        ("silence", || Action::Silence),
        ("one byte each 100 ms", || Action::Drip),
        ("a minute late", || Action::Delay(Duration::from_secs(60))),
    ];
    for target in ["GetParameters", "GetParametersByPath", "Decrypt"] {
        each(&never, |(what, action)| {
            let scene = match target {
                "GetParameters" => AwsScene::numbered(25),
                "Decrypt" => super::kms::with_inline_ciphertext(),
                _ => AwsScene::new().secrets("[secrets]\n[[bundles]]\npath = \"f/\"\n"),
            };
            let scene = scene.deadline("2s");
            scene.fake.fault(Fault::on(target, action()));
            let (outcome, took) = timed(|| scene.fails());
            assert_eq!(outcome.status.code(), Some(122), "{}", outcome.transcript());
            assert!(took < Duration::from_secs(3), "{target}, {what}: {took:?}");
            assert!(scene.fake.count(target) >= 1);
        });
    }
}

#[test]
fn a_port_that_nobody_serves_is_left_by_the_deadline() {
    // Nobody accepts: the kernel does, and then there is silence. With TLS the handshake is what waits.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for endpoint in [
        format!("http://{}", silent.local_addr().unwrap()),
        format!("https://{}", silent.local_addr().unwrap()),
        format!("http://{closed}"),
        format!("https://{closed}"),
    ] {
        let mut scene = AwsScene::with(&["A"]).deadline("2s");
        scene.stores = format!("region = \"eu-west-1\"\nendpoint = \"{endpoint}\"\n");
        let (outcome, took) = timed(|| scene.fails());
        assert_eq!(outcome.status.code(), Some(122), "{}", outcome.transcript());
        assert!(took < Duration::from_secs(3), "{endpoint}: {took:?}");
        assert_eq!(scene.fake.connections(), 0);
    }
}

#[test]
fn a_signal_ends_a_wrapper_that_waits() {
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let scene = AwsScene::with(&["A"]);
        scene.fake.fault(Fault::on("GetParameters", Action::Silence));
        let child = scene.command(&["true"]).spawn().unwrap();
        super::fake::server::eventually("the request", || scene.fake.count("GetParameters") == 1);
        let (output, took) = timed(|| {
            rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
            child.wait_with_output().unwrap()
        });
        assert_eq!(output.status.code(), Some(128 + signal.as_raw()));
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
}

#[test]
fn the_sdk_is_never_heard() {
    let scene = AwsScene::with(&["A"])
        .variable("LOG_SENSITIVE_BODIES", "true")
        .variable("RUST_LOG", "trace")
        .variable("RUST_BACKTRACE", "full");
    let outcome = scene.run(&["true"]).expect_status(0);
    assert_eq!((outcome.out(), outcome.err()), ("", ""));
    scene.fake.fault(Fault::on("GetParameters", Action::Body(canary("garbage").into_bytes())));
    scene.fails();
}
