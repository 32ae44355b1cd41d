//! The chain: what ties each record to the one before it, and how a record's line ends.
//!
//! Pure: bytes in, bytes out. A line ends in its stream, number, the hash before it and its own hash, always in this
//! order, so that whoever appends needs the last few hundred bytes of a log only, however long it is. The hash covers
//! every byte of the line up to its own member, the previous hash included.

use ring::digest::{SHA256, digest};

use super::seal::RecordKey;

/// The longest that the end of a line can be, from `,"stream":` to the closing brace.
pub(super) const TAIL_MAX: usize =
    STREAM.len() + 32 + SEQ.len() + 20 + PREV.len() + 64 + 1 + HASH.len() + 64 + CLOSE.len();

/// What a seal adds to that.
pub(super) const SEAL_MAX: usize = SEAL.len() + 64;

const STREAM: &str = ",\"stream\":\"";
const SEQ: &str = "\",\"seq\":";
const PREV: &str = ",\"prev\":\"";
const SEAL: &str = "\",\"seal\":\"";
const HASH: &str = ",\"hash\":\"";
const CLOSE: &str = "\"}";

/// What every record's line begins with.
pub(super) const OPENING: &str = "{\"schema\":\"vouchsafe.audit/1\"";

/// SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Digest(pub(super) [u8; 32]);

impl Digest {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self::from_ring(&digest(&SHA256, bytes))
    }

    pub(super) fn from_ring(digest: &ring::digest::Digest) -> Self {
        let mut out = [0; 32];
        for (to, from) in out.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        Self(out)
    }

    pub(super) fn hex(&self) -> String {
        let mut out = Vec::with_capacity(64);
        push_hex(&mut out, &self.0);
        String::from_utf8(out).unwrap_or_default()
    }
}

/// What one chain is called: 16 random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct StreamId(pub(super) [u8; 16]);

/// Where a chain stands: its last record. A chain without records stands at 0 with a hash of zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) stream: StreamId,
    pub(super) seq: u64,
    pub(super) hash: Digest,
}

impl Chain {
    pub(super) fn begin(stream: StreamId) -> Self {
        Self { stream, seq: 0, hash: Digest::default() }
    }

    /// Ends the line that starts at `start` of `out` as the next record, newline included, and says where the chain then
    /// stands.
    pub(super) fn seal(&self, out: &mut Vec<u8>, start: usize) -> Self {
        self.seal_by(out, start, None)
    }

    /// The same, with the seal of a key that is for this record alone. The hash covers the seal too.
    pub(super) fn seal_by(&self, out: &mut Vec<u8>, start: usize, key: Option<&RecordKey>) -> Self {
        let seq = self.seq.saturating_add(1);
        out.extend_from_slice(STREAM.as_bytes());
        push_hex(out, &self.stream.0);
        out.extend_from_slice(SEQ.as_bytes());
        out.extend_from_slice(seq.to_string().as_bytes());
        out.extend_from_slice(PREV.as_bytes());
        push_hex(out, &self.hash.0);
        if let Some(key) = key {
            let seal = key.seal(out.get(start..).unwrap_or_default());
            out.extend_from_slice(SEAL.as_bytes());
            push_hex(out, &seal);
        }
        out.push(b'"');
        let hash = Digest::of(out.get(start..).unwrap_or_default());
        out.extend_from_slice(HASH.as_bytes());
        push_hex(out, &hash.0);
        out.extend_from_slice(CLOSE.as_bytes());
        out.push(b'\n');
        Self { stream: self.stream, seq, hash }
    }
}

/// What the end of a line says of its record. Only layout was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tail {
    /// Where the chain stands after the record, if the record is what it says.
    pub(super) chain: Chain,
    pub(super) prev: Digest,
    /// How many bytes from the end of the line (without newline) the hash does not cover.
    pub(super) uncovered: usize,
    /// The seal, and how many bytes from the end of the line it does not cover.
    pub(super) seal: Option<([u8; 32], usize)>,
}

