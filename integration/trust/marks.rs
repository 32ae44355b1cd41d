//! A signed policy that was served is not followed by an older one: not in a running agent, not after its end, however that came,
//! and not if what it remembers is damaged, changed or cannot be written.

use std::os::unix::fs::{PermissionsExt, chown};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::{CANARY, SERIAL, Site, refused, run_prod, served, status};
use crate::agent_scene::{Agent, records};
use crate::full_disk::{fill, mounted_tmpfs};
use crate::have;

const BEHIND: &str = "has serial 11, and this agent has served serial 12: it does not go back";

fn kill(mut agent: Agent<'_>) {
    let mut child = agent.child.take().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
}

/// After a reload: the policy of before is served, and it is said why.
#[track_caller]
fn is_kept(site: &Site, agent: &Agent<'_>, digest: &Option<String>, because: &str) {
    let status = status(agent);
    let message = refused(&status, "prod.toml").unwrap();
    assert!(message.contains(because) && message.ends_with("of before is served on"), "{message}");
    assert_eq!(served(&status, "prod.toml"), *digest);
    assert_eq!(run_prod(site, agent).expect_status(0).out(), format!("{CANARY}\n"));
    let written = |record: &serde_json::Value| {
        (&record["event"], &record["outcome"]) == (&json!("policy.refused"), &json!("failed"))
            && record["policy"].as_str() == digest.as_deref()
            && record["reason"].as_str().unwrap().contains(because)
    };
    assert!(agent.audit().iter().any(written));
}

/// After a start: nothing is served in its place, and it is said why; what nobody demands a signature for is served.
#[track_caller]
fn is_not_served(site: &Site, agent: &Agent<'_>, because: &str) {
    let status = status(agent);
    let message = refused(&status, "prod.toml").unwrap();
    assert!(message.contains(because) && message.ends_with("nothing is served in its place"), "{message}");
    assert_eq!(served(&status, "prod.toml"), None);
    assert!(served(&status, "free.toml").is_some());
    run_prod(site, agent).expect_status(120);
    let written = |record: &serde_json::Value| {
        record["event"] == "policy.refused" && record["reason"].as_str().unwrap().contains(because)
    };
    assert!(agent.audit().iter().any(written));
}

#[test]
fn an_old_policy_is_refused_by_the_agent_that_runs_and_by_the_next() {
    if !have(&["ssh-keygen"], false) {
        return;
    }
    let site = Site::new();
    let agent = site.start();
    let first = served(&status(&agent), "prod.toml");
    assert_eq!(run_prod(&site, &agent).expect_status(0).out(), format!("{CANARY}\n"));
    assert_eq!(site.marks()["policy prod"], SERIAL);
    assert_eq!(site.marks()["base prod base.toml"], SERIAL);
    assert_eq!(site.marks()["base prod/api ../base.toml"], SERIAL);
    assert!(site.marks().get("policy free").is_none(), "nobody has signed it");
    assert!(agent.ask("status", &[]).out().contains("prod.toml  (serial 12, 12)"));
    let loaded = |record: &serde_json::Value| {
        let reason = record["reason"].as_str().unwrap_or_default();
        reason.contains("/prod.toml`, serials 12, 12; marks of serials begin anew in `")
    };
    assert!(agent.audit().iter().any(loaded));

    site.put_prod(SERIAL - 1);
    agent.reload();
    is_kept(&site, &agent, &first, BEHIND);
    let line = agent.log().lines().rfind(|line| line.contains("\"policy.refused\"")).unwrap().to_owned();
    assert!(line.contains("serial = 13   # in ") && line.contains("and sign it again"), "{line}");
    // Without the power to end in peace.
    kill(agent);
    let agent = site.start();
    is_not_served(&site, &agent, BEHIND);
    // The way forward is a higher serial.
    site.put_prod(SERIAL + 1);
    agent.reload();
    assert_eq!(run_prod(&site, &agent).expect_status(0).out(), format!("{CANARY}\n"));
    assert_eq!(site.marks()["policy prod"], SERIAL + 1);
    agent.end();

    // Nothing else to serve: it does not start, and the log says why all the same.
    site.put_prod(SERIAL);
    for file in ["dev.toml", "free.toml", "prod/api.toml", "prod/web.toml"] {
        std::fs::remove_file(site.scene.path(&format!("served/{file}"))).unwrap();
    }
    let outcome = site.start_in_vain(121);
    assert!(outcome.err().contains("has serial 12, and this agent has served serial 13"), "{}", outcome.transcript());
    assert!(outcome.err().contains("serial = 14   # in "), "{}", outcome.transcript());
    let last = records(&site.scene).pop().unwrap();
    assert_eq!(last["event"], "policy.refused");
    assert!(last["reason"].as_str().unwrap().contains("does not go back"), "{last}");
    site.scene.vouchsafe(&["audit", "verify", "agent.jsonl"]).expect_status(0);
}

