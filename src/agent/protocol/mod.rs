//! The agent's protocol: messages to bytes and back. No I/O, no clock, no policy.
//!
//! - [`request`]: what a client says; [`reply`]: what the agent answers, and the only place where values are;
//!   [`rules`]: `[child]` and `[run]` on their way.
//!
//! A frame is a length and a body; a body is a version and a message in postcard's encoding. What must stay true: decoding
//! never panics and never takes more memory than the frame's own length justifies; a message that is followed by anything,
//! or that has another encoding than the one that we would write, is refused; a frame that may hold values is a [`Secret`].
//! `docs/spec/agent-protocol.md` is normative.
#![forbid(unsafe_code)]

pub mod reply;
pub mod request;
pub mod rules;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::secret::Secret;
use reply::Reply;
use request::Request;

/// The version of the messages, the first byte of every body.
pub const VERSION: u8 = 1;

/// The length that comes before every body.
pub const HEADER: usize = 4;

/// The longest body of a request, in bytes.
pub const LARGEST_REQUEST: usize = 64 * 1024;

/// The longest body of a reply, in bytes: more than an environment can be (execve(2): 6 MiB).
pub const LARGEST_REPLY: usize = 16 * 1024 * 1024;

/// Why a frame makes no sense. Holds nothing of what it said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// The message is not one of this version, is cut off, is followed by something, or is written in another way than
    /// the only right one.
    Malformed,
    /// The body is longer than is allowed.
    TooLong,
    /// The other side speaks this version.
    Version(u8),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => write!(f, "the message makes no sense"),
            Self::TooLong => write!(f, "the message is longer than is allowed"),
            Self::Version(version) => {
                write!(f, "the other side speaks version {version} of the protocol, not {VERSION}")
            }
        }
    }
}

impl std::error::Error for FrameError {}

/// How long the body is that a header announces.
///
/// # Errors
/// Longer than `limit`, or empty.
pub fn body_length(header: [u8; HEADER], limit: usize) -> Result<usize, FrameError> {
    match usize::try_from(u32::from_be_bytes(header)) {
        Ok(0) => Err(FrameError::Malformed),
        Ok(length) if length <= limit => Ok(length),
        Ok(_) | Err(_) => Err(FrameError::TooLong),
    }
}

/// A request as a frame.
///
/// # Errors
/// It is longer than a request may be.
pub fn encode_request(request: &Request) -> Result<Vec<u8>, FrameError> {
    encode(request, Vec::with_capacity(512), LARGEST_REQUEST)
}

/// A reply as a frame. A value in it is copied once, to where the frame is sent from.
///
/// # Errors
/// It is longer than a reply may be.
pub fn encode_reply(reply: &Reply<'_>) -> Result<Secret, FrameError> {
    encode(reply, Vec::with_capacity(reply.size_hint()), LARGEST_REPLY).map(Secret::new)
}

/// The request in a body.
///
/// # Errors
/// The body makes no sense, or is of another version.
pub fn decode_request(body: &[u8]) -> Result<Request, FrameError> {
    let request = decode(body)?;
    // A request has one encoding: no numbers with needless bytes, so that what is compared or counted is the same for all.
    match encode_request(&request) {
        Ok(canonical) if canonical.get(HEADER..) == Some(body) => Ok(request),
        Ok(_) | Err(_) => Err(FrameError::Malformed),
    }
}

/// The reply in a body. Its values borrow from the body.
///
/// # Errors
/// The body makes no sense, or is of another version.
pub fn decode_reply(body: &[u8]) -> Result<Reply<'_>, FrameError> {
    decode(body)
}

fn encode(message: &impl Serialize, mut frame: Vec<u8>, limit: usize) -> Result<Vec<u8>, FrameError> {
    frame.extend_from_slice(&[0; HEADER]);
    frame.push(VERSION);
    // A message of ours has no length that is not known, so only memory could be at fault.
    let mut frame = postcard::to_extend(message, frame).map_err(|_| FrameError::Malformed)?;
    let length = frame.len() - HEADER;
    match u32::try_from(length) {
        Ok(announced) if length <= limit => {
            frame.splice(..HEADER, announced.to_be_bytes());
            Ok(frame)
        }
        Ok(_) | Err(_) => {
            drop(Secret::new(frame));
            Err(FrameError::TooLong)
        }
    }
}

fn decode<'b, M: Deserialize<'b>>(body: &'b [u8]) -> Result<M, FrameError> {
    match body.split_first() {
        None => Err(FrameError::Malformed),
        Some((&VERSION, message)) => match postcard::take_from_bytes(message) {
            Ok((message, [])) => Ok(message),
            Ok(_) | Err(_) => Err(FrameError::Malformed),
        },
        Some((&version, _)) => Err(FrameError::Version(version)),
    }
}
