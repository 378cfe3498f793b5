//! How bytes reach the server: addresses, TCP, TLS.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::error::Error;

/// Where a server is: scheme, host, port and an optional path before `/v1`.
#[derive(Clone, PartialEq, Eq)]
pub struct Base {
    secure: bool,
    host: String,
    port: u16,
    path: String,
}

impl Base {
    /// Reads `http://`, `https://`, `ws://` or `wss://` URLs.
    ///
    /// # Errors
    /// [`Error::Invalid`] for other schemes, a missing host, user information or a query.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let invalid = |why: &str| Error::Invalid {
            what: "base URL",
            why: why.to_owned(),
        };
        let uri: Uri = text.parse().map_err(|e| invalid(&format!("{e}")))?;
        let secure = match uri.scheme_str() {
            Some("https" | "wss") => true,
            Some("http" | "ws") => false,
            _ => {
                return Err(invalid(
                    "it has to start with http://, https://, ws:// or wss://",
                ));
            }
        };
        let authority = uri.authority().ok_or_else(|| invalid("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(invalid("it must not hold user information"));
        }
        if uri.query().is_some() {
            return Err(invalid("it must not hold a query"));
        }
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            None if authority.as_str().ends_with(':') => return Err(invalid("its port is empty")),
            None if secure => 443,
            None => 80,
        };
        Ok(Self {
            secure,
            host: authority.host().to_owned(),
            port,
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// Whether TLS is spoken.
    #[must_use]
    pub fn secure(&self) -> bool {
        self.secure
    }

    /// Host name or address; an IPv6 address in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn http_url(&self, path_and_query: &str) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!(
            "{scheme}://{}:{}{}{path_and_query}",
            self.host, self.port, self.path
        )
    }

    pub(crate) fn ws_url(&self, path_and_query: &str) -> String {
        let scheme = if self.secure { "wss" } else { "ws" };
        format!(
            "{scheme}://{}:{}{}{path_and_query}",
            self.host, self.port, self.path
        )
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.http_url(""))
    }
}

impl fmt::Debug for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A byte stream in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A [`Stream`] of unknown kind.
pub type BoxStream = Box<dyn Stream>;

/// Makes plain connections; TLS comes on top of it.
#[async_trait]
pub trait Connect: Send + Sync + fmt::Debug + 'static {
    /// Opens a connection. The caller bounds the time.
    async fn connect(&self, host: &str, port: u16) -> io::Result<BoxStream>;
}

/// Connects over TCP, without Nagle's delay.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpConnector;

#[async_trait]
impl Connect for TcpConnector {
    async fn connect(&self, host: &str, port: u16) -> io::Result<BoxStream> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

/// What is trusted for TLS: the public roots, and roots of one's own.
#[derive(Clone)]
pub struct Tls {
    config: Arc<rustls::ClientConfig>,
    own_roots: usize,
}

impl Tls {
    /// Trusts the public roots and the certificates of `pem` besides.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `pem` holds no readable certificate.
    pub fn with_root_pem(pem: &[u8]) -> Result<Self, Error> {
        let invalid = |why: String| Error::Invalid {
            what: "root certificate",
            why,
        };
        let mut own = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            own.push(certificate.map_err(|e| invalid(e.to_string()))?);
        }
        if own.is_empty() {
            return Err(invalid("the PEM text holds no certificate".to_owned()));
        }
        Self::build(own).map_err(|e| invalid(e.to_string()))
    }

    fn build(own: Vec<CertificateDer<'static>>) -> Result<Self, rustls::Error> {
        let mut roots = rustls::RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        };
        let own_roots = own.len();
        for certificate in own {
            roots.add(certificate)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            config: Arc::new(config),
            own_roots,
        })
    }
}

impl Default for Tls {
    fn default() -> Self {
        // The ring provider knows the default protocol versions, so the fallback is not reached.
        Self::build(Vec::new()).unwrap_or_else(|_| Self {
            config: Arc::new(
                rustls::ClientConfig::builder()
                    .with_root_certificates(rustls::RootCertStore::empty())
                    .with_no_client_auth(),
            ),
            own_roots: 0,
        })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("own_roots", &self.own_roots)
            .finish_non_exhaustive()
    }
}

/// Opens a connection to the base, with TLS where its scheme asks for it.
pub(crate) async fn open(base: &Base, tls: &Tls, connector: &dyn Connect) -> io::Result<BoxStream> {
    let plain = connector.connect(&base.host, base.port).await?;
    if !base.secure {
        return Ok(plain);
    }
    let host = base
        .host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let name =
        ServerName::try_from(host).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    let stream = TlsConnector::from(Arc::clone(&tls.config))
        .connect(name, plain)
        .await?;
    Ok(Box::new(stream))
}

/// A pooled HTTP connection.
pub(crate) struct Pooled(TokioIo<BoxStream>);

impl Connection for Pooled {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Pooled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl hyper::rt::Write for Pooled {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The pool's way to make connections.
#[derive(Clone)]
pub(crate) struct PoolConnector {
    pub(crate) base: Base,
    pub(crate) tls: Tls,
    pub(crate) connector: Arc<dyn Connect>,
}

impl tower_service::Service<Uri> for PoolConnector {
    type Response = Pooled;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Pooled>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let stream = open(&this.base, &this.tls, &*this.connector).await?;
            Ok(Pooled(TokioIo::new(stream)))
        })
    }
}

/// Makes text safe as one path segment or query value (RFC 3986 unreserved characters stay).
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(byte as char);
            }
            _ => {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                out.push('%');
                out.push(HEX[usize::from(byte >> 4)] as char);
                out.push(HEX[usize::from(byte & 15)] as char);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases() {
        let check = |input: &str, want: &str| {
            let got = match Base::parse(input) {
                Ok(base) => base.to_string(),
                Err(e) => e.to_string(),
            };
            assert!(got.contains(want), "{input}: {got}");
        };
        check("http://127.0.0.1:7400/", "http://127.0.0.1:7400");
        check(
            "wss://push.example.org/base/",
            "https://push.example.org:443/base",
        );
        check("http://[::1]:9", "http://[::1]:9");
        check("ftp://x", "has to start with");
        check("127.0.0.1:7400", "not usable");
        check("http://u:p@x", "user information");
        check("http://x/?q=1", "query");
    }

    #[test]
    fn escaping() {
        assert_eq!(escape("a/b c?é"), "a%2Fb%20c%3F%C3%A9");
    }
}
