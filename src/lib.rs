//! vouchsafe grants a process exactly the secrets its policy allows, as environment variables and in no other way, and
//! writes every access down first.
//!
//! The modules, in the order in which data flows through them:
//! - [`policy`]: TOML to types, types and a request to a verdict;
//! - [`store`]: where values live;
//! - [`generate`]: new values, from the kernel's randomness.
//! - [`audit`]: every access is written down before it happens; who holds a `Permit` or a `Released` was written down;

#[cfg(not(target_os = "linux"))]
compile_error!("vouchsafe is built for Linux: it leans on execve, /proc, flock and prctl as Linux has them");

pub mod audit;
pub mod checked_file;
pub mod error;
pub mod generate;
pub mod name;
pub mod policy;
pub mod secret;
pub mod store;
