//! Messages to clients, `hongyan.v1`.
//!
//! A `msg` is written in two parts: what is particular to one session (cursor, `dup`) and the
//! rest, which is encoded once and shared by all sessions that get the message.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use hongyan_core::message::{ClickGuard, Notification, Target};
use hongyan_core::push::{PushEncoding, Urgency};
use hongyan_core::{Class, Cursor, Message, MessageId, PushChannel, Timestamp, Topic};
use serde::Serialize;

use super::Encoding;
use crate::protocol::websocket::frame::{self, Opcode};

/// Bytes of the mark of a recall, at most.
pub const MARK_BYTES_MAX: usize = 256;

/// What the gateway says, but for `msg`.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(tag = "t", rename_all = "snake_case")]
#[allow(missing_docs, reason = "fields are documented in the protocol's table")]
pub enum ServerMessage<'a> {
    Welcome {
        session: &'a str,
        device: &'a str,
        head: Place,
        /// Seconds.
        hb: u64,
        inflight: u16,
        replay: Replay,
        /// Milliseconds since the epoch.
        now: Timestamp,
    },
    Gap {
        lost: u64,
    },
    /// A message is to be taken out of sight. With a cursor it is an entry of the inbox, to be acknowledged up to there or
    /// by the id of its mark.
    Recall {
        id: Id,
        #[serde(skip_serializing_if = "Option::is_none")]
        cursor: Option<Place>,
        #[serde(skip_serializing_if = "Option::is_none")]
        mark: Option<Id>,
    },
    Idle {
        head: Place,
    },
    Pong {
        #[serde(skip_serializing_if = "Option::is_none")]
        n: Option<u64>,
        head: Place,
    },
    Drain {
        after_ms: u64,
    },
    SubOk {
        topic: &'a Topic,
    },
    Error {
        code: &'a str,
        msg: &'a str,
        fatal: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        topic: Option<&'a Topic>,
    },
}

/// A cursor in its text form.
#[derive(Debug, Clone, Copy)]
pub struct Place(pub Cursor);

impl Serialize for Place {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A message's id in its text form, in both encodings.
#[derive(Debug, Clone, Copy)]
pub struct Id(pub MessageId);

impl Serialize for Id {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl ServerMessage<'_> {
    /// A recall that is told at once, outside of the inbox.
    #[must_use]
    pub const fn recall(id: MessageId) -> Self {
        Self::Recall {
            id: Id(id),
            cursor: None,
            mark: None,
        }
    }

    /// The mark of a recall, at its place in the inbox.
    #[must_use]
    pub const fn mark(recalled: MessageId, place: Cursor, mark: MessageId) -> Self {
        Self::Recall {
            id: Id(recalled),
            cursor: Some(Place(place)),
            mark: Some(Id(mark)),
        }
    }
}

/// Whether the client's place was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Replay {
    /// The client's cursor belongs to this inbox.
    Resume,
    /// There was none, or it belongs to another epoch or reader.
    Full,
}

/// The part of a `msg` that all sessions share.
#[derive(Serialize)]
struct Shared<'a> {
    id: Id,
    at: Timestamp,
    exp: Timestamp,
    class: Class,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a Topic>,
    #[serde(skip_serializing_if = "Option::is_none")]
    notification: Option<WireNotification<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a serde_json::Map<String, serde_json::Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    collapse_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    click_guard: Option<ClickGuard>,
    #[serde(skip_serializing_if = "Option::is_none")]
    skip_splash: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ch: Option<&'a PushChannel>,
    #[serde(skip_serializing_if = "Option::is_none")]
    b64: Option<Raw<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    urgency: Option<Urgency>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encryption: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crypto_key: Option<&'a str>,
}

/// A body that came over a push endpoint: base64url in JSON, bytes in CBOR.
struct Raw<'a>(Encoding, &'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Encoding::Json => serializer.serialize_str(&URL_SAFE_NO_PAD.encode(self.1)),
            Encoding::Cbor => serializer.serialize_bytes(self.1),
        }
    }
}

#[derive(Serialize)]
struct WireNotification<'a> {
    title: &'a str,
    body: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    badge: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sound: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    click: Option<WireClick<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
}

#[derive(Serialize)]
struct WireClick<'a> {
    url: &'a str,
}

