//! Identities and recipients: sources, modes, and lines that are none.

use ::age::secrecy::ExposeSecret;

use super::*;
use crate::name::VariableName;
use crate::store::scratch::{Scratch, key_text, no_env, set_mode};

fn message(result: Result<Identities, IdentityError>) -> String {
    match result {
        Ok(_) => panic!("loaded"),
        Err(error) => error.to_string(),
    }
}

fn env_source(name: &str) -> IdentitySource {
    IdentitySource::Env(VariableName::new(name).unwrap())
}

#[test]
fn identities_come_from_files_variables_and_credentials() {
    let folder = Scratch::new();
    let (one, two) = (x25519::Identity::generate(), x25519::Identity::generate());
    let file = folder.write("key", (key_text(&one) + "\n" + &key_text(&two)).replace('\n', "\r\n"), 0o600);
    // systemd grants by ACL, which shows as group rights.
    folder.write("prod-age", one.to_string().expose_secret(), 0o440);
    let env = |name: &str| match name {
        "KEY" => Some(OsString::from(two.to_string().expose_secret())),
        "CREDENTIALS_DIRECTORY" => Some(folder.path("").into_os_string()),
        _ => None,
    };
    let sources = [IdentitySource::File(file), env_source("KEY"), IdentitySource::Credential("prod-age".to_owned())];
    let found = Identities::load(&sources, &env).unwrap();
    assert_eq!(found.iter().count(), 4);
    assert!(found.tried().iter().all(|tried| tried.why == "does not fit"));
}

#[test]
fn what_is_absent_is_noted_and_skipped() {
    let folder = Scratch::new();
    let env = |name: &str| (name == "EMPTY").then(OsString::new);
    let sources = [
        IdentitySource::File(folder.path("none")),
        env_source("NONE"),
        env_source("EMPTY"),
        IdentitySource::Credential("none".to_owned()),
    ];
    let found = Identities::load(&sources, &env).unwrap();
    let whys: Vec<_> = found.tried().into_iter().map(|tried| tried.why).collect();
    assert_eq!(
        whys,
        [
            "cannot be read: no such file or directory",
            "is not set",
            "is empty",
            "has no `CREDENTIALS_DIRECTORY` to lie in"
        ]
    );
}

#[test]
fn what_is_unsafe_is_an_error_at_once() {
    let folder = Scratch::new();
    let key = x25519::Identity::generate();
    let path = folder.write("key", key_text(&key), 0o600);
    let load = || Identities::load(&[IdentitySource::File(path.clone())], &no_env);
    for (mode, works) in [(0o600, true), (0o400, true), (0o644, false), (0o602, false), (0o604, false), (0o601, false)]
    {
        set_mode(&path, mode);
        assert_eq!(load().is_ok(), works, "{mode:o}");
    }
    assert!(message(load()).contains("unsafe"));
    set_mode(&path, 0o600);
    set_mode(&folder.path(""), 0o777);
    assert!(message(load()).contains("can be written by others"));
    set_mode(&folder.path(""), 0o700);
    std::fs::create_dir(folder.path("sub")).unwrap();
    assert!(message(Identities::load(&[IdentitySource::File(folder.path("sub"))], &no_env)).contains("not a regular"));
    for name in ["", ".", "..", "a/b", "/etc/passwd", "a\0"] {
        let source = IdentitySource::Credential(name.to_owned());
        assert!(message(Identities::load(&[source], &no_env)).contains("not the name of a credential"), "{name:?}");
    }
}

#[test]
fn a_bad_line_is_named_by_its_number() {
    let key = x25519::Identity::generate();
    let good = key.to_string().expose_secret().to_owned();
    let cut = &good[..good.len() - 1];
    let cases = [
        (format!("# x\n\n{cut}"), "line 3: not an age identity"),
        (format!("{good}\nAGE-PLUGIN-YUBIKEY-1QQQ"), "line 2: an identity of an age plugin, which is not supported"),
        ("AGE-SECRET-KEY-PQ-1HZLGZ".to_owned(), "line 1: a post-quantum identity"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nx".to_owned(), "line 1: an SSH or PEM key, which is not supported"),
        ("-----BEGIN AGE ENCRYPTED FILE-----\nx".to_owned(), "line 1: an identity file under a passphrase"),
        (key.to_public().to_string(), "line 1: a recipient (public) where an identity (private) belongs"),
        (format!("{good} # mine"), "line 1: not an age identity"),
        ("# only a comment\n".to_owned(), "holds no key"),
    ];
    for (text, expected) in cases {
        let env = |_: &str| Some(OsString::from(&text));
        let message = message(Identities::load(&[env_source("KEY")], &env));
        assert!(message.contains(expected), "{message}");
        for word in ["1QQQ", "HZLGZ", &cut[20..30]] {
            assert!(!message.contains(word), "{message}");
        }
    }
    let env = |_: &str| Some(OsString::from_vec(vec![b'A', 0xff]));
    assert!(message(Identities::load(&[env_source("KEY")], &env)).contains("line 1: not text"));
}

#[test]
fn recipients_are_checked_by_kind() {
    let key = x25519::Identity::generate().to_public().to_string();
    assert_eq!(
        validate_recipients(std::slice::from_ref(&key)).map(|found| found.len()).map_err(|e| e.to_string()),
        Ok(1)
    );
    let cases = [
        ("", "mistyped or cut short"),
        (&key[..40], "mistyped or cut short"),
        ("age1yubikey1qqqq", "a recipient of an age plugin, which is not supported"),
        ("age1pq1qqqq", "a post-quantum recipient"),
        ("ssh-ed25519 AAAA", "an SSH key, which is not supported"),
        ("AGE-SECRET-KEY-1QQQQQQ", "an identity (private) where a recipient (public) belongs"),
        ("age1tag1qqqq", "mistyped or cut short"),
    ];
    for (text, expected) in cases {
        let Err(error) = validate_recipients(&[key.clone(), text.to_owned()]) else { panic!("{text}") };
        let message = error.to_string();
        assert!(message.starts_with("recipient 2 of the store: ") && message.contains(expected), "{text}: {message}");
        assert!(!message.contains("QQQQ"));
    }
}

#[test]
fn native_tag_recipients_are_taken() {
    // The age crate's own test value: a compressed P-256 point.
    let point = "age1tag1qt8lw0ual6avlwmwatk888yqnmdamm7xfd0wak53ut6elz5c4swx2yqdj4e";
    assert!(validate_recipients(&[point.to_owned()]).is_ok());
}

#[test]
fn recipients_come_from_a_file_too() {
    let folder = Scratch::new();
    let key = x25519::Identity::generate();
    let mut store = crate::store::scratch::age_store(&folder, &key);
    store.recipients_file = Some(folder.write("recipients.txt", format!("# team\n{}\n", key.to_public()), 0o644));
    assert_eq!(recipients(&store).map(|all| all.len()).map_err(|error| error.to_string()), Ok(2));
    folder.write("recipients.txt", "# team\nsomething else\n", 0o644);
    let Err(error) = recipients(&store) else { panic!() };
    assert!(error.to_string().contains("recipients.txt`, line 2: ") && !error.to_string().contains("something"));
    store.recipients_file = None;
    store.recipients.clear();
    assert!(matches!(recipients(&store), Err(RecipientError::None)));
}
