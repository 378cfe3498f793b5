//! The one place that opens sockets: https to public addresses, and nothing else but the sessions of SMPP.
//!
//! - A name is resolved once and the connection goes to the very address that was checked (resolve, then pin).
//! - Private and special ranges are refused, also when an IPv6 address hides them; loopback only by option.
//! - Redirects are answers like any other: nothing follows them.
//! - Answers have a size limit, calls a deadline.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hongyan_core::port::Clock;
use hongyan_core::verdict::Unsure;
use hongyan_core::{Reason, Timestamp, Verdict};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::address;
use crate::http::{Answer, Call, h1};

/// Addresses of one name that are tried before giving up.
const ADDRESSES_MAX: usize = 4;

/// How the room reaches the world.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Whether loopback addresses may be called: only while the sandbox plays the vendors. Since 0.1.
    pub allow_loopback: bool,
    /// Certificates of authorities that are trusted beside the public ones, as PEM text. Since 0.1.
    pub roots_pem: Option<String>,
    /// How long resolving, connecting and the TLS handshake may take together, in milliseconds. Since 0.1.
    pub connect_timeout_ms: u64,
    /// Who frames HTTP/2. Since 0.1.
    pub http2: Http2,
}

/// Who frames HTTP/2 to the vendors that speak it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Http2 {
    /// This program itself: many requests in one TLS record, for a fraction of the processor time.
    #[default]
    Own,
    /// The `h2` library: the way back, should a vendor and our own framing not understand each other.
    Library,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            allow_loopback: false,
            roots_pem: None,
            connect_timeout_ms: 5_000,
            http2: Http2::Own,
        }
    }
}

/// The options cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// The extra authorities are not PEM certificates.
    #[error("roots_pem does not hold PEM certificates: {problem}")]
    Roots {
        /// What is wrong.
        problem: String,
    },
    /// The TLS library refused its own defaults, or a client certificate.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

/// A call did not end with an answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// The URL cannot be called.
    #[error("{url:?} cannot be called: {problem}")]
    Address {
        /// The URL, without its path.
        url: String,
        /// What is wrong and what to do.
        problem: &'static str,
    },
    /// The name leads to a private or special address.
    #[error("{host} is not on the public internet; only https to public addresses is allowed")]
    Forbidden {
        /// The host.
        host: String,
    },
    /// Its name leads nowhere, or nobody could be asked where.
    #[error("{host} cannot be reached: its name cannot be resolved: {problem}")]
    Unresolved {
        /// The host.
        host: String,
        /// What failed.
        problem: String,
    },
    /// Nothing was sent.
    #[error("{host} cannot be reached: {problem}")]
    Unreachable {
        /// The host.
        host: String,
        /// What failed.
        problem: String,
    },
    /// The connection ended before the answer.
    #[error("the connection to {host} broke: {problem}")]
    Broken {
        /// The host.
        host: String,
        /// What failed.
        problem: String,
        /// Whether the request may have had its effect.
        certainty: Unsure,
    },
    /// No answer within the deadline.
    #[error("{host} did not answer in time")]
    TimedOut {
        /// The host.
        host: String,
        /// Whether the request may have had its effect.
        certainty: Unsure,
    },
    /// The answer is larger than allowed.
    #[error("{host} answered with more than {bytes_max} bytes")]
    TooLarge {
        /// The host.
        host: String,
        /// The limit.
        bytes_max: usize,
    },
}

impl CallError {
    /// Whether the request may have had its effect all the same.
    #[must_use]
    pub const fn certainty(&self) -> Unsure {
        match self {
            Self::Address { .. }
            | Self::Forbidden { .. }
            | Self::Unresolved { .. }
            | Self::Unreachable { .. } => Unsure::NotTaken,
            Self::Broken { certainty, .. } | Self::TimedOut { certainty, .. } => *certainty,
            Self::TooLarge { .. } => Unsure::MaybeTaken,
        }
    }

    /// The same, in the words of a vendor's answer. An address that may never be called is the credential's fault.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Address { .. } | Self::Forbidden { .. } => Verdict::CredentialBad {
                detail: self.to_string(),
            },
            _ => Verdict::Retry {
                reason: Reason::VendorUnavailable,
                after: None,
                detail: self.to_string(),
                certainty: self.certainty(),
            },
        }
    }
}

