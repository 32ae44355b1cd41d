//! The right to rotate: one has it, the others are told who, and it ends (ROT-8).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use vouchsafe::error::Cause;
use vouchsafe::store::stages::{Holder, Stages};
use vouchsafe::store::{StoreError, StoreErrorKind};

use super::fake::Fake;
use super::fake::fault::{Action, Fault};
use super::rotator::{ITEM, LOCK, Rotator, author, by_label, done, holder, let_time_pass, secret, versions};

fn held_by(result: Result<(), StoreError>) -> Option<Holder> {
    match result.map_err(|error| error.kind) {
        Ok(()) => None,
        Err(StoreErrorKind::Held(holder)) => Some(holder),
        Err(kind) => panic!("{kind:?}"),
    }
}

fn slow_claim(fake: &Fake) -> Option<Holder> {
    let rotator = Rotator::new(fake);
    held_by(rotator.open().hold(&holder("slow"), rotator.deadline()))
}

fn claims(fake: &Fake) -> Vec<Value> {
    let world = fake.world();
    let lock = &world.ssm.parameters[LOCK];
    lock.versions.iter().map(|version| serde_json::from_str(&version.value).unwrap()).collect()
}

#[test]
fn one_holds_and_the_other_says_who() {
    let fake = Fake::start();
    let (a, b) = (Rotator::new(&fake), Rotator::new(&fake));
    let (mut first, mut second) = (a.open(), b.open());
    done(first.hold(&holder("a"), a.deadline()));
    let lock = fake.world().ssm.parameters[LOCK].versions[0].clone();
    assert_eq!((lock.kind.as_str(), lock.number), ("String", 1));
    let error = second.hold(&holder("b"), b.deadline()).unwrap_err();
    assert!(error.to_string().contains("a@host pid 7 since 20"), "{error}");
    assert_eq!(error.class().word(), "busy");
    // Held anew it costs nothing: much of it is left.
    let calls = fake.records().len();
    done(first.hold(&holder("a"), a.deadline()));
    assert_eq!(fake.records().len(), calls);
    done(first.let_go(a.deadline()));
    done(first.let_go(a.deadline()));
    assert_eq!(fake.count("PutParameter"), 2, "nothing is given back twice");
    done(second.hold(&holder("b"), b.deadline()));
    assert_eq!(held_by(first.hold(&holder("a"), a.deadline())).unwrap().owner, "b@host pid 7");
    assert!(claims(&fake).iter().enumerate().all(|(at, claim)| claim["after"] == json!(at)));
}

#[test]
fn of_eight_at_once_one_wins_and_seven_are_told_who() {
    // A name that is new, one that was given back, one whose holder is gone.
    for state in ["new", "free", "over"] {
        let fake = Fake::start();
        let before = Rotator::new(&fake);
        let mut held = before.open();
        if state != "new" {
            done(held.hold(&holder("before"), before.deadline()));
        }
        if state == "free" {
            done(held.let_go(before.deadline()));
        }
        let_time_pass(&fake);
        fake.world().write_time = Duration::from_millis(15);
        let names = ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"];
        let outcomes: Vec<Option<String>> = std::thread::scope(|scope| {
            let fake = &fake;
            let one = |name: &'static str| {
                scope.spawn(move || {
                    let rotator = Rotator::new(fake);
                    let mut store = rotator.open();
                    held_by(store.hold(&holder(name), rotator.deadline())).map(|holder| holder.owner)
                })
            };
            let threads: Vec<_> = names.into_iter().map(one).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let winners: Vec<_> = names.iter().zip(&outcomes).filter(|(_, holder)| holder.is_none()).collect();
        assert_eq!(winners.len(), 1, "{state}: {outcomes:?}");
        let winner = format!("{}@host pid 7", winners[0].0);
        assert!(outcomes.iter().flatten().all(|owner| *owner == winner), "{state}: {winner}, {outcomes:?}");
        // Claims that lost lie above the one that counts, and change nothing.
        let late = Rotator::new(&fake);
        assert_eq!(held_by(late.open().hold(&holder("late"), late.deadline())).unwrap().owner, winner);
    }
}

#[test]
fn never_two_at_a_time() {
    let fake = Fake::start();
    let (inside, most, times) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for number in 0..6 {
            let (fake, inside, most, times) = (&fake, &inside, &most, &times);
            scope.spawn(move || {
                let rotator = Rotator::new(fake);
                let mut store = rotator.open();
                let owner = holder(&format!("n{number}"));
                let mut left = 4;
                while left > 0 {
                    if held_by(store.hold(&owner, rotator.deadline())).is_some() {
                        continue;
                    }
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    // Something that takes a while: a call.
                    done(store.staged(&by_label(), rotator.deadline()));
                    times.fetch_add(1, Ordering::SeqCst);
                    inside.fetch_sub(1, Ordering::SeqCst);
                    done(store.let_go(rotator.deadline()));
                    left -= 1;
                }
            });
        }
    });
    assert_eq!((times.into_inner(), most.into_inner()), (24, 1));
}

