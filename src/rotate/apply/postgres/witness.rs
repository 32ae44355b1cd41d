//! How the server asked for a password: the evidence that a login proves anything.
//!
//! Where `pg_hba.conf` says `trust`, `peer` or `cert`, any password logs in, and where it says `password`, `ldap` or `pam`
//! the client would hand over the password itself. The library tells neither. So the server's first answer is looked at on
//! its way in, before the library acts on it (PostgreSQL documentation, "Message Formats": `R`, length, code).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::error::Unproven;

/// A stream whose first authentication request is looked at.
pub struct Watched<S> {
    inner: S,
    /// What came so far; `None` once it was judged, or where nothing has to be.
    seen: Option<Vec<u8>>,
}

impl<S> Watched<S> {
    /// `is_proof`: the server must ask for the password, by SCRAM or MD5.
    pub fn new(inner: S, is_proof: bool) -> Self {
        Self { inner, seen: is_proof.then(Vec::new) }
    }

    /// The stream itself.
    pub fn inner(&self) -> &S {
        &self.inner
    }
}

/// What the messages so far tell.
#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    Open,
    Proof,
    Refused(&'static str),
}

fn judge(seen: &[u8]) -> Judgement {
    let mut rest = seen;
    while let [kind, a, b, c, d, body @ ..] = rest {
        let length = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX).saturating_sub(4);
        match kind {
            b'R' => {
                let Some(code) = body.first_chunk::<4>() else { return Judgement::Open };
                return match u32::from_be_bytes(*code) {
                    5 | 10 => Judgement::Proof,
                    0 => Judgement::Refused(
                        "the server lets the role in without a password, so that a login proves nothing",
                    ),
                    3 => Judgement::Refused("the server wants the password itself, not a proof that it is known"),
                    _ => Judgement::Refused("the server asks for something else than a password"),
                };
            }
            // An error: nothing is going to be sent.
            b'E' => return Judgement::Proof,
            _ => match body.get(length..) {
                Some(after) => rest = after,
                None => return Judgement::Open,
            },
        }
    }
    Judgement::Open
}

/// More than this before an authentication request is no honest server.
const MAX_SEEN: usize = 64 * 1024;

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if let Some(seen) = &mut self.seen {
            seen.extend_from_slice(buffer.filled().get(before..).unwrap_or_default());
            match judge(seen) {
                Judgement::Open if seen.len() <= MAX_SEEN => {}
                Judgement::Proof => self.seen = None,
                Judgement::Open => {
                    return Poll::Ready(Err(io::Error::other(Unproven("the server asks for no password"))));
                }
                Judgement::Refused(why) => return Poll::Ready(Err(io::Error::other(Unproven(why)))),
            }
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(code: u32) -> Vec<u8> {
        [b"R".as_slice(), &8_u32.to_be_bytes(), &code.to_be_bytes()].concat()
    }

    #[test]
    fn only_a_password_that_is_asked_for_is_a_proof() {
        for (code, proof) in [(0, false), (2, false), (3, false), (5, true), (7, false), (9, false), (10, true)] {
            let judged = judge(&request(code));
            assert_eq!(judged == Judgement::Proof, proof, "{code}: {judged:?}");
            assert_eq!(matches!(judged, Judgement::Refused(_)), !proof, "{code}: {judged:?}");
        }
        assert_eq!(judge(b"E\0\0\0\x05\0"), Judgement::Proof);
    }

    #[test]
    fn it_waits_for_the_whole_and_passes_over_what_comes_before() {
        let notice = [b"N".as_slice(), &9_u32.to_be_bytes(), b"Rhere"].concat();
        for code in [0, 10] {
            let whole = [notice.clone(), request(code)].concat();
            for cut in 0..whole.len() {
                assert_eq!(judge(&whole[..cut]), Judgement::Open, "{cut}");
            }
            assert_ne!(judge(&whole), Judgement::Open);
        }
        assert_eq!(judge(b"N\xff\xff\xff\xff"), Judgement::Open);
        assert_eq!(judge(b"N\0\0\0\0R\0\0\0\x08\0\0\0\x0a"), Judgement::Proof);
    }
}
