//! Errors of policy and host files: what is wrong, the line it stands on, a caret under it, and what was meant.
//!
//! Checks only note a message and a span ([`Findings`]); lines, columns and carets are computed once something is wrong, so
//! that a good policy pays nothing for them. A policy holds no secret, so its lines may be cited; still, where somebody wrote
//! a value into `[secrets]` by mistake, the line is cut before it, and a line with a private key is not shown at all.

use std::fmt;
use std::path::{Path, PathBuf};

use super::raw::{At, Span};
use crate::checked_file::FileError;
use crate::error::{Cause, Class, suggest};
use crate::name::{escape, is_unprintable, show};
use crate::policy::trust::TrustError;

/// One or more things that are wrong with a policy or host file, in the order of the text.
#[derive(Debug)]
pub struct PolicyError {
    problems: Vec<Problem>,
    absent: bool,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, if it stands somewhere.
    pub place: Option<Place>,
    /// What.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Where something stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The line itself, safe to print, with a caret line below.
    pub cited: String,
}

impl PolicyError {
    /// A problem that stands on no line.
    #[must_use]
    pub fn plain(message: impl Into<String>, hint: Option<String>) -> Self {
        Self { problems: vec![Problem { place: None, message: message.into(), hint }], absent: false }
    }

    /// A file of `policy` that may not be used.
    #[must_use]
    pub fn of_trust(error: &TrustError, policy: &Path) -> Self {
        Self::plain(error.to_string(), error.hint_for(policy))
    }

    /// The same for a command that calls the option `--env` otherwise, in its hints.
    #[must_use]
    pub fn with_option(mut self, option: &str) -> Self {
        for hint in self.problems.iter_mut().filter_map(|problem| problem.hint.as_mut()) {
            if let Some(rest) = hint.strip_prefix("--env ") {
                *hint = format!("{option} {rest}");
            }
        }
        self
    }

    /// Everything that is wrong; never empty.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The problems of several files as one error; `None` if there are none.
    #[must_use]
    pub fn join(errors: Vec<Self>) -> Option<Self> {
        let absent = errors.iter().any(|error| error.absent);
        let problems: Vec<_> = errors.into_iter().flat_map(|error| error.problems).collect();
        (!problems.is_empty()).then_some(Self { problems, absent })
    }

    /// Only the first problem: what `run` says. `policy lint` shows them all.
    #[must_use]
    pub fn first_only(mut self) -> Self {
        self.problems.truncate(1);
        self
    }

    /// Whether the file simply is not there.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.absent
    }
}

impl From<TrustError> for PolicyError {
    fn from(error: TrustError) -> Self {
        Self::plain(error.to_string(), error.hint())
    }
}

impl From<FileError> for PolicyError {
    fn from(error: FileError) -> Self {
        Self { absent: error.is_absent(), ..Self::plain(error.to_string(), error.hint()) }
    }
}

impl fmt::Display for PolicyError {
    /// Every problem with its hint, but the last one's hint, which is [`Cause::hint`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
            if let Some(hint) = &problem.hint
                && index + 1 < self.problems.len()
            {
                write!(f, "\nhint: {hint}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(place) = &self.place else { return f.write_str(&self.message) };
        write!(f, "{}:{}:{}: {}\n{}", show(&place.path), place.line, place.column, self.message, place.cited)
    }
}

impl Cause for PolicyError {
    fn class(&self) -> Class {
        Class::Policy
    }

    fn hint(&self) -> Option<String> {
        self.problems.last().and_then(|problem| problem.hint.clone())
    }
}

/// The text of one file.
#[derive(Debug)]
pub(in crate::policy) struct SourceText {
    pub(in crate::policy) path: PathBuf,
    pub(in crate::policy) text: String,
}

/// What checks have found so far, and in which file they are looking.
#[derive(Debug, Default)]
pub(in crate::policy) struct Findings {
    /// The index of the file that is being checked; the first is the policy itself.
    pub(in crate::policy) file: usize,
    found: Vec<Finding>,
}

/// One thing found, not yet rendered.
#[derive(Debug)]
pub(in crate::policy) struct Finding {
    file: usize,
    span: Span,
    message: String,
    suggestion: Option<String>,
    hint: Option<String>,
    cut: Cut,
}

/// What of the cited line may be a value that has no business there, and is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// A value of `[secrets]` that is no table.
    Plain,
    /// Every value of `[secrets]`: the text is broken, so nobody knows what it means.
    Values,
    /// All that follows the span.
    AfterSpan,
    /// The span itself and all that follows.
    FromSpan,
}

