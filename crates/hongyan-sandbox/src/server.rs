//! The vendor listener: TLS, HTTP/2 or HTTP/1.1 by ALPN, one simulator behind each path.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use h2::Reason;
use h2::server::SendResponse;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::exchange::{Act, Call, Connection, Reply};
use crate::limits;
use crate::sandbox::stopped;
use crate::vendor;
use crate::world::World;

/// Accepts connections until told to stop.
pub(crate) async fn run(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    world: Arc<World>,
    mut stop: watch::Receiver<bool>,
) {
    let acceptor = TlsAcceptor::from(tls);
    let places = Arc::new(Semaphore::new(limits::CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stop) => return,
        };
        let socket = match accepted {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::debug!(%error, "vendor connection not accepted");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        // Over the limit the connection is dropped at once, as an overloaded edge would.
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            continue;
        };
        let (acceptor, world, stop) = (acceptor.clone(), Arc::clone(&world), stop.clone());
        tokio::spawn(async move {
            serve(socket, acceptor, world, stop).await;
            drop(place);
        });
    }
}

async fn serve(
    socket: TcpStream,
    acceptor: TlsAcceptor,
    world: Arc<World>,
    stop: watch::Receiver<bool>,
) {
    let _ = socket.set_nodelay(true);
    let handshake = tokio::time::timeout(
        Duration::from_secs(limits::HANDSHAKE_S_MAX),
        acceptor.accept(socket),
    );
    let stream = match handshake.await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "vendor TLS handshake failed");
            return;
        }
        Err(_) => return,
    };
    let (_, session) = stream.get_ref();
    let http2 = session.alpn_protocol() == Some(b"h2");
    let certificate = session
        .peer_certificates()
        .and_then(|chain| chain.first())
        .map(|leaf| leaf.to_vec());
    let connection = Connection {
        http2,
        client_certificate: certificate,
        ..Connection::default()
    };
    if http2 {
        serve_h2(stream, world, connection, stop).await;
    } else {
        serve_h1(stream, world, connection, stop).await;
    }
}

/// A request and the way to answer it.
type Stream = (Request<h2::RecvStream>, SendResponse<Bytes>);

/// What wakes an HTTP/2 connection.
enum Event {
    Stream(Option<Result<Box<Stream>, h2::Error>>),
    Answered { go_away: bool },
    Stop,
}

async fn serve_h2(
    stream: TlsStream<TcpStream>,
    world: Arc<World>,
    connection: Connection,
    mut stop: watch::Receiver<bool>,
) {
    let handshake = h2::server::Builder::new()
        .max_concurrent_streams(limits::STREAMS_MAX)
        .initial_window_size(1 << 20)
        .initial_connection_window_size(8 << 20)
        .handshake::<_, Bytes>(stream);
    let Ok(mut h2) = handshake.await else { return };
    let connection = Arc::new(connection);
    let mut open = FuturesUnordered::new();
    let mut leaving = false;
    loop {
        let event = tokio::select! {
            stream = poll_fn(|cx| h2.poll_accept(cx)) => Event::Stream(stream.map(|it| it.map(Box::new))),
            Some(go_away) = open.next(), if !open.is_empty() => Event::Answered { go_away },
            () = stopped(&mut stop), if !leaving => Event::Stop,
        };
        match event {
            Event::Stream(Some(Ok(stream))) => {
                let (request, respond) = *stream;
                let (world, connection) = (Arc::clone(&world), Arc::clone(&connection));
                open.push(Box::pin(answer_h2(world, connection, request, respond)));
            }
            Event::Stream(Some(Err(_)) | None) => return,
            Event::Answered { go_away: false } => {}
            Event::Answered { go_away: true } | Event::Stop => {
                leaving = true;
                h2.graceful_shutdown();
            }
        }
    }
}

/// Answers one stream; true when the connection is to send GOAWAY.
async fn answer_h2(
    world: Arc<World>,
    connection: Arc<Connection>,
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> bool {
    let (parts, mut stream) = request.into_parts();
    let mut body = BytesMut::new();
    while let Some(chunk) = stream.data().await {
        let Ok(chunk) = chunk else { return false };
        let _ = stream.flow_control().release_capacity(chunk.len());
        if body.len() + chunk.len() > limits::BODY_BYTES_MAX {
            respond.send_reset(Reason::ENHANCE_YOUR_CALM);
            return false;
        }
        body.extend_from_slice(&chunk);
    }
    let call = call_of(parts, body.freeze());
    match vendor::serve(&world, &connection, &call).await {
        Act::Answer(reply) => {
            let body = reply.body.clone();
            let Ok(head) = head_of(&reply) else {
                respond.send_reset(Reason::INTERNAL_ERROR);
                return false;
            };
            // An error here means that the client gave the stream up.
            if let Ok(mut out) = respond.send_response(head, body.is_empty())
                && !body.is_empty()
            {
                let _ = out.send_data(body, true);
            }
            false
        }
        Act::Reset => {
            respond.send_reset(Reason::INTERNAL_ERROR);
            false
        }
        Act::GoAway => {
            respond.send_reset(Reason::REFUSED_STREAM);
            true
        }
    }
}

async fn serve_h1(
    stream: TlsStream<TcpStream>,
    world: Arc<World>,
    connection: Connection,
    mut stop: watch::Receiver<bool>,
) {
    let connection = Arc::new(connection);
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let (world, connection) = (Arc::clone(&world), Arc::clone(&connection));
        async move { Box::pin(answer_h1(&world, &connection, request)).await }
    });
    let serving =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = stopped(&mut stop) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "vendor connection ended");
    }
}

/// Answers one request; an error makes hyper drop the connection without an answer.
async fn answer_h1(
    world: &World,
    connection: &Connection,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Full<Bytes>>, io::Error> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, limits::BODY_BYTES_MAX)
        .collect()
        .await
        .map_err(|error| io::Error::other(error.to_string()))?
        .to_bytes();
    let call = call_of(parts, body);
    match vendor::serve(world, connection, &call).await {
        Act::Answer(reply) => {
            let head = head_of(&reply).map_err(io::Error::other)?;
            Ok(head.map(|()| Full::new(reply.body)))
        }
        Act::Reset | Act::GoAway => Err(io::Error::other("the connection is dropped on purpose")),
    }
}

fn call_of(parts: http::request::Parts, body: Bytes) -> Call {
    let host = parts
        .headers
        .get("host")
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    Call {
        authority: parts
            .uri
            .authority()
            .map_or(host, |authority| authority.as_str())
            .to_owned(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        method: parts.method,
        headers: parts.headers,
        body,
    }
}

fn head_of(reply: &Reply) -> Result<Response<()>, http::Error> {
    let mut head = Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        head = head.header(*name, value);
    }
    if !reply.body.is_empty() {
        head = head.header("content-length", reply.body.len());
    }
    head.body(())
}
