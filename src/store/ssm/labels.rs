//! Which version of a parameter is which, and the labels that make it so. Pure; `docs/spec/ssm-stages.md` is its contract.
//!
//! One label sits on one version, and moves in one call. What must stay true: from the first label on, at every instant one
//! version is current, and it is one that was proven. Everything else follows from the order of the moves, and from what
//! counts where two labels sit on one version: current before previous before discarded before pending.

use super::mark::Purpose;
use super::names;
use super::read::Past;
use crate::policy::model::Stage;

/// Labels that a version can have (LabelParameterVersion).
const MOST_LABELS: usize = 10;
/// Versions that Parameter Store keeps (PutParameter, "ParameterMaxVersionLimitExceeded").
pub(super) const KEPT: usize = 100;

/// A label of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Label {
    Current,
    Pending,
    Previous,
    /// It and whatever is older is no version any more, though it is newer than the current one.
    Discarded,
    /// Where readers know no stages: what was newest before. No stage, since there the newest version is current.
    Replaced,
}

impl Label {
    /// The labels that say that readers go by labels.
    pub(super) const STAGES: [Self; 4] = [Self::Current, Self::Pending, Self::Previous, Self::Discarded];
    pub(super) const ALL: [Self; 5] = [Self::Current, Self::Pending, Self::Previous, Self::Discarded, Self::Replaced];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Current => names::label(Stage::Current),
            Self::Pending => names::label(Stage::Pending),
            Self::Previous => names::label(Stage::Previous),
            Self::Discarded => "vouchsafe-discarded",
            Self::Replaced => "vouchsafe-replaced",
        }
    }
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Move {
    /// The label goes to this version, from wherever it is.
    Put(Label, u64),
    /// These labels go from this version.
    Take(Vec<Label>, u64),
}

/// What the history of a parameter whose readers go by labels says.
pub(super) struct Seen<'h> {
    pub(super) newest: Option<&'h Past>,
    pub(super) current: Option<&'h Past>,
    pub(super) pending: Option<&'h Past>,
    pub(super) previous: Option<&'h Past>,
    /// No version has a stage, so that the newest one is current.
    pub(super) is_unmarked: bool,
    /// Newer than everything of ours: written by something that knows no stages, so that no reader of stages gets it.
    pub(super) foreign: Option<&'h Past>,
    /// The newest one of ours.
    highest: Option<&'h Past>,
    past: &'h [Past],
}

/// Looks at a history, in any order.
pub(super) fn look(past: &[Past]) -> Seen<'_> {
    let newest = past.iter().max_by_key(|one| one.version);
    if !is_staged(past) {
        return Seen {
            newest,
            current: newest,
            pending: None,
            previous: None,
            is_unmarked: true,
            foreign: None,
            highest: None,
            past,
        };
    }
    let with = |label: Label| past.iter().find(|one| one.has(label));
    let current = with(Label::Current);
    let is_current = |one: &Past| current.is_some_and(|current| current.version == one.version);
    let is_newer = |one: &Past| current.is_some_and(|current| one.version > current.version);
    let previous = with(Label::Previous).filter(|one| !is_current(one));
    let ours = past.iter().filter(|one| one.mark.is_some() || Label::STAGES.iter().any(|label| one.has(*label)));
    let highest = ours.max_by_key(|one| one.version);
    let is_other = |one: &Past| one.has(Label::Previous) || one.has(Label::Discarded);
    let labelled = with(Label::Pending).filter(|one| is_newer(one) && !is_other(one));
    // Written by a rotation that was killed before it could label it.
    let is_orphan = |one: &Past| !Label::STAGES.iter().any(|label| one.has(*label));
    let orphan = || highest.filter(|one| is_newer(one) && is_orphan(one) && one.is_for(Purpose::Here));
    let later: Vec<&Past> =
        past.iter().filter(|one| highest.is_some_and(|highest| one.version > highest.version)).collect();
    // A stale mark may be ours, of a race that was lost; one without any is certainly somebody else's, and told first.
    let unmarked = later.iter().filter(|one| !one.is_marked).max_by_key(|one| one.version);
    let foreign = unmarked.or_else(|| later.iter().max_by_key(|one| one.version)).copied();
    Seen { newest, current, pending: labelled.or_else(orphan), previous, is_unmarked: false, foreign, highest, past }
}

