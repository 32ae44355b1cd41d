//! What can go wrong with AWS, told apart as far as the user can do something different about it.
//!
//! Which failure is which problem says [`super::classify`]. What must stay true: no text of the SDK or of a reply is in
//! any of these.

use std::fmt;

use crate::error::{Cause, Class};
use crate::name::escape;

/// A failed call, or why none was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsError {
    /// What happened.
    pub problem: Problem,
    /// What was asked of AWS, if it got that far.
    pub asked: Option<Asked>,
}

/// What was asked, in the words of IAM: what a policy there has to allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The action, such as `ssm:GetParameters`.
    pub action: &'static str,
    /// The resource: the name of a parameter, the ARN of a key.
    pub resource: String,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// There is no such parameter, version or label.
    Absent,
    /// The answer is not what the API promises.
    BadAnswer(&'static str),
    /// An address that neither the policy nor the host file allows: from the environment or the shared configuration.
    BarredAddress,
    /// An extra CA file is unreadable or holds something else.
    CaFile {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The clock of this host and that of AWS are too far apart.
    ClockSkew,
    /// Another writer changes the same parameter.
    Contended,
    /// The source of credentials is there and failed.
    CredentialSource {
        /// Which.
        source: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// AWS does not know the credentials, or their signature is wrong.
    Credentials,
    /// Nothing came in time.
    Deadline,
    /// IAM, or the key's policy, does not allow it.
    Denied,
    /// It was to be created and is there already.
    Exists,
    /// The credentials have expired.
    Expired,
    /// AWS does not take the request as it is; the reason in our words.
    Invalid(&'static str),
    /// The key is disabled.
    KeyDisabled,
    /// The key is pending deletion, pending import or unavailable.
    KeyState,
    /// There is no such key, or it is not one for encryption.
    KeyUnusable,
    /// No source has credentials.
    NoCredentials {
        /// The sources that were tried.
        tried: Vec<&'static str>,
    },
    /// Nothing says which region.
    NoRegion,
    /// A quota of the account.
    Quota(&'static str),
    /// The service failed, and says so.
    ServerFault,
    /// AWS asks to slow down.
    Throttled,
    /// TLS failed.
    Tls(TlsProblem),
    /// The answer is larger than any honest one.
    TooLarge,
    /// A code that is not in the table.
    Unknown,
    /// No connection, or it broke.
    Unreachable(Leg),
    /// A file of the shared configuration that someone else could have written.
    UnsafeFile {
        /// The file and what is wrong with it.
        why: String,
        /// A command that mends it.
        hint: Option<String>,
    },
    /// A write got no clear answer, and it could not be found out whether it happened.
    Unsettled,
    /// The oldest of the 100 versions has a label, so that no new one can be written.
    VersionCap,
    /// The answer, or the credentials, are of another account than the policy pins.
    WrongAccount {
        /// The one that it is.
        found: String,
        /// The one that the policy pins.
        wanted: String,
    },
    /// The ciphertext was not made with this encryption context, or is damaged.
    WrongContext,
    /// The ciphertext was made with another key.
    WrongKey,
}

/// How far a connection got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leg {
    /// The name of the endpoint was not resolved.
    Name,
    /// It was refused or broken off.
    Connection,
    /// It stands, and no answer came in time: the request may be under way still.
    Answer,
}

/// Why TLS failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsProblem {
    /// The certificate has expired, or is not valid yet.
    Expired,
    /// It is for another name.
    WrongName,
    /// Nobody who is trusted has signed it.
    UnknownIssuer,
    /// Anything else.
    Other,
}

impl Problem {
    /// With what was asked.
    #[must_use]
    pub fn of(self, asked: &Asked) -> AwsError {
        AwsError { problem: self, asked: Some(asked.clone()) }
    }

    /// Whether fresh credentials could help.
    #[must_use]
    pub fn is_of_credentials(&self) -> bool {
        matches!(self, Self::Expired | Self::Credentials)
    }
}

impl From<Problem> for AwsError {
    fn from(problem: Problem) -> Self {
        Self { problem, asked: None }
    }
}

impl fmt::Display for AwsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)?;
        match &self.asked {
            Some(asked) => write!(f, " ({} on `{}`)", asked.action, escape(&asked.resource)),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => write!(f, "there is no such parameter, version or label"),
            Self::BadAnswer(why) => write!(f, "the answer of AWS is not usable: {why}"),
            Self::BarredAddress => {
                write!(f, "an address outside AWS was to be asked, which neither policy nor host file allows")
            }
            Self::CaFile { path, why } => write!(f, "the CA file `{path}` {why}"),
            Self::ClockSkew => write!(f, "the clock of this host is more than five minutes off"),
            Self::Contended => write!(f, "another writer changes the same parameter"),
            Self::CredentialSource { source, why } => write!(f, "the credential source `{source}` {why}"),
            Self::Credentials => write!(f, "AWS does not recognise the credentials"),
            Self::Deadline => write!(f, "AWS gave no answer before the deadline"),
            Self::Denied => write!(f, "AWS denied access"),
            Self::Exists => write!(f, "the parameter exists already"),
            Self::Expired => write!(f, "the AWS credentials have expired"),
            Self::Invalid(why) => write!(f, "AWS refused the request: {why}"),
            Self::KeyDisabled => write!(f, "the KMS key is disabled"),
            Self::KeyState => write!(f, "the KMS key is pending deletion, pending import or unavailable"),
            Self::KeyUnusable => write!(f, "the KMS key does not exist or cannot be used for this"),
            Self::NoCredentials { tried } => {
                write!(f, "there are no AWS credentials (tried: {})", tried.join(", "))
            }
            Self::NoRegion => write!(f, "nothing says in which AWS region"),
            Self::Quota(what) => write!(f, "a limit is reached: {what}"),
            Self::ServerFault => write!(f, "AWS reports a failure of its own"),
            Self::Throttled => write!(f, "AWS throttles the requests"),
            Self::Tls(TlsProblem::Expired) => write!(f, "the certificate of the endpoint is expired or not valid yet"),
            Self::Tls(TlsProblem::WrongName) => write!(f, "the certificate of the endpoint is for another name"),
            Self::Tls(TlsProblem::UnknownIssuer) => {
                write!(f, "the certificate of the endpoint is signed by nobody who is trusted here")
            }
            Self::Tls(TlsProblem::Other) => write!(f, "TLS with the endpoint failed"),
            Self::TooLarge => write!(f, "the answer of AWS is over the limit of {} bytes", super::transport::MAX_BODY),
            Self::Unknown => write!(f, "AWS refused the request for an unknown reason"),
            Self::Unreachable(Leg::Name) => write!(f, "the name of the AWS endpoint cannot be resolved"),
            Self::Unreachable(Leg::Connection) => write!(f, "the AWS endpoint cannot be reached"),
            Self::Unreachable(Leg::Answer) => write!(f, "the AWS endpoint does not answer"),
            Self::UnsafeFile { why, .. } => write!(f, "the shared AWS configuration is refused: {why}"),
            Self::Unsettled => write!(f, "the write got no clear answer, so it may or may not have happened"),
            Self::VersionCap => {
                write!(f, "the parameter has 100 versions and the oldest one has a label, so AWS takes no new one")
            }
            Self::WrongAccount { found, wanted } => {
                write!(f, "it belongs to account `{}`, and the policy pins `{wanted}`", escape(found))
            }
            Self::WrongContext => {
                write!(f, "KMS does not open it: it was made with another encryption context, or is damaged")
            }
            Self::WrongKey => write!(f, "it was made with another KMS key than the policy names"),
        }
    }
}

