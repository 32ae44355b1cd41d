//! The cache: answers of stores, kept as long as the policies allow, and the one place of the agent that fetches.
//!
//! - [`arena`]: locked memory; [`table`]: what is kept and how long it counts.
//!
//! What must stay true:
//! - Nothing is fetched but what an [`Order`] names, and only a permit makes one: a refresh too is on behalf of an access
//!   that is written down.
//! - One fetch of a store at a time for each policy; who wants the same waits and shares what comes of it.
//! - An older answer is served past its time only while its store is *down*. Any other failure, a denial first of all, wipes
//!   every answer of that store at once.

mod arena;
mod table;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

pub use table::Figures;
use table::{State, StoreKey, Table};

use super::failure::Failure;
use super::server::policies::Served;
use crate::name::StoreName;
use crate::resolve::Order;
use crate::store::aws::retry::random;
use crate::store::{Answer, Wanted};

/// Memory for values.
pub const BYTES: usize = 4 * 1024 * 1024;

/// Values at most.
pub const VALUES: usize = 10_000;

/// A store that was down is not asked again before this, and at most twice this.
const PAUSE: Duration = Duration::from_secs(3);

/// A store that nobody has asked for so long is not said to be down any more.
const STILL_DOWN: Duration = Duration::from_secs(60);

/// Asks a store. Blocks nobody: what takes long happens elsewhere.
pub trait Fetch {
    /// Asks `store` of the policy for everything in `wanted`.
    fn fetch(&self, policy: Arc<Served>, store: StoreName, wanted: Vec<Wanted>, deadline: Instant) -> Fetching;
}

/// A fetch under way.
pub type Fetching = Pin<Box<dyn Future<Output = Outcome>>>;

/// What a store answered.
pub struct Outcome {
    /// One answer for each that was wanted.
    pub answers: Result<Vec<Answer>, StoreFailure>,
    /// Ids of the requests to AWS.
    pub request_ids: Vec<String>,
}

/// Why a store did not answer.
#[derive(Debug, Clone)]
pub struct StoreFailure {
    /// What is said of it.
    pub failure: Failure,
    /// Whether it was not to be reached: [`StoreError::is_outage`](crate::store::StoreError::is_outage).
    pub is_outage: bool,
}

/// What there is for an order.
pub struct Found {
    /// One answer for each that was wanted, in order.
    pub answers: Vec<Answer>,
    /// How far past its time each one is that is.
    pub stale: Vec<(usize, Duration)>,
    /// Ids of requests to AWS that were made for it.
    pub request_ids: Vec<String>,
    /// Some should be fetched again soon: [`Cache::refresh`].
    pub is_due: bool,
    /// How many had to be fetched.
    pub fetched: usize,
}

/// The cache.
pub struct Cache {
    table: RefCell<Table>,
    stores: RefCell<HashMap<StoreKey, Rc<Asked>>>,
    fetch: Box<dyn Fetch>,
    told: Option<Box<Tell>>,
}

/// Hears what a store has answered, policy and store first.
pub type Tell = dyn Fn(&(u64, StoreName), &[Wanted], &[Answer]);

/// A store of a policy, as the ones who ask it see it.
#[derive(Default)]
struct Asked {
    /// Held by the one who fetches.
    turn: Mutex<()>,
    failed: RefCell<Option<Failed>>,
    /// A refresh is under way.
    is_refreshing: Cell<bool>,
}

/// The last fetch of a store, where it failed.
struct Failed {
    ended: Instant,
    wanted: Vec<Wanted>,
    failure: StoreFailure,
    /// Until when the store is left alone, if it is down.
    pause: Instant,
}

impl Asked {
    /// The failure that says to leave the store alone at `now`, or that whoever came at `arrival` for `missing` shares: what
    /// was decided about the same, and not about something else.
    fn failure(&self, arrival: Instant, now: Instant, missing: &[Wanted]) -> Option<StoreFailure> {
        let failed = self.failed.borrow();
        let Failed { ended, wanted, failure, pause } = failed.as_ref()?;
        let is_down = failure.is_outage && now < *pause;
        let is_shared = *ended >= arrival && (failure.is_outage || missing.iter().all(|one| wanted.contains(one)));
        (is_down || is_shared).then(|| failure.clone())
    }
}

impl Cache {
    /// An empty cache. `None` if there is no memory.
    #[must_use]
    pub fn new(bytes: usize, values: usize, fetch: Box<dyn Fetch>) -> Option<Self> {
        let table = RefCell::new(Table::new(bytes, values)?);
        Some(Self { table, stores: RefCell::default(), fetch, told: None })
    }

    /// From here on, tells what stores answer.
    pub fn tell(&mut self, told: Box<Tell>) {
        self.told = Some(told);
    }

