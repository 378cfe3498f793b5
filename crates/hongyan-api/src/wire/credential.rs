//! Vendor credentials on the wire. Secrets go in and never out.

use std::fmt;

use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use hongyan_core::app;
use hongyan_core::port::CheckReport;
use hongyan_core::{ChannelId, CredentialName};

use super::{Moment, Patch};

/// A credential to store.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CredentialState {
    /// The vendor's configuration, with its secrets, as the channel's page describes it.
    pub(crate) config: Map<String, Value>,
    /// Where the vendor is, when not at its usual address: `https://host[:port]`.
    #[serde(default)]
    #[schemars(length(max = 2048))]
    pub(crate) endpoint: Option<String>,
    /// Limits of the lane, when not the channel's usual ones.
    #[serde(default)]
    pub(crate) limits: Limits,
}

impl fmt::Debug for CredentialState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialState(…)")
    }
}

/// What to change of a credential. What is left out stays. Configuration and endpoint say where the secrets go, so they come
/// with the secrets or not at all: with PUT.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CredentialChange {
    /// Limits of the lane; `null` clears them all.
    pub(crate) limits: Patch<LimitsChange>,
    /// Whether a configuration was given, even `null`.
    #[schemars(skip)]
    #[serde(deserialize_with = "given")]
    pub(crate) config: bool,
    /// Whether an endpoint was given, even `null`.
    #[schemars(skip)]
    #[serde(deserialize_with = "given")]
    pub(crate) endpoint: bool,
}

/// Reads over a value of any kind.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

/// What to change of a lane's limits. What is left out stays; `null` clears.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LimitsChange {
    /// Requests to the vendor per second; devices per second where the vendor counts those.
    pub(crate) rate_per_s: Patch<u32>,
    /// Requests under way at once.
    pub(crate) concurrency: Patch<u32>,
    /// Tries of one delivery before `retries_exhausted`.
    pub(crate) attempts: Patch<u16>,
    /// What may be sent in one of the vendor's days; `null` clears it all.
    pub(crate) quota: Patch<QuotaChange>,
}

/// What to change of a daily quota. What is left out stays; `null` clears.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct QuotaChange {
    /// Pushes of all classes.
    pub(crate) per_day: Patch<u64>,
    /// Of these, how many are kept for `im` and `transaction`; the same part of `marketing_per_day` where one of them goes out as
    /// marketing.
    pub(crate) reserved: Patch<u64>,
    /// Pushes that the vendor counts as marketing.
    pub(crate) marketing_per_day: Patch<u64>,
    /// Pushes to one device that the vendor counts as marketing.
    pub(crate) marketing_per_device: Patch<u32>,
}

impl CredentialChange {
    /// Limits as they are after the change.
    pub(crate) fn apply(&self, limits: Limits) -> Limits {
        match &self.limits {
            Patch::Leave => limits,
            Patch::Clear => Limits::default(),
            Patch::Set(change) => change.apply(limits),
        }
    }
}

impl LimitsChange {
    fn apply(&self, mut limits: Limits) -> Limits {
        self.rate_per_s.clone().apply(&mut limits.rate_per_s);
        self.concurrency.clone().apply(&mut limits.concurrency);
        self.attempts.clone().apply(&mut limits.attempts);
        let quota = &mut limits.quota;
        match &self.quota {
            Patch::Leave => {}
            Patch::Clear => *quota = Quota::default(),
            Patch::Set(change) => {
                change.per_day.clone().apply(&mut quota.per_day);
                change.reserved.clone().apply(&mut quota.reserved);
                let marketing = &mut quota.marketing_per_day;
                change.marketing_per_day.clone().apply(marketing);
                let each = &mut quota.marketing_per_device;
                change.marketing_per_device.clone().apply(each);
            }
        }
        limits
    }
}

/// How to delete a credential.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeleteQuery {
    /// Whether it is deleted although it is in use.
    #[serde(default)]
    pub(crate) force: bool,
}

