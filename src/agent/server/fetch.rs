//! Asking stores, off the event loop: stores block, and one that hangs must hold up nobody else.

use std::sync::Arc;
use std::time::Instant;

use super::policies::Served;
use crate::agent::cache::{Fetch, Fetching, Outcome, StoreFailure};
use crate::agent::failure::Failure;
use crate::error::Class;
use crate::inject::ParentEnv;
use crate::name::StoreName;
use crate::policy::model::HostFile;
use crate::setting::Setting;
use crate::store::{Answer, Wanted};

/// Fetches that are under way at once; more wait.
pub(super) const AT_ONCE: usize = 16;

/// Asks the stores of policies with the means of this process.
pub(super) struct Stores {
    pub(super) host: Arc<HostFile>,
    pub(super) environment: Arc<ParentEnv>,
}

impl Fetch for Stores {
    fn fetch(&self, policy: Arc<Served>, store: StoreName, wanted: Vec<Wanted>, deadline: Instant) -> Fetching {
        let (host, environment) = (Arc::clone(&self.host), Arc::clone(&self.environment));
        let asking = tokio::task::spawn_blocking(move || ask(&policy, &host, &environment, &store, &wanted, deadline));
        Box::pin(async move {
            asking.await.unwrap_or_else(|_| {
                let message = "a store could not be asked: internal error, whose place is in the log".to_owned();
                let failure = Failure { class: Class::Internal, message, hint: None };
                Outcome { answers: Err(StoreFailure { failure, is_outage: false }), request_ids: Vec::new() }
            })
        })
    }
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
