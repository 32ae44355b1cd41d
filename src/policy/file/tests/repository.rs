//! What lies in the repository is true: the policies load, the demo opens, the schema is that of the types.

use super::*;

#[test]
fn every_policy_of_the_repository_loads() {
    let options = LoadOptions { home: Some("/home/someone".into()), is_root: false };
    let texts: Vec<_> = std::fs::read_dir(repository("policies"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| (PathBuf::from("policies").join(path.file_name().unwrap()), read(&path)))
        .collect();
    assert!(texts.len() >= 5);
    let schema = crate::policy::schema::schema();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for (path, text) in &texts {
        let value: serde_json::Value = toml::from_str(text).unwrap();
        let faults: Vec<_> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(faults.is_empty(), "{}: {faults:?}", path.display());
        let mut files = vec![(path.as_path(), text.as_str())];
        files.extend(
            texts.iter().filter(|(other, _)| other != path).map(|(path, text)| (path.as_path(), text.as_str())),
        );
        match parse_texts(&files, &options) {
            Ok(policy) => {
                assert_eq!(path.file_stem().unwrap().to_str().unwrap(), policy.environment.as_str());
                assert!(!policy.sinks.is_empty() && !policy.grants.is_empty());
            }
            Err(error) => assert!(path.ends_with("base.toml"), "{error}"),
        }
    }
}

/// The demo works with what the repository holds: the identity of the README opens the file, which has what the policy wants.
#[test]
fn the_demo_opens_with_the_identity_of_the_readme() {
    let readme = read(&repository("policies/README.md"));
    let identity = readme.split_whitespace().find_map(|word| word.strip_prefix("VOUCHSAFE_AGE_IDENTITY=")).unwrap();
    let identity: age::x25519::Identity = identity.parse().unwrap();
    let sealed = read(&repository("policies/demo.age"));
    let decryptor = age::Decryptor::new(age::armor::ArmoredReader::new(sealed.as_bytes())).unwrap();
    let mut plain = String::new();
    let identities = std::iter::once(&identity as &dyn age::Identity);
    decryptor.decrypt(identities).unwrap().read_to_string(&mut plain).unwrap();
    let policy = parse(&read(&repository("policies/demo.toml"))).unwrap();
    for binding in policy.secrets.values() {
        let Source::Item(item) = &binding.source else { continue };
        assert!(plain.lines().any(|line| line.starts_with(&format!("{}=", item.item))), "{}", item.item);
    }
}

#[test]
fn the_committed_schema_is_that_of_the_types() {
    let (path, current) = (repository("docs/spec/policy.schema.json"), crate::policy::schema::schema());
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(&path, serde_json::to_string_pretty(&current).unwrap() + "\n").unwrap();
    }
    let committed: serde_json::Value = serde_json::from_str(&read(&path)).unwrap();
    assert!(committed == current, "out of date: UPDATE_SCHEMA=1 cargo test --lib committed_schema writes it");
}
