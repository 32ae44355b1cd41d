//! `policy test`: no expectation passes where `run` would decide otherwise.

use crate::harness::Scene;

const NO_GROUPS: &str = "groups = []\n";

/// A policy with these grants, against a table: its status and what it says.
fn tested(grants: &str, table: &str) -> (i32, String) {
    let scene = Scene::with(&[("A", "1"), ("C", "1")]).grants(grants);
    let text = std::fs::read_to_string(scene.write_policy()).unwrap();
    scene.write("policy.toml", text.replace("C = {}", "C = {}\nT = { template = \"x{C}\" }").as_bytes());
    scene.write("policy.toml.tests", format!("[[tests]]\n{table}").as_bytes());
    let outcome = scene.vouchsafe(&["policy", "test", "policy.toml"]);
    (outcome.status.code().unwrap(), format!("{}{}", outcome.out(), outcome.err()))
}

fn grant(secret: &str, to: &str) -> String {
    format!("[[grants]]\nsecrets = [\"{secret}\"]\nto = {to}\n")
}

#[test]
fn a_denial_that_proves_nothing_does_not_pass() {
    let users = grant("A", "{ users = [\"root\"] }");
    let groups = grant("A", "{ groups = [\"root\"] }");
    let commands = grant("A", "{ commands = [\"/usr/bin/dash\"] }");
    let template = grant("T", "{ users = [\"api\"] }");
    for (grants, table, status, says) in [
        // By number, where the grant names a name: the account has one.
        (&users, "user = 0\ndenied = [\"A\"]\n", 121, "this user has no name here"),
        (&users, "user = \"root\"\nuid = 0\ndenied = [\"A\"]\n", 13, "`A` is granted"),
        (&users, "user = 0\ndenied = [\"C\"]\n", 0, "ok"),
        // Without groups, where the grant asks for one: the account has some.
        (&groups, "user = \"root\"\ndenied = [\"A\"]\n", 121, "in which groups"),
        (&groups, "user = \"root\"\ngroups = [\"root\"]\ndenied = [\"A\"]\n", 13, "`A` is granted"),
        (&groups, &format!("user = \"root\"\n{NO_GROUPS}denied = [\"A\"]\n"), 0, "ok"),
        // By a link: `run` looks at what it leads to as well.
        (
            &commands,
            "user = \"api\"\ncommand = \"/bin/sh\"\nresolved = \"/usr/bin/dash\"\ndenied = [\"A\"]\n",
            13,
            "is granted",
        ),
        (&commands, "user = \"api\"\ncommand = \"/bin/sh\"\nresolved = \"/usr/bin/bash\"\ndenied = [\"A\"]\n", 0, "ok"),
        (
            &commands,
            "user = \"api\"\nresolved = \"/usr/bin/dash\"\ndenied = [\"A\"]\n",
            121,
            "`resolved` is about `command`",
        ),
        // A part of what is granted.
        (&template, "user = \"api\"\ndenied = [\"C\"]\n", 13, "`T`, whose part it is"),
        (&template, "user = \"api\"\ngranted = [\"C\", \"T\"]\ndenied = [\"A\"]\n", 0, "ok"),
        (&template, "user = \"web\"\ndenied = [\"*\"]\n[[tests]]\nuser = \"web\"\ndenied = [\"T\"]\n", 0, "ok"),
        // Whom nobody knows.
        (&template, "user = \"apl\"\ndenied = [\"*\"]\n", 0, "note: no grant names the user `apl`"),
    ] {
        let (found, text) = tested(grants, table);
        assert!(found == status && text.contains(says), "{grants}{table}\n{found}\n{text}");
    }
    let (_, text) = tested(&template, "user = \"api\"\ngranted = [\"T\"]\n");
    assert!(!text.contains("no grant names"), "{text}");
}
