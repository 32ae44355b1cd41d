//! Whether a line is laid out as a record has to be (docs/spec/audit-record.md, section 2), so that everybody who reads it reads the
//! same: of two members of one name `jq` takes the last, and others the first.

/// Objects and arrays in each other; ours are three deep.
const DEEPEST: usize = 32;

/// Members of one object; ours have fewer than forty.
const MEMBERS: usize = 256;

/// Whether the line, which is JSON, is of plain bytes without white space, with the escapes that a writer uses, and with no two
/// members of one name in one object.
pub(super) fn is_laid_out(line: &[u8]) -> bool {
    let mut at = 0;
    // The members of the objects that are open, and where those of each begin.
    let (mut names, mut opened): (Vec<&[u8]>, Vec<usize>) = (Vec::with_capacity(48), Vec::with_capacity(DEEPEST));
    while let Some(byte) = line.get(at) {
        match byte {
            b'"' => {
                let Some((length, is_escaped)) = string(line.get(at + 1..).unwrap_or_default()) else { return false };
                let text = line.get(at + 1..at + 1 + length).unwrap_or_default();
                at += length + 1;
                if line.get(at + 1) == Some(&b':') {
                    let start = opened.last().copied().unwrap_or_default();
                    let is_full = names.len() - start >= MEMBERS;
                    if is_escaped || is_full || names.iter().skip(start).any(|name| *name == text) {
                        return false;
                    }
                    names.push(text);
                }
            }
            b'{' | b'[' if opened.len() >= DEEPEST => return false,
            b'{' | b'[' => opened.push(names.len()),
            b'}' | b']' => {
                let Some(start) = opened.pop() else { return false };
                names.truncate(start);
            }
            0x21..=0x7e => {}
            _ => return false,
        }
        at += 1;
    }
    opened.is_empty()
}

/// How long a string is up to its closing quote, and whether something in it is escaped; `None` if it is not as a writer has it.
fn string(text: &[u8]) -> Option<(usize, bool)> {
    let (mut at, mut is_escaped) = (0, false);
    loop {
        match text.get(at)? {
            b'"' => return Some((at, is_escaped)),
            b'\\' => {
                is_escaped = true;
                at += match text.get(at + 1)? {
                    b'"' | b'\\' => 2,
                    b'u' => match unit(text, at)? {
                        0xdc00..=0xdfff => return None,
                        0xd800..=0xdbff => {
                            unit(text, at + 6).filter(|low| (0xdc00..=0xdfff).contains(low)).map(|_| 12)?
                        }
                        _ => 6,
                    },
                    _ => return None,
                };
            }
            0x20..=0x7e => at += 1,
            _ => return None,
        }
    }
}

/// The number of an escape, `\u` and four lower-case digits.
fn unit(text: &[u8], at: usize) -> Option<u32> {
    let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |sum, digit| match digit {
        b'0'..=b'9' | b'a'..=b'f' => Some(sum * 16 + char::from(*digit).to_digit(16)?),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of one object are compared with each other.
    #[test]
    fn an_object_of_very_many_members_is_none_of_ours() {
        let of = |count: usize| {
            let members: Vec<String> = (0..count).map(|number| format!("\"a{number}\":1")).collect();
            format!("{{{}}}", members.join(","))
        };
        assert!(is_laid_out(of(MEMBERS).as_bytes()));
        assert!(!is_laid_out(of(MEMBERS + 1).as_bytes()));
        assert!(is_laid_out(format!("[{}]", [of(2), of(3)].join(",")).as_bytes()));
    }

    #[test]
    fn what_a_writer_writes_is_laid_out_and_nothing_else_is() {
        for good in [
            "{}",
            r#"{"a":1,"b":{"a":[{"a":"x y"},{"a":"\"\\"}]},"c":"\u00e4\ud83d\ude00"}"#,
            r#"{"a":"b\":","c":["a","a"],"b":{}}"#,
        ] {
            assert!(is_laid_out(good.as_bytes()), "{good}");
        }
        for bad in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"b":{},"a":2}"#,
            r#"{"b":{"a":1,"a":1}}"#,
            r#"{"b":[{"a":1,"b":[],"a":1}]}"#,
            r#"{"\u0061":1}"#,
            r#"{"a": 1}"#,
            r#"{"a":"\n"}"#,
            r#"{"a":"\/"}"#,
            r#"{"a":"\u00E4"}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":"\ud800\u0041"}"#,
            r#"{"a":"\udc00"}"#,
            "{\"a\":\"\x7f\"}",
            "{\"a\":\"\u{e4}\"}",
            "{\"a\":\t1}",
            r#"{"a"#,
            "{",
            "]",
        ] {
            assert!(!is_laid_out(bad.as_bytes()), "{bad}");
        }
        let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        assert!(!is_laid_out(deep.as_bytes()));
    }
}
