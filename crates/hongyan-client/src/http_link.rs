//! Server-sent events and long polling (sse-and-polling.md): the gateway speaks in an answer's body, the client by calls of
//! its own, one at a time, which go while the answer is read.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, header};
use http_body_util::BodyExt;
use hyper::body::Incoming as Body;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout};

use crate::backoff::{self, Next};
use crate::client::Stop;
use crate::error::Error;
use crate::http_client::{Call, Http};
use crate::net::escape;
use crate::options::{AckMode, Options, Timers};
use crate::session::Ended;
use crate::sse::{Event, Parser};
use crate::transport::Transport;
use crate::wire::{self, AppState, ClientEvent, Incoming, Mixed, NackCode, Outgoing, Welcome};

/// Longest line and longest event of a stream besides the message in it, in bytes.
const ENVELOPE_BYTES_MAX: usize = 44 * 1024;
/// Client events of one call.
const EVENTS_MAX: usize = 100;
/// Ids of one ack; the server takes 1,000.
const IDS_MAX: usize = 1000;
/// Pings that await the next call.
const PINGS_MAX: usize = 16;
/// What a poll may take longer than it waits at the server.
const POLL_GRACE: Duration = Duration::from_secs(10);
/// Longest wait that the server's limit allows a poll, in seconds.
const POLL_WAIT_S_MAX: u64 = 60;
/// Highest pause between polls that bring nothing new.
const POLL_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Longest told wait that is believed.
const TOLD_MAX: Duration = Duration::from_secs(3600);

/// What a poll is answered.
#[derive(Debug, Deserialize)]
pub(crate) struct Polled {
    cursor: String,
    #[serde(default)]
    head: Option<String>,
    #[serde(default)]
    more: bool,
    #[serde(default)]
    reset: bool,
    #[serde(default)]
    superseded: bool,
    messages: Vec<Value>,
    #[serde(default)]
    recalled: Vec<Value>,
}

/// What came, not yet looked at.
pub(crate) enum Raw {
    /// What came along with the welcome.
    Ready,
    Chunk(Option<Result<Bytes, String>>),
    Polled(Result<Polled, Error>),
    Said(Said, Result<Value, Error>),
}

/// What was read.
#[derive(Default)]
pub(crate) struct Heard {
    /// Messages in order; texts say what is unreadable.
    pub(crate) incoming: Vec<Result<Incoming, String>>,
    /// Whether the gateway itself gave a sign of life.
    pub(crate) alive: bool,
    /// How the connection ended, after these.
    pub(crate) ended: Option<Ended>,
}

/// What a call of the client said.
pub(crate) enum Said {
    Acks,
    Events,
    State,
    Topic { topic: String, joined: bool },
    Pings(Vec<u64>),
}

/// A connection over HTTP.
pub(crate) struct HttpLink {
    options: Arc<Options>,
    mouth: Mouth,
    ear: Ear,
    ready: Heard,
}

enum Ear {
    Stream { body: Body, parser: Parser },
    Poll(Box<Poll>),
}

/// The opened connection, and its welcome.
type Opened = (HttpLink, Welcome);

