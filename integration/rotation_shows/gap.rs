//! One role, one password: between the server's change and the store's, what a fresh `run` gives does not log in.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use super::{NAME, Poller, Postgres, median, place, sealed};

/// When the server was done with its last `ALTER ROLE`, by its own log.
fn altered(server: &Postgres) -> SystemTime {
    let log = server.log();
    let mut lines = log.lines().rev().skip_while(|line| !line.contains("ALTER ROLE")).peekable();
    let statement = lines.peek().expect("an ALTER ROLE");
    // `2026-01-02 03:04:05.678 UTC [7] LOG: ...`
    humantime::parse_rfc3339(&format!("{}Z", statement[..23].replace(' ', "T"))).unwrap()
}

#[test]
fn the_gap_of_a_single_role_ends() {
    let Some(server) = Postgres::start() else { return };
    server.sql("ALTER SYSTEM SET log_timezone = 'UTC'");
    server.sql("SELECT pg_reload_conf()");
    server.role("app", "canary-old");
    let scene = sealed("role = \"app\"", &server.admin_url(), &server.url("app", "canary-old"));
    let place = place(&scene);
    place.logs_in().unwrap();
    let mut gaps = Vec::new();
    let poller = Poller::new(&place);
    let (logins, failures, _) = poller.during(2, || {
        for number in 0..10 {
            poller.turn_over();
            place.succeeds(&["rotate", NAME]);
            // The rename that promotes is the file's last change.
            let file = std::fs::metadata(scene.path("sealed.age")).unwrap();
            let change = Duration::new(file.ctime().try_into().unwrap(), file.ctime_nsec().try_into().unwrap());
            let gap = (SystemTime::UNIX_EPOCH + change).duration_since(altered(&server));
            gaps.push(gap.expect("the server is changed before the store"));
            place.logs_in().unwrap_or_else(|error| panic!("the gap of rotation {number} does not end: {error}"));
        }
    });
    let (most, median) = (gaps.iter().max().copied().unwrap(), median(&mut gaps));
    println!(
        "one role: the gap is {median:.1?} (median of 10, at most {most:.1?}); {} of {logins} logins fell into it",
        failures.len()
    );
    assert!(failures.iter().all(|error| error.contains("password authentication failed")), "{failures:?}");
    assert_eq!(place.stages().newest, 11);
}