#[test]
fn a_claim_that_came_after_something_else_counts_for_nothing() {
    let fake = Fake::start();
    let b = Rotator::new(&fake);
    // Between the look of the one and its claim, another one claims.
    fake.fault(Fault::on("PutParameter", Action::Delay(Duration::from_millis(1500))).naming("slow@host").times(1));
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| slow_claim(&fake));
        super::fake::server::eventually("the slow claim", || fake.count("PutParameter") == 1);
        let mut fast = b.open();
        assert!(held_by(fast.hold(&holder("fast"), b.deadline())).is_none());
        // It was to be new, and is there by now.
        assert_eq!(slow.join().unwrap().unwrap().owner, "fast@host pid 7");
        done(fast.let_go(b.deadline()));
    });
    fake.forget();
    fake.fault(Fault::on("PutParameter", Action::Delay(Duration::from_millis(1500))).naming("slow@host").times(1));
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| slow_claim(&fake));
        super::fake::server::eventually("the slow claim", || fake.count("PutParameter") == 1);
        let mut fast = b.open();
        assert!(held_by(fast.hold(&holder("fast"), b.deadline())).is_none());
        assert_eq!(slow.join().unwrap().unwrap().owner, "fast@host pid 7");
        // It was written, over the one that counts, and does not count.
        let last = claims(&fake).pop().unwrap();
        assert!(last["owner"].as_str().unwrap().starts_with("slow"), "{last}");
        // Whoever holds it gives it back above that.
        done(fast.let_go(b.deadline()));
        assert_eq!(claims(&fake).pop().unwrap()["is_held"], json!(false));
    });
    assert!(held_by(Rotator::new(&fake).open().hold(&holder("next"), b.deadline())).is_none());
}

#[test]
fn a_claim_whose_answer_is_lost_is_known_as_ours() {
    for action in [
        || Action::DropAfter,
        || Action::ErrorAfter { status: 500, code: "InternalServerError".into() },
        || Action::ErrorAfter { status: 400, code: "TooManyUpdates".into() },
        || Action::DropBefore,
    ] {
        let fake = Fake::start();
        let rotator = Rotator::new(&fake);
        let mut store = rotator.open();
        fake.fault(Fault::on("PutParameter", action()).times(1));
        done(store.hold(&holder("a"), rotator.deadline()));
        fake.forget().fault(Fault::on("PutParameter", action()).times(1));
        done(store.let_go(rotator.deadline()));
        assert!(held_by(Rotator::new(&fake).open().hold(&holder("b"), rotator.deadline())).is_none());
    }
    // Even after an error: the process is told that it failed, tries again, and does not shut itself out.
    let fake = Fake::start();
    let rotator = Rotator::new(&fake);
    let mut store = rotator.open();
    fake.fault(Fault::on("PutParameter", Action::DropAfter).times(1));
    fake.fault(Fault::error("GetParameter", 400, "AccessDeniedException").skip(1).times(1));
    assert!(store.hold(&holder("a"), rotator.deadline()).is_err());
    done(store.hold(&holder("a"), rotator.deadline()));
}

#[test]
fn without_the_right_nothing_is_written() {
    let fake = Fake::start();
    fake.secure(ITEM, "old");
    let rotator = Rotator::new(&fake);
    let (mut store, item) = (rotator.open(), by_label());
    let refused = |result: Result<(), StoreError>| {
        let error = result.unwrap_err();
        assert_eq!((error.class().word(), error.hint().unwrap().as_str()), ("busy", "vouchsafe rotate --resume"));
    };
    refused(store.adopt(&item, rotator.deadline()));
    refused(store.stage_pending(&item, &secret("new"), &author(), rotator.deadline()).map(|_| ()));
    rotator.holding(|store| done(store.stage_pending(&item, &secret("new"), &author(), rotator.deadline())));
    refused(store.promote(&item, 2, &author(), rotator.deadline()).map(|_| ()));
    refused(store.discard_pending(&item, 2, rotator.deadline()));
    // Looking needs none, and neither does what is done already.
    assert_eq!(rotator.told(&item), "1 2 -");
    done(store.adopt(&item, rotator.deadline()));
    done(store.drop_previous(&item, 9, rotator.deadline()));
    assert_eq!(versions(&fake, ITEM), ["1 old current", "2 new pending"]);
}

#[test]
fn what_somebody_else_wrote_there_is_not_taken_for_free() {
    let fake = Fake::start();
    fake.world().ssm.seed(LOCK, "maintenance, ask Kim", "String");
    let rotator = Rotator::new(&fake);
    let theirs = held_by(rotator.open().hold(&holder("a"), rotator.deadline())).unwrap();
    assert!(theirs.owner.contains("cannot be read"), "{theirs}");
    let_time_pass(&fake);
    done(rotator.open().hold(&holder("a"), rotator.deadline()));
}

#[test]
fn what_a_process_of_this_machine_left_is_taken_over_at_once() {
    let fake = Fake::start();
    let rotator = Rotator::new(&fake);
    done(rotator.open().hold(&holder("dead"), rotator.deadline()));
    let next = Rotator::new(&fake);
    assert!(held_by(next.open().hold(&holder("next"), next.deadline())).is_some(), "this process lives");
    let change = |field: &str, to: Value| {
        let mut world = fake.world();
        let version = world.ssm.parameters.get_mut(LOCK).unwrap().versions.last_mut().unwrap();
        let mut claim: Value = serde_json::from_str(&version.value).unwrap();
        assert!(claim["process"][field].is_string() || claim["process"][field].is_number(), "{claim}");
        claim["process"][field] = to;
        version.value = claim.to_string();
    };
    // No process has so high a number (proc_sys_kernel(5), pid_max).
    change("pid", json!(i32::MAX));
    change("boot", json!("another machine"));
    assert!(held_by(next.open().hold(&holder("next"), next.deadline())).is_some(), "nobody here knows");
    let boot = std::fs::File::open("/proc/sys/kernel/random/boot_id").unwrap();
    change("boot", json!(std::io::read_to_string(boot).unwrap().trim()));
    assert!(held_by(next.open().hold(&holder("next"), next.deadline())).is_none(), "it is gone");
}
