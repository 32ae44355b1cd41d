//! Which failure is which problem: by types and error codes alone, in one table.
//!
//! What must stay true: nothing of a reply but its error *code*, and that only if it is in this table, decides or is shown.
//! The SDK's own texts and its `Debug` hold the body, which may hold a value; they are never printed. Codes are those of the
//! API references: Systems Manager, "Common Errors" and the "Errors" of each action; KMS and STS likewise.

use aws_config::imds::client::error::ImdsError;
use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::{ConnectorError, SdkError};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use rustls::{CertificateError, Error as RustlsError};

use super::error::{Leg, Problem, TlsProblem};
use super::transport::{Barred, Oversized};

impl Problem {
    /// The problem of a failed call, by types and codes alone.
    #[must_use]
    pub fn of_call<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Self {
        match error {
            SdkError::ConstructionFailure(_) => Self::Invalid("the request could not be built"),
            SdkError::TimeoutError(_) => Self::Unreachable(Leg::Answer),
            SdkError::DispatchFailure(failure) => {
                failure.as_connector_error().map_or(Self::Unreachable(Leg::Connection), Self::of_connector)
            }
            SdkError::ResponseError(error) => Self::of_unreadable(error.raw().status().as_u16()),
            SdkError::ServiceError(error) => {
                let (code, raw) = (error.err().meta().code(), error.raw());
                match Self::of_code(code.unwrap_or_default(), raw.status().as_u16()) {
                    // The text would say "Signature expired"; the date of the answer says it too.
                    Self::Credentials if raw.headers().get("date").is_some_and(is_far_from_now) => Self::ClockSkew,
                    problem => problem,
                }
            }
            _ => Self::Unknown,
        }
    }

    /// The table. `status` decides where the code is none of ours.
    #[must_use]
    pub fn of_code(code: &str, status: u16) -> Self {
        match code {
            "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" | "NotAuthorized" | "OptInRequired" => {
                Self::Denied
            }
            "ParameterNotFound" | "ParameterVersionNotFound" => Self::Absent,
            "ParameterAlreadyExists" | "AlreadyExistsException" => Self::Exists,
            "Throttling"
            | "ThrottlingException"
            | "ThrottledException"
            | "RequestThrottled"
            | "RequestThrottledException"
            | "RequestLimitExceeded"
            | "TooManyRequestsException"
            | "SlowDown"
            | "BandwidthLimitExceeded"
            | "PriorRequestNotComplete" => Self::Throttled,
            "TooManyUpdates" => Self::Contended,
            "ExpiredToken"
            | "ExpiredTokenException"
            | "RequestExpired"
            | "IDPRejectedClaim"
            | "UnauthorizedException" => Self::Expired,
            "RequestTimeTooSkewed" => Self::ClockSkew,
            "InvalidSignatureException"
            | "SignatureDoesNotMatch"
            | "IncompleteSignature"
            | "IncompleteSignatureException"
            | "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "InvalidAccessKeyId"
            | "InvalidToken"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException"
            | "AuthFailure"
            | "InvalidIdentityToken" => Self::Credentials,
            "DisabledException" => Self::KeyDisabled,
            "KMSInvalidStateException" => Self::KeyState,
            "NotFoundException"
            | "InvalidKeyId"
            | "InvalidKeyUsageException"
            | "InvalidArnException"
            | "InvalidGrantTokenException" => Self::KeyUnusable,
            "IncorrectKeyException" | "IncorrectKeyMaterialException" => Self::WrongKey,
            "InvalidCiphertextException" => Self::WrongContext,
            "KMSInternalException"
            | "KeyUnavailableException"
            | "DependencyTimeoutException"
            | "InternalServerError"
            | "InternalFailure"
            | "InternalError"
            | "InternalServiceError"
            | "ServiceUnavailable"
            | "ServiceUnavailableException"
            | "IDPCommunicationError" => Self::ServerFault,
            "LimitExceededException" => Self::Quota("a quota of KMS"),
            "ParameterLimitExceeded" => Self::Quota("the number of parameters in the account"),
            "ParameterVersionLabelLimitExceeded" => Self::Quota("ten labels on one version"),
            "ParameterMaxVersionLimitExceeded" => Self::VersionCap,
            "HierarchyLevelLimitExceededException" => Self::Invalid("the name has too many levels"),
            "HierarchyTypeMismatchException" => Self::Invalid("the type of the parameter cannot be changed"),
            "ParameterPatternMismatchException" => Self::Invalid("the parameter's own pattern does not take the value"),
            "UnsupportedParameterType" => Self::Invalid("the type of the parameter is not supported"),
            "ValidationException" | "ValidationError" | "InvalidParameterValue" | "SerializationException" => {
                Self::Invalid("a name, a value or the tier is not as the API wants it")
            }
            "InvalidNextToken" => Self::BadAnswer("it does not take back its own page token"),
            _ if status == 429 => Self::Throttled,
            _ if status >= 500 => Self::ServerFault,
            _ if status == 403 => Self::Denied,
            _ => Self::Unknown,
        }
    }

