//! The file sink: concurrency, moves, cuts, torn lines, files that are not ours.

use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

use super::*;

#[test]
fn many_writers_make_one_chain() {
    let folder = Folder::new();
    std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| write(&mut folder.auditor(), 40));
        }
    });
    let report = assert_state(&[&folder.log()], State::Intact);
    assert_eq!((report.records, report.streams), (2000, 1));
}

#[test]
fn a_torn_line_is_quarantined_and_the_chain_goes_on() {
    for torn in [&b"{\"schema\":\"vouchsafe.audit/1\",\"torn"[..], b"x", b"a\nb\nc", b"garbage\n", b"\n", b"\xff\0\n\n"]
    {
        let folder = Folder::new();
        write(&mut folder.auditor(), 3);
        append(&folder.log(), torn);
        if !torn.ends_with(b"\n") {
            assert_state(&[&folder.log()], State::Incomplete);
        }
        let before = read(&folder.log());
        write(&mut folder.auditor(), 2);
        assert!(read(&folder.log()).starts_with(&before), "nothing is ever removed");
        let report = assert_state(&[&folder.log()], State::Intact);
        assert_eq!((report.records, report.quarantined, report.discontinuities), (6, 1, 0), "{torn:?}");
    }
}

#[test]
fn a_whole_record_that_lacks_its_newline_is_kept() {
    let folder = Folder::new();
    write(&mut folder.auditor(), 3);
    let bytes = read(&folder.log());
    put(&folder.log(), &bytes[..bytes.len() - 1]);
    assert_state(&[&folder.log()], State::Incomplete);
    write(&mut folder.auditor(), 1);
    assert_eq!(assert_state(&[&folder.log()], State::Intact).records, 4);
}

/// A mistyped path: whatever the file is, it stays as it is.
#[test]
fn a_file_that_never_was_a_log_is_left_alone() {
    let folder = Folder::new();
    append(&folder.log(), b"root:*:19000:0:99999:7:::\n");
    std::fs::set_permissions(folder.log(), std::fs::Permissions::from_mode(0o600)).unwrap();
    let refused = folder.auditor().record(Event::AccessDenied, Outcome::Denied, None, &[]).unwrap_err();
    assert!(refused.to_string().contains("no record"), "{refused}");
    assert_eq!(std::fs::metadata(folder.log()).unwrap().len(), 26);
}

#[test]
fn the_chain_runs_on_across_rotated_logs() {
    let folder = Folder::new();
    let mut auditor = folder.auditor();
    let (first, second) = (folder.0.join("audit.jsonl.1"), folder.0.join("audit.jsonl.2"));
    write(&mut auditor, 3);
    std::fs::rename(folder.log(), &second).unwrap();
    write(&mut auditor, 3);
    std::fs::rename(folder.log(), &first).unwrap();
    // As logrotate's `create` does.
    std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(folder.log()).unwrap();
    write(&mut auditor, 3);
    let report = assert_state(&[&second, &first, &folder.log()], State::Intact);
    assert_eq!((report.records, report.discontinuities, report.streams), (9, 0, 1));
    assert_state(&[&second, &folder.log()], State::Incomplete);
    assert_state(&[&first, &second, &folder.log()], State::Tampered);
    assert_state(&[&folder.log()], State::Incomplete);
}

#[test]
fn a_log_that_was_removed_before_the_start_leaves_a_gap_and_no_false_word() {
    let folder = Folder::new();
    write(&mut folder.auditor(), 3);
    std::fs::remove_file(folder.log()).unwrap();
    write(&mut folder.auditor(), 1);
    let report = assert_state(&[&folder.log()], State::Incomplete);
    assert_eq!((report.records, report.discontinuities), (1, 0));
}

#[test]
fn a_log_that_was_cut_is_noticed_by_the_next_writer() {
    for keep in [0, 1, 2] {
        let folder = Folder::new();
        write(&mut folder.auditor(), 3);
        let bytes = read(&folder.log());
        let kept: Vec<_> = bytes.split_inclusive(|byte| *byte == b'\n').take(keep).collect();
        put(&folder.log(), &kept.concat());
        write(&mut folder.auditor(), 1);
        let report = assert_state(&[&folder.log()], State::Incomplete);
        assert_eq!((report.records, report.discontinuities), (keep as u64 + 2, 1), "kept {keep}");
        assert!(lines(&folder.log())[keep].contains("\"event\":\"audit.discontinuity\""));
    }
}

