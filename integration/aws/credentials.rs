//! Where credentials come from, and that a pin excludes every other source (AWS-10). Where requests go: [`super::addresses`].

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::fake::credentials::{STATIC_ID, STATIC_SECRET};
use super::fake::fault::Fault;
use super::fake::{ACCOUNT, Fake};
use super::scene::{AwsScene, canary, timed};

/// One parameter, and nothing in the environment.
pub fn scene() -> AwsScene {
    let scene = AwsScene::without_credentials(Fake::start()).secrets("[secrets]\nA = {}\n");
    scene.fake.secure("/test/api/A", &canary("A"));
    scene
}

pub fn role() -> String {
    format!("arn:aws:iam::{ACCOUNT}:role/reader")
}

pub fn static_keys(scene: AwsScene) -> AwsScene {
    scene.variable("AWS_ACCESS_KEY_ID", STATIC_ID).variable("AWS_SECRET_ACCESS_KEY", STATIC_SECRET)
}

fn web_identity(scene: AwsScene) -> AwsScene {
    let token = scene.scene.write("token", b"web.identity.token\n").display().to_string();
    scene.variable("AWS_WEB_IDENTITY_TOKEN_FILE", &token).variable("AWS_ROLE_ARN", &role())
}

pub fn container(scene: AwsScene) -> AwsScene {
    let uri = format!("{}/credentials/1", scene.fake.endpoint());
    scene.fake.world().credentials.container_token = Some("container-token".into());
    scene
        .variable("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri)
        .variable("AWS_CONTAINER_AUTHORIZATION_TOKEN", "container-token")
}

fn imds(scene: AwsScene) -> AwsScene {
    let endpoint = scene.fake.endpoint();
    scene.variable("AWS_EC2_METADATA_SERVICE_ENDPOINT", &endpoint)
}

pub fn profile(scene: AwsScene) -> AwsScene {
    let text = format!("[default]\naws_access_key_id = {STATIC_ID}\naws_secret_access_key = {STATIC_SECRET}\n");
    let path = scene.scene.write_mode("credentials", text.as_bytes(), 0o600).display().to_string();
    scene.variable("AWS_SHARED_CREDENTIALS_FILE", &path)
}

type Set = fn(AwsScene) -> AwsScene;

const SOURCES: [(&str, &str, Set); 5] = [
    ("environment", "static", static_keys),
    ("profile", "static", profile),
    ("web-identity", "web-identity", web_identity),
    ("container", "container", container),
    ("imds", "imds", imds),
];

/// Who signed the one read.
pub fn signer(scene: &AwsScene) -> Option<&'static str> {
    signer_of(&scene.fake)
}

/// The same, of any scene's AWS.
pub fn signer_of(fake: &Fake) -> Option<&'static str> {
    fake.calls("GetParameters").last().and_then(|call| call.signed_with)
}

#[test]
fn each_source_works_and_a_pin_excludes_the_others() {
    for (name, signed, set) in SOURCES {
        let one = set(scene());
        assert_eq!(one.environment()["A"], canary("A"), "{name}");
        assert_eq!(signer(&one), Some(signed), "{name}");
        // All are there, one is pinned.
        let all = SOURCES.iter().fold(scene(), |scene, (_, _, set)| set(scene));
        let all = all.stores(&format!("credential_source = \"{name}\"\n"));
        assert_eq!(all.environment()["A"], canary("A"), "{name} pinned");
        assert_eq!(signer(&all), Some(signed), "{name} pinned");
        let asked: Vec<_> = all.fake.records().into_iter().map(|record| record.target).collect();
        let others = asked.iter().filter(|target| *target != "GetParameters").count();
        let own = matches!(name, "web-identity" | "container" | "imds");
        assert_eq!(others > 0, own, "{name}: {asked:?}");
    }
}

