//! A strict, scriptable AWS in one process: SSM, KMS, STS and the credential endpoints, on a loopback port.
//!
//! It is strict where the usual emulators are not: signatures are verified, names, sizes, tiers, labels, keys and contexts
//! are judged as AWS judges them, an update can collide, requests can be throttled. It is scriptable: see [`fault::Fault`].
//! And it remembers every request ([`Record`]), so that tests can count.

pub mod credentials;
pub mod fault;
pub mod http;
pub mod iam;
mod judge;
pub mod kms;
mod labels;
pub mod names;
pub mod server;
pub mod sigv4;
pub mod ssm;
mod view;

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use ring::rand::SecureRandom;
use serde_json::{Value, json};

use credentials::Credentials;
use fault::{Action, Bucket, Fault};
use http::{Reply, Request};
pub use server::Fake;

pub const ACCOUNT: &str = "111122223333";
pub const REGION: &str = "eu-west-1";
/// A text of AWS's own error messages: it must be in nothing that vouchsafe prints.
pub const SDK_CANARY: &str = "text-of-the-service-that-nobody-may-repeat";

/// Everything that the fake knows. A test changes it through [`Fake::world`].
pub struct World {
    pub ssm: ssm::Ssm,
    pub kms: kms::Kms,
    pub credentials: Credentials,
    pub faults: Vec<Fault>,
    pub bucket: Option<Bucket>,
    /// Names that no call may touch: a call that does is denied as a whole.
    pub denied: BTreeSet<String>,
    /// Operations that are denied.
    pub denied_operations: BTreeSet<String>,
    /// An IAM policy that every call is judged by; without one everything is allowed that is not denied.
    pub iam: Option<Value>,
    /// Added to each answer.
    pub latency: Duration,
    /// How long a write of a parameter takes; two that overlap are TooManyUpdates.
    pub write_time: Duration,
    /// Seconds that the server's clock is ahead.
    pub clock: i64,
    pub records: Vec<Record>,
    writing: BTreeSet<String>,
    in_flight: usize,
}

/// One request as it came, and what became of it.
#[derive(Debug, Clone)]
pub struct Record {
    /// The operation: `GetParameters`, `Decrypt`, `AssumeRole`; else method and path.
    pub target: String,
    /// The body, where it is JSON or a form.
    pub body: Value,
    pub request: Request,
    pub at: Instant,
    /// Which connection it came on, counted from 1.
    pub connection: u64,
    /// Requests being answered, this one too.
    pub in_flight: usize,
    /// `ok`, the code of an error, or the word for what was scripted.
    pub outcome: String,
    /// Where the signing key came from: `static`, `assume-role`, `web-identity`, `container`, `imds`.
    pub signed_with: Option<&'static str>,
}

impl Record {
    /// The names that it asks for or writes.
    pub fn names(&self) -> Vec<String> {
        let many = self.body["Names"].as_array().into_iter().flatten();
        many.chain(self.body.get("Name")).filter_map(Value::as_str).map(str::to_owned).collect()
    }
}

/// An error as AWS sends it. Some come without a message.
#[derive(Debug, Clone)]
pub struct AwsError {
    pub status: u16,
    pub code: String,
    pub message: Option<String>,
}

impl AwsError {
    pub fn new(status: u16, code: &str, message: &str) -> Self {
        let message = (!message.is_empty()).then(|| message.to_owned());
        Self { status, code: code.into(), message }
    }

    pub fn validation(message: &str) -> Self {
        Self::new(400, "ValidationException", message)
    }

    fn reply(&self) -> Reply {
        // SSM and KMS say `message` or `Message`, and both at times say nothing.
        let mut body = json!({ "__type": self.code });
        if let Some(message) = &self.message {
            body["message"] = message.as_str().into();
        }
        json_reply(self.status, &body)
    }
}

/// What the server does with a connection after a request.
pub enum Verdict {
    Reply(Reply),
    /// Says this, then closes.
    Cut(Vec<u8>),
    Drip(Reply),
    Silence,
}

