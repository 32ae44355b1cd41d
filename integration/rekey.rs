//! `rekey` while everything goes wrong (ROT-13): two files, killed at every call and every call failing in every way. Each file
//! opens for the old set of recipients or for the new one, never for neither; who was taken out is out of it for good once
//! the same command has gone through; and what he could open is known from then on, all of it.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use age::x25519::Identity;
use serde_json::{Value, json};

use crate::faults::ERRORS;
use crate::full_disk::{fill, mounted_tmpfs};
use crate::harness::{Outcome, Scene};
use crate::have;
use crate::strace::{Point, WRITING, baseline, inject, points, vouchsafe};

/// `store/one.age` with `A`, `other/two.age` with `B`, for the scene's recipient and for eve; the policy names eve no more.
struct Offboarding {
    scene: Scene,
    own: Identity,
    eve: Identity,
    /// Both files as they were.
    old: [Vec<u8>; 2],
}

const FILES: [&str; 2] = ["store/one.age", "other/two.age"];
const NAMES: [&str; 2] = ["A", "B"];

impl Offboarding {
    fn new() -> Self {
        Self::in_scene(Scene::new())
    }

    fn in_scene(scene: Scene) -> Self {
        for folder in ["store", "other", "log"] {
            std::fs::create_dir_all(scene.path(folder)).unwrap();
        }
        let own = std::fs::read_to_string(scene.path("identity.key")).unwrap().trim().parse().unwrap();
        let mut new = Self { scene, own, eve: Identity::generate(), old: Default::default() };
        new.write_policy(true);
        for (name, value) in [("A", "a1"), ("A", "a2"), ("B", "b1")] {
            let words = ["set", name, "--policy", "policy.toml"];
            new.scene.vouchsafe_reading(&words, value.as_bytes()).expect_status(0);
        }
        new.old = FILES.map(|file| std::fs::read(new.scene.path(file)).unwrap());
        new.write_policy(false);
        new
    }

    fn write_policy(&self, with_eve: bool) {
        let at = self.scene.path("").display().to_string();
        let eve = if with_eve { format!(", \"{}\"", self.eve.to_public()) } else { String::new() };
        let store = |name: &str, file: &str| {
            format!(
                "[stores.{name}]\ntype = \"age\"\npath = \"{at}{file}\"\nidentities = [\"file:{at}identity.key\"]\n\
                 recipients = [\"{}\"{eve}]\n",
                self.scene.recipient()
            )
        };
        let text = format!(
            "version = 1\nenvironment = \"test\"\n{}{}[secrets]\nA = {{ store = \"one\" }}\nB = {{ store = \"two\" }}\n\
             [[grants]]\nsecrets = [\"*\"]\nto = \"anyone\"\n[[audit.sinks]]\ntype = \"file\"\npath = \"{at}log/audit.jsonl\"\n",
            store("one", FILES[0]),
            store("two", FILES[1])
        );
        self.scene.write("policy.toml", text.as_bytes());
    }

    fn words(&self) -> Vec<OsString> {
        let eve = self.eve.to_public().to_string();
        vouchsafe(&["rekey", "--remove", &eve, "--compromised", "--policy", "policy.toml"])
    }

    fn rekey(&self) -> Outcome {
        self.scene.vouchsafe(&self.words()[1..])
    }

    /// Both files are as at the beginning again.
    fn reset(&self) {
        for (file, old) in FILES.iter().zip(&self.old) {
            std::fs::write(self.scene.path(file), old).unwrap();
        }
    }

