//! Names to addresses, in this process: literals and `localhost` at once, then `/etc/hosts`, then the servers of
//! `/etc/resolv.conf` by hickory.
//!
//! `/etc/hosts` is read here: hickory would take one family of addresses from it and ask a server for the other.
//! getaddrinfo needs a thread, does not end with the deadline, and loads a second libc into a static binary. A future that
//! is dropped here ends its query; nothing outlives the runtime.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, OnceLock};

use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns, ResolveDnsError};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::ResolveHosts;

/// Bytes of `/etc/hosts` that are looked at.
const MAX_HOSTS: u64 = 1024 * 1024;

/// Resolves names; set up at the first one that has to be asked for.
#[derive(Clone, Default)]
pub struct Names {
    resolver: Arc<OnceLock<Option<TokioResolver>>>,
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}

impl Names {
    /// The addresses of a name; `None` if nobody knows any. The texts of hickory are not printed: that it was the name is
    /// all that is told.
    pub async fn look_up(&self, name: &str) -> Option<Vec<IpAddr>> {
        if let Some(addresses) = known(name).or_else(|| in_hosts(&hosts(), name)) {
            return Some(addresses);
        }
        let resolver = self.resolver.get_or_init(set_up).as_ref()?;
        let addresses: Vec<IpAddr> = resolver.lookup_ip(absolute(name)).await.ok()?.iter().collect();
        (!addresses.is_empty()).then_some(addresses)
    }
}

impl ResolveDns for Names {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        DnsFuture::new(async move { self.look_up(name).await.ok_or_else(|| ResolveDnsError::new("not resolved")) })
    }
}

/// What needs no question: literals, and `localhost` with all below it (RFC 6761 section 6.3).
fn known(name: &str) -> Option<Vec<IpAddr>> {
    let name = name.trim_end_matches('.');
    if let Ok(address) = name.trim_start_matches('[').trim_end_matches(']').parse() {
        return Some(vec![address]);
    }
    let is_local = name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost");
    is_local.then(|| vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)])
}

/// Absent or unreadable, it has no names: hosts(5) is a convenience, not a policy.
fn hosts() -> String {
    let mut text = Vec::new();
    let read = File::open("/etc/hosts").and_then(|file| file.take(MAX_HOSTS).read_to_end(&mut text));
    read.map_or_else(|_| String::new(), |_| String::from_utf8_lossy(&text).into_owned())
}

/// hosts(5): an address and its names on a line, `#` starts a comment. Every line that has the name counts.
fn in_hosts(text: &str, name: &str) -> Option<Vec<IpAddr>> {
    let name = name.trim_end_matches('.');
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().split_ascii_whitespace());
    let addresses: Vec<IpAddr> = lines
        .filter_map(|mut words| {
            let address = words.next()?.parse().ok()?;
            words.any(|word| word.trim_end_matches('.').eq_ignore_ascii_case(name)).then_some(address)
        })
        .collect();
    (!addresses.is_empty()).then_some(addresses)
}

/// A name with a dot is asked for as it is: the search list of a Kubernetes pod (`ndots:5`) would send it to the cluster's
/// own domains first, three questions too many and to the wrong server.
fn absolute(name: &str) -> String {
    if name.contains('.') && !name.ends_with('.') { format!("{name}.") } else { name.to_owned() }
}

/// Without a readable `/etc/resolv.conf` there is nobody to ask.
fn set_up() -> Option<TokioResolver> {
    let mut builder = TokioResolver::builder_tokio().ok()?;
    builder.options_mut().use_hosts_file = ResolveHosts::Never;
    builder.build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_localhost_need_no_question() {
        for name in ["127.0.0.1", "169.254.170.2", "::1", "[fd00:ec2::23]", "localhost", "LOCALHOST.", "a.localhost"] {
            assert!(known(name).is_some(), "{name}");
        }
        for name in ["ssm.eu-west-1.amazonaws.com", "localhost.example", "1.2.3", ""] {
            assert!(known(name).is_none(), "{name}");
        }
    }

    #[test]
    fn hosts_are_read_as_their_manual_says() {
        let text = "127.0.0.1 localhost\n# 10.0.0.1 commented\n10.0.0.2\temulator emulator.test # and why\n\nbad line\n\
                    10.0.0.3 Emulator.Test\nfd00::1 emulator.test.\n";
        let addresses = |name| in_hosts(text, name).map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(addresses("emulator"), Some(vec!["10.0.0.2".into()]));
        assert_eq!(addresses("emulator.test."), Some(vec!["10.0.0.2".into(), "10.0.0.3".into(), "fd00::1".into()]));
        for absent in ["commented", "why", "line", "10.0.0.2", "emul"] {
            assert_eq!(addresses(absent), None, "{absent}");
        }
    }

    #[test]
    fn a_name_with_a_dot_is_absolute() {
        assert_eq!(absolute("kms.eu-west-1.amazonaws.com"), "kms.eu-west-1.amazonaws.com.");
        assert_eq!(absolute("already.absolute."), "already.absolute.");
        assert_eq!(absolute("emulator"), "emulator");
    }
}
