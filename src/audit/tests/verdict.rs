//! Whatever was found, and however much of it, it comes out as a failing status of the right class.

use proptest::prelude::*;

use super::*;
use crate::audit::verify::FindingKind;
use crate::error::{Cause, Class};

/// What is printed, what the state says and what the process ends with are one.
#[track_caller]
pub(super) fn assert_one_verdict(report: &Report) {
    let class = report.failure().map(|failure| failure.class());
    let expected = match report.state() {
        State::Intact => None,
        State::Incomplete => Some(Class::Incomplete),
        State::Tampered => Some(Class::Tampered),
    };
    assert_eq!(class, expected);
    assert_eq!(report.state() == State::Intact, report.findings_total == 0);
    let is_shown = report.findings.iter().any(|finding| finding.kind.is_tampering());
    assert_eq!(is_shown, report.state() == State::Tampered, "what decides is among what is shown");
}

/// One of each.
fn kinds() -> Vec<FindingKind> {
    use FindingKind::*;
    let (seq, id) = (7, "0123456789abcdef".to_owned());
    vec![
        Altered,
        Unchained { seq },
        Repeated { seq, expected: 9 },
        OtherChain,
        OtherKind,
        NotARecord,
        QuarantineGone,
        Malformed,
        PartsMixed,
        HeadDiffers { seq },
        SealMissing { seq },
        SealWrong { seq },
        ChainWithoutSeed,
        SealTooFar { seq },
        NewEpoch { seq },
        UnknownEpoch { seq, id: id.clone() },
        SeedMissing { seq },
        SeedOfOtherChain { id: id.clone() },
        EpochMissing { id, seq },
        NothingSealed,
        CheckpointDiffers { seq },
        CheckpointsDiffer { seq },
        CheckpointForged { count: 1 },
        CheckpointOfOtherChain { seq },
        CheckpointWithoutRecord { seq },
        EndsBeforeCheckpoint { last: 1, seq },
        ClockBack { seconds: 9 },
        Gap { from: 1, to: 2 },
        StartsLate { seq },
        ChainForgotten { seq },
        TooManyChains,
        NewChain,
        EndsEarly { last: 1, head: 2 },
        HeadOfOtherChain,
        Torn { bytes: 1 },
        PartsMissing { record: 1 },
        NoRecord,
    ]
}

fn report_of(kinds: impl IntoIterator<Item = FindingKind>) -> Report {
    let mut report = Report::default();
    kinds.into_iter().for_each(|kind| report.add(Path::new("audit.jsonl"), 1, kind));
    report
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn a_state_other_than_intact_is_always_a_failure(picks in proptest::collection::vec(0..kinds().len(), 0..70)) {
        let kinds = kinds();
        let report = report_of(picks.iter().map(|pick| kinds[*pick].clone()));
        assert_one_verdict(&report);
        prop_assert_eq!(report.findings_total, picks.len() as u64);
        prop_assert_eq!(
            report.state() == State::Tampered,
            picks.iter().any(|pick| kinds[*pick].is_tampering())
        );
        prop_assert!(report.findings.len() <= 21);
    }
}

#[test]
fn tampering_after_any_number_of_gaps_is_tampering() {
    for gaps in 0..50 {
        let gaps = std::iter::repeat_n(FindingKind::Gap { from: 1, to: 2 }, gaps);
        let report = report_of(gaps.chain([FindingKind::Altered]));
        assert_one_verdict(&report);
        assert_eq!(report.state(), State::Tampered);
        assert!(report.failure().unwrap().to_string().contains("was altered"));
    }
}
