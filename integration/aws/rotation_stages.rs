//! Rotation of parameters, operation by operation: which version is which, what is refused, how many calls it takes.

use vouchsafe::error::Cause;
use vouchsafe::policy::model::Stage;
use vouchsafe::store::stages::{StagedItem, Stages};
use vouchsafe::store::{StoreError, StoreErrorKind, Versions};

use super::fake::Fake;
use super::moto::{Moto, boto3};
use super::rotator::{APART, ITEM, Rotator, apart, author, by_label, done, secret, text, versions};

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
fn a_version_is_adopted_before_another_one_is_made() {
    let fake = with(&["old"]);
    let rotator = Rotator::new(&fake);
    let item = by_label();
    let staged = done(rotator.staged(&item));
    assert!(staged.is_unmarked && staged.current.as_ref().unwrap().number == 1 && staged.pending.is_none());
    rotator.holding(|store| {
        // Without being asked to.
        assert_eq!(done(store.stage_pending(&item, &secret("new"), &author(), rotator.deadline())), 2);
        let targets: Vec<_> = fake.records().into_iter().map(|record| record.target).collect();
        let (label, put) = (
            targets.iter().position(|target| target == "LabelParameterVersion").unwrap(),
            targets.iter().rposition(|target| target == "PutParameter").unwrap(),
        );
        assert!(label < put, "{targets:?}");
        assert_eq!(versions(&fake, ITEM), ["1 old current", "2 new pending"]);
        assert_eq!(rotator.current().as_deref(), Some("old"));
        let moved = is_moved(store.stage_pending(&item, &secret("x"), &author(), rotator.deadline()));
        assert!(moved.contains("version 2 is pending, version 1 is current"), "{moved}");
        let read = |store: &mut dyn Stages, stage| done(store.read(&item, stage, rotator.deadline()));
        assert_eq!(text(&read(store, Stage::Pending).unwrap().value), "new");
        assert_eq!(text(&read(store, Stage::Current).unwrap().value), "old");
        assert!(read(store, Stage::Previous).is_none());
        assert_eq!(done(store.promote(&item, 2, &author(), rotator.deadline())), 2);
        assert_eq!(done(store.promote(&item, 2, &author(), rotator.deadline())), 2, "again");
        let previous = read(store, Stage::Previous).unwrap();
        assert_eq!((text(&previous.value).as_str(), previous.version), ("old", Some(1)));
        assert!(read(store, Stage::Pending).is_none(), "what is current is not pending");
    });
    assert_eq!(rotator.told(&item), "2 - 1");
    assert!(!done(rotator.staged(&item)).is_unmarked);
    let history = done(rotator.open().history(&item.item, rotator.deadline()));
    let stages: Vec<_> = history.iter().map(|note| note.stage).collect();
    assert_eq!(stages, [Some(Stage::Previous), Some(Stage::Current)]);
    assert!(rotator.request_ids() > 10, "the calls are found in CloudTrail");
}

fn every_operation_is_refused_for_a_version_that_was_not_meant(item: &StagedItem) {
    let fake = with(&["zero", "old"]);
    let rotator = Rotator::new(&fake);
    done(rotator.rotate(item, "new"));
    rotator.holding(|store| {
        let deadline = || rotator.deadline();
        is_moved(store.promote(item, 9, &author(), deadline()));
        is_moved(store.roll_back(item, 1, &author(), deadline()));
        is_moved(store.drop_previous(item, 1, deadline()).map(|()| 0));
        let number = done(store.stage_pending(item, &secret("newer"), &author(), deadline()));
        is_moved(store.roll_back(item, 2, &author(), deadline()));
        is_moved(store.discard_pending(item, number + 1, deadline()).map(|()| 0));
        done(store.discard_pending(item, number, deadline()));
        done(store.discard_pending(item, number, deadline()));
        is_moved(store.promote(item, number, &author(), deadline()));
        done(store.drop_previous(item, 2, deadline()));
        done(store.drop_previous(item, 2, deadline()));
        is_moved(store.roll_back(item, 2, &author(), deadline()));
    });
    assert_eq!((rotator.told(item).as_str(), rotator.current().as_deref()), ("3 - -", Some("new")));
}