/// Where calls go: scheme https, a host and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    host: String,
    port: u16,
}

impl Origin {
    /// Reads `https://host[:port]`; a path is ignored.
    ///
    /// # Errors
    /// [`CallError::Address`] says what is wrong.
    pub fn parse(url: &str) -> Result<Self, CallError> {
        Self::split(url).map(|(origin, _)| origin)
    }

    /// Reads an https URL into where it goes and its path with the query.
    ///
    /// # Errors
    /// [`CallError::Address`] says what is wrong.
    pub fn split(url: &str) -> Result<(Self, String), CallError> {
        let fault = |shown: &str, problem| CallError::Address {
            url: shown.to_owned(),
            problem,
        };
        let uri: ::http::Uri = url
            .parse()
            .map_err(|_| fault("", "it is not a URL; write https://host[:port]/path"))?;
        let Some(authority) = uri.authority() else {
            return Err(fault("", "it has no host; write https://host[:port]/path"));
        };
        if authority.as_str().contains('@') {
            return Err(fault(
                authority.host(),
                "user names and passwords in URLs are not allowed",
            ));
        }
        if uri.scheme_str() != Some("https") {
            return Err(fault(authority.host(), "only https is allowed"));
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_ascii_lowercase();
        if host.is_empty() {
            return Err(fault("", "it has no host; write https://host[:port]/path"));
        }
        let port = uri.port_u16().unwrap_or(443);
        let mut path = uri
            .path_and_query()
            .map_or_else(|| "/".to_owned(), |p| p.as_str().to_owned());
        // A query may follow the host at once; a request line needs the path between them.
        if !path.starts_with('/') {
            path.insert(0, '/');
        }
        Ok((Self { host, port }, path))
    }

    /// The host, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 443 where the URL names none.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// `host[:port]`, as in a `Host` header.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        if self.port == 443 {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.authority())
    }
}

/// The protocol to agree on in the TLS handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// None: what runs inside is not HTTP.
    Raw,
}

/// A client certificate with its key.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("certificates", &self.chain.len())
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads a PEM certificate chain, own certificate first, and its PEM private key.
    ///
    /// # Errors
    /// What is wrong, in words that name the part.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, String> {
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| "certificate is not PEM".to_owned())?;
        if chain.is_empty() {
            return Err("certificate holds no PEM section CERTIFICATE".to_owned());
        }
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|_| "private_key holds no PEM section PRIVATE KEY".to_owned())?;
        Ok(Self { chain, key })
    }
}

/// The guarded way out. Cheap to clone.
#[derive(Clone)]
pub struct Egress {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Arc<dyn Clock>,
    roots: Arc<RootCertStore>,
    plain_http1: Arc<ClientConfig>,
    plain_http2: Arc<ClientConfig>,
    plain_raw: Arc<ClientConfig>,
    allow_loopback: bool,
    connect_timeout: Duration,
    http2: Http2,
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Egress")
            .field("allow_loopback", &self.inner.allow_loopback)
            .field("connect_timeout", &self.inner.connect_timeout)
            .finish_non_exhaustive()
    }
}

impl Egress {
    /// Reads the options; opens nothing yet.
    ///
    /// # Errors
    /// [`EgressError`] when the extra authorities cannot be read.
    pub fn new(options: &Options, clock: Arc<dyn Clock>) -> Result<Self, EgressError> {
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        if let Some(pem) = &options.roots_pem {
            let fault = |problem: String| EgressError::Roots { problem };
            let mut count = 0;
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let certificate = certificate.map_err(|e| fault(e.to_string()))?;
                roots.add(certificate).map_err(|e| fault(e.to_string()))?;
                count += 1;
            }
            if count == 0 {
                return Err(fault("there is no section CERTIFICATE".to_owned()));
            }
        }
        let roots = Arc::new(roots);
        Ok(Self {
            inner: Arc::new(Inner {
                clock,
                plain_http1: client_config(&roots, Protocol::Http1, None)?,
                plain_http2: client_config(&roots, Protocol::Http2, None)?,
                plain_raw: client_config(&roots, Protocol::Raw, None)?,
                roots,
                allow_loopback: options.allow_loopback,
                connect_timeout: Duration::from_millis(options.connect_timeout_ms.max(1)),
                http2: options.http2,
            }),
        })
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// The clock that this room uses.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    /// Who frames HTTP/2.
    pub(crate) fn http2(&self) -> Http2 {
        self.inner.http2
    }

