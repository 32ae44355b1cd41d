//! Answers that are lost between the server and us, at the one statement that matters.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::proxy::{Loss, Proxy};
use super::{Postgres, alternating, logs_in, pair, refused, secret, target, text};
use vouchsafe::rotate::target::Target;

/// The value as it is on the other side of the proxy.
fn through(value: &str, server: &Postgres, proxy: &Proxy) -> String {
    value.replace(&format!(":{}/", server.port), &format!(":{}/", proxy.port))
}

#[test]
fn a_lost_answer_is_looked_for_and_never_guessed() {
    let Some(server) = Postgres::start() else { return };
    let current = pair(&server);
    let policy = alternating();
    for (number, (loss, statements)) in
        [(Loss::Answer, 1), (Loss::Request, 2), (Loss::Silence, 1)].into_iter().enumerate()
    {
        let proxy = Proxy::start(server.port, "ALTER ROLE", loss);
        let mut target = target(&policy, &server.admin_url_at(&format!("127.0.0.1:{}", proxy.port)));
        let current = secret(&through(&text(&current), &server, &proxy));
        let password = format!("canary-{number}");
        let pending = target.compose(Some(&current), secret(&password)).unwrap();
        target.apply(Some(&current), &pending).unwrap();
        target.verify(&pending).unwrap();
        assert!(logs_in(&server.url("app_b", &password)) && logs_in(&server.url("app_a", "canary-a")));
        assert_eq!(proxy.hits(), statements, "once, unless the server never got it");
        drop(target);
        assert_eq!(server.sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"), "0");
    }
}

/// The server is killed between its answer and our receipt of it, and comes back.
#[test]
fn a_server_that_crashes_is_waited_for() {
    let Some(server) = Postgres::start() else { return };
    let current = pair(&server);
    let policy = alternating();
    let port = server.port;
    let server = Arc::new(Mutex::new(server));
    let again = Arc::clone(&server);
    let crash = Arc::new(Mutex::new(move || {
        let mut server = again.lock().unwrap();
        server.crash();
        server.start_again();
    }));
    let proxy = Proxy::start(port, "ALTER ROLE", Loss::Meanwhile(crash));
    let admin = server.lock().unwrap().admin_url_at(&format!("127.0.0.1:{}", proxy.port));
    let current = secret(&through(&text(&current), &server.lock().unwrap(), &proxy));
    let mut target = target(&policy, &admin);
    let pending = target.compose(Some(&current), secret("canary-new")).unwrap();
    target.apply(Some(&current), &pending).unwrap();
    target.verify(&pending).unwrap();
    target.retire(&current, &pending).unwrap();
    assert!(logs_in(&server.lock().unwrap().url("app_b", "canary-new")));
}

#[test]
fn where_nobody_can_be_asked_it_says_so() {
    let Some(server) = Postgres::start() else { return };
    let current = pair(&server);
    let policy = alternating();
    let proxy = Proxy::start(server.port, "ALTER ROLE", Loss::Everything);
    let current = secret(&through(&text(&current), &server, &proxy));
    let start = Instant::now();
    let mut one = target(&policy, &server.admin_url_at(&format!("127.0.0.1:{}", proxy.port)));
    let pending = one.compose(Some(&current), secret("canary-new")).unwrap();
    let error = refused(one.apply(Some(&current), &pending), &["nobody can say whether the role `app_b` was altered"]);
    assert!(error.is_unsettled && !error.is_busy);
    assert!(start.elapsed() < Duration::from_secs(30));
    drop(one);
    // Resumed by another way, it turns out that it was.
    let (current, pending) = (server.url("app_a", "canary-a"), server.url("app_b", "canary-new"));
    let before = server.verifier("app_b");
    target(&policy, &server.admin_url()).apply(Some(&secret(&current)), &secret(&pending)).unwrap();
    assert_eq!(server.verifier("app_b"), before);
}
