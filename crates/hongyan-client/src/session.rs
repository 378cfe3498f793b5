//! The driver of one device: chooses a transport, connects, says hello, lets `live.rs` serve the connection, decides what
//! comes next.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message as Frame};

use crate::backoff::{self, Backoff, Next};
use crate::client::{Command, Event, Stats, Status, Stop, TopicChange};
use crate::error::Error;
use crate::http_client::Http;
use crate::http_link::HttpLink;
use crate::link::{Link, Socket};
use crate::live::Live;
use crate::net::{self, BoxStream};
use crate::options::{Options, TokenNeed, TokenSource};
use crate::overflow::Overflow;
use crate::secret::Secret;
use crate::storage::Record;
use crate::tracker::Tracker;
use crate::transport::{Choice, Step, Transport};
use crate::wire::{self, AppState, Incoming, NackCode, Outgoing, Welcome};

/// Read buffer of a connection, in bytes: small, for programs that hold very many.
const READ_BUFFER_BYTES: usize = 4096;
/// Write buffer of a connection, in bytes; the gateway accepts messages of 64 KiB.
const WRITE_BUFFER_BYTES_MAX: usize = 128 * 1024;
/// Topic changes that may await their turn; one is on the wire at a time.
const TOPICS_MAX: usize = 256;

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// For good.
    Stop(Stop),
    /// Reconnect after this wait, which is not an attempt: drains and own decisions.
    After(Duration),
    /// As the table of [`backoff`] says.
    Next { next: Next, why: String },
    /// The transport did not come through.
    Way {
        /// Least wait when there is no other.
        least: Duration,
        /// Other transports would find the same: the gateway is busy.
        shared: bool,
        why: String,
    },
    /// The gateway cannot read the cursor.
    BadCursor,
}

impl Ended {
    pub(crate) fn broken(why: impl Into<String>) -> Self {
        Self::Next {
            next: Next::Retry {
                least: Duration::ZERO,
            },
            why: why.into(),
        }
    }

    /// Another transport may do better.
    pub(crate) fn way(why: impl Into<String>) -> Self {
        Self::Way {
            least: Duration::ZERO,
            shared: false,
            why: why.into(),
        }
    }

    /// Reads a failure before the welcome as one of the transport.
    fn before_welcome(self) -> Self {
        match self {
            Self::Next {
                next: Next::Retry { least },
                why,
            } => Self::Way {
                least,
                shared: false,
                why,
            },
            other => other,
        }
    }

    /// Reads a failure after the welcome: the transport came through.
    fn after_welcome(self) -> Self {
        match self {
            Self::Way { least, why, .. } => Self::Next {
                next: Next::Retry { least },
                why,
            },
            other => other,
        }
    }
}

/// Whether a wake-up ends what is being awaited.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OnWake {
    Ends,
    Ignored,
}

/// A topic change and who waits for its reply.
pub(crate) type Topic = (TopicChange, String, oneshot::Sender<Result<(), Error>>);

pub(crate) struct Driver {
    pub(crate) options: Arc<Options>,
    tokens: Arc<dyn TokenSource>,
    pub(crate) need: TokenNeed,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) outlet: mpsc::Sender<Event>,
    /// Events that the app's queue has no room for; reading pauses when it is full.
    pub(crate) overflow: Overflow,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) tracker: Tracker,
    pub(crate) backoff: Backoff,
    pub(crate) state: AppState,
    pub(crate) topics: VecDeque<Topic>,
    pub(crate) resynced_at: Option<Instant>,
    pub(crate) choice: Choice,
    /// For the transports that are HTTP calls.
    http: Option<Http>,
    /// The device's id, once a gateway has told it.
    device: Option<String>,
}

