//! What happened: traces of one message, user or device, and the live tail.

use std::convert::Infallible;
use std::fmt::Write as _;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use hongyan_core::limits::EVENTS_PAGE_LEN_MAX;
use hongyan_core::port::EventFilter;
use hongyan_core::{AppId, DeviceId, MessageId, StoreError, UserId};

use super::messages::message_id;
use crate::api::Api;
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
    let limit = limit.clamp(1, EVENTS_PAGE_LEN_MAX);
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
    let from = match last {
        Some(last) => last,
        None => call.api.ports().ledger.head().await?,
    };
    let Ok(permit) = call.api.tails().try_acquire_owned() else {
        return Err(Problem::new(
            Code::RateLimited,
            "as many live tails are open as the server allows",
        )
        .retry_after(TAIL_BEAT));
    };
    let (sender, receiver) = mpsc::channel(TAIL_QUEUE_LEN);
    let closing = call.api.closing();
    let tail = Tail {
        api: call.api,
        app,
        filter,
        after: from,
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
    _permit: OwnedSemaphorePermit,
}

impl Tail {
    /// Ends when the reader goes, the server closes, or the ledger fails: the reader comes back with its last id.
    async fn run(mut self, sender: mpsc::Sender<Bytes>, mut closing: watch::Receiver<bool>) {
        // A first comment at once, so that everybody on the way sees an open stream.
        if sender
            .send(Bytes::from_static(b": hongyan\nretry: 2000\n\n"))
            .await
            .is_err()
        {
            return;
        }
        loop {
            let chunk = tokio::select! {
                chunk = self.next() => chunk,
                () = sender.closed() => return,
                _ = closing.wait_for(|closing| *closing) => return,
            };
            match chunk {
                Ok(chunk) => {
                    let sent = tokio::select! {
                        sent = sender.send(chunk) => sent,
                        _ = closing.wait_for(|closing| *closing) => return,
                    };
                    if sent.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(app = %self.app, error = %error, "a live tail ended: the ledger cannot be read");
                    return;
                }
            }
        }
    }

    /// The next events, or a comment after some silence.
    async fn next(&mut self) -> Result<Bytes, StoreError> {
        let ledger = std::sync::Arc::clone(&self.api.ports().ledger);
        let beat = tokio::time::sleep(TAIL_BEAT);
        tokio::pin!(beat);
        loop {
            // The head is read first: what is committed in between wakes the wait below.
            let head = ledger.head().await?;
            let events = ledger
                .events(&self.app, self.filter.clone(), self.after, TAIL_PAGE_LEN)
                .await?;
            if let Some(last) = events.last() {
                self.after = last.seq;
                return Ok(lines(events));
            }
            tokio::select! {
                () = ledger.wait_after(head) => {}
                () = &mut beat => return Ok(Bytes::from_static(b": hb\n\n")),
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
