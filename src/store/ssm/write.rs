//! Writing parameters, each once: `PutParameter` has no token that would make a repetition harmless.
//!
//! A write is one attempt. Whatever is not a clear yes or no is looked into before another one: the versions that came
//! since are read back and compared, so that a lost answer makes no second version (measured with the SDK's own retries:
//! it makes two). The new version's type is verified, because an overwrite by somebody else could have turned it into a
//! String.

use aws_sdk_ssm::types::{ParameterTier, ParameterType};

use super::names::{Key, STANDARD, Selector, check_name, check_value};
use super::read::{Past, get_parameter, history};
use super::{Fault, Refusal};
use crate::secret::Secret;
use crate::store::aws::Calls;
use crate::store::aws::error::{Asked, AwsError, Leg, Problem};
use crate::store::aws::retry::{Repetition, repetition};

/// Versions that Parameter Store keeps (PutParameter, "ParameterMaxVersionLimitExceeded").
const KEPT: usize = 100;

/// What is to be written.
pub(super) struct Order<'o> {
    pub(super) name: &'o str,
    pub(super) value: &'o Secret,
    pub(super) key: Option<&'o str>,
    pub(super) only_if_absent: bool,
}

/// Writes a new version and answers its number, or `None` if it was to be new and is there.
pub(super) async fn put(calls: &Calls<'_>, order: &Order<'_>) -> Result<Option<u64>, Fault> {
    check_name(order.name, calls.region()).map_err(|rule| Refusal::Name(order.name.to_owned(), rule))?;
    let value = check_value(order.value.expose()).map_err(|rule| Refusal::Value(order.name.to_owned(), rule))?;
    calls.require_account().await?;
    let past = history(calls, order.name).await?;
    if past.is_some() && order.only_if_absent {
        return Ok(None);
    }
    let past = past.unwrap_or_default();
    let newest = past.iter().max_by_key(|one| one.version);
    if newest.is_some_and(|newest| !newest.is_encrypted) {
        return Err(Refusal::ExistsPlain(order.name.to_owned()).into());
    }
    let asked = Asked { action: "ssm:PutParameter", resource: order.name.to_owned() };
    refuse_at_the_cap(&past).map_err(|problem| problem.of(&asked))?;
    // An advanced parameter cannot go back to standard (PutParameter, Tier).
    let is_advanced = value.len() > STANDARD || newest.is_some_and(|newest| newest.is_advanced);
    let tier = if is_advanced { ParameterTier::Advanced } else { ParameterTier::Standard };
    let base = newest.map_or(0, |newest| newest.version);

    let client = calls.ssm();
    let call = || {
        let request = client.put_parameter().name(order.name).value(value).r#type(ParameterType::SecureString);
        request.set_key_id(order.key.map(ToOwned::to_owned)).tier(tier.clone()).overwrite(base > 0).send()
    };
    let mut failures = 0;
    // From here on nobody can say before the end whether it was written.
    calls.at_the_deadline_say(Problem::Unsettled.of(&asked));
    let number = loop {
        let problem = match calls.once(call).await {
            Ok(answer) => match u64::try_from(answer.version) {
                Ok(number) if number > base => break number,
                _ => Problem::BadAnswer("it has no version"),
            },
            Err(problem) => problem,
        };
        // It was absent a moment ago: perhaps our own first attempt got through, perhaps another writer was faster.
        let is_clear = problem != Problem::Exists && !is_unclear(&problem);
        if is_clear {
            return Err(problem.of(&asked).into());
        }
        if let Some(number) = settle(calls, order, base, &problem, &asked).await? {
            break number;
        }
        if problem == Problem::Unreachable(Leg::Answer) {
            break wait_for(calls, order, base, &asked).await?;
        }
        if problem == Problem::Exists {
            return if order.only_if_absent { Ok(None) } else { Err(Problem::Contended.of(&asked).into()) };
        }
        failures += 1;
        calls.pause(&problem, failures).await.ok_or_else(|| problem.of(&asked))?;
    };
    verify_type(calls, order.name, number).await?;
    Ok(Some(number))
}