    /// Everything that an order wants, from the cache as far as it counts, else from the store.
    ///
    /// # Errors
    /// The store failed, and there is no older answer that may be served.
    pub async fn answers(&self, policy: &Arc<Served>, order: &Order, deadline: Instant) -> Result<Found, Failure> {
        let key = (policy.number, order.store().clone());
        let arrival = Instant::now();
        if let Some(found) = self.all_fresh(&key, order, arrival) {
            return Ok(found);
        }
        let asked = self.asked(policy, &key);
        // Where nothing may be kept there is nothing to share, so that nobody has to wait for the others.
        let _turn = if policy.policy.cache.ttl.is_zero() { None } else { Some(asked.turn.lock().await) };
        // Somebody may have fetched it meanwhile, or tried to.
        let now = Instant::now();
        if let Some(found) = self.all_fresh(&key, order, now) {
            return Ok(found);
        }
        let missing: Vec<usize> = {
            let table = self.table.borrow();
            let is_fresh = |wanted| matches!(table.state(&key, wanted, now), Some(State::Fresh | State::Due));
            (0..).zip(order.wanted()).filter(|(_, wanted)| !is_fresh(wanted)).map(|(index, _)| index).collect()
        };
        let wanted: Vec<Wanted> = missing.iter().filter_map(|index| order.wanted().get(*index)).cloned().collect();
        if let Some(failure) = asked.failure(arrival, now, &wanted) {
            return self.in_spite_of(failure, &key, order);
        }
        match self.ask(policy, &key, &asked, wanted, deadline).await {
            (Ok(fetched), request_ids) => {
                // What was fetched is served from here, since the cache need not have kept it.
                let mut fetched: HashMap<usize, Answer> = missing.iter().copied().zip(fetched).collect();
                let count = fetched.len();
                let whole: Option<Vec<Answer>> = {
                    let mut table = self.table.borrow_mut();
                    let answers = (0..).zip(order.wanted());
                    answers.map(|(index, wanted)| fetched.remove(&index).or_else(|| table.copy(&key, wanted))).collect()
                };
                match whole {
                    Some(answers) => {
                        Ok(Found { answers, stale: Vec::new(), request_ids, is_due: false, fetched: count })
                    }
                    // Evicted by what was fetched: the cache is smaller than one order.
                    None => self.without_cache(policy, &key, &asked, order, deadline).await,
                }
            }
            (Err(failure), request_ids) => {
                self.in_spite_of(failure, &key, order).map(|found| Found { request_ids, ..found })
            }
        }
    }

    /// Fetches again what is due of an order, unless that is under way. Answers what came of it, for the audit.
    pub async fn refresh(&self, policy: &Arc<Served>, order: &Order) -> Option<(Result<(), Failure>, Vec<String>)> {
        let key = (policy.number, order.store().clone());
        let asked = self.asked(policy, &key);
        if asked.is_refreshing.replace(true) {
            return None;
        }
        let _done = Done(&asked.is_refreshing);
        let _turn = asked.turn.lock().await;
        let now = Instant::now();
        let due: Vec<Wanted> = {
            let table = self.table.borrow();
            let is_due = |wanted: &&Wanted| matches!(table.state(&key, wanted, now), Some(State::Due));
            order.wanted().iter().filter(is_due).cloned().collect()
        };
        if due.is_empty() || asked.failure(now, now, &due).is_some() {
            return None;
        }
        let (answers, request_ids) = self.ask(policy, &key, &asked, due, now + policy.policy.run.deadline).await;
        Some((answers.map(drop).map_err(|failure| failure.failure), request_ids))
    }

    /// Fetches again what was not fetched for so long of an order; answers what came of it, if anything had to be.
    pub async fn renew(
        &self,
        policy: &Arc<Served>,
        order: &Order,
        age: Duration,
    ) -> Option<(Result<(), StoreFailure>, Vec<String>)> {
        let key = (policy.number, order.store().clone());
        let asked = self.asked(policy, &key);
        let _turn = asked.turn.lock().await;
        let now = Instant::now();
        let old: Vec<Wanted> = {
            let table = self.table.borrow();
            let is_old = |wanted: &&Wanted| {
                table.fetched(&key, wanted).is_none_or(|fetched| now.saturating_duration_since(fetched) >= age)
            };
            order.wanted().iter().filter(is_old).cloned().collect()
        };
        if old.is_empty() || asked.failure(now, now, &old).is_some() {
            return None;
        }
        let (answers, request_ids) = self.ask(policy, &key, &asked, old, now + policy.policy.run.deadline).await;
        Some((answers.map(drop), request_ids))
    }

    /// Forgets everything of the policies that `is_meant`; answers how many entries that were.
    pub fn forget(&self, is_meant: impl Fn(u64) -> bool) -> u64 {
        self.stores.borrow_mut().retain(|(policy, _), _| !is_meant(*policy));
        self.table.borrow_mut().forget_all(|(policy, _)| is_meant(*policy))
    }

    /// Wipes what no longer counts in any case.
    pub fn sweep(&self) {
        self.table.borrow_mut().sweep(Instant::now());
    }

