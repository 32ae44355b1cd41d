//! What is refused before anything is altered; and hints that mend it, run as they are printed.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use super::{Postgres, Setup, alternating, logs_in, pair, refused, rotate, secret, single, target};
use vouchsafe::rotate::target::{Target, TargetError};

/// The statement of a hint, as SQL.
fn mend(error: &TargetError) -> String {
    error.hint.clone().unwrap().split("   #").next().unwrap().to_owned()
}

#[test]
fn a_credential_that_the_store_could_have_been_made_to_hold_is_not_rotated() {
    let Some(server) = Postgres::start() else { return };
    let current = pair(&server);
    server.role("payroll", "canary-payroll");
    let before = server.sql("SELECT string_agg(rolpassword, ' ' ORDER BY rolname) FROM pg_authid");
    let policy = alternating();
    let port = server.port;
    for (value, words) in [
        // Another role, though its password is right; the administrator himself; another server.
        (server.url("payroll", "canary-payroll"), ["another role than `app_a` and `app_b`", "policy"]),
        (server.admin_url(), ["another role", "policy"]),
        (format!("postgres://app_a:canary-a@10.0.0.1:{port}/app"), ["another server than `127.0.0.1:", "`ADMIN_URL`"]),
        (format!("postgres://app_a:canary-a@127.0.0.1:{}/app", port ^ 1), ["another server", "administers"]),
        (
            format!("postgres://app_a:canary-a@127.0.0.1:{port},evil.example:{port}/app"),
            ["another server", "administers"],
        ),
        (
            r#"{"username":"app_a","password":"canary-a","host":"evil.example"}"#.to_owned(),
            ["another server", "administers"],
        ),
        ("canary-a".to_owned(), ["names no user", "which of the two"]),
        (format!("mysql://app_a:canary-a@127.0.0.1:{port}/app"), ["looks like a URL", "postgres://"]),
    ] {
        let mut target = target(&policy, &server.admin_url());
        refused(target.compose(Some(&secret(&value)), secret("canary-new")), &words);
        let pending = secret(&server.url("app_b", "canary-new"));
        refused(target.apply(Some(&secret(&value)), &pending), &words);
        refused(target.apply(Some(&current), &secret(&value)), &words);
    }
    // The right role, and a password that does not work.
    let mut one = target(&policy, &server.admin_url());
    let wrong = secret(&server.url("app_a", "canary-wrong"));
    let pending = secret(&server.url("app_b", "canary-new"));
    refused(
        one.apply(Some(&wrong), &pending),
        &["current credential of `app_a` does not work", "nothing was changed", "28P01"],
    );
    let same = secret(&server.url("app_a", "canary-new"));
    refused(one.apply(Some(&current), &same), &["never altered"]);
    assert_eq!(server.sql("SELECT string_agg(rolpassword, ' ' ORDER BY rolname) FROM pg_authid"), before);
}

/// Where any password, or none, logs in, a login is no proof; and a server that asks for the password itself gets none.
#[test]
fn a_server_that_asks_for_no_proof_is_refused() {
    for (method, word) in [("trust", "without a password"), ("password", "wants the password")] {
        let hba = format!("host all app 127.0.0.1/32 {method}");
        let Some(server) = Postgres::with(Setup { hba: &hba, ..Setup::default() }) else { return };
        server.role("app", "canary-old");
        let policy = single();
        let mut target = target(&policy, &server.admin_url());
        let before = server.verifier("app");
        refused(rotate(&mut target, &secret("canary-old"), "canary-new"), &[word, "`app`"]);
        refused(target.verify(&secret("canary-old")), &[word]);
        assert_eq!(server.verifier("app"), before);
    }
}