/// Whether readers go by labels.
pub(super) fn is_staged(past: &[Past]) -> bool {
    past.iter().any(|one| Label::STAGES.iter().any(|label| one.has(*label)))
}

/// The stage of a version, for whoever lists them.
pub(super) fn stage_of(past: &[Past], one: &Past) -> Option<Stage> {
    let seen = look(past);
    let is = |other: Option<&Past>| other.is_some_and(|other| other.version == one.version);
    if is(seen.current) {
        Some(Stage::Current)
    } else if is(seen.previous) || (seen.is_unmarked && one.has(Label::Replaced)) {
        Some(Stage::Previous)
    } else if is(seen.pending) {
        Some(Stage::Pending)
    } else {
        None
    }
}

impl Seen<'_> {
    /// What is there instead, for whoever meant another version.
    pub(super) fn found(&self) -> String {
        let version = |one: Option<&Past>, stage: &str| one.map(|one| format!("version {} is {stage}", one.version));
        let known =
            [version(self.pending, "pending"), version(self.current, "current"), version(self.previous, "previous")];
        let known: Vec<String> = known.into_iter().flatten().collect();
        if known.is_empty() { "it has no version".into() } else { known.join(", ") }
    }

    /// The version that has a label, whatever that means there.
    pub(super) fn on(&self, label: Label) -> Option<&Past> {
        self.past.iter().find(|one| one.has(label))
    }

    /// Whether nothing of ours is newer.
    fn is_highest(&self, number: u64) -> bool {
        self.highest.is_some_and(|one| one.version == number)
    }

    fn is_pending(&self, number: u64) -> bool {
        self.pending.is_some_and(|one| one.version == number)
    }

    fn is_previous(&self, number: u64) -> bool {
        self.previous.is_some_and(|one| one.version == number)
    }

    /// Whether the current version is this one.
    pub(super) fn is_current(&self, number: u64) -> bool {
        !self.is_unmarked && self.current.is_some_and(|one| one.version == number)
    }

    /// Whether a roll back was ended after the one move that made it: what became current was previous, and still has that
    /// label. (So it is too where a promotion was ended before its one move and then given up, which went back as well.)
    pub(super) fn is_rolled_back(&self) -> bool {
        self.pending.is_none() && self.current.is_some_and(|current| current.has(Label::Previous))
    }

    /// Before anything is created: so that what comes next is current for nobody.
    pub(super) fn to_adopt(&self) -> Vec<Move> {
        match (self.is_unmarked, self.newest) {
            (true, Some(newest)) => vec![Move::Put(Label::Current, newest.version)],
            _ => Vec::new(),
        }
    }

    /// Previous goes to the old one first: a version that is both is current, so nothing changes for a reader until the one
    /// call that moves `current`. The label `pending` stays behind: a version that is current is not pending.
    pub(super) fn to_promote(&self, number: u64) -> Option<Vec<Move>> {
        let current = self.current?;
        if self.is_current(number) {
            return Some(Vec::new());
        }
        if !self.is_pending(number) {
            return None;
        }
        let mut moves = Vec::new();
        if !current.has(Label::Previous) {
            moves.push(Move::Put(Label::Previous, current.version));
        }
        moves.push(Move::Put(Label::Current, number));
        Some(moves)
    }

    /// The label goes first: what rotation wrote last and has no label still counts as pending, until `discarded` says that it is
    /// none. Below another version of ours that is not needed, and that one may need the label itself.
    pub(super) fn to_discard(&self, number: u64) -> Option<Vec<Move>> {
        let Some(pending) = self.pending else {
            return (!self.is_current(number)).then(Vec::new);
        };
        if pending.version != number {
            return None;
        }
        let unlabel = pending.has(Label::Pending).then(|| Move::Take(vec![Label::Pending], number));
        let discard = self.is_highest(number).then_some(Move::Put(Label::Discarded, number));
        Some(unlabel.into_iter().chain(discard).collect())
    }

    /// After a roll back the previous version is above the current one, and discarded already.
    pub(super) fn to_drop(&self, number: u64) -> Option<Vec<Move>> {
        match self.previous {
            Some(previous) if previous.version == number => Some(vec![Move::Take(vec![Label::Previous], number)]),
            Some(_) => None,
            None if self.is_current(number) => None,
            None => Some(Vec::new()),
        }
    }

    /// The one that is current is newer than what becomes current, and must be neither pending nor a stranger then: so it loses
    /// the label `pending` that stayed behind, and gets `discarded`, which counts from the instant when it is not current any
    /// more.
    pub(super) fn to_roll_back(&self, number: u64) -> Option<Vec<Move>> {
        let current = self.current?;
        if self.is_current(number) {
            return Some(Vec::new());
        }
        if self.pending.is_some() || !self.is_previous(number) {
            return None;
        }
        let is_newer = current.version > number;
        let unlabel = is_newer && current.has(Label::Pending);
        let discard = is_newer && self.is_highest(current.version);
        let moves = [
            unlabel.then(|| Move::Take(vec![Label::Pending], current.version)),
            discard.then_some(Move::Put(Label::Discarded, current.version)),
            Some(Move::Put(Label::Current, number)),
            Some(Move::Put(Label::Previous, current.version)),
        ];
        Some(moves.into_iter().flatten().collect())
    }
}

