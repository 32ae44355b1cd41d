//! JSON of printable ASCII: whatever else a text holds is written as a `\u` escape, so no name can forge a line or move a
//! terminal's cursor. Serialised straight into one buffer; no tree of values is built.

use std::fmt::Write as _;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};
use serde_json::ser::{CharEscape, Formatter};

/// A text and how many bytes it may take once escaped.
pub(super) struct Cut<'a>(pub(super) &'a str, pub(super) usize);

impl Serialize for Cut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(text, limit) = *self;
        if text.len() <= limit / 6 || text.chars().try_fold(0, |sum, c| within(sum + escaped_len(c), limit)).is_some() {
            return serializer.serialize_str(text);
        }
        let mark = format!("\u{2026}({} bytes)", text.len());
        let room = limit.saturating_sub(mark.chars().map(escaped_len).sum());
        let mut used = 0;
        let kept = text.chars().take_while(|c| {
            used += escaped_len(*c);
            used <= room
        });
        serializer.serialize_str(&kept.chain(mark.chars()).collect::<String>())
    }
}

fn within(sum: usize, limit: usize) -> Option<usize> {
    (sum <= limit).then_some(sum)
}

fn escaped_len(c: char) -> usize {
    match c {
        '"' | '\\' => 2,
        ' '..='~' => 1,
        c => 6 * c.len_utf16(),
    }
}

/// Appends the members of what serialises as one JSON object, each after a comma.
pub(super) fn write_members(out: &mut Vec<u8>, object: &impl Serialize) {
    let start = out.len();
    write_json(out, object);
    if let Some(brace) = out.get_mut(start) {
        *brace = b',';
    }
    out.pop();
}

pub(super) fn write_json(out: &mut Vec<u8>, value: &impl Serialize) {
    let written = value.serialize(&mut serde_json::Serializer::with_formatter(out, PrintableAscii));
    // A Vec takes every byte, and no type of this file has a map whose key is not a text.
    debug_assert!(written.is_ok(), "serialising a record cannot fail");
}

/// JSON of printable ASCII only.
struct PrintableAscii;

impl Formatter for PrintableAscii {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        // Nearly every fragment: a check by bytes takes many at a time.
        if fragment.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return writer.write_all(fragment.as_bytes());
        }
        let mut rest = fragment;
        while let Some(at) = rest.find(|c: char| !matches!(c, ' '..='~')) {
            let (plain, from) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let mut chars = from.chars();
            for unit in chars.next().iter().flat_map(|c| c.encode_utf16(&mut [0; 2]).to_vec()) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }

    fn write_char_escape<W: ?Sized + io::Write>(&mut self, writer: &mut W, escape: CharEscape) -> io::Result<()> {
        let control = match escape {
            CharEscape::Quote => return writer.write_all(b"\\\""),
            CharEscape::ReverseSolidus => return writer.write_all(b"\\\\"),
            CharEscape::Solidus => return writer.write_all(b"/"),
            CharEscape::Backspace => 8,
            CharEscape::FormFeed => 12,
            CharEscape::LineFeed => 10,
            CharEscape::CarriageReturn => 13,
            CharEscape::Tab => 9,
            CharEscape::AsciiControl(byte) => byte,
        };
        write!(writer, "\\u{control:04x}")
    }
}

/// RFC 3339, UTC, always six digits after the second. A clock outside the years 1970 to 9999 is written as 1970.
pub(super) fn rfc3339(time: SystemTime) -> String {
    let mut out = String::with_capacity(27);
    let time = time.max(UNIX_EPOCH);
    if write!(out, "{}", humantime::format_rfc3339_micros(time)).is_err() {
        out = "1970-01-01T00:00:00.000000Z".to_owned();
    }
    out
}
