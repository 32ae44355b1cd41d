//! What of a record its readers need, borrowed from the line. Unknown members are ignored: docs/spec/audit-record.md, 2.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;

/// A text of a record: anything that somebody could make a name of, so it is escaped before it is shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Deserialize)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::name::escape(&self.0))
    }
}

/// One record.
#[derive(Debug, Deserialize)]
pub struct Record<'a> {
    /// `vouchsafe.audit/1`.
    #[serde(borrow)]
    pub schema: Text<'a>,
    /// `agent`, `file` or `stream`.
    #[serde(borrow)]
    pub assurance: Text<'a>,
    /// RFC 3339, UTC, six digits after the second: as text it sorts by time.
    #[serde(borrow)]
    pub time: Text<'a>,
    /// Ties the records of one command together.
    #[serde(borrow)]
    pub access: Text<'a>,
    /// What happened.
    #[serde(borrow)]
    pub event: Text<'a>,
    /// How it ended.
    #[serde(borrow)]
    pub outcome: Option<Text<'a>>,
    /// The environment.
    #[serde(borrow)]
    pub environment: Option<Text<'a>>,
    /// The service.
    #[serde(borrow)]
    pub service: Option<Text<'a>>,
    /// Who.
    #[serde(borrow)]
    pub actor: Option<Actor<'a>>,
    /// The program.
    #[serde(borrow)]
    pub command: Option<Command<'a>>,
    /// Why, or what of: a text of ours.
    #[serde(borrow)]
    pub reason: Option<Text<'a>>,
    /// Which secrets, of all parts.
    #[serde(borrow, default)]
    pub secrets: Vec<Secret<'a>>,
    /// The chain.
    #[serde(borrow)]
    pub stream: Text<'a>,
    /// The number of the record that this line is a part of.
    pub record: Option<u64>,
    /// Which part of it.
    pub part: Option<u64>,
    /// Of how many.
    pub parts: Option<u64>,
    /// Of `audit.quarantined`.
    #[serde(borrow)]
    pub quarantined: Option<Quarantined<'a>>,
    /// Of `audit.sealing_begun`.
    #[serde(borrow)]
    pub epoch: Option<Epoch<'a>>,
}

/// Bytes that were no record.
#[derive(Debug, Deserialize)]
pub struct Quarantined<'a> {
    /// How many.
    pub length: u64,
    /// Their SHA-256.
    #[serde(borrow)]
    pub sha256: Cow<'a, str>,
}

/// Seals that begin.
#[derive(Debug, Deserialize)]
pub struct Epoch<'a> {
    /// What their keys are called.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
}

/// Who acted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Deserialize)]
pub struct Actor<'a> {
    /// Real uid.
    pub uid: u32,
    /// Its name.
    #[serde(borrow)]
    pub user: Option<Text<'a>>,
    /// Process.
    pub pid: u32,
    /// The host's name.
    #[serde(borrow, default)]
    pub host: Text<'a>,
    /// The container.
    #[serde(borrow)]
    pub container_id: Option<Text<'a>>,
    /// The start of the kernel.
    #[serde(borrow)]
    pub boot_id: Option<Text<'a>>,
    /// Where `pid` counts.
    pub pid_namespace: Option<u64>,
    /// When the process was started.
    pub start_ticks: Option<u64>,
}

/// The program.
#[derive(Debug, Clone, Deserialize)]
pub struct Command<'a> {
    /// Its path.
    #[serde(borrow)]
    pub path: Text<'a>,
}

/// One entry of `secrets`: docs/spec/audit-record.md, section 4.
#[derive(Debug, Clone, Deserialize)]
pub struct Secret<'a> {
    /// The variable.
    #[serde(borrow)]
    pub name: Option<Text<'a>>,
    /// The store.
    #[serde(borrow)]
    pub store: Option<Text<'a>>,
    /// The item.
    #[serde(borrow)]
    pub item: Option<Text<'a>>,
    /// The path of a bundle.
    #[serde(borrow)]
    pub bundle: Option<Text<'a>>,
    /// What a template is made of.
    #[serde(borrow, default)]
    pub template: Vec<Text<'a>>,
    /// `false`: fetched, and not given to the child itself.
    pub inject: Option<bool>,
    /// The version.
    pub version: Option<u64>,
    /// The stage.
    #[serde(borrow)]
    pub stage: Option<Text<'a>>,
}

impl<'a> Record<'a> {
    /// A line as a record, if it is one.
    #[must_use]
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let record: Self = serde_json::from_slice(line).ok()?;
        record.schema.starts_with("vouchsafe.audit/").then_some(record)
    }

    /// Whether it says that this happened.
    #[must_use]
    pub fn is(&self, event: crate::audit::Event) -> bool {
        *self.event == *event.word()
    }

    /// Whether it ended well.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.outcome.as_deref() == Some(crate::audit::Outcome::Succeeded.word())
    }

    /// Whether an entry of `secrets` reached the child, by itself or inside a template. What was fetched and then yielded to
    /// the parent environment did not.
    #[must_use]
    pub fn reached(&self, secret: &Secret<'_>) -> bool {
        let is_inside = || {
            let name = secret.name.as_deref();
            let given = self.secrets.iter().filter(|one| one.inject != Some(false));
            given.flat_map(|one| &one.template).any(|part| Some(&**part) == name)
        };
        secret.inject != Some(false) || is_inside()
    }
}
