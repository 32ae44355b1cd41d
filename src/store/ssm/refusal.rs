//! Why a parameter is not used, not written, or not rotated, whatever AWS says.

use std::fmt;

use super::labels::Label;
use crate::error::{Cause, Class};
use crate::name::escape;
use crate::store::aws::error::AwsError;

/// Why a parameter is not used, or not written. Holds names and numbers, never content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Readers go by labels, and the newest version is not current: no place for readers that know none.
    ByLabel(String),
    /// After the write its type was another one.
    Downgraded(String),
    /// It exists with type `String` or `StringList`: writing would leave old versions readable, or downgrade the new one.
    ExistsPlain(String),
    /// A version was written by something that knows no stages, and is newer than all that have one.
    Foreign {
        /// The parameter.
        name: String,
        /// The version.
        number: u64,
        /// The current one.
        current: u64,
    },
    /// The parameter for unproven versions holds one that no rotation wrote.
    ForeignApart(String, u64),
    /// The name is not one that Parameter Store takes.
    Name(String, &'static str),
    /// It has versions with stages, and none is current.
    NoneIsCurrent(String),
    /// It was written, and could not be made current.
    NotCurrent(String, u64, Box<AwsError>),
    /// It is stored unencrypted, and the policy does not say `plain`.
    Plain(String),
    /// The right to rotate has ended, or was never taken.
    RightEnded,
    /// One of its versions is pending.
    Rotating(String, u64),
    /// The value is not one that Parameter Store takes.
    Value(String, &'static str),
}

impl Refusal {
    /// Whether something was written all the same.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        matches!(self, Self::Downgraded(_) | Self::NotCurrent(..))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByLabel(name) => write!(
                f,
                "`{}` has stages by label and its newest version is not the current one, which `pending = \"separate\"` needs",
                escape(name)
            ),
            Self::Downgraded(name) => write!(f, "`{}` was written, but is not a SecureString now", escape(name)),
            Self::ExistsPlain(name) => {
                write!(f, "`{}` exists as a parameter of type String; nothing was written", escape(name))
            }
            Self::Foreign { name, number, current } => write!(
                f,
                "version {number} of `{}` has no stage, though version {current}, which is current, is older: something \
                 else wrote it, or a `set` was cut off",
                escape(name)
            ),
            Self::ForeignApart(name, number) => {
                write!(f, "version {number} of `{}` was not written by a rotation", escape(name))
            }
            Self::Name(name, rule) => write!(f, "Parameter Store does not take the name `{}`: {rule}", escape(name)),
            Self::NoneIsCurrent(name) => {
                write!(f, "`{}` has versions with stages, and none of them is current", escape(name))
            }
            Self::NotCurrent(name, number, error) => {
                write!(f, "version {number} of `{}` was written, but could not be made current: {error}", escape(name))
            }
            Self::Plain(name) => {
                write!(f, "`{}` is a parameter of type String, stored without encryption", escape(name))
            }
            Self::RightEnded => write!(f, "the right to rotate has ended, so nothing more was written"),
            Self::Rotating(name, number) => {
                write!(f, "`{}` is being rotated, version {number} is pending; nothing was written", escape(name))
            }
            Self::Value(name, rule) => {
                write!(f, "Parameter Store does not take the value for `{}`: {rule}", escape(name))
            }
        }
    }
}

impl Cause for Refusal {
    fn class(&self) -> Class {
        match self {
            Self::Name(..) => Class::Policy,
            Self::RightEnded | Self::Rotating(..) => Class::Busy,
            Self::NotCurrent(_, _, error) => error.class(),
            Self::ByLabel(_)
            | Self::Downgraded(_)
            | Self::ExistsPlain(_)
            | Self::Foreign { .. }
            | Self::ForeignApart(..)
            | Self::NoneIsCurrent(_)
            | Self::Plain(_)
            | Self::Value(..) => Class::Store,
        }
    }

    fn is_unsettled(&self) -> bool {
        Self::is_unsettled(self)
    }

    fn hint(&self) -> Option<String> {
        let to_label = |name: &str, number: &str, label: Label, why: &str| {
            let (name, label) = (escape(name), label.word());
            format!("aws ssm label-parameter-version --name {name} --parameter-version {number} --labels {label}{why}")
        };
        match self {
            Self::ByLabel(_) => Some(
                "end the rotation under the setting that it began with: vouchsafe rotate NAME --resume   # or --rollback, and then: vouchsafe set NAME"
                    .into(),
            ),
            Self::Downgraded(_) => {
                Some("somebody else writes it too; rotate the value, it was readable without its key".into())
            }
            Self::ExistsPlain(_) => {
                Some("remove it, wait 30 seconds, and set it again: its type cannot be changed safely".into())
            }
            Self::Foreign { name, number, .. } => {
                let why = "   # or vouchsafe-discarded, to pass it over";
                Some(to_label(name, &number.to_string(), Label::Current, why))
            }
            Self::ForeignApart(name, number) => {
                Some(to_label(name, &number.to_string(), Label::Discarded, "   # if it may be written over"))
            }
            Self::NoneIsCurrent(name) => Some(to_label(name, "NUMBER", Label::Current, "")),
            Self::NotCurrent(name, number, error) => {
                Some(error.hint().unwrap_or_else(|| to_label(name, &number.to_string(), Label::Current, "")))
            }
            Self::Plain(_) => Some("plain = true   # in its binding, if that is meant".into()),
            Self::RightEnded => Some("vouchsafe rotate --resume".into()),
            Self::Rotating(..) => Some("vouchsafe rotate NAME --resume   # or --rollback".into()),
            Self::Name(..) | Self::Value(..) => None,
        }
    }
}
