//! Records as they come from real sinks and as nobody would write them, read whole, in parts, filtered, and added up.

use proptest::prelude::*;

use super::processes::{Here, Look};
use super::*;
use crate::audit::{Event, Outcome, ProcessIdentity, SecretNote};
use crate::policy::pattern::Pattern;

/// Reads bytes as one log.
pub(in crate::audit) fn read_all(bytes: &[u8], each: impl FnMut(&Record<'_>, &[&[u8]])) -> Counts {
    read_all_of(Reader::default(), bytes, each)
}

/// Reads anything as one log.
pub(in crate::audit) fn read_all_of(
    mut reader: Reader,
    log: impl std::io::Read,
    mut each: impl FnMut(&Record<'_>, &[&[u8]]),
) -> Counts {
    let mut log = std::io::BufReader::with_capacity(256 * 1024, log);
    let mut visit = |seen: Seen<'_>| {
        if let Seen::Record(record, lines) = seen {
            each(record, lines);
        }
        Ok::<(), std::io::Error>(())
    };
    reader.read(&mut log, &mut visit).unwrap();
    reader.end_log(&mut visit).unwrap();
    reader.end(&mut visit).unwrap();
    reader.counts()
}

fn counts(records: u64, others: u64) -> Counts {
    Counts { records, others }
}

/// One line. `more` are members, each with its comma.
fn line(access: u64, second: u32, event: &str, outcome: &str, more: &str) -> String {
    format!(
        "{{\"schema\":\"vouchsafe.audit/1\",\"assurance\":\"file\",\"time\":\"{}\",\"access\":\"{access:016x}\",\
         \"event\":\"{event}\",\"outcome\":\"{outcome}\",\"environment\":\"prod\",\"service\":\"api\"{more},\
         \"stream\":\"{:032x}\",\"seq\":1,\"prev\":\"\",\"hash\":\"\"}}\n",
        time(second),
        7
    )
}

fn time(second: u32) -> String {
    format!("2026-01-02T03:{:02}:{:02}.000000Z", second / 60, second % 60)
}

fn by(pid: u32) -> String {
    format!(
        ",\"actor\":{{\"uid\":1000,\"user\":\"api\",\"groups\":[],\"pid\":{pid},\"ppid\":1,\"host\":\"host-1\",\
         \"boot_id\":\"{}\",\"pid_namespace\":1,\"start_ticks\":500}},\"command\":{{\"path\":\"/usr/bin/api\",\"arguments\":0}}",
        "b".repeat(32)
    )
}

fn of(version: u64) -> String {
    format!(
        ",\"secrets\":[{{\"name\":\"A\",\"store\":\"s\",\"item\":\"a\",\"version\":{version},\"stage\":\"current\"}}]"
    )
}

fn released(access: u64, second: u32, pid: u32, version: u64) -> String {
    line(access, second, "access.released", "succeeded", &(by(pid) + &of(version)))
}

fn written(second: u32, event: &str, version: u64) -> String {
    line(999, second, event, "succeeded", &(by(1) + &of(version)))
}

/// Processes 1 to 9 run, and no other.
fn holders<'k>(wanted: &str, scope: Scope) -> Holders<'k> {
    let process = ProcessIdentity { boot_id: Some("b".repeat(32)), pid_namespace: Some(1), start_ticks: None };
    let here = Here { process, host: "host-1".into(), booted: None };
    let look = |pid| if pid < 10 { Look::Started(500) } else { Look::Absent };
    Holders::new(Wanted::parse(wanted).unwrap(), scope, Processes::new(here, look))
}

/// `VERSION STATE PID xTIMES`, `!` where it is not the current version; the current version first.
fn said(items: &[Item]) -> Vec<String> {
    let holder = |item: &Item, holder: &Holder| {
        let version = holder.version.map_or_else(|| "-".to_owned(), |version| version.to_string());
        let mark = if item.is_stale(holder) { "!" } else { "" };
        format!("{version}{mark} {} {} x{}", holder.life.word(), holder.pid, holder.times)
    };
    let item = |item: &Item| {
        let current = item.current.as_ref().map_or(0, |current| current.version);
        std::iter::once(format!("current {current}"))
            .chain(item.holders.iter().map(|one| holder(item, one)))
            .collect::<Vec<_>>()
    };
    items.iter().flat_map(item).collect()
}

fn who_has(wanted: &str, lines: &[String]) -> Vec<String> {
    let mut holders = holders(wanted, Scope::default());
    let counts = read_all(lines.concat().as_bytes(), |record, _| holders.record(record));
    assert_eq!(counts.others, 0, "{lines:#?}");
    said(&holders.finish())
}

#[test]
fn lines_that_are_no_record_are_counted_and_stop_nothing() {
    let record = released(1, 1, 1, 1);
    let log =
        format!("\n{record}\u{fffd}\n{{}}\n2026-01-02 stderr F {record}{{\"schema\":\"other/1\"}}\n{}", &record[..40]);
    assert_eq!(read_all(log.as_bytes(), |_, _| ()), counts(2, 5));
    assert_eq!(read_all(b"", |_, _| ()), counts(0, 0));
    // The last newline is missing: a record all the same.
    assert_eq!(read_all(record.trim_end().as_bytes(), |_, _| ()), counts(1, 0));
}

/// Whoever wants some events gets all of those, and the same count of records, whatever the records say besides.
#[test]
fn records_of_other_events_are_counted_and_not_handed_out() {
    let folder = crate::audit::tests::Folder::new();
    let mut auditor = folder.auditor();
    let odd = SecretNote {
        name: ",\"event\":\"secret.listed\"".into(),
        store: "s".into(),
        item: "\",\"event\":\"child.exited\"".into(),
        ..SecretNote::default()
    };
    for event in Event::ALL.iter().filter(|event| !matches!(event, Event::Discontinuity | Event::Quarantined)) {
        auditor.record(*event, Outcome::Succeeded, Some(",\"event\":\"x\""), std::slice::from_ref(&odd)).unwrap();
    }
    let mut log = crate::audit::tests::read(&folder.log());
    let all = read_all(&log, |_, _| ());
    for wanted in [Holders::EVENTS, History::EVENTS] {
        let mut seen = std::collections::BTreeSet::new();
        let counts = read_all_of(Reader::only(wanted), &*log, |record, _| {
            assert!(seen.insert(record.event.to_string()));
        });
        assert_eq!((counts, seen), (all, wanted.iter().map(|event| event.word().to_owned()).collect()));
    }
    // Of a stream all parts are looked at; what is only laid out like a record, and torn, is none.
    let stream = crate::audit::tests::stream::written(1, 200);
    assert_eq!(read_all_of(Reader::only(Holders::EVENTS), &*stream, |_, _| ()), counts(2, 0));
    log.truncate(log.len() - 20);
    assert_eq!(read_all_of(Reader::only(Holders::EVENTS), &*log, |_, _| ()), counts(all.records - 1, 1));
}

#[test]
fn a_line_without_end_takes_no_more_memory_than_a_line_may() {
    let mut log = vec![b'x'; 18 * 1024 * 1024];
    log.push(b'\n');
    log.extend_from_slice(released(1, 1, 1, 1).as_bytes());
    assert_eq!(read_all(&log, |_, _| ()), counts(1, 1));
    log.truncate(18 * 1024 * 1024);
    assert_eq!(read_all(&log, |_, _| ()), counts(0, 1));
}

#[test]
fn a_record_may_come_in_pieces_as_it_is_written() {
    let text = released(1, 1, 1, 1) + &released(2, 2, 2, 1);
    let mut reader = Reader::default();
    let mut seen = Vec::new();
    for piece in text.as_bytes().chunks(7) {
        let mut visit = |one: Seen<'_>| {
            if let Seen::Record(record, _) = one {
                seen.push(record.access.to_string());
            }
            Ok::<(), std::io::Error>(())
        };
        reader.read(&mut &*piece, &mut visit).unwrap();
    }
    assert_eq!(seen, ["0000000000000001", "0000000000000002"]);
}

