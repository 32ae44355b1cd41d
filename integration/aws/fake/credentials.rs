//! Where temporary keys come from: STS (query protocol, XML), the container endpoint of ECS and EKS, IMDSv2.
//!
//! Every key that is handed out is remembered with its source, so that a test can say which source a request was signed from.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::http::{Reply, Request};
use super::sigv4::Key;
use super::{ACCOUNT, AwsError, random_text};

/// What the credential endpoints know and hand out.
pub struct Credentials {
    /// Every key there is, by id.
    pub keys: BTreeMap<String, Key>,
    /// Where a temporary key came from.
    pub sources: BTreeMap<String, &'static str>,
    /// How long temporary keys live; negative keys are born expired.
    pub lifetime: i64,
    /// Roles that may be assumed.
    pub roles: Vec<String>,
    /// The web identity token that STS accepts.
    pub web_token: String,
    /// The token that the container endpoint wants in `authorization`, if any.
    pub container_token: Option<String>,
    /// The role of the instance; `None` for an instance without one.
    pub instance_role: Option<String>,
    imds_tokens: Vec<String>,
}

/// The static key that tests hand to the wrapper. The id and secret are AWS's own examples.
pub const STATIC_ID: &str = "AKIAIOSFODNN7EXAMPLE";
pub const STATIC_SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

impl Default for Credentials {
    fn default() -> Self {
        let key = Key { secret: STATIC_SECRET.into(), token: None, expires: None };
        Self {
            keys: BTreeMap::from([(STATIC_ID.into(), key)]),
            sources: BTreeMap::from([(STATIC_ID.into(), "static")]),
            lifetime: 3600,
            roles: vec![format!("arn:aws:iam::{ACCOUNT}:role/reader")],
            web_token: "web.identity.token".into(),
            container_token: None,
            instance_role: Some("instance".into()),
            imds_tokens: Vec::new(),
        }
    }
}

/// A temporary key as its endpoint shows it.
struct Issued {
    id: String,
    secret: String,
    token: String,
    until: String,
}

impl Credentials {
    fn issue(&mut self, source: &'static str, now: SystemTime) -> Issued {
        let (id, secret, token) =
            (format!("ASIA{}", random_text(16).to_uppercase()), random_text(40), random_text(200));
        let shift = Duration::from_secs(self.lifetime.unsigned_abs());
        let until = if self.lifetime < 0 { now - shift } else { now + shift };
        let key = Key { secret: secret.clone(), token: Some(token.clone()), expires: Some(until) };
        self.keys.insert(id.clone(), key);
        self.sources.insert(id.clone(), source);
        Issued { id, secret, token, until: humantime::format_rfc3339_seconds(until).to_string() }
    }

    /// One STS operation. `signer` is the key that signed, where one did.
    pub fn sts(&mut self, form: &BTreeMap<String, String>, signer: Option<&str>, now: SystemTime) -> Reply {
        let action = form.get("Action").map_or("", String::as_str);
        let role = form.get("RoleArn").cloned().unwrap_or_default();
        let denied = || AwsError::new(403, "AccessDenied", "Not authorized to perform sts:AssumeRole");
        let result = match action {
            "AssumeRole" if signer.is_none() => Err(AwsError::new(403, "MissingAuthenticationToken", "not signed")),
            "AssumeRole" if !self.roles.contains(&role) => Err(denied()),
            "AssumeRole" => Ok(self.session("assume-role", &role, now)),
            "AssumeRoleWithWebIdentity" if form.get("WebIdentityToken") != Some(&self.web_token) => {
                Err(AwsError::new(400, "InvalidIdentityToken", "The web identity token is not valid"))
            }
            "AssumeRoleWithWebIdentity" if !self.roles.contains(&role) => Err(denied()),
            "AssumeRoleWithWebIdentity" => Ok(self.session("web-identity", &role, now)),
            "GetCallerIdentity" => Ok(format!(
                "<Arn>arn:aws:iam::{ACCOUNT}:user/test</Arn><UserId>AIDA</UserId><Account>{ACCOUNT}</Account>"
            )),
            _ => Err(AwsError::new(400, "InvalidAction", action)),
        };
        match result {
            Ok(inner) => xml(
                200,
                &format!(
                    "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result>{inner}\
                     </{action}Result><ResponseMetadata><RequestId>{}</RequestId></ResponseMetadata></{action}Response>",
                    random_text(16)
                ),
            ),
            Err(error) => sts_error(&error),
        }
    }