#[test]
fn a_log_ahead_of_its_head_is_right() {
    let folder = Folder::new();
    let mut auditor = folder.auditor();
    write(&mut auditor, 3);
    let head = read(&folder.0.join("audit.jsonl.head"));
    write(&mut auditor, 1);
    put(&folder.0.join("audit.jsonl.head"), &head);
    write(&mut auditor, 1);
    let report = assert_state(&[&folder.log()], State::Intact);
    assert_eq!((report.records, report.discontinuities), (5, 0));
}

#[test]
fn a_lost_or_damaged_head_is_said_and_the_chain_goes_on() {
    for damage in [None, Some(&b""[..]), Some(b"x"), Some(&[b'a'; 4000])] {
        let folder = Folder::new();
        write(&mut folder.auditor(), 3);
        let head = folder.0.join("audit.jsonl.head");
        match damage {
            None => std::fs::remove_file(&head).unwrap(),
            Some(bytes) => put(&head, bytes),
        }
        write(&mut folder.auditor(), 2);
        let report = assert_state(&[&folder.log()], State::Intact);
        assert_eq!((report.records, report.discontinuities), (6, 1), "{damage:?}");
    }
}

#[test]
fn a_lock_that_is_held_is_waited_for_two_seconds() {
    let folder = Folder::new();
    let mut auditor = folder.auditor();
    let head = File::open(folder.0.join("audit.jsonl.head")).unwrap();
    rustix::fs::flock(&head, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let started = std::time::Instant::now();
    let refused = auditor.record(Event::SecretListed, Outcome::Succeeded, None, &[]);
    assert!(matches!(refused, Err(AuditError::Locked { .. })));
    assert!((1900..4000).contains(&started.elapsed().as_millis()));
    assert!(read(&folder.log()).is_empty());
}

#[test]
fn the_uid_stands_in_the_path() {
    let folder = Folder::new();
    open(&folder.0.join("{uid}.jsonl")).unwrap();
    let uid = rustix::process::getuid().as_raw();
    let mode = |name: String| std::fs::metadata(folder.0.join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(format!("{uid}.jsonl")), 0o600);
    assert_eq!(mode(format!("{uid}.jsonl.head")), 0o600);
}

#[test]
fn what_is_not_a_file_of_ours_is_refused_without_hanging() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let refused = |make: &dyn Fn(&Path)| {
        // The log, then its head.
        for name in ["audit.jsonl", "audit.jsonl.head"] {
            let folder = Folder::new();
            make(&folder.0.join(name));
            let Err(error) = open(&folder.log()) else { panic!("{name} was accepted") };
            assert!(matches!(error, AuditError::Unsafe { .. }), "{error}");
        }
    };
    refused(&|path| mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap());
    refused(&|path| std::os::unix::fs::symlink("/dev/null", path).unwrap());
    refused(&|path| std::os::unix::fs::symlink("elsewhere", path).unwrap());
    refused(&|path| std::fs::create_dir(path).unwrap());
    refused(&|path| drop(std::os::unix::net::UnixListener::bind(path).unwrap()));
    for mode in [0o602, 0o620, 0o604, 0o610, 0o700, 0o4600] {
        refused(&|path| {
            put(path, b"");
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        });
    }
    if rustix::process::geteuid().is_root() {
        refused(&|path| {
            put(path, b"");
            std::os::unix::fs::chown(path, Some(12345), None).unwrap();
        });
        // Whoever follows the hint must not take the log from its writer.
        let folder = Folder::new();
        for theirs in [folder.log(), folder.0.clone()] {
            put(&folder.log(), b"");
            std::os::unix::fs::chown(&theirs, Some(12345), None).unwrap();
            let Err(error) = open(&folder.log()) else { panic!("accepted") };
            let hint = crate::error::Cause::hint(&error).unwrap();
            assert!(
                hint.starts_with("runuser -u \"$(id -nu 12345)\" -- vouchsafe") && !hint.contains("chown"),
                "{hint}"
            );
            std::fs::remove_file(folder.log()).unwrap();
        }
    }
}

