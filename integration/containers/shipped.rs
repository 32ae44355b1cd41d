//! The images of `deploy/`, built as their Dockerfiles say and run. No registry is reachable, so images of this machine stand
//! for those they begin with: a `rust` whose `cargo` hands over the binary under test, a `wordpress` with an entrypoint of the
//! documented shape.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::engine::Engine;
use super::image::{BASE, CANARY, PLAIN, identity, import_folder};
use crate::{copy_program, harness};

const OURS: &str = "registry.example.com/vouchsafe:0.1.0";
/// The service's image of `deploy/docker`; the compose file and the stack name it.
pub const API: &str = "registry.example.com/shop/api:1.4.2";

fn example(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)).unwrap()
}

fn write(path: &Path, content: &[u8], mode: u32) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// What the first line of a stage names.
fn base_of(dockerfile: &str) -> &str {
    dockerfile.lines().find_map(|line| line.strip_prefix("FROM ")).unwrap().split(' ').next().unwrap()
}

pub fn the_dockerfiles_build_and_run(engine: &Engine) {
    ours(engine);
    api(engine);
    let outcome = engine.run(&[&identity(engine)], API, &["/usr/bin/api", "show"]).expect_status(0);
    assert!(outcome.out().contains(&format!("DATABASE_URL={CANARY}\n")), "{}", outcome.transcript());
    // The grant names the user and the command.
    engine.run(&[&identity(engine), "--user=0"], API, &["/usr/bin/api", "show"]).expect_status(120);
    engine.run(&[&identity(engine)], API, &["/usr/local/bin/vouchsafe", "man"]).expect_status(120);
    wordpress(engine);
}

/// The binary from two stages.
fn ours(engine: &Engine) {
    let dockerfile = example("docker/vouchsafe.Dockerfile");
    let rust = engine.folder("rust");
    let binary = engine.scene.path("plain/vouchsafe");
    copy_program("/bin/busybox", &install(&rust.join("bin/busybox")));
    for name in ["sh", "cp", "mkdir", "test"] {
        std::os::unix::fs::symlink("busybox", rust.join("bin").join(name)).unwrap();
    }
    copy_program(binary.to_str().unwrap(), &install(&rust.join("opt/vouchsafe")));
    let cargo = "#!/bin/sh\nset -eu\n[ \"$1\" = rustc ] && test -f Cargo.toml -a -f Cargo.lock -a -f src/main.rs\n\
                 mkdir -p target/release && cp /opt/vouchsafe target/release/vouchsafe\n";
    write(&rust.join("usr/local/bin/cargo"), cargo.as_bytes(), 0o755);
    import_folder(engine, base_of(&dockerfile), &rust, &[]);
    let context = engine.folder("ours");
    for folder in ["src/main.rs", "benches/x", "tests/x", "integration/x", "Cargo.toml", "Cargo.lock"] {
        write(&context.join(folder), b"", 0o644);
    }
    write(&context.join("Dockerfile"), dockerfile.as_bytes(), 0o644);
    engine.build(OURS, &context);
    let version = engine.run(&["--network=none", "--read-only"], OURS, &["--version"]).expect_status(0);
    assert!(version.out().starts_with("vouchsafe "), "{}", version.transcript());
}

fn install(path: &Path) -> std::path::PathBuf {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    path.to_owned()
}

/// The service: policy and sealed file inside, opened by the key that is mounted.
fn api(engine: &Engine) {
    let context = engine.folder("api");
    let recipient = engine.scene.recipient();
    let shipped = example("docker/policies/prod/api.toml");
    let theirs =
        shipped.lines().find_map(|line| line.strip_prefix("recipients = [\"")).unwrap().trim_end_matches("\"]");
    let policy = shipped.replace(theirs, &recipient);
    // Sealed on this host, where the key lies elsewhere.
    let key = engine.scene.path("identity.key").display().to_string();
    write(&context.join("on/host/api.toml"), policy.replace("/run/secrets/prod-age", &key).as_bytes(), 0o644);
    std::fs::create_dir_all(context.join("secrets")).unwrap();
    let host = context.join("on/host/api.toml").display().to_string();
    set(engine, &host, CANARY);
    // As a checkout of git leaves it: the service's user must be able to read it.
    std::fs::set_permissions(context.join("secrets/prod.age"), PermissionsExt::from_mode(0o644)).unwrap();
    std::fs::remove_dir_all(context.join("on")).unwrap();
    write(&context.join("policies/prod/api.toml"), policy.as_bytes(), 0o644);
    copy_program(engine.scene.path("plain/app").to_str().unwrap(), &context.join("api"));
    write(&context.join("Dockerfile"), example("docker/Dockerfile").as_bytes(), 0o644);
    engine.build(API, &context);
}

/// Writes `DATABASE_URL` into the store of a policy.
pub fn set(engine: &Engine, policy: &str, value: &str) {
    let line = ["set", "DATABASE_URL", "--policy", policy];
    let outcome: harness::Outcome = engine.scene.vouchsafe_reading(&line, value.as_bytes());
    outcome.expect_status(0);
}

