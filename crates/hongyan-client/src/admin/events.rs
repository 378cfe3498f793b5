//! The live tail: server-sent events that resume where they broke off.

use std::time::Duration;

use bytes::BytesMut;
use http::{HeaderName, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{Admin, with_query};
use crate::backoff::Backoff;
use crate::error::Error;
use crate::http_client::{Call, Http};
use crate::options::Timers;

/// Longest event, in bytes.
const EVENT_BYTES_MAX: usize = 1024 * 1024;
/// Silence after which the stream counts as dead; the server comments every 15 s.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Attempts without any event in between before the tail gives up.
const ATTEMPTS_MAX: u32 = 8;
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// One event of the tail.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerEvent {
    /// Where to resume after it; empty when the server gave none.
    pub id: String,
    /// Its type; `message` when the server named none.
    pub event: String,
    /// Its data, JSON on one line.
    pub data: String,
}

impl Admin {
    /// Follows what happens, from now or from after the event `last_id`. Connects on the first
    /// `next` and again by itself; filters are names and values of the query.
    #[must_use]
    pub fn events(&self, filters: &[(&str, Option<&str>)], last_id: Option<&str>) -> EventTail {
        EventTail {
            http: self.http.clone(),
            path: with_query("/v1/events", filters),
            last_id: last_id.unwrap_or_default().to_owned(),
            body: None,
            parser: Parser::default(),
            backoff: Backoff::new(&Timers::default(), None),
            told_wait: None,
        }
    }
}

/// The live tail of the server's events.
#[derive(Debug)]
pub struct EventTail {
    http: Http,
    path: String,
    last_id: String,
    body: Option<Incoming>,
    parser: Parser,
    backoff: Backoff,
    told_wait: Option<Duration>,
}

impl EventTail {
    /// Waits for the next event; `None` when the server ended the tail for good (204).
    ///
    /// # Errors
    /// [`Error`] when the server refuses, or was out of reach several times in a row.
    pub async fn next(&mut self) -> Result<Option<ServerEvent>, Error> {
        loop {
            if let Some(event) = self.parser.next() {
                if !event.id.is_empty() {
                    self.last_id.clone_from(&event.id);
                }
                self.backoff.reset();
                if event.data.is_empty() {
                    continue;
                }
                return Ok(Some(event));
            }
            if let Some(wait) = self.parser.retry.take() {
                self.told_wait = Some(wait);
            }
            let Some(body) = &mut self.body else {
                if !self.connect().await? {
                    return Ok(None);
                }
                continue;
            };
            match tokio::time::timeout(SILENCE_MAX, body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.parser.feed(&data);
                    }
                    if self.parser.too_long() {
                        let why = format!("an event is longer than {EVENT_BYTES_MAX} bytes");
                        return Err(self.http.broken(why.into()));
                    }
                }
                Ok(None | Some(Err(_))) | Err(_) => self.break_off().await,
            }
        }
    }

    /// The id to resume from later.
    #[must_use]
    pub fn last_id(&self) -> Option<&str> {
        (!self.last_id.is_empty()).then_some(self.last_id.as_str())
    }

    async fn connect(&mut self) -> Result<bool, Error> {
        let mut call = Call::get(self.path.as_str()).header(header::CACHE_CONTROL, "no-store");
        if !self.last_id.is_empty() {
            call = call.header(LAST_EVENT_ID, self.last_id.as_str());
        }
        match self.http.stream(&call, None, SILENCE_MAX).await {
            Ok((_, status, _)) if status == http::StatusCode::NO_CONTENT => Ok(false),
            Ok((_, _, body)) => {
                self.body = Some(body);
                Ok(true)
            }
            Err(error) => {
                let passing = match &error {
                    Error::Problem(p) => p.status == 429 || p.status >= 500,
                    Error::Unreachable { .. } | Error::Broken { .. } | Error::Timeout { .. } => {
                        true
                    }
                    _ => false,
                };
                // Nothing received yet and nobody there: that is an answer for the caller.
                let fresh = self.last_id.is_empty() && self.backoff.attempt() == 0;
                if !passing || fresh || self.backoff.attempt() >= ATTEMPTS_MAX {
                    return Err(error);
                }
                self.break_off().await;
                Ok(true)
            }
        }
    }

    async fn break_off(&mut self) {
        self.body = None;
        self.parser = Parser::default();
        let wait = self.told_wait.unwrap_or_default().min(SILENCE_MAX) + self.backoff.draw();
        tokio::time::sleep(wait).await;
    }
}

