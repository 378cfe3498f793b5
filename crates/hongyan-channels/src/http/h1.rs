//! Pooled HTTP/1.1 connections to one origin (RFC 9112).
//!
//! Who calls moves the bytes of its connection itself: one write with the whole request, reads until the answer is whole, and no task in
//! between. What is sent is made here alone; what comes is parsed by `httparse` and [`body`].

mod body;

use std::fmt;
use std::io::Write as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hongyan_core::verdict::Unsure;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use rustls::ClientConfig;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use self::body::{Body, Wrong};
use super::{ANSWER_BYTES_MAX, Answer, Call, FRESH_TRIES_MAX};
use crate::egress::{CallError, Egress, Origin, Protocol};

/// Connections of one pool: more requests at once wait.
const CONNECTIONS_MAX: usize = 64;
/// A connection that was idle for longer is not used again: the other side may be closing it.
const IDLE_MAX: Duration = Duration::from_secs(20);
/// Longest head of an answer, bytes, and most fields in it.
const HEAD_BYTES_MAX: usize = 64 * 1024;
const FIELDS_MAX: usize = 100;
/// Interim answers before the answer.
const INTERIM_MAX: usize = 8;
/// Room for an answer before it has to be enlarged, and what a connection keeps of it.
const BUFFER_BYTES: usize = 4096;
const BUFFER_BYTES_KEPT: usize = 16 * 1024;

/// Keep-alive connections to one origin.
pub struct Pool {
    egress: Egress,
    origin: Origin,
    tls: Arc<ClientConfig>,
    idle: Arc<Mutex<Idle>>,
    permits: Semaphore,
}

#[derive(Default)]
struct Idle {
    connections: Vec<(Connection, Instant)>,
    /// A task closes those that nobody takes.
    swept: bool,
}

