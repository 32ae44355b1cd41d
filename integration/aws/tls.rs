//! TLS for real: certificates that are good, expired, for another name, or signed by nobody; the host file's CA; AWS's own
//! host names behind a name server of ours.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;

use super::fake::Fake;
use super::fake::credentials::{STATIC_ID, STATIC_SECRET};
use super::namespace::{Network, end_name_server, name_server, with_etc};
use super::scene::{AwsScene, canary, timed};
use crate::harness::Outcome;
use crate::have;

/// An authority that nobody knows but who is told.
pub struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Test CA");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    /// A certificate for these names and its key, in PEM.
    pub fn pems(&self, names: &[&str], from: i64, until: i64) -> (String, String) {
        let (params, key) = certificate(names, from, until);
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// A server with a certificate for these names, from so many days ago until in so many.
    fn server(&self, names: &[&str], from: i64, until: i64) -> Arc<rustls::ServerConfig> {
        let (params, key) = certificate(names, from, until);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        server(certificate.der().clone(), &key)
    }
}

fn certificate(names: &[&str], from: i64, until: i64) -> (CertificateParams, KeyPair) {
    let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    let at = |days: i64| {
        let shift = Duration::from_secs(days.unsigned_abs() * 86_400);
        if days < 0 { SystemTime::now() - shift } else { SystemTime::now() + shift }
    };
    params.not_before = at(from).into();
    params.not_after = at(until).into();
    (params, KeyPair::generate().unwrap())
}

fn server(certificate: rustls::pki_types::CertificateDer<'static>, key: &KeyPair) -> Arc<rustls::ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap())
}

fn scene(fake: Fake) -> AwsScene {
    fake.secure("/test/api/A", &canary("A"));
    let scene = AwsScene::without_credentials(fake).secrets("[secrets]\nA = {}\n");
    scene.variable("AWS_ACCESS_KEY_ID", STATIC_ID).variable("AWS_SECRET_ACCESS_KEY", STATIC_SECRET)
}

/// A run on a host whose file says this.
fn run_on_host(scene: &AwsScene, host: &str, more: &[(&str, &str)]) -> Outcome {
    let policy = scene.policy();
    let files = [&[("vouchsafe/host.toml", host)], more].concat();
    let outcome = with_etc(&scene.scene, &files, &["run", "--policy", &policy, "--", "printenv", "A"]);
    scene.says_nothing(&outcome);
    outcome
}

#[test]
fn an_authority_that_nobody_told_us_of_is_refused_and_sees_no_request() {
    let authority = Authority::new();
    let (params, key) = certificate(&["127.0.0.1"], -1, 1);
    let self_signed = server(params.self_signed(&key).unwrap().der().clone(), &key);
    for config in [authority.server(&["127.0.0.1"], -1, 1), self_signed] {
        let scene = scene(Fake::start_tls(config));
        // The environment cannot vouch for it either.
        let bundle = scene.scene.write("ca.pem", authority.pem.as_bytes()).display().to_string();
        let scene = scene.variable("AWS_CA_BUNDLE", &bundle).variable("SSL_CERT_FILE", &bundle).deadline("5s");
        let (outcome, took) = timed(|| scene.fails());
        assert_eq!(outcome.status.code(), Some(122), "{}", outcome.transcript());
        assert!(outcome.err().contains("signed by nobody"), "{}", outcome.transcript());
        assert!(scene.fake.records().is_empty() && took < Duration::from_secs(2), "{took:?}");
        assert_eq!(scene.fake.connections(), 1, "a certificate does not get better");
    }
}

