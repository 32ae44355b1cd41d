//! The sockets: a thread for each connection, with or without TLS, until the fake is dropped.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use super::http::{Connection, Request, read_request, wait_for_end};
use super::{Fault, Record, Verdict, World};

/// A running fake AWS. Ends when dropped.
pub struct Fake {
    shared: Arc<Shared>,
    address: SocketAddr,
    tls: bool,
}

struct Shared {
    world: Mutex<World>,
    stop: AtomicBool,
    connections: AtomicU64,
}

/// How often a waiting connection looks whether the fake has ended.
const TICK: Duration = Duration::from_millis(100);
/// Nothing holds the world for so long.
const TOO_LONG: Duration = Duration::from_secs(20);

impl Fake {
    /// On a free port of 127.0.0.1.
    pub fn start() -> Self {
        Self::listen(TcpListener::bind("127.0.0.1:0").unwrap(), None)
    }

    /// The same, with TLS.
    pub fn start_tls(config: Arc<rustls::ServerConfig>) -> Self {
        Self::listen(TcpListener::bind("127.0.0.1:0").unwrap(), Some(config))
    }

    /// On a socket that the test has bound.
    pub fn listen(listener: TcpListener, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            world: Mutex::new(World::new()),
            stop: AtomicBool::new(false),
            connections: AtomicU64::new(0),
        });
        let fake = Self { shared, address, tls: tls.is_some() };
        fake.also_listen(listener, tls);
        fake
    }

    /// One more socket of the same world.
    pub fn also_listen(&self, listener: TcpListener, tls: Option<Arc<rustls::ServerConfig>>) {
        let shared = Arc::clone(&self.shared);
        // Without blocking, so that the end of the fake is noticed.
        listener.set_nonblocking(true).unwrap();
        std::thread::spawn(move || accept(&listener, &shared, tls.as_ref()));
    }

    /// What a policy's `endpoint` says.
    pub fn endpoint(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.address)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// All that it knows. Requests wait while this is held.
    pub fn world(&self) -> MutexGuard<'_, World> {
        // Two guards in one expression would wait for each other: better a failed test than a silent one.
        let start = Instant::now();
        loop {
            match self.shared.world.try_lock() {
                Ok(world) => return world,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => assert!(start.elapsed() < TOO_LONG, "the world is held elsewhere"),
            }
            std::thread::yield_now();
        }
    }

    /// Scripts a fault. Of several that fit a request, the first counts.
    pub fn fault(&self, fault: Fault) -> &Self {
        self.world().faults.push(fault);
        self
    }

    /// Stores a SecureString, as the state that the test begins with.
    pub fn secure(&self, name: &str, value: &str) -> &Self {
        self.world().ssm.seed(name, value, "SecureString");
        self
    }

    /// A new KMS key; its id.
    pub fn key(&self) -> String {
        self.world().kms.create()
    }

    /// Every request so far.
    pub fn records(&self) -> Vec<Record> {
        self.world().records.clone()
    }

    /// The requests of one operation.
    pub fn calls(&self, target: &str) -> Vec<Record> {
        self.records().into_iter().filter(|record| record.target == target).collect()
    }

    /// How many requests of one operation.
    pub fn count(&self, target: &str) -> usize {
        self.calls(target).len()
    }

    /// Forgets the requests so far, and the faults.
    pub fn forget(&self) -> &Self {
        let mut world = self.world();
        world.records.clear();
        world.faults.clear();
        drop(world);
        self
    }

    /// Connections that were made, whether or not a request came on them.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, tls: Option<&Arc<rustls::ServerConfig>>) {
    use std::os::fd::AsFd;
    while !shared.stop.load(Ordering::SeqCst) {
        let tick = rustix::event::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        let mut waiting = [rustix::event::PollFd::from_borrowed_fd(listener.as_fd(), rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut waiting, Some(&tick)).unwrap_or_default();
        while let Ok((stream, _)) = listener.accept() {
            let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
            let (shared, tls) = (Arc::clone(shared), tls.cloned());
            std::thread::spawn(move || {
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(TICK)).unwrap();
                stream.set_nodelay(true).unwrap();
                serve_one(stream, tls, &shared, number);
            });
        }
    }
}

fn serve_one(stream: TcpStream, tls: Option<Arc<rustls::ServerConfig>>, shared: &Shared, number: u64) {
    match tls {
        None => serve(&mut { stream }, shared, number),
        Some(config) => {
            let session = rustls::ServerConnection::new(config).unwrap();
            serve(&mut rustls::StreamOwned::new(session, stream), shared, number);
        }
    }
}

fn serve(stream: &mut dyn Connection, shared: &Shared, number: u64) {
    let mut ahead = Vec::new();
    while let Some(request) = read_request(stream, &mut ahead, &shared.stop) {
        let verdict = answer(&request, shared, number);
        let close = request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        match verdict {
            Verdict::Reply(reply) => {
                if stream.write_all(&reply.bytes()).and_then(|()| stream.flush()).is_err() || close {
                    return;
                }
            }
            Verdict::Cut(bytes) => {
                stream.write_all(&bytes).and_then(|()| stream.flush()).unwrap_or_default();
                return;
            }
            Verdict::Drip(reply) => {
                for byte in reply.bytes() {
                    if shared.stop.load(Ordering::Relaxed) || stream.write_all(&[byte]).is_err() {
                        return;
                    }
                    stream.flush().unwrap_or_default();
                    std::thread::sleep(TICK);
                }
            }
            Verdict::Silence => return wait_for_end(stream, &shared.stop),
        }
    }
}

fn answer(request: &Request, shared: &Shared, number: u64) -> Verdict {
    let lock = || shared.world.lock().unwrap_or_else(PoisonError::into_inner);
    let (record, fault, wait) = lock().receive(request, number);
    // The world is free while a request takes its time.
    std::thread::sleep(wait);
    let name = request_writes(&lock().records[record]);
    let Some(name) = name else { return lock().answer(record, fault) };
    let mut world = lock();
    if !world.writing.insert(name.clone()) {
        world.in_flight -= 1;
        world.records[record].outcome = "TooManyUpdates".into();
        let why = "There are concurrent updates for a resource that supports one update at a time.";
        return Verdict::Reply(super::AwsError::new(400, "TooManyUpdates", why).reply());
    }
    let time = world.write_time;
    drop(world);
    std::thread::sleep(time);
    let mut world = lock();
    world.writing.remove(&name);
    world.answer(record, fault)
}

/// The parameter that a request changes.
fn request_writes(record: &Record) -> Option<String> {
    let writes = ["PutParameter", "LabelParameterVersion", "UnlabelParameterVersion", "DeleteParameter"];
    writes.contains(&record.target.as_str()).then(|| record.body["Name"].as_str().unwrap_or("").to_owned())
}

/// Waits until something holds, for things that the other side of a socket does in its own time.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}: not within 10 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}