    /// TLS settings for a protocol, shared by all connections without a client certificate.
    pub(crate) fn tls(&self, protocol: Protocol) -> Arc<ClientConfig> {
        match protocol {
            Protocol::Http1 => self.inner.plain_http1.clone(),
            Protocol::Http2 => self.inner.plain_http2.clone(),
            Protocol::Raw => self.inner.plain_raw.clone(),
        }
    }

    /// TLS settings with a client certificate.
    pub(crate) fn tls_with(
        &self,
        protocol: Protocol,
        identity: Identity,
    ) -> Result<Arc<ClientConfig>, EgressError> {
        client_config(&self.inner.roots, protocol, Some(identity))
    }

    /// Opens a TLS connection. Every call resolves anew, so that load spreads over the vendor's addresses.
    pub(crate) async fn connect(
        &self,
        origin: &Origin,
        tls: Arc<ClientConfig>,
    ) -> Result<TlsStream<TcpStream>, CallError> {
        let unreachable = |problem: String| CallError::Unreachable {
            host: origin.host.clone(),
            problem,
        };
        let work = async {
            let name = ServerName::try_from(origin.host.clone())
                .map_err(|_| unreachable("the host name is not valid".to_owned()))?;
            let tcp = self.dial(origin).await?;
            TlsConnector::from(tls)
                .connect(name, tcp)
                .await
                .map_err(|e| unreachable(format!("the TLS handshake failed: {e}")))
        };
        tokio::time::timeout(self.inner.connect_timeout, work)
            .await
            .unwrap_or_else(|_| Err(unreachable("connecting took too long".to_owned())))
    }

    /// Opens a connection without TLS, by the same rules: for protocols that are not HTTP and offer none.
    pub(crate) async fn connect_plain(&self, origin: &Origin) -> Result<TcpStream, CallError> {
        tokio::time::timeout(self.inner.connect_timeout, self.dial(origin))
            .await
            .unwrap_or_else(|_| {
                Err(CallError::Unreachable {
                    host: origin.host.clone(),
                    problem: "connecting took too long".to_owned(),
                })
            })
    }

    /// Resolves, checks and connects to the very address that was checked.
    async fn dial(&self, origin: &Origin) -> Result<TcpStream, CallError> {
        let unreachable = |problem: String| CallError::Unreachable {
            host: origin.host.clone(),
            problem,
        };
        let addresses = self.resolve(origin).await?;
        let tcp = dial(&addresses, self.inner.connect_timeout)
            .await
            .map_err(|e| unreachable(format!("connecting failed: {e}")))?;
        tcp.set_nodelay(true)
            .map_err(|e| unreachable(e.to_string()))?;
        Ok(tcp)
    }

    /// Makes one guarded call on a connection of its own: webhooks, pictures, token endpoints.
    ///
    /// # Errors
    /// [`CallError`]; [`CallError::certainty`] says whether the call may have had its effect.
    pub async fn fetch(
        &self,
        url: &str,
        call: Call,
        bytes_max: usize,
        deadline: Instant,
    ) -> Result<Answer, CallError> {
        let (origin, path) = Origin::split(url)?;
        h1::once(self, &origin, &Call { path, ..call }, bytes_max, deadline).await
    }

