//! What `vouchsafe run` costs with Parameter Store 20 ms away: 1, 10 and 200 parameters, over TLS where the host file can be
//! ours. `benches/run-aws` builds what this starts and makes the place that it runs in; the numbers come from one run and
//! stand side by side.
//!
//! The far end is the fake of the integration tests behind a proxy that delays every byte by 10 ms each way, and the first one
//! of a connection by a whole round trip, as the handshake of TCP would.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    missing_docs,
    dead_code,
    unreachable_pub
)]

#[path = "../integration/aws/fake/mod.rs"]
mod fake;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fake::Fake;
use fake::credentials::{STATIC_ID, STATIC_SECRET};

const ROUND_TRIP: Duration = Duration::from_millis(20);

fn main() {
    // `cargo test --all-targets` starts every bench; without what `benches/run-aws` says there is nothing to measure.
    let (Some(binary), Some(folder)) = (path_of("VOUCHSAFE_BINARY"), path_of("AWS_BENCH_FOLDER")) else {
        println!("start it by benches/run-aws");
        return;
    };
    let rounds: usize = std::env::var("ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let tls = std::env::var_os("AWS_BENCH_TLS").is_some();
    let fake = if tls { Fake::start_tls(certificate(&folder)) } else { Fake::start() };
    for number in 0..200 {
        fake.secure(&format!("/bench/S{number:03}"), "0123456789abcdef0123456789abcdef");
    }
    let proxy = Proxy::start(fake.port());
    let scheme = if tls { "https" } else { "http" };
    println!("20 ms round trip, {scheme}, static keys, 20 in flight, {rounds} rounds: median (least)");
    println!("parameters        whole run    round trips    start to first byte    peak RSS");
    let empty = measure(&binary, &policy(&folder, scheme, proxy.port, 0), &proxy, rounds);
    for count in [1, 10, 200] {
        let policy = policy(&folder, scheme, proxy.port, count);
        let runs = measure(&binary, &policy, &proxy, rounds);
        let whole = median(&runs.iter().map(|run| run.whole).collect::<Vec<_>>());
        let least = runs.iter().map(|run| run.whole).min().unwrap();
        let own = median(&empty.iter().map(|run| run.whole).collect::<Vec<_>>());
        let first = median(&runs.iter().map(|run| run.first.unwrap()).collect::<Vec<_>>());
        let memory = runs.iter().map(|run| run.memory).max().unwrap();
        println!(
            "{count:>10} {:>9.1} ({:>5.1}) ms {:>11.1} {:>19.1} ms {:>11.1} MB",
            millis(whole),
            millis(least),
            whole.saturating_sub(own).as_secs_f64() / ROUND_TRIP.as_secs_f64(),
            millis(first),
            f64::from(memory) / 1024.0
        );
    }
    let own = median(&empty.iter().map(|run| run.whole).collect::<Vec<_>>());
    println!("no AWS at all {:>6.1} ms", millis(own));
}

struct Run {
    whole: Duration,
    /// From the start of the program to its first byte.
    first: Option<Duration>,
    /// Kilobytes.
    memory: u32,
}

fn measure(binary: &Path, policy: &Path, proxy: &Proxy, rounds: usize) -> Vec<Run> {
    let one = |_| {
        proxy.first.lock().unwrap().take();
        let mut command = Command::new(binary);
        command.args(["run", "--policy"]).arg(policy).args(["--", "/bin/true"]);
        command.env_clear().env("AWS_ACCESS_KEY_ID", STATIC_ID).env("AWS_SECRET_ACCESS_KEY", STATIC_SECRET);
        let start = Instant::now();
        let mut child = command.stdin(Stdio::null()).spawn().unwrap();
        let mut memory: u32 = 0;
        let status = loop {
            // The wrapper's own high-water mark, until it is `true` or gone.
            let text = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
            if text.starts_with("Name:\tvouchsafe") {
                let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
                let now = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
                memory = memory.max(now.unwrap_or(0));
            }
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None => std::thread::sleep(Duration::from_micros(200)),
            }
        };
        let whole = start.elapsed();
        assert!(status.success(), "{status}");
        let first = proxy.first.lock().unwrap().map(|at| at.duration_since(start));
        Run { whole, first, memory }
    };
    (0..rounds).map(one).collect()
}

fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted[sorted.len() / 2]
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn path_of(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from)
}

fn policy(folder: &Path, scheme: &str, port: u16, count: usize) -> PathBuf {
    let names: String = (0..count).map(|number| format!("S{number:03} = {{}}\n")).collect();
    let text = format!(
        "version = 1\nenvironment = \"bench\"\nstore = \"params\"\n[stores.params]\ntype = \"ssm\"\nregion = \"{}\"\n\
         endpoint = \"{scheme}://127.0.0.1:{port}\"\nprefix = \"/bench/\"\nin_flight = 20\n[secrets]\n{names}\
         [[audit.sinks]]\ntype = \"file\"\npath = \"{}/audit.jsonl\"\nsync = false\n{}",
        fake::REGION,
        folder.display(),
        if count == 0 { "" } else { "[[grants]]\nsecrets = [\"*\"]\nto = \"anyone\"\n" }
    );
    let path = folder.join(format!("policy-{count}.toml"));
    std::fs::write(&path, text).unwrap();
    path
}

/// A certificate for 127.0.0.1, of an authority that the host file of `benches/run-aws` names.
fn certificate(folder: &Path) -> Arc<rustls::ServerConfig> {
    let mut ca = rcgen::CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_key = rcgen::KeyPair::generate().unwrap();
    std::fs::write(folder.join("ca.pem"), ca.self_signed(&ca_key).unwrap().pem()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let own = rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap().signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    Arc::new(builder.with_no_client_auth().with_single_cert(vec![own.der().clone()], key).unwrap())
}

/// A line of 20 ms to a port of this host.
struct Proxy {
    port: u16,
    /// When the first byte of a run came.
    first: Arc<Mutex<Option<Instant>>>,
}

impl Proxy {
    fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self { port: listener.local_addr().unwrap().port(), first: Arc::default() };
        let first = Arc::clone(&proxy.first);
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let near = near.unwrap();
                let far = TcpStream::connect(("127.0.0.1", target)).unwrap();
                near.set_nodelay(true).unwrap();
                far.set_nodelay(true).unwrap();
                let (back_from, back_to) = (far.try_clone().unwrap(), near.try_clone().unwrap());
                let first = Arc::clone(&first);
                let note = move || {
                    first.lock().unwrap().get_or_insert_with(Instant::now);
                };
                pump(near, far, ROUND_TRIP, note);
                pump(back_from, back_to, Duration::ZERO, || ());
            }
        });
        proxy
    }
}

/// Carries bytes over, each half a round trip late, the first ones `more`.
fn pump(mut from: TcpStream, mut to: TcpStream, more: Duration, note: impl Fn() + Send + 'static) {
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        let mut part = [0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut part) {
            note();
            if sender.send((Instant::now() + ROUND_TRIP / 2, part[..length].to_vec())).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        let mut late = more;
        for (due, bytes) in receiver {
            std::thread::sleep((due + late).saturating_duration_since(Instant::now()));
            late = Duration::ZERO;
            if to.write_all(&bytes).is_err() {
                return;
            }
        }
        to.shutdown(Shutdown::Both).unwrap_or_default();
    });
}
