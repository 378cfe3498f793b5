//! The messages of `hongyan.v1+json` and `hongyan.v1+cbor` (websocket.md section 4).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use jiff::Timestamp;
use serde::de::{Deserializer, Error as _, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_tungstenite::tungstenite;

use crate::options::Codec;

/// Whether a person looks at the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum AppState {
    /// The app is on the screen.
    #[default]
    Foreground,
    /// The app runs unseen.
    Background,
}

/// What a person did with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// It was on the screen.
    Displayed,
    /// It was tapped.
    Clicked,
    /// The app was opened by it.
    Opened,
    /// It was swiped away.
    Dismissed,
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NackCode {
    /// Send it again later.
    Retry,
    /// The app cannot read it; do not send it again.
    BadPayload,
    /// The app decided not to show it; do not send it again.
    NotShown,
}

/// A client event, as it goes over the connection and over `POST /v1/client-events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientEvent {
    /// The message.
    pub id: String,
    /// What happened.
    pub kind: EventKind,
    /// When.
    pub at: Timestamp,
}

/// A message for this device, with the fields that the app server sent.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Message {
    /// The message's id: one per message, whatever arrives how often.
    pub id: String,
    /// Its place in the inbox; opaque.
    pub cursor: String,
    /// When it was accepted.
    #[serde(default, deserialize_with = "moment")]
    pub at: Option<Timestamp>,
    /// When it expires.
    #[serde(default, deserialize_with = "moment")]
    pub exp: Option<Timestamp>,
    /// `im`, `transaction`, `subscription` or `marketing`.
    #[serde(default)]
    pub class: String,
    /// The topic through which it came.
    #[serde(default)]
    pub topic: Option<String>,
    /// What a person shall see; fields as in the API.
    #[serde(default)]
    pub notification: Option<Value>,
    /// What the app shall know.
    #[serde(default)]
    pub data: Option<Value>,
    /// A raw payload.
    #[serde(default, rename = "b64", deserialize_with = "raw")]
    pub raw: Option<Bytes>,
    /// Shown in place of the message that had the same key.
    #[serde(default)]
    pub collapse_key: Option<String>,
    /// Who may open it, when it says so: `owner` or `anyone`.
    #[serde(default)]
    pub click_guard: Option<String>,
    /// Whether the app opens it without its splash screen.
    #[serde(default)]
    pub skip_splash: Option<bool>,
    /// The channel through which it came, when somebody posted it to an endpoint: `raw` is the body, byte for byte.
    #[serde(default)]
    pub ch: Option<String>,
    /// How soon the person should hear of it, by its sender: `very-low`, `low`, `normal` or `high`.
    #[serde(default)]
    pub urgency: Option<String>,
    /// How `raw` is encrypted: `aes128gcm` or `aesgcm`; none when its sender says nothing.
    #[serde(default)]
    pub encoding: Option<String>,
    /// With `aesgcm`: `salt=…`.
    #[serde(default)]
    pub encryption: Option<String>,
    /// With `aesgcm`: `dh=…`.
    #[serde(default)]
    pub crypto_key: Option<String>,
    /// Whether the gateway had sent it to this device before.
    #[serde(default)]
    pub dup: bool,
}

impl Message {
    /// The title that a person shall see.
    #[must_use]
    pub fn title(&self) -> Option<&str> {
        self.notification.as_ref()?.get("title")?.as_str()
    }

    /// The text that a person shall see.
    #[must_use]
    pub fn body(&self) -> Option<&str> {
        self.notification.as_ref()?.get("body")?.as_str()
    }
}

/// What the client says.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub(crate) enum Outgoing<'a> {
    Hello {
        v: u8,
        auth: Auth<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cursor: Option<&'a str>,
        inflight: u16,
        state: AppState,
    },
    Ack {
        #[serde(skip_serializing_if = "Option::is_none")]
        upto: Option<&'a str>,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        ids: &'a [String],
    },
    Event(&'a ClientEvent),
    State {
        state: AppState,
    },
    Sub {
        topic: &'a str,
    },
    Unsub {
        topic: &'a str,
    },
    Nack {
        id: &'a str,
        code: NackCode,
    },
    Ping {
        n: u64,
    },
    Bye,
}

