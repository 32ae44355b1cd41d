//! Reading what logs say. Read-only, a line at a time, and in memory that does not grow with the log.
//!
//! - `lines`: bytes to lines, lines to records, the parts of one record put together;
//! - `record`: what of a record its readers need;
//! - `when`, `filter`: which records; `logs`: which files; `follow`: files that grow and are moved;
//! - `table`: records as rows;
//! - `processes`: which of them still run; `who_has`, `current`, `named`: who got a secret; `history`: what one uid read; `recent`: what
//!   both may have to take back.
//!
//! Nothing here verifies a chain: that is [`super::verify`]'s, and whoever needs to be sure asks it first.

mod current;
mod filter;
mod follow;
mod history;
mod lines;
mod logs;
mod named;
mod processes;
mod recent;
pub(super) mod record;
mod table;
#[cfg(test)]
pub(super) mod tests;
mod when;
mod who_has;

pub use current::{Current, Place};
pub use filter::Filter;
pub use follow::{Change, Followed};
pub use history::{History, Of, Read, Refused};
pub use lines::{Counts, Reader, Seen};
pub use logs::{Logs, open};
pub use named::Named;
pub use processes::{Life, Processes, Unknown};
pub use record::{Actor, Command, Record, Secret, Text};
pub use table::Table;
pub use when::{Instant, When};
pub use who_has::{Holder, Holders, Item, Scope, Wanted};
