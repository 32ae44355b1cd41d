//! Other users: what they may not read, and what they could have written is not trusted.

use std::os::unix::fs::{PermissionsExt, chown};

use crate::harness::{Scene, VOUCHSAFE};
use crate::{copy_program, have};

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
    let binary = copy_program(VOUCHSAFE, &scene.path("vouchsafe"));
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
    let binary = copy_program(VOUCHSAFE, &scene.path("vouchsafe"));
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
    let binary = copy_program(VOUCHSAFE, &scene.path("vouchsafe"));
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

#[test]
fn what_root_initialises_does_not_lock_out_everybody_else() {
    if !have(&["unshare", "mount", "setpriv"], true) {
        return;
    }
    // In a mount namespace of its own, with an `/etc` and a `/var/log` that are the scene's.
    let scene = Scene::new();
    std::fs::set_permissions(scene.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    for folder in ["etc", "log", "theirs"] {
        std::fs::create_dir(scene.path(folder)).unwrap();
    }
    chown(scene.path("theirs"), Some(OTHER), Some(OTHER)).unwrap();
    let binary = copy_program(VOUCHSAFE, &scene.path("vouchsafe"));
    let theirs = format!(
        "HOME={0}/theirs setpriv --reuid {OTHER} --regid {OTHER} --clear-groups {1}",
        scene.path("").display(),
        binary.display()
    );
    let script = format!(
        "set -e\nmount --bind etc /etc\nmount --bind log /var/log\numask 077\n{0} init .\n\
         cd theirs\n{theirs} init .\n{theirs} set EXAMPLE_TOKEN --policy policies/dev.toml --generate\n\
         {theirs} run --policy policies/dev.toml -- true\n",
        binary.display()
    );
    let path = "/usr/sbin:/usr/bin:/sbin:/bin";
    let output = scene.other("unshare", &["-m", "sh", "-c", &script]).env("PATH", path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mode = |name: &str| std::fs::metadata(scene.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("etc/vouchsafe/dev.key"), 0o600);
}

/// The mask of an ACL stands where the group's rights are (acl(5)), so an identity that another user was given shows as
/// readable by its group. Root may do that, as systemd does for credentials; from anyone else it is refused.
#[test]
fn an_identity_shared_by_acl_counts_as_readable_by_its_group() {
    if !have(&["setfacl", "setpriv"], true) {
        return;
    }
    let share = |scene: &Scene, rights: &str, file: &str| {
        let words = ["-m", rights, file];
        let status = scene.other("setfacl", &words).status().unwrap();
        assert!(status.success(), "setfacl {rights} {file}");
    };
    // Root's own: reading may be shared, writing may not.
    let scene = Scene::with(&[("A", "1")]);
    let arguments = scene.run_arguments(&["true"]);
    share(&scene, &format!("u:{OTHER}:r"), "identity.key");
    scene.vouchsafe(&arguments).expect_status(0);
    assert!(scene.other("setfacl", &["-b", "identity.key"]).status().unwrap().success());
    // Group 0 may write; someone whom an ACL names shows in the same bits, and may not.
    for (file, status) in [("identity.key", 124), ("store.age", 122), ("policy.toml", 121), (".", 121)] {
        let path = scene.path(file);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode | 0o020)).unwrap();
        scene.vouchsafe(&arguments).expect_status(0);
        share(&scene, &format!("u:{OTHER}:rwx"), file);
        scene.vouchsafe(&arguments).expect_status(status);
        assert!(scene.other("setfacl", &["-b", file]).status().unwrap().success());
        scene.vouchsafe(&arguments).expect_status(0);
    }

    // A user's own: what he shares is no longer his alone.
    let scene = Scene::with(&[("A", "1")]);
    let mut words: Vec<std::ffi::OsString> =
        ["--reuid", "54321", "--regid", "54321", "--clear-groups"].map(Into::into).to_vec();
    words.push(copy_program(VOUCHSAFE, &scene.path("vouchsafe")).into());
    words.extend(scene.run_arguments(&["true"]));
    for file in ["", "identity.key", "store.age", "policy.toml"] {
        chown(scene.path(file), Some(OTHER), Some(OTHER)).unwrap();
    }
    let run = || scene.other("setpriv", &words).output().unwrap();
    let output = run();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    share(&scene, "u:12345:r", "identity.key");
    let output = run();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(124), "{told}");
    assert!(told.contains("others have rights to it"), "{told}");
}
