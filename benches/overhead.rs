//! What `vouchsafe run` adds to the start of a command, against a bare static exec wrapper, in one run.
//!
//! The contenders take turns, so that whatever else the machine does hits all of them alike. Printed are the minimum, the
//! median, the difference of medians to the bare wrapper, and the ratio. `benches/run` builds both binaries static, in
//! release, and calls this.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing, missing_docs)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use age::secrecy::ExposeSecret;

struct Contender {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    times: Vec<Duration>,
}

fn main() {
    let (Some(vouchsafe), Some(bare)) = (std::env::var_os("VOUCHSAFE_BINARY"), std::env::var_os("BARE_BINARY")) else {
        println!("run benches/run: it builds the binaries that are compared");
        return;
    };
    let rounds = std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(500);
    let folder = std::env::temp_dir().join(format!("vouchsafe-bench-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o700)).unwrap();
    let (vouchsafe, bare) = (PathBuf::from(vouchsafe), PathBuf::from(bare));

    println!("{rounds} rounds, /bin/true as the command; milliseconds");
    for count in [1, 20, 1000] {
        let variables: Vec<(String, String)> =
            (0..count).map(|n| (format!("SECRET_{n:04}"), format!("value-{n:04}-0123456789abcdef"))).collect();
        let base = Contender {
            name: format!("bare wrapper, {count} variables"),
            program: bare.clone(),
            arguments: vec!["/bin/true".into()],
            variables: variables.clone(),
            times: Vec::new(),
        };
        let mut contenders = vec![base];
        for (sync, kind) in [(false, "sealed"), (true, "sealed"), (false, "json")] {
            contenders.push(wrapper(&vouchsafe, &folder, &variables, sync, kind, Log::Chained));
        }
        if count == 20 {
            for log in [Log::Sealed, Log::Anchored(1000), Log::Anchored(1)] {
                contenders.push(wrapper(&vouchsafe, &folder, &variables, false, "sealed", log));
            }
        }
        for round in 0..rounds + 10 {
            for contender in &mut contenders {
                let time = contender.start();
                if round >= 10 {
                    contender.times.push(time);
                }
            }
        }
        report(&mut contenders);
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

impl Contender {
    fn start(&self) -> Duration {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear().envs(self.variables.iter().map(|(n, v)| (n, v)));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let start = Instant::now();
        let status = command.status().unwrap();
        let time = start.elapsed();
        assert!(status.success(), "{}: {status}", self.name);
        time
    }
}

/// What is done for the log to hold.
#[derive(Clone, Copy)]
enum Log {
    Chained,
    Sealed,
    /// Sealed, with a checkpoint to a file every so many records.
    Anchored(u32),
}

/// A policy that binds every variable by name, and its store.
fn wrapper(
    program: &Path,
    folder: &Path,
    variables: &[(String, String)],
    sync: bool,
    kind: &str,
    log: Log,
) -> Contender {
    let count = variables.len();
    let identity = age::x25519::Identity::generate();
    let (mark, log_name) = match log {
        Log::Chained => (String::new(), String::new()),
        Log::Sealed => ("-seals".to_owned(), ", log sealed".to_owned()),
        Log::Anchored(every) => (format!("-anchors-{every}"), format!(", log sealed, checkpoint every {every}")),
    };
    let stem = format!("{kind}-{count}-{sync}{mark}");
    let write = |name: String, content: &[u8], mode: u32| {
        let path = folder.join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        path.display().to_string()
    };
    let key = write(format!("{stem}.key"), identity.to_string().expose_secret().as_bytes(), 0o600);
    let plaintext = if kind == "json" {
        let flat: serde_json::Map<String, serde_json::Value> =
            variables.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        serde_json::to_string(&flat).unwrap()
    } else {
        let version = |value: &str| serde_json::json!({"number": 1, "time": "2026-01-01T00:00:00Z", "author": "bench", "value": value});
        let items: serde_json::Map<String, serde_json::Value> = variables
            .iter()
            .map(|(name, value)| (name.clone(), serde_json::json!({"current": version(value)})))
            .collect();
        serde_json::json!({"format": "vouchsafe-sealed/1", "environment": "bench", "service": null, "generation": 1, "items": items})
            .to_string()
    };
    let sealed = age::encrypt_and_armor(&identity.to_public(), plaintext.as_bytes()).unwrap();
    let store = write(format!("{stem}.age"), sealed.as_bytes(), 0o600);
    let format = if kind == "json" { "format = \"json\"\nunbound = true\n" } else { "" };
    let bindings: String = variables.iter().map(|(name, _)| format!("{name} = {{}}\n")).collect();
    let policy = format!(
        "version = 1\nenvironment = \"bench\"\nstore = \"files\"\n[stores.files]\ntype = \"age\"\npath = \"{store}\"\n{format}\
         identities = [\"file:{key}\"]\n[secrets]\n{bindings}[[grants]]\nsecrets = [\"*\"]\nto = \"anyone\"\n\
         [[audit.sinks]]\ntype = \"file\"\npath = \"{}/{stem}.jsonl\"\nsync = {sync}\n",
        folder.display()
    );
    let auditor = identity.to_public().to_string();
    let evidence = match log {
        Log::Chained => String::new(),
        Log::Sealed => format!("auditor = \"{auditor}\"\n"),
        Log::Anchored(every) => format!(
            "auditor = \"{auditor}\"\ncheckpoints = {{ every = {every}, interval = \"1h\", to = [\"file:{}/{stem}.notes\"] }}\n",
            folder.display()
        ),
    };
    if !evidence.is_empty() {
        let log = folder.join(format!("{stem}.jsonl"));
        let init = Command::new(program).args(["audit", "init", "--auditor", &auditor]).arg(log).output().unwrap();
        assert!(init.status.success());
    }
    let policy = write(format!("{stem}.toml"), (policy + &evidence).as_bytes(), 0o644);
    let arguments = ["run", "--policy", &policy, "--", "/bin/true"].map(str::to_owned).to_vec();
    let synced = if sync { ", synced audit" } else { "" };
    let name = format!("vouchsafe, {count} secrets, {kind}{synced}{log_name}");
    Contender { name, program: program.to_owned(), arguments, variables: Vec::new(), times: Vec::new() }
}

fn report(contenders: &mut [Contender]) {
    println!("{:62} {:>8} {:>8} {:>8} {:>6}", "", "min", "median", "added", "ratio");
    let mut base = None;
    for contender in contenders {
        contender.times.sort();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let (min, median) = (ms(contender.times[0]), ms(contender.times[contender.times.len() / 2]));
        let base = *base.get_or_insert(median);
        println!("{:62} {min:8.3} {median:8.3} {:+8.3} {:6.2}", contender.name, median - base, median / base);
    }
}
