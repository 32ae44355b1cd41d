//! A scene: a folder with an identity, a store, a policy and a place for the audit log, and the real binary run in it.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use age::secrecy::ExposeSecret;

/// The binary under test.
pub const VOUCHSAFE: &str = env!("CARGO_BIN_EXE_vouchsafe");

/// No run of the binary takes longer, or it hangs: its own longest wait for a local file is 2 s.
const PATIENCE: Duration = Duration::from_secs(30);

/// A scene on disk, removed when dropped.
#[must_use]
pub struct Scene {
    folder: PathBuf,
    identity: age::x25519::Identity,
    stores: String,
    extra: String,
    grants: String,
    sinks: String,
    variables: Vec<(OsString, OsString)>,
}

/// What one run of the binary left.
pub struct Outcome {
    pub arguments: Vec<OsString>,
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    folder: PathBuf,
}

impl Scene {
    /// A scene with no secrets yet. Everything is granted to anyone; the audit goes to a file without sync.
    pub fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("vouchsafe-{}-{:016x}", std::process::id(), unique()));
        std::fs::create_dir(&folder).unwrap();
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o700)).unwrap();
        let identity = age::x25519::Identity::generate();
        let at = folder.display();
        let scene = Self {
            stores: format!(
                "[stores.files]\ntype = \"age\"\nformat = \"json\"\nunbound = true\npath = \"{at}/store.age\"\n\
                 identities = [\"file:{at}/identity.key\"]\n"
            ),
            sinks: format!(
                "[[audit.sinks]]\ntype = \"file\"\npath = \"{}/audit.jsonl\"\nsync = false\n",
                folder.display()
            ),
            folder: folder.clone(),
            identity,
            extra: String::new(),
            grants: "[[grants]]\nsecrets = [\"*\"]\nto = \"anyone\"\n".into(),
            variables: Vec::new(),
        };
        scene.write_mode("identity.key", scene.identity.to_string().expose_secret().as_bytes(), 0o600);
        scene
    }

    /// A scene with a store of these values, each bound under its own name.
    pub fn with(values: &[(&str, &str)]) -> Self {
        let mut scene = Self::new();
        scene.store(values);
        scene.extra = values.iter().fold("[secrets]\n".to_owned(), |mut text, (name, _)| {
            writeln!(text, "{name} = {{}}").unwrap();
            text
        });
        scene
    }

    /// A scene whose store is a sealed file with versions, not written yet; these names are bound.
    pub fn sealed(names: &[&str]) -> Self {
        let mut scene = Self::new();
        let at = scene.folder.display();
        scene.stores = format!(
            "[stores.files]\ntype = \"age\"\npath = \"{at}/sealed.age\"\nrecipients = [\"{}\"]\n\
             identities = [\"file:{at}/identity.key\"]\n",
            scene.recipient()
        );
        scene.extra = names.iter().fold("[secrets]\n".to_owned(), |text, name| text + name + " = {}\n");
        scene
    }

    /// Replaces the tables of the stores.
    pub fn stores(mut self, text: &str) -> Self {
        text.clone_into(&mut self.stores);
        self
    }

    /// Writes the store file: what `age -r` would make of a JSON object.
    pub fn store(&self, values: &[(&str, &str)]) {
        let object: serde_json::Map<String, serde_json::Value> =
            values.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        self.store_plaintext(serde_json::to_string(&object).unwrap().as_bytes());
    }

    /// Writes the store file with this plaintext.
    pub fn store_plaintext(&self, plaintext: &[u8]) {
        self.write("store.age", &age::encrypt(&self.identity.to_public(), plaintext).unwrap());
    }

    /// Replaces everything of the policy after its stores: secrets, child, run.
    pub fn policy(mut self, text: &str) -> Self {
        text.clone_into(&mut self.extra);
        self
    }

    /// Adds to the policy.
    pub fn and(mut self, text: &str) -> Self {
        self.extra.push_str(text);
        self.extra.push('\n');
        self
    }

    /// Replaces the grants.
    pub fn grants(mut self, text: &str) -> Self {
        text.clone_into(&mut self.grants);
        self
    }

    /// Replaces the sinks.
    pub fn sinks(mut self, text: &str) -> Self {
        text.clone_into(&mut self.sinks);
        self
    }

    /// Sets a variable of the wrapper's own environment.
    pub fn variable(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.variables.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// The folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The age recipient of the scene's identity.
    pub fn recipient(&self) -> String {
        self.identity.to_public().to_string()
    }

    /// Writes a file with mode 0644.
    pub fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        self.write_mode(name, content, 0o644)
    }

    /// Writes a file.
    pub fn write_mode(&self, name: &str, content: &[u8], mode: u32) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        path
    }

    /// Writes the policy file and gives its path.
    pub fn write_policy(&self) -> PathBuf {
        let text = format!(
            "version = 1\nenvironment = \"test\"\nstore = \"files\"\n\n{}\n{}\n{}\n{}",
            self.stores, self.extra, self.grants, self.sinks
        );
        self.write("policy.toml", text.as_bytes())
    }

    /// The binary with `arguments`, in a clean environment, in the scene's folder.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(VOUCHSAFE);
        command.args(arguments).current_dir(&self.folder);
        self.clean(&mut command);
        command
    }

    /// Any other program, in the same clean environment.
    pub fn other<S: AsRef<OsStr>>(&self, program: &str, arguments: &[S]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.folder);
        self.clean(&mut command);
        command
    }

    fn clean(&self, command: &mut Command) {
        command.env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
    }

    /// `vouchsafe run --policy policy.toml -- command...`
    pub fn run<S: AsRef<OsStr>>(&self, child: &[S]) -> Outcome {
        let arguments = self.run_arguments(child);
        self.vouchsafe(&arguments)
    }

    /// The arguments of [`Self::run`], with the policy written.
    pub fn run_arguments<S: AsRef<OsStr>>(&self, child: &[S]) -> Vec<OsString> {
        let policy = self.write_policy();
        let own = [OsStr::new("run"), OsStr::new("--policy"), policy.as_os_str(), OsStr::new("--")];
        own.into_iter().chain(child.iter().map(AsRef::as_ref)).map(OsStr::to_owned).collect()
    }

    /// The binary with `arguments`.
    pub fn vouchsafe<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Outcome {
        self.vouchsafe_reading(arguments, b"")
    }

    /// The binary with `arguments` and a standard input.
    pub fn vouchsafe_reading<S: AsRef<OsStr>>(&self, arguments: &[S], input: &[u8]) -> Outcome {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // The binary may end without reading it all.
        child.stdin.take().unwrap().write_all(input).unwrap_or_default();
        let output = wait(child);
        self.outcome(arguments, output)
    }

    /// What a run of the binary left that was started otherwise.
    pub fn outcome<S: AsRef<OsStr>>(&self, arguments: &[S], output: Output) -> Outcome {
        Outcome {
            arguments: arguments.iter().map(|argument| argument.as_ref().to_owned()).collect(),
            status: output.status,
            stdout: output.stdout,
            stderr: output.stderr,
            folder: self.folder.clone(),
        }
    }

    /// `vouchsafe VERB ... --policy policy.toml`, with the policy written and a standard input.
    pub fn verb_reading(&self, words: &[&str], input: &[u8]) -> Outcome {
        let policy = self.write_policy();
        let at = words.iter().position(|word| *word == "--").unwrap_or(words.len());
        let (own, rest) = words.split_at(at);
        let line = [own, &["--policy", policy.to_str().unwrap()], rest].concat();
        self.vouchsafe_reading(&line, input)
    }

    /// [`Self::verb_reading`] nothing.
    pub fn verb(&self, words: &[&str]) -> Outcome {
        self.verb_reading(words, b"")
    }

    /// The records of the scene's audit log.
    pub fn audit(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.path("audit.jsonl")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The events of the scene's audit log, in order.
    pub fn events(&self) -> Vec<String> {
        self.audit().iter().map(|record| record["event"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::env::var_os("VOUCHSAFE_TEST_KEEP").is_none() {
            std::fs::remove_dir_all(&self.folder).unwrap_or_default();
        }
    }
}

impl Outcome {
    /// Standard output as text.
    pub fn out(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// Standard error as text.
    pub fn err(&self) -> &str {
        std::str::from_utf8(&self.stderr).unwrap()
    }

    /// Fails loudly unless the status is `expected`.
    pub fn expect_status(self, expected: i32) -> Self {
        assert_eq!(self.status.code(), Some(expected), "{}", self.transcript());
        self
    }

    /// Fails loudly unless it ended by this signal.
    pub fn expect_signal(self, expected: i32) -> Self {
        assert_eq!(self.status.signal(), Some(expected), "{}", self.transcript());
        self
    }

    /// Everything that a user saw, with the scene's folder and the uid left out.
    pub fn transcript(&self) -> String {
        let arguments: Vec<_> = self.arguments.iter().map(|argument| argument.to_string_lossy()).collect();
        let stream = |name: &str, bytes: &[u8]| {
            if bytes.is_empty() { String::new() } else { format!("--- {name}\n{}", String::from_utf8_lossy(bytes)) }
        };
        let text = format!(
            "$ vouchsafe {}\nstatus: {}\n{}{}",
            arguments.join(" "),
            self.status.code().map_or_else(|| format!("signal {:?}", self.status.signal()), |code| code.to_string()),
            stream("stdout", &self.stdout),
            stream("stderr", &self.stderr)
        );
        text.replace(&self.folder.display().to_string(), "[DIR]")
    }
}

/// Waits for the end of the child; one that hangs is killed, and fails the test.
pub fn wait(child: Child) -> Output {
    wait_within(child, PATIENCE)
}

/// The same, for another program than ours.
pub fn wait_within(child: Child, patience: Duration) -> Output {
    let pid = rustix::process::Pid::from_child(&child);
    let (ended, still_there) = mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        let hangs = matches!(still_there.recv_timeout(patience), Err(mpsc::RecvTimeoutError::Timeout));
        if hangs {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap_or_default();
        }
        hangs
    });
    let output = child.wait_with_output().unwrap();
    drop(ended);
    assert!(!watch.join().unwrap(), "it hangs: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// A number that no other scene of this machine has.
fn unique() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
