//! What the `ssm` and the `kms` store have in common: region, endpoint, credentials, one deadline, retries, errors.
//!
//! - [`transport`]: the one way out, with [`resolver`] (names) and [`tls`] (who is trusted);
//! - [`credentials`]: where they come from, and the pin, with [`shared_files`]; [`held`]: what is signed with;
//! - [`retry`]: when to try again, and several calls at once;
//! - [`classify`]: the one table of error codes; [`error`]: what they are to the user.
//!
//! Nothing is made before the first call: no client, no look-up, no runtime. The runtime is current-thread, so that the
//! process has one thread, and it is left by `shutdown_background`, since a drop would wait for whatever still hangs. The
//! SDK's own retries are off: it would write twice where an answer got lost.

mod classify;
pub mod credentials;
pub mod error;
pub mod held;
pub mod notes;
pub mod resolver;
pub mod retry;
pub mod shared_files;
pub mod tls;
pub mod transport;

use std::cell::{Cell, OnceCell, RefCell};
use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use aws_config::identity::IdentityCache;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_types::request_id::RequestId;
use tokio::runtime::Runtime;

pub use self::notes::Notes;

use self::credentials::Sources;
use self::error::{Asked, AwsError, Problem};
use self::held::{Current, Found};
use self::retry::{Repetition, random, repetition, wait};
use self::transport::{Addresses, host_of, is_loopback};
use super::identity::Environment;
use crate::policy::model::{AwsAccess, HostNetwork};

/// Calls in flight where the policy says nothing. Parameter Store answers 40 a second to a whole account.
const IN_FLIGHT: usize = 4;
/// For one attempt. What takes longer is worth a new connection.
const ATTEMPT: Duration = Duration::from_secs(8);
const CONNECT: Duration = Duration::from_secs(3);

/// The services that are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Kms,
    Ssm,
    Sts,
}

/// What a store knows of AWS before anything is asked.
#[derive(Clone, Copy)]
pub struct Access<'a> {
    /// What the policy says.
    pub policy: &'a AwsAccess,
    /// What the host's owner says.
    pub network: &'a HostNetwork,
    /// The environment that the process was started with.
    pub env: Environment<'a>,
    /// What was done.
    pub notes: &'a Notes,
    /// The region where the policy names none: that of a key's ARN.
    pub fallback_region: Option<&'a str>,
}

/// The calls of one store to AWS, from synchronous code.
pub struct Aws<'a> {
    access: Access<'a>,
    live: Option<Live<'a>>,
}

struct Live<'a> {
    runtime: Runtime,
    calls: Calls<'a>,
}

impl<'a> Aws<'a> {
    /// Makes nothing yet.
    #[must_use]
    pub fn new(access: Access<'a>) -> Self {
        Self { access, live: None }
    }

    /// Does `work`, which has until `deadline` for everything: credentials, names, handshakes, repetitions.
    ///
    /// # Errors
    /// There are no credentials or no region; those of `work`; [`Problem::Deadline`].
    pub fn run<T, E: From<AwsError>>(
        &mut self,
        deadline: Instant,
        work: impl AsyncFnOnce(&Calls<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let live = match &mut self.live {
            Some(live) => live,
            empty => empty.insert(set_up(self.access)?),
        };
        live.calls.deadline.set(Some(deadline));
        live.calls.overdue.take();
        let Live { runtime, calls } = live;
        let all = async {
            calls.ensure_credentials().await.map_err(AwsError::from)?;
            work(calls).await
        };
        runtime.block_on(async {
            tokio::time::timeout_at(deadline.into(), all)
                .await
                .unwrap_or_else(|_| Err(calls.overdue.take().unwrap_or_else(|| Problem::Deadline.into()).into()))
        })
    }
}

impl Drop for Aws<'_> {
    fn drop(&mut self) {
        if let Some(Live { runtime, calls }) = self.live.take() {
            drop(calls);
            runtime.shutdown_background();
        }
    }
}

fn set_up(access: Access<'_>) -> Result<Live<'_>, AwsError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|_| Problem::Invalid("the system gives no file descriptor for an event loop"))?;
    let calls = runtime.block_on(Calls::set_up(access))?;
    Ok(Live { runtime, calls })
}

/// The calls themselves, for the asynchronous part of a store.
pub struct Calls<'a> {
    access: Access<'a>,
    region: String,
    config: SdkConfig,
    sources: Sources,
    current: Current,
    deadline: Cell<Option<Instant>>,
    /// What the deadline means if it comes now, where that is more than that there was no answer.
    overdue: RefCell<Option<AwsError>>,
    refreshing: tokio::sync::Mutex<()>,
    /// Credentials that were found to be of the account that the policy pins.
    confirmed: RefCell<Option<Found>>,
    ssm: OnceCell<aws_sdk_ssm::Client>,
    kms: OnceCell<aws_sdk_kms::Client>,
}

