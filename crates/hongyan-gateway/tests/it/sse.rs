//! Server-sent events (clauses SSE-n of the protocol notes) as far as they are the gateway's; headers and HTTP versions are
//! the API's.

use std::time::Duration;

use futures_util::StreamExt as _;
use hongyan_core::Cursor;
use hongyan_core::port::{Ack, Inbox as _, Owner, Presence as _, Reader};
use hongyan_gateway::pipe::Stream;
use hongyan_gateway::protocol::sse::{AckMode, Caller, Request, Turned};
use hongyan_gateway::protocol::websocket::close;
use serde_json::{Value, json};

use crate::rig::{FAR, Rig};
use crate::store::{app, device, hash, user};

/// One event as a standard client reads it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) id: Option<String>,
    pub(crate) data: Value,
}

/// A client of a stream.
pub(crate) struct Reading<'a> {
    rig: &'a Rig,
    stream: Stream,
    text: Vec<u8>,
    pub(crate) retry: Option<u64>,
    pub(crate) comments: Vec<String>,
    last_id: Option<String>,
}

pub(crate) fn caller(name: &str) -> Caller {
    Caller::Device {
        app: app(),
        device: device(name),
        secret_hash: hash(&format!("token-{name}")),
    }
}

pub(crate) fn request(cursor: Option<Cursor>, ack: AckMode) -> Request {
    Request {
        caller: caller("d"),
        cursor,
        inflight: None,
        ack,
    }
}

pub(crate) fn open(rig: &Rig, request: Request) -> Result<Reading<'_>, Turned> {
    let permit = rig.handle.admit([127, 0, 0, 1].into()).unwrap();
    let stream = rig
        .runtime
        .block_on(rig.handle.open_stream(request, permit))?;
    Ok(Reading {
        rig,
        stream,
        text: Vec::new(),
        retry: None,
        comments: Vec::new(),
        last_id: None,
    })
}