/// A server for one connection, as anybody may be while the real one is down: it asks for the password, or for MD5 of it, and
/// gives what it gets.
fn impostor(mut client: impl Read + Write, code: u32) -> Vec<u8> {
    let mut length = [0; 4];
    client.read_exact(&mut length).unwrap();
    let mut startup = vec![0; u32::from_be_bytes(length) as usize - 4];
    client.read_exact(&mut startup).unwrap();
    let salt: &[u8] = if code == 5 { b"salt" } else { b"" };
    let length = 8 + u32::try_from(salt.len()).unwrap();
    let request = [b"R", length.to_be_bytes().as_slice(), &code.to_be_bytes(), salt].concat();
    client.write_all(&request).unwrap();
    let mut told = Vec::new();
    // Whoever leaves without having read it all resets the connection.
    client.read_to_end(&mut told).unwrap_or_default();
    told
}

#[test]
fn who_only_listens_where_the_server_did_gets_no_password() {
    let folder = super::folder("impostor");
    let policy = single();
    for code in [3, 5] {
        for is_admin in [true, false] {
            for is_socket in [true, false] {
                let (place, listens) = if is_socket {
                    let path = folder.join(".s.PGSQL.5432");
                    std::fs::remove_file(&path).unwrap_or_default();
                    let listener = UnixListener::bind(&path).unwrap();
                    let place = folder.display().to_string().replace('/', "%2F");
                    (place, std::thread::spawn(move || impostor(listener.accept().unwrap().0, code)))
                } else {
                    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                    let place = listener.local_addr().unwrap().to_string();
                    (place, std::thread::spawn(move || impostor(listener.accept().unwrap().0, code)))
                };
                let mut target = target(&policy, &format!("postgres://root:canary-admin@{place}/app"));
                let words = ["wants the password", "nothing proves which server it is"];
                if is_admin {
                    refused(target.apply(None, &secret("canary-new")), &words);
                } else {
                    refused(target.verify(&secret("canary-new")), &words);
                }
                let told = listens.join().unwrap();
                assert!(told.is_empty(), "{code} {is_admin} {is_socket}: {}", String::from_utf8_lossy(&told));
            }
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

/// An administrator whom the server lets in without a password gives none away.
#[test]
fn an_administrator_may_be_trusted() {
    let hba = "host all \"ad min\" 127.0.0.1/32 trust";
    let Some(server) = Postgres::with(Setup { hba, ..Setup::default() }) else { return };
    let current = pair(&server);
    let renewed = rotate(&mut target(&alternating(), &server.admin_url()), &current, "canary-new").unwrap();
    assert!(logs_in(&super::text(&renewed)));
}

#[test]
fn an_administrator_who_cannot() {
    let Some(server) = Postgres::start() else { return };
    let current = pair(&server);
    let policy = alternating();
    let wrong = server.url("nobody", "canary-wrong");
    refused(
        rotate(&mut target(&policy, &wrong), &current, "canary-new"),
        &["as administrator (`ADMIN_URL`)", "28P01", "vouchsafe set ADMIN_URL"],
    );
    server.role("clerk", "canary-clerk");
    let clerk = server.url("clerk", "canary-clerk");
    let error = refused(
        rotate(&mut target(&policy, &clerk), &current, "canary-new"),
        &["`app_b` could not be altered", "42501", "CREATEROLE"],
    );
    assert!(!error.is_unsettled && !error.is_busy);
    server.sql(&mend(&error));
    rotate(&mut target(&policy, &clerk), &current, "canary-new").unwrap();
    let closed = server.admin_url_at(&format!("127.0.0.1:{}", super::free_port()));
    let moved = secret(&format!("{closed}?user=app_a&password=x").replace("ad%20min:adm%3Ai%2Fn%40%2541%23%3F@", ""));
    refused(rotate(&mut target(&policy, &closed), &moved, "canary-new"), &["cannot be reached", "connection refused"]);
}

#[test]
fn an_administrators_url_that_is_none() {
    let policy = single();
    let network = vouchsafe::policy::model::HostNetwork::default();
    for (url, words) in [
        ("canary", ["`ADMIN_URL` is not usable", "no postgres:// URL"]),
        ("postgres://canary@/db", ["no user or no host", "postgres://admin"]),
        ("postgres://h/db", ["no user or no host", "postgres://admin"]),
        ("postgres://u:canary@db.example.com/db?sslmode=disable", ["sslmode=disable", "in the open"]),
        ("postgres://u:canary@db.example.com/db?sslmode=off", ["sslmode", "libpq"]),
        ("postgres://u:canary@db.example.com/db?sslcert=/x", ["sslcert", "not supported"]),
        ("postgres://u:canary@db.example.com/db?sslrootcert=x", ["sslrootcert", "absolute"]),
        ("postgres://u:canary@db.example.com/db?sslrootcert=/nowhere/ca.pem", ["/nowhere/ca.pem", "refused"]),
    ] {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        refused(
            vouchsafe::rotate::apply::postgres::PostgresTarget::new(&policy, secret(url), &network, deadline),
            &words,
        );
    }
}

/// Each hint is run as it is printed, and mends what it is about.
#[test]
fn the_other_role_has_to_cover_the_current_one() {
    let Some(server) = Postgres::start() else { return };
    let policy = alternating();
    server.sql("CREATE ROLE app NOLOGIN; CREATE ROLE readers NOLOGIN; CREATE ROLE a_group NOLOGIN");
    server.role("app_a", "canary-a");
    server.sql("GRANT app, a_group TO app_a; GRANT readers TO app_a WITH ADMIN OPTION; ALTER ROLE app_a CREATEDB");
    let current = secret(&server.url("app_a", "canary-a"));
    let attempt = || rotate(&mut target(&policy, &server.admin_url()), &current, "canary-new");
    for words in [
        ["there is no role `app_b`", "CREATE ROLE \"app_b\" LOGIN IN ROLE a_group;"],
        ["lacks CREATEDB", "ALTER ROLE \"app_b\" CREATEDB;"],
        ["no member of `app`", "GRANT \"app\" TO \"app_b\";"],
        ["no member of `readers`", "GRANT \"readers\" TO \"app_b\";"],
        ["no ADMIN OPTION on `readers`", "GRANT \"readers\" TO \"app_b\" WITH ADMIN OPTION;"],
    ] {
        let error = refused(attempt(), &words);
        assert!(
            server.sql("SELECT count(*) FROM pg_authid WHERE rolname = 'app_b' AND rolpassword IS NOT NULL") == "0"
        );
        server.sql(&mend(&error));
    }
    for (spoil, words) in [
        ("ALTER ROLE app_b NOLOGIN", ["may not log in", "ALTER ROLE \"app_b\" LOGIN;"]),
        ("ALTER ROLE app_b VALID UNTIL '2020-01-01'", ["validity", "VALID UNTIL 'infinity';"]),
        ("ALTER ROLE app_b VALID UNTIL '2200-01-01'", ["lacks VALID UNTIL", "VALID UNTIL 'infinity';"]),
        (
            "ALTER ROLE app_b CONNECTION LIMIT 1",
            ["lacks CONNECTION LIMIT -1", "ALTER ROLE \"app_b\" CONNECTION LIMIT -1;"],
        ),
    ] {
        server.sql(spoil);
        server.sql(&mend(&refused(attempt(), &words)));
    }
    server.sql("ALTER ROLE app_a SET search_path = shop");
    refused(attempt(), &["setting `search_path`", "ALTER ROLE \"app_b\" SET search_path"]);
    server.sql("ALTER ROLE app_b SET search_path = shop");
    server.sql("ALTER ROLE app_b IN DATABASE app SET default_transaction_read_only = on");
    let error = refused(attempt(), &["setting `default_transaction_read_only`", "IN DATABASE \"app\" RESET"]);
    server.sql(&mend(&error));
    server.sql("CREATE TABLE own (id int); ALTER TABLE own OWNER TO app_a");
    let error =
        refused(attempt(), &["`app_a` itself owns 1 object in `app`", "REASSIGN OWNED BY \"app_a\" TO a_group;"]);
    server.sql(&mend(&error));
    server.sql("GRANT SELECT ON own TO app_a");
    refused(attempt(), &["rights to 1 object in `app` are granted to `app_a` itself"]);
    // The same right to the other one is none to its kinds, its columns, its grant options: only a group shows that.
    server.sql("GRANT SELECT ON own TO app_b");
    refused(attempt(), &["rights to 1 object in `app` are granted to `app_a` itself", "REVOKE ... FROM \"app_a\""]);
    server.sql("GRANT SELECT ON own TO a_group; REVOKE SELECT ON own FROM app_a");
    let renewed = attempt().unwrap();
    assert!(logs_in(&super::text(&renewed)));
}

/// Rights that the other role has in part, and what is bound to the very role: promoted, each of these would have been a
/// consumer that is refused, or finds no rows. Each is refused, and what is undone by the second statement is accepted.
#[test]
fn what_one_role_has_by_itself_is_never_taken_for_the_same() {
    let Some(server) = Postgres::start() else { return };
    let policy = alternating();
    let current = pair(&server);
    server.sql("CREATE DATABASE second");
    server.sql("CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw");
    server.sql("ALTER TABLE orders ADD COLUMN note text; ALTER TABLE orders ENABLE ROW LEVEL SECURITY");
    server.sql("CREATE POLICY everybody ON orders USING (true)");
    let pending = secret(&server.url("app_b", "canary-new"));
    let verifier = server.verifier("app_b");
    let attempt = || target(&policy, &server.admin_url()).apply(Some(&current), &pending);
    let granted = "are granted to `app_a` itself";
    for (spoil, undo, words) in [
        (
            "GRANT SELECT, INSERT ON orders TO app_a; GRANT SELECT ON orders TO app_b",
            "REVOKE ALL ON orders FROM app_a, app_b",
            ["rights to 1 object in `app`", granted],
        ),
        (
            "GRANT SELECT (id), UPDATE (note) ON orders TO app_a; GRANT SELECT (id), SELECT (note) ON orders TO app_b",
            "REVOKE ALL ON orders FROM app_a, app_b",
            ["rights to 2 objects in `app`", granted],
        ),
        (
            "GRANT CREATE ON DATABASE second TO app_a; GRANT CONNECT ON DATABASE second TO app_b",
            "REVOKE ALL ON DATABASE second FROM app_a, app_b",
            ["rights to 1 object in the whole server", granted],
        ),
        (
            "ALTER DEFAULT PRIVILEGES FOR ROLE app GRANT SELECT ON TABLES TO app_a",
            "ALTER DEFAULT PRIVILEGES FOR ROLE app REVOKE SELECT ON TABLES FROM app_a",
            ["rights to 1 object in `app`", granted],
        ),
        (
            "CREATE POLICY own ON orders FOR SELECT TO app_a USING (true)",
            "DROP POLICY own ON orders",
            ["1 row-security policy is in `app` for `app_a` itself", "ALTER POLICY"],
        ),
        (
            "CREATE POLICY own ON orders AS RESTRICTIVE TO app_b USING (false)",
            "DROP POLICY own ON orders",
            ["1 row-security policy is in `app` for `app_b` itself", "in the place of \"app_b\""],
        ),
        (
            "CREATE POLICY own ON orders TO app_a, app_b USING (true)",
            "DROP POLICY own ON orders",
            ["row-security", "ALTER POLICY"],
        ),
        // Inheriting from the current role does not give these.
        (
            "GRANT app_a TO app_b; ALTER DEFAULT PRIVILEGES FOR ROLE app_a GRANT SELECT ON TABLES TO app",
            "REVOKE app_a FROM app_b; ALTER DEFAULT PRIVILEGES FOR ROLE app_a REVOKE SELECT ON TABLES FROM app",
            [
                "default privileges in `app` for what `app_a` itself creates",
                "ALTER DEFAULT PRIVILEGES FOR ROLE \"app_a\"",
            ],
        ),
        (
            "GRANT app_a TO app_b; CREATE USER MAPPING FOR app_a SERVER far",
            "REVOKE app_a FROM app_b; DROP USER MAPPING FOR app_a SERVER far",
            ["`app_a` itself has 1 user mapping in `app`", "DROP USER MAPPING FOR \"app_a\""],
        ),
    ] {
        server.sql(spoil);
        refused(attempt(), &words);
        assert_eq!(server.verifier("app_b"), verifier, "{spoil}");
        server.sql(undo);
    }
    // All that the current role has by itself, the other one has as its member.
    server.sql(
        "GRANT INSERT ON orders TO app_a; CREATE POLICY own ON orders TO app_a USING (true); GRANT app_a TO app_b",
    );
    attempt().unwrap();
}

#[test]
fn the_check_of_the_policy_decides() {
    let Some(server) = Postgres::start() else { return };
    let current = pair(&server);
    server.sql("CREATE TABLE secrets (id int); INSERT INTO orders SELECT generate_series(1, 100000)");
    let mut policy = alternating();
    let pending = secret(&server.url("app_b", "canary-new"));
    target(&policy, &server.admin_url()).apply(Some(&current), &pending).unwrap();
    for (check, words) in [
        ("SELECT * FROM orders", None),
        ("SELECT 1 WHERE false", None),
        ("SELECT * FROM secrets", Some(["42501", "GRANT ... TO \"app_b\""])),
        ("SELECT * FROM nothing", Some(["no such table", "42P01"])),
        ("INSERT INTO orders VALUES (7)", Some(["25006", "`app_b`"])),
        ("SELECT 1; DROP TABLE orders", Some(["42601", "`check`"])),
        ("SELECT 'canary'::int", Some(["22P02", "`check`"])),
    ] {
        policy.check = Some(check.into());
        let verified = target(&policy, &server.admin_url()).verify(&pending);
        match words {
            None => verified.unwrap(),
            Some(words) => drop(refused(verified, &words)),
        }
    }
    assert_eq!(server.sql("SELECT count(*) FROM orders"), "100000");
    // The database is the value's own, where it names one.
    policy.check = None;
    let elsewhere =
        secret(&server.url("app_b", "canary-new").replace("/app", "/nowhere").replace("/nowhere_b", "/app_b"));
    refused(target(&policy, &server.admin_url()).verify(&elsewhere), &["no such database"]);
}

#[test]
fn of_two_rotators_one_says_who_the_other_is() {
    let Some(server) = Postgres::start() else { return };
    let current = pair(&server);
    let policy = alternating();
    let pending = secret(&server.url("app_b", "canary-1"));
    let mut first = target(&policy, &server.admin_url());
    first.apply(Some(&current), &pending).unwrap();
    let session = server.sql("SELECT pid FROM pg_locks WHERE locktype = 'advisory' LIMIT 1");
    let words = [
        "somebody else rotates the role",
        "`vouchsafe-rotate`",
        &format!("server process {session}"),
        "since 20",
        "pg_terminate_backend",
    ];
    for value in [&pending, &secret(&server.url("app_b", "canary-2"))] {
        let error = refused(target(&policy, &server.admin_url()).apply(Some(&current), value), &words);
        assert!(error.is_busy && !error.is_unsettled);
    }
    assert!(refused(target(&policy, &server.admin_url()).retire(&current, &pending), &words).is_busy);
    // Another pair of roles is nobody's business, one that shares a role is.
    server.role("app_c", "canary-c");
    let third = super::policy(vouchsafe::policy::model::Roles::Alternating("app_c".into(), "app_b".into()));
    let of_c = secret(&server.url("app_c", "canary-c"));
    assert!(refused(target(&third, &server.admin_url()).apply(Some(&of_c), &pending), &["`app_b`"]).is_busy);
    first.retire(&current, &pending).unwrap();
    drop(first);
    // Free at once, not when the server notices.
    rotate(&mut target(&policy, &server.admin_url()), &pending, "canary-3").unwrap();
    assert_eq!(server.sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"), "0");
}