/// Cuts bytes into events (HTML standard, server-sent events).
#[derive(Debug, Default)]
struct Parser {
    buffer: BytesMut,
    /// How much of the buffer holds no line end.
    scanned: usize,
    after_cr: bool,
    last_id: String,
    event: String,
    data: String,
    has_data: bool,
    id_changed: bool,
    retry: Option<Duration>,
}

impl Parser {
    fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    fn too_long(&self) -> bool {
        self.buffer.len() + self.data.len() > EVENT_BYTES_MAX
    }

    fn next(&mut self) -> Option<ServerEvent> {
        loop {
            if self.after_cr && !self.buffer.is_empty() {
                self.after_cr = false;
                if self.buffer[0] == b'\n' {
                    let _ = self.buffer.split_to(1);
                }
            }
            let rest = &self.buffer[self.scanned.min(self.buffer.len())..];
            let Some(place) = rest.iter().position(|b| matches!(b, b'\n' | b'\r')) else {
                self.scanned = self.buffer.len();
                return None;
            };
            let end = self.scanned + place;
            self.scanned = 0;
            let line = self.buffer.split_to(end + 1);
            self.after_cr = line[end] == b'\r';
            if end > 0 {
                self.line(&String::from_utf8_lossy(&line[..end]));
            } else if let Some(event) = self.dispatch() {
                return Some(event);
            }
        }
    }

    fn line(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "data" => {
                if self.has_data {
                    self.data.push('\n');
                }
                self.data.push_str(value);
                self.has_data = true;
            }
            "event" => value.clone_into(&mut self.event),
            "id" if !value.contains('\0') => {
                value.clone_into(&mut self.last_id);
                self.id_changed = true;
            }
            "retry" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
                self.retry = value.parse().ok().map(Duration::from_millis);
            }
            _ => {}
        }
    }

    /// An event without data is not for the app, but its id still counts.
    fn dispatch(&mut self) -> Option<ServerEvent> {
        let event = std::mem::take(&mut self.event);
        let data = std::mem::take(&mut self.data);
        let told = std::mem::take(&mut self.has_data) || std::mem::take(&mut self.id_changed);
        self.id_changed = false;
        told.then(|| ServerEvent {
            id: self.last_id.clone(),
            event: if event.is_empty() {
                "message".to_owned()
            } else {
                event
            },
            data,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pieces: &[&[u8]]) -> Vec<ServerEvent> {
        let mut parser = Parser::default();
        let mut events = Vec::new();
        for piece in pieces {
            parser.feed(piece);
            while let Some(event) = parser.next() {
                events.push(event);
            }
        }
        events
    }

    #[test]
    fn events_of_the_standard() {
        let check = |text: &str, want: &[(&str, &str, &str)]| {
            let want: Vec<ServerEvent> = want
                .iter()
                .map(|(id, event, data)| ServerEvent {
                    id: (*id).into(),
                    event: (*event).into(),
                    data: (*data).into(),
                })
                .collect();
            assert_eq!(parse(&[text.as_bytes()]), want, "{text:?}");
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(parse(&bytes), want, "byte by byte: {text:?}");
        };
        check("data: a\n\n", &[("", "message", "a")]);
        check(
            "id: 7\nevent: msg\ndata: a\ndata:b\n\n",
            &[("7", "msg", "a\nb")],
        );
        check(
            "id: 7\r\ndata: a\r\n\r\ndata: b\r\n\r\n",
            &[("7", "message", "a"), ("7", "message", "b")],
        );
        check(": hb\n\n:\n\n", &[]);
        check("data: cut off\n", &[]);
        check("id: 9\n\n", &[("9", "message", "")]);
        check(
            "retry: 10\ndata: {\"a\":1}\rdata\n\n",
            &[("", "message", "{\"a\":1}\n")],
        );
    }

    proptest::proptest! {
        #[test]
        fn cuts_do_not_matter(text in "(data|id|:|\r|\n|é| |x){0,40}", cut in 0_usize..100) {
            let bytes = text.as_bytes();
            let cut = cut.min(bytes.len());
            proptest::prop_assert_eq!(parse(&[bytes]), parse(&[&bytes[..cut], &bytes[cut..]]));
        }
    }
}
