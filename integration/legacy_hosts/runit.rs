//! runit: the folders of services, under `runsvdir`.

use std::fs::File;
use std::os::unix::fs::symlink;

use super::{Host, Running, text_of};
use crate::supervised::wait_until;

/// A host whose services are those of `deploy/runit`; as what user `api` runs, may be another one.
fn start(user: &str) -> Option<(Host, Running)> {
    let host = Host::start(&["runsvdir", "runsv", "sv", "chpst", "svlogd"])?;
    for file in ["vouchsafe-agent/run", "vouchsafe-agent/check", "vouchsafe-agent/log/run", "api/run", "api/finish"] {
        let text = super::shipped(&format!("runit/{file}"));
        host.write(
            &format!("/etc/sv/{file}"),
            &text.replace("chpst -u api:api", &format!("chpst -u {user}:{user}")),
            0o755,
        );
    }
    for name in ["vouchsafe-agent", "api"] {
        symlink(format!("../sv/{name}"), host.path(&format!("/etc/service/{name}"))).unwrap();
    }
    // What the services say that have no log of their own.
    let log = File::create(host.scene.path("runit.log")).unwrap();
    let mut command = host.command(&["runsvdir", "-P", "/etc/service"]);
    let runs = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    let supervised = |name: &str| host.path(&format!("/etc/sv/{name}/supervise/ok")).exists();
    wait_until("runsv", || supervised("vouchsafe-agent") && supervised("api"));
    Some((host, Running(Some(runs))))
}

/// `run: api: (pid 123) 4s`, or `down: api: ...`.
fn status(host: &Host, name: &str) -> String {
    text_of(&host.run(&["sv", "status", name], ""))
}

fn pid(host: &Host, name: &str) -> String {
    let status = status(host, name);
    let pid = status.split_once("(pid ").and_then(|(_, rest)| rest.split_once(')')).map(|(pid, _)| pid.to_owned());
    pid.unwrap_or_else(|| panic!("{status}"))
}

/// The process of `api`, once it is the service and no longer what starts it.
fn service(host: &Host) -> String {
    let is_service = || {
        let status = status(host, "api");
        let pid = status.split_once("(pid ").and_then(|(_, rest)| rest.split_once(')')).map(|(pid, _)| pid.to_owned());
        let exe = |pid: &String| std::fs::read_link(host.path(&format!("/proc/{pid}/exe"))).ok();
        status.starts_with("run:") && pid.as_ref().and_then(exe).is_some_and(|exe| exe.ends_with("opt/api/bin/api"))
    };
    wait_until("the service", is_service);
    pid(host, "api")
}

#[test]
fn a_service_of_runit_gets_its_secrets_from_the_agent() {
    let Some((host, mut runs)) = start("api") else { return };
    host.ok(&["sv", "-w", "30", "start", "vouchsafe-agent"], "");
    let agent = pid(&host, "vouchsafe-agent");
    assert_eq!(host.user_of(&agent), "vouchsafe");
    host.has_no_means("api");
    // Both were started at once: it came after the agent all the same.
    let api = service(&host);
    assert_eq!(host.user_of(&api), "api");
    assert!(host.environment(&api).contains(&"DATABASE_URL=canary-of-api".to_owned()));
    host.was_last("access.released", "api", "api");

    // Signals of `sv` are the service's own.
    host.ok(&["sv", "hup", "api"], "");
    let log = || std::fs::read_to_string(host.scene.path("runit.log")).unwrap();
    wait_until("the signal", || log().contains("hup\n"));
    assert_eq!(pid(&host, "api"), api);
    host.replace("api", "DATABASE_URL", "canary-of-later");
    host.ok(&["sv", "-w", "30", "restart", "api"], "");
    // `sv` counts in seconds, and does not wait for what was started in this one.
    wait_until("the end", || !host.lives(&api));
    let api = service(&host);
    assert!(host.environment(&api).contains(&"DATABASE_URL=canary-of-later".to_owned()));

    // A reload, and what the agent says of it in the log that svlogd keeps.
    let policy = "/etc/vouchsafe/policies/prod/api.toml";
    let good = host.read(policy);
    host.write(policy, &good.replace("version = 1", "version = one"), 0o644);
    host.ok(&["sv", "hup", "vouchsafe-agent"], "");
    wait_until("the refusal", || host.read("/var/log/vouchsafe/agent/current").contains("policy.refused"));
    host.write(policy, &good, 0o644);
    assert_eq!(pid(&host, "vouchsafe-agent"), agent);

    // An agent that is killed comes back, and the service does not notice.
    host.ok(&["sv", "kill", "vouchsafe-agent"], "");
    wait_until("the end", || !host.lives(&agent));
    host.ok(&["sv", "-w", "30", "start", "vouchsafe-agent"], "");
    let agent = pid(&host, "vouchsafe-agent");
    assert_eq!(pid(&host, "api"), api);

    host.ok(&["sv", "-w", "30", "stop", "vouchsafe-agent"], "");
    assert!(!host.lives(&agent) && host.lives(&api));
    assert_eq!(host.audit().last().unwrap()["event"], "agent.stopped");
    host.ok(&["sv", "-w", "30", "stop", "api"], "");
    assert!(!host.lives(&api) && !log().contains("canary"));

    // SIGHUP tells runsvdir to end its services, and to end.
    host.ok(&["pkill", "--signal", "HUP", "--exact", "runsvdir"], "");
    runs.end();
}

#[test]
fn who_has_no_grant_is_down_and_stays_down() {
    for user in ["shop", "stranger"] {
        let Some((host, _runs)) = start(user) else { return };
        host.ok(&["sv", "-w", "30", "start", "vouchsafe-agent"], "");
        // Before the agent was there, it was started again each second; now it has an answer.
        let is_down = |status: &str| status.starts_with("down: api: ") && !status.contains("want up");
        wait_until("the refusal", || is_down(&status(&host, "api")));
        let log = std::fs::read_to_string(host.scene.path("runit.log")).unwrap();
        assert_eq!(log.matches("error[denied]").count(), 1, "{log}");
        assert!(log.contains("gives you nothing for `prod`, service `api`") && !log.contains("canary"), "{log}");
        host.was_last("access.denied", user, "api");
        // Mended, it starts.
        let policy = "/etc/vouchsafe/policies/prod/api.toml";
        let granted = host.read(policy).replace("users = [\"api\"]", &format!("users = [\"{user}\"]"));
        host.write(policy, &granted, 0o644);
        let listed = host.read("/etc/vouchsafe/host.toml").replace("\"shop\"]", "\"shop\", \"stranger\"]");
        host.write("/etc/vouchsafe/host.toml", &listed, 0o644);
        host.ok(&["sv", "-w", "30", "stop", "vouchsafe-agent"], "");
        host.ok(&["sv", "-w", "30", "start", "vouchsafe-agent"], "");
        host.ok(&["sv", "-w", "30", "start", "api"], "");
        assert_eq!(host.user_of(&service(&host)), user);
    }
}
