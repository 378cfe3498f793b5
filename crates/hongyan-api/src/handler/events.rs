//! What happened: traces of one message, user or device, and the live tail.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::IpAddr;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::Instant;

use hongyan_core::app::Scope;
use hongyan_core::limits::EVENTS_PAGE_LEN_MAX;
use hongyan_core::port::EventFilter;
use hongyan_core::{AppId, DeviceId, MessageId, StoreError, UserId};

use super::messages::message_id;
use crate::api::Api;
use crate::auth::{self, Who};
use crate::options::TAIL_BEAT;
use crate::problem::{Code, Problem};
use crate::reply::{Raw, Reply};
use crate::route::Call;
use crate::wire::event::{Event, MessageTraceQuery, TailQuery, Trace, TraceQuery};

/// Events that the tail reads at once, so that a slow reader holds little.
const TAIL_PAGE_LEN: usize = 200;
/// Chunks on their way to a slow reader.
const TAIL_QUEUE_LEN: usize = 2;
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

pub(crate) async fn of_message(call: Call<MessageTraceQuery>) -> Result<Reply<Trace>, Problem> {
    let (app, id) = (call.app()?, message_id(&call)?);
    let MessageTraceQuery {
        user,
        device,
        after,
        limit,
    } = &call.query;
    let filter = match (user, device) {
        (Some(_), Some(_)) => {
            return Err(Problem::at(
                Code::InvalidRequest,
                "query",
                "give user or device, not both",
            ));
        }
        (Some(user), None) => EventFilter::MessageUser(id, parse("query.user", user)?),
        (None, Some(device)) => EventFilter::MessageDevice(id, parse("query.device", device)?),
        (None, None) => EventFilter::Message(id),
    };
    let trace = page(&call.api, &app, filter, *after, *limit).await?;
    if trace.events.is_empty() && call.api.ports().inbox.message(&app, id).await?.is_none() {
        return Err(Problem::not_found("message"));
    }
    Ok(Reply::new(trace))
}

pub(crate) async fn of_user(call: Call<TraceQuery>) -> Result<Reply<Trace>, Problem> {
    let (app, user): (_, UserId) = (call.app()?, call.id("user")?);
    let TraceQuery { after, limit } = call.query;
    Ok(Reply::new(
        page(&call.api, &app, EventFilter::User(user), after, limit).await?,
    ))
}

pub(crate) async fn of_device(call: Call<TraceQuery>) -> Result<Reply<Trace>, Problem> {
    let (app, device) = (call.app()?, call.device_id()?);
    let TraceQuery { after, limit } = call.query;
    Ok(Reply::new(
        page(&call.api, &app, EventFilter::Device(device), after, limit).await?,
    ))
}

async fn page(
    api: &Api,
    app: &AppId,
    filter: EventFilter,
    after: u64,
    limit: usize,
) -> Result<Trace, Problem> {
    let limit = crate::wire::within(limit, EVENTS_PAGE_LEN_MAX)?;
    let events = api.ports().ledger.events(app, filter, after, limit).await?;
    let next = events
        .last()
        .filter(|_| events.len() >= limit)
        .map(|e| e.seq);
    Ok(Trace {
        events: events.into_iter().map(Event::from).collect(),
        next,
    })
}

fn parse<T>(path: &str, text: &str) -> Result<T, Problem>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse::<T>()
        .map_err(|e| Problem::at(Code::InvalidRequest, path, e.to_string()))
}

/// The live tail as server-sent events: `id` is the place in the ledger, `data` an event on one line.
pub(crate) async fn tail(call: Call<TailQuery>) -> Result<Raw, Problem> {
    let app = call.app()?;
    let TailQuery {
        after,
        message,
        user,
        device,
    } = &call.query;
    let filter = match (message, user, device) {
        (None, None, None) => EventFilter::App,
        (Some(message), None, None) => EventFilter::Message(
            MessageId::parse(message)
                .map_err(|e| Problem::at(Code::InvalidRequest, "query.message", e.to_string()))?,
        ),
        (None, Some(user), None) => EventFilter::User(parse("query.user", user)?),
        (None, None, Some(device)) => {
            EventFilter::Device(parse::<DeviceId>("query.device", device)?)
        }
        _ => {
            return Err(Problem::at(
                Code::InvalidRequest,
                "query",
                "give at most one of message, user and device",
            ));
        }
    };
    let last = match call.parts.headers.get(&LAST_EVENT_ID) {
        Some(value) => Some(
            value
                .to_str()
                .ok()
                .and_then(|v| v.trim().parse::<u64>().ok())
                .ok_or_else(|| {
                    Problem::at(
                        Code::BadCursor,
                        "Last-Event-ID",
                        "must be the id of an event of this stream, unchanged",
                    )
                })?,
        ),
        None => *after,
    };
    let head = call.api.ports().ledger.head().await?;
    let from = last.unwrap_or(head);
    if from > head {
        // Of another ledger, such as before a restore: nothing would come until as many events have happened again.
        let path = if call.parts.headers.contains_key(&LAST_EVENT_ID) {
            "Last-Event-ID"
        } else {
            "query.after"
        };
        return Err(Problem::at(
            Code::BadCursor,
            path,
            format!(
                "is beyond the newest event, {head}; leave it out to read from now on, or give an id up to that, 0 for all that is kept"
            ),
        ));
    }
    let Ok(permit) = call.api.tails().try_acquire_owned() else {
        return Err(Problem::new(
            Code::RateLimited,
            "as many live tails are open as the server allows",
        )
        .retry_after(TAIL_BEAT));
    };
    let (sender, receiver) = mpsc::channel(TAIL_QUEUE_LEN);
    let closing = call.api.closing();
    let changed = call.api.keys_changed();
    let tail = Tail {
        changed,
        api: call.api,
        app,
        filter,
        after: from,
        beat_at: Instant::now() + TAIL_BEAT,
        headers: call.parts.headers,
        peer: call.parts.peer.ip(),
        _permit: permit,
    };
    tokio::spawn(tail.run(sender, closing));
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver
            .recv()
            .await
            .map(|chunk| (Ok::<Bytes, Infallible>(chunk), receiver))
    });
    let mut response = Response::new(Body::from_stream(stream));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    Ok(Raw(response))
}

