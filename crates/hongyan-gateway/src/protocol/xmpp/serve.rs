//! Takes XMPP connections in. What is spoken before TLS is spoken here, on tokio: a header, the
//! offer of STARTTLS, and the handshake. Then a reactor has the connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hongyan_core::port::Clock;
use hongyan_core::session::AppState;
use hongyan_core::{MessageId, SessionId, Stage, Timestamp};
use rustls::{ProtocolVersion, ServerConfig, ServerConnection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::machine::{Account, Copied, Ground, Host, Machine, Query, Shared};
use super::party::Party;
use super::sm::Kept;
use super::{Speaking, XmppOptions, random};
use crate::gate::Permit;
use crate::gateway::{AdoptError, GatewayHandle, Socket};
use crate::hub::Hub;
use crate::protocol::Speaker;
use crate::tls::Tls;

/// Pause after a failed accept: it fails when the process is out of file descriptors, and again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Bytes read at once before TLS.
const READ_BYTES: usize = 2 * 1024;

/// What streams need of the process.
#[derive(Debug)]
pub(crate) struct Server {
    pub(super) options: XmppOptions,
    pub(super) shared: Arc<Shared>,
    pub(super) hub: Hub,
    clock: Arc<dyn Clock>,
}

impl Server {
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn speaker(self: &Arc<Self>, machine: Machine) -> Speaker {
        Speaker::Other(Box::new(Speaking::new(machine, Arc::clone(self))))
    }

    /// For a connection whose 101 was written (RFC 7395).
    pub(crate) fn over_websocket(self: &Arc<Self>, socket: &Socket) -> Speaker {
        let binding = match socket {
            Socket::Tls(_, tls) => tls.connection().and_then(exporter),
            Socket::Plain(_) => None,
        };
        self.speaker(Machine::new(
            Arc::clone(&self.shared),
            Ground::WebSocket,
            binding,
        ))
    }
}

/// Takes XMPP connections in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Xmpp(Arc<Server>, GatewayHandle);

/// What a listener speaks first.
#[derive(Debug, Clone)]
pub enum Listener {
    /// XMPP, then TLS by STARTTLS: port 5222.
    StartTls(Arc<ServerConfig>),
    /// TLS, then XMPP: port 5223.
    Tls(Arc<ServerConfig>),
    /// XMPP without TLS: tokens travel in plain, so it is for this machine only.
    Plain,
}

impl Xmpp {
    /// XMPP on a gateway; from now on, [`crate::protocol::Speech::Xmpp`] is understood.
    #[must_use]
    pub fn new(options: XmppOptions, handle: GatewayHandle, clock: Arc<dyn Clock>) -> Self {
        let shared = Shared {
            domain: options.domain.to_ascii_lowercase(),
            resume_s: options.resume_s,
            party: Party::default(),
        };
        let server = Arc::new(Server {
            options,
            shared: Arc::new(shared),
            hub: handle.hub().clone(),
            clock,
        });
        let _ = handle.spoken().xmpp.set(Arc::clone(&server));
        Self(server, handle)
    }

    /// Accepts connections until `stop` resolves. Those that are past TLS are the gateway's.
    pub async fn listen(
        self,
        listener: TcpListener,
        how: Listener,
        stop: impl Future<Output = ()>,
    ) {
        let mut coming = JoinSet::new();
        tokio::pin!(stop);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = coming.join_next(), if !coming.is_empty() => continue,
                () = &mut stop => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "an XMPP connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Beyond the limits for strangers the connection is dropped: a stream error would need a stream.
            let Ok(permit) = self.1.admit(peer.ip()) else {
                metrics::counter!("hongyan_gateway_xmpp_refused_total").increment(1);
                continue;
            };
            let (xmpp, how) = (self.clone(), how.clone());
            coming.spawn(async move {
                let time = Duration::from_millis(xmpp.0.options.login_timeout_ms);
                let _ = tokio::time::timeout(time, xmpp.take_in(stream, peer, how, permit)).await;
            });
        }
    }

    async fn take_in(self, stream: TcpStream, peer: SocketAddr, how: Listener, permit: Permit) {
        let _ = stream.set_nodelay(true);
        let done = match how {
            Listener::Plain => stream.into_std().map(|stream| {
                let socket = Socket::Plain(stream);
                {
                    let machine = Machine::new(Arc::clone(&self.0.shared), Ground::Tcp, None);
                    self.hand_over(socket, machine, permit)
                }
            }),
            Listener::Tls(config) => {
                let machine = Machine::new(Arc::clone(&self.0.shared), Ground::Tcp, None);
                self.secure(stream, config, machine, permit).await
            }
            Listener::StartTls(config) => match self.open(stream).await {
                Ok(Some((stream, machine))) => self.secure(stream, config, machine, permit).await,
                Ok(None) => return,
                Err(error) => Err(error),
            },
        };
        match done {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(%peer, %error, "an XMPP connection was not taken over")
            }
            Err(error) => {
                tracing::debug!(%peer, %error, "an XMPP connection ended before its login")
            }
        }
    }

    /// Speaks until the client asks for TLS; `None` when it ended before.
    async fn open(&self, mut stream: TcpStream) -> std::io::Result<Option<(TcpStream, Machine)>> {
        let mut machine = Machine::new(Arc::clone(&self.0.shared), Ground::Plain, None);
        let mut host = BeforeTls::new(self.0.now());
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let n = stream.read(&mut buffer).await?;
            if n == 0 {
                return Ok(None);
            }
            machine.hear(&buffer[..n], &mut host);
            stream.write_all(&std::mem::take(&mut host.out)).await?;
            if host.closed {
                stream.shutdown().await?;
                return Ok(None);
            }
            if host.secured {
                return Ok(Some((stream, machine)));
            }
        }
    }

    async fn secure(
        &self,
        stream: TcpStream,
        config: Arc<ServerConfig>,
        mut machine: Machine,
        permit: Permit,
    ) -> std::io::Result<Result<(), AdoptError>> {
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        let (stream, tls) = stream.into_inner();
        machine.bind_channel(exporter(&tls));
        let socket = Socket::Tls(stream.into_std()?, Box::new(Tls::rustls(tls)));
        Ok(self.hand_over(socket, machine, permit))
    }

    fn hand_over(
        &self,
        socket: Socket,
        machine: Machine,
        permit: Permit,
    ) -> Result<(), AdoptError> {
        let speaker = self.0.speaker(machine);
        self.1
            .adopt_speaker(socket, Bytes::new(), (speaker, false), permit)
    }
}

