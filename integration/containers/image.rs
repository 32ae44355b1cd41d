//! The images: one made `FROM scratch`, and one that stands for somebody else's, with a shell and an entrypoint of its own.
//! No registry is asked for anything.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::engine::Engine;
use crate::copy_program;
use crate::harness::Scene;

/// What must be nowhere but in the child's environment.
pub const CANARY: &str = "canary-of-a-container-4f1d";
/// The user of images without users.
pub const USER: u32 = 65_532;

/// Made `FROM scratch`; its command is `/app wait`.
pub const PLAIN: &str = "plain";
/// Somebody else's image, as it is.
pub const BASE: &str = "base";
/// `BASE` behind our prefix, its `CMD` written again.
pub const PREFIXED: &str = "prefixed";

/// As `docker run` wants it.
pub const USER_FLAG: [&str; 2] = ["--user", "65532:65532"];

pub const PREFIX: &str = r#"["/usr/local/bin/vouchsafe", "run", "--env", "prod", "--service", "api", "--"]"#;

/// A store with one secret, its identity, and the policies of the images.
pub fn scene() -> Scene {
    let scene = Scene::new();
    scene.store(&[("DB_PASSWORD", CANARY)]);
    // A mounted key belongs to root; the group is the service's.
    let key = scene.path("identity.key");
    std::os::unix::fs::chown(&key, Some(0), Some(USER)).unwrap();
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o640)).unwrap();
    scene
}

/// The flag that mounts the identity where the policies look for it.
pub fn identity(engine: &Engine) -> String {
    format!("--volume={}:/run/secrets/prod-age:ro", engine.scene.path("identity.key").display())
}

/// A policy of the images; `change` is what is special about it.
pub fn policy(change: impl Fn(String) -> String) -> String {
    change(
        "version = 1\nenvironment = \"prod\"\nstore = \"files\"\n\
         [stores.files]\ntype = \"age\"\nformat = \"json\"\nunbound = true\npath = \"/etc/vouchsafe/secrets/prod.age\"\n\
         identities = [\"file:/run/secrets/prod-age\"]\n\
         [secrets]\nDB_PASSWORD = {}\n\
         [[grants]]\nsecrets = [\"*\"]\nto = { users = [0, 65532] }\n\
         [[audit.sinks]]\ntype = \"stderr\"\n"
            .into(),
    )
}

/// Builds what every step uses.
pub fn build(engine: &Engine, binary: &Path) {
    let plain = engine.folder("plain");
    copy_program(binary.to_str().unwrap(), &plain.join("vouchsafe"));
    compile(&plain.join("app"));
    let write = |name: &str, change: &dyn Fn(String) -> String| {
        let path = plain.join("policies/prod").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, policy(change)).unwrap();
    };
    write("api.toml", &|text| text);
    write("denied.toml", &|text| text.replace("[0, 65532]", "[1]"));
    write("pinned.toml", &|text| text.replace("users = [0, 65532]", "users = [65532], commands = [\"/app\"]"));
    write("lost.toml", &|text| text.replace("prod.age", "lost.age"));
    write("mute.toml", &|text| text.replace("\"stderr\"", "\"file\"\npath = \"/nowhere/audit.jsonl\""));
    std::fs::copy(engine.scene.path("store.age"), plain.join("prod.age")).unwrap();
    std::fs::write(
        plain.join("Dockerfile"),
        format!(
            "FROM scratch\nCOPY vouchsafe /usr/local/bin/vouchsafe\nCOPY app /app\nCOPY policies /etc/vouchsafe/policies\n\
             COPY prod.age /etc/vouchsafe/secrets/prod.age\nENTRYPOINT {PREFIX}\nCMD [\"/app\", \"wait\"]\n"
        ),
    )
    .unwrap();
    engine.build(PLAIN, &plain);
    import(engine, &plain);
    engine.derive(
        PREFIXED,
        &format!(
            "FROM {BASE}\nCOPY --from={PLAIN} /usr/local/bin/vouchsafe /usr/local/bin/vouchsafe\n\
             COPY --from={PLAIN} /etc/vouchsafe /etc/vouchsafe\n\
             ENTRYPOINT {}\nCMD [\"/app\", \"show\"]\n",
            PREFIX.replace("\"--\"]", "\"--\", \"docker-entrypoint.sh\"]")
        ),
    );
}

/// The program that runs in the containers.
fn compile(to: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/containers/app.c");
    let status = Command::new("cc").args(["-static", "-O1", "-Wall", "-Wextra", "-o"]).arg(to).arg(source).status();
    assert!(status.unwrap().success());
}

/// An image with a shell, as one from a registry: an entrypoint that prepares something and becomes its arguments.
fn import(engine: &Engine, plain: &Path) {
    let root = engine.folder("base");
    for folder in ["bin", "usr/local/bin", "tmp", "etc"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    copy_program("/bin/busybox", &root.join("bin/busybox"));
    copy_program(plain.join("app").to_str().unwrap(), &root.join("app"));
    for name in ["sh", "env", "cat", "mkdir", "cp", "install", "adduser"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    let script = "#!/bin/sh\nset -eu\necho \"prepared for $1 with ${DB_PASSWORD:+a password}\"\nexec \"$@\"\n";
    let path = root.join("usr/local/bin/docker-entrypoint.sh");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    import_folder(engine, BASE, &root, &["ENTRYPOINT [\"docker-entrypoint.sh\"]", "CMD [\"/app\", \"show\"]"]);
}

/// Makes an image of one layer from a folder.
pub fn import_folder(engine: &Engine, tag: &str, root: &Path, changes: &[&str]) {
    let archive = root.with_extension("tar").display().to_string();
    let status =
        Command::new("tar").args(["--owner=0", "--group=0", "-cf", &archive, "-C"]).arg(root).arg(".").status();
    assert!(status.unwrap().success());
    let path = "--change=ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
    let changes: Vec<String> = changes.iter().map(|change| format!("--change={change}")).chain([path]).collect();
    let changes: Vec<&str> = changes.iter().map(String::as_str).collect();
    engine.ask(&[&["import"], &changes[..], &[&archive, tag]].concat());
}
