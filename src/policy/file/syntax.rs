//! Text to raw types, and what the TOML crate says of bad text put into our words.
//!
//! The crate's messages are prose for people. What is taken from them (the unknown field, the candidates) is only used to
//! say more; where the wording changes, the message is passed on as it is.

use serde::de::DeserializeOwned;

use super::diagnostic::Findings;
use super::raw::Span;
use crate::name::escape;

/// Parses one file.
///
/// # Errors
/// The text is not TOML, or has a field of an unknown name or of the wrong type: noted in `findings`.
pub(super) fn parse<T: DeserializeOwned>(text: &str, findings: &mut Findings) -> Result<T, Refused> {
    if text.starts_with('\u{feff}') {
        findings
            .wrong_at(Span { start: 0, end: 3 }, "the file begins with a byte order mark")
            .hint("save it as UTF-8 without a byte order mark");
        return Err(Refused);
    }
    let parsed = toml::de::Deserializer::parse(text).and_then(T::deserialize);
    parsed.map_err(|error| {
        note(text, &error, findings);
        Refused
    })
}

/// A file could not be parsed; why, the findings say.
#[derive(Debug)]
pub(super) struct Refused;

fn note(text: &str, error: &toml::de::Error, findings: &mut Findings) {
    if let Some((value, span)) = foreign_version(text) {
        super::convert::version(value, span, findings);
        return;
    }
    let message = error.message();
    let span = error.span().unwrap_or(0..0).into();
    if let Some(nul) = text.find('\0') {
        findings.wrong_at((nul..nul + 1).into(), "the file contains a NUL byte");
    } else if let Some((field, candidates)) = unknown(message, "unknown field `") {
        let finding = findings.wrong_at(span, format!("unknown field `{}`", escape(field)));
        if !finding.did_you_mean(field, candidates.iter().copied()).has_suggestion() && !candidates.is_empty() {
            finding.hint(format!("the fields here are {}", ticked(&candidates)));
        }
        finding.cut_after_span();
    } else if let Some((word, candidates)) = unknown(message, "unknown variant `") {
        let finding = findings.wrong_at(span, format!("`{}` is not one of the words allowed here", escape(word)));
        if !finding.did_you_mean(word, candidates.iter().copied()).has_suggestion() && !candidates.is_empty() {
            finding.hint(format!("the words here are {}", ticked(&candidates)));
        }
    } else {
        let finding = findings.wrong_at(span, without_value(message));
        if message.contains("expected a table") {
            finding.cut_from_span();
        } else if message.starts_with("invalid ") {
            finding.cut_after_span();
        } else {
            finding.cut_values();
        }
    }
}

/// A later version may have fields that we do not know: then the version is what is wrong, not the field.
fn foreign_version(text: &str) -> Option<(i64, Span)> {
    let table = toml::de::DeTable::parse(text).ok()?;
    let version = table.get_ref().get("version")?;
    let number = version.get_ref().as_integer()?;
    let value = i64::from_str_radix(number.as_str(), number.radix()).ok()?;
    (value != 1).then(|| (value, version.span().into()))
}

/// The word that serde does not know, and the words that it would have taken.
fn unknown<'m>(message: &'m str, start: &str) -> Option<(&'m str, Vec<&'m str>)> {
    let (word, rest) = message.strip_prefix(start)?.split_once('`')?;
    let candidates = rest.split('`').skip(1).step_by(2).collect();
    Some((word, candidates))
}

/// serde's `invalid type: string "...", expected a table` cites the value, which may be a secret that somebody wrote where a
/// table belongs; the caret shows the place.
fn without_value(message: &str) -> String {
    let parts = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))
        .and_then(|rest| rest.rsplit_once(", expected "));
    match parts {
        Some((found, expected)) => {
            let kind = found.split(['"', '`']).next().unwrap_or_default().trim();
            let kind = if kind == "map" { "table" } else { kind };
            format!("expected {expected}, found {} {kind}", if kind.starts_with(['a', 'i']) { "an" } else { "a" })
        }
        None => escape(message),
    }
}

fn ticked(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// Whether `key` is a field of a secret, whose value is no secret.
pub(super) fn is_secret_field(key: &str) -> bool {
    const FIELDS: [&str; 32] = [
        "store",
        "item",
        "version",
        "stage",
        "field",
        "context",
        "template",
        "inject",
        "required",
        "reserved",
        "plain",
        "max_age",
        "on_expired",
        "rotate",
        "every",
        "generate",
        "apply",
        "pending",
        "length",
        "alphabet",
        "type",
        "program",
        "timeout",
        "admin",
        "role",
        "roles",
        "check",
        "needs",
        "exclude",
        "require",
        "bytes",
        "retire_after",
    ];
    FIELDS.contains(&key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_come_from_serdes_message() {
        let message = "unknown field `stoer`, expected one of `store`, `item`";
        assert_eq!(unknown(message, "unknown field `"), Some(("stoer", vec!["store", "item"])));
        let other = "unknown field `x`, there are no fields";
        assert_eq!(unknown(other, "unknown field `"), Some(("x", vec![])));
        assert_eq!(unknown("a wording of tomorrow", "unknown field `"), None);
    }

    #[test]
    fn a_value_is_not_repeated() {
        let message = "invalid type: string \"postgres://u:hunter2@h\", expected a table";
        assert_eq!(without_value(message), "expected a table, found a string");
        assert_eq!(
            without_value("invalid type: integer `1234`, expected a string"),
            "expected a string, found an integer"
        );
        assert_eq!(without_value("invalid type: map, expected a string"), "expected a string, found a table");
    }
}
