//! The least of HTTP/1.1 that an AWS client speaks: one request after another on a connection that may stay open.
//!
//! Written by hand, so that a reply can be broken at any byte.

use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// A connection, with or without TLS.
pub trait Connection: Read + Write + Send {}
impl<T: Read + Write + Send> Connection for T {}

/// One request, headers in lower case.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }
}

/// One reply.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    /// A reply of a type.
    pub fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: vec![("content-type".into(), content_type.into())], body: body.into() }
    }

    /// Sets a header, in place of one of the same name.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(have, _)| have != name);
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The status line and headers, with this `content-length`.
    pub fn head(&self, length: usize) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, if self.status == 200 { "OK" } else { "Not OK" });
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {length}\r\n\r\n"));
        head.into_bytes()
    }

    /// All of it.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head(self.body.len());
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// The next request of a connection; `None` at its end. `ahead` holds what was read too far.
pub fn read_request(stream: &mut dyn Connection, ahead: &mut Vec<u8>, stop: &AtomicBool) -> Option<Request> {
    let end = loop {
        if let Some(at) = ahead.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        read_more(stream, ahead, stop)?;
    };
    let head = String::from_utf8(ahead[..end].to_vec()).ok()?;
    ahead.drain(..end + 4);
    let mut lines = head.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?);
    // A client that takes us for a proxy sends an absolute target.
    let target = target.split_once("://").map_or(target, |(_, rest)| rest.find('/').map_or("/", |at| &rest[at..]));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_lowercase(), value.trim().to_owned()))
        .collect();
    let mut request = Request { method, path: path.into(), query: query.into(), headers, body: Vec::new() };
    if request.header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
        request.body = read_chunks(stream, ahead, stop)?;
    } else {
        let length = request.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        while ahead.len() < length {
            read_more(stream, ahead, stop)?;
        }
        request.body = ahead.drain(..length).collect();
    }
    Some(request)
}

fn read_chunks(stream: &mut dyn Connection, ahead: &mut Vec<u8>, stop: &AtomicBool) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = loop {
            if let Some(at) = ahead.windows(2).position(|window| window == b"\r\n") {
                break at;
            }
            read_more(stream, ahead, stop)?;
        };
        let length = usize::from_str_radix(std::str::from_utf8(&ahead[..line]).ok()?.trim(), 16).ok()?;
        while ahead.len() < line + 2 + length + 2 {
            read_more(stream, ahead, stop)?;
        }
        body.extend_from_slice(&ahead[line + 2..line + 2 + length]);
        ahead.drain(..line + 2 + length + 2);
        if length == 0 {
            return Some(body);
        }
    }
}

/// `None` at the end of the connection or of the server. The stream has a short read timeout, so that both are noticed.
fn read_more(stream: &mut dyn Connection, ahead: &mut Vec<u8>, stop: &AtomicBool) -> Option<()> {
    let mut part = [0; 16 * 1024];
    loop {
        match stream.read(&mut part) {
            Ok(0) => return None,
            Ok(length) => {
                ahead.extend_from_slice(&part[..length]);
                return Some(());
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if stop.load(Ordering::Relaxed) {
                    return None;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

/// Waits until the other side has gone, or the server ends.
pub fn wait_for_end(stream: &mut dyn Connection, stop: &AtomicBool) {
    let mut ignored = Vec::new();
    while read_more(stream, &mut ignored, stop).is_some() {
        ignored.clear();
    }
}
