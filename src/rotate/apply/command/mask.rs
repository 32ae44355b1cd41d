//! What a program said, without any value that it was given. Pure.
//!
//! A program that fails may print what it has: a value whole, cut, decoded, or encoded once more. So what is masked is every
//! piece of [`WINDOW`] bytes that a value has, in the encodings that values come in; shorter values as they are. Rather a word
//! too many than a value. A shell quotes with backslashes and quotes, wherever it likes: so all is looked for once more in what is
//! left of the output without them.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};
use zeroize::{Zeroize, Zeroizing};

use crate::name::escape;
use crate::secret::Secret;

/// Fewer bytes of a long value in a row are taken for a coincidence.
const WINDOW: usize = 8;
/// Parts of a value that are shorter are not looked for by themselves: a port, a user's initials.
const SHORT_PART: usize = 4;
/// What stands for what was masked.
const MASK: &[u8] = b"[masked]";
/// Lines that are shown, the last ones.
const MAX_LINES: usize = 20;

const UNRESERVED_LEFT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What must not be seen. No `Debug`: it holds values.
#[derive(Default)]
pub struct Masks {
    plain: Pieces,
    /// Of the same without what a shell quotes with.
    bare: Pieces,
}

#[derive(Default)]
struct Pieces {
    windows: Vec<[u8; WINDOW]>,
    words: Vec<Zeroizing<Vec<u8>>>,
}

impl Pieces {
    fn add(&mut self, form: Zeroizing<Vec<u8>>) {
        if form.len() < WINDOW {
            self.words.push(form);
        } else {
            self.windows.extend(form.array_windows());
        }
    }

    fn sort(&mut self) {
        self.windows.sort_unstable();
        self.windows.dedup();
    }

    /// Where they are: offset and length.
    fn find(&self, output: &[u8], mut found: impl FnMut(usize, usize)) {
        for (at, window) in output.array_windows::<WINDOW>().enumerate() {
            if self.windows.binary_search(window).is_ok() {
                found(at, WINDOW);
            }
        }
        for word in &self.words {
            for (at, window) in output.windows(word.len()).enumerate() {
                if window == word.as_slice() {
                    found(at, word.len());
                }
            }
        }
    }
}

fn is_quoting(byte: u8) -> bool {
    matches!(byte, b'\\' | b'\'' | b'"')
}

impl Masks {
    /// For these values.
    #[must_use]
    pub fn of<'a>(values: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut masks = Self::default();
        for value in values {
            for part in parts(value.expose()) {
                masks.add(&part, if part.len() == value.expose().len() { 1 } else { SHORT_PART });
            }
        }
        masks.plain.sort();
        masks.bare.sort();
        masks
    }

    fn add(&mut self, text: &[u8], shortest: usize) {
        if text.len() < shortest.max(1) {
            return;
        }
        for form in forms(text).into_iter().chain([octal(text)]) {
            let bare: Vec<u8> = form.iter().copied().filter(|byte| !is_quoting(*byte)).collect();
            let bare = Zeroizing::new(bare);
            if bare.len() >= shortest.max(1) {
                self.bare.add(bare);
            }
            self.plain.add(form);
        }
    }

    /// The last lines of an output, masked and safe to print.
    #[must_use]
    pub fn lines(&self, output: &[u8]) -> Vec<String> {
        let mut is_masked = vec![false; output.len()];
        let mut cover = |at: usize, length: usize| {
            is_masked.iter_mut().skip(at).take(length).for_each(|masked| *masked = true);
        };
        self.plain.find(output, &mut cover);
        let (places, bare): (Vec<usize>, Vec<u8>) =
            output.iter().copied().enumerate().filter(|(_, byte)| !is_quoting(*byte)).unzip();
        let bare = Zeroizing::new(bare);
        self.bare.find(&bare, |at, length| {
            if let (Some(first), Some(last)) = (places.get(at), places.get(at + length - 1)) {
                cover(*first, last - first + 1);
            }
        });
        let mut clean = Vec::with_capacity(output.len());
        let mut was_masked = false;
        for (byte, masked) in output.iter().zip(is_masked) {
            match (masked, was_masked) {
                (true, false) => clean.extend_from_slice(MASK),
                (true, true) => {}
                (false, _) => clean.push(*byte),
            }
            was_masked = masked;
        }
        let text = String::from_utf8_lossy(&clean);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines.iter().skip(lines.len().saturating_sub(MAX_LINES)).map(|line| escape(line)).collect()
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.windows.iter_mut().for_each(Zeroize::zeroize);
    }
}