impl Tail {
    /// Reads the end of `line`, which has no newline. What is before the end may be missing.
    pub(super) fn read(line: &[u8]) -> Option<Self> {
        let rest = line.strip_suffix(CLOSE.as_bytes())?;
        let (rest, hash) = take_hex::<32>(rest)?;
        let covered = rest.strip_suffix(HASH.as_bytes())?;
        let rest = covered.strip_suffix(b"\"")?;
        let (rest, last) = take_hex::<32>(rest)?;
        let (rest, prev, seal) = match rest.strip_suffix(SEAL.as_bytes()) {
            Some(sealed) => {
                let (rest, prev) = take_hex::<32>(sealed)?;
                (rest, prev, Some((last, line.len() - sealed.len())))
            }
            None => (rest, last, None),
        };
        let rest = rest.strip_suffix(PREV.as_bytes())?;
        let (rest, seq) = take_number(rest)?;
        let rest = rest.strip_suffix(SEQ.as_bytes())?;
        let (rest, stream) = take_hex::<16>(rest)?;
        rest.strip_suffix(STREAM.as_bytes())?;
        let chain = Chain { stream: StreamId(stream), seq, hash: Digest(hash) };
        Some(Self { chain, prev: Digest(prev), uncovered: line.len() - covered.len(), seal })
    }

    /// Whether `line`, from its first byte, is what its hash was made over.
    pub(super) fn fits(&self, line: &[u8]) -> bool {
        let covered = line.get(..line.len().saturating_sub(self.uncovered)).unwrap_or_default();
        Digest::of(covered) == self.chain.hash
    }

    /// Whether `line` carries the seal of this key.
    pub(super) fn is_sealed_by(&self, line: &[u8], key: &RecordKey) -> bool {
        self.seal.is_some_and(|(seal, uncovered)| {
            let covered = line.get(..line.len().saturating_sub(uncovered)).unwrap_or_default();
            key.verifies(covered, &seal)
        })
    }
}

/// The end of `line` if `line` is one whole, unaltered record.
pub(super) fn whole_record(line: &[u8]) -> Option<Tail> {
    let tail = Tail::read(line)?;
    (line.starts_with(OPENING.as_bytes()) && tail.fits(line)).then_some(tail)
}

/// Why a writer found something else than it had left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Break {
    /// The head file was there but made no sense.
    HeadDamaged,
    /// The log has records, its head file is gone.
    HeadMissing,
    /// The log ends before the record that the head names, or ends in another one.
    LogBehind,
    /// The log was moved away, is nowhere to be found, and the machine was started again since.
    LogGone,
    /// The log belongs to another chain.
    OtherStream,
}

impl Break {
    /// The reason in the record.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::HeadDamaged => "the head file was damaged; the log's own end is taken",
            Self::HeadMissing => "the head file was missing; the log's own end is taken",
            Self::LogBehind => {
                "the log does not hold the last record that was written; records were removed or changed"
            }
            Self::LogGone => {
                "the log was moved away and the machine started again since, so its last record is not known; numbers are \
                 left out, so that none is used twice"
            }
            Self::OtherStream => "the log belongs to another chain",
        }
    }
}

/// What the head file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    /// It was just made.
    Nothing,
    /// It cannot be read as a head.
    Damaged,
    /// Where the chain stood after the last record.
    Chain(Chain),
}

/// From where the next record goes on, and what has to be said first. `log_is_new` tells a log that was moved or deleted
/// (the chain runs on in the new file) from one that was emptied. `None`: there is nothing to go on from.
pub(super) fn resume(stored: Stored, log: Option<Chain>, log_is_new: bool) -> (Option<Chain>, Option<Break>) {
    match (stored, log) {
        (Stored::Nothing, None) => (None, None),
        (Stored::Nothing, Some(tail)) => (Some(tail), Some(Break::HeadMissing)),
        (Stored::Damaged, tail) => (tail, Some(Break::HeadDamaged)),
        (Stored::Chain(head), None) if head.seq == 0 || log_is_new => (Some(head), None),
        (Stored::Chain(head), None) => (Some(head), Some(Break::LogBehind)),
        (Stored::Chain(head), Some(tail)) if head.stream != tail.stream => (Some(head), Some(Break::OtherStream)),
        // The writer was killed between the log and the head: what the log has was written.
        (Stored::Chain(head), Some(tail)) if tail.seq > head.seq || tail == head => (Some(tail), None),
        (Stored::Chain(head), Some(_)) => (Some(head), Some(Break::LogBehind)),
    }
}

/// More records than are written before the kernel writes a page of the head back, many times over.
const LEFT_OUT: u64 = 1 << 18;

impl Chain {
    /// Goes on from here where nobody knows how many records came after it. The hole is a finding; a number, and with it the
    /// key of a seal, that is used twice would be worse.
    pub(super) fn leave_out(self) -> Self {
        Self { seq: self.seq.saturating_add(LEFT_OUT), ..self }
    }
}

/// Lower-case hexadecimal.
pub(super) fn push_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    out.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
}

