//! Seals on real files: who has the host as it is cannot change what it was.

use std::os::unix::fs::FileExt;

use ::age::secrecy::ExposeSecret;

use super::*;
use crate::audit::chain::{Tail, whole_record};
use crate::audit::seal::state::{Kept, StateFile};
use crate::audit::verify::{FindingKind, Seals};

/// An auditor, whose key lies outside of the host.
pub(super) struct Auditing {
    folder: Folder,
    key: PathBuf,
    recipient: String,
    seeds: Vec<PathBuf>,
}

/// Begins the seals of a folder's log, for nobody in particular.
pub(super) fn begin(folder: &Folder) -> Begun {
    let recipient = ::age::x25519::Identity::generate().to_public().to_string();
    seal_log(folder.log().to_str().unwrap(), &recipient, None).unwrap()
}

impl Auditing {
    fn new() -> Self {
        let folder = Folder::new();
        let identity = ::age::x25519::Identity::generate();
        let key = folder.0.join("auditor.key");
        put(&key, identity.to_string().expose_secret().as_bytes());
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        Self { folder, key, recipient: identity.to_public().to_string(), seeds: Vec::new() }
    }

    /// With a log of so many records, all of them sealed.
    fn sealed(count: usize) -> Self {
        let mut auditing = Self::new();
        auditing.init().unwrap();
        write(&mut auditing.folder.auditor(), count - 1);
        auditing
    }

    fn init(&mut self) -> Result<Begun, AuditError> {
        let begun = seal_log(self.log().to_str().unwrap(), &self.recipient, None)?;
        self.seeds.push(begun.seed.clone());
        Ok(begun)
    }

    fn log(&self) -> PathBuf {
        self.folder.log()
    }

    fn state_file(&self) -> PathBuf {
        self.folder.0.join("audit.jsonl.seal")
    }

    /// Writes with a sink that demands seals.
    fn demanding(&self) -> Result<Auditor, AuditError> {
        let evidence = Evidence { auditor: Some(self.recipient.clone()), checkpoints: None };
        let path = self.log().to_str().unwrap().to_owned();
        Auditor::open(&[Sink::File { path, sync: false, evidence }], context())
    }

    fn found(&self) -> (State, Vec<FindingKind>) {
        let report = self.report(&[self.log()]);
        (report.state(), report.findings.into_iter().map(|finding| finding.kind).collect())
    }

    fn report(&self, logs: &[PathBuf]) -> Report {
        let seals = Seals::load(&self.seeds, std::slice::from_ref(&self.key)).unwrap();
        verify(logs, Start::Beginning, Means { seals: Some(seals), ..Means::default() }).unwrap()
    }
}

#[test]
fn every_record_is_sealed_from_the_first_on() {
    let auditing = Auditing::sealed(20);
    let report = auditing.report(&[auditing.log()]);
    assert_eq!((report.state(), report.records, report.sealed, report.unproven), (State::Intact, 20, 20, 0));
    assert!(lines(&auditing.log())[0].contains("\"event\":\"audit.sealing_begun\""));
    // Without a seed they are a chain like any other.
    let report = assert_state(&[&auditing.log()], State::Intact);
    assert_eq!((report.sealed, report.unproven), (0, 20));
}

#[test]
fn a_log_that_was_not_sealed_before_is_from_then_on() {
    let mut auditing = Auditing::new();
    write(&mut auditing.folder.auditor(), 3);
    let begun = auditing.init().unwrap();
    assert_eq!((begun.first, begun.anew), (4, false));
    write(&mut auditing.folder.auditor(), 2);
    let report = auditing.report(&[auditing.log()]);
    assert_eq!((report.state(), report.sealed, report.unproven), (State::Intact, 3, 3));
    assert!(matches!(auditing.init(), Err(AuditError::Sealed { .. })));
}