impl HttpLink {
    /// Opens the stream and waits for its welcome.
    pub(crate) async fn stream(
        http: Http,
        options: Arc<Options>,
        cursor: Option<&str>,
    ) -> Result<Opened, Ended> {
        let timers = &options.timers;
        let inflight = options.inflight.clamp(1, 256);
        let mut call = Call::get(format!("/v1/stream?ack=explicit&inflight={inflight}"))
            .header(header::ACCEPT, "text/event-stream")
            .header(header::CACHE_CONTROL, "no-store")
            .once();
        if let Some(cursor) = cursor {
            call = call.header(
                header::HeaderName::from_static("last-event-id"),
                cursor.to_owned(),
            );
        }
        let (headers, status, body) = http
            .stream(&call, None, timers.connect)
            .await
            .map_err(|e| ended(&e, timers))?;
        if status == http::StatusCode::NO_CONTENT {
            return Err(Ended::Stop(Stop::TakenOver));
        }
        let kind = headers.get(header::CONTENT_TYPE);
        let is_stream = kind
            .and_then(|kind| kind.to_str().ok())
            .is_some_and(|kind| kind.starts_with("text/event-stream"));
        if !is_stream {
            return Err(Ended::way(format!(
                "the stream was answered {status} with something else than events"
            )));
        }
        let bytes_max = options.message_bytes_max.saturating_add(ENVELOPE_BYTES_MAX);
        let mut link = Self {
            mouth: Mouth::new(http),
            ear: Ear::Stream {
                body,
                parser: Parser::new(bytes_max),
            },
            ready: Heard::default(),
            options: Arc::clone(&options),
        };
        let welcome = timeout(timers.welcome, link.welcome())
            .await
            .map_err(|_| Ended::way(format!("no welcome within {:?}", timers.welcome)))??;
        link.mouth.device.clone_from(&welcome.device);
        Ok((link, welcome))
    }

    async fn welcome(&mut self) -> Result<Welcome, Ended> {
        loop {
            let raw = self.next().await;
            let mut heard = self.read(raw);
            let mut welcome = None;
            heard.incoming.retain_mut(|incoming| match incoming {
                Ok(Incoming::Welcome(said)) if welcome.is_none() => {
                    welcome = Some(said.clone());
                    false
                }
                Ok(_) => true,
                Err(_) => false,
            });
            if let Some(welcome) = welcome {
                self.ready = heard;
                return Ok(welcome);
            }
            match heard.ended {
                Some(Ended::Next {
                    next: Next::Retry { .. },
                    why,
                }) => return Err(Ended::way(why)),
                Some(ended) => return Err(ended),
                None => {}
            }
        }
    }

    /// Polls for the first time, without a wait.
    pub(crate) async fn poll(
        http: Http,
        options: Arc<Options>,
        cursor: Option<&str>,
        device: Option<String>,
    ) -> Result<Opened, Ended> {
        let timers = &options.timers;
        let inflight = options.inflight.clamp(1, 256);
        let wait_s = timers.poll_wait.as_secs().clamp(1, POLL_WAIT_S_MAX);
        let within = Duration::from_secs(wait_s) + POLL_GRACE;
        let poll = Poll {
            http: http.with_timeout(within),
            wait_s,
            limit: inflight,
            // A passed cursor acknowledges.
            cursor: cursor
                .filter(|_| options.ack != AckMode::Never)
                .map(str::to_owned),
            unsaid: false,
            last: None,
            more: false,
            idle_said: false,
            settled: false,
            pause_first: timers.poll_pause,
            pause: timers.poll_pause,
            pause_at: Instant::now(),
            repeats: false,
            flying: None,
        };
        let mut mouth = Mouth::new(http);
        mouth.device = device;
        let mut link = Self {
            mouth,
            ear: Ear::Poll(Box::new(poll)),
            ready: Heard::default(),
            options: Arc::clone(&options),
        };
        let Ear::Poll(poll) = &mut link.ear else {
            return Err(Ended::broken("no poll"));
        };
        let first = timeout(timers.connect, poll.ask(0))
            .await
            .map_err(|_| Ended::way(format!("no answer within {:?}", timers.connect)))?
            .map_err(|e| ended(&e, timers))?;
        let welcome = Welcome {
            session: Value::String("poll".to_owned()),
            device: link.mouth.device.clone(),
            head: first.head.clone(),
            hb: 0.0,
            inflight: Some(inflight),
            replay: first.reset.then(|| "full".to_owned()),
        };
        link.ready = poll.answered(first);
        Ok((link, welcome))
    }

    pub(crate) fn transport(&self) -> Transport {
        match self.ear {
            Ear::Stream { .. } => Transport::Sse,
            Ear::Poll(_) => Transport::Poll,
        }
    }

