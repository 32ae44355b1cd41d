//! Becoming the command: what changes (the environment) and what does not (everything else). EXEC-1 to EXEC-11.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use crate::harness::{Scene, VOUCHSAFE};

#[test]
fn the_child_gets_the_value_and_the_log_gets_two_records() {
    let scene = Scene::with(&[("DB_PASSWORD", "hunter2")]);
    let outcome = scene.run(&["sh", "-c", "printf %s \"$DB_PASSWORD\""]).expect_status(0);
    assert_eq!(outcome.out(), "hunter2");
    assert_eq!(outcome.err(), "", "the wrapper is silent on success");
    assert_eq!(scene.events(), ["access.requested", "access.released"]);
}

#[test]
fn the_process_is_replaced() {
    let scene = Scene::with(&[("A", "1")]);
    let arguments = scene.run_arguments(&["sh", "-c", "echo $$"]);
    let child = scene.command(&arguments).stdout(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), pid.to_string());
}

#[test]
fn every_exit_status_passes_through() {
    let scene = Scene::with(&[("A", "1")]);
    let arguments = scene.run_arguments(&["sh", "-c", "exit $0"]);
    for status in 0..=255 {
        let mut arguments = arguments.clone();
        arguments.push(status.to_string().into());
        let ended = scene.command(&arguments).stderr(Stdio::null()).status().unwrap();
        assert_eq!(ended.code(), Some(status));
    }
}

#[test]
fn values_arrive_byte_for_byte() {
    let mut values: Vec<(String, String)> = [
        "plain",
        "",
        "trailing newline\n",
        "\r\n\ttabs and returns\r\n",
        "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy",
        "quotes \" ' ` \\ $(id) ${HOME} %s {} *",
        "=starts with equals=",
        "snowman ☃ and \u{1F512}",
        " spaces ",
    ]
    .iter()
    .enumerate()
    .map(|(index, value)| (format!("V{index}"), (*value).to_owned()))
    .collect();
    values.push((
        "PEM".into(),
        format!("-----BEGIN PRIVATE KEY-----\n{}-----END PRIVATE KEY-----\n", "MIIEvQIBADANBgkq\n".repeat(250)),
    ));
    let pairs: Vec<(&str, &str)> = values.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let scene = Scene::with(&pairs);
    let outcome = scene.run(&["env", "-0"]).expect_status(0);
    let entries: Vec<&[u8]> = outcome.stdout.split(|byte| *byte == 0).collect();
    for (name, value) in &values {
        let expected = format!("{name}={value}");
        assert!(entries.contains(&expected.as_bytes()), "{name} did not arrive as it was");
    }
}

#[test]
fn arguments_are_the_childs_byte_for_byte() {
    let scene = Scene::with(&[("A", "1")]);
    let odd = std::ffi::OsStr::from_bytes(b"\xff\xfe\n\x1b[1m");
    let arguments = [std::ffi::OsStr::new("cat"), "/proc/self/cmdline".as_ref(), "/dev/null".as_ref()]
        .map(std::ffi::OsStr::to_owned);
    let outcome = scene.run(&arguments).expect_status(0);
    assert_eq!(outcome.stdout, b"cat\0/proc/self/cmdline\0/dev/null\0");

    let outcome = scene.run(&["printf".as_ref(), "%s|".as_ref(), odd, "".as_ref(), "--policy".as_ref(), "--".as_ref()]);
    assert_eq!(outcome.stdout, b"\xff\xfe\n\x1b[1m||--policy|--|");
}

