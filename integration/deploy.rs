//! The examples of `deploy/` by the tools of their platforms, and each tool with an example that is broken: a check that finds
//! nothing must be one that can find something. Their images are built and run in [`crate::containers`].

use std::path::{Path, PathBuf};
use std::process::Output;

use crate::aws::moto::venv;
use crate::harness::{Scene, VOUCHSAFE};
use crate::have;

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

fn text_of(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// `tool arguments... FILE` passes each of these examples, and fails one in which `from` is `to`.
fn passes(tool: &Path, arguments: &[&str], names: &[&str], from: &str, to: &str) {
    let scene = Scene::new();
    let check = |path: &Path| {
        let line = [arguments, &[path.to_str().unwrap()]].concat();
        scene.other(tool.to_str().unwrap(), &line).env("HOME", scene.path("")).output().unwrap()
    };
    for name in names {
        let output = check(&example(name));
        assert!(output.status.success(), "{name}: {}", text_of(&output));
    }
    let text = std::fs::read_to_string(example(names[0])).unwrap();
    assert!(text.contains(from), "{from}");
    let file = Path::new(names[0]).file_name().unwrap().to_str().unwrap();
    let output = check(&scene.write(file, text.replace(from, to).as_bytes()));
    assert!(!output.status.success(), "a broken example passes: {}", text_of(&output));
}

#[test]
fn dockerfiles() {
    let Some(tool) = venv("hadolint") else { return };
    let names = ["docker/Dockerfile", "docker/vouchsafe.Dockerfile", "wordpress/Dockerfile"];
    // The shell form, which takes no signal.
    passes(&tool, &["--failure-threshold", "style"], &names, "CMD [\"/usr/bin/api\"]", "CMD /usr/bin/api");
}

#[test]
fn compose_and_swarm() {
    let Some(tool) = venv("check-jsonschema") else { return };
    let names = ["docker/compose.yaml", "docker/stack.yaml"];
    passes(&tool, &["--builtin-schema", "vendor.compose-spec"], &names, "read_only:", "readonly:");
}

#[test]
fn kubernetes() {
    let Some(tool) = venv("kubernetes-validate") else { return };
    passes(&tool, &["--strict"], &["kubernetes/api.yaml"], "readOnlyRootFilesystem", "readonlyRootFilesystem");
}

/// What the schema does not say: no secret in the manifest, no probe that would need one.
#[test]
fn the_pod_is_restricted_and_its_probes_need_no_secret() {
    let text = std::fs::read_to_string(example("kubernetes/api.yaml")).unwrap();
    for line in [
        "readOnlyRootFilesystem: true",
        "runAsNonRoot: true",
        "allowPrivilegeEscalation: false",
        "automountServiceAccountToken: false",
        "drop: [ALL]",
        "maxUnavailable: 0",
    ] {
        assert!(text.contains(line), "{line}");
    }
    assert_eq!(text.matches("httpGet:").count(), 3);
    assert!(!text.contains("exec:") && !text.contains("kind: Secret") && !text.contains("secretKeyRef"));
}

#[test]
fn cloudformation() {
    let Some(tool) = venv("cfn-lint") else { return };
    passes(&tool, &["--"], &["aws/ecs.yaml", "aws/codebuild.yaml"], "ReadonlyRootFilesystem", "ReadOnlyRootFilesystem");
}

#[test]
fn puppet() {
    if !have(&["puppet"], false) {
        return;
    }
    passes(
        Path::new("puppet"),
        &["parser", "validate"],
        &["puppet/vouchsafe.pp"],
        "ensure => running,",
        "ensure = running",
    );
}

/// `systemd-analyze verify` succeeds also where it warns, so what it prints counts.
#[test]
fn units_of_systemd() {
    if !have(&["systemd-analyze"], false) {
        return;
    }
    let scene = Scene::new();
    let verify = |text: &str| {
        // It looks whether the programs are there.
        let text = text.replace("/usr/local/bin/vouchsafe", VOUCHSAFE);
        let unit = scene.write("vouchsafe-run-example.service", text.as_bytes()).display().to_string();
        let output = scene.other("systemd-analyze", &["verify", "--man=no", &unit]).output().unwrap();
        // Of other units of this host.
        text_of(&output).lines().filter(|line| line.contains("vouchsafe-run-example")).collect::<String>()
    };
    let text = std::fs::read_to_string(example("systemd/vouchsafe-run-example.service")).unwrap();
    assert_eq!(verify(&text), "");
    assert_ne!(verify(&text.replace("LimitCORE", "LimitCores")), "");
    let unit = scene.write("vouchsafe-run-example.service", text.as_bytes()).display().to_string();
    let line = ["security", "--offline=true", "--threshold=45", "--no-pager", &unit];
    let output = scene.other("systemd-analyze", &line).output().unwrap();
    assert!(output.status.success(), "{}", text_of(&output));
}

/// A scene with the files that an example names: a policy under that name, and a program there.
fn scene_of(policy: &str, program: &str, script: &str) -> Scene {
    let scene = Scene::with(&[("TOKEN", "canary-of-an-example")]);
    let text = std::fs::read(scene.write_policy()).unwrap();
    scene.write(policy, &text);
    scene.write_mode(program, script.as_bytes(), 0o755);
    scene
}

fn path_with_ours() -> String {
    format!("{}:/usr/bin:/bin", Path::new(VOUCHSAFE).parent().unwrap().display())
}

#[test]
fn the_procfile_of_beanstalk_runs_and_passes_the_status_on() {
    let Some(tool) = venv("honcho") else { return };
    let scene =
        scene_of("policies/prod/api.toml", "bin/api", "#!/bin/sh\n[ \"$TOKEN\" = canary-of-an-example ] && exit 3\n");
    scene.write("Procfile", &std::fs::read(example("beanstalk/Procfile")).unwrap());
    let mut command = scene.other(tool.to_str().unwrap(), &["start"]);
    let output = command.env("PATH", path_with_ours()).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text_of(&output));
    assert!(!text_of(&output).contains("canary"), "{}", text_of(&output));
}

#[test]
fn the_commands_of_the_buildspec_run_in_a_shell() {
    let text = std::fs::read_to_string(example("aws/buildspec.yml")).unwrap();
    let commands: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("- ")).collect();
    assert!(commands.len() >= 3, "{commands:?}");
    let run = |token: &str| {
        let script = format!("#!/bin/sh\n[ \"$TOKEN\" = {token} ] && echo deployed\n");
        let scene = scene_of("ci/deploy.toml", "ci/deploy", &script);
        let output = scene.other("sh", &["-ec", &commands.join("\n")]).env("PATH", path_with_ours()).output().unwrap();
        assert!(!text_of(&output).contains("canary"), "{}", text_of(&output));
        (output.status.code(), text_of(&output))
    };
    let (status, text) = run("canary-of-an-example");
    assert!(status == Some(0) && text.contains("deployed"), "{text}");
    assert_eq!(run("another").0, Some(1));
}
