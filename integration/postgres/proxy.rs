//! A TCP proxy between a client and PostgreSQL that loses an answer at the statement that it is told of.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What happens at the statement.
#[derive(Clone)]
pub enum Loss {
    /// The server never gets it.
    Request,
    /// The server does it; its answer is dropped, and the connection cut.
    Answer,
    /// The server does it; its answer is dropped, and the connection stays silent.
    Silence,
    /// The server does it; the answer is dropped, and something is done meanwhile: a crash.
    Meanwhile(Arc<Mutex<dyn FnMut() + Send>>),
    /// The server does it; from then on nobody gets through.
    Everything,
}

/// A running proxy. Ends when dropped.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    word: &'static [u8],
    loss: Loss,
    server: u16,
    /// The loss is still to come.
    is_armed: AtomicBool,
    is_closed: AtomicBool,
    hits: AtomicU32,
    stop: AtomicBool,
}

const TICK: Duration = Duration::from_millis(5);

impl Proxy {
    /// Loses as `loss` says at the first message of a client that holds `word`.
    pub fn start(server: u16, word: &'static str, loss: Loss) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        listener.set_nonblocking(true).unwrap();
        let shared = Arc::new(Shared {
            word: word.as_bytes(),
            loss,
            server,
            is_armed: AtomicBool::new(true),
            is_closed: AtomicBool::new(false),
            hits: AtomicU32::new(0),
            stop: AtomicBool::new(false),
        });
        let all = Arc::clone(&shared);
        std::thread::spawn(move || {
            while !all.stop.load(Ordering::SeqCst) {
                match listener.accept() {
                    Ok((client, _)) => {
                        let shared = Arc::clone(&all);
                        std::thread::spawn(move || shared.carry(client));
                    }
                    Err(_) => std::thread::sleep(TICK),
                }
            }
        });
        Self { port, shared }
    }

    /// The loss is to come again; whether the one before has come.
    pub fn arm(&self) -> bool {
        !self.shared.is_armed.swap(true, Ordering::SeqCst)
    }

    /// How often the statement came by.
    pub fn hits(&self) -> u32 {
        self.shared.hits.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    fn carry(&self, mut client: TcpStream) {
        client.set_nonblocking(false).unwrap();
        if self.is_closed.load(Ordering::SeqCst) {
            return;
        }
        let Ok(mut server) = TcpStream::connect(("127.0.0.1", self.server)) else { return };
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(TICK)).unwrap();
            stream.set_nodelay(true).unwrap();
        }
        let mut silent = false;
        while !self.stop.load(Ordering::SeqCst) {
            let Some(asked) = read(&mut client) else { break };
            let is_it = asked.windows(self.word.len()).any(|window| window == self.word);
            if is_it {
                self.hits.fetch_add(1, Ordering::SeqCst);
            }
            if is_it && self.is_armed.swap(false, Ordering::SeqCst) {
                if matches!(self.loss, Loss::Request) {
                    break;
                }
                server.write_all(&asked).unwrap();
                // The server has done it when it has answered.
                while read(&mut server).is_some_and(|answer| answer.is_empty()) {}
                match &self.loss {
                    Loss::Request | Loss::Answer => break,
                    Loss::Silence => silent = true,
                    Loss::Meanwhile(work) => {
                        (work.lock().unwrap())();
                        break;
                    }
                    Loss::Everything => {
                        self.is_closed.store(true, Ordering::SeqCst);
                        break;
                    }
                }
                continue;
            }
            if !silent && !asked.is_empty() && server.write_all(&asked).is_err() {
                break;
            }
            match read(&mut server) {
                Some(answer) if !silent && client.write_all(&answer).is_err() => break,
                Some(_) => {}
                None if silent => {}
                None => break,
            }
        }
        client.shutdown(Shutdown::Both).unwrap_or_default();
        server.shutdown(Shutdown::Both).unwrap_or_default();
    }
}

/// What has come within a tick; `None` at the end.
fn read(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 64 * 1024];
    match stream.read(&mut buffer) {
        Ok(0) => None,
        Ok(count) => {
            buffer.truncate(count);
            Some(buffer)
        }
        Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
            Some(Vec::new())
        }
        Err(_) => None,
    }
}
