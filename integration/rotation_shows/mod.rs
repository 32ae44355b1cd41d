//! Rotation from the outside, the real binary and real logins: nobody is ever without a working credential, what it costs,
//! and who is told what when two begin at once. Figures are printed.

mod busy;
mod cost;
mod gap;
mod logins;

use std::collections::BTreeSet;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::aws::scene::AwsScene;
use crate::harness::{Scene, wait};
use crate::postgres::{Postgres, client};

/// The rotated binding: a URL of the role in use.
const NAME: &str = "DATABASE_URL";

/// One policy, and the scene that it lies in. Nothing writes the file any more.
struct Place<'a> {
    scene: &'a Scene,
    policy: String,
    look: Box<dyn Fn() -> Versions + Sync + 'a>,
}

impl Place<'_> {
    fn command(&self, words: &[&str]) -> Command {
        let at = words.iter().position(|word| *word == "--").unwrap_or(words.len());
        let (own, rest) = words.split_at(at);
        let mut command = self.scene.command(&[own, &["--policy", &self.policy], rest].concat());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn vouchsafe(&self, words: &[&str]) -> Output {
        wait(self.command(words).spawn().unwrap())
    }

    fn succeeds(&self, words: &[&str]) -> Output {
        let output = self.vouchsafe(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// Whether what a fresh `run` is given logs in: what the client says otherwise.
    fn logs_in(&self) -> Result<(), String> {
        let script = format!("exec {} -X -w -q -A -t -c 'SELECT 1' \"${NAME}\"", client().display());
        let output = self.vouchsafe(&["run", "--", "/bin/sh", "-c", &script]);
        if output.status.success() && output.stdout == b"1\n" {
            return Ok(());
        }
        Err(format!("{:?} {}", output.status, String::from_utf8_lossy(&output.stderr)))
    }

    /// What is in the store, seen without the binary under test.
    fn stages(&self) -> Versions {
        (self.look)()
    }
}

/// The number of the current version, whether another one is pending, and the number of the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Versions {
    current: u64,
    is_pending: bool,
    newest: u64,
}

/// Logs in over and over, one attempt begun each 20 ms as far as the machine keeps up.
struct Poller<'a> {
    place: &'a Place<'a>,
    state: Mutex<Polls>,
    changed: Condvar,
    stop: AtomicBool,
}

struct Polls {
    next: Instant,
    begun: u64,
    running: BTreeSet<u64>,
    failures: Vec<String>,
    slowest: Duration,
}

impl<'a> Poller<'a> {
    fn new(place: &'a Place<'a>) -> Self {
        let (next, slowest) = (Instant::now(), Duration::ZERO);
        let polls = Polls { next, begun: 0, running: BTreeSet::new(), failures: Vec::new(), slowest };
        Self { place, state: Mutex::new(polls), changed: Condvar::new(), stop: AtomicBool::new(false) }
    }

    /// Polls from `workers` threads while `work` is done; how many logins there were, the failures, the slowest login.
    fn during(&self, workers: usize, work: impl FnOnce()) -> (u64, Vec<String>, Duration) {
        struct Stop<'a>(&'a AtomicBool);
        // Also where the work panics: the threads are waited for.
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        std::thread::scope(|scope| {
            let _stop = Stop(&self.stop);
            for _ in 0..workers {
                scope.spawn(|| self.poll());
            }
            work();
        });
        let polls = self.state.lock().unwrap();
        (polls.begun, polls.failures.clone(), polls.slowest)
    }

    fn poll(&self) {
        while !self.stop.load(Ordering::SeqCst) {
            // The pace of the poller: who begins next waits for its time, and the others for it.
            let number = {
                let mut polls = self.state.lock().unwrap();
                let number = polls.begun;
                let now = Instant::now();
                let at = polls.next.max(now);
                polls.next = at + Duration::from_millis(20);
                polls.begun += 1;
                polls.running.insert(number);
                drop(polls);
                std::thread::sleep(at - now);
                number
            };
            let start = Instant::now();
            let result = self.place.logs_in();
            let mut polls = self.state.lock().unwrap();
            polls.running.remove(&number);
            polls.slowest = polls.slowest.max(start.elapsed());
            polls.failures.extend(result.err());
            self.changed.notify_all();
        }
    }

    /// Waits until every login that was begun before has ended. The next rotation takes the previous credential away: nobody
    /// may be on his way with it for that long.
    fn turn_over(&self) {
        let mut polls = self.state.lock().unwrap();
        let seen = polls.begun;
        while polls.running.first().is_some_and(|oldest| *oldest < seen) {
            let (again, waited) = self.changed.wait_timeout(polls, Duration::from_secs(60)).unwrap();
            assert!(!waited.timed_out(), "nobody logs in any more");
            polls = again;
        }
    }
}