#[test]
fn what_was_not_meant_is_refused() {
    every_operation_is_refused_for_a_version_that_was_not_meant(&by_label());
    every_operation_is_refused_for_a_version_that_was_not_meant(&apart());
}

#[test]
fn a_discarded_version_is_neither_read_nor_taken_for_a_new_one() {
    let fake = with(&["old"]);
    let rotator = Rotator::new(&fake);
    let item = by_label();
    for value in ["bad", "worse"] {
        rotator.holding(|store| {
            let number = done(store.stage_pending(&item, &secret(value), &author(), rotator.deadline()));
            done(store.discard_pending(&item, number, rotator.deadline()));
        });
        assert_eq!((rotator.told(&item).as_str(), rotator.current().as_deref()), ("1 - -", Some("old")));
    }
    assert_eq!(versions(&fake, ITEM), ["1 old current", "2 bad", "3 worse discarded"]);
    assert_eq!(done(rotator.rotate(&item, "new")), 4);
    assert_eq!(rotator.told(&item), "4 - 1");
    rotator.holding(|store| assert_eq!(done(store.roll_back(&item, 1, &author(), rotator.deadline())), 1));
    assert_eq!((rotator.told(&item).as_str(), rotator.current().as_deref()), ("1 - 4", Some("old")));
    rotator.holding(|store| done(store.drop_previous(&item, 4, rotator.deadline())));
    assert_eq!((rotator.told(&item).as_str(), rotator.current().as_deref()), ("1 - -", Some("old")));
    assert_eq!(done(rotator.rotate(&item, "newer")), 5);
    assert_eq!(rotator.told(&item), "5 - 1");
}

#[test]
fn apart_the_newest_version_is_always_current() {
    let fake = with(&["old"]);
    let rotator = Rotator::new(&fake);
    let item = apart();
    rotator.holding(|store| {
        assert_eq!(done(store.stage_pending(&item, &secret("new"), &author(), rotator.deadline())), 1);
        assert_eq!(rotator.newest().as_deref(), Some("old"));
        assert_eq!(text(&done(store.read(&item, Stage::Pending, rotator.deadline())).unwrap().value), "new");
        assert_eq!(done(store.promote(&item, 1, &author(), rotator.deadline())), 2);
    });
    assert_eq!(versions(&fake, ITEM), ["1 old replaced", "2 new"]);
    assert_eq!((rotator.newest(), rotator.current()), (Some("new".into()), Some("new".into())));
    rotator.holding(|store| {
        assert_eq!(done(store.roll_back(&item, 1, &author(), rotator.deadline())), 3);
        assert_eq!(done(store.roll_back(&item, 1, &author(), rotator.deadline())), 3, "again");
    });
    assert_eq!(versions(&fake, ITEM), ["1 old", "2 new replaced", "3 old"]);
    assert_eq!((rotator.newest().as_deref(), rotator.told(&item).as_str()), (Some("old"), "3 - 2"));
    let history = done(rotator.open().history(&item.item, rotator.deadline()));
    let stages: Vec<_> = history.iter().map(|note| note.stage).collect();
    assert_eq!(stages, [None, Some(Stage::Previous), Some(Stage::Current)]);
    // What another tool wrote meanwhile is not written over.
    rotator.holding(|store| {
        let number = done(store.stage_pending(&item, &secret("newer"), &author(), rotator.deadline()));
        fake.secure(ITEM, "theirs");
        is_moved(store.promote(&item, number, &author(), rotator.deadline()));
        assert_eq!(rotator.newest().as_deref(), Some("theirs"));
        done(store.discard_pending(&item, number, rotator.deadline()));
    });
    assert_eq!(done(rotator.rotate(&item, "newest")), 5);
    assert_eq!(rotator.told(&item), "5 - 4");
    assert_eq!(versions(&fake, APART).len(), 3);
    // Removed and made anew, it counts from 1 again: nothing waits for it.
    fake.world().ssm.parameters.remove(ITEM);
    assert_eq!(rotator.told(&item), "- - -");
    fake.secure(ITEM, "anew");
    assert_eq!(rotator.told(&item), "1 - -");
}

