//! Messages of syslog: RFC 5424, with nothing in them that is not ASCII.
//!
//! The facility is authpriv (10) and not auth: the text names users, programs and secrets, and daemons keep authpriv where only
//! administrators read.

use super::socket::LocalSocket;
use crate::name::escape;

/// How much somebody ought to care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Severity {
    /// Not as it should be.
    Warning = 4,
    /// As it should be, and worth knowing.
    Notice = 5,
}

/// authpriv.
pub(super) const FACILITY: u8 = 10;

/// What all of it comes under: APP-NAME here, SYSLOG_IDENTIFIER in the journal.
pub(super) const APP_NAME: &str = "vouchsafe";

/// This host, as a field of a message: one without a value is a hyphen, and none has a blank.
pub(super) fn host() -> String {
    field(&rustix::system::uname().nodename().to_string_lossy())
}

fn field(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { escape(text).replace(' ', "-") }
}

/// One message of this process. `time` is RFC 3339, `id` says what kind of message it is, in at most 32 characters.
pub(super) fn message(severity: Severity, time: &str, host: &str, id: &str, text: &str) -> String {
    header(severity, time, host, std::process::id(), id) + text
}

fn header(severity: Severity, time: &str, host: &str, pid: u32, id: &str) -> String {
    let priority = FACILITY * 8 + severity as u8;
    format!("<{priority}>1 {time} {host} {APP_NAME} {pid} {id} - ")
}

/// The socket of a syslog daemon.
pub(super) fn socket(path: &std::path::Path) -> LocalSocket {
    LocalSocket::of_any(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_that_of_rfc_5424() {
        let time = "2026-01-02T03:04:05.414213Z";
        assert_eq!(
            header(Severity::Notice, time, "host-1", 7, "access.released"),
            "<85>1 2026-01-02T03:04:05.414213Z host-1 vouchsafe 7 access.released - "
        );
        let header = header(Severity::Warning, time, &field("a host\n"), 7, "access.denied");
        assert!(header.starts_with("<84>1 ") && header.is_ascii() && !header.contains('\n'), "{header:?}");
        assert_eq!(header.split(' ').count(), 8, "{header:?}");
        assert!(message(Severity::Notice, time, &host(), "x", "{}").ends_with(" x - {}"));
        assert_eq!(field(""), "-");
    }

    #[test]
    fn every_event_fits_into_a_message_id() {
        use crate::audit::Event;
        assert!(Event::ALL.iter().all(|event| event.word().len() <= 32));
    }
}