impl Findings {
    /// Notes that `at` is wrong.
    pub(in crate::policy) fn wrong<T>(&mut self, at: &At<T>, message: impl Into<String>) -> &mut Finding {
        self.wrong_at(at.span, message)
    }

    /// Notes that what stands at `span` is wrong.
    pub(in crate::policy) fn wrong_at(&mut self, span: Span, message: impl Into<String>) -> &mut Finding {
        let finding =
            Finding { file: self.file, span, message: message.into(), suggestion: None, hint: None, cut: Cut::Plain };
        let index = self.found.len();
        self.found.push(finding);
        #[expect(clippy::indexing_slicing, reason = "pushed in the line above")]
        &mut self.found[index]
    }

    pub(in crate::policy) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// How many there are.
    pub(in crate::policy) fn len(&self) -> usize {
        self.found.len()
    }

    /// Turns what was found into an error, in the order of files and lines. Said twice of one place counts once.
    pub(in crate::policy) fn into_error(mut self, sources: &[SourceText]) -> PolicyError {
        self.found.sort_by_key(|finding| (finding.file, finding.span.start));
        let mut problems: Vec<_> = self.found.iter().map(|finding| finding.render(sources)).collect();
        problems.dedup();
        PolicyError { problems, absent: false }
    }
}

impl Finding {
    /// Adds "did you mean", if one of `candidates` is near `word`.
    pub(in crate::policy) fn did_you_mean<'a>(
        &mut self,
        word: &str,
        candidates: impl IntoIterator<Item = &'a str>,
    ) -> &mut Self {
        self.suggestion = suggest(word, candidates).map(|near| format!("did you mean `{}`?", escape(near)));
        self
    }

    /// Adds what to do about it.
    pub(in crate::policy) fn hint(&mut self, hint: impl Into<String>) -> &mut Self {
        self.hint = Some(hint.into());
        self
    }

    pub(in crate::policy) fn has_suggestion(&self) -> bool {
        self.suggestion.is_some()
    }

    /// What follows on the line may be a value that has no business there.
    pub(in crate::policy) fn cut_after_span(&mut self) -> &mut Self {
        self.cut = Cut::AfterSpan;
        self
    }

    /// What stands at the span itself may be such a value.
    pub(in crate::policy) fn cut_from_span(&mut self) -> &mut Self {
        self.cut = Cut::FromSpan;
        self
    }

    /// The text is broken here: no value of a secret is shown, whatever it looks like.
    pub(in crate::policy) fn cut_values(&mut self) -> &mut Self {
        self.cut = Cut::Values;
        self
    }

    fn render(&self, sources: &[SourceText]) -> Problem {
        let place = sources.get(self.file).map(|source| cite(source, self.span, self.cut));
        let hint = match (&self.suggestion, &self.hint) {
            (Some(suggestion), Some(hint)) => Some(format!("{suggestion}\nhint: {hint}")),
            (Some(only), None) | (None, Some(only)) => Some(only.clone()),
            (None, None) => None,
        };
        Problem { place, message: self.message.clone(), hint }
    }
}

