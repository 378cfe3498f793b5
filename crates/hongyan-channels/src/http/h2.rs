//! Multiplexed HTTP/2 connections to one origin.
//!
//! A call goes to the connection with the most room. The peer's `SETTINGS_MAX_CONCURRENT_STREAMS` is obeyed as it
//! changes (APNs starts with 1); a further connection is opened only when all are full and have proven themselves with
//! an answer, or gave none for a while. Calls that a GOAWAY or a refused stream left unprocessed are repeated on another connection.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::client::{Builder, SendRequest};
use h2::{Ping, PingPong, RecvStream};
use hongyan_core::verdict::Unsure;
use http::Request;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use super::h1::Progress;
use super::{ANSWER_BYTES_MAX, Answer, Call, FRESH_TRIES_MAX};
use crate::egress::{CallError, Egress, Origin};

/// Connections of one pool.
const CONNECTIONS_MAX: usize = 4;
/// Streams on one connection, whatever the peer allows: keeps the queue inside the connection short.
const STREAMS_MAX: usize = 1_000;
/// How often a connection with open requests is asked for a sign of life.
const PING_EVERY: Duration = Duration::from_secs(30);
/// An idle connection is asked once in this many rounds.
const IDLE_ROUNDS: u32 = 20;
/// How long the answer to a ping may take.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed attempt to open a further connection while others work.
const DIAL_PAUSE: Duration = Duration::from_secs(5);

/// A further connection is opened beside one that gave no answer for this long.
const UNPROVEN_MAX: Duration = Duration::from_secs(2);
/// How often those who wait look for room that new SETTINGS made, of which nothing tells them.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Connections to one origin with one identity.
pub struct Pool {
    egress: Egress,
    origin: Origin,
    authority: Option<Authority>,
    tls: Arc<ClientConfig>,
    state: Mutex<State>,
    freed: Arc<Notify>,
    dialing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    connections: Vec<Arc<Connection>>,
    dial_failures: u64,
    dial_error: Option<CallError>,
    dial_again_at: Option<Instant>,
}

struct Connection {
    sender: SendRequest<Bytes>,
    health: Arc<Health>,
    opened_at: Instant,
}

/// What a connection's driver and its users tell each other; holds no handle, so it keeps nothing open.
#[derive(Debug, Default)]
struct Health {
    in_flight: AtomicUsize,
    proven: AtomicBool,
    retired: AtomicBool,
}

impl Health {
    /// Notes an error of a call: a reset ends one stream, anything else the connection.
    fn ended(&self, error: &h2::Error) {
        if !error.is_reset() {
            self.retired.store(true, Ordering::Relaxed);
        }
    }
}

/// A connection that a call was made on, to retire it when the vendor says that it is going away.
#[derive(Clone)]
pub struct Route(Arc<Health>);

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Route")
    }
}

impl Route {
    /// Lets calls under way end and sends no more this way.
    pub fn retire(&self) {
        self.0.retired.store(true, Ordering::Relaxed);
    }
}

/// A place on a connection; given back when dropped.
struct Lease {
    connection: Arc<Connection>,
    freed: Arc<Notify>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let health = &self.connection.health;
        health.in_flight.fetch_sub(1, Ordering::Relaxed);
        if self.connection.room() > 1 {
            self.freed.notify_waiters();
        }
        self.freed.notify_one();
    }
}

impl Connection {
    /// Whether it is known to work, or to be slow.
    fn settled(&self) -> bool {
        self.health.proven.load(Ordering::Relaxed) || self.opened_at.elapsed() > UNPROVEN_MAX
    }

    fn room(&self) -> usize {
        self.sender
            .current_max_send_streams()
            .min(STREAMS_MAX)
            .saturating_sub(self.health.in_flight.load(Ordering::Relaxed))
    }
}

enum Pick {
    Use(Lease),
    Dial { failures_seen: u64 },
    Wait,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("h2::Pool")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

impl Pool {
    /// A pool without connections; they are opened when needed, with these TLS settings.
    pub(crate) fn new(egress: &Egress, origin: Origin, tls: Arc<ClientConfig>) -> Self {
        Self {
            egress: egress.clone(),
            authority: origin.authority().parse().ok(),
            origin,
            tls,
            state: Mutex::default(),
            freed: Arc::new(Notify::new()),
            dialing: tokio::sync::Mutex::new(()),
        }
    }

