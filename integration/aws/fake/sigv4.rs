//! Signature Version 4, verified as AWS does: from the request as it came, with the secret of the key that it names.
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use ring::{digest, hmac};

use super::AwsError;
use super::http::Request;

/// The keys that exist.
#[derive(Debug, Clone)]
pub struct Key {
    pub secret: String,
    pub token: Option<String>,
    /// Temporary keys have an end.
    pub expires: Option<SystemTime>,
}

/// AWS takes a request for five minutes around its date.
const SKEW: u64 = 300;

/// Who signed: the access key id and the service. An error as AWS answers it.
pub fn verify(
    request: &Request,
    keys: &BTreeMap<String, Key>,
    region: &str,
    now: SystemTime,
) -> Result<(String, String), AwsError> {
    let authorization = request
        .header("authorization")
        .ok_or_else(|| AwsError::new(403, "MissingAuthenticationTokenException", "Missing Authentication Token"))?;
    let incomplete = || AwsError::new(400, "IncompleteSignatureException", "Authorization header is incomplete");
    let rest = authorization.strip_prefix("AWS4-HMAC-SHA256 ").ok_or_else(incomplete)?;
    let fields: BTreeMap<_, _> = rest.split(',').filter_map(|field| field.trim().split_once('=')).collect();
    let field = |name| fields.get(name).copied().ok_or_else(incomplete);
    let (credential, signed, signature) = (field("Credential")?, field("SignedHeaders")?, field("Signature")?);
    let [id, date, scope_region, service, end] = credential.split('/').collect::<Vec<_>>()[..] else {
        return Err(incomplete());
    };
    let key = keys.get(id).ok_or_else(|| {
        AwsError::new(400, "UnrecognizedClientException", "The security token included in the request is invalid.")
    })?;
    let mismatch = |what: &str| AwsError::new(400, "InvalidSignatureException", what);
    if scope_region != region || end != "aws4_request" {
        return Err(mismatch(&format!("Credential should be scoped to a valid region: {region}.")));
    }
    let stamp = request.header("x-amz-date").ok_or_else(incomplete)?;
    if !stamp.starts_with(date) {
        return Err(mismatch("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date"));
    }
    let at = seconds_of(stamp).ok_or_else(incomplete)?;
    if at.abs_diff(now.duration_since(UNIX_EPOCH).unwrap().as_secs()) > SKEW {
        return Err(mismatch(&format!("Signature expired: {stamp} is now earlier or later than the server's time")));
    }
    let names: Vec<_> = signed.split(';').collect();
    // What AWS wants signed: the host and every x-amz header.
    let wanted = request.headers.iter().map(|(name, _)| name.as_str());
    if wanted.clone().any(|name| (name == "host" || name.starts_with("x-amz-")) && !names.contains(&name)) {
        return Err(mismatch("'Host' and every 'x-amz-' header must be a 'SignedHeader'"));
    }
    if request.header("x-amz-security-token") != key.token.as_deref() {
        return Err(AwsError::new(
            400,
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        ));
    }
    let canonical = canonical(request, &names);
    let scope = format!("{date}/{region}/{service}/aws4_request");
    let to_sign = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}", hex(&sha256(canonical.as_bytes())));
    let mut signing = format!("AWS4{}", key.secret).into_bytes();
    for part in [date, region, service, "aws4_request"] {
        signing = mac(&signing, part.as_bytes());
    }
    if hex(&mac(&signing, to_sign.as_bytes())) != signature {
        return Err(mismatch("The request signature we calculated does not match the signature you provided."));
    }
    if key.expires.is_some_and(|expires| expires <= now) {
        return Err(AwsError::new(
            400,
            "ExpiredTokenException",
            "The security token included in the request is expired",
        ));
    }
    Ok((id.into(), service.into()))
}

fn canonical(request: &Request, names: &[&str]) -> String {
    let mut query: Vec<_> = request.query.split('&').filter(|pair| !pair.is_empty()).collect();
    query.sort_unstable();
    let mut headers = String::new();
    for name in names {
        let value = request.header(name).unwrap_or("").split_whitespace().collect::<Vec<_>>().join(" ");
        headers.push_str(&format!("{name}:{value}\n"));
    }
    let query = query.join("&");
    let body = hex(&sha256(&request.body));
    format!("{}\n{}\n{query}\n{headers}\n{}\n{body}", request.method, request.path, names.join(";"))
}

/// Adds a signature to a request: what the fake's own tests are driven with.
pub fn sign(request: &mut Request, id: &str, key: &Key, region: &str, service: &str, now: SystemTime) {
    let stamp = stamp_of(now);
    request.headers.push(("x-amz-date".into(), stamp.clone()));
    if let Some(token) = &key.token {
        request.headers.push(("x-amz-security-token".into(), token.clone()));
    }
    let mut names: Vec<_> = request.headers.iter().map(|(name, _)| name.clone()).collect();
    names.sort();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let date = &stamp[..8];
    let scope = format!("{date}/{region}/{service}/aws4_request");
    let hashed = hex(&sha256(canonical(request, &names).as_bytes()));
    let mut signing = format!("AWS4{}", key.secret).into_bytes();
    for part in [date, region, service, "aws4_request"] {
        signing = mac(&signing, part.as_bytes());
    }
    let signature = hex(&mac(&signing, format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashed}").as_bytes()));
    let signed = names.join(";");
    let value = format!("AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={signed}, Signature={signature}");
    request.headers.push(("authorization".into(), value));
}

fn mac(key: &[u8], data: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data).as_ref().to_vec()
}

fn sha256(data: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, data).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `20261122T133519Z` as seconds since the epoch.
fn seconds_of(stamp: &str) -> Option<u64> {
    let text = format!(
        "{}-{}-{}T{}:{}:{}Z",
        stamp.get(..4)?,
        stamp.get(4..6)?,
        stamp.get(6..8)?,
        stamp.get(9..11)?,
        stamp.get(11..13)?,
        stamp.get(13..15)?
    );
    Some(humantime::parse_rfc3339(&text).ok()?.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

fn stamp_of(time: SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(time).to_string();
    text.replace(['-', ':'], "")
}
