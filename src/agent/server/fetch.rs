//! Asking stores, off the event loop: stores block, and one that hangs must hold up nobody else.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::time::timeout_at;

use super::policies::Served;
use crate::agent::cache::{Fetch, Fetching, Outcome, StoreFailure, StoreKey};
use crate::agent::failure::Failure;
use crate::error::Class;
use crate::inject::ParentEnv;
use crate::name::StoreName;
use crate::policy::model::{HostFile, Store};
use crate::setting::Setting;
use crate::store::{Answer, Wanted};

/// Fetches that are under way at once; more wait.
pub(super) const AT_ONCE: usize = 64;

/// Of these, so many of one store of one policy. A store that hangs holds up those who want something of it, and no others.
const OF_ONE_STORE: usize = 4;

/// Of these, so many over a network: while whatever is out there hangs, files are still read.
const REMOTE: usize = 48;

/// A store knows its deadline and says best what it waited for; one that does not keep to it is left alone after this.
const GRACE: Duration = Duration::from_secs(1);

/// Asks the stores of policies with the means of this process.
pub(super) struct Stores {
    host: Arc<HostFile>,
    environment: Arc<ParentEnv>,
    remote: Arc<Semaphore>,
    by_store: RefCell<HashMap<StoreKey, Arc<Semaphore>>>,
}

impl Stores {
    pub(super) fn new(host: Arc<HostFile>, environment: Arc<ParentEnv>) -> Self {
        Self { host, environment, remote: Arc::new(Semaphore::new(REMOTE)), by_store: RefCell::default() }
    }

    /// The places of one store. Those of stores that nobody asks right now are made anew when somebody does.
    fn places(&self, key: StoreKey) -> Arc<Semaphore> {
        let mut by_store = self.by_store.borrow_mut();
        by_store.retain(|_, places| Arc::strong_count(places) > 1);
        Arc::clone(by_store.entry(key).or_insert_with(|| Arc::new(Semaphore::new(OF_ONE_STORE))))
    }
}

impl Fetch for Stores {
    fn fetch(&self, policy: Arc<Served>, store: StoreName, wanted: Vec<Wanted>, deadline: Instant) -> Fetching {
        let (host, environment) = (Arc::clone(&self.host), Arc::clone(&self.environment));
        let is_remote = policy.policy.stores.get(&store).is_some_and(is_remote);
        let places = self.places((policy.number, store.clone()));
        let remote = is_remote.then(|| Arc::clone(&self.remote));
        Box::pin(async move {
            let name = store.clone();
            let asked = async {
                // Of its own first: who waits for a store that hangs takes no place of others meanwhile. Never closed.
                let own = places.acquire_owned().await.ok();
                let far = match remote {
                    Some(remote) => remote.acquire_owned().await.ok(),
                    None => None,
                };
                let asking = tokio::task::spawn_blocking(move || {
                    let outcome = ask(&policy, &host, &environment, &store, &wanted, deadline);
                    // Held by the thread, whether or not anybody still waits for it.
                    drop((own, far));
                    outcome
                });
                asking.await.unwrap_or_else(|_| {
                    let message = "a store could not be asked: internal error, whose place is in the log";
                    failed(Class::Internal, message.to_owned(), false)
                })
            };
            timeout_at((deadline + GRACE).into(), asked).await.unwrap_or_else(|_| {
                failed(Class::Store, format!("store `{name}`: it did not answer before the policy's deadline"), true)
            })
        })
    }
}

/// Whether a store is at the other end of a network.
fn is_remote(store: &Store) -> bool {
    match store {
        Store::Age(_) => false,
        Store::Kms(_) | Store::Ssm(_) => true,
    }
}

fn failed(class: Class, message: String, is_outage: bool) -> Outcome {
    let failure = Failure { class, message, hint: None };
    Outcome { answers: Err(StoreFailure { failure, is_outage }), request_ids: Vec::new() }
}

fn ask(
    policy: &Served,
    host: &HostFile,
    environment: &ParentEnv,
    store: &StoreName,
    wanted: &[Wanted],
    deadline: Instant,
) -> Outcome {
    let failed = |failure| StoreFailure { failure, is_outage: false };
    let setting = Setting::of_loaded(policy.policy.clone(), host.clone(), environment);
    let answers: Result<Vec<Answer>, StoreFailure> = match setting.open_store(store) {
        Ok(mut opened) => opened
            .fetch(wanted, deadline)
            .map_err(|error| StoreFailure { failure: Failure::of(&error), is_outage: error.is_outage() }),
        Err(error) => Err(failed(Failure::of_error(&error))),
    };
    Outcome { answers, request_ids: setting.aws.take_request_ids() }
}
