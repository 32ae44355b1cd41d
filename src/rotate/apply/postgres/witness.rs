//! How the server asked for a password: the evidence that a login proves anything, and whether it may have an answer.
//!
//! Where `pg_hba.conf` says `trust`, `peer` or `cert`, any password logs in, and where it says `password`, `ldap` or `pam`
//! the client would hand over the password itself. The library tells neither. So the server's first answer is looked at on
//! its way in, before the library acts on it (PostgreSQL documentation, "Message Formats": `R`, length, code).
//!
//! Where TLS says who the server is, it may be told what it asks for. Anybody can listen on a port of loopback while the server
//! is down, or make a socket in a folder that is open to him: there nothing is answered but SCRAM, in which the server
//! proves that it knows the password as well. The answer to MD5 is as good as the password.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::error::Unproven;

/// What a server may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    /// A login has to prove the password: one without is refused.
    pub is_proof: bool,
    /// TLS says who the server is.
    pub is_verified: bool,
}

/// A stream whose first authentication request is looked at.
pub struct Watched<S> {
    inner: S,
    allowed: Allowed,
    /// What came so far; `None` once it was judged, or where nothing has to be.
    seen: Option<Vec<u8>>,
}

impl<S> Watched<S> {
    /// Looks at what the server asks for.
    pub fn new(inner: S, allowed: Allowed) -> Self {
        Self { inner, allowed, seen: Some(Vec::new()) }
    }

    /// Looks at nothing: the bytes are those of TLS, within which [`Self::new`] looks.
    pub fn unseen(inner: S) -> Self {
        Self { inner, allowed: Allowed { is_proof: true, is_verified: false }, seen: None }
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
    Fine,
    Refused(&'static str),
}

fn judge(seen: &[u8], allowed: Allowed) -> Judgement {
    let mut rest = seen;
    while let [kind, a, b, c, d, body @ ..] = rest {
        let length = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX).saturating_sub(4);
        match kind {
            b'R' => {
                let Some(code) = body.first_chunk::<4>() else { return Judgement::Open };
                let Allowed { is_proof, is_verified } = allowed;
                return match u32::from_be_bytes(*code) {
                    10 => Judgement::Fine,
                    0 if !is_proof => Judgement::Fine,
                    // Before the others: what it is to be told is for one that is known.
                    3 | 5 if !is_verified => Judgement::Refused(
                        "the server wants the password, or MD5 of it, and nothing proves which server it is: SCRAM, or TLS \
                         (`sslmode=verify-full`), has to",
                    ),
                    5 => Judgement::Fine,
                    0 => Judgement::Refused(
                        "the server lets the role in without a password, so that a login proves nothing",
                    ),
                    3 if !is_proof => Judgement::Fine,
                    3 => Judgement::Refused("the server wants the password itself, not a proof that it is known"),
                    _ => Judgement::Refused("the server asks for something else than a password"),
                };
            }
            // An error: nothing is going to be sent.
            b'E' => return Judgement::Fine,
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
        let allowed = self.allowed;
        if let Some(seen) = &mut self.seen {
            seen.extend_from_slice(buffer.filled().get(before..).unwrap_or_default());
            match judge(seen, allowed) {
                Judgement::Open if seen.len() <= MAX_SEEN => {}
                Judgement::Fine => self.seen = None,
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

    const PROOF: Allowed = Allowed { is_proof: true, is_verified: true };

    #[test]
    fn what_is_a_proof_and_who_may_have_it() {
        for (is_proof, is_verified, fine) in [
            (true, true, &[5, 10][..]),
            (true, false, &[10]),
            (false, true, &[0, 3, 5, 10]),
            // Of one that nobody knows, an administrator takes what asks for nothing, and what proves itself.
            (false, false, &[0, 10]),
        ] {
            for code in 0..=13 {
                let judged = judge(&request(code), Allowed { is_proof, is_verified });
                assert_eq!(judged == Judgement::Fine, fine.contains(&code), "{code}: {judged:?}");
                assert_ne!(judged, Judgement::Open);
            }
        }
        assert_eq!(judge(b"E\0\0\0\x05\0", PROOF), Judgement::Fine);
    }

    #[test]
    fn it_waits_for_the_whole_and_passes_over_what_comes_before() {
        let notice = [b"N".as_slice(), &9_u32.to_be_bytes(), b"Rhere"].concat();
        for code in [0, 10] {
            let whole = [notice.clone(), request(code)].concat();
            for cut in 0..whole.len() {
                assert_eq!(judge(&whole[..cut], PROOF), Judgement::Open, "{cut}");
            }
            assert_ne!(judge(&whole, PROOF), Judgement::Open);
        }
        assert_eq!(judge(b"N\xff\xff\xff\xff", PROOF), Judgement::Open);
        assert_eq!(judge(b"N\0\0\0\0R\0\0\0\x08\0\0\0\x0a", PROOF), Judgement::Fine);
    }
}