#[test]
fn parts_are_one_record_also_where_streams_interleave() {
    let (a, b) = (crate::audit::tests::stream::written(1, 200), crate::audit::tests::stream::written(0, 300));
    let lines = |bytes: &[u8]| bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let (a, b) = (lines(&a), lines(&b));
    assert!(a.len() > 4 && b.len() > 4);
    let mut log = Vec::new();
    for at in 0..a.len().max(b.len()) {
        for one in [&a, &b] {
            log.extend_from_slice(one.get(at).map(Vec::as_slice).unwrap_or_default());
        }
        log.extend_from_slice(b"of the application\n");
    }
    let mut sizes = Vec::new();
    let counts = read_all(&log, |record, lines| {
        assert!(record.actor.is_some());
        let last = format!("NAME_{}", record.secrets.len() - 1);
        assert_eq!(record.secrets.last().and_then(|secret| secret.name.as_deref()), Some(last.as_str()));
        sizes.push((record.secrets.len(), lines.len()));
    });
    sizes.sort_unstable();
    assert_eq!((counts.records, sizes), (3, vec![(1, 1), (200, a.len() - 1), (300, b.len())]));
    // The writer was killed in the middle: what there is of it is a record.
    let mut seen = Vec::new();
    read_all(&b[..2].concat(), |record, lines| seen.push((record.secrets.len() < 300, lines.len())));
    assert_eq!(seen, [(true, 2)]);
    // The first part is in a file that is gone.
    let mut seen = Vec::new();
    read_all(&b[1..].concat(), |record, lines| seen.push((record.actor.is_none(), lines.len())));
    assert_eq!(seen, [(true, b.len() - 1)]);
}

