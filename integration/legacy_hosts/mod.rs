//! Hosts as they have long been: a sysvinit script under `start-stop-daemon`, services of runit, php-fpm, and what systemd does
//! to a unit. Each gets its secrets from an agent with a user of its own, as a user who can read neither identity nor sealed
//! file nor audit log, from the examples of `deploy/` **as they are**: they lie where they would lie, in mount and PID
//! namespaces in which the host's own `/etc`, `/run`, `/var/lib`, `/var/log`, `/opt` and `/usr/local/bin` are not seen.

mod php_fpm;
mod runit;
mod systemd;
mod sysvinit;
mod unit;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::harness::{Scene, VOUCHSAFE, wait};
use crate::have;
use crate::supervised::children;

/// Its own folders for what is written, so that nothing of the machine changes. All of it ends with its first process.
const MOUNTS: &str = r#"set -e
mount -t tmpfs -o mode=0755 tmpfs "$1"
cp -a /etc "$1/etc"
rm -rf "$1/etc/vouchsafe" "$1/etc/default/vouchsafe-agent" "$1/etc/service"
mount --bind "$1/etc" /etc
for folder in /run /var/lib /var/log /opt /usr/local/bin; do mount -t tmpfs -o mode=0755 tmpfs $folder; done
mkdir -p /etc/service
install -D -m 0755 "$2" /usr/local/bin/vouchsafe
install -D -m 0755 "$3" /opt/api/bin/api
for user in api shop stranger; do
  useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin $user
done
echo ready
exec cat
"#;

/// A file of `deploy/`.
fn shipped(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)).unwrap()
}

/// A host on which the agent is installed, and does not run yet. `api` and `shop` have a secret each; `stranger` has none.
struct Host {
    scene: Scene,
    first: Child,
    /// Its first process, by our number.
    init: u32,
}