#[test]
fn from_labels_to_apart_and_back() {
    let fake = with(&["old"]);
    let rotator = Rotator::new(&fake);
    done(rotator.rotate(&by_label(), "new"));
    assert!(done(rotator.staged(&apart())).is_unmarked);
    assert_eq!(done(rotator.rotate(&apart(), "newer")), 3);
    assert_eq!(versions(&fake, ITEM), ["1 old", "2 new replaced", "3 newer"]);
    assert_eq!(rotator.current().as_deref(), Some("newer"));
    assert!(done(rotator.staged(&by_label())).is_unmarked);
    assert_eq!(done(rotator.rotate(&by_label(), "newest")), 4);
    assert_eq!(versions(&fake, ITEM), ["1 old", "2 new replaced", "3 newer previous", "4 newest current+pending"]);
    // Not in the middle.
    rotator.holding(|store| {
        done(store.stage_pending(&by_label(), &secret("x"), &author(), rotator.deadline()));
        let error = store.stage_pending(&apart(), &secret("x"), &author(), rotator.deadline()).unwrap_err();
        assert!(error.to_string().contains("separate") && error.hint().unwrap().contains("--resume"), "{error}");
        assert!(store.adopt(&apart(), rotator.deadline()).is_err());
    });
    assert!(rotator.staged(&apart()).is_err());
    assert_eq!(versions(&fake, APART).len(), 1);
}

#[test]
fn a_label_that_was_taken_off_by_hand_stops_readers_and_rotation() {
    let fake = with(&["old"]);
    let rotator = Rotator::new(&fake);
    done(rotator.rotate(&by_label(), "new"));
    fake.world().ssm.parameters.get_mut(ITEM).unwrap().versions[1].labels.remove("vouchsafe-current");
    assert_eq!(rotator.current(), None);
    let error = rotator.staged(&by_label()).unwrap_err();
    assert!(error.to_string().contains("none of them is current"), "{error}");
}

#[test]
fn the_text_of_a_description_stays() {
    let fake = with(&["old"]);
    fake.world().ssm.parameters.get_mut(ITEM).unwrap().versions[0].description = "of the payments team".into();
    let rotator = Rotator::new(&fake);
    done(rotator.rotate(&by_label(), "new"));
    done(rotator.rotate(&by_label(), "newer"));
    done(rotator.rotate(&apart(), "apart"));
    let world = fake.world();
    let described: Vec<_> =
        world.ssm.parameters[ITEM].versions.iter().map(|version| version.description.as_str()).collect();
    assert_eq!(
        described,
        [
            "of the payments team",
            "of the payments team [vouchsafe rotate: after version 1]",
            "of the payments team [vouchsafe rotate: after version 2]",
            "of the payments team [vouchsafe rotate: after version 3, from pending version 1]"
        ]
    );
}

