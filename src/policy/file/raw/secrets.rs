//! `[secrets.NAME]` and `[[bundles]]` as they are written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::words::{ExpiredWord, NameWord, StageWord};
use super::{At, RawRotate, Span};

/// One variable and where its value comes from: an item of a store, a `ciphertext`, or a `template`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table, such as `{}` or `{ item = \"...\" }`")]
pub(in crate::policy) struct RawSecret {
    /// The store. Default: the policy's `store`.
    pub(in crate::policy) store: Option<At<String>>,
    /// The item's name. Default: the variable's name, as the store's `names` writes it. Begins with `/` or `arn:`: as it
    /// is; else the store's `prefix` goes before it.
    pub(in crate::policy) item: Option<At<String>>,
    /// A fixed version.
    pub(in crate::policy) version: Option<At<i64>>,
    /// A stage of rotation. Implied to be `current` by `rotate`.
    pub(in crate::policy) stage: Option<At<StageWord>>,
    /// A JSON pointer (RFC 6901) into a value that is JSON.
    pub(in crate::policy) field: Option<At<String>>,
    /// A ciphertext made by `aws kms encrypt`, base64; `store` must be of type kms.
    pub(in crate::policy) ciphertext: Option<At<String>>,
    /// The encryption context that `ciphertext` was made with, exactly.
    pub(in crate::policy) context: Option<At<BTreeMap<At<String>, At<String>>>>,
    /// Text with other secrets put in: `{NAME}`, `{NAME:url}`, `{NAME:json}`, `{NAME:base64}`; `{{` is a brace.
    pub(in crate::policy) template: Option<At<String>>,
    /// Whether `run` injects it without being asked. Default: true.
    pub(in crate::policy) inject: Option<At<bool>>,
    /// Whether its absence stops the child. Excuses absence only. Default: true.
    pub(in crate::policy) required: Option<At<bool>>,
    /// The name changes how programs load or shells start, and that is meant. Default: false.
    pub(in crate::policy) reserved: Option<At<bool>>,
    /// ssm: a parameter of type `String`, stored unencrypted, is accepted. Default: false.
    pub(in crate::policy) plain: Option<At<bool>>,
    /// Older than this, the value is due.
    pub(in crate::policy) max_age: Option<At<String>>,
    /// What `run` does with a value older than `max_age`. Default: warn.
    pub(in crate::policy) on_expired: Option<At<ExpiredWord>>,
    /// How the value is rotated.
    pub(in crate::policy) rotate: Option<Box<At<RawRotate>>>,
}

impl RawSecret {
    /// The fields that only an item of a store has, and where they stand.
    pub(in crate::policy) fn fields_of_items(&self) -> [(&'static str, Option<Span>); 7] {
        [
            ("item", self.item.as_ref().map(|at| at.span)),
            ("version", self.version.as_ref().map(|at| at.span)),
            ("stage", self.stage.as_ref().map(|at| at.span)),
            ("plain", self.plain.as_ref().map(|at| at.span)),
            ("max_age", self.max_age.as_ref().map(|at| at.span)),
            ("on_expired", self.on_expired.as_ref().map(|at| at.span)),
            ("rotate", self.rotate.as_ref().map(|at| at.span)),
        ]
    }
}

/// Every item under a path, as variables.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(in crate::policy) struct RawBundle {
    /// The store. Default: the policy's `store`.
    pub(in crate::policy) store: Option<At<String>>,
    /// The path: whole segments, below the store's `prefix` unless it begins with `/`. Default: all below the prefix.
    pub(in crate::policy) path: Option<At<String>>,
    /// Also deeper levels. Default: false.
    pub(in crate::policy) recursive: Option<At<bool>>,
    /// How an item's name becomes a variable's. Default: UPPER_SNAKE.
    pub(in crate::policy) names: Option<At<NameWord>>,
    /// Fewer items than this is an error. Default: 1.
    #[schemars(range(min = 0))]
    pub(in crate::policy) at_least: Option<At<i64>>,
    /// ssm: parameters of type `String`, stored unencrypted, are accepted. Default: false.
    pub(in crate::policy) plain: Option<At<bool>>,
}
