//! The table of codes, class by class, and what a message may hold.

use super::super::retry::{Repetition, repetition};
use super::*;
use crate::error::Cause;
use crate::store::aws::error::{Asked, AwsError};

/// Code, HTTP status, problem, repetition of a read, exit status.
fn table() -> Vec<(&'static str, u16, Problem, Repetition, u8)> {
    use Repetition::{Few, Never, Patient};
    vec![
        ("AccessDeniedException", 400, Problem::Denied, Never, 124),
        ("AccessDenied", 403, Problem::Denied, Never, 124),
        ("OptInRequired", 403, Problem::Denied, Never, 124),
        ("ParameterNotFound", 400, Problem::Absent, Never, 122),
        ("ParameterVersionNotFound", 400, Problem::Absent, Never, 122),
        ("ParameterAlreadyExists", 400, Problem::Exists, Never, 122),
        ("ThrottlingException", 400, Problem::Throttled, Patient, 122),
        ("Throttling", 400, Problem::Throttled, Patient, 122),
        ("RequestLimitExceeded", 503, Problem::Throttled, Patient, 122),
        ("TooManyRequestsException", 429, Problem::Throttled, Patient, 122),
        ("SlowDown", 503, Problem::Throttled, Patient, 122),
        ("TooManyUpdates", 400, Problem::Contended, Patient, 122),
        ("ExpiredTokenException", 400, Problem::Expired, Never, 124),
        ("ExpiredToken", 403, Problem::Expired, Never, 124),
        ("RequestTimeTooSkewed", 403, Problem::ClockSkew, Never, 122),
        ("InvalidSignatureException", 400, Problem::Credentials, Never, 124),
        ("SignatureDoesNotMatch", 403, Problem::Credentials, Never, 124),
        ("UnrecognizedClientException", 400, Problem::Credentials, Never, 124),
        ("InvalidClientTokenId", 403, Problem::Credentials, Never, 124),
        ("DisabledException", 400, Problem::KeyDisabled, Never, 122),
        ("KMSInvalidStateException", 400, Problem::KeyState, Never, 122),
        ("NotFoundException", 400, Problem::KeyUnusable, Never, 122),
        ("InvalidKeyId", 400, Problem::KeyUnusable, Never, 122),
        ("InvalidKeyUsageException", 400, Problem::KeyUnusable, Never, 122),
        ("IncorrectKeyException", 400, Problem::WrongKey, Never, 122),
        ("InvalidCiphertextException", 400, Problem::WrongContext, Never, 122),
        ("KMSInternalException", 500, Problem::ServerFault, Few, 122),
        ("KeyUnavailableException", 500, Problem::ServerFault, Few, 122),
        ("DependencyTimeoutException", 503, Problem::ServerFault, Few, 122),
        ("InternalServerError", 500, Problem::ServerFault, Few, 122),
        ("ServiceUnavailable", 503, Problem::ServerFault, Few, 122),
        ("LimitExceededException", 400, Problem::Quota("a quota of KMS"), Never, 122),
        ("ParameterMaxVersionLimitExceeded", 400, Problem::VersionCap, Never, 122),
        ("NeverHeardOf", 400, Problem::Unknown, Never, 122),
        ("NeverHeardOf", 403, Problem::Denied, Never, 124),
        ("NeverHeardOf", 429, Problem::Throttled, Patient, 122),
        ("", 500, Problem::ServerFault, Few, 122),
        ("", 502, Problem::ServerFault, Few, 122),
        ("", 400, Problem::Unknown, Never, 122),
    ]
}

#[test]
fn every_code_has_its_problem_its_repetition_and_its_status() {
    for (code, status, problem, again, exit) in table() {
        let found = Problem::of_code(code, status);
        assert_eq!(found, problem, "{code} {status}");
        assert_eq!(repetition(&found), again, "{code} {status}");
        assert_eq!(AwsError::from(found).class().status(), exit, "{code} {status}");
    }
}

#[test]
fn validation_is_refused_in_our_words() {
    for code in ["ValidationException", "HierarchyLevelLimitExceededException", "ParameterPatternMismatchException"] {
        let problem = Problem::of_code(code, 400);
        assert!(matches!(problem, Problem::Invalid(_)), "{code}");
        assert_eq!(repetition(&problem), Repetition::Never);
    }
}

