//! The policy file as it is written: what serde makes of the text, before any check of meaning.
//!
//! Unknown fields are errors everywhere. Nothing here is tagged, flattened or untagged in serde's sense, since those go
//! through a buffer that forgets positions: a table of several kinds has the fields of all of them, and `convert` says
//! which belong together. The comments of the fields become the descriptions of the JSON Schema.

mod at;
mod checkpoints;
mod expected;
mod host;
mod rotation;
mod secrets;
mod stores;
mod words;

use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

pub(in crate::policy) use at::{At, Span};
pub(in crate::policy) use checkpoints::{RawAnchor, RawCheckpoints, RawParameter};
pub(in crate::policy) use expected::{RawExpectation, RawExpectations};
pub(in crate::policy) use host::{RawHost, RawKey, RawTrust};
pub(in crate::policy) use rotation::{RawApply, RawGenerate, RawRotate};
pub(in crate::policy) use secrets::{RawBundle, RawSecret};
pub(in crate::policy) use stores::RawStore;
use words::{AgentWord, AwsRoleWord, CollisionWord, ModeWord, OnChangeWord, OnCrashWord};
pub(in crate::policy) use words::{
    ApplyType, CredentialWord, Format, GenerateType, NameWord, PendingWord, SinkType, StoreType,
};

/// What one service gets in one environment. Holds no secret.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a policy")]
#[schemars(title = "vouchsafe policy")]
pub(in crate::policy) struct RawPolicy {
    /// The version of this format: 1.
    #[schemars(required, with = "i64", range(min = 1, max = 1))]
    pub(in crate::policy) version: Option<At<i64>>,
    /// The environment that the policy speaks for; `--env` must match. A base, which others extend, says `*`.
    #[schemars(required, with = "String")]
    pub(in crate::policy) environment: Option<At<String>>,
    /// The service that the policy speaks for; `--service` must match. Absent: every service of the environment.
    pub(in crate::policy) service: Option<At<String>>,
    /// Counts up with each change, where hosts demand signatures and refuse what is older than their `min_serial`.
    #[schemars(range(min = 0))]
    pub(in crate::policy) serial: Option<At<i64>>,
    /// A base to build on, relative to this file. Entries of its tables count unless this file has them too; its grants,
    /// bundles and sinks are added.
    pub(in crate::policy) extends: Option<At<String>>,
    /// The store of secrets and bundles that name none. With one store, that is the default.
    pub(in crate::policy) store: Option<At<String>>,
    /// Where values live, by name.
    #[serde(default)]
    pub(in crate::policy) stores: BTreeMap<At<String>, RawStore>,
    /// Variables and where their values come from.
    #[serde(default)]
    pub(in crate::policy) secrets: BTreeMap<At<String>, RawSecret>,
    /// Variables whose names the store tells.
    #[serde(default)]
    pub(in crate::policy) bundles: Vec<At<RawBundle>>,
    /// Who may receive which secrets. Grants only add.
    #[serde(default)]
    pub(in crate::policy) grants: Vec<At<RawGrant>>,
    /// What else the child gets and does not get.
    #[serde(default)]
    pub(in crate::policy) child: RawChild,
    /// How the child is run.
    #[serde(default)]
    pub(in crate::policy) run: RawRun,
    /// How long the agent may keep values.
    #[serde(default)]
    pub(in crate::policy) cache: RawCache,
    /// Where accesses are written down.
    #[serde(default)]
    pub(in crate::policy) audit: RawAudit,
}

/// Who may receive which secrets.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(in crate::policy) struct RawGrant {
    /// Names of secrets, and globs over them; `*` is the only wildcard.
    #[schemars(required, with = "Vec<String>", length(min = 1))]
    pub(in crate::policy) secrets: Option<At<Vec<At<String>>>>,
    /// Who: a table in which every field present must match, or `anyone`.
    #[schemars(required, with = "RawTo")]
    pub(in crate::policy) to: Option<At<RawTo>>,
    /// Through the agent, commands and digests are only claims of the caller; `true` accepts them as such.
    pub(in crate::policy) claimed: Option<At<bool>>,
}

/// `to`.
#[derive(Debug)]
pub(in crate::policy) enum RawTo {
    /// A word, which ought to be `anyone`.
    Word(String),
    /// The fields.
    Fields(Box<RawMatch>),
}

/// Who a grant is for: every field present must match, each by any of its entries.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(in crate::policy) struct RawMatch {
    /// Users: names in /etc/passwd, or numbers.
    #[schemars(length(min = 1))]
    pub(in crate::policy) users: Option<At<Vec<At<RawPrincipal>>>>,
    /// Groups: names in /etc/group, or numbers.
    #[schemars(length(min = 1))]
    pub(in crate::policy) groups: Option<At<Vec<At<RawPrincipal>>>>,
    /// Absolute paths of commands, and globs over them; `*` does not cross `/`.
    #[schemars(length(min = 1))]
    pub(in crate::policy) commands: Option<At<Vec<At<String>>>>,
    /// SHA-256 digests of ELF files, 64 hexadecimal digits each.
    #[schemars(length(min = 1))]
    pub(in crate::policy) sha256: Option<At<Vec<At<String>>>>,
}

/// A user or group.
#[derive(Debug, Clone)]
pub(in crate::policy) enum RawPrincipal {
    /// By number.
    Id(i64),
    /// By name.
    Name(String),
}