#[test]
fn the_folder_must_be_there_and_ours() {
    let folder = Folder::new();
    let Err(error) = open(&folder.0.join("none/audit.jsonl")) else { panic!("accepted") };
    let hint = crate::error::Cause::hint(&error).unwrap();
    assert_eq!(hint, format!("install -d -m 0700 {}/none", folder.0.display()));
    std::fs::set_permissions(&folder.0, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(open(&folder.log()), Err(AuditError::Folder(_))));
}

#[test]
fn no_name_forges_a_line() {
    let folder = Folder::new();
    let mut auditor = folder.auditor();
    let evil = [
        "a\n{\"schema\":\"vouchsafe.audit/1\"",
        "\u{1b}[31m",
        "\u{202e}",
        "\"}",
        "\u{1f511}é\u{7f}\0\t\r\u{8}\u{c}",
        &"é".repeat(500_000),
    ];
    for name in evil {
        let mut context = context();
        context.actor.user = Some(name.into());
        context.command = Some(CommandNote { path: name.into(), argument_count: 0 });
        auditor.turn_to(context).unwrap();
        auditor.record(Event::AccessDenied, Outcome::Denied, Some(name), &[note(name)]).unwrap();
    }
    assert_eq!(assert_state(&[&folder.log()], State::Intact).records, 6);
    let bytes = read(&folder.log());
    assert!(bytes.iter().all(|byte| matches!(byte, b'\n' | b' '..=b'~')));
    assert!(bytes.len() < 40_000, "a long name is cut");
    for (line, name) in lines(&folder.log()).iter().zip(evil) {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let read = value["secrets"][0]["name"].as_str().unwrap();
        if name.len() < 100 { assert_eq!(read, name) } else { assert!(read.ends_with("\u{2026}(1000000 bytes)")) }
    }
}

#[test]
fn a_write_that_stopped_anywhere_is_mended_by_the_next_writer() {
    let folder = Folder::new();
    let mut auditor = folder.auditor();
    write(&mut auditor, 2);
    let head = read(&folder.0.join("audit.jsonl.head"));
    let before = read(&folder.log());
    write(&mut auditor, 1);
    let record = read(&folder.log())[before.len()..].to_vec();
    for written in 1..record.len() - 1 {
        put(&folder.log(), &[&before, &record[..written]].concat());
        put(&folder.0.join("audit.jsonl.head"), &head);
        write(&mut auditor, 1);
        let report = assert_state(&[&folder.log()], State::Intact);
        assert_eq!((report.records, report.quarantined, report.discontinuities), (4, 1, 0), "{written}");
    }
}

#[test]
fn a_thousand_secrets_are_one_line() {
    let folder = Folder::new();
    let notes: Vec<_> = (0..1000).map(|index| note(&format!("NAME_{index}"))).collect();
    drop(folder.auditor().release((), &notes).unwrap());
    let lines = lines(&folder.log());
    assert_eq!(lines.len(), 1);
    let value: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(value["secrets"].as_array().unwrap().len(), 1000);
    assert_state(&[&folder.log()], State::Intact);
}

fn append(path: &Path, bytes: &[u8]) {
    std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(bytes).unwrap();
}

#[test]
#[ignore = "needs TMPDIR on a file system of 64 KiB: mount -t tmpfs -o size=64k,mode=0700 tmpfs DIR"]
fn a_full_disk_fails_the_access_and_the_next_writer_mends() {
    let folder = Folder::new();
    let mut auditor = folder.auditor();
    write(&mut auditor, 1);
    let ballast = folder.0.join("ballast");
    put(&ballast, &[0; 20_000]);
    let fail = |auditor: &mut Auditor| {
        (0..200).find_map(|_| auditor.record(Event::SecretListed, Outcome::Succeeded, None, &[note("A")]).err())
    };
    let error = fail(&mut auditor);
    assert!(
        matches!(&error, Some(AuditError::File { error, .. }) if error.kind() == std::io::ErrorKind::StorageFull),
        "{error:?}"
    );
    assert!(auditor.record(Event::AccessFailed, Outcome::Failed, None, &[]).is_err());
    assert!(!read(&folder.log()).ends_with(b"\n"), "the kernel wrote what fitted");
    std::fs::remove_file(&ballast).unwrap();
    write(&mut auditor, 3);
    assert_eq!(assert_state(&[&folder.log()], State::Intact).quarantined, 1);
}