#[derive(Clone, PartialEq, Serialize)]
pub(crate) struct Auth<'a> {
    pub(crate) token: &'a str,
}

impl fmt::Debug for Auth<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Auth(…)")
    }
}

/// What the gateway says. Fields that this client does not use are not read.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub(crate) enum Incoming {
    Welcome(Welcome),
    Msg(Box<Message>),
    Gap {
        #[serde(default)]
        lost: Option<u64>,
    },
    Recall {
        id: String,
        /// Its place, when it stands in the inbox.
        #[serde(default)]
        cursor: Option<String>,
        /// Its own id there.
        #[serde(default)]
        mark: Option<String>,
    },
    /// Of the client's own making, from a poll's answer.
    #[serde(skip)]
    Mixed(Box<Mixed>),
    Idle {
        #[serde(default)]
        head: Option<String>,
    },
    Pong {
        #[serde(default)]
        n: Option<u64>,
        #[serde(default)]
        head: Option<String>,
    },
    Drain {
        #[serde(default)]
        after_ms: u64,
    },
    Error {
        #[serde(default)]
        code: String,
        #[serde(default)]
        msg: String,
        #[serde(default)]
        fatal: bool,
    },
    SubOk {
        #[serde(default)]
        topic: Option<String>,
    },
    UnsubOk {
        #[serde(default)]
        topic: Option<String>,
    },
    /// A later protocol's message; ignored.
    #[serde(other)]
    Unknown,
}

/// Messages and recalls in two lists, so that a place of one of them says nothing of those in the other.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mixed {
    pub(crate) messages: Vec<Message>,
    pub(crate) recalled: Vec<Recalled>,
    /// The place behind all of them.
    pub(crate) cursor: String,
}

/// A recall in a poll's answer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Recalled {
    /// The message.
    pub(crate) id: String,
    /// The recall's own id.
    pub(crate) mark: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Welcome {
    #[serde(default)]
    pub(crate) session: Value,
    #[serde(default)]
    pub(crate) device: Option<String>,
    #[serde(default)]
    pub(crate) head: Option<String>,
    pub(crate) hb: f64,
    #[serde(default)]
    pub(crate) inflight: Option<u16>,
    #[serde(default)]
    pub(crate) replay: Option<String>,
}

/// Encodes one message as one frame.
pub(crate) fn encode(codec: Codec, message: &Outgoing<'_>) -> Option<tungstenite::Message> {
    match codec {
        Codec::Json => serde_json::to_string(message)
            .ok()
            .map(tungstenite::Message::text),
        Codec::Cbor => {
            let mut bytes = Vec::new();
            ciborium::into_writer(message, &mut bytes).ok()?;
            Some(tungstenite::Message::binary(bytes))
        }
    }
}

/// Whether the bytes are a message of the server that this SDK understands: text frames are JSON, binary ones CBOR. For those who
/// feed it bytes.
#[must_use]
pub fn understands(frame: &[u8], binary: bool) -> bool {
    match (binary, std::str::from_utf8(frame)) {
        (true, _) => decode_binary(frame).is_ok(),
        (false, Ok(text)) => decode_text(text).is_ok(),
        (false, Err(_)) => false,
    }
}

/// Decodes a text frame.
pub(crate) fn decode_text(text: &str) -> Result<Incoming, String> {
    serde_json::from_str(text).map_err(|e| e.to_string())
}

/// Decodes a binary frame.
pub(crate) fn decode_binary(bytes: &[u8]) -> Result<Incoming, String> {
    ciborium::from_reader(bytes).map_err(|e| e.to_string())
}

/// Reads milliseconds since the epoch or RFC 3339; what is neither counts as not said.
fn moment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let value = Option::<Value>::deserialize(deserializer)?;
    Ok(match value {
        Some(Value::Number(n)) => n
            .as_i64()
            .and_then(|ms| Timestamp::from_millisecond(ms).ok()),
        Some(Value::String(text)) => text.parse().ok(),
        _ => None,
    })
}

