//! Values in every form, and what is not understood as one.

use proptest::prelude::*;

use super::*;

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec())
}

fn text(secret: &Secret) -> String {
    String::from_utf8(secret.expose().to_vec()).unwrap()
}

/// Another user and password, as every reader has to get them back.
const USER: &str = "app b";
const PASSWORD: &str = "n:e/w@#%?&+\"\\'é 1";
const USER_URL: &str = "app%20b";
const PASSWORD_URL: &str = "n%3Ae%2Fw%40%23%25%3F%26%2B%22%5C%27%C3%A9%201";
const PASSWORD_JSON: &str = r#""n:e/w@#%?&+\"\\'é 1""#;

#[test]
fn every_other_byte_stays() {
    for (value, user, password, with_both) in [
        ("plain", None, Some("plain"), None),
        ("{not json", None, Some("{not json"), None),
        ("p%40:w", None, Some("p%40:w"), None),
        ("postgres://u:p@h/db", Some("u"), Some("p"), Some("postgres://U:P@h/db")),
        ("postgresql://u:p@h", Some("u"), Some("p"), Some("postgresql://U:P@h")),
        ("postgres://u%2F1:p%40%C3%A9@h/d%2Fb", Some("u/1"), Some("p@é"), Some("postgres://U:P@h/d%2Fb")),
        ("postgres://u:p:q@h/db", Some("u"), Some("p:q"), Some("postgres://U:P@h/db")),
        ("postgres://u@h/db", Some("u"), None, Some("postgres://U:P@h/db")),
        ("postgres://u:@h/db", Some("u"), None, Some("postgres://U:P@h/db")),
        (
            "postgres://u:p@a:1,b:2,[::1]:3/db?x=%20&y=a@b",
            Some("u"),
            Some("p"),
            Some("postgres://U:P@a:1,b:2,[::1]:3/db?x=%20&y=a@b"),
        ),
        (
            "postgres://u:p@/db?host=/run/postgresql&port=6432",
            Some("u"),
            Some("p"),
            Some("postgres://U:P@/db?host=/run/postgresql&port=6432"),
        ),
        ("postgres://u:p@%2Frun%2Fpostgresql/db", Some("u"), Some("p"), Some("postgres://U:P@%2Frun%2Fpostgresql/db")),
        (
            "postgres:///db?host=/tmp&user=u&password=p&z=1",
            Some("u"),
            Some("p"),
            Some("postgres:///db?host=/tmp&user=U&password=P&z=1"),
        ),
        ("postgres:///db?password=p&user=u&z=1", Some("u"), Some("p"), Some("postgres:///db?password=P&user=U&z=1")),
        ("postgres://h/db?user=u&z=1", Some("u"), None, Some("postgres://h/db?user=U&password=P&z=1")),
        ("postgres://u@h/db?z=1&password=p", Some("u"), Some("p"), Some("postgres://U@h/db?z=1&password=P")),
        (r#"{"password":"p"}"#, None, Some("p"), None),
        (
            " { \"username\" : \"u\",\n\t\"password\":\"p\\u0041\", \"port\":\"5432\" , \"x\":[1,{\"password\":\"in\"}]} \n",
            Some("u"),
            Some("pA"),
            Some(" { \"username\" : J,\n\t\"password\":Q, \"port\":\"5432\" , \"x\":[1,{\"password\":\"in\"}]} \n"),
        ),
        (
            r#"{"user":"u","username":"u","password":"p","n":1.50}"#,
            Some("u"),
            Some("p"),
            Some(r#"{"user":J,"username":J,"password":Q,"n":1.50}"#),
        ),
    ] {
        let secret_value = secret(value);
        let credential = Credential::parse(&secret_value).unwrap_or_else(|why| panic!("{value}: {why}"));
        assert_eq!(credential.user.as_deref(), user, "{value}");
        let found = credential.password.as_ref().map(|password| String::from_utf8(password.to_vec()).unwrap());
        assert_eq!(found.as_deref(), password, "{value}");
        let renewed = credential.with(Some(USER), &secret(PASSWORD)).map(|new| text(&new));
        let expected = with_both.map(|template| {
            let template = template.replace("Q", PASSWORD_JSON).replace("J", "\"app b\"");
            template.replacen("U", USER_URL, 1).replacen("P", PASSWORD_URL, 1)
        });
        match expected {
            Some(expected) => assert_eq!(renewed.unwrap(), expected),
            None => assert!(renewed.is_err(), "{value} has no place for a user"),
        }
        let same_user = credential.with(None, &secret(PASSWORD)).unwrap();
        let again = Credential::parse(&same_user).unwrap();
        assert_eq!(again.user.as_deref(), user, "{value}");
        assert_eq!(again.password.as_ref().map(|bytes| bytes.as_slice()), Some(PASSWORD.as_bytes()), "{value}");
        // Back again, it is what it was, where the password was written as we write it.
        if let Some(password) = password.filter(|password| password.bytes().all(|byte| byte.is_ascii_alphanumeric())) {
            let back = text(&again.with(None, &secret(password)).unwrap());
            assert_eq!(back.replace("\"pA\"", "\"p\\u0041\""), value);
        }
    }
}

#[test]
fn what_readers_would_disagree_on_is_refused() {
    for value in [
        "",
        "a\0b",
        "mysql://u:p@h/db",
        "jdbc:postgresql://h/db?user=u&password=p",
        "postgres://h/db",
        "postgres://:p@h/db",
        "postgres://u:p@w@h/db",
        "postgres://u:p/w@h/db",
        "postgres://u:1?w@h/db",
        "postgres://u:p#w@h/db",
        "postgres://u:p w@h/db",
        "postgres://u:p%@h/db",
        "postgres://u:p%4@h/db",
        "postgres://u:p%zz@h/db",
        "postgres://u:p%00@h/db",
        "postgres://u%ff:p@h/db",
        "postgres://u:p@h:x/db",
        "postgres://u:p@h:0/db",
        "postgres://u:p@h:65536/db",
        "postgres://u:p@h,/db",
        "postgres://u:p@[::1/db",
        "postgres://u:p@[::1]x/db",
        "postgres://u:p@h/db?x",
        "postgres://u:p@h/db?user=v",
        "postgres://u:p@h/db?password=q",
        "postgres://u:p@h/db?host=i",
        "postgres://u:p@h:1/db?port=2",
        "postgres://u:p@h/db?dbname=e",
        "postgres://u:p@h/db?sslmode=require&sslmode=disable",
        "postgres://u:p@/db?host=a,b,c&port=1,2",
        "{}",
        r#"{"username":"u"}"#,
        r#"{"username":"u","password":1}"#,
        r#"{"username":1,"password":"p"}"#,
        r#"{"username":"u","user":"v","password":"p"}"#,
        r#"{"username":"u","password":"p","password":"q"}"#,
        r#"{"username":"u","password":"p","host":"h","port":"x"}"#,
        r#"{"username":"u","password":"long enough","url":"postgres://u:long%20enough@h/db"}"#,
    ] {
        let secret_value = secret(value);
        let why = Credential::parse(&secret_value).err().unwrap_or_else(|| panic!("{value} was taken"));
        assert!(!why.0.contains("enough"));
    }
}

#[test]
fn places_are_those_that_libpq_would_ask() {
    for (value, places, dbname) in [
        ("postgres://u:p@h/db", "h:5432", Some("db")),
        ("postgres://u:p@h:/", "h:5432", None),
        ("postgres://u:p@A:1,127.0.0.1:2,[::1]:3,[fe80::1]/d", "a:1 127.0.0.1:2 [::1]:3 [fe80::1]:5432", Some("d")),
        ("postgres://u:p@/d?host=a,/run/x,::1&port=1,2,3", "a:1 /run/x:2 [::1]:3", Some("d")),
        ("postgres://u:p@/d?host=a,b&port=7", "a:7 b:7", Some("d")),
        ("postgres://u:p@a,b/d?port=7,8", "a:7 b:8", Some("d")),
        ("postgres://u:p@%2Frun%2Fx:7/d", "/run/x:7", Some("d")),
        ("postgres://u:p@/?dbname=e", "", Some("e")),
        (r#"{"password":"p","host":"H.","port":6432,"dbname":"d"}"#, "h:6432", Some("d")),
        (r#"{"password":"p","host":"h","database":"d"}"#, "h:5432", Some("d")),
        (r#"{"password":"p","port":1}"#, "", None),
    ] {
        let secret_value = secret(value);
        let credential = Credential::parse(&secret_value).unwrap_or_else(|why| panic!("{value}: {why}"));
        let found: Vec<String> = credential.places.iter().map(ToString::to_string).collect();
        assert_eq!((found.join(" ").as_str(), credential.dbname.as_deref()), (places, dbname), "{value}");
    }
}

proptest! {
    #[test]
    fn nothing_panics_and_what_is_understood_stays_understood(value in ".{0,40}|postgres://[a-z:@/?&=%,\\[\\]#0-9]{0,40}|\\{[\"a-z:, ]{0,40}\\}", password in "[^\0]{1,20}") {
        let value = secret(&value);
        if let Ok(credential) = Credential::parse(&value) {
            let renewed = credential.with(None, &secret(&password)).unwrap();
            // A password of its own may itself look like one of the other forms.
            if credential.shape != Shape::Password {
                let again = Credential::parse(&renewed).map_err(|why| TestCaseError::fail(why.0))?;
                prop_assert_eq!(again.password.as_ref().map(|bytes| bytes.to_vec()), Some(password.into_bytes()));
                prop_assert_eq!(again.user.as_deref(), credential.user.as_deref());
                prop_assert_eq!(again.places, credential.places);
            }
        }
    }
}