impl Driver {
    pub(crate) fn new(
        options: Options,
        tokens: Arc<dyn TokenSource>,
        commands: mpsc::Receiver<Command>,
        outlet: mpsc::Sender<Event>,
        status: watch::Sender<Status>,
        stats: Arc<Stats>,
    ) -> Self {
        Self {
            tokens,
            need: TokenNeed::Connect,
            commands,
            outlet,
            overflow: Overflow::default(),
            status,
            stats,
            tracker: Tracker::new(Record::default(), options.seen_max, options.events_max),
            backoff: Backoff::new(&options.timers, options.seed),
            state: options.state,
            topics: VecDeque::new(),
            resynced_at: None,
            choice: Choice::new(
                &options.transports,
                options.timers.climb,
                options.timers.climb_max,
            ),
            http: None,
            device: None,
            options: Arc::new(options),
        }
    }

    pub(crate) async fn run(mut self) {
        self.load().await;
        let stop = loop {
            let ended = Box::pin(self.connection()).await;
            let (wait, why) = match ended {
                Ended::Stop(stop) => break stop,
                Ended::After(wait) => (wait, "the gateway asked for it".to_owned()),
                Ended::Next { next, why } => match self.decide(next, &why) {
                    Ok(wait) => (wait, why),
                    Err(stop) => break stop,
                },
                Ended::Way { least, shared, why } => (self.other_way(least, shared), why),
                Ended::BadCursor => {
                    tracing::warn!("the gateway cannot read the stored cursor; replaying instead");
                    self.tracker.forget_cursor();
                    (self.backoff.draw(), "the cursor was refused".to_owned())
                }
            };
            tracing::debug!(?wait, why, "connection ended");
            self.status.send_replace(Status::Waiting { wait, why });
            match self.meanwhile(tokio::time::sleep(wait), OnWake::Ends).await {
                // Woken: the network may be another one now.
                Ok(None) => self.choice.climb(),
                Ok(Some(())) => {}
                Err(stop) => break stop,
            }
        };
        self.save().await;
        for (_, _, reply) in self.topics.drain(..) {
            // Nobody may be waiting any more, which is fine.
            let _ = reply.send(Err(Error::Stopped {
                why: stop.to_string(),
            }));
        }
        self.status.send_replace(Status::Stopped(stop));
    }

    /// What the end of a connection means: a wait, or the end of it all.
    fn decide(&mut self, next: Next, why: &str) -> Result<Duration, Stop> {
        let least = match next {
            Next::Retry { least } => least,
            Next::Renew => {
                self.need = TokenNeed::Renew;
                Duration::ZERO
            }
            Next::Register => {
                self.need = TokenNeed::Register;
                Duration::ZERO
            }
            Next::TakenOver => return Err(Stop::TakenOver),
            Next::Blocked => return Err(Stop::Blocked),
            Next::NotUnderstood => return Err(Stop::NotUnderstood(why.to_owned())),
        };
        // Jitter comes on top of a told wait, or all would come back in the same moment.
        Ok(least + self.backoff.draw())
    }

    /// The transport did not come through: moves on to another one, and gives the wait before it.
    fn other_way(&mut self, least: Duration, shared: bool) -> Duration {
        let way = self.choice.way();
        let step = self.choice.failed(!shared);
        if self.choice.way() != way {
            tracing::debug!(%way, next = %self.choice.way(), "another transport is tried");
        }
        match step {
            Step::AtOnce => Duration::ZERO,
            Step::Waits if !shared => self.backoff.draw(),
            Step::Waits | Step::Alone => least + self.backoff.draw(),
        }
    }

