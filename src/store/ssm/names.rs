//! Names, selectors, batches, sizes and pages of Parameter Store. Pure.
//!
//! Rules are those of the Systems Manager API reference, `PutParameter` (Name, Value, Tier), `GetParameters` (at most 10
//! names) and `LabelParameterVersion` (selectors), and of the user guide, "Requirements and constraints for parameter
//! names".

use std::collections::HashSet;

use crate::name::ItemName;
use crate::policy::model::Stage;
use crate::store::aws::error::Problem;

/// Names in one `GetParameters`.
pub const BATCH: usize = 10;
/// Bytes of a value in the standard tier.
pub const STANDARD: usize = 4096;
/// Bytes of a value in the advanced tier.
pub const ADVANCED: usize = 8192;
/// Levels of a name.
const LEVELS: usize = 15;
/// Bytes of a name, counted with the ARN before it.
const WITH_ARN: usize = 1011;
/// The level below which vouchsafe keeps what is its own.
const OWN: &str = ".vouchsafe";
/// Pages of one listing: 100,000 items.
const MAX_PAGES: usize = 10_000;

/// Which version of a parameter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Selector {
    /// The newest.
    Newest,
    /// By number.
    Version(u64),
    /// By the label of a stage.
    Stage(Stage),
}

/// A parameter and which of its versions: what two bindings that want the same have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// The name, or its ARN.
    pub name: String,
    /// The version.
    pub selector: Selector,
}

impl Key {
    /// A fixed version goes before a stage.
    #[must_use]
    pub fn new(item: &ItemName, version: Option<u64>, stage: Option<Stage>) -> Self {
        let selector = match (version, stage) {
            (Some(number), _) => Selector::Version(number),
            (None, Some(stage)) => Selector::Stage(stage),
            (None, None) => Selector::Newest,
        };
        Self { name: item.to_string(), selector }
    }

    /// As the API takes it.
    #[must_use]
    pub fn request(&self) -> String {
        format!("{}{}", self.name, self.selector.suffix())
    }

    /// Whether it is asked for by its ARN.
    #[must_use]
    pub fn is_arn(&self) -> bool {
        self.name.starts_with("arn:")
    }

    /// Whether a parameter of a reply is the one that was asked for. AWS sends the bare name, and the selector as it was
    /// asked, with its colon; an emulator may send none. Only the number can be checked then; that a batch holds each name
    /// once makes it certain all the same.
    #[must_use]
    pub fn is_answered_by(&self, name: Option<&str>, arn: Option<&str>, selector: Option<&str>, version: i64) -> bool {
        let is_name = name == Some(&self.name) || (self.is_arn() && arn == Some(&self.name));
        let asked = self.selector.suffix();
        let is_selector = match selector {
            Some(sent) => sent.trim_start_matches(':') == asked.trim_start_matches(':'),
            None => true,
        };
        let is_version = match self.selector {
            Selector::Version(number) => u64::try_from(version) == Ok(number),
            Selector::Newest | Selector::Stage(_) => true,
        };
        is_name && is_selector && is_version
    }
}

/// The label of a stage. Labels may not begin with `aws` or `ssm` (LabelParameterVersion).
#[must_use]
pub fn label(stage: Stage) -> &'static str {
    match stage {
        Stage::Current => "vouchsafe-current",
        Stage::Pending => "vouchsafe-pending",
        Stage::Previous => "vouchsafe-previous",
    }
}

/// The parameter where an unproven version of another one lies, for readers that know no labels.
#[must_use]
pub fn apart(name: &str) -> String {
    format!("{name}.pending")
}

/// The parameter that says who rotates what lies below a prefix. Names with levels begin with `/` (PutParameter, Name).
#[must_use]
pub fn lock_of(prefix: &str) -> String {
    let slash = if prefix.starts_with('/') { "" } else { "/" };
    let end = if prefix.is_empty() || prefix.ends_with('/') { "" } else { "/" };
    format!("{slash}{prefix}{end}{OWN}/rotation")
}

/// Whether a parameter is one of vouchsafe's own, and no item.
#[must_use]
pub fn is_own(name: &str) -> bool {
    name.split('/').any(|segment| segment == OWN)
}

/// Deals keys out into batches of ten. Two selectors of one name never share a batch, so that a reply without selectors
/// still says which is which.
#[must_use]
pub fn batches(keys: impl IntoIterator<Item = Key>) -> Vec<Vec<Key>> {
    let mut seen = HashSet::new();
    let mut batches: Vec<Vec<Key>> = Vec::new();
    for key in keys {
        if !seen.insert(key.clone()) {
            continue;
        }
        let has_room = |batch: &&mut Vec<Key>| batch.len() < BATCH && !batch.iter().any(|one| one.name == key.name);
        match batches.iter_mut().find(has_room) {
            Some(batch) => batch.push(key),
            None => batches.push(vec![key]),
        }
    }
    batches
}

/// Whether a parameter of that name can be written. `region` counts, since the ARN does.
///
/// # Errors
/// The rule that it breaks.
pub fn check_name(name: &str, region: &str) -> Result<(), &'static str> {
    let arn = "arn:aws:ssm::111122223333:parameter/".len() + region.len();
    let first = name.trim_start_matches('/').split('/').next().unwrap_or_default().to_ascii_lowercase();
    if name.starts_with("arn:") {
        Err("by its ARN a parameter is only read")
    } else if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/.-_".contains(&byte)) {
        Err("letters, digits, `.`, `-`, `_` and `/`")
    } else if name.contains("//") || name.ends_with('/') {
        Err("a level of it is empty")
    } else if name.contains('/') && !name.starts_with('/') {
        Err("with levels it begins with `/`")
    } else if first.starts_with("aws") || first.starts_with("ssm") {
        Err("it may not begin with `aws` or `ssm`")
    } else if name.split('/').filter(|level| !level.is_empty()).count() > LEVELS {
        Err("at most 15 levels")
    } else if arn + name.trim_start_matches('/').len() > WITH_ARN {
        Err("at most 1011 bytes with its ARN")
    } else {
        Ok(())
    }
}

/// Whether a value can be written, as text. Never says how long it is.
///
/// # Errors
/// The rule that it breaks.
pub fn check_value(value: &[u8]) -> Result<&str, &'static str> {
    let text = std::str::from_utf8(value).map_err(|_| "it is not text (UTF-8)")?;
    if text.is_empty() {
        Err("it is empty")
    } else if text.contains("{{") {
        Err("`{{` in a value is taken for a reference")
    } else if text.len() > ADVANCED {
        Err("at most 8192 bytes")
    } else {
        Ok(text)
    }
}

/// The pages of a listing: where it goes on, and a guard against one that never ends.
#[derive(Debug, Default)]
pub struct Pages {
    seen: HashSet<String>,
}

impl Pages {
    /// The token of the next page. A page may be empty and still have one.
    ///
    /// # Errors
    /// The token came before, or there are more pages than parameters can be.
    pub fn next(&mut self, token: Option<String>) -> Result<Option<String>, Problem> {
        let Some(token) = token.filter(|token| !token.is_empty()) else { return Ok(None) };
        if !self.seen.insert(token.clone()) {
            return Err(Problem::BadAnswer("its pages go round in a circle"));
        }
        if self.seen.len() >= MAX_PAGES {
            return Err(Problem::BadAnswer("it has more pages than there can be"));
        }
        Ok(Some(token))
    }
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
