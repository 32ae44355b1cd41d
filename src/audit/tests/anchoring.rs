//! Checkpoints on real files: what left the host in time cannot be taken back.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use super::*;
use crate::audit::verify::{Anchors, FindingKind};
use crate::policy::model::{Anchor, Checkpoints};

fn sink_to(folder: &Folder, every: u64, to: Vec<Anchor>) -> Sink {
    let checkpoints = Some(Checkpoints { every, interval: Duration::from_secs(3600), to });
    let path = folder.log().to_str().unwrap().to_owned();
    Sink::File { path, sync: false, evidence: Evidence { auditor: None, checkpoints } }
}

fn anchored(folder: &Folder, every: u64, to: Vec<Anchor>) -> Auditor {
    Auditor::open(&[sink_to(folder, every, to)], context()).unwrap()
}

fn key(folder: &Folder) -> VerifierKey {
    checkpoint(folder.log().to_str().unwrap()).unwrap().1
}

fn against(folder: &Folder, logs: &[PathBuf], file: &Path, start: Start) -> (State, Vec<FindingKind>) {
    let anchors = Anchors::load(&[file.to_owned()], &key(folder)).unwrap();
    let report = verify(logs, start, Means { anchors: Some(anchors), ..Means::default() }).unwrap();
    (report.state(), report.findings.into_iter().map(|finding| finding.kind).collect())
}

#[test]
fn a_checkpoint_comes_every_so_many_records_whoever_writes_them() {
    let folder = Folder::new();
    let out = folder.0.join("out");
    let to = || vec![Anchor::File(out.clone())];
    // The first record makes one: nothing was told before.
    for _ in 0..7 {
        write(&mut anchored(&folder, 3, to()), 1);
    }
    let notes = String::from_utf8(read(&out)).unwrap();
    let sizes: Vec<&str> =
        notes.lines().filter(|line| line.bytes().all(|byte| byte.is_ascii_digit()) && !line.is_empty()).collect();
    assert_eq!(sizes, ["1", "4", "7"]);
    assert_eq!(against(&folder, &[folder.log()], &out, Start::Beginning), (State::Intact, vec![]));
}

#[test]
fn what_is_cut_rewritten_or_replaced_is_found() {
    let folder = Folder::new();
    let out = folder.0.join("out");
    write(&mut anchored(&folder, 4, vec![Anchor::File(out.clone())]), 9);
    let (log, old) = (folder.log(), lines(&folder.log()));
    let check = || against(&folder, &[folder.log()], &out, Start::Beginning);
    let join = |lines: &[String]| lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect::<Vec<_>>();
    assert_eq!(check(), (State::Intact, vec![]));
    // Cut, with a head that says so.
    put(&log, &join(&old[..6]));
    std::fs::remove_file(folder.0.join("audit.jsonl.head")).unwrap();
    assert_eq!(check(), (State::Incomplete, vec![FindingKind::EndsBeforeCheckpoint { last: 6, seq: 9 }]));
    // And continued.
    write(&mut folder.auditor(), 5);
    assert_eq!(assert_state(&[&log], State::Intact).records, 12);
    assert_eq!(check(), (State::Tampered, vec![FindingKind::CheckpointDiffers { seq: 9 }]));
    // Another chain in its place.
    let other = Folder::new();
    write(&mut other.auditor(), 20);
    put(&log, &read(&other.log()));
    std::fs::copy(other.0.join("audit.jsonl.head"), folder.0.join("audit.jsonl.head")).unwrap();
    assert_eq!(check(), (State::Tampered, vec![FindingKind::CheckpointOfOtherChain { seq: 9 }]));
}

#[test]
fn rotated_logs_that_are_gone_are_missed_unless_that_is_meant() {
    let folder = Folder::new();
    let (out, first) = (folder.0.join("out"), folder.0.join("audit.jsonl.1"));
    write(&mut anchored(&folder, 4, vec![Anchor::File(out.clone())]), 6);
    std::fs::rename(folder.log(), &first).unwrap();
    write(&mut anchored(&folder, 4, vec![Anchor::File(out.clone())]), 6);
    let both = [first, folder.log()];
    assert_eq!(against(&folder, &both, &out, Start::Beginning), (State::Intact, vec![]));
    assert_eq!(against(&folder, &both[1..], &out, Start::Anywhere), (State::Intact, vec![]));
    let (state, found) = against(&folder, &both[1..], &out, Start::Beginning);
    assert_eq!(state, State::Incomplete);
    assert!(found.contains(&FindingKind::CheckpointWithoutRecord { seq: 5 }), "{found:?}");
    let turned = [both[1].clone(), both[0].clone()];
    assert_eq!(against(&folder, &turned, &out, Start::Anywhere).0, State::Tampered);
}

#[test]
fn two_histories_that_were_both_attested_are_found() {
    let folder = Folder::new();
    let out = folder.0.join("out");
    write(&mut anchored(&folder, 1, vec![Anchor::File(out.clone())]), 3);
    let old = lines(&folder.log());
    put(&folder.log(), format!("{}\n", old[0]).as_bytes());
    for name in ["audit.jsonl.head", "audit.jsonl.checkpoint"] {
        std::fs::remove_file(folder.0.join(name)).unwrap();
    }
    write(&mut anchored(&folder, 1, vec![Anchor::File(out.clone())]), 3);
    let (state, found) = against(&folder, &[folder.log()], &out, Start::Beginning);
    assert_eq!(state, State::Tampered);
    assert!(found.contains(&FindingKind::CheckpointsDiffer { seq: 3 }), "{found:?}");
}

