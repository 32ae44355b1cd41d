//! Single values: durations, paths, endpoints, principals, patterns, pointers.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Context;
use crate::name::is_unprintable;
use crate::policy::file::raw::{At, RawPrincipal};
use crate::policy::model::{JsonPointer, Principal};
use crate::policy::pattern::Pattern;

/// No duration of a policy is longer: it keeps sums far from any overflow.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

/// Whether a duration may be nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Zero {
    Allowed,
    Refused,
}

impl Context<'_> {
    /// The value, or a finding with the error's own words.
    pub(super) fn noted<T, V, E: Display>(&mut self, at: &At<T>, result: Result<V, E>) -> Option<V> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.findings.wrong(at, error.to_string());
                None
            }
        }
    }

    pub(super) fn duration(&mut self, at: &At<String>, zero: Zero) -> Option<Duration> {
        let wrong = match humantime::parse_duration(at.as_str()) {
            Ok(duration) if duration > LONGEST => "this duration is longer than 100 years",
            Ok(duration) if duration.is_zero() && zero == Zero::Refused => "this duration must be longer than nothing",
            Ok(duration) => return Some(duration),
            Err(_) => "this is no duration: write a number and a unit, such as `90d`, `12h`, `5m` or `20s`",
        };
        self.findings.wrong(at, wrong);
        None
    }

    /// A path as it is written, made relative to the working folder (or absolute).
    pub(in crate::policy::file) fn path(&mut self, at: &At<String>) -> Option<PathBuf> {
        let text = at.as_str();
        if text.is_empty() || text.chars().any(is_unprintable) {
            self.findings.wrong(at, "a path is not empty and holds no unprintable characters");
            return None;
        }
        if let Some(below_home) = text.strip_prefix('~') {
            return self.path_in_home(at, below_home);
        }
        let source = self.sources.get(self.findings.file)?;
        let folder = source.path.parent().unwrap_or_else(|| Path::new(""));
        Some(folder.join(text))
    }

    fn path_in_home(&mut self, at: &At<String>, below_home: &str) -> Option<PathBuf> {
        let Some(rest) = below_home.strip_prefix('/') else {
            self.findings
                .wrong(at, "only `~/` is understood, not the home of another user")
                .hint("write the path in full");
            return None;
        };
        if self.options.is_root {
            self.findings
                .wrong(at, "`~/` is for a user's own run: root and the agent do not follow it")
                .hint("write the path in full");
            return None;
        }
        let Some(home) = &self.options.home else {
            self.findings.wrong(at, "`~/` cannot be followed: no home folder is known").hint("write the path in full");
            return None;
        };
        Some(home.join(rest))
    }

    /// A path of a command: absolute, in its plain form, with wildcards.
    pub(super) fn command(&mut self, at: &At<String>) -> Option<Pattern> {
        let text = at.as_str();
        if !is_plain_absolute(text) {
            self.findings
                .wrong(at, "a command is an absolute path, without `.`, `..`, empty segments or a `/` at its end")
                .hint("command -v NAME   # says where a command is");
            return None;
        }
        self.noted(at, Pattern::new(text))
    }

    pub(super) fn pattern(&mut self, at: &At<String>) -> Option<Pattern> {
        self.noted(at, Pattern::new(at.as_str()))
    }

    pub(super) fn principals(&mut self, what: &str, list: &At<Vec<At<RawPrincipal>>>) -> Vec<Principal> {
        self.not_empty(what, list);
        list.value.iter().filter_map(|at| self.principal(at)).collect()
    }

    pub(super) fn principal(&mut self, at: &At<RawPrincipal>) -> Option<Principal> {
        let wrong = match &at.value {
            // 4294967295 is -1, which the kernel takes as "no id".
            RawPrincipal::Id(id) => match u32::try_from(*id) {
                Ok(id) if id != u32::MAX => return Some(Principal::Id(id)),
                _ => "a number of a user or group is between 0 and 4294967294",
            },
            RawPrincipal::Name(name) if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()) => {
                "a number is written without quotes"
            }
            RawPrincipal::Name(name) if is_account_name(name) => return Some(Principal::Name(name.clone())),
            RawPrincipal::Name(_) => {
                "this is not the name of a user or group: no wildcards, spaces, `:`, `,` or `/`, at most 256 bytes"
            }
        };
        self.findings.wrong(at, wrong);
        None
    }

    /// A list that is there names something: an empty one would match nobody, or everybody.
    pub(super) fn not_empty<T>(&mut self, what: &str, list: &At<Vec<T>>) {
        if list.value.is_empty() {
            self.findings.wrong(list, format!("`{what}` is empty")).hint("leave it out, or name something");
        }
    }

    pub(super) fn pointer(&mut self, at: &At<String>) -> Option<JsonPointer> {
        let tokens = at.as_str().strip_prefix('/').and_then(|rest| rest.split('/').map(unescape_token).collect());
        if tokens.is_none() {
            self.findings.wrong(
                at,
                "`field` is a JSON pointer: it begins with `/`, and `~` is written `~0`, `/` within a name `~1`",
            );
        }
        tokens.map(JsonPointer)
    }

    /// Text of one line that goes to a service as it is.
    pub(super) fn line(&mut self, what: &str, at: &At<String>) -> Option<String> {
        self.checked(at, &format!("`{what}` is one line of text, not empty, at most 2048 bytes"), |text| {
            !text.is_empty() && text.len() <= 2048 && !text.chars().any(is_unprintable) && text.trim() == text
        })
    }

    /// The text, if `good`; else a finding that says `rule`.
    pub(super) fn checked(&mut self, at: &At<String>, rule: &str, good: impl Fn(&str) -> bool) -> Option<String> {
        if good(at.as_str()) {
            return Some(at.value.clone());
        }
        self.findings.wrong(at, rule);
        None
    }
}