/// What else the child gets and does not get.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(in crate::policy) struct RawChild {
    /// What passes of the environment: `all` (the default), `none`, or names and globs.
    pub(in crate::policy) inherit: Option<At<RawInherit>>,
    /// Variables set besides the secrets. Public: the policy is no place for a secret.
    pub(in crate::policy) set: Option<At<BTreeMap<At<String>, At<String>>>>,
    /// Whether pointers to an AWS role (`AWS_CONTAINER_*`, `AWS_WEB_IDENTITY_*`, `AWS_PROFILE`, region) pass.
    pub(in crate::policy) aws_role: Option<At<AwsRoleWord>>,
    /// A secret that the inherited environment has too.
    pub(in crate::policy) on_collision: Option<At<CollisionWord>>,
}

/// `inherit`.
#[derive(Debug)]
pub(in crate::policy) enum RawInherit {
    /// A word, which ought to be `all` or `none`.
    Word(String),
    /// Names and globs.
    Names(Vec<At<String>>),
}

/// How the child is run.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(in crate::policy) struct RawRun {
    /// Replace the wrapper by the child, or stay with it.
    pub(in crate::policy) mode: Option<At<ModeWord>>,
    /// Through the agent, or directly. Default: allow.
    pub(in crate::policy) agent: Option<At<AgentWord>>,
    /// For everything before the child starts. Default: 20s.
    pub(in crate::policy) deadline: Option<At<String>>,
    /// Supervising: what a changed secret does. Default: restart.
    pub(in crate::policy) on_change: Option<At<OnChangeWord>>,
    /// Supervising: what a child that fails within 10 s of a change is started with. Default: again.
    pub(in crate::policy) on_crash: Option<At<OnCrashWord>>,
    /// Supervising: between TERM and KILL of a child that is restarted. Default: 10s.
    pub(in crate::policy) grace: Option<At<String>>,
    /// Supervising: how often to look whether a secret changed, at least 100ms. Default: never.
    pub(in crate::policy) watch: Option<At<String>>,
}

/// How long the agent may keep values.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(in crate::policy) struct RawCache {
    /// How long a value counts as fresh. Default: 5m.
    pub(in crate::policy) ttl: Option<At<String>>,
    /// How long past `ttl` a value may be served while its store is down. Default: 0s.
    pub(in crate::policy) max_stale: Option<At<String>>,
}

/// Where accesses are written down.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(in crate::policy) struct RawAudit {
    /// Every one of them must have accepted a record before anything is fetched.
    #[serde(default)]
    pub(in crate::policy) sinks: Vec<At<RawSink>>,
}

/// One place where accesses are written down.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(in crate::policy) struct RawSink {
    /// What kind of place.
    #[schemars(required, with = "SinkType")]
    pub(in crate::policy) r#type: Option<At<SinkType>>,
    /// file: where, relative to this policy file; `{uid}` stands for the caller's uid. syslog, journald: the daemon's socket, an
    /// absolute path. Default: `/dev/log`, `/run/systemd/journal/socket`.
    pub(in crate::policy) path: Option<At<String>>,
    /// file: whether each record is on the disk before the access goes on. Default: true.
    pub(in crate::policy) sync: Option<At<bool>>,
    /// file: the age recipient of the auditor. Every record is sealed then, as `audit init` has begun it, and the seed of an
    /// epoch that has to begin anew goes to him.
    pub(in crate::policy) auditor: Option<At<String>>,
    /// file: signed statements of where the chain stands, which leave the host.
    pub(in crate::policy) checkpoints: Option<At<RawCheckpoints>>,
    /// fd: the number of a descriptor that the wrapper is started with, 3 or above.
    pub(in crate::policy) fd: Option<At<i64>>,
}

impl<'de> Deserialize<'de> for RawTo {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = RawTo;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table or `\"anyone\"`")
            }
            fn visit_str<E>(self, text: &str) -> Result<RawTo, E> {
                Ok(RawTo::Word(text.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawTo, A::Error> {
                Ok(RawTo::Fields(Box::new(RawMatch::deserialize(MapAccessDeserializer::new(map))?)))
            }
        }
        deserializer.deserialize_any(V)
    }
}

impl JsonSchema for RawTo {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RawTo".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let fields = generator.subschema_for::<RawMatch>();
        json_schema!({ "anyOf": [{ "const": "anyone" }, fields] })
    }
}

impl<'de> Deserialize<'de> for RawPrincipal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = RawPrincipal;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name or a number")
            }
            fn visit_i64<E>(self, id: i64) -> Result<RawPrincipal, E> {
                Ok(RawPrincipal::Id(id))
            }
            fn visit_str<E>(self, text: &str) -> Result<RawPrincipal, E> {
                Ok(RawPrincipal::Name(text.to_owned()))
            }
        }
        deserializer.deserialize_any(V)
    }
}

impl JsonSchema for RawPrincipal {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RawPrincipal".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, { "type": "integer", "minimum": 0, "maximum": 4_294_967_294_u32 }] })
    }
}

impl<'de> Deserialize<'de> for RawInherit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = RawInherit;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`\"all\"`, `\"none\"` or a list of names")
            }
            fn visit_str<E>(self, text: &str) -> Result<RawInherit, E> {
                Ok(RawInherit::Word(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<RawInherit, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = seq.next_element()? {
                    names.push(name);
                }
                Ok(RawInherit::Names(names))
            }
        }
        deserializer.deserialize_any(V)
    }
}

impl JsonSchema for RawInherit {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RawInherit".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "enum": ["all", "none"] },
            { "type": "array", "items": { "type": "string" }, "minItems": 1 },
        ] })
    }
}
