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

/// What a record costs: the chain, the seal, and its share of a checkpoint; and the record as a whole, as the agent writes it,
/// alone and 256 together.
#[test]
#[ignore = "measures; only a release build on a quiet machine says anything"]
fn evidence_costs() {
    let context = context();
    let author = Author { context: &context, access: "0123456789abcdef" };
    let lists = Lists::notes(&(0..20).map(|index| note(&format!("NAME_{index}"))).collect::<Vec<_>>());
    let statement = Statement { event: Event::AccessReleased, outcome: Outcome::Succeeded, reason: None, detail: None };
    let draft = || Draft::new(&author, statement, &lists, SystemTime::now());
    let mut line = Vec::new();
    draft().line(Assurance::Agent, SystemTime::now(), &mut line);
    let bare = line.len();
    let chain = chain::Chain::begin(sink_file::new_stream().unwrap());
    let mut key = seal::EpochKey::from_bytes([7; 32]);
    let many = |mut what: Box<dyn FnMut() + '_>| time(|| (0..100).for_each(|_| what())) / 100;
    let chained = many(Box::new(|| {
        line.truncate(bare);
        chain.seal(&mut line, 0);
    }));
    let sealed = many(Box::new(|| {
        line.truncate(bare);
        chain.seal_by(&mut line, 0, Some(&key.record_key()));
        key = key.next();
    }));
    let folder = Folder::new();
    let mut schedule = checkpoint::schedule::Schedule::of_log(&folder.log());
    let made = time(|| drop(schedule.make(chain, SystemTime::now()).unwrap()));
    let ratio = |a: Duration, b: Duration| a.as_secs_f64() / b.as_secs_f64();
    println!(
        "a line of {bare} bytes: chained {chained:?}, chained and sealed {sealed:?} ({:.2}x)",
        ratio(sealed, chained)
    );
    println!("a checkpoint: {made:?}, of which a record pays a thousandth: {:?}", made / 1000);
    let mut base = None;
    for (name, is_sealed, every) in
        [("chained", false, None), ("sealed", true, None), ("sealed and anchored", true, Some(1000))]
    {
        let folder = Folder::new();
        if is_sealed {
            sealing::begin(&folder);
        }
        let to = vec![crate::policy::model::Anchor::File(folder.0.join("notes"))];
        let interval = Duration::from_secs(3600);
        let checkpoints = every.map(|every| crate::policy::model::Checkpoints { every, interval, to });
        let evidence = Evidence { auditor: None, checkpoints };
        let mut file = FileSink::open(folder.log().to_str().unwrap(), false, &evidence, Assurance::Agent).unwrap();
        let one = many(Box::new(|| file.write(&author, &[draft()]).unwrap()));
        let together = time(|| file.write(&author, &(0..256).map(|_| draft()).collect::<Vec<_>>()).unwrap()) / 256;
        let (alone, shared) = *base.get_or_insert((one, together));
        println!(
            "a record written, {name}: {one:?} alone ({:.2}x), {together:?} of 256 ({:.2}x)",
            ratio(one, alone),
            ratio(together, shared)
        );
    }
}

/// With the seals and checkpoints of all of them: what an auditor does.
#[test]
#[ignore = "measures; only a release build on a quiet machine says anything"]
fn a_million_sealed_records_are_verified() {
    use crate::audit::verify::{Anchors, Seals};
    let folder = Folder::new();
    let context = context();
    let author = Author { context: &context, access: "0123456789abcdef" };
    let lists = Lists::notes(&[note("A"), note("B"), note("C")]);
    let statement = Statement { event: Event::AccessReleased, outcome: Outcome::Succeeded, reason: None, detail: None };
    let draft = Draft::new(&author, statement, &lists, SystemTime::now());
    let mut chain = chain::Chain::begin(sink_file::new_stream().unwrap());
    let key = || seal::EpochKey::from_bytes([7; 32]);
    let seed = seal::seed::Seed { stream: chain.stream, first: 1, key: key() };
    put(&folder.0.join("seed"), seed.render(seal::seed::Beginning::Init).expose());
    let mut notes = String::new();
    let signer = checkpoint::key::Signer::of_seed("host/audit", &[7; 32]).unwrap();
    let mut log = std::io::BufWriter::new(File::create(folder.log()).unwrap());
    let (mut line, mut next) = (Vec::new(), key());
    for index in 1..=1_000_000 {
        line.clear();
        draft.line(Assurance::Agent, SystemTime::now(), &mut line);
        chain = chain.seal_by(&mut line, 0, Some(&next.record_key()));
        next = next.next();
        log.write_all(&line).unwrap();
        if index % 1000 == 0 {
            let time = "2026-01-02T03:04:05.000000Z".to_owned();
            notes.push_str(&checkpoint::note::Checkpoint { chain, time }.sign(&signer));
        }
    }
    log.into_inner().unwrap();
    put(&folder.0.join("notes"), notes.as_bytes());
    let started = Instant::now();
    let seals = Some(Seals::load(&[folder.0.join("seed")], &[]).unwrap());
    let anchors = Some(Anchors::load(&[folder.0.join("notes")], &signer.verifier()).unwrap());
    let report = verify(&[folder.log()], Start::Beginning, Means { seals, anchors, progress: None }).unwrap();
    let seen = (report.state(), report.records, report.sealed, report.checkpoints);
    assert_eq!(seen, (State::Intact, 1_000_000, 1_000_000, 1000));
    let status = String::from_utf8(read(Path::new("/proc/self/status"))).unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap().to_owned();
    println!("1,000,000 sealed records of {} bytes, 1,000 checkpoints: {:?}, {peak}", line.len(), started.elapsed());
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
        draft.line(Assurance::File, SystemTime::now(), &mut line);
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
            Draft::new(&author, statement, &lists, SystemTime::now()).line(
                Assurance::File,
                SystemTime::now(),
                &mut line,
            );
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
