//! Writing a public text that each new one overwrites: a parameter of type `String`, whose history has the older ones. No item
//! of a store: nothing is read, and no value is in it.

use std::time::Instant;

use aws_sdk_ssm::types::{ParameterTier, ParameterType};

use super::names::{STANDARD, check_name};
use crate::store::aws::error::{Asked, AwsError, Problem};
use crate::store::aws::{Access, Aws};

/// Puts `text` there as a new version. Needs `ssm:PutParameter` on that name, and nothing else.
///
/// A lost answer is followed by another attempt, and may leave the same text twice, which says nothing else than once.
///
/// # Errors
/// AWS did not take it before `deadline`.
pub fn publish(access: Access<'_>, name: &str, text: &str, deadline: Instant) -> Result<(), AwsError> {
    let asked = Asked { action: "ssm:PutParameter", resource: name.to_owned() };
    Aws::new(access).run(deadline, async |calls| {
        check_name(name, calls.region()).map_err(|rule| Problem::Invalid(rule).of(&asked))?;
        if text.len() > STANDARD {
            return Err(Problem::Quota("4 KB in a parameter of the standard tier").of(&asked));
        }
        calls.require_account().await?;
        let client = calls.ssm();
        let call = || {
            let request = client.put_parameter().name(name).value(text).r#type(ParameterType::String);
            request.tier(ParameterTier::Standard).overwrite(true).send()
        };
        calls.read(&asked, call).await.map(drop)
    })
}