#[test]
fn descriptors_are_those_that_the_caller_had() {
    let scene = Scene::with(&[("A", "1")]);
    let arguments = scene.run_arguments(&["ls", "/proc/self/fd"]);
    let listing = |script: &str| {
        let mut words = vec!["-c".into(), script.into(), "sh".into()];
        words.push(VOUCHSAFE.into());
        words.extend(arguments.clone());
        let through = scene.other("sh", &words).output().unwrap();
        let direct = scene.other("sh", &["-c", script, "sh", "ls", "/proc/self/fd"]).output().unwrap();
        (String::from_utf8(through.stdout).unwrap(), String::from_utf8(direct.stdout).unwrap())
    };
    for script in
        ["exec \"$@\"", "exec 3</dev/null 9</dev/null; exec \"$@\"", "exec <&-; exec \"$@\"", "exec 2>&-; exec \"$@\""]
    {
        let (through, direct) = listing(script);
        assert_eq!(through, direct, "{script}");
        assert!(!direct.is_empty());
    }
}

#[test]
fn limits_umask_and_folder_are_those_that_the_caller_had() {
    let scene = Scene::with(&[("A", "1")]);
    let probe = "cat /proc/self/limits; umask; pwd; cat /proc/self/oom_score_adj; ulimit -c; nice";
    let arguments = scene.run_arguments(&["sh", "-c", probe]);
    let setting = "umask 027; ulimit -n 77; ulimit -c 0; ulimit -s 4096; exec \"$@\"";
    let mut words: Vec<std::ffi::OsString> = ["-c", setting, "sh", VOUCHSAFE].map(Into::into).to_vec();
    words.extend(arguments);
    let through = scene.other("sh", &words).output().unwrap();
    let direct = scene.other("sh", &["-c", setting, "sh", "sh", "-c", probe]).output().unwrap();
    assert_eq!(String::from_utf8(through.stdout).unwrap(), String::from_utf8(direct.stdout).unwrap());
}

#[test]
fn a_command_that_is_not_there_costs_nothing() {
    let scene = Scene::with(&[("A", "1")]);
    scene.run(&["no-such-command"]).expect_status(127);
    scene.run(&["./no/such/command"]).expect_status(127);
    scene.run(&["/etc/passwd"]).expect_status(126);
    scene.run(&["/"]).expect_status(126);
    let script = scene.write_mode("no-interpreter-line", b"echo hello\n", 0o755);
    scene.run(&[script]).expect_status(126);
    assert!(scene.events().is_empty(), "nothing was asked for, so nothing was written down");
    std::fs::remove_file(scene.path("store.age")).unwrap();
    scene.run(&["no-such-command"]).expect_status(127);
}

#[test]
fn a_script_without_its_interpreter_is_found_but_not_executable() {
    let scene = Scene::with(&[("A", "1")]);
    let script = scene.write_mode("script", b"#!/no/such/interpreter\n", 0o755);
    scene.run(&[script]).expect_status(126);
    assert_eq!(scene.events(), ["access.requested", "access.released", "access.unused"]);
}

#[test]
fn a_relative_command_is_relative_to_the_callers_folder() {
    let scene = Scene::with(&[("A", "1")]);
    scene.write_mode("bin/tool", b"#!/bin/sh\necho \"$0 $A\"\n", 0o755);
    assert_eq!(scene.run(&["./bin/tool"]).expect_status(0).out(), "./bin/tool 1\n");
    assert_eq!(scene.run(&["bin/tool"]).expect_status(0).out(), "bin/tool 1\n");
    let scene = scene.variable("PATH", "bin:/usr/bin:/bin");
    assert_eq!(scene.run(&["tool"]).expect_status(0).out(), "bin/tool 1\n");
}

#[test]
fn one_bad_secret_of_many_stops_the_child() {
    let values: Vec<(String, String)> = (0..25).map(|n| (format!("S{n:02}"), format!("v{n}"))).collect();
    let pairs: Vec<(&str, &str)> = values.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let scene = Scene::with(&pairs);
    let marker = scene.path("started");
    for bad in 0..25 {
        let rest: Vec<_> = pairs.iter().enumerate().filter(|(index, _)| *index != bad).map(|(_, pair)| *pair).collect();
        scene.store(&rest);
        let outcome = scene.run(&[std::ffi::OsStr::new("touch"), marker.as_os_str()]).expect_status(122);
        assert!(outcome.err().contains(&format!("S{bad:02}")), "{}", outcome.err());
        assert!(!marker.exists(), "the child was started without S{bad:02}");
    }
}