    fn of_unreadable(status: u16) -> Self {
        match status {
            429 => Self::Throttled,
            500.. => Self::ServerFault,
            _ => Self::BadAnswer("it cannot be read"),
        }
    }

    /// The problem of a connector, by the types in its chain of sources.
    #[must_use]
    pub fn of_connector(error: &ConnectorError) -> Self {
        Self::in_chain(error).unwrap_or(Self::Unreachable(Leg::Connection))
    }

    fn in_chain(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if error.is::<Barred>() {
                return Some(Self::BarredAddress);
            }
            if error.is::<Oversized>() {
                return Some(Self::TooLarge);
            }
            if error.is::<aws_smithy_runtime_api::client::dns::ResolveDnsError>() {
                return Some(Self::Unreachable(Leg::Name));
            }
            if let Some(tls) = error.downcast_ref::<RustlsError>() {
                return Some(Self::Tls(TlsProblem::of(tls)));
            }
            // tokio-rustls and hyper-rustls hand an error on inside `io::Error`s, whose `source` skips their own payload.
            if let Some(inner) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref)
                && let Some(found) = Self::in_chain(inner)
            {
                return Some(found);
            }
            next = error.source();
        }
        None
    }

    /// The problem of a provider of credentials. `None`: it is not set up here, so the next one is asked.
    #[must_use]
    pub fn of_provider(error: &CredentialsError, source: &'static str) -> Option<Self> {
        let failed = |why: &str| Self::CredentialSource { source, why: why.to_owned() };
        if let Some(problem) = Self::in_chain(error) {
            return Some(match problem {
                Self::Unreachable(_) => failed("does not answer"),
                problem => problem,
            });
        }
        match error {
            CredentialsError::CredentialsNotLoaded(_) => None,
            CredentialsError::ProviderTimedOut(_) => Some(failed("did not answer in time")),
            CredentialsError::InvalidConfiguration(_) => Some(failed("is not set up as it should be")),
            _ => Some(failed("failed")),
        }
    }

    /// Whether the metadata service gave no token, so that nothing says there is one.
    #[must_use]
    pub fn is_without_metadata_service(error: &CredentialsError) -> bool {
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(error) = next {
            if matches!(error.downcast_ref(), Some(ImdsError::FailedToLoadToken(_))) {
                return true;
            }
            next = error.source();
        }
        false
    }
}

/// Five minutes are what AWS tolerates (AWS Signature Version 4, "Troubleshooting").
fn is_far_from_now(date: &str) -> bool {
    let format = aws_smithy_types::date_time::Format::HttpDate;
    aws_smithy_types::DateTime::from_str(date, format)
        .ok()
        .and_then(|date| std::time::SystemTime::try_from(date).ok())
        .is_some_and(|date| {
            let now = std::time::SystemTime::now();
            let apart = now.duration_since(date).or_else(|_| date.duration_since(now)).unwrap_or_default();
            apart > std::time::Duration::from_secs(300)
        })
}

impl TlsProblem {
    fn of(error: &RustlsError) -> Self {
        use CertificateError as Bad;
        match error {
            RustlsError::InvalidCertificate(
                Bad::Expired | Bad::ExpiredContext { .. } | Bad::NotValidYet | Bad::NotValidYetContext { .. },
            ) => Self::Expired,
            RustlsError::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
                Self::WrongName
            }
            // webpki says this of a self-signed certificate that is marked as an authority's.
            RustlsError::InvalidCertificate(Bad::UnknownIssuer | Bad::Other(_) | Bad::BadSignature) => {
                Self::UnknownIssuer
            }
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
#[path = "classify_tests.rs"]
mod tests;
