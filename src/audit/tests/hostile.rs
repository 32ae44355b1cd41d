//! Logs that somebody has made to keep `verify` busy, to make it forget, or to be read in two ways.

use proptest::prelude::*;

use super::*;
use crate::audit::chain::{Chain, StreamId, whole_record};
use crate::audit::verify::{FindingKind, verify_remembering};

const HEAD: &str = "{\"schema\":\"vouchsafe.audit/1\",\"assurance\":\"stream\",\
                    \"time\":\"2026-01-02T03:04:05.000000Z\",\"access\":\"0123456789abcdef\",\"event\":\"access.released\"";

/// A record of a stream, after `chain`.
fn record(out: &mut Vec<u8>, chain: Chain, more: &str) -> Chain {
    let start = out.len();
    out.extend_from_slice(HEAD.as_bytes());
    out.extend_from_slice(more.as_bytes());
    chain.seal(out, start)
}

fn stream(number: u64) -> Chain {
    let mut name = [0; 16];
    name[..8].copy_from_slice(&number.to_be_bytes());
    Chain::begin(StreamId(name))
}

/// What `verify` says that remembers a hundred chains, and the names of so many more.
fn found(bytes: &[u8], forgotten: usize) -> (State, Vec<FindingKind>) {
    let report = verify_remembering(bytes, Start::Anywhere, 100, forgotten);
    verdict::assert_one_verdict(&report);
    (report.state(), report.findings.into_iter().map(|finding| finding.kind).collect())
}

#[test]
fn a_forgotten_chain_is_not_repeated_or_gone_on_unseen() {
    let mut bytes = Vec::new();
    let first = record(&mut bytes, stream(0), "");
    for number in 1..=200 {
        record(&mut bytes, stream(number), "");
    }
    assert_eq!(found(&bytes, 1000), (State::Intact, vec![]));
    let mut repeated = bytes.clone();
    record(&mut repeated, stream(0), ",\"reason\":\"another record 1\"");
    assert_eq!(found(&repeated, 1000), (State::Tampered, vec![FindingKind::Repeated { seq: 1, expected: 2 }]));
    // A process that was silent for long goes on: nobody can compare it, and it is not said that it was compared.
    let mut later = bytes.clone();
    let next = record(&mut later, first, "");
    record(&mut later, next, "");
    assert_eq!(found(&later, 1000), (State::Incomplete, vec![FindingKind::ChainForgotten { seq: 2 }]));
    // There is a limit to the names too.
    assert_eq!(found(&bytes, 10), (State::Incomplete, vec![FindingKind::TooManyChains]));
}

#[test]
fn records_that_never_end_are_forgotten_like_others_and_missed() {
    let mut bytes = Vec::new();
    let part = ",\"record\":1,\"part\":1,\"parts\":2";
    for number in 0..200 {
        record(&mut bytes, stream(number), part);
    }
    let report = verify_remembering(&bytes, Start::Beginning, 100, 1000);
    assert_eq!((report.state(), report.findings_total), (State::Incomplete, 200));
    assert!(report.findings.iter().all(|finding| finding.kind == FindingKind::PartsMissing { record: 1 }));
}

/// The lines of a log with the third one, up to its stream, as `edit` would like it: a perfect chain.
fn with_third(lines: &[String], edit: impl Fn(&str) -> String) -> Vec<u8> {
    let (mut out, mut chain) = (Vec::new(), Chain::begin(whole_record(lines[0].as_bytes()).unwrap().chain.stream));
    for (index, line) in lines.iter().enumerate() {
        let (start, text) = (out.len(), &line[..line.find(",\"stream\":").unwrap()]);
        out.extend_from_slice(if index == 2 { edit(text) } else { text.to_owned() }.as_bytes());
        chain = chain.seal(&mut out, start);
    }
    out
}

#[test]
fn a_line_that_others_would_read_otherwise_is_no_record() {
    let folder = Folder::new();
    write(&mut folder.auditor(), 4);
    let old = lines(&folder.log());
    assert_eq!(verify_bytes(&with_third(&old, str::to_owned), Start::Beginning).state(), State::Intact);
    for (from, to) in [
        ("\"outcome\":", "\"outcome\":\"failed\",\"outcome\":"),
        ("\"reason\":", "\"reason\":\"a\",\"reason\":"),
        ("\"ppid\":1", "\"ppid\":1,\"ppid\":2"),
        ("\"uid\":1000", "\"uid\":1000.0"),
        ("\"uid\":1000", "\"uid\":-1"),
        ("\"user\":\"api\"", "\"user\":\"\\ud800\""),
        ("\"user\":\"api\"", "\"user\":7"),
        ("\"user\":\"api\"", "\"user\":\"\u{e4}\""),
        ("\"access\":\"", "\"access\":5,\"other\":\""),
        ("\"event\":\"", "\"\\u0065vent\":\""),
        ("\"event\":\"", "\"event\":\"access.denied\",\"\\u0065vent\":\""),
        ("\"time\":\"2", "\"time\":\"z"),
        ("\"time\":\"", "\"other\":\""),
        ("Z\",\"access\"", "+00:00\",\"access\""),
        ("\"secrets\":[", "\"secrets\":{},\"other\":["),
        (
            "\"outcome\":",
            "\"deep\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[0]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]],\"outcome\":",
        ),
        (",\"outcome\":", ", \"outcome\":"),
    ] {
        let with = |text: &str| {
            let text = text.replacen("\"outcome\":\"succeeded\"", "\"outcome\":\"succeeded\",\"reason\":\"r\"", 1);
            assert!(text.contains(from), "{from} in {text}");
            text.replacen(from, to, 1)
        };
        let bytes = with_third(&old, with);
        let report = verify_bytes(&bytes, Start::Beginning);
        assert_eq!(report.findings.first().map(|finding| &finding.kind), Some(&FindingKind::Malformed), "{to}");
        assert_eq!(report.state(), State::Tampered);
    }
    // What a later version may add is left alone.
    let more = |text: &str| format!("{text},\"later\":{{\"a\":[1.5,null,true],\"b\":\"\\ud83d\\ude00\"}}");
    assert_eq!(verify_bytes(&with_third(&old, more), Start::Beginning).state(), State::Intact);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    /// Whatever is put into a record that is hashed again: what `verify` takes for one, readers take for the same one.
    #[test]
    fn what_verifies_is_read_by_all(at in 0usize..700, length in 0usize..6, with in "[\\\\\"a-e0-9:,{}. \u{e4}-]{0,12}") {
        let folder = Folder::new();
        write(&mut folder.auditor(), 4);
        let old = lines(&folder.log());
        let bytes = with_third(&old, |text| {
            let (from, to) = (at.min(text.len()), (at + length).min(text.len()));
            format!("{}{with}{}", &text[..from], &text[to..])
        });
        if verify_bytes(&bytes, Start::Beginning).state() == State::Intact {
            for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                prop_assert!(read::Record::parse(line).is_some());
                let value: serde_json::Value = serde_json::from_slice(line).unwrap();
                // Nothing was lost between two members of one name.
                prop_assert_eq!(serde_json::to_string(&value).unwrap().len() <= line.len(), true);
            }
        }
    }
}
