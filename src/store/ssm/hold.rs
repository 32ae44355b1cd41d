//! Taking the right to rotate, and giving it back: the conversation about a [`Claim`].

use std::time::SystemTime;

use aws_sdk_ssm::types::ParameterType;
use ring::rand::{SecureRandom, SystemRandom};

use super::lock::{Claim, Process, RENEWED, Seen, Standing, WRITES};
use super::names::{Key, Selector, check_name};
use super::read::get_parameter;
use super::relabel::{Right, since_boot};
use super::{Fault, Refusal};
use crate::store::aws::Calls;
use crate::store::aws::error::{Asked, AwsError, Problem};
use crate::store::aws::retry::{Repetition, repetition};
use crate::store::stages::Holder;

/// How far back a claim that counts is looked for: as many versions as are kept.
const BACK: u64 = 100;

/// Text that nobody else has.
pub(super) fn token() -> Result<String, Problem> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Problem::Invalid("the system gives no randomness"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Takes the right, or extends it where `held` has little left.
pub(super) async fn hold(
    calls: &Calls<'_>,
    lock: &str,
    holder: &Holder,
    token: &str,
    held: Option<&Right>,
) -> Result<Right, Fault> {
    if let Some(right) = held.filter(|right| right.left() > RENEWED) {
        return Ok(right.clone());
    }
    check_name(lock, calls.region()).map_err(|rule| Refusal::Name(lock.to_owned(), rule))?;
    calls.require_account().await?;
    let this = Process::this();
    for failures in 1.. {
        let seen = look(calls, lock).await?;
        if let Standing::Theirs(holder) = seen.standing(token, SystemTime::now(), this.as_ref()) {
            return Err(Fault::Held(holder));
        }
        let start = since_boot();
        let claim = Claim::held(seen.newest, holder, token, this.clone());
        let problem = match write(calls, lock, &claim).await {
            Ok(number) if Some(number) == seen.newest.checked_add(1) => {
                return Ok(Right::new(token.to_owned(), number, start, WRITES));
            }
            // Something came in between: whose it is, the next look says.
            Ok(_) => Problem::Contended,
            Err(problem) => problem,
        };
        again(calls, problem, failures, lock).await?;
    }
    Err(Problem::Contended.into())
}

/// Gives the right back, unless somebody else has it by now.
pub(super) async fn let_go(calls: &Calls<'_>, lock: &str, right: &Right) -> Result<(), Fault> {
    let mut after = right.claim;
    for failures in 1.. {
        let problem = match write(calls, lock, &Claim::free(after, &right.token)).await {
            Ok(number) if Some(number) == after.checked_add(1) => return Ok(()),
            Ok(_) => Problem::Contended,
            Err(problem) => problem,
        };
        again(calls, problem, failures, lock).await?;
        let seen = look(calls, lock).await?;
        if seen.standing(&right.token, SystemTime::now(), None) != Standing::Ours {
            return Ok(());
        }
        after = seen.newest;
    }
    Ok(())
}

/// What the lock says. Claims that lost lie above the one that counts.
async fn look(calls: &Calls<'_>, lock: &str) -> Result<Seen, AwsError> {
    let read = async |selector| get_parameter(calls, &Key { name: lock.to_owned(), selector }).await;
    let Some(got) = read(Selector::Newest).await? else {
        return Ok(Seen { newest: 0, claim: None, written: None });
    };
    let (newest, mut at) = (got.version, got);
    let written = at.written;
    loop {
        if let Some(claim) = Claim::of(at.version, at.value.expose()) {
            return Ok(Seen { newest, claim: Some(claim), written: at.written });
        }
        let older = at.version.saturating_sub(1);
        let is_worth_it = older > 0 && newest.saturating_sub(older) < BACK;
        let got = if is_worth_it { read(Selector::Version(older)).await? } else { None };
        let Some(got) = got else { return Ok(Seen { newest, claim: None, written }) };
        at = got;
    }
}

/// One attempt. Whatever is not a clear answer is looked into by whoever asks: a claim of ours that got through is known by
/// its token.
async fn write(calls: &Calls<'_>, lock: &str, claim: &Claim) -> Result<u64, Problem> {
    let text = claim.text().ok_or(Problem::Invalid("the claim could not be written"))?;
    let client = calls.ssm();
    let call = || {
        let request = client.put_parameter().name(lock).value(text.clone()).r#type(ParameterType::String);
        request.overwrite(claim.after > 0).send()
    };
    let answer = calls.once(call).await?;
    u64::try_from(answer.version).map_err(|_| Problem::BadAnswer("it has no version"))
}

/// Waits before another look, or says why there is none.
async fn again(calls: &Calls<'_>, problem: Problem, failures: u32, lock: &str) -> Result<(), AwsError> {
    let asked = Asked { action: "ssm:PutParameter", resource: lock.to_owned() };
    // It came into being, or to an end, since it was looked at.
    let problem = if matches!(problem, Problem::Exists | Problem::Absent) { Problem::Contended } else { problem };
    if repetition(&problem) == Repetition::Never {
        return Err(problem.of(&asked));
    }
    calls.at_the_deadline_say(problem.clone().of(&asked));
    calls.pause(&problem, failures).await.ok_or_else(|| problem.of(&asked))
}
