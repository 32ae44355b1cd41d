//! The one way out: every request to AWS, also those of credential providers, passes here.
//!
//! - An address that is neither of a service that is used here nor named by the policy is barred before a byte is sent,
//!   whatever the environment or the shared configuration files say. This host is barred too unless it is named, and so are
//!   other hosts below AWS's domains, since many of them are a customer's.
//! - `http` only to this host and, for what hands out credentials there, to the metadata addresses.
//! - A body is read to its end here, up to [`MAX_BODY`]; a larger one is refused.
//! - Names are resolved by [`super::resolver`], never by getaddrinfo; certificates are judged by [`super::tls`].
//!
//! Connections live as long as the client of one store. There is no tracing subscriber in this program, so that
//! `LOG_SENSITIVE_BODIES` has nobody to talk to.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;

use super::resolver::Names;

/// Bytes of one answer. Ten parameters of 8 KiB are the most that an honest one holds (`GetParameters`).
pub const MAX_BODY: usize = 1024 * 1024;

/// Which addresses may be asked.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// URLs whose hosts may be asked besides. On this host the port counts too: anyone may listen on another one.
    pub named: Vec<String>,
    /// The host file lets the environment name others.
    pub any: bool,
    /// The metadata addresses, which hand out credentials.
    pub metadata: bool,
}

impl Addresses {
    /// Whether a request may go to `uri`.
    #[must_use]
    pub fn allow(&self, uri: &str) -> bool {
        let Some((scheme, rest)) = uri.split_once("://") else { return false };
        let host = host_of(rest);
        if is_loopback(host) {
            let is_named = || self.named.iter().any(|named| is_same_place(named, uri));
            return matches!(scheme, "http" | "https") && (self.any || is_named());
        }
        let hosts = || self.named.iter().filter_map(|url| url.split_once("://")).map(|(_, rest)| host_of(rest));
        match scheme {
            "http" => self.metadata && is_metadata(host),
            "https" => self.any || hosts().any(|named| named.eq_ignore_ascii_case(host)) || is_service(host),
            _ => false,
        }
    }
}

/// The host of what follows `://`: without user, port, path and the brackets of IPv6.
#[must_use]
pub fn host_of(rest: &str) -> &str {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    match host.strip_prefix('[') {
        Some(inner) => inner.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

/// Whether both URLs have the same host and the same port.
#[must_use]
pub fn is_same_place(a: &str, b: &str) -> bool {
    place_of(a).is_some_and(|place| place_of(b) == Some(place))
}

fn place_of(url: &str) -> Option<(String, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let host = host_of(rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let after = authority.rsplit_once(host).map_or("", |(_, after)| after).trim_start_matches(']');
    let port = match after.strip_prefix(':') {
        Some(port) => port.parse().ok()?,
        None if scheme == "https" => 443,
        None => 80,
    };
    Some((host.to_ascii_lowercase(), port))
}

/// Whether it is this very host.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// IMDS, ECS task metadata, EKS Pod Identity (SDKs and Tools Reference Guide, "Container credential provider").
fn is_metadata(host: &str) -> bool {
    matches!(host, "169.254.169.254" | "169.254.170.2" | "169.254.170.23" | "fd00:ec2::254" | "fd00:ec2::23")
}

/// Whether it is an endpoint of a service that is used here: `SERVICE[-fips].REGION`, STS also without a region, below one
/// of the DNS suffixes of the partitions (botocore, `partitions.json`). Other names there may be a customer's: gateways,
/// load balancers, buckets, such as `ssm.s3-eu-west-1`.
fn is_service(host: &str) -> bool {
    const SERVICES: [&str; 5] = ["ssm", "kms", "sts", "portal.sso", "oidc"];
    const SUFFIXES: [&str; 11] = [
        ".amazonaws.com",
        ".amazonaws.com.cn",
        ".amazonaws.eu",
        ".api.aws",
        ".api.amazonwebservices.com.cn",
        ".api.amazonwebservices.eu",
        ".c2s.ic.gov",
        ".sc2s.sgov.gov",
        ".cloud.adc-e.uk",
        ".csp.hci.ic.gov",
        ".amazonaws-eusc.eu",
    ];
    let host = host.to_ascii_lowercase();
    SUFFIXES.iter().filter_map(|suffix| host.strip_suffix(suffix)).any(|rest| {
        SERVICES.iter().filter_map(|service| rest.strip_prefix(service)).any(|rest| {
            let rest = rest.strip_prefix("-fips").unwrap_or(rest);
            rest.strip_prefix('.').map_or(host == "sts.amazonaws.com", is_region)
        })
    })
}

/// `eu-west-1`, `us-gov-west-1`, `us-isob-east-1`: words, then a number.
fn is_region(text: &str) -> bool {
    let Some((words, number)) = text.rsplit_once('-') else { return false };
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number && words.contains('-') && words.split('-').all(is_word)
}

/// A client that keeps to `addresses`. `proxies`: those of the environment count, but never towards this host or the metadata
/// addresses, where credentials come from.
#[must_use]
pub fn client(addresses: Addresses, tls: TlsContext, names: Names, proxies: bool) -> SharedHttpClient {
    let near = proxies.then(|| connect(tls.clone(), names.clone(), false));
    SharedHttpClient::new(Guarded { far: connect(tls, names, proxies), near, addresses: Arc::new(addresses) })
}

fn connect(tls: TlsContext, names: Names, proxies: bool) -> SharedHttpClient {
    let client = Builder::new().build_with_connector_fn(move |settings, components| {
        let mut builder = Connector::builder()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .tls_context(tls.clone())
            .proxy_config(if proxies { ProxyConfig::from_env() } else { ProxyConfig::disabled() });
        builder.set_connector_settings(settings.cloned());
        builder.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        builder.build_with_resolver(names.clone())
    });
    SharedHttpClient::new(client)
}

#[derive(Debug)]
struct Guarded {
    far: SharedHttpClient,
    /// Only where `far` may use a proxy.
    near: Option<SharedHttpClient>,
    addresses: Arc<Addresses>,
}

impl HttpClient for Guarded {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        let far = self.far.http_connector(settings, components);
        let near = self.near.as_ref().map(|near| near.http_connector(settings, components));
        SharedHttpConnector::new(GuardedConnector { far, near, addresses: Arc::clone(&self.addresses) })
    }
}

#[derive(Debug)]
struct GuardedConnector {
    far: SharedHttpConnector,
    near: Option<SharedHttpConnector>,
    addresses: Arc<Addresses>,
}

impl HttpConnector for GuardedConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        if !self.addresses.allow(request.uri()) {
            return HttpConnectorFuture::ready(Err(ConnectorError::user(Box::new(Barred))));
        }
        let host = request.uri().split_once("://").map_or("", |(_, rest)| host_of(rest));
        let connector = match &self.near {
            Some(near) if is_loopback(host) || is_metadata(host) => near,
            _ => &self.far,
        };
        let answer = connector.call(request);
        HttpConnectorFuture::new(async move { read_all(answer.await?).await })
    }
}

