//! The agent: a daemon that holds a host's means, cache and audit log, and serves wrappers over a Unix socket.
//!
//! - [`protocol`]: what goes over the socket, without I/O;
//! - [`client`]: `run` through an agent; [`ask`]: `agent status`, `agent flush`; [`connect`]: reaching it;
//! - [`server`]: the daemon; [`cache`]: what it keeps, and its one way to the stores; [`health`]: how it is; [`marks`]:
//!   what it does not go back behind; [`failure`]: what several who wait are told.

pub mod ask;
pub mod cache;
pub mod client;
pub(crate) mod connect;
pub mod failure;
pub mod health;
pub mod marks;
pub mod protocol;
pub mod server;
