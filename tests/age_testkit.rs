//! Every vector of the age test kit (C2SP/CCTV) through our own loader, each within five seconds.
//!
//! A vector says what it expects; `UNSUPPORTED` names the ones where we answer something else, and why. Each vector also says
//! its file key, so pass two (the way of a KMS store) runs on all of them too, those of unsupported key types included.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use age_core::format::FileKey;
use vouchsafe::secret::Secret;
use vouchsafe::store::sealed::{Opening, SealedBytes, SealedErrorKind as Kind};
use vouchsafe::store::vouched::Vouched;

const VECTORS: usize = 143;
const LIMIT: Duration = Duration::from_secs(5);

/// What came out, in the words of the test kit, and `unsupported` for what only a post-quantum identity opens.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Success(String),
    NoMatch,
    HmacFailure,
    HeaderFailure,
    ArmorFailure,
    PayloadFailure,
    Unsupported,
}

/// Vectors whose only identity is ML-KEM-768 with X25519 (`AGE-SECRET-KEY-PQ-1...`): age 0.12 has no such identity, so the
/// loader cannot judge their stanzas. It must say that the identity is not supported, and open nothing.
const UNSUPPORTED: [&str; 19] = [
    "armor_hybrid",
    "hybrid",
    "hybrid_and_x25519",
    "hybrid_bad_tag",
    "hybrid_currupted_enc_mlkem",
    "hybrid_currupted_enc_x25519",
    "hybrid_extra_argument",
    "hybrid_grease",
    "hybrid_identity",
    "hybrid_long_file_key",
    "hybrid_long_share",
    "hybrid_low_order",
    "hybrid_multiple_recipients",
    "hybrid_no_match",
    "hybrid_not_canonical_body",
    "hybrid_not_canonical_enc",
    "hybrid_short_share",
    "hybrid_uppercase",
    "hybrid_x25519_arg",
];

/// Valid files that are over the loader's limit of 16 MiB: refused by it, and opened with a higher one.
const TOO_LARGE: [&str; 3] = ["stream_257_chunks", "stream_257_chunks_full", "stream_258_chunks"];
const HIGHER_LIMIT: u64 = 32 * 1024 * 1024;

#[test]
fn every_vector_comes_out_as_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/age");
    let mut names: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "README.md")
        .collect();
    names.sort();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for name in &names {
        let vector = Vector::parse(&read(&folder.join(name)));
        let expected =
            if UNSUPPORTED.contains(&name.as_str()) { Outcome::Unsupported } else { vector.expected.clone() };
        let is_too_large =
            matches!(SealedBytes::parse(Vouched::of_no_store(&vector.file)), Err(Kind::Limit("bytes of the file", _)));
        assert_eq!(is_too_large, TOO_LARGE.contains(&name.as_str()), "{name}");
        let (one, two) = within_limit(name, vector.clone());
        if one != expected {
            wrong.push(format!("{name}: expected {expected:?}, got {one:?}"));
        }
        // With the file key at hand, only what lies beyond the stanzas can still fail, or succeed, and alike. A success
        // with a wrong payload would be the worst of all.
        let two_is_right = match (&vector.expected, &two) {
            (Outcome::Success(_) | Outcome::PayloadFailure | Outcome::ArmorFailure | Outcome::HmacFailure, two) => {
                *two == vector.expected
            }
            (Outcome::NoMatch | Outcome::HeaderFailure, _) => true,
            (Outcome::Unsupported, _) => false,
        };
        if !two_is_right {
            wrong.push(format!("{name}: pass two: expected {:?}, got {two:?}", vector.expected));
        }
        *counts.entry(format!("{expected:?}").split('(').next().unwrap().to_owned()).or_default() += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(names.len(), VECTORS);
    assert_eq!(counts.values().sum::<usize>(), VECTORS);
    let count = |word: &str| counts.get(word).copied().unwrap_or_default();
    assert_eq!(count("Unsupported"), UNSUPPORTED.len());
    assert_eq!((count("HmacFailure"), count("PayloadFailure")), (1, 19));
}

/// Runs both passes on a thread of their own, so that one that hangs is a failure and not a hung test.
fn within_limit(name: &str, vector: Vector) -> (Outcome, Outcome) {
    let (send, receive) = mpsc::channel();
    let thread = std::thread::spawn(move || send.send((pass_one(&vector), pass_two(&vector))).unwrap());
    let outcome = receive.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("{name}: no answer within {LIMIT:?}"));
    thread.join().unwrap();
    outcome
}

