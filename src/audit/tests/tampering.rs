//! Whatever is done to a log, `verify` does not call it intact.

use super::*;
use proptest::prelude::*;

fn fifty() -> (Folder, Vec<u8>) {
    let folder = Folder::new();
    write(&mut folder.auditor(), 50);
    let bytes = read(&folder.log());
    (folder, bytes)
}

/// A log without a head beside it: the chain alone has to tell.
fn state_of(bytes: &[u8]) -> State {
    let report = verify_bytes(bytes, Start::Beginning);
    verdict::assert_one_verdict(&report);
    report.state()
}

/// Changes every byte. Reading is one pass and no finding is ever taken back, so a record's neighbours are enough; the
/// first and the last record are tried within the whole log.
fn change_every_byte(bytes: &[u8]) {
    assert_eq!(state_of(bytes), State::Intact);
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    for at in 0..lines.len() {
        let at_an_end = at == 0 || at + 1 == lines.len();
        let (from, to) = if at_an_end { (0, lines.len()) } else { (at - 1, at + 2) };
        let start = if at_an_end { Start::Beginning } else { Start::Anywhere };
        let (before, whole) = (lines[from..at].concat().len(), lines[from..to].concat());
        assert_eq!(verify_bytes(&whole, start).state(), State::Intact);
        for byte in before..before + lines[at].len() {
            let mut changed = whole.clone();
            changed[byte] ^= 1 << (byte % 7);
            assert_ne!(verify_bytes(&changed, start).state(), State::Intact, "record {at}, byte {}", byte - before);
        }
    }
}

#[test]
fn every_byte_counts() {
    change_every_byte(&fifty().1);
}

#[test]
fn every_byte_of_a_collected_stream_counts() {
    // Without the last newline: a collector may take it.
    let bytes = stream::written(12, 0);
    change_every_byte(&bytes[..bytes.len() - 1]);
}

#[test]
fn lines_removed_repeated_moved_or_put_in_are_found() {
    let (_folder, bytes) = fifty();
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let (_other, foreign) = fifty();
    let foreign: Vec<&[u8]> = foreign.split_inclusive(|byte| *byte == b'\n').collect();
    for at in 0..lines.len() {
        let state = |lines: Vec<&[u8]>| state_of(&lines.concat());
        let with = |at: usize, line| [&lines[..at], &[line], &lines[at..]].concat();
        if at + 1 < lines.len() {
            let mut moved = lines.clone();
            moved.swap(at, at + 1);
            assert_eq!(state(moved), State::Tampered, "moved {at}");
            assert_eq!(state([&lines[..at], &lines[at + 1..]].concat()), State::Incomplete, "removed {at}");
        }
        assert_eq!(state(with(at, lines[at])), State::Tampered, "repeated {at}");
        assert_eq!(state(with(at, b"garbage\n")), State::Tampered, "put in {at}");
        let mut swapped = lines.clone();
        swapped[at] = foreign[at];
        assert_eq!(state(swapped), State::Tampered, "of another host {at}");
    }
    assert_eq!(state_of(b""), State::Incomplete);
}

#[test]
fn a_cut_log_is_found_by_its_head() {
    let (folder, bytes) = fifty();
    assert!(assert_state(&[&folder.log()], State::Intact).head_compared);
    for end in (0..bytes.len()).step_by(97).chain(bytes.len() - 900..bytes.len()) {
        put(&folder.log(), &bytes[..end]);
        assert_ne!(check(&[&folder.log()]).state(), State::Intact, "cut at {end}");
    }
}

#[test]
fn another_log_in_its_place_is_found_by_the_head() {
    let (folder, _) = fifty();
    let (_other, foreign) = fifty();
    put(&folder.log(), &foreign);
    assert_state(&[&folder.log()], State::Incomplete);
}

#[test]
fn one_alteration_is_one_finding_and_says_where() {
    let (folder, bytes) = fifty();
    let text = String::from_utf8(bytes).unwrap().replacen("NAME_9\"", "NAME_8\"", 1);
    put(&folder.log(), text.as_bytes());
    let report = assert_state(&[&folder.log()], State::Tampered);
    assert_eq!(report.findings_total, 1);
    assert_eq!(report.findings[0].line, 10);
    let failure = report.failure().unwrap();
    assert_eq!(crate::error::Cause::class(&failure), crate::error::Class::Tampered);
    assert!(failure.to_string().contains("audit.jsonl:10: the record was altered"), "{failure}");
}

#[test]
fn a_log_that_starts_late_is_incomplete_unless_that_is_meant() {
    let (folder, bytes) = fifty();
    let cut = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let path = folder.0.join("late.jsonl");
    put(&path, &bytes[cut..]);
    assert_state(&[&path], State::Incomplete);
    assert_eq!(verify(&[path], Start::Anywhere, Means::default()).unwrap().state(), State::Intact);
}

#[test]
fn what_is_no_file_is_unreadable() {
    let folder = Folder::new();
    assert!(verify(&[folder.0.join("none")], Start::Beginning, Means::default()).is_err());
    assert!(verify(std::slice::from_ref(&folder.0), Start::Beginning, Means::default()).is_err());
    let fifo = folder.0.join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    assert!(verify(&[fifo], Start::Beginning, Means::default()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn no_bytes_make_verify_or_readers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert_ne!(state_of(&bytes), State::Intact);
        read::tests::read_all(&bytes, |_, _| ());
    }

    #[test]
    fn no_splice_of_a_log_is_intact(from in 0usize..4000, length in 1usize..2000, with in proptest::collection::vec(any::<u8>(), 0..300)) {
        let folder = Folder::new();
        write(&mut folder.auditor(), 10);
        let mut bytes = read(&folder.log());
        let before = bytes.clone();
        let from = from.min(bytes.len());
        let to = (from + length).min(bytes.len());
        bytes.splice(from..to, with);
        put(&folder.log(), &bytes);
        prop_assert!(bytes == before || check(&[&folder.log()]).state() != State::Intact);
    }
}
