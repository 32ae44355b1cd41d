//! What is noted as exposed, what comes of it, and how it is written.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::secret::Secret;
use crate::store::scratch::{environment, item, secret};

const EVE: &str = "age1eve";

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn set(document: &mut Document, name: &str, value: &str) -> u64 {
    document.set(&item(name), secret(value), "me", at(1)).unwrap()
}

fn states(document: &Document) -> Vec<(String, u64, ExposedState)> {
    document.exposed().into_iter().map(|one| (one.item.to_string(), one.number, one.state)).collect()
}

/// `A` with two versions, `B` with one, both exposed.
fn exposed() -> Document {
    let mut document = Document::new(environment("prod"), None);
    for (name, value) in [("A", "a1"), ("A", "a2"), ("B", "b1")] {
        set(&mut document, name, value);
    }
    document.expose(EVE, at(5)).unwrap();
    document
}

#[test]
fn a_value_is_due_until_another_one_is_current() {
    use ExposedState::{Due, Gone, Previous};
    let mut document = exposed();
    assert_eq!(states(&document), [("A".into(), 2, Due), ("B".into(), 1, Due)]);
    assert_eq!(set(&mut document, "A", "a3"), 3);
    assert_eq!(states(&document), [("A".into(), 2, Previous(2)), ("B".into(), 1, Due)]);
    document.drop_replaced();
    assert_eq!(states(&document).len(), 2, "a rollback would bring it back, so the note stands");
    document.rollback(&item("A")).unwrap();
    assert_eq!(states(&document)[0].2, Due);
    document.rollback(&item("A")).unwrap();
    set(&mut document, "A", "a4");
    assert_eq!(states(&document)[0].2, Gone);
    document.drop_replaced();
    assert_eq!(states(&document), [("B".into(), 1, Due)]);
    set(&mut document, "B", "b2");
    set(&mut document, "B", "b3");
    document.drop_replaced();
    assert!(document.notes.is_empty());
}

#[test]
fn the_same_value_again_is_no_other_value() {
    let mut document = exposed();
    for number in 3..6 {
        assert_eq!(set(&mut document, "A", "a2"), number);
        assert_eq!(states(&document)[0], ("A".into(), number, ExposedState::Due));
    }
    assert_eq!(set(&mut document, "A", "a6"), 6);
    assert_eq!(states(&document)[0].2, ExposedState::Previous(5));
    // Back to what it was, over the other one.
    assert_eq!(set(&mut document, "A", "a2"), 7);
    assert_eq!(states(&document)[0].2, ExposedState::Due);
}

#[test]
fn no_number_that_was_exposed_is_given_again() {
    let mut document = exposed();
    document.remove(&item("B")).unwrap();
    assert_eq!(states(&document)[1].2, ExposedState::Removed);
    assert_eq!(set(&mut document, "B", "b2"), 2);
    assert_eq!(states(&document)[1].2, ExposedState::Gone);
    let mut document = Document::new(environment("prod"), None);
    document.stage_pending(&item("P"), secret("p1"), "me", at(1)).unwrap();
    document.expose(EVE, at(5)).unwrap();
    assert_eq!(states(&document), [("P".into(), 1, ExposedState::Due)], "a pending one will be used");
    document.discard_pending(&item("P")).unwrap();
    assert_eq!(set(&mut document, "P", "p2"), 2);
    assert_eq!(states(&document)[0].2, ExposedState::Gone);
}

#[test]
fn a_second_note_of_the_same_recipient_changes_nothing() {
    let mut document = exposed();
    set(&mut document, "A", "a3");
    set(&mut document, "C", "c1");
    document.expose(EVE, at(9)).unwrap();
    assert_eq!(states(&document), [("A".into(), 2, ExposedState::Previous(2)), ("B".into(), 1, ExposedState::Due)]);
    assert_eq!(document.exposed()[0].since, at(5));
    document.expose("age1mallory", at(9)).unwrap();
    assert_eq!(document.exposed().len(), 5);
}

