//! What was seen is not gone behind, whatever becomes of the file in which it is kept.

use std::os::unix::fs::{PermissionsExt, chown};

use super::*;
use crate::store::scratch::{Scratch, environment, read, service, set_mode};

fn api(serial: u64) -> Vec<Mark> {
    vec![(Subject::policy(&environment("prod"), Some(&service("api"))), serial)]
}

fn chain(serial: u64, base: u64) -> Vec<Mark> {
    let (prod, api_service) = (environment("prod"), service("api"));
    let base = (Subject::base(&prod, Some(&api_service), Path::new("../base.toml")), base);
    [api(serial), vec![base]].concat()
}

fn one(marks: &Marks, numbers: Vec<Mark>) -> Result<(), Refusal> {
    marks.admit(&[numbers]).pop().unwrap()
}

fn behind(mark: u64) -> Result<(), Refusal> {
    Err(Refusal::Behind { at: 0, mark })
}

#[track_caller]
fn state_failed(result: Result<(), Refusal>, because: &str) -> Failure {
    match result {
        Err(Refusal::State(failure)) => {
            assert!(failure.message.contains(because), "{}", failure.message);
            assert!(failure.hint.is_some());
            failure
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_number_never_goes_down_in_one_life_or_the_next() {
    let folder = Scratch::new();
    let marks = Marks::kept_in(Some(&folder.path("")));
    assert_eq!((one(&marks, api(12)), one(&marks, api(12)), one(&marks, api(11))), (Ok(()), Ok(()), behind(12)));
    assert_eq!((marks.take_begun(), marks.take_begun()), (Some(folder.path(FILE).as_path()), None));
    assert_eq!(std::fs::metadata(folder.path(FILE)).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(folder.names(), [FILE], "and no temporary file");
    let next = Marks::kept_in(Some(&folder.path("")));
    assert_eq!((one(&next, api(11)), one(&next, api(13)), one(&next, api(12))), (behind(12), Ok(()), behind(13)));
    assert_eq!(next.take_begun(), None);
    // What another process has raised counts too: the file is read each time.
    assert_eq!(one(&marks, api(12)), behind(13));
    assert_eq!(one(&marks, api(u64::MAX)), Ok(()));
    assert_eq!(one(&next, api(13)), behind(u64::MAX));

    let memory = Marks::kept_in(None);
    assert_eq!((one(&memory, api(12)), one(&memory, api(11)), memory.take_begun()), (Ok(()), behind(12), None));
    assert_eq!(one(&Marks::kept_in(None), api(11)), Ok(()));
}

#[test]
fn each_file_of_a_chain_has_its_mark_and_only_what_is_admitted_raises_one() {
    let folder = Scratch::new();
    let marks = Marks::kept_in(Some(&folder.path("")));
    assert_eq!(one(&marks, chain(12, 5)), Ok(()));
    assert_eq!(one(&marks, chain(13, 4)), Err(Refusal::Behind { at: 1, mark: 5 }));
    assert_eq!(one(&marks, chain(12, 5)), Ok(()), "13 was not served");
    assert_eq!(one(&marks, chain(13, 6)), Ok(()));
    // Another service, another environment, no service: each counts for itself.
    let (prod, dev) = (environment("prod"), environment("dev"));
    for subject in [
        Subject::policy(&prod, Some(&service("web"))),
        Subject::policy(&prod, None),
        Subject::policy(&dev, Some(&service("api"))),
        Subject::base(&prod, Some(&service("api")), Path::new("other.toml")),
    ] {
        assert_eq!(one(&marks, vec![(subject, 1)]), Ok(()));
    }
    let text = String::from_utf8(read(&folder.path(FILE))).unwrap();
    let start = "{\"schema\":\"vouchsafe.agent-marks/1\",\"check\":\"";
    let end = ",\"marks\":{\"base prod/api ../base.toml\":6,\"base prod/api other.toml\":1,\"policy dev/api\":1,\
               \"policy prod\":1,\"policy prod/api\":13,\"policy prod/web\":1}}\n";
    assert!(text.starts_with(start) && text.ends_with(end), "{text}");
}

/// Two files that speak for one service: the lower serial is the older one, from the first look on.
#[test]
fn of_two_of_one_subject_the_lower_one_is_refused() {
    let marks = Marks::default();
    let decided = marks.admit(&[api(5), Vec::new(), api(7), api(6)]);
    assert_eq!(decided, [behind(7), Ok(()), Ok(()), behind(7)]);
    assert_eq!(marks.admit(&[api(5), api(7)]), [behind(7), Ok(())]);
}

#[test]
fn what_has_no_numbers_needs_no_marks() {
    let folder = Scratch::new();
    let nowhere = Marks::kept_in(Some(&folder.path("absent")));
    assert_eq!(nowhere.admit(&[Vec::new(), Vec::new()]), [Ok(()), Ok(())]);
    let decided = nowhere.admit(&[Vec::new(), api(1)]);
    assert_eq!(decided[0], Ok(()));
    let failure = state_failed(decided[1].clone(), "cannot be written");
    assert_eq!(failure.class, Class::Internal, "another start may mend it");
    assert!(failure.hint.unwrap().starts_with("install -d -m 0700"));
    assert_eq!(nowhere.take_begun(), None);
}

#[test]
fn a_file_with_any_byte_changed_admits_nothing() {
    let folder = Scratch::new();
    let path = folder.path(FILE);
    one(&Marks::kept_in(Some(&folder.path(""))), chain(12, 5)).unwrap();
    let good = read(&path);
    let marks = Marks::kept_in(Some(&folder.path("")));
    for at in 0..good.len() - 1 {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        folder.write(FILE, &bytes, 0o600);
        let failure = state_failed(one(&marks, api(12)), "damaged");
        assert!(failure.class == Class::Policy && failure.hint.unwrap().starts_with("rm "), "byte {at}");
    }
    let large = vec![b' '; usize::try_from(LARGEST).unwrap() + 1];
    for bytes in [&good[..good.len() - 2], b"", b"{}", b"null", b"\xff", large.as_slice()] {
        folder.write(FILE, bytes, 0o600);
        state_failed(one(&marks, api(99)), "");
        assert_eq!(read(&path), bytes, "and it is left as it is");
    }
    folder.write(FILE, &good, 0o600);
    assert_eq!(one(&marks, api(12)), Ok(()));
    // Taken away while the agent lives: what it has seen is written again.
    std::fs::remove_file(&path).unwrap();
    assert_eq!((one(&marks, api(11)), one(&marks, api(12))), (behind(12), Ok(())));
    assert_eq!(one(&Marks::kept_in(Some(&folder.path(""))), api(11)), behind(12));
    assert_eq!(marks.take_begun(), None, "nothing was forgotten");
}

#[test]
fn a_file_that_others_could_have_written_admits_nothing() {
    let folder = Scratch::new();
    let path = folder.path(FILE);
    let marks = Marks::kept_in(Some(&folder.path("")));
    one(&marks, api(12)).unwrap();
    set_mode(&path, 0o602);
    state_failed(one(&marks, api(13)), "can be written by others");
    set_mode(&path, 0o600);
    set_mode(&folder.path(""), 0o777);
    state_failed(one(&marks, api(13)), "can be written by others");
    set_mode(&folder.path(""), 0o700);
    if rustix::process::geteuid().is_root() {
        chown(&path, Some(54_321), None).unwrap();
        state_failed(one(&marks, api(13)), "belongs to uid 54321");
        chown(&path, Some(0), None).unwrap();
    }
    std::fs::rename(&path, folder.path("aside")).unwrap();
    std::fs::create_dir(&path).unwrap();
    state_failed(one(&marks, api(13)), "not a regular file");
    std::fs::remove_dir(&path).unwrap();
    std::fs::rename(folder.path("aside"), &path).unwrap();
    assert_eq!((one(&marks, api(13)), one(&marks, api(12))), (Ok(()), behind(13)));
}

/// The mark stands on the disk before what raised it is admitted; what it was before still is.
#[test]
fn what_cannot_be_written_is_not_admitted() {
    let folder = Scratch::new();
    let marks = Marks::kept_in(Some(&folder.path("")));
    one(&marks, api(12)).unwrap();
    // More than the file may hold: the only way to fail that root does not get around.
    let many: Vec<Mark> = (0..60_000)
        .map(|n| (Subject::policy(&environment("prod"), Some(&service(&format!("a-service-with-number-{n}")))), 1))
        .collect();
    let decided = marks.admit(&[many, api(13), api(12), api(11), Vec::new()]);
    state_failed(decided[0].clone(), "would be larger");
    state_failed(decided[1].clone(), "would be larger");
    assert_eq!(decided[2..], [Ok(()), behind(12), Ok(())]);
    assert_eq!(one(&marks, api(12)), Ok(()), "13 was not served");
}

/// A later version knows more kinds; going back to this one forgets none of them.
#[test]
fn marks_of_kinds_that_are_not_known_stay() {
    let folder = Scratch::new();
    let other = Subject("generation prod/api files".into());
    folder.write(FILE, render(&Held::from([(other.clone(), 7)])), 0o600);
    let marks = Marks::kept_in(Some(&folder.path("")));
    one(&marks, api(1)).unwrap();
    assert_eq!(parse(&read(&folder.path(FILE))).unwrap().get(&other), Some(&7));
}