    /// The cache in numbers.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.table.borrow().figures()
    }

    /// What the kernel did not grant, as in "the cache is not ...".
    #[must_use]
    pub fn lacks(&self) -> Vec<&'static str> {
        self.table.borrow().lacks().to_vec()
    }

    /// Stores that were down when they were last asked, if that is not long ago, by the number of their policy.
    #[must_use]
    pub fn down(&self) -> Vec<(u64, StoreName)> {
        let stores = self.stores.borrow();
        let is_down = |asked: &Asked| {
            asked
                .failed
                .borrow()
                .as_ref()
                .is_some_and(|failed| failed.failure.is_outage && failed.ended.elapsed() < STILL_DOWN)
        };
        stores.iter().filter(|(_, asked)| is_down(asked)).map(|(key, _)| key.clone()).collect()
    }

    fn asked(&self, policy: &Served, key: &StoreKey) -> Rc<Asked> {
        // Who began under a policy that was replaced meanwhile ends under it, and nobody after him: there would be nothing
        // to forget it by.
        if policy.is_retired() {
            return Rc::default();
        }
        Rc::clone(self.stores.borrow_mut().entry(key.clone()).or_default())
    }

    fn all_fresh(&self, key: &StoreKey, order: &Order, now: Instant) -> Option<Found> {
        let mut table = self.table.borrow_mut();
        let mut is_due = false;
        for wanted in order.wanted() {
            match table.state(key, wanted, now)? {
                State::Fresh => {}
                State::Due => is_due = true,
                State::Stale(_) => return None,
            }
        }
        let answers = order.wanted().iter().map(|wanted| table.copy(key, wanted)).collect::<Option<_>>()?;
        Some(Found { answers, stale: Vec::new(), request_ids: Vec::new(), is_due, fetched: 0 })
    }

    /// Asks the store and keeps what it answers; notes its failure.
    async fn ask(
        &self,
        policy: &Arc<Served>,
        key: &StoreKey,
        asked: &Asked,
        wanted: Vec<Wanted>,
        deadline: Instant,
    ) -> (Result<Vec<Answer>, StoreFailure>, Vec<String>) {
        let began = Instant::now();
        let Outcome { answers, request_ids } =
            self.fetch.fetch(Arc::clone(policy), key.1.clone(), wanted.clone(), deadline).await;
        match &answers {
            Ok(answers) => {
                // What was denied, flushed or replaced while this was under way leaves nothing behind.
                let is_denied = |failed: &Failed| !failed.failure.is_outage && failed.ended >= began;
                let was_denied = asked.failed.borrow().as_ref().is_some_and(is_denied);
                let is_current = self.stores.borrow().get(key).is_some_and(|now| std::ptr::eq(&raw const **now, asked));
                if is_current && !was_denied && !policy.is_retired() {
                    asked.failed.replace(None);
                    let mut table = self.table.borrow_mut();
                    if let Some(told) = &self.told {
                        told(key, &wanted, answers);
                    }
                    for (wanted, answer) in wanted.iter().zip(answers) {
                        table.keep(key, wanted, answer, &policy.policy.cache, began, random());
                    }
                }
            }
            Err(failure) => {
                if !failure.is_outage {
                    self.table.borrow_mut().forget_all(|store| store == key);
                }
                let pause = PAUSE.mul_f64(1.0 + f64::from(random()) / f64::from(u32::MAX));
                let ended = Instant::now();
                let pause = ended + pause;
                asked.failed.replace(Some(Failed { ended, wanted, failure: failure.clone(), pause }));
            }
        }
        (answers, request_ids)
    }

    /// Older answers, where the store is down and they still may be served.
    fn in_spite_of(&self, failure: StoreFailure, key: &StoreKey, order: &Order) -> Result<Found, Failure> {
        if !failure.is_outage {
            return Err(failure.failure);
        }
        let mut table = self.table.borrow_mut();
        let (mut answers, mut stale) = (Vec::with_capacity(order.wanted().len()), Vec::new());
        let now = Instant::now();
        for (index, wanted) in order.wanted().iter().enumerate() {
            match table.state(key, wanted, now) {
                Some(State::Fresh | State::Due) => {}
                Some(State::Stale(past)) => stale.push((index, past)),
                None => return Err(failure.failure),
            }
            match table.copy(key, wanted) {
                Some(answer) => answers.push(answer),
                None => return Err(failure.failure),
            }
        }
        Ok(Found { answers, stale, request_ids: Vec::new(), is_due: false, fetched: 0 })
    }

    async fn without_cache(
        &self,
        policy: &Arc<Served>,
        key: &StoreKey,
        asked: &Asked,
        order: &Order,
        deadline: Instant,
    ) -> Result<Found, Failure> {
        let (answers, request_ids) = self.ask(policy, key, asked, order.wanted().to_vec(), deadline).await;
        let answers = answers.map_err(|failure| failure.failure)?;
        Ok(Found { fetched: answers.len(), answers, stale: Vec::new(), request_ids, is_due: false })
    }
}

/// Takes a flag down however its holder ends.
struct Done<'a>(&'a Cell<bool>);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}