#[test]
fn the_calls_of_a_rotation_are_counted() {
    for (item, first, each) in [
        (
            by_label(),
            // The claim, and its end; adopting, once.
            vec![
                "GetParameter",
                "PutParameter",
                "GetParameterHistory",
                "GetParameterHistory",
                "LabelParameterVersion",
                "GetParameterHistory",
                "PutParameter",
                "LabelParameterVersion",
                "GetParameterHistory",
                "GetParameter",
                "GetParameterHistory",
                "LabelParameterVersion",
                "LabelParameterVersion",
                "PutParameter",
            ],
            vec![
                "GetParameterHistory",
                "GetParameterHistory",
                "PutParameter",
                "LabelParameterVersion",
                "GetParameterHistory",
                "GetParameter",
                "GetParameterHistory",
                "LabelParameterVersion",
                "LabelParameterVersion",
            ],
        ),
        (
            apart(),
            vec![
                "GetParameter",
                "PutParameter",
                "GetParameterHistory",
                "GetParameterHistory",
                "GetParameterHistory",
                "GetParameterHistory",
                "PutParameter",
                "GetParameterHistory",
                "GetParameterHistory",
                "GetParameter",
                "GetParameterHistory",
                "GetParameterHistory",
                "GetParameter",
                "LabelParameterVersion",
                "PutParameter",
                "GetParameterHistory",
                "PutParameter",
            ],
            vec![
                "GetParameterHistory",
                "GetParameterHistory",
                "GetParameterHistory",
                "GetParameterHistory",
                "PutParameter",
                "GetParameterHistory",
                "GetParameterHistory",
                "GetParameter",
                "GetParameterHistory",
                "GetParameterHistory",
                "GetParameter",
                "LabelParameterVersion",
                "PutParameter",
                "GetParameterHistory",
            ],
        ),
    ] {
        let fake = with(&["old"]);
        // That the account is asked for once is part of the count.
        let rotator = Rotator::new(&fake);
        done(rotator.rotate(&item, "new"));
        let targets = |fake: &Fake| fake.records().into_iter().map(|record| record.target).collect::<Vec<_>>();
        assert_eq!(targets(&fake), first);
        rotator.holding(|store| {
            fake.forget();
            done(rotator.rotate_in(store, &item, "newer"));
            assert_eq!(targets(&fake), each);
        });
    }
}

#[test]
fn in_another_account_nothing_is_taken_written_or_labelled() {
    let fake = with(&["old"]);
    let rotator = Rotator::new(&fake).pinned("999999999999");
    assert!(rotator.rotate(&by_label(), "new").is_err());
    assert_eq!(fake.count("PutParameter") + fake.count("LabelParameterVersion"), 0);
    let rotator = Rotator::new(&fake).pinned("111122223333");
    fake.forget();
    done(rotator.rotate(&by_label(), "new"));
    assert_eq!(fake.count("GetCallerIdentity"), 1, "for each key that it signs with, once");
}

#[test]
fn moto_is_rotated_and_boto3_reads_it() {
    let Some(moto) = Moto::start() else { return };
    boto3(
        &moto.endpoint,
        &format!("ssm.put_parameter(Name='{ITEM}', Value='old', Type='SecureString', Description='mine')\n"),
    );
    let rotator = Rotator::at(&moto.endpoint);
    assert_eq!(done(rotator.rotate(&by_label(), "new")), 2);
    assert_eq!(done(rotator.rotate(&by_label(), "newer")), 3);
    rotator.holding(|store| assert_eq!(done(store.roll_back(&by_label(), 2, &author(), rotator.deadline())), 2));
    assert_eq!((rotator.told(&by_label()).as_str(), rotator.current().as_deref()), ("2 - 3", Some("new")));
    let told = boto3(
        &moto.endpoint,
        &format!(
            "for p in ssm.get_parameter_history(Name='{ITEM}', WithDecryption=True)['Parameters']:\n\
             \x20   print(p['Version'], p['Value'], ' '.join(sorted(p['Labels'])), p['Type'], p.get('Description'), sep='|')\n"
        ),
    );
    assert_eq!(
        told,
        "1|old||SecureString|mine\n\
         2|new|vouchsafe-current|SecureString|mine [vouchsafe rotate: after version 1]\n\
         3|newer|vouchsafe-discarded vouchsafe-previous|SecureString|mine [vouchsafe rotate: after version 2]"
    );
    boto3(
        &moto.endpoint,
        &format!(
            "ssm.delete_parameter(Name='{ITEM}')\nssm.put_parameter(Name='{ITEM}', Value='old', Type='SecureString')\n"
        ),
    );
    assert_eq!(done(rotator.rotate(&apart(), "new")), 2);
    assert_eq!(done(rotator.rotate(&apart(), "newer")), 3);
    rotator.holding(|store| assert_eq!(done(store.roll_back(&apart(), 2, &author(), rotator.deadline())), 4));
    assert_eq!((rotator.told(&apart()).as_str(), rotator.newest().as_deref()), ("4 - 3", Some("new")));
}
