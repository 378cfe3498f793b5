//! A TLS server on loopback that plays a vendor: HTTP/2 and HTTP/1.1, answering as a function says.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What the server does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    Answer(u16, Vec<(&'static str, String)>, String),
    Silence,
}

type Judge = dyn Fn(&Seen) -> Act + Send + Sync;

/// The server; it ends with its runtime.
pub(crate) struct StandIn {
    pub(crate) endpoint: String,
    pub(crate) ca_pem: String,
    shared: Arc<Shared>,
}

struct Shared {
    judge: Box<Judge>,
    seen: Mutex<Vec<Seen>>,
    open: AtomicUsize,
    connections: AtomicUsize,
}

struct Open<'a>(&'a AtomicUsize);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A certificate for loopback that is its own authority, and server settings that use it.
pub(crate) fn server_tls(protocols: &[&[u8]]) -> (Arc<rustls::ServerConfig>, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    let certificate = rcgen::CertificateParams::new(names)
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    (Arc::new(config), certificate.pem())
}

impl StandIn {
    pub(crate) async fn start(judge: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        Self::start_with(&[b"h2", b"http/1.1"], judge).await
    }

    /// The same, speaking these protocols only.
    pub(crate) async fn start_with(
        protocols: &[&[u8]],
        judge: impl Fn(&Seen) -> Act + Send + Sync + 'static,
    ) -> Self {
        let (tls, ca_pem) = server_tls(protocols);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("https://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            judge: Box::new(judge),
            seen: Mutex::default(),
            open: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
        });
        tokio::spawn(serve(listener, TlsAcceptor::from(tls), shared.clone()));
        Self {
            endpoint,
            ca_pem,
            shared,
        }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn open_requests(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let (tls, shared) = (tls.clone(), shared.clone());
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else {
                return;
            };
            let service =
                hyper::service::service_fn(move |request| answer(request, shared.clone()));
            let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let seen = Seen {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        headers: head.headers,
        body: body
            .collect()
            .await
            .map(|b| b.to_bytes())
            .unwrap_or_default(),
    };
    shared.open.fetch_add(1, Ordering::SeqCst);
    let _open = Open(&shared.open);
    let act = (shared.judge)(&seen);
    shared.seen.lock().unwrap().push(seen);
    match act {
        Act::Silence => std::future::pending().await,
        Act::Answer(status, headers, body) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            Ok(response.body(Full::new(body.into())).unwrap())
        }
    }
}