struct Connection {
    stream: TlsStream<TcpStream>,
    /// The request on its way out, then the answer.
    buffer: Vec<u8>,
}

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
            idle: Arc::default(),
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
            let mut connection = match self.take_idle() {
                Some(connection) => connection,
                // Rare and large, so it is not part of every call's future.
                None => Box::pin(open(&self.egress, &self.origin, self.tls.clone())).await?,
            };
            tries += 1;
            let result = connection
                .exchange(&self.origin, call, ANSWER_BYTES_MAX, progress)
                .await;
            match result {
                Ok((answer, keeps)) => {
                    if keeps {
                        self.give_back(connection);
                    }
                    return Ok(answer);
                }
                Err(error) if error.certainty() == Unsure::NotTaken && tries < FRESH_TRIES_MAX => {
                    progress.not_sent();
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The connection that was used last, if it still stands.
    fn take_idle(&self) -> Option<Connection> {
        loop {
            let (mut connection, since) = {
                let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                idle.connections.pop()?
            };
            if since.elapsed() < IDLE_MAX && connection.stands() {
                return Some(connection);
            }
        }
    }

    fn give_back(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.connections.len() < CONNECTIONS_MAX {
            idle.connections.push((connection, Instant::now()));
        }
        if !std::mem::replace(&mut idle.swept, true) {
            tokio::spawn(sweep(Arc::downgrade(&self.idle)));
        }
    }
}

/// Closes connections that were idle for too long, until there are none.
async fn sweep(idle: Weak<Mutex<Idle>>) {
    loop {
        tokio::time::sleep(IDLE_MAX).await;
        let Some(idle) = idle.upgrade() else {
            return;
        };
        let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.connections
            .retain_mut(|(connection, since)| since.elapsed() < IDLE_MAX && connection.stands());
        if idle.connections.is_empty() {
            idle.swept = false;
            return;
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
        let mut connection = open(egress, origin, egress.tls(Protocol::Http1)).await?;
        let result = connection.exchange(origin, call, bytes_max, &progress);
        result.await.map(|(answer, _)| answer)
    };
    tokio::time::timeout_at(deadline, Box::pin(work))
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
) -> Result<Connection, CallError> {
    Ok(Connection {
        stream: egress.connect(origin, tls).await?,
        buffer: Vec::with_capacity(BUFFER_BYTES),
    })
}

impl Connection {
    /// Whether an idle connection was neither closed nor spoken on: nothing may come before it is asked.
    fn stands(&mut self) -> bool {
        let mut byte = [0];
        let mut nothing = ReadBuf::new(&mut byte);
        let mut cx = Context::from_waker(Waker::noop());
        let read = Pin::new(&mut self.stream).poll_read(&mut cx, &mut nothing);
        matches!(read, Poll::Pending)
    }

    /// Sends a request and reads its answer; whether the connection may be used again.
    async fn exchange(
        &mut self,
        origin: &Origin,
        call: &Call,
        bytes_max: usize,
        progress: &Progress,
    ) -> Result<(Answer, bool), CallError> {
        self.buffer.clear();
        request(&mut self.buffer, origin, call)?;
        progress.sent();
        let sent = match self.stream.write_all(&self.buffer).await {
            Ok(()) => self.stream.flush().await,
            failed => failed,
        };
        self.buffer.clear();
        // A server that does not want all of a request may answer and close before it has read it.
        let answer = self.answer(bytes_max).await;
        if self.buffer.capacity() > BUFFER_BYTES_KEPT {
            self.buffer = Vec::with_capacity(BUFFER_BYTES);
        }
        let host = || origin.host().to_owned();
        answer
            .map(|(answer, keeps)| (answer, keeps && sent.is_ok()))
            .map_err(|wrong| match wrong {
                Wrong::TooLarge => CallError::TooLarge {
                    host: host(),
                    bytes_max,
                },
                Wrong::Malformed(problem) => CallError::Broken {
                    host: host(),
                    problem: problem.to_owned(),
                    certainty: Unsure::MaybeTaken,
                },
                Wrong::Broken(error) => CallError::Broken {
                    host: host(),
                    problem: sent.err().unwrap_or(error).to_string(),
                    certainty: Unsure::MaybeTaken,
                },
            })
    }

    async fn answer(&mut self, bytes_max: usize) -> Result<(Answer, bool), Wrong> {
        let (head, length) = self.head().await?;
        let mut body = head.body(bytes_max)?;
        let mut at = length;
        loop {
            let rest = self.buffer.get(at..).unwrap_or_default();
            at += body.take(rest)?;
            if body.is_whole() {
                break;
            }
            self.buffer.clear();
            at = 0;
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                body.end()?;
                break;
            }
        }
        let keeps = head.keeps && body.is_delimited() && at == self.buffer.len();
        let answer = Answer {
            status: head.status,
            headers: head.headers,
            body: body.into_bytes(),
        };
        Ok((answer, keeps))
    }

    /// The head of the answer and where its body begins in the buffer.
    async fn head(&mut self) -> Result<(Head, usize), Wrong> {
        let mut interim = 0;
        loop {
            if !self.buffer.is_empty()
                && let Some((head, length)) = Head::parse(&self.buffer)?
            {
                if !(100..=199).contains(&head.status) {
                    return Ok((head, length));
                }
                interim += 1;
                if head.status == 101 || interim > INTERIM_MAX {
                    return Err(Wrong::Malformed(
                        "it answered with something else than HTTP/1.1",
                    ));
                }
                self.buffer.drain(..length);
                continue;
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(Wrong::Malformed("the answer's head is too long"));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                let early = "the connection was closed before the answer";
                return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, early).into());
            }
        }
    }
}

/// Reads bytes as an answer, for [`super::swallow`].
pub(super) fn swallow(first: &[u8], second: &[u8]) {
    let whole = [first, second].concat();
    let Ok(Some((head, length))) = Head::parse(&whole) else {
        return;
    };
    let Ok(mut body) = head.body(ANSWER_BYTES_MAX) else {
        return;
    };
    let rest = whole.get(length..).unwrap_or_default();
    let (one, two) = rest.split_at(first.len().saturating_sub(length).min(rest.len()));
    for piece in [one, two] {
        if body.is_whole() || body.take(piece).is_err() {
            return;
        }
    }
}

