//! HTTP/2 by the `h2` crate: the way back from our own.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use h2::client::{Builder, SendRequest};
use h2::{Ping, PingPong, RecvStream};
use hongyan_core::verdict::Unsure;
use http::Request;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::client::TlsStream;

use super::h1::Progress;
use super::h2::{Health, IDLE_ROUNDS, PING_EVERY, PING_TIMEOUT, bad_path};
use super::{ANSWER_BYTES_MAX, Answer, Ask};
use crate::egress::{CallError, Origin};

/// The end of a connection that calls are made on.
pub(super) struct Library {
    sender: SendRequest<Bytes>,
    authority: Authority,
}

impl Library {
    /// Begins a connection; its task ends when this value and all calls have let go of it.
    pub(super) async fn open(
        stream: TlsStream<TcpStream>,
        origin: &Origin,
        health: &Arc<Health>,
        freed: &Arc<Notify>,
    ) -> Result<Self, CallError> {
        let unreachable = |problem: String| CallError::Unreachable {
            host: origin.host().to_owned(),
            problem,
        };
        let authority = origin
            .authority()
            .parse()
            .map_err(|_| unreachable("the host name is not valid".to_owned()))?;
        let (sender, connection) = Builder::new()
            .initial_max_send_streams(1)
            .initial_window_size(64 * 1024)
            .initial_connection_window_size(1024 * 1024)
            .max_concurrent_streams(0)
            .enable_push(false)
            .max_header_list_size(16 * 1024)
            .handshake::<_, Bytes>(stream)
            .await
            .map_err(|e| unreachable(format!("the HTTP/2 handshake failed: {e}")))?;
        tokio::spawn(drive(connection, health.clone(), freed.clone()));
        Ok(Self { sender, authority })
    }

    pub(super) fn streams_max(&self) -> usize {
        self.sender.current_max_send_streams()
    }

    /// Makes a call; dropping the future resets its stream.
    pub(super) async fn call(
        &self,
        origin: &Origin,
        call: &Ask,
        health: &Health,
        progress: &Progress,
    ) -> Result<Answer, CallError> {
        let broken = |error: &h2::Error, certainty| CallError::Broken {
            host: origin.host().to_owned(),
            problem: error.to_string(),
            certainty,
        };
        // A reset ends one stream, anything else the connection.
        let ended = |error: &h2::Error| {
            if !error.is_reset() {
                health.retired.store(true, Ordering::Relaxed);
            }
        };
        let mut sender = self.sender.clone();
        let empty = call.body.is_empty();
        let request = self.request(call).ok_or_else(|| bad_path(origin))?;
        let (response, mut stream) = sender.send_request(request, empty).map_err(|e| {
            ended(&e);
            broken(&e, Unsure::NotTaken)
        })?;
        progress.sent();
        if !empty {
            stream
                .send_data(call.body.clone(), true)
                .map_err(|e| broken(&e, certainty(&e)))?;
        }
        let response = response.await.map_err(|e| {
            ended(&e);
            broken(&e, certainty(&e))
        })?;
        let (head, body) = response.into_parts();
        // A call whose answer had begun was processed.
        let body = collect(body)
            .await
            .map_err(|e| broken(&e, Unsure::MaybeTaken))?;
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: body.ok_or_else(|| CallError::TooLarge {
                host: origin.host().to_owned(),
                bytes_max: ANSWER_BYTES_MAX,
            })?,
        })
    }

    fn request(&self, call: &Ask) -> Option<Request<()>> {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTPS);
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(PathAndQuery::from_maybe_shared(call.path.clone()).ok()?);
        let mut request = Request::new(());
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = Uri::from_parts(parts).ok()?;
        request.headers_mut().extend(call.headers.iter().cloned());
        Some(request)
    }
}

/// The whole body; `None` when it is longer than allowed.
async fn collect(mut body: RecvStream) -> Result<Option<Bytes>, h2::Error> {
    let mut whole = BytesMut::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        if whole.len() + piece.len() > ANSWER_BYTES_MAX {
            return Ok(None);
        }
        whole.extend_from_slice(&piece);
        body.flow_control().release_capacity(piece.len())?;
    }
    Ok(Some(whole.freeze()))
}

/// Whether the vendor may have processed a stream that ended with this error.
///
/// A GOAWAY reaches only streams above its last processed id as an error; those below end with their answers or with
/// the connection (RFC 9113 section 6.8). REFUSED_STREAM says the same for one stream (section 8.7).
fn certainty(error: &h2::Error) -> Unsure {
    let unprocessed = error.is_remote()
        && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM));
    if unprocessed {
        Unsure::NotTaken
    } else {
        Unsure::MaybeTaken
    }
}

async fn drive(
    mut connection: h2::client::Connection<TlsStream<TcpStream>, Bytes>,
    health: Arc<Health>,
    freed: Arc<Notify>,
) {
    let pings = connection.ping_pong();
    tokio::select! {
        ended = connection => {
            if let Err(error) = ended {
                tracing::debug!(%error, "an HTTP/2 connection ended");
            }
        }
        () = watch(pings, &health) => tracing::debug!("an HTTP/2 connection gave no sign of life"),
    }
    health.retired.store(true, Ordering::Relaxed);
    freed.notify_waiters();
}

/// Returns when a ping stays unanswered.
async fn watch(pings: Option<PingPong>, health: &Health) {
    let Some(mut pings) = pings else {
        return std::future::pending().await;
    };
    let mut idle_rounds = 0;
    loop {
        tokio::time::sleep(PING_EVERY).await;
        if health.in_flight() == 0 {
            idle_rounds += 1;
            if idle_rounds < IDLE_ROUNDS {
                continue;
            }
        }
        idle_rounds = 0;
        let answered = tokio::time::timeout(PING_TIMEOUT, pings.ping(Ping::opaque())).await;
        if !matches!(answered, Ok(Ok(_))) {
            return;
        }
    }
}
