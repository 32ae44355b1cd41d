//! What went wrong with a server, in sentences of ours.
//!
//! What a server says may cite what it was sent. So only its SQLSTATE is looked at (PostgreSQL documentation, appendix A),
//! and of other errors only what they are.

use std::error::Error as _;
use std::fmt;
use std::io;

use rustls::{CertificateError, Error as RustlsError};

use super::place::Place;
use crate::checked_file::plain_io;

/// Why something with a server failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The server ended the session, or the connection broke: what was asked last may have happened.
    Lost,
    /// No connection came about.
    Unreachable {
        /// To where.
        place: String,
        /// Why.
        why: String,
    },
    /// The server said no, with this SQLSTATE.
    Sql(String),
    /// No answer in time.
    Timeout,
    /// The TLS session did not come about.
    Tls {
        /// With whom.
        place: String,
        /// Why.
        why: &'static str,
    },
    /// The server did not ask for a password in a way that proves one.
    Unproven(&'static str),
    /// The server spoke something else than was expected.
    Protocol,
}

/// What a login that fails means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// The server judged the credential, and does not accept it.
    Refused,
    /// The role may not log in, or not from here: nothing is said of the credential, which may work from elsewhere or again.
    Barred,
    /// The credential was not what failed.
    Failed,
}

impl Failure {
    /// From the library's error.
    #[must_use]
    pub fn of(error: &tokio_postgres::Error, place: &Place) -> Self {
        if let Some(state) = error.code() {
            return Self::Sql(state.code().chars().filter(char::is_ascii_alphanumeric).take(5).collect());
        }
        if error.is_closed() {
            return Self::Lost;
        }
        // Its text for a server without TLS has no type of its own.
        if error.source().is_some_and(|source| source.to_string() == "server does not support TLS") {
            return Self::Tls { place: place.to_string(), why: "the server speaks no TLS" };
        }
        match error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
            Some(io) => Self::of_io(io, place),
            None => Self::Protocol,
        }
    }

    fn of_io(error: &io::Error, place: &Place) -> Self {
        let inner = error.get_ref();
        if let Some(Unproven(why)) = inner.and_then(|inner| inner.downcast_ref()) {
            return Self::Unproven(why);
        }
        if let Some(tls) = inner.and_then(|inner| inner.downcast_ref::<RustlsError>()) {
            return Self::Tls { place: place.to_string(), why: tls_sentence(tls) };
        }
        match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => Self::Protocol,
            _ => Self::Lost,
        }
    }

    /// A system call that did not connect.
    #[must_use]
    pub fn unreachable(place: &Place, error: &io::Error) -> Self {
        Self::Unreachable { place: place.to_string(), why: plain_io(error) }
    }

    /// Whether what was asked may have happened all the same. An ended session is among them (class 57P): the server may
    /// have done its work before it was told to stop.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        match self {
            Self::Lost | Self::Timeout | Self::Protocol => true,
            Self::Sql(state) => state.starts_with("57P") || state.starts_with("08"),
            Self::Tls { .. } | Self::Unproven(_) | Self::Unreachable { .. } => false,
        }
    }

    /// What it means for a login.
    #[must_use]
    pub fn login(&self) -> Login {
        match self {
            Self::Sql(state) if state == "28P01" => Login::Refused,
            Self::Sql(state) if state == "28000" => Login::Barred,
            _ => Login::Failed,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost => f.write_str("the connection broke"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::Protocol => f.write_str("what answered does not speak PostgreSQL's protocol as expected"),
            Self::Unreachable { place, why } => write!(f, "`{place}` cannot be reached: {why}"),
            Self::Tls { place, why } => write!(f, "no TLS with `{place}`: {why}"),
            Self::Unproven(why) => f.write_str(why),
            Self::Sql(state) => match sentence(state) {
                Some(sentence) => write!(f, "{sentence} (SQLSTATE {state})"),
                None => write!(f, "the server refused (SQLSTATE {state})"),
            },
        }
    }
}

/// The states that come up, by code and then by class.
fn sentence(state: &str) -> Option<&'static str> {
    Some(match state {
        "28P01" => "the server does not accept the password",
        "28000" => {
            "the server lets this role not in: it may not log in, its validity ended, or no line of pg_hba.conf fits"
        }
        "3D000" => "there is no such database",
        "42501" => "permission denied",
        "42704" => "there is no such role",
        "42P01" => "there is no such table",
        "25006" => "it writes, or the server is a standby that only reads",
        "53300" => "the server has no connection left",
        "55P03" => "something else holds a lock for too long",
        "57014" => "it took too long, and the server ended it",
        "57P01" | "57P02" => "the server is shutting down",
        "57P03" => "the server is starting up or shutting down",
        _ => match state.get(..2) {
            Some("08") => "the connection broke",
            Some("28") => "the server does not accept the credential",
            Some("42") => "the statement is wrong here",
            Some("53") => "the server lacks memory, disk or connections",
            Some("57") => "somebody ended it at the server",
            Some("58" | "XX") => "the server failed",
            _ => return None,
        },
    })
}

fn tls_sentence(error: &RustlsError) -> &'static str {
    use CertificateError as Bad;
    match error {
        RustlsError::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => "its certificate is expired",
        RustlsError::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. }) => {
            "its certificate is not valid yet"
        }
        RustlsError::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            "its certificate is for another name"
        }
        RustlsError::InvalidCertificate(Bad::UnknownIssuer | Bad::Other(_) | Bad::BadSignature) => {
            "its certificate is signed by nobody that is trusted here"
        }
        RustlsError::InvalidCertificate(_) => "its certificate is not valid",
        RustlsError::AlertReceived(_) => "the server broke it off",
        _ => "the handshake failed",
    }
}

/// The server did not ask for a password in a way that proves one. Travels inside an I/O error through the library.
#[derive(Debug)]
pub struct Unproven(pub &'static str);

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Unproven {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_told_apart() {
        for (state, word, unsettled, login) in [
            ("28P01", "password", false, Login::Refused),
            ("28000", "pg_hba.conf", false, Login::Barred),
            ("42501", "permission", false, Login::Failed),
            ("42704", "no such role", false, Login::Failed),
            ("53300", "no connection left", false, Login::Failed),
            ("57P01", "shutting down", true, Login::Failed),
            ("57P03", "starting up", true, Login::Failed),
            ("08006", "broke", true, Login::Failed),
            ("57014", "too long", false, Login::Failed),
            ("ZZZZZ", "SQLSTATE ZZZZZ", false, Login::Failed),
        ] {
            let failure = Failure::Sql(state.into());
            assert!(failure.to_string().contains(word), "{state}: {failure}");
            assert_eq!((failure.is_unsettled(), failure.login()), (unsettled, login), "{state}");
        }
        assert!(Failure::Lost.is_unsettled() && Failure::Timeout.is_unsettled());
    }
}
