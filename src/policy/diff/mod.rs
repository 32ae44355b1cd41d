//! What changes between two policies, in words: who gains and who loses what, first of all. Pure.
//!
//! Structures are compared, never words: words are made of what was found to differ, each entry quoted, so that no entry can
//! pass for two. Where it cannot be told whether a difference widens something, it counts as if it did.
//!
//! - `access`: who can get which value, by grants, templates, bundles and the programs that rotate; `audience`: who;
//! - `settings`: secrets, stores and rules, field by field; `sinks`: where accesses are written down.

mod access;
mod audience;
mod rotation;
mod settings;
mod side;
mod sinks;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use super::model::Policy;
use crate::name::escape;
use side::Side;

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// Which way.
    pub sign: Sign,
    /// In words.
    pub text: String,
}

/// Which way a difference goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sign {
    /// Somebody can do what he could not, or something that held him is weaker.
    Gain,
    /// Somebody can do no longer what he could, or something holds him that did not.
    Loss,
    /// Neither: something is done otherwise.
    Change,
}

impl Sign {
    /// `+`, `-` or `~`.
    #[must_use]
    pub fn mark(self) -> char {
        match self {
            Self::Gain => '+',
            Self::Loss => '-',
            Self::Change => '~',
        }
    }

    /// The word for it in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Gain => "gain",
            Self::Loss => "loss",
            Self::Change => "change",
        }
    }
}

/// What a file of recipients holds; `None` where it cannot be read.
pub type Held<'h> = &'h dyn Fn(&Path) -> Option<Vec<String>>;

/// All differences, gains first.
#[must_use]
pub fn diff(old: &Policy, new: &Policy, held: Held<'_>) -> Vec<Difference> {
    let (old, new) = Side::both(old, new, held);
    let mut found = Found::default();
    access::compare(&old, &new, &mut found);
    side::compare_readers(&old, &new, &mut found);
    settings::compare(&old, &new, &mut found);
    sinks::compare(&old, &new, &mut found);
    found.0.sort();
    found.0.dedup();
    found.0
}

/// What was found so far.
#[derive(Debug, Default)]
struct Found(Vec<Difference>);

impl Found {
    fn add(&mut self, sign: Sign, text: String) {
        self.0.push(Difference { sign, text });
    }

    /// A setting that both have, with what it was and what it is. `looser` says whether the second is looser than the first.
    fn setting<T: PartialEq + ?Sized>(
        &mut self,
        name: &str,
        (old, new): (&T, &T),
        words: impl Fn(&T) -> String,
        looser: impl Fn(&T, &T) -> bool,
    ) {
        if old == new {
            return;
        }
        let sign = match (looser(old, new), looser(new, old)) {
            (true, _) => Sign::Gain,
            (false, true) => Sign::Loss,
            (false, false) => Sign::Change,
        };
        self.add(sign, format!("{name} was {} and is {}", words(old), words(new)));
    }
}

/// Neither is looser.
fn never<T: ?Sized>(_: &T, _: &T) -> bool {
    false
}

/// Whatever it is now, it is not what it was held to: where something lies, who answers for it.
fn always<T: ?Sized>(_: &T, _: &T) -> bool {
    true
}

/// A pin holds what it names: without it, or with another, something else can stand there.
fn unpinned<T>(old: &Option<T>, _: &Option<T>) -> bool {
    old.is_some()
}

/// A limit of time: none, or a later one.
fn later(old: &Option<Duration>, new: &Option<Duration>) -> bool {
    old.is_some_and(|old| new.is_none_or(|new| new > old))
}

/// A text as one entry, whatever it holds.
fn quoted(text: &str) -> String {
    format!("\"{}\"", escape(&text.replace('\\', "\\\\").replace('"', "\\\"")))
}

fn quoted_or_none(text: &Option<String>) -> String {
    text.as_deref().map_or_else(unset, quoted)
}

fn unset() -> String {
    "not set".to_owned()
}

/// As a policy writes it, with days as the largest unit: months are not the same for everybody.
fn time(time: &Duration) -> String {
    let seconds = time.as_secs();
    let units = [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let small = [(u64::from(time.subsec_millis()), "ms"), (u64::from(time.subsec_nanos() % 1_000_000), "ns")];
    let parts = units.into_iter().chain(small).filter(|(number, _)| *number > 0);
    let parts: Vec<String> = parts.map(|(number, unit)| format!("{number}{unit}")).collect();
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

fn time_or_none(limit: &Option<Duration>) -> String {
    limit.as_ref().map_or_else(unset, time)
}

fn yes_or_no(is: &bool) -> String {
    if *is { "true" } else { "false" }.to_owned()
}

/// The entries of a list, each quoted.
fn list<'t>(entries: impl IntoIterator<Item = &'t str>) -> String {
    let entries: Vec<String> = entries.into_iter().map(quoted).collect();
    format!("[{}]", entries.join(", "))
}