    /// Waits for something. Cancel safe: what is under way is kept in `self`.
    pub(crate) async fn next(&mut self) -> Raw {
        if !self.ready.incoming.is_empty() || self.ready.ended.is_some() {
            return Raw::Ready;
        }
        self.mouth.open();
        let said = async {
            match &mut self.mouth.flying {
                Some(flying) => flying.as_mut().await,
                None => pending().await,
            }
        };
        let heard = async {
            match &mut self.ear {
                Ear::Stream { body, .. } => loop {
                    match body.frame().await {
                        None => return Raw::Chunk(None),
                        Some(Err(e)) => return Raw::Chunk(Some(Err(e.to_string()))),
                        Some(Ok(frame)) => {
                            if let Ok(data) = frame.into_data() {
                                return Raw::Chunk(Some(Ok(data)));
                            }
                        }
                    }
                },
                Ear::Poll(poll) => Raw::Polled(poll.next().await),
            }
        };
        let (said, result) = tokio::select! {
            raw = heard => return raw,
            said = said => said,
        };
        self.mouth.flying = None;
        Raw::Said(said, result)
    }

    pub(crate) fn read(&mut self, raw: Raw) -> Heard {
        match raw {
            Raw::Ready => Heard {
                alive: true,
                ..std::mem::take(&mut self.ready)
            },
            Raw::Chunk(chunk) => self.chunk(chunk),
            Raw::Polled(Ok(polled)) => match &mut self.ear {
                Ear::Poll(poll) => poll.answered(polled),
                Ear::Stream { .. } => Heard::default(),
            },
            Raw::Polled(Err(error)) => Heard {
                ended: Some(ended(&error, &self.options.timers)),
                ..Heard::default()
            },
            Raw::Said(said, result) => self.mouth.said(said, result, &self.options.timers),
        }
    }

    fn chunk(&mut self, chunk: Option<Result<Bytes, String>>) -> Heard {
        let mut heard = Heard::default();
        let Ear::Stream { parser, .. } = &mut self.ear else {
            return heard;
        };
        let least = Duration::from_millis(parser.retry_ms().unwrap_or(0)).min(TOLD_MAX);
        let again = |least: Duration, why: String| Ended::Next {
            next: Next::Retry { least },
            why,
        };
        let bytes = match chunk {
            None => {
                heard.ended = Some(again(least, "the stream ended".to_owned()));
                return heard;
            }
            Some(Err(why)) => {
                heard.ended = Some(again(least, format!("the stream broke: {why}")));
                return heard;
            }
            Some(Ok(bytes)) => bytes,
        };
        heard.alive = true;
        let mut events: Vec<Event> = Vec::new();
        if parser.read(&bytes, &mut events).is_err() {
            let why = "the stream holds a line or an event that is too long".to_owned();
            heard.ended = Some(again(self.options.timers.framing_min, why));
        }
        for event in events {
            if event.name == "taken" {
                heard.ended = Some(Ended::Stop(Stop::TakenOver));
                break;
            }
            let incoming = wire::decode_text(&event.data);
            let last = match &incoming {
                Ok(Incoming::Error {
                    code,
                    msg,
                    fatal: true,
                }) => Some((backoff::after_word(code), format!("{code}: {msg}"))),
                _ => None,
            };
            heard.incoming.push(incoming);
            if let Some((next, why)) = last {
                let next = next.unwrap_or(Next::Retry { least });
                heard.ended = Some(Ended::Next { next, why });
                break;
            }
        }
        heard
    }

