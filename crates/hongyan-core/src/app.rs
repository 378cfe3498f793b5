//! Tenants, their keys and their vendor credentials.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::{AppId, ChannelId, Class, CredentialName, KeyId, Timestamp};

/// A tenant: owns keys, credentials, policies and everything below.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct App {
    /// Its id.
    pub id: AppId,
    /// A name for people.
    #[serde(default)]
    pub name: String,
    /// What the app decides for all its messages.
    #[serde(default)]
    pub policy: AppPolicy,
    /// When it was made.
    pub created_at: Timestamp,
    /// Grows with every change; checked on write.
    #[serde(default)]
    pub version: u64,
}

/// What an app decides for all its messages; a message may narrow it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AppPolicy {
    /// Channels in the order in which they are tried; what it does not name follows, best first: the maker's own channel,
    /// others as they were measured to deliver, `fcm`, then `sms`. Empty leaves all to that.
    pub channel_order: Vec<ChannelId>,
    /// Whether `fcm` comes first where nothing else is named: for users abroad.
    pub fcm_first: bool,
    /// Classes for which `sms` may be used without being named by the message: it costs money for each.
    pub sms_fallback: Vec<Class>,
    /// What becomes of a push that finds its channel's daily quota used up.
    pub quota_overflow: QuotaOverflow,
    /// Whether a text that is too long for a vendor is refused instead of shortened.
    pub strict_payload: bool,
    /// Quiet hours for the classes named in it, for users who set none themselves.
    pub quiet_hours: Option<crate::user::QuietHours>,
    /// IANA time zone for users and devices that name none.
    pub timezone: String,
    /// Origins of browsers that may connect; empty means none but missing `Origin`.
    pub origins: Vec<String>,
    /// Whether `login` needs a `user_token` signed by the app's own server.
    pub require_user_token: bool,
}

impl Default for AppPolicy {
    fn default() -> Self {
        Self {
            channel_order: Vec::new(),
            fcm_first: false,
            sms_fallback: Vec::new(),
            quota_overflow: QuotaOverflow::default(),
            strict_payload: false,
            quiet_hours: None,
            timezone: "UTC".to_owned(),
            origins: Vec::new(),
            require_user_token: false,
        }
    }
}

/// What becomes of a push that finds its channel's daily quota used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuotaOverflow {
    /// `marketing` and `subscription` wait for the next day, as long as they live; the other classes go through another
    /// channel of the device, if it has one.
    #[default]
    Hold,
    /// All go through another channel of the device, and wait only when there is none.
    Spill,
}

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Send messages.
    Send,
    /// Read devices, messages, traces and reports.
    Read,
    /// Manage credentials, devices, templates and campaigns.
    Manage,
}

/// Which of the three kinds of API key it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyKind {
    /// `hy_admin_…`: everything; belongs to no app.
    Admin,
    /// `hy_sk_…`: one app, by scopes.
    Server,
    /// `hy_pk_…`: public; may only register devices of one app.
    Client,
}

/// An API key; only the hash of its secret is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Key {
    /// Public handle.
    pub id: KeyId,
    /// The kind.
    pub kind: KeyKind,
    /// The app, unless it is an admin key.
    pub app: Option<AppId>,
    /// What a server key may do.
    #[serde(default)]
    pub scopes: Vec<Scope>,
    /// A name for people.
    #[serde(default)]
    pub name: String,
    /// SHA-256 of the secret.
    pub hash: [u8; 32],
    /// When it was made.
    pub created_at: Timestamp,
}

/// The credentials that an app has, by channel. Whether one can be used is the vendor's word, later.
#[derive(Debug, Clone, Default)]
pub struct CredentialIndex {
    by_channel: HashMap<ChannelId, Vec<CredentialName>>,
}

impl CredentialIndex {
    /// Adds one.
    pub fn add(&mut self, channel: ChannelId, name: CredentialName) {
        self.by_channel.entry(channel).or_default().push(name);
    }

    /// The credential for a token: the named one, else `default`, else the only one.
    #[must_use]
    pub fn pick(
        &self,
        channel: &ChannelId,
        wanted: Option<&CredentialName>,
    ) -> Option<&CredentialName> {
        let names = self.by_channel.get(channel)?;
        match wanted {
            Some(wanted) => names.iter().find(|n| *n == wanted),
            None => names
                .iter()
                .find(|n| n.as_str() == "default")
                .or(match names.as_slice() {
                    [only] => Some(only),
                    _ => None,
                }),
        }
    }
}

/// A channel's named secrets in an app, sealed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Credential {
    /// The app.
    pub app: AppId,
    /// The channel.
    pub channel: ChannelId,
    /// Its name; `default` when the caller gave none.
    pub name: CredentialName,
    /// The channel's configuration as JSON, sealed by the master key.
    pub sealed: Vec<u8>,
    /// What may be shown of it: the non-secret fields.
    #[serde(default)]
    pub shown: serde_json::Map<String, serde_json::Value>,
    /// Where the vendor is, when not at its usual address.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Limits of the lane, when not the channel's usual ones.
    #[serde(default)]
    pub limits: LaneLimits,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Grows with every change.
    #[serde(default)]
    pub version: u64,
}

/// Limits of the lane of one credential. `None` takes the channel's own value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct LaneLimits {
    /// Requests to the vendor per second; devices per second where the vendor counts those.
    pub rate_per_s: Option<u32>,
    /// Requests under way at once.
    pub concurrency: Option<u32>,
    /// Tries of one delivery before `retries_exhausted`.
    pub attempts: Option<u16>,
    /// What may be sent in one of the vendor's days.
    pub quota: DailyQuota,
}

/// What a credential may send in one of its vendor's days. `None` is no limit of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct DailyQuota {
    /// Pushes of all classes.
    pub per_day: Option<u64>,
    /// Of these, how many are kept for `im` and `transaction`; a fifth when absent. The same part is kept of the limit on marketing
    /// where one of them goes out as that.
    pub reserved: Option<u64>,
    /// Pushes that the vendor counts as marketing: of `marketing`, and of a class that goes out as public.
    pub marketing_per_day: Option<u64>,
    /// Such pushes to one device.
    pub marketing_per_device: Option<u32>,
}

impl DailyQuota {
    /// Whether there is no limit.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.per_day.is_none()
            && self.marketing_per_day.is_none()
            && self.marketing_per_device.is_none()
    }
}
