//! Writing parameters, each once: `PutParameter` has no token that would make a repetition harmless.
//!
//! A write is one attempt. Whatever is not a clear yes or no is looked into before another one: the versions that came
//! since are read back and compared, so that a lost answer makes no second version (measured with the SDK's own retries:
//! it makes two). The new version's type is verified, because an overwrite by somebody else could have turned it into a
//! String.

use aws_sdk_ssm::types::{ParameterTier, ParameterType};

use super::labels::{self, Full};
use super::names::{Key, STANDARD, Selector, check_name, check_value};
use super::read::{Past, get_parameter, history, past};
use super::relabel::{Relabel, Right, refused};
use super::{Fault, Refusal};
use crate::secret::Secret;
use crate::store::aws::Calls;
use crate::store::aws::error::{Asked, AwsError, Leg, Problem};
use crate::store::aws::retry::{Repetition, repetition};

/// What is to be written.
pub(super) struct Order<'o> {
    pub(super) name: &'o str,
    pub(super) value: &'o Secret,
    pub(super) key: Option<&'o str>,
    pub(super) only_if_absent: bool,
}

/// What a new version comes after.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Base {
    /// Its number; 0 if there is no such parameter.
    pub(super) number: u64,
    is_advanced: bool,
}

impl Base {
    /// Of a history.
    pub(super) fn of(past: &[Past]) -> Self {
        let newest = past.iter().max_by_key(|one| one.version);
        newest.map_or_else(Self::default, |one| Self { number: one.version, is_advanced: one.is_advanced })
    }
}

/// Writes a new version and answers its number, or `None` if it was to be new and is there. Where readers go by labels, it is
/// current at the end: what is set by hand is proven by hand.
pub(super) async fn put(calls: &Calls<'_>, order: &Order<'_>) -> Result<Option<u64>, Fault> {
    check(calls, order)?;
    calls.require_account().await?;
    let past = history(calls, order.name).await?.map(|history| history.past);
    if past.is_some() && order.only_if_absent {
        return Ok(None);
    }
    let past = past.unwrap_or_default();
    refuse_plain(order.name, &past)?;
    let seen = labels::look(&past);
    if let Some(pending) = seen.pending {
        return Err(Refusal::Rotating(order.name.to_owned(), pending.version).into());
    }
    let relabel = Relabel { calls, right: None, name: order.name };
    make_room(&relabel, &past).await?;
    // The mark of a version that rotation wrote would be inherited.
    let text = seen.newest.filter(|newest| newest.is_marked).map(|newest| newest.text.clone());
    let Some(number) = write(calls, order, Base::of(&past), text.as_deref(), None).await? else { return Ok(None) };
    // It is written; that it could not be looked at does not undo it.
    verify_type(calls, order.name, number).await.map_err(|fault| match fault {
        Fault::Aws(_) => Problem::Unsettled.of(&asked(order.name)).into(),
        other => other,
    })?;
    relabel.all(&labels::to_set(&past, number)).await.map_err(|fault| match fault {
        Fault::Aws(error) => Refusal::NotCurrent(order.name.to_owned(), number, Box::new(error)).into(),
        other => other,
    })?;
    Ok(Some(number))
}

fn asked(name: &str) -> Asked {
    Asked { action: "ssm:PutParameter", resource: name.to_owned() }
}

/// Whether Parameter Store takes such a name and value, before anything is asked.
pub(super) fn check<'o>(calls: &Calls<'_>, order: &Order<'o>) -> Result<&'o str, Refusal> {
    check_name(order.name, calls.region()).map_err(|rule| Refusal::Name(order.name.to_owned(), rule))?;
    check_value(order.value.expose()).map_err(|rule| Refusal::Value(order.name.to_owned(), rule))
}

/// An overwrite leaves a String one, or leaves its old versions readable.
pub(super) fn refuse_plain(name: &str, past: &[Past]) -> Result<(), Refusal> {
    let newest = past.iter().max_by_key(|one| one.version);
    match newest.is_some_and(|newest| !newest.is_encrypted) {
        true => Err(Refusal::ExistsPlain(name.to_owned())),
        false => Ok(()),
    }
}