#[test]
fn the_kernels_limits_are_ours_first() {
    let longest = "x".repeat(131_072 - "A=".len() - 1);
    let scene = Scene::with(&[("A", &longest)]);
    let outcome = scene.run(&["sh", "-c", "printf %s \"${#A}\""]).expect_status(0);
    assert_eq!(outcome.out(), (131_072 - 3).to_string());

    let scene = Scene::with(&[("A", &format!("{longest}x"))]);
    let outcome = scene.run(&["true"]).expect_status(125);
    assert!(outcome.err().contains("error[environment]") && outcome.err().contains("`A`"), "{}", outcome.err());
    assert!(!outcome.err().contains("xx"));

    let many: Vec<(String, String)> = (0..60).map(|n| (format!("S{n}"), "y".repeat(120_000))).collect();
    let pairs: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let scene = Scene::with(&pairs);
    let outcome = scene.run(&["true"]).expect_status(125);
    assert!(outcome.err().contains("error[environment]"), "{}", outcome.err());
    assert_eq!(scene.events(), ["access.requested", "access.failed"]);
}

#[test]
fn a_value_with_a_nul_byte_is_refused_by_name() {
    let scene = Scene::with(&[("A", "before\0after")]);
    let outcome = scene.run(&["true"]).expect_status(125);
    assert!(outcome.err().contains("`A`") && !outcome.err().contains("before"), "{}", outcome.err());
}

#[test]
fn hostile_start_conditions_end_in_an_error_or_the_child() {
    let scene = Scene::with(&[("A", "1")]);
    let arguments = scene.run_arguments(&["sh", "-c", "exit 7"]);
    let start = |script: &str| {
        let mut words: Vec<std::ffi::OsString> = ["-c", script, "sh", VOUCHSAFE].map(Into::into).to_vec();
        words.extend(arguments.clone());
        scene.other("sh", &words).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().code()
    };
    for script in [
        "exec \"$@\" <&- >&- 2>&-",
        "exec \"$@\" 2>/dev/full",
        "exec \"$@\" >/dev/full 2>&1",
        "mkdir gone; cd gone; rmdir ../gone; exec \"$@\"",
        "unset HOME PATH; exec \"$@\"",
        "ulimit -n 16; exec \"$@\"",
        "trap '' HUP INT QUIT TERM PIPE; exec \"$@\"",
    ] {
        assert_eq!(start(script), Some(7), "{script}");
    }
    // Too little of everything: an error of ours, never a panic (101), an abort (134) or a hang.
    // Of address space as much as the program itself takes when it is mapped, and a little.
    let mapped = std::fs::metadata(VOUCHSAFE).unwrap().len() / 1024 + 8_000;
    let little_memory = format!("ulimit -v {mapped}; exec \"$@\"");
    for script in ["ulimit -n 3; exec \"$@\"", &little_memory, "ulimit -f 0; exec \"$@\""] {
        let status = start(script);
        assert!(matches!(status, Some(7 | 120..=127)), "{script}: {status:?}");
    }
}

#[test]
fn a_full_standard_error_does_not_hide_the_status() {
    let scene = Scene::new();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let status = scene.command(&["run", "--policy", "absent.toml", "--", "true"]).stderr(full).status().unwrap();
    assert_eq!(status.code(), Some(121));
}

#[test]
fn an_execute_only_program_runs() {
    let scene = Scene::with(&[("A", "1")]);
    let copy = scene.path("true");
    std::fs::copy("/bin/true", &copy).unwrap();
    std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o711)).unwrap();
    scene.run(&[copy]).expect_status(0);
}
