//! Tests of the pure parts: names, selectors, batches, paths, values, pages.

use proptest::prelude::*;

use super::*;
use crate::store::is_below;

fn key(name: &str) -> Key {
    Key::new(&ItemName::new(name).unwrap(), None, None)
}

#[test]
fn a_selector_is_a_version_or_a_label() {
    let item = ItemName::new("/prod/api/db").unwrap();
    assert_eq!(Key::new(&item, None, None).request(), "/prod/api/db");
    assert_eq!(Key::new(&item, Some(3), None).request(), "/prod/api/db:3");
    assert_eq!(Key::new(&item, None, Some(Stage::Current)).request(), "/prod/api/db:vouchsafe-current");
    assert_eq!(Key::new(&item, Some(3), Some(Stage::Pending)).request(), "/prod/api/db:3");
}

#[test]
fn a_reply_answers_by_name_and_selector() {
    let item = ItemName::new("/p/a").unwrap();
    let newest = Key::new(&item, None, None);
    let third = Key::new(&item, Some(3), None);
    let current = Key::new(&item, None, Some(Stage::Current));
    let name = Some("/p/a");
    assert!(newest.is_answered_by(name, None, None, 7));
    assert!(!newest.is_answered_by(name, None, Some(":3"), 3));
    assert!(third.is_answered_by(name, None, Some(":3"), 3));
    assert!(third.is_answered_by(name, None, None, 3), "an emulator sends no selector");
    assert!(!third.is_answered_by(name, None, Some(":3"), 4), "the number must be the one asked for");
    assert!(!third.is_answered_by(name, None, None, 4));
    assert!(current.is_answered_by(name, None, Some(":vouchsafe-current"), 2));
    assert!(!current.is_answered_by(name, None, Some(":vouchsafe-pending"), 2));
    assert!(!newest.is_answered_by(Some("/p/b"), None, None, 1));
    let arn = "arn:aws:ssm:eu-west-1:111122223333:parameter/p/a";
    assert!(key(arn).is_answered_by(name, Some(arn), None, 1));
    assert!(key(arn).is_answered_by(Some(arn), None, None, 1));
    assert!(!key(arn).is_answered_by(name, Some("arn:aws:ssm:eu-west-1:111122223333:parameter/p/b"), None, 1));
}

#[test]
fn batches_hold_ten_and_each_name_once() {
    for (count, sizes) in [(0, vec![]), (1, vec![1]), (10, vec![10]), (11, vec![10, 1]), (25, vec![10, 10, 5])] {
        let dealt = batches((0..count).map(|number| key(&format!("/p/{number}"))));
        assert_eq!(dealt.iter().map(Vec::len).collect::<Vec<_>>(), sizes, "{count}");
    }
    let item = ItemName::new("/p/a").unwrap();
    let same = [Key::new(&item, None, None), Key::new(&item, Some(1), None), Key::new(&item, None, None)];
    assert_eq!(batches(same).iter().map(Vec::len).collect::<Vec<_>>(), [1, 1], "doubles go, selectors part");
}

#[test]
fn our_own_parameters_have_legal_names_and_are_no_items() {
    for (prefix, lock) in [
        ("/prod/api/", "/prod/api/.vouchsafe/rotation"),
        ("/prod/api-", "/prod/api-/.vouchsafe/rotation"),
        ("app.", "/app./.vouchsafe/rotation"),
        ("", "/.vouchsafe/rotation"),
    ] {
        assert_eq!(lock_of(prefix), lock);
        assert_eq!(check_name(lock, "eu-west-1"), Ok(()));
        assert!(is_own(lock), "{lock}");
    }
    for item in ["/prod/api/db", "/prod/vouchsafe/db", "/prod/.vouchsafe-not/db", "/prod/api/.vouchsafer"] {
        assert!(!is_own(item), "{item}");
    }
    assert_eq!(apart("/prod/api/db"), "/prod/api/db.pending");
}