impl Reading<'_> {
    /// The next event; nothing when the stream has ended.
    pub(crate) fn hear(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.text.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = self.text.drain(..end + 2).collect();
                let block = String::from_utf8(block).unwrap();
                let mut event = Event::default();
                let mut data = Vec::new();
                for line in block.lines() {
                    match line.split_once(':') {
                        Some(("", comment)) => self.comments.push(comment.trim().to_owned()),
                        Some(("event", value)) => event.name = value.trim().to_owned(),
                        Some(("id", value)) => self.last_id = Some(value.trim().to_owned()),
                        Some(("retry", value)) => self.retry = value.trim().parse().ok(),
                        Some(("data", value)) => {
                            data.push(value.strip_prefix(' ').unwrap_or(value))
                        }
                        _ => {}
                    }
                }
                if data.is_empty() {
                    continue;
                }
                event.id = self.last_id.clone();
                event.data = serde_json::from_str(&data.join("\n")).unwrap();
                return Some(event);
            }
            let more = self.rig.runtime.block_on(async {
                tokio::time::timeout(Duration::from_secs(10), self.stream.next())
                    .await
                    .expect("something on the stream in time")
            })?;
            self.text.extend_from_slice(&more);
        }
    }

    pub(crate) fn expect(&mut self, name: &str) -> Event {
        let event = self.hear().unwrap_or_default();
        assert_eq!(event.name, name, "{event:?}");
        event
    }

    fn bodies(&mut self, count: usize) -> Vec<String> {
        (0..count)
            .map(|_| {
                let event = self.expect("msg");
                event.data["notification"]["body"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect()
    }
}

fn place(event: &Event) -> Cursor {
    Cursor::parse(event.id.as_deref().unwrap()).unwrap()
}

pub(crate) fn reader() -> Reader {
    Reader {
        app: app(),
        device: device("d"),
        user: Some(user("u")),
    }
}

#[test]
fn sse_1_a_stream_begins_at_once_with_and_without_entries() {
    let rig = Rig::new();
    let mut empty = open(&rig, request(None, AckMode::Explicit)).unwrap();
    let welcome = empty.expect("welcome");
    assert_eq!(welcome.data["t"], "welcome");
    assert_eq!(welcome.data["device"], "d");
    assert_eq!(empty.comments, ["hongyan"], "the first bytes");
    empty.expect("idle");
    drop(empty);
    rig.publish("u", "one");
    let mut stream = open(&rig, request(None, AckMode::Explicit)).unwrap();
    stream.expect("welcome");
    let message = stream.expect("msg");
    assert_eq!(message.data["t"], "msg");
    assert_eq!(message.data["cursor"], json!(message.id));
    stream.expect("idle");
    let presence = rig.hub.sessions(&app(), &[device("d")]);
    assert_eq!(presence[0].as_ref().unwrap().protocol, "sse");
}

#[test]
fn sse_2_any_text_arrives_unchanged() {
    let rig = Rig::new();
    let mut stream = open(&rig, request(None, AckMode::Explicit)).unwrap();
    stream.expect("welcome");
    stream.expect("idle");
    let long = "雁".repeat(70_000);
    let bodies = [
        "a\nb",
        "a\r\nb\r",
        "nul\u{0}",
        ":comment",
        "data: x\n\nid: 9",
        "𝄞",
        &long,
    ];
    for body in bodies {
        rig.publish("u", body);
        assert_eq!(stream.bodies(1), [body]);
    }
}

#[test]
fn sse_3_resume_goes_on_and_explicit_repeats() {
    let rig = Rig::new();
    for n in 0..6 {
        rig.publish("u", &n.to_string());
    }
    let mut stream = open(&rig, request(None, AckMode::Explicit)).unwrap();
    stream.expect("welcome");
    stream.expect("msg");
    let second = stream.expect("msg");
    drop(stream);
    rig.until("the session ends", || rig.hub.stats().sessions == 0);
    // Explicit: what was not acknowledged comes again, from the first.
    let mut stream = open(&rig, request(Some(place(&second)), AckMode::Explicit)).unwrap();
    assert_eq!(stream.expect("welcome").data["replay"], "resume");
    let first = stream.expect("msg");
    assert_eq!(first.data["notification"]["body"], "0");
    assert_eq!(first.data["dup"], true);
    drop(stream);
    rig.until("the session ends", || rig.hub.stats().sessions == 0);
    // Resume: coming back with an id acknowledges everything up to it.
    let mut stream = open(&rig, request(Some(place(&second)), AckMode::Resume)).unwrap();
    stream.expect("welcome");
    rig.until("the first two are acknowledged", || {
        rig.store.unread("d", Some("u")) == 4
    });
    drop(stream);
    rig.until("the session ends", || rig.hub.stats().sessions == 0);
    let mut stream = open(&rig, request(Some(place(&second)), AckMode::Resume)).unwrap();
    stream.expect("welcome");
    assert_eq!(stream.bodies(4), ["2", "3", "4", "5"]);
}

#[test]
fn sse_4_a_cut_in_the_middle_of_an_event_loses_nothing() {
    let rig = Rig::new();
    let body = "x".repeat(100_000);
    rig.publish("u", &body);
    let mut stream = open(&rig, request(None, AckMode::Resume)).unwrap();
    let cut = rig.runtime.block_on(stream.stream.next()).unwrap();
    assert!(
        !cut.ends_with(b"x\"}\n\n"),
        "only a part of it fits the pipe"
    );
    drop(stream);
    let mut stream = open(&rig, request(None, AckMode::Resume)).unwrap();
    stream.expect("welcome");
    assert_eq!(stream.bodies(1), [body]);
}

#[test]
fn sse_5_strangers_are_told_before_the_stream_begins() {
    let rig = Rig::new();
    let stranger = Request {
        caller: caller("nobody"),
        ..request(None, AckMode::Explicit)
    };
    assert_eq!(
        open(&rig, stranger).err().unwrap().code,
        close::UNAUTHORIZED
    );
    let forged = Request {
        caller: Caller::Device {
            app: app(),
            device: device("d"),
            secret_hash: hash("token-e"),
        },
        ..request(None, AckMode::Explicit)
    };
    assert_eq!(open(&rig, forged).err().unwrap().code, close::UNAUTHORIZED);
    rig.until("nobody is half in", || rig.hub.stats().half_open == 0);
    // Who was replaced is told apart from who only comes again.
    let mut first = open(&rig, request(None, AckMode::Explicit)).unwrap();
    let session = first.expect("welcome").data["session"].clone();
    let mut second = open(&rig, request(None, AckMode::Explicit)).unwrap();
    first.expect("idle");
    first.expect("taken");
    assert_eq!(first.hear(), None, "and its stream ends");
    assert!(rig.hub.was_taken(session.as_str()));
    let other = second.expect("welcome").data["session"].clone();
    assert!(!rig.hub.was_taken(other.as_str()));
    assert!(!rig.hub.was_taken(None) && !rig.hub.was_taken(Some("x")));
}

#[test]
fn sse_6_a_silent_stream_is_kept_alive_by_comments() {
    let rig = Rig::new();
    let mut stream = open(&rig, request(None, AckMode::Explicit)).unwrap();
    stream.expect("welcome");
    stream.expect("idle");
    for _ in 0..3 {
        // Not before it is due, and not twice.
        rig.advance(Duration::from_millis(14_000));
        let early = rig.runtime.block_on(async {
            tokio::time::timeout(Duration::from_millis(50), stream.stream.next()).await
        });
        assert!(early.is_err(), "{early:?}");
        rig.advance(Duration::from_millis(1_100));
        let bytes = rig.runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(10), stream.stream.next()).await
        });
        assert_eq!(bytes.unwrap().as_deref(), Some(b": hb\n\n".as_slice()));
    }
    // After an hour it ends, and the client comes back.
    rig.advance(Duration::from_secs(3600 * 11 / 10 + 1));
    while stream.hear().is_some() {}
    assert!(stream.retry.is_some_and(|ms| (1000..5000).contains(&ms)));
}

