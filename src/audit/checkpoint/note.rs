//! The text of a checkpoint, its signature, and reading both back. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::key::{Signer, VerifierKey};
use crate::audit::chain::{Chain, Digest, StreamId, push_hex, take_hex};

/// Where a chain stood, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::audit) struct Checkpoint {
    pub(in crate::audit) chain: Chain,
    /// RFC 3339, by the clock of the host.
    pub(in crate::audit) time: String,
}

/// What the line of a syslog message holds before the note in base64.
pub(super) const LINE_MARK: &str = "vouchsafe-checkpoint/1 ";

/// What each signature line begins with: an em dash and a space.
const SIGNATURE: &str = "\u{2014} ";

/// The id of the key, and Ed25519's 64 bytes.
const SIGNATURE_LENGTH: usize = 4 + 64;

impl Checkpoint {
    /// The signed note.
    pub(in crate::audit) fn sign(&self, signer: &Signer) -> String {
        let text = self.text(signer.name());
        let signature = STANDARD.encode(signer.sign(text.as_bytes()));
        format!("{text}\n{SIGNATURE}{} {signature}\n", signer.name())
    }

    fn text(&self, origin: &str) -> String {
        let mut stream = Vec::with_capacity(32);
        push_hex(&mut stream, &self.chain.stream.0);
        let (stream, hash) = (String::from_utf8_lossy(&stream), STANDARD.encode(self.chain.hash.0));
        format!("{origin}\n{}\n{hash}\nstream {stream}\ntime {}\n", self.chain.seq, self.time)
    }

    /// Reads the text of a note. Lines that are not known are left alone.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let _origin = lines.next().filter(|line| !line.is_empty())?;
        let size = lines.next()?;
        let seq: u64 = size.parse().ok().filter(|seq: &u64| seq.to_string() == size)?;
        let hash: [u8; 32] = STANDARD.decode(lines.next()?).ok()?.try_into().ok()?;
        let (mut stream, mut time) = (None, None);
        for (word, rest) in lines.filter_map(|line| line.split_once(' ')) {
            match word {
                "stream" => stream = take_hex::<16>(rest.as_bytes()).filter(|(before, _)| before.is_empty()),
                "time" => time = Some(rest.to_owned()),
                _ => {}
            }
        }
        let chain = Chain { stream: StreamId(stream?.1), seq, hash: Digest(hash) };
        Some(Self { chain, time: time? })
    }
}

/// What a text that may hold notes turned out to hold.
#[derive(Debug, Default)]
pub(in crate::audit) struct Opened {
    /// By the key that was asked for.
    pub(in crate::audit) checkpoints: Vec<Checkpoint>,
    /// Notes that name the key, and that it did not sign; or that it signed, and that are no checkpoint.
    pub(in crate::audit) forged: u64,
    /// The same, out of lines of a log: whoever may write to it could have put them there.
    pub(in crate::audit) unverified: u64,
    /// Notes by other keys, and lines that are to hold one and cannot be read.
    pub(in crate::audit) others: u64,
}

/// No text of ours is longer.
const LONGEST: usize = 4096;

/// Signatures of one note that are looked at: ours is the first, witnesses add theirs.
const SIGNATURES: u32 = 16;

