//! Files made by hand: dotenv, JSON, TOML.

use proptest::prelude::*;

use super::*;
use crate::store::scratch::item;

fn read(text: &str) -> Vec<(String, String)> {
    let flat = dotenv(text.as_bytes()).unwrap_or_else(|error| panic!("{text:?}: {error}"));
    let text = |value: &Secret| String::from_utf8(value.expose().to_vec()).unwrap();
    flat.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

fn one(text: &str) -> String {
    let mut all = read(text);
    assert_eq!(all.len(), 1, "{text:?}");
    all.remove(0).1
}

#[test]
fn dotenv_values_come_through_as_they_are_written() {
    let cases = [
        ("A=b", "b"),
        ("A=", ""),
        ("A=\n", ""),
        ("A = b \t\n", "b"),
        ("export A=b", "b"),
        ("export\tA=b", "b"),
        ("\u{feff}A=b", "b"),
        ("A=b\r\n", "b"),
        ("A=$2a$10$N9qo8uLOickgx2ZMRZoMye", "$2a$10$N9qo8uLOickgx2ZMRZoMye"),
        ("A=${HOME} $(id) `id`", "${HOME} $(id) `id`"),
        ("A=a=b==", "a=b=="),
        ("A=a#b", "a#b"),
        ("A=a #b", "a"),
        ("A=#b", ""),
        ("A= # b", ""),
        (r"A=a\nb", r"a\nb"),
        (r#"A=it's "x""#, r#"it's "x""#),
        (r"A='a\n$X #  '", r"a\n$X #  "),
        ("A='a\nb'", "a\nb"),
        ("A='a' # b", "a"),
        ("A=''", ""),
        (r#"A="a\nb\r\t\\\"\$""#, "a\nb\r\t\\\"$"),
        ("A=\"a\nb\r\nc\"\r\n", "a\nb\nc"),
        ("A=\"a # b\"   # c", "a # b"),
        ("A=\"é\u{1f600}\"", "é\u{1f600}"),
        ("# x\n\n  # y\n\t\nA=b\n#", "b"),
        ("A=b", "b"),
    ];
    for (text, value) in cases {
        assert_eq!(one(text), value, "{text:?}");
    }
    let all = read("a.b-c/d=1\n_X=2\n/prod/api/KEY=3");
    assert_eq!(all.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["/prod/api/KEY", "_X", "a.b-c/d"]);
    let binary = dotenv(b"A=\xff\xfe").unwrap();
    assert_eq!(binary[&item("A")].expose(), b"\xff\xfe");
}

#[test]
fn dotenv_errors_name_the_line_and_nothing_else() {
    let cases = [
        ("A=1\ns3cret", 2, "a name without `=`"),
        ("A=1\n=s3cret", 2, "neither a comment nor NAME=value"),
        ("1s3cret=1", 1, "neither a comment nor NAME=value"),
        ("A=1\n\nB=\"s3cret\nx", 3, "a quote is not closed"),
        ("A='s3cret", 1, "a quote is not closed"),
        ("A=\"s3cret\\", 1, "a quote is not closed"),
        ("A=\"s3cret\"x", 1, "something follows the closing quote"),
        ("A='s3cret'#x", 1, "something follows the closing quote"),
        ("A=\"\ns3cret\\q\"", 2, "an unknown escape"),
        ("A=1\nB=1\nA=s3cret", 3, "a name is given twice"),
        ("A s3cret=1", 1, "a name without `=`"),
        ("exports3cret", 1, "a name without `=`"),
    ];
    for (text, line, why) in cases {
        let Err(error) = dotenv(text.as_bytes()) else { panic!("{text:?} was read") };
        assert!(error.line == line && error.why.starts_with(why), "{text:?}: {error}");
        assert!(!error.to_string().contains("s3cret"));
    }
    let long = format!("A={}", "x".repeat(MAX_VALUE + 1));
    assert!(matches!(dotenv(long.as_bytes()), Err(error) if error.why == TOO_LONG));
    let many: String = (0..=MAX_ITEMS).map(|index| format!("A{index}=\n")).collect();
    assert!(matches!(dotenv(many.as_bytes()), Err(error) if error.why == TOO_MANY && error.line == MAX_ITEMS + 1));
}

#[test]
fn json_and_toml_are_flat() {
    let of_json = json(br#"{"A": "$2a$10$", "B": 10, "C": true, "D": -3, "E": "\u00e9", "F": 18446744073709551615}"#);
    let of_toml = toml(b"A = '$2a$10$'\nB = 10\nC = true\nD = -3\nE = \"\\u00e9\"\n\"F\" = 9223372036854775807\n");
    for (flat, last) in [(of_json.unwrap(), "18446744073709551615"), (of_toml.unwrap(), "9223372036854775807")] {
        let values = [("A", "$2a$10$"), ("B", "10"), ("C", "true"), ("D", "-3"), ("E", "é"), ("F", last)];
        for (name, value) in values {
            assert_eq!(flat[&item(name)].expose(), value.as_bytes(), "{name}");
        }
    }
    let bad_json = [
        (r#"{"A":{"s3cret":1}}"#, NOT_FLAT),
        (r#"{"A":["s3cret"]}"#, NOT_FLAT),
        (r#"{"A":null}"#, NOT_FLAT),
        (r#"{"A":1.50}"#, NOT_FLAT),
        (r#"{"A":1e3}"#, NOT_FLAT),
        (r#"{"A":18446744073709551616}"#, NOT_FLAT),
        (r#"{"A":"s3cret","A":"x"}"#, DUPLICATE),
        (r#"{"":"s3cret"}"#, ITEM_NAME),
        (r#"{"A":"s3cret"#, "not valid JSON"),
        (r#"["s3cret"]"#, "a field is unknown"),
        ("s3cret", "not valid JSON"),
    ];
    for (text, why) in bad_json {
        let Err(error) = json(text.as_bytes()) else { panic!("{text} was read") };
        assert!(error.why.starts_with(why) && !error.to_string().contains("s3cret"), "{text}: {error}");
    }
    let bad_toml = [
        ("X = 1\n[A]\ns3cret = 1", NOT_FLAT),
        ("A = ['s3cret']", NOT_FLAT),
        ("A = 1.5", NOT_FLAT),
        ("A = 2020-01-01", NOT_FLAT),
        ("A = 's3cret'\nA = 'x'", "not valid TOML"),
        ("A = s3cret", "not valid TOML"),
        ("'' = 's3cret'", ITEM_NAME),
    ];
    for (text, why) in bad_toml {
        let Err(error) = toml(text.as_bytes()) else { panic!("{text} was read") };
        assert!(error.why.starts_with(why) && !error.to_string().contains("s3cret"), "{text}: {error}");
    }
    assert!(matches!(toml(b"A = 1\nB = '\xff'"), Err(error) if error.line == 2));
}

proptest! {
    #[test]
    fn no_text_makes_dotenv_panic_or_speak(text in "[ -~\n\r\t\"'#=\\\\$A-C]{0,80}") {
        let marked = text.replace('A', "A5ecretA");
        if let Err(error) = dotenv(marked.as_bytes()) {
            prop_assert!(!error.to_string().contains("5ecret"));
        }
    }

    #[test]
    fn no_bytes_make_any_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        drop(dotenv(&bytes));
        drop(json(&bytes));
        drop(toml(&bytes));
    }

    #[test]
    fn any_text_in_double_quotes_comes_back(value in "\\PC{0,40}[\n\"$\\\\]{0,5}\\PC{0,10}") {
        let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$");
        let text = format!("A=\"{escaped}\"\nB=1");
        let flat = dotenv(text.as_bytes()).unwrap();
        prop_assert_eq!(flat[&item("A")].expose(), value.as_bytes());
    }
}
