//! Reading parameters: exact names in batches, paths page by page, and history without values.

use std::time::SystemTime;

use aws_sdk_ssm::types::{Parameter, ParameterHistory, ParameterTier};

use super::labels::{self, Label};
use super::mark::{self, Mark, Purpose};
use super::names::{Key, Pages, Selector, batches};
use super::{Found, Got, is_encrypted};
use crate::policy::model::Stage;
use crate::secret::Secret;
use crate::store::aws::Calls;
use crate::store::aws::error::{Asked, AwsError, Problem};
use crate::store::aws::retry::concurrently;

/// All of `keys`, each once, in concurrent batches. If some are denied, the error names all of those.
pub(super) async fn parameters(calls: &Calls<'_>, keys: impl IntoIterator<Item = Key>) -> Result<Found, AwsError> {
    let batches = batches(keys).into_iter().map(|keys| batch(calls, keys));
    let (mut found, mut denied) = (Found::new(), Vec::new());
    for batch in concurrently(calls.in_flight(), batches).await? {
        found.extend(batch.found);
        denied.extend(batch.denied);
    }
    if denied.is_empty() {
        return Ok(found);
    }
    Err(Problem::Denied.of(&Asked { action: "ssm:GetParameters", resource: denied.join(", ") }))
}

#[derive(Default)]
struct Batch {
    found: Vec<(Key, Option<Got>)>,
    denied: Vec<String>,
}

/// One batch. If it fails because of one of its names, each is asked for alone, to say which one it was.
async fn batch(calls: &Calls<'_>, keys: Vec<Key>) -> Result<Batch, AwsError> {
    match get_parameters(calls, &keys).await {
        Ok(found) => return Ok(Batch { found, denied: Vec::new() }),
        Err(error) if error.problem == Problem::Denied && keys.len() == 1 => {
            return Ok(Batch { found: Vec::new(), denied: keys.into_iter().map(|key| key.name).collect() });
        }
        Err(error) if keys.len() == 1 || !may_be_of_one(&error.problem) => return Err(error),
        Err(_) => {}
    }
    let mut batch = Batch::default();
    for key in keys {
        match get_parameters(calls, std::slice::from_ref(&key)).await {
            Ok(found) => batch.found.extend(found),
            Err(error) if error.problem == Problem::Denied => batch.denied.push(key.name),
            Err(error) => return Err(error),
        }
    }
    Ok(batch)
}

/// Whether a batch may have failed for one name alone: a right, a key, or a name that the service does not take.
fn may_be_of_one(problem: &Problem) -> bool {
    matches!(
        problem,
        Problem::Absent
            | Problem::Denied
            | Problem::Invalid(_)
            | Problem::KeyDisabled
            | Problem::KeyState
            | Problem::KeyUnusable
    )
}

async fn get_parameters(calls: &Calls<'_>, keys: &[Key]) -> Result<Vec<(Key, Option<Got>)>, AwsError> {
    let names: Vec<String> = keys.iter().map(Key::request).collect();
    let asked = Asked { action: "ssm:GetParameters", resource: names.join(", ") };
    let client = calls.ssm();
    let call = || client.get_parameters().set_names(Some(names.clone())).with_decryption(true).send();
    let answer = match (calls.read(&asked, call).await, keys) {
        (Err(error), [key]) if error.problem == Problem::Absent => return Ok(vec![(key.clone(), None)]),
        (answer, _) => answer?,
    };
    let (mut sent, invalid) = (answer.parameters.unwrap_or_default(), answer.invalid_parameters.unwrap_or_default());
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        let is_it = |one: &Parameter| {
            key.is_answered_by(one.name.as_deref(), one.arn.as_deref(), one.selector.as_deref(), one.version)
        };
        let got = match sent.iter().position(is_it) {
            Some(index) => Some(take(calls, sent.swap_remove(index)).map_err(|problem| problem.of(&asked))?),
            // An emulator knows no ARN here, and AWS none of another account that is not shared.
            None if key.is_arn() => get_parameter(calls, key).await?,
            None if invalid.contains(&key.request()) || invalid.contains(&key.name) => None,
            None => return Err(Problem::BadAnswer("it leaves out a name").of(&asked)),
        };
        found.push((key.clone(), got));
    }
    Ok(found)
}

