//! The agent: a daemon that holds a host's means, cache and audit log, and serves wrappers over a Unix socket.
//!
//! - [`protocol`]: what goes over the socket, without I/O.

pub mod protocol;