/// Numbers from a seed that is printed, and may be given (`VOUCHSAFE_SEED`).
struct Random(u64);

impl Random {
    fn new(test: &str) -> Self {
        let given = std::env::var("VOUCHSAFE_SEED").ok().map(|seed| seed.parse().unwrap());
        let seed = given.unwrap_or_else(|| u64::from(std::process::id()) ^ 0x5eed_0000);
        println!("{test}: VOUCHSAFE_SEED={seed}");
        Self(seed)
    }

    /// SplitMix64. Below `end`, near enough to uniform.
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// The bindings of a rotation with PostgreSQL.
fn bindings(roles: &str) -> String {
    format!(
        "[secrets.{NAME}.rotate]\napply = {{ type = \"postgres\", admin = \"ADMIN_URL\", {roles} }}\n\
         [secrets.ADMIN_URL]\ninject = false\n"
    )
}

const BY_TURNS: &str = "roles = [\"app_a\", \"app_b\"]";

/// A sealed file with the URLs of a server.
fn sealed(roles: &str, admin: &str, value: &str) -> Scene {
    let scene = Scene::sealed(&[]).and(&bindings(roles));
    for (name, text) in [(NAME, value), ("ADMIN_URL", admin)] {
        scene.verb_reading(&["set", name], text.as_bytes()).expect_status(0);
    }
    scene
}

fn place(scene: &Scene) -> Place<'_> {
    let policy = scene.write_policy().display().to_string();
    let look = || {
        let document = document(scene);
        let item = &document["items"][NAME];
        let number = |stage: &str| item[stage]["number"].as_u64();
        let current = number("current").unwrap();
        let newest = ["previous", "pending"].into_iter().filter_map(number).chain([current]).max().unwrap();
        Versions { current, is_pending: number("pending").is_some(), newest }
    };
    Place { scene, policy, look: Box::new(look) }
}

/// The sealed file of a scene.
fn document(scene: &Scene) -> Value {
    let key = std::fs::read_to_string(scene.path("identity.key")).unwrap();
    let identity: age::x25519::Identity = key.trim().parse().unwrap();
    let plaintext = age::decrypt(&identity, &std::fs::read(scene.path("sealed.age")).unwrap()).unwrap();
    serde_json::from_slice(&plaintext).unwrap()
}

fn place_of_parameters<'a>(aws: &'a AwsScene, name: &'a str) -> Place<'a> {
    let look = move || {
        let world = aws.fake.world();
        let versions = &world.ssm.parameters[&format!("/test/api/{name}")].versions;
        let newest = versions.last().unwrap().number;
        let labelled = |label: &str| versions.iter().find(|one| one.labels.contains(label)).map(|one| one.number);
        // Not adopted yet: the newest one is current.
        let current = labelled("vouchsafe-current").unwrap_or(newest);
        Versions { current, is_pending: newest > current, newest }
    };
    Place { scene: &aws.scene, policy: aws.policy(), look: Box::new(look) }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}
