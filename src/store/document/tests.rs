//! Documents: reading, writing, stages, limits.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::*;
use crate::store::scratch::{environment, item, secret, service};

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn document() -> Document {
    Document::new(environment("prod"), Some(service("api")))
}

fn parse(text: &str) -> Malformed {
    match Document::parse(text.as_bytes()) {
        Ok(_) => panic!("parsed: {text}"),
        Err(malformed) => malformed,
    }
}

fn value_at<'a>(document: &'a Document, name: &str, stage: Stage) -> Option<&'a [u8]> {
    document.get(&item(name), None, Some(stage)).map(|(_, version)| version.value.expose())
}

#[test]
fn what_is_written_is_what_the_specification_shows() {
    let mut document = document();
    document.set(&item("DATABASE_URL"), secret("one"), "alice", at(1_700_000_000)).unwrap();
    document.set(&item("DATABASE_URL"), secret("a \"b\"\n\\ é"), "bob", at(1_700_000_001)).unwrap();
    document.stage_pending(&item("KEY"), Secret::new(vec![0xff, 0, 1]), "bob", at(1_700_000_002)).unwrap();
    document.generation = 3;
    let text = document.to_plaintext();
    assert_eq!(
        std::str::from_utf8(text.expose()).unwrap(),
        r#"{"format":"vouchsafe-sealed/1",
"environment":"prod",
"service":"api",
"generation":3,
"items":{
"DATABASE_URL":{
 "current":{"number":2,"time":"2023-11-14T22:13:21Z","author":"bob","value":"a \"b\"\n\\ é"},
 "previous":{"number":1,"time":"2023-11-14T22:13:20Z","author":"alice","value":"one"}},
"KEY":{
 "pending":{"number":1,"time":"2023-11-14T22:13:22Z","author":"bob","base64":"/wAB"}}}}
"#
    );
    assert!(Document::parse(text.expose()).unwrap().to_plaintext().same_as(&text));
}

#[test]
fn versions_move_through_the_stages() {
    let mut document = document();
    let name = item("db");
    assert_eq!(document.set(&name, secret("1"), "a", at(1)), Ok(1));
    assert_eq!(document.set(&name, secret("2"), "a", at(2)), Ok(2));
    assert_eq!(document.stage_pending(&name, secret("3"), "a", at(3)), Ok(3));
    assert_eq!(value_at(&document, "db", Stage::Current), Some(&b"2"[..]), "a pending version reaches nobody");
    assert!(document.get(&name, Some(3), None).is_none(), "nor by its number");
    assert!(document.get(&name, Some(3), Some(Stage::Pending)).is_some());
    let pending = DocumentError::Pending { item: name.clone(), number: 3 };
    assert_eq!(document.set(&name, secret("x"), "a", at(4)), Err(pending.clone()));
    assert_eq!(document.stage_pending(&name, secret("x"), "a", at(4)), Err(pending.clone()));
    assert_eq!(document.rollback(&name), Err(pending.clone()));
    assert_eq!(document.remove(&name).err(), Some(pending), "a target may accept it already");
    assert_eq!(document.promote(&name, SystemTime::now()), Ok(3));
    assert_eq!(value_at(&document, "db", Stage::Current), Some(&b"3"[..]));
    assert_eq!(value_at(&document, "db", Stage::Previous), Some(&b"2"[..]));
    assert_eq!(document.promote(&name, SystemTime::now()), Err(DocumentError::NoPending(name.clone())));
    assert_eq!(document.rollback(&name), Ok(2));
    assert_eq!(value_at(&document, "db", Stage::Previous), Some(&b"3"[..]));
    assert_eq!(document.set(&name, secret("4"), "a", at(5)), Ok(4), "no number is given twice");
    assert!(document.get(&name, Some(2), Some(Stage::Current)).is_none());
    assert!(matches!(document.get(&name, Some(2), None), Some((Stage::Previous, _))));
    assert!(document.remove(&name).is_ok());
    assert!(matches!(document.remove(&name), Err(DocumentError::Absent(_))));
}

