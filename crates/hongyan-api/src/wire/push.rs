//! Channels of devices on the wire.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use hongyan_core::{PushChannel, PushEndpoint, UserId};

use super::Moment;

/// A channel that a device wants: an address that others post to.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NewChannel {
    /// The channel's own id, normally a UUID; made by the server when absent.
    #[schemars(with = "Option<String>", length(min = 1, max = 64))]
    pub(crate) channel: Option<PushChannel>,
    /// What the device knows the channel by, such as a hash of its connector's token: the same again gets the same channel.
    #[schemars(length(min = 1, max = 100))]
    pub(crate) token_hash: Option<String>,
    /// The one VAPID key that may post: an uncompressed P-256 point in base64url. Without it everybody may who has the address.
    #[schemars(length(min = 87, max = 88))]
    pub(crate) vapid: Option<String>,
    /// Text for people.
    #[schemars(length(max = 100))]
    pub(crate) description: Option<String>,
}

/// An open channel.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Channel {
    /// Its id: `ch` of the messages that come over it.
    #[schemars(with = "String")]
    channel: PushChannel,
    /// The address for senders. Whoever has it may post: keep it as a secret.
    endpoint: String,
    /// What the device knows it by.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_hash: Option<String>,
    /// Whether it is bound to a VAPID key.
    bound: bool,
    /// Text for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// Since when it is open.
    created_at: Moment,
}

impl Channel {
    pub(crate) fn new(record: PushEndpoint, endpoint: String) -> Self {
        Self {
            channel: record.channel,
            endpoint,
            token_hash: record.label,
            bound: record.vapid.is_some(),
            description: record.description,
            created_at: record.created_at.into(),
        }
    }
}

/// A device's open channels.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Channels {
    /// All of them, by id.
    pub(crate) items: Vec<Channel>,
}

/// What makes a browser a device of a user.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Enrolment {
    /// The user.
    #[schemars(with = "String")]
    pub(crate) user: UserId,
    /// For `dom.push.serverURL`. Until it expires whoever has it can add browsers to the user: give it to nobody else.
    pub(crate) url: String,
    /// From when on it adds no more browsers, a day after it was made; those that it added stay. It also ends with the user.
    pub(crate) expires_at: Moment,
}