/// What a history says after these moves.
pub(super) fn apply(past: &mut [Past], moves: &[Move]) {
    for one in past.iter_mut() {
        for next in moves {
            match next {
                Move::Put(label, version) if one.version == *version => {
                    if !one.has(*label) {
                        one.labels.push(label.word().to_owned());
                    }
                }
                Move::Put(label, _) => one.labels.retain(|have| have != label.word()),
                Move::Take(labels, version) if one.version == *version => {
                    one.labels.retain(|have| !labels.iter().any(|label| have == label.word()));
                }
                Move::Take(..) => {}
            }
        }
    }
}

/// A value that is set is proven by whoever sets it: it becomes current at once. `past` is from before it was written.
pub(super) fn to_set(past: &[Past], number: u64) -> Vec<Move> {
    let seen = look(past);
    let current = seen.current.map(|current| current.version);
    if !seen.is_unmarked {
        let previous = current.map(|current| Move::Put(Label::Previous, current));
        return previous.into_iter().chain([Move::Put(Label::Current, number)]).collect();
    }
    let is_rotated_apart = past.iter().any(|one| one.has(Label::Replaced));
    current.filter(|_| is_rotated_apart).map(|current| Move::Put(Label::Replaced, current)).into_iter().collect()
}

/// Why there is no room for one more version, or for the labels that it will bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// The oldest of 100 versions has a label that still means something.
    Versions,
    /// The version that is to become previous has ten labels.
    Labels,
}

/// What makes room for one more version, before it is written. The oldest one goes when the 101st comes; with a label it
/// cannot, and AWS refuses. Labels of ours that mean nothing any more are taken off it.
pub(super) fn to_make_room(past: &[Past]) -> Result<Vec<Move>, Full> {
    let seen = look(past);
    if let Some(current) = seen.current
        && current.labels.len() >= MOST_LABELS
        && !current.has(Label::Previous)
        && !current.has(Label::Replaced)
    {
        return Err(Full::Labels);
    }
    let Some(oldest) = past.iter().min_by_key(|one| one.version).filter(|_| past.len() >= KEPT) else {
        return Ok(Vec::new());
    };
    if oldest.labels.is_empty() {
        return Ok(Vec::new());
    }
    let ours: Vec<Label> = Label::ALL.into_iter().filter(|label| oldest.has(*label)).collect();
    let is_needed = stage_of(past, oldest).is_some();
    if is_needed || ours.len() < oldest.labels.len() {
        Err(Full::Versions)
    } else {
        Ok(vec![Move::Take(ours, oldest.version)])
    }
}

#[cfg(test)]
#[path = "labels_tests.rs"]
mod tests;
