//! What of the parent's environment stays, what goes, what is added. ENV-1 to ENV-10.

use std::collections::BTreeMap;

use crate::harness::{Scene, VOUCHSAFE};

fn environment(scene: &Scene) -> BTreeMap<String, String> {
    let outcome = scene.run(&["env", "-0"]).expect_status(0);
    let mut out = BTreeMap::new();
    for entry in outcome.out().split_terminator('\0') {
        let (name, value) = entry.split_once('=').unwrap();
        assert!(out.insert(name.to_owned(), value.to_owned()).is_none(), "`{name}` twice");
    }
    out
}

#[test]
fn by_default_everything_is_inherited_but_the_wrappers_own() {
    let scene = Scene::with(&[("SECRET", "s")])
        .variable("HOME", "/home/x")
        .variable("LD_PRELOAD_NOT", "y")
        .variable("VOUCHSAFE_ENV", "test")
        .variable("VOUCHSAFE_ANYTHING", "z")
        .variable("AWS_PROFILE", "p")
        .variable("odd.name-with=dashes", "v");
    let environment = environment(&scene);
    assert_eq!(environment["SECRET"], "s");
    assert_eq!(environment["HOME"], "/home/x");
    assert_eq!(environment["AWS_PROFILE"], "p");
    assert!(!environment.keys().any(|name| name.starts_with("VOUCHSAFE_")), "{environment:?}");
}

#[test]
fn an_identity_in_the_environment_ends_with_the_wrapper() {
    let scene = Scene::with(&[("SECRET", "s")]);
    let identity = std::fs::read_to_string(scene.path("identity.key")).unwrap();
    let policy = std::fs::read_to_string(scene.write_policy()).unwrap();
    let policy = policy.replace(&format!("file:{}", scene.path("identity.key").display()), "env:MY_AGE_KEY");
    let scene = scene.variable("MY_AGE_KEY", identity.trim());
    let path = scene.write("by-env.toml", policy.as_bytes());
    let outcome = scene.vouchsafe(&["run", "--policy", path.to_str().unwrap(), "--", "env"]).expect_status(0);
    assert!(outcome.out().contains("SECRET=s"));
    assert!(!outcome.out().contains("AGE-SECRET-KEY") && !outcome.out().contains("MY_AGE_KEY"));
}

#[test]
fn none_is_inherited_but_what_supervision_needs() {
    let scene = Scene::with(&[("SECRET", "s")])
        .and("[child]\ninherit = \"none\"\nset = { APP_ENV = \"test\" }")
        .variable("LISTEN_FDS", "1")
        .variable("NOTIFY_SOCKET", "/run/x")
        .variable("WATCHDOG_USEC", "5")
        .variable("HOME", "/home/x");
    let environment = environment(&scene);
    let names: Vec<_> = environment.keys().map(String::as_str).collect();
    assert_eq!(names, ["APP_ENV", "LISTEN_FDS", "NOTIFY_SOCKET", "SECRET", "WATCHDOG_USEC"]);
}

#[test]
fn named_variables_are_inherited_and_dangerous_ones_only_by_their_full_name() {
    let rules = "[child]\ninherit = [\"PATH\", \"L*\", \"TZ\", \"TERM\", \"APP_*\"]";
    let scene = Scene::with(&[("SECRET", "s")])
        .and(rules)
        .variable("LANG", "en_GB.UTF-8")
        .variable("LC_ALL", "../../evil")
        .variable("LD_PRELOAD", "")
        .variable("TZ", "/etc/passwd")
        .variable("TERM", "xterm%s")
        .variable("APP_NAME", "a")
        .variable("APP_FUNCTION", "() { :; }; echo")
        .variable("OTHER", "o");
    let environment = environment(&scene);
    let names: Vec<_> = environment.keys().map(String::as_str).collect();
    assert_eq!(names, ["APP_NAME", "LANG", "PATH", "SECRET"]);
}

#[test]
fn time_zones_pass_as_sudo_lets_them() {
    for (zone, passes) in [
        ("Europe/Berlin", true),
        (":UTC", true),
        ("/usr/share/zoneinfo/UTC", true),
        ("/usr/share/zoneinfo/../../../etc/passwd", false),
        ("../etc/passwd", false),
        ("a b", false),
        ("/etc/localtime", false),
    ] {
        let scene = Scene::with(&[("SECRET", "s")]).and("[child]\ninherit = [\"TZ\"]").variable("TZ", zone);
        assert_eq!(environment(&scene).contains_key("TZ"), passes, "{zone}");
    }
}

#[test]
fn a_collision_is_an_error_unless_the_policy_says_who_wins() {
    let scene = |rules: &str| Scene::with(&[("TOKEN", "from-store")]).and(rules).variable("TOKEN", "from-parent");
    let outcome = scene("").run(&["true"]).expect_status(125);
    assert!(outcome.err().contains("`TOKEN`"));
    assert!(!outcome.err().contains("from-"), "a value is cited: {}", outcome.err());
    assert_eq!(environment(&scene("[child]\non_collision = \"secret\""))["TOKEN"], "from-store");
    assert_eq!(environment(&scene("[child]\non_collision = \"inherited\""))["TOKEN"], "from-parent");
}

