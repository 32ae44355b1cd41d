//! What subscribers wait for, policy by policy: one look-up in each interval, however many they are.
//!
//! What must stay true:
//! - Nothing is fetched but what an [`Order`] names, which only a permit makes, and each fetch is written down under an
//!   access of somebody who waits for it.
//! - No plaintext is kept: of an answer there is a digest under a random key of this process, and it says only that somebody
//!   should look; what he looks at is decided and written down anew.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ring::hmac;
use tokio::sync::{Notify, watch};

use super::Agent;
use super::policies::Served;
use super::refresh::note_refresh;
use crate::agent::failure::Failure;
use crate::audit::Outcome;
use crate::audit::journal::Access;
use crate::name::StoreName;
use crate::resolve::Order;
use crate::store::aws::retry::random;
use crate::store::{Answer, Wanted};

/// How long nothing may change before anybody is told; never longer than the interval.
const QUIET: Duration = Duration::from_secs(2);

/// What changes again and again is told all the same, after so many times of that.
const MOST_QUIETS: u32 = 10;

/// Everything that is waited for.
pub(super) struct Hub {
    key: hmac::Key,
    watched: RefCell<HashMap<u64, Rc<Watched>>>,
    /// Of the last wait.
    number: Cell<u64>,
}

/// What is waited for of one policy.
struct Watched {
    served: Arc<Served>,
    every: Duration,
    orders: RefCell<HashMap<Rc<Order>, Waiting>>,
    prints: RefCell<HashMap<(StoreName, Wanted), [u8; 32]>>,
    changed: watch::Sender<()>,
    /// Do not wait for the end of the interval.
    hurry: Notify,
}

/// Who waits for one order.
#[derive(Default)]
struct Waiting {
    /// Of each, by the number of his wait: what is fetched is fetched for somebody who is there.
    accesses: BTreeMap<u64, Access>,
}

/// One who waits, for as long as it is held.
pub(super) struct Watching {
    watched: Rc<Watched>,
    number: u64,
    orders: Vec<Rc<Order>>,
    changed: watch::Receiver<()>,
}

impl Hub {
    pub(super) fn new(key: hmac::Key) -> Self {
        Self { key, watched: RefCell::default(), number: Cell::default() }
    }

    /// Waits for changes of what these orders name; from this moment on.
    pub(super) fn watch(
        &self,
        agent: &Rc<Agent>,
        served: &Arc<Served>,
        every: Duration,
        orders: &[Order],
        access: &Access,
    ) -> Watching {
        let mut all = self.watched.borrow_mut();
        let watched = all.entry(served.number).or_insert_with(|| {
            let new = Rc::new(Watched {
                served: Arc::clone(served),
                every,
                orders: RefCell::default(),
                prints: RefCell::default(),
                changed: watch::Sender::new(()),
                hurry: Notify::new(),
            });
            tokio::task::spawn_local(keep(Rc::clone(agent), Rc::clone(&new)));
            new
        });
        let number = self.number.get() + 1;
        self.number.set(number);
        let mut known = watched.orders.borrow_mut();
        let orders = orders.iter().map(|order| {
            let order =
                known.get_key_value(order).map_or_else(|| Rc::new(order.clone()), |(known, _)| Rc::clone(known));
            known.entry(Rc::clone(&order)).or_default().accesses.insert(number, access.again());
            order
        });
        let orders = orders.collect();
        drop(known);
        Watching { watched: Rc::clone(watched), number, orders, changed: watched.changed.subscribe() }
    }

    /// Takes in what a store has answered. Whoever waits for it hears of it if it is not what it was.
    pub(super) fn observe(&self, policy: u64, store: &StoreName, wanted: &[Wanted], answers: &[Answer]) {
        let all = self.watched.borrow();
        let Some(watched) = all.get(&policy) else { return };
        let mut prints = watched.prints.borrow_mut();
        let mut has_changed = false;
        for (wanted, answer) in wanted.iter().zip(answers) {
            let print = print(&self.key, answer);
            let before = prints.insert((store.clone(), wanted.clone()), print);
            has_changed |= before.is_some_and(|before| before != print);
        }
        if has_changed {
            watched.changed.send_replace(());
        }
    }

    /// What was cached of these policies is forgotten: looks at once.
    pub(super) fn hurry(&self, is_meant: impl Fn(u64) -> bool) {
        self.watched
            .borrow()
            .iter()
            .filter(|(number, _)| is_meant(**number))
            .for_each(|(_, one)| one.hurry.notify_one());
    }

    /// These policies are no longer served as they were: whoever waits has to ask anew.
    pub(super) fn retire(&self, policies: &[u64]) {
        for policy in policies {
            if let Some(watched) = self.watched.borrow_mut().remove(policy) {
                watched.changed.send_replace(());
                watched.hurry.notify_one();
            }
        }
    }

    fn end(&self, watched: &Rc<Watched>) {
        let mut all = self.watched.borrow_mut();
        if all.get(&watched.served.number).is_some_and(|other| Rc::ptr_eq(other, watched)) {
            all.remove(&watched.served.number);
        }
    }
}

impl Waiting {
    /// Of one who waits.
    fn access(&self) -> Option<Access> {
        self.accesses.values().next().map(Access::again)
    }
}

impl Watching {
    /// How often is looked.
    pub(super) fn every(&self) -> Duration {
        self.watched.every
    }

