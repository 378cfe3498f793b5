//! Messages from clients, `hongyan.v1` (JSON and CBOR carry the same keys).

use hongyan_core::session::AppState;
use hongyan_core::{Cursor, MessageId, Secret, Stage, Timestamp, Topic};
use serde::Deserialize;

use super::Encoding;

/// Most ids in one `ack`.
pub const ACK_IDS_MAX: usize = 256;
/// Largest `inflight` that a client may ask for.
pub const INFLIGHT_MAX: u16 = 256;

/// What a client said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientMessage {
    /// The first message.
    Hello(Hello),
    /// Everything up to this place was processed.
    AckUpto(Cursor),
    /// These messages were processed; ids that are none of ours are left out.
    AckIds(Vec<MessageId>),
    /// What the person did with a message.
    Event {
        /// The message; `None` when the id is none of ours.
        id: Option<MessageId>,
        /// What.
        stage: Stage,
        /// When, by the client's clock.
        at: Option<Timestamp>,
    },
    /// The app went to the front or back.
    State(AppState),
    /// Begin to follow a topic.
    Subscribe(Topic),
    /// Stop following a topic.
    Unsubscribe(Topic),
    /// The message could not be used.
    Nack {
        /// The message; `None` when the id is none of ours.
        id: Option<MessageId>,
        /// Whether it is to be sent again later.
        retry: bool,
    },
    /// Asks for a pong.
    Ping(Option<u64>),
    /// Asks for a close.
    Bye,
}

/// See [`ClientMessage::Hello`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The device token.
    pub token: Secret,
    /// The place that the client stored.
    pub cursor: Option<Cursor>,
    /// How many unacked messages it takes, 1 to [`INFLIGHT_MAX`].
    pub inflight: Option<u16>,
    /// Whether its app is in front.
    pub state: AppState,
}

/// Why a message cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Misunderstood {
    /// Stable word for the `error` message.
    pub code: &'static str,
    /// What is wrong and what is expected.
    pub detail: &'static str,
    /// Close code, when the connection cannot go on.
    pub close: Option<u16>,
}

impl Misunderstood {
    fn fatal(code: &'static str, detail: &'static str) -> Self {
        Self {
            code,
            detail,
            close: Some(crate::protocol::websocket::close::BAD_MESSAGE),
        }
    }

    fn mild(code: &'static str, detail: &'static str) -> Self {
        Self {
            code,
            detail,
            close: None,
        }
    }
}

/// Every field of every client message; which ones count depends on `t`.
#[derive(Deserialize)]
struct Wire {
    t: String,
    v: Option<u64>,
    auth: Option<Auth>,
    cursor: Option<String>,
    inflight: Option<u64>,
    state: Option<AppState>,
    upto: Option<String>,
    ids: Option<Vec<String>>,
    id: Option<String>,
    kind: Option<String>,
    at: Option<Time>,
    topic: Option<String>,
    code: Option<String>,
    n: Option<Count>,
}

