//! The transitions as a table, and that every plan ends.

use proptest::prelude::*;

use super::*;

const NONE: Rules = Rules { has_target: false, retire_after: None };
const TARGET: Rules = Rules { has_target: true, retire_after: None };
const AT_ONCE: Rules = Rules { has_target: true, retire_after: Some(Duration::ZERO) };
const LATER: Rules = Rules { has_target: true, retire_after: Some(Duration::from_secs(100)) };

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Current, pending, previous by number, the current one written at 1,000.
fn state(numbers: [Option<u64>; 3]) -> State {
    let note = |number: Option<u64>, stage| {
        number.map(|number| VersionNote { number, stage: Some(stage), time: Some(at(1_000)), author: None })
    };
    let [current, pending, previous] = numbers;
    State::new(Staged {
        current: note(current, Stage::Current),
        pending: note(pending, Stage::Pending),
        previous: note(previous, Stage::Previous),
        ..Staged::default()
    })
}

/// A plan as words: `create apply:4 ...`.
fn plan(numbers: [Option<u64>; 3], intent: Intent, rules: Rules, now: u64) -> String {
    match state(numbers).plan(intent, rules, at(now)) {
        Ok(steps) => words(&steps),
        Err(stuck) => format!("{stuck:?}"),
    }
}

fn words(steps: &[Step]) -> String {
    let word = |step: &Step| match step.version() {
        Some(at) => format!("{}:{}", step.word(), at.number),
        None => step.word().to_owned(),
    };
    steps.iter().map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_way_from_every_state() {
    use Intent::{Abandon, Finish, RollBack, Rotate};
    let only = Intent::Only;
    let (absent, fresh, used) = ([None; 3], [Some(3), None, None], [Some(3), None, Some(2)]);
    let (pending, first, back) = ([Some(3), Some(4), Some(2)], [None, Some(1), None], [Some(2), None, Some(3)]);
    for (numbers, intent, rules, now, expected) in [
        // Rotate.
        (absent, Rotate, TARGET, 1_000, "Absent"),
        (fresh, Rotate, NONE, 1_000, "create promote:4"),
        (fresh, Rotate, TARGET, 1_000, "create apply:4 verify:4 promote:4"),
        (fresh, Rotate, AT_ONCE, 1_000, "create apply:4 verify:4 promote:4 retire:3"),
        (fresh, Rotate, LATER, 1_000, "create apply:4 verify:4 promote:4"),
        (used, Rotate, NONE, 1_000, "create promote:4"),
        (used, Rotate, TARGET, 1_000, "retire:2 create apply:4 verify:4 promote:4"),
        (used, Rotate, Rules { has_target: false, ..AT_ONCE }, 1_000, "create promote:4 retire:3"),
        (back, Rotate, NONE, 1_000, "create promote:4"),
        (back, Rotate, TARGET, 1_000, "retire:3 create apply:4 verify:4 promote:4"),
        (back, Rotate, Rules { has_target: false, ..AT_ONCE }, 1_000, "create promote:4 retire:2"),
        (pending, Rotate, NONE, 1_000, "promote:4"),
        (pending, Rotate, TARGET, 1_000, "apply:4 verify:4 promote:4"),
        (pending, Rotate, AT_ONCE, 1_000, "apply:4 verify:4 promote:4 retire:3"),
        (first, Rotate, TARGET, 1_000, "apply:1 verify:1 promote:1"),
        // Finish.
        (absent, Finish, TARGET, 1_000, ""),
        (fresh, Finish, AT_ONCE, 1_000, ""),
        (used, Finish, TARGET, 9_999, ""),
        (used, Finish, LATER, 1_099, ""),
        (used, Finish, LATER, 1_100, "retire:2"),
        (used, Finish, LATER, 1, ""),
        (used, Finish, AT_ONCE, 1_000, "retire:2"),
        (back, Finish, AT_ONCE, 1_000, ""),
        (pending, Finish, TARGET, 1_000, "apply:4 verify:4 promote:4"),
        // Back.
        (absent, RollBack, TARGET, 1_000, "NoPrevious"),
        (fresh, RollBack, TARGET, 1_000, "NoPrevious"),
        (first, RollBack, TARGET, 1_000, "FirstVersion"),
        (used, RollBack, TARGET, 1_000, "verify:2 roll-back:2"),
        (used, RollBack, NONE, 1_000, "roll-back:2"),
        (used, RollBack, AT_ONCE, 1_000, "verify:2 roll-back:2"),
        (back, RollBack, TARGET, 1_000, ""),
        (pending, RollBack, TARGET, 1_000, "verify:3 discard:4"),
        (pending, RollBack, NONE, 1_000, "discard:4"),
        // Given up.
        (fresh, Abandon, TARGET, 1_000, ""),
        (first, Abandon, TARGET, 1_000, "FirstVersion"),
        (pending, Abandon, TARGET, 1_000, "verify:4 abandon:4"),
        (pending, Abandon, NONE, 1_000, "discard:4"),
        // One step.
        (absent, only(StepName::Create), TARGET, 1_000, "Absent"),
        (fresh, only(StepName::Create), TARGET, 1_000, "create"),
        (used, only(StepName::Create), TARGET, 1_000, "retire:2 create"),
        (pending, only(StepName::Create), TARGET, 1_000, "NotNext { wanted: Create, next: Apply }"),
        (pending, only(StepName::Create), NONE, 1_000, "NotNext { wanted: Create, next: Promote }"),
        (pending, only(StepName::Apply), TARGET, 1_000, "apply:4"),
        (pending, only(StepName::Apply), NONE, 1_000, ""),
        (fresh, only(StepName::Apply), TARGET, 1_000, "NotNext { wanted: Apply, next: Create }"),
        (pending, only(StepName::Verify), TARGET, 1_000, "verify:4"),
        (pending, only(StepName::Promote), TARGET, 1_000, "verify:4 promote:4"),
        (pending, only(StepName::Promote), NONE, 1_000, "promote:4"),
        (fresh, only(StepName::Promote), TARGET, 1_000, "NotNext { wanted: Promote, next: Create }"),
        (used, only(StepName::Retire), TARGET, 1_000, "retire:2"),
        (back, only(StepName::Retire), TARGET, 1_000, "retire:3"),
        (fresh, only(StepName::Retire), TARGET, 1_000, "NoPrevious"),
        (pending, only(StepName::Retire), TARGET, 1_000, "NotNext { wanted: Retire, next: Apply }"),
    ] {
        assert_eq!(plan(numbers, intent, rules, now), expected, "{numbers:?} {intent:?} {rules:?} at {now}");
    }
}

#[test]
fn an_unmarked_version_is_marked_before_anything_is_created() {
    let mut state = state([Some(3), None, None]);
    state.staged.is_unmarked = true;
    let steps = state.plan(Intent::Rotate, TARGET, at(0)).unwrap();
    assert_eq!(words(&steps), "adopt create apply:4 verify:4 promote:4");
    assert_eq!(words(&state.plan(Intent::Finish, TARGET, at(0)).unwrap()), "");
}

#[test]
fn what_does_not_work_any_more_is_put_back_and_proven() {
    for (numbers, expected) in [
        ([Some(3), Some(4), None], "verify:3 apply:3 verify:3 discard:4"),
        ([Some(3), None, Some(2)], "verify:2 apply:2 verify:2 roll-back:2"),
    ] {
        let (mut state, mut steps) = (state(numbers), Vec::new());
        while let Next::Do(step) = state.next(Intent::RollBack, TARGET, at(0)).unwrap() {
            steps.push(step);
            let answer = if matches!(step, Step::Probe(_)) { Answer::Works(false) } else { Answer::Done };
            state = state.after(step, answer, at(0));
        }
        assert_eq!(words(&steps), expected);
    }
}

/// As a store says it where the numbers do not: apart, the one that was gone back to has a new number; by label, a roll back
/// that was killed leaves none that is previous.
#[test]
fn what_was_rolled_back_is_not_rolled_forward_again() {
    for numbers in [[Some(3), None, Some(2)], [Some(2), None, None]] {
        let mut state = state(numbers);
        state.staged.is_rolled_back = true;
        assert_eq!(state.plan(Intent::RollBack, TARGET, at(0)).map(|steps| words(&steps)), Ok(String::new()));
        state.staged.pending = Some(VersionNote { number: 4, stage: Some(Stage::Pending), time: None, author: None });
        let steps = state.plan(Intent::RollBack, NONE, at(0)).unwrap();
        assert_eq!(words(&steps), "discard:4", "what was begun since is given up");
    }
}

#[test]
fn what_works_is_not_given_up() {
    let mut state = state([Some(3), Some(4), None]);
    let probe = Step::Probe(At { stage: Stage::Pending, number: 4 });
    assert_eq!(state.next(Intent::Abandon, TARGET, at(0)), Ok(Next::Do(probe)));
    state = state.after(probe, Answer::Works(true), at(0));
    assert_eq!(state.next(Intent::Abandon, TARGET, at(0)), Err(Stuck::PendingWorks));
}

#[test]
fn a_version_of_another_number_is_applied_and_proven_anew() {
    let mut state = state([Some(3), Some(4), None]);
    state.progress = Progress::Verified(5);
    assert_eq!(
        state.next(Intent::Rotate, TARGET, at(0)),
        Ok(Next::Do(Step::Apply(At { stage: Stage::Pending, number: 4 })))
    );
}

proptest! {
    /// Whatever the stages say, a plan ends, and never promotes what it has not verified.
    #[test]
    fn plans_end(
        numbers in proptest::array::uniform3(proptest::option::of(1_u64..6)),
        unmarked in any::<bool>(),
        has_target in any::<bool>(),
        retire_after in proptest::option::of(0_u64..3_000),
        now in 0_u64..5_000,
        intent in proptest::sample::select(vec![
            Intent::Rotate, Intent::Finish, Intent::RollBack, Intent::Abandon, Intent::Only(StepName::Create),
            Intent::Only(StepName::Apply), Intent::Only(StepName::Verify), Intent::Only(StepName::Promote),
            Intent::Only(StepName::Retire),
        ]),
    ) {
        let mut state = state(numbers);
        state.staged.is_unmarked = unmarked;
        let rules = Rules { has_target, retire_after: retire_after.map(Duration::from_secs) };
        if let Ok(steps) = state.plan(intent, rules, at(now)) {
            prop_assert!(steps.len() <= 8, "{:?}", steps);
            for (index, step) in steps.iter().enumerate() {
                if let Step::Promote(number) = step {
                    let proof = Step::Verify(At { stage: Stage::Pending, number: *number });
                    prop_assert!(!has_target || (index > 0 && steps[index - 1] == proof), "{:?}", steps);
                }
            }
        }
    }
}