/// What of a value has to be hidden: all of it, and each line; of a JSON value its strings and numbers, and of a URL what
/// follows the scheme, so that the words of the forms themselves (`password`, `postgres`) stay.
fn parts(value: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let mut leaves = Vec::new();
    match serde_json::from_slice::<serde_json::Value>(value) {
        Ok(json @ (serde_json::Value::Array(_) | serde_json::Value::Object(_))) => strings(json, &mut leaves),
        _ => {
            leaves.push(Zeroizing::new(value.to_vec()));
            leaves.extend(value.split(|byte| *byte == b'\n').map(|line| Zeroizing::new(line.to_vec())));
        }
    }
    leaves.into_iter().flat_map(of_url).collect()
}

/// Words that stand before `://` and are nobody's secret. Whatever else stands there may be a part of one.
const SCHEMES: [&str; 12] = [
    "amqp",
    "amqps",
    "http",
    "https",
    "mariadb",
    "mongodb",
    "mongodb+srv",
    "mysql",
    "postgres",
    "postgresql",
    "redis",
    "rediss",
];

/// The components of a URL, as they stand and decoded; another text as it is.
fn of_url(text: Zeroizing<Vec<u8>>) -> Vec<Zeroizing<Vec<u8>>> {
    let Some(start) = text.windows(3).position(|window| window == b"://") else { return vec![text] };
    let (scheme, rest) = (text.get(..start).unwrap_or_default(), text.get(start + 3..).unwrap_or_default());
    let mut parts = Vec::new();
    if !SCHEMES.iter().any(|known| known.as_bytes() == scheme) {
        parts.push(text.clone());
    }
    let mut component = |bytes: &[u8]| {
        parts.push(Zeroizing::new(bytes.to_vec()));
        parts.push(Zeroizing::new(percent_decode(bytes).collect()));
    };
    component(rest);
    if let Some(end) = rest.iter().rposition(|byte| *byte == b'@') {
        let userinfo = rest.get(..end).unwrap_or_default();
        let colon = userinfo.iter().position(|byte| *byte == b':').map_or(userinfo.len(), |colon| colon + 1);
        component(userinfo.get(colon..).unwrap_or_default());
    }
    rest.split(|byte| b":/@?&=#,".contains(byte)).for_each(component);
    parts
}

fn strings(json: serde_json::Value, out: &mut Vec<Zeroizing<Vec<u8>>>) {
    match json {
        serde_json::Value::String(text) => out.push(Zeroizing::new(text.into_bytes())),
        serde_json::Value::Number(number) => out.push(Zeroizing::new(number.to_string().into_bytes())),
        serde_json::Value::Array(items) => items.into_iter().for_each(|item| strings(item, out)),
        serde_json::Value::Object(fields) => fields.into_iter().for_each(|(_, item)| strings(item, out)),
        serde_json::Value::Bool(_) | serde_json::Value::Null => {}
    }
}