    async fn load(&mut self) {
        let Some(storage) = self.options.storage.clone() else {
            return;
        };
        match storage.load().await {
            Ok(Some(bytes)) => match Record::read(&bytes) {
                Some(record) => {
                    let (seen, events) = (self.options.seen_max, self.options.events_max);
                    self.tracker = Tracker::new(record, seen, events);
                }
                None => tracing::warn!("the stored record is damaged or newer; replaying instead"),
            },
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "the stored record cannot be read; replaying instead")
            }
        }
    }

    pub(crate) async fn save(&mut self) {
        let Some(storage) = self.options.storage.clone() else {
            return;
        };
        let Some(record) = self.tracker.record_if_changed() else {
            return;
        };
        if let Err(error) = storage.save(record.write()).await {
            self.stats.saves_failed.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%error, "cursor and seen ids were not kept; a restart may show a message twice");
        }
    }

    /// Waits for `future` while the app's commands are served as far as they can be.
    async fn meanwhile<T>(
        &mut self,
        future: impl Future<Output = T>,
        on_wake: OnWake,
    ) -> Result<Option<T>, Stop> {
        let mut future = pin!(future);
        loop {
            let wake = tokio::select! {
                command = self.commands.recv() => Ok(command),
                permit = self.outlet.reserve(), if !self.overflow.is_empty() => {
                    let Ok(permit) = permit else { return Err(Stop::Closed) };
                    Err(self.overflow.hand(permit))
                }
                () = self.outlet.closed() => return Err(Stop::Closed),
                out = &mut future => return Ok(Some(out)),
            };
            match wake {
                Ok(None | Some(Command::Close | Command::Kill)) => return Err(Stop::Closed),
                Ok(Some(Command::Wake)) if on_wake == OnWake::Ends => return Ok(None),
                Ok(Some(command)) => self.offline(command),
                Err(Some(mark)) => {
                    self.tracker.take(&mark);
                }
                Err(None) => continue,
            }
            // Entries of the last connection still move the cursor.
            self.tracker.acks();
            self.save().await;
        }
    }

    /// Serves a command as far as it needs no connection.
    pub(crate) fn offline(&mut self, command: Command) {
        match command {
            Command::Taken(id) => {
                self.tracker.take(&id);
            }
            Command::Nack(id, NackCode::Retry) => {
                self.tracker.give_back(&id);
            }
            // Without a connection the status cannot be told; that it is not shown again matters more.
            Command::Nack(id, _) => {
                self.tracker.take(&id);
            }
            Command::Event(event) => {
                if self.tracker.push_event(event) {
                    self.stats.events_dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
            Command::State(state) => self.state = state,
            Command::Topic {
                change,
                topic,
                reply,
            } => self.queue_topic(change, topic, reply),
            Command::Ping(reply) => {
                let _ = reply.send(Err(Error::Disconnected { what: "ping" }));
            }
            Command::Wake | Command::Close | Command::Kill => {}
        }
    }

    fn queue_topic(
        &mut self,
        change: TopicChange,
        topic: String,
        reply: oneshot::Sender<Result<(), Error>>,
    ) {
        if self.topics.len() < TOPICS_MAX {
            self.topics.push_back((change, topic, reply));
        } else {
            let why = format!("{TOPICS_MAX} topic changes are waiting already");
            let _ = reply.send(Err(Error::Invalid { what: "topic", why }));
        }
    }

    /// One connection from its start to its end.
    async fn connection(&mut self) -> Ended {
        self.status.send_replace(Status::Connecting {
            attempt: self.backoff.attempt(),
        });
        let tokens = Arc::clone(&self.tokens);
        let need = self.need;
        let token = match self.meanwhile(tokens.token(need), OnWake::Ignored).await {
            Err(stop) => return Ended::Stop(stop),
            Ok(Some(Ok(token))) => token,
            Ok(Some(Err(e))) if need == TokenNeed::Connect => return Ended::broken(e.to_string()),
            Ok(Some(Err(e))) => return Ended::Stop(Stop::NoToken(e.to_string())),
            Ok(None) => return Ended::After(Duration::ZERO),
        };
        let options = Arc::clone(&self.options);
        let opened = match self.choice.way() {
            Transport::WebSocket => self.open_socket(&token).await,
            Transport::Sse | Transport::Poll => self.open_http(&token).await,
        };
        let (link, welcome) = match opened {
            Ok(opened) => opened,
            Err(ended) => return ended,
        };
        let transport = link.transport();
        self.choice.welcomed(Instant::now());
        let number = transport.number();
        self.stats.transport.store(number, Ordering::Relaxed);
        if welcome.device.is_some() {
            self.device.clone_from(&welcome.device);
        }
        self.need = TokenNeed::Connect;
        self.stats.connections.fetch_add(1, Ordering::Relaxed);
        self.tracker.connection_started();
        let session = match &welcome.session {
            serde_json::Value::String(name) => name.clone(),
            other => other.to_string(),
        };
        let full = welcome.replay.as_deref() == Some("full");
        self.status.send_replace(Status::Replaying {
            session,
            full,
            transport,
        });
        let started = Instant::now();
        let mut live = Live::new(self, link, &welcome);
        let ended = live.serve().await.after_welcome();
        live.abandon();
        self.stats.transport.store(0, Ordering::Relaxed);
        self.choice.climb();
        if started.elapsed() >= options.timers.live_reset {
            self.backoff.reset();
        }
        ended
    }

    /// Connects, asks for the upgrade, says hello and waits for the welcome.
    async fn open_socket(&mut self, token: &Secret) -> Result<(Link, Welcome), Ended> {
        let options = Arc::clone(&self.options);
        let timers = &options.timers;
        let opening = net::open(&options.base, &options.tls, &*options.connector);
        let opening = timeout(timers.connect, opening);
        let stream = match self.meanwhile(opening, OnWake::Ignored).await {
            Err(stop) => return Err(Ended::Stop(stop)),
            Ok(Some(Ok(Ok(stream)))) => stream,
            Ok(Some(Ok(Err(e)))) => {
                return Err(Ended::broken(format!("cannot reach {}: {e}", options.base)));
            }
            Ok(Some(Err(_)) | None) => {
                let why = format!("no connection within {:?}", timers.connect);
                return Err(Ended::broken(why));
            }
        };
        let upgrading = timeout(timers.connect, upgrade(stream, &options));
        let mut socket = match self.meanwhile(upgrading, OnWake::Ignored).await {
            Err(stop) => return Err(Ended::Stop(stop)),
            Ok(Some(Ok(Ok(socket)))) => socket,
            Ok(Some(Ok(Err(ended)))) => return Err(ended),
            Ok(Some(Err(_)) | None) => {
                return Err(Ended::way(format!(
                    "no upgrade within {:?}",
                    timers.connect
                )));
            }
        };
        let cursor = self.tracker.cursor().map(str::to_owned);
        let greeting = greet(&mut socket, &options, token, cursor.as_deref(), self.state);
        let greeting = timeout(timers.welcome, greeting);
        match self.meanwhile(greeting, OnWake::Ignored).await {
            Err(stop) => Err(Ended::Stop(stop)),
            Ok(Some(Ok(Ok(welcome)))) => Ok((Link::Socket(Box::new(socket)), welcome)),
            Ok(Some(Ok(Err(ended)))) => Err(ended),
            Ok(Some(Err(_)) | None) => Err(Ended::way(format!(
                "no welcome within {:?}",
                timers.welcome
            ))),
        }
    }

    /// Opens a stream, or polls for the first time.
    async fn open_http(&mut self, token: &Secret) -> Result<(Link, Welcome), Ended> {
        let options = Arc::clone(&self.options);
        let http = self.http.get_or_insert_with(|| {
            let (tls, connector) = (options.tls.clone(), Arc::clone(&options.connector));
            let timeout = options.timers.connect;
            Http::new(options.base.clone(), None, tls, connector, timeout)
        });
        let http = http.with_key(token.clone());
        let cursor = self.tracker.cursor().map(str::to_owned);
        let (way, device) = (self.choice.way(), self.device.clone());
        let opening = async {
            match way {
                Transport::Poll => HttpLink::poll(http, options, cursor.as_deref(), device).await,
                _ => HttpLink::stream(http, options, cursor.as_deref()).await,
            }
        };
        let (mut link, welcome) = match self.meanwhile(opening, OnWake::Ignored).await {
            Err(stop) => return Err(Ended::Stop(stop)),
            Ok(Some(opened)) => opened?,
            Ok(None) => return Err(Ended::After(Duration::ZERO)),
        };
        if self.state != AppState::Foreground {
            // These begin in the foreground.
            link.say(&Outgoing::State { state: self.state });
        }
        Ok((Link::Http(Box::new(link)), welcome))
    }
}

/// Asks for the upgrade.
async fn upgrade(stream: BoxStream, options: &Options) -> Result<Socket, Ended> {
    let not_understood = |e: String| Ended::Stop(Stop::NotUnderstood(e));
    let mut request = options
        .base
        .ws_url("/v1/connect")
        .into_client_request()
        .map_err(|e| not_understood(e.to_string()))?;
    request.headers_mut().insert(
        http::header::SEC_WEBSOCKET_PROTOCOL,
        http::HeaderValue::from_static(options.codec.subprotocol()),
    );
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .max_message_size(Some(options.message_bytes_max))
        .max_frame_size(Some(options.message_bytes_max));
    match tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(response)) => {
            let retry_after = crate::http_client::retry_after(response.headers());
            let status = response.status().as_u16();
            let next = backoff::after_status(status, retry_after, &options.timers);
            let why = format!("the upgrade was answered {status}");
            Err(match (status, next) {
                (401 | 403 | 410, next) => Ended::Next { next, why },
                (429 | 503, Next::Retry { least }) => Ended::Way {
                    least,
                    shared: true,
                    why,
                },
                (_, next) => Ended::Next { next, why }.before_welcome(),
            })
        }
        Err(error) => Err(failed(&error, options).before_welcome()),
    }
}

