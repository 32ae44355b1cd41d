//! A session with a server: the socket is ours, so that names are resolved in this process and every wait has an end.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio_postgres::config::{ChannelBinding, SslMode};
use tokio_postgres::{Client, Config, SimpleQueryMessage};

use super::error::{Failure, Login};
use super::place::{Host, Place};
use super::tls::{Security, Tls};
use super::witness::{Allowed, Watched};
use crate::store::aws::resolver::Names;

/// For a socket, the handshake and the login together.
pub const CONNECT: Duration = Duration::from_secs(10);
/// For one statement, at the server.
pub const STATEMENT: Duration = Duration::from_secs(10);
/// How much longer its answer is waited for here.
const MARGIN: Duration = Duration::from_secs(2);
/// The end of a session.
const GOODBYE: Duration = Duration::from_secs(1);
/// The SQLSTATE of a server that only reads.
const READ_ONLY: &str = "25006";
/// What `pg_stat_activity` shows.
pub const APPLICATION: &str = "vouchsafe-rotate";

/// How to get to a server.
pub struct Way {
    /// Its places, in order; the first that takes writes is used.
    pub places: Vec<(Place, Security)>,
    /// The settings of TLS.
    pub tls: Arc<ClientConfig>,
    /// SCRAM has to be bound to the TLS session.
    pub is_binding_required: bool,
    /// Resolves names.
    pub names: Names,
}

/// Who logs in. No `Debug`: it holds the password.
pub struct Who<'a> {
    /// The role.
    pub role: &'a str,
    /// Its password.
    pub password: Option<&'a [u8]>,
    /// The database.
    pub dbname: &'a str,
    /// The login has to prove the password.
    pub is_proof: bool,
}

/// A session.
pub struct Session {
    client: Client,
    driver: JoinHandle<()>,
    /// Where.
    pub place: Place,
    /// The server process.
    pub pid: String,
    /// The role that logged in: what `SET ROLE`, by hand or by `ALTER ROLE ... SET role`, does not change.
    pub role: String,
    /// The version, such as 150018.
    pub version: u32,
}

/// Logs in at the first place that takes writes; at `only`, where that is given. A place that cannot be reached is passed
/// over. So is one that refuses the credential: it may be a standby that knows no better yet.
///
/// # Errors
/// The last failure. [`Login::Refused`] only where no place was left that could have known better.
pub async fn log_in(way: &Way, who: &Who<'_>, only: Option<&Place>) -> Result<Session, Failure> {
    let mut refusal = None;
    let mut failure = None;
    for (place, security) in way.places.iter().filter(|(place, _)| only.is_none_or(|only| only == place)) {
        match tokio::time::timeout(CONNECT, log_in_at(way, place, *security, who)).await {
            Ok(Ok((session, false))) => return Ok(session),
            Ok(Ok((session, true))) => {
                session.end().await;
                // It has judged too, and would not be the one to alter anything.
                refusal.get_or_insert_with(|| Failure::Sql(READ_ONLY.into()));
            }
            Ok(Err(refused @ (Failure::Unproven(_) | Failure::Tls { .. }))) => return Err(refused),
            Ok(Err(refused)) if refused.login() != Login::Failed => refusal = Some(refused),
            // One that starts up or shuts down is passed over too.
            Ok(Err(refused @ Failure::Sql(_))) if !refused.is_unsettled() => return Err(refused),
            Ok(Err(other)) => failure = Some(other),
            Err(_) => {
                failure = Some(Failure::Unreachable { place: place.to_string(), why: "no answer in time".into() });
            }
        }
    }
    Err(failure.or(refusal).unwrap_or(Failure::Protocol))
}

