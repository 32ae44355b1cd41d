//! The credentials that are held: what the SDK signs with until it is replaced.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, error::CredentialsError, future};

/// Credentials that end sooner are not used for another call.
const MARGIN: Duration = Duration::from_secs(30);

/// Credentials that were found. `Debug` of the SDK's type shows the key's id alone, and nothing prints even that.
#[derive(Clone)]
pub struct Found {
    pub(super) credentials: Credentials,
    /// They are static keys of the environment, or were made with them: the child must not get those.
    pub are_static_keys: bool,
}

impl Found {
    /// Whether both are the same session.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.credentials.access_key_id() == other.credentials.access_key_id()
            && self.credentials.session_token() == other.credentials.session_token()
    }

    /// Whether they are about to expire.
    #[must_use]
    pub fn ends_soon(&self) -> bool {
        self.credentials.expiry().is_some_and(|end| end < SystemTime::now() + MARGIN)
    }
}

/// What the SDK signs with, until it is replaced.
#[derive(Clone, Default)]
pub struct Current(Arc<Mutex<Option<Found>>>);

impl Current {
    /// What is used now.
    #[must_use]
    pub fn get(&self) -> Option<Found> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// To be used from now on.
    pub fn set(&self, found: Found) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current")
    }
}

impl ProvideCredentials for Current {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let held = self.get().map(|found| found.credentials);
        future::ProvideCredentials::ready(held.ok_or_else(CredentialsError::not_loaded_no_source))
    }
}
