//! Where credentials come from, that a pin excludes every other source, and that nothing in the environment sends requests
//! elsewhere or starts a program (AWS-9, AWS-10).

use std::net::TcpListener;
use std::time::Duration;

use super::fake::credentials::{STATIC_ID, STATIC_SECRET};
use super::fake::fault::{Action, Fault};
use super::fake::{ACCOUNT, Fake};
use super::namespace::{Network, end_name_server, name_server, with_etc};
use super::scene::{AwsScene, canary, timed};

/// One parameter, and nothing in the environment.
fn scene() -> AwsScene {
    let scene = AwsScene::without_credentials(Fake::start()).secrets("[secrets]\nA = {}\n");
    scene.fake.secure("/test/api/A", &canary("A"));
    scene
}

fn role() -> String {
    format!("arn:aws:iam::{ACCOUNT}:role/reader")
}

fn static_keys(scene: AwsScene) -> AwsScene {
    scene.variable("AWS_ACCESS_KEY_ID", STATIC_ID).variable("AWS_SECRET_ACCESS_KEY", STATIC_SECRET)
}

fn web_identity(scene: AwsScene) -> AwsScene {
    let token = scene.scene.write("token", b"web.identity.token\n").display().to_string();
    scene.variable("AWS_WEB_IDENTITY_TOKEN_FILE", &token).variable("AWS_ROLE_ARN", &role())
}

fn container(scene: AwsScene) -> AwsScene {
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

fn profile(scene: AwsScene) -> AwsScene {
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
fn signer(scene: &AwsScene) -> Option<&'static str> {
    scene.fake.calls("GetParameters").last().and_then(|call| call.signed_with)
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
fn a_reply_of_another_account_is_refused() {
    let scene = static_keys(scene()).stores("account = \"999999999999\"\n");
    let outcome = scene.fails().expect_status(122);
    assert!(outcome.err().contains("999999999999") && outcome.err().contains(ACCOUNT), "{}", outcome.transcript());
}

#[test]
fn nothing_in_the_environment_sends_requests_elsewhere_or_starts_a_program() {
    let evil = Fake::start();
    let scene = static_keys(scene());
    let marker = scene.scene.path("marker").display().to_string();
    let config = format!(
        "[default]\ncredential_process = touch {marker}\nendpoint_url = {0}\nservices = evil\n\
         [services evil]\nssm =\n  endpoint_url = {0}\n[profile p]\ncredential_process = touch {marker}\n",
        evil.endpoint()
    );
    let config = scene.scene.write("config", config.as_bytes()).display().to_string();
    let bundle = scene.scene.write("bundle.pem", b"not a certificate").display().to_string();
    let mut scene = scene.variable("AWS_CONFIG_FILE", &config);
    let own = scene.scene.path("").display().to_string();
    scene = scene.variable("HOME", &own);
    for name in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SSM", "AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL_KMS"] {
        scene = scene.variable(name, &evil.endpoint());
    }
    for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        scene = scene.variable(name, &evil.endpoint());
    }
    for name in ["AWS_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"] {
        scene = scene.variable(name, &bundle);
    }
    assert_eq!(scene.environment()["A"], canary("A"));
    // The role is assumed where the policy's endpoint is, too.
    let scene = scene.stores(&format!("role_arn = \"{}\"\n", role()));
    assert_eq!(scene.environment()["A"], canary("A"));
    assert_eq!(signer(&scene), Some("assume-role"));
    // Pinned to the profile, there is only the program, and it is not started.
    let mut scene = scene.stores("credential_source = \"profile\"\n");
    let outcome = scene.fails().expect_status(124);
    assert!(outcome.err().contains("credential_process"), "{}", outcome.transcript());
    scene = scene.stores("profile = \"p\"\n");
    scene.fails().expect_status(124);
    assert!(!std::path::Path::new(&marker).exists(), "credential_process was started");
    assert_eq!(evil.connections(), 0);
}