/// Says hello and waits for the welcome.
async fn greet(
    socket: &mut Socket,
    options: &Options,
    token: &Secret,
    cursor: Option<&str>,
    state: AppState,
) -> Result<Welcome, Ended> {
    let hello = Outgoing::Hello {
        v: 1,
        auth: wire::Auth {
            token: token.expose(),
        },
        cursor,
        inflight: options.inflight.clamp(1, 256),
        state,
    };
    let Some(frame) = wire::encode(options.codec, &hello) else {
        return Err(Ended::Stop(Stop::NotUnderstood(
            "hello cannot be encoded".to_owned(),
        )));
    };
    let broken = |e: tungstenite::Error| failed(&e, options).before_welcome();
    socket.send(frame).await.map_err(broken)?;
    loop {
        let incoming = match socket.next().await {
            None => return Err(Ended::way("the connection ended before the welcome")),
            Some(Err(e)) => return Err(broken(e)),
            Some(Ok(Frame::Text(text))) => wire::decode_text(&text),
            Some(Ok(Frame::Binary(bytes))) => wire::decode_binary(&bytes),
            Some(Ok(Frame::Close(frame))) => return Err(closed(frame, None, options)),
            Some(Ok(_)) => continue,
        };
        match incoming {
            Ok(Incoming::Welcome(welcome)) => return Ok(welcome),
            Ok(Incoming::Error { code, msg, .. }) => {
                tracing::debug!(code, msg, "the gateway refuses the hello");
            }
            // Nothing else is legal before the welcome, and a later protocol's messages do not matter.
            Ok(_) => {}
            Err(error) => tracing::debug!(error, "unreadable message before the welcome"),
        }
    }
}