    pub(crate) fn say(&mut self, message: &Outgoing<'_>) {
        match message {
            Outgoing::Ack { upto, ids } => {
                if let Some(upto) = upto {
                    match &mut self.ear {
                        Ear::Poll(poll) => {
                            poll.cursor = Some((*upto).to_owned());
                            // The next poll says it; one that waits cannot any more.
                            poll.unsaid = poll.flying.is_none();
                            if !poll.unsaid {
                                self.mouth.upto = Some((*upto).to_owned());
                            }
                        }
                        Ear::Stream { .. } => self.mouth.upto = Some((*upto).to_owned()),
                    }
                }
                // Those beyond come again as copies and are acknowledged then.
                let room = (4 * IDS_MAX).saturating_sub(self.mouth.ids.len());
                self.mouth.ids.extend(ids.iter().take(room).cloned());
            }
            Outgoing::Event(event) => self.mouth.events.push((*event).clone()),
            Outgoing::State { state } => self.mouth.state = Some(*state),
            Outgoing::Sub { topic } => self.topic(topic, true),
            Outgoing::Unsub { topic } => self.topic(topic, false),
            Outgoing::Ping { n } => {
                if self.mouth.pings.len() < PINGS_MAX {
                    self.mouth.pings.push(*n);
                }
            }
            // A refusal for good is acknowledged like the rest; one for now has no words over HTTP.
            Outgoing::Nack {
                code: NackCode::Retry | NackCode::BadPayload | NackCode::NotShown,
                ..
            }
            | Outgoing::Hello { .. }
            | Outgoing::Bye => {}
        }
    }

    fn topic(&mut self, topic: &str, joined: bool) {
        if let Some(device) = self.mouth.device.clone() {
            self.mouth.topic = Some((device, topic.to_owned(), joined));
        } else {
            // Polls do not tell it.
            self.ready.incoming.push(Ok(Incoming::Error {
                code: "device_unknown".to_owned(),
                msg: "no gateway has told the device's id yet; try again over another transport"
                    .to_owned(),
                fatal: false,
            }));
        }
    }

    pub(crate) fn takes_events(&self) -> bool {
        self.mouth.events.len() < EVENTS_MAX
    }

    pub(crate) fn settle(&mut self, settled: bool) {
        let silent = self.mouth.is_silent();
        if let Ear::Poll(poll) = &mut self.ear {
            poll.settled = settled && silent;
        }
    }

    /// Client events that no call has carried.
    pub(crate) fn unsaid_events(self) -> Vec<ClientEvent> {
        let mut events = self.mouth.flying_events;
        events.extend(self.mouth.events);
        events
    }

    /// Says what is left. The caller bounds the time.
    pub(crate) async fn finish(&mut self) {
        if let Ear::Poll(poll) = &mut self.ear {
            poll.flying = None;
            if std::mem::take(&mut poll.unsaid) {
                self.mouth.upto.clone_from(&poll.cursor);
            }
        }
        loop {
            self.mouth.open();
            let Some(flying) = &mut self.mouth.flying else {
                return;
            };
            let (said, result) = flying.as_mut().await;
            self.mouth.flying = None;
            let heard = self.mouth.said(said, result, &self.options.timers);
            if heard.ended.is_some() {
                return;
            }
        }
    }
}

/// The polls of one connection.
struct Poll {
    http: Http,
    wait_s: u64,
    limit: u16,
    /// Up to where the app has taken everything.
    cursor: Option<String>,
    /// No poll has said the cursor yet.
    unsaid: bool,
    /// The cursor of the last answer.
    last: Option<String>,
    more: bool,
    idle_said: bool,
    settled: bool,
    pause_first: Duration,
    pause: Duration,
    /// From when on the last answer may be asked for again.
    pause_at: Instant,
    /// The last answer held what an earlier one did.
    repeats: bool,
    flying: Option<BoxFuture<'static, Result<Polled, Error>>>,
}

