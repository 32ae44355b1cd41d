//! What stores and parameters say of their AWS client.

use super::Context;
use super::values::is_endpoint;
use crate::name::is_unprintable;
use crate::policy::file::raw::{At, CredentialWord};
use crate::policy::model::AwsAccess;

/// The fields, wherever they stand.
pub(super) struct AwsFields<'r> {
    pub(super) region: Option<&'r At<String>>,
    pub(super) endpoint: Option<&'r At<String>>,
    pub(super) profile: Option<&'r At<String>>,
    pub(super) role_arn: Option<&'r At<String>>,
    pub(super) account: Option<&'r At<String>>,
    pub(super) credential_source: Option<&'r At<CredentialWord>>,
    pub(super) in_flight: Option<&'r At<i64>>,
}

pub(super) fn aws(raw: &AwsFields<'_>, context: &mut Context<'_>) -> AwsAccess {
    let is_region = |text: &str| {
        !text.is_empty()
            && text.len() <= 64
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let is_account = |text: &str| text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit());
    let is_role = |text: &str| text.starts_with("arn:") && text.contains(":iam::") && text.contains(":role/");
    AwsAccess {
        region: raw.region.and_then(|at| {
            context.checked(at, "a region is lower-case letters, digits and `-`, such as `eu-west-1`", is_region)
        }),
        endpoint: raw.endpoint.and_then(|at| {
            context.checked(
                at,
                "an endpoint is an `https://` URL without user or query; `http://` only to this host",
                is_endpoint,
            )
        }),
        profile: raw.profile.and_then(|at| context.line("profile", at)),
        role_arn: raw.role_arn.and_then(|at| {
            context.checked(at, "`role_arn` is the ARN of a role: arn:aws:iam::ACCOUNT:role/NAME", |text| {
                is_role(text) && !text.chars().any(|c| is_unprintable(c) || c.is_whitespace())
            })
        }),
        account: raw.account.and_then(|at| context.checked(at, "an account is 12 digits", is_account)),
        credential_source: raw.credential_source.map(|at| at.value.into()),
        in_flight: raw.in_flight.and_then(|at| {
            let number = usize::try_from(at.value).ok().filter(|number| (1..=50).contains(number));
            if number.is_none() {
                context.findings.wrong(at, "`in_flight` is a number from 1 to 50");
            }
            number
        }),
    }
}
