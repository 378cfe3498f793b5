//! What a browser says: one JSON object in each text message.

use std::collections::BTreeMap;

use hongyan_core::{MessageId, PushChannel};
use serde::Deserialize;
use serde_json::Value;

/// Broadcasts of one message that are looked at.
const BROADCASTS_MAX: usize = 64;
/// Updates of one `ack` that are looked at: what may be in flight, and some.
const UPDATES_MAX: usize = 512;

/// What was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// The first message.
    Hello {
        /// Who it was the last time; `None` also for what never was an identity.
        uaid: Option<String>,
        /// Broadcasts that it follows, with the versions it knows.
        broadcasts: BTreeMap<String, String>,
    },
    /// Wants an endpoint.
    Register {
        /// The channel as it was written, for the answer.
        channel: String,
        /// The same, when it is one: a UUID in lower case.
        parsed: Option<PushChannel>,
        /// The VAPID key to bind it to.
        key: Option<String>,
    },
    /// Gives a channel up.
    Unregister {
        channel: String,
        parsed: Option<PushChannel>,
    },
    /// Took notifications.
    Ack {
        /// Handed to the page's worker, or dropped as repeats.
        done: Vec<MessageId>,
        /// Could not be decrypted.
        unreadable: Vec<MessageId>,
    },
    /// The page's worker failed; the notification was acknowledged all the same.
    Nack,
    /// Follows broadcasts.
    Broadcasts(BTreeMap<String, String>),
    /// Asks for a sign of life.
    Ping,
    /// Of a kind that is not known.
    Unknown,
}

#[derive(Deserialize)]
struct Wire {
    #[serde(rename = "messageType")]
    kind: Option<Value>,
    uaid: Option<Value>,
    broadcasts: Option<BTreeMap<String, Value>>,
    #[serde(rename = "channelID")]
    channel: Option<String>,
    key: Option<String>,
    updates: Option<Vec<Update>>,
}

#[derive(Deserialize)]
struct Update {
    version: Option<String>,
    code: Option<u32>,
}

/// An identity as it is given out: 32 hexadecimal digits.
fn is_uaid(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// A channel: a UUID in lower case with dashes, and nothing around it.
fn channel(text: &str) -> Option<PushChannel> {
    let shape = text.len() == 36
        && text.bytes().enumerate().all(|(at, b)| match at {
            8 | 13 | 18 | 23 => b == b'-',
            _ => matches!(b, b'0'..=b'9' | b'a'..=b'f'),
        });
    shape.then(|| PushChannel::parse(text).ok()).flatten()
}

fn versions(all: Option<BTreeMap<String, Value>>) -> BTreeMap<String, String> {
    let all = all.unwrap_or_default().into_iter().take(BROADCASTS_MAX);
    all.map(|(id, version)| (id, version.as_str().unwrap_or_default().to_owned()))
        .collect()
}

/// Reads one message.
///
/// # Errors
/// What is wrong, when it is not an object of the protocol.
pub(crate) fn parse(bytes: &[u8]) -> Result<Said, &'static str> {
    let wire: Wire =
        serde_json::from_slice(bytes).map_err(|_| "not a JSON object of this protocol")?;
    let Some(kind) = &wire.kind else {
        return Ok(Said::Ping);
    };
    let named = |channel: Option<String>| channel.ok_or("the field channelID is missing");
    Ok(match kind.as_str() {
        Some("hello") => Said::Hello {
            uaid: wire
                .uaid
                .as_ref()
                .and_then(Value::as_str)
                .filter(|text| is_uaid(text))
                .map(str::to_owned),
            broadcasts: versions(wire.broadcasts),
        },
        Some("register") => {
            let text = named(wire.channel)?;
            Said::Register {
                parsed: channel(&text),
                channel: text,
                key: wire.key.filter(|key| !key.is_empty()),
            }
        }
        Some("unregister") => {
            let text = named(wire.channel)?;
            Said::Unregister {
                parsed: channel(&text),
                channel: text,
            }
        }
        Some("ack") => {
            let (mut done, mut unreadable) = (Vec::new(), Vec::new());
            for update in wire.updates.unwrap_or_default().iter().take(UPDATES_MAX) {
                let Some(id) = update
                    .version
                    .as_deref()
                    .and_then(|v| MessageId::parse(v).ok())
                else {
                    continue;
                };
                if update.code == Some(101) {
                    unreadable.push(id);
                } else {
                    done.push(id);
                }
            }
            Said::Ack { done, unreadable }
        }
        Some("nack") => Said::Nack,
        Some("broadcast_subscribe") => Said::Broadcasts(versions(wire.broadcasts)),
        Some("ping") => Said::Ping,
        _ => Said::Unknown,
    })
}

/// Reads a message, as a browser's. For those who feed it bytes.
#[must_use]
pub fn judge(bytes: &[u8]) -> bool {
    parse(bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(text: &str) -> Result<Said, &'static str> {
        parse(text.as_bytes())
    }

    #[test]
    fn identities_and_channels_have_one_form() {
        let uaid = |text: &str| match json(&format!(
            r#"{{"messageType":"hello","use_webpush":true,"uaid":{text},"channelIDs":[],"later":1}}"#
        )) {
            Ok(Said::Hello { uaid, .. }) => uaid,
            other => panic!("{other:?}"),
        };
        let good = "0123456789abcdef0123456789abcdef";
        assert_eq!(uaid(&format!("\"{good}\"")).as_deref(), Some(good));
        for bad in [
            "null",
            "5",
            "\"\"",
            "\"x\"",
            "\"0123456789ABCDEF0123456789ABCDEF\"",
        ] {
            assert_eq!(uaid(bad), None, "{bad}");
        }
        for (text, ok) in [
            ("6f6b3d5e-0000-4000-8000-000000000001", true),
            ("6F6B3D5E-0000-4000-8000-000000000001", false),
            ("{6f6b3d5e-0000-4000-8000-000000000001}", false),
            ("6f6b3d5e000040008000000000000001", false),
            ("", false),
        ] {
            assert_eq!(channel(text).is_some(), ok, "{text}");
        }
    }

    #[test]
    fn every_message_is_read() {
        assert_eq!(json("{}"), Ok(Said::Ping));
        assert_eq!(json(r#"{"messageType":"ping"}"#), Ok(Said::Ping));
        assert_eq!(json(r#"{"messageType":"fly"}"#), Ok(Said::Unknown));
        assert_eq!(json(r#"{"messageType":5}"#), Ok(Said::Unknown));
        assert_eq!(
            json(r#"{"messageType":"nack","version":"x","code":301}"#),
            Ok(Said::Nack)
        );
        let id = MessageId::parse("0198f2f0-0000-7000-8000-000000000001").unwrap();
        let ack = format!(
            r#"{{"messageType":"ack","updates":[{{"channelID":"c","version":"{id}","code":100}},
               {{"channelID":"c","version":"{id}","code":101}},{{"channelID":"c","version":"x"}}]}}"#
        );
        assert_eq!(
            json(&ack),
            Ok(Said::Ack {
                done: vec![id],
                unreadable: vec![id]
            })
        );
        assert!(json(r#"{"messageType":"register"}"#).is_err());
        for bad in ["", "[]", "x", r#"{"messageType":"register","channelID":5}"#] {
            assert!(json(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
