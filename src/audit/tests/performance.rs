//! What the audit costs. Run by hand: `cargo test --release --lib audit::tests::performance -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use super::*;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn time(mut what: impl FnMut()) -> Duration {
    let once = || {
        let started = Instant::now();
        what();
        started.elapsed()
    };
    median(std::iter::repeat_with(once).take(300).collect())
}

#[test]
#[ignore = "measures; only a release build on a quiet machine says anything"]
fn costs() {
    let folder = Folder::new();
    let notes: Vec<_> = (0..20).map(|index| note(&format!("NAME_{index}"))).collect();
    let many: Vec<_> = (0..1000).map(|index| note(&format!("NAME_{index}"))).collect();
    write(&mut folder.auditor(), 1);
    let two = |sync| {
        time(|| {
            let sink =
                Sink::File { path: folder.log().to_str().unwrap().to_owned(), sync, evidence: Evidence::default() };
            let mut auditor = Auditor::open(&[sink], context()).unwrap();
            auditor.record(Event::AccessRequested, Outcome::Allowed, None, &notes).unwrap();
            drop(auditor.release((), &notes).unwrap());
        })
    };
    println!("open and two records of 20 secrets: {:?}", two(false));
    println!("the same with sync: {:?}", two(true));
    let mut auditor = folder.auditor();
    println!("one record of 1,000 secrets: {:?}", time(|| drop(auditor.release((), &many).unwrap())));
    let caller = crate::policy::eval::Caller::default();
    println!("gathering the actor: {:?}", time(|| drop(Actor::of_this_process(&caller))));
}

#[test]
#[ignore = "measures; only a release build on a quiet machine says anything"]
fn a_million_records_are_verified() {
    let folder = Folder::new();
    let context = context();
    let author = Author { context: &context, access: "0123456789abcdef" };
    let lists = Lists::notes(&[note("A"), note("B"), note("C")]);
    let statement = Statement { event: Event::AccessReleased, outcome: Outcome::Succeeded, reason: None, detail: None };
    let draft = Draft::new(&author, statement, &lists, SystemTime::now());
    let mut chain = chain::Chain::begin(sink_file::new_stream().unwrap());
    let mut log = std::io::BufWriter::new(File::create(folder.log()).unwrap());
    let mut line = Vec::new();
    for _ in 0..1_000_000 {
        line.clear();
        draft.line(Assurance::File, &mut line);
        chain = chain.seal(&mut line, 0);
        log.write_all(&line).unwrap();
    }
    log.into_inner().unwrap();
    let started = Instant::now();
    assert_eq!(assert_state(&[&folder.log()], State::Intact).records, 1_000_000);
    println!("1,000,000 records of {} bytes: {:?}", line.len(), started.elapsed());
}

/// A log as a busy host leaves it: ten secrets in each record, a request and a release for each access, two of a thousand
/// process numbers that run.
#[test]
#[ignore = "measures; only a release build on a quiet machine says anything"]
fn a_million_records_are_searched() {
    use crate::audit::read::{Holders, Processes, Reader, Scope, Wanted};
    let folder = Folder::new();
    let mut context = context();
    context.actor.process = ProcessIdentity::here();
    context.actor.host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut chain = chain::Chain::begin(sink_file::new_stream().unwrap());
    let mut log = std::io::BufWriter::new(File::create(folder.log()).unwrap());
    let mut line = Vec::new();
    let lists = Lists::notes(&(0..10).map(|index| note(&format!("NAME_{index}"))).collect::<Vec<_>>());
    for access in 0..500_000_u64 {
        context.actor.pid = 1 + (access % 1000) as u32;
        context.actor.process.start_ticks = Some(access);
        let author = Author { context: &context, access: &format!("{access:016x}") };
        for (event, outcome) in
            [(Event::AccessRequested, Outcome::Allowed), (Event::AccessReleased, Outcome::Succeeded)]
        {
            line.clear();
            let statement = Statement { event, outcome, reason: None, detail: None };
            Draft::new(&author, statement, &lists, SystemTime::now()).line(Assurance::File, &mut line);
            chain = chain.seal(&mut line, 0);
            log.write_all(&line).unwrap();
        }
    }
    log.into_inner().unwrap();
    let memory = || {
        let status = File::open("/proc/self/status").and_then(|mut file| {
            let mut text = String::new();
            file.read_to_string(&mut text).map(|_| text)
        });
        let status = status.unwrap();
        status.lines().find(|line| line.starts_with("VmHWM")).unwrap().split_whitespace().nth(1).unwrap().to_owned()
    };
    // What else runs on the machine is not counted (proc(5), schedstat: nanoseconds on a CPU).
    let on_cpu = || {
        let mut text = String::new();
        File::open("/proc/thread-self/schedstat").unwrap().read_to_string(&mut text).unwrap();
        Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    };
    let before = memory();
    let (started, cpu) = (Instant::now(), on_cpu());
    let mut holders = Holders::new(Wanted::parse("NAME_7").unwrap(), Scope::default(), Processes::here());
    let counts =
        read::tests::read_all_of(Reader::only(Holders::EVENTS), File::open(folder.log()).unwrap(), |record, _| {
            holders.record(record);
        });
    let items = holders.finish();
    assert_eq!((counts.records, items.len()), (1_000_000, 1));
    assert_eq!(items[0].holders.iter().map(|holder| holder.times).sum::<u64>(), 500_000);
    let (elapsed, cpu) = (started.elapsed(), on_cpu() - cpu);
    println!(
        "1,000,000 records of {} bytes: {elapsed:?} ({cpu:?} of CPU), peak {before} -> {} kB",
        line.len(),
        memory()
    );
}
