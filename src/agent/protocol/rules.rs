//! `[child]` and `[run]` on their way from the agent, which reads the policy, to the client, which does not.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::FrameError;
use crate::inject::OwnMeans;
use crate::name::VariableName;
use crate::policy::eval::Pin;
use crate::policy::model::{
    AgentUse, AwsRole, ChildRules, Inherit, OnChange, OnCollision, OnCrash, RunMode, RunRules, Stage,
};
use crate::policy::pattern::Pattern;

/// A word of the model that goes over the wire by its place in this list: a new one is added at the end.
macro_rules! wire {
    ($(#[$doc:meta])* $name:ident = $model:ty { $($variant:ident,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[allow(missing_docs)]
        pub enum $name { $($variant,)+ }

        impl From<$model> for $name {
            fn from(model: $model) -> Self {
                match model { $(<$model>::$variant => Self::$variant,)+ }
            }
        }

        impl From<$name> for $model {
            fn from(wire: $name) -> Self {
                match wire { $($name::$variant => Self::$variant,)+ }
            }
        }
    };
}

wire!(
    /// How firmly a grant holds to the command.
    PinWire = Pin { None, Found, Canonical, Digest, }
);
wire!(
    /// Which version of an item.
    StageWire = Stage { Current, Pending, Previous, }
);
wire!(
    /// Whether pointers to an AWS role pass.
    AwsRoleWire = AwsRole { Pass, Strip, }
);
wire!(
    /// Who wins a collision.
    CollisionWire = OnCollision { Error, Inherited, Secret, }
);
wire!(
    /// How the child is run.
    ModeWire = RunMode { Exec, Supervise, }
);
wire!(
    /// What a changed secret does.
    OnChangeWire = OnChange { Ignore, Restart, }
);

/// What the child inherits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum InheritWire<'a> {
    /// Everything.
    All,
    /// Nothing but what belongs to supervision.
    None,
    /// Names and globs.
    #[serde(borrow)]
    Names(Vec<&'a str>),
}

/// `[child]`, and which variables are means of the policy's stores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildWire<'a> {
    /// What it inherits.
    #[serde(borrow)]
    pub inherit: InheritWire<'a>,
    /// Variables set besides the secrets.
    pub set: Vec<(&'a str, &'a str)>,
    /// Whether pointers to an AWS role pass.
    pub aws_role: AwsRoleWire,
    /// Who wins a collision.
    pub on_collision: CollisionWire,
    /// Variables that a store of the policy takes an identity from: they do not reach the child.
    pub identities: Vec<&'a str>,
}

/// `[run]`. Times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunWire {
    /// How the child is run.
    pub mode: ModeWire,
    /// For everything before the child starts.
    pub deadline: u64,
    /// What a changed secret does.
    pub on_change: OnChangeWire,
    /// Between TERM and KILL.
    pub grace: u64,
    /// How often to look whether a secret changed; absent: never.
    pub watch: Option<u64>,
}

impl<'a> ChildWire<'a> {
    /// For the wire.
    #[must_use]
    pub fn of(rules: &'a ChildRules, own: &'a OwnMeans) -> Self {
        let inherit = match &rules.inherit {
            Inherit::All => InheritWire::All,
            Inherit::None => InheritWire::None,
            Inherit::Names(patterns) => InheritWire::Names(patterns.iter().map(Pattern::as_str).collect()),
        };
        Self {
            inherit,
            set: rules.set.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
            aws_role: rules.aws_role.into(),
            on_collision: rules.on_collision.into(),
            identities: own.identities.iter().map(VariableName::as_str).collect(),
        }
    }

    /// Checked again, as if from a policy.
    ///
    /// # Errors
    /// A name or pattern is none.
    pub fn rules(&self) -> Result<(ChildRules, OwnMeans), FrameError> {
        let name = |text: &str| VariableName::new(text).map_err(|_| FrameError::Malformed);
        let inherit = match &self.inherit {
            InheritWire::All => Inherit::All,
            InheritWire::None => Inherit::None,
            InheritWire::Names(patterns) => {
                let patterns = patterns.iter().map(|text| Pattern::new(*text).map_err(|_| FrameError::Malformed));
                Inherit::Names(patterns.collect::<Result<_, _>>()?)
            }
        };
        let set = self.set.iter().map(|(key, value)| Ok((name(key)?, (*value).to_owned())));
        let rules = ChildRules {
            inherit,
            set: set.collect::<Result<_, FrameError>>()?,
            aws_role: self.aws_role.into(),
            on_collision: self.on_collision.into(),
        };
        let identities = self.identities.iter().map(|text| name(text)).collect::<Result<_, _>>()?;
        // The agent's keys are its own; those of the client's environment were not used.
        Ok((rules, OwnMeans { identities, static_aws_keys: false }))
    }
}

impl From<&RunRules> for RunWire {
    fn from(rules: &RunRules) -> Self {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            mode: rules.mode.into(),
            deadline: milliseconds(rules.deadline),
            on_change: rules.on_change.into(),
            grace: milliseconds(rules.grace),
            watch: rules.watch.map(milliseconds),
        }
    }
}

impl From<RunWire> for RunRules {
    fn from(wire: RunWire) -> Self {
        Self {
            agent: AgentUse::Allow,
            mode: wire.mode.into(),
            deadline: Duration::from_millis(wire.deadline),
            on_change: wire.on_change.into(),
            // The agent serves no policy that says otherwise.
            on_crash: OnCrash::Again,
            grace: Duration::from_millis(wire.grace),
            watch: wire.watch.map(Duration::from_millis),
        }
    }
}