/// A text as it may be printed: as it is, in percent-encoding, in JSON, in hexadecimal, in base64 wherever it begins there.
fn forms(text: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let mut forms = vec![Zeroizing::new(text.to_vec())];
    for set in [NON_ALPHANUMERIC, UNRESERVED_LEFT] {
        let encoded = Zeroizing::new(percent_encode(text, set).to_string());
        forms.push(Zeroizing::new(encoded.replace("%20", "+").into_bytes()));
        forms.push(Zeroizing::new(lower_hex(&encoded)));
        forms.push(Zeroizing::new(encoded.as_bytes().to_vec()));
    }
    let json = Zeroizing::new(serde_json::to_string(&String::from_utf8_lossy(text)).unwrap_or_default());
    let json = json.strip_prefix('"').and_then(|json| json.strip_suffix('"')).unwrap_or_default();
    forms.push(Zeroizing::new(json.as_bytes().to_vec()));
    // As those write it who keep JSON to ASCII.
    let mut units = [0; 2];
    let ascii = json.chars().fold(Zeroizing::new(Vec::with_capacity(6 * json.len())), |mut ascii, c| {
        if c.is_ascii() {
            ascii.push(c as u8);
        } else {
            for unit in c.encode_utf16(&mut units) {
                ascii.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
            }
        }
        ascii
    });
    forms.push(ascii);
    for upper in [false, true] {
        let digit = |nibble: u8| match (nibble, upper) {
            (0..=9, _) => b'0' + nibble,
            (_, false) => b'a' + nibble - 10,
            (_, true) => b'A' + nibble - 10,
        };
        forms.push(Zeroizing::new(text.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()));
    }
    for skipped in 0..3 {
        let rest = text.get(skipped..).unwrap_or_default();
        // What does not fill its last group is encoded with what follows it, so it is left to the raw form.
        let whole = rest.get(..rest.len() / 3 * 3).unwrap_or_default();
        forms.push(Zeroizing::new(STANDARD_NO_PAD.encode(whole).into_bytes()));
        forms.push(Zeroizing::new(URL_SAFE_NO_PAD.encode(whole).into_bytes()));
    }
    forms.push(Zeroizing::new(STANDARD_NO_PAD.encode(text).into_bytes()));
    forms.retain(|form| !form.is_empty() && (form.len() >= SHORT_PART || form.len() >= text.len()));
    forms
}

/// As `$'...'` of a shell writes it: what is not printable ASCII in octal.
fn octal(text: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut octal = Zeroizing::new(Vec::with_capacity(4 * text.len()));
    for byte in text {
        match byte {
            b' '..=b'~' => octal.push(*byte),
            _ => {
                octal.push(b'\\');
                octal.extend([byte >> 6, byte >> 3 & 7, byte & 7].map(|digit| b'0' + digit));
            }
        }
    }
    octal
}