fn pass_one(vector: &Vector) -> Outcome {
    if vector.identities.iter().any(|text| text.starts_with("AGE-SECRET-KEY-PQ-")) {
        return match pass_with(vector, &[]) {
            Outcome::Success(_) => panic!("opened without an identity"),
            _ => Outcome::Unsupported,
        };
    }
    let mut identities: Vec<Box<dyn age::Identity>> = Vec::new();
    for text in &vector.identities {
        identities.push(Box::new(text.parse::<age::x25519::Identity>().unwrap()));
    }
    for passphrase in &vector.passphrases {
        let mut identity = age::scrypt::Identity::new(passphrase.clone().into());
        // Higher than the loader's own limit: the loader must refuse before any identity computes.
        identity.set_max_work_factor(30);
        identities.push(Box::new(identity));
    }
    pass_with(vector, &identities)
}

fn pass_with(vector: &Vector, identities: &[Box<dyn age::Identity>]) -> Outcome {
    let opened = SealedBytes::parse_within(Vouched::of_no_store(&vector.file), HIGHER_LIMIT)
        .and_then(|file| file.open(identities.iter().map(|one| &**one)));
    match opened {
        Ok(Opening::Opened(plaintext)) => Outcome::Success(digest(&plaintext)),
        Ok(Opening::Locked(_)) => Outcome::NoMatch,
        Err(error) => classify(&error),
    }
}

fn pass_two(vector: &Vector) -> Outcome {
    let Ok(key) = <[u8; 16]>::try_from(vector.file_key.as_slice()) else { return Outcome::HeaderFailure };
    let file_key = FileKey::init_with_mut(|place| *place = key);
    match SealedBytes::parse_within(Vouched::of_no_store(&vector.file), HIGHER_LIMIT)
        .and_then(|file| file.open_with_file_key(file_key))
    {
        Ok(plaintext) => Outcome::Success(digest(&plaintext)),
        Err(error) => classify(&error),
    }
}

fn classify(error: &Kind) -> Outcome {
    match error {
        Kind::Armor(_) => Outcome::ArmorFailure,
        Kind::HeaderMac => Outcome::HmacFailure,
        Kind::Header(_) | Kind::Limit(..) | Kind::NotAge => Outcome::HeaderFailure,
        Kind::Payload => Outcome::PayloadFailure,
        other => panic!("not an outcome of the loader: {other:?}"),
    }
}

fn digest(plaintext: &Secret) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, plaintext.expose()).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn read(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    std::fs::File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

#[derive(Clone)]
struct Vector {
    expected: Outcome,
    identities: Vec<String>,
    passphrases: Vec<String>,
    file_key: Vec<u8>,
    file: Vec<u8>,
}

impl Vector {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(2).position(|pair| pair == b"\n\n").expect("an empty line after the head");
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut file = bytes[end + 2..].to_vec();
        let (mut expect, mut payload) = (String::new(), String::new());
        let (mut identities, mut passphrases, mut file_key) = (Vec::new(), Vec::new(), Vec::new());
        for line in head.lines() {
            let (key, value) = line.split_once(": ").unwrap();
            match key {
                "expect" => expect = value.to_owned(),
                "payload" => payload = value.to_owned(),
                "file key" => file_key = unhex(value),
                "identity" => identities.push(value.to_owned()),
                "passphrase" => passphrases.push(value.to_owned()),
                "compressed" => file = inflate(&file),
                "armored" | "comment" => {}
                other => panic!("unknown key {other}"),
            }
        }
        let expected = match expect.as_str() {
            "success" => Outcome::Success(payload),
            "no match" => Outcome::NoMatch,
            "HMAC failure" => Outcome::HmacFailure,
            "header failure" => Outcome::HeaderFailure,
            "armor failure" => Outcome::ArmorFailure,
            "payload failure" => Outcome::PayloadFailure,
            other => panic!("unknown expectation {other}"),
        };
        Self { expected, identities, passphrases, file_key, file }
    }
}