#[test]
fn a_pinned_source_that_is_not_there_ends_the_run_before_any_request() {
    for (name, ..) in SOURCES.iter().filter(|(name, ..)| *name != "imds") {
        let others = SOURCES.iter().filter(|(other, ..)| other != name && *other != "imds");
        let scene = others.fold(scene(), |scene, (_, _, set)| set(scene));
        let home = scene.scene.path("").display().to_string();
        let scene = scene.variable("HOME", &home).stores(&format!("credential_source = \"{name}\"\n"));
        if *name == "profile" {
            let scene = scene.variable("AWS_CONFIG_FILE", "/none");
            scene.fails().expect_status(124);
            continue;
        }
        let outcome = scene.fails().expect_status(124);
        assert!(outcome.err().contains(name), "{name}: {}", outcome.transcript());
        assert_eq!(scene.fake.count("GetParameters"), 0, "{name}");
    }
}

#[test]
fn a_source_that_fails_is_named_and_no_other_is_taken() {
    let bad_token = web_identity(scene());
    bad_token.scene.write("token", b"another.token");
    let no_token = web_identity(scene()).variable("AWS_WEB_IDENTITY_TOKEN_FILE", "/none/token");
    let no_role = web_identity(scene()).variable("AWS_ROLE_ARN", &format!("arn:aws:iam::{ACCOUNT}:role/other"));
    let wrong = container(scene()).variable("AWS_CONTAINER_AUTHORIZATION_TOKEN", "wrong");
    let half = scene().variable("AWS_ACCESS_KEY_ID", STATIC_ID);
    for (name, scene) in [
        ("web-identity", bad_token),
        ("web-identity", no_token),
        ("web-identity", no_role),
        ("container", wrong),
        ("environment", half),
    ] {
        let scene = imds(scene).deadline("5s");
        let (outcome, took) = timed(|| scene.fails());
        assert_eq!(outcome.status.code(), Some(124), "{name}: {}", outcome.transcript());
        assert_eq!(scene.fake.count("GetParameters"), 0, "{name}: {}", outcome.transcript());
        assert!(took < Duration::from_secs(6), "{name}: {took:?}");
    }
}

#[test]
fn a_role_is_assumed_and_what_it_was_assumed_with_does_not_reach_the_child() {
    let scene = static_keys(scene()).stores(&format!("role_arn = \"{}\"\n", role()));
    let environment = scene.environment();
    assert_eq!(environment["A"], canary("A"));
    assert!(!environment.keys().any(|name| name.starts_with("AWS_ACCESS") || name.starts_with("AWS_SECRET")));
    assert_eq!(scene.fake.count("AssumeRole"), 1);
    assert_eq!(signer(&scene), Some("assume-role"));
    scene.fake.world().credentials.roles.clear();
    let outcome = scene.fails().expect_status(124);
    assert!(outcome.err().contains("sts:AssumeRole"), "{}", outcome.transcript());
}

#[test]
fn static_keys_that_were_used_are_gone_and_pointers_to_a_role_pass() {
    let scene = static_keys(scene()).variable("AWS_REGION", "eu-west-1").variable("AWS_PROFILE", "default");
    let environment = profile(scene).environment();
    assert!(!environment.contains_key("AWS_ACCESS_KEY_ID") && !environment.contains_key("AWS_SECRET_ACCESS_KEY"));
    assert_eq!(environment["AWS_REGION"], "eu-west-1");
    let mut scene = container(self::scene());
    assert!(scene.environment().contains_key("AWS_CONTAINER_CREDENTIALS_FULL_URI"));
    scene.secrets.push_str("[child]\naws_role = \"strip\"\n");
    assert!(!scene.environment().keys().any(|name| name.starts_with("AWS_")));
}

#[test]
fn expired_credentials_are_fetched_anew_once() {
    let scene = container(scene());
    scene.fake.fault(Fault::error("GetParameters", 400, "ExpiredTokenException").times(1));
    assert_eq!(scene.environment()["A"], canary("A"));
    assert_eq!(scene.fake.count("GET /credentials/1"), 2);
    // Born expired, again and again.
    let scene = container(self::scene());
    scene.fake.world().credentials.lifetime = -3600;
    let (outcome, took) = timed(|| scene.fails());
    assert_eq!(outcome.status.code(), Some(124), "{}", outcome.transcript());
    assert!(scene.fake.count("GET /credentials/1") <= 4 && took < Duration::from_secs(5));
}

