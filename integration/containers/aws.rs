//! AWS from inside a container: where the credentials come from on ECS and EKS, and what happens while an answer is awaited.

use std::net::TcpListener;

use super::engine::Engine;
use super::image::PLAIN;
use crate::aws::credentials::signer_of;
use crate::aws::fake::credentials::{STATIC_ID, STATIC_SECRET};
use crate::aws::fake::fault::{Action, Fault};
use crate::aws::fake::server::eventually;
use crate::aws::fake::{Fake, REGION};
use crate::harness::Outcome;

const CANARY: &str = "canary-of-a-parameter-77c0";

/// An AWS on the host network of the containers, and a policy that names it.
struct Cloud<'e> {
    engine: &'e Engine,
    fake: Fake,
}

impl<'e> Cloud<'e> {
    fn new(engine: &'e Engine) -> Self {
        let fake = engine.network.inside(|| {
            let fake = Fake::start();
            fake.secure("/prod/api/DB_PASSWORD", CANARY);
            fake
        });
        Self { engine, fake }
    }

    /// Also at an address of its own on port 80.
    fn at(self, address: &str) -> Self {
        let listener = self.engine.network.inside(|| TcpListener::bind((address, 80)).unwrap());
        self.fake.also_listen(listener, None);
        self
    }

    /// The flags that every run has: the host's network, an unprivileged user, and the policy, mounted.
    fn flags(&self, lines: &str) -> Vec<String> {
        let text = format!(
            "version = 1\nenvironment = \"prod\"\nservice = \"aws\"\nstore = \"params\"\n\
             [stores.params]\ntype = \"ssm\"\nregion = \"{REGION}\"\nendpoint = \"{}\"\nprefix = \"/prod/api/\"\n{lines}\n\
             [secrets]\nDB_PASSWORD = {{}}\n[[grants]]\nsecrets = [\"*\"]\nto = {{ users = [65532] }}\n\
             [[audit.sinks]]\ntype = \"stderr\"\n",
            self.fake.endpoint()
        );
        let path = self.engine.scene.write("aws.toml", text.as_bytes());
        vec![
            "--network=host".into(),
            "--user=65532:65532".into(),
            "--read-only".into(),
            "--cap-drop=ALL".into(),
            "--entrypoint=/usr/local/bin/vouchsafe".into(),
            format!("--volume={}:/etc/vouchsafe/policies/prod/aws.toml:ro", path.display()),
        ]
    }

    fn run(&self, lines: &str, variables: &[(&str, &str)], more: &[&str]) -> Outcome {
        let flags = self.flags(lines);
        let variables: Vec<String> = variables.iter().map(|(name, value)| format!("--env={name}={value}")).collect();
        let all: Vec<&str> = flags.iter().chain(&variables).map(String::as_str).chain(more.iter().copied()).collect();
        self.engine.run(&all, PLAIN, &WORDS)
    }

    fn arrives(&self, source: &str, outcome: Outcome) -> String {
        let outcome = outcome.expect_status(0);
        assert!(outcome.out().contains(&format!("DB_PASSWORD={CANARY}\n")), "{}", outcome.transcript());
        assert_eq!(signer_of(&self.fake), Some(source), "{}", outcome.transcript());
        assert!(!outcome.err().contains(CANARY), "{}", outcome.transcript());
        outcome.out().to_owned()
    }
}

const WORDS: [&str; 8] = ["run", "--env", "prod", "--service", "aws", "--", "/app", "show"];

pub fn every_source(engine: &Engine) {
    let keys = [("AWS_ACCESS_KEY_ID", STATIC_ID), ("AWS_SECRET_ACCESS_KEY", STATIC_SECRET)];
    let cloud = Cloud::new(engine);
    let seen = cloud.arrives("static", cloud.run("", &keys, &[]));
    // The keys were the wrapper's means.
    assert!(!seen.contains("AWS_ACCESS_KEY_ID") && !seen.contains(STATIC_SECRET), "{seen}");

    // ECS: an address that only a task can reach, and a path that is the task's.
    let ecs = Cloud::new(engine).at("169.254.170.2");
    let variables = [("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/credentials/task")];
    let seen = ecs.arrives("container", ecs.run("credential_source = \"container\"", &variables, &[]));
    // The role may be the application's too.
    assert!(seen.contains("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI="), "{seen}");

    // EKS Pod Identity: a token that is mounted into the pod.
    let eks = Cloud::new(engine).at("169.254.170.23");
    eks.fake.world().credentials.container_token = Some("token-of-the-pod".into());
    let token = engine.scene.write("pod-token", b"token-of-the-pod").display().to_string();
    let inside = "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount/eks-pod-identity-token";
    let variables = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/credentials/pod"),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", inside),
    ];
    let mount = format!("--volume={token}:{inside}:ro");
    eks.arrives("container", eks.run("credential_source = \"container\"", &variables, &[&mount]));

    // EKS, IRSA: a web identity, also mounted.
    let irsa = Cloud::new(engine);
    let token = engine.scene.write("web-token", b"web.identity.token").display().to_string();
    let inside = "/var/run/secrets/eks.amazonaws.com/serviceaccount/token";
    let role = crate::aws::credentials::role();
    let variables = [("AWS_WEB_IDENTITY_TOKEN_FILE", inside), ("AWS_ROLE_ARN", role.as_str())];
    let mount = format!("--volume={token}:{inside}:ro");
    irsa.arrives("web-identity", irsa.run("credential_source = \"web-identity\"", &variables, &[&mount]));
}

/// A task without a role would be given its host's; a pinned source refuses instead.
pub fn a_pinned_source_has_no_fallback(engine: &Engine) {
    let cloud = Cloud::new(engine);
    let keys = [("AWS_ACCESS_KEY_ID", STATIC_ID), ("AWS_SECRET_ACCESS_KEY", STATIC_SECRET)];
    let outcome = cloud.run("credential_source = \"container\"", &keys, &[]).expect_status(124);
    assert!(outcome.err().contains("error[identity]") && outcome.out().is_empty(), "{}", outcome.transcript());
    assert_eq!(cloud.fake.count("GetParameters"), 0);
}

/// As PID 1 nothing ends a process that has no handler: the wrapper has one while it waits for an answer.
pub fn a_signal_while_it_fetches(engine: &Engine) {
    for (signal, number) in [("TERM", 15), ("INT", 2), ("HUP", 1), ("QUIT", 3)] {
        let cloud = Cloud::new(engine);
        cloud.fake.fault(Fault::on("GetParameters", Action::Silence));
        let mut flags = cloud.flags("");
        flags.push(format!("--env=AWS_ACCESS_KEY_ID={STATIC_ID}"));
        flags.push(format!("--env=AWS_SECRET_ACCESS_KEY={STATIC_SECRET}"));
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let container = engine.begin(&flags, PLAIN, &WORDS);
        eventually("the request", || cloud.fake.count("GetParameters") == 1);
        if signal == "TERM" {
            let stopped = container.stop(5);
            assert_eq!(stopped.status, 128 + number);
            assert_eq!(stopped.said, "", "the command has started");
        } else {
            assert_eq!(container.kill(signal), 128 + number, "{signal}");
        }
    }
}
