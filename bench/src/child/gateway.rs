//! The gateway alone: real sockets, the real opening handshake, ports in memory.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use hongyan_core::port::{Hint, Owner, Presence as _};
use hongyan_core::{AppId, MessageId, Topic};
use hongyan_gateway::{
    Gateway, GatewayHandle, Hub, Mqtt, Options, Ports, Publish, PublishError, Socket, Tls,
    handshake,
};
use hongyan_listener::secure::{self, Secure};
use http_body_util::Empty;
use hyper::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

use super::Records;
use super::memory::{Memory, app};
use crate::quiet::{Deaf, SystemClock};

/// Starts the gateway and its two listeners; answers the certificate to trust, if it speaks TLS.
///
/// # Errors
/// When the gateway cannot start.
pub fn start(
    clients: TcpListener,
    publisher: TcpListener,
    (devices, followers): (u32, u32),
    tls: Option<Records>,
    mqtt: bool,
) -> anyhow::Result<String> {
    let memory = Arc::new(Memory::new(devices, followers)?);
    let ports = Ports {
        registry: Arc::clone(&memory) as _,
        inbox: Arc::clone(&memory) as _,
        clock: Arc::new(SystemClock::default()),
    };
    let (tls, ca) = match tls {
        Some(records) => {
            let (mut config, ca) = super::tls::config(&[])?;
            config.enable_secret_extraction = records == Records::Own;
            (Some(Arc::new(config)), ca)
        }
        None => (None, String::new()),
    };
    let gateway = Gateway::new(Options::default(), ports)?;
    let (hub, handle) = (gateway.hub(), gateway.handle());
    tokio::spawn(gateway.run(Arc::new(Deaf), std::future::pending()));
    if mqtt {
        let mqtt = Mqtt::new(handle, Arc::new(Mute));
        tokio::spawn(mqtt.listen(clients, tls, std::future::pending()));
    } else {
        tokio::spawn(accept(clients, handle, tls));
    }
    tokio::spawn(async move {
        while let Ok((stream, _)) = publisher.accept().await {
            tokio::spawn(publish(stream, Arc::clone(&memory), hub.clone()));
        }
    });
    Ok(ca)
}

/// Takes no publications.
#[derive(Debug)]
struct Mute;

#[async_trait]
impl Publish for Mute {
    async fn publish(
        &self,
        _app: &AppId,
        _topic: Topic,
        _payload: &[u8],
        _ttl_s: Option<u32>,
    ) -> Result<MessageId, PublishError> {
        Err(PublishError::Invalid("nobody publishes here".to_owned()))
    }
}

async fn accept(listener: TcpListener, handle: GatewayHandle, tls: Option<Arc<ServerConfig>>) {
    while let Ok((stream, peer)) = listener.accept().await {
        let (handle, tls) = (handle.clone(), tls.clone());
        tokio::spawn(async move {
            match tls {
                None => serve(stream, handle, peer.ip()).await,
                Some(tls) => {
                    if let Ok(stream) = secure::accept(&tls, stream).await {
                        serve(stream, handle, peer.ip()).await;
                    }
                }
            }
        });
    }
}

async fn serve<S: Adoptable>(stream: S, handle: GatewayHandle, ip: IpAddr) {
    let service = hyper::service::service_fn(move |request| {
        let answer = upgrade::<S>(request, &handle, ip);
        std::future::ready(Ok::<_, Infallible>(answer))
    });
    // A client that goes away early is its own affair.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

/// A stream that the gateway takes over.
trait Adoptable: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    fn into_socket(self) -> std::io::Result<Socket>;
}

impl Adoptable for TcpStream {
    fn into_socket(self) -> std::io::Result<Socket> {
        self.into_std().map(Socket::Plain)
    }
}

impl Adoptable for Secure<TcpStream> {
    fn into_socket(self) -> std::io::Result<Socket> {
        let (stream, tls) = self.into_parts();
        Ok(Socket::Tls(stream.into_std()?, Box::new(Tls::from(tls))))
    }
}

fn upgrade<S: Adoptable>(
    mut request: Request<hyper::body::Incoming>,
    handle: &GatewayHandle,
    ip: IpAddr,
) -> Response<Empty<Bytes>> {
    let checked = handshake::check(
        handshake::Door::Hongyan,
        request.method(),
        request.version(),
        request.headers(),
        &[],
    );
    let (accepted, permit) = match (checked, handle.admit(ip)) {
        (Ok(accepted), Ok(permit)) => (accepted, permit),
        (Err(refused), _) => return status(refused.status),
        (_, Err(_)) => return status(StatusCode::SERVICE_UNAVAILABLE),
    };
    let speech = accepted.speech;
    let upgrading = hyper::upgrade::on(&mut request);
    let handle = handle.clone();
    tokio::spawn(async move {
        let Ok(upgraded) = upgrading.await else {
            return;
        };
        let Ok(parts) = upgraded.downcast::<TokioIo<S>>() else {
            return;
        };
        let Ok(socket) = parts.io.into_inner().into_socket() else {
            return;
        };
        // A socket that cannot be taken over is closed by being dropped.
        let _ = handle.adopt(socket, parts.read_buf, speech, permit);
    });
    let mut response = status(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(
        UPGRADE,
        hyper::header::HeaderValue::from_static("websocket"),
    );
    headers.insert(
        CONNECTION,
        hyper::header::HeaderValue::from_static("Upgrade"),
    );
    if let Ok(value) = accepted.accept.try_into() {
        headers.insert(SEC_WEBSOCKET_ACCEPT, value);
    }
    if let Some(name) = accepted.subprotocol {
        let name = hyper::header::HeaderValue::from_static(name);
        headers.insert(SEC_WEBSOCKET_PROTOCOL, name);
    }
    response
}

fn status(status: StatusCode) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    response
}

/// Takes lines `t <text>` (to the topic) and `u <number> <text>` (to one user), and does what the
/// router does after a commit: the message is there, a hint says so.
async fn publish(mut stream: TcpStream, memory: Arc<Memory>, hub: Hub) {
    let mut buffer: Vec<u8> = Vec::with_capacity(64 * 1024);
    while stream
        .read_buf(&mut buffer)
        .await
        .is_ok_and(|read| read > 0)
    {
        let Some(end) = buffer.iter().rposition(|byte| *byte == b'\n') else {
            continue;
        };
        let mut hints: Vec<Hint> = Vec::new();
        for line in String::from_utf8_lossy(&buffer[..end]).lines() {
            let Some(owner) = take(&memory, line) else {
                continue;
            };
            let hint = Hint { app: app(), owner };
            if hints.last() != Some(&hint) {
                hints.push(hint);
            }
        }
        hub.notify(hints);
        buffer.drain(..=end);
    }
}

fn take(memory: &Memory, line: &str) -> Option<Owner> {
    match line.split_once(' ')? {
        ("t", text) => Some(memory.to_topic(text)),
        ("u", rest) => {
            let (number, text) = rest.split_once(' ')?;
            memory.to_user(number.parse().ok()?, text)
        }
        _ => None,
    }
}
