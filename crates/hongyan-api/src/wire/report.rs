//! Reports on the wire.

use std::collections::BTreeMap;

use hongyan_core::port::{DailyLimit, LimitOf};
use hongyan_core::{ChannelId, CredentialName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Moment;
use crate::services::QuotaStanding;

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

/// How the daily quotas stand.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "QuotaReport")]
pub(crate) struct Quotas {
    /// Each credential that has a limit, or that was used today, or of which its vendor takes no more for now.
    pub(crate) credentials: Vec<QuotaRow>,
}

/// How one credential's quota stands in its vendor's day.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct QuotaRow {
    /// The channel.
    #[schemars(with = "String")]
    pub(crate) channel: ChannelId,
    /// The credential.
    #[schemars(with = "String")]
    pub(crate) credential: CredentialName,
    /// When the vendor's day began.
    pub(crate) day_start: Moment,
    /// When the next begins.
    pub(crate) resets_at: Moment,
    /// Taken by the vendor today, by class. What may have been taken, since its answer was lost, counts too.
    pub(crate) used: BTreeMap<&'static str, u64>,
    /// Limit of all classes together.
    pub(crate) per_day: Option<u64>,
    /// Where that limit is from: `configured` or `vendor`.
    pub(crate) per_day_from: Option<&'static str>,
    /// The most that `marketing` may use: the limit on it, or what of the limit of all classes is left when `reserved` is taken
    /// from it, whichever is less. Where an urgent class goes out as marketing, a part of the limit on that is reserved for it.
    pub(crate) marketing_per_day: Option<u64>,
    /// Where that limit is from: `configured` or `vendor`.
    pub(crate) marketing_per_day_from: Option<&'static str>,
    /// The limits that the vendor named itself.
    pub(crate) vendor: Vec<NamedLimit>,
    /// What of `per_day` is kept for `im` and `transaction`, and not used yet.
    pub(crate) reserved: u64,
    /// What of the limit on marketing is kept for `im` and `transaction` that were not granted and go out as marketing, and not
    /// used yet.
    pub(crate) marketing_reserved: u64,
    /// When the limit of all classes will be reached if the day goes on as it began; absent when not today.
    pub(crate) runs_out_at: Option<Moment>,
    /// When nothing will be left for `marketing`.
    pub(crate) marketing_runs_out_at: Option<Moment>,
    /// Until when the vendor takes no more of at least one class, by its own word; the last of them.
    pub(crate) closed_until: Option<Moment>,
    /// Those classes: pushes of them wait, or go another way. Of `transaction` it may be some kinds only, where some were granted
    /// and others not.
    pub(crate) closed: BTreeMap<&'static str, ClosedClass>,
}

/// A class of which a vendor takes no more for now.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ClosedClass {
    /// Until when: the end of the vendor's day, or the time that it named. Where the vendor does not mind, one push asks now
    /// and then whether it still is.
    pub(crate) until: Moment,
    /// The vendor's words.
    pub(crate) why: String,
}

/// A daily limit by the vendor's own word.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct NamedLimit {
    /// Whose it is: `all`, `marketing` (what the vendor counts as that), or `part` of the pushes, which is shown and limits
    /// nothing.
    pub(crate) of: &'static str,
    /// Which part, in the vendor's words.
    pub(crate) part: String,
    /// Pushes a day.
    pub(crate) limit: u64,
    /// How many of them the vendor counts.
    pub(crate) used: Option<u64>,
    /// When it said so.
    pub(crate) at: Moment,
}

impl From<DailyLimit> for NamedLimit {
    fn from(named: DailyLimit) -> Self {
        Self {
            of: match named.of {
                LimitOf::All => "all",
                LimitOf::Marketing => "marketing",
                LimitOf::Part => "part",
            },
            part: named.part,
            limit: named.limit,
            used: named.used,
            at: named.at.into(),
        }
    }
}

impl From<QuotaStanding> for QuotaRow {
    fn from(q: QuotaStanding) -> Self {
        let from = |limit: Option<u64>, named: bool| {
            let from = if named { "vendor" } else { "configured" };
            limit.map(|_| from)
        };
        Self {
            per_day_from: from(q.per_day, q.per_day_named),
            marketing_per_day_from: from(q.marketing_per_day, q.marketing_named),
            vendor: q.named.into_iter().map(NamedLimit::from).collect(),
            channel: q.channel,
            credential: q.credential,
            day_start: q.day_start.into(),
            resets_at: q.resets_at.into(),
            used: q.used.into_iter().map(|(c, n)| (c.as_str(), n)).collect(),
            per_day: q.per_day,
            marketing_per_day: q.marketing_per_day,
            reserved: q.reserved,
            marketing_reserved: q.marketing_reserved,
            runs_out_at: q.runs_out_at.map(Into::into),
            marketing_runs_out_at: q.marketing_runs_out_at.map(Into::into),
            closed_until: q.closed.iter().map(|c| c.until).max().map(Into::into),
            closed: (q.closed.into_iter())
                .map(|c| {
                    let (until, why) = (c.until.into(), c.why);
                    (c.class.as_str(), ClosedClass { until, why })
                })
                .collect(),
        }
    }
}
