//! Rotations: what arrives of them, and what they mean for the rest of a policy.

use std::time::Duration;

use super::*;
use crate::policy::model::{Alphabet, Apply, CharacterClass, Generate, Password, Random, Roles, Rotation};

const HEAD: &str = "version = 1\nenvironment = \"prod\"\nstore = \"params\"\n[stores.params]\ntype = \"ssm\"\n\
    [stores.files]\ntype = \"age\"\npath = \"x.age\"\nidentities = [\"env:KEY\"]\n[secrets]\nADMIN_URL = { inject = false }\n";

fn rotation(fields: &str) -> Rotation {
    let policy = parse(&format!("{HEAD}[secrets.A.rotate]\n{fields}\n")).unwrap();
    policy.secrets[&variable("A")].rotate.clone().unwrap()
}

#[test]
fn every_generator_arrives() {
    let generate = |fields: &str| rotation(&format!("generate = {{ {fields} }}")).generate;
    let password = |length, alphabet, exclude: &[u8], require: &[CharacterClass]| {
        let (exclude, require) = (exclude.to_vec(), require.to_vec());
        Generate::Random(Random::Password(Password { length, alphabet, exclude, require }))
    };
    assert_eq!(rotation("").generate, password(40, Alphabet::UrlSafe, b"", &[]));
    assert_eq!(generate(""), rotation("").generate);
    assert_eq!(generate("type = \"password\""), rotation("").generate);
    assert_eq!(
        generate(
            "length = 20, alphabet = \"printable\", exclude = \"$%\", require = [\"upper\", \"digit\", \"upper\"]"
        ),
        password(20, Alphabet::Printable, b"$%", &[CharacterClass::Digit, CharacterClass::Upper])
    );
    for (fields, expected) in [
        ("type = \"hex\"", Random::Hex { bytes: 32 }),
        ("type = \"hex\", bytes = 512", Random::Hex { bytes: 512 }),
        ("type = \"base64\", bytes = 16", Random::Base64 { bytes: 16 }),
        ("type = \"uuid\"", Random::Uuid),
        ("type = \"ed25519\"", Random::Ed25519),
        ("type = \"x25519\"", Random::X25519),
        ("type = \"age\"", Random::Age),
    ] {
        assert_eq!(generate(fields), Generate::Random(expected), "{fields}");
    }
    let Generate::Command(program) =
        generate("type = \"command\", program = \"/usr/bin/make\", needs = [\"ADMIN_URL\"]")
    else {
        panic!()
    };
    assert_eq!((program.path.to_str(), program.timeout), (Some("/usr/bin/make"), Duration::from_secs(30)));
    assert_eq!(program.needs, [variable("ADMIN_URL")]);
}

#[test]
fn every_target_arrives() {
    let apply = |fields: &str| rotation(&format!("apply = {{ {fields} }}")).apply;
    assert!(matches!(rotation("").apply, Apply::None));
    assert!(matches!(apply("type = \"none\""), Apply::None));
    let Apply::Command(program) =
        apply("type = \"command\", program = \"/usr/bin/hook\", timeout = \"1m\", needs = [\"ADMIN_URL\"]")
    else {
        panic!()
    };
    assert_eq!((program.path.to_str(), program.timeout), (Some("/usr/bin/hook"), Duration::from_secs(60)));
    assert_eq!(program.needs, [variable("ADMIN_URL")]);
    let Apply::Postgres(one) = apply("type = \"postgres\", admin = \"ADMIN_URL\", role = \"api\"") else { panic!() };
    assert_eq!((one.roles, one.check, one.admin), (Roles::Single("api".into()), None, variable("ADMIN_URL")));
    let Apply::Postgres(two) =
        apply("type = \"postgres\", admin = \"ADMIN_URL\", roles = [\"b\", \"a\"], check = \"SELECT 1\"")
    else {
        panic!()
    };
    assert_eq!((two.roles, two.check.as_deref()), (Roles::Alternating("b".into(), "a".into()), Some("SELECT 1")));
}

#[test]
fn times_and_places_arrive() {
    let none = rotation("");
    assert_eq!((none.every, none.retire_after, none.pending_separate), (None, None, false));
    let all = rotation("every = \"30d\"\nretire_after = \"0s\"\npending = \"separate\"");
    assert_eq!((all.every, all.retire_after), (Some(Duration::from_secs(30 * 86_400)), Some(Duration::ZERO)));
    assert!(all.pending_separate);
    assert!(!rotation("pending = \"version\"").pending_separate);
}

/// Whoever reads an item by another name must not get what the rotation has not proven.
#[test]
fn what_another_binding_rotates_is_read_at_its_current_stage() {
    let policy = parse(&format!(
        "{HEAD}A = {{ rotate = {{}} }}\nSAME = {{ item = \"A\" }}\nFIELD = {{ item = \"A\", field = \"/x\" }}\n\
         FIXED = {{ item = \"A\", version = 1 }}\nOLD = {{ item = \"A\", stage = \"previous\" }}\nOTHER = {{}}\n\
         ELSEWHERE = {{ item = \"A\", store = \"files\" }}\n"
    ))
    .unwrap();
    for (name, stage) in [
        ("A", Some(Stage::Current)),
        ("SAME", Some(Stage::Current)),
        ("FIELD", Some(Stage::Current)),
        ("FIXED", None),
        ("OLD", Some(Stage::Previous)),
        ("OTHER", None),
        ("ELSEWHERE", None),
    ] {
        let Source::Item(item) = &policy.secrets[&variable(name)].source else { panic!() };
        assert_eq!(item.stage, stage, "{name}");
    }
}

/// What stands in a base counts as what stands here does.
#[test]
fn a_rotation_and_its_means_may_stand_in_different_files() {
    let base = BASE.replace("A = {", "ADMIN_URL = {}\nA = {");
    let text = |rest: &str| {
        format!(
            "version = 1\nenvironment = \"prod\"\nextends = \"base.toml\"\n[secrets]\nSAME = {{ item = \"base-b\" }}\n{rest}"
        )
    };
    let load = |rest: &str| {
        let text = text(rest);
        parse_texts(&[(Path::new("p.toml"), &text), (Path::new("base.toml"), &base)], &LoadOptions::default())
    };
    let good = "[secrets.B]\nitem = \"base-b\"\n[secrets.B.rotate]\napply = { type = \"postgres\", admin = \"ADMIN_URL\", role = \"b\" }\n";
    let policy = load(good).unwrap();
    let Source::Item(item) = &policy.secrets[&variable("SAME")].source else { panic!() };
    assert_eq!(item.stage, Some(Stage::Current));
    let error = load(&good.replace("\"ADMIN_URL\"", "\"ADMIN_URI\"")).unwrap_err();
    assert!(error.to_string().starts_with("p.toml:9:38: `ADMIN_URI` is no secret of this policy"), "{error}");
    assert_eq!(error.hint().as_deref(), Some("did you mean `ADMIN_URL`?"));
}
