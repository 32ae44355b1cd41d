//! MariaDB from Debian and `deploy/rotate/mariadb-alternating`: a program of the operator's against a real server, in every
//! shell that may be `/bin/sh`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use vouchsafe::name::{EnvironmentName, VariableName};
use vouchsafe::policy::model::Program;
use vouchsafe::rotate::apply::command::CommandTarget;
use vouchsafe::rotate::target::{Target, TargetError};
use vouchsafe::secret::Secret;

use crate::aws::fake::server::eventually;
use crate::have;
use crate::postgres::{folder, free_port, rotate, secret, text, unprivileged};

const RECIPE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/rotate/mariadb-alternating");

/// A running server, ended when dropped.
struct MariaDb {
    child: Child,
    folder: PathBuf,
    port: u16,
}

impl MariaDb {
    fn start() -> Option<Self> {
        if !have(&["mariadb", "mariadb-install-db"], false) || !Path::new("/usr/sbin/mariadbd").exists() {
            return None;
        }
        let folder = folder("mariadb");
        let data = format!("--datadir={}", folder.join("data").display());
        let made = unprivileged(Path::new("/usr/bin/mariadb-install-db"))
            .args(["--no-defaults", &data, "--auth-root-authentication-method=normal", "--skip-test-db"])
            .env("TMPDIR", &folder)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = free_port();
        let server = Self { child: Self::spawn(&folder, port), folder, port };
        server.wait_until_ready();
        server.sql(
            "CREATE DATABASE shop; CREATE TABLE shop.orders (id int); CREATE ROLE app; GRANT SELECT ON shop.* TO app",
        );
        server.sql("CREATE USER app_a@'%' IDENTIFIED BY 'canary-a'; CREATE USER app_b@'%' ACCOUNT LOCK");
        server.sql(
            "GRANT app TO app_a@'%', app_b@'%'; SET DEFAULT ROLE app FOR app_a@'%'; SET DEFAULT ROLE app FOR app_b@'%'",
        );
        server.sql("CREATE USER rotator@'%' IDENTIFIED BY 'canary-rotator'; GRANT CREATE USER ON *.* TO rotator@'%'");
        server.sql("GRANT SELECT ON mysql.* TO rotator@'%'");
        Some(server)
    }

    fn spawn(folder: &Path, port: u16) -> Child {
        let at = folder.display();
        let mut command = unprivileged(Path::new("/usr/sbin/mariadbd"));
        command.env("TMPDIR", folder).arg("--no-defaults").args([
            format!("--datadir={at}/data"),
            format!("--socket={at}/socket"),
            format!("--pid-file={at}/pid"),
            format!("--port={port}"),
            format!("--general-log-file={at}/general.log"),
        ]);
        command.args([
            "--bind-address=127.0.0.1",
            "--general-log",
            "--skip-name-resolve",
            "--innodb-flush-log-at-trx-commit=0",
        ]);
        command.args(["--innodb-buffer-pool-size=16M", "--skip-ssl"]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn wait_until_ready(&self) {
        eventually("MariaDB", || self.client(&["-u", "root"], "SELECT 1").status.success());
    }

    fn client(&self, options: &[&str], sql: &str) -> Output {
        let socket = format!("--socket={}", self.folder.join("socket").display());
        Command::new("mariadb")
            .args(["--no-defaults", &socket, "-BN", "-e", sql])
            .args(options)
            .env_clear()
            .output()
            .unwrap()
    }

    fn sql(&self, sql: &str) -> String {
        let output = self.client(&["-u", "root"], sql);
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn url(&self, user: &str, password: &str) -> String {
        format!("mysql://{user}:{password}@127.0.0.1:{}/shop?charset=utf8mb4", self.port)
    }

    fn logs_in(&self, user: &str, password: &str) -> bool {
        let port = self.port.to_string();
        let password = format!("-p{password}");
        self.client(
            &["-h", "127.0.0.1", "-P", &port, "--protocol=tcp", "-u", user, &password],
            "SELECT * FROM shop.orders",
        )
        .status
        .success()
    }

    fn stop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        self.child.wait().unwrap();
    }

    /// What the server logged, and has on its disk of users.
    fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.folder.join("general.log")).unwrap()).into_owned()
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.stop();
        }
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

/// The recipe where nobody else can write, under a shell.
struct Recipe {
    folder: PathBuf,
    program: Program,
    secret: VariableName,
    environment: EnvironmentName,
}

