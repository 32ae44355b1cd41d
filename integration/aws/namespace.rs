//! Places that a test cannot be on the host: 169.254.169.254, port 53, `/etc`. A network namespace of its own that a thread
//! steps into, and a mount namespace for the program under test. Root only.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::harness::{Outcome, Scene};
use crate::have;

/// A network namespace with loopback up and nothing else: no route to anywhere. Ended by the id of its holder when dropped.
pub struct Network {
    holder: Child,
}

impl Network {
    /// With these addresses on its loopback; says loudly what is skipped where that is not possible.
    pub fn with(addresses: &[&str]) -> Option<Self> {
        if !have(&["unshare", "ip", "mount"], true) {
            return None;
        }
        let add: String = addresses.iter().map(|one| format!("ip address add {one} dev lo && ")).collect();
        let script = format!("ip link set lo up && {add}echo ready && exec cat");
        let mut holder = Command::new("unshare")
            .args(["-n", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line != "ready\n" {
            println!("\nSKIPPED: a test in a network namespace (the kernel or container does not let us make one)");
            holder.wait().unwrap();
            return None;
        }
        Some(Self { holder })
    }

    /// Does `work` on a thread that is inside: the sockets that it binds and the programs that it starts are inside too.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let place = File::open(format!("/proc/{}/ns/net", self.holder.id())).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_link_name_space(place.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.holder.kill().unwrap_or_default();
        self.holder.wait().unwrap();
    }
}

/// `/etc` as the program under test finds it: passwd, group, and these files.
pub fn with_etc(scene: &Scene, files: &[(&str, &str)], arguments: &[&str]) -> Outcome {
    for (name, content) in files {
        scene.write(&format!("etc/{name}"), content.as_bytes());
    }
    for name in ["passwd", "group"] {
        let content = std::fs::read(format!("/etc/{name}")).unwrap();
        scene.write(&format!("etc/{name}"), &content);
    }
    let etc = scene.path("etc").display().to_string();
    let script = "mount --bind \"$0\" /etc && exec \"$@\"";
    let words = [&["-m", "sh", "-c", script, &etc, crate::harness::VOUCHSAFE], arguments].concat();
    let mut command = scene.other("unshare", &words);
    let output = command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output().unwrap();
    scene.outcome(arguments, output)
}

/// A name server that answers every question with 127.0.0.1, or not at all. Port 53 of this namespace.
pub fn name_server(answers: bool) {
    let socket = UdpSocket::bind("127.0.0.1:53").unwrap();
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            // The last question of a test is "the end": a name server has no other end.
            if question[..length].windows(3).any(|part| part == b"end") {
                return;
            }
            if answers {
                socket.send_to(&reply(&question[..length]), from).unwrap();
            }
        }
    });
}

/// Ends [`name_server`].
pub fn end_name_server() {
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"end", "127.0.0.1:53").unwrap();
}

/// RFC 1035 section 4: an A record of 127.0.0.1, or no record for any other type.
fn reply(question: &[u8]) -> Vec<u8> {
    let name = question[12..].iter().position(|byte| *byte == 0).unwrap();
    let end = 12 + name + 5;
    let is_a = question[end - 4..end - 2] == [0, 1];
    let mut reply = question[..2].to_vec();
    reply.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    reply.extend(&question[12..end]);
    if is_a {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    reply
}