proptest! {
    #[test]
    fn batches_lose_and_double_nothing(names in prop::collection::vec(("[a-c]{1,2}", 0u64..4), 0..80)) {
        let keys: Vec<Key> = names
            .iter()
            .map(|(name, version)| Key::new(&ItemName::new(name.as_str()).unwrap(), Some(*version), None))
            .collect();
        let dealt = batches(keys.clone());
        let mut flat: Vec<Key> = dealt.iter().flatten().cloned().collect();
        let mut wanted = keys;
        let order = |key: &Key| key.request();
        flat.sort_by_key(order);
        wanted.sort_by_key(order);
        wanted.dedup();
        prop_assert_eq!(flat, wanted);
        for batch in dealt {
            let distinct: HashSet<&String> = batch.iter().map(|key| &key.name).collect();
            prop_assert!(batch.len() <= BATCH && distinct.len() == batch.len());
        }
    }
}

#[test]
fn a_path_holds_whole_segments_only() {
    for (name, path, recursive, holds) in [
        ("/app/prod/x", "/app/prod/", false, true),
        ("/app/prod/x", "/app/prod", false, true),
        ("/app/prod/x/y", "/app/prod/", false, false),
        ("/app/prod/x/y", "/app/prod/", true, true),
        ("/app/prod-other/x", "/app/prod/", true, false),
        ("/app/prod", "/app/prod/", true, false),
        ("/app/prod/", "/app/prod/", true, false),
        ("/app/prod/../x", "/app/prod/", true, false),
        ("/app/prod/./x", "/app/prod/", true, false),
        ("/app/prod//x", "/app/prod/", true, false),
        ("/other/x", "/app/prod/", true, false),
        ("app/prod/x", "/app/prod/", true, false),
        ("/x", "/", false, true),
        ("/x/y", "/", false, false),
    ] {
        assert_eq!(is_below(name, path, recursive), holds, "{name} below {path}");
    }
}

#[test]
fn names_are_checked_before_the_call() {
    let fifteen = "/a".repeat(15);
    let longest = format!("/{}", "a".repeat(WITH_ARN - "arn:aws:ssm:eu-west-1:111122223333:parameter/".len()));
    for good in ["a", "/a", "/prod/api/db_url", "db.url-1", "/x/aws", "/x/ssm", &fifteen, &longest] {
        assert_eq!(check_name(good, "eu-west-1"), Ok(()), "{good}");
    }
    for bad in [
        "",
        "/",
        "a b",
        "a$b",
        "é",
        "a:3",
        "a/b",
        "/a//b",
        "/a/",
        "aws",
        "AWSome",
        "/aws/x",
        "/SSM-x",
        "ssm.x",
        "arn:aws:ssm:eu-west-1:111122223333:parameter/x",
        &format!("{fifteen}/a"),
        &format!("{longest}a"),
    ] {
        assert!(check_name(bad, "eu-west-1").is_err(), "{bad}");
    }
}

#[test]
fn values_are_checked_before_the_call() {
    for good in [b"x".to_vec(), vec![b'x'; STANDARD], vec![b'x'; ADVANCED], b"{ {x} }".to_vec()] {
        assert!(check_value(&good).is_ok());
    }
    for bad in [Vec::new(), vec![b'x'; ADVANCED + 1], b"{{ssm:x}}".to_vec(), vec![0xff]] {
        assert!(check_value(&bad).is_err());
    }
}

#[test]
fn pages_end_and_never_go_round() {
    let mut pages = Pages::default();
    assert_eq!(pages.next(Some("a".into())), Ok(Some("a".into())));
    assert_eq!(pages.next(Some("b".into())), Ok(Some("b".into())));
    assert!(matches!(pages.next(Some("a".into())), Err(Problem::BadAnswer(_))));
    assert_eq!(Pages::default().next(None), Ok(None));
    assert_eq!(Pages::default().next(Some(String::new())), Ok(None));
    let mut endless = Pages::default();
    let last = (0..).find(|number: &usize| endless.next(Some(number.to_string())).is_err()).unwrap();
    assert!(last <= MAX_PAGES);
}