/// RFC 6901, section 4.
fn unescape_token(token: &str) -> Option<String> {
    let mut parts = token.split('~');
    let mut out = parts.next()?.to_owned();
    for part in parts {
        let (c, rest) = match part.as_bytes().first()? {
            b'0' => ('~', part.get(1..)?),
            b'1' => ('/', part.get(1..)?),
            _ => return None,
        };
        out.push(c);
        out.push_str(rest);
    }
    Some(out)
}

pub(super) fn is_plain_absolute(path: &str) -> bool {
    path.strip_prefix('/')
        .is_some_and(|rest| !rest.is_empty() && rest.split('/').all(|segment| !matches!(segment, "" | "." | "..")))
}

fn is_account_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 256
        && !name.starts_with('-')
        && !name.chars().any(|c| c.is_whitespace() || is_unprintable(c) || ":,/*?".contains(c))
}

/// `https` anywhere, `http` only to a loopback address: an endpoint gets credentials and secrets.
pub(super) fn is_endpoint(url: &str) -> bool {
    let (rest, plain) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (rest, false),
        (None, Some(rest)) => (rest, true),
        (None, None) => return false,
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let strange = |c: char| !c.is_ascii_graphic() || "@?#\\\"<>".contains(c);
    if authority.is_empty() || rest.contains(strange) {
        return false;
    }
    let (host, port) = match authority.strip_prefix('[').map(|v6| v6.split_once(']')) {
        Some(None) => return false,
        Some(Some((host, port))) => (host, port),
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port_is_good = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok());
    let loopback = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    !host.is_empty() && port_is_good && (!plain || loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_only_reaches_this_host() {
        for good in [
            "https://ssm.eu-west-1.amazonaws.com",
            "https://vpce-1.example:8443/path",
            "http://localhost:4566",
            "http://127.0.0.1",
            "http://127.1.2.3:80/",
            "http://[::1]:9000",
        ] {
            assert!(is_endpoint(good), "{good}");
        }
        for bad in [
            "",
            "http://",
            "https://",
            "http://example.com",
            "http://localhost.evil.com",
            "http://localhost@evil.com",
            "http://127.0.0.1.evil.com",
            "http://127.0.0.1@evil",
            "http://[::2]",
            "http://[::1",
            "https://a b",
            "ftp://localhost",
            "https://h:99999",
            "https://h:+1",
            "http://127.0.0.1#@evil",
            "http://localhost\\@evil",
            "http://0.0.0.0",
            "HTTP://evil",
        ] {
            assert!(!is_endpoint(bad), "{bad}");
        }
    }

    #[test]
    fn pointers_unescape_as_the_rfc_says() {
        assert_eq!(unescape_token("a~1b~0c"), Some("a/b~c".into()));
        assert_eq!(unescape_token("~01"), Some("~1".into()));
        assert_eq!(unescape_token("~2"), None);
        assert_eq!(unescape_token("x~"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_number_is_a_duration_or_an_error(number in proptest::num::u64::ANY, unit in "(ns|us|ms|s|m|h|d|w|M|y|years)") {
            let parsed = humantime::parse_duration(&format!("{number}{unit}"));
            if let Ok(duration) = parsed && duration <= LONGEST {
                proptest::prop_assert!(std::time::Instant::now().checked_add(duration).is_some());
            }
        }
    }
}