#[test]
fn a_clock_that_was_set_back_is_counted_and_with_checkpoints_a_finding() {
    let folder = Folder::new();
    write(&mut folder.auditor(), 1);
    let context = context();
    let author = Author { context: &context, access: "0123456789abcdef" };
    let lists = Lists::default();
    let statement = Statement { event: Event::AccessDenied, outcome: Outcome::Denied, reason: None, detail: None };
    let mut file =
        FileSink::open(folder.log().to_str().unwrap(), false, &Evidence::default(), Assurance::File).unwrap();
    let now = SystemTime::now();
    // A little is the wait for the lock; an hour is not; and from there it goes on.
    for back in [4, 3600, 3599] {
        let draft = Draft::new(&author, statement, &lists, now - Duration::from_secs(back));
        file.write(&author, &[draft]).unwrap();
    }
    assert_eq!(assert_state(&[&folder.log()], State::Intact).clock_steps, 1);
    let out = folder.0.join("out");
    put(&out, checkpoint(folder.log().to_str().unwrap()).unwrap().0.as_bytes());
    let (state, found) = against(&folder, &[folder.log()], &out, Start::Beginning);
    assert_eq!(state, State::Incomplete);
    assert!(matches!(found.as_slice(), [FindingKind::ClockBack { seconds: 3599..=3600 }]), "{found:?}");
}

#[test]
fn syslog_gets_one_message_that_verifies() {
    let folder = Folder::new();
    let path = folder.0.join("log.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    write(&mut anchored(&folder, 100, vec![Anchor::Syslog(path)]), 2);
    let mut buffer = [0; 4096];
    let count = socket.recv(&mut buffer).unwrap();
    let message = String::from_utf8_lossy(&buffer[..count]).into_owned();
    assert!(message.starts_with("<85>1 ") && message.contains(" vouchsafe "), "{message}");
    assert_eq!(message.lines().count(), 1);
    let collected = folder.0.join("messages");
    put(&collected, format!("Jan  2 03:04:05 host something else\n{message}\n").as_bytes());
    assert_eq!(against(&folder, &[folder.log()], &collected, Start::Beginning), (State::Intact, vec![]));
}

#[test]
fn a_program_gets_the_note_and_one_that_others_could_have_written_is_not_run() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let (program, out) = (folder.0.join("anchor"), folder.0.join("out"));
    put(&program, format!("#!/bin/sh\nprintf '%s' \"$VOUCHSAFE_CHECKPOINT\" >>'{}'\n", out.display()).as_bytes());
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
    write(&mut anchored(&folder, 100, vec![Anchor::Command(program.clone())]), 2);
    assert_eq!(against(&folder, &[folder.log()], &out, Start::Beginning), (State::Intact, vec![]));
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o702)).unwrap();
    let before = read(&out);
    write(&mut anchored(&folder, 1, vec![Anchor::Command(program)]), 1);
    assert_eq!(read(&out), before);
    let last = lines(&folder.log()).pop().unwrap();
    assert!(last.contains("\"event\":\"audit.checkpoint_failed\"") && last.contains("anchor"), "{last}");
}

#[test]
fn what_cannot_be_delivered_is_written_down_and_holds_nothing_up() {
    let folder = Folder::new();
    let nowhere = vec![Anchor::File(folder.0.join("none/out")), Anchor::Syslog(folder.0.join("none.sock"))];
    let mut auditor = anchored(&folder, 2, nowhere);
    write(&mut auditor, 1);
    let log = lines(&folder.log());
    assert_eq!(log.len(), 2);
    assert!(log[1].contains("audit.checkpoint_failed") && log[1].contains("none/out") && log[1].contains("none.sock"));
    // Not at each record.
    write(&mut auditor, 1);
    assert_eq!(lines(&folder.log()).len(), 4, "the failure was a record too, so another one was due");
    write(&mut auditor, 1);
    assert_eq!(lines(&folder.log()).len(), 5 + 1);
    assert_state(&[&folder.log()], State::Intact);
}

#[test]
fn the_agent_delivers_beside_its_accesses() {
    let folder = Folder::new();
    let out = folder.0.join("out");
    let fifo = folder.0.join("done");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    // A program that does not end until it is let: the accesses go on.
    let program = folder.0.join("anchor");
    let script = format!(
        "#!/bin/sh\nread line <'{}'\nprintf '%s' \"$VOUCHSAFE_CHECKPOINT\" >>'{}'\n",
        fifo.display(),
        out.display()
    );
    put(&program, script.as_bytes());
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let journal = crate::audit::journal::Journal::open(
        &[sink_to(&folder, 1, vec![Anchor::Command(program)])],
        None,
        Box::new(Warn),
    )
    .unwrap();
    let mut access = journal.access(std::sync::Arc::new(context())).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let started = std::time::Instant::now();
    for _ in 0..5 {
        drop(runtime.block_on(access.release((), &[note("A")])).unwrap());
    }
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    File::options().write(true).open(&fifo).unwrap().write_all(b"go\n").unwrap();
    while !out.exists() || read(&out).is_empty() {
        assert!(started.elapsed() < Duration::from_secs(60), "it never came");
        std::thread::yield_now();
    }
    assert_eq!(against(&folder, &[folder.log()], &out, Start::Beginning), (State::Intact, vec![]));
}