/// `2 * N` lower-case hexadecimal digits at the end of `bytes`.
pub(super) fn take_hex<const N: usize>(bytes: &[u8]) -> Option<(&[u8], [u8; N])> {
    let (rest, digits) = bytes.split_at_checked(bytes.len().checked_sub(2 * N)?)?;
    let mut out = [0; N];
    for (to, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *to = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some((rest, out))
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// A decimal number of one spelling at the end of `bytes`.
fn take_number(bytes: &[u8]) -> Option<(&[u8], u64)> {
    let digits = bytes.iter().rev().take(21).take_while(|byte| byte.is_ascii_digit()).count();
    let (rest, number) = bytes.split_at_checked(bytes.len().checked_sub(digits)?)?;
    let canonical = !number.starts_with(b"0") || number == b"0";
    let number = std::str::from_utf8(number).ok()?.parse().ok()?;
    canonical.then_some((rest, number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::seal::EpochKey;

    fn chain(stream: u8, seq: u64, hash: u8) -> Chain {
        Chain { stream: StreamId([stream; 16]), seq, hash: Digest([hash; 32]) }
    }

    #[test]
    fn what_is_sealed_is_read_back_from_its_end() {
        let mut line = b"x\n".to_vec();
        let start = line.len();
        line.extend_from_slice(OPENING.as_bytes());
        let next = Chain::begin(StreamId([7; 16])).seal(&mut line, start);
        let whole = line[start..].strip_suffix(b"\n").unwrap();
        let tail = whole_record(whole).unwrap();
        assert_eq!(tail.chain, next);
        assert_eq!(tail.prev, Digest::default());
        assert_eq!(Tail::read(&whole[OPENING.len()..]), Some(tail));
        assert!(whole.len() - OPENING.len() <= TAIL_MAX);
        let longest = Chain { seq: u64::MAX - 1, ..next };
        let mut line = Vec::new();
        longest.seal(&mut line, 0);
        assert_eq!(line.len(), TAIL_MAX + 1);
        line.clear();
        longest.seal_by(&mut line, 0, Some(&EpochKey::from_bytes([5; 32]).record_key()));
        assert_eq!(line.len(), TAIL_MAX + SEAL_MAX + 1);
    }

    #[test]
    fn a_seal_covers_all_before_it_and_the_hash_covers_the_seal() {
        let keys = EpochKey::from_bytes([5; 32]);
        let (key, other) = (keys.record_key(), keys.next().record_key());
        let mut line = OPENING.as_bytes().to_vec();
        let next = Chain::begin(StreamId([7; 16])).seal_by(&mut line, 0, Some(&key));
        line.pop();
        let tail = whole_record(&line).unwrap();
        assert_eq!(tail.chain, next);
        assert!(tail.is_sealed_by(&line, &key) && !tail.is_sealed_by(&line, &other));
        for at in 0..line.len() {
            let mut line = line.clone();
            line[at] ^= 1;
            assert_eq!(whole_record(&line), None, "byte {at}");
            let uncovered = tail.seal.unwrap().1;
            assert_eq!(tail.is_sealed_by(&line, &key), at >= line.len() - uncovered, "byte {at}");
        }
    }

    #[test]
    fn resuming_is_a_table() {
        let (h, same) = (Stored::Chain(chain(1, 5, 5)), chain(1, 5, 5));
        let cases = [
            (Stored::Nothing, None, true, (None, None)),
            (Stored::Nothing, Some(same), false, (Some(same), Some(Break::HeadMissing))),
            (Stored::Damaged, Some(same), false, (Some(same), Some(Break::HeadDamaged))),
            (Stored::Damaged, None, false, (None, Some(Break::HeadDamaged))),
            (h, None, true, (Some(same), None)),
            (h, None, false, (Some(same), Some(Break::LogBehind))),
            (Stored::Chain(chain(1, 0, 0)), None, false, (Some(chain(1, 0, 0)), None)),
            (h, Some(same), false, (Some(same), None)),
            (h, Some(chain(1, 6, 6)), false, (Some(chain(1, 6, 6)), None)),
            (h, Some(chain(1, 4, 4)), false, (Some(same), Some(Break::LogBehind))),
            (h, Some(chain(1, 5, 9)), false, (Some(same), Some(Break::LogBehind))),
            (h, Some(chain(2, 9, 9)), false, (Some(same), Some(Break::OtherStream))),
        ];
        for (stored, log, new, expected) in cases {
            assert_eq!(resume(stored, log, new), expected, "{stored:?} {log:?} {new}");
        }
    }
}
