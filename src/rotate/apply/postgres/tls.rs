//! TLS with PostgreSQL: chain and name are verified, or there is none; SCRAM is bound to the channel.
//!
//! libpq's `require` encrypts towards anybody. It is taken for `verify-full` here. On this host, where there is no network
//! between, TLS is used only if it is asked for, and then verified as well.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use ring::digest::{self, Algorithm};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;

use super::connect::Socket;
use super::place::Host;
use super::value::Malformed;
use super::witness::{Allowed, Watched};
use crate::policy::model::HostNetwork;
use crate::rotate::target::TargetError;
use crate::store::aws::tls;

/// Whether a session goes over TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// It does not leave this host.
    Local,
    /// TLS, verified.
    Verified,
}

/// What `sslmode` means towards a host.
///
/// # Errors
/// It would leave the network unguarded, or is no mode of libpq's.
pub fn security(host: &Host, sslmode: Option<&str>) -> Result<Security, Malformed> {
    let wants_tls = match sslmode {
        None | Some("allow" | "prefer") => None,
        Some("disable") => Some(false),
        Some("require" | "verify-ca" | "verify-full") => Some(true),
        Some(_) => return Err(Malformed("its `sslmode` is none that libpq knows")),
    };
    match (host, wants_tls) {
        (Host::Socket(_), _) => Ok(Security::Local),
        (_, Some(true)) => Ok(Security::Verified),
        (host, None | Some(false)) if host.is_loopback() => Ok(Security::Local),
        (_, None) => Ok(Security::Verified),
        (_, Some(false)) => Err(Malformed("its `sslmode=disable` would send everything over the network in the open")),
    }
}

/// The settings of a session: `sslrootcert`, or the embedded roots with the host file's.
///
/// # Errors
/// A CA file is unsafe or none.
pub fn config(sslrootcert: Option<&str>, network: &HostNetwork) -> Result<Arc<ClientConfig>, TargetError> {
    let roots = match sslrootcert {
        None | Some("system") => tls::roots(&network.ca_files),
        Some(path) => tls::roots_of_file(Path::new(path)),
    };
    let roots: RootCertStore = roots.map_err(|problem| TargetError::new(problem.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|_| TargetError::new("the TLS settings could not be built"))?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// Makes one TLS session.
pub struct Tls {
    /// The settings.
    pub config: Arc<ClientConfig>,
    /// Who the server has to be; `None` where the library never asks.
    pub name: Option<ServerName<'static>>,
    /// What the server may ask for.
    pub allowed: Allowed,
}

impl TlsConnect<Watched<Socket>> for Tls {
    type Stream = Watched<tokio_rustls::client::TlsStream<Watched<Socket>>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Stream, Self::Error>> + Send>>;

    fn connect(self, stream: Watched<Socket>) -> Self::Future {
        Box::pin(async move {
            let name = self.name.ok_or(std::io::ErrorKind::InvalidInput)?;
            let stream = TlsConnector::from(self.config).connect(name, stream).await?;
            Ok(Watched::new(stream, self.allowed))
        })
    }
}

impl TlsStream for Watched<tokio_rustls::client::TlsStream<Watched<Socket>>> {
    fn channel_binding(&self) -> ChannelBinding {
        let (_, session) = self.inner().get_ref();
        let certificate = session.peer_certificates().and_then(|chain| chain.first());
        match certificate.and_then(|certificate| end_point(certificate)) {
            Some(hash) => ChannelBinding::tls_server_end_point(hash),
            None => ChannelBinding::none(),
        }
    }
}

/// `tls-server-end-point` (RFC 5929 section 4): the certificate under the hash of its signature algorithm, SHA-256 in the
/// place of anything weaker. An algorithm without one hash of its own has no such binding.
fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let (outer, _) = element(certificate, 0x30)?;
    let (_, after) = element(outer, 0x30)?;
    let (algorithm, _) = element(after, 0x30)?;
    let (identifier, _) = element(algorithm, 0x06)?;
    let hash: &Algorithm = match identifier {
        // RFC 8017 appendix A.2.4: md5, sha1, sha256, sha384, sha512 WithRSAEncryption.
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, number] => match number {
            4 | 5 | 11 => &digest::SHA256,
            12 => &digest::SHA384,
            13 => &digest::SHA512,
            _ => return None,
        },
        // RFC 5758 section 3.2: ecdsa-with-SHA256, -SHA384, -SHA512; RFC 3279: ecdsa-with-SHA1.
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 2] | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 1] => &digest::SHA256,
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 3] => &digest::SHA384,
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 4] => &digest::SHA512,
        _ => return None,
    };
    Some(digest::digest(hash, certificate).as_ref().to_vec())
}

/// The content of a DER element of this tag, and what follows it (X.690 section 8.1).
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = if *first < 0x80 {
        (usize::from(*first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(*first & 0x7f).min(5))?;
        (bytes.iter().try_fold(0_usize, |sum, byte| sum.checked_mul(256)?.checked_add(usize::from(*byte)))?, rest)
    };
    (*found == tag).then(|| rest.split_at_checked(length)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_mode_leaves_the_network_unguarded() {
        let (far, near, name) = (Host::new("db.example.com"), Host::new("127.0.0.1"), Host::new("localhost"));
        let socket = Host::new("/run/postgresql");
        for mode in [None, Some("allow"), Some("prefer"), Some("require"), Some("verify-ca"), Some("verify-full")] {
            assert_eq!(security(&far, mode), Ok(Security::Verified), "{mode:?}");
            assert_eq!(security(&socket, mode), Ok(Security::Local), "{mode:?}");
        }
        assert!(security(&far, Some("disable")).is_err());
        for host in [&near, &name] {
            for mode in [None, Some("allow"), Some("prefer"), Some("disable")] {
                assert_eq!(security(host, mode), Ok(Security::Local), "{mode:?}");
            }
            for mode in ["require", "verify-ca", "verify-full"] {
                assert_eq!(security(host, Some(mode)), Ok(Security::Verified), "{mode}");
            }
        }
        for host in [&far, &near] {
            assert!(security(host, Some("off")).is_err());
        }
    }

    /// The binding itself is proven against a real server; here, that its hash follows the certificate's own.
    #[test]
    fn the_binding_has_the_hash_of_the_certificate() {
        for (algorithm, length) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Some(32)),
            (&rcgen::PKCS_ECDSA_P384_SHA384, Some(48)),
            (&rcgen::PKCS_ED25519, None),
        ] {
            let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let certificate =
                rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
            assert_eq!(end_point(certificate.der()).map(|hash| hash.len()), length);
            for cut in 0..certificate.der().len() {
                end_point(&certificate.der()[..cut]);
            }
        }
    }
}
