//! Other users: what they may not read, and what they could have written is not trusted.

use std::os::unix::fs::{PermissionsExt, chown};

use crate::harness::{Scene, VOUCHSAFE};
use crate::have;

const OTHER: u32 = 54_321;

#[test]
fn what_another_user_owns_or_could_write_is_refused() {
    if !have(&["chown"], true) {
        return;
    }
    let files = [("policy.toml", 121, 0o644), ("identity.key", 124, 0o600), ("store.age", 122, 0o644)];
    for (file, status, mode) in files {
        let scene = Scene::with(&[("A", "1")]);
        let arguments = scene.run_arguments(&["true"]);
        chown(scene.path(file), Some(OTHER), None).unwrap();
        scene.vouchsafe(&arguments).expect_status(status);
        chown(scene.path(file), Some(0), Some(OTHER)).unwrap();
        std::fs::set_permissions(scene.path(file), PermissionsExt::from_mode(mode | 0o020)).unwrap();
        scene.vouchsafe(&arguments).expect_status(status);
        std::fs::set_permissions(scene.path(file), PermissionsExt::from_mode(mode)).unwrap();
        scene.vouchsafe(&arguments).expect_status(0);
    }
    let scene = Scene::with(&[("A", "1")]);
    let arguments = scene.run_arguments(&["true"]);
    chown(scene.path(""), Some(OTHER), None).unwrap();
    scene.vouchsafe(&arguments).expect_status(121);
}

#[test]
fn an_unprivileged_user_gets_his_grant_and_no_more() {
    if !have(&["setpriv"], true) {
        return;
    }
    let scene = Scene::with(&[("A", "mine"), ("B", "not mine")]).grants(&format!(
        "[[grants]]\nsecrets = [\"A\"]\nto = {{ users = [{OTHER}] }}\n[[grants]]\nsecrets = [\"B\"]\nto = {{ users = [0] }}\n"
    ));
    let policy = scene.write_policy();
    for file in ["", "identity.key", "store.age", "policy.toml"] {
        chown(scene.path(file), Some(OTHER), Some(OTHER)).unwrap();
    }
    let binary = scene.path("vouchsafe");
    std::fs::copy(VOUCHSAFE, &binary).unwrap();
    std::fs::set_permissions(&binary, PermissionsExt::from_mode(0o755)).unwrap();
    let as_other = |only: &[&str]| {
        let id = OTHER.to_string();
        let mut words = vec!["--reuid", &id, "--regid", &id, "--clear-groups", binary.to_str().unwrap(), "run"];
        words.extend(["--policy", policy.to_str().unwrap()]);
        words.extend(only);
        words.extend(["--", "printenv", "A"]);
        scene.other("setpriv", &words).output().unwrap()
    };
    let all = as_other(&[]);
    assert_eq!(all.status.code(), Some(120), "{}", String::from_utf8_lossy(&all.stderr));
    assert!(String::from_utf8_lossy(&all.stderr).contains("`B`"), "{}", String::from_utf8_lossy(&all.stderr));
    let own = as_other(&["--only", "A"]);
    assert_eq!(String::from_utf8_lossy(&own.stdout), "mine\n", "{}", String::from_utf8_lossy(&own.stderr));
}

#[test]
fn a_set_uid_copy_refuses_to_run() {
    if !have(&["setpriv"], true) {
        return;
    }
    let scene = Scene::with(&[("A", "1")]);
    scene.write_policy();
    let binary = scene.path("vouchsafe");
    std::fs::copy(VOUCHSAFE, &binary).unwrap();
    std::fs::set_permissions(&binary, PermissionsExt::from_mode(0o4755)).unwrap();
    std::fs::set_permissions(scene.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    let id = OTHER.to_string();
    let words = [
        "--reuid",
        &id,
        "--regid",
        &id,
        "--clear-groups",
        binary.to_str().unwrap(),
        "run",
        "--policy",
        "x",
        "--",
        "id",
    ];
    let output = scene.other("setpriv", &words).output().unwrap();
    assert_eq!(output.status.code(), Some(120), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn another_users_wrapper_cannot_be_looked_into() {
    if !have(&["setpriv"], true) {
        return;
    }
    // The same uid cannot either, while it is still the wrapper: not dumpable means that /proc/PID belongs to root.
    let scene = Scene::with(&[("A", "1")]).sinks("[[audit.sinks]]\ntype = \"stderr\"\n");
    let arguments = scene.run_arguments(&["true"]);
    for file in ["", "identity.key", "store.age", "policy.toml"] {
        chown(scene.path(file), Some(OTHER), Some(OTHER)).unwrap();
    }
    let binary = scene.path("vouchsafe");
    std::fs::copy(VOUCHSAFE, &binary).unwrap();
    std::fs::set_permissions(&binary, PermissionsExt::from_mode(0o755)).unwrap();
    let id = OTHER.to_string();
    let mut words: Vec<std::ffi::OsString> =
        ["--reuid", &id, "--regid", &id, "--clear-groups"].map(Into::into).to_vec();
    words.push(binary.into());
    words.extend(arguments);
    let (reader, writer) = std::io::pipe().unwrap();
    let mut filler = scene.other("sh", &["-c", "exec yes >&2"]).stderr(writer.try_clone().unwrap()).spawn().unwrap();
    let mut wrapper = scene.other("setpriv", &words).stderr(writer).spawn().unwrap();
    let environ = format!("/proc/{}/environ", wrapper.id());
    let start = std::time::Instant::now();
    let owner = loop {
        use std::os::unix::fs::MetadataExt;
        let comm = std::fs::read_to_string(format!("/proc/{}/comm", wrapper.id())).unwrap_or_default();
        let owner = std::fs::metadata(&environ).map(|metadata| metadata.uid()).ok();
        if comm.trim() == "vouchsafe" && owner == Some(0) {
            break owner;
        }
        assert!(start.elapsed().as_secs() < 20, "the wrapper stayed dumpable");
        std::thread::yield_now();
    };
    assert_eq!(owner, Some(0));
    wrapper.kill().unwrap();
    wrapper.wait().unwrap();
    filler.kill().unwrap();
    filler.wait().unwrap();
    drop(reader);
}
