//! Builds the gateway, runs it, and takes connections in.

use std::any::Any;
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hongyan_core::port::{Clock, Inbox, Registry, SessionSink};
use hongyan_core::{AppId, Device, DeviceId, Secret, SessionId, Timestamp};
use hongyan_listener::Transport;
use mio::{Poll, Waker};
use rustls::ServerConfig;
use tokio::sync::mpsc;

use crate::backend::{Backend, Job, Report};
use crate::gate::{Busy, Gate, Permit};
use crate::handshake::Door;
use crate::hub::Hub;
use crate::mailbox::{Adopted, Command, From, Mailbox};
use crate::options::{Options, TlsRecords};
use crate::pipe::{Stream, pipe};
use crate::protocol::autopush::Setup;
use crate::protocol::{Kind, Speaker, Speech, Spoken};
use crate::reactor::{Parts, Reactor, WAKER};
use crate::tickets::Holder;
use crate::tls::{TakeOverError, Tls};

/// Requests that wait for the store; when it is full, sessions try again.
const JOBS_LEN_MAX: usize = 4096;
/// Batches of reports that wait for the store; when it is full, sockets are not read.
const REPORT_BATCHES_MAX: usize = 64;

/// What the gateway needs of the engines.
#[derive(Debug, Clone)]
pub struct Ports {
    /// Finds the device of a token, and its topics.
    pub registry: Arc<dyn Registry>,
    /// What devices can fetch.
    pub inbox: Arc<dyn Inbox>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// The gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Settings are wrong.
    #[error("the gateway's settings are wrong: {}", .0.join("; "))]
    Options(Vec<String>),
    /// The system gave no event queue or thread.
    #[error("the system refused what a reactor needs; is the limit of open files reached?")]
    System(#[source] std::io::Error),
}

/// The connection could not be taken over.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The socket could not be prepared.
    #[error("the socket could not be made non-blocking")]
    Socket(#[source] std::io::Error),
    /// Its protocol was not turned on.
    #[error("the protocol is not spoken here")]
    NotSpoken,
    /// Its TLS could not be taken over from rustls.
    #[error("TLS could not be taken over")]
    Tls(#[source] TakeOverError),
}

/// A connection after its opening handshake.
#[derive(Debug)]
pub enum Socket {
    /// Without TLS.
    Plain(TcpStream),
    /// With TLS, past its handshake; the bytes that were read ahead are plain text.
    Tls(TcpStream, Box<Tls>),
}

impl TryFrom<Transport> for Socket {
    type Error = std::io::Error;

    fn try_from(transport: Transport) -> Result<Self, Self::Error> {
        Ok(match transport.into_std()? {
            (stream, None) => Self::Plain(stream),
            (stream, Some(tls)) => Self::Tls(stream, Box::new(Tls::from(tls))),
        })
    }
}

/// The gateway before it runs. Its handle and hub work from the start.
#[derive(Debug)]
pub struct Gateway {
    options: Arc<Options>,
    ports: Ports,
    hub: Hub,
    handle: GatewayHandle,
    polls: Vec<Poll>,
}

/// Takes connections in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct GatewayHandle {
    hub: Hub,
    gate: Arc<Gate>,
    next: Arc<AtomicUsize>,
    sessions_max: usize,
    spoken: Arc<Spoken>,
    tls_records: TlsRecords,
    opening: Duration,
}

impl Gateway {
    /// Checks the settings and prepares the reactors.
    ///
    /// # Errors
    /// [`StartError`] names every wrong setting, or what the system refused.
    pub fn new(options: Options, ports: Ports) -> Result<Self, StartError> {
        let faults = options.faults();
        if !faults.is_empty() {
            return Err(StartError::Options(faults));
        }
        let mut polls = Vec::new();
        let mut mailboxes = Vec::new();
        for _ in 0..options.reactor_count() {
            let poll = Poll::new().map_err(StartError::System)?;
            let waker = Waker::new(poll.registry(), WAKER).map_err(StartError::System)?;
            polls.push(poll);
            mailboxes.push(Arc::new(Mailbox::new(waker)));
        }
        let gate = Arc::new(Gate::new(&options));
        let hub = Hub::new(mailboxes, Arc::clone(&gate));
        let handle = GatewayHandle {
            hub: hub.clone(),
            gate,
            next: Arc::new(AtomicUsize::new(0)),
            sessions_max: options.sessions_max,
            spoken: Arc::default(),
            tls_records: options.tls_records,
            opening: Duration::from_millis(options.hello_timeout_ms),
        };
        Ok(Self {
            options: Arc::new(options),
            ports,
            hub,
            handle,
            polls,
        })
    }