/// The whole point: somebody has the state of now, the log and the head, and makes a perfect chain of what he would have liked
/// to have happened.
#[test]
fn whoever_has_the_present_key_cannot_rewrite_the_past() {
    let auditing = Auditing::sealed(10);
    let state = || match StateFile::look(&auditing.log()).unwrap() {
        Kept::State(_, state) => state,
        Kept::Nothing | Kept::Damaged => panic!("no state"),
    };
    let old = lines(&auditing.log());
    // Rechained from the fifth on, each sealed as well as can be: by the present key, and by those after it.
    let mut key = state().key;
    let mut out: Vec<u8> = old[..4].iter().flat_map(|line| format!("{line}\n").into_bytes()).collect();
    let mut chain = whole_record(old[3].as_bytes()).unwrap().chain;
    for line in &old[4..] {
        let start = out.len();
        let end = line.find(",\"stream\":").unwrap();
        out.extend_from_slice(line[..end].replace("NAME_5", "NAME_X").as_bytes());
        chain = chain.seal_by(&mut out, start, Some(&key.record_key()));
        key = key.next();
    }
    put(&auditing.log(), &out);
    assert_eq!(verify_bytes(&out, Start::Beginning).state(), State::Intact, "the chain by itself is perfect");
    let (state, found) = auditing.found();
    assert_eq!(state, State::Tampered);
    // The head, which is not rewritten here, tells too.
    let wrong: Vec<_> = found.iter().filter(|kind| matches!(kind, FindingKind::SealWrong { .. })).collect();
    assert_eq!(wrong.len(), 6);
    assert_eq!(wrong[0], &FindingKind::SealWrong { seq: 5 });
}

#[test]
fn a_record_without_its_seal_is_found() {
    let auditing = Auditing::sealed(5);
    let old = lines(&auditing.log());
    let (mut out, mut chain) = (Vec::new(), None);
    for line in &old {
        let tail = Tail::read(line.as_bytes()).unwrap();
        let start = out.len();
        out.extend_from_slice(&line.as_bytes()[..line.find(",\"stream\":").unwrap()]);
        chain = Some(chain.unwrap_or_else(|| chain::Chain::begin(tail.chain.stream)).seal(&mut out, start));
    }
    put(&auditing.log(), &out);
    let (state, found) = auditing.found();
    assert_eq!(state, State::Tampered);
    // The first says that an epoch begins whose seed is there, so that excuses nothing.
    let missing = found.iter().filter(|kind| matches!(kind, FindingKind::SealMissing { .. })).count();
    assert_eq!(missing, 5, "{found:?}");
}

#[test]
fn a_fresh_chain_in_the_place_of_the_sealed_one_is_found() {
    let auditing = Auditing::sealed(5);
    let other = Folder::new();
    write(&mut other.auditor(), 5);
    put(&auditing.log(), &read(&other.log()));
    std::fs::copy(other.0.join("audit.jsonl.head"), auditing.folder.0.join("audit.jsonl.head")).unwrap();
    assert_state(&[&auditing.log()], State::Intact);
    assert_eq!(auditing.found(), (State::Tampered, vec![FindingKind::ChainWithoutSeed]));
}

#[test]
fn a_log_that_was_cut_cannot_go_on_as_if_nothing_had_happened() {
    let auditing = Auditing::sealed(10);
    // With the head set back as well: only the state knows.
    let head = auditing.folder.0.join("audit.jsonl.head");
    let old = lines(&auditing.log());
    put(&auditing.log(), &old[..6].iter().flat_map(|line| format!("{line}\n").into_bytes()).collect::<Vec<_>>());
    std::fs::remove_file(head).unwrap();
    write(&mut auditing.folder.auditor(), 1);
    let now = lines(&auditing.log());
    assert!(now[6].contains("\"event\":\"audit.discontinuity\"") && now[6].contains("\"seq\":11,"), "{}", now[6]);
    let (state, found) = auditing.found();
    assert_eq!((state, found), (State::Incomplete, vec![FindingKind::Gap { from: 7, to: 10 }]));
}

