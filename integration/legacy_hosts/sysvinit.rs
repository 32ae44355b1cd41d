//! sysvinit: the scripts, by `start-stop-daemon`.

use super::{Host, text_of};
use crate::have;

const AGENT: &str = "/etc/init.d/vouchsafe-agent";
const API: &str = "/etc/init.d/api";

fn start() -> Option<Host> {
    let host = Host::start(&["start-stop-daemon"])?;
    host.copy("sysvinit/vouchsafe-agent", AGENT, 0o755);
    host.copy("sysvinit/api", API, 0o755);
    Some(host)
}

/// The process that a script has started.
fn pid(host: &Host, name: &str) -> String {
    host.read(&format!("/run/{name}.pid")).trim().to_owned()
}

#[test]
fn a_service_under_start_stop_daemon_gets_its_secrets_from_the_agent() {
    let Some(host) = start() else { return };
    assert_eq!(host.run(&[AGENT, "status"], "").status.code(), Some(3));
    host.ok(&[AGENT, "start"], "");
    let agent = pid(&host, "vouchsafe-agent");
    assert_eq!(host.user_of(&agent), "vouchsafe");
    let status = host.ok(&[AGENT, "status"], "");
    assert!(status.contains("prod") && !status.contains("canary"), "{status}");
    assert!(host.ok(&[AGENT, "start"], "").contains("runs already"));
    assert_eq!(pid(&host, "vouchsafe-agent"), agent);
    let limits = host.read(&format!("/proc/{agent}/limits"));
    assert!(limits.lines().any(|line| line.starts_with("Max core file size        0 ")), "{limits}");

    host.has_no_means("api");
    host.ok(&[API, "start"], "");
    let api = pid(&host, "api");
    assert_eq!(host.user_of(&api), "api");
    assert!(host.environment(&api).contains(&"DATABASE_URL=canary-of-api".to_owned()));
    assert_eq!(std::fs::read_link(host.path(&format!("/proc/{api}/exe"))).unwrap().to_str(), Some("/opt/api/bin/api"));
    host.was_last("access.released", "api", "api");
    host.ok(&[API, "status"], "");
    assert!(host.ok(&[API, "start"], "").contains("runs already"));
    assert_eq!(host.read("/var/log/api.log"), "ready\n");

    // A new value needs a new process.
    host.replace("api", "DATABASE_URL", "canary-of-later");
    assert!(host.environment(&api).contains(&"DATABASE_URL=canary-of-api".to_owned()));
    host.ok(&[API, "restart"], "");
    assert!(!host.lives(&api));
    let api = pid(&host, "api");
    assert!(host.environment(&api).contains(&"DATABASE_URL=canary-of-later".to_owned()));

    // The service is not in need of the agent any more.
    host.ok(&[AGENT, "stop"], "");
    assert!(!host.lives(&agent) && host.lives(&api));
    assert_eq!(host.audit().last().unwrap()["event"], "agent.stopped");
    assert!(!host.path("/run/vouchsafe/agent.sock").exists());
    assert_eq!(host.run(&[AGENT, "status"], "").status.code(), Some(3));
    assert_eq!(host.run(&[AGENT, "reload"], "").status.code(), Some(7));
    host.ok(&[AGENT, "stop"], "");
    host.ok(&[API, "stop"], "");
    assert!(!host.lives(&api));
    assert_eq!(host.run(&[API, "status"], "").status.code(), Some(3));

    // Without the agent, nothing starts, and the script says why.
    let refused = host.run(&[API, "start"], "");
    assert_eq!(refused.status.code(), Some(1), "{}", text_of(&refused));
    assert!(text_of(&refused).contains("cannot reach the agent"), "{}", text_of(&refused));
    assert!(!host.path("/run/api.pid").exists());
}

#[test]
fn who_has_no_grant_does_not_start() {
    let Some(host) = start() else { return };
    host.ok(&[AGENT, "start"], "");
    // One may ask and is granted something else; the other may not even ask.
    for user in ["shop", "stranger"] {
        let script = super::shipped("sysvinit/api").replace("\nAS=api\n", &format!("\nAS={user}\n"));
        host.write(API, &script, 0o755);
        let refused = host.run(&[API, "start"], "");
        let text = text_of(&refused);
        assert_eq!(refused.status.code(), Some(1), "{text}");
        assert!(
            text.contains("error[denied]") && text.contains("gives you nothing for `prod`, service `api`"),
            "{text}"
        );
        assert!(!text.contains("canary"), "{text}");
        host.was_last("access.denied", user, "api");
        assert_eq!(host.run(&[API, "status"], "").status.code(), Some(3));
    }
}

