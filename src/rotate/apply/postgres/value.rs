//! What a value is: a password, a connection URL, or a JSON object; and the same value with another password. Pure.

use std::fmt;
use std::ops::Range;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use zeroize::Zeroizing;

use super::place::Place;
use super::{json, url};
use crate::secret::Secret;

/// What is written in percent-encoding: all but RFC 3986's unreserved characters, so that libpq, form decoders and
/// everything between read the same.
pub const NOT_UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Why a value is no credential. A fixed sentence whose subject is the value; it cites nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// How a value holds its credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Json,
    Password,
    Url,
}

/// A value, understood. No `Debug`: it holds the password.
pub struct Credential<'a> {
    bytes: &'a [u8],
    shape: Shape,
    /// The user that it names.
    pub user: Option<String>,
    user_at: Vec<Range<usize>>,
    /// The password; a URL may lack one.
    pub password: Option<Zeroizing<Vec<u8>>>,
    password_at: Range<usize>,
    password_lead: &'static str,
    /// Where it says the server is.
    pub places: Vec<Place>,
    /// The database that it names.
    pub dbname: Option<String>,
}

impl<'a> Credential<'a> {
    /// Understands a value.
    ///
    /// # Errors
    /// It is neither a password nor one of the two forms that hold one.
    pub fn parse(value: &'a Secret) -> Result<Self, Malformed> {
        let bytes = value.expose();
        if bytes.is_empty() {
            return Err(Malformed("it is empty"));
        }
        if bytes.contains(&0) {
            return Err(Malformed("it has a NUL, which PostgreSQL does not take"));
        }
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        if url::is_url(text) {
            let url = url::parse(text)?;
            if url.user.is_none() {
                return Err(Malformed("its URL names no user"));
            }
            return Ok(Self {
                bytes,
                shape: Shape::Url,
                user: url.user,
                user_at: url.user_at.into_iter().collect(),
                password: url.password,
                password_at: url.password_at,
                password_lead: url.password_lead,
                places: url.places,
                dbname: url.dbname,
            });
        }
        if let Some(json) = json::parse(text) {
            let json = json?;
            return Ok(Self {
                bytes,
                shape: Shape::Json,
                user: json.user,
                user_at: json.user_at,
                password: Some(json.password),
                password_at: json.password_at,
                password_lead: "",
                places: json.place.into_iter().collect(),
                dbname: json.dbname,
            });
        }
        // `jdbc:postgresql://`, `mysql://`: taken for a password, it would be replaced by one.
        if text.contains("://") {
            return Err(Malformed("it looks like a URL, but only postgres:// and postgresql:// are understood"));
        }
        Ok(Self {
            bytes,
            shape: Shape::Password,
            user: None,
            user_at: Vec::new(),
            password: Some(Zeroizing::new(bytes.to_vec())),
            password_at: 0..bytes.len(),
            password_lead: "",
            places: Vec::new(),
            dbname: None,
        })
    }

    /// The value with this password, and this user if one is given. Every other byte stays.
    ///
    /// # Errors
    /// The value has no place for a user, or the password cannot stand in JSON.
    pub fn with(&self, user: Option<&str>, password: &Secret) -> Result<Secret, Malformed> {
        if user.is_some() && self.user_at.is_empty() {
            return Err(Malformed("it names no user, so that its readers could not learn of the other one"));
        }
        let mut changes = vec![(self.password_at.clone(), self.written(password.expose(), self.password_lead)?)];
        if let Some(user) = user {
            for at in &self.user_at {
                changes.push((at.clone(), self.written(user.as_bytes(), "")?));
            }
        }
        // The user's end can be where a missing password begins: then the user comes first.
        changes.sort_by_key(|(at, _)| (at.start, at.end));
        let added: usize = changes.iter().map(|(_, text)| text.len()).sum();
        let mut out = Vec::with_capacity(self.bytes.len() + added);
        let mut from = 0;
        for (at, text) in &changes {
            out.extend_from_slice(self.bytes.get(from..at.start).unwrap_or_default());
            out.extend_from_slice(text);
            from = at.end;
        }
        out.extend_from_slice(self.bytes.get(from..).unwrap_or_default());
        Ok(Secret::new(out))
    }

    fn written(&self, text: &[u8], lead: &str) -> Result<Zeroizing<Vec<u8>>, Malformed> {
        // Six bytes for one are the most that either encoding takes.
        let mut out = Zeroizing::new(Vec::with_capacity(lead.len() + 2 + 6 * text.len()));
        out.extend_from_slice(lead.as_bytes());
        match self.shape {
            Shape::Password => out.extend_from_slice(text),
            Shape::Url => percent_encode(text, NOT_UNRESERVED).for_each(|part| out.extend_from_slice(part.as_bytes())),
            Shape::Json => {
                let text = std::str::from_utf8(text).map_err(|_| Malformed("JSON cannot hold the new password"))?;
                serde_json::to_writer(&mut *out, text).map_err(|_| Malformed("JSON cannot hold the new password"))?;
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
#[path = "value_tests.rs"]
mod tests;
