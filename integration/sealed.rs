//! A scene with a store of vouchsafe's own format, each thing in a folder of its own, so that a path in a trace tells what
//! a call was for.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::harness::Scene;
use crate::strace::vouchsafe;

/// `store/store.age`, `log/audit.jsonl`, `identity.key`, `policy.toml`.
pub struct Sealed {
    pub scene: Scene,
}

/// What a store holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    pub generation: u64,
    pub values: BTreeMap<String, String>,
}

impl Sealed {
    /// A store with these values, each bound under its own name, written by `vouchsafe set`.
    pub fn with(values: &[(&str, &str)]) -> Self {
        Self::at(Scene::new(), None, values)
    }

    /// The same, with the audit log in `log`.
    pub fn logging_to(log: &Path, scene: Scene, values: &[(&str, &str)]) -> Self {
        Self::at(scene, Some(log), values)
    }

    /// The same in a scene that has its folders already.
    pub fn with_scene(scene: Scene, values: &[(&str, &str)]) -> Self {
        Self::at(scene, None, values)
    }

    fn at(scene: Scene, log: Option<&Path>, values: &[(&str, &str)]) -> Self {
        for folder in ["store", "log"] {
            std::fs::create_dir_all(scene.path(folder)).unwrap();
        }
        let log = log.map_or_else(|| scene.path("log/audit.jsonl"), PathBuf::from);
        let folder = scene.path("");
        let folder = folder.display();
        let bindings: String = values.iter().map(|(name, _)| format!("{name} = {{}}\n")).collect();
        let text = format!(
            "version = 1\nenvironment = \"test\"\nstore = \"files\"\n[stores.files]\ntype = \"age\"\n\
             path = \"{folder}store/store.age\"\nrecipients = [\"{}\"]\nidentities = [\"file:{folder}identity.key\"]\n\
             [secrets]\n{bindings}[[grants]]\nsecrets = [\"*\"]\nto = \"anyone\"\n\
             [[audit.sinks]]\ntype = \"file\"\npath = \"{}\"\n",
            scene.recipient(),
            log.display()
        );
        scene.write("policy.toml", text.as_bytes());
        let sealed = Self { scene };
        for (name, value) in values {
            sealed.set(name, value).expect_status(0);
        }
        sealed
    }

    pub fn set(&self, name: &str, value: &str) -> crate::harness::Outcome {
        self.scene.vouchsafe_reading(&["set", name, "--policy", "policy.toml"], value.as_bytes())
    }

    /// For strace: `vouchsafe set NAME`.
    pub fn set_command(name: &str) -> Vec<OsString> {
        vouchsafe(&["set", name, "--policy", "policy.toml"])
    }

    /// For strace: `vouchsafe run -- COMMAND`.
    pub fn run_command(command: &[&str]) -> Vec<OsString> {
        let own = ["run", "--policy", "policy.toml", "--"];
        vouchsafe(&own.iter().chain(command).collect::<Vec<_>>())
    }

    pub fn run(&self, command: &[&str]) -> crate::harness::Outcome {
        self.scene.vouchsafe(&Self::run_command(command)[1..])
    }

    /// Decrypts the store here, without the binary under test.
    pub fn content(&self) -> Content {
        self.content_of(&self.scene.path("store/store.age"))
    }

    /// The whole document.
    pub fn document(&self) -> serde_json::Value {
        self.document_of(&self.scene.path("store/store.age"))
    }

    fn document_of(&self, file: &Path) -> serde_json::Value {
        let key = std::fs::read_to_string(self.scene.path("identity.key")).unwrap();
        let identity: age::x25519::Identity = key.trim().parse().unwrap();
        let plaintext = age::decrypt(&identity, &std::fs::read(file).unwrap()).unwrap();
        serde_json::from_slice(&plaintext).unwrap()
    }

    pub fn content_of(&self, file: &Path) -> Content {
        let document = self.document_of(file);
        let items = document["items"].as_object().unwrap().iter();
        Content {
            generation: document["generation"].as_u64().unwrap(),
            values: items
                .map(|(name, item)| (name.clone(), item["current"]["value"].as_str().unwrap().to_owned()))
                .collect(),
        }
    }

    /// Temporary files beside the store.
    pub fn leftovers(&self) -> Vec<OsString> {
        let names = std::fs::read_dir(self.scene.path("store")).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name != "store.age").collect()
    }

    /// `audit verify`, as JSON.
    pub fn verify(&self) -> serde_json::Value {
        let outcome = self.scene.vouchsafe(&["audit", "verify", "--json", "log/audit.jsonl"]);
        serde_json::from_slice(&outcome.stdout).unwrap_or_else(|_| panic!("{}", outcome.transcript()))
    }

    /// Fails loudly if the log does not verify as intact.
    pub fn expect_intact(&self, when: &str) {
        let report = self.verify();
        assert_eq!(report["state"], "intact", "{when}: {report:#}");
    }

    /// The sound records of the log: a torn last line is left out.
    pub fn records(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read(self.scene.path("log/audit.jsonl")).unwrap_or_default();
        text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }

    /// How many records there are of each access: requested, released, unused.
    pub fn counts(&self) -> [usize; 3] {
        let records = self.records();
        ["access.requested", "access.released", "access.unused"]
            .map(|event| records.iter().filter(|record| record["event"] == event).count())
    }
}
