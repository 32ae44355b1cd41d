//! Where requests go: nowhere but to AWS and to what the policy names, whatever the environment says, and never for longer
//! than the deadline (AWS-9, AWS-10).

use std::net::TcpListener;
use std::time::Duration;

use super::credentials::{container, role, scene, signer, static_keys};
use super::fake::Fake;
use super::fake::credentials::{STATIC_ID, STATIC_SECRET};
use super::fake::fault::{Action, Fault};
use super::namespace::{Network, end_name_server, name_server, with_etc};
use super::scene::{AwsScene, canary, timed};

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
fn no_endpoint_of_the_environment_or_a_profile_sees_a_role_being_assumed() {
    let keys = format!("aws_access_key_id = {STATIC_ID}\naws_secret_access_key = {STATIC_SECRET}\n");
    let of_role = format!("role_arn = {}\nsource_profile = base\n", role());
    for name in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_STS", "endpoint_url"] {
        let evil = Fake::start();
        let in_profile =
            if name == "endpoint_url" { format!("endpoint_url = {}\n", evil.endpoint()) } else { String::new() };
        let scene = scene();
        let text = format!("[default]\n{of_role}{in_profile}[profile base]\n{keys}");
        let config = scene.scene.write_mode("config", text.as_bytes(), 0o600).display().to_string();
        let mut scene = scene.variable("AWS_CONFIG_FILE", &config).deadline("5s");
        if in_profile.is_empty() {
            scene = scene.variable(name, &evil.endpoint());
        }
        let outcome = scene.fails().expect_status(122);
        assert!(outcome.err().contains("an address outside AWS"), "{name}: {}", outcome.transcript());
        assert_eq!(evil.connections(), 0, "{name}");
        // Another host of a customer's below AWS's own domain is none of AWS's services.
        let gateway = "https://abc123.execute-api.eu-west-1.amazonaws.com";
        if in_profile.is_empty() {
            let outcome = scene.variable(name, gateway).fails().expect_status(122);
            assert!(outcome.err().contains("an address outside AWS"), "{name}: {}", outcome.transcript());
        }
    }
}

#[test]
fn the_metadata_service_is_nowhere_else_than_at_its_address() {
    let Some(network) = Network::with(&["169.254.169.254/32"]) else { return };
    network.inside(|| {
        let evil = Fake::start();
        let endpoint = evil.endpoint();
        let scene = scene().variable("AWS_EC2_METADATA_SERVICE_ENDPOINT", &endpoint).deadline("5s");
        scene.fails().expect_status(124);
        let text = format!("[default]\nec2_metadata_service_endpoint = {endpoint}\n");
        let config = scene.scene.write_mode("config", text.as_bytes(), 0o600).display().to_string();
        let scene = scene.variable("AWS_CONFIG_FILE", &config);
        scene.fails().expect_status(124);
        scene.fake.also_listen(TcpListener::bind(("169.254.169.254", 80)).unwrap(), None);
        assert_eq!(scene.environment()["A"], canary("A"));
        assert_eq!(signer(&scene), Some("imds"));
        // Nor where a profile names it as its source.
        let text = format!(
            "[default]\nrole_arn = {}\ncredential_source = Ec2InstanceMetadata\nec2_metadata_service_endpoint = {endpoint}\n",
            role()
        );
        scene.scene.write_mode("config", text.as_bytes(), 0o600);
        scene.fails();
        assert_eq!(evil.connections(), 0);
    });
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

#[test]
fn an_address_that_is_not_aws_is_not_even_connected_to() {
    let Some(network) = Network::with(&["10.9.9.9/32"]) else { return };
    network.inside(|| {
        name_server(true);
        let evil = Fake::listen(TcpListener::bind("127.0.0.1:443").unwrap(), None);
        evil.also_listen(TcpListener::bind("10.9.9.9:80").unwrap(), None);
        let files = [("resolv.conf", "nameserver 127.0.0.1\n"), ("hosts", "127.0.0.1 localhost\n")];
        for (name, value) in [
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "https://evil.example/credentials"),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "https://10.9.9.9/credentials"),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://10.9.9.9"),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "https://evil.example"),
        ] {
            let scene = scene().variable(name, value).deadline("5s");
            let policy = scene.policy();
            let arguments = ["run", "--policy", &policy, "--", "echo", "started"];
            let outcome = with_etc(&scene.scene, &files, &arguments);
            assert!(!outcome.status.success() && outcome.out().is_empty(), "{}", outcome.transcript());
            assert_eq!(evil.connections(), 0, "{name}={value}: {}", outcome.transcript());
        }
        // The listener does hear who comes.
        std::net::TcpStream::connect("10.9.9.9:80").unwrap();
        super::fake::server::eventually("the connection", || evil.connections() == 1);
        end_name_server();
    });
}

#[test]
fn localhost_a_region_of_the_environment_and_no_region() {
    let scene = static_keys(scene());
    let port = scene.fake.port();
    for endpoint in [format!("http://localhost:{port}"), format!("http://127.0.0.1:{port}/")] {
        let mut scene = AwsScene { stores: format!("endpoint = \"{endpoint}\"\n"), ..static_keys(self::scene()) };
        scene.stores.push_str("region = \"eu-west-1\"\n");
        // Its own fake has the parameter; the endpoint is that of the first.
        scene.run(&["true"]).expect_status(0);
    }
    assert_eq!(scene.fake.count("GetParameters"), 2);
    let mut scene = scene;
    scene.stores = format!("endpoint = \"http://127.0.0.1:{port}\"\n");
    let outcome = scene.fails().expect_status(121);
    assert!(outcome.err().contains("region"), "{}", outcome.transcript());
    assert_eq!(scene.fake.count("GetParameters"), 2);
    let scene = scene.variable("AWS_REGION", "eu-west-1");
    assert_eq!(scene.environment()["A"], canary("A"));
}
