//! Is the agent alive, is it ready, what are its figures: HTTP on a socket of its own, never the one that values go over.
//!
//! `/livez` answers as long as the event loop turns; `/readyz` only while accesses can be written down and no store is known to
//! be down; `/metrics` holds figures without names. Loopback or a Unix socket only, GET only, one request on a connection.

pub(crate) mod metrics;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Where the answers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A loopback address and port.
    Loopback(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// Why a text is no address for this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressError;

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`unix:PATH`, `127.0.0.1:PORT` or `[::1]:PORT`")
    }
}

impl std::error::Error for AddressError {}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(AddressError) } else { Ok(Self::Unix(path.into())) };
        }
        let address: SocketAddr = text.parse().map_err(|_| AddressError)?;
        if address.ip().is_loopback() { Ok(Self::Loopback(address)) } else { Err(AddressError) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", crate::name::show(path)),
        }
    }
}

/// What there is to tell.
pub(crate) trait Tell {
    /// Why it is not ready; `None` if it is.
    fn unready(&self) -> Option<&'static str>;
    /// The text of `/metrics`.
    fn metrics(&self) -> String;
}

/// The longest request. What asks for health says little.
const LARGEST: usize = 4096;

/// For one request and its answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Serves one connection.
pub(crate) async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, tell: &impl Tell) {
    let talk = async {
        let request = read(&mut stream).await?;
        let answer = answer(&request, tell);
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    };
    // Whoever is too slow or goes away gets nothing; nobody waits for it.
    timeout(PATIENCE, talk).await.map(Result::unwrap_or_default).unwrap_or_default();
}

/// The head of a request, or as much of it as is allowed.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(512);
    while head.len() < LARGEST && !head.windows(4).any(|window| window == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    Ok(head)
}

fn answer(head: &[u8], tell: &impl Tell) -> String {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    let is_whole = matches!(request.parse(head), Ok(httparse::Status::Complete(_)));
    let text = "text/plain; charset=utf-8";
    let (status, kind, body) = match (is_whole, request.method, request.path) {
        (false, ..) | (_, None, _) | (.., None) => ("400 Bad Request", text, "bad request\n".to_owned()),
        (_, Some(method), _) if method != "GET" => ("405 Method Not Allowed", text, "only GET\n".to_owned()),
        (.., Some("/livez")) => ("200 OK", text, "alive\n".to_owned()),
        (.., Some("/readyz")) => match tell.unready() {
            None => ("200 OK", text, "ready\n".to_owned()),
            Some(why) => ("503 Service Unavailable", text, format!("not ready: {why}\n")),
        },
        (.., Some("/metrics")) => {
            ("200 OK", "application/openmetrics-text; version=1.0.0; charset=utf-8", tell.metrics())
        }
        _ => ("404 Not Found", text, "/livez, /readyz or /metrics\n".to_owned()),
    };
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Told(Option<&'static str>);

    impl Tell for Told {
        fn unready(&self) -> Option<&'static str> {
            self.0
        }

        fn metrics(&self) -> String {
            "figures\n".into()
        }
    }

    fn ask(request: &str, unready: Option<&'static str>) -> String {
        answer(request.as_bytes(), &Told(unready))
    }

    #[test]
    fn only_loopback_and_unix_sockets_are_addresses() {
        assert_eq!("unix:/run/x".parse(), Ok(Address::Unix("/run/x".into())));
        assert!(matches!("127.0.0.1:9".parse(), Ok(Address::Loopback(_))));
        assert!(matches!("[::1]:9".parse(), Ok(Address::Loopback(_))));
        for wrong in ["unix:", "0.0.0.0:9", "10.0.0.1:9", "localhost:9", "9", "", "[::]:9", "/run/x"] {
            assert_eq!(wrong.parse::<Address>(), Err(AddressError), "{wrong}");
        }
    }

    #[test]
    fn alive_ready_and_figures() {
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(ask(&get("/livez"), Some("down")).starts_with("HTTP/1.1 200 OK\r\n"), "a backend is not our life");
        assert!(ask(&get("/readyz"), None).starts_with("HTTP/1.1 200 OK\r\n"));
        let unready = ask(&get("/readyz"), Some("a store is down"));
        assert!(unready.starts_with("HTTP/1.1 503 ") && unready.ends_with("not ready: a store is down\n"));
        assert!(ask(&get("/metrics"), None).ends_with("Content-Length: 8\r\nConnection: close\r\n\r\nfigures\n"));
        assert!(ask(&get("/"), None).starts_with("HTTP/1.1 404 "));
        assert!(ask("POST /livez HTTP/1.1\r\n\r\n", None).starts_with("HTTP/1.1 405 "));
        for wrong in ["", "GET /livez", "GET /livez HTTP/1.1\r\n", "\0\r\n\r\n"] {
            assert!(ask(wrong, None).starts_with("HTTP/1.1 400 "), "{wrong:?}");
        }
    }
}