impl<'a> WireNotification<'a> {
    fn new(notification: &'a Notification) -> Self {
        Self {
            title: &notification.title,
            body: &notification.body,
            image: notification.image.as_deref(),
            badge: notification.badge,
            sound: notification.sound.as_deref(),
            click: notification
                .click
                .as_ref()
                .map(|click| WireClick { url: &click.url }),
            group: notification.group.as_deref(),
        }
    }
}

/// Encodes the shared part of a `msg`: an object or map of its own, whose opening is replaced for
/// each session by [`open_msg`].
#[must_use]
pub fn shared(encoding: Encoding, message: &Message) -> Bytes {
    let mut out = Vec::new();
    write_shared(encoding, message, &mut out);
    out.into()
}

/// Appends what [`shared`] gives.
pub fn write_shared(encoding: Encoding, message: &Message, out: &mut Vec<u8>) {
    let topic = match &message.to {
        Target::Topic(topic) => Some(topic),
        _ => None,
    };
    let push = message.push.as_deref();
    let old = push.and_then(|push| match &push.encoding {
        PushEncoding::Aesgcm {
            encryption,
            crypto_key,
        } => Some((encryption.as_str(), crypto_key.as_str())),
        PushEncoding::Aes128gcm | PushEncoding::Opaque => None,
    });
    let body = Shared {
        id: Id(message.id),
        at: message.accepted_at,
        exp: message.expires_at,
        class: message.class,
        topic,
        notification: message.notification.as_ref().map(WireNotification::new),
        data: message.data.as_ref(),
        // That of a push is ours, not the sender's.
        collapse_key: message
            .options
            .collapse_key
            .as_deref()
            .filter(|_| push.is_none()),
        click_guard: match message.options.click_guard {
            ClickGuard::Owner => None,
            ClickGuard::Anyone => Some(ClickGuard::Anyone),
        },
        skip_splash: message.options.skip_splash,
        ch: push.map(|push| &push.channel),
        b64: push.map(|push| Raw(encoding, &push.body)),
        urgency: push.map(|push| push.urgency),
        encoding: push.and_then(|push| push.encoding.as_str()),
        encryption: old.map(|(encryption, _)| encryption),
        crypto_key: old.map(|(_, crypto_key)| crypto_key),
    };
    write(encoding, &body, out);
}

/// Appends the frame header and the session's own part of a `msg`; the shared part without its
/// first byte must follow on the wire.
pub fn open_msg(encoding: Encoding, shared: &[u8], place: Cursor, dup: bool, out: &mut Vec<u8>) {
    let rest = shared.len().saturating_sub(1);
    let own = own_len(encoding, dup);
    let (header, length) = frame::header(opcode(encoding), own + rest);
    out.reserve(length + own);
    out.extend_from_slice(&header[..length]);
    write_begin(encoding, shared, place, dup, out);
}

/// The session's own part of a `msg`; the shared part without its first byte must follow.
#[must_use]
pub fn msg_begin(encoding: Encoding, shared: &[u8], place: Cursor, dup: bool) -> Vec<u8> {
    let mut own = Vec::with_capacity(own_len(encoding, dup));
    write_begin(encoding, shared, place, dup, &mut own);
    own
}

/// Bytes of the session's own part of a `msg`.
const fn own_len(encoding: Encoding, dup: bool) -> usize {
    Cursor::TEXT_BYTES
        + match (encoding, dup) {
            (Encoding::Json, false) => 23,
            (Encoding::Json, true) => 34,
            (Encoding::Cbor, false) => 16,
            (Encoding::Cbor, true) => 21,
        }
}

fn write_begin(encoding: Encoding, shared: &[u8], place: Cursor, dup: bool, own: &mut Vec<u8>) {
    match encoding {
        Encoding::Json => {
            own.extend_from_slice(b"{\"t\":\"msg\",\"cursor\":\"");
            own.extend_from_slice(&place.text());
            own.extend_from_slice(if dup { b"\",\"dup\":true," } else { b"\"," });
        }
        Encoding::Cbor => {
            // The shared map has at most sixteen keys, so its count and ours fit the first byte.
            let keys = shared.first().map_or(0, |byte| byte & 0x1f) + if dup { 3 } else { 2 };
            own.push(0xa0 | keys);
            own.extend_from_slice(b"\x61t\x63msg\x66cursor\x78");
            own.push(Cursor::TEXT_BYTES as u8);
            own.extend_from_slice(&place.text());
            if dup {
                own.extend_from_slice(b"\x63dup\xf5");
            }
        }
    }
}