    /// For the HTTP server.
    #[must_use]
    pub fn handle(&self) -> GatewayHandle {
        self.handle.clone()
    }

    /// For the router and the API.
    #[must_use]
    pub fn hub(&self) -> Hub {
        self.hub.clone()
    }

    /// Runs until `stop` resolves: then every connection is closed with 1001 and the last reports
    /// are handed to `sink`. To let clients go gently, call [`Hub::drain`] before.
    ///
    /// # Errors
    /// [`StartError::System`] when a thread cannot be started.
    pub async fn run(
        self,
        sink: Arc<dyn SessionSink>,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<(), StartError> {
        let (jobs, jobs_in) = mpsc::channel::<Job>(JOBS_LEN_MAX);
        let (reports, reports_in) = mpsc::channel::<Vec<Report>>(REPORT_BATCHES_MAX);
        let backend = Backend {
            ports: self.ports.clone(),
            hub: self.hub.clone(),
        };
        let mut threads = Vec::new();
        let boxes = self.hub.mailboxes().to_vec();
        for (index, (poll, mailbox)) in self.polls.into_iter().zip(&boxes).enumerate() {
            let reactor = Reactor::new(Parts {
                index: index as u8,
                poll,
                mailbox: Arc::clone(mailbox),
                hub: self.hub.clone(),
                clock: Arc::clone(&self.ports.clock),
                options: Arc::clone(&self.options),
                jobs: jobs.clone(),
                reports: reports.clone(),
            });
            let thread = std::thread::Builder::new()
                .name(format!("gateway-{index}"))
                .spawn(move || reactor.run())
                .map_err(StartError::System)?;
            threads.push(thread);
        }
        drop((jobs, reports));
        let concurrency = self.options.backend_concurrency;
        let answer = backend.clone().answer(jobs_in, concurrency);
        let report = backend.report(reports_in, sink);
        let stopped = async {
            stop.await;
            for mailbox in &boxes {
                mailbox.push(Command::Stop);
            }
        };
        // The first two end when the reactors have, as these own the other ends.
        tokio::join!(answer, report, stopped);
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a reactor ended with a panic");
            }
        }
        Ok(())
    }
}

impl GatewayHandle {
    /// Asks whether one more connection from this address may be upgraded; to be called before 101
    /// is answered.
    ///
    /// # Errors
    /// [`Busy`] says whether to answer 503 or 429.
    pub fn admit(&self, ip: IpAddr) -> Result<Permit, Busy> {
        if self.hub.sockets().load(Ordering::Relaxed) >= self.sessions_max {
            return Err(Busy::Full);
        }
        self.gate.admit(ip)
    }

    /// Begins to serve browsers (autopush). Once: what is given later is dropped.
    pub fn serve_autopush(&self, setup: Setup) {
        // Whoever was first stays.
        let _ = self.spoken.autopush.set(Arc::new(setup));
    }

    /// Takes a connection over: after 101 was written when it speaks in WebSocket messages, else at once. `read_ahead` is
    /// what came already, decrypted.
    ///
    /// # Errors
    /// [`AdoptError`] when the socket cannot be used; it is dropped then.
    pub fn adopt(
        &self,
        socket: Socket,
        read_ahead: Bytes,
        speech: impl Into<Speech>,
        permit: Permit,
    ) -> Result<(), AdoptError> {
        let Some(speaker) = speech.into().speaker(&self.spoken, &socket) else {
            return Err(AdoptError::NotSpoken);
        };
        self.adopt_speaker(socket, read_ahead, speaker, permit)
    }

    /// The protocols that have something of their own to be spoken with.
    pub(crate) fn spoken(&self) -> &Spoken {
        &self.spoken
    }

    /// Whether what is behind a door is spoken here.
    #[must_use]
    pub fn speaks(&self, door: Door) -> bool {
        match door {
            Door::Hongyan => true,
            Door::Xmpp => self.spoken.xmpp.get().is_some(),
            Door::Autopush => self.spoken.autopush.get().is_some(),
            Door::Mqtt => self.spoken.mqtt.get().is_some(),
        }
    }

