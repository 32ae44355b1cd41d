//! What is said when something is wrong, and what is never said.

use super::*;

#[test]
fn a_message_cites_the_line_and_says_what_was_meant() {
    let error = parse("version = 1\nenviroment = \"prod\"\n").unwrap_err();
    let lines = ["policies/prod.toml:2:1: unknown field `enviroment`", "    2 | enviroment ...", "      | ^^^^^^^^^^"];
    assert_eq!(error.to_string(), lines.join("\n"));
    assert_eq!(error.hint().as_deref(), Some("did you mean `environment`?"));
}

#[test]
fn a_grant_is_cited_and_a_secrets_own_text_is_not() {
    let head = "version = 1\nenvironment = \"prod\"\n";
    let grant = parse(&format!("{head}[[grants]]\nsecrets = [\"A\"]\nto = \"anyone\"\n")).unwrap_err().to_string();
    assert!(grant.ends_with("    4 | secrets = [\"A\"]\n      |            ^^^"), "{grant}");
    let secret = parse(&format!("{head}[secrets]\nA = \"x\"\n")).unwrap_err().to_string();
    assert!(secret.ends_with("    4 | A = ...\n      |     ^^^"), "{secret}");
}

#[test]
fn all_that_is_wrong_is_said_in_order() {
    let error =
        parse("version = 1\nenvironment = \"a b\"\n[run]\ndeadline = \"x\"\n[cache]\nttl = \"y\"\n").unwrap_err();
    let lines: Vec<_> = error.problems().iter().map(|problem| problem.place.as_ref().unwrap().line).collect();
    assert_eq!(lines, [2, 4, 6]);
    assert_eq!(error.first_only().problems().len(), 1);
}

#[test]
fn tabs_long_lines_and_strange_characters_are_drawn_safely() {
    let tab = parse("version = 1\nenvironment = \"prod\"\n[run]\n\tmode\t= \"fork\"\n").unwrap_err();
    assert!(tab.to_string().ends_with("    4 |     mode    = \"fork\"\n      |               ^^^^^^"), "{tab}");
    let long = format!("version = 1\nenvironment = \"prod\"\n[run]\nmode = \"{}\"\n", "x".repeat(5000));
    let long = parse(&long).unwrap_err().problems()[0].place.clone().unwrap();
    assert!(long.cited.lines().all(|line| line.chars().count() < 130), "{}", long.cited);
    let bidi = parse("version = 1\nenvironment = \"prod\u{202e}\"\n").unwrap_err().to_string();
    assert!(bidi.contains("\\u{202e}") && !bidi.contains('\u{202e}'), "{bidi}");
}

/// A value that somebody wrote into the policy by mistake is not repeated to a terminal or a build log.
#[test]
fn a_secret_written_by_mistake_is_not_cited() {
    let age = "version = 1\nenvironment = \"prod\"\n";
    for mistake in [
        "[secrets]\nA = \"hunter2\"\n",
        "[secrets]\nA = hunter2\n",
        "[secrets]\nA = 'hunter2\n",
        "[secrets]\nA = { value = \"hunter2\" }\n",
        "[secrets]\nA = { item = 1, value = \"hunter2\" }\n",
        "[secrets]\nA = { value = \"hunter2\" item = 1 }\n",
        "[secrets]\nA = { value = \"hunter2\n",
        "[secrets]\nA = \"hunter2\"\nA = \"hunter2\"\n",
        "secrets.A = \"hunter2\"\n",
        "secrets = { A = \"hunter2\" }\n",
        "[secrets.A]\nvalue = \"hunter2\"\n",
        "[secrets.A]\nvalue = hunter2\n",
        "[secrets]\nA = \"\"\"\nhunter2\\q\n\"\"\"\n",
        "[stores.x]\ntype = \"ssm\"\nsecret_access_key = \"hunter2\"\n",
        "[stores.x]\ntype = \"age\"\nidentities = [\"AGE-SECRET-KEY-1hunter2\"]\n",
        "[stores.x]\ntype = \"age\"\nidentities = \"AGE-SECRET-KEY-1hunter2\"\n",
    ] {
        let error = parse(&format!("{age}{mistake}")).unwrap_err();
        let said = format!("{error}{:?}", error.hint());
        assert!(!said.contains("hunter2"), "{mistake}\n{said}");
    }
}

#[test]
fn a_byte_order_mark_and_a_nul_are_named() {
    let bom = parse("\u{feff}version = 1\n").unwrap_err();
    assert_eq!(bom.problems()[0].message, "the file begins with a byte order mark");
    let nul = parse("version = 1\nenvironment = \"pr\0od\"\n").unwrap_err();
    assert_eq!(nul.problems()[0].message, "the file contains a NUL byte");
}
