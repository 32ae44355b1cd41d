//! php-fpm of Debian, asked over FastCGI: the environment reaches PHP through the master and its workers.

use super::unit::Unit;
use super::{Host, Manager, Running, text_of};
use crate::supervised::wait_until;

const CONFIGURATION: &str = "/etc/php/8.2/fpm/shop.conf";

/// Says what PHP sees of the secret, and what of the means.
const SCRIPT: &str = r#"<?php
echo "getenv: ", getenv("SHOP_DATABASE_URL") ?: "-", "\n";
echo "server: ", $_SERVER["SHOP_DATABASE_URL"] ?? "-", "\n";
echo "of another: ", getenv("DATABASE_URL") ?: "-", "\n";
echo "key: ", @file_get_contents("/etc/vouchsafe/prod.key") === false ? "-" : "read", "\n";
echo "phpinfo: ", function_exists("phpinfo") ? "there" : "-", "\n";
echo "user: ", posix_getpwuid(posix_geteuid())["name"], "\n";
"#;

/// The version of php-fpm that is there, `8.2` in the examples.
fn version() -> Option<String> {
    let entries = std::fs::read_dir("/usr/sbin").unwrap();
    let mut names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap_or_default());
    names.find_map(|name| name.strip_prefix("php-fpm").filter(|version| !version.is_empty()).map(str::to_owned))
}

/// A host with the agent, php-fpm's unit and its configuration.
fn start() -> Option<(Host, Unit, String)> {
    let Some(version) = version() else {
        println!("\nSKIPPED: php-fpm with the agent (needs php-fpm)");
        return None;
    };
    let host = Host::start(&["start-stop-daemon", "cgi-fcgi"])?;
    let for_version = |name: &str| super::shipped(name).replace("8.2", &version);
    let configuration = CONFIGURATION.replace("8.2", &version);
    host.write(&configuration, &for_version("php-fpm/shop.conf"), 0o644);
    host.write("/opt/shop/index.php", SCRIPT, 0o644);
    host.agent();
    Some((host, Unit(for_version("php-fpm/php-fpm-shop.service")), configuration))
}

/// What the unit starts, once it has said itself that it is ready; and its number on the host.
fn spawn(host: &Host, unit: &Unit, manager: &Manager) -> Running {
    let mut command = unit.command(host);
    let runs = Running(Some(command.env("NOTIFY_SOCKET", &manager.path).spawn().unwrap()));
    assert!(manager.hear_of("READY=1").contains("READY=1"));
    runs
}

fn signal(host: &Host, signal: &str) {
    host.ok(&["pkill", "--signal", signal, "--oldest", "--uid", "shop"], "");
}

/// What PHP answers to a request of the web server.
fn request(host: &Host) -> String {
    let script = "/opt/shop/index.php";
    let words = ["SCRIPT_FILENAME=/opt/shop/index.php", "REQUEST_METHOD=GET", "SCRIPT_NAME=/index.php"];
    let client = ["cgi-fcgi", "-bind", "-connect", "/run/php-shop/shop.sock"];
    assert!(host.path(script).exists());
    let output = host.run_as("www-data", &[&["env", "-i", "PATH=/usr/bin"], &words[..], &client].concat());
    assert!(output.status.success(), "{}", text_of(&output));
    text_of(&output)
}

#[test]
fn php_gets_its_secrets_from_the_agent() {
    let Some((host, unit, configuration)) = start() else { return };
    let manager = Manager::new(&host);
    host.has_no_means("shop");
    let mut runs = spawn(&host, &unit, &manager);
    host.was_last("access.released", "shop", "shop");
    let answer = request(&host);
    let expected = "getenv: canary-of-shop\nserver: canary-of-shop\nof another: -\nkey: -\nphpinfo: -\nuser: shop\n";
    assert!(answer.ends_with(expected), "{answer}");
    // Nobody else may ask PHP.
    let words = ["cgi-fcgi", "-bind", "-connect", "/run/php-shop/shop.sock"];
    assert!(!host.run_as("api", &words).status.success());

    // php-fpm's own reload keeps the environment.
    host.replace("shop", "SHOP_DATABASE_URL", "canary-of-later");
    signal(&host, "USR2");
    manager.hear_of("READY=1");
    assert!(request(&host).contains("getenv: canary-of-shop\n"));

    // A restart has the new value.
    signal(&host, "QUIT");
    assert_eq!(runs.end().status.code(), Some(0));
    let mut runs = spawn(&host, &unit, &manager);
    assert!(request(&host).contains("getenv: canary-of-later\n"));
    signal(&host, "QUIT");
    assert_eq!(runs.end().status.code(), Some(0));

    // It is the line in the pool that lets it through.
    let cleared = host.read(&configuration).replace("clear_env = no", "clear_env = yes");
    host.write(&configuration, &cleared, 0o644);
    let mut runs = spawn(&host, &unit, &manager);
    assert!(request(&host).contains("getenv: -\nserver: -\n"));
    signal(&host, "QUIT");
    runs.end();
    let log = host.read("/var/log/php-shop/error.log");
    assert!(!log.contains("canary"), "{log}");
}

#[test]
fn php_does_not_start_without_a_grant() {
    let Some((host, unit, _)) = start() else { return };
    for user in ["api", "stranger"] {
        let unit = Unit(unit.0.replace("User=shop", &format!("User={user}")));
        let mut command = unit.command(&host);
        let output = command.output().unwrap();
        let text = text_of(&output);
        assert_eq!(output.status.code(), Some(120), "{text}");
        assert!(text.contains("gives you nothing for `prod`, service `shop`") && !text.contains("canary"), "{text}");
        assert!(!host.path("/run/php-shop/shop.sock").exists());
        host.was_last("access.denied", user, "shop");
    }
    wait_until("the agent", || host.run(&["/etc/init.d/vouchsafe-agent", "status"], "").status.success());
}
