//! The options of `rotate`.

use clap::{Args, ValueEnum};

use super::{Selection, Signing};
use crate::name::{VARIABLE_RULE, VariableName};
use crate::policy::pattern::Pattern;
use crate::rotate::step::StepName;

/// `vouchsafe rotate`.
#[derive(Debug, Args)]
pub struct Rotate {
    /// The secrets, as the policy names them; `*` stands for any run of characters. A rotation that was begun goes on.
    #[arg(value_name = "NAME", value_parser = quiet_pattern)]
    pub names: Vec<Pattern>,
    /// Which policy.
    #[command(flatten)]
    pub selection: Selection,
    /// What is due by `every` or `max_age`, what was begun, and previous versions whose time has come. Of NAMEs, or of all.
    #[arg(long, conflicts_with_all = ["all", "resume", "rollback", "abandon", "only_step"])]
    pub due: bool,
    /// Every secret that the policy says how to rotate.
    #[arg(long, conflicts_with_all = ["names", "resume", "rollback", "abandon", "only_step"])]
    pub all: bool,
    /// Finish what was begun, and begin nothing. Of NAMEs, or of all.
    #[arg(long, conflicts_with_all = ["rollback", "abandon", "only_step"])]
    pub resume: bool,
    /// Back to the version before: drop the pending one; where there is none, make the previous one current.
    #[arg(long, conflicts_with_all = ["abandon", "only_step"])]
    pub rollback: bool,
    /// Drop a pending version that does not work, without the target: where --rollback cannot, since nothing works there.
    #[arg(long, conflicts_with = "only_step")]
    pub abandon: bool,
    /// Take this step and no other, if it is next.
    #[arg(long, value_name = "STEP", value_enum)]
    pub only_step: Option<OnlyStep>,
    /// Show each step that would be taken; change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Who signs.
    #[command(flatten)]
    pub signing: Signing,
    /// One JSON object for each step.
    #[arg(long)]
    pub json: bool,
}

/// `--only-step`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnlyStep {
    /// Make a pending version.
    Create,
    /// Make the target accept it.
    Apply,
    /// Prove that it works.
    Verify,
    /// Prove it and make it current.
    Promote,
    /// Make the target forget the previous one.
    Retire,
}

impl From<OnlyStep> for StepName {
    fn from(step: OnlyStep) -> Self {
        match step {
            OnlyStep::Create => Self::Create,
            OnlyStep::Apply => Self::Apply,
            OnlyStep::Verify => Self::Verify,
            OnlyStep::Promote => Self::Promote,
            OnlyStep::Retire => Self::Retire,
        }
    }
}

/// A name, or a glob over names, in a place where somebody may type the value instead: the text is not cited.
fn quiet_pattern(text: &str) -> Result<Pattern, &'static str> {
    VariableName::new(text.replace('*', "_")).map_err(|_| VARIABLE_RULE)?;
    Pattern::new(text).map_err(|_| VARIABLE_RULE)
}