    fn session(&mut self, source: &'static str, role: &str, now: SystemTime) -> String {
        let issued = self.issue(source, now);
        format!(
            "<Credentials><AccessKeyId>{}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey>\
             <SessionToken>{}</SessionToken><Expiration>{}</Expiration></Credentials>\
             <AssumedRoleUser><AssumedRoleId>AROA:session</AssumedRoleId><Arn>{role}/session</Arn></AssumedRoleUser>",
            issued.id, issued.secret, issued.token, issued.until
        )
    }

    /// The endpoint that `AWS_CONTAINER_CREDENTIALS_*` points to.
    pub fn container(&mut self, request: &Request, now: SystemTime) -> Reply {
        if request.header("authorization") != self.container_token.as_deref() {
            return Reply::new(401, "application/json", r#"{"code":"Unauthorized","message":"no such token"}"#);
        }
        let issued = self.issue("container", now);
        let body = json!({
            "AccessKeyId": issued.id, "SecretAccessKey": issued.secret, "Token": issued.token,
            "Expiration": issued.until, "AccountId": ACCOUNT, "RoleArn": format!("arn:aws:iam::{ACCOUNT}:role/task"),
        });
        Reply::new(200, "application/json", body.to_string())
    }

    /// The instance metadata service, version 2 only: no token, no answer.
    pub fn imds(&mut self, request: &Request, now: SystemTime) -> Reply {
        let plain = |status, text: &str| Reply::new(status, "text/plain", text);
        if request.path == "/latest/api/token" {
            if request.method != "PUT" || request.header("x-aws-ec2-metadata-token-ttl-seconds").is_none() {
                return plain(400, "");
            }
            let token = random_text(40);
            self.imds_tokens.push(token.clone());
            return plain(200, &token).with("x-aws-ec2-metadata-token-ttl-seconds", "21600");
        }
        let token = request.header("x-aws-ec2-metadata-token").unwrap_or("").to_owned();
        if !self.imds_tokens.contains(&token) {
            return plain(401, "");
        }
        let role = self.instance_role.clone().unwrap_or_default();
        let list =
            ["/latest/meta-data/iam/security-credentials", "/latest/meta-data/iam/security-credentials-extended"];
        let path = request.path.trim_end_matches('/');
        if list.contains(&path) && !role.is_empty() {
            return plain(200, &role);
        }
        if list.iter().any(|list| path == format!("{list}/{role}")) && !role.is_empty() {
            let issued = self.issue("imds", now);
            let body = json!({
                "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z", "AccountId": ACCOUNT,
                "AccessKeyId": issued.id, "SecretAccessKey": issued.secret, "Token": issued.token,
                "Expiration": issued.until,
            });
            return Reply::new(200, "application/json", body.to_string());
        }
        match path {
            "/latest/meta-data/placement/region" => plain(200, super::REGION),
            _ => plain(404, ""),
        }
    }
}

/// An error in the query protocol.
pub fn sts_error(error: &AwsError) -> Reply {
    let message = error.message.as_deref().unwrap_or("");
    xml(
        error.status,
        &format!(
            "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type><Code>{}</Code>\
             <Message>{message}</Message></Error><RequestId>{}</RequestId></ErrorResponse>",
            error.code,
            random_text(16)
        ),
    )
}

fn xml(status: u16, body: &str) -> Reply {
    Reply::new(status, "text/xml", body)
}

/// A form as its fields.
pub fn form(body: &[u8]) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(body);
    let decode = |part: &str| {
        let spaced = part.replace('+', " ");
        percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
    };
    text.split('&').filter_map(|pair| pair.split_once('=')).map(|(name, value)| (decode(name), decode(value))).collect()
}
