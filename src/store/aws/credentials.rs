//! Where AWS credentials come from: the environment, the shared configuration, a web identity, a container's endpoint, the
//! instance metadata service; then the policy's role, if it names one. A pin excludes every source but one.
//!
//! The order is that of the SDKs (SDKs and Tools Reference Guide, "Credential provider chain"). A source that is not set
//! up is passed over; one that is set up and fails ends the search, because another identity is not what was meant.
//! Sources that the SDK implements read the process's own environment, which is the one that we were started with: this
//! program never changes it. What they read there of endpoints does not count, since [`Ways`] bars it. `credential_process` is off: it would run a shell.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, SystemTime};

use aws_config::ecs::EcsCredentialsProvider;
use aws_config::imds;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::credential_feature::AwsCredentialFeature;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, error::CredentialsError};
use aws_sdk_sts::types::Credentials as Session;
use aws_smithy_runtime_api::client::http::SharedHttpClient;

use super::error::Problem;
use super::held::Found;
use super::resolver::Names;
use super::retry::{random, repetition, wait};
use super::shared_files;
use super::transport::is_same_place;
use crate::checked_file::plain_io;
use crate::name::{escape, show};
use crate::policy::model::{AwsAccess, CredentialSource};
use crate::store::identity::Environment;

/// Bytes of a web identity token. STS takes 20,000 (AssumeRoleWithWebIdentity).
const MAX_TOKEN: u64 = 20_000;
/// For STS: busy or broken, it is asked again for so long.
const STS_PATIENCE: Duration = Duration::from_secs(10);
/// In CloudTrail, who it was.
const SESSION_NAME: &str = "vouchsafe";

/// How far each kind of provider reaches, and what the policy and the host file say of endpoints.
pub struct Ways {
    /// For profiles: STS and IAM Identity Center.
    pub services: SharedHttpClient,
    /// For the container's endpoint.
    pub container: SharedHttpClient,
    /// For the instance's.
    pub metadata: SharedHttpClient,
    /// The policy's endpoint if it is on this host. It may play the metadata service, too.
    pub emulator: Option<String>,
    /// The host file lets the environment name endpoints.
    pub env_endpoint: bool,
}

/// Where to look, by the policy.
pub struct Sources {
    pin: Option<CredentialSource>,
    profile: Option<String>,
    role_arn: Option<String>,
    names: Names,
    providers: ProviderConfig,
    ways: Ways,
    sts: aws_sdk_sts::config::Builder,
}

impl Sources {
    /// `config` has region, transport and timeouts.
    #[must_use]
    pub fn new(policy: &AwsAccess, config: &SdkConfig, names: Names, sts_endpoint: Option<String>, ways: Ways) -> Self {
        let mut providers = ProviderConfig::without_region()
            .with_region(config.region().cloned())
            .with_behavior_version(Some(BehaviorVersion::latest()));
        if let Some(timeouts) = config.timeout_config() {
            providers = providers.with_timeout_config(timeouts.clone());
        }
        let mut sts = aws_sdk_sts::config::Builder::from(config);
        sts.set_endpoint_url(sts_endpoint);
        Self {
            pin: policy.credential_source,
            profile: policy.profile.clone(),
            role_arn: policy.role_arn.clone(),
            names,
            providers,
            ways,
            sts,
        }
    }

    /// Finds credentials.
    ///
    /// # Errors
    /// The first source that is set up and fails; there is none.
    pub async fn find(&self, env: Environment<'_>) -> Result<Found, Problem> {
        use CredentialSource::{Container, Environment as Variables, Imds, Profile, Sso, WebIdentity};
        let order: &[CredentialSource] = match (&self.pin, &self.profile) {
            (Some(pin), _) => std::slice::from_ref(pin),
            (None, Some(_)) => &[Profile],
            (None, None) => &[Variables, Profile, WebIdentity, Container, Imds],
        };
        for source in order {
            let found = match source {
                Variables => environment(env)?,
                Profile | Sso => self.profile(env, *source).await?,
                WebIdentity => self.web_identity(env).await?,
                Container => self.container().await?,
                Imds => self.imds(env).await?,
            };
            if let Some(found) = found {
                return match &self.role_arn {
                    Some(role) => self.assume(role, found).await,
                    None => Ok(found),
                };
            }
        }
        Err(Problem::NoCredentials { tried: order.iter().map(|source| source.word()).collect() })
    }

