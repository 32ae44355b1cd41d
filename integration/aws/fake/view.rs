//! How a parameter is shown: with its value as this caller may see it, or only described.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::kms::Kms;
use super::ssm::Version;
use super::{ACCOUNT, AwsError, REGION, random_text};

pub fn shown(
    name: &str,
    version: &Version,
    selector: Option<&str>,
    decrypt: bool,
    kms: &Kms,
) -> Result<Value, AwsError> {
    let mut shown = json!({
        "Name": name,
        "Type": version.kind,
        "Value": visible(name, version, decrypt, kms)?,
        "Version": version.number,
        "LastModifiedDate": seconds(version.written),
        "ARN": arn_of(name),
        "DataType": "text",
    });
    if let Some(selector) = selector {
        shown["Selector"] = format!(":{selector}").into();
    }
    Ok(shown)
}

pub fn described(name: &str, version: &Version) -> Value {
    let mut entry = json!({
        "Name": name,
        "ARN": arn_of(name),
        "Type": version.kind,
        "LastModifiedDate": seconds(version.written),
        "LastModifiedUser": version.user,
        "Version": version.number,
        "Tier": version.tier,
        "Policies": [],
        "DataType": "text",
    });
    if !version.description.is_empty() {
        entry["Description"] = version.description.as_str().into();
    }
    if let Some(key) = &version.key {
        entry["KeyId"] = key.as_str().into();
    }
    entry
}

/// The value as this caller sees it: without decryption a SecureString is something opaque.
pub fn visible(name: &str, version: &Version, decrypt: bool, kms: &Kms) -> Result<String, AwsError> {
    let Some(key) = &version.key else { return Ok(version.value.clone()) };
    if !decrypt {
        return Ok(format!("AQICAHj{}", random_text(200)));
    }
    kms.usable(key).map_err(|error| match error.code.as_str() {
        "AccessDeniedException" => error,
        code => AwsError::new(400, "InvalidKeyId", &format!("{code}: the key of {name} can't be used")),
    })?;
    Ok(version.value.clone())
}

pub fn arn_of(name: &str) -> String {
    format!("arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/{}", name.strip_prefix('/').unwrap_or(name))
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as f64 / 1000.0
}

/// `Sun, 22 Nov 2026 13:35:19 GMT` (RFC 9110 section 5.6.7).
pub fn http_date(time: SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(time).to_string();
    let days = time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() / 86_400;
    // The epoch was a Thursday.
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][usize::try_from(days % 7).unwrap()];
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months[text[5..7].parse::<usize>().unwrap() - 1];
    format!("{weekday}, {} {month} {} {} GMT", &text[8..10], &text[..4], &text[11..19])
}
