//! Pooled HTTP/1.1 connections to one origin.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hongyan_core::verdict::Unsure;
use http::header::HOST;
use http::{HeaderValue, Request};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{ANSWER_BYTES_MAX, Answer, Call, FRESH_TRIES_MAX};
use crate::egress::{CallError, Egress, Origin, Protocol};

/// Connections of one pool: more requests at once wait.
const CONNECTIONS_MAX: usize = 64;
/// A connection that was idle for longer is not used again: the other side may be closing it.
const IDLE_MAX: Duration = Duration::from_secs(20);

/// How long a connection may take to be ready again after an answer; normally it is so at once.
const SETTLE_MAX: Duration = Duration::from_millis(50);

/// Keep-alive connections to one origin.
pub struct Pool {
    egress: Egress,
    origin: Origin,
    tls: Arc<ClientConfig>,
    idle: Mutex<Vec<Idle>>,
    permits: Semaphore,
}

struct Idle {
    sender: Sender,
    since: Instant,
}

type Sender = SendRequest<Full<Bytes>>;

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("h1::Pool")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

impl Pool {
    /// A pool without connections; they are opened when needed.
    #[must_use]
    pub fn new(egress: &Egress, origin: Origin) -> Self {
        Self {
            tls: egress.tls(Protocol::Http1),
            egress: egress.clone(),
            origin,
            idle: Mutex::new(Vec::new()),
            permits: Semaphore::new(CONNECTIONS_MAX),
        }
    }

    /// Makes a call. Dropping the future closes the connection that it used.
    ///
    /// # Errors
    /// [`CallError`]; a call that certainly had no effect was already repeated on a fresh connection.
    pub async fn call(&self, call: &Call, deadline: Instant) -> Result<Answer, CallError> {
        let progress = Progress::default();
        tokio::time::timeout_at(deadline, self.call_unbounded(call, &progress))
            .await
            .unwrap_or_else(|_| Err(progress.timed_out(&self.origin)))
    }

    async fn call_unbounded(&self, call: &Call, progress: &Progress) -> Result<Answer, CallError> {
        let Ok(_permit) = self.permits.acquire().await else {
            return Err(CallError::Unreachable {
                host: self.origin.host().to_owned(),
                problem: "the pool is closed".to_owned(),
            });
        };
        let mut tries = 0;
        loop {
            let mut sender = match self.take_idle() {
                Some(sender) => sender,
                None => open(&self.egress, &self.origin, self.tls.clone()).await?,
            };
            tries += 1;
            match exchange(&mut sender, &self.origin, call, ANSWER_BYTES_MAX, progress).await {
                Ok(answer) => {
                    self.give_back(sender).await;
                    return Ok(answer);
                }
                Err(error) if error.certainty() == Unsure::NotTaken && tries < FRESH_TRIES_MAX => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn take_idle(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|i| i.since.elapsed() < IDLE_MAX && !i.sender.is_closed());
        let place = idle.iter().rposition(|i| i.sender.is_ready())?;
        Some(idle.swap_remove(place).sender)
    }

    /// Keeps a connection for the next call, once it has put the last one behind it.
    async fn give_back(&self, mut sender: Sender) {
        let settled = tokio::time::timeout(SETTLE_MAX, sender.ready()).await;
        if !matches!(settled, Ok(Ok(()))) {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < CONNECTIONS_MAX {
            idle.push(Idle {
                sender,
                since: Instant::now(),
            });
        }
    }
}

/// Makes one call on a connection of its own.
pub(crate) async fn once(
    egress: &Egress,
    origin: &Origin,
    call: &Call,
    bytes_max: usize,
    deadline: Instant,
) -> Result<Answer, CallError> {
    let progress = Progress::default();
    let work = async {
        let mut sender = open(egress, origin, egress.tls(Protocol::Http1)).await?;
        exchange(&mut sender, origin, call, bytes_max, &progress).await
    };
    tokio::time::timeout_at(deadline, work)
        .await
        .unwrap_or_else(|_| Err(progress.timed_out(origin)))
}

/// Whether the request has left, for the words of a time-out.
#[derive(Debug, Default)]
pub(super) struct Progress(std::sync::atomic::AtomicBool);

impl Progress {
    pub(super) fn sent(&self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    pub(super) fn not_sent(&self) {
        self.0.store(false, std::sync::atomic::Ordering::Relaxed);
    }

    pub(super) fn timed_out(&self, origin: &Origin) -> CallError {
        CallError::TimedOut {
            host: origin.host().to_owned(),
            certainty: if self.0.load(std::sync::atomic::Ordering::Relaxed) {
                Unsure::MaybeTaken
            } else {
                Unsure::NotTaken
            },
        }
    }
}

async fn open(
    egress: &Egress,
    origin: &Origin,
    tls: Arc<ClientConfig>,
) -> Result<Sender, CallError> {
    let stream = egress.connect(origin, tls).await?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| CallError::Unreachable {
            host: origin.host().to_owned(),
            problem: e.to_string(),
        })?;
    // The task ends with the connection, which ends when its sender is dropped.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an HTTP/1.1 connection ended");
        }
    });
    Ok(sender)
}

async fn exchange(
    sender: &mut Sender,
    origin: &Origin,
    call: &Call,
    bytes_max: usize,
    progress: &Progress,
) -> Result<Answer, CallError> {
    let host = || origin.host().to_owned();
    let mut request = Request::new(Full::new(call.body.clone()));
    *request.method_mut() = call.method.clone();
    *request.uri_mut() = call.path.parse().map_err(|_| CallError::Unreachable {
        host: host(),
        problem: "the path is not valid".to_owned(),
    })?;
    *request.headers_mut() = call.headers.clone();
    let name = HeaderValue::from_str(&origin.authority()).map_err(|_| CallError::Unreachable {
        host: host(),
        problem: "the host name is not valid".to_owned(),
    })?;
    request.headers_mut().insert(HOST, name);
    progress.sent();
    let response = match sender.try_send_request(request).await {
        Ok(response) => response,
        Err(mut error) => {
            let certainty = match error.take_message() {
                Some(_) => Unsure::NotTaken,
                None => Unsure::MaybeTaken,
            };
            if certainty == Unsure::NotTaken {
                progress.not_sent();
            }
            return Err(CallError::Broken {
                host: host(),
                problem: error.into_error().to_string(),
                certainty,
            });
        }
    };
    let (head, body) = response.into_parts();
    let body = Limited::new(body, bytes_max)
        .collect()
        .await
        .map_err(|error| {
            if error.downcast_ref::<LengthLimitError>().is_some() {
                CallError::TooLarge {
                    host: host(),
                    bytes_max,
                }
            } else {
                CallError::Broken {
                    host: host(),
                    problem: format!("the answer is incomplete: {error}"),
                    certainty: Unsure::MaybeTaken,
                }
            }
        })?
        .to_bytes();
    Ok(Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body,
    })
}