async fn read_all(mut response: HttpResponse) -> Result<HttpResponse, ConnectorError> {
    let announced = response.headers().get("content-length").and_then(|length| length.parse::<usize>().ok());
    if announced.is_some_and(|length| length > MAX_BODY) {
        return Err(ConnectorError::other(Box::new(Oversized), None));
    }
    let mut stream = ByteStream::new(response.take_body());
    let mut bytes = Vec::with_capacity(announced.unwrap_or(16 * 1024));
    while let Some(chunk) = stream.try_next().await.map_err(|error| ConnectorError::io(Box::new(error)))? {
        if bytes.len() + chunk.len() > MAX_BODY {
            return Err(ConnectorError::other(Box::new(Oversized), None));
        }
        bytes.extend_from_slice(&chunk);
    }
    *response.body_mut() = SdkBody::from(bytes);
    Ok(response)
}

/// The address is not one that may be asked.
#[derive(Debug)]
pub struct Barred;

/// The body is over [`MAX_BODY`].
#[derive(Debug)]
pub struct Oversized;

impl fmt::Display for Barred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("address barred")
    }
}

impl fmt::Display for Oversized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("body too large")
    }
}

impl std::error::Error for Barred {}
impl std::error::Error for Oversized {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_aws_and_what_the_policy_names_is_asked() {
        let urls =
            ["https://vpce.example.net", "http://127.0.0.1:4566", "http://localhost:4566/", "https://[::1]:4566"];
        let named = Addresses { named: urls.map(ToOwned::to_owned).into(), any: false, metadata: true };
        for good in [
            "https://ssm.eu-west-1.amazonaws.com/",
            "https://SSM.eu-west-1.amazonaws.com",
            "https://kms.cn-north-1.amazonaws.com.cn/",
            "https://kms-fips.us-gov-west-1.amazonaws.com/",
            "https://ssm.eu-west-1.api.aws/",
            "https://sts.amazonaws.com/",
            "https://sts.us-isob-east-1.sc2s.sgov.gov/",
            "https://portal.sso.eu-west-1.amazonaws.com/federation/credentials",
            "https://oidc.eu-west-1.amazonaws.com/token",
            "https://vpce.example.net:8443/x",
            "http://127.0.0.1:4566/",
            "http://localhost:4566/",
            "https://[::1]:4566/",
            "http://169.254.169.254/latest/api/token",
            "http://[fd00:ec2::23]/v1/credentials",
        ] {
            assert!(named.allow(good), "{good}");
        }
        for bad in [
            "http://ssm.eu-west-1.amazonaws.com/",
            "https://evil.example/",
            "https://amazonaws.com.evil.example/",
            "https://ssm.amazonaws.com@evil.example/",
            "https://evilamazonaws.com/",
            "http://vpce.example.net/",
            "http://localhost.evil.example/",
            "http://127.0.0.1:4567/",
            "http://127.0.0.1/",
            "http://127.0.0.2:4566/",
            "http://127.0.0.1:4566@127.0.0.1:4567/",
            "https://abc123.execute-api.eu-west-1.amazonaws.com/",
            "https://ssm.s3-eu-west-1.amazonaws.com/",
            "https://ssm.s3.amazonaws.com/",
            "https://evil-1.ssm.eu-west-1.amazonaws.com/",
            "https://ssm.evil.eu-west-1.amazonaws.com/",
            "https://lambda.eu-west-1.amazonaws.com/",
            "https://ssm-evil.eu-west-1.amazonaws.com/",
            "https://amazonaws.com/",
            "https://kms.amazonaws.com/",
            "http://169.254.169.253/",
            "ftp://127.0.0.1/",
            "127.0.0.1",
            "",
        ] {
            assert!(!named.allow(bad), "{bad}");
        }
        let none = Addresses { named: Vec::new(), any: false, metadata: false };
        assert!(!none.allow("http://127.0.0.1:4566/") && !none.allow("http://169.254.169.254/latest/api/token"));
        let any = Addresses { named: Vec::new(), any: true, metadata: true };
        assert!(any.allow("http://127.0.0.1:4566/"));
        assert!(any.allow("https://evil.example/"));
        assert!(!any.allow("http://evil.example/"));
    }
}
