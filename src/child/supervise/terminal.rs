//! The child's process group, and the terminal.
//!
//! What a terminal knows is its foreground process group: keys that make signals reach all of it, and who reads from
//! outside of it is stopped by SIGTTIN. Three cases:
//! - **No terminal, or we are in its background**: the child gets a group of its own.
//! - **We are a job of our own in the foreground**, leader of our group, with standard input and output on the terminal:
//!   the child gets a group of its own, and the terminal is handed over to it, as `tini` does. When a shell continues us in
//!   its foreground, we hand it over again.
//! - **We share the foreground with others**: in a pipeline (`vouchsafe run ... | less`), or in a script. They need the
//!   terminal too, and Ctrl-C is to reach the script as well. So the child stays in our group, as with `uv run`.

use std::io::IsTerminal;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, getpid, getppid};
use rustix::termios::{tcgetpgrp, tcsetpgrp};

use super::forward::FromTerminal;
use crate::sys::process::{group_of, session_of};

/// In which process group the child is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    /// One of its own, with its pid as number.
    Own,
    /// Ours.
    Shared,
}

/// How we stand to the terminal that controls us.
#[derive(Debug)]
pub(super) struct Terminal {
    controlling: Option<OwnedFd>,
    /// Standard input and output are the terminal: a job that may have it for itself.
    is_interactive: bool,
    group: Group,
    handed_over: bool,
}

impl Terminal {
    /// Looks, and decides about the child's group.
    pub(super) fn look() -> Self {
        let controlling = controlling_terminal();
        let is_interactive = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let is_foreground = controlling.as_ref().is_some_and(is_ours);
        let is_own_job = is_interactive && group_of(None) == Some(getpid());
        let group = if is_foreground && !is_own_job { Group::Shared } else { Group::Own };
        Self { controlling, is_interactive, group, handed_over: is_foreground && is_own_job }
    }

    pub(super) fn group(&self) -> Group {
        self.group
    }

    /// The process group to signal for all of the child at once; none if that would reach others.
    pub(super) fn group_of(&self, child: Pid) -> Option<Pid> {
        (self.group == Group::Own).then_some(child)
    }

    /// Gives the foreground to the child's group, if it is ours to give. Whoever calls has SIGTTOU blocked.
    pub(super) fn hand_over(&mut self, child: Pid) {
        let Some(tty) = &self.controlling else { return };
        if self.group == Group::Own && self.is_interactive && is_ours(tty) {
            self.handed_over = tcsetpgrp(tty, child).is_ok();
        }
    }

    /// In the new child itself: so that its first read is not one from the background.
    pub(super) fn take_over(&self) {
        if self.handed_over
            && let Some(tty) = &self.controlling
        {
            // If it fails, the terminal went away meanwhile.
            tcsetpgrp(tty, getpid()).unwrap_or_default();
        }
    }

    /// Takes the foreground back from the child's group: whoever started us finds the terminal as it was.
    pub(super) fn take_back(&mut self, child: Pid) {
        if !std::mem::take(&mut self.handed_over) {
            return;
        }
        if let (Some(tty), Some(own)) = (&self.controlling, group_of(None))
            && tcgetpgrp(tty) == Ok(child)
        {
            tcsetpgrp(tty, own).unwrap_or_default();
        }
    }

    /// What the child gets from the terminal without us.
    pub(super) fn reaches_child(&self) -> FromTerminal {
        let shared = self.group == Group::Shared;
        let is_session_leader = session_of(None) == Some(getpid());
        FromTerminal { keys: shared || self.handed_over, hangup: shared && !is_session_leader }
    }

    /// Whether a shell watches our job, and will continue us if we stop: our parent is in our session and in another group.
    /// Else our group is orphaned, and the kernel would not let the terminal stop it either (POSIX.1-2017, 11.1.4).
    pub(super) fn has_job_control(&self) -> bool {
        let parent = getppid();
        self.controlling.is_some()
            && parent.is_some()
            && session_of(parent) == session_of(None)
            && group_of(parent) != group_of(None)
    }

    pub(super) fn is_there(&self) -> bool {
        self.controlling.is_some()
    }
}

/// Whether our process group has the foreground.
fn is_ours(tty: &OwnedFd) -> bool {
    let foreground = tcgetpgrp(tty).ok();
    foreground.is_some() && foreground == group_of(None)
}

/// `tcgetpgrp` answers only for the terminal that controls the process that asks.
fn controlling_terminal() -> Option<OwnedFd> {
    let stdin = std::io::stdin();
    let stderr = std::io::stderr();
    let standard = [stdin.as_fd(), stderr.as_fd()].into_iter().find(|fd| tcgetpgrp(fd).is_ok());
    match standard {
        Some(fd) => rustix::io::fcntl_dupfd_cloexec(fd, 3).ok(),
        None => {
            let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
            let tty = rustix::fs::open("/dev/tty", flags, Mode::empty()).ok()?;
            tcgetpgrp(&tty).is_ok().then_some(tty)
        }
    }
}
