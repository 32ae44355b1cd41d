//! Who: the audiences of grants and the programs that rotate, as types that can be compared. Pure.

use std::collections::BTreeSet;

use super::quoted;
use crate::name::VariableName;
use crate::policy::model::{Audience, GrantRule, Principal};
use crate::policy::pattern::Pattern;

/// Whoever can get something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    /// Whom a grant names.
    Granted(Named),
    /// PostgreSQL, which is asked with it to take a new value of `of`.
    Postgres { of: VariableName },
    /// A program that rotates `of`.
    Program { path: String, of: VariableName },
}

/// Whom a grant names: every field present must match, by any of its entries. An absent one is `None`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Named {
    users: Option<BTreeSet<Principal>>,
    groups: Option<BTreeSet<Principal>>,
    commands: Option<BTreeSet<Pattern>>,
    sha256: Option<BTreeSet<String>>,
    /// Command and digest may be claims. Where neither is asked for, nothing is left to claim, so that this is true.
    claimed: bool,
}

/// More single audiences than this are not looked at one by one.
const MOST: usize = 4096;

impl Who {
    pub(super) fn of(rule: &GrantRule) -> Self {
        let Audience::Matching(fields) = &rule.to else {
            return Self::Granted(Named { claimed: true, ..Named::default() });
        };
        let set = |list: &Option<Vec<Principal>>| list.as_ref().map(|list| list.iter().cloned().collect());
        Self::Granted(Named {
            users: set(&fields.users),
            groups: set(&fields.groups),
            commands: fields.commands.as_ref().map(|list| list.iter().cloned().collect()),
            sha256: fields.sha256.as_ref().map(|list| list.iter().cloned().collect()),
            claimed: rule.claimed || (fields.commands.is_none() && fields.sha256.is_none()),
        })
    }

    /// Whether everybody whom `other` means is meant.
    pub(super) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Granted(one), Self::Granted(other)) => one.covers(other),
            (one, other) => one == other,
        }
    }

    /// Those of it that none of `others` covers: itself if that is all of it, else one by one.
    pub(super) fn beyond(&self, others: &[&Self]) -> Vec<Self> {
        let is_covered = |one: &Self| others.iter().any(|other| other.covers(one));
        if is_covered(self) {
            return Vec::new();
        }
        let Self::Granted(named) = self else { return vec![self.clone()] };
        let Some(singles) = named.singles() else { return vec![self.clone()] };
        let count = singles.len();
        let beyond: Vec<Self> = singles.into_iter().map(Self::Granted).filter(|one| !is_covered(one)).collect();
        if beyond.len() == count { vec![self.clone()] } else { beyond }
    }

    pub(super) fn words(&self) -> String {
        match self {
            Self::Granted(named) => named.words(),
            Self::Postgres { of } => format!("PostgreSQL, where {} is rotated,", quoted(of.as_str())),
            Self::Program { path, of } => {
                format!("the program {}, which rotates {},", quoted(path), quoted(of.as_str()))
            }
        }
    }
}

impl Named {
    fn covers(&self, other: &Self) -> bool {
        // A pattern that matches another's text matches all that the other matches: its `*` takes in the other's, too.
        let command = |one: &Pattern, other: &Pattern| one.matches(other.as_str());
        (self.claimed || !other.claimed)
            && field_covers(&self.users, &other.users, PartialEq::eq)
            && field_covers(&self.groups, &other.groups, PartialEq::eq)
            && field_covers(&self.commands, &other.commands, command)
            && field_covers(&self.sha256, &other.sha256, PartialEq::eq)
    }

    /// The same with one entry in each field; `None`, if they are too many.
    fn singles(&self) -> Option<Vec<Self>> {
        let counts = [
            self.users.as_ref().map_or(1, BTreeSet::len),
            self.groups.as_ref().map_or(1, BTreeSet::len),
            self.commands.as_ref().map_or(1, BTreeSet::len),
            self.sha256.as_ref().map_or(1, BTreeSet::len),
        ];
        counts.into_iter().try_fold(1_usize, usize::checked_mul).filter(|count| *count <= MOST)?;
        let mut singles = Vec::new();
        for users in split(self.users.as_ref()) {
            for groups in split(self.groups.as_ref()) {
                for commands in split(self.commands.as_ref()) {
                    for sha256 in split(self.sha256.as_ref()) {
                        let (users, groups, commands) = (users.clone(), groups.clone(), commands.clone());
                        singles.push(Self { users, groups, commands, sha256, claimed: self.claimed });
                    }
                }
            }
        }
        Some(singles)
    }

    fn words(&self) -> String {
        let entries = |word: &str, entries: Option<Vec<String>>| {
            entries.map(|entries| format!("{word} {}", entries.join(" or ")))
        };
        let principals = |set: &Option<BTreeSet<Principal>>| {
            set.as_ref().map(|set| {
                let one = |one: &Principal| match one {
                    Principal::Id(number) => number.to_string(),
                    Principal::Name(name) => quoted(name),
                };
                set.iter().map(one).collect()
            })
        };
        let commands = self.commands.as_ref().map(|set| set.iter().map(|one| quoted(one.as_str())).collect());
        let digests = self.sha256.as_ref().map(|set| set.iter().map(|one| quoted(one)).collect());
        let parts = [
            entries("user", principals(&self.users)),
            entries("group", principals(&self.groups)),
            entries("command", commands),
            entries("digest", digests),
        ];
        let mut text = parts.into_iter().flatten().collect::<Vec<_>>().join(" with ");
        if text.is_empty() {
            text.push_str("anyone");
        }
        if self.claimed && (self.commands.is_some() || self.sha256.is_some()) {
            text.push_str(" (through the agent a claim is enough)");
        }
        text
    }
}

fn field_covers<T>(one: &Option<BTreeSet<T>>, other: &Option<BTreeSet<T>>, covers: impl Fn(&T, &T) -> bool) -> bool {
    match (one, other) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(one), Some(other)) => other.iter().all(|entry| one.iter().any(|wider| covers(wider, entry))),
    }
}

fn split<T: Clone + Ord>(set: Option<&BTreeSet<T>>) -> Vec<Option<BTreeSet<T>>> {
    match set {
        None => vec![None],
        Some(set) => set.iter().map(|entry| Some(BTreeSet::from([entry.clone()]))).collect(),
    }
}