struct Tail {
    api: Api,
    app: AppId,
    filter: EventFilter,
    after: u64,
    /// When a comment is due.
    beat_at: Instant,
    /// When keys changed here; what another process changes is seen at the next look.
    changed: watch::Receiver<u64>,
    /// What let the reader in, to be asked again.
    headers: HeaderMap,
    peer: IpAddr,
    _permit: OwnedSemaphorePermit,
}

/// What wakes a tail.
enum Woken {
    Chunk(Result<Bytes, StoreError>),
    /// It is time to see whether the key still lets the reader in.
    Recheck,
    Over,
}

impl Tail {
    /// Ends when the reader goes, its key is deleted, the server closes, or the ledger fails: a reader comes back with its last id.
    async fn run(mut self, sender: mpsc::Sender<Bytes>, mut closing: watch::Receiver<bool>) {
        // A first comment at once, so that everybody on the way sees an open stream.
        if sender
            .send(Bytes::from_static(b": hongyan\nretry: 2000\n\n"))
            .await
            .is_err()
        {
            return;
        }
        let every = self.api.options().cache_ttl;
        let mut changed = self.changed.clone();
        let mut check_at = Instant::now() + every;
        loop {
            let woken = tokio::select! {
                _ = closing.wait_for(|closing| *closing) => Woken::Over,
                () = sender.closed() => Woken::Over,
                () = tokio::time::sleep_until(check_at) => Woken::Recheck,
                Ok(()) = changed.changed() => Woken::Recheck,
                chunk = self.next() => Woken::Chunk(chunk),
            };
            match woken {
                Woken::Over => return,
                Woken::Recheck => {
                    if !self.may_read().await {
                        return;
                    }
                    check_at = Instant::now() + every;
                }
                Woken::Chunk(Ok(chunk)) => {
                    let sent = tokio::select! {
                        sent = sender.send(chunk) => sent,
                        _ = closing.wait_for(|closing| *closing) => return,
                    };
                    if sent.is_err() {
                        return;
                    }
                }
                Woken::Chunk(Err(error)) => {
                    tracing::warn!(app = %self.app, error = %error, "a live tail ended: the ledger cannot be read");
                    return;
                }
            }
        }
    }

    /// Whether the key is still good. Being told to slow down, or a store that is away, does not end a stream.
    async fn may_read(&self) -> bool {
        let who = Who::Server(Scope::Read);
        match auth::check(&self.api, who, &self.headers, self.peer, None).await {
            Ok(_) => true,
            Err(problem) => !matches!(
                problem.code(),
                Code::Unauthorized | Code::Forbidden | Code::NotFound
            ),
        }
    }

    /// The next events, or a comment after some silence. Nothing is lost when it is dropped and asked again.
    async fn next(&mut self) -> Result<Bytes, StoreError> {
        let ledger = std::sync::Arc::clone(&self.api.ports().ledger);
        loop {
            // The head is read first: what is committed in between wakes the wait below.
            let head = ledger.head().await?;
            let events = ledger
                .events(&self.app, self.filter.clone(), self.after, TAIL_PAGE_LEN)
                .await?;
            if let Some(last) = events.last() {
                self.after = last.seq;
                self.beat_at = Instant::now() + TAIL_BEAT;
                return Ok(lines(events));
            }
            tokio::select! {
                () = ledger.wait_after(head) => {}
                () = tokio::time::sleep_until(self.beat_at) => {
                    self.beat_at = Instant::now() + TAIL_BEAT;
                    return Ok(Bytes::from_static(b": hb\n\n"));
                }
            }
        }
    }
}

/// JSON has no raw line breaks, so one `data` line holds an event.
fn lines(events: Vec<hongyan_core::Event>) -> Bytes {
    let mut text = String::new();
    for event in events {
        let seq = event.seq;
        if let Ok(json) = serde_json::to_string(&Event::from(event)) {
            let _ = write!(text, "id: {seq}\ndata: {json}\n\n");
        }
    }
    Bytes::from(text)
}