/// Somebody else's image: its entrypoint runs with the secrets and becomes CMD; what it would read instead is refused.
fn wordpress(engine: &Engine) {
    let dockerfile = example("wordpress/Dockerfile");
    engine.ask(&["tag", BASE, base_of(&dockerfile)]);
    let context = engine.folder("wordpress");
    write(&context.join("Dockerfile"), dockerfile.as_bytes(), 0o644);
    write(&context.join("wordpress.toml"), example("wordpress/wordpress.toml").as_bytes(), 0o644);
    engine.build("wordpress-prefixed", &context);
    let configuration =
        engine.ask(&["inspect", "--format={{json .Config.Cmd}} {{json .Config.Entrypoint}}", "wordpress-prefixed"]);
    assert!(
        configuration.starts_with("[\"php-fpm\"]") && configuration.contains("docker-entrypoint.sh"),
        "{configuration}"
    );

    // Its stores are AWS's; here with a file in their place, and a program in that of php-fpm.
    let names: Vec<String> = example("wordpress/wordpress.toml")
        .lines()
        .filter_map(|line| line.strip_suffix(" = {}").map(str::to_owned))
        .collect();
    assert_eq!(names.len(), 9);
    let scene = harness::Scene::with(&names.iter().map(|name| (name.as_str(), CANARY)).collect::<Vec<_>>());
    let shipped = example("wordpress/wordpress.toml");
    let (before, rest) = shipped.split_once("[stores.params]\n").unwrap();
    let (_, after) = rest.split_once("\n\n").unwrap();
    let policy = format!(
        "{before}[stores.params]\ntype = \"age\"\nformat = \"json\"\nunbound = true\npath = \"/run/secrets/store.age\"\n\
         identities = [\"file:/run/secrets/prod-age\"]\n\n{after}"
    );
    let policy = scene.write("wordpress.toml", policy.as_bytes());
    let mounts = [
        format!("--volume={}:/run/secrets/prod-age:ro", scene.path("identity.key").display()),
        format!("--volume={}:/run/secrets/store.age:ro", scene.path("store.age").display()),
        format!("--volume={}:/etc/vouchsafe/policies/prod/wordpress.toml:ro", policy.display()),
        format!("--volume={}:/usr/local/bin/php-fpm:ro", engine.scene.path("plain/app").display()),
    ];
    let flags: Vec<&str> = mounts.iter().map(String::as_str).collect();
    let outcome = engine.run(&flags, "wordpress-prefixed", &["php-fpm", "show"]).expect_status(0);
    assert!(outcome.out().starts_with("prepared for php-fpm"), "{}", outcome.transcript());
    for name in &names {
        assert!(outcome.out().contains(&format!("{name}={CANARY}\n")), "{name}: {}", outcome.transcript());
    }
    let twin = [&flags[..], &["--env=WORDPRESS_DB_PASSWORD_FILE=/run/secrets/old"]].concat();
    let outcome = engine.run(&twin, "wordpress-prefixed", &["php-fpm", "show"]).expect_status(125);
    assert!(outcome.err().contains("`WORDPRESS_DB_PASSWORD_FILE`"), "{}", outcome.transcript());
    assert_eq!(outcome.out(), "");
    // The grant names the entrypoint: nothing else of the image gets anything.
    let other = [&flags[..], &["--entrypoint=/usr/local/bin/vouchsafe"]].concat();
    let words = ["run", "--env", "prod", "--service", "wordpress", "--", "env"];
    engine.run(&other, "wordpress-prefixed", &words).expect_status(120);
    // Without arguments the CMD that was written again is what runs.
    let container = engine.start_ready(&flags, "wordpress-prefixed", &[]);
    assert!(container.said.starts_with("prepared for php-fpm"), "{}", container.said);
    assert!(container.environ().contains(CANARY) && container.inspect("{{.Path}}").ends_with("vouchsafe"));
}

/// A ConfigMap as the kubelet lays it out: a folder of mode 0777, links to a dated folder, mounted read-only.
pub fn a_policy_from_a_config_map(engine: &Engine) {
    let folder = engine.folder("config-map");
    let policy = super::image::policy(|text| text);
    write(&folder.join("..2026_01_15_10_20_30.1234567/mapped.toml"), policy.as_bytes(), 0o644);
    for (to, name) in [("..2026_01_15_10_20_30.1234567", "..data"), ("..data/mapped.toml", "mapped.toml")] {
        std::os::unix::fs::symlink(to, folder.join(name)).unwrap();
    }
    for path in [folder.join("..2026_01_15_10_20_30.1234567"), folder.clone()] {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).unwrap();
    }
    let run = |mode: &str| {
        let mount = format!("--volume={}:/etc/vouchsafe/policies/prod{mode}", folder.display());
        let flags =
            ["--user=65532:65532", &identity(engine), &mount, "--env=VOUCHSAFE_SERVICE=mapped"].map(str::to_owned);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let entrypoint = [&flags[..], &["--entrypoint=/usr/local/bin/vouchsafe"]].concat();
        engine.run(&entrypoint, PLAIN, &["run", "--env", "prod", "--", "/app", "show"])
    };
    assert!(run(":ro").expect_status(0).out().contains(CANARY));
    // The same folder, where others can write: not a policy.
    run("").expect_status(121);
}