#[test]
fn who_is_named_again_can_read_what_is_written_then() {
    let mut document = exposed();
    set(&mut document, "A", "a3");
    set(&mut document, "C", "c1");
    document.expose_again(|recipient| recipient == "age1other");
    assert_eq!(document.exposed().len(), 2);
    document.expose_again(|recipient| recipient == EVE);
    assert_eq!(states(&document).iter().map(|one| one.1).collect::<Vec<_>>(), [3, 1, 1]);
    assert!(document.exposed().iter().all(|one| one.state.is_due()));
    assert!(document.trust_again(|recipient| recipient == "age1other").is_empty());
    assert_eq!(document.trust_again(|recipient| recipient == EVE), [EVE]);
    assert!(document.exposed().is_empty());
}

#[test]
fn an_empty_document_exposes_nothing() {
    let mut document = Document::new(environment("prod"), None);
    document.expose(EVE, at(1)).unwrap();
    assert!(document.notes.is_empty());
}

#[test]
fn notes_are_written_as_the_specification_shows() {
    let mut document = exposed();
    document.expose("arn:aws:kms:eu-west-1:111122223333:key/1", at(1_700_000_000)).unwrap();
    let text = document.to_plaintext();
    let head = std::str::from_utf8(text.expose()).unwrap().split("\"items\":{\n\"A\":{").next().unwrap().to_owned();
    assert_eq!(
        head,
        r#"{"format":"vouchsafe-sealed/1",
"environment":"prod",
"service":null,
"generation":0,
"exposed":[
{"recipient":"age1eve","time":"1970-01-01T00:00:05Z","items":{
 "A":2,
 "B":1}},
{"recipient":"arn:aws:kms:eu-west-1:111122223333:key/1","time":"2023-11-14T22:13:20Z","items":{
 "A":2,
 "B":1}}],
"#
    );
    let back = Document::parse(text.expose()).unwrap();
    assert_eq!(back.notes, document.notes);
    assert!(back.to_plaintext().same_as(&text));
}

#[test]
fn malformed_notes_are_told_by_their_place_alone() {
    let with = |exposed: &str| {
        format!(
            "{{\"format\":\"vouchsafe-sealed/1\",\"environment\":\"prod\",\"service\":null,\"generation\":1,\n\
             \"exposed\":{exposed},\"items\":{{}}}}"
        )
    };
    let note = r#"{"recipient":"age1s3cret","time":"2023-11-14T22:13:21Z","items":{"a":1}}"#;
    assert!(Document::parse(with("[]").as_bytes()).is_ok());
    assert!(Document::parse(with(&format!("[{note}]")).as_bytes()).is_ok());
    for (exposed, why) in [
        ("null".to_owned(), "a field is unknown"),
        (note.to_owned(), "a field is unknown"),
        (format!("[{note},{note}]"), "a name is given twice"),
        (format!("[{}]", note.replace(":1}", ":0}")), "not a note of what was exposed"),
        (format!("[{}]", note.replace(":1}", ":-1}")), "a field is unknown"),
        (format!("[{}]", note.replace("\"a\":1", "")), "not a note of what was exposed"),
        (format!("[{}]", note.replace("\"a\":1", "\"a\":1,\"a\":1")), "a name is given twice"),
        (format!("[{}]", note.replace("\"a\"", "\" s3cret\"")), "not a valid item name"),
        (format!("[{}]", note.replace("age1s3cret", "age1 s3cret")), "not a note of what was exposed"),
        (format!("[{}]", note.replace("age1s3cret", "")), "not a note of what was exposed"),
        (format!("[{}]", note.replace("age1s3cret", &"s".repeat(MAX_RECIPIENT + 1))), "not a note of what was exposed"),
        (format!("[{}]", note.replace("22:13", "s3cret")), "not a time"),
        (format!("[{}]", note.replace("\"time\"", "\"s3cret\"")), "a field is unknown"),
    ] {
        let Err(malformed) = Document::parse(with(&exposed).as_bytes()) else { panic!("parsed: {exposed}") };
        assert!(malformed.why.starts_with(why), "{exposed}: {malformed}");
        assert!(malformed.line == 2 && !malformed.to_string().contains("s3cret"), "{malformed}");
    }
}

