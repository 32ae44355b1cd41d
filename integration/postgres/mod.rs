//! PostgreSQL from Debian: a server of its own for each test, as an unprivileged user on a free port of loopback, in a
//! temporary folder. What a test starts it ends, by its process id.

mod lost_answers;
pub mod proxy;
mod refusals;
mod standby;
mod strategies;
mod tls;

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use vouchsafe::name::VariableName;
use vouchsafe::policy::model::{HostNetwork, Roles};
use vouchsafe::rotate::apply::postgres::PostgresTarget;
use vouchsafe::rotate::target::{Target, TargetError};
use vouchsafe::secret::Secret;

use crate::aws::fake::server::eventually;

/// The superuser of the tests, whose name and password need every encoding.
pub const ADMIN: &str = "ad min";
pub const ADMIN_PASSWORD: &str = "adm:i/n@%41#?";
const ADMIN_URL: &str = "ad%20min:adm%3Ai%2Fn%40%2541%23%3F";
/// PostgreSQL refuses to run as root: `nobody`, then.
const NOBODY: u32 = 65_534;

/// What a server is started with.
#[derive(Default)]
pub struct Setup<'a> {
    /// Lines of `pg_hba.conf` that come before the common ones.
    pub hba: &'a str,
    /// Certificate and key in PEM.
    pub tls: Option<(String, String)>,
}

/// A running server, ended when dropped.
pub struct Postgres {
    child: Child,
    folder: PathBuf,
    pub port: u16,
}

/// The programs of the newest PostgreSQL of Debian.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let bins = versions.map(|version| version.path().join("bin")).filter(|bin| bin.join("initdb").exists());
    let found = bins.max();
    if found.is_none() || !Path::new("/usr/bin/psql").exists() {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        println!("\nSKIPPED: {test} (needs PostgreSQL, which integration/run installs)");
        return None;
    }
    found
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A program as an unprivileged user, in a clean environment.
pub fn unprivileged(program: &Path) -> Command {
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        let id = NOBODY.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--no-new-privs"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LANG", "C.UTF-8").current_dir("/").stdin(Stdio::null());
    command
}