/// Refuses before a write what AWS would refuse in it or after it.
pub(super) async fn make_room(relabel: &Relabel<'_, '_>, past: &[Past]) -> Result<(), Fault> {
    let moves = labels::to_make_room(past).map_err(|full| match full {
        Full::Versions => Fault::from(Problem::VersionCap.of(&asked(relabel.name))),
        Full::Labels => Problem::Quota("ten labels on one version").of(&asked(relabel.name)).into(),
    })?;
    relabel.all(&moves).await
}

/// One new version, never two. Answers its number, or `None` if it was to be new and is there. `description` replaces that
/// of the parameter. With a right, nothing is sent that the right does not cover any more.
pub(super) async fn write(
    calls: &Calls<'_>,
    order: &Order<'_>,
    base: Base,
    description: Option<&str>,
    right: Option<&Right>,
) -> Result<Option<u64>, Fault> {
    let asked = asked(order.name);
    let value = check(calls, order)?;
    // An advanced parameter cannot go back to standard (PutParameter, Tier).
    let is_advanced = value.len() > STANDARD || base.is_advanced;
    let tier = if is_advanced { ParameterTier::Advanced } else { ParameterTier::Standard };
    let client = calls.ssm();
    let call = async || {
        refused(right)?;
        let request = client.put_parameter().name(order.name).value(value).r#type(ParameterType::SecureString);
        let request = request.set_description(description.map(ToOwned::to_owned));
        request.set_key_id(order.key.map(ToOwned::to_owned)).tier(tier.clone()).overwrite(base.number > 0).send().await
    };
    let mut failures = 0;
    // From here on nobody can say before the end whether it was written.
    calls.at_the_deadline_say(Problem::Unsettled.of(&asked));
    loop {
        let problem = match calls.once(call).await {
            Ok(answer) => match u64::try_from(answer.version) {
                Ok(number) if number > base.number => return Ok(Some(number)),
                _ => Problem::BadAnswer("it has no version"),
            },
            Err(problem) => problem,
        };
        if right.is_some_and(|right| !right.is_open()) {
            return Err(Refusal::RightEnded.into());
        }
        // It was absent a moment ago: perhaps our own first attempt got through, perhaps another writer was faster.
        let is_clear = problem != Problem::Exists && !is_unclear(&problem);
        if is_clear {
            return Err(problem.of(&asked).into());
        }
        if let Some(number) = settle(calls, order, base.number, &problem, &asked).await? {
            return Ok(Some(number));
        }
        if problem == Problem::Unreachable(Leg::Answer) {
            return Ok(Some(wait_for(calls, order, base.number, &asked).await?));
        }
        if problem == Problem::Exists {
            return if order.only_if_absent { Ok(None) } else { Err(Problem::Contended.of(&asked).into()) };
        }
        failures += 1;
        calls.pause(&problem, failures).await.ok_or_else(|| problem.of(&asked))?;
    }
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
    let past = past(calls, order.name).await.map_err(unsettled)?;
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

pub(super) async fn verify_type(calls: &Calls<'_>, name: &str, number: u64) -> Result<(), Fault> {
    let asked = Asked { action: "ssm:GetParameterHistory", resource: name.to_owned() };
    for failures in 1.. {
        let past = past(calls, name).await?;
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

/// Removes a parameter with all its versions; `false` if there is none. Not while a version is pending: a target may accept
/// it already.
pub(super) async fn remove(calls: &Calls<'_>, name: &str) -> Result<bool, Fault> {
    check_name(name, calls.region()).map_err(|rule| Refusal::Name(name.to_owned(), rule))?;
    calls.require_account().await?;
    let past = history(calls, name).await?.map(|history| history.past).unwrap_or_default();
    if let Some(pending) = labels::look(&past).pending {
        return Err(Refusal::Rotating(name.to_owned(), pending.version).into());
    }
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