#[test]
fn there_are_no_more_notes_than_can_be_read_again() {
    let mut document = exposed();
    for number in 1..MAX_NOTES {
        document.expose(&format!("age1n{number}"), at(1)).unwrap();
    }
    assert!(Document::parse(document.to_plaintext().expose()).is_ok());
    assert_eq!(document.expose("age1more", at(1)), Err(DocumentError::TooManyNotes));
    document.expose(EVE, at(1)).unwrap();
    let one = document.notes[0].clone();
    document.notes.push(Note { recipient: "age1more".into(), ..one });
    let Err(malformed) = Document::parse(document.to_plaintext().expose()) else { panic!("parsed") };
    assert_eq!(malformed.why, "more than 64 notes of what was exposed");
}

/// What may happen to an item, each time with a value that was never there.
#[derive(Debug, Clone, Copy)]
enum Step {
    Set,
    Stage,
    Promote,
    Discard,
    RollBack,
    Remove,
    Expose,
    NameAgain,
    DropReplaced,
}

fn any_step() -> impl Strategy<Value = Step> {
    use Step::{Discard, DropReplaced, Expose, NameAgain, Promote, Remove, RollBack, Set, Stage};
    prop_oneof![
        3 => Just(Set), 2 => Just(Stage), 2 => Just(Promote), 1 => Just(Discard), 1 => Just(RollBack), 1 => Just(Remove),
        1 => Just(Expose), 1 => Just(NameAgain), 1 => Just(DropReplaced)
    ]
}

proptest! {
    /// Whatever is done: an item is due exactly while it is going to be used with a value that the recipient has seen.
    #[test]
    fn what_is_due_is_what_was_seen(steps in proptest::collection::vec((any_step(), 0..3_usize), 0..60)) {
        let mut document = Document::new(environment("prod"), None);
        let mut seen: BTreeSet<Vec<u8>> = BTreeSet::new();
        let see = |document: &Document, seen: &mut BTreeSet<Vec<u8>>| {
            let versions = document.items().flat_map(|(_, item)| item.versions());
            seen.extend(versions.map(|(_, version)| version.value.expose().to_vec()));
        };
        for (serial, (step, which)) in steps.into_iter().enumerate() {
            let name = item(["a", "b", "c"][which]);
            let value = Secret::new(format!("value {serial}").into_bytes());
            let is_noted = !document.notes.is_empty();
            match step {
                Step::Set => drop(document.set(&name, value, "me", at(1))),
                Step::Stage => drop(document.stage_pending(&name, value, "me", at(1))),
                Step::Promote => drop(document.promote(&name, SystemTime::UNIX_EPOCH)),
                Step::Discard => drop(document.discard_pending(&name)),
                Step::RollBack => drop(document.rollback(&name)),
                Step::Remove => drop(document.remove(&name)),
                Step::Expose if !is_noted => {
                    document.expose(EVE, at(2)).unwrap();
                    see(&document, &mut seen);
                }
                Step::NameAgain if is_noted => {
                    document.expose_again(|recipient| recipient == EVE);
                    see(&document, &mut seen);
                }
                Step::Expose | Step::NameAgain => {}
                Step::DropReplaced => document.drop_replaced(),
            }
            let has_seen = |name: &ItemName, stage| {
                document.get(name, None, Some(stage)).is_some_and(|(_, version)| seen.contains(version.value.expose()))
            };
            for (name, _) in document.items() {
                let noted = document.exposed().into_iter().find(|one| one.item == *name);
                let is_used = has_seen(name, Stage::Current) || has_seen(name, Stage::Pending);
                prop_assert_eq!(noted.as_ref().is_some_and(|one| one.state.is_due()), is_used, "{:?} {}", step, name);
                let is_kept = !is_used && has_seen(name, Stage::Previous);
                let is_previous = noted.is_some_and(|one| matches!(one.state, ExposedState::Previous(_)));
                prop_assert_eq!(is_previous, is_kept, "{:?} {}", step, name);
            }
            let text = document.to_plaintext();
            prop_assert!(Document::parse(text.expose()).unwrap().to_plaintext().same_as(&text));
        }
    }
}
