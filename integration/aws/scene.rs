//! A scene with AWS in it: a policy with a store `params` (ssm) and a store `sealed` (kms), the fake behind both, and the
//! real binary with static keys in its environment.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::fake::credentials::{STATIC_ID, STATIC_SECRET};
use super::fake::{Fake, REGION, kms};
use crate::harness::{Outcome, Scene};

pub struct AwsScene {
    pub scene: Scene,
    pub fake: Fake,
    /// The key of the store `sealed`.
    pub key: String,
    /// Lines of both AWS stores' tables.
    pub stores: String,
    /// Lines of the table of `params` alone.
    pub params: String,
    /// Lines of the table of `sealed` alone.
    pub sealed: String,
    /// Everything from `[secrets]` on, but for grants and sinks.
    pub secrets: String,
    pub deadline: &'static str,
    /// More of `[run]`.
    pub run_rules: &'static str,
    /// More of the sink.
    pub sink: String,
}

/// What a value looks like in every test: it must be nowhere but in the child's environment.
pub fn canary(name: &str) -> String {
    format!("canary-of-{name}")
}

impl AwsScene {
    /// With static keys, and nothing in the stores.
    pub fn new() -> Self {
        let scene = Self::without_credentials(Fake::start());
        scene.variable("AWS_ACCESS_KEY_ID", STATIC_ID).variable("AWS_SECRET_ACCESS_KEY", STATIC_SECRET)
    }

    /// With nothing in the environment.
    pub fn without_credentials(fake: Fake) -> Self {
        let key = fake.key();
        Self {
            scene: Scene::new(),
            key,
            stores: format!("region = \"{REGION}\"\nendpoint = \"{}\"\n", fake.endpoint()),
            fake,
            params: "prefix = \"/test/api/\"\n".into(),
            sealed: String::new(),
            secrets: String::new(),
            deadline: "20s",
            run_rules: "",
            sink: String::new(),
        }
    }

    /// With these parameters, each a SecureString with its canary, bound to a variable of its name.
    pub fn with(names: &[&str]) -> Self {
        let mut scene = Self::new().secrets("[secrets]\n");
        for name in names {
            scene.fake.secure(&format!("/test/api/{name}"), &canary(name));
            scene.secrets.push_str(&format!("{name} = {{}}\n"));
        }
        scene
    }

    /// With `S000`, `S001` and so on.
    pub fn numbered(count: usize) -> Self {
        let names = numbers(count);
        Self::with(&names.iter().map(String::as_str).collect::<Vec<_>>())
    }

    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.scene = self.scene.variable(name, value);
        self
    }

    pub fn secrets(mut self, text: &str) -> Self {
        self.secrets = text.into();
        self
    }

    pub fn params(mut self, lines: &str) -> Self {
        self.params.push_str(lines);
        self
    }

    pub fn stores(mut self, lines: &str) -> Self {
        self.stores.push_str(lines);
        self
    }

    pub fn deadline(mut self, text: &'static str) -> Self {
        self.deadline = text;
        self
    }

    /// The policy, written; its path.
    pub fn policy(&self) -> String {
        let folder = self.scene.path("");
        let (stores, params, sealed, secrets) = (&self.stores, &self.params, &self.sealed, &self.secrets);
        let text = format!(
            "version = 1\nenvironment = \"test\"\nservice = \"api\"\nstore = \"params\"\n\
             [stores.params]\ntype = \"ssm\"\n{stores}{params}\
             [stores.sealed]\ntype = \"kms\"\nkey = \"{}\"\npath = \"{}sealed.age\"\n{stores}{sealed}\
             {secrets}\n[run]\ndeadline = \"{}\"\n{}\n[[grants]]\nsecrets = [\"*\"]\nto = \"anyone\"\n\
             [[audit.sinks]]\ntype = \"file\"\nsync = false\npath = \"{}audit.jsonl\"\n{}",
            kms::arn_of(&self.key),
            folder.display(),
            self.deadline,
            self.run_rules,
            folder.display(),
            self.sink
        );
        self.scene.write("aws.toml", text.as_bytes()).display().to_string()
    }

    /// `vouchsafe run -- child...`
    pub fn run(&self, child: &[&str]) -> Outcome {
        let policy = self.policy();
        self.scene.vouchsafe(&[&["run", "--policy", &policy, "--"], child].concat())
    }

    /// `vouchsafe set NAME`, the value on standard input.
    pub fn set(&self, name: &str, value: &str) -> Outcome {
        let policy = self.policy();
        self.scene.vouchsafe_reading(&["set", name, "--policy", &policy], value.as_bytes())
    }

    /// Any other command with `--policy`.
    pub fn vouchsafe(&self, words: &[&str]) -> Outcome {
        let policy = self.policy();
        self.scene.vouchsafe(&[words, &["--policy", &policy]].concat())
    }

    /// The child's environment, from a run that has to succeed.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let outcome = self.run(&["env", "-0"]).expect_status(0);
        let pairs = outcome.out().split('\0').filter_map(|pair| pair.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// A run that has to fail: the child is not started, and nothing that must stay secret is said anywhere.
    pub fn fails(&self) -> Outcome {
        let outcome = self.run(&["sh", "-c", "echo the child has started"]);
        assert!(!outcome.status.success(), "{}", outcome.transcript());
        assert_eq!(outcome.out(), "", "{}", outcome.transcript());
        self.says_nothing(&outcome);
        outcome
    }

    /// Neither what was printed nor the audit log holds a value, a key, or words of the service.
    pub fn says_nothing(&self, outcome: &Outcome) {
        let log = std::fs::read_to_string(self.scene.path("audit.jsonl")).unwrap_or_default();
        for text in [outcome.err(), &log] {
            for secret in ["canary-of", STATIC_SECRET, super::fake::SDK_CANARY] {
                assert!(!text.contains(secret), "{secret} in: {text}");
            }
        }
        assert!(!outcome.err().contains("panicked"), "{}", outcome.transcript());
    }

    /// `vouchsafe run -- child...` as a command, to be spawned.
    pub fn command(&self, child: &[&str]) -> Command {
        let policy = self.policy();
        let mut command = self.scene.command(&[&["run", "--policy", &policy, "--"], child].concat());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The versions of a parameter in the fake: their values.
    pub fn versions(&self, name: &str) -> Vec<String> {
        let world = self.fake.world();
        let parameter = world.ssm.parameters.get(&format!("/test/api/{name}"));
        parameter.map(|it| it.versions.iter().map(|one| one.value.clone()).collect()).unwrap_or_default()
    }
}

pub fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("S{number:03}")).collect()
}

/// What `work` gives, and how long it took.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}
