//! Reports on the wire.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What to count.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FunnelQuery {
    /// First day, UTC, `YYYY-MM-DD`; six days before `to` when absent.
    #[serde(default)]
    pub(crate) from: Option<String>,
    /// Last day, UTC; today when absent.
    #[serde(default)]
    pub(crate) to: Option<String>,
    /// Only this message (days are not looked at).
    #[serde(default)]
    pub(crate) message: Option<String>,
    /// Only this class.
    #[serde(default)]
    pub(crate) class: Option<String>,
    /// Only this channel; `connection` is the long connection and everything before a channel is chosen.
    #[serde(default)]
    pub(crate) channel: Option<String>,
    /// Only this platform.
    #[serde(default)]
    pub(crate) platform: Option<String>,
    /// One row for each `day`, `class`, `channel` or `platform`.
    #[serde(default)]
    pub(crate) by: Option<By>,
}

/// What makes a row.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum By {
    /// A day, UTC.
    Day,
    /// A class.
    Class,
    /// A channel.
    Channel,
    /// A platform.
    Platform,
}

/// Counters by stage and reason.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct Counts {
    /// Events by stage, in the order of the way.
    pub(crate) stages: Vec<StageCount>,
    /// Final outcomes by reason.
    pub(crate) reasons: BTreeMap<&'static str, u64>,
}

/// How often a stage was reached.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct StageCount {
    /// The stage.
    pub(crate) stage: &'static str,
    /// How many events.
    pub(crate) count: u64,
}

/// A funnel.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Funnel {
    /// First day that was counted; absent for one message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<String>,
    /// Last day that was counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<String>,
    /// Everything together.
    #[serde(flatten)]
    pub(crate) total: Counts,
    /// By `by`, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rows: Option<Vec<FunnelRow>>,
}

/// One row of a funnel.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FunnelRow {
    /// The day, class, channel or platform.
    pub(crate) name: String,
    /// Its counts.
    #[serde(flatten)]
    pub(crate) counts: Counts,
}

/// Which days.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChannelsQuery {
    /// First day, UTC, `YYYY-MM-DD`; six days before `to` when absent.
    #[serde(default)]
    pub(crate) from: Option<String>,
    /// Last day, UTC; today when absent.
    #[serde(default)]
    pub(crate) to: Option<String>,
}

/// How each way out did.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ChannelsReport")]
pub(crate) struct Channels {
    /// First day that was counted.
    pub(crate) from: String,
    /// Last day that was counted.
    pub(crate) to: String,
    /// Each vendor channel that was used.
    pub(crate) channels: Vec<ChannelRow>,
}

/// How one channel did.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ChannelRow {
    /// The channel.
    pub(crate) channel: String,
    /// Requests for single devices that went out.
    pub(crate) sent: u64,
    /// Those that the vendor took.
    pub(crate) accepted: u64,
    /// Tries that failed and were repeated.
    pub(crate) retried: u64,
    /// Deliveries that went on to another way.
    pub(crate) fallback: u64,
    /// Deliveries that ended here without reaching the device.
    pub(crate) dropped: u64,
    /// Vendor tokens that were found dead.
    pub(crate) tokens_dead: u64,
    /// Why tries and deliveries failed.
    pub(crate) reasons: BTreeMap<&'static str, u64>,
}
