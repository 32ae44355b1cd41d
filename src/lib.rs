//! vouchsafe grants a process exactly the secrets its policy allows, as environment variables and in no other way, and
//! writes every access down first.
//!
//! The modules, in the order in which data flows through them:
//! - [`cli`]: arguments to one strict struct for each command;
//! - [`run`]: the story, one function for each command; [`setting`]: where each one starts;
//! - [`policy`]: TOML to types, types and a request to a verdict; [`caller`]: who asks;
//! - [`audit`]: written down first; [`courier`]: its checkpoints, to a store;
//! - [`resolve`]: from a permit to the values; [`store`]: where values live;
//! - [`inject`]: the child's environment; [`child`]: finding the command, becoming it, or staying with it;
//! - [`agent`]: the same through a daemon that holds the means;
//! - [`rotate`]: new values, made, staged and proven;
//! - [`inspect`], [`explain`], [`lint`], [`verdicts`], [`manual`]: looking; [`sign`]: signatures of policies; [`change`], [`rekey`], [`init`]: writing; [`audit_log`]: reading logs;
//!   [`schema`]: what all of them print as JSON;
//! - [`exposed`]: what somebody removed could open, in the policy's words;
//! - [`name`], [`secret`], [`error`], [`output`], [`prompt`], [`checked_file`], [`program`]: what all of them use; [`sys`]: the only `unsafe`.

#[cfg(not(target_os = "linux"))]
compile_error!("vouchsafe is built for Linux: it leans on execve, /proc, flock and prctl as Linux has them");

pub mod agent;
pub mod audit;
pub mod audit_log;
pub mod caller;
pub mod change;
pub mod checked_file;
pub mod child;
pub mod cli;
pub mod courier;
pub mod error;
pub mod explain;
pub mod exposed;
pub mod init;
pub mod inject;
pub mod inspect;
pub mod lint;
pub mod manual;
pub mod name;
pub mod output;
pub mod policy;
pub mod program;
pub mod prompt;
pub mod rekey;
pub mod resolve;
pub mod rotate;
pub mod run;
pub mod schema;
pub mod secret;
pub mod setting;
pub mod sign;
pub mod store;
pub mod sys;
pub mod verdicts;