/// The checkpoints in a text: notes one after the other, or lines of a log that hold one each. What is by other keys, or is no
/// note, is left alone (signed-note: unknown signatures are ignored).
pub(in crate::audit) fn open_all(text: &str, key: &VerifierKey) -> Opened {
    let mut opened = Opened::default();
    let (mut body, mut before_signatures) = (String::new(), String::new());
    let (mut is_too_long, mut signatures, mut is_ours) = (false, 0, false);
    for line in text.lines() {
        if let Some((_, encoded)) = line.split_once(LINE_MARK) {
            let note = STANDARD.decode(encoded.trim_end()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            // Once: a note in a note is none.
            if let Some(note) = note.filter(|note| !note.contains(LINE_MARK)) {
                let inner = open_all(&note, key);
                opened.checkpoints.extend(inner.checkpoints);
                opened.unverified += inner.forged + inner.unverified;
                opened.others += inner.others;
            } else {
                opened.others += 1;
            }
        } else if let Some(signature) = line.strip_prefix(SIGNATURE) {
            signatures += 1;
            let before = opened.checkpoints.len() as u64 + opened.forged;
            if signatures <= SIGNATURES {
                one(&before_signatures, signature, key, &mut opened);
            }
            // Counted with the first signature, and taken back if a later one is ours.
            let was_other = signatures > 1 && !is_ours;
            is_ours |= opened.checkpoints.len() as u64 + opened.forged > before;
            match (was_other, is_ours) {
                (true, true) => opened.others -= 1,
                (false, false) => opened.others += 1,
                (true, false) | (false, true) => {}
            }
            body.clear();
        } else if line.is_empty() {
            before_signatures = std::mem::take(&mut body);
            (is_too_long, signatures, is_ours) = (false, 0, false);
        } else if is_too_long || body.len() + line.len() > LONGEST {
            body.clear();
            is_too_long = true;
        } else {
            body.push_str(line);
            body.push('\n');
        }
    }
    opened
}

fn one(text: &str, signature: &str, key: &VerifierKey, opened: &mut Opened) {
    let Some((name, signature)) = signature.split_once(' ').filter(|(name, _)| *name == key.name()) else { return };
    // One that was torn is none.
    let is_whole = |bytes: &Vec<u8>| bytes.len() == SIGNATURE_LENGTH && bytes.starts_with(&key.id());
    let signature = STANDARD.decode(signature).ok().filter(is_whole);
    let Some(signature) = signature else { return };
    let is_good = signature.get(4..).is_some_and(|signature| key.verifies(text.as_bytes(), signature));
    // The key is this log's alone, so what it signs is about this log.
    match Checkpoint::parse(text).filter(|_| is_good && text.lines().next() == Some(name)) {
        Some(checkpoint) => opened.checkpoints.push(checkpoint),
        None => opened.forged += 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(seq: u64) -> Checkpoint {
        let chain = Chain { stream: StreamId([3; 16]), seq, hash: Digest([9; 32]) };
        Checkpoint { chain, time: "2026-01-02T03:04:05.000000Z".into() }
    }

    #[test]
    fn what_is_signed_is_read_back_wherever_it_stands() {
        let signer = Signer::of_seed("host-1/audit", &[7; 32]).unwrap();
        let key = signer.verifier();
        let (one, two) = (checkpoint(5).sign(&signer), checkpoint(6).sign(&signer));
        let line = format!("<85>1 - host vouchsafe - - - {LINE_MARK}{}", STANDARD.encode(&two));
        let other = checkpoint(7).sign(&Signer::of_seed("host-2/audit", &[8; 32]).unwrap());
        for text in [format!("{one}{two}"), format!("{one}\n\n{two}\n"), format!("{one}noise\n{line}\n{other}")] {
            let opened = open_all(&text, &key);
            assert_eq!((opened.checkpoints, opened.forged), (vec![checkpoint(5), checkpoint(6)], 0), "{text}");
        }
        // A second signature, as a witness adds it, changes nothing.
        let cosigned = format!("{one}{SIGNATURE}witness.example/w1 AAAAAAAAAAAA\n");
        assert_eq!(open_all(&cosigned, &key).checkpoints, [checkpoint(5)]);
    }

    /// Anybody on the host may write a line to syslog; a note by itself is from whoever keeps checkpoints.
    #[test]
    fn a_line_of_a_log_that_is_not_signed_is_told_apart_from_a_note_that_is_not() {
        let signer = Signer::of_seed("host-1/audit", &[7; 32]).unwrap();
        let good = checkpoint(5).sign(&signer);
        let forged = checkpoint(6).sign(&signer).replace("\n6\n", "\n4\n");
        let line = |note: &str| format!("<85>1 - host vouchsafe - - - {LINE_MARK}{}\n", STANDARD.encode(note));
        for (text, forged, unverified) in [
            (line(&good) + &line(&forged), 0, 1),
            (good.clone() + &forged, 1, 0),
            (line(&good) + &forged + &line(&forged), 1, 1),
        ] {
            let opened = open_all(&text, &signer.verifier());
            assert_eq!((opened.forged, opened.unverified), (forged, unverified), "{text}");
            assert_eq!(opened.checkpoints, [checkpoint(5)]);
        }
    }

    #[test]
    fn notes_of_others_are_counted_and_a_cosigned_one_is_ours() {
        let signer = Signer::of_seed("host-1/audit", &[7; 32]).unwrap();
        // The same name: a key that was lost and made anew.
        let other = Signer::of_seed("host-1/audit", &[8; 32]).unwrap();
        let (one, two) = (checkpoint(5).sign(&signer), checkpoint(6).sign(&other));
        let witness = format!("{SIGNATURE}witness.example/w1 AAAAAAAAAAAA\n");
        let (text, signature) = one.split_once("\n\n").unwrap();
        let cosigned = format!("{text}\n\n{witness}{signature}{witness}");
        let unreadable = format!("host {LINE_MARK}!!!!\n");
        for (text, ours, others) in [
            (one.clone(), 1, 0),
            (cosigned.trim_start().to_owned(), 1, 0),
            (format!("{one}{witness}"), 1, 0),
            (two.clone(), 0, 1),
            (format!("{two}{witness}{witness}"), 0, 1),
            (format!("{one}\n{two}\n{unreadable}"), 1, 2),
        ] {
            let opened = open_all(&text, &signer.verifier());
            assert_eq!((opened.checkpoints.len(), opened.forged, opened.others), (ours, 0, others), "{text}");
        }
    }

    /// A file of somebody else's making costs what its length costs, not more.
    #[test]
    fn long_texts_and_many_signatures_are_not_gone_through() {
        let signer = Signer::of_seed("host-1/audit", &[7; 32]).unwrap();
        let note = checkpoint(5).sign(&signer);
        let signature = note.lines().last().unwrap();
        let many = format!("{}\n", signature).repeat(10_000);
        let long = "x".repeat(79) + "\n";
        let opened = open_all(&format!("{}\n{many}\n{note}", long.repeat(10_000)), &signer.verifier());
        assert_eq!((opened.checkpoints, opened.forged), (vec![checkpoint(5)], u64::from(SIGNATURES)));
        // What is too long is not cut to what is right.
        let (text, _) = note.split_once("\n\n").unwrap();
        let longer = format!("{text}\n{}\n\n{signature}\n", "x".repeat(LONGEST));
        assert_eq!(open_all(&longer, &signer.verifier()).checkpoints, []);
    }

    #[test]
    fn no_changed_byte_is_read() {
        let signer = Signer::of_seed("host-1/audit", &[7; 32]).unwrap();
        let note = checkpoint(5).sign(&signer);
        for at in 0..note.len() - 1 {
            let mut bytes = note.clone().into_bytes();
            bytes[at] ^= 1;
            let Ok(text) = String::from_utf8(bytes) else { continue };
            assert_eq!(open_all(&text, &signer.verifier()).checkpoints, [], "byte {at}");
        }
        let forged = note.replace("\n5\n", "\n4\n");
        assert_eq!(open_all(&forged, &signer.verifier()).forged, 1);
    }

    /// The vector of docs/spec/audit-checkpoint.md, whose signature was checked by Python's `cryptography`.
    #[test]
    fn the_vector_of_the_spec_is_true() {
        const SPEC: &str = include_str!("../../../docs/spec/audit-checkpoint.md");
        let note = SPEC.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
        let key = SPEC.split("```text\n").nth(2).unwrap().split("```").next().unwrap().trim_end();
        let signer = Signer::of_seed("host-1/audit", &[7; 32]).unwrap();
        assert_eq!(signer.verifier().to_string(), key);
        assert_eq!(checkpoint(5).sign(&signer), note);
        assert_eq!(open_all(note, &VerifierKey::parse(key).unwrap()).checkpoints, [checkpoint(5)]);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_reading_panic_or_is_taken_for_a_checkpoint(text in "[\u{2014} a-z0-9+/=\n]{0,200}") {
            let key = Signer::of_seed("host-1/audit", &[7; 32]).unwrap().verifier();
            proptest::prop_assert_eq!(open_all(&text, &key).checkpoints, []);
            proptest::prop_assert!(VerifierKey::parse(&text).is_none());
        }
    }
}
