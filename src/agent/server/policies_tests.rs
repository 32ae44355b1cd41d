//! Where policies are found, and which of them are served.

use std::io::Write;
use std::os::unix::fs::DirBuilderExt;

use super::*;
use crate::policy::model::Trust;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("vouchsafe-policies-{name}-{}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        std::fs::DirBuilder::new().mode(0o700).recursive(true).create(path.parent().unwrap()).unwrap();
        std::fs::File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn of(environment: &str, service: Option<&str>) -> Slot {
    (EnvironmentName::new(environment).unwrap(), service.map(|name| ServiceName::new(name).unwrap()))
}

fn found(policies: &Policies, environment: &str, service: Option<&str>) -> Option<Slot> {
    let (environment, service) = of(environment, service);
    policies.find(&environment, service.as_ref()).map(|served| served.slot.clone())
}

#[test]
fn policies_are_found_where_a_search_would_find_them() {
    let folder = Folder::new("places");
    folder
        .write("prod/api.toml", "version = 1\nenvironment = \"prod\"\nservice = \"api\"\nextends = \"../base.toml\"\n");
    folder.write("prod.toml", "version = 1\nenvironment = \"prod\"\n");
    folder.write("dev.toml", "version = 1\nenvironment = \"dev\"\nservice = \"web\"\n");
    folder.write("base.toml", "version = 1\nenvironment = \"*\"\n");
    folder.write("README.md", "not a policy");
    folder.write("test.toml", "version = 1\nenvironment = \"prod\"\n");
    let mut policies = Policies::default();
    let changes = policies.reload(&folder.0, &HostFile::default()).unwrap();
    assert_eq!(changes.loaded.len(), 3);
    assert_eq!(changes.refused.len(), 1);
    assert!(changes.refused[0].failure.message.ends_with("speaks for the environment `prod`, not for `test`"));
    assert_eq!(found(&policies, "prod", Some("api")), Some(of("prod", Some("api"))));
    assert_eq!(found(&policies, "prod", Some("other")), Some(of("prod", None)));
    assert_eq!(found(&policies, "prod", None), Some(of("prod", None)));
    assert_eq!(found(&policies, "dev", Some("web")), Some(of("dev", None)));
    assert_eq!(found(&policies, "dev", Some("api")), None);
    assert_eq!(found(&policies, "test", None), None);
    assert_eq!(found(&policies, "base", None), None);
    let speaking = |environment: Option<&str>, service: Option<&str>| {
        let environment = environment.map(|name| EnvironmentName::new(name).unwrap());
        let service = service.map(|name| ServiceName::new(name).unwrap());
        let numbers = policies.speaking_for(environment.as_ref(), service.as_ref());
        let all = policies.iter().filter(|served| numbers.contains(&served.number));
        all.map(|served| served.slot.clone()).collect::<Vec<_>>()
    };
    assert_eq!(speaking(None, None).len(), 3);
    assert_eq!(speaking(Some("prod"), None), [of("prod", None), of("prod", Some("api"))]);
    assert_eq!(speaking(Some("prod"), Some("api")), [of("prod", Some("api"))]);
    assert_eq!(speaking(Some("prod"), Some("other")), [of("prod", None)], "the policy that serves it");
    assert_eq!(speaking(None, Some("web")), [of("dev", None), of("prod", None)]);
    assert_eq!(speaking(Some("dev"), Some("api")), []);
    assert_eq!(speaking(Some("test"), None), []);
}

#[test]
fn what_the_host_demands_a_signature_for_is_not_even_parsed_without_one() {
    let folder = Folder::new("trust");
    folder.write("prod.toml", "not = [a policy");
    folder.write("dev.toml", "version = 1\nenvironment = \"dev\"\n");
    folder.write("test.toml", "version = 1\nenvironment = \"prod\"\n");
    folder.write("base.toml", "version = 1\nenvironment = \"*\"\n");
    let trusting = |environments: &[&str]| HostFile {
        trust: Some(Trust {
            environments: environments.iter().map(|name| EnvironmentName::new(*name).unwrap()).collect(),
            ..Trust::default()
        }),
        ..HostFile::default()
    };
    let mut policies = Policies::default();
    let changes = policies.reload(&folder.0, &trusting(&["prod"])).unwrap();
    assert_eq!(changes.loaded.iter().map(|served| served.slot.clone()).collect::<Vec<_>>(), [of("dev", None)]);
    let refused: Vec<&str> = changes.refused.iter().map(|refused| refused.failure.message.as_str()).collect();
    assert_eq!(refused.len(), 2);
    assert!(refused.iter().all(|message| message.ends_with("is not signed, which this host demands for `prod`")));
    // An empty list demands everything: not even whether a file is a base is looked for in one that nobody signed.
    let changes = Policies::default().reload(&folder.0, &trusting(&[])).unwrap();
    assert!(changes.loaded.is_empty());
    assert_eq!(changes.refused.len(), 4);
    assert!(
        changes
            .refused
            .iter()
            .all(|refused| refused.failure.message.contains("is not signed") && refused.kept.is_none())
    );
}

#[test]
fn a_reload_changes_only_what_changed_and_keeps_what_was_good() {
    let folder = Folder::new("reload");
    for name in ["a", "b", "c"] {
        folder.write(&format!("{name}.toml"), &format!("version = 1\nenvironment = \"{name}\"\n"));
    }
    let mut policies = Policies::default();
    let first = policies.reload(&folder.0, &HostFile::default()).unwrap();
    let again = policies.reload(&folder.0, &HostFile::default()).unwrap();
    assert!(again.loaded.is_empty() && again.retired.is_empty() && again.refused.is_empty());
    folder.write("a.toml", "version = 1\nenvironment = \"a\"\n[cache]\nttl = \"1s\"\n");
    folder.write("b.toml", "version = 1\nenvironment = \"b\"\nnonsense = 1\n");
    std::fs::remove_file(folder.0.join("c.toml")).unwrap();
    let changes = policies.reload(&folder.0, &HostFile::default()).unwrap();
    let numbers = |list: &[Arc<Served>]| list.iter().map(|served| served.slot.0.to_string()).collect::<Vec<_>>();
    assert_eq!(numbers(&changes.loaded), ["a"]);
    assert_eq!(numbers(&changes.retired), ["a", "c"]);
    assert_eq!(changes.gone, [of("c", None)]);
    assert_eq!(changes.refused.len(), 1);
    let refused: Vec<_> = policies.refused().collect();
    assert_eq!(refused.len(), 1);
    let kept = refused[0].kept.as_ref().unwrap();
    assert_eq!(kept.slot, of("b", None));
    assert!(refused[0].reason().ends_with(&format!("; the policy {} of before is served on", kept.policy.digest)));
    let old = |name: &str| first.loaded.iter().find(|served| served.slot == of(name, None)).unwrap();
    assert!(old("a").is_retired() && old("c").is_retired() && !old("b").is_retired());
    assert_eq!(found(&policies, "b", None), Some(of("b", None)));
    assert_eq!(found(&policies, "c", None), None);
    std::fs::remove_dir_all(&folder.0).unwrap();
    assert!(policies.reload(&folder.0, &HostFile::default()).is_err());
    assert_eq!(found(&policies, "b", None), Some(of("b", None)), "everything stays as it was");
    std::fs::create_dir(&folder.0).unwrap();
}