#[test]
fn a_first_pending_version_can_be_taken_back() {
    let mut document = document();
    document.stage_pending(&item("new"), secret("1"), "a", at(1)).unwrap();
    assert!(document.get(&item("new"), None, None).is_none());
    assert_eq!(document.discard_pending(&item("new")).unwrap().number, 1);
    assert!(document.item(&item("new")).is_none());
    document.set(&item("new"), secret("1"), "a", at(1)).unwrap();
    assert!(matches!(document.rollback(&item("new")), Err(DocumentError::NoPrevious(_))));
}

#[test]
fn limits_hold_on_the_way_in_and_on_the_way_out() {
    let mut document = document();
    let big = |length| Secret::new(vec![b'x'; length]);
    assert!(document.set(&item("a"), big(MAX_VALUE), "a", at(1)).is_ok());
    assert!(matches!(document.set(&item("a"), big(MAX_VALUE + 1), "a", at(1)), Err(DocumentError::ValueTooLarge(_))));
    for author in ["", "a\nb", "\u{202e}", &"a".repeat(MAX_AUTHOR + 1)] {
        assert_eq!(document.set(&item("a"), secret("x"), author, at(1)), Err(DocumentError::Author));
    }
    assert!(Document::parse(document.to_plaintext().expose()).is_ok());
    for index in 1..MAX_ITEMS {
        document.set(&item(&format!("item{index}")), secret(""), "a", at(1)).unwrap();
    }
    assert_eq!(document.set(&item("one more"), secret(""), "a", at(1)), Err(DocumentError::TooManyItems));
    let text = String::from_utf8(document.to_plaintext().expose().to_vec()).unwrap();
    assert!(Document::parse(text.as_bytes()).is_ok());
    let one = r#"{"current":{"number":1,"time":"2023-11-14T22:13:21Z","author":"a","value":""}}"#;
    assert_eq!(parse(&text.replace("}}}}", &format!("}}}},\n\"one more\":{one}}}}}"))).why, "more than 10000 items");
    let long = format!("\"value\":\"{}\"", "x".repeat(MAX_VALUE + 1));
    assert_eq!(parse(&minimal(&one.replace("\"value\":\"\"", &long))).why, "a value is over the limit of 131072 bytes");
    let long = format!("\"base64\":\"{}\"", "AAAA".repeat(MAX_VALUE / 3 + 2));
    assert_eq!(parse(&minimal(&one.replace("\"value\":\"\"", &long))).why, "a value is over the limit of 131072 bytes");
}

fn minimal(an_item: &str) -> String {
    format!(
        "{{\"format\":\"vouchsafe-sealed/1\",\"environment\":\"prod\",\"service\":null,\"generation\":1,\n\"items\":{{\"a\":{an_item}}}}}"
    )
}