impl Host {
    /// `None` where something is missing, which is said.
    fn start(programs: &[&str]) -> Option<Self> {
        if !have(&[&["cc", "nsenter", "setpriv", "tini", "unshare", "useradd"], programs].concat(), true) {
            return None;
        }
        let scene = Scene::new();
        std::fs::set_permissions(scene.path(""), PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::create_dir(scene.path("tmpfs")).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/legacy_hosts/app.c");
        let compiled = scene.other("cc", &["-o", "api", source.to_str().unwrap()]).status().unwrap();
        assert!(compiled.success());
        let words = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private", "tini"];
        let mut command = scene.other("unshare", &[&words[..], &["--", "sh", "-c", MOUNTS, "sh"]].concat());
        command.arg(scene.path("tmpfs")).arg(VOUCHSAFE).arg(scene.path("api")).env("PATH", PATH);
        let mut first = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(first.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n");
        let init = children(first.id())[0];
        let host = Self { scene, first, init };
        host.install();
        Some(host)
    }

    /// What `docs/platforms.md` says to do.
    fn install(&self) {
        let example = "age1aa2lu4r4zwjtxv6qyfr8j9ygtjqqr73ejghk33e7zrqyk5xng5jsncxsrg";
        self.copy("agent/set-up", "/opt/set-up", 0o755);
        self.ok(&["sh", "/opt/set-up"], "");
        self.copy("agent/host.toml", "/etc/vouchsafe/host.toml", 0o644);
        for service in ["api", "shop"] {
            let name = format!("policies/prod/{service}.toml");
            let policy = shipped(&format!("agent/{name}"));
            assert!(policy.contains(example));
            self.write(&format!("/etc/vouchsafe/{name}"), &policy.replace(example, &self.scene.recipient()), 0o644);
        }
        let key = std::fs::read_to_string(self.scene.path("identity.key")).unwrap();
        self.write("/etc/vouchsafe/prod.key", &key, 0o600);
        self.set("api", "DATABASE_URL", "canary-of-api");
        self.set("shop", "SHOP_DATABASE_URL", "canary-of-shop");
        let for_the_agent = ["/etc/vouchsafe/prod.key", API_STORE, SHOP_STORE];
        self.ok(&[&["sh", "/opt/set-up"], &for_the_agent[..]].concat(), "");
    }

    /// Puts an example where it belongs.
    fn copy(&self, name: &str, to: &str, mode: u32) {
        self.write(to, &shipped(name), mode);
    }

    fn write(&self, path: &str, text: &str, mode: u32) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    }

    /// A path of the host, from outside.
    fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// A command on the host, by root, in an environment without means.
    fn command(&self, words: &[&str]) -> Command {
        let init = self.init.to_string();
        let mut command = self.scene.other("nsenter", &["--target", &init, "--mount", "--pid", "--"]);
        command.args(words).env("PATH", PATH);
        command
    }

    fn run(&self, words: &[&str], input: &str) -> Output {
        let mut command = self.command(words);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap_or_default();
        wait(child)
    }

    /// What a command that succeeds prints.
    fn ok(&self, words: &[&str], input: &str) -> String {
        let output = self.run(words, input);
        assert!(output.status.success(), "{words:?}: {}", text_of(&output));
        text_of(&output)
    }

    /// A command by another user.
    fn run_as(&self, user: &str, words: &[&str]) -> Output {
        let own = ["setpriv", "--reuid", user, "--regid", user, "--init-groups"];
        self.run(&[&own[..], words].concat(), "")
    }

    /// A new value, as an operator would bring it in.
    fn set(&self, service: &str, name: &str, value: &str) {
        let policy = format!("/etc/vouchsafe/policies/prod/{service}.toml");
        self.ok(&["/usr/local/bin/vouchsafe", "set", name, "--policy", &policy], value);
    }

    /// A new value that counts at once.
    fn replace(&self, service: &str, name: &str, value: &str) {
        self.set(service, name, value);
        self.ok(&["/usr/local/bin/vouchsafe", "agent", "flush", "--env", "prod"], "");
    }

    /// The environment of a process of the host, by its number there.
    fn environment(&self, pid: &str) -> Vec<String> {
        let bytes = std::fs::read(self.path(&format!("/proc/{pid}/environ"))).unwrap();
        bytes.split(|byte| *byte == 0).map(|entry| String::from_utf8_lossy(entry).into_owned()).collect()
    }

    /// Its real user, by the host's name.
    fn user_of(&self, pid: &str) -> String {
        let status = self.read(&format!("/proc/{pid}/status"));
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap().split_whitespace().next().unwrap();
        self.ok(&["id", "-un", uid], "").trim().to_owned()
    }

    /// Whether it is there, and has not ended.
    fn lives(&self, pid: &str) -> bool {
        let stat = std::fs::read_to_string(self.path(&format!("/proc/{pid}/stat"))).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    }

    /// The agent's log, checked.
    fn audit(&self) -> Vec<serde_json::Value> {
        let path = format!("/var/log/vouchsafe/{}/audit.jsonl", self.ok(&["id", "-u", "vouchsafe"], "").trim());
        self.ok(&["/usr/local/bin/vouchsafe", "audit", "verify", &path], "");
        self.read(&path).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The last release, or refusal, is written down by the agent for this user and service.
    fn was_last(&self, event: &str, user: &str, service: &str) {
        let uid = |name: &str| self.ok(&["id", "-u", name], "").trim().parse::<u64>().unwrap();
        let records = self.audit();
        let last = records.iter().rfind(|record| record["event"].as_str().unwrap().starts_with("access.")).unwrap();
        assert_eq!(last["event"], event, "{last}");
        assert_eq!((last["assurance"].as_str(), last["service"].as_str()), (Some("agent"), Some(service)), "{last}");
        assert_eq!(last["actor"]["uid"], uid(user), "{last}");
        assert_eq!(last["actor"]["agent"]["uid"], uid("vouchsafe"), "{last}");
        assert!(!serde_json::to_string(&records).unwrap().contains("canary"));
    }

    /// This user has no other way to the secrets than the agent.
    fn has_no_means(&self, user: &str) {
        let log = format!("/var/log/vouchsafe/{}/audit.jsonl", self.ok(&["id", "-u", "vouchsafe"], "").trim());
        for file in ["/etc/vouchsafe/prod.key", API_STORE, SHOP_STORE, &log] {
            assert!(self.path(file).exists(), "{file}");
            let read = self.run_as(user, &["cat", file]);
            assert!(
                !read.status.success() && text_of(&read).contains("Permission denied"),
                "{file}: {}",
                text_of(&read)
            );
        }
        let line = ["/usr/local/bin/vouchsafe", "run", "--no-agent", "--env", "prod", "--service", "api", "--", "true"];
        let direct = self.run_as(user, &line);
        // Refused; and where it would be written down, only the agent may write.
        assert_eq!(direct.status.code(), Some(123), "{}", text_of(&direct));
        assert!(text_of(&direct).contains("demands that its secrets come through the agent"), "{}", text_of(&direct));
    }

    /// Starts the agent by its sysvinit script, for tests that are about something else.
    fn agent(&self) {
        self.copy("sysvinit/vouchsafe-agent", "/etc/init.d/vouchsafe-agent", 0o755);
        self.ok(&["/etc/init.d/vouchsafe-agent", "start"], "");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Its first process dies with it, and takes all others along.
        self.first.kill().unwrap_or_default();
        self.first.wait().map(drop).unwrap_or_default();
    }
}

const API_STORE: &str = "/etc/vouchsafe/secrets/prod-api.age";
const SHOP_STORE: &str = "/etc/vouchsafe/secrets/prod-shop.age";

/// Nothing takes longer, or it hangs.
const PATIENCE: Duration = Duration::from_secs(30);

const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

fn text_of(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The other end of `NOTIFY_SOCKET`: what systemd would hear.
struct Manager {
    path: PathBuf,
    socket: UnixDatagram,
}

impl Manager {
    /// On the host, where any of its users may say something.
    fn new(host: &Host) -> Self {
        let path = host.scene.path("notify.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { path, socket }
    }

    fn hear(&self) -> String {
        let mut buffer = [0; 500];
        let count = self.socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    }

    /// Once what was said before is heard, nothing comes for so long.
    fn hear_nothing_for(&self, time: Duration) {
        let mut buffer = [0; 500];
        self.socket.set_nonblocking(true).unwrap();
        while self.socket.recv(&mut buffer).is_ok() {}
        self.socket.set_nonblocking(false).unwrap();
        self.socket.set_read_timeout(Some(time)).unwrap();
        let heard = self.socket.recv(&mut buffer);
        assert!(heard.is_err(), "{}", String::from_utf8_lossy(&buffer));
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }

    /// The next word that starts so; what comes before is passed over.
    fn hear_of(&self, word: &str) -> String {
        loop {
            let heard = self.hear();
            if heard.starts_with(word) {
                return heard;
            }
        }
    }
}

/// A process of a host that a test waits for.
struct Running(Option<Child>);

impl Running {
    fn end(&mut self) -> Output {
        wait(self.0.take().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            child.kill().unwrap_or_default();
            child.wait().map(drop).unwrap_or_default();
        }
    }
}
