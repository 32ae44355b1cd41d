//! Who is trusted to vouch for an endpoint: Mozilla's roots, embedded, and the host file's extra CA files.
//!
//! An empty container has no CA bundle. Files of the environment (`SSL_CERT_FILE`, `AWS_CA_BUNDLE`) count only where the
//! host file says `env_endpoint`.

use std::path::{Path, PathBuf};

use aws_smithy_http_client::tls::{TlsContext, TrustStore};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::error::Problem;
use crate::checked_file::{self, Use};
use crate::name::show;

/// Bytes of a CA file: the bundles of distributions have some 250 KiB.
const MAX_CA_FILE: u64 = 4 * 1024 * 1024;

/// The embedded roots, and those of `files`.
///
/// # Errors
/// A file is unsafe, unreadable, or holds something else than certificates.
pub fn context(files: &[PathBuf]) -> Result<TlsContext, Problem> {
    let mut store = TrustStore::empty();
    for root in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        store.add_pem_certificate(pem(root));
    }
    for path in files {
        store.add_pem_certificate(read(path)?.1);
    }
    TlsContext::builder()
        .with_trust_store(store)
        .build()
        .map_err(|_| Problem::Invalid("the TLS settings could not be built"))
}

/// The same for a session of ours with rustls.
///
/// # Errors
/// Those of [`context`].
pub fn roots(files: &[PathBuf]) -> Result<RootCertStore, Problem> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
    for path in files {
        roots.roots.extend(roots_of_file(path)?.roots);
    }
    Ok(roots)
}

/// The authorities of one file and no others.
///
/// # Errors
/// The file is unsafe, unreadable, or holds no certificate of an authority.
pub fn roots_of_file(path: &Path) -> Result<RootCertStore, Problem> {
    read(path).map(|(roots, _)| roots)
}

/// Checked here, because the SDK takes it for granted that it gets certificates, and panics. What cannot be an authority's
/// is passed over, as bundles of distributions have such, if there is one that can. The authorities, and the same as text.
fn read(path: &Path) -> Result<(RootCertStore, Vec<u8>), Problem> {
    let bad = |why: String| Problem::CaFile { path: show(path), why };
    let bytes =
        checked_file::read(path, Use::Public, MAX_CA_FILE).map_err(|error| bad(format!("is refused: {error}")))?;
    let mut roots = RootCertStore::empty();
    let mut clean = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|_| bad("is not a file of PEM certificates".into()))?;
        let text = pem(&certificate);
        if roots.add(certificate).is_ok() {
            clean.extend_from_slice(&text);
        }
    }
    if roots.is_empty() { Err(bad("holds no certificate of an authority".into())) } else { Ok((roots, clean)) }
}

fn pem(certificate: &CertificateDer<'_>) -> Vec<u8> {
    let mut out = b"-----BEGIN CERTIFICATE-----\n".to_vec();
    for line in STANDARD.encode(certificate).as_bytes().chunks(64) {
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.extend_from_slice(b"-----END CERTIFICATE-----\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_roots_survive_the_way_through_pem() {
        let mut roots = RootCertStore::empty();
        for root in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
            let text = pem(root);
            let back: Vec<_> = CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().unwrap();
            assert_eq!(back.as_slice(), std::slice::from_ref(root));
            roots.add(root.clone()).unwrap();
        }
        assert!(roots.len() > 100);
    }

    #[test]
    fn a_file_that_is_no_certificate_is_an_error_and_no_panic() {
        let folder = crate::store::scratch::Scratch::new();
        for (name, text) in [
            ("empty", ""),
            ("text", "hello"),
            ("broken", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            ("cut", "-----BEGIN CERTIFICATE-----\nMIIB"),
        ] {
            let path = folder.write(name, text, 0o600);
            assert!(matches!(context(&[path]), Err(Problem::CaFile { .. })), "{name}");
        }
        assert!(matches!(context(&[folder.path("absent")]), Err(Problem::CaFile { .. })));
    }
}
