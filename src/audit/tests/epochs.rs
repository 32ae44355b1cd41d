//! How epochs of seals begin and end: by whom, for whom, and what a crash in between leaves.

use super::sealing::Auditing;
use super::*;
use crate::audit::verify::FindingKind;

/// Ends the epoch of a folder's log, and begins the next one for nobody in particular.
pub(super) fn next(folder: &Folder) -> Begun {
    let recipient = ::age::x25519::Identity::generate().to_public().to_string();
    seal_anew(folder.log().to_str().unwrap(), &recipient, None, context().actor).unwrap()
}

impl Auditing {
    /// The same auditor, with another seed.
    fn turn(&mut self) -> Begun {
        let begun = seal_anew(self.log().to_str().unwrap(), &self.recipient, None, context().actor).unwrap();
        self.seeds.push(begun.seed.clone());
        begun
    }
}

fn of_lines(lines: &[String]) -> Vec<u8> {
    lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect()
}

#[test]
fn sealing_begins_in_the_name_of_whoever_begins_it() {
    let folder = Folder::new();
    let recipient = ::age::x25519::Identity::generate().to_public().to_string();
    let by = Actor { uid: 4242, user: Some("admin".into()), pid: 77, ..context().actor };
    let begun = seal_log(folder.log().to_str().unwrap(), &recipient, None, by).unwrap();
    write(&mut folder.auditor(), 1);
    let lines = lines(&folder.log());
    assert_eq!(lines.len(), 2);
    let value: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(value["event"], "audit.sealing_begun");
    assert_eq!((&value["actor"]["uid"], &value["actor"]["pid"]), (&4242.into(), &77.into()));
    assert_eq!((&value["epoch"]["id"], &value["epoch"]["auditor"]), (&begun.epoch.into(), &recipient.into()));
    assert!(lines[1].contains("\"uid\":1000"));
}

#[test]
fn a_log_that_is_sealed_for_somebody_else_takes_no_record() {
    let mut auditing = Auditing::sealed(2);
    auditing.recipient = ::age::x25519::Identity::generate().to_public().to_string();
    let before = read(&auditing.log());
    let refused = auditing.demanding().unwrap().record(Event::SecretListed, Outcome::Succeeded, None, &[]).unwrap_err();
    assert!(matches!(refused, AuditError::OtherAuditor { .. }), "{refused}");
    assert!(crate::error::Cause::hint(&refused).unwrap().contains("--new-epoch"));
    assert_eq!(read(&auditing.log()), before);
    auditing.turn();
    write(&mut auditing.demanding().unwrap(), 1);
    assert_eq!(lines(&auditing.log()).len(), 2 + 2 + 1);
}

#[test]
fn an_epoch_that_was_ended_is_no_finding_for_whoever_has_both_seeds() {
    let mut auditing = Auditing::sealed(4);
    let begun = auditing.turn();
    assert_eq!((begun.first, begun.anew), (6, false));
    write(&mut auditing.demanding().unwrap(), 2);
    // And across a rotation, and once more.
    let first = auditing.folder.0.join("audit.jsonl.1");
    std::fs::rename(auditing.log(), &first).unwrap();
    auditing.turn();
    write(&mut auditing.folder.auditor(), 1);
    let logs = [first, auditing.log()];
    let report = auditing.report(&logs);
    assert_eq!((report.state(), report.records, report.sealed), (State::Intact, 11, 11), "{:?}", report.findings);
    let ends = &lines(&logs[0])[4];
    assert!(ends.contains("\"event\":\"audit.sealing_ended\"") && ends.contains(&begun.epoch), "{ends}");
    // Whoever lacks one is told, also where the record that begins it was lost.
    auditing.seeds.truncate(1);
    let whole = read(&logs[0]);
    put(&logs[0], &of_lines(&[&lines(&logs[0])[..5], &lines(&logs[0])[6..]].concat()));
    let (id, lost) = (begun.epoch.clone(), auditing.report(&logs[..1]));
    let found: Vec<_> = lost.findings.iter().map(|finding| finding.kind.clone()).collect();
    assert_eq!(found, [FindingKind::Gap { from: 6, to: 6 }, FindingKind::UnknownEpoch { seq: 7, id }]);
    put(&logs[0], &whole);
    let report = auditing.report(&logs[..1]);
    let found: Vec<_> = report.findings.iter().map(|finding| finding.kind.clone()).collect();
    assert_eq!(found, [FindingKind::UnknownEpoch { seq: 6, id: begun.epoch }]);
}

/// The keys of what was are gone, so nobody can end an epoch earlier than it was ended.
#[test]
fn only_the_keys_of_an_epoch_end_it() {
    let mut auditing = Auditing::sealed(4);
    let (head, seal) = (auditing.folder.0.join("audit.jsonl.head"), auditing.state_file());
    let old = lines(&auditing.log());
    put(&auditing.log(), &of_lines(&old[..2]));
    std::fs::remove_file(head).unwrap();
    std::fs::remove_file(seal).unwrap();
    auditing.init().unwrap();
    auditing.turn();
    write(&mut auditing.folder.auditor(), 1);
    let (state, found) = auditing.found();
    assert_ne!(state, State::Intact, "{found:?}");
}

