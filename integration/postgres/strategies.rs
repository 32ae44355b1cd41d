//! Rotations that succeed: one role, two by turns, every form of a value, every way to the server.

use std::time::Duration;

use super::tls::ca_file;
use super::{
    ADMIN_PASSWORD, Postgres, Setup, alternating, logs_in, pair, refused, rotate, secret, single, target, text,
};
use crate::aws::tls::Authority;
use vouchsafe::policy::model::Roles;
use vouchsafe::rotate::target::Target;

/// A generated password that every form has to write in another way, and as a URL.
const HOSTILE: &str = "canary-p:a/s@s%41#? \"\\&=+'é";
const HOSTILE_URL: &str = "canary-p%3Aa%2Fs%40s%2541%23%3F%20%22%5C%26%3D%2B%27%C3%A9";

#[test]
fn one_role_in_every_form_of_a_value() {
    let Some(server) = Postgres::start() else { return };
    server.role("app", "canary-old");
    let policy = single();
    let json = |password: &str| {
        format!(r#"{{"engine":"postgres","username":"app","password":{password},"port":{}}}"#, server.port)
    };
    for (value, expected) in [
        ("canary-old".to_owned(), HOSTILE.to_owned()),
        (server.url("app", "canary-old"), server.url("app", HOSTILE_URL)),
        (json("\"canary-old\""), json(&serde_json::to_string(HOSTILE).unwrap())),
    ] {
        let mut target = target(&policy, &server.admin_url());
        let pending = target.compose(Some(&secret(&value)), secret(HOSTILE)).unwrap();
        assert_eq!(text(&pending), expected);
        assert!(target.verify(&pending).is_err(), "nothing is applied yet");
        target.apply(Some(&secret(&value)), &pending).unwrap();
        target.verify(&pending).unwrap();
        assert!(logs_in(&server.url("app", HOSTILE_URL)) && !logs_in(&server.url("app", "canary-old")));
        // Again, as after a kill: the credential works, so nothing is touched, though the current one is of no use now.
        let verifier = server.verifier("app");
        target.apply(Some(&secret(&value)), &pending).unwrap();
        target.retire(&secret(&value), &pending).unwrap();
        assert_eq!(server.verifier("app"), verifier);
        assert!(verifier.starts_with("SCRAM-SHA-256$4096:"));
        assert!(target.remarks().is_empty());
        server.sql("ALTER ROLE app PASSWORD 'canary-old'");
    }
}

#[test]
fn two_roles_by_turns_fifty_times() {
    let Some(server) = Postgres::start() else { return };
    let mut current = pair(&server);
    let mut policy = alternating();
    policy.check = Some("SELECT id FROM orders LIMIT 1".into());
    let mut target = target(&policy, &server.admin_url());
    for round in 0..50 {
        let (of_current, of_other) = if round % 2 == 0 { ("app_a", "app_b") } else { ("app_b", "app_a") };
        let before = server.verifier(of_current);
        let pending = target.compose(Some(&current), secret(&format!("canary-{round}"))).unwrap();
        assert_eq!(text(&pending), server.url(of_other, &format!("canary-{round}")));
        target.apply(Some(&current), &pending).unwrap();
        target.verify(&pending).unwrap();
        assert_eq!(server.verifier(of_current), before, "the current role is never altered");
        assert!(logs_in(&text(&current)) && logs_in(&text(&pending)), "both work between apply and retire");
        target.retire(&current, &pending).unwrap();
        assert!(!logs_in(&text(&current)) && logs_in(&text(&pending)));
        assert_eq!(server.verifier(of_current), "none");
        target.retire(&current, &pending).unwrap();
        assert!(logs_in(&text(&pending)));
        current = pending;
    }
}

/// Whoever is late to retire must not take a newer password away.
#[test]
fn only_a_previous_credential_that_still_works_is_retired() {
    let Some(server) = Postgres::start() else { return };
    let previous = pair(&server);
    let policy = alternating();
    let mut target = target(&policy, &server.admin_url());
    let current = secret(&server.url("app_b", "canary-b"));
    server.sql("ALTER ROLE app_a PASSWORD 'canary-newer'");
    target.retire(&previous, &current).unwrap();
    assert!(logs_in(&server.url("app_a", "canary-newer")));
    // The role of the current credential is not retired, whatever it is called with.
    target.retire(&current, &current).unwrap();
    assert!(logs_in(&text(&current)));
    // It would work again: that it is barred is not that it is forgotten.
    let barred = secret(&server.url("app_a", "canary-newer"));
    server.sql("ALTER ROLE app_a NOLOGIN");
    let error = target.retire(&barred, &current).unwrap_err();
    assert!(error.to_string().contains("28000"), "{error}");
    assert!(!target.verify(&barred).unwrap_err().is_refusal);
    server.sql("ALTER ROLE app_a LOGIN");
    target.retire(&barred, &current).unwrap();
    assert!(!logs_in(&text(&barred)));
    assert!(target.verify(&barred).unwrap_err().is_refusal);
}

#[test]
fn no_password_comes_near_the_log_of_the_server() {
    let Some(server) = Postgres::start() else { return };
    let current = pair(&server);
    let logged_before = server.log().len();
    let policy = alternating();
    let mut target = target(&policy, &server.admin_url());
    let first = rotate(&mut target, &current, "canary-first").unwrap();
    rotate(&mut target, &first, HOSTILE).unwrap();
    drop(target);
    let log = server.log()[logged_before..].to_owned();
    assert!(log.contains("ALTER ROLE \"app_b\" PASSWORD 'SCRAM-SHA-256$4096:"), "{log}");
    assert!(log.contains("ALTER ROLE \"app_a\" PASSWORD NULL") && log.contains("application_name=vouchsafe-rotate"));
    for value in ["canary", ADMIN_PASSWORD, "adm%3A"] {
        assert!(!log.contains(value), "{log}");
    }
    assert!(!log.contains("unexpected EOF"), "sessions end with a goodbye\n{log}");
}

#[test]
fn a_socket_a_second_host_and_names_that_need_quotes() {
    let Some(server) = Postgres::start() else { return };
    let (a, b) = ("it's \"a\"\\", "B;--");
    server.sql("CREATE ROLE app LOGIN");
    server.role(a, "canary-a").role(b, "canary-b");
    let value = server.url("it%27s%20%22a%22%5C", "canary-a");
    let policy = super::policy(Roles::Alternating(a.into(), b.into()));
    let folder = server.folder().display().to_string();
    let closed = super::free_port();
    let mut current = secret(&value);
    for (round, place) in
        [format!("127.0.0.1:{closed},127.0.0.1:{}", server.port), format!("localhost:{}", server.port)]
            .iter()
            .enumerate()
    {
        current =
            rotate(&mut target(&policy, &server.admin_url_at(place)), &current, &format!("canary-{round}")).unwrap();
        assert!(logs_in(&text(&current)));
    }
    let admin = server.admin_url_at("").replace("/app", &format!("/app?host={folder}&port={}", server.port));
    let by_socket = secret(&text(&current).replace(&format!("127.0.0.1:{}", server.port), &folder.replace('/', "%2F")));
    refused(rotate(&mut target(&policy, &admin), &by_socket, "canary-x"), &["another server", &folder, "ADMIN_URL"]);
    let by_socket = secret(
        &text(&current)
            .replace(&format!("127.0.0.1:{}", server.port), &format!("{}:{}", folder.replace('/', "%2F"), server.port)),
    );
    let renewed = rotate(&mut target(&policy, &admin), &by_socket, "canary-x").unwrap();
    target(&policy, &admin).verify(&renewed).unwrap();
}

#[test]
fn a_role_can_renew_itself() {
    let Some(server) = Postgres::start() else { return };
    server.role("app", "canary-old");
    let policy = single();
    let own = server.url("app", "canary-old");
    let renewed = rotate(&mut target(&policy, &own), &secret(&own), "canary-new").unwrap();
    // Killed before the store was told: the administrator's credential is the old one, and the rest is done already.
    target(&policy, &own).apply(Some(&secret(&own)), &renewed).unwrap();
    refused(
        target(&policy, &own).apply(Some(&secret(&own)), &secret(&server.url("app", "canary-third"))),
        &["as administrator", "password"],
    );
}

#[test]
fn a_first_version_is_allowed_and_says_that_nothing_was_proven() {
    let Some(server) = Postgres::start() else { return };
    server.role("app", "whatever");
    let policy = single();
    let mut one = target(&policy, &server.admin_url());
    let first = one.compose(None, secret("canary-first")).unwrap();
    one.apply(None, &first).unwrap();
    assert!(one.remarks().concat().contains("nothing could prove"));
    one.verify(&first).unwrap();
    assert!(logs_in(&server.url("app", "canary-first")));
    let policy = alternating();
    refused(
        target(&policy, &server.admin_url()).compose(None, secret("canary")),
        &["no current value", "vouchsafe set"],
    );
}

#[test]
fn a_role_that_acts_as_its_group_is_still_that_role() {
    let Some(server) = Postgres::start() else { return };
    let current = pair(&server);
    server.sql("ALTER ROLE app_a SET role TO app; ALTER ROLE app_b SET role TO app");
    let mut policy = alternating();
    policy.check = Some("DELETE FROM orders WHERE false".into());
    let mut target = target(&policy, &server.admin_url());
    refused(rotate(&mut target, &current, "canary-1"), &["`check` failed", "25006"]);
}

#[test]
fn md5_of_the_past_becomes_scram() {
    let hba = "host all app 127.0.0.1/32 md5";
    let authority = Authority::new();
    let tls = Some(authority.pems(&["127.0.0.1"], -1, 1));
    let Some(server) = Postgres::with(Setup { hba, tls }) else { return };
    server.sql("SET password_encryption = md5; CREATE ROLE app LOGIN PASSWORD 'canary-old'");
    assert!(server.verifier("app").starts_with("md5"));
    let policy = single();
    // The answer to MD5 is as good as the password: only a server that is known gets it.
    let attempt = |admin: &str| rotate(&mut target(&policy, admin), &secret("canary-old"), "canary-new");
    refused(attempt(&server.admin_url()), &["`app`", "nothing proves which server it is", "sslmode=verify-full"]);
    assert!(server.verifier("app").starts_with("md5"));
    let ca = ca_file(&authority.pem);
    attempt(&format!("{}?sslmode=verify-full&sslrootcert={}", server.admin_url(), ca.display())).unwrap();
    std::fs::remove_dir_all(ca.parent().unwrap()).unwrap();
    assert!(server.verifier("app").starts_with("SCRAM-SHA-256$"));
    assert!(logs_in(&server.url("app", "canary-new")));
}

#[test]
fn the_deadline_ends_what_hangs() {
    let Some(server) = Postgres::start() else { return };
    server.role("app", "canary-old");
    let mut policy = single();
    policy.check = Some("SELECT pg_sleep(60)".into());
    let start = std::time::Instant::now();
    let network = vouchsafe::policy::model::HostNetwork::default();
    let mut target = vouchsafe::rotate::apply::postgres::PostgresTarget::new(
        &policy,
        secret(&server.admin_url()),
        &network,
        start + Duration::from_secs(2),
    )
    .unwrap();
    let error = refused(target.verify(&secret("canary-old")), &["before the deadline"]);
    assert!(!error.is_unsettled);
    drop(target);
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}