impl Recipe {
    fn new(shell: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("vouchsafe-recipe-{}-{}", std::process::id(), free_port()));
        std::fs::create_dir(&folder).unwrap();
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o700)).unwrap();
        // By another process: while this one has it open for writing, a fork elsewhere would keep it from being executed.
        let made = Command::new("sh")
            .args([
                "-c",
                "{ printf '#!%s\\n' \"$1\"; tail -n +2 \"$2\"; } >\"$3\" && chmod 700 \"$3\"",
                "-",
                shell,
                RECIPE,
            ])
            .arg(folder.join("recipe"))
            .status()
            .unwrap();
        assert!(made.success());
        Self {
            program: Program { path: folder.join("recipe"), timeout: Duration::from_secs(30), needs: Vec::new() },
            folder,
            secret: VariableName::new("DATABASE_URL").unwrap(),
            environment: EnvironmentName::new("prod").unwrap(),
        }
    }

    fn target(&self, admin: &str) -> CommandTarget<'_> {
        let needs = vec![(VariableName::new("MARIADB_ADMIN_URL").unwrap(), secret(admin))];
        CommandTarget::new(&self.program, &self.secret, &self.environment, needs).unwrap()
    }
}

impl Drop for Recipe {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

/// What a step failed with: the error, and what the program said, in neither of them a value.
fn refused<T>(target: &mut CommandTarget<'_>, result: Result<T, TargetError>, word: &str) -> TargetError {
    let Err(error) = result else { panic!("it was done, where it was to be refused: {word}") };
    let said = format!("{}\n{}", error.problem, target.remarks().join("\n"));
    assert!(said.contains(word), "no {word:?} in {said}");
    assert!(!said.contains("canary"), "{said}");
    error
}

#[test]
fn the_recipe_rotates_in_every_shell() {
    let Some(server) = MariaDb::start() else { return };
    let mut current = secret(&server.url("app_a", "canary-a"));
    let mut before = "canary-a".to_owned();
    let mut users = ["app_a", "app_b"];
    for (round, shell) in ["/bin/sh", "/bin/bash", "/usr/bin/busybox sh", "/bin/dash"].into_iter().enumerate() {
        let recipe = Recipe::new(shell);
        let mut target = recipe.target(&server.url("rotator", "canary-rotator"));
        let password = format!("canary-{round}_x.y~z");
        let pending = target.compose(Some(&current), secret(&password)).unwrap();
        assert_eq!(text(&pending), server.url(users[1], &password), "{shell}");
        assert!(target.verify(&pending).is_err(), "nothing is applied yet");
        target
            .apply(Some(&current), &pending)
            .unwrap_or_else(|error| panic!("{shell}: {error}: {:?}", target.remarks()));
        target.verify(&pending).unwrap();
        assert!(server.logs_in(users[0], &before) && server.logs_in(users[1], &password), "both work: {shell}");
        // Again, as after a kill, also where the current one is of no use any more.
        target.apply(Some(&current), &pending).unwrap();
        for _ in 0..2 {
            target.retire(&current, &pending).unwrap();
            assert!(!server.logs_in(users[0], &before) && server.logs_in(users[1], &password), "{shell}");
        }
        target.apply(Some(&current), &pending).unwrap();
        (current, before) = (pending, password);
        users.swap(0, 1);
    }
    let log = server.log();
    assert!(log.contains("IDENTIFIED WITH mysql_native_password AS '*") && log.contains("ACCOUNT LOCK"), "{log}");
    // The set-up of this test is in the log with the passwords it begins with, the rotations are not.
    for value in ["canary-0", "canary-1", "canary-2", "canary-3"] {
        assert!(!log.contains(value), "{value}: {log}");
    }
}

/// Every exec of every shell: the arguments of a process are for everybody to read.
#[test]
fn no_value_is_in_the_arguments_of_any_process() {
    if !have(&["strace"], false) {
        return;
    }
    let Some(server) = MariaDb::start() else { return };
    let (current, pending) = (server.url("app_a", "canary-a"), server.url("app_b", "canary-b"));
    let admin = server.url("rotator", "canary-rotator");
    for shell in ["/bin/dash", "/bin/bash", "/usr/bin/busybox sh"] {
        let recipe = Recipe::new(shell);
        let trace = recipe.folder.join("trace");
        for step in ["create", "apply", "verify", "retire"] {
            let output = Command::new("strace")
                .args(["-f", "-s", "100000", "-e", "trace=execve,open,openat,creat,write", "-o"])
                .arg(&trace)
                .arg(&recipe.program.path)
                .env_clear()
                .env("PATH", "/usr/bin:/bin")
                .env("VOUCHSAFE_STEP", step)
                .env("VOUCHSAFE_CURRENT", if step == "retire" { &pending } else { &current })
                .env("VOUCHSAFE_PENDING", &pending)
                .env("VOUCHSAFE_PREVIOUS", &current)
                .env("VOUCHSAFE_GENERATED", "canary-b")
                .env("MARIADB_ADMIN_URL", &admin)
                .output()
                .unwrap();
            assert!(output.status.success(), "{shell} {step}: {}", String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8_lossy(&std::fs::read(&trace).unwrap()).into_owned();
            let execs: Vec<&str> = text.lines().filter(|line| line.contains("execve(")).collect();
            assert!(step == "create" || execs.iter().any(|line| line.contains("--defaults-file=/dev/fd/3")), "{text}");
            for exec in execs {
                for value in ["canary", "app_a", "app_b", "rotator"] {
                    assert!(!exec.contains(value), "{shell} {step}: {exec}");
                }
            }
            // Bash 5.0 and older keep a here-document in a file; there is none here, nor anything else that is made.
            let made = text.lines().find(|line| line.contains("O_CREAT") && !line.contains("/dev/null"));
            assert!(made.is_none(), "{shell} {step}: {made:?}");
        }
        server.sql("ALTER USER app_a@'%' ACCOUNT UNLOCK; ALTER USER app_b@'%' ACCOUNT LOCK");
    }
}

#[test]
fn the_recipe_refuses_what_it_must() {
    let Some(mut server) = MariaDb::start() else { return };
    let recipe = Recipe::new("/bin/sh");
    let admin = server.url("rotator", "canary-rotator");
    let mut target = recipe.target(&admin);
    let current = secret(&server.url("app_a", "canary-a"));
    let pending = secret(&server.url("app_b", "canary-new"));
    let hash =
        |server: &MariaDb| server.sql("SELECT group_concat(authentication_string ORDER BY User) FROM mysql.user");
    let before = hash(&server);
    let elsewhere = |value: &Secret| secret(&text(value).replace("127.0.0.1", "127.0.0.2"));
    for (current, pending, word) in [
        (
            secret(&server.url("app_a", "canary-wrong")),
            pending.duplicate(),
            "the current value does not work, so nothing was changed",
        ),
        (secret(&server.url("root_a", "canary-a")), pending.duplicate(), "not for the other user"),
        (elsewhere(&current), pending.duplicate(), "the current value is for another server"),
        (current.duplicate(), elsewhere(&pending), "the pending value is for another server"),
        (current.duplicate(), secret("canary"), "no mysql:// URL"),
        (current.duplicate(), secret(&server.url("app_b", "can'ary")), "does not know"),
        (current.duplicate(), secret(&server.url("app_b%00", "canary")), "does not know"),
        (current.duplicate(), secret(&server.url("app_a", "canary-new")), "not for the other user"),
    ] {
        let result = target.apply(Some(&current), &pending);
        refused(&mut target, result, word);
    }
    let result = target.apply(None, &pending);
    refused(&mut target, result, "no current value that could prove itself");
    let result = target.compose(Some(&secret(&server.url("app", "canary-a"))), secret("canary-new"));
    refused(&mut target, result, "neither in _a nor in _b");
    assert_eq!(hash(&server), before);
    // The other user may less; there is none; the administrator is none.
    server.sql("GRANT INSERT ON shop.* TO app_a@'%'");
    let result = target.apply(Some(&current), &pending);
    refused(&mut target, result, "the grants of both users differ");
    server.sql("GRANT INSERT ON shop.* TO app_b@'%'; DROP USER app_b@'%'");
    let result = target.apply(Some(&current), &pending);
    refused(&mut target, result, "there is no user: CREATE USER");
    let mut other = recipe.target(&server.url("rotator", "canary-wrong"));
    let result = other.apply(Some(&current), &pending);
    refused(&mut other, result, "as administrator: ERROR 1045");
    // A user that is retired is not, once it has a newer password.
    server.sql("CREATE USER app_b@'%' IDENTIFIED BY 'canary-newer'");
    target.retire(&secret(&server.url("app_b", "canary-older")), &current).unwrap();
    assert!(server.client(&["-u", "app_b", "-pcanary-newer"], "SELECT 1").status.success());
    // A server that is away may come back.
    server.stop();
    let result = rotate(&mut target, &current, "canary-late");
    let error = refused(&mut target, result, "could not do the step `apply` now (exit status 75)");
    assert!(error.hint.is_some_and(|hint| hint.contains("rotate DATABASE_URL --resume")));
}
