//! What the agent costs and carries: a whole command through it against a bare static exec wrapper, resolves in a second on
//! one core, the same with a synced audit log beside what the disk itself can do, and memory with 1,000 secrets cached.
//!
//! The agent has one core to itself, the callers have another one. Each resolve is a connection of its own, as `run` makes it:
//! credentials, policy, cache, two records, 20 values. `benches/run-agent` builds both binaries static, in release, and calls
//! this. ROUNDS=n: commands of each kind; CROWD_SECONDS=n: how long each crowd asks.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    missing_docs
)]

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use age::secrecy::ExposeSecret;
use rustix::thread::{CpuSet, sched_setaffinity};
use vouchsafe::agent::protocol::encode_request;
use vouchsafe::agent::protocol::request::{Ask, CommandClaim, Purpose, Request};
use vouchsafe::name::EnvironmentName;

fn main() {
    let (Some(vouchsafe), Some(bare)) = (std::env::var_os("VOUCHSAFE_BINARY"), std::env::var_os("BARE_BINARY")) else {
        println!("run benches/run-agent: it builds the binaries that are compared");
        return;
    };
    let number = |name: &str, usual: u32| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    let (rounds, time) = (number("ROUNDS", 500), Duration::from_secs(number("CROWD_SECONDS", 3).into()));
    let vouchsafe = std::path::absolute(vouchsafe).unwrap();

    memory(&vouchsafe);
    commands(&vouchsafe, Path::new(&bare), rounds as usize);
    for sync in [false, true] {
        crowds(&vouchsafe, sync, time);
    }
}

fn memory(vouchsafe: &Path) {
    println!("memory");
    for count in [20, 1000] {
        let agent = Agent::start(vouchsafe, count, false, None);
        let before = agent.resident();
        for _ in 0..100 {
            agent.resolve(&request());
        }
        let after = agent.resident();
        println!(
            "{count:5} secrets: {:5.1} MB resident at its start, {:5.1} MB with all of them cached ({:.1} MB not backed by the binary)",
            before.0, after.0, after.1
        );
    }
}

/// Whole commands, which take turns.
fn commands(vouchsafe: &Path, bare: &Path, rounds: usize) {
    println!("\nwhole commands: {rounds} rounds, /bin/true as the command, 20 secrets; milliseconds");
    println!("{:45} {:>8} {:>8} {:>8} {:>6}", "", "min", "median", "added", "ratio");
    let agent = Agent::start(vouchsafe, 20, false, None);
    let through = format!("--agent={}", agent.socket().display());
    let variables: Vec<(String, String)> = values(20).collect();
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..rounds + 10 {
        for (index, times) in times.iter_mut().enumerate() {
            let mut command = Command::new(if index == 0 { bare } else { vouchsafe });
            command.env_clear().stdin(Stdio::null());
            if index == 0 {
                command.arg("/bin/true").envs(variables.iter().map(|(name, value)| (name, value)));
            } else {
                command.args(["run", &through, "--env", "bench", "--", "/bin/true"]);
            }
            let start = Instant::now();
            assert!(command.status().unwrap().success());
            if round >= 10 {
                times.push(start.elapsed());
            }
        }
    }
    let mut base = None;
    for (name, times) in
        ["bare wrapper, 20 variables", "vouchsafe through the agent, 20 secrets"].iter().zip(&mut times)
    {
        times.sort();
        let (min, median) = (ms(times[0]), ms(times[times.len() / 2]));
        let base = *base.get_or_insert(median);
        println!("{name:45} {min:8.3} {median:8.3} {:+8.3} {:6.2}", median - base, median / base);
    }
}

/// Callers that ask again as soon as they have an answer.
fn crowds(vouchsafe: &Path, sync: bool, time: Duration) {
    let agent = Agent::start(vouchsafe, 20, sync, Some(0));
    println!("\nresolves of 20 secrets, the agent on one core, its log {}", if sync { "synced" } else { "not synced" });
    let beside = if sync { "   the disk alone" } else { "" };
    println!(
        "{:>8} {:>10} {:>10} {:>10} {:>10} {:>14}{beside}",
        "callers", "each s", "p50 ms", "p99 ms", "max ms", "CPU us each"
    );
    let request = request();
    for callers in [1, 2, 4, 16, 64] {
        // Just before, since a disk that others use too is not the same for long.
        let alone = if sync { format!("{:17.0}", disk(&agent.folder, time / 3)) } else { String::new() };
        let (cpu, start) = (agent.cpu(), Instant::now());
        let mut times: Vec<Duration> = std::thread::scope(|scope| {
            let asking: Vec<_> = (0..callers)
                .map(|_| {
                    scope.spawn(|| {
                        pin(1);
                        let mut times = Vec::new();
                        while start.elapsed() < time {
                            let start = Instant::now();
                            agent.resolve(&request);
                            times.push(start.elapsed());
                        }
                        times
                    })
                })
                .collect();
            asking.into_iter().flat_map(|asking| asking.join().unwrap()).collect()
        });
        let (elapsed, cpu) = (start.elapsed(), agent.cpu() - cpu);
        times.sort();
        let at = |part: usize| ms(times[(times.len() * part / 100).min(times.len() - 1)]);
        let rate = times.len() as f64 / elapsed.as_secs_f64();
        let each = cpu.as_secs_f64() * 1e6 / times.len() as f64;
        println!("{callers:8} {rate:10.0} {:10.3} {:10.3} {:10.3} {each:14.0}{alone}", at(50), at(99), at(100));
    }
}

