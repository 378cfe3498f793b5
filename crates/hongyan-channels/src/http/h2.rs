//! Multiplexed HTTP/2 connections to one origin.
//!
//! A call goes to the connection with the most room. The peer's `SETTINGS_MAX_CONCURRENT_STREAMS` is obeyed as it
//! changes (APNs starts with 1); a further connection is opened only when all are full and have proven themselves with
//! an answer, or gave none for a while. Calls that a GOAWAY or a refused stream left unprocessed are repeated on another connection.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hongyan_core::verdict::Unsure;
use rustls::ClientConfig;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::h1::Progress;
use super::library::Library;
use super::wire::Wire;
use super::{Answer, Ask, FRESH_TRIES_MAX};
use crate::egress::{CallError, Egress, Http2, Origin};

/// Connections of one pool.
const CONNECTIONS_MAX: usize = 4;
/// Streams on one connection, whatever the peer allows: keeps the queue inside the connection short.
const STREAMS_MAX: usize = 1_000;
/// How often a connection with open requests is asked for a sign of life.
pub(super) const PING_EVERY: Duration = Duration::from_secs(30);
/// An idle connection is asked once in this many rounds.
pub(super) const IDLE_ROUNDS: u32 = 20;
/// How long the answer to a ping may take.
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(10);
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
    sender: Sender,
    health: Arc<Health>,
    opened_at: Instant,
}

enum Sender {
    Wire(Wire),
    Library(Library),
}

/// What a connection's driver and its users tell each other; holds no handle, so it keeps nothing open.
#[derive(Debug, Default)]
pub(super) struct Health {
    in_flight: AtomicUsize,
    proven: AtomicBool,
    pub(super) retired: AtomicBool,
}

impl Health {
    /// Calls under way.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
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
        let allowed = match &self.sender {
            Sender::Wire(wire) => wire.streams_max(),
            Sender::Library(library) => library.streams_max(),
        };
        allowed
            .min(STREAMS_MAX)
            .saturating_sub(self.health.in_flight())
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
    pub async fn call(&self, call: &Ask, deadline: Instant) -> Result<(Answer, Route), CallError> {
        let progress = Progress::default();
        tokio::time::timeout_at(deadline, self.call_unbounded(call, &progress))
            .await
            .unwrap_or_else(|_| Err(progress.timed_out(&self.origin)))
    }

    async fn call_unbounded(
        &self,
        call: &Ask,
        progress: &Progress,
    ) -> Result<(Answer, Route), CallError> {
        let mut tries = 0;
        loop {
            let lease = match self.pick() {
                Pick::Use(lease) => lease,
                // Rare and large, so it is not part of every call's future.
                _ => Box::pin(self.acquire()).await?,
            };
            tries += 1;
            let health = &lease.connection.health;
            let result = match &lease.connection.sender {
                Sender::Wire(wire) => wire.call(&self.origin, call, progress).await,
                Sender::Library(library) => {
                    Box::pin(library.call(&self.origin, call, health, progress)).await
                }
            };
            match result {
                Ok(answer) => {
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
        let stream = self.egress.connect(&self.origin, self.tls.clone()).await?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(CallError::Unreachable {
                host: self.origin.host().to_owned(),
                problem: "it does not speak HTTP/2".to_owned(),
            });
        }
        let health = Arc::new(Health::default());
        let sender = match self.egress.http2() {
            Http2::Own => Sender::Wire(Wire::open(stream, &self.origin, &health, &self.freed)),
            Http2::Library => {
                Sender::Library(Library::open(stream, &self.origin, &health, &self.freed).await?)
            }
        };
        Ok(Connection {
            sender,
            health,
            opened_at: Instant::now(),
        })
    }
}

/// The path cannot be put into a request.
pub(super) fn bad_path(origin: &Origin) -> CallError {
    CallError::Unreachable {
        host: origin.host().to_owned(),
        problem: "the path is not valid".to_owned(),
    }
}
