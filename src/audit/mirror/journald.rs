//! One entry of the journal in journald's native protocol (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>): `NAME=value` lines, and
//! for a value of several lines its length instead. Pure.

use super::Line;
use crate::audit::syslog::{APP_NAME, FACILITY, Severity};

/// What every entry that is a record carries as MESSAGE_ID, so that they can be told from what else we say there.
const RECORD: &str = "8f7a0b7a6f0d4b0fb1c9a6c1d94f3b52";

/// The same for the entry that says how many records are missing.
const LOST: &str = "2c1d5e0f3b7946d6a8e4b1f07c9d6a13";

/// journald ignores an entry of more than 1,024 fields, and adds some of its own.
const SECRETS_MAX: usize = 512;

/// The entry of one record.
pub(super) fn record(text: &str, line: &Line<'_>) -> Vec<u8> {
    let mut entry = begin(line.severity(), text, RECORD);
    let number = |number: Option<u64>| number.map(|number| number.to_string());
    let (seq, uid) = (number(line.seq), number(line.actor.as_ref().map(|actor| actor.uid)));
    let fields = [
        ("VOUCHSAFE_EVENT", Some(&*line.event)),
        ("VOUCHSAFE_OUTCOME", line.outcome.as_deref()),
        ("VOUCHSAFE_ENVIRONMENT", line.environment.as_deref()),
        ("VOUCHSAFE_SERVICE", line.service.as_deref()),
        ("VOUCHSAFE_UID", uid.as_deref()),
        ("VOUCHSAFE_ACCESS", line.access.as_deref()),
        ("VOUCHSAFE_STREAM", line.stream.as_deref()),
        ("VOUCHSAFE_SEQ", seq.as_deref()),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            field(&mut entry, name, value);
        }
    }
    let mut names: Vec<&str> = line.secrets.iter().filter_map(|secret| secret.name.as_deref()).collect();
    names.retain(|name| !name.is_empty());
    // A long template is listed in several entries.
    names.dedup();
    for name in names.iter().take(SECRETS_MAX) {
        field(&mut entry, "VOUCHSAFE_SECRET", name);
    }
    if names.len() > SECRETS_MAX {
        field(&mut entry, "VOUCHSAFE_SECRETS_OMITTED", &(names.len() - SECRETS_MAX).to_string());
    }
    entry
}

/// The entry that says how many records are missing before the next one.
pub(super) fn lost(text: &str, count: u64) -> Vec<u8> {
    let mut entry = begin(Severity::Warning, text, LOST);
    field(&mut entry, "VOUCHSAFE_LOST", &count.to_string());
    entry
}

fn begin(severity: Severity, text: &str, id: &str) -> Vec<u8> {
    let mut entry = Vec::with_capacity(text.len() + 512);
    field(&mut entry, "MESSAGE", text);
    field(&mut entry, "MESSAGE_ID", id);
    field(&mut entry, "PRIORITY", &(severity as u8).to_string());
    field(&mut entry, "SYSLOG_FACILITY", &FACILITY.to_string());
    field(&mut entry, "SYSLOG_IDENTIFIER", APP_NAME);
    entry
}

fn field(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_laid_out_as_the_protocol_says() {
        let text = concat!(
            r#"{"schema":"vouchsafe.audit/1","assurance":"file","time":"2026-01-02T03:04:05.414213Z","#,
            r#""access":"e624d9e619bd90ef","event":"access.denied","outcome":"denied","environment":"prod","#,
            r#""service":"api","actor":{"uid":1000,"groups":[1000],"pid":7,"ppid":1,"host":"h"},"#,
            r#""secrets":[{"name":"A"},{"store":"s","bundle":"x/","recursive":false},{"name":"T"},{"name":"T"}],"#,
            r#""stream":"8e54f8385fb47b7966e7e39a83a47e69","seq":3,"prev":"00","hash":"11"}"#
        );
        let entry = String::from_utf8(record(text, &Line::read(text))).unwrap();
        let expected = format!(
            "MESSAGE={text}\nMESSAGE_ID={RECORD}\nPRIORITY=4\nSYSLOG_FACILITY=10\nSYSLOG_IDENTIFIER=vouchsafe\n\
             VOUCHSAFE_EVENT=access.denied\nVOUCHSAFE_OUTCOME=denied\nVOUCHSAFE_ENVIRONMENT=prod\nVOUCHSAFE_SERVICE=api\n\
             VOUCHSAFE_UID=1000\nVOUCHSAFE_ACCESS=e624d9e619bd90ef\nVOUCHSAFE_STREAM=8e54f8385fb47b7966e7e39a83a47e69\n\
             VOUCHSAFE_SEQ=3\nVOUCHSAFE_SECRET=A\nVOUCHSAFE_SECRET=T\n"
        );
        assert_eq!(entry, expected);
        let text = "not mirrored before the next one: 5 audit records";
        let expected = format!(
            "MESSAGE={text}\nMESSAGE_ID={LOST}\nPRIORITY=4\nSYSLOG_FACILITY=10\nSYSLOG_IDENTIFIER=vouchsafe\nVOUCHSAFE_LOST=5\n"
        );
        assert_eq!(String::from_utf8(lost(text, 5)).unwrap(), expected);
    }

    #[test]
    fn a_value_of_several_lines_forges_no_field() {
        let mut entry = Vec::new();
        field(&mut entry, "NAME", "a\nPRIORITY=0");
        assert_eq!(entry, b"NAME\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\n");
    }

    #[test]
    fn no_more_fields_than_journald_takes() {
        let secrets: Vec<String> = (0..600).map(|number| format!("{{\"name\":\"S{number}\"}}")).collect();
        let text = format!("{{\"event\":\"access.released\",\"secrets\":[{}]}}", secrets.join(","));
        let entry = String::from_utf8(record(&text, &Line::read(&text))).unwrap();
        assert_eq!(entry.matches("\nVOUCHSAFE_SECRET=").count(), SECRETS_MAX);
        assert!(entry.ends_with("\nVOUCHSAFE_SECRETS_OMITTED=88\n"));
    }
}