#[test]
fn a_reload_that_is_wrong_leaves_what_was_and_an_agent_that_cannot_start_says_why() {
    let Some(host) = start() else { return };
    host.ok(&[AGENT, "start"], "");
    let policy = "/etc/vouchsafe/policies/prod/api.toml";
    let good = host.read(policy);
    let events =
        || host.audit().iter().filter(|record| record["event"].as_str().unwrap().starts_with("policy.")).count();
    let before = events();
    host.write(policy, &good.replace("version = 1", "version = one"), 0o644);
    host.ok(&[AGENT, "reload"], "");
    crate::supervised::wait_until("the refusal", || events() > before);
    assert_eq!(host.audit().last().unwrap()["event"], "policy.refused");
    host.ok(&[API, "start"], "");
    host.ok(&[API, "stop"], "");
    // The grant goes, and at once.
    host.write(policy, &good.replace("users = [\"api\"]", "users = [\"shop\"]"), 0o644);
    let before = events();
    host.ok(&[AGENT, "reload"], "");
    crate::supervised::wait_until("the new policy", || events() > before);
    assert_eq!(host.run(&[API, "start"], "").status.code(), Some(1));
    host.was_last("access.denied", "api", "api");

    host.write("/etc/vouchsafe/host.toml", "nonsense", 0o644);
    let agent = pid(&host, "vouchsafe-agent");
    let failed = host.run(&[AGENT, "restart"], "");
    let text = text_of(&failed);
    assert_eq!(failed.status.code(), Some(1), "{text}");
    assert!(text.contains("did not start") && text.contains("host.toml"), "{text}");
    assert!(!host.lives(&agent) && !host.path("/run/vouchsafe-agent.pid").exists());
}

/// The headers, by the program that makes units of such scripts.
#[test]
fn the_headers_are_what_the_lsb_says() {
    let generator = "/usr/lib/systemd/system-generators/systemd-sysv-generator";
    if !std::path::Path::new(generator).exists() {
        println!("\nSKIPPED: the headers of the sysvinit scripts (need systemd-sysv-generator)");
        return;
    }
    let Some(host) = start() else { return };
    host.ok(&["mkdir", "/opt/units"], "");
    host.ok(&["env", "SYSTEMD_LOG_TARGET=console", generator, "/opt/units", "/opt/units", "/opt/units"], "");
    let agent = host.read("/opt/units/vouchsafe-agent.service");
    assert!(agent.contains("Description=LSB: The agent of vouchsafe\n"), "{agent}");
    assert!(agent.contains("After=remote-fs.target\n") && agent.contains("ExecReload="), "{agent}");
    let api = host.read("/opt/units/api.service");
    assert!(api.contains("After=vouchsafe-agent.service\n"), "{api}");
}

/// In the folder that `set-up` has made, as the agent's own user: what it must not forget outlives it.
#[test]
fn the_agent_remembers_which_signed_policy_it_has_served() {
    if !have(&["ssh-keygen"], true) {
        return;
    }
    let Some(host) = start() else { return };
    let scene = &host.scene;
    let made = scene.other("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", "alice"]).status().unwrap();
    assert!(made.success());
    let key = std::fs::read_to_string(scene.path("alice.pub")).unwrap();
    let trust = format!(
        "[trust]\nenvironments = [\"prod\"]\n[[trust.keys]]\nkey = \"{}\"\nenvironments = [\"prod\"]\n",
        key.trim()
    );
    host.write("/etc/vouchsafe/host.toml", &format!("{}{trust}", host.read("/etc/vouchsafe/host.toml")), 0o644);
    let path = "/etc/vouchsafe/policies/prod/api.toml";
    let policy = host.read(path);
    let put = |serial: u64| {
        let text = policy.replacen("version = 1\n", &format!("version = 1\nserial = {serial}\n"), 1);
        assert_ne!(text, policy);
        scene.write("api.toml", text.as_bytes());
        std::fs::remove_file(scene.path("api.toml.sig")).unwrap_or_default();
        let words = ["-q", "-Y", "sign", "-n", "vouchsafe", "-f", "alice", "api.toml"];
        assert!(scene.other("ssh-keygen", &words).output().unwrap().status.success());
        host.write(path, &text, 0o644);
        host.write(&format!("{path}.sig"), &std::fs::read_to_string(scene.path("api.toml.sig")).unwrap(), 0o644);
    };
    let status = || host.ok(&[AGENT, "status"], "");
    put(7);
    host.ok(&[AGENT, "start"], "");
    assert!(status().contains("(serial 7)"), "{}", status());
    let marks = "/var/lib/vouchsafe/marks.json";
    assert!(host.read(marks).contains("\"policy prod/api\":7"), "{}", host.read(marks));
    assert_eq!(host.ok(&["stat", "-c", "%U %a", marks], "").trim(), "vouchsafe 600");
    host.ok(&[AGENT, "stop"], "");
    put(6);
    // Nothing else is signed: it does not start, and says why.
    let output = host.run(&[AGENT, "start"], "");
    assert!(!output.status.success());
    assert!(text_of(&output).contains("has serial 6, and this agent has served serial 7"), "{}", text_of(&output));
    put(8);
    host.ok(&[AGENT, "start"], "");
    assert!(status().contains("(serial 8)"), "{}", status());
    host.ok(&[AGENT, "stop"], "");
}
