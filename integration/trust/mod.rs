//! A host that demands signed policies, with keys by ssh-keygen itself: what gets around them ([`attacks`]), and what the agent
//! does not go back behind ([`marks`]).

mod attacks;
mod marks;

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use crate::agent_scene::Agent;
use crate::harness::{Outcome, Scene};

const CANARY: &str = "canary-of-a-signed-policy";
/// The serial of everything that is signed at first, and the least that the host accepts.
const SERIAL: u64 = 12;
const LEAST: u64 = 10;

/// The folder `served` has policies of `prod` and its services and of `dev`, signed, with a base; and one of `free`, for which
/// nothing is demanded. `alice` signs for prod, `dave` for dev, `mallory` for nothing.
struct Site {
    scene: Scene,
}

impl Site {
    fn new() -> Self {
        let site = Self { scene: Scene::with(&[("A", CANARY)]) };
        for key in ["alice", "dave", "mallory"] {
            let words = ["-q", "-t", "ed25519", "-N", "", "-C", key, "-f", key];
            assert!(site.scene.other("ssh-keygen", &words).status().unwrap().success());
        }
        let state = site.scene.path("state");
        std::fs::create_dir(&state).unwrap();
        std::fs::set_permissions(&state, PermissionsExt::from_mode(0o700)).unwrap();
        site.write_host(&site.host());
        site.put_base(SERIAL);
        for service in [None, Some("api"), Some("web")] {
            site.put(&file_of("prod", service), &site.policy("prod", service, SERIAL), "alice");
        }
        site.put("dev.toml", &site.without_base("dev"), "dave");
        site.scene.write("served/free.toml", site.without_base("free").as_bytes());
        site
    }

    fn key(&self, name: &str) -> String {
        std::fs::read_to_string(self.scene.path(&format!("{name}.pub"))).unwrap().trim().to_owned()
    }

    fn host(&self) -> String {
        let trusted = |name: &str, environment: &str| {
            format!("[[trust.keys]]\nkey = \"{}\"\nenvironments = [\"{environment}\"]\n", self.key(name))
        };
        format!(
            "[[audit.sinks]]\ntype = \"file\"\npath = \"{}\"\nsync = false\n[agent]\nstate = \"{}\"\n[trust]\n\
             environments = [\"prod\", \"dev\"]\nmin_serial = {{ prod = {LEAST} }}\n{}{}",
            self.scene.path("agent.jsonl").display(),
            self.scene.path("state").display(),
            trusted("alice", "prod"),
            trusted("dave", "dev")
        )
    }

    fn write_host(&self, text: &str) {
        self.scene.write("etc/vouchsafe/host.toml", text.as_bytes());
    }

    fn policy(&self, environment: &str, service: Option<&str>, serial: u64) -> String {
        let text = std::fs::read_to_string(self.scene.write_policy()).unwrap();
        let base = if service.is_some() { "../base.toml" } else { "base.toml" };
        let service = service.map(|name| format!("service = \"{name}\"\n")).unwrap_or_default();
        let header = format!("environment = \"{environment}\"\n{service}serial = {serial}\nextends = \"{base}\"\n");
        text.replacen("environment = \"test\"\n", &header, 1)
    }

    fn without_base(&self, environment: &str) -> String {
        self.policy(environment, None, SERIAL).replace("extends", "# ")
    }

    /// A base of prod's, with something of its own for each serial.
    fn base(serial: u64) -> String {
        format!("version = 1\nserial = {serial}\nenvironment = \"*\"\n[run]\ndeadline = \"{}s\"\n", serial + 10)
    }

    fn put_base(&self, serial: u64) {
        self.put("base.toml", &Self::base(serial), "alice");
    }

    fn put(&self, file: &str, text: &str, key: &str) {
        self.scene.write(&format!("served/{file}"), text.as_bytes());
        self.sign(file, key, "vouchsafe");
    }

    fn sign(&self, file: &str, key: &str, namespace: &str) {
        let file = format!("served/{file}");
        std::fs::remove_file(self.scene.path(&format!("{file}.sig"))).unwrap_or_default();
        let words = ["-q", "-Y", "sign", "-n", namespace, "-f", key, &file];
        let made = self.scene.other("ssh-keygen", &words).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        std::fs::set_permissions(self.scene.path(&format!("{file}.sig")), PermissionsExt::from_mode(0o644)).unwrap();
    }

    /// An older or newer version of prod's own policy, with its good signature.
    fn put_prod(&self, serial: u64) {
        self.put("prod.toml", &self.policy("prod", None, serial), "alice");
    }

    fn agent_words(&self) -> Vec<String> {
        let socket = self.scene.path("agent.sock").display().to_string();
        ["agent", "--policies", "served", "--host", "etc/vouchsafe/host.toml", "--socket", &socket]
            .map(Into::into)
            .into()
    }

    fn agent_command(&self) -> Command {
        self.scene.command(&self.agent_words())
    }

    fn start(&self) -> Agent<'_> {
        Agent::spawn(&self.scene, self.agent_command())
    }

    /// An agent that does not start.
    fn start_in_vain(&self, status: i32) -> Outcome {
        self.scene.vouchsafe(&self.agent_words()).expect_status(status)
    }

    fn marks(&self) -> Value {
        let text = std::fs::read_to_string(self.scene.path("state/marks.json")).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["marks"].clone()
    }
}

fn file_of(environment: &str, service: Option<&str>) -> String {
    service.map_or_else(|| format!("{environment}.toml"), |service| format!("{environment}/{service}.toml"))
}

fn status(agent: &Agent<'_>) -> Value {
    serde_json::from_str(agent.ask("status", &["--json"]).expect_status(0).out()).unwrap()
}

/// The digest of what is served from this file.
fn served(status: &Value, file: &str) -> Option<String> {
    let all = status["policies"].as_array().unwrap();
    let of_file = |policy: &&Value| policy["file"].as_str().unwrap().ends_with(&format!("/served/{file}"));
    all.iter().find(of_file).map(|policy| policy["digest"].as_str().unwrap().to_owned())
}

/// Why this file is not accepted as it stands.
fn refused(status: &Value, file: &str) -> Option<String> {
    let all = status["refused"].as_array().unwrap();
    let of_file = |refused: &&Value| refused["file"].as_str().unwrap().ends_with(&format!("/served/{file}"));
    all.iter().find(of_file).map(|refused| refused["message"].as_str().unwrap().to_owned())
}

/// What `run` through the agent gives for `prod`.
fn run_prod(site: &Site, agent: &Agent<'_>) -> Outcome {
    let through = format!("--agent={}", agent.socket().display());
    site.scene.vouchsafe(&["run", &through, "--env", "prod", "--", "printenv", "A"])
}