impl Poll {
    fn ask(&self, wait_s: u64) -> BoxFuture<'static, Result<Polled, Error>> {
        let mut path = format!("/v1/poll?wait={wait_s}&limit={}", self.limit);
        if let Some(cursor) = &self.cursor {
            path.push_str("&cursor=");
            path.push_str(&escape(cursor));
        }
        let http = self.http.clone();
        Box::pin(async move { http.call(Call::get(path).once()).await })
    }

    async fn next(&mut self) -> Result<Polled, Error> {
        if self.flying.is_none() {
            if !self.settled || self.repeats {
                sleep_until(self.pause_at).await;
            }
            self.unsaid = false;
            self.flying = Some(self.ask(self.wait_s));
        }
        let Some(flying) = &mut self.flying else {
            return pending().await;
        };
        let polled = flying.as_mut().await;
        self.flying = None;
        polled
    }

    fn answered(&mut self, polled: Polled) -> Heard {
        let mut heard = Heard {
            alive: true,
            ..Heard::default()
        };
        if polled.superseded {
            heard.ended = Some(Ended::Stop(Stop::TakenOver));
            return heard;
        }
        let is_empty = polled.messages.is_empty() && polled.recalled.is_empty();
        if is_empty {
            // Where nothing waits for the app, the server's place is ours.
            if self.settled || polled.reset {
                self.cursor = Some(polled.cursor.clone());
            }
        } else if polled.reset {
            // Its own place is where the device acknowledged.
            self.cursor = None;
        }
        self.repeats = !is_empty && self.last.as_ref() == Some(&polled.cursor);
        self.pause = if self.repeats {
            self.pause.saturating_mul(2).min(POLL_PAUSE_MAX)
        } else {
            self.pause_first
        };
        self.pause_at = Instant::now() + self.pause;
        self.last = Some(polled.cursor.clone());
        self.more = polled.more;
        if polled.recalled.is_empty() {
            for message in polled.messages {
                let message = serde_json::from_value(message).map(|m| Incoming::Msg(Box::new(m)));
                heard.incoming.push(message.map_err(|e| e.to_string()));
            }
        } else {
            let mixed = Mixed {
                messages: readable(polled.messages, &mut heard),
                recalled: readable(polled.recalled, &mut heard),
                cursor: polled.cursor,
            };
            heard.incoming.push(Ok(Incoming::Mixed(Box::new(mixed))));
        }
        if !polled.more && (!self.idle_said || heard.incoming.is_empty()) {
            self.idle_said = true;
            heard
                .incoming
                .push(Ok(Incoming::Idle { head: polled.head }));
        }
        heard
    }
}

/// What can be read; texts say what cannot.
fn readable<T: serde::de::DeserializeOwned>(values: Vec<Value>, heard: &mut Heard) -> Vec<T> {
    let mut read = Vec::with_capacity(values.len());
    for value in values {
        match serde_json::from_value(value) {
            Ok(one) => read.push(one),
            Err(error) => heard.incoming.push(Err(error.to_string())),
        }
    }
    read
}

type Saying = BoxFuture<'static, (Said, Result<Value, Error>)>;

/// What the client wants to say, and the call that says some of it.
struct Mouth {
    http: Http,
    device: Option<String>,
    upto: Option<String>,
    ids: Vec<String>,
    events: Vec<ClientEvent>,
    flying_events: Vec<ClientEvent>,
    state: Option<AppState>,
    /// Device, topic, and whether it joins.
    topic: Option<(String, String, bool)>,
    pings: Vec<u64>,
    flying: Option<Saying>,
}

impl Mouth {
    fn new(http: Http) -> Self {
        Self {
            http,
            device: None,
            upto: None,
            ids: Vec::new(),
            events: Vec::new(),
            flying_events: Vec::new(),
            state: None,
            topic: None,
            pings: Vec::new(),
            flying: None,
        }
    }

    fn is_silent(&self) -> bool {
        self.flying.is_none() && self.upto.is_none() && self.ids.is_empty()
    }

    /// Starts the next call, if none is under way and something is to be said.
    fn open(&mut self) {
        if self.flying.is_none()
            && let Some((said, call)) = self.call()
        {
            let http = self.http.clone();
            self.flying = Some(Box::pin(async move {
                // Each may be said twice.
                let result = http.call(call.repeatable()).await;
                (said, result)
            }));
        }
    }

