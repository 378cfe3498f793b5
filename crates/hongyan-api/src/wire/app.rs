//! Apps and keys on the wire.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use hongyan_core::app::{self, KeyKind, QuotaOverflow, Scope};
use hongyan_core::{AppId, ChannelId, Class, KeyId};

use super::user::QuietHours;
use super::{Moment, Patch, schema};

/// A tenant.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct App {
    /// Its id.
    #[schemars(with = "String")]
    pub(crate) id: AppId,
    /// A name for people.
    pub(crate) name: String,
    /// What the app decides for all its messages.
    pub(crate) policy: Policy,
    /// When it was made.
    pub(crate) created_at: Moment,
}

/// What an app decides for all its messages; a message may narrow it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Policy {
    /// Channels in the order in which they are tried. What it does not name follows: the maker's own channel, then others
    /// as they were measured to deliver, `fcm`, and `sms`.
    #[schemars(with = "Vec<String>")]
    pub(crate) channel_order: Vec<ChannelId>,
    /// Whether `fcm` comes first where nothing else is named: for users abroad.
    pub(crate) fcm_first: bool,
    /// Classes for which `sms` may be used without being named by the message: each text costs money.
    #[schemars(schema_with = "schema::classes")]
    pub(crate) sms_fallback: Vec<Class>,
    /// What becomes of a push that finds its channel's daily quota used up. `hold`: `marketing` and `subscription` wait for the
    /// next day, the others go through another channel. `spill`: all go through another channel, if the device has one.
    #[schemars(schema_with = "schema::quota_overflow")]
    pub(crate) quota_overflow: QuotaOverflow,
    /// Whether a text that is too long for a vendor is refused instead of shortened.
    pub(crate) strict_payload: bool,
    /// Quiet hours for users who set none themselves.
    pub(crate) quiet_hours: Option<QuietHours>,
    /// IANA time zone for users and devices that name none.
    pub(crate) timezone: String,
    /// Origins of web pages that may register devices and connect, such as `https://app.example.com`.
    pub(crate) origins: Vec<String>,
    /// Whether a device's own login needs a `user_token` signed by the app's server.
    pub(crate) require_user_token: bool,
}

impl Default for Policy {
    fn default() -> Self {
        app::AppPolicy::default().into()
    }
}

impl From<app::AppPolicy> for Policy {
    fn from(policy: app::AppPolicy) -> Self {
        Self {
            channel_order: policy.channel_order,
            fcm_first: policy.fcm_first,
            sms_fallback: policy.sms_fallback,
            quota_overflow: policy.quota_overflow,
            strict_payload: policy.strict_payload,
            quiet_hours: policy.quiet_hours.map(QuietHours::from),
            timezone: policy.timezone,
            origins: policy.origins,
            require_user_token: policy.require_user_token,
        }
    }
}

impl From<Policy> for app::AppPolicy {
    fn from(policy: Policy) -> Self {
        Self {
            channel_order: policy.channel_order,
            fcm_first: policy.fcm_first,
            sms_fallback: policy.sms_fallback,
            quota_overflow: policy.quota_overflow,
            strict_payload: policy.strict_payload,
            quiet_hours: policy.quiet_hours.map(Into::into),
            timezone: policy.timezone,
            origins: policy.origins,
            require_user_token: policy.require_user_token,
        }
    }
}

impl From<app::App> for App {
    fn from(app: app::App) -> Self {
        Self {
            id: app.id,
            name: app.name,
            policy: app.policy.into(),
            created_at: app.created_at.into(),
        }
    }
}

/// A tenant to make.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewApp {
    /// Its id, for ever.
    #[schemars(with = "String", regex(pattern = "^[a-z0-9_-]{1,32}$"))]
    pub(crate) id: AppId,
    /// A name for people.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub(crate) name: String,
    /// What the app decides for all its messages.
    #[serde(default)]
    pub(crate) policy: Policy,
}