impl World {
    fn new() -> Self {
        Self {
            ssm: ssm::Ssm::default(),
            kms: kms::Kms::default(),
            credentials: Credentials::default(),
            faults: Vec::new(),
            bucket: None,
            denied: BTreeSet::new(),
            denied_operations: BTreeSet::new(),
            iam: None,
            latency: Duration::ZERO,
            write_time: Duration::ZERO,
            clock: 0,
            records: Vec::new(),
            writing: BTreeSet::new(),
            in_flight: 0,
        }
    }

    fn now(&self) -> SystemTime {
        let shift = Duration::from_secs(self.clock.unsigned_abs());
        if self.clock < 0 { SystemTime::now() - shift } else { SystemTime::now() + shift }
    }

    /// Notes a request and finds the fault that it meets: the place of both, and how long to wait first.
    fn receive(&mut self, request: &Request, connection: u64) -> (usize, Option<usize>, Duration) {
        let (target, body) = target_of(request);
        self.in_flight += 1;
        let fault = self.faults.iter_mut().position(|fault| fault.happens(&target, &request.body));
        let wait = match fault.map(|at| &self.faults[at].action) {
            Some(Action::Delay(time)) => self.latency + *time,
            _ => self.latency,
        };
        let (request, in_flight) = (request.clone(), self.in_flight);
        let (at, outcome) = (Instant::now(), "unanswered".into());
        self.records.push(Record { target, body, request, at, connection, in_flight, outcome, signed_with: None });
        (self.records.len() - 1, fault, wait)
    }

    /// The answer to a request that was received, with its fault.
    fn answer(&mut self, record: usize, fault: Option<usize>) -> Verdict {
        self.in_flight -= 1;
        let request = self.records[record].request.clone();
        if let Some(bucket) = &mut self.bucket
            && !bucket.take()
        {
            self.records[record].outcome = "ThrottlingException".into();
            return Verdict::Reply(AwsError::new(400, "ThrottlingException", "Rate exceeded").reply());
        }
        let slot = fault.and_then(|at| self.faults.get_mut(at));
        let mut action = slot.map(|fault| std::mem::replace(&mut fault.action, Action::DropBefore));
        let mut verdict = match &mut action {
            None => Verdict::Reply(self.perform(record, &request)),
            Some(action) => self.act(action, record, &request),
        };
        if let Verdict::Reply(reply) = &mut verdict {
            reply.headers.push(("date".into(), view::http_date(self.now())));
        }
        if let (Some(fault), Some(action)) = (fault.and_then(|at| self.faults.get_mut(at)), action) {
            fault.action = action;
        }
        verdict
    }

    fn act(&mut self, action: &mut Action, record: usize, request: &Request) -> Verdict {
        let scripted = |world: &mut Self, word: &str| world.records[record].outcome = word.into();
        match action {
            Action::Delay(_) => Verdict::Reply(self.perform(record, request)),
            Action::DropBefore => {
                scripted(self, "dropped");
                Verdict::Cut(Vec::new())
            }
            Action::DropAfter => {
                self.perform(record, request);
                Verdict::Cut(Vec::new())
            }
            Action::Silence => {
                scripted(self, "silence");
                Verdict::Silence
            }
            Action::SilenceAfter => {
                self.perform(record, request);
                Verdict::Silence
            }
            Action::Drip => Verdict::Drip(self.perform(record, request)),
            Action::Error { status, code, message } => {
                scripted(self, code);
                let error = AwsError { status: *status, code: code.clone(), message: message.clone() };
                let query = request.header("content-type").is_some_and(|kind| kind.contains("form-urlencoded"));
                Verdict::Reply(if query { credentials::sts_error(&error) } else { error.reply() })
            }
            Action::ErrorAfter { status, code } => {
                self.perform(record, request);
                Verdict::Reply(AwsError::new(*status, code, SDK_CANARY).reply())
            }
            Action::Page(status) => {
                scripted(self, "page");
                let page = format!("<html><body><h1>{status}</h1>{SDK_CANARY}</body></html>");
                Verdict::Reply(Reply::new(*status, "text/html", page))
            }
            Action::Body(body) => {
                scripted(self, "body");
                Verdict::Reply(Reply::new(200, JSON, body.clone()))
            }
            Action::Encoded(encoding, body) => {
                scripted(self, "encoded");
                Verdict::Reply(Reply::new(200, JSON, body.clone()).with("content-encoding", encoding))
            }
            Action::Truncate(length) => {
                let reply = self.perform(record, request);
                let mut bytes = reply.head(reply.body.len());
                bytes.extend_from_slice(&reply.body[..reply.body.len().min(*length)]);
                Verdict::Cut(bytes)
            }
            Action::ContentType(kind) => Verdict::Reply(self.perform(record, request).with("content-type", kind)),
            Action::Redirect(place) => {
                scripted(self, "redirect");
                Verdict::Reply(Reply::new(307, JSON, "").with("location", place))
            }
            Action::Answer(answer) => {
                scripted(self, "answer");
                let body = answer(&self.records[record].body);
                Verdict::Reply(json_reply(200, &body))
            }
            Action::Rewrite(change) => {
                let mut reply = self.perform(record, request);
                let mut body = serde_json::from_slice(&reply.body).unwrap();
                change(&mut body);
                reply.body = body.to_string().into_bytes();
                Verdict::Reply(reply)
            }
        }
    }