/// Reads base64url text (JSON) or bytes (CBOR).
fn raw<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Bytes>, D::Error> {
    struct RawVisitor;
    impl<'de> Visitor<'de> for RawVisitor {
        type Value = Option<Bytes>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("base64url text or bytes")
        }
        fn visit_none<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
            d.deserialize_any(self)
        }
        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
            URL_SAFE_NO_PAD
                .decode(text)
                .map(|b| Some(Bytes::from(b)))
                .map_err(E::custom)
        }
        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
            Ok(Some(Bytes::copy_from_slice(bytes)))
        }
        fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Self::Value, E> {
            Ok(Some(Bytes::from(bytes)))
        }
    }
    deserializer
        .deserialize_any(RawVisitor)
        .map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(message: &Outgoing<'_>) -> String {
        encode(Codec::Json, message)
            .unwrap()
            .into_text()
            .unwrap()
            .to_string()
    }

    #[test]
    fn outgoing_json() {
        let check = |message: Outgoing<'_>, want: &str| assert_eq!(text(&message), want);
        check(
            Outgoing::Hello {
                v: 1,
                auth: Auth { token: "s" },
                cursor: None,
                inflight: 32,
                state: AppState::Background,
            },
            r#"{"t":"hello","v":1,"auth":{"token":"s"},"inflight":32,"state":"background"}"#,
        );
        check(
            Outgoing::Ack {
                upto: Some("c"),
                ids: &[],
            },
            r#"{"t":"ack","upto":"c"}"#,
        );
        check(
            Outgoing::Ack {
                upto: None,
                ids: &["a".to_owned()],
            },
            r#"{"t":"ack","ids":["a"]}"#,
        );
        check(
            Outgoing::State {
                state: AppState::Foreground,
            },
            r#"{"t":"state","state":"foreground"}"#,
        );
        check(
            Outgoing::Nack {
                id: "m",
                code: NackCode::BadPayload,
            },
            r#"{"t":"nack","id":"m","code":"bad_payload"}"#,
        );
        check(Outgoing::Bye, r#"{"t":"bye"}"#);
        let event = ClientEvent {
            id: "m".into(),
            kind: EventKind::Clicked,
            at: Timestamp::from_millisecond(0).unwrap(),
        };
        check(
            Outgoing::Event(&event),
            r#"{"t":"event","id":"m","kind":"clicked","at":"1970-01-01T00:00:00Z"}"#,
        );
    }

    #[test]
    fn both_codecs_read_the_same_message() {
        let json = decode_text(
            r#"{"t":"msg","cursor":"c1","id":"m1","at":1767229200123,"class":"im","later":[1],
                "notification":{"title":"hi"},"data":{"n":1.5},"b64":"AP8"}"#,
        )
        .unwrap();
        let mut cbor = Vec::new();
        use ciborium::cbor;
        let value = cbor!({
            "t" => "msg", "cursor" => "c1", "id" => "m1", "at" => "2026-01-01T01:00:00.123Z",
            "class" => "im", "notification" => {"title" => "hi"}, "data" => {"n" => 1.5},
            "b64" => ciborium::Value::Bytes(vec![0, 255]),
        })
        .unwrap();
        ciborium::into_writer(&value, &mut cbor).unwrap();
        assert_eq!(decode_binary(&cbor).unwrap(), json);
        let Incoming::Msg(message) = json else {
            panic!("not a msg")
        };
        assert_eq!(message.raw.as_deref(), Some(&[0, 255][..]));
        assert_eq!(message.title(), Some("hi"));
    }

    #[test]
    fn later_messages_are_unknown_and_broken_ones_are_errors() {
        assert_eq!(
            decode_text(r#"{"t":"hologram","x":1}"#),
            Ok(Incoming::Unknown)
        );
        assert!(decode_text("{").is_err());
        assert!(decode_text(r#"{"t":"recall"}"#).is_err());
        assert!(decode_binary(&[0xff, 0x00]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn decoding_never_panics(bytes: Vec<u8>, text: String) {
            let _ = decode_binary(&bytes);
            let _ = decode_text(&text);
        }
    }
}
