//! Templates: `https://{API_USER:url}:{API_KEY:url}@api.example.com/`.
//!
//! A template is parsed once, into text and references; a value that is put in is never looked at again, so a `{` inside a
//! secret means nothing. `{{` and `}}` stand for the braces themselves.

use std::fmt;

use base64::Engine;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use crate::name::{VariableName, escape};

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Reference(VariableName, Filter),
}

/// How a value is written into a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filter {
    AsIs,
    /// RFC 4648 section 4, padded.
    Base64,
    /// The inside of a JSON string, RFC 8259 section 7.
    Json,
    /// RFC 3986 section 2.1: everything but the unreserved characters.
    Url,
}

/// RFC 3986 section 2.3, unreserved characters.
const NOT_UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplateError {
    /// `{` without `}`, or the other way round.
    Unbalanced,
    /// What stands between the braces is no variable name.
    NotAName(String),
    /// An unknown filter.
    UnknownFilter(String),
    /// A template without a reference is a constant.
    NoReference,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unbalanced => write!(f, "a brace has no partner; write `{{{{` or `}}}}` for the brace itself"),
            Self::NotAName(text) => write!(f, "`{}` is not a variable name", escape(text)),
            Self::UnknownFilter(text) => {
                write!(f, "`{}` is not a filter; there are `url`, `json` and `base64`", escape(text))
            }
            Self::NoReference => write!(f, "the template refers to no secret; `[child] set` is for constants"),
        }
    }
}

impl Template {
    /// Parses `text`.
    ///
    /// # Errors
    /// Where `text` is no template.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            literal.push_str(before);
            if let Some(after) = from.strip_prefix("{{") {
                literal.push('{');
                rest = after;
            } else if let Some(after) = from.strip_prefix("}}") {
                literal.push('}');
                rest = after;
            } else {
                let inside = from.strip_prefix('{').ok_or(TemplateError::Unbalanced)?;
                let (inside, after) = inside.split_once('}').ok_or(TemplateError::Unbalanced)?;
                if !literal.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut literal)));
                }
                pieces.push(reference(inside)?);
                rest = after;
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal));
        }
        if !pieces.iter().any(|piece| matches!(piece, Piece::Reference(..))) {
            return Err(TemplateError::NoReference);
        }
        Ok(Self { pieces })
    }

    /// The variables that it refers to, as often as it does.
    pub fn references(&self) -> impl Iterator<Item = &VariableName> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Reference(name, _) => Some(name),
            Piece::Text(_) => None,
        })
    }

    /// Puts values in. `write` appends the plaintext of a variable to the buffer, or says that there is none.
    ///
    /// # Errors
    /// The first variable that has no value, or whose value is not text where the filter needs text.
    pub fn render<'v>(&self, value: impl Fn(&VariableName) -> Option<&'v [u8]>) -> Result<Vec<u8>, RenderError> {
        let mut out = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Reference(name, filter) => {
                    let value = value(name).ok_or_else(|| RenderError::Absent(name.clone()))?;
                    filter.append(value, &mut out).ok_or_else(|| RenderError::NotText(name.clone()))?;
                }
            }
        }
        Ok(out)
    }
}

/// Why a template could not be filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenderError {
    /// The variable has no value.
    Absent(VariableName),
    /// The value is not UTF-8, which the `json` filter needs.
    NotText(VariableName),
}

/// As a policy writes it.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}")),
            Piece::Reference(name, Filter::AsIs) => write!(f, "{{{name}}}"),
            Piece::Reference(name, Filter::Base64) => write!(f, "{{{name}:base64}}"),
            Piece::Reference(name, Filter::Json) => write!(f, "{{{name}:json}}"),
            Piece::Reference(name, Filter::Url) => write!(f, "{{{name}:url}}"),
        })
    }
}

impl Filter {
    fn append(self, value: &[u8], out: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::AsIs => out.extend_from_slice(value),
            Self::Base64 => {
                let encoded = base64::engine::general_purpose::STANDARD.encode(value);
                out.extend_from_slice(encoded.as_bytes());
            }
            Self::Json => {
                let quoted = serde_json::to_string(std::str::from_utf8(value).ok()?).ok()?;
                out.extend_from_slice(quoted.get(1..quoted.len() - 1)?.as_bytes());
            }
            Self::Url => percent_encode(value, NOT_UNRESERVED).for_each(|part| out.extend_from_slice(part.as_bytes())),
        }
        Some(())
    }
}

fn reference(inside: &str) -> Result<Piece, TemplateError> {
    let (name, filter) = match inside.split_once(':') {
        None => (inside, Filter::AsIs),
        Some((name, "base64")) => (name, Filter::Base64),
        Some((name, "json")) => (name, Filter::Json),
        Some((name, "url")) => (name, Filter::Url),
        Some((_, other)) => return Err(TemplateError::UnknownFilter(other.to_owned())),
    };
    let name = VariableName::new(name).map_err(|_| TemplateError::NotAName(name.to_owned()))?;
    Ok(Piece::Reference(name, filter))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(template: &str, value: &[u8]) -> Result<Vec<u8>, RenderError> {
        Template::parse(template).unwrap().render(|name| (name.as_str() == "A").then_some(value))
    }

    #[test]
    fn values_go_in_by_their_filter() {
        let nasty = "p@ss:w/rd \"{A}\" $x\n".as_bytes();
        assert_eq!(fill("<{A}>", nasty).unwrap(), b"<p@ss:w/rd \"{A}\" $x\n>");
        assert_eq!(fill("{A:url}", nasty).unwrap(), b"p%40ss%3Aw%2Frd%20%22%7BA%7D%22%20%24x%0A");
        assert_eq!(fill("\"{A:json}\"", nasty).unwrap(), br#""p@ss:w/rd \"{A}\" $x\n""#);
        assert_eq!(fill("{A:base64}", b"\xff\x00").unwrap(), b"/wA=");
        assert_eq!(fill("{{{A}}}", b"x").unwrap(), b"{x}");
    }

    #[test]
    fn it_is_shown_as_it_was_written() {
        for text in ["{A}", "x{{{A:url}}}y", "{A:json}{B:base64}"] {
            assert_eq!(Template::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(fill("{B}", b"x"), Err(RenderError::Absent(VariableName::new("B").unwrap())));
        assert_eq!(fill("{A:json}", b"\xff"), Err(RenderError::NotText(VariableName::new("A").unwrap())));
    }

    #[test]
    fn bad_templates_are_refused() {
        for (text, error) in [
            ("{A", TemplateError::Unbalanced),
            ("A}", TemplateError::Unbalanced),
            ("{A B}", TemplateError::NotAName("A B".into())),
            ("{}", TemplateError::NotAName(String::new())),
            ("{A:upper}", TemplateError::UnknownFilter("upper".into())),
            ("constant", TemplateError::NoReference),
            ("{{A}}", TemplateError::NoReference),
        ] {
            assert_eq!(Template::parse(text), Err(error), "{text}");
        }
    }
}
