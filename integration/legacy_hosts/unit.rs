//! The units by systemd's own tools, and as much of what systemd does with one as can be done without it as PID 1: its user, its
//! groups, its folders, its command line.

use std::path::PathBuf;
use std::process::{Command, Output};

use super::{Host, shipped};
use crate::harness::{Scene, VOUCHSAFE};
use crate::have;

const UNITS: [&str; 4] = [
    "systemd/vouchsafe-agent.service",
    "systemd/vouchsafe-agent.socket",
    "systemd/vouchsafe-run-agent-example.service",
    "php-fpm/php-fpm-shop.service",
];

/// A unit file.
pub(super) struct Unit(pub(super) String);

impl Unit {
    pub(super) fn shipped(name: &str) -> Self {
        Self(shipped(name))
    }

    pub(super) fn get(&self, key: &str) -> &str {
        let value = self.0.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("no {key}"))
    }

    /// The command line of `ExecStart`.
    pub(super) fn words(&self) -> Vec<&str> {
        self.get("ExecStart").split_whitespace().collect()
    }

    /// The beginning of the line that makes a process the unit's user.
    pub(super) fn as_user(&self) -> Vec<&str> {
        let user = self.get("User");
        let mut words = vec!["setpriv", "--reuid", user, "--regid", user, "--init-groups", "--no-new-privs"];
        if self.0.contains("\nSupplementaryGroups=") {
            words.retain(|word| *word != "--init-groups");
            words.extend(["--groups", self.get("SupplementaryGroups")]);
        }
        words
    }

    /// Its process, under the number that systemd would know it by.
    pub(super) fn command(&self, host: &Host) -> Command {
        let kinds = [
            ("RuntimeDirectory", "/run", "0755"),
            ("LogsDirectory", "/var/log", "0755"),
            ("StateDirectory", "/var/lib", "0700"),
        ];
        for (key, folder, mode) in kinds {
            if self.0.contains(&format!("\n{key}=")) {
                let (path, user) = (format!("{folder}/{}", self.get(key)), self.get("User"));
                host.ok(&["install", "-d", "-m", mode, "-o", user, "-g", user, &path], "");
            }
        }
        host.command(&[self.as_user(), self.words()].concat())
    }
}

fn analyze(scene: &Scene, words: &[&str], units: &[PathBuf]) -> Output {
    let mut command = scene.other("systemd-analyze", words);
    command.args(units).output().unwrap()
}

/// All of them, since they name each other, with the program where it is here.
fn instances(scene: &Scene) -> Vec<PathBuf> {
    let of = |name: &&str| {
        let text = shipped(name).replace("/usr/local/bin/vouchsafe", VOUCHSAFE);
        // The lines of other units that systemd would find beside it are not about these.
        scene.write(name.rsplit('/').next().unwrap(), text.as_bytes())
    };
    UNITS.iter().map(of).collect()
}

#[test]
fn the_units_of_the_agent_are_what_systemd_takes() {
    if !have(&["systemd-analyze"], false) {
        return;
    }
    let scene = Scene::new();
    let units = instances(&scene);
    // An unknown key is only a warning, and a success.
    let complaints = || {
        let output = analyze(&scene, &["verify", "--man=no"], &units);
        let text = super::text_of(&output);
        text.lines()
            .filter(|line| UNITS.iter().any(|unit| line.contains(unit.rsplit('/').next().unwrap())))
            .collect::<String>()
    };
    assert_eq!(complaints(), "");
    for (unit, from, to) in [(0, "WatchdogSec", "WatchdogSecs"), (1, "SocketMode", "SocketModes")] {
        let text = std::fs::read_to_string(&units[unit]).unwrap();
        assert!(text.contains(from));
        std::fs::write(&units[unit], text.replace(from, to)).unwrap();
        assert!(complaints().contains(to), "{}", complaints());
        std::fs::write(&units[unit], text).unwrap();
    }
}

#[test]
fn the_agent_has_little_to_lose() {
    if !have(&["systemd-analyze"], false) {
        return;
    }
    let scene = Scene::new();
    let units = instances(&scene);
    for (unit, most) in [(0, "20"), (2, "45"), (3, "45")] {
        let threshold = format!("--threshold={most}");
        let words = ["security", "--offline=true", "--no-pager", &threshold];
        let output = analyze(&scene, &words, std::slice::from_ref(&units[unit]));
        let text = super::text_of(&output);
        println!("{}", text.lines().rfind(|line| line.contains("Overall exposure level")).unwrap());
        assert!(output.status.success(), "more than {most}: {text}");
    }
    // The check itself can find something.
    let text = shipped(UNITS[0])
        .replace("NoNewPrivileges=yes", "")
        .replace("CapabilityBoundingSet=\n", "")
        .replace("User=", "#");
    let open = scene.write("open.service", text.as_bytes());
    assert!(
        !analyze(&scene, &["security", "--offline=true", "--no-pager", "--threshold=20"], &[open]).status.success()
    );
}

/// What is refused, or cannot work, is not tried again; the status that says so is that of `docs/exit-status.md`.
#[test]
fn a_refusal_is_not_repeated() {
    for name in [UNITS[2], UNITS[3]] {
        let unit = Unit::shipped(name);
        let statuses: Vec<&str> = unit.get("RestartPreventExitStatus").split(' ').collect();
        assert_eq!(statuses, ["2", "120", "126", "127"], "{name}");
        assert_eq!((unit.get("LimitCORE"), unit.get("Restart")), ("0", "on-failure"), "{name}");
        assert!(unit.words().windows(2).any(|pair| pair == ["run", "--agent"]), "{name}");
    }
    assert_eq!(Unit::shipped(UNITS[0]).get("LimitCORE"), "0");
}