    /// Until there may be something new and it has been quiet since, spread by chance so that not all look at once; and not
    /// before `not_before`.
    pub(super) async fn changed(&mut self, not_before: Option<Instant>) {
        // The sender is ours as long as we are here, so there is no error.
        self.changed.changed().await.unwrap_or_default();
        let quiet = QUIET.min(self.watched.every);
        for _ in 0..MOST_QUIETS {
            if tokio::time::timeout(quiet, self.changed.changed()).await.is_err() {
                break;
            }
        }
        tokio::time::sleep(chance(self.watched.every)).await;
        if let Some(not_before) = not_before {
            tokio::time::sleep_until(not_before.into()).await;
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut orders = self.watched.orders.borrow_mut();
        for order in &self.orders {
            if let Some(waiting) = orders.get_mut(order) {
                waiting.accesses.remove(&self.number);
                if waiting.accesses.is_empty() {
                    orders.remove(order);
                }
            }
        }
        if orders.is_empty() {
            self.watched.hurry.notify_one();
        }
    }
}

/// Up to a fifth of an interval.
fn chance(every: Duration) -> Duration {
    every.mul_f64(f64::from(random()) / f64::from(u32::MAX) / 5.0)
}

/// Looks once in each interval, until nobody waits any more.
async fn keep(agent: Rc<Agent>, watched: Rc<Watched>) {
    let mut stopping = agent.stopping.subscribe();
    loop {
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => return,
            () = watched.hurry.notified() => {}
            () = tokio::time::sleep(watched.every + chance(watched.every)) => {}
        }
        if watched.served.is_retired() || watched.orders.borrow().is_empty() {
            agent.hub.end(&watched);
            return;
        }
        let orders: Vec<Rc<Order>> = {
            let orders = watched.orders.borrow();
            orders.keys().map(Rc::clone).collect()
        };
        for order in orders {
            let access = watched.orders.borrow().get(&order).and_then(Waiting::access);
            // Nobody waits for it any more.
            let Some(access) = access else { continue };
            look(&agent, &watched, &order, access).await;
        }
    }
}

/// Asks the store for what nobody else has asked for since.
async fn look(agent: &Rc<Agent>, watched: &Watched, order: &Order, mut access: Access) {
    let mut fetched = Vec::new();
    let may_fetch = async |wanted: &[Wanted]| {
        fetched = wanted.to_vec();
        note_refresh(agent, &mut access, order.store(), wanted, Outcome::Allowed, None).await
    };
    let renewed = agent.cache.renew(&watched.served, order, watched.every / 2, may_fetch).await;
    let Some((outcome, request_ids)) = renewed else { return };
    access.note_request_ids(request_ids);
    agent.metrics.refreshed(outcome.is_ok());
    if outcome.as_ref().is_err_and(|failure| !failure.is_outage) {
        // Each who waits is to hear it for himself.
        watched.changed.send_replace(());
    }
    let (outcome, reason) = match outcome {
        Ok(()) => (Outcome::Succeeded, None),
        Err(failure) => {
            let Failure { message, .. } = failure.failure;
            (Outcome::Failed, Some(message))
        }
    };
    note_refresh(agent, &mut access, order.store(), &fetched, outcome, reason).await;
}

/// What stands for an answer, and for nothing without the key. Another version of the same value is no other answer.
fn print(key: &hmac::Key, answer: &Answer) -> [u8; 32] {
    let mut context = hmac::Context::with_key(key);
    let mut part = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    match answer {
        Answer::Absent => part(b"absent"),
        Answer::Found(found) => {
            part(b"found");
            part(found.value.expose());
        }
        Answer::Bundle(items) => {
            part(b"bundle");
            for (name, found) in items {
                part(name.as_str().as_bytes());
                part(found.value.expose());
            }
        }
    }
    context.sign().as_ref().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::ItemName;
    use crate::secret::Secret;
    use crate::store::Fetched;

    fn found(value: &str, version: u64) -> Fetched {
        Fetched { value: Secret::new(value.as_bytes().to_vec()), version: Some(version), stage: None, written: None }
    }

    fn bundle(items: &[(&str, &str)]) -> Answer {
        Answer::Bundle(items.iter().map(|(name, value)| (ItemName::new(*name).unwrap(), found(value, 1))).collect())
    }

    #[test]
    fn a_print_tells_values_apart_and_nothing_else() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[1; 32]);
        let print = |answer: &Answer| print(&key, answer);
        assert_eq!(print(&Answer::Found(found("a", 1))), print(&Answer::Found(found("a", 2))));
        let all = [
            Answer::Absent,
            Answer::Found(found("", 1)),
            Answer::Found(found("a", 1)),
            Answer::Found(found("b", 1)),
            bundle(&[]),
            bundle(&[("a", "bc")]),
            bundle(&[("ab", "c")]),
            bundle(&[("a", "b"), ("c", "")]),
        ];
        let different: std::collections::BTreeSet<_> = all.iter().map(print).collect();
        assert_eq!(different.len(), all.len());
        let other = hmac::Key::new(hmac::HMAC_SHA256, &[2; 32]);
        assert!(all.iter().all(|answer| super::print(&other, answer) != print(answer)));
    }

    #[test]
    fn no_more_than_a_fifth_is_left_to_chance() {
        assert!((0..100).all(|_| chance(Duration::from_secs(10)) <= Duration::from_secs(2)));
    }
}
