//! Connection URLs, taken apart without losing a byte. Pure.
//!
//! The grammar is libpq's (PostgreSQL documentation, "Connection URIs"), less what readers disagree on: a raw `@` in a
//! password ends it for libpq and not for a browser's parser, so it is refused, as are `#` and white space.

use std::ops::Range;

use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use super::place::{DEFAULT_PORT, Host, Place};
use super::value::Malformed;

/// A connection URL. Holds positions in the text, so that all else stays as it was.
#[derive(Default)]
pub struct Url {
    /// The user, decoded.
    pub user: Option<String>,
    /// Where it stands, still encoded.
    pub user_at: Option<Range<usize>>,
    /// The password, decoded.
    pub password: Option<Zeroizing<Vec<u8>>>,
    /// Where it stands, still encoded; an empty range if it is not there yet.
    pub password_at: Range<usize>,
    /// What has to stand before a password that is not there yet.
    pub password_lead: &'static str,
    /// The hosts, in order. None is left to libpq's default.
    pub places: Vec<Place>,
    /// The database.
    pub dbname: Option<String>,
    /// The other parameters, decoded.
    pub parameters: Vec<(String, String)>,
}

/// Whether a text is one.
#[must_use]
pub fn is_url(text: &str) -> bool {
    scheme(text).is_some()
}

fn scheme(text: &str) -> Option<usize> {
    ["postgres://", "postgresql://"].into_iter().find(|scheme| text.starts_with(scheme)).map(str::len)
}

/// Takes a URL apart.
///
/// # Errors
/// It is none that every reader understands in the same way.
pub fn parse(text: &str) -> Result<Url, Malformed> {
    let start = scheme(text).ok_or(Malformed("it is no postgres:// URL"))?;
    if text.contains(|c: char| c == '#' || c.is_whitespace() || c.is_control()) {
        return Err(Malformed(
            "its URL has a `#`, a space or a control character, which are written in percent-encoding",
        ));
    }
    let end = text.get(start..).and_then(|rest| rest.find(['/', '?'])).map_or(text.len(), |at| start + at);
    let mut url = Url::default();
    let hosts_at = url.userinfo(text, start..end)?;
    let mut hosts = piece(text, hosts_at).to_owned();
    let mut ports = None;
    let rest = piece(text, end..text.len());
    let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
    let dbname = decode(path.strip_prefix('/').unwrap_or_default())?;
    url.dbname = (!dbname.is_empty()).then_some(dbname);
    let mut at = text.len() - query.map_or(0, str::len);
    for pair in query.into_iter().flat_map(|query| query.split('&')) {
        let pair_at = at;
        at += pair.len() + 1;
        if pair.is_empty() {
            continue;
        }
        let (key, value) = pair.split_once('=').ok_or(Malformed("a parameter of its URL has no `=`"))?;
        let value_at = pair_at + key.len() + 1..pair_at + pair.len();
        let once = |is_there: bool| if is_there { Err(Malformed("its URL says something twice")) } else { Ok(()) };
        match key {
            "user" => {
                once(url.user.is_some())?;
                url.user = Some(decode(value)?);
                if url.password.is_none() {
                    (url.password_at, url.password_lead) = (value_at.end..value_at.end, "&password=");
                }
                url.user_at = Some(value_at);
            }
            "password" => {
                once(url.password.is_some())?;
                url.password = Some(decode_bytes(value)?);
                (url.password_at, url.password_lead) = (value_at, "");
            }
            "host" => {
                once(!hosts.is_empty())?;
                hosts = decode(value)?;
            }
            "port" => {
                once(ports.is_some())?;
                ports = Some(decode(value)?);
            }
            "dbname" => {
                once(url.dbname.is_some())?;
                url.dbname = Some(decode(value)?);
            }
            _ => {
                once(url.parameters.iter().any(|(known, _)| known == key))?;
                url.parameters.push((decode(key)?, decode(value)?));
            }
        }
    }
    url.places = places(&hosts, ports.as_deref())?;
    Ok(url)
}

