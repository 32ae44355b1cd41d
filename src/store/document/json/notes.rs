//! The notes of what was exposed, in and out.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::io::{self, Write};

use serde::Deserialize;
use serde::de::{self, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::{BAD_NOTE, DUPLICATE, ITEM_NAME, TOO_MANY, TOO_MANY_NOTES, Time, text};
use crate::name::ItemName;
use crate::store::document::exposed::is_recipient;
use crate::store::document::{MAX_ITEMS, MAX_NOTES, Note};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNote {
    recipient: Recipient,
    time: Time,
    items: Numbers,
}

from_text!(Recipient(String), |text| if is_recipient(text) { Ok(text.to_owned()) } else { Err(BAD_NOTE) });

#[derive(Default)]
pub(super) struct Notes(pub(super) Vec<Note>);

impl<'de> Deserialize<'de> for Notes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Notes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of notes")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Notes, A::Error> {
                let mut notes: Vec<Note> = Vec::new();
                while let Some(RawNote { recipient, time, items }) = list.next_element()? {
                    if notes.len() >= MAX_NOTES {
                        return Err(A::Error::custom(TOO_MANY_NOTES));
                    }
                    if notes.iter().any(|note| note.recipient == recipient.0) {
                        return Err(A::Error::custom(DUPLICATE));
                    }
                    notes.push(Note { recipient: recipient.0, time: time.0, items: items.0 });
                }
                Ok(Notes(notes))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

/// The number of each item in a note.
struct Numbers(BTreeMap<ItemName, u64>);

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Numbers;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of items to numbers")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Numbers, A::Error> {
                let mut numbers = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if numbers.len() >= MAX_ITEMS {
                        return Err(A::Error::custom(TOO_MANY));
                    }
                    let name = ItemName::new(name).map_err(|_| A::Error::custom(ITEM_NAME))?;
                    let Entry::Vacant(place) = numbers.entry(name) else {
                        return Err(A::Error::custom(DUPLICATE));
                    };
                    match map.next_value()? {
                        0 => return Err(A::Error::custom(BAD_NOTE)),
                        number => place.insert(number),
                    };
                }
                if numbers.is_empty() { Err(A::Error::custom(BAD_NOTE)) } else { Ok(Numbers(numbers)) }
            }
        }
        deserializer.deserialize_map(Map)
    }
}

/// Nothing at all where there is none, so that most documents do not have the field.
pub(super) fn write(notes: &[Note], out: &mut impl Write) -> io::Result<()> {
    for (index, note) in notes.iter().enumerate() {
        out.write_all(if index == 0 { b",\n\"exposed\":[\n" } else { b",\n" })?;
        out.write_all(b"{\"recipient\":")?;
        text(&note.recipient, out)?;
        write!(out, ",\"time\":\"{}\",\"items\":{{", humantime::format_rfc3339_seconds(note.time))?;
        for (index, (name, number)) in note.items.iter().enumerate() {
            out.write_all(if index == 0 { b"\n " } else { b",\n " })?;
            text(name.as_str(), out)?;
            write!(out, ":{number}")?;
        }
        out.write_all(b"}}")?;
    }
    if notes.is_empty() { Ok(()) } else { out.write_all(b"]") }
}
