//! Rotation of parameters: what stops it before anything is written, and what other tools wrote.

use serde_json::json;
use vouchsafe::error::Cause;
use vouchsafe::store::stages::Stages;
use vouchsafe::store::{StoreError, StoreErrorKind};

use super::fake::Fake;
use super::fake::fault::{Action, Fault};
use super::rotator::{APART, ITEM, Rotator, apart, author, by_label, done, secret, versions};

fn with(values: &[&str]) -> Fake {
    let fake = Fake::start();
    for value in values {
        fake.secure(ITEM, value);
    }
    fake
}

fn label(fake: &Fake, name: &str, number: u64, label: &str) {
    fake.world().ssm.seed_label(name, number, &format!("vouchsafe-{label}"));
}

fn is_moved(result: Result<u64, StoreError>) -> String {
    match result.unwrap_err() {
        error @ StoreError { kind: StoreErrorKind::Moved { .. }, .. } => error.to_string(),
        error => panic!("{error}"),
    }
}

#[test]
fn what_another_tool_wrote_is_told_and_neither_promoted_nor_lost() {
    let fake = with(&["old"]);
    let rotator = Rotator::new(&fake);
    let item = by_label();
    done(rotator.rotate(&item, "new"));
    // It inherits the mark of our version, if AWS lets it, and may overtake a rotation that is cut off.
    for drops in [false, true] {
        fake.world().ssm.drops_descriptions = drops;
        let body = json!({ "Name": ITEM, "Value": "theirs", "Type": "SecureString", "Overwrite": true });
        {
            let mut world = fake.world();
            let (ssm, kms) = {
                let world = &mut *world;
                (&mut world.ssm, &world.kms)
            };
            ssm.call("PutParameter", &body, kms, "chamber").unwrap();
        }
        let newest = fake.world().ssm.parameters[ITEM].versions.last().unwrap().number;
        let error = rotator.staged(&item).unwrap_err();
        assert!(error.to_string().contains(&format!("version {newest} of `{ITEM}` has no stage")), "{error}");
        assert_eq!(
            error.hint().unwrap(),
            format!(
                "aws ssm label-parameter-version --name {ITEM} --parameter-version {newest} --labels vouchsafe-current   \
                 # or vouchsafe-discarded, to pass it over"
            )
        );
        assert!(rotator.rotate(&item, "x").is_err());
        assert_eq!(rotator.current().as_deref(), Some("new"), "and readers keep what they had");
        label(&fake, ITEM, newest, "discarded");
        assert_eq!(rotator.told(&item), "2 - 1");
    }
    fake.secure(ITEM, "theirs");
    label(&fake, ITEM, 5, "current");
    assert_eq!((rotator.told(&item).as_str(), rotator.current().as_deref()), ("5 - 1", Some("theirs")));
    // In the middle of a write: ours is not the next one then, and nothing is made of it.
    rotator.holding(|store| {
        fake.fault(
            Fault::on(
                "GetParameterHistory",
                Action::Rewrite(Box::new(|body| {
                    // As seen a moment before somebody wrote.
                    body["Parameters"].as_array_mut().unwrap().pop();
                })),
            )
            .times(1),
        );
        fake.secure(ITEM, "theirs too");
        let moved = is_moved(store.stage_pending(&item, &secret("ours"), &author(), rotator.deadline()));
        assert!(moved.contains("version 7 was to be the one after version 5"), "{moved}");
    });
    assert_eq!(rotator.current().as_deref(), Some("theirs"));
    let error = rotator.staged(&item).unwrap_err().to_string();
    assert!(error.contains("version 6 of"), "theirs is told, not ours: {error}");
    // A parameter for unproven versions that is no such thing.
    let fake = with(&["old"]);
    fake.secure(APART, "a value of somebody else");
    let rotator = Rotator::new(&fake);
    let error = rotator.rotate(&apart(), "new").unwrap_err();
    assert!(error.hint().unwrap().contains("--labels vouchsafe-discarded"), "{error}");
    assert_eq!(versions(&fake, APART).len(), 1);
    label(&fake, APART, 1, "discarded");
    assert_eq!(done(rotator.rotate(&apart(), "new")), 2);
}

#[test]
fn only_what_is_encrypted_is_rotated() {
    let fake = Fake::start();
    fake.world().ssm.seed(ITEM, "plain", "String");
    let rotator = Rotator::new(&fake);
    for item in [by_label(), apart()] {
        assert!(rotator.rotate(&item, "new").is_err());
        assert_eq!(versions(&fake, ITEM).len(), 1, "{:?}", versions(&fake, ITEM));
    }
    // Somebody turns the pending version into a String.
    let fake = with(&["old"]);
    let rotator = Rotator::new(&fake);
    rotator.holding(|store| {
        done(store.stage_pending(&by_label(), &secret("new"), &author(), rotator.deadline()));
        fake.world().ssm.parameters.get_mut(ITEM).unwrap().versions[1].kind = "String".into();
        assert!(store.promote(&by_label(), 2, &author(), rotator.deadline()).is_err());
    });
    assert_eq!(rotator.current().as_deref(), Some("old"));
    for call in fake.calls("PutParameter").iter().filter(|call| call.body["Name"] == ITEM) {
        assert_eq!(call.body["Type"], "SecureString");
    }
}