/// A writer that was killed between the log and the state; a power cut that took the state's last pages.
#[test]
fn a_state_that_is_behind_its_log_is_evolved() {
    let auditing = Auditing::sealed(4);
    let old = read(&auditing.state_file());
    write(&mut auditing.folder.auditor(), 30);
    assert_ne!(read(&auditing.state_file()), old);
    File::options().write(true).open(auditing.state_file()).unwrap().write_all_at(&old, 0).unwrap();
    write(&mut auditing.folder.auditor(), 3);
    let report = auditing.report(&[auditing.log()]);
    assert_eq!((report.state(), report.sealed), (State::Intact, 37));
}

#[test]
fn the_key_that_was_used_is_overwritten_in_its_place() {
    let auditing = Auditing::sealed(4);
    let (old, file) = (read(&auditing.state_file()), File::open(auditing.state_file()).unwrap());
    let key = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap().split(' ').nth(6).unwrap().to_owned();
    write(&mut auditing.folder.auditor(), 1);
    let mut now = vec![0; old.len()];
    file.read_exact_at(&mut now, 0).unwrap();
    assert_eq!(now, read(&auditing.state_file()), "the same file as before, not another one in its place");
    assert_eq!(key(&old).len(), 64);
    assert_ne!(key(&now), key(&old));
    for name in std::fs::read_dir(&auditing.folder.0).unwrap().map(|entry| entry.unwrap().path()) {
        assert!(!String::from_utf8_lossy(&read(&name)).contains(&key(&old)), "{name:?}");
    }
}

#[test]
fn a_lost_state_is_a_refusal_where_nobody_is_named() {
    for damage in [None, Some(&b"vouchsafe-audit-seal/1 nonsense\n"[..])] {
        let auditing = Auditing::sealed(3);
        std::fs::remove_file(auditing.state_file()).unwrap();
        if let Some(bytes) = damage {
            put(&auditing.state_file(), bytes);
            std::fs::set_permissions(auditing.state_file(), std::os::unix::fs::PermissionsExt::from_mode(0o600))
                .unwrap();
        }
        let refused = auditing.folder.auditor().record(Event::SecretListed, Outcome::Succeeded, None, &[]);
        assert!(matches!(refused, Err(AuditError::SealLost { .. })), "{refused:?}");
        assert_eq!(lines(&auditing.log()).len(), 3);
    }
}

#[test]
fn a_lost_state_is_a_new_epoch_and_a_finding_where_an_auditor_is_named() {
    let mut auditing = Auditing::sealed(3);
    std::fs::remove_file(auditing.state_file()).unwrap();
    write(&mut auditing.demanding().unwrap(), 2);
    // The auditor has the first seed only.
    let (state, found) = auditing.found();
    assert_eq!(state, State::Incomplete);
    assert!(matches!(found.as_slice(), [FindingKind::UnknownEpoch { seq: 4, .. }]), "{found:?}");
    // The other one lies beside the log, for him.
    let entries = std::fs::read_dir(&auditing.folder.0).unwrap().map(|entry| entry.unwrap().path());
    let seed = entries.filter(|path| path.extension().is_some_and(|end| end == "age"));
    auditing.seeds = seed.collect();
    assert_eq!(auditing.seeds.len(), 2);
    let report = auditing.report(&[auditing.log()]);
    assert_eq!((report.state(), report.sealed), (State::Incomplete, 6));
    assert_eq!(report.findings[0].kind, FindingKind::NewEpoch { seq: 4 });
}

#[test]
fn a_sink_that_names_an_auditor_takes_no_record_unsealed() {
    let mut auditing = Auditing::new();
    let refused = auditing.demanding().unwrap().record(Event::SecretListed, Outcome::Succeeded, None, &[]);
    assert!(matches!(refused, Err(AuditError::NotSealed { .. })), "{refused:?}");
    assert_eq!(read(&auditing.log()), b"");
    auditing.init().unwrap();
    write(&mut auditing.demanding().unwrap(), 1);
    assert_eq!(auditing.report(&[auditing.log()]).sealed, 2);
    auditing.recipient = "age1nobody".into();
    assert!(matches!(auditing.demanding().map(drop), Err(AuditError::Auditor(_))));
}