#[test]
fn records_that_never_end_are_given_up() {
    let part = |stream: u32| {
        let more = format!(",\"record\":1,\"part\":1,\"parts\":2{}", by(1));
        line(1, 1, "access.released", "succeeded", &more).replace(&format!("{:032x}", 7), &format!("{stream:032x}"))
    };
    let log: String = (0..5000).map(part).collect();
    let mut seen = 0;
    let counts = read_all(log.as_bytes(), |_, lines| seen += lines.len());
    assert_eq!((counts.records, seen), (5000, 5000));
}

#[test]
fn a_filter_takes_what_matches_every_field() {
    let pattern = |text: &str| Pattern::new(text).unwrap();
    let record = released(1, 30, 1, 3);
    let template = line(
        2,
        31,
        "access.released",
        "succeeded",
        ",\"secrets\":[{\"name\":\"URL\",\"template\":[\"KEY\"]},{\"bundle\":\"b/\",\"store\":\"s\",\"recursive\":true}]",
    );
    let matches = |filter: &Filter, log: &str| {
        let mut matched = false;
        read_all(log.as_bytes(), |record, _| matched = filter.matches(record));
        matched
    };
    let at = |second: u32| Some(Instant::of(humantime::parse_rfc3339(&time(second)).unwrap()));
    let default = Filter::default;
    for (what, filter, of_record, of_template) in [
        ("everything", default(), true, true),
        ("a name", Filter { secrets: vec![pattern("A")], ..default() }, true, false),
        ("a glob", Filter { secrets: vec![pattern("X"), pattern("U*")], ..default() }, false, true),
        ("a part of a template", Filter { secrets: vec![pattern("KEY")], ..default() }, false, true),
        ("a uid", Filter { uids: vec![7, 1000], ..default() }, true, false),
        ("another uid", Filter { uids: vec![7], ..default() }, false, false),
        ("a path", Filter { commands: vec![pattern("/usr/bin/*")], ..default() }, true, false),
        ("a star crosses no slash", Filter { commands: vec![pattern("/usr/*")], ..default() }, false, false),
        ("the end of a path", Filter { commands: vec![pattern("ap*")], ..default() }, true, false),
        ("an event", Filter { events: vec![pattern("access.*")], ..default() }, true, true),
        ("another event", Filter { events: vec![pattern("rotation.*")], ..default() }, false, false),
        ("an outcome", Filter { outcomes: vec!["denied".into()], ..default() }, false, false),
        ("an environment", Filter { environment: Some("prod".into()), ..default() }, true, true),
        ("another environment", Filter { environment: Some("dev".into()), ..default() }, false, false),
        ("another service", Filter { service: Some("web".into()), ..default() }, false, false),
        ("since then", Filter { since: at(30), ..default() }, true, true),
        ("since later", Filter { since: at(31), ..default() }, false, true),
        ("until then", Filter { until: at(31), ..default() }, true, false),
        (
            "all but one field",
            Filter { secrets: vec![pattern("A")], uids: vec![1000], outcomes: vec!["failed".into()], ..default() },
            false,
            false,
        ),
    ] {
        assert_eq!((matches(&filter, &record), matches(&filter, &template)), (of_record, of_template), "{what}");
        assert_eq!(filter.is_empty(), what == "everything");
    }
}

