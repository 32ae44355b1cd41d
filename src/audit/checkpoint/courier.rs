//! Who takes a checkpoint where the audit knows no way to: to a service over a network. Made outside, so that no store is known in
//! here.

use crate::policy::model::ParameterAnchor;

/// Takes checkpoints to parameters.
pub trait Courier: Send + Sync {
    /// Takes one, within a limit of its own.
    ///
    /// # Errors
    /// Why not, in words of ours.
    fn take(&self, note: &str, to: &ParameterAnchor) -> Result<(), String>;
}