/// Hands a file or folder to that user.
pub fn give_away(path: &Path) {
    if is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

/// A folder of that user's, and of nobody else.
pub fn folder(name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("vouchsafe-{name}-{}-{number}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o700)).unwrap();
    give_away(&folder);
    folder
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Postgres {
    pub fn start() -> Option<Self> {
        Self::with(Setup::default())
    }

    pub fn with(setup: Setup<'_>) -> Option<Self> {
        let programs = programs()?;
        let folder = folder("postgres");
        let data = folder.join("data");
        let password = folder.join("password");
        std::fs::write(&password, ADMIN_PASSWORD).unwrap();
        give_away(&password);
        let made = unprivileged(&programs.join("initdb"))
            .args(["--no-sync", "--encoding", "UTF8", "--locale", "C.UTF-8", "--auth", "scram-sha-256"])
            .args(["--username", ADMIN, "--pwfile"])
            .arg(&password)
            .arg("--pgdata")
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let hba = format!(
            "{}\nlocal all \"{ADMIN}\" trust\nlocal all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n",
            setup.hba
        );
        std::fs::write(data.join("pg_hba.conf"), hba).unwrap();
        let mut settings = format!(
            "listen_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nfsync = off\nmax_connections = 30\n\
             log_statement = all\nlog_connections = on\nlog_min_duration_statement = 0\nlog_error_verbosity = verbose\n",
            folder.display()
        );
        if let Some((certificate, key)) = setup.tls {
            for (name, text) in [("server.crt", certificate), ("server.key", key)] {
                let path = data.join(name);
                std::fs::write(&path, text).unwrap();
                std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
                give_away(&path);
            }
            settings.push_str("ssl = on\n");
        }
        std::fs::write(data.join("postgresql.auto.conf"), settings).unwrap();
        let port = free_port();
        let child = Self::spawn(&programs, &folder, port);
        let server = Self { child, folder, port };
        server.wait_until_ready();
        server.sql("CREATE DATABASE app");
        Some(server)
    }

    fn spawn(programs: &Path, folder: &Path, port: u16) -> Child {
        let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
        let mut command = unprivileged(&programs.join("postgres"));
        command.arg("-D").arg(folder.join("data")).args(["-p", &port.to_string()]);
        command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }

    fn wait_until_ready(&self) {
        eventually("PostgreSQL", || self.psql(&["-d", "postgres"], "SELECT 1").status.success());
    }

    /// Kills every process of the server at once, as a power cut would.
    pub fn crash(&mut self) {
        // The postmaster's end by SIGQUIT takes its children along without a word to clients or disk.
        self.signal(Signal::QUIT);
    }

    /// Starts it again where it was.
    pub fn start_again(&mut self) {
        self.child = Self::spawn(&programs().unwrap(), &self.folder, self.port);
        self.wait_until_ready();
    }

    fn signal(&mut self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        self.child.wait().unwrap();
    }

    fn psql(&self, options: &[&str], sql: &str) -> Output {
        Command::new("psql")
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", "app", "-U", ADMIN])
            .arg("-h")
            .arg(&self.folder)
            .args(["-p", &self.port.to_string(), "-c", sql])
            .args(options)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .output()
            .unwrap()
    }

    /// Runs SQL as the superuser in the database `app` (`postgres` while there is none).
    pub fn sql(&self, sql: &str) -> String {
        let options: &[&str] = if sql == "CREATE DATABASE app" { &["-d", "postgres"] } else { &[] };
        let output = self.psql(options, sql);
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A role that may log in.
    pub fn role(&self, name: &str, password: &str) -> &Self {
        let (name, password) = (name.replace('"', "\"\""), password.replace('\'', "''"));
        self.sql(&format!("CREATE ROLE \"{name}\" LOGIN PASSWORD '{password}'"));
        self
    }

    /// What the server keeps of a role's password.
    pub fn verifier(&self, role: &str) -> String {
        self.sql(&format!("SELECT coalesce(rolpassword, 'none') FROM pg_authid WHERE rolname = '{role}'"))
    }

    /// The administrator's URL.
    pub fn admin_url(&self) -> String {
        self.admin_url_at(&format!("127.0.0.1:{}", self.port))
    }

    pub fn admin_url_at(&self, place: &str) -> String {
        format!("postgres://{ADMIN_URL}@{place}/app")
    }

    /// A consumer's URL; user and password as they are written in one.
    pub fn url(&self, user: &str, password: &str) -> String {
        format!("postgres://{user}:{password}@127.0.0.1:{}/app", self.port)
    }

    /// The folder of its socket.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// All that it logged: every statement and connection.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.folder.join("log")).unwrap()).into_owned()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.signal(Signal::QUIT);
        }
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

/// Their client itself: what lies in PATH is Debian's wrapper of it, in Perl.
pub fn client() -> PathBuf {
    programs().unwrap().join("psql")
}

/// Whether somebody else's client gets in with a URL.
pub fn logs_in(url: &str) -> bool {
    let output = Command::new("psql").args(["-X", "-w", "-c", "SELECT 1", url]).env_clear().output().unwrap();
    output.status.success()
}

pub fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec())
}

pub fn text(secret: &Secret) -> String {
    String::from_utf8(secret.expose().to_vec()).unwrap()
}

pub fn policy(roles: Roles) -> vouchsafe::policy::model::Postgres {
    vouchsafe::policy::model::Postgres { admin: VariableName::new("ADMIN_URL").unwrap(), roles, check: None }
}

pub fn alternating() -> vouchsafe::policy::model::Postgres {
    policy(Roles::Alternating("app_a".into(), "app_b".into()))
}

pub fn single() -> vouchsafe::policy::model::Postgres {
    policy(Roles::Single("app".into()))
}

pub fn target<'a>(policy: &'a vouchsafe::policy::model::Postgres, admin: &str) -> PostgresTarget<'a> {
    let deadline = Instant::now() + Duration::from_secs(60);
    PostgresTarget::new(policy, secret(admin), &HostNetwork::default(), deadline).unwrap()
}

/// What is refused and why, without a value in it.
pub fn refused<T>(result: Result<T, TargetError>, words: &[&str]) -> TargetError {
    let Err(error) = result else { panic!("it was done, where it was to be refused: {words:?}") };
    let all = format!("{} / {}", error.problem, error.hint.clone().unwrap_or_default());
    for word in words {
        assert!(all.contains(word), "no {word:?} in {all:?}");
    }
    for value in [ADMIN_PASSWORD, "adm%3A", "canary", "SCRAM-SHA-256$"] {
        assert!(!all.contains(value), "{all:?}");
    }
    error
}

/// The two roles of an alternating credential and the group that both are of; the value is `app_a`'s.
pub fn pair(server: &Postgres) -> Secret {
    server.sql("CREATE ROLE app LOGIN; CREATE TABLE orders (id int); ALTER TABLE orders OWNER TO app");
    server.role("app_a", "canary-a").role("app_b", "canary-b");
    server.sql("GRANT app TO app_a, app_b");
    secret(&server.url("app_a", "canary-a"))
}

/// Rotates once, whole; the new value.
pub fn rotate(target: &mut dyn Target, current: &Secret, generated: &str) -> Result<Secret, TargetError> {
    let pending = target.compose(Some(current), secret(generated))?;
    target.apply(Some(current), &pending)?;
    target.verify(&pending)?;
    target.retire(current, &pending)?;
    Ok(pending)
}