/// Writes a whole request.
fn request(out: &mut Vec<u8>, origin: &Origin, call: &Call) -> Result<(), CallError> {
    let visible = call.path.bytes().all(|b| b.is_ascii_graphic());
    if !visible || !call.path.starts_with('/') {
        return Err(CallError::Unreachable {
            host: origin.host().to_owned(),
            problem: "the path is not valid".to_owned(),
        });
    }
    for part in [call.method.as_str(), " ", &call.path, " HTTP/1.1\r\nhost: "] {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(origin.authority().as_bytes());
    for (name, value) in &call.headers {
        // These two are ours to say.
        if name == HOST || name == CONTENT_LENGTH {
            continue;
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
    }
    if !call.body.is_empty() || call.method == Method::POST || call.method == Method::PUT {
        // Writing into memory does not fail.
        let _ = write!(out, "\r\ncontent-length: {}", call.body.len());
    }
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(&call.body);
    Ok(())
}

/// The head of an answer.
#[derive(Debug)]
struct Head {
    status: u16,
    headers: HeaderMap,
    /// Whether the server keeps the connection.
    keeps: bool,
}

impl Head {
    /// Reads a head and its length; `None` while it is not whole.
    fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Wrong> {
        let malformed = || Wrong::Malformed("the answer's head cannot be read");
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut parsed = httparse::Response::new(&mut fields);
        let length = match parsed.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(malformed()),
        };
        let mut headers = HeaderMap::with_capacity(parsed.headers.len());
        for field in parsed.headers.iter() {
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| malformed())?;
            let value = HeaderValue::from_bytes(field.value).map_err(|_| malformed())?;
            headers.append(name, value);
        }
        let closes = tokens(&headers, CONNECTION).any(|t| t.eq_ignore_ascii_case("close"));
        let head = Self {
            status: parsed.code.ok_or_else(malformed)?,
            headers,
            keeps: parsed.version == Some(1) && !closes,
        };
        Ok(Some((head, length)))
    }

    /// How the body is delimited (section 6.3).
    fn body(&self, bytes_max: usize) -> Result<Body, Wrong> {
        if matches!(self.status, 204 | 304) {
            return Ok(Body::of(0, bytes_max));
        }
        if self.headers.contains_key(TRANSFER_ENCODING) {
            let last = tokens(&self.headers, TRANSFER_ENCODING).last();
            return match last {
                Some(coding) if coding.eq_ignore_ascii_case("chunked") => {
                    // Two lengths are somebody's mistake: whose, is not worth a guess.
                    let two = self.headers.contains_key(CONTENT_LENGTH);
                    Ok(Body::chunked(bytes_max, !two))
                }
                _ => Ok(Body::until_the_end(bytes_max)),
            };
        }
        let mut lengths = tokens(&self.headers, CONTENT_LENGTH).map(|length| {
            let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| length.parse::<u64>().ok()).flatten()
        });
        let Some(first) = lengths.next() else {
            return Ok(Body::until_the_end(bytes_max));
        };
        match first {
            Some(length) if lengths.all(|other| other == first) => {
                match usize::try_from(length).ok().filter(|l| *l <= bytes_max) {
                    Some(length) => Ok(Body::of(length, bytes_max)),
                    None => Err(Wrong::TooLarge),
                }
            }
            _ => Err(Wrong::Malformed("the answer's length is none")),
        }
    }
}

/// The members of a list in a field, however many lines it has.
fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers
        .get_all(name)
        .into_iter()
        .flat_map(|value| value.to_str().unwrap_or("?").split(','))
        .map(str::trim)
}

#[cfg(test)]
mod tests;
