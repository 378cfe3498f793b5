//! Takes XMPP connections in. What is spoken before TLS is spoken here, on tokio: a header, the
//! offer of STARTTLS, and the handshake. Then a reactor has the connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hongyan_core::port::Clock;
use hongyan_core::session::AppState;
use hongyan_core::{MessageId, SessionId, Stage, Timestamp};
use hongyan_listener::{Arrival, Door, Refusal};
use rustls::{ProtocolVersion, ServerConfig, ServerConnection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout_at;

use super::deliver::Copied;
use super::machine::{Account, Ground, Host, Machine, Query, Shared};
use super::party::Party;
use super::sm::Kept;
use super::{Speaking, XmppOptions, random};
use crate::gate::Permit;
use crate::gateway::{GatewayHandle, Socket};
use crate::hub::Hub;
use crate::protocol::Speaker;

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
        self.speaker(Machine::new(
            Arc::clone(&self.shared),
            Ground::WebSocket,
            binding(socket),
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
        let (tls, starttls) = match how {
            Listener::StartTls(tls) => (Some(tls), true),
            Listener::Tls(tls) => (Some(tls), false),
            Listener::Plain => (None, false),
        };
        let listener = hongyan_listener::Listener {
            name: "xmpp",
            socket: listener,
            tls: tls.map(|tls| self.1.prepare_tls(tls)),
            opening: Duration::from_millis(self.0.options.login_timeout_ms),
        };
        let entrance = Entrance {
            xmpp: self,
            starttls,
        };
        // What is not open by then is cut: nobody has logged in yet.
        drop(listener.run(entrance, stop).await);
    }
}

/// A listener's way in.
#[derive(Debug, Clone)]
struct Entrance {
    xmpp: Xmpp,
    starttls: bool,
}

impl Door for Entrance {
    type Place = Permit;

    /// Beyond the limits for strangers the connection is dropped: a stream error would need a stream.
    fn admit(&self, peer: SocketAddr) -> Result<Permit, Refusal> {
        let busy = |_| Refusal { words: b"" };
        self.xmpp.1.admit(peer.ip()).map_err(busy)
    }

    async fn welcome(self, mut arrival: Arrival, permit: Permit) {
        let peer = arrival.peer();
        match self.open(&mut arrival).await {
            Ok(Some(machine)) => {
                if let Err(error) = self.take_over(arrival, machine, permit).await {
                    tracing::debug!(%peer, %error, "an XMPP connection was not taken over");
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%peer, %error, "an XMPP connection ended before its login");
            }
        }
    }
}

impl Entrance {
    /// Speaks what comes before TLS; `None` when the connection ended there.
    async fn open(&self, arrival: &mut Arrival) -> io::Result<Option<Machine>> {
        let shared = Arc::clone(&self.xmpp.0.shared);
        if !self.starttls {
            return Ok(Some(Machine::new(shared, Ground::Tcp, None)));
        }
        let mut machine = Machine::new(shared, Ground::Plain, None);
        let due = arrival.due();
        let talk = talk(arrival.stream(), &mut machine, self.xmpp.0.now());
        let Ok(secured) = timeout_at(due, talk).await else {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "TLS was not asked for in time",
            ));
        };
        Ok(secured?.then_some(machine))
    }

    async fn take_over(
        self,
        arrival: Arrival,
        mut machine: Machine,
        permit: Permit,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let socket = Socket::try_from(arrival.secure().await?)?;
        if let Some(binding) = binding(&socket) {
            machine.bind_channel(Some(binding));
        }
        let speaker = self.xmpp.0.speaker(machine);
        let handle = &self.xmpp.1;
        handle.adopt_speaker(socket, Bytes::new(), (speaker, false), permit)?;
        Ok(())
    }
}

/// Speaks until the client asks for TLS; false when it ended before.
async fn talk(stream: &mut TcpStream, machine: &mut Machine, now: Timestamp) -> io::Result<bool> {
    let mut host = BeforeTls::new(now);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let n = stream.read(&mut buffer).await?;
        if n == 0 {
            return Ok(false);
        }
        machine.hear(&buffer[..n], &mut host);
        stream.write_all(&std::mem::take(&mut host.out)).await?;
        if host.closed {
            stream.shutdown().await?;
            return Ok(false);
        }
        if host.secured {
            return Ok(true);
        }
    }
}

fn binding(socket: &Socket) -> Option<[u8; 32]> {
    match socket {
        Socket::Tls(_, tls) => tls.connection().and_then(exporter),
        Socket::Plain(_) => None,
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
