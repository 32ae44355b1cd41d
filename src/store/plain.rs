//! Plaintexts made by hand, inside stock age files: dotenv, one flat JSON object, one flat TOML table.
//!
//! A value's bytes come through as they are written: nothing is expanded, `$2a$10$` stays. A name is given once. Errors hold
//! a line number and a fixed sentence, never a line. The grammar is in `docs/spec/sealed-file.md`, "Files made by hand".

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde::{Deserialize, de};
use zeroize::Zeroizing;

use super::document::{MAX_ITEMS, MAX_VALUE, Malformed};
use crate::name::ItemName;
use crate::secret::Secret;

/// Names and values of a file made by hand.
pub type Flat = BTreeMap<ItemName, Secret>;

const DUPLICATE: &str = "a name is given twice";
const ITEM_NAME: &str = "not a valid item name";
const NOT_FLAT: &str = "neither a string, an integer nor a boolean: quote it";
const TOO_LONG: &str = "a value is over the limit of 131072 bytes";
const TOO_MANY: &str = "more than 10000 items";

/// Reads `NAME=value` lines.
///
/// # Errors
/// The first line that is not one, by its number.
pub fn dotenv(bytes: &[u8]) -> Result<Flat, Malformed> {
    let mut at = Lines { rest: bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes), line: 1 };
    let mut flat = Flat::new();
    while !at.rest.is_empty() {
        at.skip_blanks();
        if at.skip_line_end() {
            continue;
        }
        if at.rest.first() == Some(&b'#') {
            at.skip_comment();
            continue;
        }
        let line = at.line;
        let (name, value) = at.assignment()?;
        insert(&mut flat, name, value).map_err(|why| Malformed { line, column: None, why })?;
    }
    Ok(flat)
}

/// Reads one flat JSON object. Strings are taken as they are, integers and booleans as JSON writes them; a number with a
/// fraction or exponent has no single way to be written, so it must be quoted.
///
/// # Errors
/// Where it is not one, by its line.
pub fn json(bytes: &[u8]) -> Result<Flat, Malformed> {
    let FlatObject(flat) = serde_json::from_slice(bytes).map_err(|error| Malformed::from_json(&error))?;
    Ok(flat)
}

/// Reads one flat TOML table, with the rules of [`json`]; integers come out in decimal.
///
/// # Errors
/// The line that is not valid TOML, or 1 for a value that is not flat.
pub fn toml(bytes: &[u8]) -> Result<Flat, Malformed> {
    let malformed = |line, why| Malformed { line, column: None, why };
    let text =
        std::str::from_utf8(bytes).map_err(|error| malformed(line_of(bytes, error.valid_up_to()), "not UTF-8"))?;
    let table: FlatObject = ::toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(bytes, span.start));
        let said = Zeroizing::new(error.message().to_owned());
        let ours = [DUPLICATE, ITEM_NAME, NOT_FLAT, TOO_LONG, TOO_MANY].into_iter().find(|why| said.starts_with(why));
        malformed(line, ours.unwrap_or("not valid TOML, or a name is given twice"))
    })?;
    Ok(table.0)
}

fn line_of(bytes: &[u8], offset: usize) -> usize {
    1 + bytes.iter().take(offset).filter(|byte| **byte == b'\n').count()
}

fn insert(flat: &mut Flat, name: ItemName, value: Secret) -> Result<(), &'static str> {
    if value.expose().len() > MAX_VALUE {
        return Err(TOO_LONG);
    }
    if flat.len() >= MAX_ITEMS {
        return Err(TOO_MANY);
    }
    let Entry::Vacant(place) = flat.entry(name) else { return Err(DUPLICATE) };
    place.insert(value);
    Ok(())
}

struct FlatObject(Flat);

impl<'de> Deserialize<'de> for FlatObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = FlatObject;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a flat map")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FlatObject, A::Error> {
                let mut flat = Flat::new();
                while let Some(name) = map.next_key::<String>()? {
                    let name = ItemName::new(name).map_err(|_| A::Error::custom(ITEM_NAME))?;
                    let Scalar(value) = map.next_value()?;
                    insert(&mut flat, name, value).map_err(A::Error::custom)?;
                }
                Ok(FlatObject(flat))
            }
        }
        deserializer.deserialize_map(Map)
    }
}

/// A value without structure.
struct Scalar(Secret);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One;
        impl<'de> Visitor<'de> for One {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a scalar")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(Secret::new(text.as_bytes().to_vec())))
            }
            fn visit_string<E: de::Error>(self, text: String) -> Result<Scalar, E> {
                Ok(Scalar(Secret::new(text.into_bytes())))
            }
            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Scalar, E> {
                self.visit_string(value.to_string())
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Scalar, E> {
                self.visit_string(value.to_string())
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Scalar, E> {
                self.visit_string(value.to_string())
            }
            fn visit_f64<E: de::Error>(self, _: f64) -> Result<Scalar, E> {
                Err(E::custom(NOT_FLAT))
            }
            fn visit_unit<E: de::Error>(self) -> Result<Scalar, E> {
                Err(E::custom(NOT_FLAT))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, _: A) -> Result<Scalar, A::Error> {
                Err(A::Error::custom(NOT_FLAT))
            }
            fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Scalar, A::Error> {
                Err(A::Error::custom(NOT_FLAT))
            }
        }
        deserializer.deserialize_any(One)
    }
}

