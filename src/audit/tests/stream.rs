//! The stream sink: parts, full pipes, closed ends, collected logs.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use super::*;

/// Records of one process as a collector gets them: `small` of one secret, then one of `many`.
pub(in crate::audit) fn written(small: usize, many: usize) -> Vec<u8> {
    let (reader, writer) = rustix::pipe();
    let mut auditor = on(&writer).unwrap();
    let thread = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        File::from(reader).read_to_end(&mut bytes).unwrap();
        bytes
    });
    write(&mut auditor, small);
    if many > 0 {
        let notes: Vec<_> = (0..many).map(|index| note(&format!("NAME_{index}"))).collect();
        auditor.record(Event::AccessDenied, Outcome::Denied, None, &notes).unwrap();
    }
    drop((auditor, writer));
    thread.join().unwrap()
}

mod rustix {
    pub(super) use ::rustix::*;
    use std::os::fd::OwnedFd;

    /// A pipe, without rustix's feature for it.
    pub(super) fn pipe() -> (OwnedFd, OwnedFd) {
        let (reader, writer) = std::io::pipe().unwrap();
        (reader.into(), writer.into())
    }
}

/// As a descriptor that the process was started with: exec leaves it open.
fn inheritable(fd: &OwnedFd) -> i32 {
    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).unwrap();
    fd.as_raw_fd()
}

fn on(fd: &OwnedFd) -> Result<Auditor, AuditError> {
    Auditor::open(&[Sink::Fd(inheritable(fd))], context())
}

fn verified(bytes: &[u8]) -> Report {
    let folder = Folder::new();
    put(&folder.log(), bytes);
    check(&[&folder.log()])
}

#[test]
fn a_long_record_comes_in_parts_that_hold_everything() {
    let bytes = written(1, 500);
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    assert!(lines.len() > 10 && lines.iter().all(|line| line.len() <= 4096));
    let mut names = Vec::new();
    for (index, line) in lines.iter().enumerate().skip(1) {
        let value: serde_json::Value = serde_json::from_slice(line).unwrap();
        assert_eq!(
            (&value["record"], &value["part"], &value["parts"]),
            (&2.into(), &index.into(), &(lines.len() - 1).into())
        );
        assert_eq!(value["actor"].is_object(), index == 1);
        let secrets = value["secrets"].as_array().unwrap();
        names.extend(secrets.iter().map(|secret| secret["name"].as_str().unwrap().to_owned()));
    }
    assert_eq!(names, (0..500).map(|index| format!("NAME_{index}")).collect::<Vec<_>>());
    assert_eq!(verified(&bytes).state(), State::Intact);
    assert_eq!(verified(&lines[..5].concat()).state(), State::Incomplete);
    assert_eq!(verified(&[&lines[..5], &lines[6..]].concat().concat()).state(), State::Incomplete);
}

#[test]
fn the_longest_that_there_can_be_fits() {
    let (reader, writer) = rustix::pipe();
    let long = "\u{202e}".repeat(100_000);
    let actor = Actor {
        uid: u32::MAX,
        user: Some(long.clone()),
        groups: vec![u32::MAX; 65536],
        pid: u32::MAX,
        ppid: u32::MAX,
        tty: Some(long.clone()),
        host: long.clone(),
        container_id: Some(long.clone()),
        process: ProcessIdentity {
            boot_id: Some(long.clone()),
            pid_namespace: Some(u64::MAX),
            start_ticks: Some(u64::MAX),
        },
        agent: Some(AgentNote { uid: u32::MAX, pid: u32::MAX }),
    };
    let longest = Context {
        actor,
        environment: Some(EnvironmentName::new("e".repeat(64)).unwrap()),
        service: Some(ServiceName::new("s".repeat(64)).unwrap()),
        policy_digest: long.clone(),
        command: Some(CommandNote { path: long.clone(), argument_count: usize::MAX }),
    };
    let mut auditor = Auditor::open(&[Sink::Fd(inheritable(&writer))], longest).unwrap();
    let note = SecretNote {
        name: long.clone(),
        store: long.clone(),
        item: long.clone(),
        version: Some(u64::MAX),
        stage: Some("previous"),
        stale_seconds: Some(u64::MAX),
        ..SecretNote::default()
    };
    auditor.note_request_ids([long.clone()]);
    auditor.record(Event::SecretWriteRequested, Outcome::Succeeded, Some(&long), &[note.clone(), note]).unwrap();
    drop((auditor, writer));
    let mut bytes = Vec::new();
    File::from(reader).read_to_end(&mut bytes).unwrap();
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    assert!(lines.iter().all(|line| line.len() <= 4096), "{:?}", lines.iter().map(|l| l.len()).collect::<Vec<_>>());
    assert_eq!(verified(&bytes).state(), State::Intact);
}

