//! Transcripts without what differs from run to run or from machine to machine: times, hashes, keys, people, hosts.
//!
//! A mask is as wide as what it hides where tables are aligned by it.

use crate::harness::Outcome;

/// Several transcripts in one snapshot, each under a line that says what happens.
#[derive(Default)]
pub struct Transcripts(String);

impl Transcripts {
    /// Adds one.
    pub fn add(&mut self, what: &str, outcome: &Outcome) {
        assert_printable(outcome);
        self.0.push_str(&format!("# {what}\n{}\n", masked(&outcome.transcript())));
    }

    /// Compares with `snapshots/<name>.snap`.
    #[track_caller]
    pub fn assert(self, name: &str) {
        let mut settings = insta::Settings::clone_current();
        settings.set_omit_expression(true);
        settings.set_prepend_module_to_snapshot(false);
        settings.bind(|| insta::assert_snapshot!(name, self.0));
    }
}

/// CFG-5: nothing that a terminal would act on, whatever was listed.
pub fn assert_printable(outcome: &Outcome) {
    for stream in [&outcome.stdout, &outcome.stderr] {
        let text = String::from_utf8_lossy(stream);
        let bad = text.chars().find(|c| *c != '\n' && vouchsafe::name::is_unprintable(*c));
        assert!(bad.is_none(), "{bad:?} in {text:?}");
    }
}

/// Masks a text.
pub fn masked(text: &str) -> String {
    let caller = vouchsafe::caller::of_this_process(false);
    let uid = caller.uid.to_string();
    let user = caller.user.clone().unwrap_or_else(|| format!("uid {uid}"));
    let shown = caller.user.unwrap_or_else(|| uid.clone());
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut out = text
        .replace(&format!("{user}@{host}"), "[WHO]")
        .replace(&format!("  {shown:<12}  "), "  [USER]        ")
        .replace(&format!("user         {shown}\n"), "user         [USER]\n")
        .replace(&format!("\"user\":\"{shown}\""), "\"user\":\"[USER]\"")
        .replace(&format!("user `{shown}`"), "[CALLER]")
        .replace(&format!("uid {uid}"), "[CALLER]");
    let is_hash = |word: &str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    out = out
        .split(' ')
        .map(|word| if is_hash(word.trim_end()) { "[HASH]\n" } else { word })
        .collect::<Vec<_>>()
        .join(" ");
    for (start, length, mask) in [
        ("20", "2026-01-01T00:00:00.000000Z".len(), "YYYY-MM-DDThh:mm:ss.uuuuuuZ"),
        ("20", "2026-01-01T00:00:00Z".len(), "YYYY-MM-DDThh:mm:ssZ"),
        ("age1", 62, "[RECIPIENT]"),
    ] {
        out = replace_each(&out, start, length, mask);
    }
    out
}

/// Replaces every word of this beginning and length; a word ends where no letter, digit or one of `-:.` stands.
fn replace_each(text: &str, start: &str, length: usize, mask: &str) -> String {
    let belongs = |c: char| c.is_ascii_alphanumeric() || "-:.".contains(c);
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(belongs) {
        let end = rest[at..].find(|c| !belongs(c)).map_or(rest.len(), |end| at + end);
        let word = &rest[at..end];
        out.push_str(&rest[..at]);
        let is_one = word.starts_with(start) && word.len() == length;
        out.push_str(if is_one { mask } else { word });
        rest = &rest[end..];
    }
    out + rest
}
