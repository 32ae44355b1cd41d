//! Where a server is: a host and a port. Pure.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::name::{escape, show};
use crate::store::aws::transport::is_loopback;

/// The port of PostgreSQL.
pub const DEFAULT_PORT: u16 = 5432;

/// A host of a connection URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// An address.
    Address(IpAddr),
    /// A name, in lower case and without the final dot.
    Name(String),
    /// The folder of a Unix socket.
    Socket(PathBuf),
}

impl Host {
    /// From text as it stands in a URL, percent-decoded, without brackets. A leading `/` is a folder, as libpq has it.
    #[must_use]
    pub fn new(text: &str) -> Self {
        if text.starts_with('/') {
            return Self::Socket(PathBuf::from(text));
        }
        match text.parse() {
            Ok(address) => Self::Address(address),
            Err(_) => Self::Name(text.trim_end_matches('.').to_ascii_lowercase()),
        }
    }

    /// Whether it is this very host by TCP.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Address(address) => address.is_loopback(),
            Self::Name(name) => is_loopback(name),
            Self::Socket(_) => false,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Name(name) => escape(name).fmt(f),
            Self::Socket(folder) => show(folder).fmt(f),
        }
    }
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
}

impl Place {
    /// Whether both lead to the same server as far as their texts tell. The names of this host are one.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.port == other.port && (self.host == other.host || (self.host.is_loopback() && other.host.is_loopback()))
    }

    /// The file of a Unix socket.
    #[must_use]
    pub fn socket(&self, folder: &Path) -> PathBuf {
        folder.join(format!(".s.PGSQL.{}", self.port))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_this_host_are_one_and_no_others() {
        let place = |host: &str, port| Place { host: Host::new(host), port };
        for (a, b, same) in [
            ("127.0.0.1", "localhost", true),
            ("::1", "127.0.0.1", true),
            ("DB.example.com.", "db.example.com", true),
            ("db.example.com", "db2.example.com", false),
            ("10.0.0.1", "10.0.0.2", false),
            ("/run/postgresql", "localhost", false),
            ("/run/postgresql", "/run/postgresql", true),
        ] {
            assert_eq!(place(a, 5432).is_same_as(&place(b, 5432)), same, "{a} {b}");
            assert!(!place(a, 5432).is_same_as(&place(b, 5433)), "{a} {b}");
        }
    }
}