#[test]
fn a_certificate_is_judged_by_date_and_name_under_the_hosts_authority() {
    if !have(&["unshare", "mount"], true) {
        return;
    }
    let authority = Authority::new();
    for (names, from, until, word) in [
        (["127.0.0.1"], -1, 1, None),
        (["127.0.0.1"], -10, -1, Some("expired")),
        (["127.0.0.1"], 1, 10, Some("not valid yet")),
        (["ssm.example.com"], -1, 1, Some("another name")),
        (["127.0.0.2"], -1, 1, Some("another name")),
    ] {
        let scene = scene(Fake::start_tls(authority.server(&names, from, until))).deadline("5s");
        let ca = scene.scene.write("ca.pem", authority.pem.as_bytes());
        let outcome = run_on_host(&scene, &format!("[network]\nca_files = [\"{}\"]\n", ca.display()), &[]);
        match word {
            None => assert_eq!(outcome.expect_status(0).out(), "canary-of-A\n"),
            Some(word) => {
                assert!(outcome.err().contains(word), "{names:?}: {}", outcome.transcript());
                assert!(outcome.out().is_empty() && scene.fake.records().is_empty());
                outcome.expect_status(122);
            }
        }
    }
    // Another authority in the file; a file that is none; a file that anybody may write.
    let good = authority.server(&["127.0.0.1"], -1, 1);
    let scene = scene(Fake::start_tls(good)).deadline("5s");
    let host = format!("[network]\nca_files = [\"{}\"]\n", scene.scene.path("ca.pem").display());
    scene.scene.write("ca.pem", Authority::new().pem.as_bytes());
    run_on_host(&scene, &host, &[]).expect_status(122);
    scene.scene.write("ca.pem", b"canary-of-garbage");
    run_on_host(&scene, &host, &[]).expect_status(121);
    scene.scene.write_mode("ca.pem", authority.pem.as_bytes(), 0o666);
    run_on_host(&scene, &host, &[]).expect_status(121);
    assert!(scene.fake.records().is_empty());
}

#[test]
fn the_environment_counts_where_the_host_file_says_so() {
    if !have(&["unshare", "mount"], true) {
        return;
    }
    let authority = Authority::new();
    let scene = scene(Fake::start_tls(authority.server(&["127.0.0.1"], -1, 1))).deadline("5s");
    let ca = scene.scene.write("ca.pem", authority.pem.as_bytes()).display().to_string();
    let endpoint = scene.fake.endpoint();
    let mut scene = scene.variable("AWS_ENDPOINT_URL", &endpoint).variable("AWS_CA_BUNDLE", &ca);
    scene.stores = "region = \"eu-west-1\"\n".into();
    let outcome = run_on_host(&scene, "[network]\nenv_endpoint = true\n", &[]);
    assert_eq!(outcome.expect_status(0).out(), "canary-of-A\n");
}

#[test]
fn the_host_names_of_aws_over_tls() {
    let Some(network) = Network::with(&[]) else { return };
    network.inside(|| {
        name_server(true);
        let authority = Authority::new();
        let names = ["ssm.eu-west-1.amazonaws.com", "sts.eu-west-1.amazonaws.com"];
        let fake = Fake::listen(TcpListener::bind("127.0.0.1:443").unwrap(), Some(authority.server(&names, -1, 1)));
        let mut scene = scene(fake).deadline("10s");
        let ca = scene.scene.write("ca.pem", authority.pem.as_bytes());
        let host = format!("[network]\nca_files = [\"{}\"]\n", ca.display());
        let files = [("resolv.conf", "nameserver 127.0.0.1\n"), ("hosts", "127.0.0.1 localhost\n")];
        scene.stores = "region = \"eu-west-1\"\n".into();
        assert_eq!(run_on_host(&scene, &host, &files).expect_status(0).out(), "canary-of-A\n");
        assert_eq!(scene.fake.records()[0].request.header("host"), Some("ssm.eu-west-1.amazonaws.com"));
        // A role of the profile, assumed with the keys of the profile, by the SDK's own means.
        let role = format!("arn:aws:iam::{}:role/reader", super::fake::ACCOUNT);
        let text = format!(
            "[profile base]\naws_access_key_id = {STATIC_ID}\naws_secret_access_key = {STATIC_SECRET}\n\
             [profile chain]\nrole_arn = {role}\nsource_profile = base\nregion = eu-west-1\n"
        );
        let config = scene.scene.write_mode("config", text.as_bytes(), 0o600).display().to_string();
        let scene = scene.variable("AWS_CONFIG_FILE", &config).stores("profile = \"chain\"\n");
        assert_eq!(run_on_host(&scene, &host, &files).expect_status(0).out(), "canary-of-A\n");
        let last = scene.fake.calls("GetParameters").pop().unwrap();
        assert_eq!(last.signed_with, Some("assume-role"));
        // An endpoint of AWS's own shape that is not AWS's: the certificate says so.
        let scene = scene.stores("endpoint = \"https://ssm.eu-west-1.amazonaws.com.evil.example\"\n");
        let before = scene.fake.count("GetParameters");
        let outcome = run_on_host(&scene, &host, &files).expect_status(122);
        assert!(outcome.err().contains("another name"), "{}", outcome.transcript());
        assert_eq!(scene.fake.count("GetParameters"), before);
        end_name_server();
    });
}