/// A place in a dotenv file.
struct Lines<'a> {
    rest: &'a [u8],
    line: usize,
}

impl<'a> Lines<'a> {
    fn fail<T>(&self, why: &'static str) -> Result<T, Malformed> {
        Err(Malformed { line: self.line, column: None, why })
    }

    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at_checked(count).unwrap_or((self.rest, &[]));
        self.rest = rest;
        taken
    }

    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let count = self.rest.iter().position(|byte| !wanted(*byte)).unwrap_or(self.rest.len());
        self.take(count)
    }

    fn skip_blanks(&mut self) {
        self.take_while(|byte| matches!(byte, b' ' | b'\t'));
    }

    /// LF or CRLF.
    fn skip_line_end(&mut self) -> bool {
        let count = if self.rest.starts_with(b"\n") {
            1
        } else if self.rest.starts_with(b"\r\n") {
            2
        } else {
            return false;
        };
        self.take(count);
        self.line += 1;
        true
    }

    fn skip_comment(&mut self) {
        self.take_while(|byte| byte != b'\n');
        self.skip_line_end();
    }

    fn assignment(&mut self) -> Result<(ItemName, Secret), Malformed> {
        if let Some(rest) = self.rest.strip_prefix(b"export")
            && rest.starts_with(b" ") | rest.starts_with(b"\t")
        {
            self.rest = rest;
            self.skip_blanks();
        }
        let name = self.take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'/'));
        if !name.first().is_some_and(|first| first.is_ascii_alphabetic() || matches!(first, b'_' | b'/')) {
            return self.fail("neither a comment nor NAME=value");
        }
        let name = std::str::from_utf8(name).ok().and_then(|name| ItemName::new(name).ok());
        let Some(name) = name else { return self.fail(ITEM_NAME) };
        self.skip_blanks();
        if self.take(1) != b"=" {
            return self.fail("a name without `=`");
        }
        self.skip_blanks();
        let value = match self.rest.first() {
            Some(b'\'') => self.quoted(b'\'')?,
            Some(b'"') => self.quoted(b'"')?,
            _ => self.unquoted(),
        };
        Ok((name, value))
    }

    /// To the end of the line, or to a `#` after a blank; blanks at the end are not part of it.
    fn unquoted(&mut self) -> Secret {
        let line = self.take_while(|byte| byte != b'\n');
        self.skip_line_end();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let is_blank = |byte: Option<&u8>| matches!(byte, None | Some(b' ' | b'\t'));
        let comment = (0..line.len())
            .find(|at| line.get(*at) == Some(&b'#') && is_blank(at.checked_sub(1).and_then(|before| line.get(before))));
        let mut value = comment.and_then(|at| line.get(..at)).unwrap_or(line);
        while let [start @ .., b' ' | b'\t'] = value {
            value = start;
        }
        Secret::new(value.to_vec())
    }

    /// To the closing quote, over as many lines as it takes. A line end inside counts as one LF.
    fn quoted(&mut self, quote: u8) -> Result<Secret, Malformed> {
        let start = self.line;
        self.take(1);
        let Some(length) = self.length_to(quote) else {
            return Err(Malformed { line: start, column: None, why: "a quote is not closed" });
        };
        // As long as the value can become, so that it never grows; wiped also where the value turns out malformed.
        let mut value = Zeroizing::new(Vec::with_capacity(length));
        loop {
            if self.skip_line_end() {
                value.push(b'\n');
                continue;
            }
            match self.take(1) {
                [byte] if *byte == quote => break,
                [b'\\'] if quote == b'"' => value.push(match self.take(1) {
                    b"n" => b'\n',
                    b"r" => b'\r',
                    b"t" => b'\t',
                    b"\\" => b'\\',
                    b"\"" => b'"',
                    b"$" => b'$',
                    _ => return self.fail("an unknown escape: known are \\n \\r \\t \\\\ \\\" \\$"),
                }),
                other => value.extend_from_slice(other),
            }
        }
        let before = self.rest.len();
        self.skip_blanks();
        if self.rest.first() == Some(&b'#') && self.rest.len() < before {
            self.skip_comment();
        } else if !self.skip_line_end() && !self.rest.is_empty() {
            return self.fail("something follows the closing quote");
        }
        Ok(Secret::new(std::mem::take(&mut *value)))
    }

    /// How many bytes lie before the closing quote, escapes counted as they are written.
    fn length_to(&self, quote: u8) -> Option<usize> {
        let mut bytes = self.rest.iter().enumerate();
        while let Some((at, byte)) = bytes.next() {
            match byte {
                b'\\' if quote == b'"' => {
                    bytes.next();
                }
                byte if *byte == quote => return Some(at),
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
#[path = "plain_tests.rs"]
mod tests;