/// A writer that is killed after the record that ends an epoch and before the state of the next: that state is lost, and the keys
/// of the old epoch are not used beyond its end.
#[test]
fn an_epoch_that_was_ended_is_not_gone_on_with() {
    let mut auditing = Auditing::sealed(4);
    let unsynced = ["audit.jsonl.head", "audit.jsonl.seal"].map(|name| auditing.folder.0.join(name));
    let old = unsynced.clone().map(|path| read(&path));
    let lost = auditing.turn();
    let ended = lines(&auditing.log())[..5].to_vec();
    let crash = |auditing: &Auditing| {
        put(&auditing.log(), &of_lines(&ended));
        unsynced.iter().zip(&old).for_each(|(path, bytes)| put(path, bytes));
    };
    crash(&auditing);
    let refused = auditing.folder.auditor().record(Event::SecretListed, Outcome::Succeeded, None, &[]);
    assert!(matches!(refused, Err(AuditError::SealLost { .. })), "{refused:?}");
    // Its hint.
    auditing.seeds.pop();
    assert!(auditing.init().unwrap().anew);
    write(&mut auditing.folder.auditor(), 1);
    let (state, found) = auditing.found();
    assert_eq!((state, found), (State::Incomplete, vec![FindingKind::NewEpoch { seq: lost.first }]));
    // Also if it was rotated meanwhile.
    crash(&auditing);
    let moved = auditing.folder.0.join("audit.jsonl.1");
    std::fs::rename(auditing.log(), &moved).unwrap();
    let refused = auditing.folder.auditor().record(Event::SecretListed, Outcome::Succeeded, None, &[]);
    assert!(matches!(refused, Err(AuditError::SealLost { .. })), "{refused:?}");
    std::fs::rename(&moved, auditing.log()).unwrap();
    // Where an auditor is named, the writer does it.
    crash(&auditing);
    auditing.seeds.pop();
    write(&mut auditing.demanding().unwrap(), 1);
    let (state, found) = auditing.found();
    assert_eq!(state, State::Incomplete);
    assert!(matches!(found.as_slice(), [FindingKind::UnknownEpoch { seq: 6, .. }]), "{found:?}");
}

#[test]
fn there_is_no_next_epoch_without_one_before() {
    let mut auditing = Auditing::new();
    write(&mut auditing.folder.auditor(), 1);
    let log = auditing.log();
    let next = || seal_anew(log.to_str().unwrap(), &auditing.recipient, None, context().actor);
    assert!(matches!(next(), Err(AuditError::NotSealed { .. })));
    let auditing = {
        auditing.init().unwrap();
        auditing
    };
    std::fs::remove_file(auditing.state_file()).unwrap();
    let next = seal_anew(log.to_str().unwrap(), &auditing.recipient, None, context().actor);
    assert!(matches!(next, Err(AuditError::SealLost { .. })), "{next:?}");
}

/// One crash does both, and whoever lacks the seed of the new epoch has to learn first that there is one.
#[test]
fn a_lost_state_and_a_torn_line_are_no_tampering() {
    let mut auditing = Auditing::sealed(3);
    let mut torn = read(&auditing.log());
    torn.extend_from_slice(b"{\"schema\":\"vouchsafe.audit/1\",\"assu");
    put(&auditing.log(), &torn);
    std::fs::remove_file(auditing.state_file()).unwrap();
    write(&mut auditing.demanding().unwrap(), 1);
    let (state, found) = auditing.found();
    assert_eq!(state, State::Incomplete, "{found:?}");
    assert!(matches!(found.as_slice(), [FindingKind::UnknownEpoch { seq: 4, .. }]), "{found:?}");
    let entries = std::fs::read_dir(&auditing.folder.0).unwrap().map(|entry| entry.unwrap().path());
    auditing.seeds = entries.filter(|path| path.extension().is_some_and(|end| end == "age")).collect();
    let report = auditing.report(&[auditing.log()]);
    assert_eq!((report.state(), report.quarantined, report.sealed), (State::Incomplete, 1, 5), "{:?}", report.findings);
    assert_eq!(report.findings[0].kind, FindingKind::NewEpoch { seq: 4 });
}

/// The head remembers it, where the log cannot be asked.
#[test]
fn a_sealed_log_that_was_moved_is_not_gone_on_with_unsealed() {
    let auditing = Auditing::sealed(3);
    std::fs::rename(auditing.log(), auditing.folder.0.join("audit.jsonl.1")).unwrap();
    std::fs::remove_file(auditing.state_file()).unwrap();
    for _ in 0..2 {
        let refused = auditing.folder.auditor().record(Event::SecretListed, Outcome::Succeeded, None, &[]);
        assert!(matches!(refused, Err(AuditError::SealLost { .. })), "{refused:?}");
        assert_eq!(read(&auditing.log()), b"");
    }
}