#[test]
fn a_name_may_have_a_version() {
    let parsed = |text| Wanted::parse(text).map(|wanted| (wanted.name.to_string(), wanted.version));
    assert_eq!(parsed("A"), Some(("A".into(), None)));
    assert_eq!(parsed("A@3"), Some(("A".into(), Some(3))));
    for text in ["", "@3", "A@", "A@+3", "A@-1", "A@x", "A@1@2", "a b", "A@99999999999999999999"] {
        assert_eq!(parsed(text), None, "{text}");
    }
}

#[test]
fn who_runs_with_another_version_than_the_promoted_one() {
    let mut log = vec![written(1, "secret.written", 1)];
    log.extend([released(1, 2, 1, 1), released(2, 3, 2, 1), released(3, 4, 11, 1), released(4, 5, 12, 1)]);
    assert_eq!(who_has("A", &log), ["current 1", "1 running 2 x1", "1 running 1 x1", "1 gone 12 x2"]);
    log.extend([written(6, "rotation.created", 2), written(7, "rotation.promoted", 2), released(5, 8, 3, 2)]);
    let all = ["current 2", "2 running 3 x1", "1! running 2 x1", "1! running 1 x1", "1 gone 12 x2"];
    assert_eq!(who_has("A", &log), all);
    assert_eq!(who_has("A@1", &log)[1..], all[2..]);
    assert_eq!(who_has("B", &log), [""; 0]);
}

#[test]
fn after_a_rollback_the_version_that_was_taken_back_is_the_other_one() {
    let log = [
        released(1, 1, 1, 1),
        written(2, "rotation.promoted", 2),
        released(2, 3, 2, 2),
        written(4, "rotation.rolled_back", 1),
        // Fetched before, written down after.
        released(3, 5, 3, 2),
    ];
    assert_eq!(who_has("A", &log), ["current 1", "2! running 3 x1", "2! running 2 x1", "1 running 1 x1"]);
}

#[test]
fn what_was_served_as_current_counts_as_current_only_forwards() {
    // Rotated on another host: no record here but that it was served.
    assert_eq!(
        who_has("A", &[released(1, 1, 1, 1), released(2, 2, 2, 2)]),
        ["current 2", "2 running 2 x1", "1! running 1 x1"]
    );
    // A release of the old version is written down after the promotion.
    let log = [released(1, 1, 1, 1), written(2, "rotation.promoted", 2), released(2, 3, 2, 1)];
    assert_eq!(who_has("A", &log)[0], "current 2");
    // Failed, or pending: nobody got it.
    let failed = line(9, 5, "rotation.promoted", "failed", &(by(1) + &of(3)));
    let pending = written(6, "secret.written", 4).replace("\"current\"", "\"pending\"");
    let previous = released(7, 7, 3, 9).replace("\"current\"", "\"previous\"");
    assert_eq!(who_has("A", &[log.concat(), failed, pending, previous])[0], "current 2");
}