#[test]
fn a_container_endpoint_outside_this_host_is_not_asked_in_clear() {
    for uri in ["http://evil.example/credentials", "http://10.1.2.3/credentials", "http://127.0.0.1.evil.example/c"] {
        let scene = scene().variable("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri).deadline("3s");
        let (outcome, took) = timed(|| scene.fails());
        assert_eq!(outcome.status.code(), Some(124), "{uri}: {}", outcome.transcript());
        assert!(took < Duration::from_secs(2), "{uri}: {took:?}");
    }
}

#[test]
fn the_addresses_of_ecs_eks_and_ec2() {
    let addresses = ["169.254.169.254/32", "169.254.170.2/32", "169.254.170.23/32"];
    let Some(network) = Network::with(&addresses) else { return };
    network.inside(|| {
        let bind = |address: &str| TcpListener::bind((address, 80)).unwrap();
        let relative = scene().variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/credentials/ecs");
        relative.fake.also_listen(bind("169.254.170.2"), None);
        assert_eq!(relative.environment()["A"], canary("A"));
        assert_eq!(signer(&relative), Some("container"));

        let eks = scene();
        eks.fake.world().credentials.container_token = Some("pod-token".into());
        let token = eks.scene.write("pod-token", b"pod-token").display().to_string();
        let eks = eks
            .variable("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/credentials/eks")
            .variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token);
        eks.fake.also_listen(bind("169.254.170.23"), None);
        assert_eq!(eks.environment()["A"], canary("A"));
        assert_eq!(signer(&eks), Some("container"));

        // No instance metadata: nobody listens, then somebody who never answers. No hang of a minute.
        let none = scene();
        let (outcome, took) = timed(|| none.fails());
        assert_eq!(outcome.status.code(), Some(124), "{}", outcome.transcript());
        assert!(took < Duration::from_secs(6), "{took:?}");
        let ec2 = scene().deadline("3s");
        ec2.fake.also_listen(bind("169.254.169.254"), None);
        ec2.fake.fault(Fault::on("PUT /latest/api/token", Action::Silence));
        let (outcome, took) = timed(|| ec2.fails());
        assert!(took < Duration::from_secs(4), "{took:?}: {}", outcome.transcript());
        ec2.fake.forget();
        assert_eq!(ec2.environment()["A"], canary("A"));
        assert_eq!(signer(&ec2), Some("imds"));
        let off = AwsScene::without_credentials(Fake::start()).secrets("[secrets]\nA = {}\n");
        let off = off.variable("AWS_EC2_METADATA_DISABLED", "true");
        off.fails().expect_status(124);
    });
}

#[test]
fn an_instance_without_a_role_has_no_credentials() {
    let Some(network) = Network::with(&["169.254.169.254/32"]) else { return };
    network.inside(|| {
        let scene = scene();
        scene.fake.also_listen(TcpListener::bind(("169.254.169.254", 80)).unwrap(), None);
        scene.fake.world().credentials.instance_role = None;
        scene.fails().expect_status(124);
        assert_eq!(scene.fake.count("GetParameters"), 0);
    });
}

#[test]
fn a_name_server_that_never_answers_does_not_outlive_the_deadline() {
    let Some(network) = Network::with(&[]) else { return };
    network.inside(|| {
        name_server(false);
        let mut scene = static_keys(scene()).deadline("3s");
        scene.stores = "region = \"eu-west-1\"\n".into();
        let policy = scene.policy();
        let arguments = ["run", "--policy", &policy, "--", "echo", "started"];
        let files = [("resolv.conf", "nameserver 127.0.0.1\n"), ("hosts", "127.0.0.1 localhost\n")];
        let (outcome, took) = timed(|| with_etc(&scene.scene, &files, &arguments));
        assert_eq!(outcome.status.code(), Some(122), "{}", outcome.transcript());
        assert!(took < Duration::from_secs(4), "{took:?}");
        assert!(outcome.out().is_empty());
        end_name_server();
        // No name server at all, and none that is named.
        for text in ["", "nameserver 127.0.0.1\n"] {
            let files = [("resolv.conf", text), ("hosts", "127.0.0.1 localhost\n")];
            let (outcome, took) = timed(|| with_etc(&scene.scene, &files, &arguments));
            assert_eq!(outcome.status.code(), Some(122), "{}", outcome.transcript());
            assert!(took < Duration::from_secs(4), "{took:?}");
        }
    });
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

#[test]
fn a_proxy_of_the_environment_never_sees_credentials() {
    // Where the host file lets proxies count, they are for AWS: what hands out keys is on this host or link.
    let evil = Fake::start();
    let scene = container(scene()).deadline("5s");
    let endpoint = evil.endpoint();
    let scene = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]
        .iter()
        .fold(scene, |scene, name| scene.variable(name, &endpoint));
    if !crate::have(&["unshare", "mount"], true) {
        return;
    }
    let policy = scene.policy();
    let files = [("vouchsafe/host.toml", "[network]\nenv_endpoint = true\n")];
    let outcome = with_etc(&scene.scene, &files, &["run", "--policy", &policy, "--", "printenv", "A"]);
    let asked: Vec<_> = evil.records().into_iter().map(|record| (record.target, record.request.headers)).collect();
    assert!(asked.is_empty(), "{asked:?}\n{}", outcome.transcript());
    assert_eq!(outcome.expect_status(0).out(), "canary-of-A\n");
}
