//! Seals and logs that somebody has put together: what the seeds and the files say of each other.

use super::sealing::Auditing;
use super::*;
use crate::audit::chain::{Chain, StreamId, whole_record};
use crate::audit::seal::EpochKey;
use crate::audit::seal::seed::{Beginning, Seed};
use crate::audit::verify::FindingKind;

/// The lines as a perfect chain that goes on from `chain`, each as `edit` would like it, sealed by `key` and those after it.
fn forged(lines: &[String], mut chain: Chain, mut key: Option<EpochKey>, edit: impl Fn(&str) -> String) -> Vec<u8> {
    let mut out = Vec::new();
    for line in lines {
        let (start, end) = (out.len(), line.find(",\"stream\":").unwrap());
        out.extend_from_slice(edit(&line[..end]).as_bytes());
        chain = chain.seal_by(&mut out, start, key.as_ref().map(EpochKey::record_key).as_ref());
        key = key.map(|key| key.next());
    }
    out
}

fn as_stream(line: &str) -> String {
    line.replace("\"assurance\":\"file\"", "\"assurance\":\"stream\"").replace("NAME_", "FORGED_")
}

fn as_is(line: &str) -> String {
    line.replace("NAME_", "FORGED_")
}

fn kinds(report: &Report) -> Vec<FindingKind> {
    report.findings.iter().map(|finding| finding.kind.clone()).collect()
}

fn join(lines: &[String]) -> Vec<u8> {
    lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect()
}

/// A seed by somebody who has the auditor's recipient, which is public.
fn seed(auditing: &mut Auditing, stream: StreamId, first: u64, key: EpochKey) {
    let path = auditing.folder.0.join(format!("seed-{}", auditing.seeds.len()));
    put(&path, Seed { stream, first, key }.render(Beginning::Init).expose());
    auditing.seeds.push(path);
}

fn key(byte: u8) -> EpochKey {
    EpochKey::from_bytes([byte; 32])
}

#[test]
fn records_that_call_themselves_a_streams_are_sealed_or_a_finding() {
    let auditing = Auditing::sealed(6);
    let (old, other) = (lines(&auditing.log()), auditing.folder.0.join("forged"));
    put(&other, &forged(&old[1..], Chain::begin(StreamId([7; 16])), None, as_stream));
    for logs in [vec![other.clone(), auditing.log()], vec![auditing.log(), other.clone()], vec![other.clone()]] {
        let report = auditing.report(&logs);
        assert_eq!(report.state(), State::Tampered, "{logs:?}: {:?}", report.findings);
    }
    // Without seeds too: the two kinds are not mixed.
    let report = assert_state(&[&auditing.log(), &other], State::Tampered);
    assert_eq!(report.findings[0].kind, FindingKind::OtherKind);
    assert_state(&[&other], State::Intact);
}

#[test]
fn the_head_is_compared_whatever_the_records_call_themselves() {
    let folder = Folder::new();
    write(&mut folder.auditor(), 5);
    let old = lines(&folder.log());
    put(&folder.log(), &forged(&old, Chain::begin(StreamId([7; 16])), None, as_stream));
    let report = assert_state(&[&folder.log()], State::Incomplete);
    assert_eq!(kinds(&report), [FindingKind::HeadOfOtherChain]);
    // Of the same chain, and shorter.
    let chain = Chain::begin(whole_record(old[0].as_bytes()).unwrap().chain.stream);
    put(&folder.log(), &forged(&old[..3], chain, None, as_stream));
    assert_eq!(
        kinds(&assert_state(&[&folder.log()], State::Incomplete)),
        [FindingKind::EndsEarly { last: 3, head: 5 }]
    );
}

#[test]
fn garbage_in_the_place_of_a_log_is_no_foreign_line() {
    let folder = Folder::new();
    let first = folder.0.join("audit.jsonl.1");
    write(&mut folder.auditor(), 3);
    std::fs::rename(folder.log(), &first).unwrap();
    write(&mut folder.auditor(), 3);
    let whole = read(&folder.log());
    std::fs::remove_file(folder.0.join("audit.jsonl.head")).unwrap();
    let blunt = String::from_utf8(whole).unwrap().replace("vouchsafe.audit/", "vouchsafe.other/");
    for garbage in [&b"garbage 1\ngarbage 2\n"[..], b"\n", blunt.as_bytes()] {
        put(&folder.log(), garbage);
        assert_state(&[&first, &folder.log()], State::Tampered);
        assert_state(&[&folder.log(), &first], State::Tampered);
        assert_state(&[&folder.log()], State::Tampered);
    }
    // What a killed writer or a power cut leaves of the first record of a new log.
    for torn in [&b"{\"schema\":\"vouchsafe.audit/1\",\"assu"[..], b"{\"sch", &[0; 4096]] {
        put(&folder.log(), torn);
        let report = assert_state(&[&first, &folder.log()], State::Incomplete);
        assert_eq!(kinds(&report), [FindingKind::Torn { bytes: torn.len() as u64 }]);
        assert_state(&[&folder.log()], State::Incomplete);
    }
}