/// zlib (RFC 1950) around deflate (RFC 1951): some vectors are compressed, and this is no reason for a dependency.
fn inflate(bytes: &[u8]) -> Vec<u8> {
    let mut bits = Bits { bytes: &bytes[2..], at: 0 };
    let mut out = Vec::new();
    loop {
        let last = bits.take(1) == 1;
        match bits.take(2) {
            0 => {
                bits.at = bits.at.div_ceil(8) * 8;
                let length = bits.take(16);
                assert_eq!(bits.take(16), !length & 0xffff);
                for _ in 0..length {
                    out.push(bits.take(8) as u8);
                }
            }
            1 => {
                let lengths: Vec<u8> = (0..288)
                    .map(|symbol| match symbol {
                        0..144 => 8,
                        144..256 => 9,
                        256..280 => 7,
                        _ => 8,
                    })
                    .collect();
                block(&mut bits, &Code::new(&lengths), &Code::new(&[5; 30]), &mut out);
            }
            2 => {
                let (literals, distances, count) = (bits.take(5) + 257, bits.take(5) + 1, bits.take(4) + 4);
                let mut lengths = [0_u8; 19];
                let order = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
                for place in &order[..count] {
                    lengths[*place] = bits.take(3) as u8;
                }
                let code = Code::new(&lengths);
                let mut lengths = Vec::new();
                while lengths.len() < literals + distances {
                    match code.read(&mut bits) {
                        16 => {
                            let previous = *lengths.last().unwrap();
                            lengths.extend(vec![previous; 3 + bits.take(2)]);
                        }
                        17 => lengths.extend(vec![0; 3 + bits.take(3)]),
                        18 => lengths.extend(vec![0; 11 + bits.take(7)]),
                        length => lengths.push(length as u8),
                    }
                }
                let (literals, distances) = lengths.split_at(literals);
                block(&mut bits, &Code::new(literals), &Code::new(distances), &mut out);
            }
            _ => panic!("not deflate"),
        }
        if last {
            break;
        }
    }
    let start = bytes.len() - 4;
    assert_eq!(adler32(&out).to_be_bytes(), bytes[start..], "the checksum of the compressed vector");
    out
}

fn block(bits: &mut Bits<'_>, literals: &Code, distances: &Code, out: &mut Vec<u8>) {
    loop {
        match literals.read(bits) {
            256 => return,
            literal @ 0..256 => out.push(literal as u8),
            symbol => {
                // RFC 1951 section 3.2.5: each further group of codes takes one more bit.
                let length = match symbol - 257 {
                    code @ 0..8 => code + 3,
                    28 => 258,
                    code => {
                        let extra = code / 4 - 1;
                        ((4 + code % 4) << extra) + 3 + bits.take(extra)
                    }
                };
                let distance = match distances.read(bits) {
                    code @ 0..4 => code + 1,
                    code => {
                        let extra = code / 2 - 1;
                        ((2 + code % 2) << extra) + 1 + bits.take(extra)
                    }
                };
                // A copy may run into what it has just written.
                for done in (0..length).step_by(distance) {
                    let start = out.len() - distance;
                    out.extend_from_within(start..start + distance.min(length - done));
                }
            }
        }
    }
}

fn adler32(bytes: &[u8]) -> u32 {
    let (mut a, mut b) = (1_u32, 0_u32);
    // 5552 bytes are the most after which `b` still fits (RFC 1950, as zlib does it).
    for piece in bytes.chunks(5552) {
        for byte in piece {
            a += u32::from(*byte);
            b += a;
        }
        (a, b) = (a % 65521, b % 65521);
    }
    b << 16 | a
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> usize {
        (0..count).fold(0, |number, place| {
            let bit = self.bytes[self.at / 8] >> (self.at % 8) & 1;
            self.at += 1;
            number | usize::from(bit) << place
        })
    }
}

/// A canonical Huffman code: (length, code) to symbol.
struct Code(BTreeMap<(u8, usize), usize>);

impl Code {
    fn new(lengths: &[u8]) -> Self {
        let mut symbols = BTreeMap::new();
        let mut code = 0;
        for length in 1..=15 {
            for (symbol, _) in lengths.iter().enumerate().filter(|(_, of)| **of == length) {
                symbols.insert((length, code), symbol);
                code += 1;
            }
            code <<= 1;
        }
        Self(symbols)
    }

    fn read(&self, bits: &mut Bits<'_>) -> usize {
        let mut code = 0;
        for length in 1..=15 {
            code = code << 1 | bits.take(1);
            if let Some(symbol) = self.0.get(&(length, code)) {
                return *symbol;
            }
        }
        panic!("not a code")
    }
}
