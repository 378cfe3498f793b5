//! The sandbox's own certificate authority: the server certificate of the vendor listener and the
//! client certificate with which APNs lets a provider in.

use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::error::SandboxError;
use crate::files;

/// Object identifier of the subject attribute UID (RFC 4519 section 2.39).
const UID: [u64; 7] = [0, 9, 2342, 19_200_300, 100, 1, 1];

/// The authority. Its key stays in the data directory with mode 0600.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    /// Reads the authority from `directory`, or makes and keeps one.
    pub(crate) fn open(directory: &Path) -> Result<Self, SandboxError> {
        let key_path = directory.join("ca-key.pem");
        let pem_path = directory.join("ca.pem");
        let key_pem = files::read(&key_path)?;
        let ca_pem = files::read(&pem_path)?;
        if let (Some(key_pem), Some(pem)) = (key_pem, ca_pem) {
            let key = KeyPair::from_pem(&key_pem).map_err(|error| SandboxError::Corrupt {
                path: key_path,
                what: "the key of the sandbox's certificate authority",
                why: error.to_string(),
            })?;
            return Ok(Self {
                issuer: Issuer::new(params(), key),
                pem,
            });
        }
        let key = KeyPair::generate().map_err(key_error("the authority's key"))?;
        let certificate = params()
            .self_signed(&key)
            .map_err(key_error("the authority's certificate"))?;
        files::write_private(&key_path, key.serialize_pem().as_bytes())?;
        files::write_private(&pem_path, certificate.pem().as_bytes())?;
        Ok(Self {
            issuer: Issuer::new(params(), key),
            pem: certificate.pem(),
        })
    }

    /// The root certificate, PEM.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate and its key (both PEM) whose subject UID is `topic`, as Apple issues them.
    pub(crate) fn client_certificate(&self, topic: &str) -> Result<(String, String), SandboxError> {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("Apple Push Services: {topic}"));
        params
            .distinguished_name
            .push(DnType::CustomDnType(UID.to_vec()), topic);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = rcgen::date_time_ymd(2046, 1, 1);
        let (certificate, key) = self.issue(&params)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// A certificate for servers on this machine and its key, PEM.
    pub(crate) fn local_server(&self) -> Result<(String, String), SandboxError> {
        let names = ["localhost", "demo.localhost", "127.0.0.1", "::1"].map(String::from);
        let mut params = CertificateParams::new(names.to_vec())
            .map_err(key_error("the certificate for this machine"))?;
        params
            .distinguished_name
            .push(DnType::CommonName, "hongyan demo");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_after = rcgen::date_time_ymd(2046, 1, 1);
        let (certificate, key) = self.issue(&params)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// TLS for the vendor listener: HTTP/2 and HTTP/1.1, client certificate optional.
    pub(crate) fn server_config(&self) -> Result<Arc<rustls::ServerConfig>, SandboxError> {
        let names = ["localhost", "127.0.0.1", "::1", "sandbox.localhost"].map(String::from);
        let mut params = CertificateParams::new(names.to_vec())
            .map_err(key_error("the vendor listener's certificate"))?;
        params
            .distinguished_name
            .push(DnType::CommonName, "hongyan sandbox vendors");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_after = rcgen::date_time_ymd(2046, 1, 1);
        let (certificate, key) = self.issue(&params)?;
        let tls_error = |error: rustls::Error| SandboxError::Key {
            what: "the vendor listener's TLS settings",
            why: error.to_string(),
        };

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(self.pem.as_bytes()).map_err(|error| {
            SandboxError::Key {
                what: "the client certificate check",
                why: error.to_string(),
            }
        })?;
        roots.add(root).map_err(tls_error)?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .allow_unauthenticated()
                .build()
                .map_err(|error| SandboxError::Key {
                    what: "the client certificate check",
                    why: error.to_string(),
                })?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(tls_error)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.der().clone()], key)
            .map_err(tls_error)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn issue(&self, params: &CertificateParams) -> Result<(Certificate, KeyPair), SandboxError> {
        let key = KeyPair::generate().map_err(key_error("a certificate's key"))?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(key_error("a certificate"))?;
        Ok((certificate, key))
    }
}

fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "hongyan sandbox authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_after = rcgen::date_time_ymd(2046, 1, 1);
    params
}

fn key_error(what: &'static str) -> impl Fn(rcgen::Error) -> SandboxError {
    move |error| SandboxError::Key {
        what,
        why: error.to_string(),
    }
}