/// The oldest version goes when the 101st comes; with a label it cannot, and AWS refuses.
fn refuse_at_the_cap(past: &[Past]) -> Result<(), Problem> {
    let oldest = past.iter().min_by_key(|one| one.version);
    let is_stuck = past.len() >= KEPT && oldest.is_some_and(|oldest| !oldest.labels.is_empty());
    if is_stuck { Err(Problem::VersionCap) } else { Ok(()) }
}

/// Whether a write may have happened in spite of its failure.
fn is_unclear(problem: &Problem) -> bool {
    repetition(problem) != Repetition::Never
        || matches!(problem, Problem::BadAnswer(_) | Problem::TooLarge | Problem::Unknown)
}

/// The number of our version, if one of those that came since `base` holds our value.
async fn settle(
    calls: &Calls<'_>,
    order: &Order<'_>,
    base: u64,
    problem: &Problem,
    asked: &Asked,
) -> Result<Option<u64>, AwsError> {
    let unsettled = |_: AwsError| Problem::Unsettled.of(asked);
    let past = history(calls, order.name).await.map_err(unsettled)?.unwrap_or_default();
    for one in past.iter().filter(|one| one.version > base) {
        let key = Key { name: order.name.to_owned(), selector: Selector::Version(one.version) };
        let got = get_parameter(calls, &key).await.map_err(unsettled)?;
        if got.is_some_and(|got| got.value.same_as(order.value)) {
            return Ok(Some(one.version));
        }
    }
    match problem {
        // Not transient, and no trace of it: another attempt would fail alike.
        Problem::BadAnswer(_) | Problem::TooLarge | Problem::Unknown => Err(Problem::Unsettled.of(asked)),
        _ => Ok(None),
    }
}

/// After an attempt that was sent and not answered: it may be under way still, so another one could make a second version.
/// Its version is waited for, until the deadline.
async fn wait_for(calls: &Calls<'_>, order: &Order<'_>, base: u64, asked: &Asked) -> Result<u64, AwsError> {
    let problem = Problem::Throttled;
    for failures in 1.. {
        calls.pause(&problem, failures).await.ok_or_else(|| Problem::Unsettled.of(asked))?;
        if let Some(number) = settle(calls, order, base, &problem, asked).await? {
            return Ok(number);
        }
    }
    Err(Problem::Unsettled.of(asked))
}

async fn verify_type(calls: &Calls<'_>, name: &str, number: u64) -> Result<(), Fault> {
    let asked = Asked { action: "ssm:GetParameterHistory", resource: name.to_owned() };
    for failures in 1.. {
        let past = history(calls, name).await?.unwrap_or_default();
        match past.iter().find(|one| one.version == number) {
            Some(written) if written.is_encrypted => return Ok(()),
            Some(_) => return Err(Refusal::Downgraded(name.to_owned()).into()),
            // A read may be behind the write for a moment.
            None => calls
                .pause(&Problem::ServerFault, failures)
                .await
                .ok_or_else(|| Problem::BadAnswer("the new version does not show").of(&asked))?,
        }
    }
    Ok(())
}

/// Removes a parameter with all its versions; `false` if there is none.
pub(super) async fn remove(calls: &Calls<'_>, name: &str) -> Result<bool, Fault> {
    check_name(name, calls.region()).map_err(|rule| Refusal::Name(name.to_owned(), rule))?;
    calls.require_account().await?;
    let asked = Asked { action: "ssm:DeleteParameter", resource: name.to_owned() };
    let client = calls.ssm();
    let mut failures = 0;
    calls.at_the_deadline_say(Problem::Unsettled.of(&asked));
    loop {
        let problem = match calls.once(|| client.delete_parameter().name(name).send()).await {
            Ok(_) => return Ok(true),
            // Gone after an unclear answer: that was us.
            Err(Problem::Absent) => return Ok(failures > 0),
            Err(problem) => problem,
        };
        if !is_unclear(&problem) {
            return Err(problem.of(&asked).into());
        }
        failures += 1;
        calls.pause(&problem, failures).await.ok_or_else(|| problem.of(&asked))?;
    }
}