#[test]
fn wrong_keys_and_a_wrong_clock_are_told_apart() {
    let wrong = scene().variable("AWS_ACCESS_KEY_ID", STATIC_ID).variable("AWS_SECRET_ACCESS_KEY", "wrong");
    let outcome = wrong.fails().expect_status(124);
    assert!(outcome.err().contains("credentials"), "{}", outcome.transcript());
    for clock in [3600, -3600] {
        let scene = static_keys(scene());
        scene.fake.world().clock = clock;
        let outcome = scene.fails();
        assert!(outcome.err().contains("clock"), "{}", outcome.transcript());
    }
}

#[test]
fn a_shared_file_that_someone_else_could_have_written_is_refused() {
    for variable in ["AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"] {
        let scene = profile(scene());
        let text = format!("[default]\naws_access_key_id = {STATIC_ID}\naws_secret_access_key = {STATIC_SECRET}\n");
        let path = scene.scene.write_mode("shared", text.as_bytes(), 0o666).display().to_string();
        let scene = scene.variable(variable, &path);
        let outcome = scene.fails().expect_status(124);
        assert!(outcome.err().contains("chmod go-w"), "{variable}: {}", outcome.transcript());
        assert_eq!(scene.fake.records().len(), 0, "{variable}");
        // That others may read it is common, and stays its owner's business.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(scene.environment()["A"], canary("A"), "{variable}");
        if crate::have(&["chown"], true) {
            std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
            let outcome = scene.fails().expect_status(124);
            assert!(outcome.err().contains("chown 0"), "{variable}: {}", outcome.transcript());
        }
        // A source that comes before it is not concerned.
        assert_eq!(static_keys(scene).environment()["A"], canary("A"), "{variable}");
    }
    assert_eq!(profile(scene()).variable("AWS_CONFIG_FILE", "/dev/null").environment()["A"], canary("A"));
}

#[test]
fn a_reply_of_another_account_is_refused() {
    let scene = static_keys(scene()).stores("account = \"999999999999\"\n");
    let outcome = scene.fails().expect_status(122);
    assert!(outcome.err().contains("999999999999") && outcome.err().contains(ACCOUNT), "{}", outcome.transcript());
}

#[test]
fn a_session_of_the_environment_is_used_with_its_token_and_stripped_with_it() {
    let scene = scene();
    let key =
        super::fake::sigv4::Key { secret: "session-secret".into(), token: Some("session-token".into()), expires: None };
    scene.fake.world().credentials.keys.insert("ASIASESSION".into(), key);
    let scene = scene
        .variable("AWS_ACCESS_KEY_ID", "ASIASESSION")
        .variable("AWS_SECRET_ACCESS_KEY", "session-secret")
        .variable("AWS_SESSION_TOKEN", "session-token");
    let environment = scene.environment();
    assert_eq!(environment["A"], canary("A"));
    let left: Vec<_> =
        environment.iter().filter(|(_, value)| value.contains("session") || value.contains("ASIA")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn keys_that_were_not_used_are_the_childs_own() {
    let scene = static_keys(scene());
    scene.scene.store(&[("LOCAL", "1")]);
    let folder = scene.scene.path("").display().to_string();
    let scene = scene.secrets(&format!(
        "[stores.files]\ntype = \"age\"\nformat = \"json\"\nunbound = true\npath = \"{folder}store.age\"\n\
         identities = [\"file:{folder}identity.key\"]\n[secrets]\nLOCAL = {{ store = \"files\" }}\n"
    ));
    assert_eq!(scene.environment()["AWS_ACCESS_KEY_ID"], STATIC_ID);
    let scene = container(static_keys(self::scene())).stores("credential_source = \"container\"\n");
    assert_eq!(scene.environment()["AWS_ACCESS_KEY_ID"], STATIC_ID);
}