    async fn profile(&self, env: Environment<'_>, source: CredentialSource) -> Result<Option<Found>, Problem> {
        shared_files::check(env)?;
        let config = self.providers.clone().with_http_client(self.ways.services.clone());
        let mut builder = ProfileFileCredentialsProvider::builder()
            .configure(&config)
            .with_custom_provider("EcsContainer", self.container_provider())
            .with_custom_provider("Ec2InstanceMetadata", self.imds_provider(env).await?);
        if let Some(name) = &self.profile {
            builder = builder.profile_name(name);
        }
        let was_named = self.profile.is_some() || env("AWS_PROFILE").is_some_and(|name| !name.is_empty());
        let credentials = match builder.build().provide_credentials().await {
            Ok(credentials) => credentials,
            Err(error) => {
                let problem = Problem::of_provider(&error, source.word());
                return match problem {
                    None if !was_named => Ok(None),
                    None => Err(self.failed(source, self.why_no_profile(env).await)),
                    Some(Problem::CredentialSource { why, .. }) => {
                        Err(self.failed(source, self.why_profile_fails(env).await.unwrap_or(why)))
                    }
                    Some(problem) => Err(problem),
                };
            }
        };
        let features = credentials.get_property::<Vec<AwsCredentialFeature>>();
        let has = |wanted: AwsCredentialFeature| features.is_some_and(|features| features.contains(&wanted));
        let is_sso = has(AwsCredentialFeature::CredentialsProfileSso) || has(AwsCredentialFeature::CredentialsSso);
        if source == CredentialSource::Sso && !is_sso {
            return Err(self.failed(source, "is pinned, and the profile has other credentials".into()));
        }
        // `credential_source = Environment` in the profile takes the keys of the environment for its role.
        let are_static_keys = has(AwsCredentialFeature::CredentialsProfileNamedProvider) && environment(env)?.is_some();
        Ok(Some(Found { credentials, are_static_keys }))
    }

    fn failed(&self, source: CredentialSource, why: String) -> Problem {
        Problem::CredentialSource { source: source.word(), why }
    }

    async fn why_no_profile(&self, env: Environment<'_>) -> String {
        match shared_files::read(env, self.profile.as_deref()).await {
            Some(set) if set.get_profile(set.selected_profile()).is_some() => {
                format!("has no credentials in profile `{}`", escape(set.selected_profile()))
            }
            Some(set) => format!("has no profile `{}`", escape(set.selected_profile())),
            None => "cannot be read".into(),
        }
    }

    /// By the keys of the profile, since the SDK tells it only in words.
    async fn why_profile_fails(&self, env: Environment<'_>) -> Option<String> {
        let set = shared_files::read(env, self.profile.as_deref()).await?;
        let name = escape(set.selected_profile());
        let mut profile = set.get_profile(set.selected_profile())?;
        for _ in 0..8 {
            if profile.get("credential_process").is_some() {
                return Some(format!("needs `credential_process` for profile `{name}`, which is not supported"));
            }
            if profile.get("login_session").is_some() {
                return Some(format!("needs `login_session` for profile `{name}`, which is not supported"));
            }
            if profile.get("sso_session").is_some() || profile.get("sso_start_url").is_some() {
                return Some(format!("has no valid SSO session for profile `{name}`"));
            }
            profile = set.get_profile(profile.get("source_profile")?)?;
        }
        None
    }

