//! What devices say over HTTP.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use hongyan_core::{DeviceId, MessageId, Stage};

use super::Moment;

/// A way in for one connection.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Ticket {
    /// Goes into `hello` as `auth.ticket`.
    pub(crate) ticket: String,
    /// How long it is good, seconds.
    pub(crate) expires_in: u64,
}

/// Messages that a device has: everything up to a cursor, or these.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Acks {
    /// The device; must be the one that calls.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub(crate) device: Option<DeviceId>,
    /// Everything up to this cursor.
    #[serde(default)]
    pub(crate) upto: Option<String>,
    /// These messages. Ids that are not known do no harm.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>", length(max = 1000))]
    pub(crate) ids: Option<Vec<String>>,
}

/// How a stream's messages are acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AckMode {
    /// By `POST /v1/acks`.
    #[default]
    Explicit,
    /// By coming back with `Last-Event-ID`.
    Resume,
}

/// What stream is wanted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamQuery {
    /// The device; must be the one that calls.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub(crate) device: Option<DeviceId>,
    /// The last cursor that the client has. The header `Last-Event-ID` wins.
    #[serde(default)]
    pub(crate) cursor: Option<String>,
    /// Most unacknowledged messages with `ack=explicit`.
    #[serde(default)]
    #[schemars(range(min = 1, max = 256))]
    pub(crate) inflight: Option<u16>,
    /// Instead of `Authorization`, for pages of browsers.
    #[serde(default)]
    pub(crate) ticket: Option<String>,
    /// How messages are acknowledged.
    #[serde(default)]
    pub(crate) ack: AckMode,
    /// The session that `welcome` named before: a client that was replaced (`taken`) and asks again within 5 s is told 204, to stay away.
    #[serde(default)]
    pub(crate) session: Option<String>,
}

/// What a poll asks.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PollQuery {
    /// The device; must be the one that calls.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub(crate) device: Option<DeviceId>,
    /// The cursor of the last answer: everything up to it is acknowledged. Without one, the answer begins at the device's own place.
    #[serde(default)]
    pub(crate) cursor: Option<String>,
    /// Seconds to wait for a first message; 25 when absent.
    #[serde(default)]
    #[schemars(range(min = 0, max = 60))]
    pub(crate) wait: Option<u8>,
    /// Most messages.
    #[serde(default = "poll_limit")]
    #[schemars(range(min = 1, max = 500))]
    pub(crate) limit: u16,
}

const fn poll_limit() -> u16 {
    100
}

/// What a poll is answered.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Polled {
    /// To be given with the next poll.
    pub(crate) cursor: String,
    /// The newest place.
    pub(crate) head: String,
    /// There is more to fetch at once.
    pub(crate) more: bool,
    /// The cursor was of another inbox or epoch: these begin at what the device acknowledged.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) reset: bool,
    /// A newer poll of the device took over.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) superseded: bool,
    /// Messages in order, each with the fields of `msg` of the live connection.
    #[schemars(with = "Vec<serde_json::Value>")]
    pub(crate) messages: Vec<Box<RawValue>>,
    /// Messages to be taken out of sight, each with the fields of `recall` of the live connection. They came earlier, or
    /// stand in `messages`; the cursor acknowledges these too.
    #[schemars(with = "Vec<serde_json::Value>")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) recalled: Vec<Box<RawValue>>,
}

/// What the person did with a message.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// It was shown.
    Displayed,
    /// It was tapped.
    Clicked,
    /// The app was opened through it.
    Opened,
    /// It was swiped away.
    Dismissed,
}

impl From<Kind> for Stage {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Displayed => Self::Displayed,
            Kind::Clicked => Self::Clicked,
            Kind::Opened => Self::Opened,
            Kind::Dismissed => Self::Dismissed,
        }
    }
}

/// One thing that happened on the device.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClientEvent {
    /// The message.
    #[schemars(with = "String", extend("format" = "uuid"))]
    pub(crate) id: MessageId,
    /// What happened. It counts once per message and device.
    pub(crate) kind: Kind,
    /// When, by the device's clock; now when absent.
    #[serde(default)]
    pub(crate) at: Option<Moment>,
}

/// How the device logs in over XMPP, with its device token as the password.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct XmppLogin {
    /// Its address, without a resource.
    pub(crate) jid: String,
    /// What the stream is opened to.
    pub(crate) domain: String,
    /// What it may prove itself by; those with `-PLUS` only over TLS 1.3.
    pub(crate) mechanisms: Vec<String>,
}