impl<'a> Calls<'a> {
    async fn set_up(access: Access<'a>) -> Result<Self, AwsError> {
        let Access { policy, network, env, fallback_region, .. } = access;
        let region = match policy.region.as_deref().or(fallback_region) {
            Some(region) => region.to_owned(),
            None => shared_files::region(env, policy.profile.as_deref()).await?.ok_or(Problem::NoRegion)?,
        };
        let mut ca_files = network.ca_files.clone();
        if network.env_endpoint {
            let named = ["AWS_CA_BUNDLE", "SSL_CERT_FILE"].into_iter().filter_map(env);
            ca_files.extend(named.filter(|path| !path.is_empty()).map(PathBuf::from));
        }
        let names = resolver::Names::default();
        let tls = tls::context(&ca_files)?;
        let any = network.env_endpoint;
        let client = |named: Vec<String>, metadata| {
            transport::client(Addresses { named, any, metadata }, tls.clone(), names.clone(), any)
        };
        let of_policy: Vec<String> = policy.endpoint.iter().cloned().collect();
        let emulator: Vec<String> = of_policy.iter().filter(|url| is_on_this_host(url)).cloned().collect();
        // What the SDK's providers ask is named by the environment and the shared configuration too, and no setting of the
        // SDK turns that off. So each kind of them can reach only what it has to.
        let container = env("AWS_CONTAINER_CREDENTIALS_FULL_URI").and_then(|uri| uri.into_string().ok());
        let container = container.into_iter().filter(|uri| is_on_this_host(uri)).collect();
        let ways = credentials::Ways {
            services: client(emulator.clone(), false),
            container: client(container, true),
            metadata: client(emulator.clone(), true),
            emulator: emulator.into_iter().next(),
            env_endpoint: any,
        };
        let http = client(of_policy, false);
        let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(ATTEMPT).build();
        let current = Current::default();
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region.clone()))
            .http_client(http)
            .timeout_config(timeouts)
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .identity_cache(IdentityCache::no_cache())
            .credentials_provider(SharedCredentialsProvider::new(current.clone()))
            .build();
        let sources = Sources::new(policy, &config, names, endpoint(access, Service::Sts), ways);
        Ok(Self {
            access,
            region,
            config,
            sources,
            current,
            deadline: Cell::new(None),
            overdue: RefCell::default(),
            refreshing: tokio::sync::Mutex::new(()),
            confirmed: RefCell::default(),
            ssm: OnceCell::new(),
            kms: OnceCell::new(),
        })
    }

    /// The region that is asked.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// How many calls may be under way at once.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.access.policy.in_flight.unwrap_or(IN_FLIGHT)
    }

    /// The client of Systems Manager.
    pub fn ssm(&self) -> &aws_sdk_ssm::Client {
        self.ssm.get_or_init(|| {
            let mut config = aws_sdk_ssm::config::Builder::from(&self.config);
            config.set_endpoint_url(endpoint(self.access, Service::Ssm));
            aws_sdk_ssm::Client::from_conf(config.build())
        })
    }

    /// The client of KMS.
    pub fn kms(&self) -> &aws_sdk_kms::Client {
        self.kms.get_or_init(|| {
            let mut config = aws_sdk_kms::config::Builder::from(&self.config);
            config.set_endpoint_url(endpoint(self.access, Service::Kms));
            aws_sdk_kms::Client::from_conf(config.build())
        })
    }

    /// A call that changes nothing: repeated as [`repetition`] says, with fresh credentials once if they were the problem.
    ///
    /// # Errors
    /// The last failure.
    pub async fn read<O, E, F>(&self, asked: &Asked, attempt: impl Fn() -> F) -> Result<O, AwsError>
    where
        F: Future<Output = Result<O, SdkError<E, HttpResponse>>>,
        O: RequestId,
        E: ProvideErrorMetadata,
    {
        let mut failures = 0;
        let mut refreshed = false;
        loop {
            let used = self.current.get();
            let problem = match self.once(&attempt).await {
                Ok(answer) => return Ok(answer),
                Err(problem) => problem,
            };
            if problem.is_of_credentials() && !refreshed && self.refresh(used).await {
                refreshed = true;
                continue;
            }
            failures += 1;
            if repetition(&problem) == Repetition::Patient {
                self.at_the_deadline_say(problem.clone().of(asked));
            }
            self.pause(&problem, failures).await.ok_or_else(|| problem.of(asked))?;
        }
    }

    /// Should the deadline come from now on, this is why. That a write may have happened outweighs everything.
    pub fn at_the_deadline_say(&self, error: AwsError) {
        let mut overdue = self.overdue.borrow_mut();
        if overdue.as_ref().is_none_or(|held| held.problem != Problem::Unsettled) {
            *overdue = Some(error);
        }
    }

    /// One attempt and no other, for writes: the caller finds out what an unclear answer means.
    ///
    /// # Errors
    /// The failure.
    pub async fn once<O, E, F>(&self, attempt: impl Fn() -> F) -> Result<O, Problem>
    where
        F: Future<Output = Result<O, SdkError<E, HttpResponse>>>,
        O: RequestId,
        E: ProvideErrorMetadata,
    {
        match attempt().await {
            Ok(answer) => {
                self.access.notes.request(answer.request_id());
                Ok(answer)
            }
            Err(error) => {
                self.access.notes.request(error.request_id());
                Err(Problem::of_call(&error))
            }
        }
    }

    /// Waits before another attempt; `None` if there is to be none. `failures` counts from 1.
    pub async fn pause(&self, problem: &Problem, failures: u32) -> Option<()> {
        let left = self.deadline.get().map_or(Duration::ZERO, |end| end.saturating_duration_since(Instant::now()));
        tokio::time::sleep(wait(repetition(problem), failures, left, random())?).await;
        Some(())
    }

    /// Refuses an answer of another account than the policy pins. `arn` is that of the resource in the answer.
    ///
    /// # Errors
    /// The account is another one, or the answer does not name it.
    pub fn check_account(&self, arn: Option<&str>) -> Result<(), Problem> {
        let Some(wanted) = &self.access.policy.account else { return Ok(()) };
        match arn.and_then(|arn| arn.split(':').nth(4)) {
            Some(found) if found == wanted => Ok(()),
            Some(found) => {
                Err(Problem::WrongAccount { found: found.chars().take(64).collect(), wanted: wanted.clone() })
            }
            None => Err(Problem::BadAnswer("it does not say of which account it is")),
        }
    }

    /// Refuses to change or look back into anything in another account than the policy pins: those answers do not say where
    /// they come from. `GetCallerIdentity` needs no permission (STS API reference). Asked once for the same credentials.
    ///
    /// # Errors
    /// The account is another one, or could not be learned.
    pub async fn require_account(&self) -> Result<(), AwsError> {
        if self.access.policy.account.is_none() {
            return Ok(());
        }
        let used = self.current.get();
        if self.confirmed.borrow().as_ref().zip(used.as_ref()).is_some_and(|(then, now)| then.is_same_as(now)) {
            return Ok(());
        }
        let asked = Asked { action: "sts:GetCallerIdentity", resource: "the account".to_owned() };
        let mut config = aws_sdk_sts::config::Builder::from(&self.config);
        config.set_endpoint_url(endpoint(self.access, Service::Sts));
        let client = aws_sdk_sts::Client::from_conf(config.build());
        let answer = self.read(&asked, || client.get_caller_identity().send()).await?;
        self.check_account(answer.arn.as_deref()).map_err(|problem| problem.of(&asked))?;
        // Should they have been replaced meanwhile, it is asked again.
        self.confirmed.replace(used);
        Ok(())
    }

    async fn ensure_credentials(&self) -> Result<(), Problem> {
        let usable = self.current.get().is_some_and(|held| !held.ends_soon());
        if usable { Ok(()) } else { self.find_credentials().await }
    }

    async fn find_credentials(&self) -> Result<(), Problem> {
        let found = self.sources.find(self.access.env).await?;
        if found.are_static_keys {
            self.access.notes.static_keys.set(true);
        }
        self.current.set(found);
        Ok(())
    }

    /// Whether there are other credentials now than `used`. Of several calls that failed together, one looks.
    async fn refresh(&self, used: Option<Found>) -> bool {
        let _turn = self.refreshing.lock().await;
        let is_new = |now: Option<Found>| match (now, &used) {
            (Some(now), Some(used)) => !now.is_same_as(used),
            (now, _) => now.is_some(),
        };
        is_new(self.current.get()) || (self.find_credentials().await.is_ok() && is_new(self.current.get()))
    }
}

/// The policy's endpoint is its store's. A loopback one is an emulator, which plays every service. The environment's count
/// only where the host file says so (SDKs and Tools Reference Guide, "Service-specific endpoints").
fn endpoint(access: Access<'_>, service: Service) -> Option<String> {
    let of_policy = access.policy.endpoint.as_deref().filter(|url| service != Service::Sts || is_on_this_host(url));
    let of_environment = || {
        let own = match service {
            Service::Kms => "AWS_ENDPOINT_URL_KMS",
            Service::Ssm => "AWS_ENDPOINT_URL_SSM",
            Service::Sts => "AWS_ENDPOINT_URL_STS",
        };
        let found = [own, "AWS_ENDPOINT_URL"].into_iter().filter_map(access.env);
        found.filter_map(|url| url.into_string().ok()).find(|url| !url.is_empty())
    };
    of_policy.map(ToOwned::to_owned).or_else(|| access.network.env_endpoint.then(of_environment).flatten())
}

pub(super) fn is_on_this_host(url: &str) -> bool {
    url.split_once("://").is_some_and(|(_, rest)| is_loopback(host_of(rest)))
}
