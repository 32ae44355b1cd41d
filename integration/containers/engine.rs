//! A container engine of our own: Debian's `dockerd` in a private folder, network and mount namespace. It listens on a Unix
//! socket, its containers see loopback and nothing else, and it leaves nothing behind.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::aws::fake::server::eventually;
use crate::aws::namespace::Network;
use crate::harness::{Outcome, Scene, wait_within};
use crate::have;

/// The addresses at which ECS and EKS hand out credentials, on the loopback of the engine's network: what is on the "host"
/// network of these containers.
const ADDRESSES: [&str; 2] = ["169.254.170.2/32", "169.254.170.23/32"];

/// No command of the engine takes longer, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A running engine. Removes its containers and ends when dropped.
pub struct Engine {
    daemon: Child,
    pub network: Network,
    /// The images' secrets, policy and identity; everything of the engine lies below its folder.
    pub scene: Scene,
    count: AtomicUsize,
}

impl Engine {
    /// Starts it; says loudly what is skipped where that is not possible.
    pub fn start(scene: Scene) -> Option<Self> {
        if !have(&["dockerd", "docker", "containerd", "runc", "unshare", "cc", "busybox"], true) {
            return None;
        }
        let network = Network::with(&ADDRESSES)?;
        let at = scene.path("").display().to_string();
        scene.write("daemon.json", b"{}");
        // Its own /run: what containerd and the runtimes leave there goes with the namespace.
        let script = format!(
            "mount -t tmpfs none /run && exec dockerd --data-root {at}data --exec-root {at}exec \
             --host unix://{at}docker.sock --pidfile {at}docker.pid --config-file {at}daemon.json \
             --bridge none --iptables=false --ip6tables=false --storage-driver vfs"
        );
        let log = File::create(scene.path("daemon.log")).unwrap();
        let mut command = scene.other("unshare", &["-m", "sh", "-c", &script]);
        command.env("PATH", PATH).stdout(log.try_clone().unwrap()).stderr(log);
        let mut daemon = network.inside(|| command.spawn()).unwrap();
        let start = Instant::now();
        while UnixStream::connect(scene.path("docker.sock")).is_err() {
            let has_ended = daemon.try_wait().unwrap().is_some();
            if has_ended || start.elapsed() > Duration::from_secs(60) {
                daemon.kill().unwrap_or_default();
                daemon.wait().unwrap();
                let log = std::fs::read_to_string(scene.path("daemon.log")).unwrap_or_default();
                println!("\n{log}\nSKIPPED: containers (dockerd does not start here; its log is above)");
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let engine = Self { daemon, network, scene, count: AtomicUsize::new(0) };
        // The socket is there before it answers.
        eventually("the engine", || engine.docker(&["version"]).status.success());
        Some(engine)
    }

    /// A client's command.
    fn client(&self, words: &[&str]) -> Command {
        let mut command = self.scene.other("docker", words);
        command
            .env("PATH", PATH)
            .env("DOCKER_HOST", format!("unix://{}", self.scene.path("docker.sock").display()))
            .env("DOCKER_CONFIG", self.scene.path("client"))
            // The builder of the daemon itself: the other one is a plugin that may not be there.
            .env("DOCKER_BUILDKIT", "0")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// `docker words...`
    pub fn docker(&self, words: &[&str]) -> Outcome {
        let output = wait_within(self.client(words).spawn().unwrap(), PATIENCE);
        self.scene.outcome(&[&["docker"], words].concat(), output)
    }

    /// What `docker words...` prints; it has to succeed.
    pub fn ask(&self, words: &[&str]) -> String {
        self.docker(words).expect_status(0).out().trim().to_owned()
    }

    /// Builds the image `tag` from a folder that holds a `Dockerfile`.
    pub fn build(&self, tag: &str, folder: &Path) {
        self.ask(&["build", "--quiet", "--network", "none", "--tag", tag, folder.to_str().unwrap()]);
    }

    /// Builds an image of these lines; `FROM` what was built before.
    pub fn derive(&self, tag: &str, dockerfile: &str) {
        let folder = self.folder(&format!("derived-{tag}"));
        std::fs::write(folder.join("Dockerfile"), dockerfile).unwrap();
        self.build(tag, &folder);
    }

    /// A new folder of this name.
    pub fn folder(&self, name: &str) -> PathBuf {
        let folder = self.scene.path(name);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn name(&self) -> String {
        format!("test-{}", self.count.fetch_add(1, Ordering::Relaxed))
    }

    /// Runs a container to its end.
    pub fn run(&self, flags: &[&str], image: &str, words: &[&str]) -> Outcome {
        self.docker(&[&["run", "--rm"], flags, &[image], words].concat())
    }

    /// Starts a container that has yet to say `ready`.
    pub fn begin(&self, flags: &[&str], image: &str, words: &[&str]) -> Container<'_> {
        let name = self.name();
        let line = [&["run", "--name", &name], flags, &[image], words].concat();
        let mut client = self.client(&line).spawn().unwrap();
        let out = BufReader::new(client.stdout.take().unwrap());
        let err = client.stderr.take().unwrap();
        Container { engine: self, name, client, out, err, said: String::new() }
    }

    /// Starts a container and waits until it says `ready`.
    pub fn start_ready(&self, flags: &[&str], image: &str, words: &[&str]) -> Container<'_> {
        let mut container = self.begin(flags, image, words);
        container.read_until("ready\n");
        container
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let left = self.docker(&["ps", "--all", "--quiet"]);
        let left: Vec<&str> = left.out().split_whitespace().collect();
        if !left.is_empty() {
            self.docker(&[&["rm", "--force", "--volumes"], &left[..]].concat());
        }
        let pid = rustix::process::Pid::from_child(&self.daemon);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap_or_default();
        let start = Instant::now();
        while self.daemon.try_wait().unwrap().is_none() {
            if start.elapsed() > Duration::from_secs(30) {
                self.daemon.kill().unwrap_or_default();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A container with its client in the foreground. Removed when dropped.
pub struct Container<'e> {
    engine: &'e Engine,
    pub name: String,
    client: Child,
    out: BufReader<ChildStdout>,
    err: ChildStderr,
    /// Its standard output so far.
    pub said: String,
}

impl Container<'_> {
    /// Reads its standard output up to this line.
    pub fn read_until(&mut self, line: &str) {
        loop {
            let mut next = String::new();
            if self.out.read_line(&mut next).unwrap() == 0 {
                let mut err = String::new();
                self.err.read_to_string(&mut err).unwrap();
                panic!("it ended before it said {line:?}: {}{err}", self.said);
            }
            self.said.push_str(&next);
            if next == line {
                return;
            }
        }
    }

    /// A field of what the engine knows of it.
    pub fn inspect(&self, format: &str) -> String {
        self.engine.ask(&["inspect", "--format", format, &self.name])
    }

    /// The id of its first process, as this host counts. Not before it runs.
    pub fn pid(&self) -> u32 {
        self.inspect("{{.State.Pid}}").parse().unwrap()
    }

    /// The environment of its first process, as the kernel has it.
    pub fn environ(&self) -> String {
        environ(self.pid())
    }

    /// `docker stop`: how long it took, the status, and what it said last.
    pub fn stop(mut self, seconds: u32) -> Stopped {
        let start = Instant::now();
        self.engine.ask(&["stop", "--time", &seconds.to_string(), &self.name]);
        let took = start.elapsed();
        self.out.read_to_string(&mut self.said).unwrap();
        Stopped { took, status: self.status(), said: self.said.clone() }
    }

    /// `docker kill`: the status.
    pub fn kill(mut self, signal: &str) -> i32 {
        self.engine.ask(&["kill", "--signal", signal, &self.name]);
        self.status()
    }

    /// Waits for its end: its status, by the client and by the engine.
    pub fn status(&mut self) -> i32 {
        let status = self.client.wait().unwrap().code().unwrap();
        assert_eq!(self.inspect("{{.State.ExitCode}}"), status.to_string());
        status
    }

    /// How many of the processes below its first one are dead and not waited for.
    pub fn zombies(&self) -> usize {
        zombies_below(self.pid())
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        self.engine.docker(&["rm", "--force", &self.name]);
        self.client.kill().unwrap_or_default();
        self.client.wait().unwrap();
    }
}

/// How a container ended on `docker stop`.
pub struct Stopped {
    pub took: Duration,
    pub status: i32,
    pub said: String,
}

/// The environment of a process of this host; empty if there is none.
pub fn environ(pid: u32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    String::from_utf8(bytes).unwrap()
}

/// The children of a process of this host (proc_pid_task(5)).
pub fn children(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|child| child.parse().unwrap()).collect()
}

fn zombies_below(pid: u32) -> usize {
    let is_dead = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("State:") && line.contains('Z'))
    };
    children(pid).into_iter().map(|child| usize::from(is_dead(child)) + zombies_below(child)).sum()
}