#[test]
fn a_twin_that_images_read_instead_of_the_secret_is_an_error_too() {
    let scene = |rules: &str| {
        Scene::with(&[("TOKEN", "from-store")])
            .and(rules)
            .variable("TOKEN_FILE", "/from-parent")
            .variable("A_FILE", "x")
    };
    let outcome = scene("").run(&["true"]).expect_status(125);
    assert!(outcome.err().contains("`TOKEN_FILE`") && !outcome.err().contains("A_FILE"), "{}", outcome.err());
    let explained = scene("").verb(&["explain", "--json"]).expect_status(0);
    let explained: serde_json::Value = serde_json::from_str(explained.out()).unwrap();
    assert_eq!((&explained["granted"], &explained["collisions"][0]), (&false.into(), &"TOKEN_FILE".into()));
    let secret = environment(&scene("[child]\non_collision = \"secret\""));
    assert_eq!((&*secret["TOKEN"], secret.contains_key("TOKEN_FILE")), ("from-store", false));
    let inherited = environment(&scene("[child]\non_collision = \"inherited\""));
    assert_eq!((&*inherited["TOKEN_FILE"], inherited.contains_key("TOKEN")), ("/from-parent", false));
    // Not inherited, it is in nobody's way; bound itself, it is a secret like any other.
    let none = environment(&scene("[child]\ninherit = \"none\""));
    assert_eq!((&*none["TOKEN"], none.contains_key("TOKEN_FILE")), ("from-store", false));
    let both = Scene::with(&[("TOKEN", "1"), ("TOKEN_FILE", "2")]);
    assert_eq!(environment(&both)["TOKEN_FILE"], "2");
}

#[test]
fn role_pointers_pass_or_are_stripped() {
    let names = [
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_ROLE_ARN",
        "AWS_PROFILE",
        "AWS_REGION",
    ];
    let with = |rules: &str| {
        let scene = Scene::with(&[("SECRET", "s")]).and(rules);
        environment(&names.iter().fold(scene, |scene, name| scene.variable(name, "x")))
    };
    assert!(names.iter().all(|name| with("").contains_key(*name)));
    let stripped = with("[child]\naws_role = \"strip\"");
    assert!(!names.iter().any(|name| stripped.contains_key(*name)), "{stripped:?}");
}

/// Entries that no program can have set through an ordinary shell: twice the same name, no `=`, an empty name.
#[test]
fn odd_entries_of_the_parent_are_cleaned() {
    let scene = Scene::with(&[("FOO", "secret")]).and("[child]\non_collision = \"secret\"");
    let policy = scene.write_policy();
    let entries = [c"FOO=a", c"FOO=b", c"BAD", c"=x", c"KEEP=1", c"KEEP=2", c"PATH=/usr/bin:/bin"];
    let words = [VOUCHSAFE, "run", "--policy", policy.to_str().unwrap(), "--", "cat", "/proc/self/environ"];
    let output = exec_with(&words, &entries);
    let text = String::from_utf8(output.stdout).unwrap();
    let entries: Vec<_> = text.split_terminator('\0').collect();
    assert_eq!(entries, ["KEEP=1", "PATH=/usr/bin:/bin", "FOO=secret"], "{}", String::from_utf8_lossy(&output.stderr));
}

/// Runs `words` with exactly `entries` as its environment block, which no safe interface can do.
#[allow(unsafe_code)]
fn exec_with(words: &[&str], entries: &[&std::ffi::CStr]) -> std::process::Output {
    use std::os::unix::process::CommandExt;
    let argv: Vec<std::ffi::CString> = words.iter().map(|word| std::ffi::CString::new(*word).unwrap()).collect();
    let mut argv: Vec<usize> = argv.into_iter().map(|word| word.into_raw() as usize).collect();
    let mut envp: Vec<usize> = entries.iter().map(|entry| entry.as_ptr() as usize).collect();
    argv.push(0);
    envp.push(0);
    let mut command = std::process::Command::new(words[0]);
    // SAFETY: after the fork, only execve is called, on strings and arrays that were made before it.
    unsafe {
        command.pre_exec(move || {
            libc::execve(argv[0] as *const _, argv.as_ptr().cast(), envp.as_ptr().cast());
            Err(std::io::Error::last_os_error())
        });
    }
    command.output().unwrap()
}

#[test]
fn help_and_errors_never_show_the_environment() {
    let canary = "canary-7b1f";
    let names =
        ["VOUCHSAFE_ENV", "VOUCHSAFE_SERVICE", "VOUCHSAFE_POLICY", "VOUCHSAFE_AGE_IDENTITY", "AWS_SECRET_ACCESS_KEY"];
    let scene = names.iter().fold(Scene::new(), |scene, name| scene.variable(name, format!("{canary}/\n{name}")));
    let commands = [
        "run",
        "check",
        "explain",
        "list",
        "set",
        "remove",
        "history",
        "copy",
        "rotate",
        "init",
        "audit",
        "policy",
        "completions",
        "man",
    ];
    for command in commands {
        for rest in [&["--help"][..], &["--no-such-option"], &["--env", "a/b"], &["--error-format", "xml"]] {
            let line: Vec<&str> = std::iter::once(command).chain(rest.iter().copied()).collect();
            let outcome = scene.vouchsafe(&line);
            let shown = outcome.transcript();
            assert!(!shown.contains(canary), "{shown}");
        }
    }
    assert!(!scene.vouchsafe(&["--version"]).expect_status(0).transcript().contains(canary));
}