/// The line on which `offset` stands, from 1.
pub(in crate::policy) fn line_of(text: &str, offset: u32) -> usize {
    let before = text.as_bytes().get(..offset as usize).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

/// The most characters of a line that are shown, and how many of them stand before the span.
const WINDOW: usize = 100;
const LEAD: usize = 40;

fn cite(source: &SourceText, span: Span, cut: Cut) -> Place {
    let text = source.text.as_str();
    let start = floor_boundary(text, span.start as usize);
    let end = floor_boundary(text, (span.end as usize).max(start));
    let (before, after) = text.split_at(start);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line_end = after.find('\n').map_or(text.len(), |at| start + at);
    let line = text.get(line_start..line_end).unwrap_or_default();
    let line = line.strip_suffix('\r').unwrap_or(line);
    let number = line_of(text, u32::try_from(start).unwrap_or(u32::MAX));
    let from = (start - line_start).min(line.len());
    let to = (end - line_start).clamp(from, line.len());

    let column = 1 + line.get(..from).unwrap_or_default().chars().count();
    let cited = if holds_a_key(line) {
        format!("{number:>5} | (not shown: a private key)")
    } else {
        let value = value_in_secrets(text, line_start, line, cut == Cut::Values);
        let cut = match cut {
            Cut::Plain | Cut::Values => value,
            Cut::AfterSpan => Some(value.unwrap_or(to).min(to)),
            Cut::FromSpan => Some(value.unwrap_or(from).min(from)),
        };
        draw(number, line, from, to, cut)
    };
    Place { path: source.path.clone(), line: number, column, cited }
}

fn draw(number: usize, line: &str, from: usize, to: usize, cut: Option<usize>) -> String {
    let mut shown = Vec::new();
    let (mut caret_from, mut caret_to) = (None, None);
    let mut was_cut = false;
    for (offset, c) in line.char_indices() {
        if offset >= from {
            caret_from.get_or_insert(shown.len());
        }
        if offset >= to {
            caret_to.get_or_insert(shown.len());
        }
        if cut.is_some_and(|cut| offset >= cut) {
            was_cut = true;
            break;
        }
        match c {
            '\t' => shown.extend([' '; 4]),
            c if is_unprintable(c) => shown.extend(c.escape_unicode()),
            c => shown.push(c),
        }
    }
    let mut caret_from = caret_from.unwrap_or(shown.len());
    let mut caret_to = caret_to.unwrap_or(shown.len()).max(caret_from + 1);
    if was_cut {
        // What is not shown is pointed at as a whole.
        if caret_from >= shown.len() {
            (caret_from, caret_to) = (shown.len() + 1, shown.len() + 4);
        }
        shown.extend(" ...".chars());
    }

    let skip = if shown.len() > WINDOW { caret_from.saturating_sub(LEAD) } else { 0 };
    let (lead, tail) = (if skip > 0 { "..." } else { "" }, if shown.len() > skip + WINDOW { "..." } else { "" });
    let window: String = shown.iter().skip(skip).take(WINDOW).collect();
    let caret_end = caret_to.min(skip + WINDOW).max(caret_from + 1);
    let indent = " ".repeat(caret_from - skip + lead.len());
    let carets = "^".repeat(caret_end - caret_from);
    format!("{number:>5} | {lead}{window}{tail}\n      | {indent}{carets}").replace(" \n", "\n")
}

/// Where the value begins on a line `NAME = value` of `[secrets]` whose value is no table: it may be a secret that somebody
/// put there. Also on the lines of a text that spans several.
fn value_in_secrets(text: &str, line_start: usize, line: &str, tables_too: bool) -> Option<usize> {
    let above = text.get(..line_start)?;
    let header = above.lines().rev().map(str::trim_start).find(|line| line.starts_with('['));
    let in_secrets = match header {
        Some(header) => header.trim_start_matches(['[', ' ', '\t']).starts_with("secrets"),
        // Before the first header the tables are written with dots: `secrets.NAME = ...`.
        None => line.trim_start().starts_with("secrets"),
    };
    if !in_secrets || line.trim_start().starts_with('[') {
        return None;
    }
    match line.find('=') {
        Some(at) => {
            let value = line.get(at + 1..)?;
            let known = !tables_too && ["{", "true", "false"].iter().any(|start| value.trim_start().starts_with(start));
            let key = line.get(..at)?.trim();
            let in_one_secret = header.is_some_and(|header| header.contains("secrets."));
            let ours = !tables_too && in_one_secret && super::syntax::is_secret_field(key);
            (!known && !ours).then_some(at + 1)
        }
        None if line.trim().is_empty() || line.trim_start().starts_with(['}', '#']) => None,
        None => Some(0),
    }
}

fn holds_a_key(line: &str) -> bool {
    let upper = line.to_ascii_uppercase();
    upper.contains("AGE-SECRET-KEY-") || upper.contains("PRIVATE KEY") || upper.contains("AGE-PLUGIN-")
}

fn floor_boundary(text: &str, offset: usize) -> usize {
    (0..=offset.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// The path as it stands in messages; for `GrantRule::place`.
pub(in crate::policy) fn place(path: &Path, line: usize) -> String {
    format!("{}:{line}", show(path))
}