/// What both ends of a TLS 1.3 connection know and nobody between them (RFC 9266).
fn exporter(tls: &ServerConnection) -> Option<[u8; 32]> {
    if tls.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return None;
    }
    let label = b"EXPORTER-Channel-Binding";
    tls.export_keying_material([0; 32], label, None).ok()
}

/// Where a stream lives before TLS: it can speak, and nothing else.
struct BeforeTls {
    now: Timestamp,
    out: Vec<u8>,
    secured: bool,
    closed: bool,
    elements: u8,
}

/// Elements before TLS: one is enough.
const ELEMENTS_MAX: u8 = 8;

impl BeforeTls {
    fn new(now: Timestamp) -> Self {
        Self {
            now,
            out: Vec::new(),
            secured: false,
            closed: false,
            elements: 0,
        }
    }
}

impl Host for BeforeTls {
    fn now(&self) -> Timestamp {
        self.now
    }
    fn has_room(&mut self, _bytes: usize) -> bool {
        false
    }
    fn write(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }
    fn ask(&mut self, _query: Query) -> bool {
        false
    }
    fn hello(&mut self, _account: &Account) {}
    fn parked(&mut self) -> Option<Box<Kept>> {
        None
    }
    fn ack(&mut self, _ids: Vec<MessageId>) {}
    fn event(&mut self, _id: MessageId, _stage: Stage) {}
    fn said(&mut self, _text: String) {}
    fn state(&mut self, _state: AppState) {}
    fn want(&mut self) {}
    fn spend(&mut self) -> bool {
        self.elements += 1;
        self.closed |= self.elements > ELEMENTS_MAX;
        !self.closed
    }
    fn tell(&mut self, _session: SessionId, _copied: Copied) {}
    fn starttls(&mut self) {
        self.secured = true;
    }
    fn close(&mut self, _code: u16, _word: &'static str, _detail: &'static str) {
        self.closed = true;
    }
    fn end(&mut self) {
        self.closed = true;
    }
    fn random(&self, bytes: &mut [u8]) {
        random(bytes);
    }
}