/// What a received close means.
pub(crate) fn closed(frame: Option<CloseFrame>, told: Option<String>, options: &Options) -> Ended {
    let code = frame.as_ref().map(|f| u16::from(f.code));
    let reason = frame
        .map(|f| f.reason.to_string())
        .filter(|r| !r.is_empty())
        .or(told);
    let why = match (code, reason) {
        (Some(code), Some(reason)) => format!("closed with {code}: {reason}"),
        (Some(code), None) => format!("closed with {code}"),
        (None, _) => "closed without a code".to_owned(),
    };
    Ended::Next {
        next: backoff::after_close(code, &options.timers),
        why,
    }
}

/// What a failure of the socket means.
pub(crate) fn failed(error: &tungstenite::Error, options: &Options) -> Ended {
    use tungstenite::Error as E;
    use tungstenite::error::ProtocolError as P;
    let least = match error {
        E::Protocol(P::ResetWithoutClosingHandshake | P::HandshakeIncomplete) => Duration::ZERO,
        E::Protocol(_) | E::Capacity(_) | E::Utf8(_) | E::AttackAttempt => {
            options.timers.framing_min
        }
        _ => Duration::ZERO,
    };
    Ended::Next {
        next: Next::Retry { least },
        why: error.to_string(),
    }
}
