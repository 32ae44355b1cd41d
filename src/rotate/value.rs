//! One field of a value that is JSON: read, and replaced with the rest kept byte for byte. Pure.
//!
//! The text is never taken apart and put together again, which would change the order of its members and long numbers: the
//! place of the field is found in it, and what stands there is exchanged.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::error::{Cause, Class};
use crate::policy::model::{Apply, JsonPointer, Roles};
use crate::secret::Secret;

/// What of an item's value the target works with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum View<'p> {
    /// All of it.
    Whole,
    /// The text of the string at this pointer (RFC 6901).
    Text(&'p [String]),
    /// The JSON object at this pointer.
    Object(&'p [String]),
}

/// Why a field cannot be read or replaced. Sentences of ours: what stands there is a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValueError(&'static str);

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Cause for ValueError {
    fn class(&self) -> Class {
        Class::Store
    }
}

impl<'p> View<'p> {
    /// The field of the binding; where users alternate and the field is a `password`, the object that it stands in, since
    /// the name of the user changes with it.
    #[must_use]
    pub fn of(field: Option<&'p JsonPointer>, apply: &Apply) -> Self {
        let Some(JsonPointer(tokens)) = field else { return Self::Whole };
        let alternates = matches!(apply, Apply::Postgres(postgres) if matches!(postgres.roles, Roles::Alternating(..)));
        match tokens.split_last() {
            Some((last, above)) if alternates && last == "password" => Self::Object(above),
            _ => Self::Text(tokens),
        }
    }

    /// What the target sees of `whole`.
    ///
    /// # Errors
    /// It is not JSON, or has nothing at the pointer, or something else than was expected there.
    pub fn get(&self, whole: &Secret) -> Result<Secret, ValueError> {
        match self {
            Self::Whole => Ok(whole.duplicate()),
            Self::Text(tokens) => {
                let raw = slice(whole.expose(), &find(whole.expose(), tokens)?)?;
                let text: String =
                    serde_json::from_slice(raw).map_err(|_| ValueError("what the pointer leads to is no string"))?;
                Ok(Secret::new(text.into_bytes()))
            }
            Self::Object(tokens) => {
                let raw = slice(whole.expose(), &find(whole.expose(), tokens)?)?;
                if raw.first() != Some(&b'{') {
                    return Err(ValueError("what the pointer leads to is no object"));
                }
                Ok(Secret::new(raw.to_vec()))
            }
        }
    }

    /// `whole` with `new` in the place of what [`Self::get`] answers.
    ///
    /// # Errors
    /// Those of [`Self::get`]; `new` cannot stand there.
    pub fn put(&self, whole: &Secret, new: &Secret) -> Result<Secret, ValueError> {
        let (tokens, json) = match self {
            Self::Whole => return Ok(new.duplicate()),
            Self::Text(tokens) => {
                let text = std::str::from_utf8(new.expose())
                    .map_err(|_| ValueError("the new value is not text, which a field of JSON is"))?;
                // The longest escape of a byte has six characters; a buffer that grows leaves copies behind.
                let mut json = Zeroizing::new(Vec::with_capacity(6 * text.len() + 2));
                serde_json::to_writer(&mut *json, text).map_err(|_| ValueError("the new value is no JSON string"))?;
                (tokens, json)
            }
            Self::Object(tokens) => (tokens, Zeroizing::new(new.expose().to_vec())),
        };
        // What stands there now has to be of the same kind.
        drop(self.get(whole)?);
        let text = whole.expose();
        let place = find(text, tokens)?;
        let (before, after) = (slice(text, &(0..place.start))?, slice(text, &(place.end..text.len()))?);
        let mut out = Zeroizing::new(Vec::with_capacity(before.len() + json.len() + after.len()));
        out.extend_from_slice(before);
        out.extend_from_slice(&json);
        out.extend_from_slice(after);
        Ok(Secret::new(std::mem::take(&mut *out)))
    }
}

/// Where the value at the pointer stands in the text.
fn find(text: &[u8], tokens: &[String]) -> Result<Range<usize>, ValueError> {
    // serde_json's own messages may cite the value, so they go no further.
    let not_json = |_| ValueError("the value is not JSON");
    let absent = ValueError("the value has nothing at the pointer");
    let mut at: &RawValue = serde_json::from_slice(text).map_err(not_json)?;
    for token in tokens {
        let raw = at.get();
        at = if raw.starts_with('{') {
            // Of a name that is given twice the last one counts, as it does for whoever reads the field.
            serde_json::from_str::<BTreeMap<String, &RawValue>>(raw).map_err(not_json)?.remove(token).ok_or(absent)?
        } else if raw.starts_with('[') {
            let index: usize = token.parse().map_err(|_| absent)?;
            *serde_json::from_str::<Vec<&RawValue>>(raw).map_err(not_json)?.get(index).ok_or(absent)?
        } else {
            return Err(absent);
        };
    }
    let start = (at.get().as_ptr() as usize).checked_sub(text.as_ptr() as usize).ok_or(absent)?;
    Ok(start..start + at.get().len())
}

fn slice<'t>(text: &'t [u8], range: &Range<usize>) -> Result<&'t [u8], ValueError> {
    text.get(range.clone()).ok_or(ValueError("the value has nothing at the pointer"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::name::VariableName;
    use crate::policy::model::Postgres;

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec())
    }

    fn text(secret: &Secret) -> String {
        String::from_utf8(secret.expose().to_vec()).unwrap()
    }

    fn tokens(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    const JSON: &str =
        "{ \"b\" : [1, {\"pass word\":\"old\\n\", \"n\": 12345678901234567890123.50 }],\n \"a\":\"x\", \"z\": null }";

    #[test]
    fn the_rest_is_kept_byte_for_byte() {
        let at = tokens(&["b", "1", "pass word"]);
        let view = View::Text(&at);
        assert_eq!(text(&view.get(&secret(JSON)).unwrap()), "old\n");
        let put = view.put(&secret(JSON), &secret("ne\"w\\")).unwrap();
        assert_eq!(text(&put), JSON.replace("\"old\\n\"", "\"ne\\\"w\\\\\""));
        assert_eq!(text(&view.get(&put).unwrap()), "ne\"w\\");
    }

    #[test]
    fn an_object_is_seen_and_put_as_it_is() {
        let at = tokens(&["b", "1"]);
        let view = View::Object(&at);
        assert!(text(&view.get(&secret(JSON)).unwrap()).starts_with("{\"pass word\""));
        let put = view.put(&secret(JSON), &secret("{\"username\":\"b\"}")).unwrap();
        assert!(text(&put).contains("[1, {\"username\":\"b\"}],\n \"a\":\"x\""), "{}", text(&put));
        assert!(View::Object(&tokens(&["a"])).get(&secret(JSON)).is_err());
    }

    #[test]
    fn what_is_no_string_is_no_field() {
        for (json, at) in [
            ("not json", &["a"][..]),
            (JSON, &["nothing"]),
            (JSON, &["a", "deeper"]),
            (JSON, &["b", "7"]),
            (JSON, &["b", "x"]),
            (JSON, &["b", "0"]),
            (JSON, &["z"]),
            (JSON, &[]),
            ("{\"a\":\"hunter2\"} trailing", &["a"]),
        ] {
            let at = tokens(at);
            let error = View::Text(&at).put(&secret(json), &secret("new")).err();
            assert!(error.is_some_and(|error| !error.to_string().contains("hunter2")), "{json} {at:?}");
        }
        assert!(View::Text(&[]).put(&secret("\"whole\""), &Secret::new(vec![0xff])).is_err());
        assert_eq!(text(&View::Text(&[]).put(&secret(" \"whole\" "), &secret("new")).unwrap()), " \"new\" ");
    }

    #[test]
    fn where_users_alternate_the_target_sees_the_user_too() {
        let roles =
            |roles| Apply::Postgres(Postgres { admin: VariableName::new("ADMIN").unwrap(), roles, check: None });
        let alternating = roles(Roles::Alternating("a".into(), "b".into()));
        let single = roles(Roles::Single("a".into()));
        let (password, url) = (JsonPointer(tokens(&["db", "password"])), JsonPointer(tokens(&["url"])));
        assert_eq!(View::of(Some(&password), &alternating), View::Object(&tokens(&["db"])));
        assert_eq!(View::of(Some(&password), &single), View::Text(&password.0));
        assert_eq!(View::of(Some(&url), &alternating), View::Text(&url.0));
        assert_eq!(View::of(None, &alternating), View::Whole);
    }

    proptest! {
        /// Whatever the text, putting changes that field and nothing else.
        #[test]
        fn a_field_is_replaced_and_nothing_else(
            members in proptest::collection::btree_map("[a-c~/\\\\\"é ]{0,3}", "\\PC{0,8}", 1..5),
            chosen in any::<proptest::sample::Index>(),
            new in "\\PC{0,20}",
        ) {
            let mut object: serde_json::Map<String, serde_json::Value> =
                members.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
            let name = chosen.get(&members.keys().collect::<Vec<_>>()).to_string();
            let before = secret(&serde_json::to_string(&object).unwrap());
            let at = vec![name.clone()];
            let after = View::Text(&at).put(&before, &secret(&new)).unwrap();
            object.insert(name, new.into());
            let read: serde_json::Value = serde_json::from_slice(after.expose()).unwrap();
            prop_assert_eq!(read, serde_json::Value::Object(object));
        }
    }
}