/// Appends a whole frame.
pub fn encode(encoding: Encoding, message: &ServerMessage<'_>, out: &mut Vec<u8>) {
    frame::encode(opcode(encoding), &to_bytes(encoding, message), out);
}

fn opcode(encoding: Encoding) -> Opcode {
    match encoding {
        Encoding::Json => Opcode::Text,
        Encoding::Cbor => Opcode::Binary,
    }
}

/// The message as one line of JSON.
#[must_use]
pub fn json(message: &ServerMessage<'_>) -> Vec<u8> {
    to_bytes(Encoding::Json, message)
}

fn to_bytes<T: Serialize>(encoding: Encoding, value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    write(encoding, value, &mut out);
    out
}

/// These types have text keys and no failing parts, so writing to memory cannot fail.
fn write<T: Serialize>(encoding: Encoding, value: &T, out: &mut Vec<u8>) {
    let before = out.len();
    let written = match encoding {
        Encoding::Json => serde_json::to_writer(&mut *out, value).is_ok(),
        Encoding::Cbor => ciborium::into_writer(value, &mut *out).is_ok(),
    };
    if !written {
        out.truncate(before);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const CURSOR: Cursor = Cursor {
        epoch: 1,
        reader: 2,
        user: 3,
        device: 4,
        broadcast: 5,
    };

    fn payload(frame: &[u8]) -> &[u8] {
        match frame[1] {
            126 => &frame[4..],
            127 => &frame[10..],
            _ => &frame[2..],
        }
    }

    fn read(encoding: Encoding, bytes: &[u8]) -> Value {
        match encoding {
            Encoding::Json => serde_json::from_slice(bytes).unwrap(),
            Encoding::Cbor => ciborium::from_reader(bytes).unwrap(),
        }
    }

    fn message() -> Message {
        serde_json::from_value(json!({
            "id": "0198f2f0-0000-7000-8000-000000000001", "app": "demo",
            "to": {"topic": "news"}, "class": "subscription",
            "notification": {"title": "雁", "body": "x".repeat(300)},
            "data": {"a": [1, null, "b"]}, "accepted_at": 5, "expires_at": 10
        }))
        .unwrap()
    }

    #[test]
    fn msg_is_one_object_in_both_encodings() {
        for encoding in [Encoding::Json, Encoding::Cbor] {
            for dup in [false, true] {
                let shared = shared(encoding, &message());
                let mut out = Vec::new();
                open_msg(encoding, &shared, CURSOR, dup, &mut out);
                out.extend_from_slice(&shared[1..]);
                assert_eq!(
                    usize::from(u16::from_be_bytes([out[2], out[3]])),
                    payload(&out).len()
                );
                let value = read(encoding, payload(&out));
                assert_eq!(value["t"], "msg");
                assert_eq!(value["cursor"], CURSOR.to_string());
                assert_eq!(value.get("dup").is_some(), dup);
                assert_eq!(value["topic"], "news");
                assert_eq!(value["class"], "subscription");
                assert_eq!(value["at"], 5);
                assert_eq!(value["data"], json!({"a": [1, null, "b"]}));
                assert_eq!(value["notification"]["title"], "雁");
                assert!(value["notification"].get("image").is_none());
            }
        }
    }

    #[test]
    fn other_messages_have_their_type() {
        let cases = [
            (
                ServerMessage::Idle {
                    head: Place(CURSOR),
                },
                json!({"t": "idle", "head": CURSOR.to_string()}),
            ),
            (
                ServerMessage::Pong {
                    n: Some(4),
                    head: Place(CURSOR),
                },
                json!({"t": "pong", "n": 4, "head": CURSOR.to_string()}),
            ),
            (
                ServerMessage::Drain { after_ms: 9 },
                json!({"t": "drain", "after_ms": 9}),
            ),
            (
                ServerMessage::Error {
                    code: "x",
                    msg: "y",
                    fatal: true,
                    topic: None,
                },
                json!({"t": "error", "code": "x", "msg": "y", "fatal": true}),
            ),
        ];
        for (message, want) in cases {
            for encoding in [Encoding::Json, Encoding::Cbor] {
                let mut out = Vec::new();
                encode(encoding, &message, &mut out);
                assert_eq!(read(encoding, payload(&out)), want);
            }
        }
    }
}