    /// The same with a protocol that is under way.
    pub(crate) fn adopt_speaker(
        &self,
        socket: Socket,
        read_ahead: Bytes,
        (speaker, websocket): (Speaker, bool),
        permit: Permit,
    ) -> Result<(), AdoptError> {
        let (Socket::Plain(tcp) | Socket::Tls(tcp, _)) = &socket;
        tcp.set_nonblocking(true).map_err(AdoptError::Socket)?;
        // Frames leave as whole turns; waiting for more would only cost time.
        if let Err(error) = tcp.set_nodelay(true) {
            tracing::debug!(%error, "a socket keeps its delay");
        }
        let (socket, read_ahead) = self.settle(socket, read_ahead)?;
        let from = if websocket {
            From::WebSocket(socket)
        } else {
            From::Raw(socket)
        };
        self.take_in(Adopted {
            from,
            read_ahead,
            speaker,
            permit,
        });
        Ok(())
    }

    /// A session of a device, when it speaks this protocol.
    pub(crate) fn session(&self, app: &AppId, device: &DeviceId, kind: Kind) -> Option<SessionId> {
        self.hub.session_of(app, device, kind)
    }

    /// Begins a connection that is the body of an HTTP answer.
    pub(crate) fn stream(&self, speaker: Speaker, permit: Permit) -> Stream {
        let (end, stream) = pipe(self.hub.clone());
        self.take_in(Adopted {
            from: From::Pipe(end),
            read_ahead: Bytes::new(),
            speaker,
            permit,
        });
        stream
    }

    /// Begins a connection whose protocol answers in process.
    pub(crate) fn inner(&self, speaker: Speaker, permit: Permit) {
        self.take_in(Adopted {
            from: From::Nothing,
            read_ahead: Bytes::new(),
            speaker,
            permit,
        });
    }

    /// Gives something to a session's protocol; it is dropped when the session is gone.
    pub(crate) fn tell(&self, session: SessionId, what: Box<dyn Any + Send>) {
        self.hub.tell(session, what);
    }

    fn take_in(&self, adopted: Adopted) {
        let boxes = self.hub.mailboxes();
        let mailbox = &boxes[self.next.fetch_add(1, Ordering::Relaxed) % boxes.len()];
        self.hub.sockets().fetch_add(1, Ordering::Relaxed);
        mailbox.push(Command::Adopt(Box::new(adopted)));
    }

    /// The settings of a listener whose connections this gateway takes: handshakes leave what its records need.
    pub(crate) fn prepare_tls(&self, mut config: Arc<ServerConfig>) -> Arc<ServerConfig> {
        Arc::make_mut(&mut config).enable_secret_extraction = self.tls_records == TlsRecords::Own;
        config
    }

    /// Time for a TLS handshake.
    pub(crate) fn opening(&self) -> Duration {
        self.opening
    }

    /// Takes TLS over from rustls where that is possible, and what rustls had opened already.
    fn settle(&self, socket: Socket, read_ahead: Bytes) -> Result<(Socket, Bytes), AdoptError> {
        let Socket::Tls(tcp, tls) = socket else {
            return Ok((socket, read_ahead));
        };
        let (tls, opened) = tls.settle(self.tls_records).map_err(AdoptError::Tls)?;
        let by = if tls.has_own_records() {
            "own"
        } else {
            "rustls"
        };
        metrics::counter!("hongyan_gateway_tls_connections_total", "records" => by).increment(1);
        let read_ahead = if opened.is_empty() {
            read_ahead
        } else {
            [&read_ahead[..], &opened].concat().into()
        };
        Ok((Socket::Tls(tcp, Box::new(tls)), read_ahead))
    }

    /// Makes a text, drawn at random by the caller, a ticket of this device as it is bound now: good once, for
    /// [`crate::TICKET_TTL`]. Answers whether there was room for it.
    #[must_use]
    pub fn issue_ticket(&self, text: &Secret, device: &Device, now: Timestamp) -> bool {
        let holder = Holder {
            app: device.app.clone(),
            device: device.id.clone(),
            user: device.user.clone(),
        };
        self.hub.tickets().issue(text, holder, now)
    }

    /// The hub, for the rooms that reach sessions.
    #[must_use]
    pub fn hub(&self) -> &Hub {
        &self.hub
    }
}