/// A session, and whether its server only reads.
async fn log_in_at(way: &Way, place: &Place, security: Security, who: &Who<'_>) -> Result<(Session, bool), Failure> {
    let is_tls = security == Security::Verified;
    let allowed = Allowed { is_proof: who.is_proof, is_verified: is_tls };
    let socket = connect(place, &way.names).await?;
    let socket = if is_tls { Watched::unseen(socket) } else { Watched::new(socket, allowed) };
    let name = is_tls.then(|| server_name(&place.host)).transpose()?;
    let tls = Tls { config: Arc::clone(&way.tls), name, allowed };
    let mut config = Config::new();
    config.user(who.role).dbname(who.dbname).application_name(APPLICATION);
    config.ssl_mode(if is_tls { SslMode::Require } else { SslMode::Disable });
    if way.is_binding_required && is_tls {
        config.channel_binding(ChannelBinding::Require);
    }
    if let Some(password) = who.password {
        config.password(password);
    }
    // Its first error is the session's; a session that ends later fails the statement that is under way.
    let connected = config.connect_raw(socket, tls).await;
    drop(config);
    let (client, connection) = connected.map_err(|error| Failure::of(&error, place))?;
    let driver = tokio::spawn(async move { drop(connection.await) });
    let mut session =
        Session { client, driver, place: place.clone(), pid: String::new(), role: String::new(), version: 0 };
    let limit = STATEMENT.as_millis();
    let rows = session
        .rows(&format!(
            "SET statement_timeout = {limit}; SET lock_timeout = {limit}; SET search_path = pg_catalog; SELECT \
             pg_backend_pid(), session_user, current_setting('server_version_num'), pg_is_in_recovery()"
        ))
        .await?;
    let row = <[Option<String>; 4]>::try_from(rows.into_iter().next().unwrap_or_default());
    let Ok([Some(pid), Some(role), Some(version), Some(reads)]) = row else { return Err(Failure::Protocol) };
    session.version = version.parse().map_err(|_| Failure::Protocol)?;
    (session.pid, session.role) = (pid, role);
    Ok((session, reads == "t"))
}

impl Session {
    /// What statements answer, as text. They are ours, with names quoted.
    ///
    /// # Errors
    /// The server refuses, or does not answer.
    pub async fn rows(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Failure> {
        let answer = self.in_time(self.client.simple_query(sql)).await?;
        let rows = answer.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.try_get(column).ok().flatten().map(ToOwned::to_owned)).collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    }

    /// Runs one statement of the policy's in a transaction that only reads and is rolled back, up to its first row. The
    /// extended protocol takes one statement and no more. The role's own settings count, as they do for a consumer.
    ///
    /// # Errors
    /// The server refuses, or does not answer.
    pub async fn check(&mut self, sql: &str) -> Result<(), Failure> {
        self.rows("RESET search_path").await?;
        let place = self.place.clone();
        let work = async {
            let transaction = self.client.build_transaction().read_only(true).start().await?;
            let statement = transaction.prepare(sql).await?;
            let portal = transaction.bind(&statement, &[]).await?;
            transaction.query_portal(&portal, 1).await?;
            transaction.rollback().await
        };
        match tokio::time::timeout(STATEMENT + MARGIN, work).await {
            Ok(done) => done.map_err(|error| Failure::of(&error, &place)),
            Err(_) => Err(Failure::Timeout),
        }
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Failure> {
        match tokio::time::timeout(STATEMENT + MARGIN, work).await {
            Ok(done) => done.map_err(|error| Failure::of(&error, &self.place)),
            Err(_) => Err(Failure::Timeout),
        }
    }

    /// Says goodbye, so that the server frees its locks at once and logs no broken connection.
    pub async fn end(self) {
        drop(self.client);
        drop(tokio::time::timeout(GOODBYE, self.driver).await);
    }
}

fn server_name(host: &Host) -> Result<ServerName<'static>, Failure> {
    let name = match host {
        Host::Address(address) => Some(ServerName::IpAddress((*address).into())),
        Host::Name(name) => ServerName::try_from(name.clone()).ok(),
        Host::Socket(_) => None,
    };
    name.ok_or_else(|| Failure::Tls { place: host.to_string(), why: "no certificate can be for this name" })
}

async fn connect(place: &Place, names: &Names) -> Result<Socket, Failure> {
    let addresses = match &place.host {
        Host::Socket(folder) => {
            let socket = UnixStream::connect(place.socket(folder)).await;
            return socket.map(Socket::Unix).map_err(|error| Failure::unreachable(place, &error));
        }
        Host::Address(address) => vec![*address],
        Host::Name(name) => names.look_up(name).await.ok_or_else(|| Failure::Unreachable {
            place: place.to_string(),
            why: "the name was not resolved".into(),
        })?,
    };
    let mut failure = Failure::Unreachable { place: place.to_string(), why: "the name has no address".into() };
    // One that does not answer must not use up the time of the others.
    let share = CONNECT / u32::try_from(addresses.len() + 1).unwrap_or(u32::MAX);
    for address in addresses {
        match tokio::time::timeout(share, TcpStream::connect(SocketAddr::new(address, place.port))).await {
            Ok(Ok(stream)) => {
                // Only speed.
                stream.set_nodelay(true).unwrap_or_default();
                return Ok(Socket::Tcp(stream));
            }
            Ok(Err(error)) => failure = Failure::unreachable(place, &error),
            Err(_) => failure = Failure::Unreachable { place: place.to_string(), why: "no answer in time".into() },
        }
    }
    Err(failure)
}

/// A connected socket.
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
