//! Times on the command line: RFC 3339, or how long ago.

use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A time as it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At this time.
    At(SystemTime),
    /// So long ago.
    Ago(Duration),
}

/// A time in the form of the records' `time`: texts of it sort by time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(String);

impl When {
    /// What it is written as.
    pub const RULE: &str =
        "a time such as 2026-01-02T03:04:05Z, 2026-01-02T03:04:05+01:00 or 2026-01-02, or how long ago: 30m, 2h, 7d";

    /// The time meant, where it is `now`. What is before 1970 is 1970.
    #[must_use]
    pub fn instant(self, now: SystemTime) -> Instant {
        let time = match self {
            Self::At(time) => time,
            Self::Ago(ago) => now.checked_sub(ago).unwrap_or(UNIX_EPOCH),
        };
        Instant::of(time)
    }
}

impl Instant {
    /// A time. What is before 1970 is 1970, what is after 9999 the end of 9999.
    #[must_use]
    pub fn of(time: SystemTime) -> Self {
        let last = UNIX_EPOCH + Duration::from_secs(LAST_SECOND);
        Self(humantime::format_rfc3339_micros(time.clamp(UNIX_EPOCH, last)).to_string())
    }

    /// As records write it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// 9999-12-31T23:59:59Z, the last second that RFC 3339 can write.
const LAST_SECOND: u64 = 253_402_300_799;

impl FromStr for When {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        at(text).map(Self::At).or_else(|| humantime::parse_duration(text).ok().map(Self::Ago)).ok_or(Self::RULE)
    }
}

/// RFC 3339, section 5.6, `Z` or an offset; or a date alone, which is its beginning in UTC.
fn at(text: &str) -> Option<SystemTime> {
    if !text.is_ascii() {
        return None;
    }
    if text.len() == "2026-01-02".len() {
        return humantime::parse_rfc3339(&format!("{text}T00:00:00Z")).ok();
    }
    if let Ok(time) = humantime::parse_rfc3339(text) {
        return Some(time);
    }
    let (local, offset) = text.split_at_checked(text.len().checked_sub("+01:00".len())?)?;
    let time = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    let (sign, offset) = offset.split_at_checked(1)?;
    let (hours, minutes) = offset.split_once(':')?;
    let is_number = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(hours) || !is_number(minutes) {
        return None;
    }
    let (hours, minutes): (u64, u64) = (hours.parse().ok()?, minutes.parse().ok()?);
    let by = Duration::from_secs((hours < 24 && minutes < 60).then_some(hours * 3600 + minutes * 60)?);
    match sign {
        "+" => time.checked_sub(by),
        "-" => time.checked_add(by),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_durations() {
        let now = humantime::parse_rfc3339("2026-01-02T03:04:05Z").unwrap();
        for (text, expected) in [
            ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000000Z"),
            ("2026-01-02T03:04:05.25Z", "2026-01-02T03:04:05.250000Z"),
            ("2026-01-02T03:04:05+01:30", "2026-01-02T01:34:05.000000Z"),
            ("2026-01-02T03:04:05.5-01:00", "2026-01-02T04:04:05.500000Z"),
            ("2026-01-02", "2026-01-02T00:00:00.000000Z"),
            ("0s", "2026-01-02T03:04:05.000000Z"),
            ("2h", "2026-01-02T01:04:05.000000Z"),
            ("1d 5m", "2026-01-01T02:59:05.000000Z"),
            ("90000days", "1970-01-01T00:00:00.000000Z"),
        ] {
            assert_eq!(text.parse::<When>().map(|when| when.instant(now)), Ok(Instant(expected.into())), "{text}");
        }
        for text in [
            "",
            "now",
            "2026-13-01",
            "2026-01-02T03:04:05",
            "2026-01-02T03:04:05+1:00",
            "2026-01-02T03:04:05+24:00",
            "2026-01-02T03:04:05*01:00",
            "-2h",
            "2x",
            "é",
            "2026-01-0é",
        ] {
            assert!(text.parse::<When>().is_err(), "{text}");
        }
    }
}
