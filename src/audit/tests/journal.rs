//! Many accesses through one writer.

use std::sync::Arc;

use super::*;
use crate::audit::journal::Journal;

fn with_runtime<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

#[test]
fn many_accesses_at_once_make_one_whole_chain() {
    let folder = Folder::new();
    let journal = Journal::open(&[sink(&folder.log())], None, Box::new(Warn)).unwrap();
    with_runtime(tokio::task::LocalSet::new().run_until(async {
        let tasks: Vec<_> = (0..300)
            .map(|index| {
                let mut access = journal.access(Arc::new(context())).unwrap();
                tokio::task::spawn_local(async move {
                    access.note_request_ids([format!("id-{index}")]);
                    let notes = [note(&format!("NAME_{index}"))];
                    access.record(Event::SecretRefreshed, Outcome::Succeeded, None, &notes).await.unwrap();
                    let released = access.release(index, &notes).await.unwrap();
                    (access.id().to_owned(), released.into_inner())
                })
            })
            .collect();
        for (index, task) in tasks.into_iter().enumerate() {
            let (access, released) = task.await.unwrap();
            assert_eq!(released, index);
            let own: Vec<String> =
                lines(&folder.log()).into_iter().filter(|line| line.contains(access.as_str())).collect();
            assert_eq!(own.len(), 2);
            assert!(own[0].contains(&format!("\"id-{index}\"")) && !own[1].contains("\"id-"));
            assert!(own.iter().all(|line| line.contains(&format!("\"NAME_{index}\""))));
            assert!(own.iter().all(|line| line.contains("\"assurance\":\"agent\"")));
        }
    }));
    assert_eq!(lines(&folder.log()).len(), 600);
    assert_state(&[&folder.log()], State::Intact);
}

#[test]
fn a_log_that_cannot_be_written_refuses_until_it_can() {
    let folder = Folder::new();
    let journal = Journal::open(&[sink(&folder.log())], None, Box::new(Warn)).unwrap();
    let mut access = journal.access(Arc::new(context())).unwrap();
    let mut release = || with_runtime(access.release((), &[note("A")])).map(drop);
    release().unwrap();
    let head = folder.0.join("audit.jsonl.head");
    let aside = folder.0.join("aside");
    std::fs::rename(&head, &aside).unwrap();
    std::fs::create_dir(&head).unwrap();
    for _ in 0..2 {
        let error = release().unwrap_err();
        assert!(matches!(error, AuditError::Together(_)), "{error}");
        assert!(error.to_string().contains("audit.jsonl.head"), "{error}");
    }
    std::fs::remove_dir(&head).unwrap();
    std::fs::rename(&aside, &head).unwrap();
    release().unwrap();
    assert_eq!(lines(&folder.log()).len(), 2);
    assert_state(&[&folder.log()], State::Intact);
}

#[test]
fn a_journal_needs_a_sink_that_works() {
    let folder = Folder::new();
    assert!(matches!(Journal::open(&[], None, Box::new(Warn)), Err(AuditError::NoSink)));
    let missing = folder.0.join("missing/x.jsonl");
    assert!(matches!(Journal::open(&[sink(&missing)], None, Box::new(Warn)), Err(AuditError::MissingFolder { .. })));
}
