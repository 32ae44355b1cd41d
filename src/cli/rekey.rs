//! `vouchsafe rekey`.

use clap::Args;

use super::{Selection, Signing};
use crate::name::StoreName;

/// `vouchsafe rekey`.
#[derive(Debug, Args)]
pub struct Rekey {
    /// Which policy.
    #[command(flatten)]
    pub selection: Selection,
    /// Encrypt the file of this store only; may be given several times. Default: every sealed file of the policy.
    #[arg(long = "store", value_name = "STORE")]
    pub stores: Vec<StoreName>,
    /// Make sure that this recipient (age1..., or the ARN of a KMS key) is out: the policy must not name it any more.
    #[arg(long, value_name = "RECIPIENT")]
    pub remove: Option<String>,
    /// Nobody can trust the removed recipient any more: note in the files what it could open, list that, and end with status
    /// 10 until each value was replaced.
    #[arg(long, requires = "remove")]
    pub compromised: bool,
    /// The KMS key that the files are still under, where the policy names another one already. No other key is asked.
    #[arg(long, value_name = "ARN")]
    pub old_key: Option<String>,
    /// Do everything but the writing: say what would be done, and whether it could be.
    #[arg(long)]
    pub dry_run: bool,
    /// Who signs.
    #[command(flatten)]
    pub signing: Signing,
    /// One JSON object.
    #[arg(long)]
    pub json: bool,
}