    async fn resolve(&self, origin: &Origin) -> Result<Vec<SocketAddr>, CallError> {
        let found: Vec<SocketAddr> = match origin.host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, origin.port)],
            Err(_) => tokio::net::lookup_host((origin.host.as_str(), origin.port))
                .await
                .map_err(|e| CallError::Unresolved {
                    host: origin.host.clone(),
                    problem: e.to_string(),
                })?
                .collect(),
        };
        let allowed: Vec<SocketAddr> = found
            .iter()
            .copied()
            .filter(|a| self.may_call(a.ip()))
            .take(ADDRESSES_MAX)
            .collect();
        if allowed.is_empty() && !found.is_empty() {
            return Err(CallError::Forbidden {
                host: origin.host.clone(),
            });
        }
        Ok(allowed)
    }

    fn may_call(&self, address: IpAddr) -> bool {
        address::is_public(address) || (self.inner.allow_loopback && address::is_loopback(address))
    }
}

async fn dial(addresses: &[SocketAddr], whole: Duration) -> std::io::Result<TcpStream> {
    let share = whole / u32::try_from(addresses.len().max(1)).unwrap_or(1);
    let mut last = std::io::Error::new(
        std::io::ErrorKind::AddrNotAvailable,
        "the name has no address",
    );
    for address in addresses {
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = std::io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

fn client_config(
    roots: &Arc<RootCertStore>,
    protocol: Protocol,
    identity: Option<Identity>,
) -> Result<Arc<ClientConfig>, EgressError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(EgressError::Tls)?
        .with_root_certificates(roots.clone());
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(Identity { chain, key }) => builder
            .with_client_auth_cert(chain, key)
            .map_err(EgressError::Tls)?,
    };
    config.alpn_protocols = match protocol {
        Protocol::Http1 => vec![b"http/1.1".to_vec()],
        Protocol::Http2 => vec![b"h2".to_vec()],
        Protocol::Raw => Vec::new(),
    };
    Ok(Arc::new(config))
}

/// A call without body and headers of its own.
#[must_use]
pub fn get() -> Call {
    Call {
        method: ::http::Method::GET,
        path: "/".to_owned(),
        headers: ::http::HeaderMap::new(),
        body: Bytes::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Still;
    impl Clock for Still {
        fn now(&self) -> Timestamp {
            Timestamp(0)
        }
    }

    fn egress(allow_loopback: bool) -> Egress {
        let options = Options {
            allow_loopback,
            ..Options::default()
        };
        Egress::new(&options, Arc::new(Still)).unwrap()
    }

    #[test]
    fn only_https_urls_with_a_host_are_origins() {
        let (origin, path) = Origin::split("https://Push.Example:8443/a?b=1").unwrap();
        assert_eq!(origin.to_string(), "https://push.example:8443");
        assert_eq!(path, "/a?b=1");
        let v6 = Origin::parse("https://[::1]:7501").unwrap();
        assert_eq!((v6.host(), v6.authority().as_str()), ("::1", "[::1]:7501"));
        assert_eq!(Origin::parse("https://a.b").unwrap().authority(), "a.b");
        for bad in [
            "http://a.b",
            "a.b",
            "https://",
            "ftp://a",
            "https://u:p@a.b/",
            "/x",
            "",
        ] {
            assert!(Origin::parse(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn special_addresses_are_refused_before_a_socket_is_opened() {
        for host in [
            "127.0.0.1",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "10.0.0.1",
            "169.254.169.254",
            "localhost",
        ] {
            let error = egress(false)
                .fetch(
                    &format!("https://{host}:9/"),
                    get(),
                    10,
                    Instant::now() + Duration::from_secs(5),
                )
                .await
                .unwrap_err();
            assert!(
                matches!(error, CallError::Forbidden { .. }),
                "{host}: {error}"
            );
        }
        // Loopback is a permission of its own; it opens no other range.
        let allowing = egress(true);
        assert!(allowing.may_call("127.0.0.1".parse().unwrap()));
        assert!(!allowing.may_call("10.0.0.1".parse().unwrap()));
        assert!(!allowing.may_call("::ffff:192.168.0.1".parse().unwrap()));
    }

    #[test]
    fn unreadable_roots_are_named() {
        let options = Options {
            roots_pem: Some("nothing".to_owned()),
            ..Options::default()
        };
        let error = Egress::new(&options, Arc::new(Still)).unwrap_err();
        assert!(error.to_string().contains("roots_pem"), "{error}");
    }
}
