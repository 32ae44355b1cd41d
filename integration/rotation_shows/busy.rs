//! Two rotators at once: the second one hears who holds the right and since when, and changes nothing.

use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

use super::Place;
use crate::aws::fake::server::eventually;
use crate::aws::scene::AwsScene;
use crate::harness::{Scene, wait};

/// A target that is at work until the test lets it go: it says that it has begun, then waits at a pipe.
fn target(scene: &Scene) -> String {
    let (begun, go_on) = (scene.path("begun"), scene.path("go-on"));
    for pipe in [&begun, &go_on] {
        assert!(Command::new("mkfifo").arg(pipe).status().unwrap().success());
    }
    let script = format!(
        "#!/bin/sh\n[ \"$VOUCHSAFE_STEP\" = apply ] || exit 0\necho >'{}'\nread -r line <'{}'\n",
        begun.display(),
        go_on.display()
    );
    let program = scene.write_mode("target", script.as_bytes(), 0o755);
    format!("[secrets.A.rotate]\napply = {{ type = \"command\", program = \"{}\" }}\n", program.display())
}

fn one_wins(place: &Place<'_>) {
    let newest = || String::from_utf8(place.succeeds(&["history", "A", "--json"]).stdout).unwrap();
    let first = place.command(&["rotate", "A"]).spawn().unwrap();
    let owner = format!("process {}", first.id());
    let mut line = [0];
    open(&place.scene.path("begun"), false).read_exact(&mut line).unwrap();
    let before = newest();
    for words in [["rotate", "A"], ["rotate", "--all"], ["rotate", "--resume"]] {
        let second = place.vouchsafe(&words);
        let said = String::from_utf8(second.stderr).unwrap();
        assert_eq!(second.status.code(), Some(122), "{said}");
        let told = said.contains("error[busy]") && said.contains(&owner) && said.contains(" since 20");
        assert!(told, "not {owner}: {said}");
        println!("the second one hears: {}", said.lines().next().unwrap_or_default());
    }
    assert_eq!(newest(), before, "the second one changes nothing");
    open(&place.scene.path("go-on"), true).write_all(b"\n").unwrap();
    let output = wait(first);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(newest() != before);
}

/// Opened for both, so that a program that never comes is an error here and not a wait for ever.
fn open(pipe: &Path, is_writing: bool) -> std::fs::File {
    let file = std::fs::File::options().read(true).write(true).open(pipe).unwrap();
    if !is_writing {
        eventually("the target", || {
            let mut ready = [rustix::event::PollFd::new(&file, rustix::event::PollFlags::IN)];
            let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            rustix::event::poll(&mut ready, Some(&now)).unwrap() == 1
        });
    }
    file
}

#[test]
fn of_two_rotators_of_a_file_one_wins() {
    let scene = Scene::sealed(&[]);
    let target = target(&scene);
    let scene = scene.and(&target);
    scene.verb_reading(&["set", "A"], b"first").expect_status(0);
    one_wins(&super::place(&scene));
}

#[test]
fn of_two_rotators_of_parameters_one_wins() {
    let aws = AwsScene::new();
    let target = target(&aws.scene);
    let aws = aws.secrets(&format!("[secrets]\n{target}"));
    aws.fake.secure("/test/api/A", "first");
    one_wins(&super::place_of_parameters(&aws, "A"));
}