#[test]
fn a_collected_log_may_have_no_record_of_ours() {
    let folder = Folder::new();
    let (with, without) = (folder.0.join("with"), folder.0.join("without"));
    put(&with, &stream::written(3, 0));
    put(&without, b"GET / 200\nGET / 404\n");
    assert_state(&[&with, &without], State::Intact);
    assert_state(&[&without, &with], State::Intact);
    assert_state(&[&without], State::Tampered);
}

#[test]
fn a_last_record_that_was_altered_is_not_torn() {
    let folder = Folder::new();
    write(&mut folder.auditor(), 3);
    let whole = read(&folder.log());
    let altered = String::from_utf8(whole).unwrap().replace("NAME_2", "NAME_X").into_bytes();
    put(&folder.log(), &altered[..altered.len() - 1]);
    assert_eq!(assert_state(&[&folder.log()], State::Tampered).findings[0].kind, FindingKind::Altered);
    // And stays so when the next writer has quarantined it.
    write(&mut folder.auditor(), 1);
    assert_eq!(assert_state(&[&folder.log()], State::Tampered).quarantined, 1);
    // A whole record of somebody else's in its place, which lacks its newline, is looked at as any other.
    let folder = Folder::new();
    write(&mut folder.auditor(), 3);
    let old = lines(&folder.log());
    let mut forged = join(&old[..2]);
    let last = self::forged(&old[2..], Chain { seq: 2, ..Chain::begin(StreamId([7; 16])) }, None, as_is);
    forged.extend_from_slice(&last[..last.len() - 1]);
    put(&folder.log(), &forged);
    assert_state(&[&folder.log()], State::Tampered);
    // Ours, without its newline, is only torn.
    let whole = join(&old);
    put(&folder.log(), &whole[..whole.len() - 1]);
    let report = assert_state(&[&folder.log()], State::Incomplete);
    assert_eq!(report.records, 3);
    assert!(matches!(report.findings[0].kind, FindingKind::Torn { .. }));
}

#[test]
fn a_seed_whose_chain_is_not_there_is_tampering() {
    let mut auditing = Auditing::sealed(5);
    let (old, mine) = (lines(&auditing.log()), StreamId([7; 16]));
    // Somebody's own log, and his own seed, to the auditor.
    put(&auditing.log(), &forged(&old, Chain::begin(mine), Some(key(7)), as_is));
    std::fs::remove_file(auditing.folder.0.join("audit.jsonl.head")).unwrap();
    seed(&mut auditing, mine, 1, key(7));
    let report = auditing.report(&[auditing.log()]);
    assert_eq!((report.state(), report.sealed), (State::Tampered, 5), "{:?}", report.findings);
    assert!(matches!(kinds(&report).as_slice(), [FindingKind::SeedOfOtherChain { .. }]));
    assert_eq!(auditing.report_from(Start::Anywhere, &[auditing.log()]).state(), State::Tampered);
    // A log that has just been moved says nothing either way.
    put(&auditing.log(), b"");
    assert_eq!(auditing.report(&[auditing.log()]).state(), State::Incomplete);
}

#[test]
fn an_epoch_that_was_cut_off_is_missed() {
    let mut auditing = Auditing::sealed(3);
    std::fs::remove_file(auditing.state_file()).unwrap();
    auditing.init().unwrap();
    write(&mut auditing.folder.auditor(), 2);
    let old = lines(&auditing.log());
    std::fs::remove_file(auditing.folder.0.join("audit.jsonl.head")).unwrap();
    put(&auditing.log(), &join(&old[..3]));
    let report = auditing.report(&[auditing.log()]);
    assert_eq!(report.state(), State::Incomplete);
    assert!(matches!(kinds(&report).as_slice(), [FindingKind::EpochMissing { seq: 4, .. }]), "{:?}", report.findings);
}

#[test]
fn a_log_that_may_start_anywhere_hides_no_lost_state() {
    let mut auditing = Auditing::sealed(6);
    let old = lines(&auditing.log());
    let before = whole_record(old[1].as_bytes()).unwrap().chain;
    // All after the second record anew, by the seed of one's own that is said to begin at the second.
    seed(&mut auditing, before.stream, 2, key(7));
    put(&auditing.log(), &forged(&old[2..], before, Some(key(7).next()), as_is));
    std::fs::remove_file(auditing.folder.0.join("audit.jsonl.head")).unwrap();
    let report = auditing.report_from(Start::Anywhere, &[auditing.log()]);
    assert_eq!((report.state(), report.sealed), (State::Incomplete, 4), "{:?}", report.findings);
    assert_eq!(kinds(&report), [FindingKind::NewEpoch { seq: 2 }]);
}