    async fn web_identity(&self, env: Environment<'_>) -> Result<Option<Found>, Problem> {
        let failed = |why: String| self.failed(CredentialSource::WebIdentity, why);
        let text = |name: &str| env(name).and_then(|value| value.into_string().ok()).filter(|value| !value.is_empty());
        let (Some(path), Some(role)) = (text("AWS_WEB_IDENTITY_TOKEN_FILE"), text("AWS_ROLE_ARN")) else {
            return Ok(None);
        };
        let token = read_token(Path::new(&path)).map_err(failed)?;
        let name = text("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| SESSION_NAME.into());
        let client = aws_sdk_sts::Client::from_conf(self.sts.clone().allow_no_auth().build());
        let call = || {
            let request = client.assume_role_with_web_identity();
            request.role_arn(&role).role_session_name(&name).web_identity_token(&token).send()
        };
        let answer = patiently(async || call().await.map_err(|error| Problem::of_call(&error))).await;
        let answer = answer.map_err(|problem| of_role(problem, CredentialSource::WebIdentity, &role))?;
        session(answer.credentials, "WebIdentity")
            .map(|credentials| Some(Found { credentials, are_static_keys: false }))
    }

    async fn assume(&self, role: &str, base: Found) -> Result<Found, Problem> {
        let provider = SharedCredentialsProvider::new(base.credentials);
        let client = aws_sdk_sts::Client::from_conf(self.sts.clone().credentials_provider(provider).build());
        let call = || client.assume_role().role_arn(role).role_session_name(SESSION_NAME).send();
        let answer = patiently(async || call().await.map_err(|error| Problem::of_call(&error))).await;
        let answer = answer.map_err(|problem| match problem {
            Problem::Denied => Problem::CredentialSource {
                source: "role_arn",
                why: format!("may not be assumed: allow sts:AssumeRole on {}", escape(role)),
            },
            problem => problem,
        })?;
        let credentials = session(answer.credentials, "AssumeRole")?;
        Ok(Found { credentials, are_static_keys: base.are_static_keys })
    }

    async fn container(&self) -> Result<Option<Found>, Problem> {
        taken(self.container_provider().provide_credentials().await, CredentialSource::Container)
    }

    fn container_provider(&self) -> EcsCredentialsProvider {
        let config = self.providers.clone().with_http_client(self.ways.container.clone());
        EcsCredentialsProvider::builder().configure(&config).dns(self.names.clone()).build()
    }

    async fn imds_provider(&self, env: Environment<'_>) -> Result<ImdsCredentialsProvider, Problem> {
        let config = self.providers.clone().with_http_client(self.ways.metadata.clone());
        let mut client = imds::Client::builder().configure(&config);
        if !self.ways.env_endpoint {
            let endpoint = self.metadata_endpoint(env).await;
            client = client.endpoint(endpoint).map_err(|_| Problem::BarredAddress)?;
        }
        Ok(ImdsCredentialsProvider::builder().configure(&config).imds_client(client.build()).build())
    }

    /// That of AWS, whatever the environment says. Only which of its two addresses is the environment's to say, or the
    /// profile's.
    async fn metadata_endpoint(&self, env: Environment<'_>) -> String {
        let text = |name: &str| env(name).and_then(|value| value.into_string().ok());
        if let Some(emulator) = &self.ways.emulator
            && text("AWS_EC2_METADATA_SERVICE_ENDPOINT").is_some_and(|url| is_same_place(&url, emulator))
        {
            return emulator.clone();
        }
        let mode = match text("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE") {
            None if shared_files::check(env).is_ok() => {
                let set = shared_files::read(env, self.profile.as_deref()).await;
                let profile = set.as_ref().and_then(|set| set.get_profile(set.selected_profile()));
                profile.and_then(|profile| profile.get("ec2_metadata_service_endpoint_mode")).map(ToOwned::to_owned)
            }
            mode => mode,
        };
        let is_v6 = mode.is_some_and(|mode| mode.eq_ignore_ascii_case("ipv6"));
        if is_v6 { "http://[fd00:ec2::254]" } else { "http://169.254.169.254" }.to_owned()
    }

    async fn imds(&self, env: Environment<'_>) -> Result<Option<Found>, Problem> {
        if env("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let provider = self.imds_provider(env).await?;
        match provider.provide_credentials().await {
            // Nobody gives a token: this is no EC2 instance, or a container one hop too far from it.
            Err(error) if Problem::is_without_metadata_service(&error) => Ok(None),
            answer => taken(answer, CredentialSource::Imds),
        }
    }
}

fn taken(answer: Result<Credentials, CredentialsError>, source: CredentialSource) -> Result<Option<Found>, Problem> {
    match answer {
        Ok(credentials) => Ok(Some(Found { credentials, are_static_keys: false })),
        Err(error) => Problem::of_provider(&error, source.word()).map_or(Ok(None), Err),
    }
}

fn environment(env: Environment<'_>) -> Result<Option<Found>, Problem> {
    let source = CredentialSource::Environment.word();
    let text = |name: &str| match env(name).map(OsString::into_string) {
        None => Ok(None),
        Some(Ok(value)) => Ok(Some(value.trim().to_owned()).filter(|value| !value.is_empty())),
        Some(Err(_)) => Err(Problem::CredentialSource { source, why: format!("has no text in {name}") }),
    };
    match (text("AWS_ACCESS_KEY_ID")?, text("AWS_SECRET_ACCESS_KEY")?) {
        (Some(id), Some(secret)) => {
            let credentials = Credentials::new(id, secret, text("AWS_SESSION_TOKEN")?, None, "Environment");
            Ok(Some(Found { credentials, are_static_keys: true }))
        }
        (None, None) => Ok(None),
        (Some(_), None) => Err(Problem::CredentialSource { source, why: "lacks AWS_SECRET_ACCESS_KEY".into() }),
        (None, Some(_)) => Err(Problem::CredentialSource { source, why: "lacks AWS_ACCESS_KEY_ID".into() }),
    }
}

/// Not checked as our own files are: Kubernetes puts it below a folder that everybody may write to, and renews it there.
fn read_token(path: &Path) -> Result<String, String> {
    let mut token = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_TOKEN + 1).read_to_string(&mut token))
        .map_err(|error| format!("cannot read its token `{}`: {}", show(path), plain_io(&error)))?;
    let token = token.trim();
    if token.is_empty() || token.len() as u64 > MAX_TOKEN {
        return Err(format!("has no usable token in `{}`", show(path)));
    }
    Ok(token.to_owned())
}

