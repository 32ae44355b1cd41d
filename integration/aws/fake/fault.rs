//! What goes wrong, when, and how often. A fault is tied to an operation and counts its requests.

use std::time::Duration;

use serde_json::Value;

/// A scripted fault.
pub struct Fault {
    target: String,
    naming: Option<String>,
    skip: usize,
    times: usize,
    pub action: Action,
}

/// What happens to a request.
pub enum Action {
    /// Waits, then answers as if nothing had been.
    Delay(Duration),
    /// Closes the connection; nothing was done.
    DropBefore,
    /// Does what was asked, then closes the connection without a reply.
    DropAfter,
    /// Never answers, and keeps the connection. Nothing was done.
    Silence,
    /// Does what was asked, then never answers.
    SilenceAfter,
    /// The reply comes at one byte each 100 ms.
    Drip,
    /// An error of AWS; nothing was done.
    Error { status: u16, code: String, message: Option<String> },
    /// Does what was asked, then says that it failed.
    ErrorAfter { status: u16, code: String },
    /// A status with a page for people, as a load balancer sends it.
    Page(u16),
    /// This body, with status 200.
    Body(Vec<u8>),
    /// This body under this `content-encoding`, with status 200.
    Encoded(&'static str, Vec<u8>),
    /// The right reply, cut off after so many bytes of its body.
    Truncate(usize),
    /// The right reply under another content type.
    ContentType(&'static str),
    /// A redirect to somewhere.
    Redirect(String),
    /// What this makes of the request's body, with status 200.
    Answer(Box<dyn FnMut(&Value) -> Value + Send>),
    /// The right reply, changed.
    Rewrite(Box<dyn FnMut(&mut Value) + Send>),
}

impl Fault {
    /// On every request of `target` (the operation's name, `*` for all), until told otherwise.
    pub fn on(target: &str, action: Action) -> Self {
        Self { target: target.into(), naming: None, skip: 0, times: usize::MAX, action }
    }

    /// An error of AWS on every request of `target`, with a message that holds what must never be shown.
    pub fn error(target: &str, status: u16, code: &str) -> Self {
        let message = Some(super::SDK_CANARY.to_owned());
        Self::on(target, Action::Error { status, code: code.into(), message })
    }

    /// Lets the first `count` requests pass.
    pub fn skip(mut self, count: usize) -> Self {
        self.skip = count;
        self
    }

    /// Happens so often, then no more.
    pub fn times(mut self, count: usize) -> Self {
        self.times = count;
        self
    }

    /// Only on requests whose body has this text.
    pub fn naming(mut self, text: &str) -> Self {
        self.naming = Some(text.into());
        self
    }

    /// Whether it happens now. Counts.
    pub fn happens(&mut self, target: &str, body: &[u8]) -> bool {
        let names = |text: &String| String::from_utf8_lossy(body).contains(text.as_str());
        if (self.target != "*" && self.target != target) || !self.naming.as_ref().is_none_or(names) {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        if self.times == 0 {
            return false;
        }
        self.times -= 1;
        true
    }
}

/// A bucket that holds one second's worth of requests.
pub struct Bucket {
    rate: f64,
    tokens: f64,
    at: std::time::Instant,
}

impl Bucket {
    /// `rate` requests each second.
    pub fn new(rate: u32) -> Self {
        Self { rate: f64::from(rate), tokens: f64::from(rate), at: std::time::Instant::now() }
    }

    /// Whether a request may pass.
    pub fn take(&mut self) -> bool {
        let now = std::time::Instant::now();
        self.tokens = (self.tokens + self.rate * now.duration_since(self.at).as_secs_f64()).min(self.rate);
        self.at = now;
        let passes = self.tokens >= 1.0;
        if passes {
            self.tokens -= 1.0;
        }
        passes
    }
}
