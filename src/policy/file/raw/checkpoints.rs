//! `[audit.sinks.checkpoints]` as it is written.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::At;
use super::words::{AnchorType, CredentialWord};

/// When a checkpoint is made, and where it goes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(in crate::policy) struct RawCheckpoints {
    /// After so many records. Default: 1000.
    pub(in crate::policy) every: Option<At<i64>>,
    /// Or so long after the last one, if there is a record since. Default: 1m.
    pub(in crate::policy) interval: Option<At<String>>,
    /// Where to: `file:PATH`, `fd:NUMBER`, `syslog`, `syslog:SOCKET`, `command:PATH`, or the table of a parameter.
    #[schemars(required, with = "Vec<RawAnchor>", length(min = 1))]
    pub(in crate::policy) to: Option<At<Vec<At<RawAnchor>>>>,
}

/// One place that checkpoints go to.
#[derive(Debug)]
pub(in crate::policy) enum RawAnchor {
    /// `kind:place`.
    Word(String),
    /// What needs more to be said.
    Table(Box<RawParameter>),
}

/// A parameter of AWS Systems Manager, overwritten by each checkpoint.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(in crate::policy) struct RawParameter {
    /// What kind of place.
    #[schemars(required, with = "AnchorType")]
    pub(in crate::policy) r#type: Option<At<AnchorType>>,
    /// Its name, from `/` on; `{host}` stands for the name of the host, `{uid}` for the uid of whoever writes the log.
    #[schemars(required, with = "String")]
    pub(in crate::policy) name: Option<At<String>>,
    /// The AWS region, such as `eu-west-1`.
    pub(in crate::policy) region: Option<At<String>>,
    /// Another endpoint; `http` only for a loopback address.
    pub(in crate::policy) endpoint: Option<At<String>>,
    /// A profile of the shared AWS configuration.
    pub(in crate::policy) profile: Option<At<String>>,
    /// A role to assume.
    pub(in crate::policy) role_arn: Option<At<String>>,
    /// The account (12 digits) that it must be in.
    pub(in crate::policy) account: Option<At<String>>,
    /// The one source that credentials may come from.
    pub(in crate::policy) credential_source: Option<At<CredentialWord>>,
}

impl<'de> Deserialize<'de> for RawAnchor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = RawAnchor;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word such as `\"syslog\"`, or a table")
            }
            fn visit_str<E>(self, text: &str) -> Result<RawAnchor, E> {
                Ok(RawAnchor::Word(text.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawAnchor, A::Error> {
                Ok(RawAnchor::Table(Box::new(RawParameter::deserialize(MapAccessDeserializer::new(map))?)))
            }
        }
        deserializer.deserialize_any(V)
    }
}

impl JsonSchema for RawAnchor {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RawAnchor".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<RawParameter>();
        json_schema!({ "anyOf": [{ "type": "string" }, table] })
    }
}