fn of_role(problem: Problem, source: CredentialSource, role: &str) -> Problem {
    match problem {
        Problem::Denied => {
            let why = format!("may not assume `{}`: its trust policy does not allow it", escape(role));
            Problem::CredentialSource { source: source.word(), why }
        }
        Problem::Credentials | Problem::Expired => {
            Problem::CredentialSource { source: source.word(), why: "has a token that STS does not take".into() }
        }
        problem => problem,
    }
}

fn session(credentials: Option<Session>, name: &'static str) -> Result<Credentials, Problem> {
    let held = credentials.ok_or(Problem::BadAnswer("STS sent no credentials"))?;
    let end = SystemTime::try_from(held.expiration).ok();
    Ok(Credentials::new(held.access_key_id, held.secret_access_key, Some(held.session_token), end, name))
}

/// STS is asked again as any other read.
async fn patiently<T>(attempt: impl AsyncFn() -> Result<T, Problem>) -> Result<T, Problem> {
    for failures in 1.. {
        let problem = match attempt().await {
            Ok(answer) => return Ok(answer),
            Err(problem) => problem,
        };
        match wait(repetition(&problem), failures, STS_PATIENCE, random()) {
            Some(wait) => tokio::time::sleep(wait).await,
            None => return Err(problem),
        }
    }
    Err(Problem::Deadline)
}