#[test]
fn a_base_is_not_rolled_back_under_its_policy() {
    if !have(&["ssh-keygen"], false) {
        return;
    }
    let site = Site::new();
    let agent = site.start();
    let first = served(&status(&agent), "prod.toml");
    site.put_base(SERIAL - 1);
    // The policy itself goes forward: what it stands on goes back.
    site.put_prod(SERIAL + 1);
    agent.reload();
    is_kept(&site, &agent, &first, "base.toml` has serial 11, and this agent has served serial 12");
    assert_eq!(site.marks()["policy prod"], SERIAL, "what was not served raises nothing");
    kill(agent);
    let agent = site.start();
    is_not_served(&site, &agent, "base.toml` has serial 11");
    assert!(served(&status(&agent), "prod/api.toml").is_none(), "it stands on it too");
    site.put_base(SERIAL + 1);
    agent.reload();
    assert_eq!(site.marks()["base prod base.toml"], SERIAL + 1);
    run_prod(&site, &agent).expect_status(0);
    agent.end();
}

/// Neither held against a mark nor able to raise one, though a good signature lies beside it.
#[test]
fn where_nothing_is_demanded_nothing_changes() {
    if !have(&["ssh-keygen"], false) {
        return;
    }
    let site = Site::new();
    let host = site.host();
    site.write_host(host.split("[trust]").next().unwrap());
    let agent = site.start();
    for serial in [u64::from(u32::MAX), 3] {
        site.put_prod(serial);
        agent.reload();
        assert_eq!(status(&agent)["refused"], json!([]));
    }
    agent.end();
    assert!(!site.scene.path("state/marks.json").exists());
    // Of one that is demanded for another environment only.
    let host = host.replace("environments = [\"prod\", \"dev\"]", "environments = [\"dev\"]");
    let host = host.replace("environments = [\"prod\"]", "environments = [\"dev\"]").replace("{ prod = ", "{ dev = ");
    site.write_host(&host);
    let agent = site.start();
    site.put_prod(2);
    agent.reload();
    assert_eq!(status(&agent)["refused"], json!([]));
    assert!(site.marks().get("policy prod").is_none() && site.marks()["policy dev"] == SERIAL);
    agent.end();
}

#[test]
fn without_a_state_folder_it_is_remembered_as_long_as_the_agent_lives() {
    if !have(&["ssh-keygen"], false) {
        return;
    }
    let site = Site::new();
    let host = site.host();
    let without: String =
        host.lines().filter(|line| !line.starts_with("state =")).map(|line| format!("{line}\n")).collect();
    site.write_host(&without);
    let agent = site.start();
    assert!(agent.log().contains("\"marks.unkept\""), "{}", agent.log());
    let first = served(&status(&agent), "prod.toml");
    site.put_prod(SERIAL - 1);
    agent.reload();
    is_kept(&site, &agent, &first, BEHIND);
    agent.end();
    let agent = site.start();
    assert_eq!(refused(&status(&agent), "prod.toml"), None);
    agent.end();
}

