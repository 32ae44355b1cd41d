//! The cache with stores that do as they are told.

use std::collections::VecDeque;
use std::path::Path;

use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};

use super::*;
use crate::audit::{Actor, Auditor, Context};
use crate::error::Class;
use crate::policy::eval::{Caller, Request, Verdict, evaluate};
use crate::resolve::orders;
use crate::secret::Secret;
use crate::store::Fetched;

/// Answers what it was told to, in order, and counts.
#[derive(Default)]
struct Script {
    answers: RefCell<VecDeque<Result<&'static str, bool>>>,
    asked: RefCell<Vec<Vec<Wanted>>>,
    /// The next fetch waits for this.
    gate: RefCell<Option<oneshot::Receiver<()>>>,
}

struct Scripted(Rc<Script>);

impl Fetch for Scripted {
    fn fetch(&self, _: Arc<Served>, _: StoreName, wanted: Vec<Wanted>, _: Instant) -> Fetching {
        let script = Rc::clone(&self.0);
        Box::pin(async move {
            let gate = script.gate.take();
            if let Some(gate) = gate {
                gate.await.unwrap();
            }
            let answer = script.answers.borrow_mut().pop_front().expect("an answer");
            let count = wanted.len();
            script.asked.borrow_mut().push(wanted);
            let found = |text: &str| {
                let value = Secret::new(text.as_bytes().to_vec());
                Answer::Found(Fetched { value, version: None, stage: None, written: None })
            };
            let failure = |is_outage| {
                let class = if is_outage { Class::Store } else { Class::Denied };
                StoreFailure { failure: Failure { class, message: "told to".into(), hint: None }, is_outage }
            };
            let answers = answer.map(|text| (0..count).map(|_| found(text)).collect()).map_err(failure);
            Outcome { answers, request_ids: vec!["id".into()] }
        })
    }
}

struct Scene {
    cache: Rc<Cache>,
    script: Rc<Script>,
    served: Arc<Served>,
    orders: HashMap<&'static str, Order>,
}

/// A policy of the store's items A and B, and orders for "A", "B" and "AB".
fn scene(cache: &str) -> Scene {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let text = format!(
        "version = 1\nenvironment = \"test\"\n[stores.s]\ntype = \"ssm\"\nregion = \"eu-west-1\"\n[secrets]\nA = {{}}\nB = {{}}\n\
         [[grants]]\nsecrets = [\"*\"]\nto = \"anyone\"\n[cache]\n{cache}\n"
    );
    let policy = crate::policy::file::parse_text(&text, Path::new("test.toml"), &Default::default()).unwrap();
    let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("vouchsafe-cache-{}-{number}", std::process::id()));
    std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700).create(&folder).unwrap();
    let path = format!("{}/log", folder.display());
    let sink =
        crate::policy::model::Sink::File { path, sync: false, evidence: crate::policy::model::Evidence::default() };
    let context = Context {
        actor: Actor::default(),
        environment: Some(policy.environment.clone()),
        service: None,
        policy_digest: policy.digest.clone(),
        command: None,
    };
    let mut auditor = Auditor::open(&[sink], context).unwrap();
    let mut order = |names: &[&str]| {
        let only = names.iter().map(|name| crate::name::VariableName::new(*name).unwrap()).collect();
        let request = Request { caller: Caller::default(), command: None, only: Some(only), claimed: true };
        let Verdict::Granted(grant) = evaluate(&policy, &request) else { panic!("denied") };
        orders(&auditor.request(grant).unwrap()).remove(0)
    };
    let all = HashMap::from([("A", order(&["A"])), ("B", order(&["B"])), ("AB", order(&["A", "B"]))]);
    std::fs::remove_dir_all(folder).unwrap();
    let script = Rc::new(Script::default());
    let cache = Rc::new(Cache::new(4096, 100, Box::new(Scripted(Rc::clone(&script)))).unwrap());
    Scene { cache, script, served: Arc::new(Served::new((policy.environment.clone(), None), policy)), orders: all }
}

impl Scene {
    fn will(&self, answer: Result<&'static str, bool>) {
        self.script.answers.borrow_mut().push_back(answer);
    }

    async fn get(&self, order: &str) -> Result<Found, Failure> {
        self.cache.answers(&self.served, &self.orders[order], Instant::now() + Duration::from_secs(9)).await
    }

    fn asked(&self) -> usize {
        self.script.asked.borrow().len()
    }
}

fn texts(found: &Found) -> Vec<String> {
    let text = |answer: &Answer| match answer {
        Answer::Found(found) => String::from_utf8(found.value.expose().to_vec()).unwrap(),
        _ => "no".into(),
    };
    found.answers.iter().map(text).collect()
}

fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    LocalSet::new().block_on(&runtime, work);
}