/// How often in a second the disk syncs 2 KiB that were appended.
fn disk(folder: &Path, time: Duration) -> f64 {
    let mut file = std::fs::File::create(folder.join("disk")).unwrap();
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < time {
        file.write_all(&[b'x'; 2048]).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}

struct Agent {
    folder: PathBuf,
    child: Child,
}

impl Agent {
    fn start(vouchsafe: &Path, count: usize, sync: bool, core: Option<usize>) -> Self {
        let folder = std::env::temp_dir().join(format!("vouchsafe-bench-{}", std::process::id()));
        let write = |name: &str, content: &[u8], mode: u32| {
            let path = folder.join(name);
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        };
        std::fs::create_dir_all(folder.join("policies")).unwrap();
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o700)).unwrap();
        let at = folder.display();
        let identity = age::x25519::Identity::generate();
        write("key", identity.to_string().expose_secret().as_bytes(), 0o600);
        let flat: serde_json::Map<String, serde_json::Value> =
            values(count).map(|(name, value)| (name, value.into())).collect();
        let flat = serde_json::to_string(&flat).unwrap();
        write("store.age", age::encrypt_and_armor(&identity.to_public(), flat.as_bytes()).unwrap().as_bytes(), 0o600);
        let bindings: String = values(count).map(|(name, _)| format!("{name} = {{}}\n")).collect();
        let policy = format!(
            "version = 1\nenvironment = \"bench\"\nstore = \"files\"\n[stores.files]\ntype = \"age\"\npath = \"{at}/store.age\"\n\
             format = \"json\"\nunbound = true\nidentities = [\"file:{at}/key\"]\n[secrets]\n{bindings}[[grants]]\n\
             secrets = [\"*\"]\nto = \"anyone\"\n[cache]\nttl = \"1h\"\n"
        );
        write("policies/bench.toml", policy.as_bytes(), 0o644);
        let host = format!("[[audit.sinks]]\ntype = \"file\"\npath = \"{at}/audit.jsonl\"\nsync = {sync}\n");
        write("host.toml", host.as_bytes(), 0o644);
        let notify = folder.join("notify");
        let notify_socket = UnixDatagram::bind(&notify).unwrap();
        notify_socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut command = Command::new(vouchsafe);
        if let Some(core) = core {
            command = Command::new("taskset");
            command.args(["-c", &core.to_string()]).arg(vouchsafe);
        }
        command.args(["agent", "--policies", "policies", "--host", "host.toml", "--socket", "agent.sock"]);
        command.current_dir(&folder).env_clear().env("PATH", "/usr/bin:/bin").env("NOTIFY_SOCKET", &notify);
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let child = command.stdin(Stdio::null()).stderr(log).spawn().unwrap();
        let mut word = [0; 100];
        let count = notify_socket.recv(&mut word).expect("the agent is ready");
        assert!(word[..count].starts_with(b"READY=1"));
        Self { folder, child }
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("agent.sock")
    }

    /// One answer, over a connection of its own.
    fn resolve(&self, request: &[u8]) {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.write_all(request).unwrap();
        let mut header = [0; 4];
        stream.read_exact(&mut header).unwrap();
        let mut body = vec![0; u32::from_be_bytes(header) as usize];
        stream.read_exact(&mut body).unwrap();
        // The version, and the number of `Reply::Granted`.
        assert_eq!(body[..2], [1, 0], "nothing was granted");
    }

    /// Resident megabytes, and how many of them are no file's.
    fn resident(&self) -> (f64, f64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_ascii_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
        };
        (field("VmRSS:"), field("RssAnon:"))
    }

    /// What it has used of processors so far.
    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let (_, rest) = stat.rsplit_once(')').unwrap();
        let ticks: u64 = rest.split_ascii_whitespace().skip(11).take(2).map(|text| text.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

fn values(count: usize) -> impl Iterator<Item = (String, String)> {
    (0..count).map(|n| (format!("SECRET_{n:04}"), format!("value-{n:04}-0123456789abcdef")))
}

fn request() -> Vec<u8> {
    let path = PathBuf::from("/usr/bin/true");
    encode_request(&Request::Resolve(Ask {
        environment: EnvironmentName::new("bench").unwrap(),
        service: None,
        only: None,
        command: Some(CommandClaim { found: path.clone(), canonical: path, arguments: 0, sha256: None }),
        parent: std::process::id(),
        terminal: None,
        purpose: Purpose::Become,
    }))
    .unwrap()
}

/// This thread keeps to one core, where there are several.
fn pin(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).unwrap_or_default();
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
