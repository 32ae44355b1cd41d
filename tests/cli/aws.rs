//! The AWS stores as far as a loopback server of forty lines can show: what real parts show is in `integration/`.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{Outcome, Scene};

/// Answers every `GetParameters` with a SecureString for each name that was asked for; counts the calls.
struct Parameters {
    url: String,
    calls: Arc<AtomicUsize>,
}

impl Parameters {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                counter.fetch_add(1, Ordering::Relaxed);
                answer(stream.unwrap());
            }
        });
        Self { url, calls }
    }
}

fn answer(mut stream: std::net::TcpStream) {
    let mut request = Vec::new();
    let mut chunk = [0; 4096];
    let body = loop {
        let count = stream.read(&mut chunk).unwrap();
        request.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                break body.to_owned();
            }
        }
    };
    let asked: serde_json::Value = serde_json::from_str(&body).unwrap();
    let parameters: Vec<serde_json::Value> = asked["Names"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| {
            let arn = format!("arn:aws:ssm:eu-west-1:111122223333:parameter{}", name.as_str().unwrap());
            let value = format!("value of {}", name.as_str().unwrap());
            serde_json::json!({ "Name": name, "Type": "SecureString", "Value": value, "Version": 3, "ARN": arn })
        })
        .collect();
    let body = serde_json::json!({ "Parameters": parameters, "InvalidParameters": [] }).to_string();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.1\r\nConnection: close\r\n";
    write!(stream, "{head}x-amzn-RequestId: id-1\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
}

/// A policy with an age store and a Parameter Store at `endpoint`.
fn scene(endpoint: &str, more: &str) -> (Scene, String) {
    let scene = Scene::with(&[("LOCAL", "l")]);
    let policy = std::fs::read_to_string(scene.write_policy()).unwrap();
    let (stores, rest) = policy.split_once("[secrets]").unwrap();
    let age = stores.lines().find_map(|line| line.strip_prefix("[stores.")).unwrap().trim_end_matches(']').to_owned();
    let text = format!(
        "{stores}\n[stores.params]\ntype = \"ssm\"\nregion = \"eu-west-1\"\nendpoint = \"{endpoint}\"\nprefix = \"/p/\"\n{more}\n\
         [secrets]\nREMOTE = {{ store = \"params\" }}{}\n[run]\ndeadline = \"1s\"\n",
        rest.replace("LOCAL = {}", &format!("LOCAL = {{ store = \"{age}\" }}"))
    );
    let path = scene.write("aws.toml", text.as_bytes());
    let path = path.to_str().unwrap().to_owned();
    (scene.variable("AWS_EC2_METADATA_DISABLED", "true"), path)
}

fn with_keys(scene: Scene) -> Scene {
    scene.variable("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE").variable("AWS_SECRET_ACCESS_KEY", "canary")
}

fn run(scene: &Scene, policy: &str, only: &str) -> Outcome {
    scene.vouchsafe(&["run", "--policy", policy, "--only", only, "--", "env"])
}

#[test]
fn a_parameter_arrives_and_the_keys_that_fetched_it_do_not() {
    let server = Parameters::start();
    let (scene, policy) = scene(&server.url, "");
    let scene = with_keys(scene);
    let outcome = run(&scene, &policy, "REMOTE").expect_status(0);
    assert!(outcome.out().contains("REMOTE=value of /p/REMOTE"), "{}", outcome.out());
    assert!(!outcome.out().contains("AWS_ACCESS_KEY_ID") && !outcome.out().contains("canary"), "{}", outcome.out());
    let audit = std::fs::read_to_string(scene.path("audit.jsonl")).unwrap();
    assert!(audit.contains("\"version\":3") && audit.contains("id-1"), "{audit}");
    assert!(!audit.contains("value of") && !audit.contains("canary"), "{audit}");
}

#[test]
fn a_run_that_needs_no_aws_asks_none_and_keeps_the_keys() {
    let server = Parameters::start();
    let (scene, policy) = scene(&server.url, "");
    let scene = with_keys(scene);
    let outcome = run(&scene, &policy, "LOCAL").expect_status(0);
    assert!(outcome.out().contains("LOCAL=l") && outcome.out().contains("AWS_ACCESS_KEY_ID"), "{}", outcome.out());
    assert_eq!(server.calls.load(Ordering::Relaxed), 0);
}

#[test]
fn without_credentials_every_source_that_was_tried_is_named() {
    let server = Parameters::start();
    let (scene, policy) = scene(&server.url, "");
    let outcome = run(&scene, &policy, "REMOTE").expect_status(124);
    for source in ["environment", "profile", "web-identity", "container", "imds"] {
        assert!(outcome.err().contains(source), "{}", outcome.err());
    }
    assert_eq!(server.calls.load(Ordering::Relaxed), 0);
}

#[test]
fn a_pin_excludes_the_other_sources_and_another_account() {
    let server = Parameters::start();
    let (pinned, policy) = scene(&server.url, "credential_source = \"web-identity\"");
    let outcome = run(&with_keys(pinned), &policy, "REMOTE").expect_status(124);
    assert!(outcome.err().contains("web-identity") && !outcome.err().contains("environment"), "{}", outcome.err());
    let (pinned, policy) = scene(&server.url, "account = \"999999999999\"");
    let outcome = run(&with_keys(pinned), &policy, "REMOTE").expect_status(122);
    assert!(outcome.err().contains("111122223333") && !outcome.err().contains("value of"), "{}", outcome.err());
}

#[test]
fn what_never_answers_ends_with_the_deadline() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (scene, policy) = scene(&format!("http://{}", silent.local_addr().unwrap()), "");
    let started = Instant::now();
    let outcome = run(&with_keys(scene), &policy, "REMOTE").expect_status(122);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert!(outcome.err().contains("deadline"), "{}", outcome.err());
}

#[test]
fn the_iam_policy_of_a_policy_is_printed_without_asking_anybody() {
    let (scene, policy) = scene("https://vpce.example.net", "");
    for command in ["--iam", "--iam=set", "--iam=remove", "--iam=history"] {
        let outcome = scene.vouchsafe(&["check", "--policy", &policy, command]).expect_status(0);
        let document: serde_json::Value = serde_json::from_str(outcome.out()).unwrap();
        assert_eq!(document["Version"], "2012-10-17");
        assert!(outcome.out().contains("parameter/p/REMOTE"), "{command}: {}", outcome.out());
    }
}