#[test]
fn a_removed_item_begins_anew() {
    let log = [released(1, 1, 1, 5), written(2, "secret.removed", 5), written(3, "secret.written", 1)];
    assert_eq!(who_has("A", &log), ["current 1", "5! running 1 x1"]);
}

#[test]
fn only_what_was_released_counts() {
    let secrets = by(1) + &of(1);
    let log = [
        line(1, 1, "access.requested", "allowed", &secrets),
        line(2, 2, "access.failed", "failed", &secrets),
        line(3, 3, "access.denied", "denied", &secrets),
        released(4, 4, 2, 1),
        line(4, 5, "access.unused", "failed", &by(2)),
        line(5, 6, "access.unused", "failed", &by(2)),
        released(6, 7, 3, 1),
        line(6, 8, "child.exited", "succeeded", &by(3)),
    ];
    assert_eq!(who_has("A", &log), ["current 1", "1 gone 3 x1"]);
}

#[test]
fn only_the_one_who_got_a_release_can_say_that_his_child_has_ended() {
    let by_another = by(3).replace("\"uid\":1000", "\"uid\":1001");
    let log = |who: &str| [released(6, 7, 3, 1), line(6, 8, "child.exited", "succeeded", who)];
    assert_eq!(who_has("A", &log(&by(3))), ["current 1", "1 gone 3 x1"]);
    assert_eq!(who_has("A", &log(&by_another)), who_has("A", &log(&by(3))[..1]));
    assert_ne!(who_has("A", &log(&by_another)), ["current 1", "1 gone 3 x1"]);
}

#[test]
fn what_did_not_reach_the_child_does_not_count_and_a_part_of_a_template_does() {
    let yielded = ",\"secrets\":[{\"name\":\"A\",\"store\":\"s\",\"item\":\"a\",\"version\":1,\"inject\":false}]";
    assert_eq!(who_has("A", &[line(1, 1, "access.released", "succeeded", &(by(1) + yielded))]), [""; 0]);
    let inside =
        yielded.replace("}]", "},{\"name\":\"URL\",\"template\":[\"X\"]},{\"name\":\"URL\",\"template\":[\"A\"]}]");
    let log = [line(1, 1, "access.released", "succeeded", &(by(1) + &inside))];
    assert_eq!(who_has("A", &log), ["current 1", "1 running 1 x1"]);
    assert_eq!(who_has("URL", &log), ["current 0", "- running 1 x1"]);
    let withheld = inside.replace("\"template\"", "\"inject\":false,\"template\"");
    assert_eq!(who_has("A", &[line(1, 1, "access.released", "succeeded", &(by(1) + &withheld))]), [""; 0]);
}

#[test]
fn of_one_process_the_last_release_counts() {
    let log = [released(1, 1, 1, 1), released(2, 2, 1, 2), released(3, 3, 1, 2)];
    assert_eq!(who_has("A", &log), ["current 2", "2 running 1 x2", "1 gone 1 x1"]);
    // Logs that were given in another order.
    let log = [released(2, 2, 1, 2), released(1, 1, 1, 1)];
    assert_eq!(who_has("A", &log), ["current 2", "2 running 1 x1", "1 gone 1 x1"]);
}

#[test]
fn two_logs_of_the_same_accesses_count_once() {
    let log = [released(1, 1, 1, 1), released(2, 2, 11, 1), line(2, 3, "access.unused", "failed", &by(11))];
    assert_eq!(who_has("A", &[log.concat(), log.concat()]), ["current 1", "1 running 1 x1"]);
}

