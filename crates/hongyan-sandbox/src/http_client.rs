//! The smallest HTTP client that can post a receipt: one request, one connection, plain HTTP.
//!
//! Receipts go to the hongyan server beside the sandbox, which listens without TLS on loopback.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::error::SandboxError;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends a request and answers its status; the body of the answer is not read.
pub(crate) async fn request(
    method: &str,
    url: &str,
    headers: &[(&'static str, String)],
    body: Bytes,
) -> Result<u16, SandboxError> {
    let failed = |why: String| SandboxError::Server(format!("{method} {url}: {why}"));
    let uri: Uri = url.parse().map_err(|_| failed("not a URL".to_owned()))?;
    let (Some("http"), Some(host)) = (uri.scheme_str(), uri.host()) else {
        return Err(failed(
            "receipts are posted over plain http only".to_owned(),
        ));
    };
    let port = uri.port_u16().unwrap_or(80);
    let exchange = async {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let socket = TcpStream::connect((host, port))
            .await
            .map_err(|e| e.to_string())?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
            .await
            .map_err(|e| e.to_string())?;
        let mut request = Request::builder()
            .method(method)
            .uri(uri.path_and_query().map_or("/", |path| path.as_str()))
            .header("host", format!("{host}:{port}"));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(body)).map_err(|e| e.to_string())?;
        let answer = async {
            let answer = sender
                .send_request(request)
                .await
                .map_err(|e| e.to_string())?;
            Ok::<u16, String>(answer.status().as_u16())
        };
        tokio::select! {
            answer = answer => answer,
            ended = connection => Err(match ended {
                Ok(()) => "connection closed before the answer".to_owned(),
                Err(error) => error.to_string(),
            }),
        }
    };
    tokio::time::timeout(TIMEOUT, exchange)
        .await
        .map_err(|_| failed("no answer in time".to_owned()))?
        .map_err(failed)
}
