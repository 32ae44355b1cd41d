//! Several hosts, the first of them a standby that is behind: what it says of a password is no longer, or not yet, true.

use std::io::Write;

use super::{
    ADMIN, Postgres, Setup, alternating, folder, free_port, logs_in, pair, programs, refused, rotate, secret, target,
    text, unprivileged,
};
use vouchsafe::rotate::target::Target;

/// A hot standby that applies each commit an hour late.
fn behind(primary: &Postgres) -> Postgres {
    let programs = programs().unwrap();
    let folder = folder("standby");
    let data = folder.join("data");
    let made = unprivileged(&programs.join("pg_basebackup"))
        .args(["-X", "stream", "-R", "-c", "fast", "--no-sync", "-U", ADMIN, "-p", &primary.port.to_string(), "-h"])
        .arg(primary.folder())
        .arg("-D")
        .arg(&data)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut settings = std::fs::File::options().append(true).open(data.join("postgresql.auto.conf")).unwrap();
    let more = format!("unix_socket_directories = '{}'\nrecovery_min_apply_delay = '1h'\n", folder.display());
    settings.write_all(more.as_bytes()).unwrap();
    let port = free_port();
    let child = Postgres::spawn(&programs, &folder, port);
    let standby = Postgres { child, folder, port };
    standby.wait_until_ready();
    assert_eq!(standby.sql("SELECT pg_is_in_recovery()"), "t");
    standby
}

#[test]
fn a_standby_that_is_behind_decides_nothing() {
    let hba = "local replication all trust";
    let Some(mut primary) = Postgres::with(Setup { hba, ..Setup::default() }) else { return };
    let mut current = pair(&primary);
    primary.role("app_c", "canary-c");
    let standby = behind(&primary);
    let admin = primary.admin_url_at(&format!("127.0.0.1:{},127.0.0.1:{}", standby.port, primary.port));
    let policy = alternating();
    for round in 0..3 {
        current = rotate(&mut target(&policy, &admin), &current, &format!("canary-{round}")).unwrap();
        assert!(logs_in(&text(&current)));
    }
    let there = text(&current).replace(&primary.port.to_string(), &standby.port.to_string());
    assert!(!logs_in(&there), "the standby is not behind");
    // Resumed by another process, which has no session yet; and a value that is wrong everywhere.
    target(&policy, &admin).verify(&current).unwrap();
    let wrong = secret(&primary.url("app_b", "canary-wrong"));
    refused(target(&policy, &admin).verify(&wrong), &["28P01"]);
    // What the standby accepts counts for nothing.
    primary.sql("ALTER ROLE app_b PASSWORD 'canary-newer'");
    refused(target(&policy, &admin).verify(&current), &["28P01"]);
    // An administrator that gets in nowhere: the role renewed itself.
    let own = super::policy(vouchsafe::policy::model::Roles::Single("app_c".into()));
    let places = format!("127.0.0.1:{},127.0.0.1:{}", standby.port, primary.port);
    let url = |password: &str| format!("postgres://app_c:{password}@{places}/app");
    let renewed = rotate(&mut target(&own, &url("canary-c")), &secret(&url("canary-c")), "canary-d").unwrap();
    primary.sql("ALTER ROLE app_c NOCREATEROLE");
    target(&own, &url("canary-c")).apply(Some(&secret(&url("canary-c"))), &renewed).unwrap();
    // While the primary is down nobody says that a password is wrong.
    primary.crash();
    let error = refused(target(&own, &url("canary-c")).verify(&renewed), &["cannot be reached"]);
    assert!(!error.problem.contains("28P01"), "{}", error.problem);
}
