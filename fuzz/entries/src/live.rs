//! What comes over live connections, on either side.

use hongyan_core::Cursor;
use hongyan_gateway::protocol::hongyan::incoming;
use hongyan_gateway::protocol::websocket::frame::{Decoder, Fault, Incoming};
use hongyan_gateway::{Encoding, handshake};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

use crate::{Entry, texts};

/// Longest message that frames may make here, bytes.
const MESSAGE_BYTES_MAX: usize = 512;

/// Client frames, whole and in pieces: both ways say the same, within the memory that is allowed.
pub(crate) const FRAMES: Entry = Entry {
    name: "frames",
    run: |bytes| {
        let Some((&piece, bytes)) = bytes.split_first() else {
            return;
        };
        let whole = decode(bytes, bytes.len().max(1));
        let pieces = decode(bytes, usize::from(piece).max(1));
        assert_eq!(whole, pieces, "frames mean the same in pieces of {piece}");
    },
    seeds: || {
        let masked = |first: u8, payload: &[u8]| {
            let mut frame = vec![7, first, 0x80 | payload.len() as u8, 1, 2, 3, 4];
            let mask = [1, 2, 3, 4].into_iter().cycle();
            frame.extend(payload.iter().zip(mask).map(|(byte, mask)| byte ^ mask));
            frame
        };
        let mut fragments = masked(0x01, "grüße".as_bytes());
        fragments.extend(&masked(0x89, b"ping")[1..]);
        fragments.extend(&masked(0x80, b" end")[1..]);
        let mut long = vec![3, 0x82, 0xfe, 0x01, 0x00, 0, 0, 0, 0];
        long.extend([b'x'; 256]);
        vec![
            masked(0x81, br#"{"t":"ping"}"#),
            masked(0x88, &[3, 0xe8, b'b', b'y', b'e']),
            fragments,
            long,
        ]
    },
};

/// What was said, and how it ended.
fn decode(bytes: &[u8], piece: usize) -> (Vec<(u8, Vec<u8>)>, Option<Fault>) {
    let mut decoder = Decoder::default();
    let mut said = Vec::new();
    for chunk in bytes.chunks(piece) {
        let mut chunk = chunk.to_vec();
        let mut at = 0;
        loop {
            match decoder.decode(&mut chunk, &mut at, MESSAGE_BYTES_MAX) {
                Ok(Some(incoming)) => said.push(match incoming {
                    Incoming::Text(text) => {
                        assert!(std::str::from_utf8(text).is_ok(), "text is UTF-8");
                        (1, text.to_vec())
                    }
                    Incoming::Binary(bytes) => (2, bytes.to_vec()),
                    Incoming::Ping(bytes) => (9, bytes.to_vec()),
                    Incoming::Pong(bytes) => (10, bytes.to_vec()),
                    Incoming::Close(_, reason) => (8, reason.to_vec()),
                }),
                Ok(None) => break,
                Err(fault) => return (said, Some(fault)),
            }
        }
        assert!(
            decoder.held_bytes() <= 4 * MESSAGE_BYTES_MAX,
            "what is held is bounded by the limit of a message"
        );
    }
    (said, None)
}

/// Messages of `hongyan.v1` from clients.
pub(crate) const CLIENT_MESSAGES: Entry = Entry {
    name: "client_messages",
    run: |bytes| {
        for encoding in [Encoding::Json, Encoding::Cbor] {
            if let Err(why) = incoming::parse(encoding, bytes) {
                assert!(
                    !why.code.is_empty() && !why.detail.is_empty(),
                    "a refusal has words"
                );
            }
        }
    },
    seeds: || {
        let json = [
            r#"{"t":"hello","v":1,"auth":{"token":"x"},"inflight":8,"state":"background"}"#,
            r#"{"t":"ack","ids":["01890a5d-ac96-774b-bcce-b302099a8057"]}"#,
            r#"{"t":"ack","upto":"abc"}"#,
            r#"{"t":"event","id":"x","kind":"clicked","at":"2026-01-01T00:00:00Z"}"#,
            r#"{"t":"sub","topic":"news"}"#,
            r#"{"t":"nack","id":"x","code":"retry"}"#,
            r#"{"t":"ping","n":18446744073709551615}"#,
            r#"{"t":"bye"}"#,
        ];
        both(&json)
    },
};

/// Messages of `hongyan.v1` to clients, as the SDK reads them.
pub(crate) const SERVER_MESSAGES: Entry = Entry {
    name: "server_messages",
    run: |bytes| {
        let json = serde_json::from_slice::<hongyan_client::Message>(bytes).ok();
        let cbor = ciborium::from_reader::<hongyan_client::Message, _>(bytes).ok();
        for message in json.into_iter().chain(cbor) {
            let _ = (message.title().map(str::len), message.body().map(str::len));
        }
        let _ = hongyan_client::wire::understands(bytes, false);
        let _ = hongyan_client::wire::understands(bytes, true);
    },
    seeds: || {
        both(&[
            r#"{"t":"welcome","session":"1","device":"d","head":"c","hb":45,"inflight":32,"replay":"full","now":1}"#,
            r#"{"t":"msg","cursor":"c","id":"1","at":1,"class":"im","notification":{"title":"a"},"dup":true}"#,
            r#"{"t":"drain","after_ms":1000}"#,
            r#"{"id":"1","cursor":"c","at":1,"exp":2,"class":"im","notification":{"title":"a","body":"b"}}"#,
            r#"{"id":"1","cursor":"c","at":"2026-01-01T00:00:00Z","data":{"a":[1,2.5,null]},"b64":"AAEC","dup":true}"#,
        ])
    },
};

/// Seeds in JSON and CBOR.
fn both(json: &[&str]) -> Vec<Vec<u8>> {
    let mut seeds = texts(json);
    for text in json {
        let value: Option<serde_json::Value> = serde_json::from_str(text).ok();
        let mut cbor = Vec::new();
        if value.is_some_and(|value| ciborium::into_writer(&value, &mut cbor).is_ok()) {
            seeds.push(cbor);
        }
    }
    seeds
}

/// The headers of an opening handshake: lines of `name: value`.
pub(crate) const HANDSHAKE: Entry = Entry {
    name: "handshake",
    run: |bytes| {
        let mut headers = HeaderMap::new();
        for line in bytes.split(|byte| *byte == b'\n').take(64) {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else {
                continue;
            };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
            {
                headers.append(name, value);
            }
        }
        let origins = ["https://app.example".to_owned()];
        match handshake::check(
            handshake::Door::Hongyan,
            &Method::GET,
            Version::HTTP_11,
            &headers,
            &http::uri::Scheme::HTTP,
            None,
            &origins,
        ) {
            Ok(accepted) => {
                assert!(
                    HeaderValue::from_str(&accepted.accept).is_ok(),
                    "an answer can be written"
                );
            }
            Err(refused) => assert!(refused.status.is_client_error(), "{:?}", refused.status),
        }
    },
    seeds: || {
        texts(&[
            "host: a\nupgrade: WebSocket\nconnection: keep-alive, upgrade\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\nsec-websocket-version: 13\nsec-websocket-protocol: hongyan.v1+cbor, hongyan.v1+json\norigin: https://app.example",
        ])
    },
};

/// Cursors: what parses is written the same.
pub(crate) const CURSORS: Entry = Entry {
    name: "cursors",
    run: |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        if let Ok(cursor) = Cursor::parse(text) {
            assert_eq!(cursor.to_string(), text, "a cursor has one text form");
        }
    },
    seeds: || {
        let cursor = |user, broadcast| Cursor {
            epoch: 1,
            reader: 0xdead_beef,
            user,
            device: 0,
            broadcast,
        };
        vec![
            cursor(0, 0).to_string().into_bytes(),
            cursor(u64::MAX, 7).to_string().into_bytes(),
        ]
    },
};
