//! Where the two policies write accesses down, and what makes that hold. Pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::side::Side;
use super::{Found, Sign, quoted, quoted_or_none, time, unpinned, unset, yes_or_no};
use crate::policy::model::{Anchor, AwsAccess, Evidence, Sink};

/// Which sink it is, whatever else is said of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Fd(i32),
    File(String),
    Journald(PathBuf),
    Stderr,
    Syslog(PathBuf),
}

/// What is said of a file.
type Terms = (bool, Evidence);

pub(super) fn compare(old: &Side<'_>, new: &Side<'_>, found: &mut Found) {
    let (before, after) = (sinks(old), sinks(new));
    for place in before.keys().filter(|place| !after.contains_key(place)) {
        found.add(Sign::Gain, format!("accesses are no longer written down in {}", place.words()));
    }
    for (place, terms) in &after {
        let words = place.words();
        match before.get(place) {
            None => found.add(Sign::Change, format!("accesses are written down in {words} too")),
            Some(before) => compare_terms(&words, before, terms, found),
        }
    }
}

fn compare_terms(place: &str, (old_sync, old): &Terms, (new_sync, new): &Terms, found: &mut Found) {
    let of = |field: &str| format!("{place}: `{field}`");
    found.setting(&of("sync"), (old_sync, new_sync), yes_or_no, |old, new| *old && !*new);
    found.setting(&of("auditor"), (&old.auditor, &new.auditor), quoted_or_none, unpinned);
    match (&old.checkpoints, &new.checkpoints) {
        (Some(old), Some(new)) => {
            found.setting(&of("checkpoints.every"), (&old.every, &new.every), u64::to_string, |old, new| new > old);
            let later = |old: &Duration, new: &Duration| new > old;
            found.setting(&of("checkpoints.interval"), (&old.interval, &new.interval), time, later);
            let to = (anchors(&old.to), anchors(&new.to));
            let lacks = |old: &Vec<&Anchor>, new: &Vec<&Anchor>| old.iter().any(|one| !new.contains(one));
            let words =
                |to: &Vec<&Anchor>| format!("[{}]", to.iter().map(|to| anchor(to)).collect::<Vec<_>>().join(", "));
            found.setting(&of("checkpoints.to"), (&to.0, &to.1), words, lacks);
        }
        (old, new) => {
            let is = (old.is_some(), new.is_some());
            let word = |is: &bool| if *is { "there".to_owned() } else { unset() };
            found.setting(&of("checkpoints"), (&is.0, &is.1), word, |old, _| *old);
        }
    }
}

/// In an order of their own: in which one they are written down means nothing.
fn anchors(to: &[Anchor]) -> Vec<&Anchor> {
    let mut to: Vec<&Anchor> = to.iter().collect();
    to.sort_by_cached_key(|anchor| format!("{anchor:?}"));
    to.dedup();
    to
}

/// With who takes it there: somebody else's account is somebody else's history.
fn anchor(anchor: &Anchor) -> String {
    let Anchor::Parameter(parameter) = anchor else { return quoted(&anchor.word()) };
    let AwsAccess { region, endpoint, profile, role_arn, account, credential_source, in_flight: _ } = &parameter.aws;
    let source = credential_source.map(|source| source.word().to_owned());
    let said = [
        ("region", region),
        ("endpoint", endpoint),
        ("profile", profile),
        ("role", role_arn),
        ("account", account),
        ("credentials", &source),
    ];
    let said = said.into_iter().filter_map(|(what, text)| Some(format!(" {what} {}", quoted(text.as_ref()?))));
    quoted(&anchor.word()) + &said.collect::<String>()
}

fn sinks(side: &Side<'_>) -> BTreeMap<Place, Terms> {
    let one = |sink: &Sink| match sink {
        Sink::Fd(number) => (Place::Fd(*number), (true, Evidence::default())),
        Sink::File { path, sync, evidence } => {
            let path = side.path(Path::new(path)).to_string_lossy().into_owned();
            (Place::File(path), (*sync, evidence.clone()))
        }
        Sink::Journald(path) => (Place::Journald(path.clone()), (true, Evidence::default())),
        Sink::Syslog(path) => (Place::Syslog(path.clone()), (true, Evidence::default())),
        Sink::Stderr => (Place::Stderr, (true, Evidence::default())),
    };
    side.policy.sinks.iter().map(one).collect()
}

impl Place {
    fn words(&self) -> String {
        match self {
            Self::Fd(number) => format!("descriptor {number}"),
            Self::File(path) => format!("file {}", quoted(path)),
            Self::Journald(path) => {
                format!("journald {}, a mirror, which does not count", quoted(&path.to_string_lossy()))
            }
            Self::Stderr => "standard error".into(),
            Self::Syslog(path) => format!("syslog {}, a mirror, which does not count", quoted(&path.to_string_lossy())),
        }
    }
}
