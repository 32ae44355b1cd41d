//! The order of what the kernel sees: undumpable, then written down, then fetched, then written down, then executed.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::harness::VOUCHSAFE;
use crate::have;
use crate::sealed::Sealed;
use crate::strace::{Call, Traced, trace};

/// The binaries to look at: the dynamic one, and the static one that `integration/run` has built.
fn binaries() -> Vec<(PathBuf, bool)> {
    let mut binaries = vec![(PathBuf::from(VOUCHSAFE), false)];
    match std::env::var_os("VOUCHSAFE_STATIC") {
        Some(path) => binaries.push((path.into(), true)),
        None => println!("\nSKIPPED: traces of the static binary (needs it, which integration/run builds)"),
    }
    binaries
}

/// What a call is for, and how it is known.
type Step<'a> = (&'a str, &'a dyn Fn(&Call) -> bool);

fn run_of(binary: &std::path::Path, child: &str) -> Vec<OsString> {
    let mut command: Vec<OsString> = vec![binary.into()];
    command.extend(["run", "--policy", "policy.toml", "--", child].map(Into::into));
    command
}

fn is_exec(call: &Call) -> bool {
    call.name.starts_with("execve")
}

/// Where the target is executed: the last exec, and the first after the one that started the wrapper.
fn exec_of(traced: &Traced, target: &str) -> usize {
    let execs: Vec<usize> = (0..traced.calls.len()).filter(|at| is_exec(&traced.calls[*at])).collect();
    assert_eq!(execs.len(), 2, "the wrapper and its target, nothing else\n{}", traced.transcript());
    let last = &traced.calls[execs[1]];
    assert!(last.succeeded() && last.mentions(&format!("\"{target}\"")), "{}", last.text);
    execs[1]
}

#[test]
fn everything_happens_in_its_order() {
    if !have(&["strace"], true) {
        return;
    }
    for (binary, is_static) in binaries() {
        let sealed = Sealed::with(&[("A", "1"), ("B", "2")]);
        let traced = trace(&sealed.scene, &["-y", "-s", "4096"], &run_of(&binary, "/usr/bin/true"), b"");
        assert_eq!(traced.status.code(), Some(0), "{}", traced.transcript());
        let exec = exec_of(&traced, "/usr/bin/true");
        let first = |what: &str, is_it: &dyn Fn(&Call) -> bool| traced.position(what, is_it);
        let log = |call: &Call| call.mentions("/log/audit.jsonl>");
        let written = |event: &str| first(event, &|call| call.name == "write" && log(call) && call.mentions(event));
        let synced_after = |at: usize| {
            let sync = traced.calls[at..].iter().position(|call| call.name == "fdatasync" && log(call));
            let sync = at + sync.unwrap_or_else(|| panic!("no fdatasync\n{}", traced.transcript()));
            assert!(traced.calls[sync].succeeded());
            sync
        };
        let undumpable = first("prctl", &|call| call.name == "prctl" && call.mentions("PR_SET_DUMPABLE"));
        assert!(traced.calls[undumpable].mentions("SUID_DUMP_DISABLE") && traced.calls[undumpable].succeeded());
        let requested = synced_after(written("access.requested"));
        let identity = first("identity", &|call| call.opens("identity.key"));
        let store = first("store", &|call| call.opens("store.age"));
        let released = written("access.released");
        let released_synced = synced_after(released);
        assert!(undumpable < requested, "{}", traced.transcript());
        assert!(requested < identity && requested < store, "{}", traced.transcript());
        assert!(identity < released && store < released, "{}", traced.transcript());
        assert!(released_synced < exec, "{}", traced.transcript());

        // Not even a look at what is fetched before it is written down.
        let looked = first("a look at the store", &|call| {
            !["read", "write"].contains(&call.name.as_str())
                && (call.mentions("store.age") || call.mentions("identity.key"))
        });
        assert!(requested < looked, "{}", traced.calls[looked].text);
        let wrapper = &traced.calls[..exec];
        let count = |names: &[&str]| wrapper.iter().filter(|call| names.contains(&call.name.as_str())).count();
        assert_eq!(count(&["fdatasync"]), 2);
        assert_eq!(count(&["fsync", "sync", "syncfs"]), 0, "{}", traced.transcript());
        assert_eq!(count(&["clone", "clone3", "fork", "vfork"]), 0, "{}", traced.transcript());
        assert_eq!(count(&["socket", "connect", "bind", "memfd_create", "process_vm_writev"]), 0);
        let loads = |what: &str| wrapper.iter().filter(|call| call.opens(what) && call.succeeded()).count();
        assert_eq!(loads("libnss"), 0, "{}", traced.transcript());
        if is_static {
            assert_eq!(loads("ld.so") + loads("libc.so") + loads("ld-linux"), 0, "{}", traced.transcript());
        } else {
            assert_eq!(loads("libc.so"), 1, "the look for loaded libraries finds nothing");
        }
    }
}

