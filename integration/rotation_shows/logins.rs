//! A poller that logs in with what `vouchsafe run` gives it, while rotations by turns are killed and lose answers.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use super::{BY_TURNS, NAME, Place, Poller, Postgres, Random, Versions, bindings, place, place_of_parameters, sealed};
use crate::aws::fake::fault::{Action, Fault};
use crate::aws::scene::AwsScene;
use crate::harness::wait;
use crate::postgres::proxy::{Loss, Proxy};
use crate::postgres::{pair, text};

/// How many kills met which state, and what the way on met.
#[derive(Debug, Default)]
struct Kills {
    nothing: u32,
    pending: u32,
    promoted: u32,
    too_late: u32,
    resumes_killed: u32,
}

/// `vouchsafe rotate ...`, killed somewhere: after a random number of its steps, and a random time.
fn killed(place: &Place<'_>, words: &[&str], random: &mut Random) -> bool {
    let (steps, pause) = (random.below(6), Duration::from_millis(random.below(2) * random.below(40)));
    let mut child = place.command(words).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..steps {
        lines.next();
    }
    std::thread::sleep(pause);
    child.kill().unwrap();
    // Its standard output is open until it has ended.
    !wait(child).status.success()
}

/// One rotation, whatever it takes: a kill, perhaps another one, and one command that finishes.
fn rotation(place: &Place<'_>, random: &mut Random, kills: &mut Kills) {
    let before = place.stages();
    assert!(!before.is_pending, "{before:?}");
    let was_killed = killed(place, &["rotate", NAME, "--json"], random);
    let after = place.stages();
    match (was_killed, after.is_pending, after.current > before.current) {
        (false, ..) => kills.too_late += 1,
        (_, true, _) => kills.pending += 1,
        (_, _, true) => kills.promoted += 1,
        _ => kills.nothing += 1,
    }
    if random.below(4) == 0 && killed(place, &["rotate", "--resume", "--json"], random) {
        kills.resumes_killed += 1;
    }
    place.succeeds(&["rotate", "--resume"]);
    if place.stages().current == before.current {
        assert!(!after.is_pending, "what was begun is finished by one command");
        place.succeeds(&["rotate", NAME]);
    }
    let number = before.newest + 1;
    let expected = Versions { current: number, is_pending: false, newest: number };
    assert_eq!(place.stages(), expected, "one rotation, one version");
}

/// `count` rotations under a poller; `before` each of them something may be broken.
fn show(what: &str, place: &Place<'_>, count: u64, mut before: impl FnMut(u64)) -> Kills {
    let mut random = Random::new(what);
    let mut kills = Kills::default();
    let first = place.stages().current;
    let poller = Poller::new(place);
    let start = Instant::now();
    let (logins, failures, slowest) = poller.during(2, || {
        for number in 0..count {
            poller.turn_over();
            before(number);
            rotation(place, &mut random, &mut kills);
        }
        poller.turn_over();
    });
    println!(
        "{what}: {count} rotations in {:.1?}, {logins} logins (slowest {slowest:.0?}), {} failed; {kills:?}",
        start.elapsed(),
        failures.len()
    );
    assert_eq!(failures, Vec::<String>::new());
    assert!(logins > count, "{logins}");
    assert_eq!(place.stages().newest, first + count);
    kills
}

#[test]
fn fifty_rotations_that_are_killed_fail_no_login() {
    let Some(server) = Postgres::start() else { return };
    let value = text(&pair(&server));
    // The administrator comes by the proxy, consumers do not.
    let proxy = Proxy::start(server.port, "ALTER ROLE", Loss::Answer);
    let admin = server.admin_url_at(&format!("127.0.0.1:{},127.0.0.1:{}", proxy.port, server.port));
    let scene = sealed(BY_TURNS, &admin, &value);
    let place = place(&scene);
    let mut losses = 0;
    let kills = show("age", &place, 50, |number| {
        if number % 5 == 0 {
            losses += u32::from(proxy.arm());
        }
    });
    println!("age: {losses} answers of PostgreSQL lost");
    assert!(losses >= 6, "{losses}");
    assert!(kills.nothing >= 1 && kills.pending >= 5 && kills.promoted + kills.too_late >= 1, "{kills:?}");
}

#[test]
fn rotations_of_parameters_that_are_killed_and_lose_answers_fail_no_login() {
    let Some(server) = Postgres::start() else { return };
    let value = text(&pair(&server));
    let aws = AwsScene::new().secrets(&format!("[secrets]\n{}", bindings(BY_TURNS)));
    aws.fake.secure(&format!("/test/api/{NAME}"), &value);
    aws.fake.secure("/test/api/ADMIN_URL", &server.admin_url());
    let place = place_of_parameters(&aws, NAME);
    let actions: [fn() -> Action; 4] = [
        || Action::DropAfter,
        || Action::ErrorAfter { status: 500, code: "InternalServerError".into() },
        || Action::ErrorAfter { status: 400, code: "ThrottlingException".into() },
        || Action::DropBefore,
    ];
    let count = 10;
    show("ssm", &place, count, |number| {
        // Only rotations write. Reads are lost to whoever asks.
        let mut world = aws.fake.world();
        world.faults.clear();
        for (at, operation) in ["PutParameter", "LabelParameterVersion", "GetParameters"].into_iter().enumerate() {
            let number = usize::try_from(number).unwrap();
            let action = actions[(number + at) % actions.len()]();
            world.faults.push(Fault::on(operation, action).skip(number % 3).times(1));
        }
    });
    let lost = aws.fake.records().iter().filter(|record| record.outcome == "dropped").count();
    assert!(lost >= 3, "{lost}");
    assert_eq!(u64::try_from(aws.versions(NAME).len()).unwrap(), 1 + count, "one version for each rotation");
}