#[test]
fn collected_streams_may_interleave_with_each_other_and_with_the_application() {
    let (a, b) = (written(4, 0), written(4, 100));
    let mut a = a.split_inclusive(|byte| *byte == b'\n');
    let mut log = b"starting up\n".to_vec();
    for line in b.split_inclusive(|byte| *byte == b'\n') {
        log.extend_from_slice(line);
        log.extend_from_slice(b"{\"level\":\"info\"}\n\xff\n");
        if let Some(line) = a.next() {
            log.extend_from_slice(b"2026-01-02T03:04:05Z stderr F ");
            log.extend_from_slice(line);
        }
    }
    let report = verified(&log);
    assert_eq!(report.state(), State::Intact, "{:?}", report.findings);
    assert_eq!(report.streams, 2);
    assert!(report.foreign_lines > 10);
    let cut = String::from_utf8_lossy(&log).replacen("\"seq\":2,", "\"seq\":9,", 1);
    assert_eq!(verified(cut.as_bytes()).state(), State::Tampered);
}

#[test]
fn a_pipe_that_nobody_reads_is_given_up_after_two_seconds() {
    let (reader, writer) = rustix::pipe();
    for nonblocking in [false, true] {
        let flags = if nonblocking { rustix::fs::OFlags::NONBLOCK } else { rustix::fs::OFlags::empty() };
        rustix::fs::fcntl_setfl(&writer, flags).unwrap();
        let mut auditor = on(&writer).unwrap();
        let started = Instant::now();
        let error = (0..10_000).find_map(|_| auditor.record(Event::SecretListed, Outcome::Succeeded, None, &[]).err());
        assert!(matches!(error, Some(AuditError::Full { .. })), "{error:?}");
        assert!((1900..4000).contains(&started.elapsed().as_millis()));
        assert!(auditor.record(Event::AccessFailed, Outcome::Failed, None, &[]).is_err(), "what it holds is not known");
        assert_eq!(rustix::fs::fcntl_getfl(&writer).unwrap().contains(rustix::fs::OFlags::NONBLOCK), nonblocking);
    }
    drop(reader);
}

#[test]
fn descriptors_that_keep_nothing_are_refused() {
    let (reader, writer) = rustix::pipe();
    assert!(matches!(on(&reader), Err(AuditError::Descriptor { .. })), "the reading end");
    let mut auditor = on(&writer).unwrap();
    drop(reader);
    assert!(matches!(
        auditor.record(Event::SecretListed, Outcome::Succeeded, None, &[]),
        Err(AuditError::Stream { error, .. }) if error.kind() == std::io::ErrorKind::BrokenPipe
    ));
    assert!(matches!(Auditor::open(&[Sink::Fd(1 << 20)], context()), Err(AuditError::Descriptor { .. })), "closed");
    let (_reader, ours) = rustix::pipe();
    let opened = Auditor::open(&[Sink::Fd(ours.as_raw_fd())], context());
    assert!(matches!(opened, Err(AuditError::Descriptor { .. })), "opened by the process itself");
    let device = |path| OwnedFd::from(File::options().write(true).open(path).unwrap());
    assert!(matches!(on(&device("/dev/null")), Err(AuditError::Descriptor { .. })));
    let full = device("/dev/full");
    let error = on(&full).unwrap().record(Event::SecretListed, Outcome::Succeeded, None, &[]);
    assert!(matches!(error, Err(AuditError::Stream { error, .. }) if error.kind() == std::io::ErrorKind::StorageFull));
}

#[test]
fn a_socket_works_as_a_pipe_does() {
    // What systemd gives a unit as standard error.
    let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
    let writer = OwnedFd::from(writer);
    let mut auditor = on(&writer).unwrap();
    write(&mut auditor, 3);
    let started = Instant::now();
    let error = (0..10_000).find_map(|_| auditor.record(Event::SecretListed, Outcome::Succeeded, None, &[]).err());
    assert!(matches!(error, Some(AuditError::Full { .. })), "{error:?}");
    assert!((1900..4000).contains(&started.elapsed().as_millis()));
    drop((auditor, writer));
    let mut bytes = Vec::new();
    File::from(OwnedFd::from(reader)).read_to_end(&mut bytes).unwrap();
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    assert_eq!(verified(&bytes[..whole]).state(), State::Intact);
}