impl Cause for AwsError {
    fn class(&self) -> Class {
        match &self.problem {
            Problem::Credentials
            | Problem::CredentialSource { .. }
            | Problem::Denied
            | Problem::Expired
            | Problem::NoCredentials { .. }
            | Problem::UnsafeFile { .. } => Class::Identity,
            Problem::Absent => Class::Missing,
            Problem::NoRegion | Problem::CaFile { .. } => Class::Policy,
            _ => Class::Store,
        }
    }

    fn hint(&self) -> Option<String> {
        let asked = self.asked.as_ref();
        match &self.problem {
            Problem::BarredAddress => Some(
                "unset AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_STS, AWS_ENDPOINT_URL_SSO and `endpoint_url` in the AWS configuration, or let the host file say: [network] env_endpoint = true"
                    .into(),
            ),
            Problem::ClockSkew => Some("timedatectl status   # and let it be synchronised".into()),
            Problem::CredentialSource { source: "profile" | "sso", .. } => {
                Some("eval \"$(aws configure export-credentials --format env)\"   # after `aws sso login`, if it is an SSO profile".into())
            }
            Problem::Credentials | Problem::Expired => {
                Some("aws sts get-caller-identity   # fails alike until there are new credentials".into())
            }
            Problem::Deadline => Some("[run] deadline = \"40s\"   # in the policy, if the network is that slow".into()),
            Problem::Denied => asked.map(missing_right),
            Problem::KeyDisabled | Problem::KeyState | Problem::KeyUnusable => asked.map(|asked| {
                let resource = escape(&asked.resource);
                match (asked.action.starts_with("kms:"), &self.problem) {
                    (true, Problem::KeyDisabled) => format!("aws kms enable-key --key-id {resource}"),
                    (true, _) => format!("aws kms describe-key --key-id {resource}"),
                    (false, _) => format!("aws ssm get-parameter-history --name {resource}   # names its key: KeyId"),
                }
            }),
            Problem::NoCredentials { .. } => {
                Some("eval \"$(aws configure export-credentials --format env)\"   # or `profile`, `role_arn`, `credential_source` in the store".into())
            }
            Problem::NoRegion => Some("region = \"eu-west-1\"   # in the store's table".into()),
            Problem::Tls(TlsProblem::UnknownIssuer) => {
                Some("a private CA needs a line in the host file: [network] ca_files = [\"/etc/ssl/company.pem\"]".into())
            }
            Problem::Tls(TlsProblem::Expired) => Some("date   # if this host's clock is right, it is the endpoint's fault".into()),
            Problem::UnsafeFile { hint, .. } => hint.clone(),
            Problem::Unsettled => Some("vouchsafe history NAME   # shows whether there is a new version".into()),
            Problem::VersionCap => Some("move or remove the label of the oldest version: aws ssm unlabel-parameter-version".into()),
            Problem::WrongContext => Some(
                "the context holds environment and service of the policy and the store's `context`; an inline value's is its own".into(),
            ),
            _ => None,
        }
    }
}

/// What an IAM policy has to allow. A SecureString needs the right to its key besides.
fn missing_right(asked: &Asked) -> String {
    let resource = escape(&asked.resource);
    if !asked.action.starts_with("ssm:") {
        return format!("allow {} on {resource} (vouchsafe check --iam)", asked.action);
    }
    let arn = |name: &str| match name.starts_with("arn:") {
        true => name.to_owned(),
        false => format!("arn:aws:ssm:REGION:ACCOUNT:parameter/{}", name.trim_start_matches('/')),
    };
    let arns: Vec<String> = resource.split(", ").map(arn).collect();
    let right = if asked.action == "ssm:PutParameter" { "kms:Encrypt" } else { "kms:Decrypt" };
    format!("allow {} on {}, and {right} on the key (vouchsafe check --iam)", asked.action, arns.join(", "))
}