/// One parameter, `None` if it is absent.
pub(super) async fn get_parameter(calls: &Calls<'_>, key: &Key) -> Result<Option<Got>, AwsError> {
    let asked = Asked { action: "ssm:GetParameter", resource: key.request() };
    let client = calls.ssm();
    let call = || client.get_parameter().name(key.request()).with_decryption(true).send();
    match calls.read(&asked, call).await {
        Ok(answer) => {
            let one = answer.parameter.ok_or_else(|| Problem::BadAnswer("it holds no parameter").of(&asked))?;
            take(calls, one).map(Some).map_err(|problem| problem.of(&asked))
        }
        Err(error) if error.problem == Problem::Absent => Ok(None),
        Err(error) => Err(error),
    }
}

fn take(calls: &Calls<'_>, one: Parameter) -> Result<Got, Problem> {
    calls.check_account(one.arn.as_deref())?;
    Ok(Got {
        is_encrypted: is_encrypted(one.r#type.as_ref()),
        version: u64::try_from(one.version).map_err(|_| Problem::BadAnswer("a version is negative"))?,
        written: one.last_modified_date.and_then(|time| SystemTime::try_from(time).ok()),
        value: Secret::new(one.value.ok_or(Problem::BadAnswer("a parameter has no value"))?.into_bytes()),
    })
}

/// Every parameter that AWS says lies below `path`, with its name.
pub(super) async fn below(calls: &Calls<'_>, path: &str, recursive: bool) -> Result<Vec<(String, Got)>, AwsError> {
    let asked = Asked { action: "ssm:GetParametersByPath", resource: path.to_owned() };
    let client = calls.ssm();
    let folder = match path.trim_end_matches('/') {
        "" => "/",
        folder => folder,
    };
    let (mut pages, mut token, mut found) = (Pages::default(), None, Vec::new());
    loop {
        let call = || {
            let request = client.get_parameters_by_path().path(folder).recursive(recursive).with_decryption(true);
            request.max_results(10).set_next_token(token.clone()).send()
        };
        let answer = calls.read(&asked, call).await?;
        for mut one in answer.parameters.unwrap_or_default() {
            let name = one.name.take().ok_or_else(|| Problem::BadAnswer("a parameter has no name").of(&asked))?;
            found.push((name, take(calls, one).map_err(|problem| problem.of(&asked))?));
        }
        token = pages.next(answer.next_token).map_err(|problem| problem.of(&asked))?;
        if token.is_none() {
            return Ok(found);
        }
    }
}

/// For every stage `current` that was labelled nowhere: what its history says. It is read by its number, so that a rotation
/// that begins in between does not slip its pending version in.
///
/// A history of several pages is no single moment: a rotation may begin between two of them, and what the second one ends with
/// is not what the first one would have ended with. Its label is asked for once more then, and outweighs the rest: where there
/// is none even now, nothing was created before now.
pub(super) async fn unlabelled(calls: &Calls<'_>, found: &mut Found) -> Result<(), AwsError> {
    let is_open = |key: &&Key| key.selector == Selector::Stage(Stage::Current);
    let open: Vec<Key> =
        found.iter().filter(|(_, got)| got.is_none()).map(|(key, _)| key).filter(is_open).cloned().collect();
    let seen = open.into_iter().map(async |key: Key| -> Result<_, AwsError> {
        let Some(history) = history(calls, &key.name).await? else { return Ok(None) };
        let current = labels::look(&history.past).current.map(|one| one.version);
        Ok(Some(Open { key, current, again: history.pages > 1 }))
    });
    let seen: Vec<Open> = concurrently(calls.in_flight(), seen).await?.into_iter().flatten().collect();
    let keys = seen.iter().flat_map(|one| one.by_number().into_iter().chain(one.again.then(|| one.key.clone())));
    let mut answers = parameters(calls, keys.collect::<Vec<_>>()).await?;
    for one in seen {
        let by_label = answers.remove(&one.key).flatten();
        let by_number = one.by_number().and_then(|key| answers.remove(&key)).flatten();
        found.insert(one.key, by_label.or(by_number));
    }
    Ok(())
}

/// A stage that has to be read by the number that history gave.
struct Open {
    key: Key,
    current: Option<u64>,
    again: bool,
}

impl Open {
    fn by_number(&self) -> Option<Key> {
        self.current.map(|number| Key { name: self.key.name.clone(), selector: Selector::Version(number) })
    }
}

/// The versions of a parameter.
pub(super) struct History {
    pub(super) past: Vec<Past>,
    /// In how many answers they came.
    pub(super) pages: usize,
}

/// What history tells of one version; its value is dropped unread.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Past {
    pub(super) version: u64,
    pub(super) labels: Vec<String>,
    pub(super) written: Option<SystemTime>,
    pub(super) author: Option<String>,
    pub(super) is_encrypted: bool,
    pub(super) is_advanced: bool,
    /// Its description, without a mark of ours.
    pub(super) text: String,
    /// The mark in its description, if it was written for this very version.
    pub(super) mark: Option<Mark>,
    /// There is a mark, whichever version it was written for.
    pub(super) is_marked: bool,
}

