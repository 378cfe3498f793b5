//! The gateway alone: real sockets, the real opening handshake, ports in memory.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::Map;
use hongyan_core::port::{
    Ack, Enrolled, Enrolment, Hint, Inbox as _, NewChannel, OpenChannel, OpenError, Post,
    Presence as _, PushState, Pushes, Reader,
};
use hongyan_core::{
    AppId, Cursor, DeviceId, MessageId, PushChannel, PushEndpoint, Secret, StoreError, Timestamp,
    Topic, UserId,
};
use hongyan_gateway::handshake::Door;
use hongyan_gateway::protocol::sse::Caller;
use hongyan_gateway::protocol::{poll, sse};
use hongyan_gateway::{
    Autopush, Gateway, GatewayHandle, Hub, Listener, Mqtt, Options, Ports, Publish, PublishError,
    Socket, Tls, Xmpp, XmppOptions, handshake, pipe,
};
use hongyan_listener::secure::{self, Secure};
use http_body_util::{BodyExt as _, Either, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{
    AUTHORIZATION, CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

use super::memory::{self, Memory, app};
use super::{Records, Speech};
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
    speech: Speech,
) -> anyhow::Result<String> {
    let browsers = speech == Speech::Autopush;
    let memory = Arc::new(Memory::new(devices, followers, browsers)?);
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
    match speech {
        Speech::Mqtt => {
            let mqtt = Mqtt::new(handle, Arc::new(Mute));
            tokio::spawn(mqtt.listen(clients, tls, std::future::pending()));
        }
        Speech::Xmpp => {
            let clock = Arc::new(SystemClock::default());
            let xmpp = Xmpp::new(XmppOptions::default(), handle, clock);
            tokio::spawn(xmpp.listen(clients, Listener::Plain, std::future::pending()));
        }
        Speech::Http | Speech::Autopush => {
            handle.serve_autopush(Autopush {
                app: Some(app()),
                pushes: Arc::new(Mute),
                broadcasts: BTreeMap::new(),
            });
            let doors = Doors {
                handle,
                memory: Arc::clone(&memory),
            };
            tokio::spawn(accept(clients, doors, tls));
        }
    }
    tokio::spawn(async move {
        while let Ok((stream, _)) = publisher.accept().await {
            tokio::spawn(publish(stream, Arc::clone(&memory), hub.clone()));
        }
    });
    Ok(ca)
}

/// Takes no publications, and opens no endpoints.
#[derive(Debug)]
struct Mute;

/// What no browser here asks for.
const UNUSED: StoreError = StoreError::NotFound { entity: "endpoint" };

#[async_trait]
impl Pushes for Mute {
    fn root(&self) -> &str {
        ""
    }
    async fn enrolment(&self, _: &AppId, _: &UserId) -> Result<Enrolment, StoreError> {
        Err(UNUSED)
    }
    async fn enrolled(&self, _: &Secret) -> Result<Option<Enrolled>, StoreError> {
        Ok(None)
    }
    async fn enrol(&self, _: &DeviceId, _: &Enrolled) -> Result<bool, StoreError> {
        Err(UNUSED)
    }
    async fn forget(&self, _: &AppId, _: &DeviceId) -> Result<bool, StoreError> {
        Err(UNUSED)
    }
    async fn open(&self, _: NewChannel) -> Result<OpenChannel, OpenError> {
        Err(OpenError::TooMany)
    }
    async fn list(&self, _: &AppId, _: &DeviceId) -> Result<Vec<OpenChannel>, OpenError> {
        Ok(Vec::new())
    }
    async fn close(&self, _: &AppId, _: &DeviceId, _: &PushChannel) -> Result<bool, StoreError> {
        Ok(false)
    }
    async fn find(&self, _: &str) -> Result<Option<PushEndpoint>, StoreError> {
        Ok(None)
    }
    async fn post(&self, _: &PushEndpoint, _: Post) -> Result<MessageId, StoreError> {
        Err(UNUSED)
    }
    async fn withdraw(&self, _: &[u8; 32], _: MessageId) -> Result<bool, StoreError> {
        Ok(false)
    }
    async fn state(&self, _: &[u8; 32], _: MessageId) -> Result<Option<PushState>, StoreError> {
        Ok(None)
    }
}

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

/// What is reached over HTTP.
#[derive(Debug, Clone)]
struct Doors {
    handle: GatewayHandle,
    memory: Arc<Memory>,
}

/// The body of an answer: bytes at once, or as they come.
type Body = Either<Full<Bytes>, StreamBody<Frames>>;
type Frames = Map<pipe::Stream, fn(Bytes) -> Result<Frame<Bytes>, Infallible>>;

async fn accept(listener: TcpListener, doors: Doors, tls: Option<Arc<ServerConfig>>) {
    while let Ok((stream, peer)) = listener.accept().await {
        let (doors, tls) = (doors.clone(), tls.clone());
        tokio::spawn(async move {
            match tls {
                None => serve(stream, doors, peer.ip()).await,
                Some(tls) => {
                    if let Ok(stream) = secure::accept(&tls, stream).await {
                        serve(stream, doors, peer.ip()).await;
                    }
                }
            }
        });
    }
}

async fn serve<S: Adoptable>(stream: S, doors: Doors, ip: IpAddr) {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let doors = doors.clone();
        async move {
            let answer = match request.uri().path() {
                "/v1/stream" => doors.stream(&request, ip).await,
                "/v1/poll" => doors.poll(&request, ip).await,
                "/v1/acks" => doors.acks(request).await,
                path => match Door::at(path) {
                    Some(door) => Some(upgrade::<S>(door, request, &doors.handle, ip)),
                    None => None,
                },
            };
            let answer = answer.unwrap_or_else(|| status(StatusCode::BAD_REQUEST));
            Ok::<_, Infallible>(answer)
        }
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

/// The value of a field of the query.
fn field<'a>(request: &'a Request<Incoming>, name: &str) -> Option<&'a str> {
    let fields = request.uri().query()?.split('&');
    fields
        .filter_map(|field| field.split_once('='))
        .find_map(|(known, value)| (known == name).then_some(value))
}