#[test]
fn what_is_not_there_is_not_rotated() {
    let fake = Fake::start();
    let rotator = Rotator::new(&fake);
    for item in [by_label(), apart()] {
        assert_eq!(rotator.told(&item), "- - -");
        let error = rotator.rotate(&item, "new").unwrap_err();
        assert_eq!(error.class().word(), "missing", "{error}");
    }
    assert!(versions(&fake, ITEM).is_empty() && versions(&fake, APART).is_empty());
}

#[test]
fn a_label_that_is_not_taken_is_an_error() {
    let fake = with(&["old"]);
    let rotator = Rotator::new(&fake);
    rotator.holding(|store| done(store.stage_pending(&by_label(), &secret("new"), &author(), rotator.deadline())));
    let refuse = |body: &mut serde_json::Value| body["InvalidLabels"] = json!(["vouchsafe-previous"]);
    fake.fault(Fault::on("LabelParameterVersion", Action::Rewrite(Box::new(refuse))).times(1));
    rotator.holding(|store| {
        let error = store.promote(&by_label(), 2, &author(), rotator.deadline()).unwrap_err();
        assert!(error.to_string().contains("a label of ours"), "{error}");
    });
    assert_eq!(rotator.current().as_deref(), Some("old"));
    // Ten labels of others.
    let fake = with(&["old"]);
    for number in 0..9 {
        fake.world().ssm.seed_label(ITEM, 1, &format!("release-{number}"));
    }
    let rotator = Rotator::new(&fake);
    let error = rotator.rotate(&by_label(), "new").unwrap_err();
    assert!(error.to_string().contains("ten labels"), "{error}");
    assert_eq!(versions(&fake, ITEM).len(), 1, "before anything is written");
}

#[test]
fn at_the_version_cap_nothing_that_means_something_is_lost() {
    for (count, oldest) in [(99, 1), (100, 1), (101, 2)] {
        for item in [by_label(), apart()] {
            let prepared = || {
                let fake = Fake::start();
                for number in 1..=count {
                    fake.secure(ITEM, &format!("v{number}"));
                }
                let mut world = fake.world();
                let versions = &mut world.ssm.parameters.get_mut(ITEM).unwrap().versions;
                while versions.len() > 100 {
                    versions.remove(0);
                }
                drop(world);
                fake
            };
            // Nothing on the oldest, a label of ours that means nothing any more, one of somebody else's.
            for (label, fits) in [(None, true), (Some("vouchsafe-discarded"), true), (Some("release"), count < 100)] {
                let fake = prepared();
                if let Some(label) = label {
                    if label.starts_with("vouchsafe") && !item.pending_separate {
                        fake.world().ssm.seed_label(ITEM, count, "vouchsafe-current");
                    } else if label.starts_with("vouchsafe") {
                        continue;
                    }
                    fake.world().ssm.seed_label(ITEM, oldest, label);
                }
                let rotator = Rotator::new(&fake);
                let rotated = rotator.rotate(&item, "new");
                let place = format!("{count} versions, {label:?}, {item:?}");
                assert_eq!(rotated.is_ok(), fits, "{place}");
                let have = versions(&fake, ITEM);
                assert!(have.len() <= 100, "{place}");
                if let Err(error) = rotated {
                    assert!(error.to_string().contains("100 versions"), "{place}: {error}");
                    assert_eq!(have.len(), 100);
                    assert_eq!(rotator.current().as_deref(), Some(format!("v{count}").as_str()), "{place}");
                } else {
                    assert_eq!(rotator.told(&item), format!("{} - {count}", count + 1), "{place}");
                }
            }
        }
    }
    // The oldest is what a roll back goes to: nothing is written.
    let fake = Fake::start();
    for number in 1..=100 {
        fake.secure(ITEM, &format!("v{number}"));
    }
    for (number, stage) in [(1, "previous"), (2, "current"), (100, "discarded")] {
        label(&fake, ITEM, number, stage);
    }
    let rotator = Rotator::new(&fake);
    assert!(rotator.rotate(&by_label(), "new").is_err());
    assert_eq!((rotator.told(&by_label()).as_str(), versions(&fake, ITEM).len()), ("2 - 1", 100));
}
