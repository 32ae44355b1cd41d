//! What lies in `deploy/` for a host to copy: the lines of cron, and that units and lines call commands that there are.
//! The units themselves are verified in `integration/deploy.rs`, where systemd's tools are.

use std::ffi::OsString;
use std::path::Path;

use vouchsafe::cli::{self, Parsed};

use crate::harness::Scene;

fn deployed(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)).unwrap()
}

/// Lines that start something: minute, hour, day, month, weekday, user, command (crontab(5), `/etc/cron.d`).
fn cron_lines(text: &str) -> Vec<(Vec<&str>, &str, &str)> {
    let is_setting =
        |line: &&str| line.split_once('=').is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase()));
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines
        .filter(|line| !is_setting(line))
        .map(|line| {
            let mut rest = line;
            let mut field = || {
                let (field, after) = rest.trim_start().split_once(' ').unwrap();
                rest = after;
                field
            };
            let times = [(); 5].map(|()| field()).to_vec();
            let user = field();
            (times, user, rest.trim_start())
        })
        .collect()
}

#[test]
fn the_lines_of_cron_are_what_cron_takes() {
    let text = deployed("cron.d/vouchsafe-rotate");
    assert!(text.ends_with('\n'), "cron ignores a last line without a newline");
    let lines = cron_lines(&text);
    assert_eq!(lines.len(), 1, "{lines:?}");
    for (times, user, command) in &lines {
        for (field, (low, high)) in times.iter().zip([(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)]) {
            let number = field.parse::<u32>();
            assert!(*field == "*" || number.is_ok_and(|number| (low..=high).contains(&number)), "{field}");
        }
        assert_eq!(*user, "root");
        assert!(!command.contains('%'), "cron makes a newline of it");
    }
}

/// cron mails what is printed.
#[test]
fn cron_mails_only_what_went_wrong() {
    let text = deployed("cron.d/vouchsafe-rotate");
    let (_, _, command) = cron_lines(&text)[0];
    for (status, expected) in
        [(0, ""), (122, "vouchsafe rotate --due --env prod: status 122 out err -- rotate --due --env prod\n")]
    {
        let scene = Scene::new();
        let script = format!("#!/bin/sh\necho out\necho err -- \"$@\" >&2\nexit {status}\n");
        let path = scene.write_mode("vouchsafe", script.as_bytes(), 0o755);
        let command = command.replace(
            "/usr/local/bin/vouchsafe rotate --due --env prod 2",
            &format!("{} rotate --due --env prod 2", path.display()),
        );
        assert!(command.contains(path.to_str().unwrap()));
        let output = scene.other("sh", &["-c", &command]).output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).replace('\n', " ");
        assert_eq!((printed.trim_end(), output.stderr.as_slice()), (expected.trim_end(), &b""[..]));
    }
}

#[test]
fn what_is_started_is_a_command_of_ours() {
    let unit = deployed("systemd/vouchsafe-rotate@.service");
    let started =
        unit.lines().filter_map(|line| line.strip_prefix("ExecStart=")).map(|line| line.replace("%I", "prod/api"));
    let text = deployed("cron.d/vouchsafe-rotate");
    let cron = cron_lines(&text).into_iter().map(|(_, _, command)| {
        command.split_once("\"$(").and_then(|(_, rest)| rest.split_once(" 2>&1)")).unwrap().0.to_owned()
    });
    let lines: Vec<String> = started.chain(cron).collect();
    assert_eq!(lines.len(), 2);
    for line in lines {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        assert_eq!(words[0], "/usr/local/bin/vouchsafe");
        let verb = words[1].to_str().unwrap();
        assert_eq!(verb, "rotate");
        // A build without the command has nothing that could be parsed.
        if cli::definition().find_subcommand(verb).is_some() {
            assert!(matches!(cli::parse(words), Ok(Parsed::Command(_))), "{line}");
        }
    }
}
