//! Rotation of parameters, cut off or answered badly at every single call (ROT-2, ROT-3, ROT-4): one version more at the end,
//! and a reader that never gets an unproven value, nor none.

use std::time::Duration;

use vouchsafe::store::StoreError;
use vouchsafe::store::stages::{StagedItem, Stages};

use super::fake::Fake;
use super::fake::fault::{Action, Fault};
use super::rotator::{APART, ITEM, Rotator, apart, author, by_label, done, let_time_pass, versions};

/// The values of the two versions that were there before. Readers get the second one.
const BEFORE: [&str; 2] = ["zero", "old"];

fn fake() -> Fake {
    let fake = Fake::start();
    for value in BEFORE {
        fake.secure(ITEM, value);
    }
    fake
}

/// How many calls a rotation takes where nothing goes wrong.
fn calls(rotate: impl Fn(&Rotator) -> Result<u64, StoreError>) -> usize {
    let fake = fake();
    done(rotate(&Rotator::new(&fake)));
    fake.records().len()
}

/// The process is killed before its call `number`, or, if that is `done`, after it and before the answer.
fn kill(fake: &Fake, number: usize, is_done: bool) {
    if is_done {
        fake.fault(Fault::on("*", Action::DropAfter).skip(number).times(1));
    }
    // What it would do from then on happens to nobody.
    fake.fault(Fault::error("*", 400, "AccessDeniedException").skip(number));
}

fn killed_anywhere(item: &StagedItem) {
    let count = calls(|rotator| rotator.rotate(item, "new"));
    for number in 0..count {
        for is_done in [false, true] {
            let fake = fake();
            kill(&fake, number, is_done);
            let rotator = Rotator::new(&fake);
            let outcome = rotator.rotate(item, "new");
            // Only a lost answer to what gives the right back may go unnoticed.
            assert!(outcome.is_err() || number + 1 == count, "{number} of {count}");
            fake.forget();
            let place = format!("killed {} call {number}", if is_done { "after" } else { "before" });
            let reader = Rotator::new(&fake);
            for value in [reader.current(), item.pending_separate.then(|| reader.newest()).flatten()] {
                let is_old_or_new = value.as_deref().is_none_or(|value| ["old", "new"].contains(&value));
                assert!(is_old_or_new, "{place}: {value:?}");
            }
            assert!(reader.current().is_some(), "{place}: a reader gets nothing");
            // Another process, once the claim of the first one is over: it goes on with what is there.
            let_time_pass(&fake);
            let next = Rotator::new(&fake);
            let pending = done(next.staged(item)).pending;
            let is_promoted = next.current().as_deref() == Some("new");
            if !is_promoted {
                done(next.rotate(item, if pending.is_some() { "not used" } else { "new" }));
            }
            let have = versions(&fake, ITEM);
            assert_eq!(have.len(), 3, "{place}: {have:?}");
            assert_eq!((next.current().as_deref(), next.newest().as_deref()), (Some("new"), Some("new")), "{place}");
            assert_eq!(next.told(item), "3 - 2", "{place}: {have:?}");
            let apart = versions(&fake, APART);
            assert_eq!(apart.len(), usize::from(item.pending_separate), "{place}: {apart:?}");
        }
    }
}

#[test]
fn a_rotation_that_is_killed_at_any_call_is_finished_by_another_process() {
    killed_anywhere(&by_label());
}

#[test]
fn a_rotation_apart_that_is_killed_at_any_call_is_finished_by_another_process() {
    killed_anywhere(&apart());
}

fn answered_badly_anywhere(item: &StagedItem) {
    let actions: [(&str, fn() -> Action); 8] = [
        ("lost before", || Action::DropBefore),
        ("lost after", || Action::DropAfter),
        ("500 after", || Action::ErrorAfter { status: 500, code: "InternalServerError".into() }),
        ("throttled after", || Action::ErrorAfter { status: 400, code: "ThrottlingException".into() }),
        ("busy after", || Action::ErrorAfter { status: 400, code: "TooManyUpdates".into() }),
        ("busy", || Action::Error { status: 400, code: "TooManyUpdates".into(), message: None }),
        ("cut off", || Action::Truncate(4)),
        ("slow", || Action::Delay(Duration::from_millis(60))),
    ];
    let count = calls(|rotator| rotator.rotate(item, "new"));
    std::thread::scope(|scope| {
        for (name, action) in actions {
            scope.spawn(move || (0..count).for_each(|number| answered_badly(item, number, name, action())));
        }
    });
}