    /// Does what is asked, as AWS would.
    fn perform(&mut self, record: usize, request: &Request) -> Reply {
        let now = self.now();
        if request.path.starts_with("/latest/") {
            self.records[record].outcome = "ok".into();
            return self.credentials.imds(request, now);
        }
        if request.path.starts_with("/credentials") {
            self.records[record].outcome = "ok".into();
            return self.credentials.container(request, now);
        }
        let query = request.header("content-type").is_some_and(|kind| kind.contains("form-urlencoded"));
        let unsigned = self.records[record].target == "AssumeRoleWithWebIdentity";
        let signer = match sigv4::verify(request, &self.credentials.keys, REGION, now) {
            Ok((id, _)) => Some(id),
            Err(_) if unsigned => None,
            Err(error) => {
                self.records[record].outcome = error.code.clone();
                return if query { credentials::sts_error(&error) } else { error.reply() };
            }
        };
        let source = signer.as_ref().and_then(|id| self.credentials.sources.get(id)).copied();
        self.records[record].signed_with = source;
        if query {
            let reply = self.credentials.sts(&credentials::form(&request.body), signer.as_deref(), now);
            self.records[record].outcome = if reply.status == 200 { "ok" } else { "sts error" }.into();
            return reply;
        }
        let (service, operation) = service_of(request);
        let body = self.records[record].body.clone();
        let answer = self.judge(&self.records[record]).and_then(|()| match service {
            "AmazonSSM" => self.ssm.call(operation, &body, &self.kms, &format!("arn:aws:iam::{ACCOUNT}:user/test")),
            "TrentService" => self.kms.call(operation, &body),
            _ => Err(AwsError::new(400, "UnknownOperationException", "")),
        });
        match answer {
            Ok(body) => {
                self.records[record].outcome = "ok".into();
                json_reply(200, &body)
            }
            Err(error) => {
                self.records[record].outcome = error.code.clone();
                error.reply()
            }
        }
    }
}

const JSON: &str = "application/x-amz-json-1.1";

fn json_reply(status: u16, body: &Value) -> Reply {
    Reply::new(status, JSON, body.to_string()).with("x-amzn-requestid", &random_text(32))
}

fn service_of(request: &Request) -> (&str, &str) {
    request.header("x-amz-target").and_then(|target| target.split_once('.')).unwrap_or(("", ""))
}

/// The operation of a request, and its body as a value.
fn target_of(request: &Request) -> (String, Value) {
    if request.header("content-type").is_some_and(|kind| kind.contains("form-urlencoded")) {
        let form = credentials::form(&request.body);
        return (form.get("Action").cloned().unwrap_or_default(), json!(form));
    }
    match service_of(request) {
        ("", _) => (format!("{} {}", request.method, request.path), Value::Null),
        (_, operation) => (operation.into(), serde_json::from_slice(&request.body).unwrap_or(Value::Null)),
    }
}

/// Text that nobody can guess, of letters and digits.
pub fn random_text(length: usize) -> String {
    let letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    random_bytes(length).iter().map(|byte| char::from(letters[usize::from(*byte) % letters.len()])).collect()
}

pub fn random_bytes(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    ring::rand::SystemRandom::new().fill(&mut bytes).unwrap();
    bytes
}
