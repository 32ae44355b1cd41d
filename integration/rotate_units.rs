//! The units in `deploy/systemd` by systemd's own tools, which need no systemd that runs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::harness::{Scene, VOUCHSAFE};
use crate::have;

/// The units as one instance, with the program where it is here.
fn instance(scene: &Scene) -> [PathBuf; 2] {
    ["service", "timer"].map(|kind| {
        let path = format!("deploy/systemd/vouchsafe-rotate@.{kind}");
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
        let text = text.replace("/usr/local/bin/vouchsafe", VOUCHSAFE);
        scene.write(&format!("vouchsafe-rotate@prod-api.{kind}"), text.as_bytes())
    })
}

fn analyze(words: &[&str], units: &[PathBuf]) -> Output {
    Command::new("systemd-analyze").args(words).args(units).output().unwrap()
}

/// An unknown key is only a warning to `verify`, so anything that it prints is a failure.
fn complaints(units: &[PathBuf]) -> String {
    let output = analyze(&["verify", "--man=no"], units);
    let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    if output.status.success() { text } else { format!("{}\n{text}", output.status) }
}

#[test]
fn the_units_are_what_systemd_takes() {
    if !have(&["systemd-analyze"], false) {
        return;
    }
    let scene = Scene::new();
    let units = instance(&scene);
    assert_eq!(complaints(&units), "");
    // The check itself finds what is wrong.
    let text = std::fs::read_to_string(&units[0]).unwrap();
    std::fs::write(&units[0], text.replace("ProtectHome=", "ProtectHouse=")).unwrap();
    assert!(complaints(&units).contains("ProtectHouse"), "{}", complaints(&units));
}

#[test]
fn the_service_has_little_to_lose() {
    if !have(&["systemd-analyze"], false) {
        return;
    }
    let scene = Scene::new();
    let [service, _] = instance(&scene);
    let output =
        analyze(&["security", "--offline=true", "--no-pager", "--threshold=25"], std::slice::from_ref(&service));
    let text = String::from_utf8_lossy(&output.stdout);
    let figure = text.split("Overall exposure level for vouchsafe-rotate@prod-api.service: ").nth(1).unwrap();
    println!("exposure of vouchsafe-rotate@.service: {}", figure.trim());
    assert!(output.status.success(), "more than 2.5: {text}");
}
