//! The accept loop: HTTP/1.1 and HTTP/2 on one listener, with or without TLS, bounded in number and time.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower_service::Service as _;

use crate::api::Api;
use crate::options::{HEAD_BYTES_MAX, HEADERS_LEN_MAX, STREAMS_MAX};
use crate::pulse::{Beat, Beating, Deadline, Pulse};
use crate::route::{self, Peer};
use crate::secure::{self, Secure, Tls};
use crate::table;

/// What a connection that comes when all places are taken is told.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
/// How long idle connections get to close after a polite word.
const STOP_TIME: Duration = Duration::from_secs(1);
/// Pause after a failed accept: it fails when the process is out of file descriptors, and again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How bytes travel.
#[derive(Debug)]
enum Transport {
    Plain(TcpStream),
    Tls(Box<Secure<TcpStream>>),
}

/// A socket of this server.
#[derive(Debug)]
pub(crate) struct Socket {
    transport: Transport,
    pulse: Arc<Pulse>,
}

impl Socket {
    /// The socket for somebody else's event loop, non-blocking, and its TLS state.
    pub(crate) fn into_std(self) -> io::Result<(std::net::TcpStream, Option<Tls>)> {
        match self.transport {
            Transport::Plain(stream) => Ok((stream.into_std()?, None)),
            Transport::Tls(stream) => {
                let (stream, tls) = stream.into_parts();
                Ok((stream.into_std()?, Some(tls)))
            }
        }
    }
}

macro_rules! forward {
    ($self:ident, $method:ident($($arg:expr),*)) => {
        match &mut $self.get_mut().transport {
            Transport::Plain(stream) => Pin::new(stream).$method($($arg),*),
            Transport::Tls(stream) => Pin::new(stream).$method($($arg),*),
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let this = self.as_mut();
        let read = forward!(this, poll_read(cx, buf));
        if buf.filled().len() > before {
            self.pulse.bytes_came();
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        forward!(self, poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        forward!(self, poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }
}

impl Api {
    /// Serves until `stop` resolves, then lets requests that are under way finish; live tails end at once. Give the
    /// whole a deadline: dropping the future closes what is left.
    pub async fn serve(
        self,
        listener: TcpListener,
        tls: Option<Arc<rustls::ServerConfig>>,
        stop: impl Future<Output = ()>,
    ) {
        let router = crate::push::router(&self).merge(route::router(&self, &table::routes()));
        let places = Arc::new(Semaphore::new(self.options().connections_max));
        let (closing, closed) = watch::channel(false);
        let mut connections = JoinSet::new();
        tokio::pin!(stop);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                () = &mut stop => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(error = %error, "a connection could not be accepted");
                    metrics::counter!("hongyan_api_accept_errors_total").increment(1);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                metrics::counter!("hongyan_api_connections_refused_total").increment(1);
                if tls.is_none() {
                    let _ = stream.try_write(FULL);
                }
                continue;
            };
            let _ = stream.set_nodelay(true);
            let (api, router, tls, closed) =
                (self.clone(), router.clone(), tls.clone(), closed.clone());
            connections.spawn(async move {
                let _place = place;
                if let Some(socket) = secure(&api, stream, tls).await {
                    connection(&api, router, socket, peer, closed).await;
                }
            });
        }
        drop(listener);
        self.set_ready(false);
        self.close_streams();
        closing.send_replace(true);
        while connections.join_next().await.is_some() {}
    }
}

async fn secure(
    api: &Api,
    stream: TcpStream,
    tls: Option<Arc<rustls::ServerConfig>>,
) -> Option<Transport> {
    let Some(tls) = tls else {
        return Some(Transport::Plain(stream));
    };
    match tokio::time::timeout(api.options().header_timeout, secure::accept(&tls, stream)).await {
        Ok(Ok(stream)) => Some(Transport::Tls(Box::new(stream))),
        Ok(Err(error)) => {
            tracing::debug!(error = %error, "a TLS handshake failed");
            None
        }
        Err(_) => None,
    }
}

async fn connection(
    api: &Api,
    router: Router,
    socket: Transport,
    peer: SocketAddr,
    mut closed: watch::Receiver<bool>,
) {
    let (head, idle) = (api.options().header_timeout, api.options().idle_timeout);
    let pulse = Arc::new(Pulse::new());
    let socket = Socket {
        transport: socket,
        pulse: Arc::clone(&pulse),
    };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_LEN_MAX)
        .header_read_timeout(None);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32);
    let beats = Arc::clone(&pulse);
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        let beat = Beat::begin(&beats, request.version());
        request.extensions_mut().insert(Peer(peer));
        let answer = router.clone().call(request.map(Body::new));
        async move {
            let Ok(response) = answer.await;
            Ok::<_, Infallible>(response.map(|body| Beating { body, _beat: beat }))
        }
    });
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(socket), service);
    let mut connection = pin!(connection);
    let mut stopped = pin!(closed.wait_for(|closed| *closed));
    let mut sleep = pin!(tokio::time::sleep(head));
    let mut ending = None;
    let outcome = poll_fn(|cx| {
        if ending.is_none() && stopped.as_mut().poll(cx).is_ready() {
            ending = Some(Instant::now() + STOP_TIME);
            connection.as_mut().graceful_shutdown();
        }
        if let Poll::Ready(outcome) = connection.as_mut().poll(cx) {
            return Poll::Ready(Some(outcome));
        }
        // Requests that are under way are waited for; everything else has a deadline.
        let due = match (pulse.deadline(head, idle), ending) {
            (Deadline::None, _) => return Poll::Pending,
            (Deadline::Head(due) | Deadline::Idle(due), None) => due,
            (Deadline::Head(due) | Deadline::Idle(due), Some(end)) => due.min(end),
        };
        if sleep.deadline() != due {
            sleep.as_mut().reset(due);
        }
        sleep.as_mut().poll(cx).map(|()| None)
    })
    .await;
    match outcome {
        Some(Err(error)) => tracing::debug!(%peer, error = %error, "a connection broke"),
        None => tracing::debug!(%peer, "a connection was closed: it was idle or too slow"),
        Some(Ok(())) => {}
    }
}