#[test]
fn what_is_fresh_is_not_asked_for_again() {
    run(async {
        let scene = scene("ttl = \"5m\"");
        scene.will(Ok("one"));
        let first = scene.get("A").await.unwrap();
        assert_eq!((texts(&first), first.fetched, first.request_ids), (vec!["one".into()], 1, vec!["id".into()]));
        let again = scene.get("A").await.unwrap();
        assert_eq!((texts(&again), again.fetched, again.request_ids), (vec!["one".into()], 0, vec![]));
        scene.will(Ok("two"));
        assert_eq!(texts(&scene.get("AB").await.unwrap()), ["one", "two"]);
        assert_eq!(scene.script.asked.borrow()[1], scene.orders["B"].wanted(), "only what is missing");
        assert_eq!(scene.cache.forget(|number| number == scene.served.number), 2);
        scene.will(Ok("three"));
        assert_eq!(texts(&scene.get("AB").await.unwrap()), ["three", "three"]);
    });
}

#[test]
fn who_comes_while_it_is_fetched_waits_and_shares() {
    run(async {
        let scene = Rc::new(scene("ttl = \"5m\""));
        for outcome in [Ok("one"), Err(true), Err(false)] {
            scene.cache.forget(|_| true);
            let before = scene.asked();
            let (open, gate) = oneshot::channel();
            scene.script.gate.replace(Some(gate));
            scene.will(outcome);
            let tasks: Vec<_> = (0..50)
                .map(|_| {
                    let scene = Rc::clone(&scene);
                    spawn_local(async move { scene.get("A").await.map(|found| texts(&found)) })
                })
                .collect();
            tokio::task::yield_now().await;
            open.send(()).unwrap();
            for task in tasks {
                assert_eq!(task.await.unwrap().is_ok(), outcome.is_ok());
            }
            assert_eq!(scene.asked(), before + 1, "{outcome:?}");
        }
    });
}

#[test]
fn a_failure_about_something_else_is_not_shared() {
    run(async {
        let scene = Rc::new(scene("ttl = \"5m\""));
        let (open, gate) = oneshot::channel();
        scene.script.gate.replace(Some(gate));
        scene.will(Err(false));
        scene.will(Ok("b"));
        let other = |order: &'static str| {
            let scene = Rc::clone(&scene);
            spawn_local(async move { scene.get(order).await.map(|found| texts(&found)) })
        };
        let (a, b) = (other("A"), other("B"));
        tokio::task::yield_now().await;
        open.send(()).unwrap();
        assert!(a.await.unwrap().is_err());
        assert_eq!(b.await.unwrap().unwrap(), ["b"]);
    });
}

#[test]
fn an_older_answer_is_served_only_while_the_store_is_down() {
    run(async {
        // Stale at once, and for long.
        let scene = scene("ttl = \"0s\"\nmax_stale = \"1h\"");
        scene.will(Ok("old"));
        assert!(scene.get("A").await.unwrap().stale.is_empty());
        scene.will(Err(true));
        let stale = scene.get("A").await.unwrap();
        assert_eq!((texts(&stale), stale.stale.len(), stale.fetched), (vec!["old".into()], 1, 0));
        assert_eq!(scene.cache.down().len(), 1);
        let asked = scene.asked();
        assert_eq!(scene.get("A").await.unwrap().stale.len(), 1);
        assert_eq!(scene.asked(), asked, "a store that is down is left alone for a while");
        assert!(scene.get("B").await.is_err(), "what was never there cannot be old");
        assert!(scene.get("AB").await.is_err(), "all or nothing");
    });
}

#[test]
fn without_leave_nothing_old_is_served() {
    run(async {
        let scene = scene("ttl = \"0s\"");
        scene.will(Ok("old"));
        scene.get("A").await.unwrap();
        scene.will(Err(true));
        assert_eq!(scene.get("A").await.map(|found| texts(&found)).unwrap_err().message, "told to");
    });
}

#[test]
fn after_a_denial_nothing_is_left_even_if_the_store_then_goes_down() {
    run(async {
        let scene = scene("ttl = \"0s\"\nmax_stale = \"1h\"");
        scene.will(Ok("old"));
        scene.get("AB").await.unwrap();
        scene.will(Err(false));
        assert!(scene.get("A").await.is_err());
        assert_eq!((scene.cache.figures().values, scene.cache.figures().bytes), (0, 0));
        scene.will(Err(true));
        assert!(scene.get("A").await.is_err());
        assert!(scene.get("B").await.is_err());
    });
}

#[test]
fn a_store_that_came_back_is_asked_and_up() {
    run(async {
        let scene = scene("ttl = \"5m\"");
        scene.will(Err(true));
        assert!(scene.get("A").await.is_err());
        assert_eq!(scene.cache.down().len(), 1);
        // Instead of waiting for the pause.
        scene.cache.stores.borrow().values().for_each(|asked| {
            asked.failed.borrow_mut().as_mut().unwrap().pause = Instant::now();
        });
        scene.will(Ok("back"));
        assert_eq!(texts(&scene.get("A").await.unwrap()), ["back"]);
        assert!(scene.cache.down().is_empty());
    });
}