/// The number of a ping.
#[derive(Deserialize)]
#[serde(untagged)]
enum Count {
    Whole(u64),
    Other(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct Auth {
    token: Option<String>,
    ticket: Option<String>,
}

/// Milliseconds since the epoch, or RFC 3339.
#[derive(Deserialize)]
#[serde(untagged)]
enum Time {
    Millis(i64),
    Text(String),
}

impl Time {
    fn read(self) -> Option<Timestamp> {
        match self {
            Self::Millis(millis) => Some(Timestamp(millis)),
            Self::Text(text) => Timestamp::parse_rfc3339(&text),
        }
    }
}

/// Reads one message.
///
/// # Errors
/// [`Misunderstood`], which says whether the connection may go on.
pub fn parse(encoding: Encoding, bytes: &[u8]) -> Result<ClientMessage, Misunderstood> {
    let wire: Wire = match encoding {
        Encoding::Json => serde_json::from_slice(bytes).ok(),
        Encoding::Cbor => {
            let mut rest = bytes;
            ciborium::from_reader(&mut rest)
                .ok()
                .filter(|_| rest.is_empty())
        }
    }
    .ok_or(Misunderstood::fatal(
        "bad_message",
        "not one object with a text field t and fields of the documented types",
    ))?;
    match wire.t.as_str() {
        "hello" => hello(wire).map(ClientMessage::Hello),
        "ack" => ack(wire),
        "event" => event(wire),
        "state" => wire
            .state
            .map(ClientMessage::State)
            .ok_or(Misunderstood::fatal(
                "bad_message",
                "state needs the field state: foreground or background",
            )),
        "sub" => topic(wire.topic).map(ClientMessage::Subscribe),
        "unsub" => topic(wire.topic).map(ClientMessage::Unsubscribe),
        "nack" => nack(wire),
        "ping" => match wire.n {
            None => Ok(ClientMessage::Ping(None)),
            Some(Count::Whole(n)) => Ok(ClientMessage::Ping(Some(n))),
            Some(Count::Other(_)) => Err(Misunderstood::mild(
                "bad_message",
                "n of a ping is a whole number from 0 to 2^64-1, or absent",
            )),
        },
        "bye" => Ok(ClientMessage::Bye),
        _ => Err(Misunderstood::mild(
            "unknown_type",
            "this value of t is not known",
        )),
    }
}

fn hello(wire: Wire) -> Result<Hello, Misunderstood> {
    if wire.v != Some(1) {
        return Err(Misunderstood::fatal("bad_version", "hello needs v: 1"));
    }
    let unauthorized = Misunderstood {
        code: "unauthorized",
        detail: "hello needs auth with a device token in token, or a ticket in ticket",
        close: Some(crate::protocol::websocket::close::UNAUTHORIZED),
    };
    let token = wire
        .auth
        .and_then(|auth| auth.token.or(auth.ticket))
        .ok_or(unauthorized)?;
    let inflight = match wire.inflight {
        None => None,
        Some(n) => Some(
            u16::try_from(n)
                .ok()
                .filter(|n| (1..=INFLIGHT_MAX).contains(n))
                .ok_or(Misunderstood::fatal(
                    "bad_message",
                    "inflight must be between 1 and 256",
                ))?,
        ),
    };
    Ok(Hello {
        token: Secret::new(token),
        cursor: wire
            .cursor
            .as_deref()
            .map(cursor)
            .transpose()
            .map_err(|mut error| {
                error.close = Some(crate::protocol::websocket::close::BAD_MESSAGE);
                error
            })?,
        inflight,
        state: wire.state.unwrap_or_default(),
    })
}

fn ack(wire: Wire) -> Result<ClientMessage, Misunderstood> {
    match (wire.upto, wire.ids) {
        (Some(upto), None) => cursor(&upto).map(ClientMessage::AckUpto),
        (None, Some(ids)) if ids.len() <= ACK_IDS_MAX => Ok(ClientMessage::AckIds(
            ids.iter()
                .filter_map(|id| MessageId::parse(id).ok())
                .collect(),
        )),
        _ => Err(Misunderstood::fatal(
            "bad_message",
            "ack needs either upto, a cursor, or ids, at most 256 of them",
        )),
    }
}

fn event(wire: Wire) -> Result<ClientMessage, Misunderstood> {
    let stage = match wire.kind.as_deref() {
        Some("displayed") => Stage::Displayed,
        Some("clicked") => Stage::Clicked,
        Some("opened") => Stage::Opened,
        Some("dismissed") => Stage::Dismissed,
        _ => {
            return Err(Misunderstood::fatal(
                "bad_message",
                "event needs kind: displayed, clicked, opened or dismissed",
            ));
        }
    };
    Ok(ClientMessage::Event {
        id: message_id(wire.id)?,
        stage,
        at: wire.at.and_then(Time::read),
    })
}

fn nack(wire: Wire) -> Result<ClientMessage, Misunderstood> {
    let retry = match wire.code.as_deref() {
        None | Some("retry") => true,
        Some("bad_payload" | "not_shown") => false,
        Some(_) => {
            return Err(Misunderstood::fatal(
                "bad_message",
                "code of nack must be retry, bad_payload or not_shown",
            ));
        }
    };
    Ok(ClientMessage::Nack {
        id: message_id(wire.id)?,
        retry,
    })
}

/// Ids that are none of ours are ignored by whoever acts on them; a missing one is an error.
fn message_id(id: Option<String>) -> Result<Option<MessageId>, Misunderstood> {
    let id = id.ok_or(Misunderstood::fatal(
        "bad_message",
        "the field id is missing",
    ))?;
    Ok(MessageId::parse(&id).ok())
}

fn topic(topic: Option<String>) -> Result<Topic, Misunderstood> {
    let topic = topic.ok_or(Misunderstood::fatal(
        "bad_message",
        "the field topic is missing",
    ))?;
    Topic::parse(&topic).map_err(|_| {
        Misunderstood::mild(
            "bad_topic",
            "a topic has 1 to 128 characters of A-Z, a-z, 0-9 and '_-.~%/:'",
        )
    })
}

fn cursor(text: &str) -> Result<Cursor, Misunderstood> {
    Cursor::parse(text).map_err(|_| {
        Misunderstood::mild(
            "bad_cursor",
            "the cursor is malformed; use one that the server gave, unchanged",
        )
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(text: &str) -> Result<ClientMessage, Misunderstood> {
        let both = parse(Encoding::Json, text.as_bytes());
        if let Ok(value) = serde_json::from_str::<serde_json::Value>(text) {
            let mut bytes = Vec::new();
            ciborium::into_writer(&value, &mut bytes).unwrap();
            assert_eq!(parse(Encoding::Cbor, &bytes), both, "cbor says the same");
        }
        both
    }

    fn check_error(text: &str, code: &str, close: Option<u16>) {
        let error = json(text).unwrap_err();
        assert_eq!((error.code, error.close), (code, close), "{text}");
    }

    const ID: &str = "0198f2f0-0000-7000-8000-000000000001";

    #[test]
    fn messages_are_read() {
        let cursor = Cursor {
            epoch: 1,
            reader: 2,
            user: 3,
            device: 4,
            broadcast: 5,
        };
        let ClientMessage::Hello(hello) = json(&format!(
            r#"{{"t":"hello","v":1,"auth":{{"token":"s"}},"cursor":"{cursor}","inflight":8,
               "state":"background","later":{{"x":[1,null]}}}}"#
        ))
        .unwrap() else {
            panic!("hello")
        };
        assert_eq!(hello.cursor, Some(cursor));
        assert_eq!(
            (hello.inflight, hello.state),
            (Some(8), AppState::Background)
        );
        assert_eq!(
            json(&format!(r#"{{"t":"ack","upto":"{cursor}"}}"#)),
            Ok(ClientMessage::AckUpto(cursor))
        );
        let id = MessageId::parse(ID).unwrap();
        assert_eq!(
            json(&format!(r#"{{"t":"ack","ids":["{ID}","nonsense"]}}"#)),
            Ok(ClientMessage::AckIds(vec![id]))
        );
        for at in ["5", r#""1970-01-01T00:00:00.005Z""#] {
            assert_eq!(
                json(&format!(
                    r#"{{"t":"event","id":"{ID}","kind":"clicked","at":{at}}}"#
                )),
                Ok(ClientMessage::Event {
                    id: Some(id),
                    stage: Stage::Clicked,
                    at: Some(Timestamp(5))
                })
            );
        }
        assert_eq!(
            json(&format!(r#"{{"t":"nack","id":"{ID}","code":"not_shown"}}"#)),
            Ok(ClientMessage::Nack {
                id: Some(id),
                retry: false
            })
        );
        assert_eq!(
            json(r#"{"t":"ping","n":7}"#),
            Ok(ClientMessage::Ping(Some(7)))
        );
        assert_eq!(json(r#"{"t":"ping"}"#), Ok(ClientMessage::Ping(None)));
        assert_eq!(
            json(r#"{"t":"ping","n":null}"#),
            Ok(ClientMessage::Ping(None))
        );
        assert_eq!(json(r#"{"t":"bye"}"#), Ok(ClientMessage::Bye));
    }

    #[test]
    fn faults_name_their_code() {
        check_error("", "bad_message", Some(4400));
        check_error("[]", "bad_message", Some(4400));
        check_error(r#"{"t":5}"#, "bad_message", Some(4400));
        check_error(r#"{"t":"fly"}"#, "unknown_type", None);
        for n in ["-1", "1.5", "\"7\"", "[7]", "18446744073709551616"] {
            let ping = format!(r#"{{"t":"ping","n":{n}}}"#);
            check_error(&ping, "bad_message", None);
        }
        check_error(
            r#"{"t":"hello","v":2,"auth":{"token":"x"}}"#,
            "bad_version",
            Some(4400),
        );
        check_error(r#"{"t":"hello","v":1}"#, "unauthorized", Some(4401));
        check_error(
            r#"{"t":"hello","v":1,"auth":{"cookie":"x"}}"#,
            "unauthorized",
            Some(4401),
        );
        assert!(json(r#"{"t":"hello","v":1,"auth":{"ticket":"x"}}"#).is_ok());
        check_error(
            r#"{"t":"hello","v":1,"auth":{"token":"x"},"inflight":0}"#,
            "bad_message",
            Some(4400),
        );
        check_error(
            r#"{"t":"hello","v":1,"auth":{"token":"x"},"cursor":"17"}"#,
            "bad_cursor",
            Some(4400),
        );
        check_error(r#"{"t":"ack"}"#, "bad_message", Some(4400));
        check_error(r#"{"t":"ack","upto":"zzz"}"#, "bad_cursor", None);
        check_error(r#"{"t":"sub","topic":"a b"}"#, "bad_topic", None);
        check_error(
            r#"{"t":"event","id":"x","kind":"eaten"}"#,
            "bad_message",
            Some(4400),
        );
    }

    #[test]
    fn the_token_is_not_printed() {
        let hello = json(r#"{"t":"hello","v":1,"auth":{"token":"hidden"}}"#).unwrap();
        assert!(!format!("{hello:?}").contains("hidden"));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(Encoding::Json, &bytes);
            let _ = parse(Encoding::Cbor, &bytes);
        }
    }
}