/// Limits of the lane of one credential; absent ones are the channel's own.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    /// Requests to the vendor per second; devices per second where the vendor counts those (`huawei`, `harmony`, `oppo`, `apns`,
    /// `fcm`, `webpush`). At a web push service it is each service's own.
    #[schemars(range(min = 1))]
    pub(crate) rate_per_s: Option<u32>,
    /// Requests under way at once.
    #[schemars(range(min = 1))]
    pub(crate) concurrency: Option<u32>,
    /// Tries of one delivery before `retries_exhausted`.
    #[schemars(range(min = 1))]
    pub(crate) attempts: Option<u16>,
    /// What may be sent in one of the vendor's days.
    pub(crate) quota: Quota,
}

/// What may be sent in one of the vendor's days; absent ones are no limits.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Quota {
    /// Pushes of all classes.
    pub(crate) per_day: Option<u64>,
    /// Of these, how many are kept for `im` and `transaction`; a fifth when left out. The same part of `marketing_per_day` where
    /// one of them goes out as marketing.
    pub(crate) reserved: Option<u64>,
    /// Pushes that the vendor counts as marketing: of `marketing`, and of a class that goes out as public.
    pub(crate) marketing_per_day: Option<u64>,
    /// Pushes to one device that the vendor counts as marketing.
    pub(crate) marketing_per_device: Option<u32>,
}

impl From<Quota> for app::DailyQuota {
    fn from(q: Quota) -> Self {
        Self {
            per_day: q.per_day,
            reserved: q.reserved,
            marketing_per_day: q.marketing_per_day,
            marketing_per_device: q.marketing_per_device,
        }
    }
}

impl From<app::DailyQuota> for Quota {
    fn from(q: app::DailyQuota) -> Self {
        Self {
            per_day: q.per_day,
            reserved: q.reserved,
            marketing_per_day: q.marketing_per_day,
            marketing_per_device: q.marketing_per_device,
        }
    }
}

impl From<Limits> for app::LaneLimits {
    fn from(l: Limits) -> Self {
        Self {
            rate_per_s: l.rate_per_s,
            concurrency: l.concurrency,
            attempts: l.attempts,
            quota: l.quota.into(),
        }
    }
}

impl From<app::LaneLimits> for Limits {
    fn from(l: app::LaneLimits) -> Self {
        Self {
            rate_per_s: l.rate_per_s,
            concurrency: l.concurrency,
            attempts: l.attempts,
            quota: l.quota.into(),
        }
    }
}

/// A credential, without its secrets.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Credential {
    /// The channel.
    #[schemars(with = "String")]
    pub(crate) channel: ChannelId,
    /// Its name.
    #[schemars(with = "String")]
    pub(crate) name: CredentialName,
    /// The fields that are no secrets.
    pub(crate) config: Map<String, Value>,
    /// Where the vendor is, when not at its usual address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<String>,
    /// Limits of the lane.
    pub(crate) limits: Limits,
    /// Where its vendor may post receipts to, for the vendor's console; it holds a secret. Absent when it posts none, or
    /// the server has no public address (`http.public_url`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) callback_url: Option<String>,
    /// When it was made.
    pub(crate) created_at: Moment,
    /// When it was last changed.
    pub(crate) updated_at: Moment,
}

impl Credential {
    pub(crate) fn of(c: app::Credential, callback_url: Option<String>) -> Self {
        Self {
            callback_url,
            channel: c.channel,
            name: c.name,
            config: c.shown,
            endpoint: c.endpoint,
            limits: c.limits.into(),
            created_at: c.created_at.into(),
            updated_at: c.updated_at.into(),
        }
    }
}

/// What the vendor said to a credential.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Checked {
    /// Whether it can be used.
    pub(crate) ok: bool,
    /// What is wrong, and what to do.
    pub(crate) detail: String,
}

impl From<CheckReport> for Checked {
    fn from(report: CheckReport) -> Self {
        Self {
            ok: report.ok,
            detail: report.detail,
        }
    }
}