/// `%2F` as `%2f`.
fn lower_hex(encoded: &str) -> Vec<u8> {
    let mut before = [0_u8; 2];
    let lowered = encoded.bytes().map(|byte| {
        let is_digit = before.contains(&b'%');
        before = [before[1], byte];
        if is_digit { byte.to_ascii_lowercase() } else { byte }
    });
    lowered.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masked(values: &[&str], output: &str) -> String {
        let values: Vec<Secret> = values.iter().map(|value| Secret::new(value.as_bytes().to_vec())).collect();
        Masks::of(&values).lines(output.as_bytes()).join("\n")
    }

    #[test]
    fn a_value_goes_in_every_form_and_the_rest_stays() {
        let value = "pa/ss wö?rd&%1";
        for (printed, left) in [
            (value, "[masked]"),
            ("pa%2Fss%20w%C3%B6%3Frd%26%251", "[masked]"),
            ("pa%2fss%20w%c3%b6%3frd%26%251", "[masked]"),
            ("pa%2Fss+w%C3%B6%3Frd%26%251", "[masked]"),
            ("pa/ss w\\u00f6?rd", "[masked]"),
            ("70612f737320", "[masked]"),
            ("70612F737320", "[masked]"),
            ("cut: a/ss wö?r.", "cut: [masked]."),
            ("nothing of it: pa/ss", "nothing of it: pa/ss"),
        ] {
            assert_eq!(masked(&[value], &format!("error {printed}")), format!("error {left}"), "{printed}");
        }
        for (lead, tail) in [("", ""), ("u", ""), ("us", "x"), ("user:", "yz")] {
            let encoded = STANDARD_NO_PAD.encode(format!("{lead}{value}{tail}"));
            let left = masked(&[value], &encoded);
            assert!(left.contains("[masked]") && left.len() < "[masked]".len() + 16, "{left}");
        }
    }

    #[test]
    fn parts_of_urls_and_json_go_by_themselves_and_words_of_ours_stay() {
        let url = "postgres://app_b:s3%2Fc@db.internal:5432/shop";
        assert_eq!(
            masked(&[url], "login as app_b with s3/c at db.internal failed"),
            "login as [masked] with [masked] at [masked] failed"
        );
        assert_eq!(masked(&[url], "s3%2Fc"), "[masked]");
        let json = r#"{"username":"app_b","password":"quo\"te","port":3306}"#;
        assert_eq!(
            masked(&[json], "password of app_b is quo\"te, username is not"),
            "password of [masked] is [masked], username is not"
        );
        assert_eq!(masked(&[json], "quo\\\"te"), "[masked]");
        assert_eq!(masked(&["aA00a0 0aa://x y"], "it has aA00a0 0 in it"), "it has [masked] in it", "no URL");
        assert_eq!(masked(&["a\nline two\nb"], "line two"), "[masked]");
        assert_eq!(masked(&["x"], "axb"), "a[masked]b");
        assert_eq!(masked(&[""], "all of it"), "all of it");
    }

    #[test]
    fn what_a_shell_quotes_is_masked_all_the_same() {
        let value = "a b'c\"d\\e$f`g!h(i)j;k&l|m<n>o*p?q[r]s{t}u~v#w^x";
        let backslashes = value.chars().fold(String::new(), |text, c| match c.is_ascii_alphanumeric() {
            true => text + &c.to_string(),
            false => text + "\\" + &c.to_string(),
        });
        let single = format!("'{}'", value.replace('\'', "'\\''"));
        let double = value.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$").replace('`', "\\`");
        for quoted in [backslashes, single, format!("\"{double}\"")] {
            let left = masked(&[value], &format!("PENDING={quoted} and more"));
            let left = left.replace("[masked]", "").replace(is_quoting_char, "");
            assert_eq!(left, "PENDING= and more", "{quoted}");
        }
        assert_eq!(masked(&["wörd-of-ten"], "w\\303\\266rd-of-ten"), "[masked]");
        assert_eq!(masked(&["a b c"], "it is a\\ b\\ c"), "it is [masked]", "short ones too");
        assert_eq!(
            masked(&["a b c d e f g"], "don't say \"that\""),
            "don't say \\\"that\\\"".replace('\\', "").as_str()
        );
    }

    fn is_quoting_char(c: char) -> bool {
        u8::try_from(c).is_ok_and(is_quoting)
    }

    #[test]
    fn a_terminal_is_safe_and_a_flood_is_cut() {
        assert_eq!(masked(&["v"], "\u{1b}[2Jred"), "\\u{1b}[2Jred");
        let many: String = (0..100).map(|number| format!("line {number}\n\n")).collect();
        let lines = masked(&["secret"], &many);
        assert_eq!((lines.lines().next(), lines.lines().count()), (Some("line 80"), 20));
    }

    proptest! {
        #[test]
        fn no_piece_of_a_value_survives(value in "[ -~]{8,60}", from in 0_usize..50, length in 8_usize..60) {
            let piece: String = value.chars().skip(from).take(length).collect();
            let left = masked(&[&value], &format!("<{piece}> \u{1}"));
            if piece.len() >= 8 && !"[masked]".contains(&piece) {
                prop_assert!(!left.contains(&piece), "{left}");
            }
        }
    }
}