#[test]
fn a_later_seed_alone_says_that_an_earlier_one_is_missing() {
    let mut auditing = Auditing::sealed(4);
    let old = lines(&auditing.log());
    let last = whole_record(old[3].as_bytes()).unwrap().chain;
    let mut all = join(&old);
    all.extend(forged(&old[..2], last, Some(key(7)), as_is));
    put(&auditing.log(), &all);
    std::fs::remove_file(auditing.folder.0.join("audit.jsonl.head")).unwrap();
    auditing.seeds.clear();
    seed(&mut auditing, last.stream, 5, key(7));
    let report = auditing.report(&[auditing.log()]);
    assert_eq!((report.state(), report.sealed), (State::Incomplete, 2));
    assert_eq!(kinds(&report), [FindingKind::SeedMissing { seq: 1 }], "once for a chain");
    // With the seals before it taken off, the first record still says that an epoch began.
    let mut all = forged(&old, Chain::begin(last.stream), None, as_is);
    let last = whole_record(all.split(|byte| *byte == b'\n').nth(3).unwrap()).unwrap().chain;
    all.extend(forged(&old[..2], last, Some(key(7)), as_is));
    put(&auditing.log(), &all);
    assert_eq!(kinds(&auditing.report(&[auditing.log()])), [FindingKind::SeedMissing { seq: 1 }]);
    // And a seed by a writer that had lost its state says so itself.
    let path = auditing.seeds[0].clone();
    put(&path, Seed { stream: last.stream, first: 5, key: key(7) }.render(Beginning::Lost).expose());
    let mut all = forged(&old[1..], Chain::begin(last.stream), None, as_is);
    let last = whole_record(all.split(|byte| *byte == b'\n').nth(2).unwrap()).unwrap().chain;
    put(&path, Seed { stream: last.stream, first: 4, key: key(7) }.render(Beginning::Lost).expose());
    all.extend(forged(&old[..2], last, Some(key(7)), as_is));
    put(&auditing.log(), &all);
    assert_eq!(kinds(&auditing.report(&[auditing.log()])), [FindingKind::NewEpoch { seq: 4 }]);
}

/// A rewriting from any record on needs no key, if an epoch that nobody knows excuses it.
#[test]
fn an_epoch_that_begins_unsealed_or_has_no_name_excuses_nothing() {
    let auditing = Auditing::sealed(5);
    let old = lines(&auditing.log());
    std::fs::remove_file(auditing.folder.0.join("audit.jsonl.head")).unwrap();
    let before = whole_record(old[1].as_bytes()).unwrap().chain;
    let begins = |id: &str| {
        let (from, to) = old[0].split_once("\"epoch\":{\"id\":\"").unwrap();
        format!("{from}\"epoch\":{{\"id\":\"{id}\"{}", &to[17..])
    };
    for (id, own, state) in [
        ("0123456789abcdef", None, State::Tampered),
        ("0123456789abcdef", Some(key(7)), State::Incomplete),
        ("0123456789ABCDEF", Some(key(7)), State::Tampered),
        ("\\u001b[2J", Some(key(7)), State::Tampered),
    ] {
        let begun = [&[begins(id)], &old[2..]].concat();
        put(&auditing.log(), &[join(&old[..2]), forged(&begun, before, own, as_is)].concat());
        let report = auditing.report(&[auditing.log()]);
        assert_eq!(report.state(), state, "{id}: {:?}", report.findings);
    }
}

/// `audit init` was killed after it had written the seed, and repeated.
#[test]
fn two_seeds_of_one_first_record_say_the_same_in_any_order() {
    let mut auditing = Auditing::new();
    drop(auditing.folder.auditor());
    let head = auditing.folder.0.join("audit.jsonl.head");
    let before = read(&head);
    auditing.init().unwrap();
    std::fs::remove_file(auditing.state_file()).unwrap();
    put(&auditing.log(), b"");
    put(&head, &before);
    auditing.init().unwrap();
    write(&mut auditing.folder.auditor(), 4);
    for _ in 0..2 {
        auditing.seeds.reverse();
        let report = auditing.report(&[auditing.log()]);
        assert_eq!((report.state(), report.sealed), (State::Incomplete, report.records), "{:?}", report.findings);
        assert_eq!(kinds(&report), [FindingKind::NewEpoch { seq: 1 }]);
    }
    let [_, right] = auditing.seeds.clone().try_into().unwrap();
    auditing.seeds = vec![right];
    assert_eq!(auditing.report(&[auditing.log()]).state(), State::Intact);
}