#[test]
fn what_is_due_is_fetched_again_once_and_a_denial_then_counts_at_once() {
    run(async {
        let scene = scene("ttl = \"5m\"");
        let key = (scene.served.number, scene.orders["A"].store().clone());
        // As if it had been fetched nearly five minutes ago.
        let make_due = || {
            let answer = Answer::Found(Fetched {
                value: Secret::new(b"due".to_vec()),
                version: None,
                stage: None,
                written: None,
            });
            let then = Instant::now().checked_sub(Duration::from_secs(299)).unwrap();
            let rules = &scene.served.policy.cache;
            scene.cache.table.borrow_mut().keep(&key, &scene.orders["A"].wanted()[0], &answer, rules, then, 0);
        };
        make_due();
        let found = scene.get("A").await.unwrap();
        assert!(found.is_due);
        assert_eq!(texts(&found), ["due"]);
        scene.will(Ok("new"));
        let (first, second) = tokio::join!(
            scene.cache.refresh(&scene.served, &scene.orders["A"], async |_| true),
            scene.cache.refresh(&scene.served, &scene.orders["A"], async |_| true)
        );
        assert_eq!(first, Some((Ok(()), vec!["id".into()])));
        assert_eq!(second, None);
        let found = scene.get("A").await.unwrap();
        assert!(!found.is_due);
        assert_eq!(texts(&found), ["new"]);
        assert!(
            scene.cache.refresh(&scene.served, &scene.orders["A"], async |_| true).await.is_none(),
            "nothing is due"
        );

        make_due();
        scene.will(Err(false));
        let refreshed = scene.cache.refresh(&scene.served, &scene.orders["A"], async |_| true).await;
        assert!(matches!(refreshed, Some((Err(_), _))));
        assert_eq!(scene.cache.figures().values, 0);
    });
}

#[test]
fn what_is_forgotten_while_it_is_fetched_stays_forgotten() {
    run(async {
        let scene = Rc::new(scene("ttl = \"5m\""));
        let (open, gate) = oneshot::channel();
        scene.script.gate.replace(Some(gate));
        scene.will(Ok("old"));
        let task = {
            let scene = Rc::clone(&scene);
            spawn_local(async move { scene.get("A").await.map(|found| texts(&found)) })
        };
        tokio::task::yield_now().await;
        scene.cache.forget(|_| true);
        open.send(()).unwrap();
        assert_eq!(task.await.unwrap().unwrap(), ["old"]);
        scene.will(Ok("new"));
        assert_eq!(texts(&scene.get("A").await.unwrap()), ["new"]);
    });
}

#[test]
fn a_policy_that_was_replaced_leaves_nothing_behind() {
    run(async {
        let scene = scene("ttl = \"5m\"\nmax_stale = \"1h\"");
        scene.served.retire();
        // Somebody who had it in hand when it was replaced.
        scene.will(Ok("old"));
        assert_eq!(texts(&scene.get("A").await.unwrap()), ["old"]);
        scene.will(Err(true));
        assert!(scene.get("A").await.is_err());
        assert!(scene.cache.down().is_empty(), "nobody asks for it any more");
        assert_eq!((scene.cache.stores.borrow().len(), scene.cache.figures().values), (0, 0));
    });
}

#[test]
fn an_order_larger_than_the_cache_is_served_all_the_same() {
    run(async {
        let mut scene = scene("ttl = \"5m\"");
        scene.cache = Rc::new(Cache::new(4096, 1, Box::new(Scripted(Rc::clone(&scene.script)))).unwrap());
        scene.will(Ok("a"));
        scene.get("A").await.unwrap();
        // B takes the place of A, which was to come from the cache: both are fetched.
        scene.will(Ok("b"));
        scene.will(Ok("both"));
        assert_eq!(texts(&scene.get("AB").await.unwrap()), ["both", "both"]);
    });
}

#[test]
fn what_may_not_be_fetched_is_not() {
    run(async {
        let scene = scene("ttl = \"5m\"");
        let renew = async |may| {
            let may = async |wanted: &[Wanted]| {
                assert_eq!(wanted, scene.orders["A"].wanted());
                may
            };
            scene.cache.renew(&scene.served, &scene.orders["A"], Duration::ZERO, may).await
        };
        assert!(renew(false).await.is_none());
        assert_eq!(scene.asked(), 0);
        scene.will(Ok("one"));
        assert!(renew(true).await.is_some_and(|(renewed, _)| renewed.is_ok()));
        assert_eq!(scene.asked(), 1);
    });
}
