//! A terminal of ours, with a program at it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::harness::Scene;

pub struct Terminal {
    pub ours: File,
    pub theirs: File,
    pub seen: Vec<u8>,
}

impl Terminal {
    pub fn new() -> Self {
        let ours: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
        let theirs = OpenOptions::new().read(true).write(true).open(name).unwrap();
        // A key that makes a signal also discards what was printed and not yet read, and the kernel does so after it has sent
        // the signal: a program that answers at once may be unheard (n_tty's `isig`; termios(3), NOFLSH).
        let mut modes = tcgetattr(&theirs).unwrap();
        modes.local_modes |= LocalModes::NOFLSH;
        tcsetattr(&theirs, OptionalActions::Now, &modes).unwrap();
        Self { ours: ours.into(), theirs, seen: Vec::new() }
    }

    /// A program in a session of its own, whose terminal this is.
    pub fn start(&self, scene: &Scene, words: &[&str]) -> Child {
        let own = || Stdio::from(self.theirs.try_clone().unwrap());
        let line = [&["--ctty", "--wait"], words].concat();
        scene.other("setsid", &line).stdin(own()).stdout(own()).stderr(own()).spawn().unwrap()
    }

    /// Types.
    pub fn write(&mut self, keys: &str) {
        self.ours.write_all(keys.as_bytes()).unwrap();
    }

    /// Reads until `text` was shown.
    pub fn until(&mut self, text: &str) {
        let from = self.seen.len();
        let mut byte = [0];
        while !String::from_utf8_lossy(&self.seen[from..]).contains(text) {
            let mut ready = [PollFd::new(&self.ours, PollFlags::IN)];
            let count = poll(&mut ready, Some(&Timespec { tv_sec: 30, tv_nsec: 0 })).unwrap();
            assert_eq!(count, 1, "`{text}` was not shown: {}", String::from_utf8_lossy(&self.seen));
            self.ours.read_exact(&mut byte).unwrap();
            self.seen.push(byte[0]);
        }
    }

    pub fn is_echoing(&self) -> bool {
        tcgetattr(&self.theirs).unwrap().local_modes.contains(LocalModes::ECHO)
    }
}
