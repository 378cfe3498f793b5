//! The driver of one device: connects, says hello, lets `live.rs` serve the connection, decides what
//! comes next.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message as Frame};

use crate::backoff::{self, Backoff, Next};
use crate::client::{Command, Event, Stats, Status, Stop, TopicChange};
use crate::error::Error;
use crate::live::Live;
use crate::net::{self, BoxStream};
use crate::options::{Options, TokenNeed, TokenSource};
use crate::secret::Secret;
use crate::storage::Record;
use crate::tracker::Tracker;
use crate::wire::{self, AppState, Incoming, NackCode, Outgoing, Welcome};

/// Read buffer of a connection, in bytes: small, for programs that hold very many.
const READ_BUFFER_BYTES: usize = 4096;
/// Write buffer of a connection, in bytes; the gateway accepts messages of 64 KiB.
const WRITE_BUFFER_BYTES_MAX: usize = 128 * 1024;
/// Topic changes that may await their turn; one is on the wire at a time.
const TOPICS_MAX: usize = 256;

pub(crate) type Socket = WebSocketStream<BoxStream>;

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// For good.
    Stop(Stop),
    /// Reconnect after this wait, which is not an attempt: drains and own decisions.
    After(Duration),
    /// As the table of [`backoff`] says.
    Next { next: Next, why: String },
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
    pub(crate) overflow: VecDeque<Event>,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) tracker: Tracker,
    pub(crate) backoff: Backoff,
    pub(crate) state: AppState,
    pub(crate) topics: VecDeque<Topic>,
    pub(crate) resynced_at: Option<Instant>,
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
            overflow: VecDeque::new(),
            status,
            stats,
            tracker: Tracker::new(Record::default(), options.seen_max, options.events_max),
            backoff: Backoff::new(&options.timers, options.seed),
            state: options.state,
            topics: VecDeque::new(),
            resynced_at: None,
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
            };
            tracing::debug!(?wait, why, "connection ended");
            self.status.send_replace(Status::Waiting { wait, why });
            if let Err(stop) = self.meanwhile(tokio::time::sleep(wait), OnWake::Ends).await {
                break stop;
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
            let command = tokio::select! {
                command = self.commands.recv() => command,
                permit = self.outlet.reserve(), if !self.overflow.is_empty() => {
                    let Ok(permit) = permit else { return Err(Stop::Closed) };
                    if let Some(event) = self.overflow.pop_front() {
                        permit.send(event);
                    }
                    continue;
                }
                () = self.outlet.closed() => return Err(Stop::Closed),
                out = &mut future => return Ok(Some(out)),
            };
            match command {
                None | Some(Command::Close | Command::Kill) => return Err(Stop::Closed),
                Some(Command::Wake) if on_wake == OnWake::Ends => return Ok(None),
                Some(command) => {
                    self.offline(command);
                    // Entries of the last connection still move the cursor.
                    self.tracker.acks();
                    self.save().await;
                }
            }
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
        let opening = timeout(options.timers.connect, upgrade(&options));
        let mut socket = match self.meanwhile(opening, OnWake::Ignored).await {
            Err(stop) => return Ended::Stop(stop),
            Ok(Some(Ok(Ok(socket)))) => socket,
            Ok(Some(Ok(Err(ended)))) => return ended,
            Ok(Some(Err(_)) | None) => {
                return Ended::broken(format!("no connection within {:?}", options.timers.connect));
            }
        };
        let cursor = self.tracker.cursor().map(str::to_owned);
        let greeting = greet(&mut socket, &options, &token, cursor.as_deref(), self.state);
        let greeting = timeout(options.timers.welcome, greeting);
        let welcome = match self.meanwhile(greeting, OnWake::Ignored).await {
            Err(stop) => return Ended::Stop(stop),
            Ok(Some(Ok(Ok(welcome)))) => welcome,
            Ok(Some(Ok(Err(ended)))) => return ended,
            Ok(Some(Err(_)) | None) => {
                return Ended::broken(format!("no welcome within {:?}", options.timers.welcome));
            }
        };
        self.need = TokenNeed::Connect;
        self.stats.connections.fetch_add(1, Ordering::Relaxed);
        self.tracker.connection_started();
        let session = match &welcome.session {
            serde_json::Value::String(name) => name.clone(),
            other => other.to_string(),
        };
        let full = welcome.replay.as_deref() == Some("full");
        self.status
            .send_replace(Status::Replaying { session, full });
        let started = Instant::now();
        let mut live = Live::new(self, socket, &welcome);
        let ended = live.serve().await;
        live.abandon();
        if started.elapsed() >= options.timers.live_reset {
            self.backoff.reset();
        }
        ended
    }
}

/// Opens the connection and asks for the upgrade.
async fn upgrade(options: &Options) -> Result<Socket, Ended> {
    let stream = net::open(&options.base, &options.tls, &*options.connector)
        .await
        .map_err(|e| Ended::broken(format!("cannot reach {}: {e}", options.base)))?;
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
            Err(Ended::Next {
                next,
                why: format!("the upgrade was answered {status}"),
            })
        }
        Err(error) => Err(failed(&error, options)),
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
    socket.send(frame).await.map_err(|e| failed(&e, options))?;
    loop {
        let incoming = match socket.next().await {
            None => return Err(Ended::broken("the connection ended before the welcome")),
            Some(Err(e)) => return Err(failed(&e, options)),
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
