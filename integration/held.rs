//! A wrapper that is stopped while it holds plaintext: it leaves no core, and its own uid cannot look into it.
//!
//! It is held at the last moment before the exec: the record of the release does not fit into a full pipe. Root, who may
//! look, shows that the value really is there.

use std::ffi::OsString;
use std::io::{PipeReader, Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::harness::{Scene, VOUCHSAFE};
use crate::{copy_program, have};

const OTHER: u32 = 54_322;
const CANARY: &str = "kanarienvogel2Rt7Kq";

/// As the unprivileged user, without a limit for cores.
fn as_other(scene: &Scene, words: &[OsString]) -> Command {
    let id = OTHER.to_string();
    let mut all: Vec<OsString> =
        ["--core=unlimited", "--", "setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"]
            .iter()
            .map(Into::into)
            .collect();
    all.extend_from_slice(words);
    scene.other("prlimit", &all)
}

/// Any process of that user that is no wrapper. It has answered, so it is past its exec.
fn running_cat(scene: &Scene) -> Child {
    let mut cat = as_other(scene, &["cat".into()]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    cat.stdin.as_ref().unwrap().write_all(b"x").unwrap();
    cat.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    cat
}

struct Held {
    scene: Scene,
    wrapper: Child,
    /// Kept open, and full.
    _pipe: PipeReader,
}

impl Drop for Held {
    fn drop(&mut self) {
        // It may be gone already.
        self.wrapper.kill().unwrap_or_default();
        self.wrapper.wait().unwrap();
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed().as_secs() < 20, "{what}");
        std::thread::yield_now();
    }
}

fn hold() -> Held {
    let scene = Scene::with(&[("A", CANARY)]).sinks("[[audit.sinks]]\ntype = \"stderr\"\n");
    let mut words = vec![copy_program(VOUCHSAFE, &scene.path("vouchsafe")).into_os_string()];
    words.extend(scene.run_arguments(&["/usr/bin/true"]));
    for file in ["", "identity.key", "store.age", "policy.toml"] {
        chown(scene.path(file), Some(OTHER), Some(OTHER)).unwrap();
    }
    // How long the records are: the same run, unhindered.
    let output = as_other(&scene, &words).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<usize> = output.stderr.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::len).collect();
    let [first, second] = lines[..] else { panic!("{lines:?}") };

    let (pipe, mut writer) = std::io::pipe().unwrap();
    let room = first + second / 2;
    let full = 65_536 - room;
    writer.write_all(&vec![b'x'; full]).unwrap();
    let wrapper = as_other(&scene, &words).stdout(Stdio::null()).stderr(writer).spawn().unwrap();
    let held = Held { scene, wrapper, _pipe: pipe };
    let mut seen = String::new();
    wait_until("the wrapper never waited for the pipe", || {
        // Only in poll(2), 7 on x86-64 and 73 (ppoll) on arm64, while the first record is in the pipe.
        let in_pipe = rustix::io::ioctl_fionread(&held._pipe).unwrap();
        seen = std::fs::read_to_string(format!("/proc/{}/syscall", held.wrapper.id())).unwrap_or_default();
        in_pipe > full as u64 && ["7 ", "73 ", "271 "].iter().any(|number| seen.starts_with(number))
    });
    held
}

/// Whether the canary is in the memory of a process, as root sees it.
fn is_in_memory(pid: u32) -> bool {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    maps.lines().filter(|line| line.contains(" rw-p ")).any(|line| {
        let (from, to) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        let [from, to] = [from, to].map(|end| u64::from_str_radix(end, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        let read = memory.read_at(&mut bytes, from).unwrap_or_default();
        bytes[..read].windows(CANARY.len()).any(|window| window == CANARY.as_bytes())
    })
}

#[test]
fn a_wrapper_that_dies_with_a_value_leaves_no_core() {
    if !have(&["prlimit", "setpriv"], true) {
        return;
    }
    // That a core would be made at all: of a process that is no wrapper, in the same folder.
    for signal in ["ABRT", "SEGV"] {
        let mut held = hold();
        let mut control = running_cat(&held.scene);
        let number = rustix::process::Signal::from_named_raw(if signal == "ABRT" { 6 } else { 11 }).unwrap();
        let send = |child: &Child| {
            let pid = rustix::process::Pid::from_raw(child.id().try_into().unwrap()).unwrap();
            rustix::process::kill_process(pid, number).unwrap();
        };
        send(&control);
        let makes_cores = control.wait().unwrap().core_dumped();
        for entry in std::fs::read_dir(held.scene.path("")).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_string_lossy().starts_with("core") {
                std::fs::remove_file(path).unwrap();
            }
        }
        if !makes_cores {
            println!("\nSKIPPED: no core of a wrapper (this machine makes no cores at all)");
            return;
        }
        assert!(is_in_memory(held.wrapper.id()), "the wrapper does not hold what it is to lose");
        // The first SEGV only takes away the handler of Rust's start-up.
        let mut status = None;
        wait_until("it outlived its signals", || {
            if status.is_none() {
                send(&held.wrapper);
                status = held.wrapper.try_wait().unwrap();
            }
            status.is_some()
        });
        let status = status.unwrap();
        assert!(status.signal().is_some() && !status.core_dumped(), "{signal}: {status:?}");
        let cores = std::fs::read_dir(held.scene.path("")).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(cores.filter(|name| name.to_string_lossy().starts_with("core")).count(), 0);
    }
}

#[test]
fn the_same_user_cannot_look_into_a_wrapper_that_holds_a_value() {
    if !have(&["prlimit", "setpriv", "strace", "dd"], true) {
        return;
    }
    let held = hold();
    let pid = held.wrapper.id().to_string();
    let attach = |pid: &str| {
        let words: [OsString; 6] = ["strace", "-e", "trace=none", "-p", pid, "-qq"].map(Into::into);
        as_other(&held.scene, &words).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
    };
    assert!(is_in_memory(held.wrapper.id()), "the wrapper does not hold what it is to lose");
    let output = attach(&pid).wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("Operation not permitted"), "{told}");
    for file in ["mem", "environ", "maps"] {
        let words: [OsString; 4] =
            ["dd".into(), format!("if=/proc/{pid}/{file}").into(), "of=/dev/null".into(), "count=1".into()];
        let output = as_other(&held.scene, &words).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains("Permission denied"), "{file}: {told}");
    }
    drop(held);
}

#[test]
fn the_same_user_could_look_into_any_other_process() {
    if !have(&["prlimit", "setpriv"], true) {
        return;
    }
    // What makes the test before this one able to fail.
    let scene = Scene::new();
    chown(scene.path(""), Some(OTHER), Some(OTHER)).unwrap();
    std::fs::set_permissions(scene.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    let mut other = running_cat(&scene);
    let words: [OsString; 2] = ["cat".into(), format!("/proc/{}/environ", other.id()).into()];
    let output = as_other(&scene, &words).output().unwrap();
    assert!(output.status.success() && !output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    drop(other.stdin.take());
    other.wait().unwrap();
}
