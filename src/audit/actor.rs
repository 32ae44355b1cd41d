//! Who acts, as the kernel says. Whatever cannot be learned cheaply is left out; nothing here may fail an access.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

use super::ProcessIdentity;
use crate::policy::eval::Caller;

/// Who acts, on which host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Actor {
    /// Real uid.
    pub uid: u32,
    /// Its name, if it has one.
    pub user: Option<String>,
    /// The real gid and the supplementary groups.
    pub groups: Vec<u32>,
    /// Process.
    pub pid: u32,
    /// Its parent.
    pub ppid: u32,
    /// The terminal, if there is one.
    pub tty: Option<String>,
    /// The host's name, as the kernel has it.
    pub host: String,
    /// The container, if one can be told.
    pub container_id: Option<String>,
    /// What tells the process from a later one of the same number.
    pub process: ProcessIdentity,
    /// The agent that the access went through. Then parent, terminal and command are what the caller claims; uid, groups and
    /// pid are what the kernel says of who connected.
    pub agent: Option<AgentNote>,
}

/// The process that an access goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentNote {
    /// Its uid.
    pub uid: u32,
    /// Its process.
    pub pid: u32,
}

impl Actor {
    /// This process. Uid, name and groups are those that the decision was made by.
    #[must_use]
    pub fn of_this_process(caller: &Caller) -> Self {
        Self {
            uid: caller.uid,
            user: caller.user.clone(),
            groups: caller.groups.iter().map(|(gid, _)| *gid).collect(),
            pid: std::process::id(),
            ppid: std::os::unix::process::parent_id(),
            tty: terminal(std::io::stdin().as_fd()).or_else(|| terminal(std::io::stderr().as_fd())),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            container_id: container_id(),
            process: ProcessIdentity::of_this_process(),
            agent: None,
        }
    }
}

fn terminal(fd: impl AsFd) -> Option<String> {
    let name = rustix::termios::ttyname(fd, Vec::new()).ok()?;
    Some(name.to_string_lossy().into_owned())
}

/// The engine's id of the container: in the path of our control group, or, where a cgroup namespace hides that, in the
/// source of the files that engines mount over `/etc/hostname` and the like.
fn container_id() -> Option<String> {
    let groups = read_start("/proc/self/cgroup")?;
    // Mounts are long to list; only inside a cgroup namespace, or at its root, is there reason to.
    let hidden = || groups.lines().any(|line| line == "0::/").then(|| read_start("/proc/self/mountinfo")).flatten();
    find_id(&groups).or_else(|| find_id(&hidden()?))
}

/// The first run of exactly 64 hexadecimal digits.
fn find_id(text: &str) -> Option<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    words.into_iter().find(|word| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit())).map(str::to_owned)
}

fn read_start(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(4096);
    File::open(path).ok()?.take(64 * 1024).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_told_by_its_id() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(find_id(&format!("0::/system.slice/docker-{id}.scope\n")), Some(id.clone()));
        assert_eq!(
            find_id(&format!("1 2 0:1 /var/lib/docker/containers/{id}/hostname /etc/hostname")),
            Some(id.clone())
        );
        assert_eq!(find_id(&format!("0::/{id}0")), None);
        assert_eq!(find_id("0::/user.slice/user-1000.slice"), None);
    }

    #[test]
    fn gathering_never_fails() {
        let caller = Caller { uid: 7, user: None, groups: vec![(7, None), (8, Some("x".into()))] };
        let actor = Actor::of_this_process(&caller);
        assert_eq!((actor.uid, actor.groups, actor.pid), (7, vec![7, 8], std::process::id()));
        assert_eq!(actor.process, ProcessIdentity::of_this_process());
        assert!(!actor.host.is_empty());
    }
}
