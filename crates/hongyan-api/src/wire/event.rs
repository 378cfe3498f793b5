//! The ledger's events on the wire.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use hongyan_core::device::Platform;
use hongyan_core::{ChannelId, Class, DeviceId, MessageId, Reason, Stage, UserId, event};

use super::{Moment, schema};

/// One thing that happened.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Event {
    /// When.
    pub(crate) at: Moment,
    /// Place in the ledger.
    pub(crate) seq: u64,
    /// What happened.
    #[schemars(schema_with = "schema::stage")]
    pub(crate) stage: Stage,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::maybe_reason")]
    pub(crate) reason: Option<Reason>,
    /// The message.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub(crate) message: Option<MessageId>,
    /// Its class.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::maybe_class")]
    pub(crate) class: Option<Class>,
    /// The user it is meant for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub(crate) user: Option<UserId>,
    /// The device.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub(crate) device: Option<DeviceId>,
    /// The device's platform.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::maybe_platform")]
    pub(crate) platform: Option<Platform>,
    /// The vendor's channel; absent for the long connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub(crate) channel: Option<ChannelId>,
    /// Which try, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) attempt: Option<u16>,
    /// Until when it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<Moment>,
    /// How long the step took, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) took_ms: Option<u32>,
    /// The vendor's words or other detail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<String>,
    /// Whether the delivery ended with this event: its reason is the final outcome.
    pub(crate) r#final: bool,
}

impl From<event::Event> for Event {
    fn from(e: event::Event) -> Self {
        Self {
            at: e.at.into(),
            seq: e.seq,
            stage: e.stage,
            reason: e.reason,
            message: e.message,
            class: e.class,
            user: e.user,
            device: e.device,
            platform: e.platform,
            channel: e.channel,
            attempt: Some(e.attempt).filter(|a| *a > 0),
            until: e.until.map(Moment),
            took_ms: e.took_ms,
            detail: e.detail,
            r#final: e.r#final,
        }
    }
}

/// Events in order.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Trace {
    /// In ledger order.
    pub(crate) events: Vec<Event>,
    /// Give this as `after` to get the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<u64>,
}

/// Which part of a trace.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TraceQuery {
    /// Events after this place in the ledger.
    #[serde(default)]
    pub(crate) after: u64,
    /// At most so many.
    #[serde(default = "default_limit")]
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) limit: usize,
}

/// Which part of a message's trace.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MessageTraceQuery {
    /// Only events of this user.
    #[serde(default)]
    pub(crate) user: Option<String>,
    /// Only events of this device.
    #[serde(default)]
    pub(crate) device: Option<String>,
    /// Events after this place in the ledger.
    #[serde(default)]
    pub(crate) after: u64,
    /// At most so many.
    #[serde(default = "default_limit")]
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) limit: usize,
}

/// Which events of the live tail. At most one of message, user and device.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TailQuery {
    /// Events after this place in the ledger; from now on when absent. The header `Last-Event-ID` wins.
    #[serde(default)]
    pub(crate) after: Option<u64>,
    /// Only events of this message.
    #[serde(default)]
    pub(crate) message: Option<String>,
    /// Only events of this user.
    #[serde(default)]
    pub(crate) user: Option<String>,
    /// Only events of this device.
    #[serde(default)]
    pub(crate) device: Option<String>,
}

const fn default_limit() -> usize {
    hongyan_core::limits::EVENTS_PAGE_LEN_MAX
}