#[test]
fn sse_7_waits_before_coming_back_differ() {
    let rig = Rig::new();
    let mut waits = std::collections::BTreeSet::new();
    for n in 0..20 {
        let name = format!("d{n}");
        rig.store.add_device(&name, Some("u"));
        let asked = Request {
            caller: caller(&name),
            ..request(None, AckMode::Explicit)
        };
        let mut stream = open(&rig, asked).unwrap();
        stream.expect("welcome");
        let retry = stream.retry.unwrap();
        assert!((1000..5000).contains(&retry));
        waits.insert(retry);
    }
    assert!(waits.len() > 10, "{waits:?}");
}

#[test]
fn sse_9_nothing_is_acknowledged_by_being_written() {
    let rig = Rig::new();
    for n in 0..40 {
        rig.publish("u", &n.to_string());
    }
    let mut stream = open(&rig, request(None, AckMode::Explicit)).unwrap();
    stream.expect("welcome");
    assert_eq!(stream.bodies(32).len(), 32, "as many as may be in flight");
    rig.until("sent", || rig.sink.sent().len() == 32);
    assert_eq!(rig.store.unread("d", Some("u")), 40);
    // Acknowledged over HTTP, the rest follows on the same stream.
    let ids = rig.sink.sent();
    let ack = Ack::Ids(ids[..10].to_vec());
    rig.runtime
        .block_on(
            rig.store
                .ack(&reader(), ack.clone(), hongyan_core::Timestamp(0)),
        )
        .unwrap();
    rig.hub.acked(&reader(), ack);
    assert_eq!(stream.bodies(8).last().unwrap(), "39");
}

#[test]
fn a_stream_that_acknowledges_by_coming_back_is_asked_to() {
    let rig = Rig::new();
    for n in 0..300 {
        rig.store
            .append(Owner::User(user("u")), &n.to_string(), FAR);
    }
    let mut seen = Vec::new();
    let mut last = None;
    while seen.len() < 300 {
        let mut stream = open(&rig, request(last, AckMode::Resume)).unwrap();
        while let Some(event) = stream.hear() {
            if event.name == "msg" {
                last = Some(place(&event));
                seen.push(
                    event.data["notification"]["body"]
                        .as_str()
                        .unwrap()
                        .to_owned(),
                );
            }
            if event.name == "idle" {
                break;
            }
        }
    }
    let want: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    assert_eq!(seen, want);
}

#[test]
fn a_reader_that_never_reads_costs_a_bounded_pipe() {
    let rig = Rig::new();
    let body = "x".repeat(20_000);
    for _ in 0..200 {
        rig.store.append(Owner::User(user("u")), &body, FAR);
    }
    let slow = open(
        &rig,
        Request {
            inflight: Some(256),
            ..request(None, AckMode::Explicit)
        },
    )
    .unwrap();
    // No progress for long: it is closed, and its device may come again.
    for _ in 0..4 {
        rig.advance(Duration::from_secs(10));
    }
    rig.until("the slow reader is closed", || {
        rig.hub.stats().sessions == 0
    });
    drop(slow);
    rig.until("its socket too", || rig.hub.stats().sockets == 0);
    assert_eq!(rig.store.unread("d", Some("u")), 200);
}

#[test]
fn a_drain_tells_streams_and_ends_them() {
    let rig = Rig::new();
    let mut stream = open(&rig, request(None, AckMode::Explicit)).unwrap();
    stream.expect("welcome");
    stream.expect("idle");
    let hub = rig.hub.clone();
    let drained = rig
        .runtime
        .spawn(async move { hub.drain(Duration::from_millis(200)).await });
    stream.retry = None;
    stream.expect("drain");
    assert!(stream.retry.is_some());
    rig.advance(Duration::from_secs(1));
    assert_eq!(stream.hear(), None);
    drop(stream);
    rig.advance(Duration::from_secs(1));
    rig.runtime.block_on(drained).unwrap();
}

#[test]
fn a_recall_and_a_revoked_token_reach_a_stream() {
    let rig = Rig::new();
    let mut stream = open(&rig, request(None, AckMode::Explicit)).unwrap();
    stream.expect("welcome");
    stream.expect("idle");
    let id = rig.publish("u", "one");
    stream.expect("msg");
    rig.hub.recall(&app(), &Owner::User(user("u")), id);
    assert_eq!(stream.expect("recall").data["id"], json!(id));
    let hub = rig.hub.clone();
    rig.runtime
        .block_on(async move { hub.disconnect(&app(), &device("d")).await });
    assert_eq!(stream.hear().filter(|event| event.name != "error"), None);
}
