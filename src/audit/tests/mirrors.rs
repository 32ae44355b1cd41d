//! Mirrors against sockets of the test's own: what they get, what they cannot get, and what is said of it.

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::sync::{Arc, Mutex};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use super::*;
use crate::audit::journal::Journal;
use crate::audit::mirror::{MirrorNews, Watch};

/// What was heard of mirrors.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<(u64, Vec<MirrorNews>)>>);

impl Heard {
    fn take(&self) -> (u64, Vec<MirrorNews>) {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Watch for Heard {
    fn lost(&mut self, records: u64) {
        self.0.lock().unwrap().0 += records;
    }

    fn news(&mut self, news: MirrorNews) {
        self.0.lock().unwrap().1.push(news);
    }
}

/// A writer of the folder's log with one mirror.
struct Mirrored {
    auditor: Auditor,
    heard: Heard,
}

impl Mirrored {
    fn new(folder: &Folder, mirror: Sink) -> Self {
        let heard = Heard::default();
        let sinks = [mirror, sink(&folder.log())];
        let mut auditor = Auditor::open(&sinks, context()).unwrap();
        auditor.mirrors = Mirrors::of(&sinks, Box::new(heard.clone()));
        Self { auditor, heard }
    }

    /// Writes records of about this many bytes.
    fn write(&mut self, bytes: usize) {
        let notes: Vec<_> = (0..bytes / 100).map(|index| note(&format!("NAME_{index}"))).collect();
        self.auditor.record(Event::SecretListed, Outcome::Succeeded, None, &notes).unwrap();
    }
}

fn bind(path: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(path).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

fn receive(socket: &UnixDatagram) -> Option<String> {
    let mut buffer = vec![0; 1 << 20];
    let count = socket.recv(&mut buffer).ok()?;
    buffer.truncate(count);
    Some(String::from_utf8(buffer).unwrap())
}

/// What a message of syslog says, without its header.
fn text(message: &str) -> &str {
    message.splitn(8, ' ').nth(7).unwrap()
}

#[test]
fn syslog_gets_the_very_line_in_one_message() {
    let folder = Folder::new();
    let path = folder.0.join("log.sock");
    let socket = bind(&path);
    let mut mirrored = Mirrored::new(&folder, Sink::Syslog(path));
    mirrored.write(200);
    mirrored.auditor.record(Event::AccessDenied, Outcome::Denied, None, &[note("A")]).unwrap();
    let log = lines(&folder.log());
    let (first, second) = (receive(&socket).unwrap(), receive(&socket).unwrap());
    assert_eq!((text(&first), text(&second)), (log[0].as_str(), log[1].as_str()));
    let time = log[0].split("\"time\":\"").nth(1).unwrap().split('"').next().unwrap();
    assert!(first.starts_with(&format!("<85>1 {time} ")) && first.contains(" secret.listed - {"), "{first}");
    assert!(second.starts_with("<84>1 ") && second.contains(" access.denied - {"), "{second}");
    assert_eq!(mirrored.heard.take(), (0, vec![]));
}

#[test]
fn a_syslog_that_listens_for_streams_gets_lines_and_is_found_again() {
    let folder = Folder::new();
    let path = folder.0.join("log.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut mirrored = Mirrored::new(&folder, Sink::Syslog(path.clone()));
    mirrored.write(100);
    mirrored.write(100);
    let (stream, _) = listener.accept().unwrap();
    stream.shutdown(std::net::Shutdown::Both).unwrap();
    drop((stream, listener));
    std::fs::remove_file(&path).unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    mirrored.write(100);
    drop(mirrored);
    let mut got = String::new();
    listener.accept().unwrap().0.read_to_string(&mut got).unwrap();
    let log = lines(&folder.log());
    assert_eq!(got.lines().map(text).collect::<Vec<_>>(), [log[2].as_str()]);
    assert!(got.ends_with('\n'));
}

#[test]
fn what_nobody_took_is_counted_and_said_before_the_next_one() {
    let folder = Folder::new();
    let path = folder.0.join("log.sock");
    let mut mirrored = Mirrored::new(&folder, Sink::Syslog(path.clone()));
    mirrored.write(100);
    mirrored.write(100);
    let (lost, news) = mirrored.heard.take();
    let [MirrorNews::Fails { mirror, why }] = news.as_slice() else { panic!("{news:?}") };
    assert_eq!((lost, mirror.as_str()), (2, &*format!("syslog `{}`", path.display())));
    assert_eq!(why, "no such file or directory");
    // Somebody binds it, and after its rest the mirror finds him.
    let socket = bind(&path);
    let first = loop {
        mirrored.write(100);
        match receive(&socket) {
            Some(message) => break message,
            None => std::thread::yield_now(),
        }
    };
    let (more, news) = mirrored.heard.take();
    let lost = lost + more;
    assert_eq!(text(&first), format!("not mirrored before the next one: {lost} audit records"));
    assert!(first.starts_with("<84>1 ") && first.contains(" mirror.lost - "), "{first}");
    assert!(matches!(news.as_slice(), [MirrorNews::Works { lost: told, .. }] if *told == lost), "{news:?}");
    assert_eq!(text(&receive(&socket).unwrap()), lines(&folder.log()).last().unwrap());
    // Another daemon in its place is found by the next record.
    std::fs::remove_file(&path).unwrap();
    let other = bind(&path);
    mirrored.write(100);
    assert_eq!(text(&receive(&other).unwrap()), lines(&folder.log()).last().unwrap());
    assert_eq!(receive(&socket), None);
}

#[test]
fn a_daemon_that_reads_nothing_holds_nothing_up() {
    let folder = Folder::new();
    let path = folder.0.join("log.sock");
    let socket = bind(&path);
    let mut mirrored = Mirrored::new(&folder, Sink::Syslog(path));
    let mut written = 0;
    let why = loop {
        mirrored.write(4000);
        written += 1;
        if let (1, news) = mirrored.heard.take() {
            break news;
        }
    };
    assert!(matches!(why.as_slice(), [MirrorNews::Fails { why, .. }] if why == "its queue is full"));
    let mut got = 0;
    while receive(&socket).is_some() {
        got += 1;
    }
    assert_eq!(got, written - 1);
    // Without a rest: there is room again.
    mirrored.write(100);
    assert_eq!(text(&receive(&socket).unwrap()), "not mirrored before the next one: 1 audit record");
    assert_eq!(text(&receive(&socket).unwrap()), lines(&folder.log()).last().unwrap());
    assert_state(&[&folder.log()], State::Intact);
}

#[test]
fn what_is_too_long_for_a_message_of_syslog_is_lost_whole() {
    let folder = Folder::new();
    let path = folder.0.join("log.sock");
    let socket = bind(&path);
    let mut mirrored = Mirrored::new(&folder, Sink::Syslog(path));
    mirrored.write(8 << 20);
    let (lost, news) = mirrored.heard.take();
    assert_eq!(lost, 1);
    assert!(
        matches!(news.as_slice(), [MirrorNews::Fails { why, .. }] if why == "the record is longer than a message may be"),
        "{news:?}"
    );
    mirrored.write(100);
    assert!(text(&receive(&socket).unwrap()).starts_with("not mirrored before the next one: 1 "));
    assert_eq!(text(&receive(&socket).unwrap()), lines(&folder.log())[1]);
}

/// The file that came with the next datagram, and what the datagram itself held.
fn receive_file(socket: &UnixDatagram) -> (Vec<u8>, Option<OwnedFd>) {
    let mut bytes = vec![0; 4096];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut into = [std::io::IoSliceMut::new(&mut bytes)];
    let received = rustix::net::recvmsg(socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let file = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    bytes.truncate(received.bytes);
    (bytes, file)
}

#[test]
fn journald_gets_the_line_as_a_message_and_a_large_one_as_a_sealed_file() {
    use rustix::fs::SealFlags;
    let folder = Folder::new();
    let path = folder.0.join("journal.sock");
    let socket = bind(&path);
    let mut mirrored = Mirrored::new(&folder, Sink::Journald(path));
    mirrored.write(100);
    mirrored.write(8 << 20);
    let log = lines(&folder.log());
    assert!(receive(&socket).unwrap().starts_with(&format!("MESSAGE={}\nMESSAGE_ID=", log[0])));
    let (bytes, file) = receive_file(&socket);
    assert_eq!(bytes, b"");
    let file = file.unwrap();
    let seals = rustix::fs::fcntl_get_seals(&file).unwrap();
    assert!(seals.contains(SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE), "{seals:?}");
    let mut file = File::from(file);
    std::io::Seek::rewind(&mut file).unwrap();
    let mut entry = String::new();
    file.read_to_string(&mut entry).unwrap();
    assert!(log[1].len() > 1 << 20 && entry.starts_with(&format!("MESSAGE={}\nMESSAGE_ID=", log[1])));
    assert!(entry.contains("\nVOUCHSAFE_SECRET=NAME_511\nVOUCHSAFE_SECRETS_OMITTED="));
    assert_eq!(mirrored.heard.take(), (0, vec![]));
}

#[test]
fn a_mirror_has_what_the_first_sink_has_its_own_records_too_and_nothing_that_another_one_refused() {
    let folder = Folder::new();
    let path = folder.0.join("journal.sock");
    let socket = bind(&path);
    write(&mut folder.auditor(), 1);
    File::options().append(true).open(folder.log()).unwrap().write_all(b"torn").unwrap();
    let mut mirrored = Mirrored::new(&folder, Sink::Journald(path));
    mirrored.write(100);
    let log = lines(&folder.log());
    assert!(log[2].contains("audit.quarantined"), "{log:?}");
    for line in &log[2..] {
        let entry = receive(&socket).unwrap();
        assert!(entry.starts_with(&format!("MESSAGE={line}\n")), "{entry}");
        assert_eq!(entry.contains("\nPRIORITY=4\n"), line.contains("audit.quarantined"));
    }
    assert_eq!(log.len(), 4);
    // A second sink that counts and does not take it: the access is refused, and the mirror says that it lacks a record.
    let broken = folder.0.join("second.jsonl");
    let second = sink(&broken);
    mirrored.auditor.sinks.extend(open_all(&[second], Assurance::File, None).unwrap());
    std::fs::remove_file(&broken).unwrap();
    std::fs::create_dir(&broken).unwrap();
    mirrored.auditor.record(Event::AccessRequested, Outcome::Allowed, None, &[]).unwrap_err();
    assert_eq!(receive(&socket), None);
    assert_eq!(mirrored.heard.take().0, 1);
    std::fs::remove_dir(&broken).unwrap();
    mirrored.write(100);
    assert!(receive(&socket).unwrap().starts_with("MESSAGE=not mirrored before the next one: 1 audit record\n"));
    assert!(receive(&socket).unwrap().starts_with(&format!("MESSAGE={}\n", lines(&folder.log())[5])));
}

#[test]
fn mirrors_alone_are_a_refusal_and_a_journal_has_them_too() {
    let folder = Folder::new();
    let path = folder.0.join("log.sock");
    let mirror = Sink::Syslog(path.clone());
    assert!(matches!(Auditor::open(std::slice::from_ref(&mirror), context()), Err(AuditError::OnlyMirrors)));
    let only = Journal::open(std::slice::from_ref(&mirror), None, Box::new(Heard::default()));
    assert!(matches!(only, Err(AuditError::OnlyMirrors)));
    let socket = bind(&path);
    let journal = Journal::open(&[sink(&folder.log()), mirror], None, Box::new(Heard::default())).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut access = journal.access(Arc::new(context())).unwrap();
        access.record(Event::AgentStarted, Outcome::Succeeded, None, &[]).await.unwrap();
    });
    assert_eq!(text(&receive(&socket).unwrap()), lines(&folder.log())[0]);
}