/// What to change of a tenant. Fields that are left out stay.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AppChange {
    /// A name for people.
    #[serde(default)]
    pub(crate) name: Patch<String>,
    /// Parts of the policy.
    #[serde(default)]
    pub(crate) policy: Option<PolicyChange>,
}

/// What to change of a policy. Fields that are left out stay; `null` takes the default.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PolicyChange {
    /// Channels in the order in which they are tried.
    #[schemars(with = "Option<Vec<String>>")]
    pub(crate) channel_order: Patch<Vec<ChannelId>>,
    /// Whether `fcm` comes first where nothing else is named.
    pub(crate) fcm_first: Patch<bool>,
    /// Classes for which `sms` may be used without being named.
    #[schemars(schema_with = "schema::classes")]
    pub(crate) sms_fallback: Patch<Vec<Class>>,
    /// What becomes of a push that finds its channel's daily quota used up.
    #[schemars(schema_with = "schema::quota_overflow")]
    pub(crate) quota_overflow: Patch<QuotaOverflow>,
    /// Whether a text that is too long for a vendor is refused.
    pub(crate) strict_payload: Patch<bool>,
    /// Quiet hours for users who set none themselves.
    pub(crate) quiet_hours: Patch<QuietHours>,
    /// IANA time zone.
    pub(crate) timezone: Patch<String>,
    /// Origins of web pages.
    pub(crate) origins: Patch<Vec<String>>,
    /// Whether a device's own login needs a `user_token`.
    pub(crate) require_user_token: Patch<bool>,
}

impl PolicyChange {
    pub(crate) fn apply(self, policy: &mut Policy) {
        self.channel_order
            .apply_or_default(&mut policy.channel_order);
        self.fcm_first.apply_or_default(&mut policy.fcm_first);
        self.sms_fallback.apply_or_default(&mut policy.sms_fallback);
        self.quota_overflow
            .apply_or_default(&mut policy.quota_overflow);
        self.strict_payload
            .apply_or_default(&mut policy.strict_payload);
        self.quiet_hours.apply(&mut policy.quiet_hours);
        match self.timezone {
            Patch::Leave => {}
            Patch::Clear => policy.timezone = Policy::default().timezone,
            Patch::Set(timezone) => policy.timezone = timezone,
        }
        self.origins.apply_or_default(&mut policy.origins);
        self.require_user_token
            .apply_or_default(&mut policy.require_user_token);
    }
}

/// A key, without its secret.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Key {
    /// Public handle.
    #[schemars(with = "String")]
    pub(crate) id: KeyId,
    /// The kind.
    #[schemars(schema_with = "schema::key_kind")]
    pub(crate) kind: KeyKind,
    /// What a server key may do.
    #[schemars(schema_with = "schema::scopes")]
    pub(crate) scopes: Vec<Scope>,
    /// A name for people.
    pub(crate) name: String,
    /// When it was made.
    pub(crate) created_at: Moment,
}

impl From<app::Key> for Key {
    fn from(key: app::Key) -> Self {
        Self {
            id: key.id,
            kind: key.kind,
            scopes: key.scopes,
            name: key.name,
            created_at: key.created_at.into(),
        }
    }
}

/// A key to make.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewKey {
    /// `server` or `client`.
    #[serde(default = "NewKey::server")]
    #[schemars(schema_with = "NewKey::kinds")]
    pub(crate) kind: KeyKind,
    /// What a server key may do; everything when absent. Client keys have none.
    #[serde(default)]
    #[schemars(schema_with = "schema::scopes")]
    pub(crate) scopes: Option<Vec<Scope>>,
    /// A name for people.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub(crate) name: String,
}

impl NewKey {
    const fn server() -> KeyKind {
        KeyKind::Server
    }

    fn kinds(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "enum": ["server", "client"], "default": "server"})
    }
}

/// A new key; its secret is shown this once.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct MadeKey {
    /// The key.
    #[serde(flatten)]
    pub(crate) key: Key,
    /// The secret: `hy_sk_…` or `hy_pk_…`. It is not stored and cannot be shown again.
    pub(crate) secret: String,
}
