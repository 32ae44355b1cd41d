//! Which signals are the child's: pure, a table of cases tests it.
//!
//! What a process sent was meant for what runs here, so the child gets it: TERM of `docker stop`, ABRT of a watchdog, the
//! real-time signals of systemd. What the kernel made was made for us (SIGCHLD, a fault, a full pipe), except that
//! - a terminal sends INT, QUIT, TSTP and WINCH to its whole foreground process group (`termios(3)`): a child in that group
//!   has had it from the terminal, and must not get it twice;
//! - a terminal that hangs up sends HUP and CONT to the leader of the session, which may be us and is never the child;
//! - an alarm that was set before we were executed (`perl -e 'alarm 5; exec ...'`) rings for what runs here (`alarm(2)`).

use libc::{SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU, SIGWINCH};

use crate::sys::signal::Received;

/// What the child gets from the terminal itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FromTerminal {
    /// What is typed, and the size of the window.
    pub(super) keys: bool,
    /// The hang-up.
    pub(super) hangup: bool,
}

/// Whether `received` is passed on to the child. `own` is our pid: what we did to ourselves (SIGPIPE of a log that nobody
/// reads) looks like sent.
pub(super) fn is_for_child(received: &Received, own: u32, from_terminal: FromTerminal) -> bool {
    if received.code <= 0 {
        return received.sender != own;
    }
    match received.signal {
        SIGALRM => true,
        SIGINT | SIGQUIT | SIGTSTP | SIGWINCH => !from_terminal.keys,
        SIGHUP | SIGCONT => !from_terminal.hangup,
        _ => false,
    }
}

/// Whether whoever sends it wants all of this to end: TERM and INT by custom, QUIT and the real-time signals as a `STOPSIGNAL`
/// (php-fpm; systemd's RTMIN+3).
pub(super) fn asks_to_end(signal: i32) -> bool {
    matches!(signal, SIGTERM | SIGINT | SIGQUIT) || signal >= 32
}

/// Whether it asks a process to stop, and can be refused.
pub(super) fn asks_to_stop(signal: i32) -> bool {
    matches!(signal, SIGTSTP | SIGTTIN | SIGTTOU)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: FromTerminal = FromTerminal { keys: false, hangup: false };
    const KEYS: FromTerminal = FromTerminal { keys: true, hangup: false };
    const ALL: FromTerminal = FromTerminal { keys: true, hangup: true };

    fn judged(signal: i32, code: i32, sender: u32, from_terminal: FromTerminal) -> bool {
        is_for_child(&Received { signal, code, sender, value: 0 }, 100, from_terminal)
    }

    #[test]
    fn what_a_process_sent_is_passed_on() {
        for signal in 1..=64 {
            for code in [libc::SI_USER, libc::SI_QUEUE, libc::SI_TKILL] {
                for sender in [0, 1, 99] {
                    assert!(judged(signal, code, sender, NOTHING) && judged(signal, code, sender, ALL), "{signal}");
                }
                assert!(!judged(signal, code, 100, NOTHING), "{signal} of our own doing");
            }
        }
    }

    #[test]
    fn what_the_kernel_made_is_ours_but_for_terminal_and_alarm() {
        for signal in 1..=64 {
            let passed = [NOTHING, KEYS, ALL].map(|from| judged(signal, libc::SI_KERNEL, 0, from));
            let expected = match signal {
                SIGINT | SIGQUIT | SIGTSTP | SIGWINCH => [true, false, false],
                SIGHUP | SIGCONT => [true, true, false],
                SIGALRM => [true, true, true],
                _ => [false, false, false],
            };
            assert_eq!(passed, expected, "{signal}");
        }
        assert!(!judged(libc::SIGCHLD, libc::CLD_EXITED, 101, NOTHING));
        assert!(!judged(libc::SIGSEGV, 1, 0, NOTHING));
    }
}