    /// Makes a call on a stream of its own. Dropping the future resets the stream.
    ///
    /// # Errors
    /// [`CallError`]; a call that certainly had no effect was already repeated on another connection.
    pub async fn call(&self, call: &Call, deadline: Instant) -> Result<(Answer, Route), CallError> {
        let progress = Progress::default();
        tokio::time::timeout_at(deadline, self.call_unbounded(call, &progress))
            .await
            .unwrap_or_else(|_| Err(progress.timed_out(&self.origin)))
    }

    async fn call_unbounded(
        &self,
        call: &Call,
        progress: &Progress,
    ) -> Result<(Answer, Route), CallError> {
        let mut tries = 0;
        loop {
            let lease = self.acquire().await?;
            tries += 1;
            match self.exchange(&lease, call, progress).await {
                Ok(answer) => {
                    let health = &lease.connection.health;
                    health.proven.store(true, Ordering::Relaxed);
                    return Ok((answer, Route(health.clone())));
                }
                Err(error) if error.certainty() == Unsure::NotTaken => {
                    progress.not_sent();
                    if tries >= FRESH_TRIES_MAX {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn exchange(
        &self,
        lease: &Lease,
        call: &Call,
        progress: &Progress,
    ) -> Result<Answer, CallError> {
        let mut sender = lease.connection.sender.clone();
        let empty = call.body.is_empty();
        let (response, mut stream) =
            sender
                .send_request(self.request(call)?, empty)
                .map_err(|e| {
                    lease.connection.health.ended(&e);
                    self.broken(&e, Unsure::NotTaken)
                })?;
        progress.sent();
        if !empty {
            stream
                .send_data(call.body.clone(), true)
                .map_err(|e| self.broken(&e, certainty(&e)))?;
        }
        let response = response.await.map_err(|e| {
            lease.connection.health.ended(&e);
            self.broken(&e, certainty(&e))
        })?;
        let (head, body) = response.into_parts();
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: self.collect(body).await?,
        })
    }

    fn request(&self, call: &Call) -> Result<Request<()>, CallError> {
        let invalid = || CallError::Unreachable {
            host: self.origin.host().to_owned(),
            problem: "the path or host name is not valid".to_owned(),
        };
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTPS);
        parts.authority = Some(self.authority.clone().ok_or_else(invalid)?);
        parts.path_and_query =
            Some(PathAndQuery::try_from(call.path.as_str()).map_err(|_| invalid())?);
        let mut request = Request::new(());
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| invalid())?;
        *request.headers_mut() = call.headers.clone();
        Ok(request)
    }

    async fn collect(&self, mut body: RecvStream) -> Result<Bytes, CallError> {
        let mut whole = BytesMut::new();
        while let Some(piece) = body.data().await {
            // A call whose answer had begun was processed.
            let piece = piece.map_err(|e| self.broken(&e, Unsure::MaybeTaken))?;
            if whole.len() + piece.len() > ANSWER_BYTES_MAX {
                return Err(CallError::TooLarge {
                    host: self.origin.host().to_owned(),
                    bytes_max: ANSWER_BYTES_MAX,
                });
            }
            whole.extend_from_slice(&piece);
            body.flow_control()
                .release_capacity(piece.len())
                .map_err(|e| self.broken(&e, Unsure::MaybeTaken))?;
        }
        Ok(whole.freeze())
    }

    fn broken(&self, error: &h2::Error, certainty: Unsure) -> CallError {
        CallError::Broken {
            host: self.origin.host().to_owned(),
            problem: error.to_string(),
            certainty,
        }
    }

    async fn acquire(&self) -> Result<Lease, CallError> {
        loop {
            // Registered before looking, so that a place freed in between is noticed.
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            match self.pick() {
                Pick::Use(lease) => return Ok(lease),
                Pick::Wait => {
                    let _ = tokio::time::timeout(LOOK_EVERY, freed).await;
                }
                Pick::Dial { failures_seen } => {
                    tokio::select! {
                        _guard = self.dialing.lock() => match self.pick() {
                            Pick::Use(lease) => return Ok(lease),
                            Pick::Wait => {}
                            Pick::Dial { failures_seen: now } if now != failures_seen => {
                                // Whoever dialled while we waited failed; its error is ours.
                                if let Some(error) = self.dial_error() {
                                    return Err(error);
                                }
                            }
                            Pick::Dial { .. } => self.dial().await?,
                        },
                        () = freed => {}
                    }
                }
            }
        }
    }

    fn pick(&self) -> Pick {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state
            .connections
            .retain(|c| !c.health.retired.load(Ordering::Relaxed));
        let best = state
            .connections
            .iter()
            .map(|c| (c.room(), c))
            .max_by_key(|(room, _)| *room);
        let all_settled = state.connections.iter().all(|c| c.settled());
        match best {
            Some((room, connection)) if room > 0 => {
                connection.health.in_flight.fetch_add(1, Ordering::Relaxed);
                Pick::Use(Lease {
                    connection: connection.clone(),
                    freed: self.freed.clone(),
                })
            }
            None => Pick::Dial {
                failures_seen: state.dial_failures,
            },
            Some(_)
                if all_settled
                    && state.connections.len() < CONNECTIONS_MAX
                    && state.dial_again_at.is_none_or(|at| Instant::now() >= at) =>
            {
                Pick::Dial {
                    failures_seen: state.dial_failures,
                }
            }
            Some(_) => Pick::Wait,
        }
    }

    fn dial_error(&self) -> Option<CallError> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.connections.is_empty() {
            state.dial_error.clone()
        } else {
            None
        }
    }