/// What the agent remembers is changed by somebody, or by an accident: nothing is guessed.
#[test]
fn marks_that_are_not_what_the_agent_wrote_admit_nothing() {
    if !have(&["ssh-keygen"], false) {
        return;
    }
    let site = Site::new();
    let agent = site.start();
    let (first, path) = (served(&status(&agent), "prod.toml"), site.scene.path("state/marks.json"));
    // In how many records of its last start.
    let anew = |agent: &Agent<'_>| {
        let records = agent.audit();
        let start = records.iter().rposition(|record| record["event"] == "agent.started").unwrap();
        let told = |record: &&serde_json::Value| {
            record["event"] == "policy.loaded"
                && record["reason"].as_str().unwrap().contains("; marks of serials begin anew in `")
        };
        (records[start..].iter().filter(told).count(), agent.log().contains("\"marks.begun\""))
    };
    assert_eq!(anew(&agent), (5, true));
    let good = std::fs::read(&path).unwrap();
    let lower = String::from_utf8(good.clone()).unwrap().replace("\"policy prod\":12", "\"policy prod\":11");
    let is_root = rustix::process::geteuid().is_root();
    let own = rustix::process::geteuid().as_raw();
    type Change<'c> = (&'c str, Box<dyn Fn() + 'c>);
    let write = |bytes: &[u8]| std::fs::write(&path, bytes).unwrap();
    let mode = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    let changes: Vec<Change<'_>> = vec![
        ("is damaged", Box::new(|| write(lower.as_bytes()))),
        ("is damaged", Box::new(|| write(&good[..good.len() / 2]))),
        ("is damaged", Box::new(|| write(b""))),
        ("can be written by others", Box::new(|| mode(0o666))),
        ("belongs to uid 54321", Box::new(|| chown(&path, Some(54_321), None).unwrap())),
    ];
    let mend = || {
        chown(&path, Some(own), None).unwrap();
        mode(0o600);
        write(&good);
    };
    site.put_prod(SERIAL + 1);
    for (because, change) in &changes {
        if because.contains("uid") && !is_root {
            continue;
        }
        change();
        agent.reload();
        is_kept(&site, &agent, &first, because);
        mend();
    }
    kill(agent);
    for (because, change) in &changes {
        if because.contains("uid") && !is_root {
            continue;
        }
        change();
        let agent = site.start();
        is_not_served(&site, &agent, because);
        assert_eq!(anew(&agent), (0, false));
        kill(agent);
        mend();
    }
    // Taken away, and so forgotten: that is said, since nobody can tell it from the first time; also if it is not at the start.
    std::fs::remove_file(&path).unwrap();
    let all = ["prod.toml", "dev.toml", "prod/api.toml", "prod/web.toml"]
        .map(|file| site.scene.path(&format!("served/{file}")));
    let aside = |path: &std::path::Path| path.with_extension("aside");
    all.iter().for_each(|path| std::fs::rename(path, aside(path)).unwrap());
    let agent = site.start();
    assert_eq!(anew(&agent), (0, false));
    all.iter().for_each(|path| std::fs::rename(aside(path), path).unwrap());
    site.put_prod(SERIAL - 1);
    agent.reload();
    assert_eq!(refused(&status(&agent), "prod.toml"), None);
    assert_eq!(anew(&agent), (4, true));
    agent.end();
    // Below what the host's owner demands it still is not.
    std::fs::remove_file(&path).unwrap();
    site.put_prod(9);
    let agent = site.start();
    is_not_served(&site, &agent, "has serial 9, and this host accepts 10 and newer");
    agent.end();
}

#[test]
fn a_policy_is_not_served_before_its_mark_is_on_the_disk() {
    if !have(&["ssh-keygen", "mount", "umount"], true) {
        return;
    }
    let site = Site::new();
    let disk = site.scene.path("state");
    let Some(_mounted) = mounted_tmpfs(&site.scene, &disk) else { return };
    let agent = site.start();
    let first = served(&status(&agent), "prod.toml");
    site.put_prod(SERIAL + 1);
    let filler = fill(&disk);
    agent.reload();
    is_kept(&site, &agent, &first, "the marks of serials cannot be written: ");
    kill(agent);
    let agent = site.start();
    is_not_served(&site, &agent, "no space left");
    // What was served before needs no room.
    site.put_prod(SERIAL);
    agent.reload();
    run_prod(&site, &agent).expect_status(0);
    site.put_prod(SERIAL + 1);
    std::fs::remove_file(filler).unwrap();
    let remount = |how: &str| {
        let words = ["-o", how, disk.to_str().unwrap()];
        let mut mount = site.scene.other("mount", &words);
        assert!(mount.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").status().unwrap().success());
    };
    remount("remount,ro");
    agent.reload();
    is_kept(&site, &agent, &first, "read-only");
    remount("remount,rw");
    agent.reload();
    assert_eq!(site.marks()["policy prod"], SERIAL + 1);
    assert_ne!(served(&status(&agent), "prod.toml"), first);
    run_prod(&site, &agent).expect_status(0);
    agent.end();
}

/// Killed anywhere in a reload: what was said to be loaded is never gone behind, and what is kept is whole.
#[test]
fn a_kill_between_two_serials_leaves_one_or_the_other() {
    if !have(&["ssh-keygen"], false) {
        return;
    }
    let site = Site::new();
    kill(site.start());
    let (mut serial, mut raised) = (SERIAL, 0);
    for round in 0..10_u64 {
        let agent = site.start();
        site.put_prod(serial + 1);
        if round == 9 {
            agent.reload();
        } else {
            // At any point of it.
            agent.signal(Signal::HUP);
            std::thread::sleep(Duration::from_micros(round * round * 400));
        }
        kill(agent);
        let loaded = records(&site.scene).iter().any(|record| {
            record["event"] == "policy.loaded"
                && record["reason"].as_str().unwrap().contains(&format!("prod.toml`, serials {},", serial + 1))
        });
        let mark = site.marks()["policy prod"].as_u64().unwrap();
        assert!(mark == serial + 1 || (mark == serial && !loaded), "{mark} after {serial}, {loaded}");
        // The old one again.
        site.put_prod(serial);
        let agent = site.start();
        assert_eq!(refused(&status(&agent), "prod.toml").is_some(), mark > serial);
        kill(agent);
        raised += mark - serial;
        serial = mark;
        site.put_prod(serial);
    }
    assert!(raised > 0, "no reload was as far as that");
    let names: Vec<_> =
        std::fs::read_dir(site.scene.path("state")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.len() <= 2, "at most one that the last kill has left: {names:?}");
}
