//! One connection: frames in, frames out, each with its time. Whoever is slow waits for himself.

use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};

use super::Agent;
use super::access::{Frame, Last, Peer, READING, answer, refuse};
use super::limits::Slot;
use super::{report, subscription};
use crate::agent::protocol::reply::Refusal;
use crate::agent::protocol::request::{Purpose, Request};
use crate::agent::protocol::{FrameError, HEADER, LARGEST_REQUEST, body_length, decode_request};

/// For a request, from its first byte to its last.
const REQUEST: Duration = Duration::from_secs(2);

/// Between a reply and the next request.
const IDLE: Duration = Duration::from_secs(10);

/// Serves one connection to its end.
pub(super) async fn serve(agent: Rc<Agent>, mut stream: UnixStream, peer: Peer, slot: Slot) {
    let mut last: Last = None;
    let mut wait = REQUEST;
    let mut stopping = agent.stopping.subscribe();
    loop {
        let request = tokio::select! {
            biased;
            request = read_request(&mut stream, wait) => request,
            // What was begun is finished; what was not, is not.
            _ = stopping.wait_for(|stopping| *stopping) => break,
        };
        let (frame, is_last) = match request {
            Ok(Some(Request::Resolve(ask))) if let Purpose::Watch { has } = ask.purpose => {
                // A task of its own, which is smaller than this one.
                tokio::task::spawn_local(subscription::serve(agent, stream, peer, slot, ask, has));
                return;
            }
            Ok(Some(request)) => (answer(&agent, &peer, request, &mut last).await, false),
            Ok(None) => break,
            Err(Trouble::Senseless) => {
                agent.metrics.malformed();
                (refuse(Refusal::Malformed), true)
            }
            Err(Trouble::Gone) => break,
        };
        if write(&mut stream, frame).await.is_err() {
            report::note_undelivered(&mut last).await;
            break;
        }
        if is_last {
            break;
        }
        wait = IDLE;
    }
    drop(slot);
}

/// Answers a connection that there is no room for, as far as that goes without waiting.
pub(super) fn turn_away(stream: &UnixStream) {
    if let Frame::Other(frame) = refuse(Refusal::Busy) {
        stream.try_write(frame.expose()).map(drop).unwrap_or_default();
    }
}

/// Why there is no request.
pub(super) enum Trouble {
    /// The other side is gone.
    Gone,
    /// It sends something else, or too slowly.
    Senseless,
}

/// The next request; `None` if the other side has closed, or said nothing for `wait`.
async fn read_request(stream: &mut UnixStream, wait: Duration) -> Result<Option<Request>, Trouble> {
    let mut deadline = Instant::now() + wait;
    let mut frame = Vec::with_capacity(1024);
    loop {
        match timeout_at(deadline, stream.read_buf(&mut frame)).await {
            Err(_) if frame.is_empty() => return Ok(None),
            Err(_) => return Err(Trouble::Senseless),
            Ok(Err(_)) => return Err(Trouble::Gone),
            Ok(Ok(0)) if frame.is_empty() => return Ok(None),
            Ok(Ok(0)) => return Err(Trouble::Gone),
            Ok(Ok(count)) => {
                if count == frame.len() {
                    deadline = deadline.min(Instant::now() + REQUEST);
                }
            }
        }
        match complete(&frame) {
            Ok(Some(body)) => return decode_request(body).map(Some).map_err(|_| Trouble::Senseless),
            Ok(None) => {}
            Err(_) => return Err(Trouble::Senseless),
        }
    }
}

/// The body, once the frame is whole. More than that must not have come: the next request follows the reply.
fn complete(frame: &[u8]) -> Result<Option<&[u8]>, FrameError> {
    let Some((header, body)) = frame.split_first_chunk::<HEADER>() else { return Ok(None) };
    match body_length(*header, LARGEST_REQUEST)? {
        length if body.len() < length => Ok(None),
        length if body.len() == length => Ok(Some(body)),
        _ => Err(FrameError::Malformed),
    }
}

pub(super) async fn write(stream: &mut UnixStream, frame: Frame) -> Result<(), Trouble> {
    let frame = match frame {
        Frame::Granted(released) => released.into_inner(),
        Frame::Other(frame) => frame,
    };
    match timeout_at(Instant::now() + READING, stream.write_all(frame.expose())).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Trouble::Gone),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::protocol::encode_request;

    #[test]
    fn a_frame_is_complete_when_it_is_and_never_more() {
        let frame = encode_request(&Request::Status).unwrap();
        for end in 0..frame.len() {
            assert_eq!(complete(&frame[..end]), Ok(None), "{end} bytes");
        }
        assert_eq!(complete(&frame), Ok(Some(&frame[HEADER..])));
        assert_eq!(complete(&[&frame[..], &[0]].concat()), Err(FrameError::Malformed));
        assert_eq!(complete(&[0xff; 4]), Err(FrameError::TooLong));
    }
}