    /// Whether each file is the new one. Fails loudly where one is neither the old one, byte for byte, nor new and whole.
    fn look(&self, when: &str) -> [bool; 2] {
        let mut is_new = [false; 2];
        for index in 0..2 {
            let bytes = std::fs::read(self.scene.path(FILES[index])).unwrap();
            if bytes == self.old[index] {
                continue;
            }
            let open = |bytes: &[u8]| -> Value {
                let plaintext = age::decrypt(&self.own, bytes).unwrap_or_else(|error| panic!("{error}: {when}"));
                serde_json::from_slice(&plaintext).unwrap()
            };
            let (old, new) = (open(&self.old[index]), open(&bytes));
            assert!(age::decrypt(&self.eve, &bytes).is_err(), "{when}: a new file that eve opens");
            assert_eq!(new["items"], old["items"], "{when}");
            assert!(new["generation"].as_u64() > old["generation"].as_u64(), "{when}");
            let number = old["items"][NAMES[index]]["current"]["number"].clone();
            assert_eq!(
                new["exposed"][0]["items"],
                json!({ NAMES[index]: number }),
                "{when}: out, and nobody knows of what"
            );
            is_new[index] = true;
        }
        is_new
    }

    fn leftovers(&self) -> Vec<OsString> {
        let folders = ["store", "other"].map(|folder| std::fs::read_dir(self.scene.path(folder)).unwrap());
        let names = folders.into_iter().flatten().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name != "one.age" && name != "two.age").collect()
    }

    /// The same command, run again, finishes: both files are new, the list is complete, nothing lies about.
    fn finish(&self, when: &str) {
        let outcome = self.rekey();
        assert_eq!(outcome.status.code(), Some(10), "after {when}: {}", outcome.transcript());
        assert_eq!(self.look(when), [true, true]);
        for line in ["A     DUE    one:A  2", "B     DUE    two:B  1"] {
            assert!(outcome.out().contains(line), "after {when}: {}", outcome.transcript());
        }
        assert!(self.leftovers().is_empty(), "after {when}: {:?}", self.leftovers());
        let verified = self.scene.vouchsafe(&["audit", "verify", "--json", "log/audit.jsonl"]);
        assert!(verified.out().contains("\"state\":\"intact\""), "after {when}: {}", verified.transcript());
    }

    fn points(&self, more: &[&str]) -> Vec<Point> {
        let traced = baseline(&self.scene, &self.words(), b"");
        assert_eq!(traced.status.code(), Some(10), "{}", traced.transcript());
        self.look("nothing went wrong");
        self.reset();
        points(&traced, &[WRITING, more].concat())
    }
}

#[test]
fn a_rekey_that_is_killed_anywhere_leaves_each_file_old_or_new() {
    if !have(&["strace"], true) {
        return;
    }
    let team = Offboarding::new();
    let points = team.points(&["pread64", "close", "exit_group"]);
    assert!(points.len() >= 50, "{}", points.len());
    let mut seen = std::collections::BTreeMap::new();
    for point in &points {
        let when = format!("a kill at {} ({})", point.name, point.text);
        let traced = inject(&team.scene, point, "signal=KILL", &team.words(), b"");
        assert_eq!(traced.status.signal(), Some(9));
        *seen.entry(team.look(&when)).or_insert(0) += 1;
        team.finish(&when);
        team.reset();
    }
    // In this order, one after the other.
    let kinds: Vec<_> = seen.keys().copied().collect();
    assert_eq!(kinds, [[false, false], [true, false], [true, true]], "{seen:?}");
    assert!(seen.values().all(|count| *count >= 5), "{seen:?}");
}