    fn call(&mut self) -> Option<(Said, Call)> {
        if let Some(upto) = self.upto.take() {
            return Some((Said::Acks, Call::post("/v1/acks", &json!({ "upto": upto }))));
        }
        if !self.ids.is_empty() {
            let ids: Vec<String> = self.ids.drain(..self.ids.len().min(IDS_MAX)).collect();
            return Some((Said::Acks, Call::post("/v1/acks", &json!({ "ids": ids }))));
        }
        if !self.events.is_empty() {
            self.flying_events = std::mem::take(&mut self.events);
            let call = Call::post("/v1/client-events", &self.flying_events);
            return Some((Said::Events, call));
        }
        if let Some(state) = self.state.take()
            && let Some(device) = &self.device
        {
            let path = format!("/v1/devices/{}", escape(device));
            let call = Call::new(Method::PATCH, path).json(&json!({ "state": state }));
            return Some((Said::State, call));
        }
        if let Some((device, topic, joined)) = self.topic.take() {
            let path = format!(
                "/v1/topics/{}/subscribers/{}",
                escape(&topic),
                escape(&device)
            );
            let method = if joined { Method::PUT } else { Method::DELETE };
            return Some((Said::Topic { topic, joined }, Call::new(method, path)));
        }
        if !self.pings.is_empty() {
            let pings = std::mem::take(&mut self.pings);
            let none: [&str; 0] = [];
            let call = Call::post("/v1/acks", &json!({ "ids": none }));
            return Some((Said::Pings(pings), call));
        }
        None
    }

    /// What the answer to a call means.
    fn said(&mut self, said: Said, result: Result<Value, Error>, timers: &Timers) -> Heard {
        let mut heard = Heard::default();
        let error = match result {
            Ok(_) => None,
            // The answer's body does not matter.
            Err(Error::Malformed { .. }) => None,
            Err(error) => Some(error),
        };
        let refused = error
            .as_ref()
            .and_then(Error::status)
            .is_some_and(|status| matches!(status, 400 | 404 | 405 | 409 | 413 | 415 | 422));
        match (said, &error) {
            (Said::Topic { topic, joined }, None) => {
                let topic = Some(topic);
                heard.incoming.push(Ok(if joined {
                    Incoming::SubOk { topic }
                } else {
                    Incoming::UnsubOk { topic }
                }));
            }
            (Said::Topic { .. }, Some(Error::Problem(problem))) => {
                heard.incoming.push(Ok(Incoming::Error {
                    code: problem.code.clone(),
                    msg: problem.to_string(),
                    fatal: false,
                }));
                return heard;
            }
            (Said::Pings(pings), None) => {
                let pong = |n| {
                    Ok(Incoming::Pong {
                        n: Some(n),
                        head: None,
                    })
                };
                heard.incoming.extend(pings.into_iter().map(pong));
            }
            (Said::Events, None) => self.flying_events.clear(),
            (Said::Events, Some(_)) if refused => self.flying_events.clear(),
            _ => {}
        }
        if let Some(error) = error {
            if refused {
                tracing::warn!(%error, "the gateway refuses what the client says");
            } else {
                heard.ended = Some(ended(&error, timers));
            }
        }
        heard
    }
}

/// What a failed call means for the connection.
fn ended(error: &Error, timers: &Timers) -> Ended {
    let why = error.to_string();
    let problem = match error {
        Error::Problem(problem) => problem,
        Error::Unreachable { .. } | Error::Invalid { .. } => return Ended::broken(why),
        _ => return Ended::way(why),
    };
    // What stands on the way may answer with these too; only the gateway's own are believed.
    let own = !problem.code.is_empty();
    let told = problem.retry_after.unwrap_or_default().min(TOLD_MAX);
    let next = match problem.status {
        400 if problem.code == "bad_cursor" => return Ended::BadCursor,
        401 if own => Next::Renew,
        403 if own => Next::Blocked,
        410 if own => Next::Register,
        status => {
            let least = match status {
                429 => timers.rate_limited_min.max(told),
                400..=499 => timers.framing_min.max(told),
                _ => told,
            };
            // Another way would find the same.
            let shared = matches!(status, 409 | 429 | 503);
            return Ended::Way { least, shared, why };
        }
    };
    Ended::Next { next, why }
}