#[test]
fn nothing_is_fetched_for_a_command_that_is_not_there_or_not_granted() {
    if !have(&["strace"], true) {
        return;
    }
    for (child, grants, status) in [
        ("no-such-command", "anyone", 127),
        ("/etc/passwd", "anyone", 126),
        ("/usr/bin/true", "{ users = [54321] }", 120),
    ] {
        let sealed = Sealed::with(&[("A", "1")]);
        let policy = std::fs::read_to_string(sealed.scene.path("policy.toml")).unwrap();
        let to = if grants == "anyone" { "\"anyone\"" } else { grants };
        sealed.scene.write("policy.toml", policy.replace("\"anyone\"", to).as_bytes());
        let traced = trace(&sealed.scene, &["-y"], &run_of(VOUCHSAFE.as_ref(), child), b"");
        assert_eq!(traced.status.code(), Some(status), "{}", traced.transcript());
        let looked = |call: &Call| call.name != "read" && (call.mentions("store.age") || call.mentions("identity.key"));
        assert_eq!(traced.count(looked), 0, "{}", traced.transcript());
        assert_eq!(traced.count(is_exec), 1, "{}", traced.transcript());
    }
}

#[test]
fn a_store_is_replaced_in_the_order_that_survives_a_power_cut() {
    if !have(&["strace"], true) {
        return;
    }
    let sealed = Sealed::with(&[("A", "1")]);
    let traced = trace(&sealed.scene, &["-y", "-s", "4096"], &Sealed::set_command("A"), b"2");
    assert_eq!(traced.status.code(), Some(0), "{}", traced.transcript());
    let steps: [Step; 9] = [
        ("written down", &|call| call.name == "fdatasync"),
        ("locked", &|call| call.name == "flock" && call.mentions("/store>")),
        ("read", &|call| call.opens("store.age\"")),
        ("a temporary file", &|call| call.opens(".tmp\"") && call.mentions("O_EXCL")),
        ("written", &|call| call.name == "write" && call.mentions(".tmp>")),
        ("synced", &|call| call.name == "fsync" && call.mentions(".tmp>")),
        ("replaced", &|call| call.name.starts_with("rename")),
        ("its folder synced", &|call| call.name == "fsync" && call.mentions("/store>")),
        ("the outcome written down", &|call| call.name == "write" && call.mentions("secret.written")),
    ];
    let places = steps.map(|(what, is_it)| traced.position(what, is_it));
    assert!(places.is_sorted(), "{places:?}\n{}", traced.transcript());
}

/// A checkpoint that names records which a power cut can take would make an honest log look rewritten.
#[test]
fn a_log_is_synced_before_a_checkpoint_of_it_leaves() {
    if !have(&["strace"], true) {
        return;
    }
    let sealed = Sealed::with(&[("A", "1")]);
    let policy = std::fs::read_to_string(sealed.scene.path("policy.toml")).unwrap();
    let notes = sealed.scene.path("notes");
    let sink =
        format!("[[audit.sinks]]\ncheckpoints = {{ every = 1, to = [\"file:{}\"] }}\nsync = false\n", notes.display());
    sealed.scene.write("policy.toml", policy.replacen("[[audit.sinks]]\n", &sink, 1).as_bytes());
    // The note is written in a thread of its own.
    let run = run_of(VOUCHSAFE.as_ref(), "/usr/bin/true");
    let traced = trace(&sealed.scene, &["-y", "-s", "4096"], &run, b"");
    assert_eq!(traced.status.code(), Some(0), "{}", traced.transcript());
    let steps: [Step; 4] = [
        ("written down", &|call| call.name == "write" && call.mentions("access.requested")),
        ("synced", &|call| call.name == "fdatasync" && call.mentions("/log/audit.jsonl>")),
        ("left", &|call| call.name == "write" && call.mentions("/notes>")),
        ("fetched", &|call| call.opens("store.age")),
    ];
    let places = steps.map(|(what, is_it)| traced.position(what, is_it));
    assert!(places.is_sorted(), "{places:?}\n{}", traced.transcript());
}
