//! A credential as a JSON object, taken apart without losing a byte. Pure.

use std::fmt;
use std::ops::Range;

use percent_encoding::percent_encode;
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::place::{DEFAULT_PORT, Host, Place};
use super::value::{Malformed, NOT_UNRESERVED};

/// A JSON object with a password. Holds positions in the text.
pub struct Json {
    /// The user, if it names one.
    pub user: Option<String>,
    /// Where it stands, quotes included: `username`, `user`, or both.
    pub user_at: Vec<Range<usize>>,
    /// The password.
    pub password: Zeroizing<Vec<u8>>,
    /// Where it stands, quotes included.
    pub password_at: Range<usize>,
    /// `host` and `port`.
    pub place: Option<Place>,
    /// `dbname` or `database`.
    pub dbname: Option<String>,
}

/// Takes a text apart; `None` if it is no JSON object, so that a password may begin with a brace.
///
/// # Errors
/// The object is no credential, or one that could not be renewed whole.
pub fn parse(text: &str) -> Option<Result<Json, Malformed>> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let Fields(fields) = serde_json::from_str(text).ok()?;
    Some(credential(text, &fields))
}

fn credential(text: &str, fields: &[(String, &RawValue)]) -> Result<Json, Malformed> {
    let named = |names: &'static [&str]| fields.iter().filter(move |(key, _)| names.contains(&key.as_str()));
    let at = |raw: &RawValue| {
        // The borrowed text lies within `text`.
        let start = raw.get().as_ptr() as usize - text.as_ptr() as usize;
        start..start + raw.get().len()
    };
    let mut keys: Vec<&str> = fields.iter().map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    if keys.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
        return Err(Malformed("its JSON object has a field twice"));
    }
    let string = |raw: &RawValue| {
        serde_json::from_str::<String>(raw.get()).map_err(|_| Malformed("a field of its JSON object is no string"))
    };
    let first = |names: &'static [&str]| named(names).next().map(|(_, raw)| string(raw)).transpose();
    let (_, raw) = named(&["password"]).next().ok_or(Malformed("its JSON object has no `password`"))?;
    let password = Zeroizing::new(string(raw)?);
    let users = named(&["username", "user"]).map(|(_, raw)| string(raw)).collect::<Result<Vec<_>, _>>()?;
    if users.windows(2).any(|pair| matches!(pair, [a, b] if a != b)) {
        return Err(Malformed("the fields `username` and `user` of its JSON object differ"));
    }
    // A URL among the other fields would go on with the old password.
    let encoded = Zeroizing::new(percent_encode(password.as_bytes(), NOT_UNRESERVED).to_string());
    let others = fields.iter().filter(|(key, _)| key != "password");
    let holds =
        |text: &str| password.len() >= 8 && (text.contains(password.as_str()) || text.contains(encoded.as_str()));
    if others.into_iter().any(|(_, raw)| holds(raw.get())) {
        return Err(Malformed("another field of its JSON object holds the password too, and would stay as it is"));
    }
    let port = match named(&["port"]).next().map(|(_, raw)| raw.get().trim_matches('"')) {
        None => DEFAULT_PORT,
        Some(port) => port.parse().map_err(|_| Malformed("the field `port` of its JSON object is no port"))?,
    };
    Ok(Json {
        user: users.into_iter().next(),
        user_at: named(&["username", "user"]).map(|(_, raw)| at(raw)).collect(),
        password_at: at(raw),
        password: Zeroizing::new(password.as_bytes().to_vec()),
        place: first(&["host"])?.map(|host| Place { host: Host::new(&host), port }),
        dbname: first(&["dbname", "database"])?,
    })
}

/// The fields in their order; a map would drop one that is there twice.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry::<String, &'de RawValue>()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}
