//! What of an age file is checked before the age crate sees it: armor, and the limits of the header.
//!
//! The crate parses a header of any size with any number of stanzas and decodes armor while it goes; here the whole armor
//! is taken off first, so that a damaged one is told from a damaged file, and a header is walked once, line by line
//! (C2SP age.md, "ABNF of the header"). Stricter than the crate in one point: a stanza must end in a short line. What the
//! lines say is still for the crate to judge.

use std::borrow::Cow;
use std::io::Read;

use ::age::armor::{ArmoredReadError, ArmoredReader};

use super::sealed::SealedErrorKind as Kind;

/// Bytes of a header.
pub const MAX_HEADER: usize = 256 * 1024;
/// Recipients of a file.
pub const MAX_STANZAS: usize = 64;
/// Lines of a header. The crate parses all lines again for each line it reads, so this bounds a square.
pub const MAX_LINES: usize = 2048;
/// The scrypt work factor (log2 of N) above which a file is refused unread.
pub const MAX_WORK_FACTOR: u32 = 18;

const MAGIC: &[u8] = b"age-encryption.org/";
const ARMOR_BEGIN: &[u8] = b"-----BEGIN AGE ENCRYPTED FILE-----";
const BODY_COLUMNS: usize = 64;

/// Takes the armor off, if there is one, and checks the header against the limits. Answers the binary file.
pub(super) fn prepare(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Kind> {
    let binary = take_armor_off(bytes)?;
    check(&binary)?;
    Ok(binary)
}

fn take_armor_off(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Kind> {
    let start = skip_blank_lines(bytes);
    if start.starts_with(ARMOR_BEGIN) {
        let mut binary = Vec::with_capacity(start.len() / 4 * 3);
        ArmoredReader::new(start).read_to_end(&mut binary).map_err(|error| Kind::Armor(explain(&error)))?;
        return Ok(Cow::Owned(binary));
    }
    if bytes.starts_with(MAGIC) {
        return Ok(Cow::Borrowed(bytes));
    }
    // Near enough to armor that "not an age file" would send the reader the wrong way.
    let head = bytes.get(..1024).unwrap_or(bytes);
    if head.windows(5).any(|window| window == b"-----") {
        return Err(Kind::Armor("its first line is not the begin marker of an age file"));
    }
    Err(Kind::NotAge)
}

/// Blank lines before the armor are allowed (C2SP age.md, "ASCII armor"), blanks before the marker on its line are not.
fn skip_blank_lines(mut bytes: &[u8]) -> &[u8] {
    while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
        let (line, rest) = bytes.split_at(end + 1);
        if !line.trim_ascii().is_empty() {
            break;
        }
        bytes = rest;
    }
    bytes
}

fn explain(error: &std::io::Error) -> &'static str {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<ArmoredReadError>()) {
        Some(ArmoredReadError::Base64(_)) => "a line is not base64",
        Some(ArmoredReadError::InvalidBeginMarker) => "its first line is not the begin marker of an age file",
        Some(ArmoredReadError::MissingPadding) => "its last line lacks padding",
        Some(ArmoredReadError::TrailingGarbage) => "something follows its end marker",
        Some(ArmoredReadError::NotWrappedAt64Chars | ArmoredReadError::ShortLineInMiddle) => {
            "a line does not have 64 characters, or the end marker is missing"
        }
        _ => "it is cut short or holds characters that do not belong there",
    }
}