#[test]
fn a_scope_leaves_out_the_rest_but_not_what_is_current() {
    let log = released(1, 1, 1, 1) + &released(2, 60, 2, 1) + &written(90, "rotation.promoted", 2);
    let said = |scope: Scope| {
        let mut holders = holders("A", scope);
        read_all(log.as_bytes(), |record, _| holders.record(record));
        said(&holders.finish())
    };
    let since = Some(Instant::of(humantime::parse_rfc3339(&time(60)).unwrap()));
    assert_eq!(said(Scope { since, ..Scope::default() }), ["current 2", "1! running 2 x1"]);
    assert_eq!(said(Scope { service: Some("web".into()), ..Scope::default() }), [""; 0]);
    assert_eq!(said(Scope { environment: Some("dev".into()), ..Scope::default() }), [""; 0]);
    assert_eq!(said(Scope { environment: Some("prod".into()), ..Scope::default() }).len(), 3);
}

#[test]
fn consumers_without_number_share_rows() {
    let mut holders = holders("A", Scope::default());
    for pid in 0..1_100_u32 {
        let text = released(u64::from(pid), 1, 11, 1).replace("host-1", &format!("pod-{pid}"));
        read_all(text.as_bytes(), |record, _| holders.record(record));
    }
    let items = holders.finish();
    assert!(items[0].holders.len() <= 1_001);
    assert_eq!(items[0].holders.iter().map(|holder| holder.times).sum::<u64>(), 1_100);
}

#[test]
fn the_history_of_a_uid() {
    let since = Instant::of(humantime::parse_rfc3339(&time(2)).unwrap());
    let denied = line(7, 7, "access.denied", "denied", &(by(1) + ",\"secrets\":[{\"name\":\"B\"},{\"name\":\"C\"}]"));
    let log = [
        released(1, 1, 1, 1),
        released(2, 2, 1, 1),
        released(3, 3, 2, 2).replace("/usr/bin/api", "/usr/bin/other"),
        released(3, 3, 2, 2),
        released(4, 4, 3, 3).replace("\"uid\":1000", "\"uid\":7"),
        released(5, 5, 3, 4).replace("\"prod\"", "\"dev\""),
        released(6, 6, 3, 5),
        line(6, 6, "access.unused", "failed", &by(3)),
        denied.clone(),
        denied,
    ];
    let mut history = History::new(1000, "prod", Some("api"), since);
    read_all(log.concat().as_bytes(), |record, _| history.record(record));
    let (reads, refused, elsewhere) = history.finish();
    let read = &reads[&("A".to_owned(), Some("api".to_owned()))];
    assert_eq!((reads.len(), read.times, &read.first, &read.last), (1, 2, &time(2), &time(3)));
    assert_eq!(read.commands.iter().collect::<Vec<_>>(), ["/usr/bin/api", "/usr/bin/other"]);
    assert_eq!(
        refused.iter().map(|((name, _), one)| (name.as_str(), one.times)).collect::<Vec<_>>(),
        [("B", 1), ("C", 1)]
    );
    let dev = ("dev".to_owned(), Some("api".to_owned()));
    assert_eq!(elsewhere.into_iter().collect::<Vec<_>>(), [(dev, 1)]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    /// However a log is torn and spliced, what is read of it stops nothing, and nobody runs who was not released to.
    #[test]
    fn no_log_makes_a_reader_panic(cut in 0usize..4000, length in 0usize..800, with in proptest::collection::vec(any::<u8>(), 0..40)) {
        let mut log = [released(1, 1, 1, 1), released(2, 2, 11, 1), written(3, "rotation.promoted", 2)].concat().into_bytes();
        let from = cut.min(log.len());
        let to = (from + length).min(log.len());
        log.splice(from..to, with);
        let mut holders = holders("A", Scope::default());
        let mut history = History::new(1000, "prod", None, Instant::of(std::time::UNIX_EPOCH));
        let mut table = Table::default();
        read_all(&log, |record, _| {
            holders.record(record);
            history.record(record);
            table.record(&mut Vec::new(), record).unwrap();
        });
        let running: u64 = holders.finish().iter().flat_map(|item| &item.holders).map(|one| one.times).sum();
        prop_assert!(running <= 2);
    }
}
