//! The document as JSON, in and out.
//!
//! Reading goes from the decrypted bytes straight into [`Secret`]s: one copy for each value, none for the rest of the text.
//! Writing runs twice over the document, once to count and once to write, so that the buffer never grows: a growing one
//! leaves copies of values behind. `serde_json`'s own messages can cite content; only their place leaves here.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::io::{self, Write};
use std::time::SystemTime;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde::{Deserialize, de};
use zeroize::Zeroizing;

use super::{Document, FORMAT, Item, MAX_ITEMS, MAX_VALUE, Version, is_author};
use crate::name::{EnvironmentName, ItemName, ServiceName};
use crate::policy::model::Stage;
use crate::secret::Secret;

/// Where a plaintext is not what it should be. Holds a place and a fixed sentence, never what stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// The line, from 1.
    pub line: usize,
    /// The column in bytes, from 1, where the parser tells it. Never shown: a value stands before it on the same line, and
    /// messages are in the audit log, which must not tell how long a value is.
    pub column: Option<usize>,
    /// What is wrong.
    pub why: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

impl Malformed {
    /// From the place up to which the bytes are UTF-8.
    fn not_utf8(plaintext: &[u8], valid_up_to: usize) -> Self {
        let line = 1 + plaintext.iter().take(valid_up_to).filter(|byte| **byte == b'\n').count();
        Self { line, column: None, why: "not valid JSON" }
    }

    /// From a JSON error: its place, and its sentence only if it is one of ours.
    pub(in crate::store) fn from_json(error: &serde_json::Error) -> Self {
        let text = Zeroizing::new(error.to_string());
        let ours = SENTENCES.iter().find(|sentence| text.starts_with(**sentence));
        let why = match (ours, error.is_data()) {
            (Some(sentence), _) => sentence,
            (None, true) => "a field is unknown, missing, given twice or of the wrong type",
            (None, false) => "not valid JSON",
        };
        Self { line: error.line().max(1), column: Some(error.column()), why }
    }
}

pub(in crate::store) const DUPLICATE: &str = "a name is given twice";
pub(in crate::store) const ITEM_NAME: &str = "not a valid item name";
pub(in crate::store) const NOT_FLAT: &str = "neither a string, an integer nor a boolean: quote it";
pub(in crate::store) const TOO_LONG: &str = "a value is over the limit of 131072 bytes";
pub(in crate::store) const TOO_MANY: &str = "more than 10000 items";
const AUTHOR: &str = "not a valid author";
const BAD_NOTE: &str = "not a note of what was exposed";
const BASE64: &str = "not valid base64";
const NUMBERS: &str = "version numbers start at 1 and differ within an item";
const ONE_VALUE: &str = "a version has either `value` or `base64`";
const OTHER_FORMAT: &str = "another format, or a newer one: this build reads vouchsafe-sealed/1";
const STAGES: &str = "an item has a current or a pending version";
const TIME: &str = "not a time as RFC 3339 writes it in UTC";
const TOO_MANY_NOTES: &str = "more than 64 notes of what was exposed";
const SENTENCES: [&str; 14] = [
    AUTHOR,
    BAD_NOTE,
    BASE64,
    DUPLICATE,
    ITEM_NAME,
    NOT_FLAT,
    NUMBERS,
    ONE_VALUE,
    OTHER_FORMAT,
    STAGES,
    TIME,
    TOO_LONG,
    TOO_MANY,
    TOO_MANY_NOTES,
];

pub(super) fn parse(plaintext: &[u8]) -> Result<Document, Malformed> {
    // Checked as a whole: the parser would otherwise check each string on its own.
    let text = std::str::from_utf8(plaintext).map_err(|error| Malformed::not_utf8(plaintext, error.valid_up_to()))?;
    let raw: RawDocument = serde_json::from_str(text).map_err(|error| Malformed::from_json(&error))?;
    let RawDocument { _format: _, environment, service, generation, exposed, items } = raw;
    Ok(Document { environment, service, generation, items: items.0, notes: exposed.0 })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDocument {
    #[serde(rename = "format")]
    _format: Format,
    environment: EnvironmentName,
    service: Option<ServiceName>,
    generation: u64,
    #[serde(default)]
    exposed: notes::Notes,
    items: Items,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawItem {
    current: Option<RawVersion>,
    previous: Option<RawVersion>,
    pending: Option<RawVersion>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawVersion {
    number: u64,
    time: Time,
    author: Author,
    value: Option<Text>,
    base64: Option<Base64>,
}

/// A newtype read from a JSON string by one function, which sees the text in place.
macro_rules! from_text {
    ($type:ident($inner:ty), $convert:expr) => {
        struct $type($inner);

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct FromText;
                impl Visitor<'_> for FromText {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a string")
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                        let convert: fn(&str) -> Result<$inner, &'static str> = $convert;
                        convert(text).map($type).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(FromText)
            }
        }
    };
}

// After the macro, which it uses.
mod notes;

from_text!(Format(()), |text| if text == FORMAT { Ok(()) } else { Err(OTHER_FORMAT) });
from_text!(Time(SystemTime), |text| humantime::parse_rfc3339(text).map_err(|_| TIME));
from_text!(Author(String), |text| if is_author(text) { Ok(text.to_owned()) } else { Err(AUTHOR) });
from_text!(Text(Secret), |text| if text.len() <= MAX_VALUE {
    Ok(Secret::new(text.as_bytes().to_vec()))
} else {
    Err(TOO_LONG)
});
from_text!(Base64(Secret), |text| {
    if text.len() > MAX_VALUE.div_ceil(3) * 4 {
        return Err(TOO_LONG);
    }
    // Sized for the whole text, so that decoding does not make it grow; wiped also where decoding stops halfway.
    let mut bytes = Zeroizing::new(Vec::with_capacity(base64::decoded_len_estimate(text.len())));
    BASE64_STANDARD.decode_vec(text, &mut bytes).map_err(|_| BASE64)?;
    if bytes.len() > MAX_VALUE {
        return Err(TOO_LONG);
    }
    Ok(Secret::new(std::mem::take(&mut *bytes)))
});

impl RawVersion {
    fn check(self) -> Result<Version, &'static str> {
        let ((Some(Text(value)), None) | (None, Some(Base64(value)))) = (self.value, self.base64) else {
            return Err(ONE_VALUE);
        };
        Ok(Version { number: self.number, time: self.time.0, author: self.author.0, value })
    }
}