fn check(binary: &[u8]) -> Result<(), Kind> {
    if !binary.starts_with(MAGIC) {
        return Err(Kind::NotAge);
    }
    let head = binary.get(..MAX_HEADER).unwrap_or(binary);
    let mut lines = head.split_inclusive(|byte| *byte == b'\n');
    if lines.next() != Some(b"age-encryption.org/v1\n") {
        return Err(Kind::Header("its first line names no version that this build reads"));
    }
    let mut stanzas = 0;
    let mut in_body = false;
    for (number, line) in lines.enumerate() {
        let Some((b'\n', line)) = line.split_last() else { break };
        if number >= MAX_LINES {
            return Err(Kind::Limit("lines of the header", MAX_LINES as u64));
        }
        if line.starts_with(b"->") || line.starts_with(b"---") {
            if in_body {
                return Err(Kind::Header("a stanza has no short last line"));
            }
            if line.starts_with(b"---") {
                return Ok(());
            }
            stanzas += 1;
            if stanzas > MAX_STANZAS {
                return Err(Kind::Limit("recipients", MAX_STANZAS as u64));
            }
            check_work(line)?;
            in_body = true;
        } else if in_body && line.len() <= BODY_COLUMNS {
            in_body = line.len() == BODY_COLUMNS;
        } else {
            return Err(Kind::Header("a line is too long or stands outside of a stanza"));
        }
    }
    if binary.len() > MAX_HEADER {
        return Err(Kind::Limit("bytes of the header", MAX_HEADER as u64));
    }
    Err(Kind::Header("it is cut short"))
}

/// `-> scrypt SALT LOG_N`. A factor that is no number is left to the crate, which refuses it.
fn check_work(line: &[u8]) -> Result<(), Kind> {
    let mut words = line.split(|byte| *byte == b' ').skip(1);
    if words.next() != Some(b"scrypt") {
        return Ok(());
    }
    let factor = words.nth(1).and_then(|word| std::str::from_utf8(word).ok()).and_then(|word| word.parse::<u32>().ok());
    match factor {
        Some(factor) if factor > MAX_WORK_FACTOR => Err(Kind::Limit("scrypt work factor", MAX_WORK_FACTOR.into())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(stanzas: usize, lines: usize) -> Vec<u8> {
        let mut bytes = b"age-encryption.org/v1\n".to_vec();
        for _ in 0..stanzas {
            bytes.extend_from_slice(b"-> test\n");
            for _ in 0..lines {
                bytes.extend_from_slice(&[b'A'; 64]);
                bytes.push(b'\n');
            }
            bytes.push(b'\n');
        }
        bytes.extend_from_slice(b"--- AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n");
        bytes
    }

    #[test]
    fn limits_hold_at_the_limit_and_not_beyond() {
        assert!(prepare(&header(MAX_STANZAS, 1)).is_ok());
        assert!(matches!(prepare(&header(MAX_STANZAS + 1, 1)), Err(Kind::Limit("recipients", 64))));
        assert!(prepare(&header(1, MAX_LINES - 3)).is_ok());
        assert!(matches!(prepare(&header(1, MAX_LINES)), Err(Kind::Limit("lines of the header", _))));
        let mut long = b"age-encryption.org/v1\n-> ".to_vec();
        long.resize(MAX_HEADER + 1, b'a');
        assert!(matches!(prepare(&long), Err(Kind::Limit("bytes of the header", _))));
    }

    #[test]
    fn what_is_not_age_is_told_from_what_is_damaged() {
        assert!(matches!(prepare(b""), Err(Kind::NotAge)));
        assert!(matches!(prepare(b"DATABASE_URL=x\n"), Err(Kind::NotAge)));
        assert!(matches!(prepare(b"age-encryption.org/v2\n"), Err(Kind::Header(_))));
        assert!(matches!(prepare(b"age-encryption.org/v1\n-> X25519 abc\n"), Err(Kind::Header("it is cut short"))));
        assert!(matches!(prepare(b"-----BEGIN AGE ENCRYPTED FILE-----\nAAA"), Err(Kind::Armor(_))));
        assert!(matches!(prepare(b"-----BEGIN PGP MESSAGE-----\nAAA"), Err(Kind::Armor(_))));
    }

    #[test]
    fn a_work_factor_is_refused_unread() {
        let file = |factor: &str| {
            format!("age-encryption.org/v1\n-> scrypt bBjlhJVYZeE4aqUdmtRHfw {factor}\n\n--- AAAA\n").into_bytes()
        };
        assert!(prepare(&file("18")).is_ok());
        assert!(matches!(prepare(&file("19")), Err(Kind::Limit("scrypt work factor", 18))));
        assert!(matches!(prepare(&file("23")), Err(Kind::Limit(..))));
    }
}
