//! What devices say over HTTP.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
