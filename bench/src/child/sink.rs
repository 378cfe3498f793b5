//! Vendors that accept everything: TLS and HTTP/2 with an empty 200 as from APNs, or TLS and HTTP/1.1 with a body as from Xiaomi.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Streams at once on a connection, as APNs allows.
const STREAMS_MAX: u32 = 1_000;

/// What Xiaomi says of a message that it took.
const TAKEN: &[u8] = br#"{"result":"ok","trace_id":"Xcm57b48683437312365Dt","code":0,"data":{"id":"scm57b48683437312370Dt"},"description":"\u6210\u529f","info":"Received push messages for 1 REGID"}"#;

/// Accepts for ever as APNs does; answers the certificate to trust.
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
                // Answers leave at once, whatever the other side acknowledges.
                let _ = stream.set_nodelay(true);
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

/// The same as Xiaomi does, over HTTP/1.1.
///
/// # Errors
/// When no certificate can be made.
pub fn start_http1(listener: TcpListener) -> anyhow::Result<String> {
    let (config, certificate) = super::tls::config(&[b"http/1.1"])?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // Answers leave at once, whatever the other side acknowledges.
                let _ = stream.set_nodelay(true);
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), hyper::service::service_fn(take))
                    .await;
            });
        }
    });
    Ok(certificate)
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

async fn take(
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let _ = request.into_body().collect().await;
    let mut response = Response::new(Full::new(Bytes::from_static(TAKEN)));
    let json = hyper::header::HeaderValue::from_static("application/json;charset=UTF-8");
    response.headers_mut().insert("content-type", json);
    Ok(response)
}