#[test]
fn seals_go_on_over_rotated_logs_and_torn_lines() {
    let auditing = Auditing::sealed(5);
    let first = auditing.folder.0.join("audit.jsonl.1");
    std::fs::rename(auditing.log(), &first).unwrap();
    write(&mut auditing.folder.auditor(), 5);
    let mut torn = read(&auditing.log());
    torn.extend_from_slice(b"{\"schema\":\"vouchsafe.audit/1\",\"ass");
    put(&auditing.log(), &torn);
    write(&mut auditing.folder.auditor(), 5);
    let report = auditing.report(&[first, auditing.log()]);
    assert_eq!((report.state(), report.sealed, report.quarantined), (State::Intact, 16, 1), "{:?}", report.findings);
}

/// A log whose records call themselves a stream's may hold several chains, and lines of others; but not the sealed one.
#[test]
fn a_sealed_chain_cannot_go_on_as_a_stream() {
    let auditing = Auditing::sealed(4);
    let old = lines(&auditing.log());
    let (mut out, mut chain) = (Vec::new(), whole_record(old[1].as_bytes()).unwrap().chain);
    for line in &old[2..] {
        let (start, end) = (out.len(), line.find(",\"stream\":").unwrap());
        out.extend_from_slice(line[..end].replace("\"assurance\":\"file\"", "\"assurance\":\"stream\"").as_bytes());
        chain = chain.seal(&mut out, start);
    }
    let second = auditing.folder.0.join("second");
    put(&second, &out);
    put(&auditing.log(), format!("{}\n{}\n", old[0], old[1]).as_bytes());
    let report = auditing.report(&[auditing.log(), second]);
    assert_eq!(report.state(), State::Tampered, "{:?}", report.findings);
    let missing = report.findings.iter().filter(|finding| matches!(finding.kind, FindingKind::SealMissing { .. }));
    assert_eq!(missing.count(), 2);
}

#[test]
fn an_absurd_number_does_not_keep_verify_busy() {
    let auditing = Auditing::sealed(3);
    let mut bytes = read(&auditing.log());
    let (start, last) = (bytes.len(), lines(&auditing.log()).pop().unwrap());
    let chain = chain::Chain { seq: u64::MAX - 7, ..whole_record(last.as_bytes()).unwrap().chain };
    bytes.extend_from_slice(&last.as_bytes()[..last.find(",\"stream\":").unwrap()]);
    chain.seal(&mut bytes, start);
    put(&auditing.log(), &bytes);
    let (state, found) = auditing.found();
    assert_eq!(state, State::Tampered);
    assert!(found.contains(&FindingKind::SealTooFar { seq: u64::MAX - 6 }), "{found:?}");
}

#[test]
fn many_writers_seal_one_log() {
    let auditing = Auditing::sealed(1 + 1);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| write(&mut auditing.folder.auditor(), 25));
        }
    });
    let report = auditing.report(&[auditing.log()]);
    assert_eq!((report.state(), report.sealed), (State::Intact, 102), "{:?}", report.findings);
}

#[test]
fn the_journal_of_the_agent_seals_what_it_writes_together() {
    let mut auditing = Auditing::new();
    auditing.init().unwrap();
    let evidence = Evidence { auditor: Some(auditing.recipient.clone()), checkpoints: None };
    let path = auditing.log().to_str().unwrap().to_owned();
    let journal =
        crate::audit::journal::Journal::open(&[Sink::File { path, sync: false, evidence }], None, Box::new(Warn))
            .unwrap();
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(tokio::task::LocalSet::new().run_until(
        async {
            let tasks: Vec<_> = (0..100)
                .map(|index| {
                    let mut access = journal.access(std::sync::Arc::new(context())).unwrap();
                    let notes = [note(&format!("NAME_{index}"))];
                    tokio::task::spawn_local(async move { access.release((), &notes).await.map(drop) })
                })
                .collect();
            for task in tasks {
                task.await.unwrap().unwrap();
            }
        },
    ));
    assert!(lines(&auditing.log()).iter().all(|line| line.contains("\"assurance\":\"agent\"")));
    let report = auditing.report(&[auditing.log()]);
    assert_eq!((report.state(), report.sealed), (State::Intact, 101), "{:?}", report.findings);
}