impl Past {
    /// Whether it has a label of ours.
    pub(super) fn has(&self, label: Label) -> bool {
        self.labels.iter().any(|one| one == label.word())
    }

    /// Whether rotation wrote it, and for this.
    pub(super) fn is_for(&self, purpose: Purpose) -> bool {
        self.mark.is_some_and(|mark| mark.purpose == purpose)
    }
}

/// Every version of a parameter; `None` if there is no such parameter. Nothing is decrypted.
pub(super) async fn history(calls: &Calls<'_>, name: &str) -> Result<Option<History>, AwsError> {
    let asked = Asked { action: "ssm:GetParameterHistory", resource: name.to_owned() };
    let client = calls.ssm();
    let (mut tokens, mut token, mut past, mut pages) = (Pages::default(), None, Vec::new(), 0);
    loop {
        let call = || {
            let request = client.get_parameter_history().name(name).with_decryption(false).max_results(50);
            request.set_next_token(token.clone()).send()
        };
        let answer = match calls.read(&asked, call).await {
            Err(error) if error.problem == Problem::Absent => return Ok(None),
            other => other?,
        };
        pages += 1;
        for one in answer.parameters.unwrap_or_default() {
            past.push(of_the_past(one).map_err(|problem| problem.of(&asked))?);
        }
        token = tokens.next(answer.next_token).map_err(|problem| problem.of(&asked))?;
        if token.is_none() {
            return Ok(Some(History { past, pages }));
        }
    }
}

/// The versions alone; none, if there is no such parameter.
pub(super) async fn past(calls: &Calls<'_>, name: &str) -> Result<Vec<Past>, AwsError> {
    Ok(history(calls, name).await?.map(|history| history.past).unwrap_or_default())
}

fn of_the_past(one: ParameterHistory) -> Result<Past, Problem> {
    let version = u64::try_from(one.version).map_err(|_| Problem::BadAnswer("a version is negative"))?;
    let (text, mark) = mark::split(one.description.as_deref().unwrap_or_default());
    Ok(Past {
        version,
        labels: one.labels.unwrap_or_default(),
        written: one.last_modified_date.and_then(|time| SystemTime::try_from(time).ok()),
        author: one.last_modified_user,
        is_encrypted: is_encrypted(one.r#type.as_ref()),
        is_advanced: matches!(one.tier, Some(ParameterTier::Advanced)),
        text: text.to_owned(),
        mark: mark.filter(|mark| mark.after.checked_add(1) == Some(version)),
        is_marked: mark.is_some(),
    })
}