#[test]
fn what_is_malformed_is_told_by_its_place_alone() {
    let version = r#"{"number":1,"time":"2023-11-14T22:13:21Z","author":"a","value":"s3cret"}"#;
    assert!(Document::parse(minimal(&format!("{{\"current\":{version}}}")).as_bytes()).is_ok());
    let cases = [
        ("{}".to_owned(), "an item has a current or a pending version"),
        (format!("{{\"previous\":{version}}}"), "an item has a current or a pending version"),
        (format!("{{\"current\":{version},\"previous\":{version}}}"), "version numbers start at 1"),
        (format!("{{\"current\":{}}}", version.replace(":1,", ":0,")), "version numbers start at 1"),
        (format!("{{\"current\":{version},\"s3cret\":1}}"), "a field is unknown"),
        (format!("{{\"current\":{version},\"current\":{version}}}"), "a field is unknown, missing, given twice"),
        (format!("{{\"current\":{version}}},\"a\":{{\"current\":{version}}}"), "a name is given twice"),
        (format!("{{\"current\":{version}}},\" s3cret\":{{\"current\":{version}}}"), "not a valid item name"),
        (format!("{{\"current\":{}}}", version.replace("\"value\"", "\"base64\"")), "not valid base64"),
        (format!("{{\"current\":{}}}", version.replace("\"s3cret\"", "null")), "a version has either"),
        (format!("{{\"current\":{}}}", version.replace("22:13", "s3cret")), "not a time"),
        (format!("{{\"current\":{}}}", version.replace("\"a\"", "\"\\u001b\"")), "not a valid author"),
        (format!("{{\"current\":{}}}", version.replace("\"s3cret\"", "s3cret")), "not valid JSON"),
        ("\"s3cret\"".to_owned(), "a field is unknown, missing, given twice or of the wrong type"),
    ];
    for (item, why) in cases {
        let malformed = parse(&minimal(&item));
        assert!(malformed.why.starts_with(why), "{item}: {malformed}");
        assert!(malformed.line == 2 && !malformed.to_string().contains("s3cret"), "{malformed}");
    }
    assert_eq!(parse("").why, "not valid JSON");
    assert_eq!(parse("DATABASE_URL=s3cret").why, "not valid JSON");
    assert!(parse(&minimal("{}").replace("sealed/1", "sealed/2")).why.starts_with("another format"));
    assert_eq!(parse(&(minimal(&format!("{{\"current\":{version}}}")) + "s3cret")).why, "not valid JSON");
}

#[test]
fn a_document_opens_only_where_it_belongs() {
    let (prod, dev, api, web) = (environment("prod"), environment("dev"), service("api"), service("web"));
    let of_api = document();
    let of_all = Document::new(prod.clone(), None);
    assert!(of_api.matches(&prod, Some(&api)).is_ok());
    assert!(of_all.matches(&prod, Some(&api)).is_ok() && of_all.matches(&prod, None).is_ok());
    let message = |result: Result<(), Mismatch>| result.unwrap_err().to_string();
    assert_eq!(message(of_api.matches(&dev, Some(&api))), "it belongs to environment `prod`, not to `dev`");
    assert_eq!(message(of_all.matches(&dev, None)), "it belongs to environment `prod`, not to `dev`");
    assert_eq!(message(of_api.matches(&prod, Some(&web))), "it belongs to service `api`, not to `web`");
    assert_eq!(message(of_api.matches(&prod, None)), "it belongs to service `api`, and the policy names no service");
}

#[test]
fn a_clock_that_is_off_stops_no_write() {
    let mut document = document();
    for time in [at(0) - Duration::from_secs(5), at(u64::MAX / 4), at(1) + Duration::from_nanos(7)] {
        document.set(&item("a"), secret("x"), "a", time).unwrap();
        assert!(Document::parse(document.to_plaintext().expose()).is_ok());
    }
}

proptest! {
    #[test]
    fn any_bytes_come_back(values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..8)) {
        let mut document = document();
        for (index, value) in values.iter().enumerate() {
            document.set(&item(&format!("i{}", index % 3)), Secret::new(value.clone()), "a", at(1)).unwrap();
        }
        let text = document.to_plaintext();
        let back = Document::parse(text.expose()).unwrap();
        for (name, item) in document.items() {
            for (stage, version) in item.versions() {
                prop_assert_eq!(back.item(name).unwrap().stage(stage).unwrap().value.expose(), version.value.expose());
            }
        }
        prop_assert!(back.to_plaintext().same_as(&text));
    }

    #[test]
    fn any_text_comes_back(value in any::<String>()) {
        let mut document = document();
        document.set(&item("a"), secret(&value), "a", at(1)).unwrap();
        let text = document.to_plaintext();
        let back = Document::parse(text.expose()).unwrap();
        prop_assert_eq!(back.get(&item("a"), None, None).unwrap().1.value.expose(), value.as_bytes());
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Document::parse(&bytes).is_err());
    }
}