fn answered_badly(item: &StagedItem, number: usize, name: &str, action: Action) {
    let fake = fake();
    fake.fault(Fault::on("*", action).skip(number).times(1));
    let rotator = Rotator::new(&fake);
    let place = format!("{name} at call {number}");
    let outcome = rotator.rotate(item, "new").map_err(|error| error.to_string());
    // An answer that cannot be read is an error of a read; a write is looked into.
    if name == "cut off" && outcome.is_err() {
        fake.forget();
        let_time_pass(&fake);
        if rotator.current().as_deref() != Some("new") {
            done(rotator.rotate(item, "new"));
        }
    } else {
        assert_eq!(outcome, Ok(3), "{place}");
    }
    let have = versions(&fake, ITEM);
    assert_eq!(have.len(), 3, "{place}: {have:?}");
    assert_eq!(rotator.told(item), "3 - 2", "{place}: {have:?}");
    assert_eq!(versions(&fake, APART).len(), usize::from(item.pending_separate), "{place}");
    assert_eq!(rotator.current().as_deref(), Some("new"), "{place}");
}

#[test]
fn a_rotation_whose_answers_are_lost_makes_one_version() {
    answered_badly_anywhere(&by_label());
}

#[test]
fn a_rotation_apart_whose_answers_are_lost_makes_one_version() {
    answered_badly_anywhere(&apart());
}

/// Rolling back, discarding and dropping, each cut off at every call and begun again.
fn the_way_back(item: &StagedItem) {
    let back = |rotator: &Rotator, number: usize| -> Result<(), StoreError> {
        let mut store = rotator.open();
        store.hold(&super::rotator::holder("a"), rotator.deadline())?;
        let staged = store.staged(item, rotator.deadline())?;
        match (number, staged.pending, staged.previous) {
            (0, Some(pending), _) => store.discard_pending(item, pending.number, rotator.deadline())?,
            (1, _, Some(previous)) => store.drop_previous(item, previous.number, rotator.deadline())?,
            (2, _, Some(previous)) => {
                store.roll_back(item, previous.number, &author(), rotator.deadline())?;
            }
            _ => {}
        }
        store.let_go(rotator.deadline())
    };
    for (which, expected) in [(0, ["2 - -", "2 - -"]), (1, ["3 - -", "3 - -"]), (2, ["2 - 3", "4 - 3"])] {
        let prepared = || {
            let fake = fake();
            let rotator = Rotator::new(&fake);
            match which {
                0 => {
                    let secret = super::rotator::secret("new");
                    rotator.holding(|store| {
                        done(store.stage_pending(item, &secret, &author(), rotator.deadline()));
                    });
                }
                _ => drop(done(rotator.rotate(item, "new"))),
            }
            fake.forget();
            fake
        };
        let expected = expected[usize::from(item.pending_separate)];
        let fake = prepared();
        done(back(&Rotator::new(&fake), which));
        assert_eq!(Rotator::new(&fake).told(item), expected, "{which}");
        let (count, versions_at_the_end) = (fake.records().len(), versions(&fake, ITEM).len());
        for number in 0..count {
            for is_done in [false, true] {
                let place = format!("{which}: killed at call {number}, done: {is_done}");
                let fake = prepared();
                kill(&fake, number, is_done);
                let _killed = back(&Rotator::new(&fake), which);
                fake.forget();
                let_time_pass(&fake);
                let next = Rotator::new(&fake);
                let value = next.current();
                assert!(["old", "new"].contains(&value.as_deref().unwrap_or_default()), "{place}: {value:?}");
                // A roll back of what was rolled back would go forth again.
                if next.told(item) != expected {
                    done(back(&next, which));
                }
                assert_eq!(versions(&fake, ITEM).len(), versions_at_the_end, "{place}");
                let value = next.current();
                assert_eq!(value.as_deref(), Some(if which == 1 { "new" } else { "old" }), "{place}");
                let told = next.told(item);
                // By label, a roll back that was cut off before its last call is done but for the way forth again.
                let is_done_but_for_previous = which == 2 && !item.pending_separate && told == "2 - -";
                assert!(told == expected || is_done_but_for_previous, "{place}: {told}, {:?}", versions(&fake, ITEM));
            }
        }
    }
}

#[test]
fn what_undoes_a_rotation_is_finished_by_another_process() {
    the_way_back(&by_label());
}

#[test]
fn what_undoes_a_rotation_apart_is_finished_by_another_process() {
    the_way_back(&apart());
}

#[test]
fn a_rotation_that_is_never_answered_makes_one_version() {
    let fake = fake();
    fake.fault(Fault::on("PutParameter", Action::SilenceAfter).naming("old-or-new").times(1));
    let rotator = Rotator::new(&fake);
    assert_eq!(done(rotator.rotate(&by_label(), "old-or-new")), 3);
    assert_eq!(versions(&fake, ITEM), ["1 zero", "2 old previous", "3 old-or-new current+pending"]);
    // A label that is never answered is put there again.
    fake.forget().fault(Fault::on("LabelParameterVersion", Action::SilenceAfter).times(1));
    assert_eq!(done(rotator.rotate(&by_label(), "newer")), 4);
    assert_eq!(rotator.told(&by_label()), "4 - 3");
}
