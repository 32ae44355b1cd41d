//! TLS with a real server: certificates that are good, expired, for another name, or signed by nobody; channel binding.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::{Postgres, Setup, pair, refused, rotate, secret, single, target};
use crate::aws::tls::Authority;
use vouchsafe::rotate::target::Target;

/// A CA file that root or its user alone can write, in the server's folder's neighbour.
pub fn ca_file(pem: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("vouchsafe-ca-{}-{}", std::process::id(), super::free_port()));
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o700)).unwrap();
    let path = folder.join("ca.pem");
    std::fs::write(&path, pem).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    path
}

#[test]
fn a_certificate_is_judged_by_authority_date_and_name() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let ca = ca_file(&authority.pem);
    for (signer, name, from, until, word) in [
        (&authority, "127.0.0.1", -1, 1, None),
        (&authority, "localhost", -1, 1, Some("another name")),
        (&authority, "127.0.0.1", -10, -1, Some("expired")),
        (&authority, "127.0.0.1", 1, 10, Some("not valid yet")),
        (&stranger, "127.0.0.1", -1, 1, Some("signed by nobody")),
    ] {
        let tls = Some(signer.pems(&[name], from, until));
        let Some(server) = Postgres::with(Setup { tls, ..Setup::default() }) else { return };
        server.role("app", "canary-old");
        let policy = single();
        // libpq's `require` would take any certificate; here it means what it says.
        for mode in ["require", "verify-ca", "verify-full&channel_binding=require"] {
            let admin = format!("{}?sslmode={mode}&sslrootcert={}", server.admin_url(), ca.display());
            let verified = target(&policy, &admin).verify(&secret("canary-old"));
            match word {
                None => verified.unwrap(),
                Some(word) => drop(refused(verified, &["no TLS with `127.0.0.1:", word])),
            }
        }
        // Without the CA file only the embedded authorities count, and they know none of these.
        let admin = format!("{}?sslmode=verify-full", server.admin_url());
        refused(target(&policy, &admin).verify(&secret("canary-old")), &["no TLS with `127.0.0.1:", "certificate"]);
        let log = server.log();
        if word.is_some() {
            assert!(
                !log.contains("user=app"),
                "the password's proof went to a server that is not the right one\n{log}"
            );
        } else {
            assert!(log.contains("SSL enabled (protocol=TLSv1.3"), "{log}");
        }
    }
    std::fs::remove_dir_all(ca.parent().unwrap()).unwrap();
}

#[test]
fn a_rotation_by_name_with_the_channel_bound() {
    let authority = Authority::new();
    let ca = ca_file(&authority.pem);
    let tls = Some(authority.pems(&["localhost"], -1, 1));
    // Nobody gets in without TLS.
    let hba = "hostnossl all all 127.0.0.1/32 reject";
    let Some(server) = Postgres::with(Setup { tls, hba }) else { return };
    let current = pair(&server);
    let policy = super::alternating();
    let admin = server.admin_url_at(&format!("localhost:{}", server.port));
    refused(
        rotate(&mut target(&policy, &admin), &current, "canary-new"),
        &["as administrator", "pg_hba.conf", "28000"],
    );
    let admin = format!("{admin}?sslmode=verify-full&channel_binding=require&sslrootcert={}", ca.display());
    rotate(&mut target(&policy, &admin), &current, "canary-new").unwrap();
    std::fs::set_permissions(&ca, PermissionsExt::from_mode(0o666)).unwrap();
    let network = vouchsafe::policy::model::HostNetwork::default();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    let unsafe_file =
        vouchsafe::rotate::apply::postgres::PostgresTarget::new(&policy, secret(&admin), &network, deadline);
    refused(unsafe_file, &["ca.pem", "written by others"]);
    // The host file's authority counts where the URL names none.
    std::fs::set_permissions(&ca, PermissionsExt::from_mode(0o600)).unwrap();
    let network = vouchsafe::policy::model::HostNetwork { ca_files: vec![ca.clone()], env_endpoint: false };
    let admin = server.admin_url_at(&format!("localhost:{}", server.port)) + "?sslmode=verify-full";
    let mut target =
        vouchsafe::rotate::apply::postgres::PostgresTarget::new(&policy, secret(&admin), &network, deadline).unwrap();
    target.verify(&secret(&server.url("app_b", "canary-new"))).unwrap();
    std::fs::remove_dir_all(ca.parent().unwrap()).unwrap();
}

#[test]
fn a_server_without_tls_gets_nothing_where_it_was_asked_for() {
    let Some(server) = Postgres::start() else { return };
    server.role("app", "canary-old");
    let policy = single();
    let admin = format!("{}?sslmode=require", server.admin_url());
    refused(target(&policy, &admin).verify(&secret("canary-old")), &["speaks no TLS"]);
    assert!(!server.log().contains("user=app"));
}