/// sops#146, #484, #703, #855: a failed rotation cut the file to nothing, with status 0.
#[test]
fn a_rekey_whose_calls_fail_says_so_and_leaves_each_file_old_or_new() {
    if !have(&["strace"], true) {
        return;
    }
    let team = Offboarding::new();
    let points = team.points(&["pread64", "fstat", "getdents64", "read"]);
    assert!(points.len() >= 60, "{}", points.len());
    let (mut refused, mut halves) = (0, 0);
    for point in &points {
        for error in ERRORS {
            let when = format!("{error} at {} ({})", point.name, point.text);
            let traced = inject(&team.scene, point, &format!("error={error}"), &team.words(), b"");
            let is_new = team.look(&when);
            let status = traced.status.code().unwrap_or_else(|| panic!("{when}\n{}", traced.transcript()));
            assert!([10, 121, 122, 123, 124, 125].contains(&status), "{when}: {status}\n{}", traced.transcript());
            assert!(team.leftovers().is_empty(), "{when}: {:?}", team.leftovers());
            let stderr = String::from_utf8_lossy(&traced.stderr).into_owned();
            let is_last_word = point.text.starts_with("write(2");
            assert!(
                is_last_word || stderr.contains("error[") && !stderr.contains("internal error"),
                "{when}: {stderr}"
            );
            if status == 10 || point.text.starts_with("write(1") {
                assert_eq!(is_new, [true, true], "{when}: done, it says\n{}", traced.transcript());
            } else {
                refused += 1;
                halves += usize::from(is_new[0] != is_new[1]);
                // What was done is said, also where the rest failed.
                let stdout = String::from_utf8_lossy(&traced.stdout).into_owned();
                for (name, is_new) in ["one", "two"].iter().zip(is_new) {
                    let says_done = stdout
                        .lines()
                        .any(|line| line.starts_with(&format!("{name}: ")) && line.contains("is encrypted anew"));
                    let told = ["was replaced", "change was made"].iter().any(|words| stderr.contains(words));
                    assert!(!says_done || is_new, "{when}: said and not done\n{}", traced.transcript());
                    // Where standard output itself failed, the error is of that.
                    let is_output = point.text.starts_with("write(1");
                    assert!(
                        !is_new || says_done || told || is_output,
                        "{when}: done, and nobody says so\n{}",
                        traced.transcript()
                    );
                }
            }
            team.reset();
        }
        inject(&team.scene, point, "error=EIO", &team.words(), b"");
        team.finish(&point.text);
        team.reset();
    }
    assert!(refused >= 150 && halves >= 20, "{refused} were refused, {halves} of them with one file done");
}

#[test]
fn a_full_disk_under_the_second_file_leaves_it_and_room_finishes() {
    if !have(&["mount", "umount"], true) {
        return;
    }
    let scene = Scene::new();
    let disk = scene.path("other");
    let Some(mounted) = mounted_tmpfs(&scene, &disk) else { return };
    let team = Offboarding::in_scene(scene);
    // Dropped before the scene that it lies in, also when the test fails.
    let mount = mounted;
    let filler = fill(&disk);
    let outcome = team.rekey().expect_status(122);
    assert!(outcome.err().contains("no space left"), "{}", outcome.transcript());
    assert_eq!((team.look("a full disk"), team.leftovers().len()), ([true, false], 1), "only the filler");
    std::fs::remove_file(filler).unwrap();
    team.finish("a full disk");
    drop(mount);
}

#[test]
fn stock_age_agrees_on_who_is_in_and_who_is_out() {
    if !have(&["age"], false) {
        return;
    }
    let team = Offboarding::new();
    let secret = age::secrecy::ExposeSecret::expose_secret(&team.eve.to_string()).to_owned();
    team.scene.write_mode("eve.key", secret.as_bytes(), 0o600);
    let open = |key: &str, file: &str| {
        let mut age = team.scene.other("age", &["-d", "-i", key, file]);
        age.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    };
    for file in FILES {
        assert!(open("identity.key", file) && open("eve.key", file));
    }
    team.rekey().expect_status(10);
    for file in FILES {
        assert!(open("identity.key", file) && !open("eve.key", file));
    }
    // What stock age writes back when all else is down keeps the notes, and the list goes on from it.
    let document = team.scene.other("age", &["-d", "-i", "identity.key", FILES[1]]).output().unwrap().stdout;
    std::fs::remove_file(team.scene.path(FILES[1])).unwrap();
    let recipient = team.scene.recipient();
    let mut age = team.scene.other("age", &["-e", "-a", "-r", &recipient, "-o", FILES[1]]);
    let mut age = age.stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut age.stdin.take().unwrap(), &document).unwrap();
    assert!(age.wait().unwrap().success());
    team.finish("stock age");
}
