//! A vendor that accepts everything: TLS, HTTP/2, an empty 200.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Streams at once on a connection, as APNs allows.
const STREAMS_MAX: u32 = 1_000;

/// Accepts for ever; answers the certificate to trust.
///
/// # Errors
/// When no certificate can be made.
pub fn start(listener: TcpListener) -> anyhow::Result<String> {
    let (config, ca) = super::tls::config(&[b"h2"])?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                // A sender that goes away is its own affair.
                let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .max_concurrent_streams(STREAMS_MAX)
                    .serve_connection(TokioIo::new(stream), hyper::service::service_fn(answer))
                    .await;
            });
        }
    });
    Ok(ca)
}

async fn answer(
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let _ = request.into_body().collect().await;
    let mut response = Response::new(Empty::new());
    let id = hyper::header::HeaderValue::from_static("eabeae54-14a8-11e5-b60b-1697f925ec7b");
    response.headers_mut().insert("apns-id", id);
    Ok(response)
}