#[test]
fn a_denial_names_action_and_resource() {
    let asked = Asked { action: "ssm:GetParameters", resource: "/prod/api/db".into() };
    let error = Problem::Denied.of(&asked);
    assert_eq!(error.to_string(), "AWS denied access (ssm:GetParameters on `/prod/api/db`)");
    let hint = error.hint().unwrap();
    for part in ["ssm:GetParameters", "parameter/prod/api/db", "kms:Decrypt"] {
        assert!(hint.contains(part), "{hint}");
    }
    let asked = Asked { action: "ssm:PutParameter", resource: "/prod/api/db".into() };
    assert!(Problem::Denied.of(&asked).hint().unwrap().contains("kms:Encrypt"));
    let asked = Asked { action: "kms:Decrypt", resource: "arn:aws:kms:eu-west-1:111122223333:key/x".into() };
    assert!(Problem::Denied.of(&asked).hint().unwrap().contains("allow kms:Decrypt on arn:aws:kms"));
}

#[test]
fn the_error_of_a_service_is_told_by_its_code_alone() {
    let body = "{\"__type\":\"AccessDeniedException\",\"message\":\"canary-value\"}";
    let raw = || HttpResponse::new(400.try_into().unwrap(), aws_smithy_types::body::SdkBody::from(body));
    let generic =
        aws_smithy_types::error::ErrorMetadata::builder().code("AccessDeniedException").message("canary-value").build();
    let error = AwsError::from(Problem::of_call(&SdkError::service_error(generic, raw())));
    assert_eq!(error.problem, Problem::Denied);
    assert!(!format!("{error} {error:?} {:?}", error.hint()).contains("canary"));
    let silent = aws_smithy_types::error::ErrorMetadata::builder().build();
    assert_eq!(Problem::of_call(&SdkError::service_error(silent, raw())), Problem::Unknown);
    let unreadable: SdkError<aws_smithy_types::error::ErrorMetadata, _> =
        SdkError::response_error("canary-value", HttpResponse::new(200.try_into().unwrap(), body.into()));
    assert!(matches!(Problem::of_call(&unreadable), Problem::BadAnswer(_)));
}

#[test]
fn a_bad_signature_with_a_far_date_is_a_clock() {
    let call = |date: &str| {
        let mut raw = HttpResponse::new(400.try_into().unwrap(), aws_smithy_types::body::SdkBody::empty());
        raw.headers_mut().insert("date", date.to_owned());
        let error = aws_smithy_types::error::ErrorMetadata::builder().code("InvalidSignatureException").build();
        Problem::of_call(&SdkError::service_error(error, raw))
    };
    assert_eq!(call("Fri, 01 Jan 1999 00:00:00 GMT"), Problem::ClockSkew);
    let now = aws_smithy_types::DateTime::from(std::time::SystemTime::now());
    let now = now.fmt(aws_smithy_types::date_time::Format::HttpDate).unwrap();
    assert_eq!(call(&now), Problem::Credentials);
    assert_eq!(call("yesterday"), Problem::Credentials);
}

#[test]
fn the_chain_of_a_connector_tells_what_failed() {
    let of = |source: Box<dyn std::error::Error + Send + Sync>| Problem::of_connector(&ConnectorError::io(source));
    let tls = |error: CertificateError| {
        let inner = std::io::Error::new(std::io::ErrorKind::InvalidData, RustlsError::InvalidCertificate(error));
        of(Box::new(std::io::Error::other(inner)))
    };
    assert_eq!(tls(CertificateError::Expired), Problem::Tls(TlsProblem::Expired));
    assert_eq!(tls(CertificateError::NotValidForName), Problem::Tls(TlsProblem::WrongName));
    assert_eq!(tls(CertificateError::UnknownIssuer), Problem::Tls(TlsProblem::UnknownIssuer));
    assert_eq!(of(Box::new(Barred)), Problem::BarredAddress);
    assert_eq!(of(Box::new(Oversized)), Problem::TooLarge);
    let name = aws_smithy_runtime_api::client::dns::ResolveDnsError::new("x");
    assert_eq!(of(Box::new(name)), Problem::Unreachable(Leg::Name));
    assert_eq!(of(Box::new(std::io::Error::other("x"))), Problem::Unreachable(Leg::Connection));
}
