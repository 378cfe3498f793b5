//! How a device's client behaves.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::{BoxError, Error};
use crate::net::{Base, Connect, TcpConnector, Tls};
use crate::secret::Secret;
use crate::storage::Storage;
use crate::transport::Transport;

/// The encoding of messages on the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Codec {
    /// Text messages, subprotocol `hongyan.v1+json`.
    #[default]
    Json,
    /// Binary messages, subprotocol `hongyan.v1+cbor`: smaller when messages carry raw bytes.
    Cbor,
}

impl Codec {
    /// The WebSocket subprotocol.
    #[must_use]
    pub fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "hongyan.v1+json",
            Self::Cbor => "hongyan.v1+cbor",
        }
    }
}

/// When a message counts as taken, and so is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AckMode {
    /// When `Inbox::recv` has returned it.
    #[default]
    OnReceive,
    /// When the app calls `Client::ack`. What the app never acks comes again on the next start.
    Manual,
    /// Never: for load generators and tests of the platform's answer to silent devices.
    Never,
}

/// Why a device token is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenNeed {
    /// A connection is about to be made; the last known token will do.
    Connect,
    /// The last token was refused or is about to expire.
    Renew,
    /// The device is not known any more and has to be registered again.
    Register,
}

/// Gives the device token that `hello` carries.
#[async_trait]
pub trait TokenSource: Send + Sync + 'static {
    /// Gives a token, or says why there is none, which stops the client for `Renew` and `Register`
    /// and is retried with back-off for `Connect`.
    async fn token(&self, need: TokenNeed) -> Result<Secret, BoxError>;
}

/// One token that cannot be renewed.
#[derive(Debug, Clone)]
pub struct FixedToken(Secret);

impl FixedToken {
    /// Takes the token over.
    pub fn new(token: impl Into<Secret>) -> Arc<Self> {
        Arc::new(Self(token.into()))
    }
}

#[async_trait]
impl TokenSource for FixedToken {
    async fn token(&self, need: TokenNeed) -> Result<Secret, BoxError> {
        match need {
            TokenNeed::Connect => Ok(self.0.clone()),
            TokenNeed::Renew => Err("the device token was refused and cannot be renewed".into()),
            TokenNeed::Register => Err("the device was deleted; register it again".into()),
        }
    }
}

/// Waits of the connection (websocket.md section 4). Tests shorten them.
#[derive(Debug, Clone)]
pub struct Timers {
    /// To reach the server, including TLS and the upgrade. Default 10 s.
    pub connect: Duration,
    /// From `hello` to `welcome`. Default 10 s.
    pub welcome: Duration,
    /// First ceiling of the random wait before a reconnect; it doubles. Default 1 s.
    pub backoff_base: Duration,
    /// Highest ceiling of the random wait. Default 60 s.
    pub backoff_max: Duration,
    /// A connection that lived so long resets the back-off. Default 60 s.
    pub live_reset: Duration,
    /// Least wait after 4429. Default 30 s.
    pub rate_limited_min: Duration,
    /// Least wait after a framing error or a refused upgrade. Default 60 s.
    pub framing_min: Duration,
    /// How long taken messages are collected into one ack. Default 50 ms.
    pub ack_delay: Duration,
    /// How long an unexplained head may stand before it counts as a lost tail. Default 5 s.
    pub tail_check: Duration,
    /// Least time between two reconnects that look for a lost tail. Default 5 min.
    pub tail_resync_min: Duration,
    /// How long the server's close is awaited after `bye`. Default 3 s.
    pub close: Duration,
    /// How long a transport that is not the best one is used until a better one is tried; it doubles with each try that
    /// fails. Default 5 min.
    pub climb: Duration,
    /// The longest that doubling makes of it. Default 1 h.
    pub climb_max: Duration,
    /// How long a poll waits at the server, whole seconds up to 60. Default 25 s.
    pub poll_wait: Duration,
    /// Without a WebSocket: least wait before what the app has not taken, or gave back, is asked for again. Default 5 s.
    pub poll_pause: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            welcome: Duration::from_secs(10),
            backoff_base: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
            live_reset: Duration::from_secs(60),
            rate_limited_min: Duration::from_secs(30),
            framing_min: Duration::from_secs(60),
            ack_delay: Duration::from_millis(50),
            tail_check: Duration::from_secs(5),
            tail_resync_min: Duration::from_secs(300),
            close: Duration::from_secs(3),
            climb: Duration::from_secs(300),
            climb_max: Duration::from_secs(3600),
            poll_wait: Duration::from_secs(25),
            poll_pause: Duration::from_secs(5),
        }
    }
}

/// Everything that may be chosen about a [`crate::Client`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the server is.
    pub base: Base,
    /// The ways to the gateway, the best first; default all. When one does not come through twice in a row, as behind a
    /// proxy that knows no upgrades, the next one is tried, and a better one again later ([`Timers::climb`]) and at each
    /// reconnect. None stands for all.
    pub transports: Vec<Transport>,
    /// Encoding on the wire of a WebSocket; the other transports speak JSON.
    pub codec: Codec,
    /// When messages count as taken.
    pub ack: AckMode,
    /// How many unacknowledged messages the gateway may send, 1 to 256. Default 32.
    pub inflight: u16,
    /// Whether the app is in the foreground at the start.
    pub state: crate::wire::AppState,
    /// Longest message that is accepted from the gateway, in bytes. Default 256 KiB.
    pub message_bytes_max: usize,
    /// How many message ids are remembered against duplicates. Default 1,024.
    pub seen_max: usize,
    /// How many client events wait for a connection; the oldest is dropped first. Default 256.
    pub events_max: usize,
    /// Waits.
    pub timers: Timers,
    /// What is trusted for `https` and `wss`.
    pub tls: Tls,
    /// Where cursor, seen ids and waiting events survive the process; nowhere by default.
    pub storage: Option<Arc<dyn Storage>>,
    /// How connections are made.
    pub connector: Arc<dyn Connect>,
    /// Seed of the jitter; random by default.
    pub seed: Option<u64>,
}

impl Options {
    /// Defaults for the server at `base`, such as `https://push.example.org`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `base` is not an `http`, `https`, `ws` or `wss` URL.
    pub fn new(base: &str) -> Result<Self, Error> {
        Ok(Self {
            base: Base::parse(base)?,
            transports: Transport::ALL.to_vec(),
            codec: Codec::Json,
            ack: AckMode::OnReceive,
            inflight: 32,
            state: crate::wire::AppState::Foreground,
            message_bytes_max: 256 * 1024,
            seen_max: 1024,
            events_max: 256,
            timers: Timers::default(),
            tls: Tls::default(),
            storage: None,
            connector: Arc::new(TcpConnector),
            seed: None,
        })
    }
}