impl RawItem {
    fn check(self) -> Result<Item, &'static str> {
        let item = Item {
            current: self.current.map(RawVersion::check).transpose()?,
            previous: self.previous.map(RawVersion::check).transpose()?,
            pending: self.pending.map(RawVersion::check).transpose()?,
        };
        if item.current.is_none() && (item.pending.is_none() || item.previous.is_some()) {
            return Err(STAGES);
        }
        let mut seen = [0; 3];
        for (place, (_, version)) in seen.iter_mut().zip(item.versions()) {
            *place = version.number;
        }
        let count = item.versions().count();
        let distinct = (0..count).all(|i| (0..i).all(|j| seen.get(i) != seen.get(j)));
        if !distinct || item.versions().any(|(_, version)| version.number == 0) {
            return Err(NUMBERS);
        }
        Ok(item)
    }
}

struct Items(BTreeMap<ItemName, Item>);

impl<'de> Deserialize<'de> for Items {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Items;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of items")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Items, A::Error> {
                let mut items = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if items.len() >= MAX_ITEMS {
                        return Err(A::Error::custom(TOO_MANY));
                    }
                    let name = ItemName::new(name).map_err(|_| A::Error::custom(ITEM_NAME))?;
                    let Entry::Vacant(place) = items.entry(name) else {
                        return Err(A::Error::custom(DUPLICATE));
                    };
                    place.insert(map.next_value::<RawItem>()?.check().map_err(A::Error::custom)?);
                }
                Ok(Items(items))
            }
        }
        deserializer.deserialize_map(Map)
    }
}

pub(super) fn write(document: &Document) -> Secret {
    let mut count = Count(0);
    let mut bytes = Zeroizing::new(Vec::new());
    // Neither a counter nor a vector fails; if one did, the read-back after encryption would find the document cut short.
    let written = write_to(document, &mut count).and_then(|()| {
        bytes.reserve_exact(count.0);
        write_to(document, &mut *bytes)
    });
    debug_assert!(written.is_ok() && bytes.len() == count.0, "counting and writing agree");
    Secret::new(std::mem::take(&mut *bytes))
}

/// Counts what is written to it.
struct Count(usize);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_to(document: &Document, out: &mut impl Write) -> io::Result<()> {
    write!(out, "{{\"format\":\"{FORMAT}\",\n\"environment\":")?;
    text(document.environment.as_str(), out)?;
    out.write_all(b",\n\"service\":")?;
    match &document.service {
        Some(service) => text(service.as_str(), out)?,
        None => out.write_all(b"null")?,
    }
    write!(out, ",\n\"generation\":{}", document.generation)?;
    notes::write(&document.notes, out)?;
    out.write_all(b",\n\"items\":{")?;
    for (index, (name, item)) in document.items().enumerate() {
        out.write_all(if index == 0 { b"\n" } else { b",\n" })?;
        text(name.as_str(), out)?;
        out.write_all(b":{")?;
        let stages = [Stage::Current, Stage::Previous, Stage::Pending];
        let present = stages.iter().filter_map(|stage| item.stage(*stage).map(|version| (stage, version)));
        for (index, (stage, version)) in present.enumerate() {
            out.write_all(if index == 0 { b"\n " } else { b",\n " })?;
            write!(out, "\"{}\":", stage.word())?;
            write_version(version, out)?;
        }
        out.write_all(b"}")?;
    }
    out.write_all(b"}}\n")
}

fn write_version(version: &Version, out: &mut impl Write) -> io::Result<()> {
    let time = humantime::format_rfc3339_seconds(version.time);
    write!(out, "{{\"number\":{},\"time\":\"{time}\",\"author\":", version.number)?;
    text(&version.author, out)?;
    match std::str::from_utf8(version.value.expose()) {
        Ok(value) => {
            out.write_all(b",\"value\":")?;
            text(value, out)?;
        }
        Err(_) => {
            out.write_all(b",\"base64\":\"")?;
            base64_text(version.value.expose(), out)?;
            out.write_all(b"\"")?;
        }
    }
    out.write_all(b"}")
}

fn text(text: &str, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(out, text).map_err(io::Error::from)
}

/// In pieces of a multiple of three bytes, so that only the last one is padded.
fn base64_text(bytes: &[u8], out: &mut impl Write) -> io::Result<()> {
    let mut piece = Zeroizing::new([0_u8; 64]);
    for chunk in bytes.chunks(48) {
        let length = BASE64_STANDARD.encode_slice(chunk, piece.as_mut()).map_err(io::Error::other)?;
        out.write_all(piece.get(..length).unwrap_or_default())?;
    }
    Ok(())
}