impl Url {
    /// The value of a parameter.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Reads what stands before the `@`, and answers where the hosts stand.
    fn userinfo(&mut self, text: &str, authority: Range<usize>) -> Result<Range<usize>, Malformed> {
        let (start, end) = (authority.start, authority.end);
        let Some((userinfo, hosts)) = piece(text, authority).split_once('@') else { return Ok(start..end) };
        if hosts.contains('@') {
            return Err(Malformed("its URL has two `@` before the host; in a user name or password it is written %40"));
        }
        let user = userinfo.split(':').next().unwrap_or_default();
        let user_end = start + user.len();
        if !user.is_empty() {
            self.user = Some(decode(user)?);
            self.user_at = Some(start..user_end);
        }
        (self.password_at, self.password_lead) = (user_end..user_end, ":");
        if let Some((_, password)) = userinfo.split_once(':') {
            let password_at = user_end + 1..start + userinfo.len();
            if !password.is_empty() {
                self.password = Some(decode_bytes(password)?);
            }
            (self.password_at, self.password_lead) = (password_at, "");
        }
        Ok(end - hosts.len()..end)
    }
}

fn piece(text: &str, range: Range<usize>) -> &str {
    text.get(range).unwrap_or_default()
}

/// `a:1,b:2` of the authority, or the lists of `host` and `port`, of which one port may stand for all hosts.
fn places(hosts: &str, ports: Option<&str>) -> Result<Vec<Place>, Malformed> {
    let ports: Vec<&str> = ports.map(|ports| ports.split(',').collect()).unwrap_or_default();
    if hosts.is_empty() {
        return Ok(Vec::new());
    }
    let entries: Vec<&str> = hosts.split(',').collect();
    if ports.len() > 1 && ports.len() != entries.len() {
        return Err(Malformed("its URL has another number of ports than of hosts"));
    }
    let place = |(number, entry): (usize, &str)| {
        let (host, port) = host_and_port(entry)?;
        let listed = if ports.len() == 1 { ports.first() } else { ports.get(number) };
        let port = match (port, listed) {
            (Some(_), Some(_)) => return Err(Malformed("its URL says something twice")),
            (Some(port), None) => port,
            (None, listed) => listed.copied().unwrap_or_default(),
        };
        let port = if port.is_empty() {
            DEFAULT_PORT
        } else {
            port.parse()
                .ok()
                .filter(|port| *port > 0)
                .ok_or(Malformed("a port of its URL is not a number from 1 to 65535"))?
        };
        let host = decode(host)?;
        if host.is_empty() {
            Err(Malformed("a host of its URL is empty"))
        } else {
            Ok(Place { host: Host::new(&host), port })
        }
    };
    entries.into_iter().enumerate().map(place).collect()
}

fn host_and_port(entry: &str) -> Result<(&str, Option<&str>), Malformed> {
    if let Some(inner) = entry.strip_prefix('[') {
        let (address, after) = inner.split_once(']').ok_or(Malformed("its URL has a `[` without its `]`"))?;
        let bad = Malformed("its URL has something between an IPv6 address and the port");
        return match after.strip_prefix(':') {
            Some(port) => Ok((address, Some(port))),
            None if after.is_empty() => Ok((address, None)),
            None => Err(bad),
        };
    }
    // An IPv6 address in a `host` parameter has no brackets.
    if entry.parse::<std::net::Ipv6Addr>().is_ok() || entry.starts_with('/') {
        return Ok((entry, None));
    }
    Ok(entry.split_once(':').map_or((entry, None), |(host, port)| (host, Some(port))))
}

fn decode(text: &str) -> Result<String, Malformed> {
    let bytes = decode_bytes(text)?;
    std::str::from_utf8(&bytes).map(ToOwned::to_owned).map_err(|_| Malformed("a part of its URL is not UTF-8"))
}

fn decode_bytes(text: &str) -> Result<Zeroizing<Vec<u8>>, Malformed> {
    let mut pieces = text.split('%');
    pieces.next();
    let is_hex = |piece: &str| piece.as_bytes().get(..2).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
    if !pieces.all(is_hex) {
        return Err(Malformed(
            "its URL has a `%` that no two hexadecimal digits follow; the sign itself is written %25",
        ));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    bytes.extend(percent_decode_str(text));
    if bytes.contains(&0) { Err(Malformed("its URL has a NUL, which PostgreSQL does not take")) } else { Ok(bytes) }
}
