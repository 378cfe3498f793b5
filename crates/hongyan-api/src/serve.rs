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
use hongyan_listener::secure::Tls;
use hongyan_listener::{Arrival, Door, Listener, Place, Places, Refusal, Transport};
use http::Request;
use http::uri::Scheme;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tower_service::Service as _;

use crate::api::Api;
use crate::options::{HEAD_BYTES_MAX, HEADERS_LEN_MAX, STREAMS_MAX};
use crate::pulse::{Beat, Beating, Deadline, Pulse};
use crate::route::{self, Peer};
use crate::table;

/// What a connection that comes when all places are taken is told.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
/// How long idle connections get to close after a polite word.
const STOP_TIME: Duration = Duration::from_secs(1);

/// A socket of this server.
#[derive(Debug)]
pub(crate) struct Socket {
    transport: Transport,
    pulse: Arc<Pulse>,
}

impl Socket {
    /// The socket for somebody else's event loop, non-blocking, and its TLS state.
    pub(crate) fn into_std(self) -> io::Result<(std::net::TcpStream, Option<Tls>)> {
        self.transport.into_std()
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.transport).poll_read(cx, buf);
        if buf.filled().len() > before {
            this.pulse.bytes_came();
        }
        read
    }
}

hongyan_listener::writes_through!(Socket, transport);

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
        let options = self.options();
        let (closing, closed) = watch::channel(false);
        let listener = Listener {
            name: "http",
            socket: listener,
            tls,
            opening: options.header_timeout,
        };
        let entrance = Entrance {
            places: Arc::new(Places::new(
                options.connections_max,
                options.connections_per_ip_max,
            )),
            api: self.clone(),
            router,
            closed,
        };
        let mut connections = listener.run(entrance, stop).await;
        self.set_ready(false);
        self.close_streams();
        closing.send_replace(true);
        while connections.join_next().await.is_some() {}
    }
}

/// Lets HTTP connections in.
#[derive(Clone)]
struct Entrance {
    places: Arc<Places>,
    api: Api,
    router: Router,
    closed: watch::Receiver<bool>,
}

impl Door for Entrance {
    type Place = Place;

    fn admit(&self, peer: SocketAddr) -> Result<Place, Refusal> {
        let full = |_| Refusal { words: FULL };
        self.places.take(peer.ip()).map_err(full)
    }

    async fn welcome(self, arrival: Arrival, place: Place) {
        let peer = arrival.peer();
        match arrival.secure().await {
            Ok(transport) => {
                connection(&self.api, self.router, transport, peer, self.closed).await;
            }
            Err(error) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
        }
        drop(place);
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
    let scheme = match &socket {
        Transport::Plain(_) => Scheme::HTTP,
        Transport::Tls(_) => Scheme::HTTPS,
    };
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
        request.extensions_mut().insert(scheme.clone());
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