impl Doors {
    /// The device whose token the request shows.
    fn reader(&self, request: &Request<Incoming>) -> Option<(Reader, [u8; 32])> {
        let header = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
        let token = header.strip_prefix("Bearer ")?;
        Some((self.memory.reader(token)?, memory::hash(token)))
    }

    fn caller(&self, request: &Request<Incoming>) -> Option<Caller> {
        let (reader, secret_hash) = self.reader(request)?;
        Some(Caller::Device {
            app: reader.app,
            device: reader.device,
            secret_hash,
        })
    }

    async fn stream(&self, request: &Request<Incoming>, ip: IpAddr) -> Option<Response<Body>> {
        let asked = sse::Request {
            caller: self.caller(request)?,
            cursor: None,
            inflight: field(request, "inflight").and_then(|n| n.parse().ok()),
            ack: sse::AckMode::Explicit,
        };
        let permit = self.handle.admit(ip).ok()?;
        let stream = self.handle.open_stream(asked, permit).await.ok()?;
        let frames: Frames = stream.map(|bytes| Ok(Frame::data(bytes)));
        Some(Response::new(Either::Right(StreamBody::new(frames))))
    }

    async fn poll(&self, request: &Request<Incoming>, ip: IpAddr) -> Option<Response<Body>> {
        let asked = poll::Request {
            cursor: field(request, "cursor")
                .map(Cursor::parse)
                .transpose()
                .ok()?,
            wait_ms: 1000 * field(request, "wait")?.parse::<u64>().ok()?,
            limit: field(request, "limit").map_or(Some(100), |n| n.parse().ok())?,
        };
        let caller = self.caller(request)?;
        let admit = || self.handle.admit(ip);
        let answer = self.handle.poll(caller, asked, admit).await.ok()?;
        let (cursor, head) = (answer.cursor, answer.head);
        let mut body =
            format!(r#"{{"cursor":"{cursor}","head":"{head}","messages":["#).into_bytes();
        for (index, message) in answer.messages.iter().enumerate() {
            if index > 0 {
                body.push(b',');
            }
            body.extend_from_slice(message);
        }
        body.extend_from_slice(b"]}");
        Some(Response::new(Either::Left(Full::new(body.into()))))
    }

    async fn acks(&self, request: Request<Incoming>) -> Option<Response<Body>> {
        let (reader, _) = self.reader(&request)?;
        let body = request.into_body().collect().await.ok()?.to_bytes();
        let asked: serde_json::Value = serde_json::from_slice(&body).ok()?;
        let upto = Cursor::parse(asked.get("upto")?.as_str()?).ok()?;
        let (ack, now) = (Ack::Upto(upto), Timestamp(1));
        self.memory.ack(&reader, ack.clone(), now).await.ok()?;
        self.handle.hub().acked(&reader, ack);
        Some(status(StatusCode::NO_CONTENT))
    }
}

fn upgrade<S: Adoptable>(
    door: Door,
    mut request: Request<Incoming>,
    handle: &GatewayHandle,
    ip: IpAddr,
) -> Response<Body> {
    let checked = handshake::check(
        door,
        request.method(),
        request.version(),
        request.headers(),
        &hyper::http::uri::Scheme::HTTP,
        None,
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
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(value) = accepted.accept.try_into() {
        headers.insert(SEC_WEBSOCKET_ACCEPT, value);
    }
    if let Some(name) = accepted.subprotocol {
        let name = HeaderValue::from_static(name);
        headers.insert(SEC_WEBSOCKET_PROTOCOL, name);
    }
    response
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::default()));
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
            hints.extend(take(&memory, line));
        }
        hub.notify(hints);
        buffer.drain(..=end);
    }
}

fn take(memory: &Memory, line: &str) -> Option<Hint> {
    match line.split_once(' ')? {
        ("t", text) => Some(memory.to_topic(text)),
        ("u", rest) => {
            let (number, text) = rest.split_once(' ')?;
            memory.to_user(number.parse().ok()?, text)
        }
        _ => None,
    }
}