    /// Opens a connection. An error is returned only when there is no other connection to wait for.
    async fn dial(&self) -> Result<(), CallError> {
        let opened = self.open().await;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = match opened {
            Ok(connection) => {
                state.connections.push(Arc::new(connection));
                state.dial_again_at = None;
                Ok(())
            }
            Err(error) => {
                state.dial_failures += 1;
                state.dial_error = Some(error.clone());
                state.dial_again_at = Some(Instant::now() + DIAL_PAUSE);
                if state.connections.is_empty() {
                    Err(error)
                } else {
                    Ok(())
                }
            }
        };
        drop(state);
        self.freed.notify_waiters();
        result
    }

    async fn open(&self) -> Result<Connection, CallError> {
        let unreachable = |problem: String| CallError::Unreachable {
            host: self.origin.host().to_owned(),
            problem,
        };
        let stream = self.egress.connect(&self.origin, self.tls.clone()).await?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(unreachable("it does not speak HTTP/2".to_owned()));
        }
        let (sender, connection) = Builder::new()
            .initial_max_send_streams(1)
            .initial_window_size(64 * 1024)
            .initial_connection_window_size(1024 * 1024)
            .max_concurrent_streams(0)
            .enable_push(false)
            .max_header_list_size(16 * 1024)
            .handshake::<_, Bytes>(stream)
            .await
            .map_err(|e| unreachable(format!("the HTTP/2 handshake failed: {e}")))?;
        let health = Arc::new(Health::default());
        // The task ends with the connection, which ends when the pool and all calls have let go of it.
        tokio::spawn(drive(connection, health.clone(), self.freed.clone()));
        Ok(Connection {
            sender,
            health,
            opened_at: Instant::now(),
        })
    }
}

/// Whether the vendor may have processed a stream that ended with this error.
///
/// A GOAWAY reaches only streams above its last processed id as an error; those below end with their answers or with
/// the connection (RFC 9113 section 6.8). REFUSED_STREAM says the same for one stream (section 8.7).
fn certainty(error: &h2::Error) -> Unsure {
    let unprocessed = error.is_remote()
        && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM));
    if unprocessed {
        Unsure::NotTaken
    } else {
        Unsure::MaybeTaken
    }
}

async fn drive(
    mut connection: h2::client::Connection<TlsStream<TcpStream>, Bytes>,
    health: Arc<Health>,
    freed: Arc<Notify>,
) {
    let pings = connection.ping_pong();
    tokio::select! {
        ended = connection => {
            if let Err(error) = ended {
                tracing::debug!(%error, "an HTTP/2 connection ended");
            }
        }
        () = watch(pings, &health) => tracing::debug!("an HTTP/2 connection gave no sign of life"),
    }
    health.retired.store(true, Ordering::Relaxed);
    freed.notify_waiters();
}

/// Returns when a ping stays unanswered.
async fn watch(pings: Option<PingPong>, health: &Health) {
    let Some(mut pings) = pings else {
        return std::future::pending().await;
    };
    let mut idle_rounds = 0;
    loop {
        tokio::time::sleep(PING_EVERY).await;
        if health.in_flight.load(Ordering::Relaxed) == 0 {
            idle_rounds += 1;
            if idle_rounds < IDLE_ROUNDS {
                continue;
            }
        }
        idle_rounds = 0;
        let answered = tokio::time::timeout(PING_TIMEOUT, pings.ping(Ping::opaque())).await;
        if !matches!(answered, Ok(Ok(_))) {
            return;
        }
    }
}
